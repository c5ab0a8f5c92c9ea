/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoRwlock: many readers or one writer, served in order of arrival.
 *
 * Who cannot have the lock at once takes a ticket (read or write) at the end
 * of the list, and whoever releases grants tickets from the front: a run of
 * readers, or one writer.  A ticket is granted before its coroutine is woken,
 * so nobody can come in between.
 *
 * R1  @owners is -1 for a writer, else the number of readers.
 * R2  Whenever @lock is free, the front ticket (if any) cannot be granted: it
 *     waits for an owner.  So @owners == 0 means that nobody waits.
 * R3  A newcomer that finds a ticket in the list takes one itself.  So no side
 *     starves: every ticket has a bounded number of others before it.
 *
 * An upgrade gives its share back and queues as a writer, at the end.  Two
 * readers who upgrade at once therefore do not wait for each other.
 */
#include "util/co-waiters.h"
#include "util/lock.h"
#include "util/sim-point.h"

typedef enum Ticket {
    TICKET_READ,
    TICKET_WRITE,
} Ticket;

typedef struct Rwlock {
    /* Guards the rest. */
    Lock lock;
    int owners;
    CoWaiters waiters;         /* their wait_ticket is a Ticket */
} Rwlock;

_Static_assert(sizeof(Rwlock) <= sizeof(CoRwlock), "the words suffice");
_Static_assert(_Alignof(Rwlock) <= _Alignof(CoRwlock), "and are aligned");

/* Who calls these holds the lock: clang wants that said in a prototype. */
static bool may_have_locked(Rwlock *rw, Ticket ticket)
    LOCK_REQUIRES(rw->lock);
static void own_locked(Rwlock *rw, Ticket ticket) LOCK_REQUIRES(rw->lock);
static CoWaiters grant_locked(Rwlock *rw) LOCK_REQUIRES(rw->lock);

static bool may_have_locked(Rwlock *rw, Ticket ticket)
{
    return ticket == TICKET_READ ? rw->owners >= 0 : rw->owners == 0;
}

static void own_locked(Rwlock *rw, Ticket ticket)
{
    g_assert(may_have_locked(rw, ticket));                      /* R1 */
    rw->owners = ticket == TICKET_READ ? rw->owners + 1 : -1;
}

/* Take every ticket off that can be granted now, and grant it. */
static CoWaiters grant_locked(Rwlock *rw)
{
    CoWaiters granted = { NULL, NULL };

    while (rw->waiters.head &&
           may_have_locked(rw, (Ticket)rw->waiters.head->wait_ticket)) {
        Coroutine *co = co_waiters_pop(&rw->waiters);

        own_locked(rw, (Ticket)co->wait_ticket);
        co_waiters_push(&granted, co);
    }
    return granted;                                             /* R2 */
}

/* Without the lock.  A woken coroutine may use its link at once. */
static void wake_granted(CoWaiters *granted)
{
    Coroutine *co;

    while ((co = co_waiters_pop(granted))) {
        aio_co_wake(co);
    }
}

static coroutine_fn void take(Rwlock *rw, Ticket ticket)
{
    Coroutine *self = coroutine_self();
    bool wait = false;

    g_assert(self);
    WITH_LOCK(&rw->lock) {
        if (!rw->waiters.head && may_have_locked(rw, ticket)) {
            own_locked(rw, ticket);
        } else {
            wait = true;                                        /* R3 */
            self->wait_ticket = ticket;
            co_waiters_push(&rw->waiters, self);
        }
    }
    if (wait) {
        SIM_WAITS("CoRwlock", NULL);
        coroutine_yield();
    }
}

void co_rwlock_init(CoRwlock *lock)
{
    *lock = (CoRwlock) { { 0 } };
    lock_init(&((Rwlock *)lock)->lock, LOCK_RANK_CO_LOCK);
}

void coroutine_fn co_rwlock_rdlock(CoRwlock *lock)
{
    take((Rwlock *)lock, TICKET_READ);
}

void coroutine_fn co_rwlock_wrlock(CoRwlock *lock)
{
    take((Rwlock *)lock, TICKET_WRITE);
}

void coroutine_fn co_rwlock_upgrade(CoRwlock *lock)
{
    Rwlock *rw = (Rwlock *)lock;
    Coroutine *self = coroutine_self();
    CoWaiters granted = { NULL, NULL };
    bool wait = false;

    WITH_LOCK(&rw->lock) {
        g_assert(rw->owners > 0);
        rw->owners--;
        if (!rw->waiters.head && rw->owners == 0) {
            own_locked(rw, TICKET_WRITE);
        } else {
            wait = true;
            self->wait_ticket = TICKET_WRITE;
            co_waiters_push(&rw->waiters, self);
            /* Not ours: another ticket, or another reader, comes first. */
            granted = grant_locked(rw);
        }
    }
    wake_granted(&granted);
    if (wait) {
        SIM_WAITS("CoRwlock", NULL);
        coroutine_yield();
    }
}

void coroutine_fn co_rwlock_downgrade(CoRwlock *lock)
{
    Rwlock *rw = (Rwlock *)lock;
    CoWaiters granted = { NULL, NULL };

    WITH_LOCK(&rw->lock) {
        g_assert(rw->owners == -1);
        rw->owners = 1;
        granted = grant_locked(rw);
    }
    wake_granted(&granted);
}

void coroutine_fn co_rwlock_unlock(CoRwlock *lock)
{
    Rwlock *rw = (Rwlock *)lock;
    CoWaiters granted = { NULL, NULL };

    g_assert(in_coroutine());
    WITH_LOCK(&rw->lock) {
        g_assert(rw->owners != 0);
        rw->owners = rw->owners > 0 ? rw->owners - 1 : 0;
        granted = grant_locked(rw);
    }
    wake_granted(&granted);
}
