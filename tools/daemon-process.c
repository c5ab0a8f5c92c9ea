/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-daemon and the system: signals, the background, the file of its id.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/daemon.h"
#include "tools/tool-print.h"

/* --- signals -------------------------------------------------------------- */

/* The first asks for an end in order, which may wait for disks and servers that
 * do not answer.  So the second does not. */
static void signal_came(void *opaque)
{
    Daemon *daemon = opaque;
    struct signalfd_siginfo info;

    if (read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (daemon->was_signalled) {
        tool_error("Ended by a second signal: what was not written is lost");
        if (daemon->pidfile_fd >= 0) {
            unlink(daemon->pidfile);
        }
        _exit(EXIT_FAILURE);
    }
    daemon->was_signalled = true;
    if (daemon->server) {
        qmp_server_quit(daemon->server, "host-signal");
    }
}

/* Those that end us.  Threads that are made later inherit the mask. */
static sigset_t block_signals(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(how, &set, NULL);
    return set;
}

void daemon_catch_signals(Daemon *daemon)
{
    sigset_t set = block_signals(SIG_BLOCK);

    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    g_assert(daemon->signal_fd >= 0);
    aio_set_fd_handler(block_graph_aio_context(daemon->graph),
                       daemon->signal_fd, signal_came, NULL, daemon);
}

/* --- the background ------------------------------------------------------- */

/* In the process that was started: end as the other one says. */
static void wait_until_ready(int fd)
{
    char status = EXIT_FAILURE;

    while (read(fd, &status, 1) < 0 && errno == EINTR) {
        continue;
    }
    _exit(status);
}

int daemon_fork(Daemon *daemon)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        tool_error("cannot daemonize: %s", strerror(errno));
        return -errno;
    }
    pid = fork();
    if (pid < 0) {
        tool_error("cannot daemonize: %s", strerror(errno));
        close(fds[0]);
        close(fds[1]);
        return -EAGAIN;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_until_ready(fds[0]);
    }
    close(fds[0]);
    setsid();
    daemon->ready_fd = fds[1];
    return 0;
}

int daemon_ready(Daemon *daemon)
{
    static const char success = EXIT_SUCCESS;
    int null;

    if (daemon->ready_fd < 0) {
        return 0;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir("/") < 0) {
        tool_error("cannot daemonize: %s", strerror(errno));
        if (null >= 0) {
            close(null);
        }
        return -EIO;
    }
    fflush(stdout);
    for (int fd = 0; fd <= 2; fd++) {
        dup2(null, fd);
    }
    close(null);
    if (write(daemon->ready_fd, &success, 1) != 1) {
        return -EIO;
    }
    close(daemon->ready_fd);
    daemon->ready_fd = -1;
    return 0;
}

/* --- the file of the process id ------------------------------------------- */

int daemon_write_pidfile(Daemon *daemon)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    g_autofree char *path = realpath(".", NULL);
    int fd = open(daemon->pidfile, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW,
                  0644);

    if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || ftruncate(fd, 0) < 0 ||
        write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        tool_error("cannot create PID file '%s': %s", daemon->pidfile,
                   strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -EIO;
    }
    daemon->pidfile_fd = fd;
    /* To be removed later, when the working directory may be another. */
    if (!g_path_is_absolute(daemon->pidfile) && path) {
        char *full = g_build_filename(path, daemon->pidfile, NULL);

        g_free(daemon->pidfile);
        daemon->pidfile = full;
    }
    return 0;
}

void daemon_process_end(Daemon *daemon)
{
    if (daemon->pidfile_fd >= 0) {
        unlink(daemon->pidfile);
        close(daemon->pidfile_fd);
    }
    g_free(daemon->pidfile);
    g_free(daemon->image_root);
    if (daemon->signal_fd >= 0) {
        aio_set_fd_handler(block_graph_aio_context(daemon->graph),
                           daemon->signal_fd, NULL, NULL, NULL);
        close(daemon->signal_fd);
        block_signals(SIG_UNBLOCK); /* nobody reads them any more */
    }
}
