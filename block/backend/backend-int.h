/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a BlockBackend.
 */
#ifndef BLOCK_BACKEND_INT_H
#define BLOCK_BACKEND_INT_H

#include <blockgraph/backend.h>

#include "block/graph/graph-int.h"

#define ACCT_SHARDS ROOT_SHARDS

/** Counts of the requests of some threads. */
typedef struct AcctShard {
    /* Any thread; relaxed, read when somebody asks. */
    _Alignas(64) _Atomic uint64_t operations[BLOCK_ACCT_TYPES];
    _Atomic uint64_t bytes[BLOCK_ACCT_TYPES];
    _Atomic uint64_t failed[BLOCK_ACCT_TYPES];
    _Atomic uint64_t invalid[BLOCK_ACCT_TYPES];
} AcctShard;

/** Latencies; made when they are first measured. */
typedef struct AcctLatency {
    /* Any thread; relaxed. */
    _Atomic uint64_t total_ns[BLOCK_ACCT_TYPES];
    _Atomic uint64_t buckets[BLOCK_ACCT_TYPES][BLOCK_ACCT_BUCKETS];
} AcctLatency;

struct BlkStopped;

struct BlockBackend {
    BlockRoot root;
    AcctShard acct[ACCT_SHARDS];

    /* Set by blk_new(). */
    BlockGraph *graph;
    char *name;
    char *what; /* "block backend 'NAME'" */

    /* Any thread. */
    _Atomic unsigned refs;
    _Atomic uint64_t perm_used; /* BlockPermBits */
    _Atomic bool write_through;
    _Atomic(AcctLatency *) latency; /* stays once made */
    _Atomic bool measure_latency;

    /* Main context, with no request in flight. */
    BlockOnError on_read_error;
    BlockOnError on_write_error;
    BlockErrorListener *listener;
    void *listener_opaque;

    /* Guarded by @stop_lock: requests that wait for blk_resume(). */
    Lock stop_lock;
    struct BlkStopped *stopped;
    unsigned nr_stopped;
    uint64_t resume_count; /* how often blk_resume() was called */

    /* Main context. */
    BlockPerm perm;
};

/** One request of a backend, whatever it does. */
typedef struct BlkRequest {
    BlockBackend *blk;
    BlockAcctType type;
    int64_t offset;
    int64_t bytes;
    BlockIOVec *iov;
    unsigned flags;
} BlkRequest;

/**
 * Run a request that is counted with @ticket: check, dispatch, apply the error
 * policy, account.  The ticket may have changed on return (a request that was
 * stopped leaves and enters again).
 *
 * Returns 0 or a negative errno.
 */
int coroutine_fn blk_request_run(const BlkRequest *req, unsigned *ticket);

/** Count @req in, run it, count it out. */
int coroutine_fn blk_request(const BlkRequest *req);

/** blk_co_set_perm() for who has drained @blk, and sees to it that nobody has
 * to undo something there; does not yield. */
int blk_set_perm_drained(BlockBackend *blk, const BlockPerm *perm,
                         GError **errp);

/* --- accounting.c --------------------------------------------------------- */

/** Count a request that has ended with @ret and began at @start_ns (or 0). */
void blk_acct_done(const BlkRequest *req, int ret, int64_t start_ns);

/** Count a request that was refused at the door. */
void blk_acct_invalid(const BlkRequest *req);

/** The time to hand to blk_acct_done(), or 0 when it is not measured. */
int64_t blk_acct_start(BlockBackend *blk);

/** Free what accounting holds. */
void blk_acct_destroy(BlockBackend *blk);

/* --- on-error.c ----------------------------------------------------------- */

/**
 * What becomes of @req, which failed with @ret < 0.
 *
 * Returns the result for the caller, or 1: try again (after a stop, during
 * which the request was not counted).
 */
int coroutine_fn blk_request_failed(const BlkRequest *req, int ret,
                                    unsigned *ticket);

/** Let all requests that are stopped end with their error. */
void blk_abort_stopped(BlockBackend *blk);

#endif /* BLOCK_BACKEND_INT_H */
