/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The snapshot table.  An entry, at a multiple of 8 bytes:
 *
 *   head (40) | extra data (0 to 1024) | id | name
 *
 * Extra data that we do not know are kept as they are.
 */
#include "block/formats/qcow2/snapshot.h"

#include <blockgraph/iov.h>
#include <errno.h>

/* More than the largest entry: two strings of 64 KiB and the extra data. */
#define READ_BYTES (192 * 1024)

/* Of a snapshot in memory, beside its own. */
#define OVERHEAD_BYTES 192

/* The table, read in large pieces. */
typedef struct Reader {
    Qcow2 *q;
    uint8_t *buf;
    int64_t at;       /* offset in the file of the first byte of @buf */
    int64_t have;     /* bytes there */
    int64_t pos;      /* offset in the file of the next entry */
    int64_t end;      /* of the file, or of what a table may take */
} Reader;

static int64_t round_up_8(int64_t x)
{
    return (x + 7) & ~INT64_C(7);
}

int qcow2_snapshot_count(Qcow2 *q, Qcow2Snapshot *s, int64_t bytes,
                         GError **errp)
{
    /* That, its pointers, its range in the map of metadata. */
    int64_t memory = sizeof(*s) + OVERHEAD_BYTES + bytes;
    int ret = qcow2_memory_take(q, memory, errp);

    s->memory = ret == 0 ? memory : 0;
    return ret;
}

void qcow2_snapshot_free(Qcow2 *q, Qcow2Snapshot *s)
{
    if (s) {
        qcow2_memory_give(q, s->memory);
        g_free(s->unknown_extra);
        g_free(s->id);
        g_free(s->name);
        g_free(s);
    }
}

void qcow2_snapshots_free(Qcow2 *q)
{
    for (guint i = 0; q->snapshots && i < q->snapshots->len; i++) {
        qcow2_snapshot_free(q, g_ptr_array_index(q->snapshots, i));
    }
    if (q->snapshots) {
        g_ptr_array_set_size(q->snapshots, 0);
    }
}

/* --- sizes ---------------------------------------------------------------- */

static int64_t entry_bytes(const Qcow2Snapshot *s)
{
    return QCOW2_SNAPSHOT_HEAD + s->extra_bytes + strlen(s->id) +
           strlen(s->name);
}

static int64_t table_bytes(const GPtrArray *list)
{
    int64_t bytes = 0;

    for (guint i = 0; i < list->len; i++) {
        bytes = round_up_8(bytes) + entry_bytes(g_ptr_array_index(list, i));
    }
    return bytes;
}

int64_t qcow2_snapshots_bytes(Qcow2 *q)
{
    return q->snapshots ? table_bytes(q->snapshots) : 0;
}

/* Bytes of the extra data that are whole fields we know. */
static uint32_t known_extra(uint32_t extra_bytes)
{
    return MIN(extra_bytes, QCOW2_SNAPSHOT_EXTRA) & ~7u;
}

/* --- reading -------------------------------------------------------------- */

static int bad_table(Qcow2 *q, GError **errp, guint index, const char *why)
{
    return block_error(errp, EINVAL, "Node '%s': snapshot %u of %u in the "
                       "table at offset %" G_GUINT64_FORMAT " of image '%s' "
                       "%s", bdrv_node_name(q->bs), index + 1,
                       q->header.nb_snapshots, q->header.snapshots_offset,
                       bdrv_filename(q->bs), why);
}

/* Make sure that @bytes bytes from r->pos on are in memory.  -EINVAL beyond
 * the end. */
static int coroutine_fn fill(Reader *r, int64_t bytes)
{
    int64_t into = r->pos - r->at;
    int ret;

    g_assert(bytes <= READ_BYTES);
    if (bytes > r->end - r->pos) {
        return -EINVAL;
    }
    if (into <= r->have && bytes <= r->have - into) {
        return 0;
    }
    r->at = r->pos;
    r->have = MIN(READ_BYTES, r->end - r->pos);
    ret = bdrv_image_step(r->q->bs, NULL);
    if (ret == 0) {
        ret = bdrv_co_pread(qcow2_file(r->q), r->at, r->have, r->buf, 0);
    }
    if (ret < 0) {
        r->have = 0;
    }
    return ret;
}

static const uint8_t *here(const Reader *r)
{
    return r->buf + (r->pos - r->at);
}

static void parse_head(const uint8_t *p, Qcow2Snapshot *s)
{
    s->l1_offset = untrusted_be64(p);
    s->l1_size = untrusted_be32(p + 8);
    s->date_sec = untrusted_verbatim(untrusted_be32(p + 16));
    s->date_nsec = untrusted_verbatim(untrusted_be32(p + 20));
    s->vm_clock_ns = untrusted_verbatim(untrusted_be64(p + 24));
    s->vm_state_bytes = untrusted_verbatim(untrusted_be32(p + 32));
}

static void parse_extra(Qcow2 *q, const uint8_t *p, Qcow2Snapshot *s)
{
    uint32_t known = known_extra(s->extra_bytes);

    if (known >= 8) {
        s->vm_state_bytes = untrusted_verbatim(untrusted_be64(p));
    }
    s->disk_bytes = known >= 16 ? untrusted_be64(p + 8)
                                : untrusted(q->header.size);
    s->icount = known >= 24 ? untrusted_verbatim(untrusted_be64(p + 16))
                            : UINT64_MAX;
    s->unknown_extra_bytes = s->extra_bytes - known;
    s->unknown_extra = g_memdup2(p + known, s->unknown_extra_bytes);
}

/* Returns 0 with @ret, or a negative errno with @errp set. */
static int coroutine_fn read_entry(Reader *r, guint index, Qcow2Snapshot **ret,
                                   GError **errp)
{
    g_autofree Qcow2Snapshot *s = g_new0(Qcow2Snapshot, 1);
    uint16_t id_bytes = 0, name_bytes = 0;
    int64_t bytes = QCOW2_SNAPSHOT_HEAD;
    const uint8_t *p;
    int code;

    r->pos = round_up_8(r->pos);
    code = fill(r, bytes);
    if (code == 0) {
        p = here(r);
        parse_head(p, s);
        id_bytes = untrusted_bits(untrusted_be16(p + 12), UINT16_MAX);
        name_bytes = untrusted_bits(untrusted_be16(p + 14), UINT16_MAX);
        if (!untrusted_at_most(untrusted_be32(p + 36),
                               QCOW2_MAX_SNAPSHOT_EXTRA, &s->extra_bytes)) {
            return bad_table(r->q, errp, index, "has too much extra data");
        }
        bytes += (int64_t)s->extra_bytes + id_bytes + name_bytes;
        code = fill(r, bytes);
    }
    if (code == -EINVAL) {
        return bad_table(r->q, errp, index, "passes the end of the file, or "
                         "what a table may take");
    }
    if (code < 0) {
        return block_error_errno(errp, -code, "Node '%s': could not read the "
                                 "snapshot table", bdrv_node_name(r->q->bs));
    }
    code = qcow2_snapshot_count(r->q, s, bytes, errp);
    if (code < 0) {
        return code;
    }
    p = here(r) + QCOW2_SNAPSHOT_HEAD;
    parse_extra(r->q, p, s);
    s->id = g_strndup((const char *)p + s->extra_bytes, id_bytes);
    s->name = g_strndup((const char *)p + s->extra_bytes + id_bytes,
                        name_bytes);
    r->pos += bytes;
    *ret = g_steal_pointer(&s);
    return 0;
}

static int coroutine_fn read_all(Reader *r, GError **errp)
{
    Qcow2 *q = r->q;

    for (guint i = 0; i < q->header.nb_snapshots; i++) {
        Qcow2Snapshot *s = NULL;
        int ret = read_entry(r, i, &s, errp);

        if (ret < 0) {
            qcow2_snapshots_free(q);
            return ret;
        }
        g_ptr_array_add(q->snapshots, s);
    }
    return 0;
}

int coroutine_fn qcow2_snapshots_read(Qcow2 *q, GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(qcow2_file(q)));
    int64_t offset = q->header.snapshots_offset;
    Reader r = { .q = q, .at = offset, .pos = offset };
    int ret;

    if (!q->snapshots) {
        q->snapshots = g_ptr_array_new();
    }
    qcow2_snapshots_free(q);
    if (q->header.nb_snapshots == 0) {
        return 0;
    }
    if (q->header.nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        return block_error(errp, EFBIG, "Node '%s': image '%s' has %u "
                           "snapshots, at most %u are possible",
                           bdrv_node_name(q->bs), bdrv_filename(q->bs),
                           q->header.nb_snapshots, QCOW2_MAX_SNAPSHOTS);
    }
    if (offset <= 0 || offset > length ||
        qcow2_into_cluster(&q->geo, offset)) {
        return block_error(errp, EINVAL, "Node '%s': the snapshot table of "
                           "image '%s' is at an impossible offset: %"
                           G_GINT64_FORMAT, bdrv_node_name(q->bs),
                           bdrv_filename(q->bs), offset);
    }
    r.end = MIN(length, offset + QCOW2_MAX_SNAPSHOTS_BYTES);
    r.buf = g_try_malloc(READ_BYTES);
    ret = r.buf ? read_all(&r, errp)
                : block_error(errp, ENOMEM, "Node '%s': no memory for the "
                              "snapshot table", bdrv_node_name(q->bs));
    g_free(r.buf);
    return ret;
}

/* --- writing -------------------------------------------------------------- */

static void put_entry(uint8_t *p, const Qcow2Snapshot *s)
{
    uint32_t known = known_extra(s->extra_bytes);
    size_t id_bytes = strlen(s->id);
    uint8_t extra[QCOW2_SNAPSHOT_EXTRA];

    g_assert(known + s->unknown_extra_bytes == s->extra_bytes);
    be_put64(p, untrusted_verbatim(s->l1_offset));
    be_put32(p + 8, untrusted_verbatim(s->l1_size));
    be_put16(p + 12, id_bytes);
    be_put16(p + 14, strlen(s->name));
    be_put32(p + 16, s->date_sec);
    be_put32(p + 20, s->date_nsec);
    be_put64(p + 24, s->vm_clock_ns);
    be_put32(p + 32, s->vm_state_bytes);
    be_put32(p + 36, s->extra_bytes);
    be_put64(extra, s->vm_state_bytes);
    be_put64(extra + 8, untrusted_verbatim(s->disk_bytes));
    be_put64(extra + 16, s->icount);
    p += QCOW2_SNAPSHOT_HEAD;
    memcpy(p, extra, known);
    if (s->unknown_extra_bytes) {
        memcpy(p + known, s->unknown_extra, s->unknown_extra_bytes);
    }
    p += s->extra_bytes;
    memcpy(p, s->id, id_bytes);
    memcpy(p + id_bytes, s->name, strlen(s->name));
}

/* Write @list to @run. */
static int coroutine_fn write_entries(Qcow2 *q, const GPtrArray *list,
                                      const Qcow2Run *run)
{
    int64_t pos = 0;
    uint8_t *buf;
    int ret = qcow2_memory_take(q, run->bytes, NULL);

    if (ret < 0) {
        return ret;
    }
    buf = block_aligned_try_alloc(4096, run->bytes);
    if (!buf) {
        qcow2_memory_give(q, run->bytes);
        return -ENOMEM;
    }
    memset(buf, 0, run->bytes);
    for (guint i = 0; i < list->len; i++) {
        const Qcow2Snapshot *s = g_ptr_array_index(list, i);

        pos = round_up_8(pos);
        put_entry(buf + pos, s);
        pos += entry_bytes(s);
    }
    g_assert(pos <= run->bytes);
    ret = bdrv_co_pwrite(qcow2_file(q), run->offset, run->bytes, buf, 0);
    block_aligned_free(buf);
    qcow2_memory_give(q, run->bytes);
    return ret;
}

/* The header, the map and the old table. */
static int coroutine_fn switch_table(Qcow2 *q, uint32_t nr,
                                     const Qcow2Run *run)
{
    int64_t old_bytes = qcow2_snapshots_bytes(q);
    uint8_t fields[12], before[12];
    int ret;

    be_put32(fields, nr);
    be_put64(fields + 4, run->offset);
    be_put32(before, q->header.nb_snapshots);
    be_put64(before + 4, q->header.snapshots_offset);
    ret = qcow2_header_switch(q, QCOW2_H_NB_SNAPSHOTS, fields, before,
                              sizeof(fields));
    if (ret < 0) {
        return ret;
    }
    if (old_bytes > 0) {
        qcow2_metamap_remove(q, QCOW2_OL_SNAPSHOT_TABLE,
                             q->header.snapshots_offset, old_bytes);
        qcow2_free_later(q, q->header.snapshots_offset, old_bytes,
                         QCOW2_DISCARD_SNAPSHOT);
    }
    if (run->bytes > 0) {
        qcow2_metamap_add(q, QCOW2_OL_SNAPSHOT_TABLE, run->offset, run->bytes);
    }
    q->header.nb_snapshots = nr;
    q->header.snapshots_offset = run->offset;
    return 0;
}

int coroutine_fn qcow2_snapshots_write(Qcow2 *q, const GPtrArray *list,
                                       GError **errp)
{
    int64_t bytes = table_bytes(list);
    Qcow2Run run = { 0 };
    int ret = 0;

    g_assert(co_mutex_is_mine(&q->meta_lock));
    if (list->len > QCOW2_MAX_SNAPSHOTS || bytes > QCOW2_MAX_SNAPSHOTS_BYTES) {
        return block_error(errp, EFBIG, "Node '%s': the snapshot table would "
                           "be too large (%u snapshots, %" G_GINT64_FORMAT
                           " bytes)", bdrv_node_name(q->bs), list->len, bytes);
    }
    bytes = qcow2_cluster_up(&q->geo, bytes);
    if (bytes > 0) {
        ret = qcow2_alloc_clusters(q, bytes >> q->geo.cluster_bits, true,
                                   &run);
    }
    if (ret == 0 && bytes > 0) {
        ret = qcow2_check_overlap(q, 0, run.offset, run.bytes, false);
    }
    if (ret == 0 && bytes > 0) {
        ret = write_entries(q, list, &run);
    }
    if (ret == 0) {
        ret = qcow2_secure_refcounts(q); /* and the table */
    }
    if (ret == 0) {
        ret = switch_table(q, list->len, &run);
    }
    if (ret < 0 && run.bytes > 0) {
        qcow2_unalloc(q, run.offset, run.bytes);
    }
    if (ret < 0) {
        block_error_errno(errp, -ret, "Node '%s': could not write the "
                          "snapshot table", bdrv_node_name(q->bs));
    }
    return ret;
}
