/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long an image may keep us busy: for drivers that wait for others.
 */
#ifndef BLOCK_GRAPH_IMAGE_STEP_H
#define BLOCK_GRAPH_IMAGE_STEP_H

#include <blockgraph/block.h>

/**
 * When what goes on with the image of @bs has to end, by aio_clock_ns();
 * AIO_NO_DEADLINE without a limit.  Thread: main.
 */
int64_t image_step_deadline_ns(const BlockDriverState *bs);

/**
 * When a request to @bs has to end: it is one of an image above that is being
 * opened or checked, as there is no other user.  AIO_NO_DEADLINE: it may be of
 * another user, or there is no limit.  Thread: main.
 */
int64_t image_request_deadline_ns(const BlockDriverState *bs);

#endif /* BLOCK_GRAPH_IMAGE_STEP_H */
