/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server in the loop of the test, and a client that says what the test
 * wants, byte by byte.  While the client waits the loop turns.
 */
#ifndef TESTS_UNIT_NBD_FIXTURE_H
#define TESTS_UNIT_NBD_FIXTURE_H

#include "graph-fixture.h"
#include "mem-driver.h"

#include "block/protocols/nbd/nbd-protocol.h"

#include <blockgraph/export.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define KIB 1024
#define MIB (1024 * 1024)

static char *nbd_dir;
static char *nbd_path;

static inline void nbd_setup(void)
{
    graph_setup();
    nbd_dir = g_dir_make_tmp("nbd-XXXXXX", NULL);
    ck_assert_ptr_nonnull(nbd_dir);
    nbd_path = g_build_filename(nbd_dir, "s", NULL);
}

static inline void nbd_teardown(void)
{
    blk_nbd_server_stop(graph);
    graph_teardown();
    ck_assert_int_ne(g_access(nbd_path, F_OK), 0);
    g_rmdir(nbd_dir);
    g_free(nbd_path);
    g_free(nbd_dir);
}

/** Start the server; @more: further options, "" or ",key=value". */
static inline void server_start(const char *more)
{
    g_autofree char *text =
        g_strdup_printf("addr.type=unix,addr.path=%s%s", nbd_path, more);
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_nbd_server_start(graph, opts(text), &error) == 0, "%s",
                  error ? error->message : "no error set");
}

/** Add an export "e" of the node "disk"; @more as above. */
static inline BlockExport *export_add(const char *more)
{
    g_autofree char *text =
        g_strdup_printf("type=nbd,id=e,node-name=disk,name=d%s", more);
    g_autoptr(GError) error = NULL;
    BlockExport *exp = blk_exp_add(graph, opts(text), &error);

    ck_assert_msg(exp != NULL, "%s", error ? error->message : "no error set");
    return exp;
}

static inline BlockNbdServerInfo server_info(void)
{
    BlockNbdServerInfo info = { 0 };

    ck_assert(blk_nbd_server_query(graph, &info));
    return info;
}

static inline void turn(void)
{
    while (aio_poll(block_graph_aio_context(graph), false)) {
        continue;
    }
}

/* --- the client ----------------------------------------------------------- */

static inline int client_connect(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(un.sun_path, nbd_path, sizeof(un.sun_path));
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    return fd;
}

/* Let the loop, and other threads, go on until @fd has @events. */
static inline void client_wait(int fd, short events)
{
    struct pollfd pfd = { .fd = fd, .events = events };

    while (poll(&pfd, 1, 0) == 0) {
        if (!aio_poll(block_graph_aio_context(graph), false)) {
            poll(&pfd, 1, 1);
        }
    }
}

/** Send what can be sent; false: the server has gone. */
static inline bool put(int fd, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        ssize_t ret = send(fd, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (ret < 0 && errno == EAGAIN) {
            client_wait(fd, POLLOUT);
        } else if (ret < 0) {
            return false;
        } else {
            at += ret;
            bytes -= ret;
        }
    }
    return true;
}

/** Receive all of @bytes; false: the server has gone. */
static inline bool get(int fd, void *data, size_t bytes)
{
    char *at = data;

    while (bytes > 0) {
        ssize_t ret = recv(fd, at, bytes, MSG_DONTWAIT);

        if (ret < 0 && errno == EAGAIN) {
            client_wait(fd, POLLIN);
        } else if (ret <= 0) {
            return false;
        } else {
            at += ret;
            bytes -= ret;
        }
    }
    return true;
}

static inline bool is_closed(int fd)
{
    char c;

    return !get(fd, &c, 1);
}

static inline uint8_t *be(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = value >> (8 * (bytes - 1 - i));
    }
    return at + bytes;
}

static inline uint64_t from_be(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

/* --- its handshake -------------------------------------------------------- */

/** Take the greeting, answer with both flags. */
static inline bool client_greet(int fd)
{
    uint8_t hello[18], flags[4];

    if (!get(fd, hello, sizeof(hello))) {
        return false;
    }
    ck_assert_uint_eq(from_be(hello, 8), NBD_MAGIC);
    ck_assert_uint_eq(from_be(hello + 8, 8), NBD_OPTION_MAGIC);
    ck_assert_uint_eq(from_be(hello + 16, 2), 3);
    be(flags, 3, 4);
    return put(fd, flags, sizeof(flags));
}

static inline int client_new(void)
{
    int fd = client_connect();

    ck_assert(client_greet(fd));
    return fd;
}

/** Send an option that says it has @stated bytes, with @bytes of @data. */
static inline bool put_option(int fd, uint32_t option, uint32_t stated,
                              const void *data, size_t bytes)
{
    uint8_t head[16];

    be(be(be(head, NBD_OPTION_MAGIC, 8), option, 4), stated, 4);
    return put(fd, head, sizeof(head)) && put(fd, data, bytes);
}

/** A reply to @option: its type, and its payload in @data; 0: it has gone. */
static inline uint32_t get_reply(int fd, uint32_t option, GByteArray *data)
{
    uint8_t head[20];
    uint32_t bytes;

    if (!get(fd, head, sizeof(head))) {
        return 0;
    }
    ck_assert_uint_eq(from_be(head, 8), NBD_OPTION_REPLY_MAGIC);
    ck_assert_uint_eq(from_be(head + 8, 4), option);
    bytes = from_be(head + 16, 4);
    ck_assert_uint_le(bytes, 2 * NBD_NAME_MAX + 16);
    g_byte_array_set_size(data, bytes);
    ck_assert(get(fd, data->data, bytes));
    return from_be(head + 12, 4);
}

/** The last reply to @option; those before it are left out. */
static inline uint32_t get_last_reply(int fd, uint32_t option)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    uint32_t type;

    do {
        type = get_reply(fd, option, data);
    } while (type && type != NBD_REP_ACK && !(type & NBD_REP_ERROR_BIT));
    return type;
}

/** Send an option without payload, and take its last reply. */
static inline uint32_t plain_option(int fd, uint32_t option)
{
    return put_option(fd, option, 0, NULL, 0) ? get_last_reply(fd, option)
                                              : 0;
}

/** The payload of an INFO or GO. */
static inline GByteArray *info_payload(const char *name, size_t len)
{
    GByteArray *data = g_byte_array_new();
    uint8_t number[4];

    be(number, len, 4);
    g_byte_array_append(data, number, 4);
    g_byte_array_append(data, (const void *)name, len);
    be(number, 0, 2);
    g_byte_array_append(data, number, 2);
    return data;
}

static inline uint32_t info_option(int fd, uint32_t option, const char *name)
{
    g_autoptr(GByteArray) data = info_payload(name, strlen(name));

    return put_option(fd, option, data->len, data->data, data->len)
               ? get_last_reply(fd, option) : 0;
}

/** The payload of an option about metadata contexts: up to two queries. */
static inline GByteArray *meta_payload(const char *name, const char *a,
                                       const char *b)
{
    const char *query[2] = { a, b };
    uint8_t number[4];
    GByteArray *data = g_byte_array_new();

    be(number, strlen(name), 4);
    g_byte_array_append(data, number, 4);
    g_byte_array_append(data, (const void *)name, strlen(name));
    be(number, (a != NULL) + (b != NULL), 4);
    g_byte_array_append(data, number, 4);
    for (int i = 0; i < 2 && query[i]; i++) {
        be(number, strlen(query[i]), 4);
        g_byte_array_append(data, number, 4);
        g_byte_array_append(data, (const void *)query[i], strlen(query[i]));
    }
    return data;
}

static inline uint32_t meta_option(int fd, uint32_t option, const char *name,
                                   const char *a, const char *b)
{
    g_autoptr(GByteArray) data = meta_payload(name, a, b);

    return put_option(fd, option, data->len, data->data, data->len)
               ? get_last_reply(fd, option) : 0;
}

/** How a client talks. */
typedef enum Headers { SIMPLE, STRUCTURED, EXTENDED } Headers;

/** A client that is served the export "d". */
static inline int client_go(Headers headers)
{
    int fd = client_new();

    if (headers == STRUCTURED) {
        ck_assert_uint_eq(plain_option(fd, NBD_OPT_STRUCTURED_REPLY),
                          NBD_REP_ACK);
    } else if (headers == EXTENDED) {
        ck_assert_uint_eq(plain_option(fd, NBD_OPT_EXTENDED_HEADERS),
                          NBD_REP_ACK);
    }
    ck_assert_uint_eq(info_option(fd, NBD_OPT_GO, "d"), NBD_REP_ACK);
    return fd;
}

/* --- its requests --------------------------------------------------------- */

typedef struct Command {
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;
    uint64_t offset;
    uint64_t bytes;
} Command;

static inline bool put_command(int fd, Headers headers, const Command *c)
{
    uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
    uint8_t *at = be(head, headers == EXTENDED ? NBD_EXTENDED_REQUEST_MAGIC
                                               : NBD_REQUEST_MAGIC, 4);

    at = be(be(be(be(at, c->flags, 2), c->type, 2), c->cookie, 8), c->offset,
            8);
    at = be(at, c->bytes, headers == EXTENDED ? 8 : 4);
    return put(fd, head, at - head);
}

/**
 * One reply, or chunk of it.  Returns its error, or -1: the server has gone.
 * @data gets what follows the header.
 */
static inline int get_answer(int fd, Headers headers, const Command *c,
                             GByteArray *data)
{
    uint8_t head[NBD_EXTENDED_REPLY_BYTES];
    size_t head_bytes = headers == SIMPLE ? 16 : headers == EXTENDED ? 32 : 20;
    uint64_t bytes;
    uint16_t type;

    g_byte_array_set_size(data, 0);
    if (!get(fd, head, head_bytes)) {
        return -1;
    }
    ck_assert_uint_eq(from_be(head + 8, 8), c->cookie);
    if (headers == SIMPLE) {
        int error = from_be(head + 4, 4);

        ck_assert_uint_eq(from_be(head, 4), NBD_SIMPLE_REPLY_MAGIC);
        if (!error && c->type == NBD_CMD_READ) {
            g_byte_array_set_size(data, c->bytes);
            return get(fd, data->data, c->bytes) ? 0 : -1;
        }
        return error;
    }
    ck_assert_uint_eq(from_be(head, 4), headers == EXTENDED
                                            ? NBD_EXTENDED_REPLY_MAGIC
                                            : NBD_STRUCTURED_REPLY_MAGIC);
    type = from_be(head + 6, 2);
    bytes = headers == EXTENDED ? from_be(head + 24, 8) : from_be(head + 16, 4);
    ck_assert_uint_le(bytes, 33 * MIB);
    g_byte_array_set_size(data, bytes);
    if (!get(fd, data->data, bytes)) {
        return -1;
    }
    if (type == NBD_REPLY_ERROR) {
        return from_be(data->data, 4);
    }
    if (type == NBD_REPLY_OFFSET_DATA) {
        ck_assert_uint_eq(from_be(data->data, 8), c->offset);
        g_byte_array_remove_range(data, 0, 8);
    }
    return 0;
}

/** A command without payload, and its one reply. */
static inline int command(int fd, Headers headers, const Command *c)
{
    g_autoptr(GByteArray) data = g_byte_array_new();

    return put_command(fd, headers, c) ? get_answer(fd, headers, c, data) : -1;
}

/** Read; the data are in @buf if 0 is returned. */
static inline int read_at(int fd, Headers headers, uint64_t offset, void *buf,
                          size_t bytes)
{
    Command c = { .type = NBD_CMD_READ, .cookie = 0x1122334455667788,
                  .offset = offset, .bytes = bytes };
    g_autoptr(GByteArray) data = g_byte_array_new();
    int ret = put_command(fd, headers, &c) ? get_answer(fd, headers, &c, data)
                                           : -1;

    if (ret == 0 && bytes > 0) {
        ck_assert_uint_eq(data->len, bytes);
        memcpy(buf, data->data, bytes);
    }
    return ret;
}

static inline int write_at(int fd, Headers headers, uint64_t offset,
                           const void *buf, size_t bytes)
{
    Command c = { .type = NBD_CMD_WRITE, .cookie = 7, .offset = offset,
                  .bytes = bytes,
                  .flags = headers == EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN
                                               : 0 };
    g_autoptr(GByteArray) data = g_byte_array_new();

    if (!put_command(fd, headers, &c) || !put(fd, buf, bytes)) {
        return -1;
    }
    return get_answer(fd, headers, &c, data);
}

/** Whether the server still does what it should for the client at @fd. */
static inline void is_served(int fd)
{
    uint8_t buf[512];

    ck_assert_int_eq(read_at(fd, SIMPLE, 0, buf, sizeof(buf)), 0);
}

#endif /* TESTS_UNIT_NBD_FIXTURE_H */
