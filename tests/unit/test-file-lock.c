/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks of the driver "file": which bytes are locked when, and who keeps
 * whom out.  Two nodes on one file behave as two processes do, as each has a
 * file description of its own.
 */
#include "file-fixture.h"

#define READ BLK_PERM_CONSISTENT_READ
#define WRITE BLK_PERM_WRITE
#define UNCHANGED BLK_PERM_WRITE_UNCHANGED
#define RESIZE BLK_PERM_RESIZE
#define ALL BLK_PERM_ALL

/* Bytes from @base on that anybody holds, as bits. */
static unsigned held_bits(int fd, off_t base)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < 8; i++) {
        struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
                            .l_start = base + i, .l_len = 1 };

        ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &fl), 0);
        bits |= fl.l_type == F_UNLCK ? 0 : 1u << i;
    }
    return bits;
}

/* Check which permissions the locks say are used, and which not shared. */
static void expect_locks(const char *name, unsigned used, unsigned unshared)
{
    g_autofree char *path = path_of(name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_uint_eq(held_bits(fd, 100), used);
    ck_assert_uint_eq(held_bits(fd, 200), unshared);
    close(fd);
}

/* A second node on the file whose user is refused. */
static void expect_refused(BlockDriverState *bs, uint64_t used,
                           uint64_t shared, const char *text)
{
    BlockPerm perm = { .used = used, .shared = shared };
    BlockBackend *blk = blk_new(graph, "second", &perm);
    GError *error = NULL;

    ck_assert_int_lt(blk_insert_bs(blk, bs, &error), 0);
    ck_assert_ptr_nonnull(strstr(error->message, bdrv_node_name(bs)));
    ck_assert_ptr_nonnull(strstr(error->message, file_dir));
    expect_error(&error, EAGAIN, text);
    blk_unref(blk);
}

START_TEST(the_locked_bytes_follow_the_permissions)
{
    BlockDriverState *bs;
    BlockBackend *blk;
    BlockPerm perm;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk,locking=on");
    expect_locks("disk", 0, 0);
    blk = backend_ok("user", bs, READ, ALL);
    expect_locks("disk", READ, 0);
    for (uint64_t used = 0; used <= ALL; used++) {
        perm = (BlockPerm){ .used = used, .shared = ALL & ~(used * 3) };
        ck_assert_int_eq(blk_set_perm(blk, &perm, NULL), 0);
        expect_locks("disk", used, used * 3 & ALL);
    }
    blk_unref(blk);
    expect_locks("disk", 0, 0);
    bdrv_unref(bs);
    expect_locks("disk", 0, 0);
}
END_TEST

START_TEST(each_pair_of_users_is_judged_as_inside_one_process)
{
    BlockDriverState *a, *b;

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk,node-name=a");
    b = file_open_ok("file,filename=%s/disk,node-name=b");
    for (unsigned i = 0; i < 256; i++) {
        BlockPerm first = { .used = i & 15, .shared = i >> 4 };
        BlockBackend *blk = backend_ok("first", a, first.used, first.shared);

        for (unsigned j = 0; j < 256; j += 7) {
            BlockPerm second = { .used = j & 15, .shared = j >> 4 };
            bool conflict = (first.used & ~second.shared) ||
                            (second.used & ~first.shared);
            BlockBackend *other = blk_new(graph, "second", &second);
            g_autoptr(GError) error = NULL;
            int ret = blk_insert_bs(other, b, &error);

            ck_assert_int_eq(ret, conflict ? -EAGAIN : 0);
            ck_assert((error != NULL) == conflict);
            blk_unref(other);
        }
        /* All that were refused or went have left nothing behind. */
        expect_locks("disk", first.used, ~first.shared & ALL);
        blk_unref(blk);
    }
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(the_error_names_the_permission_the_node_and_the_file)
{
    BlockDriverState *a, *b;
    BlockBackend *blk;

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk,node-name=a");
    b = file_open_ok("file,filename=%s/disk,node-name=b");
    blk = backend_ok("writer", a, READ | WRITE, READ);
    expect_refused(b, WRITE, ALL, "Failed to get \"write\" lock");
    expect_refused(b, READ, READ, "Failed to get shared \"write\" lock");
    expect_refused(b, RESIZE, ALL, "Failed to get \"resize\" lock");
    expect_refused(b, UNCHANGED, ALL, "\"write unchanged\" lock");
    expect_refused(b, READ, ALL & ~READ, "shared \"consistent read\" lock");
    expect_refused(b, WRITE, ALL, "is another process using the image?");
    blk_unref(blk);
    blk = backend_ok("second", b, READ | WRITE, READ);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(a_refused_user_keeps_what_it_had)
{
    BlockPerm more = { .used = READ | WRITE, .shared = ALL };
    BlockDriverState *a, *b;
    BlockBackend *reader, *other;
    GError *error = NULL;

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk,node-name=a");
    b = file_open_ok("file,filename=%s/disk,node-name=b");
    reader = backend_ok("reader", a, READ, ALL & ~RESIZE);
    other = backend_ok("other", b, READ, ALL & ~WRITE);
    ck_assert_int_eq(blk_set_perm(reader, &more, &error), -EAGAIN);
    expect_error(&error, EAGAIN, "\"write\" lock");
    expect_locks("disk", READ, RESIZE | WRITE);
    blk_unref(other);
    expect_locks("disk", READ, RESIZE);
    ck_assert_int_eq(blk_set_perm(reader, &more, NULL), 0);
    expect_locks("disk", READ | WRITE, 0);
    blk_unref(reader);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(without_locking_nothing_is_locked_or_refused)
{
    BlockDriverState *a, *b;
    BlockBackend *first, *second;

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk");
    b = file_open_ok("file,filename=%s/disk,locking=off");
    first = backend_ok("first", a, READ | WRITE, 0);
    second = backend_ok("second", b, ALL, 0);
    expect_locks("disk", READ | WRITE, ALL);
    blk_unref(first);
    expect_locks("disk", 0, 0);
    blk_unref(second);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(force_share_reads_what_another_writes)
{
    BlockDriverState *a, *b;
    BlockBackend *writer, *reader;
    char byte = 'w';

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk");
    writer = backend_ok("writer", a, READ | WRITE, 0);
    b = file_open_ok("file,filename=%s/disk,read-only=on,force-share=on");
    reader = backend_ok("reader", b, READ, 0);
    expect_locks("disk", READ | WRITE, ALL);
    ck_assert_int_eq(blk_pwrite(writer, 0, 1, &byte, 0), 0);
    byte = 0;
    ck_assert_int_eq(blk_pread(reader, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(byte, 'w');
    blk_unref(writer);
    expect_locks("disk", 0, 0);
    /* What is not shared by force any more has to be locked. */
    reopen_ok(b, "force-share=off");
    expect_locks("disk", READ, ALL);
    reopen_ok(b, "force-share=on");
    expect_locks("disk", 0, 0);
    blk_unref(reader);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(locks_follow_every_reopen)
{
    static const char *const ways[] = {
        "aio=threads", "read-only=on", "locking=off", "aio=io_uring",
        "locking=on", "read-only=off", "locking=off", "locking=auto",
    };
    bool locked = true;
    BlockDriverState *bs;
    BlockBackend *blk;

    make_file("disk", 512);
    bs = file_open_ok("file,filename=%s/disk");
    blk = backend_ok("reader", bs, READ, ALL & ~RESIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        reopen_ok(bs, ways[i]);
        if (strstr(ways[i], "locking")) {
            locked = !strstr(ways[i], "off");
        }
        expect_locks("disk", locked ? READ : 0, locked ? RESIZE : 0);
    }
    blk_unref(blk);
    expect_locks("disk", 0, 0);
    bdrv_unref(bs);
}
END_TEST

START_TEST(a_refused_reopen_leaves_locks_and_node_as_they_were)
{
    BlockDriverState *a, *b;
    BlockBackend *first, *second;
    char byte = 'n';

    make_file("disk", 512);
    a = file_open_ok("file,filename=%s/disk,locking=off,node-name=a");
    b = file_open_ok("file,filename=%s/disk,node-name=b");
    first = backend_ok("first", a, READ | WRITE, ALL);
    second = backend_ok("second", b, READ, ALL & ~WRITE);
    reopen_fails(a, "locking=on", EAGAIN, "\"write\" lock");
    expect_locks("disk", READ, WRITE);
    ck_assert_int_eq(blk_pwrite(first, 0, 1, &byte, 0), 0);
    blk_unref(second);
    expect_locks("disk", 0, 0);
    reopen_ok(a, "locking=on");
    expect_locks("disk", READ | WRITE, 0);
    blk_unref(first);
    bdrv_unref(a);
    bdrv_unref(b);
}
END_TEST

START_TEST(locks_taken_for_a_change_that_another_node_refuses_are_given_back)
{
    BlockDriverState *a, *b, *top, *busy;
    BlockBackend *writer, *user;

    make_file("a", 512);
    make_file("b", 512);
    a = file_open_ok("file,filename=%s/a,node-name=a,locking=on");
    b = file_open_ok("file,filename=%s/b,node-name=b,locking=on");
    top = open_ok("pass,node-name=top,file=a");
    busy = open_ok("null-co,node-name=busy");
    writer = backend_ok("writer", top, READ | WRITE, ALL & ~RESIZE);
    user = backend_ok("user", busy, WRITE, ALL);
    /* Whichever of the two is asked first. */
    for (int i = 0; i < 2; i++) {
        BdrvReopenQueue *queue = bdrv_reopen_queue_new(graph);
        GError *error = NULL;

        if (i == 0) {
            bdrv_reopen_queue_add(queue, top, opts("pass,file=b"), true);
        }
        bdrv_reopen_queue_add(queue, busy, opts("null-co,read-only=on"), true);
        if (i == 1) {
            bdrv_reopen_queue_add(queue, top, opts("pass,file=b"), true);
        }
        ck_assert_int_eq(bdrv_reopen_multiple(queue, &error), -EACCES);
        expect_error(&error, EACCES, "'user'");
        expect_locks("a", READ | WRITE, RESIZE);
        expect_locks("b", 0, 0);
    }
    reopen_ok(top, "file=b");
    expect_locks("a", 0, 0);
    expect_locks("b", READ | WRITE, RESIZE);
    blk_unref(user);
    blk_unref(writer);
    bdrv_unref(busy);
    bdrv_unref(top);
    bdrv_unref(b);
    bdrv_unref(a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file-lock");
    TCase *tc = tcase_create("file-lock");

    register_pass_driver();
    tcase_add_checked_fixture(tc, file_setup, file_teardown);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    PROMISE(tc, the_locked_bytes_follow_the_permissions);
    PROMISE(tc, each_pair_of_users_is_judged_as_inside_one_process);
    PROMISE(tc, the_error_names_the_permission_the_node_and_the_file);
    PROMISE(tc, a_refused_user_keeps_what_it_had);
    PROMISE(tc, without_locking_nothing_is_locked_or_refused);
    PROMISE(tc, force_share_reads_what_another_writes);
    PROMISE(tc, locks_follow_every_reopen);
    PROMISE(tc, a_refused_reopen_leaves_locks_and_node_as_they_were);
    PROMISE(tc,
            locks_taken_for_a_change_that_another_node_refuses_are_given_back);
    return check_main(suite);
}
