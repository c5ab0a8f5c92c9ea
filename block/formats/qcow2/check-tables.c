/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk over all tables of an image, counting what they refer to.
 *
 * First the metadata: header, L1 tables, snapshot table, bitmaps, refcount
 * structures, L2 tables.  An L2 table that several snapshots share is noted
 * with the number of its users, and read once.  So the time is bounded by the
 * size of the file, whatever an image says.  Then what L2 tables name, which
 * must not be metadata.
 *
 * Entries that are wrong in a way that leaves no doubt are repaired here.
 */
#include "block/formats/qcow2/bitmap.h"
#include "block/formats/qcow2/check.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* The table that is being walked. */
typedef struct L2Walk {
    const Qcow2CheckL2 *l2;
    int64_t offset;      /* in the file */
    bool changed;        /* the copy in memory */
    int64_t next;        /* where data of the guest would go on; 0: not known */
} L2Walk;

#define MAX_L2_TABLES (INT64_C(16) << 20)

#define SUBCLUSTERS_LOW UINT64_C(0xffffffff)

/* --- counting ------------------------------------------------------------- */

/* Count @times more references to the clusters that the range touches, which
 * lie before c->end. */
static int add_references(Qcow2Check *c, int64_t offset, int64_t bytes,
                          uint32_t times)
{
    unsigned bits = c->q->geo.cluster_bits;

    g_assert(bytes > 0 && qcow2_check_inside(c, offset, bytes));
    for (int64_t i = offset >> bits; i <= (offset + bytes - 1) >> bits; i++) {
        int ret = qcow2_refmap_set(c->refs, i,
                                   qcow2_refmap_get(c->refs, i) + times);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int qcow2_check_add_meta(Qcow2Check *c, int64_t offset, int64_t bytes,
                         uint32_t times, const char *what)
{
    unsigned bits = c->q->geo.cluster_bits;

    for (int64_t i = offset >> bits; i <= (offset + bytes - 1) >> bits; i++) {
        int ret = qcow2_refmap_set(c->meta, i, 1);

        if (ret < 0) {
            return ret;
        }
        if (qcow2_refmap_get(c->refs, i) > 0) {
            qcow2_check_found(c, false, "ERROR cluster %" G_GINT64_FORMAT
                              " of the %s is used by other metadata, too", i,
                              what);
        }
    }
    return add_references(c, offset, bytes, times);
}

/* A table at a place that an image says; false: it cannot be there. */
static bool check_place(Qcow2Check *c, Untrusted offset, int64_t bytes,
                        const char *what, int64_t *ret)
{
    int64_t end = c->end << c->q->geo.cluster_bits;
    bool aligned = untrusted_bits(offset, c->q->geo.cluster_bytes - 1) == 0;
    bool inside = untrusted_at_most(offset, end - bytes, ret) && *ret > 0;

    c->incomplete |= !aligned || !inside;
    if (!aligned) {
        qcow2_check_found(c, false, "ERROR offset 0x%" G_GINT64_MODIFIER "x: "
                          "%s is not cluster aligned",
                          untrusted_verbatim(offset), what);
        return false;
    }
    if (!inside) {
        qcow2_check_found(c, false, "ERROR offset 0x%" G_GINT64_MODIFIER "x: "
                          "%s lies beyond the end of the image",
                          untrusted_verbatim(offset), what);
        return false;
    }
    return true;
}

/* --- L1 ------------------------------------------------------------------- */

/* An entry that names nothing in the file is as good as none. */
static int coroutine_fn drop_l1_entry(Qcow2Check *c, size_t index)
{
    Qcow2 *q = c->q;
    int64_t at = q->header.l1_offset + (int64_t)index * 8;
    uint64_t zero = 0;
    int ret = qcow2_check_overlap(q, QCOW2_OL_ACTIVE_L1, at, 8, false);

    return ret < 0 ? ret : bdrv_co_pwrite(qcow2_file(q), at, 8, &zero, 0);
}

static int coroutine_fn check_l1_entry(Qcow2Check *c, uint64_t entry,
                                       size_t index, bool active)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;
    int64_t bytes = c->q->geo.cluster_bytes;
    Qcow2CheckL2 l2 = {
        .cluster = offset >> c->q->geo.cluster_bits,
        .refs = 1,
        .active_index = active ? index : QCOW2_CHECK_INACTIVE,
    };
    bool fixed;
    int ret;

    if (entry & QCOW2_L1_RESERVED) {
        qcow2_check_found(c, false, "ERROR L1 entry %zu has reserved bits set: "
                          "0x%" G_GINT64_MODIFIER "x", index, entry);
    }
    if (offset == 0) {
        return 0;
    }
    if (!qcow2_check_inside(c, offset, bytes)) {
        fixed = active && qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS) &&
                drop_l1_entry(c, index) == 0;
        qcow2_check_found(c, fixed, "%s L1 entry %zu: L2 table at 0x%"
                          G_GINT64_MODIFIER "x lies beyond the end of the "
                          "image", fixed ? "Repairing" : "ERROR", index,
                          offset);
        return 0;
    }
    if (qcow2_into_cluster(&c->q->geo, offset)) {
        qcow2_check_found(c, false, "ERROR L1 entry %zu: L2 table at 0x%"
                          G_GINT64_MODIFIER "x is not cluster aligned", index,
                          offset);
        c->incomplete = true;
        return add_references(c, offset, bytes, 1);
    }
    if (c->l2->len >= MAX_L2_TABLES) {
        return -ENOMEM;
    }
    ret = qcow2_check_take(c, 2 * sizeof(l2)); /* it grows by doubling */
    if (ret == 0) {
        g_array_append_val(c->l2, l2);
    }
    return ret;
}

/* Count an L1 table, note its L2 tables. */
static int coroutine_fn check_l1(Qcow2Check *c, Untrusted offset, size_t nr,
                                 bool active)
{
    g_autoptr(GError) error = NULL;
    const char *what = active ? "active L1 table" : "L1 table of a snapshot";
    int64_t at = 0;
    Qcow2L1 *l1;
    int ret;

    if (nr == 0 || !check_place(c, offset, nr * 8, what, &at)) {
        return 0;
    }
    ret = bdrv_image_step(c->q->bs, NULL);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_l1_load(c->q, offset, untrusted(nr), &l1, &error);
    if (ret < 0) {
        qcow2_check_failed(c, ret, what);
        c->incomplete = true;
        return 0;
    }
    ret = qcow2_check_add_meta(c, at, nr * 8, 1, what);
    for (size_t i = 0; ret == 0 && i < nr; i++) {
        uint64_t entry = atomic_load_explicit(&l1->entry[i],
                                              memory_order_relaxed);

        ret = entry ? check_l1_entry(c, entry, i, active) : 0;
    }
    qcow2_l1_free(c->q, l1);
    return ret;
}

/* --- snapshots, bitmaps --------------------------------------------------- */

static int coroutine_fn check_snapshots(Qcow2Check *c)
{
    Qcow2 *q = c->q;
    int64_t bytes = qcow2_snapshots_bytes(q);
    int64_t at = 0, all = 0;
    int ret = 0;

    if (bytes > 0 && check_place(c, untrusted(q->header.snapshots_offset),
                                 bytes, "snapshot table", &at)) {
        ret = qcow2_check_add_meta(c, at, bytes, 1, "snapshot table");
    }
    for (guint i = 0; ret == 0 && i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(q->snapshots, i);
        size_t nr;

        if (!untrusted_at_most(s->l1_size, QCOW2_MAX_L1_BYTES / 8, &nr)) {
            qcow2_check_found(c, false, "ERROR snapshot %s (%s): its L1 table "
                              "is too large", s->id, s->name);
            c->incomplete = true;
            continue;
        }
        all += nr * 8;
        if (!qcow2_check_inside(c, 0, all)) {
            qcow2_check_found(c, false, "ERROR snapshot %s (%s): the L1 tables "
                              "are larger than the file together", s->id,
                              s->name);
            c->incomplete = true;
            break;
        }
        ret = check_l1(c, s->l1_offset, nr, false);
    }
    return ret;
}

static int coroutine_fn visit_bitmap(void *opaque, int64_t offset,
                                     int64_t bytes)
{
    Qcow2Check *c = opaque;
    int64_t at = 0;

    return check_place(c, untrusted(offset), bytes, "bitmap", &at)
               ? qcow2_check_add_meta(c, at, bytes, 1, "bitmap")
               : 0;
}

static int coroutine_fn check_bitmaps(Qcow2Check *c)
{
    g_autoptr(GError) error = NULL;
    int ret;

    if (!c->q->header.has_bitmaps || c->q->header.nb_bitmaps == 0) {
        return 0;
    }
    ret = qcow2_bitmaps_visit(c->q, visit_bitmap, c, &error);
    if (ret == -ENOMEM) {
        return ret;
    }
    c->incomplete |= ret < 0;
    if (ret == -EINVAL) {
        qcow2_check_found(c, false, "ERROR %s",
                          error ? error->message : "bitmaps are invalid");
    } else if (ret < 0) {
        qcow2_check_failed(c, ret, "bitmaps");
    }
    return 0;
}

/* --- L2: compressed entries ----------------------------------------------- */

static void count_data(Qcow2Check *c, const L2Walk *w, bool compressed,
                       bool fragmented)
{
    if (w->l2->active_index != QCOW2_CHECK_INACTIVE) {
        c->res->allocated_clusters++;
        c->res->compressed_clusters += compressed;
        c->res->fragmented_clusters += fragmented;
    }
}

/* What an entry is called in messages. */
static char *entry_name(const L2Walk *w, unsigned i, Qcow2L2Entry entry)
{
    return g_strdup_printf("L2 table 0x%" G_GINT64_MODIFIER "x entry %u (0x%"
                           G_GINT64_MODIFIER "x)", (uint64_t)w->offset, i,
                           entry.word);
}

static void found_entry(Qcow2Check *c, bool fixed, const char *name,
                        const char *what)
{
    qcow2_check_found(c, fixed, "%s %s %s", fixed ? "Repairing" : "ERROR",
                      name, what);
}

static int check_compressed(Qcow2Check *c, L2Walk *w, unsigned i,
                            Qcow2L2Entry *entry)
{
    bool fix = qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS);
    g_autofree char *name = NULL;
    Qcow2Compressed data;

    if (c->q->has_data_file) {
        name = entry_name(w, i, *entry);
        found_entry(c, false, name, "is compressed, with an external data "
                    "file");
        return 0;
    }
    if (entry->word & QCOW2_OFLAG_COPIED) {
        name = entry_name(w, i, *entry);
        found_entry(c, fix, name, "is compressed and has COPIED set");
        entry->word &= ~QCOW2_OFLAG_COPIED;
    }
    if (entry->bitmap) {
        g_free(name);
        name = entry_name(w, i, *entry);
        found_entry(c, fix, name, "is compressed and has subclusters");
        entry->bitmap = 0;
    }
    data = qcow2_compressed_decode(&c->q->geo, entry->word);
    if (!qcow2_check_inside(c, data.host_offset, data.bytes)) {
        g_free(name);
        name = entry_name(w, i, *entry);
        found_entry(c, false, name, "names compressed data beyond the end of "
                    "the image");
        return 0;
    }
    count_data(c, w, true, true);
    return add_references(c, data.host_offset, data.bytes, w->l2->refs);
}

/* --- L2: standard entries ------------------------------------------------- */

/* Whether @entry shows data of its own cluster to the guest. */
static bool shows_data(const Qcow2 *q, Qcow2L2Entry entry)
{
    return q->geo.extended_l2 ? (entry.bitmap & SUBCLUSTERS_LOW) != 0
                              : !(entry.word & QCOW2_OFLAG_ZERO);
}

/* Make @entry name no cluster and read as zero where it named data.  False: in
 * this image there is no such entry. */
static bool unname(const Qcow2 *q, Qcow2L2Entry *entry)
{
    if (q->geo.extended_l2) {
        entry->bitmap |= entry->bitmap << 32;
        entry->bitmap &= ~SUBCLUSTERS_LOW;
        entry->word = 0;
        return true;
    }
    if (q->header.version < 3 &&
        (bdrv_cow_child(q->bs) || q->header.backing_file)) {
        return false; /* without an entry it would show that */
    }
    entry->word = q->header.version >= 3 ? QCOW2_OFLAG_ZERO : 0;
    return true;
}

static void check_flags(Qcow2Check *c, L2Walk *w, unsigned i,
                        Qcow2L2Entry *entry)
{
    const Qcow2 *q = c->q;
    bool fix = qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS);
    g_autofree char *name = entry_name(w, i, *entry);
    uint64_t both = entry->bitmap & entry->bitmap >> 32 & SUBCLUSTERS_LOW;
    bool has_host = qcow2_l2_host(*entry) ||
                    (q->has_data_file && (entry->word & QCOW2_OFLAG_COPIED));

    if ((entry->word & QCOW2_L2_RESERVED) ||
        (q->geo.extended_l2 && (entry->word & QCOW2_OFLAG_ZERO))) {
        found_entry(c, false, name, "has reserved bits set");
    }
    if (both) {
        /* The data are there; nobody knows whether they are wanted. */
        found_entry(c, fix, name, "has subclusters that are zero as well as "
                    "allocated");
        entry->bitmap &= ~(both << 32);
    }
    if ((entry->bitmap & SUBCLUSTERS_LOW) && !has_host) {
        found_entry(c, fix, name, "has allocated subclusters, but no cluster");
        entry->bitmap &= ~SUBCLUSTERS_LOW;
    }
}

/* An entry whose cluster cannot be where it says.  True: it names none now. */
static bool check_host(Qcow2Check *c, L2Walk *w, unsigned i,
                       Qcow2L2Entry *entry)
{
    const Qcow2 *q = c->q;
    int64_t host = qcow2_l2_host(*entry);
    bool beyond = !q->has_data_file &&
                  !qcow2_check_inside(c, host, q->geo.cluster_bytes);
    g_autofree char *name = NULL;
    Qcow2L2Entry fixed = *entry;
    bool fix = false;

    if (!beyond && !qcow2_into_cluster(&q->geo, host)) {
        return false;
    }
    /* A misaligned offset was a good one once, if there are data. */
    if (beyond || !shows_data(q, *entry)) {
        fix = qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS) &&
              unname(q, &fixed);
    }
    name = entry_name(w, i, *entry);
    found_entry(c, fix, name, beyond ? "names a cluster beyond the end of the "
                                       "image"
                                     : "names a cluster that is not aligned");
    if (fix) {
        *entry = fixed;
    }
    return fix || beyond;
}

/* With a raw external data file guest and host offset are the same. */
static void check_raw(Qcow2Check *c, const L2Walk *w, unsigned i,
                      Qcow2L2Entry entry)
{
    const Qcow2 *q = c->q;
    int64_t guest;

    if (!q->data_file_raw || w->l2->active_index == QCOW2_CHECK_INACTIVE) {
        return;
    }
    guest = (((int64_t)w->l2->active_index << q->geo.l2_bits) + i)
            << q->geo.cluster_bits;
    if (guest != qcow2_l2_host(entry)) {
        g_autofree char *name = entry_name(w, i, entry);

        found_entry(c, false, name, "is not at its guest offset in the raw "
                    "data file");
    }
}

static int check_standard(Qcow2Check *c, L2Walk *w, unsigned i,
                          Qcow2L2Entry *entry)
{
    const Qcow2 *q = c->q;
    int64_t host, cluster;

    if ((entry->word & ~(QCOW2_OFFSET_MASK | QCOW2_OFLAG_COPIED)) ||
        entry->bitmap) {
        check_flags(c, w, i, entry);
    }
    host = qcow2_l2_host(*entry);
    if (host == 0 && !(q->has_data_file &&
                       (entry->word & QCOW2_OFLAG_COPIED))) {
        return 0;
    }
    if (check_host(c, w, i, entry)) {
        return 0;
    }
    count_data(c, w, false, w->next && host != w->next);
    w->next = host + q->geo.cluster_bytes;
    if (q->has_data_file) {
        check_raw(c, w, i, *entry);
        return 0;
    }
    cluster = host >> q->geo.cluster_bits;
    if (qcow2_refmap_get(c->meta, cluster) > 0) {
        g_autofree char *name = entry_name(w, i, *entry);

        found_entry(c, false, name, "names a cluster of metadata");
    }
    return add_references(c, host, q->geo.cluster_bytes, w->l2->refs);
}

/* --- L2: tables ----------------------------------------------------------- */

static int check_entry(Qcow2Check *c, L2Walk *w, unsigned i)
{
    const Qcow2Geometry *geo = &c->q->geo;
    uint8_t *p = c->table + (size_t)i * geo->l2_entry_bytes;
    Qcow2L2Entry old = qcow2_l2_from_disk(geo, p);
    Qcow2L2Entry entry = old;
    int ret;

    if (!old.word && !old.bitmap) {
        return 0;
    }
    ret = old.word & QCOW2_OFLAG_COMPRESSED
              ? check_compressed(c, w, i, &entry)
              : check_standard(c, w, i, &entry);
    if (qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS) &&
        (entry.word != old.word || entry.bitmap != old.bitmap)) {
        be_put64(p, entry.word);
        if (geo->extended_l2) {
            be_put64(p + 8, entry.bitmap);
        }
        w->changed = true;
    }
    return ret;
}

static int coroutine_fn check_l2(Qcow2Check *c, const Qcow2CheckL2 *l2)
{
    Qcow2 *q = c->q;
    int64_t bytes = q->geo.cluster_bytes;
    L2Walk w = { .l2 = l2, .offset = l2->cluster << q->geo.cluster_bits };
    int ret = bdrv_co_pread(qcow2_file(q), w.offset, bytes, c->table, 0);

    if (ret < 0) {
        qcow2_check_failed(c, ret, "L2 table");
        c->incomplete = true;
        return 0;
    }
    for (unsigned i = 0; ret == 0 && i < 1u << q->geo.l2_bits; i++) {
        ret = check_entry(c, &w, i);
    }
    if (ret < 0 || !w.changed) {
        return ret;
    }
    ret = qcow2_check_overlap(q, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                              w.offset, bytes, false);
    if (ret == 0) {
        ret = bdrv_co_pwrite(qcow2_file(q), w.offset, bytes, c->table, 0);
    }
    if (ret < 0) {
        qcow2_check_failed(c, ret, "repaired L2 table");
    }
    return 0;
}

static int compare_l2(const void *a, const void *b)
{
    const Qcow2CheckL2 *x = a;
    const Qcow2CheckL2 *y = b;

    if (x->cluster != y->cluster) {
        return x->cluster < y->cluster ? -1 : 1;
    }
    return (x->active_index > y->active_index) -
           (x->active_index < y->active_index);
}

/* One element a table. */
static void merge_l2(GArray *all)
{
    guint n = 0;

    g_array_sort(all, compare_l2);
    for (guint i = 0; i < all->len; i++) {
        Qcow2CheckL2 *here = &g_array_index(all, Qcow2CheckL2, i);
        Qcow2CheckL2 *last = n ? &g_array_index(all, Qcow2CheckL2, n - 1)
                               : NULL;

        if (last && last->cluster == here->cluster) {
            last->refs += here->refs;
        } else {
            g_array_index(all, Qcow2CheckL2, n++) = *here;
        }
    }
    g_array_set_size(all, n);
}

int coroutine_fn qcow2_check_tables(Qcow2Check *c)
{
    Qcow2 *q = c->q;
    int64_t bytes = q->geo.cluster_bytes;
    int ret = qcow2_check_add_meta(c, 0, bytes, 1, "header");

    if (ret == 0) {
        ret = check_l1(c, untrusted(q->header.l1_offset), q->header.l1_size,
                       true);
    }
    if (ret == 0) {
        ret = check_snapshots(c);
    }
    if (ret == 0) {
        ret = check_bitmaps(c);
    }
    if (ret == 0) {
        ret = qcow2_check_refblocks(c);
    }
    merge_l2(c->l2);
    for (guint i = 0; ret == 0 && i < c->l2->len; i++) {
        const Qcow2CheckL2 *l2 = &g_array_index(c->l2, Qcow2CheckL2, i);

        ret = qcow2_check_add_meta(c, l2->cluster << q->geo.cluster_bits,
                                   bytes, l2->refs, "L2 tables");
    }
    for (guint i = 0; ret == 0 && i < c->l2->len; i++) {
        ret = bdrv_image_step(q->bs, NULL);
        if (ret == 0) {
            ret = check_l2(c, &g_array_index(c->l2, Qcow2CheckL2, i));
        }
    }
    return ret;
}
