/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The allocation oracle: what block status says of a disk at rest is so.
 */
#include "sim/sim-int.h"

#include <blockgraph/driver.h>
#include <errno.h>
#include <string.h>

#define CHUNK (64 * 1024)

static bool wrong(GError **errp, const BlockExtent *extent, int64_t offset,
                  const char *what)
{
    block_error(errp, EILSEQ, "Block status %#x of [%" G_GINT64_FORMAT ", +%"
                G_GINT64_FORMAT "): %s", extent->status, offset,
                extent->bytes, what);
    return false;
}

/* The simulated disk below the node @bs, or NULL. */
static BgSimDisk *disk_below(BgSim *sim, const BlockDriverState *bs)
{
    return bs && strcmp(bdrv_driver_name(bs), "sim-disk") == 0
               ? bgsim_disk_find(sim, bdrv_node_name(bs))
               : NULL;
}

/* One part of an extent: [@offset + @at, + @bytes), which reads as @data. */
static bool check_part(BgSim *sim, const BlockExtent *extent, int64_t at,
                       const uint8_t *data, int64_t bytes)
{
    g_autofree uint8_t *stored = NULL;
    BgSimDisk *disk;

    if ((extent->status & BDRV_BLOCK_ZERO) &&
        !block_buffer_is_zero(data, bytes)) {
        return false;
    }
    disk = extent->status & BDRV_BLOCK_OFFSET_VALID
               ? disk_below(sim, extent->file) : NULL;
    if (!disk || (extent->status & BDRV_BLOCK_ZERO)) {
        return true;            /* zeroes need not be stored as such */
    }
    stored = g_malloc(bytes);
    bgsim_disk_peek(disk, extent->map + at, bytes, stored);
    return memcmp(stored, data, bytes) == 0;
}

static bool check_extent(BgSim *sim, BlockBackend *blk, int64_t offset,
                         const BlockExtent *extent, GError **errp)
{
    g_autofree uint8_t *data = g_malloc(CHUNK);

    for (int64_t at = 0; at < extent->bytes; at += CHUNK) {
        int64_t bytes = MIN(CHUNK, extent->bytes - at);
        int ret = blk_pread(blk, offset + at, bytes, data, 0);

        if (ret < 0) {
            return wrong(errp, extent, offset, g_strerror(-ret));
        }
        if (!check_part(sim, extent, at, data, bytes)) {
            return wrong(errp, extent, offset,
                         extent->status & BDRV_BLOCK_ZERO
                             ? "there are other bytes than zeroes"
                             : "the bytes are not at that place of the file");
        }
    }
    return true;
}

bool bgsim_check_map(BgSim *sim, BlockBackend *blk, GError **errp)
{
    int64_t length = blk_getlength(blk);
    int64_t offset = 0;

    while (offset < length) {
        BlockExtent extent = { .bytes = 0 };
        int ret = blk_block_status(blk, offset, length - offset, &extent);

        if (ret < 0) {
            return wrong(errp, &extent, offset, g_strerror(-ret));
        }
        if (extent.bytes <= 0 || extent.bytes > length - offset) {
            return wrong(errp, &extent, offset, "that is no length");
        }
        if (!check_extent(sim, blk, offset, &extent, errp)) {
            return false;
        }
        offset += extent.bytes;
    }
    return true;
}
