/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS credentials of a graph, by their ids.
 *
 * All functions run in the thread of the graph's main context.
 */
#ifndef BLOCKGRAPH_TLS_H
#define BLOCKGRAPH_TLS_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

/**
 * Load credentials.
 *
 * @options  taken over: "qom-type" (tls-creds-x509 or tls-creds-psk), "id",
 *           "dir", "endpoint", "verify-peer", "priority", "username"; see
 *           docs/exports.md
 *
 * Returns 0, or a negative errno with @errp set: -EEXIST, the id is taken.
 */
BLOCK_API int blk_tls_creds_add(BlockGraph *graph, BlockOptions *options,
                                GError **errp);

/**
 * Forget credentials; who uses them keeps them.  Returns 0, or -ENOENT with
 * @errp set.  What is left goes with the graph.
 */
BLOCK_API int blk_tls_creds_del(BlockGraph *graph, const char *id,
                                GError **errp);

G_END_DECLS

#endif /* BLOCKGRAPH_TLS_H */
