/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arithmetic of rate limits.
 */
#include "util/throttle.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"

/* Long enough for a timer that is set again when it fires. */
#define WAIT_NS_MAX (INT64_MAX / 4)

static const char *const limit_names[THROTTLE_LIMITS] = {
    [THROTTLE_BPS_TOTAL] = "bps-total",
    [THROTTLE_BPS_READ] = "bps-read",
    [THROTTLE_BPS_WRITE] = "bps-write",
    [THROTTLE_IOPS_TOTAL] = "iops-total",
    [THROTTLE_IOPS_READ] = "iops-read",
    [THROTTLE_IOPS_WRITE] = "iops-write",
};

#define LIMIT_FIELD(what_, field_)                                            \
    (offsetof(ThrottleConfig, limits) + (what_) * sizeof(ThrottleLimit) +     \
     offsetof(ThrottleLimit, field_))

#define LIMIT_OPTIONS(name_, what_, unit_)                                    \
    { .name = name_, .type = BLOCK_OPTION_NUMBER, .def = "0",                 \
      .min = 0, .max = THROTTLE_VALUE_MAX, .offset = LIMIT_FIELD(what_, avg), \
      .help = unit_ " a second in the long run; 0: no limit" },               \
    { .name = name_ "-max", .type = BLOCK_OPTION_NUMBER, .def = "0",          \
      .min = 0, .max = THROTTLE_VALUE_MAX, .offset = LIMIT_FIELD(what_, max), \
      .help = unit_ " a second in a burst; 0: no bursts" },                   \
    { .name = name_ "-max-length", .type = BLOCK_OPTION_NUMBER, .def = "1",   \
      .min = 1, .max = THROTTLE_VALUE_MAX,                                    \
      .offset = LIMIT_FIELD(what_, max_length),                               \
      .help = "seconds that a burst may last" }

const BlockOption throttle_config_options[] = {
    LIMIT_OPTIONS("bps-total", THROTTLE_BPS_TOTAL, "bytes"),
    LIMIT_OPTIONS("bps-read", THROTTLE_BPS_READ, "bytes read"),
    LIMIT_OPTIONS("bps-write", THROTTLE_BPS_WRITE, "bytes written"),
    LIMIT_OPTIONS("iops-total", THROTTLE_IOPS_TOTAL, "requests"),
    LIMIT_OPTIONS("iops-read", THROTTLE_IOPS_READ, "reads"),
    LIMIT_OPTIONS("iops-write", THROTTLE_IOPS_WRITE, "writes"),
    { .name = "iops-size", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = THROTTLE_VALUE_MAX,
      .offset = offsetof(ThrottleConfig, iops_size),
      .help = "bytes from which on a request counts as several; 0: never" },
    { .type = BLOCK_OPTION_END },
};

/* --- checks --------------------------------------------------------------- */

static int64_t burst_seconds(const ThrottleLimit *limit)
{
    return MAX(limit->max_length, 1);
}

static int check_limit(const ThrottleLimit *limit, const char *name,
                       GError **errp)
{
    if (limit->avg < 0 || limit->avg > THROTTLE_VALUE_MAX || limit->max < 0 ||
        limit->max > THROTTLE_VALUE_MAX || limit->max_length < 0) {
        return block_error(errp, EINVAL, "Limits '%s', '%s-max' and "
                           "'%s-max-length' must be from 0 to %"
                           G_GINT64_FORMAT, name, name, name,
                           THROTTLE_VALUE_MAX);
    }
    if (limit->max == 0 && limit->max_length > 1) {
        return block_error(errp, EINVAL, "Limit '%s-max-length' (%"
                           G_GINT64_FORMAT ") needs '%s-max'", name,
                           limit->max_length, name);
    }
    if (limit->max > 0 && limit->avg == 0) {
        return block_error(errp, EINVAL, "Limit '%s-max' (%" G_GINT64_FORMAT
                           ") needs '%s'", name, limit->max, name);
    }
    if (limit->max > 0 && limit->max < limit->avg) {
        return block_error(errp, EINVAL, "Limit '%s-max' (%" G_GINT64_FORMAT
                           ") must not be below '%s' (%" G_GINT64_FORMAT ")",
                           name, limit->max, name, limit->avg);
    }
    if (limit->max > 0 &&
        burst_seconds(limit) > THROTTLE_VALUE_MAX / limit->max) {
        return block_error(errp, EINVAL, "Limit '%s-max-length' (%"
                           G_GINT64_FORMAT ") is too long for '%s-max' (%"
                           G_GINT64_FORMAT ")", name, limit->max_length, name,
                           limit->max);
    }
    return 0;
}

/* A limit of the total excludes limits of reads and writes alone. */
static int check_total(const ThrottleConfig *config, ThrottleWhat total,
                       GError **errp)
{
    for (int what = total + 1; what <= (int)total + 2; what++) {
        if (config->limits[total].avg && config->limits[what].avg) {
            return block_error(errp, EINVAL, "Limits '%s' and '%s' cannot be "
                               "used together", limit_names[total],
                               limit_names[what]);
        }
    }
    return 0;
}

int throttle_check_config(const ThrottleConfig *config, GError **errp)
{
    bool limits_iops = false;

    for (int what = 0; what < THROTTLE_LIMITS; what++) {
        if (check_limit(&config->limits[what], limit_names[what], errp) < 0) {
            return -EINVAL;
        }
        limits_iops |= what >= THROTTLE_IOPS_TOTAL && config->limits[what].avg;
    }
    if (config->iops_size < 0 || config->iops_size > THROTTLE_VALUE_MAX) {
        return block_error(errp, EINVAL, "Limit 'iops-size' (%"
                           G_GINT64_FORMAT ") must be from 0 to %"
                           G_GINT64_FORMAT, config->iops_size,
                           THROTTLE_VALUE_MAX);
    }
    if (config->iops_size > 0 && !limits_iops) {
        return block_error(errp, EINVAL, "Limit 'iops-size' (%"
                           G_GINT64_FORMAT ") needs a limit of requests a "
                           "second", config->iops_size);
    }
    if (check_total(config, THROTTLE_BPS_TOTAL, errp) < 0) {
        return -EINVAL;
    }
    return check_total(config, THROTTLE_IOPS_TOTAL, errp);
}

/* --- buckets -------------------------------------------------------------- */

void throttle_configure(Throttle *t, const ThrottleConfig *config,
                        int64_t now_ns)
{
    memset(t, 0, sizeof(*t));
    t->config = *config;
    t->leaked_ns = now_ns;
}

bool throttle_is_limited(const Throttle *t)
{
    for (int what = 0; what < THROTTLE_LIMITS; what++) {
        if (t->config.limits[what].avg) {
            return true;
        }
    }
    return false;
}

static void leak(ThrottleLevel *level, int64_t rate, int64_t ns)
{
    ThrottleLevel out = (ThrottleLevel)rate * ns;

    *level = *level > out ? *level - out : 0;
}

static void throttle_leak(Throttle *t, int64_t now_ns)
{
    int64_t ns = now_ns - t->leaked_ns;

    if (now_ns <= t->leaked_ns) {
        return;
    }
    t->leaked_ns = now_ns;
    for (int what = 0; what < THROTTLE_LIMITS; what++) {
        leak(&t->buckets[what].level, t->config.limits[what].avg, ns);
        leak(&t->buckets[what].burst, t->config.limits[what].max, ns);
    }
}

/* Nanoseconds until @level, emptied at @rate, is down at @brim. */
static int64_t until(ThrottleLevel level, ThrottleLevel brim, int64_t rate)
{
    ThrottleLevel ns;

    if (level <= brim) {
        return 0;
    }
    ns = (level - brim + rate - 1) / rate;
    return MIN(ns, (ThrottleLevel)WAIT_NS_MAX);
}

static int64_t bucket_wait_ns(const ThrottleLimit *limit,
                              const ThrottleBucket *bucket)
{
    const ThrottleLevel tenth = CLOCK_NS_PER_SEC / 10;
    ThrottleLevel brim = limit->avg * tenth;
    int64_t wait;

    if (limit->avg == 0) {
        return 0;
    }
    if (limit->max > 0) {
        brim = (ThrottleLevel)limit->max * burst_seconds(limit) *
               CLOCK_NS_PER_SEC;
    }
    wait = until(bucket->level, brim, limit->avg);
    if (wait == 0 && limit->max > 0 && burst_seconds(limit) > 1) {
        wait = until(bucket->burst, limit->max * tenth, limit->max);
    }
    return wait;
}

/* Whether the limit @what concerns a request. */
static bool concerns(int what, bool write)
{
    switch (what) {
    case THROTTLE_BPS_READ:
    case THROTTLE_IOPS_READ:
        return !write;
    case THROTTLE_BPS_WRITE:
    case THROTTLE_IOPS_WRITE:
        return write;
    default:
        return true;
    }
}

int64_t throttle_wait_ns(Throttle *t, bool write, int64_t now_ns)
{
    int64_t wait = 0;

    throttle_leak(t, now_ns);
    for (int what = 0; what < THROTTLE_LIMITS; what++) {
        if (concerns(what, write)) {
            wait = MAX(wait, bucket_wait_ns(&t->config.limits[what],
                                            &t->buckets[what]));
        }
    }
    return wait;
}

void throttle_account(Throttle *t, bool write, int64_t bytes)
{
    int64_t size = t->config.iops_size;
    ThrottleLevel bps = (ThrottleLevel)bytes * CLOCK_NS_PER_SEC;
    ThrottleLevel iops = size > 0 && bytes > size ? bps / size
                                                  : CLOCK_NS_PER_SEC;

    g_assert(bytes >= 0);
    for (int what = 0; what < THROTTLE_LIMITS; what++) {
        ThrottleLevel units = what < THROTTLE_IOPS_TOTAL ? bps : iops;

        if (t->config.limits[what].avg && concerns(what, write)) {
            t->buckets[what].level += units;
            t->buckets[what].burst += units;
        }
    }
}
