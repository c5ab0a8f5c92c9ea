/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A control server on an empty graph, and one client of it.
 */
#ifndef TESTS_UNIT_QMP_FIXTURE_H
#define TESTS_UNIT_QMP_FIXTURE_H

#include "check-main.h"

#include <errno.h>
#include <string.h>

#include "monitor/qmp-json.h"
#include "monitor/qmp-monitor.h"

static BlockGraph *graph;
static QmpServer *server;
static QmpMonitor *client;
static GString *sent;       /* what the client has not read yet */
static json_t *heard;       /* the events it has read */
static bool no_room;        /* what the client says of its output */

static inline void client_send(const char *text, size_t bytes, void *opaque)
{
    g_string_append_len(sent, text, bytes);
}

static inline bool client_is_full(void *opaque)
{
    return no_room;
}

static inline void client_idle(void *opaque)
{
}

static const QmpMonitorOps client_ops = { client_send, client_is_full,
                                          client_idle };

/** One turn, and what waits for the time between two. */
static inline void qmp_turn(bool blocking)
{
    aio_poll(block_graph_aio_context(graph), blocking);
    qmp_server_run_outside(server);
}

/** The next line that the client has been sent, or NULL.  g_free(). */
static inline char *next_line(void)
{
    char *end = strstr(sent->str, "\r\n");
    char *line;

    if (!end) {
        return NULL;
    }
    line = g_strndup(sent->str, end - sent->str);
    g_string_erase(sent, 0, end + 2 - sent->str);
    return line;
}

/** The next reply; events before it go to @heard. */
static inline json_t *next_reply(void)
{
    for (;;) {
        g_autofree char *line = next_line();
        json_t *json;

        if (!line) {
            qmp_turn(true);
            continue;
        }
        json = json_loads(line, 0, NULL);
        ck_assert_msg(json, "no JSON: %s", line);
        if (!json_object_get(json, "event")) {
            return json;
        }
        json_array_append_new(heard, json);
    }
}

/** Send @text, as it is. */
static inline void say(const char *text)
{
    qmp_monitor_feed(client, text, strlen(text));
}

/** Send @text and return the reply. */
static inline json_t *ask(const char *text)
{
    say(text);
    say("\n");
    return next_reply();
}

/** The command @name with @args ("" for none) gives this "return", which the
 * caller frees. */
static inline json_t *ok(const char *name, const char *args)
{
    g_autofree char *text = g_strdup_printf(
        "{\"execute\":\"%s\"%s%s}", name, *args ? ",\"arguments\":" : "",
        args);
    json_t *reply = ask(text);
    json_t *ret = json_object_get(reply, "return");
    g_autofree char *shown = qmp_json_text(reply);

    ck_assert_msg(ret, "%s: %s", text, shown);
    json_incref(ret);
    json_decref(reply);
    return ret;
}

/** As ok(), for who does not look at it. */
static inline void done(const char *name, const char *args)
{
    json_decref(ok(name, args));
}

/** The reply to @text is an error of @class_name whose text has @part. */
static inline void expect_error(const char *text, const char *class_name,
                                const char *part)
{
    json_t *reply = ask(text);
    json_t *error = json_object_get(reply, "error");
    g_autofree char *shown = qmp_json_text(reply);

    ck_assert_msg(error, "%s: %s", text, shown);
    ck_assert_str_eq(qmp_arg_str(error, "class"), class_name);
    ck_assert_msg(strstr(qmp_arg_str(error, "desc"), part), "%s: %s", text,
                  shown);
    json_decref(reply);
}

/** The command @name with @args fails like that. */
static inline void fails(const char *name, const char *args, const char *part)
{
    g_autofree char *text = g_strdup_printf(
        "{\"execute\":\"%s\",\"arguments\":%s}", name, args);

    expect_error(text, "GenericError", part);
}

/** Turn the loop until the event @name comes; the caller frees its data. */
static inline json_t *wait_event(const char *name)
{
    for (size_t at = 0;;) {
        g_autofree char *line = NULL;

        for (; at < json_array_size(heard); at++) {
            json_t *event = json_array_get(heard, at);

            if (g_str_equal(qmp_arg_str(event, "event"), name)) {
                json_t *data = json_incref(json_object_get(event, "data"));

                json_array_remove(heard, at);
                return data;
            }
        }
        line = next_line();
        if (line) {
            json_array_append_new(heard, json_loads(line, 0, NULL));
        } else {
            qmp_turn(true);
        }
    }
}

static inline void qmp_setup(void)
{
    json_t *greeting;

    graph = block_graph_new(NULL, NULL);
    server = qmp_server_new(graph);
    sent = g_string_new(NULL);
    heard = json_array();
    client = qmp_monitor_new(server, &client_ops, NULL);
    greeting = next_reply();
    ck_assert(json_object_get(greeting, "QMP"));
    json_decref(greeting);
    done("qmp_capabilities", "");
}

static inline void qmp_teardown(void)
{
    qmp_monitor_close(client);
    block_job_cancel_all(graph);
    qmp_server_free(server);
    block_graph_free(graph);
    g_string_free(sent, TRUE);
    json_decref(heard);
}

/** The main() of a test of the control protocol. */
static inline int qmp_suite(const char *name, void (*add_tests)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);

    tcase_add_checked_fixture(tcase, qmp_setup, qmp_teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}

#endif /* TESTS_UNIT_QMP_FIXTURE_H */
