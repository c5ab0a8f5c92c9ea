/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One run after the other in a child that stays, so that a run costs a message
 * there and back; one that kills the child costs a fork besides.
 */
#include "sim/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A choice takes 24 bytes.  Memory that is not touched costs nothing. */
#define TAPE_BYTES (64 << 20)
#define NOTES_BYTES (1 << 20)

/* Written by the parent before it asks, by the child before it answers. */
typedef struct Area {
    size_t tape_bytes;      /* of @tape; 0: a fresh one, or lost */
    BgSimResult result;
    char notes[NOTES_BYTES];
    char tape[TAPE_BYTES];
} Area;

struct SimTrier {
    SimHow how;
    SimTrierConfig config;
    Area *area;
    SimChild child;
    int fd;                 /* our end of the line to the child */
    int out_fd;             /* our standard output; -1: nothing to print */

    /* In the child. */
    GPtrArray *made;        /* decisions, recorded */
    GString *notes;
};

SimTrier *sim_trier_new(const SimHow *how, const SimTrierConfig *config)
{
    SimTrier *trier = g_new0(SimTrier, 1);

    trier->how = *how;
    trier->how.dies = true;
    trier->config = *config;
    if (trier->config.timeout_ns == 0) {
        trier->config.timeout_ns = SIM_TIMEOUT_DEFAULT_NS;
    }
    trier->area = sim_shared_new(sizeof(Area));
    trier->out_fd = config->explain ? dup(STDOUT_FILENO) : -1;
    return trier;
}

/* --- the child ------------------------------------------------------------ */

/* The standard output of the child is not that of the program. */
static void print_trace(const SimTrier *trier, BgSim *sim)
{
    g_autofree char *text = sim_trace_text(sim, G_MAXUINT);
    FILE *out = fdopen(dup(trier->out_fd), "w");

    if (out) {
        fputs(text, out);
        fclose(out);
    }
}

/* Before the world ends, or the process. */
static void publish(BgSim *sim, void *opaque)
{
    SimTrier *trier = opaque;
    Area *area = trier->area;

    if (trier->config.decisions) {
        sim_decisions_finish(trier->config.decisions, trier->notes);
    }
    for (guint i = 0; trier->made && i < trier->made->len; i++) {
        g_autofree char *line =
            sim_decision_to_text(g_ptr_array_index(trier->made, i));

        g_string_append_printf(trier->notes, "%s\n", line);
    }
    if (trier->notes->len >= NOTES_BYTES) {
        sim_result_fail(&area->result, "usage", "too many decisions to note");
    }
    g_strlcpy(area->notes, trier->notes->str, NOTES_BYTES);
    area->tape_bytes = tape_pack(sim->tape, true, area->tape, TAPE_BYTES);
    if (trier->config.explain) {
        print_trace(trier, sim);
    }
}

/* From a signal handler: what a run that crashes has asked for. */
static void publish_last(void *opaque)
{
    SimTrier *trier = opaque;
    BgSim *sim = sim_world;

    if (sim) {
        trier->area->result.trace_hash = sim->trace_hash;
        trier->area->result.steps = sim->steps;
        trier->area->result.strategy = sim->sched.strategy;
        trier->area->tape_bytes = tape_pack(sim->tape, true, trier->area->tape,
                                            TAPE_BYTES);
    }
}

static void run_one(SimTrier *trier)
{
    Area *area = trier->area;
    SimHow how = trier->how;

    sim_child_begin_run();
    how.tape = area->tape_bytes > 0
                   ? tape_unpack(area->tape, area->tape_bytes)
                   : NULL;
    how.record = trier->config.explain;
    how.ended = publish;
    how.opaque = trier;
    g_string_truncate(trier->notes, 0);
    area->tape_bytes = 0;
    if (trier->config.record_decisions) {
        trier->made = sim_decisions_new();
        sim_decisions_record(trier->made);
    } else if (trier->config.decisions) {
        sim_decisions_replay(trier->config.decisions, trier->notes);
    }
    sim_scenario_run(&how, &area->result);
    if (trier->config.find_leaks && !area->result.failed &&
        sim_child_find_leaks(&area->result)) {
        _exit(SIM_EXIT_VIOLATION);
    }
    sim_decisions_stop();
    g_clear_pointer(&trier->made, g_ptr_array_unref);
}

static void be_child(SimTrier *trier, int fd) G_GNUC_NORETURN;

static void be_child(SimTrier *trier, int fd)
{
    char byte;

    trier->notes = g_string_new(NULL);
    sim_child_catch(publish_last, trier);
    while (read(fd, &byte, 1) == 1) {
        run_one(trier);
        if (write(fd, &byte, 1) != 1) {
            break;
        }
    }
    _exit(0);
}

/* --- the parent ----------------------------------------------------------- */

static void start(SimTrier *trier)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        g_error("Cannot make a socket pair: %s", g_strerror(errno));
    }
    if (!sim_child_start(&trier->child)) {
        close(fds[0]);
        be_child(trier, fds[1]);
    }
    close(fds[1]);
    trier->fd = fds[0];
}

/* Whether the child answers in time; if not, why. */
static bool ask(SimTrier *trier, bool *ret_late)
{
    struct pollfd p = { trier->fd, POLLIN, 0 };
    int64_t end = sim_real_ns() + trier->config.timeout_ns;
    char byte = 0;
    int ready;

    *ret_late = false;
    if (send(trier->fd, &byte, 1, MSG_NOSIGNAL) != 1) {
        return false;
    }
    do {
        int64_t left_ms = (end - sim_real_ns()) / 1000000;

        ready = poll(&p, 1, CLAMP(left_ms + 1, 0, 1000));
    } while ((ready == 0 || (ready < 0 && errno == EINTR)) &&
             sim_real_ns() < end);
    *ret_late = ready <= 0;
    return ready > 0 && read(trier->fd, &byte, 1) == 1;
}

/* The child is dead, or will be. */
static void bury(SimTrier *trier, bool late)
{
    int status = sim_child_end(&trier->child, late);
    BgSimResult *result = &trier->area->result;

    close(trier->fd);
    sim_child_explain(&trier->child, status,
                      late ? trier->config.timeout_ns : 0, result);
    result->seed = trier->how.seed;
}

void sim_trier_run(SimTrier *trier, const Tape *tape, SimTried *ret)
{
    Area *area = trier->area;
    bool late;

    if (trier->child.pid == 0) {
        start(trier);
    }
    memset(&area->result, 0, sizeof(area->result));
    area->notes[0] = 0;
    area->tape_bytes = tape ? tape_pack(tape, false, area->tape, TAPE_BYTES)
                            : 0;
    if (!ask(trier, &late)) {
        bury(trier, late);
    }
    ret->result = area->result;
    ret->notes = g_strdup(area->notes);
    /* A run that was killed has published no tape. */
    ret->tape = area->tape_bytes > 0
                    ? tape_unpack(area->tape, area->tape_bytes)
                    : NULL;
}

void sim_tried_clear(SimTried *tried)
{
    g_clear_pointer(&tried->tape, tape_free);
    g_clear_pointer(&tried->notes, g_free);
}

void sim_trier_free(SimTrier *trier)
{
    if (trier->child.pid != 0) {
        close(trier->fd);  /* the child reads the end, and ends */
        sim_child_end(&trier->child, false);
        if (trier->child.err_fd >= 0) {
            close(trier->child.err_fd);
        }
    }
    sim_shared_free(trier->area, sizeof(Area));
    if (trier->out_fd >= 0) {
        close(trier->out_fd);
    }
    g_free(trier);
}
