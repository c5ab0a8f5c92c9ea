/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: actions at one moment, all or none.
 */
#include "job-fixture.h"

#include "drain-fixture.h"
#include "image-fixture.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/transaction.h>

#include "block/graph/graph-int.h"

#define CLUSTER (64 << 10)
#define DISK (4 * CLUSTER)
#define ACTIONS_MAX 8

static BlockDriverState *disk[2];
static BlockBackend *guest[2];

/* Two disks, "a" and "b", of these letters; each with a guest and bitmap "x"
 * in which cluster 0 is dirty. */
static void disks(void)
{
    for (int i = 0; i < 2; i++) {
        g_autofree char *text =
            g_strdup_printf("mem,node-name=%c,size=256k", 'a' + i);
        BdrvDirtyBitmap *bitmap;

        disk[i] = open_ok(text);
        guest[i] = backend_ok("guest", disk[i], BLK_PERM_CONSISTENT_READ |
                              BLK_PERM_WRITE, BLK_PERM_ALL);
        job_fill(guest[i], 0, DISK, 'a' + i);
        bitmap = bdrv_create_dirty_bitmap(disk[i], CLUSTER, "x", NULL);
        bdrv_set_dirty_bitmap(bitmap, 0, 1);
    }
}

static void no_disks(void)
{
    for (int i = 0; i < 2; i++) {
        BdrvDirtyBitmap *bitmap;

        while ((bitmap = bdrv_dirty_bitmap_next(disk[i], NULL))) {
            bdrv_release_dirty_bitmap(bitmap);
        }
        blk_unref(guest[i]);
        bdrv_unref(disk[i]);
    }
}

static BlockActionType action_type(const char *name)
{
    int type = 0;

    while (!g_str_equal(block_action_names[type], name)) {
        type++;
        ck_assert_ptr_nonnull(block_action_names[type]);
    }
    return type;
}

/* Actions "name key=value,..." closed by NULL.  Returns how many. */
static size_t parse_actions(const char *const *texts, BlockAction *actions)
{
    size_t nr = 0;

    for (; texts[nr]; nr++) {
        g_auto(GStrv) parts = g_strsplit(texts[nr], " ", 2);

        actions[nr].type = action_type(parts[0]);
        actions[nr].options = block_options_parse_keyval(
            parts[1] ? parts[1] : "", NULL, NULL);
        ck_assert_ptr_nonnull(actions[nr].options);
    }
    return nr;
}

static int try_actions(bool grouped, const char *const *texts, GError **errp)
{
    BlockAction actions[ACTIONS_MAX];
    size_t nr = parse_actions(texts, actions);

    return block_transaction(graph, actions, nr, grouped, errp);
}

#define ACTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void actions_ok(bool grouped, const char *const *texts)
{
    g_autoptr(GError) error = NULL;
    int ret = try_actions(grouped, texts, &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
}

/* The state of all that actions can change, as a text. */
static char *state(void)
{
    g_autofree char *dump = block_graph_dump(graph);
    GString *text = g_string_new(dump);

    for (int i = 0; i < 2; i++) {
        BdrvDirtyBitmap *b = NULL;

        while ((b = bdrv_dirty_bitmap_next(disk[i], b))) {
            g_autofree char *hash = bdrv_dirty_bitmap_sha256(b);

            g_string_append_printf(text, "\n%c %s %s %d %d", 'a' + i,
                                   bdrv_dirty_bitmap_name(b), hash,
                                   bdrv_dirty_bitmap_enabled(b),
                                   bdrv_dirty_bitmap_busy(b));
        }
    }
    return g_string_free(text, false);
}

/* They fail with that error, and nothing has changed. */
static void actions_fail(const char *const *texts, int err,
                         const char *message)
{
    g_autofree char *before = state();
    g_autofree char *after = NULL;
    GError *error = NULL;

    ck_assert_int_lt(try_actions(true, texts, &error), 0);
    expect_error(&error, err, message);
    after = state();
    ck_assert_str_eq(before, after);
    ck_assert_ptr_null(block_job_next(graph, NULL));
    job_fill(guest[0], 0, 512, 'a'); /* nobody is drained any more */
}

static BdrvDirtyBitmap *bitmap(int i, const char *name)
{
    return bdrv_find_dirty_bitmap(disk[i], name);
}

/* --- each action ---------------------------------------------------------- */

START_TEST(bitmaps_can_be_added_changed_and_removed)
{
    disks();
    actions_ok(false, ACTIONS(
        "block-dirty-bitmap-add node=a,name=y,granularity=4k",
        "block-dirty-bitmap-add node=a,name=z,disabled=on",
        "block-dirty-bitmap-clear node=a,name=x",
        "block-dirty-bitmap-disable node=b,name=x",
        "block-dirty-bitmap-merge node=a,target=y,bitmaps.0.node=b,"
        "bitmaps.0.name=x"));
    ck_assert_int_eq(bdrv_dirty_bitmap_granularity(bitmap(0, "y")), 4096);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "y")), CLUSTER);
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap(0, "y")));
    ck_assert(!bdrv_dirty_bitmap_enabled(bitmap(0, "z")));
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "x")), 0);
    ck_assert(!bdrv_dirty_bitmap_enabled(bitmap(1, "x")));
    actions_ok(false, ACTIONS("block-dirty-bitmap-remove node=a,name=y",
                              "block-dirty-bitmap-enable node=b,name=x",
                              "block-dirty-bitmap-merge node=a,target=x,"
                              "bitmaps.0=z"));
    ck_assert_ptr_null(bitmap(0, "y"));
    ck_assert(bdrv_dirty_bitmap_enabled(bitmap(1, "x")));
    no_disks();
}
END_TEST

START_TEST(each_action_is_undone_when_a_later_one_fails)
{
    static const char *const actions[] = {
        "block-dirty-bitmap-add node=a,name=y",
        "block-dirty-bitmap-add node=a,name=y,disabled=on",
        "block-dirty-bitmap-clear node=a,name=x",
        "block-dirty-bitmap-disable node=a,name=x",
        "block-dirty-bitmap-enable node=a,name=off",
        "block-dirty-bitmap-merge node=a,target=off,bitmaps.0=x",
        "block-dirty-bitmap-remove node=a,name=x",
        "blockdev-backup job-id=j,device=a,target=t,sync=full",
        "blockdev-backup job-id=j,device=a,target=t,sync=incremental,bitmap=x",
        "blockdev-snapshot node=a,overlay=o",
        "blockdev-backup job-id=j,device=a,target=t,sync=bitmap,bitmap=fine,"
        "bitmap-mode=always",
        "blockdev-backup job-id=j,device=a,target=t,sync=full,resume-bitmap=r",
        "blockdev-backup job-id=j,device=a,target=t,sync=full,"
        "resume-bitmap=fine",
    };
    BlockDriverState *target, *overlay;

    disks();
    target = open_ok("mem,node-name=t,size=256k");
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    bdrv_create_dirty_bitmap(disk[0], CLUSTER, "off", NULL);
    bdrv_disable_dirty_bitmap(bitmap(0, "off"), NULL);
    bdrv_create_dirty_bitmap(disk[0], 4096, "fine", NULL);
    bdrv_set_dirty_bitmap(bitmap(0, "fine"), CLUSTER, 512);
    actions_fail(ACTIONS(actions[_i], "abort"), ECANCELED, "abort");
    actions_fail(ACTIONS("block-dirty-bitmap-clear node=b,name=x",
                         actions[_i],
                         "block-dirty-bitmap-clear node=b,name=nix"),
                 ENOENT, "'nix'");
    bdrv_unref(overlay);
    bdrv_unref(target);
    no_disks();
}
END_TEST

START_TEST(actions_see_what_those_before_them_have_done)
{
    BlockDriverState *target;

    disks();
    target = open_ok("mem,node-name=t,size=256k");
    actions_ok(false, ACTIONS(
        "block-dirty-bitmap-add node=a,name=y",
        "block-dirty-bitmap-merge node=a,target=y,bitmaps.0=x",
        "block-dirty-bitmap-clear node=a,name=x",
        "blockdev-backup job-id=j,device=a,target=t,sync=bitmap,bitmap=y,"
        "bitmap-mode=never"));
    job_end_ok(block_job_ref(block_job_find(graph, "j")));
    job_expect(target, 0, CLUSTER, 'a');
    job_expect(target, CLUSTER, DISK - CLUSTER, 0);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap(0, "x")), 0);
    bdrv_unref(target);
    no_disks();
}
END_TEST

START_TEST(a_snapshot_takes_the_writes_from_then_on)
{
    BlockDriverState *overlay;

    disks();
    make_image_ok("o", "size=256k");
    overlay = image_open("o", "qcow2,node-name=o");
    actions_ok(false, ACTIONS("blockdev-snapshot node=a,overlay=o"));
    ck_assert_ptr_eq(blk_bs(guest[0]), overlay);
    job_fill(guest[0], CLUSTER, 512, 'n');
    job_expect(disk[0], 0, DISK, 'a');
    job_expect(overlay, CLUSTER, 512, 'n');
    job_expect(overlay, CLUSTER + 512, DISK - CLUSTER - 512, 'a');
    actions_fail(ACTIONS("blockdev-snapshot node=b,overlay=o"), EBUSY,
                 "in use");
    blk_unref(guest[0]);
    guest[0] = NULL;
    bdrv_unref(overlay);
    guest[0] = backend_ok("guest", disk[0], BLK_PERM_WRITE, BLK_PERM_ALL);
    no_disks();
}
END_TEST

/* --- one moment ----------------------------------------------------------- */

typedef struct Write {
    BlockIOVec1 iov;
    uint8_t buf[512];
    bool ended;
} Write;

static void write_ended(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    ((Write *)opaque)->ended = true;
}

START_TEST(backups_of_two_disks_are_of_one_moment)
{
    BlockDriverState *target[2];
    Write writes[2];

    disks();
    target[0] = open_ok("mem,node-name=ta,size=256k");
    target[1] = open_ok("mem,node-name=tb,size=256k");
    /* The guest writes the second disk as soon as the first has its filter. */
    for (int i = 0; i < 2; i++) {
        writes[i].ended = false;
        memset(writes[i].buf, 'n', 512);
    }
    bdrv_drained_begin(disk[1]);
    blk_aio_pwritev(guest[1], 0, block_iov_buf(&writes[1].iov, writes[1].buf,
                                               512), 0, write_ended,
                    &writes[1]);
    bdrv_drained_end(disk[1]);
    actions_ok(true, ACTIONS(
        "blockdev-backup job-id=ja,device=a,target=ta,sync=full",
        "blockdev-backup job-id=jb,device=b,target=tb,sync=full"));
    blk_aio_pwritev(guest[0], 0, block_iov_buf(&writes[0].iov, writes[0].buf,
                                               512), 0, write_ended,
                    &writes[0]);
    job_end_ok(block_job_ref(block_job_find(graph, "jb")));
    job_settle();
    ck_assert(writes[0].ended && writes[1].ended);
    /* The write that came first is in, the one that came later is not. */
    job_expect(target[1], 0, 512, 'n');
    job_expect(target[1], 512, DISK - 512, 'b');
    job_expect(target[0], 0, DISK, 'a');
    bdrv_unref(target[1]);
    bdrv_unref(target[0]);
    no_disks();
}
END_TEST

START_TEST(jobs_of_a_group_end_together_others_do_not)
{
    BlockDriverState *target[2];
    BlockJobInfo info;
    BlockJob *a, *b;

    disks();
    target[0] = open_ok("mem,node-name=ta,size=256k");
    target[1] = open_ok("mem,node-name=tb,size=256k");
    mem_disk(target[0])->hold[MEM_WRITE] = true;
    actions_ok(_i, ACTIONS(
        "blockdev-backup job-id=ja,device=a,target=ta,sync=full",
        "blockdev-backup job-id=jb,device=b,target=tb,sync=full"));
    a = block_job_ref(block_job_find(graph, "ja"));
    b = block_job_ref(block_job_find(graph, "jb"));
    job_settle();
    block_job_query(b, &info);
    ck_assert_int_eq(info.status, _i ? BLOCK_JOB_WAITING : BLOCK_JOB_NULL);
    ck_assert_int_eq(block_job_cancel(a, true, NULL), 0);
    mem_disk(target[0])->hold[MEM_WRITE] = false;
    job_end_fails(a, ECANCELED, "cancelled");
    if (_i) {
        job_end_fails(b, ECANCELED, "cancelled");
    } else {
        job_end_ok(b);
    }
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 4);
    bdrv_unref(target[1]);
    bdrv_unref(target[0]);
    no_disks();
}
END_TEST

static int coroutine_fn empty_entry(void *opaque)
{
    return block_co_transaction(graph, NULL, 0, false, NULL);
}

START_TEST(an_empty_transaction_waits_for_all_requests)
{
    Write write = { .ended = false };

    disks();
    blk_aio_pwritev(guest[0], 0, block_iov_buf(&write.iov, write.buf, 512), 0,
                    write_ended, &write);
    ck_assert_int_eq(aio_co_run(block_graph_aio_context(graph), empty_entry,
                                NULL), 0);
    ck_assert(write.ended);
    no_disks();
}
END_TEST

/* --- bad input ------------------------------------------------------------ */

typedef struct Together {
    const char *const *texts;
    int ret;
    bool done;
} Together;

static void coroutine_fn together_entry(void *opaque)
{
    Together *t = opaque;
    BlockAction actions[ACTIONS_MAX];
    size_t nr = parse_actions(t->texts, actions);

    t->ret = block_co_transaction(graph, actions, nr, true, NULL);
    t->done = true;
}

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

/* A filter whose edge is frozen comes above the overlay. */
static int coroutine_fn start_backup(Other *other)
{
    other->job = block_co_job_start(
        graph, BLOCK_JOB_BACKUP,
        block_options_parse_keyval("job-id=other,device=o,target=u,sync=none",
                                   NULL, NULL), NULL);
    return other->job ? 0 : -EINVAL;
}

/* The edge below the overlay is frozen by a job for the active layer. */
static int coroutine_fn start_commit(Other *other)
{
    other->job = block_co_job_start(
        graph, BLOCK_JOB_COMMIT,
        block_options_parse_keyval("job-id=other,device=o", NULL, NULL), NULL);
    return other->job ? 0 : -EINVAL;
}

static int coroutine_fn start_mirror(Other *other)
{
    other->job = block_co_job_start(
        graph, BLOCK_JOB_MIRROR,
        block_options_parse_keyval("job-id=other,device=f,target=v,sync=full",
                                   NULL, NULL), NULL);
    return other->job ? 0 : -EINVAL;
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

START_TEST(a_snapshot_to_a_longer_overlay_is_undone)
{
    BlockDriverState *overlay;

    disks();
    make_image_ok("o", "size=512k");
    overlay = image_open("o", "qcow2,node-name=o");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=o", "abort"),
                 ECANCELED, "abort");
    bdrv_unref(overlay);
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

START_TEST(bad_actions_are_refused)
{
    disks();
    actions_fail(ACTIONS("abort x=1"), EINVAL, "'x'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=x"), EEXIST,
                 "'x'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a"), EINVAL, "name");
    actions_fail(ACTIONS("block-dirty-bitmap-add name=y"), EINVAL, "node");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=nix,name=y"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=y,"
                         "granularity=3"), EINVAL, "granularity");
    actions_fail(ACTIONS("block-dirty-bitmap-add node=a,name=y,"
                         "persistent=on"), ENOTSUP, "cannot store");
    actions_fail(ACTIONS("block-dirty-bitmap-clear node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-enable node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-disable node=a,name=nix"),
                 ENOENT, "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-remove node=a,name=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x"), EINVAL,
                 "bitmaps");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps=x"), EINVAL, "bitmaps");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0=nix"), ENOENT, "'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0.node=nix,bitmaps.0.name=x"), ENOENT,
                 "no node 'nix'");
    actions_fail(ACTIONS("block-dirty-bitmap-merge node=a,target=x,"
                         "bitmaps.0.name=x"), EINVAL, "element 0");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=nix"), ENOENT,
                 "'nix'");
    actions_fail(ACTIONS("blockdev-snapshot node=a,overlay=b"), EBUSY,
                 "in use");
    actions_fail(ACTIONS("blockdev-backup device=a,target=nix,sync=full"), 0,
                 "'nix'");
    no_disks();
}
END_TEST

START_TEST(each_action_has_a_help_text)
{
    for (int i = 0; i < BLOCK_ACTION_TYPES; i++) {
        g_autofree char *help = block_options_help(block_action_options(i));

        ck_assert(i == BLOCK_ACTION_ABORT || *help);
    }
}
END_TEST

static void add_tests(TCase *tcase)
{
    PROMISE(tcase, bitmaps_can_be_added_changed_and_removed);
    tcase_add_loop_test(tcase, each_action_is_undone_when_a_later_one_fails,
                        0, 13);
    PROMISE(tcase, actions_see_what_those_before_them_have_done);
    PROMISE(tcase, a_snapshot_takes_the_writes_from_then_on);
    PROMISE(tcase, backups_of_two_disks_are_of_one_moment);
    tcase_add_loop_test(tcase, jobs_of_a_group_end_together_others_do_not, 0,
                        2);
    PROMISE(tcase, an_empty_transaction_waits_for_all_requests);
    PROMISE(tcase, stored_bitmaps_are_removed_by_two_transactions_at_once);
    tcase_add_loop_test(tcase, a_snapshot_is_undone_whoever_comes_meanwhile, 0,
                        5);
    PROMISE(tcase, a_snapshot_of_the_base_is_undone_when_a_stream_ends);
    PROMISE(tcase, a_snapshot_above_a_commit_is_undone_when_that_ends);
    PROMISE(tcase, an_overlay_that_has_got_a_user_meanwhile_is_none);
    PROMISE(tcase, a_backup_is_undone_whoever_comes_above_it_meanwhile);
    PROMISE(tcase, a_snapshot_to_a_longer_overlay_is_undone);
    PROMISE(tcase, snapshots_of_two_transactions_do_not_wait_in_a_circle);
    PROMISE(tcase, bad_actions_are_refused);
    PROMISE(tcase, each_action_has_a_help_text);
}

static void setup(void)
{
    file_setup();
    job_listen();
}

static void teardown(void)
{
    job_listen_end();
    file_teardown();
}

int main(void)
{
    return job_main_with("transaction", add_tests, setup, teardown);
}
