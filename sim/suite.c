/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The conformance suite of a driver: what every driver must do, tried on a
 * simulated disk.
 */
#include "sim/sim-int.h"

#include <blockgraph/sim-gen.h>
#include <errno.h>
#include <string.h>

#define DISK_BYTES_DEFAULT (256 * 1024)
#define SEEDS_DEFAULT 50
#define GUEST_BYTES_MAX (64 * 1024)

/* What is tried now.  One suite at a time; child processes inherit it. */
static const BgSimDriverSuite *suite;

typedef struct SuiteState {
    BlockDriverState *bs;
    BlockBackend *blk;
    BgSimModel *model;
    int64_t length;
    bool reopened;
} SuiteState;

/* --- the node ------------------------------------------------------------- */

static bool needs_disk(void)
{
    return !suite->options || strstr(suite->options, "%s");
}

/* The options with the name of the disk's node put in. */
static char *options_text(const char *disk)
{
    GString *text = g_string_new(suite->options);

    if (!suite->options) {
        g_string_printf(text, "driver=%s,file=%s", suite->driver, disk);
    } else {
        g_string_replace(text, "%s", disk, 1);
    }
    return g_string_free(text, FALSE);
}

static void make_disk(BgSim *sim, uint32_t align)
{
    BgSimDiskConfig config = {
        .size = suite->disk_size ? suite->disk_size : DISK_BYTES_DEFAULT,
        .request_alignment = align,
        .grows = true,
    };

    if (needs_disk()) {
        BgSimDisk *disk = bgsim_disk_new(sim, "disk0", &config);

        if (suite->format) {
            suite->format(disk);
        }
    }
}

static BlockDriverState *open_text(BgSim *sim, const char *more,
                                   GError **errp)
{
    g_autofree char *text = options_text("disk0");
    g_autofree char *all = g_strconcat(text, more, NULL);
    BlockOptions *options = block_options_parse_keyval(all, "driver", errp);
    BlockDriverState *disk = NULL;
    BlockDriverState *bs;

    if (!options) {
        return NULL;
    }
    if (needs_disk()) {
        disk = bgsim_disk_open(bgsim_disk_find(sim, "disk0"), NULL, errp);
        if (!disk) {
            block_options_free(options);
            return NULL;
        }
    }
    bs = bdrv_open(bgsim_graph(sim), options, errp);
    bdrv_unref(disk); /* the node keeps it, or it goes */
    return bs;
}

/* @may_fail: something that the driver needs may have been made to fail. */
static bool open_node(BgSim *sim, SuiteState *s, bool may_fail)
{
    g_autoptr(GError) error = NULL;
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };

    s->bs = open_text(sim, suite->read_only ? ",read-only=on" : "", &error);
    if (!s->bs) {
        if (!may_fail) {
            bgsim_violation(sim, "open", "%s", error->message);
        }
        return false;
    }
    if (!suite->read_only) {
        perm.used |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
    s->blk = blk_new(bgsim_graph(sim), "suite", &perm);
    if (blk_insert_bs(s->blk, s->bs, &error) < 0) {
        bgsim_violation(sim, "open", "%s", error->message);
        return false;
    }
    s->length = blk_getlength(s->blk);
    if (s->length <= 0) {
        bgsim_violation(sim, "length", "a new node has the length %" G_GINT64_FORMAT,
                        s->length);
        return false;
    }
    return true;
}

static void close_node(BgSim *sim, SuiteState *s)
{
    g_autoptr(GError) error = NULL;

    blk_unref(s->blk);
    bdrv_unref(s->bs);
    if (!bgsim_check_empty(sim, &error)) {
        bgsim_violation(sim, "empty", "%s", error->message);
    }
}

/*
 * A model of the first part of the node, which is made all zero first: a driver
 * may show anything on a fresh disk.
 */
static void make_model(BgSim *sim, SuiteState *s, bool may_fail)
{
    int64_t bytes = MIN(s->length & ~INT64_C(511), GUEST_BYTES_MAX);
    g_autofree char *zeroes = g_malloc0(bytes);
    bool known = !suite->read_only && !suite->no_content;

    if (!suite->read_only && (blk_pwrite(s->blk, 0, bytes, zeroes, 0) < 0 ||
                              blk_flush(s->blk) < 0)) {
        known = false;
        if (!may_fail) {
            bgsim_violation(sim, "write", "a fresh node cannot be written and "
                            "flushed");
        }
    }
    s->model = bgsim_model_new(sim, s->blk, "suite", bytes);
    if (!known) {
        bgsim_model_set_unknown(s->model);
    }
}

static void check_content(BgSim *sim, SuiteState *s)
{
    g_autoptr(GError) error = NULL;

    if (!suite->no_content && !bgsim_check_equal(s->blk, s->model, &error)) {
        bgsim_violation(sim, "content", "%s", error->message);
    }
    if (!bgsim_check_graph(sim, &error)) {
        bgsim_violation(sim, "graph", "%s", error->message);
    }
    if (blk_getlength(s->blk) != s->length) {
        bgsim_violation(sim, "length", "the length has changed by itself");
    }
}

static void guest_config(BgSim *sim, BgSimGuestConfig *config, bool faults)
{
    *config = (BgSimGuestConfig){
        .requests = 40,
        .depth = 1 + bgsim_draw(sim, "suite.depth", 5),
        .max_bytes = 12 * 1024,
        .fua_permille = 100,
        .errors_expected = faults,
    };
    if (suite->read_only || suite->no_content) {
        config->weight_read = 1;
        config->weight_status = 1;
        config->weight_flush = suite->read_only ? 0 : 1;
    }
}

/* --- data under everything ------------------------------------------------ */

static void coroutine_fn drainer_entry(BgSim *sim, void *opaque)
{
    SuiteState *s = opaque;

    for (int i = 0; i < 4; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "suite.drain-at", 0, 300 * 1000));
        bdrv_co_drained_begin(s->bs);
        if (blk_in_flight(s->blk) > 0 && !sim->threads_mode) {
            bgsim_violation(sim, "drain", "requests are in flight in a "
                            "drained section");
        }
        co_sleep_ns(1 + bgsim_range(sim, "suite.drain-ns", 0, 50 * 1000));
        bdrv_drained_end(s->bs);
    }
}

static void coroutine_fn reopener_entry(BgSim *sim, void *opaque)
{
    static const char *const texts[] = { "detect-zeroes=on", "discard=unmap",
                                         "detect-zeroes=off" };
    SuiteState *s = opaque;

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        BdrvReopenQueue *queue = bdrv_reopen_queue_new(bgsim_graph(sim));
        g_autoptr(GError) error = NULL;

        co_sleep_ns(1 + bgsim_range(sim, "suite.reopen-at", 0, 300 * 1000));
        bdrv_reopen_queue_add(queue, s->bs,
                              block_options_parse_keyval(texts[i], NULL,
                                                         NULL), true);
        if (bdrv_co_reopen_multiple(queue, &error) < 0 &&
            sim->fail_permille == 0) {
            bgsim_violation(sim, "reopen", "%s", error->message);
        }
    }
}

static void data_setup(BgSim *sim, void *state)
{
    static const uint32_t aligns[] = { 512, 4096, 1 };
    SuiteState *s = state;
    bool faults = bgsim_draw(sim, "suite.faults", 3) == 2;
    BgSimGuestConfig config;

    make_disk(sim, aligns[bgsim_draw(sim, "suite.align", 3)]);
    if (!open_node(sim, s, false)) {
        return;
    }
    make_model(sim, s, false);
    guest_config(sim, &config, faults);
    if (faults) {
        bgsim_fail_randomly(sim, 30, 5);
    }
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);

        bgsim_guest_start(s->model, name, bgsim_thread_get(sim, name),
                          &config);
    }
    bgsim_spawn(sim, "drainer", NULL, drainer_entry, s);
    bgsim_spawn(sim, "reopener", NULL, reopener_entry, s);
}

static void data_verify(BgSim *sim, void *state)
{
    SuiteState *s = state;

    if (s->bs) {
        check_content(sim, s);
        close_node(sim, s);
    }
}

static const BgSimScenario data_scenario = {
    .name = "driver-data",
    .help = "random requests of three threads, drain, reopen, faults",
    .state_size = sizeof(SuiteState),
    .setup = data_setup,
    .verify = data_verify,
};

/* --- one call, each place fails ------------------------------------------- */

static void small_setup(BgSim *sim, void *state)
{
    SuiteState *s = state;
    BgSimGuestConfig config;

    make_disk(sim, 512);
    if (!open_node(sim, s, true)) {
        return;
    }
    make_model(sim, s, true);
    guest_config(sim, &config, true);
    config.requests = 12;
    config.depth = 2;
    bgsim_guest_start(s->model, "guest", NULL, &config);
}

static const BgSimScenario small_scenario = {
    .name = "driver-faults",
    .help = "a few requests, of which each fails in turn",
    .config = { .strategy = BGSIM_STRATEGY_FIFO },
    .state_size = sizeof(SuiteState),
    .setup = small_setup,
    .verify = data_verify,
};

/* --- power cuts ----------------------------------------------------------- */

static bool cut_check(BgSim *sim, const BgSimCrashState *cut, void *opaque,
                      GError **errp)
{
    SuiteState *outer = opaque;
    SuiteState s = { 0 };
    bool ok;

    if (!open_node(sim, &s, false)) {
        return block_error(errp, EIO, "the node does not open after a power "
                           "cut: %s", cut->what) == 0;
    }
    ok = bgsim_check_durable(s.blk, outer->model, errp);
    blk_unref(s.blk);
    bdrv_unref(s.bs);
    return ok;
}

static void cut_setup(BgSim *sim, void *state)
{
    static const BgSimCrashConfig config = { .all_below = 128, .sample = 40 };
    SuiteState *s = state;
    BgSimGuestConfig guest = { .requests = 20, .depth = 3, .max_bytes = 4096,
                               .weight_write = 5, .weight_zero = 1,
                               .weight_flush = 3, .fua_permille = 200 };

    make_disk(sim, 512);
    if (!open_node(sim, s, false)) {
        return;
    }
    make_model(sim, s, false);
    bgsim_guest_start(s->model, "guest", NULL, &guest);
    for (int i = 0; i < 2; i++) {
        bgsim_crash_at(sim, sim->steps + 1 + bgsim_draw(sim, "suite.cut", 200),
                       cut_check, s, &config);
    }
}

static const BgSimScenario cut_scenario = {
    .name = "driver-power-cuts",
    .help = "what was flushed is there after a power cut",
    .state_size = sizeof(SuiteState),
    .setup = cut_setup,
    .verify = data_verify,
};

/* --- bad input, odd requests ---------------------------------------------- */

static void check_bad_options(BgSim *sim)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = open_text(sim, ",x-no-such-option=1", &error);

    if (bs) {
        bgsim_violation(sim, "options", "an unknown option was accepted");
        bdrv_unref(bs);
    } else if (!strstr(error->message, "x-no-such-option")) {
        bgsim_violation(sim, "options", "an unknown option is refused without "
                        "naming it: %s", error->message);
    }
}

static void check_odd_requests(BgSim *sim, SuiteState *s)
{
    char out[700], in[700];

    memset(out, 0x5a, sizeof(out));
    if (!suite->read_only &&
        (blk_pwrite(s->blk, 333, sizeof(out), out, 0) < 0 ||
         blk_pread(s->blk, 333, sizeof(in), in, 0) < 0 ||
         (!suite->no_content && memcmp(out, in, sizeof(in)) != 0))) {
        bgsim_violation(sim, "odd", "700 bytes at 333 are not read back as "
                        "they were written");
    }
    if (blk_pread(s->blk, s->length, 1, in, 0) >= 0 ||
        blk_pread(s->blk, s->length - 1, 2, in, 0) >= 0) {
        bgsim_violation(sim, "odd", "a read beyond the end succeeds");
    }
    if (blk_pread(s->blk, s->length, 0, in, 0) < 0) {
        bgsim_violation(sim, "odd", "an empty read at the end fails");
    }
}

/* Extents cover the node without gaps, and "zero" reads as zero. */
static void check_status(BgSim *sim, SuiteState *s)
{
    int64_t offset = 0;

    while (offset < s->length) {
        BlockExtent extent = { 0 };
        int ret = blk_block_status(s->blk, offset, s->length - offset,
                                   &extent);
        int64_t bytes = MIN(extent.bytes, 4096);
        char buf[4096];

        if (ret < 0 || extent.bytes <= 0 ||
            extent.bytes > s->length - offset) {
            bgsim_violation(sim, "status", "block status at %" G_GINT64_FORMAT
                            " says %d, %" G_GINT64_FORMAT " bytes", offset,
                            ret, extent.bytes);
            return;
        }
        if ((extent.status & BDRV_BLOCK_ZERO) && !suite->no_content &&
            (blk_pread(s->blk, offset, bytes, buf, 0) < 0 ||
             !block_buffer_is_zero(buf, bytes))) {
            bgsim_violation(sim, "status", "the range at %" G_GINT64_FORMAT
                            " is said to be zero and is not", offset);
        }
        offset += extent.bytes;
    }
}

static void odd_body(BgSim *sim, void *state)
{
    SuiteState *s = state;

    make_disk(sim, 512);
    check_bad_options(sim);
    for (int i = 0; i < 3 && open_node(sim, s, false); i++) {
        close_node(sim, s);
    }
    if (open_node(sim, s, false)) {
        make_model(sim, s, false);
        check_odd_requests(sim, s);
        check_status(sim, s);
        close_node(sim, s);
    }
}

static const BgSimScenario odd_scenario = {
    .name = "driver-odd",
    .help = "bad options, odd requests, the end of the node, block status",
    .state_size = sizeof(SuiteState),
    .body = odd_body,
};

/* --- all of it ------------------------------------------------------------ */

static bool fail_everywhere(char **ret_report)
{
    static const char *const places[] = { "read", "write", "zero", "discard",
                                          "flush" };

    for (unsigned i = 0; needs_disk() && i < G_N_ELEMENTS(places); i++) {
        g_autofree char *where = g_strdup_printf("disk0:%s", places[i]);
        g_autoptr(GError) error = NULL;

        if (!bgsim_fail_each(&small_scenario, where, EIO, &error)) {
            *ret_report = g_strdup_printf("%s failing: %s\n", where,
                                          error->message);
            return false;
        }
    }
    return true;
}

bool bgsim_driver_suite(const BgSimDriverSuite *what, char **ret_report)
{
    unsigned seeds = what->seeds ? what->seeds : SEEDS_DEFAULT;
    bool ok;

    suite = what;
    ok = bgsim_check_seeds(&odd_scenario, 0, 1, ret_report) &&
         bgsim_check_seeds(&data_scenario, 0, seeds, ret_report) &&
         (what->read_only || what->no_content ||
          fail_everywhere(ret_report)) &&
         (what->read_only || what->no_durability || what->no_content ||
          bgsim_check_seeds(&cut_scenario, 0, seeds, ret_report));
    suite = NULL;
    return ok;
}
