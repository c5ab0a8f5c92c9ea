/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control sockets: clients that come, misbehave and go, and the end.
 *
 * The clients are in the same thread; nothing happens but in turns of the loop.
 */
#include "check-main.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "monitor/qmp-json.h"
#include "monitor/qmp-socket.h"
#include "util/socket-listen.h"

#define KIB 1024
#define MIB (1024 * KIB)

/* After so many turns without a wait all that could happen has. */
#define TURNS 50

static BlockGraph *graph;
static QmpServer *server;
static QmpSocket *listener;
static char *dir;
static QmpAddress address;

/* --- a command that waits until the test says so -------------------------- */

static Coroutine *waiter;

static json_t *coroutine_fn test_wait(const QmpCall *call, json_t *args,
                                      GError **errp)
{
    waiter = coroutine_self();
    coroutine_yield();
    return json_string("waited");
}

static void let_go(void)
{
    aio_co_wake(g_steal_pointer(&waiter));
}

static const QmpCommand test_commands[] = {
    { "test-wait", NULL, &qmp_str, test_wait, "Wait for the test" },
    { .name = NULL },
};

/* --- clients -------------------------------------------------------------- */

typedef struct Peer {
    int fd;
    GString *text;
} Peer;

static void turn(void)
{
    for (int i = 0; i < TURNS; i++) {
        aio_poll(block_graph_aio_context(graph), false);
        qmp_server_run_outside(server);
    }
}

static int connect_fd(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(un.sun_path, address.path, sizeof(un.sun_path));
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static Peer *peer_on(int fd)
{
    Peer *p = g_new(Peer, 1);

    *p = (Peer){ fd, g_string_new(NULL) };
    return p;
}

static Peer *peer_new(void)
{
    return peer_on(connect_fd());
}

static void peer_free(Peer *p)
{
    close(p->fd);
    g_string_free(p->text, TRUE);
    g_free(p);
}

/* Read what has come.  Whether the connection is still open. */
static bool drain(Peer *p)
{
    char buf[64 * KIB];
    ssize_t nr;

    while ((nr = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        g_string_append_len(p->text, buf, nr);
    }
    return nr < 0 && errno == EAGAIN;
}

static bool is_open(Peer *p)
{
    turn();
    return drain(p);
}

/* How often @word has come so far; it is forgotten. */
static unsigned count(Peer *p, const char *word)
{
    unsigned nr = 0;

    for (int i = 0; i < TURNS; i++) {
        turn();
        drain(p);
    }
    for (const char *at = p->text->str; (at = strstr(at, word)); at++) {
        nr++;
    }
    g_string_truncate(p->text, 0);
    return nr;
}

static void say(Peer *p, const char *text)
{
    size_t bytes = strlen(text);

    while (bytes > 0) {
        ssize_t sent = send(p->fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0) {
            ck_assert_int_eq(errno, EAGAIN);
            turn();
            continue;
        }
        text += sent;
        bytes -= sent;
    }
}

/* A client that has been greeted and has said what it can. */
static Peer *ready_peer(void)
{
    Peer *p = peer_new();

    say(p, "{\"execute\":\"qmp_capabilities\"}");
    ck_assert_uint_eq(count(p, "\"return\":{}"), 1);
    return p;
}

static void event_of(size_t bytes)
{
    g_autofree char *id = g_strnfill(bytes, 'x');

    qmp_server_event(server, "BLOCK_EXPORT_DELETED",
                     json_pack("{s:s}", "id", id));
}

/* --- one socket ----------------------------------------------------------- */

static void listen_again(bool pretty)
{
    GError *error = NULL;

    qmp_socket_free(listener);
    listener = qmp_socket_listen(server, &address, pretty, &error);
    ck_assert_msg(listener, "%s", error ? error->message : "no error");
}

static void setup(void)
{
    graph = block_graph_new(NULL, NULL);
    server = qmp_server_new(graph);
    qmp_server_add_commands(server, test_commands);
    dir = g_dir_make_tmp("qmp-XXXXXX", NULL);
    address = (QmpAddress){ .path = g_build_filename(dir, "s", NULL) };
    listen_again(false);
}

static void teardown(void)
{
    qmp_socket_free(listener);
    ck_assert(!g_file_test(address.path, G_FILE_TEST_EXISTS));
    block_job_cancel_all(graph);
    turn();
    ck_assert(!qmp_server_is_busy(server));
    qmp_server_free(server);
    block_graph_free(graph);
    rmdir(dir);
    g_free(dir);
    g_free(address.path);
}

/* --- coming and going ----------------------------------------------------- */

START_TEST(each_client_is_greeted_and_gets_its_own_replies)
{
    Peer *p[3];

    for (int i = 0; i < 3; i++) {
        p[i] = peer_new();
        ck_assert_uint_eq(count(p[i], "{\"QMP\":"), 1);
    }
    say(p[1], "{\"execute\":\"qmp_capabilities\",\"id\":7}");
    ck_assert_uint_eq(count(p[1], "\"id\":7"), 1);
    event_of(1);
    ck_assert_uint_eq(count(p[1], "BLOCK_EXPORT_DELETED"), 1);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(count(p[i], "{"), 0);
        peer_free(p[i]);
    }
    turn();
    ck_assert(!qmp_socket_has_client(listener));
}
END_TEST

START_TEST(half_a_command_of_one_who_leaves_is_nothing)
{
    Peer *good = ready_peer(), *bad = ready_peer();

    say(bad, "{\"execute\":\"quit\"");
    turn();
    peer_free(bad);
    say(good, "{\"execute\":\"query-jobs\"}");
    ck_assert_uint_eq(count(good, "\"return\":[]"), 1);
    ck_assert_ptr_null(server->quit_reason);
    peer_free(good);
}
END_TEST

START_TEST(more_clients_than_there_are_places_wait_for_one)
{
    Peer *p[QMP_CLIENTS_MAX + 1];

    for (int i = 0; i <= QMP_CLIENTS_MAX; i++) {
        p[i] = peer_new();
    }
    ck_assert_uint_eq(count(p[QMP_CLIENTS_MAX - 1], "QMP"), 1);
    ck_assert_uint_eq(count(p[QMP_CLIENTS_MAX], "QMP"), 0);
    peer_free(p[3]);
    ck_assert_uint_eq(count(p[QMP_CLIENTS_MAX], "QMP"), 1);
    for (int i = 0; i <= QMP_CLIENTS_MAX; i++) {
        if (i != 3) {
            peer_free(p[i]);
        }
    }
}
END_TEST

/* --- too much ------------------------------------------------------------- */

/* Send @command until the socket takes no more, whatever the server does.
 * Returns how often it was sent in whole. */
static unsigned stuff(Peer *p, const char *command)
{
    size_t bytes = strlen(command), at = 0;
    unsigned nr = 0;

    for (int idle = 0; idle < 3; idle++) {
        ssize_t sent;

        while ((sent = send(p->fd, command + at, bytes - at,
                            MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
            at += sent;
            nr += at == bytes;
            at %= bytes;
            idle = 0;
            ck_assert_uint_lt(nr, 1000000);     /* it is not taken for ever */
        }
        ck_assert_int_eq(errno, EAGAIN);
        turn();
    }
    return nr;
}

START_TEST(who_does_not_read_is_not_read_from_and_loses_nothing)
{
    static const char command[] = "{\"execute\":\"query-commands\"}\n";
    Peer *p = ready_peer(), *other = ready_peer();
    unsigned nr = stuff(p, command), got = 0, now;

    ck_assert(qmp_socket_has_output(listener));
    say(other, "{\"execute\":\"query-jobs\"}");
    ck_assert_uint_eq(count(other, "\"return\":[]"), 1);
    while ((now = count(p, "\"return\"") + count(p, "\"error\""))) {
        got += now;
    }
    /* The last one may have been cut. */
    ck_assert_uint_ge(got, nr);
    ck_assert_uint_le(got, nr + 1);
    say(p, "\n{\"execute\":\"query-jobs\",\"id\":\"last\"}");
    ck_assert_uint_eq(count(p, "\"last\""), 1);
    peer_free(p);
    peer_free(other);
}
END_TEST

/* The reader empties the socket between two turns, and an event is what sends
 * the rest of the output: then nobody else would go on with the commands. */
START_TEST(an_event_that_makes_room_lets_commands_go_on)
{
    g_autoptr(GString) many = g_string_new(NULL);
    Peer *p = ready_peer();
    unsigned got = 0;

    for (int i = 0; i < 400; i++) {
        g_string_append(many, "{\"execute\":\"query-commands\"}");
    }
    say(p, many->str);
    turn();
    ck_assert(qmp_socket_has_output(listener));
    while (qmp_socket_has_output(listener)) {
        drain(p);
        event_of(1);        /* sends, without a turn of the loop */
    }
    for (unsigned now; (now = count(p, "\"return\"")); ) {
        got += now;
    }
    ck_assert_uint_eq(got, 400);
    peer_free(p);
}
END_TEST

START_TEST(who_never_reads_is_cut_off_in_the_end)
{
    Peer *deaf = ready_peer(), *good = ready_peer();
    unsigned nr = 0;

    /* Sixteen MiB wait, and what the system holds. */
    for (int i = 0; i < 40 && nr == (unsigned)i; i++) {
        event_of(MIB);
        nr += count(good, "BLOCK_EXPORT_DELETED");
    }
    ck_assert_uint_eq(nr, 40);
    ck_assert(!qmp_socket_has_output(listener));
    while (drain(deaf)) {
        turn();
    }
    ck_assert_uint_lt(deaf->text->len, 20 * MIB);
    peer_free(deaf);
    peer_free(good);
}
END_TEST

START_TEST(a_line_over_the_limit_is_an_error_and_the_next_is_done)
{
    g_autofree char *many = g_strnfill(QMP_MESSAGE_MAX + KIB, 'x');
    Peer *p = ready_peer();

    say(p, "{\"execute\":\"");
    say(p, many);
    say(p, "\"}\n{\"execute\":\"query-jobs\",\"id\":1}\n");
    turn();
    drain(p);
    ck_assert(strstr(p->text->str, "\"GenericError\""));
    ck_assert_uint_eq(count(p, "{\"return\":[],\"id\":1}"), 1);
    peer_free(p);
}
END_TEST

/* --- the end -------------------------------------------------------------- */

START_TEST(who_is_there_at_the_end_hears_of_it)
{
    Peer *asks = ready_peer(), *hears = ready_peer();

    say(asks, "{\"execute\":\"quit\"}{\"execute\":\"query-jobs\"}");
    turn();
    ck_assert_str_eq(server->quit_reason, "host-qmp-quit");
    qmp_server_event(server, "SHUTDOWN", json_pack("{s:s}", "reason", "r"));
    qmp_socket_shutdown(listener);
    turn();
    ck_assert(drain(asks));
    ck_assert(strstr(asks->text->str, "{\"return\":{}}"));
    ck_assert(!strstr(asks->text->str, "[]"));  /* nothing begins any more */
    ck_assert_uint_eq(count(hears, "SHUTDOWN"), 1);
    say(hears, "{\"execute\":\"query-jobs\"}");
    ck_assert_uint_eq(count(hears, "return"), 0);
    ck_assert(is_open(hears));
    g_clear_pointer(&listener, qmp_socket_free);
    ck_assert(!is_open(hears));
    ck_assert(!is_open(asks));
    peer_free(asks);
    peer_free(hears);
}
END_TEST

START_TEST(a_command_that_runs_at_the_end_is_waited_for_and_answered)
{
    Peer *waits = ready_peer(), *quits = ready_peer();

    say(waits, "{\"execute\":\"test-wait\"}");
    turn();
    ck_assert(waiter && qmp_server_is_busy(server));
    say(quits, "{\"execute\":\"quit\"}");
    turn();
    qmp_socket_shutdown(listener);
    turn();
    ck_assert(qmp_server_is_busy(server));
    let_go();
    turn();
    ck_assert(!qmp_server_is_busy(server));
    ck_assert_uint_eq(count(waits, "{\"return\":\"waited\"}"), 1);
    peer_free(waits);
    peer_free(quits);
}
END_TEST

START_TEST(a_command_is_waited_for_when_its_client_has_left)
{
    Peer *leaves = ready_peer();

    say(leaves, "{\"execute\":\"test-wait\"}{\"execute\":\"quit\"}");
    turn();
    peer_free(leaves);
    event_of(1);            /* cannot be sent: the connection is given up */
    turn();
    ck_assert(!qmp_socket_has_client(listener));
    ck_assert(qmp_server_is_busy(server));
    qmp_server_quit(server, "host-signal");
    qmp_socket_shutdown(listener);
    g_clear_pointer(&listener, qmp_socket_free);
    let_go();
    turn();
    ck_assert(!qmp_server_is_busy(server));
    ck_assert_str_eq(server->quit_reason, "host-signal");
}
END_TEST

START_TEST(jobs_that_run_at_the_end_are_told_to_be_cancelled)
{
    Peer *p = ready_peer();

    say(p, "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":"
        "\"null-co\",\"node-name\":\"a\",\"size\":1048576}}"
        "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":"
        "\"null-co\",\"node-name\":\"b\",\"size\":1048576}}"
        "{\"execute\":\"blockdev-backup\",\"arguments\":{\"device\":\"a\","
        "\"target\":\"b\",\"sync\":\"none\",\"job-id\":\"j\"}}"
        "{\"execute\":\"quit\"}");
    ck_assert_uint_eq(count(p, "\"return\":{}"), 4);
    qmp_socket_shutdown(listener);
    block_job_cancel_all(graph);
    ck_assert_uint_eq(count(p, "BLOCK_JOB_CANCELLED"), 1);
    peer_free(p);
}
END_TEST

START_TEST(the_first_who_quits_gives_the_reason)
{
    Peer *a = ready_peer(), *b = ready_peer();

    say(a, "{\"execute\":\"quit\"}");
    say(b, "{\"execute\":\"quit\"}");
    turn();
    qmp_server_quit(server, "host-signal");
    ck_assert_str_eq(server->quit_reason, "host-qmp-quit");
    qmp_socket_shutdown(listener);
    qmp_socket_shutdown(listener);
    /* What was sent in the same moment is not begun. */
    ck_assert_uint_eq(count(a, "\"return\"") + count(b, "\"return\""), 1);
    peer_free(a);
    peer_free(b);
}
END_TEST

START_TEST(who_connects_during_the_end_can_do_nothing)
{
    Peer *early, *late, *quits = ready_peer();

    say(quits, "{\"execute\":\"quit\"}");
    turn();
    early = peer_new();     /* is taken in, as nobody was told of the end yet */
    turn();
    qmp_socket_shutdown(listener);
    late = peer_new();
    say(early, "{\"execute\":\"qmp_capabilities\"}");
    say(late, "{\"execute\":\"qmp_capabilities\"}");
    ck_assert_uint_eq(count(early, "QMP"), 1);
    ck_assert_uint_eq(count(early, "return"), 0);
    ck_assert_uint_eq(count(late, "QMP"), 0);
    g_clear_pointer(&listener, qmp_socket_free);
    ck_assert(!is_open(early));
    ck_assert(!is_open(late));
    peer_free(early);
    peer_free(late);
    peer_free(quits);
}
END_TEST

/* --- addresses ------------------------------------------------------------ */

START_TEST(a_socket_is_for_its_user_and_replaces_only_what_is_dead)
{
    GError *error = NULL;
    struct stat st;

    ck_assert_int_eq(lstat(address.path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_ptr_null(qmp_socket_listen(server, &address, false, &error));
    ck_assert(strstr(error->message, address.path));
    g_error_free(error);
    unlink(address.path);
    ck_assert(g_file_set_contents(address.path, "mine", -1, NULL));
    ck_assert_ptr_null(qmp_socket_listen(server, &address, false, NULL));
    g_clear_pointer(&listener, qmp_socket_free);
    ck_assert(g_file_test(address.path, G_FILE_TEST_IS_REGULAR));
    unlink(address.path);
}
END_TEST

static unsigned tcp_port(const QmpAddress *tcp)
{
    int fds[QMP_LISTEN_MAX];
    struct sockaddr_in in;
    socklen_t bytes = sizeof(in);

    /* The system chooses one, and nobody else gets it so soon. */
    ck_assert_int_eq(qmp_address_listen(tcp, fds, NULL), 1);
    getsockname(fds[0], (struct sockaddr *)&in, &bytes);
    close(fds[0]);
    return ntohs(in.sin_port);
}

START_TEST(over_tcp_only_who_begins_with_an_object_is_heard)
{
    char port[16] = "0";
    QmpAddress tcp = { .host = (char *)"127.0.0.1", .port = port };
    QmpSocket *socket;
    Peer *good, *bad;

    snprintf(port, sizeof(port), "%u", tcp_port(&tcp));
    socket = qmp_socket_listen(server, &tcp, false, NULL);
    ck_assert_ptr_nonnull(socket);
    good = peer_on(qmp_address_connect(&tcp, 10, NULL));
    bad = peer_on(qmp_address_connect(&tcp, 10, NULL));
    say(good, "\r\n {\"execute\":\"qmp_capabilities\"}");
    say(good, "garbage\n{\"execute\":\"query-jobs\"}");
    say(bad, "POST / HTTP/1.0\r\n\r\n{\"execute\":\"qmp_capabilities\"}");
    turn();
    drain(good);
    ck_assert(strstr(good->text->str, "{\"return\":[]}"));
    ck_assert(!drain(bad));
    ck_assert(!strstr(bad->text->str, "return"));
    peer_free(good);
    peer_free(bad);
    qmp_socket_free(socket);
}
END_TEST

START_TEST(where_one_address_is_taken_nothing_listens)
{
    char port[16] = "0";
    QmpAddress one = { .host = (char *)"0.0.0.0", .port = port,
                       .plain_text = true };
    QmpAddress all = { .host = (char *)"", .port = port, .plain_text = true };
    QmpSocket *socket;
    GError *error = NULL;

    snprintf(port, sizeof(port), "%u", tcp_port(&one));
    socket = qmp_socket_listen(server, &one, false, NULL);
    ck_assert_ptr_nonnull(socket);
    ck_assert_ptr_null(qmp_socket_listen(server, &all, false, &error));
    ck_assert_int_eq(block_error_code(error), EADDRINUSE);
    g_error_free(error);
    qmp_socket_free(socket);
}
END_TEST

/* An option of the end of ours that the connection @fd has. */
static int option_of_peer(int fd, int level, int name)
{
    struct sockaddr_in ours = { 0 }, theirs = { 0 };
    socklen_t bytes = sizeof(ours);
    int value = -1;

    getsockname(fd, (struct sockaddr *)&ours, &bytes);
    for (int i = 0; i < 1024; i++) {
        bytes = sizeof(theirs);
        if (getpeername(i, (struct sockaddr *)&theirs, &bytes) == 0 &&
            theirs.sin_family == AF_INET && theirs.sin_port == ours.sin_port) {
            bytes = sizeof(value);
            getsockopt(i, level, name, &value, &bytes);
        }
    }
    return value;
}

START_TEST(a_tcp_client_that_vanishes_is_noticed)
{
    char port[16] = "0";
    QmpAddress tcp = { .host = (char *)"127.0.0.1", .port = port };
    QmpSocket *socket;
    int fd;

    snprintf(port, sizeof(port), "%u", tcp_port(&tcp));
    socket = qmp_socket_listen(server, &tcp, false, NULL);
    ck_assert_ptr_nonnull(socket);
    fd = qmp_address_connect(&tcp, 10, NULL);
    ck_assert_int_ge(fd, 0);
    turn();
    ck_assert_int_eq(option_of_peer(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    ck_assert_int_eq(option_of_peer(fd, IPPROTO_TCP, TCP_KEEPIDLE), 10);
    ck_assert_int_eq(option_of_peer(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 60000);
    close(fd);
    qmp_socket_free(socket);
}
END_TEST

START_TEST(who_has_no_room_for_us_is_given_up)
{
    g_autofree char *path = g_build_filename(dir, "full", NULL);
    const QmpAddress full = { .path = path };
    int fd = socket_listen_unix(path, 0), in;
    GError *error = NULL;

    ck_assert_int_ge(fd, 0);
    in = qmp_address_connect(&full, 1, NULL);
    ck_assert_int_ge(in, 0);
    ck_assert_int_eq(qmp_address_connect(&full, 1, &error), -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(error->message, path));
    g_error_free(error);
    close(in);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(addresses_that_are_none_are_refused)
{
    g_autofree char *path = g_strnfill(108, 'x');
    const struct {
        QmpAddress address;
        const char *part;
    } cases[] = {
        { { .path = NULL }, "a path" },
        { { .path = (char *)"" }, "1 to 107" },
        { { .path = path }, "1 to 107" },
        { { .path = (char *)"x", .ipv4 = QMP_ON }, "TCP" },
        { { .path = (char *)"x", .plain_text = true }, "TCP" },
        { { .host = (char *)"localhost" }, "a port" },
        { { .port = (char *)"1" }, "a port" },
        { { .host = (char *)"h", .port = (char *)"1", .path = (char *)"x" },
          "either" },
        { { .host = (char *)"::", .port = (char *)"0" }, "plain-text" },
        { { .host = (char *)"", .port = (char *)"0" }, "plain-text" },
        { { .host = (char *)"127.0.0.1", .port = (char *)"99999" },
          "'99999'" },
        { { .host = (char *)"127.0.0.1", .port = (char *)"+70000" },
          "'+70000'" },
        { { .host = (char *)"127.0.0.1", .port = (char *)" 70000" },
          "' 70000'" },
        { { .host = (char *)"127.0.0.1", .port = (char *)"1",
            .ipv6 = QMP_ON }, "127.0.0.1" },
        { { .host = (char *)"127.0.0.1", .port = (char *)"1",
            .ipv4 = QMP_OFF, .ipv6 = QMP_OFF }, "IPv6" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *error = NULL;

        ck_assert_msg(!qmp_socket_listen(server, &cases[i].address, false,
                                         &error), "%zu", i);
        ck_assert_msg(strstr(error->message, cases[i].part), "%zu: %s", i,
                      error->message);
        g_error_free(error);
    }
    ck_assert_ptr_null(qmp_socket_connect(
        server, &(QmpAddress){ .path = (char *)"/nonexistent/s" }, false,
        NULL));
}
END_TEST

START_TEST(a_pretty_socket_indents_greeting_replies_and_events)
{
    Peer *p;

    listen_again(true);
    p = peer_new();
    say(p, "{\"execute\":\"qmp_capabilities\"}");
    turn();
    event_of(1);
    turn();
    drain(p);
    ck_assert(g_str_has_prefix(p->text->str, "{\n    \"QMP\": {\n        "));
    ck_assert(strstr(p->text->str, "\n    \"return\": {}\n}\r\n"));
    ck_assert(strstr(p->text->str, "\n    \"event\": \"BLOCK_EXPORT_DELETED\""));
    peer_free(p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qmp-socket");
    TCase *tcase = tcase_create("qmp-socket");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, each_client_is_greeted_and_gets_its_own_replies);
    PROMISE(tcase, half_a_command_of_one_who_leaves_is_nothing);
    PROMISE(tcase, more_clients_than_there_are_places_wait_for_one);
    PROMISE(tcase, who_does_not_read_is_not_read_from_and_loses_nothing);
    PROMISE(tcase, an_event_that_makes_room_lets_commands_go_on);
    PROMISE(tcase, who_never_reads_is_cut_off_in_the_end);
    PROMISE(tcase, a_line_over_the_limit_is_an_error_and_the_next_is_done);
    PROMISE(tcase, who_is_there_at_the_end_hears_of_it);
    PROMISE(tcase, a_command_that_runs_at_the_end_is_waited_for_and_answered);
    PROMISE(tcase, a_command_is_waited_for_when_its_client_has_left);
    PROMISE(tcase, jobs_that_run_at_the_end_are_told_to_be_cancelled);
    PROMISE(tcase, the_first_who_quits_gives_the_reason);
    PROMISE(tcase, who_connects_during_the_end_can_do_nothing);
    PROMISE(tcase, a_socket_is_for_its_user_and_replaces_only_what_is_dead);
    PROMISE(tcase, over_tcp_only_who_begins_with_an_object_is_heard);
    PROMISE(tcase, where_one_address_is_taken_nothing_listens);
    PROMISE(tcase, a_tcp_client_that_vanishes_is_noticed);
    PROMISE(tcase, who_has_no_room_for_us_is_given_up);
    PROMISE(tcase, addresses_that_are_none_are_refused);
    PROMISE(tcase, a_pretty_socket_indents_greeting_replies_and_events);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
