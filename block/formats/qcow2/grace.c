/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When can no request use a host cluster any more?
 *
 * A request looks up a host offset without a lock and uses it later; meanwhile
 * the cluster may be given up.  It must not serve others before the request has
 * ended.  So requests are counted by epochs; clusters that are given up
 * remember the epoch, and wait until it is over.
 *
 * G1  The epoch moves from e to e + 1 only when no request of e - 1 is left.
 *     So there are requests of two epochs at most, and two counters do.
 * G2  A request is counted in the epoch in which it looks at tables first.
 *
 * Proof of G2.  A request reads epoch e, adds to the counter of e, then reads
 * the epoch again.  If it reads e, the change to e + 1 (if it comes) follows in
 * the one order of all sequentially consistent operations, so who looks at the
 * counter after the change sees the addition.  If it reads another epoch, it
 * takes the addition back and begins anew; that one made the counter too large
 * for a moment, which only delays: taking it back tells as the end of a request
 * does (G3), for somebody may have seen it and wait.
 *
 * What cannot be freed yet is tried again later.  Only who must write where old
 * readers look waits, and he is no request of any epoch meanwhile:
 *
 * G3  Who waits is told.  He adds himself to the waiters before he looks at the
 *     counters; who makes a counter 0 does so before he looks at the waiters,
 *     and all do that in leave().
 *     Of two that do so at once one sees the other, and the lock keeps the
 *     wake-up behind the beginning of the wait.
 */
#include "block/formats/qcow2/qcow2.h"

#include "util/co-queue.h"
#include "util/sim-point.h"

static unsigned this_shard(void)
{
    AioContext *ctx = aio_get_current();

    return ctx ? aio_context_index(ctx) % QCOW2_ACCESS_SHARDS : 0;
}

/* Take back an addition to @active. */
static void leave(Qcow2 *q, _Atomic unsigned *active)
{
    unsigned before = atomic_fetch_sub(active, 1);

    g_assert(before > 0);
    if (before == 1 && G_UNLIKELY(atomic_load(&q->grace_waiters) > 0)) {
        LOCK_GUARD(&q->grace_lock);
        co_queue_restart_all(&q->grace_queue);
    }
}

unsigned qcow2_access_begin(Qcow2 *q)
{
    unsigned shard = this_shard();

    for (;;) {
        unsigned epoch = atomic_load(&q->epoch);
        _Atomic unsigned *active = &q->access[shard].active[epoch & 1];

        atomic_fetch_add(active, 1);
        if (G_LIKELY(atomic_load(&q->epoch) == epoch)) {
            return shard * 2 + (epoch & 1);
        }
        leave(q, active);
    }
}

void qcow2_access_end(Qcow2 *q, unsigned ticket)
{
    leave(q, &q->access[ticket / 2].active[ticket & 1]);
}

/* Whether a request of an epoch like @epoch (even or odd) is left. */
static bool any_active(Qcow2 *q, unsigned epoch)
{
    for (unsigned i = 0; i < QCOW2_ACCESS_SHARDS; i++) {
        if (atomic_load(&q->access[i].active[epoch & 1]) > 0) {
            return true;
        }
    }
    return false;
}

void qcow2_epoch_advance(Qcow2 *q)
{
    unsigned epoch = atomic_load(&q->epoch);

    if (!any_active(q, epoch - 1)) { /* G1 */
        atomic_compare_exchange_strong(&q->epoch, &epoch, epoch + 1);
    }
}

bool qcow2_epoch_over(Qcow2 *q, unsigned epoch)
{
    unsigned now = atomic_load(&q->epoch);

    if (now == epoch) {
        return false;
    }
    /* Two steps further it is over by G1. */
    return now - epoch >= 2 || !any_active(q, epoch);
}

void coroutine_fn qcow2_epoch_wait(Qcow2 *q, unsigned epoch)
{
    atomic_fetch_add(&q->grace_waiters, 1);
    WITH_LOCK(&q->grace_lock) {
        qcow2_epoch_advance(q);
        while (!qcow2_epoch_over(q, epoch)) {
            SIM_WAITS("old readers of a cluster", q);
            co_queue_wait_locked(&q->grace_queue, &q->grace_lock);
            qcow2_epoch_advance(q);
        }
    }
    atomic_fetch_sub(&q->grace_waiters, 1);
}
