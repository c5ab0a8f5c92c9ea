/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that a power cut left: the opinion of both checkers, ours and
 * qemu-img, before and after somebody uses them.
 */
#include "sim/scenarios/qcow2-image.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit statuses of "qemu-img check". */
#define QEMU_CHECK_OK 0
#define QEMU_CHECK_LEAKS 3

static bool run_qemu_img(const char *path, GError **errp)
{
    const char *argv[] = { "qemu-img", "check", "-f", "qcow2", path, NULL };
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    int status;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL,
                      NULL, &out, &err, &status, errp)) {
        return false;
    }
    if (WIFEXITED(status) && (WEXITSTATUS(status) == QEMU_CHECK_OK ||
                              WEXITSTATUS(status) == QEMU_CHECK_LEAKS)) {
        return true;
    }
    block_error(errp, EUCLEAN, "qemu-img check: %s%s", out, err);
    return false;
}

/* Whether it is the turn of this image. */
static bool is_due(void)
{
    static unsigned seen;
    const char *every = getenv("BGSIM_QEMU_CHECK_EVERY");
    unsigned n = every ? strtoul(every, NULL, 10) : 0;

    return n > 0 && seen++ % n == 0;
}

bool sim_qcow2_check_both(BgSimDisk *disk, const char *when, GError **errp)
{
    g_autofree char *path = NULL;
    g_autoptr(GError) error = NULL;
    SimQcow2Report report;
    bool ok = sim_qcow2_check(disk, &report, &error);

    /* Of refcounts that it need not believe QEMU complains all the same, and
     * of flags that are too careful. */
    if (ok && !report.dirty && !report.careful && is_due()) {
        path = g_strdup_printf("%s/bgsim-qcow2-%d", g_get_tmp_dir(),
                               (int)getpid());
        ok = bgsim_disk_export(disk, path, &error) == 0 &&
             run_qemu_img(path, &error);
        unlink(path);
    }
    if (!ok) {
        block_error(errp, EUCLEAN, "%s: %s", when, error->message);
    }
    return ok;
}

bool sim_qcow2_recovers(const SimQcow2Recovery *r, GError **errp)
{
    BlockDriverState *bs;
    BlockBackend *blk;
    bool ok;

    if (!sim_qcow2_check_both(r->disk, "after the cut", errp)) {
        return false;
    }
    bs = bdrv_open(bgsim_graph(r->sim), scenario_options("%s", r->options),
                   errp);
    if (!bs) {
        return false;
    }
    blk = scenario_backend(r->sim, "recovery", bs);
    ok = r->use(blk, r->opaque, errp);
    blk_unref(blk);
    bdrv_unref(bs);
    return ok && sim_qcow2_check_both(r->disk, "after recovery", errp);
}
