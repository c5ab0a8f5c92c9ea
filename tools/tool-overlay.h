/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that take what is written, and go when they are closed.
 */
#ifndef TOOL_OVERLAY_H
#define TOOL_OVERLAY_H

#include <blockgraph/block.h>

/**
 * Open the image of @options, which is taken over and says read-only=on, below
 * a new image in $TMPDIR (/var/tmp) that nobody else can see.
 *
 * Returns the node of the new one, which the caller owns, or NULL with @errp.
 */
BlockDriverState *tool_open_overlay(BlockGraph *graph, BlockOptions *options,
                                    GError **errp);

#endif /* TOOL_OVERLAY_H */
