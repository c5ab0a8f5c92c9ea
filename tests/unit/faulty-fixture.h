/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "faulty": a filter that makes the n-th request fail, and that can keep
 * discards waiting.  One set of numbers serves all nodes of it.
 */
#ifndef TESTS_UNIT_FAULTY_FIXTURE_H
#define TESTS_UNIT_FAULTY_FIXTURE_H

#include "graph-fixture.h"

/* Kinds of requests; bits. */
#define FAULTY_READS 1u
#define FAULTY_WRITES 2u /* zero writes, too */
#define FAULTY_FLUSHES 4u
#define FAULTY_TRUNCATES 8u
#define FAULTY_CHANGES (FAULTY_WRITES | FAULTY_FLUSHES | FAULTY_TRUNCATES)

static struct {
    unsigned kinds;         /* which count */
    unsigned count;         /* so many came since faulty_set() */
    unsigned from;          /* this one fails, the first being 1, ... */
    unsigned nr;            /* ... and so many in all, one after the other */
    bool first_happens;     /* a write that fails first is done all the same */
    void (*instead)(void);  /* called before a request that would have failed,
                             * which does not */
    int64_t read_bytes;
    bool hold_discards;
    CoQueue held;
    unsigned nr_held;
    unsigned discards;
    int64_t last_discard;
    int64_t discarded_bytes;
} faulty;

/** From now on: of requests of @kinds @nr fail, the first being number @from,
 * counted from 1. */
static inline void faulty_set(unsigned kinds, unsigned from, unsigned nr)
{
    faulty.kinds = kinds;
    faulty.count = 0;
    faulty.from = from;
    faulty.nr = nr;
    faulty.first_happens = false;
    faulty.instead = NULL;
}

/** No request fails any more. */
static inline void faulty_clear(void)
{
    faulty_set(0, 0, 0);
}

/** Whether one has failed since faulty_set(). */
static inline bool faulty_has_failed(void)
{
    return faulty.nr > 0 && faulty.count >= faulty.from;
}

static inline int faulty_ret(unsigned kind)
{
    if (!(faulty.kinds & kind)) {
        return 0;
    }
    faulty.count++;
    if (!faulty_has_failed() || faulty.count - faulty.from >= faulty.nr) {
        return 0;
    }
    if (faulty.instead) {
        faulty.instead();
    }
    return faulty.instead ? 0 : -EIO;
}

static int coroutine_fn faulty_preadv(BlockDriverState *bs, const BlockIO *io)
{
    int ret = faulty_ret(FAULTY_READS);

    faulty.read_bytes += io->bytes;
    return ret ? ret
               : bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                                io->iov, io->flags);
}

static int coroutine_fn faulty_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    int ret = faulty_ret(FAULTY_WRITES);
    int done = 0;

    if (ret == 0 || (faulty.first_happens && faulty.count == faulty.from)) {
        done = bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                               io->iov, io->flags);
    }
    return ret ? ret : done;
}

static int coroutine_fn faulty_pwrite_zeroes(BlockDriverState *bs,
                                             const BlockIO *io)
{
    int ret = faulty_ret(FAULTY_WRITES);

    return ret ? ret
               : bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset,
                                       io->bytes,
                                       io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn faulty_pdiscard(BlockDriverState *bs,
                                        const BlockIO *io)
{
    faulty.discards++;
    faulty.last_discard = io->offset;
    faulty.discarded_bytes += io->bytes;
    while (faulty.hold_discards) {
        faulty.nr_held++;
        co_queue_wait(&faulty.held, NULL);
        faulty.nr_held--;
    }
    return bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
}

static int coroutine_fn faulty_flush(BlockDriverState *bs)
{
    return faulty_ret(FAULTY_FLUSHES);
}

static int coroutine_fn faulty_truncate(BlockDriverState *bs,
                                        const BlockTruncate *how,
                                        GError **errp)
{
    int ret = faulty_ret(FAULTY_TRUNCATES);

    return ret ? block_error_errno(errp, -ret, "made to fail")
               : bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

static inline void register_faulty_driver(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "faulty",
        .kind = BLOCK_DRIVER_FILTER,
        .sees = BLOCK_SEES_WRITES,
        .options = filter_options,
        .open = pass_open,
        .preadv = faulty_preadv,
        .pwritev = faulty_pwritev,
        .pwrite_zeroes = faulty_pwrite_zeroes,
        .pdiscard = faulty_pdiscard,
        .flush = faulty_flush,
        .truncate = faulty_truncate,
    };

    register_test_driver(&driver);
}

#endif /* TESTS_UNIT_FAULTY_FIXTURE_H */
