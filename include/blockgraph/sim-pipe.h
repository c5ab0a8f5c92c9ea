/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte pipes in memory, for protocol code: two ends, each a stream in both
 * directions, with the manners of a bad network.
 */
#ifndef BLOCKGRAPH_SIM_PIPE_H
#define BLOCKGRAPH_SIM_PIPE_H

#include <blockgraph/sim.h>

G_BEGIN_DECLS

/** One end.  Lives until bgsim_free(). */
typedef struct BgSimPipe BgSimPipe;

/** How the bytes travel; zeroed, everything has its default. */
typedef struct BgSimPipeConfig {
    size_t capacity;           /* bytes under way in one direction; 0: 64 KiB */
    int64_t min_delay_ns;      /* 0: 1 us */
    int64_t max_delay_ns;      /* 0: 50 us; order is kept */
    unsigned segment_permille; /* a read or write moves only a part */
    unsigned reset_permille;   /* a write resets the connection */
} BgSimPipeConfig;

/** Make a connection: its two ends. */
BLOCK_API void bgsim_pipe_new(BgSim *sim, const char *name,
                              const BgSimPipeConfig *config,
                              BgSimPipe *ret_ends[2]);

/**
 * Read 1 to @bytes bytes; waits for the first.  Returns how many, 0 at the end
 * of the stream, -ECONNRESET after a reset.
 */
BLOCK_API ssize_t coroutine_fn bgsim_pipe_read(BgSimPipe *pipe, void *buf,
                                               size_t bytes);

/**
 * Write 1 to @bytes bytes; waits while the pipe is full.  Returns how many,
 * -EPIPE when the other end reads no more, -ECONNRESET after a reset.
 */
BLOCK_API ssize_t coroutine_fn bgsim_pipe_write(BgSimPipe *pipe,
                                                const void *buf, size_t bytes);

/** No more bytes will come from this end: half-close.  Any context. */
BLOCK_API void bgsim_pipe_shutdown(BgSimPipe *pipe);

/** Tear the connection down: both ends see -ECONNRESET, bytes are lost. */
BLOCK_API void bgsim_pipe_reset(BgSimPipe *pipe);

/** Close this end: the other reads to the end, and its writes break. */
BLOCK_API void bgsim_pipe_close(BgSimPipe *pipe);

G_END_DECLS

#endif /* BLOCKGRAPH_SIM_PIPE_H */
