/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From requests to replies: classes of errors, order, more than one client.
 */
#include "qmp-fixture.h"

#define NULL_CO(name) \
    "{\"driver\":\"null-co\",\"node-name\":\"" name "\",\"size\":65536}"

START_TEST(nothing_is_done_before_the_negotiation)
{
    QmpMonitor *first = client;

    client = qmp_monitor_new(server, &client_ops, NULL);
    json_decref(next_reply());
    expect_error("{\"execute\":\"query-version\"}", "CommandNotFound",
                 "Expecting capabilities negotiation");
    expect_error("{\"execute\":\"qmp_capabilities\","
                 "\"arguments\":{\"enable\":[\"oob\"]}}", "GenericError",
                 "not available");
    done("qmp_capabilities", "");
    expect_error("{\"execute\":\"qmp_capabilities\"}", "CommandNotFound",
                 "already complete");
    done("query-version", "");
    qmp_monitor_close(client);
    client = first;
}
END_TEST

START_TEST(what_is_wrong_with_a_request_is_said_and_the_next_is_answered)
{
    static const char *const cases[][3] = {
        { "[1]", "GenericError", "must be a JSON object" },
        { "5 ", "GenericError", "must be a JSON object" },
        { "{}", "GenericError", "lacks member 'execute'" },
        { "{\"execute\":5}", "GenericError", "must be a string" },
        { "{\"x\":1}", "GenericError", "'x' is unexpected" },
        { "{\"exec-oob\":\"quit\"}", "GenericError", "is unexpected" },
        { "{\"execute\":\"quit\",\"arguments\":[]}", "GenericError",
          "must be an object" },
        { "{\"execute\":\"nope\"}", "CommandNotFound",
          "The command nope has not been found" },
        { "{\"execute\":\"quit\",\"arguments\":{\"a\":1}}", "GenericError",
          "Parameter 'a' is unexpected" },
        { "{\"execute\":\"blockdev-del\"}", "GenericError",
          "Parameter 'node-name' is missing" },
        { "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":1}}",
          "GenericError",
          "Invalid parameter type for 'node-name', expected: string" },
        { "{\"execute\":\"block-job-pause\",\"arguments\":{\"device\":\"j\"}}",
          "DeviceNotActive", "'j' not found" },
        { "{\"a\":}", "GenericError", "JSON parse error" },
        { "{\"a\":1,\"a\":2}", "GenericError", "JSON parse error" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        expect_error(cases[i][0], cases[i][1], cases[i][2]);
        done("query-version", "");
    }
    ck_assert_ptr_null(server->quit_reason);
}
END_TEST

START_TEST(members_of_members_are_named_in_full)
{
    fails("blockdev-add", "{\"driver\":\"raw\",\"node-name\":\"r\","
          "\"file\":{\"driver\":\"null-co\",\"size\":\"1\"}}",
          "Invalid parameter type for 'file.size', expected: integer");
    fails("blockdev-add", "{\"driver\":\"raw\",\"node-name\":\"r\","
          "\"file\":{\"node-name\":\"x\"}}",
          "Parameter 'file.driver' is missing");
    fails("blockdev-add", "{\"driver\":\"null-co\",\"node-name\":\"r\","
          "\"cache\":{\"direct\":1}}",
          "Invalid parameter type for 'cache.direct', expected: boolean");
    fails("blockdev-add", "{\"driver\":\"raw\",\"node-name\":\"r\","
          "\"file.driver\":\"null-co\"}",
          "Parameter 'file.driver' is unexpected");
    fails("transaction", "{\"actions\":[{\"type\":\"abort\",\"data\":{}},"
          "{\"type\":\"block-dirty-bitmap-add\",\"data\":{\"node\":1}}]}",
          "'actions[1].data.node'");
    fails("blockdev-add", "{\"driver\":\"nope\",\"node-name\":\"r\"}",
          "Parameter 'driver' does not accept value 'nope'");
    fails("block-dirty-bitmap-add", "{\"node\":\"r\",\"name\":\"b\","
          "\"granularity\":4294967296}", "expects uint32");
}
END_TEST

START_TEST(a_reply_has_the_id_of_its_request)
{
    json_t *reply = ask("{\"execute\":\"query-jobs\",\"id\":{\"a\":[1]}}");

    ck_assert_int_eq(json_integer_value(json_array_get(
        json_object_get(json_object_get(reply, "id"), "a"), 0)), 1);
    json_decref(reply);
    reply = ask("{\"execute\":\"nope\",\"id\":\"x\"}");
    ck_assert_str_eq(qmp_arg_str(reply, "id"), "x");
    json_decref(reply);
    reply = ask("{\"id\":5}");
    ck_assert_int_eq(qmp_arg_int(reply, "id", 0), 5);
    json_decref(reply);
}
END_TEST

START_TEST(requests_of_one_client_are_answered_in_order)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < 200; i++) {
        g_string_append_printf(text, "{\"execute\":\"%s\",\"id\":%d%s}",
                               i % 2 ? "blockdev-del" : "blockdev-add", i,
                               i % 2
                               ? ",\"arguments\":{\"node-name\":\"n\"}"
                               : ",\"arguments\":" NULL_CO("n"));
    }
    say(text->str);
    for (int i = 0; i < 200; i++) {
        json_t *reply = next_reply();

        ck_assert_int_eq(qmp_arg_int(reply, "id", -1), i);
        ck_assert(json_object_get(reply, "return"));
        json_decref(reply);
    }
    g_string_free(text, TRUE);
}
END_TEST

START_TEST(no_command_begins_while_the_client_does_not_read)
{
    no_room = true;
    say("{\"execute\":\"quit\"}");
    for (int i = 0; i < 10; i++) {
        qmp_turn(false);
    }
    ck_assert_ptr_null(server->quit_reason);
    ck_assert(!qmp_monitor_wants_input(client));
    no_room = false;
    qmp_monitor_resume(client);
    json_decref(next_reply());
    ck_assert_str_eq(server->quit_reason, "host-qmp-quit");
}
END_TEST

/* A node whose opening takes a while, for its client. */
START_TEST(a_client_that_goes_away_does_not_take_its_command_along)
{
    say("{\"execute\":\"blockdev-create\",\"arguments\":{\"job-id\":\"c\","
        "\"options\":{\"driver\":\"file\",\"filename\":\"/nonexistent/x\","
        "\"size\":0}}}{\"execute\":\"query-named-block-nodes\"}");
    qmp_monitor_close(client);
    g_string_truncate(sent, 0);
    client = qmp_monitor_new(server, &client_ops, NULL);
    json_decref(next_reply());
    done("qmp_capabilities", "");
    while (block_job_find(graph, "c")) {
        json_t *list = ok("query-jobs", "");
        const char *status = qmp_arg_str(json_array_get(list, 0), "status");
        bool over = status && g_str_equal(status, "concluded");

        json_decref(list);
        if (over) {
            done("job-dismiss", "{\"id\":\"c\"}");
        } else {
            qmp_turn(false);
        }
    }
}
END_TEST

/* --- events --------------------------------------------------------------- */

static json_t *io_error(const char *node)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "device", "", "node-name",
                     node, "operation", "write", "action", "report", "reason",
                     "No space left on device");
}

START_TEST(events_come_with_their_time_and_only_after_the_negotiation)
{
    QmpMonitor *first = client;
    json_t *event;
    g_autofree char *line = NULL;

    client = qmp_monitor_new(server, &client_ops, NULL);
    g_string_truncate(sent, 0);
    qmp_server_event(server, "BLOCK_EXPORT_DELETED",
                     json_pack("{s:s}", "id", "e"));
    line = next_line();
    event = json_loads(line, 0, NULL);
    ck_assert_str_eq(qmp_arg_str(event, "event"), "BLOCK_EXPORT_DELETED");
    ck_assert_int_gt(qmp_arg_int(json_object_get(event, "timestamp"),
                                 "seconds", 0), 1600000000);
    ck_assert_str_eq(qmp_arg_str(json_object_get(event, "data"), "id"), "e");
    ck_assert_ptr_null(next_line());        /* the other has not asked */
    json_decref(event);
    qmp_monitor_close(client);
    client = first;
}
END_TEST

START_TEST(of_events_that_come_too_often_the_last_is_told_later)
{
    unsigned nr = 0;
    char *line;

    for (int i = 0; i < 100; i++) {
        qmp_server_event(server, "BLOCK_IO_ERROR", io_error("a"));
        qmp_server_event(server, "BLOCK_IO_ERROR", io_error("b"));
    }
    for (; (line = next_line()); g_free(line)) {
        nr++;
    }
    ck_assert_uint_eq(nr, 2);       /* one of each node */
    while (!(line = next_line())) {
        qmp_turn(true);
    }
    ck_assert(strstr(line, "BLOCK_IO_ERROR"));
    g_free(line);
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, nothing_is_done_before_the_negotiation);
    PROMISE(tcase,
            what_is_wrong_with_a_request_is_said_and_the_next_is_answered);
    PROMISE(tcase, members_of_members_are_named_in_full);
    PROMISE(tcase, a_reply_has_the_id_of_its_request);
    PROMISE(tcase, requests_of_one_client_are_answered_in_order);
    PROMISE(tcase, no_command_begins_while_the_client_does_not_read);
    PROMISE(tcase, a_client_that_goes_away_does_not_take_its_command_along);
    PROMISE(tcase,
            events_come_with_their_time_and_only_after_the_negotiation);
    PROMISE(tcase, of_events_that_come_too_often_the_last_is_told_later);
}

int main(void)
{
    return qmp_suite("qmp-dispatch", add_tests);
}
