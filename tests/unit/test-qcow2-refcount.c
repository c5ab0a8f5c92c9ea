/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Single counts, refcount blocks and the refcount table.
 */
#include "qcow2-fixture.h"

typedef struct Call {
    Qcow2 *q;
    int64_t offset;
    int64_t bytes;
    int64_t delta;
} Call;

static int coroutine_fn change_entry(void *opaque)
{
    Call *call = opaque;
    int ret = qcow2_meta_lock(call->q);

    if (ret == 0) {
        ret = qcow2_refcount_change(call->q, call->offset, call->bytes,
                                    call->delta);
        qcow2_meta_unlock(call->q);
    }
    return ret;
}

static int change(BlockBackend *blk, int64_t offset, int64_t bytes,
                  int64_t delta)
{
    Call call = { .q = state_of(blk), .offset = offset, .bytes = bytes,
                  .delta = delta };

    return in_co(change_entry, &call);
}

static int coroutine_fn alloc_entry(void *opaque)
{
    Call *call = opaque;
    Qcow2Run got;
    int ret = qcow2_meta_lock(call->q);

    if (ret == 0) {
        ret = qcow2_alloc_clusters(call->q, call->bytes, true, &got);
        call->offset = got.offset;
        qcow2_meta_unlock(call->q);
    }
    return ret;
}

/* @n clusters in a row with count 1. */
static int64_t alloc(BlockBackend *blk, int64_t n)
{
    Call call = { .q = state_of(blk), .bytes = n };

    ck_assert_int_eq(in_co(alloc_entry, &call), 0);
    return call.offset;
}

/* --- widths --------------------------------------------------------------- */

START_TEST(r22_counts_of_every_width_hold_what_they_can)
{
    unsigned bits = 1 << _i;
    uint64_t max = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    g_autofree char *options = g_strdup_printf("refcount_bits=%u", bits);
    BlockBackend *blk;
    int64_t at;

    qemu_image(options, "1M");
    blk = open_image();
    at = alloc(blk, 20);
    for (int i = 0; i < 20; i++) {
        uint64_t count = MIN(max, (uint64_t)i % 5 + 1);

        if (count > 1) {
            ck_assert_int_eq(change(blk, at + i * 65536, 1, count - 1), 0);
        }
        ck_assert_uint_eq(count_of(blk, at + i * 65536), count);
    }
    close_backend(blk);
    /* qemu-img looks no further than the end of the file. */
    ck_assert_int_eq(run("cd %s && truncate -s 4M t.qcow2 && "
                         "qemu-img check -f qcow2 t.qcow2 >check.log 2>&1"),
                     3);
    for (int i = 0; i < 20; i++) {
        g_autofree char *line = g_strdup_printf(
            "cd %%s && grep -q 'Leaked cluster %d refcount=%u reference=0' "
            "check.log", (int)(at / 65536) + i,
            (unsigned)MIN(max, (uint64_t)i % 5 + 1));

        ck_assert_int_eq(run(line), 0);
    }
}
END_TEST

START_TEST(r130_a_count_that_would_not_fit_is_refused_and_undone)
{
    static const unsigned widths[] = { 1, 2, 4, 8, 16 };
    uint64_t max = (UINT64_C(1) << widths[_i]) - 1;
    g_autofree char *options = g_strdup_printf(
        "cluster_size=512,refcount_bits=%u", widths[_i]);
    BlockBackend *blk;
    int64_t at;

    qemu_image(options, "1M");
    blk = open_image();
    at = alloc(blk, 5000);
    /* The last one of several refcount blocks is full. */
    if (max > 1) {
        ck_assert_int_eq(change(blk, at + 4999 * 512, 512, max - 1), 0);
    }
    ck_assert_int_eq(change(blk, at, 5000 * 512, 1), -ERANGE);
    for (int i = 0; i < 4999; i++) {
        ck_assert_uint_eq(count_of(blk, at + i * 512), 1);
    }
    ck_assert_uint_eq(count_of(blk, at + 4999 * 512), max);
    ck_assert(!atomic_load(&state_of(blk)->corrupt));
    close_backend(blk);
}
END_TEST

START_TEST(a_count_below_zero_marks_the_image_corrupt)
{
    BlockBackend *blk;
    int64_t at;

    qemu_image("", "1M");
    blk = open_image();
    at = alloc(blk, 3);
    ck_assert_int_eq(change(blk, at, 4 * 65536, -1), -EINVAL);
    ck_assert_uint_eq(count_of(blk, at), 1);
    ck_assert(atomic_load(&state_of(blk)->corrupt));
    close_backend(blk);
}
END_TEST

START_TEST(ranges_count_every_cluster_that_they_touch)
{
    BlockBackend *blk;
    int64_t at;

    qemu_image("", "1M");
    blk = open_image();
    at = alloc(blk, 3);
    ck_assert_int_eq(change(blk, at + 65535, 2, 1), 0);
    ck_assert_uint_eq(count_of(blk, at), 2);
    ck_assert_uint_eq(count_of(blk, at + 65536), 2);
    ck_assert_uint_eq(count_of(blk, at + 2 * 65536), 1);
    close_backend(blk);
}
END_TEST

/* --- blocks and the table ------------------------------------------------- */

START_TEST(beyond_the_table_counts_are_zero)
{
    BlockBackend *blk;

    qemu_image("", "1M");
    blk = open_image();
    ck_assert_uint_eq(count_of(blk, INT64_C(1) << 50), 0);
    close_backend(blk);
}
END_TEST

START_TEST(the_table_grows_and_the_old_one_is_given_back)
{
    BlockBackend *blk;
    int64_t old_table;
    Qcow2 *q;

    /* A cluster of the table counts 64 * 64 clusters. */
    qemu_image("cluster_size=512,refcount_bits=64", "8M");
    blk = open_image();
    q = state_of(blk);
    old_table = q->reftable.offset;
    fill(blk, 0, 6 << 20, 'a');
    ck_assert_int_ne(q->reftable.offset, old_table);
    ck_assert_uint_eq(read64(QCOW2_H_REFTABLE_OFFSET), q->reftable.offset);
    expect_fill(blk, 0, 6 << 20, 'a');
    ck_assert_int_eq(blk_flush(blk), 0);
    fill(blk, 0, 512, 'b');
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
    expect_clean();
}
END_TEST

/* Fail the changes of the file one after the other while the table grows. */
START_TEST(r125_a_table_that_cannot_grow_stays_in_force)
{
    unsigned fail_at = 1;
    bool failed = true;

    while (failed) {
        BlockBackend *blk;

        qemu_image("cluster_size=512,refcount_bits=64", "8M");
        qemu_io("-c 'write -P 1 0 1500k'");
        blk = open_faulty("");
        faulty_set(FAULTY_CHANGES, fail_at, 1);
        for (int64_t at = 1500 << 10; at < 3 << 20; at += 64 << 10) {
            char buf[65536];

            memset(buf, 2, sizeof(buf));
            blk_pwrite(blk, at, sizeof(buf), buf, 0);
        }
        failed = faulty_has_failed();
        blk_flush(blk);
        close_backend(blk);
        expect_consistent();
        qemu_io("-c 'read -P 1 0 1500k'");
        fail_at += 1 + fail_at / 6;
    }
}
END_TEST

/*
 * A reopen clears the bit "dirty", which a failure may have left on the disk
 * either way: refcounts are not lazy any more, so that a flush is enough.
 */
START_TEST(a_flush_is_enough_though_marking_clean_has_failed)
{
    bool failed = true;

    for (unsigned fail_at = 1; failed; fail_at++) {
        g_autoptr(GError) error = NULL;
        BlockBackend *blk;

        qemu_image("lazy_refcounts=on", "1M");
        blk = open_faulty("");
        fill(blk, 0, 65536, 'a');
        ck_assert_int_eq(blk_flush(blk), 0);
        faulty_set(FAULTY_CHANGES, fail_at, 1);
        failed = bdrv_reopen(blk_bs(blk), block_options_parse_keyval(
                             "l2-cache-size=64k", NULL, NULL), &error) < 0;
        ck_assert(failed == faulty_has_failed());
        faulty_clear();
        fill(blk, 65536, 65536, 'b');
        ck_assert_int_eq(blk_flush(blk), 0);
        /* As after a power cut. */
        ck_assert_int_eq(run("cd %s && cp t.qcow2 cut"), 0);
        close_backend(blk);
        ck_assert_int_eq(run("cd %s && mv cut t.qcow2"), 0);
        if (!(read64(QCOW2_H_INCOMPATIBLE) & QCOW2_INCOMPAT_DIRTY)) {
            expect_consistent();
        }
    }
}
END_TEST

START_TEST(r61_counts_are_right_with_the_smallest_cache)
{
    BlockBackend *blk;

    qemu_image("cluster_size=512,refcount_bits=64", "8M");
    blk = file_backend("qcow2,node-name=q,discard=unmap,refcount-cache-size=1,"
                       "file.driver=file,file.filename=%s/t.qcow2");
    for (int round = 0; round < 3; round++) {
        fill(blk, 0, 4 << 20, 'a');
        /* Neighbours in the guest, spread over many refcount blocks. */
        for (int64_t i = 0; i < 512; i++) {
            ck_assert_int_eq(blk_pdiscard(blk, (i * 131 % 512) * 8192, 4096),
                             0);
        }
        ck_assert_int_eq(blk_flush(blk), 0);
    }
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(r5_clusters_beyond_the_last_refcount_block_stop_a_snapshot)
{
    BdrvSnapshotInfo info = { .name = (char *)"s", .icount = UINT64_MAX };
    BlockBackend *blk;
    GError *error = NULL;
    int64_t l2;

    qemu_image("cluster_size=512,refcount_bits=64", "1M");
    qemu_io("-c 'write 0 4k'");
    ck_assert_int_eq(run("truncate -s 4M %s/t.qcow2"), 0);
    l2 = read64(read64(QCOW2_H_L1_OFFSET)) & QCOW2_OFFSET_MASK;
    poke64(l2, (3 << 20) | QCOW2_OFLAG_COPIED);
    blk = open_image();
    ck_assert_int_lt(bdrv_snapshot_create(blk_bs(blk), &info, &error), 0);
    expect_error(&error, EIO, "could not count");
    ck_assert(atomic_load(&state_of(blk)->corrupt));
    close_backend(blk);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, r22_counts_of_every_width_hold_what_they_can,
                        0, 7);
    tcase_add_loop_test(tcase,
                        r130_a_count_that_would_not_fit_is_refused_and_undone,
                        0, 5);
    tcase_add_test(tcase, a_count_below_zero_marks_the_image_corrupt);
    tcase_add_test(tcase, ranges_count_every_cluster_that_they_touch);
    tcase_add_test(tcase, beyond_the_table_counts_are_zero);
    tcase_add_test(tcase, the_table_grows_and_the_old_one_is_given_back);
    tcase_add_test(tcase, r125_a_table_that_cannot_grow_stays_in_force);
    tcase_add_test(tcase,
                   a_flush_is_enough_though_marking_clean_has_failed);
    tcase_add_test(tcase, r61_counts_are_right_with_the_smallest_cache);
    tcase_add_test(tcase,
                   r5_clusters_beyond_the_last_refcount_block_stop_a_snapshot);
}

int main(void)
{
    return qemu_suite("qcow2-refcount", add_tests);
}
