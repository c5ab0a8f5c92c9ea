/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many copies are under way at once, by trying.
 */
#include "block/copy/copy-window.h"

#include <glib.h>

/* A round is at least so many times the workers, and so long. */
#define ROUND_TIMES 2
#define ROUND_NS (INT64_C(5) * 1000 * 1000)

/* What half as many may lose, and twice as many have to win. */
#define NARROWER_SPEED 0.95
#define WIDER_SPEED 1.1

#define PATIENCE_MAX 32

void copy_window_init(CopyWindow *w, unsigned max)
{
    g_assert(max > 0);
    *w = (CopyWindow){ .workers = max, .max = max, .patience = 1, .skip = 1 };
}

static void begin_round(CopyWindow *w, int64_t now_ns)
{
    w->copies = 0;
    w->bytes = 0;
    w->since_ns = now_ns;
}

/* With another number what is under way says nothing yet. */
static void set_workers(CopyWindow *w, unsigned workers)
{
    w->skip = MAX(w->workers, workers);
    w->workers = workers;
}

static unsigned other_number(const CopyWindow *w)
{
    return w->wider ? MIN(w->workers * 2, w->max)
                    : MAX(w->workers / 2, COPY_WINDOW_WORKERS_MIN);
}

static void try_other(CopyWindow *w)
{
    if (other_number(w) == w->workers) {
        w->wider = !w->wider;
    }
    w->before = w->workers;
    set_workers(w, other_number(w));
}

static void go_back(CopyWindow *w)
{
    set_workers(w, w->before);
    w->before = 0;
    w->wider = !w->wider;
    w->rest = w->patience;
    w->patience = MIN(w->patience * 2, PATIENCE_MAX);
}

static void judge(CopyWindow *w, double speed)
{
    double enough = w->speed * (w->wider ? WIDER_SPEED : NARROWER_SPEED);

    if (w->before != 0 && speed < enough) {
        go_back(w);
    } else if (w->before != 0) {
        w->before = 0;
        w->rest = 0;
        w->patience = 1;
        w->speed = speed;
    } else {
        w->speed = w->speed > 0 ? (w->speed + speed) / 2 : speed;
        w->rest -= w->rest > 0;
    }
    if (w->before == 0 && w->rest == 0) {
        try_other(w);
    }
}

void copy_window_done(CopyWindow *w, int64_t bytes, int64_t now_ns)
{
    if (w->max <= COPY_WINDOW_WORKERS_MIN) {
        return;
    }
    if (w->skip > 0) {
        w->skip--;
        begin_round(w, now_ns);
        return;
    }
    w->copies++;
    w->bytes += bytes;
    if (w->copies >= ROUND_TIMES * w->workers &&
        now_ns - w->since_ns >= ROUND_NS) {
        judge(w, (double)w->bytes / (now_ns - w->since_ns));
        begin_round(w, now_ns);
    }
}
