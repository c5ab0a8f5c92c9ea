/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of stored bitmaps.
 *
 * It is read when somebody asks, never kept: so what a hostile image can make
 * us hold is one directory for the time of a call, no longer than its file.
 *
 * Before the first write each bitmap that tracks, or should, is marked in use
 * on the disk (B1 of bitmap-runtime.c).  A directory that makes no sense is
 * disowned by clearing the feature bit, which says that somebody wrote who did
 * not know about bitmaps.
 */
#include "block/formats/qcow2/bitmap.h"

#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>

/* Of a bitmap in memory, beside its own: pointers, and in a hash table. */
#define OVERHEAD_BYTES 128

static void free_bitmap(gpointer data)
{
    Qcow2Bitmap *bitmap = data;

    if (bitmap) {
        if (bitmap->counter) {
            qcow2_memory_give(bitmap->counter, bitmap->counted);
        }
        g_free(bitmap->name);
        g_free(bitmap->extra);
        g_free(bitmap);
    }
}

bool qcow2_bitmaps_valid(const Qcow2 *q)
{
    return q->header.has_bitmaps &&
           (q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
}

/* --- which can be used ---------------------------------------------------- */

int64_t qcow2_bitmap_table_entries(const Qcow2Geometry *geo, int64_t size,
                                   unsigned granularity_bits)
{
    int64_t bits, bytes;

    g_assert(size >= 0 && granularity_bits < 63);
    bits = (size >> granularity_bits) +
           ((size & ((INT64_C(1) << granularity_bits) - 1)) != 0);
    bytes = bits / 8 + (bits % 8 != 0);
    if (bytes > QCOW2_BITMAP_MAX_BYTES) {
        return INT64_MAX;
    }
    return qcow2_cluster_up(geo, bytes) >> geo->cluster_bits;
}

const char *qcow2_bitmap_defect(Qcow2 *q, const Qcow2Bitmap *bitmap)
{
    int64_t size = atomic_load_explicit(&q->size, memory_order_relaxed);
    unsigned bits;

    if (!untrusted_is(bitmap->type, QCOW2_BMT_DIRTY_TRACKING)) {
        return "its type is unknown";
    }
    if (bitmap->flags & ~QCOW2_BME_KNOWN) {
        return "it has unknown flags";
    }
    if (bitmap->extra_bytes > 0 &&
        !(bitmap->flags & QCOW2_BME_EXTRA_COMPATIBLE)) {
        return "it has extra data that must be understood";
    }
    if (!untrusted_at_most(bitmap->granularity_bits,
                           QCOW2_BITMAP_MAX_GRANULARITY_BITS, &bits) ||
        bits < QCOW2_BITMAP_MIN_GRANULARITY_BITS) {
        return "its granularity is out of range";
    }
    if (!untrusted_is(bitmap->table_entries,
                      qcow2_bitmap_table_entries(&q->geo, size, bits))) {
        return "it is not made for a disk of this length";
    }
    if (!untrusted_is(bitmap->table_entries, 0) &&
        (untrusted_is(bitmap->table_offset, 0) ||
         untrusted_bits(bitmap->table_offset, q->geo.cluster_bytes - 1) ||
         untrusted_above(bitmap->table_offset, QCOW2_MAX_HOST_OFFSET))) {
        return "its table is at an impossible offset";
    }
    return NULL;
}

Qcow2Bitmap *qcow2_bitmap_find(const GPtrArray *bitmaps, const char *name,
                               guint *ret_index)
{
    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        if (g_str_equal(bitmap->name, name)) {
            if (ret_index) {
                *ret_index = i;
            }
            return bitmap;
        }
    }
    return NULL;
}

/* --- reading -------------------------------------------------------------- */

static int bad_dir(Qcow2 *q, GError **errp, const char *what)
{
    return block_error(errp, EINVAL, "Node '%s' ('%s'): the directory of "
                       "stored bitmaps (%" G_GUINT64_FORMAT " bytes at %"
                       G_GUINT64_FORMAT ", %u bitmaps) is invalid: %s",
                       bdrv_node_name(q->bs), bdrv_filename(q->bs),
                       q->header.bitmap_dir_bytes,
                       q->header.bitmap_dir_offset, q->header.nb_bitmaps,
                       what);
}

/* The place of the directory, before a byte of memory is taken for it. */
static int check_place(Qcow2 *q, GError **errp)
{
    const Qcow2Header *h = &q->header;
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));

    if (h->nb_bitmaps == 0 || h->nb_bitmaps > QCOW2_MAX_BITMAPS) {
        return bad_dir(q, errp, "not 1 to 65535 bitmaps");
    }
    if (h->bitmap_dir_bytes > QCOW2_MAX_BITMAP_DIR_BYTES ||
        h->bitmap_dir_bytes < (uint64_t)h->nb_bitmaps * QCOW2_BME_BYTES) {
        return bad_dir(q, errp, "that many bitmaps do not have that size");
    }
    if (h->bitmap_dir_offset == 0 ||
        qcow2_into_cluster(&q->geo, h->bitmap_dir_offset)) {
        return bad_dir(q, errp, "it is not at the start of a cluster");
    }
    if (length < 0 || h->bitmap_dir_offset > (uint64_t)length ||
        h->bitmap_dir_bytes > (uint64_t)length - h->bitmap_dir_offset) {
        return bad_dir(q, errp, "it ends behind the file");
    }
    return 0;
}

/* How many bytes an entry takes. */
static uint64_t entry_bytes(uint64_t name_bytes, uint64_t extra_bytes)
{
    return (QCOW2_BME_BYTES + extra_bytes + name_bytes + 7) & ~UINT64_C(7);
}

/* The entry at @pos of the directory @dir; NULL, with @why set, if it does not
 * make sense. */
static Qcow2Bitmap *parse_entry(const uint8_t *dir, size_t bytes, size_t pos,
                                size_t *ret_next, const char **why)
{
    const uint8_t *p = dir + pos;
    uint32_t extra_bytes, name_bytes;
    Qcow2Bitmap *bitmap;

    *why = "an entry ends behind it";
    if (bytes - pos < QCOW2_BME_BYTES) {
        return NULL;
    }
    name_bytes = untrusted_bits(untrusted_be16(p + QCOW2_BME_NAME_BYTES),
                                UINT16_MAX);
    if (!untrusted_at_most(untrusted_be32(p + QCOW2_BME_EXTRA_BYTES),
                           bytes - pos, &extra_bytes) ||
        entry_bytes(name_bytes, extra_bytes) > bytes - pos) {
        return NULL;
    }
    p += QCOW2_BME_BYTES + extra_bytes;
    if (name_bytes == 0 || name_bytes > QCOW2_MAX_BITMAP_NAME ||
        memchr(p, '\0', name_bytes)) {
        *why = "a name is empty, too long or has a NUL character";
        return NULL;
    }
    bitmap = g_new0(Qcow2Bitmap, 1);
    bitmap->name = g_strndup((const char *)p, name_bytes);
    p = dir + pos;
    bitmap->dir_pos = pos;
    bitmap->table_offset = untrusted_be64(p + QCOW2_BME_TABLE_OFFSET);
    bitmap->table_entries = untrusted_be32(p + QCOW2_BME_TABLE_ENTRIES);
    bitmap->flags = untrusted_word(untrusted_be32(p + QCOW2_BME_FLAGS));
    bitmap->type = untrusted_byte(p + QCOW2_BME_TYPE);
    bitmap->granularity_bits = untrusted_byte(p + QCOW2_BME_GRANULARITY);
    bitmap->extra_bytes = extra_bytes;
    bitmap->extra = g_memdup2(p + QCOW2_BME_BYTES, extra_bytes);
    *ret_next = pos + entry_bytes(name_bytes, extra_bytes);
    return bitmap;
}

/* Once the image is open there is no way back: what an open has found room for
 * is counted again, not refused. */
static int take_memory(Qcow2 *q, int64_t bytes, GError **errp)
{
    if (!q->is_open) {
        return qcow2_memory_take(q, bytes, errp);
    }
    qcow2_memory_take_always(q, bytes);
    return 0;
}

static int count_bitmap(Qcow2 *q, Qcow2Bitmap *bitmap, GError **errp)
{
    int64_t bytes = sizeof(*bitmap) + OVERHEAD_BYTES + strlen(bitmap->name) +
                    bitmap->extra_bytes;
    int ret = take_memory(q, bytes, errp);

    if (ret == 0) {
        bitmap->counter = q;
        bitmap->counted = bytes;
    }
    return ret;
}

static int parse_dir(Qcow2 *q, const uint8_t *dir, GPtrArray *bitmaps,
                     GError **errp)
{
    size_t bytes = q->header.bitmap_dir_bytes, pos = 0;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (uint32_t i = 0; i < q->header.nb_bitmaps; i++) {
        const char *why;
        Qcow2Bitmap *bitmap = parse_entry(dir, bytes, pos, &pos, &why);

        if (!bitmap) {
            return bad_dir(q, errp, why);
        }
        g_ptr_array_add(bitmaps, bitmap);
        if (count_bitmap(q, bitmap, errp) < 0) {
            return -EFBIG;
        }
        if (!g_hash_table_add(names, bitmap->name)) {
            return bad_dir(q, errp, "two bitmaps have the same name");
        }
    }
    return pos == bytes ? 0 : bad_dir(q, errp, "its size is another than that "
                                      "of its entries");
}

/* Its place is checked, its length counted. */
static int coroutine_fn read_dir(Qcow2 *q, GPtrArray *bitmaps, GError **errp)
{
    g_autofree uint8_t *dir = g_try_malloc(q->header.bitmap_dir_bytes);
    int err;

    if (!dir) {
        return block_error(errp, ENOMEM, "Node '%s' ('%s'): no memory for a "
                           "directory of stored bitmaps of %" G_GUINT64_FORMAT
                           " bytes", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), q->header.bitmap_dir_bytes);
    }
    err = bdrv_co_pread(qcow2_file(q), q->header.bitmap_dir_offset,
                        q->header.bitmap_dir_bytes, dir, 0);
    if (err < 0) {
        return block_error_errno(errp, -err, "Node '%s' ('%s'): could not "
                                 "read the directory of stored bitmaps",
                                 bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    return parse_dir(q, dir, bitmaps, errp);
}

int coroutine_fn qcow2_bitmap_dir_read(Qcow2 *q, GPtrArray **ret,
                                       GError **errp)
{
    g_autoptr(GPtrArray) bitmaps =
        g_ptr_array_new_with_free_func(free_bitmap);
    int err;

    if (!qcow2_bitmaps_valid(q)) {
        *ret = g_steal_pointer(&bitmaps);
        return 0;
    }
    err = check_place(q, errp);
    if (err == 0) {
        err = take_memory(q, q->header.bitmap_dir_bytes, errp);
    }
    if (err < 0) {
        return err;
    }
    err = read_dir(q, bitmaps, errp);
    qcow2_memory_give(q, q->header.bitmap_dir_bytes);
    if (err == 0) {
        *ret = g_steal_pointer(&bitmaps);
    }
    return err;
}

/* --- writing -------------------------------------------------------------- */

static void put_entry(uint8_t *p, const Qcow2Bitmap *bitmap)
{
    size_t name_bytes = strlen(bitmap->name);

    be_put64(p + QCOW2_BME_TABLE_OFFSET,
             untrusted_verbatim(bitmap->table_offset));
    be_put32(p + QCOW2_BME_TABLE_ENTRIES,
             untrusted_verbatim(bitmap->table_entries));
    be_put32(p + QCOW2_BME_FLAGS, bitmap->flags);
    p[QCOW2_BME_TYPE] = untrusted_verbatim(bitmap->type);
    p[QCOW2_BME_GRANULARITY] = untrusted_verbatim(bitmap->granularity_bits);
    be_put16(p + QCOW2_BME_NAME_BYTES, name_bytes);
    be_put32(p + QCOW2_BME_EXTRA_BYTES, bitmap->extra_bytes);
    if (bitmap->extra_bytes > 0) {
        memcpy(p + QCOW2_BME_BYTES, bitmap->extra, bitmap->extra_bytes);
    }
    memcpy(p + QCOW2_BME_BYTES + bitmap->extra_bytes, bitmap->name,
           name_bytes);
}

/* The directory as bytes; NULL with @errp set if it passes a limit. */
static uint8_t *dir_encode(Qcow2 *q, const GPtrArray *bitmaps,
                           uint64_t *ret_bytes, GError **errp)
{
    uint64_t bytes = 0;
    uint8_t *dir, *p;

    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        bytes += entry_bytes(strlen(bitmap->name), bitmap->extra_bytes);
    }
    if (bitmaps->len > QCOW2_MAX_BITMAPS ||
        bytes > QCOW2_MAX_BITMAP_DIR_BYTES) {
        block_error(errp, ENOSPC, "Node '%s' ('%s'): an image holds at most "
                    "%d bitmaps with a directory of %" G_GINT64_FORMAT
                    " bytes, these would be %u with %" G_GUINT64_FORMAT,
                    bdrv_node_name(q->bs), bdrv_filename(q->bs),
                    QCOW2_MAX_BITMAPS, QCOW2_MAX_BITMAP_DIR_BYTES,
                    bitmaps->len, bytes);
        return NULL;
    }
    dir = p = g_malloc0(bytes);
    for (guint i = 0; i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        put_entry(p, bitmap);
        p += entry_bytes(strlen(bitmap->name), bitmap->extra_bytes);
    }
    *ret_bytes = bytes;
    return dir;
}

/* What the header says of bitmaps. */
typedef struct DirPlace {
    bool has;
    uint32_t nb;
    uint64_t bytes;
    uint64_t offset;
    uint64_t autoclear;
} DirPlace;

static DirPlace place_get(const Qcow2 *q)
{
    return (DirPlace){ q->header.has_bitmaps, q->header.nb_bitmaps,
                       q->header.bitmap_dir_bytes,
                       q->header.bitmap_dir_offset, q->header.autoclear };
}

static void place_set(Qcow2Header *header, const DirPlace *place)
{
    header->has_bitmaps = place->has;
    header->nb_bitmaps = place->nb;
    header->bitmap_dir_bytes = place->bytes;
    header->bitmap_dir_offset = place->offset;
    header->autoclear = place->autoclear;
}

/* The place of a directory of @nb bitmaps that is to come. */
static DirPlace place_new(const Qcow2 *q, guint nb)
{
    DirPlace place = { .has = nb > 0, .nb = nb };

    /* Bits of others are cleared by whoever writes. */
    place.autoclear = q->header.autoclear & QCOW2_AUTOCLEAR_MASK;
    if (place.has) {
        place.autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
    } else {
        place.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    }
    return place;
}

/* Let the header name @new instead of @old.  Meta lock. */
static int coroutine_fn dir_switch(Qcow2 *q, const DirPlace *old,
                                   const DirPlace *new, GError **errp)
{
    bool frees_old = qcow2_bitmaps_valid(q);
    Qcow2Header next = q->header;
    int ret;

    place_set(&next, new);
    SIM_POINT("qcow2.bitmap.switch", bdrv_node_name(q->bs));
    /* If nobody knows which of the two the disk has, there are no more writes:
     * bitmaps of the new one would not be marked. */
    ret = qcow2_header_replace(q, &next, errp);
    if (ret < 0) {
        if (new->has) {
            qcow2_unalloc(q, new->offset, new->bytes);
        }
        return ret;
    }
    if (new->has) {
        qcow2_metamap_add(q, QCOW2_OL_BITMAP_DIRECTORY, new->offset,
                          new->bytes);
    }
    if (frees_old) {
        qcow2_metamap_remove(q, QCOW2_OL_BITMAP_DIRECTORY, old->offset,
                             old->bytes);
        qcow2_free_later(q, old->offset, old->bytes, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

/* Space for the new directory, with its content; not yet secured. */
static int coroutine_fn dir_write(Qcow2 *q, const uint8_t *dir,
                                  DirPlace *place, GError **errp)
{
    int64_t clusters = qcow2_cluster_up(&q->geo, place->bytes) >>
                       q->geo.cluster_bits;
    Qcow2Run run = { 0 };
    int ret = qcow2_meta_lock(q);

    if (ret == 0) {
        ret = qcow2_alloc_clusters(q, clusters, true, &run);
        qcow2_meta_unlock(q);
    }
    if (ret == 0) {
        place->offset = run.offset;
        ret = qcow2_check_overlap(q, 0, run.offset, place->bytes, false);
        if (ret == 0) {
            ret = bdrv_co_pwrite(qcow2_file(q), run.offset, place->bytes, dir,
                                 0);
        }
        if (ret < 0) {
            co_mutex_lock(&q->meta_lock);
            qcow2_unalloc(q, run.offset, run.bytes);
            co_mutex_unlock(&q->meta_lock);
        }
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s' ('%s'): could not "
                                 "write a directory of stored bitmaps (%"
                                 G_GUINT64_FORMAT " bytes)",
                                 bdrv_node_name(q->bs), bdrv_filename(q->bs),
                                 place->bytes);
    }
    return 0;
}

int coroutine_fn qcow2_bitmap_dir_replace(Qcow2 *q, const GPtrArray *bitmaps,
                                          GError **errp)
{
    DirPlace old = place_get(q);
    DirPlace new = place_new(q, bitmaps->len);
    g_autofree uint8_t *dir = NULL;
    int ret;

    if (new.has) {
        dir = dir_encode(q, bitmaps, &new.bytes, errp);
        if (!dir) {
            return -ENOSPC;
        }
        ret = dir_write(q, dir, &new, errp);
        if (ret < 0) {
            return ret;
        }
    }
    /* Content, tables and their refcounts are on the disk (I1, I3) before
     * the header names them. */
    ret = qcow2_writeback(q);
    if (ret < 0) {
        block_error_errno(errp, -ret, "Node '%s' ('%s'): could not secure "
                          "stored bitmaps", bdrv_node_name(q->bs),
                          bdrv_filename(q->bs));
    }
    co_mutex_lock(&q->meta_lock);
    if (ret == 0) {
        ret = dir_switch(q, &old, &new, errp);
    } else if (new.has) {
        qcow2_unalloc(q, new.offset, new.bytes);
    }
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

/* --- in use --------------------------------------------------------------- */

/* Overwrite the flags of @bitmap on the disk. */
static int coroutine_fn put_flags(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                  uint32_t flags)
{
    int64_t at = q->header.bitmap_dir_offset + bitmap->dir_pos +
                 QCOW2_BME_FLAGS;
    uint8_t raw[4];
    int ret = qcow2_check_overlap(q, QCOW2_OL_BITMAP_DIRECTORY, at,
                                  sizeof(raw), false);

    if (ret < 0) {
        return ret;
    }
    be_put32(raw, flags);
    return bdrv_co_pwrite(qcow2_file(q), at, sizeof(raw), raw, 0);
}

/* Disown the directory.  Meta lock. */
static int coroutine_fn disown(Qcow2 *q)
{
    uint8_t raw[8];
    int ret;

    be_put64(raw, q->header.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS);
    ret = qcow2_header_patch(q, QCOW2_H_AUTOCLEAR, raw, sizeof(raw));
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    if (ret == 0) {
        q->header.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    }
    return ret;
}

int coroutine_fn qcow2_bitmaps_begin_write(Qcow2 *q)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    g_autoptr(GError) error = NULL;
    unsigned marked = 0;
    int ret;

    if (!qcow2_bitmaps_valid(q) || q->bitmaps_in_use) {
        return 0;
    }
    ret = qcow2_bitmap_dir_read(q, &bitmaps, &error);
    if (ret == -EINVAL) {
        g_warning("%s; they are given up", error->message);
        return disown(q);
    }
    for (guint i = 0; ret == 0 && i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        if (!(bitmap->flags & QCOW2_BME_IN_USE) &&
            ((bitmap->flags & QCOW2_BME_AUTO) ||
             dirty_bitmaps_track(q->bs, bitmap->name))) {           /* B1 */
            ret = put_flags(q, bitmap, bitmap->flags | QCOW2_BME_IN_USE);
            marked++;
        }
    }
    if (ret == 0 && marked > 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    if (ret == 0) {
        q->bitmaps_in_use = true;
    }
    return ret;
}

void qcow2_bitmaps_hold(Qcow2 *q)
{
    if (!atomic_load(&q->may_write)) {
        q->bitmaps_in_use = true; /* so nobody marks them */
    }
}

void coroutine_fn qcow2_bitmaps_unhold(Qcow2 *q)
{
    g_autoptr(GError) error = NULL;

    if (qcow2_settle(q, &error) < 0) {
        g_warning("%s", error->message);
        q->unsettled = true; /* what is in memory is still to be written */
    }
    /* The next write looks again which bitmaps there are. */
    q->bitmaps_in_use = false;
    atomic_store(&q->may_write, false);
}

/* B2: the entries that can be released. */
static int coroutine_fn release_held(Qcow2 *q)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    unsigned released = 0;
    int ret = qcow2_bitmap_dir_read(q, &bitmaps, NULL);

    for (guint i = 0; ret == 0 && i < bitmaps->len; i++) {
        const Qcow2Bitmap *bitmap = g_ptr_array_index(bitmaps, i);

        if ((bitmap->flags & QCOW2_BME_IN_USE) &&
            dirty_bitmaps_as_stored(q->bs, bitmap->name)) {
            ret = put_flags(q, bitmap, bitmap->flags & ~QCOW2_BME_IN_USE);
            released++;
        }
    }
    if (ret == 0 && released > 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    return ret == -EINVAL ? 0 : ret;
}

int coroutine_fn qcow2_bitmaps_release(Qcow2 *q, GError **errp)
{
    int ret;

    if (!qcow2_bitmaps_valid(q)) {
        return 0;
    }
    qcow2_bitmaps_hold(q);
    ret = release_held(q);
    qcow2_bitmaps_unhold(q);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s' ('%s'): could not "
                                 "note that the stored bitmaps are true again",
                                 bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    return 0;
}

int coroutine_fn qcow2_bitmaps_open(Qcow2 *q, GError **errp)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    g_autoptr(GError) error = NULL;
    int ret;

    q->bitmaps_in_use = false;
    if (q->header.has_bitmaps && !qcow2_bitmaps_valid(q)) {
        g_warning("Node '%s' ('%s'): bitmaps stored in the image are ignored, "
                  "since it was written without keeping them up to date",
                  bdrv_node_name(q->bs), bdrv_filename(q->bs));
        return 0;
    }
    ret = qcow2_bitmap_dir_read(q, &bitmaps, &error);
    if (ret == -EINVAL) {
        /* The disk is worth more than its bitmaps. */
        g_warning("%s", error->message);
        return 0;
    }
    if (ret < 0) {
        g_propagate_error(errp, g_steal_pointer(&error));
    }
    return ret;
}
