/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: two disks that guests write, whose owners do several things at
 * one moment (snapshots, backups, what can be done to bitmaps), while somebody
 * else streams, commits and copies what is there.  Many transactions fail at
 * some action.
 *
 * The oracle:
 *
 *   - what guests see never changes but by their writes;
 *   - after a failure no job, overlay or bitmap is there that was not there
 *     before, no target was written, and if nobody else did anything the graph
 *     is the same; bitmaps are the same bit by bit if nothing ran;
 *   - after a success all of it is there, bitmaps bit by bit if nothing ran;
 *   - a backup is of the moment of its transaction; those of both disks are of
 *     the same: the witness writes a number to the first disk, then, when that
 *     has ended, to the second;
 *   - a bitmap has what guests have changed since it began.
 */
#include "sim/scenarios/transactions.h"

#include <blockgraph/driver.h>
#include <string.h>

#include "sim/scenarios/qcow2-image.h"

#define ATTEMPTS 4
#define REQUESTS 40
#define TRIES 100

/* --- names ---------------------------------------------------------------- */

const char *txn_bitmap_name(const TxnTask *t, int i, char buf[8])
{
    g_snprintf(buf, 8, "t%db%d", t->index, i);
    return buf;
}

const char *txn_job_id(const TxnTask *t, int d, char buf[8])
{
    g_snprintf(buf, 8, "t%dj%d", t->index, d);
    return buf;
}

const char *txn_inside_name(const TxnTask *t, int i, char buf[16])
{
    g_snprintf(buf, 16, "t%da%ds%d", t->index, t->attempt, i);
    return buf;
}

int txn_layer_of(const TxnWorld *s, const BlockDriverState *bs)
{
    int i = s->nr_layers - 1;

    while (i >= 0 && !g_str_equal(s->layers[i].name, bdrv_node_name(bs))) {
        i--;
    }
    return i;
}

int txn_top(const TxnWorld *s, int d)
{
    return txn_layer_of(s, bdrv_skip_filters(blk_bs(s->disks[d].guest)));
}

/* The layers that guests of the disk see, highest first. */
static int list_layers(const TxnDisk *disk, BlockDriverState **ret)
{
    BlockDriverState *bs = bdrv_skip_filters(blk_bs(disk->guest));
    int nr = 0;

    while (bs) {
        BdrvChild *below = bdrv_cow_child(bs);

        g_assert(nr < TXN_DISKS + TXN_OVERLAYS);
        ret[nr++] = bs;
        bs = below ? bdrv_skip_filters(bdrv_child_bs(below)) : NULL;
    }
    return nr;
}

/* --- guests, and what they must mark -------------------------------------- */

/* Somebody is going to exchange what guests write, or bitmaps of it. */
static void changes_begin(TxnWorld *s)
{
    WITH_WORLD(s) {
        for (int d = 0; d < TXN_DISKS; d++) {
            s->disks[d].changing++;
            s->disks[d].changes++;
        }
    }
}

static void changes_end(TxnWorld *s)
{
    for (int d = 0; d < TXN_DISKS; d++) {
        int layer = txn_top(s, d);

        WITH_WORLD(s) {
            s->disks[d].changing--;
            s->disks[d].layer = layer;
        }
    }
}

/* A request to [@first, @end) that began at @begin has reached the layer. */
static void must_mark_locked(TxnDisk *disk, uint64_t begin, int64_t first,
                             int64_t end)
{
    for (int i = 0; i < TXN_TASKS * TXN_BITMAPS; i++) {
        TxnBitmap *b = &disk->s->tasks[i / TXN_BITMAPS]
                            .bitmaps[i % TXN_BITMAPS];

        if (b->layer == disk->layer && b->enabled && b->since < begin) {
            memset(b->must + first, true, end - first);
        }
    }
}

/* A discard need not change anything, so it need not mark. */
static int coroutine_fn send(TxnDisk *disk, int64_t offset, int64_t bytes,
                             bool *ret_marks)
{
    unsigned kind = bgsim_draw(disk->s->sim, "guest.op", 10);

    *ret_marks = kind >= 2 && kind < 8;
    if (kind < 2) {
        return bgsim_model_pread(disk->model, offset, bytes);
    } else if (kind < 6) {
        return bgsim_model_pwrite(disk->model, offset, bytes, 0);
    } else if (kind < 8) {
        return bgsim_model_zero(disk->model, offset, bytes,
                                kind == 7 ? BDRV_REQ_MAY_UNMAP : 0);
    }
    return kind == 8 ? bgsim_model_discard(disk->model, offset, bytes)
                     : bgsim_model_flush(disk->model);
}

static void coroutine_fn guest_request(TxnDisk *disk)
{
    TxnWorld *s = disk->s;
    int64_t first = bgsim_draw(s->sim, "guest.first", TXN_SECTORS);
    int64_t count = bgsim_range(s->sim, "guest.count", 1, 24);
    int64_t end = MIN(first + count, TXN_SECTORS);
    unsigned changes = 0;
    uint64_t begin = 0;
    bool marks;
    int ret;

    WITH_WORLD(s) {
        begin = disk->changing ? 0 : ++s->clock;
        changes = disk->changes;
    }
    ret = send(disk, first * TXN_SECTOR, (end - first) * TXN_SECTOR, &marks);
    WITH_WORLD(s) {
        if (ret == 0 && marks && begin > 0 && changes == disk->changes) {
            must_mark_locked(disk, begin, first, end);
        }
    }
    if (ret < 0 && !s->faults) {
        bgsim_violation(s->sim, "guest", "a request: %s", g_strerror(-ret));
    }
}

static void coroutine_fn guest_entry(BgSim *sim, void *opaque)
{
    for (int i = 0; i < REQUESTS; i++) {
        guest_request(opaque);
        co_sleep_ns(bgsim_draw(sim, "guest.think", 3) * 50000);
        bgsim_progress(sim);
    }
}

/* --- the witness ---------------------------------------------------------- */

/* A failed write may have happened; when it is tried until it ends well, the
 * second disk is never before the first.  An image may refuse writes for good,
 * after errors: then false, and there is no other number. */
static bool coroutine_fn write_number(TxnDisk *disk, uint32_t number)
{
    uint32_t block[TXN_SECTOR / sizeof(uint32_t)] = { number };
    BlockIOVec1 iov;

    for (int i = 0; i < TRIES; i++) {
        bgsim_progress(disk->s->sim);
        if (blk_co_pwritev(disk->guest, TXN_GUEST_BYTES, sizeof(block),
                           block_iov_buf(&iov, block, sizeof(block)),
                           0) == 0) {
            return true;
        }
        co_sleep_ns(10 * 1000);
    }
    return false;
}

static void coroutine_fn witness_entry(BgSim *sim, void *opaque)
{
    TxnWorld *s = opaque;

    for (uint32_t number = 1; number <= REQUESTS; number++) {
        for (int d = 0; d < TXN_DISKS; d++) {
            if (!write_number(&s->disks[d], number)) {
                if (!s->faults) {
                    bgsim_violation(sim, "guest", "the witness cannot write");
                }
                return;
            }
        }
        co_sleep_ns(bgsim_draw(sim, "witness.think", 3) * 50000);
    }
}

static uint32_t number_in(BgSimDisk *disk)
{
    uint32_t number;

    bgsim_disk_peek(disk, TXN_GUEST_BYTES, sizeof(number), &number);
    return number;
}

static void check_witness(TxnTask *t)
{
    uint32_t first = number_in(t->target_disks[0]);
    uint32_t second = number_in(t->target_disks[1]);

    if (first != second && first != second + 1) {
        bgsim_violation(t->s->sim, "moment", "the backup of the first disk has "
                        "number %u, that of the second %u", first, second);
    }
}

/* --- a transaction -------------------------------------------------------- */

/* Somebody works on the graph from now on.  Returns what to ask with. */
static unsigned activity_begin(TxnWorld *s)
{
    return s->busy++ == 0 && !s->given_up ? ++s->activity : s->activity++;
}

/* Whether the node that is backed up shows what guests see: others may have
 * put an overlay above it since it was chosen. */
static bool shows_all(const TxnTask *t, int d)
{
    int top = txn_top(t->s, d);
    BdrvChild *below = t->overlays[d] ? bdrv_cow_child(t->overlays[d]) : NULL;

    if (top == t->source[d]) {
        return true;
    }
    return below && top == txn_layer_of(t->s, t->overlays[d]) &&
           txn_layer_of(t->s, bdrv_skip_filters(bdrv_child_bs(below))) ==
               t->source[d];
}

/* A job is made while its disk is drained: this is the point in time. */
static void heard(const BlockJobEvent *event, void *opaque)
{
    TxnWorld *s = opaque;
    BlockJobInfo info;

    block_job_query(event->job, &info);
    if (event->type != BLOCK_JOB_EVENT_STATUS_CHANGE ||
        info.status != BLOCK_JOB_CREATED) {
        return;
    }
    for (int i = 0; i < s->nr_tasks * TXN_DISKS; i++) {
        TxnTask *t = &s->tasks[i / TXN_DISKS];
        int d = i % TXN_DISKS;
        char id[8];

        if (g_str_equal(info.id, txn_job_id(t, d, id)) && shows_all(t, d)) {
            t->frozen[d] = bgsim_model_freeze(s->disks[d].model);
        }
    }
}

/* Returns whether all was done.  With @quiet, nothing runs meanwhile. */
static bool coroutine_fn transact(TxnTask *t, bool quiet, bool grouped)
{
    unsigned activity = activity_begin(t->s);
    BlockGraph *graph = bgsim_graph(t->s->sim);
    g_autoptr(GError) error = NULL;
    TxnBefore *before;
    int ret;

    changes_begin(t->s);
    if (quiet) {
        bdrv_co_drain_all_begin(graph);
        txn_note_bits(t);
    }
    txn_forget_bitmaps(t);
    txn_plan(t);
    before = txn_look(t, activity, quiet);
    bgsim_op_begin(t->s->sim, BGSIM_OP_INSERT);
    ret = block_co_transaction(graph, t->actions, t->nr, grouped, &error);
    bgsim_op_end(t->s->sim, BGSIM_OP_INSERT);
    if (!txn_is_alone(t->s, activity)) {
        before->alone = false;
        g_clear_pointer(&before->dump, g_free);
    }
    txn_check(t, before, quiet, error);
    txn_check_inside(t, ret == 0);
    if (quiet) {
        bdrv_drain_all_end(graph);
    }
    changes_end(t->s);
    for (int d = 0; d < TXN_DISKS; d++) {
        bdrv_co_unref(t->overlays[d]);
    }
    t->s->busy--;
    return ret == 0;
}

/* --- its jobs ------------------------------------------------------------- */

static void some_verb(void *opaque, BlockJob *job)
{
    TxnTask *t = opaque;

    scenario_verb(t->s->sim, job, bgsim_draw(t->s->sim, "verb", 16));
}

static void coroutine_fn drain_a_moment(void *opaque)
{
    TxnTask *t = opaque;
    int d = bgsim_draw(t->s->sim, "drain.disk", TXN_DISKS);
    BlockDriverState *bs = bdrv_ref(blk_bs(t->s->disks[d].guest));

    scenario_drain(t->s->sim, bs);
    bdrv_co_unref(bs);
}

/* The target is what the disk was. */
static void coroutine_fn check_target(TxnTask *t, int d)
{
    g_autoptr(GError) error = NULL;

    if (!t->frozen[d]) {
        return;
    }
    if (blk_co_insert_bs(t->reader, t->targets[d], &error) < 0) {
        if (!t->s->faults) {
            bgsim_violation(t->s->sim, "graph", "%s", error->message);
        }
        return;
    }
    bgsim_model_set_backend(t->frozen[d], t->reader);
    for (int64_t at = 0; at < TXN_GUEST_BYTES; at += TXN_BLOCK) {
        bgsim_model_pread(t->frozen[d], at, TXN_BLOCK);
    }
    blk_co_remove_bs(t->reader);
}

/* The end of the jobs, each of disk @disks[i]. */
static void coroutine_fn check_jobs(TxnTask *t, BlockJob *const *jobs,
                                    const int *disks, int nr)
{
    int nr_done = 0, nr_cancelled = 0;
    BlockJobInfo infos[TXN_DISKS];

    for (int i = 0; i < nr; i++) {
        block_job_query(jobs[i], &infos[i]);
        nr_done += infos[i].ret == 0;
        nr_cancelled += infos[i].cancelled;
    }
    t->s->given_up = t->s->given_up || nr_cancelled > 0;
    for (int i = 0; i < nr; i++) {
        scenario_check_job(t->s->sim, jobs[i],
                           t->s->faults || nr_cancelled > 0);
        if (infos[i].ret == 0) {
            check_target(t, disks[i]);
        }
    }
    if (nr_done == TXN_DISKS && t->frozen[0] && t->frozen[1]) {
        check_witness(t);
    }
}

static void coroutine_fn attend_jobs(TxnTask *t, bool grouped)
{
    const ScenarioUser user = { .sim = t->s->sim, .verb = some_verb,
                                .drain = drain_a_moment, .opaque = t };
    BlockJob *jobs[TXN_DISKS];
    int disks[TXN_DISKS];
    int nr = 0;

    for (int d = 0; d < TXN_DISKS; d++) {
        char id[8];

        if (t->backed_up[d]) {
            disks[nr] = d;
            jobs[nr++] = block_job_ref(block_job_find(
                bgsim_graph(t->s->sim), txn_job_id(t, d, id)));
        }
    }
    activity_begin(t->s);
    scenario_attend_all(&user, jobs, nr);
    t->s->busy--;
    check_jobs(t, jobs, disks, nr);
    if (nr == TXN_DISKS && grouped) {
        BlockJobInfo a, b;

        block_job_query(jobs[0], &a);
        block_job_query(jobs[1], &b);
        if ((a.ret == 0) != (b.ret == 0)) {
            bgsim_violation(t->s->sim, "transaction", "one of two jobs has "
                            "failed: %d, %d", a.ret, b.ret);
        }
    }
    for (int i = 0; i < nr; i++) {
        block_job_dismiss(jobs[i], NULL);
        block_job_unref(jobs[i]);
    }
}

static void coroutine_fn task_entry(BgSim *sim, void *opaque)
{
    TxnTask *t = opaque;

    for (int i = 0; i < ATTEMPTS; i++) {
        bool quiet = bgsim_chance(sim, "txn.quiet", 400);
        bool grouped = bgsim_chance(sim, "txn.grouped", 500);

        t->attempt = i;
        co_sleep_ns(1 + bgsim_range(sim, "txn.at", 0, 300 * 1000));
        if (transact(t, quiet, grouped)) {
            attend_jobs(t, grouped);
        }
        txn_forget_bitmaps(t);
        bgsim_progress(sim);
    }
}

/* --- somebody else -------------------------------------------------------- */

/* Stream, commit or copy of some layers of a disk; NULL: there are none. */
static BlockOptions *draw_job(TxnWorld *s, BlockJobType *ret_type)
{
    BlockDriverState *layers[TXN_DISKS + TXN_OVERLAYS];
    int d = bgsim_draw(s->sim, "other.disk", TXN_DISKS);
    int nr = list_layers(&s->disks[d], layers);
    int upper = bgsim_draw(s->sim, "other.layer", nr);
    g_autofree char *more = NULL;
    BlockOptions *options;

    switch (bgsim_draw(s->sim, "other.kind", 4)) {
    case 0:
        *ret_type = BLOCK_JOB_BACKUP;
        more = g_strdup("target=other,sync=full");
        break;
    case 1:
        *ret_type = BLOCK_JOB_STREAM;
        more = upper + 2 < nr
            ? g_strdup_printf("base=%s", bdrv_node_name(layers[upper + 2]))
            : g_strdup("on-error=report");
        break;
    default:
        *ret_type = BLOCK_JOB_COMMIT;
        more = g_strdup_printf("top=%s", bdrv_node_name(layers[upper]));
        upper = 0;
        break;
    }
    options = scenario_options(
        "x,job-id=other,device=%s,auto-dismiss=off,speed=%s,%s",
        bdrv_node_name(layers[upper]),
        bgsim_chance(s->sim, "job.slow", 300) ? "1M" : "0", more);
    block_options_remove(options, "driver");
    return options;
}

static void other_verb(void *opaque, BlockJob *job)
{
    TxnWorld *s = opaque;

    block_job_complete(job, NULL);
    scenario_verb(s->sim, job, bgsim_draw(s->sim, "verb", 16));
}

static void coroutine_fn other_drain(void *opaque)
{
    TxnWorld *s = opaque;

    drain_a_moment(&s->tasks[0]);
}

static void coroutine_fn other_job(TxnWorld *s)
{
    const ScenarioUser user = { .sim = s->sim, .verb = other_verb,
                                .drain = other_drain, .opaque = s };
    BlockJobType type;
    BlockOptions *options = draw_job(s, &type);
    BlockJobInfo info;
    BlockJob *job;

    changes_begin(s);
    activity_begin(s);
    job = block_co_job_start(bgsim_graph(s->sim), type, options, NULL);
    if (job) {
        scenario_attend(&user, job);
        block_job_query(job, &info);
        s->given_up = s->given_up || info.cancelled;
        block_job_dismiss(job, NULL);
        block_job_unref(job);
    }
    s->busy--;
    changes_end(s);
}

static void coroutine_fn other_entry(BgSim *sim, void *opaque)
{
    TxnWorld *s = opaque;
    int nr = bgsim_draw(sim, "others", 6);

    for (int i = 0; i < nr; i++) {
        co_sleep_ns(1 + bgsim_range(sim, "other.at", 0, 300 * 1000));
        other_job(s);
        bgsim_progress(sim);
    }
}

/* --- the run -------------------------------------------------------------- */

static BlockDriverState *open_raw(BgSim *sim, const char *name, int64_t bytes,
                                  BgSimDisk **ret_disk)
{
    const BgSimDiskConfig config = {
        .size = bytes,
        .no_zero_write = bgsim_chance(sim, "disk.no-zero", 300),
        .discard = bgsim_draw(sim, "disk.discard", 4),
        .slow_permille = bgsim_draw(sim, "disk.slow", 2),
    };

    *ret_disk = bgsim_disk_new(sim, name, &config);
    return scenario_open(sim, "raw,node-name=%s,discard=unmap,"
                         "file.driver=sim-disk,file.disk=%s", name, name);
}

static bool open_disk(TxnWorld *s, int d)
{
    TxnLayer *layer = &s->layers[s->nr_layers++];
    TxnDisk *disk = &s->disks[d];
    BlockDriverState *bs;

    g_snprintf(layer->name, sizeof(layer->name), "d%d", d);
    bs = open_raw(s->sim, layer->name, TXN_DISK_BYTES, &layer->disk);
    if (!bs) {
        return false;
    }
    disk->s = s;
    disk->layer = d;
    disk->guest = scenario_backend(s->sim, layer->name, bs);
    disk->model = bgsim_model_new(s->sim, disk->guest, layer->name,
                                  TXN_GUEST_BYTES);
    bdrv_unref(bs);
    return true;
}

static bool open_targets(TxnWorld *s, int index)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    TxnTask *t = &s->tasks[index];

    *t = (TxnTask){ .s = s, .index = index };
    t->reader = blk_new(bgsim_graph(s->sim), "reader", &perm);
    for (int i = 0; i < TXN_BITMAPS; i++) {
        t->bitmaps[i].layer = -1;
    }
    for (int d = 0; d < TXN_DISKS; d++) {
        g_autofree char *name = g_strdup_printf("t%d%d", index, d);

        t->targets[d] = open_raw(s->sim, name, TXN_DISK_BYTES,
                                 &t->target_disks[d]);
        if (!t->targets[d]) {
            return false;
        }
    }
    return true;
}

/* Nodes of no use but to be named. */
static const char *const spares[] = { "short", "other" };

static bool open_all(TxnWorld *s)
{
    BgSimDisk *disk;
    bool ok = true;

    for (int d = 0; ok && d < TXN_DISKS; d++) {
        ok = open_disk(s, d);
    }
    for (int i = 0; ok && i < TXN_TASKS; i++) {
        ok = open_targets(s, i);
    }
    return ok && open_raw(s->sim, spares[0], TXN_BLOCK, &disk) &&
           open_raw(s->sim, spares[1], TXN_DISK_BYTES, &disk);
}

static void transactions_setup(BgSim *sim, void *state)
{
    TxnWorld *s = state;

    s->sim = sim;
    pthread_mutex_init(&s->lock, NULL);
    if (!open_all(s)) {
        return;
    }
    s->nr_tasks = 1 + bgsim_draw(sim, "tasks", TXN_TASKS);
    s->faults = scenario_faults(sim);
    block_job_add_listener(bgsim_graph(sim), heard, s);
    for (int d = 0; d < TXN_DISKS; d++) {
        for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 4); i++) {
            bgsim_spawn(sim, "guest", scenario_thread(sim, 3), guest_entry,
                        &s->disks[d]);
        }
    }
    for (int i = 0; i < s->nr_tasks; i++) {
        bgsim_spawn(sim, "task", NULL, task_entry, &s->tasks[i]);
    }
    bgsim_spawn(sim, "witness", NULL, witness_entry, s);
    bgsim_spawn(sim, "other", NULL, other_entry, s);
}

static void release_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = NULL;
    BdrvDirtyBitmap *next = bdrv_dirty_bitmap_next(bs, NULL);

    while ((bitmap = next)) {
        next = bdrv_dirty_bitmap_next(bs, bitmap);
        if (!bdrv_dirty_bitmap_persistent(bitmap)) {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

static void close_all(TxnWorld *s)
{
    BlockDriverState *layers[TXN_DISKS + TXN_OVERLAYS];

    for (int d = 0; d < TXN_DISKS; d++) {
        for (int i = list_layers(&s->disks[d], layers); i > 0; i--) {
            release_bitmaps(layers[i - 1]);
        }
        scenario_check_content(s->sim, s->disks[d].guest, s->disks[d].model);
        blk_unref(s->disks[d].guest);
    }
    for (int i = 0; i < TXN_TASKS; i++) {
        blk_unref(s->tasks[i].reader);
        for (int d = 0; d < TXN_DISKS; d++) {
            bdrv_unref(s->tasks[i].targets[d]);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(spares); i++) {
        bdrv_unref(bdrv_find_node(bgsim_graph(s->sim), spares[i]));
    }
}

static void check_images(TxnWorld *s)
{
    for (int i = TXN_DISKS; i < s->nr_layers; i++) {
        g_autoptr(GError) error = NULL;

        if (!sim_qcow2_check_both(s->layers[i].disk, "after close", &error)) {
            bgsim_violation(s->sim, "metadata", "image %d: %s", i,
                            error->message);
        }
    }
}

/* A format or raw node, and its file, for each. */
static unsigned nr_nodes(TxnWorld *s)
{
    BlockDriverState *layers[TXN_DISKS + TXN_OVERLAYS];
    unsigned nr = TXN_TASKS * TXN_DISKS + G_N_ELEMENTS(spares);

    for (int d = 0; d < TXN_DISKS; d++) {
        nr += list_layers(&s->disks[d], layers);
    }
    return 2 * nr;
}

static void transactions_verify(BgSim *sim, void *state)
{
    TxnWorld *s = state;

    if (bdrv_find_node(bgsim_graph(sim), spares[1])) {
        scenario_end_jobs(sim, nr_nodes(s));
        block_job_remove_listener(bgsim_graph(sim), heard, s);
        for (int i = 0; i < s->nr_tasks; i++) {
            txn_forget_bitmaps(&s->tasks[i]);
            memcpy(s->tasks[i].want, s->tasks[i].bitmaps,
                   sizeof(s->tasks[i].want));
            txn_check_bitmaps(&s->tasks[i], s->tasks[i].want, false);
        }
        scenario_check_rest(sim);
        close_all(s);
        check_images(s);
    }
    scenario_check_empty(sim);
    pthread_mutex_destroy(&s->lock);
}

const BgSimScenario scenario_transactions = {
    .name = "transactions",
    .help = "several things at one moment, all or none, other jobs meanwhile",
    .state_size = sizeof(TxnWorld),
    .setup = transactions_setup,
    .verify = transactions_verify,
    .threads_too = true,
};
