/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that open images again.
 */
#ifndef IMG_NAME_H
#define IMG_NAME_H

#include <blockgraph/block.h>

/**
 * What names the image @bs for people and for the next command: a path or
 * another plain name, or "json:{...}" where there is none.  g_free() it.
 */
char *img_name_of(BlockDriverState *bs);

#endif /* IMG_NAME_H */
