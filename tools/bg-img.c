/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-img: make, look at, check and change images.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-command.h"
#include "tools/tool-print.h"

static const ImgCommand commands[] = {
    { "amend", img_amend,
      "[-p] [-q] [-f fmt] [-t cache] -o options filename" },
    { "bitmap", img_bitmap,
      "(--add [-g granularity] | --remove | --clear | --enable | --disable | "
      "--merge source)... [-b source_file [-F source_fmt]] [-f fmt] filename "
      "bitmap" },
    { "check", img_check,
      "[-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T cache] [-U] "
      "filename" },
    { "compare", img_compare,
      "[-f fmt] [-F fmt] [-T cache] [-p] [-q] [-s] [-U] filename1 filename2" },
    { "convert", img_convert,
      "[-U] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T cache] [-O fmt] "
      "[-B backing [-F fmt]] [-o options] [-l snapshot] [-S sparse_size] "
      "[-m coroutines] [-W] filename [filename2 ...] output" },
    { "create", img_create,
      "[-q] [-f fmt] [-b backing [-F fmt]] [-u] [-o options] filename [size]" },
    { "info", img_info,
      "[-f fmt] [--output=ofmt] [--backing-chain] [-U] filename" },
    { "map", img_map,
      "[-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] "
      "[-U] filename" },
    { "measure", img_measure,
      "[--output=ofmt] [-O fmt] [-o options] [--size N | [-f fmt] "
      "[-l snapshot] filename]" },
    { "rebase", img_rebase,
      "[-q] [-f fmt] [-t cache] -u -b backing [-F fmt] filename" },
    { "resize", img_resize,
      "[-f fmt] [--preallocation=mode] [-q] [--shrink] filename [+ | -]size" },
    { "snapshot", img_snapshot,
      "[-U] [-q] [-f fmt] [-l | -a snapshot | -c snapshot | -d snapshot] "
      "filename" },
};

static void print_help(void)
{
    printf("Usage: bg-img [--help | --version] COMMAND [OPTIONS]...\n"
           "Make, look at, check and change disk images\n\n"
           "Commands:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("  %s [--object objectdef] [--image-opts] %s\n",
               commands[i].name, commands[i].args);
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
                printf("Usage: bg-img %s %s\n", commands[i].name,
                       commands[i].args);
                return EXIT_SUCCESS;
            }
            return commands[i].run(argc, argv);
        }
    }
    tool_error("Command not found: %s\n"
               "Try 'bg-img --help' for more information", argv[0]);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    g_set_prgname("bg-img");
    if (argc < 2) {
        tool_error("Not enough arguments\n"
                   "Try 'bg-img --help' for more information");
        return EXIT_FAILURE;
    }
    if (g_str_equal(argv[1], "--help") || g_str_equal(argv[1], "-h")) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (g_str_equal(argv[1], "--version") || g_str_equal(argv[1], "-V")) {
        printf("bg-img version %s\n", block_version());
        return EXIT_SUCCESS;
    }
    return run(argc - 1, argv + 1);
}
