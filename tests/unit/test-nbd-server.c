/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server after the handshake: requests, limits, the end of exports.
 */
#include "nbd-fixture.h"

#include "block/export/nbd-int.h"
#include "block/graph/graph-int.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>

#define SIZE (8 * MIB)

static BlockDriverState *disk;
static int fd;

static void begin(const char *node, const char *export)
{
    disk = open_ok(node);
    server_start(",max-connections-per-peer=0");
    export_add(export);
}

static void setup(void)
{
    nbd_setup();
    begin("mem,node-name=disk,size=8M,align=512,discard=unmap,fua=off",
          ",writable=on");
    fd = client_go(SIMPLE);
}

static void teardown(void)
{
    if (fd >= 0) {
        is_served(fd);
        close(fd);
    }
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    nbd_teardown();
}

/* Requests that are held keep the loop busy; let all others go on. */
static void turns(void)
{
    for (int i = 0; i < 2000; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static const char *const header_names[] = { "simple", "structured",
                                            "extended" };

/* --- commands ------------------------------------------------------------ */

START_TEST(what_is_written_is_read_with_all_kinds_of_headers)
{
    static uint8_t data[300 * KIB], got[300 * KIB];
    int client = client_go(_i);

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = i * 13 + (i >> 10);
    }
    ck_assert_msg(write_at(client, _i, 12345, data, sizeof(data)) == 0, "%s",
                  header_names[_i]);
    ck_assert_int_eq(read_at(client, _i, 12345, got, sizeof(got)), 0);
    ck_assert_mem_eq(got, data, sizeof(data));
    ck_assert_mem_eq(mem_disk(disk)->data + 12345, data, sizeof(data));
    ck_assert_int_eq(read_at(client, _i, 0, got, 0), 0);
    close(client);
}
END_TEST

START_TEST(commands_without_data_do_what_they_say)
{
    int client = client_go(_i);
    MemDisk *mem = mem_disk(disk);
    Command c = { .cookie = 5, .offset = 4096, .bytes = 8192 };
    uint8_t byte = 9;

    memset(mem->data, 0xee, SIZE);
    c.type = NBD_CMD_WRITE_ZEROES;
    ck_assert_int_eq(command(client, _i, &c), 0);
    ck_assert(block_buffer_is_zero(mem->data + 4096, 8192));
    ck_assert_uint_eq(mem->data[4095], 0xee);
    ck_assert_uint_eq(mem->data[4096 + 8192], 0xee);
    ck_assert(mem->last[MEM_ZERO].flags & BDRV_REQ_MAY_UNMAP);
    c.flags = NBD_CMD_FLAG_NO_HOLE;
    ck_assert_int_eq(command(client, _i, &c), 0);
    ck_assert(!(mem->last[MEM_ZERO].flags & BDRV_REQ_MAY_UNMAP));
    c.flags = 0;
    c.type = NBD_CMD_TRIM;
    ck_assert_int_eq(command(client, _i, &c), 0);
    ck_assert_int_eq(mem->last[MEM_DISCARD].bytes, 8192);
    c.type = NBD_CMD_CACHE;
    ck_assert_int_eq(command(client, _i, &c), 0);
    c.type = NBD_CMD_FLUSH;
    c.offset = c.bytes = 0;
    ck_assert_int_eq(write_at(client, _i, 1, &byte, 1), 0);
    ck_assert_int_eq(command(client, _i, &c), 0);
    ck_assert_uint_gt(mem->count[MEM_FLUSH], 0);
    close(client);
}
END_TEST

START_TEST(a_fast_zero_that_would_be_slow_is_refused)
{
    Command c = { .type = NBD_CMD_WRITE_ZEROES, .bytes = 4096,
                  .flags = NBD_CMD_FLAG_FAST_ZERO };

    mem_disk(disk)->fail_forever[MEM_ZERO] = ENOTSUP;
    ck_assert_int_eq(command(fd, SIMPLE, &c), NBD_ENOTSUP);
    c.flags = 0;
    ck_assert_int_eq(command(fd, SIMPLE, &c), 0);
}
END_TEST

START_TEST(errors_of_the_disk_reach_the_client_with_all_kinds_of_headers)
{
    int client = client_go(_i);
    uint8_t buf[512] = { 0 };

    mem_disk(disk)->fail[MEM_READ] = EIO;
    ck_assert_int_eq(read_at(client, _i, 0, buf, 512), NBD_EIO);
    mem_disk(disk)->fail[MEM_WRITE] = ENOSPC;
    ck_assert_int_eq(write_at(client, _i, 0, buf, 512), NBD_ENOSPC);
    mem_disk(disk)->fail[MEM_WRITE] = EPERM;
    ck_assert_int_eq(write_at(client, _i, 0, buf, 512), NBD_EPERM);
    ck_assert_int_eq(read_at(client, _i, 0, buf, 512), 0);
    close(client);
}
END_TEST

START_TEST(requests_that_make_no_sense_are_answered_and_the_stream_goes_on)
{
    static const struct { Command c; int error; } rows[] = {
        { { .type = NBD_CMD_READ, .offset = SIZE, .bytes = 1 }, NBD_EINVAL },
        { { .type = NBD_CMD_READ, .offset = UINT64_MAX, .bytes = 512 },
          NBD_EINVAL },
        { { .type = NBD_CMD_READ, .offset = INT64_MAX, .bytes = UINT32_MAX },
          NBD_EINVAL },
        { { .type = NBD_CMD_READ, .bytes = UINT32_MAX }, NBD_EINVAL },
        { { .type = NBD_CMD_READ, .bytes = 512, .flags = 0x8000 },
          NBD_EINVAL },
        { { .type = NBD_CMD_READ, .bytes = 512, .flags = NBD_CMD_FLAG_DF },
          NBD_EINVAL },
        { { .type = NBD_CMD_TRIM, .offset = SIZE - 1, .bytes = 2 },
          NBD_EINVAL },
        { { .type = NBD_CMD_WRITE_ZEROES, .offset = SIZE - 1, .bytes = 2 },
          NBD_ENOSPC },
        { { .type = NBD_CMD_CACHE, .offset = SIZE, .bytes = 4096 },
          NBD_EINVAL },
        { { .type = NBD_CMD_FLUSH, .offset = 1 }, NBD_EINVAL },
        { { .type = NBD_CMD_BLOCK_STATUS, .bytes = 4096 }, NBD_EINVAL },
        { { .type = 8 }, NBD_EINVAL },
        { { .type = 0xffff, .bytes = UINT32_MAX }, NBD_EINVAL },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        ck_assert_msg(command(fd, SIMPLE, &rows[i].c) == rows[i].error,
                      "row %zu", i);
        is_served(fd);
    }
}
END_TEST

START_TEST(a_write_beyond_the_end_is_refused_and_its_data_skipped)
{
    uint8_t data[20000] = { 1 };

    ck_assert_int_eq(write_at(fd, SIMPLE, SIZE - 512, data, sizeof(data)),
                     NBD_ENOSPC);
    ck_assert_int_eq(write_at(fd, SIMPLE, UINT64_MAX - 5, data, 512),
                     NBD_ENOSPC);
    is_served(fd);
}
END_TEST

/* S23 */
START_TEST(an_export_is_read_only_unless_it_is_asked_to_be_writable)
{
    Command c = { .type = NBD_CMD_WRITE_ZEROES, .bytes = 512 };
    uint8_t data[512] = { 1 };
    int client;

    close(fd);
    blk_nbd_server_stop(graph);
    server_start("");
    export_add("");
    fd = client_go(SIMPLE);
    client = client_go(STRUCTURED);
    ck_assert_int_eq(write_at(client, STRUCTURED, 0, data, 512), NBD_EPERM);
    ck_assert_int_eq(command(client, STRUCTURED, &c), NBD_EPERM);
    c.type = NBD_CMD_TRIM;
    ck_assert_int_eq(command(client, STRUCTURED, &c), NBD_EPERM);
    close(client);
}
END_TEST

/* R34: in requests. */
START_TEST(r34_a_write_longer_than_the_limit_ends_the_connection)
{
    static const uint64_t lengths[] = {
        32 * MIB + 1, 0x80000000, 0xfffffe00, 0xffffffff,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        for (Headers h = SIMPLE; h <= EXTENDED; h++) {
            Command c = { .type = NBD_CMD_WRITE, .bytes = lengths[i] };
            int client = client_go(h);

            ck_assert(put_command(client, h, &c));
            ck_assert(is_closed(client));
            close(client);
        }
    }
}
END_TEST

START_TEST(a_header_that_is_none_ends_the_connection)
{
    uint8_t junk[64];
    int client = client_go(SIMPLE);

    memset(junk, 0x5a, sizeof(junk));
    ck_assert(put(client, junk, sizeof(junk)));
    ck_assert(is_closed(client));
    close(client);
}
END_TEST

/* R39: a client that goes, after each command and each part of it. */
START_TEST(r39_a_client_may_leave_after_any_byte_of_a_request)
{
    for (uint16_t type = NBD_CMD_READ; type <= NBD_CMD_BLOCK_STATUS; type++) {
        for (size_t n = 1; n < 28 + 512; n += n < 30 ? 1 : 97) {
            uint8_t head[28 + 512] = { 0 };
            int client = client_go(SIMPLE);

            be(be(be(be(head, NBD_REQUEST_MAGIC, 4), type, 4), 1, 8), 0, 8);
            be(head + 24, type == NBD_CMD_FLUSH ? 0 : 512, 4);
            ck_assert(put(client, head, n));
            if (n % 2) {
                turn();
            }
            close(client);
            turn();
        }
    }
}
END_TEST

/* R47: every offset and length inside a few blocks, against a plain array. */
START_TEST(r47_unaligned_requests_touch_their_own_bytes_only)
{
    enum { ROOM = 4096 };
    static uint8_t model[ROOM];
    uint8_t got[ROOM], data[ROOM];
    g_autoptr(GRand) rand = g_rand_new_with_seed(47);

    memset(model, 0xc3, ROOM);
    ck_assert_int_eq(write_at(fd, SIMPLE, 0, model, ROOM), 0);
    for (int i = 0; i < 600; i++) {
        Command c = { .cookie = i };

        c.offset = g_rand_int_range(rand, 0, ROOM);
        c.bytes = g_rand_int_range(rand, 1, ROOM - c.offset + 1);
        memset(data, i, c.bytes);
        switch (i % 3) {
        case 0:
            ck_assert_int_eq(write_at(fd, SIMPLE, c.offset, data, c.bytes), 0);
            memset(model + c.offset, i, c.bytes);
            break;
        case 1:
            c.type = NBD_CMD_WRITE_ZEROES;
            ck_assert_int_eq(command(fd, SIMPLE, &c), 0);
            memset(model + c.offset, 0, c.bytes);
            break;
        default:
            /* Blocks that it covers may go, their neighbours may not. */
            c.type = NBD_CMD_TRIM;
            ck_assert_int_eq(command(fd, SIMPLE, &c), 0);
            ck_assert_int_eq(read_at(fd, SIMPLE, 0, got, ROOM), 0);
            ck_assert_mem_eq(got, model, c.offset);
            ck_assert_mem_eq(got + c.offset + c.bytes,
                             model + c.offset + c.bytes,
                             ROOM - c.offset - c.bytes);
            memcpy(model, got, ROOM);
            break;
        }
        c.bytes = g_rand_int_range(rand, 1, ROOM - c.offset + 1);
        ck_assert_int_eq(read_at(fd, SIMPLE, c.offset, got, c.bytes), 0);
        ck_assert_mem_eq(got, model + c.offset, c.bytes);
    }
}
END_TEST

/* R48: lengths that are negative as 32 bits, or as 64. */
START_TEST(r48_long_trims_and_zeroes_do_all_or_refuse)
{
    static const uint64_t lengths[] = {
        (UINT64_C(1) << 31) - 4096, UINT64_C(1) << 31,
        (UINT64_C(1) << 31) + 4096, (UINT64_C(1) << 32) - 512,
        UINT64_C(1) << 40,
    };
    BlockDriverState *huge = open_ok("null-co,node-name=huge,size=2T");
    uint64_t all = 0;
    int client;

    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=h,node-name=huge,name=h,writable=on"), NULL));
    client = client_new();
    ck_assert_uint_eq(plain_option(client, NBD_OPT_EXTENDED_HEADERS),
                      NBD_REP_ACK);
    ck_assert_uint_eq(info_option(client, NBD_OPT_GO, "h"), NBD_REP_ACK);
    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        Command c = { .type = NBD_CMD_TRIM, .bytes = lengths[i] };
        BlockAcctStats stats;

        ck_assert_int_eq(command(client, EXTENDED, &c), 0);
        all += lengths[i];
        blk_get_stats(blk_exp_find(graph, "h")->blk, BLOCK_ACCT_UNMAP, &stats);
        ck_assert_uint_eq(stats.bytes, all);
        c.type = NBD_CMD_WRITE_ZEROES;
        ck_assert_int_eq(command(client, EXTENDED, &c), 0);
        c.bytes = INT64_MAX;
        ck_assert_int_eq(command(client, EXTENDED, &c), NBD_ENOSPC);
        c.bytes = UINT64_MAX;
        ck_assert_int_eq(command(client, EXTENDED, &c), NBD_ENOSPC);
        c.type = NBD_CMD_READ;
        c.bytes = lengths[i];
        ck_assert_int_eq(command(client, EXTENDED, &c), NBD_EOVERFLOW);
    }
    close(client);
    blk_exp_del(blk_exp_find(graph, "h"), BLOCK_EXPORT_REMOVE_HARD, NULL);
    while (blk_exp_find(graph, "h")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    bdrv_unref(huge);
}
END_TEST

/* R50: what multi-conn promises. */
START_TEST(r50_a_flush_on_one_connection_is_for_what_was_written_on_another)
{
    int a = client_go(SIMPLE);
    int b = client_go(STRUCTURED);
    Command flush = { .type = NBD_CMD_FLUSH };
    uint8_t data[512], got[512];

    for (int i = 1; i < 50; i++) {
        memset(data, i, sizeof(data));
        ck_assert_int_eq(write_at(a, SIMPLE, 512 * i, data, 512), 0);
        ck_assert_int_eq(command(b, STRUCTURED, &flush), 0);
        ck_assert_int_eq(read_at(b, STRUCTURED, 512 * i, got, 512), 0);
        ck_assert_mem_eq(got, data, 512);
    }
    close(a);
    close(b);
}
END_TEST

/* R51: each command that changes something. */
START_TEST(r51_fua_flushes_whatever_the_command_is)
{
    static const uint16_t types[] = { NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM };
    MemDisk *mem = mem_disk(disk);
    Command w = { .type = NBD_CMD_WRITE, .flags = NBD_CMD_FLAG_FUA,
                  .bytes = 512 };
    uint8_t data[512] = { 3 };
    g_autoptr(GByteArray) answer = g_byte_array_new();
    unsigned before = mem->count[MEM_FLUSH];

    ck_assert(put_command(fd, SIMPLE, &w) && put(fd, data, 512));
    ck_assert_int_eq(get_answer(fd, SIMPLE, &w, answer), 0);
    ck_assert_uint_gt(mem->count[MEM_FLUSH], before);
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        Command c = { .type = types[i], .flags = NBD_CMD_FLAG_FUA,
                      .bytes = 4096 };

        write_at(fd, SIMPLE, 65536, data, 512);
        before = mem->count[MEM_FLUSH];
        ck_assert_int_eq(command(fd, SIMPLE, &c), 0);
        ck_assert_uint_gt(mem->count[MEM_FLUSH], before);
    }
}
END_TEST

/* R53: none is in flight below a drain, and those that come meanwhile wait. */
START_TEST(r53_a_drain_waits_for_requests_and_holds_later_ones)
{
    Command c = { .type = NBD_CMD_READ, .cookie = 1, .bytes = 512 };
    g_autoptr(GByteArray) data = g_byte_array_new();
    MemDisk *mem = mem_disk(disk);
    unsigned before;

    for (int i = 0; i < 20; i++) {
        ck_assert(put_command(fd, SIMPLE, &c));
        if (i % 2) {
            turn();
        }
        bdrv_drained_begin(disk);
        before = mem->count[MEM_READ];
        ck_assert(put_command(fd, SIMPLE, &c));
        turn();
        ck_assert_uint_eq(mem->count[MEM_READ], before);
        bdrv_drained_end(disk);
        ck_assert_int_eq(get_answer(fd, SIMPLE, &c, data), 0);
        ck_assert_int_eq(get_answer(fd, SIMPLE, &c, data), 0);
    }
}
END_TEST

/* --- limits -------------------------------------------------------------- */

START_TEST(a_client_has_128_requests_in_flight_and_then_must_wait)
{
    Command c = { .type = NBD_CMD_READ, .cookie = 1, .bytes = 512 };
    g_autoptr(GByteArray) data = g_byte_array_new();
    MemDisk *mem = mem_disk(disk);
    int client = client_go(SIMPLE);

    mem->hold[MEM_READ] = true;
    for (int i = 0; i < 300; i++) {
        ck_assert(put_command(client, SIMPLE, &c));
    }
    turns();
    ck_assert_uint_eq(mem->held, 128);
    mem->hold[MEM_READ] = false;
    for (int i = 0; i < 300; i++) {
        ck_assert_int_eq(get_answer(client, SIMPLE, &c, data), 0);
    }
    close(client);
}
END_TEST

START_TEST(a_client_has_64_mib_in_flight_and_then_must_wait)
{
    Command c = { .type = NBD_CMD_READ, .cookie = 1, .bytes = 8 * MIB };
    g_autoptr(GByteArray) data = g_byte_array_new();
    MemDisk *mem = mem_disk(disk);
    int client = client_go(SIMPLE);

    mem->hold[MEM_READ] = true;
    for (int i = 0; i < 20; i++) {
        ck_assert(put_command(client, SIMPLE, &c));
    }
    turns();
    ck_assert_int_eq(server_info().bytes_in_flight, 64 * MIB);
    ck_assert_uint_eq(mem->held, 8);
    mem->hold[MEM_READ] = false;
    is_served(fd);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(get_answer(client, SIMPLE, &c, data), 0);
    }
    turn();
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
    close(client);
}
END_TEST

/* S16 */
START_TEST(a_client_that_does_not_read_holds_its_own_memory_only)
{
    Command c = { .type = NBD_CMD_READ, .cookie = 1, .bytes = 4 * MIB };
    int client = client_go(SIMPLE);

    for (int i = 0; i < 100; i++) {
        ck_assert(put_command(client, SIMPLE, &c));
    }
    turn();
    ck_assert_int_le(server_info().bytes_in_flight, 64 * MIB);
    for (int i = 0; i < 100; i++) {
        is_served(fd);
    }
    close(client);
    while (server_info().nr_clients > 1) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
}
END_TEST

/* S16: each byte alone comes in time, but what it is a part of takes memory
 * for as long as the client likes. */
START_TEST(a_client_that_sends_drop_by_drop_is_cut_off)
{
    NbdServer *server = *export_nbd_server(graph);
    Headers h = _i ? EXTENDED : SIMPLE;
    Command c = { .type = _i ? NBD_CMD_FLUSH : NBD_CMD_WRITE, .bytes = MIB,
                  .flags = _i ? NBD_CMD_FLAG_PAYLOAD_LEN : 0 };
    int client = client_go(h);

    server->patience_ns = 100 * 1000 * 1000;
    ck_assert(put_command(client, h, &c));
    turn();
    ck_assert_int_eq(server_info().bytes_in_flight, MIB);
    while (put(client, "x", 1)) {
        turn();
        poll(NULL, 0, 10);      /* well within the patience */
    }
    turn();
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
    ck_assert_uint_eq(server_info().nr_clients, 1);
    close(client);
}
END_TEST

/* Its place would be taken for ever, and only the system can notice. */
START_TEST(a_tcp_client_that_vanishes_is_noticed)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 0, ms = 0, peer, client;
    socklen_t bytes = sizeof(int);
    NbdServer *server;

    close(fd);
    fd = -1;
    blk_nbd_server_stop(graph);
    ck_assert_int_eq(blk_nbd_server_start(graph, opts(
        "addr.type=inet,addr.host=127.0.0.1,addr.port=0"), NULL), 0);
    server = *export_nbd_server(graph);
    at.sin_port = htons(server_info().port);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(client, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert(client_greet(client));
    peer = aio_socket_fd(LIST_ENTRY(server->clients.next, NbdClient,
                                    link)->socket);
    ck_assert_int_eq(getsockopt(peer, SOL_SOCKET, SO_KEEPALIVE, &on, &bytes),
                     0);
    ck_assert_int_eq(on, 1);
    ck_assert_int_eq(getsockopt(peer, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms,
                                &bytes), 0);
    ck_assert_int_eq(ms, 60 * 1000);
    close(client);
}
END_TEST

/* --- exports ------------------------------------------------------------- */

static void note_deleted(const char *id, void *opaque)
{
    g_string_append_printf(opaque, "%s ", id);
}

START_TEST(an_export_in_use_is_closed_the_hard_way_only)
{
    GString *deleted = g_string_new(NULL);
    BlockExport *exp = blk_exp_find(graph, "e");
    GError *error = NULL;
    BlockExportInfo info;

    blk_exp_add_listener(graph, note_deleted, deleted);
    blk_exp_query(exp, &info);
    ck_assert_str_eq(info.id, "e");
    ck_assert_str_eq(info.type, "nbd");
    ck_assert_str_eq(info.node_name, "disk");
    ck_assert_str_eq(info.name, "d");
    ck_assert(info.writable && !info.shutting_down);
    ck_assert_uint_eq(info.nr_clients, 1);
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_SAFE, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "'e' is in use");
    is_served(fd);
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    ck_assert(is_closed(fd));
    while (blk_exp_next(graph, NULL)) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_str_eq(deleted->str, "e ");
    blk_exp_remove_listener(graph, note_deleted, deleted);
    g_string_free(deleted, true);
    close(fd);
    fd = -1;
}
END_TEST

START_TEST(an_export_that_closes_waits_for_its_requests_and_takes_no_clients)
{
    Command c = { .type = NBD_CMD_READ, .bytes = 512 };
    BlockExport *exp = blk_exp_find(graph, "e");
    MemDisk *mem = mem_disk(disk);
    int other;

    mem->hold[MEM_READ] = true;
    ck_assert(put_command(fd, SIMPLE, &c));
    turns();
    ck_assert_uint_eq(mem->held, 1);
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    turns();
    ck_assert_ptr_eq(blk_exp_find(graph, "e"), exp);
    other = client_new();
    ck_assert_uint_eq(info_option(other, NBD_OPT_GO, "d"),
                      NBD_REP_ERR_UNKNOWN);
    mem->hold[MEM_READ] = false;
    blk_exp_close_all(graph);
    ck_assert_ptr_null(blk_exp_find(graph, "e"));
    close(other);
    close(fd);
    fd = -1;
}
END_TEST

START_TEST(an_export_that_closes_does_not_wait_for_terabytes_of_zeroes)
{
    BlockDriverState *huge = open_ok("null-co,node-name=huge,size=2T");
    Command c = { .type = NBD_CMD_WRITE_ZEROES, .bytes = UINT64_C(2) << 40 };
    int client = client_new(), left = 500;

    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=h,node-name=huge,name=h,writable=on"), NULL));
    ck_assert_uint_eq(plain_option(client, NBD_OPT_EXTENDED_HEADERS),
                      NBD_REP_ACK);
    ck_assert_uint_eq(info_option(client, NBD_OPT_GO, "h"), NBD_REP_ACK);
    ck_assert(put_command(client, EXTENDED, &c));
    for (int i = 0; i < 20; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    blk_exp_del(blk_exp_find(graph, "h"), BLOCK_EXPORT_REMOVE_HARD, NULL);
    while (blk_exp_find(graph, "h") && left > 0) {
        left -= aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_gt(left, 0);
    close(client);
    bdrv_unref(huge);
}
END_TEST

START_TEST(exports_that_cannot_be_are_refused_with_a_reason)
{
    static const char *const rows[][2] = {
        { "type=vduse,id=a,node-name=disk", "Unknown type" },
        { "type=nbd,id=a,node-name=none", "Cannot find node 'none'" },
        { "type=nbd,id=e,node-name=disk,name=y", "already in use" },
        { "type=nbd,id=a,node-name=disk,name=d", "already has export" },
        { "type=nbd,id=9,node-name=disk", "Invalid block export id" },
        { "type=nbd,id=a,node-name=ro,writable=on", "read-only" },
        { "type=nbd,id=a,node-name=disk,name=q,bitmap=none", "not found" },
        { "type=nbd,id=a,node-name=disk,name=q,nonsense=1", "nonsense" },
        { "type=nbd,id=a,node-name=disk,iothread=t", "no iothread 't'" },
        { "type=nbd,node-name=disk", "id" },
    };
    BlockDriverState *ro = open_ok("mem,node-name=ro,size=1M,read-only=on");

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        GError *error = NULL;

        ck_assert_ptr_null(blk_exp_add(graph, opts(rows[i][0]), &error));
        expect_error(&error, 0, rows[i][1]);
    }
    bdrv_unref(ro);
}
END_TEST

START_TEST(servers_that_cannot_be_are_refused_with_a_reason)
{
    g_autofree char *again =
        g_strdup_printf("addr.type=unix,addr.path=%s", nbd_path);
    GError *error = NULL;

    ck_assert_int_eq(blk_nbd_server_start(graph, opts(again), &error), -EBUSY);
    expect_error(&error, EBUSY, "already running");
    close(fd);
    fd = -1;
    blk_nbd_server_stop(graph);
    ck_assert(!blk_nbd_server_query(graph, NULL));
    ck_assert_ptr_null(blk_exp_add(graph, opts("type=nbd,id=a,node-name=disk"),
                                   &error));
    expect_error(&error, 0, "not running");
    ck_assert_int_lt(blk_nbd_server_start(graph,
        opts("addr.type=inet,addr.host=0.0.0.0,addr.port=0"), &error), 0);
    expect_error(&error, EACCES, "without TLS");
    ck_assert_int_lt(blk_nbd_server_start(graph,
        opts("addr.type=unix,addr.path=/x,bogus=1"), &error), 0);
    expect_error(&error, 0, "bogus");
    ck_assert_int_lt(blk_nbd_server_start(graph,
        opts("addr.type=unix,addr.path=/nonexistent/s"), &error), 0);
    expect_error(&error, 0, "/nonexistent/s");
    ck_assert_int_lt(blk_nbd_server_start(graph,
        opts("addr.type=unix,addr.path=/x,tls-creds=no"), &error), 0);
    expect_error(&error, 0, "'no'");
}
END_TEST

/* The length stays what clients were told. */
START_TEST(a_node_that_is_exported_is_not_resized)
{
    BlockPerm perm = { .used = BLK_PERM_RESIZE, .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "resizer", &perm);
    GError *error = NULL;

    ck_assert_int_lt(blk_insert_bs(blk, disk, &error), 0);
    expect_error(&error, 0, "resize");
    blk_unref(blk);
}
END_TEST

static AioContext *find_thread(const char *id, void *opaque)
{
    return g_str_equal(id, "t0") ? iothread_get_aio_context(opaque) : NULL;
}

START_TEST(an_export_is_served_by_its_own_thread)
{
    IOThread *thread = iothread_new("t0", AIO_ENGINE_AUTO, NULL);
    uint8_t data[5000], got[5000];
    int client[4];

    blk_exp_set_iothread_finder(graph, find_thread, thread);
    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=t,node-name=disk,name=t,iothread=t0,writable=on"),
        NULL));
    for (int i = 0; i < 4; i++) {
        client[i] = client_new();
        ck_assert_uint_eq(info_option(client[i], NBD_OPT_GO, "t"),
                          NBD_REP_ACK);
    }
    for (int i = 0; i < 200; i++) {
        int c = client[i % 4];

        memset(data, i, sizeof(data));
        ck_assert_int_eq(write_at(c, SIMPLE, i * 77, data, sizeof(data)), 0);
        ck_assert_int_eq(read_at(c, SIMPLE, i * 77, got, sizeof(got)), 0);
        ck_assert_mem_eq(got, data, sizeof(data));
        if (i % 50 == 49) {
            bdrv_drained_begin(disk);
            bdrv_drained_end(disk);
        }
    }
    close(client[0]);
    close(client[1]);
    /* The rest is cut off. */
    blk_exp_del(blk_exp_find(graph, "t"), BLOCK_EXPORT_REMOVE_HARD, NULL);
    while (blk_exp_find(graph, "t")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    close(client[2]);
    close(client[3]);
    iothread_free(thread);
}
END_TEST

static AioContext *find_no_thread(const char *id, void *opaque)
{
    BlockDriverState *bs = bdrv_find_node(graph, "free");

    *(bool *)opaque = !list_empty(&bs->parents);
    return NULL;
}

/* To begin to use a node may wait, and the thread go meanwhile. */
START_TEST(a_thread_is_looked_up_when_nothing_is_waited_for_any_more)
{
    BlockDriverState *bs = open_ok("mem,node-name=free,size=1M");
    GError *error = NULL;
    bool in_use = false;

    blk_exp_set_iothread_finder(graph, find_no_thread, &in_use);
    ck_assert_ptr_null(blk_exp_add(
        graph, opts("type=nbd,id=t,node-name=free,iothread=t0"), &error));
    expect_error(&error, ENOENT, "no iothread 't0'");
    ck_assert(in_use);
    ck_assert(list_empty(&bs->parents));
    bdrv_unref(bs);
}
END_TEST

static int coroutine_fn add_and_stop(void *opaque)
{
    g_autofree char *text =
        g_strdup_printf("addr.type=unix,addr.path=%s", nbd_path);

    blk_co_nbd_server_stop(graph);
    ck_assert_int_eq(blk_co_nbd_server_start(graph, opts(text), NULL), 0);
    ck_assert_ptr_nonnull(blk_co_exp_add(graph,
        opts("type=nbd,id=e,node-name=disk,name=d"), NULL));
    blk_co_exp_close_all(graph);
    return 0;
}

START_TEST(all_can_be_done_inside_coroutines)
{
    aio_co_run(block_graph_aio_context(graph), add_and_stop, NULL);
    ck_assert_ptr_null(blk_exp_next(graph, NULL));
    ck_assert(is_closed(fd));
    close(fd);
    fd = -1;
}
END_TEST

static void coroutine_fn stop_entry(void *opaque)
{
    blk_co_nbd_server_stop(graph);
    ++*(unsigned *)opaque;
}

static void begin_stop(unsigned *nr_done)
{
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(stop_entry, nr_done));
}

/* Whoever stops it finds nothing of it left, and may start another. */
START_TEST(who_stops_a_server_that_is_being_stopped_waits_as_long)
{
    Command c = { .type = NBD_CMD_READ, .bytes = 512 };
    BlockExport *exp = blk_exp_find(graph, "e");
    MemDisk *mem = mem_disk(disk);
    unsigned nr_done = 0;
    GError *error = NULL;

    mem->hold[MEM_READ] = true;
    ck_assert(put_command(fd, SIMPLE, &c));
    turns();
    ck_assert_uint_eq(mem->held, 1);
    begin_stop(&nr_done);
    begin_stop(&nr_done);
    /* The export is going by force already, whatever is asked for. */
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_SAFE, &error),
                     -EBUSY);
    expect_error(&error, EBUSY, "in use");
    ck_assert_int_eq(blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    begin_stop(&nr_done);
    turns();
    ck_assert_uint_eq(nr_done, 0);
    ck_assert_ptr_eq(blk_exp_find(graph, "e"), exp);
    mem->hold[MEM_READ] = false;
    blk_nbd_server_stop(graph);
    ck_assert_ptr_null(blk_exp_find(graph, "e"));
    server_start("");
    export_add("");
    turn();
    ck_assert_uint_eq(nr_done, 3);
    ck_assert_ptr_nonnull(blk_exp_find(graph, "e")); /* it was not theirs */
    close(fd);
    fd = -1;
}
END_TEST

static Suite *nbd_server_suite(void)
{
    Suite *suite = suite_create("nbd-server");
    TCase *tc = tcase_create("server");

    mem_register();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc,
        what_is_written_is_read_with_all_kinds_of_headers, 0, 3);
    tcase_add_loop_test(tc, commands_without_data_do_what_they_say, 0, 3);
    tcase_add_loop_test(tc,
        errors_of_the_disk_reach_the_client_with_all_kinds_of_headers, 0, 3);
    PROMISE(tc, a_fast_zero_that_would_be_slow_is_refused);
    PROMISE(tc,
        requests_that_make_no_sense_are_answered_and_the_stream_goes_on);
    PROMISE(tc, a_write_beyond_the_end_is_refused_and_its_data_skipped);
    PROMISE(tc, an_export_is_read_only_unless_it_is_asked_to_be_writable);
    PROMISE(tc, r34_a_write_longer_than_the_limit_ends_the_connection);
    PROMISE(tc, a_header_that_is_none_ends_the_connection);
    PROMISE(tc, r39_a_client_may_leave_after_any_byte_of_a_request);
    PROMISE(tc, r47_unaligned_requests_touch_their_own_bytes_only);
    PROMISE(tc, r48_long_trims_and_zeroes_do_all_or_refuse);
    PROMISE(tc,
        r50_a_flush_on_one_connection_is_for_what_was_written_on_another);
    PROMISE(tc, r51_fua_flushes_whatever_the_command_is);
    PROMISE(tc, r53_a_drain_waits_for_requests_and_holds_later_ones);
    PROMISE(tc, a_client_has_128_requests_in_flight_and_then_must_wait);
    PROMISE(tc, a_client_has_64_mib_in_flight_and_then_must_wait);
    PROMISE(tc, a_client_that_does_not_read_holds_its_own_memory_only);
    tcase_add_loop_test(tc, a_client_that_sends_drop_by_drop_is_cut_off, 0,
                        2);
    PROMISE(tc, a_tcp_client_that_vanishes_is_noticed);
    PROMISE(tc, an_export_in_use_is_closed_the_hard_way_only);
    PROMISE(tc,
        an_export_that_closes_does_not_wait_for_terabytes_of_zeroes);
    PROMISE(tc,
        an_export_that_closes_waits_for_its_requests_and_takes_no_clients);
    PROMISE(tc, exports_that_cannot_be_are_refused_with_a_reason);
    PROMISE(tc, servers_that_cannot_be_are_refused_with_a_reason);
    PROMISE(tc, a_node_that_is_exported_is_not_resized);
    PROMISE(tc, an_export_is_served_by_its_own_thread);
    PROMISE(tc, a_thread_is_looked_up_when_nothing_is_waited_for_any_more);
    PROMISE(tc, all_can_be_done_inside_coroutines);
    PROMISE(tc, who_stops_a_server_that_is_being_stopped_waits_as_long);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return check_main(nbd_server_suite());
}
