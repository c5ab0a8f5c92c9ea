/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program with a loop of its own: GLib's.  The graph's event loop takes part
 * in it as a GSource; requests are sent with callbacks, and nothing blocks.
 *
 *     own-loop FILE
 *
 * Writes to FILE, which must hold at least 64 KiB, reads back, compares.
 *
 * A loop made of epoll or an io_uring of its own does the same without GLib:
 * it watches the descriptor of aio_context_get_fd(), calls
 * aio_context_prepare() before each wait, and aio_poll(ctx, false) until that
 * returns false when the descriptor is readable or the time of prepare is up.
 */
#include <stdio.h>
#include <string.h>

#include <blockgraph/backend.h>

#define BYTES 65536

typedef struct Program {
    GMainLoop *loop;
    BlockBackend *disk;
    char written[BYTES];
    char read[BYTES];
    BlockIOVec1 vec;    /* of the request in flight */
    int ticks;          /* the program's own work goes on meanwhile */
    int ret;
} Program;

static void read_done(void *opaque, int ret)
{
    Program *p = (Program *)opaque;

    p->ret = ret < 0 ? ret : -!!memcmp(p->read, p->written, BYTES);
    printf("read:    %s\n", p->ret < 0 ? "failed" : "the same data");
    g_main_loop_quit(p->loop);
}

static void write_done(void *opaque, int ret)
{
    Program *p = (Program *)opaque;

    printf("written: %s\n", g_strerror(-ret));
    if (ret < 0) {
        g_main_loop_quit(p->loop);
    } else {
        blk_aio_preadv(p->disk, 0, block_iov_buf(&p->vec, p->read, BYTES), 0,
                       read_done, p);
    }
}

static gboolean tick(gpointer opaque)
{
    Program *p = (Program *)opaque;

    p->ticks++;
    return G_SOURCE_CONTINUE;
}

static void run(Program *p, BlockGraph *graph)
{
    GSource *source = aio_context_get_gsource(block_graph_aio_context(graph));

    p->loop = g_main_loop_new(NULL, FALSE);
    g_source_attach(source, NULL);
    g_idle_add(tick, p);
    memset(p->written, 'w', BYTES);
    blk_aio_pwritev(p->disk, 0, block_iov_buf(&p->vec, p->written, BYTES), 0,
                    write_done, p);
    g_main_loop_run(p->loop);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_loop_unref(p->loop);
}

int main(int argc, char **argv)
{
    static Program program = { .ret = -1 };
    BlockOptions *options = block_options_new();
    BlockGraph *graph = block_graph_new(NULL, NULL);

    block_options_set_str(options, "driver", "file");
    block_options_set_str(options, "filename", argc > 1 ? argv[1] : "");
    program.disk = blk_open(graph, options, NULL);
    if (program.disk) {
        run(&program, graph);
        blk_unref(program.disk);
    }
    block_graph_free(graph);
    return program.ret < 0;
}
