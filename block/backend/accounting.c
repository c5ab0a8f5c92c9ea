/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accounting: operations, bytes, failures, latencies.
 *
 * Counters are spread over cache lines by thread and only added up when
 * somebody asks; the sums may be a moment old, no count is lost.
 */
#include "block/backend/backend-int.h"

#define ADD(counter, n)                                                       \
    atomic_fetch_add_explicit(&(counter), (n), memory_order_relaxed)
#define GET(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

static AcctShard *current_shard(BlockBackend *blk)
{
    return &blk->acct[aio_context_index(aio_get_current()) % ACCT_SHARDS];
}

int64_t blk_acct_start(BlockBackend *blk)
{
    if (G_LIKELY(!GET(blk->measure_latency))) {
        return 0;
    }
    return aio_clock_ns(aio_get_current());
}

static unsigned latency_bucket(uint64_t ns)
{
    unsigned bucket = ns > 1 ? 63 - __builtin_clzll(ns) : 0;

    return MIN(bucket, BLOCK_ACCT_BUCKETS - 1);
}

void blk_acct_done(const BlkRequest *req, int ret, int64_t start_ns)
{
    AcctShard *shard = current_shard(req->blk);

    if (ret == 0) {
        ADD(shard->operations[req->type], 1);
        ADD(shard->bytes[req->type], req->bytes);
    } else {
        ADD(shard->failed[req->type], 1);
    }
    if (G_UNLIKELY(start_ns)) {
        AcctLatency *latency = atomic_load(&req->blk->latency);
        int64_t ns = aio_clock_ns(aio_get_current()) - start_ns;

        ADD(latency->total_ns[req->type], ns);
        ADD(latency->buckets[req->type][latency_bucket(MAX(ns, 0))], 1);
    }
}

void blk_acct_invalid(const BlkRequest *req)
{
    ADD(current_shard(req->blk)->invalid[req->type], 1);
}

void blk_acct_destroy(BlockBackend *blk)
{
    g_free(atomic_load(&blk->latency));
}

void blk_set_latency_accounting(BlockBackend *blk, bool on)
{
    AcctLatency *none = NULL;
    AcctLatency *made;

    if (on && !atomic_load(&blk->latency)) {
        made = g_new0(AcctLatency, 1);
        if (!atomic_compare_exchange_strong(&blk->latency, &none, made)) {
            g_free(made); /* another thread was first */
        }
    }
    /* After the pointer: who sees the flag finds the counters. */
    atomic_store(&blk->measure_latency, on);
}

void blk_get_stats(BlockBackend *blk, BlockAcctType type,
                   BlockAcctStats *stats)
{
    AcctLatency *latency = atomic_load(&blk->latency);

    g_assert(type >= 0 && type < BLOCK_ACCT_TYPES);
    *stats = (BlockAcctStats){ .operations = 0 };
    for (unsigned i = 0; i < ACCT_SHARDS; i++) {
        AcctShard *shard = &blk->acct[i];

        stats->operations += GET(shard->operations[type]);
        stats->bytes += GET(shard->bytes[type]);
        stats->failed += GET(shard->failed[type]);
        stats->invalid += GET(shard->invalid[type]);
    }
    if (latency) {
        stats->total_ns = GET(latency->total_ns[type]);
        for (unsigned i = 0; i < BLOCK_ACCT_BUCKETS; i++) {
            stats->latency[i] = GET(latency->buckets[type][i]);
        }
    }
}
