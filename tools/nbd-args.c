/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-nbd: the command line, as qemu-nbd has it for serving.
 */
#include "tools/nbd-args.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tool-objects.h"
#include "tools/tool-print.h"
#include "tools/tool-trace.h"

enum {
    OPTION_CACHE = 256,
    OPTION_AIO,
    OPTION_DISCARD,
    OPTION_DETECT_ZEROES,
    OPTION_IMAGE_OPTS,
    OPTION_IMAGE_TIMEOUT,
    OPTION_OBJECT,
    OPTION_FORK,
    OPTION_PID_FILE,
    OPTION_TLS_CREDS,
    OPTION_TLS_HOSTNAME,
    OPTION_PLAIN_TEXT,
    OPTION_ANY_UID,
    OPTION_TLS_AUTHZ,
    OPTION_SELINUX_LABEL,
};

static const struct option long_options[] = {
    { "aio", required_argument, NULL, OPTION_AIO },
    { "allocation-depth", no_argument, NULL, 'A' },
    { "any-uid", no_argument, NULL, OPTION_ANY_UID },
    { "bind", required_argument, NULL, 'b' },
    { "bitmap", required_argument, NULL, 'B' },
    { "cache", required_argument, NULL, OPTION_CACHE },
    { "connect", required_argument, NULL, 'c' },
    { "description", required_argument, NULL, 'D' },
    { "detect-zeroes", required_argument, NULL, OPTION_DETECT_ZEROES },
    { "discard", required_argument, NULL, OPTION_DISCARD },
    { "disconnect", no_argument, NULL, 'd' },
    { "export-name", required_argument, NULL, 'x' },
    { "fork", no_argument, NULL, OPTION_FORK },
    { "format", required_argument, NULL, 'f' },
    { "help", no_argument, NULL, 'h' },
    { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
    { "image-timeout", required_argument, NULL, OPTION_IMAGE_TIMEOUT },
    { "list", no_argument, NULL, 'L' },
    { "load-snapshot", required_argument, NULL, 'l' },
    { "nocache", no_argument, NULL, 'n' },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { "persistent", no_argument, NULL, 't' },
    { "pid-file", required_argument, NULL, OPTION_PID_FILE },
    { "plain-text", no_argument, NULL, OPTION_PLAIN_TEXT },
    { "port", required_argument, NULL, 'p' },
    { "read-only", no_argument, NULL, 'r' },
    { "selinux-label", required_argument, NULL, OPTION_SELINUX_LABEL },
    { "shared", required_argument, NULL, 'e' },
    { "snapshot", no_argument, NULL, 's' },
    { "socket", required_argument, NULL, 'k' },
    { "tls-authz", required_argument, NULL, OPTION_TLS_AUTHZ },
    { "tls-creds", required_argument, NULL, OPTION_TLS_CREDS },
    { "tls-hostname", required_argument, NULL, OPTION_TLS_HOSTNAME },
    { "trace", required_argument, NULL, 'T' },
    { "verbose", no_argument, NULL, 'v' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static void print_help(void)
{
    printf(
"Usage: %s [OPTIONS] FILE\n"
"  or:  %s -L [OPTIONS]\n"
"Serve a disk image over the NBD protocol\n"
"\n"
"Where:\n"
"  -k, --socket=PATH    listen at this unix socket\n"
"  -p, --port=PORT      listen at this TCP port (default: 10809)\n"
"  -b, --bind=ADDR      listen at this address (default: 127.0.0.1; with TLS or\n"
"                       --plain-text: all)\n"
"      --plain-text     let other machines in without TLS\n"
"      --any-uid        let other users of this machine in; the socket is made\n"
"                       with mode 0600, to be changed for them\n"
"      --tls-creds=ID   require TLS with the credentials of --object ID\n"
"      --object=TYPE,ID,...\n"
"                       make an object: tls-creds-x509, tls-creds-psk,\n"
"                       throttle-group, secret, main-loop\n"
"      --tls-hostname=NAME\n"
"                       with -L: name in the server's certificate\n"
"What:\n"
"  -f, --format=FORMAT  format of the image (default: guessed)\n"
"      --image-opts     FILE is key=value,... text\n"
"      --image-timeout=SECONDS\n"
"                       give up opening the image after so long (default: 0,\n"
"                       never)\n"
"  -r, --read-only      clients cannot write\n"
"  -s, --snapshot       writes go to a temporary file\n"
"  -l, --load-snapshot=SNAPSHOT\n"
"                       serve this internal snapshot, read-only; its ID or name,\n"
"                       or snapshot.id=ID, snapshot.name=NAME\n"
"  -n, --nocache        past the page cache\n"
"      --cache=MODE     none, off, writeback, writethrough, directsync, unsafe\n"
"      --aio=MODE       threads, native or io_uring\n"
"      --discard=MODE   unmap, on (the default), ignore, off\n"
"      --detect-zeroes=MODE\n"
"                       off (the default), on, unmap\n"
"How clients see it:\n"
"  -x, --export-name=NAME   default: the empty name\n"
"  -D, --description=TEXT\n"
"  -B, --bitmap=NAME    let clients read this dirty bitmap\n"
"  -A, --allocation-depth   let clients read which layer has what\n"
"How long:\n"
"  -e, --shared=NUM     clients at a time (default: 1; 0: no limit)\n"
"  -t, --persistent     go on after the last client has left\n"
"      --fork           go to the background when clients can connect\n"
"      --pid-file=PATH  write the process number there\n"
"Other:\n"
"  -L, --list           list the exports of the server at -k or -b and -p\n"
"  -v, --verbose        accepted\n"
"  -T, --trace=EVENTS   accepted; there are no events to trace\n"
"  -h, --help           show this text and exit\n"
"  -V, --version        show the version and exit\n"
"\n"
"There is no kernel device here: -c and -d are refused. So are --tls-authz and\n"
"--selinux-label: exports of bg-daemon take the names of clients (tls-clients),\n"
"and runcon(1) labels the process.\n",
        g_get_prgname(), g_get_prgname());
}

static int set_number(int *to, const char *text, const char *what)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (!*text || *end || value < 0 || value > 1000000) {
        tool_error("Invalid %s '%s'", what, text);
        return EXIT_FAILURE;
    }
    *to = value;
    return -1;
}

static int bad_mode(int ret, const char *what, const char *text)
{
    if (ret < 0) {
        tool_error("Invalid %s mode '%s'", what, text);
        return EXIT_FAILURE;
    }
    return -1;
}

static int set_detect_zeroes(NbdArgs *args, const char *mode)
{
    args->detect_zeroes = mode;
    return bad_mode(g_str_equal(mode, "off") || g_str_equal(mode, "on") ||
                    g_str_equal(mode, "unmap") ? 0 : -1, "detect-zeroes",
                    mode);
}

/* What may be said once only, or in one of two ways.  The option, or 0. */
static int first_of_kind(int option)
{
    switch (option) {
    case 'n':
        return OPTION_CACHE;
    case OPTION_CACHE:
    case OPTION_AIO:
    case OPTION_DISCARD:
        return option;
    default:
        return 0;
    }
}

/* Returns -1 to go on, or the exit status. */
static int check_once(NbdArgs *args, int option)
{
    int kind = first_of_kind(option);
    unsigned bit = kind ? 1u << (kind - OPTION_CACHE) : 0;

    if (args->given & bit) {
        tool_error("%s can only be specified once",
                   kind == OPTION_CACHE ? "-n and --cache"
                   : kind == OPTION_AIO ? "--aio" : "--discard");
        return EXIT_FAILURE;
    }
    args->given |= bit;
    return -1;
}

/* What others take from a store of rules that we have not. */
static int refuse(int option)
{
    if (option == OPTION_TLS_AUTHZ) {
        tool_error("--tls-authz: there are no objects that authorize; use "
                   "bg-daemon, whose --export has tls-clients, a list of the "
                   "names that certificates may have");
    } else {
        tool_error("--selinux-label: sockets have the label that the process "
                   "gives them; start it with runcon(1)");
    }
    return EXIT_FAILURE;
}

/* Options with a long name only, and rare ones. */
static int set_rare(NbdArgs *args, int option)
{
    switch (option) {
    case OPTION_CACHE:
        return bad_mode(tool_image_set_cache(&args->image, optarg), "cache",
                        optarg);
    case OPTION_AIO:
        return bad_mode(tool_image_set_aio(&args->image, optarg), "aio",
                        optarg);
    case OPTION_DISCARD:
        return bad_mode(tool_image_set_discard(&args->image, optarg),
                        "discard", optarg);
    case OPTION_DETECT_ZEROES:
        return set_detect_zeroes(args, optarg);
    case OPTION_IMAGE_OPTS:
        args->image.image_opts = true;
        return -1;
    case OPTION_IMAGE_TIMEOUT:
        return tool_graph_set_image_timeout(optarg) < 0 ? EXIT_FAILURE : -1;
    case OPTION_OBJECT:
        tool_objects_take(optarg);
        return -1;
    case OPTION_FORK:
        args->fork = true;
        return -1;
    case OPTION_PID_FILE:
        args->pid_file = optarg;
        return -1;
    case OPTION_TLS_CREDS:
        args->tls_creds = optarg;
        return -1;
    case OPTION_TLS_HOSTNAME:
        args->tls_hostname = optarg;
        return -1;
    case OPTION_PLAIN_TEXT:
        args->plain_text = true;
        return -1;
    case OPTION_ANY_UID:
        args->any_uid = true;
        return -1;
    case OPTION_TLS_AUTHZ:
    case OPTION_SELINUX_LABEL:
        return refuse(option);
    case 'T':
        return tool_trace(optarg) < 0 ? EXIT_FAILURE : -1;
    default:
        tool_try_help();
        return EXIT_FAILURE;
    }
}

static int refuse_device(void)
{
    tool_error("Kernel devices (-c, -d) are not supported");
    return EXIT_FAILURE;
}

/* What names something. */
static int set_text(NbdArgs *args, int option)
{
    switch (option) {
    case 'b': args->bind = optarg; return -1;
    case 'B': args->bitmap = optarg; return -1;
    case 'D': args->description = optarg; return -1;
    case 'f': args->image.format = optarg; return -1;
    case 'k': args->socket_path = optarg; return -1;
    case 'l': args->load_snapshot = optarg; return -1;
    case 'p': args->port = optarg; return -1;
    case 'x': args->export_name = optarg; return -1;
    default: return set_rare(args, option);
    }
}

/* Returns -1 to go on, or the exit status. */
static int set_option(NbdArgs *args, int option)
{
    switch (option) {
    case 'A': args->allocation_depth = true; return -1;
    case 'L': args->list = true; return -1;
    case 'n': args->image.nocache = true; return -1;
    case 'r': args->image.read_only = true; return -1;
    case 's': args->snapshot = true; return -1;
    case 't': args->persistent = true; return -1;
    case 'v': args->verbose = true; return -1;
    case 'e': return set_number(&args->shared, optarg, "number of clients");
    case 'c': case 'd': return refuse_device();
    case 'h': print_help(); return EXIT_SUCCESS;
    case 'V':
        printf("%s %s\n", g_get_prgname(), block_version());
        return EXIT_SUCCESS;
    default: return set_text(args, option);
    }
}

static int check_args(NbdArgs *args, int argc, char **argv)
{
    int nr = argc - optind;

    if (args->list ? nr != 0 : nr != 1) {
        tool_usage_error(nr > 0 || args->list ? "Invalid number of arguments"
                                              : "No image is named");
        return EXIT_FAILURE;
    }
    if (args->image.image_opts && args->image.format) {
        tool_error("--image-opts and -f are mutually exclusive");
        return EXIT_FAILURE;
    }
    if (args->list && (args->export_name || args->description ||
                       args->image.read_only || args->snapshot ||
                       args->image.image_opts || args->image.format)) {
        tool_error("List mode is incompatible with per-device settings");
        return EXIT_FAILURE;
    }
    if (args->socket_path && (args->bind || args->port)) {
        tool_error("Only one of -k and -b or -p may be used");
        return EXIT_FAILURE;
    }
    /* Nothing is written that could go elsewhere. */
    args->snapshot &= !args->image.read_only;
    /* What was, nobody changes; -s has writes go elsewhere. */
    args->image.read_only |= args->load_snapshot && !args->snapshot;
    args->name = args->list ? NULL : argv[optind];
    return -1;
}

int nbd_args_parse(NbdArgs *args, int argc, char **argv)
{
    int option;

    *args = (NbdArgs) { .shared = 1, .image.unmap = true };
    while ((option = getopt_long(argc, argv, "Ab:B:c:dD:e:f:hk:l:Lnp:rstT:vVx:",
                                 long_options, NULL)) != -1) {
        int ret = check_once(args, option);

        ret = ret < 0 ? set_option(args, option) : ret;
        if (ret >= 0) {
            return ret;
        }
    }
    return check_args(args, argc, argv);
}

