/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-nbd: what a command line says.
 */
#ifndef TOOLS_NBD_ARGS_H
#define TOOLS_NBD_ARGS_H

#include "tools/tool-image.h"

#include <blockgraph/options.h>

/** A command line; the texts point into it. */
typedef struct NbdArgs {
    ToolImage image;
    const char *name;           /* of the image */
    const char *load_snapshot;  /* show this internal snapshot, or NULL */
    const char *socket_path;    /* NULL: TCP */
    const char *bind;           /* NULL: this machine alone */
    const char *port;
    const char *export_name;
    const char *description;
    const char *bitmap;
    const char *detect_zeroes;  /* or NULL */
    const char *pid_file;
    const char *tls_creds;
    const char *tls_hostname;
    bool allocation_depth;
    bool persistent;
    bool fork;
    bool list;
    bool snapshot;
    bool plain_text;
    bool any_uid;
    bool verbose;
    unsigned given;             /* bits: what may be given once */
    int shared;                 /* clients at a time; 0: no limit */
} NbdArgs;

/**
 * Read the command line.  Returns -1 to go on, else the exit status; the reason
 * has been printed.
 */
int nbd_args_parse(NbdArgs *args, int argc, char **argv);

/** Do --list: print what a server exports.  Returns the exit status. */
int nbd_list(const NbdArgs *args);

#endif /* TOOLS_NBD_ARGS_H */
