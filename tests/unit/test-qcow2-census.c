/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image with everything a header can name, and each operation on it: what
 * the operation is not about must be there afterwards as it was before.
 */
#include "image-fixture.h"

#define CLUSTER 65536
#define UNKNOWN_MAGIC 0x42424242u
#define UNKNOWN_COMPATIBLE (UINT64_C(1) << 40)

static const char unknown[16] = "what is this?!!";

/* --- the image ------------------------------------------------------------ */

/* Behind the header as it was made comes an extension that nobody knows. */
static void add_unknown(void)
{
    uint8_t head[8 + sizeof(unknown)];
    gsize bytes;
    g_autofree char *image = slurp("a", &bytes);
    uint32_t length = own_be32((uint8_t *)image + QCOW2_H_HEADER_LENGTH);

    be_put32(head, UNKNOWN_MAGIC);
    be_put32(head + 4, sizeof(unknown));
    memcpy(head + 8, unknown, sizeof(unknown));
    /* All others, and the backing name, move up. */
    patch_file("a", length, head, sizeof(head));
    patch_file("a", length + sizeof(head), image + length, 2048);
    patch64("a", QCOW2_H_BACKING_OFFSET,
            peek64("a", QCOW2_H_BACKING_OFFSET) + sizeof(head));
    patch64("a", QCOW2_H_COMPATIBLE,
            peek64("a", QCOW2_H_COMPATIBLE) | UNKNOWN_COMPATIBLE);
}

static void make_full_image(void)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;

    make_image_ok("base", "size=4M");
    make_image_ok("other", "size=4M");
    make_image_ok("a", "backing_file=base,backing_fmt=qcow2,"
                       "lazy_refcounts=on,compression_type=zstd");
    add_unknown();
    blk = image_backend("a", NULL);
    fill(blk, CLUSTER, CLUSTER, 1);
    snapshot_ok(blk_bs(blk), "first");
    fill(blk, CLUSTER, 512, 2);
    close_backend(blk);
    bs = image_open("a", NULL);
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "one", CLUSTER, &error), 0);
    ck_assert_int_eq(bdrv_stored_bitmap_add(bs, "two", 4096, &error), 0);
    bdrv_unref(bs);
}

/* --- the census ----------------------------------------------------------- */

static void count_snapshots(BlockDriverState *bs, GString *text)
{
    g_autoptr(GPtrArray) list = NULL;

    ck_assert_int_eq(bdrv_snapshot_list(bs, &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        BdrvSnapshotInfo *s = g_ptr_array_index(list, i);

        g_string_append_printf(text, "snapshot %s %s %u %ld\n", s->id,
                               s->name, s->date_sec, (long)s->disk_bytes);
    }
}

static void count_bitmaps(BlockDriverState *bs, GString *text)
{
    g_autoptr(GPtrArray) list = NULL;

    ck_assert_int_eq(bdrv_stored_bitmap_list(bs, &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        BdrvStoredBitmap *b = g_ptr_array_index(list, i);

        g_string_append_printf(text, "bitmap %s %d in-use=%d auto=%d bad=%d\n",
                               b->name, (int)b->granularity, b->in_use,
                               b->autoload, b->inconsistent);
    }
}

static void count_info(BlockDriverState *bs, GString *text)
{
    static const char *const keys[] = {
        "compat", "compression-type", "refcount-bits", "lazy-refcounts",
        "corrupt", "extended-l2", "data-file", "data-file-raw",
    };
    g_autoptr(BlockOptions) info = NULL;
    g_autofree char *json = NULL;

    ck_assert_int_eq(bdrv_get_specific_info(bs, &info, NULL), 0);
    json = block_options_to_json(info);
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autofree char *key = g_strdup_printf("\"%s\": ", keys[i]);
        const char *at = strstr(json, key);

        at = at ? at + strlen(key) : "none";
        g_string_append_printf(text, "%s %.*s\n", keys[i],
                               (int)strcspn(at, ",}"), at);
    }
}

/* A number for [@offset, +@bytes) of @image; zeroes behind do not count. */
static unsigned sum_of(const char *image, gsize length, gsize offset,
                       gsize bytes)
{
    unsigned sum = 0;

    for (gsize i = offset; i < MIN(offset + bytes, length); i++) {
        sum += (uint8_t)image[i] * (i - offset + 1) * 2654435761u;
    }
    return sum;
}

/* The same for the feature name table; 0 if there is none. */
static unsigned sum_of_names(const char *image)
{
    const uint8_t *at = (const uint8_t *)image +
                        own_be32((const uint8_t *)image +
                                 QCOW2_H_HEADER_LENGTH);

    while (own_be32(at) != QCOW2_EXT_FEATURE_TABLE) {
        if (own_be32(at) == QCOW2_EXT_END) {
            return 0;
        }
        at += 8 + (own_be32(at + 4) + 7) / 8 * 8;
    }
    return sum_of((const char *)at, CLUSTER / 2, 8, own_be32(at + 4));
}

/* What is in the file itself, where nothing of ours interprets it. */
static void count_bytes(GString *text)
{
    gsize bytes;
    g_autofree char *image = slurp("a", &bytes);
    uint8_t head[8];
    char *at;

    be_put32(head, UNKNOWN_MAGIC);
    be_put32(head + 4, sizeof(unknown));
    at = memmem(image, CLUSTER, head, sizeof(head));
    g_string_append_printf(text, "extension %d\n",
                           at && memcmp(at + 8, unknown, 16) == 0);
    g_string_append_printf(text, "feature %d\n",
                           (peek64("a", QCOW2_H_COMPATIBLE) &
                            UNKNOWN_COMPATIBLE) != 0);
    g_string_append_printf(text, "names %u\n", sum_of_names(image));
    g_string_append_printf(text, "snapshot table %u\n",
                           sum_of(image, bytes,
                                  peek64("a", QCOW2_H_SNAPSHOTS_OFFSET),
                                  CLUSTER));
}

/* A line for each feature of the image that has been closed. */
static char **take_census(void)
{
    GString *text = g_string_new(NULL);
    BlockBackend *blk = image_backend("a", "read-only=on");
    BlockDriverState *bs = blk_bs(blk);
    g_autofree char *file = NULL, *format = NULL;
    g_autofree char *all = NULL;
    uint8_t sector[2];

    count_info(bs, text);
    count_snapshots(bs, text);
    count_bitmaps(bs, text);
    count_bytes(text);
    ck_assert_int_eq(bdrv_get_backing_name(bs, &file, &format), 0);
    g_string_append_printf(text, "backing %s %s\n", file, format);
    g_string_append_printf(text, "length %d\n", (int)blk_getlength(blk));
    ck_assert_int_eq(blk_pread(blk, CLUSTER, 1, sector, 0), 0);
    ck_assert_int_eq(blk_pread(blk, CLUSTER + 512, 1, sector + 1, 0), 0);
    g_string_append_printf(text, "content %d %d", sector[0], sector[1]);
    close_backend(blk);
    all = g_string_free(text, FALSE);
    return g_strsplit(all, "\n", -1);
}

/* Each line of @some that is not in @others is about something of @about. */
static void expect_kept(const char *what, char **some, char **others,
                        const char *about)
{
    g_auto(GStrv) words = g_strsplit(about, ",", -1);

    for (char **line = some; *line; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, " ", 2);

        if (!g_strv_contains((const char *const *)others, *line) &&
            !g_strv_contains((const char *const *)words, parts[0])) {
            g_autofree char *all = g_strjoinv("\n", others);

            ck_abort_msg("%s: '%s' is not in\n%s", what, *line, all);
        }
    }
}

/* --- the operations ------------------------------------------------------- */

static int change_backing(BlockDriverState *bs, const char *to)
{
    return bdrv_change_backing_file(bs, to, to ? "qcow2" : NULL, NULL);
}

static int amend(BlockDriverState *bs, const char *options)
{
    return bdrv_amend(bs, block_options_parse_keyval(options, NULL, NULL),
                      NULL);
}

static int resize(BlockDriverState *bs, const char *to)
{
    BlockTruncate how = { .offset = atoi(to), .exact = true };
    BlockBackend *blk = backend_of(bdrv_ref(bs));
    int ret = blk_truncate(blk, &how, NULL);

    close_backend(blk);
    return ret;
}

static int create_snapshot(BlockDriverState *bs, const char *name)
{
    snapshot_ok(bs, name);
    return 0;
}

static int delete_snapshot(BlockDriverState *bs, const char *name)
{
    return bdrv_snapshot_delete(bs, NULL, name, NULL);
}

static int apply_snapshot(BlockDriverState *bs, const char *name)
{
    return bdrv_snapshot_goto(bs, name, NULL);
}

static int add_bitmap(BlockDriverState *bs, const char *name)
{
    return bdrv_stored_bitmap_add(bs, name, 512, NULL);
}

static int remove_bitmap(BlockDriverState *bs, const char *name)
{
    return bdrv_stored_bitmap_remove(bs, name, NULL);
}

/* @count: what the refcount of the L1 table is found to be. */
static int repair(BlockDriverState *bs, const char *count)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult result;
    uint64_t block = peek64("a", peek64("a", QCOW2_H_REFTABLE_OFFSET));
    uint64_t l1 = peek64("a", QCOW2_H_L1_OFFSET) / CLUSTER;
    uint8_t raw[2] = { 0, atoi(count) };
    int ret;

    patch_file("a", block + l1 * 2, raw, sizeof(raw));
    ret = bdrv_check(bs, &how, &result, NULL);
    ck_assert_int_gt(result.leaks_fixed + result.corruptions_fixed, 0);
    ck_assert_int_eq(result.leaks + result.corruptions, 0);
    return ret;
}

static const struct {
    int (*call)(BlockDriverState *bs, const char *argument);
    const char *argument;
    const char *about; /* what may be different afterwards */
    bool refused;
} operations[] = {
    { change_backing, "other", "backing" },
    { change_backing, NULL, "backing" },
    { amend, "backing_file=other,backing_fmt=qcow2", "backing" },
    { amend, "lazy_refcounts=off", "lazy-refcounts" },
    { amend, "refcount_bits=64", "refcount-bits" },
    { amend, "refcount_bits=8,lazy_refcounts=off",
      "refcount-bits,lazy-refcounts" },
    { amend, "compat=1.1", "" },
    { amend, "compat=0.10", "", true },  /* has no room for all this */
    { amend, "refcount_bits=1", "refcount-bits" },
    { amend, "size=8M", "length" },      /* bitmaps follow */
    { amend, "data_file=x", "", true },
    { resize, "8388608", "length" },
    { resize, "2097152", "length" },
    { create_snapshot, "second", "snapshot" },
    { delete_snapshot, "first", "snapshot" },
    { apply_snapshot, "first", "content" },
    { add_bitmap, "three", "bitmap" },
    { remove_bitmap, "one", "bitmap" },
    { repair, "5", "" },
    { repair, "0", "" },
};

static void expect_census(int i, char **before)
{
    const char *what = operations[i].argument ? operations[i].argument : "-";
    g_auto(GStrv) after = take_census();

    expect_kept(what, before, after, operations[i].about);
    expect_kept(what, after, before, operations[i].about);
    ck_assert(qemu_img_ok("check -q", "a"));
}

START_TEST(R66_an_operation_keeps_all_features_that_it_is_not_about)
{
    g_auto(GStrv) before = NULL;
    BlockDriverState *bs;
    int ret;

    make_full_image();
    before = take_census();
    /* All that is to be kept is there in the first place. */
    ck_assert(g_strv_contains((const char *const *)before,
                              "lazy-refcounts true"));
    ck_assert(g_strv_contains((const char *const *)before,
                              "compression-type \"zstd\""));
    ck_assert(g_strv_contains((const char *const *)before, "extension 1"));
    ck_assert(g_strv_contains((const char *const *)before, "feature 1"));
    ck_assert(!g_strv_contains((const char *const *)before, "names 0"));
    ck_assert(g_strv_contains((const char *const *)before, "content 2 1"));
    bs = image_open("a", NULL);
    ret = operations[_i].call(bs, operations[_i].argument);
    bdrv_unref(bs);
    ck_assert_int_eq(ret < 0, operations[_i].refused);
    expect_census(_i, before);
}
END_TEST

/* The same for an image that has no bitmaps. */
START_TEST(R66_without_bitmaps_a_change_of_the_disk_keeps_the_rest)
{
    static const struct {
        int (*call)(BlockDriverState *bs, const char *argument);
        const char *argument;
        const char *about;
    } cases[] = {
        { resize, "8388608", "length" },
        { resize, "2097152", "length" },
        { apply_snapshot, "first", "content" },
    };
    g_auto(GStrv) before = NULL;
    g_auto(GStrv) after = NULL;
    BlockDriverState *bs;

    make_full_image();
    bs = image_open("a", NULL);
    ck_assert_int_eq(remove_bitmap(bs, "one"), 0);
    ck_assert_int_eq(remove_bitmap(bs, "two"), 0);
    bdrv_unref(bs);
    before = take_census();
    bs = image_open("a", NULL);
    ck_assert_int_eq(cases[_i].call(bs, cases[_i].argument), 0);
    bdrv_unref(bs);
    after = take_census();
    expect_kept(cases[_i].argument, before, after, cases[_i].about);
    expect_kept(cases[_i].argument, after, before, cases[_i].about);
    ck_assert(!g_strv_equal((const char *const *)before,
                            (const char *const *)after));
    ck_assert(qemu_img_ok("check -q", "a"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-census");
    TCase *tcase = tcase_create("qcow2-census");

    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(
        tcase, R66_an_operation_keeps_all_features_that_it_is_not_about, 0,
        G_N_ELEMENTS(operations));
    tcase_add_loop_test(
        tcase, R66_without_bitmaps_a_change_of_the_disk_keeps_the_rest, 0, 3);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
