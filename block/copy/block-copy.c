/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * block-copy: the state.
 */
#include "block/copy/copy-int.h"

#include <errno.h>

#define DEFAULT_CLUSTER_BYTES (INT64_C(64) << 10)
#define MAX_CLUSTER_BYTES (INT64_C(2) << 30)

/* --- clusters ------------------------------------------------------------- */

/* The cluster size of the target; 0: it has none that matters. */
static int target_cluster(BdrvChild *target, int64_t *ret, GError **errp)
{
    BlockDriverState *bs = bdrv_skip_filters(bdrv_child_bs(target));
    BlockDriverInfo info = { 0 };
    int code = bdrv_get_info(bs, &info);

    *ret = code == 0 ? info.cluster_bytes : 0;
    if (*ret > 0 || !bdrv_cow_child(bs)) {
        return 0;
    }
    return block_error(errp, ENOTSUP, "Node '%s' has a backing file and does "
                       "not say its cluster size, so nothing can be copied to "
                       "it", bdrv_node_name(bs));
}

static int compute_cluster(const BlockCopyConfig *config, int64_t *ret,
                           GError **errp)
{
    int64_t min = config->min_cluster_bytes;
    int64_t target = 0;
    int code;

    if (min && (min < 0 || (min & (min - 1)) || min > MAX_CLUSTER_BYTES)) {
        return block_error(errp, EINVAL, "min-cluster-size must be a power of "
                           "two up to %" G_GINT64_FORMAT " bytes, not %"
                           G_GINT64_FORMAT, MAX_CLUSTER_BYTES, min);
    }
    code = target_cluster(config->target, &target, errp);
    *ret = MAX(DEFAULT_CLUSTER_BYTES, MAX(min, target));
    return code;
}

int64_t block_copy_cluster_bytes(const BlockCopyState *s)
{
    return s->cluster;
}

int64_t block_copy_length(const BlockCopyState *s)
{
    return s->length;
}

/* --- life ----------------------------------------------------------------- */

typedef struct FindNode {
    BlockDriverState *what;
    bool found;
} FindNode;

static bool find_node(BdrvChild *child, void *opaque)
{
    FindNode *find = opaque;

    if (bdrv_child_bs(child) == find->what) {
        find->found = true;
    } else {
        bdrv_foreach_child(bdrv_child_bs(child), find_node, find);
    }
    return !find->found;
}

/* Whether reads of the target may come from the source: then what is written
 * there waits for them. */
static bool target_shows_source(const BlockCopyConfig *config)
{
    FindNode find = { .what = bdrv_child_bs(config->source) };

    bdrv_foreach_child(bdrv_child_bs(config->target), find_node, &find);
    return find.found;
}

BlockCopyState *block_copy_state_new(const BlockCopyConfig *config,
                                     GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(config->source));
    int64_t cluster = 0;
    BlockCopyState *s;

    if (compute_cluster(config, &cluster, errp) < 0) {
        return NULL;
    }
    s = g_new0(BlockCopyState, 1);
    s->config = *config;
    s->cluster = cluster;
    s->length = length;
    s->write_flags = (config->compress ? BDRV_REQ_WRITE_COMPRESSED : 0) |
                     (target_shows_source(config) ? BDRV_REQ_SERIALISING : 0);
    atomic_init(&s->use_copy_range, config->use_copy_range &&
                                    !config->compress);
    s->dirty = hbitmap_new(length, __builtin_ctzll(cluster));
    if (!s->dirty) {
        g_free(s);
        block_error(errp, ENOMEM, "No memory for a bitmap of %" G_GINT64_FORMAT
                    " bytes in clusters of %" G_GINT64_FORMAT, length,
                    cluster);
        return NULL;
    }
    lock_init(&s->lock, LOCK_RANK_COPY);
    mem_budget_init(&s->memory, COPY_MEMORY_BYTES);
    spare_buffers_init(&s->buffers);
    mem_budget_init(&s->staging, 0);
    list_init(&s->calls);
    list_init(&s->staged_queue);
    block_copy_set_bitmap(s, NULL);
    return s;
}

bool block_copy_target_shows_source(const BlockCopyState *s)
{
    return s->write_flags & BDRV_REQ_SERIALISING;
}

void block_copy_state_free(BlockCopyState *s)
{
    if (!s) {
        return;
    }
    g_assert(reqlist_is_empty(&s->tasks));
    g_assert(list_empty(&s->calls) && list_empty(&s->staged_queue));
    stage_pool_destroy(&s->slots);
    hbitmap_free(s->dirty);
    g_free(s);
}

/* --- the copy bitmap ------------------------------------------------------ */

void block_copy_set_bitmap(BlockCopyState *s, const HBitmap *bitmap)
{
    WITH_LOCK(&s->lock) {
        g_assert(reqlist_is_empty(&s->tasks));
        hbitmap_reset_all(s->dirty);
        if (bitmap) {
            hbitmap_merge(s->dirty, bitmap);
        } else if (s->length > 0) {
            hbitmap_set(s->dirty, 0, s->length);
        }
        s->done = 0;
        atomic_store(&s->broken, 0);
    }
}

void block_copy_break(BlockCopyState *s, int err)
{
    int none = 0;

    atomic_compare_exchange_strong(&s->broken, &none, err);
}

/* @bytes, cut at the end of the source. */
static int64_t cut(const BlockCopyState *s, int64_t offset, int64_t bytes)
{
    g_assert(offset >= 0 && !(offset & (s->cluster - 1)));
    return MAX(0, MIN(bytes, s->length - offset));
}

void block_copy_reset(BlockCopyState *s, int64_t offset, int64_t bytes)
{
    bytes = cut(s, offset, bytes);
    if (bytes > 0) {
        WITH_LOCK(&s->lock) {
            hbitmap_reset(s->dirty, offset, bytes);
        }
    }
}

/* The layer under which block-copy does not look for data of the source. */
static BlockDriverState *base_of(BlockCopyState *s)
{
    BlockDriverState *bs =
        bdrv_skip_filters(bdrv_child_bs(s->config.source));
    BdrvChild *cow = bdrv_cow_child(bs);

    return cow ? bdrv_child_bs(cow) : NULL;
}

int coroutine_fn block_copy_reset_unallocated(BlockCopyState *s,
                                              int64_t offset,
                                              int64_t *ret_bytes)
{
    BlockDriverState *bs = bdrv_child_bs(s->config.source);
    int64_t whole, n;
    int ret = bdrv_co_is_allocated_above(bs, base_of(s), false, offset,
                                         s->length - offset, &n);

    if (ret < 0) {
        return ret;
    }
    /* Of a cluster that is allocated in part everything is copied. */
    whole = offset + n == s->length ? n : n & ~(s->cluster - 1);
    if (ret > 0 || whole == 0) {
        *ret_bytes = MIN(s->length - offset, MAX(whole, s->cluster));
        return 0;
    }
    block_copy_reset(s, offset, whole);
    *ret_bytes = whole;
    return 1;
}

int64_t block_copy_next_dirty(BlockCopyState *s, int64_t offset)
{
    LOCK_GUARD(&s->lock);
    return hbitmap_next_dirty(s->dirty, offset, INT64_MAX);
}

bool block_copy_next_dirty_area(BlockCopyState *s, int64_t offset,
                                int64_t *ret_start, int64_t *ret_bytes)
{
    LOCK_GUARD(&s->lock);
    return hbitmap_next_dirty_area(s->dirty, offset, s->length, INT64_MAX,
                                   ret_start, ret_bytes);
}

BlockCopyProgress block_copy_progress(BlockCopyState *s)
{
    LOCK_GUARD(&s->lock);
    return (BlockCopyProgress){
        .done_bytes = s->done,
        .remaining_bytes = hbitmap_count(s->dirty) + s->in_flight,
    };
}

/* --- knobs ---------------------------------------------------------------- */

void block_copy_set_skip_unallocated(BlockCopyState *s, bool skip)
{
    atomic_store(&s->skip_unallocated, skip);
}

void block_copy_set_compare(BlockCopyState *s, bool compare)
{
    /* What the target shows of the source changes with it. */
    atomic_store(&s->compare, compare && !block_copy_target_shows_source(s));
}

void block_copy_set_speed(BlockCopyState *s, uint64_t bytes_per_second)
{
    ThrottleConfig config = { 0 };
    int64_t now = aio_clock_ns(
        block_graph_aio_context(bdrv_graph(bdrv_child_bs(s->config.source))));

    config.limits[THROTTLE_BPS_TOTAL].avg = MIN(bytes_per_second,
                                                THROTTLE_VALUE_MAX);
    WITH_LOCK(&s->lock) {
        throttle_configure(&s->limit, &config, now);
    }
}

void coroutine_fn block_copy_wait_tasks(BlockCopyState *s, int64_t offset,
                                        int64_t bytes)
{
    if (bytes > 0) {
        WITH_LOCK(&s->lock) {
            reqlist_wait_all(&s->tasks, offset, bytes, &s->lock);
        }
    }
}
