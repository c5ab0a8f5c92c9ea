/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One piece of a write on its way: what write.c and cow.c share.
 */
#ifndef BLOCK_FORMATS_QCOW2_WRITE_H
#define BLOCK_FORMATS_QCOW2_WRITE_H

#include "block/formats/qcow2/qcow2.h"

/** On the stack of its request. */
typedef struct Qcow2Write {
    Qcow2 *q;
    int64_t offset;        /* of the guest */
    int64_t bytes;
    BlockIOVec *iov;       /* of the whole request; or */
    const BlockCopyRange *copy; /* the data come from another node */
    int64_t source_offset; /* where this piece begins in the request */

    /* Made by the plan. */
    int64_t guest;         /* start of the first cluster */
    unsigned clusters;     /* 0: none needs one, or: */
    bool wait_for_readers; /* of before @epoch, then look again */
    unsigned epoch;
    int64_t host;          /* of the first cluster; they are contiguous */
    bool reuse;            /* the entries have these host clusters already */
    bool owned;            /* they were allocated for us */
    bool fresh;            /* they read as zero before we write */
    int64_t cow_from;      /* guest range that is written: the request and */
    int64_t cow_to;        /* what surrounds it */
    Qcow2Alloc alloc;
} Qcow2Write;

/** Write the guest's data of @w to host offset @host, nothing else. */
int coroutine_fn qcow2_write_data(Qcow2Write *w, int64_t host);

/** Write the guest's data of a planned @w, and what surrounds them. */
int coroutine_fn qcow2_cow_write(Qcow2Write *w);

#endif /* BLOCK_FORMATS_QCOW2_WRITE_H */
