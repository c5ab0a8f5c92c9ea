/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver "nbd": beside our own server in one loop, and beside servers in
 * threads that say what no server should.
 */
#include "nbd-fixture.h"
#include "nbd-liar.h"

#include <blockgraph/backend.h>
#include <blockgraph/dirty-bitmap.h>

#define DISK (4 * MIB)

static BlockDriverState *disk;

static void serve(const char *more)
{
    disk = open_ok("mem,node-name=disk,size=4M,discard=unmap");
    server_start("");
    export_add(more);
}

static void serve_no_more(void)
{
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
}

/* A user of @bs who drops it at the end. */
static BlockBackend *user_of(BlockDriverState *bs)
{
    BlockBackend *blk = backend_ok(
        "user", bs, BLK_PERM_CONSISTENT_READ |
                        (bdrv_is_read_only(bs) ? 0 : BLK_PERM_WRITE),
        BLK_PERM_ALL);

    bdrv_unref(bs);
    return blk;
}

static char *client_text(const char *more)
{
    return g_strdup_printf("nbd,node-name=client,server.type=unix,"
                           "server.path=%s%s%s", nbd_path,
                           strstr(more, "export=") ? "" : ",export=d", more);
}

static BlockBackend *client_ok(const char *more)
{
    g_autofree char *text = client_text(more);

    return user_of(open_ok(text));
}

/* Opening fails; @message is in the text. */
static void client_fails(const char *more, const char *message)
{
    g_autofree char *text = client_text(more);
    GError *error = NULL;

    ck_assert_ptr_null(bdrv_open(graph, opts(text), &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_msg(strstr(error->message, message) != NULL, "%s",
                  error->message);
    g_error_free(error);
}

/* --- content -------------------------------------------------------------- */

START_TEST(what_is_written_is_what_the_server_has_and_shows)
{
    static const char *const more[] = { ",discard=unmap",
                                        ",discard=unmap,multi-conn=4" };
    g_autofree uint8_t *buf = g_malloc(DISK), *back = g_malloc(DISK);
    BlockExtent extent;
    BlockBackend *blk;

    serve(",writable=on");
    blk = client_ok(more[_i]);
    ck_assert_int_eq(blk_getlength(blk), DISK);
    for (int i = 0; i < DISK; i++) {
        buf[i] = i * 7 + i / 4096;
    }
    ck_assert_int_eq(blk_pwrite(blk, 0, DISK, buf, 0), 0);
    ck_assert_int_eq(blk_pwrite(blk, 12345, 1000, buf, BDRV_REQ_FUA), 0);
    memcpy(buf + 12345, buf, 1000);
    ck_assert_int_eq(blk_pwrite_zeroes(blk, MIB, 64 * KIB, 0), 0);
    memset(buf + MIB, 0, 64 * KIB);
    ck_assert_int_eq(blk_flush(blk), 0);
    ck_assert(memcmp(mem_disk(disk)->data, buf, DISK) == 0);
    ck_assert_int_eq(blk_pread(blk, 0, DISK, back, 0), 0);
    ck_assert(memcmp(back, buf, DISK) == 0);
    ck_assert_int_eq(blk_pread(blk, 5, 4095, back, 0), 0);
    ck_assert(memcmp(back, buf + 5, 4095) == 0);
    ck_assert_int_eq(blk_pdiscard(blk, 2 * MIB, MIB), 0);
    ck_assert_int_eq(blk_block_status(blk, 0, DISK, &extent), 0);
    ck_assert(extent.status & BDRV_BLOCK_DATA);
    ck_assert_uint_gt(mem_disk(disk)->count[MEM_DISCARD], 0);
    ck_assert_uint_gt(mem_disk(disk)->count[MEM_FLUSH], 0);
    blk_unref(blk);
    serve_no_more();
}
END_TEST

START_TEST(a_server_that_exports_read_only_is_not_written)
{
    BlockBackend *blk;

    serve("");
    client_fails("", "read-only");
    blk = client_ok(",auto-read-only=on");
    ck_assert(bdrv_is_read_only(blk_bs(blk)));
    blk_unref(blk);
    blk = client_ok(",read-only=on");
    blk_unref(blk);
    serve_no_more();
}
END_TEST

START_TEST(bad_options_are_refused_by_name)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "nbd,export=d", "must be given" },
        { "nbd,path=x,host=y", "must be given" },
        { "nbd,path=x,port=5", "goes with" },
        { "nbd,server.type=unix", "path" },
        { "nbd,server.type=bogus,server.path=x", "bogus" },
        { "nbd,path=/nonexistent/x", "/nonexistent/x" },
        { "nbd,path=x,reconnect-delay=-1", "reconnect-delay" },
        { "nbd,path=x,multi-conn=17", "multi-conn" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *error = NULL;

        ck_assert_ptr_null(bdrv_open(graph, opts(cases[i].text), &error));
        ck_assert_msg(strstr(error->message, cases[i].message) != NULL, "%s",
                      error->message);
        g_error_free(error);
    }
    serve("");
    client_fails(",read-only=on,export=x", "refuses the export");
    client_fails(",read-only=on,x-dirty-bitmap=qemu:dirty-bitmap:b",
                 "no context");
    serve_no_more();
}
END_TEST

START_TEST(a_dirty_bitmap_can_be_shown_by_block_status)
{
    static const uint8_t sector[512];
    BdrvDirtyBitmap *bitmap;
    BlockBackend *blk;
    BlockExtent extent;

    disk = open_ok("mem,node-name=disk,size=4M");
    bitmap = bdrv_create_dirty_bitmap(disk, 65536, "b", NULL);
    blk = user_of(bdrv_ref(disk));
    ck_assert_int_eq(blk_pwrite(blk, MIB, 512, sector, 0), 0);
    blk_unref(blk);
    ck_assert_int_eq(bdrv_disable_dirty_bitmap(bitmap, NULL), 0);
    server_start("");
    export_add(",bitmaps.0=b");
    blk = client_ok(",read-only=on,x-dirty-bitmap=qemu:dirty-bitmap:b");
    ck_assert_int_eq(blk_block_status(blk, 0, DISK, &extent), 0);
    ck_assert_int_eq(extent.bytes, MIB);
    ck_assert(extent.status & BDRV_BLOCK_DATA);
    ck_assert_int_eq(blk_block_status(blk, MIB, DISK - MIB, &extent), 0);
    ck_assert_int_eq(extent.bytes, 65536);
    ck_assert(!(extent.status & BDRV_BLOCK_DATA));
    blk_unref(blk);
    blk_nbd_server_stop(graph);
    bdrv_release_dirty_bitmap(bitmap);
    bdrv_unref(disk);
}
END_TEST

/* --- many requests, threads ----------------------------------------------- */

typedef struct Many {
    unsigned left;
    int ret;
} Many;

static void one_done(void *opaque, int ret)
{
    Many *many = opaque;

    many->ret = ret < 0 ? ret : many->ret;
    many->left--;
}

static void wait_for(const unsigned *left)
{
    while (*left > 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}

START_TEST(more_requests_than_a_connection_takes_wait_for_their_turn)
{
    static uint8_t buf[512][512];
    static BlockIOVec1 iov[512];
    Many many = { .left = 512 };
    BlockBackend *blk;

    serve(",writable=on");
    blk = client_ok(_i ? ",multi-conn=3" : "");
    for (int i = 0; i < 512; i++) {
        memset(buf[i], i, 512);
        blk_aio_pwritev(blk, i * 512, block_iov_buf(&iov[i], buf[i], 512), 0,
                        one_done, &many);
    }
    wait_for(&many.left);
    ck_assert_int_eq(many.ret, 0);
    ck_assert(memcmp(mem_disk(disk)->data, buf, sizeof(buf)) == 0);
    blk_unref(blk);
    serve_no_more();
}
END_TEST

typedef struct FromThread {
    BlockBackend *blk;
    _Atomic bool done;
    int ret;
} FromThread;

static void coroutine_fn thread_entry(void *opaque)
{
    FromThread *t = opaque;
    AioContext *ctx = aio_get_current();
    uint8_t buf[4096];

    for (int i = 0; i < 100 && t->ret == 0; i++) {
        memset(buf, i, sizeof(buf));
        t->ret = blk_co_pwrite(t->blk, i * 4096, 4096, buf, 0);
        ck_assert_ptr_eq(aio_get_current(), ctx);
    }
    atomic_store(&t->done, true);
}

START_TEST(other_threads_may_send_requests)
{
    IOThread *thread = iothread_new("t", AIO_ENGINE_AUTO, NULL);
    FromThread t = { 0 };

    serve(",writable=on");
    t.blk = client_ok("");
    aio_co_schedule(iothread_get_aio_context(thread),
                    coroutine_create(thread_entry, &t));
    while (!atomic_load(&t.done)) {
        aio_poll(block_graph_aio_context(graph), false);
    }
    ck_assert_int_eq(t.ret, 0);
    ck_assert_int_eq(mem_disk(disk)->data[99 * 4096], 99);
    iothread_free(thread);
    blk_unref(t.blk);
    serve_no_more();
}
END_TEST

/* --- a connection that is lost -------------------------------------------- */

static void start_write(BlockBackend *blk, Many *many)
{
    static uint8_t buf[4096];
    static BlockIOVec1 iov;

    memset(buf, 'w', sizeof(buf));
    *many = (Many){ .left = 1 };
    blk_aio_pwritev(blk, 0, block_iov_buf(&iov, buf, 4096), 0, one_done,
                    many);
}

/* A write has the result @ret. */
static void write_ends(BlockBackend *blk, int ret)
{
    Many many;

    start_write(blk, &many);
    wait_for(&many.left);
    ck_assert_int_eq(many.ret, ret);
}

START_TEST(without_a_delay_requests_fail_when_the_server_has_gone)
{
    BlockBackend *blk;

    serve(",writable=on");
    blk = client_ok("");
    blk_nbd_server_stop(graph);
    write_ends(blk, -EIO);
    blk_unref(blk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(within_the_delay_requests_wait_for_the_server_to_come_back)
{
    BlockBackend *blk;
    Many many;

    serve(",writable=on");
    blk = client_ok(_i ? ",reconnect-delay=3600,multi-conn=2"
                       : ",reconnect-delay=3600");
    blk_nbd_server_stop(graph);
    start_write(blk, &many);
    turn();
    ck_assert_uint_eq(many.left, 1);
    server_start("");
    export_add(",writable=on");
    wait_for(&many.left);
    ck_assert_int_eq(many.ret, 0);
    ck_assert_int_eq(mem_disk(disk)->data[4095], 'w');
    blk_unref(blk);
    serve_no_more();
}
END_TEST

START_TEST(a_request_in_flight_is_sent_again)
{
    BlockBackend *blk;
    Many many;

    serve(",writable=on");
    blk = client_ok(",reconnect-delay=3600");
    mem_disk(disk)->hold[MEM_WRITE] = true;
    start_write(blk, &many);
    while (mem_disk(disk)->held == 0) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_int_eq(blk_exp_del(blk_exp_find(graph, "e"),
                                 BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    for (int i = 0; i < 100; i++) { /* who is held turns the loop, too */
        aio_poll(block_graph_aio_context(graph), false);
    }
    ck_assert_uint_eq(many.left, 1);
    mem_disk(disk)->hold[MEM_WRITE] = false;
    while (blk_exp_find(graph, "e")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    export_add(",writable=on");
    wait_for(&many.left);
    ck_assert_int_eq(many.ret, 0);
    blk_unref(blk);
    serve_no_more();
}
END_TEST

START_TEST(after_the_delay_requests_fail)
{
    BlockBackend *blk;

    serve(",writable=on");
    blk = client_ok(",reconnect-delay=1");
    blk_nbd_server_stop(graph);
    write_ends(blk, -EIO);
    write_ends(blk, -EIO); /* and the next at once */
    blk_unref(blk);
    bdrv_unref(disk);
}
END_TEST

START_TEST(a_drained_section_does_not_wait_for_a_server)
{
    BlockBackend *blk;
    Many many;

    serve(",writable=on");
    blk = client_ok(",reconnect-delay=3600");
    blk_nbd_server_stop(graph);
    start_write(blk, &many);
    turn();
    ck_assert_uint_eq(many.left, 1);
    blk_drain(blk);
    ck_assert_uint_eq(many.left, 0);
    ck_assert_int_eq(many.ret, -EIO);
    blk_unref(blk);
    bdrv_unref(disk);
}
END_TEST

/* Not another disk in its place. */
START_TEST(a_server_that_comes_back_with_another_export_is_not_used)
{
    BlockBackend *blk;

    serve(",writable=on");
    blk = client_ok(",reconnect-delay=1");
    blk_nbd_server_stop(graph);
    bdrv_unref(disk);
    disk = open_ok("mem,node-name=disk,size=2M");
    server_start("");
    export_add(",writable=on");
    write_ends(blk, -EIO);
    ck_assert_uint_eq(mem_disk(disk)->count[MEM_WRITE], 0);
    blk_unref(blk);
    serve_no_more();
}
END_TEST

typedef struct Opening {
    char *text;
    BlockDriverState *bs;
    bool done;
} Opening;

static void coroutine_fn open_entry(void *opaque)
{
    Opening *o = opaque;

    o->bs = bdrv_co_open(graph, opts(o->text), NULL);
    o->done = true;
}

START_TEST(a_server_may_come_within_the_time_to_open)
{
    Opening o = { .text = client_text(",open-timeout=3600") };

    aio_co_schedule(block_graph_aio_context(graph),
                    coroutine_create(open_entry, &o));
    turn();
    ck_assert(!o.done);
    serve(",writable=on");
    while (!o.done) {
        aio_poll(block_graph_aio_context(graph), true);
    }
    ck_assert_ptr_nonnull(o.bs);
    bdrv_unref(o.bs);
    g_free(o.text);
    serve_no_more();
}
END_TEST

/* --- servers that lie ----------------------------------------------------- */

/* Lies in the handshake. */
static void lie_early(int fd, int n)
{
    uint8_t buf[64] = { 0 };
    uint32_t option;

    if (n == 0) {
        say(fd, "HTTP/1.1 400 Bad\r\n\r\n", 20);
        return;
    }
    if (n == 1) {
        say(fd, "NBDMAGIC", 8); /* and no more */
        return;
    }
    greet(fd);
    while ((option = hear_option(fd))) {
        switch (option) {
        case NBD_OPT_GO:
            if (n == 2) {
                answer_export(fd, UINT64_C(1) << 63, 0);
            } else if (n == 3) {
                be(be(be(be(buf, NBD_INFO_BLOCK_SIZE, 2), 3, 4), 4096, 4),
                   4096, 4);
                answer(fd, option, NBD_REP_INFO, buf, 14);
            } else if (n == 4) {
                answer(fd, option, NBD_REP_INFO, buf, 11);
            } else if (n == 5) {
                answer(fd, option, NBD_REP_ERR_POLICY, "\033[2Jno", 6);
            } else if (n == 6) {
                for (int i = 0; i < 1000; i++) {
                    answer(fd, option, NBD_REP_INFO, "\0\1x", 3);
                }
            } else if (n == 7) {
                be(buf, NBD_OPTION_REPLY_MAGIC, 8);
                be(be(be(buf + 8, option, 4), NBD_REP_INFO, 4), UINT32_MAX,
                   4);
                say(fd, buf, 20);
            } else if (n == 8) {
                answer(fd, NBD_OPT_LIST, NBD_REP_ACK, "", 0);
            }
            answer(fd, option, NBD_REP_ACK, "", 0);
            break;
        case NBD_OPT_SET_META_CONTEXT:
            for (int i = 0; n == 9 && i < 1000; i++) {
                answer(fd, option, NBD_REP_META_CONTEXT, "\0\0\0\1x", 5);
            }
            answer(fd, option, NBD_REP_ACK, "", 0);
            break;
        case NBD_OPT_EXTENDED_HEADERS:
            answer(fd, option, n == 10 ? 77 : NBD_REP_ERR_UNSUP, "", 0);
            break;
        default:
            answer(fd, option, NBD_REP_ACK, "", 0);
        }
    }
}

START_TEST(R45_a_handshake_that_makes_no_sense_is_an_error)
{
    Liar liar;

    liar_start(&liar, lie_early, _i);
    client_fails(",read-only=on", "NBD server");
    liar_end(&liar);
}
END_TEST

/* As long as a reply may be; by @n: letters, what drives a terminal, no UTF-8,
 * letters of several bytes. */
static void refuse_at_length(int fd, int n)
{
    static const char *const piece[] = { "x", "\033[2J", "\xff",
                                         "\xe2\x82\xac" };
    g_autoptr(GString) text = g_string_new(NULL);
    uint32_t option;

    while (text->len + 4 < 64 * KIB) {
        g_string_append(text, piece[n]);
    }
    greet(fd);
    while ((option = hear_option(fd))) {
        if (option == NBD_OPT_GO) {
            answer(fd, option, NBD_REP_ERR_POLICY, text->str, text->len);
        } else {
            answer(fd, option, NBD_REP_ACK, "", 0);
        }
    }
}

START_TEST(what_a_server_says_is_cut_and_cannot_drive_a_terminal)
{
    static const char *const shown[] = { "xxxx", "\\x1b[2J", "\\xff\\xff",
                                         "\xe2\x82\xac" };
    g_autofree char *text = client_text(",read-only=on");
    GError *error = NULL;
    Liar liar;

    liar_start(&liar, refuse_at_length, _i);
    ck_assert_ptr_null(bdrv_open(graph, opts(text), &error));
    ck_assert_uint_le(strlen(error->message), 4 * 4096 + 200);
    ck_assert_uint_ge(strlen(error->message), 4096);
    ck_assert(g_utf8_validate(error->message, -1, NULL));
    ck_assert(_i != 3 || !strstr(error->message, "\\x")); /* cut between */
    for (const char *p = error->message; *p; p++) {
        ck_assert(!g_ascii_iscntrl(*p));
    }
    ck_assert(g_str_has_suffix(error->message, "..."));
    expect_error(&error, EACCES, shown[_i]);
    liar_end(&liar);
}
END_TEST

static void chunk_head(int fd, unsigned flags, unsigned type,
                       const uint8_t cookie[8], uint32_t bytes)
{
    uint8_t head[20];

    be(be(be(head, NBD_STRUCTURED_REPLY_MAGIC, 4), flags, 2), type, 2);
    memcpy(head + 8, cookie, 8);
    be(head + 16, bytes, 4);
    say(fd, head, sizeof(head));
}

static void chunk(int fd, unsigned flags, unsigned type,
                  const uint8_t cookie[8], const void *data, size_t bytes)
{
    chunk_head(fd, flags, type, cookie, bytes);
    say(fd, data, bytes);
}

/* Lies about a read of 4 KiB at 4 KiB. */
static void lie_about_read(int fd, int n)
{
    static const struct {
        unsigned flags, type;
        uint64_t offset;
        uint32_t length; /* of data, or of a hole */
        uint32_t stated; /* of the chunk; 0: right */
    } lies[] = {
        { 1, NBD_REPLY_OFFSET_DATA, 0, 4096, 0 },
        { 1, NBD_REPLY_OFFSET_DATA, 4097, 4096, 0 },
        { 1, NBD_REPLY_OFFSET_DATA, UINT64_MAX, 4096, 0 },
        { 1, NBD_REPLY_OFFSET_DATA, 4096, 4095, 0 },
        { 1, NBD_REPLY_OFFSET_DATA, 4096, 0, 0 },
        { 1, NBD_REPLY_OFFSET_DATA, 4096, 4096, UINT32_MAX },
        { 1, NBD_REPLY_OFFSET_HOLE, 4096, UINT32_MAX, 0 },
        { 1, NBD_REPLY_OFFSET_HOLE, 8192, 1, 0 },
        { 1, NBD_REPLY_OFFSET_HOLE, 4096, 0, 0 },
        { 1, NBD_REPLY_NONE, 0, 0, 0 },
        { 0, NBD_REPLY_NONE, 0, 0, 0 },
        { 1, NBD_REPLY_BLOCK_STATUS, 0, 4096, 0 },
        { 1, NBD_REPLY_BLOCK_STATUS_EXT, 0, 4096, 0 },
        { 1, NBD_REPLY_ERROR, 0, 0, 6 },
        { 1, NBD_REPLY_ERROR, 0, 0, 100000 },
        { 1, 99, 0, 0, 0 },
        { 1, 0x8099, 0, 0, 3 },
    };
    uint8_t cookie[8], data[8 + 4096] = { 0 };
    uint32_t bytes = 0;

    honest(fd, cookie);
    be(data, lies[n].offset, 8);
    if (lies[n].type == NBD_REPLY_OFFSET_HOLE) {
        be(data + 8, lies[n].length, 4);
        bytes = 12;
    } else if (lies[n].type != NBD_REPLY_NONE) {
        bytes = 8 + lies[n].length;
    }
    chunk_head(fd, lies[n].flags, lies[n].type, cookie,
               lies[n].stated ? lies[n].stated : bytes);
    say(fd, data, bytes);
}

#define READ_LIES 17

/* Lies of other kinds about it. */
static void lie_about_more(int fd, int n)
{
    uint8_t cookie[8], buf[16 + 4096] = { 0 };

    honest(fd, cookie);
    be(buf, 4096, 8);
    switch (n) {
    case 0: /* another cookie */
        cookie[7] ^= 64;
        chunk(fd, 1, NBD_REPLY_OFFSET_DATA, cookie, buf, 8 + 4096);
        break;
    case 1: /* the same part twice */
        chunk(fd, 0, NBD_REPLY_OFFSET_DATA, cookie, buf, 8 + 3000);
        chunk(fd, 1, NBD_REPLY_OFFSET_DATA, cookie, buf, 8 + 3000);
        break;
    case 2: /* no magic */
        say(fd, buf, 20);
        break;
    case 3: /* a simple reply, though chunks were agreed on */
        be(be(buf, NBD_SIMPLE_REPLY_MAGIC, 4), 0, 4);
        memcpy(buf + 8, cookie, 8);
        say(fd, buf, sizeof(buf));
        break;
    case 4: /* twice */
        chunk(fd, 1, NBD_REPLY_NONE, cookie, "", 0);
        chunk(fd, 1, NBD_REPLY_NONE, cookie, "", 0);
        break;
    case 5: /* half of a reply */
        chunk_head(fd, 1, NBD_REPLY_OFFSET_DATA, cookie, 8 + 4096);
        say(fd, buf, 100);
        break;
    default: /* 64-bit headers, though there are none */
        be(buf, NBD_EXTENDED_REPLY_MAGIC, 4);
        say(fd, buf, 32);
        break;
    }
}

static void read_is_an_error(void)
{
    BlockBackend *blk = client_ok(",read-only=on");
    uint8_t buf[4096];

    ck_assert_int_eq(blk_pread(blk, 4096, 4096, buf, 0), -EIO);
    blk_unref(blk);
}

START_TEST(R45_a_reply_that_makes_no_sense_is_an_error)
{
    Liar liar;

    liar_start(&liar, _i < READ_LIES ? lie_about_read : lie_about_more,
               _i < READ_LIES ? _i : _i - READ_LIES);
    read_is_an_error();
    liar_end(&liar);
}
END_TEST

/* R46: nobody waits on behind a reader that has stopped. */
START_TEST(R46_all_requests_in_flight_end_when_the_stream_makes_no_sense)
{
    static uint8_t buf[10][512];
    static BlockIOVec1 iov[10];
    Many many = { .left = 10 };
    BlockBackend *blk;
    Liar liar;

    liar_start(&liar, lie_about_more, 2);
    blk = client_ok(",read-only=on");
    for (int i = 0; i < 10; i++) {
        blk_aio_preadv(blk, i * 512, block_iov_buf(&iov[i], buf[i], 512), 0,
                       one_done, &many);
    }
    wait_for(&many.left);
    ck_assert_int_eq(many.ret, -EIO);
    blk_unref(blk);
    liar_end(&liar);
}
END_TEST

/* Half of a read twice: as many bytes as were asked for. */
static void leave_out(int fd, int n)
{
    uint8_t cookie[8], buf[8 + 2048];

    honest(fd, cookie);
    memset(buf, 'x', sizeof(buf));
    be(buf, 4096, 8);
    chunk(fd, 0, NBD_REPLY_OFFSET_DATA, cookie, buf, sizeof(buf));
    chunk(fd, 1, NBD_REPLY_OFFSET_DATA, cookie, buf, sizeof(buf));
}

START_TEST(R47_what_a_server_leaves_out_of_a_read_is_zero)
{
    uint8_t buf[4096];
    BlockBackend *blk;
    Liar liar;

    liar_start(&liar, leave_out, 0);
    blk = client_ok(",read-only=on");
    memset(buf, 's', sizeof(buf)); /* a secret */
    ck_assert_int_eq(blk_pread(blk, 4096, 4096, buf, 0), 0);
    ck_assert_int_eq(buf[2047], 'x');
    for (int i = 2048; i < 4096; i++) {
        ck_assert_int_eq(buf[i], 0);
    }
    blk_unref(blk);
    liar_end(&liar);
}
END_TEST

/* Lies about block status. */
static void lie_about_status(int fd, int n)
{
    static const uint32_t lies[][3] = { /* context, length, flags */
        { 7, 0, 0 }, { 7, UINT32_MAX, 0 }, { 8, 4096, 0 }, { 7, 4095, 3 },
    };
    uint8_t cookie[8], buf[12];

    honest(fd, cookie);
    be(be(be(buf, lies[n][0], 4), lies[n][1], 4), lies[n][2], 4);
    chunk(fd, 1, NBD_REPLY_BLOCK_STATUS, cookie, buf, 12);
}

START_TEST(R45_extents_are_cut_to_what_was_asked_or_are_an_error)
{
    BlockExtent extent;
    BlockBackend *blk;
    Liar liar;
    int ret;

    liar_start(&liar, lie_about_status, _i);
    blk = client_ok(",read-only=on");
    ret = blk_block_status(blk, 4096, 8192, &extent);
    if (_i == 0 || _i == 2) {
        ck_assert_int_eq(ret, -EIO);
    } else {
        ck_assert_int_eq(ret, 0);
        ck_assert_int_eq(extent.bytes, _i == 1 ? 8192 : 4095);
    }
    blk_unref(blk);
    liar_end(&liar);
}
END_TEST

/* Announces all extents that a length can express, and waits. */
static void never_end_status(int fd, int n)
{
    uint8_t cookie[8], c;

    honest(fd, cookie);
    chunk_head(fd, 1, NBD_REPLY_BLOCK_STATUS, cookie, 4 + 8 * 0x1fffffffu);
    hear(fd, &c, 1);
}

START_TEST(R45_a_list_of_extents_without_end_is_an_error)
{
    BlockExtent extent;
    BlockBackend *blk;
    Liar liar;

    liar_start(&liar, never_end_status, 0);
    blk = client_ok(",read-only=on");
    ck_assert_int_eq(blk_block_status(blk, 4096, 8192, &extent), -EIO);
    blk_unref(blk);
    liar_end(&liar);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_loop_test(
        tcase, what_is_written_is_what_the_server_has_and_shows, 0, 2);
    PROMISE(tcase, a_server_that_exports_read_only_is_not_written);
    PROMISE(tcase, bad_options_are_refused_by_name);
    PROMISE(tcase, a_dirty_bitmap_can_be_shown_by_block_status);
    tcase_add_loop_test(
        tcase, more_requests_than_a_connection_takes_wait_for_their_turn, 0,
        2);
    PROMISE(tcase, other_threads_may_send_requests);
    PROMISE(tcase, without_a_delay_requests_fail_when_the_server_has_gone);
    tcase_add_loop_test(
        tcase, within_the_delay_requests_wait_for_the_server_to_come_back, 0,
        2);
    PROMISE(tcase, a_request_in_flight_is_sent_again);
    PROMISE(tcase, after_the_delay_requests_fail);
    PROMISE(tcase, a_drained_section_does_not_wait_for_a_server);
    PROMISE(tcase,
            a_server_that_comes_back_with_another_export_is_not_used);
    PROMISE(tcase, a_server_may_come_within_the_time_to_open);
    tcase_add_loop_test(
        tcase, R45_a_handshake_that_makes_no_sense_is_an_error, 0, 11);
    tcase_add_loop_test(
        tcase, what_a_server_says_is_cut_and_cannot_drive_a_terminal, 0, 4);
    tcase_add_loop_test(
        tcase, R45_a_reply_that_makes_no_sense_is_an_error, 0, READ_LIES + 7);
    PROMISE(tcase,
            R46_all_requests_in_flight_end_when_the_stream_makes_no_sense);
    PROMISE(tcase, R47_what_a_server_leaves_out_of_a_read_is_zero);
    tcase_add_loop_test(
        tcase, R45_extents_are_cut_to_what_was_asked_or_are_an_error, 0, 4);
    PROMISE(tcase, R45_a_list_of_extents_without_end_is_an_error);
}

int main(void)
{
    Suite *suite = suite_create("nbd-client");
    TCase *tcase = tcase_create("all");

    mem_register();
    tcase_add_checked_fixture(tcase, nbd_setup, nbd_teardown);
    tcase_set_timeout(tcase, 30);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
