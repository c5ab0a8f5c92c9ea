/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control server: life, commands, listeners.
 */
#include "monitor/qmp-server.h"

#include <errno.h>

#include "monitor/qmp-json.h"
#include "monitor/qmp-rate.h"

typedef struct QmpEar {
    QmpListener *listener; /* NULL: gone while somebody is told */
    void *opaque;
} QmpEar;

/* A function that waits to be called outside of coroutines. */
typedef struct Outside {
    int (*func)(void *opaque);
    void *opaque;
    int ret;
    Coroutine *waiter;
} Outside;

void qmp_server_add_commands(QmpServer *server, const QmpCommand *table)
{
    g_ptr_array_add(server->tables, (void *)table);
    for (const QmpCommand *c = table; c->name; c++) {
        g_assert(!g_hash_table_contains(server->commands, c->name));
        g_hash_table_insert(server->commands, (void *)c->name, (void *)c);
    }
}

QmpServer *qmp_server_new(BlockGraph *graph)
{
    static const QmpCommand *const tables[] = {
        qmp_commands_server, qmp_commands_block, qmp_commands_image,
        qmp_commands_job_start, qmp_commands_job, qmp_commands_bitmap,
        qmp_commands_transaction, qmp_commands_query, qmp_commands_object,
        qmp_commands_export, qmp_commands_throttle,
    };
    QmpServer *server = g_new0(QmpServer, 1);

    server->graph = graph;
    server->tables = g_ptr_array_new();
    server->commands = g_hash_table_new(g_str_hash, g_str_equal);
    server->listeners = g_ptr_array_new_with_free_func(g_free);
    server->rates = qmp_rates_new();
    server->nodes = g_ptr_array_new();
    server->throttles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);
    co_mutex_init(&server->throttles_lock);
    server->objects = qmp_objects_new(graph);
    g_queue_init(&server->outside);
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        qmp_server_add_commands(server, tables[i]);
    }
    block_job_add_listener(graph, qmp_job_listener, server);
    block_graph_set_threshold_listener(graph, qmp_threshold_listener, server);
    block_graph_set_corruption_listener(graph, qmp_corruption_listener, server);
    qmp_exports_begin(server);
    return server;
}

/* By now nobody uses them, and in any order. */
static void free_throttles(QmpServer *server)
{
    GHashTableIter iter;
    gpointer filter;

    g_hash_table_iter_init(&iter, server->throttles);
    while (g_hash_table_iter_next(&iter, NULL, &filter)) {
        bdrv_unref(filter);
    }
    g_hash_table_unref(server->throttles);
}

void qmp_server_free(QmpServer *server)
{
    if (!server) {
        return;
    }
    g_assert(server->nr_running == 0);
    g_assert(g_queue_is_empty(&server->outside));
    qmp_exports_end(server);
    block_graph_set_threshold_listener(server->graph, NULL, NULL);
    block_graph_set_corruption_listener(server->graph, NULL, NULL);
    block_job_remove_listener(server->graph, qmp_job_listener, server);
    free_throttles(server);
    /* Parents were opened after their children. */
    while (server->nodes->len > 0) {
        bdrv_unref(g_ptr_array_steal_index(server->nodes,
                                           server->nodes->len - 1));
    }
    /* What jobs had to leave as long as those nodes were above it. */
    block_job_cancel_all(server->graph);
    qmp_objects_free(server->objects);
    g_hash_table_unref(server->rates);
    g_hash_table_unref(server->commands);
    g_ptr_array_unref(server->nodes);
    g_ptr_array_unref(server->tables);
    g_ptr_array_unref(server->listeners);
    g_free(server->quit_reason);
    g_free(server);
}

const QmpCommand *qmp_server_find(QmpServer *server, const char *name)
{
    return g_hash_table_lookup(server->commands, name);
}

/* --- events --------------------------------------------------------------- */

void qmp_server_listen(QmpServer *server, QmpListener *listener,
                       void *opaque)
{
    QmpEar *ear = g_new(QmpEar, 1);

    *ear = (QmpEar){ listener, opaque };
    g_ptr_array_add(server->listeners, ear);
}

void qmp_server_unlisten(QmpServer *server, QmpListener *listener,
                         void *opaque)
{
    for (guint i = 0; i < server->listeners->len; i++) {
        QmpEar *ear = g_ptr_array_index(server->listeners, i);

        if (ear->listener == listener && ear->opaque == opaque) {
            g_ptr_array_remove_index(server->listeners, i);
            return;
        }
    }
}

/* From the last to the first: a listener may take itself away. */
static void tell(const json_t *event, void *opaque)
{
    QmpServer *server = opaque;

    for (guint i = server->listeners->len; i > 0; i--) {
        QmpEar *ear = g_ptr_array_index(server->listeners, i - 1);

        ear->listener(event, ear->opaque);
    }
}

static const QmpEvent *find_event(const char *name)
{
    for (const QmpEvent *e = qmp_events; e->name; e++) {
        if (g_str_equal(e->name, name)) {
            return e;
        }
    }
    g_assert_not_reached();
}

void qmp_server_event(QmpServer *server, const char *name, json_t *data)
{
    const QmpEvent *kind = find_event(name);
    gint64 now_us = g_get_real_time();
    json_t *event = json_pack("{s:{s:I, s:I}, s:s}", "timestamp",
                              "seconds", (json_int_t)(now_us / 1000000),
                              "microseconds", (json_int_t)(now_us % 1000000),
                              "event", name);

    if (json_object_size(data) > 0) {
        json_object_set(event, "data", data);
    }
    qmp_rate_send(server->rates, block_graph_aio_context(server->graph), kind,
                  event, &(QmpRateSink){ tell, server });
    json_decref(event);
    json_decref(data);
}

void qmp_server_quit(QmpServer *server, const char *reason)
{
    if (!server->quit_reason) {
        server->quit_reason = g_strdup(reason);
    }
}

bool qmp_server_is_busy(const QmpServer *server)
{
    return server->nr_running > 0;
}

/* --- outside of coroutines ------------------------------------------------ */

int coroutine_fn qmp_co_run_outside(QmpServer *server,
                                    int (*func)(void *opaque), void *opaque)
{
    Outside call = { .func = func, .opaque = opaque,
                     .waiter = coroutine_self() };

    g_queue_push_tail(&server->outside, &call);
    coroutine_yield();
    return call.ret;
}

void qmp_server_run_outside(QmpServer *server)
{
    Outside *call;

    while ((call = g_queue_pop_head(&server->outside))) {
        call->ret = call->func(call->opaque);
        aio_co_wake(call->waiter);
    }
}
