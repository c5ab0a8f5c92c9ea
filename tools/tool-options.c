/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option trees out of the words of a command line.
 */
#include "tools/tool-options.h"

#include <errno.h>
#include <jansson.h>

#include "tools/tool-print.h"

/* Where in @text of --object, "TYPE,key=value,...", the first word without "="
 * begins, counted from 1; 0: there is none. */
static size_t column_without_value(const char *text)
{
    const char *start = text;
    bool has_value = true;      /* the first word is the type */

    for (const char *p = text; ; p++) {
        if (has_value && p[0] == ',' && p[1] == ',') {
            p++;                /* stands for a comma */
        } else if (*p == ',' || !*p) {
            if (!has_value || !*p) {
                return has_value ? 0 : start - text + 1;
            }
            start = p + 1;
            has_value = false;
        } else if (*p == '=') {
            has_value = true;
        }
    }
}

/*
 * There may be a secret in @text, which the reasons of the parsers quote, and
 * what it has a comma or a quote too many or too few for is most likely it.
 */
static void report_bad_object(const char *text)
{
    size_t column = 0;

    if (text[0] == '{') {
        json_error_t error;
        json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);

        column = json ? 0 : MAX(error.column, 1);
        json_decref(json);
    } else {
        column = column_without_value(text);
    }
    if (column > 0) {
        tool_error("--object: not well formed at column %zu%s", column,
                   text[0] == '{' ? "" : "; a comma in a value is written "
                                         "twice");
    } else {
        tool_error("--object: not well formed");
    }
}

static BlockOptions *parse_object(const char *text, const char *implied_key)
{
    BlockOptions *options = text[0] == '{'
        ? block_options_parse_json(text, NULL)
        : block_options_parse_keyval(text, implied_key, NULL);

    if (!options) {
        report_bad_object(text);
    } else if (block_options_has(options, "data") &&
               !block_options_peek_str(options, "data")) {
        tool_error("--object: option 'data' expects a string");
        g_clear_pointer(&options, block_options_free);
    }
    return options;
}

BlockOptions *tool_options_parse(const char *text, const char *implied_key,
                                 const char *option)
{
    GError *error = NULL;
    BlockOptions *options;

    if (g_str_equal(option, "--object")) {
        return parse_object(text, implied_key);
    }
    options = text[0] == '{'
        ? block_options_parse_json(text, &error)
        : block_options_parse_keyval(text, implied_key, &error);
    if (!options) {
        tool_report(error, option);
    }
    return options;
}

char *tool_options_object_name(const BlockOptions *options)
{
    const char *type = block_options_peek_str(options, "qom-type");
    const char *id = block_options_peek_str(options, "id");

    return g_strdup_printf("--object %s,id=%s", type ? type : "",
                           id ? id : "");
}

int tool_options_absorb(const char *text, const char *option,
                        const BlockOption *table, void *target)
{
    const BlockOption *const known[] = { table, NULL };
    /* Such a table has what may stand without a key at its head. */
    BlockOptions *options = tool_options_parse(text, table[0].name, option);
    GError *error = NULL;
    int ret;

    if (!options) {
        return -EINVAL;
    }
    ret = block_options_absorb(options, table, target, option, &error);
    if (ret == 0) {
        ret = block_options_check_empty(options, known, option, &error);
        if (ret < 0) {
            block_options_clear(table, target);
        }
    }
    if (ret < 0) {
        tool_report(error, NULL);
    }
    block_options_free(options);
    return ret;
}

int tool_parse_seconds(const char *option, const char *text, int64_t *ret_ns)
{
    const int64_t ns_per_s = 1000 * 1000 * 1000;
    guint64 seconds;

    if (!g_ascii_string_to_unsigned(text, 10, 0, INT64_MAX / ns_per_s,
                                    &seconds, NULL)) {
        tool_error("%s: '%s' is no number of seconds", option, text);
        return -EINVAL;
    }
    *ret_ns = seconds * ns_per_s;
    return 0;
}
