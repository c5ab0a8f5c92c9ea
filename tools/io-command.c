/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding and running the commands of bg-io.
 */
#include "tools/io-command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tool-print.h"

static const IoCommand *const tables[] = {
    io_commands_aio, io_commands_control, io_commands_data, io_commands_debug,
    io_commands_image, io_commands_open,
};

static bool is_called(const IoCommand *command, const char *name)
{
    return g_str_equal(command->name, name) ||
           (command->alt_name && g_str_equal(command->alt_name, name));
}

static const IoCommand *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const IoCommand *c = tables[i]; c->name; c++) {
            if (is_called(c, name)) {
                return c;
            }
        }
    }
    return NULL;
}

/* @name is what the user called it. */
static void print_oneline(const IoCommand *command, const char *name)
{
    printf("%s ", name);
    if (command->args) {
        printf("%s ", command->args);
    }
    printf("-- %s\n", command->oneline);
}

int io_command_usage(const char *name)
{
    const IoCommand *command = find_command(name);

    print_oneline(command, command->name);
    return -EINVAL;
}

static int compare_names(const void *a, const void *b)
{
    const IoCommand *const *first = a;
    const IoCommand *const *second = b;

    return strcmp((*first)->name, (*second)->name);
}

static void print_all(void)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const IoCommand *c = tables[i]; c->name; c++) {
            g_ptr_array_add(all, (void *)c);
        }
    }
    g_ptr_array_sort(all, compare_names);
    for (guint i = 0; i < all->len; i++) {
        const IoCommand *command = g_ptr_array_index(all, i);

        print_oneline(command, command->name);
    }
    printf("\nUse 'help commandname' for extended help.\n");
}

int io_command_help(const char *name)
{
    const IoCommand *command;

    if (!name) {
        print_all();
        return 0;
    }
    command = find_command(name);
    if (!command) {
        printf("command %s not found\n", name);
        return -EINVAL;
    }
    print_oneline(command, name);
    if (command->help) {
        printf("\n%s\n", command->help);
    }
    return 0;
}

void io_getopt_start(void)
{
    optind = 0;     /* glibc: forget the last command, permute its arguments */
}

static int check_nr_args(const IoCommand *command, const char *name, int nr)
{
    if (nr >= command->args_min &&
        (command->args_max == IO_ARGS_ANY || nr <= command->args_max)) {
        return 0;
    }
    fflush(stdout);
    if (command->args_max == IO_ARGS_ANY) {
        fprintf(stderr, "bad argument count %d to %s, expected at least %d "
                "arguments\n", nr, name, command->args_min);
    } else if (command->args_min == command->args_max) {
        fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n",
                nr, name, command->args_min);
    } else {
        fprintf(stderr, "bad argument count %d to %s, expected between %d and "
                "%d arguments\n", nr, name, command->args_min,
                command->args_max);
    }
    return -EINVAL;
}

BlockPerm io_perm(uint64_t used)
{
    BlockPerm perm = { .used = used, .shared = BLK_PERM_ALL };

    if (used & BLK_PERM_WRITE) {
        /* Two writers of one image are a mistake, whoever the other is. */
        perm.shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    return perm;
}

int io_set_perm(IoSession *io, uint64_t perm, GError **errp)
{
    const BlockPerm both = io->share_all
        ? (BlockPerm){ .used = perm, .shared = BLK_PERM_ALL }
        : io_perm(perm);
    int ret = blk_set_perm(io->blk, &both, errp);

    if (ret == 0) {
        io->perm = perm;
    }
    return ret;
}

/* A permission is taken when the first command needs it, and kept. */
static int take_perm(IoSession *io, uint64_t wanted)
{
    GError *error = NULL;
    int ret;

    if ((wanted & BLK_PERM_WRITE) && bdrv_is_read_only(blk_bs(io->blk))) {
        tool_error("Block node is read-only");
        return -EACCES;
    }
    if ((io->perm & wanted) == wanted) {
        return 0;
    }
    ret = io_set_perm(io, io->perm | wanted, &error);
    if (ret < 0) {
        tool_report(error, NULL);
    }
    return ret;
}

static int run_words(IoSession *io, int argc, char **argv)
{
    const IoCommand *command = find_command(argv[0]);
    int ret;

    if (!command) {
        fflush(stdout);
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -EINVAL;
    }
    if (!command->no_file_ok && !io->blk) {
        fflush(stdout);
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    ret = check_nr_args(command, argv[0], argc - 1);
    if (ret < 0) {
        return ret;
    }
    if (!command->no_file_ok) {
        ret = take_perm(io, command->perm);
        if (ret < 0) {
            return ret;
        }
    }
    return command->run(io, argc, argv);
}

int io_command_run(IoSession *io, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    g_autofree char **argv = g_new0(char *, g_strv_length(words) + 1);
    int argc = 0;
    int ret = 0;

    for (char **word = words; *word; word++) {
        if (**word) {
            argv[argc++] = *word;
        }
    }
    if (argc > 0) {
        ret = run_words(io, argc, argv);
    }
    fflush(stdout);
    return ret;
}
