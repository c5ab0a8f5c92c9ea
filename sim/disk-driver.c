/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim-disk: the driver of simulated disks.
 *
 * A request is submitted (faults, holds, quota), takes effect in an event of
 * its own, when its time has come, and is acknowledged when its coroutine runs
 * again.  In between anything else may happen: requests in flight take effect
 * in any order.
 */
#include "sim/disk-int.h"

#include <errno.h>
#include <string.h>

/* How a request that takes very long differs from others. */
#define SLOW_FACTOR 1000

/* Chunks that one look at block status visits. */
#define STATUS_ATOMS_MAX (4096 * SIM_CHUNK_ATOMS)

/* An explicit zero for each atom of a noisy disk: not too many at once. */
#define NOISY_ZERO_MAX (16 << 20)

typedef struct SimDiskNode {
    BgSimDisk *disk; /* set by open */
} SimDiskNode;

typedef struct SimDiskOptions {
    char *disk;
} SimDiskOptions;

typedef enum RequestKind {
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_ZERO,
    REQUEST_DISCARD,
    REQUEST_FLUSH,
    REQUEST_TRUNCATE,
} RequestKind;

/* On the stack of its coroutine. */
typedef struct DiskRequest {
    BgSimDisk *disk;
    Coroutine *co;
    RequestKind kind;
    int64_t offset;
    int64_t bytes;
    unsigned flags;
    BlockIOVec *iov;     /* reads; NULL with BDRV_REQ_PREFETCH */
    SimWrite *write;     /* changes; one reference */
    uint64_t submitted;
    int64_t reserved;    /* atoms of the quota */
    guint log_place;     /* flushes */
    SimVerdict verdict;
    SimEvent ev;
} DiskRequest;

/* What rules call the kinds, and traces their ends. */
static const struct {
    const char *name;
    const char *done;
    const char *waits;
} kinds[] = {
    [REQUEST_READ] = { "read", "read.done", "a simulated read" },
    [REQUEST_WRITE] = { "write", "write.done", "a simulated write" },
    [REQUEST_ZERO] = { "zero", "zero.done", "a simulated zero write" },
    [REQUEST_DISCARD] = { "discard", "discard.done", "a simulated discard" },
    [REQUEST_FLUSH] = { "flush", "flush.done", "a simulated flush" },
    [REQUEST_TRUNCATE] = { "truncate", "truncate.done",
                           "a simulated truncate" },
};

static const BlockOption sim_disk_options[] = {
    { .name = "disk", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(SimDiskOptions, disk),
      .help = "name of a disk of the simulated world" },
    { .type = BLOCK_OPTION_END },
};

/* --- submission ----------------------------------------------------------- */

static uint64_t *counter_of(BgSimDiskStats *stats, RequestKind kind)
{
    uint64_t *const counters[] = {
        [REQUEST_READ] = &stats->reads,
        [REQUEST_WRITE] = &stats->writes,
        [REQUEST_ZERO] = &stats->zeroes,
        [REQUEST_DISCARD] = &stats->discards,
        [REQUEST_FLUSH] = &stats->flushes,
        [REQUEST_TRUNCATE] = &stats->truncates,
    };

    return counters[kind];
}

/* Atoms that @write would store and that do not hold data yet. */
static int64_t new_atoms_locked(BgSimDisk *disk, const SimWrite *write)
{
    SimStore *store = &disk->store;
    int64_t end = sim_atom_end(store, write->offset, write->bytes);
    int64_t n = 0;

    for (int64_t i = sim_atom_first(store, write->offset); i < end; i++) {
        const SimAtom *atom = sim_store_atom(store, i, false);

        n += !atom || !sim_atom_is_stored(atom);
    }
    return n;
}

static void reserve_locked(DiskRequest *r)
{
    SimDiskState *s = &r->disk->state;

    if (r->kind != REQUEST_WRITE || s->quota_atoms < 0 || r->verdict.err) {
        return;
    }
    r->reserved = new_atoms_locked(r->disk, r->write);
    if ((int64_t)r->disk->store.stored + s->reserved + r->reserved >
        s->quota_atoms) {
        r->reserved = 0;
        r->verdict.err = ENOSPC;
        r->verdict.after = false;
    }
    s->reserved += r->reserved;
}

static void submit_locked(DiskRequest *r)
{
    SimDiskState *s = &r->disk->state;
    SimWrite *write = r->write;

    ++*counter_of(&s->stats, r->kind);
    r->submitted = sim_disk_time(r->disk->sim);
    reserve_locked(r);
    if (write) {
        write->id = ++s->next_id;
        write->submitted = r->submitted;
        write->flags = r->flags;
        write->effective = !r->verdict.err || r->verdict.after;
        list_append(&s->in_flight, &write->link);
    } else if (r->kind == REQUEST_FLUSH && s->log) {
        /* What stands before it in the log had ended, so it covers that. */
        r->log_place = s->log->len;
        g_ptr_array_add(s->log, NULL);
    }
}

/*
 * An exponential part, up to a line in each octave: bits that are one halve
 * the chance again and again, so a low number is a short time.
 */
static int64_t exponential(BgSim *sim, int64_t mean)
{
    uint64_t x = bgsim_draw(sim, "disk.latency", UINT64_C(1) << 32) << 32;
    unsigned octave = __builtin_clzll(~x); /* the low bits of x are 0 */
    uint64_t rest = (x << (octave + 1)) >> 44;
    unsigned __int128 units = (uint64_t)octave << 20 | rest;

    /* The half-life is mean * ln 2. */
    return (int64_t)(units * (uint64_t)mean * 710 / 1024 >> 20);
}

static int64_t draw_latency(BgSimDisk *disk)
{
    const BgSimDiskConfig *c = &disk->config;
    int64_t latency = c->min_latency_ns +
                      exponential(disk->sim, c->mean_latency_ns);

    if (c->slow_permille > 0 && !atomic_load(&disk->sim->settling) &&
        bgsim_chance(disk->sim, "disk.slow", c->slow_permille)) {
        latency *= SLOW_FACTOR;
    }
    return latency;
}

/* --- effect --------------------------------------------------------------- */

/* @write, in flight, becomes visible at some atoms of the range of @r. */
static void show_early_locked(DiskRequest *r, SimWrite *write)
{
    SimStore *store = &r->disk->store;
    int64_t from = sim_atom_first(store, MAX(r->offset, write->offset));
    int64_t to = sim_atom_end(store, MIN(r->offset + r->bytes,
                                         write->offset + write->bytes), 0);
    int64_t first = sim_atom_first(store, write->offset);

    for (int64_t i = from; i < to; i++) {
        if ((write->early && write->early[i - first]) ||
            !bgsim_chance(r->disk->sim, "disk.torn",
                          r->disk->config.torn_read_permille)) {
            continue;
        }
        if (!write->early) {
            write->early = g_malloc0(sim_atom_end(store, write->offset,
                                                  write->bytes) - first);
        }
        write->early[i - first] = 1;
        sim_store_effect(store, i, write);
    }
}

/*
 * What is seen of a write in flight has taken effect there: a later read must
 * not see the older value again.
 */
static void tear_locked(DiskRequest *r)
{
    LIST_FOREACH(link, &r->disk->state.in_flight) {
        SimWrite *write = LIST_ENTRY(link, SimWrite, link);

        if (write->effective && !write->took_effect &&
            (write->kind == SIM_WRITE_DATA || write->kind == SIM_WRITE_ZERO) &&
            write->offset < r->offset + r->bytes &&
            r->offset < write->offset + write->bytes) {
            show_early_locked(r, write);
        }
    }
}

static void read_locked(DiskRequest *r)
{
    SimStore *store = &r->disk->store;
    g_autofree uint8_t *buf = NULL;

    if (r->disk->config.torn_read_permille > 0 &&
        !atomic_load(&r->disk->sim->settling)) {
        tear_locked(r);
    }
    if (!r->iov) {
        return;
    }
    if (r->iov->niov == 1) {
        sim_store_read(store, r->offset, r->bytes, r->iov->iov[0].iov_base);
        return;
    }
    buf = g_malloc(r->bytes);
    sim_store_read(store, r->offset, r->bytes, buf);
    block_iov_from_buf(r->iov, 0, buf, r->bytes);
}

static void take_effect(DiskRequest *r)
{
    LOCK_GUARD(&r->disk->lock);

    if (r->verdict.err && !r->verdict.after) {
        return;
    }
    if (r->kind == REQUEST_READ) {
        read_locked(r);
    } else if (r->write) {
        sim_disk_take_effect_locked(r->disk, r->write);
    }
}

static void event_cb(void *opaque)
{
    DiskRequest *r = opaque;

    take_effect(r);
    aio_co_wake(r->co);
}

/* --- acknowledgement ------------------------------------------------------ */

static bool acked_before(const SimVersion *version, uint64_t before)
{
    return version->write->acked && version->write->acked < before;
}

static void end_flush_locked(DiskRequest *r)
{
    BgSimDisk *disk = r->disk;
    SimDiskState *s = &disk->state;
    const BgSimDiskConfig *c = &disk->config;

    if (r->verdict.err && c->flush_mode != BGSIM_FLUSH_KEEP) {
        sim_store_forget(&disk->store, acked_before, r->submitted,
                         c->flush_mode == BGSIM_FLUSH_FORGET_REVERT);
    }
    if (r->verdict.err) {
        return;
    }
    if (!c->lying_flush) {
        sim_disk_pin_locked(disk, r->submitted);
    }
    if (s->log) {
        SimWrite *mark = sim_write_new(SIM_WRITE_FLUSH, 0, 0);

        g_ptr_array_index(s->log, r->log_place) = mark;
    }
}

static void end_write_locked(DiskRequest *r)
{
    SimDiskState *s = &r->disk->state;
    SimWrite *write = r->write;

    list_remove(&write->link);
    s->reserved -= r->reserved;
    if (!r->verdict.err) {
        write->acked = sim_disk_time(r->disk->sim);
        if ((r->flags & BDRV_REQ_FUA) && !r->disk->config.lying_fua) {
            sim_disk_pin_write_locked(r->disk, write);
        }
    }
    if (s->log && write->took_effect && write->kind != SIM_WRITE_TRUNCATE) {
        g_ptr_array_add(s->log, sim_write_ref(write));
    }
}

static void end_request(DiskRequest *r)
{
    BgSimDisk *disk = r->disk;

    WITH_LOCK(&disk->lock) {
        disk->state.stats.failed += r->verdict.err != 0;
        if (r->kind == REQUEST_FLUSH) {
            end_flush_locked(r);
        } else if (r->write) {
            end_write_locked(r);
            sim_write_unref(r->write);
        }
    }
}

/* A whole request.  Takes over r->write. */
static int coroutine_fn run_request(DiskRequest *r)
{
    BgSimDisk *disk = r->disk;
    BgSim *sim = disk->sim;

    bgsim_trace(sim, kinds[r->kind].name, r->offset,
                (uint64_t)r->bytes ^ (uint64_t)r->flags << 48);
    r->verdict = sim_fault_disk(sim, disk->name, kinds[r->kind].name,
                                r->offset, r->bytes);
    if (r->verdict.hold) {
        sim_hold_wait(sim, r->verdict.hold);
    }
    WITH_LOCK(&disk->lock) {
        submit_locked(r);
    }
    if (sim_sched_eager(sim)) {
        take_effect(r);
    } else {
        r->co = coroutine_self();
        r->ev = (SimEvent){ .actor = disk->device->actor,
                            .what = kinds[r->kind].name, .cb = event_cb,
                            .opaque = r };
        SIM_WAITS(kinds[r->kind].waits, NULL);
        sim_event_add(sim, &r->ev, draw_latency(disk));
        coroutine_yield();
    }
    end_request(r);
    bgsim_trace(sim, kinds[r->kind].done, disk->device->actor,
                r->verdict.err);
    return -r->verdict.err;
}

/* --- control -------------------------------------------------------------- */

static int coroutine_fn sim_disk_open(BlockDriverState *bs,
                                      BlockOptions *options, unsigned flags,
                                      GError **errp)
{
    SimDiskNode *s = bdrv_opaque(bs);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'sim-disk')",
                                            bdrv_node_name(bs));
    g_autofree char *filename = NULL;
    SimDiskOptions o;
    int ret = block_options_absorb(options, sim_disk_options, &o, what, errp);

    if (ret < 0) {
        return ret;
    }
    s->disk = sim_world ? bgsim_disk_find(sim_world, o.disk) : NULL;
    filename = g_strdup_printf("sim://%s", o.disk);
    block_options_clear(sim_disk_options, &o);
    if (!s->disk) {
        return block_error(errp, ENOENT, "%s: the simulated world has no disk "
                           "'%s'", what, filename + strlen("sim://"));
    }
    bdrv_set_filename(bs, filename);
    return 0;
}

static int coroutine_fn sim_disk_reopen_prepare(BdrvReopenState *state,
                                                GError **errp)
{
    SimDiskNode *s = bdrv_opaque(state->bs);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'sim-disk')",
                                            bdrv_node_name(state->bs));
    bool has_disk = block_options_has(state->options, "disk");
    SimDiskOptions o;
    int ret;

    if (!has_disk) {
        block_options_set_str(state->options, "disk", s->disk->name);
    }
    ret = block_options_absorb(state->options, sim_disk_options, &o, what,
                               errp);
    if (ret < 0) {
        return ret;
    }
    if (strcmp(o.disk, s->disk->name) != 0) {
        ret = block_error(errp, EINVAL, "%s: option 'disk' cannot be changed",
                          what);
    }
    block_options_clear(sim_disk_options, &o);
    return ret;
}

static void sim_disk_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const BgSimDiskConfig *c = &((SimDiskNode *)bdrv_opaque(bs))->disk->config;
    unsigned fua = c->no_fua ? 0 : BDRV_REQ_FUA;

    limits->request_alignment = c->request_alignment;
    limits->max_transfer = c->max_transfer;
    limits->max_iov = c->max_iov;
    limits->write_flags = fua;
    limits->zero_flags = c->no_zero_write ? 0
                                          : fua | BDRV_REQ_MAY_UNMAP |
                                                BDRV_REQ_NO_FALLBACK;
    limits->truncate_flags = c->grows ? BDRV_REQ_ZERO_WRITE : 0;
    if (c->dirty_start) {
        limits->max_pwrite_zeroes = NOISY_ZERO_MAX;
    }
}

/* --- data ----------------------------------------------------------------- */

static DiskRequest request(BlockDriverState *bs, RequestKind kind,
                           const BlockIO *io)
{
    SimDiskNode *s = bdrv_opaque(bs);

    return (DiskRequest){ .disk = s->disk, .kind = kind, .offset = io->offset,
                          .bytes = io->bytes, .flags = io->flags };
}

static int coroutine_fn sim_disk_preadv(BlockDriverState *bs,
                                        const BlockIO *io)
{
    DiskRequest r = request(bs, REQUEST_READ, io);

    r.iov = io->iov;
    return run_request(&r);
}

static int coroutine_fn sim_disk_pwritev(BlockDriverState *bs,
                                         const BlockIO *io)
{
    DiskRequest r = request(bs, REQUEST_WRITE, io);

    r.write = sim_write_new(SIM_WRITE_DATA, io->offset, io->bytes);
    block_iov_to_buf(io->iov, 0, r.write->data, io->bytes);
    return run_request(&r);
}

static int coroutine_fn sim_disk_pwrite_zeroes(BlockDriverState *bs,
                                               const BlockIO *io)
{
    DiskRequest r = request(bs, REQUEST_ZERO, io);

    if (r.disk->config.no_zero_write || r.disk->config.lying_zero_write) {
        return -ENOTSUP;
    }
    r.write = sim_write_new(SIM_WRITE_ZERO, io->offset, io->bytes);
    return run_request(&r);
}

static int coroutine_fn sim_disk_pdiscard(BlockDriverState *bs,
                                          const BlockIO *io)
{
    DiskRequest r = request(bs, REQUEST_DISCARD, io);

    if (r.disk->config.discard == BGSIM_DISCARD_NONE) {
        return -ENOTSUP;
    }
    r.write = sim_write_new(SIM_WRITE_DISCARD, io->offset, io->bytes);
    return run_request(&r);
}

static int coroutine_fn sim_disk_flush(BlockDriverState *bs)
{
    BlockIO io = { .offset = 0 };
    DiskRequest r = request(bs, REQUEST_FLUSH, &io);

    return run_request(&r);
}

static int coroutine_fn sim_disk_truncate(BlockDriverState *bs,
                                          const BlockTruncate *how,
                                          GError **errp)
{
    BlockIO io = { .offset = how->offset };
    DiskRequest r = request(bs, REQUEST_TRUNCATE, &io);
    int64_t length = bgsim_disk_length(r.disk);
    int ret;

    if (how->prealloc != PREALLOC_MODE_OFF) {
        return block_error(errp, ENOTSUP, "Node '%s': driver 'sim-disk' "
                           "cannot preallocate", bdrv_node_name(bs));
    }
    if (!r.disk->config.grows) {
        return how->offset == length || (!how->exact && how->offset < length)
                   ? 0
                   : block_error(errp, ENOTSUP, "Node '%s': the simulated "
                                 "disk cannot change its length",
                                 bdrv_node_name(bs));
    }
    r.write = sim_write_new(SIM_WRITE_TRUNCATE, how->offset, 0);
    ret = run_request(&r);
    return ret < 0 ? block_error_errno(errp, -ret, "Node '%s': could not "
                                       "change the length",
                                       bdrv_node_name(bs))
                   : 0;
}

static int64_t coroutine_fn sim_disk_getlength(BlockDriverState *bs)
{
    return bgsim_disk_length(((SimDiskNode *)bdrv_opaque(bs))->disk);
}

static int64_t coroutine_fn sim_disk_get_allocated_size(BlockDriverState *bs)
{
    BgSimDisk *disk = ((SimDiskNode *)bdrv_opaque(bs))->disk;

    LOCK_GUARD(&disk->lock);
    return (int64_t)disk->store.stored * disk->store.atom;
}

/* How many atoms from @first on, before @end, are all zero or all not. */
static int64_t same_status_locked(SimStore *store, int64_t first, int64_t end,
                                  bool *ret_zero)
{
    int64_t i = first + 1;

    end = MIN(end, first + STATUS_ATOMS_MAX);
    *ret_zero = sim_store_is_zero(store, first);
    while (i < end && sim_store_is_zero(store, i) == *ret_zero) {
        /* Where there is nothing a clean disk has zeroes. */
        i = *ret_zero && !store->noise ? sim_store_next(store, i + 1, end)
                                       : i + 1;
    }
    return i - first;
}

static int coroutine_fn sim_disk_block_status(BlockDriverState *bs,
                                              const BlockIO *io,
                                              BlockExtent *ret)
{
    BgSimDisk *disk = ((SimDiskNode *)bdrv_opaque(bs))->disk;
    int64_t align = bdrv_request_alignment(bs);
    SimStore *store = &disk->store;
    int64_t first = sim_atom_first(store, io->offset);
    int64_t atoms;
    int64_t bytes;
    bool zero;

    WITH_LOCK(&disk->lock) {
        atoms = same_status_locked(store, first,
                                   sim_atom_end(store, io->offset, io->bytes),
                                   &zero);
    }
    bytes = MIN(io->bytes, (first + atoms) * store->atom - io->offset);
    if (bytes % align) {
        /* In whole units; one that is zero in part is data. */
        bytes = zero ? bytes / align * align
                     : MIN(io->bytes, (bytes + align - 1) / align * align);
        zero &= bytes > 0;
        bytes = bytes > 0 ? bytes : align;
    }
    ret->bytes = bytes;
    ret->map = io->offset;
    ret->file = bs;
    ret->status = BDRV_BLOCK_OFFSET_VALID |
                  (zero ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA);
    return 0;
}

static const BlockDriver sim_disk_driver = {
    .struct_size = sizeof(BlockDriver),
    .name = "sim-disk",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(SimDiskNode),
    .options = sim_disk_options,
    .open = sim_disk_open,
    .reopen_prepare = sim_disk_reopen_prepare,
    .refresh_limits = sim_disk_refresh_limits,
    .preadv = sim_disk_preadv,
    .pwritev = sim_disk_pwritev,
    .pwrite_zeroes = sim_disk_pwrite_zeroes,
    .pdiscard = sim_disk_pdiscard,
    .flush = sim_disk_flush,
    .truncate = sim_disk_truncate,
    .getlength = sim_disk_getlength,
    .get_allocated_size = sim_disk_get_allocated_size,
    .block_status = sim_disk_block_status,
};

void sim_disk_register(void)
{
    if (!bdrv_find_driver(sim_disk_driver.name)) {
        int ret = bdrv_register(&sim_disk_driver, NULL);

        g_assert(ret == 0);
    }
}
