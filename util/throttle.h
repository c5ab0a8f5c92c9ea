/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arithmetic of rate limits: leaky buckets.
 *
 * Each limit is a bucket that requests fill and time empties at the rate
 * "avg".  A request may go while no bucket that concerns it is over its brim;
 * then it fills them, if need be over the brim, so requests of any size pass.
 * Without "max" a bucket holds 100 ms of "avg".  With "max" it holds a burst of
 * "max_length" seconds; if that is more than one second, a second bucket, which
 * empties at the rate "max" and holds 100 ms of it, bounds the rate in the
 * burst.
 *
 * Levels are whole numbers of units times nanoseconds: nothing is rounded, so
 * however often the buckets are looked at, the rate is the same.  No clock, no
 * lock: the caller says what time it is and lets in one thread at a time.
 */
#ifndef UTIL_THROTTLE_H
#define UTIL_THROTTLE_H

#include <blockgraph/throttle.h>

/** A number of units times nanoseconds, up to 1e15 units for 2^63 ns. */
typedef unsigned __int128 ThrottleLevel;

typedef struct ThrottleBucket {
    ThrottleLevel level; /* against avg */
    ThrottleLevel burst; /* against max, where max_length is above 1 */
} ThrottleBucket;

typedef struct Throttle {
    ThrottleConfig config;
    ThrottleBucket buckets[THROTTLE_LIMITS];
    int64_t leaked_ns; /* when the buckets were brought up to date */
} Throttle;

/** Check that @config makes sense.  -EINVAL with @errp naming the option. */
int throttle_check_config(const ThrottleConfig *config, GError **errp);

/** Empty the buckets and limit as @config, which was checked, says. */
void throttle_configure(Throttle *t, const ThrottleConfig *config,
                        int64_t now_ns);

/** Whether @t limits anything. */
bool throttle_is_limited(const Throttle *t);

/**
 * How many nanoseconds a request that comes at @now_ns has to wait; 0: it may
 * go.  Time that runs backwards counts as standing still.
 */
int64_t throttle_wait_ns(Throttle *t, bool write, int64_t now_ns);

/** A request of @bytes goes. */
void throttle_account(Throttle *t, bool write, int64_t bytes);

#endif /* UTIL_THROTTLE_H */
