/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest on a qcow2 image in memory with a backing disk in memory, blkdebug
 * below each:
 *
 *   guest -> top (qcow2) -> topdbg -> disk
 *             +-- backing -> basedbg -> base
 *
 * Each byte of the backing disk is old_byte() of its offset, or zero.
 */
#ifndef TESTS_UNIT_COR_FIXTURE_H
#define TESTS_UNIT_COR_FIXTURE_H

#include "graph-fixture.h"
#include "mem-driver.h"

#include <blockgraph/image.h>

static BlockDriverState *disk, *base, *top;
static BlockBackend *guest;

static inline uint8_t old_byte(int64_t offset)
{
    return 1 + offset / 512 % 251;
}

static inline BlockBackend *any_backend(const char *name, BlockDriverState *bs)
{
    bool ro = bdrv_is_read_only(bs);

    return backend_ok(name, bs, BLK_PERM_CONSISTENT_READ |
                      (ro ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE),
                      BLK_PERM_ALL);
}

/** Make the backing disk, of @bytes. */
static inline void cor_base(int64_t bytes)
{
    g_autofree char *text = g_strdup_printf("mem,node-name=base,size=%"
                                            G_GINT64_FORMAT, bytes);

    base = open_ok(text);
    for (int64_t i = 0; i < bytes; i++) {
        mem_disk(base)->data[i] = old_byte(i);
        mem_disk(base)->allocated[i / MEM_CLUSTER] = true;
    }
}

/** Make the image, of @bytes, and open it as "top" with options @open. */
static inline void cor_top(int64_t bytes, const char *create,
                           const char *open)
{
    g_autofree char *make = g_strdup_printf(
        "qcow2,file=disk,size=%" G_GINT64_FORMAT ",%s", bytes, create);
    g_autofree char *text = g_strdup_printf(
        "qcow2,node-name=top,discard=unmap,file.driver=blkdebug,"
        "file.node-name=topdbg,file.image=disk,backing.driver=blkdebug,"
        "backing.node-name=basedbg,backing.image=base%s", open);
    g_autoptr(GError) error = NULL;

    disk = open_ok("mem,node-name=disk,size=0,discard=unmap");
    ck_assert_msg(bdrv_create(graph, opts(make), &error) == 0, "%s: %s", make,
                  error ? error->message : "no error set");
    top = open_ok(text);
    guest = any_backend("guest", top);
}

static inline void cor_stop(void)
{
    blk_unref(guest);
    bdrv_unref(top);
    bdrv_unref(disk);
    bdrv_unref(base);
}

/** Whether all of the range is in the upper layer of @blk, or nothing is. */
static inline bool is_there(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    int there = -1;

    while (bytes > 0) {
        int64_t n;
        int depth = blk_is_allocated(blk, offset, bytes, &n);

        ck_assert_int_ge(depth, 0);
        ck_assert_int_gt(n, 0);
        ck_assert_msg(there < 0 || there == (depth == 1), "mixed at %"
                      G_GINT64_FORMAT, offset);
        there = depth == 1;
        offset += n;
        bytes -= n;
    }
    return there;
}

static inline void expect_old(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != old_byte(offset + i)) {
            ck_abort_msg("byte %ld is %d, expected %d", (long)(offset + i),
                         buf[i], old_byte(offset + i));
        }
    }
}

static inline void expect_zero(BlockBackend *blk, int64_t offset,
                               int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    ck_assert(block_buffer_is_zero(buf, bytes));
}

static inline int prefetch(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return blk_preadv(blk, offset, bytes, NULL,
                      BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH);
}

/** The image has no fault. */
static inline void expect_sound(BlockDriverState *bs)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result;

    ck_assert_int_eq(bdrv_check(bs, &how, &result, NULL), 0);
    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_eq(result.check_errors, 0);
}

/** Put a filter above the image, below its guest. */
static inline BlockDriverState *cor_insert(const char *text)
{
    BlockDriverState *filter;
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_insert_node(top, opts(text), &filter, &error) == 0,
                  "%s", error ? error->message : "no error set");
    return filter;
}

/** Take it out. */
static inline void cor_drop(BlockDriverState *filter)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_drop_filter(filter, &error) == 0, "%s",
                  error ? error->message : "no error set");
    bdrv_unref(filter);
}

/** Returns 0 or a negative errno. */
static inline int cor_try_reopen(BlockDriverState *bs, const char *text,
                                 GError **errp)
{
    return bdrv_reopen(bs, block_options_parse_keyval(text, NULL, NULL), errp);
}

#endif /* TESTS_UNIT_COR_FIXTURE_H */
