/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drain: inside a section no request is in the graph above the node; before
 * and after it none is lost.
 */
#include "drain-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define ALL BLK_PERM_ALL

static BlockDriverState *disk;
static BlockBackend *blk;
static MemDisk *mem;

static void setup(void)
{
    graph_setup();
    disk = open_ok("mem,node-name=disk,size=64k");
    blk = backend_ok("guest", disk, READ | WRITE, ALL);
    mem = mem_disk(disk);
}

static void teardown(void)
{
    blk_unref(blk);
    bdrv_unref(disk);
    graph_teardown();
}

/* One request with a callback. */
typedef struct Request {
    BlockIOVec1 iov;
    char buf[512];
    _Atomic int done; /* 1: ended well; negative: errno */
} Request;

static void request_done(void *opaque, int ret)
{
    Request *r = opaque;

    atomic_store(&r->done, ret < 0 ? ret : 1);
}

static void request_write(Request *r, BlockBackend *to, int64_t offset)
{
    r->done = 0;
    blk_aio_pwritev(to, offset, block_iov_buf(&r->iov, r->buf, 512), 0,
                    request_done, r);
}

START_TEST(a_section_begins_only_when_the_requests_in_flight_have_ended)
{
    Request r;
    Section s;

    mem->hold[MEM_WRITE] = true;
    request_write(&r, blk, 0);
    section_start(&s, disk);
    settle();
    ck_assert(!s.begun);
    ck_assert_int_eq(r.done, 0);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert(s.begun);
    ck_assert_int_eq(r.done, 1); /* its callback has been called, too */
    bdrv_drained_end(disk);
}
END_TEST

START_TEST(a_request_sent_in_a_section_waits_for_its_end)
{
    Request r;

    bdrv_drained_begin(disk);
    request_write(&r, blk, 0);
    settle();
    ck_assert_int_eq(r.done, 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 0);
    ck_assert_int_eq(blk_in_flight(blk), 0);
    bdrv_drained_end(disk);
    settle();
    ck_assert_int_eq(r.done, 1);
}
END_TEST

START_TEST(sections_nest_and_overlap)
{
    BlockDriverState *top = open_ok("pass,node-name=top,file=disk");
    BlockBackend *upper = backend_ok("upper", top, READ | WRITE, ALL);
    Request r, u;

    bdrv_drained_begin(disk);
    bdrv_drained_begin(top);
    bdrv_drained_begin(disk);
    request_write(&r, blk, 0);
    request_write(&u, upper, 0);
    bdrv_drained_end(disk);
    bdrv_drained_end(disk);
    settle();
    ck_assert_int_eq(r.done, 1); /* no section of disk is left ... */
    ck_assert_int_eq(u.done, 0); /* ... but one of top is */
    bdrv_drained_end(top);
    settle();
    ck_assert_int_eq(u.done, 1);
    blk_unref(upper);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_resumed_request_does_not_slip_into_the_next_section)
{
    Request r;
    Section s;

    for (int i = 0; i < 20; i++) {
        bdrv_drained_begin(disk);
        request_write(&r, blk, 0);
        settle();
        mem->hold[MEM_WRITE] = true;
        /* End and begin with nothing in between: the request is on its way. */
        bdrv_drained_end(disk);
        section_start(&s, disk);
        settle();
        ck_assert(!s.begun);
        ck_assert_int_eq(r.done, 0);
        mem->hold[MEM_WRITE] = false;
        settle();
        ck_assert(s.begun);
        ck_assert_int_eq(r.done, 1);
        bdrv_drained_end(disk);
    }
}
END_TEST

START_TEST(a_section_leaves_other_disks_alone)
{
    BlockDriverState *other = open_ok("mem,size=64k");
    BlockBackend *other_blk = backend_ok("other", other, READ | WRITE, ALL);
    Request r;

    bdrv_drained_begin(disk);
    request_write(&r, other_blk, 0);
    settle();
    ck_assert_int_eq(r.done, 1);
    bdrv_drained_end(disk);

    bdrv_drain_all_begin(graph);
    request_write(&r, other_blk, 0);
    settle();
    ck_assert_int_eq(r.done, 0);
    bdrv_drain_all_end(graph);
    settle();
    ck_assert_int_eq(r.done, 1);
    blk_unref(other_blk);
    bdrv_unref(other);
}
END_TEST

START_TEST(a_user_that_comes_during_a_section_waits_as_well)
{
    BlockBackend *late;
    BlockDriverState *filter;
    BlockBackend *later;
    Request r, q;

    bdrv_drained_begin(disk);
    late = backend_ok("late", disk, READ | WRITE, ALL);
    filter = open_ok("pass,file=disk");
    later = backend_ok("later", filter, READ | WRITE, ALL);
    request_write(&r, late, 0);
    request_write(&q, later, 0);
    settle();
    ck_assert_uint_eq(mem->count[MEM_WRITE], 0);
    bdrv_drained_end(disk);
    settle();
    ck_assert_int_eq(r.done, 1);
    ck_assert_int_eq(q.done, 1);
    blk_unref(later);
    blk_unref(late);
    bdrv_unref(filter);
}
END_TEST

START_TEST(a_user_that_goes_during_a_section_lets_its_requests_fail)
{
    BlockBackend *going = backend_ok("going", disk, READ | WRITE, ALL);
    Request r;

    bdrv_drained_begin(disk);
    request_write(&r, going, 0);
    settle();
    blk_remove_bs(going);
    settle();
    ck_assert_int_eq(r.done, -ENOMEDIUM);
    bdrv_drained_end(disk);
    blk_unref(going);
}
END_TEST

START_TEST(a_filter_goes_in_and_out_under_requests_that_wait)
{
    BlockDriverState *filter = NULL;
    Request r[8];

    for (int i = 0; i < 8; i++) {
        mem->hold[MEM_WRITE] = true;
        for (int j = 0; j < 8; j++) {
            request_write(&r[j], blk, j * 512);
        }
        mem->hold[MEM_WRITE] = false;
        ck_assert_int_eq(bdrv_insert_node(disk, opts("pass"), &filter, NULL),
                         0);
        for (int j = 0; j < 8; j++) {
            ck_assert_int_eq(r[j].done, 1);
        }
        ck_assert_int_eq(bdrv_drop_filter(filter, NULL), 0);
        bdrv_unref(filter);
    }
}
END_TEST

static int coroutine_fn blk_section_entry(void *opaque)
{
    blk_co_drained_begin(opaque);
    return 0;
}

START_TEST(a_section_of_a_backend_stays_with_it_when_its_node_is_exchanged)
{
    BlockBackend *other = backend_ok("other", disk, READ | WRITE, ALL);
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *filter = NULL;
    Request r, q;

    aio_co_run(ctx, blk_section_entry, blk);
    ck_assert_int_eq(bdrv_insert_node(disk, opts("pass"), &filter, NULL), 0);
    request_write(&r, blk, 0);
    request_write(&q, other, 0);
    settle();
    ck_assert_int_eq(q.done, 0);
    blk_remove_bs(other);
    settle();
    ck_assert_int_eq(q.done, -ENOMEDIUM);
    ck_assert_int_eq(r.done, 0);
    blk_drained_end(blk);
    settle();
    ck_assert_int_eq(r.done, 1);
    ck_assert_int_eq(bdrv_drop_filter(filter, NULL), 0);
    bdrv_unref(filter);
    blk_unref(other);
}
END_TEST

static void coroutine_fn drop_filter_entry(void *opaque)
{
    if (bdrv_co_drop_filter(opaque, NULL) < 0) {
        abort();
    }
}

static void coroutine_fn remove_bs_entry(void *opaque)
{
    blk_co_remove_bs(opaque);
}

START_TEST(a_backend_leaves_the_node_it_has_when_its_requests_have_ended)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *filter = NULL;
    Request r;

    ck_assert_int_eq(bdrv_insert_node(disk, opts("pass"), &filter, NULL), 0);
    mem->hold[MEM_WRITE] = true;
    request_write(&r, blk, 0);
    aio_co_enter(ctx, coroutine_create(drop_filter_entry, filter));
    aio_co_enter(ctx, coroutine_create(remove_bs_entry, blk));
    settle();
    ck_assert_ptr_eq(blk_bs(blk), filter);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert_int_eq(r.done, 1);
    ck_assert_ptr_null(blk_bs(blk));
    ck_assert_uint_eq(bdrv_get_perm(disk).used, 0);
    bdrv_unref(filter);
}
END_TEST

/* A reopen in a coroutine of its own. */
typedef struct Reopen {
    BdrvReopenQueue *queue;
    int ret; /* 1: not yet */
} Reopen;

static void coroutine_fn reopen_entry(void *opaque)
{
    Reopen *reopen = opaque;

    reopen->ret = bdrv_co_reopen_multiple(reopen->queue, NULL);
}

START_TEST(an_edge_frozen_while_reopen_waits_is_not_changed)
{
    BlockDriverState *other = open_ok("mem,node-name=other,size=64k");
    BlockDriverState *top = open_ok("pass,node-name=top,file=disk");
    BdrvChild *edge = bdrv_find_child(top, "file");
    Reopen reopen = { .queue = bdrv_reopen_queue_new(graph), .ret = 1 };
    Request r;

    bdrv_reopen_queue_add(reopen.queue, top, opts("pass,file=other"), true);
    mem->hold[MEM_WRITE] = true;
    request_write(&r, blk, 0);
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(reopen_entry, &reopen));
    settle();
    ck_assert_int_eq(reopen.ret, 1);
    bdrv_freeze_child(edge);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert_int_eq(reopen.ret, -EBUSY);
    ck_assert_ptr_eq(bdrv_child_bs(edge), disk);
    bdrv_unfreeze_child(edge);
    bdrv_unref(top);
    bdrv_unref(other);
}
END_TEST

/* Exchange a child and let go of the new one: the edge alone keeps it. */
typedef struct Exchange {
    BdrvChild *edge;
    BlockDriverState *bs;
    int ret; /* 1: not yet */
} Exchange;

static void coroutine_fn exchange_entry(void *opaque)
{
    Exchange *x = opaque;

    x->ret = bdrv_co_replace_child(x->edge, x->bs, NULL);
    bdrv_co_unref(x->bs);
}

START_TEST(two_exchanges_of_one_child_follow_each_other)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *top = open_ok("pass,node-name=top,file=disk");
    BdrvChild *edge = bdrv_find_child(top, "file");
    Exchange x = { edge, open_ok("mem,node-name=x,size=64k"), 1 };
    Exchange y = { edge, open_ok("mem,node-name=y,size=64k"), 1 };
    Request r;

    mem->hold[MEM_WRITE] = true;
    request_write(&r, blk, 0);
    aio_co_enter(ctx, coroutine_create(exchange_entry, &x));
    aio_co_enter(ctx, coroutine_create(exchange_entry, &y));
    settle();
    ck_assert_int_eq(x.ret, 1);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert_int_eq(x.ret, 0);
    ck_assert_int_eq(y.ret, 0);
    ck_assert_str_eq(bdrv_node_name(bdrv_child_bs(edge)), "y");
    ck_assert_ptr_null(bdrv_find_node(graph, "x"));
    bdrv_unref(top);
}
END_TEST

/* --- drivers -------------------------------------------------------------- */

/* A filter that notes what it is told. */
static struct Teller {
    bool open;
    int told;      /* begins minus ends */
    bool told_late; /* told while not open */
    BlockBackend *watched;
    bool moved;     /* of @watched, while the last section ends */
} teller;

static int coroutine_fn teller_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    teller = (struct Teller){ .open = true };
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static void coroutine_fn teller_close(BlockDriverState *bs)
{
    teller.open = false;
}

static void teller_drain_begin(BlockDriverState *bs)
{
    teller.told++;
    teller.told_late |= !teller.open;
}

static void teller_drain_end(BlockDriverState *bs)
{
    teller.told--;
    teller.moved |= teller.watched && blk_in_flight(teller.watched) > 0;
    teller.told_late |= !teller.open;
}

/* Asks nothing of its child. */
static void teller_child_perm(BlockDriverState *bs, BdrvChildRole role,
                              const BlockPerm *parent, BlockPerm *ret_child)
{
    *ret_child = (BlockPerm){ .used = 0, .shared = ALL };
}

static void register_teller(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "teller",
        .kind = BLOCK_DRIVER_FILTER,
        .open = teller_open,
        .close = teller_close,
        .child_perm = teller_child_perm,
        .drain_begin = teller_drain_begin,
        .drain_end = teller_drain_end,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

static void coroutine_fn unref_entry(void *opaque)
{
    bdrv_co_unref(opaque);
}

static void coroutine_fn drain_all_entry(void *opaque)
{
    bdrv_co_drain_all_begin(graph);
    *(bool *)opaque = true;
}

START_TEST(a_driver_is_told_of_sections_only_while_it_is_open)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *top = open_ok("teller,read-only=on,file.driver=mem,"
                                    "file.node-name=below,file.read-only=off");
    BlockDriverState *below = bdrv_find_node(graph, "below");
    BlockBackend *writer = backend_ok("writer", below, WRITE, ALL);
    bool begun = false;

    bdrv_drained_begin(below);
    ck_assert_int_eq(teller.told, 1);
    bdrv_drained_end(below);
    ck_assert_int_eq(teller.told, 0);
    ck_assert_int_eq(blk_pwrite(writer, 0, 1, "x", 0), 0);
    blk_unref(writer);
    mem_disk(below)->hold[MEM_FLUSH] = true;
    aio_co_enter(ctx, coroutine_create(unref_entry, top));
    settle();
    ck_assert(!teller.open);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 3); /* @below flushes */
    aio_co_enter(ctx, coroutine_create(drain_all_entry, &begun));
    settle();
    ck_assert(!begun && !teller.told_late);
    mem_disk(below)->hold[MEM_FLUSH] = false;
    settle();
    ck_assert(begun && !teller.told_late);
    bdrv_drain_all_end(graph);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 1);
}
END_TEST

static void coroutine_fn refused_drop_entry(void *opaque)
{
    g_assert(bdrv_co_drop_filter(opaque, NULL) == -EPERM);
}

/*
 * Without the filter the writer would meet one who allows no writing, so the
 * change is undone.  Meanwhile the writer is moved from under one section to
 * under the other and back, and must not be let in.
 */
START_TEST(a_refused_change_of_two_drained_nodes_opens_nothing_in_between)
{
    BlockPerm reads = { .used = READ, .shared = ALL };
    BlockDriverState *top = open_ok("teller,file=disk");
    BlockBackend *writer = backend_ok("writer", top, WRITE, ALL);
    BlockBackend *other;
    Request first, second;

    ck_assert_int_eq(blk_set_perm(blk, &reads, NULL), 0);
    other = backend_ok("other", disk, READ, ALL & ~(uint64_t)WRITE);
    teller.watched = writer;
    mem->hold[MEM_WRITE] = true;
    request_write(&first, writer, 0);
    settle();
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(refused_drop_entry, top));
    settle();
    request_write(&second, writer, 512);
    settle();
    ck_assert(!first.done && !second.done);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert(first.done == 1 && second.done == 1);
    ck_assert(!teller.moved);
    blk_unref(other);
    blk_unref(writer);
    bdrv_unref(top);
}
END_TEST

START_TEST(the_flush_of_a_node_that_closes_counts_like_a_request)
{
    BlockDriverState *top = open_ok("pass,file=disk");
    BlockBackend *writer = backend_ok("writer", top, WRITE, ALL);
    Section s;

    ck_assert_int_eq(blk_pwrite(writer, 0, 1, "x", 0), 0);
    blk_unref(writer);
    mem->hold[MEM_FLUSH] = true;
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(unref_entry, top));
    settle();
    section_start(&s, disk);
    settle();
    ck_assert(!s.begun);
    mem->hold[MEM_FLUSH] = false;
    settle();
    ck_assert(s.begun);
    bdrv_drained_end(disk);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 1);
}
END_TEST

START_TEST(a_node_closes_in_a_section)
{
    BlockDriverState *top = open_ok("pass,file=disk");
    BlockBackend *writer = backend_ok("writer", top, WRITE, ALL);

    ck_assert_int_eq(blk_pwrite(writer, 0, 1, "x", 0), 0);
    bdrv_drain_all_begin(graph);
    blk_unref(writer);
    bdrv_unref(top);
    bdrv_drain_all_end(graph);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 1);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
}
END_TEST

/* --- background work ------------------------------------------------------ */

typedef struct WorkRun {
    BdrvWork *work;
    bool begun;
    unsigned ticket;
} WorkRun;

static void coroutine_fn work_entry(void *opaque)
{
    WorkRun *run = opaque;

    run->ticket = bdrv_co_work_begin(run->work);
    run->begun = true;
}

START_TEST(background_work_counts_like_a_request)
{
    WorkRun run = { .work = bdrv_work_new(disk) };
    Section s;

    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(work_entry, &run));
    ck_assert(run.begun);
    section_start(&s, disk);
    settle();
    ck_assert(!s.begun);
    bdrv_work_end(run.work, run.ticket);
    settle();
    ck_assert(s.begun);

    run.begun = false;
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(work_entry, &run));
    settle();
    ck_assert(!run.begun);
    bdrv_drained_end(disk);
    settle();
    ck_assert(run.begun);
    bdrv_work_end(run.work, run.ticket);
    bdrv_work_free(run.work);
}
END_TEST

START_TEST(work_that_a_request_forks_is_waited_for_and_does_not_wait)
{
    BdrvWork *work = bdrv_work_new(disk);
    unsigned ticket;
    Request r;
    Section s;

    mem->hold[MEM_WRITE] = true;
    request_write(&r, blk, 0);
    settle();
    section_start(&s, disk);
    settle();
    ticket = bdrv_work_fork(work); /* the gate is closed, and lets it in */
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert_int_eq(r.done, 1);
    ck_assert(!s.begun);
    bdrv_work_end(work, ticket);
    settle();
    ck_assert(s.begun);
    bdrv_drained_end(disk);
    bdrv_work_free(work);
}
END_TEST

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 3, DEPTH = 8, ROUNDS = 300 };

typedef struct Guest {
    IOThread *iothread;
    Request requests[DEPTH];
    _Atomic bool stop;
    _Atomic int in_flight;
    _Atomic int64_t sent;
} Guest;


static void guest_send(Guest *g, int i);

typedef struct GuestCall {
    Guest *g;
    int i;
} GuestCall;

static void guest_done(void *opaque, int ret)
{
    GuestCall *call = opaque;
    Guest *g = call->g;
    int i = call->i;

    g_assert(ret == 0);
    g_free(call);
    atomic_fetch_sub(&g->in_flight, 1);
    if (!atomic_load(&g->stop)) {
        guest_send(g, i);
    }
}

static void guest_send(Guest *g, int i)
{
    GuestCall *call = g_new(GuestCall, 1);
    Request *r = &g->requests[i];

    *call = (GuestCall){ g, i };
    atomic_fetch_add(&g->in_flight, 1);
    atomic_fetch_add(&g->sent, 1);
    blk_aio_pwritev(blk, i * 512, block_iov_buf(&r->iov, r->buf, 512), 0,
                    guest_done, call);
}

static void guest_start(void *opaque)
{
    for (int i = 0; i < DEPTH; i++) {
        guest_send(opaque, i);
    }
}

START_TEST(several_threads_find_the_gate_closed_in_every_section)
{
    Guest guests[THREADS] = { 0 };
    int64_t sent = 0;

    for (int i = 0; i < THREADS; i++) {
        guests[i].iothread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);
        aio_bh_schedule_oneshot(iothread_get_aio_context(guests[i].iothread),
                                guest_start, &guests[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        while (atomic_load(&guests[i].sent) < DEPTH) {
            aio_poll(block_graph_aio_context(graph), false);
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        unsigned before;

        bdrv_drained_begin(disk);
        before = mem_total(mem);
        settle();
        ck_assert_uint_eq(mem_total(mem), before);
        bdrv_drained_end(disk);
        aio_poll(block_graph_aio_context(graph), false);
    }
    for (int i = 0; i < THREADS; i++) {
        atomic_store(&guests[i].stop, true);
    }
    for (int i = 0; i < THREADS; i++) {
        while (atomic_load(&guests[i].in_flight) > 0) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        sent += guests[i].sent;
        iothread_free(guests[i].iothread);
    }
    ck_assert_int_eq(mem->count[MEM_WRITE], sent);
}
END_TEST

START_TEST(a_section_covers_its_node_and_all_that_is_below)
{
    BlockDriverState *top = open_ok("pass,node-name=top,file=disk");

    ck_assert(!bdrv_is_drained(disk));
    bdrv_drained_begin(top);
    ck_assert(bdrv_is_drained(top));
    ck_assert(bdrv_is_drained(disk));
    bdrv_drained_end(top);
    bdrv_drained_begin(disk);
    ck_assert(bdrv_is_drained(disk));
    bdrv_drained_end(disk);
    ck_assert(!bdrv_is_drained(top));
    ck_assert(!bdrv_is_drained(disk));
    bdrv_unref(top);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("drain");
    TCase *tcase = tcase_create("drain");

    register_pass_driver();
    mem_register();
    register_teller();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_section_covers_its_node_and_all_that_is_below);
    PROMISE(tcase,
            a_section_begins_only_when_the_requests_in_flight_have_ended);
    PROMISE(tcase, a_request_sent_in_a_section_waits_for_its_end);
    PROMISE(tcase, sections_nest_and_overlap);
    PROMISE(tcase, a_resumed_request_does_not_slip_into_the_next_section);
    PROMISE(tcase, a_section_leaves_other_disks_alone);
    PROMISE(tcase, a_user_that_comes_during_a_section_waits_as_well);
    PROMISE(tcase, a_user_that_goes_during_a_section_lets_its_requests_fail);
    PROMISE(tcase, a_filter_goes_in_and_out_under_requests_that_wait);
    PROMISE(tcase,
            a_section_of_a_backend_stays_with_it_when_its_node_is_exchanged);
    PROMISE(tcase,
            a_backend_leaves_the_node_it_has_when_its_requests_have_ended);
    PROMISE(tcase, an_edge_frozen_while_reopen_waits_is_not_changed);
    PROMISE(tcase, two_exchanges_of_one_child_follow_each_other);
    PROMISE(tcase, a_driver_is_told_of_sections_only_while_it_is_open);
    PROMISE(tcase,
            a_refused_change_of_two_drained_nodes_opens_nothing_in_between);
    PROMISE(tcase, the_flush_of_a_node_that_closes_counts_like_a_request);
    PROMISE(tcase, a_node_closes_in_a_section);
    PROMISE(tcase, background_work_counts_like_a_request);
    PROMISE(tcase, work_that_a_request_forks_is_waited_for_and_does_not_wait);
    PROMISE(tcase, several_threads_find_the_gate_closed_in_every_section);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
