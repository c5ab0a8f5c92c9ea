/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One option value: from JSON or text to the type that a table names, and
 * back to a person in error texts.
 */
#include "util/options-int.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* How much of a value or key an error text shows, in characters. */
#define SHOW_MAX 64

/* --- sizes ---------------------------------------------------------------- */

/* The exponent of two that a suffix stands for, or -1. */
static int suffix_shift(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    const char *found = strchr(suffixes, g_ascii_tolower(suffix));

    return suffix && found ? (int)(found - suffixes) * 10 : -1;
}

/* Read @base digits at *@p; *@overflow is set when they pass 64 bits. */
static uint64_t read_digits(const char **p, int base, bool *overflow)
{
    uint64_t value = 0;
    int digit;

    while ((digit = g_ascii_xdigit_value(**p)) >= 0 && digit < base) {
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            *overflow = true;
        }
        (*p)++;
    }
    return value;
}

/*
 * The part of @unit that the fraction digits @first..@end-1 stand for,
 * rounded down.  From the last digit on: dividing rounds down at each step,
 * which gives the same as rounding once.  A unit is at most 2^60, so
 * 9 * unit + result stays below 2^64.
 */
static uint64_t fraction_of(const char *first, const char *end, uint64_t unit)
{
    uint64_t result = 0;

    while (end > first) {
        result = (result + (uint64_t)(*--end - '0') * unit) / 10;
    }
    return result;
}

/* What follows an optional minus sign: digits [. digits] [suffix]. */
static int parse_decimal(const char *p, uint64_t *ret)
{
    const char *first = p, *fraction = NULL, *fraction_end = NULL;
    bool overflow = false;
    uint64_t value = read_digits(&p, 10, &overflow);
    int shift = 0;

    if (p == first) {
        return -EINVAL;
    }
    if (*p == '.') {
        fraction = ++p;
        while (g_ascii_isdigit(*p)) {
            p++;
        }
        fraction_end = p;
    }
    if (*p) {
        shift = suffix_shift(*p++);
    }
    if (shift < 0 || *p ||
        (fraction && (fraction == fraction_end || shift == 0))) {
        return -EINVAL;
    }
    if (overflow || value > ((uint64_t)INT64_MAX >> shift)) {
        return -ERANGE;
    }
    value <<= shift;
    if (fraction) {
        value += fraction_of(fraction, fraction_end, UINT64_C(1) << shift);
    }
    *ret = value;
    return 0;
}

static int parse_hex(const char *p, uint64_t *ret)
{
    const char *first = p;
    bool overflow = false;

    *ret = read_digits(&p, 16, &overflow);
    if (p == first || *p) {
        return -EINVAL;
    }
    return overflow || *ret > INT64_MAX ? -ERANGE : 0;
}

static bool is_hex(const char *text)
{
    return text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
}

int block_parse_size(const char *text, int64_t *ret_bytes)
{
    bool negative = text[0] == '-';
    const char *p = text + negative;
    uint64_t value;
    int ret = is_hex(p) ? parse_hex(p + 2, &value) : parse_decimal(p, &value);

    if (ret == -EINVAL) {
        return ret;
    }
    if (ret < 0 || negative) {
        return -ERANGE;
    }
    *ret_bytes = value;
    return 0;
}

/* --- reading -------------------------------------------------------------- */

static bool read_bool(const json_t *value, bool *ret)
{
    static const char *const yes[] = { "on", "true", "yes", NULL };
    static const char *const no[] = { "off", "false", "no", NULL };
    const char *text = json_string_value(value);

    if (json_is_boolean(value)) {
        *ret = json_is_true(value);
    } else if (text && g_strv_contains(yes, text)) {
        *ret = true;
    } else if (text && g_strv_contains(no, text)) {
        *ret = false;
    } else {
        return false;
    }
    return true;
}

static bool read_number(const json_t *value, int64_t *ret)
{
    const char *text = json_string_value(value);
    gint64 number;
    uint64_t hex;

    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return true;
    }
    if (!text) {
        return false;
    }
    if (is_hex(text)) {
        if (parse_hex(text + 2, &hex) < 0) {
            return false;
        }
        *ret = hex;
        return true;
    }
    if (!g_ascii_string_to_signed(text, 10, INT64_MIN, INT64_MAX, &number,
                                  NULL)) {
        return false;
    }
    *ret = number;
    return true;
}

static bool read_size(const json_t *value, int64_t *ret)
{
    const char *text = json_string_value(value);

    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return *ret >= 0;
    }
    return text && block_parse_size(text, ret) == 0;
}

static bool read_double(const json_t *value, double *ret)
{
    const char *text = json_string_value(value);
    char *end;

    if (json_is_number(value)) {
        *ret = json_number_value(value);
        return true;
    }
    /* strtod() skips spaces and knows words such as "inf": not for us. */
    if (!text || !text[0] || text[strspn(text, "0123456789+-.eE")]) {
        return false;
    }
    *ret = g_ascii_strtod(text, &end);
    return !*end && isfinite(*ret);
}

static bool read_enum(const BlockOption *option, const json_t *value, int *ret)
{
    const char *text = json_string_value(value);

    for (int i = 0; text && option->values[i]; i++) {
        if (!strcmp(text, option->values[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static bool has_limits(const BlockOption *option)
{
    return option->min != 0 || option->max != 0;
}

static bool in_limits(const BlockOption *option, int64_t number)
{
    return !has_limits(option) ||
           (number >= option->min && number <= option->max);
}

static bool read_integer_option(const BlockOption *option, const json_t *value,
                                int64_t *field)
{
    int64_t number;
    bool is_size = option->type == BLOCK_OPTION_SIZE;

    if (!(is_size ? read_size(value, &number) : read_number(value, &number)) ||
        !in_limits(option, number)) {
        return false;
    }
    *field = number;
    return true;
}

static bool read_double_option(const BlockOption *option, const json_t *value,
                               double *field)
{
    double number;

    if (!read_double(value, &number) ||
        (has_limits(option) && !(number >= (double)option->min &&
                                 number <= (double)option->max))) {
        return false;
    }
    *field = number;
    return true;
}

bool option_read_value(const BlockOption *option, json_t *value, void *field)
{
    switch (option->type) {
    case BLOCK_OPTION_STRING:
        if (!json_is_string(value)) {
            return false;
        }
        *(char **)field = g_strdup(json_string_value(value));
        return true;
    case BLOCK_OPTION_BOOL:
        return read_bool(value, field);
    case BLOCK_OPTION_NUMBER:
    case BLOCK_OPTION_SIZE:
        return read_integer_option(option, value, field);
    case BLOCK_OPTION_DOUBLE:
        return read_double_option(option, value, field);
    case BLOCK_OPTION_ENUM:
        return read_enum(option, value, field);
    case BLOCK_OPTION_CHILD:
        return json_is_object(value) || json_is_null(value) ||
               json_string_length(value) > 0;
    case BLOCK_OPTION_TREE:
        if (json_is_object(value) || json_is_array(value)) {
            *(BlockOptions **)field = options_wrap(json_incref(value));
            return true;
        }
        return false;
    case BLOCK_OPTION_END:
        break;
    }
    g_assert_not_reached();
}

/* --- showing -------------------------------------------------------------- */

static char *expects_enum(const BlockOption *option)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; option->values[i]; i++) {
        if (i > 0) {
            g_string_append(text, option->values[i + 1] ? ", " : " or ");
        }
        g_string_append_printf(text, "'%s'", option->values[i]);
    }
    return g_string_free(text, FALSE);
}

/* @what, and the limits if there are any. */
static char *expects_within(const BlockOption *option, const char *what)
{
    if (!has_limits(option)) {
        return g_strdup(what);
    }
    if (option->max == INT64_MAX) {
        return g_strdup_printf("%s of at least %" PRId64, what, option->min);
    }
    return g_strdup_printf("%s from %" PRId64 " to %" PRId64, what,
                           option->min, option->max);
}

char *option_expects(const BlockOption *option)
{
    switch (option->type) {
    case BLOCK_OPTION_STRING:
        return g_strdup("a string");
    case BLOCK_OPTION_BOOL:
        return g_strdup("on or off");
    case BLOCK_OPTION_NUMBER:
        return expects_within(option, "an integer");
    case BLOCK_OPTION_SIZE:
        return expects_within(option, "a size (bytes, or such as 64k, 1.5G)");
    case BLOCK_OPTION_DOUBLE:
        return expects_within(option, "a number");
    case BLOCK_OPTION_ENUM:
        return expects_enum(option);
    case BLOCK_OPTION_CHILD:
        return g_strdup("a node name, an object or null");
    case BLOCK_OPTION_TREE:
        return g_strdup("an object or a list");
    case BLOCK_OPTION_END:
        break;
    }
    g_assert_not_reached();
}

char *options_shorten(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_autofree char *part = NULL;

    if (g_utf8_strlen(valid, -1) <= SHOW_MAX) {
        return g_steal_pointer(&valid);
    }
    part = g_utf8_substring(valid, 0, SHOW_MAX);
    return g_strconcat(part, "...", NULL);
}

char *option_show_value(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING: {
        g_autofree char *text = options_shorten(json_string_value(value));

        return g_strdup_printf("'%s'", text);
    }
    case JSON_INTEGER:
        return g_strdup_printf("%" JSON_INTEGER_FORMAT,
                               json_integer_value(value));
    case JSON_REAL:
        return g_strdup_printf("%.17g", json_real_value(value));
    case JSON_TRUE:
        return g_strdup("true");
    case JSON_FALSE:
        return g_strdup("false");
    case JSON_NULL:
        return g_strdup("null");
    case JSON_ARRAY:
        return g_strdup("a list");
    case JSON_OBJECT:
        break;
    }
    return g_strdup("an object");
}
