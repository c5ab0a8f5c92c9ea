/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes that are on their way while the test looks at them.
 */
#ifndef TESTS_UNIT_REQUEST_FIXTURE_H
#define TESTS_UNIT_REQUEST_FIXTURE_H

#include "graph-fixture.h"

#include <stdatomic.h>

/** One write of 512 bytes of zeroes. */
typedef struct Request {
    BlockIOVec1 iov;
    char bytes[512];
    _Atomic int done; /* 1: ended well; negative: errno */
} Request;

static inline void request_done(void *opaque, int ret)
{
    Request *r = opaque;

    atomic_store(&r->done, ret < 0 ? ret : 1);
}

/** Send @r, which must live until it is done. */
static inline void request_write(Request *r, BlockBackend *to, int64_t offset)
{
    memset(r, 0, sizeof(*r));
    blk_aio_pwritev(to, offset, block_iov_buf(&r->iov, r->bytes, 512), 0,
                    request_done, r);
}

/** Let the loop of the graph do all it can do now. */
static inline void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

#endif /* TESTS_UNIT_REQUEST_FIXTURE_H */
