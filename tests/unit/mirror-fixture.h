/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mirrors of disks in memory.
 */
#ifndef TESTS_UNIT_MIRROR_FIXTURE_H
#define TESTS_UNIT_MIRROR_FIXTURE_H

#include "job-fixture.h"

#define CLUSTER (64 << 10)
#define DISK (8 * CLUSTER)
#define MIRROR "job-id=j,device=source,target=target,sync=full"

static BlockDriverState *source, *target;
static BlockBackend *guest;

/** Fill a node that nobody uses. */
static inline void fill_node(BlockDriverState *bs, uint8_t byte)
{
    BlockBackend *blk = backend_ok("fill", bs, BLK_PERM_WRITE, BLK_PERM_ALL);

    job_fill(blk, 0, bdrv_length(bs), byte);
    blk_unref(blk);
}

/** A disk of 'a' with a guest on it, and another one of old data. */
static inline void disks(void)
{
    source = open_ok("mem,node-name=source,size=512k,discard=unmap");
    target = open_ok("mem,node-name=target,size=512k,discard=unmap");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, DISK, 'a');
    fill_node(target, 'x');
}

static inline void no_disks(void)
{
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
}

/** A mirror with these options more, that is ready. */
static inline BlockJob *ready_mirror(const char *more)
{
    g_autofree char *text = g_strdup_printf(MIRROR "%s", more);
    BlockJob *job = job_ok(BLOCK_JOB_MIRROR, text);

    job_reach(job, BLOCK_JOB_READY);
    return job;
}

/** Have it end with a switch. */
static inline void complete_ok(BlockJob *job)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(block_job_complete(job, &error) == 0, "%s",
                  error ? error->message : "no error set");
    job_end_ok(job);
}

/** Have it end with a copy. */
static inline void end_with_copy(BlockJob *job)
{
    ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    job_end_ok(job);
}

static inline void hold(BlockDriverState *disk, MemOp op, bool on)
{
    mem_disk(disk)->hold[op] = on;
}

static inline void fail_writes(BlockDriverState *disk, int err)
{
    WITH_LOCK(&mem_disk(disk)->lock) {
        mem_disk(disk)->fail_forever[MEM_WRITE] = err;
    }
}

/** A request that nobody waits for. */
typedef struct Flying {
    BlockIOVec1 iov;
    uint8_t buf[CLUSTER];
    bool ended;
    int ret;
} Flying;

static inline void flying_ended(void *opaque, int ret)
{
    Flying *f = opaque;

    f->ended = true;
    f->ret = ret;
}

/** A guest's write of a cluster of @byte; the loop is not turned. */
static inline void fly(Flying *f, int64_t offset, uint8_t byte)
{
    f->ended = false;
    memset(f->buf, byte, CLUSTER);
    blk_aio_pwritev(guest, offset, block_iov_buf(&f->iov, f->buf, CLUSTER), 0,
                    flying_ended, f);
}

static inline void turn(int turns)
{
    for (int i = 0; i < turns; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/** Check that both disks have the same content. */
static inline void expect_same(void)
{
    ck_assert_mem_eq(mem_disk(source)->data, mem_disk(target)->data, DISK);
}

/** No job and no filter is left. */
static inline void expect_gone(void)
{
    job_settle();
    ck_assert_ptr_null(block_job_next(graph, NULL));
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
}

/** block_job_change() of the copy mode. */
static inline int change_mode(BlockJob *job, const char *mode, GError **errp)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "copy-mode", mode);
    return block_job_change(job, options, errp);
}

#endif /* TESTS_UNIT_MIRROR_FIXTURE_H */
