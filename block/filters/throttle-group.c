/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups: who may go next, and who waits for it.
 *
 * Reads and writes wait apart.  In each direction one waiting request is the
 * head: it alone has a timer, in its own thread, set to when the limits let it
 * go.  Whoever looks (the head whose time has come, a request that arrives
 * while others wait, a change of limits) lets go all that may go now, reads and
 * writes in turn, and wakes them and the new heads in their threads.
 *
 * G1  A request goes without waiting only while nobody waits.
 * G2  While requests wait in a direction it has a head, and a request is woken
 *     when it becomes that, so it has a timer.  The timer never fires too late:
 *     what others use up only makes the wait longer, and new limits begin with
 *     empty buckets, so the head goes when they are set.  Too early does no
 *     harm: it looks again.
 * G3  The head stays head until it goes.  The next one is the oldest request
 *     of the next member in the circle.  So of n members that wait each gets
 *     every n-th turn, whatever it sends.
 * G4  A request is woken by the one who sets "asleep" back, under the lock; so
 *     it is woken once for each time it sleeps, from whatever thread.
 */
#include "block/filters/throttle-group.h"

#include <errno.h>
#include <string.h>

#include "block/graph/graph-int.h"
#include "util/lock.h"
#include "util/throttle.h"

/* A request that waits; on the stack of its coroutine. */
typedef struct ThrottleRequest {
    /* Set by the request. */
    Coroutine *co;
    ThrottleMember *member;
    int64_t bytes;
    bool write;

    /* Guarded by the group's lock. */
    ListHead link;      /* in member->waiting, until it may go */
    ListHead wake_link; /* in the list of somebody who wakes it */
    bool may_go;
    bool asleep;        /* yields or is about to; see G4 */
} ThrottleRequest;

struct ThrottleGroup {
    /* Set by throttle_group_new(). */
    BlockGraph *graph;
    char *name;
    ThrottleClock *clock; /* NULL: of the event loop */

    /* Main context. */
    ListHead graph_link;
    unsigned refs;

    /* Any thread. */
    _Atomic bool limited; /* whether there are limits at all */

    /* Guarded by @lock. */
    Lock lock;
    Throttle throttle;
    ListHead members;         /* ThrottleMember.group_link: the circle */
    unsigned nr_waiting[2];
    ThrottleRequest *head[2]; /* G2 */
    ThrottleMember *last[2];  /* who had the last turn, or NULL */
    bool write_is_next;       /* whose turn it is when both may go */
};

static int64_t group_now(ThrottleGroup *group)
{
    AioContext *ctx = aio_get_current();

    if (group->clock) {
        return group->clock();
    }
    return aio_clock_ns(ctx ? ctx : block_graph_aio_context(group->graph));
}

/* --- who goes next; all under the lock ------------------------------------ */

static void wake_later_locked(ThrottleRequest *req, ListHead *wake)
{
    if (req->asleep) {
        req->asleep = false;                                    /* G4 */
        list_append(wake, &req->wake_link);
    }
}

static void let_go_locked(ThrottleGroup *group, ThrottleRequest *req,
                          ListHead *wake)
{
    throttle_account(&group->throttle, req->write, req->bytes);
    list_remove(&req->link);
    g_assert(group->nr_waiting[req->write] > 0);
    group->nr_waiting[req->write]--;
    if (group->head[req->write] == req) {
        group->head[req->write] = NULL;
    }
    req->may_go = true;
    wake_later_locked(req, wake);
}

/* The next member in the circle, after @member or from the start. */
static ThrottleMember *next_member_locked(ThrottleGroup *group,
                                          ThrottleMember *member)
{
    ListHead *link = member ? member->group_link.next : group->members.next;

    if (link == &group->members) {
        link = link->next;
    }
    return LIST_ENTRY(link, ThrottleMember, group_link);
}

/* G3: the head, after choosing one if there is none; NULL if nobody waits. */
static ThrottleRequest *head_locked(ThrottleGroup *group, bool write)
{
    ThrottleMember *member = group->last[write];

    if (group->head[write] || group->nr_waiting[write] == 0) {
        return group->head[write];
    }
    do {
        member = next_member_locked(group, member);
    } while (list_empty(&member->waiting[write]));
    group->last[write] = member;
    group->head[write] = LIST_ENTRY(member->waiting[write].next,
                                    ThrottleRequest, link);
    return group->head[write];
}

/* Let one request of a direction go, if there is one that may. */
static bool try_one_locked(ThrottleGroup *group, bool write, int64_t now,
                           ListHead *wake)
{
    ThrottleRequest *req = head_locked(group, write);

    if (!req || throttle_wait_ns(&group->throttle, write, now) > 0) {
        return false;
    }
    let_go_locked(group, req, wake);
    group->write_is_next = !write;
    return true;
}

static void dispatch_locked(ThrottleGroup *group, int64_t now, ListHead *wake)
{
    ThrottleRequest *before[2] = { group->head[0], group->head[1] };

    while (try_one_locked(group, group->write_is_next, now, wake) ||
           try_one_locked(group, !group->write_is_next, now, wake)) {
        continue;
    }
    for (unsigned dir = 0; dir < 2; dir++) {
        ThrottleRequest *req = head_locked(group, dir);

        if (req && req != before[dir]) {
            wake_later_locked(req, wake); /* to set its timer */
        }
    }
}

/* Wake those in @wake; without the lock, for they may run at once. */
static void wake_all(ListHead *wake)
{
    while (!list_empty(wake)) {
        ThrottleRequest *req = LIST_ENTRY(wake->next, ThrottleRequest,
                                          wake_link);

        list_remove(&req->wake_link);
        aio_co_wake(req->co); /* @req may be gone from here on */
    }
}

/* --- waiting -------------------------------------------------------------- */

static void look_again(void *opaque)
{
    ThrottleRequest *req = opaque;
    ThrottleGroup *group = req->member->group;
    ListHead wake;

    list_init(&wake);
    WITH_LOCK(&group->lock) {
        wake_later_locked(req, &wake);
    }
    wake_all(&wake);
}

/*
 * One look at what may go.  Returns whether @req is among it; else @req counts
 * as asleep when this returns, and @ret_wait says when it must look again if
 * nobody wakes it before (-1: it need not).
 */
static bool look(ThrottleGroup *group, ThrottleRequest *req, int64_t *ret_wait)
{
    int64_t now = group_now(group);
    bool may_go = false;
    ListHead wake;

    list_init(&wake);
    *ret_wait = -1;
    WITH_LOCK(&group->lock) {
        dispatch_locked(group, now, &wake);
        may_go = req->may_go;
        req->asleep = !may_go;
        if (group->head[req->write] == req) {
            *ret_wait = throttle_wait_ns(&group->throttle, req->write, now);
        }
    }
    wake_all(&wake);
    return may_go;
}

static void coroutine_fn wait_for_turn(ThrottleGroup *group,
                                       ThrottleRequest *req)
{
    AioTimer *timer = NULL;
    AioContext *ctx = aio_get_current();
    int64_t wait;

    while (!look(group, req, &wait)) {
        if (wait >= 0) {
            timer = timer ? timer : aio_timer_new(ctx, look_again, req);
            aio_timer_set(timer, aio_clock_ns(ctx) + wait);
        }
        SIM_WAITS("its turn in throttle group", group);
        coroutine_yield();
        if (timer) {
            aio_timer_cancel(timer);
        }
    }
    aio_timer_free(timer);
}

void coroutine_fn throttle_member_wait(ThrottleMember *member, bool write,
                                       int64_t bytes)
{
    ThrottleGroup *group = member->group;
    ThrottleRequest req = { .co = coroutine_self(), .member = member,
                            .bytes = bytes, .write = write };
    int64_t now;

    if (!atomic_load_explicit(&group->limited, memory_order_relaxed)) {
        return;
    }
    now = group_now(group);
    WITH_LOCK(&group->lock) {
        bool waits = group->nr_waiting[0] + group->nr_waiting[1] > 0;

        if (member->drained ||
            (!waits && throttle_wait_ns(&group->throttle, write, now) == 0)) {
            throttle_account(&group->throttle, write, bytes);   /* G1 */
            return;
        }
        list_init(&req.wake_link);
        list_append(&member->waiting[write], &req.link);
        group->nr_waiting[write]++;
    }
    wait_for_turn(group, &req);
}

void throttle_group_kick(ThrottleGroup *group)
{
    int64_t now = group_now(group);
    ListHead wake;

    list_init(&wake);
    WITH_LOCK(&group->lock) {
        dispatch_locked(group, now, &wake);
    }
    wake_all(&wake);
}

/* --- members -------------------------------------------------------------- */

void throttle_member_join(ThrottleMember *member, ThrottleGroup *group)
{
    member->group = throttle_group_ref(group);
    list_init(&member->waiting[0]);
    list_init(&member->waiting[1]);
    LOCK_GUARD(&group->lock);
    list_append(&group->members, &member->group_link);
}

void throttle_member_leave(ThrottleMember *member)
{
    ThrottleGroup *group = member->group;

    WITH_LOCK(&group->lock) {
        g_assert(list_empty(&member->waiting[0]));
        g_assert(list_empty(&member->waiting[1]));
        for (unsigned dir = 0; dir < 2; dir++) {
            if (group->last[dir] == member) {
                /* The one before, so that the next one stays the next. */
                ListHead *before = member->group_link.prev;

                group->last[dir] = before == &group->members ? NULL :
                    LIST_ENTRY(before, ThrottleMember, group_link);
            }
        }
        list_remove(&member->group_link);
    }
    member->group = NULL;
    throttle_group_unref(group);
}

static void let_all_go_locked(ThrottleMember *member, ListHead *wake)
{
    for (unsigned dir = 0; dir < 2; dir++) {
        while (!list_empty(&member->waiting[dir])) {
            let_go_locked(member->group,
                          LIST_ENTRY(member->waiting[dir].next,
                                     ThrottleRequest, link), wake);
        }
    }
}

void throttle_member_set_drained(ThrottleMember *member, bool drained)
{
    ThrottleGroup *group = member->group;
    ListHead wake;

    list_init(&wake);
    WITH_LOCK(&group->lock) {
        member->drained = drained;
        if (drained) {
            let_all_go_locked(member, &wake);
        }
    }
    wake_all(&wake);
    /* A head may have gone: others need a new one. */
    throttle_group_kick(group);
}

/* --- groups --------------------------------------------------------------- */

ThrottleGroup *throttle_group_find(BlockGraph *graph, const char *name)
{
    LIST_FOREACH(link, &graph->throttle_groups) {
        ThrottleGroup *group = LIST_ENTRY(link, ThrottleGroup, graph_link);

        if (strcmp(group->name, name) == 0) {
            return group;
        }
    }
    return NULL;
}

ThrottleGroup *throttle_group_new(BlockGraph *graph, const char *name,
                                  const ThrottleConfig *config, GError **errp)
{
    static const ThrottleConfig no_limits;
    g_autoptr(GError) error = NULL;
    ThrottleGroup *group;

    config = config ? config : &no_limits;
    if (name[0] == '\0') {
        block_error(errp, EINVAL, "A throttle group needs a name");
        return NULL;
    }
    if (throttle_group_find(graph, name)) {
        block_error(errp, EEXIST, "Throttle group '%s' exists already", name);
        return NULL;
    }
    if (throttle_check_config(config, &error) < 0) {
        block_error(errp, EINVAL, "Throttle group '%s': %s", name,
                    error->message);
        return NULL;
    }
    group = g_new0(ThrottleGroup, 1);
    group->graph = graph;
    group->name = g_strdup(name);
    group->refs = 1;
    lock_init(&group->lock, LOCK_RANK_DRIVER);
    list_init(&group->members);
    throttle_configure(&group->throttle, config, group_now(group));
    atomic_init(&group->limited, throttle_is_limited(&group->throttle));
    list_append(&graph->throttle_groups, &group->graph_link);
    return group;
}

ThrottleGroup *throttle_group_ref(ThrottleGroup *group)
{
    g_assert(group->refs > 0);
    group->refs++;
    return group;
}

void throttle_group_unref(ThrottleGroup *group)
{
    if (!group || --group->refs > 0) {
        return;
    }
    g_assert(list_empty(&group->members));
    list_remove(&group->graph_link);
    g_free(group->name);
    g_free(group);
}

const char *throttle_group_name(const ThrottleGroup *group)
{
    return group->name;
}

int throttle_group_set_config(ThrottleGroup *group,
                              const ThrottleConfig *config, GError **errp)
{
    g_autoptr(GError) error = NULL;
    int64_t now = group_now(group);

    if (throttle_check_config(config, &error) < 0) {
        return block_error(errp, EINVAL, "Throttle group '%s': %s",
                           group->name, error->message);
    }
    WITH_LOCK(&group->lock) {
        throttle_configure(&group->throttle, config, now);
        atomic_store_explicit(&group->limited,
                              throttle_is_limited(&group->throttle),
                              memory_order_relaxed);
    }
    throttle_group_kick(group);
    return 0;
}

void throttle_group_get_config(ThrottleGroup *group, ThrottleConfig *config)
{
    LOCK_GUARD(&group->lock);

    *config = group->throttle.config;
}

unsigned throttle_group_nr_waiting(ThrottleGroup *group)
{
    LOCK_GUARD(&group->lock);

    return group->nr_waiting[0] + group->nr_waiting[1];
}

void throttle_group_set_clock(ThrottleGroup *group, ThrottleClock *clock)
{
    int64_t now = clock();

    group->clock = clock;
    LOCK_GUARD(&group->lock);
    group->throttle.leaked_ns = now;
}
