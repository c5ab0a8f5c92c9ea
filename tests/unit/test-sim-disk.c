/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Simulated disks: what each way to behave promises.
 */
#include "check-main.h"

#include <blockgraph/sim-disk.h>
#include <blockgraph/sim-fault.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static BgSim *sim;
static BgSimDisk *disk;
static BlockBackend *blk;

static void attach(void)
{
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    GError *error = NULL;
    BlockDriverState *bs = bgsim_disk_open(disk, NULL, &error);

    ck_assert_msg(bs, "%s", error ? error->message : "");
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, bs, &error), 0);
    bdrv_unref(bs);
}

static void given_seed(uint64_t seed, const BgSimDiskConfig *config)
{
    BgSimConfig world = { .strategy = BGSIM_STRATEGY_FIFO };

    sim = bgsim_new(seed, &world);
    disk = bgsim_disk_new(sim, "disk0", config);
    attach();
}

static void given(const BgSimDiskConfig *config)
{
    given_seed(1, config);
}

static void done(void)
{
    blk_unref(blk);
    bgsim_free(sim);
}

/* One letter is 512 bytes. */
static int write_at(int64_t sector, const char *letters, unsigned flags)
{
    size_t n = strlen(letters);
    g_autofree uint8_t *buf = g_malloc(n * 512);

    for (size_t i = 0; i < n; i++) {
        memset(buf + i * 512, letters[i], 512);
    }
    return blk_pwrite(blk, sector * 512, n * 512, buf, flags);
}

static char *letters_of(const uint8_t *buf, int n)
{
    char *text = g_malloc0(n + 1);

    for (int i = 0; i < n; i++) {
        text[i] = buf[i * 512] ? buf[i * 512] : '-';
        for (int k = 0; k < 512; k++) {
            if (buf[i * 512 + k] != buf[i * 512]) {
                text[i] = '?';
            }
        }
    }
    return text;
}

static void expect(int64_t sector, const char *letters)
{
    int n = strlen(letters);
    g_autofree uint8_t *buf = g_malloc(n * 512);
    g_autofree char *found = NULL;

    ck_assert_int_eq(blk_pread(blk, sector * 512, n * 512, buf, 0), 0);
    found = letters_of(buf, n);
    ck_assert_str_eq(found, letters);
}

START_TEST(what_is_written_is_read)
{
    given(NULL);
    ck_assert_int_eq(blk_getlength(blk), 256 * 1024);
    ck_assert_int_eq(write_at(3, "ABC", 0), 0);
    expect(2, "-ABC-");
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 4 * 512, 512, 0), 0);
    expect(2, "-A-C-");
    done();
}
END_TEST

static BgSimDiskStats stats(void)
{
    BgSimDiskStats s;

    bgsim_disk_get_stats(disk, &s);
    return s;
}

START_TEST(a_flush_makes_ended_writes_stable)
{
    given(NULL);
    write_at(0, "ABC", 0);
    ck_assert_uint_eq(stats().volatile_atoms, 3);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    write_at(1, "X", BDRV_REQ_FUA);
    ck_assert_uint_eq(stats().volatile_atoms, 0);
    expect(0, "AXC");
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-disk");
    TCase *tcase = tcase_create("sim-disk");

    PROMISE(tcase, what_is_written_is_read);
    PROMISE(tcase, a_flush_makes_ended_writes_stable);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
