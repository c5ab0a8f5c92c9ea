/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a stream of bytes to JSON messages, one after the other.
 *
 * Messages follow each other with or without white space between them.  After
 * text that is no JSON the parser finds its way again as QEMU's does: at the
 * next structural character or control character (a line end, say); after a
 * message that is beyond a limit, at the next control character.  Strings may
 * be in single quotes, as people type them.
 *
 * Thread: one parser, one thread at a time.
 */
#ifndef MONITOR_QMP_JSON_H
#define MONITOR_QMP_JSON_H

#include <blockgraph/error.h>

#include <jansson.h>

G_BEGIN_DECLS

/** Longest message, in bytes. */
#define QMP_MESSAGE_MAX ((size_t)4 << 20)

/** How deep a message may be nested. */
#define QMP_DEPTH_MAX 64

/** How many values and signs a message may have: each takes memory. */
#define QMP_TOKENS_MAX (1 << 18)

typedef struct QmpParser QmpParser;

/** A parser at the beginning of a stream.  The caller owns it. */
QmpParser *qmp_parser_new(void);

/** Free @parser; NULL is ignored. */
void qmp_parser_free(QmpParser *parser);

/**
 * Take bytes until a message ends or turns out to be bad.
 *
 * @ret   set to a message that has ended, which the caller owns; else to NULL
 * @errp  set (-EINVAL, -E2BIG) for a bad one; the parser goes on behind it
 *
 * Returns how many of the @bytes at @data were taken: all of them, unless a
 * message or an error is returned.
 */
size_t qmp_parser_feed(QmpParser *parser, const char *data, size_t bytes,
                       json_t **ret, GError **errp);

/** Whether a message has begun and not ended. */
bool qmp_parser_is_inside(const QmpParser *parser);

/** The stream is over: an unfinished word or number is a message.  As
 * qmp_parser_feed() otherwise. */
void qmp_parser_end(QmpParser *parser, json_t **ret, GError **errp);

/** @json as one line of text, keys in the order they were set.  g_free(). */
char *qmp_json_text(const json_t *json);

/** The same in many lines, indented for people. */
char *qmp_json_pretty_text(const json_t *json);

/** A JSON string of @text, which may be any bytes: what is not UTF-8 shows as
 * the replacement character. */
json_t *qmp_json_string(const char *text);

G_END_DECLS

#endif /* MONITOR_QMP_JSON_H */
