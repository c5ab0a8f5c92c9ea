/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: create, enter, yield, end.
 *
 *               coroutine_enter            entry returns
 *      IDLE ------------------> RUNNING -----------------> back to the pool
 *                               |     ^
 *               coroutine_yield |     | coroutine_enter
 *                               v     |
 *                              SUSPENDED
 *
 * C1  @caller is set from the moment a coroutine is entered until it yields
 *     or ends; so it is NULL exactly while nobody runs it.
 * C2  Only the thread that runs a coroutine touches its wake list, and the
 *     list is empty when the coroutine is suspended or idle: whoever entered
 *     it takes the list over.
 * C3  A stack is given back only by the one who entered it, after the last
 *     switch away from it.
 *
 * Thread-local variables: a coroutine that yields may go on in another thread,
 * so no address of such a variable may live over a switch.  The functions
 * that touch them are therefore not inlined, and coroutine_yield() does not
 * touch them after its switch.  coroutine_enter() may: whoever enters a
 * coroutine waits on the stack of its thread and cannot move meanwhile.
 */
#include "util/coroutine-int.h"
#include "util/coroutine-stack.h"
#include "util/coroutine-switch.h"
#include "util/lock.h"
#include "util/sim-point.h"

#include <blockgraph/aio.h>

#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

/* The running coroutine, NULL outside any. */
THREAD_LOCAL Coroutine *current;

/* Stands for the thread itself as the one that enters a coroutine. */
THREAD_LOCAL Coroutine thread_self;

/* Coroutines to enter, linked by wake_next. */
typedef struct WakeList {
    Coroutine *head;
    Coroutine *tail;
} WakeList;

#define co_bug(text)                                                          \
    g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text)

/* --- the way in and out -------------------------------------------------- */

/* Its variables live on for the next user of the stack: no red zones. */
static CO_NO_ASAN void coroutine_main(void *arg)
{
    Coroutine *co = arg;

    for (;;) {
        Coroutine *caller = co->caller;

        co_sanitizer_arrive(&co->sanitizer, &caller->sanitizer);
        co->entry(co->opaque);
        caller = co->caller;
        co->caller = NULL;                                      /* C1 */
        co->entry = NULL;
        co_sanitizer_leave(&co->sanitizer, &caller->sanitizer, true);
        co_switch(&co->sp, caller->sp);
    }
}

__attribute__((noinline))
Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine_stack_get();

    if (G_UNLIKELY(!co->sp)) {
        co->sp = co_switch_prepare(co->stack_low, co->stack_bytes,
                                   coroutine_main, co);
    }
    co->entry = entry;
    co->opaque = opaque;
    co->life++;
    co->for_caller = false;
    atomic_store_explicit(&co->ctx, NULL, memory_order_relaxed);
    SIM_HOOK(co_created(co));
    return co;
}

/* Run @co on behalf of @self until it yields or ends. */
static void enter_one(Coroutine *self, Coroutine *co, AioContext *ctx)
{
    if (G_UNLIKELY(co->caller)) {
        co_bug("a coroutine was entered that runs already");    /* C1 */
    }
    co->caller = self;
    /*
     * Relaxed: a waker has found @co in some list that the coroutine entered
     * after this store, under a lock or with a release of its own.
     */
    atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    current = co;
    co_sanitizer_leave(&self->sanitizer, &co->sanitizer, false);
    co_switch(&self->sp, co->sp);
    co_sanitizer_arrive(&self->sanitizer, NULL);
}

/* Append the wake list of @co, which was just left, to @pending. */
static void take_wakeups(WakeList *pending, Coroutine *co)
{
    if (co->wakeups_head) {
        if (pending->tail) {
            pending->tail->wake_next = co->wakeups_head;
        } else {
            pending->head = co->wakeups_head;
        }
        pending->tail = co->wakeups_tail;
        co->wakeups_head = NULL;                                /* C2 */
        co->wakeups_tail = NULL;
    }
}

/*
 * Taken off before it is entered: from then on another thread may wake it,
 * and use its link.
 */
static Coroutine *pop_wakeup(WakeList *pending)
{
    Coroutine *co = pending->head;

    if (co) {
        pending->head = co->wake_next;
        if (!pending->head) {
            pending->tail = NULL;
        }
        co->wake_next = NULL;
    }
    return co;
}

__attribute__((noinline)) void coroutine_enter(Coroutine *co)
{
    Coroutine *outer = current;
    Coroutine *self = outer ? outer : &thread_self;
    AioContext *ctx = aio_get_current();
    WakeList pending = { NULL, NULL };

    lock_assert_none_held();
    if (!outer) {
        co_sanitizer_thread(&self->sanitizer);
    }
    if (G_UNLIKELY(co->wake_next)) {
        co_bug("a coroutine was entered that has a wake-up pending");
    }
    /*
     * Those woken by @co are entered after it, those woken by them after all
     * of these, and so on: a queue, not a recursion.
     */
    do {
        enter_one(self, co, ctx);
        take_wakeups(&pending, co);
        if (!co->entry) {
            SIM_HOOK(co_ended(co));
            coroutine_stack_put(co);                            /* C3 */
        }
        co = pop_wakeup(&pending);
    } while (co);
    current = outer;
}

__attribute__((noinline)) void coroutine_fn coroutine_yield(void)
{
    Coroutine *self = current;
    Coroutine *caller;

    if (G_UNLIKELY(!self)) {
        co_bug("yield outside a coroutine");
    }
    lock_assert_none_held();
    caller = self->caller;
    self->caller = NULL;                                        /* C1 */
    co_sanitizer_leave(&self->sanitizer, &caller->sanitizer, false);
    co_switch(&self->sp, caller->sp);
    co_sanitizer_arrive(&self->sanitizer, &self->caller->sanitizer);
}

void coroutine_enter_after_yield(Coroutine *co)
{
    Coroutine *self = coroutine_self();

    g_assert(self && co != self);
    if (G_UNLIKELY(co->wake_next || co == self->wakeups_tail)) {
        co_bug("a coroutine was woken that has a wake-up pending");
    }
    if (self->wakeups_tail) {
        self->wakeups_tail->wake_next = co;
    } else {
        self->wakeups_head = co;
    }
    self->wakeups_tail = co;
}

/* --- who runs ------------------------------------------------------------ */

/* The empty statements keep the compiler from folding two calls into one. */
__attribute__((noinline)) Coroutine *coroutine_self(void)
{
    __asm__ volatile("");
    return current;
}

__attribute__((noinline)) bool in_coroutine(void)
{
    __asm__ volatile("");
    return current != NULL;
}

CoOwner coroutine_owner(void)
{
    Coroutine *self = coroutine_self();

    return self && !self->for_caller
               ? (CoOwner){ .co = self, .life = self->life }
               : (CoOwner){ .co = NULL };
}
