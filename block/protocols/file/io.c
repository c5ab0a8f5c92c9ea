/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads, writes and flushes of a file.
 *
 * Growth.  A write beyond the known end holds s->growth shared; whoever
 * allocates beyond the end (zero writes, copies) holds it exclusive.  Some
 * file systems have lost data when both happened at once.  Writes inside the
 * file, which are all that a guest sends, pay one comparison.
 *
 * Durability.  When writing back the page cache fails, the kernel tells the
 * next fdatasync(2) and may then forget the data: the one after succeeds.  So:
 *
 * D1  On a file in the page cache all syncs of a node follow each other; one
 *     that begins after another has failed sees s->lost.
 * D2  Once s->lost is set it stays, and every flush and every FUA write fails
 *     until the node is closed.
 *
 * A FUA write in the page cache is a write and then a sync, two calls, so that
 * a write without space (harmless, the guest may try again) is told from a
 * sync that failed.  With O_DIRECT nothing is forgotten, and a write with
 * RWF_DSYNC can go to the disk as one command.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>

int coroutine_fn file_preadv(BlockDriverState *bs, const BlockIO *io)
{
    FileState *s = bdrv_opaque(bs);
    int64_t done = aio_file_preadv(s->handle->file, io->iov->iov,
                                   io->iov->niov, io->offset, io->bytes);

    if (done < 0) {
        return done;
    }
    if (G_UNLIKELY(done < io->bytes)) {
        /* It ends here now, although the core may not know it yet. */
        block_iov_memset(io->iov, done, 0, io->bytes - done);
    }
    return 0;
}

/* --- syncs ---------------------------------------------------------------- */

static int coroutine_fn sync_cached(FileState *s)
{
    uint64_t begun_before = atomic_load(&s->syncs_begun);
    int ret;

    co_mutex_lock(&s->sync_lock);                               /* D1 */
    if (atomic_load(&s->lost)) {
        ret = -EIO;                                             /* D2 */
    } else if (s->last_good_sync > begun_before) {
        ret = 0; /* one that began after we came covers our writes too */
    } else {
        uint64_t number = atomic_fetch_add(&s->syncs_begun, 1) + 1;

        ret = aio_file_fdatasync(s->handle->file);
        if (ret < 0) {
            atomic_store(&s->lost, true);                       /* D2 */
        } else {
            s->last_good_sync = number;
        }
    }
    co_mutex_unlock(&s->sync_lock);
    return ret;
}

int coroutine_fn file_flush(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);

    if (atomic_load(&s->lost)) {
        return -EIO;                                            /* D2 */
    }
    return s->handle->direct ? aio_file_fdatasync(s->handle->file)
                             : sync_cached(s);
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_data(FileState *s, const BlockIO *io, bool fua)
{
    FileHandle *h = s->handle;
    bool dsync = fua && h->direct;
    int ret;

    if (G_UNLIKELY(fua && atomic_load(&s->lost))) {
        return -EIO;                                            /* D2 */
    }
    ret = aio_file_pwritev(h->file, io->iov->iov, io->iov->niov, io->offset,
                           io->bytes, dsync);
    if (ret == 0 && fua && !dsync) {
        ret = sync_cached(s);
    }
    return ret;
}

int coroutine_fn file_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    FileState *s = bdrv_opaque(bs);
    bool fua = (io->flags & BDRV_REQ_FUA) &&
               !(bdrv_open_flags(bs) & BDRV_O_NO_FLUSH);
    int ret;

    if (G_LIKELY(io->offset + io->bytes <= bdrv_length(bs))) {
        return write_data(s, io, fua);
    }
    co_rwlock_rdlock(&s->growth);
    ret = write_data(s, io, fua);
    co_rwlock_unlock(&s->growth);
    return ret;
}
