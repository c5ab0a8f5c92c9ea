/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits: what a node can do, merged from its children and its driver.
 */
#include "block/graph/graph-int.h"

#include <errno.h>
#include <limits.h>

static int64_t min_nonzero(int64_t a, int64_t b)
{
    return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

/* What a node can do is bounded by each child that carries its data. */
static void merge_child(BlockLimits *limits, const BlockLimits *child,
                        bool filter)
{
    limits->min_mem_alignment =
        MAX(limits->min_mem_alignment, child->min_mem_alignment);
    limits->opt_mem_alignment =
        MAX(limits->opt_mem_alignment, child->opt_mem_alignment);
    limits->opt_transfer = MAX(limits->opt_transfer, child->opt_transfer);
    limits->max_transfer =
        min_nonzero(limits->max_transfer, child->max_transfer);
    limits->max_iov = min_nonzero(limits->max_iov, child->max_iov);
    limits->request_alignment =
        MAX(limits->request_alignment, child->request_alignment);
    if (filter) {
        /* Same content: the preferences for zeroes and discards pass too. */
        limits->max_pwrite_zeroes = child->max_pwrite_zeroes;
        limits->pwrite_zeroes_alignment = child->pwrite_zeroes_alignment;
        limits->max_pdiscard = child->max_pdiscard;
        limits->pdiscard_alignment = child->pdiscard_alignment;
    }
}

/* A filter that leaves a method out passes on what its child can do there. */
static void inherit_flags(BlockDriverState *bs, BlockLimits *limits)
{
    const BlockLimits *child = &bs->filtered->bs->limits;

    limits->truncate_flags = child->truncate_flags;
    /* What a read is to copy is decided by the first node that is none. */
    limits->read_flags = child->read_flags | BDRV_REQ_COPY_ON_READ |
                         BDRV_REQ_PREFETCH;
    limits->write_flags = child->write_flags;
    limits->zero_flags = child->zero_flags;
}

static bool is_power_of_2(uint64_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

static int check_limits(BlockDriverState *bs, const BlockLimits *limits,
                        GError **errp)
{
    if (!is_power_of_2(limits->request_alignment) ||
        limits->request_alignment > BDRV_MAX_ALIGNMENT ||
        !is_power_of_2(limits->min_mem_alignment)) {
        return block_error(errp, EINVAL, "Node '%s': request alignment %u and "
                           "memory alignment %u must be powers of 2",
                           bs->node_name, limits->request_alignment,
                           limits->min_mem_alignment);
    }
    if (limits->max_transfer &&
        limits->max_transfer < limits->request_alignment) {
        return block_error(errp, EINVAL, "Node '%s': the largest transfer (%"
                           G_GINT64_FORMAT ") is below the request alignment "
                           "(%u)", bs->node_name, limits->max_transfer,
                           limits->request_alignment);
    }
    return 0;
}

/* Copies on read are made in such units. */
static int64_t cluster_bytes(BlockDriverState *bs)
{
    int64_t align = bs->limits.request_alignment;
    BlockDriverInfo info;

    if (bdrv_get_info(bs, &info) < 0 || info.cluster_bytes < align ||
        info.cluster_bytes > BDRV_MAX_ALIGNMENT ||
        !is_power_of_2(info.cluster_bytes)) {
        return align;
    }
    return info.cluster_bytes;
}

int bdrv_refresh_limits(BlockDriverState *bs, GError **errp)
{
    BlockLimits limits = {
        .request_alignment = 1,
        .min_mem_alignment = 1,
        .opt_mem_alignment = 4096,
        .max_iov = IOV_MAX,
    };
    int ret;

    LIST_FOREACH(link, &bs->children) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);

        if (child->role & (BDRV_CHILD_DATA | BDRV_CHILD_FILTERED |
                           BDRV_CHILD_COW)) {
            merge_child(&limits, &child->bs->limits,
                        child->role & BDRV_CHILD_FILTERED);
        }
    }
    if (bs->drv->kind != BLOCK_DRIVER_PROTOCOL && !bs->filtered) {
        /* A format maps bytes as it likes; it says itself what it needs. */
        limits.request_alignment = 1;
    }
    if (bs->filtered) {
        inherit_flags(bs, &limits);
    }
    if (bs->drv->refresh_limits) {
        bs->drv->refresh_limits(bs, &limits);
    }
    ret = check_limits(bs, &limits, errp);
    if (ret == 0) {
        bs->limits = limits;
        bs->cluster_bytes = cluster_bytes(bs);
    }
    return ret;
}

const BlockLimits *bdrv_limits(const BlockDriverState *bs)
{
    return &bs->limits;
}

void bdrv_refresh_limits_above(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    g_autoptr(GPtrArray) above = NULL;
    g_autoptr(GPtrArray) order = NULL;

    g_ptr_array_add(nodes, bs);
    above = graph_above(nodes);
    order = graph_below(above);
    g_ptr_array_unref(above);
    above = graph_above(nodes); /* again, for its marks */
    for (guint i = order->len; i > 0; i--) {
        BlockDriverState *node = g_ptr_array_index(order, i - 1);
        g_autoptr(GError) error = NULL;

        if (node->visit_mark != bs->visit_mark) {
            continue; /* not above @bs: may be in use, as it is not drained */
        }
        /* The children were checked when they were opened; what a driver
         * derives from them alone is valid again. */
        if (bdrv_refresh_limits(node, &error) < 0) {
            g_warning("%s", error->message);
        }
    }
}
