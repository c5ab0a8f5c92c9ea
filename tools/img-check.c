/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check: are the metadata of an image right, and repair them.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

/* Exit statuses beside 0 and 1. */
enum {
    CHECK_CORRUPT = 2,
    CHECK_LEAKS = 3,
    CHECK_UNSUPPORTED = 63,
};

static void message(const char *line, void *opaque)
{
    fflush(stdout);
    fprintf(stderr, "%s\n", line);
}

static void print_counts(const BdrvCheckResult *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        printf("No errors were found on the image.\n");
        return;
    }
    if (r->corruptions) {
        printf("\n%" G_GINT64_FORMAT " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may "
               "corrupt it.\n", r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" G_GINT64_FORMAT " leaked clusters were found on the "
               "image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    }
    if (r->check_errors) {
        printf("\n%" G_GINT64_FORMAT " internal errors have occurred during "
               "the check.\n", r->check_errors);
    }
}

static void print_human(const BdrvCheckResult *r)
{
    print_counts(r);
    if (r->total_clusters && r->allocated_clusters) {
        double allocated = r->allocated_clusters;

        printf("%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " = %0.2f%% "
               "allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               allocated * 100.0 / r->total_clusters,
               r->fragmented_clusters * 100.0 / allocated,
               r->compressed_clusters * 100.0 / allocated);
    }
    if (r->image_end_offset) {
        printf("Image end offset: %" G_GINT64_FORMAT "\n",
               r->image_end_offset);
    }
}

static void put_number(json_t *json, const char *key, int64_t value)
{
    if (value) {
        json_object_set_new(json, key, json_integer(value));
    }
}

static void print_json(const char *name, const char *format,
                       const BdrvCheckResult *r)
{
    g_autofree char *valid = g_utf8_make_valid(name, -1);
    json_t *json = json_object();

    put_number(json, "image-end-offset", r->image_end_offset);
    put_number(json, "total-clusters", r->total_clusters);
    json_object_set_new(json, "check-errors", json_integer(r->check_errors));
    put_number(json, "corruptions", r->corruptions);
    put_number(json, "corruptions-fixed", r->corruptions_fixed);
    put_number(json, "leaks", r->leaks);
    put_number(json, "leaks-fixed", r->leaks_fixed);
    put_number(json, "allocated-clusters", r->allocated_clusters);
    put_number(json, "fragmented-clusters", r->fragmented_clusters);
    put_number(json, "compressed-clusters", r->compressed_clusters);
    json_object_set_new(json, "filename", json_string(valid));
    json_object_set_new(json, "format", json_string(format));
    json_dumpf(json, stdout, JSON_INDENT(4));
    printf("\n");
    json_decref(json);
}

static void print_repairs(const BdrvCheckResult *r)
{
    printf("The following inconsistencies were found and repaired:\n\n"
           "    %" G_GINT64_FORMAT " leaked clusters\n"
           "    %" G_GINT64_FORMAT " corruptions\n\n"
           "Double checking the fixed image now...\n", r->leaks_fixed,
           r->corruptions_fixed);
}

/* Check, repair, and check again what was repaired. */
static int check(BlockDriverState *bs, const ImgArgs *args, unsigned flags,
                 BdrvCheckResult *r, GError **errp)
{
    BdrvCheck how = {
        .flags = flags,
        .message = args->quiet || args->json ? NULL : message,
    };
    int64_t leaks_fixed, corruptions_fixed;
    int ret = bdrv_check(bs, &how, r, errp);

    if (ret < 0 || (!r->leaks_fixed && !r->corruptions_fixed)) {
        return ret;
    }
    leaks_fixed = r->leaks_fixed;
    corruptions_fixed = r->corruptions_fixed;
    if (!args->quiet && !args->json) {
        print_repairs(r);
    }
    how.flags = 0;
    memset(r, 0, sizeof(*r));
    ret = bdrv_check(bs, &how, r, errp);
    r->leaks_fixed = leaks_fixed;
    r->corruptions_fixed = corruptions_fixed;
    return ret;
}

static int report(BlockDriverState *bs, const ImgArgs *args, const char *name,
                  unsigned flags)
{
    BdrvCheckResult r = { 0 };
    GError *error = NULL;
    int ret = check(bs, args, flags, &r, &error);

    if (ret == -ENOTSUP) {
        g_clear_error(&error);
        tool_error("This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    if (ret < 0) {
        return img_fail(error, "Check failed");
    }
    if (args->json) {
        print_json(name, bdrv_driver_name(bs), &r);
    } else if (!args->quiet) {
        print_human(&r);
    }
    if (r.corruptions) {
        return CHECK_CORRUPT;
    }
    if (r.leaks) {
        return CHECK_LEAKS;
    }
    return r.check_errors ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int parse_repair(const char *text, unsigned *ret_flags)
{
    if (g_str_equal(text, "leaks")) {
        *ret_flags = BDRV_CHECK_FIX_LEAKS;
    } else if (g_str_equal(text, "all")) {
        *ret_flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS;
    } else {
        tool_error("Unknown option value for -r (expecting 'leaks' or "
                   "'all'): %s", text);
        return -EINVAL;
    }
    return 0;
}

int img_check(int argc, char **argv)
{
    ImgArgs args = { 0 };
    unsigned flags = 0;
    BlockGraph *graph;
    BlockBackend *blk;
    int letter, ret = EXIT_FAILURE;

    while ((letter = img_getopt(&args, argc, argv, "f:r:qT:U" IMG_OPENS
                                " format output repair")) != -1) {
        if (letter == 'r' && parse_repair(optarg, &flags) == 0) {
            continue;
        }
        if (letter == 'T' && img_set_cache(&args.image, optarg) == 0) {
            continue;
        }
        return EXIT_FAILURE;
    }
    if (!img_operands(argc, argv, 1, 1)) {
        return EXIT_FAILURE;
    }
    graph = img_graph();
    blk = img_open(graph, &args, argv[optind],
                   flags ? IMG_OPEN_WRITE | IMG_OPEN_NO_BACKING
                         : IMG_OPEN_ALONE, NULL);
    if (blk) {
        ret = img_close(blk, argv[optind],
                        report(blk_bs(blk), &args, argv[optind], flags));
    }
    tool_graph_free(graph);
    return ret;
}
