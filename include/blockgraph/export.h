/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports: a node that others can use, through a server.
 *
 * An export has an id, a type and a node; it comes with blk_exp_add() and goes
 * with blk_exp_del(), or with the server it belongs to.  Names of options are
 * those of QEMU's control commands; see docs/exports.md.
 *
 * All functions run in the thread of the graph's main context.
 */
#ifndef BLOCKGRAPH_EXPORT_H
#define BLOCKGRAPH_EXPORT_H

#include <blockgraph/backend.h>

G_BEGIN_DECLS

typedef struct BlockExport BlockExport;

/** How an export is closed. */
typedef enum BlockExportRemoveMode {
    BLOCK_EXPORT_REMOVE_SAFE, /* only if no client uses it */
    BLOCK_EXPORT_REMOVE_HARD, /* clients are cut off */
} BlockExportRemoveMode;

/** "safe", "hard", NULL. */
BLOCK_API extern const char *const block_export_remove_mode_names[];

/** What is known of an export; the texts are the export's. */
typedef struct BlockExportInfo {
    const char *id;
    const char *type;      /* "nbd" */
    const char *node_name;
    const char *name;      /* by which clients ask for it */
    bool writable;
    bool shutting_down;    /* is closed, but requests are still in flight */
    unsigned nr_clients;
} BlockExportInfo;

/**
 * Export a node.
 *
 * @options  taken over: "type", "id", "node-name", "writable", "writethrough",
 *           "iothread", and what the type has
 *
 * Returns the export, owned by @graph, or NULL with @errp set.
 */
BLOCK_API BlockExport *coroutine_fn blk_co_exp_add(BlockGraph *graph,
                                                   BlockOptions *options,
                                                   GError **errp);

/** blk_co_exp_add() for callers outside coroutines. */
BLOCK_API BlockExport *blk_exp_add(BlockGraph *graph, BlockOptions *options,
                                   GError **errp);

/** The export of that id, or NULL. */
BLOCK_API BlockExport *blk_exp_find(BlockGraph *graph, const char *id);

/** The export after @exp in the order of coming; the first for NULL. */
BLOCK_API BlockExport *blk_exp_next(BlockGraph *graph, BlockExport *exp);

/** Fill @info, whose texts are valid until the caller yields. */
BLOCK_API void blk_exp_query(BlockExport *exp, BlockExportInfo *info);

/**
 * Begin to close @exp: no new client finds it.  It is gone when the listeners
 * are told, which may happen later: when its requests in flight have ended.
 *
 * Returns 0; or -EBUSY with @errp: clients use it, and @mode is SAFE.
 */
BLOCK_API int blk_exp_del(BlockExport *exp, BlockExportRemoveMode mode,
                          GError **errp);

/** Close all exports of @graph, hard, and wait until they are gone. */
BLOCK_API void coroutine_fn blk_co_exp_close_all(BlockGraph *graph);

/** blk_co_exp_close_all() for callers outside coroutines. */
BLOCK_API void blk_exp_close_all(BlockGraph *graph);

/** Told that the export @id has gone.  Must not yield. */
typedef void BlockExportListener(const char *id, void *opaque);

/** Tell @listener of exports of @graph that have gone. */
BLOCK_API void blk_exp_add_listener(BlockGraph *graph,
                                    BlockExportListener *listener,
                                    void *opaque);

/** End that; both arguments as then. */
BLOCK_API void blk_exp_remove_listener(BlockGraph *graph,
                                       BlockExportListener *listener,
                                       void *opaque);

/** What is told of requests that have failed; the texts are the export's. */
typedef struct BlockExportErrorEvent {
    const char *id;        /* of the export */
    const char *node_name; /* of its node */
    bool is_read;          /* else it was to change something, or a flush */
    int error;             /* positive errno */
} BlockExportErrorEvent;

/** Told of failed requests; in the main context.  Must not yield. */
typedef void BlockExportErrorListener(const BlockExportErrorEvent *event,
                                      void *opaque);

/**
 * Tell @listener (NULL: nobody) when the node of an export of @graph fails a
 * request of a client.  The client is given the error in any case.  Of reads
 * and of other requests that fail before the main context looks, one each is
 * told, with the last error: no client can make this cost memory.
 */
BLOCK_API void blk_exp_set_error_listener(BlockGraph *graph,
                                          BlockExportErrorListener *listener,
                                          void *opaque);

/**
 * The backend by which @exp uses its node, for its statistics; latencies are
 * measured only if somebody says so.  It stays the export's: no reference is
 * taken, and its error policy must not be changed.
 */
BLOCK_API BlockBackend *blk_exp_backend(BlockExport *exp);

/** The context of the I/O thread that the user calls @id, or NULL. */
typedef AioContext *BlockIOThreadFinder(const char *id, void *opaque);

/**
 * Say how the option "iothread" finds its thread; NULL: there are none.  A
 * thread stays as long as an export uses it.
 */
BLOCK_API void blk_exp_set_iothread_finder(BlockGraph *graph,
                                           BlockIOThreadFinder *find,
                                           void *opaque);

/* --- the NBD server ------------------------------------------------------- */

/**
 * Start the NBD server of @graph, which serves its exports of type "nbd".
 *
 * @options  taken over: "addr" (an object: type=unix,path=... or
 *           type=inet,host=...,port=...), "tls-creds", "plain-text",
 *           "max-connections", ...; see docs/exports.md
 *
 * Returns 0, or a negative errno with @errp set: -EBUSY, it runs.
 */
BLOCK_API int coroutine_fn blk_co_nbd_server_start(BlockGraph *graph,
                                                   BlockOptions *options,
                                                   GError **errp);

/** blk_co_nbd_server_start() for callers outside coroutines. */
BLOCK_API int blk_nbd_server_start(BlockGraph *graph, BlockOptions *options,
                                   GError **errp);

/**
 * Stop the NBD server, if there is one: cut off its clients, close exports of
 * its type, and wait until they are gone; also when others stop it meanwhile.
 */
BLOCK_API void coroutine_fn blk_co_nbd_server_stop(BlockGraph *graph);

/** blk_co_nbd_server_stop() for callers outside coroutines. */
BLOCK_API void blk_nbd_server_stop(BlockGraph *graph);

/** What is known of an NBD server. */
typedef struct BlockNbdServerInfo {
    unsigned port;          /* TCP; else 0 */
    unsigned nr_clients;    /* connections, in a handshake or after it */
    unsigned nr_handshakes; /* those that are in it */
    uint64_t nr_served;     /* clients that came through it, ever */
    int64_t bytes_in_flight; /* memory of requests */
} BlockNbdServerInfo;

/** Fill @info.  Returns false, with @info as it was, if no server runs. */
BLOCK_API bool blk_nbd_server_query(BlockGraph *graph,
                                    BlockNbdServerInfo *info);

/** What a server says of an export. */
typedef struct BlockNbdListing {
    char *name;
    char *description;        /* or NULL */
    /* Whatever the server says: to be shown, not to be calculated with. */
    uint64_t bytes;
    uint16_t flags;           /* of the protocol; 0: it did not say */
    uint32_t min_block;       /* 0: it did not say */
    uint32_t preferred_block;
    uint32_t max_block;
    char **contexts;          /* names, closed by NULL; or NULL */
} BlockNbdListing;

/**
 * Ask an NBD server what it exports.
 *
 * @options   taken over: "addr" as of a server, "tls-creds", "tls-hostname"
 * @ret_list  set to BlockNbdListing, freed with the array
 *
 * Returns 0, or a negative errno with @errp set.  Gives up after 30 seconds.
 */
BLOCK_API int coroutine_fn blk_co_nbd_list(BlockGraph *graph,
                                           BlockOptions *options,
                                           GPtrArray **ret_list,
                                           GError **errp);

/** blk_co_nbd_list() for callers outside coroutines. */
BLOCK_API int blk_nbd_list(BlockGraph *graph, BlockOptions *options,
                           GPtrArray **ret_list, GError **errp);

/** Free @listing; NULL is ignored.  Thread: any. */
BLOCK_API void blk_nbd_listing_free(BlockNbdListing *listing);

G_END_DECLS

#endif /* BLOCKGRAPH_EXPORT_H */
