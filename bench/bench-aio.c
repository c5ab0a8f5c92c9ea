/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many reads a second aio_file_preadv() does, in coroutines of one loop;
 * and what a turn costs in which only a bottom half runs.
 *
 * Compare with: fio --name=x --filename=FILE --rw=randread --bs=4k
 *     --iodepth=N --ioengine=io_uring --time_based --runtime=S
 */
#include <blockgraph/aio.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Bench {
    AioContext *ctx;
    AioFile *file;
    int64_t nr_blocks;
    int64_t block_bytes;
    bool sequential;
    bool stop;
    int64_t nr_done;
    int64_t next;
    int nr_running;
    uint64_t random;
    int error;
} Bench;

static uint64_t next_random(Bench *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

static void coroutine_fn reader(void *opaque)
{
    Bench *b = opaque;
    struct iovec iov = { .iov_len = b->block_bytes };

    if (posix_memalign(&iov.iov_base, 4096, b->block_bytes)) {
        abort();
    }
    while (!b->stop) {
        int64_t block = b->sequential ? b->next++ % b->nr_blocks
                                      : (int64_t)(next_random(b) %
                                                  (uint64_t)b->nr_blocks);
        int64_t ret = aio_file_preadv(b->file, &iov, 1, block * b->block_bytes,
                                      b->block_bytes);

        if (ret != b->block_bytes) {
            b->error = ret < 0 ? ret : -EIO;
            b->stop = true;
        }
        b->nr_done++;
    }
    free(iov.iov_base);
    b->nr_running--;
}

static void time_is_up(void *opaque)
{
    Bench *b = opaque;

    b->stop = true;
}

static void bench_turns(AioContext *ctx)
{
    const int nr = 5000000;
    int64_t start;

    start = aio_clock_ns(ctx);
    for (int i = 0; i < nr; i++) {
        aio_bh_schedule_oneshot(ctx, time_is_up, &(Bench) { 0 });
        aio_poll(ctx, false);
    }
    printf("bottom half: %.1f ns a turn\n",
           (double)(aio_clock_ns(ctx) - start) / nr);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench-aio [-d depth] [-b bytes] [-s seconds] "
                    "[-q] [-D] [-t] FILE\n"
                    "  -q sequential  -D O_DIRECT  -t threads engine\n"
                    "  -T only measure the turn of the loop\n");
    return EXIT_FAILURE;
}

static void run(Bench *b, int depth, double seconds)
{
    AioTimer *timer = aio_timer_new(b->ctx, time_is_up, b);
    int64_t start = aio_clock_ns(b->ctx);

    aio_timer_set(timer, start + (int64_t)(seconds * 1e9));
    b->nr_running = depth;
    for (int i = 0; i < depth; i++) {
        aio_co_enter(b->ctx, coroutine_create(reader, b));
    }
    while (b->nr_running > 0) {
        aio_poll(b->ctx, true);
    }
    seconds = (aio_clock_ns(b->ctx) - start) / 1e9;
    aio_timer_free(timer);
    if (b->error) {
        fprintf(stderr, "read: %s\n", strerror(-b->error));
    }
    printf("iops=%.0f MiB/s=%.0f depth=%d\n", b->nr_done / seconds,
           b->nr_done * b->block_bytes / seconds / (1 << 20), depth);
}

int main(int argc, char **argv)
{
    AioEngine engine = AIO_ENGINE_IO_URING;
    Bench b = { .block_bytes = 4096, .random = 88172645463325252u };
    g_autoptr(GError) error = NULL;
    bool turns = false;
    int flags = O_RDONLY;
    double seconds = 3;
    int depth = 64;
    struct stat st;
    int opt, fd;

    while ((opt = getopt(argc, argv, "d:b:s:qDtT")) != -1) {
        switch (opt) {
        case 'd': depth = atoi(optarg); break;
        case 'b': b.block_bytes = atoll(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'q': b.sequential = true; break;
        case 'D': flags |= O_DIRECT; break;
        case 't': engine = AIO_ENGINE_THREADS; break;
        case 'T': turns = true; break;
        default: return usage();
        }
    }
    b.ctx = aio_context_new(engine, &error);
    if (!b.ctx) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    if (turns) {
        bench_turns(b.ctx);
    } else {
        if (optind + 1 != argc || depth < 1 || b.block_bytes < 1) {
            return usage();
        }
        fd = open(argv[optind], flags);
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < b.block_bytes) {
            perror(argv[optind]);
            return EXIT_FAILURE;
        }
        b.nr_blocks = st.st_size / b.block_bytes;
        b.file = aio_file_new(fd, AIO_FILE_ENGINE);
        run(&b, depth, seconds);
        aio_file_free(b.file);
        close(fd);
    }
    aio_context_unref(b.ctx);
    return b.error ? EXIT_FAILURE : EXIT_SUCCESS;
}
