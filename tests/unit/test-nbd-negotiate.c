/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handshake of the NBD server, with clients that mean no good.
 *
 * In each test another client is served all the while, and must not notice.
 */
#include "nbd-fixture.h"

static BlockDriverState *disk;
static int honest;              /* a client that is served */

static void setup(void)
{
    nbd_setup();
    disk = open_ok("mem,node-name=disk,size=64M");
    server_start(",max-connections-per-peer=0");
    export_add("");
    honest = client_go(SIMPLE);
}

static void teardown(void)
{
    is_served(honest);
    turn();
    ck_assert_int_eq(server_info().bytes_in_flight, 0);
    close(honest);
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    nbd_teardown();
}

/* --- what a client may expect -------------------------------------------- */

START_TEST(info_and_go_tell_size_flags_and_block_sizes)
{
    g_autoptr(GByteArray) ask = info_payload("d", 1);
    g_autoptr(GByteArray) data = g_byte_array_new();
    int fd = client_new();
    uint32_t type;
    bool told_size = false, told_blocks = false;

    ck_assert(put_option(fd, NBD_OPT_INFO, ask->len, ask->data, ask->len));
    while ((type = get_reply(fd, NBD_OPT_INFO, data)) == NBD_REP_INFO) {
        if (from_be(data->data, 2) == NBD_INFO_EXPORT) {
            ck_assert_uint_eq(from_be(data->data + 2, 8), 64 * MIB);
            ck_assert(from_be(data->data + 10, 2) & NBD_FLAG_READ_ONLY);
            told_size = true;
        } else if (from_be(data->data, 2) == NBD_INFO_BLOCK_SIZE) {
            ck_assert_uint_eq(from_be(data->data + 10, 4), 32 * MIB);
            told_blocks = true;
        }
    }
    ck_assert_uint_eq(type, NBD_REP_ACK);
    ck_assert(told_size && told_blocks);
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "d"), NBD_REP_ACK);
    is_served(fd);
    close(fd);
}
END_TEST

START_TEST(the_old_way_to_choose_an_export_works_with_and_without_zeroes)
{
    for (int zeroes = 0; zeroes < 2; zeroes++) {
        int fd = client_connect();
        uint8_t hello[18], flags[4], reply[134];
        size_t bytes = zeroes ? 134 : 10;

        ck_assert(get(fd, hello, sizeof(hello)));
        be(flags, zeroes ? 1 : 3, 4);
        ck_assert(put(fd, flags, 4));
        ck_assert(put_option(fd, NBD_OPT_EXPORT_NAME, 1, "d", 1));
        ck_assert(get(fd, reply, bytes));
        ck_assert_uint_eq(from_be(reply, 8), 64 * MIB);
        is_served(fd);
        close(fd);
    }
}
END_TEST

START_TEST(list_names_each_export_with_its_description)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    BlockExport *second = blk_exp_add(graph,
        opts("type=nbd,id=f,node-name=disk,name=x,description=text"), NULL);
    int fd = client_new();

    ck_assert_ptr_nonnull(second);
    ck_assert(put_option(fd, NBD_OPT_LIST, 0, NULL, 0));
    ck_assert_uint_eq(get_reply(fd, NBD_OPT_LIST, data), NBD_REP_SERVER);
    ck_assert_mem_eq(data->data, "\0\0\0\1d", 5);
    ck_assert_uint_eq(data->len, 5);
    ck_assert_uint_eq(get_reply(fd, NBD_OPT_LIST, data), NBD_REP_SERVER);
    ck_assert_mem_eq(data->data, "\0\0\0\1xtext", 9);
    ck_assert_uint_eq(get_reply(fd, NBD_OPT_LIST, data), NBD_REP_ACK);
    ck_assert_uint_eq(plain_option(fd, NBD_OPT_ABORT), NBD_REP_ACK);
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

START_TEST(contexts_are_listed_by_name_and_by_the_beginning_of_a_name)
{
    static const struct { const char *a, *b; unsigned nr; } rows[] = {
        { NULL, NULL, 1 },
        { "base:", NULL, 1 },
        { "base:allocation", NULL, 1 },
        { "base:alloc", NULL, 0 },
        { "qemu:", NULL, 0 },
        { "", NULL, 0 },
        { "base:", "base:allocation", 1 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GByteArray) ask = meta_payload("d", rows[i].a, rows[i].b);
        g_autoptr(GByteArray) data = g_byte_array_new();
        int fd = client_new();
        unsigned nr = 0;

        ck_assert(put_option(fd, NBD_OPT_LIST_META_CONTEXT, ask->len,
                             ask->data, ask->len));
        while (get_reply(fd, NBD_OPT_LIST_META_CONTEXT, data) ==
               NBD_REP_META_CONTEXT) {
            nr++;
        }
        ck_assert_uint_eq(nr, rows[i].nr);
        close(fd);
    }
}
END_TEST

START_TEST(a_server_can_be_asked_what_it_exports)
{
    g_autofree char *where =
        g_strdup_printf("addr.type=unix,addr.path=%s", nbd_path);
    BlockNbdListing *listing;
    GPtrArray *list = NULL;
    GError *error = NULL;

    ck_assert_ptr_nonnull(blk_exp_add(graph,
        opts("type=nbd,id=f,node-name=disk,name=x,description=text"), NULL));
    ck_assert_int_eq(blk_nbd_list(graph, opts(where), &list, NULL), 0);
    ck_assert_uint_eq(list->len, 2);
    listing = g_ptr_array_index(list, 1);
    ck_assert_str_eq(listing->name, "x");
    ck_assert_str_eq(listing->description, "text");
    ck_assert_uint_eq(listing->bytes, 64 * MIB);
    ck_assert_uint_eq(listing->max_block, 32 * MIB);
    ck_assert(listing->flags & NBD_FLAG_READ_ONLY);
    ck_assert_str_eq(listing->contexts[0], "base:allocation");
    ck_assert_ptr_null(listing->contexts[1]);
    g_ptr_array_unref(list);
    blk_nbd_listing_free(NULL);
    ck_assert_int_lt(blk_nbd_list(graph,
        opts("addr.type=unix,addr.path=/nonexistent/s"), &list, &error), 0);
    expect_error(&error, ENOENT, "/nonexistent/s");
}
END_TEST

static int coroutine_fn list_in_coroutine(void *opaque)
{
    g_autofree char *where =
        g_strdup_printf("addr.type=unix,addr.path=%s", nbd_path);
    GPtrArray *list = NULL;
    int ret = blk_co_nbd_list(graph, opts(where), &list, NULL);

    g_clear_pointer(&list, g_ptr_array_unref);
    return ret;
}

/* R52 */
START_TEST(r52_a_server_can_be_asked_by_its_own_loop)
{
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph),
                                list_in_coroutine, NULL), 0);
}
END_TEST

/* --- what it may not ----------------------------------------------------- */

static const uint32_t all_options[] = {
    NBD_OPT_EXPORT_NAME, NBD_OPT_ABORT, NBD_OPT_LIST, NBD_OPT_STARTTLS,
    NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_STRUCTURED_REPLY,
    NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_EXTENDED_HEADERS, 4, 12, 0, UINT32_MAX,
};

/* R33: names of every length, for each option that carries one. */
START_TEST(r33_names_of_any_length_are_looked_up_or_refused)
{
    static const size_t lengths[] = { 0, 1, 255, 256, 257, 4095, 4096 };

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        g_autofree char *name = g_strnfill(lengths[i], 'n');
        int fd = client_new();

        ck_assert_uint_eq(info_option(fd, NBD_OPT_INFO, name),
                          NBD_REP_ERR_UNKNOWN);
        ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, name),
                          NBD_REP_ERR_UNKNOWN);
        ck_assert_uint_eq(meta_option(fd, NBD_OPT_LIST_META_CONTEXT, name,
                                      "base:", NULL), NBD_REP_ERR_UNKNOWN);
        ck_assert_uint_eq(meta_option(fd, NBD_OPT_LIST_META_CONTEXT, "d", name,
                                      name), NBD_REP_ACK);
        ck_assert(put_option(fd, NBD_OPT_EXPORT_NAME, lengths[i], name,
                             lengths[i]));
        ck_assert(is_closed(fd));
        close(fd);
    }
}
END_TEST

START_TEST(r33_names_longer_than_the_limit_are_refused)
{
    g_autofree char *name = g_strnfill(4097, 'n');
    int fd = client_new();

    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, name), NBD_REP_ERR_INVALID);
    ck_assert_uint_eq(meta_option(fd, NBD_OPT_LIST_META_CONTEXT, "d", name,
                                  NULL), NBD_REP_ERR_INVALID);
    ck_assert_uint_eq(info_option(fd, NBD_OPT_INFO, "d"), NBD_REP_ACK);
    ck_assert(put_option(fd, NBD_OPT_EXPORT_NAME, 4097, name, 4097));
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

/* R34: lengths that lie, inside an option. */
START_TEST(r34_a_length_inside_an_option_that_lies_is_an_invalid_option)
{
    static const uint32_t lies[] = {
        2, 3, 5, 4096, 4097, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
        32 * MIB - 1, 32 * MIB, 32 * MIB + 1,
    };
    static const uint32_t options[] = {
        NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(options); k++) {
            uint8_t data[9] = { 0, 0, 0, 0, 'd', 0, 0, 0, 0 };
            size_t bytes = k < 2 ? 7 : 9;
            int fd = client_new();

            be(data, lies[i], 4);
            ck_assert(put_option(fd, options[k], bytes, data, bytes));
            ck_assert_uint_eq(get_last_reply(fd, options[k]),
                              NBD_REP_ERR_INVALID);
            ck_assert_uint_eq(info_option(fd, NBD_OPT_INFO, "d"),
                              NBD_REP_ACK);
            close(fd);
        }
    }
}
END_TEST

START_TEST(r34_a_number_of_elements_that_lies_is_an_invalid_option)
{
    static const uint32_t lies[] = { 1, 2, 0xffff, 0x40000000, 0xffffffff };

    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        uint8_t meta[9] = { 0, 0, 0, 1, 'd' };
        uint8_t info[7] = { 0, 0, 0, 1, 'd' };
        int fd = client_new();

        be(meta + 5, lies[i], 4);
        be(info + 5, lies[i], 2);
        ck_assert(put_option(fd, NBD_OPT_LIST_META_CONTEXT, 9, meta, 9));
        ck_assert_uint_eq(get_last_reply(fd, NBD_OPT_LIST_META_CONTEXT),
                          NBD_REP_ERR_INVALID);
        if (from_be(info + 5, 2) != 0) {
            ck_assert(put_option(fd, NBD_OPT_GO, 7, info, 7));
            ck_assert_uint_eq(get_last_reply(fd, NBD_OPT_GO),
                              NBD_REP_ERR_INVALID);
        }
        close(fd);
    }
}
END_TEST

/* R35: what is too long is not even read. */
/* Each would be compared with the name of each context. */
START_TEST(a_flood_of_queries_is_refused_and_the_stream_goes_on)
{
    uint8_t data[4 + 1 + 4 + 4 * 257] = { 0 };
    int fd = client_new();

    be(be(be(data, 1, 4), 'd', 1), 257, 4);
    ck_assert(put_option(fd, NBD_OPT_LIST_META_CONTEXT, sizeof(data), data,
                         sizeof(data)));
    ck_assert_uint_eq(get_last_reply(fd, NBD_OPT_LIST_META_CONTEXT),
                      NBD_REP_ERR_TOO_BIG);
    be(data + 5, 256, 4);
    ck_assert(put_option(fd, NBD_OPT_LIST_META_CONTEXT, sizeof(data) - 4, data,
                         sizeof(data) - 4));
    ck_assert_uint_eq(get_last_reply(fd, NBD_OPT_LIST_META_CONTEXT),
                      NBD_REP_ACK);
    close(fd);
}
END_TEST

START_TEST(r35_an_option_longer_than_the_limit_ends_the_connection)
{
    static const uint32_t lengths[] = {
        64 * KIB + 1, 32 * MIB - 1, 32 * MIB, 32 * MIB + 1, 0x80000000,
        0xffffffff,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(all_options); k++) {
            int fd = client_new();

            ck_assert(put_option(fd, all_options[k], lengths[i], NULL, 0));
            ck_assert(is_closed(fd));
            close(fd);
        }
    }
}
END_TEST

/* R36: no error repeats what the client sent. */
START_TEST(r36_errors_do_not_repeat_the_names_of_the_client)
{
    g_autofree char *name = g_strnfill(4096, '\n');
    g_autoptr(GByteArray) ask = info_payload(name, 4096);
    g_autoptr(GByteArray) data = g_byte_array_new();
    int fd = client_new();

    ck_assert(put_option(fd, NBD_OPT_GO, ask->len, ask->data, ask->len));
    ck_assert_uint_eq(get_reply(fd, NBD_OPT_GO, data), NBD_REP_ERR_UNKNOWN);
    ck_assert_ptr_null(memchr(data->data, '\n', data->len));
    ck_assert_uint_lt(data->len, 100);
    close(fd);
}
END_TEST

/* A whole handshake, as bytes. */
static GByteArray *script(void)
{
    g_autoptr(GByteArray) meta = meta_payload("d", "base:allocation", NULL);
    g_autoptr(GByteArray) go = info_payload("d", 1);
    GByteArray *all = g_byte_array_new();
    uint8_t head[16];

    be(head, 3, 4);
    g_byte_array_append(all, head, 4);
    be(be(be(head, NBD_OPTION_MAGIC, 8), NBD_OPT_STRUCTURED_REPLY, 4), 0, 4);
    g_byte_array_append(all, head, 16);
    be(be(be(head, NBD_OPTION_MAGIC, 8), NBD_OPT_SET_META_CONTEXT, 4),
       meta->len, 4);
    g_byte_array_append(all, head, 16);
    g_byte_array_append(all, meta->data, meta->len);
    be(be(be(head, NBD_OPTION_MAGIC, 8), NBD_OPT_GO, 4), go->len, 4);
    g_byte_array_append(all, head, 16);
    g_byte_array_append(all, go->data, go->len);
    return all;
}

/* R37: a client that goes after any byte. */
START_TEST(r37_a_client_may_leave_after_any_byte_of_the_handshake)
{
    g_autoptr(GByteArray) all = script();

    for (guint n = 0; n <= all->len; n++) {
        int fd = client_connect();

        ck_assert(put(fd, all->data, n));
        if (n % 2) {
            turn();             /* the server has seen it, or not */
        }
        close(fd);
        turn();
    }
    while (server_info().nr_clients > 1) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}
END_TEST

START_TEST(r37_random_bytes_end_the_connection_or_are_answered)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(37);
    g_autoptr(GByteArray) all = script();

    for (int i = 0; i < 2000; i++) {
        g_autofree uint8_t *bytes = g_memdup2(all->data, all->len);
        int fd = client_connect();

        for (int k = g_rand_int_range(rand, 1, 5); k > 0; k--) {
            bytes[g_rand_int_range(rand, 0, all->len)] = g_rand_int(rand);
        }
        put(fd, bytes, all->len);
        turn();
        close(fd);
    }
}
END_TEST

/* R38: what does not come through the handshake is no client. */
START_TEST(r38_failed_handshakes_do_not_count_as_clients_that_were_served)
{
    uint64_t before = server_info().nr_served;

    for (int i = 0; i < 1000; i++) {
        int fd = client_connect();

        if (i % 2) {
            put(fd, "GET / HTTP/1.1\r\n\r\n", 18);
        }
        close(fd);
        turn();
    }
    ck_assert_uint_eq(server_info().nr_served, before);
}
END_TEST

/* R40: clients that hold on, while the server goes. */
START_TEST(r40_the_server_stops_while_clients_stand_at_each_step)
{
    g_autoptr(GByteArray) all = script();

    for (guint n = 0; n <= all->len; n += 3) {
        int fd[3];

        for (int i = 0; i < 3; i++) {
            fd[i] = client_connect();
            ck_assert(put(fd[i], all->data, MIN(n + i, all->len)));
        }
        turn();
        blk_nbd_server_stop(graph);
        for (int i = 0; i < 3; i++) {
            char scrap[4096];

            while (recv(fd[i], scrap, sizeof(scrap), 0) > 0) {
                continue;
            }
            close(fd[i]);
        }
        close(honest);
        server_start(",max-connections-per-peer=0");
        export_add("");
        honest = client_go(SIMPLE);
    }
}
END_TEST

START_TEST(r40_a_slow_handshake_ends_at_its_deadline)
{
    g_autoptr(GByteArray) all = script();
    int fd[4];

    close(honest);
    blk_nbd_server_stop(graph);
    server_start(",handshake-max-ms=50,max-connections-per-peer=0");
    export_add("");
    honest = client_go(SIMPLE);
    for (int i = 0; i < 4; i++) {
        fd[i] = client_connect();
        ck_assert(put(fd[i], all->data, i * 9));
    }
    for (int i = 0; i < 4; i++) {
        char scrap[512];

        while (get(fd[i], scrap, 1)) {
            continue;
        }
        close(fd[i]);
    }
    /* The one that is through has no deadline. */
    is_served(honest);
}
END_TEST

/* An option with the payload that it should have. */
static uint32_t good_option(int fd, uint32_t option)
{
    switch (option) {
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info_option(fd, option, "d");
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return meta_option(fd, option, "d", "base:allocation", NULL);
    default:
        return plain_option(fd, option);
    }
}

/* R41: options in any order. */
START_TEST(r41_options_may_come_in_any_order)
{
    const size_t nr = G_N_ELEMENTS(all_options);

    for (size_t i = 0; i < nr * nr * nr; i++) {
        const uint32_t chosen[] = { all_options[i % nr],
                                    all_options[i / nr % nr],
                                    all_options[i / nr / nr] };
        int fd = client_new();

        for (int k = 0; k < 3; k++) {
            /* These two are the last words of a handshake. */
            if (chosen[k] == NBD_OPT_EXPORT_NAME) {
                break;
            }
            if (!good_option(fd, chosen[k]) || chosen[k] == NBD_OPT_GO ||
                chosen[k] == NBD_OPT_ABORT) {
                break;
            }
        }
        close(fd);
        turn();
    }
}
END_TEST

/* R43: the payload of what is refused is read. */
START_TEST(r43_a_refused_option_leaves_the_stream_in_order)
{
    uint8_t junk[1000];

    memset(junk, 0xa5, sizeof(junk));
    for (size_t i = 0; i < G_N_ELEMENTS(all_options); i++) {
        uint32_t option = all_options[i];
        int fd = client_new();

        if (option == NBD_OPT_EXPORT_NAME || option == NBD_OPT_ABORT) {
            close(fd);
            continue;
        }
        ck_assert(put_option(fd, option, sizeof(junk), junk, sizeof(junk)));
        ck_assert(get_last_reply(fd, option) & NBD_REP_ERROR_BIT);
        ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "d"), NBD_REP_ACK);
        is_served(fd);
        close(fd);
    }
}
END_TEST

START_TEST(a_flood_of_options_ends_the_connection)
{
    int fd = client_new();

    for (int i = 0; i < 32; i++) {
        ck_assert_uint_eq(plain_option(fd, NBD_OPT_LIST), NBD_REP_ACK);
    }
    ck_assert_uint_eq(plain_option(fd, NBD_OPT_LIST), 0);
    close(fd);
}
END_TEST

START_TEST(flags_that_nobody_knows_end_the_connection)
{
    uint8_t hello[18], flags[4];
    int fd = client_connect();

    ck_assert(get(fd, hello, sizeof(hello)));
    be(flags, 0x80000003, 4);
    ck_assert(put(fd, flags, sizeof(flags)));
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

START_TEST(contexts_set_for_one_export_are_not_those_of_another)
{
    BlockExport *second = blk_exp_add(graph,
        opts("type=nbd,id=f,node-name=disk,name=x"), NULL);
    Command c = { .type = NBD_CMD_BLOCK_STATUS, .bytes = 4096 };
    int fd = client_new();

    ck_assert_ptr_nonnull(second);
    ck_assert_uint_eq(meta_option(fd, NBD_OPT_SET_META_CONTEXT, "d",
                                  "base:allocation", NULL),
                      NBD_REP_ERR_INVALID); /* structured replies first */
    ck_assert_uint_eq(plain_option(fd, NBD_OPT_STRUCTURED_REPLY),
                      NBD_REP_ACK);
    ck_assert_uint_eq(meta_option(fd, NBD_OPT_SET_META_CONTEXT, "d",
                                  "base:allocation", NULL), NBD_REP_ACK);
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "x"), NBD_REP_ACK);
    ck_assert_int_eq(command(fd, STRUCTURED, &c), NBD_EINVAL);
    close(fd);
}
END_TEST

/* --- limits of connections ----------------------------------------------- */

static void restart(const char *more)
{
    close(honest);
    blk_nbd_server_stop(graph);
    server_start(more);
    export_add("");
    honest = client_go(SIMPLE);
}

START_TEST(one_user_has_a_limited_number_of_connections)
{
    int fd[10];

    restart("");
    for (int i = 0; i < 9; i++) {
        fd[i] = client_go(SIMPLE);
    }
    fd[9] = client_connect();
    ck_assert(is_closed(fd[9]));
    close(fd[0]);
    while (server_info().nr_clients > 9) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    fd[0] = client_go(SIMPLE);
    for (int i = 0; i < 10; i++) {
        close(fd[i]);
    }
}
END_TEST

START_TEST(unfinished_handshakes_take_half_of_the_places_and_the_oldest_goes)
{
    int fd[6];

    restart(",max-connections=8,max-connections-per-peer=0");
    for (int i = 0; i < 6; i++) {
        fd[i] = client_new();
        turn();
    }
    ck_assert_uint_eq(server_info().nr_handshakes, 4);
    ck_assert(is_closed(fd[0]) && is_closed(fd[1]));
    ck_assert_uint_eq(info_option(fd[2], NBD_OPT_GO, "d"), NBD_REP_ACK);
    for (int i = 0; i < 6; i++) {
        close(fd[i]);
    }
}
END_TEST

START_TEST(when_all_places_are_served_the_next_client_waits_for_one)
{
    int second, third;

    restart(",max-connections=2");
    second = client_go(SIMPLE);
    third = client_connect();
    turn();
    ck_assert_uint_eq(server_info().nr_clients, 2);
    is_served(second);
    close(second);
    ck_assert(client_greet(third));
    ck_assert_uint_eq(info_option(third, NBD_OPT_GO, "d"), NBD_REP_ACK);
    close(third);
}
END_TEST

static Suite *nbd_negotiate_suite(void)
{
    Suite *suite = suite_create("nbd-negotiate");
    TCase *tc = tcase_create("handshake");

    mem_register();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    PROMISE(tc, info_and_go_tell_size_flags_and_block_sizes);
    PROMISE(tc, the_old_way_to_choose_an_export_works_with_and_without_zeroes);
    PROMISE(tc, list_names_each_export_with_its_description);
    PROMISE(tc, contexts_are_listed_by_name_and_by_the_beginning_of_a_name);
    PROMISE(tc, a_server_can_be_asked_what_it_exports);
    PROMISE(tc, r52_a_server_can_be_asked_by_its_own_loop);
    PROMISE(tc, r33_names_of_any_length_are_looked_up_or_refused);
    PROMISE(tc, r33_names_longer_than_the_limit_are_refused);
    PROMISE(tc, r34_a_length_inside_an_option_that_lies_is_an_invalid_option);
    PROMISE(tc, r34_a_number_of_elements_that_lies_is_an_invalid_option);
    PROMISE(tc, a_flood_of_queries_is_refused_and_the_stream_goes_on);
    PROMISE(tc, r35_an_option_longer_than_the_limit_ends_the_connection);
    PROMISE(tc, r36_errors_do_not_repeat_the_names_of_the_client);
    PROMISE(tc, r37_a_client_may_leave_after_any_byte_of_the_handshake);
    PROMISE(tc, r37_random_bytes_end_the_connection_or_are_answered);
    PROMISE(tc, r38_failed_handshakes_do_not_count_as_clients_that_were_served);
    PROMISE(tc, r40_the_server_stops_while_clients_stand_at_each_step);
    PROMISE(tc, r40_a_slow_handshake_ends_at_its_deadline);
    PROMISE(tc, r41_options_may_come_in_any_order);
    PROMISE(tc, r43_a_refused_option_leaves_the_stream_in_order);
    PROMISE(tc, a_flood_of_options_ends_the_connection);
    PROMISE(tc, flags_that_nobody_knows_end_the_connection);
    PROMISE(tc, contexts_set_for_one_export_are_not_those_of_another);
    PROMISE(tc, one_user_has_a_limited_number_of_connections);
    PROMISE(tc,
        unfinished_handshakes_take_half_of_the_places_and_the_oldest_goes);
    PROMISE(tc, when_all_places_are_served_the_next_client_waits_for_one);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return check_main(nbd_negotiate_suite());
}
