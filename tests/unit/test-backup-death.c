/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backups whose process dies, and the one that goes on with them.
 */
#include "job-fixture.h"

#include "image-fixture.h"

#include <blockgraph/dirty-bitmap.h>
#include <signal.h>
#include <sys/wait.h>

#define CLUSTER (64 << 10)
#define DISK (64 * CLUSTER)
#define COPIED (16 * CLUSTER)

#define OPTIONS                                                               \
    "job-id=j,device=source,target=target,sync=full,resume-bitmap=r,"         \
    "bitmap=b,bitmap-mode=on-success,max-chunk=64k,max-workers=1"

static BlockDriverState *source, *target;
static BlockBackend *guest;

static void open_disks(void)
{
    graph_setup();
    job_listen();
    source = image_open("source", "qcow2,node-name=source");
    target = image_open("target", "qcow2,node-name=target");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
}

static void close_disks(void)
{
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
    job_listen_end();
    graph_teardown();
}

/* The first life: some of it is copied when it ends. */
static void live_and_die(void)
{
    BlockJobInfo info = { 0 };
    BlockJob *job;

    graph_setup();
    make_image_ok("source", "size=4M");
    make_image_ok("target", "size=4M");
    graph_teardown();
    open_disks();
    bdrv_dirty_bitmap_set_persistence(
        bdrv_create_dirty_bitmap(source, CLUSTER, "b", NULL), true, NULL);
    job_fill(guest, 0, DISK, 'a');
    close_disks();
    open_disks();
    job = job_ok(BLOCK_JOB_BACKUP, OPTIONS ",speed=4M");
    while (info.current_progress < COPIED) {
        aio_poll(block_graph_aio_context(graph), true);
        block_job_query(job, &info);
    }
    job_fill(guest, 0, CLUSTER, 'b');
    job_fill(guest, DISK - CLUSTER, CLUSTER, 'b');
    ck_assert_int_eq(blk_flush(guest), 0);
    raise(SIGKILL);
}

START_TEST(a_backup_goes_on_after_the_death_of_its_process)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        live_and_die();
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_ge(file_blocks("target"), COPIED);
    ck_assert_int_lt(file_blocks("target"), DISK);
    open_disks();
    ck_assert(bdrv_dirty_bitmap_inconsistent(
        bdrv_find_dirty_bitmap(source, "b")));
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, OPTIONS));
    job_expect(target, 0, CLUSTER, 'b');
    job_expect(target, CLUSTER, DISK - 2 * CLUSTER, 'a');
    job_expect(target, DISK - CLUSTER, CLUSTER, 'b');
    /* The bitmaps are as if nothing had happened. */
    ck_assert_int_eq(bdrv_get_dirty_count(
        bdrv_find_dirty_bitmap(source, "b")), 0);
    ck_assert_ptr_null(bdrv_find_dirty_bitmap(source, "r"));
    close_disks();
    open_disks();
    ck_assert(!bdrv_dirty_bitmap_inconsistent(
        bdrv_find_dirty_bitmap(source, "b")));
    close_disks();
}
END_TEST

static void setup(void)
{
    file_dir = g_dir_make_tmp("blockgraph-file-XXXXXX", NULL);
    ck_assert_ptr_nonnull(file_dir);
}

static void teardown(void)
{
    graph_setup(); /* for file_teardown() */
    file_teardown();
}

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_backup_goes_on_after_the_death_of_its_process);
}

int main(void)
{
    return job_main_with("backup-death", add_tests, setup, teardown);
}
