/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS credentials, from the files that QEMU's objects of these names use.
 *
 *   tls-creds-x509   ca-cert.pem, ca-crl.pem (may be missing), and
 *                    server-cert.pem, server-key.pem; or client-cert.pem,
 *                    client-key.pem (may be missing)
 *   tls-creds-psk    keys.psk: lines of NAME:HEXKEY
 *
 * T1  Nothing below TLS 1.2.
 * T2  A client always checks the server's certificate, what it is for, and its
 *     name, in the handshake: nothing of its own, not even a certificate, goes
 *     to another.
 * T3  A certificate that says what it is for is good for nothing else: no
 *     client can play the server, and the other way round.
 */
#include "util/tls-creds.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* T1 */
#define VERSIONS ":-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define PSK_METHODS ":+ECDHE-PSK:+DHE-PSK:+PSK"

#define PSK_FILE_BYTES_MAX (1024 * 1024)

struct TlsCreds {
    _Atomic unsigned refs;

    /* Set by tls_creds_new(), never changed after. */
    bool psk;
    bool server;
    bool verify_peer;
    char *priority;
    gnutls_certificate_credentials_t x509;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_psk_client_credentials_t psk_client;
};

static const char *const endpoint_names[] = { "client", "server", NULL };

typedef struct CredsOptions {
    char *dir, *priority, *username;
    int endpoint;
    bool verify_peer;
} CredsOptions;

const BlockOption tls_creds_options[] = {
    { "dir", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(CredsOptions, dir), .help = "where the files are" },
    { "endpoint", BLOCK_OPTION_ENUM, .values = endpoint_names,
      .def = "client", .offset = offsetof(CredsOptions, endpoint),
      .help = "which side they are for" },
    { "verify-peer", BLOCK_OPTION_BOOL, .def = "on",
      .offset = offsetof(CredsOptions, verify_peer),
      .help = "server: clients need a certificate of the authority" },
    { "priority", BLOCK_OPTION_STRING,
      .offset = offsetof(CredsOptions, priority),
      .help = "GnuTLS priority string" },
    { "username", BLOCK_OPTION_STRING, .def = "qemu",
      .offset = offsetof(CredsOptions, username),
      .help = "psk client: whose key to use" },
    { NULL },
};

static int gnutls_failed(GError **errp, int ret, const char *what,
                         const char *path)
{
    return block_error(errp, EINVAL, "%s '%s': %s", what, path,
                       gnutls_strerror(ret));
}

/* --- certificates -------------------------------------------------------- */

static int load_pair(TlsCreds *creds, const char *dir, const char *side,
                     bool optional, GError **errp)
{
    g_autofree char *cert = g_strdup_printf("%s/%s-cert.pem", dir, side);
    g_autofree char *key = g_strdup_printf("%s/%s-key.pem", dir, side);
    int ret;

    if (optional && !g_file_test(cert, G_FILE_TEST_EXISTS)) {
        return 0;
    }
    ret = gnutls_certificate_set_x509_key_file(creds->x509, cert, key,
                                               GNUTLS_X509_FMT_PEM);
    return ret < 0 ? gnutls_failed(errp, ret, "Could not load certificate and "
                                   "key", cert) : 0;
}

static int load_x509(TlsCreds *creds, const char *dir, GError **errp)
{
    g_autofree char *ca = g_build_filename(dir, "ca-cert.pem", NULL);
    g_autofree char *crl = g_build_filename(dir, "ca-crl.pem", NULL);
    int ret;

    gnutls_certificate_allocate_credentials(&creds->x509);
    ret = gnutls_certificate_set_x509_trust_file(creds->x509, ca,
                                                 GNUTLS_X509_FMT_PEM);
    if (ret < 1) {
        return gnutls_failed(errp, MIN(ret, GNUTLS_E_NO_CERTIFICATE_FOUND),
                             "Could not load the authority's certificate", ca);
    }
    if (g_file_test(crl, G_FILE_TEST_EXISTS)) {
        ret = gnutls_certificate_set_x509_crl_file(creds->x509, crl,
                                                   GNUTLS_X509_FMT_PEM);
        if (ret < 0) {
            return gnutls_failed(errp, ret, "Could not load revocations", crl);
        }
    }
    gnutls_certificate_set_known_dh_params(creds->x509,
                                           GNUTLS_SEC_PARAM_MEDIUM);
    return load_pair(creds, dir, creds->server ? "server" : "client",
                     !creds->server, errp);
}

/* --- shared keys --------------------------------------------------------- */

/* Find the key of @name.  The text is wiped. */
static int use_client_key(TlsCreds *creds, char *text, const char *name,
                          const char *path, GError **errp)
{
    size_t bytes = strlen(text);
    size_t len = strlen(name);
    int ret = GNUTLS_E_KEYFILE_ERROR;

    for (char *line = text; line;) {
        char *end = strchr(line, '\n');

        if (end) {
            *end++ = '\0';
        }
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            gnutls_datum_t key = { (void *)g_strchomp(line + len + 1),
                                   strlen(line + len + 1) };

            ret = gnutls_psk_set_client_credentials(creds->psk_client, name,
                                                    &key, GNUTLS_PSK_KEY_HEX);
            break;
        }
        line = end;
    }
    gnutls_memset(text, 0, bytes);
    return ret < 0 ? gnutls_failed(errp, ret, "Could not use a key of", path)
                   : 0;
}

static int load_client_key(TlsCreds *creds, const char *path,
                           const char *name, GError **errp)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    gsize bytes;

    if (!g_file_get_contents(path, &text, &bytes, &error) ||
        bytes > PSK_FILE_BYTES_MAX) {
        return block_error(errp, EINVAL, "Could not load keys: %s",
                           error ? error->message : path);
    }
    gnutls_psk_allocate_client_credentials(&creds->psk_client);
    return use_client_key(creds, text, name, path, errp);
}

static int load_psk(TlsCreds *creds, const CredsOptions *o, GError **errp)
{
    g_autofree char *path = g_build_filename(o->dir, "keys.psk", NULL);
    int ret;

    if (!creds->server) {
        return load_client_key(creds, path, o->username, errp);
    }
    gnutls_psk_allocate_server_credentials(&creds->psk_server);
    if (!g_file_test(path, G_FILE_TEST_IS_REGULAR)) {
        return block_error(errp, ENOENT, "Could not load keys '%s': %s", path,
                           g_file_test(path, G_FILE_TEST_EXISTS)
                               ? "it is no regular file"
                               : g_strerror(ENOENT));
    }
    ret = gnutls_psk_set_server_credentials_file(creds->psk_server, path);
    if (ret < 0) {
        return gnutls_failed(errp, ret, "Could not load keys", path);
    }
    gnutls_psk_set_server_known_dh_params(creds->psk_server,
                                          GNUTLS_SEC_PARAM_MEDIUM);
    return 0;
}

/* --- life ---------------------------------------------------------------- */

TlsCreds *tls_creds_new(const char *type, BlockOptions *options, GError **errp)
{
    CredsOptions o = { 0 };
    TlsCreds *creds;
    int ret;

    if (!g_str_equal(type, "tls-creds-x509") &&
        !g_str_equal(type, "tls-creds-psk")) {
        block_error(errp, EINVAL, "'%s' is no type of credentials", type);
        return NULL;
    }
    if (block_options_absorb(options, tls_creds_options, &o, type, errp) < 0) {
        return NULL;
    }
    creds = g_new0(TlsCreds, 1);
    atomic_init(&creds->refs, 1);
    creds->psk = g_str_equal(type, "tls-creds-psk");
    creds->server = o.endpoint;
    creds->verify_peer = o.verify_peer;
    creds->priority = g_strconcat(o.priority ? o.priority : "NORMAL",
                                  creds->psk ? PSK_METHODS : "", VERSIONS,
                                  NULL);
    ret = creds->psk ? load_psk(creds, &o, errp)
                     : load_x509(creds, o.dir, errp);
    block_options_clear(tls_creds_options, &o);
    if (ret < 0) {
        tls_creds_unref(creds);
        return NULL;
    }
    return creds;
}

TlsCreds *tls_creds_ref(TlsCreds *creds)
{
    atomic_fetch_add(&creds->refs, 1);
    return creds;
}

void tls_creds_unref(TlsCreds *creds)
{
    if (!creds || atomic_fetch_sub(&creds->refs, 1) > 1) {
        return;
    }
    if (creds->x509) {
        gnutls_certificate_free_credentials(creds->x509);
    }
    if (creds->psk_server) {
        gnutls_psk_free_server_credentials(creds->psk_server);
    }
    if (creds->psk_client) {
        gnutls_psk_free_client_credentials(creds->psk_client);
    }
    g_free(creds->priority);
    g_free(creds);
}

bool tls_creds_is_server(const TlsCreds *creds)
{
    return creds->server;
}

/* --- sessions ------------------------------------------------------------ */

static int set_credentials(TlsCreds *creds, gnutls_session_t session)
{
    if (!creds->psk) {
        return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE,
                                      creds->x509);
    }
    return gnutls_credentials_set(session, GNUTLS_CRD_PSK,
                                  creds->server ? (void *)creds->psk_server
                                                : (void *)creds->psk_client);
}

/* Whom the other side has to prove to be. */
static void set_verification(const TlsCreds *creds, const char *host,
                             TlsExpected *expected, gnutls_session_t session)
{
    const char *purpose = creds->server ? GNUTLS_KP_TLS_WWW_CLIENT
                                        : GNUTLS_KP_TLS_WWW_SERVER;

    *expected = (TlsExpected) { {
        { .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (void *)purpose },
        { .type = GNUTLS_DT_DNS_HOSTNAME, .data = (void *)host },
    } };
    if (creds->psk) {
        return;                 /* who has the key is who we mean */
    }
    if (creds->server) {
        gnutls_certificate_server_set_request(
            session, creds->verify_peer ? GNUTLS_CERT_REQUIRE
                                        : GNUTLS_CERT_IGNORE);
        if (creds->verify_peer) {
            gnutls_session_set_verify_cert2(session, expected->data, 1, 0);
        }
        return;
    }
    gnutls_session_set_verify_cert2(session, expected->data, 2, 0); /* T2 */
    gnutls_server_name_set(session, GNUTLS_NAME_DNS, host, strlen(host));
}

int tls_creds_new_session(TlsCreds *creds, const char *host,
                          TlsExpected *expected, gnutls_session_t *ret_session,
                          GError **errp)
{
    gnutls_session_t session;
    const char *at = "";
    int ret;

    if (!creds->server && !creds->psk && !(host && *host)) {    /* T2 */
        return block_error(errp, EINVAL, "The name in the server's "
                           "certificate must be given ('tls-hostname'), as "
                           "its address has none");
    }
    ret = gnutls_init(&session, creds->server ? GNUTLS_SERVER
                                              : GNUTLS_CLIENT);
    if (ret < 0) {
        return gnutls_failed(errp, ret, "Could not begin", "TLS");
    }
    ret = gnutls_priority_set_direct(session, creds->priority, &at);
    if (ret == 0) {
        ret = set_credentials(creds, session);
    }
    if (ret < 0) {
        gnutls_deinit(session);
        return gnutls_failed(errp, ret, "Could not use TLS priority",
                             creds->priority);
    }
    set_verification(creds, host, expected, session);
    *ret_session = session;
    return 0;
}

static int refuse_certificate(gnutls_session_t session, unsigned status,
                              GError **errp)
{
    gnutls_datum_t why = { 0 };
    int ret;

    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &why,
                                                 0);
    ret = block_error(errp, EACCES, "The certificate of the peer is refused: "
                      "%s", why.data ? g_strchomp((char *)why.data) : "?");
    gnutls_free(why.data);
    return ret;
}

int tls_session_failed(gnutls_session_t session, int err, GError **errp)
{
    if (err == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
        return refuse_certificate(
            session, gnutls_session_get_verify_cert_status(session), errp);
    }
    if (err == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        return block_error(errp, EPROTO, "TLS handshake failed: the peer "
                           "says: %s",
                           gnutls_alert_get_name(gnutls_alert_get(session)));
    }
    return block_error(errp, EPROTO, "TLS handshake failed: %s",
                       gnutls_strerror(err));
}

static char *certificate_name(gnutls_session_t session)
{
    unsigned nr = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &nr);
    gnutls_datum_t dn = { 0 };
    gnutls_x509_crt_t cert;
    char *name = NULL;

    if (nr == 0 || gnutls_x509_crt_init(&cert) < 0) {
        return NULL;
    }
    if (gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER) == 0 &&
        gnutls_x509_crt_get_dn3(cert, &dn, 0) == 0) {
        name = g_strndup((const char *)dn.data, dn.size);
        gnutls_free(dn.data);
    }
    gnutls_x509_crt_deinit(cert);
    return name;
}

char *tls_creds_peer_identity(const TlsCreds *creds, gnutls_session_t session)
{
    if (!creds->server) {
        return NULL;
    }
    if (creds->psk) {
        return g_strdup(gnutls_psk_server_get_username(session));
    }
    return creds->verify_peer ? certificate_name(session) : NULL;
}
