/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a request to its reply.
 */
#include "monitor/qmp-server.h"

#include <errno.h>

#include "monitor/qmp-json.h"

static const char *error_class(const GError *error)
{
    static const char *const names[] = {
        [QMP_ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
        [QMP_ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [QMP_ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
    };

    return error->domain == QMP_ERROR ? names[error->code] : "GenericError";
}

static int check_member(const char *key, const json_t *value, GError **errp)
{
    if (g_str_equal(key, "execute")) {
        return json_is_string(value) ? 0 : block_error(
            errp, EINVAL, "QMP input member 'execute' must be a string");
    }
    if (g_str_equal(key, "arguments")) {
        return json_is_object(value) ? 0 : block_error(
            errp, EINVAL, "QMP input member 'arguments' must be an object");
    }
    return g_str_equal(key, "id") ? 0 : block_error(
        errp, EINVAL, "QMP input member '%s' is unexpected", key);
}

static int check_request(const json_t *request, GError **errp)
{
    const char *key;
    json_t *value;

    if (!json_is_object(request)) {
        return block_error(errp, EINVAL, "QMP input must be a JSON object");
    }
    json_object_foreach((json_t *)request, key, value) {
        int ret = check_member(key, value, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return json_object_get(request, "execute") ? 0 : block_error(
        errp, EINVAL, "QMP input lacks member 'execute'");
}

/* The command that @session may give now; NULL with @errp. */
static const QmpCommand *find(QmpServer *server, const QmpSession *session,
                              const char *name, GError **errp)
{
    const QmpCommand *command = qmp_server_find(server, name);
    bool negotiation = g_str_equal(name, "qmp_capabilities");

    if (!session->negotiated && !negotiation) {
        g_set_error(errp, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND,
                    "Expecting capabilities negotiation with "
                    "'qmp_capabilities'");
        return NULL;
    }
    if (session->negotiated && negotiation) {
        g_set_error(errp, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND,
                    "Capabilities negotiation is already complete, command "
                    "ignored");
        return NULL;
    }
    if (!command) {
        g_autofree char *safe = g_strescape(name, "\"\\");

        g_set_error(errp, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND,
                    "The command %s has not been found", safe);
    }
    return command;
}

static json_t *coroutine_fn run(const QmpCall *call, const json_t *request,
                                GError **errp)
{
    const QmpCommand *command;
    json_t *args;
    json_t *ret;

    if (check_request(request, errp) < 0) {
        return NULL;
    }
    command = find(call->server, call->session,
                   qmp_arg_str(request, "execute"), errp);
    if (!command) {
        return NULL;
    }
    args = json_object_get(request, "arguments");
    args = args ? json_incref(args) : json_object();
    if (qmp_type_check(command->args ? command->args : &qmp_empty, args, NULL,
                       errp) < 0) {
        json_decref(args);
        return NULL;
    }
    ret = command->run(call, args, errp);
    json_decref(args);
    return ret;
}

json_t *coroutine_fn qmp_co_dispatch(QmpServer *server, QmpSession *session,
                                     const json_t *request, GError *error)
{
    QmpCall call = { server, server->graph, session };
    json_t *reply = json_object();
    json_t *id = json_object_get(request, "id");
    json_t *ret = NULL;

    if (!error) {
        ret = run(&call, request, &error);
        g_assert(!ret == !!error);
    }
    if (ret) {
        json_object_set_new(reply, "return", ret);
    } else {
        json_object_set_new(
            reply, "error",
            json_pack("{s:s, s:o}", "class", error_class(error), "desc",
                      qmp_json_string(error->message)));
        g_error_free(error);
    }
    if (id) {
        json_object_set(reply, "id", id);
    }
    return reply;
}
