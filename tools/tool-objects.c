/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --object of the tools that work on one graph and end, and that graph.
 */
#include "tools/tool-objects.h"

#include "monitor/objects.h"
#include "tools/tool-image.h"
#include "tools/tool-options.h"
#include "tools/tool-print.h"

static GPtrArray *texts;        /* const char *, in their order; or NULL */
static QmpObjects *objects;     /* of the graph, if there is one */

static int64_t image_timeout_ns; /* of the graph; 0: no limit */

int tool_graph_set_image_timeout(const char *text)
{
    return tool_parse_seconds("--image-timeout", text, &image_timeout_ns);
}

void tool_objects_take(const char *text)
{
    tool_object_help(text);
    if (!texts) {
        texts = g_ptr_array_new();
    }
    g_ptr_array_add(texts, (void *)text);
}

/* Returns whether it could; if not, why was printed. */
static bool add_object(const char *text)
{
    BlockOptions *options = tool_options_parse(text, "qom-type", "--object");
    g_autofree char *what = NULL;
    GError *error = NULL;

    if (!options) {
        return false;
    }
    what = tool_options_object_name(options);
    if (qmp_objects_add(objects, options, &error) < 0) {
        tool_report(error, what);
        return false;
    }
    return true;
}

BlockGraph *tool_graph_new(int64_t poll_max_ns)
{
    GError *error = NULL;
    BlockGraph *graph = block_graph_new(NULL, &error);

    g_assert(!objects);
    if (!graph) {
        tool_report(error, NULL);
        return NULL;
    }
    block_graph_set_image_timeout(graph, image_timeout_ns);
    aio_context_set_polling(block_graph_aio_context(graph), poll_max_ns, 0, 0);
    objects = qmp_objects_new(graph);
    for (guint i = 0; texts && i < texts->len; i++) {
        if (!add_object(g_ptr_array_index(texts, i))) {
            tool_graph_free(graph);
            return NULL;
        }
    }
    return graph;
}

void tool_graph_free(BlockGraph *graph)
{
    if (graph && tool_wait_for_jobs(graph)) {
        g_clear_pointer(&objects, qmp_objects_free);
        g_clear_pointer(&texts, g_ptr_array_unref);
        block_graph_free(graph);
    }
}
