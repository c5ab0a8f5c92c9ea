/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers of the source of copy-before-write (cbw-readers.c), against a search
 * of all of them.
 */
#include "graph-fixture.h"

#include "block/filters/cbw-readers.h"

#define CLUSTER_BITS 16
#define CLUSTERS 600 /* more than there are buckets */
#define READERS 64

typedef struct Wait {
    CbwReaders *readers;
    Lock *lock;
    int64_t offset, bytes;
    bool ended;
} Wait;

static void coroutine_fn wait_entry(void *opaque)
{
    Wait *wait = opaque;

    WITH_LOCK(wait->lock) {
        cbw_readers_wait(wait->readers, wait->offset, wait->bytes, wait->lock);
    }
    wait->ended = true;
}

static void settle(void)
{
    while (aio_poll(block_graph_aio_context(graph), false)) {
    }
}

/* A range of some bytes, of some clusters, or of nearly all. */
static int64_t draw(GRand *rand, int64_t *bytes)
{
    int64_t disk = (int64_t)CLUSTERS << CLUSTER_BITS;
    int64_t offset = g_rand_int_range(rand, 0, disk);
    int bits = g_rand_int_range(rand, 9, 27);

    *bytes = MIN(g_rand_int_range(rand, 1, 1 << bits), disk - offset);
    return offset;
}

static bool overlaps_any(const CbwReader *reader, const bool *there,
                         const Wait *wait)
{
    for (int i = 0; i < READERS; i++) {
        if (there[i] && reader[i].offset < wait->offset + wait->bytes &&
            wait->offset < reader[i].offset + reader[i].bytes) {
            return true;
        }
    }
    return false;
}

static void wait_for_some(unsigned seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    CbwReaders readers;
    CbwReader reader[READERS];
    bool there[READERS];
    Lock lock;
    Wait wait = { .readers = &readers, .lock = &lock };

    lock_init(&lock, LOCK_RANK_DRIVER);
    cbw_readers_init(&readers, CLUSTER_BITS);
    WITH_LOCK(&lock) {
        for (int i = 0; i < READERS; i++) {
            int64_t bytes, offset = draw(rand, &bytes);

            cbw_readers_add(&readers, &reader[i], offset, bytes);
            there[i] = true;
        }
    }
    wait.offset = draw(rand, &wait.bytes);
    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(wait_entry, &wait));
    settle();
    for (int i = 0; i < READERS; i++) {
        int gone = (i * 37 + seed) % READERS;

        ck_assert_int_eq(wait.ended, !overlaps_any(reader, there, &wait));
        WITH_LOCK(&lock) {
            cbw_readers_remove(&readers, &reader[gone]);
        }
        there[gone] = false;
        settle();
    }
    ck_assert(wait.ended);
}

START_TEST(a_guest_waits_until_the_last_reader_of_its_range_has_gone)
{
    for (unsigned seed = 0; seed < 100; seed++) {
        wait_for_some(seed);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cbw-readers");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    PROMISE(tcase, a_guest_waits_until_the_last_reader_of_its_range_has_gone);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
