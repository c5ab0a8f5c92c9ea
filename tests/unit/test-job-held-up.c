/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs that have taken effect, and cannot let go of their nodes.
 */
#include "transaction-fixture.h"

static void until_gone(const char *name)
{
    while (bdrv_find_node(graph, name)) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

/* Somebody who holds the edge above a node, until let_go(). */
static BlockDriverState *holder_above(const char *name)
{
    g_autofree char *text = g_strdup_printf("raw,node-name=holder,file=%s",
                                            name);
    BlockDriverState *bs = open_ok(text);

    bdrv_freeze_child(bdrv_find_child(bs, "file"));
    return bs;
}

static void let_go(BlockDriverState *holder)
{
    bdrv_unfreeze_child(bdrv_find_child(holder, "file"));
    bdrv_unref(holder);
}

/* When the first job looked nobody was above it. */
START_TEST(a_stranger_above_one_job_of_a_group_does_not_keep_it_from_ending)
{
    BlockDriverState *targets[3], *holder;
    BlockJob *jobs[2], *stranger;

    disks();
    targets[0] = open_ok("mem,node-name=t,size=256k");
    targets[1] = open_ok("mem,node-name=u,size=256k");
    targets[2] = open_ok("mem,node-name=v,size=256k");
    actions_ok(true, ACTIONS(
        "blockdev-backup job-id=j,device=a,target=t,sync=full,"
        "auto-finalize=off,filter-node-name=fa",
        "blockdev-backup job-id=k,device=b,target=u,sync=full,"
        "auto-finalize=off,filter-node-name=fb"));
    jobs[0] = block_job_ref(block_job_find(graph, "j"));
    jobs[1] = block_job_ref(block_job_find(graph, "k"));
    job_reach(jobs[1], BLOCK_JOB_PENDING);
    holder = holder_above("fb");
    ck_assert_int_eq(block_job_finalize(jobs[0], NULL), 0);
    job_settle(); /* the first is prepared, the second waits */
    stranger = job_ok(BLOCK_JOB_BACKUP, "job-id=s,device=fa,target=v,"
                      "sync=none");
    let_go(holder);
    job_end_ok(jobs[0]);
    job_end_ok(jobs[1]);
    job_expect(targets[0], 0, DISK, 'a');
    job_expect(targets[1], 0, DISK, 'b');
    ck_assert_ptr_nonnull(bdrv_find_node(graph, "fa"));
    ck_assert_ptr_null(bdrv_find_node(graph, "fb"));
    /* It goes as soon as it can. */
    ck_assert_int_eq(block_job_cancel(stranger, true, NULL), 0);
    job_end_fails(stranger, ECANCELED, "cancelled");
    until_gone("fa");
    ck_assert_ptr_eq(blk_bs(guest[0]), disk[0]);
    for (int i = 0; i < 3; i++) {
        bdrv_unref(targets[i]);
    }
    no_disks();
}
END_TEST

/* Who ends all jobs is about to free the graph. */
START_TEST(to_cancel_all_jobs_waits_for_nodes_that_an_ended_one_holds)
{
    BlockDriverState *targets[2];
    BlockJob *job, *stranger;

    disks();
    targets[0] = open_ok("mem,node-name=t,size=256k");
    targets[1] = open_ok("mem,node-name=v,size=256k");
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=a,target=t,sync=none,"
                 "filter-node-name=fa");
    stranger = job_ok(BLOCK_JOB_BACKUP, "job-id=s,device=fa,target=v,"
                      "sync=none");
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_fails(job, ECANCELED, "cancelled");
    ck_assert_ptr_nonnull(bdrv_find_node(graph, "fa"));
    block_job_cancel_all(graph);
    ck_assert_ptr_null(bdrv_find_node(graph, "fa"));
    block_job_unref(stranger);
    ck_assert_ptr_eq(blk_bs(guest[0]), disk[0]);
    bdrv_unref(targets[0]);
    bdrv_unref(targets[1]);
    no_disks();
}
END_TEST

/* An image in memory that keeps bitmap "r", of what a backup lacks. */
static BlockDriverState *image_with_bitmap(void)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap;

    ck_assert_int_eq(bdrv_create(graph, opts("qcow2,file=m,size=256k"), NULL),
                     0);
    bs = open_ok("qcow2,node-name=i,file=m");
    bitmap = bdrv_create_dirty_bitmap(bs, CLUSTER, "r", NULL);
    bdrv_set_dirty_bitmap(bitmap, 0, 1);
    ck_assert_int_eq(bdrv_dirty_bitmap_set_persistence(bitmap, true, NULL), 0);
    bdrv_unref(bs);
    return open_ok("qcow2,node-name=i,file=m");
}

/* The image hangs that keeps a bitmap which is not needed any more. */
START_TEST(a_backup_whose_image_hangs_as_it_ends_can_be_cancelled)
{
    BlockDriverState *memory, *image, *target;
    BlockJob *job;
    BlockJobInfo info;

    memory = open_ok("mem,node-name=m,size=64k,grow=on");
    image = image_with_bitmap();
    target = open_ok("mem,node-name=t,size=256k");
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=i,target=t,sync=full,"
                 "resume-bitmap=r,auto-finalize=off,filter-node-name=f");
    job_reach(job, BLOCK_JOB_PENDING);
    mem_disk(memory)->hold[MEM_WRITE] = true;
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_settle();
    ck_assert_uint_gt(mem_disk(memory)->held, 0);
    block_job_query(job, &info);
    ck_assert_int_eq(info.status, BLOCK_JOB_PENDING);
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_end_ok(job);
    ck_assert_ptr_nonnull(bdrv_find_node(graph, "f"));
    mem_disk(memory)->hold[MEM_WRITE] = false;
    until_gone("f");
    ck_assert_ptr_null(bdrv_find_dirty_bitmap(image, "r"));
    bdrv_unref(target);
    bdrv_unref(image);
    bdrv_unref(memory);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase,
            a_stranger_above_one_job_of_a_group_does_not_keep_it_from_ending);
    PROMISE(tcase,
            to_cancel_all_jobs_waits_for_nodes_that_an_ended_one_holds);
    PROMISE(tcase, a_backup_whose_image_hangs_as_it_ends_can_be_cancelled);
}

int main(void)
{
    return job_main_with("job-held-up", add_tests, transaction_setup,
                         transaction_teardown);
}
