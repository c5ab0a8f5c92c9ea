/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blklogwrites: records what is written, in the format of dm-log-writes.
 *
 *   sector 0      super block: how many entries count
 *   sector 1      entry: what, where, how long, flags
 *   then          its data, if it has any
 *   then          the next entry ...
 *
 * Sectors have "log-sector-size" bytes, in the log as in the entries.  The
 * kernel documents the format in device-mapper/log-writes.rst; its tools replay
 * the log up to any entry, so that what a crash at that moment would leave can
 * be looked at.
 *
 * L1  A write, zero write or discard gets its place in the log when it has
 *     ended well in the file: what is in the log has happened.
 * L2  A flush gets its place before it begins: what stands before it had ended,
 *     so the flush covers it; what ends during the flush comes after it.
 * L3  The super block counts only entries that are in the log with their data,
 *     as have all before them.
 *     A flush ends well only when its own entry is counted, so it waits for
 *     those before it.
 * L4  An entry that cannot be written leaves a hole that nothing can be counted
 *     beyond.  From then on nothing is written to the file any more: what is in
 *     the file is in the log, but for the requests that failed.
 */
#include "block/drivers.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/co-queue.h"
#include "util/list.h"
#include "util/lock.h"
#include "util/untrusted.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION 1

#define SECTOR_BYTES_MIN 512
#define SECTOR_BYTES_MAX (8 << 20)

/*
 * Entries that say nothing, in a log that is to be continued: one for each
 * flush that failed.  A hole in a file looks like very many of them.
 */
#define EMPTY_ENTRIES_MAX 65536

enum {
    LOG_FLUSH = 1 << 0,
    LOG_FUA = 1 << 1,
    LOG_DISCARD = 1 << 2,
    LOG_MARK = 1 << 3,
    LOG_FLAGS = LOG_FLUSH | LOG_FUA | LOG_DISCARD | LOG_MARK,
};

/* On disk, little-endian; the rest of the sector is zero. */
typedef struct LogSuper {
    uint64_t magic;
    uint64_t version;
    uint64_t nr_entries;
    uint32_t sector_bytes;
} __attribute__((packed)) LogSuper;

typedef struct LogHeader {
    uint64_t sector;     /* in the file */
    uint64_t nr_sectors; /* so many follow as data, but for discards */
    uint64_t flags;
    uint64_t data_len;   /* of the text of a mark */
} __attribute__((packed)) LogHeader;

_Static_assert(sizeof(LogSuper) == 28 && sizeof(LogHeader) == 32,
               "the layout of dm-log-writes");

typedef struct LogWritesOptions {
    int64_t sector_bytes;
    bool append;
    int64_t super_update_interval;
} LogWritesOptions;

typedef struct LogWrites {
    /* Set by open. */
    BdrvChild *log;
    int64_t sector_bytes;
    uint64_t super_update_interval;

    /* Guarded by @lock; any thread. */
    Lock lock;
    int64_t next_sector;   /* of the log, for the next entry */
    uint64_t nr_entries;   /* that have a place */
    ListHead writing;      /* LogEntry.link, by place */
    CoQueue written;       /* flushes that wait for entries before theirs */
    uint64_t first_failed; /* entry that is missing (L4), or UINT64_MAX */

    /* Guarded by @super_lock; any thread. */
    CoMutex super_lock;
    uint64_t super_entries; /* what the super block says */
} LogWrites;

/* An entry on its way into the log; on the stack of its request. */
typedef struct LogEntry {
    /* Set by the request. */
    int64_t offset;
    int64_t bytes;
    uint64_t flags;
    BlockIOVec *iov; /* NULL: zeroes, or no data */

    /* Set with its place. */
    ListHead link;
    uint64_t index;
    int64_t sector;
} LogEntry;

static const BlockOption log_writes_options[] = {
    { .name = "file", .type = BLOCK_OPTION_CHILD,
      .help = "node that requests go on to" },
    { .name = "log", .type = BLOCK_OPTION_CHILD,
      .help = "node that the log is written to" },
    { .name = "log-sector-size", .type = BLOCK_OPTION_SIZE, .def = "512",
      .min = SECTOR_BYTES_MIN, .max = SECTOR_BYTES_MAX,
      .offset = offsetof(LogWritesOptions, sector_bytes),
      .help = "bytes of a sector of the log, a power of 2" },
    { .name = "log-append", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(LogWritesOptions, append),
      .help = "go on after the entries that the log has" },
    { .name = "log-super-update-interval", .type = BLOCK_OPTION_NUMBER,
      .def = "4096", .min = 1, .max = INT64_MAX,
      .offset = offsetof(LogWritesOptions, super_update_interval),
      .help = "entries after which the super block is updated" },
    { .type = BLOCK_OPTION_END },
};

/* --- the super block ------------------------------------------------------ */

/* A sector of zeroes that the log takes as it is.  block_aligned_free(). */
static uint8_t *sector_new(LogWrites *s)
{
    const BlockLimits *log = bdrv_limits(bdrv_child_bs(s->log));
    uint8_t *sector = block_aligned_alloc(log->opt_mem_alignment,
                                          s->sector_bytes);

    return memset(sector, 0, s->sector_bytes);
}

/* L3: how many entries are in the log, with all before them. */
static uint64_t entries_done(LogWrites *s)
{
    uint64_t done;

    LOCK_GUARD(&s->lock);
    done = s->nr_entries;
    if (!list_empty(&s->writing)) {
        done = LIST_ENTRY(s->writing.next, LogEntry, link)->index;
    }
    return MIN(done, s->first_failed);
}

static int coroutine_fn write_super_locked(LogWrites *s)
{
    uint8_t *sector = sector_new(s);
    uint64_t done = entries_done(s);
    LogSuper super = {
        .magic = GUINT64_TO_LE(LOG_MAGIC),
        .version = GUINT64_TO_LE(LOG_VERSION),
        .nr_entries = GUINT64_TO_LE(done),
        .sector_bytes = GUINT32_TO_LE(s->sector_bytes),
    };
    int ret;

    g_assert(co_mutex_is_mine(&s->super_lock));
    memcpy(sector, &super, sizeof(super));
    ret = bdrv_co_pwrite(s->log, 0, s->sector_bytes, sector, 0);
    block_aligned_free(sector);
    if (ret == 0) {
        s->super_entries = done;
    }
    return ret;
}

/* Count what is in the log by now. */
static int coroutine_fn update_super(LogWrites *s)
{
    int ret = 0;

    co_mutex_lock(&s->super_lock);
    if (entries_done(s) > s->super_entries) {
        ret = write_super_locked(s);
    }
    co_mutex_unlock(&s->super_lock);
    return ret;
}

/* --- entries -------------------------------------------------------------- */

/* L4: whether the log is whole. */
static int check_log(LogWrites *s)
{
    LOCK_GUARD(&s->lock);

    return s->first_failed == UINT64_MAX ? 0 : -EIO;
}

static int64_t data_bytes(const LogEntry *entry)
{
    return entry->flags & LOG_DISCARD ? 0 : entry->bytes;
}

/* Give @entry its place.  -ENOSPC when the log would be too long. */
static int entry_place(LogWrites *s, LogEntry *entry)
{
    int64_t sectors = 1 + data_bytes(entry) / s->sector_bytes;

    LOCK_GUARD(&s->lock);
    if (sectors > BDRV_MAX_LENGTH / s->sector_bytes - s->next_sector) {
        s->first_failed = MIN(s->first_failed, s->nr_entries);
        return -ENOSPC;
    }
    entry->index = s->nr_entries++;
    entry->sector = s->next_sector;
    s->next_sector += sectors;
    list_append(&s->writing, &entry->link);
    return 0;
}

static int coroutine_fn write_header_and_data(LogWrites *s, LogEntry *entry,
                                              uint8_t *header)
{
    struct iovec head = { .iov_base = header, .iov_len = s->sector_bytes };
    int64_t offset = entry->sector * s->sector_bytes;
    int64_t bytes = data_bytes(entry);
    BlockIOVecSlice slice;
    int ret;

    if (entry->iov) {
        ret = bdrv_co_pwritev(s->log, offset, s->sector_bytes + bytes,
                              block_iov_slice_padded(&slice, &head, entry->iov,
                                                     0, bytes, NULL), 0);
        block_iov_slice_clear(&slice);
        return ret;
    }
    ret = bdrv_co_pwrite(s->log, offset, s->sector_bytes, header, 0);
    if (ret == 0 && bytes > 0) {
        ret = bdrv_co_pwrite_zeroes(s->log, offset + s->sector_bytes, bytes,
                                    0);
    }
    return ret;
}

/* Write @entry to its place. */
static int coroutine_fn entry_write(LogWrites *s, LogEntry *entry)
{
    uint8_t *sector = sector_new(s);
    LogHeader header = {
        .sector = GUINT64_TO_LE(entry->offset / s->sector_bytes),
        .nr_sectors = GUINT64_TO_LE(entry->bytes / s->sector_bytes),
        .flags = GUINT64_TO_LE(entry->flags),
    };
    int ret;

    g_assert(entry->offset % s->sector_bytes == 0);
    g_assert(entry->bytes % s->sector_bytes == 0);
    memcpy(sector, &header, sizeof(header));
    ret = write_header_and_data(s, entry, sector);
    block_aligned_free(sector);
    WITH_LOCK(&s->lock) {
        list_remove(&entry->link);
        if (ret < 0) {
            s->first_failed = MIN(s->first_failed, entry->index);
        }
        co_queue_restart_all(&s->written);
    }
    return ret;
}

/* Wait for all entries before the one at @index.  -EIO if one is missing. */
static int coroutine_fn wait_for_entries_before(LogWrites *s, uint64_t index)
{
    LOCK_GUARD(&s->lock);
    while (!list_empty(&s->writing) &&
           LIST_ENTRY(s->writing.next, LogEntry, link)->index < index) {
        co_queue_wait_locked(&s->written, &s->lock);
    }
    return s->first_failed < index ? -EIO : 0;
}

/* L1: log a request that has ended well. */
static int coroutine_fn log_ended(LogWrites *s, LogEntry *entry)
{
    int ret = entry_place(s, entry);

    if (ret == 0) {
        ret = entry_write(s, entry);
    }
    if (ret == 0 && (entry->index + 1) % s->super_update_interval == 0) {
        ret = update_super(s);
    }
    return ret;
}

/* --- going on after an old log -------------------------------------------- */

/* A log that is to be appended to, as it is read. */
typedef struct OldLog {
    const char *what; /* begins error texts */
    BdrvChild *child;
    int64_t sector_bytes;
    int64_t nr_sectors; /* length of the log */
    unsigned nr_empty;  /* entries without flags and data, so far */
} OldLog;

static int coroutine_fn read_old(const OldLog *old, int64_t offset, void *buf,
                                 size_t bytes, GError **errp)
{
    int ret = bdrv_co_pread(old->child, offset, bytes, buf, 0);

    if (ret < 0) {
        return block_error_errno(errp, -ret, "%s: could not read the log '%s' "
                                 "at %" G_GINT64_FORMAT, old->what,
                                 bdrv_filename(bdrv_child_bs(old->child)),
                                 offset);
    }
    return 0;
}

static bool sector_bytes_valid(int64_t bytes)
{
    return bytes >= SECTOR_BYTES_MIN && bytes <= SECTOR_BYTES_MAX &&
           (bytes & (bytes - 1)) == 0;
}

static int take_sector_bytes(OldLog *old, Untrusted bytes, GError **errp)
{
    if (!untrusted_at_most(bytes, SECTOR_BYTES_MAX, &old->sector_bytes) ||
        !sector_bytes_valid(old->sector_bytes)) {
        return block_error(errp, EINVAL, "%s: the log has sectors of %"
                           G_GUINT64_FORMAT " bytes; allowed are powers of 2 "
                           "from %d to %d", old->what,
                           untrusted_verbatim(bytes), SECTOR_BYTES_MIN,
                           SECTOR_BYTES_MAX);
    }
    return 0;
}

static int coroutine_fn read_old_super(OldLog *old, Untrusted *ret_nr_entries,
                                       GError **errp)
{
    int64_t length = bdrv_length(bdrv_child_bs(old->child));
    Untrusted version;
    LogSuper super;
    int ret = read_old(old, 0, &super, sizeof(super), errp);

    if (ret < 0) {
        return ret;
    }
    if (!untrusted_is(untrusted_le64(&super.magic), LOG_MAGIC)) {
        return block_error(errp, EINVAL, "%s: log-append=on, but the log does "
                           "not begin with a super block", old->what);
    }
    version = untrusted_le64(&super.version);
    if (!untrusted_is(version, LOG_VERSION)) {
        return block_error(errp, ENOTSUP, "%s: the log has version %"
                           G_GUINT64_FORMAT ", not %d", old->what,
                           untrusted_verbatim(version), LOG_VERSION);
    }
    ret = take_sector_bytes(old, untrusted_le32(&super.sector_bytes), errp);
    if (ret < 0) {
        return ret;
    }
    old->nr_sectors = (length + old->sector_bytes - 1) / old->sector_bytes;
    *ret_nr_entries = untrusted_le64(&super.nr_entries);
    return 0;
}

/* The sector behind the entry at @sector. */
static int coroutine_fn skip_entry(OldLog *old, int64_t *sector,
                                   uint64_t index, GError **errp)
{
    Untrusted nr_sectors;
    LogHeader header;
    uint64_t flags;
    int64_t nr;
    int ret;

    if (*sector >= old->nr_sectors) {
        return block_error(errp, EINVAL, "%s: the log ends before its entry %"
                           G_GUINT64_FORMAT, old->what, index);
    }
    ret = read_old(old, *sector * old->sector_bytes, &header, sizeof(header),
                   errp);
    if (ret < 0) {
        return ret;
    }
    flags = untrusted_word(untrusted_le64(&header.flags));
    nr_sectors = untrusted_le64(&header.nr_sectors);
    if (flags & ~(uint64_t)LOG_FLAGS) {
        return block_error(errp, ENOTSUP, "%s: entry %" G_GUINT64_FORMAT
                           " of the log has unknown flags 0x%" PRIx64,
                           old->what, index, flags);
    }
    if (flags == 0 && untrusted_is(nr_sectors, 0) &&
        ++old->nr_empty > EMPTY_ENTRIES_MAX) {
        return block_error(errp, EINVAL, "%s: more than %d entries of the log "
                           "are empty", old->what, EMPTY_ENTRIES_MAX);
    }
    *sector += 1;
    if (flags & LOG_DISCARD) {
        return 0;
    }
    if (!untrusted_at_most(nr_sectors, old->nr_sectors - *sector, &nr)) {
        return block_error(errp, EINVAL, "%s: the log ends before the data of "
                           "its entry %" G_GUINT64_FORMAT, old->what, index);
    }
    *sector += nr;
    return 0;
}

/*
 * The walk is bounded: each entry takes a sector of the log at least, and few
 * of these sectors can be holes.
 */
static int coroutine_fn open_old(LogWrites *s, const char *what, GError **errp)
{
    OldLog old = { .what = what, .child = s->log };
    Untrusted nr_entries = untrusted(0);
    uint64_t nr = 0;
    int64_t sector = 1;
    int ret = read_old_super(&old, &nr_entries, errp);

    while (ret == 0 && untrusted_above(nr_entries, nr)) {
        ret = skip_entry(&old, &sector, nr, errp);
        nr++;
    }
    if (ret < 0) {
        return ret;
    }
    s->sector_bytes = old.sector_bytes;
    s->next_sector = sector;
    s->nr_entries = nr;
    s->super_entries = nr;
    return 0;
}

/* --- control -------------------------------------------------------------- */

static int coroutine_fn open_log(BlockDriverState *bs,
                                 const LogWritesOptions *o, const char *what,
                                 GError **errp)
{
    LogWrites *s = bdrv_opaque(bs);
    int ret = 0;

    if (o->append) {
        return open_old(s, what, errp);
    }
    s->sector_bytes = o->sector_bytes;
    s->next_sector = 1;
    if (bdrv_is_read_only(bs)) {
        return 0;
    }
    /* An older log is none from here on. */
    co_mutex_lock(&s->super_lock);
    ret = write_super_locked(s);
    co_mutex_unlock(&s->super_lock);
    if (ret < 0) {
        return block_error_errno(errp, -ret, "%s: could not write the super "
                                 "block of the log '%s'", what,
                                 bdrv_filename(bdrv_child_bs(s->log)));
    }
    return 0;
}

static int coroutine_fn log_writes_open(BlockDriverState *bs,
                                        BlockOptions *options, unsigned flags,
                                        GError **errp)
{
    LogWrites *s = bdrv_opaque(bs);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver "
                                            "'blklogwrites')",
                                            bdrv_node_name(bs));
    bool has_sector_size = block_options_has(options, "log-sector-size");
    LogWritesOptions o;
    int ret = block_options_absorb(options, log_writes_options, &o, what,
                                   errp);

    if (ret < 0) {
        return ret;
    }
    if (o.append && has_sector_size) {
        return block_error(errp, EINVAL, "%s: log-append=on and "
                           "log-sector-size cannot be used together: the log "
                           "has its sector size", what);
    }
    if (!sector_bytes_valid(o.sector_bytes)) {
        return block_error(errp, EINVAL, "%s: option 'log-sector-size' (%"
                           G_GINT64_FORMAT ") must be a power of 2", what,
                           o.sector_bytes);
    }
    lock_init(&s->lock, LOCK_RANK_DRIVER);
    list_init(&s->writing);
    co_queue_init(&s->written);
    co_mutex_init(&s->super_lock);
    s->first_failed = UINT64_MAX;
    s->super_update_interval = o.super_update_interval;
    if (!bdrv_co_open_child(bs, options, "file",
                            BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                            errp)) {
        return -EINVAL;
    }
    s->log = bdrv_co_open_child(bs, options, "log", BDRV_CHILD_METADATA, true,
                                errp);
    return s->log ? open_log(bs, &o, what, errp) : -EINVAL;
}

static void coroutine_fn log_writes_close(BlockDriverState *bs)
{
    LogWrites *s = bdrv_opaque(bs);
    int ret;

    g_assert(list_empty(&s->writing));
    if (bdrv_is_read_only(bs)) {
        return;
    }
    ret = update_super(s);
    if (ret < 0) {
        g_warning("Node '%s': could not update the super block of the log: %s",
                  bdrv_node_name(bs), g_strerror(-ret));
    }
}

static void log_writes_refresh_limits(BlockDriverState *bs,
                                      BlockLimits *limits)
{
    LogWrites *s = bdrv_opaque(bs);

    /* The log knows whole sectors only. */
    limits->request_alignment = MAX(limits->request_alignment,
                                    (uint32_t)s->sector_bytes);
}

/* --- data ----------------------------------------------------------------- */

static int coroutine_fn log_writes_pwritev(BlockDriverState *bs,
                                           const BlockIO *io)
{
    LogWrites *s = bdrv_opaque(bs);
    LogEntry entry = { .offset = io->offset, .bytes = io->bytes,
                       .iov = io->iov,
                       .flags = io->flags & BDRV_REQ_FUA ? LOG_FUA : 0 };
    int ret = check_log(s);

    if (ret == 0) {
        ret = bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                              io->iov, io->flags);
    }
    return ret < 0 ? ret : log_ended(s, &entry);
}

static int coroutine_fn log_writes_pwrite_zeroes(BlockDriverState *bs,
                                                 const BlockIO *io)
{
    LogWrites *s = bdrv_opaque(bs);
    LogEntry entry = { .offset = io->offset, .bytes = io->bytes,
                       .flags = io->flags & BDRV_REQ_FUA ? LOG_FUA : 0 };
    int ret = check_log(s);

    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset,
                                    io->bytes,
                                    io->flags & ~BDRV_REQ_ZERO_WRITE);
    }
    return ret < 0 ? ret : log_ended(s, &entry);
}

static int coroutine_fn log_writes_pdiscard(BlockDriverState *bs,
                                            const BlockIO *io)
{
    LogWrites *s = bdrv_opaque(bs);
    LogEntry entry = { .offset = io->offset, .bytes = io->bytes,
                       .flags = LOG_DISCARD };
    int ret = check_log(s);

    if (ret == 0) {
        ret = bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
    }
    return ret < 0 ? ret : log_ended(s, &entry);
}

static int coroutine_fn log_writes_flush(BlockDriverState *bs)
{
    LogWrites *s = bdrv_opaque(bs);
    LogEntry entry = { .flags = LOG_FLUSH };
    int file_ret;
    int ret = check_log(s);

    if (ret == 0) {
        ret = entry_place(s, &entry);                           /* L2 */
    }
    if (ret < 0) {
        return ret;
    }
    file_ret = bdrv_co_flush(bdrv_child_bs(bdrv_filter_child(bs)));
    if (file_ret < 0) {
        entry.flags = 0; /* its place is taken by an entry of no sectors */
    }
    ret = entry_write(s, &entry);
    if (file_ret < 0 || ret < 0) {
        return file_ret < 0 ? file_ret : ret;
    }
    ret = wait_for_entries_before(s, entry.index);              /* L3 */
    if (ret < 0) {
        return ret;
    }
    /* Entries are in storage before they count; the core flushes the log
     * again after us, for the super block. */
    ret = bdrv_co_flush(bdrv_child_bs(s->log));
    return ret < 0 ? ret : update_super(s);
}

/* The log has no word for the length. */
static int coroutine_fn log_writes_truncate(BlockDriverState *bs,
                                            const BlockTruncate *how,
                                            GError **errp)
{
    return bdrv_co_truncate(bdrv_filter_child(bs), how, errp);
}

const BlockDriver block_driver_blklogwrites = {
    .struct_size = sizeof(BlockDriver),
    .name = "blklogwrites",
    .kind = BLOCK_DRIVER_FILTER,
    .sees = BLOCK_SEES_WRITES,
    .state_size = sizeof(LogWrites),
    .options = log_writes_options,
    .open = log_writes_open,
    .close = log_writes_close,
    .refresh_limits = log_writes_refresh_limits,
    .pwritev = log_writes_pwritev,
    .pwrite_zeroes = log_writes_pwrite_zeroes,
    .pdiscard = log_writes_pdiscard,
    .flush = log_writes_flush,
    .truncate = log_writes_truncate,
};
