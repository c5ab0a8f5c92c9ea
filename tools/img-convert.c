/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert: copy what images show into a new one.
 *
 * Several coroutines each take the next piece of the source, read it and write
 * it.  Taking is one at a time, in order; so is writing, unless -W says that
 * the target may be filled in any order.  All run in the main thread.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-nbd-uri.h"
#include "tools/tool-print.h"

#define SPARSE_MAX_BYTES (16 << 20)
#define PIECE_BYTES (2 << 20) /* of data; a multiple of each cluster size */
#define SPARSE_BYTES 4096
#define SECTOR_BYTES 512
#define WORKERS 8
#define WORKERS_MAX 16

typedef enum PieceKind {
    PIECE_DATA,
    PIECE_ZERO,
    PIECE_SKIP,         /* the backing file of the target shows it */
} PieceKind;

typedef struct Piece {
    PieceKind kind;
    int src;
    int64_t src_offset;
    int64_t offset;     /* in the target */
    int64_t bytes;
} Piece;

typedef struct Convert {
    /* The command line. */
    ImgArgs args;
    ImgArgs dst_args;
    const char *format;
    const char *backing;
    const char *backing_format;
    const char *snapshot;
    int64_t sparse;
    bool sparse_given;
    int workers;
    bool compress;
    bool no_create;
    bool any_order;
    bool copy_range;
    bool salvage;       /* what cannot be read is zeroes */
    bool bitmaps;
    bool skip_broken;
    int64_t rate;       /* bytes a second; 0: no limit */
    bool is_zero;       /* what is not written in the target is zero */

    BlockGraph *graph;
    char **names;       /* of the sources, then of the target */
    BlockBackend **src;
    int nr_src;
    BlockBackend *dst;
    int64_t total;
    int64_t cluster;    /* unit of pieces */

    /* Changed by the workers, between yields. */
    CoMutex take_lock;
    int64_t taken;      /* up to here */
    PieceKind run_kind; /* of what follows, as far as it is known: asking the */
    int64_t run_end;    /* system may cost as much as reading it */
    int64_t turn;       /* the piece at this offset may be written */
    CoQueue waiting;
    int64_t done;
    int64_t free_ns;    /* with a rate: the next piece waits until then */
    int ret;
} Convert;

/* --- pieces --------------------------------------------------------------- */

/* What the source at @p shows, for how many bytes. */
static int coroutine_fn look(Convert *c, Piece *p)
{
    BlockDriverState *bs = blk_bs(c->src[p->src]);
    BdrvChild *cow = bdrv_cow_child(bdrv_skip_filters(bs));
    BlockExtent extent;
    int ret;

    /* Above a backing file, only what the top layer has is copied. */
    ret = bdrv_co_block_status_above(
        bs, c->backing && cow ? bdrv_child_bs(cow) : NULL, p->src_offset,
        p->bytes, &extent);
    if (ret < 0) {
        tool_error("error while reading block status at offset %"
                   G_GINT64_FORMAT " of '%s': %s", p->src_offset,
                   c->names[p->src], g_strerror(-ret));
        return ret;
    }
    p->bytes = extent.bytes;
    if (c->backing && !(extent.status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO))) {
        p->kind = PIECE_SKIP;
    } else if ((extent.status & BDRV_BLOCK_ZERO) && c->sparse > 0) {
        p->kind = PIECE_ZERO;
    } else {
        p->kind = PIECE_DATA;
    }
    return 0;
}

/* Cut or stretch @p, of which at most @left bytes are left in the source, to
 * units of the target. */
static void fit(const Convert *c, Piece *p, int64_t left)
{
    if (p->kind != PIECE_DATA && p->bytes < left) {
        if (p->bytes < c->cluster) {
            p->kind = PIECE_DATA;
        } else {
            p->bytes -= p->bytes % c->cluster;
        }
    }
    if (p->kind == PIECE_DATA) {
        p->bytes += (c->cluster - p->bytes % c->cluster) % c->cluster;
        p->bytes = MIN(MIN(p->bytes, PIECE_BYTES), left);
    }
}

/* The source that has byte @offset of the target. */
static int64_t find_source(const Convert *c, Piece *p)
{
    int64_t start = 0, length = 0;

    for (int i = 0; i < c->nr_src; i++) {
        length = blk_getlength(c->src[i]);
        if (p->offset < start + length) {
            p->src = i;
            p->src_offset = p->offset - start;
            break;
        }
        start += length;
    }
    return start + length - p->offset;
}

/* 1: there is one; 0: there is no more. */
static int coroutine_fn take(Convert *c, Piece *p)
{
    int64_t left;
    int ret = 0;

    co_mutex_lock(&c->take_lock);
    if (c->ret == 0 && c->taken < c->total) {
        p->offset = c->taken;
        left = find_source(c, p);
        if (c->taken < c->run_end) {
            p->kind = c->run_kind;
            p->bytes = c->run_end - c->taken;
        } else {
            p->bytes = left;
            ret = look(c, p);
            if (ret == 0) {
                c->run_kind = p->kind;
                c->run_end = p->offset + p->bytes;
            }
        }
        if (ret == 0) {
            fit(c, p, left);
            c->taken += p->bytes;
            ret = 1;
        }
    }
    co_mutex_unlock(&c->take_lock);
    return ret;
}

/* --- writing -------------------------------------------------------------- */

static int coroutine_fn write_zeroes(Convert *c, int64_t offset,
                                     int64_t bytes)
{
    if (c->is_zero) {
        return 0;
    }
    return blk_co_pwrite_zeroes(c->dst, offset, bytes, BDRV_REQ_MAY_UNMAP);
}

/* Write @buf, leaving out units of @unit bytes that are zero. */
static int coroutine_fn write_sparse(Convert *c, const Piece *p,
                                     const uint8_t *buf, int64_t unit)
{
    int64_t at = 0;
    int ret = 0;

    while (ret == 0 && at < p->bytes) {
        int64_t end = at;
        bool zero = block_buffer_is_zero(buf + at, MIN(unit, p->bytes - at));

        do {
            end = MIN(end + unit, p->bytes);
        } while (end < p->bytes &&
                 block_buffer_is_zero(buf + end, MIN(unit, p->bytes - end)) ==
                     zero);
        ret = zero ? write_zeroes(c, p->offset + at, end - at)
                   : blk_co_pwrite(c->dst, p->offset + at, end - at, buf + at,
                                   c->compress ? BDRV_REQ_WRITE_COMPRESSED
                                               : 0);
        at = end;
    }
    return ret;
}

static int coroutine_fn write_piece(Convert *c, const Piece *p,
                                    const uint8_t *buf)
{
    switch (p->kind) {
    case PIECE_SKIP:
        return 0;
    case PIECE_ZERO:
        return write_zeroes(c, p->offset, p->bytes);
    default:
        if (c->compress) {
            return write_sparse(c, p, buf, c->cluster);
        }
        if (c->sparse > 0) {
            return write_sparse(c, p, buf, c->sparse);
        }
        return blk_co_pwrite(c->dst, p->offset, p->bytes, buf, 0);
    }
}

static int told(const char *what, int64_t offset, const char *name, int ret)
{
    if (ret < 0) {
        tool_error("error while %s at byte %" G_GINT64_FORMAT " of '%s': %s",
                   what, offset, name, g_strerror(-ret));
    }
    return ret;
}

/* Sector by sector, where a piece cannot be read. */
static void coroutine_fn read_salvaging(Convert *c, const Piece *p,
                                        uint8_t *buf)
{
    for (int64_t at = 0; at < p->bytes; at += SECTOR_BYTES) {
        int64_t bytes = MIN(SECTOR_BYTES, p->bytes - at);
        int ret = blk_co_pread(c->src[p->src], p->src_offset + at, bytes,
                               buf + at, 0);

        if (ret < 0) {
            tool_warning("error while reading offset %" G_GINT64_FORMAT
                         ": %s", p->src_offset + at, g_strerror(-ret));
            memset(buf + at, 0, bytes);
        }
    }
}

static int coroutine_fn read_piece(Convert *c, const Piece *p, uint8_t *buf)
{
    int ret = blk_co_pread(c->src[p->src], p->src_offset, p->bytes, buf, 0);

    if (ret < 0 && c->salvage) {
        read_salvaging(c, p, buf);
        return 0;
    }
    return told("reading", p->src_offset, c->names[p->src], ret);
}

/* Whether @p needs no memory: the system copies it. */
static bool coroutine_fn offload(Convert *c, const Piece *p)
{
    int ret = p->kind == PIECE_DATA && c->copy_range
                  ? blk_co_copy_range(c->src[p->src], p->src_offset, c->dst,
                                      p->offset, p->bytes, 0)
                  : -ENOTSUP;

    if (ret < 0) {
        c->copy_range = false; /* not tried again */
    }
    return ret == 0;
}

/* Wait until the rate allows @p. */
static void coroutine_fn keep_rate(Convert *c, const Piece *p)
{
    int64_t now = tool_clock_ns();
    int64_t start = MAX(now, c->free_ns);

    if (c->rate == 0 || p->kind != PIECE_DATA) {
        return;
    }
    c->free_ns = start + (int64_t)(1e9 * p->bytes / c->rate);
    if (start > now) {
        co_sleep_ns(start - now);
    }
}

static int coroutine_fn copy_piece(Convert *c, const Piece *p, uint8_t *buf)
{
    int ret = 0;

    keep_rate(c, p);
    if (offload(c, p)) {
        return 0;
    }
    if (p->kind == PIECE_DATA) {
        ret = read_piece(c, p, buf);
    }
    while (ret == 0 && !c->any_order && c->ret == 0 &&
           c->turn != p->offset) {
        co_queue_wait(&c->waiting, NULL);
    }
    if (ret == 0 && c->ret == 0) {
        ret = told("writing", p->offset, c->names[c->nr_src],
                   write_piece(c, p, buf));
    }
    return ret;
}

static int coroutine_fn worker_entry(void *opaque)
{
    Convert *c = opaque;
    uint8_t *buf = block_aligned_alloc(4096, PIECE_BYTES);
    Piece p;
    int ret;

    while ((ret = take(c, &p)) > 0) {
        ret = copy_piece(c, &p, buf);
        if (ret < 0) {
            break;
        }
        c->turn = p.offset + p.bytes;
        c->done += p.bytes;
        co_queue_restart_all(&c->waiting);
        img_progress(c->args.progress, c->done, c->total);
    }
    if (ret < 0 && c->ret == 0) {
        c->ret = ret;
    }
    co_queue_restart_all(&c->waiting);
    block_aligned_free(buf);
    return ret;
}

static int coroutine_fn convert_entry(void *opaque)
{
    Convert *c = opaque;
    CoTaskPool *pool = co_task_pool_new(c->workers);
    int ret;

    co_mutex_init(&c->take_lock);
    co_queue_init(&c->waiting);
    for (int i = 0; i < c->workers; i++) {
        co_task_pool_start(pool, worker_entry, c);
    }
    ret = co_task_pool_wait_all(pool);
    co_task_pool_free(pool);
    if (ret == 0) {
        ret = blk_co_flush(c->dst);
        if (ret < 0) {
            tool_error("error while flushing '%s': %s", c->names[c->nr_src],
                       g_strerror(-ret));
        }
    }
    return ret;
}

/* --- the images ----------------------------------------------------------- */

static int open_sources(Convert *c, char **names)
{
    for (int i = 0; i < c->nr_src; i++) {
        int64_t length;

        c->src[i] = img_open(c->graph, &c->args, names[i], 0,
                             tool_snapshot_options(c->snapshot));
        if (!c->src[i]) {
            return -EINVAL;
        }
        if (img_keep_writers_out(c->src[i], &c->args, names[i]) < 0) {
            return -EBUSY;
        }
        length = img_length(c->src[i], names[i]);
        if (length < 0) {
            return -EIO;
        }
        if (length > BDRV_MAX_LENGTH - c->total) {
            tool_error("The sources together are too long");
            return -EFBIG;
        }
        c->total += length;
    }
    return 0;
}

static int refuse_compression(void)
{
    tool_error("Compression not supported for this file format");
    return -ENOTSUP;
}

static int make_target(Convert *c, const char *name)
{
    BlockOptions *options = c->args.options ? c->args.options
                                            : block_options_new();
    bool raw = g_str_equal(c->format, "raw");
    int64_t size = raw ? c->total
                       : (c->total + 511) & ~INT64_C(511);
    GError *error = NULL;

    c->args.options = NULL;
    if (c->compress && raw) {
        block_options_free(options);
        return refuse_compression();
    }
    if (c->backing) {
        block_options_set_str(options, "backing_file", c->backing);
        block_options_set_str(options, "backing_fmt", c->backing_format);
    }
    if (img_make(c->graph, c->format, name, size, options, &error) < 0) {
        img_fail(error, "%s: error while converting %s", name, c->format);
        return -EINVAL;
    }
    /* An export was there before. */
    c->is_zero = !c->backing && !tool_is_nbd_name(name);
    return 0;
}

static int open_target(Convert *c, const char *name)
{
    BlockDriverInfo info;

    c->dst_args.image.format = c->dst_args.image.image_opts ? NULL : c->format;
    c->dst = img_open(c->graph, &c->dst_args, name, IMG_OPEN_WRITE, NULL);
    if (!c->dst) {
        return -EINVAL;
    }
    c->cluster = 512;
    if (bdrv_get_info(blk_bs(c->dst), &info) == 0 && info.cluster_bytes > 0 &&
        info.cluster_bytes <= PIECE_BYTES && c->compress) {
        c->cluster = info.cluster_bytes;
    }
    if (c->compress && !(bdrv_limits(blk_bs(c->dst))->write_flags &
                         BDRV_REQ_WRITE_COMPRESSED)) {
        return refuse_compression();
    }
    if (blk_getlength(c->dst) < c->total) {
        tool_error("output file is smaller than input file");
        return -EINVAL;
    }
    return 0;
}

static int refuse_target(const char *format)
{
    tool_error("Format driver '%s' does not support bitmaps", format);
    return -ENOTSUP;
}

/* Before the target is made, if that is to be. */
static int check_bitmaps(const Convert *c)
{
    const BlockDriver *driver = c->no_create ? NULL
                                             : bdrv_find_driver(c->format);

    if (!img_can_keep_bitmaps(blk_bs(c->src[0]))) {
        tool_error("Source '%s' lacks bitmap support", c->names[0]);
        return -ENOTSUP;
    }
    if (driver && !driver->store_bitmaps) {
        return refuse_target(c->format);
    }
    return img_check_bitmaps(blk_bs(c->src[0]), c->skip_broken);
}

/* As its options are what they are. */
static int check_target(const Convert *c)
{
    BlockDriverState *bs = blk_bs(c->dst);

    return img_can_keep_bitmaps(bs) ? 0 : refuse_target(bdrv_driver_name(bs));
}

/* After the content, so that what is copied does not make them dirty. */
static int copy_bitmaps(Convert *c)
{
    return img_copy_bitmaps(blk_bs(c->src[0]), blk_bs(c->dst));
}

/* Returns the exit status. */
static int convert(Convert *c)
{
    char **names = c->names;
    const char *target = names[c->nr_src];
    int ret;

    c->graph = img_graph();
    c->src = g_new0(BlockBackend *, c->nr_src);
    if (!c->args.image.nocache) {
        /* With the page cache, one worker of the kernel does what a ring is
         * given; so those that read are not the one that writes. */
        c->args.image.aio = "threads";
    }
    ret = open_sources(c, names);
    if (ret == 0 && c->bitmaps) {
        ret = check_bitmaps(c);
    }
    if (ret == 0 && !c->no_create) {
        ret = make_target(c, target);
    }
    if (ret == 0) {
        ret = open_target(c, target);
    }
    if (ret == 0 && c->bitmaps) {
        ret = check_target(c);
    }
    if (ret == 0) {
        ret = aio_co_run(block_graph_aio_context(c->graph), convert_entry, c);
    }
    if (ret == 0 && c->bitmaps) {
        ret = copy_bitmaps(c);
    }
    img_progress_end(c->args.progress);
    ret = img_close(c->dst, target, ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    for (int i = 0; i < c->nr_src; i++) {
        blk_unref(c->src[i]);
    }
    g_free(c->src);
    tool_graph_free(c->graph);
    return ret;
}

/* --- the command line ----------------------------------------------------- */

static int parse_number(Convert *c, int letter)
{
    int64_t value = img_parse_size(letter == 'r' ? "rate limit"
                                   : letter == 'm' ? "number of coroutines"
                                                   : "sparse size", optarg);

    if (value < 0) {
        return -EINVAL;
    }
    if (letter == 'r') {
        c->rate = value;
        return 0;
    }
    if (letter == 'm') {
        if (value < 1 || value > WORKERS_MAX) {
            tool_error("Invalid number of coroutines. Allowed number of "
                       "coroutines is between 1 and %d", WORKERS_MAX);
            return -EINVAL;
        }
        c->workers = value;
        return 0;
    }
    if (value % 512 || value > SPARSE_MAX_BYTES) {
        tool_error("Invalid buffer size for sparse output specified. Valid "
                   "sizes are multiples of 512 up to %d. Select 0 to disable "
                   "sparse detection (fully allocates output).",
                   SPARSE_MAX_BYTES);
        return -EINVAL;
    }
    c->sparse = MIN(value, PIECE_BYTES); /* longer ones are never seen */
    return 0;
}

static int parse_long(Convert *c, int option)
{
    switch (option) {
    case IMG_OPTION_BITMAPS:
        c->bitmaps = true;
        return 0;
    case IMG_OPTION_SALVAGE:
        c->salvage = true;
        return 0;
    case IMG_OPTION_SKIP_BROKEN_BITMAPS:
        c->skip_broken = true;
        return 0;
    case IMG_OPTION_TARGET_IMAGE_OPTS:
        c->dst_args.image.image_opts = true;
        return 0;
    case IMG_OPTION_TARGET_IS_ZERO:
        c->is_zero = true;
        return 0;
    default:
        return -EINVAL;
    }
}

/* 0 or -EINVAL, printed. */
static int parse_letter(Convert *c, int letter)
{
    switch (letter) {
    case 'B':
        c->backing = optarg;
        return 0;
    case 'C':
        c->copy_range = true;
        return 0;
    case 'c':
        c->compress = true;
        return 0;
    case 'F':
        c->backing_format = optarg;
        return 0;
    case 'l':
        c->snapshot = optarg;
        return 0;
    case 'S':
        c->sparse_given = true;
        return parse_number(c, letter);
    case 'm':
    case 'r':
        return parse_number(c, letter);
    case 'n':
        c->no_create = true;
        return 0;
    case 'O':
        c->format = optarg;
        return 0;
    case 'T':
        return img_set_cache(&c->args.image, optarg);
    case 't':
        return img_set_cache(&c->dst_args.image, optarg);
    case 'W':
        c->any_order = true;
        return 0;
    default:
        return parse_long(c, letter);
    }
}

/* Options that go, or do not go, together. */
static bool check_pairs(const Convert *c)
{
    if (c->copy_range && (c->compress || c->sparse_given)) {
        tool_error("Cannot enable copy offloading when -%c is used",
                   c->compress ? 'c' : 'S');
    } else if (c->skip_broken && !c->bitmaps) {
        tool_error("Use of --skip-broken-bitmaps requires --bitmaps");
    } else if (c->no_create && c->args.options) {
        tool_error("-o has no effect when skipping image creation");
    } else if (c->dst_args.image.image_opts && !c->no_create) {
        tool_error("--target-image-opts requires use of -n flag");
    } else {
        return true;
    }
    return false;
}

static bool check_command(const Convert *c, int argc, char **argv)
{
    if (c->backing && !c->backing_format && !c->no_create) {
        tool_error("-B needs the format of the backing file (-F)");
        return false;
    }
    if (c->is_zero && !c->no_create) {
        tool_error("--target-is-zero requires use of -n flag");
        return false;
    }
    if (c->compress && c->sparse == 0) {
        tool_error("-c and -S 0 cannot be used together");
        return false;
    }
    return check_pairs(c) && img_operands(argc, argv, 2, G_MAXINT);
}

int img_convert(int argc, char **argv)
{
    Convert c = { .format = "raw", .sparse = SPARSE_BYTES,
                  .workers = WORKERS, .args.two_caches = true };
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&c.args, argc, argv,
                                "f:O:B:F:Ccl:m:no:pqr:S:t:T:UW" IMG_OPENS
                                " bitmaps salvage skip-broken-bitmaps "
                                "target-image-opts target-is-zero")) != -1) {
        if (parse_letter(&c, letter) < 0) {
            img_args_clear(&c.args);
            return EXIT_FAILURE;
        }
    }
    if (c.args.help_options) {
        ret = img_print_create_options(c.format);
    } else if (check_command(&c, argc, argv)) {
        c.nr_src = argc - optind - 1;
        if (c.bitmaps && c.nr_src > 1) {
            tool_error("Copying bitmaps only possible with single source");
        } else if (c.backing && c.nr_src > 1) {
            tool_error("Having a backing file for the target makes no sense "
                       "when concatenating multiple input images");
        } else {
            c.names = argv + optind;
            ret = convert(&c);
        }
    }
    img_args_clear(&c.args);
    return ret;
}
