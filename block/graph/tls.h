/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS credentials of a graph: looking them up.
 */
#ifndef BLOCK_GRAPH_TLS_H
#define BLOCK_GRAPH_TLS_H

#include <blockgraph/tls.h>

#include "util/tls-creds.h"

/**
 * The credentials @id of @graph for servers or clients, with a reference for
 * the caller; or NULL with @errp set.  Main context.
 */
TlsCreds *graph_tls_creds(BlockGraph *graph, const char *id, bool server,
                          GError **errp);

/** Forget all; the graph goes. */
void graph_tls_clear(BlockGraph *graph);

#endif /* BLOCK_GRAPH_TLS_H */
