/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-daemon: what its files share.  Everything runs in the main thread.
 */
#ifndef TOOLS_DAEMON_H
#define TOOLS_DAEMON_H

#include "monitor/qmp-server.h"
#include "monitor/qmp-socket.h"

/** A socket that --chardev describes and --monitor uses. */
typedef struct DaemonChardev {
    char *id;
    QmpAddress address;
    bool server;      /* listen; else connect */
    bool wait;        /* until a client is there */
    QmpSocket *socket; /* NULL: no --monitor has used it */
} DaemonChardev;

typedef struct DaemonHmp DaemonHmp;

typedef struct Daemon {
    BlockGraph *graph;
    QmpServer *server;   /* NULL: late in the end */
    GPtrArray *chardevs; /* DaemonChardev */
    DaemonHmp *hmp;
    int signal_fd;
    unsigned nr_flushes; /* that run, at the end */
    bool flush_failed;
    bool was_signalled;  /* once: the end has been asked for */
    char *pidfile;       /* NULL: none */
    char *image_root;    /* files that images name are there; NULL: anywhere */
    bool untrusted;      /* they are not opened */
    int64_t image_timeout_ns; /* to open or check one; 0: no limit */
    int pidfile_fd;      /* holds its lock; -1: none */
    bool daemonize;
    int ready_fd;        /* to the process that was started; -1: none */
} Daemon;

/* --- daemon-options.c: the command line ----------------------------------- */

/**
 * Look at the options that are needed before all others, and check the names
 * of all.  --help and --version do not return.
 *
 * Returns 0 or a negative errno, printed.
 */
int daemon_first_options(Daemon *daemon, int argc, char **argv);

/** Do what the other options say, in their order.  As above. */
int daemon_options(Daemon *daemon, int argc, char **argv);

/* --- daemon-chardev.c: control sockets ------------------------------------ */

/** Do what --chardev @text says.  Returns 0 or a negative errno, printed. */
int daemon_add_chardev(Daemon *daemon, const char *text);

/** Do what --monitor @text says, which may wait for a client.  As above. */
int daemon_add_monitor(Daemon *daemon, const char *text);

/** Warn of each --chardev that no --monitor uses: nobody can connect to it. */
void daemon_check_chardevs(const Daemon *daemon);

/** Free @chardev. */
void daemon_chardev_free(DaemonChardev *chardev);

/* --- daemon-process.c: what has to do with the system --------------------- */

/**
 * Go to the background: the process that was started waits for
 * daemon_ready(), and ends with 1 if this one ends before.  Only while there
 * is one thread.  Returns 0 or a negative errno, printed.
 */
int daemon_fork(Daemon *daemon);

/** All is set up: let go of the terminal and of whoever started us. */
int daemon_ready(Daemon *daemon);

/** Write the process id to the file, which is locked until the end.  Returns 0
 * or a negative errno, printed. */
int daemon_write_pidfile(Daemon *daemon);

/** Have SIGINT, SIGTERM and SIGHUP ask the server to quit. */
void daemon_catch_signals(Daemon *daemon);

/** Undo all of them.  Signals end us at once from now on. */
void daemon_process_end(Daemon *daemon);

/* --- daemon-hmp.c: human-monitor-command ---------------------------------- */

/** Add the command to the server of @daemon. */
void daemon_hmp_init(Daemon *daemon);

/** Let go of nodes that no request uses any more.  Between two turns. */
void daemon_hmp_sweep(Daemon *daemon);

/** Let requests go that break points hold; the end must not wait for them. */
void daemon_hmp_let_go(Daemon *daemon);

/** Wait for the requests of all commands. */
void daemon_hmp_end(Daemon *daemon);

/* --- bg-daemon.c ---------------------------------------------------------- */

/** One turn of the loop, and what cannot run inside it. */
void daemon_turn(Daemon *daemon);

#endif /* TOOLS_DAEMON_H */
