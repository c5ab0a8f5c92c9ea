/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the tools read and print numbers, and how they print errors.
 */
#ifndef TOOL_PRINT_H
#define TOOL_PRINT_H

#include <blockgraph/error.h>

/** Room for any text of tool_format_bytes() and tool_format_time(). */
#define TOOL_TEXT_MAX 64

/** How tool_format_time() writes a time of less than a minute. */
typedef enum ToolTimeStyle {
    TOOL_TIME_SHORT, /* "01.25 sec" */
    TOOL_TIME_FIXED, /* "0:00:01.25", whatever the length */
} ToolTimeStyle;

/**
 * Write @bytes with the largest unit of which it has one, as "64 KiB",
 * "1.500 KiB" or "512 bytes", to @text.  Returns @text.
 */
char *tool_format_bytes(double bytes, char text[static TOOL_TEXT_MAX]);

/**
 * Write @ns nanoseconds as hours, minutes and seconds with two decimals to
 * @text.  Returns @text.
 */
char *tool_format_time(int64_t ns, ToolTimeStyle style,
                       char text[static TOOL_TEXT_MAX]);

/** Nanoseconds of a clock that never jumps. */
int64_t tool_clock_ns(void);

/**
 * Print @bytes of @buf to standard output, 16 a line, each line with its
 * position, the first one being @offset, in hexadecimal and as characters.
 */
void tool_print_hex(const uint8_t *buf, int64_t offset, int64_t bytes);

/**
 * Parse what a person types for an offset or a length; see block_parse_size().
 * Prints the reason to standard output when it is none.
 *
 * Returns the value, or -EINVAL or -ERANGE.
 */
int64_t tool_parse_size(const char *text);

/**
 * Parse what a person types for a byte to fill memory with, 0 to 255 in any C
 * notation.  Prints the reason to standard output when it is none.
 *
 * Returns the byte, or -EINVAL.
 */
int tool_parse_byte(const char *text);

/**
 * Have messages, those of getopt_long() and those that the library logs, too,
 * begin with the last part of @argv[0], or with @usual if there is none.  To be
 * called first: it opens standard streams that are closed.
 */
void tool_set_program(char **argv, const char *usual);

/**
 * The exit status of a tool that prints what it was asked for: @status, or
 * failure if some of that could not be written, which is told.
 */
int tool_finish(int status);

/**
 * @text, which may come from an image or a server, as it can be printed: what
 * could steer the terminal, forge a line or turn the direction of writing is
 * written as in the texts of errors.  g_free() it.
 */
char *tool_safe_text(const char *text);

/** Print a line "PROGRAM: text" to standard error.  The text may have more
 * lines: names in it that can have line ends go through tool_safe_text(). */
void tool_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** As tool_error(), behind "warning: ". */
void tool_warning(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** Lead to --help, after a message of getopt_long(). */
void tool_try_help(void);

/** As tool_error(), with a second line that leads to --help. */
void tool_usage_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/**
 * Print @error as by tool_error(), behind @prefix and ": " if that is not
 * NULL, and free it.
 */
void tool_report(GError *error, const char *prefix);

#endif /* TOOL_PRINT_H */
