/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs by control commands: their verbs, their queries, their events.
 */
#include "qmp-fixture.h"

#include <glib/gstdio.h>

#define MIB (1 << 20)

static void add_node(const char *name)
{
    g_autofree char *args = g_strdup_printf(
        "{\"driver\":\"null-co\",\"node-name\":\"%s\",\"size\":%d}", name,
        MIB);

    done("blockdev-add", args);
}

static void add_disks(void)
{
    add_node("a");
    add_node("b");
}

/* The member @key of the only job that there is, by @query. */
static json_t *of_job(const char *query, const char *key)
{
    json_t *list = ok(query, "");
    json_t *value = json_object_get(json_array_get(list, 0), key);

    ck_assert_uint_eq(json_array_size(list), 1);
    ck_assert_msg(value, "no %s in %s", key, query);
    json_incref(value);
    json_decref(list);
    return value;
}

static void expect_number(const char *query, const char *key, int64_t wanted)
{
    json_t *value = of_job(query, key);

    ck_assert_int_eq(json_integer_value(value), wanted);
    json_decref(value);
}

static void expect_text(const char *query, const char *key, const char *wanted)
{
    json_t *value = of_job(query, key);

    ck_assert_str_eq(json_string_value(value), wanted);
    json_decref(value);
}

/* Wait until @id is in the state @status. */
static void wait_status(const char *id, const char *status)
{
    bool found = false;

    while (!found) {
        json_t *data = wait_event("JOB_STATUS_CHANGE");

        found = g_str_equal(qmp_arg_str(data, "id"), id) &&
                g_str_equal(qmp_arg_str(data, "status"), status);
        json_decref(data);
    }
}

START_TEST(a_backup_tells_its_states_and_its_end)
{
    static const char *const states[] = { "created", "running", "waiting",
                                          "pending", "concluded", "null" };
    json_t *data;

    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"full\",\"job-id\":\"j\"}");
    for (size_t i = 0; i < G_N_ELEMENTS(states); i++) {
        data = wait_event("JOB_STATUS_CHANGE");
        ck_assert_str_eq(qmp_arg_str(data, "id"), "j");
        ck_assert_str_eq(qmp_arg_str(data, "status"), states[i]);
        json_decref(data);
    }
    data = wait_event("BLOCK_JOB_COMPLETED");
    ck_assert_str_eq(qmp_arg_str(data, "device"), "j");
    ck_assert_str_eq(qmp_arg_str(data, "type"), "backup");
    ck_assert_int_eq(qmp_arg_int(data, "len", 0), MIB);
    ck_assert_int_eq(qmp_arg_int(data, "offset", 0), MIB);
    ck_assert(!json_object_get(data, "error"));
    json_decref(data);
}
END_TEST

START_TEST(a_pending_job_has_done_all_though_nobody_looked_before)
{
    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"full\",\"job-id\":\"j\",\"auto-finalize\":false,"
         "\"auto-dismiss\":false}");
    json_decref(wait_event("BLOCK_JOB_PENDING"));
    expect_number("query-jobs", "current-progress", MIB);
    expect_number("query-block-jobs", "offset", MIB);
    expect_text("query-block-jobs", "status", "pending");
    fails("job-complete", "{\"id\":\"j\"}",
          "cannot accept command verb 'complete'");
    fails("job-dismiss", "{\"id\":\"j\"}", "verb 'dismiss'");
    done("job-finalize", "{\"id\":\"j\"}");
    wait_status("j", "concluded");
    done("job-dismiss", "{\"id\":\"j\"}");
    fails("job-dismiss", "{\"id\":\"j\"}", "Job not found");
}
END_TEST

START_TEST(a_mirror_has_done_what_it_did_though_nobody_looked_before)
{
    json_t *data;

    add_disks();
    done("blockdev-mirror", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"full\",\"job-id\":\"m\"}");
    data = wait_event("BLOCK_JOB_READY");
    ck_assert_int_eq(qmp_arg_int(data, "len", 0), MIB);
    ck_assert_int_eq(qmp_arg_int(data, "offset", 0), MIB);
    json_decref(data);
    done("block-job-change", "{\"id\":\"m\",\"type\":\"mirror\","
         "\"copy-mode\":\"write-blocking\"}");
    done("block-job-complete", "{\"device\":\"m\"}");
    json_decref(wait_event("BLOCK_JOB_COMPLETED"));
}
END_TEST

START_TEST(a_job_is_held_limited_and_cancelled)
{
    json_t *data;

    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"none\",\"job-id\":\"j\"}");
    done("block-job-pause", "{\"device\":\"j\"}");
    wait_status("j", "paused");
    expect_text("query-jobs", "status", "paused");
    fails("block-job-pause", "{\"device\":\"j\"}", "paused");
    fails("block-job-cancel", "{\"device\":\"j\"}", "currently paused");
    done("block-job-resume", "{\"device\":\"j\"}");
    done("block-job-set-speed", "{\"device\":\"j\",\"speed\":4096}");
    expect_number("query-block-jobs", "speed", 4096);
    fails("block-job-set-speed", "{\"device\":\"j\",\"speed\":-1}",
          "non-negative");
    done("block-job-cancel", "{\"device\":\"j\"}");
    data = wait_event("BLOCK_JOB_CANCELLED");
    ck_assert_str_eq(qmp_arg_str(data, "device"), "j");
    json_decref(data);
    wait_status("j", "null");
}
END_TEST

START_TEST(perf_and_auto_are_arguments_of_the_job)
{
    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"full\",\"job-id\":\"j\",\"on-target-error\":\"auto\","
         "\"x-perf\":{\"max-workers\":2,\"max-chunk\":65536,"
         "\"use-copy-range\":false}}");
    json_decref(wait_event("BLOCK_JOB_COMPLETED"));
    fails("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
          "\"sync\":\"full\",\"job-id\":\"k\","
          "\"x-perf\":{\"max-workers\":-1}}", "max-workers");
}
END_TEST

START_TEST(an_image_is_made_by_a_job_that_stays_until_it_is_dismissed)
{
    g_autofree char *folder = g_dir_make_tmp("qmp-job-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "x.img", NULL);
    g_autofree char *args = g_strdup_printf(
        "{\"job-id\":\"c\",\"options\":{\"driver\":\"file\",\"filename\":"
        "\"%s\",\"size\":%d}}", path, MIB);
    json_t *list;
    GStatBuf st;

    done("blockdev-create", args);
    list = ok("query-block-jobs", "");
    ck_assert_uint_eq(json_array_size(list), 0);
    json_decref(list);
    wait_status("c", "concluded");
    expect_text("query-jobs", "type", "create");
    expect_number("query-jobs", "current-progress", 1);
    ck_assert_int_eq(g_stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, MIB);
    expect_error("{\"execute\":\"block-job-dismiss\",\"arguments\":"
                 "{\"id\":\"c\"}}", "DeviceNotActive", "'c' not found");
    done("job-dismiss", "{\"id\":\"c\"}");
    fails("blockdev-create",
          "{\"job-id\":\"d\",\"options\":{\"driver\":\"null-co\"}}",
          "does not support blockdev-create");
    g_unlink(path);
    g_rmdir(folder);
}
END_TEST

START_TEST(a_job_that_fails_says_why)
{
    json_t *error;

    done("blockdev-create", "{\"job-id\":\"c\",\"options\":{\"driver\":"
         "\"file\",\"filename\":\"/nonexistent/x\",\"size\":0}}");
    wait_status("c", "concluded");
    error = of_job("query-jobs", "error");
    ck_assert(strstr(json_string_value(error), "/nonexistent/x"));
    json_decref(error);
    done("job-dismiss", "{\"id\":\"c\"}");
}
END_TEST

START_TEST(a_backup_is_tuned_by_arguments_of_its_own)
{
    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\",\"sync\":"
         "\"full\",\"job-id\":\"j\",\"max-workers\":2,\"max-chunk\":131072,"
         "\"use-copy-range\":false,\"min-cluster-size\":65536}");
    wait_status("j", "null");
    fails("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\",\"sync\":"
          "\"full\",\"job-id\":\"j\",\"max-workers\":0,"
          "\"x-perf\":{\"max-workers\":2}}", "max-workers");
    fails("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\",\"sync\":"
          "\"full\",\"job-id\":\"j\",\"max-chunk\":\"x\"}", "max-chunk");
}
END_TEST

/* It holds the filter of the job, which goes after it. */
START_TEST(the_end_may_come_while_a_point_in_time_has_a_node_above_it)
{
    add_disks();
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\",\"sync\":"
         "\"none\",\"job-id\":\"j\",\"filter-node-name\":\"f\"}");
    done("blockdev-add", "{\"driver\":\"snapshot-access\",\"node-name\":\"s\","
         "\"file\":\"f\"}");
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase,
            the_end_may_come_while_a_point_in_time_has_a_node_above_it);
    PROMISE(tcase, a_backup_is_tuned_by_arguments_of_its_own);
    PROMISE(tcase, a_backup_tells_its_states_and_its_end);
    PROMISE(tcase, a_pending_job_has_done_all_though_nobody_looked_before);
    PROMISE(tcase, a_mirror_has_done_what_it_did_though_nobody_looked_before);
    PROMISE(tcase, a_job_is_held_limited_and_cancelled);
    PROMISE(tcase, perf_and_auto_are_arguments_of_the_job);
    PROMISE(tcase,
            an_image_is_made_by_a_job_that_stays_until_it_is_dismissed);
    PROMISE(tcase, a_job_that_fails_says_why);
}

int main(void)
{
    return qmp_suite("qmp-job", add_tests);
}
