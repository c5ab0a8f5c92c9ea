/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-backup DIR [MIB]: what a backup takes, and what it takes from a guest.
 *
 * Makes files in DIR (twice MIB, 2048, and holes), and prints
 *
 *   incremental backup of some random clusters of 64 GiB: MiB/s of what changed
 *   full backup of MIB of data in 16 TiB of holes / in a file of that size
 *   latency of a guest's 4k writes at depth 16, in a thread of its own: idle,
 *   and during a full backup with so many workers
 */
#include <blockgraph/backend.h>
#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/job.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (INT64_C(1) << 20)
#define GIB (INT64_C(1) << 30)
#define TIB (INT64_C(1) << 40)
#define CLUSTER 65536
#define REQUEST 4096
#define DEPTH 16
#define LATENCIES_MAX (1 << 22)

static BlockGraph *graph;
static const char *directory;
static BlockDriverState *source, *target;
static BlockBackend *guest;

static void fail(const char *what, GError *error)
{
    fprintf(stderr, "bench-backup: %s: %s\n", what,
            error ? error->message : "failed");
    exit(EXIT_FAILURE);
}

/* --- disks ---------------------------------------------------------------- */

static BlockDriverState *open_disk(const char *name, int64_t size)
{
    g_autofree char *path = g_build_filename(directory, name, NULL);
    g_autofree char *text = g_strdup_printf(
        "raw,node-name=%s,file.driver=file,file.filename=%s", name, path);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    GError *error = NULL;
    BlockDriverState *bs;

    if (fd < 0 || ftruncate(fd, size) < 0) {
        fail(path, NULL);
    }
    close(fd);
    bs = bdrv_open(graph, block_options_parse_keyval(text, "driver", NULL),
                   &error);
    if (!bs) {
        fail(name, error);
    }
    return bs;
}

static void open_disks(int64_t size)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };
    GError *error = NULL;

    source = open_disk("source", size);
    target = open_disk("target", size);
    guest = blk_new(graph, "guest", &perm);
    if (blk_insert_bs(guest, source, &error) < 0) {
        fail("guest", error);
    }
}

static void close_disks(void)
{
    static const char *const names[] = { "source", "target" };

    blk_unref(guest);
    bdrv_unref(target);
    bdrv_unref(source);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(directory, names[i], NULL);

        unlink(path);
    }
}

static void fill(int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(MIB);

    memset(buf, 0x5a, MIB);
    for (int64_t at = 0; at < bytes; at += MIB) {
        if (blk_pwrite(guest, offset + at, MIN(MIB, bytes - at), buf, 0) < 0) {
            fail("filling a disk", NULL);
        }
    }
}

/* --- a backup ------------------------------------------------------------- */

static BlockJob *start_backup(const char *options)
{
    g_autofree char *text =
        g_strdup_printf("device=source,target=target,%s", options);
    GError *error = NULL;
    BlockJob *job = block_job_start(
        graph, BLOCK_JOB_BACKUP, block_options_parse_keyval(text, NULL, NULL),
        &error);

    if (!job) {
        fail(options, error);
    }
    return job;
}

/* Seconds. */
static double backup(const char *options)
{
    gint64 start = g_get_monotonic_time();
    BlockJob *job = start_backup(options);
    GError *error = NULL;

    if (block_job_wait(job, &error) < 0) {
        fail(options, error);
    }
    block_job_unref(job);
    return (g_get_monotonic_time() - start) / 1e6;
}

/* --- incremental ---------------------------------------------------------- */

/* Backups of clusters at random places; @permille of the disk. */
static void incremental(int permille)
{
    int64_t size = 64 * GIB;
    int64_t count = size / CLUSTER * permille / 1000;
    uint64_t random = 88172645463325252ull;
    int64_t bytes;
    double seconds;

    open_disks(size);
    if (!bdrv_create_dirty_bitmap(source, CLUSTER, "b", NULL)) {
        fail("bitmap", NULL);
    }
    for (int64_t i = 0; i < count; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        fill((int64_t)(random % (size / CLUSTER)) * CLUSTER, CLUSTER);
    }
    bytes = bdrv_get_dirty_count(bdrv_find_dirty_bitmap(source, "b"));
    seconds = backup("sync=incremental,bitmap=b");
    printf("incremental, %.1f %% of 64 GiB in clusters of 64 KiB: %" G_GINT64_FORMAT
           " MiB in %.3f s, %.0f MiB/s\n", permille / 10.0, bytes / MIB,
           seconds, bytes / MIB / seconds);
    bdrv_release_dirty_bitmap(bdrv_find_dirty_bitmap(source, "b"));
    close_disks();
}

/* --- holes ---------------------------------------------------------------- */

static double full_backup_in(int64_t size, int64_t data)
{
    double seconds;

    open_disks(size);
    for (int64_t at = 0; at < 16; at++) {
        fill(size / 16 * at / MIB * MIB, data / 16);
    }
    seconds = backup("sync=full");
    close_disks();
    return seconds;
}

static void holes(int64_t data)
{
    double dense = full_backup_in(data, data);
    double sparse = full_backup_in(16 * TIB, data);

    printf("full backup of %" G_GINT64_FORMAT " MiB: %.3f s; the same in 16 TiB "
           "of holes: %.3f s\n", data / MIB, dense, sparse);
}

/* --- a guest meanwhile ---------------------------------------------------- */

/* Random writes in the thread of @ctx until told to stop. */
typedef struct Load {
    AioContext *ctx;
    int64_t blocks;
    _Atomic bool stop;
    _Atomic int in_flight;

    /* The thread's. */
    uint64_t random;
    unsigned *latencies; /* ns */
    size_t nr;
} Load;

typedef struct Slot {
    Load *load;
    BlockIOVec1 iov;
    uint8_t *buf;
    int64_t sent;
} Slot;

static void slot_send(void *opaque);

static void slot_done(void *opaque, int ret)
{
    Slot *slot = opaque;
    Load *load = slot->load;
    int64_t ns = aio_clock_ns(load->ctx) - slot->sent;

    if (ret < 0) {
        fail("a guest's write", NULL);
    }
    if (load->nr < LATENCIES_MAX) {
        load->latencies[load->nr++] = MIN(ns, UINT_MAX);
    }
    if (load->stop) {
        load->in_flight--;
    } else {
        slot_send(slot);
    }
}

static void slot_send(void *opaque)
{
    Slot *slot = opaque;
    Load *load = slot->load;

    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    slot->sent = aio_clock_ns(load->ctx);
    blk_aio_pwritev(guest, (int64_t)(load->random % load->blocks) * REQUEST,
                    block_iov_buf(&slot->iov, slot->buf, REQUEST), 0,
                    slot_done, slot);
}

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

    return (x > y) - (x < y);
}

static double microseconds(const Load *load, int permille)
{
    return load->nr ? load->latencies[load->nr * permille / 1000] / 1e3 : 0;
}

/* Write while @options copy the disk (NULL: for a second); us in the middle. */
static double latency(AioContext *ctx, const char *options, double idle)
{
    g_autofree unsigned *latencies = g_new(unsigned, LATENCIES_MAX);
    uint8_t *memory = block_aligned_alloc(4096, DEPTH * REQUEST);
    Load load = { .ctx = ctx, .blocks = bdrv_length(source) / REQUEST,
                  .in_flight = DEPTH, .random = 88172645463325252ull,
                  .latencies = latencies };
    AioContext *main_ctx = block_graph_aio_context(graph);
    double seconds = 1;
    Slot slots[DEPTH];

    memset(memory, 0x5a, DEPTH * REQUEST);
    for (int i = 0; i < DEPTH; i++) {
        slots[i] = (Slot){ .load = &load, .buf = memory + i * REQUEST };
        aio_bh_schedule_oneshot(ctx, slot_send, &slots[i]);
    }
    if (options) {
        seconds = backup(options);
    } else {
        g_usleep(G_USEC_PER_SEC);
    }
    load.stop = true;
    while (load.in_flight > 0) {
        aio_poll(main_ctx, false);
    }
    qsort(latencies, load.nr, sizeof(unsigned), compare);
    printf("  %-44s %8.1f us (%.2f), p99 %8.1f us, %6.0f k/s, backup %.2f s\n",
           options ? options : "idle", microseconds(&load, 500),
           idle > 0 ? microseconds(&load, 500) / idle : 1.0,
           microseconds(&load, 990), load.nr / seconds / 1000,
           options ? seconds : 0);
    block_aligned_free(memory);
    return microseconds(&load, 500);
}

static void guest_during_backup(int64_t data)
{
    static const char *const options[] = {
        "sync=full,max-workers=1", "sync=full,max-workers=4",
        "sync=full,max-workers=16",
        ("sync=full,max-workers=16,on-cbw-error=break-snapshot,"
         "staging-size=64M"),
    };
    IOThread *thread = iothread_new("guest", AIO_ENGINE_AUTO, NULL);
    AioContext *ctx = iothread_get_aio_context(thread);
    double idle;

    open_disks(data);
    fill(0, data);
    printf("latency of 4k writes at depth 16, median (ratio to idle):\n");
    idle = latency(ctx, NULL, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        latency(ctx, options[i], idle);
    }
    close_disks();
    iothread_free(thread);
}

int main(int argc, char **argv)
{
    int64_t data = (argc > 2 ? atoi(argv[2]) : 2048) * MIB;
    GError *error = NULL;

    if (argc < 2 || data < 16 * MIB) {
        fprintf(stderr, "usage: bench-backup DIR [MIB]\n");
        return 2;
    }
    directory = argv[1];
    graph = block_graph_new(NULL, &error);
    if (!graph) {
        fail("graph", error);
    }
    incremental(1);
    incremental(10);
    holes(MIN(data, GIB));
    guest_during_backup(data);
    block_graph_free(graph);
    return 0;
}
