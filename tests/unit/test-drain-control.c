/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control operations against sections of others: opening, closing, and what a
 * backend may do.
 */
#include "drain-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define ALL BLK_PERM_ALL

static AioContext *ctx;
static BlockDriverState *disk;
static MemDisk *mem;

static void setup(void)
{
    graph_setup();
    ctx = block_graph_aio_context(graph);
    disk = open_ok("mem,node-name=disk,size=64k");
    mem = mem_disk(disk);
}

static void teardown(void)
{
    bdrv_unref(disk);
    graph_teardown();
}

/* One control operation in a coroutine of its own. */
typedef struct Control {
    BlockBackend *blk;
    BlockDriverState *bs;
    const char *options;
    BlockPerm perm;
    int ret;
    bool done;
} Control;

static void coroutine_fn set_perm_entry(void *opaque)
{
    Control *c = opaque;

    c->ret = blk_co_set_perm(c->blk, &c->perm, NULL);
    c->done = true;
}

static void coroutine_fn unref_entry(void *opaque)
{
    Control *c = opaque;

    bdrv_co_unref(c->bs);
    c->done = true;
}

static void coroutine_fn open_entry(void *opaque)
{
    Control *c = opaque;

    c->bs = bdrv_co_open(graph, opts(c->options), NULL);
    c->done = true;
}

static void coroutine_fn drain_all_entry(void *opaque)
{
    Control *c = opaque;

    bdrv_co_drain_all_begin(graph);
    c->done = true;
}

static void start(Control *c, CoroutineEntry *entry)
{
    aio_co_enter(ctx, coroutine_create(entry, c));
    settle();
}

/* A filter whose open reads from what it is to filter. */
static int coroutine_fn reader_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    char byte;
    BdrvChild *child = bdrv_co_open_child(bs, options, "file",
                                          BDRV_CHILD_FILTERED |
                                              BDRV_CHILD_PRIMARY,
                                          true, errp);
    int ret = child ? bdrv_co_pread(child, 0, 1, &byte, 0) : -EINVAL;

    if (child && ret < 0) {
        block_error(errp, -ret, "the first byte cannot be read");
    }
    return ret;
}

static void register_reader(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "reader",
        .kind = BLOCK_DRIVER_FILTER,
        .open = reader_open,
    };

    if (bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

/* --- permissions ---------------------------------------------------------- */

static void note_cb(void *opaque, int ret)
{
    *(int *)opaque = ret < 0 ? ret : 1;
}

START_TEST(a_permission_is_taken_away_when_what_used_it_has_ended)
{
    BlockBackend *blk = backend_ok("guest", disk, READ | WRITE, ALL & ~WRITE);
    Control c = { .blk = blk, .perm = { .used = READ, .shared = ALL } };
    BlockIOVec1 iov;
    int done = 0;

    mem->hold[MEM_WRITE] = true;
    blk_aio_pwritev(blk, 0, block_iov_buf(&iov, (char[]){ 'x' }, 1), 0,
                    note_cb, &done);
    settle();
    start(&c, set_perm_entry);
    ck_assert(!c.done);
    mem->hold[MEM_WRITE] = false;
    settle();
    ck_assert(c.done && c.ret == 0 && done == 1);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), -EPERM);
    blk_unref(blk);
}
END_TEST

START_TEST(a_permission_is_given_while_requests_are_in_flight)
{
    BlockBackend *blk = backend_ok("guest", disk, READ, ALL);
    BlockPerm more = { .used = READ | WRITE, .shared = ALL };
    BlockIOVec1 iov;
    char buf[1];
    int done = 0;

    mem->hold[MEM_READ] = true;
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, 1), 0, note_cb, &done);
    settle();
    ck_assert_int_eq(blk_set_perm(blk, &more, NULL), 0);
    ck_assert_int_eq(done, 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, "x", 0), 0);
    mem->hold[MEM_READ] = false;
    settle();
    ck_assert_int_eq(done, 1);
    blk_unref(blk);
}
END_TEST

/* --- a node comes and goes ------------------------------------------------ */

typedef struct Guest {
    BlockBackend *blk;
    BlockIOVec1 iov;
    char buf[512];
    _Atomic bool stop;
    _Atomic bool stopped;
    _Atomic int64_t with_node;
    _Atomic int64_t without;
} Guest;

static void guest_read(void *opaque);

static void guest_cb(void *opaque, int ret)
{
    Guest *g = opaque;

    g_assert(ret == 0 || ret == -ENOMEDIUM);
    atomic_fetch_add(ret == 0 ? &g->with_node : &g->without, 1);
    if (atomic_load(&g->stop)) {
        atomic_store(&g->stopped, true);
    } else {
        guest_read(g);
    }
}

static void guest_read(void *opaque)
{
    Guest *g = opaque;

    blk_aio_preadv(g->blk, 0, &g->iov.vec, 0, guest_cb, g);
}

static void wait_more(_Atomic int64_t *count)
{
    int64_t before = atomic_load(count);

    while (atomic_load(count) == before) {
        aio_poll(ctx, false);
    }
}

START_TEST(a_node_comes_and_goes_under_requests_of_another_thread)
{
    const BlockPerm perm = { .used = READ, .shared = ALL };
    Guest g = { .blk = blk_new(graph, "guest", &perm) };
    IOThread *iothread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);

    block_iov_buf(&g.iov, g.buf, sizeof(g.buf));
    aio_bh_schedule_oneshot(iothread_get_aio_context(iothread), guest_read,
                            &g);
    for (int i = 0; i < 200; i++) {
        wait_more(&g.without);
        ck_assert_int_eq(blk_insert_bs(g.blk, disk, NULL), 0);
        wait_more(&g.with_node);
        blk_remove_bs(g.blk);
    }
    atomic_store(&g.stop, true);
    while (!atomic_load(&g.stopped)) {
        aio_poll(ctx, false);
    }
    iothread_free(iothread);
    blk_unref(g.blk);
}
END_TEST

/* --- nodes that open and close -------------------------------------------- */

START_TEST(a_node_closes_after_the_sections_of_others)
{
    BlockDriverState *top = open_ok("pass,file=disk");
    BlockBackend *writer = backend_ok("writer", top, WRITE, ALL);
    Control c = { .bs = top };
    Section s;

    ck_assert_int_eq(blk_pwrite(writer, 0, 1, "x", 0), 0);
    blk_unref(writer);
    section_start(&s, disk);
    ck_assert(s.begun);
    start(&c, unref_entry);
    ck_assert(!c.done);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 0);
    bdrv_drained_end(disk);
    settle();
    ck_assert(c.done);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 1);
}
END_TEST

START_TEST(a_node_opens_after_the_sections_of_others)
{
    Control c = { .options = "reader,file=disk" };
    Section s;

    section_start(&s, disk);
    start(&c, open_entry);
    ck_assert(!c.done);
    ck_assert_uint_eq(mem->count[MEM_READ], 0);
    bdrv_drained_end(disk);
    settle();
    ck_assert(c.done);
    ck_assert_uint_eq(mem->count[MEM_READ], 1);
    bdrv_unref(c.bs);
}
END_TEST

START_TEST(a_node_opens_inside_a_section_of_its_opener)
{
    BlockDriverState *top;

    bdrv_drained_begin(disk);
    top = open_ok("reader,file=disk");
    bdrv_drained_end(disk);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_section_waits_for_what_a_node_that_opens_has_sent)
{
    Control c = { .options = "reader,file=disk" };
    Section s;

    mem->hold[MEM_READ] = true;
    start(&c, open_entry);
    section_start(&s, disk);
    settle();
    ck_assert(!s.begun && !c.done);
    mem->hold[MEM_READ] = false;
    settle();
    ck_assert(s.begun && c.done);
    bdrv_drained_end(disk);
    bdrv_unref(c.bs);
}
END_TEST

START_TEST(a_section_of_all_and_a_tree_that_opens_do_not_wait_in_a_circle)
{
    Control tree = { .options = "reader,file.driver=reader,file.file=disk" };
    Control all = { .bs = NULL };

    mem->hold[MEM_READ] = true;
    start(&tree, open_entry);
    start(&all, drain_all_entry);
    ck_assert(!tree.done && !all.done);
    mem->hold[MEM_READ] = false;
    settle();
    ck_assert(all.done && !tree.done); /* its upper node waits */
    ck_assert_uint_eq(mem->count[MEM_READ], 1);
    bdrv_drain_all_end(graph);
    settle();
    ck_assert(tree.done);
    ck_assert_uint_eq(mem->count[MEM_READ], 2);
    bdrv_unref(tree.bs);
}
END_TEST

static void coroutine_fn insert_entry(void *opaque)
{
    Control *c = opaque;
    BlockDriverState *node = NULL;

    c->ret = bdrv_co_insert_node(disk, opts(c->options), &node, NULL);
    c->bs = node;
    c->done = true;
}

START_TEST(two_filters_go_in_above_one_node_at_once)
{
    BlockBackend *guest = backend_ok("guest", disk, READ | WRITE, ALL);
    Control slow = { .options = "reader" };
    Control fast = { .options = "pass" };

    mem->hold[MEM_READ] = true;
    start(&slow, insert_entry);
    start(&fast, insert_entry);
    ck_assert(!slow.done && !fast.done); /* it drains the other's open */
    mem->hold[MEM_READ] = false;
    settle();
    ck_assert(slow.done && slow.ret == 0 && fast.done && fast.ret == 0);
    ck_assert_ptr_ne(blk_bs(guest), disk);
    ck_assert_ptr_eq(bdrv_skip_filters(blk_bs(guest)), disk);
    ck_assert_int_eq(blk_pwrite(guest, 0, 1, "x", 0), 0);
    ck_assert_int_eq(bdrv_drop_filter(slow.bs, NULL), 0);
    ck_assert_int_eq(bdrv_drop_filter(fast.bs, NULL), 0);
    ck_assert_ptr_eq(blk_bs(guest), disk);
    bdrv_unref(slow.bs);
    bdrv_unref(fast.bs);
    blk_unref(guest);
}
END_TEST

/* As a job does when it starts. */
static void coroutine_fn drained_insert_entry(void *opaque)
{
    Control *c = opaque;

    bdrv_co_drained_begin(disk);
    coroutine_yield(); /* until all have got here */
    insert_entry(c);
    bdrv_drained_end(disk);
}

START_TEST(filters_go_in_at_once_in_sections_of_their_own)
{
    BlockBackend *guest = backend_ok("guest", disk, READ | WRITE, ALL);
    Control c[3] = { { .options = "reader" }, { .options = "pass" },
                     { .options = "reader" } };
    Coroutine *co[3];

    for (int i = 0; i < 3; i++) {
        co[i] = coroutine_create(drained_insert_entry, &c[i]);
        aio_co_enter(ctx, co[i]);
    }
    for (int i = 0; i < 3; i++) {
        aio_co_enter(ctx, co[i]);
    }
    settle();
    for (int i = 0; i < 3; i++) {
        ck_assert(c[i].done && c[i].ret == 0);
        ck_assert_int_eq(bdrv_drop_filter(c[i].bs, NULL), 0);
        bdrv_unref(c[i].bs);
    }
    ck_assert_ptr_eq(blk_bs(guest), disk);
    ck_assert_int_eq(blk_pwrite(guest, 0, 1, "x", 0), 0);
    blk_unref(guest);
}
END_TEST

static void coroutine_fn reopen_entry(void *opaque)
{
    Control *c = opaque;
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);

    bdrv_reopen_queue_add(queue, c->bs, opts(c->options), true);
    c->ret = bdrv_co_reopen_multiple(queue, NULL);
    c->done = true;
}

START_TEST(a_reopen_comes_after_the_sections_of_others)
{
    BlockDriverState *top = open_ok("pass,node-name=top,file=disk");
    BlockBackend *writer = backend_ok("writer", top, WRITE, ALL);
    Control c = { .bs = top, .options = "driver=pass,read-only=on" };
    Section s, late;

    ck_assert_int_eq(blk_pwrite(writer, 0, 1, "x", 0), 0);
    blk_unref(writer);
    section_start(&s, disk);
    start(&c, reopen_entry);
    ck_assert(!c.done);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 0);
    mem->hold[MEM_FLUSH] = true;
    bdrv_drained_end(disk);
    settle();
    section_start(&late, disk); /* waits for the flush of the reopen */
    settle();
    ck_assert(!c.done && !late.begun);
    mem->hold[MEM_FLUSH] = false;
    settle();
    ck_assert(c.done && c.ret == 0 && late.begun);
    bdrv_drained_end(disk);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_node_is_reopened_inside_a_section_of_its_own)
{
    bdrv_drained_begin(disk);
    ck_assert_int_eq(bdrv_reopen(disk, opts("driver=mem,detect-zeroes=on"),
                                 NULL), 0);
    bdrv_drained_end(disk);
}
END_TEST

static void coroutine_fn two_sections_entry(void *opaque)
{
    Control *c = opaque;

    bdrv_co_drained_begin(disk);
    c->done = true;
    coroutine_yield();
    bdrv_drained_end(disk); /* ours, though a newer one is another's */
}

static void coroutine_fn drained_reopen_entry(void *opaque)
{
    bdrv_co_drained_begin(disk);
    coroutine_yield(); /* until all have got here */
    reopen_entry(opaque);
    bdrv_drained_end(disk);
}

START_TEST(nodes_are_reopened_at_once_in_sections_of_their_own)
{
    Control c[3] = { { .options = "driver=mem,detect-zeroes=on" },
                     { .options = "reader" },
                     { .options = "driver=mem,detect-zeroes=off" } };
    Coroutine *co[3];

    for (int i = 0; i < 3; i++) {
        c[i].bs = disk;
        co[i] = coroutine_create(i == 1 ? drained_insert_entry
                                        : drained_reopen_entry, &c[i]);
        aio_co_enter(ctx, co[i]);
    }
    for (int i = 0; i < 3; i++) {
        aio_co_enter(ctx, co[(i + _i) % 3]);
    }
    settle();
    for (int i = 0; i < 3; i++) {
        ck_assert(c[i].done && c[i].ret == 0);
    }
    ck_assert_int_eq(bdrv_drop_filter(c[1].bs, NULL), 0);
    bdrv_unref(c[1].bs);
}
END_TEST

START_TEST(each_ends_its_own_section)
{
    Control ours = { .bs = NULL };
    Control opener = { .options = "reader,file=disk" };
    Coroutine *co = coroutine_create(two_sections_entry, &ours);

    aio_co_enter(ctx, co);
    ck_assert(ours.done);
    bdrv_drained_begin(disk);
    aio_co_enter(ctx, co);
    /* The section that is left is the main program's: it may open. */
    opener.bs = open_ok(opener.options);
    bdrv_drained_end(disk);
    bdrv_unref(opener.bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("drain-control");
    TCase *tcase = tcase_create("drain-control");

    register_pass_driver();
    register_reader();
    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, a_permission_is_taken_away_when_what_used_it_has_ended);
    PROMISE(tcase, a_permission_is_given_while_requests_are_in_flight);
    PROMISE(tcase, a_node_comes_and_goes_under_requests_of_another_thread);
    PROMISE(tcase, a_node_closes_after_the_sections_of_others);
    PROMISE(tcase, a_node_opens_after_the_sections_of_others);
    PROMISE(tcase, a_node_opens_inside_a_section_of_its_opener);
    PROMISE(tcase, a_section_waits_for_what_a_node_that_opens_has_sent);
    PROMISE(tcase,
            a_section_of_all_and_a_tree_that_opens_do_not_wait_in_a_circle);
    PROMISE(tcase, two_filters_go_in_above_one_node_at_once);
    PROMISE(tcase, filters_go_in_at_once_in_sections_of_their_own);
    PROMISE(tcase, a_reopen_comes_after_the_sections_of_others);
    PROMISE(tcase, a_node_is_reopened_inside_a_section_of_its_own);
    tcase_add_loop_test(
        tcase, nodes_are_reopened_at_once_in_sections_of_their_own, 0, 3);
    PROMISE(tcase, each_ends_its_own_section);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
