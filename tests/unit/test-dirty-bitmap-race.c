/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps and requests of other threads: no change is lost.
 *
 * Writers in I/O threads count up cells of a disk that has no lock whatever, so
 * nothing but the bitmaps orders what they do.  The main thread is a mirror: it
 * cleans bits, then copies what they stand for.  In the end, what is clean must
 * be the same in the copy.  Meanwhile bitmaps come and go, and the disk grows
 * and shrinks.
 */
#include "graph-fixture.h"

#include <blockgraph/dirty-bitmap.h>
#include <stdatomic.h>

#define CELL 512
#define CELLS 256
#define THREADS 3
#define WRITERS 6

static BlockBackend *blk;
static BlockDriverState *bs;
static _Atomic uint64_t cells[CELLS];
static _Atomic int64_t length;
static _Atomic int nr_left;
static int steps_each;

/* --- the disk ------------------------------------------------------------- */

static int coroutine_fn cells_open(BlockDriverState *node,
                                   BlockOptions *options, unsigned flags,
                                   GError **errp)
{
    return 0;
}

static int coroutine_fn cells_pwritev(BlockDriverState *node,
                                      const BlockIO *io)
{
    uint64_t value;

    block_iov_to_buf(io->iov, 0, &value, sizeof(value));
    /* Data takes its time; what was looked up before it is old now. */
    for (int i = 0; i < 100; i++) {
        atomic_load_explicit(&length, memory_order_relaxed);
    }
    atomic_store_explicit(&cells[io->offset / CELL], value,
                          memory_order_relaxed);
    return 0;
}

static int coroutine_fn cells_truncate(BlockDriverState *node,
                                       const BlockTruncate *how,
                                       GError **errp)
{
    atomic_store(&length, how->offset);
    return 0;
}

static int64_t coroutine_fn cells_getlength(BlockDriverState *node)
{
    return atomic_load(&length);
}

static void cells_limits(BlockDriverState *node, BlockLimits *limits)
{
    limits->request_alignment = CELL;
}

static void register_cells(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "cells",
        .kind = BLOCK_DRIVER_PROTOCOL,
        .open = cells_open,
        .refresh_limits = cells_limits,
        .pwritev = cells_pwritev,
        .truncate = cells_truncate,
        .getlength = cells_getlength,
    };

    if (!bdrv_find_driver("cells") && bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

/* --- writers -------------------------------------------------------------- */

static void coroutine_fn writer_entry(void *opaque)
{
    GRand *rand = g_rand_new_with_seed(GPOINTER_TO_INT(opaque));
    uint64_t buf[CELL / 8] = { 0 };

    for (int i = 0; i < steps_each; i++) {
        /* Few cells: most bits are set already. */
        int cell = g_rand_int_range(rand, 0, CELLS);

        buf[0] = ((uint64_t)GPOINTER_TO_INT(opaque) << 32) + i + 1;
        if (blk_co_pwrite(blk, cell * CELL, CELL, buf, 0) < 0) {
            abort();
        }
    }
    g_rand_free(rand);
    atomic_fetch_sub(&nr_left, 1);
}

/* --- the mirror ----------------------------------------------------------- */

static uint64_t value_of(int cell)
{
    return atomic_load_explicit(&cells[cell], memory_order_relaxed);
}

/* Clean what is dirty in one area, then copy it. */
static void copy_area(BdrvDirtyBitmap *bitmap, uint64_t *copy, int64_t from)
{
    int64_t start, bytes;

    if (!bdrv_dirty_bitmap_next_dirty_area(bitmap, from, CELLS * CELL,
                                           8 * CELL, &start, &bytes)) {
        return;
    }
    bdrv_reset_dirty_bitmap(bitmap, start, bytes);
    for (int i = start / CELL; i < (start + bytes) / CELL; i++) {
        copy[i] = value_of(i);
    }
}

/* A new bitmap, and then a copy of all. */
static BdrvDirtyBitmap *begin_mirror(uint64_t *copy)
{
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(bs, CELL, NULL, NULL);

    for (int i = 0; i < CELLS; i++) {
        copy[i] = value_of(i);
    }
    return bitmap;
}

static void expect_copy(BdrvDirtyBitmap *bitmap, const uint64_t *copy,
                        const char *what)
{
    for (int i = 0; i < CELLS; i++) {
        if (copy[i] != value_of(i) &&
            !bdrv_dirty_bitmap_get(bitmap, i * CELL)) {
            ck_abort_msg("%s: a change of cell %d was lost", what, i);
        }
    }
}

static void resize(int64_t to)
{
    BlockTruncate how = { .offset = to, .exact = true };

    ck_assert_int_eq(blk_truncate(blk, &how, NULL), 0);
}

/* Something else that happens now and then. */
static void disturb(GRand *rand, BdrvDirtyBitmap **late, uint64_t *late_copy)
{
    switch (g_rand_int_range(rand, 0, 5)) {
    case 0:
        resize((CELLS + g_rand_int_range(rand, 0, 100000)) * CELL);
        break;
    case 1:
        bdrv_release_dirty_bitmap(*late);
        *late = begin_mirror(late_copy);
        break;
    case 2:
        bdrv_disable_dirty_bitmap(*late, NULL);
        bdrv_clear_dirty_bitmap(*late, NULL);
        bdrv_enable_dirty_bitmap(*late, NULL);
        for (int i = 0; i < CELLS; i++) {
            late_copy[i] = value_of(i);
        }
        break;
    case 3:
        ck_assert_int_eq(bdrv_dirty_bitmap_create_successor(*late, NULL), 0);
        *late = bdrv_reclaim_dirty_bitmap(*late, NULL);
        break;
    case 4:
        bdrv_clear_dirty_bitmap(*late, NULL);
        for (int i = 0; i < CELLS; i++) {
            late_copy[i] = value_of(i);
        }
        break;
    }
}

static void mirror(GRand *rand, unsigned disturb_every)
{
    uint64_t copy[CELLS], late_copy[CELLS];
    BdrvDirtyBitmap *bitmap = begin_mirror(copy);
    BdrvDirtyBitmap *late = begin_mirror(late_copy);
    unsigned turn = 0;

    while (atomic_load(&nr_left) > 0) {
        aio_poll(block_graph_aio_context(graph), false);
        copy_area(bitmap, copy, g_rand_int_range(rand, 0, CELLS) * CELL);
        if (++turn % disturb_every == 0) {
            disturb(rand, &late, late_copy);
        }
    }
    expect_copy(bitmap, copy, "the mirror");
    expect_copy(late, late_copy, "the bitmap that came later");
    bdrv_release_dirty_bitmap(bitmap);
    bdrv_release_dirty_bitmap(late);
}

/*
 * A change that was lost is found only if no later one makes the cell dirty:
 * so there are many short rounds.
 */
static void run(int rounds, int steps, unsigned disturb_every)
{
    IOThread *threads[THREADS];
    guint32 seed = g_random_int();
    GRand *rand = g_rand_new_with_seed(seed);

    atomic_store(&length, CELLS * CELL);
    bs = open_ok("cells");
    blk = backend_ok("guest", bs, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                     BLK_PERM_ALL);
    bdrv_unref(bs);
    steps_each = steps;
    for (int i = 0; i < THREADS; i++) {
        threads[i] = iothread_new("writers", AIO_ENGINE_AUTO, NULL);
        ck_assert_ptr_nonnull(threads[i]);
    }
    for (int round = 0; round < rounds; round++) {
        atomic_store(&nr_left, WRITERS);
        for (int i = 0; i < WRITERS; i++) {
            int id = round * WRITERS + i + 1;

            aio_co_enter(iothread_get_aio_context(threads[i % THREADS]),
                         coroutine_create(writer_entry, GINT_TO_POINTER(id)));
        }
        mirror(rand, disturb_every);
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_free(threads[i]);
    }
    blk_unref(blk);
    g_rand_free(rand);
}

START_TEST(r94_a_clear_and_read_beside_writers_loses_no_write)
{
    run(300, 1000, G_MAXUINT);
}
END_TEST

START_TEST(bitmaps_that_come_and_go_beside_writers_lose_no_write)
{
    run(300, 1000, 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dirty-bitmap-race");
    TCase *tcase = tcase_create("race");

    register_cells();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, r94_a_clear_and_read_beside_writers_loses_no_write);
    PROMISE(tcase, bitmaps_that_come_and_go_beside_writers_lose_no_write);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
