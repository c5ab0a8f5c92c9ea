/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Times that users give, in the simulated world: to the nanosecond.
 */
#include "check-main.h"

#include <blockgraph/backend.h>
#include <blockgraph/image.h>
#include <blockgraph/job.h>
#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <errno.h>

#define CLUSTER 65536
#define DISK (64 * CLUSTER)
#define CHUNK (1 << 20)     /* of what copies along a chain */
#define NS_PER_SEC INT64_C(1000000000)

static BgSim *sim;
static BlockDriverState *source, *target;
static BlockBackend *guest;

static BlockDriverState *open_disk(const char *name)
{
    BgSimDiskConfig config = { .size = DISK };
    g_autofree char *text = g_strdup_printf(
        "sim-disk,node-name=%s,disk=%s", name, name);
    BlockDriverState *bs;

    bgsim_disk_new(sim, name, &config);
    bs = bdrv_open(bgsim_graph(sim), block_options_parse_keyval(
                       text, "driver", NULL), NULL);
    ck_assert_ptr_nonnull(bs);
    return bs;
}

static void setup(void)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };

    sim = bgsim_new(1, NULL);
    source = open_disk("source");
    target = open_disk("target");
    guest = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(guest, source, NULL), 0);
}

static void teardown(void)
{
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
    bgsim_free(sim);
}

static void fill_source(void)
{
    static uint8_t buf[DISK];

    memset(buf, 'a', sizeof(buf));
    ck_assert_int_eq(blk_pwrite(guest, 0, sizeof(buf), buf, 0), 0);
}

/* --- cbw-timeout ---------------------------------------------------------- */

typedef struct Write {
    int ret;
    int64_t ns;
} Write;

static void coroutine_fn write_entry(BgSim *world, void *opaque)
{
    static const uint8_t buf[512];
    Write *w = opaque;
    int64_t start = bgsim_now_ns(world);

    w->ret = blk_co_pwrite(guest, 0, sizeof(buf), buf, 0);
    w->ns = bgsim_now_ns(world) - start;
}

/* R91 */
START_TEST(the_time_to_save_old_content_is_what_was_asked_for)
{
    static const int64_t seconds[] = { 1, 4, 5, 60, UINT32_MAX };
    int64_t asked = seconds[_i] * NS_PER_SEC;
    g_autofree char *text = g_strdup_printf(
        "copy-before-write,target=target,cbw-timeout=%" G_GINT64_FORMAT,
        seconds[_i]);
    Write w = { .ret = 1 };
    BlockDriverState *cbw;

    fill_source();
    ck_assert_int_eq(bdrv_insert_node(
        source, block_options_parse_keyval(text, "driver", NULL), &cbw,
        NULL), 0);
    bgsim_hold(sim, "target:any", "hang");
    bgsim_spawn(sim, "write", NULL, write_entry, &w);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + asked - 1, NULL));
    ck_assert_int_eq(w.ret, 1);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(w.ret, -ETIMEDOUT);
    ck_assert_int_ge(w.ns, asked);
    ck_assert_int_lt(w.ns, asked + 1000 * 1000);
    bgsim_release(sim, "hang");
    ck_assert_int_eq(bdrv_drop_filter(cbw, NULL), 0);
    bdrv_unref(cbw);
}
END_TEST

START_TEST(without_a_time_it_is_waited_for_ever)
{
    Write w = { .ret = 1 };
    BlockDriverState *cbw;

    fill_source();
    ck_assert_int_eq(bdrv_insert_node(
        source, block_options_parse_keyval(
            "copy-before-write,target=target,cbw-timeout=0", "driver", NULL),
        &cbw, NULL), 0);
    bgsim_hold(sim, "target:any", "hang");
    bgsim_spawn(sim, "write", NULL, write_entry, &w);
    ck_assert(bgsim_run(sim, 1000000 * NS_PER_SEC, NULL));
    ck_assert_int_eq(w.ret, 1);
    bgsim_release(sim, "hang");
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(w.ret, 0);
    ck_assert_int_eq(bdrv_drop_filter(cbw, NULL), 0);
    bdrv_unref(cbw);
}
END_TEST

/* --- jobs ----------------------------------------------------------------- */

typedef struct Run {
    BlockJob *job;
    int ret;
    int64_t ns;
} Run;

static void coroutine_fn job_entry(BgSim *world, void *opaque)
{
    Run *run = opaque;
    int64_t start = bgsim_now_ns(world);

    run->ret = block_co_job_wait(run->job, NULL);
    run->ns = bgsim_now_ns(world) - start;
}

static Run start_kind(BlockJobType type, const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=full%s", more);
    Run run = { .ret = 1 };

    run.job = block_job_start(bgsim_graph(sim), type,
                              block_options_parse_keyval(text, NULL, NULL),
                              NULL);
    ck_assert_ptr_nonnull(run.job);
    return run;
}

static Run start_job(const char *more)
{
    return start_kind(BLOCK_JOB_BACKUP, more);
}

START_TEST(a_job_is_as_fast_as_its_speed)
{
    int64_t seconds = 1 + _i * 10;
    g_autofree char *speed = g_strdup_printf(
        ",max-workers=1,max-chunk=64k,speed=%" G_GINT64_FORMAT,
        DISK / seconds);
    Run run;

    fill_source();
    run = start_job(speed);
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, 0);
    /* 100 ms at once are allowed, and one copy; and the disk takes time. */
    ck_assert_int_ge(run.ns, seconds * NS_PER_SEC * 62 / 64 - NS_PER_SEC / 10);
    ck_assert_int_le(run.ns, seconds * NS_PER_SEC + NS_PER_SEC / 5);
    block_job_unref(run.job);
}
END_TEST

START_TEST(a_mirror_is_as_fast_as_its_speed)
{
    g_autofree char *speed = g_strdup_printf(
        ",max-workers=%d,buf-size=128k,granularity=64k,speed=%d", 1 + _i,
        DISK / 10);
    BlockJobInfo info;
    Run run;

    fill_source();
    run = start_kind(BLOCK_JOB_MIRROR, speed);
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    /* After each second as much is done, but for 100 ms and one copy. */
    for (int i = 1; i < 10; i++) {
        ck_assert(bgsim_run(sim, i * NS_PER_SEC, NULL));
        block_job_query(run.job, &info);
        ck_assert_int_eq(info.status, BLOCK_JOB_RUNNING);
        ck_assert_int_le(info.current_progress,
                         DISK / 10 * i + DISK / 100 + 3 * CLUSTER);
        ck_assert_int_ge(info.current_progress,
                         DISK / 10 * (i - 1) - 2 * CLUSTER);
    }
    ck_assert(bgsim_run(sim, 11 * NS_PER_SEC, NULL));
    block_job_query(run.job, &info);
    ck_assert_int_eq(info.status, BLOCK_JOB_READY);
    ck_assert_int_eq(block_job_cancel(run.job, false, NULL), 0);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, 0);
    block_job_unref(run.job);
}
END_TEST

/* --- jobs on chains ------------------------------------------------------- */

/* An image above the node @backing, on a disk that grows. */
static BlockDriverState *open_image(const char *name, const char *backing)
{
    BgSimDiskConfig config = { .grows = true, .empty = true };
    g_autofree char *file = g_strdup_printf(
        "qcow2,file.driver=sim-disk,file.disk=%s.disk", name);
    g_autofree char *disk = g_strdup_printf("%s.disk", name);
    g_autofree char *create = g_strdup_printf("%s,size=%d", file, DISK);
    g_autofree char *open = g_strdup_printf("%s,node-name=%s,backing=%s", file,
                                            name, backing);
    BlockDriverState *bs;

    bgsim_disk_new(sim, disk, &config);
    ck_assert_int_eq(bdrv_create(bgsim_graph(sim), block_options_parse_keyval(
        create, "driver", NULL), NULL), 0);
    bs = bdrv_open(bgsim_graph(sim), block_options_parse_keyval(
        open, "driver", NULL), NULL);
    ck_assert_ptr_nonnull(bs);
    return bs;
}

/* At any time as much is done as @speed allows, but for 100 ms and what workers
 * have in hand, @more. */
static void expect_speed(Run *run, int64_t start_ns, int64_t speed,
                         int64_t more)
{
    BlockJobInfo info;

    for (int i = 2; i * speed < DISK - more - CHUNK; i += 2) {
        ck_assert(bgsim_run(sim, start_ns + i * NS_PER_SEC, NULL));
        block_job_query(run->job, &info);
        ck_assert_int_eq(info.status, BLOCK_JOB_RUNNING);
        ck_assert_int_le(info.current_progress,
                         speed * i + speed / 10 + more);
        ck_assert_int_ge(info.current_progress, speed * i - more);
    }
}

START_TEST(a_stream_and_a_commit_are_as_fast_as_their_speed)
{
    static const char *const texts[] = {
        "job-id=j,device=mid",
        "job-id=j,device=top,top=mid,base=source",
        "job-id=j,device=mid,base=source",
    };
    g_autofree char *text = g_strdup_printf("%s,max-workers=%d,speed=%d",
                                            texts[_i % 3], 1 + _i / 3,
                                            DISK / 40);
    BlockDriverState *mid, *top;
    Run run = { .ret = 1 };
    int64_t start_ns;

    fill_source();
    blk_remove_bs(guest);
    mid = open_image("mid", "source");
    ck_assert_int_eq(blk_insert_bs(guest, mid, NULL), 0);
    if (_i % 3) {
        fill_source(); /* there is something to commit */
    }
    blk_remove_bs(guest);
    top = open_image("top", "mid");
    run.job = block_job_start(bgsim_graph(sim),
                              _i % 3 ? BLOCK_JOB_COMMIT : BLOCK_JOB_STREAM,
                              block_options_parse_keyval(text, NULL, NULL),
                              NULL);
    ck_assert_ptr_nonnull(run.job);
    start_ns = bgsim_now_ns(sim);
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    expect_speed(&run, start_ns, DISK / 40, (1 + _i / 3) * CHUNK);
    ck_assert_int_eq(block_job_cancel(run.job, true, NULL), 0);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, -ECANCELED);
    block_job_unref(run.job);
    bdrv_unref(top);
    bdrv_unref(mid);
}
END_TEST

START_TEST(a_new_speed_is_obeyed_at_once)
{
    Run run;

    fill_source();
    run = start_job(",max-workers=1,max-chunk=64k,speed=65536");
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + 2 * NS_PER_SEC, NULL));
    ck_assert_int_eq(block_job_set_speed(run.job, 0, NULL), 0);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, 0);
    ck_assert_int_lt(run.ns, 2 * NS_PER_SEC + NS_PER_SEC / 5);
    block_job_unref(run.job);
}
END_TEST

START_TEST(a_cancelled_job_whose_target_hangs_is_over_within_a_second)
{
    int64_t start;
    Run run;

    fill_source();
    bgsim_hold(sim, _i % 2 ? "source:read" : "target:any", "hang");
    run = start_kind(_i / 2 ? BLOCK_JOB_MIRROR : BLOCK_JOB_BACKUP, "");
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + NS_PER_SEC, NULL));
    ck_assert_int_eq(run.ret, 1);
    start = bgsim_now_ns(sim);
    ck_assert_int_eq(block_job_cancel(run.job, false, NULL), 0);
    ck_assert(bgsim_run(sim, start + NS_PER_SEC, NULL));
    ck_assert_int_eq(run.ret, -ECANCELED);
    bgsim_release(sim, "hang");
    ck_assert(bgsim_run(sim, -1, NULL));
    while (block_graph_nr_nodes(bgsim_graph(sim)) > 2) {
        aio_poll(bgsim_main_context(sim), true);
    }
    block_job_unref(run.job);
}
END_TEST

START_TEST(a_job_that_is_paused_stops_within_100_ms)
{
    BlockJobInfo info;
    Run run;

    fill_source();
    run = start_job(",max-chunk=64k,speed=262144");
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + _i * NS_PER_SEC / 7, NULL));
    ck_assert_int_eq(block_job_pause(run.job, NULL), 0);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + NS_PER_SEC / 10, NULL));
    block_job_query(run.job, &info);
    ck_assert_int_eq(info.status, BLOCK_JOB_PAUSED);
    ck_assert_int_eq(block_job_set_speed(run.job, 0, NULL), 0);
    ck_assert_int_eq(block_job_resume(run.job, NULL), 0);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, 0);
    block_job_unref(run.job);
}
END_TEST

static void coroutine_fn drain_entry(BgSim *world, void *opaque)
{
    int64_t start = bgsim_now_ns(world);

    bdrv_co_drained_begin(source);
    *(int64_t *)opaque = bgsim_now_ns(world) - start;
    bdrv_drained_end(source);
}

/* It takes 16 seconds; a section waits for what has begun, not for all. */
START_TEST(a_drained_section_does_not_wait_for_the_rest_of_a_backup)
{
    int64_t drain_ns = -1;
    Run run;

    fill_source();
    run = start_job(_i % 2 ? ",max-chunk=64k,speed=262144"
                           : ",max-chunk=64k,max-workers=1,speed=262144");
    bgsim_spawn(sim, "job", NULL, job_entry, &run);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + _i * NS_PER_SEC / 7, NULL));
    ck_assert_int_eq(run.ret, 1);
    bgsim_spawn(sim, "drain", NULL, drain_entry, &drain_ns);
    ck_assert(bgsim_run(sim, bgsim_now_ns(sim) + NS_PER_SEC, NULL));
    ck_assert_int_ge(drain_ns, 0);
    ck_assert_int_le(drain_ns, NS_PER_SEC / 10);
    ck_assert_int_eq(block_job_set_speed(run.job, 0, NULL), 0);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(run.ret, 0);
    block_job_unref(run.job);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, the_time_to_save_old_content_is_what_was_asked_for, 0, 5);
    PROMISE(tcase, without_a_time_it_is_waited_for_ever);
    tcase_add_loop_test(tcase, a_job_is_as_fast_as_its_speed, 0, 3);
    tcase_add_loop_test(tcase, a_mirror_is_as_fast_as_its_speed, 0, 2);
    tcase_add_loop_test(
        tcase, a_stream_and_a_commit_are_as_fast_as_their_speed, 0, 6);
    PROMISE(tcase, a_new_speed_is_obeyed_at_once);
    tcase_add_loop_test(
        tcase, a_cancelled_job_whose_target_hangs_is_over_within_a_second, 0,
        4);
    tcase_add_loop_test(tcase, a_job_that_is_paused_stops_within_100_ms, 1,
                        8);
    tcase_add_loop_test(
        tcase, a_drained_section_does_not_wait_for_the_rest_of_a_backup, 1, 8);
}

int main(void)
{
    Suite *suite = suite_create("sim-time");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
