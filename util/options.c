/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The option tree: a JSON value behind dotted keys.
 *
 * Each function that takes a key walks the tree part by part; in an object a
 * part is a key, in a list it is an index.
 */
#include "util/options-int.h"

#include <errno.h>
#include <string.h>

BlockOptions *options_wrap(json_t *root)
{
    BlockOptions *options = g_new(BlockOptions, 1);

    g_assert(json_is_object(root) || json_is_array(root));
    options->root = root;
    return options;
}

BlockOptions *block_options_new(void)
{
    return options_wrap(json_object());
}

BlockOptions *block_options_clone(const BlockOptions *options)
{
    return options_wrap(json_deep_copy(options->root));
}

void block_options_free(BlockOptions *options)
{
    if (options) {
        json_decref(options->root);
        g_free(options);
    }
}

/* --- walking -------------------------------------------------------------- */

/* The parts of a key of the program's own: a bad one is a bug. */
static char **split_key(const char *key)
{
    char **parts = g_strsplit(key, ".", 0);
    guint nr_parts = g_strv_length(parts);

    g_assert(nr_parts > 0 && nr_parts <= OPTIONS_DEPTH_MAX);
    for (guint i = 0; i < nr_parts; i++) {
        g_assert(parts[i][0] && g_utf8_validate(parts[i], -1, NULL));
    }
    return parts;
}

bool options_parse_index(const char *part, size_t *ret_index)
{
    guint64 index;

    if (part[0] == '0' && part[1]) {
        return false;
    }
    if (!g_ascii_string_to_unsigned(part, 10, 0, SIZE_MAX, &index, NULL)) {
        return false;
    }
    *ret_index = index;
    return true;
}

static json_t *step(const json_t *at, const char *part)
{
    size_t index;

    if (json_is_object(at)) {
        return json_object_get(at, part);
    }
    if (json_is_array(at) && options_parse_index(part, &index)) {
        return json_array_get(at, index);
    }
    return NULL;
}

static bool is_container(const json_t *value)
{
    return json_is_object(value) || json_is_array(value);
}

static bool is_empty_container(const json_t *value)
{
    return (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static void delete_part(json_t *at, const char *part)
{
    size_t index;

    if (json_is_object(at)) {
        json_object_del(at, part);
    } else if (options_parse_index(part, &index)) {
        json_array_remove(at, index);
    }
}

/* Put @value, which is taken over, at @part of @at. */
static void store_part(json_t *at, const char *part, json_t *value)
{
    size_t index;
    int ret;

    if (json_is_object(at)) {
        ret = json_object_set_new(at, part, value);
    } else if (options_parse_index(part, &index) &&
               index < json_array_size(at)) {
        ret = json_array_set_new(at, index, value);
    } else {
        ret = json_array_append_new(at, value);
    }
    g_assert(ret == 0);
}

json_t *options_find(const json_t *root, const char *key, char **ret_blocked)
{
    g_auto(GStrv) parts = split_key(key);
    json_t *at = (json_t *)root;

    if (ret_blocked) {
        *ret_blocked = NULL;
    }
    for (int i = 0; parts[i] && at; i++) {
        if (ret_blocked && !is_container(at)) {
            g_free(parts[i]);
            parts[i] = NULL;            /* what stands before is the place */
            *ret_blocked = g_strjoinv(".", parts);
            return NULL;
        }
        at = step(at, parts[i]);
    }
    return at;
}

static void prune_parts(json_t *at, char **parts)
{
    json_t *child = step(at, parts[0]);

    if (!child || !parts[1]) {
        return;
    }
    prune_parts(child, parts + 1);
    if (is_empty_container(child)) {
        delete_part(at, parts[0]);
    }
}

void options_prune(json_t *root, const char *key)
{
    g_auto(GStrv) parts = split_key(key);

    prune_parts(root, parts);
}

json_t *options_take(json_t *root, const char *key)
{
    g_auto(GStrv) parts = split_key(key);
    json_t *at = root;
    json_t *value;
    int last = 0;

    while (parts[last + 1] && at) {
        at = step(at, parts[last++]);
    }
    value = at ? step(at, parts[last]) : NULL;
    if (!value) {
        return NULL;
    }
    json_incref(value);
    delete_part(at, parts[last]);
    prune_parts(root, parts);
    return value;
}

/* --- setters -------------------------------------------------------------- */

/* Put @value, which is taken over, at @key. */
static void set_value(BlockOptions *options, const char *key, json_t *value)
{
    g_auto(GStrv) parts = split_key(key);
    json_t *at = options->root;
    int i;

    g_assert(value);
    for (i = 0; parts[i + 1]; i++) {
        json_t *child = step(at, parts[i]);

        if (!is_container(child)) {
            child = json_object();
            store_part(at, parts[i], child);
        }
        at = child;
    }
    store_part(at, parts[i], value);
}

void block_options_set_str(BlockOptions *options, const char *key,
                           const char *value)
{
    /* No check: names of files on disk are bytes, not UTF-8. */
    set_value(options, key, json_string_nocheck(value));
}

void block_options_set_int(BlockOptions *options, const char *key,
                           int64_t value)
{
    set_value(options, key, json_integer(value));
}

void block_options_set_bool(BlockOptions *options, const char *key,
                            bool value)
{
    set_value(options, key, json_boolean(value));
}

void block_options_default_bool(BlockOptions *options, const char *key,
                                bool value)
{
    g_autofree char *blocked = NULL;

    if (!options_find(options->root, key, &blocked) && !blocked) {
        block_options_set_bool(options, key, value);
    }
}

void block_options_set_tree(BlockOptions *options, const char *key,
                            BlockOptions *value)
{
    g_assert(value != options);
    set_value(options, key, json_incref(value->root));
    block_options_free(value);
}

static void merge_objects(json_t *to, const json_t *from)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)from, key, value) {
        json_t *old = json_object_get(to, key);

        if (!old) {
            json_object_set_new(to, key, json_deep_copy(value));
        } else if (json_is_object(old) && json_is_object(value)) {
            merge_objects(old, value);
        }
    }
}

void block_options_merge(BlockOptions *options, const BlockOptions *other)
{
    g_assert(json_is_object(options->root) && json_is_object(other->root));
    merge_objects(options->root, other->root);
}

/* --- readers -------------------------------------------------------------- */

bool block_options_has(const BlockOptions *options, const char *key)
{
    return options_find(options->root, key, NULL) != NULL;
}

bool block_options_same(const BlockOptions *a, const BlockOptions *b,
                        const char *key)
{
    const json_t *value_a = options_find(a->root, key, NULL);
    const json_t *value_b = options_find(b->root, key, NULL);

    if (!value_a || !value_b) {
        return value_a == value_b;
    }
    return json_equal(value_a, value_b);
}

const char *block_options_peek_str(const BlockOptions *options,
                                   const char *key)
{
    return json_string_value(options_find(options->root, key, NULL));
}

bool block_options_remove(BlockOptions *options, const char *key)
{
    json_t *value = options_take(options->root, key);

    json_decref(value);
    return value != NULL;
}

size_t block_options_count(const BlockOptions *options)
{
    return json_is_array(options->root) ? json_array_size(options->root)
                                        : json_object_size(options->root);
}

bool block_options_is_list(const BlockOptions *options)
{
    return json_is_array(options->root);
}

char **block_options_keys(const BlockOptions *options)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    const char *key;
    json_t *value;

    if (json_is_array(options->root)) {
        for (size_t i = 0; i < json_array_size(options->root); i++) {
            g_ptr_array_add(keys, g_strdup_printf("%zu", i));
        }
    } else {
        json_object_foreach(options->root, key, value) {
            g_ptr_array_add(keys, g_strdup(key));
        }
    }
    g_ptr_array_add(keys, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&keys), FALSE);
}

int block_options_take_child(BlockOptions *options, const char *key,
                             BlockOptionsChild *ret_kind, char **ret_reference,
                             BlockOptions **ret_tree, GError **errp)
{
    json_t *value = options_find(options->root, key, NULL);
    const char *name = json_string_value(value);

    if (!value) {
        *ret_kind = BLOCK_OPTIONS_CHILD_NONE;
        return 0;
    }
    if (name && !name[0]) {
        return block_error(errp, EINVAL,
                           "Option '%s' names no node: the name is empty "
                           "(null in JSON stands for no node)", key);
    }
    if (!name && !json_is_object(value) && !json_is_null(value)) {
        g_autofree char *shown = option_show_value(value);

        return block_error(errp, EINVAL,
                           "Option '%s' expects a node name, an object or "
                           "null, not %s", key, shown);
    }
    value = options_take(options->root, key);
    if (name) {
        *ret_kind = BLOCK_OPTIONS_CHILD_REFERENCE;
        *ret_reference = g_strdup(json_string_value(value));
    } else if (json_is_object(value)) {
        *ret_kind = BLOCK_OPTIONS_CHILD_TREE;
        *ret_tree = options_wrap(json_incref(value));
    } else {
        *ret_kind = BLOCK_OPTIONS_CHILD_NULL;
    }
    json_decref(value);
    return 0;
}

/* --- output --------------------------------------------------------------- */

/* A copy of @value in which each string is UTF-8. */
static json_t *copy_as_utf8(json_t *value)
{
    json_t *copy, *child;
    const char *key;
    size_t index;

    switch (json_typeof(value)) {
    case JSON_STRING: {
        g_autofree char *text =
            g_utf8_make_valid(json_string_value(value), -1);

        return json_string(text);
    }
    case JSON_OBJECT:
        copy = json_object();
        json_object_foreach(value, key, child) {
            json_object_set_new(copy, key, copy_as_utf8(child));
        }
        return copy;
    case JSON_ARRAY:
        copy = json_array();
        json_array_foreach(value, index, child) {
            json_array_append_new(copy, copy_as_utf8(child));
        }
        return copy;
    default:
        return json_incref(value);
    }
}

char *block_options_to_json(const BlockOptions *options)
{
    json_t *clean = copy_as_utf8(options->root);
    char *text = json_dumps(clean, JSON_SORT_KEYS);
    char *result = g_strdup(text);

    g_assert(text);
    free(text);         /* of jansson's allocator, which g_free() is not */
    json_decref(clean);
    return result;
}
