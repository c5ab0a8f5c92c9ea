/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Child processes that may die at any time, and what they have said.
 */
#include "sim/supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How much of what a child has said fits a message. */
#define SAID_BYTES 900

/* For the last words of a child that takes too long. */
#define GRACE_MS 300

int64_t sim_real_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void *sim_shared_new(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        g_error("Cannot share %zu bytes with children: %s", size,
                g_strerror(errno));
    }
    return memory;
}

void sim_shared_free(void *memory, size_t size)
{
    munmap(memory, size);
}

/* --- life ----------------------------------------------------------------- */

/* In a child: its output is not that of our caller. */
static bool says_to_memory;

/* What the child says goes to memory; ours stays ours. */
static void begin_child(int err_fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(0);  /* the parent died before the line above */
    }
    /* What our program does on them is not for its children. */
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    if (err_fd >= 0) {
        dup2(err_fd, STDERR_FILENO);
        dup2(err_fd, STDOUT_FILENO);
        close(err_fd);
        says_to_memory = true;
    }
}

void sim_child_begin_run(void)
{
    if (!says_to_memory) {
        return;
    }
    fflush(stdout);
    if (lseek(STDERR_FILENO, 0, SEEK_CUR) > 0 &&
        ftruncate(STDERR_FILENO, 0) == 0) {
        lseek(STDERR_FILENO, 0, SEEK_SET);
    }
}

bool sim_child_start(SimChild *child)
{
    pid_t parent = getpid();
    pid_t pid;
    int err_fd = memfd_create("bg-sim-stderr", MFD_CLOEXEC);

    fflush(NULL);  /* else what is buffered would be written twice */
    pid = fork();
    if (pid < 0) {
        g_error("Cannot fork: %s", g_strerror(errno));
    }
    if (pid == 0) {
        begin_child(err_fd, parent);
        return false;
    }
    child->pid = pid;
    child->err_fd = err_fd;
    child->pidfd = pidfd_open(pid, 0);
    return true;
}

static void forget(SimChild *child)
{
    if (child->pidfd >= 0) {
        close(child->pidfd);
    }
    child->pid = 0;
}

/* --- leaks ---------------------------------------------------------------- */

/* Of the address sanitizer, where it is linked. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

bool sim_child_find_leaks(BgSimResult *result)
{
    g_autofree char *message = NULL;
    char said[SAID_BYTES + 1];
    ssize_t n;

    if (!says_to_memory || !__lsan_do_recoverable_leak_check) {
        return false;
    }
    sim_child_begin_run();
    if (!__lsan_do_recoverable_leak_check()) {
        return false;
    }
    n = pread(STDERR_FILENO, said, SAID_BYTES, 0);
    said[MAX(n, 0)] = 0;
    message = g_strdup_printf("memory was lost in this run or in one before "
                              "it in the same process: %s", said);
    result->failed = false;
    sim_result_fail(result, "leak", message);
    return true;
}

/* --- the last words ------------------------------------------------------- */

static const int fatal_signals[] = { SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV,
                                     SIGTERM, SIGTRAP };

static struct {
    void (*publish)(void *opaque);
    void *opaque;
    struct sigaction old[G_N_ELEMENTS(fatal_signals)];
} last_words;

/*
 * On a stack of its own: that of the coroutine may be what has run out.  Then
 * whoever was in charge before goes on: a sanitizer, or the kernel.
 */
static void on_fatal_signal(int sig)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(fatal_signals); i++) {
        sigaction(fatal_signals[i], &last_words.old[i], NULL);
    }
    last_words.publish(last_words.opaque);
    raise(sig);
}

void sim_child_catch(void (*publish)(void *opaque), void *opaque)
{
    static char stack[64 << 10];
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
    struct sigaction action = { .sa_handler = on_fatal_signal,
                                .sa_flags = SA_ONSTACK };

    last_words.publish = publish;
    last_words.opaque = opaque;
    sigaltstack(&alternate, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(fatal_signals); i++) {
        sigaction(fatal_signals[i], &action, &last_words.old[i]);
    }
}

/* --- the end -------------------------------------------------------------- */

bool sim_child_poll(SimChild *child, int *status)
{
    pid_t ret = waitpid(child->pid, status, WNOHANG);

    g_assert(ret == 0 || ret == child->pid);
    if (ret > 0) {
        forget(child);
    }
    return ret > 0;
}

int sim_child_end(SimChild *child, bool do_kill)
{
    int status = 0;
    pid_t ret;

    if (do_kill) {
        struct pollfd p = { child->pidfd, POLLIN, 0 };

        kill(child->pid, SIGTERM);
        poll(&p, 1, GRACE_MS);
        kill(child->pid, SIGKILL);
    }
    do {
        ret = waitpid(child->pid, &status, 0);
    } while (ret < 0 && errno == EINTR);
    g_assert(ret == child->pid);
    forget(child);
    return status;
}

/* --- reports -------------------------------------------------------------- */

static bool is_noise(char c)
{
    return g_ascii_isspace(c) || c == '*' || c == '=';
}

/* What it said first: asserts and sanitizers put the reason there. */
static char *take_said(SimChild *child)
{
    char *said = g_malloc0(SAID_BYTES + 1);
    size_t skip = 0;
    ssize_t n = child->err_fd >= 0 ? pread(child->err_fd, said, SAID_BYTES, 0)
                                   : 0;

    said[MAX(n, 0)] = 0;
    while (is_noise(said[skip])) {
        skip++;
    }
    memmove(said, said + skip, strlen(said + skip) + 1);
    return g_strchomp(said);
}

static char *tell_status(int status, int64_t limit_ns)
{
    if (limit_ns > 0) {
        return g_strdup_printf("no end after %" G_GINT64_FORMAT " ms of real "
                               "time; killed", limit_ns / 1000000);
    }
    if (WIFSIGNALED(status)) {
        return g_strdup_printf("killed by signal %d (%s)", WTERMSIG(status),
                               strsignal(WTERMSIG(status)));
    }
    return g_strdup_printf("ended by itself with status %d",
                           WEXITSTATUS(status));
}

void sim_child_explain(SimChild *child, int status, int64_t limit_ns,
                       BgSimResult *result)
{
    bool known = limit_ns == 0 && WIFEXITED(status) &&
                 WEXITSTATUS(status) == SIM_EXIT_VIOLATION && result->failed;
    g_autofree char *said = take_said(child);
    g_autofree char *how = tell_status(status, limit_ns);
    g_autofree char *message = g_strdup_printf("%s%s%s", how,
                                               said[0] ? ": " : "", said);

    if (child->err_fd >= 0) {
        close(child->err_fd);
        child->err_fd = -1;
    }
    if (!known) {
        result->failed = false;
        sim_result_fail(result, limit_ns > 0 ? "timeout" : "crash", message);
    }
}
