/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image-fixture.h"

/* Write another backing file into the header of an image without asking. */
static void set_backing(const char *name, const char *backing,
                        const char *format)
{
    uint8_t cluster[4096] = { 0 };
    g_autofree char *path = path_of(name);
    size_t bytes = strlen(backing);
    size_t format_bytes = format ? strlen(format) : 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    size_t pos = QCOW2_H_BYTES;

    ck_assert_int_eq(pread(fd, cluster, QCOW2_H_BYTES, 0), QCOW2_H_BYTES);
    if (format) {
        be_put32(cluster + pos, QCOW2_EXT_BACKING_FORMAT);
        be_put32(cluster + pos + 4, format_bytes);
        memcpy(cluster + pos + 8, format, format_bytes);
        pos += 8 + (format_bytes + 7) / 8 * 8;
    }
    pos += 8; /* the end */
    memcpy(cluster + pos, backing, bytes);
    be_put64(cluster + QCOW2_H_BACKING_OFFSET, pos);
    be_put32(cluster + QCOW2_H_BACKING_SIZE, bytes);
    ck_assert_int_eq(pwrite(fd, cluster, sizeof(cluster), 0),
                     sizeof(cluster));
    close(fd);
}

/* --- backing chains ------------------------------------------------------- */

START_TEST(an_image_that_backs_itself_is_refused_R18)
{
    make_image_ok("a", "size=1M");
    set_backing("a", "a", "qcow2");
    image_fails("a", NULL, ELOOP, "backs itself");
    image_fails("a", "read-only=on", ELOOP, "backs itself");
    image_fails("a", "read-only=on,force-share=on", ELOOP, "backs itself");
    bdrv_unref(image_open("a", "backing-format=raw,backing.driver=null-co"));
}
END_TEST

START_TEST(a_loop_over_two_files_is_refused_R18)
{
    make_image_ok("a", "size=1M");
    make_image_ok("b", "size=1M");
    set_backing("a", "b", "qcow2");
    set_backing("b", "a", "qcow2");
    image_fails("a", NULL, ELOOP, "backs itself");
    image_fails("b", "read-only=on", ELOOP, "backs itself");
}
END_TEST

START_TEST(a_loop_over_links_is_refused_R18)
{
    g_autofree char *image = path_of("a");
    g_autofree char *hard = path_of("hard");
    g_autofree char *soft = path_of("soft");

    make_image_ok("a", "size=1M");
    ck_assert_int_eq(link(image, hard), 0);
    ck_assert_int_eq(symlink(image, soft), 0);
    set_backing("a", "hard", "qcow2");
    image_fails("a", NULL, ELOOP, "backs itself");
    set_backing("a", "soft", "qcow2");
    image_fails("a", NULL, ELOOP, "backs itself");
    set_backing("a", "soft", "raw"); /* bytes of itself, as a disk */
    image_fails("a", NULL, ELOOP, "backs itself");
}
END_TEST

static void make_chain(int length)
{
    make_image_ok("0", "size=1M");
    for (int i = 1; i < length; i++) {
        g_autofree char *name = g_strdup_printf("%d", i);
        g_autofree char *below = g_strdup_printf("%d", i - 1);

        make_image_ok(name, "size=1M");
        set_backing(name, below, "qcow2");
    }
}

START_TEST(a_chain_of_60_images_opens_and_a_longer_one_does_not_R18)
{
    BlockBackend *blk;

    make_chain(66);
    blk = image_backend("0", NULL);
    fill(blk, 65536, 65536, 9);
    close_backend(blk);
    blk = image_backend("59", NULL);
    expect_fill(blk, 65536, 65536, 9);
    fill(blk, 65536, 4096, 8);
    expect_fill(blk, 65536, 4096, 8);
    expect_fill(blk, 65536 + 4096, 65536 - 4096, 9);
    close_backend(blk);
    image_fails("65", NULL, ELOOP, "below more than 63");
}
END_TEST

START_TEST(a_backing_file_without_a_format_is_refused_R32)
{
    make_image_ok("base", "size=1M");
    make_image_ok("a", "size=1M");
    set_backing("a", "base", NULL);
    image_fails("a", NULL, EINVAL, "does not record the format");
    bdrv_unref(image_open("a", "backing-format=qcow2"));
    set_backing("a", "base", "nonsense");
    image_fails("a", NULL, EINVAL, "'nonsense'");
    set_backing("a", "base", "file");
    image_fails("a", NULL, EINVAL, "not supported");
}
END_TEST

/* Only names of files; a refusal opens nothing. */
START_TEST(names_in_images_are_names_of_files_only_R27)
{
    static const char *const bad[] = {
        "json:{\"driver\":\"null-co\"}", "nbd:localhost:10809",
        "nbd://localhost/x", "file:base", "file:///dev/null", "fd:0",
        "/dev/fd/0", "/dev/zero", "/proc/self/fd/0", "/proc/../proc/self/mem",
        "//proc/self/mem", "base\n", "ba\x1bse", "a:b", "c:\\x",
    };
    g_autofree char *fifo = path_of("fifo");
    g_autofree char *sub = path_of("base");

    make_image_ok("base", "size=1M");
    make_image_ok("a", "size=1M");
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        set_backing("a", bad[i], "qcow2");
        image_fails("a", NULL, EINVAL, "give \"backing\" explicitly");
    }
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    set_backing("a", "fifo", "raw");
    image_fails("a", NULL, EINVAL, "is a FIFO");
    set_backing("a", ".", "raw");
    image_fails("a", NULL, EISDIR, "directory");
    set_backing("a", sub, "qcow2");
    bdrv_unref(image_open("a", NULL));
    set_backing("a", "base", "qcow2");
    bdrv_unref(image_open("a", NULL));
}
END_TEST

START_TEST(a_data_file_is_named_by_the_same_rules_R27)
{
    static const char name[] = "DATA\0\0\0\x01j";
    gsize bytes;
    g_autofree char *image = NULL;
    char *at;

    make_image_ok("a", "size=1M,data_file=d");
    bdrv_unref(image_open("a", NULL));
    image = slurp("a", &bytes);
    at = memmem(image, bytes, "DATA\0\0\0\x01""d", 9);
    ck_assert_ptr_nonnull(at);
    patch_file("a", at - image, name, 9);
    image_fails("a", NULL, ENOENT, "/j'");
    at[8] = '\n';
    unslurp("a", image, bytes);
    image_fails("a", NULL, EINVAL, "give \"data-file\" explicitly");
    at[8] = 'd';
    unslurp("a", image, bytes);
    bdrv_unref(image_open("a", NULL));
}
END_TEST

START_TEST(null_leaves_out_what_the_image_names)
{
    g_autoptr(GError) error = NULL;
    BlockOptions *options;
    BlockDriverState *bs;

    make_image_ok("a", "size=1M,data_file=d");
    options = block_options_parse_json("{\"data-file\": null, \"backing\": "
                                       "null, \"driver\": \"qcow2\", "
                                       "\"read-only\": true}", NULL);
    block_options_set_str(options, "file.driver", "file");
    {
        g_autofree char *path = path_of("a");

        block_options_set_str(options, "file.filename", path);
    }
    bs = bdrv_open(graph, options, &error);
    ck_assert_msg(bs != NULL, "%s", error ? error->message : "");
    ck_assert_ptr_null(bdrv_find_child(bs, "backing"));
    ck_assert_str_eq(bdrv_driver_name(bdrv_child_bs(
                         bdrv_find_child(bs, "data-file"))), "null-co");
    bdrv_unref(bs);
}
END_TEST

/* A disk that is object 42, and a format over it. */
static int coroutine_fn ident_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    bdrv_set_identity(bs, 42, 42);
    return 0;
}

static int64_t coroutine_fn ident_getlength(BlockDriverState *bs)
{
    return 1 << 20;
}

static int coroutine_fn layer_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    GError *error = NULL;
    BdrvChild *file = bdrv_co_open_child(bs, options, "file",
                                         BDRV_CHILD_IMAGE, true, errp);

    if (!file) {
        return -EINVAL;
    }
    bdrv_reduce_child_role(file, BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY);
    bdrv_co_open_child(bs, options, "backing", BDRV_CHILD_COW, false, &error);
    if (error) {
        g_propagate_error(errp, error);
        return -EINVAL;
    }
    return 0;
}

static void register_layers(void)
{
    static const BlockDriver ident = {
        .struct_size = sizeof(BlockDriver), .name = "ident",
        .kind = BLOCK_DRIVER_PROTOCOL, .open = ident_open,
        .getlength = ident_getlength,
    };
    static const BlockDriver layer = {
        .struct_size = sizeof(BlockDriver), .name = "layer",
        .kind = BLOCK_DRIVER_FORMAT, .open = layer_open,
        .getlength = ident_getlength,
    };

    if (bdrv_register(&ident, NULL) < 0 || bdrv_register(&layer, NULL) < 0) {
        abort();
    }
}

START_TEST(any_driver_can_say_what_it_stores_its_bytes_in_R18)
{
    BlockDriverState *bs;

    open_fails("layer,file.driver=ident,backing.driver=layer,"
               "backing.file.driver=ident", ELOOP, "backs itself");
    open_fails("layer,file.driver=raw,file.file.driver=ident,"
               "backing.driver=raw,backing.file.driver=ident", ELOOP,
               "backs itself");
    /* Two windows of one disk are no chain. */
    bs = open_ok("layer,file.driver=layer,file.file.driver=ident,"
                 "backing.driver=null-co");
    ck_assert_int_eq(bdrv_child_role(bdrv_find_child(bs, "file")),
                     BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY);
    bdrv_unref(bs);
}
END_TEST

/* --- state bits ----------------------------------------------------------- */

START_TEST(a_corrupt_image_opens_for_reading_only)
{
    make_image_ok("a", "size=1M");
    patch64("a", QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
    image_fails("a", NULL, EACCES, "marked as corrupt");
    bdrv_unref(image_open("a", "read-only=on"));
    bdrv_unref(image_open("a", "for-repair=on"));
}
END_TEST

START_TEST(an_image_for_repair_refuses_writes_of_the_guest)
{
    BlockBackend *blk;
    uint8_t buf[512] = { 1 };

    make_image_ok("a", "size=1M");
    patch64("a", QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
    blk = image_backend("a", "for-repair=on");
    ck_assert_int_eq(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EIO);
    close_backend(blk);
}
END_TEST

START_TEST(unknown_autoclear_bits_go_with_the_first_write_only_R132)
{
    const uint64_t unknown = UINT64_C(1) << 40 | UINT64_C(1) << 63;
    BlockBackend *blk;

    make_image_ok("a", "size=1M");
    patch64("a", QCOW2_H_AUTOCLEAR, unknown);
    bdrv_unref(image_open("a", NULL));
    ck_assert_uint_eq(peek64("a", QCOW2_H_AUTOCLEAR), unknown);
    bdrv_unref(image_open("a", "read-only=on"));
    ck_assert_uint_eq(peek64("a", QCOW2_H_AUTOCLEAR), unknown);
    blk = image_backend("a", NULL);
    fill(blk, 0, 512, 1);
    ck_assert_uint_eq(peek64("a", QCOW2_H_AUTOCLEAR), 0);
    close_backend(blk);
}
END_TEST

START_TEST(lazy_refcounts_mark_the_image_dirty_while_it_is_written_R132)
{
    BlockBackend *blk;

    make_image_ok("a", "size=1M,lazy_refcounts=on");
    blk = image_backend("a", NULL);
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE), 0);
    fill(blk, 0, 512, 1);
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE),
                      QCOW2_INCOMPAT_DIRTY);
    close_backend(blk);
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE), 0);
    ck_assert_uint_eq(peek64("a", QCOW2_H_COMPATIBLE),
                      QCOW2_COMPAT_LAZY_REFCOUNTS);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* --- failures ------------------------------------------------------------- */

/* Whichever read fails, open says so and leaves nothing. */
START_TEST(each_read_of_open_may_fail_R4)
{
    static const char *const cases[] = {
        "size=64M", "size=1M,cluster_size=512,refcount_bits=1",
        "size=1M,backing_file=base,backing_fmt=qcow2",
    };

    make_image_ok("base", "size=1M");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        make_image_ok("a", cases[i]);
        for (int n = 1;; n++) {
            size_t before = block_graph_nr_nodes(graph);
            g_autoptr(GError) error = NULL;
            BlockDriverState *bs;

            faulty_set(FAULTY_READS, n, 1);
            bs = bdrv_open(graph, faulty_options("a", NULL), &error);
            if (!faulty_has_failed()) {
                ck_assert_ptr_nonnull(bs);
                ck_assert_int_gt(n, 3);
                faulty_clear();
                bdrv_unref(bs);
                break;
            }
            ck_assert_ptr_null(bs);
            ck_assert_ptr_nonnull(error);
            ck_assert_uint_eq(block_graph_nr_nodes(graph), before);
        }
    }
}
END_TEST

/* An image that ends at any sector is refused, or opens and reads. */
START_TEST(a_file_cut_anywhere_is_refused_or_reads_R2)
{
    g_autofree char *path = path_of("a");
    int64_t length;

    make_image_ok("a", "size=64k,cluster_size=1k");
    length = file_length("a");
    for (int64_t end = length - 1; end >= 0; end = end - 1 - end % 512) {
        g_autoptr(GError) error = NULL;
        BlockDriverState *bs;

        ck_assert_int_eq(truncate(path, end), 0);
        bs = bdrv_open(graph, image_options("a", "read-only=on"), &error);
        ck_assert((bs != NULL) != (error != NULL));
        if (end < 2048) {
            ck_assert_ptr_null(bs);
        }
        bdrv_unref(bs);
    }
}
END_TEST

/* --- options and reopen --------------------------------------------------- */

START_TEST(options_follow_each_other_as_documented)
{
    BlockDriverState *bs;

    make_image_ok("a", "size=1T");
    bs = image_open("a", NULL);
    ck_assert_int_eq(qcow2_of(bs)->options.l2_cache_bytes, 32 << 20);
    ck_assert_int_eq(qcow2_of(bs)->options.l2_slice_bytes, 4096);
    ck_assert_int_eq(qcow2_of(bs)->options.refcount_cache_bytes, 4 * 65536);
    ck_assert_int_eq(qcow2_of(bs)->options.cache_clean_interval_s, 600);
    ck_assert_uint_eq(qcow2_of(bs)->options.overlap_check, QCOW2_OL_CACHED);
    ck_assert(!qcow2_of(bs)->options.pass_discard_request);
    ck_assert(qcow2_of(bs)->options.pass_discard_snapshot);
    bdrv_unref(bs);
    bs = image_open("a", "cache-size=2M,l2-cache-entry-size=16k,"
                         "overlap-check=all,discard=unmap,"
                         "cache-clean-interval=0");
    ck_assert_int_eq(qcow2_of(bs)->options.l2_cache_bytes,
                     (2 << 20) - 4 * 65536);
    ck_assert_uint_eq(qcow2_of(bs)->options.overlap_check, QCOW2_OL_ALL);
    ck_assert(qcow2_of(bs)->options.pass_discard_request);
    bdrv_unref(bs);
    bs = image_open("a", "l2-cache-size=1,overlap-check.template=constant,"
                         "overlap-check.active-l2=on,"
                         "overlap-check.main-header=off");
    ck_assert_int_eq(qcow2_of(bs)->options.l2_cache_bytes,
                     QCOW2_CACHE_MIN_SLICES * 4096);
    ck_assert_uint_eq(qcow2_of(bs)->options.overlap_check,
                      (QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L2) &
                          ~QCOW2_OL_MAIN_HEADER);
    bdrv_unref(bs);
}
END_TEST

/* Whether the slice of the only L2 table is in the cache.  A look that finds it
 * is a use. */
static bool table_is_cached(BlockDriverState *bs)
{
    Qcow2 *q = qcow2_of(bs);
    uint64_t word;

    return qcow2_cache_peek(q->l2_cache,
                            qcow2_l1_entry(q, 0) & QCOW2_OFFSET_MASK, 0, 8,
                            &word);
}

static void time_is_up(void *opaque)
{
    *(bool *)opaque = true;
}

/* Turn the loop for so long. */
static void run_loop_for(int64_t ms)
{
    AioContext *ctx = block_graph_aio_context(graph);
    bool up = false;
    AioTimer *timer = aio_timer_new(ctx, time_is_up, &up);

    aio_timer_set(timer, aio_clock_ns(ctx) + ms * 1000000);
    while (!up) {
        aio_poll(ctx, true);
    }
    aio_timer_free(timer);
}

START_TEST(the_cleaner_empties_a_cache_that_is_not_used)
{
    BlockBackend *blk;
    BlockDriverState *bs;

    make_image_ok("a", "size=1M");
    bs = image_open("a", "cache-clean-interval=0");
    ck_assert_ptr_null(qcow2_of(bs)->cleaner);
    bdrv_unref(bs);
    blk = image_backend("a", "cache-clean-interval=1");
    bs = blk_bs(blk);
    fill(blk, 0, 512, 1);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert(table_is_cached(bs));
    /* It comes every second, and takes what it finds idle twice; where the
     * machine is late more often.  If it never comes the test times out. */
    do {
        run_loop_for(3200);
    } while (table_is_cached(bs));
    expect_fill(blk, 0, 512, 1);
    ck_assert(table_is_cached(bs));
    close_backend(blk);
}
END_TEST

/* Tables can be chosen so that they all meet in one place of the cache. */
START_TEST(an_image_whose_tables_collide_in_the_cache_can_be_read)
{
    const int64_t table_shows = INT64_C(512) << 20;
    int64_t l1, at = INT64_C(1) << 20;
    BlockBackend *blk;
    int n = 0;

    make_image_ok("a", "size=20G");
    l1 = peek64("a", QCOW2_H_L1_OFFSET);
    for (; n < 40; at += 65536) {
        /* As the cache spreads slices of 4 KiB over 128 buckets. */
        if ((uint64_t)(at >> 12) * UINT64_C(0x9e3779b97f4a7c15) >> 57 == 0) {
            patch64("a", l1 + 8 * n++, at | QCOW2_OFLAG_COPIED);
        }
    }
    patch64("a", at + 65536, 0);
    blk = image_backend("a", "read-only=on,l2-cache-size=256k");
    for (int i = 0; i < 80; i++) {
        expect_fill(blk, i % 40 * table_shows, 512, 0);
    }
    close_backend(blk);
}
END_TEST

/* Nor so that to enter them in the map of metadata takes for ever. */
START_TEST(an_image_whose_tables_collide_in_the_map_opens_soon)
{
    enum { TABLES = 1 << 17 };
    g_autofree uint64_t *l1 = g_new0(uint64_t, TABLES);
    uint64_t cluster = 1 << 16;
    int64_t begin;
    int n = 0;

    make_image_ok("a", "size=4G,cluster_size=512");
    for (; n < TABLES; cluster++) {
        if ((cluster * UINT64_C(0x9e3779b97f4a7c15) >> 44 & 0xff) == 0) {
            l1[n++] = GUINT64_TO_BE(cluster << 9 | QCOW2_OFLAG_COPIED);
        }
    }
    patch_file("a", peek64("a", QCOW2_H_L1_OFFSET), l1, TABLES * 8);
    patch64("a", (cluster + 1) << 9, 0);
    begin = g_get_monotonic_time();
    bdrv_unref(image_open("a", "read-only=on"));
    ck_assert_int_lt(g_get_monotonic_time() - begin, 2 * G_USEC_PER_SEC);
}
END_TEST

/* A million entries for one block that is full: no search goes over them. */
START_TEST(a_block_that_serves_twice_is_never_searched)
{
    g_autofree uint8_t *table = g_malloc(QCOW2_MAX_REFTABLE_BYTES);
    uint8_t full[65536], buf[512] = { 1 };
    int64_t block, at = 16 << 20;
    BlockBackend *blk;

    make_image_ok("a", "size=64M");
    block = peek64("a", peek64("a", QCOW2_H_REFTABLE_OFFSET));
    memset(full, 1, sizeof(full));
    patch_file("a", block, full, sizeof(full));
    for (int i = 0; i < QCOW2_MAX_REFTABLE_BYTES / 8; i++) {
        be_put64(table + i * 8, block);
    }
    patch_file("a", at, table, QCOW2_MAX_REFTABLE_BYTES);
    patch64("a", QCOW2_H_REFTABLE_OFFSET, at);
    patch32("a", QCOW2_H_REFTABLE_CLUSTERS, QCOW2_MAX_REFTABLE_BYTES / 65536);
    for (int ro = 1; ro >= 0; ro--) {
        BlockDriverState *bs = bdrv_open(
            graph, faulty_options("a", ro ? "qcow2,read-only=on" : "qcow2"),
            NULL);

        ck_assert_ptr_nonnull(bs);
        if (ro) {
            reopen_ok(bs, "read-only=off");
        }
        blk = backend_of(bs);
        faulty_set(FAULTY_READS, 10, 1);
        ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), -EIO);
        ck_assert(!faulty_has_failed());
        faulty_clear();
        close_backend(blk);
    }
    ck_assert(peek64("a", QCOW2_H_INCOMPATIBLE) & QCOW2_INCOMPAT_CORRUPT);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    make_image_ok("a", "size=1M");
    image_fails("a", "cache-size=1M,l2-cache-size=1M,refcount-cache-size=1M",
                EINVAL, "at the same time");
    image_fails("a", "cache-size=1M,l2-cache-size=2M", EINVAL,
                "above cache-size");
    image_fails("a", "cache-size=1M,refcount-cache-size=2M", EINVAL,
                "above cache-size");
    image_fails("a", "l2-cache-entry-size=3k", EINVAL, "power of two");
    image_fails("a", "l2-cache-entry-size=256", EINVAL, "power of two");
    image_fails("a", "l2-cache-entry-size=128k", EINVAL, "power of two");
    image_fails("a", "overlap-check=some", EINVAL, "overlap-check");
    image_fails("a", "overlap-check.colour=on", EINVAL, "colour");
    image_fails("a", "encrypt.format=luks", ENOTSUP, "encrypted");
    image_fails("a", "data-file.driver=null-co", EINVAL, "data-file");
    image_fails("a", "snapshot=x", EINVAL, "read-only=on");
    image_fails("a", "snapshot=x,read-only=on", ENOENT, "no snapshot 'x'");
    make_image_ok("a", "size=1M,compat=v2");
    image_fails("a", "lazy-refcounts=on", EINVAL, "version 3");
    image_fails("a", "discard-no-unref=on", EINVAL, "version 3");
}
END_TEST

START_TEST(reopen_changes_access_and_caches)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    make_image_ok("a", "size=64M,lazy_refcounts=on");
    blk = image_backend("a", NULL);
    bs = blk_bs(blk);
    fill(blk, 0, 65536, 4);
    reopen_ok(bs, "l2-cache-size=64k,overlap-check=none");
    ck_assert_int_eq(qcow2_of(bs)->options.l2_cache_bytes, 65536);
    expect_fill(blk, 0, 65536, 4);
    fill(blk, 1 << 20, 65536, 5);
    expect_fill(blk, 1 << 20, 65536, 5);
    reopen_fails(bs, "snapshot=x", EINVAL, "snapshot");
    reopen_fails(bs, "l2-cache-entry-size=3", EINVAL, "power of two");
    expect_fill(blk, 1 << 20, 65536, 5);
    close_backend(blk);
    bs = image_open("a", "read-only=on");
    reopen_ok(bs, "read-only=off");
    blk = backend_of(bs);
    fill(blk, 2 << 20, 65536, 6);
    expect_fill(blk, 1 << 20, 65536, 5);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(what_was_left_out_at_open_is_left_out_by_reopen)
{
    g_autoptr(BlockOptions) none =
        block_options_parse_json("{\"backing\": null}", NULL);
    BlockOptions *options;
    BlockDriverState *bs;

    make_image_ok("base", "size=1M");
    make_image_ok("a", "backing_file=base,backing_fmt=qcow2");
    options = image_options("a", NULL);
    block_options_merge(options, none);
    bs = bdrv_open(graph, options, NULL);
    reopen_ok(bs, "read-only=on");
    ck_assert_ptr_null(bdrv_cow_child(bs));
    reopen_fails(bs, "backing=x", EINVAL, "cannot be added");
    reopen_ok(bs, "read-only=off");
    bdrv_unref(bs);
}
END_TEST

/* New caches take the place of old ones that hold nothing any more, also after
 * an operation that could not bring it all to the disk. */
START_TEST(a_reopen_loses_nothing_that_could_not_be_written_before)
{
    const BdrvSnapshotInfo info = { .name = (char *)"s" };
    BlockDriverState *bs;
    BlockBackend *blk;

    make_image_ok("a", "size=64M,lazy_refcounts=on");
    bs = bdrv_open(graph, faulty_options("a", NULL), NULL);
    blk = backend_of(bs);
    fill(blk, 0, 1 << 20, 4);
    faulty_set(FAULTY_CHANGES, 1, UINT_MAX);
    ck_assert_int_lt(bdrv_snapshot_create(bs, &info, NULL), 0);
    faulty_clear();
    reopen_ok(bs, "l2-cache-size=64k,refcount-cache-size=256k");
    expect_fill(blk, 0, 1 << 20, 4);
    fill(blk, 2 << 20, 1 << 20, 5);
    expect_fill(blk, 0, 1 << 20, 4);
    ck_assert_int_eq(bdrv_snapshot_create(bs, &info, NULL), 0);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(becoming_read_only_settles_the_image)
{
    BlockDriverState *bs;

    make_image_ok("a", "size=64M,lazy_refcounts=on");
    bs = image_open("a", NULL);
    {
        BlockBackend *blk = backend_ok("w", bs, BLK_PERM_WRITE, BLK_PERM_ALL);

        fill(blk, 0, 65536, 4);
        ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE),
                          QCOW2_INCOMPAT_DIRTY);
        blk_unref(blk);
    }
    reopen_ok(bs, "read-only=on");
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE), 0);
    ck_assert(qemu_img_ok("check -q -U", "a"));
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-open");
    TCase *tcase = tcase_create("qcow2-open");

    register_faulty_driver();
    register_layers();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, an_image_that_backs_itself_is_refused_R18);
    PROMISE(tcase, a_loop_over_two_files_is_refused_R18);
    PROMISE(tcase, a_loop_over_links_is_refused_R18);
    PROMISE(tcase, a_chain_of_60_images_opens_and_a_longer_one_does_not_R18);
    PROMISE(tcase, a_backing_file_without_a_format_is_refused_R32);
    PROMISE(tcase, names_in_images_are_names_of_files_only_R27);
    PROMISE(tcase, a_data_file_is_named_by_the_same_rules_R27);
    PROMISE(tcase, null_leaves_out_what_the_image_names);
    PROMISE(tcase, any_driver_can_say_what_it_stores_its_bytes_in_R18);
    PROMISE(tcase, a_corrupt_image_opens_for_reading_only);
    PROMISE(tcase, an_image_for_repair_refuses_writes_of_the_guest);
    PROMISE(tcase, unknown_autoclear_bits_go_with_the_first_write_only_R132);
    PROMISE(tcase,
            lazy_refcounts_mark_the_image_dirty_while_it_is_written_R132);
    PROMISE(tcase, each_read_of_open_may_fail_R4);
    PROMISE(tcase, a_file_cut_anywhere_is_refused_or_reads_R2);
    PROMISE(tcase, options_follow_each_other_as_documented);
    PROMISE(tcase, the_cleaner_empties_a_cache_that_is_not_used);
    PROMISE(tcase, an_image_whose_tables_collide_in_the_cache_can_be_read);
    PROMISE(tcase, an_image_whose_tables_collide_in_the_map_opens_soon);
    PROMISE(tcase, a_block_that_serves_twice_is_never_searched);
    PROMISE(tcase, options_that_make_no_sense_are_refused);
    PROMISE(tcase, reopen_changes_access_and_caches);
    PROMISE(tcase, what_was_left_out_at_open_is_left_out_by_reopen);
    PROMISE(tcase, a_reopen_loses_nothing_that_could_not_be_written_before);
    PROMISE(tcase, becoming_read_only_settles_the_image);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
