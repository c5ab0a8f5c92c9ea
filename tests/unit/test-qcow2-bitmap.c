/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: bitmaps stored in an image.
 *
 * Images are our own; where qemu-img is there, it looks at them, too.
 */
#include "qcow2-fixture.h"

#include "block/formats/qcow2/bitmap.h"

#define MIB (INT64_C(1) << 20)

static BlockBackend *blk;

/* --- images --------------------------------------------------------------- */

static void make_with(const char *size, const char *cluster)
{
    g_autofree char *options = g_strdup_printf("size=%s,cluster_size=%s", size,
                                               cluster);

    make_image_ok("t.qcow2", options);
}

static void make(const char *size)
{
    make_with(size, "64k");
}

static void open_it(void)
{
    faulty_clear();
    blk = file_backend("qcow2,file.driver=faulty,file.file.driver=file,"
                       "file.file.filename=%s/t.qcow2");
}

static void close_it(void)
{
    close_backend(blk);
    blk = NULL;
}

static void reopen_it(void)
{
    close_it();
    open_it();
}

/* No leak and no error, also in QEMU's eyes. */
static void expect_sound(void)
{
    BdrvCheckResult result = check_of(blk_bs(blk));

    ck_assert_int_eq(result.corruptions, 0);
    ck_assert_int_eq(result.leaks, 0);
    close_it();
    if (have_qemu()) {
        expect_clean();
    }
    open_it();
}

/* --- calls ---------------------------------------------------------------- */

typedef struct Call {
    Qcow2BitmapContent content;
    int64_t budget;
    HBitmap *loaded;
    GError *error;
} Call;

static int coroutine_fn store_entry(void *opaque)
{
    Call *call = opaque;

    return qcow2_bitmap_store(state_of(blk), &call->content, &call->error);
}

static int coroutine_fn load_entry(void *opaque)
{
    Call *call = opaque;

    return qcow2_bitmap_load(state_of(blk), call->content.name,
                             &call->budget, &call->loaded, &call->error);
}

static int run_call(int coroutine_fn (*entry)(void *opaque), Call *call)
{
    int ret = aio_co_run(block_graph_aio_context(graph), entry, call);

    ck_assert((ret < 0) == (call->error != NULL));
    return ret;
}

static int store(const char *name, const HBitmap *bits)
{
    Call call = { .content = { name, hbitmap_granularity(bits),
                               QCOW2_BME_AUTO, bits } };
    int ret = run_call(store_entry, &call);

    g_clear_error(&call.error);
    return ret;
}

static HBitmap *load_ok(const char *name)
{
    Call call = { .content.name = name, .budget = QCOW2_BITMAPS_MEMORY_MAX };

    ck_assert_msg(run_call(load_entry, &call) == 0, "%s",
                  call.error ? call.error->message : "");
    return call.loaded;
}

static void load_fails(const char *name, int err, const char *message)
{
    Call call = { .content.name = name, .budget = QCOW2_BITMAPS_MEMORY_MAX };

    ck_assert_int_lt(run_call(load_entry, &call), 0);
    expect_error(&call.error, err, message);
}

static int add(const char *name, int64_t granularity)
{
    g_autoptr(GError) error = NULL;
    int ret = bdrv_stored_bitmap_add(blk_bs(blk), name, granularity, &error);

    ck_assert((ret < 0) == (error != NULL));
    return ret;
}

static int drop(const char *name)
{
    g_autoptr(GError) error = NULL;

    return bdrv_stored_bitmap_remove(blk_bs(blk), name, &error);
}

/* "name:granularity:flags ..." of all bitmaps; I in use, A auto, X not to be
 * used. */
static void expect_list(const char *expected)
{
    GPtrArray *list = NULL;
    g_autoptr(GString) text = g_string_new(NULL);

    ck_assert_int_eq(bdrv_stored_bitmap_list(blk_bs(blk), &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        const BdrvStoredBitmap *b = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s%s:%ld:%s%s%s", i ? " " : "", b->name,
                               (long)b->granularity, b->in_use ? "I" : "",
                               b->autoload ? "A" : "",
                               b->inconsistent ? "X" : "");
    }
    g_ptr_array_unref(list);
    ck_assert_str_eq(text->str, expected);
}

/* Bits with a clean, a dirty and a mixed cluster. */
static HBitmap *mixed_bits(int64_t size, int granularity)
{
    HBitmap *hb = hbitmap_new(size, granularity);
    int64_t step = (INT64_C(65536) * 8) << granularity;

    for (int64_t at = 0, i = 0; at < size; at += step, i++) {
        int64_t bytes = MIN(step, size - at);

        if (i % 3 == 1) {
            hbitmap_set(hb, at, bytes);
        } else if (i % 3 == 2) {
            for (int64_t k = 0; k < bytes; k += INT64_C(37) << granularity) {
                hbitmap_set(hb, at + k, 1);
            }
        }
    }
    hbitmap_set(hb, size - 1, 1);
    return hb;
}

static void expect_same(const HBitmap *a, const HBitmap *b)
{
    g_autofree char *sum_a = hbitmap_sha256(a);
    g_autofree char *sum_b = hbitmap_sha256(b);

    ck_assert_str_eq(sum_a, sum_b);
}

/* --- what is stored is there ---------------------------------------------- */

START_TEST(a_stored_bitmap_comes_back_with_every_bit)
{
    static const int granularities[] = { 9, 12, 16, 24, 31 };

    make("2000M");
    open_it();
    for (size_t i = 0; i < G_N_ELEMENTS(granularities); i++) {
        g_autofree char *name = g_strdup_printf("b%zu", i);
        HBitmap *hb = mixed_bits(2000 * MIB, granularities[i]);
        HBitmap *back;

        ck_assert_int_eq(store(name, hb), 0);
        reopen_it();
        back = load_ok(name);
        expect_same(hb, back);
        hbitmap_free(back);
        hbitmap_free(hb);
    }
    expect_sound();
    close_it();
}
END_TEST

START_TEST(a_bitmap_is_overwritten_and_its_old_clusters_are_free)
{
    HBitmap *hb = mixed_bits(2000 * MIB, 9);
    HBitmap *back;
    int64_t length;

    make("2000M");
    open_it();
    ck_assert_int_eq(store("b", hb), 0);
    length = file_length("t.qcow2");
    for (int i = 0; i < 10; i++) {
        hbitmap_set(hb, i * 4096, 1);
        ck_assert_int_eq(store("b", hb), 0);
    }
    /* Room for the old and the new one, not for ten. */
    ck_assert_int_le(file_length("t.qcow2"), 2 * length);
    back = load_ok("b");
    expect_same(hb, back);
    expect_sound();
    close_it();
    hbitmap_free(back);
    hbitmap_free(hb);
}
END_TEST

START_TEST(bitmaps_are_added_listed_and_removed)
{
    make("64M");
    open_it();
    expect_list("");
    ck_assert_int_eq(add("one", 65536), 0);
    ck_assert_int_eq(add("two", 512), 0);
    ck_assert_int_eq(add("one", 4096), -EEXIST);
    reopen_it();
    expect_list("one:65536:A two:512:A");
    expect_sound();
    ck_assert_int_eq(drop("three"), -ENOENT);
    ck_assert_int_eq(drop("one"), 0);
    expect_list("two:512:A");
    ck_assert_int_eq(drop("two"), 0);
    expect_list("");
    expect_sound();
    close_it();
}
END_TEST

START_TEST(r110_limits_of_names_granularities_and_lengths)
{
    g_autofree char *longest = g_strnfill(1023, 'x');
    g_autofree char *longer = g_strnfill(1024, 'x');

    make("64M");
    open_it();
    ck_assert_int_eq(add("", 65536), -EINVAL);
    ck_assert_int_eq(add(longer, 65536), -EINVAL);
    ck_assert_int_eq(add(longest, 65536), 0);
    ck_assert_int_eq(add("b", 256), -EINVAL);
    ck_assert_int_eq(add("b", 0), -EINVAL);
    ck_assert_int_eq(add("b", -65536), -EINVAL);
    ck_assert_int_eq(add("b", INT64_MAX), -EINVAL);
    ck_assert_int_eq(add("b", INT64_C(1) << 62), -EINVAL);
    ck_assert_int_eq(add("b", INT64_C(1) << 32), -EINVAL);
    ck_assert_int_eq(add("b", 65537), -EINVAL);
    ck_assert_int_eq(add("b", INT64_C(1) << 31), 0);
    ck_assert_int_eq(drop(longest), 0);
    expect_sound();
    close_it();
    /* Bits of 4 TiB at 512 bytes are 1 GiB. */
    make("4T");
    open_it();
    ck_assert_int_eq(add("b", 512), -EFBIG);
    ck_assert_int_eq(add("b", 1024), 0);
    close_it();
}
END_TEST

START_TEST(version_2_stores_no_bitmaps)
{
    g_autofree char *path = path_of("t.qcow2");
    BlockOptions *options = opts("qcow2,size=1M,compat=0.10");

    create_ok("filename=%s/t.qcow2,size=0");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", path);
    ck_assert_int_eq(bdrv_create(graph, options, NULL), 0);
    open_it();
    ck_assert_int_eq(add("b", 65536), -ENOTSUP);
    close_it();
}
END_TEST

/* --- in use --------------------------------------------------------------- */

START_TEST(r111_a_bitmap_is_in_use_on_disk_before_the_first_write)
{
    uint8_t buf[512] = { 1 };
    g_autofree char *copy = NULL;
    gsize length;
    g_autofree char *path = path_of("t.qcow2");

    make("64M");
    open_it();
    ck_assert_int_eq(add("b", 65536), 0);
    reopen_it();
    /* The first write of guest data fails; the mark is on the disk. */
    faulty_set(FAULTY_WRITES, 2, 1);
    ck_assert_int_lt(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert(g_file_get_contents(path, &copy, &length, NULL));
    expect_list("b:65536:IA");
    load_fails("b", EBUSY, "inconsistent");
    close_it();
    /* The machine stops at that moment. */
    ck_assert(g_file_set_contents(path, copy, length, NULL));
    open_it();
    expect_list("b:65536:IAX");
    load_fails("b", EBUSY, "can only be removed");
    ck_assert_int_eq(drop("b"), 0);
    expect_sound();
    close_it();
}
END_TEST

START_TEST(r111_no_write_happens_when_the_mark_cannot_be_written)
{
    uint8_t buf[512] = { 1 }, back[512];

    make("64M");
    open_it();
    ck_assert_int_eq(add("b", 65536), 0);
    reopen_it();
    faulty_set(FAULTY_WRITES, 1, 1);
    ck_assert_int_lt(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pread(blk, 0, 512, back, 0), 0);
    ck_assert(block_buffer_is_zero(back, 512));
    expect_list("b:65536:A");
    close_it();
}
END_TEST

START_TEST(r110_a_bitmap_added_after_a_write_is_marked_by_the_next_one)
{
    uint8_t buf[512] = { 1 };

    make("64M");
    open_it();
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(add("b", 65536), 0);
    expect_list("b:65536:A");
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    expect_list("b:65536:IA");
    ck_assert_int_eq(add("c", 65536), 0);
    expect_list("b:65536:IA c:65536:A");
    reopen_it();
    expect_list("b:65536:A c:65536:A");
    close_it();
}
END_TEST

START_TEST(r110_reading_leaves_bitmaps_valid)
{
    uint8_t buf[512];

    make("64M");
    open_it();
    ck_assert_int_eq(add("b", 65536), 0);
    reopen_it();
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    reopen_it();
    expect_list("b:65536:A");
    close_it();
}
END_TEST

/* --- failures ------------------------------------------------------------- */

START_TEST(r67_a_store_that_fails_frees_what_it_took_and_nothing_else)
{
    HBitmap *old = mixed_bits(2000 * MIB, 9);
    HBitmap *new = hbitmap_new(2000 * MIB, 9);
    unsigned fail_at;

    for (int64_t at = 0; at < 2000 * MIB; at += 32 * MIB) {
        hbitmap_set(new, at, 1);
    }
    make("2000M");
    open_it();
    ck_assert_int_eq(store("b", old), 0);
    for (fail_at = 1; fail_at < 100; fail_at++) {
        HBitmap *back;
        int ret;

        faulty_set(FAULTY_WRITES | FAULTY_FLUSHES, fail_at, 1);
        ret = store("b", new);
        faulty_clear();
        back = load_ok("b");
        expect_same(ret < 0 ? old : new, back);
        hbitmap_free(back);
        expect_sound();
        if (ret == 0) {
            break;
        }
    }
    ck_assert_uint_gt(fail_at, 5);
    ck_assert_uint_lt(fail_at, 100);
    close_it();
    hbitmap_free(old);
    hbitmap_free(new);
}
END_TEST

START_TEST(r67_a_removal_that_fails_leaves_the_bitmap)
{
    HBitmap *hb = mixed_bits(2000 * MIB, 9);
    unsigned fail_at;

    make("2000M");
    open_it();
    ck_assert_int_eq(add("other", 65536), 0);
    ck_assert_int_eq(store("b", hb), 0);
    reopen_it();
    for (fail_at = 1; fail_at < 100; fail_at++) {
        HBitmap *back;
        int ret;

        faulty_set(FAULTY_WRITES | FAULTY_FLUSHES, fail_at, 1);
        ret = drop("b");
        faulty_clear();
        if (ret == 0) {
            break;
        }
        /* A failure after the header was switched leaves it removed. */
        expect_sound();
        back = load_ok("b");
        expect_same(hb, back);
        hbitmap_free(back);
    }
    expect_list("other:65536:A");
    expect_sound();
    close_it();
    hbitmap_free(hb);
}
END_TEST

/* --- hostile and foreign -------------------------------------------------- */

/* Where the directory of "t.qcow2" is, and its table. */
static int64_t find_dir(void)
{
    int64_t at;

    open_it();
    at = state_of(blk)->header.bitmap_dir_offset;
    close_it();
    ck_assert_int_gt(at, 0);
    return at;
}

START_TEST(unknown_flags_and_extra_data_are_kept)
{
    uint8_t entry[40];
    int64_t dir;

    make("64M");
    open_it();
    ck_assert_int_eq(add("bb", 65536), 0);
    close_it();
    dir = find_dir();
    /* "bb" gets an unknown flag, and eight bytes of extra data. */
    peek(dir, entry, 32);
    be_put32(entry + QCOW2_BME_FLAGS, 0x80000002);
    be_put32(entry + QCOW2_BME_EXTRA_BYTES, 8);
    memcpy(entry + 24, "extra!!!bb\0\0\0\0\0", 16);
    poke(dir, entry, 40);
    open_it();
    state_of(blk)->header.bitmap_dir_bytes = 40;
    expect_list("bb:65536:AX");
    load_fails("bb", EINVAL, "unknown flags");
    /* The directory is written anew. */
    ck_assert_int_eq(add("new", 65536), 0);
    reopen_it();
    expect_list("bb:65536:AX new:65536:A");
    close_it();
    dir = find_dir();
    peek(dir, entry, 40);
    ck_assert_uint_eq(own_be32(entry + QCOW2_BME_FLAGS), 0x80000002);
    ck_assert_mem_eq(entry + 24, "extra!!!bb", 10);
    open_it();
    ck_assert_int_eq(drop("bb"), 0);
    expect_sound();
    close_it();
}
END_TEST

START_TEST(extra_data_may_be_ignored_only_where_it_says_so)
{
    Qcow2Bitmap b = { .type = untrusted(1), .granularity_bits = untrusted(16),
                      .table_entries = untrusted(1),
                      .table_offset = untrusted(65536), .extra_bytes = 8 };

    make("64M");
    open_it();
    ck_assert_ptr_nonnull(qcow2_bitmap_defect(state_of(blk), &b));
    b.flags = QCOW2_BME_EXTRA_COMPATIBLE;
    ck_assert_ptr_null(qcow2_bitmap_defect(state_of(blk), &b));
    b.type = untrusted(2);
    ck_assert_ptr_nonnull(qcow2_bitmap_defect(state_of(blk), &b));
    close_it();
}
END_TEST

START_TEST(r20_all_bitmaps_of_a_node_share_one_budget)
{
    Call call = { .content.name = "b0" };
    HBitmap *ones = hbitmap_new(INT64_C(1) << 40, 9);

    make("1T");
    open_it();
    hbitmap_set(ones, 0, INT64_C(1) << 40);
    ck_assert_int_eq(store("b0", ones), 0);
    hbitmap_free(ones);
    /* 256 MiB of ones, in a file of a few clusters. */
    ck_assert_int_lt(file_length("t.qcow2"), 2 * MIB);
    call.budget = 256 * MIB - 1;
    ck_assert_int_lt(run_call(load_entry, &call), 0);
    expect_error(&call.error, ENOMEM, "needs 268435456 bytes");
    call.budget = 256 * MIB + 5;
    ck_assert_int_eq(run_call(load_entry, &call), 0);
    ck_assert_int_eq(call.budget, 5);
    ck_assert_int_eq(hbitmap_count(call.loaded), INT64_C(1) << 40);
    hbitmap_free(call.loaded);
    ck_assert_int_lt(run_call(load_entry, &call), 0);
    expect_error(&call.error, ENOMEM, "only 5 more");
    close_it();
}
END_TEST

/* Open an image the directory of which says that a name is very long. */
static void open_nonsense(void)
{
    make("64M");
    open_it();
    ck_assert_int_eq(add("b", 65536), 0);
    close_it();
    poke(find_dir() + QCOW2_BME_NAME_BYTES, "\xff\xff", 2);
    open_it();
}

START_TEST(a_directory_of_nonsense_is_given_up_by_the_first_write)
{
    uint8_t buf[512] = { 1 };

    open_nonsense();
    ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    reopen_it();
    expect_list("");
    ck_assert_int_eq(add("b", 65536), 0);
    reopen_it();
    expect_list("b:65536:A");
    close_it();
}
END_TEST

/* One large table, which all bitmaps name. */
START_TEST(a_check_reads_no_more_tables_than_the_file_can_have)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;
    int64_t dir;

    make_with("64M", "4k");
    open_it();
    for (int i = 0; i < 300; i++) {
        g_autofree char *name = g_strdup_printf("b%03d", i);

        ck_assert_int_eq(add(name, 65536), 0);
    }
    close_it();
    dir = find_dir();
    ck_assert_int_eq(run("truncate -s 4M %s/t.qcow2"), 0);
    for (int i = 0; i < 300; i++) {
        poke64(dir + i * 32, 2 * MIB);
        poke(dir + i * 32 + QCOW2_BME_TABLE_ENTRIES, "\0\x02\0\0", 4);
    }
    open_it();
    faulty.read_bytes = 0;
    ck_assert_int_eq(bdrv_check(blk_bs(blk), &how, &result, &error), 0);
    ck_assert_int_gt(result.corruptions, 0);
    ck_assert_int_le(faulty.read_bytes, 2 * file_length("t.qcow2"));
    close_it();
}
END_TEST

/* The header may name a directory that we know nothing of: it is not written
 * behind its back. */
START_TEST(r111_no_write_happens_while_it_is_unsure_which_bitmaps_there_are)
{
    uint8_t buf[512] = { 1 };
    unsigned refused = 0;

    for (unsigned fail_at = 1; fail_at < 100; fail_at++) {
        int ret;

        make("64M");
        open_it();
        faulty_set(FAULTY_WRITES, fail_at, 2);
        faulty.first_happens = true;
        ret = add("b", 65536);
        faulty_clear();
        if (ret == 0) {
            break;
        }
        if (blk_pwrite(blk, 0, 512, buf, 0) < 0) {
            refused++;
        }
        close_it();
        open_it();
        expect_list(refused ? "b:65536:A" : "");
        ck_assert_int_eq(blk_pread(blk, 0, 512, buf, 0), 0);
        if (refused) {
            ck_assert(block_buffer_is_zero(buf, 512));
            close_it();
            break;
        }
        close_it();
    }
    ck_assert_uint_eq(refused, 1);
}
END_TEST

/* Also when the flush fails: only what is durable counts. */
START_TEST(no_write_comes_before_a_directory_of_nonsense_is_given_up)
{
    uint8_t buf[512] = { 1 };
    unsigned fail_at;

    open_nonsense();
    for (fail_at = 1; fail_at <= 2; fail_at++) {
        faulty_set(FAULTY_WRITES | FAULTY_FLUSHES, fail_at, 1);
        ck_assert_int_lt(blk_pwrite(blk, 0, 512, buf, 0), 0);
        ck_assert(faulty_has_failed());
        ck_assert(state_of(blk)->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
    }
    ck_assert_int_eq(blk_pwrite(blk, 0, 512, buf, 0), 0);
    reopen_it();
    expect_list("");
    close_it();
}
END_TEST

START_TEST(r110_entries_of_a_table_do_not_overflow)
{
    Qcow2Geometry geo;

    for (unsigned bits = 9; bits <= 21; bits++) {
        qcow2_geometry_init(&geo, bits, 4, false);
        ck_assert_int_eq(qcow2_bitmap_table_entries(&geo, 0, 9), 0);
        ck_assert_int_eq(qcow2_bitmap_table_entries(&geo, 1, 31), 1);
        ck_assert_int_eq(
            qcow2_bitmap_table_entries(&geo, BDRV_MAX_LENGTH, 9), INT64_MAX);
        ck_assert_int_eq(
            qcow2_bitmap_table_entries(&geo, BDRV_MAX_LENGTH, 31),
            (INT64_C(1) << 29) >> bits);
        ck_assert_int_eq(
            qcow2_bitmap_table_entries(&geo, (geo.cluster_bytes * 8) << 9, 9),
            1);
        ck_assert_int_eq(qcow2_bitmap_table_entries(
                             &geo, ((geo.cluster_bytes * 8) << 9) + 1, 9), 2);
    }
}
END_TEST

/* --- QEMU ----------------------------------------------------------------- */

START_TEST(bitmaps_of_qemu_are_loaded)
{
    HBitmap *hb;

    if (!have_qemu()) {
        return;
    }
    ck_assert_int_eq(run("cd %s && qemu-img create -q -f qcow2 t.qcow2 64M && "
                         "qemu-img bitmap --add -g 65536 t.qcow2 b && "
                         "qemu-io -f qcow2 -c 'write 1M 1M' -c 'write 32M 1' "
                         "t.qcow2 >/dev/null"), 0);
    open_it();
    expect_list("b:65536:A");
    hb = load_ok("b");
    ck_assert_int_eq(hbitmap_count(hb), 17 * 65536);
    ck_assert(hbitmap_get(hb, MIB));
    ck_assert(hbitmap_get(hb, 32 * MIB));
    ck_assert(!hbitmap_get(hb, 0));
    hbitmap_free(hb);
    close_it();
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, a_stored_bitmap_comes_back_with_every_bit);
    PROMISE(tcase, a_bitmap_is_overwritten_and_its_old_clusters_are_free);
    PROMISE(tcase, bitmaps_are_added_listed_and_removed);
    PROMISE(tcase, r110_limits_of_names_granularities_and_lengths);
    PROMISE(tcase, version_2_stores_no_bitmaps);
    PROMISE(tcase, r111_a_bitmap_is_in_use_on_disk_before_the_first_write);
    PROMISE(tcase, r111_no_write_happens_when_the_mark_cannot_be_written);
    PROMISE(tcase, r110_a_bitmap_added_after_a_write_is_marked_by_the_next_one);
    PROMISE(tcase, r110_reading_leaves_bitmaps_valid);
    PROMISE(tcase, r67_a_store_that_fails_frees_what_it_took_and_nothing_else);
    PROMISE(tcase, r67_a_removal_that_fails_leaves_the_bitmap);
    PROMISE(tcase, unknown_flags_and_extra_data_are_kept);
    PROMISE(tcase, extra_data_may_be_ignored_only_where_it_says_so);
    PROMISE(tcase, r20_all_bitmaps_of_a_node_share_one_budget);
    PROMISE(tcase, a_directory_of_nonsense_is_given_up_by_the_first_write);
    PROMISE(tcase, a_check_reads_no_more_tables_than_the_file_can_have);
    PROMISE(tcase,
            r111_no_write_happens_while_it_is_unsure_which_bitmaps_there_are);
    PROMISE(tcase, no_write_comes_before_a_directory_of_nonsense_is_given_up);
    PROMISE(tcase, r110_entries_of_a_table_do_not_overflow);
    PROMISE(tcase, bitmaps_of_qemu_are_loaded);
}

int main(void)
{
    return qcow2_suite("qcow2-bitmap", 60, add_tests);
}
