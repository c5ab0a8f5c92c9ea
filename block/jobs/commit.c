/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commit job: what the layers from "top" down to "base" hold is brought to
 * the base, which takes their place.
 *
 *     overlay                overlay               overlay
 *        |                      |                     |
 *       top              commit-top, ours             |
 *        |                      |                     |
 *      layers       ==>        top         ==>        |
 *        |                      |                     |
 *        |                    layers                  |
 *        |                      |                     |
 *       base                   base                  base
 *
 * C1  What the layers hold hides what is below it, so who reads through top
 *     sees the same before, while and after it is written to the base.
 * C2  Nobody but us writes to any node from top down to the base: our backends
 *     do not share that.  The layer above the base does not want its backing
 *     node to be written either; that edge is unguarded for our time.
 * C3  The edges from our filter down to the base are frozen until it has been
 *     put in the place of the filter.
 * C4  The base is durable before an image names it, and before it is put there.
 *     So the content is right whichever name the images of overlays have.
 */
#include "block/jobs/commit.h"

#include <errno.h>

#include "block/backend/backend-int.h"
#include "block/jobs/walk.h"

/* The chain.  With a reference each. */
typedef struct CommitNodes {
    BlockDriverState *device;
    BlockDriverState *top;
    BlockDriverState *base;
    BlockDriverState *above_base; /* whose edge leads to it */
} CommitNodes;

/* A commit.  Main context. */
typedef struct CommitJob {
    BlockJob job;
    CommitOptions o;
    JobWalk walk;
    CommitNodes n;
    BlockDriverState *filter; /* or NULL */
    BlockBackend *from;       /* of the top; or NULL */
    BlockBackend *to;         /* of the base; or NULL */
    BdrvWork *work;           /* of @filter; or NULL */
    bool made_writable;       /* the base was read-only */
    bool frozen;              /* C2, C3 */
    bool no_copy_range;       /* it has failed */
    bool gave_way;            /* to those who come to the base */
    int64_t grown_from;       /* the length of the base before; -1: as it is */
    GArray *old_names;        /* ChainName: what images above said */
    SpareBuffers buffers;     /* each for a chunk of the walk */
} CommitJob;

_Static_assert(JOB_WALK_CHUNK <= SPARE_BUFFER_BYTES, "a buffer is a chunk");

/* So often another job can have changed what images name; then it is none, but
 * a driver that does not keep what it is told. */
#define ROUNDS_MAX 100

#define OPT(field) offsetof(CommitOptions, field)

const BlockOption commit_options[] = {
    { .name = "device", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(device), .help = "node at the upper end of the chain" },
    { .name = "top", .type = BLOCK_OPTION_STRING, .offset = OPT(top),
      .help = "highest layer that is committed; default: device" },
    { .name = "base", .type = BLOCK_OPTION_STRING, .offset = OPT(base),
      .help = "layer that it is written to; default: the lowest" },
    { .name = "backing-file", .type = BLOCK_OPTION_STRING,
      .offset = OPT(backing_file),
      .help = "what images above record; default: the name of the base" },
    { .name = "backing-mask-protocol", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(mask_protocol),
      .help = "record 'raw' for a base that is a protocol" },
    { .name = "on-error", .type = BLOCK_OPTION_ENUM, .def = "report",
      .values = job_on_error_names, .offset = OPT(on_error),
      .help = "what to do when a copy fails" },
    { .name = "filter-node-name", .type = BLOCK_OPTION_STRING,
      .offset = OPT(filter_node_name), .help = "name of the commit-top node" },
    { .name = "max-workers", .type = BLOCK_OPTION_NUMBER,
      .def = JOB_WALK_WORKERS_DEFAULT, .min = 1, .max = JOB_WALK_WORKERS_MAX,
      .offset = OPT(max_workers), .help = "most copies at once" },
    { .type = BLOCK_OPTION_END },
};

static CommitJob *commit_of(BlockJob *job)
{
    return (CommitJob *)job;
}

/* --- images above --------------------------------------------------------- */

/* Every node whose backing node is @bs, or a filter on it.  One that is being
 * closed still has its edges, but nobody may use it any more. */
static void find_overlays(BlockDriverState *bs, GPtrArray *ret)
{
    LIST_FOREACH(link, &bs->parents) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, node_link);

        if (child->parent && child->parent->state != BDRV_STATE_OPEN) {
            continue;
        }
        if (child->role & BDRV_CHILD_COW) {
            g_ptr_array_add(ret, child->parent);
        } else if (child->parent && (child->role & BDRV_CHILD_FILTERED)) {
            find_overlays(child->parent, ret);
        }
    }
}

static void coroutine_fn unref_all(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        bdrv_co_unref(g_ptr_array_index(nodes, i));
    }
}

static void coroutine_fn restore_names(CommitJob *s)
{
    for (guint i = s->old_names->len; i > 0; i--) {
        chain_restore_name(&g_array_index(s->old_names, ChainName, i - 1));
    }
    g_array_set_size(s->old_names, 0);
}

static ChainNaming naming(const CommitJob *s)
{
    return (ChainNaming){ .backing_file = s->o.backing_file,
                          .mask_protocol = s->o.mask_protocol };
}

/* The images above name the base from now on; those that do are left alone. */
static int coroutine_fn record_names(CommitJob *s, GError **errp)
{
    const ChainNaming how = naming(s);
    g_autoptr(GPtrArray) overlays = g_ptr_array_new();
    int ret = 0;

    find_overlays(s->filter, overlays);
    for (guint i = 0; i < overlays->len; i++) {
        bdrv_ref(g_ptr_array_index(overlays, i));
    }
    for (guint i = 0; ret == 0 && i < overlays->len; i++) {
        ChainName old;

        ret = chain_record_name(g_ptr_array_index(overlays, i), s->n.base,
                                &how, &old, errp);
        if (ret == 0 && old.bs) {
            g_array_append_val(s->old_names, old);
        }
    }
    unref_all(overlays);
    return ret;
}

/* Another job may have changed which images are above, or what they name. */
static int check_recorded(void *opaque, GError **errp)
{
    CommitJob *s = opaque;
    const ChainNaming how = naming(s);
    g_autoptr(GPtrArray) overlays = g_ptr_array_new();

    find_overlays(s->filter, overlays);
    for (guint i = 0; i < overlays->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(overlays, i);

        if (!chain_is_named(bs, s->n.base, &how)) {
            return block_error(errp, EBUSY, "Job '%s': node '%s' does not name "
                               "node '%s' yet", s->job.id, bdrv_node_name(bs),
                               bdrv_node_name(s->n.base));
        }
    }
    return 0;
}

static int check_names(CommitJob *s, GError **errp)
{
    const ChainNaming how = naming(s);
    g_autoptr(GPtrArray) overlays = g_ptr_array_new();
    int ret = 0;

    find_overlays(s->n.top, overlays);
    for (guint i = 0; ret == 0 && i < overlays->len; i++) {
        ret = chain_check_naming(&s->job, g_ptr_array_index(overlays, i),
                                 s->n.base, &how, errp);
    }
    return ret;
}

/* --- start: which nodes --------------------------------------------------- */

/* The layer that guests write to. */
static int became_active(CommitJob *s, GError **errp)
{
    return block_error(errp, EBUSY, "Job '%s': node '%s' has become the "
                       "active layer", s->job.id, bdrv_node_name(s->n.top));
}

static int not_in_chain(CommitJob *s, const BlockDriverState *bs,
                        const BlockDriverState *above, GError **errp)
{
    return block_error(errp, EINVAL, "Job '%s': node '%s' is not in the chain "
                       "below node '%s'", s->job.id, bdrv_node_name(bs),
                       bdrv_node_name(above));
}

/* A filter that has to see all writes of what it filters must not stand where
 * ours would pass it by. */
static int check_filters(CommitJob *s, GError **errp)
{
    for (BlockDriverState *bs = s->n.above_base; bs->filtered;
         bs = chain_above(s->n.top, bs)) {
        if (bs->drv->sees & BLOCK_SEES_WRITES) {
            return block_error(errp, EINVAL, "Job '%s': filter '%s' (driver "
                               "'%s') would not see what is written to node "
                               "'%s' below it", s->job.id, bs->node_name,
                               bs->drv->name, s->n.base->node_name);
        }
        if (bs == s->n.top) {
            break;
        }
    }
    return 0;
}

/* Takes no references: to be done again after each yield. */
static int find_nodes(CommitJob *s, GError **errp)
{
    CommitNodes *n = &s->n;

    n->device = job_find_node(&s->job, "device", s->o.device, errp);
    n->top = !n->device ? NULL
             : s->o.top ? job_find_node(&s->job, "top", s->o.top, errp)
                        : n->device;
    n->base = !n->top     ? NULL
              : s->o.base ? job_find_node(&s->job, "base", s->o.base, errp)
                          : chain_end(n->top);
    if (!n->base) {
        return -ENOENT;
    }
    if (n->top != n->device && !chain_above(n->device, n->top)) {
        return not_in_chain(s, n->top, n->device, errp);
    }
    if (bdrv_skip_filters(n->top) == bdrv_skip_filters(n->base)) {
        return block_error(errp, EINVAL, "Job '%s': node '%s' cannot be "
                           "committed to itself", s->job.id,
                           bdrv_node_name(n->top));
    }
    n->above_base = chain_above(n->top, n->base);
    if (!n->above_base) {
        return not_in_chain(s, n->base, n->top, errp);
    }
    if (bdrv_skip_filters(n->top) == bdrv_skip_filters(n->device)) {
        return became_active(s, errp);
    }
    if (check_filters(s, errp) < 0) {
        return -EINVAL;
    }
    return check_names(s, errp);
}

/* The nodes are referenced, but may not be what they were any more. */
static int look_again(void *opaque, GError **errp)
{
    CommitJob *s = opaque;
    const CommitNodes held = s->n;
    int ret = find_nodes(s, errp);

    if (ret == 0 && (held.device != s->n.device || held.top != s->n.top ||
                     held.base != s->n.base ||
                     held.above_base != s->n.above_base)) {
        ret = block_error(errp, EBUSY, "Job '%s': the chain below node '%s' "
                          "has changed", s->job.id, s->o.device);
    }
    s->n = held;
    return ret;
}

/* --- start: the graph ----------------------------------------------------- */

static int coroutine_fn insert_filter(CommitJob *s, GError **errp)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "driver", "commit-top");
    block_options_set_str(options, "file", bdrv_node_name(s->n.top));
    if (s->o.filter_node_name) {
        block_options_set_str(options, "node-name", s->o.filter_node_name);
    }
    /* A job that ends meanwhile may leave top out of the chain, and let others
     * read the base itself: then C1 does not hold. */
    return graph_insert_node(s->n.top, options, look_again, s, &s->filter,
                             errp);
}

/* C2, C3.  The chain is what it was when we looked; but others may hold it. */
static int hold_chain(CommitJob *s, GError **errp)
{
    g_autoptr(GError) why = NULL;
    int ret = bdrv_freeze_chain(s->filter, s->n.base, &why);

    if (ret < 0) {
        return block_error(errp, -ret, "Job '%s': %s", s->job.id,
                           why->message);
    }
    edge_set_unguarded(chain_edge(s->n.above_base), true);
    s->frozen = true;
    return 0;
}

/* C2 */
static const BlockPerm top_perm = {
    .used = BLK_PERM_CONSISTENT_READ,
    .shared = BLK_PERM_CONSISTENT_READ,
};
static const BlockPerm base_perm = {
    .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
    .shared = BLK_PERM_CONSISTENT_READ,
};

static int coroutine_fn attach(CommitJob *s, GError **errp)
{
    g_autofree char *name = g_strdup_printf("job %s", s->job.id);
    int ret;

    s->work = bdrv_work_new(s->filter);
    s->from = blk_new(s->job.graph, name, &top_perm);
    s->to = blk_new(s->job.graph, name, &base_perm);
    ret = blk_co_insert_bs(s->from, s->n.top, errp);
    return ret < 0 ? ret : blk_co_insert_bs(s->to, s->n.base, errp);
}

/* From here on we write no more. */
static void coroutine_fn detach(CommitJob *s)
{
    if (s->work) {
        bdrv_work_free(g_steal_pointer(&s->work));
    }
    blk_co_unref(g_steal_pointer(&s->to));
    blk_co_unref(g_steal_pointer(&s->from));
    if (s->frozen) {
        edge_set_unguarded(chain_edge(s->n.above_base), false);
    }
}

static void thaw(CommitJob *s)
{
    if (s->frozen) {
        bdrv_unfreeze_chain(s->filter, s->n.base);
        s->frozen = false;
    }
}

static void coroutine_fn let_go(CommitJob *s)
{
    detach(s);
    thaw(s);
    if (s->filter) {
        chain_drop_filter(&s->job, s->filter);
        bdrv_co_unref(s->filter);
    }
    if (s->made_writable) {
        chain_make_read_only(s->n.base);
    }
    bdrv_co_unref(s->n.above_base);
    bdrv_co_unref(s->n.base);
    bdrv_co_unref(s->n.top);
    bdrv_co_unref(s->n.device);
    for (guint i = 0; i < s->old_names->len; i++) {
        chain_name_clear(&g_array_index(s->old_names, ChainName, i));
    }
    g_array_free(s->old_names, true);
    block_options_clear(commit_options, &s->o);
}

static int coroutine_fn begin(CommitJob *s, GError **errp)
{
    int ret = chain_make_writable(s->n.base, &s->made_writable, errp);

    ret = ret < 0 ? ret : insert_filter(s, errp);
    ret = ret < 0 ? ret : hold_chain(s, errp);
    return ret < 0 ? ret : attach(s, errp);
}

static int coroutine_fn commit_start(BlockJob *job, BlockOptions *options,
                                     GError **errp)
{
    CommitJob *s = commit_of(job);
    int ret = job_take_options(job, options, commit_options, &s->o, errp);

    if (ret < 0) {
        return ret;
    }
    ret = find_nodes(s, errp);
    if (ret < 0) {
        block_options_clear(commit_options, &s->o);
        return ret;
    }
    bdrv_ref(s->n.device);
    bdrv_ref(s->n.top);
    bdrv_ref(s->n.base);
    bdrv_ref(s->n.above_base);
    s->grown_from = -1;
    s->old_names = g_array_new(false, false, sizeof(ChainName));
    spare_buffers_init(&s->buffers);
    ret = begin(s, errp);
    if (ret < 0) {
        let_go(s);
        return ret;
    }
    job_progress_grow(job, MAX(bdrv_length(s->n.top), bdrv_length(s->n.base)));
    return 0;
}

/* --- the work ------------------------------------------------------------- */

/* What a range of the layers means for the base. */
typedef enum CommitKind {
    COMMIT_NOTHING, /* it shows what they show */
    COMMIT_ZERO,
    COMMIT_DATA,
} CommitKind;

/* Zeroes from @offset on; where the base has them there is nothing to do, so
 * that it gets no larger. */
static int coroutine_fn look_at_base(CommitJob *s, int64_t offset,
                                     int64_t *bytes)
{
    BlockExtent extent;
    int ret = bdrv_co_block_status_above(s->n.base, NULL, offset, *bytes,
                                         &extent);

    if (ret < 0) {
        return ret;
    }
    if (extent.bytes == 0 || (extent.status & BDRV_BLOCK_ZERO)) {
        *bytes = extent.bytes > 0 ? extent.bytes : *bytes;
        return COMMIT_NOTHING;
    }
    *bytes = MIN(extent.bytes, JOB_WALK_ZERO_CHUNK);
    return COMMIT_ZERO;
}

/* The kind of what begins at @offset, at most *@bytes, which is changed to its
 * length; or a negative errno. */
static int coroutine_fn look(CommitJob *s, int64_t offset, int64_t *bytes)
{
    int64_t left = bdrv_length(s->n.top) - offset;
    BlockExtent extent;
    int ret;

    if (left <= 0) {
        /* An overlay that is longer than top shows zeroes there; what the base
         * has there nobody has seen. */
        return look_at_base(s, offset, bytes);
    }
    ret = bdrv_co_block_status_above(s->n.top, s->n.base, offset,
                                     MIN(*bytes, left), &extent);
    if (ret < 0) {
        return ret;
    }
    *bytes = extent.bytes;
    if (!(extent.status & BDRV_BLOCK_ALLOCATED)) {
        return COMMIT_NOTHING;
    }
    if (extent.status & BDRV_BLOCK_ZERO) {
        return look_at_base(s, offset, bytes);
    }
    *bytes = job_walk_chunk(offset, *bytes);
    return COMMIT_DATA;
}

static int coroutine_fn look_counted(CommitJob *s, int64_t offset,
                                     int64_t *bytes)
{
    unsigned ticket = bdrv_co_work_begin(s->work);
    int ret = look(s, offset, bytes);

    bdrv_work_end(s->work, ticket);
    return ret;
}

static int coroutine_fn commit_find(JobWalk *walk, int64_t offset,
                                    int64_t *ret_bytes)
{
    int ret;

    *ret_bytes = walk->length - offset;
    ret = look_counted(commit_of(walk->job), offset, ret_bytes);
    return ret < 0 ? ret : ret != COMMIT_NOTHING;
}

/* Without data, if that is possible; or as little at once as data is. */
static int coroutine_fn write_zeroes(CommitJob *s, int64_t offset,
                                     int64_t bytes)
{
    int ret = blk_co_pwrite_zeroes(s->to, offset, bytes,
                                   BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);

    if (ret != -ENOTSUP) {
        return ret;
    }
    for (ret = 0; ret == 0 && bytes > 0;) {
        int64_t n = job_walk_chunk(offset, bytes);

        ret = blk_co_pwrite_zeroes(s->to, offset, n, BDRV_REQ_MAY_UNMAP);
        offset += n;
        bytes -= n;
    }
    return ret;
}

static int coroutine_fn copy_data(CommitJob *s, int64_t offset, int64_t bytes,
                                  bool *ret_read)
{
    void *buf = spare_buffers_get(&s->buffers);
    int ret;

    *ret_read = true;
    if (!buf) {
        return -ENOMEM;
    }
    ret = blk_co_pread(s->from, offset, bytes, buf, 0);
    if (ret == 0) {
        *ret_read = false;
        ret = blk_co_pwrite(s->to, offset, bytes, buf, 0);
    }
    spare_buffers_put(&s->buffers, buf);
    return ret;
}

/* Without passing through our memory, as long as that works; whatever fails is
 * done the other way, which knows whose failure it is. */
static int coroutine_fn copy_range(CommitJob *s, int64_t offset, int64_t bytes,
                                   bool *ret_read)
{
    int ret = s->no_copy_range ? -ENOTSUP
                               : blk_co_copy_range(s->from, offset, s->to,
                                                   offset, bytes, 0);

    if (ret == 0) {
        return 0;
    }
    s->no_copy_range = true;
    return copy_data(s, offset, bytes, ret_read);
}

/* The layers do not change (C2); so what was found is found again. */
static int coroutine_fn commit_copy(JobWalk *walk, const JobArea *area,
                                    bool *ret_read)
{
    CommitJob *s = commit_of(walk->job);
    int64_t end = area->offset + area->bytes;
    int64_t offset = area->offset;
    int ret = 0;

    while (ret >= 0 && offset < end) {
        int64_t bytes = end - offset;

        *ret_read = true;
        ret = look_counted(s, offset, &bytes);
        if (ret == COMMIT_DATA) {
            ret = copy_range(s, offset, bytes, ret_read);
        } else if (ret == COMMIT_ZERO && !SIM_PLANTED(42)) {
            *ret_read = false;
            ret = write_zeroes(s, offset, bytes);
        }
        offset += bytes;
    }
    return MIN(ret, 0);
}

static const JobWalkMethods commit_methods = {
    .find = commit_find,
    .copy = commit_copy,
};

/* The base has room for all of the layers; what is new there is zero. */
static int coroutine_fn grow_base(CommitJob *s, GError **errp)
{
    int64_t length = bdrv_length(s->n.base);
    BlockTruncate how = { .offset = bdrv_length(s->n.top) };
    int ret;

    if (how.offset <= length) {
        return 0;
    }
    s->grown_from = length;
    ret = blk_co_truncate(s->to, &how, errp);
    if (ret < 0) {
        g_prefix_error(errp, "Job '%s': node '%s' could not be made as long "
                       "as node '%s': ", s->job.id, bdrv_node_name(s->n.base),
                       bdrv_node_name(s->n.top));
    }
    return ret;
}

static int coroutine_fn flush_base(CommitJob *s, GError **errp) /* C4 */
{
    int ret = SIM_FAULT("commit.flush", s->job.id);

    if (ret == 0) {
        ret = blk_co_flush(s->to);
    }
    return ret < 0 ? block_error_errno(errp, -ret, "Job '%s': could not flush "
                                       "node '%s'", s->job.id,
                                       bdrv_node_name(s->n.base))
                   : 0;
}

static int coroutine_fn commit_run(BlockJob *job, GError **errp)
{
    CommitJob *s = commit_of(job);
    int ret = grow_base(s, errp);
    bool read;

    if (ret < 0) {
        return ret;
    }
    s->walk = (JobWalk){
        .job = job,
        .methods = &commit_methods,
        .length = MAX(bdrv_length(s->n.top), bdrv_length(s->n.base)),
        .max_workers = s->o.max_workers,
        .on_error = s->o.on_error,
    };
    ret = job_walk(&s->walk);
    if (ret == -ECANCELED && job_is_cancelled(job)) {
        return block_error(errp, ECANCELED, "Job '%s' was cancelled", job->id);
    }
    read = s->walk.error_read;
    return ret < 0 ? block_error_errno(errp, -ret, "Job '%s': could not %s "
                                       "node '%s'", job->id,
                                       read ? "read" : "write to",
                                       bdrv_node_name(read ? s->n.top
                                                           : s->n.base))
                   : flush_base(s, errp);
}

/* --- the end -------------------------------------------------------------- */

static int was_cancelled(CommitJob *s, GError **errp)
{
    return block_error(errp, ECANCELED, "Job '%s' was cancelled", s->job.id);
}

/* Until all images above name the base and nobody holds an edge there: who
 * does so changes just that. */
static int coroutine_fn settle_names(CommitJob *s, GError **errp)
{
    for (int i = 0; i < ROUNDS_MAX; i++) {
        int ret = record_names(s, errp);

        if (ret == 0 && !chain_wait_above(&s->job, s->filter)) {
            ret = was_cancelled(s, errp);
        }
        if (ret < 0 || check_recorded(s, NULL) == 0) {
            return ret;
        }
    }
    return block_error(errp, EIO, "Job '%s': an image above node '%s' keeps "
                       "naming another one than node '%s'", s->job.id,
                       bdrv_node_name(s->n.top), bdrv_node_name(s->n.base));
}

/* Drained, the base is about to take the filter's place: it is too late to
 * cancel from here on, and not before.  What we may do there its new users
 * would not share; if they do not come after all, we need it again. */
static int give_way(void *opaque, GError **errp)
{
    static const BlockPerm nothing = { .shared = BLK_PERM_ALL };
    CommitJob *s = opaque;
    int ret = check_recorded(s, errp);

    if (ret < 0) {
        return ret;
    }
    if (chain_is_held_above(s->filter)) {
        return block_error(errp, EBUSY, "Job '%s': somebody holds an edge "
                           "above node '%s'", s->job.id,
                           bdrv_node_name(s->filter));
    }
    if (!job_txn_close(&s->job)) {
        return was_cancelled(s, errp);
    }
    s->gave_way = true;
    ret = blk_set_perm_drained(s->from, &nothing, errp);
    ret = ret < 0 ? ret : blk_set_perm_drained(s->to, &nothing, errp);
    edge_set_unguarded(chain_edge(s->n.above_base), false);
    return ret;
}

/* To make the base as long as it was.  Nobody has come in between. */
static void take_back(CommitJob *s)
{
    g_autoptr(GError) error = NULL;

    edge_set_unguarded(chain_edge(s->n.above_base), true);
    if (blk_set_perm_drained(s->to, &base_perm, &error) < 0) {
        g_warning("%s", error->message);
    }
}

/* The filter goes, with all that is below it down to the base. */
static int coroutine_fn replace_filter(CommitJob *s, GError **errp)
{
    GError *why = NULL;
    int ret;

    SIM_POINT("commit.replace", s->job.id);
    /* We may wait for others inside, and then they may hold it again. */
    while ((ret = graph_replace_node(s->filter, s->n.base, give_way, s,
                                     &why)) < 0 && !s->gave_way &&
           (chain_is_held_above(s->filter) || check_recorded(s, NULL) < 0)) {
        g_clear_error(&why);
        ret = settle_names(s, &why);
        if (ret < 0) {
            break;
        }
    }
    if (ret < 0) {
        g_propagate_error(errp, why);
        if (s->gave_way) {
            take_back(s);
        }
    } else {
        detach(s);
        thaw(s);
        bdrv_co_unref(g_steal_pointer(&s->filter));
        s->grown_from = -1;
    }
    return ret;
}

static int coroutine_fn commit_prepare(BlockJob *job, GError **errp)
{
    CommitJob *s = commit_of(job);
    int ret = settle_names(s, errp);

    if (ret == 0) {
        ret = replace_filter(s, errp);
    }
    if (ret < 0) {
        restore_names(s);
    }
    return ret;
}

/* The layers still have all that the base was grown for. */
static void coroutine_fn commit_abort(BlockJob *job)
{
    CommitJob *s = commit_of(job);
    BlockTruncate how = { .offset = s->grown_from, .exact = true };
    g_autoptr(GError) error = NULL;

    if (s->grown_from >= 0 &&
        bdrv_length(s->n.base) > s->grown_from &&
        blk_co_truncate(s->to, &how, &error) < 0) {
        g_warning("Node '%s' stays longer than it was: %s",
                  bdrv_node_name(s->n.base), error->message);
    }
}

static void coroutine_fn commit_clean(BlockJob *job)
{
    let_go(commit_of(job));
}

static BlockDriverState *peek_node(BlockGraph *graph,
                                   const BlockOptions *options,
                                   const char *key)
{
    const char *name = block_options_peek_str(options, key);

    return name ? bdrv_find_node(graph, name) : NULL;
}

/* Without "top" it is the node itself that is committed. */
static const JobDriver *commit_choose(BlockGraph *graph,
                                      const BlockOptions *options)
{
    BlockDriverState *device = peek_node(graph, options, "device");
    BlockDriverState *top = block_options_has(options, "top")
                                ? peek_node(graph, options, "top")
                                : device;

    return device && top && bdrv_skip_filters(device) == bdrv_skip_filters(top)
               ? &job_driver_active_commit
               : &job_driver_commit;
}

const JobDriver job_driver_commit = {
    .instance_size = sizeof(CommitJob),
    .type = BLOCK_JOB_COMMIT,
    .options = commit_options,
    .choose = commit_choose,
    .start = commit_start,
    .run = commit_run,
    .prepare = commit_prepare,
    .abort = commit_abort,
    .clean = commit_clean,
};
