/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The options of an image's nodes, from the command line of a tool.
 *
 * A tree may leave drivers out where QEMU's tools let it: a node with a file
 * name and no driver is a file, one with a "file" and no driver is raw.  There
 * is no probing: what the content of an image says never picks a driver.
 */
#include "tools/tool-image.h"

#include <blockgraph/aio.h>
#include <blockgraph/driver.h>
#include <blockgraph/job.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/tool-name.h"
#include "tools/tool-print.h"

/* How long jobs that are over may keep their nodes, and how often to look. */
#define JOBS_US (10 * G_USEC_PER_SEC)
#define LOOK_US 1000

/* The library refuses deeper trees anyway. */
#define TOOL_DEPTH_MAX 64

typedef struct CacheMode {
    const char *name;
    bool nocache;
    bool no_flush;
    bool write_through;
} CacheMode;

static const CacheMode cache_modes[] = {
    { "none", .nocache = true },
    { "off", .nocache = true },
    { "directsync", .nocache = true, .write_through = true },
    { "writeback" },
    { "writethrough", .write_through = true },
    { "unsafe", .no_flush = true },
};

int tool_image_set_cache(ToolImage *image, const char *mode)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cache_modes); i++) {
        if (g_str_equal(mode, cache_modes[i].name)) {
            image->nocache = cache_modes[i].nocache;
            image->no_flush = cache_modes[i].no_flush;
            image->write_through = cache_modes[i].write_through;
            return 0;
        }
    }
    return -EINVAL;
}

int tool_image_set_discard(ToolImage *image, const char *mode)
{
    if (g_str_equal(mode, "unmap") || g_str_equal(mode, "on")) {
        image->unmap = true;
    } else if (g_str_equal(mode, "ignore") || g_str_equal(mode, "off")) {
        image->unmap = false;
    } else {
        return -EINVAL;
    }
    return 0;
}

int tool_image_set_aio(ToolImage *image, const char *mode)
{
    if (g_str_equal(mode, "threads")) {
        image->aio = "threads";
    } else if (g_str_equal(mode, "native") || g_str_equal(mode, "io_uring")) {
        /* Scripts ask for "native" because it is fast; so is the ring. */
        image->aio = "io_uring";
    } else {
        return -EINVAL;
    }
    return 0;
}

/* Move the string at @from to @key of @options; whether there was one. */
static bool move_str(BlockOptions *options, const char *key,
                     BlockOptions *parsed, const char *from)
{
    const char *text = block_options_peek_str(parsed, from);

    if (text) {
        block_options_set_str(options, key, text);
    }
    return text && block_options_remove(parsed, from);
}

BlockOptions *tool_snapshot_options(const char *text)
{
    g_autoptr(BlockOptions) parsed = NULL;
    BlockOptions *options;
    size_t parts = 0;

    if (!text) {
        return NULL;
    }
    options = block_options_new();
    if (g_str_has_prefix(text, "snapshot.")) {
        parsed = block_options_parse_keyval(text, NULL, NULL);
    }
    if (parsed) {
        parts += move_str(options, "snapshot-id", parsed, "snapshot.id");
        parts += move_str(options, "snapshot-name", parsed, "snapshot.name");
        /* What is left is unknown: opening the image tells so. */
        block_options_merge(options, parsed);
    }
    if (parts == 0) {
        block_options_set_str(options, "snapshot", text);
    }
    return options;
}

static void set_default(BlockOptions *options, const char *key, bool value)
{
    if (value) {
        block_options_default_bool(options, key, true);
    }
}

/* The key @name of the node at @path, which is "" or ends with a dot. */
static char *key_at(const char *path, const char *name)
{
    return g_strconcat(path, name, NULL);
}

/*
 * Give each node of the chain of "file" children its driver, and the file at
 * the end its aio mode.
 */
static void complete_chain(BlockOptions *options, const ToolImage *image)
{
    g_autofree char *path = g_strdup("");

    for (int depth = 0; depth < TOOL_DEPTH_MAX; depth++) {
        g_autofree char *driver_key = key_at(path, "driver");
        g_autofree char *name_key = key_at(path, "filename");
        g_autofree char *file_key = key_at(path, "file");
        g_autofree char *aio_key = key_at(path, "aio");
        const char *driver;
        char *next;

        if (!block_options_has(options, driver_key)) {
            if (block_options_has(options, file_key)) {
                block_options_set_str(options, driver_key, "raw");
            } else if (block_options_has(options, name_key)) {
                block_options_set_str(options, driver_key, "file");
            }
        }
        driver = block_options_peek_str(options, driver_key);
        if (image->aio && driver && g_str_equal(driver, "file") &&
            !block_options_has(options, aio_key)) {
            block_options_set_str(options, aio_key, image->aio);
        }
        if (!block_options_has(options, file_key) ||
            block_options_peek_str(options, file_key)) {
            return;     /* the end, or a reference to a node */
        }
        next = g_strconcat(file_key, ".", NULL);
        g_free(path);
        path = next;
    }
}

/* Put a node of driver @format, or raw, above the protocol node @options. */
static BlockOptions *wrap_in_format(BlockOptions *options, const char *format)
{
    BlockOptions *top = block_options_new();

    block_options_set_str(top, "driver", format ? format : "raw");
    block_options_set_tree(top, "file", options);
    return top;
}

static int set_format(BlockOptions *options, const char *format,
                      GError **errp)
{
    const char *driver = block_options_peek_str(options, "driver");

    if (driver && !g_str_equal(driver, format)) {
        return block_error(errp, EINVAL, "Driver specified twice: '%s' and "
                           "'%s'", format, driver);
    }
    block_options_set_str(options, "driver", format);
    return 0;
}

/* A name that an image has, or is to have. */
static BlockOptions *plain_file(const char *name)
{
    BlockOptions *options = block_options_new();

    block_options_set_bool(options, "from-image", true);
    block_options_set_str(options, "driver", "file");
    block_options_set_str(options, "filename", name);
    return options;
}

static BlockOptions *parse_name(const ToolImage *image, const char *name,
                                bool *ret_guess, GError **errp)
{
    BlockOptions *options;

    if (image->image_opts) {
        return block_options_parse_keyval(name, NULL, errp);
    }
    if (image->plain_name) {
        options = plain_file(name);
    } else {
        options = tool_name_options(name, errp);
    }
    if (!options) {
        return NULL;
    }
    if (image->plain_name || !g_str_has_prefix(name, "json:")) {
        *ret_guess = !image->format &&
                     (image->plain_name || !tool_has_no_content(name));
        return wrap_in_format(options, image->format);
    }
    if (image->format && set_format(options, image->format, errp) < 0) {
        block_options_free(options);
        return NULL;
    }
    return options;
}

BlockOptions *tool_image_options(const ToolImage *image, const char *name,
                                 const BlockOptions *extra, bool *ret_guess,
                                 GError **errp)
{
    const char *driver = extra ? block_options_peek_str(extra, "driver") : NULL;
    ToolImage with_driver = *image;
    BlockOptions *options;
    bool guess = false;

    if (driver && name) {
        with_driver.format = driver;
    }
    if (name) {
        options = parse_name(&with_driver, name, &guess, errp);
    } else {
        options = block_options_new();
    }
    if (!options) {
        return NULL;
    }
    if (extra) {
        block_options_merge(options, extra);
    }
    if (!name && !block_options_has(options, "driver") &&
        !block_options_has(options, "file")) {
        block_error(errp, EINVAL, "Must specify either driver or file");
        block_options_free(options);
        return NULL;
    }
    set_default(options, "read-only", image->read_only);
    set_default(options, "force-share", image->force_share);
    set_default(options, "copy-on-read", image->copy_on_read);
    set_default(options, "cache.direct", image->nocache);
    set_default(options, "cache.no-flush", image->no_flush);
    if (image->unmap && !block_options_has(options, "discard")) {
        block_options_set_str(options, "discard", "unmap");
    }
    complete_chain(options, &with_driver);
    *ret_guess = guess;
    return options;
}

static const char *guess_from_file(const char *name)
{
    uint8_t head[BDRV_PROBE_BYTES];
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t bytes = fd < 0 ? -1 : read(fd, head, sizeof(head));
    const char *format;

    if (fd >= 0) {
        close(fd);
    }
    if (bytes < 0) {
        return NULL;
    }
    format = bdrv_probe_format(head, bytes, name)->name;
    if (g_str_equal(format, "raw")) {
        fflush(stdout);
        fprintf(stderr, "%s: note: no format was given for '%s', and it looks "
                "like none that is known: taken as raw.\n", g_get_prgname(),
                name);
    }
    return format;
}

const char *tool_guess_format(const char *name, bool plain)
{
    if (plain) {
        return guess_from_file(name);
    }
    return tool_has_no_content(name) ? "raw"
                                     : guess_from_file(tool_file_path(name));
}

bool tool_wait_for_jobs(BlockGraph *graph)
{
    int64_t end_us = g_get_monotonic_time() + JOBS_US;

    while (block_graph_nr_nodes(graph) > 0) {
        if (g_get_monotonic_time() > end_us) {
            tool_error("A request of a job does not end: giving up");
            return false;
        }
        block_job_cancel_all(graph); /* waits for some of what is left */
        if (!aio_poll(block_graph_aio_context(graph), false)) {
            g_usleep(LOOK_US);
        }
    }
    return true;
}
