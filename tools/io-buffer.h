/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of one request of bg-io, and what is printed about it.
 */
#ifndef IO_BUFFER_H
#define IO_BUFFER_H

#include "tools/io-command.h"

/** The byte that writes fill with when no pattern is given. */
#define IO_BYTE_WRITE 0xcd

/** Memory of a request, perhaps in several pieces of one block. */
typedef struct IoBuffer {
    uint8_t *data;      /* the bytes; not aligned with -m */
    uint8_t *block;     /* what was allocated */
    int64_t bytes;
    struct iovec *pieces;
    BlockIOVec vec;
} IoBuffer;

/** What to say about a request that has ended. */
typedef struct IoReport {
    const char *verb;   /* "read", "wrote", "discard" */
    int64_t offset;
    int64_t bytes;
    int64_t begin_ns;   /* of tool_clock_ns() */
    bool quiet;         /* -q: nothing */
    bool machine;       /* -C: figures separated by commas */
} IoReport;

/**
 * Get memory for the lengths of @nr texts, a piece each.  Why it failed has
 * been printed.
 *
 * Returns 0 or a negative errno; free with io_buffer_clear().
 */
int io_buffer_parse(IoSession *io, IoBuffer *buffer, char **lengths, int nr);

/** Get memory of @bytes bytes in one piece; as io_buffer_parse(). */
int io_buffer_init(IoSession *io, IoBuffer *buffer, int64_t bytes);

/** Fill @buffer with the content of a file, again and again.  0 or < 0. */
int io_buffer_fill_from_file(IoBuffer *buffer, const char *filename);

/** Free what @buffer holds.  A zeroed buffer holds nothing. */
void io_buffer_clear(IoBuffer *buffer);

/**
 * Compare @bytes bytes of @buffer from @start on with @byte; prints if they
 * differ.
 *
 * @offset  of the buffer in the image, for the text
 *
 * Returns 0 or -EINVAL.
 */
int io_buffer_verify(const IoBuffer *buffer, int64_t start, int64_t bytes,
                     int byte, int64_t offset);

/** Print the statistics of a request that ends now. */
void io_report(const IoReport *report);

#endif /* IO_BUFFER_H */
