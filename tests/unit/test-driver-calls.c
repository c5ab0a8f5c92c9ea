/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The calls that a driver makes on its children, and what the core makes of a
 * driver that leaves methods out.
 */
#include "graph-fixture.h"
#include "mem-driver.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define UNCHANGED BLK_PERM_WRITE_UNCHANGED
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

enum { STORE_BYTES = 64 << 10 };

/* --- drivers -------------------------------------------------------------- */

/* "store": a protocol that can copy, and little else. */
static uint8_t store_data[STORE_BYTES];
static int64_t store_space;     /* what a store says it occupies */
static bool store_thinks;       /* before it says so */
static Coroutine *store_asker;  /* who waits for that */
static unsigned store_flushes;
static BlockCopyRange last_copy;

static int coroutine_fn store_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    bdrv_set_filename(bs, "store:");
    return 0;
}

static int64_t coroutine_fn store_getlength(BlockDriverState *bs)
{
    return STORE_BYTES;
}

static int64_t coroutine_fn store_get_allocated_size(BlockDriverState *bs)
{
    if (store_thinks) {
        store_asker = coroutine_self();
        coroutine_yield();
    }
    return store_space;
}

static int coroutine_fn store_flush(BlockDriverState *bs)
{
    store_flushes++;
    return 0;
}

static int coroutine_fn store_copy_from(BlockDriverState *bs,
                                        const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

static int coroutine_fn store_copy_to(BlockDriverState *bs,
                                      const BlockCopyRange *copy)
{
    last_copy = *copy;
    memmove(store_data + copy->dst_offset, store_data + copy->src_offset,
            copy->bytes);
    return 0;
}

/* "bare": a protocol that can do nothing. */
static int coroutine_fn bare_open(BlockDriverState *bs, BlockOptions *options,
                                  unsigned flags, GError **errp)
{
    return 0;
}

static bool bare_loses;         /* something, when it is closed */

static void coroutine_fn bare_close(BlockDriverState *bs)
{
    if (bare_loses) {
        bdrv_note_loss(bs);
    }
}

/* "relay": a format of two files that stores all in the first as it is. */
static int coroutine_fn relay_open(BlockDriverState *bs, BlockOptions *options,
                                   unsigned flags, GError **errp)
{
    g_autoptr(GError) error = NULL;

    if (!bdrv_co_open_child(bs, options, "file", BDRV_CHILD_IMAGE, true,
                            errp)) {
        return -EINVAL;
    }
    bdrv_co_open_child(bs, options, "more", BDRV_CHILD_DATA, false, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return -EINVAL;
    }
    return 0;
}

static int64_t coroutine_fn relay_getlength(BlockDriverState *bs)
{
    return STORE_BYTES;
}

static int coroutine_fn relay_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return bdrv_co_pwritev(bdrv_primary_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

static int coroutine_fn relay_block_status(BlockDriverState *bs,
                                           const BlockIO *io, BlockExtent *ret)
{
    ret->bytes = io->bytes;
    ret->status = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID |
                  BDRV_BLOCK_RECURSE;
    ret->map = io->offset;
    ret->file = bdrv_child_bs(bdrv_primary_child(bs));
    return 0;
}

/* "idle": a filter that forgets its child. */
static unsigned idle_closed;

static void coroutine_fn idle_close(BlockDriverState *bs)
{
    idle_closed++;
}

static void register_drivers(void)
{
    static const BlockOption relay_options[] = {
        { .name = "file", .type = BLOCK_OPTION_CHILD, .help = "storage" },
        { .name = "more", .type = BLOCK_OPTION_CHILD, .help = "storage" },
        { .type = BLOCK_OPTION_END },
    };
    static const BlockDriver drivers[] = {
        { .struct_size = sizeof(BlockDriver), .name = "store",
          .kind = BLOCK_DRIVER_PROTOCOL, .open = store_open,
          .getlength = store_getlength, .flush = store_flush,
          .get_allocated_size = store_get_allocated_size,
          .copy_range_from = store_copy_from,
          .copy_range_to = store_copy_to },
        { .struct_size = sizeof(BlockDriver), .name = "bare",
          .kind = BLOCK_DRIVER_PROTOCOL, .open = bare_open,
          .close = bare_close,
          .getlength = store_getlength },
        { .struct_size = sizeof(BlockDriver), .name = "relay",
          .kind = BLOCK_DRIVER_FORMAT, .options = relay_options,
          .open = relay_open, .getlength = relay_getlength,
          .pwritev = relay_pwritev, .block_status = relay_block_status },
        { .struct_size = sizeof(BlockDriver), .name = "idle",
          .kind = BLOCK_DRIVER_FILTER, .open = bare_open,
          .close = idle_close },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (bdrv_register(&drivers[i], NULL) < 0) {
            abort();
        }
    }
}


static int run(int (*entry)(void *opaque), void *opaque)
{
    return aio_co_run(block_graph_aio_context(graph), entry, opaque);
}

/* --- writing and flushing ------------------------------------------------- */

static int coroutine_fn pwrite_sync_entry(void *opaque)
{
    return bdrv_co_pwrite_sync(opaque, 512, 4, "abcd", 0);
}

static int coroutine_fn flush_entry(void *opaque)
{
    return bdrv_co_flush(opaque);
}

START_TEST(a_synchronous_write_is_written_then_flushed)
{
    BlockDriverState *top = open_ok("relay,file.driver=mem");
    BdrvChild *file = bdrv_primary_child(top);
    MemDisk *mem = mem_disk(bdrv_child_bs(file));

    ck_assert_int_eq(run(pwrite_sync_entry, file), 0);
    ck_assert_mem_eq(mem->data + 512, "abcd", 4);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    /* Nothing was written after the flush began. */
    ck_assert_int_eq(run(flush_entry, bdrv_child_bs(file)), 0);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);

    mem->fail[MEM_WRITE] = ENOSPC;
    ck_assert_int_eq(run(pwrite_sync_entry, file), -ENOSPC);
    ck_assert_uint_eq(mem->count[MEM_FLUSH], 1);
    mem->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(run(pwrite_sync_entry, file), -EIO);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_flush_goes_to_every_file_and_tells_the_first_error)
{
    BlockDriverState *top = open_ok("relay,file.driver=mem,more.driver=mem");
    BdrvChild *file = bdrv_find_child(top, "file");
    BdrvChild *more = bdrv_find_child(top, "more");
    MemDisk *first = mem_disk(bdrv_child_bs(file));
    MemDisk *second = mem_disk(bdrv_child_bs(more));

    ck_assert_int_eq(run(pwrite_sync_entry, file), 0);
    ck_assert_int_eq(run(pwrite_sync_entry, more), 0);
    first->fail[MEM_WRITE] = EIO;       /* a failed write is to be flushed */
    second->fail[MEM_WRITE] = EIO;
    ck_assert_int_eq(run(pwrite_sync_entry, file), -EIO);
    ck_assert_int_eq(run(pwrite_sync_entry, more), -EIO);
    first->fail[MEM_FLUSH] = ENOSPC;
    second->fail[MEM_FLUSH] = EIO;
    ck_assert_int_eq(run(flush_entry, top), -ENOSPC);
    ck_assert_uint_eq(first->count[MEM_FLUSH], 2);
    ck_assert_uint_eq(second->count[MEM_FLUSH], 2);
    ck_assert_int_eq(run(flush_entry, top), 0);
    ck_assert_uint_eq(second->count[MEM_FLUSH], 3);
    bdrv_unref(top);
}
END_TEST

/* --- length --------------------------------------------------------------- */

typedef struct TruncateCall {
    BdrvChild *child;
    BlockTruncate how;
    GError *error;
} TruncateCall;

static int coroutine_fn truncate_entry(void *opaque)
{
    TruncateCall *call = opaque;

    return bdrv_co_truncate(call->child, &call->how, &call->error);
}

static int truncate_to(BdrvChild *child, int64_t length, GError **error)
{
    TruncateCall call = { .child = child,
                          .how = { .offset = length, .exact = true } };
    int ret = run(truncate_entry, &call);

    *error = call.error;
    return ret;
}

START_TEST(truncate_goes_through_a_filter_and_both_know_the_length)
{
    BlockDriverState *top =
        open_ok("relay,file.driver=pass,file.file.driver=mem");
    BlockDriverState *pass = bdrv_child_bs(bdrv_primary_child(top));
    BlockDriverState *mem = bdrv_child_bs(bdrv_filter_child(pass));
    GError *error = NULL;

    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 5000, &error), 0);
    ck_assert_int_eq(mem_disk(mem)->length, 5000);
    ck_assert_int_eq(bdrv_length(mem), 5000);
    ck_assert_int_eq(bdrv_length(pass), 5000);
    mem_disk(mem)->fail[MEM_TRUNCATE] = ENOSPC;
    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 9000, &error),
                     -ENOSPC);
    expect_error(&error, ENOSPC, "mem: truncate");
    ck_assert_int_eq(bdrv_length(pass), 5000);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_node_that_cannot_change_its_length_says_so)
{
    BlockDriverState *top = open_ok("relay,file.driver=bare,"
                                    "file.node-name=fixed");
    GError *error = NULL;

    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 1, &error),
                     -ENOTSUP);
    expect_error(&error, ENOTSUP, "Node 'fixed': driver 'bare' cannot change "
                 "its length");
    bdrv_unref(top);

    top = open_ok("relay,read-only=on,file.driver=mem,file.node-name=ro");
    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 1, &error), -EACCES);
    expect_error(&error, EACCES, "Node 'ro' is read-only");
    bdrv_unref(top);
}
END_TEST

/* A disk of @size bytes over one of 64 KiB of 'b', below a relay. */
static BlockDriverState *open_over_backing(const char *disk)
{
    g_autofree char *text = g_strdup_printf("relay,file.driver=mem,"
                                            "file.backing=base,%s", disk);
    BlockDriverState *base = open_ok("mem,node-name=base,size=64k");
    BlockDriverState *top = open_ok(text);

    memset(mem_disk(base)->data, 'b', 64 << 10);
    memset(mem_disk(base)->allocated, 1, 16);
    bdrv_unref(base);
    return top;
}

START_TEST(growing_to_any_length_zeroes_all_that_is_new)
{
    BlockDriverState *top = open_over_backing("file.size=5000,file.align=512");
    BdrvChild *file = bdrv_primary_child(top);
    MemDisk *mem = mem_disk(bdrv_child_bs(file));
    GError *error = NULL;

    ck_assert_int_eq(truncate_to(file, 30000, &error), 0);
    ck_assert_int_eq(bdrv_length(bdrv_child_bs(file)), 30000);
    ck_assert_uint_eq(mem->data[4999], 'b');
    ck_assert(block_buffer_is_zero(mem->data + 5000, 25000));
    for (int c = 1; c <= 30000 / MEM_CLUSTER; c++) {
        ck_assert(mem->allocated[c]);
    }
    bdrv_unref(top);
}
END_TEST

START_TEST(growing_that_cannot_zero_the_new_part_does_not_grow)
{
    BlockDriverState *top = open_over_backing("file.size=8k");
    BdrvChild *file = bdrv_primary_child(top);
    MemDisk *mem = mem_disk(bdrv_child_bs(file));
    GError *error = NULL;

    mem->fail_forever[MEM_ZERO] = EIO;
    ck_assert_int_eq(truncate_to(file, 64 << 10, &error), -EIO);
    expect_error(&error, EIO, "could not zero the part that was added");
    ck_assert_int_eq(bdrv_length(bdrv_child_bs(file)), 8192);
    ck_assert_int_eq(mem->length, 8192);
    bdrv_unref(top);
}
END_TEST

/* --- copies --------------------------------------------------------------- */

/* @copy is between the children of the relay it is run on. */
static int coroutine_fn copy_entry(void *opaque)
{
    return bdrv_co_copy_range(opaque);
}

static int coroutine_fn copy_from_entry(void *opaque)
{
    return bdrv_co_copy_range_from(opaque);
}

START_TEST(a_copy_passes_filters_that_need_not_see_it)
{
    BlockDriverState *top =
        open_ok("relay,file.driver=pass,file.file.driver=store,"
                "more.driver=pass,more.file.driver=store");
    BlockCopyRange copy = { .src = bdrv_find_child(top, "file"),
                            .dst = bdrv_find_child(top, "more"),
                            .src_offset = 10, .dst_offset = 1000,
                            .bytes = 100, .write_flags = BDRV_REQ_FUA };
    BlockDriverState *from = bdrv_child_bs(copy.src);
    BlockDriverState *to = bdrv_child_bs(copy.dst);

    memset(store_data, 'x', 200);
    store_flushes = 0;
    ck_assert_int_eq(run(copy_entry, &copy), 0);
    ck_assert_ptr_eq(last_copy.src, bdrv_filter_child(from));
    ck_assert_ptr_eq(last_copy.dst, bdrv_filter_child(to));
    ck_assert_int_eq(last_copy.src_offset, 10);
    ck_assert_uint_eq(store_data[1099], 'x');
    ck_assert_uint_eq(store_data[1100], 0);
    ck_assert_uint_eq(store_flushes, 1);        /* FUA */
    copy.write_flags = 0;
    ck_assert_int_eq(run(copy_from_entry, &copy), 0);
    ck_assert_uint_eq(store_flushes, 1);
    bdrv_unref(top);
}
END_TEST

START_TEST(who_expects_a_read_is_told_through_filters_and_no_further)
{
    BlockDriverState *top =
        open_ok("relay,file.driver=pass,file.file.driver=mem,"
                "more.driver=relay,more.file.driver=mem");
    BdrvChild *file = bdrv_find_child(top, "file");
    BdrvChild *more = bdrv_find_child(top, "more");
    BlockDriverState *filter = bdrv_child_bs(file);
    MemDisk *disk = mem_disk(bdrv_child_bs(bdrv_filter_child(filter)));

    ck_assert(!bdrv_expect_read(file, 0, 512));
    disk->expects = true;
    ck_assert(bdrv_expect_read(file, 0, 512));
    ck_assert_uint_eq(disk->told, 1);
    /* A format has tables of its own before its file is read. */
    disk = mem_disk(bdrv_child_bs(bdrv_find_child(bdrv_child_bs(more),
                                                  "file")));
    disk->expects = true;
    ck_assert(!bdrv_expect_read(more, 0, 512));
    ck_assert_uint_eq(disk->told, 0);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_copy_that_would_lie_is_refused_at_either_end)
{
    BlockDriverState *top = open_ok("relay,file.driver=store,"
                                    "more.driver=store,more.read-only=on");
    BdrvChild *file = bdrv_find_child(top, "file");
    BdrvChild *more = bdrv_find_child(top, "more");
    BlockCopyRange copy = { .src = more, .dst = file, .bytes = 100 };

    last_copy.bytes = 0;
    copy.src_offset = STORE_BYTES - 99; /* zeroes beyond the end */
    ck_assert_int_eq(run(copy_from_entry, &copy), -ENOTSUP);
    copy.src_offset = -1;
    ck_assert_int_eq(run(copy_from_entry, &copy), -EIO);
    copy.src_offset = 0;
    copy.dst_offset = INT64_MAX - 50;
    ck_assert_int_eq(run(copy_from_entry, &copy), -EIO);
    copy = (BlockCopyRange){ .src = file, .dst = more, .bytes = 100 };
    ck_assert_int_eq(run(copy_from_entry, &copy), -EACCES);
    ck_assert_int_eq(last_copy.bytes, 0);
    bdrv_unref(top);

    /* A filter that must see what is written, and a driver that cannot. */
    top = open_ok("relay,file.driver=store,more.driver=blkdebug,"
                  "more.image.driver=store");
    copy = (BlockCopyRange){ .src = bdrv_find_child(top, "file"),
                             .dst = bdrv_find_child(top, "more"),
                             .bytes = 100 };
    ck_assert_int_eq(run(copy_from_entry, &copy), -ENOTSUP);
    copy.src = copy.dst;
    ck_assert_int_eq(run(copy_from_entry, &copy), -ENOTSUP);
    ck_assert_int_eq(last_copy.bytes, 0);
    bdrv_unref(top);
}
END_TEST

/* --- block status --------------------------------------------------------- */

typedef struct StatusCall {
    BlockDriverState *bs;
    int64_t offset;
    BlockExtent extent;
} StatusCall;

static int coroutine_fn status_entry(void *opaque)
{
    StatusCall *call = opaque;

    return bdrv_co_block_status(call->bs, call->offset, STORE_BYTES,
                                &call->extent);
}

static BlockExtent status_at(BlockDriverState *bs, int64_t offset)
{
    StatusCall call = { .bs = bs, .offset = offset };

    ck_assert_int_eq(run(status_entry, &call), 0);
    return call.extent;
}

START_TEST(what_a_driver_does_not_know_is_data_of_its_own)
{
    BlockDriverState *bs = open_ok("bare");
    BlockExtent extent = status_at(bs, 512);

    ck_assert_uint_eq(extent.status, BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED |
                                     BDRV_BLOCK_OFFSET_VALID |
                                     BDRV_BLOCK_EOF);
    ck_assert_int_eq(extent.bytes, STORE_BYTES - 512);
    ck_assert_int_eq(extent.map, 512);
    ck_assert_ptr_eq(extent.file, bs);
    bdrv_unref(bs);
}
END_TEST

START_TEST(an_extent_is_zero_where_the_file_that_stores_it_knows)
{
    BlockDriverState *top = open_ok("relay,file.driver=mem,file.size=32k");
    MemDisk *mem = mem_disk(bdrv_child_bs(bdrv_primary_child(top)));
    BlockExtent extent;

    mem->allocated[0] = true;
    extent = status_at(top, 0);
    ck_assert_uint_eq(extent.status & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA),
                      BDRV_BLOCK_DATA);
    ck_assert_int_eq(extent.bytes, 4096);
    extent = status_at(top, 4096);
    ck_assert(extent.status & BDRV_BLOCK_ZERO);
    ck_assert_int_eq(extent.bytes, 28 << 10);
    ck_assert_int_eq(extent.map, 4096);
    extent = status_at(top, 32 << 10);  /* the file ends here */
    ck_assert(extent.status & BDRV_BLOCK_ZERO);
    ck_assert(extent.status & BDRV_BLOCK_EOF);
    ck_assert_int_eq(extent.bytes, 32 << 10);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_file_that_fails_to_say_leaves_the_answer_as_it_was)
{
    BlockDriverState *top =
        open_ok("relay,file.driver=blkdebug,file.image.driver=mem,"
                "file.inject-error.0.event=none,"
                "file.inject-error.0.iotype=block-status");
    BlockExtent extent = status_at(top, 0);

    ck_assert(extent.status & BDRV_BLOCK_DATA);
    ck_assert(!(extent.status & BDRV_BLOCK_ZERO));
    ck_assert_int_eq(extent.bytes, STORE_BYTES);
    bdrv_unref(top);
}
END_TEST

/* --- space, limits, permissions ------------------------------------------- */

static int coroutine_fn space_entry(void *opaque)
{
    return bdrv_co_get_allocated_size(opaque);
}

START_TEST(the_space_of_a_format_is_that_of_all_its_files)
{
    BlockDriverState *top = open_ok("relay,file.driver=store,"
                                    "more.driver=store");

    store_space = 4096;
    ck_assert_int_eq(run(space_entry, top), 8192);
    store_space = -EIO;
    ck_assert_int_eq(run(space_entry, top), -EIO);
    bdrv_unref(top);

    top = open_ok("relay,file.driver=store,more.driver=bare");
    store_space = 4096;
    ck_assert_int_eq(run(space_entry, top), -ENOTSUP);
    bdrv_unref(top);

    /* What a backing file occupies is not ours. */
    top = open_ok("mem,backing.driver=bare");
    ck_assert_int_eq(run(space_entry, top), 0);
    bdrv_unref(top);
}
END_TEST

/* Somebody asks a filter for its space while somebody else drops it. */
typedef struct SpaceRace {
    BlockDriverState *filter;
    int64_t space;
    bool answered;
    bool dropped;
} SpaceRace;

static void coroutine_fn ask_space_entry(void *opaque)
{
    SpaceRace *race = opaque;

    race->space = bdrv_co_get_allocated_size(race->filter);
    race->answered = true;
}

static void coroutine_fn drop_filter_entry(void *opaque)
{
    SpaceRace *race = opaque;

    race->dropped = bdrv_co_drop_filter(race->filter, NULL) == 0;
}

START_TEST(a_node_that_is_asked_for_its_space_keeps_what_is_below_it)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *disk = open_ok("store");
    SpaceRace race = { 0 };

    ck_assert_int_eq(bdrv_insert_node(disk, opts("pass"), &race.filter, NULL),
                     0);
    store_space = 4096;
    store_thinks = true;
    aio_co_enter(ctx, coroutine_create(ask_space_entry, &race));
    ck_assert_ptr_nonnull(store_asker);
    aio_co_enter(ctx, coroutine_create(drop_filter_entry, &race));
    while (aio_poll(ctx, false)) {
    }
    ck_assert(!race.dropped);
    ck_assert(!race.answered);

    store_thinks = false;
    aio_co_enter(ctx, store_asker);
    while (!race.answered || !race.dropped) {
        aio_poll(ctx, true);
    }
    ck_assert_int_eq(race.space, 4096);
    bdrv_unref(race.filter);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_filter_has_the_limits_of_what_it_filters)
{
    BlockDriverState *top =
        open_ok("pass,file.driver=mem,file.align=512,file.mem-align=64,"
                "file.max-transfer=8k,file.max-iov=7,file.zero-align=4k,"
                "file.discard-align=16k");
    BlockDriverState *mem = bdrv_child_bs(bdrv_filter_child(top));
    const BlockLimits *limits = bdrv_limits(top);

    ck_assert_uint_eq(limits->request_alignment, 512);
    ck_assert_uint_eq(limits->min_mem_alignment, 64);
    ck_assert_int_eq(limits->max_transfer, 8192);
    ck_assert_int_eq(limits->max_iov, 7);
    ck_assert_uint_eq(limits->pwrite_zeroes_alignment, 4096);
    ck_assert_uint_eq(limits->pdiscard_alignment, 16384);
    ck_assert_uint_eq(limits->write_flags, bdrv_limits(mem)->write_flags);
    ck_assert_uint_eq(limits->zero_flags, bdrv_limits(mem)->zero_flags);
    ck_assert_ptr_null(bdrv_filter_child(mem));
    bdrv_unref(top);
}
END_TEST

START_TEST(limits_that_no_request_can_keep_are_refused)
{
    open_fails("mem,align=3", EINVAL, "must be powers of 2");
    open_fails("mem,align=0", EINVAL, "must be powers of 2");
    open_fails("mem,mem-align=24", EINVAL, "must be powers of 2");
    open_fails("mem,align=4k,max-transfer=512", EINVAL,
               "the largest transfer (512) is below the request alignment "
               "(4096)");
}
END_TEST

START_TEST(each_role_has_its_default_permissions)
{
    static const struct {
        BdrvChildRole role;
        BlockPerm parent, child;
    } cases[] = {
        { BDRV_CHILD_FILTERED, { WRITE, READ }, { WRITE, READ } },
        { BDRV_CHILD_COW, { READ | WRITE, ALL },
          { READ, ALL } },
        { BDRV_CHILD_COW, { WRITE, READ }, { 0, READ | UNCHANGED } },
        { BDRV_CHILD_DATA, { READ, ALL }, { READ, ALL & ~RESIZE } },
        { BDRV_CHILD_DATA, { WRITE, ALL },
          { WRITE | RESIZE, ALL & ~RESIZE } },
        { BDRV_CHILD_IMAGE, { 0, ALL },
          { READ | WRITE | RESIZE, READ | UNCHANGED } },
    };
    BlockDriverState *bs = open_ok("bare");
    BlockDriverState *ro = open_ok("bare,read-only=on");
    BlockPerm perm;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        bdrv_default_perms(bs, cases[i].role, &cases[i].parent, &perm);
        ck_assert_uint_eq(perm.used, cases[i].child.used);
        ck_assert_uint_eq(perm.shared, cases[i].child.shared);
    }
    bdrv_default_perms(ro, BDRV_CHILD_IMAGE, &cases[5].parent, &perm);
    ck_assert_uint_eq(perm.used, READ); /* its tables do not change */
    bdrv_unref(ro);
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_node_has_the_file_name_of_its_storage)
{
    BlockDriverState *top =
        open_ok("relay,file.driver=pass,file.file.driver=store");
    BlockDriverState *none = open_ok("mem");

    ck_assert_str_eq(bdrv_filename(top), "store:");
    bdrv_set_filename(top, "relay:");
    ck_assert_str_eq(bdrv_filename(top), "relay:");
    ck_assert_str_eq(bdrv_filename(none), "");
    bdrv_unref(none);
    bdrv_unref(top);
}
END_TEST

START_TEST(a_driver_that_finds_no_way_to_write_makes_its_node_read_only)
{
    BlockDriverState *bs = open_ok("mem");
    BlockPerm perm = { .used = WRITE, .shared = ALL };
    BlockBackend *blk = blk_new(graph, "writer", &perm);
    GError *error = NULL;

    bdrv_set_read_only(bs, true);
    ck_assert(bdrv_is_read_only(bs));
    ck_assert_int_eq(blk_insert_bs(blk, bs, &error), -EACCES);
    expect_error(&error, EACCES, "read-only");
    bdrv_set_read_only(bs, false);
    ck_assert_int_eq(blk_insert_bs(blk, bs, &error), 0);
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

typedef struct ChainCall {
    BlockDriverState *bs;
    int64_t bytes;
    BlockExtent extent;
} ChainCall;

static int coroutine_fn chain_status_entry(void *opaque)
{
    ChainCall *call = opaque;

    return bdrv_co_block_status_above(call->bs, NULL, 0, STORE_BYTES,
                                      &call->extent);
}

static int coroutine_fn chain_allocated_entry(void *opaque)
{
    ChainCall *call = opaque;

    return bdrv_co_is_allocated_above(call->bs, NULL, false, 0, STORE_BYTES,
                                      &call->bytes);
}

static int coroutine_fn zero_entry(void *opaque)
{
    ChainCall *call = opaque;

    return bdrv_co_is_zero_fast(call->bs, 0, STORE_BYTES);
}

START_TEST(a_layer_that_cannot_be_asked_is_an_error_not_a_hole)
{
    static const char *const chains[] = {
        /* The layer itself, and one two layers down. */
        "blkdebug,image.driver=mem,inject-error.0.event=none,"
        "inject-error.0.iotype=block-status",
        "mem,backing.driver=blkdebug,backing.image.driver=mem,"
        "backing.inject-error.0.event=none,"
        "backing.inject-error.0.iotype=block-status",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(chains); i++) {
        ChainCall call = { .bs = open_ok(chains[i]), .bytes = 7 };

        ck_assert_int_eq(run(chain_status_entry, &call), -EIO);
        ck_assert_int_eq(run(chain_allocated_entry, &call), -EIO);
        ck_assert_int_eq(call.bytes, 7);
        ck_assert_int_eq(run(zero_entry, &call), -EIO);
        bdrv_unref(call.bs);
    }
}
END_TEST

START_TEST(a_filter_that_opens_nothing_to_filter_is_closed_again)
{
    open_fails("idle", EINVAL, "the filter has no child");
    ck_assert_uint_eq(idle_closed, 1);
}
END_TEST

START_TEST(a_node_that_somebody_holds_is_not_deleted)
{
    BlockDriverState *bs = open_ok("bare,node-name=held");
    GError *error = NULL;

    bdrv_ref(bs);
    ck_assert_int_eq(bdrv_delete(bs, &error), -EBUSY);
    expect_error(&error, EBUSY, "'held' is in use");
    bdrv_unref(bs);
    ck_assert_int_eq(bdrv_delete(bs, &error), 0);
    ck_assert_uint_eq(block_graph_nr_nodes(graph), 0);
}
END_TEST

START_TEST(a_node_as_long_as_its_file_follows_each_change_of_that)
{
    BlockDriverState *top = open_ok("relay,file.driver=mem,file.size=10k");
    GError *error = NULL;

    bdrv_set_length_from_child(top, true, 1000);
    ck_assert_int_eq(bdrv_length(top), 10240 - 1000);
    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 50000, &error), 0);
    ck_assert_int_eq(bdrv_length(top), 49000);
    bdrv_set_length_from_child(top, false, 0);
    ck_assert_int_eq(truncate_to(bdrv_primary_child(top), 60000, &error), 0);
    ck_assert_int_eq(bdrv_length(top), STORE_BYTES); /* its own again */
    bdrv_unref(top);
}
END_TEST

START_TEST(what_is_lost_at_close_is_counted)
{
    for (int i = 0; i < 3; i++) {
        bare_loses = i > 0;
        bdrv_unref(open_ok("bare"));
        ck_assert_uint_eq(block_graph_nr_losses(graph), i);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("driver-calls");
    TCase *tcase = tcase_create("driver-calls");

    register_pass_driver();
    mem_register();
    register_drivers();
    tcase_add_checked_fixture(tcase, graph_setup, graph_teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, what_is_lost_at_close_is_counted);
    PROMISE(tcase, a_synchronous_write_is_written_then_flushed);
    PROMISE(tcase, a_flush_goes_to_every_file_and_tells_the_first_error);
    PROMISE(tcase, truncate_goes_through_a_filter_and_both_know_the_length);
    PROMISE(tcase, a_node_that_cannot_change_its_length_says_so);
    PROMISE(tcase, growing_to_any_length_zeroes_all_that_is_new);
    PROMISE(tcase, growing_that_cannot_zero_the_new_part_does_not_grow);
    PROMISE(tcase, a_copy_passes_filters_that_need_not_see_it);
    PROMISE(tcase,
            who_expects_a_read_is_told_through_filters_and_no_further);
    PROMISE(tcase, a_copy_that_would_lie_is_refused_at_either_end);
    PROMISE(tcase, what_a_driver_does_not_know_is_data_of_its_own);
    PROMISE(tcase, an_extent_is_zero_where_the_file_that_stores_it_knows);
    PROMISE(tcase, a_file_that_fails_to_say_leaves_the_answer_as_it_was);
    PROMISE(tcase, the_space_of_a_format_is_that_of_all_its_files);
    PROMISE(tcase, a_node_that_is_asked_for_its_space_keeps_what_is_below_it);
    PROMISE(tcase, a_filter_has_the_limits_of_what_it_filters);
    PROMISE(tcase, limits_that_no_request_can_keep_are_refused);
    PROMISE(tcase, each_role_has_its_default_permissions);
    PROMISE(tcase, a_node_has_the_file_name_of_its_storage);
    PROMISE(tcase,
            a_driver_that_finds_no_way_to_write_makes_its_node_read_only);
    PROMISE(tcase, a_layer_that_cannot_be_asked_is_an_error_not_a_hole);
    PROMISE(tcase, a_filter_that_opens_nothing_to_filter_is_closed_again);
    PROMISE(tcase, a_node_that_somebody_holds_is_not_deleted);
    PROMISE(tcase, a_node_as_long_as_its_file_follows_each_change_of_that);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
