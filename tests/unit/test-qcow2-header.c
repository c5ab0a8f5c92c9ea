/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image-fixture.h"

/* The image of each test, as it was made. */
static char *good;
static gsize good_bytes;

static void setup(void)
{
    file_setup();
    make_image_ok("a", "size=1M");
    good = slurp("a", &good_bytes);
}

static void teardown(void)
{
    g_clear_pointer(&good, g_free);
    file_teardown();
}

static void restore(void)
{
    unslurp("a", good, good_bytes);
}

/* With a field of 4 bytes changed it must not open. */
static void refused32(unsigned field, uint32_t value, const char *message)
{
    restore();
    patch32("a", field, value);
    image_fails("a", "read-only=on", 0, message);
}

static void refused64(unsigned field, uint64_t value, const char *message)
{
    restore();
    patch64("a", field, value);
    image_fails("a", "read-only=on", 0, message);
}

/* Append header extensions: pairs of magic and text; closes the list. */
static void add_extension(uint32_t magic, const void *data, uint32_t bytes)
{
    restore();
    patch32("a", QCOW2_H_BYTES, magic);
    patch32("a", QCOW2_H_BYTES + 4, bytes);
    patch_file("a", QCOW2_H_BYTES + 8, data, bytes);
    patch64("a", QCOW2_H_BYTES + 8 + (bytes + 7) / 8 * 8, 0);
}

START_TEST(only_cluster_sizes_of_the_format_are_taken_R15)
{
    for (uint32_t bits = 0; bits < 256; bits++) {
        if (bits < QCOW2_MIN_CLUSTER_BITS || bits > QCOW2_MAX_CLUSTER_BITS) {
            refused32(QCOW2_H_CLUSTER_BITS, bits, "clusters of 2^");
        }
    }
    refused32(QCOW2_H_CLUSTER_BITS, UINT32_MAX, "clusters of 2^");
}
END_TEST

START_TEST(only_versions_2_and_3_are_taken)
{
    refused32(QCOW2_H_VERSION, 0, "version 0");
    refused32(QCOW2_H_VERSION, 1, "version 1");
    refused32(QCOW2_H_VERSION, 4, "version 4");
    refused32(QCOW2_H_MAGIC, 0x514649fa, "not of format qcow2");
}
END_TEST

/* Its header lays out sizes and tables differently: nothing of it is used. */
START_TEST(R6_an_image_of_qcow_version_1_is_refused_with_a_clear_text)
{
    uint8_t head[48] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 1 };
    static const uint64_t sizes[] = { 1 << 20, UINT64_MAX, INT64_MAX, 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (unsigned bits = 0; bits < 256; bits += 51) {
            be_put64(head + 24, sizes[i]);
            head[32] = bits;        /* of a cluster */
            head[33] = 255 - bits;  /* of an L2 table */
            be_put64(head + 40, UINT64_MAX - bits);
            restore();
            patch_file("a", 0, head, sizeof(head));
            image_fails("a", "read-only=on", ENOTSUP, "version 1");
            image_fails("a", NULL, ENOTSUP, "version 1");
        }
    }
    /* Neither does it matter what follows, or that nothing does. */
    unslurp("a", (char *)head, sizeof(head));
    image_fails("a", "read-only=on", 0, "");
}
END_TEST

START_TEST(counts_of_zero_are_refused_where_something_must_be_R9)
{
    refused32(QCOW2_H_REFTABLE_CLUSTERS, 0, "no refcount table");
    refused32(QCOW2_H_L1_SIZE, 0, "too small");
    refused64(QCOW2_H_REFTABLE_OFFSET, 0, "would lie in the header");
    refused64(QCOW2_H_L1_OFFSET, 0, "would lie in the header");
}
END_TEST

START_TEST(counts_are_bounded_before_memory_is_taken_R2)
{
    static const uint32_t large[] = { UINT32_MAX, INT32_MAX,
                                      (uint32_t)INT32_MAX + 1, 1u << 30,
                                      QCOW2_MAX_L1_BYTES / 8 + 1 };

    for (unsigned i = 0; i < G_N_ELEMENTS(large); i++) {
        refused32(QCOW2_H_L1_SIZE, large[i], "too large");
        refused32(QCOW2_H_REFTABLE_CLUSTERS, large[i], "too large");
        refused32(QCOW2_H_NB_SNAPSHOTS, large[i], "too many");
    }
    /* As large as the limit, but not in the file. */
    refused32(QCOW2_H_L1_SIZE, QCOW2_MAX_L1_BYTES / 8, "");
    refused32(QCOW2_H_REFTABLE_CLUSTERS, QCOW2_MAX_REFTABLE_BYTES >> 16, "");
}
END_TEST

START_TEST(sizes_and_offsets_at_the_limits_of_their_types_are_refused_R1)
{
    static const uint64_t values[] = {
        UINT64_MAX, INT64_MAX, (uint64_t)INT64_MAX + 1,
        UINT64_MAX - 65535, INT64_MAX - 65535, UINT64_C(1) << 62,
        UINT64_C(1) << 56,
    };
    static const unsigned fields[] = {
        QCOW2_H_SIZE, QCOW2_H_L1_OFFSET, QCOW2_H_REFTABLE_OFFSET,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(fields); j++) {
            refused64(fields[j], values[i], "image");
        }
        restore();
        patch32("a", QCOW2_H_NB_SNAPSHOTS, 1);
        patch64("a", QCOW2_H_SNAPSHOTS_OFFSET, values[i]);
        image_fails("a", "read-only=on", 0, "snapshot table");
        restore();
        patch32("a", QCOW2_H_BACKING_SIZE, 5);
        patch64("a", QCOW2_H_BACKING_OFFSET, values[i]);
        image_fails("a", "read-only=on", 0, "not in the first cluster");
    }
}
END_TEST

START_TEST(tables_that_are_not_aligned_are_refused_R11)
{
    static const unsigned off[] = { 1, 8, 512, 65535 };

    for (unsigned i = 0; i < G_N_ELEMENTS(off); i++) {
        refused64(QCOW2_H_L1_OFFSET, 0x30000 + off[i], "not aligned");
        refused64(QCOW2_H_REFTABLE_OFFSET, 0x10000 + off[i], "not aligned");
        restore();
        patch32("a", QCOW2_H_NB_SNAPSHOTS, 1);
        patch64("a", QCOW2_H_SNAPSHOTS_OFFSET, 0x10000 + off[i]);
        image_fails("a", "read-only=on", EINVAL, "not aligned");
    }
    refused64(QCOW2_H_L1_OFFSET, 0x10000, "overlap");
}
END_TEST

START_TEST(a_header_length_that_cannot_be_is_refused)
{
    refused32(QCOW2_H_HEADER_LENGTH, 0, "header length");
    refused32(QCOW2_H_HEADER_LENGTH, 96, "header length");
    refused32(QCOW2_H_HEADER_LENGTH, 105, "header length");
    refused32(QCOW2_H_HEADER_LENGTH, 65536 + 8, "header length");
    refused32(QCOW2_H_HEADER_LENGTH, UINT32_MAX - 7, "header length");
    refused32(QCOW2_H_REFCOUNT_ORDER, 7, "2^7 bits");
    refused32(QCOW2_H_REFCOUNT_ORDER, UINT32_MAX, "refcounts of 2^");
}
END_TEST

START_TEST(encrypted_images_are_refused_with_a_clear_text)
{
    refused32(QCOW2_H_CRYPT_METHOD, 1, "encrypted (AES");
    refused32(QCOW2_H_CRYPT_METHOD, 2, "encrypted (LUKS)");
    refused32(QCOW2_H_CRYPT_METHOD, 3, "does not exist");
    add_extension(QCOW2_EXT_CRYPTO, "0123456789abcdef", 16);
    image_fails("a", NULL, ENOTSUP, "LUKS");
}
END_TEST

START_TEST(unknown_incompatible_features_are_refused_by_name_R132)
{
    uint8_t table[2][48] = { { 0, 7, 'w', 'a', 'r', 'p' },
                             { 1, 8, 'n', 'o' } };

    for (unsigned bit = 5; bit < 64; bit++) {
        g_autofree char *text = g_strdup_printf("number %u", bit);

        refused64(QCOW2_H_INCOMPATIBLE, UINT64_C(1) << bit, text);
        for (unsigned other = 5; other < bit; other += 7) {
            refused64(QCOW2_H_INCOMPATIBLE,
                      UINT64_C(1) << bit | UINT64_C(1) << other, text);
        }
    }
    add_extension(QCOW2_EXT_FEATURE_TABLE, table, sizeof(table));
    patch64("a", QCOW2_H_INCOMPATIBLE, 1 << 7 | 1 << 8);
    image_fails("a", NULL, ENOTSUP, "'warp', number 8");
}
END_TEST

START_TEST(unknown_compatible_features_do_not_matter_R132)
{
    for (unsigned bit = 1; bit < 64; bit++) {
        restore();
        patch64("a", QCOW2_H_COMPATIBLE, UINT64_C(1) << bit);
        bdrv_unref(image_open("a", NULL));
        ck_assert_uint_eq(peek64("a", QCOW2_H_COMPATIBLE), UINT64_C(1) << bit);
    }
}
END_TEST

START_TEST(contradictions_between_features_are_refused)
{
    uint8_t zstd = 1, other = 9;

    refused64(QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_COMPRESSION, "contradict");
    restore();
    patch_file("a", QCOW2_H_COMPRESSION, &zstd, 1);
    image_fails("a", NULL, EINVAL, "contradict");
    restore();
    patch_file("a", QCOW2_H_COMPRESSION, &other, 1);
    image_fails("a", NULL, ENOTSUP, "compression type 9");
    make_image_ok("a", "size=1M,cluster_size=4k");
    patch64("a", QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_EXTL2);
    image_fails("a", NULL, EINVAL, "too small for extended L2");
}
END_TEST

START_TEST(extensions_that_make_no_sense_are_refused)
{
    uint8_t bitmaps[24] = { 0 };

    add_extension(0x12345678, "x", 1);
    patch32("a", QCOW2_H_BYTES + 4, 65536);
    image_fails("a", NULL, EINVAL, "passes the end");
    patch32("a", QCOW2_H_BYTES + 4, UINT32_MAX);
    image_fails("a", NULL, EINVAL, "passes the end");
    add_extension(QCOW2_EXT_BACKING_FORMAT, "0123456789abcdef", 16);
    image_fails("a", NULL, EINVAL, "too long");
    add_extension(QCOW2_EXT_BACKING_FORMAT, "qc\0w2", 5);
    image_fails("a", NULL, EINVAL, "NUL");
    add_extension(QCOW2_EXT_BITMAPS, bitmaps, 23);
    patch64("a", QCOW2_H_AUTOCLEAR, QCOW2_AUTOCLEAR_BITMAPS);
    image_fails("a", NULL, EINVAL, "malformed");
    add_extension(QCOW2_EXT_BITMAPS, bitmaps, 24);
    patch64("a", QCOW2_H_AUTOCLEAR, QCOW2_AUTOCLEAR_BITMAPS);
    image_fails("a", NULL, EINVAL, "0 bitmaps");
    be_put32(bitmaps, 65536);
    add_extension(QCOW2_EXT_BITMAPS, bitmaps, 24);
    patch64("a", QCOW2_H_AUTOCLEAR, QCOW2_AUTOCLEAR_BITMAPS);
    image_fails("a", NULL, EINVAL, "65536 bitmaps");
}
END_TEST

START_TEST(a_backing_name_stays_in_the_first_cluster_R2)
{
    static const struct {
        uint64_t offset;
        uint32_t bytes;
        const char *message;
    } cases[] = {
        { 65536, 1, "not in the first cluster" },
        { 65530, 7, "not in the first cluster" },
        { 8, 8, "not in the first cluster" },
        { 1024, 1024, "too long" },
        { 1024, UINT32_MAX, "too long" },
        { 1024, 4, "NUL" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        restore();
        patch64("a", QCOW2_H_BACKING_OFFSET, cases[i].offset);
        patch32("a", QCOW2_H_BACKING_SIZE, cases[i].bytes);
        image_fails("a", NULL, EINVAL, cases[i].message);
    }
}
END_TEST

/* A power cut may leave the first sector of the old header with what stands
 * behind that of the new one. */
START_TEST(the_old_name_of_the_backing_file_is_not_written_over)
{
    static const char *const names[] = { "one", "another", "a third one", "4" };
    BlockDriverState *bs = image_open("a", NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        gsize bytes;
        g_autofree char *before = slurp("a", &bytes);
        g_autofree char *after = NULL;
        uint64_t offset = own_be64(before + QCOW2_H_BACKING_OFFSET);
        uint32_t length = own_be32(before + QCOW2_H_BACKING_SIZE);

        ck_assert_uint_eq(length, i == 0 ? 0 : strlen(names[i - 1]));
        ck_assert_int_eq(bdrv_change_backing_file(bs, names[i], "raw", NULL),
                         0);
        after = slurp("a", &bytes);
        ck_assert_mem_eq(after + offset, before + offset, length);
    }
    bdrv_unref(bs);
}
END_TEST

/* What we do not know is written back byte for byte. */
START_TEST(unknown_fields_and_extensions_survive_a_rewrite)
{
    static const char data[] = "what is this?";
    uint8_t head[64] = { 0 };
    gsize bytes;
    g_autofree char *after = NULL;
    BlockBackend *blk;
    BlockDriverState *bs;
    g_autoptr(GError) error = NULL;

    restore();
    /* 16 bytes of fields behind ours, then an extension. */
    memcpy(head, "unknown fields!!", 16);
    be_put32(head + 16, 0x42424242);
    be_put32(head + 20, sizeof(data));
    memcpy(head + 24, data, sizeof(data));
    patch_file("a", QCOW2_H_BYTES, head, sizeof(head));
    patch32("a", QCOW2_H_HEADER_LENGTH, QCOW2_H_BYTES + 16);
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_change_backing_file(bs, NULL, NULL, &error), 0);
    bdrv_unref(bs);
    after = slurp("a", &bytes);
    ck_assert_mem_eq(after + QCOW2_H_BYTES, "unknown fields!!", 16);
    ck_assert_ptr_nonnull(memmem(after, 65536, head + 16, 8 + sizeof(data)));
    ck_assert_ptr_nonnull(memmem(after, 65536, "extended L2 entries", 19));
    blk = image_backend("a", NULL);
    fill(blk, 0, 512, 1);
    close_backend(blk);
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

/* Sizes, clusters and widths that are legal but absurd stay in bounds. */
START_TEST(absurd_geometry_costs_little_or_is_refused_R17)
{
    static const int64_t sizes[] = { 0, 512, INT64_C(1) << 32,
                                     INT64_C(1) << 50, INT64_C(1) << 61 };

    for (uint32_t bits = 9; bits <= 21; bits++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
            for (uint32_t order = 0; order <= 6; order += 3) {
                g_autoptr(GError) error = NULL;
                BlockDriverState *bs;

                restore();
                patch32("a", QCOW2_H_CLUSTER_BITS, bits);
                patch64("a", QCOW2_H_SIZE, sizes[i]);
                patch32("a", QCOW2_H_REFCOUNT_ORDER, order);
                patch32("a", QCOW2_H_L1_SIZE, QCOW2_MAX_L1_BYTES / 8);
                bs = bdrv_open(graph, image_options("a", "read-only=on"),
                               &error);
                ck_assert((bs != NULL) != (error != NULL));
                bdrv_unref(bs);
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-header");
    TCase *tcase = tcase_create("qcow2-header");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, only_cluster_sizes_of_the_format_are_taken_R15);
    PROMISE(tcase, only_versions_2_and_3_are_taken);
    PROMISE(tcase, R6_an_image_of_qcow_version_1_is_refused_with_a_clear_text);
    PROMISE(tcase, counts_of_zero_are_refused_where_something_must_be_R9);
    PROMISE(tcase, counts_are_bounded_before_memory_is_taken_R2);
    PROMISE(tcase,
            sizes_and_offsets_at_the_limits_of_their_types_are_refused_R1);
    PROMISE(tcase, tables_that_are_not_aligned_are_refused_R11);
    PROMISE(tcase, a_header_length_that_cannot_be_is_refused);
    PROMISE(tcase, encrypted_images_are_refused_with_a_clear_text);
    PROMISE(tcase, unknown_incompatible_features_are_refused_by_name_R132);
    PROMISE(tcase, unknown_compatible_features_do_not_matter_R132);
    PROMISE(tcase, contradictions_between_features_are_refused);
    PROMISE(tcase, extensions_that_make_no_sense_are_refused);
    PROMISE(tcase, a_backing_name_stays_in_the_first_cluster_R2);
    PROMISE(tcase, the_old_name_of_the_backing_file_is_not_written_over);
    PROMISE(tcase, unknown_fields_and_extensions_survive_a_rewrite);
    PROMISE(tcase, absurd_geometry_costs_little_or_is_refused_R17);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
