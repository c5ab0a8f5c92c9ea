/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a coroutine costs: nanoseconds for each step, the best of several runs.
 */
#include <blockgraph/coroutine.h>

#include <stdio.h>
#include <time.h>

#define RUNS 7
#define STEPS 2000000
#define MANY 64

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void coroutine_fn do_nothing(void *opaque)
{
}

static void create_enter_end(void)
{
    for (int i = 0; i < STEPS; i++) {
        coroutine_enter(coroutine_create(do_nothing, NULL));
    }
}

static void coroutine_fn yield_forever(void *opaque)
{
    const bool *stop = opaque;

    while (!*stop) {
        coroutine_yield();
    }
}

static void yield_and_enter(void)
{
    bool stop = false;
    Coroutine *co = coroutine_create(yield_forever, &stop);

    for (int i = 0; i < STEPS; i++) {
        coroutine_enter(co);
    }
    stop = true;
    coroutine_enter(co);
}

static void yield_and_enter_many(void)
{
    bool stop = false;
    Coroutine *co[MANY];

    for (int i = 0; i < MANY; i++) {
        co[i] = coroutine_create(yield_forever, &stop);
    }
    for (int i = 0; i < STEPS; i++) {
        coroutine_enter(co[i % MANY]);
    }
    stop = true;
    for (int i = 0; i < MANY; i++) {
        coroutine_enter(co[i]);
    }
}

static void coroutine_fn nest(void *opaque)
{
    int depth = *(int *)opaque;

    if (depth > 0) {
        depth--;
        coroutine_enter(coroutine_create(nest, &depth));
    }
}

static void create_nested(void)
{
    for (int i = 0; i < STEPS / 16; i++) {
        int depth = 15;

        coroutine_enter(coroutine_create(nest, &depth));
    }
}

static void coroutine_fn lock_in_coroutine(void *opaque)
{
    CoMutex *mutex = opaque;

    for (int i = 0; i < STEPS; i++) {
        co_mutex_lock(mutex);
        co_mutex_unlock(mutex);
    }
}

static void lock_and_unlock(void)
{
    CoMutex mutex;

    co_mutex_init(&mutex);
    coroutine_enter(coroutine_create(lock_in_coroutine, &mutex));
}

static void coroutine_fn rdlock_in_coroutine(void *opaque)
{
    CoRwlock *lock = opaque;

    for (int i = 0; i < STEPS; i++) {
        co_rwlock_rdlock(lock);
        co_rwlock_unlock(lock);
    }
}

static void rdlock_and_unlock(void)
{
    CoRwlock lock;

    co_rwlock_init(&lock);
    coroutine_enter(coroutine_create(rdlock_in_coroutine, &lock));
}

static void measure(const char *name, void (*run)(void))
{
    double best = 1e18;

    for (int i = 0; i < RUNS; i++) {
        double start = now_ns();
        double each;

        run();
        each = (now_ns() - start) / STEPS;
        best = each < best ? each : best;
    }
    printf("%-44s %8.1f ns\n", name, best);
}

int main(void)
{
    measure("create, enter, end", create_enter_end);
    measure("create, enter, end; 16 nested", create_nested);
    measure("enter, yield", yield_and_enter);
    measure("enter, yield; round 64 coroutines", yield_and_enter_many);
    measure("CoMutex lock, unlock, uncontended", lock_and_unlock);
    measure("CoRwlock rdlock, unlock, uncontended", rdlock_and_unlock);
    return 0;
}
