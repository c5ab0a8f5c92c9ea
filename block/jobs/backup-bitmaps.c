/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps of a backup: what is copied, and what they stand for afterwards.
 *
 * The bitmap of "bitmap" stands for what has changed since some backup.  If its
 * mode lets it, it stands for what has changed since this one afterwards: its
 * successor takes its place.
 *
 * The bitmap of "resume-bitmap" stands for what the target lacks.  It is made
 * by the first attempt, has what is missing after one that has failed (what was
 * not copied, and what has changed since), and goes when one succeeds.  When
 * the process has died nobody knows what has changed: the bitmap is
 * inconsistent, or was never stored.  Then what is in the target already is
 * found out by comparing, and an incremental backup looks at the whole disk.
 */
#include "block/jobs/backup.h"

#include <errno.h>

/* --- which ---------------------------------------------------------------- */

static int check_mode(BackupJob *b, GError **errp)
{
    BackupOptions *o = &b->o;
    bool needs = o->sync == BACKUP_SYNC_INCREMENTAL ||
                 o->sync == BACKUP_SYNC_BITMAP;

    if (needs && !o->bitmap) {
        return block_error(errp, EINVAL, "Job '%s': sync=incremental and "
                           "sync=bitmap need the option 'bitmap'", b->job.id);
    }
    if (!o->bitmap) {
        return o->bitmap_mode == BACKUP_BITMAP_UNSET
                   ? 0
                   : block_error(errp, EINVAL, "Job '%s': 'bitmap-mode' needs "
                                 "the option 'bitmap'", b->job.id);
    }
    if (o->sync == BACKUP_SYNC_NONE) {
        return block_error(errp, EINVAL, "Job '%s': sync=none does not work "
                           "with a bitmap", b->job.id);
    }
    if (o->sync == BACKUP_SYNC_INCREMENTAL) {
        if (o->bitmap_mode != BACKUP_BITMAP_UNSET &&
            o->bitmap_mode != BACKUP_BITMAP_ON_SUCCESS) {
            return block_error(errp, EINVAL, "Job '%s': sync=incremental means "
                               "bitmap-mode=on-success", b->job.id);
        }
        o->bitmap_mode = BACKUP_BITMAP_ON_SUCCESS;
    }
    if (o->bitmap_mode == BACKUP_BITMAP_UNSET) {
        return block_error(errp, EINVAL, "Job '%s': a bitmap needs the option "
                           "'bitmap-mode'", b->job.id);
    }
    if (!needs && o->bitmap_mode == BACKUP_BITMAP_NEVER) {
        return block_error(errp, EINVAL, "Job '%s': with bitmap-mode=never the "
                           "bitmap would have no effect", b->job.id);
    }
    return 0;
}

static int check_resume(BackupJob *b, GError **errp)
{
    if (!b->o.resume_bitmap) {
        return 0;
    }
    if (b->o.sync == BACKUP_SYNC_NONE) {
        return block_error(errp, EINVAL, "Job '%s': sync=none cannot be "
                           "resumed", b->job.id);
    }
    if (b->o.bitmap && g_str_equal(b->o.bitmap, b->o.resume_bitmap)) {
        return block_error(errp, EINVAL, "Job '%s': 'bitmap' and "
                           "'resume-bitmap' must not be the same", b->job.id);
    }
    return 0;
}

/* Whether @bitmap and what an earlier attempt has left are both lost: that is
 * what the death of a process leaves. */
static bool has_died(BackupJob *b, BdrvDirtyBitmap *bitmap)
{
    BdrvDirtyBitmap *resume =
        b->o.resume_bitmap ? bdrv_find_dirty_bitmap(b->source,
                                                    b->o.resume_bitmap)
                           : NULL;

    return bdrv_dirty_bitmap_inconsistent(bitmap) && b->o.resume_bitmap &&
           (!resume || bdrv_dirty_bitmap_inconsistent(resume));
}

int backup_check_bitmaps(BackupJob *b, GError **errp)
{
    BdrvDirtyBitmap *bitmap;
    int ret = check_mode(b, errp);

    if (ret == 0) {
        ret = check_resume(b, errp);
    }
    if (ret < 0 || !b->o.bitmap) {
        return ret;
    }
    bitmap = bdrv_find_dirty_bitmap(b->source, b->o.bitmap);
    if (!bitmap) {
        return block_error(errp, ENOENT, "Job '%s': node '%s' has no bitmap "
                           "'%s'", b->job.id, b->o.device, b->o.bitmap);
    }
    if (has_died(b, bitmap)) {
        return 0;
    }
    return bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY |
                                   BDRV_BITMAP_RO |
                                   BDRV_BITMAP_INCONSISTENT, errp);
}

/* --- begin ---------------------------------------------------------------- */

/* The bitmap of an earlier attempt; NULL: there is none that is of use. */
static int coroutine_fn find_resume(BackupJob *b, BdrvDirtyBitmap **ret,
                                    GError **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(b->source,
                                                     b->o.resume_bitmap);

    *ret = NULL;
    if (!bitmap) {
        return 0;
    }
    if (bdrv_dirty_bitmap_inconsistent(bitmap)) {
        return bdrv_co_remove_dirty_bitmap(bitmap, errp);
    }
    if (!bdrv_dirty_bitmap_enabled(bitmap)) {
        return block_error(errp, EINVAL, "Job '%s': bitmap '%s' is disabled, "
                           "and may have missed what has changed", b->job.id,
                           b->o.resume_bitmap);
    }
    *ret = bitmap;
    return bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY |
                                   BDRV_BITMAP_RO, errp);
}

/* A bitmap that the image keeps, if it can; else it lives as long as the
 * node. */
static BdrvDirtyBitmap *make_bitmap(BackupJob *b, const char *name,
                                    int64_t granularity, GError **errp)
{
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(b->source, granularity, name, errp);

    if (bitmap) {
        bdrv_dirty_bitmap_set_persistence(bitmap, true, NULL);
    }
    return bitmap;
}

/* What an interruption leaves.  Nothing is known of what the target has. */
static BdrvDirtyBitmap *make_resume(BackupJob *b, GError **errp)
{
    block_copy_set_compare(b->copy, true);
    return make_bitmap(b, b->o.resume_bitmap,
                       block_copy_cluster_bytes(b->copy), errp);
}

/* In place of @bitmap, which is inconsistent: anything may have changed. */
static BdrvDirtyBitmap *coroutine_fn make_anew(BackupJob *b,
                                               BdrvDirtyBitmap *bitmap,
                                               GError **errp)
{
    int64_t granularity = bdrv_dirty_bitmap_granularity(bitmap);

    if (bdrv_co_remove_dirty_bitmap(bitmap, errp) < 0) {
        return NULL;
    }
    bitmap = make_bitmap(b, b->o.bitmap, granularity, errp);
    if (bitmap) {
        bdrv_set_dirty_bitmap(bitmap, 0, INT64_MAX);
    }
    return bitmap;
}

/* Copy only what @bitmap has. */
static int limit_to(BackupJob *b, BdrvDirtyBitmap *bitmap, GError **errp)
{
    int64_t length = block_copy_length(b->copy);
    HBitmap *scope =
        hbitmap_new(length, __builtin_ctzll(block_copy_cluster_bytes(b->copy)));
    int64_t at = 0, start, bytes;

    if (!scope) {
        return block_error(errp, ENOMEM, "Job '%s': no memory for a bitmap",
                           b->job.id);
    }
    while (bdrv_dirty_bitmap_next_dirty_area(bitmap, at, length, INT64_MAX,
                                             &start, &bytes)) {
        hbitmap_set(scope, start, bytes);
        at = start + bytes;
    }
    block_copy_set_bitmap(b->copy, scope);
    hbitmap_free(scope);
    return 0;
}

/* What is to be copied goes to @bitmap. */
static void note_missing(BackupJob *b, BdrvDirtyBitmap *bitmap)
{
    int64_t at = 0, start, bytes;

    while (block_copy_next_dirty_area(b->copy, at, &start, &bytes)) {
        bdrv_set_dirty_bitmap(bitmap, start, bytes);
        at = start + bytes;
    }
}

static bool is_incremental(const BackupJob *b)
{
    return b->o.sync == BACKUP_SYNC_INCREMENTAL ||
           b->o.sync == BACKUP_SYNC_BITMAP;
}

static void unfreeze(BdrvDirtyBitmap **bitmap)
{
    if (*bitmap) {
        bdrv_reclaim_dirty_bitmap(*bitmap, NULL);
        *bitmap = NULL;
    }
}

static int coroutine_fn begin_resume(BackupJob *b, GError **errp)
{
    BdrvDirtyBitmap *bitmap;
    int ret;

    if (!b->o.resume_bitmap) {
        return 0;
    }
    ret = find_resume(b, &bitmap, errp);
    if (ret == 0 && bitmap) {
        ret = limit_to(b, bitmap, errp);
    } else if (ret == 0) {
        bitmap = make_resume(b, errp);
        b->resume_is_new = bitmap != NULL;
        ret = bitmap ? 0 : -EINVAL;
        if (bitmap) {
            note_missing(b, bitmap);
        }
    }
    if (ret == 0) {
        ret = bdrv_dirty_bitmap_create_successor(bitmap, errp);
    }
    b->resume = ret == 0 ? bitmap : NULL;
    return ret;
}

static int coroutine_fn begin_bitmap(BackupJob *b, GError **errp)
{
    BdrvDirtyBitmap *bitmap;
    /* Others could remove it while the filter was put in. */
    int ret = backup_check_bitmaps(b, errp);

    if (ret < 0) {
        return ret;
    }
    bitmap = bdrv_find_dirty_bitmap(b->source, b->o.bitmap);
    if (bdrv_dirty_bitmap_inconsistent(bitmap)) {
        bitmap = make_anew(b, bitmap, errp);
        ret = bitmap ? 0 : -EINVAL;
    }
    if (ret == 0 && is_incremental(b)) {
        ret = limit_to(b, bitmap, errp);
    }
    if (ret == 0) {
        ret = bdrv_dirty_bitmap_create_successor(bitmap, errp);
    }
    b->bitmap = ret == 0 ? bitmap : NULL;
    return ret;
}

int coroutine_fn backup_begin_bitmaps(BackupJob *b, GError **errp)
{
    int ret = b->o.bitmap ? begin_bitmap(b, errp) : 0;

    if (ret == 0) {
        ret = begin_resume(b, errp);
    }
    if (ret < 0) {
        unfreeze(&b->bitmap);
    }
    return ret;
}

/* --- end ------------------------------------------------------------------ */

void backup_commit_bitmaps(BackupJob *b)
{
    if (b->bitmap && b->o.bitmap_mode != BACKUP_BITMAP_NEVER) {
        bdrv_dirty_bitmap_abdicate(b->bitmap, NULL);
        b->bitmap = NULL;
    }
    unfreeze(&b->bitmap);
}

void coroutine_fn backup_remove_resume(BackupJob *b)
{
    g_autoptr(GError) error = NULL;

    if (b->resume) {
        BdrvDirtyBitmap *bitmap = b->resume;

        unfreeze(&b->resume);
        if (bdrv_co_remove_dirty_bitmap(bitmap, &error) < 0) {
            g_warning("Job '%s': bitmap '%s', which is not needed any more, "
                      "stays: %s", b->job.id, b->o.resume_bitmap,
                      error->message);
        }
    }
}

/* What has changed since the beginning, and what was not copied. */
static void replace_by_missing(BackupJob *b, BdrvDirtyBitmap **bitmap)
{
    BdrvDirtyBitmap *successor = bdrv_dirty_bitmap_abdicate(*bitmap, NULL);

    if (!SIM_PLANTED(41)) {
        note_missing(b, successor);
    }
    *bitmap = NULL;
}

void backup_undo_bitmaps(BackupJob *b)
{
    BdrvDirtyBitmap *made = b->resume_is_new ? b->resume : NULL;

    unfreeze(&b->bitmap);
    unfreeze(&b->resume);
    if (made) {
        bdrv_release_dirty_bitmap(made); /* it was never stored */
    }
}

bool backup_notes_missing(const BackupJob *b)
{
    return b->resume ||
           (b->bitmap && b->o.bitmap_mode == BACKUP_BITMAP_ALWAYS);
}

void backup_abort_bitmaps(BackupJob *b, bool is_safe)
{
    if (b->bitmap && b->o.bitmap_mode == BACKUP_BITMAP_ALWAYS && is_safe) {
        replace_by_missing(b, &b->bitmap);
    }
    unfreeze(&b->bitmap);
    if (b->resume && is_safe) {
        replace_by_missing(b, &b->resume);
    }
    unfreeze(&b->resume);
}
