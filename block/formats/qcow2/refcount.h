/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files that deal with reference counts share among themselves.
 *
 *   reftable.c   the refcount table, and new refcount blocks
 *   refcount.c   single counts
 *   alloc.c      free clusters
 *
 * All of it under the meta lock.
 */
#ifndef BLOCK_FORMATS_QCOW2_REFCOUNT_H
#define BLOCK_FORMATS_QCOW2_REFCOUNT_H

#include "block/formats/qcow2/qcow2.h"

/** The refcount block that a cluster's count is in. */
static inline int64_t qcow2_refblock_index(const Qcow2 *q, int64_t cluster)
{
    return cluster >> q->geo.refblock_bits;
}

/** One more than the last cluster that an entry can name. */
static inline int64_t qcow2_max_clusters(const Qcow2 *q)
{
    return (QCOW2_MAX_HOST_OFFSET >> q->geo.cluster_bits) + 1;
}

/** Whether a refcount table entry makes sense: 0, or the offset of a cluster
 * below @end that is not the first. */
static inline bool qcow2_reftable_entry_valid(const Qcow2Geometry *geo,
                                              uint64_t entry, int64_t end)
{
    return entry == 0 ||
           (!(entry & QCOW2_REFTABLE_RESERVED) && entry < (uint64_t)end &&
            !qcow2_into_cluster(geo, entry));
}

/**
 * Where refcount block @index lies; 0: there is none.  -EIO (signalled) when
 * the table says something impossible.
 */
int coroutine_fn qcow2_refblock_find(Qcow2 *q, int64_t index,
                                     int64_t *ret_offset);

/**
 * Make the refcount block of @cluster, which has none, at @cluster itself, and
 * those that the @want clusters behind it lack; grow the table if need be.
 * How many clusters that takes, who goes on looking for free ones will see.
 * -EFBIG: the table would be too large.
 */
int coroutine_fn qcow2_refblock_make(Qcow2 *q, int64_t cluster, int64_t want);

/**
 * How many clusters from @first on, at most @n, all in one refcount block that
 * exists, are free as the first is, or used as the first is.  More than
 * @enough free ones are not looked for.
 */
int coroutine_fn qcow2_refcount_run(Qcow2 *q, int64_t first, int64_t n,
                                    int64_t enough,
                                    bool *ret_free, int64_t *ret_n);

/** Make the count of @cluster, which has a refcount block, @value, whatever it
 * was: for repairs. */
int coroutine_fn qcow2_refcount_set(Qcow2 *q, int64_t cluster, uint64_t value);

/** Which kinds of metadata (bits) [@offset, +@bytes) holds, at the first of
 * its clusters that holds any; @ret_at: where.  overlap.c.  Any lock. */
unsigned qcow2_metamap_find(Qcow2 *q, unsigned kinds, int64_t offset,
                            int64_t bytes, int64_t *ret_at);

/** "active L2 table" and the like for the lowest bit of @kinds. */
const char *qcow2_overlap_name(unsigned kinds);

#endif /* BLOCK_FORMATS_QCOW2_REFCOUNT_H */
