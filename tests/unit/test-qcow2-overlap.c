/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The overlap check: what is metadata, what a write may hit.
 */
#include "qcow2-fixture.h"

#define CLUSTER 65536

typedef struct Call {
    Qcow2 *q;
    unsigned ign;
    int64_t offset;
    int64_t bytes;
} Call;

static int coroutine_fn check_entry(void *opaque)
{
    Call *call = opaque;

    return qcow2_check_overlap(call->q, call->ign, call->offset, call->bytes,
                               true);
}

static int hit(BlockBackend *blk, unsigned ign, int64_t offset, int64_t bytes)
{
    Call call = { .q = state_of(blk), .ign = ign, .offset = offset,
                  .bytes = bytes };
    int ret = in_co(check_entry, &call);

    atomic_store(&call.q->corrupt, false); /* for the next one */
    return ret;
}

/* An image with one of everything that has a kind; its node. */
static BlockBackend *open_full(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "qcow2,node-name=q%s,file.driver=file,file.filename=%%s/t.qcow2",
        more);

    qemu_image("", "4M");
    qemu_io("-c 'write 0 128k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2 && "
                         "qemu-img bitmap --add t.qcow2 b"), 0);
    qemu_io("-c 'write 0 64k'");
    return file_backend(text);
}

/* Where one of that kind lies. */
static int64_t place_of(const Qcow2 *q, unsigned kind)
{
    const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, 0);

    switch (kind) {
    case QCOW2_OL_MAIN_HEADER:
        return 0;
    case QCOW2_OL_ACTIVE_L1:
        return q->header.l1_offset;
    case QCOW2_OL_ACTIVE_L2:
        return read64(q->header.l1_offset) & QCOW2_OFFSET_MASK;
    case QCOW2_OL_REFCOUNT_BLOCK:
        return q->reftable.entry[0];
    case QCOW2_OL_REFCOUNT_TABLE:
        return q->reftable.offset;
    case QCOW2_OL_SNAPSHOT_TABLE:
        return q->header.snapshots_offset;
    case QCOW2_OL_INACTIVE_L1:
        return untrusted_verbatim(s->l1_offset);
    case QCOW2_OL_INACTIVE_L2:
        return read64(untrusted_verbatim(s->l1_offset)) & QCOW2_OFFSET_MASK;
    case QCOW2_OL_BITMAP_DIRECTORY:
    default:
        return q->header.bitmap_dir_offset;
    }
}

START_TEST(every_kind_is_guarded_and_can_be_let_through)
{
    unsigned kind = 1u << _i;
    BlockBackend *blk;
    int64_t at;

    blk = open_full(",overlap-check=all");
    at = place_of(state_of(blk), kind);
    ck_assert_int_eq(hit(blk, 0, at, 512), -EIO);
    ck_assert_int_eq(hit(blk, 0, at + CLUSTER - 1, 1), -EIO);
    ck_assert_int_eq(hit(blk, 0, MAX(at - CLUSTER, 0), 3 * CLUSTER), -EIO);
    ck_assert_int_eq(hit(blk, kind, at, 512), 0);
    close_backend(blk);
}
END_TEST

START_TEST(the_template_says_what_is_guarded)
{
    static const struct {
        const char *options;
        unsigned kinds;
    } cases[] = {
        { ",overlap-check=none", 0 },
        { ",overlap-check=constant", QCOW2_OL_CONSTANT },
        { ",overlap-check=cached", QCOW2_OL_CACHED },
        { "", QCOW2_OL_CACHED },
        { ",overlap-check=all", QCOW2_OL_ALL },
    };
    BlockBackend *blk;

    blk = open_full(cases[_i].options);
    for (unsigned kind = 1; kind < QCOW2_OL_ALL; kind <<= 1) {
        int64_t at = place_of(state_of(blk), kind);

        ck_assert_int_eq(hit(blk, 0, at, 512),
                         cases[_i].kinds & kind ? -EIO : 0);
    }
    close_backend(blk);
}
END_TEST

/* That the tables of snapshots are read may fail; then all is as before. */
START_TEST(a_reopen_can_guard_more)
{
    BlockBackend *blk = open_full("");
    Qcow2 *q = state_of(blk);
    int64_t at = place_of(q, QCOW2_OL_INACTIVE_L2);
    Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, 0);
    Untrusted l1_offset = s->l1_offset;

    s->l1_offset = untrusted(UINT64_C(1) << 40);
    reopen_fails(blk_bs(blk), "overlap-check=all", EINVAL, "L1 table");
    s->l1_offset = l1_offset;
    ck_assert_uint_eq(q->options.overlap_check, QCOW2_OL_CACHED);
    ck_assert_int_eq(hit(blk, 0, at, 512), 0);
    reopen_ok(blk_bs(blk), "overlap-check=all");
    ck_assert_int_eq(hit(blk, 0, at, 512), -EIO);
    reopen_ok(blk_bs(blk), "overlap-check=cached");
    ck_assert_int_eq(hit(blk, 0, at, 512), 0);
    close_backend(blk);
    expect_clean();
}
END_TEST

/* An image whose snapshot "t" has tables of its own, which become data when it
 * is gone, and another one. */
static char *make_two_snapshots(gsize *ret_bytes)
{
    BlockBackend *blk;

    make_image_ok("a", "size=4M,cluster_size=4k");
    blk = image_backend("a", NULL);
    fill(blk, 0, 65536, 1);
    snapshot_ok(blk_bs(blk), "s");
    fill(blk, 0, 65536, 2);
    fill(blk, 2 << 20, 65536, 2);
    snapshot_ok(blk_bs(blk), "t");
    fill(blk, 0, 65536, 3);
    fill(blk, 2 << 20, 65536, 3);
    close_backend(blk);
    return slurp("a", ret_bytes);
}

/* Whatever could not be read for the new map: what is free is not guarded. */
START_TEST(a_snapshot_that_is_gone_guards_nothing)
{
    gsize bytes;
    g_autofree char *image = make_two_snapshots(&bytes);
    bool failed = true;

    for (int n = 1; failed; n++) {
        BlockDriverState *bs;
        BlockBackend *blk;
        int ret;

        unslurp("a", image, bytes);
        bs = bdrv_open(graph, faulty_options("a", "overlap-check=all"), NULL);
        ck_assert_ptr_nonnull(bs);
        blk = backend_of(bs);
        faulty_set(FAULTY_READS, n, 1);
        ret = bdrv_snapshot_delete(bs, NULL, "t", NULL);
        failed = faulty_has_failed();
        faulty_clear();
        if (ret == 0) {
            fill(blk, 0, 4 << 20, 4);
            expect_fill(blk, 0, 4 << 20, 4);
            ck_assert_int_eq(blk_flush(blk), 0);
        }
        ck_assert_int_eq(check_of(bs).corruptions, 0);
        close_backend(blk);
    }
}
END_TEST

START_TEST(data_may_be_written)
{
    BlockBackend *blk;

    blk = open_full(",overlap-check=all");
    fill(blk, 0, 4 << 20, 'x');
    expect_fill(blk, 0, 4 << 20, 'x');
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(a_write_to_an_entry_that_names_metadata_marks_the_image)
{
    BlockBackend *blk;
    int64_t l2;

    qemu_image("", "4M");
    qemu_io("-c 'write 0 64k'");
    l2 = read64(read64(QCOW2_H_L1_OFFSET)) & QCOW2_OFFSET_MASK;
    poke64(l2, read64(QCOW2_H_L1_OFFSET) | QCOW2_OFLAG_COPIED);
    blk = open_image();
    ck_assert_int_eq(blk_pwrite(blk, 0, 5, "hello", 0), -EIO);
    ck_assert_int_eq(blk_pwrite(blk, 1 << 20, 5, "hello", 0), -EIO);
    close_backend(blk);
    ck_assert(read64(QCOW2_H_INCOMPATIBLE) & QCOW2_INCOMPAT_CORRUPT);
}
END_TEST

/* Add and remove at random; a plain array knows what must be there. */
START_TEST(the_map_knows_what_was_added_and_not_removed)
{
    static uint16_t model[4096];
    GRand *rand = g_rand_new_with_seed(_i);
    BlockBackend *blk;
    Qcow2 *q;

    qemu_image("", "1M");
    blk = open_image();
    q = state_of(blk);
    for (int i = 0; i < 40000; i++) {
        int at = g_rand_int_range(rand, 1000, 4096);
        int n = g_rand_int_range(rand, 1, 5);
        unsigned kind = g_rand_boolean(rand) ? QCOW2_OL_ACTIVE_L2
                                             : QCOW2_OL_REFCOUNT_BLOCK;
        bool add = g_rand_boolean(rand);

        n = MIN(n, 4096 - at);
        for (int k = at; k < at + n; k++) {
            model[k] = add ? model[k] | kind : model[k] & ~kind;
        }
        if (add) {
            qcow2_metamap_add(q, kind, (int64_t)at * CLUSTER,
                              (int64_t)n * CLUSTER);
        } else {
            qcow2_metamap_remove(q, kind, (int64_t)at * CLUSTER,
                                 (int64_t)n * CLUSTER);
        }
    }
    for (int k = 1000; k < 4096; k++) {
        int64_t at;

        ck_assert_uint_eq(qcow2_metamap_find(q, ~0u, (int64_t)k * CLUSTER, 1,
                                             &at), model[k]);
    }
    for (int k = 1000; k < 4096; k++) {
        int64_t at = -1;
        int first = k;
        unsigned found = qcow2_metamap_find(q, ~0u, (int64_t)k * CLUSTER,
                                            INT64_C(1) << 40, &at);

        while (first < 4096 && !model[first]) {
            first++;
        }
        ck_assert(found ? at == (int64_t)first * CLUSTER : first == 4096);
    }
    g_rand_free(rand);
    close_backend(blk);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, every_kind_is_guarded_and_can_be_let_through,
                        0, 9);
    tcase_add_loop_test(tcase, the_template_says_what_is_guarded, 0, 5);
    tcase_add_test(tcase, a_reopen_can_guard_more);
    tcase_add_test(tcase, a_snapshot_that_is_gone_guards_nothing);
    tcase_add_test(tcase, data_may_be_written);
    tcase_add_test(tcase,
                   a_write_to_an_entry_that_names_metadata_marks_the_image);
    tcase_add_loop_test(tcase, the_map_knows_what_was_added_and_not_removed,
                        0, 3);
}

int main(void)
{
    register_faulty_driver();
    return qemu_suite("qcow2-overlap", add_tests);
}
