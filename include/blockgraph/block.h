/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph: nodes, edges, permissions, drain.
 *
 * All functions here run in the thread of the graph's main context unless they
 * say otherwise.  Those named *_co_* are coroutines; the ones without "co" that
 * do the same run the event loop and are called outside coroutines.
 */
#ifndef BLOCKGRAPH_BLOCK_H
#define BLOCKGRAPH_BLOCK_H

#include <blockgraph/aio.h>
#include <blockgraph/error.h>
#include <blockgraph/options.h>

G_BEGIN_DECLS

/** The version of the library that runs, "MAJOR.MINOR.PATCH".  Any thread. */
BLOCK_API const char *block_version(void);

/* --- graphs --------------------------------------------------------------- */

/**
 * An empty graph.
 *
 * @ctx  its main context, bound to the calling thread by this call; NULL: the
 *       graph makes its own, on the engine AUTO
 *
 * Returns the graph, or NULL with @errp set.  The caller owns it.
 */
BLOCK_API BlockGraph *block_graph_new(AioContext *ctx, GError **errp);

/**
 * Free @graph.  All BlockBackends are gone and all references to nodes dropped
 * before, those to throttle groups as well; what is left is a bug of the
 * caller and aborts.
 */
BLOCK_API void block_graph_free(BlockGraph *graph);

/** The main context of @graph.  Thread: any. */
BLOCK_API AioContext *block_graph_aio_context(BlockGraph *graph);

/** How many nodes @graph holds. */
BLOCK_API size_t block_graph_nr_nodes(const BlockGraph *graph);

/* --- permissions ---------------------------------------------------------- */

/** What a user of a node may do, or lets others do. */
typedef enum BlockPermBits {
    BLK_PERM_CONSISTENT_READ = 1 << 0, /* what is read makes sense as a whole */
    BLK_PERM_WRITE = 1 << 1,           /* change the content */
    BLK_PERM_WRITE_UNCHANGED = 1 << 2, /* write what is already read there */
    BLK_PERM_RESIZE = 1 << 3,          /* change the length */
    BLK_PERM_ALL = (1 << 4) - 1,
} BlockPermBits;

/** Permissions on one edge, or of one node over all its parents. */
typedef struct BlockPerm {
    uint64_t used;   /* what this user does */
    uint64_t shared; /* what it lets all others do */
} BlockPerm;

/** What an edge is for; bits.  With neither DATA, METADATA nor FILTERED the
 * child is the parent's own business: its limits and flushes do not pass up and
 * down. */
typedef enum BdrvChildRole {
    BDRV_CHILD_DATA = 1 << 0,     /* holds guest data */
    BDRV_CHILD_METADATA = 1 << 1, /* holds the parent's metadata */
    BDRV_CHILD_FILTERED = 1 << 2, /* the parent passes its content on */
    BDRV_CHILD_COW = 1 << 3,      /* read where the parent holds nothing */
    BDRV_CHILD_PRIMARY = 1 << 4,  /* the main child; at most one */
    BDRV_CHILD_IMAGE = BDRV_CHILD_DATA | BDRV_CHILD_METADATA |
                       BDRV_CHILD_PRIMARY,
} BdrvChildRole;

/** "consistent read, write" for the bits of @perm.  g_free() it.  Any thread. */
BLOCK_API char *bdrv_perm_names(uint64_t perm);

/* --- opening and closing -------------------------------------------------- */

/** How a node is open; from the common options. */
typedef enum BdrvOpenFlags {
    BDRV_O_RDWR = 1 << 0,        /* read-only=off */
    BDRV_O_AUTO_RDONLY = 1 << 1, /* auto-read-only=on */
    BDRV_O_NOCACHE = 1 << 2,     /* cache.direct=on */
    BDRV_O_NO_FLUSH = 1 << 3,    /* cache.no-flush=on */
    BDRV_O_UNMAP = 1 << 4,       /* discard=unmap */
    BDRV_O_FORCE_SHARE = 1 << 5, /* force-share=on */
    BDRV_O_COPY_ON_READ = 1 << 6, /* copy-on-read=on */
    BDRV_O_UNTRUSTED = 1 << 7,   /* untrusted=on */
} BdrvOpenFlags;

/**
 * How many times a node of @graph was closed though not all that it had in
 * memory could be written: data, metadata or stored bitmaps are lost, and a
 * warning has said so.  Closing itself cannot fail.  Thread: main.
 */
BLOCK_API unsigned block_graph_nr_losses(const BlockGraph *graph);

/* --- images that strangers have written ----------------------------------- */

/**
 * Whether what the images of @graph name (backing files, data files) is only
 * opened where the user gives it: as "untrusted=on" in all nodes.  For nodes
 * that open from now on.  Thread: main.
 */
BLOCK_API void block_graph_set_untrusted(BlockGraph *graph, bool untrusted);

/**
 * Files that images name are only opened beneath @directory, from now on, and
 * with no symbolic link on the way from there.  NULL: anywhere.  What the user
 * names is not bound by it.
 *
 * Returns 0 or a negative errno with @errp.  Thread: main; blocks.
 */
BLOCK_API int block_graph_set_image_root(BlockGraph *graph,
                                         const char *directory, GError **errp);

/**
 * How long to open an image, with all below it, or to check one may take: @ns
 * nanoseconds from its beginning, 0 (the default) without limit.  Then it fails
 * with -ETIMEDOUT at its next step, which is one table of the image or one
 * piece of it.  For those that begin from now on.  A repair that was asked for
 * takes as long as it takes.  Thread: main.
 */
BLOCK_API void block_graph_set_image_timeout(BlockGraph *graph, int64_t ns);

/**
 * Have all images of @graph that are being opened or checked, and those that
 * will be while @cancel holds, fail with -ECANCELED at their next step.
 * Thread: main.
 */
BLOCK_API void block_graph_cancel_images(BlockGraph *graph, bool cancel);

/** The options that every node has, whatever its driver. */
BLOCK_API extern const BlockOption bdrv_common_options[];

/**
 * Open a node, with the nodes nested in @options, and add it to @graph.
 *
 * "driver" is needed; "node-name" names the node (1 to 63 of letters, digits,
 * '-', '.', '_', first a letter), else a name beginning with '#' is made.
 *
 * @options  taken over
 *
 * Returns the node with one reference for the caller, or NULL with @errp set
 * and @graph unchanged.
 */
BLOCK_API BlockDriverState *coroutine_fn
bdrv_co_open(BlockGraph *graph, BlockOptions *options, GError **errp);

/** bdrv_co_open() for callers outside coroutines. */
BLOCK_API BlockDriverState *bdrv_open(BlockGraph *graph,
                                      BlockOptions *options, GError **errp);

/** Take one more reference.  Returns @bs. */
BLOCK_API BlockDriverState *bdrv_ref(BlockDriverState *bs);

/**
 * Drop a reference.  The last one closes the node: drains it, flushes it,
 * detaches its children.  NULL is ignored.
 */
BLOCK_API void coroutine_fn bdrv_co_unref(BlockDriverState *bs);

/** bdrv_co_unref() for callers outside coroutines. */
BLOCK_API void bdrv_unref(BlockDriverState *bs);

/**
 * Remove a node that the user added with a node-name: drops the reference of
 * bdrv_open(), but only if nothing uses the node.
 *
 * Returns 0, or -EBUSY with @errp naming the user.
 */
BLOCK_API int coroutine_fn bdrv_co_delete(BlockDriverState *bs, GError **errp);

/** bdrv_co_delete() for callers outside coroutines. */
BLOCK_API int bdrv_delete(BlockDriverState *bs, GError **errp);

/* --- looking at nodes ----------------------------------------------------- */

/** The node of that name, or NULL; no reference is taken. */
BLOCK_API BlockDriverState *bdrv_find_node(BlockGraph *graph,
                                           const char *node_name);

/** The node after @bs in the order of opening; the first for NULL. */
BLOCK_API BlockDriverState *bdrv_next_node(BlockGraph *graph,
                                           BlockDriverState *bs);

/** The graph of @bs.  Thread: any. */
BLOCK_API BlockGraph *bdrv_graph(const BlockDriverState *bs);

/** The name of @bs.  Owned by the node.  Thread: any. */
BLOCK_API const char *bdrv_node_name(const BlockDriverState *bs);

/** The name of the driver of @bs.  Thread: any. */
BLOCK_API const char *bdrv_driver_name(const BlockDriverState *bs);

/** What error texts call @bs: a file name, or "".  Owned by the node. */
BLOCK_API const char *bdrv_filename(const BlockDriverState *bs);

/** The BDRV_O_* flags that @bs is open with. */
BLOCK_API unsigned bdrv_open_flags(const BlockDriverState *bs);

/**
 * The options that @bs is open with, as they were given; children and options
 * that were left at their defaults are not among them.  The caller owns them.
 */
BLOCK_API BlockOptions *bdrv_get_options(const BlockDriverState *bs);

/** Whether @bs refuses writes.  Thread: any. */
BLOCK_API bool bdrv_is_read_only(const BlockDriverState *bs);

/**
 * The length of @bs in bytes as last known.  Thread: main context, or any
 * inside a request (reader rule).
 */
BLOCK_API int64_t bdrv_length(const BlockDriverState *bs);

/** Ask the driver for the length again.  Returns it or a negative errno. */
BLOCK_API int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs);

/**
 * Bytes that the node and its data children occupy; negative errno.  Waits for
 * drained sections of @bs to end.  Thread: main context.
 */
BLOCK_API int64_t coroutine_fn
bdrv_co_get_allocated_size(BlockDriverState *bs);

/** The alignment below which requests to @bs are padded.  Any thread. */
BLOCK_API uint32_t bdrv_request_alignment(const BlockDriverState *bs);

/** The cumulative permissions of all parents of @bs. */
BLOCK_API BlockPerm bdrv_get_perm(const BlockDriverState *bs);

/** Facts about a node. */
typedef struct BlockDriverInfo {
    int64_t cluster_bytes;   /* unit of allocation; 0 = none */
    int64_t vm_state_offset; /* where saved machine state begins; 0 = none */
    bool is_dirty;           /* was not closed properly */
} BlockDriverInfo;

/** Fill @info.  Returns 0, or -ENOTSUP where the driver has none to give. */
BLOCK_API int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info);

/** Called by bdrv_foreach_child(); false ends the walk. */
typedef bool BdrvChildVisitor(BdrvChild *child, void *opaque);

/** Visit the children of @bs in the order they were attached. */
BLOCK_API void bdrv_foreach_child(BlockDriverState *bs,
                                  BdrvChildVisitor *visit, void *opaque);

/** The child of @bs of that name, or NULL. */
BLOCK_API BdrvChild *bdrv_find_child(BlockDriverState *bs, const char *name);

/** The name of an edge ("file", "backing", ...). */
BLOCK_API const char *bdrv_child_name(const BdrvChild *child);

/** The role of an edge. */
BLOCK_API BdrvChildRole bdrv_child_role(const BdrvChild *child);

/** The permissions of an edge. */
BLOCK_API BlockPerm bdrv_child_perm(const BdrvChild *child);

/** The first node below @bs, itself included, that is no filter. */
BLOCK_API BlockDriverState *bdrv_skip_filters(BlockDriverState *bs);

/** The whole graph as JSON text (nodes, edges, permissions).  g_free() it. */
BLOCK_API char *block_graph_dump(BlockGraph *graph);

/* --- changing the graph --------------------------------------------------- */
/*
 * Each is one transaction: it drains what it must, computes the permissions of
 * all nodes concerned, and either happens as a whole or not at all.  Return 0
 * or a negative errno with @errp set.
 */

/**
 * Open a filter (or format) from @options above @bs, and make it the child of
 * all parents of @bs.  The option for its first child ("file"), if it is not
 * there and "backing" is not either, is set to refer to @bs.
 *
 * @options  taken over
 * @ret      the new node with a reference for the caller
 */
BLOCK_API int coroutine_fn bdrv_co_insert_node(BlockDriverState *bs,
                                               BlockOptions *options,
                                               BlockDriverState **ret,
                                               GError **errp);

/** All parents of @from (but those below @to) become parents of @to. */
BLOCK_API int coroutine_fn bdrv_co_replace_node(BlockDriverState *from,
                                                BlockDriverState *to,
                                                GError **errp);

/**
 * Take the filter @bs out: its parents become parents of its child, and the
 * filter is detached from that child.  The caller's reference stays.
 */
BLOCK_API int coroutine_fn bdrv_co_drop_filter(BlockDriverState *bs,
                                               GError **errp);

/**
 * Make @child, an edge between nodes, lead to @bs instead.  The caller sees to
 * it that the edge stays while the call waits.
 */
BLOCK_API int coroutine_fn bdrv_co_replace_child(BdrvChild *child,
                                                 BlockDriverState *bs,
                                                 GError **errp);

/** Make @backing (NULL: nothing) the COW child of @bs. */
BLOCK_API int coroutine_fn bdrv_co_set_backing(BlockDriverState *bs,
                                               BlockDriverState *backing,
                                               GError **errp);

/** bdrv_co_insert_node() for callers outside coroutines. */
BLOCK_API int bdrv_insert_node(BlockDriverState *bs, BlockOptions *options,
                               BlockDriverState **ret, GError **errp);

/** bdrv_co_drop_filter() for callers outside coroutines. */
BLOCK_API int bdrv_drop_filter(BlockDriverState *bs, GError **errp);

/** bdrv_co_replace_node() for callers outside coroutines. */
BLOCK_API int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to,
                                GError **errp);

/** bdrv_co_set_backing() for callers outside coroutines. */
BLOCK_API int bdrv_set_backing(BlockDriverState *bs, BlockDriverState *backing,
                               GError **errp);

/** The edge must not be changed or removed until bdrv_unfreeze_child(). */
BLOCK_API void bdrv_freeze_child(BdrvChild *child);

/** Undo one bdrv_freeze_child(). */
BLOCK_API void bdrv_unfreeze_child(BdrvChild *child);

/**
 * Freeze every edge of the chain (filtered or COW) from @bs down to @base
 * (NULL: to the end).  Returns 0, or -EBUSY with @errp when one is frozen by
 * another.
 */
BLOCK_API int bdrv_freeze_chain(BlockDriverState *bs, BlockDriverState *base,
                                GError **errp);

/** Undo bdrv_freeze_chain(). */
BLOCK_API void bdrv_unfreeze_chain(BlockDriverState *bs,
                                   BlockDriverState *base);

/* --- reopen --------------------------------------------------------------- */

/** Nodes that are to be reopened together. */
typedef struct BdrvReopenQueue BdrvReopenQueue;

/** An empty queue.  The caller owns it until it is run. */
BLOCK_API BdrvReopenQueue *bdrv_reopen_queue_new(BlockGraph *graph);

/**
 * Reopen @bs with @options (taken over).  Options of the node that are not
 * named go back to their defaults, except with @keep: then they stay.
 * "driver" and "node-name" may be repeated but not changed.
 */
BLOCK_API void bdrv_reopen_queue_add(BdrvReopenQueue *queue,
                                     BlockDriverState *bs,
                                     BlockOptions *options, bool keep);

/**
 * Free a queue that is not run.  NULL is ignored.  Closes no node: whoever
 * added one keeps a reference to it until this call.
 */
BLOCK_API void bdrv_reopen_queue_free(BdrvReopenQueue *queue);

/**
 * Reopen all nodes of @queue (taken over), or none: all are drained, prepared,
 * their permissions computed together, then committed.
 *
 * Returns 0, or a negative errno with @errp naming the node that refused.
 */
BLOCK_API int coroutine_fn bdrv_co_reopen_multiple(BdrvReopenQueue *queue,
                                                   GError **errp);

/** bdrv_co_reopen_multiple() for callers outside coroutines. */
BLOCK_API int bdrv_reopen_multiple(BdrvReopenQueue *queue, GError **errp);

/** Reopen one node, keeping options that are not named. */
BLOCK_API int bdrv_reopen(BlockDriverState *bs, BlockOptions *options,
                          GError **errp);

/* --- drain ---------------------------------------------------------------- */

/**
 * Begin a drained section: no new request enters @bs from above, and none is
 * left in flight when the call returns.  Sections nest and may overlap; each
 * is ended by one bdrv_drained_end().
 *
 * A node that opens or closes above @bs waits for the end of sections that
 * other coroutines have begun; callers outside coroutines count as one.  A
 * section whose beginner itself waits so, as he opens, closes or reopens a
 * node, does not hold up others: the graph may be another one afterwards.
 *
 * Not from inside a request: it would wait for itself.
 */
BLOCK_API void coroutine_fn bdrv_co_drained_begin(BlockDriverState *bs);

/** End a drained section; requests that waited go on.  Does not yield. */
BLOCK_API void bdrv_drained_end(BlockDriverState *bs);

/** bdrv_co_drained_begin() for callers outside coroutines. */
BLOCK_API void bdrv_drained_begin(BlockDriverState *bs);

/** Begin a drained section over all nodes of @graph. */
BLOCK_API void coroutine_fn bdrv_co_drain_all_begin(BlockGraph *graph);

/** bdrv_co_drain_all_begin() for callers outside coroutines. */
BLOCK_API void bdrv_drain_all_begin(BlockGraph *graph);

/** End a section of bdrv_co_drain_all_begin(). */
BLOCK_API void bdrv_drain_all_end(BlockGraph *graph);

/** Whether a drained section covers @bs. */
BLOCK_API bool bdrv_is_drained(const BlockDriverState *bs);

/* --- requests: shared types ----------------------------------------------- */

/** How new space is provided when a node grows. */
typedef enum PreallocMode {
    PREALLOC_MODE_OFF,      /* nothing is reserved */
    PREALLOC_MODE_METADATA, /* the format's tables are written */
    PREALLOC_MODE_FALLOC,   /* space is reserved */
    PREALLOC_MODE_FULL,     /* space is written */
} PreallocMode;

/** "off", "metadata", "falloc", "full", NULL. */
BLOCK_API extern const char *const prealloc_mode_names[];

/** A change of length. */
typedef struct BlockTruncate {
    int64_t offset;        /* the new length in bytes */
    bool exact;            /* false: a larger length will do (devices) */
    PreallocMode prealloc; /* for the part that is new */
    unsigned flags;        /* BDRV_REQ_ZERO_WRITE: the new part must be zero */
} BlockTruncate;

/** A copy between nodes. */
typedef struct BlockCopyRange {
    BdrvChild *src;
    int64_t src_offset;
    BdrvChild *dst;
    int64_t dst_offset;
    int64_t bytes;
    unsigned write_flags;
} BlockCopyRange;

/** Facts about an extent; bits. */
typedef enum BdrvBlockStatus {
    BDRV_BLOCK_DATA = 0x01,         /* reading needs storage */
    BDRV_BLOCK_ZERO = 0x02,         /* reads as zero */
    BDRV_BLOCK_OFFSET_VALID = 0x04, /* stored as it is at map in file */
    BDRV_BLOCK_RAW = 0x08,          /* driver to core: ask the file instead */
    BDRV_BLOCK_ALLOCATED = 0x10,    /* decided by this layer, not a lower one;
                                     * neither DATA nor ZERO: unreadable */
    BDRV_BLOCK_EOF = 0x20,          /* the extent reaches the end */
    BDRV_BLOCK_RECURSE = 0x40,      /* driver to core: file may know zeroes */
    BDRV_BLOCK_COMPRESSED = 0x80,   /* stored compressed */
} BdrvBlockStatus;

/** What a caller of block status wants to know exactly; io->flags. */
typedef enum BdrvWant {
    BDRV_WANT_ZERO = 1 << 0,      /* find zeroes, even if that costs a look */
    BDRV_WANT_ALLOCATED = 1 << 1, /* only ALLOCATED matters */
    BDRV_WANT_OFFSET = 1 << 2,    /* map and file are wanted */
} BdrvWant;

/** One extent: what block status answers. */
typedef struct BlockExtent {
    int64_t bytes;          /* its length; 0 only at or beyond the end */
    unsigned status;        /* BdrvBlockStatus */
    int64_t map;            /* with OFFSET_VALID: its offset in @file */
    BlockDriverState *file; /* with OFFSET_VALID: the node that stores it */
} BlockExtent;

/* --- block status at nodes (inside a request, or in the main context) ----- */

/**
 * Describe the first extent of a range as @bs alone sees it, following filters
 * and raw files down, not backing files.
 *
 * Returns 0 with @ret filled (ret->bytes at most @bytes), or a negative errno.
 */
BLOCK_API int coroutine_fn bdrv_co_block_status(BlockDriverState *bs,
                                                int64_t offset, int64_t bytes,
                                                BlockExtent *ret);

/**
 * As bdrv_co_block_status(), but going down the chain of backing files from
 * @bs to @base, which is not looked at (NULL: to the end of the chain).
 */
BLOCK_API int coroutine_fn
bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                           int64_t offset, int64_t bytes, BlockExtent *ret);

/**
 * Whether the range begins with data of this layer: 1 or 0 with the length in
 * @ret_bytes, or a negative errno.
 */
BLOCK_API int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs,
                                                int64_t offset, int64_t bytes,
                                                int64_t *ret_bytes);

/**
 * Whether a layer from @top down to @base has the start of the range.
 *
 * @include_base  whether @base itself is looked at (then not NULL)
 *
 * Returns the depth (1 = @top) or 0, with the length in @ret_bytes, or a
 * negative errno.
 */
BLOCK_API int coroutine_fn
bdrv_co_is_allocated_above(BlockDriverState *top, BlockDriverState *base,
                           bool include_base, int64_t offset, int64_t bytes,
                           int64_t *ret_bytes);

/** Whether the whole range is known to read as zero: 1, 0, or < 0. */
BLOCK_API int coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs,
                                                int64_t offset,
                                                int64_t bytes);

/* --- corrupt images ------------------------------------------------------ */

/** A driver has found that the metadata of an image cannot be right. */
typedef struct BlockCorruptionEvent {
    const char *node_name;
    const char *message;   /* for people; what is wrong */
    int64_t offset;        /* of it in the file of the image; < 0: nowhere */
    int64_t bytes;
    bool fatal;            /* the image is not written any more */
} BlockCorruptionEvent;

typedef void BlockCorruptionListener(const BlockCorruptionEvent *event,
                                     void *opaque);

/** Have @listener told, in the main context; it must not yield.  NULL:
 * nobody. */
BLOCK_API void
block_graph_set_corruption_listener(BlockGraph *graph,
                                    BlockCorruptionListener *listener,
                                    void *opaque);

/* --- write thresholds ---------------------------------------------------- */

/** A write has gone beyond the threshold of a node, which is off now. */
typedef struct BlockThresholdEvent {
    const char *node_name;
    int64_t threshold;     /* bytes */
    int64_t exceeded;      /* by so many bytes */
} BlockThresholdEvent;

typedef void BlockThresholdListener(const BlockThresholdEvent *event,
                                    void *opaque);

/** Have @listener told, in the main context; it must not yield.  NULL:
 * nobody. */
BLOCK_API void
block_graph_set_threshold_listener(BlockGraph *graph,
                                   BlockThresholdListener *listener,
                                   void *opaque);

/**
 * Tell the listener, once, when a write, zero write or copy to @bs that has
 * gone well ended beyond @bytes.  0: do not.
 */
BLOCK_API void bdrv_set_write_threshold(BlockDriverState *bs, int64_t bytes);

/** The threshold of @bs in bytes; 0: none, or it was passed.  Any thread. */
BLOCK_API int64_t bdrv_write_threshold(const BlockDriverState *bs);

/**
 * Where the highest write, zero write or copy to @bs ended that has gone well
 * since it was opened; 0: there was none.  Any thread.
 */
BLOCK_API int64_t bdrv_highest_write(const BlockDriverState *bs);

/* --- break points (blkdebug) ---------------------------------------------- */
/*
 * Requests can be suspended at named events by a blkdebug node at or below
 * @bs.  Return 0, or -ENOTSUP without such a node, -ENOENT for an unknown
 * event or tag.
 */

/** Suspend the next request that reaches @event, under the name @tag. */
BLOCK_API int bdrv_debug_breakpoint(BlockDriverState *bs, const char *event,
                                    const char *tag);
/** Forget break points and resume requests of @tag. */
BLOCK_API int bdrv_debug_remove_breakpoint(BlockDriverState *bs,
                                           const char *tag);
/** Resume the request suspended under @tag. */
BLOCK_API int bdrv_debug_resume(BlockDriverState *bs, const char *tag);
/** Whether a request is suspended under @tag. */
BLOCK_API bool bdrv_debug_is_suspended(BlockDriverState *bs, const char *tag);

G_END_DECLS

#endif /* BLOCKGRAPH_BLOCK_H */
