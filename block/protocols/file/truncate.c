/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of the length, and new files.
 *
 * All of it is done by blocking calls in a worker thread.  For a change of
 * length the core holds off every request beyond the smaller of the two
 * lengths, so nobody meets what is half done.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* How much is written at once for preallocation "full". */
#define FULL_CHUNK_BYTES (1024 * 1024)

/* --- preallocation -------------------------------------------------------- */

static int do_fallocate(const FileHandle *h, int64_t offset, int64_t end)
{
    int ret;

    if (offset >= end) {
        return 0;
    }
    do {
        ret = fallocate(h->fd, 0, offset, end - offset);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* Write zeroes; the range is aligned as direct I/O wants it. */
static int write_zeroes(const FileHandle *h, int64_t offset, int64_t end)
{
    size_t chunk = MAX(FULL_CHUNK_BYTES, h->request_alignment);
    uint8_t *buf = block_aligned_try_alloc(MAX(h->mem_alignment, 4096), chunk);
    int ret = buf ? 0 : -ENOMEM;

    if (buf) {
        memset(buf, 0, chunk);
    }
    while (ret == 0 && offset < end) {
        ssize_t done = pwrite(h->fd, buf, MIN(end - offset, (int64_t)chunk),
                              offset);

        if (done > 0) {
            offset += done;
        } else if (done == 0) {
            ret = -EIO;
        } else if (errno != EINTR) {
            ret = -errno;
        }
    }
    block_aligned_free(buf);
    return ret;
}

/*
 * Zeroes in the whole new part.  What direct I/O cannot write, less than a
 * block at each end, gets its space by fallocate where the file can do that.
 */
static int write_new_part(const FileHandle *h, int64_t old, int64_t new)
{
    int64_t align = h->request_alignment;
    int64_t start = (old + align - 1) / align * align;
    int64_t end = new / align * align;
    int ret;

    if (ftruncate(h->fd, new) < 0) {
        return -errno;
    }
    if (start >= end) {
        start = end = new;
    }
    ret = write_zeroes(h, start, end);
    if (ret == 0 && (old < start || end < new)) {
        ret = do_fallocate(h, old, start);
        ret = ret < 0 ? ret : do_fallocate(h, end, new);
        ret = ret == -EOPNOTSUPP ? 0 : ret;
    }
    return ret;
}

/* --- changing the length -------------------------------------------------- */

static int set_length(const FileHandle *h, const BlockTruncate *how,
                      int64_t old)
{
    int ret = -EOPNOTSUPP;

    if (how->offset > old && how->prealloc == PREALLOC_MODE_FALLOC) {
        ret = do_fallocate(h, old, how->offset);
    }
    if (how->offset > old && how->prealloc != PREALLOC_MODE_OFF) {
        /* To write is another way to reserve, where there is no quick one. */
        return ret == -EOPNOTSUPP ? write_new_part(h, old, how->offset) : ret;
    }
    return ftruncate(h->fd, how->offset) < 0 ? -errno : 0;
}

static int resize_regular(const FileHandle *h, const BlockTruncate *how,
                          int64_t old, GError **errp)
{
    int ret;

    if (how->offset < old && how->prealloc != PREALLOC_MODE_OFF) {
        return block_error(errp, EINVAL, "Node '%s': preallocation '%s' cannot "
                           "be used to make file '%s' shorter", h->node_name,
                           prealloc_mode_names[how->prealloc], h->filename);
    }
    ret = set_length(h, how, old);
    if (ret < 0) {
        block_error_errno(errp, -ret, "Node '%s': could not resize file '%s' "
                          "from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT
                          " bytes (preallocation '%s')", h->node_name,
                          h->filename, old, how->offset,
                          prealloc_mode_names[how->prealloc]);
        if (how->offset > old && ftruncate(h->fd, old) < 0) {
            g_warning("Node '%s': could not set file '%s' back to %"
                      G_GINT64_FORMAT " bytes: %s", h->node_name, h->filename,
                      old, g_strerror(errno));
        }
    }
    return ret;
}

static int resize_device(const FileHandle *h, const BlockTruncate *how,
                         int64_t length, GError **errp)
{
    if (how->prealloc != PREALLOC_MODE_OFF) {
        return block_error(errp, ENOTSUP, "Node '%s': device '%s' has no "
                           "preallocation '%s'", h->node_name, h->filename,
                           prealloc_mode_names[how->prealloc]);
    }
    if (how->offset > length || (how->exact && how->offset != length)) {
        return block_error(errp, how->offset > length ? EINVAL : ENOTSUP,
                           "Node '%s': device '%s' has %" G_GINT64_FORMAT
                           " bytes, which cannot be changed to %"
                           G_GINT64_FORMAT, h->node_name, h->filename, length,
                           how->offset);
    }
    return 0;
}

/* Worker thread. */
static int resize(const FileHandle *h, const BlockTruncate *how, GError **errp)
{
    int64_t length;

    if (how->prealloc == PREALLOC_MODE_METADATA) {
        return block_error(errp, ENOTSUP, "Node '%s': driver 'file' has no "
                           "preallocation 'metadata'", h->node_name);
    }
    length = file_handle_length(h);
    if (length < 0) {
        return block_error_errno(errp, -length, "Node '%s': could not get the "
                                 "length of '%s'", h->node_name, h->filename);
    }
    return h->is_device ? resize_device(h, how, length, errp)
                        : resize_regular(h, how, length, errp);
}

typedef struct ResizeJob {
    const FileHandle *handle;
    const BlockTruncate *how;
    GError *error;
} ResizeJob;

static int resize_work(void *opaque)
{
    ResizeJob *job = opaque;

    return resize(job->handle, job->how, &job->error);
}

int coroutine_fn file_truncate(BlockDriverState *bs, const BlockTruncate *how,
                               GError **errp)
{
    FileState *s = bdrv_opaque(bs);
    ResizeJob job = { .handle = s->handle, .how = how };
    int ret;

    file_use_cache(s);
    ret = aio_co_work(resize_work, &job);
    data_extent_forget(&s->data);
    if (job.error) {
        g_propagate_error(errp, job.error);
    }
    return ret;
}

/* --- new files ------------------------------------------------------------ */

static const char *const create_prealloc_names[] = { "off", "falloc", "full",
                                                     NULL };
static const PreallocMode create_prealloc_modes[] = {
    PREALLOC_MODE_OFF, PREALLOC_MODE_FALLOC, PREALLOC_MODE_FULL,
};

typedef struct CreateOptions {
    char *filename;
    int64_t size;
    int prealloc; /* index into the two tables above */
} CreateOptions;

const BlockOption file_create_options[] = {
    { .name = "filename", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(CreateOptions, filename),
      .help = "file to make, or to overwrite" },
    { .name = "size", .type = BLOCK_OPTION_SIZE, .required = true,
      .min = 0, .max = BDRV_MAX_LENGTH,
      .offset = offsetof(CreateOptions, size), .help = "length in bytes" },
    { .name = "preallocation", .type = BLOCK_OPTION_ENUM, .def = "off",
      .values = create_prealloc_names,
      .offset = offsetof(CreateOptions, prealloc),
      .help = "how space is provided" },
    { .type = BLOCK_OPTION_END },
};

/* The name that error texts give to a node that is not there. */
#define CREATE_NODE_NAME "(new image)"

/* Make the file unless it exists.  Returns 1 if it was made, 0, or < 0. */
static int make_file(const char *filename, GError **errp)
{
    int flags = O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd;

    do {
        fd = open(filename, flags, 0644);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return errno == EEXIST ? 0
                               : block_error_errno(errp, errno, "Could not "
                                                   "create file '%s'",
                                                   filename);
    }
    close(fd);
    return 1;
}

/* Empty the file under lock, so that nobody's image is destroyed, and grow. */
static int fill_file(FileHandle *h, const CreateOptions *o, GError **errp)
{
    const BlockPerm perm = {
        .used = BLK_PERM_WRITE | BLK_PERM_RESIZE,
        .shared = BLK_PERM_ALL & ~BLK_PERM_RESIZE,
    };
    BlockTruncate how = { .offset = 0, .exact = false };
    int ret = file_lock_extend(&h->lock, &perm, errp);

    if (ret == 0) {
        ret = file_lock_check(&h->lock, &perm, errp);
    }
    if (ret == 0) {
        ret = resize(h, &how, errp);
    }
    how.offset = o->size;
    how.prealloc = create_prealloc_modes[o->prealloc];
    return ret < 0 ? ret : resize(h, &how, errp);
}

typedef struct CreateJob {
    const CreateOptions *options;
    GError *error;
} CreateJob;

static int create_work(void *opaque)
{
    CreateJob *job = opaque;
    const char *filename = job->options->filename;
    FileOpenHow how = { .node_name = CREATE_NODE_NAME, .filename = filename,
                        .flags = BDRV_O_RDWR, .locking = FILE_LOCKING_AUTO,
                        .mode = AIO_FILE_ENGINE };
    int made = make_file(filename, &job->error);
    FileHandle *h;
    int ret;

    if (made < 0) {
        return made;
    }
    h = file_handle_open(&how, &job->error);
    ret = h ? fill_file(h, job->options, &job->error)
            : -block_error_code(job->error);
    if (ret < 0 && made) {
        unlink(filename);
    }
    file_handle_close(h);
    return ret;
}

int coroutine_fn file_create(BlockGraph *graph, BlockOptions *options,
                             GError **errp)
{
    static const BlockOption *const known[] = { file_create_options, NULL };
    const char *what = "Creation of an image (driver 'file')";
    CreateOptions o;
    CreateJob job = { .options = &o };
    int ret = block_options_absorb(options, file_create_options, &o, what,
                                   errp);

    if (ret < 0) {
        return ret;
    }
    ret = block_options_check_empty(options, known, what, errp);
    if (ret == 0) {
        ret = aio_co_work(create_work, &job);
        if (job.error) {
            g_propagate_error(errp, job.error);
        }
    }
    block_options_clear(file_create_options, &o);
    return ret;
}
