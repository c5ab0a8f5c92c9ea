/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The option -T, in the manner of QEMU's tools, whose events we have not: who
 * asks for some goes on, and is told that there will be none.
 */
#include "tools/tool-trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tool-options.h"
#include "tools/tool-print.h"

typedef struct Trace {
    char *enable;
    char *events;
    char *file;
} Trace;

static const BlockOption trace_options[] = {
    { .name = "enable", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(Trace, enable), .help = "name or pattern of events" },
    { .name = "events", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(Trace, events), .help = "file of such names" },
    { .name = "file", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(Trace, file), .help = "where to write what happens" },
    { .type = BLOCK_OPTION_END },
};

/* A pattern fits what there is; "-" in front turns events off. */
static void enable(const char *name)
{
    name += *name == '-';
    if (*name && !strchr(name, '*')) {
        tool_warning("trace event '%s' does not exist", name);
    }
}

static int enable_file(const char *path)
{
    g_autofree char *text = NULL;
    GError *error = NULL;
    char **lines;

    if (!g_file_get_contents(path, &text, NULL, &error)) {
        tool_report(error, "--trace");
        return -EINVAL;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (**line != '#') {
            enable(*line);
        }
    }
    g_strfreev(lines);
    return 0;
}

int tool_trace(const char *text)
{
    Trace trace = { 0 };
    int ret;

    if (g_str_equal(text, "help") || g_str_equal(text, "?")) {
        exit(EXIT_SUCCESS); /* a list of all there are */
    }
    ret = tool_options_absorb(text, "--trace", trace_options, &trace);
    if (ret < 0) {
        return ret;
    }
    if (trace.enable) {
        enable(trace.enable);
    }
    if (trace.events) {
        ret = enable_file(trace.events);
    }
    block_options_clear(trace_options, &trace);
    return ret;
}
