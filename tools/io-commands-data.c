/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * read, readv, write, writev, discard, flush: one request each, to its end.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/io-buffer.h"
#include "tools/tool-print.h"

/* The unit of compressed writes and of saved machine state. */
#define SECTOR_BYTES 512

/* What the options of a command have said. */
typedef struct DataOptions {
    bool vmstate;       /* -b */
    bool compress;      /* -c */
    bool machine;       /* -C */
    bool fua;           /* -f */
    bool no_fallback;   /* -n */
    bool quiet;         /* -q */
    bool unmap;         /* -u */
    bool dump;          /* -v */
    bool zero;          /* -z */
    bool has_pattern;   /* -P */
    int pattern;
    const char *source; /* write -s */
    bool has_window;    /* read -s or -l */
    bool has_window_bytes;
    int64_t window_start;
    int64_t window_bytes;
} DataOptions;

static int fail(const char *what, int ret)
{
    printf("%s failed: %s\n", what, g_strerror(-ret));
    return ret;
}

static int parse_pattern(DataOptions *o)
{
    int byte = tool_parse_byte(optarg);

    if (byte < 0) {
        return byte;
    }
    o->has_pattern = true;
    o->pattern = byte;
    return 0;
}

/* -s and -l of read: the part of the data that is compared. */
static int parse_window(DataOptions *o, int letter)
{
    int64_t value = tool_parse_size(optarg);

    if (value < 0) {
        return (int)value;
    }
    o->has_window = true;
    if (letter == 's') {
        o->window_start = value;
    } else {
        o->has_window_bytes = true;
        o->window_bytes = value;
    }
    return 0;
}

static bool *flag_of(DataOptions *o, int letter)
{
    switch (letter) {
    case 'b': return &o->vmstate;
    case 'c': return &o->compress;
    case 'C': return &o->machine;
    case 'f': return &o->fua;
    case 'n': return &o->no_fallback;
    case 'q': return &o->quiet;
    case 'u': return &o->unmap;
    case 'v': return &o->dump;
    case 'z': return &o->zero;
    default: return NULL;
    }
}

/*
 * Read the options in @letters (as for getopt).  -s is the window of a read,
 * or the source of a write if @is_write.
 */
static int parse_options(DataOptions *o, int argc, char **argv,
                         const char *letters, bool is_write)
{
    int letter;
    int ret;

    io_getopt_start();
    while ((letter = getopt(argc, argv, letters)) != -1) {
        ret = 0;
        if (letter == 'p') {
            continue;       /* once meant something */
        } else if (letter == 'P') {
            ret = parse_pattern(o);
        } else if (letter == 's' && is_write) {
            o->source = optarg;
        } else if (letter == 's' || letter == 'l') {
            ret = parse_window(o, letter);
        } else if (flag_of(o, letter)) {
            *flag_of(o, letter) = true;
        } else {
            return io_command_usage(argv[0]);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * Offset and length of a command with exactly two arguments.  A length above
 * that of a request is refused with @limit_text, unless that is NULL.
 */
static int parse_range(int argc, char **argv, const char *limit_text,
                       int64_t *offset, int64_t *bytes)
{
    if (optind != argc - 2) {
        return io_command_usage(argv[0]);
    }
    *offset = tool_parse_size(argv[optind]);
    if (*offset < 0) {
        return (int)*offset;
    }
    *bytes = tool_parse_size(argv[optind + 1]);
    if (*bytes < 0) {
        return (int)*bytes;
    }
    if (limit_text && *bytes > BDRV_REQUEST_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 "%s, given %s\n",
               BDRV_REQUEST_MAX_BYTES, limit_text, argv[optind + 1]);
        return -EINVAL;
    }
    return 0;
}

/* Offset and pieces of a command with one offset and any number of lengths. */
static int parse_pieces(IoSession *io, int argc, char **argv, int64_t *offset,
                        IoBuffer *buffer)
{
    if (optind > argc - 2) {
        return io_command_usage(argv[0]);
    }
    *offset = tool_parse_size(argv[optind]);
    if (*offset < 0) {
        return (int)*offset;
    }
    optind++;
    return io_buffer_parse(io, buffer, &argv[optind], argc - optind);
}

static int check_sectors(int64_t offset, int64_t bytes)
{
    if (offset % SECTOR_BYTES) {
        printf("%" PRId64 " is not a sector-aligned value for 'offset'\n",
               offset);
        return -EINVAL;
    }
    if (bytes % SECTOR_BYTES) {
        printf("%" PRId64 " is not a sector-aligned value for 'count'\n",
               bytes);
        return -EINVAL;
    }
    return 0;
}

static IoReport report_of(const DataOptions *o, const char *verb,
                          int64_t offset, int64_t bytes)
{
    return (IoReport) { .verb = verb, .offset = offset, .bytes = bytes,
                        .quiet = o->quiet, .machine = o->machine,
                        .begin_ns = tool_clock_ns() };
}

/* --- reading -------------------------------------------------------------- */

static int check_window(DataOptions *o, int64_t bytes)
{
    if (!o->has_window_bytes) {
        o->window_bytes = bytes - o->window_start;
    }
    if (o->window_start > bytes ||
        o->window_bytes > bytes - o->window_start) {
        printf("pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    return 0;
}

/* Read into @buffer, compare, dump, report. */
static int do_read(IoSession *io, const DataOptions *o, IoBuffer *buffer,
                   int64_t offset, const char *what)
{
    IoReport report = report_of(o, "read", offset, buffer->bytes);
    int64_t end_ns;
    int ret;

    /* No format of this version holds machine state. */
    ret = o->vmstate ? -ENOTSUP : blk_preadv(io->blk, offset, buffer->bytes,
                                             &buffer->vec, 0);
    end_ns = tool_clock_ns();
    if (ret < 0) {
        return fail(what, ret);
    }
    if (o->has_pattern) {
        ret = io_buffer_verify(buffer, o->window_start, o->window_bytes,
                               o->pattern, offset);
    }
    if (o->quiet) {
        return ret;
    }
    if (o->dump) {
        tool_print_hex(buffer->data, offset, buffer->bytes);
    }
    /* Neither comparing nor dumping is part of the time. */
    report.begin_ns += tool_clock_ns() - end_ns;
    io_report(&report);
    return ret;
}

static int read_run(IoSession *io, int argc, char **argv)
{
    DataOptions o = { 0 };
    IoBuffer buffer = { 0 };
    int64_t offset;
    int64_t bytes;
    int ret = parse_options(&o, argc, argv, "bCl:pP:qs:v", false);

    if (ret < 0) {
        return ret;
    }
    ret = parse_range(argc, argv, "", &offset, &bytes);
    if (ret < 0) {
        return ret;
    }
    if (!o.has_pattern && o.has_window) {
        return io_command_usage(argv[0]);
    }
    ret = o.has_pattern ? check_window(&o, bytes) : 0;
    if (ret == 0 && o.vmstate) {
        ret = check_sectors(offset, bytes);
    }
    if (ret == 0) {
        ret = io_buffer_init(io, &buffer, bytes);
    }
    if (ret == 0) {
        ret = do_read(io, &o, &buffer, offset, "read");
    }
    io_buffer_clear(&buffer);
    return ret;
}

static int readv_run(IoSession *io, int argc, char **argv)
{
    DataOptions o = { 0 };
    IoBuffer buffer = { 0 };
    int64_t offset;
    int ret = parse_options(&o, argc, argv, "CP:qv", false);

    if (ret < 0) {
        return ret;
    }
    ret = parse_pieces(io, argc, argv, &offset, &buffer);
    if (ret < 0) {
        return ret;
    }
    o.window_bytes = buffer.bytes;
    ret = do_read(io, &o, &buffer, offset, "readv");
    io_buffer_clear(&buffer);
    return ret;
}

/* --- writing -------------------------------------------------------------- */

static const char *conflict(const DataOptions *o)
{
    if (o->vmstate && o->zero) {
        return "-b and -z cannot be specified at the same time";
    }
    if (o->fua && (o->vmstate || o->compress)) {
        return "-f and -b or -c cannot be specified at the same time";
    }
    if (o->no_fallback && !o->zero) {
        return "-n requires -z to be specified";
    }
    if (o->unmap && !o->zero) {
        return "-u requires -z to be specified";
    }
    if (o->zero + o->has_pattern + (o->source != NULL) > 1) {
        return "Only one of -z, -P, and -s can be specified at the same time";
    }
    return NULL;
}

static unsigned request_flags(const DataOptions *o)
{
    return (o->fua ? BDRV_REQ_FUA : 0) |
           (o->unmap ? BDRV_REQ_MAY_UNMAP : 0) |
           (o->no_fallback ? BDRV_REQ_NO_FALLBACK : 0) |
           (o->compress && !o->zero ? BDRV_REQ_WRITE_COMPRESSED : 0);
}

/* Write the buffer, or zeroes of any length without one; report. */
static int do_write(IoSession *io, const DataOptions *o, IoBuffer *buffer,
                    const IoReport *range, const char *what)
{
    IoReport report = report_of(o, "wrote", range->offset, range->bytes);
    int ret;

    if (o->vmstate) {
        ret = -ENOTSUP;     /* as for reads */
    } else if (o->zero) {
        ret = blk_pwrite_zeroes(io->blk, report.offset, report.bytes,
                                request_flags(o));
    } else {
        ret = blk_pwritev(io->blk, report.offset, report.bytes, &buffer->vec,
                          request_flags(o));
    }
    if (ret < 0) {
        return fail(what, ret);
    }
    io_report(&report);
    return 0;
}

static int fill(const DataOptions *o, IoBuffer *buffer)
{
    if (o->source) {
        return io_buffer_fill_from_file(buffer, o->source);
    }
    memset(buffer->data, o->has_pattern ? o->pattern : IO_BYTE_WRITE,
           (size_t)buffer->bytes);
    return 0;
}

static int write_run(IoSession *io, int argc, char **argv)
{
    DataOptions o = { 0 };
    IoBuffer buffer = { 0 };
    IoReport range = { 0 };
    int ret = parse_options(&o, argc, argv, "bcCfnpP:qs:uz", true);

    if (ret < 0) {
        return ret;
    }
    /* Arguments that are missing are told first, by parse_range(). */
    if (optind == argc - 2 && conflict(&o)) {
        printf("%s\n", conflict(&o));
        return -EINVAL;
    }
    /* Zeroes without data may be of any length. */
    ret = parse_range(argc, argv, o.no_fallback ? NULL : " without -n",
                      &range.offset, &range.bytes);
    if (ret == 0 && (o.vmstate || o.compress)) {
        ret = check_sectors(range.offset, range.bytes);
    }
    if (ret == 0 && !o.zero) {
        ret = io_buffer_init(io, &buffer, range.bytes);
        ret = ret < 0 ? ret : fill(&o, &buffer);
    }
    if (ret == 0) {
        ret = do_write(io, &o, &buffer, &range, "write");
    }
    io_buffer_clear(&buffer);
    return ret;
}

static int writev_run(IoSession *io, int argc, char **argv)
{
    DataOptions o = { 0 };
    IoBuffer buffer = { 0 };
    IoReport range = { 0 };
    int ret = parse_options(&o, argc, argv, "CfP:q", true);

    if (ret < 0) {
        return ret;
    }
    ret = parse_pieces(io, argc, argv, &range.offset, &buffer);
    if (ret < 0) {
        return ret;
    }
    range.bytes = buffer.bytes;
    fill(&o, &buffer);
    ret = do_write(io, &o, &buffer, &range, "writev");
    io_buffer_clear(&buffer);
    return ret;
}

/* --- discard, flush ------------------------------------------------------- */

static int discard_run(IoSession *io, int argc, char **argv)
{
    DataOptions o = { 0 };
    IoReport report;
    int64_t offset;
    int64_t bytes;
    int ret = parse_options(&o, argc, argv, "Cq", false);

    if (ret < 0) {
        return ret;
    }
    ret = parse_range(argc, argv, "", &offset, &bytes);
    if (ret < 0) {
        return ret;
    }
    report = report_of(&o, "discard", offset, bytes);
    ret = blk_pdiscard(io->blk, offset, bytes);
    if (ret < 0) {
        return fail("discard", ret);
    }
    io_report(&report);
    return 0;
}

static int flush_run(IoSession *io, int argc, char **argv)
{
    int ret = blk_flush(io->blk);

    return ret < 0 ? fail("flush", ret) : 0;
}

const IoCommand io_commands_data[] = {
    { .name = "read", .alt_name = "r", .run = read_run,
      .args_min = 2, .args_max = IO_ARGS_ANY,
      .args = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
      .oneline = "reads a number of bytes at a specified offset",
      .help =
      " Reads len bytes from byte off of the open image into memory.\n"
      "\n"
      "   read -v 512 1k      show the kilobyte behind the first 512 bytes\n"
      "\n"
      " -b  from saved machine state instead of the disk\n"
      " -C  statistics as figures separated by commas\n"
      " -P  every byte must be this one, else the command fails\n"
      " -s  with -P: where in the data the comparison begins\n"
      " -l  with -P: how many bytes are compared\n"
      " -q  no statistics\n"
      " -v  show the data\n"
      " -p  accepted, without effect\n" },
    { .name = "readv", .run = readv_run,
      .args_min = 2, .args_max = IO_ARGS_ANY,
      .args = "[-Cqv] [-P pattern] off len [len..]",
      .oneline = "reads a number of bytes at a specified offset",
      .help =
      " Reads from byte off on into several pieces of memory at once.\n"
      "\n"
      "   readv -v 512 1k 1k  show two kilobytes, read as two pieces\n"
      "\n"
      " -C  statistics as figures separated by commas\n"
      " -P  every byte must be this one, else the command fails\n"
      " -q  no statistics\n"
      " -v  show the data\n" },
    { .name = "write", .alt_name = "w", .run = write_run,
      .args_min = 2, .args_max = IO_ARGS_ANY, .perm = BLK_PERM_WRITE,
      .args = "[-bcCfnquz] [-P pattern | -s source_file] off len",
      .oneline = "writes a number of bytes at a specified offset",
      .help =
      " Writes len bytes, each 0xcd, at byte off of the open image.\n"
      "\n"
      "   write -P 7 512 1k   a kilobyte of sevens behind the first 512 bytes\n"
      "\n"
      " -b  to saved machine state instead of the disk\n"
      " -c  compressed\n"
      " -C  statistics as figures separated by commas\n"
      " -f  on stable storage when the command ends\n"
      " -n  with -z: fail where zeroes would have to be written as data\n"
      " -P  this byte instead of 0xcd\n"
      " -q  no statistics\n"
      " -s  the content of this file, again and again\n"
      " -u  with -z: the space may be given up\n"
      " -z  make the range read as zero\n"
      " -p  accepted, without effect\n" },
    { .name = "writev", .run = writev_run,
      .args_min = 2, .args_max = IO_ARGS_ANY, .perm = BLK_PERM_WRITE,
      .args = "[-Cfq] [-P pattern] off len [len..]",
      .oneline = "writes a number of bytes at a specified offset",
      .help =
      " Writes from several pieces of memory at once to byte off on.\n"
      "\n"
      "   writev 512 1k 1k    two kilobytes, given as two pieces\n"
      "\n"
      " -C  statistics as figures separated by commas\n"
      " -f  on stable storage when the command ends\n"
      " -P  this byte instead of 0xcd\n"
      " -q  no statistics\n" },
    { .name = "discard", .alt_name = "d", .run = discard_run,
      .args_min = 2, .args_max = IO_ARGS_ANY, .perm = BLK_PERM_WRITE,
      .args = "[-Cq] off len",
      .oneline = "discards a number of bytes at a specified offset",
      .help =
      " Tells the storage that the range is not needed any more.\n"
      "\n"
      " -C  statistics as figures separated by commas\n"
      " -q  no statistics\n" },
    { .name = "flush", .alt_name = "f", .run = flush_run,
      .oneline = "flush all in-core file state to disk" },
    { 0 },
};
