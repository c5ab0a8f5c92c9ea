/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands on nodes: what they change, and what they refuse.
 */
#include "qmp-fixture.h"

#include "util/aio-context.h"

#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <glib/gstdio.h>

#define MIB (1 << 20)

static void add_null(const char *name)
{
    g_autofree char *args = g_strdup_printf(
        "{\"driver\":\"null-co\",\"node-name\":\"%s\",\"size\":%d}", name,
        MIB);

    done("blockdev-add", args);
}

START_TEST(a_node_is_added_once_and_deleted_when_nobody_uses_it)
{
    add_null("n");
    fails("blockdev-add", "{\"driver\":\"null-co\",\"node-name\":\"n\"}",
          "Duplicate nodes with node-name='n'");
    fails("blockdev-add", "{\"driver\":\"null-co\"}",
          "'node-name' must be specified");
    done("blockdev-add",
         "{\"driver\":\"raw\",\"node-name\":\"r\",\"file\":\"n\"}");
    fails("blockdev-del", "{\"node-name\":\"n\"}", "'n'");
    done("blockdev-del", "{\"node-name\":\"r\"}");
    done("blockdev-del", "{\"node-name\":\"n\"}");
    fails("blockdev-del", "{\"node-name\":\"n\"}",
          "Failed to find node with node-name='n'");
}
END_TEST

START_TEST(nested_nodes_belong_to_their_parent)
{
    done("blockdev-add", "{\"driver\":\"raw\",\"node-name\":\"r\",\"file\":"
         "{\"driver\":\"null-co\",\"node-name\":\"n\",\"size\":65536}}");
    fails("blockdev-del", "{\"node-name\":\"n\"}", "not owned by the monitor");
    done("blockdev-del", "{\"node-name\":\"r\"}");
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(nodes_are_reopened_all_or_none)
{
    add_null("a");
    add_null("b");
    fails("blockdev-reopen", "{\"options\":[{\"driver\":\"null-co\","
          "\"node-name\":\"a\",\"size\":1048576,\"read-only\":true},"
          "{\"driver\":\"null-co\",\"node-name\":\"c\"}]}", "'c'");
    ck_assert(!bdrv_is_read_only(bdrv_find_node(graph, "a")));
    done("blockdev-reopen", "{\"options\":[{\"driver\":\"null-co\","
         "\"node-name\":\"a\",\"size\":1048576,\"read-only\":true}]}");
    ck_assert(bdrv_is_read_only(bdrv_find_node(graph, "a")));
    fails("blockdev-reopen", "{\"options\":[{\"driver\":\"null-co\"}]}",
          "node-name not specified");
}
END_TEST

/* The number at @path, names with a dot between, of the node @name. */
static int64_t number_of(const char *name, const char *path)
{
    g_auto(GStrv) keys = g_strsplit(path, ".", -1);
    json_t *list = ok("query-named-block-nodes", "{\"flat\":true}");
    int64_t number = -1;
    json_t *node;
    size_t i;

    json_array_foreach(list, i, node) {
        if (g_str_equal(qmp_arg_str(node, "node-name"), name)) {
            const json_t *value = node;

            for (char **key = keys; *key; key++) {
                value = json_object_get(value, *key);
            }
            ck_assert_msg(value, "no %s", path);
            number = json_integer_value(value);
        }
    }
    json_decref(list);
    return number;
}

START_TEST(a_node_is_resized_and_shows_its_length)
{
    g_autofree char *folder = g_dir_make_tmp("qmp-commands-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "x.img", NULL);
    g_autofree char *args = g_strdup_printf(
        "{\"driver\":\"file\",\"node-name\":\"f\",\"filename\":\"%s\"}", path);

    ck_assert(g_file_set_contents(path, "", 0, NULL));
    done("blockdev-add", args);
    done("block_resize", "{\"node-name\":\"f\",\"size\":1048576}");
    ck_assert_int_eq(number_of("f", "image.virtual-size"), MIB);
    done("block_resize", "{\"device\":\"f\",\"size\":4096}");
    ck_assert_int_eq(number_of("f", "image.virtual-size"), 4096);
    fails("block_resize", "{\"device\":\"f\",\"size\":-1}", ">0 size");
    fails("block_resize", "{\"size\":1}", "Cannot find device");
    done("blockdev-del", "{\"node-name\":\"f\"}");
    g_unlink(path);
    g_rmdir(folder);
}
END_TEST

#define NO_LIMITS "\"bps_rd\":0,\"bps_wr\":0,\"iops\":0,\"iops_rd\":0," \
                  "\"iops_wr\":0}"

START_TEST(limits_of_a_node_come_change_and_go_with_its_filter)
{
    BlockPerm perm = { 0, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "guest", &perm);
    ThrottleConfig config;

    add_null("n");
    ck_assert_int_eq(blk_insert_bs(blk, bdrv_find_node(graph, "n"), NULL), 0);
    done("block_set_io_throttle", "{\"id\":\"n\",\"bps\":0," NO_LIMITS);
    ck_assert_str_eq(bdrv_driver_name(blk_bs(blk)), "null-co");
    done("block_set_io_throttle", "{\"id\":\"n\",\"bps\":1000," NO_LIMITS);
    ck_assert_str_eq(bdrv_driver_name(blk_bs(blk)), "throttle");
    done("block_set_io_throttle", "{\"device\":\"n\",\"bps\":2000,"
         "\"bps_max\":3000," NO_LIMITS);
    throttle_group_get_config(throttle_group_find(graph, "n"), &config);
    ck_assert_int_eq(config.limits[THROTTLE_BPS_TOTAL].avg, 2000);
    ck_assert_int_eq(config.limits[THROTTLE_BPS_TOTAL].max, 3000);
    done("block_set_io_throttle", "{\"id\":\"n\",\"bps\":0," NO_LIMITS);
    ck_assert_str_eq(bdrv_driver_name(blk_bs(blk)), "null-co");
    ck_assert_ptr_null(throttle_group_find(graph, "n"));
    expect_error("{\"execute\":\"block_set_io_throttle\",\"arguments\":"
                 "{\"id\":\"x\",\"bps\":0," NO_LIMITS "}", "DeviceNotFound",
                 "'x' not found");
    blk_unref(blk);
}
END_TEST

/* How many filters with limits stand between @blk and the node "n". */
static int nr_filters(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    int nr = 0;

    while (g_str_equal(bdrv_driver_name(bs), "throttle")) {
        bs = bdrv_child_bs(bdrv_find_child(bs, "file"));
        nr++;
    }
    ck_assert_ptr_eq(bs, bdrv_find_node(graph, "n"));
    return nr;
}

static void ignore_result(void *opaque, int ret)
{
}

static void limit_by(QmpMonitor *who, int bps)
{
    g_autofree char *text = g_strdup_printf(
        "{\"execute\":\"block_set_io_throttle\",\"arguments\":"
        "{\"id\":\"n\",\"bps\":%d," NO_LIMITS "}\n", bps);

    qmp_monitor_feed(who, text, strlen(text));
}

static void add_suspended_read(BlockBackend *blk)
{
    static uint8_t buf[512];
    static BlockIOVec1 iov;

    ck_assert_int_eq(bdrv_debug_breakpoint(bdrv_find_node(graph, "n"),
                                           "read_aio", "hold"), 0);
    blk_aio_preadv(blk, 0, block_iov_buf(&iov, buf, sizeof(buf)), 0,
                   ignore_result, NULL);
    while (!bdrv_debug_is_suspended(bdrv_find_node(graph, "n"), "hold")) {
        qmp_turn(true);
    }
}

/* Each row: the limit at first, what both want at once while a request keeps
 * the graph from being changed, and how many filters there are then. */
static const struct {
    int before, first, second, filters;
} rivals[] = {
    { 0, 1000, 2000, 1 }, { 1000, 0, 0, 0 }, { 1000, 0, 2000, 1 },
    { 1000, 2000, 0, 0 }, { 0, 1000, 0, 0 },
};

START_TEST(two_clients_who_limit_a_node_at_once_do_so_one_after_the_other)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "guest", &perm);
    QmpMonitor *other = qmp_monitor_new(server, &client_ops, NULL);
    QmpMonitor *own = client;
    ThrottleConfig config;

    json_decref(next_reply());
    client = other;
    done("qmp_capabilities", "");
    client = own;
    done("blockdev-add", "{\"driver\":\"blkdebug\",\"node-name\":\"n\","
         "\"image\":{\"driver\":\"null-co\",\"size\":1048576}}");
    ck_assert_int_eq(blk_insert_bs(blk, bdrv_find_node(graph, "n"), NULL), 0);
    limit_by(own, rivals[_i].before);
    json_decref(next_reply());
    add_suspended_read(blk);
    limit_by(own, rivals[_i].first);
    limit_by(other, rivals[_i].second);
    for (int i = 0; i < 100; i++) {
        qmp_turn(false);
    }
    ck_assert_int_eq(bdrv_debug_resume(bdrv_find_node(graph, "n"), "hold"),
                     0);
    for (int i = 0; i < 2; i++) {
        json_t *reply = next_reply();

        ck_assert_ptr_nonnull(json_object_get(reply, "return"));
        json_decref(reply);
    }
    ck_assert_int_eq(nr_filters(blk), rivals[_i].filters);
    if (rivals[_i].filters) {
        throttle_group_get_config(throttle_group_find(graph, "n"), &config);
        ck_assert_int_eq(config.limits[THROTTLE_BPS_TOTAL].avg,
                         rivals[_i].second);
    }
    qmp_monitor_close(other);
    blk_unref(blk);
}
END_TEST

START_TEST(a_filter_of_limits_that_stays_goes_with_the_server)
{
    add_null("n");
    done("block_set_io_throttle", "{\"id\":\"n\",\"bps\":1000," NO_LIMITS);
    fails("blockdev-del", "{\"node-name\":\"n\"}", "'n'");
}
END_TEST

START_TEST(a_passed_threshold_is_an_event)
{
    BlockPerm perm = { BLK_PERM_WRITE, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, "guest", &perm);
    json_t *data;

    add_null("n");
    ck_assert_int_eq(blk_insert_bs(blk, bdrv_find_node(graph, "n"), NULL), 0);
    done("block-set-write-threshold",
         "{\"node-name\":\"n\",\"write-threshold\":4096}");
    ck_assert_int_eq(number_of("n", "write_threshold"), 4096);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 0, 8192, 0), 0);
    data = wait_event("BLOCK_WRITE_THRESHOLD");
    ck_assert_str_eq(qmp_arg_str(data, "node-name"), "n");
    ck_assert_int_eq(qmp_arg_int(data, "amount-exceeded", 0), 4096);
    ck_assert_int_eq(qmp_arg_int(data, "write-threshold", 0), 4096);
    json_decref(data);
    blk_unref(blk);
}
END_TEST

START_TEST(a_corrupt_image_is_an_event)
{
    json_t *data;

    add_null("n");
    bdrv_report_corruption(bdrv_find_node(graph, "n"), &(BlockCorruptionEvent){
        .message = "all\x1b", .offset = 4096, .bytes = 512, .fatal = true });
    data = wait_event("BLOCK_IMAGE_CORRUPTED");
    ck_assert_str_eq(qmp_arg_str(data, "device"), "");
    ck_assert_str_eq(qmp_arg_str(data, "node-name"), "n");
    ck_assert_str_eq(qmp_arg_str(data, "msg"), "all\x1b");
    ck_assert_int_eq(qmp_arg_int(data, "offset", 0), 4096);
    ck_assert_int_eq(qmp_arg_int(data, "size", 0), 512);
    ck_assert(json_is_true(json_object_get(data, "fatal")));
    json_decref(data);
    bdrv_report_corruption(bdrv_find_node(graph, "n"), &(BlockCorruptionEvent){
        .message = "x", .offset = -1 });
    data = wait_event("BLOCK_IMAGE_CORRUPTED");
    ck_assert_ptr_null(json_object_get(data, "offset"));
    ck_assert_ptr_null(json_object_get(data, "size"));
    ck_assert(json_is_false(json_object_get(data, "fatal")));
    json_decref(data);
}
END_TEST

/* --- secrets -------------------------------------------------------------- */

static GString *wiped;      /* what was wiped, in order, each with a blank */

/* In place of what the system has, under both names that compilers use for it:
 * note what it is asked to wipe. */
void __explicit_bzero_chk(void *buf, size_t bytes, size_t room);
void __explicit_bzero_chk(void *buf, size_t bytes, size_t room)
{
    volatile char *at = buf;

    for (size_t i = 0; i < bytes; i++) {
        if (wiped) {
            g_string_append_c(wiped, at[i]);
        }
        at[i] = 0;
    }
    if (wiped) {
        g_string_append_c(wiped, ' ');
    }
}

void explicit_bzero(void *buf, size_t bytes)
{
    __explicit_bzero_chk(buf, bytes, bytes);
}

/* S28: what was read, what the options held, and what was kept. */
START_TEST(secrets_are_wiped_when_they_are_not_needed_any_more)
{
    g_autofree char *path = g_strdup_printf("%s/secret-%d", g_get_tmp_dir(),
                                            (int)getpid());
    g_autofree char *file = g_strdup_printf(
        "{\"qom-type\":\"secret\",\"id\":\"s\",\"file\":\"%s\"}", path);

    wiped = g_string_new(NULL);
    done("object-add", "{\"qom-type\":\"secret\",\"id\":\"s\","
         "\"data\":\"aGVsbG8=\",\"format\":\"base64\"}");
    ck_assert_str_eq(wiped->str, "aGVsbG8= aGVsbG8= ");
    g_string_truncate(wiped, 0);
    done("object-del", "{\"id\":\"s\"}");
    ck_assert_str_eq(wiped->str, "hello ");

    ck_assert(g_file_set_contents(path, "in a file", -1, NULL));
    g_string_truncate(wiped, 0);
    done("object-add", file);
    ck_assert_str_eq(wiped->str, "in a file ");
    done("object-del", "{\"id\":\"s\"}");
    ck_assert_str_eq(wiped->str, "in a file in a file ");
    g_unlink(path);
    g_string_free(g_steal_pointer(&wiped), TRUE);
}
END_TEST

START_TEST(objects_are_made_once_and_stay_while_they_are_used)
{
    done("object-add", "{\"qom-type\":\"iothread\",\"id\":\"io\"}");
    fails("object-add", "{\"qom-type\":\"iothread\",\"id\":\"io\"}",
          "duplicate");
    done("object-add", "{\"qom-type\":\"iothread\",\"id\":\"io2\","
         "\"poll-max-ns\":32768,\"poll-grow\":2,\"poll-shrink\":4}");
    fails("object-add", "{\"qom-type\":\"iothread\",\"id\":\"io3\","
          "\"poll-max-ns\":-1}", "poll-max-ns");
    done("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"g\","
         "\"limits\":{\"iops-total\":100}}");
    fails("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"h\","
          "\"limits\":{\"nope\":1}}", "nope");
    add_null("n");
    done("blockdev-add", "{\"driver\":\"throttle\",\"node-name\":\"t\","
         "\"throttle-group\":\"g\",\"file\":\"n\"}");
    fails("object-del", "{\"id\":\"g\"}", "in use");
    done("blockdev-del", "{\"node-name\":\"t\"}");
    done("object-del", "{\"id\":\"g\"}");
    fails("object-del", "{\"id\":\"g\"}", "not found");
}
END_TEST

START_TEST(the_main_loop_is_one_object_and_polls_as_it_is_told)
{
    AioContext *ctx = block_graph_aio_context(server->graph);

    fails("object-add", "{\"qom-type\":\"main-loop\",\"id\":\"m\","
          "\"thread-pool-min\":3,\"thread-pool-max\":2}", "thread-pool");
    fails("object-add", "{\"qom-type\":\"main-loop\",\"id\":\"m\","
          "\"poll-max-ns\":-1}", "poll-max-ns");
    ck_assert_int_eq(ctx->polling.max_ns, 0);
    done("object-add", "{\"qom-type\":\"main-loop\",\"id\":\"m\","
         "\"poll-max-ns\":32768,\"poll-grow\":3,\"poll-shrink\":4,"
         "\"aio-max-batch\":1}");
    ck_assert_int_eq(ctx->polling.max_ns, 32768);
    ck_assert_int_eq(ctx->polling.grow, 3);
    ck_assert_int_eq(ctx->polling.shrink, 4);
    fails("object-add", "{\"qom-type\":\"main-loop\",\"id\":\"n\"}",
          "only one main-loop");
    fails("object-del", "{\"id\":\"m\"}", "in use");
}
END_TEST

START_TEST(limits_of_a_group_may_stand_for_themselves)
{
    ThrottleConfig config;

    done("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"x\","
         "\"limits\":{\"bps-read\":5,\"iops-total\":7},"
         "\"x-bps-read\":1000,\"x-bps-read-max\":5000,"
         "\"x-bps-read-max-length\":3,\"x-iops-size\":4096}");
    throttle_group_get_config(throttle_group_find(server->graph, "x"),
                              &config);
    ck_assert_int_eq(config.limits[THROTTLE_BPS_READ].avg, 1000);
    ck_assert_int_eq(config.limits[THROTTLE_BPS_READ].max, 5000);
    ck_assert_int_eq(config.limits[THROTTLE_BPS_READ].max_length, 3);
    ck_assert_int_eq(config.limits[THROTTLE_IOPS_TOTAL].avg, 7);
    ck_assert_int_eq(config.iops_size, 4096);
    fails("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"y\","
          "\"limits\":{\"bps-total\":5},\"x-bps-read\":1}", "bps-total");
    fails("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"y\","
          "\"x-nope\":1}", "x-nope");
    done("object-del", "{\"id\":\"x\"}");
}
END_TEST

START_TEST(secrets_are_data_or_a_file)
{
    done("object-add", "{\"qom-type\":\"secret\",\"id\":\"s\","
         "\"data\":\"YWJj\",\"format\":\"base64\"}");
    fails("object-add", "{\"qom-type\":\"secret\",\"id\":\"t\"}",
          "either 'data' or 'file'");
    fails("object-add", "{\"qom-type\":\"secret\",\"id\":\"t\","
          "\"file\":\"/nonexistent/x\"}", "/nonexistent/x");
    fails("object-add", "{\"qom-type\":\"secret\",\"id\":\"t\","
          "\"data\":\"?\",\"format\":\"base64\"}", "base64");
    done("object-del", "{\"id\":\"s\"}");
}
END_TEST

/* What stands beside a secret, or in its place, may be part of it. */
START_TEST(no_error_tells_of_a_secret)
{
    static const char *const texts[] = {
        "{\"data\": \"pa\", \"k7331\": \"1\"}", "{\"data\": 7331}",
        "{\"data\": {\"k7331\": 1}}", "{\"data\": [7331]}",
        "{\"data\": \"pa\", \"format\": \"7331\"}",
        "{\"data\": \"7331\", \"format\": \"base64\", \"x\": 7331}",
    };
    g_autofree char *shown = NULL;
    json_t *reply;

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        BlockOptions *options = block_options_parse_json(texts[i], NULL);
        GError *error = NULL;

        block_options_set_str(options, "qom-type", "secret");
        block_options_set_str(options, "id", "s");
        ck_assert_int_lt(qmp_objects_add(server->objects, options, &error), 0);
        ck_assert_ptr_nonnull(strstr(error->message, "'s'"));
        ck_assert_msg(!strstr(error->message, "7331"), "%s", error->message);
        g_error_free(error);
    }
    reply = ask("{\"data\":p7331}");
    shown = qmp_json_text(reply);
    ck_assert_ptr_nonnull(strstr(shown, "JSON parse error, invalid token"));
    ck_assert_ptr_null(strstr(shown, "7331"));
    json_decref(reply);
}
END_TEST

START_TEST(credentials_that_cannot_be_loaded_are_refused)
{
    fails("object-add", "{\"qom-type\":\"tls-creds-x509\",\"id\":\"c\","
          "\"dir\":\"/nonexistent\",\"endpoint\":\"server\"}",
          "/nonexistent");
    fails("object-add", "{\"qom-type\":\"tls-creds-psk\",\"id\":\"c\","
          "\"endpoint\":\"server\"}", "Parameter 'dir' is missing");
    fails("object-del", "{\"id\":\"c\"}", "not found");
}
END_TEST

START_TEST(a_transaction_is_undone_as_a_whole)
{
    json_t *list;

    add_null("n");
    fails("transaction", "{\"actions\":[{\"type\":\"block-dirty-bitmap-add\","
          "\"data\":{\"node\":\"n\",\"name\":\"b\"}},"
          "{\"type\":\"abort\",\"data\":{}}]}", "abort");
    fails("block-dirty-bitmap-remove", "{\"node\":\"n\",\"name\":\"b\"}",
          "'b'");
    fails("transaction", "{\"actions\":[{\"type\":\"blockdev-snapshot-"
          "internal-sync\",\"data\":{\"device\":\"n\",\"name\":\"s\"}}]}",
          "does not support internal snapshots");
    done("transaction", "{\"actions\":[]}");
    done("transaction", "{\"actions\":[{\"type\":\"block-dirty-bitmap-add\","
         "\"data\":{\"node\":\"n\",\"name\":\"b\"}}],"
         "\"properties\":{\"completion-mode\":\"grouped\"}}");
    list = ok("query-named-block-nodes", "");
    ck_assert(json_object_get(json_array_get(list, 0), "dirty-bitmaps"));
    json_decref(list);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_node_is_added_once_and_deleted_when_nobody_uses_it);
    PROMISE(tcase, nested_nodes_belong_to_their_parent);
    PROMISE(tcase, nodes_are_reopened_all_or_none);
    PROMISE(tcase, a_node_is_resized_and_shows_its_length);
    PROMISE(tcase, limits_of_a_node_come_change_and_go_with_its_filter);
    tcase_add_loop_test(
        tcase, two_clients_who_limit_a_node_at_once_do_so_one_after_the_other,
        0, G_N_ELEMENTS(rivals));
    PROMISE(tcase, a_filter_of_limits_that_stays_goes_with_the_server);
    PROMISE(tcase, a_passed_threshold_is_an_event);
    PROMISE(tcase, a_corrupt_image_is_an_event);
    PROMISE(tcase, secrets_are_wiped_when_they_are_not_needed_any_more);
    PROMISE(tcase, objects_are_made_once_and_stay_while_they_are_used);
    PROMISE(tcase, the_main_loop_is_one_object_and_polls_as_it_is_told);
    PROMISE(tcase, limits_of_a_group_may_stand_for_themselves);
    PROMISE(tcase, secrets_are_data_or_a_file);
    PROMISE(tcase, no_error_tells_of_a_secret);
    PROMISE(tcase, credentials_that_cannot_be_loaded_are_refused);
    PROMISE(tcase, a_transaction_is_undone_as_a_whole);
}

int main(void)
{
    return qmp_suite("qmp-commands", add_tests);
}
