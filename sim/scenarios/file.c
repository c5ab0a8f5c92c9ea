/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver on a file that nobody else has, under a ring that transfers
 * less than asked and answers -EINTR and -EAGAIN.
 */
#include "sim/scenarios/scenarios.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES (32 * 1024)
#define COPY_BYTES 4096

typedef struct File {
    int fd;
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
} File;

/* As who copies does where the file system cannot share space. */
static int coroutine_fn copy(File *s, int64_t from, int64_t to)
{
    char buf[COPY_BYTES];
    int ret = blk_co_copy_range(s->blk, from, s->blk, to, sizeof(buf), 0);

    if (ret == -ENOTSUP) {
        ret = blk_co_pread(s->blk, from, sizeof(buf), buf, 0);
        ret = ret < 0 ? ret : blk_co_pwrite(s->blk, to, sizeof(buf), buf, 0);
    }
    return ret;
}

/* Behind the guests' part: a pattern is copied about and read back. */
static void coroutine_fn copier_entry(BgSim *sim, void *opaque)
{
    File *s = opaque;
    char out[COPY_BYTES], in[COPY_BYTES];

    for (int i = 0; i < 6; i++) {
        int64_t from = FILE_BYTES + (i % 2) * COPY_BYTES;
        int64_t to = FILE_BYTES + (1 - i % 2) * COPY_BYTES;

        memset(out, 1 + i, sizeof(out));
        co_sleep_ns(1 + bgsim_range(sim, "copy.at", 0, 200 * 1000));
        if (blk_co_pwrite(s->blk, from, sizeof(out), out, 0) < 0 ||
            copy(s, from, to) < 0 ||
            blk_co_pread(s->blk, to, sizeof(in), in, 0) < 0) {
            continue; /* a fault */
        }
        if (memcmp(out, in, sizeof(in)) != 0) {
            bgsim_violation(sim, "copy", "%d bytes copied from %"
                            G_GINT64_FORMAT " to %" G_GINT64_FORMAT
                            " are others", COPY_BYTES, from, to);
        }
        bgsim_progress(sim);
    }
}

static void file_setup(BgSim *sim, void *state)
{
    File *s = state;
    BgSimGuestConfig guest = {
        .requests = 40, .depth = 1 + bgsim_draw(sim, "guest.depth", 5),
        .align = 512, .max_bytes = 8192,
        .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
    };

    s->fd = memfd_create("bgsim-file", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, FILE_BYTES + 2 * COPY_BYTES) < 0) {
        g_error("memfd_create: %s", g_strerror(errno));
    }
    s->bs = scenario_open(sim, "file,filename=/proc/self/fd/%d,locking=off,"
                          "discard=unmap", s->fd);
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", FILE_BYTES);
    guest.errors_expected = scenario_faults(sim);
    bgsim_spawn(sim, "copier", scenario_thread(sim, 2), copier_entry, s);
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, scenario_thread(sim, 2), &guest);
    }
}

static void file_verify(BgSim *sim, void *state)
{
    File *s = state;

    scenario_check_content(sim, s->blk, s->model);
    scenario_check_rest(sim);
    blk_unref(s->blk);
    bdrv_unref(s->bs);
    close(s->fd);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_file = {
    .name = "file",
    .help = "the file driver under a ring with bad manners",
    .state_size = sizeof(File),
    .setup = file_setup,
    .verify = file_verify,
    .threads_too = true,
};
