/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two sides between which a dirty bitmap must lie.
 *
 * What was in flight when the tracking began may be dirty, but need not be:
 * nobody can say on which side of the beginning it took effect.
 */
#include "sim/model-int.h"

#include <errno.h>
#include <string.h>

static void set_range(bool *bits, const ModelBounds *bounds,
                      const ModelRequest *req)
{
    if (req->bytes > 0) {
        int64_t first = req->offset / bounds->granularity;
        int64_t last = (req->offset + req->bytes - 1) / bounds->granularity;

        memset(bits + first, true, last - first + 1);
    }
}

void model_bounds_begin_locked(BgSimModel *model, const ModelRequest *req)
{
    if (model->bounds.granularity > 0) {
        set_range(model->bounds.may, &model->bounds, req);
    }
}

void model_bounds_acked_locked(BgSimModel *model, const ModelRequest *req)
{
    if (model->bounds.granularity > 0 && req->begin > model->bounds.since) {
        set_range(model->bounds.must, &model->bounds, req);
    }
}

static bool is_change(const ModelRequest *req)
{
    return req->kind == BGSIM_OP_WRITE || req->kind == BGSIM_OP_ZERO ||
           req->kind == BGSIM_OP_DISCARD;
}

void bgsim_model_track(BgSimModel *model, int64_t granularity)
{
    ModelBounds *bounds = &model->bounds;

    g_assert(granularity > 0 && !model->frozen);
    LOCK_GUARD(&model->lock);
    g_free(bounds->must);
    g_free(bounds->may);
    bounds->granularity = granularity;
    bounds->nr = (model->length + granularity - 1) / granularity;
    bounds->must = g_new0(bool, bounds->nr);
    bounds->may = g_new0(bool, bounds->nr);
    bounds->since = atomic_fetch_add(&model->sim->clock, 1) + 1;
    LIST_FOREACH(link, &model->in_flight) {
        const ModelRequest *req = LIST_ENTRY(link, ModelRequest, link);

        if (is_change(req)) {
            set_range(bounds->may, bounds, req);
        }
    }
}

void bgsim_model_bounds(BgSimModel *model, BgSimBitmapBounds *ret)
{
    LOCK_GUARD(&model->lock);

    g_assert(model->bounds.granularity > 0);
    *ret = (BgSimBitmapBounds){ model->bounds.granularity, model->bounds.nr,
                                model->bounds.must, model->bounds.may };
}

bool bgsim_check_bounds(const BgSimBitmapBounds *bounds, const bool *dirty,
                        GError **errp)
{
    for (int64_t i = 0; i < bounds->nr_granules; i++) {
        int64_t offset = i * bounds->granularity;

        if (bounds->must[i] && !dirty[i]) {
            block_error(errp, EILSEQ, "The bitmap misses the change of "
                        "[%" G_GINT64_FORMAT ", +%" G_GINT64_FORMAT ")",
                        offset, bounds->granularity);
            return false;
        }
        if (dirty[i] && !bounds->may[i]) {
            block_error(errp, EILSEQ, "The bitmap has [%" G_GINT64_FORMAT
                        ", +%" G_GINT64_FORMAT "), which nobody has touched",
                        offset, bounds->granularity);
            return false;
        }
    }
    return true;
}
