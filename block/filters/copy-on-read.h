/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-on-read: for a job that has put such a filter in.
 */
#ifndef BLOCK_FILTERS_COPY_ON_READ_H
#define BLOCK_FILTERS_COPY_ON_READ_H

#include <blockgraph/driver.h>

/** @bs, a copy-on-read node that was taken out, holds the chain down to its
 * "bottom" no more, whoever has a reference to it. */
void coroutine_fn cor_let_go(BlockDriverState *bs);

#endif /* BLOCK_FILTERS_COPY_ON_READ_H */
