/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the NBD server.
 *
 *   nbd-server.c     listening, who may connect, the end
 *   nbd-client.c     one connection from its first byte to its last
 *   nbd-negotiate.c  the handshake: options and their replies
 *   nbd-meta.c       the options about metadata contexts
 *   nbd-request.c    reading requests, and doing them
 *   nbd-order.c      which writes wait for which
 *   nbd-turn.c       whose request is next
 *   nbd-reply.c      replies, all of a turn in one send
 *   nbd-status.c     block status
 *   nbd-buffers.c    memory of requests
 *   nbd-export.c     what is exported, under which name
 *
 *   N1  A connection is a coroutine.  It negotiates in the main context, serves
 *       requests in that of its export, and comes back to the main context to
 *       end.  Whoever cuts it off ends its stream; nobody else frees it.
 *   N2  Whoever starts a request counts it in client->nr_in_flight before, and
 *       it counts until its reply has been sent or dropped, with its memory.
 *   N3  A client's connection goes to another thread only while it has nothing
 *       in flight.
 */
#ifndef BLOCK_EXPORT_NBD_INT_H
#define BLOCK_EXPORT_NBD_INT_H

#include "block/copy/mem-budget.h"
#include "block/export/export.h"
#include "block/protocols/nbd/nbd-protocol.h"
#include "util/big-endian.h"
#include "util/interval-tree.h"
#include "util/io-channel-tls.h"
#include "util/socket-address.h"
#include "util/untrusted.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/driver.h>

/** Limits of the handshake. */
#define NBD_HANDSHAKE_NS (INT64_C(10) * 1000 * 1000 * 1000)
#define NBD_OPTIONS_MAX 32
#define NBD_OPTION_BYTES_MAX (64 * 1024)
#define NBD_OPTION_BYTES_MAX_BEFORE_TLS (8 * 1024)

/** Limits of requests. */
#define NBD_PAYLOAD_MAX (32 * 1024 * 1024)
#define NBD_REQUESTS_MAX 128
#define NBD_CLIENT_BYTES_MAX (INT64_C(64) * 1024 * 1024)
#define NBD_SERVER_BYTES_MAX (INT64_C(1) << 30)

/** After so long without an answer of its machine a TCP client is gone. */
#define NBD_PEER_TIMEOUT_S 60

/** How long a client may take for 64 KiB of what it is sent or sends. */
#define NBD_PATIENCE_NS (INT64_C(30) * 1000 * 1000 * 1000)

/** Metadata contexts of an export: numbers, and bits of a set. */
#define NBD_CONTEXT_BASE 0
#define NBD_CONTEXT_DEPTH 1
#define NBD_CONTEXT_BITMAPS 2
#define NBD_BITMAPS_MAX 60

typedef struct Acceptor Acceptor; /* nbd-server.c */

typedef struct NbdServer NbdServer;
typedef struct NbdClient NbdClient;
typedef struct NbdRequest NbdRequest;

/* --- the server ----------------------------------------------------------- */

struct NbdServer {
    /* Set when it starts, never changed after. */
    BlockGraph *graph;
    SocketListener *listener;
    TlsCreds *creds;            /* or NULL: no TLS */
    int64_t max_connections;    /* 0: no limit */
    int64_t max_per_peer;       /* 0: no limit */
    int64_t handshake_ns;
    int64_t patience_ns;
    bool any_uid;

    /* Main context. */
    ListHead clients;           /* NbdClient.link, by age */
    unsigned nr_clients;
    unsigned nr_handshakes;
    Acceptor *acceptors;        /* one a socket that listens */
    unsigned nr_acceptors;
    uint64_t nr_served;
    bool stopping;
    bool stopped;               /* nothing of it is left but this */
    unsigned nr_stoppers;       /* who waits for that; the last one frees it */
    CoQueue changed;            /* who waits for a client or acceptor to go */

    /* Has its own lock; any thread. */
    MemBudget memory;
};

/** Take the connected @fd as a client; it ends by itself.  Main context. */
void nbd_client_start(NbdServer *server, int fd);

/* --- exports -------------------------------------------------------------- */

/** Whose requests are being done, and whose wait (nbd-turn.c). */
typedef struct NbdTurns {
    ListHead clients;           /* NbdClient.turn_link: next first */
    unsigned nr_working;        /* requests that are being done */
    int64_t bytes_working;      /* NbdRequest.charged of these */
} NbdTurns;

typedef struct NbdExport {
    BlockExport exp;

    /* Set by exp_create(), never changed after. */
    char *name;
    char *description;          /* or NULL */
    char **tls_clients;         /* who may use it; NULL: all who come in */
    int64_t size;
    uint32_t min_block;
    uint32_t preferred_block;
    uint16_t flags;             /* NBD_FLAG_* */
    bool allocation_depth;
    unsigned nr_bitmaps;
    BdrvDirtyBitmap **bitmaps;
    char **bitmap_names;        /* of the contexts, without the prefix */

    /* Main context. */
    unsigned nr_clients;

    /* Thread of the export. */
    IntervalTree writes;        /* that are being done, or have no turn yet */
    NbdTurns turns;
} NbdExport;

/** The export that clients call @name (@len bytes), or NULL; one that @client
 * may not see does not exist for it (NULL: all do).  Main context. */
NbdExport *nbd_export_find(BlockGraph *graph, const NbdClient *client,
                           const char *name, size_t len);

/** Whether @client may know of @e. */
bool nbd_export_allows(const NbdExport *e, const NbdClient *client);

/** The export after @e, or the first, that clients may see.  Main context. */
NbdExport *nbd_export_next(BlockGraph *graph, NbdExport *e);

/** How many metadata contexts @e has; which are there is told by the next. */
unsigned nbd_export_nr_contexts(const NbdExport *e);

/** The name of context @id, to be freed with g_free(); NULL: not there. */
char *nbd_export_context_name(const NbdExport *e, unsigned id);

/* --- clients -------------------------------------------------------------- */

/** Buffers that a client's requests use again; thread of the client. */
#define NBD_BUFFER_CLASSES 14   /* 4 KiB to 32 MiB */
typedef struct NbdBuffers {
    GPtrArray *spare[NBD_BUFFER_CLASSES];
    int64_t spare_bytes;
} NbdBuffers;

/** What was read ahead of the request that is next. */
#define NBD_AHEAD_BYTES (16 * 1024)

struct NbdClient {
    /* Set by nbd_client_start(), never changed after. */
    NbdServer *server;
    char peer[64];

    /* Main context. */
    ListHead link;              /* in server->clients */
    bool in_handshake;
    bool counted;               /* in server->nr_*: is not being dropped */
    AioSocket *socket;          /* of @channel; others may cut it off */

    /* Any thread: set once, by nbd_client_cut_off(). */
    _Atomic bool cut_off;

    /*
     * Handshake: main context.  Then never changed while requests are
     * served.
     */
    IoChannel *channel;
    NbdExport *e;               /* with a reference, once chosen */
    bool fixed_newstyle;
    bool no_zeroes;
    bool tls;
    bool structured;
    bool extended;
    uint64_t meta_export;       /* number of the export of the next + 1, or 0 */
    uint64_t contexts;          /* bits: metadata contexts chosen */
    unsigned nr_options;

    /* Serving: the thread of the export's context. */
    uint8_t *ahead;             /* NBD_AHEAD_BYTES */
    size_t ahead_start;
    size_t ahead_end;
    size_t progress;            /* of a payload since its deadline was set */
    bool parsing;               /* requests are at hand; replies can wait */
    bool sending;
    bool flush_scheduled;
    bool broken;                /* the stream has ended; drop replies */
    unsigned nr_in_flight;      /* N2 */
    int64_t bytes_in_flight;
    unsigned nr_queued;         /* of these: in the queue below */
    NbdRequest *queue;          /* replies to be sent, by next */
    NbdRequest **queue_tail;
    CoQueue room;               /* the reader, for requests to end */
    NbdBuffers buffers;
    AioTimer *trim_timer;       /* set while there are unused buffers */
    uint64_t nr_requests;
    uint64_t trim_seen;         /* of these, when the timer was set */
    NbdRequest *spare_requests; /* by next */

    /* nbd-turn.c; thread of the export. */
    ListHead turn_link;         /* in e->turns.clients, if requests wait */
    ListHead turn_waiting;      /* NbdRequest.turn_link, oldest first */
    unsigned turn_working;      /* of its requests, those being done */
    int64_t turn_credit;        /* bytes it may spend, while requests wait */
};

/** Negotiate.  Returns 1: serve client->e; 0: the client left; or < 0. */
int coroutine_fn nbd_negotiate(NbdClient *client);

/** Serve requests until the stream ends.  Thread of the export. */
void coroutine_fn nbd_serve(NbdClient *client);

/** Cut @client off, wherever it is served.  Main context. */
void nbd_client_cut_off(NbdClient *client);

/* --- options -------------------------------------------------------------- */

/** An option of the handshake, and what is left of its payload. */
typedef struct NbdOption {
    uint32_t option;
    const uint8_t *data;
    size_t bytes;
} NbdOption;

/** Take a number off @opt.  Returns whether it was there. */
bool nbd_option_u16(NbdOption *opt, uint16_t *ret);
bool nbd_option_u32(NbdOption *opt, Untrusted *ret);
bool nbd_option_u64(NbdOption *opt, Untrusted *ret);

/** Take a string with its length before it; at most NBD_NAME_MAX bytes. */
bool nbd_option_string(NbdOption *opt, const char **ret, size_t *ret_len);

/** Send a reply to @option.  Returns 0 or a negative errno. */
int coroutine_fn nbd_option_reply(NbdClient *client, uint32_t option,
                                  uint32_t type, const void *data,
                                  size_t bytes);

/** nbd_option_reply() of an error with a text for people. */
int coroutine_fn nbd_option_error(NbdClient *client, uint32_t option,
                                  uint32_t type, const char *text);

/** LIST_META_CONTEXT and SET_META_CONTEXT.  Returns 0 or a negative errno. */
int coroutine_fn nbd_option_meta(NbdClient *client, NbdOption *opt);

/* --- requests ------------------------------------------------------------- */

/** A request, from its header to its reply.  Thread of the client. */
struct NbdRequest {
    NbdClient *client;
    uint16_t flags;             /* NBD_CMD_FLAG_* */
    uint16_t type;
    uint64_t cookie;            /* goes back as it came */
    uint64_t offset_said;       /* this, too; also if it is wrong */
    uint64_t offset;            /* in the disk, like what follows; or it has */
    uint64_t bytes;             /* an error, and this is the payload's length */
    void *buf;                  /* data, or NULL */
    size_t buf_bytes;
    int error;                  /* of NBD, or 0 */
    GByteArray *chunks;         /* a reply that is complete, or NULL */
    int64_t charged;            /* bytes that count against the client */
    struct iovec piece;
    NbdRequest *next;
    IntervalNode range;         /* writes: in e->writes */
    CoQueue followers;          /* who waits for it to leave that */
    ListHead turn_link;         /* in client->turn_waiting, while it waits */
    CoQueue turn;               /* itself, meanwhile */
    uint8_t head[NBD_EXTENDED_REPLY_BYTES + 16];
    size_t head_bytes;
    const void *body;           /* sent behind the head, or NULL */
    size_t body_bytes;
};

/** The number that the protocol has for the positive errno @err. */
int nbd_error_of(int err);

/** Make the reply of @req, and have it sent in time. */
void nbd_reply(NbdRequest *req);

/** Begin to send what is queued, if nothing else will come soon. */
void nbd_reply_flush(NbdClient *client);

/** Put a chunk's header (structured or extended) at the end of @to. */
void nbd_put_chunk_header(const NbdRequest *req, GByteArray *to,
                          uint16_t flags, uint16_t type, uint64_t bytes);

/** Give the request back: it has been answered. */
void nbd_request_done(NbdRequest *req);

/** The most memory that the answer to a BLOCK_STATUS of @client takes. */
int64_t nbd_block_status_memory(const NbdClient *client);

/** Answer a BLOCK_STATUS.  Returns 0 or a negative errno. */
int coroutine_fn nbd_block_status(NbdRequest *req);

/* --- order --------------------------------------------------------------- */

/** Wait until the write @req, of at least one byte, may be done; then it is
 * being done.  Returns whether that took time. */
bool coroutine_fn nbd_order_begin(NbdRequest *req);

/** It is done. */
void nbd_order_end(NbdRequest *req);

/* --- turns ---------------------------------------------------------------- */

/** No client has sent anything yet. */
void nbd_turns_init(NbdTurns *turns);

/** @client has nothing that waits or is being done. */
void nbd_turn_client_init(NbdClient *client);

/** Wait until it is the turn of @req.  Returns whether that took time. */
bool coroutine_fn nbd_turn_begin(NbdRequest *req);

/** @req is done: others may have their turn. */
void nbd_turn_end(NbdRequest *req);

/** Let others come between two steps of @req.  Returns whether that took
 * time. */
bool coroutine_fn nbd_turn_pass(NbdRequest *req);

/* --- buffers -------------------------------------------------------------- */

/** A buffer of at least @bytes > 0, never of another client; NULL: none. */
void *nbd_buffer_get(NbdBuffers *buffers, size_t bytes);

/** Give it back, with the size it was asked for. */
void nbd_buffer_put(NbdBuffers *buffers, void *buf, size_t bytes);

/** Free what is not in use. */
void nbd_buffers_trim(NbdBuffers *buffers);

#endif /* BLOCK_EXPORT_NBD_INT_H */
