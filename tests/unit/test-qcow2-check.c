/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Check and repair.  Most images are made by qemu-img, then damaged at places
 * that their headers tell.
 */
#include "qcow2-fixture.h"

#include <stdio.h>

#include "block/formats/qcow2/check.h"

#define CLUSTER 65536
#define FIX_ALL (BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS)

/* All lines of the last check. */
static GString *lines;

static void take_line(const char *line, void *opaque)
{
    g_string_append_printf(lines, "%s\n", line);
}

static void lines_setup(void)
{
    lines = g_string_new(NULL);
}

static void lines_teardown(void)
{
    g_string_free(lines, TRUE);
}

static int try_check(const char *options, unsigned flags,
                     BdrvCheckResult *res, GError **error)
{
    BdrvCheck how = { .flags = flags, .message = take_line };
    g_autofree char *text = g_strdup_printf(
        "qcow2,%s,file.driver=file,file.filename=%%s/t.qcow2", options);
    BlockDriverState *bs = file_open_ok(text);
    int ret;

    g_string_truncate(lines, 0);
    ret = bdrv_check(bs, &how, res, error);
    bdrv_unref(bs);
    return ret;
}

/* Check "t.qcow2", repair as @flags say. */
static BdrvCheckResult check(unsigned flags)
{
    g_autoptr(GError) error = NULL;
    BdrvCheckResult res;
    int ret = try_check(flags ? "for-repair=on" : "read-only=on", flags, &res,
                        &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
    return res;
}

static void expect_result(BdrvCheckResult res, int64_t corruptions,
                          int64_t leaks)
{
    ck_assert_msg(res.corruptions == corruptions && res.leaks == leaks &&
                  res.check_errors == 0,
                  "%ld corruptions, %ld leaks, %ld errors:\n%s",
                  (long)res.corruptions, (long)res.leaks,
                  (long)res.check_errors, lines->str);
}

/* Nothing is wrong, say we and qemu-img. */
static void expect_good(void)
{
    expect_result(check(0), 0, 0);
    expect_clean();
}

/* Where things are. */
static int64_t l1_at(void)
{
    return read64(QCOW2_H_L1_OFFSET);
}

static int64_t l2_at(void)
{
    return read64(l1_at()) & QCOW2_OFFSET_MASK;
}

static int64_t refblock_at(void)
{
    return read64(read64(QCOW2_H_REFTABLE_OFFSET));
}

static void set_refcount16(int64_t cluster, unsigned value)
{
    uint8_t bytes[2];

    be_put16(bytes, value);
    poke(refblock_at() + cluster * 2, bytes, 2);
}

static void make_used_image(const char *options)
{
    qemu_image(options, "4M");
    qemu_io("-c 'write -P 1 0 256k' -c 'write -P 2 1M 64k'");
}

/* --- good images ---------------------------------------------------------- */

START_TEST(r22_images_of_qemu_are_good_whatever_their_layout)
{
    static const char *const options[] = {
        "compat=0.10", "refcount_bits=1", "refcount_bits=2", "refcount_bits=4",
        "refcount_bits=8", "refcount_bits=32", "refcount_bits=64",
        "cluster_size=512", "cluster_size=2M", "extended_l2=on",
        "compression_type=zstd", "lazy_refcounts=on",
    };
    BdrvCheckResult res;

    make_used_image(options[_i]);
    qemu_io("-c 'write -c -P 3 2M 2M' -c 'write -z 1M 64k' "
            "-c 'discard 64k 64k'");
    res = check(0);
    expect_result(res, 0, 0);
    ck_assert_int_gt(res.allocated_clusters, 0);
    ck_assert_int_gt(res.image_end_offset, 0);
}
END_TEST

START_TEST(statistics_are_those_of_qemu_img)
{
    BdrvCheckResult res;
    g_autofree char *command = NULL;

    qemu_image("cluster_size=4k", "8M");
    qemu_io("-c 'write 0 1M' -c 'write 2M 64k' -c 'write 1M 64k' "
            "-c 'write -c 4M 4k' -c 'write -c 5M 4k' -c 'write 6M 512'");
    res = check(0);
    expect_result(res, 0, 0);
    command = g_strdup_printf(
        "cd %%s && qemu-img check --output=json t.qcow2 >check.json && "
        "for fact in 'image-end-offset\": %" G_GINT64_FORMAT "' "
        "'total-clusters\": %" G_GINT64_FORMAT "' "
        "'fragmented-clusters\": %" G_GINT64_FORMAT "' "
        "'allocated-clusters\": %" G_GINT64_FORMAT "' "
        "'compressed-clusters\": %" G_GINT64_FORMAT "'; "
        "do grep -q \"$fact,*$\" check.json || exit 1; done",
        res.image_end_offset, res.total_clusters, res.fragmented_clusters,
        res.allocated_clusters, res.compressed_clusters);
    if (run(command) != 0) {
        run("cd %s && qemu-img check --output=json t.qcow2");
        ck_abort_msg("ours: %s", command);
    }
}
END_TEST

/* --- leaks ---------------------------------------------------------------- */

START_TEST(a_leak_is_found_and_given_back)
{
    BdrvCheckResult res;

    make_used_image("");
    set_refcount16(1, 4);      /* the refcount table, thrice too much */
    expect_result(check(0), 0, 1);
    ck_assert_str_eq(lines->str, "Leaked cluster 1 refcount=4 reference=1\n");
    res = check(BDRV_CHECK_FIX_ERRORS);
    expect_result(res, 0, 1);
    res = check(BDRV_CHECK_FIX_LEAKS);
    expect_result(res, 0, 0);
    ck_assert_int_eq(res.leaks_fixed, 1);
    ck_assert_int_eq(res.corruptions_fixed, 0);
    expect_good();
}
END_TEST

START_TEST(leaks_are_kept_while_a_table_cannot_be_followed)
{
    BdrvCheckResult res;

    make_used_image("");
    poke64(l1_at(), read64(l1_at()) | 512); /* the only L2 table */
    res = check(BDRV_CHECK_FIX_LEAKS);
    ck_assert_int_gt(res.corruptions, 0);
    ck_assert_int_gt(res.leaks, 0);
    ck_assert_int_eq(res.leaks_fixed, 0);
    res = check(FIX_ALL);
    ck_assert_int_eq(res.leaks_fixed, 0);
    poke64(l1_at(), read64(l1_at()) & ~UINT64_C(512));
    expect_good();
}
END_TEST

/* --- corruptions ---------------------------------------------------------- */

/* One kind of damage, and what repairing must make of it. */
typedef struct Damage {
    const char *name;
    void (*make)(void);
    int64_t corruptions;
    int64_t leaks;
    bool lossless;       /* the guest sees what it saw */
} Damage;

static void low_refcount(void)
{
    set_refcount16(l2_at() / CLUSTER, 0);
}

static void no_copied(void)
{
    poke64(l2_at(), read64(l2_at()) & ~QCOW2_OFLAG_COPIED);
}

static void no_copied_l1(void)
{
    poke64(l1_at(), read64(l1_at()) & ~QCOW2_OFLAG_COPIED);
}

static void shared_cluster(void)
{
    poke64(l2_at() + 8, read64(l2_at()));
}

static void beyond_end(void)
{
    poke64(l2_at() + 80, QCOW2_OFLAG_COPIED | INT64_C(1) << 55);
}

static void l1_beyond_end(void)
{
    poke64(l1_at(), QCOW2_OFLAG_COPIED | INT64_C(1) << 50);
}

static void compressed_copied(void)
{
    qemu_io("-c 'write -c -P 3 2M 64k'");
    poke64(l2_at() + 8 * 32, read64(l2_at() + 8 * 32) | QCOW2_OFLAG_COPIED);
}

static void no_refblock(void)
{
    poke64(read64(QCOW2_H_REFTABLE_OFFSET), 0);
}

static void refblock_twice(void)
{
    poke64(read64(QCOW2_H_REFTABLE_OFFSET) + 8, refblock_at());
}

static void refblock_misaligned(void)
{
    poke64(read64(QCOW2_H_REFTABLE_OFFSET), refblock_at() + 512);
}

static void refblock_beyond(void)
{
    poke64(read64(QCOW2_H_REFTABLE_OFFSET), INT64_C(1) << 50);
}

static void refblock_is_header(void)
{
    poke64(read64(QCOW2_H_REFTABLE_OFFSET) + 8, l2_at());
}

static void reftable_beyond(void)
{
    poke64(QCOW2_H_REFTABLE_OFFSET, INT64_C(1) << 40);
}

static const Damage damages[] = {
    { "refcount 0", low_refcount, 2, 0, true },
    { "no COPIED", no_copied, 1, 0, true },
    { "no COPIED in L1", no_copied_l1, 1, 0, true },
    { "a shared cluster", shared_cluster, 1, 1, false },
    { "data beyond the end", beyond_end, 1, 0, true },
    { "an L2 table beyond the end", l1_beyond_end, 1, 6, false },
    { "compressed, COPIED", compressed_copied, 1, 0, true },
    { "no refcount block", no_refblock, -1, 0, true },
    { "a refcount block twice", refblock_twice, -1, 0, true },
    { "a misaligned refcount block", refblock_misaligned, -1, 0, true },
    { "a refcount block beyond the end", refblock_beyond, -1, 0, true },
    { "a refcount block in an L2 table", refblock_is_header, -1, 0, true },
    { "a refcount table beyond the end", reftable_beyond, -1, 0, true },
};

static void expect_data(void)
{
    BlockBackend *blk = open_image();

    expect_fill(blk, 0, 4 * CLUSTER, 1);
    expect_fill(blk, 16 * CLUSTER, CLUSTER, 2);
    close_backend(blk);
}

START_TEST(what_is_wrong_is_found_and_repaired)
{
    const Damage *damage = &damages[_i];
    BdrvCheckResult res;

    make_used_image("");
    damage->make();
    res = check(0);
    if (damage->corruptions >= 0) {
        expect_result(res, damage->corruptions, damage->leaks);
    }
    ck_assert_msg(res.corruptions > 0, "%s", damage->name);
    res = check(FIX_ALL);
    ck_assert_msg(res.corruptions == 0 && res.leaks == 0 &&
                  res.check_errors == 0 && res.corruptions_fixed > 0,
                  "%s: %ld corruptions, %ld leaks left\n%s", damage->name,
                  (long)res.corruptions, (long)res.leaks, lines->str);
    expect_good();
    if (damage->lossless) {
        expect_data();
    }
}
END_TEST

/* Whether the sandbox of a read-only check holds. */
START_TEST(a_check_without_repair_writes_nothing)
{
    g_autofree char *path = path_of("t.qcow2");
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;
    gsize before_bytes, after_bytes;

    make_used_image("");
    damages[_i].make();
    ck_assert(g_file_get_contents(path, &before, &before_bytes, NULL));
    check(0);
    ck_assert(g_file_get_contents(path, &after, &after_bytes, NULL));
    ck_assert_uint_eq(before_bytes, after_bytes);
    ck_assert_mem_eq(before, after, before_bytes);
}
END_TEST

/* --- snapshots, bitmaps, data files --------------------------------------- */

START_TEST(all_that_an_image_can_have_is_counted)
{
    qemu_image("cluster_size=4k", "4M");
    qemu_io("-c 'write 0 1M' -c 'write -c 2M 64k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c a t.qcow2 && "
                         "qemu-img bitmap --add t.qcow2 b1 && "
                         "qemu-img bitmap --add -g 64k t.qcow2 b2"), 0);
    qemu_io("-c 'write 512k 1M' -c 'write -z 3M 64k' -c 'write -b 0 100k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c b t.qcow2"), 0);
    qemu_io("-c 'discard 0 256k'");
    expect_good();
}
END_TEST

START_TEST(clusters_of_a_data_file_are_not_counted)
{
    g_autofree char *options = NULL;
    BdrvCheckResult res;

    options = options_text("data_file=%s/data.raw,data_file_raw=on");
    qemu_image(options, "4M");
    qemu_io("-c 'write 0 1M'");
    res = check(0);
    expect_result(res, 0, 0);
    ck_assert_int_eq(res.allocated_clusters, 64);
}
END_TEST

START_TEST(a_snapshot_that_cannot_be_followed_loses_nothing)
{
    BdrvCheckResult res;
    int64_t table;
    uint64_t l1;

    qemu_image("", "4M");
    qemu_io("-c 'write -P 1 0 256k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c a t.qcow2"), 0);
    qemu_io("-c 'write -P 2 0 256k'");
    table = read64(QCOW2_H_SNAPSHOTS_OFFSET);
    l1 = read64(table);
    poke64(table, l1 + 8);
    res = check(FIX_ALL);
    ck_assert_int_gt(res.corruptions, 0);
    ck_assert_int_eq(res.leaks_fixed, 0);
    poke64(table, l1);
    expect_good();
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -a a t.qcow2"), 0);
    qemu_io("-c 'read -P 1 0 256k'");
}
END_TEST

/* --- bounds --------------------------------------------------------------- */

/* A line of /proc/self/status, in KiB. */
static long status_kib(const char *name)
{
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/self/status", &text, NULL, NULL)) {
        return 0;
    }
    line = strstr(text, name);
    return line ? strtol(line + strlen(name), NULL, 10) : 0;
}

START_TEST(r8_memory_follows_the_file_not_its_entries)
{
    g_autofree uint8_t *table = g_malloc0(CLUSTER);
    BdrvCheckResult res;
    long before;

    make_used_image("");
    for (int i = 0; i < CLUSTER / 8; i++) {
        be_put64(table + i * 8, QCOW2_OFLAG_COPIED |
                                    ((INT64_C(1) << 55) +
                                     (int64_t)i * (INT64_C(1) << 40)));
    }
    poke(l2_at(), table, CLUSTER);
    before = status_kib("VmHWM:");
    res = check(0);
    ck_assert_int_eq(res.corruptions, CLUSTER / 8);
    ck_assert_int_lt(status_kib("VmHWM:") - before, 32 * 1024);
}
END_TEST

START_TEST(r8_a_sparse_file_of_64_gib_takes_little_memory)
{
    BdrvCheckResult res;
    long before;

    qemu_image("preallocation=metadata", "64G");
    before = status_kib("VmHWM:");
    res = check(0);
    expect_result(res, 0, 0);
    ck_assert_int_eq(res.allocated_clusters, INT64_C(64) << 14);
    ck_assert_int_lt(status_kib("VmHWM:") - before, 64 * 1024);
}
END_TEST

/* --- dirty images --------------------------------------------------------- */

START_TEST(a_dirty_image_is_repaired_when_it_is_opened_for_writing)
{
    BlockBackend *blk;

    make_used_image("lazy_refcounts=on");
    set_refcount16(l2_at() / CLUSTER, 0);
    set_refcount16(2, 9);
    poke64(QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_DIRTY);
    blk = open_image();
    ck_assert_uint_eq(read64(QCOW2_H_INCOMPATIBLE), 0);
    close_backend(blk);
    expect_good();
    expect_data();
}
END_TEST

START_TEST(a_dirty_image_that_cannot_be_repaired_is_not_written)
{
    make_used_image("");
    poke64(l1_at(), read64(l1_at()) | 512);
    poke64(QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_DIRTY);
    file_fails("qcow2,file.driver=file,file.filename=%s/t.qcow2", 0,
               "could not be repaired");
    ck_assert_uint_eq(read64(QCOW2_H_INCOMPATIBLE), QCOW2_INCOMPAT_DIRTY);
}
END_TEST

START_TEST(a_corrupt_image_is_good_again_after_its_repair)
{
    BdrvCheckResult res;

    make_used_image("");
    low_refcount();
    poke64(QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
    res = check(FIX_ALL);
    expect_result(res, 0, 0);
    ck_assert_uint_eq(read64(QCOW2_H_INCOMPATIBLE), 0);
    expect_good();
}
END_TEST

/* --- a repair among other operations -------------------------------------- */

typedef struct Together {
    BlockDriverState *bs;
    int reopen_ret, check_ret;
    GError *error;
} Together;

static int coroutine_fn become_read_only(void *opaque)
{
    Together *t = opaque;
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);

    bdrv_reopen_queue_add(queue, t->bs, opts("read-only=on"), true);
    t->reopen_ret = bdrv_co_reopen_multiple(queue, NULL);
    return 0;
}

static int coroutine_fn repair_it(void *opaque)
{
    const BdrvCheck how = { .flags = FIX_ALL };
    Together *t = opaque;
    BdrvCheckResult res = { 0 };

    t->check_ret = bdrv_co_check(t->bs, &how, &res, &t->error);
    return 0;
}

static int coroutine_fn reopen_and_repair(void *opaque)
{
    CoTaskPool *pool = co_task_pool_new(2);

    co_task_pool_start(pool, become_read_only, opaque);
    co_task_pool_start(pool, repair_it, opaque);
    co_task_pool_wait_all(pool);
    co_task_pool_free(pool);
    return 0;
}

START_TEST(an_image_that_becomes_read_only_is_not_repaired)
{
    Together t = { .check_ret = 1 };
    BlockBackend *blk;

    if (!have_qemu()) {
        return;
    }
    make_used_image("");
    low_refcount();
    blk = open_image();
    t.bs = bdrv_ref(blk_bs(blk));
    blk_unref(blk);
    in_co(reopen_and_repair, &t);
    ck_assert_int_eq(t.reopen_ret, 0);
    ck_assert_int_eq(t.check_ret, -EACCES);
    expect_error(&t.error, EACCES, "read-only");
    bdrv_unref(t.bs);
}
END_TEST

/* --- failures of a repair ------------------------------------------------- */

/* Whichever change of the file fails, a second repair finishes the work. */
START_TEST(a_repair_that_stops_can_be_repeated)
{
    const Damage *damage = &damages[_i];
    bool failed = true;

    for (unsigned fail_at = 1; failed; fail_at++) {
        BdrvCheck how = { .flags = FIX_ALL };
        BdrvCheckResult res;
        BlockBackend *blk;
        int64_t left;

        make_used_image("");
        damage->make();
        blk = open_faulty(",for-repair=on");
        faulty_set(FAULTY_CHANGES, fail_at, UINT_MAX);
        if (bdrv_check(blk_bs(blk), &how, &res, NULL) == 0) {
            left = res.corruptions + res.leaks + res.check_errors;
            failed = faulty_has_failed();
            ck_assert(failed || left == 0);
        }
        close_backend(blk);
        check(FIX_ALL);
        expect_good();
        if (damage->lossless) {
            expect_data();
        }
        ck_assert_uint_lt(fail_at, 100);
    }
}
END_TEST

/* --- anything ------------------------------------------------------------- */

/*
 * Random damage to random metadata: no crash; what we call clean after a
 * repair is clean for qemu-img; a check finds what qemu-img finds.
 */
START_TEST(r23_random_damage_is_survived)
{
    GRand *rand = g_rand_new_with_seed(_i + 1);
    uint64_t places[8];
    BdrvCheckResult res;
    GError *error = NULL;
    int64_t value;
    int qemu;

    qemu_image(_i % 2 ? "cluster_size=4k" : "cluster_size=16k,extended_l2=on",
               "1M");
    qemu_io("-c 'write 0 256k' -c 'write -c 512k 64k' -c 'write -z 304k 16k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c a t.qcow2"), 0);
    qemu_io("-c 'write 0 32k'");
    places[0] = l1_at();
    places[1] = l2_at() + 8 * g_rand_int_range(rand, 0, 200);
    places[2] = l2_at() + 8 * g_rand_int_range(rand, 0, 200);
    places[3] = read64(QCOW2_H_REFTABLE_OFFSET) +
                8 * g_rand_int_range(rand, 0, 3);
    places[4] = refblock_at() + 8 * g_rand_int_range(rand, 0, 60);
    places[5] = refblock_at() + 8 * g_rand_int_range(rand, 0, 60);
    places[6] = l2_at() + 16 * g_rand_int_range(rand, 0, 100);
    places[7] = read64(QCOW2_H_SNAPSHOTS_OFFSET);
    for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--) {
        uint64_t at = places[g_rand_int_range(rand, 0, 8)];

        value = read64(at);
        value ^= UINT64_C(1) << g_rand_int_range(rand, 0, 64);
        poke64(at, value);
    }
    g_rand_free(rand);
    if (try_check("read-only=on", 0, &res, &error) < 0) {
        ck_assert_ptr_nonnull(error);
        g_clear_error(&error);
        return;
    }
    qemu = run("cd %s && qemu-img check -q -f qcow2 t.qcow2 "
               ">check.log 2>&1");
    if (qemu == 0 || qemu == 2 || qemu == 3) {
        bool ours = res.corruptions || res.check_errors;

        if (ours != (qemu == 2) || (!ours && (res.leaks > 0) != (qemu == 3))) {
            run("cat %s/check.log");
            fprintf(stderr, "seed %d, qemu-img exits with %d, ours:\n%s", _i,
                    qemu, lines->str);
        }
        ck_assert(ours || qemu != 2);
    }
    if (try_check("for-repair=on", FIX_ALL, &res, &error) < 0) {
        g_clear_error(&error);
        return;
    }
    if (!res.corruptions && !res.leaks && !res.check_errors) {
        expect_good();
    }
}
END_TEST

/* Version 2 cannot say that a cluster reads as zero: without an entry it would
 * show the backing file, when that is there again. */
START_TEST(a_repair_without_the_backing_file_does_not_show_it)
{
    g_autofree char *path = path_of("t.qcow2");
    g_autofree char *text = g_strdup_printf(
        "{\"driver\": \"qcow2\", \"for-repair\": true, \"backing\": null, "
        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}", path);
    uint64_t beyond = UINT64_C(1) << 40 | QCOW2_OFLAG_COPIED;
    BdrvCheck how = { .flags = FIX_ALL, .message = take_line };
    BlockDriverState *bs;
    BdrvCheckResult res;

    make_file("base", 4 << 20);
    make_used_image("compat=0.10,backing_file=base,backing_fmt=raw");
    poke64(l2_at(), beyond);
    bs = bdrv_open(graph, block_options_parse_json(text, NULL), NULL);
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(bdrv_check(bs, &how, &res, NULL), 0);
    bdrv_unref(bs);
    ck_assert_int_ge(res.corruptions, 1);
    ck_assert_uint_eq(read64(l2_at()), beyond);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_checked_fixture(tcase, lines_setup, lines_teardown);
    tcase_add_loop_test(tcase,
                        r22_images_of_qemu_are_good_whatever_their_layout, 0,
                        12);
    tcase_add_test(tcase, statistics_are_those_of_qemu_img);
    tcase_add_test(tcase, a_leak_is_found_and_given_back);
    tcase_add_test(tcase, leaks_are_kept_while_a_table_cannot_be_followed);
    tcase_add_loop_test(tcase, what_is_wrong_is_found_and_repaired, 0,
                        G_N_ELEMENTS(damages));
    tcase_add_loop_test(tcase, a_check_without_repair_writes_nothing, 0,
                        G_N_ELEMENTS(damages));
    tcase_add_test(tcase, a_repair_without_the_backing_file_does_not_show_it);
    tcase_add_test(tcase, all_that_an_image_can_have_is_counted);
    tcase_add_test(tcase, clusters_of_a_data_file_are_not_counted);
    tcase_add_test(tcase, a_snapshot_that_cannot_be_followed_loses_nothing);
    tcase_add_test(tcase, r8_memory_follows_the_file_not_its_entries);
    tcase_add_test(tcase, r8_a_sparse_file_of_64_gib_takes_little_memory);
    tcase_add_test(tcase,
                   a_dirty_image_is_repaired_when_it_is_opened_for_writing);
    tcase_add_test(tcase,
                   a_dirty_image_that_cannot_be_repaired_is_not_written);
    tcase_add_test(tcase, a_corrupt_image_is_good_again_after_its_repair);
    tcase_add_test(tcase, an_image_that_becomes_read_only_is_not_repaired);
    tcase_add_loop_test(tcase, a_repair_that_stops_can_be_repeated, 0,
                        G_N_ELEMENTS(damages));
    tcase_add_loop_test(tcase, r23_random_damage_is_survived, 0, 40);
}

int main(void)
{
    return qemu_suite("qcow2-check", add_tests);
}
