/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2-fixture.h"

#define CLUSTER 65536

static int try_create_snapshot(BlockBackend *blk, const char *name,
                               GError **error)
{
    BdrvSnapshotInfo info = { .name = (char *)name, .date_sec = 1700000000,
                              .icount = UINT64_MAX };

    return bdrv_snapshot_create(blk_bs(blk), &info, error);
}

static void snapshot(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(try_create_snapshot(blk, name, &error) == 0, "%s",
                  error ? error->message : "no error set");
}

static void go_to(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_snapshot_goto(blk_bs(blk), name, &error) == 0, "%s",
                  error ? error->message : "no error set");
}

static void delete(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_snapshot_delete(blk_bs(blk), NULL, name, &error) == 0,
                  "%s", error ? error->message : "no error set");
}

/* "id:name ..." of all snapshots. */
static char *names(BlockBackend *blk)
{
    g_autoptr(GPtrArray) list = NULL;
    GString *text = g_string_new(NULL);

    ck_assert_int_eq(bdrv_snapshot_list(blk_bs(blk), &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s%s:%s", i ? " " : "", info->id,
                               info->name);
    }
    return g_string_free(text, FALSE);
}

static void expect_names(BlockBackend *blk, const char *expected)
{
    g_autofree char *text = names(blk);

    ck_assert_str_eq(text, expected);
}

/* --- life ----------------------------------------------------------------- */

/*
 *            clusters 0 and 1   snapshot
 *  write     AB                 -
 *  create    AB                 AB
 *  write     CB                 AB
 *  apply     AB                 AB
 *  delete    AB
 */
static void life_of(const char *options)
{
    BlockBackend *blk;

    make_image(options, "8M");
    blk = open_image();
    fill(blk, 0, CLUSTER, 'A');
    fill(blk, CLUSTER, CLUSTER, 'B');
    snapshot(blk, "one");
    close_backend(blk);
    expect_clean();

    blk = open_image();
    expect_names(blk, "1:one");
    fill(blk, 0, CLUSTER, 'C');
    expect_guest(blk, 0, CLUSTER, 'C');
    close_backend(blk);
    expect_clean();

    blk = open_image();
    go_to(blk, "one");
    expect_guest(blk, 0, CLUSTER, 'A');
    expect_guest(blk, CLUSTER, CLUSTER, 'B');
    fill(blk, CLUSTER, CLUSTER, 'D');
    close_backend(blk);
    expect_clean();

    blk = open_image();
    go_to(blk, "1");
    expect_guest(blk, CLUSTER, CLUSTER, 'B');
    fill(blk, 2 * CLUSTER, CLUSTER, 'E');
    delete(blk, "one");
    expect_names(blk, "");
    fill(blk, 0, CLUSTER, 'F');
    expect_guest(blk, CLUSTER, CLUSTER, 'B');
    expect_guest(blk, 2 * CLUSTER, CLUSTER, 'E');
    close_backend(blk);
    expect_clean();
}

START_TEST(a_snapshot_keeps_what_was_there)
{
    static const char *const options[] = {
        "compat=1.1", "compat=0.10", "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=2", "extended_l2=on",
        "lazy_refcounts=on", "cluster_size=2M",
    };

    if (have_qemu()) {
        life_of(options[_i]);
    }
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, a_snapshot_keeps_what_was_there, 0, 7);
}

int main(void)
{
    Suite *suite = suite_create("qcow2-snapshot");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
