/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files that check and repair images share.
 *
 *   check.c          the method: the order of steps, messages, statistics
 *   check-refmap.c   how often each cluster is referred to, in little memory
 *   check-tables.c   a walk over all tables, counting references
 *   check-counts.c   references against refcounts, and COPIED
 *   repair.c         refcounts built anew; dirty images; reloading
 *
 * The node is drained and both locks are held, so the file is the truth: what
 * was cached has been written, or was never changed.
 */
#ifndef BLOCK_FORMATS_QCOW2_CHECK_H
#define BLOCK_FORMATS_QCOW2_CHECK_H

#include "block/formats/qcow2/refcount.h"

#include <blockgraph/image.h>

/** A sparse array of counts, one a cluster. */
typedef struct Qcow2Refmap Qcow2Refmap;

/** All zero.  @max_bytes: memory that it may take. */
Qcow2Refmap *qcow2_refmap_new(Qcow2 *q, int64_t max_bytes, GError **why);
void qcow2_refmap_free(Qcow2Refmap *map);

/** The count of @cluster. */
uint64_t qcow2_refmap_get(Qcow2Refmap *map, int64_t cluster);

/** Set it; -ENOMEM when that would take too much memory; -EFBIG when it would
 * for the node or the process. */
int qcow2_refmap_set(Qcow2Refmap *map, int64_t cluster, uint64_t count);

/** The first cluster from @cluster on whose count may not be 0; -1: there is
 * none.  Finds it in no time only when called with growing arguments. */
int64_t qcow2_refmap_next(Qcow2Refmap *map, int64_t cluster);

/** An L2 table and how many L1 entries name it. */
typedef struct Qcow2CheckL2 {
    int64_t cluster;
    uint32_t refs;
    uint32_t active_index; /* L1 index in the active table; or this: */
} Qcow2CheckL2;
#define QCOW2_CHECK_INACTIVE UINT32_MAX

/** A check under way. */
typedef struct Qcow2Check {
    Qcow2 *q;
    const BdrvCheck *how;
    BdrvCheckResult *res;
    Qcow2Refmap *refs;
    Qcow2Refmap *meta;     /* 1: the cluster holds metadata */
    int64_t end;           /* clusters that can be named: those of the file,
                            * and one more that was not written yet */
    GArray *l2;            /* Qcow2CheckL2, sorted by cluster */
    int64_t counted;       /* memory, of what is not a refmap */
    GError *why;           /* of an -EFBIG: which sum */
    uint8_t *table;        /* one cluster */
    bool *block_ok;        /* by refcount table entry: it can be used */
    bool rebuild;          /* refcounts cannot be put right in place */
    bool rebuilt;
    bool incomplete;       /* not all tables could be followed: what seems to
                            * be unused may be in use */
} Qcow2Check;

static inline bool qcow2_check_fixes(const Qcow2Check *c, unsigned what)
{
    return (c->how->flags & what) != 0;
}

/** Give a message to whom wants it. */
void qcow2_check_say(Qcow2Check *c, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/** Something is wrong: count it as repaired, or as left, and say so. */
void qcow2_check_found(Qcow2Check *c, bool fixed, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/** Count @bytes for the time of the check.  Returns 0 or -EFBIG. */
int qcow2_check_take(Qcow2Check *c, int64_t bytes);

/** Something could not be looked at. */
void qcow2_check_failed(Qcow2Check *c, int ret, const char *what);

/* --- check-tables.c ------------------------------------------------------- */

/** Count the references of all tables; repairs entries.  Negative errno only
 * when the check cannot go on. */
int coroutine_fn qcow2_check_tables(Qcow2Check *c);

/** Count @times more references to the clusters of metadata, called @what, that
 * the range touches, which lie before c->end.  They share a cluster with
 * nothing: finds those that do. */
int qcow2_check_add_meta(Qcow2Check *c, int64_t offset, int64_t bytes,
                         uint32_t times, const char *what);

/** Whether the range lies before c->end. */
static inline bool qcow2_check_inside(const Qcow2Check *c, uint64_t offset,
                                      uint64_t bytes)
{
    uint64_t end = (uint64_t)c->end << c->q->geo.cluster_bits;

    return offset <= end && bytes <= end - offset;
}

/** The refcount table and its blocks are referred to; finds which are of
 * use. */
int coroutine_fn qcow2_check_refblocks(Qcow2Check *c);

/* --- check-counts.c ------------------------------------------------------- */

/** Whether qcow2_check_refblocks() counts the block of that refcount table
 * entry. */
bool qcow2_check_block_counted(const Qcow2Check *c, uint64_t entry);

/** Compare refcounts with references; repairs refcounts in place. */
int coroutine_fn qcow2_check_counts(Qcow2Check *c);

/** Compare COPIED of the active tables with refcounts; repairs it. */
int coroutine_fn qcow2_check_copied(Qcow2Check *c);

/* --- check.c -------------------------------------------------------------- */

/** The check, with both locks held and all written back. */
int coroutine_fn qcow2_check_locked(Qcow2 *q, const BdrvCheck *how,
                                    BdrvCheckResult *res, GError **errp);

/* --- repair.c ------------------------------------------------------------- */

/** Write new refcount blocks and a new table at the end of the file, as
 * c->refs has it without the old ones, and make the header name them. */
int coroutine_fn qcow2_rebuild_refcounts(Qcow2Check *c);

/** Load all tables anew: they were changed in the file.  Both locks held. */
int coroutine_fn qcow2_reload(Qcow2 *q, GError **errp);

#endif /* BLOCK_FORMATS_QCOW2_CHECK_H */
