/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS over another channel.
 */
#ifndef UTIL_IO_CHANNEL_TLS_H
#define UTIL_IO_CHANNEL_TLS_H

#include "util/io-channel.h"
#include "util/tls-creds.h"

/**
 * Do the handshake of TLS over @lower, on the side that @creds are for.
 *
 * @lower  its reference goes to the new channel, also on failure; its limits
 *         of time hold for the handshake and are taken over
 * @host   clients: name of the server in its certificate
 *
 * Returns the channel, or NULL with @errp set.
 */
IoChannel *coroutine_fn io_channel_co_start_tls(IoChannel *lower,
                                                TlsCreds *creds,
                                                const char *host,
                                                GError **errp);

#endif /* UTIL_IO_CHANNEL_TLS_H */
