/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a hypervisor does: two device threads, each with an event loop of its
 * own, send batches of requests to one disk.  The data lies in guest memory
 * and is not copied: the pieces of each request point into it.
 *
 * Either thread writes half of the first 512 KiB of the file that the argument
 * names, then reads it back.
 */
#include <stdio.h>
#include <string.h>

#include <blockgraph/backend.h>

enum { NR_THREADS = 2, BATCH = 64, PIECE = 2048,
       GUEST_BYTES = 2 * PIECE * BATCH }; /* requests of two pieces */

typedef struct Device {
    BlockBackend *disk;
    AioContext *main_ctx;
    int *nr_ended;                      /* touched by the main thread only */
    int64_t offset;                     /* of this device's half */
    char *guest;                        /* its memory */
    struct iovec pieces[BATCH][2];
    BlockIOVec vecs[BATCH];
    int in_flight, failed;              /* touched by the device thread only */
    bool reading;
} Device;

static void send_batch(void *opaque);

static void say_ended(void *opaque)     /* in the main thread */
{
    ++*(int *)opaque;
}

/* In the thread that sent the request, so nothing needs a lock. */
static void request_done(void *opaque, int ret)
{
    Device *d = (Device *)opaque;

    d->failed += ret < 0;
    if (--d->in_flight == 0 && d->reading) {
        aio_bh_schedule_oneshot(d->main_ctx, say_ended, d->nr_ended);
    } else if (d->in_flight == 0) {
        d->reading = true;
        memset(d->guest, 0, GUEST_BYTES);
        send_batch(d);
    }
}

/* In the device thread.  The whole batch goes to the kernel together. */
static void send_batch(void *opaque)
{
    Device *d = (Device *)opaque;

    d->in_flight = BATCH;
    for (int i = 0; i < BATCH; i++) {
        char *first = d->guest + i * PIECE; /* the second is far apart */
        d->pieces[i][0] = (struct iovec) { first, PIECE };
        d->pieces[i][1] = (struct iovec) { first + BATCH * PIECE, PIECE };
        block_iov_init_external(&d->vecs[i], d->pieces[i], 2);
        (d->reading ? blk_aio_preadv : blk_aio_pwritev)(d->disk,
            d->offset + i * 2 * PIECE, &d->vecs[i], 0, request_done, d);
    }
}

int main(int argc, char **argv)
{
    static Device devices[NR_THREADS];
    IOThread *threads[NR_THREADS];
    BlockGraph *graph = block_graph_new(NULL, NULL);
    AioContext *ctx = block_graph_aio_context(graph);
    BlockOptions *options = block_options_parse_filename(argv[argc - 1], NULL);
    BlockBackend *disk = options ? blk_open(graph, options, NULL) : NULL;
    int failed = 0, nr_ended = 0, nr_threads = disk ? NR_THREADS : 0;

    for (int i = 0; i < nr_threads; i++) {
        devices[i] = (Device) {
            .disk = disk, .main_ctx = ctx, .nr_ended = &nr_ended,
            .offset = i * GUEST_BYTES,
            .guest = block_aligned_alloc(4096, GUEST_BYTES) };
        memset(devices[i].guest, 'A' + i, GUEST_BYTES);
        threads[i] = iothread_new("device", AIO_ENGINE_AUTO, NULL);
        aio_bh_schedule_oneshot(iothread_get_aio_context(threads[i]),
                                send_batch, &devices[i]);
    }
    while (nr_ended < nr_threads) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < nr_threads; i++) {
        iothread_free(threads[i]);
        failed += devices[i].failed + (devices[i].guest[0] != 'A' + i);
        block_aligned_free(devices[i].guest);
    }
    printf("%d requests failed\n", failed);
    blk_unref(disk);
    block_graph_free(graph);
    return failed || !disk;
}
