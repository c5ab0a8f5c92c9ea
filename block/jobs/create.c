/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Make an image, as a job: whoever asked need not wait.
 *
 * It cannot be stopped half-way.  One that is cancelled is concluded all the
 * same (J4), and what it has made is no image.
 */
#include "block/jobs/job.h"

#include <blockgraph/driver.h>
#include <blockgraph/image.h>
#include <errno.h>

typedef struct CreateJob {
    BlockJob job; /* first */
    BlockOptions *options; /* of the image */
} CreateJob;

static const BlockOption create_job_options[] = {
    { .name = "options", .type = BLOCK_OPTION_TREE, .required = true,
      .offset = offsetof(CreateJob, options),
      .help = "of the image: its driver, and the driver's create options" },
    { .type = BLOCK_OPTION_END },
};

static int check_driver(const CreateJob *s, GError **errp)
{
    const char *name = block_options_peek_str(s->options, "driver");
    const BlockDriver *driver = name ? bdrv_find_driver(name) : NULL;

    if (!name) {
        return block_error(errp, EINVAL, "Job '%s': the image needs the "
                           "option 'driver'", s->job.id);
    }
    if (!driver) {
        return block_error(errp, ENOENT, "Job '%s': there is no driver '%s'",
                           s->job.id, name);
    }
    return driver->create ? 0 : block_error(
        errp, ENOTSUP, "Job '%s': driver '%s' cannot make images", s->job.id,
        name);
}

static int coroutine_fn create_start(BlockJob *job, BlockOptions *options,
                                     GError **errp)
{
    static const BlockOption *const known[] = { create_job_options,
                                                block_job_common_options,
                                                NULL };
    CreateJob *s = (CreateJob *)job;
    g_autofree char *what = g_strdup_printf("Job '%s'", job->id);
    int ret = block_options_absorb(options, create_job_options, s, what, errp);

    if (ret < 0) {
        return ret;
    }
    ret = block_options_check_empty(options, known, what, errp);
    if (ret == 0) {
        ret = check_driver(s, errp);
    }
    if (ret < 0) {
        block_options_clear(create_job_options, s);
        return ret;
    }
    job_progress_grow(job, 1);
    return 0;
}

static int coroutine_fn create_run(BlockJob *job, GError **errp)
{
    CreateJob *s = (CreateJob *)job;
    int ret = bdrv_co_create(job->graph, g_steal_pointer(&s->options), errp);

    job_progress_done(job, 1);
    return ret;
}

static void coroutine_fn create_clean(BlockJob *job)
{
    block_options_clear(create_job_options, job);
}

const JobDriver job_driver_create = {
    .instance_size = sizeof(CreateJob),
    .type = BLOCK_JOB_CREATE,
    .options = create_job_options,
    .start = create_start,
    .run = create_run,
    .clean = create_clean,
};
