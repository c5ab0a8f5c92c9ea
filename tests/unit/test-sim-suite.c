/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The conformance suite: our own drivers pass it, broken ones do not.
 */
#include "check-main.h"

#include <blockgraph/driver.h>
#include <blockgraph/sim-gen.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/scenarios/qcow2-image.h"

static void format_qcow2(BgSimDisk *disk)
{
    SimQcow2 how = { .version = 3, .cluster_bits = 9, .refcount_order = 4,
                     .size = 96 * 1024 };

    sim_qcow2_make(disk, &how);
}

static void format_extended(BgSimDisk *disk)
{
    SimQcow2 how = { .version = 3, .cluster_bits = 14, .refcount_order = 4,
                     .extended_l2 = true, .size = 96 * 1024 };

    sim_qcow2_make(disk, &how);
}

static void format_old(BgSimDisk *disk)
{
    SimQcow2 how = { .version = 2, .cluster_bits = 12, .refcount_order = 4,
                     .size = 96 * 1024 };

    sim_qcow2_make(disk, &how);
}

static const BgSimDriverSuite ours[] = {
    { .driver = "qcow2", .format = format_qcow2,
      .options = "qcow2,l2-cache-size=4096,l2-cache-entry-size=512,file=%s" },
    { .driver = "qcow2", .format = format_extended },
    { .driver = "qcow2", .format = format_old },
    { .driver = "qcow2", .format = format_qcow2, .read_only = true },
    { .driver = "raw" },
    { .driver = "raw", .options = "raw,offset=4096,size=131072,file=%s" },
    { .driver = "blkdebug", .options = "blkdebug,image=%s" },
    { .driver = "blkdebug", .options = "blkdebug,align=4k,image=%s" },
    { .driver = "blkdebug",
      .options = "blkdebug,max-transfer=4096,opt-write-zero=4096,image=%s" },
    { .driver = "blklogwrites",
      .options = "blklogwrites,file=%s,log.driver=null-co,"
                 "log.read-zeroes=on,log.size=64M" },
    { .driver = "sim-disk", .options = "raw,file=%s" },
    { .driver = "null-co", .options = "null-co,size=256k",
      .no_content = true, .no_durability = true },
    { .driver = "raw", .options = "raw,file=%s", .read_only = true },
};

START_TEST(our_drivers_pass)
{
    BgSimDriverSuite suite = ours[_i];
    g_autofree char *report = NULL;

    suite.seeds = 10;
    ck_assert_msg(bgsim_driver_suite(&suite, &report), "%s: %s",
                  suite.options ? suite.options : suite.driver, report);
}
END_TEST

/* --- drivers with one fault each ------------------------------------------ */

static int coroutine_fn broken_open(BlockDriverState *bs,
                                    BlockOptions *options, unsigned flags,
                                    GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static int64_t coroutine_fn broken_getlength(BlockDriverState *bs)
{
    return bdrv_length(bdrv_child_bs(bdrv_primary_child(bs)));
}

static int coroutine_fn good_preadv(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_preadv(bdrv_primary_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn good_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_primary_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

/* Says that the write went well, whatever came of it. */
static int coroutine_fn liar_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    good_pwritev(bs, io);
    return 0;
}

/* Its last sector is the first. */
static int coroutine_fn short_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    BlockIOVecSlice slice;
    int ret;

    ret = bdrv_co_pwritev(bdrv_primary_child(bs), io->offset,
                          io->bytes / 2,
                          block_iov_slice(&slice, io->iov, 0, io->bytes / 2),
                          0);
    block_iov_slice_clear(&slice);
    return ret;
}

/* FUA is taken and forgotten. */
static void fua_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->write_flags |= BDRV_REQ_FUA;
}

static int coroutine_fn fua_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_primary_child(bs), io->offset, io->bytes,
                           io->iov, 0);
}

#define BROKEN(name_, ...)                                                    \
    { .struct_size = sizeof(BlockDriver), .name = name_,                      \
      .kind = BLOCK_DRIVER_FORMAT, .open = broken_open,                       \
      .getlength = broken_getlength, .preadv = good_preadv, __VA_ARGS__ }

static const BlockDriver broken[] = {
    BROKEN("sound", .pwritev = good_pwritev),
    BROKEN("liar", .pwritev = liar_pwritev),
    BROKEN("half", .pwritev = short_pwritev),
    BROKEN("fua", .pwritev = fua_pwritev,
           .refresh_limits = fua_refresh_limits),
};

static void remove_dir(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        unlink(file);
    }
    g_dir_close(dir);
    rmdir(path);
}

START_TEST(a_broken_driver_does_not_pass)
{
    BgSimDriverSuite suite = { .driver = broken[_i].name };
    g_autofree char *report = NULL;
    g_autofree char *dir = g_dir_make_tmp("suite-XXXXXX", NULL);
    bool ok;

    ck_assert_ptr_nonnull(dir);

    ck_assert_int_eq(chdir(dir), 0); /* regression files are written here */
    ck_assert_int_eq(bdrv_register(&broken[_i], NULL), 0);
    ok = bgsim_driver_suite(&suite, &report);
    ck_assert_msg(ok == (_i == 0), "%s: %s", suite.driver, report);
    ck_assert(ok || report);
    remove_dir(dir);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-suite");
    TCase *tcase = tcase_create("sim-suite");

    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, our_drivers_pass, 0, G_N_ELEMENTS(ours));
    tcase_add_loop_test(tcase, a_broken_driver_does_not_pass, 0,
                        G_N_ELEMENTS(broken));
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
