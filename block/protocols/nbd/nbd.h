/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the driver "nbd": a disk that an NBD server exports.
 *
 * nbd.c         options, opening, limits, requests
 * nbd-send.c    sending them, again if need be, and what a flush is worth
 * nbd-connect.c one connection: connecting, again and again
 * nbd-greet.c   its handshake
 * nbd-reply.c   what the server answers
 *
 * All connections live in the main context; requests of other threads come
 * there, and go back.  So nothing here has a lock: what follows is touched by
 * the main context, between yields.
 *
 * N1  A request is in the table of its connection from before its first byte is
 *     sent until it has its result; who takes it out wakes it.
 * N2  When a connection is lost all in its table get -ENOTCONN and are tried
 *     again on another one, or the same when it is back.  So each may be done
 *     twice by the server; all kinds of requests may, as a write is answered
 *     before another one to the same bytes is sent.
 * N3  The server is a stranger: it may lie about content, nothing else.  Every
 *     number it sends is checked against the request it answers.
 * N4  A server that is back may have lost what was written before and not
 *     flushed.  A flush is good only if the same server has been there since
 *     then.  Connections are counted as they are made; one that is not
 *     younger than any such write, and still answers, is the proof: when the
 *     write was answered over another, both led to the same server.
 */
#ifndef BLOCK_PROTOCOLS_NBD_H
#define BLOCK_PROTOCOLS_NBD_H

#include <blockgraph/driver.h>

#include "block/protocols/nbd/nbd-protocol.h"
#include "util/big-endian.h"
#include "util/interval-tree.h"
#include "util/io-channel-tls.h"
#include "util/log-limit.h"
#include "util/socket-connect.h"
#include "util/untrusted.h"

#define NBD_CONNECTIONS_MAX 16
#define NBD_IN_FLIGHT_MAX 64    /* requests of one connection */
#define NBD_DATA_MAX (32 << 20) /* bytes of one request that carries data */
#define NBD_READ_BUFFER (64 << 10)
#define NBD_PEER_TIMEOUT_MAX_S (24 * 3600)
#define NBD_TEXT_MAX 4096       /* of a server's error message */

/** What a handshake has agreed on.  All connections agree on the same. */
typedef struct NbdExportInfo {
    int64_t bytes;
    unsigned flags;             /* NBD_FLAG_* of the export */
    uint32_t min_block;         /* 1 when the server has said nothing */
    uint32_t opt_block;         /* 0: no preference */
    uint32_t max_block;         /* of data; at most NBD_DATA_MAX */
    bool structured;
    bool extended;
    bool has_context;           /* block status can be asked for */
    uint32_t context;
} NbdExportInfo;

/** Of NbdClient.unflushed: all writes have been flushed. */
#define NBD_NOTHING UINT64_MAX

/** A request that waits for its reply. */
typedef struct NbdRequest {
    IntervalNode range;         /* writes: in NbdClient.writes */
    CoQueue followers;          /* writes: who waits for it to end */
    uint64_t era;               /* connections made when it was sent */
    unsigned sent;              /* how often it was */
    int64_t end_ns;             /* for this try; AIO_NO_DEADLINE: no limit */
    int64_t silent_ns;          /* when first a silence ended it; 0: none has */
    uint16_t type;              /* NBD_CMD_* */
    uint16_t flags;
    uint64_t cookie;
    int64_t offset;
    int64_t bytes;
    BlockIOVec *iov;            /* of NBD_CMD_READ and _WRITE */
    Coroutine *co;              /* who waits */
    bool done;
    int ret;

    /* Of the reply so far. */
    int64_t got;                /* bytes of a read */
    bool zeroed;                /* the vector was, as the reply is in parts */
    int64_t extent_bytes;       /* of a block status; 0: none yet */
    uint64_t extent_flags;      /* a word of bits */
} NbdRequest;

typedef struct NbdClient NbdClient;

/** A connection, made again when it is lost. */
typedef struct NbdConnection {
    NbdClient *client;
    Coroutine *co;              /* connects and reads replies, until close */
    bool ended;
    SocketAttempt attempt;      /* to connect */
    IoChannel *channel;         /* NULL: there is none */
    bool ready;                 /* the handshake is over */
    NbdExportInfo info;         /* while ready */
    CoMutex send_lock;
    bool of_use;                /* since then it has answered, or lived long */
    int64_t ready_ns;           /* when it became ready */
    uint64_t born;              /* the how manyth that was made (N4) */
    CoSleep pause;              /* until the next attempt */
    NbdRequest *requests[NBD_IN_FLIGHT_MAX];
    unsigned in_flight;
    AioTimer *silence;          /* for the end_ns of requests */
    bool silent;                /* about a request: it is given up */
    uint64_t next_cookie;
    uint8_t *buf;               /* read ahead, NBD_READ_BUFFER bytes */
    size_t buf_pos, buf_end;
} NbdConnection;

struct NbdClient {
    /* Set by open. */
    BlockDriverState *bs;
    SocketAddress *address;
    char *export;
    TlsCreds *creds;            /* or NULL: plain text */
    char *tls_hostname;         /* or NULL: that of the address */
    char *context;              /* instead of base:allocation, or NULL */
    int64_t reconnect_ns;       /* how long requests wait for a connection */
    unsigned peer_timeout_s;    /* of TCP; 0: the system's */
    int64_t request_timeout_ns; /* from its place to its end; 0: no limit */
    bool writable;
    NbdExportInfo info;         /* of the first handshake */
    AioContext *ctx;            /* the main context */

    NbdConnection conns[NBD_CONNECTIONS_MAX];
    unsigned nr_conns;
    uint64_t nr_made;           /* connections so far (N4) */
    uint64_t unflushed;         /* least era of a write not flushed yet */
    bool lost_writes;           /* maybe; then no flush succeeds any more */
    IntervalTree writes;        /* being done; no two overlap */
    bool closing;
    bool drained;               /* requests do not wait for a connection */
    int64_t lost_ns;            /* since when there is no connection at all */
    int64_t silent_ns;          /* when one was last given up for silence; 0:
                                   not since a drained section began */
    AioTimer *patience;         /* set while requests may wait for one */
    CoQueue waiting;            /* for a connection, or a free place in it */
    LogLimit log_limit;         /* the server makes us log */
};

/* --- nbd-send.c ----------------------------------------------------------- */

/**
 * Do @req: send it, as often as is needed and safe, and take its result.
 * Returns 0 or a negative errno.  Any thread.
 */
int coroutine_fn nbd_request(NbdClient *s, NbdRequest *req);

/* --- nbd-greet.c ---------------------------------------------------------- */

/** Shake hands over @c->channel and fill @info.  0 or a negative errno. */
int coroutine_fn nbd_greet(NbdConnection *c, NbdExportInfo *info,
                           GError **errp);

/* --- nbd-connect.c -------------------------------------------------------- */

/** Make the timers of @s and its connections. */
void nbd_client_init_timers(NbdClient *s);

/** Free them. */
void nbd_client_free_timers(NbdClient *s);

/**
 * @req, which has a place in @c, has so much time from now on as the options
 * say, whatever the server does meanwhile.
 */
void nbd_limit_time(NbdConnection *c, NbdRequest *req);

/** Connect once, and greet.  Returns 0 with @c ready, or a negative errno. */
int coroutine_fn nbd_connect(NbdConnection *c, int64_t deadline_ns,
                             GError **errp);

/** Keep @c alive from now on until nbd_disconnect(). */
void nbd_keep_connected(NbdConnection *c);

/** End @c and wait until nothing of it is left. */
void coroutine_fn nbd_disconnect(NbdConnection *c);

/**
 * The ready connection with the fewest requests, and room for one more; waits
 * for it as long as the options say.  NULL: in vain.
 */
NbdConnection *coroutine_fn nbd_pick_connection(NbdClient *s);

/**
 * The oldest ready connection, once it has room for one more, if it is not
 * younger than @era.  NULL: there is none.
 */
NbdConnection *coroutine_fn nbd_pick_old_connection(NbdClient *s,
                                                    uint64_t era);

/**
 * Whether what would be sent now has to fail instead: who drains has waited for
 * one silence, and does not wait for those of other connections in turn.
 */
bool nbd_is_hopeless(const NbdClient *s);

/** Log what the server has done; it may do so as often as it likes. */
void nbd_warn(NbdClient *s, const char *what);

/** Put the header of @req to @out.  Returns its length. */
size_t nbd_encode(const NbdExportInfo *info, const NbdRequest *req,
                  uint8_t out[NBD_EXTENDED_REQUEST_BYTES]);

/** Read exactly @bytes bytes to @buf.  Returns 0 or a negative errno. */
int coroutine_fn nbd_read(NbdConnection *c, void *buf, size_t bytes);

/** Read @bytes into @iov from its byte @iov_offset on. */
int coroutine_fn nbd_read_iov(NbdConnection *c, BlockIOVec *iov,
                              int64_t iov_offset, int64_t bytes);

/** Read @bytes and forget them. */
int coroutine_fn nbd_skip(NbdConnection *c, uint64_t bytes);

/* --- nbd-reply.c ---------------------------------------------------------- */

/** Take replies until the connection breaks.  Returns why. */
int coroutine_fn nbd_read_replies(NbdConnection *c);

/** The request @cookie of @c, or NULL: the server has made it up. */
NbdRequest *nbd_find_request(NbdConnection *c, Untrusted cookie);

/** @req is over: take it out, wake who waits. */
void nbd_finish_request(NbdConnection *c, NbdRequest *req, int ret);

#endif /* BLOCK_PROTOCOLS_NBD_H */
