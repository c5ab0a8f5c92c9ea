/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers and errors as the tools print them.
 *
 * The formats are those that scripts written for QEMU's tools expect.
 */
#include "tools/tool-print.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <blockgraph/error.h>
#include <blockgraph/options.h>

#include "tools/tool-log.h"

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_CENTI (NS_PER_SEC / 100)
#define HEX_BYTES_PER_LINE 16

/* "1.000 KiB" says no more than "1 KiB". */
static void drop_zero_fraction(char *number)
{
    char *point = strchr(number, '.');

    if (point && strspn(point + 1, "0") == strlen(point + 1)) {
        *point = '\0';
    }
}

char *tool_format_bytes(double bytes, char text[static TOOL_TEXT_MAX])
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB",
                                         "TiB", "PiB", "EiB" };
    char number[TOOL_TEXT_MAX - 8];
    size_t unit = 0;

    while (bytes >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(number, sizeof(number), "%.*f", unit ? 3 : 6, bytes);
    drop_zero_fraction(number);
    snprintf(text, TOOL_TEXT_MAX, "%s %s", number, units[unit]);
    return text;
}

char *tool_format_time(int64_t ns, ToolTimeStyle style,
                       char text[static TOOL_TEXT_MAX])
{
    int64_t sec = ns / NS_PER_SEC;
    int64_t centi = (ns % NS_PER_SEC + NS_PER_CENTI / 2) / NS_PER_CENTI;

    g_assert(ns >= 0);
    if (centi == 100) {
        sec++;
        centi = 0;
    }
    if (sec < 60 && style == TOOL_TIME_SHORT) {
        snprintf(text, TOOL_TEXT_MAX, "%02d.%02d sec", (int)sec, (int)centi);
    } else {
        snprintf(text, TOOL_TEXT_MAX, "%lld:%02d:%02d.%02d",
                 (long long)(sec / 3600), (int)(sec / 60 % 60),
                 (int)(sec % 60), (int)centi);
    }
    return text;
}

int64_t tool_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_SEC + now.tv_nsec;
}

void tool_print_hex(const uint8_t *buf, int64_t offset, int64_t bytes)
{
    int64_t at;

    for (at = 0; at < bytes; at += HEX_BYTES_PER_LINE) {
        int64_t nr = MIN(bytes - at, HEX_BYTES_PER_LINE);
        char chars[HEX_BYTES_PER_LINE + 1];
        int64_t i;

        printf("%08llx:  ", (unsigned long long)(offset + at));
        for (i = 0; i < nr; i++) {
            uint8_t byte = buf[at + i];

            printf("%02x ", byte);
            chars[i] = g_ascii_isalnum(byte) ? (char)byte : '.';
        }
        chars[nr] = '\0';
        printf(" %s\n", chars);
    }
}

int64_t tool_parse_size(const char *text)
{
    int64_t bytes;
    int ret = block_parse_size(text, &bytes);

    if (ret < 0 && strchr(text, '-')) {
        ret = -EINVAL;      /* "too large" would be no help */
    }
    if (ret == -ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else if (ret < 0) {
        printf("Parsing error: non-numeric argument, or "
               "extraneous/unrecognized suffix -- %s\n", text);
    }
    return ret < 0 ? ret : bytes;
}

int tool_parse_byte(const char *text)
{
    char *end;
    long byte;

    errno = 0;
    byte = strtol(text, &end, 0);
    if (errno || end == text || *end || byte < 0 || byte > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return -EINVAL;
    }
    return (int)byte;
}

/* --- messages ------------------------------------------------------------- */

/* A file that is opened while one of these is closed would get its number, and
 * messages would be written into an image. */
static void open_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) {
            _exit(EXIT_FAILURE);
        }
    }
}

void tool_set_program(char **argv, const char *usual)
{
    g_autofree char *name = g_path_get_basename(argv[0] ? argv[0] : usual);

    open_standard_streams();
    g_set_prgname(name);
    if (argv[0]) {
        argv[0] = (char *)g_get_prgname(); /* getopt_long() begins with it */
    }
    tool_log_begin(tool_clock_ns);
}

int tool_finish(int status)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_SUCCESS) {
        tool_error("Could not write to standard output");
        return EXIT_FAILURE;
    }
    return status;
}

char *tool_safe_text(const char *text)
{
    GError *error = NULL;
    char *safe;

    /* The library has the rule, for its own texts. */
    block_error(&error, EINVAL, "%s", text);
    safe = g_strdup(error->message);
    g_error_free(error);
    return safe;
}

static G_GNUC_PRINTF(2, 0) void print_error(const char *kind,
                                           const char *fmt, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(fmt, args);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree char *safe = NULL;

    for (char **line = lines; *line; line++) {
        char *shown = tool_safe_text(*line);

        g_free(*line);
        *line = shown;
    }
    safe = g_strjoinv("\n", lines);
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", g_get_prgname(), kind, safe);
}

void tool_error(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_error("", fmt, args);
    va_end(args);
}

void tool_warning(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_error("warning: ", fmt, args);
    va_end(args);
}

void tool_try_help(void)
{
    fprintf(stderr, "Try '%s --help' for more information\n",
            g_get_prgname());
}

void tool_usage_error(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_error("", fmt, args);
    va_end(args);
    tool_try_help();
}

void tool_report(GError *error, const char *prefix)
{
    tool_error("%s%s%s", prefix ? prefix : "", prefix ? ": " : "",
               error->message);
    g_error_free(error);
}
