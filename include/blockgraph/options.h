/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options: one tree, whatever the notation, and tables that describe it.
 *
 * A tree is a JSON object: strings, numbers, booleans, null, lists and nested
 * objects.  These are the same tree:
 *
 *   {"driver": "raw", "file": {"driver": "file", "filename": "x.img"}}
 *   driver=raw,file.driver=file,file.filename=x.img
 *   json:{"driver": "raw", "file.driver": "file", "file.filename": "x.img"}
 *
 * Values that come from key=value text are strings; a table's type says how to
 * read them.  Not thread-safe: one tree, one thread at a time.
 *
 * Keys may be dotted everywhere: "a.b" is the key "b" in the object "a".  Below
 * the top, an object with the keys 0, 1, 2, ... is a list, and a number in a
 * dotted key names an element.  No key is empty or has an empty part; a key
 * has at most 64 parts of at most 127 bytes.  Keys given to functions other
 * than the parsers are the caller's own text: a bad one there is a bug and
 * aborts.
 *
 * Texts that are parsed are UTF-8.  A plain file name and strings set by
 * block_options_set_str() may be any bytes, as file names are.
 */
#ifndef BLOCKGRAPH_OPTIONS_H
#define BLOCKGRAPH_OPTIONS_H

#include <blockgraph/error.h>

G_BEGIN_DECLS

/** An empty tree.  The caller owns it. */
BLOCK_API BlockOptions *block_options_new(void);

/** A deep copy.  The caller owns it. */
BLOCK_API BlockOptions *block_options_clone(const BlockOptions *options);

/** Free a tree; NULL is ignored. */
BLOCK_API void block_options_free(BlockOptions *options);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockOptions, block_options_free)

/**
 * Parse a JSON object.  Dotted keys in it are unfolded into nested objects.
 * Refused: keys given twice (in either notation), text after the object,
 * nesting deeper than 64, texts above 1 MiB, integers beyond 64 bits, NUL
 * characters, invalid UTF-8, lists with a gap.
 *
 * Returns the tree, or NULL with @errp set, naming the place.
 */
BLOCK_API BlockOptions *block_options_parse_json(const char *text,
                                                 GError **errp);

/**
 * Parse "key=value,key=value".  ",," in a value stands for one comma; dots in
 * keys make nested objects; objects whose keys are all of 0, 1, 2, ... become
 * lists.  Refused: keys given twice, empty elements and key parts, lists with
 * a gap, nesting deeper than 64, texts above 1 MiB, invalid UTF-8.  The empty
 * text is an empty tree.
 *
 * @implied_key  key of a first element without "=", or NULL
 *
 * Returns the tree, or NULL with @errp set, naming the element.
 */
BLOCK_API BlockOptions *block_options_parse_keyval(const char *text,
                                                   const char *implied_key,
                                                   GError **errp);

/**
 * Parse what a person gives to name an image: "json:{...}" as a tree, anything
 * else as {"driver": "file", "filename": TEXT}.
 *
 * Returns the tree, or NULL with @errp set.
 */
BLOCK_API BlockOptions *block_options_parse_filename(const char *text,
                                                     GError **errp);

/**
 * @options as JSON text, keys sorted.  Bytes that are not UTF-8 show as the
 * replacement character.  Free with g_free().
 */
BLOCK_API char *block_options_to_json(const BlockOptions *options);

/*
 * Setters.  @key may be dotted; what stood there is replaced, and so is a
 * plain value that stood on the way.  A number past the end of a list
 * appends.
 */

/** Set a string; any bytes but NUL. */
BLOCK_API void block_options_set_str(BlockOptions *options, const char *key,
                                     const char *value);
/** Set an integer. */
BLOCK_API void block_options_set_int(BlockOptions *options, const char *key,
                                     int64_t value);
/** Set a boolean. */
BLOCK_API void block_options_set_bool(BlockOptions *options, const char *key,
                                      bool value);
/**
 * Set @key to @value unless @options has it.  A value that stands in its way
 * ("cache": 5 for the key "cache.direct") stays, and is an error when the
 * options are read.
 */
BLOCK_API void block_options_default_bool(BlockOptions *options,
                                          const char *key, bool value);

/** Set a nested tree; takes @value over. */
BLOCK_API void block_options_set_tree(BlockOptions *options, const char *key,
                                      BlockOptions *value);

/* Readers. */

/** Whether @key (may be dotted) is there, null included. */
BLOCK_API bool block_options_has(const BlockOptions *options, const char *key);

/** The string at @key, or NULL if absent or no string.  Owned by the tree. */
BLOCK_API const char *block_options_peek_str(const BlockOptions *options,
                                             const char *key);

/**
 * Remove @key (may be dotted), and objects and lists that are empty then.
 * The elements behind a removed one move down.  Returns whether it was there.
 */
BLOCK_API bool block_options_remove(BlockOptions *options, const char *key);

/**
 * Add to @options what @other has and @options has not; nested objects are
 * merged the same way.
 */
BLOCK_API void block_options_merge(BlockOptions *options,
                                   const BlockOptions *other);

/**
 * Whether @key is absent in both trees, or has equal values.  Text and number
 * are not equal: "1" is not 1.
 */
BLOCK_API bool block_options_same(const BlockOptions *a, const BlockOptions *b,
                                  const char *key);

/** How many keys stand at the top level; of a list: how many elements. */
BLOCK_API size_t block_options_count(const BlockOptions *options);

/** Whether @options is a list, as BLOCK_OPTION_TREE can give. */
BLOCK_API bool block_options_is_list(const BlockOptions *options);

/**
 * The keys at the top level in the order in which they came, closed by NULL;
 * of a list: "0", "1", ...  Free with g_strfreev().
 */
BLOCK_API char **block_options_keys(const BlockOptions *options);

/** What block_options_take_child() found. */
typedef enum BlockOptionsChild {
    BLOCK_OPTIONS_CHILD_NONE,      /* absent */
    BLOCK_OPTIONS_CHILD_NULL,      /* null: explicitly nothing */
    BLOCK_OPTIONS_CHILD_REFERENCE, /* a string: a node name */
    BLOCK_OPTIONS_CHILD_TREE,      /* an object: options of a new node */
} BlockOptionsChild;

/**
 * Take @key (may be dotted), a reference to a node, out of @options.  Results
 * that @ret_kind does not name are left as they are.
 *
 * @ret_reference  set to the node name (g_free()) for REFERENCE
 * @ret_tree       set to the tree (block_options_free()) for TREE
 * @ret_kind       what was found
 *
 * Returns 0, or -EINVAL with @errp set when it is of another type.
 */
BLOCK_API int block_options_take_child(BlockOptions *options, const char *key,
                                       BlockOptionsChild *ret_kind,
                                       char **ret_reference,
                                       BlockOptions **ret_tree, GError **errp);

/* --- tables --------------------------------------------------------------- */

/** The type of an option, and of the field that receives it. */
typedef enum BlockOptionType {
    BLOCK_OPTION_END,    /* closes a table */
    BLOCK_OPTION_STRING, /* char *, g_free(); default may be NULL */
    BLOCK_OPTION_BOOL,   /* bool: on/off, true/false, yes/no, or a JSON bool */
    BLOCK_OPTION_NUMBER, /* int64_t within min..max */
    BLOCK_OPTION_SIZE,   /* int64_t in min..max, as by block_parse_size() */
    BLOCK_OPTION_DOUBLE, /* double within min..max */
    BLOCK_OPTION_ENUM,   /* int: index into values */
    BLOCK_OPTION_CHILD,  /* a node; left in the tree for the graph, no field */
    BLOCK_OPTION_TREE,   /* BlockOptions *, object or list; NULL if absent */
} BlockOptionType;

/** One option: from it come parsing, error texts, --help and the manual. */
typedef struct BlockOption {
    const char *name;          /* key, may be dotted: "cache.direct" */
    BlockOptionType type;
    const char *def;           /* text of the default, or NULL for none */
    int64_t min, max;          /* NUMBER, SIZE, DOUBLE; both 0: no limits */
    const char *const *values; /* ENUM: names, closed by NULL */
    size_t offset;             /* of the field in the target struct */
    bool required;
    const char *help;          /* one line */
} BlockOption;

/**
 * Take the options of @table out of @options into the struct at @target.
 *
 * Absent ones get their default (zero when the table has none).  On failure
 * nothing of @target needs to be freed, and @options may have lost keys.
 *
 * @what  for the error text, e.g. "Node 'disk0' (driver 'file')"
 *
 * Returns 0, or -EINVAL with @errp naming @what, the key, the value and what
 * is allowed.
 */
BLOCK_API int block_options_absorb(BlockOptions *options,
                                   const BlockOption *table, void *target,
                                   const char *what, GError **errp);

/** Free what block_options_absorb() put into @target. */
BLOCK_API void block_options_clear(const BlockOption *table, void *target);

/**
 * Check that nothing is left in @options.
 *
 * @known  tables (closed by NULL) from which a close match may be suggested,
 *         or NULL
 *
 * Returns 0, or -EINVAL with @errp naming @what and the first unknown key.
 */
BLOCK_API int block_options_check_empty(const BlockOptions *options,
                                        const BlockOption *const *known,
                                        const char *what, GError **errp);

/** Help text of @table, a line an option, aligned.  Free with g_free(). */
BLOCK_API char *block_options_help(const BlockOption *table);

/**
 * Parse a size: digits, optional suffix b k M G T P E in either case (powers
 * of 1024), before a suffix from k on an optional fraction (rounded down to a
 * byte).  0x for hexadecimal without suffix.
 *
 * Returns 0, -EINVAL (not a size) or -ERANGE (negative or above INT64_MAX).
 * @ret_bytes is set on success only.  Thread: any.
 */
BLOCK_API int block_parse_size(const char *text, int64_t *ret_bytes);

G_END_DECLS

#endif /* BLOCKGRAPH_OPTIONS_H */
