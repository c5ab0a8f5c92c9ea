/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS over another channel, through GnuTLS.
 *
 * GnuTLS reads from one buffer and writes to another, and never waits; around
 * its calls we fill the one and empty the other, as coroutines.  So no call of
 * GnuTLS is interrupted, and reading and writing do not meet in it.
 *
 * The end of the stream below without TLS's own goodbye is taken for the end:
 * the protocols above have lengths of their own.
 */
#include "util/io-channel-tls.h"

#include <errno.h>
#include <string.h>

#define IN_BYTES (20 * 1024)    /* a record and its wrapping */
#define WRITE_BYTES (256 * 1024)

typedef struct TlsChannel {
    IoChannel c;

    /* Set when it is made, never changed after. */
    IoChannel *lower;
    TlsCreds *creds;
    TlsExpected expected;
    gnutls_session_t session;

    /* Touched by the thread that uses the channel. */
    uint8_t *in;                /* IN_BYTES, while there is something */
    size_t in_start;
    size_t in_end;
    bool in_eof;
    GByteArray *out;            /* not written yet */
    CoMutex out_lock;           /* who writes, in order */
} TlsChannel;

static TlsChannel *tls_of(IoChannel *c)
{
    return (TlsChannel *)c;
}

/* --- what GnuTLS calls --------------------------------------------------- */

static ssize_t push(gnutls_transport_ptr_t opaque, const void *data,
                    size_t bytes)
{
    TlsChannel *t = opaque;

    g_byte_array_append(t->out, data, bytes);
    return bytes;
}

static ssize_t pull(gnutls_transport_ptr_t opaque, void *buf, size_t bytes)
{
    TlsChannel *t = opaque;
    size_t part = MIN(bytes, t->in_end - t->in_start);

    if (part == 0 && !t->in_eof) {
        gnutls_transport_set_errno(t->session, EAGAIN);
        return -1;
    }
    memcpy(buf, t->in + t->in_start, part);
    t->in_start += part;
    return part;
}

static int pull_timeout(gnutls_transport_ptr_t opaque, unsigned ms)
{
    TlsChannel *t = opaque;

    return t->in_start < t->in_end || t->in_eof;
}

/* --- below --------------------------------------------------------------- */

/* Wait for bytes from below.  Returns 0 or a negative errno. */
static int coroutine_fn fill(TlsChannel *t, int64_t deadline_ns)
{
    struct iovec iov = { .iov_base = t->in, .iov_len = IN_BYTES };
    int64_t ret;

    g_assert(t->in_start == t->in_end);
    t->in_start = t->in_end = 0;
    ret = t->lower->ops->channel_readv(t->lower, &iov, 1, deadline_ns);
    if (ret < 0) {
        return ret;
    }
    t->in_end = ret;
    t->in_eof = ret == 0;
    return 0;
}

/* Write what there is to below. */
static int coroutine_fn flush(TlsChannel *t, int64_t deadline_ns)
{
    int64_t ret = 0;

    if (t->out->len == 0) {
        return 0;
    }
    co_mutex_lock(&t->out_lock);
    while (t->out->len > 0 && ret >= 0) {
        GByteArray *now = t->out;
        size_t done = 0;

        t->out = g_byte_array_new();
        while (done < now->len && ret >= 0) {
            struct iovec iov = { now->data + done, now->len - done };

            ret = t->lower->ops->channel_writev(t->lower, &iov, 1,
                                                deadline_ns);
            done += MAX(ret, 0);
        }
        g_byte_array_unref(now);
    }
    co_mutex_unlock(&t->out_lock);
    return ret < 0 ? ret : 0;
}

static int64_t write_deadline(const TlsChannel *t)
{
    return t->c.write_patience_ns
               ? aio_clock_ns(aio_get_current()) + t->c.write_patience_ns
               : AIO_NO_DEADLINE;
}

static bool is_again(int ret)
{
    return ret == GNUTLS_E_AGAIN || ret == GNUTLS_E_INTERRUPTED;
}

/* --- above --------------------------------------------------------------- */

static int64_t coroutine_fn tls_readv(IoChannel *c, const struct iovec *iov,
                                      int niov, int64_t deadline_ns)
{
    TlsChannel *t = tls_of(c);

    while (niov > 1 && iov->iov_len == 0) {
        iov++;
        niov--;
    }
    for (;;) {
        ssize_t got = gnutls_record_recv(t->session, iov->iov_base,
                                         iov->iov_len);
        int ret;

        /* A message of TLS itself may want an answer. */
        ret = flush(t, write_deadline(t));
        if (got >= 0) {
            return got;
        }
        if (got == GNUTLS_E_PREMATURE_TERMINATION) {
            return 0;
        }
        if (!is_again(got)) {
            return gnutls_error_is_fatal(got) ? -EIO : -EPROTO;
        }
        if (ret == 0 && t->in_start == t->in_end) {
            ret = fill(t, deadline_ns);
        }
        if (ret < 0) {
            return ret;
        }
    }
}

static int64_t coroutine_fn tls_writev(IoChannel *c, const struct iovec *iov,
                                       int niov, int64_t deadline_ns)
{
    TlsChannel *t = tls_of(c);
    int64_t done = 0;
    int ret = 0;

    gnutls_record_cork(t->session);
    for (int i = 0; i < niov && done < WRITE_BYTES && ret >= 0; i++) {
        size_t bytes = MIN(iov[i].iov_len, (size_t)(WRITE_BYTES - done));
        ssize_t sent = bytes ? gnutls_record_send(t->session, iov[i].iov_base,
                                                  bytes) : 0;

        ret = MIN(sent, 0);
        done += MAX(sent, 0);
        if (sent >= 0 && (size_t)sent < iov[i].iov_len) {
            break;
        }
    }
    if (ret >= 0) {
        do {
            ret = gnutls_record_uncork(t->session, 0);
        } while (is_again(ret));
    }
    if (ret < 0) {
        return -EIO;
    }
    ret = flush(t, deadline_ns);
    return ret < 0 ? ret : done;
}

static void tls_shut(IoChannel *c)
{
    io_channel_shutdown(tls_of(c)->lower);
}

static void tls_destroy(IoChannel *c)
{
    TlsChannel *t = tls_of(c);

    gnutls_deinit(t->session);
    tls_creds_unref(t->creds);
    io_channel_unref(t->lower);
    g_byte_array_unref(t->out);
    g_free(t->in);
}

static const IoChannelOps tls_ops = {
    .channel_readv = tls_readv,
    .channel_writev = tls_writev,
    .shut = tls_shut,
    .destroy = tls_destroy,
};

/* --- the handshake ------------------------------------------------------- */

static int coroutine_fn handshake(TlsChannel *t, GError **errp)
{
    for (;;) {
        int done = gnutls_handshake(t->session);
        int ret = flush(t, write_deadline(t));

        if (done == 0 && ret == 0) {
            return 0;
        }
        if (ret == 0 && !is_again(done)) {
            if (!gnutls_error_is_fatal(done)) {
                continue;       /* a warning */
            }
            ret = tls_session_failed(t->session, done, errp);
            if (done == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
                /* So that the other side can say why, too. */
                gnutls_alert_send_appropriate(t->session, done);
                flush(t, write_deadline(t));
            }
            return ret;
        }
        if (ret == 0 && t->in_start == t->in_end) {
            ret = fill(t, t->lower->read_deadline_ns);
        }
        if (ret == 0 && t->in_eof) {
            ret = -ECONNRESET;
        }
        if (ret < 0) {
            return block_error_errno(errp, -ret, "TLS handshake failed");
        }
    }
}

IoChannel *coroutine_fn io_channel_co_start_tls(IoChannel *lower,
                                                TlsCreds *creds,
                                                const char *host,
                                                GError **errp)
{
    TlsChannel *t = g_new0(TlsChannel, 1);

    if (tls_creds_new_session(creds, host, &t->expected, &t->session,
                              errp) < 0) {
        g_free(t);
        io_channel_unref(lower);
        return NULL;
    }
    io_channel_init(&t->c, &tls_ops, lower->socket);
    t->c.read_deadline_ns = lower->read_deadline_ns;
    t->c.write_patience_ns = lower->write_patience_ns;
    t->lower = lower;
    t->creds = tls_creds_ref(creds);
    t->in = g_malloc(IN_BYTES);
    t->out = g_byte_array_new();
    co_mutex_init(&t->out_lock);
    gnutls_transport_set_ptr(t->session, t);
    gnutls_transport_set_push_function(t->session, push);
    gnutls_transport_set_pull_function(t->session, pull);
    gnutls_transport_set_pull_timeout_function(t->session, pull_timeout);
    if (handshake(t, errp) < 0) {
        io_channel_unref(&t->c);
        return NULL;
    }
    t->c.identity = tls_creds_peer_identity(creds, t->session);
    return &t->c;
}
