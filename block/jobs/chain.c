/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What jobs do with chains of backing files.
 */
#include "block/jobs/chain.h"

#include <errno.h>

#include "block/graph/graph-int.h"

#define RETRY_NS (INT64_C(10) * 1000 * 1000)

/* --- along ---------------------------------------------------------------- */

BdrvChild *chain_edge(BlockDriverState *bs)
{
    BdrvChild *filtered = bdrv_filter_child(bs);

    return filtered ? filtered : bdrv_cow_child(bs);
}

BlockDriverState *chain_next(BlockDriverState *bs)
{
    BdrvChild *edge = chain_edge(bs);

    return edge ? bdrv_child_bs(edge) : NULL;
}

BlockDriverState *chain_above(BlockDriverState *bs, BlockDriverState *below)
{
    while (bs && chain_next(bs) != below) {
        bs = chain_next(bs);
    }
    return bs;
}

BlockDriverState *chain_end(BlockDriverState *bs)
{
    return chain_above(bs, NULL);
}

bool chain_is_held(BlockDriverState *bs)
{
    return edge_check_thawed(chain_edge(bs), NULL) < 0;
}

void chain_freeze(BlockDriverState *bs, BlockDriverState *base)
{
    for (; bs != base; bs = chain_next(bs)) {
        bdrv_freeze_child(chain_edge(bs));
    }
}

bool coroutine_fn chain_wait_below(BlockJob *job, BlockDriverState *bs)
{
    while (chain_edge(bs)->frozen > 1 && !job_is_cancelled(job)) {
        SIM_WAITS("who holds the edge below a node", job->id);
        co_sleep_ns(RETRY_NS);
    }
    return !job_is_cancelled(job);
}

bool chain_is_held_above(BlockDriverState *bs)
{
    LIST_FOREACH(link, &bs->parents) {
        if (edge_check_thawed(LIST_ENTRY(link, BdrvChild, node_link),
                              NULL) < 0) {
            return true;
        }
    }
    return false;
}

bool coroutine_fn chain_wait_above(BlockJob *job, BlockDriverState *bs)
{
    while (chain_is_held_above(bs) && !job_is_cancelled(job)) {
        SIM_WAITS("who holds the edge above a filter", job->id);
        co_sleep_ns(RETRY_NS);
    }
    return !job_is_cancelled(job);
}

/* --- writable or not ------------------------------------------------------ */

static int coroutine_fn set_read_only(BlockDriverState *bs, bool read_only,
                                      GError **errp)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(bdrv_graph(bs));
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "read-only", read_only ? "on" : "off");
    bdrv_reopen_queue_add(queue, bs, options, true);
    return bdrv_co_reopen_multiple(queue, errp);
}

int coroutine_fn chain_make_writable(BlockDriverState *bs, bool *ret_changed,
                                     GError **errp)
{
    int ret;

    *ret_changed = false;
    if (!bdrv_is_read_only(bs)) {
        return 0;
    }
    ret = set_read_only(bs, false, errp);
    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(bs)) { /* auto-read-only */
        return block_error(errp, EACCES, "Node '%s' is read-only, and cannot "
                           "be opened for writing", bdrv_node_name(bs));
    }
    *ret_changed = true;
    return 0;
}

void coroutine_fn chain_make_read_only(BlockDriverState *bs)
{
    g_autoptr(GError) error = NULL;

    if (set_read_only(bs, true, &error) < 0) {
        g_warning("Node '%s' stays open for writing: %s", bdrv_node_name(bs),
                  error->message);
    }
}

/* The job is over for all others: its user can do something about that. */
static void be_held_up(BlockJob *job, BlockDriverState *filter,
                       const GError *why)
{
    if (!job->held_up) {
        g_warning("Job '%s': node '%s' stays until it can go: %s", job->id,
                  bdrv_node_name(filter), why->message);
        job->held_up = true;
        co_queue_restart_all(&job->changed);
    }
}

void coroutine_fn chain_drop_filter(BlockJob *job, BlockDriverState *filter)
{
    const AioContext *ctx = block_graph_aio_context(job->graph);
    int64_t end_ns = aio_clock_ns(ctx) + JOB_GRACE_NS;

    while (bdrv_filter_child(filter)) {
        g_autoptr(GError) why = NULL;

        if (bdrv_co_drop_filter(filter, &why) == 0) {
            break;
        }
        if (aio_clock_ns(ctx) >= end_ns) {
            be_held_up(job, filter, why);
        }
        SIM_WAITS("who holds the edge above a filter", job->id);
        co_sleep_ns(RETRY_NS);
    }
}

bool coroutine_fn chain_drop_held_filter(BlockJob *job,
                                         BlockDriverState *filter)
{
    while (graph_drop_filter(filter, true, NULL) < 0) {
        if (job_is_cancelled(job)) {
            return false;
        }
        SIM_WAITS("who holds the edge above a filter", job->id);
        co_sleep_ns(RETRY_NS);
    }
    return true;
}

static void coroutine_fn drop_entry(void *opaque)
{
    BlockDriverState *filter = opaque;
    BlockGraph *graph = bdrv_graph(filter);

    while (bdrv_filter_child(filter) &&
           bdrv_co_drop_filter(filter, NULL) < 0) {
        co_sleep_ns(RETRY_NS);
    }
    bdrv_co_unref(filter);
    graph->nr_tear_downs--;
}

void coroutine_fn chain_drop_failed_filter(BlockJob *job,
                                           BlockDriverState *filter)
{
    if (bdrv_co_drop_filter(filter, NULL) == 0) {
        bdrv_co_unref(filter);
    } else {
        /* Not here: who holds it may need the nodes that are drained. */
        job->graph->nr_tear_downs++;
        aio_co_schedule(block_graph_aio_context(job->graph),
                        coroutine_create(drop_entry, filter));
    }
}

/* --- names ---------------------------------------------------------------- */

static void free_texts(ChainName *name)
{
    g_free(name->file);
    g_free(name->format);
    g_free(name->new_file);
    g_free(name->new_format);
}

void coroutine_fn chain_name_clear(ChainName *name)
{
    BlockDriverState *bs = name->bs;

    free_texts(name);
    *name = (ChainName){ 0 };
    bdrv_co_unref(bs);
}

/* Fill @ret with what the image says now; false: it keeps no such name. */
static bool recorded_name(BlockDriverState *bs, ChainName *ret)
{
    *ret = (ChainName){ 0 };
    if (bdrv_get_backing_name(bs, &ret->file, &ret->format) < 0) {
        return false;
    }
    ret->bs = bdrv_ref(bs);
    return true;
}

/* The name of the file that holds @bs, or NULL: an image cannot name anything
 * else. */
static const char *file_name(BlockDriverState *bs)
{
    while (bdrv_primary_child(bs)) {
        bs = bdrv_child_bs(bdrv_primary_child(bs));
    }
    return g_str_equal(bdrv_driver_name(bs), "file") ? bdrv_filename(bs)
                                                     : NULL;
}

/*
 * The name of the file of @base for the image of @bs.  Absolute, as it is seen
 * from where that lies and not from where we run; but if the image and what it
 * names lie in one directory, and it did not name that, then @base neither.
 */
static char *name_for(BlockDriverState *bs, BlockDriverState *base,
                      const char *old_name)
{
    g_autofree char *image = g_canonicalize_filename(bdrv_filename(bs), NULL);
    g_autofree char *file = g_canonicalize_filename(file_name(base), NULL);
    g_autofree char *image_directory = g_path_get_dirname(image);
    g_autofree char *directory = g_path_get_dirname(file);
    g_autofree char *basename = g_path_get_basename(file);

    if (old_name && !strchr(old_name, '/') && !strchr(basename, ':') &&
        g_str_equal(image_directory, directory)) {
        return g_steal_pointer(&basename);
    }
    return g_steal_pointer(&file);
}

const char *chain_format_for(BlockDriverState *base, const ChainNaming *how)
{
    const char *name = bdrv_driver_name(bdrv_skip_filters(base));
    const BlockDriver *drv = bdrv_find_driver(name);

    return how->mask_protocol && drv->kind == BLOCK_DRIVER_PROTOCOL ? "raw"
                                                                    : name;
}

static int no_name_for(BlockDriverState *bs, BlockDriverState *base,
                       GError **errp)
{
    return block_error(errp, EINVAL, "Node '%s' has no file name that node "
                       "'%s' could record; give 'backing-file'",
                       bdrv_node_name(base), bdrv_node_name(bs));
}

static int coroutine_fn write_name(BlockDriverState *bs, const char *file,
                                   const char *format, GError **errp)
{
    for (;;) {
        GError *error = NULL;
        bool made_writable, was_closed;
        int ret = chain_make_writable(bs, &made_writable, errp);

        if (ret < 0) {
            return ret;
        }
        ret = bdrv_co_change_backing_file(bs, file, file ? format : NULL,
                                          &error);
        /* By another job, which had opened it for its own name; both may have
         * found it read-only. */
        was_closed = ret < 0 && bdrv_is_read_only(bs);
        if (made_writable && !was_closed) {
            chain_make_read_only(bs);
        }
        if (!was_closed) {
            if (ret < 0) {
                g_propagate_error(errp, error);
            }
            return ret;
        }
        g_clear_error(&error);
    }
}

/* Fill @ret->new_file and new_format with what is to stand there in place of
 * the name in @ret. */
static int find_new_name(BlockDriverState *base, const ChainNaming *how,
                         ChainName *ret, GError **errp)
{
    if (!base) {
        return 0;
    }
    base = bdrv_skip_filters(base);
    ret->new_file = how->backing_file ? g_strdup(how->backing_file)
                    : file_name(base) ? name_for(ret->bs, base, ret->file)
                                      : NULL;
    if (!ret->new_file && ret->file) {
        /* It may have come since the job looked.  Without a name the image
         * would stand for itself. */
        return no_name_for(ret->bs, base, errp);
    }
    ret->new_format = !ret->new_file ? NULL
                      : g_strdup(how->format ? how->format
                                             : chain_format_for(base, how));
    return 0;
}

static bool same_name(const char *file, const char *format,
                      const char *other_file, const char *other_format)
{
    return g_strcmp0(file, other_file) == 0 &&
           (!file || g_strcmp0(format, other_format) == 0);
}

static bool is_new_name(const ChainName *name)
{
    return same_name(name->file, name->format, name->new_file,
                     name->new_format);
}

/* Whether the format takes the name that @name has found. */
static int check_with_driver(const ChainName *name, GError **errp)
{
    const BlockDriver *drv = name->bs->drv;

    return drv->check_backing_file && !is_new_name(name)
               ? drv->check_backing_file(name->bs, name->new_file,
                                         name->new_format, errp)
               : 0;
}

int chain_check_naming(BlockJob *job, BlockDriverState *bs,
                       BlockDriverState *base, const ChainNaming *how,
                       GError **errp)
{
    ChainName name = { .bs = bs }; /* of the caller */
    int ret = 0;

    if (how->backing_file && !base) {
        return block_error(errp, EINVAL, "Job '%s': no backing file is left to "
                           "be recorded, so 'backing-file' is not allowed",
                           job->id);
    }
    if (bdrv_get_backing_name(bs, &name.file, &name.format) == 0) {
        ret = find_new_name(base, how, &name, errp);
        ret = ret < 0 ? ret : check_with_driver(&name, errp);
        if (ret < 0) {
            g_prefix_error(errp, "Job '%s': ", job->id);
        }
    } else if (how->backing_file) {
        ret = block_error(errp, ENOTSUP, "Job '%s': driver '%s' of node '%s' "
                          "records no backing file", job->id,
                          bdrv_driver_name(bs), bdrv_node_name(bs));
    }
    free_texts(&name);
    return ret;
}

bool chain_is_named(BlockDriverState *bs, BlockDriverState *base,
                    const ChainNaming *how)
{
    ChainName name = { .bs = bs }; /* of the caller */
    bool ret = true;

    if (bdrv_get_backing_name(bs, &name.file, &name.format) == 0) {
        ret = find_new_name(base, how, &name, NULL) == 0 && is_new_name(&name);
    }
    free_texts(&name);
    return ret;
}

int coroutine_fn chain_record_name(BlockDriverState *bs,
                                   BlockDriverState *base,
                                   const ChainNaming *how, ChainName *ret_old,
                                   GError **errp)
{
    bool changes;
    int ret;

    if (!recorded_name(bs, ret_old)) {
        return 0;
    }
    ret = find_new_name(base, how, ret_old, errp);
    changes = ret == 0 && !is_new_name(ret_old);
    if (changes) {
        ret = write_name(bs, ret_old->new_file, ret_old->new_format, errp);
    }
    if (ret < 0 || !changes) {
        chain_name_clear(ret_old);
    }
    return ret;
}

/* Nobody has written another one since. */
static bool still_says_new(const ChainName *name)
{
    g_autofree char *file = NULL;
    g_autofree char *format = NULL;

    return bdrv_get_backing_name(name->bs, &file, &format) == 0 &&
           same_name(file, format, name->new_file, name->new_format);
}

void coroutine_fn chain_restore_name(ChainName *old)
{
    g_autoptr(GError) error = NULL;

    if (old->bs && still_says_new(old) &&
        write_name(old->bs, old->file, old->format, &error) < 0) {
        g_warning("Node '%s' names another backing file now than before: %s",
                  bdrv_node_name(old->bs), error->message);
    }
    chain_name_clear(old);
}
