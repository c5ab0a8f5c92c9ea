/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/protocols/file/data-extent.h"

void data_extent_init(DataExtent *extent)
{
    *extent = (DataExtent){ .lock = LOCK_INITIALIZER(LOCK_RANK_DRIVER) };
}

uint64_t data_extent_changes(DataExtent *extent)
{
    LOCK_GUARD(&extent->lock);

    return extent->changes;
}

void data_extent_note(DataExtent *extent, uint64_t changes, int64_t start,
                      int64_t end)
{
    g_assert(start < end);
    LOCK_GUARD(&extent->lock);

    if (changes != extent->changes) {
        return;
    }
    if (start > extent->end || end < extent->start) {
        extent->start = start;
        extent->end = end;
    } else {
        extent->start = MIN(extent->start, start);
        extent->end = MAX(extent->end, end);
    }
}

int64_t data_extent_end(DataExtent *extent, int64_t offset)
{
    LOCK_GUARD(&extent->lock);

    return offset >= extent->start && offset < extent->end ? extent->end
                                                           : offset;
}

void data_extent_forget(DataExtent *extent)
{
    LOCK_GUARD(&extent->lock);

    extent->start = extent->end = 0;
    extent->changes++;
}
