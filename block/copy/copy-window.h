/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many copies are under way at once: as few as are as fast as more.
 *
 * A target with a latency (a network, a long queue) needs many.  Where copies
 * are memory's own work, those above the number of processors only push each
 * other's data out of the processors' caches between the read and the write.
 * Nobody knows which of the two it is but by trying: latencies say little, as
 * they grow with what is under way in both cases and vary by themselves.
 *
 * So rounds are measured, and from time to time one has half as many copies or
 * twice as many; what was tried stays when it is as fast (half), or faster by
 * more than chance (twice).  The more tries fail in a row, the rarer they are.
 */
#ifndef BLOCK_COPY_COPY_WINDOW_H
#define BLOCK_COPY_COPY_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/** Fewer are not tried: one is read while another is written. */
#define COPY_WINDOW_WORKERS_MIN 2

/** One thread, that of the copies. */
typedef struct CopyWindow {
    unsigned workers;      /* how many there may be now */

    /* Private. */
    unsigned max;
    unsigned before;       /* what a try goes back to; 0: nothing is tried */
    bool wider;            /* what is tried, or will be next */
    unsigned rest;         /* rounds until the next try */
    unsigned patience;     /* that many after the next one that fails */
    double speed;          /* bytes a nanosecond, of @before or @workers */

    /* This round. */
    unsigned skip;         /* copies that began in the one before */
    unsigned copies;
    int64_t bytes;
    int64_t since_ns;
} CopyWindow;

/** Begin with @max workers, which are never exceeded; at least 1. */
void copy_window_init(CopyWindow *w, unsigned max);

/** A copy of @bytes has ended well, at @now_ns of any clock that only grows. */
void copy_window_done(CopyWindow *w, int64_t bytes, int64_t now_ns);

#endif /* BLOCK_COPY_COPY_WINDOW_H */
