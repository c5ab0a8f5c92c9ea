/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "faulty": a filter under an image that makes the n-th change of the file
 * fail, and that can keep discards waiting.
 */
#ifndef TESTS_UNIT_QCOW2_FAULTY_H
#define TESTS_UNIT_QCOW2_FAULTY_H

#include "qcow2-fixture.h"

/* One at a time is open. */
static struct {
    unsigned changes;     /* so far: writes, zero writes, flushes */
    unsigned fail_from;   /* 0: none fails */
    unsigned fail_to;
    bool hold_discards;
    CoQueue held;
    unsigned nr_held;
    unsigned discards;
    int64_t last_discard;
    int64_t discarded_bytes;
} faulty;

static int faulty_change(void)
{
    faulty.changes++;
    return faulty.changes >= faulty.fail_from &&
                   faulty.changes <= faulty.fail_to
               ? -EIO
               : 0;
}

static int coroutine_fn faulty_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    memset(&faulty, 0, sizeof(faulty));
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static int coroutine_fn faulty_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    int ret = faulty_change();

    return ret < 0 ? ret
                   : bdrv_co_pwritev(bdrv_filter_child(bs), io->offset,
                                     io->bytes, io->iov, io->flags);
}

static int coroutine_fn faulty_pwrite_zeroes(BlockDriverState *bs,
                                             const BlockIO *io)
{
    int ret = faulty_change();

    return ret < 0 ? ret
                   : bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset,
                                           io->bytes, 0);
}

static int coroutine_fn faulty_pdiscard(BlockDriverState *bs,
                                        const BlockIO *io)
{
    faulty.discards++;
    faulty.last_discard = io->offset;
    faulty.discarded_bytes += io->bytes;
    while (faulty.hold_discards) {
        faulty.nr_held++;
        co_queue_wait(&faulty.held, NULL);
        faulty.nr_held--;
    }
    return bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
}

static int coroutine_fn faulty_flush(BlockDriverState *bs)
{
    return faulty_change();
}

static int coroutine_fn faulty_truncate(BlockDriverState *bs,
                                        const BlockTruncate *how,
                                        GError **errp)
{
    return bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

static inline void register_faulty_driver(void)
{
    static const BlockOption options[] = {
        { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "filtered" },
        { .type = BLOCK_OPTION_END },
    };
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "faulty",
        .kind = BLOCK_DRIVER_FILTER,
        .sees = BLOCK_SEES_WRITES,
        .options = options,
        .open = faulty_open,
        .pwritev = faulty_pwritev,
        .pwrite_zeroes = faulty_pwrite_zeroes,
        .pdiscard = faulty_pdiscard,
        .flush = faulty_flush,
        .truncate = faulty_truncate,
    };

    if (!bdrv_find_driver("faulty") && bdrv_register(&driver, NULL) < 0) {
        abort();
    }
}

/** Open "t.qcow2" on the filter; @more: options, each with a comma before. */
static inline BlockBackend *open_faulty(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "qcow2,node-name=q,file.driver=faulty,file.file.driver=file,"
        "file.file.filename=%%s/t.qcow2%s", more);

    return file_backend(text);
}

#endif /* TESTS_UNIT_QCOW2_FAULTY_H */
