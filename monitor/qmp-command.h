/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands: each stands once, in a table beside its code.
 */
#ifndef MONITOR_QMP_COMMAND_H
#define MONITOR_QMP_COMMAND_H

#include <blockgraph/image.h>

#include "monitor/qmp-type.h"

G_BEGIN_DECLS

typedef struct QmpServer QmpServer;
typedef struct QmpSession QmpSession;

/** Error classes that are not GenericError. */
typedef enum QmpErrorClass {
    QMP_ERROR_COMMAND_NOT_FOUND,
    QMP_ERROR_DEVICE_NOT_ACTIVE,
    QMP_ERROR_DEVICE_NOT_FOUND,
} QmpErrorClass;

/** The domain of errors with a class; all others are GenericError. */
#define QMP_ERROR qmp_error_quark()

/** The domain of QmpErrorClass. */
GQuark qmp_error_quark(void);

/** Where a command comes from, and what it works on. */
typedef struct QmpCall {
    QmpServer *server;
    BlockGraph *graph;
    QmpSession *session;
} QmpCall;

/**
 * Do a command.
 *
 * @args  its arguments, checked against their type
 *
 * Returns the reply, which the caller owns, or NULL with @errp set.
 *
 * Thread: the main context of the graph.  May yield.
 */
typedef json_t *QmpHandler(const QmpCall *call, json_t *args, GError **errp);

/** A command. */
typedef struct QmpCommand {
    const char *name;
    const QmpType *args; /* an object; NULL: none */
    const QmpType *ret;  /* NULL: an empty object */
    QmpHandler *run;     /* a coroutine function */
    const char *help;    /* what it does, a line or more */
} QmpCommand;

/** An event. */
typedef struct QmpEvent {
    const char *name;
    const QmpType *data; /* an object */
    int64_t rate_ns;     /* no more than one per so long and key; 0: no limit */
    const char *key;     /* member of the data that events are told apart by */
    const char *help;
} QmpEvent;

/** Tables, each closed by an entry without a name. */
extern const QmpCommand qmp_commands_bitmap[];
extern const QmpCommand qmp_commands_block[];
extern const QmpCommand qmp_commands_export[];
extern const QmpCommand qmp_commands_image[];
extern const QmpCommand qmp_commands_job[];
extern const QmpCommand qmp_commands_job_start[];
extern const QmpCommand qmp_commands_object[];
extern const QmpCommand qmp_commands_query[];
extern const QmpCommand qmp_commands_server[];
extern const QmpCommand qmp_commands_throttle[];
extern const QmpCommand qmp_commands_transaction[];
extern const QmpEvent qmp_events[];

/* --- what handlers share (qmp-util.c) ------------------------------------- */

/** The string, integer or boolean @name of @args, or @def without it. */
const char *qmp_arg_str(const json_t *args, const char *name);
int64_t qmp_arg_int(const json_t *args, const char *name, int64_t def);
bool qmp_arg_bool(const json_t *args, const char *name, bool def);

/** @args as a tree of options, which the caller owns; NULL with @errp. */
BlockOptions *qmp_arg_options(const json_t *args, GError **errp);

/** @options (taken over) as JSON. */
json_t *qmp_json_from_options(BlockOptions *options);

/**
 * The node called @name; NULL with @errp set.  No reference is taken: who
 * yields takes one.
 */
BlockDriverState *qmp_find_node(const QmpCall *call, const char *name,
                                GError **errp);

/** A SnapshotInfo. */
json_t *qmp_snapshot_json(const BdrvSnapshotInfo *info);

/** An empty object where @ret >= 0; NULL (then the error is set) elsewhere. */
json_t *qmp_done(int ret);

G_END_DECLS

#endif /* MONITOR_QMP_COMMAND_H */
