/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Check and repair.  Most images are made by qemu-img, then damaged at places
 * that their headers tell.
 */
#include "qcow2-fixture.h"

#include "block/formats/qcow2/check.h"

#define CLUSTER 65536
#define FIX_ALL (BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS)

/* All lines of the last check. */
static GString *lines;

static void take_line(const char *line, void *opaque)
{
    g_string_append_printf(lines, "%s\n", line);
}

static void setup(void)
{
    file_setup();
    lines = g_string_new(NULL);
}

static void teardown(void)
{
    g_string_free(lines, TRUE);
    file_teardown();
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
    return peek64(QCOW2_H_L1_OFFSET);
}

static int64_t l2_at(void)
{
    return peek64(l1_at()) & QCOW2_OFFSET_MASK;
}

static int64_t refblock_at(void)
{
    return peek64(peek64(QCOW2_H_REFTABLE_OFFSET));
}

static void set_refcount16(int64_t cluster, unsigned value)
{
    uint8_t bytes[2];

    qcow2_put16(bytes, value);
    poke(refblock_at() + cluster * 2, bytes, 2);
}

static void make_used_image(const char *options)
{
    make_image(options, "4M");
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

    if (!have_qemu()) {
        return;
    }
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

    if (!have_qemu()) {
        return;
    }
    make_image("cluster_size=4k", "8M");
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

    if (!have_qemu()) {
        return;
    }
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

    if (!have_qemu()) {
        return;
    }
    make_used_image("");
    poke64(l1_at(), peek64(l1_at()) | 512); /* the only L2 table */
    res = check(BDRV_CHECK_FIX_LEAKS);
    ck_assert_int_gt(res.corruptions, 0);
    ck_assert_int_gt(res.leaks, 0);
    ck_assert_int_eq(res.leaks_fixed, 0);
    res = check(FIX_ALL);
    ck_assert_int_eq(res.leaks_fixed, 0);
    poke64(l1_at(), peek64(l1_at()) & ~UINT64_C(512));
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
    poke64(l2_at(), peek64(l2_at()) & ~QCOW2_OFLAG_COPIED);
}

static void no_copied_l1(void)
{
    poke64(l1_at(), peek64(l1_at()) & ~QCOW2_OFLAG_COPIED);
}

static void shared_cluster(void)
{
    poke64(l2_at() + 8, peek64(l2_at()));
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
    poke64(l2_at() + 8 * 32, peek64(l2_at() + 8 * 32) | QCOW2_OFLAG_COPIED);
}

static void no_refblock(void)
{
    poke64(peek64(QCOW2_H_REFTABLE_OFFSET), 0);
}

static void refblock_twice(void)
{
    poke64(peek64(QCOW2_H_REFTABLE_OFFSET) + 8, refblock_at());
}

static void refblock_misaligned(void)
{
    poke64(peek64(QCOW2_H_REFTABLE_OFFSET), refblock_at() + 512);
}

static void refblock_beyond(void)
{
    poke64(peek64(QCOW2_H_REFTABLE_OFFSET), INT64_C(1) << 50);
}

static void refblock_is_header(void)
{
    poke64(peek64(QCOW2_H_REFTABLE_OFFSET) + 8, l2_at());
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

    expect_guest(blk, 0, 4 * CLUSTER, 1);
    expect_guest(blk, 16 * CLUSTER, CLUSTER, 2);
    close_backend(blk);
}

START_TEST(what_is_wrong_is_found_and_repaired)
{
    const Damage *damage = &damages[_i];
    BdrvCheckResult res;

    if (!have_qemu()) {
        return;
    }
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

    if (!have_qemu()) {
        return;
    }
    make_used_image("");
    damages[_i].make();
    ck_assert(g_file_get_contents(path, &before, &before_bytes, NULL));
    check(0);
    ck_assert(g_file_get_contents(path, &after, &after_bytes, NULL));
    ck_assert_uint_eq(before_bytes, after_bytes);
    ck_assert_mem_eq(before, after, before_bytes);
}
END_TEST

static void add_tests(TCase *tcase)
{
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
}

int main(void)
{
    Suite *suite = suite_create("qcow2-check");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
