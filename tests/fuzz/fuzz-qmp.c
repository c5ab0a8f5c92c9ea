/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever a client sends, each line that comes back is a JSON object, and the
 * next command is answered.
 *
 * One graph serves all inputs; while one runs no file can be opened, so none
 * reaches the file system or the network.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "monitor/qmp-json.h"
#include "monitor/qmp-monitor.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static BlockGraph *graph;
static bool marked;     /* the last command was answered */

static void client_send(const char *text, size_t bytes, void *opaque)
{
    json_t *json = json_loadb(text, bytes, 0, NULL);

    g_assert(json_is_object(json));
    g_assert(json_object_get(json, "return") ||
             json_object_get(json, "error") ||
             json_object_get(json, "event") || json_object_get(json, "QMP"));
    if (json_object_get(json, "return") &&
        g_strcmp0(qmp_arg_str(json, "id"), "mark of the fuzzer") == 0) {
        marked = true;
    }
    json_decref(json);
}

static bool client_is_full(void *opaque)
{
    return false;
}

static void client_idle(void *opaque)
{
}

static const QmpMonitorOps client_ops = { client_send, client_is_full,
                                          client_idle };

static void turn(QmpServer *server)
{
    aio_poll(block_graph_aio_context(graph), false);
    qmp_server_run_outside(server);
}

static void say(QmpServer *server, QmpMonitor *client, const char *text,
                size_t bytes)
{
    qmp_monitor_feed(client, text, bytes);
    for (int i = 0; i < 100 || qmp_server_is_busy(server); i++) {
        turn(server);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    GError *error = NULL;

    graph = block_graph_new(NULL, &error);
    g_assert_no_error(error);
    return 0;
}

static void allow_descriptors(bool on)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = on ? limit.rlim_max : 0;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char begin[] = "{\"execute\":\"qmp_capabilities\"}";
    static const char end[] = "\xff\n{\"execute\":\"query-jobs\","
                              "\"id\":\"mark of the fuzzer\"}";
    QmpServer *server = qmp_server_new(graph);
    QmpMonitor *client = qmp_monitor_new(server, &client_ops, NULL);

    allow_descriptors(false);
    say(server, client, begin, strlen(begin));
    if (size > 0) {
        say(server, client, (const char *)data, size);
    }
    g_clear_pointer(&server->quit_reason, g_free);
    marked = false;
    say(server, client, end, strlen(end));
    g_assert(marked);
    qmp_monitor_close(client);
    block_job_cancel_all(graph);
    qmp_server_free(server);
    g_assert(block_graph_nr_nodes(graph) == 0);
    allow_descriptors(true);
    return 0;
}
