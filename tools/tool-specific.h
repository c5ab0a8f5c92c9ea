/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only the driver of an image knows of it, for people to read.
 */
#ifndef TOOL_SPECIFIC_H
#define TOOL_SPECIFIC_H

#include <jansson.h>

/**
 * Print @specific, what bdrv_get_specific_info() tells: its "data", a line a
 * value, under a heading.  Prints nothing when there are none.
 */
void tool_print_specific(const json_t *specific);

#endif /* TOOL_SPECIFIC_H */
