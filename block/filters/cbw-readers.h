/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who reads which part of the source of copy-before-write, for guests that are
 * about to change it.
 *
 * Nearly all readers stay in one cluster.  They are found by its number: to
 * come and to go touches a list head and mostly nothing else, where a tree
 * would touch the stacks of many other readers.  The others are in a tree.
 *
 * Not thread-safe: the owner's Lock guards all of it.
 */
#ifndef BLOCK_FILTERS_CBW_READERS_H
#define BLOCK_FILTERS_CBW_READERS_H

#include "block/copy/reqlist.h"
#include "util/list.h"

#define CBW_READER_BITS 8

typedef struct CbwReader {
    int64_t offset;
    int64_t bytes;
    bool in_bucket;
    ListHead link;      /* in a bucket; or */
    CoQueue waiters;
    BlockReq wide;      /* in the tree */
} CbwReader;

typedef struct CbwReaders {
    unsigned cluster_bits;
    ListHead buckets[1 << CBW_READER_BITS]; /* CbwReader.link */
    BlockReqList wide;                      /* CbwReader.wide */
} CbwReaders;

/** Nobody reads. */
void cbw_readers_init(CbwReaders *readers, unsigned cluster_bits);

/** @reader reads @bytes > 0 at @offset. */
void cbw_readers_add(CbwReaders *readers, CbwReader *reader, int64_t offset,
                     int64_t bytes);

/** It has been read; who waits for that is woken.  @reader may be freed. */
void cbw_readers_remove(CbwReaders *readers, CbwReader *reader);

/** Wait until nobody reads the range, those included that come.  @lock is free
 * meanwhile. */
void coroutine_fn cbw_readers_wait(CbwReaders *readers, int64_t offset,
                                   int64_t bytes, Lock *lock)
    LOCK_REQUIRES(lock);

#endif /* BLOCK_FILTERS_CBW_READERS_H */
