/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simplest user: open a disk, write, read, close.  No loop in sight: each
 * call returns when the work is done.
 *
 *     synchronous FILE
 *
 * Writes a greeting to the second 4 KiB of FILE, which is made if it is not
 * there, and reads it back.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <blockgraph/backend.h>

#define DISK_BYTES (1 << 20)
#define GREETING_OFFSET 4096

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return -1;
}

/* A raw disk needs a file of its size, nothing else. */
static int make_disk(const char *filename)
{
    int fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int ret;

    if (fd < 0) {
        return -1;
    }
    ret = ftruncate(fd, DISK_BYTES);
    close(fd);
    return ret;
}

static BlockBackend *open_disk(BlockGraph *graph, const char *filename,
                               GError **errp)
{
    BlockOptions *options = block_options_new();

    /* driver=raw,file.driver=file,file.filename=FILE as text. */
    block_options_set_str(options, "driver", "raw");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", filename);
    return blk_open(graph, options, errp);
}

static int greet(BlockBackend *disk)
{
    static const char greeting[] = "hello, disk";
    char answer[sizeof(greeting)];
    int ret = blk_pwrite(disk, GREETING_OFFSET, sizeof(greeting), greeting, 0);

    if (ret == 0) {
        ret = blk_flush(disk);          /* from here on it is safe */
    }
    if (ret == 0) {
        ret = blk_pread(disk, GREETING_OFFSET, sizeof(answer), answer, 0);
    }
    if (ret < 0) {
        return fail("I/O", g_strerror(-ret));
    }
    printf("read back: %s\n", answer);
    return memcmp(answer, greeting, sizeof(greeting)) ? -1 : 0;
}

int main(int argc, char **argv)
{
    GError *error = NULL;
    BlockGraph *graph;
    BlockBackend *disk;
    int ret = -1;

    if (argc != 2 || make_disk(argv[1]) < 0) {
        fail("usage", "synchronous FILE");
        return 1;
    }
    graph = block_graph_new(NULL, &error);
    disk = graph ? open_disk(graph, argv[1], &error) : NULL;
    if (disk) {
        ret = greet(disk);
        blk_unref(disk);
    } else {
        fail("open", error->message);
        g_error_free(error);
    }
    if (graph) {
        block_graph_free(graph);
    }
    return ret < 0;
}
