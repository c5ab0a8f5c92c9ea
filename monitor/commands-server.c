/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands about the server itself.
 */
#include "monitor/qmp-server.h"

#include <errno.h>
#include <stdio.h>

static const char *const capability_names[] = { "oob", NULL };
QMP_ENUM_TYPE(capability, "QMPCapability", capability_names);
QMP_ARRAY_TYPE(capabilities, capability);
QMP_OBJECT_TYPE(capabilities_args, "q_obj_qmp_capabilities-arg",
                QMP_MAY("enable", capabilities, "none are offered"));

static json_t *qmp_capabilities(const QmpCall *call, json_t *args,
                                GError **errp)
{
    const char *wanted = json_string_value(
        json_array_get(json_object_get(args, "enable"), 0));

    if (wanted) {
        block_error(errp, EINVAL, "Capability %s not available", wanted);
        return NULL;
    }
    call->session->negotiated = true;
    return json_object();
}

/* --- version and state ---------------------------------------------------- */

QMP_OBJECT_TYPE(version_triple, "VersionTriple",
                QMP_NEED("major", qmp_int, NULL),
                QMP_NEED("minor", qmp_int, NULL),
                QMP_NEED("micro", qmp_int, NULL));
QMP_OBJECT_TYPE(version_info, "VersionInfo",
                QMP_NEED("qemu", version_triple, NULL),
                QMP_NEED("package", qmp_str, NULL));

/* Clients look for what QEMU calls its version; the package says what it is
 * the version of. */
static json_t *query_version(const QmpCall *call, json_t *args, GError **errp)
{
    g_autofree char *package = g_strdup_printf("libblockgraph %s",
                                               block_version());
    int v[3] = { 0 };

    sscanf(block_version(), "%d.%d.%d", &v[0], &v[1], &v[2]);
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", v[0],
                     "minor", v[1], "micro", v[2], "package", package);
}

static const char *const run_state_names[] = { "running", "shutdown", NULL };
QMP_ENUM_TYPE(run_state, "RunState", run_state_names);
QMP_OBJECT_TYPE(status_info, "StatusInfo",
                QMP_NEED("running", qmp_bool, NULL),
                QMP_NEED("singlestep", qmp_bool, NULL),
                QMP_NEED("status", run_state, NULL));

static json_t *query_status(const QmpCall *call, json_t *args, GError **errp)
{
    bool over = call->server->quit_reason;

    return json_pack("{s:b, s:b, s:s}", "running", !over, "singlestep", 0,
                     "status", over ? "shutdown" : "running");
}

static json_t *quit(const QmpCall *call, json_t *args, GError **errp)
{
    qmp_server_quit(call->server, "host-qmp-quit");
    return json_object();
}

/* --- commands and schema -------------------------------------------------- */

QMP_OBJECT_TYPE(command_info, "CommandInfo", QMP_NEED("name", qmp_str, NULL));
QMP_ARRAY_TYPE(command_list, command_info);
QMP_ARRAY_TYPE(schema_list, qmp_any);

static json_t *query_commands(const QmpCall *call, json_t *args,
                              GError **errp)
{
    json_t *list = json_array();

    for (guint i = 0; i < call->server->tables->len; i++) {
        const QmpCommand *c = g_ptr_array_index(call->server->tables, i);

        for (; c->name; c++) {
            json_array_append_new(list, json_pack("{s:s}", "name", c->name));
        }
    }
    return list;
}

static json_t *query_qmp_schema(const QmpCall *call, json_t *args,
                                GError **errp)
{
    return qmp_server_schema(call->server);
}

const QmpCommand qmp_commands_server[] = {
    { "qmp_capabilities", &capabilities_args, NULL, qmp_capabilities,
      "Begin: no other command is taken before" },
    { "query-version", NULL, &version_info, query_version,
      "What runs" },
    { "query-status", NULL, &status_info, query_status,
      "Whether the daemon is about to end" },
    { "quit", NULL, NULL, quit,
      "Cancel all jobs, close all exports and nodes, and end" },
    { "query-commands", NULL, &command_list, query_commands,
      "The names of all commands" },
    { "query-qmp-schema", NULL, &schema_list, query_qmp_schema,
      "The types of the arguments and replies of all commands" },
    { .name = NULL },
};
