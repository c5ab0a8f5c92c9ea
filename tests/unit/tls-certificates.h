/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Certificates for tests, good ones and bad ones, made when they are wanted.
 */
#ifndef TESTS_UNIT_TLS_CERTIFICATES_H
#define TESTS_UNIT_TLS_CERTIFICATES_H

#include "check-main.h"

#include <glib.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

/** What stands in a certificate. */
typedef struct CertificateFacts {
    const char *name;           /* common name, and that of the host */
    const char *purpose;        /* GNUTLS_KP_*, or NULL: an authority */
    int64_t from_s, to_s;       /* from now; both 0: valid for an hour */
} CertificateFacts;

/** A certificate with its key. */
typedef struct Certificate {
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
} Certificate;

static inline void gnutls_ok(int ret)
{
    ck_assert_msg(ret >= 0, "%s", gnutls_strerror(ret));
}

static inline void certificate_fill(gnutls_x509_crt_t crt,
                                    const CertificateFacts *facts)
{
    static uint8_t serial;
    bool is_authority = !facts->purpose;
    time_t now = time(NULL);

    serial++;
    gnutls_ok(gnutls_x509_crt_set_version(crt, 3));
    gnutls_ok(gnutls_x509_crt_set_serial(crt, &serial, 1));
    gnutls_ok(gnutls_x509_crt_set_activation_time(
        crt, now + (facts->to_s ? facts->from_s : -60)));
    gnutls_ok(gnutls_x509_crt_set_expiration_time(
        crt, now + (facts->to_s ? facts->to_s : 3600)));
    gnutls_ok(gnutls_x509_crt_set_dn_by_oid(
        crt, GNUTLS_OID_X520_COMMON_NAME, 0, facts->name,
        strlen(facts->name)));
    gnutls_ok(gnutls_x509_crt_set_basic_constraints(crt, is_authority, -1));
    gnutls_ok(gnutls_x509_crt_set_key_usage(
        crt, is_authority ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
                          : GNUTLS_KEY_DIGITAL_SIGNATURE));
    if (!is_authority) {
        gnutls_ok(gnutls_x509_crt_set_subject_alt_name(
            crt, GNUTLS_SAN_DNSNAME, facts->name, strlen(facts->name),
            GNUTLS_FSAN_SET));
        gnutls_ok(gnutls_x509_crt_set_key_purpose_oid(crt, facts->purpose,
                                                      0));
    }
}

/** A new one, signed by @issuer; NULL: by itself. */
static inline Certificate certificate_new(const CertificateFacts *facts,
                                          const Certificate *issuer)
{
    Certificate c;

    gnutls_ok(gnutls_x509_privkey_init(&c.key));
    gnutls_ok(gnutls_x509_privkey_generate(
        c.key, GNUTLS_PK_ECDSA,
        GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    gnutls_ok(gnutls_x509_crt_init(&c.crt));
    certificate_fill(c.crt, facts);
    gnutls_ok(gnutls_x509_crt_set_key(c.crt, c.key));
    gnutls_ok(gnutls_x509_crt_sign2(c.crt, issuer ? issuer->crt : c.crt,
                                    issuer ? issuer->key : c.key,
                                    GNUTLS_DIG_SHA256, 0));
    return c;
}

static inline void certificate_free(Certificate *c)
{
    gnutls_x509_crt_deinit(c->crt);
    gnutls_x509_privkey_deinit(c->key);
}

static inline void certificate_write(const char *dir, const char *file,
                                     gnutls_datum_t *pem)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);

    ck_assert(g_file_set_contents(path, (char *)pem->data, pem->size, NULL));
    gnutls_free(pem->data);
}

/** Write @c to DIR/NAME-cert.pem, and its key to DIR/NAME-key.pem. */
static inline void certificate_save(const Certificate *c, const char *dir,
                                    const char *name)
{
    g_autofree char *cert = g_strconcat(name, "-cert.pem", NULL);
    g_autofree char *key = g_strconcat(name, "-key.pem", NULL);
    gnutls_datum_t pem;

    gnutls_ok(gnutls_x509_crt_export2(c->crt, GNUTLS_X509_FMT_PEM, &pem));
    certificate_write(dir, cert, &pem);
    gnutls_ok(gnutls_x509_privkey_export2(c->key, GNUTLS_X509_FMT_PEM, &pem));
    certificate_write(dir, key, &pem);
}

/** Write DIR/ca-crl.pem: @issuer takes @revoked back. */
static inline void certificate_revoke(const Certificate *revoked,
                                      const Certificate *issuer,
                                      const char *dir)
{
    gnutls_x509_crl_t crl;
    gnutls_datum_t pem;
    time_t now = time(NULL);

    gnutls_ok(gnutls_x509_crl_init(&crl));
    gnutls_ok(gnutls_x509_crl_set_version(crl, 2));
    gnutls_ok(gnutls_x509_crl_set_this_update(crl, now - 60));
    gnutls_ok(gnutls_x509_crl_set_next_update(crl, now + 3600));
    gnutls_ok(gnutls_x509_crl_set_number(crl, "\1", 1));
    gnutls_ok(gnutls_x509_crl_set_crt(crl, revoked->crt, now - 60));
    gnutls_ok(gnutls_x509_crl_sign2(crl, issuer->crt, issuer->key,
                                    GNUTLS_DIG_SHA256, 0));
    gnutls_ok(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
    certificate_write(dir, "ca-crl.pem", &pem);
    gnutls_x509_crl_deinit(crl);
}

#endif /* TESTS_UNIT_TLS_CERTIFICATES_H */
