/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: requests fail and stop where they are told to, in any thread.
 */
#include "mem-driver.h"
#include "request-fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

static BlockDriverState *disk;
static BlockDriverState *node;
static BlockBackend *blk;
static MemDisk *mem;

/* A disk of the options @below, blkdebug with the JSON members @json on it. */
static void given_on(const char *below, const char *json)
{
    g_autofree char *text = g_strdup_printf(
        "{\"driver\": \"blkdebug\", \"node-name\": \"debug\","
        " \"discard\": \"unmap\", \"image\": \"disk\"%s%s}", *json ? "," : "",
        json);
    g_autoptr(GError) error = NULL;
    BlockOptions *options;

    disk = open_ok(below);
    mem = mem_disk(disk);
    options = block_options_parse_json(text, &error);
    ck_assert_msg(options != NULL, "%s", error ? error->message : "");
    node = bdrv_open(graph, options, &error);
    ck_assert_msg(node != NULL, "%s", error ? error->message : "");
    blk = backend_ok("guest", node, READ | WRITE | RESIZE, ALL);
}

static void given(const char *json)
{
    given_on("mem,node-name=disk,discard=unmap", json);
}

static void done(void)
{
    blk_unref(blk);
    bdrv_unref(node);
    bdrv_unref(disk);
}

/* --- errors --------------------------------------------------------------- */

static char buf[65536];

START_TEST(without_rules_everything_passes)
{
    BlockExtent extent;

    given("");
    memset(mem->data, 7, 4096);
    ck_assert_int_eq(blk_getlength(blk), 65536);
    ck_assert_int_eq(blk_pread(blk, 1, 2, buf, 0), 0);
    ck_assert_int_eq(buf[1], 7);
    ck_assert_int_eq(blk_pwrite(blk, 1, 2, "ab", BDRV_REQ_FUA), 0);
    ck_assert_mem_eq(mem->data, "\7ab\7", 4);
    ck_assert_uint_eq(mem->last[MEM_WRITE].flags, BDRV_REQ_FUA);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 1, 1, 0), 0);
    ck_assert_mem_eq(mem->data, "\7\0b\7", 4);
    ck_assert_int_eq(blk_pdiscard(blk, 0, 4096), 0);
    ck_assert_uint_eq(mem->count[MEM_DISCARD], 1);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    ck_assert_int_eq(blk_block_status(blk, 0, 65536, &extent), 0);
    ck_assert_int_eq(extent.bytes, 4096);
    done();
}
END_TEST

START_TEST(each_kind_of_request_fails_when_told_and_the_disk_never_sees_it)
{
    static const char *const types[] = { "read", "write", "write-zeroes",
                                         "discard", "flush", "block-status" };

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree char *json = g_strdup_printf(
            "\"inject-error\": [{\"event\": \"none\", \"errno\": 22,"
            " \"iotype\": \"%s\"}]", types[i]);
        BlockExtent extent;
        int results[6];

        given(json);
        results[0] = blk_pread(blk, 0, 512, buf, 0);
        results[1] = blk_pwrite(blk, 0, 512, buf, 0);
        results[2] = blk_pwrite_zeroes(blk, 0, 512, 0);
        results[3] = blk_pdiscard(blk, 0, 512);
        results[4] = blk_flush(blk);
        results[5] = blk_block_status(blk, 0, 512, &extent);
        for (unsigned j = 0; j < 6; j++) {
            ck_assert_int_eq(results[j], i == j ? -22 : 0);
        }
        for (unsigned j = 0; j < 5; j++) {
            static const MemOp ops[] = { MEM_READ, MEM_WRITE, MEM_ZERO,
                                         MEM_DISCARD, MEM_FLUSH };

            ck_assert_uint_eq(mem->count[ops[j]], i == j ? 0 : 1);
        }
        done();
    }
}
END_TEST

START_TEST(reads_and_writes_are_events_of_their_own)
{
    given("\"inject-error\": [{\"event\": \"write_aio\", \"errno\": 28,"
          "                    \"once\": true}],"
          "\"set-state\": [{\"event\": \"read_aio\", \"new_state\": 2}]");
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -28);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    done();
}
END_TEST

START_TEST(events_of_the_core_count)
{
    given("\"align\": 512, \"inject-error\": ["
          "{\"event\": \"pwritev_rmw_head\", \"errno\": 9,"
          " \"iotype\": \"read\", \"once\": true},"
          "{\"event\": \"flush_to_disk\", \"errno\": 10, \"once\": true}]");
    ck_assert_int_eq(blk_pwrite(blk, 100, 12, buf, 0), -9);
    ck_assert_int_eq(blk_pwrite(blk, 100, 12, buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), -10);
    ck_assert_int_eq(blk_flush(blk), 0);
    done();
}
END_TEST

/* A format that tells of what it does, as one that has tables would. */
static int coroutine_fn teller_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true, errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn teller_getlength(BlockDriverState *bs)
{
    return bdrv_length(bdrv_child_bs(bdrv_primary_child(bs)));
}

static int coroutine_fn teller_preadv(BlockDriverState *bs, const BlockIO *io)
{
    BlockDriverState *file = bdrv_child_bs(bdrv_primary_child(bs));

    bdrv_co_debug_event(file, "l2_load");
    bdrv_co_debug_event(file, "read_aio");
    bdrv_co_debug_event(file, "not an event");
    return bdrv_co_preadv(bdrv_primary_child(bs), io->offset, io->bytes,
                          io->iov, 0);
}

START_TEST(what_a_format_tells_counts_but_no_read_twice)
{
    BlockDriverState *top;
    BlockBackend *upper;

    given("\"set-state\": ["
          "{\"event\": \"l2_load\", \"state\": 1, \"new_state\": 2},"
          "{\"event\": \"read_aio\", \"state\": 2, \"new_state\": 3},"
          "{\"event\": \"read_aio\", \"state\": 3, \"new_state\": 4}],"
          "\"inject-error\": ["
          "{\"event\": \"write_aio\", \"state\": 3, \"errno\": 33,"
          " \"once\": true},"
          "{\"event\": \"write_aio\", \"state\": 4, \"errno\": 44}]");
    blk_unref(blk);
    blk = backend_ok("guest", node, READ | WRITE, ALL);
    top = open_ok("teller,file=debug");
    upper = backend_ok("upper", top, READ, ALL);
    ck_assert_int_eq(blk_pread(upper, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -33);
    ck_assert_int_eq(blk_pread(upper, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -44);
    blk_unref(upper);
    bdrv_unref(top);
    done();
}
END_TEST

/* --- break points --------------------------------------------------------- */

START_TEST(a_request_stops_at_a_break_point_until_it_is_resumed)
{
    Request first, second;

    given("");
    ck_assert_int_eq(bdrv_debug_breakpoint(node, "write_aio", "A"), 0);
    ck_assert(!bdrv_debug_is_suspended(node, "A"));
    ck_assert_int_eq(bdrv_debug_resume(node, "A"), -ENOENT);
    request_write(&first, blk, 0);
    settle();
    ck_assert(bdrv_debug_is_suspended(node, "A"));
    ck_assert(!bdrv_debug_is_suspended(node, "B"));
    ck_assert_int_eq(first.done, 0);
    request_write(&second, blk, 512); /* a break point is for one request */
    settle();
    ck_assert_int_eq(second.done, 1);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 1);
    ck_assert_int_eq(bdrv_debug_resume(node, "A"), 0);
    settle();
    ck_assert_int_eq(first.done, 1);
    ck_assert(!bdrv_debug_is_suspended(node, "A"));
    ck_assert_int_eq(bdrv_debug_resume(node, "A"), -ENOENT);
    done();
}
END_TEST

START_TEST(several_tags_at_one_event_hold_one_request_until_all_are_resumed)
{
    Request r;

    given("");
    bdrv_debug_breakpoint(node, "pwritev", "A");
    bdrv_debug_breakpoint(node, "pwritev", "B");
    request_write(&r, blk, 0);
    settle();
    ck_assert(bdrv_debug_is_suspended(node, "A"));
    ck_assert(bdrv_debug_is_suspended(node, "B"));
    ck_assert_int_eq(bdrv_debug_resume(node, "A"), 0);
    settle();
    ck_assert(!bdrv_debug_is_suspended(node, "A"));
    ck_assert_int_eq(r.done, 0);
    ck_assert_int_eq(bdrv_debug_resume(node, "B"), 0);
    settle();
    ck_assert_int_eq(r.done, 1);
    done();
}
END_TEST

START_TEST(removing_a_break_point_lets_all_its_requests_go)
{
    Request a, b, c;

    given("");
    ck_assert_int_eq(bdrv_debug_remove_breakpoint(node, "A"), -ENOENT);
    bdrv_debug_breakpoint(node, "write_aio", "A");
    request_write(&a, blk, 0);
    settle();
    bdrv_debug_breakpoint(node, "write_aio", "A");
    request_write(&b, blk, 512);
    settle();
    bdrv_debug_breakpoint(node, "write_aio", "A");
    ck_assert_int_eq(a.done + b.done, 0);
    ck_assert_int_eq(bdrv_debug_remove_breakpoint(node, "A"), 0);
    settle();
    ck_assert_int_eq(a.done, 1);
    ck_assert_int_eq(b.done, 1);
    request_write(&c, blk, 0);
    settle();
    ck_assert_int_eq(c.done, 1);
    done();
}
END_TEST

START_TEST(break_points_are_found_below_a_node_and_unknown_ones_refused)
{
    BlockDriverState *top;
    Request r;

    given("");
    top = open_ok("pass,file=debug");
    ck_assert_int_eq(bdrv_debug_breakpoint(top, "lunch", "A"), -ENOENT);
    ck_assert_int_eq(bdrv_debug_breakpoint(top, "write_aio", "A"), 0);
    request_write(&r, blk, 0);
    settle();
    ck_assert(bdrv_debug_is_suspended(top, "A"));
    ck_assert_int_eq(bdrv_debug_resume(top, "A"), 0);
    settle();
    ck_assert_int_eq(r.done, 1);
    bdrv_unref(top);
    ck_assert_int_eq(bdrv_debug_breakpoint(disk, "write_aio", "A"), -ENOTSUP);
    ck_assert_int_eq(bdrv_debug_remove_breakpoint(disk, "A"), -ENOTSUP);
    ck_assert_int_eq(bdrv_debug_resume(disk, "A"), -ENOTSUP);
    ck_assert(!bdrv_debug_is_suspended(disk, "A"));
    done();
}
END_TEST

START_TEST(a_drained_section_waits_for_a_stopped_request)
{
    Request r;

    given("");
    bdrv_debug_breakpoint(node, "write_aio", "A");
    request_write(&r, blk, 0);
    settle();
    ck_assert_int_eq(blk_in_flight(blk), 1);
    bdrv_debug_resume(node, "A");
    bdrv_drained_begin(node);
    ck_assert_int_eq(r.done, 1);
    bdrv_drained_end(node);
    done();
}
END_TEST

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 3, STOPS = 100 };

typedef struct Guest {
    IOThread *iothread;
    Request r;
    int64_t offset;
    _Atomic bool stop;
    _Atomic bool ended;
    _Atomic unsigned sent;
} Guest;

static void guest_send(void *opaque);

static void guest_done(void *opaque, int ret)
{
    Guest *g = opaque;

    g_assert(ret == 0);
    if (atomic_load(&g->stop)) {
        atomic_store(&g->ended, true);
        return;
    }
    guest_send(g);
}

static void guest_send(void *opaque)
{
    Guest *g = opaque;

    atomic_fetch_add(&g->sent, 1);
    blk_aio_pwritev(blk, g->offset, block_iov_buf(&g->r.iov, g->r.bytes, 512),
                    0, guest_done, g);
}

START_TEST(requests_of_other_threads_stop_and_go_on_from_here)
{
    Guest guests[THREADS] = { 0 };
    unsigned sent = 0;

    given("");
    for (int i = 0; i < THREADS; i++) {
        guests[i].offset = i * 512;
        guests[i].iothread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);
        aio_bh_schedule_oneshot(iothread_get_aio_context(guests[i].iothread),
                                guest_send, &guests[i]);
    }
    for (int i = 0; i < STOPS; i++) {
        const char *event = i % 2 ? "write_aio" : "pwritev_done";

        ck_assert_int_eq(bdrv_debug_breakpoint(node, event, "A"), 0);
        while (!bdrv_debug_is_suspended(node, "A")) {
            g_thread_yield();
        }
        if (i % 3) {
            ck_assert_int_eq(bdrv_debug_resume(node, "A"), 0);
        } else {
            ck_assert_int_eq(bdrv_debug_remove_breakpoint(node, "A"), 0);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        atomic_store(&guests[i].stop, true);
    }
    for (int i = 0; i < THREADS; i++) {
        while (!atomic_load(&guests[i].ended)) {
            g_thread_yield();
        }
        sent += guests[i].sent;
        iothread_free(guests[i].iothread);
    }
    ck_assert_uint_ge(sent, STOPS);
    ck_assert_uint_eq(mem->count[MEM_WRITE], sent);
    done();
}
END_TEST

/* --- limits and permissions ----------------------------------------------- */

START_TEST(the_node_has_the_limits_that_were_asked_for)
{
    given("\"align\": 512, \"max-transfer\": 1024, \"opt-write-zero\": 1536,"
          "\"max-write-zero\": 3072, \"opt-discard\": 2048,"
          "\"max-discard\": 4096");
    ck_assert_uint_eq(bdrv_request_alignment(node), 512);
    ck_assert_int_eq(blk_pwrite(blk, 0, 4096, buf, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 4);
    ck_assert_int_eq(blk_pread(blk, 0, 4096, buf, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_READ], 4);

    /* 512 | 1536 1536 | 512: the ends are refused, and written as data. */
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 1024, 4096, 0), 0);
    ck_assert_uint_eq(mem->count[MEM_ZERO], 1);
    ck_assert_int_eq(mem->last[MEM_ZERO].offset, 1536);
    ck_assert_int_eq(mem->last[MEM_ZERO].bytes, 3072);
    ck_assert_uint_eq(mem->count[MEM_WRITE], 6);

    ck_assert_int_eq(blk_pdiscard(blk, 512, 10240), 0);
    ck_assert_uint_eq(mem->count[MEM_DISCARD], 2);
    ck_assert_int_eq(mem->last[MEM_DISCARD].offset, 6144);
    ck_assert_int_eq(mem->last[MEM_DISCARD].bytes, 4096);
    done();
}
END_TEST

START_TEST(permissions_are_taken_and_kept_from_others_when_asked)
{
    BlockPerm perm;

    given("\"take-child-perms\": [\"write-unchanged\", \"resize\"],"
          "\"unshare-child-perms\": [\"write\", \"consistent-read\"]");
    blk_unref(blk);
    blk = backend_ok("reader", node, READ, ALL);
    perm = bdrv_child_perm(bdrv_find_child(node, "image"));
    ck_assert_uint_eq(perm.used, READ | RESIZE | BLK_PERM_WRITE_UNCHANGED);
    ck_assert_uint_eq(perm.shared, RESIZE | BLK_PERM_WRITE_UNCHANGED);
    done();
}
END_TEST

START_TEST(wrong_options_are_refused_with_name_and_value)
{
    static const struct { const char *options, *message; } cases[] = {
        { "align=513", "Node 'd' (driver 'blkdebug'): option 'align' (513) "
                       "must be a power of 2" },
        { "align=-1", "'align'" },
        { "align=512,max-transfer=513",
          "option 'max-transfer' (513) must be a multiple of 512" },
        { "align=512,opt-write-zero=700",
          "option 'opt-write-zero' (700) must be a multiple of 512" },
        { "opt-write-zero=1000,max-write-zero=1500",
          "option 'max-write-zero' (1500) must be a multiple of 1000" },
        { "align=512,opt-discard=1", "'opt-discard' (1)" },
        { "opt-discard=1000,max-discard=999", "'max-discard' (999)" },
        { "take-child-perms.0=all", "option 'take-child-perms' expects "
          "consistent-read, write, write-unchanged or resize, not 'all'" },
        { "unshare-child-perms.x=write",
          "option 'unshare-child-perms' expects a list" },
        { "inject-error.event=none", "'inject-error' expects a list" },
        { "inject-error.0=none", "inject-error.0: expects an object" },
        { "inject-error.0.event=none,inject-error.1.event=noon",
          "inject-error.1: option 'event' expects" },
        { "set-state.0.event=none", "set-state.0: option 'new_state' is" },
        { "config=/nonexistent/rules",
          "could not read the config '/nonexistent/rules'" },
        { "config=/", "could not read the config '/'" },
        { "config=/dev/zero", "could not read the config '/dev/zero'" },
        { "speed=7", "speed" },
    };

    disk = open_ok("mem,node-name=disk");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strdup_printf(
            "blkdebug,node-name=d,image=disk,%s", cases[i].options);

        open_fails(text, 0, cases[i].message);
    }
    open_fails("blkdebug,node-name=d", EINVAL,
               "a node for 'image' must be given");
    bdrv_unref(disk);
}
END_TEST

START_TEST(rules_come_from_a_file_as_well)
{
    char name[] = "/tmp/test-blkdebug-XXXXXX";
    static const char text[] = "[inject-error]\nevent = \"write_aio\"\n"
                               "errno = \"28\"\nonce = \"on\"\n";
    g_autofree char *json = NULL;
    g_autofree char *wrong = NULL;
    int fd = mkstemp(name);

    ck_assert_int_eq(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    json = g_strdup_printf("\"config\": \"%s\"", name);
    given(json);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -28);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(pwrite(fd, "[inject-horror]\n", 16, 0), 16);
    wrong = g_strdup_printf("blkdebug,node-name=d,image=disk,config=%s", name);
    open_fails(wrong, EINVAL, "line 1: unknown section 'inject-horror'");
    /* Nothing is left out without a word. */
    ck_assert_int_eq(pwrite(fd, "# fine\n\0[inject-horror]\n", 24, 0), 24);
    open_fails(wrong, EINVAL, "could not read the config");
    close(fd);
    unlink(name);
    done();
}
END_TEST

static void config_fails(const char *name, int err, const char *message)
{
    g_autofree char *text =
        g_strdup_printf("blkdebug,node-name=d,image=disk,config=%s", name);

    open_fails(text, err, message);
}

/* Nobody writes to the FIFO: whoever waited for that would wait for ever. */
START_TEST(a_config_that_is_no_short_regular_file_is_refused_at_once)
{
    char dir[] = "/tmp/test-blkdebug-XXXXXX";
    g_autofree char *fifo = NULL;
    g_autofree char *huge = NULL;
    int fd;

    given("\"align\": 512");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    fifo = g_strdup_printf("%s/fifo", dir);
    huge = g_strdup_printf("%s/huge", dir);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    fd = open(huge, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(ftruncate(fd, INT64_C(1) << 40), 0);
    close(fd);
    config_fails(fifo, EINVAL, "it is no regular file");
    config_fails(dir, EINVAL, "it is no regular file");
    config_fails("/dev/zero", EINVAL, "it is no regular file");
    config_fails(huge, EFBIG, "it is longer than 1 MiB");
    config_fails("/none/such", ENOENT, "No such file");
    unlink(huge);
    unlink(fifo);
    rmdir(dir);
    done();
}
END_TEST

static void register_teller(void)
{
    static const BlockDriver teller = {
        .struct_size = sizeof(BlockDriver),
        .name = "teller",
        .kind = BLOCK_DRIVER_FORMAT,
        .open = teller_open,
        .preadv = teller_preadv,
        .getlength = teller_getlength,
    };

    if (bdrv_register(&teller, NULL) < 0) {
        abort();
    }
}

int main(void)
{
    Suite *suite = suite_create("blkdebug");
    TCase *tcase = tcase_create("blkdebug");

    mem_register();
    register_pass_driver();
    register_teller();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, without_rules_everything_passes);
    PROMISE(tcase,
            each_kind_of_request_fails_when_told_and_the_disk_never_sees_it);
    PROMISE(tcase, reads_and_writes_are_events_of_their_own);
    PROMISE(tcase, events_of_the_core_count);
    PROMISE(tcase, what_a_format_tells_counts_but_no_read_twice);
    PROMISE(tcase, a_request_stops_at_a_break_point_until_it_is_resumed);
    PROMISE(tcase,
            several_tags_at_one_event_hold_one_request_until_all_are_resumed);
    PROMISE(tcase, removing_a_break_point_lets_all_its_requests_go);
    PROMISE(tcase,
            break_points_are_found_below_a_node_and_unknown_ones_refused);
    PROMISE(tcase, a_drained_section_waits_for_a_stopped_request);
    PROMISE(tcase, requests_of_other_threads_stop_and_go_on_from_here);
    PROMISE(tcase, the_node_has_the_limits_that_were_asked_for);
    PROMISE(tcase, permissions_are_taken_and_kept_from_others_when_asked);
    PROMISE(tcase, wrong_options_are_refused_with_name_and_value);
    PROMISE(tcase, rules_come_from_a_file_as_well);
    PROMISE(tcase,
            a_config_that_is_no_short_regular_file_is_refused_at_once);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
