/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects: what nodes and exports of a graph refer to by an id.
 *
 * Everything runs in the main context of the graph.
 */
#ifndef MONITOR_OBJECTS_H
#define MONITOR_OBJECTS_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

typedef struct QmpObjects QmpObjects;

/** No objects yet, for @graph.  The caller owns it. */
QmpObjects *qmp_objects_new(BlockGraph *graph);

/** Free all objects, in the reverse order, before the graph and behind all that
 * uses them. */
void qmp_objects_free(QmpObjects *objects);

/**
 * Make an object from "qom-type", "id" and its properties.  @options are taken
 * over.
 *
 * Returns 0, or a negative errno with @errp set: -EEXIST, the id is taken.
 */
int qmp_objects_add(QmpObjects *objects, BlockOptions *options,
                    GError **errp);

/** Remove the object @id.  Returns 0, or -ENOENT, or -EBUSY (it is used) with
 * @errp set. */
int qmp_objects_del(QmpObjects *objects, const char *id, GError **errp);

/** Check that @id can be one: letters, digits, '-', '.', '_', a letter first.
 * Returns 0, or -EINVAL with @errp set. */
int qmp_id_check(const char *id, GError **errp);

/** The thread that the iothread object @id runs, or NULL. */
IOThread *qmp_objects_iothread(const QmpObjects *objects, const char *id);

/** Whether the thread of the object @id is used. */
typedef bool QmpThreadUser(const char *id, void *opaque);

/** Have @user asked before a thread is removed. */
void qmp_objects_set_thread_user(QmpObjects *objects, QmpThreadUser *user,
                                 void *opaque);

G_END_DECLS

#endif /* MONITOR_OBJECTS_H */
