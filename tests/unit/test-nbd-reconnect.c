/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "nbd" when its connection goes, or it goes itself.
 */
#include "nbd-liar.h"
#include "slow-names.h"

#include "block/protocols/nbd/nbd.h"

#include <blockgraph/backend.h>
#include <netinet/tcp.h>
#include <poll.h>

#define GIB (INT64_C(1) << 30)

/* Between two bytes of a server that is slow: far less than any time limit. */
#define DRIBBLE_MS 20

static BlockDriverState *client_open(const char *more)
{
    g_autofree char *text =
        g_strdup_printf("nbd,node-name=client,server.type=unix,"
                        "server.path=%s,export=d%s", nbd_path, more);

    return open_ok(text);
}

/* End client and server; whoever connects is not let in any more. */
static void part(Liar *liar, BlockBackend *blk, BlockDriverState *bs)
{
    shutdown(liar->listener, SHUT_RDWR);
    blk_unref(blk);
    bdrv_unref(bs);
    liar_end(liar);
}

/* --- a server that is another one when it is back ------------------------- */

/* The first one knows 64-bit headers, and goes with the first request; the
 * second has 32-bit lengths, and does all it is asked. */
static void forget_headers(int fd, int n)
{
    uint8_t request[NBD_EXTENDED_REQUEST_BYTES], head[20];

    honest_greeting(fd, 16 * GIB, NBD_FLAG_SEND_WRITE_ZEROES, n == 0);
    if (n == 0) {
        hear(fd, request, sizeof(request));
        return;
    }
    while (hear(fd, request, NBD_REQUEST_BYTES)) {
        be(be(be(head, NBD_STRUCTURED_REPLY_MAGIC, 4), NBD_REPLY_FLAG_DONE, 2),
           NBD_REPLY_NONE, 2);
        memcpy(head + 8, request + 8, 8);
        be(head + 16, 0, 4);
        say(fd, head, sizeof(head));
    }
}

START_TEST(a_request_is_never_cut_for_a_server_with_smaller_headers)
{
    BlockDriverState *bs;
    BlockBackend *blk;
    Liar liar;

    liar_start_many(&liar, forget_headers, 0, 2);
    bs = client_open(",reconnect-delay=1");
    blk = backend_ok("user", bs, BLK_PERM_WRITE, BLK_PERM_ALL);
    bdrv_unref(bs);
    /* In 32 bits that is 1 GiB. */
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 5 * GIB,
                                       BDRV_REQ_MAY_UNMAP), -EIO);
    blk_unref(blk);
    liar_end(&liar);
}
END_TEST

/* --- close ---------------------------------------------------------------- */

/* Reads nothing; says that it has no more to say when it is told to. */
static int gate[2];

static void stop_talking(int fd, int n)
{
    char c;

    honest_greeting(fd, MIB, NBD_FLAG_SEND_FLUSH, false);
    ck_assert_int_eq(read(gate[0], &c, 1), 1);
    shutdown(fd, SHUT_WR);
    ck_assert_int_eq(read(gate[0], &c, 1), 1);
}

static void coroutine_fn close_entry(void *opaque)
{
    BlockDriverState **bs = opaque;

    bdrv_co_unref(*bs);
    *bs = NULL;
}

/* Dies of the request, whenever it comes. */
static void die_of_request(int fd, int n)
{
    uint8_t cookie[8];

    honest(fd, cookie);
}

START_TEST(a_request_that_its_server_dies_of_fails_after_the_delay)
{
    BlockDriverState *bs;
    uint8_t buf[4096];
    BlockBackend *blk;
    Liar liar;

    liar_start_many(&liar, die_of_request, 0, 1 << 20);
    bs = client_open(",read-only=on,reconnect-delay=1");
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pread(blk, 4096, 4096, buf, 0), -EIO);
    part(&liar, blk, bs);
}
END_TEST

START_TEST(a_connection_may_end_while_close_says_farewell)
{
    static const char junk[4096];
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *bs;
    NbdClient *s;
    Liar liar;
    int fd;

    ck_assert_int_eq(pipe(gate), 0);
    liar_start(&liar, stop_talking, 0);
    bs = client_open(",read-only=on");
    s = bdrv_opaque(bs);
    fd = aio_socket_fd(s->conns[0].channel->socket);
    while (send(fd, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
        continue;               /* no room for one more word */
    }
    aio_co_schedule(ctx, coroutine_create(close_entry, &bs));
    turn();
    ck_assert_ptr_nonnull(bs);
    ck_assert_int_eq(write(gate[1], "1", 1), 1);
    while (bs) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(write(gate[1], "2", 1), 1);
    liar_end(&liar);
    close(gate[0]);
    close(gate[1]);
}
END_TEST

/* --- a server that says nothing ------------------------------------------- */

/* Takes a request each time, and waits for the client to go. */
static void take_and_wait(int fd, int n)
{
    uint8_t cookie[8];
    char c;

    honest(fd, cookie);
    while (hear(fd, &c, 1)) {
        continue;
    }
}

static void request_done(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

/*
 * Row: whether requests may wait for a server, which is as silent the second
 * time.  Drained or not, it is given up.
 */
START_TEST(a_server_that_is_silent_for_too_long_is_given_up)
{
    static uint8_t buf[512];
    BlockDriverState *bs;
    BlockBackend *blk;
    BlockIOVec1 iov;
    int ret = 1;
    Liar liar;

    liar_start_many(&liar, take_and_wait, 0, 1 << 20);
    bs = client_open(_i ? ",read-only=on,request-timeout=1"
                        : ",read-only=on,request-timeout=1,"
                          "reconnect-delay=3600");
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, 512), 0, request_done,
                   &ret);
    blk_drain(blk);
    ck_assert_int_eq(ret, -EIO);
    part(&liar, blk, bs);
}
END_TEST

/* Answers all but what is asked of the first sector. */
static void forget_the_first(int fd, int n)
{
    uint8_t request[NBD_REQUEST_BYTES], reply[20 + 8 + 512] = { 0 };

    honest_greeting(fd, MIB, NBD_FLAG_SEND_FLUSH, false);
    be(be(be(reply, NBD_STRUCTURED_REPLY_MAGIC, 4), NBD_REPLY_FLAG_DONE, 2),
       NBD_REPLY_OFFSET_DATA, 2);
    be(reply + 16, 8 + 512, 4);
    while (hear(fd, request, sizeof(request))) {
        memcpy(reply + 8, request + 8, 8);
        memcpy(reply + 20, request + 16, 8);
        if (from_be(request + 16, 8) > 0) {
            say(fd, reply, sizeof(reply));
        }
    }
}

START_TEST(a_request_that_is_forgotten_ends_though_others_are_answered)
{
    static uint8_t buf[512];
    uint8_t other[512];
    BlockDriverState *bs;
    BlockBackend *blk;
    BlockIOVec1 iov;
    int ret = 1;
    Liar liar;

    liar_start_many(&liar, forget_the_first, 0, 1 << 20);
    bs = client_open(",read-only=on,request-timeout=1");
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, 512), 0, request_done,
                   &ret);
    while (ret == 1) {
        blk_pread(blk, 4096, 512, other, 0);
    }
    ck_assert_int_eq(ret, -EIO);
    part(&liar, blk, bs);
}
END_TEST

/* Takes one request, and no more; answers it with a byte at a time. */
static void dribble(int fd, int n)
{
    struct pollfd hang_up = { .fd = fd, .events = POLLRDHUP };
    uint8_t head[20 + 8] = { 0 };

    be(be(be(head, NBD_STRUCTURED_REPLY_MAGIC, 4), NBD_REPLY_FLAG_DONE, 2),
       NBD_REPLY_OFFSET_DATA, 2);
    be(head + 16, 8 + 65536, 4);
    honest(fd, head + 8);
    if (say(fd, head, sizeof(head))) {
        /* Time goes by, which is what this is about, until it hangs up. */
        while (poll(&hang_up, 1, DRIBBLE_MS) == 0 && say(fd, "", 1)) {
            continue;
        }
    }
}

START_TEST(a_reply_that_dribbles_keeps_no_request_for_ever)
{
    g_autofree uint8_t *data = g_malloc0(MIB / 2);
    static uint8_t buf[65536];
    int read_ret = 1, write_ret = 1;
    BlockIOVec1 iov, write_iov;
    BlockDriverState *bs;
    BlockBackend *blk;
    Liar liar;

    liar_start_many(&liar, dribble, 0, 1 << 20);
    bs = client_open(",request-timeout=1");
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, sizeof(buf)), 0,
                   request_done, &read_ret);
    turn();
    blk_aio_pwritev(blk, MIB / 2, block_iov_buf(&write_iov, data, MIB / 2), 0,
                    request_done, &write_ret); /* more than a socket takes */
    blk_drain(blk);
    ck_assert_int_eq(read_ret, -EIO);
    ck_assert_int_eq(write_ret, -EIO);
    part(&liar, blk, bs);
}
END_TEST

/* --- over TCP ------------------------------------------------------------- */

/* A client with a server at a port of this machine. */
static BlockDriverState *connected(const char *more, unsigned *ret_port)
{
    g_autofree char *text = NULL;

    open_ok("mem,node-name=disk,size=1M");
    ck_assert_int_eq(blk_nbd_server_start(graph, opts(
        "addr.type=inet,addr.host=127.0.0.1,addr.port=0"), NULL), 0);
    export_add("");
    *ret_port = server_info().port;
    text = g_strdup_printf("nbd,host=somewhere,port=%u,export=d,read-only=on%s",
                           *ret_port, more);
    return open_ok(text);
}

static void server_goes(void)
{
    BlockDriverState *disk = bdrv_find_node(graph, "disk");

    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
}

/* What is under way when it is called stays so. */
static void closes_at_once(BlockDriverState *bs)
{
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(close_entry, &bs));
    turn();
    ck_assert_ptr_null(bs);
}

START_TEST(close_does_not_wait_for_a_name_server)
{
    unsigned port, asked;
    BlockDriverState *bs = connected("", &port);

    asked = names_asked;
    names_held = true;
    server_goes();
    while (names_asked == asked) {  /* by another thread */
        aio_poll(block_graph_aio_context(graph), false);
    }
    closes_at_once(bs);
    ck_assert(names_held);
    names_release(names_asked);
}
END_TEST

START_TEST(close_does_not_wait_for_a_server_that_does_not_take_connections)
{
    unsigned port;
    BlockDriverState *bs = connected("", &port);
    NbdClient *s = bdrv_opaque(bs);
    int in, listener;

    server_goes();
    listener = full_listener(port, &in);
    while (!s->conns[0].attempt.socket) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    closes_at_once(bs);
    close(in);
    close(listener);
}
END_TEST

START_TEST(a_drain_does_not_wait_for_a_server_that_does_not_take_connections)
{
    unsigned port;
    BlockDriverState *bs = connected(",reconnect-delay=3600", &port);
    BlockBackend *blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ,
                                   BLK_PERM_ALL);
    NbdClient *s = bdrv_opaque(bs);
    static uint8_t buf[512];
    BlockIOVec1 iov;
    int in, listener, ret = 1;

    server_goes();
    listener = full_listener(port, &in);
    while (!s->conns[0].attempt.socket) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, 512), 0, request_done,
                   &ret);
    turn();
    ck_assert_int_eq(ret, 1);
    blk_drain(blk);
    ck_assert_int_eq(ret, -EIO);
    ck_assert_ptr_nonnull(s->conns[0].attempt.socket);
    blk_unref(blk);
    closes_at_once(bs);
    close(in);
    close(listener);
}
END_TEST

static int how_it_ended;        /* errno, or 0: an orderly end */

static void read_when_told(int fd, int n)
{
    static char buf[65536];
    ssize_t got;
    char c;

    honest_greeting(fd, 16 * MIB, NBD_FLAG_SEND_FLUSH, false);
    ck_assert_int_eq(read(gate[0], &c, 1), 1);
    do {
        got = recv(fd, buf, sizeof(buf), 0);
    } while (got > 0);
    how_it_ended = got < 0 ? errno : 0;
}

static void liar_start_tcp(Liar *liar, void (*play)(int fd, int n),
                           unsigned *ret_port)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t bytes = sizeof(in);

    *liar = (Liar){ .play = play, .nr_connections = 1,
                    .listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC,
                                       0) };
    ck_assert_int_eq(bind(liar->listener, (struct sockaddr *)&in, bytes), 0);
    ck_assert_int_eq(listen(liar->listener, 1), 0);
    getsockname(liar->listener, (struct sockaddr *)&in, &bytes);
    *ret_port = ntohs(in.sin_port);
    ck_assert_int_eq(pthread_create(&liar->thread, NULL, liar_thread, liar),
                     0);
}

/* Else the server would get the end of it after what comes over another. */
START_TEST(what_was_not_taken_is_taken_back_when_a_connection_is_given_up)
{
    g_autofree uint8_t *buf = g_malloc0(8 * MIB);
    g_autofree char *text = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;
    unsigned port;
    Liar liar;

    ck_assert_int_eq(pipe(gate), 0);
    liar_start_tcp(&liar, read_when_told, &port);
    text = g_strdup_printf("nbd,host=127.0.0.1,port=%u,export=d,"
                           "request-timeout=1", port);
    bs = open_ok(text);
    blk = backend_ok("user", bs, BLK_PERM_WRITE, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pwrite(blk, 0, 8 * MIB, buf, 0), -EIO);
    ck_assert_int_eq(write(gate[1], "1", 1), 1);
    liar_end(&liar);
    ck_assert_int_eq(how_it_ended, ECONNRESET);
    blk_unref(blk);
    bdrv_unref(bs);
    close(gate[0]);
    close(gate[1]);
}
END_TEST

/* Only the system can notice that, and does when it is told to. */
START_TEST(a_peer_that_vanishes_with_data_in_flight_is_given_up)
{
    static const struct {
        const char *more;
        unsigned ms;
    } rows[] = {
        { "", 60 * 1000 }, { ",peer-timeout=7", 7000 },
        { ",peer-timeout=0", 0 },
    };
    unsigned port, ms = 1;
    BlockDriverState *bs = connected(rows[_i].more, &port);
    NbdClient *s = bdrv_opaque(bs);
    int fd = aio_socket_fd(s->conns[0].channel->socket), on = 0;
    socklen_t bytes = sizeof(ms);

    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms,
                                &bytes), 0);
    ck_assert_uint_eq(ms, rows[_i].ms);
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &bytes),
                     0);
    ck_assert_int_eq(on, 1);
    bdrv_unref(bs);
    server_goes();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd-reconnect");
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, nbd_setup, nbd_teardown);
    tcase_set_timeout(tcase, 30);
    PROMISE(tcase, a_request_is_never_cut_for_a_server_with_smaller_headers);
    PROMISE(tcase, a_request_that_its_server_dies_of_fails_after_the_delay);
    PROMISE(tcase, a_connection_may_end_while_close_says_farewell);
    PROMISE(tcase,
            what_was_not_taken_is_taken_back_when_a_connection_is_given_up);
    tcase_add_loop_test(
        tcase, a_server_that_is_silent_for_too_long_is_given_up, 0, 2);
    PROMISE(tcase,
            a_request_that_is_forgotten_ends_though_others_are_answered);
    PROMISE(tcase, a_reply_that_dribbles_keeps_no_request_for_ever);
    PROMISE(tcase, close_does_not_wait_for_a_name_server);
    PROMISE(tcase,
            close_does_not_wait_for_a_server_that_does_not_take_connections);
    PROMISE(tcase,
            a_drain_does_not_wait_for_a_server_that_does_not_take_connections);
    tcase_add_loop_test(
        tcase, a_peer_that_vanishes_with_data_in_flight_is_given_up, 0, 3);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
