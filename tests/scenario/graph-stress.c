/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A graph that changes under load.
 *
 * Several I/O threads send random requests of any alignment to one disk; each
 * lane of a thread owns stripes of it and knows what they must hold.  Stripes
 * do not begin on block boundaries, so padded writes of different threads
 * meet in the same blocks.  Meanwhile the main thread drains, reopens, inserts
 * and removes filters, and adds and removes other users.
 *
 *   graph-stress --seed=N --engine=io_uring|threads --rounds=N --disk=OPTIONS
 */
#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem-driver.h"

enum { THREADS = 3, LANES = 4, STRIPES = 4, STRIPE = 5000 };

#define DISK_BYTES (THREADS * LANES * STRIPES * STRIPE)

typedef struct Random {
    uint64_t state;
} Random;

static unsigned random_below(Random *r, unsigned below)
{
    r->state = r->state * 6364136223846793005ull + 1442695040888963407ull;
    return (r->state >> 33) % below;
}

/* One request at a time on stripes of its own; touched by one thread. */
typedef struct Lane {
    Random random;
    int index;
    uint8_t *model; /* STRIPES * STRIPE bytes */
    _Atomic bool done;
    _Atomic uint64_t requests;
} Lane;

static gint seed = 1;
static gint rounds = 300;
static char *engine_name;
static char *disk_options;

static BlockGraph *graph;
static BlockBackend *guest;
static _Atomic bool stop;

/* --- lanes ---------------------------------------------------------------- */

static void check_read(Lane *lane, const uint8_t *buf, int64_t at,
                       int64_t bytes)
{
    if (memcmp(buf, lane->model + at, bytes) != 0) {
        int64_t i = 0;

        while (buf[i] == lane->model[at + i]) {
            i++;
        }
        fprintf(stderr, "seed %d, lane %d: byte %ld is 0x%02x, must be 0x%02x\n",
                seed, lane->index, (long)(at + i), buf[i],
                lane->model[at + i]);
        abort();
    }
}

static void coroutine_fn lane_write(Lane *lane, int64_t disk, int64_t at,
                                    int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    unsigned flags = random_below(&lane->random, 8) ? 0 : BDRV_REQ_FUA;

    memset(buf, random_below(&lane->random, 255) + 1, bytes);
    if (random_below(&lane->random, 10) == 0) {
        memset(buf, 0, bytes); /* detect-zeroes may see it */
    }
    g_assert(blk_co_pwrite(guest, disk, bytes, buf, flags) == 0);
    memcpy(lane->model + at, buf, bytes);
}

static void coroutine_fn lane_read(Lane *lane, int64_t disk, int64_t at,
                                   int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert(blk_co_pread(guest, disk, bytes, buf, 0) == 0);
    check_read(lane, buf, at, bytes);
}

static void coroutine_fn lane_step(Lane *lane)
{
    int stripe = random_below(&lane->random, STRIPES);
    int64_t in_stripe = random_below(&lane->random, STRIPE);
    int64_t bytes = random_below(&lane->random, STRIPE - in_stripe) + 1;
    int64_t at = stripe * STRIPE + in_stripe;
    /* Stripes of all lanes are interleaved over the disk. */
    int64_t disk = ((int64_t)stripe * THREADS * LANES + lane->index) * STRIPE +
                   in_stripe;
    BlockExtent extent;

    switch (random_below(&lane->random, 8)) {
    case 0:
    case 1:
    case 2:
        lane_write(lane, disk, at, bytes);
        break;
    case 3:
        g_assert(blk_co_pwrite_zeroes(guest, disk, bytes,
                                      BDRV_REQ_MAY_UNMAP) == 0);
        memset(lane->model + at, 0, bytes);
        break;
    case 4:
        g_assert(blk_co_flush(guest) == 0);
        break;
    case 5:
        g_assert(blk_co_block_status(guest, disk, bytes, &extent) == 0);
        g_assert(extent.bytes > 0 && extent.bytes <= bytes);
        break;
    default:
        lane_read(lane, disk, at, bytes);
    }
    atomic_fetch_add(&lane->requests, 1);
}

static void coroutine_fn lane_entry(void *opaque)
{
    Lane *lane = opaque;

    while (!atomic_load(&stop)) {
        lane_step(lane);
        if (random_below(&lane->random, 16) == 0) {
            co_sleep_ns(0); /* others of this thread, and its queue */
        }
    }
    for (int i = 0; i < STRIPES; i++) {
        lane_read(lane, ((int64_t)i * THREADS * LANES + lane->index) * STRIPE,
                  i * STRIPE, STRIPE);
    }
    atomic_store(&lane->done, true);
}

/* --- the main thread ------------------------------------------------------ */

static BlockOptions *options_of(const char *text)
{
    GError *error = NULL;
    BlockOptions *options = block_options_parse_keyval(text, "driver", &error);

    if (!options) {
        g_error("%s: %s", text, error->message);
    }
    return options;
}

static void must(int ret, GError *error)
{
    if (ret < 0) {
        g_error("seed %d: %s", seed, error->message);
    }
}

/* In a section the driver must see nothing, whatever the lanes try. */
static void check_quiet(void)
{
    MemDisk *mem = mem_disk(bdrv_skip_filters(blk_bs(guest)));
    unsigned before = mem_total(mem);

    for (int i = 0; i < 20; i++) {
        aio_poll(block_graph_aio_context(graph), false);
        g_thread_yield();
    }
    g_assert(mem_total(mem) == before);
}

static void change_by_drain(Random *random)
{
    BlockDriverState *bs = blk_bs(guest);

    if (random_below(random, 2)) {
        bdrv_drain_all_begin(graph);
        check_quiet();
        bdrv_drain_all_end(graph);
    } else {
        bdrv_drained_begin(bs);
        bdrv_drained_begin(bdrv_skip_filters(bs));
        check_quiet();
        bdrv_drained_end(bs);
        check_quiet();
        bdrv_drained_end(bdrv_skip_filters(bs));
    }
}

static void change_by_reopen(Random *random)
{
    static const char *const texts[] = {
        "detect-zeroes=on", "detect-zeroes=off", "cache.no-flush=on",
        "cache.no-flush=off", "discard=unmap",
    };
    BlockDriverState *bs = bdrv_skip_filters(blk_bs(guest));
    GError *error = NULL;
    BlockOptions *options = block_options_parse_keyval(
        texts[random_below(random, G_N_ELEMENTS(texts))], NULL, &error);

    g_assert(options);
    must(bdrv_reopen(bs, options, &error), error);

    /* And one that must fail, with requests in flight. */
    options = block_options_parse_keyval("read-only=on", NULL, NULL);
    g_assert(bdrv_reopen(bs, options, NULL) == -EACCES);
}

/* At most three filters at a time, in any order in and out. */
static void change_by_filter(Random *random)
{
    static const char *const texts[] = {
        "pass", "blkdebug,align=4k", "throttle,throttle-group=slow",
    };
    static BlockDriverState *filters[3];
    unsigned i = random_below(random, G_N_ELEMENTS(filters));
    BlockDriverState *bs = blk_bs(guest);
    GError *error = NULL;

    if (filters[i]) {
        must(bdrv_drop_filter(filters[i], &error), error);
        bdrv_unref(filters[i]);
        filters[i] = NULL;
        return;
    }
    if (random_below(random, 2)) {
        bs = bdrv_skip_filters(bs);
    }
    must(bdrv_insert_node(
             bs, options_of(texts[random_below(random, G_N_ELEMENTS(texts))]),
             &filters[i], &error), error);
    if (random_below(random, 4) == 0) {
        BlockDriverState *gone = NULL;

        /* A refused one must leave no trace. */
        g_assert(bdrv_insert_node(bs, options_of("pass,file=nobody"), &gone,
                                  NULL) < 0);
    }
}

static void drop_all_filters(void)
{
    BlockDriverState *bs = blk_bs(guest);

    while (bs != bdrv_skip_filters(bs)) {
        GError *error = NULL;
        BlockDriverState *filter = bs;

        must(bdrv_drop_filter(filter, &error), error);
        bdrv_unref(filter);
        bs = blk_bs(guest);
    }
}

static void change_by_user(Random *random)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    BlockBackend *reader = blk_new(graph, "reader", &perm);
    GError *error = NULL;
    char buf[1000];

    must(blk_insert_bs(reader, blk_bs(guest), &error), error);
    for (int i = 0; i < 5; i++) {
        g_assert(blk_pread(reader, random_below(random, DISK_BYTES - 1000),
                           sizeof(buf), buf, 0) == 0);
    }
    /* One that conflicts with the guest is refused. */
    perm.shared = BLK_PERM_CONSISTENT_READ;
    g_assert(blk_set_perm(reader, &perm, NULL) == -EPERM);
    blk_unref(reader);
}

static void change(Random *random)
{
    switch (random_below(random, 4)) {
    case 0:
        change_by_drain(random);
        break;
    case 1:
        change_by_reopen(random);
        break;
    case 2:
        change_by_filter(random);
        break;
    default:
        change_by_user(random);
    }
}

/* --- set up --------------------------------------------------------------- */

static int coroutine_fn pass_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return bdrv_co_open_child(bs, options, "file",
                              BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                              errp)
               ? 0
               : -EINVAL;
}

static const BlockDriver pass_driver = {
    .struct_size = sizeof(BlockDriver),
    .name = "pass",
    .kind = BLOCK_DRIVER_FILTER,
    .open = pass_open,
};

static AioEngine engine(void)
{
    return engine_name && strcmp(engine_name, "threads") == 0
               ? AIO_ENGINE_THREADS
               : AIO_ENGINE_AUTO;
}

static void open_disk(void)
{
    g_autofree char *text = g_strdup_printf(
        "%s,size=%d,node-name=disk,discard=unmap",
        disk_options ? disk_options
                     : "mem,align=512,fua=off,max-transfer=4k,zero-align=4k",
        DISK_BYTES);
    GError *error = NULL;
    BlockDriverState *disk = bdrv_open(graph, options_of(text), &error);
    BlockPerm perm = {
        .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
        .shared = BLK_PERM_ALL,
    };

    must(disk ? 0 : -1, error);
    guest = blk_new(graph, "guest", &perm);
    must(blk_insert_bs(guest, disk, &error), error);
    bdrv_unref(disk);
}

/* Slow enough that requests wait in the filter when it is drained. */
static ThrottleGroup *make_group(void)
{
    ThrottleConfig config = { .iops_size = 0 };
    GError *error = NULL;
    ThrottleGroup *group;

    config.limits[THROTTLE_IOPS_TOTAL].avg = 50000;
    group = throttle_group_new(graph, "slow", &config, &error);
    must(group ? 0 : -1, error);
    return group;
}

static void lanes_start(Lane *lanes, IOThread **threads)
{
    GError *error = NULL;

    for (int t = 0; t < THREADS; t++) {
        threads[t] = iothread_new("lane", engine(), &error);
        must(threads[t] ? 0 : -1, error);
        for (int l = 0; l < LANES; l++) {
            Lane *lane = &lanes[t * LANES + l];

            lane->index = t * LANES + l;
            lane->random.state = seed * 1000003ull + lane->index;
            lane->model = g_malloc0(STRIPES * STRIPE);
            aio_co_schedule(iothread_get_aio_context(threads[t]),
                            coroutine_create(lane_entry, lane));
        }
    }
}

/* Every lane must get on between two changes, or nothing is tested. */
static void wait_for_progress(Lane *lanes)
{
    for (int i = 0; i < THREADS * LANES; i++) {
        uint64_t before = atomic_load(&lanes[i].requests);

        while (atomic_load(&lanes[i].requests) < before + 3) {
            aio_poll(block_graph_aio_context(graph), false);
            g_thread_yield();
        }
    }
}

static void lanes_stop(Lane *lanes, IOThread **threads)
{
    uint64_t requests = 0;

    atomic_store(&stop, true);
    for (int i = 0; i < THREADS * LANES; i++) {
        while (!atomic_load(&lanes[i].done)) {
            aio_poll(block_graph_aio_context(graph), false);
            g_thread_yield();
        }
        requests += atomic_load(&lanes[i].requests);
        g_free(lanes[i].model);
    }
    for (int t = 0; t < THREADS; t++) {
        iothread_free(threads[t]);
    }
    printf("seed %d: %d changes under %lu requests\n", seed, rounds,
           (unsigned long)requests);
}

static const GOptionEntry entries[] = {
    { "seed", 0, 0, G_OPTION_ARG_INT, &seed, "of all random choices", "N" },
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "changes of the graph", "N" },
    { "engine", 0, 0, G_OPTION_ARG_STRING, &engine_name,
      "io_uring or threads", "NAME" },
    { "disk", 0, 0, G_OPTION_ARG_STRING, &disk_options,
      "options of the disk, without size and names", "OPTS" },
    G_OPTION_ENTRY_NULL
};

int main(int argc, char **argv)
{
    GOptionContext *context = g_option_context_new(NULL);
    Lane lanes[THREADS * LANES] = { 0 };
    IOThread *threads[THREADS];
    ThrottleGroup *group;
    GError *error = NULL;
    AioContext *ctx;
    Random random;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    random.state = seed;
    mem_register();
    bdrv_register(&pass_driver, NULL);
    ctx = aio_context_new(engine(), &error);
    must(ctx ? 0 : -1, error);
    graph = block_graph_new(ctx, &error);
    group = make_group();
    open_disk();
    lanes_start(lanes, threads);
    for (int i = 0; i < rounds; i++) {
        wait_for_progress(lanes);
        change(&random);
    }
    lanes_stop(lanes, threads);
    drop_all_filters();
    blk_unref(guest);
    throttle_group_unref(group);
    block_graph_free(graph);
    aio_context_unref(ctx);
    g_option_context_free(context);
    g_free(engine_name);
    g_free(disk_options);
    return EXIT_SUCCESS;
}
