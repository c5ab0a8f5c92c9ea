/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: actions at one moment, all or none.
 */
#include "transaction-fixture.h"

/* --- each action ---------------------------------------------------------- */

START_TEST(bitmaps_can_be_added_changed_and_removed)
{
    disks();
    actions_ok(false, ACTIONS(
        "block-dirty-bitmap-add node=a,name=y,granularity=4k",
        "block-dirty-bitmap-add node=a,name=z,disabled=on",
        "block-dirty-bitmap-clear node=a,name=x",
        "block-dirty-bitmap-disable node=b,name=x",
        "block-dirty-bitmap-merge node=a,target=y,bitmaps.0.node=b,"
        "bitmaps.0.name=x"));
    ck_assert_int_eq(bdrv_dirty_bitmap_granularity(bitmap(0, "y")), 4096);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "y")), CLUSTER);
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap(0, "y")));
    ck_assert(!bdrv_dirty_bitmap_enabled(bitmap(0, "z")));
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "x")), 0);
    ck_assert(!bdrv_dirty_bitmap_enabled(bitmap(1, "x")));
    actions_ok(false, ACTIONS("block-dirty-bitmap-remove node=a,name=y",
                              "block-dirty-bitmap-enable node=b,name=x",
                              "block-dirty-bitmap-merge node=a,target=x,"
                              "bitmaps.0=z"));
    ck_assert_ptr_null(bitmap(0, "y"));
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap(1, "x")));
    no_disks();
}
END_TEST

START_TEST(each_action_is_undone_when_a_later_one_fails)
{
    static const char *const actions[] = {
        "block-dirty-bitmap-add node=a,name=y",
        "block-dirty-bitmap-add node=a,name=y,disabled=on",
        "block-dirty-bitmap-clear node=a,name=x",
        "block-dirty-bitmap-disable node=a,name=x",
        "block-dirty-bitmap-enable node=a,name=off",
        "block-dirty-bitmap-merge node=a,target=off,bitmaps.0=x",
        "block-dirty-bitmap-remove node=a,name=x",
        "blockdev-backup job-id=j,device=a,target=t,sync=full",
        "blockdev-backup job-id=j,device=a,target=t,sync=incremental,bitmap=x",
        "blockdev-snapshot node=a,overlay=o",
        "blockdev-backup job-id=j,device=a,target=t,sync=bitmap,bitmap=fine,"
        "bitmap-mode=always",
        "blockdev-backup job-id=j,device=a,target=t,sync=full,resume-bitmap=r",
        "blockdev-backup job-id=j,device=a,target=t,sync=full,"
        "resume-bitmap=fine",
    };
    BlockDriverState *target, *overlay;

    disks();
    target = open_ok("mem,node-name=t,size=256k");
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    bdrv_create_dirty_bitmap(disk[0], CLUSTER, "off", NULL);
    bdrv_disable_dirty_bitmap(bitmap(0, "off"), NULL);
    bdrv_create_dirty_bitmap(disk[0], 4096, "fine", NULL);
    bdrv_set_dirty_bitmap(bitmap(0, "fine"), CLUSTER, 512);
    actions_fail(ACTIONS(actions[_i], "abort"), ECANCELED, "abort");
    actions_fail(ACTIONS("block-dirty-bitmap-clear node=b,name=x",
                         actions[_i],
                         "block-dirty-bitmap-clear node=b,name=nix"),
                 ENOENT, "'nix'");
    bdrv_unref(overlay);
    bdrv_unref(target);
    no_disks();
}
END_TEST

START_TEST(actions_see_what_those_before_them_have_done)
{
    BlockDriverState *target;

    disks();
    target = open_ok("mem,node-name=t,size=256k");
    actions_ok(false, ACTIONS(
        "block-dirty-bitmap-add node=a,name=y",
        "block-dirty-bitmap-merge node=a,target=y,bitmaps.0=x",
        "block-dirty-bitmap-clear node=a,name=x",
        "blockdev-backup job-id=j,device=a,target=t,sync=bitmap,bitmap=y,"
        "bitmap-mode=never"));
    job_end_ok(block_job_ref(block_job_find(graph, "j")));
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER, DISK - CLUSTER, 0);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "x")), 0);
    bdrv_unref(target);
    no_disks();
}
END_TEST

START_TEST(a_snapshot_takes_the_writes_from_then_on)
{
    BlockDriverState *overlay;

    disks();
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    actions_ok(false, ACTIONS("blockdev-snapshot node=a,overlay=o"));
    ck_assert_ptr_eq(blk_bs(guest[0]), overlay);
    job_fill(guest[0], CLUSTER, 512, 'n');
    job_expect(disk[0], 0, DISK, 'a');
    job_expect(overlay, CLUSTER, 512, 'n');
    job_expect(overlay, CLUSTER + 512, DISK - CLUSTER - 512, 'a');
    actions_fail(ACTIONS("blockdev-snapshot node=b,overlay=o"), EBUSY,
                 "in use");
    blk_unref(guest[0]);
    guest[0] = NULL;
    bdrv_unref(overlay);
    guest[0] = backend_ok("guest", disk[0], BLK_PERM_WRITE, BLK_PERM_ALL);
    no_disks();
}
END_TEST

/* The names of the snapshots in the image of @bs, a word each.  g_free(). */
static char *snapshots(BlockDriverState *bs)
{
    GString *text = g_string_new(NULL);
    GPtrArray *list;

    ck_assert_int_eq(bdrv_snapshot_list(bs, &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        const BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s@%u ", info->name, info->date_sec);
    }
    g_ptr_array_unref(list);
    return g_string_free(text, false);
}

static void expect_snapshots(BlockDriverState *bs, const char *expected)
{
    g_autofree char *found = snapshots(bs);

    ck_assert_str_eq(found, expected);
}

/* The length of the image's file may be another then. */
static void internal_fails(const char *const *texts, int err,
                           const char *message)
{
    GError *error = NULL;

    ck_assert_int_lt(try_actions(true, texts, &error), 0);
    expect_error(&error, err, message);
}

#define INTERNAL "blockdev-snapshot-internal-sync device=i,name="

START_TEST(a_snapshot_inside_an_image_is_made_or_is_not)
{
    BdrvCheckResult result;
    BlockDriverState *bs;
    BlockBackend *blk;

    disks();
    make_image_ok("i", "size=256k");
    bs = image_open("i", "qcow2,node-name=i");
    blk = backend_ok("user", bs, BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(blk, 0, CLUSTER, 'o');
    actions_ok(false, ACTIONS(INTERNAL "one,date-sec=7"));
    job_fill(blk, 0, CLUSTER, 'n');
    internal_fails(ACTIONS(INTERNAL "two", "abort"), ECANCELED, "abort");
    internal_fails(ACTIONS(INTERNAL "two", INTERNAL "three", INTERNAL "two"),
                   EEXIST, "'two' already exists");
    internal_fails(ACTIONS("block-dirty-bitmap-clear node=a,name=x",
                           INTERNAL "one"), EEXIST, "'one' already exists");
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "x")), CLUSTER);
    internal_fails(ACTIONS(INTERNAL), EINVAL, "Name is empty");
    actions_fail(ACTIONS("blockdev-snapshot-internal-sync device=a,name=s"),
                 ENOTSUP, "internal snapshots");
    actions_fail(ACTIONS("blockdev-snapshot-internal-sync device=nix,name=s"),
                 ENOENT, "no node 'nix'");
    expect_snapshots(bs, "one@7 ");
    job_expect(bs, 0, CLUSTER, 'n');
    blk_unref(blk);
    ck_assert_int_eq(bdrv_check(bs, &(BdrvCheck){ 0 }, &result, NULL), 0);
    ck_assert_int_eq(result.corruptions + result.leaks, 0);
    ck_assert_int_eq(bdrv_snapshot_goto(bs, "one", NULL), 0);
    job_expect(bs, 0, CLUSTER, 'o');
    bdrv_unref(bs);
    no_disks();
}
END_TEST

/* --- one moment ----------------------------------------------------------- */

START_TEST(backups_of_two_disks_are_of_one_moment)
{
    BlockDriverState *target[2];
    Write writes[2];

    disks();
    target[0] = open_ok("mem,node-name=ta,size=256k");
    target[1] = open_ok("mem,node-name=tb,size=256k");
    /* The guest writes the second disk as soon as the first has its filter. */
    for (int i = 0; i < 2; i++) {
        writes[i].ended = false;
        memset(writes[i].buf, 'n', 512);
    }
    bdrv_drained_begin(disk[1]);
    blk_aio_pwritev(guest[1], 0, block_iov_buf(&writes[1].iov, writes[1].buf,
                                               512), 0, write_ended,
                    &writes[1]);
    bdrv_drained_end(disk[1]);
    actions_ok(true, ACTIONS(
        "blockdev-backup job-id=ja,device=a,target=ta,sync=full",
        "blockdev-backup job-id=jb,device=b,target=tb,sync=full"));
    blk_aio_pwritev(guest[0], 0, block_iov_buf(&writes[0].iov, writes[0].buf,
                                               512), 0, write_ended,
                    &writes[0]);
    job_end_ok(block_job_ref(block_job_find(graph, "jb")));
    job_settle();
    ck_assert(writes[0].ended && writes[1].ended);
    /* The write that came first is in, the one that came later is not. */
    job_expect(target[1], 0, 512, 'n');
    job_expect(target[1], 512, DISK - 512, 'b');
    job_expect(target[0], 0, DISK, 'a');
    bdrv_unref(target[1]);
    bdrv_unref(target[0]);
    no_disks();
}
END_TEST

START_TEST(jobs_of_a_group_end_together_others_do_not)
{
    BlockDriverState *target[2];
    BlockJobInfo info;
    BlockJob *a, *b;

    disks();
    target[0] = open_ok("mem,node-name=ta,size=256k");
    target[1] = open_ok("mem,node-name=tb,size=256k");
    mem_disk(target[0])->hold[MEM_WRITE] = true;
    actions_ok(_i, ACTIONS(
        "blockdev-backup job-id=ja,device=a,target=ta,sync=full",
        "blockdev-backup job-id=jb,device=b,target=tb,sync=full"));
    a = block_job_ref(block_job_find(graph, "ja"));
    b = block_job_ref(block_job_find(graph, "jb"));
    job_settle();
    block_job_query(b, &info);
    ck_assert_int_eq(info.status, _i ? BLOCK_JOB_WAITING : BLOCK_JOB_NULL);
    ck_assert_int_eq(block_job_cancel(a, true, NULL), 0);
    mem_disk(target[0])->hold[MEM_WRITE] = false;
    job_end_fails(a, ECANCELED, "cancelled");
    if (_i) {
        job_end_fails(b, ECANCELED, "cancelled");
    } else {
        job_end_ok(b);
    }
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 4);
    bdrv_unref(target[1]);
    bdrv_unref(target[0]);
    no_disks();
}
END_TEST

/* The second copies from the filter of the first, and holds it until the end
 * of both. */
START_TEST(backups_above_each_other_end_together)
{
    BlockDriverState *target[2];
    BlockJob *below, *above;

    disks();
    target[0] = open_ok("mem,node-name=ta,size=256k");
    target[1] = open_ok("mem,node-name=tb,size=256k");
    actions_ok(true, ACTIONS(
        "blockdev-backup job-id=below,device=a,target=ta,sync=full,"
        "filter-node-name=cbw",
        "blockdev-backup job-id=above,device=cbw,target=tb,sync=full"));
    below = block_job_ref(block_job_find(graph, "below"));
    above = block_job_ref(block_job_find(graph, "above"));
    job_reach(below, BLOCK_JOB_NULL); /* it does not wait for ever */
    job_end_ok(below);
    job_end_ok(above);
    job_expect(target[0], 0, DISK, 'a');
    job_expect(target[1], 0, DISK, 'a');
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 4);
    bdrv_unref(target[1]);
    bdrv_unref(target[0]);
    no_disks();
}
END_TEST

static int coroutine_fn empty_entry(void *opaque)
{
    return block_co_transaction(graph, NULL, 0, false, NULL);
}

START_TEST(an_empty_transaction_waits_for_all_requests)
{
    Write write = { .ended = false };

    disks();
    blk_aio_pwritev(guest[0], 0, block_iov_buf(&write.iov, write.buf, 512), 0,
                    write_ended, &write);
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph), empty_entry,
                                NULL), 0);
    ck_assert(write.ended);
    no_disks();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

START_TEST(a_snapshot_to_a_longer_overlay_is_undone)
{
    BlockDriverState *overlay;

    disks();
    make_image_ok("o", "size=512k");
    overlay = image_open("o", "qcow2,node-name=o");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=o", "abort"),
                 ECANCELED, "abort");
    bdrv_unref(overlay);
    no_disks();
}
END_TEST

START_TEST(bad_actions_are_refused)
{
    disks();
    actions_fail(ACTIONS("abort x=1"), EINVAL, "'x'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=x"), EEXIST,
                 "'x'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a"), EINVAL, "name");
    actions_fail(ACTIONS("block-dirty-bitmap-add name=y"), EINVAL, "node");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=nix,name=y"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=y,"
                         "granularity=3"), EINVAL, "granularity");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=y,"
                         "persistent=on"), ENOTSUP, "cannot store");
    actions_fail(ACTIONS("block-dirty-bitmap-clear node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-enable node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-disable node=a,name=nix"),
                 ENOENT, "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-remove node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x"), EINVAL,
                 "bitmaps");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps=x"), EINVAL, "bitmaps");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0=nix"), ENOENT, "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0.node=nix,bitmaps.0.name=x"), ENOENT,
                 "no node 'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0.name=x"), EINVAL, "element 0");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=b"), EBUSY,
                 "in use");
    actions_fail(ACTIONS("blockdev-backup device=a,target=nix,sync=full"), 0,
                 "'nix'");
    no_disks();
}
END_TEST

START_TEST(each_action_has_a_help_text)
{
    for (int i = 0; i < BLOCK_ACTION_TYPES; i++) {
        g_autofree char *help = block_options_help(block_action_options(i));

        ck_assert(i == BLOCK_ACTION_ABORT || *help);
    }
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, bitmaps_can_be_added_changed_and_removed);
    tcase_add_loop_test(tcase, each_action_is_undone_when_a_later_one_fails,
                        0, 13);
    PROMISE(tcase, actions_see_what_those_before_them_have_done);
    PROMISE(tcase, a_snapshot_takes_the_writes_from_then_on);
    PROMISE(tcase, a_snapshot_inside_an_image_is_made_or_is_not);
    PROMISE(tcase, backups_of_two_disks_are_of_one_moment);
    tcase_add_loop_test(tcase, jobs_of_a_group_end_together_others_do_not, 0,
                        2);
    PROMISE(tcase, backups_above_each_other_end_together);
    PROMISE(tcase, an_empty_transaction_waits_for_all_requests);
    PROMISE(tcase, a_snapshot_to_a_longer_overlay_is_undone);
    PROMISE(tcase, bad_actions_are_refused);
    PROMISE(tcase, each_action_has_a_help_text);
}

int main(void)
{
    return job_main_with("transaction", add_tests, transaction_setup,
                         transaction_teardown);
}
