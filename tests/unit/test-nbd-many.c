/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many exports of one NBD server, each with a client of its own.
 */
#include "nbd-fixture.h"

#include <malloc.h>
#include <stdio.h>

#include "util/coroutine-sanitizer.h"

#define EXPORTS 200
#define IN_FLIGHT 10
#define PIECE 4096
#define SIZE (IN_FLIGHT * PIECE)

/* What one idle connection, and one idle export with its node, may take. */
#define CONNECTION_BYTES_MAX (32 * KIB)
#define EXPORT_BYTES_MAX (SIZE + 16 * KIB)

static BlockDriverState *disks[EXPORTS];
static int clients[EXPORTS];

static void add_exports(void)
{
    server_start(",max-connections=0,max-connections-per-peer=0");
    for (int i = 0; i < EXPORTS; i++) {
        g_autofree char *node = g_strdup_printf(
            "mem,node-name=disk%d,size=%d", i, SIZE);
        g_autofree char *export = g_strdup_printf(
            "type=nbd,id=e%d,node-name=disk%d,writable=on", i, i);

        disks[i] = open_ok(node);
        ck_assert_ptr_nonnull(blk_exp_add(graph, opts(export), NULL));
    }
}

static void connect_all(void)
{
    for (int i = 0; i < EXPORTS; i++) {
        g_autofree char *name = g_strdup_printf("disk%d", i);

        clients[i] = client_new();
        ck_assert_uint_eq(info_option(clients[i], NBD_OPT_GO, name),
                          NBD_REP_ACK);
    }
    ck_assert_uint_eq(server_info().nr_served, EXPORTS);
}

static void leave_all(void)
{
    for (int i = 0; i < EXPORTS; i++) {
        close(clients[i]);
    }
    turn();
    ck_assert_uint_eq(server_info().nr_clients, 0);
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
    blk_nbd_server_stop(graph);
    for (int i = 0; i < EXPORTS; i++) {
        bdrv_unref(disks[i]);
    }
}

/* What belongs at piece @n of export @i. */
static void fill(uint8_t piece[PIECE], int i, int n)
{
    for (int k = 0; k < PIECE; k++) {
        piece[k] = i * 7 + n * 31 + k / 3;
    }
}

static void put_all(uint16_t type)
{
    for (int i = 0; i < EXPORTS; i++) {
        for (int n = 0; n < IN_FLIGHT; n++) {
            const Command c = { .type = type, .cookie = n,
                                .offset = n * PIECE, .bytes = PIECE };
            uint8_t piece[PIECE];

            ck_assert(put_command(clients[i], SIMPLE, &c));
            if (type == NBD_CMD_WRITE) {
                fill(piece, i, n);
                ck_assert(put(clients[i], piece, PIECE));
            }
        }
    }
}

/* One reply of client @i, whichever comes.  Returns a bit for its number. */
static unsigned get_one(int i, bool has_data)
{
    uint8_t head[NBD_SIMPLE_REPLY_BYTES], piece[PIECE], expected[PIECE];
    uint64_t n;

    ck_assert(get(clients[i], head, sizeof(head)));
    ck_assert_uint_eq(from_be(head, 8),
                      (uint64_t)NBD_SIMPLE_REPLY_MAGIC << 32);
    n = from_be(head + 8, 8);
    ck_assert_uint_lt(n, IN_FLIGHT);
    if (has_data) {
        fill(expected, i, n);
        ck_assert(get(clients[i], piece, PIECE));
        ck_assert_mem_eq(piece, expected, PIECE);
    }
    return 1u << n;
}

static void get_all(bool has_data)
{
    for (int i = 0; i < EXPORTS; i++) {
        unsigned seen = 0;

        for (int n = 0; n < IN_FLIGHT; n++) {
            seen |= get_one(i, has_data);
        }
        ck_assert_uint_eq(seen, (1u << IN_FLIGHT) - 1);
    }
}

static void hold_all(MemOp op, bool hold)
{
    for (int i = 0; i < EXPORTS; i++) {
        mem_disk(disks[i])->hold[op] = hold;
    }
}

static unsigned nr_held(void)
{
    unsigned nr = 0;

    for (int i = 0; i < EXPORTS; i++) {
        nr += mem_disk(disks[i])->held;
    }
    return nr;
}

START_TEST(two_thousand_requests_in_flight_reach_their_own_disks)
{
    static const struct {
        uint16_t type;
        MemOp op;
    } rounds[] = { { NBD_CMD_WRITE, MEM_WRITE }, { NBD_CMD_READ, MEM_READ } };

    add_exports();
    connect_all();
    for (int k = 0; k < 2; k++) {
        hold_all(rounds[k].op, true);
        put_all(rounds[k].type);
        while (nr_held() < EXPORTS * IN_FLIGHT) {
            aio_poll(block_graph_aio_context(graph), false);
        }
        ck_assert_int_eq(server_info().bytes_in_flight,
                         EXPORTS * IN_FLIGHT * PIECE);
        hold_all(rounds[k].op, false);
        get_all(rounds[k].type == NBD_CMD_READ);
    }
    for (int i = 0; i < EXPORTS; i++) {
        uint8_t piece[PIECE];

        for (int n = 0; n < IN_FLIGHT; n++) {
            fill(piece, i, n);
            ck_assert_mem_eq(mem_disk(disks[i])->data + n * PIECE, piece,
                             PIECE);
        }
    }
    leave_all();
}
END_TEST

/* --- memory --------------------------------------------------------------- */

#if !CO_ASAN && !CO_TSAN

static int64_t resident_bytes(void)
{
    g_autofree char *text = NULL;
    long pages;

    ck_assert(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
    ck_assert_int_eq(sscanf(text, "%*d %ld", &pages), 1);
    return pages * sysconf(_SC_PAGESIZE);
}

START_TEST(what_is_idle_takes_little_memory)
{
    int64_t before = resident_bytes(), exports, connections;

    add_exports();
    exports = resident_bytes();
    connect_all();
    for (int i = 0; i < EXPORTS; i++) {
        is_served(clients[i]);
    }
    turn();
    connections = resident_bytes();
    ck_assert_int_lt(exports - before, (int64_t)EXPORTS * EXPORT_BYTES_MAX);
    ck_assert_int_lt(connections - exports,
                     (int64_t)EXPORTS * CONNECTION_BYTES_MAX);
    leave_all();
}
END_TEST

#endif

int main(void)
{
    Suite *suite = suite_create("nbd-many");
    TCase *tc = tcase_create("many");

    mallopt(M_PERTURB, 0); /* memory that nobody touches is not resident */
    mem_register();
    tcase_add_checked_fixture(tc, nbd_setup, nbd_teardown);
    tcase_set_timeout(tc, 120);
    PROMISE(tc, two_thousand_requests_in_flight_reach_their_own_disks);
#if !CO_ASAN && !CO_TSAN
    PROMISE(tc, what_is_idle_takes_little_memory);
#endif
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
