/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One image, several I/O threads.
 *
 * Each worker is a coroutine with sectors of its own, most of them in clusters
 * that it shares with the others.  It knows what it wrote there and looks
 * whether that is what it reads.  The main thread takes memory from the caches
 * and makes and deletes snapshots meanwhile.
 */
#include "image-fixture.h"

#include "block/graph/table-memory.h"

#define THREADS 3
#define WORKERS 12
#define SECTOR 512
#define CLUSTER 16384 /* or less */
#define SHARED_SECTORS (16 * CLUSTER / SECTOR)
#define SHARED_BYTES (SHARED_SECTORS * SECTOR)
#define OWN_BYTES (6 * CLUSTER)
#define STRIDE_MAX (2 << 20) /* of a slice of its own each, of 4 KiB */
#define DISK (SHARED_BYTES + WORKERS * STRIDE_MAX)

typedef struct Worker {
    int id;
    GRand *rand;
    uint8_t shared[SHARED_SECTORS]; /* byte in each sector; its own only */
    uint8_t own[OWN_BYTES];
    uint8_t buf[OWN_BYTES];
    char failed[200];               /* what went wrong first */
} Worker;

static BlockBackend *blk;
static Worker workers[WORKERS];
static int steps_each;
static int64_t stride = OWN_BYTES; /* from one's own bytes to the next one's */
static bool squeeze;               /* memory for caches comes and goes */
static _Atomic int nr_left;

#define EXPECT(w, condition)                                                  \
    if (!(condition) && !(w)->failed[0])                                      \
    g_strlcpy((w)->failed, #condition, sizeof((w)->failed))

/* --- what workers do ------------------------------------------------------ */

static int64_t below(Worker *w, int end)
{
    return g_rand_int_range(w->rand, 0, end);
}

static int64_t own_sector(Worker *w)
{
    int64_t sector = below(w, SHARED_SECTORS / WORKERS) * WORKERS + w->id;

    return MIN(sector, SHARED_SECTORS - 1 - (SHARED_SECTORS - 1 - w->id) %
                                                WORKERS);
}

static void coroutine_fn write_shared(Worker *w)
{
    int64_t sector = own_sector(w);
    uint8_t byte = 1 + below(w, 255);

    memset(w->buf, byte, SECTOR);
    EXPECT(w, blk_co_pwrite(blk, sector * SECTOR, SECTOR, w->buf, 0) == 0);
    w->shared[sector] = byte;
}

static void coroutine_fn read_shared(Worker *w)
{
    int64_t sector = own_sector(w);

    EXPECT(w, blk_co_pread(blk, sector * SECTOR, SECTOR, w->buf, 0) == 0);
    for (int i = 0; i < SECTOR; i++) {
        EXPECT(w, w->buf[i] == w->shared[sector]);
    }
}

static int64_t own_offset(const Worker *w)
{
    return SHARED_BYTES + w->id * stride;
}

static void coroutine_fn change_own(Worker *w)
{
    int64_t first = below(w, OWN_BYTES / SECTOR) * SECTOR;
    int64_t bytes = below(w, OWN_BYTES / SECTOR + 1) * SECTOR;

    bytes = MIN(bytes, OWN_BYTES - first);
    memset(w->own + first, 1 + below(w, 255), bytes);
    EXPECT(w, blk_co_pwrite(blk, own_offset(w) + first, bytes, w->own + first,
                            0) == 0);
}

static void coroutine_fn clear_own(Worker *w)
{
    int64_t first = below(w, OWN_BYTES / CLUSTER) * CLUSTER;
    int64_t bytes = (1 + below(w, 3)) * CLUSTER;

    bytes = MIN(bytes, OWN_BYTES - first);
    memset(w->own + first, 0, bytes);
    if (below(w, 2)) {
        EXPECT(w, blk_co_pdiscard(blk, own_offset(w) + first, bytes) == 0);
    } else {
        EXPECT(w, blk_co_pwrite_zeroes(blk, own_offset(w) + first, bytes,
                                       below(w, 2) ? BDRV_REQ_MAY_UNMAP
                                                   : 0) == 0);
    }
}

static void coroutine_fn compress_own(Worker *w)
{
    int64_t first = below(w, OWN_BYTES / CLUSTER) * CLUSTER;

    memset(w->own + first, 1 + below(w, 255), CLUSTER);
    EXPECT(w, blk_co_pwrite(blk, own_offset(w) + first, CLUSTER,
                            w->own + first, BDRV_REQ_WRITE_COMPRESSED) == 0);
}

static void coroutine_fn read_own(Worker *w)
{
    EXPECT(w, blk_co_pread(blk, own_offset(w), OWN_BYTES, w->buf, 0) == 0);
    EXPECT(w, memcmp(w->buf, w->own, OWN_BYTES) == 0);
}

/* Over the whole disk; what it says of one's own clusters must be true. */
static void coroutine_fn ask_status(Worker *w)
{
    int64_t own = own_offset(w);

    for (int64_t at = 0; at < DISK;) {
        BlockExtent extent = { 0 };
        int64_t from, to;

        EXPECT(w, blk_co_block_status(blk, at, DISK - at, &extent) == 0);
        EXPECT(w, extent.bytes > 0);
        if (w->failed[0]) {
            return;
        }
        from = MAX(at, own);
        to = MIN(at + extent.bytes, own + OWN_BYTES);
        for (; extent.status & BDRV_BLOCK_ZERO && from < to; from++) {
            EXPECT(w, w->own[from - own] == 0);
        }
        at += extent.bytes;
    }
}

static void coroutine_fn flush(Worker *w)
{
    EXPECT(w, blk_co_flush(blk) == 0);
}

static void coroutine_fn worker_entry(void *opaque)
{
    static void (*const steps[])(Worker *w) = {
        write_shared, write_shared, write_shared, write_shared, read_shared,
        read_shared, change_own, change_own, clear_own, clear_own,
        compress_own, read_own, read_own, ask_status, flush,
    };
    Worker *w = opaque;

    for (int i = 0; i < steps_each && !w->failed[0]; i++) {
        steps[below(w, G_N_ELEMENTS(steps))](w);
    }
    atomic_fetch_sub(&nr_left, 1);
}

/* --- the crowd ------------------------------------------------------------ */

static void take_and_make_snapshot(int round)
{
    g_autoptr(GError) error = NULL;
    int ret = round % 2
                  ? bdrv_snapshot_delete(blk_bs(blk), NULL, "s", &error)
                  : bdrv_snapshot_create(blk_bs(blk),
                                         &(BdrvSnapshotInfo){ .name = "s" },
                                         &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
}

/* What there is for caches is less than they have, or there is much; tables
 * that need little get it in any case. */
static void squeeze_caches(Qcow2 *q)
{
    const TableAccount *account = bdrv_table_account(q->bs);

    switch (g_random_int_range(0, 5)) {
    case 0:
        table_memory_set_max(table_memory_of_node(account) * 5 / 4 + 65536,
                             0);
        break;
    case 1:
        table_memory_set_max(0, table_memory_of_process() * 5 / 4 + 65536);
        break;
    case 2:
        qcow2_cache_shrink(q->l2_cache, 65536);
        break;
    default:
        table_memory_set_max(0, 0);
    }
}

/* What a control command asks of a node that others write. */
static void look_on(BlockDriverState *bs)
{
    g_autoptr(BlockOptions) specific = NULL;
    BlockDriverInfo info;

    ck_assert_int_eq(bdrv_get_info(bs, &info), 0);
    ck_assert_int_eq(bdrv_get_specific_info(bs, &specific, NULL), 0);
    ck_assert_int_eq(bdrv_length(bs), DISK);
    ck_assert_int_le(bdrv_highest_write(bs), DISK);
}

static void crowd_run(guint32 seed, bool snapshots)
{
    AioContext *ctx = block_graph_aio_context(graph);
    IOThread *threads[THREADS];
    int turn = 0, round = 0;

    for (int i = 0; i < THREADS; i++) {
        threads[i] = iothread_new("crowd", AIO_ENGINE_AUTO, NULL);
        ck_assert_ptr_nonnull(threads[i]);
    }
    atomic_store(&nr_left, WORKERS);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].id = i;
        workers[i].rand = g_rand_new_with_seed(seed + i);
        aio_co_enter(iothread_get_aio_context(threads[i % THREADS]),
                     coroutine_create(worker_entry, &workers[i]));
    }
    while (atomic_load(&nr_left) > 0) {
        Qcow2 *q = bdrv_opaque(blk_bs(blk));

        aio_poll(ctx, false);
        if (squeeze) {
            squeeze_caches(q);
        }
        if (++turn % 64 == 0) {
            qcow2_cache_clean_unused(q->l2_cache);
            qcow2_cache_clean_unused(q->refcount_cache);
            look_on(q->bs);
        }
        if (snapshots && turn % 4096 == 0) {
            table_memory_set_max(0, 0);
            take_and_make_snapshot(round++);
        }
    }
    table_memory_set_max(0, 0);
    if (round % 2) {
        take_and_make_snapshot(round);
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_free(threads[i]);
    }
}

static void expect_all(guint32 seed)
{
    for (int i = 0; i < WORKERS; i++) {
        Worker *w = &workers[i];

        ck_assert_msg(!w->failed[0], "seed %u, worker %d: %s", seed, i,
                      w->failed);
        ck_assert_int_eq(blk_pread(blk, own_offset(w), OWN_BYTES, w->buf, 0),
                         0);
        ck_assert_mem_eq(w->buf, w->own, OWN_BYTES);
        for (int s = i; s < SHARED_SECTORS; s += WORKERS) {
            expect_fill(blk, s * SECTOR, SECTOR, w->shared[s]);
        }
        g_rand_free(w->rand);
    }
}

static void crowd(const char *create, const char *open, int steps,
                  bool snapshots)
{
    g_autofree char *options = g_strdup_printf("size=%d,%s", DISK, create);
    const char *given = g_getenv("QCOW2_SEED");
    guint32 seed = given ? (guint32)g_ascii_strtoull(given, NULL, 10)
                         : g_random_int();

    memset(workers, 0, sizeof(workers));
    steps_each = steps;
    make_image_ok("a", options);
    blk = image_backend("a", open);
    crowd_run(seed, snapshots);
    check_sound(blk);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q -f qcow2", "a"));
    blk = image_backend("a", NULL);
    expect_all(seed);
    close_backend(blk);
}

/* --- promises ------------------------------------------------------------- */

START_TEST(R123_threads_that_share_clusters_lose_nothing)
{
    crowd("cluster_size=4k", "qcow2,discard=unmap", 200, false);
}
END_TEST

START_TEST(R57_a_small_cache_serves_block_status_of_many_threads)
{
    crowd("cluster_size=4k", "qcow2,discard=unmap,l2-cache-size=1,"
          "l2-cache-entry-size=512,refcount-cache-size=1", 200, false);
}
END_TEST

START_TEST(R123_snapshots_that_come_and_go_beside_threads_lose_nothing)
{
    crowd("cluster_size=4k,lazy_refcounts=on", "qcow2,discard=unmap", 150,
          true);
}
END_TEST

START_TEST(threads_that_share_subclusters_lose_nothing)
{
    crowd("cluster_size=16k,extended_l2=on", "qcow2,discard=unmap", 100,
          false);
}
END_TEST

START_TEST(threads_lose_nothing_while_memory_comes_and_goes)
{
    stride = STRIDE_MAX;
    squeeze = true;
    crowd("cluster_size=4k,refcount_bits=64", "qcow2,discard=unmap", 300, _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-threads");
    TCase *tcase = tcase_create("qcow2-threads");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, R123_threads_that_share_clusters_lose_nothing);
    PROMISE(tcase, R57_a_small_cache_serves_block_status_of_many_threads);
    PROMISE(tcase,
            R123_snapshots_that_come_and_go_beside_threads_lose_nothing);
    tcase_add_loop_test(
        tcase, threads_lose_nothing_while_memory_comes_and_goes, 0, 2);
    PROMISE(tcase, threads_that_share_subclusters_lose_nothing);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
