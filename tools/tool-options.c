/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option trees out of the words of a command line.
 */
#include "tools/tool-options.h"

#include <errno.h>

#include "tools/tool-print.h"

BlockOptions *tool_options_parse(const char *text, const char *implied_key,
                                 const char *option)
{
    GError *error = NULL;
    BlockOptions *options = text[0] == '{'
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
