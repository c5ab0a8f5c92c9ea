/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-io: try an image out, a command at a time.
 *
 * Commands come from -c or, without any, from standard input.  While the
 * program waits for a line, the event loop goes on: asynchronous requests end
 * and say so.  The exit status is 1 when the image could not be opened or any
 * command failed.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/io-command.h"
#include "tools/tool-objects.h"
#include "tools/tool-print.h"
#include "tools/tool-trace.h"

#define LINE_READ_BYTES 4096
#define PROMPT "bg-io> "

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
    OPTION_IMAGE_TIMEOUT,
};

typedef struct Arguments {
    ToolImage image;
    const char *name;       /* of the image, or NULL */
    GPtrArray *commands;    /* of -c; points into argv */
    bool misalign;
} Arguments;

static const struct option long_options[] = {
    { "aio", required_argument, NULL, 'i' },
    { "cache", required_argument, NULL, 't' },
    { "cmd", required_argument, NULL, 'c' },
    { "copy-on-read", no_argument, NULL, 'C' },
    { "discard", required_argument, NULL, 'd' },
    { "force-share", no_argument, NULL, 'U' },
    { "format", required_argument, NULL, 'f' },
    { "help", no_argument, NULL, 'h' },
    { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
    { "image-timeout", required_argument, NULL, OPTION_IMAGE_TIMEOUT },
    { "misalign", no_argument, NULL, 'm' },
    { "native-aio", no_argument, NULL, 'k' },
    { "nocache", no_argument, NULL, 'n' },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { "read-only", no_argument, NULL, 'r' },
    { "snapshot", no_argument, NULL, 's' },
    { "trace", required_argument, NULL, 'T' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static void print_help(void)
{
    printf(
"Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
"Read, write and look at an image, a command at a time\n"
"\n"
"  -c, --cmd STRING     run this command; may be given again.  Without any,\n"
"                       commands are read from standard input\n"
"  -f, --format FMT     the driver of the image (default: raw)\n"
"      --image-opts     the file argument is key=value,... text\n"
"      --image-timeout=SECONDS\n"
"                       give up opening an image after so long (default: 0,\n"
"                       never)\n"
"      --object=TYPE,id=ID,...\n"
"                       make an object, such as tls-creds-x509, tls-creds-psk,\n"
"                       secret, throttle-group, that the options refer to\n"
"  -r, --read-only      do not write\n"
"  -s, --snapshot       writes go to a temporary file\n"
"  -n, --nocache        past the page cache; the same as -t none\n"
"  -t, --cache=MODE     none, off, writeback, writethrough, directsync, unsafe\n"
"  -d, --discard=MODE   unmap, on (the default), ignore, off\n"
"  -i, --aio=MODE       threads, native or io_uring (native means io_uring)\n"
"  -k, --native-aio     the same as -i native\n"
"  -C, --copy-on-read   copy what is read from backing files into the image\n"
"  -m, --misalign       use buffers that are not aligned\n"
"  -U, --force-share    read even while others write; needs -r\n"
"  -h, --help           show this text and exit\n"
"  -V, --version        show the version and exit\n"
"  -T, --trace=EVENTS   accepted; there are no events to trace\n"
"\n"
"See '%s -c help' for the commands.\n",
        g_get_prgname(), g_get_prgname());
}

/* Returns 0 or a negative errno, printed. */
static int parse_option(Arguments *args, int letter)
{
    int ret;

    switch (letter) {
    case 'c':
        g_ptr_array_add(args->commands, optarg);
        return 0;
    case 'f':
        args->image.format = optarg;
        return 0;
    case 'm':
        args->misalign = true;
        return 0;
    case 'T':
        return tool_trace(optarg);
    case OPTION_IMAGE_OPTS:
        args->image.image_opts = true;
        return 0;
    case OPTION_IMAGE_TIMEOUT:
        return tool_graph_set_image_timeout(optarg);
    case OPTION_OBJECT:
        tool_objects_take(optarg);
        return 0;
    default:
        ret = io_image_option(&args->image, letter);
        if (ret > 0) {
            print_help();
        }
        return ret > 0 ? -EINVAL : ret;
    }
}

/* Returns 0 or a negative errno, printed.  -h and -V do not return. */
static int parse_arguments(Arguments *args, int argc, char **argv)
{
    int letter;

    while ((letter = getopt_long(argc, argv, "hVc:d:f:rsnCmki:t:T:U",
                                 long_options, NULL)) != -1) {
        int ret;

        if (letter == 'h') {
            print_help();
            exit(tool_finish(EXIT_SUCCESS));
        } else if (letter == 'V') {
            printf("%s version %s\n", g_get_prgname(), block_version());
            exit(tool_finish(EXIT_SUCCESS));
        }
        ret = parse_option(args, letter);
        if (ret < 0) {
            return ret;
        }
    }
    if (argc - optind > 1) {
        print_help();
        return -EINVAL;
    }
    if (args->image.format && args->image.image_opts) {
        tool_error("--image-opts and -f are mutually exclusive");
        return -EINVAL;
    }
    args->name = argv[optind];
    return 0;
}

/* --- where commands come from --------------------------------------------- */

static int run_commands(IoSession *io, const GPtrArray *commands)
{
    int first_error = 0;

    for (guint i = 0; i < commands->len && !io->quit; i++) {
        int ret = io_command_run(io, g_ptr_array_index(commands, i));

        first_error = first_error ? first_error : ret;
    }
    return first_error;
}

/* Turn the event loop until standard input has something to read. */
static void wait_for_input(AioContext *ctx)
{
    struct pollfd fds[] = {
        { .fd = STDIN_FILENO, .events = POLLIN },
        { .fd = aio_context_get_fd(ctx), .events = POLLIN },
    };

    for (;;) {
        int64_t wait_ns;

        while (aio_poll(ctx, false)) {
            /* whatever is ready */
        }
        wait_ns = aio_context_prepare(ctx);
        if (ppoll(fds, G_N_ELEMENTS(fds),
                  wait_ns < 0 ? NULL : &(struct timespec) {
                      wait_ns / 1000000000, wait_ns % 1000000000 },
                  NULL) > 0 && fds[0].revents) {
            return;
        }
    }
}

/* The next line without its end, or NULL.  @text holds what was read ahead. */
static char *read_line(AioContext *ctx, GString *text)
{
    char buf[LINE_READ_BYTES];
    char *line;
    char *end;
    ssize_t nr;

    while (!(end = memchr(text->str, '\n', text->len))) {
        wait_for_input(ctx);
        nr = read(STDIN_FILENO, buf, sizeof(buf));
        if (nr < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (nr <= 0) {
            break;
        }
        g_string_append_len(text, buf, nr);
    }
    if (!end && text->len == 0) {
        return NULL;
    }
    line = g_strndup(text->str, end ? (gsize)(end - text->str) : text->len);
    g_string_erase(text, 0, end ? end - text->str + 1 : -1);
    return line;
}

static int run_stdin(IoSession *io)
{
    AioContext *ctx = block_graph_aio_context(io->graph);
    GString *text = g_string_new(NULL);
    int first_error = 0;
    char *line;

    while (!io->quit) {
        int ret;

        printf(PROMPT);
        fflush(stdout);
        line = read_line(ctx, text);
        if (!line) {
            break;
        }
        ret = io_command_run(io, line);
        first_error = first_error ? first_error : ret;
        g_free(line);
    }
    g_string_free(text, TRUE);
    return first_error;
}

static int run(const Arguments *args)
{
    IoSession io = { .misalign = args->misalign };
    int ret = 0;

    io.graph = tool_graph_new(0);
    if (!io.graph) {
        return -EINVAL;
    }
    io.tags = g_ptr_array_new_with_free_func(g_free);
    io.told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (args->name) {
        ret = io_open(&io, &args->image, args->name, NULL);
    }
    if (ret == 0) {
        ret = args->commands->len ? run_commands(&io, args->commands) :
                                    run_stdin(&io);
    }
    io_close(&io);
    g_hash_table_unref(io.told);
    g_ptr_array_unref(io.tags);
    tool_graph_free(io.graph);
    return ret;
}

int main(int argc, char **argv)
{
    Arguments args = {
        .image.unmap = true,    /* unless -d says otherwise */
        .commands = g_ptr_array_new(),
    };
    int ret;

    tool_set_program(argv, "bg-io");
    ret = parse_arguments(&args, argc, argv);
    if (ret == 0) {
        ret = run(&args);
    }
    g_ptr_array_free(args.commands, TRUE);
    return tool_finish(ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}
