/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of bg-daemon.
 *
 * What options describe is done in their order: a node is there before the
 * export that names it, if it stands before it.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <blockgraph/export.h>

#include "tools/daemon.h"
#include "tools/tool-objects.h"
#include "tools/tool-options.h"
#include "tools/tool-print.h"
#include "tools/tool-trace.h"

enum {
    OPTION_BLOCKDEV = 256,
    OPTION_CHARDEV,
    OPTION_DAEMONIZE,
    OPTION_EXPORT,
    OPTION_IMAGE_ROOT,
    OPTION_IMAGE_TIMEOUT,
    OPTION_MONITOR,
    OPTION_NBD_SERVER,
    OPTION_OBJECT,
    OPTION_PIDFILE,
    OPTION_PRINT_MANUAL,
    OPTION_UNTRUSTED,
};

static const struct option long_options[] = {
    { "blockdev", required_argument, NULL, OPTION_BLOCKDEV },
    { "chardev", required_argument, NULL, OPTION_CHARDEV },
    { "daemonize", no_argument, NULL, OPTION_DAEMONIZE },
    { "export", required_argument, NULL, OPTION_EXPORT },
    { "help", no_argument, NULL, 'h' },
    { "image-root", required_argument, NULL, OPTION_IMAGE_ROOT },
    { "image-timeout", required_argument, NULL, OPTION_IMAGE_TIMEOUT },
    { "monitor", required_argument, NULL, OPTION_MONITOR },
    { "nbd-server", required_argument, NULL, OPTION_NBD_SERVER },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { "print-manual", no_argument, NULL, OPTION_PRINT_MANUAL },
    { "pidfile", required_argument, NULL, OPTION_PIDFILE },
    { "trace", required_argument, NULL, 'T' },
    { "untrusted", no_argument, NULL, OPTION_UNTRUSTED },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static void print_help(void)
{
    printf(
"Usage: %s [OPTIONS]...\n"
"A daemon for disk images: nodes, jobs and exports, led over control sockets\n"
"\n"
"  --blockdev [driver=]DRIVER,node-name=NAME,...\n"
"                         open a node; also as a JSON object\n"
"  --chardev socket,id=ID,path=PATH,server=on[,wait=on]\n"
"  --chardev socket,id=ID,host=HOST,port=PORT,server=on[,wait=on]\n"
"                         describe a socket for a monitor, of unix or TCP\n"
"  --monitor [chardev=]ID[,mode=control][,pretty=on]\n"
"                         take control commands (QMP) at that socket\n"
"  --nbd-server addr.type=unix,addr.path=PATH\n"
"  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT[,tls-creds=ID]\n"
"                         listen for NBD clients\n"
"  --export [type=]nbd,id=ID,node-name=NODE[,name=NAME][,writable=on]...\n"
"                         let clients use a node\n"
"  --object [qom-type=]TYPE,id=ID,...\n"
"                         make an object: iothread, main-loop,\n"
"                         throttle-group, tls-creds-x509, tls-creds-psk,\n"
"                         secret\n"
"  --untrusted            open no file that only an image names\n"
"  --image-root DIR       open files that images name in this directory only\n"
"  --image-timeout SECONDS\n"
"                         give up opening or checking an image after so long\n"
"                         (default: 600; 0: never)\n"
"  --daemonize            go to the background when all is set up\n"
"  --pidfile PATH         write the process id to this file\n"
"  --print-manual         print the manual of all control commands and end\n"
"  -T, --trace EVENTS     accepted; there are no events to trace\n"
"  -h, --help             show this text and exit\n"
"  -V, --version          show the version and exit\n"
"\n"
"Options are done in the order in which they are given.  Each takes\n"
"key=value,... (dots in keys make nested objects) or a JSON object.\n"
"\n"
"SIGTERM, SIGINT, SIGHUP and the command 'quit' close exports, cancel jobs,\n"
"close nodes and end the daemon.\n", g_get_prgname());
}

/* --- nodes and objects ---------------------------------------------------- */

typedef int AddFn(QmpServer *server, BlockOptions *options, GError **errp);

typedef struct Add {
    QmpServer *server;
    AddFn *func;
    BlockOptions *options;
    GError *error;
} Add;

static int coroutine_fn add_entry(void *opaque)
{
    Add *add = opaque;

    return add->func(add->server, add->options, &add->error);
}

static int add(Daemon *daemon, AddFn *func, const char *implied_key,
               const char *option)
{
    Add call = { .server = daemon->server, .func = func };
    g_autofree char *what = NULL;
    int ret;

    call.options = tool_options_parse(optarg, implied_key, option);
    if (!call.options) {
        return -EINVAL;
    }
    what = func == qmp_co_object_add
               ? tool_options_object_name(call.options)
               : g_strdup_printf("%s %s", option, optarg);
    ret = aio_co_run(block_graph_aio_context(daemon->graph), add_entry, &call);
    if (ret < 0) {
        tool_report(call.error, what);
    }
    return ret;
}

static int coroutine_fn start_nbd_server(QmpServer *server,
                                         BlockOptions *options, GError **errp)
{
    return blk_co_nbd_server_start(server->graph, options, errp);
}

/* The loop does not begin then.  Returns 0 or a negative errno, printed. */
static int print_manual(Daemon *daemon)
{
    g_autofree char *text = qmp_server_manual(daemon->server);

    fputs(text, stdout);
    qmp_server_quit(daemon->server, "none");
    return tool_finish(EXIT_SUCCESS) == EXIT_SUCCESS ? 0 : -EIO;
}

/* For all nodes, wherever on the command line they are. */
static int set_trust(Daemon *daemon)
{
    GError *error = NULL;
    int ret;

    block_graph_set_untrusted(daemon->graph, daemon->untrusted);
    block_graph_set_image_timeout(daemon->graph, daemon->image_timeout_ns);
    ret = block_graph_set_image_root(daemon->graph, daemon->image_root, &error);
    if (ret < 0) {
        tool_report(error, "--image-root");
    }
    return ret;
}

/* --- all ------------------------------------------------------------------ */

int daemon_first_options(Daemon *daemon, int argc, char **argv)
{
    int letter;

    while ((letter = getopt_long(argc, argv, "hVT:", long_options,
                                 NULL)) != -1) {
        switch (letter) {
        case 'h':
            print_help();
            exit(tool_finish(EXIT_SUCCESS));
        case 'V':
            printf("%s version %s\n", g_get_prgname(), block_version());
            exit(tool_finish(EXIT_SUCCESS));
        case 'T':
            if (tool_trace(optarg) < 0) {
                return -EINVAL;
            }
            break;
        case OPTION_DAEMONIZE:
            daemon->daemonize = true;
            break;
        case OPTION_UNTRUSTED:
            daemon->untrusted = true;
            break;
        case OPTION_IMAGE_ROOT:
            g_free(daemon->image_root);
            daemon->image_root = g_strdup(optarg);
            break;
        case OPTION_IMAGE_TIMEOUT:
            if (tool_parse_seconds("--image-timeout", optarg,
                                   &daemon->image_timeout_ns) < 0) {
                return -EINVAL;
            }
            break;
        case OPTION_PIDFILE:
            g_free(daemon->pidfile);
            daemon->pidfile = g_strdup(optarg);
            break;
        case '?':
            tool_try_help();
            return -EINVAL;
        }
    }
    if (optind < argc) {
        tool_usage_error("Unexpected argument: %s", argv[optind]);
        return -EINVAL;
    }
    return 0;
}

int daemon_options(Daemon *daemon, int argc, char **argv)
{
    int ret = set_trust(daemon);
    int letter;

    optind = 0;     /* glibc: begin again */
    while (ret == 0 && !daemon->server->quit_reason &&
           (letter = getopt_long(argc, argv, "hVT:", long_options,
                                 NULL)) != -1) {
        switch (letter) {
        case OPTION_BLOCKDEV:
            ret = add(daemon, qmp_co_node_add, "driver", "--blockdev");
            break;
        case OPTION_OBJECT:
            tool_object_help(optarg);
            ret = add(daemon, qmp_co_object_add, "qom-type", "--object");
            break;
        case OPTION_PRINT_MANUAL:
            ret = print_manual(daemon);
            break;
        case OPTION_EXPORT:
            ret = add(daemon, qmp_co_export_add, "type", "--export");
            break;
        case OPTION_NBD_SERVER:
            ret = add(daemon, start_nbd_server, NULL, "--nbd-server");
            break;
        case OPTION_CHARDEV:
            ret = daemon_add_chardev(daemon, optarg);
            break;
        case OPTION_MONITOR:
            ret = daemon_add_monitor(daemon, optarg);
            break;
        }
    }
    return ret;
}
