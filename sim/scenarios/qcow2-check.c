/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metadata of a small qcow2 image, walked from the header and compared with
 * its refcounts.
 *
 * The whole file is read into memory first: these images are tiny.
 */
#include "sim/scenarios/qcow2-image.h"

#include <string.h>

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

/* The largest file that is looked at. */
#define FILE_BYTES_MAX (64 << 20)

typedef struct Check {
    uint8_t *file;
    int64_t bytes;          /* of the file, up to whole clusters */
    int64_t cluster;
    unsigned cluster_bits;
    unsigned order;         /* of refcounts */
    unsigned version;
    bool extended;
    bool dirty;
    bool careful;           /* as in the report */
    int64_t clusters;
    uint64_t *refs;         /* found, by cluster */
    bool *metadata;         /* a table, not guest data */
    const char *table;      /* what is walked now, for texts */
    GError **errp;
} Check;

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static bool bad(Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool bad(Check *c, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    block_error(c->errp, EUCLEAN, "the image is corrupt: %s", text);
    return false;
}

/* --- references ----------------------------------------------------------- */

/* [offset, +bytes) is referred to; whole clusters are counted. */
static bool refer(Check *c, uint64_t offset, uint64_t bytes, bool metadata,
                  const char *what)
{
    uint64_t first = offset >> c->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> c->cluster_bits;

    if (bytes == 0) {
        return true;
    }
    if (metadata && offset % c->cluster) {
        return bad(c, "%s at 0x%" G_GINT64_MODIFIER "x is not aligned", what,
                   offset);
    }
    if (last >= (uint64_t)c->clusters) {
        return bad(c, "%s at 0x%" G_GINT64_MODIFIER "x ends beyond the file",
                   what, offset);
    }
    for (uint64_t i = first; i <= last; i++) {
        if ((metadata && c->refs[i] > 0) || c->metadata[i]) {
            return bad(c, "%s at 0x%" G_GINT64_MODIFIER "x uses a cluster that "
                       "something else uses", what, offset);
        }
        c->refs[i]++;
        c->metadata[i] = metadata;
    }
    return true;
}

static uint64_t refcount(const Check *c, int64_t cluster)
{
    const uint8_t *h = c->file;
    int64_t per_block = (c->cluster * 8) >> c->order;
    uint64_t table = get(h + 48, 8);
    uint64_t entries = get(h + 56, 4) * c->cluster / 8;
    uint64_t index = cluster / per_block;
    int64_t n = cluster % per_block;
    uint64_t block;

    if (index >= entries) {
        return 0;
    }
    block = get(c->file + table + index * 8, 8) & OFFSET_MASK;
    if (block == 0) {
        return 0;
    }
    if (c->order >= 3) {
        unsigned bytes = 1u << (c->order - 3);

        return get(c->file + block + n * bytes, bytes);
    }
    return (c->file[block + ((n << c->order) / 8)] >> ((n << c->order) % 8)) &
           ((1u << (1u << c->order)) - 1);
}

/* --- tables --------------------------------------------------------------- */

static bool check_refcount_table(Check *c)
{
    const uint8_t *h = c->file;
    uint64_t table = get(h + 48, 8);
    uint64_t clusters = get(h + 56, 4);

    if (clusters == 0 || clusters > 1024 ||
        !refer(c, table, clusters * c->cluster, true, "the refcount table")) {
        return clusters > 0 && clusters <= 1024
                   ? false : bad(c, "the refcount table is of no use");
    }
    for (uint64_t i = 0; i < clusters * c->cluster / 8; i++) {
        uint64_t entry = get(c->file + table + i * 8, 8);

        if (entry && !refer(c, entry, c->cluster, true, "a refcount block")) {
            return false;
        }
    }
    return true;
}

/*
 * COPIED is told where the refcount is 1, and only there; in version 2, which
 * cannot say that the image needs a repair, it may be missing.
 */
static bool check_copied(Check *c, uint64_t offset, bool copied,
                         const char *what)
{
    uint64_t count = refcount(c, offset >> c->cluster_bits);

    if (c->dirty || copied == (count == 1)) {
        return true;
    }
    if (c->version == 2 && !copied) {
        c->careful = true;
        return true;
    }
    return bad(c, "%s at 0x%" G_GINT64_MODIFIER "x has refcount %"
               G_GUINT64_FORMAT " and COPIED %d", what, offset, count, copied);
}

static bool check_compressed(Check *c, uint64_t entry)
{
    unsigned shift = 62 - (c->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & ~COMPRESSED) >> shift) + 1;
    uint64_t bytes = sectors * 512 - offset % 512;

    if (entry & COPIED) {
        return bad(c, "a compressed cluster has COPIED");
    }
    return refer(c, offset, bytes, false, "compressed data");
}

/* @active: of the active L1, whose COPIED flags mean something. */
static bool check_l2_entry(Check *c, const uint8_t *at, bool active)
{
    uint64_t entry = get(at, 8);
    uint64_t bitmap = c->extended ? get(at + 8, 8) : 0;
    uint64_t host = entry & OFFSET_MASK;

    if (entry & COMPRESSED) {
        return bitmap ? bad(c, "a compressed cluster has subclusters")
                      : check_compressed(c, entry);
    }
    if (entry & UINT64_C(0x3f000000000001fe)) {
        return bad(c, "reserved bits in L2 entry 0x%" G_GINT64_MODIFIER "x",
                   entry);
    }
    if ((bitmap & (bitmap >> 32) & 0xffffffff) ||
        (c->extended && (entry & 1)) || (c->version == 2 && (entry & 1))) {
        return bad(c, "an L2 entry says zero in a wrong way");
    }
    if (host == 0) {
        return (bitmap & 0xffffffff) || (entry & COPIED)
                   ? bad(c, "an L2 entry without a cluster says it has one")
                   : true;
    }
    if (host % c->cluster) {
        return bad(c, "guest data at 0x%" G_GINT64_MODIFIER "x are not "
                   "aligned", host);
    }
    return refer(c, host, c->cluster, false, "guest data") &&
           (!active || check_copied(c, host, entry & COPIED, "guest data"));
}

static bool check_l1(Check *c, uint64_t offset, uint64_t entries, bool active)
{
    unsigned entry_bytes = c->extended ? 16 : 8;

    if (entries > FILE_BYTES_MAX / 8 ||
        !refer(c, offset, entries * 8, true, "an L1 table")) {
        return false;
    }
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = get(c->file + offset + i * 8, 8);
        uint64_t l2 = entry & OFFSET_MASK;

        if (entry & UINT64_C(0x7f000000000001ff)) {
            return bad(c, "reserved bits in L1 entry %" G_GUINT64_FORMAT, i);
        }
        if (l2 == 0) {
            continue;
        }
        if (active && !check_copied(c, l2, entry & COPIED, "an L2 table")) {
            return false;
        }
        /* Snapshots share tables: counted, but not as metadata of one. */
        if (!refer(c, l2, c->cluster, false, "an L2 table")) {
            return false;
        }
        for (int64_t at = 0; at < c->cluster; at += entry_bytes) {
            if (!check_l2_entry(c, c->file + l2 + at, active)) {
                return false;
            }
        }
    }
    return true;
}

static bool check_snapshots(Check *c)
{
    uint64_t n = get(c->file + 60, 4);
    uint64_t start = get(c->file + 64, 8), at = start;

    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *s = c->file + at;

        if (at + 40 > (uint64_t)c->bytes) {
            return bad(c, "the snapshot table ends beyond the file");
        }
        if (!check_l1(c, get(s, 8), get(s + 8, 4), false)) {
            return false;
        }
        at += 40 + get(s + 36, 4) + get(s + 12, 2) + get(s + 14, 2);
        at = (at + 7) & ~UINT64_C(7);
    }
    return refer(c, start, at - start, true, "the snapshot table");
}

/* The table of one bitmap, and the clusters of its bits. */
static bool check_bitmap(Check *c, uint64_t table, uint64_t entries)
{
    if (entries > FILE_BYTES_MAX / 8 ||
        !refer(c, table, entries * 8, true, "a bitmap table")) {
        return false;
    }
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t bits = get(c->file + table + i * 8, 8) & OFFSET_MASK;

        if (bits && !refer(c, bits, c->cluster, true, "bits of a bitmap")) {
            return false;
        }
    }
    return true;
}

static bool check_bitmap_directory(Check *c, const uint8_t *extension)
{
    uint64_t n = get(extension, 4);
    uint64_t bytes = get(extension + 8, 8);
    uint64_t at = get(extension + 16, 8), end = at + bytes;

    if (bytes > FILE_BYTES_MAX ||
        !refer(c, at, bytes, true, "the bitmap directory")) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *entry = c->file + at;

        if (at + 24 > end ||
            !check_bitmap(c, get(entry, 8), get(entry + 8, 4))) {
            return at + 24 > end ? bad(c, "the bitmap directory is too short")
                                 : false;
        }
        at += 24 + get(entry + 18, 2) + get(entry + 20, 4);
        at = (at + 7) & ~UINT64_C(7);
    }
    return true;
}

/* The header's extensions: those that name clusters. */
static bool check_extensions(Check *c)
{
    uint64_t at = c->version == 3 ? get(c->file + 100, 4) : 72;

    while (at + 8 <= (uint64_t)c->cluster) {
        uint32_t magic = get(c->file + at, 4);
        uint64_t bytes = get(c->file + at + 4, 4);

        if (magic == 0 || bytes > (uint64_t)c->cluster) {
            break;
        }
        if (magic == 0x23852875 &&
            !check_bitmap_directory(c, c->file + at + 8)) {
            return false;
        }
        at += 8 + ((bytes + 7) & ~UINT64_C(7));
    }
    return true;
}

static bool check_counts(Check *c, SimQcow2Report *report)
{
    for (int64_t i = 0; i < c->clusters; i++) {
        uint64_t count = refcount(c, i);

        report->clusters += c->refs[i] > 0;
        if (count < c->refs[i] && !c->dirty) {
            return bad(c, "cluster %" G_GINT64_FORMAT " has refcount %"
                       G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT
                       " references", i, count, c->refs[i]);
        }
        report->leaks += count > c->refs[i];
    }
    return true;
}

/* --- the whole ------------------------------------------------------------ */

static bool check_image(Check *c, SimQcow2Report *report)
{
    const uint8_t *h = c->file;

    return refer(c, 0, c->cluster, true, "the header") &&
           check_refcount_table(c) &&
           check_l1(c, get(h + 40, 8), get(h + 36, 4), true) &&
           check_snapshots(c) && check_extensions(c) &&
           check_counts(c, report);
}

static bool read_header(Check *c)
{
    const uint8_t *h = c->file;

    if (c->bytes < 112 || memcmp(h, "QFI\xfb", 4) != 0) {
        return bad(c, "there is no header");
    }
    c->version = get(h + 4, 4);
    c->cluster_bits = get(h + 20, 4);
    c->cluster = INT64_C(1) << c->cluster_bits;
    c->order = c->version == 3 ? get(h + 96, 4) : 4;
    if (c->version == 3) {
        uint64_t features = get(h + 72, 8);

        c->dirty = features & 1;
        c->extended = features & (1 << 4);
        if (features & 2) {
            return bad(c, "the image says so itself");
        }
    }
    return true;
}

bool sim_qcow2_check(BgSimDisk *disk, SimQcow2Report *report, GError **errp)
{
    Check c = { .errp = errp };
    int64_t length = bgsim_disk_length(disk);
    bool ok = false;

    *report = (SimQcow2Report){ 0 };
    if (length > FILE_BYTES_MAX) {
        block_error(errp, EFBIG, "the image is too large to be checked");
        return false;
    }
    /* A last cluster that was written in part goes on as zeroes. */
    c.file = g_malloc0(length + (2 << 20));
    c.bytes = length;
    bgsim_disk_peek(disk, 0, length, c.file);
    if (read_header(&c)) {
        c.clusters = (length + c.cluster - 1) / c.cluster;
        c.bytes = c.clusters * c.cluster;
        c.refs = g_new0(uint64_t, c.clusters);
        c.metadata = g_new0(bool, c.clusters);
        ok = check_image(&c, report);
        report->dirty = c.dirty;
        report->careful = c.careful;
    }
    g_free(c.file);
    g_free(c.refs);
    g_free(c.metadata);
    return ok;
}
