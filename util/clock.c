/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place where the library reads a clock of the system.
 */
#include "util/clock.h"

#include <glib.h>

int64_t clock_monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * CLOCK_NS_PER_SEC + ts.tv_nsec;
}

struct timespec clock_timespec(int64_t ns)
{
    g_assert(ns >= 0);
    return (struct timespec) {
        .tv_sec = ns / CLOCK_NS_PER_SEC,
        .tv_nsec = ns % CLOCK_NS_PER_SEC,
    };
}
