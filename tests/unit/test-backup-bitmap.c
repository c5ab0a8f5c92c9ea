/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backup job and dirty bitmaps: incremental backups, and those that are
 * resumed.
 */
#include "job-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#define CLUSTER (64 << 10)
#define DISK (8 * CLUSTER)

static BlockDriverState *source, *target;
static BlockBackend *guest;
static BdrvDirtyBitmap *bitmap;

static void fill_target(uint8_t byte)
{
    BlockBackend *blk = backend_ok("filler", target, BLK_PERM_WRITE,
                                   BLK_PERM_ALL);

    job_fill(blk, 0, DISK, byte);
    blk_unref(blk);
    mem_disk(target)->count[MEM_WRITE] = 0;
}

/* A disk and an equal copy; then clusters 1 and 2 change, and "b" knows. */
static void disks(void)
{
    source = open_ok("mem,node-name=source,size=512k");
    target = open_ok("mem,node-name=target,size=512k");
    guest = backend_ok("guest", source, BLK_PERM_CONSISTENT_READ |
                       BLK_PERM_WRITE, BLK_PERM_ALL);
    job_fill(guest, 0, DISK, 'a');
    fill_target('a');
    bitmap = bdrv_create_dirty_bitmap(source, CLUSTER, "b", NULL);
    job_fill(guest, CLUSTER, 2 * CLUSTER, 'b');
}

static void no_disks(void)
{
    while ((bitmap = bdrv_dirty_bitmap_next(source, NULL))) {
        bdrv_release_dirty_bitmap(bitmap);
    }
    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
}

/* Which clusters bitmap @name has, a digit each; "-": there is none. */
static void expect_bitmap(const char *name, const char *clusters)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(source, name);
    g_autoptr(GString) text = g_string_new(b ? NULL : "-");

    for (int i = 0; b && i < DISK / CLUSTER; i++) {
        if (bdrv_dirty_bitmap_get(b, (int64_t)i * CLUSTER)) {
            g_string_append_printf(text, "%d", i);
        }
    }
    ck_assert_str_eq(text->str, clusters);
    ck_assert(!b || (!bdrv_dirty_bitmap_busy(b) &&
                     bdrv_dirty_bitmap_enabled(b)));
}

/* Whether all writes to the target fail. */
static void fail_writes(bool on)
{
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail_forever[MEM_WRITE] = on ? EIO : 0;
    }
}

static void hold_writes(bool on)
{
    mem_disk(target)->hold[MEM_WRITE] = on;
}

/* A backup, during which the guest writes cluster 5; it fails if @fail says. */
static void backup_with(const char *more, bool fail)
{
    /* Also when its copy fails the guest must be able to write. */
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,%s%s", more,
        fail ? ",on-cbw-error=break-snapshot" : "");
    BlockJob *job;

    fail_writes(fail);
    job = job_ok(BLOCK_JOB_BACKUP, text);
    job_fill(guest, 5 * CLUSTER, CLUSTER, 'c');
    if (fail) {
        job_end_fails(job, EIO, "Job 'j'");
    } else {
        job_end_ok(job);
    }
    fail_writes(false);
}

START_TEST(an_incremental_backup_copies_what_the_bitmap_has)
{
    disks();
    backup_with("sync=incremental,bitmap=b", false);
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER, 2 * CLUSTER, 'b');
    job_expect(target, 3 * CLUSTER, 5 * CLUSTER, 'a');
    ck_assert_int_eq(mem_disk(target)->count[MEM_WRITE], 1);
    expect_bitmap("b", "5");
    no_disks();
}
END_TEST

/* R88 */
START_TEST(of_a_chunk_only_the_clusters_of_the_bitmap_are_copied)
{
    uint64_t bits = 0x5a ^ _i;

    disks();
    fill_target('x');
    bdrv_clear_dirty_bitmap(bitmap, NULL);
    for (int i = 0; i < 8; i++) {
        if (bits >> i & 1) {
            job_fill(guest, i * CLUSTER, CLUSTER, 'd');
        }
    }
    /* Cluster 5 changes once more: in the copy it is as it was. */
    backup_with("sync=incremental,bitmap=b,max-chunk=512k", false);
    for (int i = 0; i < 8; i++) {
        job_expect(target, i * CLUSTER, CLUSTER, bits >> i & 1 ? 'd' : 'x');
    }
    expect_bitmap("b", "5");
    no_disks();
}
END_TEST

/* sync, mode, fails; what the bitmap has afterwards. */
static const struct {
    const char *options;
    bool fail;
    const char *after;
} modes[] = {
    { "sync=incremental,bitmap=b", false, "5" },
    { "sync=incremental,bitmap=b", true, "125" },
    { "sync=incremental,bitmap-mode=on-success,bitmap=b", true, "125" },
    { "sync=bitmap,bitmap-mode=on-success,bitmap=b", false, "5" },
    { "sync=bitmap,bitmap-mode=on-success,bitmap=b", true, "125" },
    { "sync=bitmap,bitmap-mode=never,bitmap=b", false, "125" },
    { "sync=bitmap,bitmap-mode=never,bitmap=b", true, "125" },
    { "sync=bitmap,bitmap-mode=always,bitmap=b", false, "5" },
    { "sync=bitmap,bitmap-mode=always,bitmap=b", true, "125" },
    { "sync=full,bitmap-mode=on-success,bitmap=b", false, "5" },
    { "sync=full,bitmap-mode=on-success,bitmap=b", true, "125" },
    { "sync=full,bitmap-mode=always,bitmap=b", false, "5" },
    { "sync=full,bitmap-mode=always,bitmap=b", true, "01234567" },
};

START_TEST(the_bitmap_stands_for_what_its_mode_says)
{
    disks();
    backup_with(modes[_i].options, modes[_i].fail);
    expect_bitmap("b", modes[_i].after);
    no_disks();
}
END_TEST

START_TEST(a_bitmap_in_use_by_a_backup_is_refused_to_others)
{
    GError *error = NULL;
    BlockJob *job;

    disks();
    hold_writes(true);
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=incremental,bitmap=b");
    job_settle();
    ck_assert_int_eq(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "'b'");
    hold_writes(false);
    job_end_ok(job);
    no_disks();
}
END_TEST

/* --- resuming ------------------------------------------------------------- */

#define RESUME "sync=full,resume-bitmap=r,max-chunk=64k,max-workers=1"

static void wait_caught(void)
{
    while (!mem_disk(target)->caught) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/* A full backup that ends while its write number @n + 1 is under way. */
static void interrupted(unsigned n, bool cancel)
{
    BlockJob *job;

    mem_disk(target)->catch_next[MEM_WRITE] = true;
    job = job_ok(BLOCK_JOB_BACKUP,
                 "job-id=j,device=source,target=target," RESUME);
    for (unsigned i = 0; i < n; i++) {
        wait_caught();
        mem_disk(target)->catch_next[MEM_WRITE] = true;
        mem_disk(target)->caught = false;
    }
    wait_caught();
    if (cancel) {
        ck_assert_int_eq(block_job_cancel(job, false, NULL), 0);
    } else {
        fail_writes(true);
    }
    mem_disk(target)->caught = false;
    ck_assert_int_lt(block_job_wait(job, NULL), 0);
    block_job_unref(job);
    fail_writes(false);
}

/* Resume, and write @least to @most clusters. */
static void resumed(unsigned least, unsigned most)
{
    unsigned before = mem_disk(target)->count[MEM_WRITE];

    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target," RESUME));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    ck_assert_uint_ge(mem_disk(target)->count[MEM_WRITE] - before, least);
    ck_assert_uint_le(mem_disk(target)->count[MEM_WRITE] - before, most);
    expect_bitmap("r", "-");
    no_disks();
}

START_TEST(a_backup_goes_on_with_what_is_missing)
{
    disks();
    fill_target('x');
    interrupted(3, _i);
    /* What has changed since is missing, too: in what was copied, and not. */
    job_fill(guest, 0, 512, 'c');
    job_fill(guest, 7 * CLUSTER, CLUSTER, 'c');
    /* Cluster 0, and what had not been copied: 5 to 7, perhaps 3 and 4. */
    resumed(4, 6);
}
END_TEST

START_TEST(a_backup_may_be_interrupted_again_and_again)
{
    disks();
    fill_target('x');
    for (int i = 0; i < 3; i++) {
        interrupted(1, i % 2);
        job_fill(guest, i * CLUSTER, 512, 'c' + i);
    }
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target," RESUME));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    no_disks();
}
END_TEST

/* What the bitmaps have after a failure, and "b" in the end. */
static const struct {
    const char *sync;
    const char *failed, *missing, *done;
} resumable[] = {
    { "sync=incremental,bitmap=b", "12", "12", "" },
    { "sync=bitmap,bitmap=b,bitmap-mode=on-success", "12", "12", "" },
    { "sync=bitmap,bitmap=b,bitmap-mode=never", "12", "12", "124" },
    { "sync=bitmap,bitmap=b,bitmap-mode=always", "12", "12", "" },
    { "sync=full,bitmap=b,bitmap-mode=always", "01234567", "01234567", "" },
    { "sync=top", "12", "01234567", "124" },
};

START_TEST(a_backup_of_each_kind_can_be_resumed)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,%s,resume-bitmap=r",
        resumable[_i].sync);

    disks();
    fail_writes(true);
    job_end_fails(job_ok(BLOCK_JOB_BACKUP, text), EIO, "could not write");
    fail_writes(false);
    expect_bitmap("b", resumable[_i].failed);
    expect_bitmap("r", resumable[_i].missing);
    job_fill(guest, 4 * CLUSTER, 512, 'c');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, text));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    expect_bitmap("b", resumable[_i].done);
    expect_bitmap("r", "-");
    no_disks();
}
END_TEST

/* After a death the bitmap is lost, too, so all is looked at. */
START_TEST(a_backup_of_each_kind_goes_on_after_a_death)
{
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,%s,resume-bitmap=r",
        resumable[_i].sync);

    disks();
    fail_writes(true);
    job_end_fails(job_ok(BLOCK_JOB_BACKUP, text), EIO, "could not write");
    fail_writes(false);
    bdrv_dirty_bitmap_set_inconsistent(bdrv_find_dirty_bitmap(source, "b"));
    bdrv_dirty_bitmap_set_inconsistent(bdrv_find_dirty_bitmap(source, "r"));
    job_fill(guest, 4 * CLUSTER, 512, 'c');
    fill_target('x');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, text));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    expect_bitmap("r", "-");
    no_disks();
}
END_TEST

/* R105: the process has died, and nobody knows what has changed. */
START_TEST(what_a_dead_process_has_copied_is_not_copied_again)
{
    disks();
    fill_target('x');
    interrupted(3, _i);
    job_fill(guest, 0, 512, 'c');
    if (_i) {
        bdrv_dirty_bitmap_set_inconsistent(
            bdrv_find_dirty_bitmap(source, "r"));
    } else {
        bdrv_release_dirty_bitmap(bdrv_find_dirty_bitmap(source, "r"));
    }
    resumed(4, 6);
}
END_TEST

/* Nobody knows then what it has: all is written. */
START_TEST(a_target_that_cannot_be_read_is_written_anew_after_a_death)
{
    disks();
    fill_target('x');
    interrupted(3, 1);
    bdrv_dirty_bitmap_set_inconsistent(bdrv_find_dirty_bitmap(source, "r"));
    WITH_LOCK(&mem_disk(target)->lock) {
        mem_disk(target)->fail_forever[MEM_READ] = EIO;
    }
    job_end_ok(job_ok(BLOCK_JOB_BACKUP,
                      "device=source,target=target," RESUME));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    expect_bitmap("r", "-");
    no_disks();
}
END_TEST

START_TEST(an_incremental_backup_of_a_dead_process_looks_at_all)
{
    disks();
    bdrv_dirty_bitmap_set_inconsistent(bitmap);
    job_fill(guest, 6 * CLUSTER, 512, 'c');
    job_end_ok(job_ok(BLOCK_JOB_BACKUP, "device=source,target=target,"
                      "sync=incremental,bitmap=b,resume-bitmap=r"));
    ck_assert(memcmp(mem_disk(target)->data, mem_disk(source)->data,
                     DISK) == 0);
    /* 1 and 2 at once, and 6. */
    ck_assert_uint_eq(mem_disk(target)->count[MEM_WRITE], 2);
    expect_bitmap("b", "");
    expect_bitmap("r", "-");
    no_disks();
}
END_TEST

START_TEST(a_bitmap_made_anew_says_that_all_is_missing_until_a_backup_is)
{
    BlockJob *job;

    disks();
    bdrv_dirty_bitmap_set_inconsistent(bitmap);
    fail_writes(true);
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=incremental,bitmap=b,resume-bitmap=r");
    job_end_fails(job, EIO, "could not write");
    fail_writes(false);
    expect_bitmap("b", "01234567");
    no_disks();
}
END_TEST

/* --- what is missing after a failure -------------------------------------- */

/* Bits of bitmap "b", which has a bit for 4 KiB, in cluster @i. */
static int bits_of(int i)
{
    int n = 0;

    bitmap = bdrv_find_dirty_bitmap(source, "b");
    for (int64_t at = 0; at < CLUSTER; at += 4096) {
        n += bdrv_dirty_bitmap_get(bitmap, (int64_t)i * CLUSTER + at);
    }
    return n;
}

static void guest_has_written(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    *(bool *)opaque = true;
}

/* A guest has changed 512 bytes; the rest of the cluster is nowhere else. */
START_TEST(a_guests_copy_that_fails_after_the_end_is_missing)
{
    static const char *const how[] = {
        "", ",on-cbw-error=break-snapshot,staging-size=128k",
    };
    g_autofree char *text = g_strdup_printf(
        "job-id=j,device=source,target=target,sync=bitmap,bitmap=b,"
        "bitmap-mode=always%s", how[_i]);
    uint8_t buf[512] = { 'c' };
    BlockIOVec1 iov;
    bool written = false;
    BlockJob *job;

    disks();
    bdrv_release_dirty_bitmap(bitmap);
    bitmap = bdrv_create_dirty_bitmap(source, 4096, "b", NULL);
    bdrv_set_dirty_bitmap(bitmap, 5 * CLUSTER, CLUSTER);
    job = job_ok(BLOCK_JOB_BACKUP, text);
    ck_assert_int_eq(block_job_pause(job, NULL), 0);
    hold_writes(true);
    blk_aio_pwritev(guest, 5 * CLUSTER, block_iov_buf(&iov, buf, 512), 0,
                    guest_has_written, &written);
    job_settle();
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    job_settle();
    fail_writes(true);
    hold_writes(false);
    job_end_fails(job, ECANCELED, "cancelled");
    job_settle();
    fail_writes(false);
    ck_assert(written);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 2);
    ck_assert_int_eq(bits_of(5), 16);
    no_disks();
}
END_TEST

START_TEST(what_a_failed_flush_may_have_lost_is_missing)
{
    BlockJob *job;

    disks();
    fill_target('x');
    mem_disk(target)->fail[MEM_FLUSH] = EIO;
    job = job_ok(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
                 "sync=incremental,bitmap=b,resume-bitmap=r");
    job_end_fails(job, EIO, "could not write");
    expect_bitmap("b", "12");
    expect_bitmap("r", "12");
    no_disks();
}
END_TEST

/* What was copied before is safe when the bitmap says that it was. */
START_TEST(an_interrupted_backup_flushes_what_it_need_not_copy_again)
{
    unsigned flushes;

    disks();
    fill_target('x');
    flushes = mem_disk(target)->count[MEM_FLUSH];
    if (_i == 1) {
        mem_disk(target)->fail[MEM_FLUSH] = EIO;
    }
    interrupted(3, true);
    job_settle();
    ck_assert_uint_gt(mem_disk(target)->count[MEM_FLUSH], flushes);
    if (_i == 1) {
        expect_bitmap("r", "01234567");
    }
    no_disks();
}
END_TEST

/* --- what others do meanwhile --------------------------------------------- */

/* A change of the graph elsewhere: it waits for a read, and others for it. */
typedef struct Elsewhere {
    BlockDriverState *bs, *filter;
    BlockBackend *blk;
    BlockIOVec1 iov;
    uint8_t buf[512];
    bool read, over;
} Elsewhere;

static void elsewhere_read(void *opaque, int ret)
{
    ((Elsewhere *)opaque)->read = true;
}

static void coroutine_fn elsewhere_entry(void *opaque)
{
    Elsewhere *e = opaque;

    bdrv_co_insert_node(e->bs, opts("copy-on-read,file=else"),
                        &e->filter, NULL);
    e->over = true;
}

static void begin_elsewhere(Elsewhere *e)
{
    *e = (Elsewhere){ .bs = open_ok("mem,node-name=else,size=64k") };
    e->blk = backend_ok("else", e->bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    mem_disk(e->bs)->hold[MEM_READ] = true;
    blk_aio_preadv(e->blk, 0, block_iov_buf(&e->iov, e->buf, 512), 0,
                   elsewhere_read, e);
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(elsewhere_entry, e));
    job_settle();
    ck_assert(!e->over);
}

static void end_elsewhere(Elsewhere *e)
{
    mem_disk(e->bs)->hold[MEM_READ] = false;
    while (!e->over || !e->read) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static void close_elsewhere(Elsewhere *e)
{
    blk_unref(e->blk);
    bdrv_unref(e->filter);
    bdrv_unref(e->bs);
}

typedef struct Start {
    const char *text;
    BlockJob *job;
    GError *error;
    bool over;
} Start;

static void coroutine_fn start_entry(void *opaque)
{
    Start *s = opaque;

    s->job = block_co_job_start(graph, BLOCK_JOB_BACKUP, opts(s->text),
                                &s->error);
    s->over = true;
}

START_TEST(a_bitmap_that_goes_while_a_backup_begins_is_missed)
{
    Start start = { .text = "job-id=j,device=source,target=target,"
                            "sync=incremental,bitmap=b" };
    Elsewhere e;

    disks();
    begin_elsewhere(&e);
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(start_entry, &start));
    job_settle();
    ck_assert(!start.over);
    if (_i == 0) {
        bdrv_release_dirty_bitmap(bitmap);
    } else {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    }
    end_elsewhere(&e);
    job_settle();
    ck_assert(start.over);
    ck_assert_ptr_null(start.job);
    expect_error(&start.error, _i == 0 ? ENOENT : EINVAL, "'b'");
    close_elsewhere(&e);
    no_disks();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

static void refused(const char *options, int err, const char *message)
{
    g_autofree char *text =
        g_strdup_printf("job-id=j,device=source,target=target,%s", options);

    job_fails(BLOCK_JOB_BACKUP, text, err, message);
    expect_bitmap("b", "12");
}

START_TEST(bad_use_of_bitmaps_is_refused)
{
    disks();
    refused("sync=incremental", EINVAL, "need the option 'bitmap'");
    refused("sync=bitmap,bitmap-mode=never", EINVAL,
            "need the option 'bitmap'");
    refused("sync=incremental,bitmap=nix", ENOENT, "'nix'");
    refused("sync=incremental,bitmap=b,bitmap-mode=never", EINVAL,
            "on-success");
    refused("sync=bitmap,bitmap=b", EINVAL, "bitmap-mode");
    refused("sync=full,bitmap=b", EINVAL, "bitmap-mode");
    refused("sync=full,bitmap=b,bitmap-mode=never", EINVAL, "no effect");
    refused("sync=full,bitmap-mode=always", EINVAL, "needs");
    refused("sync=none,bitmap=b,bitmap-mode=always", EINVAL, "sync=none");
    refused("sync=none,resume-bitmap=r", EINVAL, "cannot be resumed");
    refused("sync=incremental,bitmap=b,resume-bitmap=b", EINVAL,
            "must not be the same");
    refused("sync=full,resume-bitmap=", EINVAL, "1 to");
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    job_fails(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
              "sync=incremental,bitmap=b", EBUSY, "in use");
    job_fails(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
              "sync=full,resume-bitmap=b", EBUSY, "in use");
    bdrv_dirty_bitmap_set_busy(bitmap, false);
    bdrv_disable_dirty_bitmap(bitmap, NULL);
    job_fails(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
              "sync=full,resume-bitmap=b", EINVAL, "disabled");
    bdrv_dirty_bitmap_set_inconsistent(bitmap);
    job_fails(BLOCK_JOB_BACKUP, "job-id=j,device=source,target=target,"
              "sync=incremental,bitmap=b", EINVAL, "inconsistent");
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, an_incremental_backup_copies_what_the_bitmap_has);
    tcase_add_loop_test(
        tcase, of_a_chunk_only_the_clusters_of_the_bitmap_are_copied, 0, 256);
    tcase_add_loop_test(tcase, the_bitmap_stands_for_what_its_mode_says, 0,
                        G_N_ELEMENTS(modes));
    PROMISE(tcase, a_bitmap_in_use_by_a_backup_is_refused_to_others);
    tcase_add_loop_test(tcase, a_backup_goes_on_with_what_is_missing, 0, 2);
    PROMISE(tcase, a_backup_may_be_interrupted_again_and_again);
    tcase_add_loop_test(tcase, a_backup_of_each_kind_can_be_resumed, 0,
                        G_N_ELEMENTS(resumable));
    tcase_add_loop_test(tcase, a_backup_of_each_kind_goes_on_after_a_death, 0,
                        G_N_ELEMENTS(resumable));
    tcase_add_loop_test(
        tcase, what_a_dead_process_has_copied_is_not_copied_again, 0, 2);
    PROMISE(tcase, a_target_that_cannot_be_read_is_written_anew_after_a_death);
    PROMISE(tcase, an_incremental_backup_of_a_dead_process_looks_at_all);
    PROMISE(tcase,
            a_bitmap_made_anew_says_that_all_is_missing_until_a_backup_is);
    tcase_add_loop_test(
        tcase, a_guests_copy_that_fails_after_the_end_is_missing, 0, 2);
    PROMISE(tcase, what_a_failed_flush_may_have_lost_is_missing);
    tcase_add_loop_test(
        tcase, an_interrupted_backup_flushes_what_it_need_not_copy_again, 0,
        2);
    tcase_add_loop_test(
        tcase, a_bitmap_that_goes_while_a_backup_begins_is_missed, 0, 2);
    PROMISE(tcase, bad_use_of_bitmaps_is_refused);
}

int main(void)
{
    return job_main("backup-bitmap", add_tests);
}
