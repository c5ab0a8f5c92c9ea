/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug-rules: which request fails at which moment, and how rules are read.
 */
#include "check-main.h"

#include <errno.h>
#include <string.h>

#include "block/filters/blkdebug-rules.h"

static BlkdebugRules *rules;

static void setup(void)
{
    rules = blkdebug_rules_new();
}

static void teardown(void)
{
    blkdebug_rules_free(rules);
}

static void given(const char *config)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blkdebug_rules_add_config(rules, config, "rules",
                                            &error) == 0,
                  "%s", error ? error->message : "no error set");
}

static void refused(const char *config, const char *text)
{
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blkdebug_rules_add_config(rules, config, "rules", &error),
                     -EINVAL);
    ck_assert_ptr_nonnull(error);
    ck_assert_msg(strstr(error->message, text) != NULL, "'%s' lacks '%s'",
                  error->message, text);
}

/* @event happens and hits no break point. */
static void happens(const char *event)
{
    ck_assert_int_ge(blkdebug_event_find(event), 0);
    ck_assert_ptr_null(blkdebug_rules_event(rules,
                                            blkdebug_event_find(event)));
}

static int check_at(BlkdebugIoType type, int64_t offset, int64_t bytes)
{
    bool immediately;

    return blkdebug_rules_check(rules, type, offset, bytes, &immediately);
}

START_TEST(a_rule_fails_requests_from_its_event_on)
{
    given("[inject-error]\nevent = \"l2_load\"\nerrno = \"28\"\n");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), 0);
    happens("l1_update");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), 0);
    happens("l2_load");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -28);
    ck_assert_int_eq(check_at(BLKDEBUG_FLUSH, 0, 0), -28);
    happens("l1_update");
    ck_assert_int_eq(check_at(BLKDEBUG_WRITE, 0, 1), -28);
}
END_TEST

START_TEST(a_rule_that_says_nothing_else_spares_only_block_status)
{
    given("[inject-error]\nevent = none\n");
    happens("none");
    for (int type = 0; type < BLKDEBUG_IO_TYPES; type++) {
        ck_assert_int_eq(check_at(type, 0, 1),
                         type == BLKDEBUG_BLOCK_STATUS ? 0 : -EIO);
    }
}
END_TEST

START_TEST(iotype_picks_one_kind_of_request)
{
    static const char *const names[] = { "read", "write", "write-zeroes",
                                         "discard", "flush", "block-status" };

    for (int picked = 0; picked < BLKDEBUG_IO_TYPES; picked++) {
        g_autofree char *config = g_strdup_printf(
            "[inject-error]\nevent = none\niotype = %s\n", names[picked]);

        teardown();
        setup();
        given(config);
        happens("none");
        for (int type = 0; type < BLKDEBUG_IO_TYPES; type++) {
            ck_assert_int_eq(check_at(type, 0, 1), type == picked ? -EIO : 0);
        }
    }
}
END_TEST

START_TEST(a_sector_fails_where_a_request_contains_its_first_byte)
{
    given("[inject-error]\nevent = none\nsector = 2\n");
    happens("none");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1024), 0);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1025), -EIO);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 1024, 1), -EIO);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 1025, 4096), 0);
    ck_assert_int_eq(check_at(BLKDEBUG_FLUSH, 0, 0), 0);
}
END_TEST

START_TEST(once_is_once_even_if_the_event_comes_again)
{
    given("[inject-error]\nevent = read_aio\nonce = on\n");
    happens("read_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -EIO);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), 0);
    happens("read_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), 0);
}
END_TEST

START_TEST(immediately_is_told)
{
    bool immediately = true;

    given("[inject-error]\nevent = read_aio\n"
          "[inject-error]\nevent = write_aio\nimmediately = on\n");
    happens("read_aio");
    ck_assert_int_eq(blkdebug_rules_check(rules, BLKDEBUG_READ, 0, 1,
                                          &immediately), -EIO);
    ck_assert(!immediately);
    happens("write_aio");
    ck_assert_int_eq(blkdebug_rules_check(rules, BLKDEBUG_READ, 0, 1,
                                          &immediately), -EIO);
    ck_assert(immediately);
}
END_TEST

START_TEST(an_event_with_rules_replaces_the_active_ones)
{
    given("[inject-error]\nevent = read_aio\nerrno = 1\n"
          "[inject-error]\nevent = write_aio\nerrno = 2\nsector = 7\n"
          "[inject-error]\nevent = write_aio\nerrno = 3\n");
    happens("read_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 512), -1);
    happens("write_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 512), -3);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 7 * 512, 512), -2);
    happens("write_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 512), -3);
}
END_TEST

START_TEST(errno_0_lets_requests_pass_that_a_later_rule_would_fail)
{
    given("[inject-error]\nevent = none\nerrno = 0\nsector = 1\n"
          "[inject-error]\nevent = none\n");
    happens("none");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 512, 1), 0);
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -EIO);
}
END_TEST

START_TEST(states_order_what_happens)
{
    given("[set-state]\nstate = 1\nevent = l1_update\nnew_state = 2\n"
          "[set-state]\nstate = 2\nevent = l1_update\nnew_state = 3\n"
          "[inject-error]\nstate = 3\nevent = write_aio\n");
    happens("write_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_WRITE, 0, 1), 0);
    happens("l1_update"); /* one step, not two */
    ck_assert_int_eq(blkdebug_rules_state(rules), 2);
    happens("write_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_WRITE, 0, 1), 0);
    happens("l1_update");
    happens("l1_update");
    ck_assert_int_eq(blkdebug_rules_state(rules), 3);
    ck_assert_int_eq(check_at(BLKDEBUG_WRITE, 0, 1), 0);
    happens("write_aio");
    ck_assert_int_eq(check_at(BLKDEBUG_WRITE, 0, 1), -EIO);
}
END_TEST

START_TEST(break_points_are_hit_once_and_all_at_once)
{
    int event = blkdebug_event_find("write_aio");
    char **tags;

    blkdebug_rules_add_break(rules, event, "A");
    blkdebug_rules_add_break(rules, event, "B");
    blkdebug_rules_add_break(rules, event, "C");
    ck_assert(blkdebug_rules_remove_break(rules, "B"));
    ck_assert(!blkdebug_rules_remove_break(rules, "B"));
    happens("read_aio");
    tags = blkdebug_rules_event(rules, event);
    ck_assert_ptr_nonnull(tags);
    ck_assert_str_eq(tags[0], "A");
    ck_assert_str_eq(tags[1], "C");
    ck_assert_ptr_null(tags[2]);
    g_strfreev(tags);
    happens("write_aio");
}
END_TEST

START_TEST(every_event_has_its_name_once)
{
    for (int i = 0; blkdebug_event_names[i]; i++) {
        ck_assert_int_eq(blkdebug_event_find(blkdebug_event_names[i]), i);
    }
    ck_assert_int_eq(blkdebug_event_find(""), -1);
    ck_assert_int_eq(blkdebug_event_find("read"), -1);
}
END_TEST

START_TEST(configuration_files_may_have_comments_and_blank_lines)
{
    given("\n# a comment\n\n  [inject-error]  \r\n\tevent=\"none\"\r\n"
          "errno\t=   \"22\"  \n# errno = 5\n\n");
    happens("none");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -22);
}
END_TEST

START_TEST(wrong_configurations_are_refused_with_line_and_value)
{
    refused("event = none\n", "rules, line 1: 'event' stands before");
    refused("\n[inject]\n", "line 2: unknown section 'inject'");
    refused("[", "line 1: unknown section ''");
    refused("[inject-error]\nevent\n", "line 2: expected [section]");
    refused("[inject-error]\n= 5\n", "line 2: '' is no key");
    refused("[inject-error]\na.b = 5\n", "line 2: 'a.b' is no key");
    refused("[inject-error]\nevent = \"\xff\"\n", "line 2: 'event' is no key");
    refused("[inject-error]\nerrno = 5\nerrno = 5\n",
            "line 3: 'errno' is given twice");
    refused("\n[inject-error]\nerrno = 5\n",
            "line 2: [inject-error]: option 'event' is required");
    refused("[inject-error]\nevent = breakfast\n", "'breakfast'");
    refused("[inject-error]\nevent = none\nerrno = -5\n", "-5");
    refused("[inject-error]\nevent = none\nerrno = 4096\n", "'errno'");
    refused("[inject-error]\nevent = none\nsector = -2\n", "'sector'");
    refused("[inject-error]\nevent = none\niotype = tape\n", "'iotype'");
    refused("[inject-error]\nevent = none\nonce = maybe\n", "'once'");
    refused("[inject-error]\nevent = none\nimmediately = 7\n",
            "'immediately'");
    refused("[inject-error]\nevent = none\nnew_state = 7\n", "new_state");
    refused("[set-state]\nevent = none\n", "'new_state' is required");
    refused("[set-state]\nevent = none\nnew_state = 0\n", "'new_state'");
    refused("[set-state]\nevent = none\nstate = x\nnew_state = 1\n",
            "'state'");
}
END_TEST

START_TEST(lists_of_options_make_the_same_rules)
{
    static const BlockOption table[] = {
        { .name = "inject-error", .type = BLOCK_OPTION_TREE, .help = "list" },
        { .type = BLOCK_OPTION_END },
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) list = NULL;
    g_autoptr(BlockOptions) tree = block_options_parse_json(
        "{\"inject-error\": [{\"event\": \"none\", \"errno\": 7},"
        " {\"event\": \"l2_load\", \"errno\": 8}]}", NULL);

    ck_assert_int_eq(block_options_absorb(tree, table, &list, "test", NULL),
                     0);
    ck_assert_int_eq(blkdebug_rules_add_list(rules, "inject-error", list,
                                             "node", &error), 0);
    happens("none");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -7);
    happens("l2_load");
    ck_assert_int_eq(check_at(BLKDEBUG_READ, 0, 1), -8);
    ck_assert_int_eq(blkdebug_rules_add_list(rules, "inject-error", NULL,
                                             "node", &error), 0);
    ck_assert_int_eq(blkdebug_rules_add_list(rules, "inject-error", tree,
                                             "node", &error), -EINVAL);
    ck_assert_str_eq(error->message, "node: option 'inject-error' expects a "
                     "list of objects");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blkdebug-rules");
    TCase *tcase = tcase_create("blkdebug-rules");

    tcase_add_checked_fixture(tcase, setup, teardown);
    PROMISE(tcase, a_rule_fails_requests_from_its_event_on);
    PROMISE(tcase, a_rule_that_says_nothing_else_spares_only_block_status);
    PROMISE(tcase, iotype_picks_one_kind_of_request);
    PROMISE(tcase, a_sector_fails_where_a_request_contains_its_first_byte);
    PROMISE(tcase, once_is_once_even_if_the_event_comes_again);
    PROMISE(tcase, immediately_is_told);
    PROMISE(tcase, an_event_with_rules_replaces_the_active_ones);
    PROMISE(tcase, errno_0_lets_requests_pass_that_a_later_rule_would_fail);
    PROMISE(tcase, states_order_what_happens);
    PROMISE(tcase, break_points_are_hit_once_and_all_at_once);
    PROMISE(tcase, every_event_has_its_name_once);
    PROMISE(tcase, configuration_files_may_have_comments_and_blank_lines);
    PROMISE(tcase, wrong_configurations_are_refused_with_line_and_value);
    PROMISE(tcase, lists_of_options_make_the_same_rules);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
