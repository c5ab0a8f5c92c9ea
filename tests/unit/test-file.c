/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Driver "file": what it opens and refuses, its options, its limits, reopen,
 * changes of length, new images.
 *
 * Each test works in a directory of its own, on the file system of the
 * temporary directory.
 */
#include "file-fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* --- opening -------------------------------------------------------------- */

START_TEST(what_is_written_is_read_back_and_in_the_file)
{
    char out[1000], in[1000];
    BlockBackend *blk;

    make_file("disk", 10000);
    blk = file_backend("file,filename=%s/disk,aio=%s",
                       _i ? "threads" : "io_uring");
    memset(out, 'x', sizeof(out));
    ck_assert_int_eq(blk_getlength(blk), 10000);
    ck_assert_int_eq(blk_pwrite(blk, 777, sizeof(out), out, BDRV_REQ_FUA), 0);
    ck_assert_int_eq(blk_pread(blk, 777, sizeof(in), in, 0), 0);
    ck_assert_mem_eq(in, out, sizeof(in));
    expect_bytes("disk", 777, 1000, 'x');
    expect_bytes("disk", 0, 777, 0);
    close_backend(blk);
}
END_TEST

START_TEST(what_is_no_image_is_refused_and_named)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    g_autofree char *fifo = path_of("fifo");
    g_autofree char *sock = path_of("sock");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    g_strlcpy(addr.sun_path, sock, sizeof(addr.sun_path));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);

    file_fails("file,filename=%s,read-only=on", EISDIR, "is a directory");
    file_fails("file,filename=%s", EISDIR, "is a directory");
    file_fails("file,filename=%s/fifo", EINVAL, "fifo' is a FIFO");
    file_fails("file,filename=%s/fifo,read-only=on", EINVAL,
               "fifo' is a FIFO");
    file_fails("file,filename=%s/sock", ENXIO, "sock'");
    file_fails("file,filename=%s/none", ENOENT, "/none'");
    open_fails("file,filename=/dev/null", EINVAL, "a character device");
    open_fails("file,filename=/dev/ptmx", EINVAL, "a character device");
    close(fd);
}
END_TEST

START_TEST(wrong_options_are_refused_by_name)
{
    make_file("disk", 512);
    open_fails("file", EINVAL, "filename");
    file_fails("file,filename=%s/disk,locking=maybe", EINVAL, "locking");
    file_fails("file,filename=%s/disk,aio=posix", EINVAL, "aio");
    file_fails("file,filename=%s/disk,lock=on", EINVAL, "lock");
}
END_TEST

START_TEST(a_file_that_cannot_be_written_opens_only_read_only)
{
    char byte = 'y';
    g_autofree char *path = path_of("disk");
    BlockDriverState *bs;
    BlockBackend *blk;

    make_file("disk", 512);
    if (!forbid_writing(path)) {
        return; /* not on this file system */
    }
    file_fails("file,filename=%s/disk", EPERM, "for writing");
    bs = file_open_ok("file,filename=%s/disk,read-only=on");
    ck_assert(bdrv_is_read_only(bs));
    bdrv_unref(bs);

    bs = file_open_ok("file,filename=%s/disk,auto-read-only=on");
    ck_assert(bdrv_is_read_only(bs));
    blk = backend_ok("reader", bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    ck_assert_int_eq(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 0);
    blk_unref(blk);
    bdrv_unref(bs);
    allow_writing(path);
}
END_TEST

START_TEST(auto_read_only_does_not_make_a_writable_file_read_only)
{
    BlockDriverState *bs;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk,auto-read-only=on");
    ck_assert(!bdrv_is_read_only(bs));
    bdrv_unref(bs);
}
END_TEST

/* The number of our descriptor of a file. */
static int descriptor_of(const char *name)
{
    g_autofree char *path = path_of(name);

    for (int fd = 0; fd < 1000; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (target && strcmp(target, path) == 0) {
            return fd;
        }
    }
    ck_abort_msg("'%s' is not open", path);
}

START_TEST(the_descriptor_blocks_and_is_not_inherited)
{
    BlockDriverState *bs;
    int fd;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk");
    fd = descriptor_of("disk");
    ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    bdrv_unref(bs);
}
END_TEST

/* --- direct I/O ----------------------------------------------------------- */

START_TEST(direct_io_takes_requests_of_any_alignment)
{
    uint8_t model[20000] = { 0 };
    uint8_t in[sizeof(model)];
    BlockBackend *blk;
    GRand *rand = g_rand_new_with_seed(1);

    make_file("disk", sizeof(model));
    blk = file_backend("file,filename=%s/disk,cache.direct=on");
    if (!blk) {
        return; /* not on this file system */
    }
    ck_assert_uint_ge(bdrv_request_alignment(blk_bs(blk)), 1);
    for (int i = 0; i < 200; i++) {
        int64_t offset = g_rand_int_range(rand, 0, sizeof(model));
        int64_t bytes = g_rand_int_range(rand, 0, sizeof(model) - offset + 1);

        bytes = MIN(bytes, 6000);
        memset(model + offset, i + 1, bytes);
        ck_assert_int_eq(blk_pwrite(blk, offset, bytes, model + offset, 0), 0);
        ck_assert_int_eq(blk_pread(blk, 0, sizeof(in), in, 0), 0);
        ck_assert_mem_eq(in, model, sizeof(in));
    }
    close_backend(blk);
    expect_content("disk", model, sizeof(model));
    g_rand_free(rand);
}
END_TEST

/* --- reopen --------------------------------------------------------------- */

START_TEST(reopen_changes_what_can_be_written)
{
    char byte = 'a';
    BlockDriverState *bs;
    BlockBackend *blk;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk,read-only=on");
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    reopen_ok(bs, "read-only=off");
    ck_assert(!bdrv_is_read_only(bs));
    blk_unref(blk);
    blk = backend_ok("user", bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    reopen_fails(bs, "read-only=on", EACCES, "read-only");
    ck_assert_int_eq(blk_pwrite(blk, 1, 1, &byte, 0), 0);
    blk_unref(blk);
    reopen_ok(bs, "read-only=on");
    ck_assert(bdrv_is_read_only(bs));
    bdrv_unref(bs);
    expect_bytes("disk", 0, 2, 'a');
}
END_TEST

START_TEST(reopen_changes_the_cache_and_the_way_of_io)
{
    static const char *const ways[] = {
        "cache.direct=on", "aio=threads", "cache.direct=off", "locking=off",
        "aio=io_uring", "locking=on", "cache.direct=on", "discard=unmap",
    };
    char byte;
    BlockBackend *blk;

    make_file("disk", 4096);
    if (!has_direct_io("disk")) {
        return;
    }
    blk = file_backend("file,filename=%s/disk");
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        char in = 0;

        byte = 'a' + i;
        reopen_ok(blk_bs(blk), ways[i]);
        ck_assert_int_eq(blk_pwrite(blk, i, 1, &byte, 0), 0);
        ck_assert_int_eq(blk_pread(blk, i, 1, &in, 0), 0);
        ck_assert_int_eq(in, byte);
    }
    ck_assert_int_eq(blk_flush(blk), 0);
    close_backend(blk);
    expect_content("disk", "abcdefgh", 8);
}
END_TEST

START_TEST(reopen_refuses_another_file)
{
    g_autofree char *disk = path_of("disk");
    g_autofree char *moved = path_of("moved");
    g_autofree char *other = g_strdup_printf("filename=%s", moved);
    BlockBackend *blk;
    char byte = 'q';

    make_file("disk", 512);
    blk = file_backend("file,filename=%s/disk");
    reopen_fails(blk_bs(blk), other, EINVAL, "cannot change the file name");
    ck_assert_int_eq(rename(disk, moved), 0);
    reopen_fails(blk_bs(blk), "aio=threads", ENOENT, "disk");
    make_file("disk", 512);
    reopen_fails(blk_bs(blk), "aio=threads", EINVAL, "is not the file");
    /* The node works on as before, on the file it has. */
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    close_backend(blk);
    expect_bytes("moved", 0, 1, 'q');
    expect_bytes("disk", 0, 1, 0);
}
END_TEST

START_TEST(a_writer_that_may_become_read_only_does_so_on_reopen)
{
    g_autofree char *path = path_of("disk");
    BlockDriverState *bs;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk,auto-read-only=on,read-only=on");
    if (forbid_writing(path)) {
        reopen_ok(bs, "read-only=off");
        ck_assert(bdrv_is_read_only(bs));
        allow_writing(path);
        reopen_ok(bs, "read-only=off");
        ck_assert(!bdrv_is_read_only(bs));
    }
    bdrv_unref(bs);
}
END_TEST

/* --- length --------------------------------------------------------------- */

static int resize(BlockBackend *blk, int64_t bytes, PreallocMode prealloc,
                  GError **errp)
{
    BlockTruncate how = { .offset = bytes, .exact = true,
                          .prealloc = prealloc };

    return blk_truncate(blk, &how, errp);
}

START_TEST(a_file_grows_with_zeroes_and_shrinks)
{
    char in[3000];
    BlockBackend *blk;

    make_file("disk", 0);
    blk = file_backend("file,filename=%s/disk");
    for (PreallocMode mode = PREALLOC_MODE_OFF; mode <= PREALLOC_MODE_FULL;
         mode++) {
        int64_t allocated;

        if (mode == PREALLOC_MODE_METADATA) {
            continue;
        }
        ck_assert_int_eq(resize(blk, 100, PREALLOC_MODE_OFF, NULL), 0);
        memset(in, 'z', sizeof(in));
        ck_assert_int_eq(blk_pwrite(blk, 0, 100, in, 0), 0);
        ck_assert_int_eq(resize(blk, 3000000, mode, NULL), 0);
        ck_assert_int_eq(blk_getlength(blk), 3000000);
        allocated = file_blocks("disk");
        if (mode == PREALLOC_MODE_OFF) {
            ck_assert_int_lt(allocated, 100000);
        } else {
            ck_assert_int_ge(allocated, 2900000);
        }
        ck_assert_int_eq(blk_pread(blk, 0, sizeof(in), in, 0), 0);
        ck_assert_int_eq(in[99], 'z');
        ck_assert(block_buffer_is_zero(in + 100, sizeof(in) - 100));
        ck_assert_int_eq(resize(blk, 0, PREALLOC_MODE_OFF, NULL), 0);
        ck_assert_int_eq(blk_getlength(blk), 0);
    }
    close_backend(blk);
}
END_TEST

START_TEST(direct_io_preallocates_between_any_two_lengths)
{
    static const int64_t lengths[] = { 1, 511, 4095, 4097, 1000001, 1000002 };
    BlockBackend *blk;

    make_file("disk", 0);
    blk = file_backend("file,filename=%s/disk,cache.direct=on");
    for (unsigned i = 0; blk && i < G_N_ELEMENTS(lengths); i++) {
        g_autoptr(GError) error = NULL;

        ck_assert_msg(resize(blk, lengths[i], PREALLOC_MODE_FULL,
                             &error) == 0,
                      "%s", error ? error->message : "");
        ck_assert_int_eq(file_length("disk"), lengths[i]);
        expect_bytes("disk", 0, lengths[i], 0);
    }
    if (blk) {
        ck_assert_int_ge(file_blocks("disk"), 1000000);
        close_backend(blk);
    }
}
END_TEST

START_TEST(a_refused_change_of_length_changes_nothing)
{
    GError *error = NULL;
    BlockBackend *blk;

    make_file("disk", 1000);
    blk = file_backend("file,filename=%s/disk");
    ck_assert_int_lt(resize(blk, 2000, PREALLOC_MODE_METADATA, &error), 0);
    expect_error(&error, ENOTSUP, "metadata");
    ck_assert_int_lt(resize(blk, 500, PREALLOC_MODE_FALLOC, &error), 0);
    expect_error(&error, EINVAL, "falloc");
    /* More than any file system has room for. */
    ck_assert_int_lt(resize(blk, INT64_C(1) << 61, PREALLOC_MODE_FALLOC,
                            &error), 0);
    expect_error(&error, 0, "disk'");
    ck_assert_int_eq(file_length("disk"), 1000);
    ck_assert_int_eq(blk_getlength(blk), 1000);
    close_backend(blk);
}
END_TEST

/* --- new images ----------------------------------------------------------- */

START_TEST(images_are_made_as_asked)
{
    static const char *const modes[] = { "off", "falloc", "full" };

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_autofree char *text =
            g_strdup_printf("filename=%%s/new,size=1M,preallocation=%s",
                            modes[i]);

        make_file("new", 100 + i); /* is overwritten */
        create_ok(text);
        ck_assert_int_eq(file_length("new"), 1024 * 1024);
        ck_assert(i == 0 ? file_blocks("new") < 65536
                         : file_blocks("new") >= 1024 * 1024);
        expect_bytes("new", 0, 1024 * 1024, 0);
    }
}
END_TEST

START_TEST(an_image_that_cannot_be_made_leaves_no_file)
{
    g_autofree char *path = path_of("new");

    create_fails("filename=%s/no/new,size=1M", ENOENT, "no/new'");
    create_fails("filename=%s/new,size=7E,preallocation=falloc", 0, "new'");
    ck_assert_int_ne(access(path, F_OK), 0);
    create_fails("filename=%s/new", EINVAL, "size");
    create_fails("filename=%s/new,size=1,colour=red", EINVAL, "colour");
    create_fails("filename=%s,size=1M", EISDIR, "directory");
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(an_image_in_use_is_not_overwritten)
{
    BlockBackend *blk;
    char byte = 'k';

    make_file("disk", 512);
    blk = file_backend("file,filename=%s/disk");
    ck_assert_int_eq(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    create_fails("filename=%s/disk,size=1M", EAGAIN, "Failed to get");
    close_backend(blk);
    ck_assert_int_eq(file_length("disk"), 512);
    expect_bytes("disk", 0, 1, 'k');
}
END_TEST

/* --- block devices -------------------------------------------------------- */

START_TEST(a_block_device_is_read_written_zeroed_and_discarded)
{
    static uint8_t model[1024 * 1024], in[sizeof(model)];
    g_autofree char *loop = NULL;
    g_autofree char *text = NULL;
    BlockTruncate how = { .offset = sizeof(model), .exact = true };
    GError *error = NULL;
    BlockBackend *blk;

    make_file("disk", sizeof(model));
    loop = loop_attach("disk");
    if (!loop) {
        return; /* not allowed here */
    }
    text = g_strdup_printf("file,filename=%s,discard=unmap,cache.direct=%s",
                           loop, _i ? "on" : "off");
    blk = blk_open(graph, opts(text), &error);
    ck_assert_msg(blk != NULL, "%s", error ? error->message : "");
    ck_assert_int_eq(blk_getlength(blk), sizeof(model));
    memset(model, 0x5a, sizeof(model));
    ck_assert_int_eq(blk_pwrite(blk, 0, sizeof(model), model, 0), 0);
    memset(model + 1000, 0, 100000);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 1000, 100000,
                                       BDRV_REQ_MAY_UNMAP), 0);
    memset(model + 200000, 0, 4096);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, 200000, 4096, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_eq(blk_pread(blk, 0, sizeof(in), in, 0), 0);
    ck_assert_mem_eq(in, model, sizeof(in));
    ck_assert_int_eq(blk_pdiscard(blk, 0, 512 * 1024), 0);
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    how.offset *= 2;
    ck_assert_int_lt(blk_truncate(blk, &how, &error), 0);
    expect_error(&error, EINVAL, "cannot be changed");
    how.offset = 512;
    ck_assert_int_lt(blk_truncate(blk, &how, &error), 0);
    expect_error(&error, ENOTSUP, "cannot be changed");
    how.exact = false;
    ck_assert_int_eq(blk_truncate(blk, &how, &error), 0);
    ck_assert_int_eq(blk_getlength(blk), sizeof(model));
    close_backend(blk);
    loop_detach(loop);
}
END_TEST

static int coroutine_fn space_entry(void *opaque)
{
    return bdrv_co_get_allocated_size(opaque);
}

START_TEST(the_space_of_a_file_is_what_the_file_system_counts)
{
    AioContext *ctx = block_graph_aio_context(graph);
    BlockDriverState *bs;
    BlockBackend *blk;
    char buf[4096] = "x";

    make_file("disk", 16 << 20);
    bs = file_open_ok("file,filename=%s/disk");
    blk = backend_ok("user", bs, BLK_PERM_WRITE, BLK_PERM_ALL);
    ck_assert_int_lt(aio_co_run(ctx, space_entry, bs), 16 << 20);
    ck_assert_int_eq(blk_pwrite(blk, 8 << 20, sizeof(buf), buf, 0), 0);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert_int_ge(aio_co_run(ctx, space_entry, bs), 4096);
    ck_assert_int_eq(aio_co_run(ctx, space_entry, bs), file_blocks("disk"));
    blk_unref(blk);
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *tc = tcase_create("file");

    tcase_add_checked_fixture(tc, file_setup, file_teardown);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, what_is_written_is_read_back_and_in_the_file, 0,
                        2);
    PROMISE(tc, what_is_no_image_is_refused_and_named);
    PROMISE(tc, wrong_options_are_refused_by_name);
    PROMISE(tc, a_file_that_cannot_be_written_opens_only_read_only);
    PROMISE(tc, auto_read_only_does_not_make_a_writable_file_read_only);
    PROMISE(tc, the_descriptor_blocks_and_is_not_inherited);
    PROMISE(tc, direct_io_takes_requests_of_any_alignment);
    PROMISE(tc, reopen_changes_what_can_be_written);
    PROMISE(tc, reopen_changes_the_cache_and_the_way_of_io);
    PROMISE(tc, reopen_refuses_another_file);
    PROMISE(tc, a_writer_that_may_become_read_only_does_so_on_reopen);
    PROMISE(tc, a_file_grows_with_zeroes_and_shrinks);
    PROMISE(tc, direct_io_preallocates_between_any_two_lengths);
    PROMISE(tc, a_refused_change_of_length_changes_nothing);
    PROMISE(tc, images_are_made_as_asked);
    PROMISE(tc, an_image_that_cannot_be_made_leaves_no_file);
    PROMISE(tc, an_image_in_use_is_not_overwritten);
    PROMISE(tc, the_space_of_a_file_is_what_the_file_system_counts);
    tcase_add_loop_test(
        tc, a_block_device_is_read_written_zeroed_and_discarded, 0, 2);
    return check_main(suite);
}
