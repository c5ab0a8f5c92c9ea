/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library logs, as a tool prints it.
 */
#ifndef TOOL_LOG_H
#define TOOL_LOG_H

#include <stdint.h>

/**
 * From now on print warnings of the library like those of the tool, without
 * control characters, and of each place in the code at most LOG_LIMIT_PER_SEC
 * in a second: peers and images cause them.
 *
 * @clock_ns  a clock that never jumps
 */
void tool_log_begin(int64_t (*clock_ns)(void));

#endif /* TOOL_LOG_H */
