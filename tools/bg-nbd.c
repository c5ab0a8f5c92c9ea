/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-nbd: serve an image over NBD.
 *
 * Without -t the program ends when the last client that was served has left; a
 * handshake that fails is no client.  With --fork the first process ends when
 * clients can connect, and its exit status tells whether they can.
 */
#include <blockgraph/export.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <blockgraph/driver.h>
#include <blockgraph/image.h>

#include "tools/nbd-args.h"
#include "tools/tool-objects.h"
#include "tools/tool-overlay.h"
#include "tools/tool-name.h"
#include "tools/tool-print.h"

typedef struct Session {
    const NbdArgs *args;
    BlockGraph *graph;
    BlockDriverState *bs;
    bool read_only;             /* what clients get */
    int signal_fd;
    bool told_to_end;
} Session;

/* --- the background ------------------------------------------------------- */

/*
 * Returns the end of a pipe on which the child says that it is ready; in the
 * first process it does not return.
 */
static int go_to_background(void)
{
    int fd[2];
    char ready = 0;
    pid_t child;

    if (pipe(fd) < 0 || (child = fork()) < 0) {
        tool_error("Failed to fork: %s", g_strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (child > 0) {
        close(fd[1]);
        /* Its messages go to our standard error. */
        _exit(read(fd[0], &ready, 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    close(fd[0]);
    setsid();
    return fd[1];
}

static void say_ready(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (chdir("/") < 0 || null < 0) {
        tool_error("Failed to go to the background: %s", g_strerror(errno));
        exit(EXIT_FAILURE);
    }
    for (int i = 0; i <= 2; i++) {
        dup2(null, i);
    }
    close(null);
    if (write(fd, "r", 1) != 1) {
        exit(EXIT_FAILURE);
    }
    close(fd);
}

static int write_pid_file(const char *path)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                  0644);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        tool_error("Failed to write the process number to '%s': %s", path,
                   g_strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    close(fd);
    return 0;
}

/* --- the image ------------------------------------------------------------ */

/*
 * A guess that a disk is raw is good for as long as nobody writes to it: a
 * client could make it look like another format, with a backing file, to
 * whoever guesses next.
 */
static void guess_format(Session *s, ToolImage *image)
{
    const NbdArgs *args = s->args;

    image->format = tool_guess_format(args->name, false);
    if (!g_strcmp0(image->format, "raw") && !tool_has_no_content(args->name) &&
        !args->snapshot && !s->read_only) {
        fprintf(stderr, "%s: note: '%s' is served read-only; with -f raw it can "
                "be written.\n", g_get_prgname(), args->name);
        s->read_only = true;
        image->read_only = true;
    }
}

static BlockOptions *image_options(Session *s, GError **errp)
{
    const NbdArgs *args = s->args;
    g_autoptr(BlockOptions) extra = tool_snapshot_options(args->load_snapshot);
    ToolImage image = args->image;
    bool guess;

    s->read_only = image.read_only;
    if (!image.format && !image.image_opts &&
        !g_str_has_prefix(args->name, "json:")) {
        guess_format(s, &image);
    }
    extra = extra ? extra : block_options_new();
    if (args->detect_zeroes) {
        block_options_set_str(extra, "detect-zeroes", args->detect_zeroes);
    }
    image.read_only |= args->snapshot;
    return tool_image_options(&image, args->name, extra, &guess, errp);
}

static int open_image(Session *s, GError **errp)
{
    BlockOptions *options = image_options(s, errp);

    if (!options) {
        return -EINVAL;
    }
    s->bs = s->args->snapshot ? tool_open_overlay(s->graph, options, errp)
                              : bdrv_open(s->graph, options, errp);
    return s->bs ? 0 : -EINVAL;
}

/* --- serving -------------------------------------------------------------- */

static int start_server(Session *s, GError **errp)
{
    const NbdArgs *args = s->args;
    BlockOptions *options = block_options_new();
    bool open_to_all = args->tls_creds || args->plain_text;

    if (args->socket_path) {
        block_options_set_str(options, "addr.type", "unix");
        block_options_set_str(options, "addr.path", args->socket_path);
    } else {
        block_options_set_str(options, "addr.type", "inet");
        block_options_set_str(options, "addr.host",
                              args->bind ? args->bind
                                         : open_to_all ? "" : "127.0.0.1");
        block_options_set_str(options, "addr.port",
                              args->port ? args->port : "10809");
    }
    if (args->tls_creds) {
        block_options_set_str(options, "tls-creds", args->tls_creds);
    }
    block_options_set_bool(options, "plain-text", args->plain_text);
    block_options_set_bool(options, "any-uid", args->any_uid);
    block_options_set_int(options, "max-connections", args->shared);
    block_options_set_int(options, "max-connections-per-peer", 0);
    return blk_nbd_server_start(s->graph, options, errp);
}

static int add_export(Session *s, GError **errp)
{
    const NbdArgs *args = s->args;
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "type", "nbd");
    block_options_set_str(options, "id", "bg-nbd");
    block_options_set_str(options, "node-name", bdrv_node_name(s->bs));
    block_options_set_bool(options, "writable", !s->read_only);
    block_options_set_bool(options, "writethrough",
                           args->image.write_through);
    block_options_set_str(options, "name",
                          args->export_name ? args->export_name : "");
    if (args->description) {
        block_options_set_str(options, "description", args->description);
    }
    if (args->bitmap) {
        block_options_set_str(options, "bitmap", args->bitmap);
    }
    block_options_set_bool(options, "allocation-depth",
                           args->allocation_depth);
    return blk_exp_add(s->graph, options, errp) ? 0 : -EINVAL;
}

static void on_signal(void *opaque)
{
    struct signalfd_siginfo info;
    Session *s = opaque;

    if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (s->told_to_end) {
        /* To end in order may mean to wait for what does not answer. */
        tool_error("Ended by a second signal: what was not written is lost");
        _exit(EXIT_FAILURE);
    }
    s->told_to_end = true;
}

/* From here on SIGTERM and the like end the program in order. */
static int watch_signals(Session *s, GError **errp)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0) {
        return block_error_errno(errp, errno, "Could not watch signals");
    }
    aio_set_fd_handler(block_graph_aio_context(s->graph), s->signal_fd,
                       on_signal, NULL, s);
    return 0;
}

static bool last_client_left(Session *s)
{
    BlockNbdServerInfo info;

    return blk_nbd_server_query(s->graph, &info) && info.nr_served > 0 &&
           info.nr_clients == info.nr_handshakes;
}

static void serve(Session *s)
{
    AioContext *ctx = block_graph_aio_context(s->graph);

    while (!s->told_to_end &&
           (s->args->persistent || !last_client_left(s))) {
        aio_poll(ctx, true);
    }
}

static int coroutine_fn flush_entry(void *opaque)
{
    return bdrv_co_flush(opaque);
}

/* Returns 0, or a negative errno, printed: data is lost. */
static int flush(Session *s)
{
    int ret = aio_co_run(block_graph_aio_context(s->graph), flush_entry, s->bs);

    if (ret < 0) {
        tool_error("'%s': could not write what was in memory: %s",
                   s->args->name, strerror(-ret));
    }
    return ret;
}

/* Returns the status of the program. */
static int session_end(Session *s, int status)
{
    if (s->graph) {
        blk_nbd_server_stop(s->graph);
        if (s->bs && flush(s) < 0) {
            status = EXIT_FAILURE;
        }
    }
    if (s->signal_fd >= 0) {
        aio_set_fd_handler(block_graph_aio_context(s->graph), s->signal_fd,
                           NULL, NULL, NULL);
        close(s->signal_fd);
    }
    if (s->graph) {
        bdrv_unref(s->bs);
        if (block_graph_nr_losses(s->graph) > 0) {
            status = EXIT_FAILURE;
        }
        tool_graph_free(s->graph);
    }
    return status;
}

static int session_run(Session *s, GError **errp)
{
    int ready_fd = -1;

    if (s->args->fork) {
        ready_fd = go_to_background();
    }
    s->graph = tool_graph_new(AIO_POLL_MAX_NS);
    if (!s->graph || watch_signals(s, errp) < 0) {
        return -1;
    }
    if (open_image(s, errp) < 0) {
        g_prefix_error(errp, "Failed to open '%s': ", s->args->name);
        return -1;
    }
    if (start_server(s, errp) < 0 || add_export(s, errp) < 0) {
        return -1;
    }
    if (s->args->pid_file && write_pid_file(s->args->pid_file) < 0) {
        return -1;
    }
    if (ready_fd >= 0) {
        say_ready(ready_fd);
    }
    serve(s);
    if (s->args->pid_file) {
        unlink(s->args->pid_file);
    }
    return 0;
}

int main(int argc, char **argv)
{
    NbdArgs args;
    Session s = { .args = &args, .signal_fd = -1 };
    GError *error = NULL;
    int status;

    tool_set_program(argv, "bg-nbd");
    status = nbd_args_parse(&args, argc, argv);
    if (status < 0 && args.list) {
        status = nbd_list(&args);
    } else if (status < 0) {
        status = session_run(&s, &error) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        if (error) {
            tool_error("%s", error->message);
            g_error_free(error);
        }
        status = session_end(&s, status);
    }
    return tool_finish(status);
}
