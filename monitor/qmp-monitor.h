/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One client of a control server: text in, text out.
 *
 * Commands of one client are done one after the other; those of different
 * clients beside each other.  Everything here runs in the main context.
 */
#ifndef MONITOR_QMP_MONITOR_H
#define MONITOR_QMP_MONITOR_H

#include "monitor/qmp-server.h"

G_BEGIN_DECLS

typedef struct QmpMonitor QmpMonitor;

/** What a monitor needs of whoever carries its text. */
typedef struct QmpMonitorOps {
    /** Send @bytes of @text.  May close the monitor. */
    void (*send)(const char *text, size_t bytes, void *opaque);
    /** Whether so much is not sent yet that no further command is begun. */
    bool (*is_full)(void *opaque);
    /** All input is used up: more may come, or after qmp_monitor_end() there
     * is nothing more to do. */
    void (*idle)(void *opaque);
    bool pretty;        /* text is for people: indented */
} QmpMonitorOps;

/** A monitor that has sent its greeting.  The caller owns it. */
QmpMonitor *qmp_monitor_new(QmpServer *server, const QmpMonitorOps *ops,
                            void *opaque);

/** Take input.  Only while qmp_monitor_wants_input(). */
void qmp_monitor_feed(QmpMonitor *monitor, const char *data, size_t bytes);

/** No more input comes. */
void qmp_monitor_end(QmpMonitor *monitor);

/** Whether all input is used up, and no command runs. */
bool qmp_monitor_wants_input(const QmpMonitor *monitor);

/** Whether there is input, and no command runs: qmp_monitor_resume() it as soon
 * as there is room. */
bool qmp_monitor_is_held(const QmpMonitor *monitor);

/** Whether, after qmp_monitor_end(), there is nothing more to do. */
bool qmp_monitor_is_over(const QmpMonitor *monitor);

/** There is room again, after is_full(): go on. */
void qmp_monitor_resume(QmpMonitor *monitor);

/** Be rid of @monitor: a command that runs goes on, but tells nobody. */
void qmp_monitor_close(QmpMonitor *monitor);

G_END_DECLS

#endif /* MONITOR_QMP_MONITOR_H */
