/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy-on-read filter with a bottom: data of the layers from there upwards
 * are copied, and those layers stay while it is there.
 */
#include "cor-fixture.h"

#define CLUSTER INT64_C(65536)
#define DISK (16 * CLUSTER)

/* base <- mid (clusters 2 and 3 are its own) <- top */
static BlockDriverState *mid, *low;

static void given_three(void)
{
    g_autofree char *make = g_strdup_printf("qcow2,file=low,size=%"
                                            G_GINT64_FORMAT, DISK);
    g_autofree uint8_t *buf = g_malloc(2 * CLUSTER);
    g_autoptr(GError) error = NULL;
    BlockBackend *blk;

    cor_base(DISK);
    cor_top(DISK, "cluster_size=64k", "");
    low = open_ok("mem,node-name=low,size=0");
    ck_assert_int_eq(bdrv_create(graph, opts(make), NULL), 0);
    mid = open_ok("qcow2,node-name=mid,file=low,backing=base");
    blk = any_backend("fill", mid);
    for (int64_t i = 0; i < 2 * CLUSTER; i++) {
        buf[i] = old_byte(2 * CLUSTER + i);
    }
    ck_assert_int_eq(blk_pwrite(blk, 2 * CLUSTER, 2 * CLUSTER, buf, 0), 0);
    blk_unref(blk);
    ck_assert_msg(bdrv_set_backing(top, mid, &error) == 0, "%s",
                  error ? error->message : "no error set");
}

static void stop_three(void)
{
    cor_stop();
    bdrv_unref(mid);
    bdrv_unref(low);
}

START_TEST(only_data_down_to_the_bottom_are_copied)
{
    BlockDriverState *filter;

    given_three();
    filter = cor_insert("copy-on-read,node-name=cor,bottom=mid");
    expect_old(guest, 0, DISK);
    ck_assert_int_eq(blk_preadv(guest, 0, DISK, NULL, BDRV_REQ_PREFETCH), 0);
    cor_drop(filter);
    ck_assert(!is_there(guest, 0, 2 * CLUSTER));
    ck_assert(is_there(guest, 2 * CLUSTER, 2 * CLUSTER));
    ck_assert(!is_there(guest, 4 * CLUSTER, DISK - 4 * CLUSTER));
    filter = cor_insert("copy-on-read,node-name=cor,bottom=base");
    expect_old(guest, 0, DISK);
    cor_drop(filter);
    ck_assert(is_there(guest, 0, DISK));
    stop_three();
}
END_TEST

START_TEST(a_prefetch_above_the_bottom_reads_nothing_below_it)
{
    BlockDriverState *filter;
    unsigned reads;

    given_three();
    filter = cor_insert("copy-on-read,node-name=cor,bottom=mid");
    reads = mem_disk(base)->count[MEM_READ];
    ck_assert_int_eq(blk_preadv(guest, 0, DISK, NULL, BDRV_REQ_PREFETCH), 0);
    ck_assert_uint_eq(mem_disk(base)->count[MEM_READ], reads);
    cor_drop(filter);
    ck_assert(is_there(guest, 2 * CLUSTER, 2 * CLUSTER));
    stop_three();
}
END_TEST

/* It may take away all that is above its own bottom when that is done. */
START_TEST(a_filter_copies_through_one_with_a_higher_bottom)
{
    BlockDriverState *higher, *lower;
    BlockBackend *blk;

    given_three();
    higher = cor_insert("copy-on-read,node-name=higher,bottom=top");
    lower = open_ok("copy-on-read,node-name=lower,file=higher,bottom=mid");
    blk = any_backend("job", lower);
    ck_assert_int_eq(blk_preadv(blk, 0, DISK, NULL, BDRV_REQ_PREFETCH), 0);
    blk_unref(blk);
    ck_assert(!is_there(guest, 0, 2 * CLUSTER));
    ck_assert(is_there(guest, 2 * CLUSTER, 2 * CLUSTER));
    ck_assert(!is_there(guest, 4 * CLUSTER, DISK - 4 * CLUSTER));
    bdrv_unref(lower);
    cor_drop(higher);
    stop_three();
}
END_TEST

START_TEST(a_bottom_must_be_a_layer_of_the_chain)
{
    given_three();
    open_fails("copy-on-read,node-name=c,file=top,bottom=nobody", ENOENT,
               "Node 'c': node 'nobody' (as 'bottom') not found");
    open_fails("copy-on-read,node-name=c,file=mid,bottom=top", EINVAL,
               "Node 'c': node 'top' cannot be 'bottom': Node 'top' is not in "
               "the chain below node 'mid'");
    open_fails("copy-on-read,node-name=c,file=top,bottom=topdbg", EINVAL,
               "Node 'c': node 'topdbg' (as 'bottom') is a filter");
    stop_three();
}
END_TEST

START_TEST(the_chain_to_the_bottom_stays_while_the_filter_is_there)
{
    BlockDriverState *filter, *between;
    GError *error = NULL;

    given_three();
    filter = cor_insert("copy-on-read,node-name=cor,bottom=mid");
    ck_assert_int_lt(bdrv_set_backing(top, base, &error), 0);
    expect_error(&error, EBUSY, "it is frozen by a job, or by who uses it");
    ck_assert_int_lt(bdrv_insert_node(mid, opts("pass"), &between, &error), 0);
    expect_error(&error, EBUSY, "frozen");
    /* Below the bottom and above the chain all is free. */
    ck_assert_int_eq(bdrv_set_backing(mid, NULL, &error), 0);
    ck_assert_int_eq(bdrv_set_backing(mid, base, &error), 0);
    between = cor_insert("pass,node-name=between");
    expect_old(guest, 0, DISK);
    ck_assert(is_there(guest, 2 * CLUSTER, 2 * CLUSTER));
    cor_drop(between);
    cor_drop(filter);
    ck_assert_int_eq(bdrv_set_backing(top, base, &error), 0);
    expect_old(guest, 0, DISK);
    stop_three();
}
END_TEST

START_TEST(the_bottom_cannot_be_changed_by_reopen)
{
    BlockDriverState *filter;
    GError *error = NULL;

    given_three();
    filter = cor_insert("copy-on-read,node-name=cor,bottom=mid");
    ck_assert_int_lt(cor_try_reopen(filter, "bottom=base", &error), 0);
    expect_error(&error, EINVAL, "option 'bottom' cannot be changed");
    cor_drop(filter);
    stop_three();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, only_data_down_to_the_bottom_are_copied);
    PROMISE(tcase, a_prefetch_above_the_bottom_reads_nothing_below_it);
    PROMISE(tcase, a_filter_copies_through_one_with_a_higher_bottom);
    PROMISE(tcase, a_bottom_must_be_a_layer_of_the_chain);
    PROMISE(tcase, the_chain_to_the_bottom_stays_while_the_filter_is_there);
    PROMISE(tcase, the_bottom_cannot_be_changed_by_reopen);
}

int main(void)
{
    mem_register();
    register_pass_driver();
    return graph_suite("copy-on-read-bottom", add_tests);
}
