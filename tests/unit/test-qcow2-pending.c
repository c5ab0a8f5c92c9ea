/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clusters that are given up: when they can be used again, and not before.
 */
#include "qcow2-fixture.h"

#define CLUSTER 65536

static int coroutine_fn hint_entry(void *opaque)
{
    Qcow2 *q = opaque;
    Qcow2Run got;
    int ret;

    co_mutex_lock(&q->meta_lock);
    ret = qcow2_alloc_clusters(q, 1, true, &got);
    if (ret == 0) {
        qcow2_unalloc(q, got.offset, got.bytes);
    }
    co_mutex_unlock(&q->meta_lock);
    return ret < 0 ? ret : (int)(got.offset / CLUSTER);
}

/* The number of the first free cluster. */
static int first_free(BlockBackend *blk)
{
    int number = in_co(hint_entry, state_of(blk));

    ck_assert_int_gt(number, 0);
    return number;
}

/* Where the guest's cluster at @offset lies, by number. */
static int host_of(BlockBackend *blk, int64_t offset)
{
    BlockExtent extent = { 0 };

    ck_assert_int_eq(blk_block_status(blk, offset, CLUSTER, &extent), 0);
    ck_assert(extent.status & BDRV_BLOCK_OFFSET_VALID);
    return extent.map / CLUSTER;
}

static BlockBackend *open_small(void)
{
    qemu_image("", "4M");
    return open_faulty(",discard=unmap");
}

static void poll_until(const unsigned *counter)
{
    while (*counter == 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

/* --- steps ---------------------------------------------------------------- */

START_TEST(a_cluster_is_free_after_the_flush_not_before)
{
    BlockBackend *blk;
    int host;

    blk = open_small();
    fill(blk, 0, CLUSTER, 'a');
    fill(blk, CLUSTER, CLUSTER, 'b');
    ck_assert_int_eq(blk_flush(blk), 0);
    host = host_of(blk, 0);
    ck_assert_int_eq(blk_pdiscard(blk, 0, CLUSTER), 0);
    ck_assert_int_ne(first_free(blk), host);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(first_free(blk), host);
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(a_failed_flush_keeps_clusters_for_the_next_one)
{
    BlockBackend *blk;
    int host;

    blk = open_small();
    fill(blk, 0, CLUSTER, 'a');
    ck_assert_int_eq(blk_flush(blk), 0);
    host = host_of(blk, 0);
    ck_assert_int_eq(blk_pdiscard(blk, 0, CLUSTER), 0);
    faulty_set(FAULTY_CHANGES, 1, UINT_MAX);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    ck_assert_int_ne(first_free(blk), host);
    faulty_clear();
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(first_free(blk), host);
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(a_request_that_may_use_a_cluster_keeps_it)
{
    BlockBackend *blk;
    unsigned ticket;
    int host;

    blk = open_small();
    fill(blk, 0, CLUSTER, 'a');
    ck_assert_int_eq(blk_flush(blk), 0);
    host = host_of(blk, 0);
    ticket = qcow2_access_begin(state_of(blk));
    ck_assert_int_eq(blk_pdiscard(blk, 0, CLUSTER), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_ne(first_free(blk), host);
    qcow2_access_end(state_of(blk), ticket);
    fill(blk, CLUSTER, CLUSTER, 'b'); /* or there is nothing to flush */
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(first_free(blk), host);
    close_backend(blk);
    expect_clean();
}
END_TEST

/* --- discards ------------------------------------------------------------- */

static void flushed(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    ++*(unsigned *)opaque;
}

START_TEST(r124_a_cluster_is_not_used_again_while_its_discard_runs)
{
    BlockBackend *blk;
    unsigned done = 0;
    int host;

    blk = open_small();
    fill(blk, 0, CLUSTER, 'a');
    ck_assert_int_eq(blk_flush(blk), 0);
    host = host_of(blk, 0);
    ck_assert_int_eq(blk_pdiscard(blk, 0, CLUSTER), 0);
    faulty.hold_discards = true;
    blk_aio_flush(blk, flushed, &done);
    poll_until(&faulty.nr_held);
    ck_assert_int_eq(faulty.last_discard, (int64_t)host * CLUSTER);

    /* The discard is under way: others write, and read what they wrote. */
    ck_assert_int_ne(first_free(blk), host);
    for (int i = 1; i < 20; i++) {
        fill(blk, i * CLUSTER, CLUSTER, 'A' + i);
        ck_assert_int_ne(host_of(blk, i * CLUSTER), host);
    }
    faulty.hold_discards = false;
    co_queue_restart_all(&faulty.held);
    poll_until(&done);
    ck_assert_int_eq(first_free(blk), host);
    for (int i = 1; i < 20; i++) {
        expect_fill(blk, i * CLUSTER, CLUSTER, 'A' + i);
    }
    close_backend(blk);
    expect_clean();
}
END_TEST

/* Clusters are given up by a discard of the guest, ... */
static void give_up_by_request(BlockBackend *blk)
{
    ck_assert_int_eq(blk_pdiscard(blk, 0, 4 * CLUSTER), 0);
}

/* ... because a snapshot goes that alone had them, ... */
static void give_up_by_snapshot(BlockBackend *blk)
{
    g_autoptr(GError) error = NULL;

    snapshot_ok(blk_bs(blk), "s");
    fill(blk, 0, 4 * CLUSTER, 'b');
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(faulty.discards, 0);
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), NULL, "s", &error), 0);
}

/* ... or because compressed data take their place. */
static void give_up_by_write(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(4 * CLUSTER);

    ck_assert_int_eq(blk_pwrite(blk, 0, 4 * CLUSTER, buf,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
}

START_TEST(discards_pass_as_the_options_say)
{
    static const struct {
        const char *options;
        void (*give_up)(BlockBackend *blk);
        bool passes;
    } cases[] = {
        { ",discard=unmap", give_up_by_request, true },
        { ",discard=unmap,pass-discard-request=off", give_up_by_request,
          false },
        { ",pass-discard-request=on,discard=unmap", give_up_by_request, true },
        { ",discard=unmap", give_up_by_snapshot, true },
        { ",discard=unmap,pass-discard-snapshot=off", give_up_by_snapshot,
          false },
        { ",discard=unmap,pass-discard-request=off", give_up_by_snapshot,
          true },
        { ",discard=unmap", give_up_by_write, false },
        { ",discard=unmap,pass-discard-other=on", give_up_by_write, true },
    };
    BlockBackend *blk;

    qemu_image("", "4M");
    blk = open_faulty(cases[_i].options);
    fill(blk, 0, 4 * CLUSTER, 'a');
    ck_assert_int_eq(blk_flush(blk), 0);
    faulty.discards = 0;
    faulty.discarded_bytes = 0;
    cases[_i].give_up(blk);
    ck_assert_int_eq(blk_flush(blk), 0);
    if (cases[_i].passes) {
        ck_assert_int_ge(faulty.discarded_bytes, 4 * CLUSTER);
    } else {
        ck_assert_uint_eq(faulty.discards, 0);
    }
    if (cases[_i].passes && cases[_i].give_up == give_up_by_request) {
        ck_assert_uint_eq(faulty.discards, 1); /* neighbours go in one */
    }
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(what_a_snapshot_has_is_not_discarded)
{
    BlockBackend *blk;

    qemu_image("", "4M");
    qemu_io("-c 'write -P 7 0 256k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2"), 0);
    blk = open_faulty(",discard=unmap");
    ck_assert_int_eq(blk_pdiscard(blk, 0, 2 * CLUSTER), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(faulty.discards, 0);
    close_backend(blk);
    expect_clean();
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -a s t.qcow2"), 0);
    qemu_io("-c 'read -P 7 0 256k'");
}
END_TEST

/* --- how much waits ------------------------------------------------------- */

START_TEST(r129_much_that_waits_asks_for_write_back)
{
    BlockBackend *blk;
    Qcow2 *q;

    qemu_image("", "64M");
    blk = open_faulty(",discard=unmap");
    q = state_of(blk);
    fill(blk, 0, 32 << 20, 'a');
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(blk_pdiscard(blk, 0, 32 << 20), 0);
        fill(blk, 0, 32 << 20, 'b');
        ck_assert_int_le(q->pending_bytes, 64 << 20);
    }
    close_backend(blk);
    ck_assert_int_le(file_length("t.qcow2"), 80 << 20);
    expect_clean();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, a_cluster_is_free_after_the_flush_not_before);
    tcase_add_test(tcase, a_failed_flush_keeps_clusters_for_the_next_one);
    tcase_add_test(tcase, a_request_that_may_use_a_cluster_keeps_it);
    tcase_add_test(tcase,
                   r124_a_cluster_is_not_used_again_while_its_discard_runs);
    tcase_add_loop_test(tcase, discards_pass_as_the_options_say, 0, 8);
    tcase_add_test(tcase, what_a_snapshot_has_is_not_discarded);
    tcase_add_test(tcase, r129_much_that_waits_asks_for_write_back);
}

int main(void)
{
    return qemu_suite("qcow2-pending", add_tests);
}
