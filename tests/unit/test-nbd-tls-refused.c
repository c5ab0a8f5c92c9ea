/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "nbd" wants TLS, and meets servers that have none, have it later,
 * or prove to be somebody else (R44).
 *
 * Each is refused with an error that says why, and never hears a word in plain
 * text behind the client's wish for TLS.
 */
#include "nbd-liar.h"
#include "tls-certificates.h"

#include <blockgraph/tls.h>
#include <fcntl.h>

static char *pki;               /* where the files are */
static Certificate authority, stranger;

/* What a server got behind STARTTLS; its thread's until that has ended. */
static GByteArray *heard;

static void add_creds(const char *text)
{
    g_autofree char *creds = g_strdup_printf("tls-creds-x509,dir=%s,%s", pki,
                                             text);
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_tls_creds_add(
        graph, block_options_parse_keyval(creds, "qom-type", NULL),
        &error) == 0, "%s", error ? error->message : "no error set");
}

static void setup(void)
{
    const CertificateFacts ca = { .name = "CA" }, other = { .name = "other" };

    nbd_setup();
    pki = g_build_filename(nbd_dir, "pki", NULL);
    ck_assert_int_eq(g_mkdir(pki, 0700), 0);
    authority = certificate_new(&ca, NULL);
    stranger = certificate_new(&other, NULL);
    certificate_save(&authority, pki, "ca");
    add_creds("id=c,endpoint=client");
    heard = g_byte_array_new();
}

static void teardown(void)
{
    g_autoptr(GDir) dir = g_dir_open(pki, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(pki, name, NULL);

        g_unlink(path);
    }
    g_rmdir(pki);
    g_free(pki);
    certificate_free(&authority);
    certificate_free(&stranger);
    g_byte_array_unref(heard);
    nbd_teardown();
}

static void client_fails(const char *more, const char *message)
{
    g_autofree char *text = g_strdup_printf(
        "nbd,node-name=client,path=%s,export=d,read-only=on,tls-creds=c%s",
        nbd_path, more);

    open_fails(text, 0, message);
}

/* Listing the exports is another way in. */
static void listing_fails(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "addr.type=unix,addr.path=%s,tls-creds=c%s", nbd_path, more);
    GPtrArray *list = NULL;
    GError *error = NULL;

    ck_assert_int_lt(blk_nbd_list(graph, opts(text), &list, &error), 0);
    ck_assert_ptr_null(list);
    ck_assert_ptr_nonnull(error);
    g_error_free(error);
}

static void hear_rest(int fd)
{
    uint8_t buf[512];
    ssize_t got;

    while ((got = recv(fd, buf, sizeof(buf), 0)) > 0) {
        g_byte_array_append(heard, buf, got);
    }
}

/* Whether @heard is records of TLS and no more. */
static bool heard_is_tls(void)
{
    size_t at = 0;

    while (heard->len - at >= 5) {
        const uint8_t *head = heard->data + at;

        if (head[0] < 20 || head[0] > 23 || head[1] != 3) {
            return false;
        }
        at += 5 + from_be(head + 3, 2);
        if (at > heard->len) {
            return false;
        }
    }
    return at == heard->len;
}

/* --- no TLS, or not now --------------------------------------------------- */

typedef enum Refusal {
    REFUSES, UNKNOWN, NOT_FIXED, LATER, NO_REPLY, OTHER_REPLY_FIRST,
    PLAIN_AT_ONCE, PLAIN_LATER, HANGS_UP,
} Refusal;

static const char *const reasons[] = {
    [REFUSES] = "refuses TLS: not for you",
    [UNKNOWN] = "has no TLS",
    [NOT_FIXED] = "has no TLS",
    [LATER] = "refuses TLS: ask again later",
    [NO_REPLY] = "reply to TLS is none",
    [OTHER_REPLY_FIRST] = "reply to option 5 is none",
    [PLAIN_AT_ONCE] = "in plain text before TLS begins",
    [PLAIN_LATER] = "TLS handshake failed",
    [HANGS_UP] = "TLS handshake failed",
};

static void ack_starttls(int fd)
{
    answer(fd, NBD_OPT_STARTTLS, NBD_REP_ACK, "", 0);
}

/* In one send: an ACK, and an answer to what may be asked next. */
static void ack_and_more(int fd)
{
    uint8_t both[40], *at = both;

    for (int i = 0; i < 2; i++) {
        at = be(at, NBD_OPTION_REPLY_MAGIC, 8);
        at = be(at, i ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STARTTLS, 4);
        at = be(be(at, NBD_REP_ACK, 4), 0, 4);
    }
    say(fd, both, sizeof(both));
}

static void refuse(int fd, int n)
{
    uint8_t hello[18], byte;

    if (n == NOT_FIXED) {
        be(be(be(hello, NBD_MAGIC, 8), NBD_OPTION_MAGIC, 8), 0, 2);
        say(fd, hello, sizeof(hello));
        hear(fd, hello, 4);
        hear_rest(fd);
        return;
    }
    greet(fd);
    ck_assert_uint_eq(hear_option(fd), NBD_OPT_STARTTLS);
    switch ((Refusal)n) {
    case REFUSES:
        answer(fd, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "not for you", 11);
        break;
    case UNKNOWN:
        answer(fd, NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP, "", 0);
        break;
    case LATER:                 /* nobody asks again */
        answer(fd, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "ask again later",
               15);
        break;
    case NO_REPLY:
        answer(fd, NBD_OPT_STARTTLS, NBD_REP_SERVER, "", 0);
        break;
    case OTHER_REPLY_FIRST:
        answer(fd, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK, "", 0);
        ack_starttls(fd);
        break;
    case PLAIN_AT_ONCE:
        ack_and_more(fd);
        break;
    case PLAIN_LATER:           /* the client has begun */
        ack_starttls(fd);
        hear(fd, &byte, 1);
        g_byte_array_append(heard, &byte, 1);
        answer(fd, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK, "", 0);
        break;
    default:
        ack_starttls(fd);
        shutdown(fd, SHUT_WR);
        break;
    }
    hear_rest(fd);
}

START_TEST(r44_a_server_without_tls_at_once_is_refused_and_hears_no_more)
{
    Liar liar;

    liar_start(&liar, refuse, _i);
    client_fails(",tls-hostname=localhost", reasons[_i]);
    liar_end(&liar);
    ck_assert(heard_is_tls());
    ck_assert(heard->len == 0 || _i >= PLAIN_LATER);
}
END_TEST

START_TEST(r44_nothing_is_listed_without_tls)
{
    Liar liar;

    if (_i == NOT_FIXED) {
        return;                 /* it has no way to list */
    }
    liar_start(&liar, refuse, _i);
    listing_fails(",tls-hostname=localhost");
    liar_end(&liar);
    ck_assert(heard_is_tls());
}
END_TEST

/* Also when the connection is made again: the server has TLS at first. */
START_TEST(r44_the_policy_holds_for_each_connection)
{
    const CertificateFacts facts = { .name = "localhost",
                                     .purpose = GNUTLS_KP_TLS_WWW_SERVER };
    Certificate good = certificate_new(&facts, &authority);
    g_autofree char *text = g_strdup_printf(
        "nbd,path=%s,export=d,read-only=on,tls-creds=c,reconnect-delay=3600,"
        "tls-hostname=localhost", nbd_path);
    BlockDriverState *disk = open_ok("mem,node-name=disk,size=1M"), *bs;
    Liar liar;

    certificate_save(&good, pki, "server");
    add_creds("id=s,endpoint=server,verify-peer=off");
    server_start(",tls-creds=s");
    export_add("");
    bs = open_ok(text);
    blk_nbd_server_stop(graph);
    liar_start(&liar, refuse, UNKNOWN);
    while (pthread_tryjoin_np(liar.thread, NULL) != 0) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    ck_assert_uint_eq(heard->len, 0);
    close(liar.listener);
    unlink(nbd_path);
    bdrv_unref(bs);
    bdrv_unref(disk);
    certificate_free(&good);
}
END_TEST

/* --- somebody else -------------------------------------------------------- */

static Certificate shown;       /* by the server */
static bool got_certificate;    /* of the client, whatever it is */
static bool shaken;             /* the server thinks that hands were shaken */

static ssize_t record_pull(gnutls_transport_ptr_t fd, void *buf, size_t bytes)
{
    ssize_t got = recv(GPOINTER_TO_INT(fd), buf, bytes, 0);

    if (got > 0) {
        g_byte_array_append(heard, buf, got);
    }
    return got;
}

static ssize_t plain_push(gnutls_transport_ptr_t fd, const void *buf,
                          size_t bytes)
{
    return send(GPOINTER_TO_INT(fd), buf, bytes, MSG_NOSIGNAL);
}

/* Offers TLS with the certificate @shown, and listens. */
static void show_certificate(int fd, int n)
{
    gnutls_certificate_credentials_t creds;
    gnutls_session_t session;
    char byte;
    int ret;

    greet(fd);
    ck_assert_uint_eq(hear_option(fd), NBD_OPT_STARTTLS);
    ack_starttls(fd);
    gnutls_certificate_allocate_credentials(&creds);
    gnutls_certificate_set_x509_key(creds, &shown.crt, 1, shown.key);
    gnutls_init(&session, GNUTLS_SERVER);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, creds);
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
    gnutls_transport_set_ptr(session, GINT_TO_POINTER(fd));
    gnutls_transport_set_pull_function(session, record_pull);
    gnutls_transport_set_push_function(session, plain_push);
    do {
        ret = gnutls_handshake(session);
    } while (ret < 0 && !gnutls_error_is_fatal(ret));
    got_certificate = gnutls_certificate_get_peers(session, NULL) != NULL;
    shaken = ret == 0;
    if (ret == 0) {
        /* Not one byte of the protocol, through TLS either. */
        ck_assert_int_le(gnutls_record_recv(session, &byte, 1), 0);
    }
    hear_rest(fd);
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(creds);
}

typedef struct Impostor {
    CertificateFacts facts;
    enum { TRUSTED, UNKNOWN_ISSUER, NO_ISSUER, REVOKED } by;
    const char *reason;
} Impostor;

#define SERVER GNUTLS_KP_TLS_WWW_SERVER

static const Impostor impostors[] = {
    { { "elsewhere", SERVER, 0, 0 }, TRUSTED, "does not match" },
    { { "localhost.evil", SERVER, 0, 0 }, TRUSTED, "does not match" },
    { { "localhost", SERVER, -7200, -3600 }, TRUSTED, "expired" },
    { { "localhost", SERVER, 3600, 7200 }, TRUSTED, "not yet" },
    { { "localhost", SERVER, 0, 0 }, UNKNOWN_ISSUER, "issuer is unknown" },
    { { "localhost", SERVER, 0, 0 }, NO_ISSUER, "issuer is unknown" },
    { { "localhost", SERVER, 0, 0 }, REVOKED, "revoked" },
    { { "localhost", GNUTLS_KP_TLS_WWW_CLIENT, 0, 0 }, TRUSTED, "purpose" },
};

static void make_shown(const Impostor *who)
{
    shown = certificate_new(&who->facts,
                            who->by == UNKNOWN_ISSUER ? &stranger
                            : who->by == NO_ISSUER    ? NULL
                                                      : &authority);
    if (who->by == REVOKED) {
        certificate_revoke(&shown, &authority, pki);
        blk_tls_creds_del(graph, "c", NULL);
        add_creds("id=c,endpoint=client");
    }
}

START_TEST(r44_a_server_that_proves_to_be_another_is_refused)
{
    const CertificateFacts guest = { .name = "guest",
                                     .purpose = GNUTLS_KP_TLS_WWW_CLIENT };
    Certificate own = certificate_new(&guest, &authority);
    Liar liar;

    certificate_save(&own, pki, "client");
    blk_tls_creds_del(graph, "c", NULL);
    add_creds("id=c,endpoint=client");
    make_shown(&impostors[_i]);
    liar_start(&liar, show_certificate, 0);
    client_fails(",tls-hostname=localhost", impostors[_i].reason);
    liar_end(&liar);
    ck_assert(!got_certificate);
    ck_assert(!shaken);
    ck_assert_uint_gt(heard->len, 0);
    ck_assert(heard_is_tls());
    g_byte_array_set_size(heard, 0);
    liar_start(&liar, show_certificate, 0);
    listing_fails(",tls-hostname=localhost");
    liar_end(&liar);
    ck_assert(heard_is_tls());
    ck_assert(!got_certificate);
    certificate_free(&own);
    certificate_free(&shown);
}
END_TEST

/* With nothing to compare with, any certificate of the authority would do. */
START_TEST(r44_a_certificate_is_never_taken_without_a_name)
{
    static const Impostor good = { { "localhost", SERVER, 0, 0 }, TRUSTED,
                                   NULL };
    Liar liar;

    make_shown(&good);
    liar_start_many(&liar, show_certificate, 0, 2);
    client_fails("", "tls-hostname");
    listing_fails("");
    liar_end(&liar);
    certificate_free(&shown);
}
END_TEST

/* --- the right one -------------------------------------------------------- */

/* Each row: what the client shows to a server that wants to see something. */
static const struct {
    const char *purpose;        /* NULL: nothing */
    bool by_stranger, may;
} visitors[] = {
    { GNUTLS_KP_TLS_WWW_CLIENT, false, true },
    { GNUTLS_KP_TLS_WWW_CLIENT, true, false },
    { GNUTLS_KP_TLS_WWW_SERVER, false, false },
    { NULL, false, false },
};

START_TEST(both_sides_show_certificates_and_look_at_them)
{
    const CertificateFacts host = { .name = "localhost", .purpose = SERVER };
    const CertificateFacts guest = { .name = "guest",
                                     .purpose = visitors[_i].purpose };
    Certificate server = certificate_new(&host, &authority), client;
    g_autofree char *text = g_strdup_printf(
        "nbd,node-name=client,path=%s,export=d,read-only=on,tls-creds=g,"
        "tls-hostname=localhost", nbd_path);
    BlockDriverState *disk = open_ok("mem,node-name=disk,size=1M"), *bs;

    client = certificate_new(&guest, visitors[_i].by_stranger ? &stranger
                                                              : &authority);
    certificate_save(&server, pki, "server");
    if (guest.purpose) {
        certificate_save(&client, pki, "client");
    }
    add_creds("id=s,endpoint=server");
    add_creds("id=g,endpoint=client");
    server_start(",tls-creds=s");
    export_add("");
    bs = bdrv_open(graph, opts(text), NULL);
    ck_assert_int_eq(bs != NULL, visitors[_i].may);
    ck_assert_uint_eq(server_info().nr_served, visitors[_i].may);
    bdrv_unref(bs);
    turn();
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    certificate_free(&server);
    certificate_free(&client);
}
END_TEST

/* The export "d" of a server whose certificate is for "localhost"; @server and
 * @export: further options. */
static BlockDriverState *serve(const char *server, const char *export)
{
    const CertificateFacts host = { .name = "localhost", .purpose = SERVER };
    g_autofree char *creds = g_strdup_printf("id=s,endpoint=server%s", server);
    Certificate own = certificate_new(&host, &authority);
    BlockDriverState *disk = open_ok("mem,node-name=disk,size=1M");

    certificate_save(&own, pki, "server");
    certificate_free(&own);
    add_creds(creds);
    server_start(",tls-creds=s");
    export_add(export);
    return disk;
}

static void end_serving(BlockDriverState *disk)
{
    turn();
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
}

/* Whether somebody named @name can use the export. */
static bool is_served_as(const char *name)
{
    const CertificateFacts facts = { .name = name,
                                     .purpose = GNUTLS_KP_TLS_WWW_CLIENT };
    Certificate own = certificate_new(&facts, &authority);
    g_autofree char *text = g_strdup_printf(
        "nbd,node-name=client,path=%s,export=d,read-only=on,tls-creds=g,"
        "tls-hostname=localhost", nbd_path);
    BlockDriverState *bs;

    certificate_save(&own, pki, "client");
    certificate_free(&own);
    add_creds("id=g,endpoint=client");
    bs = bdrv_open(graph, opts(text), NULL);
    bdrv_unref(bs);
    turn();
    ck_assert_int_eq(blk_tls_creds_del(graph, "g", NULL), 0);
    return bs != NULL;
}

/* S19 */
START_TEST(an_export_is_there_only_for_certificates_that_it_names)
{
    BlockDriverState *disk = serve("", ",tls-clients.0=CN=alice,"
                                       "tls-clients.1=CN=bob");

    ck_assert(is_served_as("alice"));
    ck_assert(is_served_as("bob"));
    ck_assert(!is_served_as("carol"));
    ck_assert(!is_served_as("alic"));
    ck_assert(!is_served_as("alice2"));
    ck_assert(!is_served_as("CN=alice"));
    ck_assert(!is_served_as("x,CN=alice"));
    end_serving(disk);
}
END_TEST

/* Whether there can be a handshake with the priorities @text. */
static bool shakes_hands(const char *text)
{
    gnutls_certificate_credentials_t creds;
    gnutls_session_t session;
    int fd = client_new(), ret;

    ck_assert_uint_eq(plain_option(fd, NBD_OPT_STARTTLS), NBD_REP_ACK);
    gnutls_ok(gnutls_certificate_allocate_credentials(&creds));
    gnutls_ok(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK));
    gnutls_ok(gnutls_priority_set_direct(session, text, NULL));
    gnutls_ok(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, creds));
    gnutls_transport_set_int(session, fd);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    while ((ret = gnutls_handshake(session)) < 0 &&
           !gnutls_error_is_fatal(ret)) {
        client_wait(fd, gnutls_record_get_direction(session) ? POLLOUT
                                                             : POLLIN);
    }
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(creds);
    close(fd);
    return ret == 0;
}

/* S19: each row is what the credentials say. */
START_TEST(tls_older_than_1_2_is_refused_whatever_the_priorities_say)
{
    static const char *const wishes[] = {
        "", ",priority=NORMAL:+VERS-ALL", ",priority=LEGACY:+VERS-TLS1.1",
    };
    g_autofree char *more = g_strconcat(wishes[_i], ",verify-peer=off", NULL);
    BlockDriverState *disk = serve(more, "");

    ck_assert(shakes_hands("NORMAL:-VERS-ALL:+VERS-TLS1.3"));
    ck_assert(shakes_hands("NORMAL:-VERS-ALL:+VERS-TLS1.2"));
    ck_assert(!shakes_hands("LEGACY:-VERS-ALL:+VERS-TLS1.1"));
    ck_assert(!shakes_hands("LEGACY:-VERS-ALL:+VERS-TLS1.0"));
    end_serving(disk);
}
END_TEST

static Suite *refused_suite(void)
{
    Suite *suite = suite_create("nbd-tls-refused");
    TCase *tc = tcase_create("tls");

    mem_register();
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(
        tc, r44_a_server_without_tls_at_once_is_refused_and_hears_no_more, 0,
        G_N_ELEMENTS(reasons));
    tcase_add_loop_test(tc, r44_nothing_is_listed_without_tls, 0,
                        G_N_ELEMENTS(reasons));
    PROMISE(tc, r44_the_policy_holds_for_each_connection);
    tcase_add_loop_test(tc,
                        r44_a_server_that_proves_to_be_another_is_refused, 0,
                        G_N_ELEMENTS(impostors));
    PROMISE(tc, r44_a_certificate_is_never_taken_without_a_name);
    tcase_add_loop_test(tc, both_sides_show_certificates_and_look_at_them, 0,
                        G_N_ELEMENTS(visitors));
    PROMISE(tc, an_export_is_there_only_for_certificates_that_it_names);
    tcase_add_loop_test(
        tc, tls_older_than_1_2_is_refused_whatever_the_priorities_say, 0, 3);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return check_main(refused_suite());
}
