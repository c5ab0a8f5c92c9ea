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
 * D3  With O_DIRECT this holds from the first operation on that goes through
 *     the page cache all the same: fallocate, copy_file_range and ftruncate
 *     zero or copy there what is not whole blocks.  Before it begins, all syncs
 *     of the quick kind below have ended, so none can take its error.
 *
 * A FUA write in the page cache is a write and then a sync, two calls, so that
 * a write without space (harmless, the guest may try again) is told from a
 * sync that failed.  Where only direct I/O was done nothing is forgotten, and a
 * write with RWF_DSYNC can go to the disk as one command.
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

void coroutine_fn file_use_cache(FileState *s)
{
    if (s->handle->direct && !atomic_load(&s->cache_used)) {
        co_rwlock_wrlock(&s->quick_syncs);                      /* D3 */
        atomic_store(&s->cache_used, true);
        co_rwlock_unlock(&s->quick_syncs);
    }
}

/*
 * Hold off file_use_cache() for a sync whose failure may be forgotten, until
 * co_rwlock_unlock().  False, and nothing to unlock: it must not be one.
 */
static bool coroutine_fn begin_quick_sync(FileState *s)
{
    if (!s->handle->direct || atomic_load(&s->cache_used)) {
        return false;
    }
    co_rwlock_rdlock(&s->quick_syncs);
    if (atomic_load(&s->cache_used)) {
        co_rwlock_unlock(&s->quick_syncs);
        return false;
    }
    return true;
}

int coroutine_fn file_flush(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);
    int ret;

    if (atomic_load(&s->lost)) {
        return -EIO;                                            /* D2 */
    }
    if (!begin_quick_sync(s)) {
        return sync_cached(s);
    }
    ret = aio_file_fdatasync(s->handle->file);
    co_rwlock_unlock(&s->quick_syncs);
    return ret;
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_data(FileState *s, const BlockIO *io, bool fua)
{
    FileHandle *h = s->handle;
    bool quick;
    int ret;

    if (G_UNLIKELY(fua && atomic_load(&s->lost))) {
        return -EIO;                                            /* D2 */
    }
    quick = fua && begin_quick_sync(s);
    ret = aio_file_pwritev(h->file, io->iov->iov, io->iov->niov, io->offset,
                           io->bytes, quick);
    if (quick) {
        co_rwlock_unlock(&s->quick_syncs);
    } else if (ret == 0 && fua) {
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
