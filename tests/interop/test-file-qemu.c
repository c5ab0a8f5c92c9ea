/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "file" and QEMU on one image: each keeps the other out, lets it
 * in where both agree, and sees what the other wrote.
 *
 * Skipped (77) where qemu-utils are not installed.
 */
#include "tests/unit/file-fixture.h"

#include <signal.h>
#include <sys/wait.h>

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

/* Run @command, "%s" being the directory; returns its exit status. */
static int run(const char *command, char **ret_output)
{
    g_autofree char *line = options_text(command);
    g_autofree char *merged = g_strdup_printf("%s 2>&1", line);
    char *argv[] = { "sh", "-c", merged, NULL };
    char *output = NULL;
    int status = -1;

    ck_assert(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                           &output, NULL, &status, NULL));
    if (ret_output) {
        *ret_output = output;
    } else {
        g_free(output);
    }
    return status;
}

static void qemu_ok(const char *command)
{
    g_autofree char *output = NULL;

    ck_assert_msg(run(command, &output) == 0, "%s: %s", command, output);
}

static void qemu_refused(const char *command, const char *text)
{
    g_autofree char *output = NULL;

    ck_assert_msg(run(command, &output) != 0, "%s: %s", command, output);
    ck_assert_msg(strstr(output, text) != NULL, "%s: %s", command, output);
}

/* A qemu-io that has the image open until its input ends. */
typedef struct QemuIo {
    GPid pid;
    int input;
    int output;
} QemuIo;

/* Whether anybody holds the lock on @byte of the image. */
static bool byte_is_locked(off_t byte)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
                        .l_start = byte, .l_len = 1 };
    g_autofree char *path = path_of("disk");
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &fl), 0);
    close(fd);
    return fl.l_type != F_UNLCK;
}

/*
 * Start qemu-io with @option on a qcow2 image, which nobody else may write;
 * returns when it has it open: then it asks for a command.
 */
static QemuIo qemu_holds(char *option)
{
    g_autofree char *path = path_of("disk");
    char *argv[] = { "qemu-io", "-f", "qcow2", option, path, NULL };
    QemuIo q = { .pid = 0 };
    char asked;

    qemu_ok("qemu-img create -q -f qcow2 %s/disk 1M");
    ck_assert(g_spawn_async_with_pipes(NULL, argv, NULL,
                                       G_SPAWN_SEARCH_PATH |
                                           G_SPAWN_DO_NOT_REAP_CHILD,
                                       NULL, NULL, &q.pid, &q.input, &q.output,
                                       NULL, NULL));
    /* The end of its output is that it could not open the image. */
    ck_assert_int_eq(read(q.output, &asked, 1), 1);
    ck_assert(byte_is_locked(203));
    return q;
}

static void qemu_lets_go(QemuIo *q)
{
    int status;

    close(q->input);
    ck_assert_int_eq(waitpid(q->pid, &status, 0), q->pid);
    close(q->output);
    g_spawn_close_pid(q->pid);
}

START_TEST(qemu_is_kept_out_of_an_image_that_we_write)
{
    BlockDriverState *bs;
    BlockBackend *blk;
    char out[512];

    make_file("disk", 65536);
    bs = file_open_ok("file,filename=%s/disk");
    blk = backend_ok("writer", bs, READ | WRITE, READ);
    memset(out, 0x5a, sizeof(out));
    ck_assert_int_eq(blk_pwrite(blk, 0, sizeof(out), out, 0), 0);
    qemu_refused("qemu-io -f raw -c 'write 0 512' %s/disk",
                 "Failed to get \"write\" lock");
    qemu_refused("qemu-img resize -f raw %s/disk 1M", "lock");
    qemu_refused("qemu-img create -f raw %s/disk 1M", "lock");
    qemu_ok("qemu-img info -U %s/disk");
    qemu_ok("qemu-io -U -r -f raw -c 'read -P 0x5a 0 512' %s/disk");
    blk_unref(blk);
    bdrv_unref(bs);
    qemu_ok("qemu-io -f raw -c 'write 0 512' %s/disk");
}
END_TEST

START_TEST(qemu_may_read_what_we_read)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    make_file("disk", 65536);
    bs = file_open_ok("file,filename=%s/disk,read-only=on");
    blk = backend_ok("reader", bs, READ, READ | BLK_PERM_WRITE_UNCHANGED);
    qemu_ok("qemu-img info %s/disk");
    qemu_ok("qemu-img map -f raw %s/disk");
    qemu_refused("qemu-io -f raw -c 'write 0 512' %s/disk",
                 "Failed to get \"write\" lock");
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

START_TEST(we_are_kept_out_of_an_image_that_qemu_writes)
{
    BlockPerm perm = { .used = READ | WRITE, .shared = ALL };
    QemuIo q;
    BlockDriverState *bs;
    BlockBackend *blk;
    GError *error = NULL;
    char byte;

    q = qemu_holds("-twriteback");
    bs = file_open_ok("file,filename=%s/disk");
    blk = blk_new(graph, "writer", &perm);
    ck_assert_int_lt(blk_insert_bs(blk, bs, &error), 0);
    expect_error(&error, EAGAIN, "Failed to get \"write\" lock");
    perm = (BlockPerm){ .used = READ, .shared = ALL & ~WRITE };
    ck_assert_int_eq(blk_set_perm(blk, &perm, NULL), 0);
    ck_assert_int_lt(blk_insert_bs(blk, bs, &error), 0);
    expect_error(&error, EAGAIN, "Failed to get shared \"write\" lock");
    create_fails("filename=%s/disk,size=1M", EAGAIN, "lock");
    blk_unref(blk);
    bdrv_unref(bs);

    bs = file_open_ok("file,filename=%s/disk,read-only=on,force-share=on");
    blk = backend_ok("reader", bs, READ, 0);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    blk_unref(blk);
    bdrv_unref(bs);

    qemu_lets_go(&q);
    blk = file_backend("file,filename=%s/disk");
    close_backend(blk);
}
END_TEST

START_TEST(both_read_an_image_that_nobody_writes)
{
    QemuIo q;
    BlockDriverState *bs;
    BlockBackend *blk;
    GError *error = NULL;
    BlockPerm perm = { .used = READ | WRITE | RESIZE, .shared = ALL };
    char byte;

    q = qemu_holds("-r");
    bs = file_open_ok("file,filename=%s/disk");
    blk = backend_ok("user", bs, READ, ALL & ~(WRITE | RESIZE));
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_lt(blk_set_perm(blk, &perm, &error), 0);
    expect_error(&error, EAGAIN, "lock");
    qemu_lets_go(&q);
    ck_assert_int_eq(blk_set_perm(blk, &perm, NULL), 0);
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

START_TEST(each_sees_what_the_other_wrote)
{
    g_autofree char *expected = g_strnfill(4096, 0x33);
    char in[4096];
    BlockBackend *blk;

    create_ok("filename=%s/disk,size=1M");
    qemu_ok("qemu-io -f raw -c 'write -P 0x33 100k 4k' %s/disk");
    blk = file_backend("file,filename=%s/disk,discard=unmap");
    ck_assert_int_eq(blk_pread(blk, 100 * 1024, sizeof(in), in, 0), 0);
    ck_assert_mem_eq(in, expected, sizeof(in));
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 101 * 1024, 1024,
                                       BDRV_REQ_MAY_UNMAP), 0);
    memset(in, 0x44, sizeof(in));
    ck_assert_int_eq(blk_pwrite(blk, 500, 300, in, 0), 0);
    close_backend(blk);
    qemu_ok("qemu-io -f raw -c 'read -P 0x33 100k 1k' "
            "-c 'read -P 0 101k 1k' -c 'read -P 0x33 102k 2k' "
            "-c 'read -P 0x44 500 300' -c 'read -P 0 0 500' %s/disk");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-qemu");
    TCase *tc = tcase_create("file-qemu");
    g_autofree char *io = g_find_program_in_path("qemu-io");
    g_autofree char *img = g_find_program_in_path("qemu-img");

    if (!io || !img) {
        return 77;
    }
    tcase_add_checked_fixture(tc, file_setup, file_teardown);
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    PROMISE(tc, qemu_is_kept_out_of_an_image_that_we_write);
    PROMISE(tc, qemu_may_read_what_we_read);
    PROMISE(tc, we_are_kept_out_of_an_image_that_qemu_writes);
    PROMISE(tc, both_read_an_image_that_nobody_writes);
    PROMISE(tc, each_sees_what_the_other_wrote);
    return check_main(suite);
}
