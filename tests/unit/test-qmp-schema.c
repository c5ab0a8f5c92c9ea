/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the server says of itself is complete, and true of its replies.
 */
#include "qmp-fixture.h"

/* The entry called @name, or NULL. */
static json_t *entry(const json_t *schema, const char *name)
{
    json_t *found;
    size_t i;

    json_array_foreach(schema, i, found) {
        if (g_str_equal(qmp_arg_str(found, "name"), name)) {
            return found;
        }
    }
    return NULL;
}

static void expect_type(const json_t *schema, const json_t *from,
                        const char *key)
{
    const char *name = qmp_arg_str(from, key);

    ck_assert_msg(!name || entry(schema, name), "%s of %s is not described",
                  key, qmp_arg_str(from, "name"));
}

START_TEST(every_type_that_is_named_is_described_once)
{
    json_t *schema = ok("query-qmp-schema", "");
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    json_t *type;
    json_t *member;
    size_t i, j;

    json_array_foreach(schema, i, type) {
        ck_assert_msg(g_hash_table_add(names,
                                       (char *)qmp_arg_str(type, "name")),
                      "%s is there twice", qmp_arg_str(type, "name"));
        expect_type(schema, type, "arg-type");
        expect_type(schema, type, "ret-type");
        expect_type(schema, type, "element-type");
        json_array_foreach(json_object_get(type, "members"), j, member) {
            expect_type(schema, member, "type");
        }
        json_array_foreach(json_object_get(type, "variants"), j, member) {
            expect_type(schema, member, "type");
        }
    }
    json_decref(schema);
}
END_TEST

START_TEST(every_command_is_listed_and_described_and_has_help)
{
    json_t *schema = ok("query-qmp-schema", "");
    json_t *list = ok("query-commands", "");
    json_t *command;
    size_t i;

    json_array_foreach(list, i, command) {
        const char *name = qmp_arg_str(command, "name");
        json_t *found = entry(schema, name);

        ck_assert_msg(found, "%s is not described", name);
        ck_assert_str_eq(qmp_arg_str(found, "meta-type"), "command");
        ck_assert(*qmp_server_find(server, name)->help);
    }
    json_decref(list);
    json_decref(schema);
}
END_TEST

START_TEST(each_driver_has_its_options_as_a_variant)
{
    json_t *schema = ok("query-qmp-schema", "");
    json_t *options = entry(schema, "BlockdevOptions");
    json_t *drivers = entry(schema, "BlockdevDriver");

    ck_assert_str_eq(qmp_arg_str(options, "tag"), "driver");
    ck_assert_uint_eq(json_array_size(json_object_get(options, "variants")),
                      json_array_size(json_object_get(drivers, "members")));
    ck_assert(entry(schema, "BlockdevOptions-qcow2"));
    ck_assert(entry(schema, "BlockdevCreateOptions-qcow2"));
    ck_assert_str_eq(qmp_arg_str(entry(schema, "blockdev-add"), "arg-type"),
                     "BlockdevOptions");
    json_decref(schema);
}
END_TEST

/* The reply to @name, with @args, is of the type that the command has. */
static void expect_reply(const char *name, const char *args)
{
    const QmpCommand *command = qmp_server_find(server, name);
    json_t *reply = ok(name, args);
    GError *error = NULL;

    ck_assert_msg(qmp_type_check(command->ret ? command->ret : &qmp_empty,
                                 reply, "return", &error) == 0,
                  "%s: %s", name, error ? error->message : "");
    json_decref(reply);
}

START_TEST(replies_are_of_the_types_that_are_described)
{
    done("object-add", "{\"qom-type\":\"throttle-group\",\"id\":\"g\"}");
    done("blockdev-add", "{\"driver\":\"throttle\",\"node-name\":\"a\","
         "\"throttle-group\":\"g\",\"file\":{\"driver\":\"null-co\","
         "\"node-name\":\"n\",\"size\":65536}}");
    done("blockdev-add", "{\"driver\":\"null-co\",\"node-name\":\"b\","
         "\"size\":65536}");
    done("block-dirty-bitmap-add", "{\"node\":\"a\",\"name\":\"b0\"}");
    done("blockdev-backup", "{\"device\":\"a\",\"target\":\"b\","
         "\"sync\":\"none\",\"job-id\":\"j\"}");
    expect_reply("query-version", "");
    expect_reply("query-status", "");
    expect_reply("query-commands", "");
    expect_reply("query-qmp-schema", "");
    expect_reply("query-jobs", "");
    expect_reply("query-block-jobs", "");
    expect_reply("query-named-block-nodes", "");
    expect_reply("query-named-block-nodes", "{\"flat\":true}");
    expect_reply("query-block", "");
    expect_reply("query-blockstats", "");
    expect_reply("query-blockstats", "{\"query-nodes\":true}");
    expect_reply("x-debug-query-block-graph", "");
    expect_reply("x-debug-block-dirty-bitmap-sha256",
                 "{\"node\":\"a\",\"name\":\"b0\"}");
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, every_type_that_is_named_is_described_once);
    PROMISE(tcase, every_command_is_listed_and_described_and_has_help);
    PROMISE(tcase, each_driver_has_its_options_as_a_variant);
    PROMISE(tcase, replies_are_of_the_types_that_are_described);
}

int main(void)
{
    return qmp_suite("qmp-schema", add_tests);
}
