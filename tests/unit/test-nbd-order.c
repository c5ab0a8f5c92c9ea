/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server and a client that has lost a connection: what it sent there is
 * still being done when it is back.
 */
#include "nbd-fixture.h"

#include <netinet/in.h>

static BlockDriverState *disk;

static void setup(void)
{
    nbd_setup();
    disk = open_ok("mem,node-name=disk,size=1M,discard=unmap");
    server_start("");
    export_add(",writable=on");
}

static void teardown(void)
{
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    nbd_teardown();
}

/* Who is held keeps the loop busy; let all others go on. */
static void turns(void)
{
    for (int i = 0; i < 500; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static void send_write(int fd, char what)
{
    const Command c = { .type = NBD_CMD_WRITE, .cookie = 7, .bytes = 4096 };
    uint8_t data[4096];

    memset(data, what, sizeof(data));
    ck_assert(put_command(fd, SIMPLE, &c));
    ck_assert(put(fd, data, sizeof(data)));
}

/* A write of @fd stays in the disk. */
static void send_caught(int fd, char what)
{
    atomic_store(&mem_disk(disk)->catch_next[MEM_WRITE], true);
    send_write(fd, what);
    while (!atomic_load(&mem_disk(disk)->caught)) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static bool has_answer(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    turns();
    return poll(&pfd, 1, 0) > 0;
}

static void take_answer(int fd)
{
    const Command c = { .type = NBD_CMD_WRITE, .cookie = 7 };
    g_autoptr(GByteArray) data = g_byte_array_new();

    ck_assert_int_eq(get_answer(fd, SIMPLE, &c, data), 0);
}

/* Row: whether the server has been told that the first connection ended. */
START_TEST(a_write_of_an_older_connection_never_comes_behind)
{
    int old = client_go(SIMPLE), new;
    uint8_t data[512];

    send_caught(old, 'o');
    if (_i) {
        close(old);
    }
    new = client_go(SIMPLE);
    send_write(new, 'n');
    ck_assert(!has_answer(new));
    atomic_store(&mem_disk(disk)->caught, false);
    take_answer(new);
    ck_assert_int_eq(mem_disk(disk)->data[0], 'n');
    ck_assert_int_eq(mem_disk(disk)->data[4095], 'n');
    ck_assert_int_eq(read_at(new, SIMPLE, 0, data, sizeof(data)), 0);
    close(new);
    if (!_i) {
        close(old);
    }
}
END_TEST

START_TEST(trims_and_zeroes_wait_as_well_and_are_waited_for)
{
    static const uint16_t types[] = { NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES };
    Command c = { .type = types[_i], .cookie = 7, .offset = 2048,
                  .bytes = 4096 };
    int old = client_go(SIMPLE), new = client_go(SIMPLE);

    send_caught(old, 'o');
    ck_assert(put_command(new, SIMPLE, &c));
    ck_assert(!has_answer(new));
    send_write(old, 'a');       /* of the same connection: it knows */
    ck_assert(has_answer(old));
    take_answer(old);
    atomic_store(&mem_disk(disk)->caught, false);
    take_answer(new);
    take_answer(old);
    close(old);
    close(new);
}
END_TEST

START_TEST(what_does_not_overlap_and_what_reads_does_not_wait)
{
    int old = client_go(SIMPLE), new = client_go(SIMPLE);
    uint8_t data[4096] = { 0 };

    send_caught(old, 'o');
    ck_assert_int_eq(write_at(new, SIMPLE, 4096, data, sizeof(data)), 0);
    ck_assert_int_eq(read_at(new, SIMPLE, 0, data, sizeof(data)), 0);
    atomic_store(&mem_disk(disk)->caught, false);
    take_answer(old);
    close(old);
    close(new);
}
END_TEST

/*
 * Answers that nobody takes leave no room, so the write behind them waits in
 * the server.
 */
START_TEST(what_a_lost_connection_left_behind_is_not_begun)
{
    const Command big = { .type = NBD_CMD_READ, .cookie = 1,
                          .bytes = 1 << 20 };
    int old = client_go(SIMPLE), new = client_go(SIMPLE);
    uint8_t data[512];

    for (int i = 0; i < 80; i++) {
        ck_assert(put_command(old, SIMPLE, &big));
    }
    send_write(old, 'o');
    turns();
    send_write(new, 'n');
    take_answer(new);
    close(old);
    turns();
    ck_assert_int_eq(mem_disk(disk)->data[0], 'n');
    ck_assert_int_eq(read_at(new, SIMPLE, 0, data, sizeof(data)), 0);
    close(new);
}
END_TEST

/* --- a connection whose client says no more ------------------------------ */

static int client_over_tcp(void)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons(server_info().port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    ck_assert(client_greet(fd));
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "d"), NBD_REP_ACK);
    return fd;
}

static int client_of_row(bool tcp)
{
    if (!tcp) {
        return client_go(SIMPLE);
    }
    if (server_info().port == 0) {
        blk_nbd_server_stop(graph);
        ck_assert_int_eq(blk_nbd_server_start(graph, opts(
            "addr.type=inet,addr.host=127.0.0.1,addr.port=0"), NULL), 0);
        export_add(",writable=on");
    }
    return client_over_tcp();
}

/*
 *   first   [write at 64 KiB]            in the disk
 *   second  [128 writes at 64 KiB]       wait for it
 *           [write at 0]                 is not read: there is no room
 */
static void send_more_than_there_is_room_for(int first, int second)
{
    static const uint8_t data[512] = { 'm' };
    Command c = { .type = NBD_CMD_WRITE, .cookie = 1, .offset = 65536,
                  .bytes = 512 };

    atomic_store(&mem_disk(disk)->catch_next[MEM_WRITE], true);
    ck_assert(put_command(first, SIMPLE, &c) && put(first, data, 512));
    while (!atomic_load(&mem_disk(disk)->caught)) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    for (int i = 0; i < 128; i++) {
        ck_assert(put_command(second, SIMPLE, &c) && put(second, data, 512));
    }
    send_write(second, 'o');
    turns();
}

/* Row: the kind of socket. */
START_TEST(what_a_client_that_is_gone_left_unread_is_not_begun)
{
    int first = client_of_row(_i), old = client_of_row(_i);
    int new = client_of_row(_i);

    send_more_than_there_is_room_for(first, old);
    close(old);                 /* it has read all there was */
    send_write(new, 'n');
    take_answer(new);
    atomic_store(&mem_disk(disk)->caught, false);
    while (server_info().nr_clients > 2) {
        turns();
    }
    ck_assert_int_eq(mem_disk(disk)->data[0], 'n');
    close(first);
    close(new);
}
END_TEST

/* Row: the kind of socket, and whether it says farewell before. */
START_TEST(who_says_no_more_but_listens_gets_all_done)
{
    const Command farewell = { .type = NBD_CMD_DISC };
    int first = client_of_row(_i & 1), second = client_of_row(_i & 1);

    send_more_than_there_is_room_for(first, second);
    if (_i & 2) {
        ck_assert(put_command(second, SIMPLE, &farewell));
    }
    shutdown(second, SHUT_WR);
    turns();
    atomic_store(&mem_disk(disk)->caught, false);
    for (int i = 0; i < 129; i++) {
        uint8_t answer[16];

        ck_assert(get(second, answer, sizeof(answer)));
        ck_assert_uint_eq(from_be(answer + 4, 4), 0);
    }
    ck_assert(is_closed(second));
    ck_assert_int_eq(mem_disk(disk)->data[0], 'o');
    close(first);
    close(second);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd-order");
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 30);
    tcase_add_loop_test(
        tcase, a_write_of_an_older_connection_never_comes_behind, 0, 2);
    tcase_add_loop_test(
        tcase, trims_and_zeroes_wait_as_well_and_are_waited_for, 0, 2);
    PROMISE(tcase, what_does_not_overlap_and_what_reads_does_not_wait);
    PROMISE(tcase, what_a_lost_connection_left_behind_is_not_begun);
    tcase_add_loop_test(
        tcase, what_a_client_that_is_gone_left_unread_is_not_begun, 0, 2);
    tcase_add_loop_test(
        tcase, who_says_no_more_but_listens_gets_all_done, 0, 4);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
