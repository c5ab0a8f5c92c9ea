/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control sockets of bg-daemon: --chardev describes one, --monitor uses it.
 */
#include <errno.h>

#include "tools/daemon.h"
#include "tools/tool-options.h"
#include "tools/tool-print.h"

/* --- --chardev ------------------------------------------------------------ */

typedef struct ChardevOptions {
    char *backend;
    char *id;
    QmpAddress address;
    bool nodelay;
    bool server;
    bool wait;
} ChardevOptions;

#define CHARDEV(field) offsetof(ChardevOptions, field)

/* By the values of QmpOnOff. */
static const char *const on_off_names[] = { "auto", "on", "off", NULL };

static const BlockOption chardev_options[] = {
    { .name = "backend", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = CHARDEV(backend), .help = "socket" },
    { .name = "id", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = CHARDEV(id), .help = "by which --monitor refers to it" },
    { .name = "path", .type = BLOCK_OPTION_STRING,
      .offset = CHARDEV(address.path), .help = "of the unix socket" },
    { .name = "host", .type = BLOCK_OPTION_STRING,
      .offset = CHARDEV(address.host), .help = "TCP: name or number" },
    { .name = "port", .type = BLOCK_OPTION_STRING,
      .offset = CHARDEV(address.port), .help = "TCP: name or number" },
    { .name = "ipv4", .type = BLOCK_OPTION_ENUM, .def = "auto",
      .values = on_off_names, .offset = CHARDEV(address.ipv4),
      .help = "TCP: use it" },
    { .name = "ipv6", .type = BLOCK_OPTION_ENUM, .def = "auto",
      .values = on_off_names, .offset = CHARDEV(address.ipv6),
      .help = "TCP: use it" },
    { .name = "nodelay", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = CHARDEV(nodelay), .help = "is always so" },
    { .name = "plain-text", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = CHARDEV(address.plain_text),
      .help = "TCP: let other machines in" },
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
    g_free(chardev->address.path);
    g_free(chardev->address.host);
    g_free(chardev->address.port);
    g_free(chardev);
}

static int check_chardev(const Daemon *daemon, const ChardevOptions *o)
{
    GError *error = NULL;

    if (!g_str_equal(o->backend, "socket")) {
        tool_error("--chardev: '%s': only sockets are supported", o->backend);
        return -ENOTSUP;
    }
    if (find_chardev(daemon, o->id)) {
        tool_error("--chardev: there is a chardev '%s' already", o->id);
        return -EEXIST;
    }
    if (qmp_id_check(o->id, &error) < 0 ||
        qmp_address_check(&o->address, &error) < 0) {
        tool_report(error, "--chardev");
        return -EINVAL;
    }
    return 0;
}

int daemon_add_chardev(Daemon *daemon, const char *text)
{
    DaemonChardev *chardev;
    ChardevOptions o;
    int ret = tool_options_absorb(text, "--chardev", chardev_options, &o);

    if (ret < 0) {
        return ret;
    }
    ret = check_chardev(daemon, &o);
    if (ret == 0) {
        chardev = g_new0(DaemonChardev, 1);
        *chardev = (DaemonChardev){ .id = g_steal_pointer(&o.id),
                                    .address = o.address,
                                    .server = o.server, .wait = o.wait };
        o.address = (QmpAddress){ 0 };
        g_ptr_array_add(daemon->chardevs, chardev);
    }
    block_options_clear(chardev_options, &o);
    return ret;
}

/* --- --monitor ------------------------------------------------------------ */

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
      .offset = MONITOR(pretty), .help = "indent what is sent" },
    { .type = BLOCK_OPTION_END },
};

static int open_chardev(Daemon *daemon, DaemonChardev *chardev, bool pretty)
{
    GError *error = NULL;

    chardev->socket = chardev->server
        ? qmp_socket_listen(daemon->server, &chardev->address, pretty, &error)
        : qmp_socket_connect(daemon->server, &chardev->address, pretty,
                             &error);
    if (!chardev->socket) {
        tool_report(error, "--monitor");
        return -EINVAL;
    }
    while (chardev->wait && !qmp_socket_has_client(chardev->socket) &&
           !daemon->server->quit_reason) {
        daemon_turn(daemon);
    }
    return 0;
}

int daemon_add_monitor(Daemon *daemon, const char *text)
{
    DaemonChardev *chardev;
    MonitorOptions o;
    int ret = tool_options_absorb(text, "--monitor", monitor_options, &o);

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
    } else {
        ret = open_chardev(daemon, chardev, o.pretty);
    }
    block_options_clear(monitor_options, &o);
    return ret;
}

void daemon_check_chardevs(const Daemon *daemon)
{
    for (guint i = 0; i < daemon->chardevs->len; i++) {
        const DaemonChardev *chardev = g_ptr_array_index(daemon->chardevs, i);

        if (!chardev->socket) {
            tool_warning("--chardev '%s' is used by no --monitor: nobody can "
                         "connect", chardev->id);
        }
    }
}
