/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads, writes, zeroes and discards of one guest, case by case.
 */
#include "image-fixture.h"
#include "mem-driver.h"

#define SECTOR 512
#define CLUSTER 4096

/* --- images --------------------------------------------------------------- */

/* The byte of the backing file "base" at @offset; never 0. */
static uint8_t base_byte(int64_t offset)
{
    return 128 + offset / SECTOR % 127;
}

static void make_base(int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = base_byte(i);
    }
    make_file("base", 0);
    patch_file("base", 0, buf, bytes);
}

/* The image "a" over "base"; @more: options, or NULL. */
static BlockBackend *overlay(const char *more)
{
    g_autofree char *base = path_of("base");
    g_autofree char *options = g_strdup_printf(
        "qcow2,discard=unmap,backing.driver=file,backing.filename=%s%s%s",
        base, more ? "," : "", more ? more : "");

    return image_backend("a", options);
}

/* The image "a" without the backing file that it names. */
static BlockBackend *alone(void)
{
    g_autofree char *path = path_of("a");
    g_autofree char *text = g_strdup_printf(
        "{\"driver\": \"qcow2\", \"backing\": null, \"file\": "
        "{\"driver\": \"file\", \"filename\": \"%s\"}}", path);
    BlockOptions *options = block_options_parse_json(text, NULL);
    BlockDriverState *bs = options ? bdrv_open(graph, options, NULL) : NULL;

    ck_assert_msg(bs != NULL, "%s", text);
    return backend_of(bs);
}

static void expect_base(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != base_byte(offset + i)) {
            ck_abort_msg("byte %ld is %d, not the backing file's",
                         (long)(offset + i), buf[i]);
        }
    }
}

static void fill_compressed(BlockBackend *blk, int64_t offset, int64_t bytes,
                            int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    ck_assert_int_eq(blk_pwrite(blk, offset, bytes, buf,
                                BDRV_REQ_WRITE_COMPRESSED), 0);
}

static BlockExtent status_at(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlockExtent extent;

    ck_assert_int_eq(blk_block_status(blk, offset, bytes, &extent), 0);
    return extent;
}

/* --- kinds of clusters ---------------------------------------------------- */

/* What a cluster of the guest can be. */
typedef enum Kind {
    UNALLOCATED,
    DATA,
    ZERO_UNMAPPED,
    ZERO_MAPPED,
    COMPRESSED,
    PARTLY, /* a few sectors of data; the rest from below */
    KINDS,
} Kind;

/* Make @offset (@cluster bytes) one of @kind; @model follows. */
static void make_kind(BlockBackend *blk, Kind kind, int64_t offset,
                      int64_t cluster, uint8_t *model)
{
    uint8_t byte = 1 + offset / cluster % 120;

    switch (kind) {
    case DATA:
    case COMPRESSED:
        memset(model + offset, byte, cluster);
        (kind == DATA ? fill : fill_compressed)(blk, offset, cluster, byte);
        break;
    case ZERO_MAPPED:
        fill(blk, offset, cluster, byte);
        /* fall through */
    case ZERO_UNMAPPED:
        memset(model + offset, 0, cluster);
        ck_assert_int_eq(blk_pwrite_zeroes(
            blk, offset, cluster,
            kind == ZERO_UNMAPPED ? BDRV_REQ_MAY_UNMAP : 0), 0);
        break;
    case PARTLY:
        memset(model + offset + SECTOR, byte, 2 * SECTOR);
        fill(blk, offset + SECTOR, 2 * SECTOR, byte);
        break;
    default:
        break;
    }
}

#define MIXED 24

/* Clusters of all kinds in a random order, over a base of half the size. */
static BlockBackend *make_mixed(int64_t cluster, const char *create,
                                uint8_t *model)
{
    g_autofree char *options = g_strdup_printf(
        "size=%ld,cluster_size=%ld%s", (long)(MIXED * cluster), (long)cluster,
        create);
    int64_t base = MIXED / 2 * cluster + 3 * SECTOR;
    BlockBackend *blk;

    make_base(base);
    memset(model, 0, MIXED * cluster);
    for (int64_t i = 0; i < base; i++) {
        model[i] = base_byte(i);
    }
    make_image_ok("a", options);
    blk = overlay(NULL);
    for (int i = 0; i < MIXED; i++) {
        make_kind(blk, g_random_int_range(0, KINDS), i * cluster, cluster,
                  model);
        if (i == MIXED / 3) {
            snapshot_ok(blk_bs(blk), "s");
        }
    }
    return blk;
}

static void expect_model(BlockBackend *blk, int64_t offset, int64_t bytes,
                         const uint8_t *model)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != model[offset + i]) {
            ck_abort_msg("byte %ld is %d, expected %d", (long)(offset + i),
                         buf[i], model[offset + i]);
        }
    }
}

static const struct {
    int64_t cluster;
    const char *create;
} mixed_cases[] = { { CLUSTER, "" }, { 16384, ",extended_l2=on" },
                    { 512 * 8, ",refcount_bits=64" } };

START_TEST(R63_runs_of_mixed_kinds_read_right_in_all_spans)
{
    int64_t cluster = mixed_cases[_i].cluster;
    g_autofree uint8_t *model = g_malloc(MIXED * cluster);
    BlockBackend *blk = make_mixed(cluster, mixed_cases[_i].create, model);
    int64_t unit = cluster / 2;

    for (int64_t from = 0; from < 2 * MIXED; from++) {
        for (int64_t to = from + 1; to <= 2 * MIXED; to++) {
            int64_t shift = (from + to) % 3;

            expect_model(blk, from * unit + shift,
                         (to - from) * unit - 2 * shift, model);
        }
    }
    check_sound(blk);
    close_backend(blk);
}
END_TEST

START_TEST(R65_status_says_zero_only_where_zeroes_are_read)
{
    int64_t cluster = mixed_cases[_i].cluster;
    g_autofree uint8_t *model = g_malloc(MIXED * cluster);
    BlockBackend *blk = make_mixed(cluster, mixed_cases[_i].create, model);

    for (int64_t at = 0; at < MIXED * cluster; at += SECTOR) {
        BlockExtent extent = status_at(blk, at, MIXED * cluster - at);

        ck_assert_int_gt(extent.bytes, 0);
        if (extent.status & BDRV_BLOCK_ZERO) {
            expect_fill(blk, at, extent.bytes, 0);
        } else {
            /* Where a map is given the bytes are there. */
            ck_assert(extent.status & BDRV_BLOCK_DATA);
        }
    }
    close_backend(blk);
}
END_TEST

/* --- copy-on-write -------------------------------------------------------- */

START_TEST(R64_writes_that_begin_and_end_inside_clusters_keep_the_rest)
{
    static const int into[] = { 0, 1, SECTOR, CLUSTER / 2, CLUSTER - 1 };
    int n = G_N_ELEMENTS(into);
    int64_t region = 7 * CLUSTER;
    int64_t disk = 4 * n * n * region;
    g_autofree char *options = g_strdup_printf("size=%ld,cluster_size=4k",
                                               (long)disk);
    BlockBackend *blk;

    make_base(disk);
    make_image_ok("a", options);
    blk = overlay(NULL);
    for (int i = 0; i < 4 * n * n; i++) {
        int64_t start = i * region + CLUSTER + into[i / 4 % n];
        int64_t end = i * region + (1 + 2 + i % 4) * CLUSTER -
                      into[i / 4 / n];

        fill(blk, start, end - start, 1);
        expect_base(blk, i * region, start - i * region);
        expect_fill(blk, start, end - start, 1);
        expect_base(blk, end, (i + 1) * region - end);
    }
    check_sound(blk);
    close_backend(blk);
}
END_TEST

START_TEST(R128_a_small_write_to_a_new_cluster_keeps_the_backing_data)
{
    static const char *const creates[] = {
        "size=64k,cluster_size=4k", "size=64k,cluster_size=16k,extended_l2=on",
        "size=64k,cluster_size=4k,compat=0.10", "size=64k,data_file=d",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(creates); i++) {
        BlockBackend *blk;

        make_base(64 << 10);
        make_image_ok("a", creates[i]);
        blk = overlay(NULL);
        fill(blk, 20001, 3, 1);
        expect_base(blk, 0, 20001);
        expect_fill(blk, 20001, 3, 1);
        expect_base(blk, 20004, (64 << 10) - 20004);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

START_TEST(R73_beyond_a_shorter_backing_file_all_is_zero)
{
    static const int shorter[] = { 512, CLUSTER / 2, CLUSTER,
                                   CLUSTER + 512, 3 * CLUSTER };

    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(shorter); i++) {
        int64_t disk = 8 * CLUSTER, edge = disk - shorter[i / 2];
        BlockBackend *blk;

        make_base(edge);
        make_image_ok("a", i % 2 ? "size=32k,cluster_size=16k,extended_l2=on"
                                 : "size=32k,cluster_size=4k");
        blk = overlay(NULL);
        expect_base(blk, 0, edge);
        expect_fill(blk, edge, disk - edge, 0);
        fill(blk, edge - 3, 1, 1); /* the copy goes over the edge */
        fill(blk, disk - 1, 1, 2);
        expect_base(blk, 0, edge - 3);
        expect_fill(blk, edge - 3, 1, 1);
        expect_base(blk, edge - 2, 2);
        expect_fill(blk, edge, disk - 1 - edge, 0);
        expect_fill(blk, disk - 1, 1, 2);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

/* --- zeroes and discards -------------------------------------------------- */

START_TEST(R127_zeroes_and_discards_never_show_the_backing_file)
{
    static const char *const creates[] = {
        "size=96k,cluster_size=4k", "size=96k,cluster_size=16k,extended_l2=on",
        "size=96k,cluster_size=4k,data_file=d",
    };
    static const char *const opens[] = { "pass-discard-request=off",
                                         "discard-no-unref=on" };
    g_autofree uint8_t *model = g_malloc(96 << 10);

    for (unsigned i = 0; i < 2 * 3 * KINDS * 3; i++) {
        Kind kind = i / 9 % KINDS;
        int64_t cluster = i % 3 == 1 ? 16384 : CLUSTER;
        BlockBackend *blk;

        if (i % 3 == 2 && kind == COMPRESSED) {
            continue;
        }
        make_base(96 << 10);
        make_image_ok("a", creates[i % 3]);
        blk = overlay(opens[i / 9 / KINDS]);
        make_kind(blk, kind, 0, cluster, model);
        make_kind(blk, kind, cluster, cluster, model);
        if (i % 3 != 2 && i % 2) {
            snapshot_ok(blk_bs(blk), "s");
        }
        if (i / 3 % 3 == 0) {
            ck_assert_int_eq(blk_pdiscard(blk, 0, 2 * cluster), 0);
        } else {
            ck_assert_int_eq(blk_pwrite_zeroes(
                blk, 0, 2 * cluster,
                i / 3 % 3 == 1 ? BDRV_REQ_MAY_UNMAP : 0), 0);
        }
        expect_fill(blk, 0, 2 * cluster, 0);
        expect_base(blk, 2 * cluster, cluster);
        fill(blk, 5, 1, 9);
        expect_fill(blk, 6, 2 * cluster - 6, 0);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

/* The image is opened without the backing file that it names, later with. */
START_TEST(zeroes_written_without_the_backing_file_hide_it)
{
    static const char *const creates[] = {
        "size=96k,cluster_size=4k", "size=96k,cluster_size=4k,compat=0.10",
        "size=96k,cluster_size=16k,extended_l2=on",
    };

    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(creates); i++) {
        g_autofree char *create = g_strdup_printf(
            "%s,backing_file=base,backing_fmt=raw", creates[i / 2]);
        unsigned flags = i % 2 ? BDRV_REQ_MAY_UNMAP : 0;
        BlockBackend *blk;

        make_base(96 << 10);
        make_image_ok("a", create);
        blk = alone();
        ck_assert_int_eq(blk_pwrite_zeroes(blk, 16 << 10, 32 << 10, flags), 0);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, 68 << 10, 4 << 10, flags), 0);
        check_sound(blk);
        close_backend(blk);
        blk = overlay(NULL);
        expect_base(blk, 0, 16 << 10);
        expect_fill(blk, 16 << 10, 32 << 10, 0);
        expect_base(blk, 48 << 10, 16 << 10);
        expect_fill(blk, 68 << 10, 4 << 10, 0);
        expect_base(blk, 80 << 10, 16 << 10);
        close_backend(blk);
    }
}
END_TEST

START_TEST(an_image_that_is_made_empty_shows_its_backing_file)
{
    static const char *const creates[] = {
        "size=96k,cluster_size=4k", "size=96k,cluster_size=16k,extended_l2=on",
        "size=96k,cluster_size=4k,data_file=d", "size=95k,cluster_size=16k",
    };
    g_autofree uint8_t *model = g_malloc(96 << 10);
    BlockBackend *blk;

    make_base(96 << 10);
    make_image_ok("a", creates[_i]);
    blk = overlay(NULL);
    make_kind(blk, DATA, 0, 16384, model);
    if (_i != 2) {
        make_kind(blk, COMPRESSED, 16384, 16384, model);
        snapshot_ok(blk_bs(blk), "s");
    }
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 64 << 10, 31 << 10, 0), 0);
    ck_assert_int_eq(bdrv_make_empty(blk_bs(blk), NULL), 0);
    expect_base(blk, 0, blk_getlength(blk));
    ck_assert_int_eq(blk_is_allocated(blk, 0, 95 << 10, &(int64_t){ 0 }), 2);
    if (_i != 2) {
        ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "s", NULL), 0);
        ck_assert_int_eq(blk_is_allocated(blk, 0, 32 << 10, &(int64_t){ 0 }),
                         1);
    }
    check_sound(blk);
    close_backend(blk);
}
END_TEST

START_TEST(R68_only_with_discard_no_unref_clusters_keep_their_place)
{
    for (unsigned i = 0; i < 6; i++) {
        bool keep = i % 2;
        BlockExtent before, now;
        BlockBackend *blk;

        make_image_ok("a", "size=1M,cluster_size=4k");
        blk = image_backend("a", keep ? "qcow2,discard=unmap,"
                                        "discard-no-unref=on"
                                      : "qcow2,discard=unmap");
        fill(blk, 0, 4 * CLUSTER, 7);
        before = status_at(blk, CLUSTER, 2 * CLUSTER);
        if (i / 2 == 0) {
            ck_assert_int_eq(blk_pdiscard(blk, CLUSTER, 2 * CLUSTER), 0);
        } else {
            ck_assert_int_eq(blk_pwrite_zeroes(
                blk, CLUSTER, 2 * CLUSTER,
                i / 2 == 1 ? BDRV_REQ_MAY_UNMAP : 0), 0);
        }
        now = status_at(blk, CLUSTER, 2 * CLUSTER);
        ck_assert(now.status & BDRV_BLOCK_ZERO);
        if (keep || i / 2 == 2) {
            ck_assert(now.status & BDRV_BLOCK_OFFSET_VALID);
            ck_assert_int_eq(now.map, before.map);
        } else {
            ck_assert(!(now.status & BDRV_BLOCK_OFFSET_VALID));
        }
        expect_fill(blk, CLUSTER, 2 * CLUSTER, 0);
        fill(blk, CLUSTER + 512, 512, 8);
        expect_fill(blk, 0, CLUSTER, 7);
        expect_fill(blk, CLUSTER, 512, 0);
        expect_fill(blk, CLUSTER + 1024, 2 * CLUSTER - 1024, 0);
        expect_fill(blk, 3 * CLUSTER, CLUSTER, 7);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

/* Who looked before may read the host cluster still: it would see data before
 * their write has ended, and who reads next the zeroes again. */
START_TEST(a_cluster_made_zero_gets_new_data_when_old_readers_are_gone)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        BlockExtent before, now;
        BlockBackend *blk;

        make_image_ok("a", "size=1M,cluster_size=4k");
        blk = image_backend("a", "qcow2,discard=unmap");
        fill(blk, 0, 4 * CLUSTER, 7);
        ck_assert_int_eq(blk_pwrite_zeroes(blk, CLUSTER, CLUSTER, 0), 0);
        before = status_at(blk, CLUSTER, CLUSTER);
        ck_assert(before.status & BDRV_BLOCK_OFFSET_VALID);
        if (flushed) {
            ck_assert_int_eq(blk_flush(blk), 0);
        }
        fill(blk, CLUSTER, 512, 8);
        now = status_at(blk, CLUSTER, 512);
        ck_assert((now.map == before.map) == flushed);
        expect_fill(blk, CLUSTER, 512, 8);
        expect_fill(blk, CLUSTER + 512, CLUSTER - 512, 0);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

START_TEST(zeroes_that_are_detected_give_clusters_back)
{
    BlockBackend *blk;

    make_base(64 << 10);
    make_image_ok("a", "size=64k,cluster_size=4k");
    blk = overlay("detect-zeroes=unmap");
    fill(blk, 0, 4 * CLUSTER, 7);
    fill(blk, CLUSTER, 2 * CLUSTER, 0);
    ck_assert_uint_eq(status_at(blk, CLUSTER, 2 * CLUSTER).status &
                          (BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID),
                      BDRV_BLOCK_ZERO);
    expect_fill(blk, CLUSTER, 2 * CLUSTER, 0);
    expect_fill(blk, 3 * CLUSTER, CLUSTER, 7);
    check_sound(blk);
    close_backend(blk);
}
END_TEST

/* --- space ---------------------------------------------------------------- */

START_TEST(R129_writing_again_and_again_does_not_make_the_file_grow)
{
    int64_t disk = 256 * CLUSTER;
    /* The data, a round of them that waits for write-back, and the one that
     * is being written; without flushes of the guest 4 MiB may wait. */
    int64_t bounds[] = { 2 * disk + (4 << 20) + (256 << 10), 3 * disk };

    for (unsigned i = 0; i < 2; i++) {
        BlockBackend *blk;

        make_image_ok("a", "size=1M,cluster_size=4k");
        blk = image_backend("a", "qcow2,discard=unmap");
        for (unsigned round = 0; round < 40; round++) {
            for (int64_t at = 0; at < disk; at += disk / 8) {
                fill(blk, at, disk / 8, round + 1);
                ck_assert_int_eq(blk_pdiscard(blk, at, disk / 8), 0);
            }
            fill(blk, 0, disk, round + 1);
            if (i == 1) {
                ck_assert_int_eq(blk_flush(blk), 0);
            }
        }
        ck_assert_int_le(file_length("a"), bounds[i]);
        expect_fill(blk, 0, disk, 40);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

START_TEST(R130_rewriting_compressed_clusters_leaks_nothing)
{
    g_autofree uint8_t *buf = g_malloc(32 * CLUSTER);
    BlockBackend *blk;

    make_image_ok("a", "size=128k,cluster_size=4k");
    blk = image_backend("a", "qcow2,discard=unmap");
    for (unsigned round = 0; round < 30; round++) {
        int64_t from = round % 5 * CLUSTER;

        /* Each cluster takes 2 to 3 KiB: every other one straddles. */
        for (int64_t i = 0; i < 32 * CLUSTER; i++) {
            buf[i] = i % CLUSTER < 2000 + round * 30 ? g_random_int() : 1;
        }
        ck_assert_int_eq(blk_pwrite(blk, from, 32 * CLUSTER - from, buf + from,
                                    BDRV_REQ_WRITE_COMPRESSED), 0);
        expect_model(blk, from, 32 * CLUSTER - from, buf);
        if (round % 3 == 0) {
            fill(blk, 8 * CLUSTER + 100, 5 * CLUSTER, round);
            expect_fill(blk, 8 * CLUSTER + 100, 5 * CLUSTER, round);
            expect_model(blk, 8 * CLUSTER, 100, buf);
        }
        if (round % 2) {
            check_sound(blk);
        }
    }
    ck_assert_int_le(file_length("a"), 3 * 32 * CLUSTER + 16 * CLUSTER);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(R131_an_entry_that_names_the_header_is_never_written_through)
{
    g_autofree char *header = NULL, *now = NULL;
    uint8_t buf[SECTOR] = { 1 };
    BlockBackend *blk;
    uint64_t l2;
    gsize bytes;

    make_image_ok("a", "size=1M,cluster_size=4k");
    blk = image_backend("a", NULL);
    fill(blk, 0, CLUSTER, 7);
    close_backend(blk);
    l2 = peek64("a", peek64("a", 40)) & QCOW2_OFFSET_MASK;
    for (unsigned i = 0; i < 2; i++) {
        patch64("a", l2, QCOW2_OFLAG_COPIED | (i ? QCOW2_OFLAG_ZERO : 0));
        header = slurp("a", &bytes);
        blk = image_backend("a", NULL);
        if (i == 0) {
            /* Nobody's cluster: refused, or given a new one. */
            blk_pwrite(blk, 0, SECTOR, buf, 0);
        } else {
            fill(blk, SECTOR, SECTOR, 7);
        }
        now = slurp("a", &bytes);
        ck_assert_mem_eq(now, header, 72); /* all but feature bits */
        ck_assert_mem_eq(now + 104, header + 104, CLUSTER - 104);
        close_backend(blk);
        g_clear_pointer(&header, g_free);
        g_clear_pointer(&now, g_free);
    }
}
END_TEST

/* --- faults --------------------------------------------------------------- */

/* The image "a" with requests to the file, or to the data file, that fail. */
static BlockBackend *failing_image(bool data_file)
{
    BlockOptions *options = faulty_options("a", "qcow2,discard=unmap");
    g_autofree char *data = path_of("d");
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;

    if (data_file) {
        block_options_set_str(options, "data-file.driver", "faulty");
        block_options_set_str(options, "data-file.file.driver", "file");
        block_options_set_str(options, "data-file.file.filename", data);
    }
    faulty_clear();
    bs = bdrv_open(graph, options, &error);
    ck_assert_msg(bs != NULL, "%s", error ? error->message : "");
    return backend_of(bs);
}

START_TEST(R60_a_write_that_fails_frees_no_cluster_that_was_there_before)
{
    static const char *const creates[] = {
        "size=64k,cluster_size=4k,preallocation=metadata",
        "size=64k,cluster_size=16k,extended_l2=on,preallocation=metadata",
        "size=64k,cluster_size=4k,preallocation=metadata,data_file=d",
        "size=64k,cluster_size=4k,data_file=d",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(creates); i++) {
        uint8_t buf[SECTOR] = { 1 };
        BlockExtent before, now;
        BlockBackend *blk;

        make_image_ok("a", creates[i]);
        blk = failing_image(i >= 2);
        fill(blk, 8 * CLUSTER, SECTOR, 7);
        ck_assert_int_eq(blk_flush(blk), 0);
        before = status_at(blk, 0, CLUSTER);
        faulty_set(FAULTY_CHANGES, 1, 1);
        ck_assert_int_eq(blk_pwrite(blk, SECTOR, SECTOR, buf, 0), -EIO);
        ck_assert(faulty_has_failed());
        faulty_clear();
        now = status_at(blk, 0, CLUSTER);
        ck_assert_uint_eq(now.status, before.status);
        ck_assert_int_eq(now.map, before.map);
        expect_fill(blk, 0, 8 * CLUSTER, 0);
        expect_fill(blk, 8 * CLUSTER, SECTOR, 7);
        check_sound(blk);
        fill(blk, SECTOR, SECTOR, 2);
        fill(blk, 4 * CLUSTER, 4 * CLUSTER, 3);
        expect_fill(blk, SECTOR, SECTOR, 2);
        expect_fill(blk, 2 * SECTOR, CLUSTER, 0);
        check_sound(blk);
        close_backend(blk);
    }
}
END_TEST

/* Work that makes tables, copies clusters and gives clusters up; after a
 * failure each byte of a cluster is old or new. */
static bool work_until_failure(BlockBackend *blk)
{
    static uint8_t buf[40 * SECTOR];

    memset(buf, 2, sizeof(buf));
    return blk_pwrite(blk, 5 * SECTOR + 100, 30 * SECTOR, buf, 0) == 0 &&
           blk_pwrite(blk, 3000 * SECTOR, 8 * SECTOR, buf, 0) == 0 &&
           blk_pdiscard(blk, 60 * SECTOR, 20 * SECTOR) == 0 &&
           blk_pwrite_zeroes(blk, 100 * SECTOR, 9 * SECTOR, 0) == 0 &&
           blk_flush(blk) == 0 &&
           blk_pwrite(blk, 62 * SECTOR, 4 * SECTOR, buf, 0) == 0 &&
           blk_pwrite(blk, 3100 * SECTOR, 40 * SECTOR, buf, 0) == 0 &&
           blk_flush(blk) == 0;
}

START_TEST(R125_whichever_request_fails_no_live_cluster_is_free)
{
    for (int n = 1;; n++) {
        BdrvCheckResult result;
        BlockBackend *blk;
        bool worked;

        make_image_ok("a", "size=2M,cluster_size=512");
        blk = image_backend("a", NULL);
        fill(blk, 0, 128 * SECTOR, 7);
        snapshot_ok(blk_bs(blk), "s");
        close_backend(blk);
        blk = failing_image(false);
        faulty_set((_i & 1 ? FAULTY_CHANGES : 0) |
                       (_i & 2 ? FAULTY_READS : 0), n, 1);
        worked = work_until_failure(blk);
        worked = worked && !faulty_has_failed();
        faulty_clear();
        expect_fill(blk, 0, 5 * SECTOR + 100, 7);
        expect_fill(blk, 40 * SECTOR, 20 * SECTOR, 7);
        expect_fill(blk, 80 * SECTOR, 20 * SECTOR, 7);
        expect_fill(blk, 109 * SECTOR, 19 * SECTOR, 7);
        result = check_of(blk_bs(blk));
        ck_assert_int_eq(result.corruptions, 0);
        fill(blk, 0, 128 * SECTOR, 3);
        ck_assert_int_eq(blk_flush(blk), 0);
        close_backend(blk);
        blk = image_backend("a", NULL);
        expect_fill(blk, 0, 128 * SECTOR, 3);
        result = check_of(blk_bs(blk));
        ck_assert_int_eq(result.corruptions, 0);
        close_backend(blk);
        if (worked) {
            ck_assert_int_gt(n, 4);
            break;
        }
    }
}
END_TEST

/* --- data files ----------------------------------------------------------- */

START_TEST(R70_guest_data_go_to_the_data_file_and_nothing_else_does)
{
    BlockDriverState *meta = open_ok("mem,node-name=meta,size=0");
    BlockDriverState *data = open_ok("mem,node-name=data,size=0");
    MemDisk *m = mem_disk(meta), *d = mem_disk(data);
    g_autoptr(GError) error = NULL;
    uint8_t buf[CLUSTER] = { 0 };
    BlockBackend *blk;
    unsigned changes;

    ck_assert_msg(bdrv_create(graph, opts("qcow2,file=meta,data-file=data,"
                                          "data_file=d,size=64k,"
                                          "cluster_size=4k"), &error) == 0,
                  "%s", error ? error->message : "");
    blk = backend_of(open_ok("qcow2,file=meta,data-file=data,discard=unmap"));
    fill(blk, 5, 3 * CLUSTER, 0xa5);
    ck_assert_int_eq(blk_flush(blk), 0);
    changes = mem_total(m);
    fill(blk, CLUSTER, CLUSTER, 0xa6); /* in place: the data file alone */
    ck_assert_uint_eq(mem_total(m), changes);
    for (int64_t i = 0; i < 64 << 10; i += CLUSTER) {
        ck_assert_int_eq(blk_pread(blk, i, CLUSTER, buf, 0), 0);
        if (buf[CLUSTER - 1]) {
            ck_assert_mem_eq(d->data + i, buf, CLUSTER);
        }
    }
    for (int64_t i = 0; i + SECTOR < m->length; i++) {
        ck_assert(m->data[i] != 0xa5 || m->data[i + 7] != 0xa5);
        i += SECTOR - 1;
    }
    ck_assert_int_le(d->length, 64 << 10);
    ck_assert_int_eq(blk_pwrite(blk, 0, CLUSTER, buf,
                                BDRV_REQ_WRITE_COMPRESSED), -ENOTSUP);
    ck_assert_int_eq(blk_pdiscard(blk, 0, CLUSTER), 0);
    ck_assert_uint_eq(m->count[MEM_DISCARD], 0);
    expect_fill(blk, 0, CLUSTER, 0);
    check_sound(blk);
    close_backend(blk);
    bdrv_unref(meta);
    bdrv_unref(data);
}
END_TEST

/* --- lazy refcounts ------------------------------------------------------- */

START_TEST(an_image_with_lazy_refcounts_is_clean_when_it_is_closed)
{
    BlockBackend *blk;

    make_image_ok("a", "size=1M,cluster_size=4k,lazy_refcounts=on");
    blk = image_backend("a", NULL);
    fill(blk, 0, 100 * CLUSTER, 7);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE) & 1, 1);
    close_backend(blk);
    ck_assert_uint_eq(peek64("a", QCOW2_H_INCOMPATIBLE), 0);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

START_TEST(an_image_with_lazy_refcounts_that_was_not_closed_is_repaired)
{
    g_autofree char *content = NULL;
    BlockBackend *blk;
    gsize bytes;

    make_image_ok("a", "size=1M,cluster_size=4k,lazy_refcounts=on");
    blk = image_backend("a", "qcow2,discard=unmap");
    fill(blk, 0, 100 * CLUSTER, 7);
    ck_assert_int_eq(blk_pdiscard(blk, 10 * CLUSTER, 20 * CLUSTER), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    content = slurp("a", &bytes);
    close_backend(blk);
    unslurp("a", content, bytes);
    blk = image_backend("a", NULL);
    expect_fill(blk, 0, 10 * CLUSTER, 7);
    expect_fill(blk, 10 * CLUSTER, 20 * CLUSTER, 0);
    expect_fill(blk, 30 * CLUSTER, 70 * CLUSTER, 7);
    check_sound(blk);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* --- the suite ------------------------------------------------------------ */

static void add_requests(TCase *tcase)
{
    tcase_add_loop_test(tcase, R63_runs_of_mixed_kinds_read_right_in_all_spans,
                        0, G_N_ELEMENTS(mixed_cases));
    tcase_add_loop_test(tcase, R65_status_says_zero_only_where_zeroes_are_read,
                        0, G_N_ELEMENTS(mixed_cases));
    PROMISE(tcase, R64_writes_that_begin_and_end_inside_clusters_keep_the_rest);
    PROMISE(tcase, R128_a_small_write_to_a_new_cluster_keeps_the_backing_data);
    PROMISE(tcase, R73_beyond_a_shorter_backing_file_all_is_zero);
    PROMISE(tcase, R127_zeroes_and_discards_never_show_the_backing_file);
    PROMISE(tcase, zeroes_written_without_the_backing_file_hide_it);
    tcase_add_loop_test(
        tcase, an_image_that_is_made_empty_shows_its_backing_file, 0, 4);
    PROMISE(tcase, R68_only_with_discard_no_unref_clusters_keep_their_place);
    PROMISE(tcase, a_cluster_made_zero_gets_new_data_when_old_readers_are_gone);
    PROMISE(tcase, zeroes_that_are_detected_give_clusters_back);
}

static void add_space_and_faults(TCase *tcase)
{
    PROMISE(tcase, R129_writing_again_and_again_does_not_make_the_file_grow);
    PROMISE(tcase, R130_rewriting_compressed_clusters_leaks_nothing);
    PROMISE(tcase,
            R131_an_entry_that_names_the_header_is_never_written_through);
    PROMISE(tcase,
            R60_a_write_that_fails_frees_no_cluster_that_was_there_before);
    tcase_add_loop_test(tcase,
                        R125_whichever_request_fails_no_live_cluster_is_free,
                        1, 4);
}

static void add_others(TCase *tcase)
{
    PROMISE(tcase, R70_guest_data_go_to_the_data_file_and_nothing_else_does);
    PROMISE(tcase, an_image_with_lazy_refcounts_is_clean_when_it_is_closed);
    PROMISE(tcase,
            an_image_with_lazy_refcounts_that_was_not_closed_is_repaired);
}

int main(void)
{
    Suite *suite = suite_create("qcow2-io");
    TCase *tcase = tcase_create("qcow2-io");

    mem_register();
    register_pass_driver();
    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 100);
    add_requests(tcase);
    add_space_and_faults(tcase);
    add_others(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
