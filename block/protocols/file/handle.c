/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One descriptor of a file or block device.
 *
 * Everything here may block: it runs in a worker thread, on a handle that
 * nobody else knows yet or any more.
 *
 * The file is opened with O_NONBLOCK, so that a FIFO or a device without a
 * medium cannot hold us, and only then looked at.  The flag is taken away
 * before I/O: io_uring would take it as a wish to get EAGAIN.
 */
#include "block/protocols/file/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Alignments that direct I/O may ask for. */
#define ALIGN_MIN 512
#define ALIGN_MAX 4096

#define OPEN_TRIES 32

/* --- what it is ----------------------------------------------------------- */

static const char *type_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    case S_IFCHR:
        return "a character device";
    default:
        return "of an unknown type";
    }
}

int file_check_type(mode_t mode, const char *node_name, const char *filename,
                    GError **errp)
{
    if (S_ISREG(mode) || S_ISBLK(mode)) {
        return 0;
    }
    return block_error(errp, S_ISDIR(mode) ? EISDIR : EINVAL,
                       "Node '%s': '%s' is %s, not a regular file or block "
                       "device", node_name, filename, type_name(mode));
}

/* What file systems of the kernel's own show is no image, and to read it may
 * tell secrets, or do something. */
static int check_not_kernel_fs(const FileHandle *h, GError **errp)
{
    static const uint32_t types[] = {
        PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC,
        SECURITYFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
        EFIVARFS_MAGIC, PSTOREFS_MAGIC, SELINUX_MAGIC, BPF_FS_MAGIC,
    };
    struct statfs fs;

    if (fstatfs(h->fd, &fs) < 0) {
        return block_error_errno(errp, errno, "Node '%s': could not find out "
                                 "where file '%s' is", h->node_name,
                                 h->filename);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        if ((uint32_t)fs.f_type == types[i]) {
            return block_error(errp, EINVAL, "Node '%s': '%s', which an image "
                               "names, is a file of the kernel's own",
                               h->node_name, h->filename);
        }
    }
    return 0;
}

/* One whose files pass through this machine's page cache and nowhere else. */
static bool is_on_local_fs(int fd)
{
    static const uint32_t types[] = {
        EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
        TMPFS_MAGIC, RAMFS_MAGIC,
    };
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        if ((uint32_t)fs.f_type == types[i]) {
            return true;
        }
    }
    return false;
}

/* Look at the open file: type, identity, what a device says of itself. */
static int inspect(FileHandle *h, GError **errp)
{
    struct stat st;
    int value = 0;
    int ret;

    if (fstat(h->fd, &st) < 0) {
        return block_error_errno(errp, errno, "Node '%s': could not stat "
                                 "file '%s'", h->node_name, h->filename);
    }
    ret = file_check_type(st.st_mode, h->node_name, h->filename, errp);
    if (ret == 0 && h->from_image && S_ISBLK(st.st_mode)) {
        ret = block_error(errp, EPERM, "Node '%s': '%s', which an image names, "
                          "is a block device, which only the user may name; "
                          "give it explicitly", h->node_name, h->filename);
    }
    if (ret == 0 && h->from_image) {
        ret = check_not_kernel_fs(h, errp);
    }
    if (ret < 0) {
        return ret;
    }
    h->is_device = S_ISBLK(st.st_mode);
    h->dev = st.st_dev;
    h->ino = st.st_ino;
    if (!h->is_device) {
        h->is_local = is_on_local_fs(h->fd);
        return 0;
    }
    if (ioctl(h->fd, BLKSSZGET, &value) < 0) {
        return block_error_errno(errp, errno, "Node '%s': could not get the "
                                 "block size of device '%s'", h->node_name,
                                 h->filename);
    }
    if (value < ALIGN_MIN || value > BDRV_MAX_ALIGNMENT ||
        (value & (value - 1))) {
        return block_error(errp, EINVAL, "Node '%s': device '%s' has a block "
                           "size of %d bytes", h->node_name, h->filename,
                           value);
    }
    h->device_block = value;
    return 0;
}

/* Whether a device that was opened for writing refuses writes: 1, 0, < 0. */
static int device_is_read_only(const FileHandle *h, GError **errp)
{
    int value = 0;

    if (!h->is_device || !h->writable) {
        return 0;
    }
    if (ioctl(h->fd, BLKROGET, &value) < 0) {
        return block_error_errno(errp, errno, "Node '%s': could not ask "
                                 "whether device '%s' is read-only",
                                 h->node_name, h->filename);
    }
    return value != 0;
}

/* --- opening -------------------------------------------------------------- */

static int open_error(const FileHandle *h, int err, GError **errp)
{
    if (h->beneath && (err == EXDEV || err == ELOOP)) {
        return block_error(errp, err, "Node '%s': file '%s' is not beneath "
                           "directory '%s', or there is a symbolic link on "
                           "the way", h->node_name, h->filename, h->beneath);
    }
    if (h->from_image && err == ELOOP) {
        return block_error(errp, err, "Node '%s': '%s', which an image names, "
                           "leads through a link of /proc, or through too many "
                           "links", h->node_name, h->filename);
    }
    if (err == EINVAL && h->direct) {
        return block_error(errp, err, "Node '%s': could not open file '%s' "
                           "with O_DIRECT: its file system does not support "
                           "it (use cache.direct=off)", h->node_name,
                           h->filename);
    }
    if (err == EISDIR) {
        return file_check_type(S_IFDIR, h->node_name, h->filename, errp);
    }
    return block_error_errno(errp, err, "Node '%s': could not open file '%s'%s",
                             h->node_name, h->filename,
                             h->writable ? " for writing" : "");
}

static bool is_refused_write(int err)
{
    return err == EACCES || err == EPERM || err == EROFS;
}

/* What follows "@beneath/" in the absolute name of the file, or NULL. */
static char *path_beneath(const FileHandle *h)
{
    g_autofree char *root = g_canonicalize_filename(h->beneath, NULL);
    g_autofree char *path = g_canonicalize_filename(h->filename, NULL);
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

    if (strncmp(path, root, length) != 0 || path[length] != '/') {
        return NULL;
    }
    return g_strdup(path + length + 1);
}

/* openat2(2).  A rename meanwhile may make the kernel ask for another try. */
static int open_resolved(int directory, const char *path, int flags,
                         uint64_t resolve)
{
    const struct open_how how = { .flags = flags, .resolve = resolve };
    int fd = -1;

    for (int i = 0; i < OPEN_TRIES; i++) {
        fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));
        if (fd >= 0 || errno != EAGAIN) {
            break;
        }
    }
    return fd;
}

/* As open(), but from the directory @beneath, and never out of it. */
static int open_beneath(const FileHandle *h, int flags)
{
    g_autofree char *path = path_beneath(h);
    int directory, fd, err;

    if (!path) {
        errno = EXDEV;
        return -1;
    }
    directory = open(h->beneath, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return -1;
    }
    fd = open_resolved(directory, path, flags,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
                           RESOLVE_NO_MAGICLINKS);
    err = errno;
    close(directory);
    errno = err;
    return fd;
}

static int open_fd(FileHandle *h)
{
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
                (h->writable ? O_RDWR : O_RDONLY) |
                (h->direct ? O_DIRECT : 0);

    do {
        h->fd = h->beneath      ? open_beneath(h, flags)
                : h->from_image ? open_resolved(AT_FDCWD, h->filename, flags,
                                                RESOLVE_NO_MAGICLINKS)
                                : open(h->filename, flags, 0);
    } while (h->fd < 0 && errno == EINTR);
    return h->fd < 0 ? -errno : 0;
}

static int make_blocking(FileHandle *h, GError **errp)
{
    int flags = fcntl(h->fd, F_GETFL);

    if (flags < 0 || fcntl(h->fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        return block_error_errno(errp, errno, "Node '%s': could not set the "
                                 "flags of file '%s'", h->node_name,
                                 h->filename);
    }
    return 0;
}

/* Open and inspect, as h->writable and h->direct say. */
static int try_open(FileHandle *h, GError **errp)
{
    int ret = open_fd(h);

    if (ret < 0) {
        return open_error(h, -ret, errp);
    }
    ret = inspect(h, errp);
    if (ret == 0) {
        ret = make_blocking(h, errp);
    }
    if (ret == 0) {
        ret = device_is_read_only(h, errp);
        if (ret > 0) {
            ret = open_error(h, EROFS, errp);
        }
    }
    if (ret < 0) {
        close(h->fd);
        h->fd = -1;
    }
    return ret;
}

static int open_as_possible(FileHandle *h, bool auto_read_only, GError **errp)
{
    GError *error = NULL;
    int ret = try_open(h, &error);

    if (ret < 0 && h->writable && auto_read_only && is_refused_write(-ret)) {
        g_clear_error(&error);
        h->writable = false;
        ret = try_open(h, &error);
    }
    if (ret < 0) {
        g_propagate_error(errp, error);
    }
    return ret;
}

/* --- alignment of direct I/O ---------------------------------------------- */

/* Ask the kernel (6.1 and later).  Returns whether it knows. */
static bool statx_alignment(FileHandle *h)
{
    struct statx stx = { 0 };

    if (statx(h->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 ||
        !(stx.stx_mask & STATX_DIOALIGN) || !stx.stx_dio_mem_align ||
        !stx.stx_dio_offset_align) {
        return false;
    }
    h->mem_alignment = stx.stx_dio_mem_align;
    h->request_alignment = stx.stx_dio_offset_align;
    return true;
}

/* Whether a read of @bytes into @buf is taken; other errors do not count. */
static bool read_is_aligned(const FileHandle *h, void *buf, size_t bytes)
{
    return pread(h->fd, buf, bytes, 0) >= 0 || errno != EINVAL;
}

/*
 * Find out by reading.  A file system that takes a read of one byte tells
 * nothing (an empty file, or a direct read that is not one): then the largest
 * usual alignment is right for whatever lies below.
 */
static int probe_alignment(FileHandle *h, GError **errp)
{
    uint8_t *buf = block_aligned_try_alloc(ALIGN_MAX, 2 * ALIGN_MAX);
    uint32_t request = ALIGN_MIN;
    uint32_t mem = ALIGN_MIN;

    if (!buf) {
        return block_error(errp, ENOMEM, "Node '%s': no memory to probe the "
                           "alignment of '%s'", h->node_name, h->filename);
    }
    if (read_is_aligned(h, buf, 1)) {
        request = ALIGN_MAX;
    }
    while (request < ALIGN_MAX && !read_is_aligned(h, buf, request)) {
        request *= 2;
    }
    if (read_is_aligned(h, buf + 1, ALIGN_MAX)) {
        mem = ALIGN_MAX;
    }
    while (mem < ALIGN_MAX && !read_is_aligned(h, buf + mem, ALIGN_MAX)) {
        mem *= 2;
    }
    block_aligned_free(buf);
    h->request_alignment = request;
    h->mem_alignment = mem;
    return 0;
}

static bool is_power_of_2(uint32_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

static int find_alignment(FileHandle *h, GError **errp)
{
    int ret = 0;

    h->request_alignment = 1;
    h->mem_alignment = 1;
    if (!h->direct) {
        return 0;
    }
    if (!statx_alignment(h)) {
        ret = probe_alignment(h, errp);
    }
    if (ret == 0 && h->is_device) {
        h->request_alignment = MAX(h->request_alignment, h->device_block);
    }
    if (ret == 0 && (!is_power_of_2(h->request_alignment) ||
                     !is_power_of_2(h->mem_alignment) ||
                     h->request_alignment > BDRV_MAX_ALIGNMENT)) {
        ret = block_error(errp, EINVAL, "Node '%s': the system asks for "
                          "alignments of %u (offset) and %u (memory) for "
                          "direct I/O on '%s'", h->node_name,
                          h->request_alignment, h->mem_alignment, h->filename);
    }
    return ret;
}

/* --- locks ---------------------------------------------------------------- */

static int find_locking(FileHandle *h, GError **errp)
{
    int ret;

    h->lock = (FileLock){ .fd = h->fd, .node_name = h->node_name,
                          .filename = h->filename };
    if (h->locking == FILE_LOCKING_OFF) {
        return 0;
    }
    ret = file_lock_probe(h->fd);
    if (ret == -ENOTSUP && h->locking == FILE_LOCKING_AUTO) {
        return 0;
    }
    if (ret < 0) {
        return block_error_errno(errp, -ret, "Node '%s': could not use locks "
                                 "of file '%s' (locking=off does without)",
                                 h->node_name, h->filename);
    }
    h->lock.enabled = true;
    return 0;
}

/* --- life ----------------------------------------------------------------- */

FileHandle *file_handle_open(const FileOpenHow *how, GError **errp)
{
    FileHandle *h = g_new0(FileHandle, 1);
    int ret;

    h->fd = -1;
    h->node_name = g_strdup(how->node_name);
    h->filename = g_strdup(how->filename);
    h->beneath = g_strdup(how->beneath);
    h->from_image = how->from_image;
    h->mode = how->mode;
    h->locking = how->locking;
    h->writable = how->flags & BDRV_O_RDWR;
    h->direct = how->flags & BDRV_O_NOCACHE;
    ret = open_as_possible(h, how->flags & BDRV_O_AUTO_RDONLY, errp);
    if (ret == 0) {
        ret = find_alignment(h, errp);
    }
    if (ret == 0) {
        ret = find_locking(h, errp);
    }
    if (ret < 0) {
        file_handle_close(h);
        return NULL;
    }
    h->file = aio_file_new(h->fd, h->mode);
    return h;
}

void file_handle_close(FileHandle *h)
{
    if (!h) {
        return;
    }
    if (h->fd >= 0) {
        /* A ring may hold the file a moment longer than the descriptor. */
        file_lock_release(&h->lock);
        aio_file_free(h->file);
        close(h->fd);
    }
    g_free(h->node_name);
    g_free(h->filename);
    g_free(h->beneath);
    g_free(h);
}

typedef struct OpenJob {
    const FileOpenHow *how;
    FileHandle *handle;
    GError *error;
} OpenJob;

static int open_work(void *opaque)
{
    OpenJob *job = opaque;

    job->handle = file_handle_open(job->how, &job->error);
    return 0;
}

FileHandle *coroutine_fn file_handle_co_open(const FileOpenHow *how,
                                             GError **errp)
{
    OpenJob job = { .how = how };

    aio_co_work(open_work, &job);
    if (job.error) {
        g_propagate_error(errp, job.error);
    }
    return job.handle;
}

/* --- length --------------------------------------------------------------- */

int64_t file_handle_length(const FileHandle *h)
{
    struct stat st;
    uint64_t bytes = 0;

    if (h->is_device) {
        if (ioctl(h->fd, BLKGETSIZE64, &bytes) < 0) {
            return -errno;
        }
        return bytes <= BDRV_MAX_LENGTH ? (int64_t)bytes : -EFBIG;
    }
    return fstat(h->fd, &st) < 0 ? -errno : st.st_size;
}

typedef struct LengthJob {
    const FileHandle *handle;
    int64_t length;
} LengthJob;

static int length_work(void *opaque)
{
    LengthJob *job = opaque;

    job->length = file_handle_length(job->handle);
    return 0;
}

int64_t coroutine_fn file_handle_co_length(const FileHandle *handle)
{
    LengthJob job = { .handle = handle };

    aio_co_work(length_work, &job);
    return job.length;
}
