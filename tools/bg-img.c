/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-img: make, look at, check and change images.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"
#include "tools/tool-trace.h"

static const ImgCommand commands[] = {
    { "amend", img_amend,
      "[-p] [-q] [-f fmt] [-t cache] [--force] -o options filename" },
    { "bench", img_bench,
      "[-c count] [-d depth] [-f fmt] [--flush-interval=interval] [-i aio] "
      "[-n] [--no-drain] [-o offset] [--pattern=pattern] [-q] "
      "[-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename" },
    { "bitmap", img_bitmap,
      "(--add [-g granularity] | --remove | --clear | --enable | --disable | "
      "--merge source)... [-b source_file [-F source_fmt]] [-f fmt] filename "
      "bitmap" },
    { "check", img_check,
      "[-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T cache] [-U] "
      "filename" },
    { "commit", img_commit,
      "[-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] "
      "filename" },
    { "compare", img_compare,
      "[-f fmt] [-F fmt] [-T cache] [-p] [-q] [-s] [-U] filename1 filename2" },
    { "convert", img_convert,
      "[--target-image-opts] [--target-is-zero] [--bitmaps "
      "[--skip-broken-bitmaps]] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] "
      "[-t cache] [-T cache] [-O fmt] [-B backing [-F fmt]] [-o options] "
      "[-l snapshot] [-S sparse_size] [-r rate_limit] [-m coroutines] [-W] "
      "[--salvage] filename [filename2 ...] output" },
    { "create", img_create,
      "[-q] [-f fmt] [-b backing [-F fmt]] [-u] [-o options] filename [size]" },
    { "dd", img_dd,
      "[-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] "
      "[skip=blocks] if=input of=output" },
    { "info", img_info,
      "[-f fmt] [--output=ofmt] [--backing-chain] [-U] filename" },
    { "map", img_map,
      "[-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] "
      "[-U] filename" },
    { "measure", img_measure,
      "[--output=ofmt] [-O fmt] [-o options] [--size N | [-f fmt] "
      "[-l snapshot] filename]" },
    { "rebase", img_rebase,
      "[-U] [-q] [-f fmt] [-t cache] [-T cache] [-p] [-u] -b backing "
      "[-F fmt] filename" },
    { "resize", img_resize,
      "[-f fmt] [--preallocation=mode] [-q] [--shrink] filename [+ | -]size" },
    { "snapshot", img_snapshot,
      "[-U] [-q] [-f fmt] [-l | -a snapshot | -c snapshot | -d snapshot] "
      "filename" },
};

static void print_help(void)
{
    printf("Usage: %s [--help | --version] [-T | --trace EVENTS] COMMAND "
           "[OPTIONS]...\n"
           "Make, look at, check and change disk images\n\n"
           "Commands:\n", g_get_prgname());
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("  %s [--object objectdef] %s[--image-timeout seconds] %s\n",
               commands[i].name,
               commands[i].run == img_create ? "" : "[--image-opts] ",
               commands[i].args);
    }
    printf("\n"
           "  fmt      format of the image; guessed from its content if it "
           "is not given\n"
           "  cache    none, writeback, writethrough, directsync, unsafe\n"
           "  size     in bytes; suffixes k M G T P E are powers of 1024\n"
           "  options  name=value,...; '-o help' lists those of the format\n"
           "  ofmt     human or json\n"
           "  -q       print nothing but errors\n"
           "  -p       show progress\n"
           "  -U       look at it even while others write\n"
           "\n"
           "Exit status: 0 done, 1 failed; 'check' has 2 (corrupt), 3 "
           "(leaks only),\n63 (no check for this format); 'compare' has 1 "
           "(differ), 2 to 4 (failed).\n");
}

static int run(int argc, char **argv)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (g_str_equal(argv[0], commands[i].name)) {
            if (argc == 2 && (g_str_equal(argv[1], "--help") ||
                              g_str_equal(argv[1], "-h"))) {
                printf("Usage: %s %s %s\n", g_get_prgname(),
                       commands[i].name, commands[i].args);
                return EXIT_SUCCESS;
            }
            return commands[i].run(argc, argv);
        }
    }
    tool_usage_error("Command not found: %s", argv[0]);
    return EXIT_FAILURE;
}

static int dispatch(int argc, char **argv);

/* -T TEXT, -TTEXT, --trace TEXT or --trace=TEXT, and what is behind it. */
static int take_trace(int argc, char **argv)
{
    size_t length = argv[1][1] == 'T' ? strlen("-T") : strlen("--trace");
    char *text = argv[1] + length;
    int used = 1;

    if (!*text) {
        used = 2;
        text = argv[2];
    } else if (argv[1][1] == '-') {
        text = *text == '=' ? text + 1 : NULL;
    }
    if (!text) {
        tool_usage_error(used == 2 ? "missing argument for option '%s'"
                                   : "unrecognized option '%s'", argv[1]);
        return EXIT_FAILURE;
    }
    if (tool_trace(text) < 0) {
        return EXIT_FAILURE;
    }
    if (argc - used < 2) {
        return EXIT_SUCCESS;    /* as qemu-img has it */
    }
    return dispatch(argc - used, argv + used);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        tool_usage_error("Not enough arguments");
        return EXIT_FAILURE;
    }
    if (g_str_equal(argv[1], "--help") || g_str_equal(argv[1], "-h")) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (g_str_equal(argv[1], "--version") || g_str_equal(argv[1], "-V")) {
        printf("%s version %s\n", g_get_prgname(), block_version());
        return EXIT_SUCCESS;
    }
    if (g_str_has_prefix(argv[1], "-T") ||
        g_str_has_prefix(argv[1], "--trace")) {
        return take_trace(argc, argv);
    }
    return run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    tool_set_program(argv, "bg-img");
    img_progress_init();
    return tool_finish(dispatch(argc, argv));
}
