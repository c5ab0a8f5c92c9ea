/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What control commands and events say of clients of exports: the clients are
 * nodes of the same graph.
 */
#include "qmp-fixture.h"

#include <blockgraph/export.h>
#include <glib/gstdio.h>

static char *folder;
static BlockBackend *guest;

/* The export "e" of a node "disk" with @rules in its blkdebug, and a client. */
static void begin(const char *rules)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_ALL };
    g_autofree char *path = NULL;
    g_autofree char *node = g_strdup_printf(
        "{\"driver\":\"blkdebug\",\"node-name\":\"disk\"%s,\"image\":"
        "{\"driver\":\"null-co\",\"node-name\":\"n\",\"size\":1048576}}",
        rules);
    g_autofree char *start = NULL;
    g_autofree char *remote = NULL;

    folder = g_dir_make_tmp("qmp-export-XXXXXX", NULL);
    path = g_build_filename(folder, "s", NULL);
    start = g_strdup_printf("{\"addr\":{\"type\":\"unix\",\"data\":"
                            "{\"path\":\"%s\"}}}", path);
    remote = g_strdup_printf("{\"driver\":\"nbd\",\"node-name\":\"remote\","
                             "\"export\":\"disk\",\"server\":{\"type\":"
                             "\"unix\",\"path\":\"%s\"}}", path);
    done("blockdev-add", node);
    done("nbd-server-start", start);
    done("block-export-add", "{\"type\":\"nbd\",\"id\":\"e\","
         "\"node-name\":\"disk\",\"writable\":true}");
    done("blockdev-add", remote);
    guest = blk_new(graph, "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(guest, bdrv_find_node(graph, "remote"),
                                   NULL), 0);
}

static void end(void)
{
    blk_unref(guest);
    done("blockdev-del", "{\"node-name\":\"remote\"}");
    done("nbd-server-stop", "");
    g_rmdir(folder);
    g_free(folder);
}

#define FAIL(type, error) "{\"event\":\"" type "_aio\",\"iotype\":\"" \
                          type "\",\"errno\":" error "}"

static void hear_error(const BlockExportErrorEvent *event, void *opaque)
{
    ck_assert_str_eq(event->id, "e");
    ck_assert_str_eq(event->node_name, "disk");
    ck_assert(event->is_read);
    *(int *)opaque = event->error;
}

START_TEST(failed_requests_are_told_to_the_listener_and_counted)
{
    BlockAcctStats stats;
    char buf[512];
    int told = 0;

    begin(",\"inject-error\":[" FAIL("read", "5") "]");
    blk_exp_set_error_listener(graph, hear_error, &told);
    ck_assert_int_eq(blk_pread(guest, 0, 512, buf, 0), -EIO);
    while (!told) {
        qmp_turn(true);
    }
    ck_assert_int_eq(told, EIO);
    blk_get_stats(blk_exp_backend(blk_exp_find(graph, "e")), BLOCK_ACCT_READ,
                  &stats);
    ck_assert_uint_eq(stats.failed, 1);
    blk_exp_set_error_listener(graph, NULL, NULL);
    end();
}
END_TEST

START_TEST(a_failed_request_of_a_client_is_an_event)
{
    char buf[512] = { 0 };
    json_t *data;

    begin(",\"inject-error\":[" FAIL("read", "5") ","
          FAIL("write", "28") "]");
    ck_assert_int_eq(blk_pwrite(guest, 0, 512, buf, 0), -ENOSPC);
    data = wait_event("BLOCK_IO_ERROR");
    ck_assert_str_eq(qmp_arg_str(data, "device"), "");
    ck_assert_str_eq(qmp_arg_str(data, "node-name"), "disk");
    ck_assert_str_eq(qmp_arg_str(data, "operation"), "write");
    ck_assert_str_eq(qmp_arg_str(data, "action"), "report");
    ck_assert(json_is_true(json_object_get(data, "nospace")));
    ck_assert_str_eq(qmp_arg_str(data, "reason"), g_strerror(ENOSPC));
    json_decref(data);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(blk_pread(guest, 0, 512, buf, 0), -EIO);
    }
    /* Within the second only the last of them is told. */
    data = wait_event("BLOCK_IO_ERROR");
    ck_assert_str_eq(qmp_arg_str(data, "operation"), "read");
    ck_assert(json_is_false(json_object_get(data, "nospace")));
    json_decref(data);
    end();
}
END_TEST

/* The first element of query-blockstats with @args. */
static json_t *stats_of(const char *args)
{
    json_t *list = ok("query-blockstats", args);
    json_t *first = json_incref(json_array_get(list, 0));

    ck_assert_ptr_nonnull(first);
    json_decref(list);
    return first;
}

static void expect_stats(const json_t *all, const char *key, int64_t wanted)
{
    int64_t is = qmp_arg_int(json_object_get(all, "stats"), key, -1);

    ck_assert_msg(is == wanted, "%s: %d", key, (int)is);
}

START_TEST(statistics_count_what_clients_of_an_export_have_done)
{
    char buf[4096] = { 0 };
    json_t *all, *below;

    begin(",\"inject-error\":[{\"event\":\"read_aio\",\"errno\":5,"
          "\"sector\":8,\"iotype\":\"read\"}]");
    ck_assert_int_eq(blk_pwrite(guest, 8192, 4096, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite_zeroes(guest, 0, 4096, 0), 0);
    ck_assert_int_eq(blk_pread(guest, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pread(guest, 4096, 512, buf, 0), -EIO);
    ck_assert_int_eq(blk_flush(guest), 0);
    all = stats_of("");
    ck_assert_str_eq(qmp_arg_str(all, "device"), "");
    ck_assert_str_eq(qmp_arg_str(all, "qdev"), "e");
    ck_assert_str_eq(qmp_arg_str(all, "node-name"), "disk");
    expect_stats(all, "wr_operations", 2);
    expect_stats(all, "wr_bytes", 8192);
    expect_stats(all, "wr_highest_offset", 12288);
    expect_stats(all, "rd_operations", 1);
    expect_stats(all, "rd_bytes", 512);
    expect_stats(all, "failed_rd_operations", 1);
    expect_stats(all, "flush_operations", 1);
    ck_assert_int_gt(qmp_arg_int(json_object_get(all, "stats"),
                                 "rd_total_time_ns", 0), 0);
    below = json_object_get(all, "parent");
    ck_assert_str_eq(qmp_arg_str(below, "node-name"), "n");
    expect_stats(below, "wr_highest_offset", 12288);
    json_decref(all);
    all = stats_of("{\"query-nodes\":true}");
    expect_stats(all, "wr_highest_offset", 12288);
    expect_stats(all, "wr_operations", 0);
    json_decref(all);
    end();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, failed_requests_are_told_to_the_listener_and_counted);
    PROMISE(tcase, a_failed_request_of_a_client_is_an_event);
    PROMISE(tcase, statistics_count_what_clients_of_an_export_have_done);
}

int main(void)
{
    return qmp_suite("qmp-export", add_tests);
}
