/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers of the source of copy-before-write.
 *
 * As in reqlist.c, who was woken does not look at the queue again.
 */
#include "block/filters/cbw-readers.h"

#include "util/sim-point.h"

#define BUCKETS (1 << CBW_READER_BITS)

/* Readers at regular distances are spread, too. */
static ListHead *bucket_of(CbwReaders *readers, int64_t cluster)
{
    uint64_t hash = (uint64_t)cluster * UINT64_C(0x9e3779b97f4a7c15);

    return &readers->buckets[hash >> (64 - CBW_READER_BITS)];
}

void cbw_readers_init(CbwReaders *readers, unsigned cluster_bits)
{
    readers->cluster_bits = cluster_bits;
    for (int i = 0; i < BUCKETS; i++) {
        list_init(&readers->buckets[i]);
    }
    readers->wide = (BlockReqList){ 0 };
}

void cbw_readers_add(CbwReaders *readers, CbwReader *reader, int64_t offset,
                     int64_t bytes)
{
    int64_t first = offset >> readers->cluster_bits;
    int64_t last = (offset + bytes - 1) >> readers->cluster_bits;

    reader->offset = offset;
    reader->bytes = bytes;
    reader->in_bucket = first == last;
    if (reader->in_bucket) {
        co_queue_init(&reader->waiters);
        list_append(bucket_of(readers, first), &reader->link);
    } else {
        reqlist_init_req(&readers->wide, &reader->wide, offset, bytes);
    }
}

void cbw_readers_remove(CbwReaders *readers, CbwReader *reader)
{
    if (reader->in_bucket) {
        list_remove(&reader->link);
        co_queue_restart_all(&reader->waiters);
    } else {
        reqlist_remove_req(&readers->wide, &reader->wide);
    }
}

static CbwReader *find_in(const ListHead *bucket, int64_t offset,
                          int64_t bytes)
{
    LIST_FOREACH(link, bucket) {
        CbwReader *reader = LIST_ENTRY(link, CbwReader, link);

        if (reader->offset < offset + bytes &&
            offset < reader->offset + reader->bytes) {
            return reader;
        }
    }
    return NULL;
}

static CbwReader *find(CbwReaders *readers, int64_t offset, int64_t bytes)
{
    int64_t first = offset >> readers->cluster_bits;
    int64_t last = (offset + bytes - 1) >> readers->cluster_bits;
    CbwReader *reader = NULL;

    if (last - first >= BUCKETS) {
        for (int i = 0; i < BUCKETS && !reader; i++) {
            reader = find_in(&readers->buckets[i], offset, bytes);
        }
        return reader;
    }
    for (int64_t i = first; i <= last && !reader; i++) {
        reader = find_in(bucket_of(readers, i), offset, bytes);
    }
    return reader;
}

void coroutine_fn cbw_readers_wait(CbwReaders *readers, int64_t offset,
                                   int64_t bytes, Lock *lock)
{
    CbwReader *reader;

    do {
        reqlist_wait_all(&readers->wide, offset, bytes, lock);
        reader = find(readers, offset, bytes);
        if (reader) {
            SIM_WAITS("a reader of the source", reader);
            co_queue_wait_locked(&reader->waiters, lock);
        }
    } while (reader);
}
