/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a throttle node does with its group.
 */
#ifndef BLOCK_FILTERS_THROTTLE_GROUP_H
#define BLOCK_FILTERS_THROTTLE_GROUP_H

#include <blockgraph/throttle.h>

#include "util/list.h"

/** A node in a group.  Fields belong to throttle-group.c. */
typedef struct ThrottleMember {
    /* Changed by the main context while no request can come. */
    ThrottleGroup *group;

    /* Guarded by the group's lock. */
    ListHead group_link;
    ListHead waiting[2]; /* requests; reads and writes apart, by age */
    bool drained;        /* requests are counted, but do not wait */
} ThrottleMember;

/** Make @member one of @group, which gets a reference.  Main context. */
void throttle_member_join(ThrottleMember *member, ThrottleGroup *group);

/** End that; no request waits.  Main context. */
void throttle_member_leave(ThrottleMember *member);

/** Wait until a request of @bytes may go.  Any thread. */
void coroutine_fn throttle_member_wait(ThrottleMember *member, bool write,
                                       int64_t bytes);

/**
 * With @drained, let all waiting requests go now, and none wait from now on.
 * Main context; does not yield.
 */
void throttle_member_set_drained(ThrottleMember *member, bool drained);

/** A clock for tests: nanoseconds. */
typedef int64_t ThrottleClock(void);

/** For tests: tell time by @clock instead of that of the event loop. */
void throttle_group_set_clock(ThrottleGroup *group, ThrottleClock *clock);

/** Look again what may go, as if a timer had fired.  Any thread. */
void throttle_group_kick(ThrottleGroup *group);

#endif /* BLOCK_FILTERS_THROTTLE_GROUP_H */
