/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of bg-img, and what they share.
 *
 * Syntax, output and exit statuses are those of qemu-img, for the sake of
 * scripts.  Everything here runs in the main thread.
 */
#ifndef IMG_COMMAND_H
#define IMG_COMMAND_H

#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <blockgraph/image.h>

#include "tools/tool-image.h"
#include "tools/tool-objects.h"

/** A command: gets its own name as argv[0], returns the exit status. */
typedef struct ImgCommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *args;   /* synopsis */
} ImgCommand;

int img_amend(int argc, char **argv);
int img_bench(int argc, char **argv);
int img_bitmap(int argc, char **argv);
int img_check(int argc, char **argv);
int img_commit(int argc, char **argv);
int img_compare(int argc, char **argv);
int img_convert(int argc, char **argv);
int img_create(int argc, char **argv);
int img_dd(int argc, char **argv);
int img_info(int argc, char **argv);
int img_map(int argc, char **argv);
int img_measure(int argc, char **argv);
int img_rebase(int argc, char **argv);
int img_resize(int argc, char **argv);
int img_snapshot(int argc, char **argv);

/** Long options that have no letter. */
enum {
    IMG_OPTION_OBJECT = 256,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_IMAGE_TIMEOUT,
    IMG_OPTION_OUTPUT,
    IMG_OPTION_BACKING_CHAIN,
    IMG_OPTION_START_OFFSET,
    IMG_OPTION_MAX_LENGTH,
    IMG_OPTION_SHRINK,
    IMG_OPTION_PREALLOCATION,
    IMG_OPTION_SIZE,
    IMG_OPTION_TARGET_IS_ZERO,
    IMG_OPTION_ADD,
    IMG_OPTION_REMOVE,
    IMG_OPTION_CLEAR,
    IMG_OPTION_ENABLE,
    IMG_OPTION_DISABLE,
    IMG_OPTION_MERGE,
    IMG_OPTION_BITMAPS,
    IMG_OPTION_FLUSH_INTERVAL,
    IMG_OPTION_FORCE,
    IMG_OPTION_NO_DRAIN,
    IMG_OPTION_PATTERN,
    IMG_OPTION_SALVAGE,
    IMG_OPTION_SKIP_BROKEN_BITMAPS,
    IMG_OPTION_TARGET_IMAGE_OPTS,
};

/** What most commands take. */
typedef struct ImgArgs {
    ToolImage image;
    bool json;          /* --output=json */
    bool quiet;
    bool progress;
    BlockOptions *options; /* of all -o together, or NULL */
    bool help_options;  /* -o help */
    bool two_caches;    /* -t is not about this image */
    bool own_o;         /* -o is the command's own */
} ImgArgs;

/** The long options that all commands have. */
#define IMG_COMMON " object image-timeout"
/** And those that open an image. */
#define IMG_OPENS IMG_COMMON " image-opts"

/**
 * The next option of a command line: getopt_long(3) over @known, which is the
 * letters, in the manner of getopt(3), and then the names of long options, with
 * a space before each; "force-share" comes with -U.  There are no others: one
 * that a command would do nothing with is refused.  -f -o -p -q -t -U,
 * --image-opts, --image-timeout, --output and --object are put into @args.
 *
 * Returns the letter or IMG_OPTION_* of another option, -1 at the end, or '?'
 * after an error, which was printed.
 */
int img_getopt(ImgArgs *args, int argc, char **argv, const char *known);

/** Free what @args holds. */
void img_args_clear(ImgArgs *args);

/** Check that @nr_min to @nr_max operands are left; prints an error if not. */
bool img_operands(int argc, char **argv, int nr_min, int nr_max);

/** A graph with what --object says, or the end of the program.
 * tool_graph_free() it. */
BlockGraph *img_graph(void);

/** How img_open() opens. */
typedef enum ImgOpenFlags {
    IMG_OPEN_WRITE = 1 << 0,
    IMG_OPEN_NO_BACKING = 1 << 1, /* without its backing file */
    IMG_OPEN_NO_DATA = 1 << 2,    /* without its data file; to look only */
    IMG_OPEN_ALONE = IMG_OPEN_NO_BACKING | IMG_OPEN_NO_DATA,
    IMG_OPEN_PLAIN_NAME = 1 << 3, /* an image says it: the name of a file */
    IMG_OPEN_RESIZE = 1 << 4,     /* for writing, but only its length */
} ImgOpenFlags;

/**
 * Open an image.  Its format is guessed from its content if it was not given;
 * that it looks raw is told, and then it is read-only, whatever @flags say (but
 * for IMG_OPEN_RESIZE).  Errors are printed.
 *
 * @extra  further options of the node, taken over, or NULL
 */
BlockBackend *img_open(BlockGraph *graph, const ImgArgs *args,
                       const char *name, unsigned flags, BlockOptions *extra);

/**
 * Nobody is to write the source @src while it is read: neither another program,
 * nor we, where the target turns out to be a file that it is made of.  But with
 * -U they may.
 *
 * Returns 0 or a negative errno; errors are printed.
 */
int img_keep_writers_out(BlockBackend *src, const ImgArgs *args,
                         const char *name);

/**
 * Have all that @bs, the image @name, keeps in memory written to its file, its
 * bitmaps as well, by making it read-only: that says if it cannot, where a
 * close could only warn.  Returns the exit status; errors are printed.
 */
int img_settle(BlockDriverState *bs, const char *name);

/**
 * Give up @blk, through which the image @name was changed; NULL is allowed.
 * If @status is a success so far, img_settle() has to be one, too.  Returns the
 * exit status.
 */
int img_close(BlockBackend *blk, const char *name, int status);

/** Print the error as "PREFIX: text" and free it.  Returns EXIT_FAILURE. */
int img_fail(GError *error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/** Parse @text, a size, in the manner of qemu-img.  -1: it is none; that was
 * printed, with @what the size is of. */
int64_t img_parse_size(const char *what, const char *text);

/** "1.5 MiB", with three digits.  g_free() it. */
char *img_size_text(int64_t bytes);

/** Print the table of internal snapshots. */
void img_print_snapshots(const GPtrArray *list);

/** Add "key=value,..." of -o to @args; prints an error. */
int img_add_options(ImgArgs *args, const char *text);

/** Take what -t or -T says; prints an error. */
int img_set_cache(ToolImage *image, const char *mode);

/** The length of an image in bytes, or -1, printed. */
int64_t img_length(BlockBackend *blk, const char *name);

/** A BlockOptions tree that is only {"driver": NAME, "file": {driver file,
 * filename}}. */
BlockOptions *img_file_tree(const char *driver, const char *filename);

/** Answer SIGUSR1 from now on. */
void img_progress_init(void);

/** Print "    (xx.xx/100%)" over the last one if @on, and when asked for. */
void img_progress(bool on, int64_t done, int64_t total);

/** The line is complete. */
void img_progress_end(bool on);

/** Whether the image @bs can keep bitmaps, by its format and its version. */
bool img_can_keep_bitmaps(BlockDriverState *bs);

/** Copy the persistent bitmaps of @from to @to, which has room for them.
 * Prints errors.  0 or -EINVAL. */
int img_copy_bitmaps(BlockDriverState *from, BlockDriverState *to);

/** Whether those of @bs can be copied, but for the inconsistent ones if
 * @skip_broken.  0 or -EINVAL, printed. */
int img_check_bitmaps(BlockDriverState *bs, bool skip_broken);

/** Whether @a and @b are one file, by whatever names. */
bool img_same_file(const char *a, const char *b);

/** Print the options of new images of @format.  The exit status. */
int img_print_create_options(const char *format);

/**
 * Make an image, its file included.
 *
 * @options  of the format; taken over
 */
int img_make(BlockGraph *graph, const char *format, const char *filename,
             int64_t size, BlockOptions *options, GError **errp);

#endif /* IMG_COMMAND_H */
