/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The option -T of all tools.
 */
#ifndef TOOL_TRACE_H
#define TOOL_TRACE_H

/**
 * Take what -T or --trace says, "[[enable=]PATTERN][,events=FILE][,file=FILE]":
 * there are no events, so each that is named is warned of, as of one that does
 * not exist; "help" lists none and ends the program.
 *
 * Returns 0 or a negative errno, printed.
 */
int tool_trace(const char *text);

#endif /* TOOL_TRACE_H */
