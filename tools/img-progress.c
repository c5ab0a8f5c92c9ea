/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a command is: on the line of -p, or for who sends SIGUSR1.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>

#include "tools/img-command.h"

/* Percent that are worth another line. */
#define STEP 1.0

static volatile sig_atomic_t asked;

static void note_signal(int signal)
{
    asked = 1;
}

void img_progress_init(void)
{
    struct sigaction action = { .sa_handler = note_signal,
                                .sa_flags = SA_RESTART };

    sigaction(SIGUSR1, &action, NULL);
}

/* Nobody loses anything with a line that cannot be written: what the command
 * is for goes on, and is a success.  But what was printed before counts. */
static G_GNUC_PRINTF(1, 2) void show(const char *fmt, ...)
{
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    va_list args;

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    if (fflush(stdout) != 0 && !failed) {
        __fpurge(stdout);
        clearerr(stdout);
    }
}

void img_progress(bool on, int64_t done, int64_t total)
{
    static double shown = -STEP;
    double now = total > 0 ? 100.0 * done / total : 100.0;

    if (asked) {
        asked = 0;
        fprintf(stderr, "    (%3.2f/100%%)\n", now);
    }
    if (on && (now < shown || now - shown >= STEP ||
               (now == 100.0 && shown != 100.0))) {
        shown = now;
        show("    (%3.2f/100%%)\r", now);
    }
}

void img_progress_end(bool on)
{
    if (on) {
        show("\n");
    }
}
