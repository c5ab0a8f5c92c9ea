/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events that come too often: the first is told at once, of those that follow
 * within the time of their kind only the last, when the time is over.
 *
 * Everything here runs in the main context.
 */
#ifndef MONITOR_QMP_RATE_H
#define MONITOR_QMP_RATE_H

#include "monitor/qmp-command.h"

G_BEGIN_DECLS

/** Where events go. */
typedef struct QmpRateSink {
    void (*tell)(const json_t *event, void *opaque);
    void *opaque;
} QmpRateSink;

/** What waits, and for how long; free with g_hash_table_unref(). */
GHashTable *qmp_rates_new(void);

/** Give @event of the @kind to @sink, now or later, or not at all. */
void qmp_rate_send(GHashTable *rates, AioContext *ctx, const QmpEvent *kind,
                   json_t *event, const QmpRateSink *sink);

G_END_DECLS

#endif /* MONITOR_QMP_RATE_H */
