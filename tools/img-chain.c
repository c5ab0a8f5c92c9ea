/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit and rebase: what changes an image together with its backing files.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <blockgraph/job.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

#define PIECE_BYTES (2 << 20)

/* The layer below @bs, or NULL. */
static BlockDriverState *layer_below(BlockDriverState *bs)
{
    BdrvChild *cow = bdrv_cow_child(bdrv_skip_filters(bs));

    return cow ? bdrv_child_bs(cow) : NULL;
}

/* @name as the image @bs means it.  g_free() it. */
static char *name_beside(BlockDriverState *bs, const char *name)
{
    g_autofree char *dir = g_path_get_dirname(bdrv_filename(bs));

    return g_path_is_absolute(name) ? g_strdup(name)
                                    : g_build_filename(dir, name, NULL);
}

bool img_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;

    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 &&
           of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/* The layer below @bs that is the file @name, or NULL. */
static BlockDriverState *find_layer(BlockDriverState *bs, const char *name)
{
    while ((bs = layer_below(bs))) {
        if (img_same_file(bdrv_filename(bs), name)) {
            return bs;
        }
    }
    return NULL;
}

/* --- commit --------------------------------------------------------------- */

typedef struct Commit {
    ImgArgs args;
    const char *base;   /* a file name, or NULL: the layer below */
    int64_t speed;
    bool drop;          /* do not empty the image */
} Commit;

static BlockDriverState *find_base(const Commit *c, BlockDriverState *top,
                                   const char *name)
{
    BlockDriverState *base = layer_below(top);
    g_autofree char *beside = NULL;

    if (!base) {
        tool_error("Image '%s' does not have a backing file", name);
        return NULL;
    }
    if (!c->base) {
        return base;
    }
    beside = name_beside(top, c->base);
    base = find_layer(top, beside);
    base = base ? base : find_layer(top, c->base);
    if (!base) {
        tool_error("Did not find '%s' in the backing chain of '%s'", c->base,
                   name);
    }
    return base;
}

/* Turn the loop until @job is ready, then have it end. */
static int run_job(BlockGraph *graph, BlockJob *job, bool progress,
                   GError **errp)
{
    BlockJobInfo info;

    for (;;) {
        block_job_query(job, &info);
        if (info.total_progress > 0) { /* it knows how much there is to do */
            img_progress(progress, info.current_progress, info.total_progress);
        }
        if (info.status == BLOCK_JOB_READY) {
            break;
        }
        if (info.status >= BLOCK_JOB_WAITING) {
            return block_job_wait(job, errp);
        }
        aio_poll(block_graph_aio_context(graph), true);
    }
    if (block_job_complete(job, errp) < 0) {
        return -EPERM;
    }
    return block_job_wait(job, errp);
}

/* Name both images, as the job knows only nodes. */
static int commit_failed(GError *error, BlockDriverState *top,
                         BlockDriverState *base)
{
    return img_fail(error, "Could not commit '%s' to '%s'",
                    bdrv_filename(top), bdrv_filename(base));
}

static int commit_to(const Commit *c, BlockGraph *graph,
                     BlockDriverState *top, BlockDriverState *base)
{
    BlockOptions *options = block_options_new();
    GError *error = NULL;
    BlockJob *job;
    int ret;

    block_options_set_str(options, "job-id", "commit");
    block_options_set_str(options, "device", bdrv_node_name(top));
    block_options_set_str(options, "base", bdrv_node_name(base));
    block_options_set_int(options, "speed", c->speed);
    job = block_job_start(graph, BLOCK_JOB_COMMIT, options, &error);
    if (!job) {
        return commit_failed(error, top, base);
    }
    ret = run_job(graph, job, c->args.progress, &error);
    block_job_unref(job);
    if (ret == 0) {
        img_progress(c->args.progress, 1, 1);
    }
    img_progress_end(c->args.progress);
    return ret < 0 ? commit_failed(error, top, base) : EXIT_SUCCESS;
}

/* What @top holds is in the layer below now. */
static int make_empty(BlockGraph *graph, BlockDriverState *top,
                      const char *name)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       .shared = BLK_PERM_CONSISTENT_READ };
    BlockBackend *blk = blk_new(graph, "commit", &perm);
    GError *error = NULL;
    int ret = blk_insert_bs(blk, top, &error);

    if (ret == 0) {
        ret = bdrv_make_empty(top, &error);
    }
    blk_unref(blk);
    if (ret == -ENOTSUP) {
        g_error_free(error); /* as with any format that cannot */
        return EXIT_SUCCESS;
    }
    return ret < 0 ? img_fail(error, "Could not empty '%s'", name)
                   : img_settle(top, name);
}

/* @blk is given up: the guests of the image would be at the base now. */
static int commit(const Commit *c, BlockGraph *graph, BlockBackend *blk,
                  const char *name)
{
    BlockDriverState *top = blk_bs(blk);
    BlockDriverState *base = find_base(c, top, name);
    int ret = EXIT_FAILURE;

    bdrv_ref(top);
    if (base) {
        bdrv_ref(base);
        ret = commit_to(c, graph, top, base);
    }
    blk_unref(blk);
    if (ret == EXIT_SUCCESS) {
        /* Before the image is emptied: its content has to be there. */
        ret = img_settle(base, bdrv_filename(base));
    }
    bdrv_unref(base);
    if (ret == EXIT_SUCCESS && !c->drop) {
        ret = make_empty(graph, top, name);
    }
    bdrv_unref(top);
    if (ret == EXIT_SUCCESS && !c->args.quiet) {
        printf("Image committed.\n");
    }
    return ret;
}

int img_commit(int argc, char **argv)
{
    Commit c = { 0 };
    BlockGraph *graph;
    BlockBackend *blk;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&c.args, argc, argv,
                                "b:df:pqr:t:" IMG_OPENS)) != -1) {
        if (letter == 'b') {
            c.base = optarg;
            c.drop = true; /* the layers between show less than the base */
        } else if (letter == 'd') {
            c.drop = true;
        } else if (letter != 'r' ||
                   (c.speed = img_parse_size("rate limit", optarg)) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &c.args, argv[optind], IMG_OPEN_WRITE, NULL);
    if (blk) {
        ret = commit(&c, graph, blk, argv[optind]);
    }
    tool_graph_free(graph);
    return ret;
}

/* --- rebase --------------------------------------------------------------- */

typedef struct Rebase {
    ImgArgs args;
    ImgArgs new_args;     /* of the new backing file */
    const char *name;
    const char *backing;  /* as it is to be recorded; NULL or "": none */
    bool unsafe;
    char *backing_name;   /* where it is */

    BlockGraph *graph;
    BlockBackend *blk;
    BlockBackend *old;    /* read alone, or NULL: there is none */
    BlockBackend *new;
    BlockDriverState *prefix; /* the new one is in the chain: this layer */
    uint8_t *buf[2];
} Rebase;

static bool has_backing(const Rebase *r)
{
    return r->backing && r->backing[0];
}

/* A reader of @bs. */
static BlockBackend *reader(const Rebase *r, BlockDriverState *bs)
{
    BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                       .shared = BLK_PERM_ALL };
    BlockBackend *blk = blk_new(r->graph, "rebase", &perm);
    GError *error = NULL;

    if (blk_insert_bs(blk, bs, &error) < 0) {
        tool_report(error, "Could not read the backing file");
        g_clear_pointer(&blk, blk_unref);
    }
    return blk;
}

/* Open what the content depends on before and afterwards.  0 or -EINVAL,
 * printed. */
static int open_both(Rebase *r)
{
    BlockDriverState *bs = blk_bs(r->blk), *old = layer_below(bs);

    if (old) {
        r->old = reader(r, old);
        if (!r->old) {
            return -EINVAL;
        }
    }
    if (!has_backing(r)) {
        return 0;
    }
    r->prefix = find_layer(bs, r->backing_name);
    r->new = r->prefix ? reader(r, r->prefix)
                       : img_open(r->graph, &r->new_args, r->backing_name,
                                  IMG_OPEN_PLAIN_NAME, NULL);
    if (!r->new) {
        return -EINVAL;
    }
    return 0;
}

/* Read what @blk shows; beyond its end, and without it, zeroes. */
static int coroutine_fn read_backing(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, uint8_t *buf)
{
    int64_t length = blk ? blk_getlength(blk) : 0;
    int64_t shown = CLAMP(length - offset, 0, bytes);
    int ret = shown > 0 ? blk_co_pread(blk, offset, shown, buf, 0) : 0;

    memset(buf + shown, 0, bytes - shown);
    if (ret < 0) {
        tool_error("error while reading at byte %" G_GINT64_FORMAT
                   " of backing file '%s': %s", offset,
                   bdrv_filename(blk_bs(blk)), g_strerror(-ret));
    }
    return ret;
}

/* How many bytes from @offset on need no copy (@ret_skip), or do. */
static int coroutine_fn look(const Rebase *r, int64_t offset, int64_t bytes,
                             int64_t *ret_bytes, bool *ret_skip)
{
    BlockDriverState *bs = blk_bs(r->blk);
    int64_t shown = r->prefix ? bdrv_length(layer_below(bs)) - offset : 0;
    int ret = bdrv_co_is_allocated(bs, offset, bytes, ret_bytes);

    *ret_skip = ret > 0;
    if (ret == 0 && shown > 0) {
        /* What the layers that go do not have is the same afterwards, up to
         * their end. */
        ret = bdrv_co_is_allocated_above(layer_below(bs), r->prefix, false,
                                         offset, MIN(*ret_bytes, shown),
                                         ret_bytes);
        *ret_skip = ret == 0;
    }
    if (ret < 0) {
        tool_error("error while reading image metadata of '%s' or its "
                   "backing files: %s", r->name, g_strerror(-ret));
    }
    return MIN(ret, 0);
}

/* Whether @blk shows zeroes from @offset on, and of @bytes bytes at least how
 * many; beyond its end, and without it, all. */
static int coroutine_fn find_zeroes(BlockBackend *blk, int64_t offset,
                                    int64_t bytes, int64_t *ret_zeroes)
{
    int64_t left = blk ? blk_getlength(blk) - offset : 0;
    BlockExtent extent;
    int ret;

    *ret_zeroes = bytes;
    if (left <= 0) {
        return 0;
    }
    ret = blk_co_block_status(blk, offset, MIN(bytes, left), &extent);
    if (ret < 0) {
        tool_error("error while reading image metadata of '%s': %s",
                   bdrv_filename(blk_bs(blk)), g_strerror(-ret));
        return ret;
    }
    *ret_zeroes = extent.status & BDRV_BLOCK_ZERO ? extent.bytes : 0;
    return 0;
}

/* How many bytes from @offset on are zero before and afterwards: disks may be
 * long, and nearly empty. */
static int coroutine_fn look_for_zeroes(const Rebase *r, int64_t offset,
                                        int64_t bytes, int64_t *ret_zeroes)
{
    int ret = find_zeroes(r->old, offset, bytes, ret_zeroes);

    return ret < 0 || *ret_zeroes == 0
               ? ret : find_zeroes(r->new, offset, *ret_zeroes, ret_zeroes);
}

/* Write what the image is to go on showing. */
static int coroutine_fn keep(const Rebase *r, int64_t offset, int64_t bytes,
                             const uint8_t *buf)
{
    /* A format that has nothing below need not note that something is zero,
     * and would show the new backing file there. */
    int ret = r->old && block_buffer_is_zero(buf, bytes)
                  ? blk_co_pwrite_zeroes(r->blk, offset, bytes, 0)
                  : blk_co_pwrite(r->blk, offset, bytes, buf, 0);

    if (ret < 0) {
        tool_error("Error while writing to COW image '%s': %s", r->name,
                   g_strerror(-ret));
    }
    return ret;
}

/* Write the parts of a piece in units of @unit bytes that will not be seen. */
static int coroutine_fn write_differences(const Rebase *r, int64_t offset,
                                          int64_t bytes)
{
    const int64_t unit = 512;
    int ret = 0;

    for (int64_t at = 0, end; ret == 0 && at < bytes; at = end) {
        bool differ = memcmp(r->buf[0] + at, r->buf[1] + at,
                             MIN(unit, bytes - at)) != 0;

        end = at;
        do {
            end = MIN(end + unit, bytes);
        } while (end < bytes &&
                 (memcmp(r->buf[0] + end, r->buf[1] + end,
                         MIN(unit, bytes - end)) != 0) == differ);
        if (differ) {
            ret = keep(r, offset + at, end - at, r->buf[0] + at);
        }
    }
    return ret;
}

static int coroutine_fn rebase_entry(void *opaque)
{
    Rebase *r = opaque;
    int64_t length = blk_getlength(r->blk), bytes;
    int ret = 0;

    for (int64_t at = 0; ret == 0 && at < length; at += bytes) {
        int64_t zeroes = 0;
        bool skip;

        img_progress(r->args.progress, at, length);
        ret = look(r, at, length - at, &bytes, &skip);
        if (ret == 0 && !skip) {
            ret = look_for_zeroes(r, at, bytes, &zeroes);
        }
        if (ret < 0 || skip || zeroes > 0) {
            bytes = zeroes > 0 ? zeroes : bytes;
            continue;
        }
        bytes = MIN(bytes, PIECE_BYTES);
        ret = read_backing(r->old, at, bytes, r->buf[0]);
        ret = ret < 0 ? ret : read_backing(r->new, at, bytes, r->buf[1]);
        ret = ret < 0 ? ret : write_differences(r, at, bytes);
    }
    if (ret == 0) {
        img_progress(r->args.progress, length, length);
        ret = blk_co_flush(r->blk);
        if (ret < 0) {
            tool_error("Error while flushing '%s': %s", r->name,
                       g_strerror(-ret));
        }
    }
    return ret;
}

static int copy_content(Rebase *r)
{
    int ret = open_both(r);

    if (ret == 0) {
        r->buf[0] = block_aligned_alloc(4096, PIECE_BYTES);
        r->buf[1] = block_aligned_alloc(4096, PIECE_BYTES);
        ret = aio_co_run(block_graph_aio_context(r->graph), rebase_entry, r);
        block_aligned_free(r->buf[0]);
        block_aligned_free(r->buf[1]);
        img_progress_end(r->args.progress);
    }
    blk_unref(r->new);
    blk_unref(r->old);
    return ret;
}

/* Returns the exit status. */
static int change_name(const Rebase *r)
{
    GError *error = NULL;
    int ret = bdrv_change_backing_file(
        blk_bs(r->blk), has_backing(r) ? r->backing : NULL,
        has_backing(r) ? r->new_args.image.format : NULL, &error);

    return ret < 0 ? img_fail(error, "Could not change the backing file of "
                              "'%s' to '%s'", r->name,
                              r->backing ? r->backing : "")
                   : EXIT_SUCCESS;
}

static int rebase(Rebase *r)
{
    int ret = EXIT_FAILURE;
    GError *error = NULL;

    r->graph = img_graph();
    r->blk = img_open(r->graph, &r->args, r->name,
                      IMG_OPEN_WRITE | (r->unsafe ? IMG_OPEN_NO_BACKING : 0),
                      NULL);
    if (r->blk && has_backing(r)) {
        r->backing_name = name_beside(blk_bs(r->blk), r->backing);
    }
    if (r->backing_name &&
        bdrv_check_new_backing(blk_bs(r->blk), r->backing_name, &error) < 0) {
        tool_report(error, NULL);
    } else if (r->blk && (r->unsafe || copy_content(r) == 0)) {
        ret = change_name(r);
    }
    ret = img_close(r->blk, r->name, ret);
    tool_graph_free(r->graph);
    g_free(r->backing_name);
    return ret;
}

int img_rebase(int argc, char **argv)
{
    Rebase r = { 0 };
    int letter;

    while ((letter = img_getopt(&r.args, argc, argv,
                                "f:b:F:pqt:T:uU" IMG_OPENS)) != -1) {
        if (letter == 'b') {
            r.backing = optarg;
        } else if (letter == 'F') {
            r.new_args.image.format = optarg;
        } else if (letter == 'u') {
            r.unsafe = true;
        } else if (letter != 'T' ||
                   img_set_cache(&r.new_args.image, optarg) < 0) {
            return EXIT_FAILURE;
        }
    }
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    if (!r.unsafe && !r.backing) {
        tool_usage_error("Must specify backing file (-b) or use unsafe mode "
                         "(-u)");
        return EXIT_FAILURE;
    }
    if (has_backing(&r) && !r.new_args.image.format) {
        tool_error("Backing file '%s' specified without backing format (-F)",
                   r.backing);
        return EXIT_FAILURE;
    }
    r.name = argv[optind];
    return rebase(&r);
}
