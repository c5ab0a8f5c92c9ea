/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unix sockets and who connects to them: another user of this machine is turned
 * away, though the mode of the socket would let him in.
 *
 * The other user is a child that has given up being root; so this needs root.
 */
#include "check-main.h"

#include <blockgraph/export.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/qmp-socket.h"

#define OTHER_UID 65534 /* "nobody" */

/* Exit statuses of the child. */
enum { GREETED, TURNED_AWAY, NOT_CONNECTED };

static BlockGraph *graph;
static QmpServer *server;
static char *dir, *path;

static void setup(void)
{
    graph = block_graph_new(NULL, NULL);
    server = qmp_server_new(graph);
    dir = g_dir_make_tmp("other-user-XXXXXX", NULL);
    path = g_build_filename(dir, "s", NULL);
    ck_assert_int_eq(chmod(dir, 0755), 0);
}

static void teardown(void)
{
    qmp_server_free(server);
    block_graph_free(graph);
    ck_assert_int_eq(rmdir(dir), 0);
    g_free(dir);
    g_free(path);
}

/* Connect, as @uid, and see whether there is a word of greeting.  No return,
 * and nothing of the process that it is a copy of. */
static void G_GNUC_NORETURN play_user(uid_t uid)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct pollfd pfd = { .events = POLLIN };
    char byte;

    if (setresuid(uid, uid, uid) < 0) {
        _exit(NOT_CONNECTED);
    }
    pfd.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    if (connect(pfd.fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        _exit(NOT_CONNECTED);
    }
    _exit(poll(&pfd, 1, -1) == 1 && recv(pfd.fd, &byte, 1, 0) == 1
              ? GREETED
              : TURNED_AWAY);
}

/* How a child that is @uid fares. */
static int meet(uid_t uid)
{
    pid_t child = fork();
    int status;

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        play_user(uid);
    }
    while (waitpid(child, &status, WNOHANG) == 0) {
        aio_poll(block_graph_aio_context(graph), false);
        qmp_server_run_outside(server);
    }
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void nbd_start(const char *more)
{
    g_autofree char *text = g_strdup_printf("addr.type=unix,addr.path=%s%s",
                                            path, more);
    BlockOptions *options = block_options_parse_keyval(text, NULL, NULL);

    ck_assert_int_eq(blk_nbd_server_start(graph, options, NULL), 0);
}

START_TEST(another_user_cannot_connect_to_an_nbd_socket)
{
    nbd_start("");
    ck_assert_int_eq(meet(0), GREETED);
    ck_assert_int_eq(meet(OTHER_UID), NOT_CONNECTED);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(meet(OTHER_UID), TURNED_AWAY);
    ck_assert_int_eq(meet(0), GREETED);
    blk_nbd_server_stop(graph);

    nbd_start(",any-uid=on");
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(meet(OTHER_UID), GREETED);
    blk_nbd_server_stop(graph);
}
END_TEST

START_TEST(another_user_cannot_connect_to_a_control_socket)
{
    const QmpAddress address = { .path = path };
    QmpSocket *listener = qmp_socket_listen(server, &address, false, NULL);

    ck_assert_ptr_nonnull(listener);
    ck_assert_int_eq(meet(0), GREETED);
    ck_assert_int_eq(meet(OTHER_UID), NOT_CONNECTED);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(meet(OTHER_UID), TURNED_AWAY);
    ck_assert_int_eq(meet(0), GREETED);
    qmp_socket_free(listener);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("other-user");
    TCase *tcase = tcase_create("other-user");

    if (geteuid() != 0) {
        printf("only root can become another user\n");
        return 77; /* skipped */
    }
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, another_user_cannot_connect_to_an_nbd_socket);
    PROMISE(tcase, another_user_cannot_connect_to_a_control_socket);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
