/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses of sockets: what is accepted, who may listen where, what is left
 * behind.
 */
#include "aio-fixture.h"

#include "util/io-channel.h"
#include "util/socket-connect.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char *dir;
static char *path;

static void dir_setup(void)
{
    dir = g_dir_make_tmp("socket-address-XXXXXX", NULL);
    ck_assert_ptr_nonnull(dir);
    path = g_build_filename(dir, "s", NULL);
}

static void dir_teardown(void)
{
    g_unlink(path);
    g_rmdir(dir);
    g_free(path);
    g_free(dir);
}

static int parse(const char *text, SocketAddress **ret, GError **errp)
{
    g_autoptr(BlockOptions) options =
        *text == '{' ? block_options_parse_json(text, errp)
                     : block_options_parse_keyval(text, NULL, errp);

    ck_assert_ptr_nonnull(options);
    return socket_address_parse(options, ret, errp);
}

START_TEST(addresses_are_read_from_options_in_each_notation)
{
    static const char *const rows[][2] = {
        { "type=unix,path=/a/b", "unix:/a/b" },
        { "type=inet,host=::1,port=10809", "[::1]:10809" },
        { "type=inet,host=localhost,port=nbd", "localhost:nbd" },
        { "{\"type\": \"unix\", \"data\": {\"path\": \"/x\"}}", "unix:/x" },
        { "{\"type\": \"inet\", \"data\": {\"host\": \"h\", \"port\": \"1\"}}",
          "h:1" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *text = NULL;
        SocketAddress *addr = NULL;
        SocketAddress *copy;

        ck_assert_int_eq(parse(rows[i][0], &addr, NULL), 0);
        copy = socket_address_clone(addr);
        socket_address_free(addr);
        text = socket_address_text(copy);
        ck_assert_str_eq(text, rows[i][1]);
        socket_address_free(copy);
    }
}
END_TEST

START_TEST(addresses_that_make_no_sense_are_refused_with_a_reason)
{
    static const char *const rows[][2] = {
        { "path=/a", "'type'" },
        { "type=vsock,cid=1", "vsock" },
        { "type=unix", "needs 'path'" },
        { "type=unix,path=", "needs 'path'" },
        { "type=unix,path=/a,port=1", "needs 'path'" },
        { "type=inet,host=a", "needs 'host' and 'port'" },
        { "type=fd,str=abc", "no descriptor" },
        { "type=fd,str=-1", "no descriptor" },
        { "type=fd,str=99999999999999999999", "no descriptor" },
        { "{\"type\": \"unix\", \"data\": \"x\"}", "must be an object" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        SocketAddress *addr = NULL;

        ck_assert_int_eq(parse(rows[i][0], &addr, &error), -EINVAL);
        ck_assert_msg(strstr(error->message, rows[i][1]), "%s: %s", rows[i][0],
                      error->message);
    }
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused_and_never_cut)
{
    g_autofree char *name = g_strnfill(108, 'a');
    g_autofree char *text = g_strdup_printf("type=unix,path=%s", name);
    g_autoptr(GError) error = NULL;
    SocketAddress *addr = NULL;

    ck_assert_int_eq(parse(text, &addr, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error->message, "longer than 107 bytes"));
    text[strlen(text) - 1] = '\0';
    ck_assert_int_eq(parse(text, &addr, NULL), 0);
    socket_address_free(addr);
}
END_TEST

/* --- listening ----------------------------------------------------------- */

typedef struct Call {
    SocketAddress *addr;
    bool open_to_all;
    SocketListener *listener;
    int fd[2];
    int ret;
    GError *error;
    bool hello;
} Call;

static int coroutine_fn listen_entry(void *opaque)
{
    Call *call = opaque;

    call->listener = socket_co_listen(call->addr, call->open_to_all,
                                      &call->error);
    return call->listener ? 0 : -block_error_code(call->error);
}

static int coroutine_fn connect_entry(void *opaque)
{
    Call *call = opaque;

    return socket_co_connect(call->addr, AIO_NO_DEADLINE, NULL,
                             &call->fd[0], &call->error);
}

static void coroutine_fn accept_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = aio_socket_accept(call->listener->sockets[0], &call->fd[1],
                                  AIO_NO_DEADLINE);
    call->hello = true;
}

static int listen_at(AioContext *ctx, Call *call)
{
    return aio_co_run(ctx, listen_entry, call);
}

static void call_free(Call *call)
{
    socket_listener_free(call->listener);
    socket_address_free(call->addr);
    g_clear_error(&call->error);
}

/* Connect to what @call listens at, and say something. */
static void talk(AioContext *ctx, Call *call)
{
    Call client = { .addr = socket_address_clone(call->addr) };
    char c = 0;

    call->hello = false;
    aio_co_enter(ctx, coroutine_create(accept_entry, call));
    ck_assert(!call->hello);
    ck_assert_int_eq(aio_co_run(ctx, connect_entry, &client), 0);
    while (!call->hello) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(call->ret, 0);
    ck_assert_int_eq(write(client.fd[0], "x", 1), 1);
    ck_assert_int_eq(read(call->fd[1], &c, 1), 1);
    ck_assert_int_eq(c, 'x');
    close(client.fd[0]);
    close(call->fd[1]);
    call_free(&client);
}

START_TEST(a_unix_socket_is_for_its_owner_alone_and_goes_with_its_listener)
{
    AIO_TEST(ctx);
    Call call = { .addr = socket_address_new_unix(path) };
    struct stat st;

    ck_assert_int_eq(listen_at(ctx, &call), 0);
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600 & st.st_mode);
    ck_assert_uint_eq(st.st_mode & 0077, 0);
    talk(ctx, &call);
    call_free(&call);
    ck_assert_int_lt(lstat(path, &st), 0);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_socket_at_which_nobody_listens_is_replaced)
{
    AIO_TEST(ctx);
    Call call = { .addr = socket_address_new_unix(path) };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    close(fd);
    ck_assert_int_eq(listen_at(ctx, &call), 0);
    talk(ctx, &call);
    call_free(&call);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(what_is_no_stale_socket_stays)
{
    AIO_TEST(ctx);
    Call first = { .addr = socket_address_new_unix(path) };
    Call second = { .addr = socket_address_new_unix(path) };
    g_autofree char *text = NULL;

    ck_assert(g_file_set_contents(path, "precious", -1, NULL));
    ck_assert_int_eq(listen_at(ctx, &first), -EADDRINUSE);
    g_clear_error(&first.error);
    ck_assert(g_file_get_contents(path, &text, NULL, NULL));
    ck_assert_str_eq(text, "precious");
    g_unlink(path);
    /* Somebody listens. */
    ck_assert_int_eq(listen_at(ctx, &first), 0);
    ck_assert_int_eq(listen_at(ctx, &second), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(second.error->message, path));
    /* The question whether somebody does has left a connection. */
    aio_co_enter(ctx, coroutine_create(accept_entry, &first));
    ck_assert_int_eq(first.ret, 0);
    close(first.fd[1]);
    talk(ctx, &first);
    call_free(&second);
    call_free(&first);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_listener_removes_nothing_that_took_its_place)
{
    AIO_TEST(ctx);
    Call call = { .addr = socket_address_new_unix(path) };

    ck_assert_int_eq(listen_at(ctx, &call), 0);
    g_unlink(path);
    ck_assert(g_file_set_contents(path, "new", -1, NULL));
    call_free(&call);
    ck_assert(g_file_test(path, G_FILE_TEST_EXISTS));
    aio_context_unref(ctx);
}
END_TEST

/* Without TLS (S21). */
START_TEST(tcp_listens_on_this_machine_alone_unless_told_otherwise)
{
    AIO_TEST(ctx);
    Call local = { .addr = socket_address_new_inet("127.0.0.1", "0") };
    Call any = { .addr = socket_address_new_inet("0.0.0.0", "0") };
    g_autofree char *port = NULL;

    ck_assert_int_eq(listen_at(ctx, &local), 0);
    port = g_strdup_printf("%u", socket_listener_port(local.listener));
    socket_address_free(local.addr);
    local.addr = socket_address_new_inet("127.0.0.1", port);
    talk(ctx, &local);
    ck_assert_int_eq(listen_at(ctx, &any), -EACCES);
    ck_assert_ptr_nonnull(strstr(any.error->message, "plain-text"));
    g_clear_error(&any.error);
    any.open_to_all = true;
    ck_assert_int_eq(listen_at(ctx, &any), 0);
    ck_assert_uint_ne(socket_listener_port(any.listener), 0);
    call_free(&any);
    call_free(&local);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(where_one_address_of_a_name_is_taken_nothing_listens)
{
    AIO_TEST(ctx);
    static const char *const taken[] = { "0.0.0.0", "::" };

    for (size_t i = 0; i < G_N_ELEMENTS(taken); i++) {
        Call one = { .addr = socket_address_new_inet(taken[i], "0"),
                     .open_to_all = true };
        Call all = { .open_to_all = true };
        g_autofree char *port = NULL;

        if (listen_at(ctx, &one) < 0) {
            ck_assert_uint_eq(i, 1);    /* a machine without IPv6 */
            call_free(&one);
            continue;
        }
        port = g_strdup_printf("%u", socket_listener_port(one.listener));
        all.addr = socket_address_new_inet("", port);
        ck_assert_int_eq(listen_at(ctx, &all), -EADDRINUSE);
        call_free(&all);
        call_free(&one);
    }
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_port_out_of_range_is_no_other_port)
{
    AIO_TEST(ctx);
    static const char *const ports[] = { "65536", "99999", "4294967297", "",
                                         "-1", "+70000", " 70000", "7 0" };

    for (size_t i = 0; i < G_N_ELEMENTS(ports); i++) {
        Call call = { .addr = socket_address_new_inet("127.0.0.1", ports[i]) };

        ck_assert_int_eq(listen_at(ctx, &call), -EINVAL);
        ck_assert_ptr_nonnull(strstr(call.error->message, ports[i]));
        g_clear_error(&call.error);
        ck_assert_int_eq(aio_co_run(ctx, connect_entry, &call), -EINVAL);
        call_free(&call);
    }
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_wait_for_connections_ends_with_a_shutdown)
{
    AIO_TEST(ctx);
    Call call = { .addr = socket_address_new_unix(path) };

    ck_assert_int_eq(listen_at(ctx, &call), 0);
    aio_co_enter(ctx, coroutine_create(accept_entry, &call));
    run_all(ctx);
    aio_socket_shutdown(call.listener->sockets[0]);
    ck_assert(aio_socket_is_shut(call.listener->sockets[0]));
    while (!call.hello) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(call.ret, -ESHUTDOWN);
    call_free(&call);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_connection_that_cannot_be_made_says_where_to)
{
    AIO_TEST(ctx);
    Call call = { .addr = socket_address_new_unix(path) };

    ck_assert_int_eq(aio_co_run(ctx, connect_entry, &call), -ENOENT);
    ck_assert_ptr_nonnull(strstr(call.error->message, path));
    call_free(&call);
    call = (Call) { .addr = socket_address_new_inet("127.0.0.1", "1") };
    ck_assert_int_eq(aio_co_run(ctx, connect_entry, &call), -ECONNREFUSED);
    ck_assert_ptr_nonnull(strstr(call.error->message, "127.0.0.1:1"));
    call_free(&call);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_socket_that_was_passed_in_can_listen)
{
    AIO_TEST(ctx);
    Call first = { .addr = socket_address_new_unix(path) };
    Call passed = { 0 };
    g_autofree char *text = NULL;

    ck_assert_int_eq(listen_at(ctx, &first), 0);
    text = g_strdup_printf("type=fd,str=%d",
                           dup(aio_socket_fd(first.listener->sockets[0])));
    ck_assert_int_eq(parse(text, &passed.addr, NULL), 0);
    ck_assert_int_eq(listen_at(ctx, &passed), 0);
    socket_address_free(passed.addr);
    passed.addr = socket_address_clone(first.addr);
    talk(ctx, &passed);
    call_free(&passed);
    call_free(&first);
    aio_context_unref(ctx);
}
END_TEST

static Suite *socket_address_suite(void)
{
    Suite *suite = suite_create("socket-address");
    TCase *tc = tcase_create("parsing");

    PROMISE(tc, addresses_are_read_from_options_in_each_notation);
    PROMISE(tc, addresses_that_make_no_sense_are_refused_with_a_reason);
    PROMISE(tc, a_path_that_is_too_long_is_refused_and_never_cut);
    suite_add_tcase(suite, tc);
    tc = new_tcase(suite, "listening");
    tcase_add_checked_fixture(tc, dir_setup, dir_teardown);
    PROMISE_ENGINES(tc,
        a_unix_socket_is_for_its_owner_alone_and_goes_with_its_listener);
    PROMISE_ENGINES(tc, a_socket_at_which_nobody_listens_is_replaced);
    PROMISE_ENGINES(tc, what_is_no_stale_socket_stays);
    PROMISE_ENGINES(tc, a_listener_removes_nothing_that_took_its_place);
    PROMISE_ENGINES(tc,
        tcp_listens_on_this_machine_alone_unless_told_otherwise);
    PROMISE_ENGINES(tc, where_one_address_of_a_name_is_taken_nothing_listens);
    PROMISE_ENGINES(tc, a_port_out_of_range_is_no_other_port);
    PROMISE_ENGINES(tc, a_wait_for_connections_ends_with_a_shutdown);
    PROMISE_ENGINES(tc, a_connection_that_cannot_be_made_says_where_to);
    PROMISE_ENGINES(tc, a_socket_that_was_passed_in_can_listen);
    return suite;
}

int main(void)
{
    return check_main(socket_address_suite());
}
