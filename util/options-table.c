/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option tables: take the options of a driver or command out of a tree, say
 * what is left over, and write the help text.
 */
#include "util/options-int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Longer names are not compared for a suggestion. */
#define SUGGEST_NAME_MAX 64

static void *field_of(const BlockOption *option, void *target)
{
    return (char *)target + option->offset;
}

static size_t field_bytes(BlockOptionType type)
{
    switch (type) {
    case BLOCK_OPTION_STRING:
        return sizeof(char *);
    case BLOCK_OPTION_BOOL:
        return sizeof(bool);
    case BLOCK_OPTION_NUMBER:
    case BLOCK_OPTION_SIZE:
        return sizeof(int64_t);
    case BLOCK_OPTION_DOUBLE:
        return sizeof(double);
    case BLOCK_OPTION_ENUM:
        return sizeof(int);
    case BLOCK_OPTION_TREE:
        return sizeof(BlockOptions *);
    case BLOCK_OPTION_CHILD:        /* stays in the tree */
    case BLOCK_OPTION_END:
        return 0;
    }
    g_assert_not_reached();
}

/* --- absorb --------------------------------------------------------------- */

static void set_default(const BlockOption *option, void *target)
{
    json_t *value;
    bool fits;

    if (!option->def || option->type == BLOCK_OPTION_CHILD) {
        return;
    }
    value = json_string(option->def);
    fits = option_read_value(option, value, field_of(option, target));
    g_assert(fits);             /* a default that is none: a bug in the table */
    json_decref(value);
}

static int value_error(const BlockOption *option, const json_t *value,
                       const char *what, GError **errp)
{
    g_autofree char *expects = option_expects(option);
    g_autofree char *shown = option_show_value(value);

    return block_error(errp, EINVAL, "%s: option '%s' expects %s, not %s",
                       what, option->name, expects, shown);
}

/*
 * How many insertions, deletions, replacements and swaps of neighbours turn
 * @a into @b.
 */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][SUGGEST_NAME_MAX + 1];
    int a_len = strlen(a), b_len = strlen(b);

    g_assert(a_len <= SUGGEST_NAME_MAX && b_len <= SUGGEST_NAME_MAX);
    for (int j = 0; j <= b_len; j++) {
        rows[0][j] = j;
    }
    for (int i = 1; i <= a_len; i++) {
        int *row = rows[i % 3];
        const int *above = rows[(i - 1) % 3];
        const int *above2 = rows[(i + 1) % 3];

        row[0] = i;
        for (int j = 1; j <= b_len; j++) {
            int best = MIN(above[j], row[j - 1]) + 1;

            best = MIN(best, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
                a[i - 2] == b[j - 1]) {
                best = MIN(best, above2[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    return rows[a_len % 3][b_len];
}

/* A required option is not there: perhaps a key was meant to be it. */
static int required_missing(const BlockOptions *options,
                            const BlockOption *option, const char *what,
                            GError **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(options->root, key, value) {
        if (strlen(key) <= SUGGEST_NAME_MAX &&
            edit_distance(key, option->name) <= 2) {
            return block_error(errp, EINVAL, "%s: option '%s' is required; "
                               "is it what '%s' was meant to be?", what,
                               option->name, key);
        }
    }
    return block_error(errp, EINVAL, "%s: option '%s' is required", what,
                       option->name);
}

static int absorb_one(BlockOptions *options, const BlockOption *option,
                      void *target, const char *what, GError **errp)
{
    g_autofree char *blocked = NULL;
    json_t *value = options_find(options->root, option->name, &blocked);

    if (blocked) {
        return block_error(errp, EINVAL, "%s: option '%s' expects an object "
                           "with '%s' in it", what, blocked,
                           option->name + strlen(blocked) + 1);
    }
    if (!value || (option->type == BLOCK_OPTION_TREE && json_is_null(value))) {
        if (option->required) {
            return required_missing(options, option, what, errp);
        }
        options_prune(options->root, option->name);
        if (value) {
            block_options_remove(options, option->name);
        }
        set_default(option, target);
        return 0;
    }
    if (!option_read_value(option, value, field_of(option, target))) {
        return value_error(option, value, what, errp);
    }
    if (option->type != BLOCK_OPTION_CHILD) {
        block_options_remove(options, option->name);
    }
    return 0;
}

int block_options_absorb(BlockOptions *options, const BlockOption *table,
                         void *target, const char *what, GError **errp)
{
    for (const BlockOption *o = table; o->type != BLOCK_OPTION_END; o++) {
        if (field_bytes(o->type)) {
            memset(field_of(o, target), 0, field_bytes(o->type));
        }
    }
    for (const BlockOption *o = table; o->type != BLOCK_OPTION_END; o++) {
        int ret = absorb_one(options, o, target, what, errp);

        if (ret < 0) {
            block_options_clear(table, target);
            return ret;
        }
    }
    return 0;
}

void block_options_clear(const BlockOption *table, void *target)
{
    for (const BlockOption *o = table; o->type != BLOCK_OPTION_END; o++) {
        if (o->type == BLOCK_OPTION_STRING) {
            g_clear_pointer((char **)field_of(o, target), g_free);
        } else if (o->type == BLOCK_OPTION_TREE) {
            g_clear_pointer((BlockOptions **)field_of(o, target),
                            block_options_free);
        }
    }
}

/* --- what is left over ---------------------------------------------------- */

/* The name in @known that is closest to @key, or NULL if none is close. */
static const char *closest_name(const BlockOption *const *known,
                                const char *key)
{
    const char *closest = NULL;
    int best = MAX(1, (int)MIN(strlen(key), SUGGEST_NAME_MAX) / 3) + 1;

    if (!known || strlen(key) > SUGGEST_NAME_MAX) {
        return NULL;
    }
    for (; *known; known++) {
        for (const BlockOption *o = *known; o->type != BLOCK_OPTION_END; o++) {
            int distance;

            if (strlen(o->name) > SUGGEST_NAME_MAX) {
                continue;
            }
            distance = edit_distance(key, o->name);
            if (distance < best) {
                best = distance;
                closest = o->name;
            }
        }
    }
    return closest;
}

/* Whether some name in @known goes on behind @path and a dot. */
static bool is_known_prefix(const BlockOption *const *known, const char *path)
{
    size_t len = strlen(path);

    for (; known && *known; known++) {
        for (const BlockOption *o = *known; o->type != BLOCK_OPTION_END; o++) {
            if (!strncmp(o->name, path, len) && o->name[len] == '.') {
                return true;
            }
        }
    }
    return false;
}

/*
 * The first key left in @root: as a whole, or what is in it where the tables
 * have options inside of an object of that name.
 */
static char *first_left(const json_t *root, const BlockOption *const *known)
{
    g_autofree char *path = NULL;

    for (;;) {
        void *iter = json_object_iter((json_t *)root);
        const char *key = iter ? json_object_iter_key(iter) : NULL;
        g_autofree char *parent = g_steal_pointer(&path);

        if (!key) {
            return g_steal_pointer(&parent);
        }
        path = parent ? g_strdup_printf("%s.%s", parent, key) : g_strdup(key);
        root = json_object_iter_value(iter);
        if (!is_known_prefix(known, path)) {
            return g_steal_pointer(&path);
        }
    }
}

int block_options_check_empty(const BlockOptions *options,
                              const BlockOption *const *known,
                              const char *what, GError **errp)
{
    g_autofree char *key = NULL;
    g_autofree char *shown = NULL;
    const char *close;

    if (block_options_count(options) == 0) {
        return 0;
    }
    key = json_is_array(options->root) ? g_strdup("0")
                                       : first_left(options->root, known);
    close = closest_name(known, key);
    shown = options_shorten(key);
    if (close && strcmp(close, key)) {
        return block_error(errp, EINVAL,
                           "%s: unknown option '%s'; did you mean '%s'?",
                           what, shown, close);
    }
    return block_error(errp, EINVAL, "%s: unknown option '%s'", what, shown);
}

/* --- help ----------------------------------------------------------------- */

/* "<size>" and the like. */
static char *type_placeholder(const BlockOption *option)
{
    static const char *const names[] = {
        [BLOCK_OPTION_STRING] = "<string>", [BLOCK_OPTION_BOOL] = "<on|off>",
        [BLOCK_OPTION_NUMBER] = "<integer>", [BLOCK_OPTION_SIZE] = "<size>",
        [BLOCK_OPTION_DOUBLE] = "<number>", [BLOCK_OPTION_CHILD] = "<node>",
        [BLOCK_OPTION_TREE] = "<object>",
    };

    if (option->type == BLOCK_OPTION_ENUM) {
        g_autofree char *joined = g_strjoinv("|", (char **)option->values);

        return g_strdup_printf("<%s>", joined);
    }
    return g_strdup(names[option->type]);
}

/* " (required)", " (default: 64k; from 1 to 9)", or nothing. */
static char *remarks(const BlockOption *option)
{
    g_autoptr(GString) text = g_string_new(NULL);

    if (option->required) {
        g_string_append(text, "; required");
    }
    if (option->def) {
        g_string_append_printf(text, "; default: %s", option->def);
    }
    if (option->min || option->max) {
        if (option->max == INT64_MAX) {
            g_string_append_printf(text, "; at least %" PRId64, option->min);
        } else {
            g_string_append_printf(text, "; from %" PRId64 " to %" PRId64,
                                   option->min, option->max);
        }
    }
    return text->len ? g_strdup_printf(" (%s)", text->str + strlen("; "))
                     : g_strdup("");
}

char *block_options_help(const BlockOption *table)
{
    GString *text = g_string_new(NULL);
    int width = 0;

    for (const BlockOption *o = table; o->type != BLOCK_OPTION_END; o++) {
        g_autofree char *type = type_placeholder(o);

        width = MAX(width, (int)(strlen(o->name) + 1 + strlen(type)));
    }
    for (const BlockOption *o = table; o->type != BLOCK_OPTION_END; o++) {
        g_autofree char *type = type_placeholder(o);
        g_autofree char *left = g_strdup_printf("%s=%s", o->name, type);
        g_autofree char *right = remarks(o);

        g_string_append_printf(text, "  %-*s  %s%s\n", width, left,
                               o->help ? o->help : "", right);
    }
    return g_string_free(text, FALSE);
}
