/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that meet in an image, in all orders.
 *
 * Below the image is the filter "gate"; a test begins actions of the guest and
 * lets requests to the file through one by one, each time in another order,
 * until there is no other order left.  Where there are very many a random
 * choice of them is taken; the seed is told on failure, QCOW2_SEED=n repeats
 * it.
 */
#include "gate-fixture.h"
#include "image-fixture.h"
#include "mem-driver.h"

#define SECTOR 512
#define CLUSTER 4096
#define DISK (16 * CLUSTER)
#define ACTIONS_MAX 12

/* --- orders --------------------------------------------------------------- */

#define CHOICES_MAX 200
#define ORDERS_MAX 150  /* so many one by one, then as many at random */
#define ORDERS_STATE 12 /* of each state to begin with */

/* What was chosen so far, and what comes next. */
static struct {
    unsigned nr, at;
    unsigned pick[CHOICES_MAX];
    unsigned of[CHOICES_MAX];
    GRand *rand; /* NULL: one order after the other */
    guint32 seed;
} order;

static unsigned choose(unsigned n)
{
    if (order.rand) {
        return g_rand_int_range(order.rand, 0, n);
    }
    if (n == 1) {
        return 0;
    }
    ck_assert_uint_lt(order.at, CHOICES_MAX);
    if (order.at == order.nr) {
        order.pick[order.nr] = 0;
        order.of[order.nr++] = n;
    }
    ck_assert_uint_eq(order.of[order.at], n); /* else it is not determined */
    return order.pick[order.at++];
}

/* Whether there is another order. */
static bool next_order(void)
{
    order.at = 0;
    while (order.nr > 0 && ++order.pick[order.nr - 1] ==
                               order.of[order.nr - 1]) {
        order.nr--;
    }
    return order.nr > 0;
}

/* --- scenes --------------------------------------------------------------- */

/* Something that a guest does. */
typedef struct Action {
    char op;      /* w z d c (compressed) r f; s: a snapshot; 0: no more */
    int sector;
    int sectors;
    uint8_t byte;
} Action;

typedef struct Scene {
    const char *create;
    const char *open;
    bool backed;
    bool threads;                 /* work for them: orders are random */
    unsigned orders;              /* at most; 0: ORDERS_MAX */
    bool crash;                   /* look at the disk after each request */
    Action before[ACTIONS_MAX];   /* one after the other */
    Action together[ACTIONS_MAX]; /* begun in this order; no two change the
                                   * same sector */
} Scene;

/* An action that is under way. */
typedef struct Running {
    BlockIOVec1 iov;
    uint8_t buf[DISK];
    const Action *action;
    int done; /* 1: ended well; negative: errno */
} Running;

static BlockDriverState *disk, *base;
static BlockBackend *blk;
static uint8_t old[DISK];  /* what the guest had written before */
static uint8_t want[DISK]; /* and is to have in the end */
static Running running[ACTIONS_MAX];

static void running_done(void *opaque, int ret)
{
    ((Running *)opaque)->done = ret < 0 ? ret : 1;
}

static void start(Running *r, const Action *action)
{
    int64_t offset = (int64_t)action->sector * SECTOR;
    int64_t bytes = (int64_t)action->sectors * SECTOR;
    BlockIOVec *iov = block_iov_buf(&r->iov, r->buf, bytes);

    r->action = action;
    r->done = 0;
    memset(r->buf, action->byte, bytes);
    switch (action->op) {
    case 'w':
    case 'c':
        blk_aio_pwritev(blk, offset, iov,
                        action->op == 'c' ? BDRV_REQ_WRITE_COMPRESSED : 0,
                        running_done, r);
        break;
    case 'z':
        blk_aio_pwrite_zeroes(blk, offset, bytes, BDRV_REQ_MAY_UNMAP,
                              running_done, r);
        break;
    case 'd':
        blk_aio_pdiscard(blk, offset, bytes, running_done, r);
        break;
    case 'r':
        blk_aio_preadv(blk, offset, iov, 0, running_done, r);
        break;
    case 'f':
        blk_aio_flush(blk, running_done, r);
        break;
    default:
        ck_abort();
    }
}

static void expect_action(uint8_t *bytes, const Action *action)
{
    int64_t offset = (int64_t)action->sector * SECTOR;

    if (strchr("wzcd", action->op)) {
        memset(bytes + offset, action->byte,
               (int64_t)action->sectors * SECTOR);
    }
}

/* One after the other, until each has ended. */
static void act(const Action *actions)
{
    for (const Action *a = actions; a->op; a++) {
        if (a->op == 's') {
            snapshot_ok(blk_bs(blk), "s");
            continue;
        }
        start(&running[0], a);
        while (!running[0].done) {
            aio_poll(block_graph_aio_context(graph), true);
        }
        ck_assert_int_eq(running[0].done, 1);
        expect_action(old, a);
    }
}

static BlockDriverState *open_scene(const Scene *scene, const char *file)
{
    g_autofree char *text = g_strdup_printf(
        "qcow2,discard=unmap,%s%s%s%s", scene->open ? scene->open : "",
        scene->open ? "," : "", scene->backed ? "backing=base," : "", file);

    return open_ok(text);
}

static void scene_begin(const Scene *scene)
{
    g_autofree char *create = g_strdup_printf(
        "qcow2,file=disk,size=%d,%s", DISK,
        scene->create ? scene->create : "cluster_size=4k");

    disk = open_ok("mem,node-name=disk,size=0,discard=unmap");
    base = open_ok("mem,node-name=base,size=52k");
    memset(old, 0, DISK);
    if (scene->backed) {
        memset(mem_disk(base)->data, 77, 52 << 10);
        memset(old, 77, 52 << 10);
    }
    ck_assert_int_eq(bdrv_create(graph, opts(create), NULL), 0);
    blk = backend_of(open_scene(scene, "file.driver=gate,file.file=disk"));
    gate_parked = g_ptr_array_new();
    act(scene->before);
    memcpy(want, old, DISK);
    for (const Action *a = scene->together; a->op; a++) {
        expect_action(want, a);
    }
}

static void check_leaks(BlockDriverState *bs, int64_t leaks_max)
{
    BdrvCheckResult result;
    g_autoptr(GError) error = NULL;
    BdrvCheck how = { 0 };

    ck_assert_int_eq(bdrv_check(bs, &how, &result, &error), 0);
    if (result.corruptions || result.check_errors ||
        result.leaks > leaks_max) {
        ck_abort_msg("seed %u: %ld corruptions, %ld leaks", order.seed,
                     (long)result.corruptions, (long)result.leaks);
    }
}

static void scene_end(void)
{
    static uint8_t buf[DISK];

    ck_assert_int_eq(blk_pread(blk, 0, DISK, buf, 0), 0);
    for (int64_t i = 0; i < DISK; i++) {
        if (buf[i] != want[i]) {
            ck_abort_msg("seed %u: byte %ld is %d, expected %d", order.seed,
                         (long)i, buf[i], want[i]);
        }
    }
    /* The second one for what the first one gives back. */
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    check_leaks(blk_bs(blk), 0);
    blk_unref(blk);
    bdrv_unref(base);
    bdrv_unref(disk);
    g_ptr_array_unref(gate_parked);
}

/* The image as the disk has it now: sound, and each byte is old or new. */
static void look_at_crash(const Scene *scene)
{
    int64_t bytes = mem_disk(disk)->length;
    g_autofree char *text = g_strdup_printf("mem,node-name=crash,size=%ld",
                                            (long)bytes);
    BlockDriverState *copy = open_ok(text), *image;
    BlockBackend *reader;
    static uint8_t buf[DISK];

    memcpy(mem_disk(copy)->data, mem_disk(disk)->data, bytes);
    image = open_scene(scene, "read-only=on,file=crash");
    check_leaks(image, INT64_MAX);
    reader = backend_ok("reader", image, BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL);
    ck_assert_int_eq(blk_pread(reader, 0, DISK, buf, 0), 0);
    for (int64_t i = 0; i < DISK; i++) {
        if (buf[i] != want[i] && buf[i] != old[i]) {
            ck_abort_msg("seed %u: byte %ld is %d after a crash, expected %d "
                         "or %d", order.seed, (long)i, buf[i], old[i],
                         want[i]);
        }
    }
    blk_unref(reader);
    bdrv_unref(image);
    bdrv_unref(copy);
}

static bool all_done(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!running[i].done) {
            return false;
        }
    }
    return true;
}

static void expect_read(const Running *r)
{
    const Action *a = r->action;

    ck_assert_int_eq(r->done, 1);
    for (int i = 0; a->op == 'r' && i < a->sectors * SECTOR; i++) {
        int64_t at = (int64_t)a->sector * SECTOR + i;

        if (r->buf[i] != old[at] && r->buf[i] != want[at]) {
            ck_abort_msg("seed %u: byte %ld is read as %d, not %d or %d",
                         order.seed, (long)at, r->buf[i], old[at], want[at]);
        }
    }
}

/* All actions, with requests to the file in one order. */
static void run_once(const Scene *scene)
{
    const Action *next = scene->together;
    unsigned n = 0;

    scene_begin(scene);
    gate_shut = true;
    while (next->op || gate_parked->len > 0 || !all_done(n)) {
        unsigned parked = gate_parked->len, i;

        if (!next->op && parked == 0) {
            /* A thread has work to do, or it hangs: the test times out. */
            aio_poll(block_graph_aio_context(graph), true);
            continue;
        }
        /* The first order begins everything at once. */
        i = choose(parked + (next->op != 0));
        if (next->op && i == 0) {
            start(&running[n++], next++);
        } else {
            gate_let_go(i - (next->op != 0));
        }
        settle();
        if (scene->crash) {
            gate_shut = false;
            look_at_crash(scene);
            gate_shut = true;
        }
    }
    gate_shut = false;
    for (unsigned i = 0; i < n; i++) {
        expect_read(&running[i]);
    }
    scene_end();
}

static void explore_randomly(const Scene *scene, unsigned runs)
{
    const char *given = g_getenv("QCOW2_SEED");

    order.seed = given ? (guint32)g_ascii_strtoull(given, NULL, 10)
                       : g_random_int();
    for (; runs > 0; runs--, order.seed++) {
        order.rand = g_rand_new_with_seed(order.seed);
        run_once(scene);
        g_rand_free(order.rand);
    }
}

static void explore(const Scene *scene)
{
    unsigned max = scene->orders ? scene->orders : ORDERS_MAX;
    unsigned n = 0;

    memset(&order, 0, sizeof(order));
    while (!scene->threads && n < max) {
        run_once(scene);
        n++;
        if (!next_order()) {
            return;
        }
    }
    explore_randomly(scene, max);
}

/* @scene from each of the states that a cluster may be in: its first @nr
 * clusters are those that the scene is about. */
static void explore_from_all_states(Scene scene, int nr)
{
    int n = nr * 8;
    const Action states[][4] = {
        { { 0 } },
        { { 'w', 0, n, 11 } },
        { { 'z', 0, n, 0 } },
        { { 'w', 0, n, 12 }, { 's' } },
        { { 'c', 0, n, 13 } },
        { { 'w', 0, n, 14 }, { 'f' }, { 'd', 0, n, 0 } },
        { { 'w', 4, 8, 15 }, { 'w', 20, 3, 16 } },
    };

    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(states); i++) {
        memset(scene.before, 0, sizeof(scene.before));
        memcpy(scene.before, states[i / 2], sizeof(states[0]));
        scene.before[3] = (Action){ 'f' };
        for (unsigned k = 0; k < 3; k++) {
            if (!scene.before[k].op) {
                scene.before[k] = (Action){ 'f' };
            }
        }
        scene.orders = ORDERS_STATE;
        scene.backed = i % 2;
        scene.threads = states[i / 2][0].op == 'c';
        explore(&scene);
    }
}

/* --- allocating writes ---------------------------------------------------- */

/* One cluster is eight sectors. */

START_TEST(R55_writes_to_parts_of_the_same_cluster_all_arrive)
{
    explore_from_all_states((Scene){
        .together = { { 'w', 1, 1, 1 }, { 'w', 5, 2, 2 }, { 'w', 7, 1, 3 } },
    }, 1);
}
END_TEST

START_TEST(R55_writes_to_neighbouring_clusters_all_arrive)
{
    explore_from_all_states((Scene){
        .together = { { 'w', 6, 4, 1 }, { 'w', 11, 8, 2 }, { 'w', 0, 2, 3 } },
    }, 3);
}
END_TEST

START_TEST(R55_writes_to_subclusters_of_the_same_cluster_all_arrive)
{
    /* 32 sectors a cluster, one a subcluster. */
    explore_from_all_states((Scene){
        .create = "cluster_size=16k,extended_l2=on",
        .together = { { 'w', 1, 2, 1 }, { 'w', 9, 1, 2 }, { 'w', 30, 5, 3 },
                      { 'z', 12, 4, 0 } },
    }, 8);
}
END_TEST

START_TEST(zeroes_next_to_writes_undo_nothing)
{
    explore_from_all_states((Scene){
        .together = { { 'w', 1, 6, 1 }, { 'z', 8, 8, 0 }, { 'w', 18, 2, 3 },
                      { 'z', 20, 4, 0 } },
    }, 3);
}
END_TEST

START_TEST(discards_next_to_writes_undo_nothing)
{
    explore_from_all_states((Scene){
        .together = { { 'w', 1, 6, 1 }, { 'd', 8, 8, 0 }, { 'w', 18, 2, 3 },
                      { 'r', 20, 2, 0 } },
    }, 3);
}
END_TEST

START_TEST(compressed_writes_next_to_others_undo_nothing)
{
    Scene scene = {
        .threads = true,
        .before = { { 'c', 0, 32, 9 }, { 'f' } },
        .together = { { 'c', 0, 8, 1 }, { 'w', 9, 2, 2 }, { 'c', 16, 8, 3 },
                      { 'd', 24, 8, 0 }, { 'c', 40, 8, 4 }, { 'f' } },
    };

    explore(&scene);
}
END_TEST

/* --- clusters that are used again ----------------------------------------- */

START_TEST(R124_a_discard_that_is_late_hits_no_new_data)
{
    Scene scene = {
        .before = { { 'w', 0, 16, 9 }, { 'f' } },
        .together = { { 'd', 0, 16, 0 }, { 'f' }, { 'w', 32, 8, 1 },
                      { 'f' }, { 'w', 48, 3, 2 } },
    };

    gate_discards = 0;
    explore(&scene);
    ck_assert_uint_gt(gate_discards, 0);
}
END_TEST

START_TEST(R124_a_cluster_is_not_used_again_before_its_discard_has_ended)
{
    Scene scene = {
        .before = { { 'w', 0, 8, 9 }, { 'w', 8, 8, 8 }, { 'f' },
                    { 'd', 0, 8, 0 } },
        .together = { { 'f' }, { 'w', 32, 8, 1 }, { 'w', 40, 8, 2 },
                      { 'd', 8, 8, 0 }, { 'r', 16, 8, 0 } },
    };

    gate_discards = 0;
    explore(&scene);
    ck_assert_uint_gt(gate_discards, 0);
}
END_TEST

START_TEST(a_read_never_sees_what_a_cluster_is_used_for_next)
{
    static const Scene scenes[] = {
        { .before = { { 'w', 0, 8, 9 }, { 'f' } },
          .together = { { 'r', 0, 8, 0 }, { 'd', 0, 8, 0 }, { 'f' },
                        { 'w', 32, 8, 1 } } },
        { .before = { { 'w', 0, 16, 9 }, { 'f' } },
          .together = { { 'r', 4, 8, 0 }, { 'z', 0, 16, 0 }, { 'f' },
                        { 'w', 32, 8, 1 }, { 'r', 8, 8, 0 } } },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(scenes); i++) {
        explore(&scenes[i]);
    }
}
END_TEST

/* --- flushes -------------------------------------------------------------- */

START_TEST(R133_after_a_crash_each_cluster_holds_old_or_new_data)
{
    static const Scene scenes[] = {
        { .crash = true,
          .together = { { 'w', 1, 4, 1 }, { 'f' }, { 'w', 16, 8, 2 } } },
        { .crash = true, .backed = true,
          .before = { { 'w', 0, 16, 9 }, { 'f' } },
          .together = { { 'd', 0, 8, 0 }, { 'f' }, { 'w', 20, 8, 2 },
                        { 'w', 9, 2, 3 }, { 'f' } } },
        { .crash = true,
          .before = { { 'w', 0, 8, 9 }, { 'f' }, { 'w', 24, 8, 5 },
                      { 'f' } },
          .together = { { 'w', 48, 8, 3 }, { 'f' }, { 'd', 0, 8, 0 },
                        { 'w', 32, 8, 1 } } },
        { .crash = true, .create = "cluster_size=512",
          .before = { { 'w', 0, 5, 9 }, { 's' }, { 'f' } },
          .together = { { 'w', 2, 4, 0 }, { 'f' }, { 'z', 0, 1, 0 },
                        { 'w', 64, 2, 3 }, { 'f' } } },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(scenes); i++) {
        explore(&scenes[i]);
    }
}
END_TEST

START_TEST(R134_flushes_and_allocations_do_not_wait_for_each_other_forever)
{
    static const Scene scenes[] = {
        { .together = { { 'f' }, { 'w', 1, 2, 1 }, { 'f' }, { 'w', 4, 2, 2 },
                        { 'f' }, { 'w', 64, 20, 3 } } },
        { .create = "cluster_size=512", .open = "l2-cache-size=1,"
          "l2-cache-entry-size=512,refcount-cache-size=1", .backed = true,
          .together = { { 'w', 0, 2, 1 }, { 'f' }, { 'w', 64, 2, 2 },
                        { 'd', 3, 4, 0 }, { 'z', 70, 3, 0 }, { 'f' } } },
        { .create = "cluster_size=512", .open = "l2-cache-size=1,"
          "l2-cache-entry-size=512,refcount-cache-size=1",
          .before = { { 'w', 0, 128, 5 }, { 's' }, { 'f' } },
          .together = { { 'w', 3, 2, 1 }, { 'w', 66, 2, 2 }, { 'f' },
                        { 'r', 20, 40, 0 }, { 'd', 100, 4, 0 }, { 'f' } } },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(scenes); i++) {
        explore(&scenes[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-race");
    TCase *tcase = tcase_create("qcow2-race");

    mem_register();
    register_pass_driver();
    register_gate_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, R55_writes_to_parts_of_the_same_cluster_all_arrive);
    PROMISE(tcase, R55_writes_to_neighbouring_clusters_all_arrive);
    PROMISE(tcase, R55_writes_to_subclusters_of_the_same_cluster_all_arrive);
    PROMISE(tcase, zeroes_next_to_writes_undo_nothing);
    PROMISE(tcase, discards_next_to_writes_undo_nothing);
    PROMISE(tcase, compressed_writes_next_to_others_undo_nothing);
    PROMISE(tcase, R124_a_discard_that_is_late_hits_no_new_data);
    PROMISE(tcase,
            R124_a_cluster_is_not_used_again_before_its_discard_has_ended);
    PROMISE(tcase, a_read_never_sees_what_a_cluster_is_used_for_next);
    PROMISE(tcase, R133_after_a_crash_each_cluster_holds_old_or_new_data);
    PROMISE(tcase,
            R134_flushes_and_allocations_do_not_wait_for_each_other_forever);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
