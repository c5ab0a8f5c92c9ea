/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests in several threads on graphs that change: drain, filters in and out,
 * reopen, permissions, other users, nodes that open and close, truncate; and
 * changes that are refused, which must leave everything as it was.
 */
#include "sim/scenarios/scenarios.h"

#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <string.h>

#define DISKS_MAX 2
#define FILTERS_MAX 4
#define FILTER_SLOTS (2 * FILTERS_MAX)
#define DISK_BYTES (32 * 1024)

typedef struct Disk {
    BgSimDisk *disk;
    BlockDriverState *bs;  /* the sim-disk node */
    BlockDriverState *top; /* what was opened above it */
    BlockBackend *blk;
    BgSimModel *model;
    int64_t length;
} Disk;

typedef struct Graph {
    Disk disks[DISKS_MAX];
    unsigned nr_disks;
    BlockDriverState *filters[FILTER_SLOTS]; /* the first are used by choice */
    ThrottleGroup *group;
    unsigned changes;     /* control operations under way */
    uint64_t epoch;       /* counts their begins and ends */
    bool faults;
    bool resizing;
} Graph;

/* --- what is refused ------------------------------------------------------ */

/*
 * The graph before an operation that must fail.  If another operation runs
 * meanwhile nothing can be said.
 */
typedef struct Before {
    char *dump; /* NULL: others were at work already */
    uint64_t epoch;
} Before;

static Before before(BgSim *sim, Graph *s)
{
    return (Before){ s->changes == 1 ? bgsim_graph_dump(sim) : NULL,
                     s->epoch };
}

/* Whether nothing but this operation can be why it was refused. */
static bool was_alone(const Graph *s, const Before *b)
{
    return !s->faults && b->dump && b->epoch == s->epoch;
}

static void check_unchanged(BgSim *sim, Graph *s, Before *b, const char *what)
{
    g_autofree char *now = NULL;
    g_autofree char *old = b->dump;

    if (!old || b->epoch != s->epoch) {
        return;
    }
    now = bgsim_graph_dump(sim);
    if (strcmp(old, now) != 0) {
        bgsim_violation(sim, "refused", "%s was refused and changed the "
                        "graph, from\n%s\nto\n%s", what, old, now);
    }
}

static void must_fail(BgSim *sim, int ret, const char *what)
{
    if (ret >= 0) {
        bgsim_violation(sim, "refused", "%s was not refused", what);
    }
}

/* --- drain ---------------------------------------------------------------- */

static uint64_t disk_requests(Graph *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < s->nr_disks; i++) {
        BgSimDiskStats stats;

        bgsim_disk_get_stats(s->disks[i].disk, &stats);
        n += stats.reads + stats.writes + stats.zeroes + stats.discards +
             stats.flushes + stats.truncates;
    }
    return n;
}

static void coroutine_fn change_by_drain_all(BgSim *sim, Graph *s)
{
    uint64_t seen;

    bdrv_co_drain_all_begin(bgsim_graph(sim));
    seen = disk_requests(s);
    co_sleep_ns(1 + bgsim_range(sim, "drain.ns", 0, 200 * 1000));
    if (disk_requests(s) != seen) {
        bgsim_violation(sim, "drain", "a request reached a disk while "
                        "everything was drained");
    }
    bdrv_drain_all_end(bgsim_graph(sim));
}

static void coroutine_fn change_by_drain(BgSim *sim, Graph *s, Disk *d)
{
    BlockDriverState *bs = bgsim_draw(sim, "drain.low", 2)
                               ? d->bs
                               : bdrv_ref(blk_bs(d->blk));

    if (bs == d->bs) {
        bdrv_ref(bs);
    }
    bdrv_co_drained_begin(bs);
    /* A filter may have been taken out meanwhile. */
    if ((bs == d->bs || bs == blk_bs(d->blk)) &&
        blk_in_flight(d->blk) > 0 && !bgsim_is_threads(sim)) {
        bgsim_violation(sim, "drain", "node '%s' is drained, and backend "
                        "'%s' has requests in flight", bdrv_node_name(bs),
                        blk_name(d->blk));
    }
    co_sleep_ns(1 + bgsim_range(sim, "drain.ns", 0, 200 * 1000));
    bdrv_drained_end(bs);
    bdrv_co_unref(bs);
}

/* --- filters -------------------------------------------------------------- */

static void coroutine_fn filter_in(BgSim *sim, Graph *s, Disk *d,
                                   BlockDriverState **slot)
{
    static const char *const texts[] = {
        "blkdebug",
        "blkdebug,align=4k",
        "blkdebug,max-transfer=4096",
        "throttle,throttle-group=slow",
        "blklogwrites,log.driver=null-co,log.size=16M,log.read-zeroes=on",
    };
    unsigned i = bgsim_draw(sim, "filter", G_N_ELEMENTS(texts));
    BlockDriverState *below = bgsim_draw(sim, "filter.low", 2)
                                  ? d->bs
                                  : blk_bs(d->blk);
    BlockDriverState *filter = NULL;
    Before b = before(sim, s);
    g_autoptr(GError) error = NULL;

    if (bdrv_co_insert_node(below, scenario_options("%s", texts[i]), &filter,
                            &error) == 0) {
        *slot = filter;
        g_free(b.dump);
        return;
    }
    if (was_alone(s, &b)) {
        bgsim_violation(sim, "insert", "%s", error->message);
    }
    check_unchanged(sim, s, &b, "an insertion");
}

static void coroutine_fn filter_out(BgSim *sim, Graph *s,
                                    BlockDriverState **slot)
{
    BlockDriverState *filter = *slot;
    Before b = before(sim, s);
    g_autoptr(GError) error = NULL;

    *slot = NULL; /* nobody else drops it meanwhile */
    if (bdrv_co_drop_filter(filter, &error) == 0) {
        bdrv_co_unref(filter);
        g_free(b.dump);
        return;
    }
    if (was_alone(s, &b)) {
        bgsim_violation(sim, "drop", "%s", error->message);
    }
    check_unchanged(sim, s, &b, "a removal");
    while (*slot) {
        slot++; /* taken meanwhile */
    }
    *slot = filter;
}

static void coroutine_fn change_by_filter(BgSim *sim, Graph *s, Disk *d)
{
    BlockDriverState **slot =
        &s->filters[bgsim_draw(sim, "filter.slot", FILTERS_MAX)];

    if (*slot && !bdrv_filter_child(*slot)) {
        return; /* another operation has it */
    }
    if (*slot) {
        bgsim_op_begin(sim, BGSIM_OP_DROP);
        filter_out(sim, s, slot);
        bgsim_op_end(sim, BGSIM_OP_DROP);
    } else {
        BlockDriverState *filter = NULL;

        bgsim_op_begin(sim, BGSIM_OP_INSERT);
        filter_in(sim, s, d, &filter);
        bgsim_op_end(sim, BGSIM_OP_INSERT);
        /* While it went in somebody may have filled the slot. */
        while (filter && *slot) {
            slot++;
            g_assert(slot < s->filters + FILTER_SLOTS);
        }
        if (filter) {
            *slot = filter;
        }
    }
}

/* --- reopen --------------------------------------------------------------- */

static int coroutine_fn reopen_one(BgSim *sim, BlockDriverState *bs,
                                   const char *options, GError **errp)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new(bgsim_graph(sim));
    BlockOptions *tree = block_options_parse_keyval(options, NULL, NULL);

    bdrv_reopen_queue_add(queue, bs, tree, true);
    return bdrv_co_reopen_multiple(queue, errp);
}

static void coroutine_fn change_by_reopen(BgSim *sim, Graph *s, Disk *d)
{
    static const char *const texts[] = { "detect-zeroes=on",
                                         "detect-zeroes=off",
                                         "discard=unmap", "discard=ignore" };
    BlockDriverState *bs = bgsim_draw(sim, "reopen.low", 2) ? d->bs : d->top;
    const char *text = texts[bgsim_draw(sim, "reopen", G_N_ELEMENTS(texts))];
    Before b = before(sim, s);
    g_autoptr(GError) error = NULL;

    if (reopen_one(sim, bs, text, &error) == 0) {
        g_free(b.dump);
        return;
    }
    if (was_alone(s, &b)) {
        bgsim_violation(sim, "reopen", "%s", error->message);
    }
    check_unchanged(sim, s, &b, "a reopen");
}

static void coroutine_fn refused_reopen(BgSim *sim, Graph *s, Disk *d)
{
    Before b = before(sim, s);

    must_fail(sim, reopen_one(sim, d->bs, "read-only=on", NULL),
              "a reopen to read-only under a writer");
    check_unchanged(sim, s, &b, "a reopen to read-only under a writer");
}

/* --- users ---------------------------------------------------------------- */

static void coroutine_fn change_by_user(BgSim *sim, Graph *s, Disk *d)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    BlockPerm alone = { .used = BLK_PERM_CONSISTENT_READ,
                        .shared = BLK_PERM_CONSISTENT_READ };
    BlockBackend *reader = blk_new(bgsim_graph(sim), "reader", &perm);
    char buf[1000];

    if (blk_co_insert_bs(reader, blk_bs(d->blk), NULL) == 0) {
        Before b;

        blk_co_pread(reader, bgsim_range(sim, "reader", 0,
                                         DISK_BYTES - sizeof(buf)),
                     sizeof(buf), buf, 0);
        b = before(sim, s);
        must_fail(sim, blk_co_set_perm(reader, &alone, NULL),
                  "a reader that allows no writer");
        check_unchanged(sim, s, &b, "a reader that allows no writer");
    } else if (!s->faults) {
        bgsim_violation(sim, "user", "a reader was refused");
    }
    blk_co_unref(reader);
}

/* A permission is given up and taken back while requests run. */
static void coroutine_fn change_by_perm(BgSim *sim, Graph *s, Disk *d)
{
    BlockPerm all = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                              BLK_PERM_RESIZE,
                      .shared = BLK_PERM_ALL };
    BlockPerm less = all;

    less.used &= ~(uint64_t)BLK_PERM_RESIZE;
    if (blk_co_set_perm(d->blk, &less, NULL) == 0 &&
        blk_co_set_perm(d->blk, &all, NULL) < 0 && !s->faults) {
        bgsim_violation(sim, "perm", "a permission could not be taken back");
    }
}

/* --- nodes that come and go ----------------------------------------------- */

static void coroutine_fn change_by_open(BgSim *sim, Graph *s, Disk *d)
{
    BlockDriverState *bs = bdrv_co_open(
        bgsim_graph(sim),
        scenario_options("raw,read-only=on,file=%s", bdrv_node_name(d->bs)),
        NULL);

    if (!bs) {
        if (!s->faults) {
            bgsim_violation(sim, "open", "a second raw node was refused");
        }
        return;
    }
    bdrv_co_unref(bs);
}

static void coroutine_fn refused_open(BgSim *sim, Graph *s, Disk *d)
{
    Before b = before(sim, s);
    BlockDriverState *bs = bdrv_co_open(
        bgsim_graph(sim),
        scenario_options("blkdebug,image=%s,inject-error.0.event=nonsense",
                         bdrv_node_name(d->bs)),
        NULL);

    if (bs) {
        bgsim_violation(sim, "refused", "a bad option was accepted");
        bdrv_co_unref(bs);
    }
    check_unchanged(sim, s, &b, "a node with a bad option");
}

static void coroutine_fn change_by_throttle(BgSim *sim, Graph *s)
{
    ThrottleConfig config = { .iops_size = 0 };

    config.limits[THROTTLE_IOPS_TOTAL].avg =
        bgsim_draw(sim, "throttle", 2) ? 20000 : 0;
    throttle_group_set_config(s->group, &config, NULL);
}

/* Longer, and back: guests stay below. */
static void coroutine_fn change_by_resize(BgSim *sim, Graph *s, Disk *d)
{
    BlockTruncate how = { .offset = d->length + 4096, .exact = true,
                          .flags = BDRV_REQ_ZERO_WRITE };
    g_autoptr(GError) error = NULL;

    if (s->resizing) {
        return;
    }
    s->resizing = true;
    blk_co_truncate(d->blk, &how, NULL); /* not every disk can */
    how = (BlockTruncate){ .offset = d->length, .exact = true };
    if (blk_getlength(d->blk) != d->length &&
        blk_co_truncate(d->blk, &how, &error) < 0 && !s->faults) {
        bgsim_violation(sim, "resize", "%s", error->message);
    }
    s->resizing = false;
}

/* --- the changer ---------------------------------------------------------- */

static void coroutine_fn change(BgSim *sim, Graph *s, unsigned kind, Disk *d)
{
    switch (kind) {
    case 1:
        change_by_drain(sim, s, d);
        break;
    case 2:
        change_by_drain_all(sim, s);
        break;
    case 3:
    case 4:
        change_by_filter(sim, s, d);
        break;
    case 5:
        change_by_reopen(sim, s, d);
        break;
    case 6:
        refused_reopen(sim, s, d);
        break;
    case 7:
        change_by_user(sim, s, d);
        break;
    case 8:
        change_by_perm(sim, s, d);
        break;
    case 9:
        change_by_open(sim, s, d);
        break;
    case 10:
        refused_open(sim, s, d);
        break;
    case 11:
        change_by_throttle(sim, s);
        break;
    case 12:
        change_by_resize(sim, s, d);
        break;
    default:
        break;
    }
}

/* What each kind counts as in the table of overlaps; filters count there. */
static const BgSimOpKind kinds[] = {
    BGSIM_OPS, BGSIM_OP_DRAIN, BGSIM_OP_DRAIN, BGSIM_OPS,
    BGSIM_OPS, BGSIM_OP_REOPEN, BGSIM_OP_REOPEN, BGSIM_OP_PERM,
    BGSIM_OP_PERM, BGSIM_OP_OPEN, BGSIM_OP_OPEN, BGSIM_OP_PERM,
    BGSIM_OP_RESIZE,
};

static void coroutine_fn counted_change(BgSim *sim, Graph *s, unsigned kind,
                                        Disk *d)
{
    if (kinds[kind] == BGSIM_OPS) {
        change(sim, s, kind, d);
        return;
    }
    bgsim_op_begin(sim, kinds[kind]);
    change(sim, s, kind, d);
    bgsim_op_end(sim, kinds[kind]);
}

static void coroutine_fn changer_entry(BgSim *sim, void *opaque)
{
    static const uint64_t bounds[] = { G_N_ELEMENTS(kinds), DISKS_MAX,
                                       100 * 1000 };
    Graph *s = opaque;

    for (int i = 0; i < 8; i++) {
        uint64_t v[G_N_ELEMENTS(bounds)];

        bgsim_draw_group(sim, "change", bounds, v, G_N_ELEMENTS(bounds));
        if (v[0] == 0) {
            continue;
        }
        co_sleep_ns(1 + v[2]);
        s->changes++;
        s->epoch++;
        bgsim_trace(sim, "change", v[0], v[1]);
        counted_change(sim, s, v[0], &s->disks[v[1] % s->nr_disks]);
        s->epoch++;
        s->changes--;
        bgsim_progress(sim);
    }
}

/* --- the scenario --------------------------------------------------------- */

static void disk_setup(BgSim *sim, Graph *s, unsigned i)
{
    static const char *const tops[] = {
        "raw,node-name=top%u,file=%s",
        "raw,node-name=top%u,offset=4096,size=32768,file=%s",
        "blkdebug,node-name=top%u,image=%s",
        "throttle,node-name=top%u,throttle-group=slow,file=%s",
    };
    unsigned top = bgsim_draw(sim, "top", G_N_ELEMENTS(tops));
    g_autofree char *name = g_strdup_printf("disk%u", i);
    g_autofree char *guest = g_strdup_printf("blk%u", i);
    g_autofree char *text = g_strdup_printf(tops[top], i, name);
    Disk *d = &s->disks[i];
    g_autoptr(GError) error = NULL;

    d->disk = scenario_disk(sim, name, DISK_BYTES + 8192);
    d->bs = bgsim_disk_open(d->disk, NULL, &error);
    d->top = scenario_open(sim, "%s", text);
    d->blk = scenario_backend(sim, guest, d->top);
    d->model = bgsim_model_new(sim, d->blk, guest, DISK_BYTES);
    d->length = blk_getlength(d->blk);
}

static void guests_setup(BgSim *sim, Graph *s)
{
    unsigned guests = 1 + bgsim_draw(sim, "guests", 3);

    for (unsigned i = 0; i < guests; i++) {
        g_autofree char *name = g_strdup_printf("guest%u", i);
        BgSimGuestConfig config = {
            .requests = 30,
            .depth = 1 + bgsim_draw(sim, "guest.depth", 5),
            .max_bytes = 6 * 1024,
            .fua_permille = bgsim_draw(sim, "guest.fua", 3) * 100,
            .think_ns = bgsim_draw(sim, "guest.think", 2) * 100000,
            .errors_expected = s->faults,
        };

        bgsim_guest_start(s->disks[i % s->nr_disks].model, name,
                          scenario_thread(sim, 3), &config);
    }
}

static void graph_setup(BgSim *sim, void *state)
{
    Graph *s = state;
    unsigned changers = 1 + bgsim_draw(sim, "changers", 2);

    s->group = throttle_group_new(bgsim_graph(sim), "slow", NULL, NULL);
    s->nr_disks = 1 + bgsim_draw(sim, "disks", DISKS_MAX);
    for (unsigned i = 0; i < s->nr_disks; i++) {
        disk_setup(sim, s, i);
    }
    s->faults = scenario_faults(sim);
    guests_setup(sim, s);
    for (unsigned i = 0; i < changers; i++) {
        g_autofree char *name = g_strdup_printf("changer%u", i);

        bgsim_spawn(sim, name, NULL, changer_entry, s);
    }
}

static void graph_verify(BgSim *sim, void *state)
{
    Graph *s = state;

    scenario_check_rest(sim);
    for (unsigned i = 0; i < FILTER_SLOTS; i++) {
        if (s->filters[i]) {
            bdrv_drop_filter(s->filters[i], NULL);
            bdrv_unref(s->filters[i]);
        }
    }
    for (unsigned i = 0; i < s->nr_disks; i++) {
        Disk *d = &s->disks[i];

        scenario_check_content(sim, d->blk, d->model);
        blk_unref(d->blk);
        bdrv_unref(d->top);
        bdrv_unref(d->bs);
    }
    throttle_group_unref(s->group);
    scenario_check_empty(sim);
}

const BgSimScenario scenario_graph = {
    .name = "graph",
    .help = "graphs that change under guests in several threads",
    .state_size = sizeof(Graph),
    .setup = graph_setup,
    .verify = graph_verify,
    .threads_too = true,
};
