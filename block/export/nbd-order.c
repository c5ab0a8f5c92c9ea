/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The order of writes over several connections of one client.
 *
 * A client that has lost a connection makes another one, and sends again what
 * has had no answer.  We may still be at work at what came over the first, and
 * need not know yet that it has ended.  If that came to its end behind what the
 * client was told of since, it would undo it.  So a write waits for those that
 * overlap it and came over another connection of the same peer; over one
 * connection clients know themselves what they send at a time.
 *
 * Other peers are not waited for: nobody's writes hold up somebody else's.
 * Who waits is in no tree and has no turn (nbd-turn.c), so there is no circle.
 */
#include "block/export/nbd-int.h"

#include <string.h>

static NbdRequest *request_of(IntervalNode *node)
{
    return (NbdRequest *)((char *)node - offsetof(NbdRequest, range));
}

/* A write that @req has to wait for, or NULL. */
static NbdRequest *find_older(const NbdRequest *req)
{
    const NbdClient *client = req->client;
    int64_t last = req->offset + req->bytes - 1;
    IntervalNode *node = interval_tree_first_overlap(&client->e->writes,
                                                     req->offset, last);

    for (; node; node = interval_tree_next_overlap(node, req->offset, last)) {
        const NbdClient *other = request_of(node)->client;

        if (other != client && strcmp(other->peer, client->peer) == 0) {
            return request_of(node);
        }
    }
    return NULL;
}

bool coroutine_fn nbd_order_begin(NbdRequest *req)
{
    bool waited = false;
    NbdRequest *older;

    while ((older = find_older(req))) {
        co_queue_wait(&older->followers, NULL);
        waited = true;
    }
    co_queue_init(&req->followers);
    interval_node_init(&req->range, req->offset, req->bytes);
    interval_tree_insert(&req->client->e->writes, &req->range);
    return waited;
}

void nbd_order_end(NbdRequest *req)
{
    interval_tree_remove(&req->client->e->writes, &req->range);
    co_queue_restart_all(&req->followers);
}
