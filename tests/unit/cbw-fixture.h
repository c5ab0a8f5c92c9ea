/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest on a disk in memory, with copy-before-write above it and a reader of
 * the point in time:
 *
 *   guest -> cbw -> source;  cbw -> target;  reader -> snapshot -> cbw
 *
 * The old content of each byte of DISK is old_byte() of its offset; a cluster
 * behind was never written.
 */
#ifndef TESTS_UNIT_CBW_FIXTURE_H
#define TESTS_UNIT_CBW_FIXTURE_H

#include "graph-fixture.h"
#include "mem-driver.h"

#define CLUSTER (64 << 10)
#define DISK (8 * CLUSTER)

static BlockDriverState *source, *target, *cbw, *snapshot;
static BlockBackend *guest, *reader;

static inline uint8_t old_byte(int64_t offset)
{
    return 'a' + offset / 512 % 23;
}

static inline BlockBackend *any_backend(const char *name, BlockDriverState *bs,
                                        bool write)
{
    return backend_ok(name, bs, BLK_PERM_CONSISTENT_READ |
                      (write ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0),
                      BLK_PERM_ALL);
}

static inline void guest_write(int64_t offset, int64_t bytes, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    ck_assert_int_eq(blk_pwrite(guest, offset, bytes, buf, 0), 0);
}

static inline void expect_byte(BlockBackend *blk, int64_t offset,
                               int64_t bytes, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    int64_t i = 0;

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    while (i < bytes && buf[i] == byte) {
        i++;
    }
    ck_assert_msg(i == bytes, "at %" G_GINT64_FORMAT " is %d, not %d",
                  offset + i, buf[i], byte);
}

/** The reader sees what was there. */
static inline void expect_snapshot(int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    int64_t i = 0;

    ck_assert_int_eq(blk_pread(reader, offset, bytes, buf, 0), 0);
    while (i < bytes && buf[i] == old_byte(offset + i)) {
        i++;
    }
    ck_assert_msg(i == bytes, "at %" G_GINT64_FORMAT " is %d, not %d",
                  offset + i, buf[i], old_byte(offset + i));
}

/** A source with its old content, and a guest on it. */
static inline void cbw_disks(void)
{
    g_autofree uint8_t *buf = g_malloc(DISK);

    source = open_ok("mem,node-name=source,size=576k,discard=unmap");
    target = open_ok("mem,node-name=target,size=576k,discard=unmap");
    guest = any_backend("guest", source, true);
    for (int64_t i = 0; i < DISK; i++) {
        buf[i] = old_byte(i);
    }
    ck_assert_int_eq(blk_pwrite(guest, 0, DISK, buf, 0), 0);
}

/** Put the filter in, with options @more, and read from above it. */
static inline void cbw_insert(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "copy-before-write,node-name=cbw,target=target%s", more);
    g_autoptr(GError) error = NULL;
    int ret = bdrv_insert_node(source, opts(text), &cbw, &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
    snapshot = open_ok("snapshot-access,node-name=snapshot,file=cbw,"
                       "discard=unmap");
    reader = any_backend("reader", snapshot, true);
}

static inline void cbw_start(const char *more)
{
    cbw_disks();
    cbw_insert(more);
}

/** Take the filter out, while the guest is there. */
static inline void cbw_stop_early(void)
{
    g_autoptr(GError) error = NULL;

    blk_unref(reader);
    bdrv_unref(snapshot);
    ck_assert_msg(bdrv_drop_filter(cbw, &error) == 0, "%s",
                  error ? error->message : "no error set");
    bdrv_unref(cbw);
}

static inline void cbw_close_disks(void)
{
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
}

/** Take all of it down. */
static inline void cbw_stop(void)
{
    cbw_stop_early();
    cbw_close_disks();
}

/* --- requests under way --------------------------------------------------- */

/* A request of the guest or the reader that the test does not wait for. */
typedef struct Flying {
    BlockIOVec1 iov;
    uint8_t buf[2 * CLUSTER];
    bool ended;
    int ret;
} Flying;

static inline void flying_ended(void *opaque, int ret)
{
    Flying *f = opaque;

    f->ended = true;
    f->ret = ret;
}

static inline void fly(Flying *f, BlockBackend *blk, char op, int64_t offset,
                int64_t bytes, uint8_t byte)
{
    BlockIOVec *iov = block_iov_buf(&f->iov, f->buf, bytes);

    f->ended = false;
    if (op == 'w') {
        memset(f->buf, byte, bytes);
        blk_aio_pwritev(blk, offset, iov, 0, flying_ended, f);
    } else {
        blk_aio_preadv(blk, offset, iov, 0, flying_ended, f);
    }
}

/* Let all go on that can. */
static inline void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static inline void land(Flying *f)
{
    while (!f->ended) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static inline void hold(BlockDriverState *disk, MemOp op, bool on)
{
    mem_disk(disk)->hold[op] = on;
}

static inline void fail_next(BlockDriverState *disk, MemOp op, int err)
{
    WITH_LOCK(&mem_disk(disk)->lock) {
        mem_disk(disk)->fail[op] = err;
    }
}

/* The next read of the source waits. */
static inline void catch_read(void)
{
    mem_disk(source)->catch_next[MEM_READ] = true;
}

static inline void release_read(void)
{
    ck_assert(mem_disk(source)->caught);
    mem_disk(source)->caught = false;
}

static inline void release_writes(void *opaque)
{
    hold(opaque, MEM_WRITE, false);
}

static inline void expect_old(const Flying *f, int64_t offset, int64_t bytes)
{
    int64_t i = 0;

    ck_assert_int_eq(f->ret, 0);
    while (i < bytes && f->buf[i] == old_byte(offset + i)) {
        i++;
    }
    ck_assert_int_eq(i, bytes);
}

static inline int read_status(int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    return blk_pread(reader, offset, bytes, buf, 0);
}

#endif /* TESTS_UNIT_CBW_FIXTURE_H */
