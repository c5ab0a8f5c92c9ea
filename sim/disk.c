/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Simulated disks: their life, how changes take effect and become stable, and
 * what tests do to them past the graph.
 */
#include "sim/disk-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_DEFAULT (256 * 1024)
#define ATOM_DEFAULT 512
#define ALIGNMENT_DEFAULT 512
#define MIN_LATENCY_DEFAULT 1000
#define MEAN_LATENCY_DEFAULT (100 * 1000)

/* --- changes -------------------------------------------------------------- */

uint64_t sim_disk_time(BgSim *sim)
{
    return 1 + atomic_fetch_add_explicit(&sim->clock, 1,
                                         memory_order_relaxed);
}

SimWrite *sim_write_new(SimWriteKind kind, int64_t offset, int64_t bytes)
{
    size_t room = kind == SIM_WRITE_DATA ? bytes : 0;
    SimWrite *write = g_malloc(sizeof(*write) + room);

    *write = (SimWrite){ .refs = 1, .kind = kind, .offset = offset,
                         .bytes = bytes };
    list_init(&write->link);
    return write;
}

void sim_write_unref(SimWrite *write)
{
    g_assert(write->refs > 0);
    if (--write->refs == 0) {
        g_free(write->early);
        g_free(write);
    }
}

/* --- life ----------------------------------------------------------------- */

static void disk_free(void *opaque)
{
    BgSimDisk *disk = opaque;

    /* A run that was given up leaves requests in flight, on stacks that are
     * gone; their writes are lost with them. */
    sim_store_clear(&disk->store);
    for (guint i = 0; disk->state.sizes && i < disk->state.sizes->len; i++) {
        sim_write_unref(g_array_index(disk->state.sizes, SimSize, i).write);
    }
    g_clear_pointer(&disk->state.sizes, g_array_unref);
    for (guint i = 0; disk->state.log && i < disk->state.log->len; i++) {
        SimWrite *write = g_ptr_array_index(disk->state.log, i);

        if (write) {
            sim_write_unref(write);
        }
    }
    g_clear_pointer(&disk->state.log, g_ptr_array_unref);
    g_free(disk->name);
    g_free(disk);
}

static bool is_power_of_two(uint32_t x)
{
    return x > 0 && (x & (x - 1)) == 0;
}

static void set_defaults(BgSimDiskConfig *c)
{
    c->size = c->size ? c->size : SIZE_DEFAULT;
    c->atom = c->atom ? c->atom : ATOM_DEFAULT;
    c->request_alignment = c->request_alignment ? c->request_alignment
                                                : ALIGNMENT_DEFAULT;
    c->min_latency_ns = c->min_latency_ns ? c->min_latency_ns
                                          : MIN_LATENCY_DEFAULT;
    c->mean_latency_ns = c->mean_latency_ns ? c->mean_latency_ns
                                            : MEAN_LATENCY_DEFAULT;
    g_assert(c->size >= 0 && c->size <= BDRV_MAX_LENGTH);
    g_assert(is_power_of_two(c->atom) && c->atom >= 8);
    g_assert(is_power_of_two(c->request_alignment));
}

static void init_state(BgSimDisk *disk)
{
    const BgSimDiskConfig *c = &disk->config;

    disk->state = (SimDiskState){
        .size = c->empty ? 0 : c->size,
        .stable_size = c->empty ? 0 : c->size,
        .quota_atoms = c->quota ? c->quota / c->atom : -1,
        .log = c->keep_log || disk->sim->config.record ? g_ptr_array_new()
                                                       : NULL,
    };
    list_init(&disk->state.in_flight);
}

BgSimDisk *bgsim_disk_new(BgSim *sim, const char *name,
                          const BgSimDiskConfig *config)
{
    BgSimDisk *disk = g_new0(BgSimDisk, 1);

    g_assert(!bgsim_disk_find(sim, name));
    sim_disk_register();
    disk->sim = sim;
    disk->name = g_strdup(name);
    disk->config = config ? *config : (BgSimDiskConfig){ .size = 0 };
    set_defaults(&disk->config);
    disk->device = sim_device_new(sim, name);
    lock_init(&disk->lock, LOCK_RANK_DRIVER);
    init_state(disk);
    sim_store_init(&disk->store, disk->config.atom);
    if (disk->config.dirty_start) {
        disk->store.noise = true;
        disk->store.noise_key = bgsim_draw(sim, "disk.noise",
                                           UINT64_C(1) << 48);
        disk->store.noise_end = disk->state.size / disk->config.atom;
    }
    g_ptr_array_add(sim->disks, disk);
    sim_own(sim, disk_free, disk);
    return disk;
}

BgSimDisk *bgsim_disk_find(BgSim *sim, const char *name)
{
    for (guint i = 0; i < sim->disks->len; i++) {
        BgSimDisk *disk = g_ptr_array_index(sim->disks, i);

        if (strcmp(disk->name, name) == 0) {
            return disk;
        }
    }
    return NULL;
}

const char *bgsim_disk_name(const BgSimDisk *disk)
{
    return disk->name;
}

BlockDriverState *bgsim_disk_open(BgSimDisk *disk, BlockOptions *options,
                                  GError **errp)
{
    options = options ? options : block_options_new();
    block_options_set_str(options, "driver", "sim-disk");
    block_options_set_str(options, "disk", disk->name);
    if (!block_options_has(options, "node-name")) {
        block_options_set_str(options, "node-name", disk->name);
    }
    return bdrv_open(bgsim_graph(disk->sim), options, errp);
}

/* --- taking effect -------------------------------------------------------- */

/*
 * Each change beyond the stable end is one of the size too, even if the end is
 * where it was: its own stability needs a size that reaches so far.
 */
static void set_size_locked(BgSimDisk *disk, int64_t size, SimWrite *write)
{
    SimDiskState *s = &disk->state;
    SimSize entry = { size, write };

    if (!s->sizes) {
        s->sizes = g_array_new(FALSE, FALSE, sizeof(SimSize));
    }
    sim_write_ref(write);
    g_array_append_val(s->sizes, entry);
    s->size = size;
}

static void truncate_locked(BgSimDisk *disk, SimWrite *write)
{
    SimStore *store = &disk->store;
    int64_t size = write->offset;
    int64_t end = sim_atom_end(store, disk->state.size, 0);
    int64_t i = sim_atom_first(store, size);

    if (size < disk->state.size) {
        /* What is cut off reads as zero if the disk grows again. */
        write->bytes = disk->state.size - size;
        for (i = sim_store_next(store, i, end); i < end;
             i = sim_store_next(store, i + 1, end)) {
            sim_store_effect(store, i, write);
        }
        store->noise_end = MIN(store->noise_end, sim_atom_end(store, size, 0));
    }
    set_size_locked(disk, size, write);
}

static bool discard_applies(BgSimDisk *disk)
{
    switch (disk->config.discard) {
    case BGSIM_DISCARD_ZEROES:
        return true;
    case BGSIM_DISCARD_ANY:
        return bgsim_draw(disk->sim, "disk.discard", 2) == 1;
    default:
        return false;
    }
}

void sim_disk_take_effect_locked(BgSimDisk *disk, SimWrite *write)
{
    SimStore *store = &disk->store;
    int64_t first = sim_atom_first(store, write->offset);
    int64_t end = sim_atom_end(store, write->offset, write->bytes);
    bool sparse = write->kind != SIM_WRITE_DATA && !store->noise;

    g_assert(!write->took_effect);
    write->took_effect = true;
    if (write->kind == SIM_WRITE_TRUNCATE) {
        truncate_locked(disk, write);
        return;
    }
    for (int64_t i = sparse ? sim_store_next(store, first, end) : first;
         i < end; i = sparse ? sim_store_next(store, i + 1, end) : i + 1) {
        if (!(write->early && write->early[i - first]) &&
            (write->kind != SIM_WRITE_DISCARD || discard_applies(disk))) {
            sim_store_effect(store, i, write);
        }
    }
    if (write->kind != SIM_WRITE_DISCARD &&
        write->offset + write->bytes > disk->state.stable_size) {
        set_size_locked(disk, MAX(disk->state.size,
                                  write->offset + write->bytes), write);
    }
}

/* --- becoming stable ------------------------------------------------------ */

static bool acked_before(const SimVersion *version, uint64_t before)
{
    return version->write->acked && version->write->acked < before;
}

static bool is_of_write(const SimVersion *version, uint64_t id)
{
    return version->write->id == id;
}

/* The size entries up to number @last are history. */
static void pin_size(SimDiskState *s, guint last)
{
    s->stable_size = g_array_index(s->sizes, SimSize, last).size;
    for (guint i = 0; i <= last; i++) {
        sim_write_unref(g_array_index(s->sizes, SimSize, i).write);
    }
    g_array_remove_range(s->sizes, 0, last + 1);
}

void sim_disk_pin_locked(BgSimDisk *disk, uint64_t before)
{
    SimDiskState *s = &disk->state;

    sim_store_pin(&disk->store, acked_before, before);
    for (guint i = s->sizes ? s->sizes->len : 0; i > 0; i--) {
        const SimWrite *write = g_array_index(s->sizes, SimSize, i - 1).write;

        if (write->acked && write->acked < before) {
            pin_size(s, i - 1);
            return;
        }
    }
}

void sim_disk_pin_write_locked(BgSimDisk *disk, SimWrite *write)
{
    SimStore *store = &disk->store;
    SimDiskState *s = &disk->state;
    int64_t end = sim_atom_end(store, write->offset, write->bytes);

    for (int64_t i = sim_store_next(
             store, sim_atom_first(store, write->offset), end);
         i < end; i = sim_store_next(store, i + 1, end)) {
        sim_store_pin_atom(store, sim_store_atom(store, i, false),
                           is_of_write, write->id);
    }
    for (guint i = s->sizes ? s->sizes->len : 0; i > 0; i--) {
        if (g_array_index(s->sizes, SimSize, i - 1).write == write) {
            pin_size(s, i - 1);
            return;
        }
    }
}

/* --- past the graph ------------------------------------------------------- */

void bgsim_disk_peek(BgSimDisk *disk, int64_t offset, int64_t bytes, void *buf)
{
    LOCK_GUARD(&disk->lock);

    g_assert(offset >= 0 && bytes >= 0);
    sim_store_read(&disk->store, offset, bytes, buf);
}

/* At once and for good; @write is no request. */
static void change_for_good_locked(BgSimDisk *disk, SimWrite *write)
{
    SimStore *store = &disk->store;
    int64_t end = sim_atom_end(store, write->offset, write->bytes);

    for (int64_t i = sim_atom_first(store, write->offset); i < end; i++) {
        SimAtom *atom = sim_store_atom(store, i, true);

        sim_store_replace(store, atom, sim_store_value(store, i, write));
    }
}

void bgsim_disk_poke(BgSimDisk *disk, int64_t offset, int64_t bytes,
                     const void *buf)
{
    bool zero = block_buffer_is_zero(buf, bytes);
    SimWrite *write = sim_write_new(zero ? SIM_WRITE_ZERO : SIM_WRITE_DATA,
                                    offset, bytes);
    SimDiskState *s = &disk->state;

    g_assert(offset >= 0 && bytes >= 0);
    if (!zero) {
        memcpy(write->data, buf, bytes);
    }
    WITH_LOCK(&disk->lock) {
        g_assert(offset + bytes <= s->size || disk->config.grows);
        if (bytes > 0) {
            change_for_good_locked(disk, write);
        }
        if (offset + bytes > s->stable_size) {
            s->size = MAX(s->size, offset + bytes);
            s->stable_size = offset + bytes;
        }
        sim_write_unref(write);
    }
}

int64_t bgsim_disk_length(BgSimDisk *disk)
{
    LOCK_GUARD(&disk->lock);

    return disk->state.size;
}

void bgsim_disk_corrupt(BgSimDisk *disk, int64_t offset)
{
    SimStore *store = &disk->store;
    int64_t index = offset / store->atom;
    SimWrite *damaged = sim_write_new(SIM_WRITE_DATA, index * store->atom,
                                      store->atom);
    SimValue value = { damaged, 0 };
    SimAtom *atom;

    LOCK_GUARD(&disk->lock);
    g_assert(offset >= 0 && offset < disk->state.size);
    sim_store_read(store, index * store->atom, store->atom, damaged->data);
    damaged->data[offset % store->atom] ^= 0x10;
    atom = sim_store_atom(store, index, true);
    if (!atom->last) {
        sim_store_replace(store, atom, value);
        return;
    }
    store->stored += !sim_atom_is_stored(atom);
    sim_value_unref(atom->last->value);
    atom->last->value = value;
}

void bgsim_disk_set_quota(BgSimDisk *disk, int64_t quota)
{
    LOCK_GUARD(&disk->lock);

    disk->state.quota_atoms = quota < 0 ? -1
                                        : (int64_t)disk->store.stored +
                                              quota / disk->store.atom;
}

void bgsim_disk_get_stats(BgSimDisk *disk, BgSimDiskStats *stats)
{
    LOCK_GUARD(&disk->lock);

    sim_store_tidy(&disk->store);
    *stats = disk->state.stats;
    stats->volatile_atoms = disk->store.dirty->len;
    stats->stored_atoms = disk->store.stored;
}

/* --- files ---------------------------------------------------------------- */

/* Pieces of files. */
#define PIECE_BYTES (64 * 1024)

static void forget_everything_locked(BgSimDisk *disk)
{
    SimDiskState *s = &disk->state;
    g_autoptr(GArray) chunks = sim_store_chunks(&disk->store);

    for (guint i = 0; i < chunks->len; i++) {
        int64_t first = g_array_index(chunks, int64_t, i) * SIM_CHUNK_ATOMS;

        for (int64_t k = first; k < first + SIM_CHUNK_ATOMS; k++) {
            sim_store_replace(&disk->store,
                              sim_store_atom(&disk->store, k, true),
                              (SimValue){ NULL, 0 });
        }
    }
    disk->store.noise_end = 0;
    if (s->sizes && s->sizes->len > 0) {
        pin_size(s, s->sizes->len - 1);
    }
    s->stable_size = s->size;
}

static int import_fd(BgSimDisk *disk, int fd, int64_t size)
{
    g_autofree uint8_t *buf = g_malloc(PIECE_BYTES);

    for (int64_t at = 0; at < size; at += PIECE_BYTES) {
        size_t bytes = MIN(PIECE_BYTES, size - at);
        ssize_t ret = pread(fd, buf, bytes, at);

        if (ret != (ssize_t)bytes) {
            return ret < 0 ? -errno : -EIO;
        }
        if (!block_buffer_is_zero(buf, bytes)) {
            bgsim_disk_poke(disk, at, bytes, buf);
        }
    }
    return 0;
}

int bgsim_disk_import(BgSimDisk *disk, const char *path, GError **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    int ret;

    if (fd < 0 || fstat(fd, &st) < 0) {
        ret = block_error_errno(errp, errno, "Could not open '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return ret;
    }
    if (st.st_size > bgsim_disk_length(disk) && !disk->config.grows) {
        close(fd);
        return block_error(errp, EFBIG, "'%s' is longer than disk '%s'", path,
                           disk->name);
    }
    WITH_LOCK(&disk->lock) {
        forget_everything_locked(disk);
        if (disk->config.grows) {
            disk->state.size = disk->state.stable_size = st.st_size;
        }
    }
    ret = import_fd(disk, fd, st.st_size);
    close(fd);
    return ret < 0 ? block_error_errno(errp, -ret, "Could not read '%s'", path)
                   : 0;
}

/* Write the atoms of one chunk, as far as they are not zero. */
static int export_chunk(BgSimDisk *disk, int fd, int64_t number)
{
    uint32_t atom = disk->config.atom;
    g_autofree uint8_t *buf = g_malloc(atom);

    for (int64_t i = number * SIM_CHUNK_ATOMS;
         i < (number + 1) * SIM_CHUNK_ATOMS; i++) {
        size_t bytes = CLAMP(disk->state.size - i * atom, 0, atom);

        if (bytes == 0 || sim_store_is_zero(&disk->store, i)) {
            continue;
        }
        bgsim_disk_peek(disk, i * atom, atom, buf);
        if (pwrite(fd, buf, bytes, i * atom) != (ssize_t)bytes) {
            return -errno;
        }
    }
    return 0;
}

static int export_fd(BgSimDisk *disk, int fd)
{
    g_autoptr(GArray) chunks = sim_store_chunks(&disk->store);
    int64_t noisy = (disk->store.noise_end + SIM_CHUNK_ATOMS - 1) /
                    SIM_CHUNK_ATOMS;
    int ret = ftruncate(fd, disk->state.size) < 0 ? -errno : 0;

    for (int64_t i = 0; ret == 0 && i < noisy; i++) {
        ret = export_chunk(disk, fd, i);
    }
    for (guint i = 0; ret == 0 && i < chunks->len; i++) {
        if (g_array_index(chunks, int64_t, i) >= noisy) {
            ret = export_chunk(disk, fd, g_array_index(chunks, int64_t, i));
        }
    }
    return ret;
}

int bgsim_disk_export(BgSimDisk *disk, const char *path, GError **errp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int ret = fd < 0 ? -errno : export_fd(disk, fd);

    if (fd >= 0 && close(fd) < 0 && ret == 0) {
        ret = -errno;
    }
    return ret < 0 ? block_error_errno(errp, -ret, "Could not write disk '%s' "
                                       "to '%s'", disk->name, path)
                   : 0;
}
