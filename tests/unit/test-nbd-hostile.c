/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of the NBD server that means ill, beside one that does not.
 *
 * The one takes what it can: memory, turns, places.  The other is served all
 * the same, and nothing of it ever shows up at the first.
 */
#include "nbd-fixture.h"
#include "gate-fixture.h"

#include "block/export/nbd-int.h"
#include "block/graph/graph-int.h"

#include <arpa/inet.h>
#include <malloc.h>

#define SIZE (8 * MIB)

static BlockDriverState *disk;
static int honest;

static void setup(void)
{
    nbd_setup();
    gate_parked = g_ptr_array_new();
    disk = open_ok("mem,node-name=disk,size=8M,align=512,discard=unmap");
    server_start(",max-connections-per-peer=0");
    export_add(",writable=on");
    honest = client_go(SIMPLE);
}

static void teardown(void)
{
    is_served(honest);
    close(honest);
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    g_ptr_array_unref(gate_parked);
    nbd_teardown();
}

/* Let the loop go on until all that was in flight is done. */
static void wait_for_nothing_in_flight(void)
{
    while (server_info().bytes_in_flight > 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static void put_reads(int fd, int nr, uint64_t bytes)
{
    const Command c = { .type = NBD_CMD_READ, .cookie = 1, .bytes = bytes };

    for (int i = 0; i < nr; i++) {
        ck_assert(put_command(fd, SIMPLE, &c));
    }
}

/* --- memory -------------------------------------------------------------- */

/* S16 */
START_TEST(who_never_reads_is_cut_off_and_holds_nobody_up)
{
    NbdServer *server = *export_nbd_server(graph);
    int client = client_go(SIMPLE);

    server->patience_ns = 100 * 1000 * 1000;
    close(client);
    client = client_go(SIMPLE);
    put_reads(client, 100, 4 * MIB);
    while (server_info().bytes_in_flight == 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    while (server_info().nr_clients > 1) {
        is_served(honest);
        ck_assert_int_le(server_info().bytes_in_flight,
                         NBD_CLIENT_BYTES_MAX + 512);
        aio_poll(block_graph_aio_context(graph), true);
    }
    wait_for_nothing_in_flight();
    close(client);
}
END_TEST

/* S15: what all clients have in flight together has a limit as well; who comes
 * behind it waits, and gets its turn when there is room. */
START_TEST(all_clients_together_have_a_limited_memory_in_flight)
{
    enum { CLIENTS = 8, EACH = 2 };
    NbdServer *server = *export_nbd_server(graph);
    int client[CLIENTS];
    g_autofree uint8_t *got = g_malloc(MIB + NBD_SIMPLE_REPLY_BYTES);

    mem_budget_init(&server->memory, 4 * MIB);
    mem_disk(disk)->hold[MEM_READ] = true;
    for (int i = 0; i < CLIENTS; i++) {
        client[i] = client_go(SIMPLE);
        put_reads(client[i], EACH, MIB);
    }
    while (mem_disk(disk)->held < 4) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    for (int i = 0; i < 1000; i++) {
        aio_poll(block_graph_aio_context(graph), false);
        ck_assert_int_le(server_info().bytes_in_flight, 4 * MIB);
    }
    ck_assert_uint_eq(mem_disk(disk)->held, 4);
    mem_disk(disk)->hold[MEM_READ] = false;
    for (int i = 0; i < CLIENTS; i++) {
        for (int n = 0; n < EACH; n++) {
            ck_assert(get(client[i], got, MIB + NBD_SIMPLE_REPLY_BYTES));
        }
        close(client[i]);
    }
    wait_for_nothing_in_flight();
}
END_TEST

/* --- turns --------------------------------------------------------------- */

/* Turn until @nr requests stand before the gate. */
static void wait_parked(unsigned nr)
{
    while (gate_parked->len < nr) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/* Let the request of this kind through that came first. */
static void let_one_go(char op)
{
    for (guint i = 0; i < gate_parked->len; i++) {
        const Parked *parked = g_ptr_array_index(gate_parked, i);

        if (parked->op == op) {
            gate_let_go(i);
            return;
        }
    }
    ck_abort_msg("no request of kind %c", op);
}

/* The export "h" of 2 TiB with a gate before it, and a client of it. */
static int huge_client(BlockDriverState **ret_bs)
{
    int fd = client_new();

    *ret_bs = open_ok("gate,node-name=huge,discard=unmap,file.driver=null-co,file.size=2T,"
                      "file.read-zeroes=on");
    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=h,node-name=huge,name=h,writable=on"), NULL));
    ck_assert_uint_eq(plain_option(fd, NBD_OPT_EXTENDED_HEADERS), NBD_REP_ACK);
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "h"), NBD_REP_ACK);
    return fd;
}

static int honest_client_of_huge(void)
{
    int fd = client_new();

    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "h"), NBD_REP_ACK);
    return fd;
}

static const struct {
    uint16_t type;
    char op;
} long_requests[] = {
    { NBD_CMD_WRITE_ZEROES, 'z' },
    { NBD_CMD_TRIM, 'd' },
};

/* S17: steps of it, and what others want in between. */
START_TEST(reads_of_others_go_on_between_the_steps_of_terabytes)
{
    const Command c = { .type = long_requests[_i].type,
                        .bytes = UINT64_C(2) << 40 };
    const Command r = { .type = NBD_CMD_READ, .cookie = 3, .bytes = 512 };
    g_autoptr(GByteArray) data = g_byte_array_new();
    BlockDriverState *huge;
    int client = huge_client(&huge), other = honest_client_of_huge();

    gate_shut = true;
    ck_assert(put_command(client, EXTENDED, &c));
    for (int step = 0; step < 3; step++) {
        wait_parked(1);
        ck_assert(put_command(other, SIMPLE, &r));
        wait_parked(2);
        let_one_go('r');
        ck_assert_int_eq(get_answer(other, SIMPLE, &r, data), 0);
        ck_assert_uint_eq(gate_parked->len, 1);
        let_one_go(long_requests[_i].op);
    }
    wait_parked(1);
    gate_shut = false;
    let_one_go(long_requests[_i].op);
    ck_assert_int_eq(get_answer(client, EXTENDED, &c, data), 0);
    close(client);
    close(other);
    blk_nbd_server_stop(graph);
    bdrv_unref(huge);
    server_start("");
    export_add(",writable=on");
    close(honest);
    honest = client_go(SIMPLE);
}
END_TEST

/* S17: all that one client may have in flight, and each of it is long. */
START_TEST(a_read_does_not_wait_for_all_that_another_has_in_flight)
{
    const Command c = { .type = long_requests[_i].type, .cookie = 9,
                        .bytes = UINT64_C(2) << 40 };
    BlockDriverState *huge;
    int client = huge_client(&huge), other = honest_client_of_huge();
    char byte;

    for (int i = 0; i < NBD_REQUESTS_MAX; i++) {
        ck_assert(put_command(client, EXTENDED, &c));
    }
    for (int i = 0; i < 10; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    for (int i = 0; i < 10; i++) {
        is_served(other);
        is_served(honest);
    }
    /* Nothing of the long ones is done. */
    ck_assert_int_lt(recv(client, &byte, 1, MSG_DONTWAIT | MSG_PEEK), 0);
    ck_assert_int_eq(errno, EAGAIN);
    close(client);
    close(other);
    ck_assert_int_eq(blk_exp_del(blk_exp_find(graph, "h"),
                                 BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    while (blk_exp_find(graph, "h")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_unref(huge);
}
END_TEST

/* --- places -------------------------------------------------------------- */

/* Connect over TCP from @address of this machine. */
static int connect_from(const char *address, unsigned port)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, address, &at.sin_addr);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    at.sin_port = htons(port);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* S14 */
START_TEST(one_address_has_a_limited_number_of_connections)
{
    int fd[10], other;
    unsigned port;

    close(honest);
    blk_nbd_server_stop(graph);
    ck_assert_int_eq(blk_nbd_server_start(graph, opts(
        "addr.type=inet,addr.host=127.0.0.1,addr.port=0"), NULL), 0);
    port = server_info().port;
    for (int i = 0; i < 10; i++) {
        fd[i] = connect_from("127.0.0.1", port);
        ck_assert(client_greet(fd[i]));
    }
    other = connect_from("127.0.0.1", port);
    ck_assert(is_closed(other));
    close(other);
    other = connect_from("127.0.0.2", port);
    ck_assert(client_greet(other));
    close(other);
    for (int i = 0; i < 10; i++) {
        close(fd[i]);
    }
    blk_nbd_server_stop(graph);
    server_start("");
    export_add("");
    honest = client_go(SIMPLE);
}
END_TEST

/* --- what was another's -------------------------------------------------- */

/* What the heap is full of, and what the other client has written and read. */
#define CANARY 0xc5

/* A run of so many is no accident. */
#define CANARY_RUN 6

/* A client leaves buffers of all sizes behind, and they are full. */
static void leave_buffers(void)
{
    static uint8_t secret[SIZE];
    int fd = client_go(STRUCTURED);

    memset(secret, CANARY, sizeof(secret));
    for (size_t bytes = 512; bytes <= SIZE; bytes *= 2) {
        ck_assert_int_eq(write_at(fd, STRUCTURED, 0, secret, bytes), 0);
        ck_assert_int_eq(read_at(fd, STRUCTURED, 0, secret, bytes), 0);
    }
    close(fd);
    turn();
}

/* Add what has come to @all; false: that is all. */
static bool get_some(int fd, GByteArray *all)
{
    uint8_t buf[4096];
    ssize_t nr;

    client_wait(fd, POLLIN);
    nr = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (nr > 0) {
        g_byte_array_append(all, buf, nr);
    }
    return nr > 0;
}

static unsigned longest_canary(const GByteArray *all)
{
    unsigned run = 0, longest = 0;

    for (guint i = 0; i < all->len; i++) {
        run = all->data[i] == CANARY ? run + 1 : 0;
        longest = MAX(longest, run);
    }
    return longest;
}

/* All that the server says to a client of export @name that sends @nr commands
 * and leaves; none of it is a canary's. */
static GByteArray *all_said(const char *name, Headers headers,
                            const Command *commands, int nr)
{
    const Command leave = { .type = NBD_CMD_DISC };
    GByteArray *all = g_byte_array_new();
    int fd = client_new();

    if (headers != SIMPLE) {
        plain_option(fd, headers == EXTENDED ? NBD_OPT_EXTENDED_HEADERS
                                             : NBD_OPT_STRUCTURED_REPLY);
    }
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, name), NBD_REP_ACK);
    for (int i = 0; i < nr; i++) {
        ck_assert(put_command(fd, headers, &commands[i]));
    }
    ck_assert(put_command(fd, headers, &leave));
    while (get_some(fd, all)) {
        continue;
    }
    close(fd);
    ck_assert_uint_lt(longest_canary(all), CANARY_RUN);
    return all;
}

/* An export @name of the node @text, read by a client; the lengths are those of
 * the answers with simple headers. */
static void expect_no_canary(const char *text, const Command *commands, int nr,
                             size_t simple_bytes)
{
    BlockDriverState *bs = open_ok(text);
    BlockExport *exp = blk_exp_add(graph,
        opts("type=nbd,id=x,node-name=x,name=x"), NULL);

    ck_assert_ptr_nonnull(exp);
    for (Headers headers = SIMPLE; headers <= EXTENDED; headers++) {
        g_autoptr(GByteArray) all = all_said("x", headers, commands, nr);

        if (headers == SIMPLE) {
            ck_assert_uint_eq(all->len, simple_bytes);
        }
    }
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    while (blk_exp_find(graph, "x")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_unref(bs);
}

static const Command reads[] = {
    { .type = NBD_CMD_READ, .offset = 0, .bytes = 100 },
    { .type = NBD_CMD_READ, .offset = 4097, .bytes = 511 },
    { .type = NBD_CMD_READ, .offset = 65530, .bytes = 4096 },
    { .type = NBD_CMD_READ, .offset = 131071, .bytes = 65536 },
    { .type = NBD_CMD_READ, .offset = 1, .bytes = 500000 },
};

#define READS ((int)G_N_ELEMENTS(reads))
#define READ_BYTES (100 + 511 + 4096 + 65536 + 500000)

/* S18 */
START_TEST(an_answer_has_nothing_of_another_client_nor_of_the_heap)
{
    const Command wrong[] = {
        { .type = NBD_CMD_READ, .offset = SIZE - 1, .bytes = 2 },
        { .type = NBD_CMD_READ, .bytes = UINT32_MAX },
        { .type = NBD_CMD_WRITE_ZEROES, .bytes = 512 },
        { .type = 77, .bytes = 4096 },
        { .type = NBD_CMD_BLOCK_STATUS, .bytes = 512 },
    };
    const size_t heads = READS * NBD_SIMPLE_REPLY_BYTES;

    leave_buffers();
    /* A driver that fills nothing: as if a read was short and nobody saw it. */
    expect_no_canary("null-co,node-name=x,size=8M", reads, READS,
                     heads + READ_BYTES);
    expect_no_canary("mem,node-name=x,size=8M", wrong,
                     G_N_ELEMENTS(wrong),
                     G_N_ELEMENTS(wrong) * NBD_SIMPLE_REPLY_BYTES);
    expect_no_canary("blkdebug,node-name=x,image.driver=mem,image.size=8M,"
                     "inject-error.0.event=read_aio,inject-error.0.errno=5,"
                     "inject-error.0.once=off", reads, READS, heads);
}
END_TEST

/* A file of 1 MiB in the directory of the test, full of 0x11. */
static char *make_file(const char *name)
{
    char *path = g_build_filename(nbd_dir, name, NULL);
    g_autofree char *content = g_malloc(MIB);

    memset(content, 0x11, MIB);
    ck_assert(g_file_set_contents(path, content, MIB, NULL));
    return path;
}

/* S18 */
START_TEST(a_file_that_became_shorter_shows_nothing_of_others)
{
    g_autofree char *path = make_file("f");
    g_autofree char *node = g_strdup_printf(
        "file,node-name=x,filename=%s,read-only=on%s", path,
        _i ? ",aio=threads" : "");
    BlockDriverState *bs = open_ok(node);
    BlockExport *exp = blk_exp_add(graph,
        opts("type=nbd,id=x,node-name=x,name=x"), NULL);

    leave_buffers();
    ck_assert_int_eq(truncate(path, 4100), 0);
    for (Headers headers = SIMPLE; headers <= EXTENDED; headers++) {
        g_byte_array_unref(all_said("x", headers, reads, READS));
    }
    blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL);
    while (blk_exp_find(graph, "x")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_unref(bs);
    g_unlink(path);
}
END_TEST

/* An image with a compressed cluster, zeroes, half a cluster of data, and
 * nothing. */
static void write_image(const char *node)
{
    g_autofree uint8_t *data = g_malloc(65536);
    BlockDriverState *bs = open_ok(node);
    BlockBackend *blk = backend_ok("w", bs, BLK_PERM_CONSISTENT_READ |
                                   BLK_PERM_WRITE, BLK_PERM_ALL);

    memset(data, 0x11, 65536);
    ck_assert_int_eq(blk_pwrite(blk, 0, 65536, data,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 65536, 65536, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 131072, 32768, data, 0), 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

/* S18 */
START_TEST(an_image_shows_nothing_of_others_where_it_has_no_data)
{
    g_autofree char *path = make_file("i");
    g_autofree char *node = g_strdup_printf(
        "qcow2,node-name=x,file.driver=file,file.filename=%s", path);
    g_autofree char *create = g_strdup_printf(
        "driver=qcow2,size=8M,file.driver=file,file.filename=%s", path);

    leave_buffers();
    ck_assert_int_eq(bdrv_create(graph, opts(create), NULL), 0);
    write_image(node);
    expect_no_canary(node, reads, READS,
                     READS * NBD_SIMPLE_REPLY_BYTES + READ_BYTES);
    g_unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd-hostile");
    TCase *tc = tcase_create("nbd-hostile");
    int kinds = G_N_ELEMENTS(long_requests);

    /* What malloc() gives is full of CANARY. */
    mallopt(M_PERTURB, 0xff & ~CANARY);
    mem_register();
    register_gate_driver();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    PROMISE(tc, who_never_reads_is_cut_off_and_holds_nobody_up);
    PROMISE(tc, all_clients_together_have_a_limited_memory_in_flight);
    tcase_add_loop_test(tc,
        reads_of_others_go_on_between_the_steps_of_terabytes, 0, kinds);
    tcase_add_loop_test(tc,
        a_read_does_not_wait_for_all_that_another_has_in_flight, 0, kinds);
    PROMISE(tc, one_address_has_a_limited_number_of_connections);
    PROMISE(tc, an_answer_has_nothing_of_another_client_nor_of_the_heap);
    tcase_add_loop_test(tc, a_file_that_became_shorter_shows_nothing_of_others,
                        0, 2);
    PROMISE(tc, an_image_shows_nothing_of_others_where_it_has_no_data);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
