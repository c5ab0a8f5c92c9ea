/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports and the NBD server.
 */
#include "monitor/qmp-server.h"

#include <blockgraph/export.h>
#include <errno.h>

#include "monitor/qmp-json.h"

/* --- the server ----------------------------------------------------------- */

static const char *const address_names[] = { "inet", "unix", "fd", NULL };
QMP_ENUM_TYPE(address_kind, "SocketAddressType", address_names);

/* Of each kind what stands in "data", or beside "type". */
QMP_OBJECT_TYPE(inet_address, "InetSocketAddress",
                QMP_NEED("host", qmp_str, "name or number"),
                QMP_NEED("port", qmp_str, "number"),
                QMP_MAY("to", qmp_uint16, "the last port that will do"),
                QMP_MAY("ipv4", qmp_bool, NULL),
                QMP_MAY("ipv6", qmp_bool, NULL),
                QMP_MAY("numeric", qmp_bool, NULL),
                QMP_MAY("keep-alive", qmp_bool, NULL));
QMP_OBJECT_TYPE(unix_address, "UnixSocketAddress",
                QMP_NEED("path", qmp_str, "of the socket"));
QMP_OBJECT_TYPE(fd_address, "FdSocketAddress",
                QMP_NEED("str", qmp_str, "number of the descriptor"));
QMP_OBJECT_TYPE(inet_wrapper, "InetSocketAddressWrapper",
                QMP_NEED("data", inet_address, NULL));
QMP_OBJECT_TYPE(unix_wrapper, "UnixSocketAddressWrapper",
                QMP_NEED("data", unix_address, NULL));
QMP_OBJECT_TYPE(fd_wrapper, "FdSocketAddressWrapper",
                QMP_NEED("data", fd_address, NULL));

static const QmpVariant address_variants[] = {
    { "inet", &inet_wrapper },
    { "unix", &unix_wrapper },
    { "fd", &fd_wrapper },
    { .value = NULL },
};
static const QmpField address_fields[] = {
    QMP_NEED("type", address_kind, NULL),
    { .name = NULL },
};
static const QmpType address = {
    .kind = QMP_OBJECT, .name = "SocketAddressLegacy",
    .fields = address_fields, .tag = "type", .variants = address_variants,
};

QMP_OBJECT_TYPE(start_args, "q_obj_nbd-server-start-arg",
                QMP_NEED("addr", address, "where to listen"),
                QMP_MAY("tls-creds", qmp_str, "id of the credentials"),
                QMP_MAY("tls-authz", qmp_str, "id of who decides on clients"),
                QMP_MAY("max-connections", qmp_uint32, "at once"),
                QMP_MAY("plain-text", qmp_bool,
                        "without TLS on other addresses than loopback"));

/* Without the wrapper, as the library and the command line have it. */
static void flatten_address(json_t *addr)
{
    json_t *data = json_object_get(addr, "data");

    json_object_update_missing(addr, data);
    json_object_del(addr, "data");
}

static json_t *coroutine_fn server_start(const QmpCall *call, json_t *args,
                                         GError **errp)
{
    BlockOptions *options;

    flatten_address(json_object_get(args, "addr"));
    options = qmp_arg_options(args, errp);
    return options ? qmp_done(blk_co_nbd_server_start(call->graph, options,
                                                      errp))
                   : NULL;
}

/* Whether one runs; else @errp is set. */
static bool server_runs(const QmpCall *call, GError **errp)
{
    BlockNbdServerInfo info;
    bool runs = blk_nbd_server_query(call->graph, &info);

    if (!runs) {
        block_error(errp, ENOTCONN, "NBD server not running");
    }
    return runs;
}

static json_t *coroutine_fn server_stop(const QmpCall *call, json_t *args,
                                        GError **errp)
{
    if (!server_runs(call, errp)) {
        return NULL;
    }
    blk_co_nbd_server_stop(call->graph);
    return json_object();
}

/* --- exports -------------------------------------------------------------- */

static const char *const type_names[] = { "nbd", NULL };
QMP_ENUM_TYPE(export_type, "BlockExportType", type_names);
static const char *const mode_names[] = { "safe", "hard", NULL };
QMP_ENUM_TYPE(remove_mode, "BlockExportRemoveMode", mode_names);

QMP_OBJECT_TYPE(bitmap_ref, "BlockDirtyBitmapRef",
                QMP_NEED("node", qmp_str, "that the bitmap belongs to"),
                QMP_NEED("name", qmp_str, "of the bitmap"));
static const QmpType *const bitmap_choices[] = { &qmp_str, &bitmap_ref, NULL };
static const QmpType bitmap = { .kind = QMP_ALTERNATE,
                                .name = "BlockDirtyBitmapRefOrStr",
                                .choices = bitmap_choices };
QMP_ARRAY_TYPE(bitmap_list, bitmap);
QMP_ARRAY_TYPE(name_list, qmp_str);

QMP_OBJECT_TYPE(nbd_options, "BlockExportOptionsNbd",
                QMP_MAY("name", qmp_str, "by which clients ask for it; "
                        "default: the name of the node"),
                QMP_MAY("description", qmp_str, "for people"),
                QMP_MAY("bitmap", qmp_str, "one dirty bitmap"),
                QMP_MAY("bitmaps", bitmap_list,
                        "dirty bitmaps that clients can read"),
                QMP_MAY("tls-clients", name_list,
                        "who may use it, by TLS identity"),
                QMP_MAY("allocation-depth", qmp_bool,
                        "whether clients can read it"));
static const QmpVariant export_variants[] = {
    { "nbd", &nbd_options },
    { .value = NULL },
};
static const QmpField export_fields[] = {
    QMP_NEED("type", export_type, NULL),
    QMP_NEED("id", qmp_str, "of the export"),
    QMP_NEED("node-name", qmp_str, "node that is exported"),
    QMP_MAY("writable", qmp_bool, "clients may write"),
    QMP_MAY("writethrough", qmp_bool, "flush after each write"),
    QMP_MAY("iothread", qmp_str, "id of the thread that serves it"),
    QMP_MAY("fixed-iothread", qmp_bool, NULL),
    { .name = NULL },
};
static const QmpType export_options = {
    .kind = QMP_OBJECT, .name = "BlockExportOptions", .fields = export_fields,
    .tag = "type", .variants = export_variants,
};

QMP_OBJECT_TYPE(del_args, "q_obj_block-export-del-arg",
                QMP_NEED("id", qmp_str, "of the export"),
                QMP_MAY("mode", remove_mode, "whether clients are cut off"));
QMP_OBJECT_TYPE(export_info, "BlockExportInfo",
                QMP_NEED("id", qmp_str, NULL),
                QMP_NEED("type", export_type, NULL),
                QMP_NEED("node-name", qmp_str, NULL),
                QMP_NEED("shutting-down", qmp_bool, NULL));
QMP_ARRAY_TYPE(export_list, export_info);

int coroutine_fn qmp_co_export_add(QmpServer *server, BlockOptions *options,
                                   GError **errp)
{
    char *id = g_strdup(block_options_peek_str(options, "id"));
    char *thread = g_strdup(block_options_peek_str(options, "iothread"));
    BlockExport *export = blk_co_exp_add(server->graph, options, errp);

    if (export) {
        /* query-blockstats tells them. */
        blk_set_latency_accounting(blk_exp_backend(export), true);
    }
    if (export && thread) {
        g_hash_table_insert(server->export_threads, g_steal_pointer(&id),
                            g_steal_pointer(&thread));
    }
    g_free(id);
    g_free(thread);
    return export ? 0 : -EINVAL;
}

static json_t *coroutine_fn export_add(const QmpCall *call, json_t *args,
                                       GError **errp)
{
    BlockOptions *options;

    if (!qmp_find_node(call, qmp_arg_str(args, "node-name"), errp)) {
        return NULL;
    }
    options = qmp_arg_options(args, errp);
    return options ? qmp_done(qmp_co_export_add(call->server, options, errp))
                   : NULL;
}

static int delete(const QmpCall *call, const char *id, const json_t *args,
                  GError **errp)
{
    BlockExport *export = blk_exp_find(call->graph, id);
    const char *mode = qmp_arg_str(args, "mode");
    BlockExportInfo info;

    if (!export) {
        return block_error(errp, ENOENT, "Export '%s' is not found", id);
    }
    blk_exp_query(export, &info);
    if (info.shutting_down) {
        return block_error(errp, EBUSY, "Export '%s' is already shutting down",
                           id);
    }
    return blk_exp_del(export, mode && g_str_equal(mode, "hard")
                       ? BLOCK_EXPORT_REMOVE_HARD : BLOCK_EXPORT_REMOVE_SAFE,
                       errp);
}

static json_t *export_del(const QmpCall *call, json_t *args, GError **errp)
{
    return qmp_done(delete(call, qmp_arg_str(args, "id"), args, errp));
}

static json_t *query_exports(const QmpCall *call, json_t *args,
                             GError **errp)
{
    BlockExport *export = NULL;
    json_t *list = json_array();

    while ((export = blk_exp_next(call->graph, export))) {
        BlockExportInfo info;

        blk_exp_query(export, &info);
        json_array_append_new(
            list, json_pack("{s:o, s:s, s:s, s:b}", "id",
                            qmp_json_string(info.id), "type", info.type,
                            "node-name", info.node_name, "shutting-down",
                            info.shutting_down));
    }
    return list;
}

/* --- the old commands ----------------------------------------------------- */

QMP_OBJECT_TYPE(old_add_args, "q_obj_nbd-server-add-arg",
                QMP_NEED("device", qmp_str, "node that is exported"),
                QMP_MAY("name", qmp_str, "of the export; default: the node's"),
                QMP_MAY("description", qmp_str, "for people"),
                QMP_MAY("writable", qmp_bool, "clients may write"),
                QMP_MAY("bitmap", qmp_str, "dirty bitmap for clients"));
QMP_OBJECT_TYPE(old_remove_args, "q_obj_nbd-server-remove-arg",
                QMP_NEED("name", qmp_str, "of the export"),
                QMP_MAY("mode", remove_mode, "whether clients are cut off"));

static json_t *coroutine_fn old_add(const QmpCall *call, json_t *args,
                                    GError **errp)
{
    json_t *device = json_object_get(args, "device");
    json_t *name = json_object_get(args, "name");

    if (!server_runs(call, errp)) {
        return NULL;
    }
    if (!name) {
        name = device;
        json_object_set(args, "name", device);
    }
    json_object_set_new(args, "type", json_string("nbd"));
    json_object_set(args, "id", name);
    json_object_set(args, "node-name", device);
    json_object_del(args, "device");
    return export_add(call, args, errp);
}

static json_t *old_remove(const QmpCall *call, json_t *args, GError **errp)
{
    return qmp_done(delete(call, qmp_arg_str(args, "name"), args, errp));
}

/* --- what the library asks and tells -------------------------------------- */

static void export_gone(const char *id, void *opaque)
{
    QmpServer *server = opaque;

    qmp_server_event(server, "BLOCK_EXPORT_DELETED",
                     json_pack("{s:o}", "id", qmp_json_string(id)));
    g_hash_table_remove(server->export_threads, id);
}

static void export_failed(const BlockExportErrorEvent *event, void *opaque)
{
    json_t *data = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:o}", "device", "", "node-name",
        event->node_name, "operation", event->is_read ? "read" : "write",
        "action", "report", "nospace", event->error == ENOSPC, "reason",
        qmp_json_string(g_strerror(event->error)));

    qmp_server_event(opaque, "BLOCK_IO_ERROR", data);
}

static AioContext *find_thread(const char *id, void *opaque)
{
    QmpServer *server = opaque;
    IOThread *thread = qmp_objects_iothread(server->objects, id);

    return thread ? iothread_get_aio_context(thread) : NULL;
}

static bool uses_thread(const char *id, void *opaque)
{
    QmpServer *server = opaque;
    GHashTableIter iter;
    gpointer thread;

    g_hash_table_iter_init(&iter, server->export_threads);
    while (g_hash_table_iter_next(&iter, NULL, &thread)) {
        if (g_str_equal(thread, id)) {
            return true;
        }
    }
    return false;
}

void qmp_exports_begin(QmpServer *server)
{
    server->export_threads = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                   g_free, g_free);
    blk_exp_add_listener(server->graph, export_gone, server);
    blk_exp_set_error_listener(server->graph, export_failed, server);
    blk_exp_set_iothread_finder(server->graph, find_thread, server);
    qmp_objects_set_thread_user(server->objects, uses_thread, server);
}

void qmp_exports_end(QmpServer *server)
{
    blk_nbd_server_stop(server->graph);
    blk_exp_close_all(server->graph);
    blk_exp_set_iothread_finder(server->graph, NULL, NULL);
    blk_exp_set_error_listener(server->graph, NULL, NULL);
    blk_exp_remove_listener(server->graph, export_gone, server);
    g_hash_table_unref(server->export_threads);
}

const QmpCommand qmp_commands_export[] = {
    { "nbd-server-start", &start_args, NULL, server_start,
      "Listen for NBD clients" },
    { "nbd-server-stop", NULL, NULL, server_stop,
      "Cut off all clients and close the exports of the NBD server" },
    { "nbd-server-add", &old_add_args, NULL, old_add,
      "Export a node; the old form of block-export-add" },
    { "nbd-server-remove", &old_remove_args, NULL, old_remove,
      "Close an export; the old form of block-export-del" },
    { "block-export-add", &export_options, NULL, export_add,
      "Export a node" },
    { "block-export-del", &del_args, NULL, export_del,
      "Begin to close an export; BLOCK_EXPORT_DELETED tells the end" },
    { "query-block-exports", NULL, &export_list, query_exports,
      "All exports" },
    { .name = NULL },
};
