/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle: requests wait until the limits of a group let them go.
 *
 * Groups are made by throttle_group_new().  Reads are counted as reads; writes,
 * zero writes and discards as writes.  A flush never waits: it moves no data of
 * its own.
 */
#include "block/drivers.h"

#include <errno.h>

#include "block/filters/throttle-group.h"

typedef struct ThrottleOptions {
    char *group;
} ThrottleOptions;

typedef struct ThrottleNode {
    /* Joined by open, changed by reopen under drain. */
    ThrottleMember member;
} ThrottleNode;

static const BlockOption throttle_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that requests go on to" },
    { .name = "throttle-group", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(ThrottleOptions, group),
      .help = "name of the group whose limits hold" },
    { .type = BLOCK_OPTION_END },
};

static ThrottleMember *throttle_member(BlockDriverState *bs)
{
    return &((ThrottleNode *)bdrv_opaque(bs))->member;
}

/* --- control -------------------------------------------------------------- */

/* The group that @options name, with a reference, or NULL. */
static ThrottleGroup *take_group(BlockDriverState *bs, BlockOptions *options,
                                 GError **errp)
{
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'throttle')",
                                            bdrv_node_name(bs));
    ThrottleGroup *group;
    ThrottleOptions o;

    if (block_options_absorb(options, throttle_options, &o, what, errp) < 0) {
        return NULL;
    }
    group = throttle_group_find(bdrv_graph(bs), o.group);
    if (group) {
        throttle_group_ref(group);
    } else {
        block_error(errp, ENOENT, "%s: throttle group '%s' not found", what,
                    o.group);
    }
    block_options_clear(throttle_options, &o);
    return group;
}

static int coroutine_fn throttle_open(BlockDriverState *bs,
                                      BlockOptions *options, unsigned flags,
                                      GError **errp)
{
    ThrottleGroup *group = take_group(bs, options, errp);
    BdrvChild *file;

    if (!group) {
        return -EINVAL;
    }
    file = bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp);
    if (file) {
        throttle_member_join(throttle_member(bs), group);
    }
    throttle_group_unref(group);
    return file ? 0 : -EINVAL;
}

static void coroutine_fn throttle_close(BlockDriverState *bs)
{
    throttle_member_leave(throttle_member(bs));
}

static int coroutine_fn throttle_reopen_prepare(BdrvReopenState *state,
                                                GError **errp)
{
    state->opaque = take_group(state->bs, state->options, errp);
    return state->opaque ? 0 : -EINVAL;
}

static void throttle_reopen_commit(BdrvReopenState *state)
{
    ThrottleMember *member = throttle_member(state->bs);
    ThrottleGroup *group = state->opaque;

    if (group != member->group) {
        throttle_member_leave(member);
        throttle_member_join(member, group);
    }
    throttle_group_unref(group);
}

static void throttle_reopen_abort(BdrvReopenState *state)
{
    throttle_group_unref(state->opaque);
}

static void throttle_drain_begin(BlockDriverState *bs)
{
    throttle_member_set_drained(throttle_member(bs), true);
}

static void throttle_drain_end(BlockDriverState *bs)
{
    throttle_member_set_drained(throttle_member(bs), false);
}

/* --- data ----------------------------------------------------------------- */

static int coroutine_fn throttle_preadv(BlockDriverState *bs,
                                        const BlockIO *io)
{
    throttle_member_wait(throttle_member(bs), false, io->bytes);
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn throttle_pwritev(BlockDriverState *bs,
                                         const BlockIO *io)
{
    throttle_member_wait(throttle_member(bs), true, io->bytes);
    return bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

static int coroutine_fn throttle_pwrite_zeroes(BlockDriverState *bs,
                                               const BlockIO *io)
{
    throttle_member_wait(throttle_member(bs), true, io->bytes);
    return bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset, io->bytes,
                                 io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn throttle_pdiscard(BlockDriverState *bs,
                                          const BlockIO *io)
{
    throttle_member_wait(throttle_member(bs), true, io->bytes);
    return bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
}

static int coroutine_fn throttle_truncate(BlockDriverState *bs,
                                          const BlockTruncate *how,
                                          GError **errp)
{
    return bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

const BlockDriver block_driver_throttle = {
    .struct_size = sizeof(BlockDriver),
    .name = "throttle",
    .kind = BLOCK_DRIVER_FILTER,
    .sees = BLOCK_SEES_WRITES,
    .state_size = sizeof(ThrottleNode),
    .options = throttle_options,
    .open = throttle_open,
    .close = throttle_close,
    .reopen_prepare = throttle_reopen_prepare,
    .reopen_commit = throttle_reopen_commit,
    .reopen_abort = throttle_reopen_abort,
    .drain_begin = throttle_drain_begin,
    .drain_end = throttle_drain_end,
    .preadv = throttle_preadv,
    .pwritev = throttle_pwritev,
    .pwrite_zeroes = throttle_pwrite_zeroes,
    .pdiscard = throttle_pdiscard,
    .truncate = throttle_truncate,
};
