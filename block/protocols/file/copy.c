/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies from file to file that do not read and write: the two share the space
 * where the file system can, or its server copies.
 *
 * copy_file_range(2) does both, but goes on to move page by page under the
 * target's lock where neither works.  To read and write at the same time is
 * faster then, and finds zeroes.  So on a file system of this machine, which
 * has no server, only FICLONERANGE is tried.
 *
 * -ENOTSUP means that the caller shall read and write instead.  It is returned
 * for anything that another way may do, also in the middle of a copy: to copy
 * a range once more does no harm.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct CopyJob {
    int src_fd;
    int dst_fd;
    int64_t src_offset;
    int64_t dst_offset;
    int64_t bytes;
} CopyJob;

/* Worker thread: 0 or a negative errno. */
static int clone_work(void *opaque)
{
    const CopyJob *job = opaque;
    struct file_clone_range range = {
        .src_fd = job->src_fd, .src_offset = job->src_offset,
        .src_length = job->bytes, .dest_offset = job->dst_offset,
    };

    return ioctl(job->dst_fd, FICLONERANGE, &range) < 0 ? -errno : 0;
}

static int copy_work(void *opaque)
{
    CopyJob *job = opaque;
    off64_t from = job->src_offset;
    off64_t to = job->dst_offset;

    while (job->bytes > 0) {
        ssize_t done = copy_file_range(job->src_fd, &from, job->dst_fd, &to,
                                       job->bytes, 0);

        if (done == 0) {
            return -ENODATA; /* the source ends: no fault of the call */
        }
        if (done < 0 && errno != EINTR) {
            return -errno;
        }
        job->bytes -= MAX(done, 0);
    }
    return 0;
}

/* What the kernel says when it never does this on the target's file system. */
static bool is_unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOTTY || ret == -ENOSYS;
}

static int coroutine_fn run_copy(FileState *dst, CopyJob *job, bool local)
{
    int ret;

    file_use_cache(dst);
    ret = aio_serial_work(&dst->copies, local ? clone_work : copy_work, job);
    data_extent_forget(&dst->data);     /* holes may be copied as such */
    if (ret == -EXDEV || (ret == -EINVAL && local)) {
        return -ENOTSUP;    /* another source may do, or a range of blocks */
    }
    if (ret == -EINVAL || is_unsupported(ret)) {
        file_note_cannot(dst, local ? FILE_CANNOT_CLONE : FILE_CANNOT_COPY);
        return -ENOTSUP;
    }
    return ret == -ENODATA ? -ENOTSUP : ret;
}

static bool overlaps(const BlockCopyRange *copy)
{
    return copy->src_offset < copy->dst_offset + copy->bytes &&
           copy->dst_offset < copy->src_offset + copy->bytes;
}

/* The files of an edge whose copies this file can take over, or NULL. */
static const FileHandle *source_handle(const FileHandle *dst,
                                       const BlockCopyRange *copy)
{
    BlockDriverState *bs = bdrv_child_bs(copy->src);
    const FileHandle *src;

    if (strcmp(bdrv_driver_name(bs), "file") != 0) {
        return NULL;
    }
    src = ((FileState *)bdrv_opaque(bs))->handle;
    if (src->is_device || dst->is_device) {
        return NULL;
    }
    if (src->dev == dst->dev && src->ino == dst->ino && overlaps(copy)) {
        return NULL;
    }
    return src;
}

int coroutine_fn file_copy_range_from(BlockDriverState *bs,
                                      const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

int coroutine_fn file_copy_range_to(BlockDriverState *bs,
                                    const BlockCopyRange *copy)
{
    FileState *s = bdrv_opaque(bs);
    const FileHandle *src = source_handle(s->handle, copy);
    CopyJob job = { .dst_fd = s->handle->fd, .src_offset = copy->src_offset,
                    .dst_offset = copy->dst_offset, .bytes = copy->bytes };
    bool local = s->handle->is_local;
    int ret;

    if (!src ||
        file_cannot(s, local ? FILE_CANNOT_CLONE : FILE_CANNOT_COPY)) {
        return -ENOTSUP;
    }
    job.src_fd = src->fd;
    if (copy->dst_offset + copy->bytes <= bdrv_length(bs)) {
        return run_copy(s, &job, local);
    }
    co_rwlock_wrlock(&s->growth);
    ret = run_copy(s, &job, local);
    co_rwlock_unlock(&s->growth);
    return ret;
}
