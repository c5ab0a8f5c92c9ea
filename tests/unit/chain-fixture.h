/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs on chains of images, as pictures: one character is one cluster.
 *
 *   'A' ... its data    '0' zeroes of the layer's own    '-' never written
 *
 * The nodes are "n0" (lowest), "n1", ...; all but the highest are read-only.
 * Images are qcow2, "nI.qcow2" over the filter "faulty", and name the one below
 * by a relative name; or they are disks in memory.
 */
#ifndef TESTS_UNIT_CHAIN_FIXTURE_H
#define TESTS_UNIT_CHAIN_FIXTURE_H

#include "job-fixture.h"

#include "image-fixture.h"

#define CHAIN_CLUSTER (INT64_C(64) << 10)
#define CHAIN_LAYERS 8

static BlockDriverState *layer[CHAIN_LAYERS];
static int nr_layers;
static BlockBackend *guest;

static inline void chain_setup(void)
{
    file_setup();
    job_events = g_string_new(NULL);
    block_job_add_listener(graph, job_heard, NULL);
    nr_layers = 0;
    faulty_clear();
}

static inline void chain_teardown(void)
{
    block_job_remove_listener(graph, job_heard, NULL);
    g_string_free(job_events, true);
    file_teardown();
}

static inline void set_read_only(BlockDriverState *bs, bool read_only)
{
    BlockOptions *options = block_options_new();

    block_options_set_str(options, "read-only", read_only ? "on" : "off");
    ck_assert_int_eq(bdrv_reopen(bs, options, NULL), 0);
}

static inline void paint(BlockDriverState *bs, const char *picture)
{
    BlockBackend *blk = backend_ok("paint", bs, BLK_PERM_CONSISTENT_READ |
                                   BLK_PERM_WRITE, BLK_PERM_ALL);

    for (int64_t i = 0; picture[i]; i++) {
        if (picture[i] == '0') {
            ck_assert_int_eq(blk_pwrite_zeroes(blk, i * CHAIN_CLUSTER,
                                               CHAIN_CLUSTER, 0), 0);
        } else if (picture[i] != '-') {
            job_fill(blk, i * CHAIN_CLUSTER, CHAIN_CLUSTER, picture[i]);
        }
    }
    blk_unref(blk);
}

/** Open the image of layer @i over those that are open. */
static inline BlockDriverState *open_layer(int i)
{
    g_autofree char *name = g_strdup_printf("n%d.qcow2", i);
    g_autofree char *more = i == 0
        ? g_strdup("qcow2,node-name=n0,discard=unmap")
        : g_strdup_printf("qcow2,node-name=n%d,discard=unmap,backing=n%d", i,
                          i - 1);
    BlockDriverState *bs;

    bs = bdrv_open(graph, faulty_options(name, more), NULL);
    ck_assert_ptr_nonnull(bs);
    return bs;
}

/** Put an image of @bytes with that picture on top. */
static inline void add_image(const char *picture, int64_t bytes)
{
    int i = nr_layers++;
    g_autofree char *name = g_strdup_printf("n%d.qcow2", i);
    g_autofree char *options = i == 0
        ? g_strdup_printf("qcow2,size=%" G_GINT64_FORMAT, bytes)
        : g_strdup_printf("qcow2,size=%" G_GINT64_FORMAT
                          ",backing_file=n%d.qcow2,backing_fmt=qcow2", bytes,
                          i - 1);

    if (i > 0) {
        set_read_only(layer[i - 1], true);
    }
    make_image_ok(name, options);
    layer[i] = open_layer(i);
    paint(layer[i], picture);
}

static inline void add_mem(const char *picture, int64_t bytes)
{
    int i = nr_layers++;
    g_autofree char *text = g_strdup_printf(
        "mem,node-name=n%d,size=%" G_GINT64_FORMAT, i, bytes);
    g_autofree char *more = g_strdup_printf("%s,backing=n%d", text, i - 1);

    layer[i] = open_ok(i == 0 ? text : more);
    paint(layer[i], picture);
    if (i > 0) {
        set_read_only(layer[i - 1], true);
    }
}

static inline void add_guest(void)
{
    guest = backend_ok("guest", layer[nr_layers - 1],
                       BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                           BLK_PERM_RESIZE, BLK_PERM_ALL);
}

typedef void ChainAdd(const char *picture, int64_t bytes);

static inline void add_chain(ChainAdd *add, const char *const *pictures)
{
    for (; *pictures; pictures++) {
        add(*pictures, strlen(*pictures) * CHAIN_CLUSTER);
    }
    add_guest();
}

/** A chain of images, the lowest first, and a guest on it. */
#define given(...)                                                            \
    add_chain(add_image, (const char *const[]){ __VA_ARGS__, NULL })

/** The same in memory. */
#define given_in_memory(...)                                                  \
    add_chain(add_mem, (const char *const[]){ __VA_ARGS__, NULL })

/** Close all; the images stay. */
static inline void chain_stop(void)
{
    blk_unref(guest);
    while (nr_layers > 0) {
        bdrv_unref(layer[--nr_layers]);
    }
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}

/** What @blk shows: a letter each, '-' for zeroes. */
static inline void expect_picture(BlockBackend *blk, const char *picture)
{
    int64_t bytes = strlen(picture) * CHAIN_CLUSTER;
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_getlength(blk), bytes);
    ck_assert_int_eq(blk_pread(blk, 0, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        char c = picture[i / CHAIN_CLUSTER];

        if (buf[i] != (c == '-' ? 0 : c)) {
            ck_abort_msg("byte %" G_GINT64_FORMAT " (of '%s') is %d", i,
                         picture, buf[i]);
        }
    }
}

/** What the layer @bs has of its own. */
static inline void expect_layer(BlockDriverState *bs, const char *picture)
{
    BlockBackend *blk = backend_ok("look", bs, BLK_PERM_CONSISTENT_READ,
                                   BLK_PERM_ALL);
    g_autofree char *found = g_strdup(picture);

    for (int64_t i = 0; picture[i]; i++) {
        uint8_t byte;
        int64_t n;
        BlockExtent extent;

        ck_assert_int_eq(blk_pread(blk, i * CHAIN_CLUSTER, 1, &byte, 0), 0);
        ck_assert_int_eq(blk_block_status(blk, i * CHAIN_CLUSTER,
                                          CHAIN_CLUSTER, &extent), 0);
        found[i] = blk_is_allocated(blk, i * CHAIN_CLUSTER, CHAIN_CLUSTER,
                                    &n) != 1               ? '-'
                   : extent.status & BDRV_BLOCK_ZERO       ? '0'
                   : byte == 0                             ? '?'
                                                           : byte;
    }
    ck_assert_str_eq(found, picture);
    blk_unref(blk);
}

/** The backing node of @bs is @backing (NULL: it has none), and its image names
 * @file. */
static inline void expect_backing(BlockDriverState *bs,
                                  BlockDriverState *backing, const char *file)
{
    BdrvChild *child = bdrv_cow_child(bs);
    g_autofree char *name = NULL;
    g_autofree char *format = NULL;

    ck_assert_ptr_eq(child ? bdrv_child_bs(child) : NULL, backing);
    if (bdrv_get_backing_name(bs, &name, &format) == 0) {
        ck_assert_msg(g_strcmp0(name, file) == 0, "'%s', not '%s'", name,
                      file ? file : "none");
        ck_assert_int_eq(name != NULL, format != NULL);
    }
}

/** Close the chain and open what the images say, from the highest: it shows
 * the picture, and each image is sound. */
static inline void expect_images(const char *picture)
{
    g_autofree char *name = g_strdup_printf("n%d.qcow2", nr_layers - 1);
    BlockBackend *blk;
    BlockDriverState *bs;

    chain_stop();
    blk = image_backend(name, "qcow2,discard=unmap");
    expect_picture(blk, picture);
    check_sound(blk);
    bs = blk_bs(blk);
    while (bdrv_cow_child(bs)) {
        BdrvCheckResult result;

        bs = bdrv_child_bs(bdrv_cow_child(bs));
        result = check_of(bs);
        ck_assert_int_eq(result.corruptions, 0);
        ck_assert_int_eq(result.leaks, 0);
    }
    blk_unref(blk);
}

/** The graph as text; the lengths of files are left out.  g_free() it. */
static inline char *chain_dump(void)
{
    g_autofree char *dump = block_graph_dump(graph);
    g_autoptr(GRegex) length = g_regex_new("\"length\": [0-9]+", 0, 0, NULL);

    return g_regex_replace_literal(length, dump, -1, 0, "", 0, NULL);
}

/** The graph is what it was at @before, a dump of it. */
static inline void expect_graph(const char *before)
{
    g_autofree char *after = chain_dump();

    if (!g_str_equal(before, after)) {
        g_printerr("%s\n%s\n", before, after);
        ck_abort_msg("the graph is another");
    }
}

/** A job that would change what another one has frozen does not start. */
static inline void is_refused(BlockJobType type, const char *text)
{
    GError *error = NULL;

    ck_assert_ptr_null(block_job_start(
        graph, type, block_options_parse_keyval(text, NULL, NULL), &error));
    expect_error(&error, EBUSY, "frozen by a job");
}

/** What can be asked of a job. */
static inline BlockJobInfo info_of(BlockJob *job)
{
    BlockJobInfo info;

    block_job_query(job, &info);
    return info;
}

/** Start a job, wait for its good end. */
static inline void job_whole(BlockJobType type, const char *text)
{
    job_end_ok(job_ok(type, text));
}

/** The main() of a test of jobs on chains. */
static inline int chain_main(const char *name, void (*add_tests)(TCase *tcase))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create("all");

    mem_register();
    register_pass_driver();
    register_faulty_driver();
    tcase_add_checked_fixture(tcase, chain_setup, chain_teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}

#endif /* TESTS_UNIT_CHAIN_FIXTURE_H */
