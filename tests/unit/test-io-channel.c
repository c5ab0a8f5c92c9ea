/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets and streams of bytes in coroutines, on each engine.
 */
#include "aio-fixture.h"

#include "util/io-channel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)

/* Two ends of a stream, and what coroutines at them did. */
typedef struct Pair {
    AioContext *ctx;
    IoChannel *end[2];
    char buf[64];
    int64_t result[2];
    int nr_done;
    size_t bulk_bytes;
    uint8_t *bulk;
    int nr_turns;
} Pair;

static void pair_open(Pair *p, AioContext *ctx)
{
    int fd[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    *p = (Pair) { .ctx = ctx };
    for (int i = 0; i < 2; i++) {
        p->end[i] = io_channel_new_socket(fd[i]);
    }
}

static void pair_close(Pair *p)
{
    io_channel_unref(p->end[0]);
    io_channel_unref(p->end[1]);
    run_all(p->ctx);
    aio_context_unref(p->ctx);
}

static void pair_start(Pair *p, CoroutineEntry *entry)
{
    aio_context_bind(p->ctx);
    aio_co_enter(p->ctx, coroutine_create(entry, p));
}

static void wait_done(Pair *p, int nr)
{
    while (p->nr_done < nr) {
        aio_poll(p->ctx, true);
    }
}

/* @entry ends, and end 0 has the result @ret. */
static void ends_with(Pair *p, CoroutineEntry *entry, int64_t ret)
{
    int before = p->nr_done;

    pair_start(p, entry);
    wait_done(p, before + 1);
    ck_assert_int_eq(p->result[0], ret);
}

static void coroutine_fn read_some(void *opaque)
{
    Pair *p = opaque;

    p->result[0] = io_channel_read(p->end[0], p->buf, sizeof(p->buf));
    p->nr_done++;
}

static void coroutine_fn read_five(void *opaque)
{
    Pair *p = opaque;

    p->result[0] = io_channel_read_all(p->end[0], p->buf, 5);
    p->nr_done++;
}

static void put(Pair *p, const char *text)
{
    int fd = aio_socket_fd(p->end[1]->socket);

    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

START_TEST(a_read_returns_what_is_there_without_a_turn_of_the_loop)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    put(&p, "abc");
    pair_start(&p, read_some);
    ck_assert_int_eq(p.nr_done, 1);
    ck_assert_int_eq(p.result[0], 3);
    ck_assert_mem_eq(p.buf, "abc", 3);
    pair_close(&p);
}
END_TEST

START_TEST(a_read_waits_for_the_first_byte)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    for (int i = 1; i <= 3; i++) {
        pair_start(&p, read_some);
        run_all(ctx);
        ck_assert_int_eq(p.nr_done, i - 1);
        put(&p, "xyz");
        wait_done(&p, i);
        ck_assert_int_eq(p.result[0], 3);
    }
    pair_close(&p);
}
END_TEST

START_TEST(a_whole_read_goes_on_until_all_is_there)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    pair_start(&p, read_five);
    put(&p, "he");
    run_all(ctx);
    put(&p, "llo, world");
    wait_done(&p, 1);
    ck_assert_int_eq(p.result[0], 0);
    ck_assert_mem_eq(p.buf, "hello", 5);
    pair_close(&p);
}
END_TEST

START_TEST(the_end_of_the_stream_is_told_from_a_break_inside)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    put(&p, "hellohe");
    io_channel_unref(p.end[1]);
    p.end[1] = NULL;
    pair_start(&p, read_five);
    ck_assert_int_eq(p.result[0], 0);
    ends_with(&p, read_five, -ECONNRESET);
    ends_with(&p, read_five, -ENODATA);
    pair_close(&p);
}
END_TEST

START_TEST(a_shutdown_wakes_who_reads_and_refuses_what_comes_later)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    pair_start(&p, read_some);
    run_all(ctx);
    io_channel_shutdown(p.end[0]);
    io_channel_shutdown(p.end[0]);
    wait_done(&p, 1);
    ck_assert_int_eq(p.result[0], -ESHUTDOWN);
    pair_start(&p, read_some);
    ck_assert_int_eq(p.nr_done, 2);
    ck_assert_int_eq(p.result[0], -ESHUTDOWN);
    pair_close(&p);
}
END_TEST

START_TEST(a_read_ends_at_its_deadline)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    p.end[0]->read_deadline_ns = aio_clock_ns(ctx) + 20 * MS;
    ends_with(&p, read_some, -ETIMEDOUT);
    ck_assert_int_ge(aio_clock_ns(ctx), p.end[0]->read_deadline_ns);
    /* The stream itself lives on. */
    p.end[0]->read_deadline_ns = AIO_NO_DEADLINE;
    put(&p, "abc");
    ends_with(&p, read_some, 3);
    pair_close(&p);
}
END_TEST

/* --- writing ------------------------------------------------------------- */

static void coroutine_fn write_bulk(void *opaque)
{
    Pair *p = opaque;
    struct iovec iov[3] = {
        { NULL, 0 },
        { p->bulk, 1000 },
        { p->bulk + 1000, p->bulk_bytes - 1000 },
    };

    p->result[1] = io_channel_writev_all(p->end[1], iov, 3);
    p->nr_done++;
}

static void bulk_make(Pair *p, size_t bytes)
{
    p->bulk_bytes = bytes;
    p->bulk = g_malloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        p->bulk[i] = i * 7 + (i >> 9);
    }
}

static void coroutine_fn read_bulk(void *opaque)
{
    Pair *p = opaque;
    g_autofree uint8_t *got = g_malloc(p->bulk_bytes);
    size_t done = 0;

    while (done < p->bulk_bytes) {
        size_t half = (p->bulk_bytes - done + 1) / 2;
        struct iovec iov[2] = {
            { got + done, half },
            { got + done + half, p->bulk_bytes - done - half },
        };
        int64_t ret = io_channel_readv(p->end[0], iov, 2);

        ck_assert_int_gt(ret, 0);
        done += ret;
    }
    ck_assert_mem_eq(got, p->bulk, p->bulk_bytes);
    p->nr_done++;
}

START_TEST(a_write_waits_for_room_and_arrives_whole)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    bulk_make(&p, 16 << 20);
    pair_start(&p, write_bulk);
    ck_assert_int_eq(p.nr_done, 0);
    pair_start(&p, read_bulk);
    wait_done(&p, 2);
    ck_assert_int_eq(p.result[1], 0);
    g_free(p.bulk);
    pair_close(&p);
}
END_TEST

START_TEST(a_peer_that_does_not_read_is_given_up)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    bulk_make(&p, 16 << 20);
    p.end[1]->write_patience_ns = 20 * MS;
    pair_start(&p, write_bulk);
    wait_done(&p, 1);
    ck_assert_int_eq(p.result[1], -ETIMEDOUT);
    g_free(p.bulk);
    pair_close(&p);
}
END_TEST

START_TEST(both_sides_of_a_socket_can_wait_at_once)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    bulk_make(&p, 16 << 20);
    pair_start(&p, write_bulk);
    io_channel_unref(io_channel_ref(p.end[0]));
    /* The writer waits for room at end 1; now a reader waits there, too. */
    IoChannel *swap = p.end[0];
    p.end[0] = p.end[1];
    pair_start(&p, read_some);
    run_all(ctx);
    ck_assert_int_eq(p.nr_done, 0);
    io_channel_shutdown(p.end[1]);
    wait_done(&p, 2);
    ck_assert_int_eq(p.result[0], -ESHUTDOWN);
    ck_assert_int_eq(p.result[1], -ESHUTDOWN);
    p.end[0] = swap;
    g_free(p.bulk);
    pair_close(&p);
}
END_TEST

/* R39: the signal would kill a server whose client is gone. */
START_TEST(r39_a_write_to_a_peer_that_has_gone_is_an_error_and_no_signal)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    bulk_make(&p, 16 << 20);
    pair_start(&p, write_bulk);     /* waits in the engine */
    io_channel_unref(p.end[0]);
    p.end[0] = NULL;
    wait_done(&p, 1);
    ck_assert(p.result[1] == -EPIPE || p.result[1] == -ECONNRESET);
    pair_start(&p, write_bulk);     /* the plain call */
    wait_done(&p, 2);
    ck_assert_int_eq(p.result[1], -EPIPE);
    g_free(p.bulk);
    pair_close(&p);
}
END_TEST

/* --- a peer that never stops ---------------------------------------------- */

#define FLOOD (64 * 1024)

static void flood(Pair *p)
{
    static const char junk[FLOOD];

    ck_assert_int_eq(send(aio_socket_fd(p->end[1]->socket), junk, FLOOD,
                          MSG_NOSIGNAL), FLOOD);
}

static void coroutine_fn note_turn(void *opaque)
{
    Pair *p = opaque;

    p->nr_turns++;
}

/* Read it all in small pieces, or until another one had its turn. */
static void coroutine_fn read_flood(void *opaque)
{
    Pair *p = opaque;
    int64_t sum = 0, got = 0;

    aio_co_schedule(p->ctx, coroutine_create(note_turn, p));
    while (sum < FLOOD && got >= 0 && p->nr_turns == 0) {
        got = io_channel_read(p->end[0], p->buf, sizeof(p->buf));
        sum += got;
    }
    p->result[0] = got < 0 ? got : sum;
    p->nr_done++;
}

START_TEST(others_have_their_turn_while_a_peer_floods_us)
{
    AIO_TEST(ctx);
    Pair p;

    pair_open(&p, ctx);
    flood(&p);
    pair_start(&p, read_flood);
    wait_done(&p, 1);
    ck_assert_int_gt(p.result[0], 0);
    ck_assert_int_lt(p.result[0], FLOOD);
    pair_close(&p);
}
END_TEST

static void coroutine_fn read_flood_alone(void *opaque)
{
    Pair *p = opaque;

    p->result[0] = io_channel_read_all(p->end[0], p->bulk, 1);
    for (int i = 1; i < FLOOD && p->result[0] == 0; i++) {
        p->result[0] = io_channel_read_all(p->end[0], p->bulk, 1);
    }
    p->nr_done++;
}

START_TEST(a_peer_that_floods_us_does_not_hold_off_the_deadline)
{
    AIO_TEST(ctx);
    uint8_t byte;
    Pair p;

    pair_open(&p, ctx);
    flood(&p);
    p.bulk = &byte;
    p.end[0]->read_deadline_ns = aio_clock_ns(ctx) - 1;
    ends_with(&p, read_flood_alone, -ETIMEDOUT);
    pair_close(&p);
}
END_TEST

START_TEST(the_peer_of_a_unix_socket_is_known_by_its_uid)
{
    AIO_TEST(ctx);
    IoChannelPeer peer;
    g_autofree char *name = g_strdup_printf("uid %u", (unsigned)geteuid());
    Pair p;

    pair_open(&p, ctx);
    io_channel_get_peer(p.end[0], &peer);
    ck_assert(peer.has_uid && peer.is_loopback);
    ck_assert_uint_eq(peer.uid, geteuid());
    ck_assert_int_eq(peer.pid, getpid());
    ck_assert_str_eq(peer.name, name);
    pair_close(&p);
}
END_TEST

static Suite *io_channel_suite(void)
{
    Suite *suite = suite_create("io-channel");
    TCase *tc = new_tcase(suite, "reading");

    PROMISE_ENGINES(tc,
        a_read_returns_what_is_there_without_a_turn_of_the_loop);
    PROMISE_ENGINES(tc, a_read_waits_for_the_first_byte);
    PROMISE_ENGINES(tc, a_whole_read_goes_on_until_all_is_there);
    PROMISE_ENGINES(tc, the_end_of_the_stream_is_told_from_a_break_inside);
    PROMISE_ENGINES(tc,
        a_shutdown_wakes_who_reads_and_refuses_what_comes_later);
    PROMISE_ENGINES(tc, a_read_ends_at_its_deadline);
    PROMISE_ENGINES(tc, others_have_their_turn_while_a_peer_floods_us);
    PROMISE_ENGINES(tc, a_peer_that_floods_us_does_not_hold_off_the_deadline);
    tc = new_tcase(suite, "writing");
    PROMISE_ENGINES(tc, a_write_waits_for_room_and_arrives_whole);
    PROMISE_ENGINES(tc, a_peer_that_does_not_read_is_given_up);
    PROMISE_ENGINES(tc, both_sides_of_a_socket_can_wait_at_once);
    PROMISE_ENGINES(tc,
        r39_a_write_to_a_peer_that_has_gone_is_an_error_and_no_signal);
    PROMISE_ENGINES(tc, the_peer_of_a_unix_socket_is_known_by_its_uid);
    return suite;
}

int main(void)
{
    return check_main(io_channel_suite());
}
