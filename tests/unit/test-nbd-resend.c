/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "nbd": what becomes of requests, and of what was written, when a
 * connection is lost and there is another.
 */
#include "nbd-fixture.h"

#include "block/protocols/nbd/nbd.h"

#include <blockgraph/backend.h>

#define HALF 2048

static BlockDriverState *disk, *client;
static BlockBackend *blk;

/* The server, its export, and a client with @more options. */
static void serve(const char *more)
{
    g_autofree char *text =
        g_strdup_printf("nbd,node-name=client,server.type=unix,"
                        "server.path=%s,export=d%s", nbd_path, more);

    disk = open_ok("mem,node-name=disk,size=4M,discard=unmap");
    server_start("");
    export_add(",writable=on");
    client = open_ok(text);
    blk = backend_ok("user", client, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    turn();                     /* all its connections are there */
}

static void serve_no_more(void)
{
    blk_unref(blk);
    bdrv_unref(client);
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
}

static void server_comes_back(void)
{
    blk_nbd_server_stop(graph);
    server_start("");
    export_add(",writable=on");
}

/* The network loses connection @i. */
static void cut(unsigned i)
{
    NbdClient *s = bdrv_opaque(client);

    ck_assert(s->conns[i].ready);
    shutdown(aio_socket_fd(s->conns[i].channel->socket), SHUT_RDWR);
}

/* --- requests ------------------------------------------------------------- */

typedef struct Request {
    uint8_t buf[4096];
    BlockIOVec1 iov;
    bool done;
    int ret;
} Request;

static void request_done(void *opaque, int ret)
{
    Request *r = opaque;

    r->ret = ret;
    r->done = true;
}

static void start_write(Request *r, char what, int64_t offset)
{
    r->done = false;
    memset(r->buf, what, sizeof(r->buf));
    blk_aio_pwritev(blk, offset, block_iov_buf(&r->iov, r->buf, 4096), 0,
                    request_done, r);
}

static void start_read(Request *r, int64_t offset)
{
    r->done = false;
    blk_aio_preadv(blk, offset, block_iov_buf(&r->iov, r->buf, 4096), 0,
                   request_done, r);
}

static int end_of(Request *r)
{
    while (!r->done) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    return r->ret;
}

/* Who is held turns the loop, too. */
static void some_turns(void)
{
    for (int i = 0; i < 200; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/* The next request of this kind stays in the disk. */
static void catch_next(MemOp op)
{
    atomic_store(&mem_disk(disk)->catch_next[op], true);
}

static void wait_caught(void)
{
    while (!atomic_load(&mem_disk(disk)->caught)) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static void let_go(void)
{
    atomic_store(&mem_disk(disk)->caught, false);
}

static int write_4k(int64_t offset, unsigned flags)
{
    uint8_t buf[4096];

    memset(buf, 'w', sizeof(buf));
    return blk_pwrite(blk, offset, sizeof(buf), buf, flags);
}

/* --- order ---------------------------------------------------------------- */

/*
 *     first   [aaaa]       in the disk when the connection is lost
 *     second    [bbbb]     must not be answered before
 */
START_TEST(what_was_answered_is_not_overwritten_by_what_is_sent_again)
{
    static Request first, second;

    serve(",reconnect-delay=3600");
    catch_next(MEM_WRITE);
    start_write(&first, 'a', 0);
    wait_caught();
    start_write(&second, 'b', HALF);
    some_turns();
    cut(0);
    some_turns();
    let_go();
    ck_assert_int_eq(end_of(&first), 0);
    ck_assert_int_eq(end_of(&second), 0);
    ck_assert_int_eq(mem_disk(disk)->data[HALF - 1], 'a');
    ck_assert_int_eq(mem_disk(disk)->data[HALF], 'b');
    ck_assert_int_eq(mem_disk(disk)->data[HALF + 4095], 'b');
    serve_no_more();
}
END_TEST

START_TEST(only_writes_that_overlap_wait_for_each_other)
{
    static Request first, beside, reader;

    serve("");
    catch_next(MEM_WRITE);
    start_write(&first, 'a', 0);
    wait_caught();
    start_write(&beside, 'b', 4096);
    start_read(&reader, 0);
    ck_assert_int_eq(end_of(&beside), 0);
    ck_assert_int_eq(end_of(&reader), 0);
    ck_assert(!first.done);
    let_go();
    ck_assert_int_eq(end_of(&first), 0);
    serve_no_more();
}
END_TEST

/* --- without a delay, another connection ---------------------------------- */

START_TEST(without_a_delay_a_read_goes_to_another_connection)
{
    static Request reader;

    serve(",multi-conn=2");
    memset(mem_disk(disk)->data, 'd', 4096);
    catch_next(MEM_READ);
    start_read(&reader, 0);
    wait_caught();
    cut(0);
    some_turns();
    let_go();
    ck_assert_int_eq(end_of(&reader), 0);
    ck_assert_int_eq(reader.buf[4095], 'd');
    serve_no_more();
}
END_TEST

/* The server may still do what it has got, after what comes later. */
START_TEST(without_a_delay_a_write_that_was_sent_fails)
{
    static Request writer;

    serve(",multi-conn=2");
    catch_next(MEM_WRITE);
    start_write(&writer, 'a', 0);
    wait_caught();
    cut(0);
    some_turns();
    let_go();
    ck_assert_int_eq(end_of(&writer), -EIO);
    ck_assert_int_eq(write_4k(4096, 0), 0);
    serve_no_more();
}
END_TEST

/* --- what was not flushed ------------------------------------------------- */

START_TEST(a_flush_fails_when_the_server_may_have_lost_writes)
{
    serve(",reconnect-delay=3600");
    ck_assert_int_eq(write_4k(0, 0), 0);
    server_comes_back();
    ck_assert_int_eq(blk_flush(blk), -EIO);
    /* Others who wrote have to hear of it, too. */
    ck_assert_int_eq(write_4k(4096, 0), 0);
    ck_assert_int_eq(blk_flush(blk), -EIO);
    serve_no_more();
}
END_TEST

START_TEST(a_flush_that_is_sent_again_fails_if_writes_may_be_lost)
{
    static Request flush;

    serve(",reconnect-delay=3600");
    ck_assert_int_eq(write_4k(0, 0), 0);
    catch_next(MEM_FLUSH);
    blk_aio_flush(blk, request_done, &flush);
    wait_caught();
    cut(0);
    some_turns();
    let_go();
    ck_assert_int_eq(end_of(&flush), -EIO);
    serve_no_more();
}
END_TEST

START_TEST(a_flush_succeeds_when_there_was_nothing_to_lose)
{
    serve(",reconnect-delay=3600");
    ck_assert_int_eq(write_4k(0, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(write_4k(4096, BDRV_REQ_FUA), 0);
    server_comes_back();
    ck_assert_int_eq(write_4k(0, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    serve_no_more();
}
END_TEST

/* The connection that was there all the time tells that its server was. */
START_TEST(a_flush_succeeds_over_a_connection_as_old_as_the_writes)
{
    NbdClient *s;

    serve(",reconnect-delay=3600,multi-conn=2");
    s = bdrv_opaque(client);
    ck_assert_int_eq(write_4k(0, 0), 0);
    cut(_i);
    while (s->conns[_i].ready) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    while (!s->conns[_i].ready) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(blk_flush(blk), 0);
    /* Now both are as old as what follows. */
    ck_assert_int_eq(write_4k(4096, 0), 0);
    cut(!_i);
    some_turns();
    ck_assert_int_eq(blk_flush(blk), 0);
    serve_no_more();
}
END_TEST

/* The flush needs the first connection, which is full; the place is in the
 * second one. */
START_TEST(a_flush_that_waits_takes_no_place_from_others)
{
    static Request writer, flush, reader;
    NbdClient *s;

    serve(",multi-conn=2");
    s = bdrv_opaque(client);
    ck_assert_int_eq(write_4k(0, 0), 0);
    ck_assert_uint_lt(s->conns[0].born, s->conns[1].born);
    s->conns[0].in_flight += NBD_IN_FLIGHT_MAX;
    s->conns[1].in_flight += NBD_IN_FLIGHT_MAX - 1;
    catch_next(MEM_WRITE);
    start_write(&writer, 'a', 8192);
    wait_caught();
    blk_aio_flush(blk, request_done, &flush);
    some_turns();
    start_read(&reader, 0);
    some_turns();
    ck_assert(!flush.done && !reader.done);
    let_go();
    ck_assert_int_eq(end_of(&writer), 0);
    ck_assert_int_eq(end_of(&reader), 0);
    ck_assert(!flush.done);
    s->conns[0].in_flight -= NBD_IN_FLIGHT_MAX;
    s->conns[1].in_flight -= NBD_IN_FLIGHT_MAX - 1;
    ck_assert_int_eq(write_4k(0, 0), 0);
    ck_assert_int_eq(end_of(&flush), 0);
    serve_no_more();
}
END_TEST

/* --- a server that says nothing ------------------------------------------- */

/*
 * Each connection greets, and then there is no word; there is always one that
 * is ready.
 *
 * Row: whether requests may wait for a server, and what is asked.
 */
START_TEST(a_drained_section_does_not_wait_for_one_silence_after_another)
{
    static Request first, second;
    NbdClient *s;

    serve(_i & 1 ? ",request-timeout=1,multi-conn=4,reconnect-delay=3600"
                 : ",request-timeout=1,multi-conn=4");
    s = bdrv_opaque(client);
    ck_assert_int_eq(write_4k(0, 0), 0);
    bdrv_drained_begin(disk);   /* the server does nothing any more */
    if (_i < 2) {
        start_read(&first, 0);
        start_read(&second, 0);
    } else if (_i < 4) {
        start_write(&first, 'a', 0);
        start_write(&second, 'b', HALF); /* waits for the first */
    } else {
        second.done = false;
        start_read(&first, 0);
        blk_aio_flush(blk, request_done, &second);
    }
    blk_drain(blk);
    ck_assert(first.done && second.done);
    ck_assert_int_eq(first.ret, -EIO);
    ck_assert_int_eq(second.ret, -EIO);
    ck_assert_uint_le(s->nr_made, 4 + 2);
    bdrv_drained_end(disk);
    /* It was not the end of any server: the writes are there. */
    ck_assert(!s->lost_writes);
    serve_no_more();
}
END_TEST

START_TEST(a_silence_is_met_again_for_no_longer_than_the_delay)
{
    static Request reader;

    serve(",request-timeout=1,multi-conn=2,reconnect-delay=2");
    bdrv_drained_begin(disk);
    start_read(&reader, 0);
    ck_assert_int_eq(end_of(&reader), -EIO);
    bdrv_drained_end(disk);
    serve_no_more();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd-resend");
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, nbd_setup, nbd_teardown);
    tcase_set_timeout(tcase, 30);
    PROMISE(tcase,
            what_was_answered_is_not_overwritten_by_what_is_sent_again);
    PROMISE(tcase, only_writes_that_overlap_wait_for_each_other);
    PROMISE(tcase, without_a_delay_a_read_goes_to_another_connection);
    PROMISE(tcase, without_a_delay_a_write_that_was_sent_fails);
    PROMISE(tcase, a_flush_fails_when_the_server_may_have_lost_writes);
    PROMISE(tcase,
            a_flush_that_is_sent_again_fails_if_writes_may_be_lost);
    PROMISE(tcase, a_flush_succeeds_when_there_was_nothing_to_lose);
    tcase_add_loop_test(
        tcase, a_flush_succeeds_over_a_connection_as_old_as_the_writes, 0, 2);
    PROMISE(tcase, a_flush_that_waits_takes_no_place_from_others);
    tcase_add_loop_test(
        tcase, a_drained_section_does_not_wait_for_one_silence_after_another,
        0, 6);
    PROMISE(tcase, a_silence_is_met_again_for_no_longer_than_the_delay);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
