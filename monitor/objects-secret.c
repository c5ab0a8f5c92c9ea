/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects that hold what others must not know: secrets, TLS credentials.
 */
#include "monitor/object-type.h"

#include <blockgraph/tls.h>
#include <errno.h>
#include <string.h>

/* --- TLS ------------------------------------------------------------------ */

static const char *const endpoint_names[] = { "client", "server", NULL };

typedef struct TlsValues {
    char *dir;
    int endpoint;
    bool verify_peer;
    char *priority;
    char *username;
} TlsValues;

#define TLS(field) offsetof(TlsValues, field)
#define TLS_OPTIONS                                                         \
    { .name = "dir", .type = BLOCK_OPTION_STRING, .required = true,         \
      .offset = TLS(dir), .help = "where the files are" },                  \
    { .name = "endpoint", .type = BLOCK_OPTION_ENUM, .def = "client",       \
      .values = endpoint_names, .offset = TLS(endpoint),                    \
      .help = "which side they are for" },                                  \
    { .name = "verify-peer", .type = BLOCK_OPTION_BOOL, .def = "on",        \
      .offset = TLS(verify_peer),                                           \
      .help = "server: clients need a certificate of the authority" },      \
    { .name = "priority", .type = BLOCK_OPTION_STRING,                      \
      .offset = TLS(priority), .help = "GnuTLS priority string" }

static const BlockOption x509_options[] = {
    TLS_OPTIONS,
    { .type = BLOCK_OPTION_END },
};

static const BlockOption psk_options[] = {
    TLS_OPTIONS,
    { .name = "username", .type = BLOCK_OPTION_STRING,
      .offset = TLS(username), .help = "client: whose key to use" },
    { .type = BLOCK_OPTION_END },
};

static int tls_make(BlockGraph *graph, Object *object, void *values,
                    GError **errp)
{
    const TlsValues *v = values;
    BlockOptions *options = block_options_new();
    int ret;

    block_options_set_str(options, "qom-type", object->type->name);
    block_options_set_str(options, "id", object->id);
    block_options_set_str(options, "dir", v->dir);
    block_options_set_str(options, "endpoint", endpoint_names[v->endpoint]);
    block_options_set_bool(options, "verify-peer", v->verify_peer);
    if (v->priority) {
        block_options_set_str(options, "priority", v->priority);
    }
    if (v->username) {
        block_options_set_str(options, "username", v->username);
    }
    ret = blk_tls_creds_add(graph, options, errp);
    if (ret == 0) {
        object->thing = graph;
    }
    return ret;
}

static void tls_destroy(Object *object)
{
    blk_tls_creds_del(object->thing, object->id, NULL);
}

const ObjectType object_type_tls_x509 = {
    .name = "tls-creds-x509", .options = x509_options,
    .values_size = sizeof(TlsValues), .make = tls_make,
    .destroy = tls_destroy,
};

const ObjectType object_type_tls_psk = {
    .name = "tls-creds-psk", .options = psk_options,
    .values_size = sizeof(TlsValues), .make = tls_make,
    .destroy = tls_destroy,
};

/* --- secrets -------------------------------------------------------------- */

static const char *const format_names[] = { "raw", "base64", NULL };

typedef struct SecretValues {
    char *data;
    char *file;
    int format; /* of format_names */
} SecretValues;

#define SECRET(field) offsetof(SecretValues, field)

static const BlockOption secret_options[] = {
    { .name = "data", .type = BLOCK_OPTION_STRING, .offset = SECRET(data),
      .help = "the secret; others may see command lines: give a file" },
    { .name = "file", .type = BLOCK_OPTION_STRING, .offset = SECRET(file),
      .help = "file that holds the secret" },
    { .name = "format", .type = BLOCK_OPTION_ENUM, .def = "raw",
      .values = format_names, .offset = SECRET(format),
      .help = "how it is written" },
    { .type = BLOCK_OPTION_END },
};

typedef struct Secret {
    guchar *data;
    gsize bytes;
} Secret;

static void wipe(void *data, size_t bytes)
{
    if (data) {
        explicit_bzero(data, bytes);
        g_free(data);
    }
}

/* Take what @text says out of it. */
static int decode(Secret *secret, const char *text, gsize bytes, bool base64,
                  const char *id, GError **errp)
{
    if (!base64) {
        secret->data = g_memdup2(text, bytes);
        secret->bytes = bytes;
        return 0;
    }
    secret->data = g_base64_decode(text, &secret->bytes);
    return secret->bytes > 0 || bytes == 0 ? 0 : block_error(
        errp, EINVAL, "Secret '%s': not in base64", id);
}

static int secret_make(BlockGraph *graph, Object *object, void *values,
                       GError **errp)
{
    SecretValues *v = values;
    g_autoptr(GError) error = NULL;
    Secret *secret;
    char *text = NULL;
    gsize bytes = 0;
    int ret;

    if (!v->data == !v->file) {
        return block_error(errp, EINVAL, "Secret '%s': either 'data' or 'file' "
                           "must be given", object->id);
    }
    if (v->data) {
        text = g_strdup(v->data);
        bytes = strlen(text);
        explicit_bzero(v->data, bytes);
    } else if (!g_file_get_contents(v->file, &text, &bytes, &error)) {
        return block_error(errp, EIO, "Secret '%s': %s", object->id,
                           error->message);
    }
    secret = g_new0(Secret, 1);
    object->thing = secret;
    ret = decode(secret, text, bytes, v->format == 1, object->id, errp);
    wipe(text, bytes);
    return ret;
}

static void secret_destroy(Object *object)
{
    Secret *secret = object->thing;

    wipe(secret->data, secret->bytes);
    g_free(secret);
}

const ObjectType object_type_secret = {
    .name = "secret", .options = secret_options,
    .values_size = sizeof(SecretValues), .is_secret = true,
    .make = secret_make,
    .destroy = secret_destroy,
};
