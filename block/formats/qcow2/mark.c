/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the header says of the image's state: dirty, corrupt, and which of its
 * parts a program that does not know them has made stale.
 *
 * The word with "dirty" and "corrupt" is changed by set_dirty, under the meta
 * lock, and by whoever finds the image corrupt, under whatever lock: in memory
 * by atomic operations, on the disk by write_incompatible().
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

/*
 * Two of these may run at once, and their writes may arrive in any order: each
 * looks again when its own is done, so the last to look leaves the newest word.
 */
static int coroutine_fn write_incompatible(Qcow2 *q)
{
    uint64_t word = qcow2_incompatible(q);
    uint8_t buf[8];
    int ret;

    for (;;) {
        be_put64(buf, word);
        ret = qcow2_header_patch(q, QCOW2_H_INCOMPATIBLE, buf, sizeof(buf));
        if (ret < 0 || qcow2_incompatible(q) == word) {
            return ret;
        }
        word = qcow2_incompatible(q);
    }
}

static void set_bits(Qcow2 *q, uint64_t bits, bool on)
{
    if (on) {
        __atomic_fetch_or(&q->header.incompatible, bits, __ATOMIC_ACQ_REL);
    } else {
        __atomic_fetch_and(&q->header.incompatible, ~bits, __ATOMIC_ACQ_REL);
    }
}

int coroutine_fn qcow2_set_dirty(Qcow2 *q, bool dirty)
{
    bool was = qcow2_incompatible(q) & QCOW2_INCOMPAT_DIRTY;
    int ret;

    g_assert(q->header.version >= 3 || !dirty);
    if (was == dirty && !q->dirty_unsure) {
        return 0;
    }
    set_bits(q, QCOW2_INCOMPAT_DIRTY, dirty);
    ret = write_incompatible(q);
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    q->dirty_unsure = ret < 0;
    if (ret < 0) {
        set_bits(q, QCOW2_INCOMPAT_DIRTY, was);
    }
    return ret;
}

/* --- the first write ------------------------------------------------------ */

static int coroutine_fn prepare_write_locked(Qcow2 *q)
{
    Qcow2Header *h = &q->header;
    uint64_t old_autoclear = h->autoclear;
    int ret;

    ret = qcow2_bitmaps_begin_write(q);
    if (ret < 0) {
        return ret;
    }
    if (h->version >= 3 && (old_autoclear & ~QCOW2_AUTOCLEAR_MASK)) {
        h->autoclear &= QCOW2_AUTOCLEAR_MASK;
        ret = qcow2_header_write(q, NULL);
        if (ret < 0) {
            h->autoclear |= old_autoclear & ~QCOW2_AUTOCLEAR_MASK;
            return ret;
        }
    }
    if (h->version >= 3 && q->options.lazy_refcounts) {
        ret = qcow2_set_dirty(q, true);
    }
    return ret;
}

int coroutine_fn qcow2_prepare_write_slow(Qcow2 *q)
{
    int ret = 0;

    if (q->read_only) {
        return -EACCES;
    }
    co_mutex_lock(&q->meta_lock);
    if (atomic_load(&q->corrupt)) {
        ret = -EIO; /* since we came */
    } else if (!atomic_load(&q->may_write)) {
        ret = prepare_write_locked(q);
        if (ret == 0) {
            atomic_store_explicit(&q->may_write, true, memory_order_release);
        }
    }
    co_mutex_unlock(&q->meta_lock);
    return ret;
}

/* --- corruption ----------------------------------------------------------- */

static void coroutine_fn mark_corrupt(Qcow2 *q)
{
    int ret;

    set_bits(q, QCOW2_INCOMPAT_CORRUPT, true);
    ret = write_incompatible(q);
    if (ret == 0) {
        ret = bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
    }
    if (ret < 0) {
        g_warning("Node '%s': could not mark image '%s' as corrupt: %s",
                  bdrv_node_name(q->bs), bdrv_filename(q->bs),
                  g_strerror(-ret));
    }
}

void coroutine_fn qcow2_signal_corruption(Qcow2 *q, bool fatal,
                                          int64_t host_offset, int64_t bytes,
                                          const char *format, ...)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    g_autofree char *where = NULL;
    va_list args;
    bool told;

    told = fatal ? atomic_exchange(&q->corrupt, true)
                 : atomic_exchange(&q->corruption_told, true) ||
                       atomic_load(&q->corrupt);
    if (told) {
        return;
    }
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    if (host_offset >= 0) {
        where = g_strdup_printf(" (offset 0x%" G_GINT64_MODIFIER "x, %"
                                G_GINT64_FORMAT " bytes)",
                                (uint64_t)host_offset, bytes);
    }
    /* An error, because its text is fit to be shown. */
    block_error(&error, EIO, "Node '%s': image '%s' is corrupt: %s%s%s",
                bdrv_node_name(q->bs), bdrv_filename(q->bs), text,
                where ? where : "",
                fatal ? "; it cannot be written any more" : "");
    g_warning("%s", error->message);
    bdrv_report_corruption(q->bs, &(BlockCorruptionEvent){
        .message = text, .offset = host_offset, .bytes = bytes,
        .fatal = fatal });
    if (fatal && !q->read_only && q->header.version >= 3) {
        mark_corrupt(q);
    }
}

void qcow2_stop_writes(Qcow2 *q, const char *why)
{
    if (!atomic_exchange(&q->corrupt, true)) {
        g_warning("Node '%s': image '%s': %s; it takes no more writes until "
                  "it is opened again", bdrv_node_name(q->bs),
                  bdrv_filename(q->bs), why);
    }
}
