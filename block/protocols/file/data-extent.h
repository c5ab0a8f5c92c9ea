/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One extent of a file that is known to be data.
 *
 * A file system looks through a file page by page to find where data ends, up
 * to the end of the file; who asks piece by piece would have it look through
 * the rest each time.  To call data what has become a hole meanwhile, by
 * others, is never wrong.  What the node itself does is not to be missed: an
 * answer that was asked for before a change ended is not taken.
 */
#ifndef BLOCK_PROTOCOLS_FILE_DATA_EXTENT_H
#define BLOCK_PROTOCOLS_FILE_DATA_EXTENT_H

#include "util/lock.h"

typedef struct DataExtent {
    /* Guarded by @lock. */
    Lock lock;
    int64_t start;
    int64_t end;                /* as @start: none is known */
    uint64_t changes;           /* so many times forgotten */
} DataExtent;

/** Nothing is known. */
void data_extent_init(DataExtent *extent);

/** A number to be taken before the file system is asked.  Thread: any. */
uint64_t data_extent_changes(DataExtent *extent);

/**
 * The file system, asked when data_extent_changes() was @changes, has told that
 * @start to @end is data.  Thread: any.
 */
void data_extent_note(DataExtent *extent, uint64_t changes, int64_t start,
                      int64_t end);

/**
 * Up to where the bytes from @offset on are known to be data; @offset when
 * nothing is known.  Thread: any.
 */
int64_t data_extent_end(DataExtent *extent, int64_t offset);

/** A change that may have made holes has ended.  Thread: any. */
void data_extent_forget(DataExtent *extent);

#endif /* BLOCK_PROTOCOLS_FILE_DATA_EXTENT_H */
