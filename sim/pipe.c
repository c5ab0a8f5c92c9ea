/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte pipes in memory.
 *
 * A connection is two streams.  A stream takes bytes into segments, each of
 * which arrives at a time; one event for the first segment keeps the order.
 * What is written and not read yet counts against the capacity.
 *
 * With real threads segments arrive at once: the threads are the delay.
 *
 * Locking: one lock for a connection; coroutines wait outside it and are woken
 * through their loops (co-waiters.h).
 */
#include "sim/sim-int.h"

#include <blockgraph/sim-pipe.h>
#include <errno.h>
#include <string.h>

#include "util/co-waiters.h"

#define CAPACITY_DEFAULT (64 * 1024)
#define MIN_DELAY_DEFAULT 1000
#define MAX_DELAY_DEFAULT 50000

/* Bytes on their way; the end of the stream has none. */
typedef struct Segment {
    int64_t at_ns;
    size_t bytes;
    bool end;
} Segment;

typedef struct Connection Connection;

/* One direction. */
typedef struct Stream {
    Connection *connection;
    SimEvent event;      /* the arrival of the first segment */

    /* Guarded by the lock of the connection. */
    uint8_t *ring;       /* of the capacity */
    size_t start;        /* of the bytes that have not been read */
    size_t used;         /* bytes in the ring, */
    size_t arrived;      /* of which so many can be read */
    GQueue segments;     /* Segment: on their way, in order */
    bool armed;          /* @event is set */
    bool ending;         /* the writer has said that no more will come */
    bool ended;          /* and that has arrived */
    bool deaf;           /* the reader has closed */
    CoWaiters readers;
    CoWaiters writers;
} Stream;

struct BgSimPipe {
    /* Set by bgsim_pipe_new(). */
    Connection *connection;
    Stream *in;
    Stream *out;

    /* Guarded by the lock of the connection. */
    bool closed;
};

struct Connection {
    /* Set by bgsim_pipe_new(). */
    BgSim *sim;
    BgSimPipeConfig config;
    SimDevice *device;
    BgSimPipe ends[2];

    Lock lock;
    Stream streams[2];   /* guarded by @lock */
    bool reset;          /* guarded by @lock */
};

/* --- waiting -------------------------------------------------------------- */

static void wake_all(CoWaiters *waiters)
{
    Coroutine *co;

    while ((co = co_waiters_pop(waiters))) {
        co_wake_later(co);
    }
}

/* Give up the lock of @c and wait; it is taken again. */
static void coroutine_fn wait_locked(Connection *c, CoWaiters *waiters,
                                     const char *what)
{
    co_waiters_push(waiters, coroutine_self());
    lock_release(&c->lock);
    SIM_WAITS(what, NULL);
    coroutine_yield();
    lock_acquire(&c->lock);
}

/* --- travel --------------------------------------------------------------- */

static void arm_locked(Stream *s)
{
    BgSim *sim = s->connection->sim;
    const Segment *first = g_queue_peek_head(&s->segments);

    if (first && !s->armed) {
        s->armed = true;
        sim_event_add(sim, &s->event, MAX(first->at_ns - sim->now_ns, 0));
    }
}

static void arrive_locked(Stream *s, int64_t now_ns)
{
    const Segment *first;

    while ((first = g_queue_peek_head(&s->segments)) &&
           first->at_ns <= now_ns) {
        s->arrived += first->bytes;
        s->ended |= first->end;
        g_free(g_queue_pop_head(&s->segments));
    }
    if (s->arrived > 0 || s->ended) {
        wake_all(&s->readers);
    }
}

static void arrival_cb(void *opaque)
{
    Stream *s = opaque;

    LOCK_GUARD(&s->connection->lock);
    s->armed = false;
    arrive_locked(s, s->connection->sim->now_ns);
    arm_locked(s);
}

static int64_t travel_ns(Connection *c)
{
    return atomic_load(&c->sim->settling)
               ? c->config.min_delay_ns
               : bgsim_range(c->sim, "pipe.delay", c->config.min_delay_ns,
                             c->config.max_delay_ns);
}

/* @delay_ns was drawn before the lock was taken. */
static void send_locked(Stream *s, size_t bytes, bool end, int64_t delay_ns)
{
    Connection *c = s->connection;
    const Segment *last = g_queue_peek_tail(&s->segments);
    Segment *segment = g_new0(Segment, 1);

    segment->bytes = bytes;
    segment->end = end;
    if (!c->sim->threads_mode) {
        segment->at_ns = MAX(c->sim->now_ns + delay_ns,
                             last ? last->at_ns : 0);
    }
    g_queue_push_tail(&s->segments, segment);
    if (c->sim->threads_mode) {
        arrive_locked(s, 0);
    } else {
        arm_locked(s);
    }
}

static void ring_put_locked(Stream *s, const uint8_t *buf, size_t bytes)
{
    size_t capacity = s->connection->config.capacity;
    size_t at = (s->start + s->used) % capacity;
    size_t part = MIN(bytes, capacity - at);

    memcpy(s->ring + at, buf, part);
    memcpy(s->ring, buf + part, bytes - part);
    s->used += bytes;
}

static void ring_get_locked(Stream *s, uint8_t *buf, size_t bytes)
{
    size_t capacity = s->connection->config.capacity;
    size_t part = MIN(bytes, capacity - s->start);

    memcpy(buf, s->ring + s->start, part);
    memcpy(buf + part, s->ring, bytes - part);
    s->start = (s->start + bytes) % capacity;
    s->used -= bytes;
    s->arrived -= bytes;
}

/* --- life ----------------------------------------------------------------- */

static void stream_init(Stream *s, Connection *c)
{
    s->connection = c;
    s->ring = g_malloc(c->config.capacity);
    g_queue_init(&s->segments);
    s->event = (SimEvent){ .actor = c->device->actor, .what = "pipe",
                           .cb = arrival_cb, .opaque = s };
}

static void connection_free(void *opaque)
{
    Connection *c = opaque;

    for (unsigned i = 0; i < 2; i++) {
        Segment *segment;

        while ((segment = g_queue_pop_head(&c->streams[i].segments))) {
            g_free(segment);
        }
        g_free(c->streams[i].ring);
    }
    g_free(c);
}

void bgsim_pipe_new(BgSim *sim, const char *name,
                    const BgSimPipeConfig *config, BgSimPipe *ret_ends[2])
{
    Connection *c = g_new0(Connection, 1);
    BgSimPipeConfig *f = &c->config;

    c->sim = sim;
    *f = config ? *config : (BgSimPipeConfig){ .capacity = 0 };
    f->capacity = f->capacity ? f->capacity : CAPACITY_DEFAULT;
    f->min_delay_ns = f->min_delay_ns ? f->min_delay_ns : MIN_DELAY_DEFAULT;
    f->max_delay_ns = f->max_delay_ns ? f->max_delay_ns
                                      : MAX(MAX_DELAY_DEFAULT,
                                            f->min_delay_ns);
    g_assert(f->min_delay_ns > 0 && f->max_delay_ns >= f->min_delay_ns);
    c->device = sim_device_new(sim, name);
    lock_init(&c->lock, LOCK_RANK_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        stream_init(&c->streams[i], c);
        c->ends[i] = (BgSimPipe){ .connection = c, .in = &c->streams[i],
                                  .out = &c->streams[1 - i] };
        ret_ends[i] = &c->ends[i];
    }
    sim_own(sim, connection_free, c);
}

/* --- reading and writing -------------------------------------------------- */

/* How much of @bytes is moved at once. */
static size_t part_of(Connection *c, const char *label, size_t bytes)
{
    BgSim *sim = c->sim;

    if (bytes > 1 && bgsim_chance(sim, "pipe.is-part",
                                  c->config.segment_permille)) {
        /* 0, the dullest, is all of it. */
        return bytes - bgsim_draw(sim, label, bytes);
    }
    return bytes;
}

static ssize_t coroutine_fn read_locked(BgSimPipe *pipe, void *buf,
                                        size_t bytes)
{
    Connection *c = pipe->connection;
    Stream *s = pipe->in;

    g_assert(!pipe->closed);
    while (!c->reset && s->arrived == 0 && !s->ended && !pipe->closed) {
        wait_locked(c, &s->readers, "bytes from a pipe");
    }
    if (c->reset) {
        return -ECONNRESET;
    }
    if (pipe->closed) {
        return -EBADF;
    }
    bytes = part_of(c, "pipe.read", MIN(bytes, s->arrived));
    if (bytes > 0) {
        ring_get_locked(s, buf, bytes);
        wake_all(&s->writers);
    }
    return bytes;
}

ssize_t coroutine_fn bgsim_pipe_read(BgSimPipe *pipe, void *buf, size_t bytes)
{
    Connection *c = pipe->connection;
    ssize_t ret = 0;

    g_assert(bytes > 0);
    WITH_LOCK(&c->lock) {
        ret = read_locked(pipe, buf, bytes);
    }
    bgsim_trace(c->sim, "pipe.read", c->device->actor, ret);
    return ret;
}

static void reset_locked(Connection *c)
{
    c->reset = true;
    for (unsigned i = 0; i < 2; i++) {
        wake_all(&c->streams[i].readers);
        wake_all(&c->streams[i].writers);
    }
}

static ssize_t coroutine_fn write_locked(BgSimPipe *pipe, const void *buf,
                                         size_t bytes)
{
    Connection *c = pipe->connection;
    Stream *s = pipe->out;
    size_t capacity = c->config.capacity;

    g_assert(!pipe->closed && !s->ending);
    if (!atomic_load(&c->sim->settling) &&
        bgsim_chance(c->sim, "pipe.reset", c->config.reset_permille)) {
        reset_locked(c);
    }
    while (!c->reset && !s->deaf && !s->ending && s->used == capacity) {
        wait_locked(c, &s->writers, "room in a pipe");
    }
    if (c->reset) {
        return -ECONNRESET;
    }
    if (s->deaf || s->ending) {
        return -EPIPE;
    }
    bytes = part_of(c, "pipe.write", MIN(bytes, capacity - s->used));
    ring_put_locked(s, buf, bytes);
    send_locked(s, bytes, false, travel_ns(c));
    return bytes;
}

ssize_t coroutine_fn bgsim_pipe_write(BgSimPipe *pipe, const void *buf,
                                      size_t bytes)
{
    Connection *c = pipe->connection;
    ssize_t ret = 0;

    g_assert(bytes > 0);
    WITH_LOCK(&c->lock) {
        ret = write_locked(pipe, buf, bytes);
    }
    bgsim_trace(c->sim, "pipe.write", c->device->actor, ret);
    return ret;
}

/* --- ends ----------------------------------------------------------------- */

static void end_locked(Stream *s)
{
    if (!s->ending) {
        s->ending = true;
        wake_all(&s->writers);
        send_locked(s, 0, true, travel_ns(s->connection));
    }
}

void bgsim_pipe_shutdown(BgSimPipe *pipe)
{
    LOCK_GUARD(&pipe->connection->lock);

    end_locked(pipe->out);
}

void bgsim_pipe_reset(BgSimPipe *pipe)
{
    LOCK_GUARD(&pipe->connection->lock);

    reset_locked(pipe->connection);
}

void bgsim_pipe_close(BgSimPipe *pipe)
{
    LOCK_GUARD(&pipe->connection->lock);

    if (!pipe->closed) {
        pipe->closed = true;
        end_locked(pipe->out);
        pipe->in->deaf = true;
        wake_all(&pipe->in->writers);
        wake_all(&pipe->in->readers);
    }
}
