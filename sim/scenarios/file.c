/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver on a file that nobody else has, under a ring that transfers
 * less than asked and answers -EINTR and -EAGAIN.
 */
#include "sim/scenarios/scenarios.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES (32 * 1024)

typedef struct File {
    int fd;
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
} File;

static void file_setup(BgSim *sim, void *state)
{
    File *s = state;
    BgSimGuestConfig guest = {
        .requests = 40, .depth = 1 + bgsim_draw(sim, "guest.depth", 5),
        .align = 512, .max_bytes = 8192,
        .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
    };

    s->fd = memfd_create("bgsim-file", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, FILE_BYTES) < 0) {
        g_error("memfd_create: %s", g_strerror(errno));
    }
    s->bs = scenario_open(sim, "file,filename=/proc/self/fd/%d,locking=off,"
                          "discard=unmap", s->fd);
    s->blk = scenario_backend(sim, "guest", s->bs);
    s->model = bgsim_model_new(sim, s->blk, "guest", FILE_BYTES);
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
