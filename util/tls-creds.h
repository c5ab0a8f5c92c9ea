/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS credentials: certificates or keys that both sides share.
 */
#ifndef UTIL_TLS_CREDS_H
#define UTIL_TLS_CREDS_H

#include <blockgraph/options.h>

#include <gnutls/gnutls.h>

/** Credentials.  Never changed once made. */
typedef struct TlsCreds TlsCreds;

/**
 * Load credentials.
 *
 * @type     "tls-creds-x509" or "tls-creds-psk"
 * @options  "dir", "endpoint", "verify-peer", "priority", "username"; taken
 *           out of it
 *
 * Returns them with one reference, or NULL with @errp set.
 */
TlsCreds *tls_creds_new(const char *type, BlockOptions *options,
                        GError **errp);

/** Take one more reference.  Returns @creds.  Thread: any. */
TlsCreds *tls_creds_ref(TlsCreds *creds);

/** Drop a reference; NULL is ignored.  Thread: any. */
void tls_creds_unref(TlsCreds *creds);

/** Whether they are for servers. */
bool tls_creds_is_server(const TlsCreds *creds);

/** The options, for manuals. */
extern const BlockOption tls_creds_options[];

/** What a peer's certificate has to be; GnuTLS looks at it as long as there is
 * the session. */
typedef struct TlsExpected {
    gnutls_typed_vdata_st data[2];
} TlsExpected;

/**
 * A session with @creds that is not connected yet.  Its handshake fails unless
 * the peer may be the peer.
 *
 * @host      clients: name of the server in its certificate; stays as long as
 *            the session.  NULL will do only where there are no certificates.
 * @expected  filled; stays as long as the session
 *
 * Returns 0 or a negative errno with @errp.
 */
int tls_creds_new_session(TlsCreds *creds, const char *host,
                          TlsExpected *expected, gnutls_session_t *ret,
                          GError **errp);

/** Say why the handshake of @session has ended: @err of GnuTLS, which is fatal.
 * Returns a negative errno. */
int tls_session_failed(gnutls_session_t session, int err, GError **errp);

/**
 * After the handshake: who the peer of a server is, the name of the key or the
 * distinguished name in the certificate (RFC 4514).  NULL: it has proved none.
 * Free with g_free().
 */
char *tls_creds_peer_identity(const TlsCreds *creds, gnutls_session_t session);

#endif /* UTIL_TLS_CREDS_H */
