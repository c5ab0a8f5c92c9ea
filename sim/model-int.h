/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a model, shared by the files model*.c.
 */
#ifndef SIM_MODEL_INT_H
#define SIM_MODEL_INT_H

#include "sim/pattern.h"
#include "sim/register.h"
#include "sim/sim-int.h"

/** Sectors that are kept together; most disks of a test touch few pages. */
#define PAGE_SECTORS 64

/** Requests whose details are kept for messages. */
#define MODEL_LOG 256

/** One request, in words for messages. */
typedef struct ModelLogEntry {
    uint64_t begin;     /* its id */
    uint64_t end;       /* REG_NEVER: in flight */
    int64_t offset;
    int64_t bytes;
    int result;
    BgSimOpKind kind;
    unsigned flags;
    int64_t at_ns;
    uint32_t number;    /* 1, 2, ...; tells whose entry this is */
} ModelLogEntry;

typedef struct ModelPage {
    SimRegister sectors[PAGE_SECTORS];
} ModelPage;

/** Memory of requests, used again and again. */
typedef struct ModelBuffer {
    struct ModelBuffer *next;
    size_t bytes;
    uint8_t data[];
} ModelBuffer;

/** One request; on the stack of its coroutine. */
typedef struct ModelRequest {
    /* Set when it begins. */
    BgSimModel *model;
    BgSimOpKind kind;
    int64_t offset;
    int64_t bytes;
    unsigned flags;
    uint64_t begin;     /* tick; its number for everybody */
    uint32_t number;    /* in the log */
    uint64_t step;      /* of the world */

    /* Guarded by the lock of the model. */
    ListHead link;      /* in model->in_flight */
    ListHead read_link; /* in model->reads; reads and status only */
} ModelRequest;

/** Granules for the oracle of dirty bitmaps; see model-bounds.c. */
typedef struct ModelBounds {
    int64_t granularity; /* 0: not tracked */
    int64_t nr;
    bool *must;
    bool *may;
    uint64_t since;      /* tick */
} ModelBounds;

struct BgSimModel {
    /* Set by bgsim_model_new() or bgsim_model_freeze(). */
    BgSim *sim;
    char *name;
    unsigned index;      /* tells disks apart in what is written */
    int64_t length;
    bool frozen;

    /* Any thread. */
    _Atomic(BlockBackend *) blk;

    /* Before the first request. */
    bool unknown;
    bool flush_forgets;

    /* Guarded by @lock. */
    Lock lock;
    ModelPage **pages;   /* by place; NULL: never touched */
    GArray *touched;     /* uint64_t: which pages there are */
    ListHead in_flight;  /* ModelRequest.link, oldest first */
    ListHead reads;      /* ModelRequest.read_link, oldest first */
    ModelBuffer *buffers;
    uint64_t pinned;     /* see RegRules */
    uint64_t lost_from;  /* see RegRules; with @flush_forgets */
    uint64_t lost_to;
    uint64_t requests;
    uint64_t ok;
    ModelLogEntry log[MODEL_LOG]; /* by number modulo MODEL_LOG */
    ModelBounds bounds;
};

/* --- model.c -------------------------------------------------------------- */

/** The register of sector @index, or NULL if it was never touched. */
const SimRegister *model_peek_sector(const BgSimModel *model, int64_t index);

/** What holds for the sectors now. */
RegRules model_rules_locked(BgSimModel *model) LOCK_REQUIRES(model->lock);

/**
 * What @pattern at sector @index is for its register.  Returns false if it
 * belongs elsewhere or is torn.
 */
bool model_classify(const BgSimModel *model, int64_t index,
                    const Pattern *pattern, RegFound *ret);

/** A new model without a backend, registered with the world. */
BgSimModel *model_new(BgSim *sim, const char *name, int64_t length);

/* --- model-text.c --------------------------------------------------------- */

/**
 * Why @pattern is wrong in sector @index: what it is, what would be legal, and
 * what was last done there.  @durable: after a power cut.  g_free().
 */
char *model_explain_locked(BgSimModel *model, int64_t index,
                           const Pattern *pattern, bool durable)
    LOCK_REQUIRES(model->lock);

/* --- model-bounds.c ------------------------------------------------------- */

/** A change of a range begins, or has ended well. */
void model_bounds_begin_locked(BgSimModel *model, const ModelRequest *req)
    LOCK_REQUIRES(model->lock);
void model_bounds_acked_locked(BgSimModel *model, const ModelRequest *req)
    LOCK_REQUIRES(model->lock);

#endif /* SIM_MODEL_INT_H */
