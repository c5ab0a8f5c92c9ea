/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The registry of exports: add, find, close, tell.
 */
#include "block/export/export.h"

#include "block/graph/graph-int.h"

#include <errno.h>
#include <string.h>

#define EXPORT_ID_MAX 63

const char *const block_export_remove_mode_names[] = { "safe", "hard", NULL };

typedef struct ExportListener {
    BlockExportListener *listener;
    void *opaque;
    ListHead link;
} ExportListener;

struct BlockExports {
    /* Main context. */
    ListHead list;              /* BlockExport.link, by age */
    ListHead listeners;         /* ExportListener.link */
    CoQueue closed;             /* who waits for exports to go */
    BlockIOThreadFinder *find_iothread;
    void *find_opaque;
    BlockExportErrorListener *error_listener;
    void *error_opaque;
    struct NbdServer *nbd_server;
    uint64_t next_number;
};

static const BlockExportDriver *const drivers[] = { &nbd_export_driver };

/* The graph goes. */
static void exports_free(void *opaque)
{
    BlockExports *exports = opaque;

    g_assert(list_empty(&exports->list) && list_empty(&exports->listeners) &&
             !exports->nbd_server);
    g_free(exports);
}

static BlockExports *exports_of(BlockGraph *graph)
{
    if (!graph->exports) {
        BlockExports *exports = g_new0(BlockExports, 1);

        list_init(&exports->list);
        list_init(&exports->listeners);
        co_queue_init(&exports->closed);
        graph->exports = exports;
        graph->free_exports = exports_free;
    }
    return graph->exports;
}

struct NbdServer **export_nbd_server(BlockGraph *graph)
{
    return &exports_of(graph)->nbd_server;
}

void blk_exp_set_iothread_finder(BlockGraph *graph, BlockIOThreadFinder *find,
                                 void *opaque)
{
    exports_of(graph)->find_iothread = find;
    exports_of(graph)->find_opaque = opaque;
}

/* --- looking ------------------------------------------------------------- */

BlockExport *blk_exp_next(BlockGraph *graph, BlockExport *exp)
{
    ListHead *list = &exports_of(graph)->list;
    ListHead *link = exp ? exp->link.next : list->next;

    return link == list ? NULL : LIST_ENTRY(link, BlockExport, link);
}

BlockExport *blk_exp_find(BlockGraph *graph, const char *id)
{
    BlockExport *exp = NULL;

    while ((exp = blk_exp_next(graph, exp))) {
        if (g_str_equal(exp->id, id)) {
            break;
        }
    }
    return exp;
}

void blk_exp_query(BlockExport *exp, BlockExportInfo *info)
{
    BlockDriverState *bs = blk_bs(exp->blk);

    *info = (BlockExportInfo) {
        .id = exp->id,
        .type = exp->drv->type,
        .node_name = bs ? bdrv_node_name(bs) : exp->node_name,
        .name = exp->drv->client_name(exp),
        .writable = exp->writable,
        .shutting_down = exp->shutting_down,
        .nr_clients = exp->drv->nr_clients(exp),
    };
}

BlockBackend *blk_exp_backend(BlockExport *exp)
{
    return exp->blk;
}

/* --- requests that fail -------------------------------------------------- */

static void tell_error(BlockExport *exp, bool is_read, int error)
{
    BlockExports *exports = exports_of(exp->graph);
    BlockDriverState *bs = blk_bs(exp->blk);
    const BlockExportErrorEvent event = {
        .id = exp->id,
        .node_name = bs ? bdrv_node_name(bs) : exp->node_name,
        .is_read = is_read,
        .error = error,
    };

    if (exports->error_listener) {
        exports->error_listener(&event, exports->error_opaque);
    }
}

static void tell_errors(void *opaque)
{
    BlockExport *exp = opaque;

    for (int i = 0; i < 2; i++) {
        int error = atomic_exchange(&exp->failed[i], 0);

        if (error) {
            tell_error(exp, i == 0, error);
        }
    }
}

/* In the thread of the request, which is still counted: so @exp stays. */
static void request_failed(const BlockErrorEvent *event, void *opaque)
{
    BlockExport *exp = opaque;

    if (event->type == BLOCK_ACCT_ZERO && event->error == ENOTSUP) {
        return; /* zeroes were wanted only if they are fast: no failure */
    }
    atomic_store(&exp->failed[event->type != BLOCK_ACCT_READ], event->error);
    aio_bh_schedule(exp->error_bh);
}

static void watch_errors(BlockExport *exp)
{
    exp->error_bh = aio_bh_new(block_graph_aio_context(exp->graph),
                               tell_errors, exp);
    blk_set_on_error(exp->blk, BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_REPORT,
                     request_failed, exp);
}

void blk_exp_set_error_listener(BlockGraph *graph,
                                BlockExportErrorListener *listener,
                                void *opaque)
{
    exports_of(graph)->error_listener = listener;
    exports_of(graph)->error_opaque = opaque;
}

/* --- coming -------------------------------------------------------------- */

typedef struct ExportOptions {
    char *type, *id, *node_name, *iothread;
    bool writable, writethrough, fixed_iothread;
} ExportOptions;

static const BlockOption export_options[] = {
    { "type", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(ExportOptions, type), .help = "type of the export" },
    { "id", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(ExportOptions, id), .help = "name of the export" },
    { "node-name", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(ExportOptions, node_name),
      .help = "node to be exported" },
    { "writable", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(ExportOptions, writable),
      .help = "whether clients may write" },
    { "writethrough", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(ExportOptions, writethrough),
      .help = "flush after each write" },
    { "iothread", BLOCK_OPTION_STRING,
      .offset = offsetof(ExportOptions, iothread),
      .help = "thread that serves the clients (default: the main one)" },
    { "fixed-iothread", BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(ExportOptions, fixed_iothread),
      .help = "accepted; a thread never changes" },
    { NULL },
};

static bool id_is_good(const char *id)
{
    size_t len = strlen(id);

    if (len < 1 || len > EXPORT_ID_MAX || !g_ascii_isalpha(*id)) {
        return false;
    }
    return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789-._") == len;
}

static const BlockExportDriver *find_driver(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (g_str_equal(drivers[i]->type, type)) {
            return drivers[i];
        }
    }
    return NULL;
}

/* The context that @o names; it is NULL with @errp set. */
static AioContext *find_context(BlockGraph *graph, const ExportOptions *o,
                                GError **errp)
{
    BlockExports *exports = exports_of(graph);
    AioContext *ctx = NULL;

    if (!o->iothread) {
        return block_graph_aio_context(graph);
    }
    if (exports->find_iothread) {
        ctx = exports->find_iothread(o->iothread, exports->find_opaque);
    }
    if (!ctx) {
        block_error(errp, ENOENT, "There is no iothread '%s'", o->iothread);
    }
    return ctx;
}

/* The backend by which the export @o uses its node. */
static BlockBackend *coroutine_fn open_backend(BlockGraph *graph,
                                               const ExportOptions *o,
                                               GError **errp)
{
    const BlockPerm perm = {
        .used = BLK_PERM_CONSISTENT_READ | (o->writable ? BLK_PERM_WRITE : 0),
        /* Clients know the length from the start. */
        .shared = BLK_PERM_ALL & ~(uint64_t)BLK_PERM_RESIZE,
    };
    BlockDriverState *bs = bdrv_find_node(graph, o->node_name);
    g_autofree char *name = g_strdup_printf("export %s", o->id);
    BlockBackend *blk;

    if (!bs) {
        block_error(errp, ENOENT, "Cannot find node '%s'", o->node_name);
        return NULL;
    }
    if (o->writable && bdrv_is_read_only(bs)) {
        block_error(errp, EACCES, "Cannot export node '%s' as writable: it is "
                    "read-only", o->node_name);
        return NULL;
    }
    blk = blk_new(graph, name, &perm);
    if (blk_co_insert_bs(blk, bs, errp) < 0) {
        blk_co_unref(blk);
        return NULL;
    }
    blk_set_write_through(blk, o->writethrough);
    return blk;
}

static BlockExport *coroutine_fn create(BlockGraph *graph,
                                        const ExportOptions *o,
                                        BlockOptions *options, GError **errp)
{
    const BlockExportDriver *drv = find_driver(o->type);
    BlockExport *exp;
    AioContext *ctx;
    BlockBackend *blk;

    if (!drv) {
        block_error(errp, EINVAL, "Unknown type of export '%s'", o->type);
        return NULL;
    }
    if (!id_is_good(o->id)) {
        block_error(errp, EINVAL, "Invalid block export id '%s'", o->id);
        return NULL;
    }
    blk = open_backend(graph, o, errp);
    /* That may have waited, and nobody keeps a thread for an export that is not
     * in the list; from here on nothing waits. */
    ctx = blk ? find_context(graph, o, errp) : NULL;
    if (!ctx) {
        blk_co_unref(blk);
        return NULL;
    }
    exp = g_malloc0(drv->instance_size);
    exp->drv = drv;
    exp->graph = graph;
    exp->id = g_strdup(o->id);
    exp->node_name = g_strdup(o->node_name);
    exp->writable = o->writable;
    exp->blk = blk;
    exp->ctx = ctx;
    exp->number = exports_of(graph)->next_number++;
    exp->refs = 1;
    list_init(&exp->link);
    watch_errors(exp);
    /* Others may have added one while we waited. */
    if (blk_exp_find(graph, o->id)) {
        block_error(errp, EEXIST, "Block export id '%s' is already in use",
                    o->id);
    } else if (drv->exp_create(exp, options, errp) == 0) {
        list_append(&exports_of(graph)->list, &exp->link);
        return exp;
    }
    export_co_unref(exp);
    return NULL;
}

BlockExport *coroutine_fn blk_co_exp_add(BlockGraph *graph,
                                         BlockOptions *options, GError **errp)
{
    g_autoptr(BlockOptions) taken = options;
    BlockExport *exp = NULL;
    ExportOptions o = { 0 };

    if (block_options_absorb(taken, export_options, &o, "Block export",
                             errp) == 0) {
        exp = create(graph, &o, taken, errp);
        block_options_clear(export_options, &o);
    }
    return exp;
}

/* --- going --------------------------------------------------------------- */

static void tell_listeners(BlockExports *exports, const char *id)
{
    LIST_FOREACH_SAFE(link, &exports->listeners) {
        ExportListener *l = LIST_ENTRY(link, ExportListener, link);

        l->listener(id, l->opaque);
    }
}

void export_ref(BlockExport *exp)
{
    g_assert(exp->refs > 0);
    exp->refs++;
}

void coroutine_fn export_co_unref(BlockExport *exp)
{
    BlockExports *exports = exports_of(exp->graph);

    if (--exp->refs > 0) {
        return;
    }
    /* Its clients have gone, so no request is left that could fail. */
    tell_errors(exp);
    aio_bh_delete(exp->error_bh);
    exp->drv->exp_free(exp);
    blk_co_unref(exp->blk);
    if (!list_empty(&exp->link)) {
        list_remove(&exp->link);
        tell_listeners(exports, exp->id);
        co_queue_restart_all(&exports->closed);
    }
    g_free(exp->id);
    g_free(exp->node_name);
    g_free(exp);
}

static void coroutine_fn drop_entry(void *opaque)
{
    export_co_unref(opaque);
}

int blk_exp_del(BlockExport *exp, BlockExportRemoveMode mode, GError **errp)
{
    if (mode == BLOCK_EXPORT_REMOVE_SAFE && exp->drv->nr_clients(exp) > 0) {
        return block_error(errp, EBUSY, "Block export '%s' is in use by "
                           "clients", exp->id);
    }
    if (!exp->shutting_down) {                                  /* E1 */
        exp->shutting_down = true;
        exp->drv->cut_off(exp);
        aio_co_enter(block_graph_aio_context(exp->graph),
                     coroutine_create(drop_entry, exp));
    }
    return 0;
}

static bool close_some(BlockGraph *graph, const char *type)
{
    BlockExport *exp = NULL;
    bool any = false;

    while ((exp = blk_exp_next(graph, exp))) {
        if (!type || g_str_equal(exp->drv->type, type)) {
            any = true;
            if (!exp->shutting_down) {
                blk_exp_del(exp, BLOCK_EXPORT_REMOVE_HARD, NULL);
                return true;    /* the list may be another now */
            }
        }
    }
    return any;
}

static bool all_shut(BlockGraph *graph, const char *type)
{
    BlockExport *exp = NULL;

    while ((exp = blk_exp_next(graph, exp))) {
        if (!exp->shutting_down &&
            (!type || g_str_equal(exp->drv->type, type))) {
            return false;
        }
    }
    return true;
}

void coroutine_fn export_co_close_type(BlockGraph *graph, const char *type)
{
    while (close_some(graph, type)) {
        if (all_shut(graph, type)) {
            co_queue_wait(&exports_of(graph)->closed, NULL);
        }
    }
}

void coroutine_fn blk_co_exp_close_all(BlockGraph *graph)
{
    export_co_close_type(graph, NULL);
}

/* --- listeners ----------------------------------------------------------- */

void blk_exp_add_listener(BlockGraph *graph, BlockExportListener *listener,
                          void *opaque)
{
    ExportListener *l = g_new0(ExportListener, 1);

    l->listener = listener;
    l->opaque = opaque;
    list_append(&exports_of(graph)->listeners, &l->link);
}

void blk_exp_remove_listener(BlockGraph *graph, BlockExportListener *listener,
                             void *opaque)
{
    LIST_FOREACH_SAFE(link, &exports_of(graph)->listeners) {
        ExportListener *l = LIST_ENTRY(link, ExportListener, link);

        if (l->listener == listener && l->opaque == opaque) {
            list_remove(&l->link);
            g_free(l);
        }
    }
}

/* --- outside coroutines -------------------------------------------------- */

typedef struct ExportCall {
    BlockGraph *graph;
    BlockOptions *options;
    BlockExport *exp;
    GError **errp;
} ExportCall;

static int coroutine_fn add_entry(void *opaque)
{
    ExportCall *call = opaque;

    call->exp = blk_co_exp_add(call->graph, call->options, call->errp);
    return 0;
}

BlockExport *blk_exp_add(BlockGraph *graph, BlockOptions *options,
                         GError **errp)
{
    ExportCall call = { .graph = graph, .options = options, .errp = errp };

    aio_co_run(block_graph_aio_context(graph), add_entry, &call);
    return call.exp;
}

static int coroutine_fn close_all_entry(void *opaque)
{
    blk_co_exp_close_all(opaque);
    return 0;
}

void blk_exp_close_all(BlockGraph *graph)
{
    aio_co_run(block_graph_aio_context(graph), close_all_entry, graph);
}
