/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option trees out of the words of a command line.
 */
#ifndef TOOL_OPTIONS_H
#define TOOL_OPTIONS_H

#include <blockgraph/options.h>

/**
 * The tree that @text describes: "key=value,...", or a JSON object.
 *
 * @implied_key  of a first word without "=", or NULL
 * @option       the option that @text belongs to, for messages
 *
 * Returns the tree, which the caller owns, or NULL: printed.
 */
BlockOptions *tool_options_parse(const char *text, const char *implied_key,
                                 const char *option);

/**
 * What a message calls the object that @options of --object describe: not all,
 * as there may be a secret in it.  g_free() it.
 */
char *tool_options_object_name(const BlockOptions *options);

/**
 * Put what @text describes into @target, as @table says, and nothing else.
 * Returns 0, then block_options_clear() it; or a negative errno, printed.
 */
int tool_options_absorb(const char *text, const char *option,
                        const BlockOption *table, void *target);

/**
 * Parse the number of seconds @text, which @option has, to nanoseconds.
 *
 * Returns 0 or a negative errno, printed.
 */
int tool_parse_seconds(const char *option, const char *text, int64_t *ret_ns);

#endif /* TOOL_OPTIONS_H */
