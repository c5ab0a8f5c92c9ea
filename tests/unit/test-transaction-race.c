/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions, and what others do meanwhile.
 */
#include "transaction-fixture.h"

static void store_bitmaps(const char *const *names)
{
    BlockDriverState *bs = image_open("i", "qcow2,node-name=i");

    for (; *names; names++) {
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(bs, CLUSTER, *names,
                                                      NULL);

        ck_assert_int_eq(bdrv_dirty_bitmap_set_persistence(b, true, NULL), 0);
    }
    bdrv_unref(bs);
}

START_TEST(stored_bitmaps_are_removed_by_two_transactions_at_once)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t[2] = {
        { .texts = ACTIONS("block-dirty-bitmap-remove node=i,name=a",
                           "block-dirty-bitmap-remove node=i,name=b") },
        { .texts = ACTIONS("block-dirty-bitmap-remove node=i,name=c",
                           "block-dirty-bitmap-remove node=i,name=d") },
    };
    BlockDriverState *bs;

    make_image_ok("i", "size=256k");
    store_bitmaps(ACTIONS("a", "b", "c", "d"));
    bs = image_open("i", "qcow2,node-name=i");
    for (int i = 0; i < 2; i++) {
        aio_co_enter(ctx, coroutine_create(together_entry, &t[i]));
    }
    while (!t[0].done || !t[1].done) {
        aio_poll(ctx, true);
    }
    ck_assert(t[0].ret == 0 && t[1].ret == 0);
    ck_assert_ptr_null(bdrv_dirty_bitmap_next(bs, NULL));
    bdrv_unref(bs);
}
END_TEST

#define INTERNAL "blockdev-snapshot-internal-sync device=i,name=s"

/* Some change of the graph, of somebody else, takes its time. */
static void coroutine_fn change_entry(void *opaque)
{
    drain_change_begin(opaque, NULL);
    coroutine_yield();
    drain_change_end(graph);
}

/* Only one gets the name, and only what he has made is undone. */
START_TEST(snapshots_of_one_name_are_not_made_at_once)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t[2] = {
        { .texts = _i == 1 ? ACTIONS(INTERNAL, "abort") : ACTIONS(INTERNAL) },
        { .texts = _i == 2 ? ACTIONS(INTERNAL, "abort") : ACTIONS(INTERNAL) },
    };
    BlockDriverState *bs;
    GPtrArray *list = NULL;
    Coroutine *change;

    make_image_ok("i", "size=256k");
    bs = image_open("i", "qcow2,node-name=i");
    change = coroutine_create(change_entry, bs);
    aio_co_enter(ctx, change);
    for (int i = 0; i < 2; i++) {
        aio_co_enter(ctx, coroutine_create(together_entry, &t[i]));
    }
    job_settle();
    aio_co_enter(ctx, change);
    while (!t[0].done || !t[1].done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(bdrv_snapshot_list(bs, &list, NULL), 0);
    ck_assert_uint_eq(list->len, (t[0].ret == 0) + (t[1].ret == 0));
    ck_assert_uint_le(list->len, 1);
    g_ptr_array_unref(list);
    bdrv_unref(bs);
}
END_TEST

/* --- others meanwhile ----------------------------------------------------- */

/* What somebody else does in a coroutine of his own. */
typedef struct Other {
    int coroutine_fn (*act)(struct Other *other);
    BlockDriverState *overlay;
    BlockBackend *blk;
    BlockJob *job;
    int ret;
    bool done;
} Other;

static int coroutine_fn start_job(Other *other, BlockJobType type,
                                  const char *text)
{
    other->job = block_co_job_start(
        graph, type, block_options_parse_keyval(text, NULL, NULL), NULL);
    return other->job ? 0 : -EINVAL;
}

/* A filter whose edge is frozen comes above the overlay. */
static int coroutine_fn start_backup(Other *other)
{
    return start_job(other, BLOCK_JOB_BACKUP,
                     "job-id=other,device=o,target=u,sync=none");
}

/* The edge below the overlay is frozen by a job for the active layer. */
static int coroutine_fn start_commit(Other *other)
{
    return start_job(other, BLOCK_JOB_COMMIT, "job-id=other,device=o");
}

static int coroutine_fn start_mirror(Other *other)
{
    return start_job(other, BLOCK_JOB_MIRROR,
                     "job-id=other,device=f,target=v,sync=full");
}

/* A user who shares no writes comes above what guests have written to. */
static int coroutine_fn use_alone(Other *other)
{
    return blk_co_insert_bs(other->blk, disk[0], NULL);
}

static int coroutine_fn use_alone_later(Other *other)
{
    const BlockPerm perm = { .used = BLK_PERM_CONSISTENT_READ,
                             .shared = BLK_PERM_CONSISTENT_READ };
    const BlockPerm none = { .shared = BLK_PERM_ALL };
    int ret = blk_co_set_perm(other->blk, &none, NULL);

    ret = ret < 0 ? ret : blk_co_insert_bs(other->blk, disk[0], NULL);
    return ret < 0 ? ret : blk_co_set_perm(other->blk, &perm, NULL);
}

/* The overlay gets another backing node. */
static int coroutine_fn take_link(Other *other)
{
    return bdrv_co_set_backing(other->overlay, bdrv_find_node(graph, "u"),
                               NULL);
}

static void coroutine_fn other_entry(void *opaque)
{
    Other *other = opaque;

    other->ret = other->act(other);
    other->done = true;
}

static void other_ends(Other *other)
{
    while (!other->done) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    if (other->job) {
        ck_assert_int_eq(block_job_cancel(other->job, true, NULL), 0);
        job_end_fails(other->job, ECANCELED, "cancelled");
    }
    blk_unref(other->blk);
}

START_TEST(a_snapshot_is_undone_whoever_comes_meanwhile)
{
    static int coroutine_fn (*const acts[])(Other *) = {
        start_backup, use_alone, use_alone_later, take_link, start_commit,
    };
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS(
        "blockdev-snapshot node=a,overlay=o",
        "blockdev-backup job-id=j,device=b,target=t,sync=full", "abort") };
    Other other = { .act = acts[_i] };
    BlockDriverState *targets[2];
    Section section;
    BdrvChild *link;

    disks();
    targets[0] = open_ok("mem,node-name=t,size=256k");
    targets[1] = open_ok("mem,node-name=u,size=256k");
    make_image_ok("o", "size=256k");
    other.overlay = image_open("o", "qcow2,node-name=o");
    other.blk = blk_new(graph, "other",
                        &(BlockPerm){ .used = BLK_PERM_CONSISTENT_READ,
                                      .shared = BLK_PERM_CONSISTENT_READ });
    section_start(&section, targets[0]); /* the second action waits for it */
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    ck_assert(!t.done);
    ck_assert_ptr_eq(blk_bs(guest[0]), other.overlay);
    aio_co_enter(ctx, coroutine_create(other_entry, &other));
    job_settle();
    bdrv_drained_end(targets[0]);
    while (!t.done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(t.ret, -ECANCELED);
    ck_assert_ptr_eq(blk_bs(guest[0]), disk[0]);
    link = bdrv_cow_child(other.overlay); /* NULL, or what take_link() wants */
    ck_assert(!link || bdrv_child_bs(link) == targets[1]);
    other_ends(&other);
    bdrv_unref(other.overlay);
    bdrv_unref(targets[1]);
    bdrv_unref(targets[0]);
    no_disks();
}
END_TEST

/* Begin a transaction that takes a snapshot, then waits for somebody else, and
 * fails; have @job take effect meanwhile. */
static void finalize_meanwhile(const char *snapshot, BlockJob *job)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS(
        snapshot, "blockdev-backup job-id=x,device=b,target=t,sync=full",
        "abort") };
    BlockDriverState *target = open_ok("mem,node-name=t,size=256k");
    Section section;

    section_start(&section, target);
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    ck_assert(!t.done);
    ck_assert_int_eq(block_job_finalize(job, NULL), 0);
    job_settle();
    bdrv_drained_end(target);
    while (!t.done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(t.ret, -ECANCELED);
    bdrv_unref(target);
}

START_TEST(a_snapshot_of_the_base_is_undone_when_a_stream_ends)
{
    BlockDriverState *layer[3], *overlay;
    BlockJob *job;

    disks();
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    make_image_ok("c", "size=256k");
    layer[0] = image_open("c", "qcow2,node-name=c");
    make_image_ok("m", "size=256k");
    layer[1] = image_open("m", "qcow2,node-name=m,backing=c");
    make_image_ok("s", "size=256k");
    layer[2] = image_open("s", "qcow2,node-name=s,backing=m");
    job = job_ok(BLOCK_JOB_STREAM, "job-id=j,device=s,base-node=c,"
                 "auto-finalize=off");
    job_reach(job, BLOCK_JOB_PENDING);
    finalize_meanwhile("blockdev-snapshot node=c,overlay=o", job);
    ck_assert_ptr_null(bdrv_cow_child(overlay));
    job_end_ok(job);
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_cow_child(layer[2])), layer[0]);
    for (int i = 2; i >= 0; i--) {
        bdrv_unref(layer[i]);
    }
    bdrv_unref(overlay);
    no_disks();
}
END_TEST

START_TEST(a_snapshot_above_a_commit_is_undone_when_that_ends)
{
    BlockDriverState *base, *top, *overlay;
    BlockBackend *blk;
    BlockJob *job;

    disks();
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    make_image_ok("c", "size=256k");
    base = image_open("c", "qcow2,node-name=c");
    make_image_ok("s", "size=256k");
    top = image_open("s", "qcow2,node-name=s,backing=c");
    blk = backend_ok("guest", top, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    job_fill(blk, 0, CLUSTER, 's');
    job = job_ok(BLOCK_JOB_COMMIT, "job-id=j,device=s,filter-node-name=f,"
                 "auto-finalize=off");
    job_reach(job, BLOCK_JOB_READY);
    ck_assert_int_eq(block_job_complete(job, NULL), 0);
    job_reach(job, BLOCK_JOB_PENDING);
    finalize_meanwhile("blockdev-snapshot node=f,overlay=o", job);
    ck_assert_ptr_null(bdrv_cow_child(overlay));
    job_end_ok(job);
    ck_assert_ptr_eq(blk_bs(blk), base);
    job_expect(base, 0, CLUSTER, 's');
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(base);
    bdrv_unref(overlay);
    no_disks();
}
END_TEST

static void coroutine_fn lock_entry(void *opaque)
{
    Other *other = opaque;

    co_mutex_lock(&graph->control_lock);
    while (!other->done) {
        co_sleep_ns(0);
    }
    co_mutex_unlock(&graph->control_lock);
}

START_TEST(an_overlay_that_has_got_a_user_meanwhile_is_none)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS("blockdev-snapshot node=a,overlay=o",
                                    "abort") };
    Other other = { .done = false };

    disks();
    make_image_ok("o", "size=256k");
    other.overlay = image_open("o", "qcow2,node-name=o");
    aio_co_enter(ctx, coroutine_create(lock_entry, &other));
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    ck_assert(!t.done);
    other.blk = backend_ok("other", other.overlay, BLK_PERM_CONSISTENT_READ,
                           BLK_PERM_ALL);
    other.done = true;
    while (!t.done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(t.ret, -EBUSY);
    ck_assert_ptr_eq(blk_bs(other.blk), other.overlay);
    ck_assert_ptr_null(bdrv_cow_child(other.overlay));
    other_ends(&other);
    bdrv_unref(other.overlay);
    no_disks();
}
END_TEST

/* A job whose requests would wait for the transaction, which would wait for it
 * to let go of the filter of the backup. */
START_TEST(a_backup_is_undone_whoever_comes_above_it_meanwhile)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS(
        "blockdev-backup job-id=j,device=a,target=t,sync=full,"
        "filter-node-name=f",
        "blockdev-backup job-id=k,device=b,target=u,sync=full", "abort") };
    Other other = { .act = start_mirror };
    BlockDriverState *targets[3];
    Section section;

    disks();
    targets[0] = open_ok("mem,node-name=t,size=256k");
    targets[1] = open_ok("mem,node-name=u,size=256k");
    targets[2] = open_ok("mem,node-name=v,size=256k");
    section_start(&section, targets[1]);
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    ck_assert(!t.done);
    aio_co_enter(ctx, coroutine_create(other_entry, &other));
    job_settle();
    bdrv_drained_end(targets[1]);
    while (!t.done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(t.ret, -ECANCELED);
    other_ends(&other);
    for (int i = 0; i < 3; i++) {
        bdrv_unref(targets[i]);
    }
    no_disks();
}
END_TEST

/* A link that somebody else wants to change. */
typedef struct Link {
    BlockDriverState *bs, *to;
    bool by_edge;
    bool done;
} Link;

static void coroutine_fn link_entry(void *opaque)
{
    Link *l = opaque;

    if (l->by_edge) {
        bdrv_co_replace_child(bdrv_cow_child(l->bs), l->to, NULL);
    } else {
        bdrv_co_set_backing(l->bs, l->to, NULL);
    }
    l->done = true;
}

/* When it was asked for the link led elsewhere; now a transaction has moved it,
 * and may have to move it back. */
START_TEST(a_link_that_a_snapshot_has_moved_meanwhile_is_not_changed)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS(
        "blockdev-snapshot node=x,overlay=o",
        "blockdev-backup job-id=j,device=b,target=t,sync=full", "abort") };
    Link links[2] = { { .by_edge = false }, { .by_edge = true } };
    BlockDriverState *nodes[5];
    Write read = { .ended = false };
    BlockBackend *blk;
    Section section;

    disks();
    make_image_ok("p", "size=256k");
    make_image_ok("o", "size=256k");
    nodes[0] = open_ok("mem,node-name=c,size=256k");
    nodes[1] = open_ok("mem,node-name=x,size=256k");
    nodes[2] = open_ok("mem,node-name=t,size=256k");
    nodes[3] = image_open("p", "qcow2,node-name=p,backing=c");
    nodes[4] = image_open("o", "qcow2,node-name=o");
    blk = backend_ok("reader", nodes[3], BLK_PERM_CONSISTENT_READ,
                     BLK_PERM_ALL);
    section_start(&section, nodes[2]); /* the second action waits for it */
    mem_disk(nodes[0])->hold[MEM_READ] = true;
    blk_aio_preadv(blk, 0, block_iov_buf(&read.iov, read.buf, 512), 0,
                   write_ended, &read);
    links[0].bs = links[1].bs = nodes[3];
    links[0].to = nodes[1];
    links[1].to = nodes[0];
    aio_co_enter(ctx, coroutine_create(link_entry, &links[0]));
    job_settle(); /* it waits for the read */
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    aio_co_enter(ctx, coroutine_create(link_entry, &links[1]));
    job_settle();
    mem_disk(nodes[0])->hold[MEM_READ] = false;
    while (!links[0].done) {
        aio_poll(ctx, true);
    }
    job_settle();
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_cow_child(nodes[3])), nodes[4]);
    ck_assert(!t.done && !links[1].done);
    bdrv_drained_end(nodes[2]);
    while (!t.done || !links[1].done) {
        aio_poll(ctx, true);
    }
    ck_assert_ptr_eq(bdrv_child_bs(bdrv_cow_child(nodes[3])), nodes[0]);
    blk_unref(blk);
    for (int i = 4; i >= 0; i--) {
        bdrv_unref(nodes[i]);
    }
    no_disks();
}
END_TEST

typedef struct Amend {
    BlockDriverState *bs;
    int ret;
    bool done;
} Amend;

static void coroutine_fn amend_entry(void *opaque)
{
    Amend *a = opaque;

    a->ret = bdrv_co_amend(a->bs, block_options_parse_keyval("size=512k", NULL,
                                                             NULL), NULL);
    a->done = true;
}

/* Both wait for the same request; the overlay takes over who resizes. */
START_TEST(an_overlay_is_not_resized_in_the_place_of_what_is_below_it)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t = { .texts = ACTIONS("blockdev-snapshot node=p,overlay=o") };
    BlockDriverState *below, *overlay;
    Write read = { .ended = false };
    Amend amend = { .done = false };
    BlockBackend *blk;

    disks();
    make_image_ok("p", "size=256k");
    make_image_ok("o", "size=256k");
    below = open_ok("mem,node-name=c,size=256k");
    amend.bs = image_open("p", "qcow2,node-name=p,backing=c");
    overlay = image_open("o", "qcow2,node-name=o");
    blk = backend_ok("reader", amend.bs, BLK_PERM_CONSISTENT_READ,
                     BLK_PERM_ALL);
    mem_disk(below)->hold[MEM_READ] = true;
    blk_aio_preadv(blk, 0, block_iov_buf(&read.iov, read.buf, 512), 0,
                   write_ended, &read);
    aio_co_enter(ctx, coroutine_create(amend_entry, &amend));
    job_settle();
    aio_co_enter(ctx, coroutine_create(together_entry, &t));
    job_settle();
    mem_disk(below)->hold[MEM_READ] = false;
    while (!t.done || !amend.done) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(bdrv_length(overlay), DISK);
    ck_assert_int_eq(bdrv_length(amend.bs), amend.ret < 0 ? DISK : 2 * DISK);
    blk_unref(blk);
    bdrv_unref(overlay);
    bdrv_unref(amend.bs);
    bdrv_unref(below);
    no_disks();
}
END_TEST

START_TEST(snapshots_of_two_transactions_do_not_wait_in_a_circle)
{
    AioContext *ctx = block_graph_aio_context(graph);
    Together t[2] = {
        { .texts = ACTIONS(
            "blockdev-snapshot node=a,overlay=o",
            "blockdev-backup job-id=j,device=b,target=t,sync=none",
            "abort") },
        { .texts = ACTIONS(
            "blockdev-snapshot node=b,overlay=p",
            "blockdev-backup job-id=k,device=a,target=u,sync=none",
            "abort") },
    };
    BlockDriverState *nodes[4];
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;

    disks();
    nodes[0] = open_ok("mem,node-name=t,size=256k");
    nodes[1] = open_ok("mem,node-name=u,size=256k");
    make_image_ok("o", "size=256k");
    nodes[2] = image_open("o", "qcow2,node-name=o");
    make_image_ok("p", "size=256k");
    nodes[3] = image_open("p", "qcow2,node-name=p");
    before = state();
    for (int i = 0; i < 2; i++) {
        aio_co_enter(ctx, coroutine_create(together_entry, &t[i]));
    }
    while (!t[0].done || !t[1].done) {
        aio_poll(ctx, true);
    }
    ck_assert(t[0].ret == -ECANCELED && t[1].ret == -ECANCELED);
    after = state();
    ck_assert_str_eq(before, after);
    for (int i = 0; i < 4; i++) {
        bdrv_unref(nodes[i]);
    }
    no_disks();
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(tcase, snapshots_of_one_name_are_not_made_at_once, 0,
                        3);
    PROMISE(tcase, stored_bitmaps_are_removed_by_two_transactions_at_once);
    tcase_add_loop_test(tcase, a_snapshot_is_undone_whoever_comes_meanwhile, 0,
                        5);
    PROMISE(tcase, a_snapshot_of_the_base_is_undone_when_a_stream_ends);
    PROMISE(tcase, a_snapshot_above_a_commit_is_undone_when_that_ends);
    PROMISE(tcase, an_overlay_that_has_got_a_user_meanwhile_is_none);
    PROMISE(tcase, a_backup_is_undone_whoever_comes_above_it_meanwhile);
    PROMISE(tcase, a_link_that_a_snapshot_has_moved_meanwhile_is_not_changed);
    PROMISE(tcase, an_overlay_is_not_resized_in_the_place_of_what_is_below_it);
    PROMISE(tcase, snapshots_of_two_transactions_do_not_wait_in_a_circle);
}

int main(void)
{
    return job_main_with("transaction-race", add_tests, transaction_setup,
                         transaction_teardown);
}
