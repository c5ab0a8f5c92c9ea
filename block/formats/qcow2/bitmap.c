/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The content of stored bitmaps: tables and bits.
 *
 * A cluster of bits that are all clean, or all dirty, is not stored: its table
 * entry says so.  That is also how a small image can ask for much memory, so
 * whoever loads bitmaps has a budget for all of them together.
 *
 * What a store has allocated it remembers in a list of its own, in our byte
 * order and apart from the table as the disk gets it: a failure gives back
 * exactly that list.
 */
#include "block/formats/qcow2/bitmap.h"

#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

/* Bits of one cluster, in bytes of the disk. */
static int64_t disk_bytes_a_cluster(const Qcow2 *q, unsigned granularity_bits)
{
    return q->geo.cluster_bytes * 8 << granularity_bits;
}

/* --- tables --------------------------------------------------------------- */

/* How many entries its table has; false: too many for any bitmap. */
static bool count_entries(const Qcow2 *q, const Qcow2Bitmap *bitmap,
                          uint32_t *ret)
{
    return untrusted_at_most(bitmap->table_entries,
                             QCOW2_BITMAP_MAX_BYTES >> q->geo.cluster_bits,
                             ret);
}

int64_t qcow2_bitmap_memory(const Qcow2 *q, const Qcow2Bitmap *bitmap)
{
    uint32_t nr;

    return count_entries(q, bitmap, &nr) ? nr * q->geo.cluster_bytes
                                         : INT64_MAX;
}

/* The place of the table, before a byte of memory is taken for it. */
static int check_table_place(Qcow2 *q, const Qcow2Bitmap *bitmap,
                             Qcow2BitmapTable *table, GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));

    if (!count_entries(q, bitmap, &table->nr) ||
        !untrusted_at_most(bitmap->table_offset,
                           length - (int64_t)table->nr * 8, &table->offset) ||
        table->offset == 0 || qcow2_into_cluster(&q->geo, table->offset)) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): bitmap '%s' has "
                           "an invalid table (%u entries at %"
                           G_GUINT64_FORMAT ")", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bitmap->name,
                           (unsigned)untrusted_verbatim(bitmap->table_entries),
                           untrusted_verbatim(bitmap->table_offset));
    }
    return 0;
}

static int check_entry(Qcow2 *q, const Qcow2Bitmap *bitmap, uint64_t entry,
                       GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));
    int64_t offset = entry & QCOW2_OFFSET_MASK;

    if ((entry & QCOW2_BITMAP_RESERVED) ||
        (offset && (entry & QCOW2_BITMAP_ALL_ONES)) ||
        qcow2_into_cluster(&q->geo, offset) ||
        (offset && offset >= length)) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): bitmap '%s' has "
                           "an invalid table entry 0x%" G_GINT64_MODIFIER "x",
                           bdrv_node_name(q->bs), bdrv_filename(q->bs),
                           bitmap->name, entry);
    }
    return 0;
}

int coroutine_fn qcow2_bitmap_table_read(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                         Qcow2BitmapTable *ret, GError **errp)
{
    g_autofree uint64_t *entry = NULL;
    size_t bytes;
    int err;

    *ret = (Qcow2BitmapTable){ 0 };
    if (untrusted_is(bitmap->table_entries, 0)) {
        return 0;
    }
    err = check_table_place(q, bitmap, ret, errp);
    if (err < 0) {
        return err;
    }
    bytes = ret->nr * sizeof(*entry);
    entry = g_try_malloc(bytes);
    err = entry ? bdrv_co_pread(qcow2_file(q), ret->offset, bytes, entry, 0)
                : -ENOMEM;
    if (err < 0) {
        return block_error_errno(errp, -err, "Node '%s' ('%s'): could not "
                                 "read the table of bitmap '%s' (%u entries)",
                                 bdrv_node_name(q->bs), bdrv_filename(q->bs),
                                 bitmap->name, ret->nr);
    }
    for (uint32_t i = 0; i < ret->nr; i++) {
        entry[i] = untrusted_word(untrusted_be64(&entry[i]));
        err = check_entry(q, bitmap, entry[i], errp);
        if (err < 0) {
            return err;
        }
    }
    ret->entry = g_steal_pointer(&entry);
    return 0;
}

/* --- loading -------------------------------------------------------------- */

/* Fill @hb, which covers the disk, from @table. */
static int coroutine_fn load_bits(Qcow2 *q, const Qcow2BitmapTable *table,
                                  HBitmap *hb)
{
    int64_t step = disk_bytes_a_cluster(q, hbitmap_granularity(hb));
    g_autofree uint8_t *buf = g_try_malloc(q->geo.cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; ret == 0 && i < table->nr; i++) {
        int64_t start = i * step;
        int64_t count = MIN(step, hbitmap_size(hb) - start);
        int64_t offset = table->entry[i] & QCOW2_OFFSET_MASK;

        if (offset) {
            ret = bdrv_image_step(q->bs, NULL);
            if (ret == 0) {
                ret = bdrv_co_pread(qcow2_file(q), offset,
                                    q->geo.cluster_bytes, buf, 0);
            }
            if (ret == 0) {
                hbitmap_deserialize_part(hb, buf, start, count);
            }
        } else if (table->entry[i] & QCOW2_BITMAP_ALL_ONES) {
            hbitmap_deserialize_ones(hb, start, count);
        } else {
            hbitmap_deserialize_zeroes(hb, start, count);
        }
    }
    return ret;
}

/* Whether the bitmap may be loaded, what memory it takes, how fine it is. */
static int check_loadable(Qcow2 *q, const Qcow2Bitmap *bitmap, int64_t budget,
                          int64_t *ret_bytes, unsigned *ret_granularity_bits,
                          GError **errp)
{
    const char *defect = qcow2_bitmap_defect(q, bitmap);
    int64_t bytes = qcow2_bitmap_memory(q, bitmap);

    if (defect || !untrusted_at_most(bitmap->granularity_bits,
                                     QCOW2_BITMAP_MAX_GRANULARITY_BITS,
                                     ret_granularity_bits)) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): bitmap '%s' "
                           "cannot be used: %s", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bitmap->name, defect);
    }
    if (bitmap->flags & QCOW2_BME_IN_USE) {
        return block_error(errp, EBUSY, "Node '%s' ('%s'): bitmap '%s' is "
                           "inconsistent: it is in use, or was not saved when "
                           "the image was last written; it can only be "
                           "removed", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bitmap->name);
    }
    if (bytes > budget) {
        return block_error(errp, ENOMEM, "Node '%s' ('%s'): bitmap '%s' "
                           "needs %" G_GINT64_FORMAT " bytes of memory, all "
                           "bitmaps of the node may take only %"
                           G_GINT64_FORMAT " more", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bitmap->name, bytes, budget);
    }
    *ret_bytes = bytes;
    return 0;
}

static int coroutine_fn load_found(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                   unsigned granularity_bits, HBitmap **ret,
                                   GError **errp)
{
    Qcow2BitmapTable table;
    HBitmap *hb;
    int err = qcow2_bitmap_table_read(q, bitmap, &table, errp);

    if (err < 0) {
        return err;
    }
    hb = hbitmap_new(atomic_load_explicit(&q->size, memory_order_relaxed),
                     granularity_bits);
    err = hb ? load_bits(q, &table, hb) : -ENOMEM;
    g_free(table.entry);
    if (err < 0) {
        hbitmap_free(hb);
        return block_error_errno(errp, -err, "Node '%s' ('%s'): could not "
                                 "load bitmap '%s'", bdrv_node_name(q->bs),
                                 bdrv_filename(q->bs), bitmap->name);
    }
    hbitmap_deserialize_finish(hb);
    *ret = hb;
    return 0;
}

static int no_bitmap(Qcow2 *q, const char *name, GError **errp)
{
    return block_error(errp, ENOENT, "Node '%s' ('%s'): no bitmap '%s' is "
                       "stored in the image", bdrv_node_name(q->bs),
                       bdrv_filename(q->bs), name);
}

int coroutine_fn qcow2_bitmap_load_entry(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                         int64_t *budget, HBitmap **ret,
                                         GError **errp)
{
    unsigned granularity_bits = 0;
    int64_t bytes = 0;
    int err = check_loadable(q, bitmap, *budget, &bytes, &granularity_bits,
                             errp);

    if (err == 0) {
        err = load_found(q, bitmap, granularity_bits, ret, errp);
    }
    if (err == 0) {
        *budget -= bytes;
    }
    return err;
}

int coroutine_fn qcow2_bitmap_load(Qcow2 *q, const char *name,
                                   int64_t *budget, HBitmap **ret,
                                   GError **errp)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    const Qcow2Bitmap *bitmap;
    int err = qcow2_bitmap_dir_read(q, &bitmaps, errp);

    if (err < 0) {
        return err;
    }
    bitmap = qcow2_bitmap_find(bitmaps, name, NULL);
    if (!bitmap) {
        return no_bitmap(q, name, errp);
    }
    return qcow2_bitmap_load_entry(q, bitmap, budget, ret, errp);
}

/* --- what a bitmap occupies ----------------------------------------------- */

/* Host clusters in a row. */
typedef struct Extent {
    int64_t offset;
    int64_t bytes;
} Extent;

/* The clusters of table and bits, as Extent in @ret. */
static int coroutine_fn collect(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                GArray *ret, GError **errp)
{
    Qcow2BitmapTable table;
    int err = qcow2_bitmap_table_read(q, bitmap, &table, errp);
    Extent extent;

    if (err < 0 || table.nr == 0) {
        return err;
    }
    for (uint32_t i = 0; i < table.nr; i++) {
        extent = (Extent){ table.entry[i] & QCOW2_OFFSET_MASK,
                           q->geo.cluster_bytes };
        if (extent.offset) {
            g_array_append_val(ret, extent);
        }
    }
    g_free(table.entry);
    extent = (Extent){ table.offset, (int64_t)table.nr * sizeof(uint64_t) };
    g_array_append_val(ret, extent);
    return 0;
}

/* More tables than the file can have: the same one over and over. */
static int check_all_tables(Qcow2 *q, const GPtrArray *bitmaps, GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));
    int64_t bytes = 0;

    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        /* The header has at most 2^16 of them. */
        bytes += 8 * (int64_t)untrusted_bits(bitmap->table_entries,
                                             UINT32_MAX);
    }
    if (bytes > length) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): the tables of the "
                           "bitmaps (%" G_GINT64_FORMAT " bytes) are larger "
                           "than the file together", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), bytes);
    }
    return 0;
}

int coroutine_fn qcow2_bitmaps_visit(Qcow2 *q, Qcow2BitmapVisitor *visit,
                                     void *opaque, GError **errp)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    int ret = qcow2_bitmap_dir_read(q, &bitmaps, errp);

    if (ret < 0 || bitmaps->len == 0) {
        return ret;
    }
    ret = check_all_tables(q, bitmaps, errp);
    if (ret < 0) {
        return ret;
    }
    ret = visit(opaque, q->header.bitmap_dir_offset,
                q->header.bitmap_dir_bytes);
    for (guint i = 0; ret == 0 && i < bitmaps->len; i++) {
        g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(Extent));

        ret = collect(q, g_ptr_array_index(bitmaps, i), extents, errp);
        for (guint j = 0; ret == 0 && j < extents->len; j++) {
            const Extent *e = &g_array_index(extents, Extent, j);

            ret = visit(opaque, e->offset, e->bytes);
        }
    }
    return ret;
}

/* --- storing -------------------------------------------------------------- */

/* A store under way. */
typedef struct Store {
    Qcow2 *q;
    const Qcow2BitmapContent *content;
    uint64_t *table; /* host-endian */
    uint32_t nr;     /* entries */
    GArray *owned;   /* Extent: what it has allocated */
} Store;

/* Allocate @bytes, rounded up to clusters, and write @buf there. */
static int coroutine_fn store_piece(Store *s, const void *buf, int64_t bytes,
                                    int64_t *ret_offset)
{
    Qcow2 *q = s->q;
    Qcow2Run run;
    Extent extent;
    int ret = qcow2_meta_lock(q);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_alloc_clusters(q, qcow2_cluster_up(&q->geo, bytes) >>
                                      q->geo.cluster_bits, true, &run);
    qcow2_meta_unlock(q);
    if (ret < 0) {
        return ret;
    }
    extent = (Extent){ run.offset, run.bytes };
    g_array_append_val(s->owned, extent);
    *ret_offset = run.offset;
    ret = qcow2_check_overlap(q, 0, run.offset, run.bytes, false);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwrite(qcow2_file(q), run.offset, bytes, buf, 0);
}

/* Cluster number @i of the bits, if it must be stored. */
static int coroutine_fn store_cluster(Store *s, uint32_t i, uint8_t *buf)
{
    const HBitmap *hb = s->content->bits;
    int64_t step = disk_bytes_a_cluster(s->q, s->content->granularity_bits);
    int64_t start = i * step, offset;
    int64_t count = MIN(step, hbitmap_size(hb) - start);
    int ret;

    if (hbitmap_next_dirty(hb, start, count) < 0) {
        s->table[i] = 0;
        return 0;
    }
    if (hbitmap_next_zero(hb, start, count) < 0) {
        s->table[i] = QCOW2_BITMAP_ALL_ONES;
        return 0;
    }
    memset(buf, 0, s->q->geo.cluster_bytes);
    hbitmap_serialize_part(hb, buf, start, count);
    ret = store_piece(s, buf, s->q->geo.cluster_bytes, &offset);
    s->table[i] = ret < 0 ? 0 : offset;
    return ret;
}

static int coroutine_fn store_bits(Store *s)
{
    g_autofree uint8_t *buf = g_try_malloc(s->q->geo.cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; ret == 0 && s->content->bits && i < s->nr; i++) {
        ret = store_cluster(s, i, buf);
    }
    return ret;
}

static int coroutine_fn store_table(Store *s, uint64_t *ret_offset)
{
    g_autofree uint64_t *raw = g_try_new(uint64_t, s->nr);
    int64_t offset = 0;
    int ret;

    if (!raw) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < s->nr; i++) {
        raw[i] = GUINT64_TO_BE(s->table[i]);
    }
    ret = store_piece(s, raw, (int64_t)s->nr * sizeof(*raw), &offset);
    *ret_offset = offset;
    return ret;
}

static void coroutine_fn store_undo(Store *s)
{
    co_mutex_lock(&s->q->meta_lock);
    for (guint i = 0; i < s->owned->len; i++) {
        const Extent *e = &g_array_index(s->owned, Extent, i);

        qcow2_unalloc(s->q, e->offset, e->bytes);
    }
    co_mutex_unlock(&s->q->meta_lock);
}

/* Write bits and table; @bitmap gets the place of the table. */
static int coroutine_fn store_content(Store *s, Qcow2Bitmap *bitmap,
                                      GError **errp)
{
    int ret = s->table ? store_bits(s) : -ENOMEM;
    uint64_t offset = 0; /* a disk of no length: no table */

    if (ret == 0 && s->nr > 0) {
        ret = store_table(s, &offset);
    }
    bitmap->table_offset = untrusted(offset);
    bitmap->table_entries = untrusted(s->nr);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s' ('%s'): could not "
                                 "store bitmap '%s'", bdrv_node_name(s->q->bs),
                                 bdrv_filename(s->q->bs), s->content->name);
    }
    return 0;
}

/* Give up what a bitmap occupied that nothing names any more. */
static void coroutine_fn give_up(Qcow2 *q, const GArray *extents)
{
    co_mutex_lock(&q->meta_lock);
    for (guint i = 0; i < extents->len; i++) {
        const Extent *e = &g_array_index(extents, Extent, i);

        qcow2_free_later(q, e->offset, e->bytes, QCOW2_DISCARD_OTHER);
    }
    co_mutex_unlock(&q->meta_lock);
}

/* Whether @content is within the limits of the format, and of @q. */
static int check_content(Qcow2 *q, const Qcow2BitmapContent *content,
                         int64_t *ret_entries, GError **errp)
{
    size_t name_bytes = strlen(content->name);
    int64_t size = atomic_load_explicit(&q->size, memory_order_relaxed);

    if (q->header.version < 3) {
        return block_error(errp, ENOTSUP, "Node '%s' ('%s'): images of "
                           "version 2 store no bitmaps; amend it to "
                           "compat=1.1", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs));
    }
    if (name_bytes == 0 || name_bytes > QCOW2_MAX_BITMAP_NAME) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): the name of a "
                           "bitmap has 1 to %d bytes, not %zu",
                           bdrv_node_name(q->bs), bdrv_filename(q->bs),
                           QCOW2_MAX_BITMAP_NAME, name_bytes);
    }
    if (content->granularity_bits < QCOW2_BITMAP_MIN_GRANULARITY_BITS ||
        content->granularity_bits > QCOW2_BITMAP_MAX_GRANULARITY_BITS) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): the granularity "
                           "of a stored bitmap is 512 bytes to 2 GiB, not "
                           "2^%u bytes", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), content->granularity_bits);
    }
    *ret_entries = qcow2_bitmap_table_entries(&q->geo, size,
                                              content->granularity_bits);
    if (*ret_entries == INT64_MAX) {
        return block_error(errp, EFBIG, "Node '%s' ('%s'): bitmap '%s' would "
                           "have more than %" G_GINT64_FORMAT " bytes; give "
                           "it a larger granularity", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), content->name,
                           QCOW2_BITMAP_MAX_BYTES);
    }
    g_assert(!content->bits ||
             (hbitmap_size(content->bits) == size &&
              hbitmap_granularity(content->bits) ==
                  (int)content->granularity_bits));
    return 0;
}

/* The entry that @content gets in @bitmaps: that of its name, whose clusters
 * are added to @extents, or a new one.  NULL with @errp set if not. */
static Qcow2Bitmap *coroutine_fn
entry_for(Qcow2 *q, const Qcow2BitmapContent *content, GPtrArray *bitmaps,
          GArray *extents, GError **errp)
{
    Qcow2Bitmap *bitmap = qcow2_bitmap_find(bitmaps, content->name, NULL);
    const char *defect = bitmap ? qcow2_bitmap_defect(q, bitmap) : NULL;

    /* One that we keep was sound; perhaps the disk has another size now. */
    if (defect && !dirty_bitmaps_track(q->bs, content->name)) {
        block_error(errp, EINVAL, "Node '%s' ('%s'): bitmap '%s' is not "
                    "overwritten, as %s; remove it first",
                    bdrv_node_name(q->bs), bdrv_filename(q->bs),
                    content->name, defect);
        return NULL;
    }
    if (bitmap) {
        return collect(q, bitmap, extents, errp) < 0 ? NULL : bitmap;
    }
    bitmap = g_new0(Qcow2Bitmap, 1);
    bitmap->name = g_strdup(content->name);
    bitmap->type = untrusted(QCOW2_BMT_DIRTY_TRACKING);
    g_ptr_array_add(bitmaps, bitmap);
    return bitmap;
}

static int coroutine_fn prepare(Qcow2 *q, GError **errp)
{
    int ret = qcow2_prepare_write(q);

    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not write to "
                                 "image '%s'", bdrv_node_name(q->bs),
                                 bdrv_filename(q->bs));
    }
    return 0;
}

static int coroutine_fn store_held(Qcow2 *q,
                                   const Qcow2BitmapContent *content,
                                   GError **errp)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(Extent));
    g_autoptr(GArray) owned = g_array_new(FALSE, FALSE, sizeof(Extent));
    Store s = { .q = q, .content = content, .owned = owned };
    GError *error = NULL;
    Qcow2Bitmap *bitmap;
    int64_t entries = 0;
    int ret = check_content(q, content, &entries, errp);

    if (ret == 0) {
        ret = prepare(q, errp);
    }
    if (ret == 0) {
        ret = qcow2_bitmap_dir_read(q, &bitmaps, errp);
    }
    if (ret < 0) {
        return ret;
    }
    bitmap = entry_for(q, content, bitmaps, old, &error);
    if (!bitmap) {
        return qcow2_pass_error(errp, error);
    }
    bitmap->flags = (bitmap->flags & QCOW2_BME_EXTRA_COMPATIBLE) |
                    content->flags;
    bitmap->granularity_bits = untrusted(content->granularity_bits);
    s.nr = entries;
    s.table = g_try_new0(uint64_t, MAX(s.nr, 1));
    ret = store_content(&s, bitmap, errp);
    if (ret == 0) {
        ret = qcow2_bitmap_dir_replace(q, bitmaps, errp);
    }
    g_free(s.table);
    if (ret < 0) {
        store_undo(&s);
        return ret;
    }
    give_up(q, old);
    return 0;
}

int coroutine_fn qcow2_bitmap_store(Qcow2 *q,
                                    const Qcow2BitmapContent *content,
                                    GError **errp)
{
    int ret;

    qcow2_bitmaps_hold(q);
    ret = store_held(q, content, errp);
    qcow2_bitmaps_unhold(q);
    return ret;
}

/* --- the driver's methods ------------------------------------------------- */

int coroutine_fn qcow2_stored_bitmap_list(BlockDriverState *bs,
                                          GPtrArray *list, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    g_autoptr(GPtrArray) bitmaps = NULL;
    int ret = qcow2_bitmap_dir_read(q, &bitmaps, errp);

    for (guint i = 0; ret == 0 && i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);
        BdrvStoredBitmap *info = g_new0(BdrvStoredBitmap, 1);
        unsigned bits;

        info->name = g_strdup(bitmap->name);
        info->granularity =
            untrusted_at_most(bitmap->granularity_bits, 62, &bits)
                ? INT64_C(1) << bits
                : 0;
        info->in_use = bitmap->flags & QCOW2_BME_IN_USE;
        info->autoload = bitmap->flags & QCOW2_BME_AUTO;
        info->inconsistent =
            (info->in_use || qcow2_bitmap_defect(q, bitmap)) &&
            !dirty_bitmaps_track(bs, bitmap->name);
        g_ptr_array_add(list, info);
    }
    return ret;
}

int coroutine_fn qcow2_stored_bitmap_add(BlockDriverState *bs,
                                         const char *name,
                                         int64_t granularity, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    g_autoptr(GPtrArray) bitmaps = NULL;
    Qcow2BitmapContent content = { .name = name, .flags = QCOW2_BME_AUTO };
    int ret = qcow2_bitmap_dir_read(q, &bitmaps, errp);

    if (ret < 0) {
        return ret;
    }
    if (granularity <= 0 || (granularity & (granularity - 1))) {
        return block_error(errp, EINVAL, "Node '%s' ('%s'): the granularity "
                           "of a bitmap must be a power of two, not %"
                           G_GINT64_FORMAT, bdrv_node_name(bs),
                           bdrv_filename(bs), granularity);
    }
    if (qcow2_bitmap_find(bitmaps, name, NULL)) {
        return block_error(errp, EEXIST, "Node '%s' ('%s'): a bitmap '%s' is "
                           "stored in the image already", bdrv_node_name(bs),
                           bdrv_filename(bs), name);
    }
    content.granularity_bits = __builtin_ctzll(granularity);
    return qcow2_bitmap_store(q, &content, errp);
}

static int coroutine_fn remove_held(Qcow2 *q, const char *name,
                                    GError **errp)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(Extent));
    g_autoptr(GError) error = NULL;
    guint index;
    Qcow2Bitmap *bitmap;
    int ret = prepare(q, errp);

    if (ret == 0) {
        ret = qcow2_bitmap_dir_read(q, &bitmaps, errp);
    }
    if (ret < 0) {
        return ret;
    }
    bitmap = qcow2_bitmap_find(bitmaps, name, &index);
    if (!bitmap) {
        return no_bitmap(q, name, errp);
    }
    if (collect(q, bitmap, extents, &error) < 0) {
        /* It goes all the same; what it occupied is found by a check. */
        g_warning("%s; its clusters are not freed", error->message);
        g_array_set_size(extents, 0);
    }
    g_ptr_array_remove_index(bitmaps, index);
    ret = qcow2_bitmap_dir_replace(q, bitmaps, errp);
    if (ret == 0) {
        give_up(q, extents);
    }
    return ret;
}

int coroutine_fn qcow2_stored_bitmap_remove(BlockDriverState *bs,
                                            const char *name, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int ret = dirty_bitmaps_changed(bs) ? prepare(q, errp) : 0;     /* B3 */

    if (ret < 0) {
        return ret;
    }
    qcow2_bitmaps_hold(q);
    ret = remove_held(q, name, errp);
    qcow2_bitmaps_unhold(q);
    return ret;
}
