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

#endif /* BLOCK_GRAPH_IMAGE_STEP_H */
