/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots: what the table on the disk and the operations share.
 *
 *   snapshot-table.c   the table, to and from the disk
 *   snapshot-refs.c    what an L1 table refers to, counted up or down
 *   snapshot.c         list, create, apply, delete
 */
#ifndef BLOCK_FORMATS_QCOW2_SNAPSHOT_H
#define BLOCK_FORMATS_QCOW2_SNAPSHOT_H

#include "block/formats/qcow2/qcow2.h"

/** Bytes of an entry in front of the extra data. */
#define QCOW2_SNAPSHOT_HEAD 40
/** Bytes of extra data that we know. */
#define QCOW2_SNAPSHOT_EXTRA 24

/** Free @snapshot and what it holds; NULL is ignored. */
void qcow2_snapshot_free(Qcow2 *q, Qcow2Snapshot *snapshot);

/** Count what @snapshot takes whose entry in the table has @bytes, once.
 * Returns 0 or a negative errno with @errp. */
int qcow2_snapshot_count(Qcow2 *q, Qcow2Snapshot *snapshot, int64_t bytes,
                         GError **errp);

/**
 * Write a table of @list (Qcow2Snapshot) elsewhere, make the header name it,
 * durable, and give up the old one.  q->snapshots is left alone.  Both locks
 * held.  On failure the old table is the one that holds; where that could not
 * be made sure the image takes no more writes.
 */
int coroutine_fn qcow2_snapshots_write(Qcow2 *q, const GPtrArray *list,
                                       GError **errp);

/** What is done to the counts of all that an L1 table refers to. */
typedef enum Qcow2RefsChange {
    QCOW2_REFS_CHECK,  /* nothing: each is at least 1 and can grow by one */
    QCOW2_REFS_ADD,
    QCOW2_REFS_DROP,
} Qcow2RefsChange;

/** An L1 table whose references are looked at. */
typedef struct Qcow2Refs {
    const char *what;  /* for error texts */
    uint64_t *l1;      /* host-endian */
    size_t nr;
    int64_t offset;    /* in the file; 0 for an empty one */
    size_t room;       /* entries there is memory for */
} Qcow2Refs;

/**
 * Change the count of each L2 table in @refs, and of each cluster that these
 * name.  Meta lock held, the node drained, no dirty L2 slice.  An ADD that
 * fails is undone; a DROP that fails leaks what was left.
 */
int coroutine_fn qcow2_refs_change(Qcow2 *q, const Qcow2Refs *refs,
                                   Qcow2RefsChange change, GError **errp);

/**
 * Make COPIED in @refs (in memory) and in the L2 tables it names (on the
 * disk) say whether the count is 1; @clear: it never is.  Not flushed.  Meta
 * lock held, the node drained; forget cached L2 slices afterwards.
 */
int coroutine_fn qcow2_refs_set_copied(Qcow2 *q, const Qcow2Refs *refs,
                                       bool clear, GError **errp);

#endif /* BLOCK_FORMATS_QCOW2_SNAPSHOT_H */
