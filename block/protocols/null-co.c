/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null-co: a node that holds nothing.
 *
 * Writes vanish; reads leave the buffer as it is, or fill it with zeroes.  For
 * tests and for measuring what the layers above cost.  It has no lock and
 * needs none: open sets the state, nothing changes it but truncate, and the
 * length is atomic.
 */
#include "block/drivers.h"

#include <errno.h>
#include <stdatomic.h>

#define NULL_CO_DEFAULT_SIZE "1G"

typedef struct NullCoOptions {
    int64_t size;
    int64_t latency_ns;
    bool read_zeroes;
} NullCoOptions;

typedef struct NullCo {
    /* Set by open and, under drain, by reopen. */
    int64_t latency_ns;
    bool read_zeroes;
    int64_t size;       /* the option, which a truncate does not change */

    /* Any thread. */
    _Atomic int64_t length;
} NullCo;

static const BlockOption null_co_options[] = {
    { .name = "size", .type = BLOCK_OPTION_SIZE, .def = NULL_CO_DEFAULT_SIZE,
      .min = 0, .max = BDRV_MAX_LENGTH,
      .offset = offsetof(NullCoOptions, size), .help = "length in bytes" },
    { .name = "latency-ns", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = INT64_MAX,
      .offset = offsetof(NullCoOptions, latency_ns),
      .help = "nanoseconds that each request takes" },
    { .name = "read-zeroes", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(NullCoOptions, read_zeroes),
      .help = "fill buffers with zeroes on reads" },
    { .type = BLOCK_OPTION_END },
};

static int coroutine_fn null_co_open(BlockDriverState *bs,
                                     BlockOptions *options, unsigned flags,
                                     GError **errp)
{
    NullCo *s = bdrv_opaque(bs);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'null-co')",
                                            bdrv_node_name(bs));
    NullCoOptions o;
    int ret = block_options_absorb(options, null_co_options, &o, what, errp);

    if (ret < 0) {
        return ret;
    }
    s->latency_ns = o.latency_ns;
    s->read_zeroes = o.read_zeroes;
    s->size = o.size;
    atomic_init(&s->length, o.size);
    bdrv_set_filename(bs, "null-co://");
    return 0;
}

static int coroutine_fn null_co_reopen_prepare(BdrvReopenState *state,
                                               GError **errp)
{
    NullCoOptions *o = g_new0(NullCoOptions, 1);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'null-co')",
                                            bdrv_node_name(state->bs));
    bool has_size = block_options_has(state->options, "size");
    int ret = block_options_absorb(state->options, null_co_options, o, what,
                                   errp);

    if (ret < 0) {
        g_free(o);
        return ret;
    }
    if (!has_size) {
        o->size = ((NullCo *)bdrv_opaque(state->bs))->size;
    }
    state->opaque = o;
    return 0;
}

static void null_co_reopen_commit(BdrvReopenState *state)
{
    NullCo *s = bdrv_opaque(state->bs);
    NullCoOptions *o = state->opaque;

    s->latency_ns = o->latency_ns;
    s->read_zeroes = o->read_zeroes;
    /* Only a new size is a wish: the old one, kept or repeated, must not undo
     * a truncate. */
    if (o->size != s->size) {
        s->size = o->size;
        atomic_store(&s->length, o->size);
    }
    g_free(o);
}

static void null_co_reopen_abort(BdrvReopenState *state)
{
    g_free(state->opaque);
}

static void null_co_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->write_flags = BDRV_REQ_FUA;
    limits->zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                         BDRV_REQ_NO_FALLBACK;
    limits->truncate_flags = BDRV_REQ_ZERO_WRITE;
}

static void coroutine_fn null_co_wait(BlockDriverState *bs)
{
    NullCo *s = bdrv_opaque(bs);

    if (G_UNLIKELY(s->latency_ns)) {
        co_sleep_ns(s->latency_ns);
    }
}

static int coroutine_fn null_co_preadv(BlockDriverState *bs, const BlockIO *io)
{
    NullCo *s = bdrv_opaque(bs);

    null_co_wait(bs);
    if (s->read_zeroes) {
        block_iov_memset(io->iov, 0, 0, io->bytes);
    }
    return 0;
}

static int coroutine_fn null_co_write(BlockDriverState *bs, const BlockIO *io)
{
    null_co_wait(bs);
    return 0;
}

static int coroutine_fn null_co_flush(BlockDriverState *bs)
{
    null_co_wait(bs);
    return 0;
}

static int coroutine_fn null_co_truncate(BlockDriverState *bs,
                                         const BlockTruncate *how,
                                         GError **errp)
{
    NullCo *s = bdrv_opaque(bs);

    if (how->prealloc != PREALLOC_MODE_OFF) {
        return block_error(errp, ENOTSUP, "Node '%s': driver 'null-co' cannot "
                           "preallocate", bdrv_node_name(bs));
    }
    null_co_wait(bs);
    atomic_store(&s->length, how->offset);
    return 0;
}

static int64_t coroutine_fn null_co_getlength(BlockDriverState *bs)
{
    NullCo *s = bdrv_opaque(bs);

    return atomic_load(&s->length);
}

static int64_t coroutine_fn null_co_get_allocated_size(BlockDriverState *bs)
{
    return 0;
}

static int coroutine_fn null_co_block_status(BlockDriverState *bs,
                                             const BlockIO *io,
                                             BlockExtent *ret)
{
    NullCo *s = bdrv_opaque(bs);

    ret->bytes = io->bytes;
    ret->map = io->offset;
    ret->file = bs;
    ret->status = BDRV_BLOCK_OFFSET_VALID;
    ret->status |= s->read_zeroes ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA;
    return 0;
}

const BlockDriver block_driver_null_co = {
    .struct_size = sizeof(BlockDriver),
    .name = "null-co",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(NullCo),
    .options = null_co_options,
    .open = null_co_open,
    .reopen_prepare = null_co_reopen_prepare,
    .reopen_commit = null_co_reopen_commit,
    .reopen_abort = null_co_reopen_abort,
    .refresh_limits = null_co_refresh_limits,
    .preadv = null_co_preadv,
    .pwritev = null_co_write,
    .pwrite_zeroes = null_co_write,
    .pdiscard = null_co_write,
    .flush = null_co_flush,
    .truncate = null_co_truncate,
    .getlength = null_co_getlength,
    .get_allocated_size = null_co_get_allocated_size,
    .block_status = null_co_block_status,
};
