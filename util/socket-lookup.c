/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking up names.
 *
 * getaddrinfo() cannot be interrupted, and may take as long as all name servers
 * together.  So it has a thread of its own, which nobody joins: who does not
 * want to wait any more leaves, and the thread cleans up when it is done.
 */
#include "util/socket-lookup.h"

#include "util/lock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct Lookup {
    /* Set before the thread starts, never changed after. */
    char *host;                 /* or NULL */
    char *port;
    bool passive;

    /* Of the thread until @done, then of who waits. */
    int error;                  /* EAI_*, or 0 */
    struct addrinfo *found;

    Lock lock;

    /* Guarded by @lock.  Whoever comes second, the thread with its answer or
     * the one who waits with his leave, frees it all. */
    bool done;
    AioBH *answered;            /* NULL: nobody waits any more */
} Lookup;

static void lookup_free(Lookup *l)
{
    if (l->found) {
        freeaddrinfo(l->found);
    }
    g_free(l->host);
    g_free(l->port);
    g_free(l);
}

static void *lookup_main(void *opaque)
{
    Lookup *l = opaque;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = l->passive ? AI_PASSIVE : 0,
    };
    bool left = false;

    l->error = getaddrinfo(l->host, l->port, &hints, &l->found);
    WITH_LOCK(&l->lock) {
        l->done = true;
        left = !l->answered;
        if (!left) {
            /* Under the lock: it is not deleted before that is over. */
            aio_bh_schedule(l->answered);
        }
    }
    if (left) {
        lookup_free(l);
    }
    return NULL;
}

static bool start_thread(Lookup *l)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int err;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are the business of the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&thread, &attr, lookup_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return err == 0;
}

static void answered(void *opaque)
{
    co_sleep_wake(opaque);
}

/* Stop to wait.  Returns whether the answer is there. */
static bool leave(Lookup *l)
{
    AioBH *bh = NULL;
    bool done = false;

    WITH_LOCK(&l->lock) {
        bh = l->answered;
        l->answered = NULL;
        done = l->done;
    }
    aio_bh_delete(bh);
    return done;
}

/* The system takes a number, with a sign or blanks before it, too, modulo
 * 65536, and nothing for any port.  Names of services have a letter. */
static bool is_port(const char *port)
{
    for (const char *p = port; *p; p++) {
        if (g_ascii_isalpha(*p)) {
            return true;
        }
    }
    return *port && !port[strspn(port, "0123456789")] && strlen(port) <= 5 &&
           atoi(port) <= UINT16_MAX;
}

int coroutine_fn socket_co_lookup(const SocketName *name, int64_t deadline_ns,
                                  CoSleep *wait, struct addrinfo **ret,
                                  GError **errp)
{
    AioContext *ctx = aio_get_current();
    Lookup *l;
    int err = 0;

    if (!is_port(name->port)) {
        return block_error(errp, EINVAL, "'%s' is no port: 0 to 65535, or the "
                           "name of a service", name->port);
    }
    l = g_new0(Lookup, 1);
    lock_init(&l->lock, LOCK_RANK_UTIL);
    l->host = *name->host ? g_strdup(name->host) : NULL;
    l->port = g_strdup(name->port);
    l->passive = name->passive;
    l->answered = aio_bh_new(ctx, answered, wait);
    if (!start_thread(l)) {
        leave(l);
        lookup_free(l);
        return block_error(errp, EAGAIN, "Could not find address '%s': no "
                           "thread", name->host);
    }
    co_sleep_ns_wakeable(wait, MAX(deadline_ns - aio_clock_ns(ctx), 1));
    if (!leave(l)) {
        err = aio_clock_ns(ctx) >= deadline_ns ? ETIMEDOUT : ECANCELED;
        return block_error_errno(errp, err, "Could not find address '%s', "
                                 "port '%s'", name->host, name->port);
    }
    if (l->error) {
        err = block_error(errp, EINVAL, "Could not find address '%s', port "
                          "'%s': %s", name->host, name->port,
                          gai_strerror(l->error));
    }
    *ret = g_steal_pointer(&l->found);
    lookup_free(l);
    return err;
}
