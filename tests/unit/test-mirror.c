/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror job, with its filter (mirror-top, mirror-copy): what is copied,
 * how it ends, and what is refused.
 */
#include "mirror-fixture.h"

#include "block/jobs/chain.h"

/* --- what is copied ------------------------------------------------------- */

static const char *const modes[] = { ",copy-mode=background",
                                     ",copy-mode=write-blocking" };

START_TEST(a_completed_mirror_has_taken_the_place_of_the_disk)
{
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    job_fill(guest, CLUSTER, 512, 'b');
    ck_assert_ptr_ne(blk_bs(guest), target);
    complete_ok(job);
    ck_assert_ptr_eq(blk_bs(guest), target);
    job_expect(target, CLUSTER, 512, 'b');
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER + 512, DISK - CLUSTER - 512, 'a');
    ck_assert_str_eq(job_events->str, "created running ready READY waiting "
                     "pending COMPLETED concluded null ");
    expect_gone();
    job_fill(guest, 0, 512, 'c');
    job_expect(source, 0, 512, 'a');
    no_disks();
}
END_TEST

START_TEST(a_ready_mirror_that_is_cancelled_leaves_a_copy)
{
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    job_fill(guest, CLUSTER, 512, 'b');
    end_with_copy(job);
    ck_assert_ptr_eq(blk_bs(guest), source);
    expect_same();
    ck_assert_ptr_nonnull(strstr(job_events->str, "COMPLETED"));
    expect_gone();
    job_fill(guest, 0, 512, 'c');
    job_expect(target, 0, 512, 'a');
    no_disks();
}
END_TEST

START_TEST(a_mirror_that_is_cancelled_by_force_leaves_the_graph_as_it_was)
{
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_ptr_eq(blk_bs(guest), source);
    expect_gone();
    job_fill(guest, 0, 512, 'c');
    job_expect(target, 0, 512, 'a');
    no_disks();
}
END_TEST

START_TEST(a_filter_that_the_user_takes_out_first_is_not_waited_for)
{
    static const BlockJobType types[] = { BLOCK_JOB_MIRROR, BLOCK_JOB_BACKUP };
    BlockDriverState *above, *filter;
    BdrvChild *edge;
    BlockJob *job;

    disks();
    above = open_ok("pass,node-name=above,file=source");
    job = job_ok(types[_i], "job-id=j,device=source,target=target,sync=none,"
                 "filter-node-name=filter");
    job_settle();
    edge = bdrv_find_child(above, "file");
    filter = bdrv_find_node(graph, "filter");
    bdrv_freeze_child(edge);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_ptr_eq(bdrv_child_bs(edge), filter);
    bdrv_unfreeze_child(edge);
    ck_assert_int_eq(bdrv_drop_filter(filter, NULL), 0);
    /* The job sees that, and lets go of it. */
    while (bdrv_find_node(graph, "filter")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_unref(above);
    no_disks();
}
END_TEST

static int coroutine_fn drop_failed_entry(void *opaque)
{
    BlockDriverState *filter = opaque;
    BlockJob job = { .graph = graph };

    bdrv_co_drained_begin(source);
    chain_drop_failed_filter(&job, filter);
    bdrv_drained_end(source);
    return 0;
}

/* What a start that fails has put into the graph, and somebody holds. */
START_TEST(a_filter_of_a_failed_start_goes_as_soon_as_it_can)
{
    BlockDriverState *filter, *above;

    disks();
    filter = open_ok("pass,node-name=filter,file=source");
    above = open_ok("pass,node-name=above,file=filter");
    if (_i) {
        bdrv_freeze_child(bdrv_find_child(above, "file"));
    }
    aio_co_run(block_graph_aio_context(graph), drop_failed_entry, filter);
    if (_i) {
        ck_assert_ptr_eq(bdrv_find_node(graph, "filter"), filter);
        bdrv_unfreeze_child(bdrv_find_child(above, "file"));
    }
    while (bdrv_find_node(graph, "filter")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_find_child(above, "file")), source);
    bdrv_unref(above);
    no_disks();
}
END_TEST

START_TEST(a_ready_mirror_goes_on_keeping_up)
{
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    for (int i = 0; i < 5; i++) {
        job_fill(guest, i * CLUSTER, 1536, 'b' + i);
    }
    for (int i = 0; i < 10000 &&
                    memcmp(mem_disk(source)->data, mem_disk(target)->data,
                           DISK); i++) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    expect_same();
    end_with_copy(job);
    no_disks();
}
END_TEST

START_TEST(guests_write_both_sides_in_the_mode_write_blocking)
{
    BlockJob *job;

    disks();
    job = ready_mirror(",copy-mode=write-blocking");
    job_fill(guest, CLUSTER + 512, 1024, 'b');
    expect_same();
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 3 * CLUSTER, 512, 0), 0);
    expect_same();
    ck_assert_int_eq(blk_pdiscard(guest, 4 * CLUSTER, CLUSTER), 0);
    expect_same();
    end_with_copy(job);
    no_disks();
}
END_TEST

START_TEST(the_mode_can_be_changed_to_write_blocking_and_not_back)
{
    GError *error = NULL;
    BlockJob *job;

    disks();
    job = ready_mirror("");
    ck_assert_int_eq(change_mode(job, "background", NULL), 0);
    ck_assert_int_eq(change_mode(job, "write-blocking", NULL), 0);
    job_fill(guest, CLUSTER, 512, 'b');
    expect_same();
    ck_assert_int_eq(change_mode(job, "write-blocking", NULL), 0);
    ck_assert_int_eq(change_mode(job, "background", &error), -EINVAL);
    expect_error(&error, EINVAL, "write-blocking");
    ck_assert_int_eq(change_mode(job, "sometimes", &error), -EINVAL);
    expect_error(&error, EINVAL, "sometimes");
    end_with_copy(job);
    no_disks();
}
END_TEST

/* base: 'e'; source: 'n' in one cluster of it. */
static void chain(BlockDriverState **base)
{
    *base = open_ok("mem,node-name=base,size=512k");
    fill_node(*base, 'e');
    source = open_ok("mem,node-name=source,size=512k,backing=base");
    target = open_ok("mem,node-name=target,size=512k");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 2 * CLUSTER, CLUSTER, 'n');
    fill_node(target, 'x');
}

START_TEST(sync_top_copies_the_nodes_own_layer_and_what_is_written)
{
    BlockDriverState *base;
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=top%s", modes[_i]);
    BlockJob *job;

    chain(&base);
    job = job_ok(BLOCK_JOB_MIRROR, text);
    job_reach(job, BLOCK_JOB_READY);
    job_fill(guest, 5 * CLUSTER, CLUSTER, 'w');
    end_with_copy(job);
    job_expect(target, 0, 2 * CLUSTER, 'x');
    job_expect(target, 2 * CLUSTER, CLUSTER, 'n');
    job_expect(target, 3 * CLUSTER, 2 * CLUSTER, 'x');
    job_expect(target, 5 * CLUSTER, CLUSTER, 'w');
    job_expect(target, 6 * CLUSTER, 2 * CLUSTER, 'x');
    no_disks();
    bdrv_unref(base);
}
END_TEST

START_TEST(sync_full_copies_what_is_below_too)
{
    BlockDriverState *base;

    chain(&base);
    end_with_copy(ready_mirror(modes[_i]));
    job_expect(target, 0, 2 * CLUSTER, 'e');
    job_expect(target, 2 * CLUSTER, CLUSTER, 'n');
    job_expect(target, 3 * CLUSTER, 5 * CLUSTER, 'e');
    no_disks();
    bdrv_unref(base);
}
END_TEST

START_TEST(sync_none_copies_only_what_is_written)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=none%s", modes[_i]);
    BlockJob *job;

    disks();
    job = job_ok(BLOCK_JOB_MIRROR, text);
    job_reach(job, BLOCK_JOB_READY);
    job_fill(guest, CLUSTER, CLUSTER, 'b');
    end_with_copy(job);
    job_expect(target, 0, CLUSTER, 'x');
    job_expect(target, CLUSTER, CLUSTER, 'b');
    job_expect(target, 2 * CLUSTER, 6 * CLUSTER, 'x');
    no_disks();
}
END_TEST

/* R97 */
START_TEST(old_data_of_the_target_does_not_stay_in_holes)
{
    disks();
    ck_assert_int_eq(blk_pwrite_zeroes(guest, CLUSTER, 3 * CLUSTER,
                                       BDRV_REQ_MAY_UNMAP), 0);
    end_with_copy(ready_mirror(_i ? ",unmap=off" : ""));
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER, 3 * CLUSTER, 0);
    job_expect(target, 4 * CLUSTER, 4 * CLUSTER, 'a');
    no_disks();
}
END_TEST

START_TEST(a_target_that_is_said_to_be_zero_is_not_zeroed)
{
    BlockJob *job;

    source = open_ok("mem,node-name=source,size=512k");
    target = open_ok("mem,node-name=target,size=512k");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 4 * CLUSTER, 4 * CLUSTER, 'a');
    fill_node(target, 'x');
    job = ready_mirror(",target-is-zero=on");
    job_expect(target, 0, 4 * CLUSTER, 'x');
    job_expect(target, 4 * CLUSTER, 4 * CLUSTER, 'a');
    job_fill(guest, 2 * CLUSTER, CLUSTER, 'b');
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 5 * CLUSTER, CLUSTER, 0), 0);
    end_with_copy(job);
    job_expect(target, 0, 2 * CLUSTER, 'x');
    job_expect(target, 2 * CLUSTER, CLUSTER, 'b');
    job_expect(target, 5 * CLUSTER, CLUSTER, 0);
    no_disks();
}
END_TEST

/* R98, R94 */
START_TEST(zero_writes_of_all_sizes_below_the_granularity_are_copied)
{
    BlockJob *job;

    disks();
    job = ready_mirror(modes[_i]);
    for (int n = 1; n <= 16; n++) {
        ck_assert_int_eq(blk_pwrite_zeroes(guest, (n % 8) * CLUSTER + n * 37,
                                           n * 4096 - n * 300, 0), 0);
        ck_assert_int_eq(blk_pwrite_zeroes(guest, (n % 8) * CLUSTER + 999,
                                           n, BDRV_REQ_MAY_UNMAP), 0);
    }
    end_with_copy(job);
    expect_same();
    no_disks();
}
END_TEST

START_TEST(each_granularity_copies_a_disk_with_an_unaligned_tail)
{
    g_autofree char *more = g_strdup_printf(",granularity=%d", 512 << _i);
    BlockJob *job;

    source = open_ok("mem,node-name=source,size=522752");
    target = open_ok("mem,node-name=target,size=522752");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, DISK - 1536, 'a');
    job = ready_mirror(more);
    job_fill(guest, DISK - 1536 - 700, 700, 'b');
    job_fill(guest, 700, 700, 'c');
    end_with_copy(job);
    ck_assert_mem_eq(mem_disk(source)->data, mem_disk(target)->data,
                     DISK - 1536);
    no_disks();
}
END_TEST

START_TEST(a_disk_of_no_length_is_mirrored)
{
    source = open_ok("mem,node-name=source,size=0");
    target = open_ok("mem,node-name=target,size=0");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    complete_ok(ready_mirror(modes[_i]));
    ck_assert_ptr_eq(blk_bs(guest), target);
    no_disks();
}
END_TEST

START_TEST(the_length_cannot_change_meanwhile)
{
    BlockTruncate how = { .offset = DISK / 2, .exact = true };
    GError *error = NULL;
    BlockJob *job;

    disks();
    blk_unref(guest);
    guest = backend_ok("guest", source, BLK_PERM_ALL, BLK_PERM_ALL);
    job = ready_mirror("");
    ck_assert_int_eq(blk_truncate(guest, &how, &error), -EBUSY);
    expect_error(&error, EBUSY, "while a mirror to node 'target' runs");
    end_with_copy(job);
    ck_assert_int_eq(blk_truncate(guest, &how, NULL), 0);
    no_disks();
}
END_TEST

START_TEST(the_filter_above_is_replaced_if_asked)
{
    BlockDriverState *above;
    BlockJob *job;

    disks();
    ck_assert_int_eq(bdrv_insert_node(source, opts("pass,node-name=above"),
                                      &above, NULL), 0);
    job = ready_mirror(",replaces=above");
    job_fill(guest, 0, 512, 'b');
    complete_ok(job);
    ck_assert_ptr_eq(blk_bs(guest), target);
    job_expect(target, 0, 512, 'b');
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_filter_child(above)), source);
    bdrv_unref(above);
    expect_gone();
    no_disks();
}
END_TEST

START_TEST(the_filter_has_the_name_that_was_asked_for)
{
    BlockJob *job;

    disks();
    job = ready_mirror(",filter-node-name=mirror");
    ck_assert_ptr_eq(blk_bs(guest), bdrv_find_node(graph, "mirror"));
    end_with_copy(job);
    ck_assert_ptr_null(bdrv_find_node(graph, "mirror"));
    no_disks();
}
END_TEST

START_TEST(readers_of_the_target_stay_where_they_are)
{
    BlockBackend *reader;

    disks();
    reader = backend_ok("reader", target, BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL);
    complete_ok(ready_mirror(""));
    ck_assert_ptr_eq(blk_bs(reader), target);
    ck_assert_ptr_eq(blk_bs(guest), target);
    blk_unref(reader);
    no_disks();
}
END_TEST

START_TEST(a_switch_that_a_user_does_not_allow_leaves_all_as_it_was)
{
    BlockBackend *reader;
    BlockJob *job;

    disks();
    job = ready_mirror("");
    /* Fine with the mirror, but not with guests. */
    reader = backend_ok("reader", target, BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL & ~BLK_PERM_RESIZE);
    blk_unref(guest);
    guest = backend_ok("guest", bdrv_next_node(graph, target), BLK_PERM_ALL,
                       BLK_PERM_ALL);
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    job_end_fails(job, EPERM, "reader");
    ck_assert_ptr_eq(blk_bs(guest), source);
    expect_gone();
    blk_unref(reader);
    no_disks();
}
END_TEST

START_TEST(progress_grows_with_what_guests_change_and_reaches_its_total)
{
    BlockJobInfo info;
    BlockJob *job;

    disks();
    job = ready_mirror(",auto-dismiss=off");
    block_job_query(job, &info);
    ck_assert_int_eq(info.current_progress, DISK);
    ck_assert_int_eq(info.total_progress, DISK);
    job_fill(guest, 0, CLUSTER, 'b');
    block_job_query(job, &info);
    ck_assert_int_eq(info.current_progress, DISK);
    ck_assert_int_eq(info.total_progress, DISK + CLUSTER);
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), 0);
    block_job_query(job, &info);
    ck_assert_int_eq(info.current_progress, DISK + CLUSTER);
    ck_assert_int_eq(info.total_progress, DISK + CLUSTER);
    ck_assert_int_eq(block_job_dismiss(job, NULL), 0);
    block_job_unref(job);
    no_disks();
}
END_TEST

/* --- copies inside the storage -------------------------------------------- */

static unsigned ranges_copied;
static int range_error;

static int coroutine_fn ranger_copy_from(BlockDriverState *bs,
                                         const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

static int coroutine_fn ranger_copy_to(BlockDriverState *bs,
                                       const BlockCopyRange *copy)
{
    ranges_copied++;
    if (range_error) {
        return -range_error;
    }
    memcpy(mem_disk(bs)->data + copy->dst_offset,
           mem_disk(source)->data + copy->src_offset, copy->bytes);
    return 0;
}

/* Disks in memory that can copy from one to the other. */
static void disks_that_copy(void)
{
    static BlockDriver driver;

    driver = *bdrv_find_driver("mem");
    driver.name = "ranger";
    driver.copy_range_from = ranger_copy_from;
    driver.copy_range_to = ranger_copy_to;
    ck_assert_int_eq(bdrv_register(&driver, NULL), 0);
    ranges_copied = 0;
    source = open_ok("ranger,node-name=source,size=512k");
    target = open_ok("ranger,node-name=target,size=512k");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, DISK, 'a');
}

START_TEST(data_is_copied_inside_the_storage_where_that_works)
{
    static const struct {
        const char *options;
        int error;
        bool copies, reads;
    } cases[] = {
        { "", 0, true, false },
        { ",use-copy-range=off", 0, false, true },
        { "", ENOTSUP, true, true },
        { "", EIO, true, true },
    };
    unsigned reads;
    BlockJob *job;

    range_error = cases[_i].error;
    disks_that_copy();
    reads = mem_disk(source)->count[MEM_READ];
    job = ready_mirror(cases[_i].options);
    job_fill(guest, CLUSTER, CLUSTER, 'b');
    end_with_copy(job);
    expect_same();
    ck_assert_int_eq(ranges_copied > 0, cases[_i].copies);
    ck_assert_int_eq(mem_disk(source)->count[MEM_READ] > reads,
                     cases[_i].reads);
    no_disks();
}
END_TEST

START_TEST(what_has_failed_to_copy_is_not_asked_for_again)
{
    BlockJob *job;

    range_error = ENOTSUP;
    disks_that_copy();
    job = ready_mirror(",max-workers=1");
    ck_assert_uint_eq(ranges_copied, 1);
    job_fill(guest, 0, DISK, 'b');
    end_with_copy(job);
    ck_assert_uint_eq(ranges_copied, 1);
    expect_same();
    no_disks();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

START_TEST(bad_options_are_refused_and_change_nothing)
{
    static const char *const bad[] = {
        "granularity=256", "granularity=3000", "granularity=128M",
        "buf-size=-1", "max-workers=0", "max-workers=257", "copy-mode=often",
        "unmap=perhaps", "speeed=1", "on-target-error=panic",
        "filter-node-name=0x", "target-is-zero=2",
    };
    BlockDriverState *small, *large, *frozen;

    disks();
    small = open_ok("mem,node-name=small,size=448k");
    large = open_ok("mem,node-name=large,size=576k");
    frozen = open_ok("mem,node-name=frozen,size=512k,read-only=on");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=target", EINVAL, "sync");
    job_fails(BLOCK_JOB_MIRROR, "target=target,sync=full", EINVAL, "device");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=nix,sync=full", 0,
              "no node 'nix'");
    job_fails(BLOCK_JOB_MIRROR, "device=nix,target=target,sync=full", 0,
              "no node 'nix'");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=source,sync=full",
              EINVAL, "to itself");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=small,sync=full",
              EINVAL, "must be the same");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=large,sync=full",
              EINVAL, "must be the same");
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=frozen,sync=full", 0,
              "frozen");
    job_fails(BLOCK_JOB_MIRROR, MIRROR ",replaces=nix", 0, "nix");
    job_fails(BLOCK_JOB_MIRROR, MIRROR ",replaces=small", EINVAL,
              "no filter above");
    job_fails(BLOCK_JOB_MIRROR, MIRROR ",filter-node-name=small", 0, "small");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *text = g_strdup_printf(MIRROR ",%s", bad[i]);
        g_auto(GStrv) key = g_strsplit(bad[i], "=", 2);

        job_fails(BLOCK_JOB_MIRROR, text, EINVAL,
                  strstr(bad[i], "0x") ? "0x" : key[0]);
    }
    bdrv_unref(frozen);
    bdrv_unref(large);
    bdrv_unref(small);
    no_disks();
}
END_TEST

START_TEST(a_target_in_the_chain_is_refused)
{
    BlockDriverState *base;

    chain(&base);
    job_fails(BLOCK_JOB_MIRROR, "device=source,target=base,sync=full", 0,
              "base");
    job_fails(BLOCK_JOB_MIRROR, "device=base,target=source,sync=full", 0,
              "source");
    no_disks();
    bdrv_unref(base);
}
END_TEST

START_TEST(the_lengths_are_the_same_when_nobody_can_change_them_any_more)
{
    disks();
    job_finds_length(BLOCK_JOB_MIRROR, MIRROR, _i ? target : source);
    no_disks();
}
END_TEST

START_TEST(a_writer_of_the_target_is_refused)
{
    disks();
    job_finds_writer(BLOCK_JOB_MIRROR, MIRROR, target);
    no_disks();
}
END_TEST

START_TEST(nobody_may_write_the_source_past_the_mirror)
{
    BlockPerm perm = { .used = BLK_PERM_WRITE, .shared = BLK_PERM_ALL };
    GError *error = NULL;
    BlockBackend *blk;
    BlockJob *job;

    disks();
    blk_unref(guest); /* no user makes no difference */
    job = ready_mirror("");
    blk = blk_new(graph, "writer", &perm);
    ck_assert_int_lt(blk_insert_bs(blk, source, &error), 0);
    expect_error(&error, 0, "source");
    blk_unref(blk);
    complete_ok(job);
    guest = NULL;
    no_disks();
}
END_TEST

START_TEST(nodes_that_another_job_uses_are_refused)
{
    BlockDriverState *other;
    GError *error = NULL;
    BlockJob *job;

    disks();
    other = open_ok("mem,node-name=other,size=512k");
    job = ready_mirror("");
    ck_assert_ptr_null(block_job_start(
        graph, BLOCK_JOB_MIRROR,
        block_options_parse_keyval("job-id=k,device=source,target=other,"
                                   "sync=full", NULL, NULL), &error));
    expect_error(&error, EBUSY, "source");
    ck_assert_ptr_null(block_job_start(
        graph, BLOCK_JOB_MIRROR,
        block_options_parse_keyval("job-id=k,device=other,target=target,"
                                   "sync=full", NULL, NULL), &error));
    expect_error(&error, 0, "target");
    end_with_copy(job);
    bdrv_unref(other);
    no_disks();
}
END_TEST

static void add_mode_tests(TCase *tcase)
{
#define BOTH_MODES(test) tcase_add_loop_test(tcase, test, 0, 2)
    BOTH_MODES(a_completed_mirror_has_taken_the_place_of_the_disk);
    BOTH_MODES(a_ready_mirror_that_is_cancelled_leaves_a_copy);
    BOTH_MODES(a_mirror_that_is_cancelled_by_force_leaves_the_graph_as_it_was);
    BOTH_MODES(a_ready_mirror_goes_on_keeping_up);
    BOTH_MODES(sync_top_copies_the_nodes_own_layer_and_what_is_written);
    BOTH_MODES(sync_full_copies_what_is_below_too);
    BOTH_MODES(sync_none_copies_only_what_is_written);
    BOTH_MODES(zero_writes_of_all_sizes_below_the_granularity_are_copied);
    BOTH_MODES(a_disk_of_no_length_is_mirrored);
    BOTH_MODES(old_data_of_the_target_does_not_stay_in_holes);
}

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, a_filter_that_the_user_takes_out_first_is_not_waited_for, 0, 2);
    tcase_add_loop_test(
        tcase, a_filter_of_a_failed_start_goes_as_soon_as_it_can, 0, 2);
    add_mode_tests(tcase);
    PROMISE(tcase, guests_write_both_sides_in_the_mode_write_blocking);
    PROMISE(tcase, the_mode_can_be_changed_to_write_blocking_and_not_back);
    PROMISE(tcase, a_target_that_is_said_to_be_zero_is_not_zeroed);
    tcase_add_loop_test(
        tcase, each_granularity_copies_a_disk_with_an_unaligned_tail, 0, 18);
    PROMISE(tcase, the_length_cannot_change_meanwhile);
    PROMISE(tcase, the_filter_above_is_replaced_if_asked);
    PROMISE(tcase, the_filter_has_the_name_that_was_asked_for);
    PROMISE(tcase, readers_of_the_target_stay_where_they_are);
    PROMISE(tcase, a_switch_that_a_user_does_not_allow_leaves_all_as_it_was);
    PROMISE(tcase,
            progress_grows_with_what_guests_change_and_reaches_its_total);
    tcase_add_loop_test(
        tcase, data_is_copied_inside_the_storage_where_that_works, 0, 4);
    PROMISE(tcase, what_has_failed_to_copy_is_not_asked_for_again);
    PROMISE(tcase, bad_options_are_refused_and_change_nothing);
    PROMISE(tcase, a_target_in_the_chain_is_refused);
    tcase_add_loop_test(
        tcase, the_lengths_are_the_same_when_nobody_can_change_them_any_more,
        0, 2);
    PROMISE(tcase, a_writer_of_the_target_is_refused);
    PROMISE(tcase, nobody_may_write_the_source_past_the_mirror);
    PROMISE(tcase, nodes_that_another_job_uses_are_refused);
}

int main(void)
{
    register_pass_driver();
    return job_main("mirror", add_tests);
}
