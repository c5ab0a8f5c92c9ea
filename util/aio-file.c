/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioFile: disk I/O that is done in full.
 *
 * An engine moves as much as the kernel likes to; here a short transfer is
 * continued.  The place where it goes on is kept in one struct: the number of
 * bytes done, and the piece and the byte inside it that come next.  When a
 * transfer has stopped inside a piece, the rest of that piece is a request of
 * its own, so the caller's vector is never copied or changed.
 */
#include "util/aio-engine.h"
#include "util/sim-mutant.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

struct AioFile {
    /* Set by aio_file_new(), never changed after. */
    int fd;
    AioFileMode mode;
    bool in_memory;             /* on tmpfs or the like */

    /* Any thread; only of files in memory. */
    _Atomic unsigned long_writes; /* that run or are the kernel's to run */
};

/* How far a transfer has come. */
typedef struct Transfer {
    const struct iovec *iov;    /* the piece that comes next */
    int niov;                   /* pieces left, with that one */
    size_t piece_done;          /* bytes of it that are done */
    int64_t offset;             /* in the file, of the next byte */
    int64_t bytes;              /* left */
} Transfer;

AioFile *aio_file_new(int fd, AioFileMode mode)
{
    AioFile *file = g_new0(AioFile, 1);
    struct statfs fs;

    file->fd = fd;
    file->mode = mode;
    file->in_memory = fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC ||
                                                fs.f_type == RAMFS_MAGIC);
    return file;
}

void aio_file_free(AioFile *file)
{
    g_free(file);
}

int aio_file_fd(const AioFile *file)
{
    return file->fd;
}

static int64_t coroutine_fn run_request(AioFile *file, AioRequest *req)
{
    req->fd = file->fd;
    req->in_memory = file->in_memory;
    req->long_writes = file->in_memory ? &file->long_writes : NULL;
    return aio_request_co_run(req, file->mode == AIO_FILE_THREADS);
}

static bool should_retry(int64_t result)
{
    return result == -EINTR || (result == -EAGAIN && !SIM_PLANTED(12));
}

static void transfer_advance(Transfer *t, int64_t done)
{
    t->offset += done;
    t->bytes -= done;
    done += t->piece_done;
    while (t->niov > 0 && (uint64_t)done >= t->iov->iov_len) {
        done -= t->iov->iov_len;
        t->iov++;
        t->niov--;
    }
    t->piece_done = done;
    g_assert(t->bytes >= 0 && (t->niov > 0 || t->bytes == 0));
}

/*
 * Move the next bytes of @t, at least one.  Returns how many were moved, 0 if
 * none can be, or a negative errno.
 */
static int64_t coroutine_fn transfer_step(AioFile *file, Transfer *t, AioOp op,
                                          int flags)
{
    struct iovec rest;
    AioRequest req = {
        .op = op,
        .flags = flags,
        .offset = t->offset,
        .bytes = t->bytes,
        .iov = t->iov,
        .niov = MIN(t->niov, IOV_MAX),
    };
    int64_t ret;

    g_assert(req.niov > 0);
    if (t->piece_done > 0 && !SIM_PLANTED(11)) {
        rest.iov_base = (char *)t->iov->iov_base + t->piece_done;
        rest.iov_len = t->iov->iov_len - t->piece_done;
        req.iov = &rest;
        req.niov = 1;
    }
    do {
        ret = run_request(file, &req);
    } while (should_retry(ret));
    g_assert(ret <= t->bytes);
    if (ret > 0) {
        transfer_advance(t, ret);
    }
    return ret;
}

/* --- reading ------------------------------------------------------------- */

typedef struct EndQuery {
    int fd;
    int64_t offset;
} EndQuery;

/* Worker thread: 1 if the offset is not inside the file. */
static int is_at_end(void *opaque)
{
    const EndQuery *query = opaque;
    struct stat st;

    if (fstat(query->fd, &st) < 0) {
        return -errno;
    }
    return S_ISREG(st.st_mode) && query->offset >= st.st_size;
}

/*
 * With O_DIRECT a file may end in the middle of a block: the read that reaches
 * the end is short, and a further one from there is refused as unaligned.
 */
static int64_t coroutine_fn after_einval(AioFile *file, Transfer *t)
{
    EndQuery query = { .fd = file->fd, .offset = t->offset };
    int ret = aio_co_work(is_at_end, &query);

    return ret == 1 ? 0 : ret < 0 ? ret : -EINVAL;
}

int64_t coroutine_fn aio_file_preadv(AioFile *file, const struct iovec *iov,
                                     int niov, int64_t offset, int64_t bytes)
{
    Transfer t = {
        .iov = iov, .niov = niov, .offset = offset, .bytes = bytes,
    };

    g_assert(bytes >= 0 && offset >= 0);
    while (t.bytes > 0) {
        int64_t ret = transfer_step(file, &t, AIO_OP_READV, 0);

        if (ret == -EINVAL && t.bytes < bytes) {
            ret = after_einval(file, &t);
        }
        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            break;
        }
    }
    return bytes - t.bytes;
}

/* --- writing ------------------------------------------------------------- */

int coroutine_fn aio_file_pwritev(AioFile *file, const struct iovec *iov,
                                  int niov, int64_t offset, int64_t bytes,
                                  bool fua)
{
    Transfer t = {
        .iov = iov, .niov = niov, .offset = offset, .bytes = bytes,
    };
    int flags = fua ? RWF_DSYNC : 0;

    g_assert(bytes >= 0 && offset >= 0);
    while (t.bytes > 0) {
        int64_t ret = transfer_step(file, &t, AIO_OP_WRITEV, flags);

        if (flags && (ret == -EOPNOTSUPP || ret == -EINVAL)) {
            flags = 0;          /* old kernel or file system: see below */
            continue;
        }
        if (ret <= 0) {
            return ret < 0 ? ret : -EIO;
        }
    }
    return fua && !flags ? aio_file_fdatasync(file) : 0;
}

int coroutine_fn aio_file_fdatasync(AioFile *file)
{
    AioRequest req = { .op = AIO_OP_FDATASYNC };

    return run_request(file, &req);
}

int coroutine_fn aio_file_fallocate(AioFile *file, int mode, int64_t offset,
                                    int64_t bytes)
{
    int64_t ret;

    do {
        AioRequest req = {
            .op = AIO_OP_FALLOCATE,
            .flags = mode,
            .offset = offset,
            .bytes = bytes,
        };

        ret = run_request(file, &req);
    } while (should_retry(ret));
    return ret;
}
