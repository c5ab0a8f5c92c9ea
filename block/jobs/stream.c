/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream job: what a node shows of the layers below it is brought to its
 * own layer, which needs them no more.
 *
 *     parents            parents               parents
 *        |                  |                     |
 *     device (top)     copy-on-read, ours      device (top)
 *        |                  |                     |
 *      layers    ==>     device (top)     ==>     |
 *        |                  |                     |
 *      bottom             bottom                  |
 *        |                  |                     |
 *       base               base                  base
 *
 * S1  From start() to the change of the link the edges from our filter down to
 *     the bottom, and to the last filter above the base, are frozen.  The edge
 *     to the base is not, so a job below may end and change it: the base is
 *     looked up when it is needed, and held from then on.
 * S2  What was copied is durable before the image names another backing file,
 *     and before the link changes.
 * S3  Without a base, what reads as zero is not copied; so no base may have
 *     come in the end.
 */
#include "block/jobs/chain.h"

#include <errno.h>
#include <string.h>

#include "block/filters/copy-on-read.h"
#include "block/graph/graph-int.h"
#include "block/jobs/walk.h"

typedef struct StreamOptions {
    char *device;
    char *base;
    char *base_node;
    char *bottom;
    char *backing_file;
    bool mask_protocol;
    int on_error; /* BlockOnError */
    char *filter_node_name;
    int64_t max_workers;
} StreamOptions;

/* The chain.  With a reference each. */
typedef struct StreamNodes {
    BlockDriverState *device;
    BlockDriverState *top;        /* what is copied to */
    BlockDriverState *bottom;     /* the lowest that is copied from */
    BlockDriverState *above_base; /* that, or the last filter below it */
} StreamNodes;

/* A stream.  Main context. */
typedef struct StreamJob {
    BlockJob job;
    StreamOptions o;
    JobWalk walk;
    StreamNodes n;
    BlockDriverState *cor;        /* or NULL */
    BlockBackend *blk;            /* of @top, lets us copy to it; or NULL */
    BdrvWork *work;               /* of @cor; or NULL */
    bool has_base;
    bool made_writable;           /* @top was read-only */
    bool frozen;                  /* S1 */
    const char *text_format;      /* of what "backing-file" names; or NULL */
    ChainName old_name;           /* what the image said; or empty */
} StreamJob;

#define OPT(field) offsetof(StreamOptions, field)

static const BlockOption stream_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(device), .help = "node that data is brought to" },
    { .name = "base", .type = BLOCK_OPTION_STRING, .offset = OPT(base),
      .help = "node below it that stays its backing node; default: none" },
    { .name = "base-node", .type = BLOCK_OPTION_STRING,
      .offset = OPT(base_node), .help = "the same as base" },
    { .name = "bottom", .type = BLOCK_OPTION_STRING, .offset = OPT(bottom),
      .help = "the last layer that goes, in place of base" },
    { .name = "backing-file", .type = BLOCK_OPTION_STRING,
      .offset = OPT(backing_file),
      .help = "what the image records; default: the name of the base" },
    { .name = "backing-mask-protocol", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(mask_protocol),
      .help = "record 'raw' for a base that is a protocol" },
    { .name = "on-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_error),
      .help = "what to do when a copy fails" },
    { .name = "filter-node-name", .type = BLOCK_OPTION_STRING,
      .offset = OPT(filter_node_name),
      .help = "name of the copy-on-read node" },
    { .name = "max-workers", .type = BLOCK_OPTION_NUMBER,
      .def = JOB_WALK_WORKERS_DEFAULT, .min = 1, .max = JOB_WALK_WORKERS_MAX,
      .offset = OPT(max_workers), .help = "most copies at once" },
    { .type = BLOCK_OPTION_END },
};

static StreamJob *stream_of(BlockJob *job)
{
    return (StreamJob *)job;
}

static ChainNaming naming(const StreamJob *s)
{
    return (ChainNaming){ .backing_file = s->o.backing_file,
                          .format = s->text_format,
                          .mask_protocol = s->o.mask_protocol };
}

/* --- start: which nodes --------------------------------------------------- */

static int take_options(StreamJob *s, BlockOptions *options, GError **errp)
{
    int ret = job_take_options(&s->job, options, stream_options, &s->o, errp);

    if (ret == 0 && (s->o.base != NULL) + (s->o.base_node != NULL) +
                            (s->o.bottom != NULL) > 1) {
        block_options_clear(stream_options, &s->o);
        ret = block_error(errp, EINVAL, "Job '%s': only one of 'base', "
                          "'base-node' and 'bottom' can be given", s->job.id);
    }
    return ret;
}

static int check_top(StreamJob *s, GError **errp)
{
    const BlockDriver *drv = bdrv_find_driver(bdrv_driver_name(s->n.top));
    uint32_t align = bdrv_request_alignment(s->n.top);

    if (drv->kind != BLOCK_DRIVER_FORMAT) {
        return block_error(errp, ENOTSUP, "Job '%s': node '%s' (driver '%s') "
                           "has no layer of its own to copy to", s->job.id,
                           bdrv_node_name(s->n.top), drv->name);
    }
    if (bdrv_length(s->n.top) % align) {
        /* Copies are of whole blocks, so the last one would be lost. */
        return block_error(errp, EINVAL, "Job '%s': the length of node '%s' "
                           "is no multiple of %u bytes, its alignment",
                           s->job.id, bdrv_node_name(s->n.top), align);
    }
    return 0;
}

/* The last layer from @bs down to @end, a node of its chain. */
static BlockDriverState *last_layer(BlockDriverState *bs,
                                    const BlockDriverState *end)
{
    BlockDriverState *layer = bdrv_skip_filters(bs);

    for (; bs != end; bs = chain_next(bs)) {
        if (!bdrv_filter_child(chain_next(bs))) {
            layer = chain_next(bs);
        }
    }
    return layer;
}

/* The last node that goes when @base stays: filters go with the layers above
 * them, but not those of other jobs, which are about to go by themselves. */
static BlockDriverState *last_above(StreamJob *s, BlockDriverState *base)
{
    BlockDriverState *above = chain_above(s->n.top, base);

    if (above) {
        above = last_layer(s->n.top, above);
    }
    while (above && chain_next(above) != base &&
           !chain_is_held(chain_next(above))) {
        above = chain_next(above);
    }
    return above;
}

/* Find the lowest node of the chain that goes. */
static int find_above_base(StreamJob *s, GError **errp)
{
    const char *base = s->o.base ? s->o.base : s->o.base_node;
    const char *name = base ? base : s->o.bottom;
    BlockDriverState *bs;

    if (!name) {
        s->n.above_base = chain_end(s->n.device);
        return 0;
    }
    bs = job_find_node(&s->job, s->o.bottom  ? "bottom"
                                : s->o.base  ? "base"
                                             : "base-node", name, errp);
    if (!bs) {
        return -ENOENT;
    }
    if (!base && bdrv_filter_child(bs)) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' (as 'bottom') is "
                           "a filter, it holds no data", s->job.id, name);
    }
    if (base) {
        s->n.above_base = last_above(s, bs);
    } else {
        bool found = bs == s->n.top || chain_above(s->n.top, bs);

        s->n.above_base = found ? bs : NULL;
    }
    return s->n.above_base
               ? 0
               : block_error(errp, EINVAL, "Job '%s': node '%s' is not in the "
                             "chain below node '%s'", s->job.id, name,
                             s->o.device);
}

/* Takes no references: to be done again after each yield. */
static int find_nodes(StreamJob *s, GError **errp)
{
    const ChainNaming how = naming(s);
    int ret;

    s->n.device = job_find_node(&s->job, "device", s->o.device, errp);
    if (!s->n.device) {
        return -ENOENT;
    }
    s->n.top = bdrv_skip_filters(s->n.device);
    ret = check_top(s, errp);
    if (ret == 0) {
        ret = find_above_base(s, errp);
    }
    if (ret < 0) {
        return ret;
    }
    s->n.bottom = last_layer(s->n.top, s->n.above_base);
    s->has_base = chain_next(s->n.above_base) != NULL;
    return chain_check_naming(&s->job, s->n.top, chain_next(s->n.above_base),
                              &how, errp);
}

/* --- start: the graph ----------------------------------------------------- */

static int coroutine_fn insert_filter(StreamJob *s, GError **errp)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "copy-on-read");
    block_options_set_str(options, "file", bdrv_node_name(s->n.device));
    block_options_set_str(options, "bottom", bdrv_node_name(s->n.bottom));
    if (s->o.filter_node_name) {
        block_options_set_str(options, "node-name", s->o.filter_node_name);
    }
    return bdrv_co_insert_node(s->n.device, options, &s->cor, errp);
}

/* S1.  The filter holds what is above the bottom since it is there; the rest
 * may be another than when we looked. */
static int coroutine_fn hold_chain(StreamJob *s, GError **errp)
{
    BlockDriverState *device = s->n.device;
    GError *why = NULL;
    int ret = bdrv_freeze_chain(s->n.bottom, s->n.above_base, &why);

    if (ret == 0) {
        bdrv_unfreeze_chain(s->n.bottom, s->n.above_base);
        if (!chain_next(s->n.above_base) == s->has_base) {
            ret = block_error(&why, EBUSY, "Node '%s' has got another backing "
                              "node", bdrv_node_name(s->n.above_base));
        }
    }
    if (ret < 0) {
        g_propagate_prefixed_error(errp, why, "Job '%s': ", s->job.id);
        return ret;
    }
    chain_freeze(s->cor, s->n.above_base);
    s->frozen = true;
    /* A filter may have gone in between. */
    s->n.device = bdrv_ref(chain_next(s->cor));
    bdrv_co_unref(device);
    return 0;
}

/* At the top, which nobody takes another node's place of while the edge to it
 * is frozen: who reads our filter may be moved away. */
static int coroutine_fn attach(StreamJob *s, GError **errp)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ |
                               BLK_PERM_WRITE_UNCHANGED,
                       .shared = BLK_PERM_ALL };
    g_autofree char *name = g_strdup_printf("job %s", s->job.id);

    s->blk = blk_new(s->job.graph, name, &perm);
    s->work = bdrv_work_new(s->cor);
    return blk_co_insert_bs(s->blk, s->n.top, errp);
}

static void coroutine_fn detach(StreamJob *s)
{
    if (s->work) {
        bdrv_work_free(g_steal_pointer(&s->work));
    }
    blk_co_unref(g_steal_pointer(&s->blk));
}

static void thaw(StreamJob *s)
{
    if (s->frozen) {
        bdrv_unfreeze_chain(s->cor ? s->cor : s->n.device, s->n.above_base);
        s->frozen = false;
    }
}

/* Drained, the link is about to change: it is too late to cancel from here on,
 * and not before. */
static int may_set_base(void *opaque, GError **errp)
{
    StreamJob *s = opaque;

    if (chain_edge(s->n.top)->frozen > 1) {
        return block_error(errp, EBUSY, "Job '%s': somebody holds the edge "
                           "below node '%s'", s->job.id,
                           bdrv_node_name(s->n.top));
    }
    return job_txn_close(&s->job)
               ? 0
               : block_error(errp, ECANCELED, "Job '%s' was cancelled",
                             s->job.id);
}

/* The layers below the top drop out (S1). */
static int coroutine_fn set_base(StreamJob *s, BlockDriverState *base,
                                 GError **errp)
{
    BlockDriverState *old = bdrv_ref(chain_next(s->n.top));
    GError *why = NULL;
    int ret;

    /* We may wait for others inside, and then they may hold it again. */
    do {
        g_clear_error(&why);
        ret = chain_wait_below(&s->job, s->n.top)
                  ? graph_set_backing(s->n.top, base, may_set_base, s, &why)
                  : -ECANCELED;
    } while (ret == -EBUSY && chain_edge(s->n.top)->frozen > 1);
    if (ret == 0) {
        bdrv_unfreeze_chain(s->n.device, s->n.top);
        bdrv_unfreeze_chain(old, s->n.above_base);
        s->frozen = false;
    } else if (why) {
        g_propagate_error(errp, why);
    }
    bdrv_co_unref(old);
    return ret;
}

static void coroutine_fn remove_filter(StreamJob *s)
{
    detach(s);
    thaw(s);
    if (s->cor) {
        chain_drop_filter(&s->job, s->cor);
        bdrv_co_unref(g_steal_pointer(&s->cor));
    }
}

static void coroutine_fn let_go(StreamJob *s)
{
    remove_filter(s);
    if (s->made_writable) {
        chain_make_read_only(s->n.top);
    }
    bdrv_co_unref(s->n.above_base);
    bdrv_co_unref(s->n.bottom);
    bdrv_co_unref(s->n.top);
    bdrv_co_unref(s->n.device);
    chain_name_clear(&s->old_name);
    block_options_clear(stream_options, &s->o);
}

/* The nodes are referenced, but may not be what they were any more. */
static int look_again(StreamJob *s, GError **errp)
{
    const StreamNodes held = s->n;
    int ret = find_nodes(s, errp);

    if (ret == 0 && memcmp(&held, &s->n, sizeof(held)) != 0) {
        ret = block_error(errp, EBUSY, "Job '%s': the chain below node '%s' "
                          "has changed", s->job.id, s->o.device);
    }
    s->n = held;
    return ret;
}

static int coroutine_fn begin(StreamJob *s, GError **errp)
{
    int ret = chain_make_writable(s->n.top, &s->made_writable, errp);

    ret = ret < 0 ? ret : look_again(s, errp);
    ret = ret < 0 ? ret : insert_filter(s, errp);
    ret = ret < 0 ? ret : hold_chain(s, errp);
    return ret < 0 ? ret : attach(s, errp);
}

static int coroutine_fn stream_start(BlockJob *job, BlockOptions *options,
                                     GError **errp)
{
    StreamJob *s = stream_of(job);
    int ret = take_options(s, options, errp);

    if (ret < 0) {
        return ret;
    }
    ret = find_nodes(s, errp);
    if (ret < 0) {
        block_options_clear(stream_options, &s->o);
        return ret;
    }
    if (s->o.backing_file) { /* the base may be another one in the end */
        const ChainNaming how = naming(s);

        s->text_format = chain_format_for(chain_next(s->n.above_base), &how);
    }
    bdrv_ref(s->n.device);
    bdrv_ref(s->n.top);
    bdrv_ref(s->n.bottom);
    bdrv_ref(s->n.above_base);
    ret = begin(s, errp);
    if (ret < 0) {
        let_go(s);
        return ret;
    }
    job_progress_grow(job, bdrv_length(s->n.top));
    return 0;
}

/* --- the work ------------------------------------------------------------- */

/* Whether the beginning of a range that some layer below has is to be copied,
 * and how much is alike. */
static int coroutine_fn look_below(StreamJob *s, int64_t offset,
                                   int64_t *bytes)
{
    BlockExtent extent;
    int ret = bdrv_co_block_status_above(s->n.top, chain_next(s->n.above_base),
                                         offset, *bytes, &extent);

    if (ret < 0) {
        return ret;
    }
    if (!(extent.status & BDRV_BLOCK_ZERO)) {
        *bytes = job_walk_chunk(offset, extent.bytes);
        return 1;
    }
    *bytes = s->has_base ? MIN(extent.bytes, JOB_WALK_ZERO_CHUNK)
                         : extent.bytes;
    return s->has_base;                                         /* S3 */
}

static int coroutine_fn stream_find(JobWalk *walk, int64_t offset,
                                    int64_t *ret_bytes)
{
    StreamJob *s = stream_of(walk->job);
    unsigned ticket = bdrv_co_work_begin(s->work);
    int64_t left = bdrv_length(s->n.top) - offset;
    int ret = 0;

    *ret_bytes = 0;
    if (left > 0) {
        ret = bdrv_co_is_allocated_above(s->n.top, s->n.bottom, true, offset,
                                         left, ret_bytes);
    }
    if (ret > 0) {
        ret = ret == 1 ? 0 : look_below(s, offset, ret_bytes);
    }
    bdrv_work_end(s->work, ticket);
    return ret;
}

/* Below our filter: whatever comes above that swallows no copy. */
static int coroutine_fn prefetch(StreamJob *s, int64_t offset, int64_t bytes)
{
    unsigned ticket = bdrv_co_work_begin(s->work);
    int64_t n = MIN(bytes, bdrv_length(s->cor) - offset);
    int ret = n <= 0 ? 0
                     : bdrv_co_preadv(bdrv_filter_child(s->cor), offset, n,
                                      NULL, BDRV_REQ_COPY_ON_READ |
                                                BDRV_REQ_PREFETCH);

    bdrv_work_end(s->work, ticket);
    return ret;
}

/* What was found is found again: for an area of which that has failed nobody
 * knows what of it is to be copied. */
static int coroutine_fn stream_copy(JobWalk *walk, const JobArea *area,
                                    bool *ret_read)
{
    StreamJob *s = stream_of(walk->job);
    int64_t end = area->offset + area->bytes;
    int64_t offset = area->offset;
    int64_t bytes = 1;
    int ret = 0;

    *ret_read = true;
    while (ret >= 0 && offset < end && bytes > 0) {
        ret = stream_find(walk, offset, &bytes);
        bytes = MIN(bytes, end - offset);
        if (ret > 0) {
            ret = prefetch(s, offset, bytes);
            *ret_read = ret != -ENOSPC;
        }
        offset += bytes;
    }
    return MIN(ret, 0);
}

static const JobWalkMethods stream_methods = {
    .find = stream_find,
    .copy = stream_copy,
};

static int coroutine_fn flush_top(StreamJob *s)                 /* S2 */
{
    unsigned ticket = bdrv_co_work_begin(s->work);
    int ret = SIM_FAULT("stream.flush", s->job.id);

    ret = ret < 0 ? ret : bdrv_co_flush(s->n.top);
    bdrv_work_end(s->work, ticket);
    return ret;
}

static int coroutine_fn stream_run(BlockJob *job, GError **errp)
{
    StreamJob *s = stream_of(job);
    int ret;

    s->walk = (JobWalk){
        .job = job,
        .methods = &stream_methods,
        .length = bdrv_length(s->n.top),
        .max_workers = s->o.max_workers,
        .on_error = s->o.on_error,
        .skip_failed = true,
    };
    ret = job_walk(&s->walk);
    if (ret == -ECANCELED && job_is_cancelled(job)) {
        return block_error(errp, ECANCELED, "Job '%s' was cancelled", job->id);
    }
    ret = ret < 0 ? ret : s->walk.error;
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Job '%s': could not copy to "
                                 "node '%s' from the layers below it", job->id,
                                 bdrv_node_name(s->n.top));
    }
    job_progress_remaining(job, 0);
    ret = flush_top(s);
    return ret < 0 ? block_error_errno(errp, -ret, "Job '%s': could not flush "
                                       "node '%s'", job->id,
                                       bdrv_node_name(s->n.top))
                   : 0;
}

/* --- the end -------------------------------------------------------------- */

/* The base is held by @edge (NULL: there is none), the image names it. */
static int coroutine_fn change_link(StreamJob *s, BlockDriverState *base,
                                    GError **errp)
{
    bool changes = s->n.above_base != s->n.top;

    detach(s);
    if (!chain_drop_held_filter(&s->job, s->cor)) {
        return -ECANCELED;
    }
    cor_let_go(s->cor); /* its own part of the chain; we hold the whole */
    bdrv_co_unref(g_steal_pointer(&s->cor));
    SIM_POINT("stream.link", s->job.id);
    if (changes) {
        return set_base(s, base, errp);
    }
    return job_txn_close(&s->job) ? 0 : -ECANCELED;
}

/* @edge leads to the base (NULL: there is none), and is held while the image is
 * told, and until the top has such a link itself. */
static int coroutine_fn take_effect(StreamJob *s, BdrvChild *edge,
                                    GError **errp)
{
    const ChainNaming how = naming(s);
    BlockDriverState *base = edge ? bdrv_child_bs(edge) : NULL;
    int ret;

    if (edge) {
        bdrv_freeze_child(edge);
    }
    ret = chain_record_name(s->n.top, base, &how, &s->old_name, errp);
    if (edge && s->n.above_base == s->n.top) {
        /* It is that link.  Others above us may want to change it. */
        bdrv_unfreeze_child(g_steal_pointer(&edge));
    }
    ret = ret < 0 ? ret : change_link(s, base, errp);
    if (edge) {
        bdrv_unfreeze_child(edge);
    }
    return ret;
}

static int coroutine_fn stream_prepare(BlockJob *job, GError **errp)
{
    StreamJob *s = stream_of(job);
    BdrvChild *edge;
    int ret;

    drain_revert_wait(s->n.above_base); /* what we hold cannot be undone */
    edge = chain_edge(s->n.above_base);                         /* S1 */
    if (edge && !s->has_base) {                                 /* S3 */
        return block_error(errp, EBUSY, "Job '%s': node '%s' has got a backing "
                           "node meanwhile", job->id,
                           bdrv_node_name(s->n.above_base));
    }
    if (!edge && s->n.above_base == s->n.top) {
        return 0; /* it had none from the beginning */
    }
    ret = take_effect(s, edge, errp);
    if (ret == -ECANCELED && job_is_cancelled(job)) {
        g_clear_error(errp);
        block_error(errp, ECANCELED, "Job '%s' was cancelled", job->id);
    }
    if (ret < 0) {
        chain_restore_name(&s->old_name);
    }
    return ret;
}

static void coroutine_fn stream_clean(BlockJob *job)
{
    let_go(stream_of(job));
}

const JobDriver job_driver_stream = {
    .instance_size = sizeof(StreamJob),
    .type = BLOCK_JOB_STREAM,
    .options = stream_options,
    .start = stream_start,
    .run = stream_run,
    .prepare = stream_prepare,
    .clean = stream_clean,
};
