/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two kinds of commit share: of layers below the one that guests write
 * to (commit.c), and of that one, which has to be followed while it is copied:
 * a mirror to the base (active-commit.c).
 */
#ifndef BLOCK_JOBS_COMMIT_H
#define BLOCK_JOBS_COMMIT_H

#include "block/jobs/chain.h"

/** The options of a commit. */
typedef struct CommitOptions {
    char *device;
    char *top;
    char *base;
    char *backing_file;
    bool mask_protocol;
    int on_error; /* BlockOnError */
    char *filter_node_name;
    int64_t max_workers;
} CommitOptions;

/** How they are given. */
extern const BlockOption commit_options[];

/** The kind for the highest layer. */
extern const JobDriver job_driver_active_commit;

#endif /* BLOCK_JOBS_COMMIT_H */
