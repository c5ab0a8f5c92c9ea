/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-on-read: what guests read through this filter from backing files is kept
 * in the layer below it.
 *
 * The core does the copying at that layer (block/io/copy-on-read.c), where it
 * meets the writes of all others; the filter only says which reads copy.  With
 * "bottom" those are the ones of data that the layers from there upwards have.
 * Units are clusters of the upper layer: what shares one with such data is
 * copied with it, wherever it comes from.
 *
 * The chain from our child to the bottom is frozen while the filter is there.
 * Our own edge is not, so the filter can be taken out, and others can go in
 * between.  Should it be made to lead past the bottom, nothing is copied.
 */
#include "block/filters/copy-on-read.h"

#include <errno.h>

#include "block/drivers.h"

typedef struct CorNode {
    /* Set by open, until close; counted.  NULL: no bottom is given. */
    BlockDriverState *bottom;
    BlockDriverState *frozen; /* where the frozen chain begins */
} CorNode;

typedef struct CorOptions {
    char *bottom;
} CorOptions;

static const BlockOption cor_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that is read, and keeps what its backing files gave" },
    { .name = "bottom", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(CorOptions, bottom),
      .help = "lowest layer that data is copied from" },
    { .type = BLOCK_OPTION_END },
};

/* --- control -------------------------------------------------------------- */

static BlockDriverState *file_node(BlockDriverState *bs)
{
    return bdrv_child_bs(bdrv_filter_child(bs));
}

/* Find and hold the bottom, and all that is above it. */
static int hold_bottom(BlockDriverState *bs, const char *name, GError **errp)
{
    const char *me = bdrv_node_name(bs);
    CorNode *s = bdrv_opaque(bs);
    BlockDriverState *bottom = bdrv_find_node(bdrv_graph(bs), name);
    g_autoptr(GError) why = NULL;
    int ret;

    if (!bottom) {
        return block_error(errp, ENOENT, "Node '%s': node '%s' (as 'bottom') "
                           "not found", me, name);
    }
    if (bdrv_filter_child(bottom)) {
        return block_error(errp, EINVAL, "Node '%s': node '%s' (as 'bottom') "
                           "is a filter, it holds no data", me, name);
    }
    ret = bdrv_freeze_chain(file_node(bs), bottom, &why);
    if (ret < 0) {
        return block_error(errp, block_error_code(why), "Node '%s': node '%s' "
                           "cannot be 'bottom': %s", me, name, why->message);
    }
    s->bottom = bdrv_ref(bottom);
    s->frozen = bdrv_ref(file_node(bs));
    return 0;
}

/* Said here as well as by the permissions, which are for users of ours. */
static int check_writable(BlockDriverState *bs, GError **errp)
{
    BlockDriverState *layer = bdrv_skip_filters(file_node(bs));

    if (!bdrv_is_read_only(layer)) {
        return 0;
    }
    return block_error(errp, EACCES, "Node '%s': node '%s' is read-only, so "
                       "what is read cannot be copied to it",
                       bdrv_node_name(bs), bdrv_node_name(layer));
}

static int coroutine_fn cor_open(BlockDriverState *bs, BlockOptions *options,
                                 unsigned flags, GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver "
                                            "'copy-on-read')",
                                            bdrv_node_name(bs));
    CorOptions o;
    int ret = 0;

    if (block_options_absorb(options, cor_options, &o, what, errp) < 0) {
        return -EINVAL;
    }
    if (!bdrv_co_open_child(bs, options, "file",
                            BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                            errp)) {
        ret = -EINVAL;
    } else {
        ret = check_writable(bs, errp);
    }
    if (ret == 0 && o.bottom) {
        ret = hold_bottom(bs, o.bottom, errp);
    }
    block_options_clear(cor_options, &o);
    return ret;
}

void coroutine_fn cor_let_go(BlockDriverState *bs)
{
    CorNode *s = bdrv_opaque(bs);
    BlockDriverState *bottom = g_steal_pointer(&s->bottom);

    if (bottom) {
        bdrv_unfreeze_chain(s->frozen, bottom);
        bdrv_co_unref(s->frozen);
        bdrv_co_unref(bottom);
    }
}

/*
 * Who only reads us makes us write.  But while we have no user, what is below
 * keeps those it has: they become ours when we are inserted above it.
 */
static void cor_child_perm(BlockDriverState *bs, BdrvChildRole role,
                           const BlockPerm *parent, BlockPerm *ret_child)
{
    bdrv_default_perms(bs, role, parent, ret_child);
    if (parent->used) {
        ret_child->used |= BLK_PERM_WRITE_UNCHANGED;
    }
}

/* --- data ----------------------------------------------------------------- */

/* The layer at the upper end of the chain below, if the bottom is in it. */
static BlockDriverState *layer_above(BlockDriverState *bs,
                                     const BlockDriverState *bottom)
{
    BlockDriverState *top = bdrv_skip_filters(file_node(bs));
    BlockDriverState *p = top;

    while (p != bottom && bdrv_cow_child(p)) {
        p = bdrv_skip_filters(bdrv_child_bs(bdrv_cow_child(p)));
    }
    return p == bottom ? top : NULL;
}

/* The flags for the beginning of a read, or a negative errno; @bytes becomes
 * its length. */
static int coroutine_fn flags_of(BlockDriverState *bs, int64_t offset,
                                 int64_t *bytes)
{
    CorNode *s = bdrv_opaque(bs);
    BlockDriverState *top = layer_above(bs, s->bottom);
    int64_t left = bdrv_length(bs) - offset;
    int64_t found;
    int depth;

    if (!top || left <= 0) {
        return 0;
    }
    depth = bdrv_co_is_allocated_above(top, s->bottom, true, offset,
                                       MIN(*bytes, left), &found);
    if (depth < 0 || found == 0) {
        return MIN(depth, 0);
    }
    *bytes = found;
    return depth > 1 ? BDRV_REQ_COPY_ON_READ : 0;
}

/* Read [done, +bytes) of @io.  @flags may be the error of looking for them: the
 * result of a prefetch, while a read will say itself what is wrong. */
static int coroutine_fn read_part(BlockDriverState *bs, const BlockIO *io,
                                  int64_t done, int64_t bytes, int flags)
{
    BdrvChild *file = bdrv_filter_child(bs);
    BlockIOVecSlice slice;
    int ret;

    if (!io->iov) {
        /* Prefetched is only what is to be copied. */
        return flags > 0 ? bdrv_co_preadv(file, io->offset + done, bytes, NULL,
                                          io->flags | flags)
                         : flags;
    }
    flags = MAX(flags, 0);
    ret = bdrv_co_preadv(file, io->offset + done, bytes,
                         block_iov_slice(&slice, io->iov, done, bytes),
                         io->flags | flags);
    block_iov_slice_clear(&slice);
    return ret;
}

static int coroutine_fn cor_preadv(BlockDriverState *bs, const BlockIO *io)
{
    CorNode *s = bdrv_opaque(bs);
    int64_t done = 0;
    int ret = 0;

    /* Who asks for copies has them of all layers, whatever our bottom is: a
     * filter above with another bottom takes those above its own out then. */
    if (!s->bottom || (io->flags & BDRV_REQ_COPY_ON_READ)) {
        return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                              io->iov, io->flags | BDRV_REQ_COPY_ON_READ);
    }
    while (ret == 0 && done < io->bytes) {
        int64_t bytes = io->bytes - done;
        int flags = flags_of(bs, io->offset + done, &bytes);

        ret = read_part(bs, io, done, bytes, flags);
        done += bytes;
    }
    return ret;
}

const BlockDriver block_driver_copy_on_read = {
    .struct_size = sizeof(BlockDriver),
    .name = "copy-on-read",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(CorNode),
    .options = cor_options,
    .open = cor_open,
    .close = cor_let_go,
    .child_perm = cor_child_perm,
    .preadv = cor_preadv,
};
