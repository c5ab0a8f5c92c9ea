/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the scenarios share.
 */
#include "sim/scenarios/scenarios.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

BlockOptions *scenario_options(const char *format, ...)
{
    g_autofree char *text = NULL;
    BlockOptions *options;
    GError *error = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    options = block_options_parse_keyval(text, "driver", &error);
    if (!options) {
        g_error("%s: %s", text, error->message);
    }
    return options;
}

BlockDriverState *scenario_open(BgSim *sim, const char *format, ...)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    bs = bdrv_open(bgsim_graph(sim), scenario_options("%s", text), &error);
    if (!bs) {
        bgsim_violation(sim, "open", "%s: %s", text, error->message);
    }
    return bs;
}

BlockDriverState *scenario_open_raw(BgSim *sim, const char *name,
                                    int64_t bytes)
{
    scenario_disk(sim, name, bytes);
    return scenario_open(sim, "raw,node-name=%s,discard=unmap,"
                         "file.driver=sim-disk,file.disk=%s", name, name);
}

BlockBackend *scenario_backend(BgSim *sim, const char *name,
                               BlockDriverState *bs)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                               BLK_PERM_RESIZE,
                       .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(bgsim_graph(sim), name, &perm);
    g_autoptr(GError) error = NULL;

    if (blk_insert_bs(blk, bs, &error) < 0) {
        bgsim_violation(sim, "open", "backend '%s': %s", name,
                        error->message);
    }
    return blk;
}

void scenario_fill(BgSim *sim, BlockDriverState *bs, BgSimModel **model,
                   int64_t length, BgSimEntry *entry, void *opaque)
{
    BlockBackend *blk = scenario_backend(sim, "fill", bs);
    g_autoptr(GError) error = NULL;

    if (*model) {
        bgsim_model_set_backend(*model, blk);
    } else {
        *model = bgsim_model_new(sim, blk, "guest", length);
    }
    bgsim_spawn(sim, "fill", NULL, entry, opaque);
    if (!bgsim_run(sim, -1, &error)) {
        g_warning("%s", error->message);
    }
    blk_unref(blk);
    bdrv_unref(bs);
}

AioContext *scenario_thread(BgSim *sim, unsigned n)
{
    unsigned i = bgsim_draw(sim, "thread", n + 1);
    g_autofree char *name = g_strdup_printf("iothread%u", i);

    return i == 0 ? bgsim_main_context(sim) : bgsim_thread_get(sim, name);
}

BgSimDisk *scenario_disk(BgSim *sim, const char *name, int64_t size)
{
    static const uint32_t aligns[] = { 512, 4096, 1 };
    static const uint32_t transfers[] = { 0, 4096, 16384 };
    BgSimDiskConfig config = {
        .size = size,
        .request_alignment = aligns[bgsim_draw(sim, "disk.align", 3)],
        .max_transfer = transfers[bgsim_draw(sim, "disk.transfer", 3)],
        .max_iov = bgsim_draw(sim, "disk.iov", 3),
        .grows = bgsim_chance(sim, "disk.grows", 300),
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 200),
        .no_fua = bgsim_chance(sim, "disk.no-fua", 300),
        .lying_zero_write = bgsim_chance(sim, "disk.lying-zero", 100),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .slow_permille = bgsim_draw(sim, "disk.slow", 3),
        .torn_read_permille = bgsim_draw(sim, "disk.torn", 2) * 300,
    };

    return bgsim_disk_new(sim, name, &config);
}

bool scenario_faults(BgSim *sim)
{
    static const unsigned permilles[] = { 0, 0, 5, 30 };
    unsigned permille = permilles[bgsim_draw(sim, "fault.dial", 4)];

    bgsim_fail_randomly(sim, permille,
                        permille ? 1 + bgsim_draw(sim, "fault.budget", 8) : 0);
    return permille > 0;
}

bool scenario_rewrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                      GError **errp)
{
    uint8_t before[4096], after[4096];

    g_assert(bytes <= (int64_t)sizeof(before));
    if (blk_pread(blk, offset, bytes, before, 0) < 0 ||
        blk_pwrite(blk, offset, bytes, before, 0) < 0 ||
        blk_flush(blk) < 0 ||
        blk_pread(blk, offset, bytes, after, 0) < 0) {
        block_error(errp, EIO, "a request of the recovery failed");
        return false;
    }
    if (memcmp(before, after, bytes) != 0) {
        block_error(errp, EILSEQ, "what was written is not what is read");
        return false;
    }
    return true;
}
