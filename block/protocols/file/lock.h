/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks: who uses a file for what, told to other processes.
 *
 * Each permission bit has two bytes of the file.  A read lock on the first
 * (100 + bit) says "I use this permission", one on the second (200 + bit) "I
 * do not share it".  Nobody holds a write lock; to ask whether one could be
 * had is to ask whether anybody else holds the byte.  QEMU uses the same
 * bytes, so it and this library keep each other out.
 *
 * The locks belong to the open file description (F_OFD_SETLK), not to the
 * process: two nodes on one file keep each other out as two processes do.
 *
 * All functions are called in the main context, or by the one thread that
 * makes or frees the descriptor, and do not yield.
 */
#ifndef BLOCK_PROTOCOLS_FILE_LOCK_H
#define BLOCK_PROTOCOLS_FILE_LOCK_H

#include <blockgraph/block.h>

/** The locks that one descriptor holds. */
typedef struct FileLock {
    /* Set by file_lock_init(). */
    int fd;
    bool enabled;          /* false: nothing is ever locked */
    const char *node_name; /* for error texts; both the owner's */
    const char *filename;

    /* Bits of BLK_PERM_ALL. */
    uint64_t used;         /* bytes 100 + bit that are locked */
    uint64_t unshared;     /* bytes 200 + bit that are locked */
} FileLock;

/** What a node does that has no user: nothing is used, all is shared. */
extern const BlockPerm file_lock_nothing;

/**
 * Whether locks of open file descriptions work on @fd.
 *
 * Returns 0; -ENOTSUP where kernel or file system do not have them, or
 * another negative errno when the question failed.
 */
int file_lock_probe(int fd);

/**
 * Hold the locks for @perm as well as those that are held.  Whether others
 * are in the way is not looked at.
 *
 * Returns 0, or a negative errno with @errp set; then the locks are those
 * that were held before.
 */
int file_lock_extend(FileLock *lock, const BlockPerm *perm, GError **errp);

/**
 * Check that no other description uses what @perm does not share, nor refuses
 * to share what @perm uses.  The locks for @perm are held already, so that of
 * two that come at the same time at least one sees the other.
 *
 * Returns 0, or a negative errno (-EAGAIN: somebody is in the way) with @errp
 * naming the permission, the node and the file.
 */
int file_lock_check(const FileLock *lock, const BlockPerm *perm,
                    GError **errp);

/** Release all locks but those for @perm.  Cannot fail. */
void file_lock_reduce(FileLock *lock, const BlockPerm *perm);

/**
 * Release all locks of a descriptor that is about to be closed, which would
 * release them too, but only when nobody holds the file any more.
 */
void file_lock_release(FileLock *lock);

#endif /* BLOCK_PROTOCOLS_FILE_LOCK_H */
