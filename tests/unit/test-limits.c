/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits follow a change below, and only where requests cannot read them.
 */
#include "graph-fixture.h"

#define READ BLK_PERM_CONSISTENT_READ
#define ALL BLK_PERM_ALL

/* "unit": a disk whose memory alignment is an option, and can be reopened. */
typedef struct Unit {
    int64_t align;
    int64_t next_align;    /* between prepare and commit */
    unsigned nr_refreshed; /* calls of refresh_limits */
    bool was_drained;      /* at the last of them */
} Unit;

static const BlockOption unit_options[] = {
    { .name = "align", .type = BLOCK_OPTION_NUMBER, .def = "1",
      .help = "of memory" },
    { .type = BLOCK_OPTION_END },
};

static int coroutine_fn unit_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return block_options_absorb(options, unit_options,
                                &((Unit *)bdrv_opaque(bs))->align, "unit",
                                errp);
}

static int coroutine_fn unit_reopen_prepare(BdrvReopenState *state,
                                            GError **errp)
{
    return block_options_absorb(state->options, unit_options,
                                &((Unit *)bdrv_opaque(state->bs))->next_align,
                                "unit", errp);
}

static void unit_reopen_commit(BdrvReopenState *state)
{
    Unit *unit = bdrv_opaque(state->bs);

    unit->align = unit->next_align;
}

static void unit_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    Unit *unit = bdrv_opaque(bs);

    unit->nr_refreshed++;
    unit->was_drained = bdrv_is_drained(bs);
    limits->min_mem_alignment = unit->align;
}

static int64_t coroutine_fn unit_getlength(BlockDriverState *bs)
{
    return 65536;
}

static const BlockDriver unit_driver = {
    .struct_size = sizeof(BlockDriver),
    .name = "unit",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(Unit),
    .options = unit_options,
    .open = unit_open,
    .reopen_prepare = unit_reopen_prepare,
    .reopen_commit = unit_reopen_commit,
    .refresh_limits = unit_refresh_limits,
    .getlength = unit_getlength,
};

/* "pair": a format with its data in two files. */
static int coroutine_fn pair_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, true,
                              errp) &&
                   bdrv_co_open_child(bs, options, "data", BDRV_CHILD_DATA,
                                      true, errp)
               ? 0
               : -EINVAL;
}

static const BlockDriver pair_driver = {
    .struct_size = sizeof(BlockDriver),
    .name = "pair",
    .kind = BLOCK_DRIVER_FORMAT,
    .open = pair_open,
    .getlength = unit_getlength,
};

/*
 *   guest     reader
 *     |         |
 *    top        |
 *     |         |
 *    pair       |
 *    /  \       |
 *  left  right -+      left is reopened: right is below a drained node, but
 *                      its reader is not held off
 */
static BlockDriverState *left, *right, *both, *top;
static BlockBackend *guest, *reader;

static void setup(void)
{
    graph_setup();
    left = open_ok("unit,node-name=left");
    right = open_ok("unit,node-name=right,align=16");
    both = open_ok("pair,node-name=both,file=left,data=right");
    top = open_ok("pass,node-name=top,file=both");
    guest = backend_ok("guest", top, READ, ALL);
    reader = backend_ok("reader", right, READ, ALL);
}

static void teardown(void)
{
    blk_unref(reader);
    blk_unref(guest);
    bdrv_unref(top);
    bdrv_unref(both);
    bdrv_unref(right);
    bdrv_unref(left);
    graph_teardown();
}

static void alignments_are(uint32_t at_left, uint32_t above)
{
    ck_assert_uint_eq(bdrv_limits(left)->min_mem_alignment, at_left);
    ck_assert_uint_eq(bdrv_limits(right)->min_mem_alignment, 16);
    ck_assert_uint_eq(bdrv_limits(both)->min_mem_alignment, above);
    ck_assert_uint_eq(bdrv_limits(top)->min_mem_alignment, above);
}

START_TEST(limits_above_a_reopened_node_are_merged_again)
{
    alignments_are(1, 16);
    ck_assert_int_eq(bdrv_reopen(left, opts("unit,align=512"), NULL), 0);
    alignments_are(512, 512);
    /* Down again, but not below what the other file needs. */
    ck_assert_int_eq(bdrv_reopen(left, opts("unit,align=8"), NULL), 0);
    alignments_are(8, 16);
}
END_TEST

START_TEST(limits_above_an_exchanged_node_are_merged_again)
{
    BlockDriverState *other = open_ok("unit,node-name=other,align=4096");

    ck_assert_int_eq(bdrv_replace_node(left, other, NULL), 0);
    alignments_are(1, 4096);
    ck_assert_int_eq(bdrv_replace_node(other, left, NULL), 0);
    alignments_are(1, 16);
    bdrv_unref(other);
}
END_TEST

START_TEST(limits_of_a_node_that_is_not_drained_are_not_written)
{
    Unit *reopened = bdrv_opaque(left);
    Unit *in_use = bdrv_opaque(right);
    unsigned before = in_use->nr_refreshed;

    reopened->was_drained = false;
    ck_assert_int_eq(bdrv_reopen(left, opts("unit,align=512"), NULL), 0);
    ck_assert(reopened->was_drained);
    ck_assert_uint_eq(in_use->nr_refreshed, before);
}
END_TEST

START_TEST(a_reopen_that_fails_leaves_all_limits_alone)
{
    GError *error = NULL;

    ck_assert_int_lt(bdrv_reopen(left, opts("unit,align=x"), &error), 0);
    expect_error(&error, EINVAL, "align");
    alignments_are(1, 16);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limits");
    TCase *tcase = tcase_create("limits");

    register_pass_driver();
    if (bdrv_register(&unit_driver, NULL) < 0 ||
        bdrv_register(&pair_driver, NULL) < 0) {
        abort();
    }
    tcase_add_checked_fixture(tcase, setup, teardown);
    PROMISE(tcase, limits_above_a_reopened_node_are_merged_again);
    PROMISE(tcase, limits_above_an_exchanged_node_are_merged_again);
    PROMISE(tcase, limits_of_a_node_that_is_not_drained_are_not_written);
    PROMISE(tcase, a_reopen_that_fails_leaves_all_limits_alone);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
