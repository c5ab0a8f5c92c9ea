/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-sim: what a simulated world does in a second of one core: guest
 * requests, whole runs, states after a power cut.
 */
#include <blockgraph/sim-disk.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GUESTS = 8,
    REQUESTS = 400000,
    SMALL_RUNS = 3000,
    SMALL_REQUESTS = 48,
    PENDING = 200,
    STATES = 20000,
};

typedef struct Bench {
    BgSim *sim;
    BgSimDisk *disk;
    BlockBackend *blk;
    int64_t bytes;    /* of a request */
    int left;         /* requests */
    unsigned flush_every;
} Bench;

static BlockOptions *raw_options(void)
{
    return block_options_parse_keyval("raw,file.driver=sim-disk,"
                                      "file.disk=disk0", "driver", NULL);
}

static BlockBackend *backend_on(BgSim *sim, BlockDriverState *bs)
{
    BlockPerm perm = { BLK_PERM_ALL, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(bgsim_graph(sim), "bench", &perm);
    GError *error = NULL;

    if (!bs || blk_insert_bs(blk, bs, &error) < 0) {
        fprintf(stderr, "bench-sim: cannot open\n");
        exit(EXIT_FAILURE);
    }
    bdrv_unref(bs);
    return blk;
}

static void bench_init(Bench *b, uint64_t seed, BgSimStrategy strategy,
                       bool raw)
{
    BgSimConfig config = { .strategy = strategy, .max_steps = UINT64_MAX };

    b->sim = bgsim_new(seed, &config);
    b->disk = bgsim_disk_new(b->sim, "disk0", NULL);
    b->blk = backend_on(b->sim,
                        raw ? bdrv_open(bgsim_graph(b->sim), raw_options(),
                                        NULL)
                            : bgsim_disk_open(b->disk, NULL, NULL));
}

static void bench_clear(Bench *b)
{
    blk_unref(b->blk);
    bgsim_free(b->sim);
}

static void coroutine_fn guest(BgSim *sim, void *opaque)
{
    Bench *b = opaque;
    g_autofree uint8_t *buf = g_malloc0(b->bytes);

    while (b->left-- > 0) {
        int64_t at = bgsim_draw(sim, "at", 256 * 1024 / b->bytes) * b->bytes;

        if (b->left % b->flush_every == b->flush_every - 1) {
            blk_co_flush(b->blk);
        } else if (b->left % 2) {
            blk_co_pwrite(b->blk, at, b->bytes, buf, 0);
        } else {
            blk_co_pread(b->blk, at, b->bytes, buf, 0);
        }
        bgsim_progress(sim);
    }
}

static void run_guests(Bench *b)
{
    GError *error = NULL;

    for (int i = 0; i < GUESTS; i++) {
        bgsim_spawn(b->sim, "guest", NULL, guest, b);
    }
    if (!bgsim_run(b->sim, -1, &error)) {
        fprintf(stderr, "bench-sim: %s\n", error->message);
        exit(EXIT_FAILURE);
    }
}

static double seconds_since(int64_t start)
{
    return (g_get_monotonic_time() - start) / 1e6;
}

static void bench_requests(const char *name, BgSimStrategy strategy, bool raw,
                           int64_t bytes)
{
    Bench b = { .bytes = bytes, .left = REQUESTS, .flush_every = 50 };
    int64_t start = g_get_monotonic_time();
    uint64_t steps;

    bench_init(&b, 1, strategy, raw);
    run_guests(&b);
    steps = bgsim_steps(b.sim);
    bench_clear(&b);
    printf("%-40s %9.0f requests/s, %.1f steps each\n", name,
           REQUESTS / seconds_since(start), (double)steps / REQUESTS);
}

static void bench_runs(void)
{
    int64_t start = g_get_monotonic_time();

    for (int i = 0; i < SMALL_RUNS; i++) {
        Bench b = { .bytes = 512, .left = SMALL_REQUESTS, .flush_every = 8 };

        bench_init(&b, i, BGSIM_STRATEGY_ANY, true);
        run_guests(&b);
        bench_clear(&b);
    }
    printf("%-40s %9.0f runs/s\n", "runs of 48 requests through raw",
           SMALL_RUNS / seconds_since(start));
}

static bool check_nothing(BgSim *sim, const BgSimCrashState *state,
                          void *opaque, GError **errp)
{
    return true;
}

/* Open what is left through raw, read all of it. */
static bool check_read(BgSim *sim, const BgSimCrashState *state, void *opaque,
                       GError **errp)
{
    static uint8_t buf[256 * 1024];
    BlockBackend *blk = backend_on(sim, bdrv_open(bgsim_graph(sim),
                                                  raw_options(), errp));
    int ret = blk_pread(blk, 0, sizeof(buf), buf, 0);

    blk_unref(blk);
    return ret == 0;
}

static void bench_states(const char *name, BgSimCrashCheck *check)
{
    BgSimCrashConfig config = { .sample = STATES };
    Bench b = { .bytes = 512, .left = PENDING * 3, .flush_every = 100000 };
    BgSimDiskStats stats;
    GError *error = NULL;
    int64_t start;

    bench_init(&b, 1, BGSIM_STRATEGY_FIFO, true);
    run_guests(&b);
    bgsim_disk_get_stats(b.disk, &stats);
    start = g_get_monotonic_time();
    if (!bgsim_crash_each(b.sim, check, NULL, &config, &error)) {
        fprintf(stderr, "bench-sim: %s\n", error->message);
        exit(EXIT_FAILURE);
    }
    printf("%-40s %9.0f states/s, %d pending atoms\n", name,
           bgsim_crash_states(b.sim, NULL) / seconds_since(start),
           (int)stats.volatile_atoms);
    bench_clear(&b);
}

int main(void)
{
    bench_requests("512 bytes, disk alone, fifo", BGSIM_STRATEGY_FIFO, false,
                   512);
    bench_requests("512 bytes through raw, fifo", BGSIM_STRATEGY_FIFO, true,
                   512);
    bench_requests("512 bytes through raw, uniform", BGSIM_STRATEGY_UNIFORM,
                   true, 512);
    bench_requests("512 bytes through raw, pct", BGSIM_STRATEGY_PCT, true,
                   512);
    bench_requests("4 KiB through raw, fifo", BGSIM_STRATEGY_FIFO, true,
                   4096);
    bench_runs();
    bench_states("states, no check", check_nothing);
    bench_states("states, raw opened, 256 KiB read", check_read);
    return 0;
}
