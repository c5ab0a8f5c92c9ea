/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The register oracle on a disk into which the test can reach: each rule finds
 * the wrong value, and lets the right ones pass.
 */
#include "check-main.h"

#include <blockgraph/sim-oracle.h>
#include <errno.h>
#include <string.h>

#include "mem-driver.h"
#include "sim/pattern.h"
#include "sim/sim-int.h"

#define DISK_BYTES (64 * 1024)
#define SECTOR 512

static BgSim *sim;
static BlockBackend *blk;
static BlockDriverState *node;
static BgSimModel *model;

static void setup_in(const BgSimConfig *config)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                       BLK_PERM_ALL };
    BlockOptions *options =
        block_options_parse_keyval("mem,size=64k,discard=unmap", "driver", NULL);

    sim = bgsim_new(1, config);
    node = bdrv_open(bgsim_graph(sim), options, NULL);
    ck_assert_ptr_nonnull(node);
    blk = blk_new(bgsim_graph(sim), "guest", &perm);
    ck_assert_int_eq(blk_insert_bs(blk, node, NULL), 0);
    model = bgsim_model_new(sim, blk, "disk", DISK_BYTES);
}

static void setup(void)
{
    setup_in(NULL);
}

static void teardown(void)
{
    blk_unref(blk);
    bdrv_unref(node);
    bgsim_free(sim);
}

/* --- one request ---------------------------------------------------------- */

typedef struct Request {
    BgSimOpKind kind;
    int64_t offset;
    int64_t bytes;
    unsigned flags;
    int ret;
    bool done;
} Request;

static void coroutine_fn request_entry(BgSim *world, void *opaque)
{
    Request *r = opaque;

    switch (r->kind) {
    case BGSIM_OP_READ:
        r->ret = bgsim_model_pread(model, r->offset, r->bytes);
        break;
    case BGSIM_OP_WRITE:
        r->ret = bgsim_model_pwrite(model, r->offset, r->bytes, r->flags);
        break;
    case BGSIM_OP_ZERO:
        r->ret = bgsim_model_zero(model, r->offset, r->bytes, r->flags);
        break;
    case BGSIM_OP_DISCARD:
        r->ret = bgsim_model_discard(model, r->offset, r->bytes);
        break;
    case BGSIM_OP_FLUSH:
        r->ret = bgsim_model_flush(model);
        break;
    default:
        r->ret = bgsim_model_status(model, r->offset, r->bytes);
        break;
    }
    r->done = true;
}

static void start(Request *r)
{
    bgsim_spawn(sim, bgsim_op_name(r->kind), NULL, request_entry, r);
}

static void finish(Request *r)
{
    while (!r->done) {
        ck_assert(bgsim_step(sim));
    }
}

static int run(BgSimOpKind kind, int64_t offset, int64_t bytes, unsigned flags)
{
    Request r = { .kind = kind, .offset = offset, .bytes = bytes,
                  .flags = flags };

    start(&r);
    finish(&r);
    return r.ret;
}

static void do_write(int64_t offset, int64_t bytes)
{
    ck_assert_int_eq(run(BGSIM_OP_WRITE, offset, bytes, 0), 0);
}

static void do_read(int64_t offset, int64_t bytes)
{
    ck_assert_int_eq(run(BGSIM_OP_READ, offset, bytes, 0), 0);
}

static void good(void)
{
    const char *message = NULL;
    bool bad = bgsim_violated(sim, &message);

    ck_assert_msg(!bad, "%s", message);
}

/* What was said has all of the @texts, up to NULL. */
static void violated(const char *oracle, const char *const *texts)
{
    const char *message = NULL;
    const char *by = bgsim_violated(sim, &message);

    ck_assert_ptr_nonnull(by);
    ck_assert_str_eq(by, oracle);
    for (; *texts; texts++) {
        ck_assert_msg(strstr(message, *texts), "'%s' is not in: %s", *texts,
                      message);
    }
    /* Let the world go on, so that it can be taken down. */
    atomic_store(&sim->violated, false);
    g_clear_pointer(&sim->violation, g_free);
}

#define VIOLATED(oracle, ...)                                                 \
    violated(oracle, (const char *const[]){ __VA_ARGS__, NULL })

/* The bytes of the sector at @offset. */
static uint8_t *raw(int64_t offset)
{
    return mem_disk(node)->data + offset;
}

/* A write that waits in the driver. */
static void start_held(Request *r)
{
    atomic_store(&mem_disk(node)->hold[MEM_WRITE], true);
    start(r);
    while (atomic_load(&mem_disk(node)->held) == 0) {
        ck_assert(bgsim_step(sim));
    }
}

static void release(Request *r)
{
    atomic_store(&mem_disk(node)->hold[MEM_WRITE], false);
    finish(r);
}

/* --- reads ---------------------------------------------------------------- */

START_TEST(a_random_guest_finds_nothing_wrong_on_a_good_disk)
{
    BgSimGuestConfig config = { .requests = 2000, .fua_permille = 100,
                                .think_ns = 1000 };
    uint64_t ok = 0;

    bgsim_guest_start(model, "guest", bgsim_thread(sim, "io"), &config);
    bgsim_guest_start(model, "guest2", NULL, &config);
    ck_assert(bgsim_run(sim, -1, NULL));
    ck_assert_uint_gt(bgsim_model_requests(model, &ok), 3000);
    ck_assert_uint_gt(ok, 3000);
    ck_assert(bgsim_check_equal(blk, model, NULL));
    ck_assert(bgsim_check_durable(blk, model, NULL));
}
END_TEST

START_TEST(with_real_threads_a_good_disk_is_good_too)
{
    BgSimConfig world = { .threads = true };
    BgSimGuestConfig config = { .requests = 500, .fua_permille = 100 };
    g_autoptr(GError) error = NULL;
    bool ok;

    teardown();
    setup_in(&world);
    bgsim_guest_start(model, "guest", bgsim_thread(sim, "io0"), &config);
    bgsim_guest_start(model, "guest2", bgsim_thread(sim, "io1"), &config);
    ok = bgsim_run(sim, -1, &error);
    ck_assert_msg(ok, "%s", error ? error->message : "");
    ck_assert(bgsim_check_equal(blk, model, NULL));
}
END_TEST

START_TEST(a_read_of_an_older_write_is_found_and_explained)
{
    uint8_t old[SECTOR];

    do_write(0, 4096);
    memcpy(old, raw(1024), SECTOR);
    do_write(512, 2048);
    do_read(0, 4096);
    good();
    memcpy(raw(1024), old, SECTOR);
    do_read(0, 1024);
    good();
    do_read(0, 4096);
    VIOLATED("register", "disk, offset 1024: found write #1 of [0, +4096)",
             "write #3 of [512, +2048)", "the last operations there:",
             "acknowledged at #");
}
END_TEST

START_TEST(a_torn_sector_is_found)
{
    do_write(0, 4096);
    raw(512)[511] ^= 1;
    do_read(0, 4096);
    VIOLATED("register", "offset 512: found a torn sector, other from byte "
             "511 on");
}
END_TEST

START_TEST(a_sector_from_elsewhere_is_found)
{
    do_write(0, 4096);
    memcpy(raw(512), raw(2048), SECTOR);
    do_read(512, 512);
    VIOLATED("register", "offset 512: found the sector of offset 2048");
}
END_TEST

START_TEST(data_of_another_disk_are_found)
{
    BgSimModel *other = bgsim_model_new(sim, blk, "other", DISK_BYTES);

    do_write(0, 512);
    model = other;
    do_read(0, 512);
    VIOLATED("register", "other, offset 0: found the sector of offset 0 of "
             "disk 1 (this is disk 2)");
}
END_TEST

START_TEST(a_lost_write_is_found)
{
    do_write(0, 512);
    memset(raw(0), 0, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found zeroes", "write #1");
}
END_TEST

START_TEST(bytes_that_nobody_wrote_are_found)
{
    raw(8192)[17] = 1;
    do_read(8192, 512);
    VIOLATED("register", "offset 8192: found bytes that no guest wrote");
}
END_TEST

START_TEST(old_and_new_are_legal_while_a_write_is_in_flight)
{
    Request w = { .kind = BGSIM_OP_WRITE, .bytes = 512 };
    Request reads[20];

    do_write(0, 512);
    start_held(&w);
    do_read(0, 512);
    for (unsigned i = 0; i < 20; i++) {
        reads[i] = (Request){ .kind = BGSIM_OP_READ, .bytes = 512 };
        start(&reads[i]);
    }
    release(&w);
    for (unsigned i = 0; i < 20; i++) {
        finish(&reads[i]);
    }
    good();
}
END_TEST

START_TEST(reads_do_not_go_backwards)
{
    Request w = { .kind = BGSIM_OP_WRITE, .bytes = 512 };
    uint8_t old[SECTOR];

    do_write(0, 512);
    memcpy(old, raw(0), SECTOR);
    start_held(&w);
    do_read(0, 512);
    /* The clock has gone on by two ticks of the read and one of its check. */
    pattern_fill(raw(0), atomic_load(&sim->clock) - 3, SECTOR_PLACE(1, 0));
    do_read(0, 512);
    good();
    memcpy(raw(0), old, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found write #1");
    release(&w);
}
END_TEST

START_TEST(a_failed_discard_that_was_not_seen_does_not_come_later)
{
    uint8_t old[SECTOR];

    do_write(0, 512);
    memcpy(old, raw(0), SECTOR);
    mem_disk(node)->fail[MEM_DISCARD] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_DISCARD, 0, 512, 0), -EIO);
    do_read(0, 512);
    good();
    memset(raw(0), 0, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found zeroes");
}
END_TEST

START_TEST(a_failed_write_may_have_happened_until_it_is_overwritten)
{
    uint8_t old[SECTOR];

    do_write(0, 512);
    memcpy(old, raw(0), SECTOR);
    mem_disk(node)->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_WRITE, 0, 512, 0), -EIO);
    do_read(0, 512);
    good();
    do_write(0, 512);
    do_read(0, 512);
    good();
    memcpy(raw(0), old, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found write #1");
}
END_TEST

START_TEST(a_discard_leaves_the_old_value_or_zeroes)
{
    uint8_t old[SECTOR];

    do_write(0, 1024);
    memcpy(old, raw(0), SECTOR);
    ck_assert_int_eq(run(BGSIM_OP_DISCARD, 0, 1024, 0), 0);
    do_read(512, 512);
    memcpy(raw(0), old, SECTOR);
    do_read(0, 512);
    good();
    memset(raw(0), 7, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found bytes that no guest wrote");
}
END_TEST

START_TEST(zeroes_that_were_overwritten_are_found)
{
    ck_assert_int_eq(run(BGSIM_OP_ZERO, 0, 4096, 0), 0);
    do_read(0, 4096);
    do_write(1024, 512);
    do_read(0, 4096);
    good();
    memset(raw(1024), 0, SECTOR);
    do_read(0, 4096);
    VIOLATED("register", "offset 1024: found zeroes");
}
END_TEST

START_TEST(what_zeroes_have_overwritten_is_found)
{
    uint8_t old[SECTOR];

    do_write(0, 512);
    memcpy(old, raw(0), SECTOR);
    ck_assert_int_eq(run(BGSIM_OP_ZERO, 0, 512, BDRV_REQ_MAY_UNMAP), 0);
    do_read(0, 512);
    good();
    memcpy(raw(0), old, SECTOR);
    do_read(0, 512);
    VIOLATED("register", "found write #1", "zero #3 of [0, +512)");
}
END_TEST

START_TEST(unknown_content_is_legal_at_first_only)
{
    bgsim_model_set_unknown(model);
    memset(raw(0), 7, DISK_BYTES);
    do_read(0, 4096);
    do_write(0, 512);
    do_read(0, 4096);
    good();
    ck_assert(bgsim_check_equal(blk, model, NULL));
    memset(raw(0), 7, SECTOR);
    do_read(0, 4096);
    VIOLATED("register", "offset 0: found bytes that no guest wrote");
}
END_TEST

/* --- block status --------------------------------------------------------- */

START_TEST(status_that_promises_zeroes_where_data_are_is_found)
{
    do_write(0, 4096);
    ck_assert_int_eq(run(BGSIM_OP_STATUS, 0, 16384, 0), 0);
    good();
    mem_disk(node)->allocated[0] = false;
    ck_assert_int_eq(run(BGSIM_OP_STATUS, 0, 16384, 0), 0);
    VIOLATED("status", "block status promises zeroes", "offset 0");
}
END_TEST

START_TEST(a_map_that_calls_data_zero_is_found)
{
    g_autoptr(GError) error = NULL;

    do_write(4096, 4096);
    ck_assert(bgsim_check_map(sim, blk, NULL));
    mem_disk(node)->allocated[1] = false;
    ck_assert(!bgsim_check_map(sim, blk, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "other bytes than zeroes"));
}
END_TEST

/* --- power cuts ----------------------------------------------------------- */

static bool durable(GError **errp)
{
    return bgsim_check_durable(blk, model, errp);
}

START_TEST(what_a_flush_has_pinned_must_survive)
{
    g_autoptr(GError) error = NULL;
    uint8_t first[SECTOR];
    uint8_t second[SECTOR];

    do_write(0, 512);
    memcpy(first, raw(0), SECTOR);
    do_write(0, 512);
    memcpy(second, raw(0), SECTOR);
    memset(raw(0), 0, SECTOR);
    ck_assert(durable(NULL));
    memcpy(raw(0), first, SECTOR);
    ck_assert(durable(NULL));
    memcpy(raw(0), second, SECTOR);
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), 0);
    do_write(0, 512);
    ck_assert(durable(NULL));
    memcpy(raw(0), second, SECTOR);
    ck_assert(durable(NULL));
    memcpy(raw(0), first, SECTOR);
    ck_assert(!durable(&error));
    ck_assert_ptr_nonnull(strstr(error->message, "could have survived"));
    memset(raw(0), 0, SECTOR);
    ck_assert(!durable(NULL));
    good();
}
END_TEST

START_TEST(a_failed_write_leaves_its_sector_unsettled_until_one_is_pinned)
{
    mem_disk(node)->fail[MEM_WRITE] = EIO;
    ck_assert(bgsim_model_is_settled(model, 0));
    ck_assert_int_eq(run(BGSIM_OP_WRITE, 0, 512, 0), -EIO);
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), 0);
    ck_assert(!bgsim_model_is_settled(model, 0));
    ck_assert(!bgsim_model_is_settled(model, 511));
    ck_assert(bgsim_model_is_settled(model, 512));
    do_write(0, 1024);
    ck_assert(!bgsim_model_is_settled(model, 0));
    ck_assert(bgsim_model_is_settled(model, 512));
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), 0);
    ck_assert(bgsim_model_is_settled(model, 0));
    good();
}
END_TEST

START_TEST(a_failed_write_that_was_not_seen_leaves_its_sector_settled)
{
    mem_disk(node)->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_WRITE, 0, 512, 0), -EIO);
    do_read(0, 512);
    ck_assert(bgsim_model_is_settled(model, 0));
    good();
}
END_TEST

START_TEST(a_write_with_fua_is_pinned_when_it_ends)
{
    do_write(512, 512);
    ck_assert_int_eq(run(BGSIM_OP_WRITE, 0, 512, BDRV_REQ_FUA), 0);
    memset(raw(512), 0, SECTOR);
    ck_assert(durable(NULL));
    memset(raw(0), 0, SECTOR);
    ck_assert(!durable(NULL));
}
END_TEST

START_TEST(a_failed_flush_pins_nothing)
{
    do_write(0, 512);
    mem_disk(node)->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), -EIO);
    memset(raw(0), 0, SECTOR);
    ck_assert(durable(NULL));
}
END_TEST

START_TEST(a_flush_does_not_pin_what_had_not_ended_when_it_began)
{
    Request w = { .kind = BGSIM_OP_WRITE, .bytes = 512 };

    start_held(&w);
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), 0);
    release(&w);
    memset(raw(0), 0, SECTOR);
    ck_assert(durable(NULL));
}
END_TEST

START_TEST(a_disk_that_forgets_may_lose_what_was_before_the_failed_flush)
{
    bgsim_model_set_flush_forgets(model);
    do_write(0, 512);
    mem_disk(node)->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), -EIO);
    do_write(512, 512);
    ck_assert_int_eq(run(BGSIM_OP_FLUSH, 0, 0, 0), 0);
    memset(raw(0), 0, SECTOR);
    do_read(0, 512);
    good();
    ck_assert(durable(NULL));
    memset(raw(512), 0, SECTOR);
    ck_assert(!durable(NULL));
}
END_TEST

/* --- points in time, whole disks ------------------------------------------ */

START_TEST(a_frozen_model_is_the_disk_of_that_moment)
{
    g_autoptr(GError) error = NULL;
    uint8_t old[SECTOR];
    BgSimModel *then;

    do_write(0, 4096);
    do_write(60 * 1024, 4096);
    memcpy(old, raw(1024), SECTOR);
    then = bgsim_model_freeze(model);
    ck_assert(bgsim_check_equal(blk, then, NULL));
    do_write(1024, 512);
    ck_assert(bgsim_check_equal(blk, model, NULL));
    ck_assert(!bgsim_check_equal(blk, then, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "offset 1024"));
    memcpy(raw(1024), old, SECTOR);
    ck_assert(bgsim_check_equal(blk, then, NULL));
    ck_assert(!bgsim_check_equal(blk, model, NULL));
}
END_TEST

START_TEST(a_disk_that_cannot_be_read_is_not_equal)
{
    g_autoptr(GError) error = NULL;

    mem_disk(node)->fail[MEM_READ] = EIO;
    ck_assert(!bgsim_check_equal(blk, model, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "reading"));
}
END_TEST

START_TEST(a_model_follows_its_guest_to_another_backend)
{
    BlockPerm perm = { BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL };
    BlockBackend *other = blk_new(bgsim_graph(sim), "other", &perm);

    do_write(0, 512);
    bgsim_model_set_backend(model, other);
    ck_assert_int_eq(run(BGSIM_OP_READ, 0, 512, 0), -ENOMEDIUM);
    ck_assert_int_eq(blk_insert_bs(other, node, NULL), 0);
    do_read(0, 512);
    good();
    blk_unref(other);
}
END_TEST

/* --- bitmaps -------------------------------------------------------------- */

START_TEST(bounds_hold_what_must_and_what_may_be_dirty)
{
    BgSimBitmapBounds bounds;
    bool dirty[16] = { false };

    do_write(0, 512);
    bgsim_model_track(model, 4096);
    do_write(3584, 1024);                   /* granules 0 and 1 */
    mem_disk(node)->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(run(BGSIM_OP_WRITE, 8192, 512, 0), -EIO);
    do_read(16384, 512);
    bgsim_model_bounds(model, &bounds);
    ck_assert_int_eq(bounds.nr_granules, 16);
    ck_assert(!bgsim_check_bounds(&bounds, dirty, NULL));
    dirty[0] = dirty[1] = true;
    ck_assert(bgsim_check_bounds(&bounds, dirty, NULL));
    dirty[2] = true;                        /* the write that failed */
    ck_assert(bgsim_check_bounds(&bounds, dirty, NULL));
    dirty[4] = true;                        /* only read */
    ck_assert(!bgsim_check_bounds(&bounds, dirty, NULL));
}
END_TEST

/* --- guests, progress, pairs ---------------------------------------------- */

START_TEST(a_guest_whose_request_fails_complains_unless_it_is_expected)
{
    BgSimGuestConfig config = { .requests = 20, .depth = 1,
                                .weight_write = 1,
                                .errors_expected = true };

    mem_disk(node)->fail_forever[MEM_WRITE] = ENOSPC;
    bgsim_guest_start(model, "calm", NULL, &config);
    ck_assert(bgsim_run(sim, -1, NULL));
    config.errors_expected = false;
    bgsim_guest_start(model, "angry", NULL, &config);
    ck_assert(!bgsim_run(sim, -1, NULL));
    mem_disk(node)->fail_forever[MEM_WRITE] = 0;
    VIOLATED("guest", "angry: a write at");
}
END_TEST

START_TEST(a_request_that_does_not_end_in_a_settled_world_is_found)
{
    Request w = { .kind = BGSIM_OP_WRITE, .bytes = 512 };

    start_held(&w);
    bgsim_settle(sim);
    ck_assert(!bgsim_run(sim, -1, NULL));
    VIOLATED("progress", "disk: the write of [0, +512) has not ended",
             "waits for");
    release(&w);
}
END_TEST

START_TEST(operations_that_overlap_are_counted_in_pairs)
{
    Request w = { .kind = BGSIM_OP_WRITE, .bytes = 512 };
    BgSimOpTable before;
    BgSimOpTable after;

    bgsim_op_table(&before);
    do_read(0, 512);
    start_held(&w);
    do_read(4096, 512);
    bgsim_op_begin(sim, BGSIM_OP_DRAIN);
    bgsim_op_end(sim, BGSIM_OP_DRAIN);
    release(&w);
    bgsim_op_table(&after);
    ck_assert_uint_eq(after.begun[BGSIM_OP_READ], 2 + before.begun[0]);
    ck_assert_uint_eq(after.pairs[BGSIM_OP_WRITE][BGSIM_OP_READ], 1);
    ck_assert_uint_eq(after.pairs[BGSIM_OP_WRITE][BGSIM_OP_DRAIN], 1);
    ck_assert_uint_eq(after.pairs[BGSIM_OP_READ][BGSIM_OP_WRITE], 0);
    ck_assert_str_eq(bgsim_op_name(BGSIM_OP_CLOSE), "close");
}
END_TEST

START_TEST(pairs_can_be_counted_in_memory_of_the_callers)
{
    static BgSimOpTable table;

    teardown();
    bgsim_op_table_use(&table);
    setup();
    do_read(0, 512);
    ck_assert_uint_eq(table.begun[BGSIM_OP_READ], 1);
    teardown();
    bgsim_op_table_use(NULL);
    setup();
    do_read(0, 512);
    ck_assert_uint_eq(table.begun[BGSIM_OP_READ], 1);
}
END_TEST

static void count_step(BgSim *world, void *opaque)
{
    ++*(unsigned *)opaque;
}

START_TEST(an_oracle_of_others_is_asked_at_every_step)
{
    static unsigned calls;
    uint64_t steps;
    BgSimOracle oracle = { .name = "count", .step = count_step,
                           .opaque = &calls };

    bgsim_add_oracle(sim, &oracle);
    steps = bgsim_steps(sim);
    calls = 0;
    do_write(0, 512);
    ck_assert_uint_eq(calls, bgsim_steps(sim) - steps);
}
END_TEST

static void add_reads(TCase *tcase)
{
    PROMISE(tcase, a_random_guest_finds_nothing_wrong_on_a_good_disk);
    PROMISE(tcase, with_real_threads_a_good_disk_is_good_too);
    PROMISE(tcase, a_read_of_an_older_write_is_found_and_explained);
    PROMISE(tcase, a_torn_sector_is_found);
    PROMISE(tcase, a_sector_from_elsewhere_is_found);
    PROMISE(tcase, data_of_another_disk_are_found);
    PROMISE(tcase, a_lost_write_is_found);
    PROMISE(tcase, bytes_that_nobody_wrote_are_found);
    PROMISE(tcase, old_and_new_are_legal_while_a_write_is_in_flight);
    PROMISE(tcase, reads_do_not_go_backwards);
    PROMISE(tcase, a_failed_discard_that_was_not_seen_does_not_come_later);
    PROMISE(tcase, a_failed_write_may_have_happened_until_it_is_overwritten);
    PROMISE(tcase, a_discard_leaves_the_old_value_or_zeroes);
    PROMISE(tcase, zeroes_that_were_overwritten_are_found);
    PROMISE(tcase, what_zeroes_have_overwritten_is_found);
    PROMISE(tcase, unknown_content_is_legal_at_first_only);
    PROMISE(tcase, status_that_promises_zeroes_where_data_are_is_found);
    PROMISE(tcase, a_map_that_calls_data_zero_is_found);
}

static void add_rest(TCase *tcase)
{
    PROMISE(tcase, what_a_flush_has_pinned_must_survive);
    PROMISE(tcase,
            a_failed_write_leaves_its_sector_unsettled_until_one_is_pinned);
    PROMISE(tcase, a_failed_write_that_was_not_seen_leaves_its_sector_settled);
    PROMISE(tcase, a_write_with_fua_is_pinned_when_it_ends);
    PROMISE(tcase, a_failed_flush_pins_nothing);
    PROMISE(tcase, a_flush_does_not_pin_what_had_not_ended_when_it_began);
    PROMISE(tcase,
            a_disk_that_forgets_may_lose_what_was_before_the_failed_flush);
    PROMISE(tcase, a_frozen_model_is_the_disk_of_that_moment);
    PROMISE(tcase, a_disk_that_cannot_be_read_is_not_equal);
    PROMISE(tcase, a_model_follows_its_guest_to_another_backend);
    PROMISE(tcase, bounds_hold_what_must_and_what_may_be_dirty);
    PROMISE(tcase,
            a_guest_whose_request_fails_complains_unless_it_is_expected);
    PROMISE(tcase, a_request_that_does_not_end_in_a_settled_world_is_found);
    PROMISE(tcase, operations_that_overlap_are_counted_in_pairs);
    PROMISE(tcase, pairs_can_be_counted_in_memory_of_the_callers);
    PROMISE(tcase, an_oracle_of_others_is_asked_at_every_step);
}

int main(void)
{
    Suite *suite = suite_create("sim-model");
    TCase *tcase = tcase_create("model");

    mem_register();
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_reads(tcase);
    add_rest(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
