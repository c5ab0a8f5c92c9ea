/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON messages from a stream.
 *
 * This file finds where a message ends, by its brackets and quotes, and keeps
 * the limits; what is between goes to jansson.  Memory is bounded: the text by
 * QMP_MESSAGE_MAX, the tree by QMP_TOKENS_MAX.
 */
#include "monitor/qmp-json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How much of a bad message an error shows. */
#define STRAY_SHOWN 32

typedef enum State {
    BETWEEN, /* tokens */
    WORD,    /* a number or a keyword */
    STRING,
    ESCAPE,  /* in a string, behind a backslash */
    RECOVER, /* skip to a structural or control character */
    SKIP,    /* skip to a control character */
} State;

struct QmpParser {
    State state;
    GString *text;       /* of the message so far */
    char quote;          /* of the string */
    gsize token_start;   /* in @text: of the word or string */
    unsigned depth;
    bool is_object[QMP_DEPTH_MAX]; /* what is open, outermost first */
    unsigned nr_tokens;
};

/* What became of a byte. */
typedef enum Step {
    TAKEN,
    AGAIN, /* the state has changed: look at it once more */
    ENDED, /* the message ends with it */
    ENDED_BEFORE,
    BAD,   /* taken; the message is bad, the error is set */
} Step;

QmpParser *qmp_parser_new(void)
{
    QmpParser *parser = g_new0(QmpParser, 1);

    parser->text = g_string_new(NULL);
    return parser;
}

void qmp_parser_free(QmpParser *parser)
{
    if (parser) {
        g_string_free(parser->text, TRUE);
        g_free(parser);
    }
}

bool qmp_parser_is_inside(const QmpParser *parser)
{
    return parser->text->len > 0;
}

static void begin_anew(QmpParser *p, State state)
{
    /* One large message does not keep its memory for ever. */
    if (p->text->allocated_len > 65536) {
        g_string_free(p->text, TRUE);
        p->text = g_string_new(NULL);
    }
    g_string_truncate(p->text, 0);
    p->depth = 0;
    p->nr_tokens = 0;
    p->state = state;
}

static bool is_control(unsigned char c)
{
    return (c < 0x20 && c != '\t') || c >= 0xfe;
}

static bool is_structural(char c)
{
    return c != '\0' && strchr("{}[],:", c);
}

static bool is_word(unsigned char c)
{
    return g_ascii_isalnum(c) || c == '-' || c == '+' || c == '.' || c == '_';
}

static Step bad(QmpParser *p, State next, const char *what, GError **errp)
{
    block_error(errp, EINVAL, "JSON parse error, %s", what);
    begin_anew(p, next);
    return BAD;
}

static Step too_large(QmpParser *p, const char *what, GError **errp)
{
    block_error(errp, E2BIG, "JSON %s limit exceeded", what);
    begin_anew(p, SKIP);
    return BAD;
}

/* A byte that no token can have, behind what there is of one. */
static Step stray(QmpParser *p, gsize start, char c, GError **errp)
{
    g_autoptr(GString) text = g_string_new("stray '");

    g_string_append_len(text, p->text->str + start,
                        MIN(p->text->len - start, STRAY_SHOWN));
    g_string_append_c(text, c);
    g_string_append_c(text, '\'');
    return bad(p, is_control(c) ? BETWEEN : RECOVER, text->str, errp);
}

static Step token_begins(QmpParser *p, State state, GError **errp)
{
    p->token_start = p->text->len;
    p->state = state;
    return ++p->nr_tokens > QMP_TOKENS_MAX
               ? too_large(p, "token count", errp)
               : TAKEN;
}

static Step open_bracket(QmpParser *p, char c, GError **errp)
{
    if (p->depth == QMP_DEPTH_MAX) {
        return too_large(p, "nesting depth", errp);
    }
    p->is_object[p->depth++] = c == '{';
    g_string_append_c(p->text, c);
    return token_begins(p, BETWEEN, errp);
}

static Step close_bracket(QmpParser *p, char c, GError **errp)
{
    if (p->depth == 0) {
        return bad(p, BETWEEN, "expecting value", errp);
    }
    if (p->is_object[p->depth - 1] != (c == '}')) {
        return bad(p, BETWEEN, c == '}' ? "expected separator in list"
                                        : "expected separator in dict", errp);
    }
    g_string_append_c(p->text, c);
    return --p->depth == 0 ? ENDED : TAKEN;
}

static Step between(QmpParser *p, char c, GError **errp)
{
    Step step;

    switch (c) {
    case '{':
    case '[':
        return open_bracket(p, c, errp);
    case '}':
    case ']':
        return close_bracket(p, c, errp);
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        if (p->depth > 0) {
            g_string_append_c(p->text, ' ');
        }
        return TAKEN;
    case ',':
    case ':':
        if (p->depth == 0) {
            return bad(p, BETWEEN, "expecting value", errp);
        }
        g_string_append_c(p->text, c);
        return token_begins(p, BETWEEN, errp);
    case '"':
    case '\'':
        step = token_begins(p, STRING, errp);
        if (step == TAKEN) {
            p->quote = c;
            g_string_append_c(p->text, '"');
        }
        return step;
    default:
        if (!is_word(c)) {
            return stray(p, p->text->len, c, errp);
        }
        step = token_begins(p, WORD, errp);
        return step == TAKEN ? AGAIN : step;
    }
}

/* Strings in single quotes are turned into those that JSON has. */
static Step in_string(QmpParser *p, char c, GError **errp)
{
    if (p->state == ESCAPE) {
        p->state = STRING;
        if (c == '\'') {
            g_string_append_c(p->text, c);
        } else {
            g_string_append_c(p->text, '\\');
            g_string_append_c(p->text, c);
        }
        return is_control(c) ? stray(p, p->token_start, c, errp) : TAKEN;
    }
    if (is_control(c)) {
        return stray(p, p->token_start, c, errp);
    }
    if (c == '\\') {
        p->state = ESCAPE;
    } else if (c == p->quote) {
        g_string_append_c(p->text, '"');
        p->state = BETWEEN;
        return p->depth == 0 ? ENDED : TAKEN;
    } else if (c == '"') {
        g_string_append(p->text, "\\\"");
    } else {
        g_string_append_c(p->text, c);
    }
    return TAKEN;
}

static Step in_word(QmpParser *p, char c)
{
    if (is_word(c)) {
        g_string_append_c(p->text, c);
        return TAKEN;
    }
    p->state = BETWEEN;
    return p->depth == 0 ? ENDED_BEFORE : AGAIN;
}

static Step take_byte(QmpParser *p, char c, GError **errp)
{
    Step step = TAKEN;

    do {
        switch (p->state) {
        case BETWEEN:
            step = between(p, c, errp);
            break;
        case WORD:
            step = in_word(p, c);
            break;
        case STRING:
        case ESCAPE:
            step = in_string(p, c, errp);
            break;
        case RECOVER:
        case SKIP:
            step = TAKEN;
            if (p->state == RECOVER && is_structural(c)) {
                p->state = BETWEEN;
                step = AGAIN;
            } else if (is_control(c)) {
                p->state = BETWEEN;
            }
            break;
        }
    } while (step == AGAIN);
    if (step != BAD && p->text->len > QMP_MESSAGE_MAX) {
        step = too_large(p, "token size", errp);
    }
    return step;
}

/* Beyond this, a double does not have every integer. */
#define DOUBLE_INTEGER_MAX ((double)(INT64_C(1) << 53))

static bool is_exact_integer(const json_t *value)
{
    double number = json_real_value(value);

    return json_is_real(value) && number >= -DOUBLE_INTEGER_MAX &&
           number <= DOUBLE_INTEGER_MAX &&
           number == (double)(json_int_t)number;
}

/* What @value is if it is an integer in a double, or @value.  Takes it over. */
static json_t *with_integers(json_t *value)
{
    json_t *inner;
    const char *key;
    size_t i;

    if (is_exact_integer(value)) {
        json_t *ret = json_integer((json_int_t)json_real_value(value));

        json_decref(value);
        return ret;
    }
    json_object_foreach(value, key, inner) {
        json_object_set_new(value, key, with_integers(json_incref(inner)));
    }
    json_array_foreach(value, i, inner) {
        json_array_set_new(value, i, with_integers(json_incref(inner)));
    }
    return value;
}

/*
 * A number that no integer can hold is of the wrong type wherever an integer is
 * wanted, and whoever finds that can name it and answers with the id of the
 * request; so here, it becomes a real number.
 */
static json_t *load(const char *text, size_t bytes, json_error_t *error)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
    json_t *ret = json_loadb(text, bytes, flags, error);

    if (!ret && json_error_code(error) == json_error_numeric_overflow) {
        ret = json_loadb(text, bytes, flags | JSON_DECODE_INT_AS_REAL, error);
        ret = ret ? with_integers(ret) : NULL;
    }
    return ret;
}

/* The text is a message as far as brackets and quotes can tell. */
static void decode(QmpParser *p, json_t **ret, GError **errp)
{
    json_error_t error;

    *ret = load(p->text->str, p->text->len, &error);
    if (!*ret) {
        char *near = strstr(error.text, " near ");

        if (near) {
            *near = '\0';       /* what stands there may be a secret */
        }
        block_error(errp, EINVAL, "JSON parse error, %s", error.text);
    }
    begin_anew(p, BETWEEN);
}

size_t qmp_parser_feed(QmpParser *parser, const char *data, size_t bytes,
                       json_t **ret, GError **errp)
{
    *ret = NULL;
    for (size_t i = 0; i < bytes; i++) {
        Step step = take_byte(parser, data[i], errp);

        if (step == BAD) {
            return i + 1;
        }
        if (step == ENDED || step == ENDED_BEFORE) {
            decode(parser, ret, errp);
            return step == ENDED ? i + 1 : i;
        }
    }
    return bytes;
}

void qmp_parser_end(QmpParser *parser, json_t **ret, GError **errp)
{
    qmp_parser_feed(parser, "\n", 1, ret, errp);
}

static char *dump(const json_t *json, size_t flags)
{
    char *text = json_dumps(json, JSON_ENCODE_ANY | flags);
    char *copy = g_strdup(text); /* the caller frees with g_free() */

    g_assert(text);
    free(text);
    return copy;
}

char *qmp_json_text(const json_t *json)
{
    return dump(json, JSON_COMPACT);
}

char *qmp_json_pretty_text(const json_t *json)
{
    return dump(json, JSON_INDENT(4));
}

json_t *qmp_json_string(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    return json_string(valid);
}
