/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver of one's own, a filter that keeps its data inverted on the disk, and
 * the one call that tries it.
 */
#include <blockgraph/driver.h>
#include <blockgraph/sim-gen.h>
#include <errno.h>
#include <stdio.h>

static int coroutine_fn invert_open(BlockDriverState *bs, BlockOptions *options,
                       unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn invert_getlength(BlockDriverState *bs)
{
    return bdrv_length(bdrv_child_bs(bdrv_primary_child(bs)));
}

static void invert(uint8_t *buf, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = ~buf[i];
    }
}

static int coroutine_fn invert_preadv(BlockDriverState *bs, const BlockIO *io)
{
    uint8_t *buf = g_malloc(io->bytes);
    int ret = bdrv_co_pread(bdrv_primary_child(bs), io->offset, io->bytes,
                            buf, io->flags);

    invert(buf, io->bytes);
    if (ret == 0) {
        block_iov_from_buf(io->iov, 0, buf, io->bytes);
    }
    g_free(buf);
    return ret;
}

static int coroutine_fn invert_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    uint8_t *buf = g_malloc(io->bytes);
    int ret;

    block_iov_to_buf(io->iov, 0, buf, io->bytes);
    invert(buf, io->bytes);
    ret = bdrv_co_pwrite(bdrv_primary_child(bs), io->offset, io->bytes, buf,
                         io->flags);
    g_free(buf);
    return ret;
}

static const BlockDriver invert_driver = {
    .struct_size = sizeof(BlockDriver),
    .name = "invert",
    .kind = BLOCK_DRIVER_FORMAT,
    .open = invert_open,
    .getlength = invert_getlength,
    .preadv = invert_preadv,
    .pwritev = invert_pwritev,
};

int main(void)
{
    BgSimDriverSuite suite = { .driver = "invert", .seeds = 10 };
    char *report = NULL;
    bool ok;

    bdrv_register(&invert_driver, NULL);
    ok = bgsim_driver_suite(&suite, &report);
    if (!ok) {
        fputs(report, stderr);
        g_free(report);
    }
    return ok ? 0 : 1;
}
