/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of the event loop share: every test is a loop test over the
 * engines; one that this system does not have is left out.
 */
#ifndef TESTS_UNIT_AIO_FIXTURE_H
#define TESTS_UNIT_AIO_FIXTURE_H

#include "check-main.h"

#include <blockgraph/aio.h>
#include <stdlib.h>
#include <unistd.h>

static const AioEngine aio_engines[] = {
    AIO_ENGINE_IO_URING, AIO_ENGINE_THREADS,
};

/** The context of the test's engine, or NULL where it does not exist. */
static inline AioContext *aio_fixture_context(int i)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx = aio_context_new(aio_engines[i], &error);

    if (!ctx) {
        /* Only the ring may be missing. */
        ck_assert_int_eq(aio_engines[i], AIO_ENGINE_IO_URING);
        ck_assert_ptr_nonnull(error);
        return NULL;
    }
    ck_assert_int_eq(aio_context_engine(ctx), aio_engines[i]);
    return ctx;
}

/** A descriptor of a file without a name in @dir, or -1. */
static inline int open_tmp_in(const char *dir, int flags)
{
    g_autofree char *name = g_strdup_printf("%s/aio-file-XXXXXX", dir);
    int fd = mkostemp(name, flags);

    if (fd >= 0) {
        unlink(name);
    }
    return fd;
}

/** Begin of a loop test: @ctx_ is a context of engine number _i. */
#define AIO_TEST(ctx_)                                                        \
    AioContext *ctx_ = aio_fixture_context(_i);                               \
    if (!ctx_) {                                                              \
        return;                                                               \
    }

/** Run @test once an engine. */
#define PROMISE_ENGINES(tcase, test)                                          \
    tcase_add_loop_test(tcase, test, 0, G_N_ELEMENTS(aio_engines))

/* What callbacks did, one letter each. */
static GString *trace;

/** Begin of a test: an empty trace. */
static inline void setup(void)
{
    trace = g_string_new(NULL);
}

/** End of a test. */
static inline void teardown(void)
{
    g_string_free(trace, true);
}

/** A callback that adds the letter @opaque to the trace. */
static inline void append(void *opaque)
{
    g_string_append(trace, opaque);
}

/** Turn the loop until there is nothing to do. */
static inline void run_all(AioContext *ctx)
{
    while (aio_poll(ctx, false)) {
        continue;
    }
}

/** A timer that adds @letter to the trace at time @ns. */
static inline AioTimer *timer_at(AioContext *ctx, int64_t ns,
                                 const char *letter)
{
    AioTimer *timer = aio_timer_new(ctx, append, (void *)letter);

    aio_timer_set(timer, ns);
    return timer;
}

/** A test case of @suite with trace and time-out. */
static inline TCase *new_tcase(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

#endif /* TESTS_UNIT_AIO_FIXTURE_H */
