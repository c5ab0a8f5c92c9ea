/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a command is: on the line of -p, or for who sends SIGUSR1.
 */
#include <signal.h>
#include <stdio.h>

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
        printf("    (%3.2f/100%%)\r", now);
        fflush(stdout);
    }
}

void img_progress_end(bool on)
{
    if (on) {
        printf("\n");
    }
}
