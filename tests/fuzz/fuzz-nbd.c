/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever a client sends, the NBD server goes on: another client is served
 * afterwards, and no memory is in flight.
 *
 * The first byte of the input says how far the client gets by itself: bit 0, it
 * has greeted; bit 1, it asks for extended headers, bit 2 for structured
 * replies; bit 3, it is served.  The rest it sends as it is; or, with bit 4, as
 * options or requests that get their magic numbers and some lengths from us.
 */
#include "block/protocols/nbd/nbd-protocol.h"

#include <blockgraph/backend.h>
#include <blockgraph/export.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static BlockGraph *graph;
static struct sockaddr_un address = { .sun_family = AF_UNIX };

static BlockOptions *parse(const char *text)
{
    return block_options_parse_keyval(text, NULL, NULL);
}

static void remove_socket(void)
{
    unlink(address.sun_path);
    *strrchr(address.sun_path, '/') = '\0';
    rmdir(address.sun_path);
}

static void begin(void)
{
    char *dir = g_dir_make_tmp("fuzz-nbd-XXXXXX", NULL);
    g_autofree char *server = NULL;

    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", dir);
    g_free(dir);
    atexit(remove_socket);
    graph = block_graph_new(NULL, NULL);
    server = g_strdup_printf("addr.type=unix,addr.path=%s,"
                             "max-connections-per-peer=0", address.sun_path);
    g_assert(bdrv_open(graph, parse("driver=null-co,node-name=n,size=1M,"
                                    "read-zeroes=on"), NULL));
    g_assert(blk_nbd_server_start(graph, parse(server), NULL) == 0);
    g_assert(blk_exp_add(graph, parse("type=nbd,id=e,node-name=n,name=n,"
                                      "writable=on,allocation-depth=on"),
                         NULL));
}

static void turn(void)
{
    while (aio_poll(block_graph_aio_context(graph), false)) {
        continue;
    }
}

static int client(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    g_assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static void say(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    char scrap[65536];

    while (bytes > 0) {
        ssize_t ret = send(fd, at, MIN(bytes, 20000), MSG_NOSIGNAL);

        if (ret > 0) {
            at += ret;
            bytes -= ret;
        }
        turn();
        while (recv(fd, scrap, sizeof(scrap), 0) > 0) {
            turn();
        }
        if (ret < 0) {
            return;
        }
    }
}

#define OPTION(number) "IHAVEOPT\0\0\0" number "\0\0\0\0"
#define META "IHAVEOPT\0\0\0\12\0\0\0\34\0\0\0\1n\0\0\0\1\0\0\0\17" \
             "base:allocation"
#define GO "IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1n\0\0"

static void lead(int fd, uint8_t how)
{
    if (how & 1) {
        say(fd, "\0\0\0\3", 4);
    }
    if (how & 2) {
        say(fd, OPTION("\13"), 16);
    }
    if (how & 4) {
        say(fd, OPTION("\10"), 16);
    }
    if (how & 8) {
        say(fd, META, sizeof(META) - 1);
        say(fd, GO, sizeof(GO) - 1);
    }
}

/* A number from some bytes of the input; large ones, too. */
static uint64_t number(const uint8_t *at)
{
    uint64_t value = at[0] | at[1] << 8;

    return at[2] & 0x40 ? 0 - value : value << (at[2] & 0x3f);
}

static void store(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = value >> (8 * (bytes - 1 - i));
    }
}

/* Option, length, payload; 0xff: the stated length is another. */
static void say_options(int fd, const uint8_t *data, size_t size)
{
    while (size >= 2) {
        uint8_t head[16] = "IHAVEOPT";
        size_t bytes = MIN(data[1], size - 2);

        store(head + 8, data[0], 4);
        store(head + 12, data[1] == 0xff ? UINT32_MAX : bytes, 4);
        say(fd, head, sizeof(head));
        say(fd, data + 2, bytes);
        data += 2 + bytes;
        size -= 2 + bytes;
    }
}

/* Type, flags, offset, length; a payload of zeroes. */
static void say_requests(int fd, bool extended, const uint8_t *data,
                         size_t size)
{
    static const uint8_t zeroes[70000];

    for (; size >= 8; data += 8, size -= 8) {
        uint8_t head[32];
        uint64_t bytes = number(data + 5);

        store(head, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC,
              4);
        store(head + 4, data[1], 2);
        store(head + 6, data[0], 2);
        store(head + 8, size, 8);
        store(head + 16, number(data + 2), 8);
        store(head + 24, bytes, extended ? 8 : 4);
        say(fd, head, extended ? 32 : 28);
        if (data[0] == NBD_CMD_WRITE) {
            say(fd, zeroes, MIN(bytes, sizeof(zeroes)));
        }
    }
}

/* A client that does all as it should. */
static void check_server(void)
{
    static const uint8_t request[28] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 0,
                                         0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
                                         0, 0, 0, 0, 2, 0 };
    BlockNbdServerInfo info;
    uint8_t answer[16 + 512];
    int fd = client();

    lead(fd, 9);
    g_assert(send(fd, request, sizeof(request), MSG_NOSIGNAL) == 28);
    turn();
    g_assert(recv(fd, answer, sizeof(answer), 0) == sizeof(answer));
    g_assert(memcmp(answer, "\x67\x44\x66\x98\0\0\0\0", 8) == 0);
    close(fd);
    turn();
    g_assert(blk_nbd_server_query(graph, &info));
    g_assert(info.bytes_in_flight == 0 && info.nr_clients == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;

    if (!graph) {
        begin();
    }
    if (size == 0) {
        return 0;
    }
    fd = client();
    lead(fd, data[0]);
    if (!(data[0] & 16)) {
        say(fd, data + 1, size - 1);
    } else if (data[0] & 8) {
        say_requests(fd, data[0] & 2, data + 1, size - 1);
    } else {
        say_options(fd, data + 1, size - 1);
    }
    close(fd);
    turn();
    check_server();
    return 0;
}
