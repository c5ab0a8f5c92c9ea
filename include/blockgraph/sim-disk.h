/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Simulated disks: sparse, with a volatile write cache, latencies, faults, and
 * all the states in which a power cut may leave them.
 */
#ifndef BLOCKGRAPH_SIM_DISK_H
#define BLOCKGRAPH_SIM_DISK_H

#include <blockgraph/sim.h>

G_BEGIN_DECLS

typedef struct BgSimDisk BgSimDisk;

/** What a failed flush does with data that were not stable yet. */
typedef enum BgSimFlushMode {
    BGSIM_FLUSH_KEEP,          /* they stay volatile; the next flush retries */
    BGSIM_FLUSH_FORGET_CLEAN,  /* never stable, but reads still show them */
    BGSIM_FLUSH_FORGET_REVERT, /* reads return the old data from then on */
} BgSimFlushMode;

/** What a discard leaves. */
typedef enum BgSimDiscard {
    BGSIM_DISCARD_KEEPS,  /* the old content */
    BGSIM_DISCARD_ZEROES, /* zeroes */
    BGSIM_DISCARD_ANY,    /* each atom: old content or zeroes, drawn */
    BGSIM_DISCARD_NONE,   /* -ENOTSUP */
} BgSimDiscard;

/** How a disk behaves; zeroed, everything has its default. */
typedef struct BgSimDiskConfig {
    int64_t size;               /* bytes; 0: 256 KiB */
    uint32_t atom;              /* what a power cut does not tear; 0: 512 */
    uint32_t request_alignment; /* power of two; 0: 512 */
    uint32_t max_transfer;      /* bytes; 0: no limit */
    int max_iov;                /* pieces of a request; 0: no limit.  There
                                 * is no alignment of memory: addresses
                                 * differ from run to run */
    bool grows;                 /* a file: writes, truncate change the size */
    bool empty;                 /* begins with size 0, whatever @size says */
    bool dirty_start;           /* never-written atoms are noise, not zero */
    bool no_zero_write;         /* pwrite_zeroes: -ENOTSUP */
    bool no_fua;                /* FUA is left to the core */
    bool lying_flush;           /* says 0 and does nothing; to test tests */
    bool lying_fua;             /* takes the flag and ignores it */
    bool lying_zero_write;      /* announces it, then -ENOTSUP */
    BgSimDiscard discard;
    BgSimFlushMode flush_mode;
    int64_t quota;              /* bytes of atoms that may be stored; then
                                 * -ENOSPC; 0: no limit */
    int64_t min_latency_ns;     /* 0: 1 us */
    int64_t mean_latency_ns;    /* of an exponential part; 0: 100 us */
    unsigned slow_permille;     /* requests that take 1000 times as long */
    unsigned torn_read_permille; /* a read may see part of a write in flight */
    bool keep_log;              /* keep all data for bgsim_disk_export_log();
                                 * BgSimConfig.record does so for all disks */
} BgSimDiskConfig;

/** What a simulated disk has done so far. */
typedef struct BgSimDiskStats {
    uint64_t reads, writes, zeroes, discards, flushes, truncates;
    uint64_t failed;          /* requests that ended with an error */
    uint64_t volatile_atoms;  /* atoms that a power cut may lose now */
    uint64_t stored_atoms;    /* atoms that hold something */
} BgSimDiskStats;

/**
 * A disk.  It lives until bgsim_free(), across any number of nodes.
 *
 * @name    unique; also the default node name.  Copied.
 * @config  NULL for defaults; copied
 */
BLOCK_API BgSimDisk *bgsim_disk_new(BgSim *sim, const char *name,
                                    const BgSimDiskConfig *config);

/** The disk of a name, or NULL. */
BLOCK_API BgSimDisk *bgsim_disk_find(BgSim *sim, const char *name);

/** The name. */
BLOCK_API const char *bgsim_disk_name(const BgSimDisk *disk);

/**
 * Open a node on @disk, of driver "sim-disk" with its option "disk".
 *
 * @options  more options, taken over; NULL for none
 *
 * Returns the node, or NULL with @errp set.
 */
BLOCK_API BlockDriverState *bgsim_disk_open(BgSimDisk *disk,
                                            BlockOptions *options,
                                            GError **errp);

/** Look at the bytes that a read would return now, past the graph. */
BLOCK_API void bgsim_disk_peek(BgSimDisk *disk, int64_t offset, int64_t bytes,
                               void *buf);

/** Change bytes, at once and for good, past the graph. */
BLOCK_API void bgsim_disk_poke(BgSimDisk *disk, int64_t offset, int64_t bytes,
                               const void *buf);

/** The present size in bytes. */
BLOCK_API int64_t bgsim_disk_length(BgSimDisk *disk);

/** Flip one bit of the byte at @offset, at rest. */
BLOCK_API void bgsim_disk_corrupt(BgSimDisk *disk, int64_t offset);

/** How many more bytes may be stored from now on; negative: no limit. */
BLOCK_API void bgsim_disk_set_quota(BgSimDisk *disk, int64_t quota);

/** Counters. */
BLOCK_API void bgsim_disk_get_stats(BgSimDisk *disk, BgSimDiskStats *stats);

/** Make the content that of the file at @path.  Negative errno. */
BLOCK_API int bgsim_disk_import(BgSimDisk *disk, const char *path,
                                GError **errp);

/** Write what a read would return now to a file, sparse.  Negative errno. */
BLOCK_API int bgsim_disk_export(BgSimDisk *disk, const char *path,
                                GError **errp);

/**
 * Write all changes since the disk was made as a log in the format of Linux'
 * dm-log-writes, in order of completion.  A flush stands where it began: what
 * stands before it had ended, so the flush covers it.  The log has no word for
 * the length.
 *
 * Returns 0; -ENODATA if the requests were not kept (BgSimDiskConfig.keep_log),
 * or another negative errno.
 */
BLOCK_API int bgsim_disk_export_log(BgSimDisk *disk, const char *path,
                                    GError **errp);

/* --- power cuts ----------------------------------------------------------- */

/** How many of the legal states of a power cut are looked at. */
typedef struct BgSimCrashConfig {
    unsigned all_below; /* all states when there are fewer; 0: 4096 */
    unsigned sample;    /* else so many; 0: 256.  Of the states that a sample
                         * always has (nothing survives, each request alone
                         * missing, ...) there may be more: up to 8 times */
    unsigned second_every; /* in each so manieth state the power is cut again at
                         * some step of the check, and the same check looks at
                         * what is left then; 0: never.  Only for a check that
                         * bears its own work half done */
} BgSimCrashConfig;

/** One state after a power cut. */
typedef struct BgSimCrashState {
    unsigned index;   /* 0, 1, ... */
    bool exhaustive;  /* all states are visited */
    const char *what; /* "nothing survives", "request 17 alone missing", ... */
} BgSimCrashState;

/**
 * Called for one state.  The disks of @sim have the content of that state, as
 * after a power cut: everything on them is stable.  Opens a graph of its own on
 * them (bgsim_disk_open() takes the graph to use from bgsim_graph(), which is a
 * fresh one meanwhile), checks, closes it.
 *
 * Returns false with @errp set if the state is bad.
 */
typedef bool BgSimCrashCheck(BgSim *sim, const BgSimCrashState *state,
                             void *opaque, GError **errp);

/**
 * Cut the power now, in thought: call @check for all legal states of the disks,
 * or a sample of them.  Then the world goes on as if nothing had been: clock,
 * choices, threads, tasks, rules and models of a check are its own, and healthy
 * disks take its requests without rules or chances of the world outside.
 *
 * A check may call this itself: the power is cut a second time, during what
 * the check does.  Not a third time.
 *
 * With real threads this does nothing and returns true: requests of other
 * threads cannot be held still.
 *
 * Returns false with @errp set at the first bad state, or if a check leaves
 * nodes or tasks behind.
 */
BLOCK_API bool bgsim_crash_each(BgSim *sim, BgSimCrashCheck *check,
                                void *opaque, const BgSimCrashConfig *config,
                                GError **errp);

/**
 * Have bgsim_crash_each() done at a step of the run, from inside: the next
 * bgsim_run() stops before step @step, does it, and goes on.  A violation if a
 * state is bad.  May be called several times.
 */
BLOCK_API void bgsim_crash_at(BgSim *sim, uint64_t step,
                              BgSimCrashCheck *check, void *opaque,
                              const BgSimCrashConfig *config);

/** How many states were checked so far, and how many by a second cut. */
BLOCK_API uint64_t bgsim_crash_states(const BgSim *sim, uint64_t *ret_second);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_DISK_H */
