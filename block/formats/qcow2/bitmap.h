/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps that are stored in an image.
 *
 * The header names a directory; an entry of that names a table; an entry of
 * that names a cluster of bits, or says that they are all 0 or all 1.
 *
 *   bitmap-directory.c   the directory, and which bitmaps can be used
 *   bitmap.c             tables and bits: load, store, remove
 *   bitmap-runtime.c     dirty bitmaps of the node that is open
 *
 * All of it is changed like any table: what is new is written elsewhere and
 * secured, then the header is switched, then the old is given up.  Only the
 * flag "in use" is changed in place.
 *
 * Thread: main context, node drained; but see qcow2_bitmaps_begin_write().
 */
#ifndef BLOCK_FORMATS_QCOW2_BITMAP_H
#define BLOCK_FORMATS_QCOW2_BITMAP_H

#include "block/formats/qcow2/qcow2.h"
#include "util/hbitmap.h"

/* Flags of an entry of the directory. */
#define QCOW2_BME_IN_USE (1u << 0)
#define QCOW2_BME_AUTO (1u << 1)
#define QCOW2_BME_EXTRA_COMPATIBLE (1u << 2)
#define QCOW2_BME_KNOWN 7u

/* The only type of bitmap there is. */
#define QCOW2_BMT_DIRTY_TRACKING 1

#define QCOW2_BITMAP_MIN_GRANULARITY_BITS 9
#define QCOW2_BITMAP_MAX_GRANULARITY_BITS 31

/* Bits of one bitmap, in bytes; and of all that one node has in memory. */
#define QCOW2_BITMAP_MAX_BYTES (INT64_C(512) << 20)
#define QCOW2_BITMAPS_MEMORY_MAX (INT64_C(512) << 20)

/* Fields of an entry of the directory. */
enum {
    QCOW2_BME_TABLE_OFFSET = 0,
    QCOW2_BME_TABLE_ENTRIES = 8,
    QCOW2_BME_FLAGS = 12,
    QCOW2_BME_TYPE = 16,
    QCOW2_BME_GRANULARITY = 17,
    QCOW2_BME_NAME_BYTES = 18,
    QCOW2_BME_EXTRA_BYTES = 20,
    QCOW2_BME_BYTES = 24, /* then extra data, name, padding to 8 */
};

/* An entry of a bitmap table. */
#define QCOW2_BITMAP_ALL_ONES UINT64_C(1)
#define QCOW2_BITMAP_RESERVED UINT64_C(0xff000000000001fe)

/** An entry of the directory.  What we do not know of it is kept, and what
 * makes no sense, too. */
typedef struct Qcow2Bitmap {
    char *name;
    int64_t dir_pos;         /* of the entry, from the directory's start */
    Untrusted table_offset;
    Untrusted table_entries;
    uint32_t flags;
    Untrusted type;
    Untrusted granularity_bits;
    uint8_t *extra;          /* NULL without */
    uint32_t extra_bytes;
    Qcow2 *counter;          /* where @counted is counted, if it is not 0 */
    int64_t counted;
} Qcow2Bitmap;

/* --- bitmap-directory.c --------------------------------------------------- */

/** Whether the image has bitmaps, and they were kept up to date. */
bool qcow2_bitmaps_valid(const Qcow2 *q);

/**
 * Read the directory: Qcow2Bitmap in @ret, which the caller unrefs.  Checks
 * the structure and its limits; not whether a bitmap can be used.
 */
int coroutine_fn qcow2_bitmap_dir_read(Qcow2 *q, GPtrArray **ret,
                                       GError **errp);

/**
 * Make @bitmaps the directory of the image: written elsewhere, secured, header
 * switched, old directory given up.  After a failure the old one is in force,
 * or the image takes no more writes (qcow2_header_replace).
 */
int coroutine_fn qcow2_bitmap_dir_replace(Qcow2 *q, const GPtrArray *bitmaps,
                                          GError **errp);

/** The entry of that name, or NULL; @ret_index (may be NULL): its place. */
Qcow2Bitmap *qcow2_bitmap_find(const GPtrArray *bitmaps, const char *name,
                               guint *ret_index);

/** Take the mark "in use" from each bitmap that is kept in memory, and is there
 * as it is on the disk.  The node is drained, or closes. */
int coroutine_fn qcow2_bitmaps_release(Qcow2 *q, GError **errp);

/** Why nobody may use @bitmap (a text for errors), or NULL: it can be used
 * unless it is in use. */
const char *qcow2_bitmap_defect(Qcow2 *q, const Qcow2Bitmap *bitmap);

/** Entries of a table for a disk of @size bytes; INT64_MAX: too many bits. */
int64_t qcow2_bitmap_table_entries(const Qcow2Geometry *geo, int64_t size,
                                   unsigned granularity_bits);

/* --- bitmap.c ------------------------------------------------------------- */

/** The table of a bitmap in memory, and where it lies. */
typedef struct Qcow2BitmapTable {
    int64_t offset;
    uint32_t nr;
    uint64_t *entry;         /* host-endian; NULL if there are none */
} Qcow2BitmapTable;

/** Read and check the table of @bitmap; g_free() its entries. */
int coroutine_fn qcow2_bitmap_table_read(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                         Qcow2BitmapTable *ret, GError **errp);

/** Bytes of memory that its bits take; INT64_MAX: more than any may. */
int64_t qcow2_bitmap_memory(const Qcow2 *q, const Qcow2Bitmap *bitmap);

/**
 * Load the bits of the bitmap called @name.
 *
 * @budget  bytes of memory that bitmaps may still take; less afterwards
 *
 * -ENOENT, -EBUSY (it is in use, or was when the image was last written),
 * -EINVAL (it cannot be used), -ENOMEM (so also without budget), -EIO.
 */
int coroutine_fn qcow2_bitmap_load(Qcow2 *q, const char *name,
                                   int64_t *budget, HBitmap **ret,
                                   GError **errp);

/** The same for an entry of the directory. */
int coroutine_fn qcow2_bitmap_load_entry(Qcow2 *q, const Qcow2Bitmap *bitmap,
                                         int64_t *budget, HBitmap **ret,
                                         GError **errp);

/** What to store. */
typedef struct Qcow2BitmapContent {
    const char *name;
    unsigned granularity_bits;
    uint32_t flags;      /* QCOW2_BME_IN_USE, QCOW2_BME_AUTO */
    const HBitmap *bits; /* NULL: all clean */
} Qcow2BitmapContent;

/** Store a bitmap; one of that name is replaced.  A failure changes nothing
 * and leaves nothing behind. */
int coroutine_fn qcow2_bitmap_store(Qcow2 *q,
                                    const Qcow2BitmapContent *content,
                                    GError **errp);

/** Gets each range of clusters that bitmaps occupy. */
typedef int coroutine_fn Qcow2BitmapVisitor(void *opaque, int64_t offset,
                                            int64_t bytes);

/** Visit them all, directory and tables included; stops at an error. */
int coroutine_fn qcow2_bitmaps_visit(Qcow2 *q, Qcow2BitmapVisitor *visit,
                                     void *opaque, GError **errp);

/* --- bitmap-runtime.c ----------------------------------------------------- */

/**
 * What stands in the way of a disk of @size bytes, for people; NULL: nothing,
 * bitmaps follow.  g_free() it.
 */
char *coroutine_fn qcow2_bitmaps_obstacle(Qcow2 *q, int64_t size);

#endif /* BLOCK_FORMATS_QCOW2_BITMAP_H */
