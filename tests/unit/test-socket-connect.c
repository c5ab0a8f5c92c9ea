/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting, and no longer than somebody wants it.
 */
#include "aio-fixture.h"
#include "slow-names.h"

#include "util/socket-connect.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* So many attempts at 127.0.0.2 are told to come again, as by a full queue. */
static unsigned come_again;

int connect(int fd, const struct sockaddr *to, socklen_t bytes)
{
    const struct sockaddr_in *in = (const void *)to;

    if (to->sa_family == AF_INET && come_again > 0 &&
        ntohl(in->sin_addr.s_addr) == INADDR_LOOPBACK + 1) {
        come_again--;
        errno = EAGAIN;
        return -1;
    }
    return syscall(SYS_connect, fd, to, bytes);
}

typedef struct Call {
    SocketAddress *addr;
    int64_t deadline_ns;
    SocketAttempt attempt;
    int fd;
    int ret;
    bool done;
    GError *error;
} Call;

static void coroutine_fn connect_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = socket_co_connect(call->addr, call->deadline_ns,
                                  &call->attempt, &call->fd, &call->error);
    call->done = true;
}

static Call call_to(const char *host, unsigned port)
{
    g_autofree char *text = g_strdup_printf("%u", port);

    return (Call){ .addr = socket_address_new_inet(host, text),
                   .deadline_ns = AIO_NO_DEADLINE };
}

static void begin(AioContext *ctx, Call *call)
{
    aio_co_enter(ctx, coroutine_create(connect_entry, call));
    run_all(ctx);
}

static void wait_for(AioContext *ctx, Call *call)
{
    while (!call->done) {
        aio_poll(ctx, true);
    }
}

static void expect(Call *call, int err, const char *text)
{
    ck_assert(call->done);
    ck_assert_int_eq(call->ret, -err);
    ck_assert_ptr_nonnull(strstr(call->error->message, text));
    g_clear_error(&call->error);
    socket_address_free(call->addr);
}

START_TEST(who_does_not_want_a_name_any_more_waits_for_no_name_server)
{
    AIO_TEST(ctx);
    Call call = call_to("somewhere", 1);

    names_held = true;
    begin(ctx, &call);
    ck_assert(!call.done);
    socket_attempt_end(&call.attempt);
    run_all(ctx);
    expect(&call, ECANCELED, "somewhere");
    /* The answer comes when even the loop has gone. */
    aio_context_unref(ctx);
    names_release(1);
}
END_TEST

START_TEST(a_name_server_that_is_silent_is_given_up_in_time)
{
    AIO_TEST(ctx);
    Call call = call_to("somewhere", 1);

    names_held = true;
    call.deadline_ns = aio_clock_ns(ctx) + 1000 * 1000;
    begin(ctx, &call);
    wait_for(ctx, &call);
    ck_assert(names_held);
    expect(&call, ETIMEDOUT, "somewhere");
    names_release(1);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_name_that_does_not_exist_is_an_error_that_says_so)
{
    AIO_TEST(ctx);
    Call call = call_to("nowhere", 1);

    begin(ctx, &call);
    wait_for(ctx, &call);
    expect(&call, EINVAL, "nowhere");
    aio_context_unref(ctx);
}
END_TEST

START_TEST(an_attempt_ends_while_the_other_side_does_not_answer)
{
    AIO_TEST(ctx);
    int in, listener = full_listener(0, &in);
    Call call = call_to("localhost", port_of(listener));

    begin(ctx, &call);
    while (!call.attempt.socket) {
        aio_poll(ctx, true);
    }
    run_all(ctx);
    ck_assert(!call.done);
    socket_attempt_end(&call.attempt);
    run_all(ctx);
    expect(&call, ECANCELED, "localhost");
    close(in);
    close(listener);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(an_attempt_ends_while_a_unix_socket_is_full)
{
    AIO_TEST(ctx);
    g_autofree char *dir = g_dir_make_tmp("socket-connect-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int in = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    Call call = { .addr = socket_address_new_unix(path),
                  .deadline_ns = AIO_NO_DEADLINE };

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(listener, 0), 0);
    ck_assert_int_eq(connect(in, (struct sockaddr *)&un, sizeof(un)), 0);
    begin(ctx, &call);
    ck_assert(!call.done);
    socket_attempt_end(&call.attempt);
    wait_for(ctx, &call);
    expect(&call, ECANCELED, path);
    close(in);
    close(listener);
    g_unlink(path);
    g_rmdir(dir);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(what_has_ended_does_not_begin)
{
    AIO_TEST(ctx);
    unsigned before = names_asked;
    Call call = call_to("somewhere", 1);

    socket_attempt_end(&call.attempt);
    begin(ctx, &call);
    expect(&call, ECANCELED, "somewhere");
    ck_assert_uint_eq(names_asked, before);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(an_attempt_that_nobody_ends_connects)
{
    AIO_TEST(ctx);
    int in, listener = full_listener(0, &in);
    Call call = call_to("somewhere", port_of(listener));

    close(in);
    close(accept(listener, NULL, NULL));
    begin(ctx, &call);
    wait_for(ctx, &call);
    ck_assert_int_eq(call.ret, 0);
    ck_assert_ptr_null(call.attempt.socket);
    close(call.fd);
    close(listener);
    socket_address_free(call.addr);
    aio_context_unref(ctx);
}
END_TEST

/* The first one does not answer, the second not at once. */
START_TEST(each_address_of_a_name_has_its_share_of_the_time)
{
    AIO_TEST(ctx);
    int in, full = full_listener(0, &in);
    int good = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port_of(full)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
    Call call = call_to("twice", port_of(full));

    ck_assert_int_eq(bind(good, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(good, 1), 0);
    come_again = 1;
    call.deadline_ns = aio_clock_ns(ctx) + INT64_C(2) * 1000 * 1000 * 1000;
    begin(ctx, &call);
    wait_for(ctx, &call);
    ck_assert_int_eq(call.ret, 0);
    ck_assert_uint_eq(come_again, 0);
    close(call.fd);
    socket_address_free(call.addr);
    close(in);
    close(full);
    close(good);
    aio_context_unref(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("socket-connect");
    TCase *tc = tcase_create("connecting");

    tcase_set_timeout(tc, 30);
    PROMISE_ENGINES(tc,
        who_does_not_want_a_name_any_more_waits_for_no_name_server);
    PROMISE_ENGINES(tc, a_name_server_that_is_silent_is_given_up_in_time);
    PROMISE_ENGINES(tc, a_name_that_does_not_exist_is_an_error_that_says_so);
    PROMISE_ENGINES(tc, an_attempt_ends_while_the_other_side_does_not_answer);
    PROMISE_ENGINES(tc, an_attempt_ends_while_a_unix_socket_is_full);
    PROMISE_ENGINES(tc, what_has_ended_does_not_begin);
    PROMISE_ENGINES(tc, each_address_of_a_name_has_its_share_of_the_time);
    PROMISE_ENGINES(tc, an_attempt_that_nobody_ends_connects);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
