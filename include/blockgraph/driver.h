/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For people who write a block driver: the table of methods, and the calls
 * that a driver makes on its children.
 *
 * The core checks, the driver assumes: a request that reaches a method lies
 * inside the node (writes may grow it), is aligned to the node's
 * request_alignment, no longer than its limits, its vector has exactly
 * io->bytes bytes, and its flags are among those the driver supports.
 */
#ifndef BLOCKGRAPH_DRIVER_H
#define BLOCKGRAPH_DRIVER_H

#include <blockgraph/block.h>
#include <blockgraph/image.h>
#include <blockgraph/iov.h>

G_BEGIN_DECLS

/** A request as a method sees it.  Valid until the method returns. */
typedef struct BlockIO {
    int64_t offset;  /* first byte, from the start of the node */
    int64_t bytes;   /* length; never 0 */
    BlockIOVec *iov; /* memory of io->bytes bytes; NULL for zero and discard */
    unsigned flags;  /* BdrvRequestFlags */
} BlockIO;

/** What a node can do and prefers.  All sizes in bytes. */
typedef struct BlockLimits {
    uint32_t request_alignment;      /* power of two; 1 = any */
    uint32_t min_mem_alignment;      /* of buffers; power of two */
    uint32_t opt_mem_alignment;      /* buffers this aligned are fastest */
    int64_t max_transfer;            /* 0 = no limit */
    int64_t opt_transfer;            /* 0 = no preference */
    int64_t max_pwrite_zeroes;       /* 0 = no limit */
    uint32_t pwrite_zeroes_alignment; /* 0 = request_alignment */
    int64_t max_pdiscard;            /* 0 = no limit */
    uint32_t pdiscard_alignment;     /* 0 = request_alignment */
    int max_iov;                     /* pieces of a vector; 0 = IOV_MAX */
    unsigned read_flags;             /* flags that preadv takes */
    unsigned write_flags;            /* flags that pwritev takes */
    unsigned zero_flags;             /* flags that pwrite_zeroes takes */
    unsigned truncate_flags;         /* ZERO_WRITE if truncate can zero */
} BlockLimits;

/** What kind of node a driver makes. */
typedef enum BlockDriverKind {
    BLOCK_DRIVER_PROTOCOL, /* stores or fetches; no child of its own kind */
    BLOCK_DRIVER_FORMAT,   /* interprets the content of its children */
    BLOCK_DRIVER_FILTER,   /* same content and length as its FILTERED child */
} BlockDriverKind;

/** A filter with this flag must see every change of its content. */
#define BLOCK_SEES_WRITES (1 << 0)

/** Nor may the content below it change in any other way than by requests: it
 * is copied meanwhile. */
#define BLOCK_SEES_CONTENT (1 << 1)

/** State of one node during a reopen transaction; opaque but for these. */
typedef struct BdrvReopenState {
    BlockDriverState *bs;
    BlockOptions *options; /* the driver takes its own out of here */
    unsigned flags;        /* the new BDRV_O_* */
    void *opaque;          /* the driver's, between prepare and commit */
} BdrvReopenState;

/**
 * What a driver that keeps a point in time of its content offers to those who
 * read it (driver "snapshot-access").  Any thread; ranges lie inside.
 */
typedef struct BlockSnapshotMethods {
    /** The length of the snapshot in bytes. */
    int64_t (*length)(BlockDriverState *bs);
    /** Read; -EACCES where the snapshot has nothing (any more). */
    int coroutine_fn (*preadv)(BlockDriverState *bs, const BlockIO *io);
    /** Describe the first extent; neither DATA nor ZERO: cannot be read. */
    int coroutine_fn (*block_status)(BlockDriverState *bs, const BlockIO *io,
                                     BlockExtent *ret);
    /** The range of the snapshot is not needed any more. */
    int coroutine_fn (*pdiscard)(BlockDriverState *bs, const BlockIO *io);
} BlockSnapshotMethods;

/**
 * A driver.  One const table per driver, registered with bdrv_register() or
 * listed in block/drivers.h.
 *
 * A method that a filter leaves out passes to its FILTERED child; one that a
 * format or protocol leaves out is not supported.  A filter with
 * BLOCK_SEES_WRITES has pwritev, pwrite_zeroes, pdiscard and truncate, or is
 * refused at registration.
 *
 * Methods marked coroutine_fn may yield; the others must not.  Control methods
 * (open to drain_end) run in the main context.  Data methods run in any
 * thread, several at once; the driver guards its own state.
 */
struct BlockDriver {
    size_t struct_size; /* sizeof(BlockDriver) of the caller */
    const char *name;
    BlockDriverKind kind;
    unsigned sees;               /* BLOCK_SEES_*, or 0 */
    size_t state_size;           /* of bdrv_opaque(), zeroed before open */
    const BlockOption *options;  /* the driver's own, without common ones */

    /* --- control: main context --- */

    /**
     * Open the node: take options, open children with bdrv_co_open_child().
     * On failure (negative errno, @errp set) nothing is left open; children
     * are closed by the core.  @flags: BDRV_O_*.
     */
    int coroutine_fn (*open)(BlockDriverState *bs, BlockOptions *options,
                             unsigned flags, GError **errp);
    /** Release what open acquired.  No request is in flight.  Cannot fail. */
    void coroutine_fn (*close)(BlockDriverState *bs);
    /** Get ready for new options and flags, change nothing visible. */
    int coroutine_fn (*reopen_prepare)(BdrvReopenState *state, GError **errp);
    /** Make what was prepared real.  Cannot fail, must not yield. */
    void (*reopen_commit)(BdrvReopenState *state);
    /** Undo what was prepared.  Must not yield. */
    void (*reopen_abort)(BdrvReopenState *state);
    /** Fill @limits, which holds what was merged from the children. */
    void (*refresh_limits)(BlockDriverState *bs, BlockLimits *limits);
    /** Permissions needed on and shared for @child (which may be NULL: one
     * that is about to be attached as @role), given those on the node. */
    void (*child_perm)(BlockDriverState *bs, BdrvChildRole role,
                       const BlockPerm *parent, BlockPerm *ret_child);
    /** Get ready (e.g. lock) for new cumulative permissions of the node. */
    int (*perm_prepare)(BlockDriverState *bs, const BlockPerm *perm,
                        GError **errp);
    /** The prepared permissions hold from now on. */
    void (*perm_commit)(BlockDriverState *bs, const BlockPerm *perm);
    /** The prepared permissions do not come. */
    void (*perm_abort)(BlockDriverState *bs);
    /** A drained section covers the node from now on: let held requests go,
     * start no background work. */
    void (*drain_begin)(BlockDriverState *bs);
    /** The last drained section that covers the node ends. */
    void (*drain_end)(BlockDriverState *bs);

    /* --- data: any thread --- */

    /** Read.  With BDRV_REQ_PREFETCH, io->iov is NULL. */
    int coroutine_fn (*preadv)(BlockDriverState *bs, const BlockIO *io);
    /** Write. */
    int coroutine_fn (*pwritev)(BlockDriverState *bs, const BlockIO *io);
    /** Make a range read as zero; -ENOTSUP: the core writes zeroes. */
    int coroutine_fn (*pwrite_zeroes)(BlockDriverState *bs, const BlockIO *io);
    /** Forget the content of a range, if that is of use. */
    int coroutine_fn (*pdiscard)(BlockDriverState *bs, const BlockIO *io);
    /** Bring ended writes to stable storage, this node's own caches first;
     * the core flushes the children afterwards. */
    int coroutine_fn (*flush)(BlockDriverState *bs);
    /** Change the length. */
    int coroutine_fn (*truncate)(BlockDriverState *bs,
                                 const BlockTruncate *how, GError **errp);
    /** The length in bytes; negative errno. */
    int64_t coroutine_fn (*getlength)(BlockDriverState *bs);
    /** Bytes that the node occupies in storage; negative errno. */
    int64_t coroutine_fn (*get_allocated_size)(BlockDriverState *bs);
    /** Describe the first extent of @io (flags: BDRV_WANT_*): at least one
     * byte, in whole units of the node's request_alignment. */
    int coroutine_fn (*block_status)(BlockDriverState *bs, const BlockIO *io,
                                     BlockExtent *ret);
    /** Copy from this node: forward with bdrv_co_copy_range_from(). */
    int coroutine_fn (*copy_range_from)(BlockDriverState *bs,
                                        const BlockCopyRange *copy);
    /** Copy to this node: forward with bdrv_co_copy_range_to(). */
    int coroutine_fn (*copy_range_to)(BlockDriverState *bs,
                                      const BlockCopyRange *copy);
    /** Facts about the node beside length and limits. */
    int (*get_info)(BlockDriverState *bs, BlockDriverInfo *info);

    /* --- debugging --- */

    /** A named point was reached by a request at this node or its parent. */
    void coroutine_fn (*debug_event)(BlockDriverState *bs, const char *event);
    /** Break points for requests: see bdrv_debug_breakpoint(). */
    int (*debug_breakpoint)(BlockDriverState *bs, const char *event,
                            const char *tag);
    int (*debug_remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*debug_resume)(BlockDriverState *bs, const char *tag);
    bool (*debug_is_suspended)(BlockDriverState *bs, const char *tag);

    /* --- images --- */

    const BlockOption *create_options;
    /** Make an image as @options say. */
    int coroutine_fn (*create)(BlockGraph *graph, BlockOptions *options,
                               GError **errp);
    /** How much a file that begins with @head looks like an image of this
     * format: 0 not at all, 100 it is one.  Any thread. */
    int (*probe)(const uint8_t *head, size_t bytes, const char *filename);
    /** bdrv_co_measure(); @options without "driver".  @source may be NULL. */
    int coroutine_fn (*measure)(BlockOptions *options,
                                BlockDriverState *source, BdrvMeasure *ret,
                                GError **errp);

    /*
     * The calls of the same names in image.h.  Main context.  The node has
     * nothing in flight from above while one runs that changes the image,
     * and is not read-only; in @list go elements that the caller frees.
     */

    int coroutine_fn (*get_specific_info)(BlockDriverState *bs,
                                          BlockOptions **ret, GError **errp);
    int (*get_backing_name)(BlockDriverState *bs, char **ret_file,
                            char **ret_format);
    const BlockOption *amend_options;
    /** The core changes the length itself, if "size" is among the options. */
    int coroutine_fn (*amend)(BlockDriverState *bs, BlockOptions *options,
                              GError **errp);
    int coroutine_fn (*change_backing_file)(BlockDriverState *bs,
                                            const char *file,
                                            const char *format,
                                            GError **errp);
    /** Whether change_backing_file() would refuse these, so far as can be known
     * without requests.  Main context; does not yield.  Or NULL. */
    int (*check_backing_file)(BlockDriverState *bs, const char *file,
                              const char *format, GError **errp);
    int coroutine_fn (*make_empty)(BlockDriverState *bs, GError **errp);
    int coroutine_fn (*check_image)(BlockDriverState *bs,
                                    const BdrvCheck *how,
                                    BdrvCheckResult *ret, GError **errp);
    int coroutine_fn (*snapshot_list)(BlockDriverState *bs, GPtrArray *list,
                                      GError **errp);
    int coroutine_fn (*snapshot_create)(BlockDriverState *bs,
                                        const BdrvSnapshotInfo *info,
                                        GError **errp);
    int coroutine_fn (*snapshot_goto)(BlockDriverState *bs,
                                      const char *id_or_name, GError **errp);
    int coroutine_fn (*snapshot_delete)(BlockDriverState *bs, const char *id,
                                        const char *name, GError **errp);
    int coroutine_fn (*stored_bitmap_list)(BlockDriverState *bs,
                                           GPtrArray *list, GError **errp);
    int coroutine_fn (*stored_bitmap_add)(BlockDriverState *bs,
                                          const char *name,
                                          int64_t granularity, GError **errp);
    int coroutine_fn (*stored_bitmap_remove)(BlockDriverState *bs,
                                             const char *name, GError **errp);

    /**
     * Make dirty bitmaps of @bs from what the image stores; each is read-only
     * if the node is, and inconsistent if it cannot be used.  At the end of
     * open, which fails if this does.
     */
    int coroutine_fn (*load_bitmaps)(BlockDriverState *bs, GError **errp);
    /** Store the persistent bitmaps of @bs.  Drained; before close, and before
     * the node becomes read-only. */
    int coroutine_fn (*store_bitmaps)(BlockDriverState *bs, GError **errp);
    /** Whether there is room for one more bitmap of this kind. */
    int (*can_store_bitmap)(BlockDriverState *bs, const char *name,
                            int64_t granularity, GError **errp);

    /* --- points in time --- */

    const BlockSnapshotMethods *snapshot; /* NULL: none */

    /* --- hints: any thread --- */

    /**
     * bdrv_expect_read(); what it will look at is tables, not data.  Must not
     * take a lock.  Only a hint: @offset (not negative) may be beyond the end.
     */
    bool (*expect_read)(BlockDriverState *bs, int64_t offset, int64_t bytes);
};

/**
 * Add @driver to the table of drivers, which all graphs share.
 *
 * Returns 0; -EINVAL (no name, wrong struct_size, a filter that must see
 * writes lacks a writing method) or -EEXIST, with @errp set.
 *
 * Thread: any, but before a graph uses it.  @driver must live for ever.
 */
BLOCK_API int bdrv_register(const BlockDriver *driver, GError **errp);

/** The driver of that name, or NULL.  Thread: any. */
BLOCK_API const BlockDriver *bdrv_find_driver(const char *name);

/**
 * Count @bytes of memory for tables whose size the image of @bs states, until
 * they are given back, or the node is closed.  To be called before the memory
 * is taken, or soon after if that is bounded.
 *
 * Returns 0, or -EFBIG with @errp: more than a node (256 MiB), or all nodes
 * of the process (1 GiB), may have.  Thread: any; with @errp main context.
 */
BLOCK_API int bdrv_count_table_memory(BlockDriverState *bs, int64_t bytes,
                                      GError **errp);

/** Give back @bytes that were counted: the table is freed.  Thread: any. */
BLOCK_API void bdrv_return_table_memory(BlockDriverState *bs, int64_t bytes);

/**
 * Tell the listener of the graph that the image of @bs is corrupt.  What @event
 * holds is copied; its @node_name is not looked at.  A driver tells of a node
 * a few times at most.  Any thread.
 */
BLOCK_API void bdrv_report_corruption(BlockDriverState *bs,
                                      const BlockCorruptionEvent *event);

/**
 * Whether the file @path may become the backing file of @bs: not if @bs, or a
 * node that reads from it, is stored there.  A file that is not there may.
 *
 * Returns 0 or -ELOOP with @errp.  Main context; looks at the file system.
 */
BLOCK_API int bdrv_check_new_backing(const BlockDriverState *bs,
                                     const char *path, GError **errp);

/**
 * Whether @bs may open the file @name, which its image names where the user has
 * not given @option, "backing" or "data-file".  If so, @ret_root is what the
 * option "beneath" of driver "file" must be, owned by the graph; or NULL.  The
 * option "from-image" must be on.
 *
 * Returns 0 or -EPERM with @errp.  Main context.
 */
BLOCK_API int bdrv_check_named_file(const BlockDriverState *bs,
                                    const char *name, const char *option,
                                    const char **ret_root, GError **errp);

/** For close: something of @bs could not be written and is lost; a warning has
 * said what.  Main context. */
BLOCK_API void bdrv_note_loss(BlockDriverState *bs);

/**
 * Whether opening or checking the image of @bs may go on; drivers ask between
 * the steps of what an image can make long.  Outside of both it always may.
 *
 * Returns 0, -ETIMEDOUT or -ECANCELED with @errp.  Main context.
 */
BLOCK_API int bdrv_image_step(const BlockDriverState *bs, GError **errp);

/** The driver after @driver, the first for NULL; NULL after the last.  Those
 * that come with the library are before those that were registered.  Thread:
 * any. */
BLOCK_API const BlockDriver *bdrv_next_driver(const BlockDriver *driver);

/* --- inside open ---------------------------------------------------------- */

/**
 * Open the child @name of @bs from @options (a reference to a node name, or
 * nested options), attach it as @role.  What the child's options leave open of
 * cache, discard and read-only comes from @bs.
 *
 * @required  whether absence is an error; else NULL is returned for it
 *            without @errp
 *
 * Returns the edge, owned by @bs until it is closed, or NULL.
 *
 * Thread: main context; inside the open method.  Yields.
 */
BLOCK_API BdrvChild *coroutine_fn
bdrv_co_open_child(BlockDriverState *bs, BlockOptions *options,
                   const char *name, BdrvChildRole role, bool required,
                   GError **errp);

/**
 * Say in open that @child is for less than the role it was opened for: @role
 * has fewer of DATA and METADATA, and the same others.  Main context.
 */
BLOCK_API void bdrv_reduce_child_role(BdrvChild *child, BdrvChildRole role);

/** The driver's state of @bs, state_size bytes on a cache line of their own.
 * Thread: any. */
BLOCK_API void *bdrv_opaque(BlockDriverState *bs);

/** How to read the point in time that @bs keeps; NULL: it keeps none. */
BLOCK_API const BlockSnapshotMethods *
bdrv_snapshot_methods(const BlockDriverState *bs);

/** The child that holds the node's data (role PRIMARY), or NULL. */
BLOCK_API BdrvChild *bdrv_primary_child(BlockDriverState *bs);

/** The FILTERED child of a filter, or NULL. */
BLOCK_API BdrvChild *bdrv_filter_child(BlockDriverState *bs);

/** The COW (backing) child, or NULL. */
BLOCK_API BdrvChild *bdrv_cow_child(BlockDriverState *bs);

/** The node that @child leads to.  Thread: reader rule. */
BLOCK_API BlockDriverState *bdrv_child_bs(const BdrvChild *child);

/** What @bs can do and prefers.  Owned by the node.  Thread: reader rule. */
BLOCK_API const BlockLimits *bdrv_limits(const BlockDriverState *bs);

/**
 * The name that error texts give to @bs: its file name if it has one.  Set by
 * protocol drivers in open.  Copied.  Thread: main context.
 */
BLOCK_API void bdrv_set_filename(BlockDriverState *bs, const char *filename);

/**
 * Say in open which object of the system @bs stores its bytes in, so that an
 * image is found out that has itself among its backing files.  Main context.
 */
BLOCK_API void bdrv_set_identity(BlockDriverState *bs, uint64_t device,
                                 uint64_t inode);

/**
 * Say in open or reopen_commit that the length of @bs is that of its PRIMARY
 * child less @skip, and follows each change of that at once.  A filter without
 * getlength is as long as what it filters without saying so; the length of all
 * others changes only where they change it.  Thread: main context.
 */
BLOCK_API void bdrv_set_length_from_child(BlockDriverState *bs,
                                          bool from_child, int64_t skip);

/** Say in open that the node became read-only after all (auto-read-only). */
BLOCK_API void bdrv_set_read_only(BlockDriverState *bs, bool read_only);

/** Permissions as the default rules give them for @role; for child_perm. */
BLOCK_API void bdrv_default_perms(BlockDriverState *bs, BdrvChildRole role,
                                  const BlockPerm *parent,
                                  BlockPerm *ret_child);

/* --- requests to a child -------------------------------------------------- */
/*
 * Inside a request or background work of the calling driver; any thread.  All
 * return 0 or a negative errno.  Ranges of any alignment.  @iov must hold
 * @bytes and live until the call returns.
 */

/** Read @bytes at @offset; what lies beyond the end reads as zero. */
BLOCK_API int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset,
                                          int64_t bytes, BlockIOVec *iov,
                                          unsigned flags);
/**
 * Say that this thread will soon read @bytes at @offset, not negative, so that
 * the nodes below can have what they will look at brought into the processor's
 * caches.
 *
 * Returns whether they did: then other work should be done first, if there is
 * some.  Thread: any; inside a request, or where one is counted.
 */
BLOCK_API bool bdrv_expect_read(BdrvChild *child, int64_t offset,
                                int64_t bytes);
/** Read into a buffer. */
BLOCK_API int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset,
                                         int64_t bytes, void *buf,
                                         unsigned flags);
/** Write; grows the node if it can. */
BLOCK_API int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset,
                                           int64_t bytes, BlockIOVec *iov,
                                           unsigned flags);
/** Write from a buffer. */
BLOCK_API int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset,
                                          int64_t bytes, const void *buf,
                                          unsigned flags);
/** Write from a buffer, then flush. */
BLOCK_API int coroutine_fn bdrv_co_pwrite_sync(BdrvChild *child,
                                               int64_t offset, int64_t bytes,
                                               const void *buf,
                                               unsigned flags);
/** Make the range read as zero. */
BLOCK_API int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child,
                                                 int64_t offset,
                                                 int64_t bytes,
                                                 unsigned flags);
/** The content of the range is not needed any more. */
BLOCK_API int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset,
                                            int64_t bytes);
/** Bring all ended writes of the node and its children to storage. */
BLOCK_API int coroutine_fn bdrv_co_flush(BlockDriverState *bs);
/** Change the length of the child's node; what a failed growth leaves, the
 * error says. */
BLOCK_API int coroutine_fn bdrv_co_truncate(BdrvChild *child,
                                            const BlockTruncate *how,
                                            GError **errp);
/** Copy between nodes without passing through memory of this process. */
BLOCK_API int coroutine_fn bdrv_co_copy_range(const BlockCopyRange *copy);
/** In copy_range_from: go on at copy->src, which is now a child. */
BLOCK_API int coroutine_fn bdrv_co_copy_range_from(const BlockCopyRange *copy);
/** In copy_range_to: go on at copy->dst, which is now a child. */
BLOCK_API int coroutine_fn bdrv_co_copy_range_to(const BlockCopyRange *copy);

/** Tell debugging filters in the file chain below @bs that @event happens. */
BLOCK_API void coroutine_fn bdrv_co_debug_event(BlockDriverState *bs,
                                                const char *event);

/* --- background work ------------------------------------------------------ */

/**
 * Work that a driver does on its own account, outside any request.  It counts
 * for drain like requests of a BlockBackend.
 */
typedef struct BdrvWork BdrvWork;

/** Register background work of @bs.  Main context; freed before close ends. */
BLOCK_API BdrvWork *bdrv_work_new(BlockDriverState *bs);

/**
 * Count one piece of work, before it becomes runnable.  Waits while the node
 * is drained.  Returns a ticket for bdrv_work_end().  Any thread.
 */
BLOCK_API unsigned coroutine_fn bdrv_co_work_begin(BdrvWork *work);

/**
 * Count one piece of work that is begun by a request at the node or above, or
 * by other work that is counted there, while that is still under way.  Does not
 * wait, drained or not: who drains waits for both.  Returns a ticket as above.
 * Any thread with an AioContext.
 */
BLOCK_API unsigned bdrv_work_fork(BdrvWork *work);

/** The piece of work is done.  Any thread. */
BLOCK_API void bdrv_work_end(BdrvWork *work, unsigned ticket);

/** Unregister; no piece of work may be left.  Main context. */
BLOCK_API void bdrv_work_free(BdrvWork *work);

G_END_DECLS

#endif /* BLOCKGRAPH_DRIVER_H */
