/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the graph: nodes, edges, sections.
 *
 * Threads: everything here belongs to the main context of the graph unless a
 * field says otherwise.  Requests, in any thread, follow edges and read limits
 * under the reader rule: they are counted at a root, and the main context
 * changes what they read only while all roots above are drained.
 */
#ifndef BLOCK_GRAPH_INT_H
#define BLOCK_GRAPH_INT_H

#include <blockgraph/driver.h>
#include <stdatomic.h>

#include "block/bitmap/marks.h"
#include "block/graph/root.h"
#include "block/graph/table-memory.h"
#include "block/io/tracked.h"
#include "util/list.h"
#include "util/sim-point.h"
#include "util/spare-buffers.h"

/**
 * How many nodes may stand on top of each other.  A request recurses through
 * them on the stack of a coroutine, and walks stay bounded.
 */
#define BDRV_HEIGHT_MAX 64

/** Life of a node; see open.c. */
typedef enum BdrvState {
    BDRV_STATE_OPENING, /* has its name, cannot be found by it */
    BDRV_STATE_OPEN,
    BDRV_STATE_CLOSING, /* last reference gone; keeps its name to the end */
    BDRV_STATE_CLOSED,  /* the driver has let go; its children go */
} BdrvState;

/** What the option detect-zeroes says. */
typedef enum BdrvDetectZeroes {
    BDRV_DETECT_ZEROES_OFF,
    BDRV_DETECT_ZEROES_ON,
    BDRV_DETECT_ZEROES_UNMAP,
} BdrvDetectZeroes;

/** Images that were found to be corrupt; corruption.c. */
typedef struct CorruptionReports {
    /* Main context. */
    BlockCorruptionListener *listener; /* or NULL */
    void *listener_opaque;

    /* Any thread. */
    AioBH *bh;
    Lock lock;
    ListHead reports; /* guarded by @lock: what was not told yet */
} CorruptionReports;

struct BlockGraph {
    /* Set by block_graph_new(). */
    AioContext *ctx;
    DrainNotifier *notifier;

    /* Any thread. */
    _Atomic uint64_t forks; /* of background work; drain.c D6 */
    CorruptionReports corruption; /* says itself who may touch what */

    /* Main context. */
    GHashTable *by_name;   /* node name -> node; for look-up, never iterated */
    ListHead nodes;        /* BlockDriverState.graph_link, by age */
    size_t nr_nodes;
    ListHead roots;        /* BlockRoot.graph_link */
    ListHead sections;     /* DrainSection.link */
    ListHead throttle_groups; /* ThrottleGroup.graph_link */
    ListHead jobs;         /* BlockJob.link, by age */
    ListHead job_listeners; /* JobListener.link */
    unsigned job_tellers;  /* who goes through them */
    BlockThresholdListener *threshold_listener; /* or NULL */
    void *threshold_opaque;
    AioBH *threshold_bh;   /* since the first threshold was set; any thread */
    CoQueue drain_waiters; /* coroutines that wait for counts to fall */
    CoMutex control_lock;  /* held over yields by reopen and graph changes */
    unsigned nr_losses;    /* block_graph_nr_losses() */
    unsigned nr_tear_downs; /* of jobs, or what is left of them; they go on */
    bool untrusted;        /* block_graph_set_untrusted() */
    char *image_root;      /* canonical; or NULL */
    int64_t image_timeout_ns; /* of opening or checking one; 0: no limit */
    bool images_cancelled; /* no image is opened or checked any more */
    uint64_t next_auto_name;
    uint64_t visit_mark;   /* the mark of the walk that runs now */
    unsigned retired_sections;
    GHashTable *tls_creds; /* id -> TlsCreds; for look-up, never iterated */
    void *exports;         /* block/export's, or NULL */
    void (*free_exports)(void *exports);
};

struct BlockDriverState {
    /* Set when the node is made. */
    BlockGraph *graph;
    const BlockDriver *drv;
    char *node_name;
    void *opaque;

    /* Changed by the main context under drain; read under the reader rule. */
    BdrvChild *primary;  /* role PRIMARY */
    BdrvChild *filtered; /* role FILTERED */
    BdrvChild *cow;      /* role COW */
    BdrvChild *length_from;  /* whose length is ours, too; NULL: @length is */
    int64_t length_skip;     /* less so much */
    bool length_is_childs;   /* as its driver says; filters need not */
    BlockLimits limits;
    int64_t cluster_bytes; /* unit of allocation, a multiple of the alignment
                            * of requests; a power of two */
    unsigned open_flags; /* BDRV_O_* */
    BdrvDetectZeroes detect_zeroes;

    /* Any thread. */
    _Atomic int64_t length; /* read by bdrv_length() */
    TrackedRequests tracked;
    DirtyBitmaps dirty;
    SpareBuffers copy_buffers; /* of copies on read */
    _Atomic unsigned drain_count; /* sections that cover the node */
    _Atomic int64_t write_threshold; /* bytes; 0: none */
    _Atomic int64_t threshold_passed, threshold_exceeded; /* to be told */
    _Atomic int64_t highest_write; /* bytes; where the last of them ended */
    TableAccount tables;     /* bdrv_count_table_memory() */
    atomic_bool may_copy;    /* users may write what is there, or P5 does */
    atomic_bool copy_failed; /* a copy on read has failed; that was told */

    /* Guarded by @flush_lock. */
    CoMutex flush_lock;
    uint64_t flushed_writes; /* tracked_writes() at the last good flush */

    /* Main context only. */
    char *filename;
    BlockOptions *options; /* as given, children and defaults left out */
    BdrvState state;
    unsigned refs;
    bool user_owned;       /* opened under a name: bdrv_delete() may end it */
    ListHead children;     /* BdrvChild.parent_link */
    ListHead parents;      /* BdrvChild.node_link */
    BdrvChild *nested_in;  /* whose .nested we are, or NULL */
    ListHead works;        /* background work: BlockRoot.work_link */
    BdrvWork *own_work;    /* its own requests, while it opens; else NULL */
    BlockDriverState *opener;  /* which opens it as a child, while it does */
    BdrvChildRole opener_role; /* as what */
    bool in_image_step;    /* its image is being opened or checked */
    int64_t image_end_ns;  /* until then; 0: no limit */
    bool has_identity;     /* the next two say what it stores its bytes in */
    uint64_t identity_device, identity_inode;
    BlockPerm perm;        /* over all parents */
    ListHead graph_link;
    uint64_t visit_mark;   /* scratch of walk.c */
    unsigned level;        /* scratch of walk.c */
};

struct BdrvChild {
    /* Set when the edge is made. */
    char *name;
    BdrvChildRole role;
    BlockDriverState *parent; /* NULL: the edge of a root */
    BlockRoot *root;          /* NULL: the edge of a node */

    /* Changed under drain; read under the reader rule. */
    BlockDriverState *bs;     /* counted */

    /* Main context only. */
    BlockDriverState *nested; /* opened from options nested in the parent's,
                               * wherever the edge leads now; or NULL */
    BlockPerm perm;
    unsigned frozen;
    bool unguarded;           /* see edge_set_unguarded() */
    bool shows_source;        /* P7; as it was when the edge was made */
    ListHead parent_link;     /* in parent->children; unused for roots */
    ListHead node_link;       /* in bs->parents */
};

/* --- graph.c -------------------------------------------------------------- */

/** Reserve the name of @bs (make one if it has none).  Negative errno. */
int graph_add_node(BlockDriverState *bs, GError **errp);

/** Release the name of @bs and take it off the list. */
void graph_remove_node(BlockDriverState *bs);

/** "node 'x'" or "block backend 'y'": who stands above @child.  g_free(). */
char *bdrv_child_user(const BdrvChild *child);

/* --- walk.c --------------------------------------------------------------- */

/**
 * @nodes and all below them, each once, parents before children.  Free with
 * g_ptr_array_unref().
 */
GPtrArray *graph_below(GPtrArray *nodes);

/** @nodes and all above them, each once, in no particular order. */
GPtrArray *graph_above(GPtrArray *nodes);

/** Whether @below can be reached from @bs (a node reaches itself). */
bool graph_reaches(BlockDriverState *bs, BlockDriverState *below);

/**
 * Whether what @bs shows can come from @below (a node shows itself).  An edge
 * without a role leads to where its parent writes copies for others.
 */
bool graph_reads_from(BlockDriverState *bs, BlockDriverState *below);

/**
 * -ELOOP with @errp if more than BDRV_HEIGHT_MAX nodes stand on top of each
 * other somewhere above or below @bs.
 */
int graph_check_height(BlockDriverState *bs, GError **errp);

/* --- edge.c --------------------------------------------------------------- */

typedef struct Transaction Transaction;

/** Make an edge to @bs, as part of @txn; no permissions are computed. */
BdrvChild *edge_attach(BlockDriverState *parent, BlockRoot *root,
                       BlockDriverState *bs, const char *name,
                       BdrvChildRole role, Transaction *txn);

/** Remove @child, as part of @txn; it is freed on commit. */
void edge_detach(BdrvChild *child, Transaction *txn);

/** Make @child lead to @bs, as part of @txn. */
void edge_replace(BdrvChild *child, BlockDriverState *bs, Transaction *txn);

/** Note from which child @bs takes its length, if from any. */
void graph_choose_length(BlockDriverState *bs);

/** Note that @bs was opened for @child from nested options; NULL: none is. */
void edge_set_nested(BdrvChild *child, BlockDriverState *bs);

/**
 * Whether the node opened for @child from nested options is below it still,
 * with nothing but filters in between.
 */
bool edge_reaches_nested(const BdrvChild *child);

/**
 * Let others do with the node of @child, an edge between nodes, what its parent
 * does not share (P6).  Whoever sets this sees to it that the parent shows the
 * same all the time, and takes it back.  Does not yield.
 */
void edge_set_unguarded(BdrvChild *child, bool on);

/** -EBUSY with @errp if @child is frozen. */
int edge_check_thawed(const BdrvChild *child, GError **errp);

/* --- change.c ------------------------------------------------------------- */

/** Whether a change that is about to be made is right still; does not yield. */
typedef int GraphCheck(void *opaque, GError **errp);

/** bdrv_co_replace_node(), if @check (or NULL) says 0 in its section. */
int coroutine_fn graph_replace_node(BlockDriverState *from,
                                    BlockDriverState *to, GraphCheck *check,
                                    void *opaque, GError **errp);

/**
 * bdrv_co_snapshot_create(), if there is none of that name (-EEXIST).  @ret_id:
 * what ID it has got, g_free(); NULL if that is not known.
 */
int coroutine_fn graph_snapshot_create_new(BlockDriverState *bs,
                                           const BdrvSnapshotInfo *info,
                                           char **ret_id, GError **errp);

/** Undo bdrv_co_replace_node(): @to comes back to the place that @from has
 * taken since; it may be shorter. */
int coroutine_fn graph_put_back(BlockDriverState *from, BlockDriverState *to,
                                GError **errp);

/** bdrv_co_insert_node(), if @check (or NULL) says 0 in its section.  Nobody
 * else runs between the change and the return. */
int coroutine_fn graph_insert_node(BlockDriverState *bs, BlockOptions *options,
                                   GraphCheck *check, void *opaque,
                                   BlockDriverState **ret_bs, GError **errp);

/**
 * bdrv_co_drop_filter() and bdrv_co_set_backing() for a caller that has frozen
 * the edge to what is filtered (@held), or to the backing node that there may
 * be (with @check, see above).  That freeze ends with the change, and stays
 * after a failure.
 */
int coroutine_fn graph_drop_filter(BlockDriverState *bs, bool held,
                                   GError **errp);
int coroutine_fn graph_set_backing(BlockDriverState *bs,
                                   BlockDriverState *backing,
                                   GraphCheck *check, void *opaque,
                                   GError **errp);

/* --- perm.c --------------------------------------------------------------- */

/**
 * Compute the permissions of @nodes (BlockDriverState *) and of all below,
 * check and prepare them, as part of @txn.  Does not yield.
 */
int perm_refresh(GPtrArray *nodes, Transaction *txn, GError **errp);

/** perm_refresh() of one node. */
int perm_refresh_one(BlockDriverState *bs, Transaction *txn, GError **errp);

/**
 * The same for @bs, which has lost a user: that conflicts with nobody, so it
 * cannot fail.  A driver that does not give back what it has (a file lock)
 * keeps it, with a warning.
 */
void perm_release(BlockDriverState *bs, Transaction *txn);

/* --- open.c --------------------------------------------------------------- */

/** Options that every node has, parsed. */
typedef struct BdrvCommonOptions {
    char *driver;
    char *node_name;
    bool read_only;
    bool auto_read_only;
    bool cache_direct;
    bool cache_no_flush;
    int discard;       /* 0 ignore, 1 unmap */
    int detect_zeroes; /* BdrvDetectZeroes */
    bool force_share;
    bool copy_on_read;
    bool untrusted;
} BdrvCommonOptions;

/** The BDRV_O_* flags that @common stands for; @what as for absorb. */
int bdrv_flags_from_common(const BdrvCommonOptions *common, const char *what,
                           unsigned *ret_flags, GError **errp);

/** The image of @bs is being opened or checked from now on, with the time that
 * @opener (or NULL) has left, or anew. */
void image_steps_begin(BlockDriverState *bs, const BlockDriverState *opener);

/** That is over, with the result @ret.  When the time was over, too, it is that
 * what is told.  Returns the result. */
int image_steps_end(BlockDriverState *bs, int ret, GError **errp);

/** Fill in what @options leaves open from a parent open with @flags. */
void bdrv_inherit_options(BlockOptions *options, BdrvChildRole role,
                          const BlockDriver *parent_drv, unsigned flags);

/** Ask the driver for the length and keep it.  Negative errno. */
int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs);

/* --- reopen.c ------------------------------------------------------------- */

/** The graph whose nodes @queue reopens. */
BlockGraph *bdrv_reopen_queue_graph(const BdrvReopenQueue *queue);

/* --- limits.c ------------------------------------------------------------- */

/** Compute the limits of @bs from its children and its driver. */
int bdrv_refresh_limits(BlockDriverState *bs, GError **errp);

/** bdrv_refresh_limits() for @bs and all above it, from below; drained. */
void bdrv_refresh_limits_above(BlockDriverState *bs);

/* --- drain.c -------------------------------------------------------------- */

/**
 * bdrv_co_drained_begin(), but when requests in flight are waited for and
 * *@give_up becomes true, which drain_kick() tells, everything goes on.
 * Returns whether the section has begun.  Main context.
 */
bool coroutine_fn drain_begin_unless(BlockDriverState *bs,
                                     const bool *give_up);

/**
 * The node of @work, which opens or closes, goes on to send requests below,
 * also to @below (or NULL), to which it will have an edge.  Waits while others
 * have a section over it; until drain_own_end(), new sections wait for it.
 */
void coroutine_fn drain_own_begin(BdrvWork *work, BlockDriverState *below);

/** No more such requests for now.  Nothing to end: no effect. */
void drain_own_end(BdrvWork *work);

/**
 * drain_own_begin() for several nodes at once (BdrvWork *), or for none; with
 * @lock the control lock is taken, too, and not kept while others have a
 * section: they may want it.
 */
void coroutine_fn drain_control_begin(BlockGraph *graph,
                                      const GPtrArray *works, bool lock);

/**
 * The sections of the running coroutine are for changes that it may have to
 * undo: until they end others change nothing of what they cover.  Waits while
 * somebody else has such sections.
 */
void coroutine_fn drain_revert_begin(BlockGraph *graph);

/** Wait while others have such sections over @bs or what is below it; the
 * caller is going to use more of it, or to freeze an edge there. */
void coroutine_fn drain_revert_wait(BlockDriverState *bs);

/**
 * Take the control lock for a change of edges to or from @bs and @other (or
 * NULL), at a moment when nobody else has such sections over them.
 */
void coroutine_fn drain_change_begin(BlockDriverState *bs,
                                     BlockDriverState *other);

/** Undo drain_change_begin(). */
void coroutine_fn drain_change_end(BlockGraph *graph);

/** Recompute what the drained sections cover; after any change of edges. */
void drain_graph_changed(BlockGraph *graph);

/**
 * Begin a section that covers @root whatever node it has, and the other roots
 * above that node.  Ended by drain_root_end(), before @root is destroyed.
 */
void coroutine_fn drain_root_begin(BlockRoot *root);

/** End a section of drain_root_begin().  Does not yield. */
void drain_root_end(BlockRoot *root);

/** Wake coroutines that wait for counts; in the main context. */
void drain_kick(BlockGraph *graph);

/* --- memory of tables (table-memory.c) ------------------------------------ */

/** @bs has no tables any more: its driver has let go. */
void graph_forget_table_memory(BlockDriverState *bs);

/* --- corrupt images (corruption.c) ---------------------------------------- */

/** Make what reports go through, and forget those that were not told. */
void graph_corruption_init(BlockGraph *graph);
void graph_corruption_clear(BlockGraph *graph);

#endif /* BLOCK_GRAPH_INT_H */
