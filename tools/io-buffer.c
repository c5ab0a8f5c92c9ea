/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of requests, patterns in it, and the lines of statistics.
 */
#include "tools/io-buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/tool-print.h"

/* As much as any device asks for, unless -m wants to be in the way. */
#define IO_BUFFER_ALIGNMENT 4096
#define IO_BUFFER_MISALIGN 16

static int alloc_block(IoSession *io, IoBuffer *buffer, int64_t bytes)
{
    size_t skip = io->misalign ? IO_BUFFER_MISALIGN : 0;

    g_assert(bytes >= 0 && bytes <= BDRV_REQUEST_MAX_BYTES);
    buffer->block = block_aligned_try_alloc(IO_BUFFER_ALIGNMENT,
                                            (size_t)bytes + skip);
    if (!buffer->block) {
        tool_error("Cannot get memory for %" PRId64 " bytes", bytes);
        return -ENOMEM;
    }
    buffer->data = buffer->block + skip;
    buffer->bytes = bytes;
    return 0;
}

int io_buffer_init(IoSession *io, IoBuffer *buffer, int64_t bytes)
{
    int ret = alloc_block(io, buffer, bytes);

    if (ret < 0) {
        return ret;
    }
    buffer->pieces = g_new0(struct iovec, 1);
    buffer->pieces->iov_base = buffer->data;
    buffer->pieces->iov_len = (size_t)bytes;
    block_iov_init_external(&buffer->vec, buffer->pieces, 1);
    return 0;
}

/* The sum of the lengths, each also put into @pieces. */
static int64_t parse_lengths(struct iovec *pieces, char **lengths, int nr)
{
    int64_t sum = 0;

    for (int i = 0; i < nr; i++) {
        int64_t bytes = tool_parse_size(lengths[i]);

        if (bytes < 0) {
            return bytes;
        }
        if (bytes > BDRV_REQUEST_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRId64 "\n",
                   lengths[i], BDRV_REQUEST_MAX_BYTES);
            return -EINVAL;
        }
        if (sum > BDRV_REQUEST_MAX_BYTES - bytes) {
            printf("The total number of bytes exceed the maximum size %"
                   PRId64 "\n", BDRV_REQUEST_MAX_BYTES);
            return -EINVAL;
        }
        pieces[i].iov_len = (size_t)bytes;
        sum += bytes;
    }
    return sum;
}

int io_buffer_parse(IoSession *io, IoBuffer *buffer, char **lengths, int nr)
{
    uint8_t *at;
    int64_t sum;
    int ret;

    g_assert(nr > 0);
    buffer->pieces = g_new0(struct iovec, nr);
    sum = parse_lengths(buffer->pieces, lengths, nr);
    ret = sum < 0 ? (int)sum : alloc_block(io, buffer, sum);
    if (ret < 0) {
        io_buffer_clear(buffer);
        return ret;
    }
    at = buffer->data;
    for (int i = 0; i < nr; i++) {
        buffer->pieces[i].iov_base = at;
        at += buffer->pieces[i].iov_len;
    }
    block_iov_init_external(&buffer->vec, buffer->pieces, nr);
    return 0;
}

/* Read what is wanted, or what there is.  Returns the bytes. */
static int64_t read_all(int fd, uint8_t *buf, int64_t bytes)
{
    int64_t done = 0;

    while (done < bytes) {
        ssize_t ret = read(fd, buf + done, (size_t)(bytes - done));

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret < 0) {
            return -errno;
        }
        if (ret == 0) {
            break;
        }
        done += ret;
    }
    return done;
}

static void print_file_error(const char *filename, const char *text)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", filename, text);
}

int io_buffer_fill_from_file(IoBuffer *buffer, const char *filename)
{
    int fd = open(filename, O_RDONLY | O_CLOEXEC);
    int64_t period;
    int64_t at;

    if (fd < 0) {
        int err = errno;

        print_file_error(filename, g_strerror(err));
        return -err;
    }
    period = read_all(fd, buffer->data, buffer->bytes);
    close(fd);
    if (period < 0) {
        print_file_error(filename, g_strerror((int)-period));
        return (int)period;
    }
    if (period == 0 && buffer->bytes > 0) {
        print_file_error(filename, "file is empty");
        return -EINVAL;
    }
    for (at = period; at < buffer->bytes; at += period) {
        memcpy(buffer->data + at, buffer->data,
               (size_t)MIN(period, buffer->bytes - at));
    }
    return 0;
}

void io_buffer_clear(IoBuffer *buffer)
{
    block_aligned_free(buffer->block);
    g_free(buffer->pieces);
    *buffer = (IoBuffer) { 0 };
}

int io_buffer_verify(const IoBuffer *buffer, int64_t start, int64_t bytes,
                     int byte, int64_t offset)
{
    g_assert(start >= 0 && bytes >= 0 && start <= buffer->bytes - bytes);
    for (int64_t i = 0; i < bytes; i++) {
        if (buffer->data[start + i] != byte) {
            printf("Pattern verification failed at offset %" PRId64 ", %"
                   PRId64 " bytes\n", offset + start, bytes);
            return -EINVAL;
        }
    }
    return 0;
}

void io_report(const IoReport *report)
{
    int64_t ns = tool_clock_ns() - report->begin_ns;
    double sec = (double)MAX(ns, 1) / 1e9;
    char time[TOOL_TEXT_MAX];
    char size[TOOL_TEXT_MAX];
    char rate[TOOL_TEXT_MAX];

    if (report->quiet) {
        return;
    }
    if (report->machine) {
        tool_format_time(ns, TOOL_TIME_FIXED, time);
        printf("%" PRId64 ",1,%s,%.3f,%.3f\n", report->bytes, time,
               (double)report->bytes / sec, 1 / sec);
        return;
    }
    tool_format_time(ns, TOOL_TIME_SHORT, time);
    tool_format_bytes((double)report->bytes, size);
    tool_format_bytes((double)report->bytes / sec, rate);
    printf("%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n",
           report->verb, report->bytes, report->bytes, report->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", size, time, rate,
           1 / sec);
}
