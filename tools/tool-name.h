/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that people give to images.
 */
#ifndef TOOL_NAME_H
#define TOOL_NAME_H

#include <blockgraph/options.h>

/**
 * The path of the file that @name means, without the prefixes "file:" and
 * "blkdebug:CONFIG:"; a part of @name.  All of @name, if it means no file.
 */
const char *tool_file_path(const char *name);

/** Whether @name is neither a path nor "file:" and a path. */
bool tool_is_no_file(const char *name);

/** Whether there is nothing in @name to look at: it is an export, or null. */
bool tool_has_no_content(const char *name);

/**
 * The options of the node that @name means, which is one of
 *
 *   PATH, file:PATH                a file
 *   json:{...}                     the options themselves
 *   nbd:... and the like           see tool_nbd_options()
 *   blkdebug:[CONFIG]:NAME         a filter for tests on any such name
 *   null-co://                     a disk that holds nothing
 *
 * For what a person typed, never for what an image or a peer says.
 *
 * Returns the tree, which the caller owns, or NULL with @errp set.
 */
BlockOptions *tool_name_options(const char *name, GError **errp);

#endif /* TOOL_NAME_H */
