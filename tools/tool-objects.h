/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --object of the tools that work on one graph and end, and that graph.
 *
 * A program has one command line, so what it says of objects is kept here until
 * there is a graph.
 */
#ifndef TOOL_OBJECTS_H
#define TOOL_OBJECTS_H

#include <blockgraph/block.h>

/** Note what --object says; @text must live on. */
void tool_objects_take(const char *text);

/** Limit the time that images of the graph may take to what --image-timeout
 * says, a number of seconds.  Returns 0 or a negative errno, printed. */
int tool_graph_set_image_timeout(const char *text);

/**
 * A graph with all objects that were noted, whose loop looks for work for
 * @poll_max_ns before it sleeps (0: not at all), unless one of them says
 * otherwise.  Returns NULL after an error, which was printed; else
 * tool_graph_free() it.  One at a time.
 */
BlockGraph *tool_graph_new(int64_t poll_max_ns);

/** Free @graph and its objects; NULL is ignored. */
void tool_graph_free(BlockGraph *graph);

/**
 * End the process, having printed what the objects are or the properties of one
 * type, if @text of an option --object asks for that: "help", "TYPE,help".
 */
void tool_object_help(const char *text);

#endif /* TOOL_OBJECTS_H */
