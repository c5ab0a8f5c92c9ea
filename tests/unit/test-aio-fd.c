/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watched descriptors, and an event loop inside somebody else's.
 */
#include "aio-fixture.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- descriptors --------------------------------------------------------- */

typedef struct Pipe {
    AioContext *ctx;
    int fd[2];
    int nr_readable;
    int nr_writable;
    bool remove_self;
    struct Pipe *remove_other;
    int consume;                /* bytes to read in the callback */
} Pipe;

static void pipe_open(Pipe *p, AioContext *ctx)
{
    *p = (Pipe) { .ctx = ctx };
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd),
                     0);
}

static void pipe_close(Pipe *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->fd[i] >= 0) {
            aio_set_fd_handler(p->ctx, p->fd[i], NULL, NULL, NULL);
            close(p->fd[i]);
        }
    }
}

static void readable(void *opaque)
{
    Pipe *p = opaque;
    char buf[64];

    p->nr_readable++;
    if (p->consume) {
        ck_assert_int_ne(read(p->fd[0], buf, p->consume), 0);
    }
    if (p->remove_other) {
        aio_set_fd_handler(p->ctx, p->remove_other->fd[0], NULL, NULL, NULL);
    }
    if (p->remove_self) {
        aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
    }
}

static void writable(void *opaque)
{
    Pipe *p = opaque;

    p->nr_writable++;
}

static void put(Pipe *p, const char *bytes)
{
    ck_assert_int_eq(write(p->fd[1], bytes, strlen(bytes)), strlen(bytes));
}

START_TEST(a_readable_descriptor_reports_as_long_as_it_is_readable)
{
    AIO_TEST(ctx);
    Pipe p;

    pipe_open(&p, ctx);
    p.consume = 1;
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    ck_assert(!aio_poll(ctx, false));
    put(&p, "abc");
    while (p.nr_readable < 3) {
        ck_assert(aio_poll(ctx, true));
    }
    run_all(ctx);
    ck_assert_int_eq(p.nr_readable, 3);
    put(&p, "d");
    ck_assert(aio_poll(ctx, true));
    ck_assert_int_eq(p.nr_readable, 4);
    pipe_close(&p);
    ck_assert(!aio_poll(ctx, false));
    aio_context_unref(ctx);
}
END_TEST

START_TEST(interest_can_be_changed_while_the_loop_watches)
{
    AIO_TEST(ctx);
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    ck_assert(!aio_poll(ctx, false));
    aio_set_fd_handler(ctx, p.fd[0], readable, writable, &p);
    while (!p.nr_writable) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(p.nr_readable, 0);
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    p.nr_writable = 0;
    p.remove_self = true;
    put(&p, "x");
    while (!p.nr_readable) {
        aio_poll(ctx, true);
    }
    run_all(ctx);
    ck_assert_int_eq(p.nr_writable, 0);
    ck_assert_int_eq(p.nr_readable, 1);
    pipe_close(&p);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(hang_up_reads_as_readable_and_writable)
{
    AIO_TEST(ctx);
    Pipe p;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    ck_assert(!aio_poll(ctx, false));
    close(p.fd[1]);
    p.fd[1] = -1;
    ck_assert(aio_poll(ctx, true));
    ck_assert_int_ge(p.nr_readable, 1);
    aio_set_fd_handler(ctx, p.fd[0], NULL, writable, &p);
    while (!p.nr_writable) {
        ck_assert(aio_poll(ctx, true));
    }
    pipe_close(&p);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_handler_removed_while_reading_is_not_called_for_writing)
{
    AIO_TEST(ctx);
    Pipe p;

    pipe_open(&p, ctx);
    p.remove_self = true;
    put(&p, "x");
    aio_set_fd_handler(ctx, p.fd[0], readable, writable, &p);
    ck_assert(aio_poll(ctx, true));
    run_all(ctx);
    ck_assert_int_eq(p.nr_readable, 1);
    ck_assert_int_eq(p.nr_writable, 0);
    pipe_close(&p);
    aio_context_unref(ctx);
}
END_TEST

/* Both are ready in one turn; whoever is first removes the other. */
START_TEST(a_handler_whose_event_is_already_queued_can_be_removed)
{
    AIO_TEST(ctx);
    Pipe p[2];

    for (int i = 0; i < 2; i++) {
        pipe_open(&p[i], ctx);
        put(&p[i], "x");
    }
    for (int i = 0; i < 2; i++) {
        p[i].remove_other = &p[!i];
        p[i].remove_self = true;
        aio_set_fd_handler(ctx, p[i].fd[0], readable, NULL, &p[i]);
    }
    ck_assert(aio_poll(ctx, true));
    run_all(ctx);
    ck_assert_int_eq(p[0].nr_readable + p[1].nr_readable, 1);
    pipe_close(&p[0]);
    pipe_close(&p[1]);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_number_that_is_used_again_gets_no_news_of_the_old_file)
{
    AIO_TEST(ctx);
    Pipe old, new;

    pipe_open(&old, ctx);
    aio_set_fd_handler(ctx, old.fd[0], readable, NULL, &old);
    ck_assert(!aio_poll(ctx, false));
    put(&old, "x");                 /* its event is on the way */
    aio_set_fd_handler(ctx, old.fd[0], NULL, NULL, NULL);
    pipe_open(&new, ctx);
    ck_assert_int_eq(dup2(new.fd[0], old.fd[0]), old.fd[0]);
    close(new.fd[0]);
    new.fd[0] = old.fd[0];
    old.fd[0] = -1;
    aio_set_fd_handler(ctx, new.fd[0], readable, NULL, &new);
    run_all(ctx);
    ck_assert_int_eq(old.nr_readable + new.nr_readable, 0);
    new.remove_self = true;
    put(&new, "y");
    ck_assert(aio_poll(ctx, true));
    ck_assert_int_eq(new.nr_readable, 1);
    pipe_close(&old);
    pipe_close(&new);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(the_loop_lets_go_of_a_removed_descriptor_at_once)
{
    AIO_TEST(ctx);
    Pipe p;
    char c;

    pipe_open(&p, ctx);
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    ck_assert(!aio_poll(ctx, false));
    aio_set_fd_handler(ctx, p.fd[0], NULL, NULL, NULL);
    close(p.fd[0]);
    p.fd[0] = -1;
    ck_assert_int_eq(read(p.fd[1], &c, 1), 0);      /* end of file: closed */
    pipe_close(&p);
    run_all(ctx);
    aio_context_unref(ctx);
}
END_TEST

START_TEST(a_regular_file_is_always_ready)
{
    AIO_TEST(ctx);
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("aio-XXXXXX", &name, NULL);
    Pipe p = { .ctx = ctx, .fd = { fd, -1 }, .remove_self = true };

    unlink(name);
    aio_set_fd_handler(ctx, fd, readable, NULL, &p);
    ck_assert(aio_poll(ctx, true));
    run_all(ctx);
    ck_assert_int_eq(p.nr_readable, 1);
    pipe_close(&p);
    aio_context_unref(ctx);
}
END_TEST

/* --- somebody else's loop ------------------------------------------------ */

static void *schedule_from_thread(void *opaque)
{
    aio_bh_schedule_oneshot(opaque, append, "t");
    return NULL;
}

static bool poll_fd(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

/* One round of an embedder's loop. */
static void outer_round(AioContext *ctx, int fd)
{
    int64_t timeout = aio_context_prepare(ctx);

    if (timeout != 0) {
        ck_assert(poll_fd(fd, -1));         /* hangs if nothing comes */
    }
    run_all(ctx);
}

START_TEST(the_descriptor_of_a_loop_reports_each_kind_of_work)
{
    AIO_TEST(ctx);
    int fd = aio_context_get_fd(ctx);
    AioTimer *timer;
    pthread_t thread;
    Pipe p;

    run_all(ctx);
    ck_assert_int_eq(aio_context_prepare(ctx), -1);
    ck_assert(!poll_fd(fd, 0));

    aio_bh_schedule_oneshot(ctx, append, "b");
    ck_assert_int_eq(aio_context_prepare(ctx), 0);
    run_all(ctx);
    ck_assert_str_eq(trace->str, "b");

    ck_assert_int_eq(aio_context_prepare(ctx), -1);
    pthread_create(&thread, NULL, schedule_from_thread, ctx);
    while (trace->len < 2) {
        outer_round(ctx, fd);
    }
    pthread_join(thread, NULL);
    ck_assert_str_eq(trace->str, "bt");

    timer = timer_at(ctx, aio_clock_ns(ctx) + 2000000, "T");
    while (trace->len < 3) {
        outer_round(ctx, fd);
    }
    aio_timer_free(timer);

    pipe_open(&p, ctx);
    p.remove_self = true;
    aio_set_fd_handler(ctx, p.fd[0], readable, NULL, &p);
    run_all(ctx);
    ck_assert_int_eq(aio_context_prepare(ctx), -1);
    ck_assert(!poll_fd(fd, 0));             /* the work above is gone */
    put(&p, "x");
    while (!p.nr_readable) {
        outer_round(ctx, fd);
    }
    pipe_close(&p);
    aio_context_unref(ctx);
}
END_TEST

static gboolean quit_when_long(gpointer opaque)
{
    return trace->len < 3;
}

START_TEST(a_gsource_runs_the_loop)
{
    AIO_TEST(ctx);
    GMainContext *main_context = g_main_context_new();
    GSource *source = aio_context_get_gsource(ctx);
    AioTimer *timer;
    pthread_t thread;

    g_source_attach(source, main_context);
    aio_bh_schedule_oneshot(ctx, append, "b");
    g_main_context_iteration(main_context, true);
    ck_assert_str_eq(trace->str, "b");
    timer = timer_at(ctx, aio_clock_ns(ctx) + 2000000, "T");
    pthread_create(&thread, NULL, schedule_from_thread, ctx);
    while (quit_when_long(NULL)) {
        g_main_context_iteration(main_context, true);
    }
    pthread_join(thread, NULL);
    aio_timer_free(timer);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_context_unref(main_context);
    aio_context_unref(ctx);
}
END_TEST

static void add_fd_tests(TCase *tcase)
{
    PROMISE_ENGINES(tcase,
                    a_readable_descriptor_reports_as_long_as_it_is_readable);
    PROMISE_ENGINES(tcase, interest_can_be_changed_while_the_loop_watches);
    PROMISE_ENGINES(tcase, hang_up_reads_as_readable_and_writable);
    PROMISE_ENGINES(tcase,
                    a_handler_removed_while_reading_is_not_called_for_writing);
    PROMISE_ENGINES(tcase,
                    a_handler_whose_event_is_already_queued_can_be_removed);
    PROMISE_ENGINES(tcase,
                    a_number_that_is_used_again_gets_no_news_of_the_old_file);
    PROMISE_ENGINES(tcase, the_loop_lets_go_of_a_removed_descriptor_at_once);
    PROMISE_ENGINES(tcase, a_regular_file_is_always_ready);
    PROMISE_ENGINES(tcase,
                    the_descriptor_of_a_loop_reports_each_kind_of_work);
    PROMISE_ENGINES(tcase, a_gsource_runs_the_loop);
}

int main(void)
{
    Suite *suite = suite_create("aio-fd");

    add_fd_tests(new_tcase(suite, "descriptors"));
    return check_main(suite);
}
