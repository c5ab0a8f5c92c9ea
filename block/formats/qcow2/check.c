/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checking an image, and what is repaired on the way.
 *
 *   1  count the references of all tables; repair entries
 *   2  compare with the refcounts; repair these in place, or all anew
 *   3  compare COPIED of the active tables with the refcounts
 *   4  if nothing is wrong any more, take back "dirty" and "corrupt"
 *
 * What a step repairs is durable before the next one relies on it, and each
 * single change makes the image no worse; so after a crash a second repair
 * finds what the first one has left.
 */
#include "block/formats/qcow2/check.h"

#include <blockgraph/iov.h>
#include <errno.h>
#include <stdarg.h>

/* Memory that references may take, whatever the image says. */
#define REFS_BYTES (INT64_C(160) << 20)
#define META_BYTES (INT64_C(64) << 20)

/* --- telling -------------------------------------------------------------- */

static void say_v(Qcow2Check *c, const char *format, va_list args)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;

    if (c->how->message) {
        text = g_strdup_vprintf(format, args);
        /* Names in it come from the image: an error text is fit to be
         * shown. */
        block_error(&error, EIO, "%s", text);
        c->how->message(error->message, c->how->opaque);
    }
}

void qcow2_check_say(Qcow2Check *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_v(c, format, args);
    va_end(args);
}

void qcow2_check_found(Qcow2Check *c, bool fixed, const char *format, ...)
{
    va_list args;

    if (fixed) {
        c->res->corruptions_fixed++;
    } else {
        c->res->corruptions++;
    }
    va_start(args, format);
    say_v(c, format, args);
    va_end(args);
}

void qcow2_check_failed(Qcow2Check *c, int ret, const char *what)
{
    c->res->check_errors++;
    qcow2_check_say(c, "ERROR could not read or write: %s: %s", what,
                    g_strerror(-ret));
}

/* --- the steps ------------------------------------------------------------ */

int qcow2_check_take(Qcow2Check *c, int64_t bytes)
{
    int ret = qcow2_memory_take(c->q, bytes, c->why ? NULL : &c->why);

    c->counted += ret == 0 ? bytes : 0;
    return ret;
}

static int check_begin(Qcow2Check *c)
{
    Qcow2 *q = c->q;
    int ret = qcow2_check_take(c, q->reftable.nr);

    c->end = (q->fresh_from >> q->geo.cluster_bits) + 1;
    c->refs = qcow2_refmap_new(q, REFS_BYTES, &c->why);
    c->meta = qcow2_refmap_new(q, META_BYTES, &c->why);
    c->l2 = g_array_new(false, false, sizeof(Qcow2CheckL2));
    c->block_ok = g_new0(bool, MAX(q->reftable.nr, 1));
    c->table = block_aligned_try_alloc(4096, q->geo.cluster_bytes);
    c->res->total_clusters =
        qcow2_cluster_up(&q->geo, q->header.size) >> q->geo.cluster_bits;
    return ret < 0 || c->table ? ret : -ENOMEM;
}

static void check_end(Qcow2Check *c)
{
    qcow2_refmap_free(c->refs);
    qcow2_refmap_free(c->meta);
    g_array_unref(c->l2);
    g_free(c->block_ok);
    block_aligned_free(c->table);
    qcow2_memory_give(c->q, c->counted);
    c->counted = 0;
}

static int coroutine_fn check_refcounts(Qcow2Check *c)
{
    int ret = qcow2_check_counts(c);

    if (ret < 0 || !c->rebuild ||
        !qcow2_check_fixes(c, BDRV_CHECK_FIX_ERRORS)) {
        return ret;
    }
    if (c->incomplete) {
        qcow2_check_say(c, "ERROR the refcount structure is not built anew, as "
                        "not all tables could be followed");
        return 0;
    }
    qcow2_check_say(c, "Rebuilding refcount structure");
    ret = qcow2_rebuild_refcounts(c);
    if (ret < 0) {
        qcow2_check_failed(c, ret, "new refcount structure");
        return 0;
    }
    c->rebuilt = true;
    return 0;
}

/* What was repaired so far is on the disk. */
static void coroutine_fn secure(Qcow2Check *c)
{
    int ret = 0;

    if (c->how->flags) {
        ret = qcow2_secure_refcounts(c->q);
    }
    if (ret < 0) {
        qcow2_check_failed(c, ret, "what was repaired");
    }
}

/* The image is good: say so in its header. */
static int coroutine_fn mark_clean(Qcow2 *q)
{
    uint64_t bits = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    uint8_t buf[8];
    int ret;

    if (q->header.version < 3 || !(q->header.incompatible & bits)) {
        return 0;
    }
    be_put64(buf, q->header.incompatible & ~bits);
    ret = qcow2_header_patch(q, QCOW2_H_INCOMPATIBLE, buf, sizeof(buf));
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    q->dirty_unsure = ret < 0;
    if (ret == 0) {
        q->header.incompatible &= ~bits;
    }
    return ret;
}

static int coroutine_fn check_steps(Qcow2Check *c)
{
    int ret = check_begin(c);

    if (ret == 0) {
        ret = qcow2_check_tables(c);
    }
    if (ret == 0) {
        ret = check_refcounts(c);
    }
    if (ret == 0 && !c->rebuilt) {
        secure(c);
        ret = qcow2_check_copied(c);
        secure(c);
    }
    check_end(c);
    return ret;
}

/* The reason for an -EFBIG, if it was a sum, goes to @errp. */
static void give_reason(Qcow2Check *c, int ret, GError **errp)
{
    GError *why = g_steal_pointer(&c->why);

    if (ret == -EFBIG && why) {
        g_propagate_error(errp, why);
    } else {
        g_clear_error(&why);
    }
}

/* With new refcounts all is looked at again: what the first round has found
 * and the second one does not was repaired. */
static int coroutine_fn check_again(Qcow2Check *c, GError **errp)
{
    BdrvCheckResult first = *c->res;
    Qcow2Check again = { .q = c->q, .how = c->how, .res = c->res };
    int ret = qcow2_reload(c->q, errp);

    if (ret < 0) {
        return ret;
    }
    *c->res = (BdrvCheckResult){ 0 };
    ret = check_steps(&again);
    give_reason(&again, ret, errp);
    first.corruptions += first.corruptions_fixed;
    first.leaks += first.leaks_fixed;
    c->res->corruptions_fixed =
        MAX(first.corruptions - c->res->corruptions, 0);
    c->res->leaks_fixed = MAX(first.leaks - c->res->leaks, 0);
    return ret;
}

/* The image says no more that it is in a bad state, or it does. */
static void coroutine_fn repair_end(Qcow2Check *c, bool was_corrupt)
{
    Qcow2 *q = c->q;
    int ret;

    if (atomic_load(&q->corrupt) || c->res->corruptions ||
        c->res->check_errors) {
        if (was_corrupt) {
            atomic_store(&q->corrupt, true);
        }
        return;
    }
    ret = mark_clean(q);
    if (ret < 0) {
        qcow2_check_failed(c, ret, "state of the image");
    }
}

/* The file was changed behind the back of what is in memory. */
static int coroutine_fn repair_finish(Qcow2Check *c, bool was_corrupt, int ret,
                                      GError **errp)
{
    int reload_ret;

    if (ret == 0) {
        repair_end(c, was_corrupt);
    } else if (was_corrupt) {
        atomic_store(&c->q->corrupt, true);
    }
    reload_ret = qcow2_reload(c->q, ret == 0 ? errp : NULL);
    return ret == 0 ? reload_ret : ret;
}

int coroutine_fn qcow2_check_locked(Qcow2 *q, const BdrvCheck *how,
                                    BdrvCheckResult *res, GError **errp)
{
    Qcow2Check c = { .q = q, .how = how, .res = res };
    bool was_corrupt = atomic_load(&q->corrupt);
    g_autoptr(GError) error = NULL;
    int ret;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    *res = (BdrvCheckResult){ 0 };
    if (how->flags) {
        qcow2_cache_reset(q->l2_cache);
        qcow2_cache_reset(q->refcount_cache);
        atomic_store(&q->corrupt, false);
    }
    ret = check_steps(&c);
    give_reason(&c, ret, &error);
    if (ret == 0 && c.rebuilt) {
        ret = check_again(&c, &error);
    }
    if (how->flags) {
        ret = repair_finish(&c, was_corrupt, ret, &error);
    }
    if (ret < 0 && error) {
        g_propagate_error(errp, g_steal_pointer(&error));
    } else if (ret < 0) {
        block_error_errno(errp, -ret, "Node '%s': could not check image '%s'",
                          bdrv_node_name(q->bs), bdrv_filename(q->bs));
    }
    return ret;
}

int coroutine_fn qcow2_check(BlockDriverState *bs, const BdrvCheck *how,
                             BdrvCheckResult *res, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    int ret = 0;

    if (!q->read_only && !atomic_load(&q->corrupt)) {
        ret = qcow2_writeback_full(q);
    } else if (how->flags && qcow2_cache_nr_dirty(q->l2_cache) > 0) {
        ret = -EIO; /* a repair would forget what only the cache has */
    }
    if (ret < 0) {
        return qcow2_writeback_failed(q, ret, errp);
    }
    co_mutex_lock(&q->writeback_lock);
    co_mutex_lock(&q->meta_lock);
    if (how->flags & BDRV_CHECK_FIX_ERRORS) {
        /* What is repaired may read otherwise, also after a crash. */
        ret = qcow2_bitmaps_begin_write(q);
    }
    if (ret < 0) {
        block_error_errno(errp, -ret, "Node '%s': could not mark the bitmaps "
                          "of image '%s' as in use", bdrv_node_name(bs),
                          bdrv_filename(bs));
    } else {
        ret = qcow2_check_locked(q, how, res, errp);
    }
    co_mutex_unlock(&q->meta_lock);
    co_mutex_unlock(&q->writeback_lock);
    return ret;
}
