/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refcounts against references.
 *
 * Refcount blocks are looked at one by one, whole; clusters that are referred
 * to but have no usable block are found in the map of references.  Both take
 * time in proportion to what is really in the file.
 *
 * In place a refcount is only ever set to the number of references, each for
 * itself: a crash in between leaves some right and some wrong, as before.
 */
#include "block/formats/qcow2/check.h"

#include <errno.h>

/* Of the map of references that are looked at without asking for time. */
#define CLUSTERS_A_STEP 65536

/* --- the refcount structure ----------------------------------------------- */

bool qcow2_check_block_counted(const Qcow2Check *c, uint64_t entry)
{
    return entry && qcow2_reftable_entry_valid(&c->q->geo, entry,
                                               c->q->fresh_from);
}

/* A refcount table entry that is not 0; whether its block is of use. */
static int check_block(Qcow2Check *c, size_t index, uint64_t entry,
                       bool *ret_ok)
{
    int64_t bytes = c->q->geo.cluster_bytes;

    *ret_ok = false;
    if (entry & QCOW2_REFTABLE_RESERVED) {
        qcow2_check_found(c, false, "ERROR refcount table entry %zu has "
                          "reserved bits set", index);
        return 0;
    }
    if (qcow2_into_cluster(&c->q->geo, entry)) {
        qcow2_check_found(c, false, "ERROR refcount block %zu is not cluster "
                          "aligned; refcount table entry corrupted", index);
        return 0;
    }
    if (!qcow2_check_block_counted(c, entry)) {
        qcow2_check_found(c, false, "ERROR refcount block %zu is outside of "
                          "the image", index);
        return 0;
    }
    *ret_ok = true;
    return qcow2_check_add_meta(c, entry, bytes, 1, "refcount blocks");
}

int coroutine_fn qcow2_check_refblocks(Qcow2Check *c)
{
    const Qcow2Reftable *table = &c->q->reftable;
    int ret = 0;

    if (table->nr > 0) {
        ret = qcow2_check_add_meta(c, table->offset, table->nr * 8, 1,
                                   "refcount table");
    } else {
        qcow2_check_found(c, false, "ERROR the refcount table cannot be read");
        c->rebuild = true;
    }
    for (size_t i = 0; ret == 0 && i < table->nr; i++) {
        if (table->entry[i]) {
            ret = check_block(c, i, table->entry[i], &c->block_ok[i]);
            c->rebuild |= !c->block_ok[i];
        }
    }
    return ret;
}

/* A block that something else uses, too, counts nothing. */
static void distrust_blocks(Qcow2Check *c)
{
    const Qcow2Reftable *table = &c->q->reftable;

    for (size_t i = 0; i < table->nr; i++) {
        int64_t cluster = table->entry[i] >> c->q->geo.cluster_bits;

        if (c->block_ok[i] && qcow2_refmap_get(c->refs, cluster) != 1) {
            c->block_ok[i] = false;
            c->rebuild = true;
        }
    }
}

static bool has_block(const Qcow2Check *c, int64_t cluster)
{
    int64_t index = qcow2_refblock_index(c->q, cluster);

    return index < (int64_t)c->q->reftable.nr && c->block_ok[index];
}

/* --- comparing ------------------------------------------------------------ */

static void note_end(Qcow2Check *c, int64_t cluster)
{
    c->res->image_end_offset = MAX(c->res->image_end_offset,
                                   (cluster + 1) << c->q->geo.cluster_bits);
}

/* The refcount of @cluster is not the number of its references. */
static int coroutine_fn found_count(Qcow2Check *c, int64_t cluster,
                                    uint64_t count, uint64_t refs)
{
    bool leak = count > refs;
    bool fix = qcow2_check_fixes(c, leak ? BDRV_CHECK_FIX_LEAKS
                                         : BDRV_CHECK_FIX_ERRORS);
    int ret;

    if (!has_block(c, cluster)) {
        c->rebuild = true;
        fix = false;
    }
    if (leak && c->incomplete) {
        fix = false; /* perhaps it is none */
    }
    if (c->rebuild && qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS)) {
        fix = false; /* all refcounts will be new */
    }
    fix = fix && refs <= c->q->geo.refcount_max;
    qcow2_check_say(c, "%s cluster %" G_GINT64_FORMAT " refcount=%"
                    G_GUINT64_FORMAT " reference=%" G_GUINT64_FORMAT,
                    fix ? "Repairing" : leak ? "Leaked" : "ERROR", cluster,
                    count, refs);
    if (fix) {
        ret = qcow2_refcount_set(c->q, cluster, refs);
        if (ret < 0) {
            qcow2_check_failed(c, ret, "repaired refcount");
            fix = false;
        }
    }
    if (leak) {
        c->res->leaks += !fix;
        c->res->leaks_fixed += fix;
    } else {
        c->res->corruptions += !fix;
        c->res->corruptions_fixed += fix;
    }
    return 0;
}

static int coroutine_fn compare_block(Qcow2Check *c, size_t index)
{
    Qcow2 *q = c->q;
    int64_t first = (int64_t)index << q->geo.refblock_bits;
    int64_t end = MIN(first + (INT64_C(1) << q->geo.refblock_bits), c->end);
    int ret;

    if (first >= end) {
        return 0;
    }
    ret = bdrv_image_step(q->bs, NULL);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pread(qcow2_file(q), q->reftable.entry[index],
                        q->geo.cluster_bytes, c->table, 0);
    if (ret < 0) {
        qcow2_check_failed(c, ret, "refcount block");
        return 0;
    }
    for (int64_t i = first; ret == 0 && i < end; i++) {
        uint64_t count = untrusted_bits(
            qcow2_refcount_at(c->table, q->geo.refcount_order, i - first),
            q->geo.refcount_max);
        uint64_t refs = qcow2_refmap_get(c->refs, i);

        if (count || refs) {
            note_end(c, i);
        }
        if (count != refs) {
            ret = found_count(c, i, count, refs);
        }
    }
    return ret;
}

/* What is referred to, but has no usable block. */
static int coroutine_fn find_uncounted(Qcow2Check *c)
{
    int64_t cluster = 0;
    int ret = 0;

    while (ret == 0 && (cluster = qcow2_refmap_next(c->refs, cluster)) >= 0) {
        uint64_t refs = qcow2_refmap_get(c->refs, cluster);

        if (refs && !has_block(c, cluster)) {
            note_end(c, cluster);
            ret = found_count(c, cluster, 0, refs);
        }
        cluster++;
        if (ret == 0 && cluster % CLUSTERS_A_STEP == 0) {
            ret = bdrv_image_step(c->q->bs, NULL);
        }
    }
    return ret;
}

int coroutine_fn qcow2_check_counts(Qcow2Check *c)
{
    int ret = 0;

    distrust_blocks(c);
    for (size_t i = 0; ret == 0 && i < c->q->reftable.nr; i++) {
        if (c->block_ok[i]) {
            ret = compare_block(c, i);
        }
    }
    return ret == 0 ? find_uncounted(c) : ret;
}

/* --- COPIED --------------------------------------------------------------- */

/* Whether COPIED belongs to an entry that names @offset; false in @ret_known
 * where nothing can be said. */
static int coroutine_fn want_copied(Qcow2Check *c, int64_t offset,
                                    bool *ret_known, bool *ret)
{
    int64_t cluster = offset >> c->q->geo.cluster_bits;
    uint64_t count = 0;
    int err = 0;

    *ret_known = cluster < c->end && has_block(c, cluster) &&
                 !qcow2_into_cluster(&c->q->geo, offset);
    if (*ret_known) {
        err = qcow2_refcount_get(c->q, cluster, &count);
    }
    *ret = count == 1;
    return err;
}

/* Who asks only for leaks gets COPIED repaired where nothing else is wrong. */
static bool may_fix_copied(const Qcow2Check *c)
{
    const BdrvCheckResult *res = c->res;

    if (qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS)) {
        return true;
    }
    return qcow2_check_fixes(c, BDRV_CHECK_FIX_LEAKS) && !res->leaks &&
           !res->corruptions && !res->check_errors;
}

/* Look at @word, which names a @what; true: it was repaired. */
static bool coroutine_fn check_word(Qcow2Check *c, uint64_t *word, bool fix,
                                    const char *what)
{
    bool known, want;
    int ret = want_copied(c, *word & QCOW2_OFFSET_MASK, &known, &want);

    if (ret < 0) {
        qcow2_check_failed(c, ret, "refcount");
        return false;
    }
    if (!known || want == ((*word & QCOW2_OFLAG_COPIED) != 0)) {
        return false;
    }
    qcow2_check_found(c, fix, "%s COPIED of a%s: entry=0x%" G_GINT64_MODIFIER
                      "x, refcount %s 1", fix ? "Repairing" : "ERROR", what,
                      *word, want ? "is" : "is not");
    *word ^= QCOW2_OFLAG_COPIED;
    return fix;
}

static bool coroutine_fn check_l2_copied(Qcow2Check *c, bool fix)
{
    const Qcow2Geometry *geo = &c->q->geo;
    bool changed = false;

    for (unsigned i = 0; i < 1u << geo->l2_bits; i++) {
        uint8_t *p = c->table + (size_t)i * geo->l2_entry_bytes;
        uint64_t word = untrusted_word(untrusted_be64(p));

        if ((word & QCOW2_OFFSET_MASK) && !(word & QCOW2_OFLAG_COMPRESSED) &&
            !c->q->has_data_file &&
            check_word(c, &word, fix, " data cluster")) {
            be_put64(p, word);
            changed = true;
        }
    }
    return changed;
}

static int coroutine_fn write_word(Qcow2Check *c, int64_t offset,
                                   uint64_t word)
{
    uint8_t buf[8];
    int ret = qcow2_check_overlap(c->q, QCOW2_OL_ACTIVE_L1, offset, 8, false);

    be_put64(buf, word);
    return ret < 0 ? ret : bdrv_co_pwrite(qcow2_file(c->q), offset, 8, buf, 0);
}

/* Entry @index of the active L1 table, and the table it names. */
static void coroutine_fn check_table_copied(Qcow2Check *c, Qcow2L1 *l1,
                                            size_t index, bool fix)
{
    Qcow2 *q = c->q;
    int64_t bytes = q->geo.cluster_bytes;
    uint64_t word = atomic_load_explicit(&l1->entry[index],
                                         memory_order_relaxed);
    int64_t offset = word & QCOW2_OFFSET_MASK;
    int ret = 0;

    if (offset == 0 || qcow2_into_cluster(&q->geo, offset) ||
        !qcow2_check_inside(c, offset, bytes)) {
        return;
    }
    if (check_word(c, &word, fix, "n L2 table")) {
        ret = write_word(c, q->header.l1_offset + (int64_t)index * 8, word);
    }
    if (ret == 0) {
        ret = bdrv_co_pread(qcow2_file(q), offset, bytes, c->table, 0);
    }
    if (ret == 0 && check_l2_copied(c, fix)) {
        ret = qcow2_check_overlap(q, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                                  offset, bytes, false);
        if (ret == 0) {
            ret = bdrv_co_pwrite(qcow2_file(q), offset, bytes, c->table, 0);
        }
    }
    if (ret < 0) {
        qcow2_check_failed(c, ret, "COPIED of an L2 table");
    }
}

int coroutine_fn qcow2_check_copied(Qcow2Check *c)
{
    const Qcow2Header *h = &c->q->header;
    g_autoptr(GError) error = NULL;
    bool fix = may_fix_copied(c);
    Qcow2L1 *l1;
    int ret = 0;

    if (h->l1_size == 0 ||
        qcow2_l1_load(c->q, untrusted(h->l1_offset), untrusted(h->l1_size),
                      &l1, &error) < 0) {
        /* Was told when its tables were looked for, unless time is over. */
        return bdrv_image_step(c->q->bs, NULL);
    }
    for (size_t i = 0; ret == 0 && i < l1->nr; i++) {
        check_table_copied(c, l1, i, fix);
        ret = bdrv_image_step(c->q->bs, NULL);
    }
    qcow2_l1_free(c->q, l1);
    return ret;
}
