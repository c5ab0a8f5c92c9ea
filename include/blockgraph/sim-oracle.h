/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Oracles: who knows what must be true, and says so when it is not.
 *
 * A model is the sector register oracle of one guest disk.  Each write that
 * goes through it has a number of its own in every sector, so what a read
 * returns tells which write it saw, and whether that was legal: a value is
 * legal if its write had begun before the read ended, and no other write lies
 * wholly between the two.  Later reads do not go back.  What failed may have
 * happened or not, for ever, until it is overwritten.
 */
#ifndef BLOCKGRAPH_SIM_ORACLE_H
#define BLOCKGRAPH_SIM_ORACLE_H

#include <blockgraph/sim-disk.h>

G_BEGIN_DECLS

/* --- kinds of operations -------------------------------------------------- */

/** What can overlap in time; what a report counts in pairs. */
typedef enum BgSimOpKind {
    BGSIM_OP_READ,
    BGSIM_OP_WRITE,
    BGSIM_OP_ZERO,
    BGSIM_OP_DISCARD,
    BGSIM_OP_FLUSH,
    BGSIM_OP_STATUS,
    BGSIM_OP_DRAIN,    /* a drained section, from its begin to its end */
    BGSIM_OP_REOPEN,
    BGSIM_OP_INSERT,   /* of a filter, or of a node into a backend */
    BGSIM_OP_DROP,     /* of a filter, or of a node from a backend */
    BGSIM_OP_REPLACE,  /* of a node or child */
    BGSIM_OP_PERM,     /* a change of permissions */
    BGSIM_OP_TRUNCATE, /* to a smaller length */
    BGSIM_OP_RESIZE,   /* to a greater one */
    BGSIM_OP_OPEN,
    BGSIM_OP_CLOSE,
    BGSIM_OPS,
} BgSimOpKind;

/** How often operations were begun, and which were in flight then. */
typedef struct BgSimOpTable {
    uint64_t begun[BGSIM_OPS];
    uint64_t pairs[BGSIM_OPS][BGSIM_OPS]; /* [in flight][begun meanwhile] */
} BgSimOpTable;

/**
 * An operation begins.  Models do this for their requests; who changes the
 * graph, drains or reopens says so.  Any thread.
 */
BLOCK_API void bgsim_op_begin(BgSim *sim, BgSimOpKind kind);

/** An operation of bgsim_op_begin() has ended, well or not.  Any thread. */
BLOCK_API void bgsim_op_end(BgSim *sim, BgSimOpKind kind);

/** "read", "write", ...; a constant. */
BLOCK_API const char *bgsim_op_name(BgSimOpKind kind);

/** The counts of all worlds of this process. */
BLOCK_API void bgsim_op_table(BgSimOpTable *ret);

/**
 * Count in @table from now on, e.g. in memory that processes share; it must
 * stay for the life of the process.  NULL: in memory of our own, as at first.
 * While no world exists.
 */
BLOCK_API void bgsim_op_table_use(BgSimOpTable *table);

/* --- models --------------------------------------------------------------- */

/** What guests did to one disk, sector (512 bytes) by sector. */
typedef struct BgSimModel BgSimModel;

/**
 * A model of what is read and written through @blk, whose content is all
 * zeroes now.
 *
 * @length  bytes, a multiple of 512
 *
 * Lives until bgsim_free().  Its requests may come from any context.
 */
BLOCK_API BgSimModel *bgsim_model_new(BgSim *sim, BlockBackend *blk,
                                      const char *name, int64_t length);

/** The disk has some content that is not known: any noise is legal at first. */
BLOCK_API void bgsim_model_set_unknown(BgSimModel *model);

/**
 * A disk below forgets what a failed flush should have made stable
 * (BGSIM_FLUSH_FORGET_CLEAN, BGSIM_FLUSH_FORGET_REVERT): what was written
 * before is not pinned by a later flush, and reads may return what was there
 * before.  Before the first request.
 */
BLOCK_API void bgsim_model_set_flush_forgets(BgSimModel *model);

/** What the model goes through from now on, e.g. after a reopen. */
BLOCK_API void bgsim_model_set_backend(BgSimModel *model, BlockBackend *blk);

/** Write new values.  Range and alignment: 512 bytes.  Returns the result. */
BLOCK_API int coroutine_fn bgsim_model_pwrite(BgSimModel *model,
                                              int64_t offset, int64_t bytes,
                                              unsigned flags);
/** Read and check.  A violation "register" if a value is not legal. */
BLOCK_API int coroutine_fn bgsim_model_pread(BgSimModel *model, int64_t offset,
                                             int64_t bytes);
/** Write zeroes. */
BLOCK_API int coroutine_fn bgsim_model_zero(BgSimModel *model, int64_t offset,
                                            int64_t bytes, unsigned flags);
/** Discard: afterwards old values and zeroes are legal. */
BLOCK_API int coroutine_fn bgsim_model_discard(BgSimModel *model,
                                               int64_t offset, int64_t bytes);
/** Flush: what was acknowledged before it began survives a power cut. */
BLOCK_API int coroutine_fn bgsim_model_flush(BgSimModel *model);
/** Ask for block status; "zero" must read as zeroes. */
BLOCK_API int coroutine_fn bgsim_model_status(BgSimModel *model,
                                              int64_t offset, int64_t bytes);

/** How many requests have ended, and how many of them well. */
BLOCK_API uint64_t bgsim_model_requests(const BgSimModel *model,
                                        uint64_t *ret_ok);

/** A copy of what is legal now: the point in time.  bgsim_free() frees it. */
BLOCK_API BgSimModel *bgsim_model_freeze(BgSimModel *model);

/**
 * Whether each sector that @blk reads is a legal value of @model now.  Outside
 * coroutines, nothing of the model in flight.
 */
BLOCK_API bool bgsim_check_equal(BlockBackend *blk, BgSimModel *model,
                                 GError **errp);

/**
 * After a power cut: whether each sector that @blk reads is a value that may
 * have survived: not older than the last one that a flush (or FUA) has pinned.
 */
BLOCK_API bool bgsim_check_durable(BlockBackend *blk, BgSimModel *model,
                                   GError **errp);

/**
 * Whether no write that failed has a say in what a power cut leaves of the
 * sector at @offset.  Else that may be another value than what was read there
 * before, and no flush changes that: it pins what was acknowledged.
 *
 * @offset  bytes, in the sector that is asked for
 */
BLOCK_API bool bgsim_model_is_settled(BgSimModel *model, int64_t offset);

/**
 * The allocation of a disk at rest: the extents of block status cover it, what
 * they call zero reads as zeroes, and what they say is stored at some place of
 * a simulated disk (that has the name of its node) is there.  Outside
 * coroutines.  False with @errp if not, or if @blk cannot be read.
 */
BLOCK_API bool bgsim_check_map(BgSim *sim, BlockBackend *blk, GError **errp);

/* --- the graph ------------------------------------------------------------ */

/**
 * Check a graph at rest: edges and parents agree, permissions computed anew
 * are those that are held, references equal edges and owners, nothing in
 * flight, no section open.  A check, not a violation.
 */
BLOCK_API bool bgsim_check_graph(BgSim *sim, GError **errp);

/**
 * Nodes, edges, permissions and options in a fixed form, to compare before and
 * after an operation that failed; at any step.  g_free().
 */
BLOCK_API char *bgsim_graph_dump(BgSim *sim);

/** At the end: no node, backend, coroutine, timer or lock is left. */
BLOCK_API bool bgsim_check_empty(BgSim *sim, GError **errp);

/* --- modules to come ------------------------------------------------------ */

/**
 * An oracle of a module: called at every step of the run if @every_step, and
 * at the end.  Says what is wrong with bgsim_violation().
 */
typedef struct BgSimOracle {
    const char *name;
    void (*step)(BgSim *sim, void *opaque); /* may be NULL; must not yield */
    void (*finish)(BgSim *sim, void *opaque); /* may be NULL */
    void *opaque;
} BgSimOracle;

/** Watch the run with @oracle, copied. */
BLOCK_API void bgsim_add_oracle(BgSim *sim, const BgSimOracle *oracle);

/**
 * The two sides between which a dirty bitmap must lie: every granule of
 * @must is dirty in the bitmap, and nothing outside @may is.
 */
typedef struct BgSimBitmapBounds {
    int64_t granularity;
    int64_t nr_granules;
    const bool *must; /* touched by an acknowledged change */
    const bool *may;  /* touched by any change that was sent */
} BgSimBitmapBounds;

/** Begin to note changes through @model in granules of @granularity bytes. */
BLOCK_API void bgsim_model_track(BgSimModel *model, int64_t granularity);

/** What must and may be dirty since bgsim_model_track(). */
BLOCK_API void bgsim_model_bounds(BgSimModel *model, BgSimBitmapBounds *ret);

/** Check a bitmap's content, one bool a granule, against @bounds. */
BLOCK_API bool bgsim_check_bounds(const BgSimBitmapBounds *bounds,
                                  const bool *dirty, GError **errp);

/* --- guests --------------------------------------------------------------- */

/** What a random guest does; zeroed, everything has its default. */
typedef struct BgSimGuestConfig {
    unsigned requests;      /* in all; 0: 40 */
    unsigned depth;         /* at once; 0: 4 */
    int64_t max_bytes;      /* of one request; 0: 8 KiB */
    int64_t align;          /* of offsets and lengths; 0: 512 */
    unsigned weight_read;   /* relative; all 0: 4, 4, 1, 1, 1, 1 */
    unsigned weight_write;
    unsigned weight_zero;
    unsigned weight_discard;
    unsigned weight_flush;
    unsigned weight_status;
    unsigned fua_permille;
    int64_t think_ns;       /* up to so long between two requests; 0: none */
    bool errors_expected;   /* a failed request is no violation */
} BgSimGuestConfig;

/** Spawn a random guest on @model, in @ctx (NULL: main).  @name is copied. */
BLOCK_API void bgsim_guest_start(BgSimModel *model, const char *name,
                                 AioContext *ctx,
                                 const BgSimGuestConfig *config);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_ORACLE_H */
