/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flush: ended writes reach stable storage.
 *
 * Each node counts the writes that have ended (tracked.c).  A flush that finds
 * the count where the last good flush began has nothing to do.  Flushes of one
 * node follow each other, so the count read at the start of one covers all
 * that ended before it.  A flush that fails leaves the mark where it was: the
 * next one asks the driver again, and the driver remembers what it lost.
 */
#include "block/io/io-int.h"

#include <errno.h>

static int coroutine_fn flush_driver(BlockDriverState *bs)
{
    int ret;

    if (!bs->drv->flush) {
        return 0;
    }
    if (bs->drv->kind == BLOCK_DRIVER_FILTER && !bs->filtered) {
        return 0; /* taken out of the graph: what it saw is others' business */
    }
    if (bs->drv->kind == BLOCK_DRIVER_PROTOCOL &&
        (bs->open_flags & BDRV_O_NO_FLUSH)) {
        return 0;
    }
    io_debug_event(bs, "flush_to_os");
    io_debug_event(bs, "flush_to_disk");
    ret = SIM_FAULT("io.flush", bs->node_name);
    ret = ret < 0 ? ret : bs->drv->flush(bs);
    g_assert(ret <= 0);
    return ret;
}

static int coroutine_fn flush_node(BlockDriverState *bs)
{
    uint64_t writes;
    int ret = 0;

    co_mutex_lock(&bs->flush_lock);
    writes = tracked_writes(&bs->tracked);
    if (writes != bs->flushed_writes) {
        ret = flush_driver(bs);
        if (SIM_PLANTED(10)) {
            writes = tracked_writes(&bs->tracked);
        }
        if (ret == 0 || SIM_PLANTED(8)) {
            bs->flushed_writes = writes;
        }
    }
    co_mutex_unlock(&bs->flush_lock);
    return ret;
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    int ret = 0;

    if (bdrv_is_read_only(bs)) {
        return 0;
    }
    ret = flush_node(bs);
    if (ret < 0) {
        return ret;
    }
    LIST_FOREACH(link, &bs->children) {
        BdrvChild *child = LIST_ENTRY(link, BdrvChild, parent_link);
        int child_ret;

        if (!(child->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA |
                             BDRV_CHILD_FILTERED))) {
            continue; /* what we do not write for our own parents */
        }
        /* All are tried, the first error is told. */
        child_ret = bdrv_co_flush(child->bs);
        ret = ret < 0 ? ret : child_ret;
    }
    return ret;
}

int coroutine_fn io_flush_write(BlockDriverState *bs)
{
    tracked_count_write(&bs->tracked);
    return bdrv_co_flush(bs);
}
