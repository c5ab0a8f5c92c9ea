/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * aio_read, aio_write, aio_flush: requests that go on while commands run.
 *
 * A job is allocated when a request is sent and freed by its completion, which
 * runs in this thread whenever some command turns the event loop.  The session
 * counts the jobs, so that aio_flush and close know when the last has ended.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/io-buffer.h"
#include "tools/tool-print.h"

typedef struct AioJob {
    IoSession *io;
    IoBuffer buffer;
    IoReport report;
    bool dump;          /* -v */
    bool has_pattern;   /* -P, of a read */
    int pattern;
    bool zero;          /* -z */
    bool invalid;       /* -i: meant to be refused */
    unsigned flags;
} AioJob;

static void job_free(AioJob *job)
{
    io_buffer_clear(&job->buffer);
    g_free(job);
}

static void job_sent(AioJob *job)
{
    job->io->nr_aio++;
}

static void job_ended(AioJob *job)
{
    g_assert(job->io->nr_aio > 0);
    job->io->nr_aio--;
    job_free(job);
    fflush(stdout);
}

static void write_ended(void *opaque, int ret)
{
    AioJob *job = opaque;

    if (ret < 0) {
        printf("aio_write failed: %s\n", g_strerror(-ret));
    } else {
        io_report(&job->report);
    }
    job_ended(job);
}

static void read_ended(void *opaque, int ret)
{
    AioJob *job = opaque;
    int64_t end_ns = tool_clock_ns();

    if (ret < 0) {
        printf("readv failed: %s\n", g_strerror(-ret));
        job_ended(job);
        return;
    }
    if (job->has_pattern) {
        io_buffer_verify(&job->buffer, 0, job->buffer.bytes, job->pattern,
                         job->report.offset);
    }
    if (job->dump && !job->report.quiet) {
        tool_print_hex(job->buffer.data, job->report.offset,
                       job->buffer.bytes);
    }
    job->report.begin_ns += tool_clock_ns() - end_ns;
    io_report(&job->report);
    job_ended(job);
}

/* The request of -i was counted as invalid: that is all it was for. */
static void invalid_ended(void *opaque, int ret)
{
    g_assert(ret < 0);
    job_ended(opaque);
}

static int parse_options(AioJob *job, int argc, char **argv,
                         const char *letters)
{
    int letter;

    io_getopt_start();
    while ((letter = getopt(argc, argv, letters)) != -1) {
        switch (letter) {
        case 'C': job->report.machine = true; break;
        case 'f': job->flags |= BDRV_REQ_FUA; break;
        case 'i': job->invalid = true; break;
        case 'q': job->report.quiet = true; break;
        case 'u': job->flags |= BDRV_REQ_MAY_UNMAP; break;
        case 'v': job->dump = true; break;
        case 'z': job->zero = true; break;
        case 'P':
            job->pattern = tool_parse_byte(optarg);
            if (job->pattern < 0) {
                return job->pattern;
            }
            job->has_pattern = true;
            break;
        default:
            return io_command_usage(argv[0]);
        }
    }
    return optind > argc - 2 ? io_command_usage(argv[0]) : 0;
}

/* Send a request that the backend refuses, in place of the one asked for. */
static void send_invalid(AioJob *job, bool is_write)
{
    printf("injecting invalid %s request\n", is_write ? "write" : "read");
    job_sent(job);
    if (is_write) {
        blk_aio_pwritev(job->io->blk, -1, &job->buffer.vec, 0, invalid_ended,
                        job);
    } else {
        blk_aio_preadv(job->io->blk, -1, &job->buffer.vec, 0, invalid_ended,
                       job);
    }
}

static int prepare_read(AioJob *job, int argc, char **argv)
{
    int ret = parse_options(job, argc, argv, "CiP:qv");

    if (ret < 0) {
        return ret;
    }
    job->report.verb = "read";
    job->report.offset = tool_parse_size(argv[optind]);
    if (job->report.offset < 0) {
        return (int)job->report.offset;
    }
    optind++;
    ret = io_buffer_parse(job->io, &job->buffer, &argv[optind], argc - optind);
    job->report.bytes = job->buffer.bytes;
    return ret;
}

static int aio_read_run(IoSession *io, int argc, char **argv)
{
    AioJob *job = g_new0(AioJob, 1);
    int ret;

    job->io = io;
    ret = prepare_read(job, argc, argv);
    if (ret < 0) {
        job_free(job);
        return ret;
    }
    if (job->invalid) {
        send_invalid(job, false);
        return 0;
    }
    job_sent(job);
    job->report.begin_ns = tool_clock_ns();
    blk_aio_preadv(io->blk, job->report.offset, &job->buffer.vec, 0,
                   read_ended, job);
    return 0;
}

static int check_write_options(const AioJob *job, int nr_lengths)
{
    if (job->zero && nr_lengths != 1) {
        printf("-z supports only a single length parameter\n");
        return -EINVAL;
    }
    if ((job->flags & BDRV_REQ_MAY_UNMAP) && !job->zero) {
        printf("-u requires -z to be specified\n");
        return -EINVAL;
    }
    if (job->zero && job->has_pattern) {
        printf("-z and -P cannot be specified at the same time\n");
        return -EINVAL;
    }
    return 0;
}

static int prepare_write(AioJob *job, int argc, char **argv)
{
    int ret = parse_options(job, argc, argv, "CfiP:quz");

    if (ret == 0) {
        ret = check_write_options(job, argc - optind - 1);
    }
    if (ret < 0) {
        return ret;
    }
    job->report.verb = "wrote";
    job->report.offset = tool_parse_size(argv[optind]);
    if (job->report.offset < 0) {
        return (int)job->report.offset;
    }
    optind++;
    if (job->zero) {
        job->report.bytes = tool_parse_size(argv[optind]);
        return (int)MIN(job->report.bytes, 0);
    }
    ret = io_buffer_parse(job->io, &job->buffer, &argv[optind], argc - optind);
    if (ret < 0) {
        return ret;
    }
    job->report.bytes = job->buffer.bytes;
    memset(job->buffer.data, job->has_pattern ? job->pattern : IO_BYTE_WRITE,
           (size_t)job->buffer.bytes);
    return 0;
}

static int aio_write_run(IoSession *io, int argc, char **argv)
{
    AioJob *job = g_new0(AioJob, 1);
    int ret;

    job->io = io;
    ret = prepare_write(job, argc, argv);
    if (ret < 0) {
        job_free(job);
        return ret;
    }
    if (job->invalid) {
        send_invalid(job, true);
        return 0;
    }
    job_sent(job);
    job->report.begin_ns = tool_clock_ns();
    if (job->zero) {
        blk_aio_pwrite_zeroes(io->blk, job->report.offset, job->report.bytes,
                              job->flags, write_ended, job);
    } else {
        blk_aio_pwritev(io->blk, job->report.offset, &job->buffer.vec,
                        job->flags, write_ended, job);
    }
    return 0;
}

static int aio_flush_run(IoSession *io, int argc, char **argv)
{
    AioContext *ctx = block_graph_aio_context(io->graph);

    while (io->nr_aio > 0) {
        const char *tag = io_suspended_tag(io);

        if (tag) {
            /* While we wait nobody could give the command that lets it go. */
            printf("A request is suspended as '%s' and does not end before it "
                   "is resumed\n", tag);
            return -EBUSY;
        }
        aio_poll(ctx, true);
    }
    return 0;
}

const IoCommand io_commands_aio[] = {
    { .name = "aio_read", .run = aio_read_run,
      .args_min = 2, .args_max = IO_ARGS_ANY,
      .args = "[-Ciqv] [-P pattern] off len [len..]",
      .oneline = "asynchronously reads a number of bytes",
      .help =
      " Sends a read of one or more pieces and goes on with the next command.\n"
      " What became of it is printed when it ends, at the latest by aio_flush;\n"
      " it has no effect on the exit status.\n"
      "\n"
      " -C  statistics as figures separated by commas\n"
      " -i  send an invalid request instead, for the accounting\n"
      " -P  every byte must be this one, else a line says so\n"
      " -q  no statistics\n"
      " -v  show the data\n" },
    { .name = "aio_write", .run = aio_write_run,
      .args_min = 2, .args_max = IO_ARGS_ANY, .perm = BLK_PERM_WRITE,
      .args = "[-Cfiquz] [-P pattern] off len [len..]",
      .oneline = "asynchronously writes a number of bytes",
      .help =
      " Sends a write of one or more pieces and goes on with the next command.\n"
      " What became of it is printed when it ends, at the latest by aio_flush;\n"
      " it has no effect on the exit status.\n"
      "\n"
      " -C  statistics as figures separated by commas\n"
      " -f  on stable storage when the request ends\n"
      " -i  send an invalid request instead, for the accounting\n"
      " -P  this byte instead of 0xcd\n"
      " -q  no statistics\n"
      " -u  with -z: the space may be given up\n"
      " -z  make the range read as zero\n" },
    { .name = "aio_flush", .run = aio_flush_run,
      .oneline = "completes all outstanding aio requests" },
    { 0 },
};
