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
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <blockgraph/export.h>

#include "tools/daemon.h"
#include "tools/tool-print.h"

enum {
    OPTION_BLOCKDEV = 256,
    OPTION_CHARDEV,
    OPTION_DAEMONIZE,
    OPTION_EXPORT,
    OPTION_MONITOR,
    OPTION_NBD_SERVER,
    OPTION_OBJECT,
    OPTION_PIDFILE,
    OPTION_PRINT_MANUAL,
};

static const struct option long_options[] = {
    { "blockdev", required_argument, NULL, OPTION_BLOCKDEV },
    { "chardev", required_argument, NULL, OPTION_CHARDEV },
    { "daemonize", no_argument, NULL, OPTION_DAEMONIZE },
    { "export", required_argument, NULL, OPTION_EXPORT },
    { "help", no_argument, NULL, 'h' },
    { "monitor", required_argument, NULL, OPTION_MONITOR },
    { "nbd-server", required_argument, NULL, OPTION_NBD_SERVER },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { "print-manual", no_argument, NULL, OPTION_PRINT_MANUAL },
    { "pidfile", required_argument, NULL, OPTION_PIDFILE },
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
"                         describe a unix socket for a monitor\n"
"  --monitor [chardev=]ID[,mode=control]\n"
"                         take control commands (QMP) at that socket\n"
"  --nbd-server addr.type=unix,addr.path=PATH\n"
"  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT[,tls-creds=ID]\n"
"                         listen for NBD clients\n"
"  --export [type=]nbd,id=ID,node-name=NODE[,name=NAME][,writable=on]...\n"
"                         let clients use a node\n"
"  --object [qom-type=]TYPE,id=ID,...\n"
"                         make an object: iothread, throttle-group,\n"
"                         tls-creds-x509, tls-creds-psk, secret\n"
"  --daemonize            go to the background when all is set up\n"
"  --pidfile PATH         write the process id to this file\n"
"  --print-manual         print the manual of all control commands and end\n"
"  -h, --help             show this text and exit\n"
"  -V, --version          show the version and exit\n"
"\n"
"Options are done in the order in which they are given.  Each takes\n"
"key=value,... (dots in keys make nested objects) or a JSON object.\n"
"\n"
"SIGTERM, SIGINT, SIGHUP and the command 'quit' close exports, cancel jobs,\n"
"close nodes and end the daemon.\n", g_get_prgname());
}

/* "key=value,..." or a JSON object; NULL: printed. */
static BlockOptions *parse(const char *text, const char *implied_key,
                           const char *option)
{
    GError *error = NULL;
    BlockOptions *options = text[0] == '{'
        ? block_options_parse_json(text, &error)
        : block_options_parse_keyval(text, implied_key, &error);

    if (!options) {
        tool_report(error, option);
    }
    return options;
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
    int ret;

    call.options = parse(optarg, implied_key, option);
    if (!call.options) {
        return -EINVAL;
    }
    ret = aio_co_run(block_graph_aio_context(daemon->graph), add_entry, &call);
    if (ret < 0) {
        g_autofree char *what = g_strdup_printf("%s %s", option, optarg);

        tool_report(call.error, what);
    }
    return ret;
}

static int coroutine_fn start_nbd_server(QmpServer *server,
                                         BlockOptions *options, GError **errp)
{
    return blk_co_nbd_server_start(server->graph, options, errp);
}

/* --- control sockets ------------------------------------------------------ */

typedef struct ChardevOptions {
    char *backend;
    char *id;
    char *path;
    bool server;
    bool wait;
} ChardevOptions;

#define CHARDEV(field) offsetof(ChardevOptions, field)

static const BlockOption chardev_options[] = {
    { .name = "backend", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = CHARDEV(backend), .help = "socket" },
    { .name = "id", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = CHARDEV(id), .help = "by which --monitor refers to it" },
    { .name = "path", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = CHARDEV(path), .help = "of the unix socket" },
    { .name = "server", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CHARDEV(server), .help = "listen; else connect" },
    { .name = "wait", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CHARDEV(wait), .help = "until a client is there" },
    { .type = BLOCK_OPTION_END },
};

static DaemonChardev *find_chardev(const Daemon *daemon, const char *id)
{
    for (guint i = 0; i < daemon->chardevs->len; i++) {
        DaemonChardev *chardev = g_ptr_array_index(daemon->chardevs, i);

        if (g_str_equal(chardev->id, id)) {
            return chardev;
        }
    }
    return NULL;
}

void daemon_chardev_free(DaemonChardev *chardev)
{
    qmp_socket_free(chardev->socket);
    g_free(chardev->id);
    g_free(chardev->path);
    g_free(chardev);
}

static int add_chardev(Daemon *daemon, ChardevOptions *o)
{
    DaemonChardev *chardev;

    if (!g_str_equal(o->backend, "socket")) {
        tool_error("--chardev: '%s': only sockets are supported", o->backend);
        return -ENOTSUP;
    }
    if (find_chardev(daemon, o->id)) {
        tool_error("--chardev: there is a chardev '%s' already", o->id);
        return -EEXIST;
    }
    chardev = g_new0(DaemonChardev, 1);
    *chardev = (DaemonChardev){ .id = g_steal_pointer(&o->id),
                                .path = g_steal_pointer(&o->path),
                                .server = o->server, .wait = o->wait };
    g_ptr_array_add(daemon->chardevs, chardev);
    return 0;
}

/* Take all of @table out of "key=value,...".  0 or a negative errno,
 * printed. */
static int absorb(const char *option, const char *implied_key,
                  const BlockOption *table, void *target)
{
    const BlockOption *const known[] = { table, NULL };
    BlockOptions *options = parse(optarg, implied_key, option);
    GError *error = NULL;
    int ret;

    if (!options) {
        return -EINVAL;
    }
    ret = block_options_absorb(options, table, target, option, &error);
    if (ret == 0) {
        ret = block_options_check_empty(options, known, option, &error);
        if (ret < 0) {
            block_options_clear(table, target);
        }
    }
    if (ret < 0) {
        tool_report(error, NULL);
    }
    block_options_free(options);
    return ret;
}

static int option_chardev(Daemon *daemon)
{
    ChardevOptions o;
    int ret = absorb("--chardev", "backend", chardev_options, &o);

    if (ret == 0) {
        ret = add_chardev(daemon, &o);
        block_options_clear(chardev_options, &o);
    }
    return ret;
}

/* Returns a socket, or a negative errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int err = errno;

        close(fd);
        return -err;
    }
    return fd;
}

static int open_chardev(Daemon *daemon, DaemonChardev *chardev)
{
    GError *error = NULL;
    int fd;

    if (chardev->server) {
        chardev->socket = qmp_socket_listen(daemon->server, chardev->path,
                                            &error);
        if (!chardev->socket) {
            tool_report(error, "--monitor");
            return -EINVAL;
        }
    } else {
        fd = connect_to(chardev->path);
        if (fd < 0) {
            tool_error("--monitor: could not connect to '%s': %s",
                       chardev->path, strerror(-fd));
            return fd;
        }
        chardev->socket = qmp_socket_connected(daemon->server, fd);
    }
    while (chardev->wait && !qmp_socket_has_client(chardev->socket) &&
           !daemon->server->quit_reason) {
        daemon_turn(daemon);
    }
    return 0;
}

typedef struct MonitorOptions {
    char *chardev;
    int mode;
    bool pretty;
} MonitorOptions;

#define MONITOR(field) offsetof(MonitorOptions, field)

static const char *const mode_names[] = { "control", NULL };

static const BlockOption monitor_options[] = {
    { .name = "chardev", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = MONITOR(chardev), .help = "id of a --chardev" },
    { .name = "mode", .type = BLOCK_OPTION_ENUM, .def = "control",
      .values = mode_names, .offset = MONITOR(mode), .help = "control" },
    { .name = "pretty", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = MONITOR(pretty), .help = "off" },
    { .type = BLOCK_OPTION_END },
};

static int option_monitor(Daemon *daemon)
{
    DaemonChardev *chardev;
    MonitorOptions o;
    int ret = absorb("--monitor", "chardev", monitor_options, &o);

    if (ret < 0) {
        return ret;
    }
    chardev = find_chardev(daemon, o.chardev);
    if (!chardev) {
        tool_error("--monitor: there is no chardev '%s'", o.chardev);
        ret = -ENOENT;
    } else if (chardev->socket) {
        tool_error("--monitor: chardev '%s' is in use", o.chardev);
        ret = -EBUSY;
    } else if (o.pretty) {
        tool_error("--monitor: pretty=on is not supported");
        ret = -ENOTSUP;
    } else {
        ret = open_chardev(daemon, chardev);
    }
    block_options_clear(monitor_options, &o);
    return ret;
}

/* The loop does not begin then. */
static void print_manual(Daemon *daemon)
{
    g_autofree char *text = qmp_server_manual(daemon->server);

    fputs(text, stdout);
    qmp_server_quit(daemon->server, "none");
}

/* --- all ------------------------------------------------------------------ */

int daemon_first_options(Daemon *daemon, int argc, char **argv)
{
    int letter;

    while ((letter = getopt_long(argc, argv, "hV", long_options,
                                 NULL)) != -1) {
        switch (letter) {
        case 'h':
            print_help();
            exit(EXIT_SUCCESS);
        case 'V':
            printf("%s version %s\n", g_get_prgname(), block_version());
            exit(EXIT_SUCCESS);
        case OPTION_DAEMONIZE:
            daemon->daemonize = true;
            break;
        case OPTION_PIDFILE:
            g_free(daemon->pidfile);
            daemon->pidfile = g_strdup(optarg);
            break;
        case '?':
            return -EINVAL;
        }
    }
    if (optind < argc) {
        tool_error("Unexpected argument: %s", argv[optind]);
        return -EINVAL;
    }
    return 0;
}

int daemon_options(Daemon *daemon, int argc, char **argv)
{
    int ret = 0;
    int letter;

    optind = 0;     /* glibc: begin again */
    while (ret == 0 && !daemon->server->quit_reason &&
           (letter = getopt_long(argc, argv, "hV", long_options,
                                 NULL)) != -1) {
        switch (letter) {
        case OPTION_BLOCKDEV:
            ret = add(daemon, qmp_co_node_add, "driver", "--blockdev");
            break;
        case OPTION_OBJECT:
            ret = add(daemon, qmp_co_object_add, "qom-type", "--object");
            break;
        case OPTION_PRINT_MANUAL:
            print_manual(daemon);
            break;
        case OPTION_EXPORT:
            ret = add(daemon, qmp_co_export_add, "type", "--export");
            break;
        case OPTION_NBD_SERVER:
            ret = add(daemon, start_nbd_server, NULL, "--nbd-server");
            break;
        case OPTION_CHARDEV:
            ret = option_chardev(daemon);
            break;
        case OPTION_MONITOR:
            ret = option_monitor(daemon);
            break;
        }
    }
    return ret;
}
