/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-read: what is copied, what is not, who may ask for it, and what
 * happens when a copy fails.
 */
#include "cor-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#define KIB INT64_C(1024)
#define MIB (KIB * KIB)
#define CLUSTER (64 * KIB)
#define DISK (16 * CLUSTER)

static void given(const char *open)
{
    cor_base(DISK);
    cor_top(DISK, "cluster_size=64k", open);
}

static unsigned base_reads(void)
{
    return mem_disk(base)->count[MEM_READ];
}

/* --- what is copied ------------------------------------------------------- */

START_TEST(what_was_read_once_is_not_read_from_the_backing_file_again)
{
    unsigned reads;

    given(",copy-on-read=on");
    ck_assert(!is_there(guest, 0, DISK));
    expect_old(guest, CLUSTER, CLUSTER);
    ck_assert(is_there(guest, CLUSTER, CLUSTER));
    ck_assert(!is_there(guest, 0, CLUSTER));
    ck_assert(!is_there(guest, 2 * CLUSTER, DISK - 2 * CLUSTER));
    reads = base_reads();
    expect_old(guest, CLUSTER, CLUSTER);
    ck_assert_uint_eq(base_reads(), reads);
    expect_old(guest, 0, DISK);
    ck_assert(is_there(guest, 0, DISK));
    expect_old(guest, 0, DISK);
    expect_sound(top);
    cor_stop();
}
END_TEST

START_TEST(without_the_option_nothing_is_copied)
{
    given("");
    expect_old(guest, 0, DISK);
    ck_assert(!is_there(guest, 0, DISK));
    cor_stop();
}
END_TEST

START_TEST(a_request_alone_can_ask_for_a_copy)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    given("");
    ck_assert_int_eq(blk_pread(guest, 0, 512, buf, BDRV_REQ_COPY_ON_READ), 0);
    ck_assert_int_eq(buf[0], old_byte(0));
    ck_assert(is_there(guest, 0, CLUSTER));
    expect_old(guest, CLUSTER, CLUSTER);
    ck_assert(!is_there(guest, CLUSTER, CLUSTER));
    cor_stop();
}
END_TEST

static const struct {
    const char *create;
    int64_t cluster;
} images[] = {
    { "cluster_size=4k", 4 * KIB },
    { "cluster_size=64k", 64 * KIB },
    { "cluster_size=2M", 2 * MIB },
    { "cluster_size=16k,extended_l2=on", 16 * KIB },
    { "cluster_size=64k,compat=0.10", 64 * KIB },
    { "cluster_size=512", 512 },
};

START_TEST(copies_are_of_whole_clusters)
{
    int64_t cluster = images[_i].cluster;

    cor_base(6 * cluster);
    cor_top(6 * cluster, images[_i].create, ",copy-on-read=on");
    expect_old(guest, cluster + cluster / 2, 1);
    ck_assert(is_there(guest, cluster, cluster));
    ck_assert(!is_there(guest, 0, cluster));
    ck_assert(!is_there(guest, 2 * cluster, 4 * cluster));
    expect_old(guest, 3 * cluster - 1, cluster + 2);
    ck_assert(is_there(guest, cluster, 4 * cluster));
    ck_assert(!is_there(guest, 5 * cluster, cluster));
    expect_old(guest, 0, 6 * cluster);
    expect_sound(top);
    cor_stop();
}
END_TEST

START_TEST(a_long_read_is_copied_in_bounded_pieces)
{
    cor_base(9 * MIB);
    cor_top(9 * MIB, "cluster_size=64k", ",copy-on-read=on");
    expect_old(guest, 512, 9 * MIB - 1024);
    ck_assert(is_there(guest, 0, 9 * MIB));
    ck_assert_int_le(mem_disk(base)->last[MEM_READ].bytes, 2 * MIB);
    ck_assert_uint_ge(base_reads(), 5);
    expect_old(guest, 0, 9 * MIB);
    cor_stop();
}
END_TEST

START_TEST(what_the_image_has_is_neither_read_below_nor_written_again)
{
    uint8_t buf[512];
    g_autofree uint8_t *all = g_malloc(DISK);
    bool right = true;
    unsigned reads;

    given("");
    memset(buf, 'n', sizeof(buf));
    for (int64_t at = 0; at < DISK; at += 2 * CLUSTER) {
        ck_assert_int_eq(blk_pwrite(guest, at + 1024, 512, buf, 0), 0);
    }
    reads = base_reads();
    ck_assert_int_eq(blk_pread(guest, 0, DISK, all, BDRV_REQ_COPY_ON_READ), 0);
    ck_assert_uint_eq(base_reads(), reads + 8);
    for (int64_t i = 0; i < DISK; i++) {
        bool new = i % (2 * CLUSTER) >= 1024 && i % (2 * CLUSTER) < 1536;

        right &= all[i] == (new ? 'n' : old_byte(i));
    }
    ck_assert(right);
    ck_assert(is_there(guest, 0, DISK));
    cor_stop();
}
END_TEST

/* --- vectors -------------------------------------------------------------- */

/* Read through a vector of random pieces with a guard around each. */
static void read_in_pieces(GRand *rand, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *memory = g_malloc(bytes * 3 + 4096);
    struct iovec iov[32];
    int64_t done = 0;
    size_t at = 8;
    BlockIOVec v;
    int n = 0;

    memset(memory, 0xee, bytes * 3 + 4096);
    while (done < bytes) {
        int64_t piece = n == 31 ? bytes - done
                                : g_rand_int_range(rand, 1, MIN(bytes - done,
                                                                30000) + 1);

        iov[n].iov_base = memory + at;
        iov[n++].iov_len = piece;
        at += piece + 8;
        done += piece;
    }
    block_iov_init_external(&v, iov, n);
    ck_assert_int_eq(blk_preadv(guest, offset, bytes, &v, 0), 0);
    for (int i = 0; i < n; i++) {
        uint8_t *piece = iov[i].iov_base;
        bool guarded = true, filled = true;

        for (int j = 1; j <= 8; j++) {
            guarded &= piece[-j] == 0xee;
            guarded &= piece[iov[i].iov_len + j - 1] == 0xee;
        }
        for (size_t j = 0; j < iov[i].iov_len; j++) {
            filled &= piece[j] == old_byte(offset++);
        }
        ck_assert(guarded && filled);
    }
}

START_TEST(r78_unaligned_reads_fill_their_vector_and_nothing_else)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(78 + _i);
    int64_t bytes = 6 * images[_i].cluster;

    for (int i = 0; i < (bytes > MIB ? 1 : 8); i++) {
        cor_base(bytes);
        cor_top(bytes, images[_i].create, ",copy-on-read=on");
        for (int j = 0; j < 4; j++) {
            int64_t offset = g_rand_int_range(rand, 0, bytes);
            int64_t most = MIN(bytes - offset, 200000);

            read_in_pieces(rand, offset, g_rand_int_range(rand, 0, most) + 1);
        }
        expect_old(guest, 0, bytes);
        cor_stop();
    }
}
END_TEST

/* --- not inflated --------------------------------------------------------- */

START_TEST(zeroes_of_the_backing_file_take_no_room)
{
    int64_t before;

    cor_base(DISK);
    memset(mem_disk(base)->data + CLUSTER, 0, 14 * CLUSTER);
    cor_top(DISK, "cluster_size=64k", ",copy-on-read=on");
    expect_old(guest, 0, CLUSTER);
    before = mem_disk(disk)->length;
    expect_zero(guest, CLUSTER, 14 * CLUSTER);
    ck_assert(is_there(guest, 0, 15 * CLUSTER));
    ck_assert_int_eq(mem_disk(disk)->length, before);
    cor_stop();
}
END_TEST

START_TEST(what_no_layer_has_stays_so)
{
    g_autofree char *make = g_strdup_printf("qcow2,file=low,size=%"
                                            G_GINT64_FORMAT, DISK);
    BlockDriverState *low = open_ok("mem,node-name=low,size=0");
    int64_t before;
    uint8_t buf[512];

    ck_assert_int_eq(bdrv_create(graph, opts(make), NULL), 0);
    base = open_ok("qcow2,node-name=base,file=low");
    cor_top(DISK, "cluster_size=64k", ",copy-on-read=on");
    before = mem_disk(disk)->length;
    expect_zero(guest, 0, DISK);
    ck_assert_int_eq(prefetch(guest, 0, DISK), 0);
    ck_assert(!is_there(guest, 0, DISK));
    ck_assert_int_eq(mem_disk(disk)->length, before);
    ck_assert_int_eq(blk_pread(guest, 0, 512, buf, 0), 0);
    cor_stop();
    bdrv_unref(low);
}
END_TEST

START_TEST(an_image_that_knows_no_zeroes_leaves_them_below)
{
    int64_t before;

    cor_base(DISK);
    memset(mem_disk(base)->data, 0, DISK - CLUSTER);
    cor_top(DISK, "cluster_size=64k,compat=0.10", ",copy-on-read=on");
    before = mem_disk(disk)->length;
    expect_zero(guest, 0, DISK - CLUSTER);
    ck_assert_int_eq(mem_disk(disk)->length, before);
    expect_old(guest, DISK - CLUSTER, CLUSTER);
    ck_assert(is_there(guest, DISK - CLUSTER, CLUSTER));
    cor_stop();
}
END_TEST

START_TEST(zeroes_that_hide_a_layer_are_copied_by_a_prefetch)
{
    cor_base(DISK);
    cor_top(DISK, "cluster_size=64k,compat=0.10", "");
    {
        /* deep (data) <- base (zeroes) <- top (version 2) */
        BlockDriverState *deep = base, *low;
        g_autofree char *make = g_strdup_printf("qcow2,file=low,size=%"
                                                G_GINT64_FORMAT, DISK);
        g_autoptr(GError) error = NULL;
        BlockDriverState *mid;

        low = open_ok("mem,node-name=low,size=0");
        ck_assert_int_eq(bdrv_create(graph, opts(make), NULL), 0);
        mid = open_ok("qcow2,node-name=mid,file=low,backing=base");
        {
            BlockBackend *blk = any_backend("fill", mid);

            ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, CLUSTER, 0), 0);
            blk_unref(blk);
        }
        ck_assert_int_eq(bdrv_set_backing(top, mid, &error), 0);
        expect_zero(guest, 0, CLUSTER);
        ck_assert_int_eq(prefetch(guest, 0, 2 * CLUSTER), 0);
        ck_assert(is_there(guest, 0, 2 * CLUSTER));
        ck_assert_int_eq(bdrv_set_backing(top, deep, &error), 0);
        expect_zero(guest, 0, CLUSTER);
        expect_old(guest, CLUSTER, CLUSTER);
        bdrv_unref(mid);
        bdrv_unref(low);
    }
    cor_stop();
}
END_TEST

START_TEST(an_image_may_be_longer_than_its_backing_file)
{
    int64_t cluster = images[_i].cluster;
    int64_t end = 2 * cluster + cluster / 2 - 100;

    cor_base(end);
    cor_top(8 * cluster, images[_i].create, ",copy-on-read=on");
    expect_old(guest, 0, end);
    expect_zero(guest, end, 8 * cluster - end);
    expect_old(guest, 0, end);
    ck_assert(is_there(guest, 0, 2 * cluster));
    ck_assert_int_lt(mem_disk(disk)->length,
                     4 * cluster + 16 * MAX(cluster, 4096));
    expect_sound(top);
    cor_stop();
}
END_TEST

/* --- prefetch ------------------------------------------------------------- */

START_TEST(a_prefetch_copies_and_returns_no_data)
{
    given("");
    ck_assert_int_eq(prefetch(guest, 1, 2 * CLUSTER), 0);
    ck_assert(is_there(guest, 0, 3 * CLUSTER));
    ck_assert(!is_there(guest, 3 * CLUSTER, DISK - 3 * CLUSTER));
    ck_assert_int_eq(prefetch(guest, 0, DISK), 0);
    ck_assert_int_eq(prefetch(guest, 0, DISK), 0);
    expect_old(guest, 0, DISK);
    /* Without a copy there is nothing that a prefetch could do. */
    ck_assert_int_eq(blk_preadv(guest, 0, 512, NULL, BDRV_REQ_PREFETCH),
                     -ENOTSUP);
    cor_stop();
}
END_TEST

START_TEST(a_prefetch_where_nothing_is_below_does_nothing)
{
    BlockDriverState *bs = open_ok("mem,node-name=alone,size=64k");
    BlockBackend *blk = any_backend("alone", bs);

    ck_assert_int_eq(prefetch(blk, 0, 4096), 0);
    ck_assert_uint_eq(mem_total(mem_disk(bs)), 0);
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

/* --- failures ------------------------------------------------------------- */

START_TEST(a_copy_that_fails_does_not_fail_the_read)
{
    given(",copy-on-read=on");
    mem_disk(disk)->fail_forever[MEM_WRITE] = ENOSPC;
    expect_old(guest, 0, 3 * CLUSTER);
    expect_old(guest, 100, 3 * CLUSTER);
    mem_disk(disk)->fail_forever[MEM_WRITE] = 0;
    expect_old(guest, 0, DISK);
    ck_assert(is_there(guest, 0, DISK));
    cor_stop();
}
END_TEST

START_TEST(a_copy_that_fails_fails_a_prefetch)
{
    given("");
    mem_disk(disk)->fail_forever[MEM_WRITE] = ENOSPC;
    ck_assert_int_eq(prefetch(guest, 0, 3 * CLUSTER), -ENOSPC);
    mem_disk(disk)->fail_forever[MEM_WRITE] = 0;
    mem_disk(base)->fail[MEM_READ] = EIO;
    ck_assert_int_eq(prefetch(guest, 0, 3 * CLUSTER), -EIO);
    ck_assert_int_eq(prefetch(guest, 0, 3 * CLUSTER), 0);
    ck_assert(is_there(guest, 0, 3 * CLUSTER));
    expect_old(guest, 0, DISK);
    cor_stop();
}
END_TEST

START_TEST(neighbours_that_cannot_be_read_do_not_fail_a_read)
{
    given(",copy-on-read=on");
    /* The copy wants the cluster, then the guest its sector. */
    mem_disk(base)->fail[MEM_READ] = EIO;
    expect_old(guest, 512, 512);
    ck_assert(!is_there(guest, 0, CLUSTER));
    mem_disk(base)->fail_forever[MEM_READ] = EIO;
    {
        uint8_t buf[512];

        ck_assert_int_eq(blk_pread(guest, 0, 512, buf, 0), -EIO);
    }
    mem_disk(base)->fail_forever[MEM_READ] = 0;
    cor_stop();
}
END_TEST

START_TEST(what_cannot_be_read_beside_a_copy_fails_the_read)
{
    g_autofree uint8_t *buf = g_malloc(4 * CLUSTER);

    cor_base(DISK);
    memset(mem_disk(base)->data + CLUSTER, 0, CLUSTER);
    cor_top(DISK, "cluster_size=64k", ",copy-on-read=on");
    memset(buf, 'n', CLUSTER);
    ck_assert_int_eq(blk_pwrite(guest, 0, CLUSTER, buf, 0), 0);
    mem_disk(disk)->fail_forever[MEM_READ] = EIO;
    ck_assert_int_eq(blk_pread(guest, 0, 2 * CLUSTER, buf, 0), -EIO);
    ck_assert_int_eq(blk_pread(guest, 0, 3 * CLUSTER, buf, 0), -EIO);
    mem_disk(disk)->fail_forever[MEM_READ] = 0;
    /* Once only: what is left of the read asks again. */
    mem_disk(disk)->fail[MEM_READ] = EIO;
    ck_assert_int_eq(blk_pread(guest, 0, 4 * CLUSTER, buf, 0), 0);
    ck_assert_int_eq(buf[0], 'n');
    ck_assert_int_eq(buf[CLUSTER - 1], 'n');
    ck_assert_int_eq(buf[3 * CLUSTER], old_byte(3 * CLUSTER));
    cor_stop();
}
END_TEST

/* --- who may -------------------------------------------------------------- */

START_TEST(read_only_nodes_are_refused_when_they_are_opened)
{
    given("");
    bdrv_unref(top);
    blk_unref(guest);
    open_fails("qcow2,node-name=x,file=disk,read-only=on,copy-on-read=on",
               EINVAL, "Node 'x' (driver 'qcow2'): copy-on-read=on cannot be "
               "used with read-only=on");
    open_fails("pass,node-name=x,file=base,read-only=on,copy-on-read=on",
               EINVAL, "copy-on-read=on cannot be used with read-only=on");
    open_fails("copy-on-read,node-name=x,read-only=on,file.driver=qcow2,"
               "file.node-name=y,file.file=disk", EACCES,
               "node 'y' is read-only, so what is read cannot be copied to it");
    bdrv_unref(disk);
    bdrv_unref(base);
}
END_TEST

START_TEST(read_only_nodes_are_refused_at_reopen)
{
    GError *error = NULL;

    given(",copy-on-read=on");
    blk_unref(guest);
    ck_assert_int_lt(cor_try_reopen(top, "read-only=on", &error), 0);
    expect_error(&error, EINVAL, "Node 'top' (driver 'qcow2'): "
                 "copy-on-read=on cannot be used with read-only=on");
    ck_assert_int_eq(cor_try_reopen(top, "copy-on-read=off,read-only=on", &error),
                     0);
    ck_assert_int_lt(cor_try_reopen(top, "copy-on-read=on,read-only=on", &error),
                     0);
    expect_error(&error, EINVAL, "copy-on-read=on cannot be used");
    ck_assert_int_eq(cor_try_reopen(top, "copy-on-read=on,read-only=off", &error),
                     0);
    guest = any_backend("guest", top);
    expect_old(guest, 0, CLUSTER);
    ck_assert(is_there(guest, 0, CLUSTER));
    cor_stop();
}
END_TEST

START_TEST(reopen_turns_copying_on_and_off)
{
    GError *error = NULL;

    given("");
    ck_assert_int_eq(cor_try_reopen(top, "copy-on-read=on", &error), 0);
    expect_old(guest, 0, CLUSTER);
    ck_assert_int_eq(cor_try_reopen(top, "copy-on-read=off", &error), 0);
    expect_old(guest, CLUSTER, CLUSTER);
    ck_assert(is_there(guest, 0, CLUSTER));
    ck_assert(!is_there(guest, CLUSTER, CLUSTER));
    cor_stop();
}
END_TEST

START_TEST(a_layer_below_a_filter_in_use_cannot_become_read_only)
{
    BlockDriverState *cor;
    BlockBackend *reader;
    GError *error = NULL;

    given("");
    blk_unref(guest);
    cor = open_ok("copy-on-read,node-name=cor,file=top");
    reader = backend_ok("reader", cor, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    ck_assert_int_lt(cor_try_reopen(top, "read-only=on", &error), 0);
    expect_error(&error, EACCES, "Node 'top' is read-only, but node 'cor' "
                 "(as 'file') needs 'write unchanged'");
    expect_old(reader, 0, CLUSTER);
    blk_unref(reader);
    bdrv_unref(cor);
    guest = any_backend("guest", top);
    ck_assert(is_there(guest, 0, CLUSTER));
    cor_stop();
}
END_TEST

START_TEST(a_request_needs_the_permission_to_write_what_is_there)
{
    BlockBackend *reader;
    uint8_t buf[512];

    given("");
    reader = backend_ok("reader", top, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pread(reader, 0, 512, buf, BDRV_REQ_COPY_ON_READ),
                     -EPERM);
    blk_unref(reader);
    reader = backend_ok("reader", top, BLK_PERM_CONSISTENT_READ |
                        BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pread(reader, 0, 512, buf, BDRV_REQ_COPY_ON_READ), 0);
    ck_assert(is_there(reader, 0, CLUSTER));
    blk_unref(reader);
    blk_unref(guest);
    ck_assert_int_eq(cor_try_reopen(top, "read-only=on", NULL), 0);
    guest = any_backend("guest", top);
    ck_assert_int_eq(blk_pread(guest, CLUSTER, 512, buf,
                               BDRV_REQ_COPY_ON_READ), -EACCES);
    cor_stop();
}
END_TEST

START_TEST(who_lets_nobody_write_to_a_data_file_is_seen_before_a_copy)
{
    const BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                             .shared = BLK_PERM_CONSISTENT_READ };

    for (int option = 0; option < 2; option++) {
        BlockDriverState *data = open_ok("mem,node-name=data,size=1M");
        BlockBackend *reader = blk_new(graph, "reader", &perm);
        GError *error = NULL;

        cor_base(1 << 20);
        cor_top(1 << 20, "data_file=x,data-file=data",
                option ? ",data-file=data,copy-on-read=on"
                       : ",data-file=data");
        blk_unref(guest);
        guest = backend_ok("guest", top, BLK_PERM_CONSISTENT_READ |
                           (option ? 0 : BLK_PERM_WRITE_UNCHANGED),
                           BLK_PERM_ALL);
        ck_assert_int_eq(blk_insert_bs(reader, data, &error), -EPERM);
        expect_error(&error, EPERM, "'write");
        blk_unref(reader);
        cor_stop();
        bdrv_unref(data);
    }
}
END_TEST

/* --- filters -------------------------------------------------------------- */

/* Put @text above top, and read through it. */
START_TEST(the_filter_copies_while_it_is_there)
{
    BlockDriverState *filter;

    given("");
    filter = cor_insert("copy-on-read,node-name=cor");
    expect_old(guest, 0, CLUSTER);
    ck_assert_int_eq(blk_preadv(guest, 2 * CLUSTER, 512, NULL,
                                BDRV_REQ_PREFETCH), 0);
    cor_drop(filter);
    expect_old(guest, CLUSTER, CLUSTER);
    ck_assert(is_there(guest, 0, CLUSTER));
    ck_assert(!is_there(guest, CLUSTER, CLUSTER));
    ck_assert(is_there(guest, 2 * CLUSTER, CLUSTER));
    cor_stop();
}
END_TEST

START_TEST(a_guest_that_shares_nothing_can_be_given_the_filter)
{
    BlockDriverState *filter;

    given("");
    blk_unref(guest);
    guest = backend_ok("guest", top, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_CONSISTENT_READ);
    filter = cor_insert("copy-on-read,node-name=cor");
    expect_old(guest, 0, CLUSTER);
    ck_assert(is_there(guest, 0, CLUSTER));
    cor_drop(filter);
    cor_stop();
}
END_TEST

START_TEST(the_first_node_below_filters_that_is_none_copies)
{
    static const char *const stacks[] = {
        "pass,node-name=f,copy-on-read=on,file.driver=pass,file.file=top",
        "copy-on-read,node-name=f,file.driver=pass,file.file=top",
        "copy-on-read,node-name=f,file.driver=blkdebug,file.image=top",
        "pass,node-name=f,file.driver=copy-on-read,file.file=top",
        "pass,node-name=f,copy-on-read=on,file.driver=copy-on-read,"
        "file.file=top",
        "raw,node-name=f,file.driver=copy-on-read,file.file=top",
        "raw,node-name=f,offset=0,file.driver=pass,file.copy-on-read=on,"
        "file.file=top",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(stacks); i++) {
        BlockDriverState *filter;
        BlockBackend *blk;

        given("");
        filter = open_ok(stacks[i]);
        blk = any_backend("above", filter);
        expect_old(blk, CLUSTER + 1000, 10);
        ck_assert(is_there(guest, CLUSTER, CLUSTER));
        ck_assert(!is_there(guest, 0, CLUSTER));
        ck_assert(!is_there(guest, 2 * CLUSTER, DISK - 2 * CLUSTER));
        blk_unref(blk);
        bdrv_unref(filter);
        cor_stop();
    }
}
END_TEST

START_TEST(a_node_without_a_backing_file_has_nothing_to_copy)
{
    BlockDriverState *raw;
    BlockBackend *blk;

    given("");
    raw = open_ok("raw,node-name=raw,copy-on-read=on,file=top");
    blk = any_backend("raw", raw);
    expect_old(blk, 0, DISK);
    ck_assert(!is_there(guest, 0, DISK));
    ck_assert_int_eq(prefetch(blk, 0, DISK), 0);
    ck_assert(!is_there(guest, 0, DISK));
    blk_unref(blk);
    bdrv_unref(raw);
    cor_stop();
}
END_TEST

START_TEST(a_driver_without_clusters_and_zero_writes_copies_too)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    cor_base(DISK);
    bs = open_ok("mem,node-name=over,size=1M,zero=off,backing=base,"
                 "copy-on-read=on");
    blk = any_backend("over", bs);
    expect_old(blk, 8192, 4096);
    ck_assert(is_there(blk, 8192, 4096));
    ck_assert(!is_there(blk, 0, 8192));
    expect_old(blk, 1, 20000);
    expect_old(blk, 0, DISK);
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(base);
}
END_TEST

/* --- bitmaps, layers ------------------------------------------------------ */

START_TEST(a_copy_is_a_write_to_dirty_bitmaps_of_the_layer)
{
    BdrvDirtyBitmap *bitmap;

    given(",copy-on-read=on");
    bitmap = bdrv_create_dirty_bitmap(top, CLUSTER, "b", NULL);
    expect_old(guest, CLUSTER, 512);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), CLUSTER);
    bdrv_clear_dirty_bitmap(bitmap, NULL);
    expect_old(guest, CLUSTER, 512);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 0);
    bdrv_release_dirty_bitmap(bitmap);
    cor_stop();
}
END_TEST

START_TEST(a_flush_brings_copies_to_storage)
{
    unsigned flushes;

    given(",copy-on-read=on");
    ck_assert_int_eq(blk_flush(guest), 0);
    expect_old(guest, 0, 512);
    flushes = mem_disk(disk)->count[MEM_FLUSH];
    ck_assert_int_eq(blk_flush(guest), 0);
    ck_assert_uint_gt(mem_disk(disk)->count[MEM_FLUSH], flushes);
    cor_stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copy-on-read");
    TCase *tcase = tcase_create("copy-on-read");
    int n = G_N_ELEMENTS(images);

    mem_register();
    register_pass_driver();
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase,
            what_was_read_once_is_not_read_from_the_backing_file_again);
    PROMISE(tcase, without_the_option_nothing_is_copied);
    PROMISE(tcase, a_request_alone_can_ask_for_a_copy);
    tcase_add_loop_test(tcase, copies_are_of_whole_clusters, 0, n);
    PROMISE(tcase, a_long_read_is_copied_in_bounded_pieces);
    PROMISE(tcase,
            what_the_image_has_is_neither_read_below_nor_written_again);
    tcase_add_loop_test(tcase,
                        r78_unaligned_reads_fill_their_vector_and_nothing_else,
                        0, n);
    PROMISE(tcase, zeroes_of_the_backing_file_take_no_room);
    PROMISE(tcase, what_no_layer_has_stays_so);
    PROMISE(tcase, an_image_that_knows_no_zeroes_leaves_them_below);
    PROMISE(tcase, zeroes_that_hide_a_layer_are_copied_by_a_prefetch);
    tcase_add_loop_test(tcase, an_image_may_be_longer_than_its_backing_file, 0,
                        n);
    PROMISE(tcase, a_prefetch_copies_and_returns_no_data);
    PROMISE(tcase, a_prefetch_where_nothing_is_below_does_nothing);
    PROMISE(tcase, a_copy_that_fails_does_not_fail_the_read);
    PROMISE(tcase, a_copy_that_fails_fails_a_prefetch);
    PROMISE(tcase, neighbours_that_cannot_be_read_do_not_fail_a_read);
    PROMISE(tcase, what_cannot_be_read_beside_a_copy_fails_the_read);
    PROMISE(tcase, read_only_nodes_are_refused_when_they_are_opened);
    PROMISE(tcase, read_only_nodes_are_refused_at_reopen);
    PROMISE(tcase, reopen_turns_copying_on_and_off);
    PROMISE(tcase, a_layer_below_a_filter_in_use_cannot_become_read_only);
    PROMISE(tcase, a_request_needs_the_permission_to_write_what_is_there);
    PROMISE(tcase, who_lets_nobody_write_to_a_data_file_is_seen_before_a_copy);
    PROMISE(tcase, the_filter_copies_while_it_is_there);
    PROMISE(tcase, a_guest_that_shares_nothing_can_be_given_the_filter);
    PROMISE(tcase, the_first_node_below_filters_that_is_none_copies);
    PROMISE(tcase, a_node_without_a_backing_file_has_nothing_to_copy);
    PROMISE(tcase, a_driver_without_clusters_and_zero_writes_copies_too);
    PROMISE(tcase, a_copy_is_a_write_to_dirty_bitmaps_of_the_layer);
    PROMISE(tcase, a_flush_brings_copies_to_storage);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
