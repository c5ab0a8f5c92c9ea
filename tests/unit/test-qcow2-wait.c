/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which requests wait for what, and into how many requests to the file they
 * turn.
 *
 * The image lies on the filter "gate": a test looks at what stands before it,
 * or takes the mutexes of the image and looks who comes through all the same.
 */
#include "gate-fixture.h"
#include "image-fixture.h"
#include "mem-driver.h"

#define CLUSTER 4096
#define DISK (4 << 20)
#define RUNNING_MAX 3

static BlockDriverState *disk, *base;
static BlockBackend *blk;

/* --- images --------------------------------------------------------------- */

static void open_image(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "qcow2,discard=unmap,%sfile.driver=gate,file.file=disk", more);

    blk = backend_of(open_ok(text));
}

static void make_disks(const char *create)
{
    g_autofree char *text = g_strdup_printf("qcow2,file=disk,size=%d,%s", DISK,
                                            create);
    g_autoptr(GError) error = NULL;

    disk = open_ok("mem,node-name=disk,size=0,discard=unmap");
    base = open_ok("mem,node-name=base,size=4M");
    memset(mem_disk(base)->data, 77, DISK);
    ck_assert_msg(bdrv_create(graph, opts(text), &error) == 0, "%s",
                  error ? error->message : "no error set");
    gate_parked = g_ptr_array_new();
}

static void drop_all(void)
{
    blk_unref(blk);
    bdrv_unref(base);
    bdrv_unref(disk);
    g_ptr_array_unref(gate_parked);
}

/* The tables of the image are on the disk, and not in the caches. */
static void reopen_image(void)
{
    blk_unref(blk);
    open_image("");
}

/* --- requests under way --------------------------------------------------- */

typedef struct Running {
    BlockIOVec1 iov;
    uint8_t buf[CLUSTER];
    bool done;
} Running;

static Running running[RUNNING_MAX];

static void running_done(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    ((Running *)opaque)->done = true;
}

/* Begin request number @i, a read ('r') or a write of byte @i + 1 ('w'); it
 * runs as far as it gets. */
static void start(unsigned i, char op, int64_t offset, int64_t bytes)
{
    Running *r = &running[i];
    BlockIOVec *iov = block_iov_buf(&r->iov, r->buf, bytes);

    r->done = false;
    memset(r->buf, op == 'w' ? (int)i + 1 : 0, sizeof(r->buf));
    if (op == 'w') {
        blk_aio_pwritev(blk, offset, iov, 0, running_done, r);
    } else {
        blk_aio_preadv(blk, offset, iov, 0, running_done, r);
    }
    settle();
}

/* What stands before the gate: a letter each. */
static void expect_parked(const char *ops)
{
    ck_assert_uint_eq(gate_parked->len, strlen(ops));
    for (unsigned i = 0; i < gate_parked->len; i++) {
        Parked *parked = g_ptr_array_index(gate_parked, i);

        ck_assert_int_eq(parked->op, ops[i]);
    }
}

static void let_go(unsigned i)
{
    gate_let_go(i);
    settle();
}

static void let_all_go(void)
{
    gate_shut = false;
    while (gate_parked->len > 0) {
        let_go(0);
    }
}

/* --- mutexes -------------------------------------------------------------- */

/* Somebody who has both mutexes of an image until he is told. */
typedef struct Holder {
    Qcow2 *q;
    Coroutine *co;
    bool has;
} Holder;

static void coroutine_fn hold_entry(void *opaque)
{
    Holder *h = opaque;

    co_mutex_lock(&h->q->writeback_lock);
    co_mutex_lock(&h->q->meta_lock);
    h->has = true;
    coroutine_yield();
    h->has = false;
    co_mutex_unlock(&h->q->meta_lock);
    co_mutex_unlock(&h->q->writeback_lock);
}

static void begin_hold(Holder *h)
{
    *h = (Holder){ .q = qcow2_of(blk_bs(blk)) };
    h->co = coroutine_create(hold_entry, h);
    aio_co_enter(block_graph_aio_context(graph), h->co);
}

static void end_hold(Holder *h)
{
    ck_assert(h->has);
    aio_co_wake(h->co);
    settle();
    ck_assert(!h->has);
}

/* --- who takes no mutex --------------------------------------------------- */

static const char *const layouts[] = {
    "cluster_size=4k", "cluster_size=16k,extended_l2=on",
};

START_TEST(reads_and_overwrites_that_are_cached_take_no_mutex)
{
    Holder h;

    make_disks(layouts[_i]);
    open_image("");
    fill(blk, 0, 64 << 10, 9);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 64 << 10, 64 << 10, 0), 0);
    begin_hold(&h);
    ck_assert(h.has);
    start(0, 'r', 512, CLUSTER);
    ck_assert(running[0].done);
    ck_assert_int_eq(running[0].buf[0], 9);
    start(0, 'r', 64 << 10, CLUSTER);   /* zeroes */
    ck_assert(running[0].done);
    start(0, 'r', 1 << 20, CLUSTER);    /* nothing */
    ck_assert(running[0].done);
    start(0, 'w', CLUSTER + 512, 1024); /* in place */
    ck_assert(running[0].done);
    start(1, 'w', 1 << 20, CLUSTER);    /* this one needs a cluster */
    ck_assert(!running[1].done);
    end_hold(&h);
    ck_assert(running[1].done);
    expect_fill(blk, CLUSTER + 512, 1024, 1);
    expect_fill(blk, 1 << 20, CLUSTER, 2);
    drop_all();
}
END_TEST

/* With 512 bytes a cluster an L2 table shows 32 KiB. */
START_TEST(slices_that_are_not_cached_are_loaded_in_parallel)
{
    Holder h;

    make_disks("cluster_size=512");
    open_image("");
    fill(blk, 0, CLUSTER, 7);
    fill(blk, 32 << 10, CLUSTER, 8);
    fill(blk, 64 << 10, CLUSTER, 9);
    reopen_image();
    fill(blk, 1 << 20, 512, 1); /* what the first write does is done */
    begin_hold(&h);
    gate_shut = true;
    start(0, 'r', 0, 512);
    start(1, 'r', 32 << 10, 512);
    start(2, 'w', 64 << 10, 512);
    expect_parked("rrr");
    let_go(1); /* one does not wait for another */
    expect_parked("rrr");
    let_go(2);
    ck_assert(running[1].done);
    expect_parked("rr");
    let_all_go();
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(running[i].done);
    }
    ck_assert_int_eq(running[0].buf[0], 7);
    ck_assert_int_eq(running[1].buf[0], 8);
    end_hold(&h);
    drop_all();
}
END_TEST

START_TEST(allocating_writes_load_their_slices_in_parallel)
{
    make_disks("cluster_size=512");
    open_image("");
    fill(blk, 0, 512, 7);
    fill(blk, 32 << 10, 512, 8);
    reopen_image();
    gate_shut = true;
    start(0, 'w', 1024, 512);
    start(1, 'w', (32 << 10) + 1024, 512);
    ck_assert_uint_eq(gate_parked->len, 2);
    let_all_go();
    expect_fill(blk, 1024, 512, 1);
    expect_fill(blk, (32 << 10) + 1024, 512, 2);
    drop_all();
}
END_TEST

/* --- allocating writes ---------------------------------------------------- */

START_TEST(allocating_writes_send_their_data_at_once_without_a_mutex)
{
    Holder h;

    make_disks(layouts[_i]);
    open_image("backing=base,");
    fill(blk, 1 << 20, CLUSTER, 9); /* tables are there, and cached */
    gate_shut = true;
    start(0, 'w', 0, 512);
    start(1, 'w', 64 << 10, 512);
    start(2, 'w', 128 << 10, CLUSTER);
    expect_parked("www");
    begin_hold(&h); /* nobody has them while data are written */
    ck_assert(h.has);
    end_hold(&h);
    let_go(1);
    ck_assert(!running[0].done && running[1].done && !running[2].done);
    let_all_go();
    ck_assert(running[0].done && running[2].done);
    expect_fill(blk, 0, 512, 1);
    expect_fill(blk, 512, CLUSTER - 512, 77);
    drop_all();
}
END_TEST

START_TEST(writes_to_a_new_cluster_wait_for_its_allocation_and_no_other)
{
    make_disks(layouts[_i]);
    open_image("");
    fill(blk, 1 << 20, CLUSTER, 9);
    gate_shut = true;
    start(0, 'w', 0, 512);
    start(1, 'w', 128 << 10, 512);
    expect_parked("ww");
    start(2, 'w', 2048, 512); /* the same cluster as the first */
    expect_parked("ww");
    let_go(0);
    ck_assert(running[0].done && !running[1].done);
    expect_parked("ww"); /* the second one, and now the third */
    let_go(1);
    ck_assert(!running[1].done && running[2].done);
    let_all_go();
    ck_assert(running[1].done);
    expect_fill(blk, 0, 512, 1);
    expect_fill(blk, 512, 1536, 0);
    expect_fill(blk, 2048, 512, 3);
    drop_all();
}
END_TEST

/* --- where old readers look ----------------------------------------------- */

/* They would see data before their write has ended, and who reads next the
 * zeroes again. */
START_TEST(what_was_made_zero_in_place_gets_data_when_old_readers_are_gone)
{
    static const char *const zeroed[][2] = {
        { "cluster_size=16k,extended_l2=on", "512" },   /* a subcluster */
        { "cluster_size=16k,extended_l2=on", "16384" }, /* all of them */
        { "cluster_size=4k,data_file=x,data-file=data", "4096" },
        { "cluster_size=4k,data_file=x,data-file=data,data_file_raw=on", "4096" },
    };
    int64_t bytes = g_ascii_strtoll(zeroed[_i][1], NULL, 10);
    BlockDriverState *data = open_ok("mem,node-name=data,size=0");

    make_disks(zeroed[_i][0]);
    blk = backend_of(open_ok(
        _i < 2 ? "qcow2,file.driver=gate,file.file=disk"
               : "qcow2,file=disk,data-file.driver=gate,data-file.file=data"));
    fill(blk, 0, 64 << 10, 9);
    gate_shut = true;
    start(0, 'r', 0, 512);
    expect_parked("r");
    gate_shut = false;
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, bytes, 0), 0);
    gate_shut = true;
    start(1, 'w', 0, 512);
    expect_parked("r");
    start(2, 'r', 0, 512); /* a reader that came later changes nothing */
    ck_assert(running[2].done && running[2].buf[0] == 0);
    let_go(0);
    ck_assert(running[0].done);
    ck_assert_int_eq(running[0].buf[0], _i == 3 ? 0 : 9); /* raw: zeroed */
    expect_parked("w");
    let_all_go();
    ck_assert(running[1].done);
    expect_fill(blk, 0, 512, 2);
    drop_all();
    bdrv_unref(data);
}
END_TEST

/* --- how many requests ---------------------------------------------------- */

typedef struct Counts {
    unsigned reads, writes, backing_reads;
} Counts;

static Counts counts_now(void)
{
    return (Counts){ .reads = mem_disk(disk)->count[MEM_READ],
                     .writes = mem_total(mem_disk(disk)) -
                               mem_disk(disk)->count[MEM_READ],
                     .backing_reads = mem_disk(base)->count[MEM_READ] };
}

START_TEST(head_data_and_tail_of_a_new_cluster_are_one_request)
{
    static const struct {
        int64_t offset, bytes;
        bool backed, shared;
        Counts more;
    } cases[] = {
        /* Head and tail of one cluster are read with what lies between. */
        { 1024, 512, true, false, { 0, 1, 1 } },
        { 1024, 512, false, true, { 1, 1, 0 } },
        /* Many clusters: head, data and tail are written as one. */
        { 1024, 5 * CLUSTER, true, false, { 0, 1, 2 } },
        { 1024, 5 * CLUSTER, false, true, { 2, 1, 0 } },
        /* Nothing shows below: only the guest's bytes. */
        { 1024, 512, false, false, { 0, 1, 0 } },
        { CLUSTER, 3 * CLUSTER, true, false, { 0, 1, 0 } },
        /* A head alone, and a tail alone. */
        { 1024, CLUSTER - 1024, true, false, { 0, 1, 1 } },
        { 0, CLUSTER + 512, true, false, { 0, 1, 1 } },
    };
    Counts before, after;

    make_disks("cluster_size=4k");
    open_image(cases[_i].backed ? "backing=base," : "");
    fill(blk, 1 << 20, CLUSTER, 9);
    if (cases[_i].shared) {
        fill(blk, 0, 64 << 10, 8);
        snapshot_ok(blk_bs(blk), "s");
        fill(blk, 1 << 20, CLUSTER, 9); /* the table is ours again */
    }
    before = counts_now();
    fill(blk, cases[_i].offset, cases[_i].bytes, 5);
    after = counts_now();
    ck_assert_uint_eq(after.reads - before.reads, cases[_i].more.reads);
    ck_assert_uint_eq(after.writes - before.writes, cases[_i].more.writes);
    ck_assert_uint_eq(after.backing_reads - before.backing_reads,
                      cases[_i].more.backing_reads);
    expect_fill(blk, cases[_i].offset, cases[_i].bytes, 5);
    drop_all();
}
END_TEST

START_TEST(a_read_of_neighbouring_clusters_is_one_request)
{
    Counts before, after;

    make_disks("cluster_size=4k");
    open_image("");
    fill(blk, 0, 1 << 20, 9);
    before = counts_now();
    expect_fill(blk, 512, (128 << 10) - 1024, 9);
    after = counts_now();
    ck_assert_uint_eq(after.reads - before.reads, 1);
    drop_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-wait");
    TCase *tcase = tcase_create("qcow2-wait");

    mem_register();
    register_gate_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_add_loop_test(
        tcase, reads_and_overwrites_that_are_cached_take_no_mutex, 0, 2);
    PROMISE(tcase, slices_that_are_not_cached_are_loaded_in_parallel);
    PROMISE(tcase, allocating_writes_load_their_slices_in_parallel);
    tcase_add_loop_test(
        tcase, allocating_writes_send_their_data_at_once_without_a_mutex, 0,
        2);
    tcase_add_loop_test(
        tcase, writes_to_a_new_cluster_wait_for_its_allocation_and_no_other,
        0, 2);
    tcase_add_loop_test(
        tcase, what_was_made_zero_in_place_gets_data_when_old_readers_are_gone,
        0, 4);
    tcase_add_loop_test(
        tcase, head_data_and_tail_of_a_new_cluster_are_one_request, 0, 8);
    PROMISE(tcase, a_read_of_neighbouring_clusters_is_one_request);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
