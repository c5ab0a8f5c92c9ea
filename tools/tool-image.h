/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what a person writes on a command line to the options of a node.
 */
#ifndef TOOL_IMAGE_H
#define TOOL_IMAGE_H

#include <blockgraph/block.h>
#include <blockgraph/options.h>

/** What the options of a command line say about an image. */
typedef struct ToolImage {
    const char *format;  /* driver of the top node, or NULL */
    bool image_opts;     /* the name is key=value text */
    bool plain_name;     /* it came out of an image: a file, whatever it says */
    bool read_only;
    bool snapshot;       /* what is written goes to tool_open_overlay() */
    bool force_share;
    bool copy_on_read;   /* copy-on-read=on */
    bool nocache;        /* cache.direct=on */
    bool no_flush;       /* cache.no-flush=on */
    bool write_through;  /* flush after each write; for the backend */
    bool unmap;          /* discard=unmap */
    const char *aio;     /* "threads" or "io_uring" for files, or NULL */
} ToolImage;

/** Set the cache fields of @image from a mode's name; -EINVAL: none such. */
int tool_image_set_cache(ToolImage *image, const char *mode);

/** Set @image->unmap from "unmap", "on", "ignore" or "off"; else -EINVAL. */
int tool_image_set_discard(ToolImage *image, const char *mode);

/** Set @image->aio from "threads", "native" or "io_uring"; else -EINVAL. */
int tool_image_set_aio(ToolImage *image, const char *mode);

/**
 * The options that show an internal snapshot: @text is its ID or, if there is
 * none, its name; or "snapshot.id=ID", "snapshot.name=NAME" or both with a
 * comma between them.  NULL for NULL; the caller owns it.
 */
BlockOptions *tool_snapshot_options(const char *text);

/**
 * The options of the top node.
 *
 * @image      what else was said; where the text names an option itself, the
 *             text wins
 * @name       what tool_name_options() takes, or key=value text with
 *             image_opts, or NULL
 * @extra      options of the top node that come on top, or NULL
 * @ret_guess  whether "raw" was assumed because nothing named a format
 *
 * Returns the tree, which the caller owns, or NULL with @errp set.
 */
BlockOptions *tool_image_options(const ToolImage *image, const char *name,
                                 const BlockOptions *extra, bool *ret_guess,
                                 GError **errp);

/**
 * The format that the beginning of the file @name looks like; "raw" with a note
 * to standard error when it looks like none.  An NBD export is a disk: it is
 * "raw", and nobody looks, as that would take a connection.  NULL: it cannot be
 * read, and opening it will say why.
 * @plain: the name is that of a file, whatever it looks like.
 */
const char *tool_guess_format(const char *name, bool plain);

/**
 * Wait until jobs that have failed let go of their nodes, which they do when
 * their last requests have ended; all else has let go.  Returns whether they
 * have; if not, within 10 s, that was told, and @graph cannot be freed.
 */
bool tool_wait_for_jobs(BlockGraph *graph);

#endif /* TOOL_IMAGE_H */
