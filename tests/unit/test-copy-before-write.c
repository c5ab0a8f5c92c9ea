/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write (copy-before-write.c, cbw-snapshot.c) and snapshot-access:
 * the point in time stays what it was.
 */
#include "cbw-fixture.h"

#include <blockgraph/copy-before-write.h>
#include <blockgraph/dirty-bitmap.h>

#include "block/filters/copy-before-write.h"

/* --- frozen ranges -------------------------------------------------------- */

typedef struct Frozen {
    BlockDriverState *node;
    int64_t offset, bytes;
    BdrvFrozenRange *range;
    GError *error;
    bool ended;
} Frozen;

static int coroutine_fn freeze_entry(void *opaque)
{
    Frozen *f = opaque;

    f->range = bdrv_co_cbw_freeze_range(f->node, f->offset, f->bytes,
                                        &f->error);
    f->ended = true;
    return 0;
}

static void coroutine_fn freeze_alone(void *opaque)
{
    freeze_entry(opaque);
}

static void freeze(Frozen *f, BlockDriverState *node, int64_t offset,
                   int64_t bytes)
{
    *f = (Frozen){ .node = node, .offset = offset, .bytes = bytes };
    aio_co_run(block_graph_aio_context(graph), freeze_entry, f);
}

/* --- the point in time ---------------------------------------------------- */

START_TEST(the_snapshot_stays_what_it_was)
{
    static const char *const ways[] = {
        "", ",min-cluster-size=128k",
        ",on-cbw-error=break-snapshot,staging-size=64k",
    };

    cbw_start(ways[_i]);
    guest_write(3 * CLUSTER + 512, 4096, 'X');
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 0, CLUSTER / 2, 0), 0);
    ck_assert_int_eq(blk_pdiscard(guest, 5 * CLUSTER, CLUSTER), 0);
    expect_snapshot(0, DISK);
    guest_write(3 * CLUSTER, 2 * CLUSTER, 'Y');
    expect_snapshot(0, DISK);
    expect_byte(guest, 3 * CLUSTER, CLUSTER, 'Y');
    expect_byte(guest, 0, CLUSTER / 2, 0);
    cbw_stop();
}
END_TEST

START_TEST(what_was_cut_off_is_in_the_snapshot)
{
    BlockTruncate how = { .offset = 2 * CLUSTER + 512, .exact = true };

    cbw_start("");
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    expect_snapshot(0, DISK);
    how.offset = DISK + CLUSTER;
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    expect_snapshot(0, DISK);
    expect_byte(guest, 3 * CLUSTER, CLUSTER, 0);
    ck_assert_int_eq(bdrv_length(snapshot), DISK + CLUSTER);
    cbw_stop();
}
END_TEST

START_TEST(a_cluster_is_copied_once)
{
    unsigned writes;

    cbw_start("");
    guest_write(0, 512, 'X');
    writes = mem_disk(target)->count[MEM_WRITE];
    guest_write(512, CLUSTER - 512, 'Y');
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], writes);
    expect_snapshot(0, CLUSTER);
    cbw_stop();
}
END_TEST

START_TEST(guests_read_without_the_target)
{
    cbw_start("");
    guest_write(0, CLUSTER, 'X');
    ck_assert_uint_eq(mem_disk(target)->count[MEM_READ], 0);
    expect_byte(guest, 0, CLUSTER, 'X');
    ck_assert_uint_eq(mem_disk(target)->count[MEM_READ], 0);
    cbw_stop();
}
END_TEST

START_TEST(the_filter_comes_and_goes_while_the_guest_writes)
{
    Flying writes[4];

    cbw_disks();
    for (int i = 0; i < 4; i++) {
        fly(&writes[i], guest, 'w', i * CLUSTER, 4096, old_byte(0));
    }
    cbw_insert("");
    for (int i = 0; i < 4; i++) {
        land(&writes[i]);
        ck_assert_int_eq(writes[i].ret, 0);
        fly(&writes[i], guest, 'w', i * CLUSTER, 4096, 'Z');
    }
    cbw_stop_early();
    for (int i = 0; i < 4; i++) {
        land(&writes[i]);
        ck_assert_int_eq(writes[i].ret, 0);
        expect_byte(guest, i * CLUSTER, 4096, 'Z');
    }
    cbw_close_disks();
}
END_TEST

/* Another node there would be another point in time, or none. */
START_TEST(while_somebody_reads_it_the_point_in_time_stays_where_it_is)
{
    BlockDriverState *other = NULL;
    g_autoptr(GError) error = NULL;

    cbw_start("");
    guest_write(0, 4096, 'X');
    ck_assert_int_eq(bdrv_drop_filter(cbw, &error), -EBUSY);
    expect_error(&error, EBUSY, "snapshot");
    ck_assert_int_eq(bdrv_insert_node(cbw, opts("blkdebug,node-name=other"),
                                      &other, &error), -EBUSY);
    expect_error(&error, EBUSY, "snapshot");
    expect_snapshot(0, DISK);
    ck_assert_int_eq(bdrv_insert_node(source, opts("blkdebug,node-name=other"),
                                      &other, &error), 0);
    guest_write(CLUSTER, 4096, 'X');
    expect_snapshot(0, DISK);
    ck_assert_int_eq(bdrv_drop_filter(other, NULL), 0);
    bdrv_unref(other);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

/* --- who waits for whom --------------------------------------------------- */

START_TEST(a_guest_waits_for_exactly_the_reader_of_its_cluster)
{
    Flying read, same, other;

    cbw_start("");
    catch_read();
    fly(&read, reader, 'r', 0, 4096, 0);
    settle();
    fly(&other, guest, 'w', 4 * CLUSTER, 4096, 'X');
    fly(&same, guest, 'w', 0, 4096, 'Y');
    land(&other);
    settle();
    ck_assert(!same.ended && !read.ended);
    release_read();
    land(&read);
    expect_old(&read, 0, 4096);
    land(&same);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_reader_waits_for_no_guest)
{
    Flying write;

    cbw_start("");
    hold(target, MEM_WRITE, true);
    fly(&write, guest, 'w', 0, 4096, 'X');
    settle();
    ck_assert(!write.ended);
    expect_snapshot(0, DISK); /* the cluster that is being copied too */
    hold(target, MEM_WRITE, false);
    land(&write);
    hold(source, MEM_WRITE, true);
    fly(&write, guest, 'w', CLUSTER, 4096, 'X');
    settle();
    ck_assert(!write.ended);
    expect_snapshot(0, DISK);
    hold(source, MEM_WRITE, false);
    land(&write);
    cbw_stop();
}
END_TEST

/* A small request of the guest or the reader. */
typedef struct Small {
    BlockIOVec1 iov;
    uint8_t buf[512];
    unsigned *ended;
} Small;

static void small_ended(void *opaque, int ret)
{
    Small *small = opaque;

    ck_assert_int_eq(ret, 0);
    (*small->ended)++;
}

static int64_t small_offset(int i)
{
    return (int64_t)i * 7919 % (DISK / 512) * 512;
}

/* R92 */
START_TEST(a_thousand_readers_and_a_thousand_writers)
{
    enum { EACH = 1000 };
    g_autofree Small *small = g_new0(Small, 2 * EACH);
    unsigned ended = 0;

    cbw_start(_i ? ",on-cbw-error=break-snapshot,staging-size=128k" : "");
    hold(target, MEM_WRITE, true);
    catch_read();
    for (int i = 0; i < 2 * EACH; i++) {
        BlockIOVec *iov = block_iov_buf(&small[i].iov, small[i].buf, 512);

        small[i].ended = &ended;
        if (i % 2) {
            memset(small[i].buf, 'X', 512);
            blk_aio_pwritev(guest, small_offset(i), iov, 0, small_ended,
                            &small[i]);
        } else {
            blk_aio_preadv(reader, small_offset(i), iov, 0, small_ended,
                           &small[i]);
        }
    }
    settle();
    release_read();
    hold(target, MEM_WRITE, false);
    while (ended < 2 * EACH) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    for (int i = 0; i < 2 * EACH; i += 2) {
        ck_assert_uint_eq(small[i].buf[0], old_byte(small_offset(i)));
    }
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(two_guests_of_one_cluster_copy_it_once)
{
    Flying a, b;

    cbw_start("");
    hold(target, MEM_WRITE, true);
    fly(&a, guest, 'w', 0, 512, 'X');
    fly(&b, guest, 'w', 4096, 512, 'Y');
    settle();
    ck_assert_uint_eq(mem_disk(target)->held, 1);
    hold(target, MEM_WRITE, false);
    land(&a);
    land(&b);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(a_frozen_range_does_not_change)
{
    Flying write;
    Frozen frozen;

    cbw_start("");
    freeze(&frozen, cbw, 0, 4096);
    ck_assert_ptr_nonnull(frozen.range);
    fly(&write, guest, 'w', 512, 512, 'X');
    settle();
    ck_assert(!write.ended);
    guest_write(CLUSTER, 512, 'Y'); /* others do not wait */
    bdrv_cbw_thaw_range(frozen.range);
    land(&write);
    ck_assert_int_eq(write.ret, 0);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

START_TEST(who_freezes_a_range_waits_for_copies_of_it)
{
    Flying write;
    Frozen frozen;

    cbw_start("");
    hold(target, MEM_WRITE, true);
    fly(&write, guest, 'w', 0, 512, 'X');
    settle();
    frozen = (Frozen){ .node = cbw, .bytes = 4096 };
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(freeze_alone, &frozen));
    settle();
    ck_assert(!frozen.ended);
    hold(target, MEM_WRITE, false);
    while (!frozen.ended) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert(!write.ended); /* it has copied, and waits for us */
    bdrv_cbw_thaw_range(frozen.range);
    land(&write);
    cbw_stop();
}
END_TEST

START_TEST(a_range_outside_cannot_be_frozen)
{
    Frozen frozen;

    cbw_start("");
    freeze(&frozen, cbw, DISK + CLUSTER - 512, 1024);
    ck_assert_ptr_null(frozen.range);
    expect_error(&frozen.error, EINVAL, "not inside");
    freeze(&frozen, source, 0, 512);
    ck_assert_ptr_null(frozen.range);
    expect_error(&frozen.error, EINVAL, "no copy-before-write");
    cbw_stop();
}
END_TEST

#define STAGED ",on-cbw-error=break-snapshot,staging-size=128k"

/* --- permissions ---------------------------------------------------------- */

START_TEST(a_writer_past_the_filter_is_refused)
{
    BlockPerm perm = { .used = BLK_PERM_WRITE, .shared = BLK_PERM_ALL };
    BlockBackend *other = blk_new(graph, "other", &perm);
    g_autoptr(GError) error = NULL;

    cbw_start("");
    ck_assert_int_lt(blk_insert_bs(other, source, &error), 0);
    expect_error(&error, 0, "write");
    ck_assert_int_lt(blk_insert_bs(other, target, &error), 0);
    expect_error(&error, 0, "write");
    cbw_stop_early();
    ck_assert_int_eq(blk_insert_bs(other, source, NULL), 0);
    blk_unref(other);
    cbw_close_disks();
}
END_TEST

START_TEST(with_another_writer_below_the_filter_does_not_come)
{
    BlockDriverState *above;
    BlockBackend *other;
    g_autoptr(GError) error = NULL;

    cbw_disks();
    above = open_ok("copy-before-write,node-name=cbw,file=source,"
                    "target=target");
    other = blk_new(graph, "other", &(BlockPerm){
        .used = BLK_PERM_WRITE, .shared = BLK_PERM_ALL });
    ck_assert_int_lt(blk_insert_bs(other, above, &error), 0);
    expect_error(&error, 0, "guest"); /* who it is */
    blk_unref(other);
    bdrv_unref(above);
    cbw_close_disks();
}
END_TEST

/* --- bitmaps, discards ---------------------------------------------------- */

START_TEST(outside_the_bitmap_there_is_no_snapshot)
{
    BdrvDirtyBitmap *bitmap;
    BlockExtent extent;

    cbw_disks();
    bitmap = bdrv_create_dirty_bitmap(source, 4096, "b", NULL);
    bdrv_set_dirty_bitmap(bitmap, 2 * CLUSTER + 4096, 512);
    cbw_insert(",bitmap.node=source,bitmap.name=b");
    expect_snapshot(2 * CLUSTER, CLUSTER);
    ck_assert_int_eq(read_status(0, 512), -EACCES);
    ck_assert_int_eq(read_status(2 * CLUSTER, CLUSTER + 512), -EACCES);
    guest_write(0, 512, 'X');
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 0);
    guest_write(2 * CLUSTER, 512, 'X');
    ck_assert_uint_gt(mem_disk(target)->count[MEM_WRITE], 0);
    expect_snapshot(2 * CLUSTER, CLUSTER);
    ck_assert_int_eq(blk_block_status(reader, 0, DISK, &extent), 0);
    ck_assert_int_eq(extent.bytes, 2 * CLUSTER);
    ck_assert_uint_eq(extent.status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), 0);
    cbw_stop();
}
END_TEST

START_TEST(a_bitmap_that_does_not_fit_is_refused)
{
    BdrvDirtyBitmap *bitmap;

    cbw_disks();
    bitmap = bdrv_create_dirty_bitmap(target, 4096, "b", NULL);
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b,bitmap.node=target", EBUSY, "'b'");
    bdrv_dirty_bitmap_set_busy(bitmap, false);
    bdrv_dirty_bitmap_set_inconsistent(bitmap);
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b,bitmap.node=target", EINVAL, "'b'");
    bdrv_release_dirty_bitmap(bitmap);
    bdrv_unref(target);
    target = open_ok("mem,node-name=target,size=1M");
    bdrv_create_dirty_bitmap(target, 4096, "b", NULL);
    open_fails("copy-before-write,file=source,target=target,"
               "bitmap.name=b,bitmap.node=target", EINVAL, "1048576 bytes");
    cbw_close_disks();
}
END_TEST

START_TEST(what_a_reader_discards_is_gone_and_not_copied)
{
    unsigned writes;

    cbw_start("");
    guest_write(CLUSTER, 512, 'X');
    writes = mem_disk(target)->count[MEM_WRITE];
    ck_assert_int_eq(blk_pdiscard(reader, 512, 2 * CLUSTER), 0);
    ck_assert_uint_eq(mem_disk(target)->count[MEM_DISCARD], 1);
    ck_assert_int_eq(read_status(CLUSTER, 512), -EACCES);
    expect_snapshot(0, CLUSTER); /* only whole clusters */
    expect_snapshot(2 * CLUSTER, DISK - 2 * CLUSTER);
    ck_assert_int_eq(blk_pdiscard(reader, 4 * CLUSTER, CLUSTER), 0);
    guest_write(4 * CLUSTER, 512, 'X');
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], writes);
    cbw_stop();
}
END_TEST

/* A copy that was under way, and fails, does not bring it back. */
START_TEST(what_a_reader_discards_stays_discarded_when_a_copy_fails)
{
    uint8_t buf[512] = { 'X' };
    Flying write, discard = { .ret = 1 };

    cbw_start("");
    hold(target, MEM_WRITE, true);
    fail_next(target, MEM_WRITE, ENOSPC);
    fly(&write, guest, 'w', CLUSTER, 512, 'X');
    settle();
    blk_aio_pdiscard(reader, CLUSTER, CLUSTER, flying_ended, &discard);
    settle();
    ck_assert(!discard.ended); /* it would be written behind our back */
    hold(target, MEM_WRITE, false);
    land(&write);
    land(&discard);
    ck_assert_int_eq(discard.ret, 0);
    ck_assert_int_ne(block_copy_next_dirty(cbw_block_copy(cbw), CLUSTER),
                     CLUSTER);
    ck_assert_int_eq(blk_pwrite(guest, CLUSTER, 512, buf, 0), 0);
    cbw_stop();
}
END_TEST

START_TEST(a_snapshot_cannot_be_written)
{
    uint8_t buf[512] = { 0 };

    cbw_start("");
    ck_assert_int_eq(blk_pwrite(reader, 0, 512, buf, 0), -EACCES);
    ck_assert_int_eq(blk_pwrite_zeroes(reader, 0, 512, 0), -EACCES);
    expect_snapshot(0, DISK);
    cbw_stop();
}
END_TEST

static unsigned status_at(int64_t offset)
{
    BlockExtent extent;

    ck_assert_int_eq(blk_block_status(reader, offset, CLUSTER, &extent), 0);
    ck_assert_int_eq(extent.bytes, CLUSTER);
    return extent.status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO);
}

START_TEST(block_status_tells_data_and_zeroes_wherever_they_are)
{
    cbw_start(STAGED);
    ck_assert_uint_eq(status_at(0), BDRV_BLOCK_DATA);
    ck_assert_uint_eq(status_at(DISK), BDRV_BLOCK_ZERO);
    hold(target, MEM_WRITE, true);
    hold(target, MEM_ZERO, true);
    guest_write(0, CLUSTER, 'X');
    guest_write(DISK, CLUSTER, 'X');
    ck_assert_uint_eq(status_at(0), BDRV_BLOCK_DATA);
    ck_assert_uint_eq(status_at(DISK), BDRV_BLOCK_ZERO);
    expect_byte(reader, DISK, CLUSTER, 0);
    hold(target, MEM_WRITE, false);
    hold(target, MEM_ZERO, false);
    settle();
    ck_assert_uint_eq(status_at(0), BDRV_BLOCK_DATA);
    expect_byte(reader, DISK, CLUSTER, 0);
    cbw_stop();
}
END_TEST

static int coroutine_fn checkpoint_entry(void *opaque)
{
    return bdrv_co_cbw_checkpoint(cbw, NULL);
}

START_TEST(a_checkpoint_begins_another_point_in_time)
{
    cbw_start("");
    guest_write(0, CLUSTER, 'X');
    ck_assert_int_eq(blk_pdiscard(reader, CLUSTER, CLUSTER), 0);
    ck_assert_int_eq(bdrv_cbw_checkpoint(cbw, NULL), 0);
    expect_byte(reader, 0, CLUSTER, 'X');
    expect_snapshot(CLUSTER, DISK - CLUSTER);
    guest_write(0, CLUSTER, 'Y');
    expect_byte(reader, 0, CLUSTER, 'X');
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph),
                                checkpoint_entry, NULL), 0);
    expect_byte(reader, 0, CLUSTER, 'Y');
    cbw_stop();
}
END_TEST

START_TEST(a_checkpoint_mends_a_broken_snapshot)
{
    g_autoptr(GError) error = NULL;
    BlockTruncate how = { .offset = DISK / 2, .exact = true };

    cbw_start(",on-cbw-error=break-snapshot");
    fail_next(target, MEM_WRITE, EIO);
    guest_write(0, 512, 'X');
    ck_assert_int_eq(read_status(0, 512), -EACCES);
    ck_assert_int_eq(bdrv_cbw_checkpoint(cbw, NULL), 0);
    expect_byte(reader, 0, 512, 'X');
    guest_write(0, 512, 'Y');
    expect_byte(reader, 0, 512, 'X');
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    ck_assert_int_lt(bdrv_cbw_checkpoint(cbw, &error), 0);
    expect_error(&error, EINVAL, "the source has");
    ck_assert_int_eq(bdrv_cbw_checkpoint(source, NULL), -EINVAL);
    ck_assert_int_eq(bdrv_cbw_snapshot_error(source), -EINVAL);
    cbw_stop();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, the_snapshot_stays_what_it_was, 0, 3);
    PROMISE(tcase, what_was_cut_off_is_in_the_snapshot);
    PROMISE(tcase, a_cluster_is_copied_once);
    PROMISE(tcase, guests_read_without_the_target);
    PROMISE(tcase, the_filter_comes_and_goes_while_the_guest_writes);
    PROMISE(tcase,
            while_somebody_reads_it_the_point_in_time_stays_where_it_is);
    PROMISE(tcase, a_guest_waits_for_exactly_the_reader_of_its_cluster);
    PROMISE(tcase, a_reader_waits_for_no_guest);
    tcase_add_loop_test(tcase, a_thousand_readers_and_a_thousand_writers, 0,
                        2);
    PROMISE(tcase, two_guests_of_one_cluster_copy_it_once);
    PROMISE(tcase, a_frozen_range_does_not_change);
    PROMISE(tcase, who_freezes_a_range_waits_for_copies_of_it);
    PROMISE(tcase, a_range_outside_cannot_be_frozen);
    PROMISE(tcase, a_writer_past_the_filter_is_refused);
    PROMISE(tcase, with_another_writer_below_the_filter_does_not_come);
    PROMISE(tcase, outside_the_bitmap_there_is_no_snapshot);
    PROMISE(tcase, a_bitmap_that_does_not_fit_is_refused);
    PROMISE(tcase, what_a_reader_discards_is_gone_and_not_copied);
    PROMISE(tcase, what_a_reader_discards_stays_discarded_when_a_copy_fails);
    PROMISE(tcase, a_snapshot_cannot_be_written);
    PROMISE(tcase, block_status_tells_data_and_zeroes_wherever_they_are);
    PROMISE(tcase, a_checkpoint_begins_another_point_in_time);
    PROMISE(tcase, a_checkpoint_mends_a_broken_snapshot);
}

int main(void)
{
    mem_register();
    return graph_suite("copy-before-write", add_tests);
}
