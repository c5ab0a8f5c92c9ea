/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of bg-io: one table a file, one session for all.
 *
 * Everything here runs in the main thread.
 */
#ifndef IO_COMMAND_H
#define IO_COMMAND_H

#include <blockgraph/backend.h>

#include "tools/tool-image.h"

/** What the commands work on. */
typedef struct IoSession {
    BlockGraph *graph;
    BlockBackend *blk;  /* NULL: no file is open */
    uint64_t perm;      /* BLK_PERM_* that @blk has taken */
    unsigned nr_aio;    /* asynchronous requests that have not ended */
    GHashTable *told;   /* tags whose suspension was printed (a set) */
    GPtrArray *tags;    /* of break points, as they were set */
    bool share_all;     /* whatever is done with the file, others may, too */
    bool misalign;      /* -m: buffers that no O_DIRECT likes */
    bool quit;          /* set by "quit" */
} IoSession;

/** The body of a command; argv[0] is its name.  0 or a negative errno. */
typedef int IoCommandFn(IoSession *io, int argc, char **argv);

/** A number of arguments that knows no upper limit. */
#define IO_ARGS_ANY (-1)

typedef struct IoCommand {
    const char *name;
    const char *alt_name;   /* a second name, or NULL */
    IoCommandFn *run;
    int args_min;           /* without the name */
    int args_max;           /* or IO_ARGS_ANY */
    bool no_file_ok;        /* runs without an open file */
    uint64_t perm;          /* BLK_PERM_* that it needs beside reading */
    const char *args;       /* synopsis of the arguments, or NULL */
    const char *oneline;
    const char *help;       /* further lines of help, or NULL */
} IoCommand;

/** Tables, each closed by an entry without a name. */
extern const IoCommand io_commands_aio[];
extern const IoCommand io_commands_control[];
extern const IoCommand io_commands_data[];
extern const IoCommand io_commands_debug[];
extern const IoCommand io_commands_image[];
extern const IoCommand io_commands_open[];

/**
 * Run the command line @line: words separated by blanks.  An empty line does
 * nothing.
 *
 * Returns 0, or a negative errno when the command failed; what there is to say
 * about it has been printed.
 */
int io_command_run(IoSession *io, const char *line);

/** Print the one-line usage of the command called @name.  Returns -EINVAL. */
int io_command_usage(const char *name);

/** Print all commands (@name NULL), or the help of one; -EINVAL: none such. */
int io_command_help(const char *name);

/** What bg-io shares with others while it uses @used. */
BlockPerm io_perm(uint64_t used);

/**
 * Take the permissions @perm for the open file and give back all others.
 * Returns 0, or a negative errno with @errp set.
 */
int io_set_perm(IoSession *io, uint64_t perm, GError **errp);

/**
 * Put the option @letter of getopt(3), which the program and "open" both have,
 * into @image.
 *
 * Returns 0; a negative errno, printed; or 1 when the letter is not one of
 * those.
 */
int io_image_option(ToolImage *image, int letter);

/** Begin to read the options of a command with getopt(3). */
void io_getopt_start(void);

/**
 * Open the image @name (NULL: all is said in @extra) into @io.
 *
 * @extra  options of the top node, or NULL; taken over
 *
 * Returns 0 or a negative errno; errors have been printed.
 */
int io_open(IoSession *io, const ToolImage *image, const char *name,
            BlockOptions *extra);

/** The tag of a request that is held at a break point; NULL: none is. */
const char *io_suspended_tag(IoSession *io);

/** Forget all break points; the requests that they hold go on. */
void io_resume_all(IoSession *io);

/**
 * Let suspended requests go, wait for all requests and close the open file, if
 * there is one.
 */
void io_close(IoSession *io);

#endif /* IO_COMMAND_H */
