/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte pipes: order, parts, delay, back pressure, and all the ways to end.
 */
#include "check-main.h"

#include <blockgraph/sim-pipe.h>
#include <errno.h>
#include <string.h>

#define STREAM_BYTES 20000

static BgSim *sim;
static BgSimPipe *ends[2];

static void make(const BgSimPipeConfig *pipe, const BgSimConfig *config)
{
    sim = bgsim_new(7, config);
    bgsim_pipe_new(sim, "net", pipe, ends);
}

/* One side of a conversation. */
typedef struct Side {
    BgSimPipe *pipe;
    size_t bytes;       /* to send, or to receive at most */
    size_t done;
    size_t calls;
    size_t pending_max; /* most that was sent and not received */
    size_t piece;
    struct Side *other;
    bool shut;          /* half-close at the end */
    ssize_t last;       /* of the last call */
    int64_t ended_ns;
} Side;

static uint8_t byte_at(size_t at)
{
    return at * 7 + at / 251;
}

static void coroutine_fn send_entry(BgSim *world, void *opaque)
{
    Side *s = opaque;
    uint8_t buf[1000];

    s->last = 1;
    while (s->done < s->bytes && s->last > 0) {
        size_t piece = MIN(s->piece, s->bytes - s->done);

        for (size_t i = 0; i < piece; i++) {
            buf[i] = byte_at(s->done + i);
        }
        s->last = bgsim_pipe_write(s->pipe, buf, piece);
        s->calls++;
        if (s->last > 0) {
            s->done += s->last;
        }
        if (s->last > 0 && !bgsim_is_threads(world)) {
            s->pending_max = MAX(s->pending_max, s->done - s->other->done);
        }
    }
    if (s->shut) {
        bgsim_pipe_shutdown(s->pipe);
    }
    s->ended_ns = bgsim_now_ns(world);
}

static void coroutine_fn receive_entry(BgSim *world, void *opaque)
{
    Side *s = opaque;
    uint8_t buf[1000];

    s->last = 1;
    while (s->done < s->bytes && s->last > 0) {
        s->last = bgsim_pipe_read(s->pipe, buf, s->piece);
        s->calls++;
        for (ssize_t i = 0; i < s->last; i++) {
            ck_assert_uint_eq(buf[i], byte_at(s->done + i));
        }
        s->done += MAX(s->last, 0);
    }
    s->ended_ns = bgsim_now_ns(world);
}

/* Send all from one end to the other, each in a thread of its own. */
static void converse(Side *from, Side *to)
{
    *from = (Side){ .pipe = ends[0], .bytes = STREAM_BYTES, .piece = 1000,
                    .other = to, .shut = true };
    *to = (Side){ .pipe = ends[1], .bytes = SIZE_MAX, .piece = 700,
                  .other = from };
    bgsim_spawn(sim, "sender", bgsim_thread(sim, "a"), send_entry, from);
    bgsim_spawn(sim, "receiver", bgsim_thread(sim, "b"), receive_entry, to);
    ck_assert(bgsim_run(sim, -1, NULL));
}

START_TEST(bytes_arrive_whole_in_order_and_later)
{
    BgSimPipeConfig config = { .min_delay_ns = 5000, .max_delay_ns = 90000 };
    Side from;
    Side to;

    make(&config, NULL);
    converse(&from, &to);
    ck_assert_uint_eq(from.done, STREAM_BYTES);
    ck_assert_uint_eq(to.done, STREAM_BYTES);
    ck_assert_int_eq(to.last, 0);
    ck_assert_int_ge(to.ended_ns, 5000);
    ck_assert_uint_eq(from.calls, STREAM_BYTES / 1000);
    bgsim_free(sim);
}
END_TEST

START_TEST(segmentation_moves_parts)
{
    BgSimPipeConfig config = { .segment_permille = 900 };
    Side from;
    Side to;

    make(&config, NULL);
    converse(&from, &to);
    ck_assert_uint_eq(to.done, STREAM_BYTES);
    ck_assert_uint_gt(from.calls, STREAM_BYTES / 1000);
    ck_assert_uint_gt(to.calls, STREAM_BYTES / 700 + 1);
    bgsim_free(sim);
}
END_TEST

START_TEST(a_full_pipe_holds_the_writer_back)
{
    BgSimPipeConfig config = { .capacity = 1500 };
    Side from;
    Side to;

    make(&config, NULL);
    converse(&from, &to);
    ck_assert_uint_eq(to.done, STREAM_BYTES);
    ck_assert_uint_le(from.pending_max, 1500);
    bgsim_free(sim);
}
END_TEST

static uint64_t hash_of_run(uint64_t seed)
{
    BgSimPipeConfig config = { .segment_permille = 300, .capacity = 3000 };
    uint64_t hash;
    Side from;
    Side to;

    sim = bgsim_new(seed, NULL);
    bgsim_pipe_new(sim, "net", &config, ends);
    converse(&from, &to);
    hash = bgsim_trace_hash(sim);
    bgsim_free(sim);
    return hash;
}

START_TEST(one_seed_is_one_run)
{
    ck_assert_uint_eq(hash_of_run(1), hash_of_run(1));
    ck_assert_uint_ne(hash_of_run(1), hash_of_run(2));
}
END_TEST

START_TEST(threads_carry_the_same_bytes)
{
    BgSimPipeConfig config = { .segment_permille = 300, .capacity = 3000 };
    BgSimConfig world = { .threads = true };
    Side from;
    Side to;

    make(&config, &world);
    converse(&from, &to);
    ck_assert_uint_eq(from.done, STREAM_BYTES);
    ck_assert_uint_eq(to.done, STREAM_BYTES);
    bgsim_free(sim);
}
END_TEST

/* --- ends ----------------------------------------------------------------- */

static void coroutine_fn half_close_entry(BgSim *world, void *opaque)
{
    char buf[10] = "question";

    ck_assert_int_eq(bgsim_pipe_write(ends[0], buf, 8), 8);
    bgsim_pipe_shutdown(ends[0]);
    /* The other direction goes on. */
    ck_assert_int_eq(bgsim_pipe_read(ends[1], buf, 10), 8);
    ck_assert_int_eq(bgsim_pipe_read(ends[1], buf, 10), 0);
    ck_assert_int_eq(bgsim_pipe_write(ends[1], "answer", 6), 6);
    ck_assert_int_eq(bgsim_pipe_read(ends[0], buf, 10), 6);
    *(bool *)opaque = true;
}

static void coroutine_fn close_entry(BgSim *world, void *opaque)
{
    char buf[10] = "x";

    ck_assert_int_eq(bgsim_pipe_write(ends[0], buf, 5), 5);
    bgsim_pipe_close(ends[0]);
    bgsim_pipe_close(ends[0]);
    ck_assert_int_eq(bgsim_pipe_read(ends[1], buf, 10), 5);
    ck_assert_int_eq(bgsim_pipe_read(ends[1], buf, 10), 0);
    ck_assert_int_eq(bgsim_pipe_write(ends[1], buf, 5), -EPIPE);
    *(bool *)opaque = true;
}

static void coroutine_fn reset_entry(BgSim *world, void *opaque)
{
    char buf[10] = "x";

    ck_assert_int_eq(bgsim_pipe_write(ends[0], buf, 5), 5);
    bgsim_pipe_reset(ends[1]);
    ck_assert_int_eq(bgsim_pipe_read(ends[1], buf, 10), -ECONNRESET);
    ck_assert_int_eq(bgsim_pipe_write(ends[0], buf, 5), -ECONNRESET);
    *(bool *)opaque = true;
}

static void run_alone(BgSimEntry *entry)
{
    static bool done;

    make(NULL, NULL);
    done = false;
    bgsim_spawn(sim, "alone", NULL, entry, &done);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert(done);
    bgsim_free(sim);
}

START_TEST(half_close_ends_one_direction)
{
    run_alone(half_close_entry);
}
END_TEST

START_TEST(close_lets_the_other_read_to_the_end_and_breaks_its_writes)
{
    run_alone(close_entry);
}
END_TEST

START_TEST(a_reset_loses_what_was_under_way)
{
    run_alone(reset_entry);
}
END_TEST

START_TEST(a_reader_that_waits_is_woken_by_a_reset)
{
    Side to = { .bytes = 10, .piece = 10 };

    make(NULL, NULL);
    to.pipe = ends[1];
    bgsim_spawn(sim, "receiver", NULL, receive_entry, &to);
    ck_assert(bgsim_run(sim, 1000, NULL));
    ck_assert_uint_eq(bgsim_tasks(sim), 1);
    bgsim_pipe_reset(ends[0]);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(to.last, -ECONNRESET);
    bgsim_free(sim);
}
END_TEST

START_TEST(a_writer_that_waits_is_woken_when_the_reader_closes)
{
    BgSimPipeConfig config = { .capacity = 100 };
    Side none = { .bytes = 0 };
    Side from = { .bytes = 200, .piece = 100, .other = &none };

    make(&config, NULL);
    from.pipe = ends[0];
    bgsim_spawn(sim, "sender", NULL, send_entry, &from);
    ck_assert(bgsim_run(sim, 1000 * 1000, NULL));
    ck_assert_uint_eq(from.done, 100);
    bgsim_pipe_close(ends[1]);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_int_eq(from.last, -EPIPE);
    bgsim_free(sim);
}
END_TEST

START_TEST(a_reader_of_nothing_is_a_hang_that_names_the_pipe)
{
    Side to = { .bytes = 10, .piece = 10 };
    g_autoptr(GError) error = NULL;

    make(NULL, NULL);
    to.pipe = ends[1];
    bgsim_spawn(sim, "receiver", NULL, receive_entry, &to);
    ck_assert(!bgsim_run(sim, -1, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "receiver"));
    ck_assert_ptr_nonnull(strstr(error->message, "bytes from a pipe"));
}
END_TEST

START_TEST(chance_resets_a_connection)
{
    BgSimPipeConfig config = { .reset_permille = 500 };
    Side from;
    Side to;

    make(&config, NULL);
    converse(&from, &to);
    ck_assert_int_eq(from.last, -ECONNRESET);
    ck_assert_int_eq(to.last, -ECONNRESET);
    ck_assert_uint_lt(to.done, STREAM_BYTES);
    bgsim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-pipe");
    TCase *tcase = tcase_create("pipe");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, bytes_arrive_whole_in_order_and_later);
    PROMISE(tcase, segmentation_moves_parts);
    PROMISE(tcase, a_full_pipe_holds_the_writer_back);
    PROMISE(tcase, one_seed_is_one_run);
    PROMISE(tcase, threads_carry_the_same_bytes);
    PROMISE(tcase, half_close_ends_one_direction);
    PROMISE(tcase, close_lets_the_other_read_to_the_end_and_breaks_its_writes);
    PROMISE(tcase, a_reset_loses_what_was_under_way);
    PROMISE(tcase, a_reader_that_waits_is_woken_by_a_reset);
    PROMISE(tcase, a_writer_that_waits_is_woken_when_the_reader_closes);
    PROMISE(tcase, a_reader_of_nothing_is_a_hang_that_names_the_pipe);
    PROMISE(tcase, chance_resets_a_connection);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
