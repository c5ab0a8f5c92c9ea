/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that people give to NBD exports.
 */
#ifndef TOOL_NBD_URI_H
#define TOOL_NBD_URI_H

#include <blockgraph/options.h>

/** Whether @name begins like the name of an NBD export. */
bool tool_is_nbd_name(const char *name);

/**
 * The options of a node of the driver "nbd" for @name, which is one of
 *
 *   nbd:unix:PATH[:exportname=NAME]
 *   nbd:HOST:PORT[:exportname=NAME]
 *   nbd://HOST[:PORT]/NAME          also nbd+tcp:
 *   nbd+unix:///NAME?socket=PATH
 *
 * and the latter two with "nbds", which needs a further tls-creds=ID in the
 * query.  For what a person typed, never for what an image or a peer says.
 *
 * Returns the tree, which the caller owns, or NULL with @errp set.
 */
BlockOptions *tool_nbd_options(const char *name, GError **errp);

#endif /* TOOL_NBD_URI_H */
