/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw: the bytes of the child as they are, or a window of them.
 *
 *   child   0 ........ offset ============ offset + size ........ end
 *   node               0 ================= size
 *
 * Every request is shifted by "offset" and handed on.  Without "size" the
 * window reaches to the end of the child and moves with it; with "size" it is
 * fixed, and nothing reaches the bytes behind it.
 *
 * The window changes only by reopen, which drains the node, so requests read
 * it without a lock.
 */
#include "block/drivers.h"

#include <errno.h>

typedef struct RawOptions {
    int64_t offset;
    int64_t size;
} RawOptions;

/* The part of the child that the node shows. */
typedef struct RawWindow {
    int64_t offset;
    int64_t size;     /* with has_size */
    bool has_size;
} RawWindow;

typedef struct Raw {
    /* Set by open, changed by reopen under drain; any thread reads it. */
    RawWindow window;

    /* Main context.  What a reopen prepares; else NULL. */
    RawWindow *next;
} Raw;

static const BlockOption raw_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that holds the bytes" },
    { .name = "offset", .type = BLOCK_OPTION_SIZE, .def = "0",
      .min = 0, .max = BDRV_MAX_LENGTH,
      .offset = offsetof(RawOptions, offset),
      .help = "where the window begins in the file" },
    { .name = "size", .type = BLOCK_OPTION_SIZE,
      .min = 0, .max = BDRV_MAX_LENGTH,
      .offset = offsetof(RawOptions, size),
      .help = "length of the window; absent: to the end of the file" },
    { .type = BLOCK_OPTION_END },
};

static BdrvChild *raw_file(BlockDriverState *bs)
{
    return bdrv_primary_child(bs);
}

/* --- control -------------------------------------------------------------- */

/* From the options to the window; whether it fits the file is seen later. */
static int raw_parse(BlockDriverState *bs, BlockOptions *options,
                     RawWindow *ret_window, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'raw')",
                                            bdrv_node_name(bs));
    bool has_size = block_options_has(options, "size");
    RawOptions o;
    int ret = block_options_absorb(options, raw_options, &o, what, errp);

    if (ret < 0) {
        return ret;
    }
    if (o.size > BDRV_MAX_LENGTH - o.offset) {
        return block_error(errp, EINVAL, "%s: offset (%" G_GINT64_FORMAT ") "
                           "plus size (%" G_GINT64_FORMAT ") passes the "
                           "largest length of a node", what, o.offset, o.size);
    }
    *ret_window = (RawWindow){ .offset = o.offset, .size = o.size,
                               .has_size = has_size };
    return 0;
}

static int coroutine_fn raw_check_fits(BlockDriverState *bs,
                                       const RawWindow *window, GError **errp)
{
    BlockDriverState *file = bdrv_child_bs(raw_file(bs));
    int64_t length = bdrv_co_getlength(file);

    if (length < 0) {
        return block_error_errno(errp, -length, "Node '%s' (driver 'raw'): "
                                 "could not get the length of node '%s' "
                                 "('%s')", bdrv_node_name(bs),
                                 bdrv_node_name(file), bdrv_filename(file));
    }
    if (window->offset + window->size > length) {
        return block_error(errp, EINVAL, "Node '%s' (driver 'raw'): offset (%"
                           G_GINT64_FORMAT ") plus size (%" G_GINT64_FORMAT
                           ") is larger than the length (%" G_GINT64_FORMAT
                           ") of node '%s' ('%s')", bdrv_node_name(bs),
                           window->offset, window->size, length,
                           bdrv_node_name(file), bdrv_filename(file));
    }
    return 0;
}

/* From now on the node shows @window; one without a size is as long as what
 * the file has behind its offset. */
static void raw_set_window(BlockDriverState *bs, const RawWindow *window)
{
    ((Raw *)bdrv_opaque(bs))->window = *window;
    bdrv_set_length_from_child(bs, !window->has_size, window->offset);
}

static int coroutine_fn raw_open(BlockDriverState *bs, BlockOptions *options,
                                 unsigned flags, GError **errp)
{
    RawWindow window;
    BdrvChild *file;
    int ret = raw_parse(bs, options, &window, errp);

    if (ret < 0) {
        return ret;
    }
    raw_set_window(bs, &window); /* permissions on the file depend on it */
    file = bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true,
                              errp);
    if (!file) {
        return -EINVAL;
    }
    bdrv_set_filename(bs, bdrv_filename(bdrv_child_bs(file)));
    return raw_check_fits(bs, &window, errp);
}

static int coroutine_fn raw_reopen_prepare(BdrvReopenState *state,
                                           GError **errp)
{
    Raw *s = bdrv_opaque(state->bs);
    g_autofree RawWindow *next = g_new0(RawWindow, 1);
    int ret = raw_parse(state->bs, state->options, next, errp);

    if (ret == 0) {
        ret = raw_check_fits(state->bs, next, errp);
    }
    if (ret < 0) {
        return ret;
    }
    g_assert(!s->next);
    s->next = g_steal_pointer(&next);
    return 0;
}

static void raw_reopen_commit(BdrvReopenState *state)
{
    Raw *s = bdrv_opaque(state->bs);

    raw_set_window(state->bs, s->next);
    g_clear_pointer(&s->next, g_free);
}

static void raw_reopen_abort(BdrvReopenState *state)
{
    Raw *s = bdrv_opaque(state->bs);

    g_clear_pointer(&s->next, g_free);
}

/* Whether a unit of the file is a unit of the node, too. */
static bool raw_keeps_units(const RawWindow *window, int64_t unit)
{
    return unit > 0 && window->offset % unit == 0 &&
           (!window->has_size || window->size % unit == 0);
}

static void raw_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    const BlockLimits *file = bdrv_limits(bdrv_child_bs(raw_file(bs)));

    limits->read_flags = file->read_flags;
    limits->write_flags = file->write_flags;
    limits->zero_flags = file->zero_flags;
    limits->truncate_flags = file->truncate_flags;
    /* Where the units do not match, requests are not padded here, where that
     * could pass the end of the window, but at the file. */
    if (raw_keeps_units(window, file->request_alignment)) {
        limits->request_alignment = file->request_alignment;
    }
    if (raw_keeps_units(window, file->pwrite_zeroes_alignment)) {
        limits->pwrite_zeroes_alignment = file->pwrite_zeroes_alignment;
    }
    if (raw_keeps_units(window, file->pdiscard_alignment)) {
        limits->pdiscard_alignment = file->pdiscard_alignment;
    }
}

/*
 * Like a filter: we use what our users use.  But a window of fixed size never
 * changes the length of the file, and while we show only a part of the file
 * nobody may cut it off.
 */
static void raw_child_perm(BlockDriverState *bs, BdrvChildRole role,
                           const BlockPerm *parent, BlockPerm *ret_child)
{
    Raw *s = bdrv_opaque(bs);
    const RawWindow *window = s->next ? s->next : &s->window;

    *ret_child = *parent;
    if (window->has_size) {
        ret_child->used &= ~(uint64_t)BLK_PERM_RESIZE;
    }
    if (window->has_size || window->offset > 0) {
        ret_child->shared &= ~(uint64_t)BLK_PERM_RESIZE;
    }
}

/* --- data ----------------------------------------------------------------- */

/* Whether a request that may grow the node ends behind a fixed window. */
static inline bool raw_passes_end(const RawWindow *window, int64_t offset,
                                  int64_t bytes)
{
    return G_UNLIKELY(window->has_size) && offset + bytes > window->size;
}

static int coroutine_fn raw_preadv(BlockDriverState *bs, const BlockIO *io)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;

    /* The core has cut the request at our length. */
    g_assert(!raw_passes_end(window, io->offset, io->bytes));
    return bdrv_co_preadv(raw_file(bs), window->offset + io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn raw_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;

    if (raw_passes_end(window, io->offset, io->bytes)) {
        return -ENOSPC;
    }
    return bdrv_co_pwritev(raw_file(bs), window->offset + io->offset,
                           io->bytes, io->iov, io->flags);
}

static int coroutine_fn raw_pwrite_zeroes(BlockDriverState *bs,
                                          const BlockIO *io)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;

    if (raw_passes_end(window, io->offset, io->bytes)) {
        return -ENOSPC;
    }
    return bdrv_co_pwrite_zeroes(raw_file(bs), window->offset + io->offset,
                                 io->bytes, io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn raw_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    int64_t bytes = io->bytes;

    if (raw_passes_end(window, io->offset, bytes)) {
        bytes = MAX(window->size - io->offset, 0);
    }
    return bdrv_co_pdiscard(raw_file(bs), window->offset + io->offset, bytes);
}

static int coroutine_fn raw_truncate(BlockDriverState *bs,
                                     const BlockTruncate *how, GError **errp)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    BlockTruncate below = *how;

    if (window->has_size) {
        return block_error(errp, ENOTSUP, "Node '%s': the length of a window "
                           "with a fixed size cannot be changed",
                           bdrv_node_name(bs));
    }
    if (how->offset > BDRV_MAX_LENGTH - window->offset) {
        return block_error(errp, EINVAL, "Node '%s': length %" G_GINT64_FORMAT
                           " at offset %" G_GINT64_FORMAT " of '%s' is too "
                           "large", bdrv_node_name(bs), how->offset,
                           window->offset, bdrv_filename(bs));
    }
    below.offset += window->offset;
    return bdrv_co_truncate(raw_file(bs), &below, errp);
}

static int64_t coroutine_fn raw_getlength(BlockDriverState *bs)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    int64_t length = bdrv_co_getlength(bdrv_child_bs(raw_file(bs)));

    if (length < 0) {
        return length;
    }
    if (window->offset + window->size > length) {
        return -EIO; /* somebody outside cut off what we show */
    }
    return window->has_size ? window->size : length - window->offset;
}

static int coroutine_fn raw_block_status(BlockDriverState *bs,
                                         const BlockIO *io, BlockExtent *ret)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;

    ret->bytes = io->bytes;
    ret->map = window->offset + io->offset;
    ret->file = bdrv_child_bs(raw_file(bs));
    ret->status = BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
    return 0;
}

static int coroutine_fn raw_copy_range_from(BlockDriverState *bs,
                                            const BlockCopyRange *copy)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    BlockCopyRange below = *copy;

    below.src = raw_file(bs);
    below.src_offset += window->offset;
    return bdrv_co_copy_range_from(&below);
}

static int coroutine_fn raw_copy_range_to(BlockDriverState *bs,
                                          const BlockCopyRange *copy)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    BlockCopyRange below = *copy;

    if (raw_passes_end(window, copy->dst_offset, copy->bytes)) {
        return -ENOSPC;
    }
    below.dst = raw_file(bs);
    below.dst_offset += window->offset;
    return bdrv_co_copy_range_to(&below);
}

static int raw_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    const RawWindow *window = &((Raw *)bdrv_opaque(bs))->window;
    int ret = bdrv_get_info(bdrv_child_bs(raw_file(bs)), info);

    if (ret < 0) {
        return ret;
    }
    /* Saved machine state lies outside of the guest's bytes, so outside of
     * any window; clusters are ours only where they begin as ours do. */
    if (window->has_size || window->offset > 0) {
        info->vm_state_offset = 0;
    }
    if (!raw_keeps_units(window, info->cluster_bytes)) {
        info->cluster_bytes = 0;
    }
    return 0;
}

const BlockDriver block_driver_raw = {
    .struct_size = sizeof(BlockDriver),
    .name = "raw",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(Raw),
    .options = raw_options,
    .open = raw_open,
    .reopen_prepare = raw_reopen_prepare,
    .reopen_commit = raw_reopen_commit,
    .reopen_abort = raw_reopen_abort,
    .refresh_limits = raw_refresh_limits,
    .child_perm = raw_child_perm,
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .pwrite_zeroes = raw_pwrite_zeroes,
    .pdiscard = raw_pdiscard,
    .truncate = raw_truncate,
    .getlength = raw_getlength,
    .block_status = raw_block_status,
    .copy_range_from = raw_copy_range_from,
    .copy_range_to = raw_copy_range_to,
    .get_info = raw_get_info,
};
