/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files in memory: what is done at once, and what is left to others so that the
 * thread goes on.
 */
#include "aio-fixture.h"

#include "util/aio-engine.h"

#include <string.h>

/* A file of one byte in memory. */
typedef struct InMemory {
    AioContext *ctx;
    int fd;
    AioFile *file;
} InMemory;

/* Returns false if there is none with engine @i here. */
static bool in_memory_open(InMemory *m, int i)
{
    m->ctx = aio_fixture_context(i);
    if (!m->ctx) {
        return false;
    }
    m->fd = open_tmp_in("/dev/shm", 0);
    if (m->fd < 0) {
        aio_context_unref(m->ctx);
        return false;
    }
    ck_assert_int_eq(ftruncate(m->fd, 1), 0);
    m->file = aio_file_new(m->fd, AIO_FILE_ENGINE);
    aio_context_bind(m->ctx);
    return true;
}

static void in_memory_close(InMemory *m)
{
    aio_file_free(m->file);
    close(m->fd);
    aio_context_unref(m->ctx);
}

typedef struct Greedy {
    AioFile *file;
    bool stop;
    bool stopped;
} Greedy;

static void coroutine_fn read_until_stopped(void *opaque)
{
    Greedy *greedy = opaque;
    char c;
    struct iovec iov = { &c, 1 };

    while (!greedy->stop) {
        ck_assert_int_eq(aio_file_preadv(greedy->file, &iov, 1, 0, 1), 1);
    }
    greedy->stopped = true;
}

static void stop_greedy(void *opaque)
{
    Greedy *greedy = opaque;

    greedy->stop = true;
}

START_TEST(a_reader_of_a_file_in_memory_lets_others_run)
{
    Greedy greedy = { 0 };
    InMemory m;

    if (!in_memory_open(&m, _i)) {
        return;
    }
    greedy.file = m.file;
    aio_co_enter(m.ctx, coroutine_create(read_until_stopped, &greedy));
    aio_bh_schedule_oneshot(m.ctx, stop_greedy, &greedy);
    while (!greedy.stopped) {
        aio_poll(m.ctx, true);
    }
    in_memory_close(&m);
}
END_TEST

typedef struct Steps {
    AioFile *file;
    int nr;
} Steps;

static void coroutine_fn read_in_steps(void *opaque)
{
    Steps *steps = opaque;
    char c;
    struct iovec iov = { &c, 1 };

    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(aio_file_preadv(steps->file, &iov, 1, 0, 1), 1);
        steps->nr++;
    }
}

START_TEST(one_short_read_in_memory_a_turn_does_not_wait)
{
    Steps steps = { 0 };
    InMemory m;

    if (!in_memory_open(&m, _i)) {
        return;
    }
    steps.file = m.file;
    coroutine_enter(coroutine_create(read_in_steps, &steps));
    ck_assert_int_eq(steps.nr, 1);
    while (steps.nr < 6) {
        int before = steps.nr;

        aio_poll(m.ctx, true);
        /* The one that waited, and the first of this turn. */
        ck_assert_int_eq(steps.nr, MIN(before + 2, 6));
    }
    in_memory_close(&m);
}
END_TEST

/* A write of so many KiB at as many MiB, and whether it was done before the
 * thread went on. */
typedef struct LongWrite {
    AioFile *file;
    int kib;
    bool ended;
} LongWrite;

static void coroutine_fn write_long(void *opaque)
{
    LongWrite *w = opaque;
    int64_t bytes = w->kib * INT64_C(1024);
    g_autofree char *buf = g_malloc(bytes);
    struct iovec iov = { buf, bytes };

    memset(buf, 'w', bytes);
    ck_assert_int_eq(aio_file_pwritev(w->file, &iov, 1, bytes * 1024, bytes,
                                      false), 0);
    w->ended = true;
}

/* Begin @w.  Returns whether the file has all of it already. */
static bool is_written_at_once(InMemory *m, LongWrite *w, int kib)
{
    char last;

    *w = (LongWrite){ .file = m->file, .kib = kib };
    coroutine_enter(coroutine_create(write_long, w));
    return pread(m->fd, &last, 1, kib * INT64_C(1024) * 1025 - 1) == 1 &&
           last != 0;
}

static void wait_for_write(InMemory *m, LongWrite *w)
{
    while (!w->ended) {
        aio_poll(m->ctx, true);
    }
}

/* What the ring has got is not begun before the end of the turn. */
START_TEST(a_long_write_in_memory_beside_another_does_not_hold_up_the_thread)
{
    LongWrite alone, first, beside, small, longer, after;
    InMemory m;

    if (!in_memory_open(&m, 0)) {
        return;
    }
    ck_assert_int_eq(ftruncate(m.fd, INT64_C(1) << 30), 0);
    ck_assert(is_written_at_once(&m, &alone, 63));
    wait_for_write(&m, &alone);

    ck_assert(!is_written_at_once(&m, &first, 512));
    ck_assert(!is_written_at_once(&m, &beside, 64));
    ck_assert(is_written_at_once(&m, &small, 4));
    ck_assert(is_written_at_once(&m, &longer, 128));
    wait_for_write(&m, &first);
    wait_for_write(&m, &beside);
    wait_for_write(&m, &small);
    wait_for_write(&m, &longer);

    ck_assert(is_written_at_once(&m, &after, 62));
    wait_for_write(&m, &after);
    in_memory_close(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("aio-memory");
    TCase *tcase = tcase_create("aio-memory");

    suite_add_tcase(suite, tcase);
    PROMISE_ENGINES(tcase, a_reader_of_a_file_in_memory_lets_others_run);
    PROMISE_ENGINES(tcase, one_short_read_in_memory_a_turn_does_not_wait);
    PROMISE(
        tcase,
        a_long_write_in_memory_beside_another_does_not_hold_up_the_thread);
    return check_main(suite);
}
