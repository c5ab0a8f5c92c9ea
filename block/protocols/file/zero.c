/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero writes and discards.
 *
 * What a file can do differs by file system and is found out by trying, once a
 * node: what was refused as unsupported is not tried again.  The ways, best
 * first:
 *
 *   may unmap   punch a hole
 *   else        ZERO_RANGE; or a hole, then space allocated in its place; or
 *               just space, where the file ended before
 *
 * A hole in a file reads as zero, and so does one in a block device: the
 * kernel zeroes the range with or without giving space back.  Without a quick
 * way a device writes zeroes for ZERO_RANGE itself, which NO_FALLBACK forbids.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#define MODE_PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* One zero write. */
typedef struct ZeroJob {
    FileState *s;
    int64_t offset;
    int64_t bytes;
    int64_t length;  /* of the file before it */
    unsigned flags;  /* BdrvRequestFlags */
} ZeroJob;

static bool is_unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENODEV ||
           ret == -ENOTTY;
}

/* fallocate(2) unless it is known to be in vain; -ENOTSUP: another way. */
static int coroutine_fn try_fallocate(FileState *s, FileCannot what, int mode,
                                      int64_t offset, int64_t bytes)
{
    int ret;

    if (file_cannot(s, what)) {
        return -ENOTSUP;
    }
    file_use_cache(s);
    ret = aio_file_fallocate(s->handle->file, mode, offset, bytes);
    data_extent_forget(&s->data);
    if (is_unsupported(ret)) {
        file_note_cannot(s, what);
        return -ENOTSUP;
    }
    /* Some do not take every range: that says nothing about the next one. */
    return ret == -EINVAL ? -ENOTSUP : ret;
}

static int coroutine_fn punch(const ZeroJob *job)
{
    return try_fallocate(job->s, FILE_CANNOT_PUNCH, MODE_PUNCH, job->offset,
                         job->bytes);
}

static int coroutine_fn allocate(const ZeroJob *job, int64_t offset)
{
    return try_fallocate(job->s, FILE_CANNOT_ALLOCATE, 0, offset,
                         job->offset + job->bytes - offset);
}

/* A hole, and beyond the old end a longer file. */
static int coroutine_fn zero_by_hole(const ZeroJob *job)
{
    int ret = punch(job);

    if (ret == 0 && job->offset + job->bytes > job->length) {
        ret = allocate(job, MAX(job->offset, job->length));
    }
    return ret;
}

static int coroutine_fn zero_regular(const ZeroJob *job)
{
    int ret = -ENOTSUP;

    if (job->flags & BDRV_REQ_MAY_UNMAP) {
        ret = zero_by_hole(job);
    }
    if (ret == -ENOTSUP) {
        ret = try_fallocate(job->s, FILE_CANNOT_ZERO_RANGE,
                            FALLOC_FL_ZERO_RANGE, job->offset, job->bytes);
    }
    if (ret == -ENOTSUP && !file_cannot(job->s, FILE_CANNOT_ALLOCATE)) {
        ret = punch(job);
        if (ret == 0) {
            ret = allocate(job, job->offset);
        }
    }
    if (ret == -ENOTSUP && job->offset >= job->length) {
        ret = allocate(job, job->offset);
    }
    return ret;
}

static int coroutine_fn zero_device(const ZeroJob *job)
{
    int64_t block = job->s->handle->device_block;
    int ret = -ENOTSUP;

    if (job->offset % block || job->bytes % block) {
        return -ENOTSUP;
    }
    if (job->flags & BDRV_REQ_MAY_UNMAP) {
        ret = punch(job);
    }
    if (ret == -ENOTSUP && !(job->flags & BDRV_REQ_NO_FALLBACK)) {
        ret = try_fallocate(job->s, FILE_CANNOT_ZERO_RANGE,
                            FALLOC_FL_ZERO_RANGE, job->offset, job->bytes);
    }
    return ret;
}

int coroutine_fn file_pwrite_zeroes(BlockDriverState *bs, const BlockIO *io)
{
    FileState *s = bdrv_opaque(bs);
    ZeroJob job = { .s = s, .offset = io->offset, .bytes = io->bytes,
                    .flags = io->flags, .length = bdrv_length(bs) };
    int ret;

    if (s->handle->is_device) {
        return zero_device(&job);
    }
    if (G_LIKELY(io->offset + io->bytes <= job.length)) {
        return zero_regular(&job);
    }
    co_rwlock_wrlock(&s->growth);
    /* Where the file ends must be right: what lies before is not zero. */
    job.length = file_handle_co_length(s->handle);
    ret = job.length < 0 ? job.length : zero_regular(&job);
    co_rwlock_unlock(&s->growth);
    return ret;
}

/* --- discard -------------------------------------------------------------- */

typedef struct DiscardJob {
    int fd;
    uint64_t range[2]; /* offset and bytes, as the kernel wants them */
} DiscardJob;

static int discard_work(void *opaque)
{
    DiscardJob *job = opaque;
    int ret;

    do {
        ret = ioctl(job->fd, BLKDISCARD, job->range);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int coroutine_fn discard_device(FileState *s, const BlockIO *io)
{
    DiscardJob job = { .fd = s->handle->fd,
                       .range = { io->offset, io->bytes } };
    int64_t block = s->handle->device_block;
    int ret;

    if (file_cannot(s, FILE_CANNOT_DISCARD) || io->offset % block ||
        io->bytes % block) {
        return -ENOTSUP;
    }
    ret = aio_co_work(discard_work, &job);
    if (is_unsupported(ret)) {
        file_note_cannot(s, FILE_CANNOT_DISCARD);
        ret = -ENOTSUP;
    }
    return ret;
}

int coroutine_fn file_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    FileState *s = bdrv_opaque(bs);

    if (s->handle->is_device) {
        return discard_device(s, io);
    }
    return try_fallocate(s, FILE_CANNOT_PUNCH, MODE_PUNCH, io->offset,
                         io->bytes);
}
