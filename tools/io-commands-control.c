/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * help, quit, sleep, sigraise, abort: what has nothing to do with an image.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tool-print.h"

#define NS_PER_MS INT64_C(1000000)

static int help_run(IoSession *io, int argc, char **argv)
{
    return io_command_help(argc > 1 ? argv[1] : NULL);
}

static int quit_run(IoSession *io, int argc, char **argv)
{
    io->quit = true;
    return 0;
}

static void wake_up(void *opaque)
{
    bool *slept = opaque;

    *slept = true;
}

static int sleep_run(IoSession *io, int argc, char **argv)
{
    AioContext *ctx = block_graph_aio_context(io->graph);
    bool slept = false;
    AioTimer *timer;
    char *end;
    long ms;

    errno = 0;
    ms = strtol(argv[1], &end, 0);
    if (errno || end == argv[1] || *end || ms < 0 ||
        ms > INT64_MAX / NS_PER_MS / 2) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    timer = aio_timer_new(ctx, wake_up, &slept);
    aio_timer_set(timer, aio_clock_ns(ctx) + ms * NS_PER_MS);
    while (!slept) {
        aio_poll(ctx, true);
    }
    aio_timer_free(timer);
    return 0;
}

static int sigraise_run(IoSession *io, int argc, char **argv)
{
    int64_t number = tool_parse_size(argv[1]);

    if (number < 0) {
        return (int)number;
    }
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n",
               argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    raise((int)number);
    return 0;
}

static int abort_run(IoSession *io, int argc, char **argv)
{
    fflush(stdout);
    abort();
}

const IoCommand io_commands_control[] = {
    { .name = "help", .alt_name = "?", .run = help_run, .args_max = 1,
      .no_file_ok = true, .args = "[command]",
      .oneline = "help for one or all commands" },
    { .name = "quit", .alt_name = "q", .run = quit_run,
      .args_max = IO_ARGS_ANY, .no_file_ok = true,
      .oneline = "exit the program" },
    { .name = "sleep", .run = sleep_run, .args_min = 1, .args_max = 1,
      .no_file_ok = true,
      .oneline = "waits for the given value in milliseconds" },
    { .name = "sigraise", .run = sigraise_run, .args_min = 1, .args_max = 1,
      .no_file_ok = true, .args = "signal",
      .oneline = "raises a signal",
      .help =
      " Sends a signal, given as a number, to the program itself.\n"
      "\n"
      "   sigraise 9          as kill -9 would\n" },
    { .name = "abort", .run = abort_run, .no_file_ok = true,
      .oneline = "simulate a program crash using abort(3)" },
    { 0 },
};
