/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where the library reads a clock of the system.
 */
#ifndef UTIL_CLOCK_H
#define UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_SEC INT64_C(1000000000)

/** Nanoseconds of CLOCK_MONOTONIC.  Thread: any. */
int64_t clock_monotonic_ns(void);

/** @ns (>= 0) as a timespec.  Thread: any. */
struct timespec clock_timespec(int64_t ns);

#endif /* UTIL_CLOCK_H */
