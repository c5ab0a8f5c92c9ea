/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-blk: request rate of a node through the callback API.
 *
 * Opens a node, keeps a number of requests in flight from one or more I/O
 * threads until a count is reached, and prints requests per second.  The
 * counterpart of "qemu-img bench" and of a simple fio job.
 */
#include <blockgraph/backend.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Config {
    int64_t count;
    int64_t size;
    int depth;
    int threads;
    gboolean write;
    gboolean random;
    gboolean direct;
    char *engine;
    char *image_opts;
} Config;

static Config config = { .count = 1000000, .size = 4096, .depth = 64,
                         .threads = 1 };

struct Worker;

typedef struct Slot {
    struct Worker *worker;
    BlockIOVec1 iov;
} Slot;

typedef struct Worker {
    BlockBackend *blk;
    int64_t length;
    int64_t to_send;
    int64_t in_flight;
    int64_t next_offset;
    uint64_t random;
    int first_error;
    Slot *slots;
    uint8_t *memory;
    IOThread *iothread;
    _Atomic bool done;
} Worker;

static void slot_done(void *opaque, int ret);

static int64_t next_offset(Worker *w)
{
    int64_t blocks = w->length / config.size;
    int64_t offset;

    if (config.random) {
        w->random ^= w->random << 13;
        w->random ^= w->random >> 7;
        w->random ^= w->random << 17;
        return (int64_t)(((unsigned __int128)w->random * blocks) >> 64) *
               config.size;
    }
    offset = w->next_offset;
    w->next_offset += config.size;
    if (w->next_offset + config.size > w->length) {
        w->next_offset = 0;
    }
    return offset;
}

static void slot_send(Slot *slot)
{
    Worker *w = slot->worker;

    w->to_send--;
    w->in_flight++;
    if (config.write) {
        blk_aio_pwritev(w->blk, next_offset(w), &slot->iov.vec, 0, slot_done,
                        slot);
    } else {
        blk_aio_preadv(w->blk, next_offset(w), &slot->iov.vec, 0, slot_done,
                       slot);
    }
}

static void slot_done(void *opaque, int ret)
{
    Slot *slot = opaque;
    Worker *w = slot->worker;

    w->in_flight--;
    if (ret < 0 && w->first_error == 0) {
        w->first_error = ret;
        w->to_send = 0;
    }
    if (w->to_send > 0) {
        slot_send(slot);
    } else if (w->in_flight == 0) {
        atomic_store(&w->done, true);
    }
}

static void worker_start(void *opaque)
{
    Worker *w = opaque;

    for (int i = 0; i < config.depth && w->to_send > 0; i++) {
        slot_send(&w->slots[i]);
    }
}

static void worker_init(Worker *w, BlockBackend *blk, int index)
{
    w->blk = blk;
    w->length = blk_getlength(blk);
    w->to_send = config.count / config.threads;
    w->random = 88172645463325252ull + index * 1000003ull;
    w->next_offset = 0;
    w->memory = block_aligned_alloc(4096, config.size * config.depth);
    w->slots = g_new0(Slot, config.depth);
    memset(w->memory, 0x5a, config.size * config.depth);
    for (int i = 0; i < config.depth; i++) {
        w->slots[i].worker = w;
        block_iov_buf(&w->slots[i].iov, w->memory + i * config.size,
                      config.size);
    }
}

static AioEngine engine_by_name(const char *name)
{
    if (!name || strcmp(name, "io_uring") == 0) {
        return AIO_ENGINE_AUTO;
    }
    if (strcmp(name, "threads") == 0) {
        return AIO_ENGINE_THREADS;
    }
    fprintf(stderr, "bench-blk: unknown engine '%s'\n", name);
    exit(EXIT_FAILURE);
}

static void fail(GError *error)
{
    fprintf(stderr, "bench-blk: %s\n", error->message);
    exit(EXIT_FAILURE);
}

static void run_in_threads(Worker *workers)
{
    GError *error = NULL;

    for (int i = 0; i < config.threads; i++) {
        workers[i].iothread =
            iothread_new("bench", engine_by_name(config.engine), &error);
        if (!workers[i].iothread) {
            fail(error);
        }
    }
    for (int i = 0; i < config.threads; i++) {
        aio_bh_schedule_oneshot(
            iothread_get_aio_context(workers[i].iothread), worker_start,
            &workers[i]);
    }
    for (int i = 0; i < config.threads; i++) {
        while (!atomic_load(&workers[i].done)) {
            g_usleep(500);
        }
        iothread_free(workers[i].iothread);
    }
}

static const GOptionEntry entries[] = {
    { "count", 'c', 0, G_OPTION_ARG_INT64, &config.count, "requests", "N" },
    { "size", 's', 0, G_OPTION_ARG_INT64, &config.size, "bytes a request",
      "BYTES" },
    { "depth", 'd', 0, G_OPTION_ARG_INT, &config.depth,
      "requests in flight of each thread", "N" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &config.threads,
      "I/O threads (1: the main thread does it)", "N" },
    { "write", 'w', 0, G_OPTION_ARG_NONE, &config.write, "write", NULL },
    { "random", 'r', 0, G_OPTION_ARG_NONE, &config.random,
      "random offsets, not sequential", NULL },
    { "direct", 'D', 0, G_OPTION_ARG_NONE, &config.direct,
      "bypass the page cache", NULL },
    { "engine", 'e', 0, G_OPTION_ARG_STRING, &config.engine,
      "io_uring or threads", "NAME" },
    { "image-opts", 'o', 0, G_OPTION_ARG_STRING, &config.image_opts,
      "options of the node instead of a file", "OPTS" },
    G_OPTION_ENTRY_NULL
};

static BlockBackend *open_node(BlockGraph *graph, const char *file)
{
    BlockOptions *options;
    BlockBackend *blk;
    GError *error = NULL;

    options = config.image_opts
                  ? block_options_parse_keyval(config.image_opts, "driver",
                                               &error)
                  : block_options_parse_filename(file, &error);
    if (!options) {
        fail(error);
    }
    if (config.direct) {
        block_options_set_bool(options, "cache.direct", true);
    }
    if (!config.write) {
        block_options_set_bool(options, "read-only", true);
    }
    blk = blk_open(graph, options, &error);
    if (!blk) {
        fail(error);
    }
    return blk;
}

static void run(BlockGraph *graph, Worker *workers)
{
    AioContext *ctx = block_graph_aio_context(graph);
    int64_t start = g_get_monotonic_time();
    double seconds;
    int ret = 0;

    if (config.threads == 1) {
        worker_start(&workers[0]);
        while (!atomic_load(&workers[0].done)) {
            aio_poll(ctx, true);
        }
    } else {
        run_in_threads(workers);
    }
    seconds = (g_get_monotonic_time() - start) / 1e6;
    for (int i = 0; i < config.threads; i++) {
        ret = ret ? ret : workers[i].first_error;
    }
    if (ret < 0) {
        fprintf(stderr, "bench-blk: %s\n", g_strerror(-ret));
        exit(EXIT_FAILURE);
    }
    printf("%.0f requests/s, %.1f ns each\n", config.count / seconds,
           seconds * 1e9 / config.count);
}

int main(int argc, char **argv)
{
    GOptionContext *context = g_option_context_new("[FILE]");
    GError *error = NULL;
    BlockGraph *graph;
    BlockBackend *blk;
    AioContext *ctx;
    Worker *workers;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fail(error);
    }
    if ((argc < 2 && !config.image_opts) || config.threads < 1 ||
        config.depth < 1 || config.size < 1) {
        fprintf(stderr, "bench-blk: FILE or --image-opts, and positive "
                "numbers, are needed\n");
        return EXIT_FAILURE;
    }
    ctx = aio_context_new(engine_by_name(config.engine), &error);
    graph = ctx ? block_graph_new(ctx, &error) : NULL;
    if (!graph) {
        fail(error);
    }
    blk = open_node(graph, argc > 1 ? argv[1] : NULL);
    workers = block_aligned_alloc(64, sizeof(Worker) * config.threads);
    memset(workers, 0, sizeof(Worker) * config.threads);
    for (int i = 0; i < config.threads; i++) {
        worker_init(&workers[i], blk, i);
    }
    run(graph, workers);
    for (int i = 0; i < config.threads; i++) {
        block_aligned_free(workers[i].memory);
        g_free(workers[i].slots);
    }
    block_aligned_free(workers);
    blk_unref(blk);
    block_graph_free(graph);
    aio_context_unref(ctx);
    g_option_context_free(context);
    g_free(config.engine);
    g_free(config.image_opts);
    return EXIT_SUCCESS;
}
