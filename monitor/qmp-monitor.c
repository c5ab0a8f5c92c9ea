/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One client.
 *
 * A coroutine works while there is input and room for replies.  M1: there is
 * at most one, so commands of a client are done in order.  M2: a monitor that
 * is closed lives until it ends, and calls nobody.
 */
#include "monitor/qmp-monitor.h"

#include <string.h>

#include "monitor/qmp-json.h"

struct QmpMonitor {
    /* Constant. */
    QmpServer *server;
    const QmpMonitorOps *ops;
    void *opaque;

    /* Main context. */
    QmpSession session;
    QmpParser *parser;
    GByteArray *input;
    bool busy;    /* the coroutine runs (M1) */
    bool ended;   /* no more input comes */
    bool closed;
};

static void send_json(QmpMonitor *monitor, const json_t *json)
{
    g_autofree char *text = monitor->ops->pretty ? qmp_json_pretty_text(json)
                                                 : qmp_json_text(json);
    g_autofree char *line = g_strconcat(text, "\r\n", NULL);

    if (!monitor->closed) {
        monitor->ops->send(line, strlen(line), monitor->opaque);
    }
}

static void hear(const json_t *event, void *opaque)
{
    QmpMonitor *monitor = opaque;

    if (monitor->session.negotiated) {
        send_json(monitor, event);
    }
}

QmpMonitor *qmp_monitor_new(QmpServer *server, const QmpMonitorOps *ops,
                            void *opaque)
{
    QmpMonitor *monitor = g_new0(QmpMonitor, 1);
    const QmpCommand *version = qmp_server_find(server, "query-version");
    json_t *greeting;

    monitor->server = server;
    monitor->ops = ops;
    monitor->opaque = opaque;
    monitor->parser = qmp_parser_new();
    monitor->input = g_byte_array_new();
    qmp_server_listen(server, hear, monitor);
    greeting = json_pack("{s:{s:o, s:[]}}", "QMP", "version",
                         version->run(NULL, NULL, NULL), "capabilities");
    send_json(monitor, greeting);
    json_decref(greeting);
    return monitor;
}

static void monitor_free(QmpMonitor *monitor)
{
    qmp_parser_free(monitor->parser);
    g_byte_array_unref(monitor->input);
    g_free(monitor);
}

/* The next message in the input, or what is wrong with it; neither: none. */
static json_t *next_message(QmpMonitor *monitor, GError **errp)
{
    GByteArray *input = monitor->input;
    json_t *message = NULL;

    if (input->len > 0) {
        size_t used = qmp_parser_feed(monitor->parser,
                                      (const char *)input->data, input->len,
                                      &message, errp);

        g_byte_array_remove_range(input, 0, used);
    } else if (monitor->ended && qmp_parser_is_inside(monitor->parser)) {
        qmp_parser_end(monitor->parser, &message, errp);
    }
    return message;
}

static bool may_go_on(const QmpMonitor *monitor)
{
    /* Once the end has begun, nothing is made that would have to go again. */
    return !monitor->closed && !monitor->server->quit_reason &&
           !monitor->ops->is_full(monitor->opaque) &&
           (monitor->input->len > 0 ||
            (monitor->ended && qmp_parser_is_inside(monitor->parser)));
}

static void coroutine_fn work(void *opaque)
{
    QmpMonitor *monitor = opaque;

    while (may_go_on(monitor)) {
        GError *error = NULL;
        json_t *message = next_message(monitor, &error);
        json_t *reply;

        if (!message && !error) {
            if (monitor->ended) {
                break;      /* half a message, and nothing follows */
            }
            continue;
        }
        reply = qmp_co_dispatch(monitor->server, &monitor->session, message,
                                error);
        json_decref(message);
        send_json(monitor, reply);
        json_decref(reply);
    }
    monitor->busy = false;
    monitor->server->nr_running--;
    if (monitor->closed) {
        monitor_free(monitor);
    } else if (monitor->input->len == 0 &&
               !monitor->ops->is_full(monitor->opaque)) {
        monitor->ops->idle(monitor->opaque);
    }
}

static void start(QmpMonitor *monitor)
{
    if (!monitor->busy) {
        monitor->busy = true;
        monitor->server->nr_running++;
        aio_co_enter(block_graph_aio_context(monitor->server->graph),
                     coroutine_create(work, monitor));
    }
}

void qmp_monitor_feed(QmpMonitor *monitor, const char *data, size_t bytes)
{
    g_assert(!monitor->ended);
    g_byte_array_append(monitor->input, (const guint8 *)data, bytes);
    start(monitor);
}

void qmp_monitor_end(QmpMonitor *monitor)
{
    monitor->ended = true;
    start(monitor);
}

bool qmp_monitor_wants_input(const QmpMonitor *monitor)
{
    return !monitor->busy && !monitor->ended && monitor->input->len == 0;
}

bool qmp_monitor_is_held(const QmpMonitor *monitor)
{
    return !monitor->busy && monitor->input->len > 0;
}

bool qmp_monitor_is_over(const QmpMonitor *monitor)
{
    return monitor->ended && !monitor->busy && monitor->input->len == 0;
}

void qmp_monitor_resume(QmpMonitor *monitor)
{
    start(monitor);
}

void qmp_monitor_close(QmpMonitor *monitor)
{
    qmp_server_unlisten(monitor->server, hear, monitor);
    monitor->closed = true;
    if (!monitor->busy) {
        monitor_free(monitor);
    }
}
