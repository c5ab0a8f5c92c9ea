/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups: limits on the rate of requests, shared by several nodes.
 *
 * A group belongs to a graph and has a name.  Nodes of the driver "throttle"
 * become its members by the option "throttle-group"; what the limits allow is
 * given to the members in turn.
 *
 * All functions run in the thread of the graph's main context.
 */
#ifndef BLOCKGRAPH_THROTTLE_H
#define BLOCKGRAPH_THROTTLE_H

#include <blockgraph/block.h>

G_BEGIN_DECLS

/** What is limited: bytes or requests a second. */
typedef enum ThrottleWhat {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE_LIMITS,
} ThrottleWhat;

/** Largest rate, and largest burst (max times max_length). */
#define THROTTLE_VALUE_MAX INT64_C(1000000000000000)

/** One limit.  All zero: none. */
typedef struct ThrottleLimit {
    int64_t avg;        /* units a second in the long run; 0: no limit */
    int64_t max;        /* units a second in a burst; 0: no bursts */
    int64_t max_length; /* seconds that a burst may last; 0 means 1 */
} ThrottleLimit;

/** The limits of a group. */
typedef struct ThrottleConfig {
    ThrottleLimit limits[THROTTLE_LIMITS];
    int64_t iops_size; /* a larger request counts as several; 0: as one */
} ThrottleConfig;

/** A config as options: iops-total, iops-total-max, bps-read, iops-size ... */
BLOCK_API extern const BlockOption throttle_config_options[];

typedef struct ThrottleGroup ThrottleGroup;

/**
 * Make a group in @graph.
 *
 * @config  its limits; NULL: none
 *
 * Returns the group with one reference for the caller, or NULL with @errp set
 * (the name is taken or empty, the limits make no sense).
 */
BLOCK_API ThrottleGroup *throttle_group_new(BlockGraph *graph,
                                            const char *name,
                                            const ThrottleConfig *config,
                                            GError **errp);

/** The group of that name, or NULL; no reference is taken. */
BLOCK_API ThrottleGroup *throttle_group_find(BlockGraph *graph,
                                             const char *name);

/** Take one more reference.  Returns @group. */
BLOCK_API ThrottleGroup *throttle_group_ref(ThrottleGroup *group);

/**
 * Drop a reference.  Each member has one, so a group lives as long as it is
 * used; with the last one its name is free.  NULL is ignored.
 */
BLOCK_API void throttle_group_unref(ThrottleGroup *group);

/** The name of @group.  Owned by the group. */
BLOCK_API const char *throttle_group_name(const ThrottleGroup *group);

/**
 * Change the limits, at once also for requests that wait.  What was used up
 * before is forgotten.
 *
 * Returns 0, or -EINVAL with @errp set and nothing changed.
 */
BLOCK_API int throttle_group_set_config(ThrottleGroup *group,
                                        const ThrottleConfig *config,
                                        GError **errp);

/** Copy the limits to @config. */
BLOCK_API void throttle_group_get_config(ThrottleGroup *group,
                                         ThrottleConfig *config);

/** How many requests of all members wait now. */
BLOCK_API unsigned throttle_group_nr_waiting(ThrottleGroup *group);

G_END_DECLS

#endif /* BLOCKGRAPH_THROTTLE_H */
