/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scenario of transactions: what its files share.
 *
 *   transactions.c       guests, who begins transactions, what must be true
 *   transactions-plan.c  the actions of one, and what they are to lead to
 *   transactions-check.c what must be true after it
 */
#ifndef SIM_TRANSACTIONS_H
#define SIM_TRANSACTIONS_H

#include "sim/scenarios/attend.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/transaction.h>
#include <pthread.h>

#define TXN_DISKS 2
#define TXN_TASKS 2
#define TXN_BITMAPS 3
#define TXN_ACTIONS 12
#define TXN_INSIDE 2 /* snapshots inside images, of one transaction */
#define TXN_OVERLAYS 6
#define TXN_SECTOR 512
#define TXN_SECTORS 128

/* What guests use; behind it lies one block of the witness. */
#define TXN_GUEST_BYTES (TXN_SECTORS * TXN_SECTOR)
#define TXN_BLOCK 4096
#define TXN_DISK_BYTES (TXN_GUEST_BYTES + TXN_BLOCK)

/** No request begins so late. */
#define TXN_NEVER UINT64_MAX

typedef struct TxnWorld TxnWorld;

/** An image: the lowest of a disk (the first TXN_DISKS), or an overlay. */
typedef struct TxnLayer {
    char name[4];       /* of its node */
    BgSimDisk *disk;
} TxnLayer;

/** A disk that guests use. */
typedef struct TxnDisk {
    /* Set by setup. */
    TxnWorld *s;
    BlockBackend *guest;
    BgSimModel *model;

    /* Guarded by the lock of the world. */
    int layer;          /* that guests write, while @changing is 0 */
    int changing;       /* who may exchange it at the moment */
    unsigned changes;   /* how often somebody has begun to */
} TxnDisk;

/** A bitmap, or none; what is known of it. */
typedef struct TxnBitmap {
    int layer;          /* -1: none */
    int64_t grain;      /* sectors */
    bool enabled;
    uint64_t since;     /* requests that begin later must mark it */
    bool must[TXN_SECTORS];
    bool bits[TXN_SECTORS]; /* while nothing runs */
} TxnBitmap;

/** Who does one transaction after the other.  Main context, except for the
 * bitmaps, which the lock of the world guards. */
typedef struct TxnTask {
    TxnWorld *s;
    int index;
    int attempt;
    BgSimDisk *target_disks[TXN_DISKS];
    BlockDriverState *targets[TXN_DISKS];
    BlockBackend *reader;
    TxnBitmap bitmaps[TXN_BITMAPS];

    /* The transaction under way. */
    BlockAction actions[TXN_ACTIONS];
    int nr;
    bool fails;         /* an action cannot be done */
    bool may_fail;      /* one perhaps not */
    TxnBitmap want[TXN_BITMAPS];
    bool removed[TXN_BITMAPS];
    int top[TXN_DISKS]; /* where guests will write */
    bool backed_up[TXN_DISKS];
    int source[TXN_DISKS]; /* of the backup */
    BlockDriverState *overlays[TXN_DISKS];
    int inside[TXN_INSIDE]; /* the image that gets a snapshot */
    int nr_inside;
    BgSimModel *frozen[TXN_DISKS]; /* the point in time of a backup of
                                    * what guests see; else NULL */
} TxnTask;

struct TxnWorld {
    BgSim *sim;
    TxnDisk disks[TXN_DISKS];
    TxnLayer layers[TXN_DISKS + TXN_OVERLAYS];
    int nr_layers;
    TxnTask tasks[TXN_TASKS];
    int nr_tasks;
    bool faults;
    bool given_up;      /* a cancelled job may still wait for a slow disk */
    int busy;           /* jobs and transactions under way */
    unsigned activity;  /* how many have begun */

    pthread_mutex_t lock;
    uint64_t clock;     /* guarded by @lock */
};

/** The block that follows holds the lock of @s_; it does not return. */
#define WITH_WORLD(s_)                                                        \
    for (bool with_ = txn_lock(s_); with_; with_ = txn_unlock(s_))

static inline bool txn_lock(TxnWorld *s)
{
    pthread_mutex_lock(&s->lock);
    return true;
}

static inline bool txn_unlock(TxnWorld *s)
{
    pthread_mutex_unlock(&s->lock);
    return false;
}

/* --- transactions.c ------------------------------------------------------- */

/** The name of bitmap @i of @t, in @buf, which it returns. */
const char *txn_bitmap_name(const TxnTask *t, int i, char buf[8]);

/** The id of the job of @t that backs up disk @d, in @buf. */
const char *txn_job_id(const TxnTask *t, int d, char buf[8]);

/** The name of snapshot @i inside an image, of the transaction under way, in
 * @buf, which it returns. */
const char *txn_inside_name(const TxnTask *t, int i, char buf[16]);

/** The image of the node, or -1. */
int txn_layer_of(const TxnWorld *s, const BlockDriverState *bs);

/** The image that guests write at the moment.  Main context. */
int txn_top(const TxnWorld *s, int d);

/* --- transactions-check.c ------------------------------------------------- */

/** What was there before a transaction. */
typedef struct TxnBefore {
    uint64_t refusals;
    bool alone;         /* nobody else does anything */
    int top[TXN_DISKS];
    char *dump;         /* or NULL: others change the graph */
    uint8_t targets[TXN_DISKS][TXN_DISK_BYTES];
} TxnBefore;

/** Whether nobody else has begun to work on the graph since @activity. */
static inline bool txn_is_alone(const TxnWorld *s, unsigned activity)
{
    return s->activity == activity;
}

/** Look at what is there, when a transaction is planned; with @quiet nothing
 * runs. */
TxnBefore *txn_look(TxnTask *t, unsigned activity, bool quiet);

/** The transaction was done, or has failed with @error; frees @before. */
void txn_check(TxnTask *t, TxnBefore *before, bool quiet,
               const GError *error);

/** Then: snapshots inside images are there, if it was done, or are not. */
void coroutine_fn txn_check_inside(TxnTask *t, bool done);

/** Bitmaps that @want has are there, and no other of the task; with @exact they
 * are the same to the bit. */
void txn_check_bitmaps(TxnTask *t, const TxnBitmap *want, bool exact);

/** Nodes that have been closed took their bitmaps with them. */
void txn_forget_bitmaps(TxnTask *t);

/** Nothing runs: note the bits of all bitmaps of @t. */
void txn_note_bits(TxnTask *t);

/* --- transactions-plan.c -------------------------------------------------- */

/** Bits of @from, rounded to granules of @to, are added to @to. */
void txn_add_bits(bool *to, int64_t grain, const bool *from);

/** Draw the actions of a transaction of @t; all that they are to lead to is in
 * @t then.  Opens overlays. */
void coroutine_fn txn_plan(TxnTask *t);

#endif /* SIM_TRANSACTIONS_H */
