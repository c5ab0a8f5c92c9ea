/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Free clusters.  "No cluster has two owners" is checked by keeping what was
 * handed out, and by qemu-img check where counts are left behind.
 */
#include "qcow2-fixture.h"

/* --- calls under the meta lock -------------------------------------------- */

typedef struct Call {
    Qcow2 *q;
    int64_t n;
    bool exact;
    int64_t at;        /* 0: anywhere */
    Qcow2Run run;
} Call;

static int coroutine_fn alloc_entry(void *opaque)
{
    Call *call = opaque;
    int ret = qcow2_meta_lock(call->q);

    if (ret < 0) {
        return ret;
    }
    ret = call->at ? qcow2_alloc_clusters_at(call->q, call->at, call->n,
                                             &call->run)
                   : qcow2_alloc_clusters(call->q, call->n, call->exact,
                                          &call->run);
    qcow2_meta_unlock(call->q);
    return ret;
}

static int try_alloc(BlockBackend *blk, int64_t n, bool exact, Qcow2Run *ret)
{
    Call call = { .q = state_of(blk), .n = n, .exact = exact };
    int status = in_co(alloc_entry, &call);

    *ret = call.run;
    return status;
}

static Qcow2Run alloc(BlockBackend *blk, int64_t n, bool exact)
{
    Qcow2Run result;

    ck_assert_int_eq(try_alloc(blk, n, exact, &result), 0);
    return result;
}

static int coroutine_fn unalloc_entry(void *opaque)
{
    Call *call = opaque;
    int ret = qcow2_meta_lock(call->q);

    ck_assert_int_eq(ret, 0);
    qcow2_unalloc(call->q, call->run.offset, call->run.bytes);
    qcow2_meta_unlock(call->q);
    return 0;
}

static void unalloc(BlockBackend *blk, Qcow2Run run_)
{
    Call call = { .q = state_of(blk), .run = run_ };

    in_co(unalloc_entry, &call);
}

static int coroutine_fn bytes_entry(void *opaque)
{
    Call *call = opaque;
    int ret = qcow2_meta_lock(call->q);

    ck_assert_int_eq(ret, 0);
    ret = qcow2_alloc_bytes(call->q, call->n, &call->at);
    qcow2_meta_unlock(call->q);
    return ret;
}

static int64_t alloc_bytes(BlockBackend *blk, int64_t bytes)
{
    Call call = { .q = state_of(blk), .n = bytes };

    ck_assert_int_eq(in_co(bytes_entry, &call), 0);
    return call.at;
}

static void expect_metadata_free(BlockBackend *blk, Qcow2Run run_)
{
    int64_t at;

    ck_assert_uint_eq(qcow2_metamap_find(state_of(blk), ~0u, run_.offset,
                                         run_.bytes, &at), 0);
}

/* --- searching ------------------------------------------------------------ */

/* Tiny clusters and wide counts: blocks and tables are made all the time. */
static const char *const tiny[] = {
    "cluster_size=512,refcount_bits=1", "cluster_size=512,refcount_bits=2",
    "cluster_size=512,refcount_bits=4", "cluster_size=512,refcount_bits=8",
    "cluster_size=512,refcount_bits=16", "cluster_size=512,refcount_bits=32",
    "cluster_size=512,refcount_bits=64",
};

START_TEST(r16_r56_no_cluster_is_handed_out_twice)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    BlockBackend *blk;

    qemu_image(tiny[_i], "1M");
    blk = open_image();
    for (unsigned i = 0; i < 6000; i++) {
        Qcow2Run got = alloc(blk, 1 + i % 3, i % 5 == 0);

        expect_metadata_free(blk, got);
        for (int64_t at = got.offset; at < got.offset + got.bytes; at += 512) {
            ck_assert(g_hash_table_add(seen, GINT_TO_POINTER(at / 512)));
            ck_assert_int_eq(count_of(blk, at), 1);
        }
    }
    close_backend(blk);
    /* All of it leaks; nothing else is wrong. */
    ck_assert_int_eq(run("cd %s && qemu-img check -q -f qcow2 t.qcow2 "
                         ">/dev/null 2>&1"), 3);
}
END_TEST

START_TEST(r16_a_full_file_is_an_error_and_no_more)
{
    BlockBackend *blk;
    Qcow2Run got;
    unsigned i;
    int ret = 0;

    qemu_image(tiny[_i], "1M");
    ck_assert_int_eq(run("truncate -s 2M %s/t.qcow2"), 0);
    blk = file_backend("qcow2,node-name=q,file.driver=raw,file.size=2M,"
                       "file.file.driver=file,file.file.filename=%s/t.qcow2");
    for (i = 0; i < 100000 && ret == 0; i++) {
        ret = try_alloc(blk, 1, true, &got);
    }
    ck_assert_int_eq(ret, -ENOSPC);
    ck_assert_int_eq(try_alloc(blk, 1, true, &got), -ENOSPC);
    close_backend(blk);
    expect_consistent();
}
END_TEST

START_TEST(long_runs_pass_the_ends_of_refcount_blocks)
{
    BlockBackend *blk;
    Qcow2Run first, second;

    qemu_image(tiny[_i], "1M");
    blk = open_image();
    first = alloc(blk, 1000, true);
    second = alloc(blk, 9000, true);
    ck_assert_int_eq(first.bytes, 1000 * 512);
    ck_assert_int_eq(second.bytes, 9000 * 512);
    ck_assert(second.offset >= first.offset + first.bytes ||
              second.offset + second.bytes <= first.offset);
    expect_metadata_free(blk, first);
    expect_metadata_free(blk, second);
    close_backend(blk);
    expect_consistent();
}
END_TEST

START_TEST(the_first_free_cluster_is_taken)
{
    BlockBackend *blk;
    Qcow2Run a, b, c;

    qemu_image("", "1M");
    blk = open_image();
    a = alloc(blk, 1, true);
    b = alloc(blk, 1, true);
    c = alloc(blk, 1, true);
    ck_assert_int_eq(b.offset, a.offset + a.bytes);
    unalloc(blk, a);
    unalloc(blk, c);
    ck_assert_int_eq(alloc(blk, 2, true).offset, c.offset);
    ck_assert_int_eq(alloc(blk, 2, false).offset, a.offset);
    close_backend(blk);
}
END_TEST

START_TEST(clusters_behind_the_end_of_the_file_are_fresh_once)
{
    BlockBackend *blk;
    Qcow2Run a;

    qemu_image("", "1M");
    blk = open_image();
    do {
        a = alloc(blk, 1, true);
    } while (a.offset < file_length("t.qcow2"));
    ck_assert(a.fresh);
    unalloc(blk, a);
    ck_assert_int_eq(alloc(blk, 1, true).offset, a.offset);
    unalloc(blk, a);
    a = alloc(blk, 1, true);
    ck_assert(!a.fresh); /* somebody may have written to it */
    close_backend(blk);
}
END_TEST

START_TEST(a_place_that_was_asked_for_is_given_if_it_is_free)
{
    Call call = { .n = 10 };
    BlockBackend *blk;
    Qcow2Run a, b;

    qemu_image("", "1M");
    blk = open_image();
    call.q = state_of(blk);
    a = alloc(blk, 4, true);
    call.at = a.offset;
    ck_assert_int_eq(in_co(alloc_entry, &call), 0);
    ck_assert_int_eq(call.run.bytes, 0);
    b = (Qcow2Run){ .offset = a.offset + 65536, .bytes = 2 * 65536 };
    unalloc(blk, b);
    call.at = b.offset;
    ck_assert_int_eq(in_co(alloc_entry, &call), 0);
    ck_assert_int_eq(call.run.offset, b.offset);
    ck_assert_int_eq(call.run.bytes, b.bytes);
    close_backend(blk);
}
END_TEST

/* --- images that lie ------------------------------------------------------ */

/* The count of cluster number _i, which holds metadata, is 0. */
START_TEST(r10_a_count_of_0_on_metadata_stops_writes)
{
    static const uint8_t zero[2];
    BlockBackend *blk;
    Qcow2Run got;

    qemu_image("", "1M");
    qemu_io("-c 'write 0 64k'");
    poke(read64(read64(QCOW2_H_REFTABLE_OFFSET)) + _i * 2, zero, 2);
    blk = open_image();
    ck_assert_int_eq(try_alloc(blk, 1, true, &got), -EIO);
    ck_assert(atomic_load(&state_of(blk)->corrupt));
    ck_assert_int_eq(blk_pwrite(blk, 512 * 1024, 5, "hello", 0), -EIO);
    close_backend(blk);
    ck_assert(read64(QCOW2_H_INCOMPATIBLE) & QCOW2_INCOMPAT_CORRUPT);
}
END_TEST

START_TEST(r10_no_refcount_block_for_metadata_stops_writes)
{
    BlockBackend *blk;
    Qcow2Run got;

    qemu_image("", "1M");
    poke64(read64(QCOW2_H_REFTABLE_OFFSET), 0);
    blk = open_image();
    ck_assert_int_eq(try_alloc(blk, 1, true, &got), -EIO);
    close_backend(blk);
}
END_TEST

START_TEST(r11_a_bad_refcount_table_entry_is_an_error)
{
    static const uint64_t bad[] = { 1, 511, 512, UINT64_C(1) << 40,
                                    UINT64_MAX, UINT64_C(1) << 63 };
    BlockBackend *blk;
    Qcow2Run got;

    qemu_image("", "1M");
    poke64(read64(QCOW2_H_REFTABLE_OFFSET), bad[_i]);
    blk = open_image();
    ck_assert_int_eq(try_alloc(blk, 1, true, &got), -EIO);
    close_backend(blk);
}
END_TEST

/* --- compressed data ------------------------------------------------------ */

START_TEST(compressed_data_share_clusters)
{
    BlockBackend *blk;
    int64_t a, b, c;

    qemu_image("cluster_size=4k", "1M");
    blk = open_image();
    a = alloc_bytes(blk, 1000);
    b = alloc_bytes(blk, 3000);
    c = alloc_bytes(blk, 1000); /* 96 bytes here, the rest in the next */
    ck_assert_int_eq(b, a + 1000);
    ck_assert_int_eq(c, b + 3000);
    ck_assert_int_eq(count_of(blk, a), 3);
    ck_assert_int_eq(count_of(blk, a + 4096), 1);
    close_backend(blk);
}
END_TEST

START_TEST(r130_compressed_data_go_elsewhere_when_a_count_is_full)
{
    BlockBackend *blk;
    int64_t a, b;

    qemu_image("cluster_size=4k,refcount_bits=1", "1M");
    blk = open_image();
    a = alloc_bytes(blk, 1000);
    b = alloc_bytes(blk, 1000);
    ck_assert_int_ne(a / 4096, b / 4096);
    ck_assert_int_eq(count_of(blk, a), 1);
    close_backend(blk);
}
END_TEST

/* Text that shrinks to about a third, another one each time. */
static void write_compressed(BlockBackend *blk, int64_t offset, unsigned seed)
{
    g_autofree char *buf = g_malloc(4096);
    GRand *rand = g_rand_new_with_seed(seed);

    for (unsigned i = 0; i < 4096; i++) {
        buf[i] = i % 3 ? 'x' : g_rand_int_range(rand, 0, 256);
    }
    g_rand_free(rand);
    ck_assert_int_eq(blk_pwrite(blk, offset, 4096, buf,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
}

START_TEST(r130_rewriting_compressed_clusters_leaks_nothing)
{
    static const char *const options[] = {
        "cluster_size=4k", "cluster_size=4k,refcount_bits=1",
        "cluster_size=4k,refcount_bits=2",
    };
    BlockBackend *blk;

    qemu_image(options[_i], "1M");
    blk = open_image();
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 32; i++) {
            write_compressed(blk, (i * 7 % 32) * 4096, round * 100 + i);
        }
    }
    fill(blk, 0, 64 * 1024, 'x');
    close_backend(blk);
    expect_clean();
}
END_TEST

/* --- use over time -------------------------------------------------------- */

START_TEST(r129_what_is_given_up_is_used_again)
{
    BlockBackend *blk;

    qemu_image("cluster_size=4k", "4M");
    blk = file_backend("qcow2,node-name=q,discard=unmap,file.driver=file,"
                       "file.filename=%s/t.qcow2");
    for (unsigned round = 0; round < 64; round++) {
        int64_t at = (round * 37 % 3) << 20;

        fill(blk, at, 1 << 20, 'a' + round % 26);
        ck_assert_int_eq(blk_pdiscard(blk, at, 1 << 20), 0);
        if (round % 4 == 0) {
            ck_assert_int_eq(blk_flush(blk), 0);
        }
    }
    close_backend(blk);
    /* A MiB in use, what waits for a flush, and tables. */
    ck_assert_int_le(file_length("t.qcow2"), 8 << 20);
    expect_clean();
}
END_TEST

/* Each sector of the first 128 KiB of the guest is old or new. */
static void expect_old_or_new(void)
{
    BlockBackend *blk = open_image();
    g_autofree char *buf = g_malloc(128 * 1024);

    ck_assert_int_eq(blk_pread(blk, 0, 128 * 1024, buf, 0), 0);
    for (int i = 0; i < 256; i++) {
        char old = i < 128 ? 1 : 0;
        const char *sector = buf + i * 512;

        ck_assert_msg(sector[0] == old || sector[0] == 2, "sector %d", i);
        ck_assert(memcmp(sector, sector + 1, 511) == 0);
    }
    close_backend(blk);
}

/*
 * Whatever single change of the file fails, no live cluster becomes free: the
 * image has no errors afterwards, and the guest sees old or new data.
 */
START_TEST(r125_a_failure_never_frees_a_live_cluster)
{
    unsigned fail_at = 0;
    bool failed = true;

    while (failed) {
        BlockBackend *blk;

        qemu_image("cluster_size=512,refcount_bits=64", "256k");
        qemu_io("-c 'write -P 1 0 64k'");
        ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2"), 0);
        blk = open_faulty("");
        faulty_set(FAULTY_CHANGES, fail_at + 1, 2);
        for (unsigned i = 0; i < 32; i++) {
            int64_t at = i * 4096;
            char buf[4096];

            memset(buf, 2, sizeof(buf));
            blk_pwrite(blk, at, sizeof(buf), buf, 0);
            if (i % 8 == 7) {
                blk_flush(blk);
            }
        }
        failed = faulty_has_failed();
        close_backend(blk);
        expect_consistent();
        expect_old_or_new();
        ck_assert_int_eq(run("cd %s && qemu-img snapshot -a s t.qcow2"), 0);
        qemu_io("-c 'read -P 1 0 64k' -c 'read -P 0 64k 64k'");
        fail_at += 1 + fail_at / 4;
    }
}
END_TEST

static void add_tests(TCase *tcase)
{
    size_t nr = G_N_ELEMENTS(tiny);

    tcase_add_loop_test(tcase, r16_r56_no_cluster_is_handed_out_twice, 0, nr);
    tcase_add_loop_test(tcase, r16_a_full_file_is_an_error_and_no_more, 0, nr);
    tcase_add_loop_test(tcase, long_runs_pass_the_ends_of_refcount_blocks, 0,
                        nr);
    tcase_add_test(tcase, the_first_free_cluster_is_taken);
    tcase_add_test(tcase, clusters_behind_the_end_of_the_file_are_fresh_once);
    tcase_add_test(tcase, a_place_that_was_asked_for_is_given_if_it_is_free);
    tcase_add_loop_test(tcase, r10_a_count_of_0_on_metadata_stops_writes, 0,
                        5);
    tcase_add_test(tcase, r10_no_refcount_block_for_metadata_stops_writes);
    tcase_add_loop_test(tcase, r11_a_bad_refcount_table_entry_is_an_error, 0,
                        6);
    tcase_add_test(tcase, compressed_data_share_clusters);
    tcase_add_test(tcase,
                   r130_compressed_data_go_elsewhere_when_a_count_is_full);
    tcase_add_loop_test(tcase,
                        r130_rewriting_compressed_clusters_leaks_nothing, 0,
                        3);
    tcase_add_test(tcase, r129_what_is_given_up_is_used_again);
    tcase_add_test(tcase, r125_a_failure_never_frees_a_live_cluster);
}

int main(void)
{
    return qemu_suite("qcow2-alloc", add_tests);
}
