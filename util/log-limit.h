/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often one source may log.
 *
 * What a peer does must not fill a log, so whoever logs for it asks here first.
 * Pure: the caller brings the time.
 */
#ifndef UTIL_LOG_LIMIT_H
#define UTIL_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

/** Messages of one source in each second. */
#define LOG_LIMIT_PER_SEC 10

/** One source; all zeroes at first.  One thread at a time. */
typedef struct LogLimit {
    int64_t begin_ns;       /* of the second that is counted */
    unsigned nr;            /* messages in it */
    uint64_t nr_left_out;   /* since the last one that was let through */
} LogLimit;

/**
 * Whether the source may log at @now_ns, of a clock that never jumps.
 *
 * @ret_left_out  set if it may: how many messages since the last one were kept
 *                back
 */
bool log_limit_allows(LogLimit *limit, int64_t now_ns,
                      uint64_t *ret_left_out);

#endif /* UTIL_LOG_LIMIT_H */
