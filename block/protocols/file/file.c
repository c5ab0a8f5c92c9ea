/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file: a regular file or a block device of the host.
 *
 * This part has the control side: options, opening, reopening, permissions as
 * locks, limits.  A node has one handle (descriptor) at a time.  Reopening
 * opens the file a second time:
 *
 *   reopen_prepare   open it, check that it is the same file
 *   perm_prepare     take and check locks on the old handle, then on the new
 *   perm_commit      release what is too much on both
 *   reopen_commit    the new handle serves, the old one is closed
 *
 * From perm_prepare on both handles hold locks, so the file is never free for
 * another process in between.  Others are looked for only while the new handle
 * holds nothing: the kernel does not say whose a lock is.
 */
#include "block/drivers.h"
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const char *const locking_names[] = { "auto", "on", "off", NULL };
static const char *const aio_names[] = { "io_uring", "threads", NULL };

typedef struct FileOptions {
    char *filename;
    char *beneath;
    bool from_image;
    int locking; /* FileLocking */
    int aio;     /* AioFileMode */
} FileOptions;

_Static_assert(FILE_LOCKING_AUTO == 0 && FILE_LOCKING_ON == 1 &&
                   FILE_LOCKING_OFF == 2 && AIO_FILE_ENGINE == 0 &&
                   AIO_FILE_THREADS == 1,
               "values are indices of their names");

static const BlockOption file_options[] = {
    { .name = "filename", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(FileOptions, filename),
      .help = "path of a regular file or block device" },
    { .name = "beneath", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(FileOptions, beneath),
      .help = "directory that the file must be in, links are not followed" },
    { .name = "from-image", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(FileOptions, from_image),
      .help = "an image names it: no file of the kernel's, also by a link" },
    { .name = "locking", .type = BLOCK_OPTION_ENUM, .def = "auto",
      .values = locking_names, .offset = offsetof(FileOptions, locking),
      .help = "lock the file against other processes" },
    { .name = "aio", .type = BLOCK_OPTION_ENUM, .def = "io_uring",
      .values = aio_names, .offset = offsetof(FileOptions, aio),
      .help = "I/O by the event loop's engine, or by worker threads" },
    { .type = BLOCK_OPTION_END },
};

static int take_options(BlockDriverState *bs, BlockOptions *options,
                        FileOptions *o, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'file')",
                                            bdrv_node_name(bs));

    return block_options_absorb(options, file_options, o, what, errp);
}

static FileOpenHow open_how(BlockDriverState *bs, const FileOptions *o,
                            unsigned flags)
{
    return (FileOpenHow){
        .node_name = bdrv_node_name(bs),
        .filename = o->filename,
        .beneath = o->beneath,
        .from_image = o->from_image,
        .flags = flags,
        .locking = o->locking,
        .mode = o->aio,
    };
}

/* --- opening and closing -------------------------------------------------- */

static int coroutine_fn file_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    FileState *s = bdrv_opaque(bs);
    GError *error = NULL;
    FileOptions o;
    FileOpenHow how;
    int ret = take_options(bs, options, &o, errp);

    if (ret < 0) {
        return ret;
    }
    bdrv_set_filename(bs, o.filename);
    how = open_how(bs, &o, flags);
    s->handle = file_handle_co_open(&how, &error);
    block_options_clear(file_options, &o);
    if (!s->handle) {
        ret = -block_error_code(error);
        g_propagate_error(errp, error);
        return ret;
    }
    bdrv_set_identity(bs, s->handle->dev, s->handle->ino);
    if (!s->handle->writable) {
        bdrv_set_read_only(bs, true);
    }
    co_rwlock_init(&s->growth);
    co_rwlock_init(&s->quick_syncs);
    aio_serial_init(&s->copies);
    co_mutex_init(&s->sync_lock);
    data_extent_init(&s->data);
    s->perm = file_lock_nothing;
    return 0;
}

static int close_work(void *opaque)
{
    file_handle_close(opaque);
    return 0;
}

static void coroutine_fn file_close(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);

    aio_co_work(close_work, s->handle);
    s->handle = NULL;
}

/* --- reopening ------------------------------------------------------------ */

static int check_same_file(const FileHandle *old, const FileHandle *new,
                           GError **errp)
{
    if (old->dev == new->dev && old->ino == new->ino) {
        return 0;
    }
    return block_error(errp, EINVAL, "Node '%s': '%s' is not the file any "
                       "more that was opened under this name",
                       new->node_name, new->filename);
}

/* Whether the open handle does as well for @how. */
static bool handle_fits(const FileHandle *h, const FileOpenHow *how)
{
    bool writable = how->flags & BDRV_O_RDWR;
    bool direct = how->flags & BDRV_O_NOCACHE;

    return h->writable == writable && h->direct == direct &&
           h->locking == how->locking && h->mode == how->mode;
}

static int coroutine_fn open_next(BdrvReopenState *state,
                                  const FileOpenHow *how, GError **errp)
{
    FileState *s = bdrv_opaque(state->bs);
    GError *error = NULL;
    FileHandle *next;
    int ret = 0;

    if (s->handle->writable &&
        !(bdrv_open_flags(state->bs) & BDRV_O_NO_FLUSH)) {
        /* A new descriptor does not hear of old failures to write back. */
        ret = file_flush(state->bs);
        if (ret < 0) {
            return block_error_errno(errp, -ret, "Node '%s': could not flush "
                                     "file '%s' to open it anew",
                                     how->node_name, how->filename);
        }
    }
    next = file_handle_co_open(how, &error);
    if (next) {
        ret = check_same_file(s->handle, next, &error);
    } else {
        ret = -block_error_code(error);
    }
    if (ret < 0) {
        file_handle_close(next);
        g_propagate_error(errp, error);
        return ret;
    }
    if (!next->writable) {
        state->flags &= ~BDRV_O_RDWR;
    }
    s->next = next;
    return 0;
}

static int coroutine_fn file_reopen_prepare(BdrvReopenState *state,
                                            GError **errp)
{
    FileState *s = bdrv_opaque(state->bs);
    FileOptions o;
    FileOpenHow how;
    int ret = take_options(state->bs, state->options, &o, errp);

    if (ret < 0) {
        return ret;
    }
    g_assert(!s->next);
    how = open_how(state->bs, &o, state->flags);
    how.from_image |= s->handle->from_image; /* who named it does not change */
    if (strcmp(o.filename, s->handle->filename) != 0) {
        ret = block_error(errp, EINVAL, "Node '%s': cannot change the file "
                          "name from '%s' to '%s'", how.node_name,
                          s->handle->filename, o.filename);
    } else if (g_strcmp0(o.beneath, s->handle->beneath) != 0) {
        ret = block_error(errp, EINVAL, "Node '%s': cannot change 'beneath', "
                          "the directory of file '%s'", how.node_name,
                          s->handle->filename);
    } else if (!handle_fits(s->handle, &how)) {
        ret = open_next(state, &how, errp);
    }
    block_options_clear(file_options, &o);
    return ret;
}

static void file_reopen_commit(BdrvReopenState *state)
{
    FileState *s = bdrv_opaque(state->bs);

    if (s->next) {
        file_handle_close(s->handle);
        s->handle = s->next;
        s->next = NULL;
        /* Direct I/O or the other way round may be able to do more. */
        atomic_store(&s->cannot, 0);
        data_extent_forget(&s->data);
    }
}

static void file_reopen_abort(BdrvReopenState *state)
{
    FileState *s = bdrv_opaque(state->bs);

    file_handle_close(s->next);
    s->next = NULL;
}

/* --- permissions ---------------------------------------------------------- */

/* What the locks shall say: nothing of a reader that lets all others be. */
static BlockPerm perm_to_lock(BlockDriverState *bs, const BlockPerm *perm)
{
    return bdrv_open_flags(bs) & BDRV_O_FORCE_SHARE ? file_lock_nothing
                                                    : *perm;
}

static void file_perm_abort(BlockDriverState *bs)
{
    FileState *s = bdrv_opaque(bs);

    file_lock_reduce(&s->handle->lock, &s->perm);
    if (s->next) {
        file_lock_reduce(&s->next->lock, &file_lock_nothing);
    }
}

static int file_perm_prepare(BlockDriverState *bs, const BlockPerm *perm,
                             GError **errp)
{
    FileState *s = bdrv_opaque(bs);
    BlockPerm wanted = perm_to_lock(bs, perm);
    FileLock *first = &s->handle->lock;
    FileLock *second = s->next ? &s->next->lock : NULL;
    int ret;

    if (second && (!first->enabled || !second->enabled)) {
        /* Locking begins or ends here: only the new handle counts. */
        first = second;
        second = NULL;
    }
    if (second) {
        file_lock_reduce(second, &file_lock_nothing);
    }
    ret = file_lock_extend(first, &wanted, errp);
    if (ret == 0) {
        ret = file_lock_check(first, &wanted, errp);
    }
    if (ret == 0 && second) {
        ret = file_lock_extend(second, &wanted, errp);
    }
    if (ret < 0) {
        file_perm_abort(bs);
    }
    return ret;
}

static void file_perm_commit(BlockDriverState *bs, const BlockPerm *perm)
{
    FileState *s = bdrv_opaque(bs);

    s->perm = perm_to_lock(bs, perm);
    file_lock_reduce(&s->handle->lock, &s->perm);
    if (s->next) {
        file_lock_reduce(&s->next->lock, &s->perm);
    }
}

/* --- limits --------------------------------------------------------------- */

static void file_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    FileState *s = bdrv_opaque(bs);
    const FileHandle *h = s->handle;

    limits->request_alignment = h->request_alignment;
    limits->min_mem_alignment = h->mem_alignment;
    limits->opt_mem_alignment = MAX((uint32_t)sysconf(_SC_PAGESIZE),
                                    h->mem_alignment);
    /* No max_transfer: the kernel splits for the device, at no extra cost. */
    limits->max_iov = IOV_MAX;
    limits->pwrite_zeroes_alignment = h->device_block;
    limits->pdiscard_alignment = h->device_block;
    limits->write_flags = BDRV_REQ_FUA;
    limits->zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    limits->truncate_flags = BDRV_REQ_ZERO_WRITE;
}

const BlockDriver block_driver_file = {
    .struct_size = sizeof(BlockDriver),
    .name = "file",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(FileState),
    .options = file_options,
    .open = file_open,
    .close = file_close,
    .reopen_prepare = file_reopen_prepare,
    .reopen_commit = file_reopen_commit,
    .reopen_abort = file_reopen_abort,
    .refresh_limits = file_refresh_limits,
    .perm_prepare = file_perm_prepare,
    .perm_commit = file_perm_commit,
    .perm_abort = file_perm_abort,
    .preadv = file_preadv,
    .pwritev = file_pwritev,
    .pwrite_zeroes = file_pwrite_zeroes,
    .pdiscard = file_pdiscard,
    .flush = file_flush,
    .truncate = file_truncate,
    .getlength = file_getlength,
    .get_allocated_size = file_get_allocated_size,
    .block_status = file_block_status,
    .get_info = file_get_info,
    .copy_range_from = file_copy_range_from,
    .copy_range_to = file_copy_range_to,
    .create_options = file_create_options,
    .create = file_create,
};
