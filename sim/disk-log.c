/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a simulated disk was told, as a log in the format of dm-log-writes: a
 * super block, then for each request a sector that says what it is, and its
 * data.  See block/filters/blklogwrites.c for the format.
 */
#include "sim/disk-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION 1
#define SECTOR 512

enum {
    LOG_FLUSH = 1 << 0,
    LOG_FUA = 1 << 1,
    LOG_DISCARD = 1 << 2,
};

typedef struct LogFile {
    int fd;
    int64_t end;      /* bytes written */
    uint64_t entries;
} LogFile;

static void put_le64(uint8_t *p, uint64_t value)
{
    value = GUINT64_TO_LE(value);
    memcpy(p, &value, sizeof(value));
}

static void put_le32(uint8_t *p, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(p, &value, sizeof(value));
}

static int write_at(const LogFile *log, int64_t offset, const void *data,
                    size_t bytes)
{
    ssize_t ret = pwrite(log->fd, data, bytes, offset);

    return ret == (ssize_t)bytes ? 0 : ret < 0 ? -errno : -EIO;
}

static uint64_t flags_of(const SimWrite *write)
{
    switch (write->kind) {
    case SIM_WRITE_FLUSH:
        return LOG_FLUSH;
    case SIM_WRITE_DISCARD:
        return LOG_DISCARD;
    default:
        return write->flags & BDRV_REQ_FUA ? LOG_FUA : 0;
    }
}

/* Zeroes are a hole in the file. */
static int log_write(LogFile *log, const SimWrite *write)
{
    uint8_t sector[SECTOR] = { 0 };
    int ret;

    put_le64(sector, write->offset / SECTOR);
    put_le64(sector + 8, write->bytes / SECTOR);
    put_le64(sector + 16, flags_of(write));
    ret = write_at(log, log->end, sector, SECTOR);
    log->end += SECTOR;
    if (ret == 0 && write->kind == SIM_WRITE_DATA) {
        ret = write_at(log, log->end, write->data, write->bytes);
    }
    if (write->kind == SIM_WRITE_DATA || write->kind == SIM_WRITE_ZERO) {
        log->end += write->bytes;
    }
    log->entries++;
    return ret;
}

static int log_super(const LogFile *log)
{
    uint8_t sector[SECTOR] = { 0 };

    put_le64(sector, LOG_MAGIC);
    put_le64(sector + 8, LOG_VERSION);
    put_le64(sector + 16, log->entries);
    put_le32(sector + 24, SECTOR);
    return write_at(log, 0, sector, SECTOR);
}

static int log_all(LogFile *log, const GPtrArray *writes)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < writes->len; i++) {
        const SimWrite *write = g_ptr_array_index(writes, i);

        if (write) {
            ret = log_write(log, write);
        }
    }
    if (ret == 0 && ftruncate(log->fd, log->end) < 0) {
        ret = -errno;
    }
    return ret < 0 ? ret : log_super(log);
}

int bgsim_disk_export_log(BgSimDisk *disk, const char *path, GError **errp)
{
    LogFile log = { .end = SECTOR };
    int ret;

    if (!disk->state.log) {
        return block_error(errp, ENODATA, "Disk '%s' keeps no log: set "
                           "keep_log in its BgSimDiskConfig", disk->name);
    }
    if (disk->config.request_alignment % SECTOR != 0) {
        return block_error(errp, ENOTSUP, "Disk '%s' takes requests that are "
                           "no whole sectors, which the log cannot hold",
                           disk->name);
    }
    log.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (log.fd < 0) {
        return block_error_errno(errp, errno, "Could not open '%s'", path);
    }
    WITH_LOCK(&disk->lock) {
        ret = log_all(&log, disk->state.log);
    }
    if (close(log.fd) < 0 && ret == 0) {
        ret = -errno;
    }
    return ret < 0 ? block_error_errno(errp, -ret, "Could not write the log of "
                                       "disk '%s' to '%s'", disk->name, path)
                   : 0;
}
