/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chains of images on simulated disks.
 */
#include "sim/scenarios/image-chain.h"

#include <blockgraph/driver.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096 /* of the content that is drawn */

/* --- images --------------------------------------------------------------- */

static int64_t draw_length(BgSim *sim)
{
    int64_t some = 512 * (1 + (int64_t)bgsim_draw(sim, "image.part", 48));

    switch (bgsim_draw(sim, "image.length", 5)) {
    case 3:
        return SIM_CHAIN_BYTES - some;
    case 4:
        return SIM_CHAIN_BYTES + some;
    default:
        return SIM_CHAIN_BYTES;
    }
}

static void draw_qcow2(BgSim *sim, SimQcow2 *how)
{
    static const unsigned cluster_bits[] = { 12, 9, 10, 16 };

    *how = (SimQcow2){
        .version = 3, .refcount_order = 4,
        .cluster_bits = cluster_bits[bgsim_draw(sim, "image.cluster", 4)],
    };
    switch (bgsim_draw(sim, "image.kind", 5)) {
    case 1:
        how->extended_l2 = true;
        how->cluster_bits = 14;
        break;
    case 2:
        how->version = 2;
        break;
    default:
        break;
    }
}

static void make_image(SimChain *c, int i)
{
    SimChainImage *image = &c->images[i];
    BgSim *sim = c->sim;
    BgSimDiskConfig config = {
        .grows = true,
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 300),
        .no_fua = bgsim_chance(sim, "disk.no-fua", 300),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .slow_permille = bgsim_draw(sim, "disk.slow", 3),
        .flush_mode = BGSIM_FLUSH_KEEP,
    };
    SimQcow2 how;

    g_snprintf(image->file_name, sizeof(image->file_name), "/d%d", i);
    g_snprintf(image->node_name, sizeof(image->node_name), "n%d", i);
    image->raw = i == 0 && bgsim_draw(sim, "image.raw", 2);
    image->length = i == c->nr - 1 ? SIM_CHAIN_BYTES : draw_length(sim);
    config.size = image->length;
    config.empty = !image->raw;
    image->disk = bgsim_disk_new(sim, image->file_name + 1, &config);
    if (!image->raw) {
        draw_qcow2(sim, &how);
        how.size = image->length;
        if (i > 0) {
            how.backing = c->images[i - 1].file_name;
            how.backing_format = c->images[i - 1].raw ? "raw" : "qcow2";
        }
        sim_qcow2_make(image->disk, &how);
    }
}

/* --- open ----------------------------------------------------------------- */

int sim_chain_below(const SimChain *chain, int i, GError **errp)
{
    const SimChainImage *image = &chain->images[i];
    g_autofree char *file = NULL;
    g_autofree char *format = NULL;
    const char *expected;
    int below;

    if (!image->raw) {
        sim_qcow2_backing(image->disk, &file, &format);
    }
    if (!file) {
        return -1;
    }
    below = g_str_has_prefix(file, "/d") ? atoi(file + 2) : i;
    if (below < 0 || below >= i) {
        block_error(errp, EILSEQ, "image %d names '%s' as its backing file", i,
                    file);
        return -2;
    }
    expected = chain->images[below].raw ? "raw" : "qcow2";
    if (g_strcmp0(format, expected) != 0) {
        block_error(errp, EILSEQ, "image %d names '%s' as the format of image "
                    "%d", i, format ? format : "none", below);
        return -2;
    }
    return below;
}

static BlockDriverState *open_image(const SimChain *c, int i,
                                    BlockDriverState *below, bool read_only,
                                    GError **errp)
{
    const SimChainImage *image = &c->images[i];
    BlockOptions *options = scenario_options(
        "%s,node-name=%s,discard=%s,read-only=%s,file.driver=sim-disk,"
        "file.disk=%s%s%s", image->raw ? "raw" : "qcow2", image->node_name,
        c->discard, read_only ? "on" : "off", image->file_name + 1,
        below ? ",backing=" : "", below ? bdrv_node_name(below) : "");

    return bdrv_open(bgsim_graph(c->sim), options, errp);
}

BlockDriverState *sim_chain_open(const SimChain *chain, int i, GError **errp)
{
    BlockDriverState *bs = NULL;
    int images[SIM_CHAIN_IMAGES];
    int nr = 0;

    for (int at = i; at != -1; at = sim_chain_below(chain, at, errp)) {
        if (at == -2) {
            return NULL;
        }
        images[nr++] = at;
    }
    while (nr > 0) {
        BlockDriverState *below = bs;

        nr--;
        bs = open_image(chain, images[nr], below, nr > 0 && chain->read_only,
                        errp);
        bdrv_unref(below);
        if (!bs) {
            return NULL;
        }
    }
    return bs;
}

int sim_chain_index(const BlockDriverState *bs)
{
    return atoi(bdrv_node_name(bs) + 1);
}

/* --- content -------------------------------------------------------------- */

typedef struct Fill {
    SimChain *chain;
    int64_t end; /* what can be seen from above */
} Fill;

/* Data and zeroes here and there; the rest stays as it is. */
static void coroutine_fn fill_entry(BgSim *sim, void *opaque)
{
    const Fill *fill = opaque;

    for (int64_t at = 0; at < fill->end; at += BLOCK) {
        int64_t bytes = MIN(BLOCK, fill->end - at);

        switch (bgsim_draw(sim, "fill", 6)) {
        case 0:
        case 1:
            bgsim_model_pwrite(fill->chain->model, at, bytes, 0);
            break;
        case 2:
            bgsim_model_zero(fill->chain->model, at, bytes, 0);
            break;
        default:
            break;
        }
        bgsim_progress(sim);
    }
    bgsim_model_flush(fill->chain->model);
}

/* What a longer layer has beyond the end of one above it nobody may see. */
static void fill_hidden(SimChain *c, BlockDriverState *bs, int64_t at)
{
    int64_t bytes = bdrv_length(bs) - at;
    g_autofree uint8_t *noise = NULL;
    BlockBackend *blk;

    if (bytes <= 0) {
        return;
    }
    blk = scenario_backend(c->sim, "hidden", bs);
    noise = g_malloc(bytes);
    memset(noise, 0xa5, bytes);
    if (blk_pwrite(blk, at, bytes, noise, 0) < 0 || blk_flush(blk) < 0) {
        bgsim_violation(c->sim, "open", "image %d cannot be filled",
                        sim_chain_index(bs));
    }
    blk_unref(blk);
}

static bool fill_image(SimChain *c, int i)
{
    Fill fill = { .chain = c, .end = SIM_CHAIN_BYTES };
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = sim_chain_open(c, i, &error);

    if (!bs) {
        bgsim_violation(c->sim, "open", "%s", error->message);
        return false;
    }
    for (int above = i; above < c->nr; above++) {
        fill.end = MIN(fill.end, c->images[above].length);
    }
    fill_hidden(c, bs, fill.end);
    scenario_fill(c->sim, bs, &c->model, SIM_CHAIN_BYTES, fill_entry, &fill);
    return true;
}

bool sim_chain_make(BgSim *sim, SimChain *chain)
{
    bool ok = true;

    chain->sim = sim;
    chain->nr = 3 + bgsim_draw(sim, "images", SIM_CHAIN_IMAGES - 2);
    chain->discard = bgsim_draw(sim, "open.discard", 2) ? "unmap" : "ignore";
    for (int i = 0; i < chain->nr; i++) {
        make_image(chain, i);
    }
    for (int i = 0; ok && i < chain->nr; i++) {
        ok = fill_image(chain, i);
    }
    chain->read_only = bgsim_draw(sim, "open.read-only", 2);
    return ok;
}

/* --- check ---------------------------------------------------------------- */

bool sim_chain_check(const SimChain *chain, const char *when, bool strict,
                     GError **errp)
{
    for (int i = 0; i < chain->nr; i++) {
        const SimChainImage *image = &chain->images[i];
        SimQcow2Report report = { 0 };

        if (!image->raw && (!sim_qcow2_check_both(image->disk, when, errp) ||
                            !sim_qcow2_check(image->disk, &report, errp))) {
            g_prefix_error(errp, "image %d: ", i);
            return false;
        }
        if (strict && (report.leaks > 0 || report.dirty)) {
            block_error(errp, EILSEQ, "%s, image %d has %" G_GUINT64_FORMAT
                        " leaked clusters, dirty is %d", when, i, report.leaks,
                        report.dirty);
            return false;
        }
    }
    return true;
}
