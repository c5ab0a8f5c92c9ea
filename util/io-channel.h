/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * IoChannel: a stream of bytes between two sides, whatever carries it.
 *
 * One coroutine may read while another writes, both in the same thread; a
 * channel on which nobody waits can go on in another thread.
 */
#ifndef UTIL_IO_CHANNEL_H
#define UTIL_IO_CHANNEL_H

#include "util/aio-socket.h"

typedef struct IoChannel IoChannel;

/** What a kind of channel does. */
typedef struct IoChannelOps {
    /** As io_channel_readv(). */
    int64_t coroutine_fn (*channel_readv)(IoChannel *c,
                                          const struct iovec *iov, int niov,
                                          int64_t deadline_ns);
    /** Write some of the bytes, at least one; as io_channel_readv() else. */
    int64_t coroutine_fn (*channel_writev)(IoChannel *c,
                                           const struct iovec *iov, int niov,
                                           int64_t deadline_ns);
    /** As io_channel_shutdown(). */
    void (*shut)(IoChannel *c);
    /** Free what the kind owns. */
    void (*destroy)(IoChannel *c);
} IoChannelOps;

struct IoChannel {
    /* Set when it is made, never changed after. */
    const IoChannelOps *ops;
    AioSocket *socket;          /* what carries it in the end; not owned */
    char *identity;             /* who the peer has proved to be, or NULL */

    /* Touched by the thread that uses the channel. */
    unsigned refs;
    int64_t read_deadline_ns;   /* AIO_NO_DEADLINE at first */
    int64_t write_patience_ns;  /* 0: without limit */
};

/** Who is at the other end. */
typedef struct IoChannelPeer {
    bool has_uid;               /* a unix socket: the system vouches for it */
    uid_t uid;
    pid_t pid;
    bool is_loopback;           /* on this machine */
    char name[64];              /* "uid 1000", "192.168.0.7": no port */
} IoChannelPeer;

/** A channel over the connected socket @fd, which is taken over. */
IoChannel *io_channel_new_socket(int fd);

/** tcp_watch_peer() of its socket.  Thread: any. */
void io_channel_watch_peer(IoChannel *c, unsigned timeout_s);

/** For kinds of channels: fill in @c, with one reference. */
void io_channel_init(IoChannel *c, const IoChannelOps *ops, AioSocket *socket);

/** Take one more reference.  Returns @c. */
IoChannel *io_channel_ref(IoChannel *c);

/** Drop a reference; the last one closes.  Nobody waits.  NULL is ignored. */
void io_channel_unref(IoChannel *c);

/**
 * Read what is there, at least one byte.  Returns the number of bytes, 0 at the
 * end of the stream, or a negative errno: -ETIMEDOUT (c->read_deadline_ns),
 * -ESHUTDOWN (io_channel_shutdown()), or what the system says.
 */
int64_t coroutine_fn io_channel_readv(IoChannel *c, const struct iovec *iov,
                                      int niov);

/** io_channel_readv() into one buffer. */
int64_t coroutine_fn io_channel_read(IoChannel *c, void *buf, size_t bytes);

/**
 * Read exactly @bytes bytes.  Returns 0 or a negative errno: -ENODATA when the
 * stream ends before the first one, -ECONNRESET when it ends later.
 */
int coroutine_fn io_channel_read_all(IoChannel *c, void *buf, size_t bytes);

/**
 * Write all bytes of the @niov pieces at @iov, which is used up: the pieces are
 * changed.  The peer has c->write_patience_ns to take 64 KiB, or the rest.
 *
 * Returns 0 or a negative errno, as io_channel_readv(); some bytes may have
 * been written then.
 */
int coroutine_fn io_channel_writev_all(IoChannel *c, struct iovec *iov,
                                       int niov);

/** io_channel_writev_all() of one buffer. */
int coroutine_fn io_channel_write_all(IoChannel *c, const void *buf,
                                      size_t bytes);

/**
 * End the stream in both directions: who waits, and every later call, gets an
 * error.  Thread: the one that uses @c.
 */
void io_channel_shutdown(IoChannel *c);

/** Say who the peer is.  Thread: any. */
void io_channel_get_peer(const IoChannel *c, IoChannelPeer *ret);

#endif /* UTIL_IO_CHANNEL_H */
