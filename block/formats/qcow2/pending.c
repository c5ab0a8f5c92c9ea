/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clusters that are given up, until they may be used for something else.
 *
 *              write-back          no request can have       the discard
 *   given up ------------> durable ---- seen them --> discard -- ended --> free
 *   pending_new            pending_durable
 *
 * As long as one of these steps is missing the cluster keeps the refcount of
 * the reference that has gone (I4):
 *
 *   - a crash may bring back the table that names it;
 *   - a request that has looked up the old entry may still read or write it;
 *   - a discard that is on its way would erase what is written there next.
 *
 * Entries leave the lists in the order they came; neighbours are joined, so
 * that the lists are short when large ranges are given up piece by piece.
 */
#include "block/formats/qcow2/refcount.h"

#include <errno.h>

/* More than this waits for write-back at no time, if somebody asks. */
#define PENDING_MAX_BYTES (INT64_C(64) << 20)
/* Less than this is not worth a write-back. */
#define PENDING_MIN_BYTES (INT64_C(4) << 20)

/* --- giving up ------------------------------------------------------------ */

/* Add [@start, +@bytes) to a neighbour that came before it, if it is one. */
static bool join(ListHead *list, int64_t start, int64_t bytes,
                 Qcow2DiscardType type)
{
    Qcow2Pending *last = LIST_ENTRY(list->prev, Qcow2Pending, link);

    if (list_empty(list) || last->type != type) {
        return false;
    }
    if (start + bytes == last->offset) {
        last->offset = start;
    } else if (last->offset + last->bytes != start) {
        return false;
    }
    last->bytes += bytes;
    return true;
}

void qcow2_free_later(Qcow2 *q, int64_t offset, int64_t bytes,
                      Qcow2DiscardType type)
{
    int64_t start = qcow2_cluster_down(&q->geo, offset);
    int64_t length = qcow2_cluster_up(&q->geo, offset + bytes) - start;
    Qcow2Pending *p;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    g_assert(offset >= 0 && bytes > 0);
    q->pending_bytes += length;
    if (!join(&q->pending_new, start, length, type)) {
        p = g_new(Qcow2Pending, 1);
        *p = (Qcow2Pending){ .offset = start, .bytes = length, .type = type };
        list_append(SIM_PLANTED(20) ? &q->pending_durable : &q->pending_new,
                    &p->link);
    }
}

bool qcow2_pending_wants_writeback(Qcow2 *q)
{
    int64_t limit = CLAMP(q->fresh_from / 8, PENDING_MIN_BYTES,
                          PENDING_MAX_BYTES);

    g_assert(co_mutex_is_mine(&q->meta_lock));
    return q->pending_bytes > limit;
}

void qcow2_pending_take(Qcow2 *q, ListHead *taken)
{
    g_assert(co_mutex_is_mine(&q->meta_lock));
    list_append_all(taken, &q->pending_new);
}

void qcow2_pending_put(Qcow2 *q, ListHead *taken, bool ok)
{
    unsigned epoch = atomic_load(&q->epoch);

    g_assert(co_mutex_is_mine(&q->meta_lock));
    if (ok) {
        LIST_FOREACH(link, taken) {
            LIST_ENTRY(link, Qcow2Pending, link)->epoch = epoch;
        }
        list_append_all(&q->pending_durable, taken);
    } else {
        list_append_all(taken, &q->pending_new);
        list_append_all(&q->pending_new, taken);
    }
}

/* --- release -------------------------------------------------------------- */

static bool passes_discard(const Qcow2 *q, Qcow2DiscardType type)
{
    switch (type) {
    case QCOW2_DISCARD_ALWAYS:
        return true;
    case QCOW2_DISCARD_REQUEST:
        return q->options.pass_discard_request;
    case QCOW2_DISCARD_SNAPSHOT:
        return q->options.pass_discard_snapshot;
    case QCOW2_DISCARD_OTHER:
        return q->options.pass_discard_other;
    case QCOW2_DISCARD_NEVER:
    default:
        return false;
    }
}

void coroutine_fn qcow2_discard_data(Qcow2 *q, int64_t offset, int64_t bytes,
                                     Qcow2DiscardType type)
{
    g_assert(q->has_data_file);
    if (passes_discard(q, type)) {
        bdrv_co_pdiscard(q->data_file, offset, bytes);
    }
}

/* The first clusters of [@offset, @end) that nothing else refers to. */
static int coroutine_fn find_ours(Qcow2 *q, int64_t offset, int64_t end,
                                  int64_t *ret_offset, int64_t *ret_bytes)
{
    int64_t start = -1;

    for (; offset < end; offset += q->geo.cluster_bytes) {
        uint64_t count;
        int ret = qcow2_refcount_get(q, offset >> q->geo.cluster_bits, &count);

        if (ret < 0) {
            return ret;
        }
        if (count == 1 && start < 0) {
            start = offset;
        } else if (count != 1 && start >= 0) {
            break;
        }
    }
    *ret_offset = start;
    *ret_bytes = start < 0 ? 0 : offset - start;
    return 0;
}

/* Meta lock held; released during discards unless @alone.  Discards are hints:
 * they fail silently. */
static int coroutine_fn discard(Qcow2 *q, const Qcow2Pending *p, bool alone)
{
    int64_t end = p->offset + p->bytes;
    int64_t at = p->offset;

    while (at < end) {
        int64_t start, bytes, metadata;
        int ret = find_ours(q, at, end, &start, &bytes);

        if (ret < 0) {
            return ret;
        }
        if (bytes == 0) {
            break;
        }
        at = start + bytes;
        if (qcow2_metamap_find(q, ~0u, start, bytes, &metadata)) {
            continue; /* the image lies: an entry named a table, which stays */
        }
        /* No more compressed data in there now. */
        if (q->compressed_next > start && q->compressed_next < start + bytes) {
            q->compressed_next = 0;
        }
        if (!alone) {
            co_mutex_unlock(&q->meta_lock);
        }
        SIM_POINT("qcow2.pending.discard", bdrv_node_name(q->bs));
        bdrv_co_pdiscard(qcow2_file(q), start, bytes);
        if (!alone) {
            co_mutex_lock(&q->meta_lock);
        }
    }
    return 0;
}

/* Meta lock held; released meanwhile unless @alone.  @p is in no list. */
static int coroutine_fn release_one(Qcow2 *q, const Qcow2Pending *p,
                                    bool alone)
{
    int ret = SIM_FAULT("qcow2.pending.release", bdrv_node_name(q->bs));

    if (ret == 0 && passes_discard(q, p->type)) {
        ret = discard(q, p, alone);
    }
    if (ret == 0) {
        bdrv_co_debug_event(q->bs, "cluster_free");
        ret = qcow2_refcount_change(q, p->offset, p->bytes, -1);
    }
    return ret;
}

int coroutine_fn qcow2_drop_now(Qcow2 *q, int64_t offset, int64_t bytes,
                                Qcow2DiscardType type)
{
    Qcow2Pending p = { .offset = qcow2_cluster_down(&q->geo, offset) };

    p.bytes = qcow2_cluster_up(&q->geo, offset + bytes) - p.offset;
    p.type = type;
    return release_one(q, &p, true);
}

/* The next one that may be released. */
static Qcow2Pending *next_ready(Qcow2 *q)
{
    Qcow2Pending *p = LIST_ENTRY(q->pending_durable.next, Qcow2Pending, link);

    if (atomic_load(&q->corrupt) || list_empty(&q->pending_durable)) {
        return NULL;
    }
    if (!qcow2_epoch_over(q, p->epoch)) {
        qcow2_epoch_advance(q);
        if (!qcow2_epoch_over(q, p->epoch)) {
            return NULL;
        }
    }
    return p;
}

void coroutine_fn qcow2_pending_release(Qcow2 *q)
{
    Qcow2Pending *p;

    co_mutex_lock(&q->meta_lock);
    while ((p = next_ready(q))) {
        int ret;

        list_remove(&p->link);
        ret = release_one(q, p, false);
        if (ret < 0 && !atomic_load(&q->corrupt)) {
            g_warning("Node '%s': could not give back %" G_GINT64_FORMAT
                      " bytes at offset %" G_GINT64_FORMAT " of the image: %s",
                      bdrv_node_name(q->bs), p->bytes, p->offset,
                      g_strerror(-ret));
            list_append(&q->pending_durable, &p->link);
            break;
        }
        q->pending_bytes -= p->bytes;
        g_free(p);
    }
    co_mutex_unlock(&q->meta_lock);
}

void qcow2_pending_drop(Qcow2 *q)
{
    ListHead *lists[] = { &q->pending_new, &q->pending_durable };

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        while (!list_empty(lists[i])) {
            ListHead *link = lists[i]->next;

            list_remove(link);
            g_free(LIST_ENTRY(link, Qcow2Pending, link));
        }
    }
    q->pending_bytes = 0;
}
