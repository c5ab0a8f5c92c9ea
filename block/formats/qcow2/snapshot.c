/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots: list, create, apply, delete.
 *
 * A snapshot is a copy of the L1 table; all that it refers to, directly or
 * through L2 tables, is referred to once more.  What follows the end of the
 * disk in an L1 table is saved machine state, and is treated like the rest.
 *
 * All of it runs in the main context with the node drained, so after a full
 * write-back the tables in the file are the truth, and are worked on there,
 * under both locks.  The order on the disk:
 *
 *   create   no entry is COPIED; refcounts up; table and header
 *   apply    refcounts up; L1 table; header; refcounts down; COPIED
 *   delete   table and header; refcounts down; COPIED
 *
 * so that at no time a cluster has fewer counts than references (I1), or is
 * written in place although a snapshot has it (I6).  A crash in between leaks
 * clusters and leaves entries without COPIED; images of version 3 are marked
 * dirty meanwhile, so that who opens them next puts that right.
 */
#include "block/formats/qcow2/snapshot.h"

#include "block/formats/qcow2/bitmap.h"

#include <blockgraph/image.h>
#include <errno.h>

/* --- looking -------------------------------------------------------------- */

static Qcow2Snapshot *nth(const Qcow2 *q, guint i)
{
    return g_ptr_array_index(q->snapshots, i);
}

static Qcow2Snapshot *find_by(const Qcow2 *q, const char *id, const char *name,
                              guint *ret_index)
{
    for (guint i = 0; i < q->snapshots->len; i++) {
        Qcow2Snapshot *s = nth(q, i);

        if ((!id || g_str_equal(s->id, id)) &&
            (!name || g_str_equal(s->name, name))) {
            *ret_index = i;
            return s;
        }
    }
    return NULL;
}

Qcow2Snapshot *qcow2_snapshot_find(Qcow2 *q, const char *id_or_name)
{
    guint index;
    Qcow2Snapshot *s = find_by(q, id_or_name, NULL, &index);

    return s ? s : find_by(q, NULL, id_or_name, &index);
}

Qcow2Snapshot *qcow2_snapshot_find_both(Qcow2 *q, const char *id,
                                        const char *name)
{
    guint index;

    return find_by(q, id, name, &index);
}

int coroutine_fn qcow2_snapshot_list(BlockDriverState *bs, GPtrArray *list,
                                     GError **errp)
{
    const Qcow2 *q = qcow2_of(bs);

    for (guint i = 0; i < q->snapshots->len; i++) {
        const Qcow2Snapshot *s = nth(q, i);
        BdrvSnapshotInfo *info = g_new(BdrvSnapshotInfo, 1);

        *info = (BdrvSnapshotInfo){
            .id = g_strdup(s->id),
            .name = g_strdup(s->name),
            .vm_state_bytes = s->vm_state_bytes,
            .date_sec = s->date_sec,
            .date_nsec = s->date_nsec,
            .vm_clock_ns = s->vm_clock_ns,
            .icount = s->icount,
            .disk_bytes = untrusted_verbatim(s->disk_bytes),
        };
        g_ptr_array_add(list, info);
    }
    return 0;
}

/* All snapshots but number @index; they stay whose they are. */
static GPtrArray *list_without(const Qcow2 *q, guint index)
{
    GPtrArray *list = g_ptr_array_new();

    for (guint i = 0; i < q->snapshots->len; i++) {
        if (i != index) {
            g_ptr_array_add(list, nth(q, i));
        }
    }
    return list;
}

/* --- before and after ----------------------------------------------------- */

typedef struct Session {
    Qcow2 *q;
    bool marked;    /* we have set the bit "dirty", and must clear it */
    bool done;      /* what was asked for is in the header, durably */
    bool stale;     /* COPIED may say that clusters are shared that are not */
} Session;

static int coroutine_fn mark(Session *s, GError **errp)
{
    Qcow2 *q = s->q;
    int ret = 0;

    if (q->header.version >= 3 && !qcow2_is_dirty(q)) {
        ret = qcow2_set_dirty(q, true);
        s->marked = ret == 0;
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not mark image "
                                 "'%s' as dirty", bdrv_node_name(q->bs),
                                 bdrv_filename(q->bs));
    }
    return 0;
}

/* Bring everything to the file, and lock all others out. */
static int coroutine_fn begin(Session *s, BlockDriverState *bs, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int ret;

    *s = (Session){ .q = q };
    if (q->has_data_file) {
        return block_error(errp, ENOTSUP, "Node '%s': image '%s' has an "
                           "external data file, so it cannot have internal "
                           "snapshots", bdrv_node_name(bs), bdrv_filename(bs));
    }
    ret = qcow2_prepare_write(q);
    if (ret == 0) {
        ret = qcow2_writeback_full(q);
    }
    if (ret < 0) {
        return qcow2_writeback_failed(q, ret, errp);
    }
    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    return 0;
}

/* --- L1 tables ------------------------------------------------------------ */

/* Entries that are written at once, 1 MiB. */
#define L1_PIECE 131072

static Qcow2L1 *active_l1(const Qcow2 *q)
{
    return atomic_load(&q->l1);
}

/* An array of at least @room entries.  @must: there is no way back, and the
 * table that it is a copy of is in memory, so its size has a limit. */
static int refs_init(Qcow2 *q, size_t room, bool must, Qcow2Refs *refs,
                     GError **errp)
{
    int64_t bytes = (int64_t)room * sizeof(uint64_t);
    int ret = 0;

    if (must) {
        qcow2_memory_take_always(q, bytes);
    } else {
        ret = qcow2_memory_take(q, bytes, errp);
    }
    if (ret < 0) {
        return ret;
    }
    refs->l1 = g_try_new0(uint64_t, MAX(room, 1));
    if (!refs->l1) {
        qcow2_memory_give(q, bytes);
        return block_error(errp, ENOMEM, "Node '%s': no memory for an L1 "
                           "table", bdrv_node_name(q->bs));
    }
    refs->room = room;
    return 0;
}

static void refs_clear(Qcow2 *q, Qcow2Refs *refs)
{
    g_clear_pointer(&refs->l1, g_free);
    qcow2_memory_give(q, (int64_t)refs->room * sizeof(uint64_t));
    refs->room = 0;
}

/* The entries of the active table. */
static int active_refs(Qcow2 *q, bool must, Qcow2Refs *ret, GError **errp)
{
    Qcow2L1 *l1 = active_l1(q);
    size_t nr = l1->nr;
    int code;

    *ret = (Qcow2Refs){ .what = "the active L1 table",
                        .nr = MIN(nr, q->header.l1_size),
                        .offset = q->header.l1_offset };
    code = refs_init(q, ret->nr, must, ret, errp);
    for (size_t i = 0; code == 0 && i < ret->nr; i++) {
        ret->l1[i] = atomic_load(&l1->entry[i]);
    }
    return code;
}

/* The entries of the table of @s, in an array of at least @room. */
static int coroutine_fn snapshot_refs(Qcow2 *q, const Qcow2Snapshot *s,
                                      size_t room, Qcow2Refs *ret,
                                      GError **errp)
{
    Qcow2L1 *l1;
    int code;

    *ret = (Qcow2Refs){ .what = "the L1 table of the snapshot" };
    if (!untrusted_is(s->l1_size, 0) &&
        (!untrusted_at_most(s->l1_offset, QCOW2_MAX_HOST_OFFSET,
                            &ret->offset) ||
         ret->offset == 0 || qcow2_into_cluster(&q->geo, ret->offset))) {
        return block_error(errp, EINVAL, "Node '%s': the L1 table of snapshot "
                           "'%s' of image '%s' is at an impossible offset: 0x%"
                           G_GINT64_MODIFIER "x", bdrv_node_name(q->bs),
                           s->name, bdrv_filename(q->bs),
                           untrusted_verbatim(s->l1_offset));
    }
    code = qcow2_l1_load(q, s->l1_offset, s->l1_size, &l1, errp);
    if (code < 0) {
        return code;
    }
    ret->nr = l1->nr;
    code = refs_init(q, MAX(ret->nr, room), false, ret, errp);
    for (size_t i = 0; code == 0 && i < ret->nr; i++) {
        ret->l1[i] = atomic_load(&l1->entry[i]);
    }
    qcow2_l1_free(q, l1);
    return code;
}

/* Write @nr entries to the table at @offset. */
static int coroutine_fn write_l1(Qcow2 *q, const uint64_t *l1, size_t nr,
                                 int64_t offset)
{
    size_t piece = MIN(nr, L1_PIECE);
    g_autofree uint64_t *buf = g_try_new(uint64_t, MAX(piece, 1));
    int ret = qcow2_check_overlap(q, QCOW2_OL_ACTIVE_L1, offset, nr * 8,
                                  false);

    if (!buf) {
        return -ENOMEM;
    }
    for (size_t at = 0; ret == 0 && at < nr; at += piece) {
        size_t n = MIN(nr - at, piece);

        for (size_t i = 0; i < n; i++) {
            buf[i] = GUINT64_TO_BE(l1[at + i]);
        }
        ret = bdrv_co_pwrite(qcow2_file(q), offset + at * 8, n * 8, buf, 0);
    }
    return ret;
}

/* Allocate a table and write it.  */
static int coroutine_fn new_l1(Qcow2 *q, const Qcow2Refs *refs, Qcow2Run *ret,
                               GError **errp)
{
    int64_t bytes = qcow2_cluster_up(&q->geo, (int64_t)refs->nr * 8);
    int code = 0;

    *ret = (Qcow2Run){ 0 };
    if (refs->nr > QCOW2_MAX_L1_BYTES / 8) {
        code = -EFBIG;
    }
    if (code == 0 && bytes > 0) {
        code = qcow2_alloc_clusters(q, bytes >> q->geo.cluster_bits, true,
                                    ret);
    }
    if (code == 0 && bytes > 0) {
        code = bdrv_co_pwrite_zeroes(qcow2_file(q), ret->offset, bytes, 0);
    }
    if (code == 0) {
        code = write_l1(q, refs->l1, refs->nr, ret->offset);
    }
    if (code < 0 && ret->bytes > 0) {
        qcow2_unalloc(q, ret->offset, ret->bytes);
    }
    if (code < 0) {
        return block_error_errno(errp, -code, "Node '%s': could not write a "
                                 "new L1 table of %zu entries",
                                 bdrv_node_name(q->bs), refs->nr);
    }
    return 0;
}

/* COPIED in all that the active table refers to: in the file, in memory. */
static int coroutine_fn set_active_copied(Qcow2 *q, Qcow2Refs *refs,
                                          bool clear, GError **errp)
{
    Qcow2L1 *l1 = active_l1(q);
    int ret = qcow2_refs_set_copied(q, refs, clear, errp);

    if (ret < 0) {
        return ret;
    }
    ret = write_l1(q, refs->l1, refs->nr, q->header.l1_offset);
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    for (size_t i = 0; ret == 0 && i < refs->nr; i++) {
        atomic_store(&l1->entry[i], refs->l1[i]);
    }
    return ret < 0 ? block_error_errno(errp, -ret, "Node '%s': could not write "
                                       "the L1 table", bdrv_node_name(q->bs))
                   : 0;
}

/* --- the end -------------------------------------------------------------- */

/* What failed has left entries without COPIED: set it where it belongs, once
 * refcounts that have fallen are on the disk (I6). */
static int coroutine_fn restore_copied(Qcow2 *q, GError **errp)
{
    Qcow2Refs active = { 0 };
    int ret = qcow2_secure_refcounts(q);

    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not write "
                                 "refcounts", bdrv_node_name(q->bs));
    }
    ret = active_refs(q, true, &active, errp);
    if (ret == 0) {
        ret = set_active_copied(q, &active, false, errp);
    }
    refs_clear(q, &active);
    return ret;
}

/* One failure is not two: try once more.  If that fails, too, an image that is
 * marked dirty is left alone till it is opened again, which puts that right;
 * any other is as good without COPIED, and gets it back when it is settled. */
static void coroutine_fn end_stale(Session *s)
{
    Qcow2 *q = s->q;
    g_autoptr(GError) error = NULL;

    s->stale = restore_copied(q, &error) < 0;
    q->copied_stale = s->stale;
    if (s->stale && qcow2_is_dirty(q)) {
        qcow2_stop_writes(q, error->message);
    }
}

int coroutine_fn qcow2_snapshots_settle(Qcow2 *q)
{
    int ret = 0;

    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    if (q->copied_stale) {
        ret = restore_copied(q, NULL);
        q->copied_stale = ret < 0;
        qcow2_cache_reset(q->l2_cache);
    }
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    return ret;
}

/*
 * The result of an operation, of which @ret and @error tell.  A failure after
 * the header was switched is no failure of what was asked for, and must not
 * look like one: who is told that a snapshot was not deleted, or not returned
 * to, counts on it.  At worst clusters have leaked.
 */
static int result(const Session *s, int ret, GError *error, GError **errp)
{
    if (ret < 0 && s->done) {
        g_warning("%s; what was asked for is done, but clusters may have "
                  "leaked", error->message);
        g_error_free(error);
        return 0;
    }
    return ret < 0 ? qcow2_pass_error(errp, error) : 0;
}

/* Make what was done durable, and go on as usual.  @ret and @error: of what was
 * done. */
static int coroutine_fn end(Session *s, int ret, GError *error, GError **errp)
{
    Qcow2 *q = s->q;
    g_autoptr(GError) map_error = NULL;
    int end_ret;

    if (s->stale && !atomic_load(&q->corrupt)) {
        end_stale(s);
    }
    end_ret = qcow2_secure_refcounts(q);
    if (end_ret == 0 && s->marked && !s->stale && !atomic_load(&q->corrupt)) {
        end_ret = qcow2_set_dirty(q, false);
    }
    if (end_ret == 0) {
        end_ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    if (ret == 0 && end_ret < 0) {
        ret = block_error_errno(&error, -end_ret, "Node '%s': could not write "
                                "the refcounts of image '%s'",
                                bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    /* Tables were changed behind its back. */
    qcow2_cache_reset(q->l2_cache);
    if (qcow2_metamap_build(q, &map_error) < 0) {
        g_warning("%s", map_error->message);
    }
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    return result(s, ret, error, errp);
}

/* --- create --------------------------------------------------------------- */

/* One more than the largest number that is an ID, or the next one that is none:
 * very large ones are not counted. */
static char *next_id(const Qcow2 *q)
{
    uint64_t largest = 0;
    char *id = NULL;
    guint index;

    for (guint i = 0; i < q->snapshots->len; i++) {
        uint64_t number = g_ascii_strtoull(nth(q, i)->id, NULL, 10);

        if (number < UINT32_MAX) {
            largest = MAX(largest, number);
        }
    }
    do {
        g_free(id);
        id = g_strdup_printf("%" G_GUINT64_FORMAT, ++largest);
    } while (find_by(q, id, NULL, &index));
    return id;
}

static int check_new(const Qcow2 *q, const BdrvSnapshotInfo *info,
                     GError **errp)
{
    const char *name = info->name ? info->name : "";
    guint index;

    if (q->snapshots->len >= QCOW2_MAX_SNAPSHOTS) {
        return block_error(errp, EFBIG, "Node '%s': image '%s' has %u "
                           "snapshots, the most that are possible",
                           bdrv_node_name(q->bs), bdrv_filename(q->bs),
                           q->snapshots->len);
    }
    if (strlen(name) > UINT16_MAX || (info->id && strlen(info->id) >
                                                      UINT16_MAX)) {
        return block_error(errp, EINVAL, "Node '%s': the name of a snapshot "
                           "is too long", bdrv_node_name(q->bs));
    }
    if (info->id && find_by(q, info->id, NULL, &index)) {
        return block_error(errp, EEXIST, "Node '%s': image '%s' has a "
                           "snapshot with the ID '%s'", bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), info->id);
    }
    return 0;
}

/* NULL with @errp if there may not be one more in memory. */
static Qcow2Snapshot *describe(Qcow2 *q, const BdrvSnapshotInfo *info,
                               GError **errp)
{
    size_t names = (info->id ? strlen(info->id) : 0) +
                   (info->name ? strlen(info->name) : 0);
    Qcow2Snapshot *s = g_new0(Qcow2Snapshot, 1);

    if (qcow2_snapshot_count(q, s, names, errp) < 0) {
        g_free(s);
        return NULL;
    }
    s->id = info->id ? g_strdup(info->id) : next_id(q);
    s->name = g_strdup(info->name ? info->name : "");
    s->date_sec = info->date_sec;
    s->date_nsec = info->date_nsec;
    s->vm_clock_ns = info->vm_clock_ns;
    s->vm_state_bytes = info->vm_state_bytes;
    s->disk_bytes = untrusted(atomic_load(&q->size));
    s->icount = info->icount;
    s->extra_bytes = QCOW2_SNAPSHOT_EXTRA;
    return s;
}

/* With one more reference to all of @active, enter @s. */
static int coroutine_fn enter(Qcow2 *q, Qcow2Snapshot *s, Qcow2Refs *active,
                              GError **errp)
{
    GPtrArray *list;
    Qcow2Run run;
    int ret = new_l1(q, active, &run, errp);

    if (ret < 0) {
        return ret;
    }
    s->l1_offset = untrusted(run.offset);
    s->l1_size = untrusted(active->nr);
    list = list_without(q, G_MAXUINT);
    g_ptr_array_add(list, s);
    ret = qcow2_snapshots_write(q, list, errp);
    g_ptr_array_unref(list);
    if (ret < 0) {
        if (run.bytes > 0) {
            qcow2_unalloc(q, run.offset, run.bytes);
        }
        return ret;
    }
    g_ptr_array_add(q->snapshots, s);
    return 0;
}

static int coroutine_fn create(Session *session, Qcow2Snapshot *s,
                               Qcow2Refs *active, GError **errp)
{
    Qcow2 *q = session->q;
    int ret = qcow2_refs_change(q, active, QCOW2_REFS_CHECK, errp);

    if (ret == 0) {
        ret = mark(session, errp);
    }
    if (ret < 0) {
        return ret;
    }
    session->stale = true;
    ret = set_active_copied(q, active, true, errp);
    if (ret == 0) {
        ret = qcow2_refs_change(q, active, QCOW2_REFS_ADD, errp);
        if (ret == 0) {
            g_autoptr(GError) error = NULL;

            ret = enter(q, s, active, errp);
            session->done = ret == 0;
            if (ret < 0 && qcow2_refs_change(q, active, QCOW2_REFS_DROP,
                                             &error) < 0) {
                g_warning("%s; clusters leak", error->message);
            }
        }
    }
    session->stale = ret < 0; /* shared from now on */
    return ret;
}

int coroutine_fn qcow2_snapshot_create(BlockDriverState *bs,
                                       const BdrvSnapshotInfo *info,
                                       GError **errp)
{
    Session session;
    Qcow2Refs active = { 0 };
    Qcow2Snapshot *s;
    Qcow2 *q = qcow2_of(bs);
    GError *error = NULL;
    int ret = check_new(q, info, errp);

    if (ret < 0) {
        return ret;
    }
    qcow2_bitmaps_hold(q);
    ret = begin(&session, bs, errp);
    if (ret < 0) {
        qcow2_bitmaps_unhold(q);
        return ret;
    }
    s = describe(q, info, &error);
    ret = s ? active_refs(q, false, &active, &error) : -EFBIG;
    if (ret == 0) {
        ret = create(&session, s, &active, &error);
    }
    if (ret < 0) {
        qcow2_snapshot_free(q, s);
    }
    refs_clear(q, &active);
    ret = end(&session, ret, error, errp);
    qcow2_bitmaps_unhold(q);
    return ret;
}

/* --- delete --------------------------------------------------------------- */

/* The snapshot is not in the table any more: give up what only it had. */
static int coroutine_fn drop(Qcow2 *q, const Qcow2Refs *refs, GError **errp)
{
    Qcow2Refs active;
    int ret = qcow2_refs_change(q, refs, QCOW2_REFS_DROP, errp);

    if (ret == 0 && refs->nr > 0) {
        ret = qcow2_drop_now(q, refs->offset, (int64_t)refs->nr * 8,
                             QCOW2_DISCARD_SNAPSHOT);
        if (ret < 0) {
            block_error_errno(errp, -ret, "Node '%s': could not free the L1 "
                              "table of a snapshot", bdrv_node_name(q->bs));
        }
    }
    if (ret == 0) {
        ret = qcow2_secure_refcounts(q);
        if (ret < 0) {
            block_error_errno(errp, -ret, "Node '%s': could not write "
                              "refcounts", bdrv_node_name(q->bs));
        }
    }
    if (ret == 0) {
        ret = active_refs(q, true, &active, errp);
    }
    if (ret == 0) {
        ret = set_active_copied(q, &active, false, errp);
        refs_clear(q, &active);
    }
    return ret;
}

static int coroutine_fn delete(Session *session, guint index, GError **errp)
{
    Qcow2 *q = session->q;
    Qcow2Snapshot *s = nth(q, index);
    GPtrArray *list;
    Qcow2Refs refs;
    int ret = snapshot_refs(q, s, 0, &refs, errp);

    if (ret < 0) {
        return ret;
    }
    ret = mark(session, errp);
    if (ret == 0) {
        list = list_without(q, index);
        ret = qcow2_snapshots_write(q, list, errp);
        g_ptr_array_unref(list);
    }
    if (ret == 0) {
        session->done = true;
        g_ptr_array_remove_index(q->snapshots, index);
        if (refs.nr > 0) {
            qcow2_metamap_remove(q, QCOW2_OL_INACTIVE_L1, refs.offset,
                                 (int64_t)refs.nr * 8);
        }
        ret = drop(q, &refs, errp);
        session->stale = ret < 0;
        qcow2_snapshot_free(q, s);
    }
    refs_clear(q, &refs);
    return ret;
}

int coroutine_fn qcow2_snapshot_delete(BlockDriverState *bs, const char *id,
                                       const char *name, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    GError *error = NULL;
    Session session;
    guint index;
    int ret;

    if (!find_by(q, id, name, &index)) {
        return block_error(errp, ENOENT, "Node '%s': image '%s' has no "
                           "snapshot with %s '%s'", bdrv_node_name(bs),
                           bdrv_filename(bs), id ? "the ID" : "the name",
                           id ? id : name);
    }
    qcow2_bitmaps_hold(q);
    ret = begin(&session, bs, errp);
    if (ret == 0) {
        ret = delete(&session, index, &error);
        ret = end(&session, ret, error, errp);
    }
    qcow2_bitmaps_unhold(q);
    return ret;
}

/* --- apply ---------------------------------------------------------------- */

/* Size, L1 size and L1 offset stand side by side: one write, one sector. */
typedef uint8_t L1Place[QCOW2_H_REFTABLE_OFFSET - QCOW2_H_SIZE];

static void put_place(const Qcow2 *q, uint8_t *fields, uint64_t size,
                      uint32_t nr, uint64_t offset)
{
    be_put64(fields, size);
    be_put32(fields + QCOW2_H_CRYPT_METHOD - QCOW2_H_SIZE,
             q->header.crypt_method);
    be_put32(fields + QCOW2_H_L1_SIZE - QCOW2_H_SIZE, nr);
    be_put64(fields + QCOW2_H_L1_OFFSET - QCOW2_H_SIZE, offset);
}

/* The table at @run is the active one from now on, of a disk of @size. */
static int coroutine_fn switch_l1(Qcow2 *q, uint64_t size, Qcow2L1 *l1,
                                  const Qcow2Refs *refs, const Qcow2Run *run)
{
    L1Place fields, before;
    int ret = qcow2_secure_refcounts(q);

    put_place(q, fields, size, refs->nr, run->offset);
    put_place(q, before, q->header.size, q->header.l1_size,
              q->header.l1_offset);
    if (ret == 0) {
        ret = qcow2_header_switch(q, QCOW2_H_SIZE, fields, before,
                                  sizeof(fields));
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_l1_set(q, l1, refs->l1, refs->nr);
    atomic_store(&q->size, size);
    q->header.size = size;
    q->header.l1_size = refs->nr;
    q->header.l1_offset = run->offset;
    return 0;
}

/* Nothing refers to the old table and, through it, to what it names. */
static int coroutine_fn drop_l1(Qcow2 *q, int64_t offset,
                                const Qcow2Refs *refs, GError **errp)
{
    int ret = qcow2_refs_change(q, refs, QCOW2_REFS_DROP, errp);

    if (ret == 0 && refs->nr > 0) {
        ret = qcow2_drop_now(q, offset, (int64_t)refs->nr * 8,
                             QCOW2_DISCARD_SNAPSHOT);
        if (ret < 0) {
            block_error_errno(errp, -ret, "Node '%s': could not free the old "
                              "L1 table", bdrv_node_name(q->bs));
        }
    }
    return ret;
}

/* The table of @new, in the file and in memory, is that of a disk of @size. */
static int coroutine_fn install_l1(Qcow2 *q, uint64_t size,
                                   const Qcow2Refs *new, GError **errp)
{
    GError *error = NULL;
    Qcow2L1 *l1 = qcow2_l1_reserve(q, new->nr, &error);
    Qcow2Run run;
    int ret;

    if (!l1) {
        return qcow2_pass_error(errp, error);
    }
    ret = new_l1(q, new, &run, errp);
    if (ret == 0) {
        ret = switch_l1(q, size, l1, new, &run);
        if (ret < 0) {
            if (run.bytes > 0) {
                qcow2_unalloc(q, run.offset, run.bytes);
            }
            block_error_errno(errp, -ret, "Node '%s': could not write where "
                              "the L1 table lies", bdrv_node_name(q->bs));
        }
    }
    if (ret < 0 && l1 != active_l1(q)) {
        qcow2_l1_free(q, l1);
    }
    return ret;
}

/* All that @new refers to has one more reference. */
static int coroutine_fn replace_l1(Session *session, uint64_t size,
                                   Qcow2Refs *old, Qcow2Refs *new,
                                   GError **errp)
{
    Qcow2 *q = session->q;
    int64_t old_offset = q->header.l1_offset;
    int ret = install_l1(q, size, new, errp);

    session->done = ret == 0;
    if (ret < 0) {
        g_autoptr(GError) error = NULL;

        if (qcow2_refs_change(q, new, QCOW2_REFS_DROP, &error) < 0) {
            g_warning("%s; clusters leak", error->message);
        }
        return ret;
    }
    qcow2_metamap_remove(q, QCOW2_OL_ACTIVE_L1, old_offset,
                         (int64_t)old->nr * 8);
    ret = drop_l1(q, old_offset, old, errp);
    if (ret == 0) {
        ret = qcow2_secure_refcounts(q);
        if (ret < 0) {
            block_error_errno(errp, -ret, "Node '%s': could not write "
                              "refcounts", bdrv_node_name(q->bs));
        }
    }
    return ret == 0 ? set_active_copied(q, new, false, errp) : ret;
}

/* @size: of the disk then. */
static int coroutine_fn apply(Session *session, const Qcow2Snapshot *s,
                              int64_t size, Qcow2Refs *old, GError **errp)
{
    Qcow2 *q = session->q;
    size_t need = qcow2_l1_entries(&q->geo, size);
    Qcow2Refs new;
    int ret = snapshot_refs(q, s, need, &new, errp);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < new.nr; i++) {
        new.l1[i] &= ~QCOW2_OFLAG_COPIED;
    }
    ret = qcow2_refs_change(q, &new, QCOW2_REFS_CHECK, errp);
    if (ret == 0) {
        ret = mark(session, errp);
    }
    if (ret == 0) {
        ret = qcow2_refs_change(q, &new, QCOW2_REFS_ADD, errp);
    }
    if (ret == 0) {
        new.nr = MAX(new.nr, need);
        ret = replace_l1(session, size, old, &new, errp);
        session->stale = ret < 0;
    }
    refs_clear(q, &new);
    return ret;
}

/* Whether @s can be applied; then @ret_size is what the disk's would be. */
static int coroutine_fn check_apply(Qcow2 *q, const Qcow2Snapshot *s,
                                    int64_t *ret_size, GError **errp)
{
    g_autofree char *obstacle = NULL;

    if (!untrusted_at_most(s->disk_bytes,
                           MIN(qcow2_max_size(&q->geo), BDRV_MAX_LENGTH),
                           ret_size)) {
        return block_error(errp, EFBIG, "Node '%s': snapshot '%s' of image "
                           "'%s' is of a disk of %" G_GUINT64_FORMAT " bytes, "
                           "above the limit", bdrv_node_name(q->bs), s->name,
                           bdrv_filename(q->bs),
                           untrusted_verbatim(s->disk_bytes));
    }
    obstacle = qcow2_bitmaps_obstacle(q, *ret_size);
    if (obstacle) {
        return block_error(errp, EBUSY, "Node '%s': snapshot '%s' of image "
                           "'%s' cannot be applied: %s",
                           bdrv_node_name(q->bs), s->name,
                           bdrv_filename(q->bs), obstacle);
    }
    return 0;
}

int coroutine_fn qcow2_snapshot_goto(BlockDriverState *bs,
                                     const char *id_or_name, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    const Qcow2Snapshot *s = qcow2_snapshot_find(q, id_or_name);
    Qcow2Refs old = { 0 };
    GError *error = NULL;
    Session session;
    int64_t size = 0;
    int ret;

    if (!s) {
        return block_error(errp, ENOENT, "Node '%s': image '%s' has no "
                           "snapshot '%s'", bdrv_node_name(bs),
                           bdrv_filename(bs), id_or_name);
    }
    ret = check_apply(q, s, &size, errp);
    if (ret == 0) {
        ret = begin(&session, bs, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = active_refs(q, false, &old, &error);
    if (ret == 0) {
        ret = apply(&session, s, size, &old, &error);
    }
    refs_clear(q, &old);
    return end(&session, ret, error, errp);
}
