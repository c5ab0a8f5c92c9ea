/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drained sections that wait in a coroutine while the test goes on.
 */
#ifndef TESTS_UNIT_DRAIN_FIXTURE_H
#define TESTS_UNIT_DRAIN_FIXTURE_H

#include "graph-fixture.h"

/* A drained section in a coroutine of its own. */
typedef struct Section {
    BlockDriverState *bs;
    bool begun;
} Section;

static inline void coroutine_fn section_entry(void *opaque)
{
    Section *s = opaque;

    bdrv_co_drained_begin(s->bs);
    s->begun = true;
}

static inline void section_start(Section *s, BlockDriverState *bs)
{
    s->bs = bs;
    s->begun = false;
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(section_entry, s));
}

/* Let the loop do all it can do now. */
static inline void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

#endif /* TESTS_UNIT_DRAIN_FIXTURE_H */
