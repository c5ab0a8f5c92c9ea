/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whose request is next: round robin over the clients of an export.
 *
 * All clients of an export together have no more in work than one may have in
 * flight, and one request for each client; the rest waits here, a queue for
 * each client.  So whoever is alone never waits, and who shares the export
 * waits for no more than that, whatever the others have sent.
 *
 *   T1  A client that has nothing in work gets its turn at once, which costs
 *       it nothing.  So one that sends one request at a time never waits here,
 *       and one whose requests wait has at least one in work: when that ends,
 *       it goes on.  So its end does not wait for what others have in work.
 *   T2  Else it is deficit round robin (Shreedhar and Varghese, 1995): in each
 *       round a client may spend TURN_BYTES more, and what it did not spend it
 *       keeps while it has requests that wait.  So clients that want as much
 *       as they can get have the same share in bytes, whatever the sizes.
 *   T3  Nobody overtakes: when the next in turn does not fit, the others wait
 *       for what is in work to end.
 *
 * Who waits here may have others wait for it (nbd-order.c), but who is in work
 * waits for nobody in this server, so there is no circle.
 */
#include "block/export/nbd-int.h"

/* What a client may spend in a round. */
#define TURN_BYTES (64 * 1024)

/* What a request costs beside its data. */
#define REQUEST_BYTES 4096

void nbd_turns_init(NbdTurns *turns)
{
    list_init(&turns->clients);
    turns->nr_working = 0;
    turns->bytes_working = 0;
}

void nbd_turn_client_init(NbdClient *client)
{
    list_init(&client->turn_link);
    list_init(&client->turn_waiting);
    client->turn_working = 0;
}

static int64_t cost_of(const NbdRequest *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
    case NBD_CMD_CACHE:
        return REQUEST_BYTES + MIN(req->bytes, NBD_PAYLOAD_MAX);
    default:
        return REQUEST_BYTES;
    }
}

static bool fits(const NbdTurns *turns, const NbdRequest *req)
{
    return turns->nr_working < NBD_REQUESTS_MAX &&
           turns->bytes_working + req->charged <= NBD_CLIENT_BYTES_MAX;
}

static void start(NbdTurns *turns, NbdRequest *req)
{
    turns->nr_working++;
    turns->bytes_working += req->charged;
    req->client->turn_working++;
}

/* @req waits no more. */
static void leave(NbdRequest *req)
{
    list_remove(&req->turn_link);
    if (list_empty(&req->client->turn_waiting)) {
        list_remove(&req->client->turn_link);
    }
    co_queue_next(&req->turn);
}

static NbdRequest *first_waiting(NbdClient *client)
{
    return list_empty(&client->turn_waiting)
               ? NULL
               : LIST_ENTRY(client->turn_waiting.next, NbdRequest, turn_link);
}

/* T2, T3.  Start what may start now. */
static void start_waiting(NbdTurns *turns)
{
    while (!list_empty(&turns->clients)) {
        NbdClient *client = LIST_ENTRY(turns->clients.next, NbdClient,
                                       turn_link);
        NbdRequest *req = first_waiting(client);

        if (client->turn_credit < cost_of(req)) {
            client->turn_credit += TURN_BYTES;
            list_remove(&client->turn_link);
            list_append(&turns->clients, &client->turn_link);
        } else if (fits(turns, req)) {
            client->turn_credit -= cost_of(req);
            start(turns, req);
            leave(req);
        } else {
            return;
        }
    }
}

static bool may_start(const NbdTurns *turns, const NbdRequest *req)
{
    return req->client->turn_working == 0 ||                /* T1 */
           (list_empty(&turns->clients) && fits(turns, req));
}

bool coroutine_fn nbd_turn_begin(NbdRequest *req)
{
    NbdClient *client = req->client;
    NbdTurns *turns = &client->e->turns;

    if (may_start(turns, req)) {
        start(turns, req);
        return false;
    }
    if (list_empty(&client->turn_waiting)) {
        client->turn_credit = TURN_BYTES;
        list_append(&turns->clients, &client->turn_link);
    }
    list_append(&client->turn_waiting, &req->turn_link);
    co_queue_init(&req->turn);
    co_queue_wait(&req->turn, NULL);
    return true;
}

void nbd_turn_end(NbdRequest *req)
{
    NbdClient *client = req->client;
    NbdTurns *turns = &client->e->turns;

    turns->nr_working--;
    turns->bytes_working -= req->charged;
    client->turn_working--;
    if (client->turn_working == 0 && first_waiting(client)) {
        NbdRequest *next = first_waiting(client);           /* T1 */

        start(turns, next);
        leave(next);
    }
    start_waiting(turns);
}

bool coroutine_fn nbd_turn_pass(NbdRequest *req)
{
    if (list_empty(&req->client->e->turns.clients)) {
        return false;
    }
    nbd_turn_end(req);
    return nbd_turn_begin(req);
}
