/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies from file to file inside the kernel: copy_file_range(2), which shares
 * the space of both where the file system can.
 *
 * -ENOTSUP means that the caller shall read and write instead.  It is returned
 * for anything that another way may do, also in the middle of a copy: to copy
 * a range once more does no harm.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct CopyJob {
    int src_fd;
    int dst_fd;
    int64_t src_offset;
    int64_t dst_offset;
    int64_t bytes;
} CopyJob;

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

/* What copy_file_range(2) says when it does not do this pair of files. */
static bool is_unsupported(int ret)
{
    return ret == -EXDEV || ret == -EOPNOTSUPP || ret == -EINVAL ||
           ret == -ENOSYS;
}

static int coroutine_fn copy_in_kernel(FileState *dst, CopyJob *job)
{
    int ret;

    file_use_cache(dst);
    ret = aio_serial_work(&dst->copies, copy_work, job);
    data_extent_forget(&dst->data);     /* holes may be copied as such */
    if (is_unsupported(ret)) {
        file_note_cannot(dst, FILE_CANNOT_COPY);
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
    int ret;

    if (!src || file_cannot(s, FILE_CANNOT_COPY)) {
        return -ENOTSUP;
    }
    job.src_fd = src->fd;
    if (copy->dst_offset + copy->bytes <= bdrv_length(bs)) {
        return copy_in_kernel(s, &job);
    }
    co_rwlock_wrlock(&s->growth);
    ret = copy_in_kernel(s, &job);
    co_rwlock_unlock(&s->growth);
    return ret;
}
