/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * break, remove_break, resume, wait_break: requests held at named events by a
 * blkdebug node.
 *
 * The library prints nothing, so the lines that say when a request is
 * suspended and resumed are printed here, by the command that learns of it.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <stdio.h>

static void tell_suspended(IoSession *io, const char *tag)
{
    if (g_hash_table_add(io->told, g_strdup(tag))) {
        printf("blkdebug: Suspended request '%s'\n", tag);
    }
}

/* Say that the request of @tag goes on, if one is held. */
static void tell_resuming(IoSession *io, const char *tag)
{
    if (bdrv_debug_is_suspended(blk_bs(io->blk), tag)) {
        tell_suspended(io, tag);
        printf("blkdebug: Resuming request '%s'\n", tag);
    }
    g_hash_table_remove(io->told, tag);
}

const char *io_suspended_tag(IoSession *io)
{
    for (guint i = 0; i < io->tags->len; i++) {
        const char *tag = g_ptr_array_index(io->tags, i);

        if (bdrv_debug_is_suspended(blk_bs(io->blk), tag)) {
            return tag;
        }
    }
    return NULL;
}

void io_resume_all(IoSession *io)
{
    for (guint i = 0; i < io->tags->len; i++) {
        bdrv_debug_remove_breakpoint(blk_bs(io->blk),
                                     g_ptr_array_index(io->tags, i));
    }
    g_ptr_array_set_size(io->tags, 0);
}

static int break_run(IoSession *io, int argc, char **argv)
{
    int ret = bdrv_debug_breakpoint(blk_bs(io->blk), argv[1], argv[2]);

    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", g_strerror(-ret));
    } else if (!g_ptr_array_find_with_equal_func(io->tags, argv[2],
                                                 g_str_equal, NULL)) {
        g_ptr_array_add(io->tags, g_strdup(argv[2]));
    }
    return ret;
}

static int remove_break_run(IoSession *io, int argc, char **argv)
{
    int ret;

    tell_resuming(io, argv[1]);
    ret = bdrv_debug_remove_breakpoint(blk_bs(io->blk), argv[1]);
    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1],
               g_strerror(-ret));
    }
    return ret;
}

static int resume_run(IoSession *io, int argc, char **argv)
{
    int ret;

    tell_resuming(io, argv[1]);
    ret = bdrv_debug_resume(blk_bs(io->blk), argv[1]);
    if (ret < 0) {
        printf("Could not resume request: %s\n", g_strerror(-ret));
    }
    return ret;
}

static int wait_break_run(IoSession *io, int argc, char **argv)
{
    AioContext *ctx = block_graph_aio_context(io->graph);
    BlockDriverState *bs = blk_bs(io->blk);

    while (!bdrv_debug_is_suspended(bs, argv[1])) {
        if (io->nr_aio == 0) {
            printf("No request is left that could be suspended as %s\n",
                   argv[1]);
            return -ENOENT;
        }
        aio_poll(ctx, true);
    }
    tell_suspended(io, argv[1]);
    return 0;
}

const IoCommand io_commands_debug[] = {
    { .name = "break", .run = break_run, .args_min = 2, .args_max = 2,
      .args = "event tag",
      .oneline = "sets a breakpoint on event and tags the stopped request as "
                 "tag" },
    { .name = "remove_break", .run = remove_break_run, .args_min = 1,
      .args_max = 1, .args = "tag",
      .oneline = "remove a breakpoint by tag" },
    { .name = "resume", .run = resume_run, .args_min = 1, .args_max = 1,
      .args = "tag", .oneline = "resumes the request tagged as tag" },
    { .name = "wait_break", .run = wait_break_run, .args_min = 1,
      .args_max = 1, .args = "tag",
      .oneline = "waits for the suspension of a request" },
    { 0 },
};
