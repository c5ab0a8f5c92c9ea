/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A read that copies meets a guest's change of the same cluster, in all orders.
 *
 * One of the two is stopped by blkdebug at each place where it can be, the
 * other is sent, then the first one goes on.  Whoever came first, the change
 * has the last word, and the reader sees all of the change or nothing.
 */
#include "cor-fixture.h"

#include <stdatomic.h>

#define CLUSTERS 8
#define STAGES_MAX 40

/* An action: @op is one of w (write), z (zero), d (discard), r (read).  Offset
 * and length in eighths of a cluster, from cluster 2 on, which is read. */
typedef struct Act {
    char op;
    int at;
    int length;
} Act;

static const Act acts[] = {
    { 'w', 0, 8 },   /* all of it */
    { 'w', 2, 2 },   /* what is read */
    { 'w', 6, 1 },   /* a neighbour in the cluster */
    { 'w', 8, 4 },  /* the next cluster */
    { 'w', -4, 4 }, /* the one before */
    { 'w', -8, 24 }, /* three clusters */
    { 'w', -1, 2 },  /* across the border */
    { 'z', 0, 8 },
    { 'z', 2, 1 },
    { 'z', 8, 8 },
    { 'd', 0, 8 },
    { 'd', 1, 3 },
    { 'd', 8, 8 },
    { 'r', 0, 8 },
    { 'r', 5, 1 },
    { 'r', -8, 24 },
};

static const Act reads[] = {
    { 'r', 2, 2 },
    { 'r', 0, 8 },
    { 'r', 3, 7 },   /* two clusters */
};

/* Kinds of images. */
typedef struct Kind {
    const char *create;
    int64_t cluster;
} Kind;

static const Kind kinds[] = {
    { "cluster_size=4k", 4096 },
    { "cluster_size=64k", 65536 },
    { "cluster_size=16k,extended_l2=on", 16384 },
};

/* Whether @act touches a cluster that @read copies. */
static bool touches(const Act *act, const Act *read)
{
    int from = read->at / 8 * 8, to = (read->at + read->length + 7) / 8 * 8;

    return act->at < to && act->at + act->length > from;
}

/* A request that is under way. */
typedef struct Job {
    BlockIOVec1 iov;
    uint8_t *buf;
    const Act *act;
    int64_t offset, bytes;
    _Atomic int done; /* 1: ended well; negative: errno */
} Job;

static const Kind *kind;
static uint8_t *old, *want;

static void job_done(void *opaque, int ret)
{
    atomic_store(&((Job *)opaque)->done, ret < 0 ? ret : 1);
}

static void start(Job *job, const Act *act)
{
    memset(job, 0, sizeof(*job));
    job->act = act;
    job->offset = 2 * kind->cluster + act->at * (kind->cluster / 8);
    job->bytes = act->length * (kind->cluster / 8);
    job->buf = g_malloc(job->bytes);
    memset(job->buf, act->op == 'w' ? 255 : 0, job->bytes);
    block_iov_buf(&job->iov, job->buf, job->bytes);
    if (act->op == 'w') {
        blk_aio_pwritev(guest, job->offset, &job->iov.vec, 0, job_done, job);
    } else if (act->op == 'z') {
        blk_aio_pwrite_zeroes(guest, job->offset, job->bytes, 0, job_done,
                              job);
    } else if (act->op == 'd') {
        blk_aio_pdiscard(guest, job->offset, job->bytes, job_done, job);
    } else {
        blk_aio_preadv(guest, job->offset, &job->iov.vec, 0, job_done, job);
    }
}

static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

/* --- what comes of it ----------------------------------------------------- */

static void expect_change(const Job *job)
{
    int64_t from = job->offset, to = job->offset + job->bytes;

    if (job->act->op == 'd') {
        /* Whole units only: the rest is as it was. */
        int64_t unit = kind->cluster;

        from = (from + unit - 1) / unit * unit;
        to -= to % unit;
    }
    if (job->act->op != 'r' && from < to) {
        memset(want + from, job->act->op == 'w' ? 255 : 0, to - from);
    }
}

/* A reader saw all old, or all new. */
static void expect_untorn(const Job *reader, bool new_only, bool old_only)
{
    const uint8_t *was = old + reader->offset;
    const uint8_t *is = want + reader->offset;
    bool all_old = memcmp(reader->buf, was, reader->bytes) == 0;
    bool all_new = memcmp(reader->buf, is, reader->bytes) == 0;

    ck_assert(all_old || all_new);
    ck_assert(!new_only || all_new);
    ck_assert(!old_only || all_old);
}

static void scene_begin(void)
{
    int64_t bytes = CLUSTERS * kind->cluster;

    cor_base(bytes);
    cor_top(bytes, kind->create, ",copy-on-read=on");
    old = g_malloc(bytes);
    want = g_malloc(bytes);
    memcpy(old, mem_disk(base)->data, bytes);
    memcpy(want, old, bytes);
}

static void scene_end(void)
{
    int64_t bytes = CLUSTERS * kind->cluster;
    g_autofree uint8_t *buf = g_malloc(bytes);

    ck_assert_int_eq(blk_pread(guest, 0, bytes, buf, 0), 0);
    ck_assert_mem_eq(buf, want, bytes);
    ck_assert_mem_eq(mem_disk(base)->data, old, bytes);
    expect_sound(top);
    cor_stop();
    g_free(old);
    g_free(want);
}

/* --- stopping ------------------------------------------------------------- */

/* A place: the @nth time that @event happens at @node. */
typedef struct Place {
    const char *node;
    const char *event;
    unsigned nth;
} Place;

static BlockDriverState *place_node(const Place *place)
{
    return bdrv_find_node(graph, place->node);
}

/* Start @job and let it come to @place; false: it does not, and has ended. */
static bool start_and_stop(Job *job, const Act *act, const Place *place)
{
    BlockDriverState *bs = place_node(place);

    ck_assert_int_eq(bdrv_debug_breakpoint(bs, place->event, "0"), 0);
    start(job, act);
    settle();
    for (unsigned i = 0; i < place->nth; i++) {
        g_autofree char *here = g_strdup_printf("%u", i);
        g_autofree char *next = g_strdup_printf("%u", i + 1);

        if (!bdrv_debug_is_suspended(bs, here)) {
            break;
        }
        ck_assert_int_eq(bdrv_debug_breakpoint(bs, place->event, next), 0);
        ck_assert_int_eq(bdrv_debug_resume(bs, here), 0);
        settle();
    }
    return job->done == 0;
}

static void go_on(const Place *place)
{
    for (unsigned i = 0; i <= place->nth; i++) {
        g_autofree char *tag = g_strdup_printf("%u", i);

        bdrv_debug_remove_breakpoint(place_node(place), tag);
    }
    settle();
}

/*
 * A change of what is being copied waits.  Others do not, unless for tables of
 * the image that are being written.
 */
static void expect_order(const Act *read, const Job *change,
                         const Place *place)
{
    if (change->act->op == 'r' || change->act->op == 'd') {
        return; /* may have nothing to do */
    }
    if (touches(change->act, read)) {
        ck_assert_int_eq(change->done, 0);
    } else if (!g_str_equal(place->event, "write_aio")) {
        ck_assert_int_eq(change->done, 1);
    }
}

/* @first is at @place when @second comes.  Returns whether it got there. */
static bool meet(const Act *first, const Act *second, const Place *place)
{
    bool reader_first = first->op == 'r';
    Job a, b;
    bool stopped;

    scene_begin();
    stopped = start_and_stop(&a, first, place);
    if (stopped) {
        start(&b, second);
        expect_change(&a);
        expect_change(&b);
        settle();
        if (reader_first) {
            expect_order(first, &b, place);
        }
        go_on(place);
        ck_assert_int_eq(a.done, 1);
        ck_assert_int_eq(b.done, 1);
        if (reader_first) {
            expect_untorn(&a, false, touches(second, first));
        }
        if (second->op == 'r') {
            expect_untorn(&b, !reader_first, false);
        }
        g_free(b.buf);
    } else {
        expect_change(&a);
        go_on(place);
        ck_assert_int_eq(a.done, 1);
    }
    g_free(a.buf);
    scene_end();
    return stopped;
}

/* All places of @event, one after the other; returns how many there are. */
static unsigned meet_everywhere(const Act *first, const Act *second,
                                const char *node, const char *event)
{
    Place place = { .node = node, .event = event };

    while (meet(first, second, &place)) {
        place.nth++;
        ck_assert_uint_lt(place.nth, STAGES_MAX);
    }
    return place.nth;
}

static void reader_stops_at(const char *node, const char *event)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(reads); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(acts); j++) {
            ck_assert_uint_gt(meet_everywhere(&reads[i], &acts[j], node,
                                              event), 0);
        }
    }
}

START_TEST(a_change_while_the_chain_is_read_wins)
{
    kind = &kinds[_i];
    reader_stops_at("basedbg", "read_aio");
}
END_TEST

START_TEST(a_change_between_the_read_and_the_copy_wins)
{
    kind = &kinds[_i];
    reader_stops_at("topdbg", "cor_write");
}
END_TEST

START_TEST(a_change_while_the_copy_is_written_wins)
{
    kind = &kinds[_i];
    reader_stops_at("topdbg", "write_aio");
}
END_TEST

START_TEST(a_change_that_came_first_is_what_a_reader_sees)
{
    kind = &kinds[_i];
    for (unsigned i = 0; i < G_N_ELEMENTS(reads); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(acts); j++) {
            if (acts[j].op != 'r') {
                meet_everywhere(&acts[j], &reads[i], "topdbg", "write_aio");
            }
        }
    }
}
END_TEST

START_TEST(a_read_that_may_not_wait_for_a_copy_says_so)
{
    Place place = { .node = "topdbg", .event = "cor_write" };
    uint8_t buf[512];
    Job a;

    kind = &kinds[0];
    scene_begin();
    ck_assert(start_and_stop(&a, &reads[0], &place));
    ck_assert_int_eq(blk_pread(guest, 2 * kind->cluster, 512, buf,
                               BDRV_REQ_SERIALISING | BDRV_REQ_NO_WAIT),
                     -EBUSY);
    go_on(&place);
    ck_assert_int_eq(a.done, 1);
    g_free(a.buf);
    scene_end();
}
END_TEST

START_TEST(a_drained_section_waits_for_a_copy)
{
    Place place = { .node = "topdbg", .event = "cor_write" };
    Job a;

    kind = &kinds[0];
    scene_begin();
    ck_assert(start_and_stop(&a, &reads[0], &place));
    bdrv_debug_resume(place_node(&place), "0");
    bdrv_drained_begin(top);
    ck_assert_int_eq(a.done, 1);
    bdrv_drained_end(top);
    g_free(a.buf);
    scene_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copy-on-read-race");
    TCase *tcase = tcase_create("copy-on-read-race");
    int n = G_N_ELEMENTS(kinds);

    mem_register();
    tcase_set_timeout(tcase, 200);
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_add_loop_test(tcase, a_change_while_the_chain_is_read_wins, 0, n);
    tcase_add_loop_test(tcase, a_change_between_the_read_and_the_copy_wins, 0,
                        n);
    tcase_add_loop_test(tcase, a_change_while_the_copy_is_written_wins, 0, n);
    tcase_add_loop_test(tcase, a_change_that_came_first_is_what_a_reader_sees,
                        0, n);
    PROMISE(tcase, a_read_that_may_not_wait_for_a_copy_says_so);
    PROMISE(tcase, a_drained_section_waits_for_a_copy);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
