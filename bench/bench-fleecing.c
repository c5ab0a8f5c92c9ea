/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-fleecing DIR: what copy-before-write costs guests and readers.
 *
 * Makes two files in DIR (tmpfs, 2 * 256 MiB), and prints, each with its peer
 * in the same run:
 *
 *   guest 4k random writes, everything copied    / without the filter
 *   4k random reads of untouched snapshot parts  / of the source
 *   the same while a guest writes elsewhere      / of the source, the same
 *   median latency of writes to new clusters with a target that takes 20 ms
 *   time a request with 10, 100, 1,000 readers and writers in flight
 */
#include <blockgraph/backend.h>
#include <blockgraph/driver.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK (INT64_C(256) << 20)
#define CLUSTER 65536
#define REQUEST 4096
#define DEPTH_MAX 1000
#define ROUNDS 3

static BlockGraph *graph;
static BlockDriverState *source, *cbw, *snapshot;
static BlockBackend *guest, *reader;

static void fail(const char *what, GError *error)
{
    fprintf(stderr, "bench-fleecing: %s: %s\n", what,
            error ? error->message : "failed");
    exit(EXIT_FAILURE);
}

/* --- requests ------------------------------------------------------------- */

/* Random requests in [from, to) of a backend, so many in flight. */
typedef struct Load {
    BlockBackend *blk;
    bool write;
    int64_t from, to;
    int64_t left;         /* to be sent */
    int in_flight;
    uint64_t random;
} Load;

typedef struct Slot {
    Load *load;
    BlockIOVec1 iov;
    uint8_t *buf;
} Slot;

static void slot_send(Slot *slot);

static void slot_done(void *opaque, int ret)
{
    Slot *slot = opaque;
    Load *load = slot->load;

    if (ret < 0) {
        fprintf(stderr, "bench-fleecing: a request: %s\n", strerror(-ret));
        exit(EXIT_FAILURE);
    }
    load->in_flight--;
    if (load->left > 0) {
        slot_send(slot);
    }
}

static void slot_send(Slot *slot)
{
    Load *load = slot->load;
    int64_t blocks = (load->to - load->from) / REQUEST;
    BlockIOVec *iov = block_iov_buf(&slot->iov, slot->buf, REQUEST);
    int64_t offset;

    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    offset = load->from + (int64_t)(load->random % blocks) * REQUEST;
    load->left--;
    load->in_flight++;
    if (load->write) {
        blk_aio_pwritev(load->blk, offset, iov, 0, slot_done, slot);
    } else {
        blk_aio_preadv(load->blk, offset, iov, 0, slot_done, slot);
    }
}

/* Run all loads together until the first has sent and got back all it has;
 * returns requests of the first a second. */
static double run(Load *loads, int nr, int depth)
{
    AioContext *ctx = block_graph_aio_context(graph);
    g_autofree Slot *slots = g_new0(Slot, (size_t)nr * depth);
    uint8_t *memory = block_aligned_alloc(4096, (size_t)nr * depth * REQUEST);
    int64_t count = loads[0].left, start;

    memset(memory, 0x5a, (size_t)nr * depth * REQUEST);
    start = aio_clock_ns(ctx);
    for (int i = 0; i < nr * depth; i++) {
        slots[i].load = &loads[i / depth];
        slots[i].buf = memory + (size_t)i * REQUEST;
        slots[i].load->random |= 88172645463325252ull + i;
        slot_send(&slots[i]);
    }
    while (loads[0].left > 0 || loads[0].in_flight > 0) {
        aio_poll(ctx, true);
    }
    start = aio_clock_ns(ctx) - start;
    for (int i = 1; i < nr; i++) {
        loads[i].left = 0;
        while (loads[i].in_flight > 0) {
            aio_poll(ctx, true);
        }
    }
    block_aligned_free(memory);
    return count * 1e9 / start;
}

static double rate(BlockBackend *blk, bool write, int64_t from, int64_t to,
                   int64_t count)
{
    Load load = { .blk = blk, .write = write, .from = from, .to = to,
                  .left = count };

    return run(&load, 1, 64);
}

static void keep_best(double *best, double value)
{
    *best = value > *best ? value : *best;
}

/* --- the graph ------------------------------------------------------------ */

static BlockDriverState *open_node(const char *text)
{
    GError *error = NULL;
    BlockOptions *options = block_options_parse_keyval(text, "driver", &error);
    BlockDriverState *bs = options ? bdrv_open(graph, options, &error) : NULL;

    if (!bs) {
        fail(text, error);
    }
    return bs;
}

static BlockBackend *backend(const char *name, BlockDriverState *bs)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(graph, name, &perm);
    GError *error = NULL;

    if (blk_insert_bs(blk, bs, &error) < 0) {
        fail(name, error);
    }
    return blk;
}

static void insert(const char *target, const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "copy-before-write,node-name=cbw,%s%s", target, more);
    GError *error = NULL;

    if (bdrv_insert_node(source,
                         block_options_parse_keyval(text, "driver", NULL),
                         &cbw, &error) < 0) {
        fail(text, error);
    }
    snapshot = open_node("snapshot-access,file=cbw");
    reader = backend("reader", snapshot);
}

static void drop(void)
{
    GError *error = NULL;

    blk_unref(reader);
    bdrv_unref(snapshot);
    if (bdrv_drop_filter(cbw, &error) < 0) {
        fail("drop", error);
    }
    bdrv_unref(cbw);
}

static char *make_file(const char *dir, const char *name)
{
    char *path = g_build_filename(dir, name, NULL);
    g_autofree uint8_t *buf = g_malloc(1 << 20);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    memset(buf, 0xa5, 1 << 20);
    for (int64_t at = 0; fd >= 0 && at < DISK; at += 1 << 20) {
        if (pwrite(fd, buf, 1 << 20, at) != 1 << 20) {
            fail(path, NULL);
        }
    }
    if (fd < 0) {
        fail(path, NULL);
    }
    close(fd);
    return path;
}

/* --- the figures ---------------------------------------------------------- */

static void print(const char *what, double ours, double peer)
{
    printf("%-52s %9.0f /s  peer %9.0f /s  ratio %.2f\n", what, ours, peer,
           ours / peer);
}

static void throughput(const char *target)
{
    double with = 0, without = 0, read_with = 0, read_without = 0;
    double both = 0, both_peer = 0;

    for (int round = 0; round < ROUNDS; round++) {
        Load direct[] = { { .blk = guest, .from = DISK / 2, .to = DISK,
                            .left = 100000 },
                          { .blk = guest, .write = true, .to = DISK / 2,
                            .left = INT64_MAX } };
        Load ours[2];

        keep_best(&without, rate(guest, true, 0, DISK / 2, 100000));
        keep_best(&read_without, rate(guest, false, DISK / 2, DISK, 100000));
        keep_best(&both_peer, run(direct, 2, 32));
        insert(target, "");
        for (int64_t at = 0; at < DISK / 2; at += CLUSTER) {
            blk_pwrite(guest, at, 512, "x", 0);
        }
        keep_best(&with, rate(guest, true, 0, DISK / 2, 100000));
        keep_best(&read_with, rate(reader, false, DISK / 2, DISK, 100000));
        memcpy(ours, direct, sizeof(ours));
        ours[0].blk = reader;
        ours[0].left = 100000;
        ours[1].left = INT64_MAX;
        keep_best(&both, run(ours, 2, 32));
        drop();
    }
    print("guest 4k random writes, everything copied", with, without);
    print("fleecing 4k random reads, untouched", read_with, read_without);
    print("the same while a guest writes elsewhere", both, both_peer);
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Median of writes to one new cluster after the other, in us. */
static double median_us(int count)
{
    AioContext *ctx = block_graph_aio_context(graph);
    g_autofree int64_t *ns = g_new(int64_t, count);
    static uint8_t buf[REQUEST];

    for (int i = 0; i < count; i++) {
        int64_t start = aio_clock_ns(ctx);

        blk_pwrite(guest, (int64_t)i * CLUSTER, REQUEST, buf, 0);
        ns[i] = aio_clock_ns(ctx) - start;
    }
    qsort(ns, count, sizeof(*ns), compare_ns);
    return ns[count / 2] / 1e3;
}

static void latency(void)
{
    const char *slow = "target.driver=null-co,target.size=256M,"
                       "target.latency-ns=20000000";
    double none = median_us(500), staged, plain;

    insert(slow, ",on-cbw-error=break-snapshot,staging-size=64M");
    staged = median_us(500);
    drop();
    insert(slow, "");
    plain = median_us(100);
    drop();
    printf("write latency, target of 20 ms: median %.1f us without the filter,"
           " %.1f us with write-behind (%.2f times), %.1f us without it\n",
           none, staged, staged / none, plain);
}

static void scaling(const char *target)
{
    for (int depth = 10; depth <= DEPTH_MAX; depth *= 10) {
        Load loads[2];
        double best = 0;

        for (int round = 0; round < 3; round++) {
            insert(target, "");
            loads[0] = (Load){ .blk = reader, .to = DISK, .left = 50000 };
            loads[1] = (Load){ .blk = guest, .write = true, .to = DISK,
                               .left = INT64_MAX };
            keep_best(&best, run(loads, 2, depth));
            drop();
        }
        printf("%4d readers and %4d writers in flight: %.2f us a read\n",
               depth, depth, 1e6 / best);
    }
}

int main(int argc, char **argv)
{
    g_autofree char *source_path = NULL, *target_path = NULL, *text = NULL;
    g_autofree char *target = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    source_path = make_file(argv[1], "bench-source.raw");
    target_path = make_file(argv[1], "bench-target.raw");
    setvbuf(stdout, NULL, _IOLBF, 0);
    graph = block_graph_new(NULL, NULL);
    text = g_strdup_printf("raw,node-name=source,file.driver=file,"
                           "file.filename=%s", source_path);
    target = g_strdup_printf("target.driver=raw,target.file.driver=file,"
                             "target.file.filename=%s", target_path);
    source = open_node(text);
    guest = backend("guest", source);
    throughput(target);
    latency();
    scaling(target);
    blk_unref(guest);
    bdrv_unref(source);
    block_graph_free(graph);
    unlink(source_path);
    unlink(target_path);
    return 0;
}
