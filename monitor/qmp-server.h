/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control server of one graph: its commands, its events, what was made by
 * commands and goes with the server.
 *
 * Everything here runs in the main context of the graph.
 */
#ifndef MONITOR_QMP_SERVER_H
#define MONITOR_QMP_SERVER_H

#include <blockgraph/job.h>

#include "monitor/objects.h"
#include "monitor/qmp-command.h"

G_BEGIN_DECLS

/** What one client has agreed on. */
struct QmpSession {
    bool negotiated;
};

/** Called for each event. */
typedef void QmpListener(const json_t *event, void *opaque);

struct QmpServer {
    /* Constant. */
    BlockGraph *graph;

    /* Main context. */
    GPtrArray *tables;       /* const QmpCommand *, as they were added */
    GHashTable *commands;    /* name -> const QmpCommand * */
    GPtrArray *listeners;    /* struct QmpEar *, private */
    GHashTable *rates;       /* of events that are limited */
    GPtrArray *nodes;        /* BlockDriverState * that commands have added,
                              * with the reference of bdrv_open(), in order */
    GHashTable *throttles;   /* node name -> filter above it, BlockDriverState *
                              * with a reference: block_set_io_throttle */
    CoMutex throttles_lock;  /* of who changes these and the graph with them */
    QmpObjects *objects;
    GHashTable *export_threads; /* id of an export -> id of its iothread */
    GQueue outside;          /* of qmp_co_run_outside() */
    unsigned nr_running;     /* commands, of clients that have left, too */
    char *quit_reason;       /* NULL: nobody wants the end */
};

/** A server for @graph with the built-in commands.  The caller owns it. */
QmpServer *qmp_server_new(BlockGraph *graph);

/**
 * Free @server and what was made by commands: nodes and objects.  No command
 * is running, no job left, no listener either.  Outside coroutines.
 */
void qmp_server_free(QmpServer *server);

/** Add the commands of @table. */
void qmp_server_add_commands(QmpServer *server, const QmpCommand *table);

/** The command called @name, or NULL. */
const QmpCommand *qmp_server_find(QmpServer *server, const char *name);

/**
 * Do what @request says.  Returns the reply, which the caller owns.  Yields.
 *
 * @error  instead of @request (then NULL): what was wrong with the text; taken
 *         over
 */
json_t *coroutine_fn qmp_co_dispatch(QmpServer *server, QmpSession *session,
                                     const json_t *request, GError *error);

/** Tell @listener of events from now on. */
void qmp_server_listen(QmpServer *server, QmpListener *listener,
                       void *opaque);

/** End that. */
void qmp_server_unlisten(QmpServer *server, QmpListener *listener,
                         void *opaque);

/** Tell everybody of the event @name with @data (taken over). */
void qmp_server_event(QmpServer *server, const char *name, json_t *data);

/** Whether a command runs; its client may have left. */
bool qmp_server_is_busy(const QmpServer *server);

/** Whoever runs the loop shall end it; the first @reason counts. */
void qmp_server_quit(QmpServer *server, const char *reason);

/**
 * Have @func(@opaque) called outside of coroutines and callbacks, where it may
 * use the synchronous calls, and wait for it.  Returns what it returns.
 */
int coroutine_fn qmp_co_run_outside(QmpServer *server,
                                    int (*func)(void *opaque), void *opaque);

/** Call what waits in qmp_co_run_outside(); between two turns of the loop. */
void qmp_server_run_outside(QmpServer *server);

/* --- what commands, and whoever starts the server, can do ----------------- */

/** Open a node that belongs to the server; @options are taken over. */
int coroutine_fn qmp_co_node_add(QmpServer *server, BlockOptions *options,
                                 GError **errp);

/** Make an object from "qom-type", "id" and its properties; @options are taken
 * over. */
int coroutine_fn qmp_co_object_add(QmpServer *server, BlockOptions *options,
                                   GError **errp);

/** Export a node; @options are taken over. */
int coroutine_fn qmp_co_export_add(QmpServer *server, BlockOptions *options,
                                   GError **errp);

/** The schema of all commands and events. */
json_t *qmp_server_schema(QmpServer *server);

/** The manual of all commands and events, as Markdown.  g_free() it. */
char *qmp_server_manual(QmpServer *server);

/* --- inside the server ---------------------------------------------------- */

/** The types of the options of blockdev-add and of blockdev-create. */
extern const QmpType qmp_blockdev_options, qmp_create_options;

/** Have exports find their threads, and be told when they are gone. */
void qmp_exports_begin(QmpServer *server);

/** Close all exports, and the NBD server; undo the above. */
void qmp_exports_end(QmpServer *server);

/** Passed thresholds become events of the server. */
void qmp_threshold_listener(const BlockThresholdEvent *event, void *opaque);
void qmp_corruption_listener(const BlockCorruptionEvent *event, void *opaque);

/** Job events become events of the server. */
void qmp_job_listener(const BlockJobEvent *event, void *opaque);

G_END_DECLS

#endif /* MONITOR_QMP_SERVER_H */
