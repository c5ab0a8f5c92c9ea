/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From text to an option tree: JSON, key=value lists, image names.
 *
 * Texts come from people, from the control socket and from image files, so
 * all are hostile.  What bounds the work:
 *  - a text has at most OPTIONS_TEXT_MAX bytes;
 *  - no tree is deeper than OPTIONS_DEPTH_MAX, counting dots, so recursion
 *    over a tree fits the small stack of a coroutine.  JSON is checked for
 *    this before the JSON parser, which is recursive too, sees it;
 *  - a part of a key has at most OPTIONS_NAME_MAX bytes, so the path of a
 *    place, which is built for each option, is short.
 */
#include "util/options-int.h"

#include <errno.h>
#include <string.h>

static int unfold_into(json_t *to, const json_t *from, const char *path,
                       int depth, GError **errp);

/* @key in the object that @path names ("" is the top). */
static char *join_path(const char *path, const char *key)
{
    return path[0] ? g_strdup_printf("%s.%s", path, key) : g_strdup(key);
}

static int too_deep(const char *path, GError **errp)
{
    g_autofree char *shown = options_shorten(path);

    return block_error(errp, EINVAL,
                       "Options at '%s' are nested deeper than %d", shown,
                       OPTIONS_DEPTH_MAX);
}

/* --- unfolding ------------------------------------------------------------ */

/*
 * A copy of @value, unfolded, for the place @path.  Returns NULL with @errp
 * set on failure.
 */
static json_t *unfold_value(const json_t *value, const char *path, int depth,
                            GError **errp)
{
    json_t *copy;

    if (!json_is_object(value) && !json_is_array(value)) {
        return json_incref((json_t *)value);
    }
    if (depth >= OPTIONS_DEPTH_MAX) {
        too_deep(path, errp);
        return NULL;
    }
    if (json_is_object(value)) {
        copy = json_object();
        if (unfold_into(copy, value, path, depth, errp) < 0) {
            g_clear_pointer(&copy, json_decref);
        }
        return copy;
    }
    copy = json_array();
    for (size_t i = 0; i < json_array_size(value); i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);
        g_autofree char *place = join_path(path, index);
        json_t *item = unfold_value(json_array_get(value, i), place, depth + 1,
                                    errp);

        if (!item) {
            g_clear_pointer(&copy, json_decref);
            return NULL;
        }
        json_array_append_new(copy, item);
    }
    return copy;
}

/*
 * The object at @part in @to, made if nothing is there.  Returns NULL with
 * @errp set when a plain value is.
 */
static json_t *enter_object(json_t *to, const char *part, const char *path,
                            GError **errp)
{
    json_t *child = json_object_get(to, part);

    if (!child) {
        child = json_object();
        json_object_set_new(to, part, child);
    }
    if (!json_is_object(child)) {
        block_error(errp, EINVAL,
                    "Option '%s' is given both as a value and as an object "
                    "of further options", path);
        return NULL;
    }
    return child;
}

/* Put @value at the key @last, which has no dots, of @to. */
static int insert_last(json_t *to, const char *last, const json_t *value,
                       const char *path, int depth, GError **errp)
{
    json_t *old = json_object_get(to, last);
    json_t *copy;

    if (json_is_object(value) && json_is_object(old)) {
        return unfold_into(old, value, path, depth, errp);
    }
    if (old && (json_is_object(value) || json_is_object(old))) {
        return block_error(errp, EINVAL,
                           "Option '%s' is given both as a value and as an "
                           "object of further options", path);
    }
    if (old) {
        return block_error(errp, EINVAL, "Option '%s' is given twice", path);
    }
    copy = unfold_value(value, path, depth, errp);
    if (!copy) {
        return -EINVAL;
    }
    json_object_set_new(to, last, copy);
    return 0;
}

static bool name_is_fine(const char *name)
{
    return name[0] && strnlen(name, OPTIONS_NAME_MAX + 1) <= OPTIONS_NAME_MAX;
}

static int bad_name(const char *path, const char *key, GError **errp)
{
    g_autofree char *place = join_path(path, key);
    g_autofree char *shown = options_shorten(place);

    return block_error(errp, EINVAL, "Option '%s' has an empty or too long "
                       "name, or part of a name", shown);
}

/* Put @value at the key @key, which may be dotted, of @to at @path. */
static int insert_dotted(json_t *to, const char *key, const json_t *value,
                         const char *path, int depth, GError **errp)
{
    /* One part more than may be is enough to see that there are too many. */
    g_auto(GStrv) parts = g_strsplit(key, ".", OPTIONS_DEPTH_MAX + 1);
    g_autofree char *place = g_strdup(path);
    guint nr_parts = g_strv_length(parts);

    if (depth + nr_parts > OPTIONS_DEPTH_MAX) {
        return too_deep(key, errp);
    }
    for (guint i = 0; i < MAX(nr_parts, 1); i++) {
        g_autofree char *parent = g_steal_pointer(&place);

        if (nr_parts == 0 || !name_is_fine(parts[i])) {
            return bad_name(path, key, errp);
        }
        place = join_path(parent, parts[i]);
        if (i + 1 == nr_parts) {
            return insert_last(to, parts[i], value, place, depth + nr_parts,
                               errp);
        }
        to = enter_object(to, parts[i], place, errp);
        if (!to) {
            return -EINVAL;
        }
    }
    g_assert_not_reached();
}

/* Put all of the object @from into @to, which stands at @path. */
static int unfold_into(json_t *to, const json_t *from, const char *path,
                       int depth, GError **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)from, key, value) {
        int ret = insert_dotted(to, key, value, path, depth, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* --- lists ---------------------------------------------------------------- */

static bool has_only_indices(const json_t *object)
{
    const char *key;
    json_t *value;
    size_t index;

    json_object_foreach((json_t *)object, key, value) {
        if (!options_parse_index(key, &index)) {
            return false;
        }
    }
    return json_object_size(object) > 0;
}

static json_t *list_of_object(const json_t *object, const char *path,
                              GError **errp)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_object_size(object); i++) {
        g_autofree char *key = g_strdup_printf("%zu", i);
        json_t *value = json_object_get(object, key);

        if (!value) {
            block_error(errp, EINVAL, "List '%s' has no element %zu, but "
                        "later ones", path, i);
            json_decref(list);
            return NULL;
        }
        json_array_append(list, value);
    }
    return list;
}

/* Make lists of the objects below @value (at @path) that have only indices. */
static int make_lists(json_t *value, const char *path, GError **errp)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    const char *name;
    json_t *child;
    size_t index;

    /* Replacing values while iterating would be safe, but hard to see. */
    json_object_foreach(value, name, child) {
        g_ptr_array_add(keys, g_strdup(name));
    }
    json_array_foreach(value, index, child) {
        g_ptr_array_add(keys, g_strdup_printf("%zu", index));
    }
    for (guint i = 0; i < keys->len; i++) {
        const char *key = keys->pdata[i];
        g_autofree char *place = join_path(path, key);
        int ret;

        child = json_is_object(value) ? json_object_get(value, key)
                                      : json_array_get(value, i);
        ret = make_lists(child, place, errp);
        if (ret < 0) {
            return ret;
        }
        if (!json_is_object(child) || !has_only_indices(child)) {
            continue;
        }
        child = list_of_object(child, place, errp);
        if (!child) {
            return -EINVAL;
        }
        if (json_is_object(value)) {
            json_object_set_new(value, key, child);
        } else {
            json_array_set_new(value, i, child);
        }
    }
    return 0;
}

BlockOptions *options_from_json(const json_t *root, GError **errp)
{
    json_t *tree;

    if (!json_is_object(root)) {
        block_error(errp, EINVAL, "Options must be a JSON object");
        return NULL;
    }
    tree = unfold_value(root, "", 0, errp);
    if (!tree) {
        return NULL;
    }
    if (make_lists(tree, "", errp) < 0) {
        json_decref(tree);
        return NULL;
    }
    return options_wrap(tree);
}

/* --- JSON ----------------------------------------------------------------- */

static int check_text(const char *text, const char *what, GError **errp)
{
    const char *bad;

    if (strnlen(text, OPTIONS_TEXT_MAX + 1) > OPTIONS_TEXT_MAX) {
        return block_error(errp, EINVAL,
                           "Could not parse %s: longer than %d bytes", what,
                           OPTIONS_TEXT_MAX);
    }
    if (!g_utf8_validate(text, -1, &bad)) {
        return block_error(errp, EINVAL, "Could not parse %s: byte %td is "
                           "not part of valid UTF-8", what, bad - text);
    }
    return 0;
}

/* Whether brackets outside of strings nest no deeper than is allowed. */
static bool json_depth_is_fine(const char *text)
{
    bool in_string = false;
    int depth = 0;

    for (const char *p = text; *p; p++) {
        if (in_string) {
            if (*p == '\\' && p[1]) {
                p++;
            } else if (*p == '"') {
                in_string = false;
            }
        } else if (*p == '"') {
            in_string = true;
        } else if (*p == '{' || *p == '[') {
            if (++depth > OPTIONS_DEPTH_MAX) {
                return false;
            }
        } else if (*p == '}' || *p == ']') {
            depth--;
        }
    }
    return true;
}

BlockOptions *block_options_parse_json(const char *text, GError **errp)
{
    BlockOptions *options;
    json_error_t error;
    json_t *root;

    if (check_text(text, "JSON options", errp) < 0) {
        return NULL;
    }
    if (!json_depth_is_fine(text)) {
        block_error(errp, EINVAL,
                    "Could not parse JSON options: nested deeper than %d",
                    OPTIONS_DEPTH_MAX);
        return NULL;
    }
    root = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!root) {
        block_error(errp, EINVAL,
                    "Could not parse JSON options: line %d, column %d: %s",
                    error.line, error.column, error.text);
        return NULL;
    }
    options = options_from_json(root, errp);
    json_decref(root);
    return options;
}

/* --- key=value ------------------------------------------------------------ */

/*
 * Read a value up to a single comma or the end; ",," stands for a comma.
 * Sets @ret_end to the comma or the end.
 */
static char *read_value(const char *text, const char **ret_end)
{
    GString *value = g_string_new(NULL);

    while (*text && (text[0] != ',' || text[1] == ',')) {
        if (text[0] == ',') {
            text++;
        }
        g_string_append_c(value, *text++);
    }
    *ret_end = text;
    return g_string_free(value, FALSE);
}

/* Read the element at @text into @root.  Sets @ret_end behind it. */
static int read_element(json_t *root, const char *text, const char *implied,
                        const char **ret_end, GError **errp)
{
    size_t key_len = strcspn(text, "=,");
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;
    json_t *string;
    int ret;

    if (text[key_len] == '=') {
        key = g_strndup(text, key_len);
        text += key_len + 1;
    } else if (implied && *text) {
        key = g_strdup(implied);
    } else if (key_len == 0) {
        return block_error(errp, EINVAL, "Options have an empty element");
    } else {
        g_autofree char *name = g_strndup(text, key_len);
        g_autofree char *shown = options_shorten(name);

        return block_error(errp, EINVAL, "Option '%s' has no value: '=' "
                           "expected after its name", shown);
    }
    value = read_value(text, ret_end);
    string = json_string(value);
    g_assert(string);                   /* the whole text is UTF-8 */
    ret = insert_dotted(root, key, string, "", 0, errp);
    json_decref(string);
    return ret;
}

BlockOptions *block_options_parse_keyval(const char *text,
                                         const char *implied_key,
                                         GError **errp)
{
    const char *p = text;
    json_t *root;
    bool more = *text;

    if (check_text(text, "options", errp) < 0) {
        return NULL;
    }
    root = json_object();
    while (more) {
        if (read_element(root, p, p == text ? implied_key : NULL, &p,
                         errp) < 0) {
            json_decref(root);
            return NULL;
        }
        more = *p == ',';       /* a last comma promises one more element */
        p += more;
    }
    if (make_lists(root, "", errp) < 0) {
        json_decref(root);
        return NULL;
    }
    return options_wrap(root);
}

BlockOptions *block_options_parse_filename(const char *text, GError **errp)
{
    BlockOptions *options;

    if (g_str_has_prefix(text, "json:")) {
        return block_options_parse_json(text + strlen("json:"), errp);
    }
    if (!text[0]) {
        block_error(errp, EINVAL, "The name of an image must not be empty");
        return NULL;
    }
    options = block_options_new();
    block_options_set_str(options, "driver", "file");
    block_options_set_str(options, "filename", text);
    return options;
}
