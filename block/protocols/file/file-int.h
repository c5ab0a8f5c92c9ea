/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the driver "file": its state, and what its files share.
 *
 * file.c      options, opening, reopening, permissions, limits
 * handle.c    one descriptor: open(2), checks, what it can do
 * lock.c      locks that other processes see
 * io.c        reads, writes, flushes
 * zero.c      zero writes and discards
 * status.c    length, extents; data-extent.c, what of them is remembered
 * truncate.c  changes of the length, new images
 * copy.c      copies that share space, or that a server does
 */
#ifndef BLOCK_PROTOCOLS_FILE_FILE_INT_H
#define BLOCK_PROTOCOLS_FILE_FILE_INT_H

#include <blockgraph/driver.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "block/protocols/file/data-extent.h"
#include "block/protocols/file/lock.h"
#include "util/aio-serial.h"

/** The option "locking". */
typedef enum FileLocking {
    FILE_LOCKING_AUTO, /* where the file system can */
    FILE_LOCKING_ON,
    FILE_LOCKING_OFF,
} FileLocking;

/** Which file is to be opened, and how. */
typedef struct FileOpenHow {
    const char *node_name; /* for error texts */
    const char *filename;
    const char *beneath;   /* directory, absolute; or NULL */
    bool from_image;       /* an image names it, not the user */
    unsigned flags;        /* BdrvOpenFlags */
    FileLocking locking;
    AioFileMode mode;
} FileOpenHow;

/** One descriptor and what was found out about it. */
typedef struct FileHandle {
    /* Set by file_handle_open(), never changed after; any thread. */
    int fd;
    AioFile *file;
    AioFileMode mode;
    FileLocking locking;
    char *node_name;
    char *filename;
    char *beneath;              /* where the file must be, or NULL */
    bool from_image;            /* an image names it, not the user */
    bool writable;
    bool direct;                /* O_DIRECT: not through the page cache */
    bool is_device;             /* a block device, else a regular file */
    bool is_local;              /* on a file system of this machine: copy.c */
    dev_t dev;                  /* which file it is: the two numbers stat(2) */
    ino_t ino;                  /* gives */
    uint32_t request_alignment; /* of offsets and lengths; power of 2 */
    uint32_t mem_alignment;     /* of buffers; power of 2 */
    uint32_t device_block;      /* logical block of a device, else 0 */

    /* Main context. */
    FileLock lock;
} FileHandle;

/** What a file turned out not to be able to do; bits.  Only ever added. */
typedef enum FileCannot {
    FILE_CANNOT_PUNCH = 1 << 0,      /* fallocate PUNCH_HOLE */
    FILE_CANNOT_ZERO_RANGE = 1 << 1, /* fallocate ZERO_RANGE */
    FILE_CANNOT_ALLOCATE = 1 << 2,   /* fallocate without a mode */
    FILE_CANNOT_DISCARD = 1 << 3,    /* BLKDISCARD */
    FILE_CANNOT_COPY = 1 << 4,       /* copy_file_range */
    FILE_CANNOT_CLONE = 1 << 5,      /* FICLONERANGE */
} FileCannot;

/** The state of a node of the driver "file". */
typedef struct FileState {
    /* Changed by the main context under drain; read inside requests. */
    FileHandle *handle;

    /* Any thread. */
    _Atomic unsigned cannot;          /* FileCannot */
    _Atomic bool lost;                /* a sync has failed: see io.c */
    _Atomic bool cache_used;          /* despite O_DIRECT; only ever set */
    _Atomic uint64_t syncs_begun;
    DataExtent data;                  /* has its own lock; see status.c */

    /* Writes that grow the file hold it shared, allocations exclusive. */
    CoRwlock growth;

    /* Syncs of files that never used the page cache hold it shared; who is
     * the first to use it, exclusive.  Taken after @growth. */
    CoRwlock quick_syncs;

    /* Of copy_file_range() to this file: the kernel locks the target over it,
     * and more at once would spin for that, each in a thread. */
    AioSerial copies;

    /* Guarded by @sync_lock. */
    CoMutex sync_lock;
    uint64_t last_good_sync;          /* number of a sync, from 1 */

    /* Main context. */
    FileHandle *next;                 /* during a reopen, else NULL */
    BlockPerm perm;                   /* what the locks stand for */
} FileState;

/* --- handle.c -------------------------------------------------------- */

/**
 * Open @how->filename, check what it is and what it can do.  With
 * BDRV_O_AUTO_RDONLY the handle may come back not writable.
 *
 * Returns the handle, owned by the caller, or NULL with @errp set.
 *
 * Thread: worker; blocks.
 */
FileHandle *file_handle_open(const FileOpenHow *how, GError **errp);

/** file_handle_open() in a worker thread.  Thread: any.  Yields. */
FileHandle *coroutine_fn file_handle_co_open(const FileOpenHow *how,
                                             GError **errp);

/**
 * Release the locks, close the descriptor, free @handle.  No I/O is in flight.
 * NULL is ignored.  Thread: any but blocks where closing does.
 */
void file_handle_close(FileHandle *handle);

/**
 * The present length of the file or device in bytes, or a negative errno.
 * Thread: worker; blocks.
 */
int64_t file_handle_length(const FileHandle *handle);

/** file_handle_length() in a worker thread.  Thread: any.  Yields. */
int64_t coroutine_fn file_handle_co_length(const FileHandle *handle);

/** Refuse what is neither a regular file nor a block device.  Thread: any. */
int file_check_type(mode_t mode, const char *node_name, const char *filename,
                    GError **errp);

/* --- io.c ------------------------------------------------------------ */

/** Read; the rest of a file that became shorter reads as zero. */
int coroutine_fn file_preadv(BlockDriverState *bs, const BlockIO *io);

/** Write; with FUA to stable storage. */
int coroutine_fn file_pwritev(BlockDriverState *bs, const BlockIO *io);

/** Bring ended writes to stable storage. */
int coroutine_fn file_flush(BlockDriverState *bs);

/**
 * Call before an operation that may go through the page cache even when the
 * file is open for direct I/O.  Thread: any.  May yield.
 */
void coroutine_fn file_use_cache(FileState *s);

/* --- zero.c ---------------------------------------------------------- */

/** Zero write by fallocate; -ENOTSUP where the file cannot. */
int coroutine_fn file_pwrite_zeroes(BlockDriverState *bs, const BlockIO *io);

/** Give the space of a range back; -ENOTSUP where the file cannot. */
int coroutine_fn file_pdiscard(BlockDriverState *bs, const BlockIO *io);

/* --- status.c -------------------------------------------------------- */

/** Length of the file or device. */
int64_t coroutine_fn file_getlength(BlockDriverState *bs);

/** Bytes that the file system holds for the file; 0 for a device. */
int64_t coroutine_fn file_get_allocated_size(BlockDriverState *bs);

/**
 * Data or hole, as the file system says; what it has called data is data until
 * this node makes a hole.
 */
int coroutine_fn file_block_status(BlockDriverState *bs, const BlockIO *io,
                                   BlockExtent *ret);

/** A file has no clusters and no machine state. */
int file_get_info(BlockDriverState *bs, BlockDriverInfo *info);

/* --- truncate.c ------------------------------------------------------ */

/** Change the length; after a failure it is the old one. */
int coroutine_fn file_truncate(BlockDriverState *bs, const BlockTruncate *how,
                               GError **errp);

/** Make a file; one that was made by a failed call is removed again. */
int coroutine_fn file_create(BlockGraph *graph, BlockOptions *options,
                             GError **errp);

/** The options of file_create(). */
extern const BlockOption file_create_options[];

/* --- copy.c ---------------------------------------------------------- */

/** Copy from this node: the other side does it. */
int coroutine_fn file_copy_range_from(BlockDriverState *bs,
                                      const BlockCopyRange *copy);

/** Share space with another node of this driver, or have a server copy. */
int coroutine_fn file_copy_range_to(BlockDriverState *bs,
                                    const BlockCopyRange *copy);

/* -------------------------------------------------------------------------- */

/** Whether @bs was found not to be able to do @what.  Thread: any. */
static inline bool file_cannot(FileState *s, FileCannot what)
{
    return atomic_load_explicit(&s->cannot, memory_order_relaxed) & what;
}

/** Remember that @bs cannot do @what.  Thread: any. */
static inline void file_note_cannot(FileState *s, FileCannot what)
{
    atomic_fetch_or_explicit(&s->cannot, what, memory_order_relaxed);
}

#endif /* BLOCK_PROTOCOLS_FILE_FILE_INT_H */
