/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of stored bitmaps share: the image "t.qcow2", its bitmaps by
 * name, and their states as text.
 */
#ifndef TESTS_UNIT_STORED_BITMAP_FIXTURE_H
#define TESTS_UNIT_STORED_BITMAP_FIXTURE_H

#include "qcow2-fixture.h"

#include <blockgraph/dirty-bitmap.h>

#define K INT64_C(1024)
#define MIB (INT64_C(1) << 20)

/* The image "t.qcow2" while it is open. */
static BlockBackend *blk;
static BlockDriverState *bs;

/* --- images --------------------------------------------------------------- */

static inline void make_with(const char *options)
{
    make_image_ok("t.qcow2", options);
}

static inline void make(void)
{
    make_with("size=1M");
}

static inline void open_with(const char *more)
{
    faulty_clear();
    blk = open_faulty(more);
    bs = blk_bs(blk);
}

static inline void open_it(void)
{
    open_with("");
}

static inline void close_it(void)
{
    close_backend(blk);
    blk = NULL;
    bs = NULL;
}

static inline void cycle(void)
{
    close_it();
    if (have_qemu()) {
        expect_clean();
    }
    open_it();
}

/* The machine stops now: the image is what its file is at this moment. */
static inline void crash(void)
{
    g_autofree char *path = path_of("t.qcow2");
    g_autofree char *content = NULL;
    gsize bytes;

    ck_assert(g_file_get_contents(path, &content, &bytes, NULL));
    close_it();
    ck_assert(g_file_set_contents(path, content, bytes, NULL));
    open_it();
}

/* --- bitmaps -------------------------------------------------------------- */

static inline BdrvDirtyBitmap *find(const char *name)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    ck_assert_msg(bitmap != NULL, "no bitmap '%s'", name);
    return bitmap;
}

static inline BdrvDirtyBitmap *create(const char *name, int64_t granularity)
{
    g_autoptr(GError) error = NULL;
    BdrvDirtyBitmap *bitmap;

    ck_assert_msg(bdrv_can_store_new_dirty_bitmap(bs, name, granularity,
                                                  &error) == 0,
                  "%s", error ? error->message : "no error");
    bitmap = bdrv_create_dirty_bitmap(bs, granularity, name, &error);
    ck_assert_msg(bitmap != NULL, "%s", error ? error->message : "no error");
    ck_assert_msg(bdrv_dirty_bitmap_set_persistence(bitmap, true, &error) == 0,
                  "%s", error ? error->message : "no error");
    return bitmap;
}

static inline void expect_bits(const char *name, const char *expected)
{
    BdrvDirtyBitmap *bitmap = find(name);
    int64_t size = bdrv_dirty_bitmap_size(bitmap);
    int64_t step = bdrv_dirty_bitmap_granularity(bitmap);
    g_autoptr(GString) text = g_string_new(NULL);

    for (int64_t at = 0; at < size; at += step) {
        g_string_append_c(text, bdrv_dirty_bitmap_get(bitmap, at) ? 'x' : '-');
    }
    ck_assert_str_eq(text->str, expected);
}

/* Of each: name, E enabled, P persistent, R read-only, X inconsistent. */
static inline void expect_states(const char *expected)
{
    g_autoptr(GString) text = g_string_new(NULL);
    BdrvDirtyBitmap *b = NULL;

    while ((b = bdrv_dirty_bitmap_next(bs, b))) {
        g_string_append_printf(
            text, "%s%s:%s%s%s%s", text->len ? " " : "",
            bdrv_dirty_bitmap_name(b), bdrv_dirty_bitmap_enabled(b) ? "E" : "",
            bdrv_dirty_bitmap_persistent(b) ? "P" : "",
            bdrv_dirty_bitmap_readonly(b) ? "R" : "",
            bdrv_dirty_bitmap_inconsistent(b) ? "X" : "");
    }
    ck_assert_str_eq(text->str, expected);
}

/* What the image says: name, I in use, A auto, X not to be used. */
static inline void expect_stored(const char *expected)
{
    GPtrArray *list = NULL;
    g_autoptr(GString) text = g_string_new(NULL);

    ck_assert_int_eq(bdrv_stored_bitmap_list(bs, &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        const BdrvStoredBitmap *b = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s%s:%s%s%s", i ? " " : "", b->name,
                               b->in_use ? "I" : "", b->autoload ? "A" : "",
                               b->inconsistent ? "X" : "");
    }
    g_ptr_array_unref(list);
    ck_assert_str_eq(text->str, expected);
}

#endif /* TESTS_UNIT_STORED_BITMAP_FIXTURE_H */
