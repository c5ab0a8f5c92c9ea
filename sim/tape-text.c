/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tapes outside the process that made them: packed for a neighbour, and as
 * lines of text.
 *
 * A line is a label and its choices, "value/bound": one, or the members of a
 * group.  "xN" at its end says that it stands for N lines.
 */
#include "sim/supervise.h"

#include <blockgraph/error.h>
#include <errno.h>
#include <string.h>

/* The most choices that one line may stand for. */
#define REPEAT_MAX 1000000

/* --- packed --------------------------------------------------------------- */

typedef struct PackHead {
    uint32_t label_bytes;
    uint32_t nr_entries;
} PackHead;

static guint nr_packed(const TapeStream *stream, bool only_used)
{
    return only_used ? MIN(stream->position, stream->entries->len)
                     : stream->entries->len;
}

size_t tape_pack(const Tape *tape, bool only_used, void *buf, size_t size)
{
    char *at = buf;
    char *end = at + size;

    for (guint i = 0; i < tape->streams->len; i++) {
        const TapeStream *stream = g_ptr_array_index(tape->streams, i);
        PackHead head = { strlen(stream->label),
                          nr_packed(stream, only_used) };
        size_t bytes = head.nr_entries * sizeof(TapeEntry);

        if (only_used && (!stream->label[0] || head.nr_entries == 0)) {
            continue;  /* the bytes of a fuzzer are in the other streams now */
        }
        if ((size_t)(end - at) < sizeof(head) + head.label_bytes + bytes) {
            return 0;
        }
        at = mempcpy(at, &head, sizeof(head));
        at = mempcpy(at, stream->label, head.label_bytes);
        at = mempcpy(at, stream->entries->data, bytes);
    }
    if ((size_t)(end - at) < sizeof(PackHead)) {
        return 0;
    }
    at = mempcpy(at, &(PackHead){ 0, 0 }, sizeof(PackHead));
    return at - (char *)buf;
}

Tape *tape_unpack(const void *buf, size_t size)
{
    Tape *tape = tape_new(0);
    const char *at = buf;
    const char *end = at + size;
    PackHead head;

    tape->replay = true;
    while (at + sizeof(head) <= end) {
        g_autofree char *label = NULL;
        TapeStream *stream;

        memcpy(&head, at, sizeof(head));
        at += sizeof(head);
        if (head.label_bytes == 0 && head.nr_entries == 0) {
            break;
        }
        label = g_strndup(at, head.label_bytes);
        at += head.label_bytes;
        stream = tape_stream(tape, label);
        g_array_append_vals(stream->entries, at, head.nr_entries);
        at += head.nr_entries * sizeof(TapeEntry);
        g_assert(at <= end);
    }
    /* The look-up by address must not find a label that was freed. */
    memset(tape->cache_key, 0, sizeof(tape->cache_key));
    return tape;
}

/* --- measure -------------------------------------------------------------- */

size_t tape_nr_nonzero(const Tape *tape)
{
    size_t n = 0;

    for (guint i = 0; i < tape->streams->len; i++) {
        const TapeStream *stream = g_ptr_array_index(tape->streams, i);

        for (guint j = 0; j < stream->entries->len; j++) {
            n += g_array_index(stream->entries, TapeEntry, j).value != 0;
        }
    }
    return n;
}

/* A replayed stream gives zeroes past its end anyway. */
void tape_trim(Tape *tape)
{
    for (guint i = tape->streams->len; i > 0; i--) {
        TapeStream *stream = g_ptr_array_index(tape->streams, i - 1);
        guint n = stream->entries->len;

        while (n > 0 &&
               g_array_index(stream->entries, TapeEntry, n - 1).value == 0) {
            n--;
        }
        g_array_set_size(stream->entries, n);
        if (n == 0) {
            g_ptr_array_remove_index(tape->streams, i - 1);
        }
    }
    memset(tape->cache_key, 0, sizeof(tape->cache_key));
}

/* --- text ----------------------------------------------------------------- */

static const TapeEntry *entry_at(const TapeStream *stream, guint i)
{
    return &g_array_index(stream->entries, TapeEntry, i);
}

/* Where the group that begins at @i ends. */
static guint group_end(const TapeStream *stream, guint i)
{
    do {
        i++;
    } while (i < stream->entries->len && entry_at(stream, i)->in_group);
    return i;
}

static bool same_groups(const TapeStream *stream, guint a, guint b)
{
    guint n = group_end(stream, a) - a;

    if (b >= stream->entries->len || group_end(stream, b) - b != n) {
        return false;
    }
    for (guint i = 0; i < n; i++) {
        if (entry_at(stream, a + i)->value != entry_at(stream, b + i)->value ||
            entry_at(stream, a + i)->bound != entry_at(stream, b + i)->bound) {
            return false;
        }
    }
    return true;
}

static void stream_to_text(const TapeStream *stream, GString *text)
{
    g_autofree char *label = g_uri_escape_string(stream->label, "/:@+", TRUE);

    for (guint i = 0; i < stream->entries->len;) {
        guint end = group_end(stream, i);
        guint next = end;
        unsigned repeat = 1;

        while (repeat < REPEAT_MAX && same_groups(stream, i, next)) {
            next = group_end(stream, next);
            repeat++;
        }
        g_string_append(text, label);
        for (guint j = i; j < end; j++) {
            g_string_append_printf(text, " %" G_GUINT64_FORMAT
                                   "/%" G_GUINT64_FORMAT,
                                   entry_at(stream, j)->value,
                                   entry_at(stream, j)->bound);
        }
        if (repeat > 1) {
            g_string_append_printf(text, " x%u", repeat);
        }
        g_string_append_c(text, '\n');
        i = next;
    }
}

void tape_to_text(const Tape *tape, GString *text)
{
    for (guint i = 0; i < tape->streams->len; i++) {
        const TapeStream *stream = g_ptr_array_index(tape->streams, i);

        if (strcmp(stream->label, "sched") != 0) {
            stream_to_text(stream, text);
        }
    }
}

static int parse_choice(const char *word, TapeEntry *entry, GError **errp)
{
    char *slash = strchr(word, '/');
    g_autofree char *value = slash ? g_strndup(word, slash - word) : NULL;

    if (!slash ||
        !g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX, &entry->value,
                                    NULL) ||
        !g_ascii_string_to_unsigned(slash + 1, 10, 1, UINT64_MAX,
                                    &entry->bound, NULL)) {
        return block_error(errp, EINVAL, "'%s' is no choice: VALUE/BOUND is "
                           "wanted, with a bound above 0", word);
    }
    if (entry->value >= entry->bound) {
        return block_error(errp, EINVAL, "the value of '%s' is not below its "
                           "bound", word);
    }
    return 0;
}

/* "x17" at the end of the line, or 1. */
static int take_repeat(char **words, guint *nr_words, guint64 *ret_repeat,
                       GError **errp)
{
    const char *last = words[*nr_words - 1];

    *ret_repeat = 1;
    if (last[0] != 'x') {
        return 0;
    }
    (*nr_words)--;
    if (!g_ascii_string_to_unsigned(last + 1, 10, 1, REPEAT_MAX, ret_repeat,
                                    NULL)) {
        return block_error(errp, EINVAL, "'%s' is no number of repetitions: "
                           "x1 to x%d", last, REPEAT_MAX);
    }
    return 0;
}

int tape_parse_line(Tape *tape, const char *line, GError **errp)
{
    g_auto(GStrv) words = g_strsplit(line, " ", 0);
    guint n = g_strv_length(words);
    g_autofree char *label = g_uri_unescape_string(words[0], NULL);
    g_autoptr(GArray) group = g_array_new(FALSE, FALSE, sizeof(TapeEntry));
    TapeStream *stream;
    guint64 repeat = 1;

    if (n > 1 && take_repeat(words, &n, &repeat, errp) < 0) {
        return -EINVAL;
    }
    if (!label || !label[0] || n < 2) {
        return block_error(errp, EINVAL,
                           "a label and its choices are wanted");
    }
    for (guint i = 1; i < n; i++) {
        TapeEntry entry = { .in_group = i > 1 };

        if (parse_choice(words[i], &entry, errp) < 0) {
            return -EINVAL;
        }
        g_array_append_val(group, entry);
    }
    stream = tape_stream(tape, label);
    while (repeat-- > 0) {
        g_array_append_vals(stream->entries, group->data, group->len);
    }
    memset(tape->cache_key, 0, sizeof(tape->cache_key));
    return 0;
}
