/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection, from its first byte to its last.
 *
 *    accepted            GO                    end of stream
 *   ---------> HANDSHAKE ----> SERVING --------------------> gone
 *                  |                                          ^
 *                  +---- deadline, abort, error, dropped -----+
 */
#include "block/export/nbd-int.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

void nbd_client_cut_off(NbdClient *client)
{
    atomic_store(&client->cut_off, true);
    if (client->socket) {
        aio_socket_hang_up(client->socket);
    }
}

/* Whether the connection may be at all.  Who is turned away learns nothing, so
 * the log has the reason. */
static bool check_peer(const NbdServer *server, const IoChannelPeer *peer)
{
    int64_t nr = 0;

    if (peer->has_uid && !server->any_uid && peer->uid != geteuid() &&
        peer->uid != 0) {
        g_warning("NBD server: a connection of %s is refused: only this user "
                  "and root may connect", peer->name);
        return false;
    }
    LIST_FOREACH(link, &server->clients) {
        NbdClient *other = LIST_ENTRY(link, NbdClient, link);

        nr += other->counted && g_str_equal(other->peer, peer->name);
    }
    if (server->max_per_peer && nr >= server->max_per_peer) {
        g_warning("NBD server: a connection of %s is refused: it has %"
                  G_GINT64_FORMAT ", as many as 'max-connections-per-peer' "
                  "allows", peer->name, nr);
        return false;
    }
    return true;
}

/* It does not count any more: it is going, or is being dropped. */
static void uncount(NbdClient *client)
{
    NbdServer *server = client->server;

    if (!client->counted) {
        return;
    }
    client->counted = false;
    server->nr_clients--;
    if (client->in_handshake) {
        server->nr_handshakes--;
    }
    co_queue_restart_all(&server->changed);
}

/* The handshakes may take half of the places; then the oldest goes. */
static void make_place(NbdServer *server)
{
    int64_t max = server->max_connections;

    if (!max || (server->nr_handshakes < (max + 1) / 2 &&
                 server->nr_clients < max)) {
        return;
    }
    LIST_FOREACH(link, &server->clients) {
        NbdClient *client = LIST_ENTRY(link, NbdClient, link);

        if (client->counted && client->in_handshake) {
            nbd_client_cut_off(client);
            uncount(client);
            return;
        }
    }
}

static int coroutine_fn handshake(NbdClient *client)
{
    IoChannel *channel = client->channel;
    NbdServer *server = client->server;
    int64_t now_ns = aio_clock_ns(aio_get_current());
    int ret;

    channel->read_deadline_ns = now_ns + server->handshake_ns;
    channel->write_patience_ns = server->handshake_ns;
    ret = nbd_negotiate(client);
    if (ret <= 0 || !client->counted || server->stopping ||
        client->e->exp.shutting_down) {
        return ret < 0 ? ret : 0;
    }
    client->in_handshake = false;
    server->nr_handshakes--;
    server->nr_served++;
    client->channel->read_deadline_ns = AIO_NO_DEADLINE;
    client->channel->write_patience_ns = server->patience_ns;
    return 1;
}

static void coroutine_fn client_end(NbdClient *client)
{
    NbdServer *server = client->server;

    uncount(client);
    client->socket = NULL;
    io_channel_unref(client->channel);
    if (client->e) {
        client->e->nr_clients--;
        export_co_unref(&client->e->exp);
    }
    list_remove(&client->link);
    co_queue_restart_all(&server->changed);
    g_free(client);
}

static void coroutine_fn client_entry(void *opaque)
{
    NbdClient *client = opaque;
    AioContext *main_ctx = aio_get_current();

    if (handshake(client) > 0) {
        aio_co_reschedule_self(client->e->exp.ctx);             /* N3 */
        nbd_serve(client);
        aio_co_reschedule_self(main_ctx);
    }
    client_end(client);
}

void nbd_client_start(NbdServer *server, int fd)
{
    IoChannel *channel = io_channel_new_socket(fd);
    NbdClient *client;
    IoChannelPeer peer;

    io_channel_get_peer(channel, &peer);
    if (!check_peer(server, &peer)) {
        io_channel_unref(channel);
        return;
    }
    io_channel_watch_peer(channel, NBD_PEER_TIMEOUT_S);
    make_place(server);
    client = g_new0(NbdClient, 1);
    client->server = server;
    client->channel = channel;
    client->socket = channel->socket;
    client->in_handshake = true;
    client->counted = true;
    g_strlcpy(client->peer, peer.name, sizeof(client->peer));
    server->nr_clients++;
    server->nr_handshakes++;
    list_append(&server->clients, &client->link);
    aio_co_enter(aio_get_current(), coroutine_create(client_entry, client));
}
