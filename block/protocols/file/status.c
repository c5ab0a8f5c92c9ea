/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Facts about a file: its length, its space, which parts are holes.
 *
 * Of extents only one that is data is remembered between two questions, until
 * this node does something that may make a hole.  Otherwise the answer is the
 * file system's at that moment, which knows of data that has not been written
 * back.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <unistd.h>

int64_t coroutine_fn file_getlength(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);

    return file_handle_co_length(s->handle);
}

typedef struct SpaceJob {
    int fd;
    int64_t bytes;
} SpaceJob;

static int space_work(void *opaque)
{
    SpaceJob *job = opaque;
    struct stat st;

    if (fstat(job->fd, &st) < 0) {
        return -errno;
    }
    job->bytes = (int64_t)st.st_blocks * 512; /* the unit of stat(2) */
    return 0;
}

int64_t coroutine_fn file_get_allocated_size(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);
    SpaceJob job = { .fd = s->handle->fd };
    int ret = aio_co_work(space_work, &job);

    return ret < 0 ? ret : job.bytes;
}

int file_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    *info = (BlockDriverInfo){ .cluster_bytes = 0 };
    return 0;
}

/* --- extents -------------------------------------------------------------- */

/* A question about the extent at @offset, and the answer. */
typedef struct ExtentJob {
    int fd;
    int64_t offset;
    bool is_hole;
    int64_t end;     /* where the extent ends; INT64_MAX: not in this file */
} ExtentJob;

/* 0, or a negative errno when the file system cannot tell. */
static int extent_work(void *opaque)
{
    ExtentJob *job = opaque;
    off_t data = lseek(job->fd, job->offset, SEEK_DATA);
    off_t hole;

    if (data < 0) {
        /* No data from here to the end, or we are behind the end. */
        job->is_hole = errno == ENXIO;
        job->end = INT64_MAX;
        return job->is_hole ? 0 : -errno;
    }
    if (data < job->offset) {
        return -EIO;
    }
    if (data > job->offset) {
        job->is_hole = true;
        job->end = data;
        return 0;
    }
    hole = lseek(job->fd, job->offset, SEEK_HOLE);
    if (hole <= job->offset) {
        return -EIO; /* it changes while we look */
    }
    job->is_hole = false;
    job->end = hole;
    return 0;
}

/* As extent_work(), but that what is known to be data is not asked for. */
static int coroutine_fn ask_extent(FileState *s, ExtentJob *job)
{
    uint64_t changes = data_extent_changes(&s->data);
    int ret;

    job->end = data_extent_end(&s->data, job->offset);
    if (job->end > job->offset) {
        return 0;
    }
    ret = aio_co_work(extent_work, job);
    if (ret == 0 && !job->is_hole) {
        data_extent_note(&s->data, changes, job->offset, job->end);
    }
    return ret;
}

int coroutine_fn file_block_status(BlockDriverState *bs, const BlockIO *io,
                                   BlockExtent *ret)
{
    FileState *s = bdrv_opaque(bs);
    int64_t align = s->handle->request_alignment;
    ExtentJob job = { .fd = s->handle->fd, .offset = io->offset };
    int64_t bytes;

    *ret = (BlockExtent){ .bytes = io->bytes, .map = io->offset, .file = bs,
                          .status = BDRV_BLOCK_DATA |
                                    BDRV_BLOCK_OFFSET_VALID };
    if (!(io->flags & BDRV_WANT_ZERO) || s->handle->is_device ||
        ask_extent(s, &job) < 0) {
        return 0; /* what is not known is data */
    }
    bytes = MIN(job.end - io->offset, io->bytes);
    if (job.is_hole) {
        /* A unit that is a hole in part is data. */
        bytes -= bytes % align;
        if (bytes == 0) {
            ret->bytes = align;
            return 0;
        }
        ret->status = BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
        ret->bytes = bytes;
        return 0;
    }
    ret->bytes = MIN((bytes + align - 1) / align * align, io->bytes);
    return 0;
}
