/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-daemon: a graph of nodes with jobs and exports, led over control sockets.
 *
 * The exit status is 0 after an orderly end, else 1.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <blockgraph/driver.h>
#include <blockgraph/export.h>

#include "tools/daemon.h"
#include "tools/tool-image.h"
#include "tools/tool-print.h"

/* How long commands may take once the end has begun, and how long a client
 * may take to read what was said last. */
#define COMMANDS_NS (INT64_C(15) * 1000 * 1000 * 1000)
#define CANCELLED_NS (INT64_C(1) * 1000 * 1000 * 1000)
#define FLUSHES_NS (INT64_C(5) * 1000 * 1000 * 1000)
#define IMAGE_TIMEOUT_NS (INT64_C(600) * 1000 * 1000 * 1000)
#define OUTPUT_NS (INT64_C(500) * 1000 * 1000)

void daemon_turn(Daemon *daemon)
{
    aio_poll(block_graph_aio_context(daemon->graph), true);
    qmp_server_run_outside(daemon->server);
    daemon_hmp_sweep(daemon);
}

/* --- the end -------------------------------------------------------------- */

typedef bool Unsettled(const Daemon *daemon);

static bool command_runs(const Daemon *daemon)
{
    return qmp_server_is_busy(daemon->server);
}

static bool output_waits(const Daemon *daemon)
{
    for (guint i = 0; i < daemon->chardevs->len; i++) {
        const DaemonChardev *chardev = g_ptr_array_index(daemon->chardevs, i);

        if (chardev->socket && qmp_socket_has_output(chardev->socket)) {
            return true;
        }
    }
    return false;
}

static void time_is_over(void *opaque)
{
    *(bool *)opaque = true;
}

/* Turn the loop as long as @test says so, but not for ever. */
static void settle(Daemon *daemon, Unsettled *test, int64_t ns)
{
    AioContext *ctx = block_graph_aio_context(daemon->graph);
    bool over = false;
    AioTimer *timer = aio_timer_new(ctx, time_is_over, &over);

    aio_timer_set(timer, aio_clock_ns(ctx) + ns);
    while (!over && test(daemon)) {
        daemon_hmp_let_go(daemon);
        daemon_turn(daemon);
    }
    aio_timer_free(timer);
}

static void free_chardevs(Daemon *daemon)
{
    for (guint i = 0; i < daemon->chardevs->len; i++) {
        daemon_chardev_free(g_ptr_array_index(daemon->chardevs, i));
    }
    g_ptr_array_unref(daemon->chardevs);
}

/* Clients first: what they do keeps jobs busy. */
static void stop_work(Daemon *daemon)
{
    blk_nbd_server_stop(daemon->graph);
    blk_exp_close_all(daemon->graph);
    block_job_cancel_all(daemon->graph);
}

/* What is in memory of a node. */
typedef struct Flush {
    Daemon *daemon;
    BlockDriverState *bs;
} Flush;

static void coroutine_fn flush_entry(void *opaque)
{
    Flush *flush = opaque;
    int ret = bdrv_co_flush(flush->bs);

    if (ret < 0) {
        tool_error("Node '%s': could not write what was in memory: %s",
                   bdrv_node_name(flush->bs), strerror(-ret));
        flush->daemon->flush_failed = true;
    }
    bdrv_co_unref(flush->bs);
    flush->daemon->nr_flushes--;
    g_free(flush);
}

static bool flush_runs(const Daemon *daemon)
{
    return daemon->nr_flushes > 0;
}

/* All at once: one that does not answer must not keep the others. */
static void begin_flushes(Daemon *daemon)
{
    BlockDriverState *bs = NULL;

    while ((bs = bdrv_next_node(daemon->graph, bs)) != NULL) {
        Flush *flush = g_new(Flush, 1);

        *flush = (Flush){ .daemon = daemon, .bs = bdrv_ref(bs) };
        daemon->nr_flushes++;
        aio_co_enter(block_graph_aio_context(daemon->graph),
                     coroutine_create(flush_entry, flush));
    }
}

/* Something does not end.  The nodes cannot be closed then, but what is in
 * memory of the others is not lost. */
static int give_up(Daemon *daemon)
{
    tool_error("A command does not end: giving up");
    begin_flushes(daemon);
    settle(daemon, flush_runs, FLUSHES_NS);
    free_chardevs(daemon);
    daemon_process_end(daemon);
    return EXIT_FAILURE;
}

/* From now on no command begins. */
static void begin_end(Daemon *daemon)
{
    if (daemon->server->quit_reason) {
        qmp_server_event(daemon->server, "SHUTDOWN",
                         json_pack("{s:b, s:s}", "guest", 0, "reason",
                                   daemon->server->quit_reason));
    }
    qmp_server_quit(daemon->server, "host-error"); /* it could not begin */
    for (guint i = 0; i < daemon->chardevs->len; i++) {
        DaemonChardev *chardev = g_ptr_array_index(daemon->chardevs, i);

        if (chardev->socket) {
            qmp_socket_shutdown(chardev->socket);
        }
    }
}

/*
 * Nothing new begins; exports, jobs and nodes go, in this order; then whoever
 * listens has heard of it all.
 */
static int end(Daemon *daemon)
{
    unsigned before = block_graph_nr_losses(daemon->graph), losses;
    bool ended;

    begin_end(daemon);
    daemon_hmp_let_go(daemon);
    stop_work(daemon);
    settle(daemon, command_runs, COMMANDS_NS);
    block_graph_cancel_images(daemon->graph, true);
    settle(daemon, command_runs, CANCELLED_NS);
    if (qmp_server_is_busy(daemon->server)) {
        return give_up(daemon);
    }
    /* The last commands may have begun what the first time has missed. */
    stop_work(daemon);
    settle(daemon, output_waits, OUTPUT_NS);
    begin_flushes(daemon);
    while (flush_runs(daemon)) {
        daemon_turn(daemon);
    }
    daemon_hmp_end(daemon);
    free_chardevs(daemon);
    /* Nodes are closed, which must not be cut short by a first signal. */
    qmp_server_free(g_steal_pointer(&daemon->server));
    losses = block_graph_nr_losses(daemon->graph) - before;
    ended = tool_wait_for_jobs(daemon->graph);
    daemon_process_end(daemon);
    if (!ended) {
        return EXIT_FAILURE;
    }
    block_graph_free(daemon->graph);
    return daemon->flush_failed || losses > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- the beginning -------------------------------------------------------- */

/* Returns 0 or a negative errno, printed. */
static int begin(Daemon *daemon, int argc, char **argv)
{
    int ret = daemon_options(daemon, argc, argv);

    if (ret == 0) {
        daemon_check_chardevs(daemon);
    }
    if (ret == 0 && daemon->pidfile) {
        ret = daemon_write_pidfile(daemon);
    }
    return ret == 0 ? daemon_ready(daemon) : ret;
}

int main(int argc, char **argv)
{
    Daemon daemon = { .signal_fd = -1, .pidfile_fd = -1, .ready_fd = -1,
                      .image_timeout_ns = IMAGE_TIMEOUT_NS };
    GError *error = NULL;
    bool begun;
    int status;

    tool_set_program(argv, "bg-daemon");
    signal(SIGPIPE, SIG_IGN);
    setlinebuf(stdout);
    if (daemon_first_options(&daemon, argc, argv) < 0 ||
        (daemon.daemonize && daemon_fork(&daemon) < 0)) {
        return EXIT_FAILURE;
    }
    daemon.graph = block_graph_new(NULL, &error);
    if (!daemon.graph) {
        tool_report(error, NULL);
        return EXIT_FAILURE;
    }
    aio_context_set_polling(block_graph_aio_context(daemon.graph),
                            AIO_POLL_MAX_NS, 0, 0);
    daemon.server = qmp_server_new(daemon.graph);
    daemon.chardevs = g_ptr_array_new();
    daemon_catch_signals(&daemon);
    daemon_hmp_init(&daemon);
    begun = begin(&daemon, argc, argv) == 0;
    while (begun && !daemon.server->quit_reason) {
        daemon_turn(&daemon);
    }
    status = end(&daemon);
    return begun ? status : EXIT_FAILURE;
}
