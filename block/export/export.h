/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of exports: what the registry and the types of exports share.
 *
 *   E1  An export is found, and takes new clients, until it shuts down.
 *   E2  Each client holds a reference, and so does the registry until the
 *       export shuts down.  The last one to go destroys it.
 */
#ifndef BLOCK_EXPORT_EXPORT_H
#define BLOCK_EXPORT_EXPORT_H

#include <blockgraph/backend.h>
#include <blockgraph/export.h>

#include "util/list.h"

/** A type of export.  Main context. */
typedef struct BlockExportDriver {
    const char *type;
    size_t instance_size;       /* of the struct that begins with BlockExport */
    const BlockOption *options;
    /** Take @options (all but the common ones).  Does not yield. */
    int (*exp_create)(BlockExport *exp, BlockOptions *options, GError **errp);
    /** Cut the clients off; they drop their references in time. */
    void (*cut_off)(BlockExport *exp);
    /** Free what exp_create() has made.  Also after it has failed. */
    void coroutine_fn (*exp_free)(BlockExport *exp);
    /** How many clients; their name for it. */
    unsigned (*nr_clients)(BlockExport *exp);
    const char *(*client_name)(BlockExport *exp);
} BlockExportDriver;

struct BlockExport {
    /* Set by blk_co_exp_add(), never changed after. */
    const BlockExportDriver *drv;
    BlockGraph *graph;
    char *id;
    char *node_name;
    bool writable;
    BlockBackend *blk;
    AioContext *ctx;            /* where its requests run */
    uint64_t number;            /* never used twice in a graph */

    /* Any thread: the last errno of reads [0] and of other requests [1] that
     * the main context has not told yet; 0: none. */
    _Atomic int failed[2];

    /* Main context; scheduled in any thread. */
    AioBH *error_bh;

    /* Main context. */
    unsigned refs;
    bool shutting_down;
    ListHead link;              /* in the registry */
};

/** What a graph keeps of its exports; made with the first one. */
typedef struct BlockExports BlockExports;

/** Take one more reference. */
void export_ref(BlockExport *exp);

/** Drop a reference (E2). */
void coroutine_fn export_co_unref(BlockExport *exp);

/** Close all exports of @type (NULL: all), hard, and wait for them. */
void coroutine_fn export_co_close_type(BlockGraph *graph, const char *type);

/** The slot of @graph for its NBD server. */
struct NbdServer **export_nbd_server(BlockGraph *graph);

/** The exports of type "nbd". */
extern const BlockExportDriver nbd_export_driver;

#endif /* BLOCK_EXPORT_EXPORT_H */
