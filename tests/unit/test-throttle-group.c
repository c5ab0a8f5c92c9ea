/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle and throttle-group: who goes next, and that nobody is forgotten.
 *
 * Most tests turn the clock of the group themselves: what its timers do in
 * real time meanwhile changes nothing.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#include "block/filters/throttle-group.h"
#include "util/clock.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL
#define MS (CLOCK_NS_PER_SEC / 1000)

static _Atomic int64_t fake_now;
static ThrottleGroup *group;

static int64_t fake_clock(void)
{
    return atomic_load(&fake_now);
}

static ThrottleGroup *group_ok(const char *name, const char *limits)
{
    g_autoptr(BlockOptions) options =
        block_options_parse_keyval(limits, NULL, NULL);
    g_autoptr(GError) error = NULL;
    ThrottleConfig config;
    ThrottleGroup *made;

    ck_assert_int_eq(block_options_absorb(options, throttle_config_options,
                                          &config, "limits", NULL), 0);
    made = throttle_group_new(graph, name, &config, &error);
    ck_assert_msg(made != NULL, "%s", error ? error->message : "");
    return made;
}

/* The group "g" on the clock of the test. */
static void given(const char *limits)
{
    group = group_ok("g", limits);
    throttle_group_set_clock(group, fake_clock);
}

/* Let the loop do all it can do now. */
static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static void pass_ms(int64_t ms)
{
    atomic_fetch_add(&fake_now, ms * MS);
    throttle_group_kick(group);
    settle();
}

/* A throttled disk. */
typedef struct Disk {
    char name;
    BlockDriverState *mem;
    BlockDriverState *bs;
    BlockBackend *blk;
} Disk;

static Disk disk_ok(char name)
{
    g_autofree char *below = g_strdup_printf("mem,node-name=mem-%c,"
                                             "discard=unmap", name);
    g_autofree char *top = g_strdup_printf("throttle,node-name=%c,"
                                           "file=mem-%c,throttle-group=g,"
                                           "discard=unmap", name, name);
    Disk d = { .name = name };

    d.mem = open_ok(below);
    d.bs = open_ok(top);
    d.blk = backend_ok("guest", d.bs, READ | WRITE | RESIZE, ALL);
    return d;
}

static void disk_done(Disk *d)
{
    blk_unref(d->blk);
    bdrv_unref(d->bs);
    bdrv_unref(d->mem);
}

/* The names of the requests that have ended, in this order. */
static GString *ended;

typedef struct Request {
    BlockIOVec1 iov;
    char buf[512];
    char name;
} Request;

static Request requests[64];
static unsigned nr_requests;

static void request_done(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    g_string_append_c(ended, ((Request *)opaque)->name);
}

static void send(Disk *d, char name, bool write)
{
    Request *r = &requests[nr_requests++];

    r->name = name;
    block_iov_buf(&r->iov, r->buf, sizeof(r->buf));
    if (write) {
        blk_aio_pwritev(d->blk, 0, &r->iov.vec, 0, request_done, r);
    } else {
        blk_aio_preadv(d->blk, 0, &r->iov.vec, 0, request_done, r);
    }
    settle();
}

static void send_all(Disk *d, const char *names, bool write)
{
    for (; *names; names++) {
        send(d, *names, write);
    }
}

static void setup(void)
{
    graph_setup();
    ended = g_string_new(NULL);
    nr_requests = 0;
}

static void teardown(void)
{
    throttle_group_unref(group);
    group = NULL;
    g_string_free(ended, true);
    graph_teardown();
}

/* --- order ---------------------------------------------------------------- */

START_TEST(requests_of_one_member_go_in_order_as_time_passes)
{
    Disk a;

    given("iops-total=10");
    a = disk_ok('a');
    send_all(&a, "123456", true);
    ck_assert_str_eq(ended->str, "12"); /* the burst of a limit without max */
    ck_assert_uint_eq(throttle_group_nr_waiting(group), 4);
    pass_ms(99);
    ck_assert_str_eq(ended->str, "12");
    pass_ms(1);
    ck_assert_str_eq(ended->str, "123");
    pass_ms(250);
    ck_assert_str_eq(ended->str, "12345");
    pass_ms(50); /* what the bucket would have leaked when empty is lost */
    ck_assert_str_eq(ended->str, "12345");
    pass_ms(50);
    ck_assert_str_eq(ended->str, "123456");
    ck_assert_uint_eq(throttle_group_nr_waiting(group), 0);
    disk_done(&a);
}
END_TEST

START_TEST(members_take_turns_however_much_each_sends)
{
    Disk a, b, c;

    given("iops-total=10");
    a = disk_ok('a');
    b = disk_ok('b');
    c = disk_ok('c');
    send_all(&a, "aaaaaaaa", true);
    send_all(&b, "bb", true);
    send_all(&c, "ccc", true);
    ck_assert_str_eq(ended->str, "aa");
    for (int i = 0; i < 11; i++) {
        pass_ms(100);
    }
    ck_assert_str_eq(ended->str, "aaabcabcacaaa");
    disk_done(&a);
    disk_done(&b);
    disk_done(&c);
}
END_TEST

START_TEST(reads_and_writes_take_turns_under_a_common_limit)
{
    Disk a;

    given("iops-total=10");
    a = disk_ok('a');
    send_all(&a, "rr", false);
    send_all(&a, "rrrr", false);
    send_all(&a, "www", true);
    for (int i = 0; i < 7; i++) {
        pass_ms(100);
    }
    ck_assert_str_eq(ended->str, "rrrwrwrwr");
    disk_done(&a);
}
END_TEST

START_TEST(a_limit_of_writes_does_not_hold_up_reads)
{
    Disk a;

    given("iops-write=10");
    a = disk_ok('a');
    send_all(&a, "wwww", true);
    send_all(&a, "rrr", false);
    ck_assert_str_eq(ended->str, "wwrrr");
    pass_ms(200);
    ck_assert_str_eq(ended->str, "wwrrrww");
    disk_done(&a);
}
END_TEST

START_TEST(a_request_that_comes_late_does_not_overtake)
{
    Disk a, b;

    given("iops-total=10");
    a = disk_ok('a');
    b = disk_ok('b');
    send_all(&a, "123", true);
    atomic_fetch_add(&fake_now, 100 * MS); /* nobody has noticed yet */
    send(&b, 'b', true);
    ck_assert_str_eq(ended->str, "123");
    pass_ms(100);
    ck_assert_str_eq(ended->str, "123b");
    disk_done(&a);
    disk_done(&b);
}
END_TEST

START_TEST(all_kinds_of_writes_count_and_a_flush_does_not)
{
    Disk a;
    Request *r = requests;
    MemDisk *mem;

    given("bps-write=5120");
    a = disk_ok('a');
    mem = mem_disk(a.mem);
    r[0].name = 'z';
    r[1].name = 'd';
    r[2].name = 'w';
    r[3].name = 'f';
    nr_requests = 4;
    blk_aio_pwrite_zeroes(a.blk, 0, 1024, 0, request_done, &r[0]);
    settle();
    blk_aio_pdiscard(a.blk, 0, 1024, request_done, &r[1]);
    block_iov_buf(&r[2].iov, r[2].buf, 512);
    blk_aio_pwritev(a.blk, 0, &r[2].iov.vec, 0, request_done, &r[2]);
    settle();
    blk_aio_flush(a.blk, request_done, &r[3]);
    settle();
    ck_assert_str_eq(ended->str, "zf"); /* 1024 of 512: 100 ms over */
    pass_ms(100);
    ck_assert_str_eq(ended->str, "zfd"); /* again 200 ms over: 1536 - 512 */
    pass_ms(199);
    ck_assert_str_eq(ended->str, "zfd");
    pass_ms(1);
    ck_assert_str_eq(ended->str, "zfdw");
    ck_assert_uint_eq(mem->count[MEM_ZERO], 1);
    ck_assert_uint_eq(mem->count[MEM_DISCARD], 1);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 1);
    disk_done(&a);
}
END_TEST

START_TEST(timers_let_requests_go_without_help)
{
    Disk a;

    group = group_ok("g", "iops-total=2000"); /* on the clock of the loop */
    a = disk_ok('a');
    for (int i = 0; i < 64; i++) {
        Request *r = &requests[i];

        r->name = '.';
        block_iov_buf(&r->iov, r->buf, sizeof(r->buf));
        blk_aio_pwritev(a.blk, 0, &r->iov.vec, 0, request_done, r);
    }
    while (ended->len < 64) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    disk_done(&a);
}
END_TEST

/* --- drain ---------------------------------------------------------------- */

START_TEST(a_drained_section_lets_its_requests_go_and_no_others)
{
    Disk a, b;

    given("iops-total=10");
    a = disk_ok('a');
    b = disk_ok('b');
    send_all(&a, "aaaaa", true);
    send_all(&b, "bb", true);
    ck_assert_str_eq(ended->str, "aa");
    bdrv_drained_begin(a.bs);
    ck_assert_str_eq(ended->str, "aaaaa");
    ck_assert_uint_eq(throttle_group_nr_waiting(group), 2);
    bdrv_drained_end(a.bs);
    /* What went is counted: five of them are 400 ms over. */
    pass_ms(399);
    ck_assert_str_eq(ended->str, "aaaaa");
    pass_ms(1);
    ck_assert_str_eq(ended->str, "aaaaab");
    pass_ms(100);
    ck_assert_str_eq(ended->str, "aaaaabb");
    disk_done(&a);
    disk_done(&b);
}
END_TEST

/* A file during whose close all nodes are drained. */
static bool drained_at_close;

static void coroutine_fn drain_all_entry(void *opaque)
{
    bdrv_co_drain_all_begin(graph);
    bdrv_drain_all_end(graph);
    drained_at_close = true;
}

static void start_drain_all(void *opaque)
{
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(drain_all_entry, NULL));
}

static int coroutine_fn slow_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return 0;
}

static void coroutine_fn slow_close(BlockDriverState *bs)
{
    aio_bh_schedule_oneshot(block_graph_aio_context(graph), start_drain_all,
                            NULL);
    co_sleep_ns(MS);
}

static int64_t coroutine_fn slow_getlength(BlockDriverState *bs)
{
    return 0;
}

static void register_slow(void)
{
    static const BlockDriver slow = {
        .struct_size = sizeof(BlockDriver),
        .name = "slow",
        .kind = BLOCK_DRIVER_PROTOCOL,
        .open = slow_open,
        .close = slow_close,
        .getlength = slow_getlength,
    };

    if (bdrv_register(&slow, NULL) < 0) {
        abort();
    }
}

START_TEST(a_node_is_not_drained_any_more_when_it_has_been_closed)
{
    given("iops-total=10");
    drained_at_close = false;
    bdrv_unref(open_ok("throttle,throttle-group=g,file.driver=slow"));
    settle();
    ck_assert(drained_at_close);
}
END_TEST

/* A format whose reads take two reads of its file. */
static int coroutine_fn twice_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true, errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn twice_getlength(BlockDriverState *bs)
{
    return bdrv_length(bdrv_child_bs(bdrv_primary_child(bs)));
}

static int coroutine_fn twice_preadv(BlockDriverState *bs, const BlockIO *io)
{
    BdrvChild *file = bdrv_primary_child(bs);
    int ret = bdrv_co_preadv(file, io->offset, io->bytes, io->iov, 0);

    return ret < 0 ? ret : bdrv_co_preadv(file, io->offset, io->bytes, io->iov,
                                          0);
}

START_TEST(inside_a_drained_section_no_request_waits_at_all)
{
    Disk a;
    BlockDriverState *top;
    BlockBackend *upper;
    Disk above = { 0 };

    given("iops-total=1,iops-total-max=1");
    a = disk_ok('a');
    blk_unref(a.blk);
    a.blk = backend_ok("guest", a.bs, READ | WRITE, ALL);
    top = open_ok("twice,file=a");
    upper = backend_ok("upper", top, READ, ALL);
    above.blk = upper;
    send_all(&a, "ww", true);
    send(&above, 't', false);
    ck_assert_str_eq(ended->str, "ww");
    bdrv_drained_begin(top); /* or it would wait for the second read for ever */
    ck_assert_str_eq(ended->str, "wwt");
    bdrv_drained_end(top);
    send(&a, 'w', true);     /* limited again */
    ck_assert_str_eq(ended->str, "wwt");
    pass_ms(10000);
    ck_assert_str_eq(ended->str, "wwtw");
    blk_unref(upper);
    bdrv_unref(top);
    disk_done(&a);
}
END_TEST

START_TEST(a_member_goes_while_its_requests_wait)
{
    Disk a, b;
    g_autoptr(GError) error = NULL;

    given("iops-total=10");
    a = disk_ok('a');
    b = disk_ok('b');
    send_all(&a, "aaaa", true);
    send_all(&b, "bbb", true);
    ck_assert_int_eq(bdrv_drop_filter(a.bs, &error), 0);
    settle();
    ck_assert_str_eq(ended->str, "aaaa");
    bdrv_unref(a.bs);
    a.bs = NULL;
    pass_ms(1000);
    pass_ms(100);
    ck_assert_str_eq(ended->str, "aaaabbb");
    disk_done(&a);
    disk_done(&b);
}
END_TEST

/* --- groups --------------------------------------------------------------- */

START_TEST(new_limits_hold_at_once_for_requests_that_wait)
{
    ThrottleConfig config = { 0 };
    ThrottleConfig read_back;
    Disk a;

    given("iops-total=1,iops-total-max=1");
    a = disk_ok('a');
    send_all(&a, "123456789", true);
    ck_assert_str_eq(ended->str, "12");
    config.limits[THROTTLE_IOPS_TOTAL].avg = 20;
    ck_assert_int_eq(throttle_group_set_config(group, &config, NULL), 0);
    settle();
    ck_assert_str_eq(ended->str, "12345"); /* the burst of the new limit */
    throttle_group_get_config(group, &read_back);
    ck_assert_mem_eq(&read_back, &config, sizeof(config));
    config.limits[THROTTLE_IOPS_TOTAL].max = 10;
    ck_assert_int_eq(throttle_group_set_config(group, &config, NULL), -EINVAL);
    throttle_group_get_config(group, &read_back);
    ck_assert_int_eq(read_back.limits[THROTTLE_IOPS_TOTAL].max, 0);
    memset(&config, 0, sizeof(config));
    ck_assert_int_eq(throttle_group_set_config(group, &config, NULL), 0);
    settle();
    ck_assert_str_eq(ended->str, "123456789");
    disk_done(&a);
}
END_TEST

START_TEST(a_stricter_limit_holds_for_a_head_that_had_a_timer)
{
    ThrottleConfig config = { 0 };
    Disk a;

    given("iops-total=10");
    a = disk_ok('a');
    send_all(&a, "123", true);
    config.limits[THROTTLE_IOPS_TOTAL].avg = 1;
    throttle_group_set_config(group, &config, NULL);
    settle();
    ck_assert_str_eq(ended->str, "123"); /* the bucket is empty again ... */
    send(&a, '4', true);
    pass_ms(500);
    ck_assert_str_eq(ended->str, "123");
    pass_ms(400);
    ck_assert_str_eq(ended->str, "1234"); /* ... and empties as it should */
    disk_done(&a);
}
END_TEST

START_TEST(groups_have_names_and_live_as_long_as_they_are_used)
{
    GError *error = NULL;
    ThrottleConfig wrong = { .iops_size = 5 };
    Disk a;

    given("");
    ck_assert_str_eq(throttle_group_name(group), "g");
    ck_assert_ptr_eq(throttle_group_find(graph, "g"), group);
    ck_assert_ptr_null(throttle_group_find(graph, "h"));
    ck_assert_ptr_null(throttle_group_new(graph, "g", NULL, &error));
    expect_error(&error, EEXIST, "Throttle group 'g' exists already");
    ck_assert_ptr_null(throttle_group_new(graph, "", NULL, &error));
    expect_error(&error, EINVAL, "needs a name");
    ck_assert_ptr_null(throttle_group_new(graph, "h", &wrong, &error));
    expect_error(&error, EINVAL, "Throttle group 'h': Limit 'iops-size' (5)");
    a = disk_ok('a');
    throttle_group_unref(group);
    ck_assert_ptr_eq(throttle_group_find(graph, "g"), group);
    disk_done(&a);
    group = NULL;
    ck_assert_ptr_null(throttle_group_find(graph, "g"));
}
END_TEST

START_TEST(reopen_moves_a_node_to_another_group)
{
    GError *error = NULL;
    ThrottleGroup *other;
    Disk a;

    given("iops-total=10");
    other = group_ok("other", "");
    a = disk_ok('a');
    send_all(&a, "123", true);
    ck_assert_str_eq(ended->str, "12");
    ck_assert_int_lt(bdrv_reopen(a.bs, opts("throttle,throttle-group=none"),
                                 &error), 0);
    expect_error(&error, 0, "throttle group 'none' not found");
    ck_assert_int_eq(bdrv_reopen(a.bs, opts("throttle,throttle-group=other"),
                                 &error), 0);
    send_all(&a, "45678", true);
    ck_assert_str_eq(ended->str, "12345678");
    throttle_group_unref(other);
    ck_assert_ptr_eq(throttle_group_find(graph, "other"), other);
    disk_done(&a);
}
END_TEST

START_TEST(wrong_options_are_refused_with_name_and_value)
{
    BlockDriverState *mem = open_ok("mem,node-name=mem");

    given("");
    open_fails("throttle,node-name=t,file=mem", EINVAL,
               "Node 't' (driver 'throttle'): option 'throttle-group' is "
               "required");
    open_fails("throttle,node-name=t,file=mem,throttle-group=x", ENOENT,
               "throttle group 'x' not found");
    open_fails("throttle,node-name=t,throttle-group=g", EINVAL,
               "a node for 'file' must be given");
    open_fails("throttle,node-name=t,file=mem,throttle-group=g,iops-total=5",
               EINVAL, "iops-total");
    ck_assert_uint_eq(throttle_group_nr_waiting(group), 0);
    bdrv_unref(mem);
}
END_TEST

START_TEST(a_throttled_node_can_be_resized)
{
    BlockTruncate how = { .offset = 12345, .exact = true };
    Disk a;

    given("");
    a = disk_ok('a');
    ck_assert_int_eq(blk_truncate(a.blk, &how, NULL), 0);
    ck_assert_int_eq(mem_disk(a.mem)->length, 12345);
    ck_assert_int_eq(blk_getlength(a.blk), 12345);
    disk_done(&a);
}
END_TEST

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 3, DEPTH = 4, ROUNDS = 400 };

typedef struct Guest {
    IOThread *iothread;
    BlockBackend *blk;
    struct GuestSlot {
        struct Guest *guest;
        BlockIOVec1 iov;
        char buf[512];
        int left;
    } slots[DEPTH];
    _Atomic int ended;
} Guest;

static void slot_send(struct GuestSlot *slot);

static void slot_done(void *opaque, int ret)
{
    struct GuestSlot *slot = opaque;

    g_assert(ret == 0);
    if (--slot->left == 0) {
        atomic_fetch_add(&slot->guest->ended, 1);
        return;
    }
    slot_send(slot);
}

static void slot_send(struct GuestSlot *slot)
{
    BlockIOVec *iov = block_iov_buf(&slot->iov, slot->buf, 512);

    if (slot->left % 2) {
        blk_aio_preadv(slot->guest->blk, 0, iov, 0, slot_done, slot);
    } else {
        blk_aio_pwritev(slot->guest->blk, 0, iov, 0, slot_done, slot);
    }
}

static void guest_start(void *opaque)
{
    Guest *g = opaque;

    for (int i = 0; i < DEPTH; i++) {
        g->slots[i].guest = g;
        g->slots[i].left = ROUNDS;
        slot_send(&g->slots[i]);
    }
}

/* Three threads on two nodes of a group whose limits and nodes change. */
START_TEST(several_threads_share_a_group_and_no_request_is_lost)
{
    static Guest guests[THREADS];
    ThrottleConfig config = { 0 };
    Disk a, b;
    int left = 1;

    group = group_ok("g", "iops-total=1000");
    a = disk_ok('a');
    b = disk_ok('b');
    for (int i = 0; i < THREADS; i++) {
        guests[i].blk = i == 0 ? b.blk : a.blk;
        guests[i].iothread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);
        aio_bh_schedule_oneshot(iothread_get_aio_context(guests[i].iothread),
                                guest_start, &guests[i]);
    }
    for (int round = 0; left > 0; round++) {
        if (round % 16 == 0) { /* each time the burst is used up at once */
            config.limits[THROTTLE_IOPS_TOTAL].avg = 500 + round % 7 * 500;
            throttle_group_set_config(group, &config, NULL);
        }
        bdrv_drained_begin(a.bs);
        ck_assert_int_eq(blk_in_flight(a.blk), 0);
        bdrv_drained_end(a.bs);
        for (int i = 0; i < 20; i++) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        left = THREADS * DEPTH;
        for (int i = 0; i < THREADS; i++) {
            left -= atomic_load(&guests[i].ended);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_free(guests[i].iothread);
    }
    ck_assert_uint_eq(throttle_group_nr_waiting(group), 0);
    ck_assert_uint_eq(mem_disk(a.mem)->count[MEM_WRITE] +
                      mem_disk(b.mem)->count[MEM_WRITE],
                      THREADS * DEPTH * ROUNDS / 2);
    disk_done(&a);
    disk_done(&b);
}
END_TEST

static void register_twice(void)
{
    static const BlockDriver twice = {
        .struct_size = sizeof(BlockDriver),
        .name = "twice",
        .kind = BLOCK_DRIVER_FORMAT,
        .open = twice_open,
        .preadv = twice_preadv,
        .getlength = twice_getlength,
    };

    if (bdrv_register(&twice, NULL) < 0) {
        abort();
    }
}

START_TEST(each_reference_keeps_a_group_and_its_name)
{
    ThrottleGroup *g = group_ok("kept", "iops-total=1");

    ck_assert_ptr_eq(throttle_group_ref(g), g);
    throttle_group_unref(g);
    ck_assert_ptr_eq(throttle_group_find(graph, "kept"), g);
    throttle_group_unref(g);
    ck_assert_ptr_null(throttle_group_find(graph, "kept"));
    throttle_group_unref(NULL);
}
END_TEST

START_TEST(a_refused_reopen_stays_in_the_old_group_and_lets_go_of_the_new)
{
    ThrottleGroup *old = group_ok("old", "iops-total=1000000");
    ThrottleGroup *new = group_ok("new", "iops-total=1000000");
    BlockDriverState *bs =
        open_ok("throttle,throttle-group=old,file.driver=mem");
    GError *error = NULL;

    ck_assert_int_eq(bdrv_reopen(bs, opts("throttle,throttle-group=new,"
                                          "nonsense=1"), &error), -EINVAL);
    expect_error(&error, EINVAL, "nonsense");
    throttle_group_unref(new);
    ck_assert_ptr_null(throttle_group_find(graph, "new"));
    throttle_group_unref(old);
    ck_assert_ptr_eq(throttle_group_find(graph, "old"), old);
    bdrv_unref(bs);
    ck_assert_ptr_null(throttle_group_find(graph, "old"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("throttle-group");
    TCase *tcase = tcase_create("throttle-group");

    mem_register();
    register_twice();
    register_slow();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, requests_of_one_member_go_in_order_as_time_passes);
    PROMISE(tcase, members_take_turns_however_much_each_sends);
    PROMISE(tcase, reads_and_writes_take_turns_under_a_common_limit);
    PROMISE(tcase, a_limit_of_writes_does_not_hold_up_reads);
    PROMISE(tcase, a_request_that_comes_late_does_not_overtake);
    PROMISE(tcase, all_kinds_of_writes_count_and_a_flush_does_not);
    PROMISE(tcase, timers_let_requests_go_without_help);
    PROMISE(tcase, a_drained_section_lets_its_requests_go_and_no_others);
    PROMISE(tcase, inside_a_drained_section_no_request_waits_at_all);
    PROMISE(tcase, a_member_goes_while_its_requests_wait);
    PROMISE(tcase, a_node_is_not_drained_any_more_when_it_has_been_closed);
    PROMISE(tcase, new_limits_hold_at_once_for_requests_that_wait);
    PROMISE(tcase, a_stricter_limit_holds_for_a_head_that_had_a_timer);
    PROMISE(tcase, groups_have_names_and_live_as_long_as_they_are_used);
    PROMISE(tcase, reopen_moves_a_node_to_another_group);
    PROMISE(tcase, wrong_options_are_refused_with_name_and_value);
    PROMISE(tcase, a_throttled_node_can_be_resized);
    PROMISE(tcase, several_threads_share_a_group_and_no_request_is_lost);
    PROMISE(tcase, each_reference_keeps_a_group_and_its_name);
    PROMISE(tcase,
            a_refused_reopen_stays_in_the_old_group_and_lets_go_of_the_new);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
