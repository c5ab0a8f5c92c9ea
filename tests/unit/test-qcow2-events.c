/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events of blkdebug that qcow2 tells of: each at its place, before the
 * request to the file that it is named after.
 *
 * A case is an image, something that happened to it, and something that the
 * guest does after it was opened anew, with nothing in its caches.
 */
#include "image-fixture.h"
#include "mem-driver.h"

#include "block/filters/blkdebug-rules.h"

#define INJECTED 28
#define NOTHING MEM_OPS /* no one request of the file comes next */

/* Small tables: 64 entries in an L2 table or in the refcount table, 64 counts
 * in a refcount block. */
#define TINY "cluster_size=512,refcount_bits=64,size=4M"
#define USUAL "cluster_size=4k,size=1M"
#define LARGE "cluster_size=512k,size=4M"

static BlockDriverState *disk;
static BlockBackend *blk;

/* --- what a guest does ---------------------------------------------------- */

static int coroutine_fn write_bytes(int64_t offset, int64_t bytes,
                                    unsigned flags)
{
    g_autofree char *buf = g_malloc(bytes);

    memset(buf, 1, bytes);
    return blk_co_pwrite(blk, offset, bytes, buf, flags);
}

static int coroutine_fn then_flush(int ret)
{
    return ret < 0 ? ret : blk_co_flush(blk);
}

static int coroutine_fn nothing(void *opaque)
{
    return 0;
}

static int coroutine_fn read_some(void *opaque)
{
    char buf[512];

    return blk_co_pread(blk, 0, sizeof(buf), buf, 0);
}

static int coroutine_fn write_part(void *opaque)
{
    return then_flush(write_bytes(512, 512, 0));
}

static int coroutine_fn write_cluster(void *opaque)
{
    return then_flush(write_bytes(0, 4096, 0));
}

static int coroutine_fn write_next(void *opaque)
{
    return then_flush(write_bytes(65536, 4096, 0));
}

static int coroutine_fn write_packed(void *opaque)
{
    return then_flush(write_bytes(0, 4096, BDRV_REQ_WRITE_COMPRESSED));
}

/* More than a refcount block of TINY counts. */
static int coroutine_fn write_much(void *opaque)
{
    return then_flush(write_bytes(0, 64 << 10, 0));
}

/* More than the refcount table of TINY reaches. */
static int coroutine_fn write_more(void *opaque)
{
    return then_flush(write_bytes(0, 3 << 20, 0));
}

static int coroutine_fn write_and_discard(void *opaque)
{
    int ret = then_flush(write_bytes(0, 512 << 10, 0));

    if (ret == 0) {
        ret = blk_co_pdiscard(blk, 0, 512 << 10);
    }
    return then_flush(ret);
}

static int coroutine_fn discard(void *opaque)
{
    return then_flush(blk_co_pdiscard(blk, 0, 4096));
}

static int coroutine_fn discard_next(void *opaque)
{
    return then_flush(blk_co_pdiscard(blk, 128 << 10, 4096));
}

static int coroutine_fn grow(void *opaque)
{
    BlockTruncate how = { .offset = INT64_C(1) << 30, .exact = true };

    return blk_co_truncate(blk, &how, NULL);
}

static int coroutine_fn make_empty(void *opaque)
{
    return bdrv_co_make_empty(blk_bs(blk), NULL);
}

/* --- cases ---------------------------------------------------------------- */

typedef int coroutine_fn (*Act)(void *opaque);

typedef struct Case {
    const char *event;
    const char *create;
    Act before;
    Act act;
    MemOp next;    /* the request to the file that comes next */
    bool snapshot; /* taken before */
    bool backed;   /* there is a backing node */
    bool survives; /* it does not fail when that request does */
} Case;

static const Case cases[] = {
    { "l1_update", USUAL, nothing, write_cluster, MEM_WRITE },
    { "l1_grow_alloc_table", USUAL, nothing, grow, MEM_READ },
    { "l1_grow_write_table", USUAL, nothing, grow, MEM_WRITE },
    { "l1_grow_activate_table", USUAL, nothing, grow, MEM_WRITE },
    { "l2_load", USUAL, write_cluster, read_some, MEM_READ },
    { "l2_update", USUAL, nothing, write_cluster, MEM_WRITE },
    { "l2_update_compressed", USUAL, nothing, write_packed, MEM_ZERO },
    { "l2_alloc_cow_read", USUAL, write_cluster, write_cluster, MEM_READ,
      .snapshot = true },
    { "l2_alloc_write", USUAL, write_cluster, write_cluster, MEM_WRITE,
      .snapshot = true },
    { "l2_alloc_write", USUAL, nothing, write_cluster, MEM_ZERO },
    { "read_backing_aio", USUAL, nothing, read_some, NOTHING, .backed = true,
      .survives = true },
    { "read_compressed", USUAL, write_packed, read_some, MEM_READ },
    { "write_compressed", USUAL, nothing, write_packed, MEM_WRITE },
    { "cow_read", USUAL, write_cluster, write_part, MEM_READ,
      .snapshot = true },
    { "cow_write", USUAL, write_cluster, write_part, MEM_WRITE,
      .snapshot = true },
    { "refblock_load", USUAL, nothing, write_cluster, MEM_READ },
    { "refblock_update_part", USUAL, nothing, write_cluster, MEM_WRITE },
    { "refblock_alloc", TINY, nothing, write_much, MEM_WRITE },
    { "refblock_alloc_write", TINY, nothing, write_much, MEM_WRITE },
    { "refblock_alloc_hookup", TINY, nothing, write_much, MEM_WRITE },
    { "reftable_update", TINY, nothing, write_much, MEM_WRITE },
    { "reftable_grow", TINY, nothing, write_more, MEM_WRITE },
    { "refblock_alloc_write_blocks", TINY, nothing, write_more, MEM_WRITE },
    { "refblock_alloc_write_table", TINY, nothing, write_more, MEM_WRITE },
    { "refblock_alloc_switch_table", TINY, nothing, write_more, MEM_WRITE },
    { "cluster_alloc", USUAL, write_cluster, write_next, MEM_READ },
    { "cluster_alloc_bytes", USUAL, nothing, write_packed, MEM_READ },
    { "cluster_alloc_space", LARGE, write_and_discard, write_part, MEM_ZERO },
    { "cluster_free", USUAL, write_cluster, discard, NOTHING,
      .survives = true },
    { "empty_image_prepare", USUAL, write_cluster, make_empty, MEM_READ },
};

static BlockBackend *opened(const Case *c, const char *file)
{
    g_autofree char *text = g_strdup_printf("qcow2,discard=unmap,%s%s",
                                            c->backed ? "backing=base," : "",
                                            file);

    return backend_of(open_ok(text));
}

static int in_co(Act act)
{
    return aio_co_run(block_graph_aio_context(graph), act, NULL);
}

/* The image of @c, as it was before, open on blkdebug with the option @rule. */
static void given(const Case *c, const char *rule)
{
    g_autofree char *create = g_strdup_printf("qcow2,file=disk,%s", c->create);
    g_autofree char *file = g_strdup_printf(
        "file.driver=blkdebug,file.discard=unmap,file.image=disk%s", rule);
    BlockDriverState *base = open_ok("mem,node-name=base,size=1M");

    disk = open_ok("mem,node-name=disk,size=0,discard=unmap");
    ck_assert_int_eq(bdrv_create(graph, opts(create), NULL), 0);
    blk = opened(c, "file=disk");
    ck_assert_int_eq(in_co(c->before), 0);
    if (c->snapshot) {
        snapshot_ok(blk_bs(blk), "s");
    }
    blk_unref(blk);
    blk = opened(c, file);
    bdrv_unref(base);
}

static void done(void)
{
    check_sound(blk);
    blk_unref(blk);
    bdrv_unref(disk);
}

/* --- under way ------------------------------------------------------------ */

/* What the guest of a case does, in a coroutine of its own. */
typedef struct Doing {
    Act act;
    bool done;
    int ret;
} Doing;

static void coroutine_fn doing_entry(void *opaque)
{
    Doing *doing = opaque;

    doing->ret = doing->act(NULL);
    doing->done = true;
}

static void begin(Doing *doing, Act act)
{
    *doing = (Doing){ .act = act };
    aio_co_enter(block_graph_aio_context(graph),
                 coroutine_create(doing_entry, doing));
}

static void wait_for(const Doing *doing)
{
    while (!doing->done) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static void hold_all(bool hold)
{
    for (int op = 0; op < MEM_OPS; op++) {
        atomic_store(&mem_disk(disk)->hold[op], hold);
    }
}

/* The next request to the file is @op, alone. */
static void expect_next(const char *event, MemOp op)
{
    unsigned before[MEM_OPS];

    memcpy(before, mem_disk(disk)->count, sizeof(before));
    hold_all(true);
    bdrv_debug_resume(blk_bs(blk), "A");
    settle();
    for (unsigned i = 0; i < MEM_OPS; i++) {
        ck_assert_msg(mem_disk(disk)->count[i] - before[i] == (i == op),
                      "%s: after it come %u of request kind %u", event,
                      mem_disk(disk)->count[i] - before[i], i);
    }
    hold_all(false);
}

/* --- promises ------------------------------------------------------------- */

START_TEST(a_break_point_stops_right_before_the_request_it_is_named_after)
{
    const Case *c = &cases[_i];
    unsigned total;
    Doing doing;

    given(c, "");
    ck_assert_int_eq(bdrv_debug_breakpoint(blk_bs(blk), c->event, "A"), 0);
    begin(&doing, c->act);
    while (!doing.done && !bdrv_debug_is_suspended(blk_bs(blk), "A")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_msg(!doing.done, "%s: it never happens", c->event);
    total = mem_total(mem_disk(disk));
    settle();
    ck_assert(!doing.done);
    ck_assert_uint_eq(mem_total(mem_disk(disk)), total);
    if (c->next != NOTHING) {
        expect_next(c->event, c->next);
    } else {
        ck_assert_int_eq(bdrv_debug_resume(blk_bs(blk), "A"), 0);
    }
    wait_for(&doing);
    ck_assert_msg(doing.ret == 0, "%s: %d", c->event, doing.ret);
    done();
}
END_TEST

START_TEST(an_error_injected_there_is_what_the_guest_gets)
{
    const Case *c = &cases[_i];
    g_autofree char *rule = g_strdup_printf(
        ",file.inject-error.0.event=%s,file.inject-error.0.errno=%d,"
        "file.inject-error.0.once=on", c->event, INJECTED);
    Doing doing;

    if (c->survives) {
        return;
    }
    given(c, rule);
    begin(&doing, c->act);
    wait_for(&doing);
    ck_assert_msg(doing.ret == -INJECTED, "%s: %d", c->event, doing.ret);
    /* Once only. */
    begin(&doing, c->act);
    wait_for(&doing);
    ck_assert_msg(doing.ret == 0, "%s: %d the second time", c->event,
                  doing.ret);
    done();
}
END_TEST

START_TEST(whoever_comes_while_a_request_is_stopped_undoes_nothing)
{
    static const Act acts[] = { write_next, read_some, discard_next };
    const Case *c = &cases[_i];
    Doing doing, others[G_N_ELEMENTS(acts)];

    given(c, "");
    ck_assert_int_eq(bdrv_debug_breakpoint(blk_bs(blk), c->event, "A"), 0);
    begin(&doing, c->act);
    while (!bdrv_debug_is_suspended(blk_bs(blk), "A")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(acts); i++) {
        begin(&others[i], acts[i]);
    }
    settle();
    ck_assert(!doing.done);
    ck_assert_int_eq(bdrv_debug_resume(blk_bs(blk), "A"), 0);
    wait_for(&doing);
    ck_assert_int_eq(doing.ret, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(acts); i++) {
        wait_for(&others[i]);
        ck_assert_int_eq(others[i].ret, 0);
    }
    done();
}
END_TEST

/* --- open, and what is never told ----------------------------------------- */

START_TEST(reading_the_refcount_table_is_an_event_of_open)
{
    static const Case c = { "reftable_load", USUAL, nothing, nothing };
    GError *error = NULL;

    given(&c, "");
    blk_unref(blk);
    ck_assert_ptr_null(bdrv_open(
        graph, opts("qcow2,file.driver=blkdebug,file.image=disk,"
                    "file.inject-error.0.event=reftable_load,"
                    "file.inject-error.0.errno=28"), &error));
    expect_error(&error, INJECTED, "could not read the refcount table");
    bdrv_unref(disk);
}
END_TEST

/* Known by name, so that scripts are accepted; docs/drivers.md has why. */
static const char *const never[] = {
    "l1_shrink_write_table", "l1_shrink_free_l2_clusters", "vmstate_load",
    "vmstate_save", "refblock_update",
};

/* Told by blkdebug itself or by the core. */
static const char *const elsewhere[] = {
    "read_aio", "write_aio", "cor_write", "flush_to_os", "flush_to_disk",
    "pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail",
    "pwritev_rmw_after_tail", "pwritev", "pwritev_zero", "pwritev_done",
    "pdiscard", "reftable_load", "none",
};

static bool is_among(const char *const *names, size_t nr, const char *name)
{
    for (size_t i = 0; i < nr; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_case(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (strcmp(cases[i].event, name) == 0) {
            return true;
        }
    }
    return false;
}

START_TEST(each_event_is_told_here_or_elsewhere_or_never)
{
    for (unsigned i = 0; blkdebug_event_names[i]; i++) {
        const char *name = blkdebug_event_names[i];
        int places = has_case(name) +
                     is_among(never, G_N_ELEMENTS(never), name) +
                     is_among(elsewhere, G_N_ELEMENTS(elsewhere), name);

        ck_assert_msg(places == 1, "%s: %d", name, places);
    }
}
END_TEST

START_TEST(rules_and_break_points_for_what_never_happens_are_accepted)
{
    static const Act acts[] = { write_packed, write_part, grow, write_more,
                                read_some, discard, make_empty };

    for (unsigned i = 0; i < G_N_ELEMENTS(never); i++) {
        static const Case c = { NULL, TINY, nothing, nothing };
        g_autofree char *rules = g_strdup_printf(
            ",file.inject-error.0.event=%s,file.set-state.0.event=%s,"
            "file.set-state.0.new_state=2", never[i], never[i]);

        given(&c, rules);
        ck_assert_int_eq(bdrv_debug_breakpoint(blk_bs(blk), never[i], "A"),
                         0);
        for (unsigned j = 0; j < G_N_ELEMENTS(acts); j++) {
            int ret = in_co(acts[j]);

            ck_assert_msg(ret == 0 || ret == -EINVAL, "%s, %u: %d", never[i],
                          j, ret);
        }
        ck_assert_int_eq(bdrv_debug_remove_breakpoint(blk_bs(blk), "A"), 0);
        done();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-events");
    TCase *tcase = tcase_create("qcow2-events");

    mem_register();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(
        tcase, a_break_point_stops_right_before_the_request_it_is_named_after,
        0, G_N_ELEMENTS(cases));
    tcase_add_loop_test(tcase, an_error_injected_there_is_what_the_guest_gets,
                        0, G_N_ELEMENTS(cases));
    tcase_add_loop_test(
        tcase, whoever_comes_while_a_request_is_stopped_undoes_nothing, 0,
        G_N_ELEMENTS(cases));
    PROMISE(tcase, reading_the_refcount_table_is_an_event_of_open);
    PROMISE(tcase, each_event_is_told_here_or_elsewhere_or_never);
    PROMISE(tcase, rules_and_break_points_for_what_never_happens_are_accepted);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
