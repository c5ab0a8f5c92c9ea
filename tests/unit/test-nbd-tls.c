/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server with TLS.  The client is in the same loop (R52).
 */
#include "nbd-fixture.h"

#include "util/io-channel-tls.h"

#include <blockgraph/tls.h>

static BlockDriverState *disk;
static char *key_path;

static void setup(void)
{
    g_autofree char *creds = NULL;

    nbd_setup();
    key_path = g_build_filename(nbd_dir, "keys.psk", NULL);
    ck_assert(g_file_set_contents(key_path,
        "alice:00112233445566778899aabbccddeeff\n"
        "bob:ffeeddccbbaa99887766554433221100\n", -1, NULL));
    creds = g_strdup_printf("tls-creds-psk,id=t,endpoint=server,dir=%s",
                            nbd_dir);
    ck_assert_int_eq(blk_tls_creds_add(graph,
        block_options_parse_keyval(creds, "qom-type", NULL), NULL), 0);
    disk = open_ok("mem,node-name=disk,size=8M");
    server_start(",tls-creds=t,max-connections-per-peer=0");
    export_add(",writable=on");
}

static void teardown(void)
{
    turn();
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    g_unlink(key_path);
    g_free(key_path);
    nbd_teardown();
}

/* --- before TLS ---------------------------------------------------------- */

START_TEST(without_tls_there_is_nothing_but_the_way_to_tls)
{
    static const uint32_t options[] = {
        NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_STRUCTURED_REPLY,
        NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT,
        NBD_OPT_EXTENDED_HEADERS, 77,
    };
    int fd = client_new();

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        ck_assert(put_option(fd, options[i], 5, "\0\0\0\1d", 5));
        ck_assert_uint_eq(get_last_reply(fd, options[i]),
                          NBD_REP_ERR_TLS_REQD);
    }
    ck_assert(put_option(fd, NBD_OPT_EXPORT_NAME, 1, "d", 1));
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

/* R35: and less of it. */
START_TEST(r35_before_tls_an_option_has_8_kib_at_most)
{
    g_autofree char *data = g_strnfill(8 * KIB + 1, 'x');
    int fd = client_new();

    ck_assert(put_option(fd, NBD_OPT_LIST, 8 * KIB, data, 8 * KIB));
    ck_assert_uint_eq(get_last_reply(fd, NBD_OPT_LIST), NBD_REP_ERR_TLS_REQD);
    /* Not after it has been read. */
    put_option(fd, NBD_OPT_LIST, 8 * KIB + 1, data, 8 * KIB + 1);
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

/* R42: what is sent in the clear behind STARTTLS is no option. */
START_TEST(r42_plain_text_behind_starttls_is_never_an_option)
{
    uint8_t both[32];
    char reply[20];
    int fd = client_new();

    be(be(be(both, NBD_OPTION_MAGIC, 8), NBD_OPT_STARTTLS, 4), 0, 4);
    be(be(be(both + 16, NBD_OPTION_MAGIC, 8), NBD_OPT_LIST, 4), 0, 4);
    ck_assert(put(fd, both, sizeof(both)));
    ck_assert(get(fd, reply, sizeof(reply)));   /* of STARTTLS */
    /* What follows is an alert of TLS at most. */
    if (get(fd, reply, 1)) {
        ck_assert_int_eq(reply[0], 0x15);
    }
    close(fd);
}
END_TEST

START_TEST(a_tls_handshake_may_break_off_after_any_byte)
{
    for (int n = 0; n < 40; n++) {
        uint8_t junk[64] = { 0x16, 0x03, 0x01, 0x00, 0xf0, 0x01 };
        int fd = client_new();

        ck_assert_uint_eq(plain_option(fd, NBD_OPT_STARTTLS), NBD_REP_ACK);
        ck_assert(put(fd, junk, n));
        if (n % 2) {
            turn();
        }
        close(fd);
        turn();
    }
}
END_TEST

/* --- inside -------------------------------------------------------------- */

typedef struct Secure {
    int fd;
    const char *user;
    TlsCreds *creds;            /* or NULL: made from @user */
    int ret;
    uint8_t *data;
    size_t bytes;
    GError *error;
} Secure;

static TlsCreds *client_creds(const char *user)
{
    g_autofree char *text =
        g_strdup_printf("dir=%s,endpoint=client,username=%s", nbd_dir, user);
    g_autoptr(BlockOptions) options =
        block_options_parse_keyval(text, NULL, NULL);
    TlsCreds *creds = tls_creds_new("tls-creds-psk", options, NULL);

    ck_assert_ptr_nonnull(creds);
    return creds;
}

static int coroutine_fn tls_go(IoChannel *c)
{
    g_autoptr(GByteArray) go = info_payload("d", 1);
    uint8_t head[20];
    uint32_t type;

    be(be(be(head, NBD_OPTION_MAGIC, 8), NBD_OPT_GO, 4), go->len, 4);
    ck_assert_int_eq(io_channel_write_all(c, head, 16), 0);
    ck_assert_int_eq(io_channel_write_all(c, go->data, go->len), 0);
    do {
        uint8_t scrap[512];

        if (io_channel_read_all(c, head, 20) < 0) {
            return -1;
        }
        type = from_be(head + 12, 4);
        ck_assert_int_eq(io_channel_read_all(c, scrap, from_be(head + 16, 4)),
                         0);
    } while (type == NBD_REP_INFO);
    return type == NBD_REP_ACK ? 0 : -1;
}

/* A write and a read of s->data. */
static void coroutine_fn tls_transfer(IoChannel *c, Secure *s)
{
    g_autofree uint8_t *got = g_malloc(s->bytes);
    uint8_t head[28];

    be(be(be(be(be(head, NBD_REQUEST_MAGIC, 4), NBD_CMD_WRITE, 4), 1, 8), 100,
          8), s->bytes, 4);
    ck_assert_int_eq(io_channel_write_all(c, head, 28), 0);
    ck_assert_int_eq(io_channel_write_all(c, s->data, s->bytes), 0);
    ck_assert_int_eq(io_channel_read_all(c, head, 16), 0);
    ck_assert_uint_eq(from_be(head, 8),
                      (uint64_t)NBD_SIMPLE_REPLY_MAGIC << 32);
    be(be(be(be(be(head, NBD_REQUEST_MAGIC, 4), NBD_CMD_READ, 4), 2, 8), 100,
          8), s->bytes, 4);
    ck_assert_int_eq(io_channel_write_all(c, head, 28), 0);
    ck_assert_int_eq(io_channel_read_all(c, head, 16), 0);
    ck_assert_int_eq(io_channel_read_all(c, got, s->bytes), 0);
    ck_assert_mem_eq(got, s->data, s->bytes);
}

static int coroutine_fn tls_client(void *opaque)
{
    Secure *s = opaque;
    TlsCreds *creds = s->creds ? s->creds : client_creds(s->user);
    IoChannel *c = io_channel_co_start_tls(io_channel_new_socket(s->fd), creds,
                                           NULL, &s->error);

    tls_creds_unref(creds);
    if (!c) {
        return -1;
    }
    s->ret = tls_go(c);
    if (s->ret == 0 && s->bytes) {
        tls_transfer(c, s);
    }
    io_channel_unref(c);
    return s->ret;
}

static int connect_as(const char *user, size_t bytes, GError **errp)
{
    Secure s = { .fd = client_new(), .user = user, .bytes = bytes };
    int ret;

    ck_assert_uint_eq(plain_option(s.fd, NBD_OPT_STARTTLS), NBD_REP_ACK);
    s.data = g_malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        s.data[i] = i * 31 + (i >> 11);
    }
    ret = aio_co_run(block_graph_aio_context(graph), tls_client, &s);
    g_free(s.data);
    if (s.error) {
        g_propagate_error(errp, s.error);
    }
    return ret;
}

/* R52: client and server in one loop, the handshake too. */
START_TEST(r52_a_client_in_the_same_loop_is_served_through_tls)
{
    static const size_t bytes[] = { 0, 1, 16 * KIB, 16 * KIB + 1, 5 * MIB };

    for (size_t i = 0; i < G_N_ELEMENTS(bytes); i++) {
        ck_assert_int_eq(connect_as("alice", bytes[i], NULL), 0);
        ck_assert_int_eq(connect_as("bob", bytes[i], NULL), 0);
    }
}
END_TEST

/* S19 */
START_TEST(an_export_is_there_only_for_those_whom_it_names)
{
    GError *error = NULL;

    ck_assert_int_eq(connect_as("bob", 0, NULL), 0);
    ck_assert_int_eq(blk_exp_del(blk_exp_find(graph, "e"),
                                 BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    turn();
    export_add(",writable=on,tls-clients.0=carol,tls-clients.1=alice");
    ck_assert_int_eq(connect_as("alice", 100, NULL), 0);
    ck_assert_int_lt(connect_as("bob", 0, NULL), 0);
    ck_assert_ptr_null(blk_exp_add(
        graph, opts("type=nbd,id=f,node-name=disk,name=f,tls-clients=alice"),
        &error));
    ck_assert_ptr_nonnull(error);
    g_clear_error(&error);
}
END_TEST

START_TEST(a_client_with_the_wrong_key_is_not_served)
{
    uint64_t before = server_info().nr_served;
    GError *error = NULL;
    Secure s = { .fd = client_new(), .user = "alice", .creds = NULL };

    ck_assert_uint_eq(plain_option(s.fd, NBD_OPT_STARTTLS), NBD_REP_ACK);
    s.creds = client_creds("alice");
    /* The server looks into the file when the client comes. */
    ck_assert(g_file_set_contents(key_path,
        "alice:99999999999999999999999999999999\n", -1, NULL));
    ck_assert_int_lt(aio_co_run(block_graph_aio_context(graph), tls_client,
                                &s), 0);
    ck_assert_ptr_nonnull(s.error);
    g_clear_error(&s.error);
    turn();
    ck_assert_uint_eq(server_info().nr_served, before);
    ck_assert_int_eq(connect_as("alice", 100, &error), 0);
}
END_TEST

START_TEST(the_server_stops_while_a_client_stands_in_the_handshake_of_tls)
{
    int fd = client_new();

    ck_assert_uint_eq(plain_option(fd, NBD_OPT_STARTTLS), NBD_REP_ACK);
    turn();
    blk_nbd_server_stop(graph);
    ck_assert(is_closed(fd));
    close(fd);
}
END_TEST

START_TEST(credentials_that_cannot_be_are_refused_with_a_reason)
{
    static const char *const rows[][2] = {
        { "tls-creds-anon,id=a,dir=/x", "no type of credentials" },
        { "tls-creds-psk,id=t,dir=/x", "already" },
        { "tls-creds-psk,id=a,dir=/nonexistent,endpoint=server",
          "/nonexistent/keys.psk': No such file" },
        { "tls-creds-psk,id=a,dir=/nonexistent", "/nonexistent/keys.psk" },
        { "tls-creds-x509,id=a,dir=/nonexistent", "ca-cert.pem" },
        { "tls-creds-x509,id=a", "dir" },
        { "tls-creds-x509,dir=/x", "id" },
    };
    GError *error = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        ck_assert_int_lt(blk_tls_creds_add(graph,
            block_options_parse_keyval(rows[i][0], "qom-type", NULL), &error),
            0);
        expect_error(&error, 0, rows[i][1]);
    }
    ck_assert_int_eq(blk_tls_creds_del(graph, "x", &error), -ENOENT);
    expect_error(&error, ENOENT, "'x'");
    /* The server keeps what it uses. */
    ck_assert_int_eq(blk_tls_creds_del(graph, "t", NULL), 0);
    ck_assert_int_eq(connect_as("alice", 100, NULL), 0);
}
END_TEST

/* --- the driver ----------------------------------------------------------- */

static BlockDriverState *open_secure(const char *user, GError **errp)
{
    g_autofree char *creds = g_strdup_printf(
        "tls-creds-psk,id=c-%s,endpoint=client,username=%s,dir=%s", user, user,
        nbd_dir);
    g_autofree char *node = g_strdup_printf(
        "nbd,node-name=client,path=%s,export=d,tls-creds=c-%s", nbd_path,
        user);

    ck_assert_int_eq(blk_tls_creds_add(
        graph, block_options_parse_keyval(creds, "qom-type", NULL), NULL), 0);
    return bdrv_open(graph, opts(node), errp);
}

START_TEST(the_driver_nbd_goes_through_tls)
{
    g_autofree char *plain = g_strdup_printf("nbd,path=%s,export=d", nbd_path);
    BlockDriverState *client = open_secure("alice", NULL);
    GError *error = NULL;
    BlockBackend *blk;
    uint8_t buf[4096];

    ck_assert_ptr_nonnull(client);
    blk = backend_ok("user", client, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    memset(buf, 's', sizeof(buf));
    ck_assert_int_eq(blk_pwrite(blk, 4096, 4096, buf, 0), 0);
    ck_assert_int_eq(mem_disk(disk)->data[8191], 's');
    memset(buf, 0, sizeof(buf));
    ck_assert_int_eq(blk_pread(blk, 4096, 4096, buf, 0), 0);
    ck_assert_int_eq(buf[4095], 's');
    blk_unref(blk);
    bdrv_unref(client);
    ck_assert_ptr_null(bdrv_open(graph, opts(plain), &error));
    expect_error(&error, EACCES, "without TLS");
}
END_TEST

static void coroutine_fn close_entry(void *opaque)
{
    BlockDriverState **bs = opaque;

    bdrv_co_unref(*bs);
    *bs = NULL;
}

static void get_options_up_to_starttls(int fd)
{
    uint8_t buf[20] = { 0 };

    be(be(be(buf, NBD_MAGIC, 8), NBD_OPTION_MAGIC, 8), 3, 2);
    ck_assert(put(fd, buf, 18) && get(fd, buf, 4) && get(fd, buf, 16));
    ck_assert_uint_eq(from_be(buf + 8, 4), NBD_OPT_STARTTLS);
    be(be(be(be(buf, NBD_OPTION_REPLY_MAGIC, 8), NBD_OPT_STARTTLS, 4),
          NBD_REP_ACK, 4), 0, 4);
    ck_assert(put(fd, buf, 20));
    ck_assert(get(fd, buf, 1)); /* of TLS */
}

START_TEST(the_driver_nbd_closes_while_a_server_is_silent_in_tls)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    BlockDriverState *client = open_secure("alice", NULL);
    int fd, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_ptr_nonnull(client);
    blk_nbd_server_stop(graph);
    g_strlcpy(un.sun_path, nbd_path, sizeof(un.sun_path));
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    client_wait(listener, POLLIN);
    fd = accept(listener, NULL, NULL);
    get_options_up_to_starttls(fd);
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(close_entry, &client));
    turn();
    ck_assert_ptr_null(client);
    close(fd);
    close(listener);
    g_unlink(nbd_path);
}
END_TEST

static Suite *nbd_tls_suite(void)
{
    Suite *suite = suite_create("nbd-tls");
    TCase *tc = tcase_create("tls");

    mem_register();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    PROMISE(tc, without_tls_there_is_nothing_but_the_way_to_tls);
    PROMISE(tc, r35_before_tls_an_option_has_8_kib_at_most);
    PROMISE(tc, r42_plain_text_behind_starttls_is_never_an_option);
    PROMISE(tc, a_tls_handshake_may_break_off_after_any_byte);
    PROMISE(tc, the_driver_nbd_goes_through_tls);
    PROMISE(tc, the_driver_nbd_closes_while_a_server_is_silent_in_tls);
    PROMISE(tc, r52_a_client_in_the_same_loop_is_served_through_tls);
    PROMISE(tc, an_export_is_there_only_for_those_whom_it_names);
    PROMISE(tc, a_client_with_the_wrong_key_is_not_served);
    PROMISE(tc,
        the_server_stops_while_a_client_stands_in_the_handshake_of_tls);
    PROMISE(tc, credentials_that_cannot_be_are_refused_with_a_reason);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return check_main(nbd_tls_suite());
}
