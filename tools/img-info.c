/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info: what an image says of itself.
 *
 * Without --backing-chain exactly one file is opened: whoever wrote the image
 * chose the names in it.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/img-name.h"
#include "tools/tool-print.h"
#include "tools/tool-specific.h"

/* The longest chain that is followed. */
#define CHAIN_MAX 200

/* What is known of one image. */
typedef struct Info {
    char *filename;
    char *format;
    int64_t size;
    int64_t allocated;   /* negative: not known */
    bool has_driver;     /* the driver can tell: */
    BlockDriverInfo driver;
    char *backing;       /* NULL: none */
    char *backing_format;
    char *full_backing;
    GPtrArray *snapshots; /* NULL: none */
    json_t *specific;    /* NULL: none */
} Info;

static void info_clear(Info *info)
{
    g_free(info->filename);
    g_free(info->format);
    g_free(info->backing);
    g_free(info->backing_format);
    g_free(info->full_backing);
    if (info->snapshots) {
        g_ptr_array_unref(info->snapshots);
    }
    json_decref(info->specific);
}

/* --- collecting ----------------------------------------------------------- */

static int coroutine_fn allocated_entry(void *opaque)
{
    void **call = opaque;

    *(int64_t *)call[1] = bdrv_co_get_allocated_size(call[0]);
    return 0;
}

/* The path that the image at the path @image means by @name. */
static char *full_name(const char *image, const char *name)
{
    g_autofree char *dir = NULL;

    if (g_path_is_absolute(name)) {
        return g_strdup(name);
    }
    dir = g_path_get_dirname(image);
    return g_str_equal(dir, ".") && !g_str_has_prefix(image, "./")
               ? g_strdup(name)
               : g_build_filename(dir, name, NULL);
}

static int collect(BlockDriverState *bs, Info *info, GError **errp)
{
    BlockGraph *graph = bdrv_graph(bs);
    void *call[] = { bs, &info->allocated };
    BlockOptions *specific = NULL;
    GPtrArray *list = NULL;
    int ret;

    *info = (Info){
        .filename = img_name_of(bs),
        .format = g_strdup(bdrv_driver_name(bs)),
        .size = bdrv_length(bs),
    };
    aio_co_run(block_graph_aio_context(graph), allocated_entry, call);
    info->has_driver = bdrv_get_info(bs, &info->driver) == 0;
    bdrv_get_backing_name(bs, &info->backing, &info->backing_format);
    if (info->backing) {
        info->full_backing = full_name(bdrv_filename(bs), info->backing);
    }
    ret = bdrv_snapshot_list(bs, &list, errp);
    if (ret == 0 && list->len > 0) {
        info->snapshots = list;
    } else if (ret == 0) {
        g_ptr_array_unref(list);
    } else if (ret != -ENOTSUP) {
        return ret;
    }
    g_clear_error(errp);
    ret = bdrv_get_specific_info(bs, &specific, errp);
    if (ret == 0) {
        g_autofree char *text = block_options_to_json(specific);

        info->specific = json_loads(text, 0, NULL);
        block_options_free(specific);
    } else if (ret != -ENOTSUP) {
        return ret;
    }
    g_clear_error(errp);
    return 0;
}

/* --- as JSON -------------------------------------------------------------- */

static json_t *text_json(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    return json_string(valid);
}

static json_t *snapshot_json(const BdrvSnapshotInfo *s)
{
    json_t *json = json_object();

    json_object_set_new(json, "id", text_json(s->id));
    json_object_set_new(json, "name", text_json(s->name));
    json_object_set_new(json, "vm-state-size",
                        json_integer(s->vm_state_bytes));
    json_object_set_new(json, "date-sec", json_integer(s->date_sec));
    json_object_set_new(json, "date-nsec", json_integer(s->date_nsec));
    json_object_set_new(json, "vm-clock-sec",
                        json_integer(s->vm_clock_ns / 1000000000));
    json_object_set_new(json, "vm-clock-nsec",
                        json_integer(s->vm_clock_ns % 1000000000));
    if (s->icount != UINT64_MAX) {
        json_object_set_new(json, "icount", json_integer(s->icount));
    }
    return json;
}

static json_t *info_json(const Info *info)
{
    json_t *json = json_object();

    json_object_set_new(json, "virtual-size", json_integer(info->size));
    json_object_set_new(json, "filename", text_json(info->filename));
    json_object_set_new(json, "format", text_json(info->format));
    if (info->driver.cluster_bytes) {
        json_object_set_new(json, "cluster-size",
                            json_integer(info->driver.cluster_bytes));
    }
    if (info->allocated >= 0) {
        json_object_set_new(json, "actual-size",
                            json_integer(info->allocated));
    }
    if (info->backing) {
        json_object_set_new(json, "backing-filename",
                            text_json(info->backing));
        json_object_set_new(json, "full-backing-filename",
                            text_json(info->full_backing));
    }
    if (info->backing_format) {
        json_object_set_new(json, "backing-filename-format",
                            text_json(info->backing_format));
    }
    if (info->snapshots) {
        json_t *list = json_array();

        for (guint i = 0; i < info->snapshots->len; i++) {
            json_array_append_new(
                list, snapshot_json(g_ptr_array_index(info->snapshots, i)));
        }
        json_object_set_new(json, "snapshots", list);
    }
    if (info->specific) {
        json_object_set(json, "format-specific", info->specific);
    }
    if (info->has_driver) {
        json_object_set_new(json, "dirty-flag",
                            json_boolean(info->driver.is_dirty));
    }
    return json;
}

/* --- for people ----------------------------------------------------------- */

static void print_name(const char *what, const char *name)
{
    g_autofree char *safe = tool_safe_text(name);

    printf("%s: %s\n", what, safe);
}

static void print_info(const Info *info)
{
    g_autofree char *size = img_size_text(info->size);

    print_name("image", info->filename);
    printf("file format: %s\n", info->format);
    printf("virtual size: %s (%" G_GINT64_FORMAT " bytes)\n", size,
           info->size);
    if (info->allocated >= 0) {
        g_autofree char *allocated = img_size_text(info->allocated);

        printf("disk size: %s\n", allocated);
    } else {
        printf("disk size: unavailable\n");
    }
    if (info->driver.cluster_bytes) {
        printf("cluster_size: %" G_GINT64_FORMAT "\n",
               info->driver.cluster_bytes);
    }
    if (info->driver.is_dirty) {
        printf("cleanly shut down: no\n");
    }
    if (info->backing) {
        g_autofree char *both = g_str_equal(info->backing, info->full_backing)
            ? g_strdup(info->backing)
            : g_strdup_printf("%s (actual path: %s)", info->backing,
                              info->full_backing);

        print_name("backing file", both);
    }
    if (info->backing_format) {
        print_name("backing file format", info->backing_format);
    }
    if (info->snapshots) {
        img_print_snapshots(info->snapshots);
    }
    if (info->specific) {
        tool_print_specific(info->specific);
    }
}

/* --- the command ---------------------------------------------------------- */

/* Whether to go on with what the image @bs names: it may be trusted or not.
 * Returns the exit status. */
static int check_next(const BlockDriverState *bs, const Info *info)
{
    GError *error = NULL;
    const char *root;

    return info->full_backing &&
           bdrv_check_named_file(bs, info->backing, "backing", &root,
                                 &error) < 0
               ? img_fail(error, "The chain of '%s' is not followed",
                          info->filename)
               : EXIT_SUCCESS;
}

/* Print what there is to one image.  Returns the exit status, and the image to
 * go on with, if one is wanted, in @ret_next and @ret_format. */
static int one_image(const ImgArgs *args, const char *name, json_t *list,
                     char **ret_next, char **ret_format)
{
    BlockGraph *graph = img_graph();
    BlockBackend *blk = img_open(graph, args, name, IMG_OPEN_ALONE, NULL);
    GError *error = NULL;
    Info info = { 0 };
    int ret = EXIT_FAILURE;

    if (blk) {
        if (collect(blk_bs(blk), &info, &error) < 0) {
            img_fail(error, "Could not look at '%s'", name);
        } else if (args->json) {
            json_array_append_new(list, info_json(&info));
            ret = EXIT_SUCCESS;
        } else {
            print_info(&info);
            ret = EXIT_SUCCESS;
        }
        if (ret_next && ret == EXIT_SUCCESS) {
            ret = check_next(blk_bs(blk), &info);
            *ret_next = g_strdup(info.full_backing);
            *ret_format = g_strdup(info.backing_format);
        }
        info_clear(&info);
        blk_unref(blk);
    }
    tool_graph_free(graph);
    return ret;
}

static int print_chain(ImgArgs *args, const char *name, bool chain)
{
    json_t *list = json_array();
    g_autofree char *image = g_strdup(name);
    g_autofree char *format = g_strdup(args->image.format);
    int ret = EXIT_SUCCESS;

    for (int i = 0; image && ret == EXIT_SUCCESS; i++) {
        char *next = NULL, *next_format = NULL;

        if (i == CHAIN_MAX) {
            tool_error("More than %d images in the chain of '%s'", CHAIN_MAX,
                       name);
            ret = EXIT_FAILURE;
            break;
        }
        if (i > 0 && !args->json) {
            printf("\n");
        }
        args->image.format = format;
        ret = one_image(args, image, list, chain ? &next : NULL,
                        &next_format);
        g_free(image);
        g_free(format);
        image = next;
        format = next_format;
        args->image.image_opts = false;
        args->image.plain_name = true; /* the image says what is next */
    }
    if (args->json && ret == EXIT_SUCCESS) {
        json_dumpf(chain ? list : json_array_get(list, 0), stdout,
                   JSON_INDENT(4));
        printf("\n");
    }
    json_decref(list);
    return ret;
}

int img_info(int argc, char **argv)
{
    ImgArgs args = { 0 };
    bool chain = false;
    int letter;

    while ((letter = img_getopt(&args, argc, argv, "f:U" IMG_OPENS
                                " backing-chain format output")) != -1) {
        if (letter == '?') {
            return EXIT_FAILURE;
        }
        if (letter == IMG_OPTION_BACKING_CHAIN) {
            chain = true;
        }
    }
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    return print_chain(&args, argv[optind], chain);
}
