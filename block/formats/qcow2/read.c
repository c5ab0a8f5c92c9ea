/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads: each run of the range from where it is.
 */
#include "block/formats/qcow2/qcow2.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* Runs that are read at once, for one request. */
#define READ_PARALLEL_MAX 8

/* One run of a request. */
typedef struct ReadRun {
    Qcow2 *q;
    Qcow2Mapping map;
    int64_t offset;
    BlockIOVec *iov;    /* of the whole request */
    size_t iov_offset;
} ReadRun;

/* Read from @child into a part of @iov, or all of it. */
static int coroutine_fn read_child(BdrvChild *child, int64_t offset,
                                   int64_t bytes, BlockIOVec *iov,
                                   size_t iov_offset)
{
    BlockIOVecSlice slice;
    int ret;

    if (G_LIKELY(iov_offset == 0 && (int64_t)iov->size == bytes)) {
        return bdrv_co_preadv(child, offset, bytes, iov, 0);
    }
    ret = bdrv_co_preadv(child, offset, bytes,
                         block_iov_slice(&slice, iov, iov_offset, bytes), 0);
    block_iov_slice_clear(&slice);
    return ret;
}

static int coroutine_fn read_run(const ReadRun *run)
{
    Qcow2 *q = run->q;
    int64_t bytes = run->map.bytes;
    BdrvChild *backing = bdrv_cow_child(q->bs);

    switch (run->map.kind) {
    case QCOW2_NORMAL:
        return read_child(q->data_file, run->map.host_offset, bytes, run->iov,
                          run->iov_offset);
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        if (backing) {
            bdrv_co_debug_event(q->bs, "read_backing_aio");
            return read_child(backing, run->offset, bytes, run->iov,
                              run->iov_offset);
        }
        /* fall through */
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_ALLOC:
        block_iov_memset(run->iov, run->iov_offset, 0, bytes);
        return 0;
    case QCOW2_COMPRESSED:
        return qcow2_read_compressed(
            q, run->map.word, qcow2_into_cluster(&q->geo, run->offset), bytes,
            run->iov, run->iov_offset);
    case QCOW2_INVALID:
        break;
    }
    g_assert_not_reached(); /* qcow2_map() does not let it through */
}

static int coroutine_fn read_run_task(void *opaque)
{
    g_autofree ReadRun *run = opaque;

    return read_run(run);
}

/* Read @run in a coroutine of its own. */
static int coroutine_fn start_run(CoTaskPool **pool, const ReadRun *run)
{
    ReadRun *task = g_memdup2(run, sizeof(*run));
    int ret;

    if (!*pool) {
        *pool = co_task_pool_new(READ_PARALLEL_MAX);
    }
    ret = co_task_pool_start(*pool, read_run_task, task);
    if (ret < 0) {
        g_free(task);
    }
    return ret;
}

int coroutine_fn qcow2_read_range(Qcow2 *q, int64_t offset, int64_t bytes,
                                  BlockIOVec *iov, size_t iov_offset)
{
    CoTaskPool *pool = NULL;
    int64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < bytes) {
        ReadRun run = { .q = q, .offset = offset + done, .iov = iov,
                        .iov_offset = iov_offset + done };

        ret = qcow2_map(q, run.offset, bytes - done, false, &run.map);
        if (ret < 0) {
            break;
        }
        done += run.map.bytes;
        if (done == bytes && !pool) {
            return read_run(&run);
        }
        ret = start_run(&pool, &run);
    }
    if (pool) {
        int code = co_task_pool_wait_all(pool);

        ret = ret < 0 ? ret : code;
        co_task_pool_free(pool);
    }
    return ret;
}

int coroutine_fn qcow2_preadv(BlockDriverState *bs, const BlockIO *io)
{
    Qcow2 *q = qcow2_of(bs);
    unsigned ticket = qcow2_access_begin(q);
    int64_t host;
    int ret;

    if (G_LIKELY(qcow2_map_data(q, io->offset, io->bytes, &host))) {
        ret = bdrv_co_preadv(q->data_file, host, io->bytes, io->iov, 0);
    } else {
        ret = qcow2_read_range(q, io->offset, io->bytes, io->iov, 0);
    }
    qcow2_access_end(q, ticket);
    return ret;
}
