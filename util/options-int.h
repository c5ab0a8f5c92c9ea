/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of an option tree, for its parser, its tables, and for code that
 * speaks JSON anyway (the control protocol).
 */
#ifndef UTIL_OPTIONS_INT_H
#define UTIL_OPTIONS_INT_H

#include <blockgraph/options.h>
#include <jansson.h>

/* Deepest nesting of a tree that was parsed, and most parts of a key. */
#define OPTIONS_DEPTH_MAX 64

/* Longest part of a dotted key that was parsed, in bytes. */
#define OPTIONS_NAME_MAX 127

/* Longest text that is parsed. */
#define OPTIONS_TEXT_MAX (1 << 20)

struct BlockOptions {
    /*
     * An object, or a list where a table says so.  No key in it has a dot:
     * dotted keys are unfolded on their way in.
     */
    json_t *root;
};

/**
 * A tree of the object @root as it comes from JSON: unfolds dotted keys and
 * makes lists, as block_options_parse_json() does.  @root stays the caller's.
 *
 * Returns the tree, or NULL with @errp set.
 */
BlockOptions *options_from_json(const json_t *root, GError **errp);

/** A tree that is @root, which must be unfolded; takes the reference over. */
BlockOptions *options_wrap(json_t *root);

/** Whether @part of a key is a list index: digits, no leading zero. */
bool options_parse_index(const char *part, size_t *ret_index);

/**
 * The value at @key, which may be dotted, or NULL.
 *
 * @ret_blocked  if not NULL: set to the part of @key that names a plain value
 *               although more parts follow, else to NULL; g_free() it
 */
json_t *options_find(const json_t *root, const char *key, char **ret_blocked);

/**
 * Take the value at @key out of the tree; objects and lists that are empty
 * then go too.  Returns a reference for the caller, or NULL.
 */
json_t *options_take(json_t *root, const char *key);

/** Remove the objects and lists on the way to @key that are empty. */
void options_prune(json_t *root, const char *key);

/**
 * Read @value as the type of @option and store it at @field, which holds
 * nothing that needs to be freed.
 *
 * Returns false, @field unchanged, if it is of another type or outside the
 * limits; option_expects() then says what is allowed.
 */
bool option_read_value(const BlockOption *option, json_t *value, void *field);

/** What @option allows, for an error text.  g_free() it. */
char *option_expects(const BlockOption *option);

/** @text for an error text, cut after 64 characters.  g_free() it. */
char *options_shorten(const char *text);

/** @value for an error text, shortened.  g_free() it. */
char *option_show_value(const json_t *value);

#endif /* UTIL_OPTIONS_INT_H */
