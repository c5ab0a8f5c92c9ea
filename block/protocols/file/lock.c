/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks; see lock.h for what they mean.
 */
#include "block/protocols/file/lock.h"

#include <errno.h>
#include <fcntl.h>

/* Where the bytes of the bits begin.  QEMU has the same numbers. */
#define LOCK_BYTE_USED 100
#define LOCK_BYTE_UNSHARED 200
#define NR_PERM_BITS 4

_Static_assert(BLK_PERM_ALL == (1 << NR_PERM_BITS) - 1, "a byte for each bit");
_Static_assert(BLK_PERM_CONSISTENT_READ == 1 << 0 && BLK_PERM_WRITE == 1 << 1 &&
                   BLK_PERM_WRITE_UNCHANGED == 1 << 2 &&
                   BLK_PERM_RESIZE == 1 << 3,
               "the order of bits is seen by other programs");

const BlockPerm file_lock_nothing = { .used = 0, .shared = BLK_PERM_ALL };

static struct flock one_byte(off_t byte, short type)
{
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET,
                           .l_start = byte, .l_len = 1 };
}

static int set_byte(int fd, off_t byte, short type)
{
    struct flock fl = one_byte(byte, type);
    int ret;

    do {
        ret = fcntl(fd, F_OFD_SETLK, &fl);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0) {
        return errno == EACCES ? -EAGAIN : -errno;
    }
    return 0;
}

/* Whether another description holds @byte: 1, 0, or a negative errno. */
static int byte_is_taken(int fd, off_t byte)
{
    struct flock fl = one_byte(byte, F_WRLCK);

    if (fcntl(fd, F_OFD_GETLK, &fl) < 0) {
        return -errno;
    }
    return fl.l_type != F_UNLCK;
}

int file_lock_probe(int fd)
{
    int ret = byte_is_taken(fd, LOCK_BYTE_USED);

    switch (ret) {
    case -EINVAL: /* a kernel before 3.15 */
    case -ENOLCK:
    case -ENOSYS:
    case -EOPNOTSUPP:
        return -ENOTSUP;
    default:
        return MIN(ret, 0);
    }
}

static uint64_t unshared_bits(const BlockPerm *perm)
{
    return ~perm->shared & BLK_PERM_ALL;
}

/* --- taking and releasing ------------------------------------------------- */

/* Lock the bytes of @bits at @base that are not in *@held yet. */
static int lock_bits(FileLock *lock, off_t base, uint64_t bits,
                     uint64_t *held, GError **errp)
{
    for (unsigned i = 0; i < NR_PERM_BITS; i++) {
        uint64_t bit = UINT64_C(1) << i;
        int ret;

        if (!(bits & ~*held & bit)) {
            continue;
        }
        ret = set_byte(lock->fd, base + i, F_RDLCK);
        if (ret < 0) {
            return block_error_errno(errp, -ret, "Node '%s': could not lock "
                                     "byte %d of file '%s'", lock->node_name,
                                     (int)base + (int)i, lock->filename);
        }
        *held |= bit;
    }
    return 0;
}

/* Unlock the bytes of *@held that are not in @keep. */
static void unlock_bits(FileLock *lock, off_t base, uint64_t keep,
                        uint64_t *held)
{
    for (unsigned i = 0; i < NR_PERM_BITS; i++) {
        uint64_t bit = UINT64_C(1) << i;
        int ret;

        if (!(*held & ~keep & bit)) {
            continue;
        }
        ret = set_byte(lock->fd, base + i, F_UNLCK);
        if (ret < 0) {
            /* Too much stays locked, which is safe; closing releases it. */
            g_warning("Node '%s': could not unlock byte %d of file '%s': %s",
                      lock->node_name, (int)base + (int)i, lock->filename,
                      g_strerror(-ret));
            continue;
        }
        *held &= ~bit;
    }
}

int file_lock_extend(FileLock *lock, const BlockPerm *perm, GError **errp)
{
    BlockPerm before = { .used = lock->used,
                         .shared = ~lock->unshared & BLK_PERM_ALL };
    int ret;

    if (!lock->enabled) {
        return 0;
    }
    ret = lock_bits(lock, LOCK_BYTE_USED, perm->used, &lock->used, errp);
    if (ret == 0) {
        ret = lock_bits(lock, LOCK_BYTE_UNSHARED, unshared_bits(perm),
                        &lock->unshared, errp);
    }
    if (ret < 0) {
        file_lock_reduce(lock, &before);
    }
    return ret;
}

void file_lock_reduce(FileLock *lock, const BlockPerm *perm)
{
    unlock_bits(lock, LOCK_BYTE_USED, perm->used, &lock->used);
    unlock_bits(lock, LOCK_BYTE_UNSHARED, unshared_bits(perm),
                &lock->unshared);
}

void file_lock_release(FileLock *lock)
{
    struct flock fl = one_byte(LOCK_BYTE_USED, F_UNLCK);

    fl.l_len = LOCK_BYTE_UNSHARED + NR_PERM_BITS - LOCK_BYTE_USED;
    if (lock->used || lock->unshared) {
        fcntl(lock->fd, F_OFD_SETLK, &fl);
    }
    lock->used = lock->unshared = 0;
}

/* --- looking at others ---------------------------------------------------- */

/* Check that nobody else holds one of @bits at @base. */
static int check_bits(const FileLock *lock, off_t base, uint64_t bits,
                      const char *kind, GError **errp)
{
    for (unsigned i = 0; i < NR_PERM_BITS; i++) {
        g_autofree char *name = bdrv_perm_names(UINT64_C(1) << i);
        int ret;

        if (!(bits & (UINT64_C(1) << i))) {
            continue;
        }
        ret = byte_is_taken(lock->fd, base + i);
        if (ret < 0) {
            return block_error_errno(errp, -ret, "Node '%s': could not ask "
                                     "for locks of file '%s'",
                                     lock->node_name, lock->filename);
        }
        if (ret > 0) {
            return block_error(errp, EAGAIN, "Node '%s': Failed to get %s\"%s\" "
                               "lock on file '%s': is another process using "
                               "the image?", lock->node_name, kind, name,
                               lock->filename);
        }
    }
    return 0;
}

int file_lock_check(const FileLock *lock, const BlockPerm *perm,
                    GError **errp)
{
    int ret;

    if (!lock->enabled) {
        return 0;
    }
    ret = check_bits(lock, LOCK_BYTE_UNSHARED, perm->used, "", errp);
    if (ret == 0) {
        ret = check_bits(lock, LOCK_BYTE_USED, unshared_bits(perm), "shared ",
                         errp);
    }
    return ret;
}
