/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "mem": a disk in memory that tests can look into and make fail.
 */
#include "mem-driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const BlockOption mem_options[] = {
    { .name = "size", .type = BLOCK_OPTION_SIZE, .def = "64k",
      .offset = offsetof(MemDisk, length), .help = "length" },
    { .name = "align", .type = BLOCK_OPTION_SIZE, .def = "1",
      .offset = offsetof(MemDisk, align), .help = "request alignment" },
    { .name = "mem-align", .type = BLOCK_OPTION_SIZE, .def = "1",
      .offset = offsetof(MemDisk, mem_align), .help = "of buffers" },
    { .name = "max-transfer", .type = BLOCK_OPTION_SIZE, .def = "0",
      .offset = offsetof(MemDisk, max_transfer), .help = "longest request" },
    { .name = "max-iov", .type = BLOCK_OPTION_NUMBER, .def = "1024",
      .offset = offsetof(MemDisk, max_iov), .help = "pieces of a vector" },
    { .name = "zero-align", .type = BLOCK_OPTION_SIZE, .def = "0",
      .offset = offsetof(MemDisk, zero_align), .help = "of zero writes" },
    { .name = "discard-align", .type = BLOCK_OPTION_SIZE, .def = "0",
      .offset = offsetof(MemDisk, discard_align), .help = "of discards" },
    { .name = "zero", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = offsetof(MemDisk, zero), .help = "has zero writes" },
    { .name = "can-discard", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = offsetof(MemDisk, discard), .help = "has discard" },
    { .name = "fua", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = offsetof(MemDisk, fua), .help = "takes FUA" },
    { .name = "grow", .type = BLOCK_OPTION_BOOL, .def = "on",
      .offset = offsetof(MemDisk, grow), .help = "writes may pass the end" },
    { .name = "backing", .type = BLOCK_OPTION_CHILD, .help = "shown through" },
    { .type = BLOCK_OPTION_END },
};

MemDisk *mem_disk(BlockDriverState *bs)
{
    return bdrv_opaque(bs);
}

unsigned mem_total(MemDisk *disk)
{
    unsigned total = 0;

    LOCK_GUARD(&disk->lock);
    for (int op = 0; op < MEM_OPS; op++) {
        total += disk->count[op];
    }
    return total;
}

static int64_t nr_clusters(int64_t bytes)
{
    return (bytes + MEM_CLUSTER - 1) / MEM_CLUSTER;
}

static void reserve_locked(MemDisk *d, int64_t length)
{
    int64_t capacity = MAX(length, 2 * d->capacity);

    if (length > d->capacity) {
        d->data = g_realloc(d->data, capacity);
        memset(d->data + d->capacity, 0, capacity - d->capacity);
        d->allocated = g_realloc(d->allocated, nr_clusters(capacity));
        memset(d->allocated + nr_clusters(d->capacity), 0,
               nr_clusters(capacity) - nr_clusters(d->capacity));
        d->capacity = capacity;
    }
}

static int coroutine_fn mem_open(BlockDriverState *bs, BlockOptions *options,
                                 unsigned flags, GError **errp)
{
    MemDisk *d = mem_disk(bs);
    g_autoptr(GError) error = NULL;
    int ret = block_options_absorb(options, mem_options, d, "mem", errp);

    if (ret < 0) {
        return ret;
    }
    lock_init(&d->lock, LOCK_RANK_DRIVER);
    reserve_locked(d, MAX(d->length, 1));
    bdrv_co_open_child(bs, options, "backing", BDRV_CHILD_COW, false, &error);
    if (error) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return -EINVAL;
    }
    return 0;
}

static void coroutine_fn mem_close(BlockDriverState *bs)
{
    g_free(mem_disk(bs)->data);
    g_free(mem_disk(bs)->allocated);
}

static void mem_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    MemDisk *d = mem_disk(bs);

    limits->request_alignment = d->align;
    limits->min_mem_alignment = d->mem_align;
    limits->max_transfer = d->max_transfer;
    limits->max_iov = d->max_iov;
    limits->pwrite_zeroes_alignment = d->zero_align;
    limits->pdiscard_alignment = d->discard_align;
    limits->write_flags =
        BDRV_REQ_WRITE_UNCHANGED | (d->fua ? BDRV_REQ_FUA : 0);
    limits->zero_flags = BDRV_REQ_MAY_UNMAP | (d->fua ? BDRV_REQ_FUA : 0);
}

/* Note the request, wait while its kind is held, and fail if that is set. */
static int coroutine_fn enter(MemDisk *d, MemOp op, const BlockIO *io)
{
    int error;

    if (io) {
        g_assert(io->offset % d->align == 0 && io->bytes % d->align == 0);
        g_assert(d->max_transfer == 0 || op > MEM_WRITE ||
                 io->bytes <= d->max_transfer);
        g_assert(!io->iov || (io->iov->size == (size_t)io->bytes &&
                              io->iov->niov <= d->max_iov &&
                              block_iov_is_aligned(io->iov, d->mem_align)));
    }
    WITH_LOCK(&d->lock) {
        d->count[op]++;
        if (io) {
            d->last[op] = (MemRequest){ io->offset, io->bytes, io->flags,
                                        io->iov ? io->iov->niov : 0 };
        }
    }
    if (atomic_exchange(&d->catch_next[op], false)) {
        atomic_store(&d->caught, true);
        while (atomic_load(&d->caught)) {
            co_sleep_ns(0);
        }
    }
    while (atomic_load(&d->hold[op])) {
        atomic_fetch_add(&d->held, 1);
        co_sleep_ns(0);
        atomic_fetch_sub(&d->held, 1);
    }
    LOCK_GUARD(&d->lock);
    if (d->pass[op] > 0) {
        d->pass[op]--;
        return 0;
    }
    error = d->fail[op] ? d->fail[op] : d->fail_forever[op];
    d->fail[op] = 0;
    return -error;
}

static void mark_locked(MemDisk *d, int64_t offset, int64_t bytes, bool value)
{
    for (int64_t c = offset / MEM_CLUSTER;
         c < nr_clusters(offset + bytes); c++) {
        d->allocated[c] = value;
    }
}

/* Bytes from @offset on that are alike in the allocation map. */
static int64_t run_locked(MemDisk *d, int64_t offset, int64_t bytes,
                          bool *ret_allocated)
{
    int64_t c = offset / MEM_CLUSTER;
    bool first = c < nr_clusters(d->capacity) && d->allocated[c];
    int64_t end;

    do {
        c++;
        end = c * MEM_CLUSTER;
    } while (end < offset + bytes &&
             (c < nr_clusters(d->capacity) && d->allocated[c]) == first);
    *ret_allocated = first;
    return MIN(end - offset, bytes);
}

static int coroutine_fn read_run(BlockDriverState *bs, const BlockIO *io,
                                 int64_t done, int64_t *ret_run)
{
    MemDisk *d = mem_disk(bs);
    BlockIOVecSlice slice;
    bool allocated = true;
    int ret = 0;

    WITH_LOCK(&d->lock) {
        int64_t offset = io->offset + done;
        int64_t run = io->bytes - done;

        if (bdrv_cow_child(bs)) {
            run = run_locked(d, offset, run, &allocated);
        }
        if (allocated) {
            int64_t inside = CLAMP(d->length - offset, 0, run);

            if (inside > 0) {
                block_iov_from_buf(io->iov, done, d->data + offset, inside);
            }
            block_iov_memset(io->iov, done + inside, 0, run - inside);
        }
        *ret_run = run;
    }
    if (!allocated) {
        ret = bdrv_co_preadv(bdrv_cow_child(bs), io->offset + done, *ret_run,
                             block_iov_slice(&slice, io->iov, done, *ret_run),
                             0);
        block_iov_slice_clear(&slice);
    }
    return ret;
}

static int coroutine_fn mem_preadv(BlockDriverState *bs, const BlockIO *io)
{
    int ret = enter(mem_disk(bs), MEM_READ, io);
    int64_t done = 0;

    while (ret == 0 && done < io->bytes) {
        int64_t run = 0;

        ret = read_run(bs, io, done, &run);
        done += run;
    }
    return ret;
}

static bool mem_expect_read(BlockDriverState *bs, int64_t offset,
                            int64_t bytes)
{
    MemDisk *disk = mem_disk(bs);

    disk->told += disk->expects;
    return disk->expects;
}

/* Clusters that a write covers only partly get the backing file's bytes. */
static int coroutine_fn fill_edges(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes)
{
    MemDisk *d = mem_disk(bs);
    int64_t first = offset / MEM_CLUSTER;
    int64_t last = (offset + bytes - 1) / MEM_CLUSTER;
    uint8_t buf[MEM_CLUSTER];
    int ret = 0;

    for (int64_t c = first; ret == 0 && bdrv_cow_child(bs) && c <= last; c++) {
        bool have = false;

        WITH_LOCK(&d->lock) {
            reserve_locked(d, (c + 1) * MEM_CLUSTER);
            have = d->allocated[c];
        }
        if (!have) {
            ret = bdrv_co_pread(bdrv_cow_child(bs), c * MEM_CLUSTER,
                                MEM_CLUSTER, buf, 0);
        }
        LOCK_GUARD(&d->lock);
        if (ret == 0 && !have && !d->allocated[c]) {
            memcpy(d->data + c * MEM_CLUSTER, buf, MEM_CLUSTER);
            d->allocated[c] = true;
        }
    }
    return ret;
}

static int coroutine_fn mem_change(BlockDriverState *bs, const BlockIO *io,
                                   MemOp op)
{
    MemDisk *d = mem_disk(bs);
    int64_t end = io->offset + io->bytes;
    int ret = enter(d, op, io);

    if (ret == 0) {
        ret = fill_edges(bs, io->offset, io->bytes);
    }
    if (ret < 0) {
        return ret;
    }
    LOCK_GUARD(&d->lock);
    if (end > d->length && !d->grow) {
        return -ENOSPC;
    }
    reserve_locked(d, end);
    d->length = MAX(d->length, end);
    mark_locked(d, io->offset, io->bytes, true);
    if (io->iov) {
        block_iov_to_buf(io->iov, 0, d->data + io->offset, io->bytes);
    } else {
        memset(d->data + io->offset, 0, io->bytes);
    }
    return 0;
}

static int coroutine_fn mem_pwritev(BlockDriverState *bs, const BlockIO *io)
{
    return mem_change(bs, io, MEM_WRITE);
}

static int coroutine_fn mem_pwrite_zeroes(BlockDriverState *bs,
                                          const BlockIO *io)
{
    MemDisk *d = mem_disk(bs);
    int64_t unit = MAX(d->zero_align, 1);

    if (!d->zero || io->offset % unit || io->bytes % unit) {
        return -ENOTSUP;
    }
    return mem_change(bs, io, MEM_ZERO);
}

static int coroutine_fn mem_pdiscard(BlockDriverState *bs, const BlockIO *io)
{
    MemDisk *d = mem_disk(bs);
    int64_t unit = MAX(d->discard_align, 1);
    int ret;

    if (!d->discard) {
        return -ENOTSUP;
    }
    if (io->offset % unit || io->bytes % unit) {
        return -EINVAL;
    }
    ret = enter(d, MEM_DISCARD, io);
    if (ret == 0) {
        LOCK_GUARD(&d->lock);
        memset(d->data + io->offset, 0,
               CLAMP(d->length - io->offset, 0, io->bytes));
    }
    return ret;
}

static int coroutine_fn mem_flush(BlockDriverState *bs)
{
    return enter(mem_disk(bs), MEM_FLUSH, NULL);
}

static int coroutine_fn mem_truncate(BlockDriverState *bs,
                                     const BlockTruncate *how, GError **errp)
{
    MemDisk *d = mem_disk(bs);
    int ret = enter(d, MEM_TRUNCATE, NULL);

    if (ret < 0) {
        return block_error_errno(errp, -ret, "mem: truncate");
    }
    LOCK_GUARD(&d->lock);
    reserve_locked(d, how->offset);
    if (how->offset < d->length) {
        memset(d->data + how->offset, 0, d->length - how->offset);
        for (int64_t c = nr_clusters(how->offset);
             c < nr_clusters(d->length); c++) {
            d->allocated[c] = false;
        }
    }
    d->length = how->offset;
    return 0;
}

static int64_t coroutine_fn mem_getlength(BlockDriverState *bs)
{
    LOCK_GUARD(&mem_disk(bs)->lock);

    return mem_disk(bs)->length;
}

static int coroutine_fn mem_block_status(BlockDriverState *bs,
                                         const BlockIO *io, BlockExtent *ret)
{
    MemDisk *d = mem_disk(bs);
    bool allocated;

    LOCK_GUARD(&d->lock);
    ret->bytes = run_locked(d, io->offset, io->bytes, &allocated);
    if (allocated) {
        ret->status = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
        ret->map = io->offset;
        ret->file = bs;
    }
    return 0;
}

static int coroutine_fn mem_copy_range_from(BlockDriverState *bs,
                                            const BlockCopyRange *copy)
{
    return bdrv_co_copy_range_to(copy);
}

static int coroutine_fn mem_copy_range_to(BlockDriverState *bs,
                                          const BlockCopyRange *copy)
{
    MemDisk *from = mem_disk(bdrv_child_bs(copy->src));
    g_autofree uint8_t *data = g_malloc(copy->bytes);
    BlockIOVec1 iov;
    BlockIO io = { .offset = copy->dst_offset, .bytes = copy->bytes };

    WITH_LOCK(&from->lock) {
        memcpy(data, from->data + copy->src_offset, copy->bytes);
    }
    io.iov = block_iov_buf(&iov, data, copy->bytes);
    return mem_change(bs, &io, MEM_WRITE);
}

/* Before any test runs, so not by an assertion of check. */
static void register_once(const BlockDriver *driver)
{
    if (!bdrv_find_driver(driver->name) && bdrv_register(driver, NULL) < 0) {
        abort();
    }
}

void mem_register_copying(void)
{
    static BlockDriver driver;

    mem_register();
    driver = *bdrv_find_driver("mem");
    driver.name = "copymem";
    driver.copy_range_from = mem_copy_range_from;
    driver.copy_range_to = mem_copy_range_to;
    register_once(&driver);
}

static int mem_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    info->cluster_bytes = MEM_CLUSTER;
    return 0;
}

void mem_register_clustered(void)
{
    static BlockDriver driver;

    mem_register();
    driver = *bdrv_find_driver("mem");
    driver.name = "clustermem";
    driver.get_info = mem_get_info;
    register_once(&driver);
}

void mem_register(void)
{
    static const BlockDriver driver = {
        .struct_size = sizeof(BlockDriver),
        .name = "mem",
        .kind = BLOCK_DRIVER_FORMAT,
        .state_size = sizeof(MemDisk),
        .options = mem_options,
        .open = mem_open,
        .close = mem_close,
        .refresh_limits = mem_refresh_limits,
        .preadv = mem_preadv,
        .expect_read = mem_expect_read,
        .pwritev = mem_pwritev,
        .pwrite_zeroes = mem_pwrite_zeroes,
        .pdiscard = mem_pdiscard,
        .flush = mem_flush,
        .truncate = mem_truncate,
        .getlength = mem_getlength,
        .block_status = mem_block_status,
    };

    register_once(&driver);
}
