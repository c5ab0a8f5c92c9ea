/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the NBD server says of block status.
 */
#include "nbd-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#define SIZE (8 * MIB)

static BlockDriverState *disk;

static void setup(void)
{
    nbd_setup();
    disk = open_ok("mem,node-name=disk,size=8M,align=512");
    server_start(",max-connections-per-peer=0");
    export_add(",writable=on");
}

static void teardown(void)
{
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    nbd_teardown();
}

/* One answer: which context, extents, the sum of their lengths. */
static uint32_t check_status(GByteArray *data, Headers headers, uint64_t max,
                             uint64_t *ret_sum)
{
    unsigned width = headers == EXTENDED ? 8 : 4;
    size_t at = headers == EXTENDED ? 8 : 4;

    *ret_sum = 0;
    ck_assert_uint_gt(data->len, at);
    if (headers == EXTENDED) {
        ck_assert_uint_eq(from_be(data->data + 4, 4),
                          (data->len - 8) / 16);
    }
    ck_assert_uint_eq((data->len - at) % (2 * width), 0);
    for (; at < data->len; at += 2 * width) {
        uint64_t bytes = from_be(data->data + at, width);

        ck_assert_uint_gt(bytes, 0);
        ck_assert_uint_le(*ret_sum, max - bytes);
        *ret_sum += bytes;
    }
    return from_be(data->data, 4);
}

/* R49: each context answers, in extents that are longer than nothing. */
START_TEST(r49_block_status_covers_what_was_asked_in_every_context)
{
    Headers h = _i ? EXTENDED : STRUCTURED;
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(disk, 4096, "b", NULL);
    g_autoptr(GRand) rand = g_rand_new_with_seed(49);
    g_autoptr(GByteArray) data = g_byte_array_new();
    int client;

    for (int i = 0; i < 300; i++) {
        bdrv_set_dirty_bitmap(bitmap, g_rand_int_range(rand, 0, SIZE), 4096);
    }
    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=s,node-name=disk,name=s,bitmap=b,writable=on,"
             "allocation-depth=on"), NULL));
    ck_assert(bdrv_dirty_bitmap_busy(bitmap));
    client = client_new();
    plain_option(client, h == EXTENDED ? NBD_OPT_EXTENDED_HEADERS
                                       : NBD_OPT_STRUCTURED_REPLY);
    ck_assert_uint_eq(meta_option(client, NBD_OPT_SET_META_CONTEXT, "s",
                                  "base:allocation",
                                  "qemu:dirty-bitmap:b"), NBD_REP_ACK);
    ck_assert_uint_eq(info_option(client, NBD_OPT_GO, "s"), NBD_REP_ACK);
    for (int i = 0; i < 200; i++) {
        Command c = { .type = NBD_CMD_BLOCK_STATUS, .cookie = i,
                      .flags = i % 4 == 3 ? NBD_CMD_FLAG_REQ_ONE : 0 };
        uint64_t sum, sum2;

        c.offset = g_rand_int_range(rand, 0, SIZE - 1);
        c.bytes = g_rand_int_range(rand, 1, SIZE - c.offset + 1);
        ck_assert(put_command(client, h, &c));
        ck_assert_int_eq(get_answer(client, h, &c, data), 0);
        ck_assert_uint_eq(check_status(data, h, c.bytes, &sum), 0);
        ck_assert_int_eq(get_answer(client, h, &c, data), 0);
        ck_assert_uint_eq(check_status(data, h, c.bytes, &sum2), 2);
        ck_assert_uint_gt(sum, 0);
        ck_assert_uint_gt(sum2, 0);
        if (!c.flags) {
            ck_assert_uint_eq(sum2, c.bytes);
        }
    }
    close(client);
    blk_exp_del(blk_exp_find(graph, "s"), BLOCK_EXPORT_REMOVE_HARD, NULL);
    while (blk_exp_find(graph, "s")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert(!bdrv_dirty_bitmap_busy(bitmap));
}
END_TEST

/* R49 */
START_TEST(r49_block_status_of_nothing_is_refused)
{
    Command c = { .type = NBD_CMD_BLOCK_STATUS, .offset = 4096 };
    int client = client_new();

    plain_option(client, NBD_OPT_STRUCTURED_REPLY);
    meta_option(client, NBD_OPT_SET_META_CONTEXT, "d", "base:allocation",
                NULL);
    ck_assert_uint_eq(info_option(client, NBD_OPT_GO, "d"), NBD_REP_ACK);
    ck_assert_int_eq(command(client, STRUCTURED, &c), NBD_EINVAL);
    close(client);
}
END_TEST

/* --- long answers --------------------------------------------------------- */

static void fill_every_second_cluster(void)
{
    int client = client_go(SIMPLE);

    for (int i = 0; i < SIZE; i += 2 * MEM_CLUSTER) {
        ck_assert_int_eq(write_at(client, SIMPLE, i, "x", 1), 0);
    }
    close(client);
    turn();
}

/* A client with extended headers that may ask for "base:allocation". */
static int client_of(const char *export)
{
    int client = client_new();

    ck_assert_uint_eq(plain_option(client, NBD_OPT_EXTENDED_HEADERS),
                      NBD_REP_ACK);
    ck_assert_uint_eq(meta_option(client, NBD_OPT_SET_META_CONTEXT, export,
                                  "base:allocation", NULL), NBD_REP_ACK);
    ck_assert_uint_eq(info_option(client, NBD_OPT_GO, export), NBD_REP_ACK);
    return client;
}

static bool has_answer(int client)
{
    struct pollfd pfd = { .fd = client, .events = POLLIN };

    return poll(&pfd, 1, 0) == 1;
}

/* S17 */
START_TEST(who_asks_for_a_long_list_keeps_nobody_from_his_turn)
{
    const Command list = { .type = NBD_CMD_BLOCK_STATUS, .cookie = 1,
                           .bytes = SIZE };
    const Command flush = { .type = NBD_CMD_FLUSH, .cookie = 2 };
    g_autoptr(GByteArray) data = g_byte_array_new();
    int greedy, other;
    uint64_t sum;

    fill_every_second_cluster();
    greedy = client_of("d");
    other = client_of("d");
    turn();
    ck_assert(put_command(greedy, EXTENDED, &list));
    ck_assert(put_command(other, EXTENDED, &flush));
    while (!has_answer(other)) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    ck_assert(!has_answer(greedy));
    ck_assert_int_eq(get_answer(other, EXTENDED, &flush, data), 0);
    ck_assert_int_eq(get_answer(greedy, EXTENDED, &list, data), 0);
    ck_assert_uint_eq(check_status(data, EXTENDED, SIZE, &sum), 0);
    ck_assert_uint_eq(sum, SIZE);
    close(greedy);
    close(other);
    turn();
}
END_TEST

/* "crumbs": a terabyte that is told of in pieces of a sector, all alike. */
static unsigned nr_crumbs;

static int coroutine_fn crumbs_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return 0;
}

static int64_t coroutine_fn crumbs_getlength(BlockDriverState *bs)
{
    return INT64_C(1) << 40;
}

static int coroutine_fn crumbs_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return -EIO;
}

static int coroutine_fn crumbs_block_status(BlockDriverState *bs,
                                            const BlockIO *io,
                                            BlockExtent *ret)
{
    nr_crumbs++;
    *ret = (BlockExtent){ .bytes = MIN(io->bytes, 512),
                          .status = BDRV_BLOCK_DATA };
    return 0;
}

static void crumbs_register(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "crumbs",
        .kind = BLOCK_DRIVER_PROTOCOL,
        .open = crumbs_open,
        .getlength = crumbs_getlength,
        .preadv = crumbs_preadv,
        .block_status = crumbs_block_status,
    };

    register_test_driver(&driver);
}

/* One extent, but more work than a request may make: a part will do. */
START_TEST(an_answer_ends_when_it_has_cost_enough)
{
    Command c = { .type = NBD_CMD_BLOCK_STATUS, .cookie = 1,
                  .flags = _i ? NBD_CMD_FLAG_REQ_ONE : 0,
                  .bytes = UINT64_C(1) << 40 };
    BlockDriverState *crumbs = open_ok("crumbs,node-name=crumbs");
    g_autoptr(GByteArray) data = g_byte_array_new();
    uint64_t sum;
    int client;

    ck_assert_ptr_nonnull(blk_exp_add(
        graph, opts("type=nbd,id=c,node-name=crumbs"), NULL));
    client = client_of("crumbs");
    nr_crumbs = 0;
    ck_assert(put_command(client, EXTENDED, &c));
    ck_assert_int_eq(get_answer(client, EXTENDED, &c, data), 0);
    ck_assert_uint_eq(check_status(data, EXTENDED, c.bytes, &sum), 0);
    ck_assert_uint_eq(data->len, 8 + 16);
    ck_assert_uint_eq(sum, 512 * (uint64_t)nr_crumbs);
    ck_assert_uint_le(nr_crumbs, 1 << 16);
    close(client);
    turn();
    blk_nbd_server_stop(graph);
    bdrv_unref(crumbs);
}
END_TEST

/* Nobody is left who would read it. */
START_TEST(a_long_answer_ends_with_the_export)
{
    const Command c = { .type = NBD_CMD_BLOCK_STATUS, .cookie = 1,
                        .bytes = UINT64_C(1) << 40 };
    BlockDriverState *crumbs = open_ok("crumbs,node-name=crumbs");
    unsigned before;
    int client;

    ck_assert_ptr_nonnull(blk_exp_add(
        graph, opts("type=nbd,id=c,node-name=crumbs"), NULL));
    client = client_of("crumbs");
    nr_crumbs = 0;
    ck_assert(put_command(client, EXTENDED, &c));
    while (nr_crumbs == 0) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    before = nr_crumbs;
    blk_nbd_server_stop(graph);
    ck_assert_uint_lt(nr_crumbs, before + 1000);
    close(client);
    bdrv_unref(crumbs);
}
END_TEST

/* Answers about block status are memory, too (S15, S16). */
START_TEST(block_status_that_nobody_reads_counts_as_memory_in_flight)
{
    Command c = { .type = NBD_CMD_BLOCK_STATUS, .cookie = 1, .bytes = SIZE };
    int client;

    fill_every_second_cluster();
    client = client_of("d");
    for (int i = 0; i < 512; i++) {
        ck_assert(put_command(client, EXTENDED, &c));
    }
    turn();
    ck_assert_int_gt(server_info().bytes_in_flight, 0);
    close(client);
    while (server_info().nr_clients > 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
}
END_TEST

static Suite *nbd_status_suite(void)
{
    Suite *suite = suite_create("nbd-status");
    TCase *tc = tcase_create("status");

    mem_register();
    crumbs_register();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc,
        r49_block_status_covers_what_was_asked_in_every_context, 0, 2);
    PROMISE(tc, r49_block_status_of_nothing_is_refused);
    PROMISE(tc, who_asks_for_a_long_list_keeps_nobody_from_his_turn);
    tcase_add_loop_test(tc, an_answer_ends_when_it_has_cost_enough, 0, 2);
    PROMISE(tc, a_long_answer_ends_with_the_export);
    PROMISE(tc,
        block_status_that_nobody_reads_counts_as_memory_in_flight);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return check_main(nbd_status_suite());
}
