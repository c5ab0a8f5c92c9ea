/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever the text, parsing gives a tree or an error, and a tree survives the
 * way through JSON.
 */
#include <blockgraph/options.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(BlockOptions *options, GError *error)
{
    g_autofree char *json = NULL;
    g_autofree char *again = NULL;
    BlockOptions *copy;

    if (!options) {
        g_assert(error && error->message[0]);
        g_error_free(error);
        return;
    }
    g_assert(!error);
    if (!block_options_is_list(options)) {
        json = block_options_to_json(options);
        copy = block_options_parse_json(json, NULL);
        if (copy) {
            again = block_options_to_json(copy);
            g_assert_cmpstr(json, ==, again);
            block_options_free(copy);
        }
    }
    block_options_free(options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GError *error = NULL;
    char *text = g_strndup((const char *)data, size);
    int64_t bytes;

    check(block_options_parse_json(text, &error), error);
    error = NULL;
    check(block_options_parse_keyval(text, "driver", &error), error);
    error = NULL;
    check(block_options_parse_filename(text, &error), error);
    block_parse_size(text, &bytes);
    g_free(text);
    return 0;
}
