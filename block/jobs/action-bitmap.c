/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Actions on dirty bitmaps.
 */
#include "block/jobs/action.h"

#include <errno.h>

#define OPT(field) offsetof(ActionOptions, field)

#define NODE_OPTION                                                           \
    { .name = "node", .type = BLOCK_OPTION_STRING, .required = true,          \
      .offset = OPT(node), .help = "node of the bitmap" }
#define NAME_OPTION                                                           \
    { .name = "name", .type = BLOCK_OPTION_STRING, .required = true,          \
      .offset = OPT(name), .help = "name of the bitmap" }

static const BlockOption name_options[] = {
    NODE_OPTION,
    NAME_OPTION,
    { .type = BLOCK_OPTION_END },
};

/* Read the arguments, and find the bitmap that @name of them names. */
static int find_bitmap(ActionState *a, const char *name, unsigned flags,
                       GError **errp)
{
    a->bitmap = bdrv_find_dirty_bitmap(a->bs, name);
    if (!a->bitmap) {
        return block_error(errp, ENOENT, "Node '%s' has no bitmap '%s'",
                           a->o.node, name);
    }
    return bdrv_dirty_bitmap_check(a->bitmap, flags, errp);
}

static int parse_and_find(ActionState *a, unsigned flags, GError **errp)
{
    int ret = action_parse(a, errp);

    return ret < 0 ? ret : find_bitmap(a, a->o.name, flags, errp);
}

/* Keep the bits as they are. */
static int save_bits(ActionState *a, GError **errp)
{
    WITH_LOCK(&a->bs->dirty.lock) {
        a->saved = a->bitmap->bits ? hbitmap_clone(a->bitmap->bits) : NULL;
    }
    return a->saved ? 0
                    : block_error(errp, ENOMEM, "No memory for a copy of "
                                  "bitmap '%s'",
                                  bdrv_dirty_bitmap_name(a->bitmap));
}

/* Others may have removed it while an action has waited. */
static bool is_there(const ActionState *a)
{
    const char *name = a->o.target ? a->o.target : a->o.name;

    return bdrv_find_dirty_bitmap(a->bs, name) == a->bitmap;
}

static void coroutine_fn restore_bits(ActionState *a)
{
    HBitmap *now = NULL;

    if (SIM_PLANTED(44) || !is_there(a)) {
        return;
    }
    WITH_LOCK(&a->bs->dirty.lock) {
        now = a->bitmap->bits;
        a->bitmap->bits = g_steal_pointer(&a->saved);
        a->bitmap->changed = true;
        dirty_marks_open(a->bs);
    }
    hbitmap_free(now);
}

/* --- add ------------------------------------------------------------------ */

static const BlockOption add_options[] = {
    NODE_OPTION,
    NAME_OPTION,
    { .name = "granularity", .type = BLOCK_OPTION_SIZE, .def = "0",
      .max = INT64_MAX, .offset = OPT(granularity),
      .help = "bytes that a bit stands for; 0: by the image" },
    { .name = "persistent", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(persistent), .help = "keep it in the image" },
    { .name = "disabled", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = OPT(disabled), .help = "do not track changes yet" },
    { .type = BLOCK_OPTION_END },
};

static int coroutine_fn add_prepare(ActionState *a, GError **errp)
{
    int ret = action_parse(a, errp);

    if (ret < 0) {
        return ret;
    }
    a->bitmap = bdrv_create_dirty_bitmap(a->bs, a->o.granularity, a->o.name,
                                         errp);
    if (!a->bitmap) {
        return -EINVAL;
    }
    if (a->o.persistent) {
        ret = bdrv_dirty_bitmap_set_persistence(a->bitmap, true, errp);
    }
    if (ret == 0 && a->o.disabled) {
        ret = bdrv_disable_dirty_bitmap(a->bitmap, errp);
    }
    if (ret < 0) {
        bdrv_release_dirty_bitmap(a->bitmap);
    }
    return ret;
}

static void coroutine_fn add_abort(ActionState *a)
{
    if (is_there(a)) {
        bdrv_release_dirty_bitmap(a->bitmap);
    }
}

const ActionDriver action_bitmap_add = {
    .options = add_options,
    .prepare = add_prepare,
    .abort = add_abort,
};

/* --- clear ---------------------------------------------------------------- */

static int coroutine_fn clear_prepare(ActionState *a, GError **errp)
{
    int ret = parse_and_find(a, BDRV_BITMAP_DEFAULT, errp);

    if (ret == 0) {
        ret = save_bits(a, errp);
    }
    return ret < 0 ? ret : bdrv_clear_dirty_bitmap(a->bitmap, errp);
}

const ActionDriver action_bitmap_clear = {
    .options = name_options,
    .prepare = clear_prepare,
    .abort = restore_bits,
};

/* --- enable and disable --------------------------------------------------- */

static int coroutine_fn enable_prepare(ActionState *a, GError **errp)
{
    int ret = parse_and_find(a, BDRV_BITMAP_DEFAULT, errp);

    if (ret < 0) {
        return ret;
    }
    a->was_enabled = bdrv_dirty_bitmap_enabled(a->bitmap);
    return bdrv_enable_dirty_bitmap(a->bitmap, errp);
}

static int coroutine_fn disable_prepare(ActionState *a, GError **errp)
{
    int ret = parse_and_find(a, BDRV_BITMAP_DEFAULT, errp);

    if (ret < 0) {
        return ret;
    }
    a->was_enabled = bdrv_dirty_bitmap_enabled(a->bitmap);
    return bdrv_disable_dirty_bitmap(a->bitmap, errp);
}

static void coroutine_fn enabled_abort(ActionState *a)
{
    if (!is_there(a)) {
        return;
    }
    if (a->was_enabled) {
        bdrv_enable_dirty_bitmap(a->bitmap, NULL);
    } else {
        bdrv_disable_dirty_bitmap(a->bitmap, NULL);
    }
}

const ActionDriver action_bitmap_enable = {
    .options = name_options,
    .prepare = enable_prepare,
    .abort = enabled_abort,
};

const ActionDriver action_bitmap_disable = {
    .options = name_options,
    .prepare = disable_prepare,
    .abort = enabled_abort,
};

/* --- merge ---------------------------------------------------------------- */

static const BlockOption merge_options[] = {
    NODE_OPTION,
    { .name = "target", .type = BLOCK_OPTION_STRING, .required = true,
      .offset = OPT(target), .help = "bitmap that gets all of it" },
    { .name = "bitmaps", .type = BLOCK_OPTION_TREE, .required = true,
      .offset = OPT(bitmaps),
      .help = "list of names, or of objects with \"node\" and \"name\"" },
    { .type = BLOCK_OPTION_END },
};

/* Element @i of the list: a name on this node, or of another one. */
static BdrvDirtyBitmap *find_source(ActionState *a, size_t i, GError **errp)
{
    g_autofree char *key = g_strdup_printf("%zu", i);
    g_autofree char *node_key = g_strdup_printf("%zu.node", i);
    g_autofree char *name_key = g_strdup_printf("%zu.name", i);
    const char *name = block_options_peek_str(a->o.bitmaps, key);
    const char *node = name ? a->o.node
                            : block_options_peek_str(a->o.bitmaps, node_key);
    BlockDriverState *bs = node ? bdrv_find_node(a->graph, node) : NULL;
    BdrvDirtyBitmap *bitmap;

    name = name ? name : block_options_peek_str(a->o.bitmaps, name_key);
    if (!node || !name) {
        block_error(errp, EINVAL, "Action 'block-dirty-bitmap-merge': element "
                    "%zu of 'bitmaps' is neither a name nor an object with "
                    "'node' and 'name'", i);
        return NULL;
    }
    bitmap = bs ? bdrv_find_dirty_bitmap(bs, name) : NULL;
    if (!bitmap) {
        block_error(errp, ENOENT, bs ? "Node '%s' has no bitmap '%s'"
                                     : "There is no node '%s' to have bitmap "
                                       "'%s'", node, name);
    }
    return bitmap;
}

static int coroutine_fn merge_prepare(ActionState *a, GError **errp)
{
    g_autoptr(GPtrArray) sources = g_ptr_array_new();
    size_t nr;
    int ret = action_parse(a, errp);

    if (ret < 0) {
        return ret;
    }
    if (!block_options_is_list(a->o.bitmaps)) {
        return block_error(errp, EINVAL, "Action 'block-dirty-bitmap-merge': "
                           "'bitmaps' must be a list");
    }
    ret = find_bitmap(a, a->o.target, BDRV_BITMAP_DEFAULT, errp);
    if (ret < 0) {
        return ret;
    }
    nr = block_options_count(a->o.bitmaps);
    for (size_t i = 0; i < nr; i++) {
        BdrvDirtyBitmap *source = find_source(a, i, errp);

        if (!source) {
            return -ENOENT;
        }
        g_ptr_array_add(sources, source);
    }
    ret = save_bits(a, errp);
    return ret < 0 ? ret
                   : bdrv_merge_dirty_bitmaps(
                         a->bitmap, (BdrvDirtyBitmap *const *)sources->pdata,
                         nr, errp);
}

const ActionDriver action_bitmap_merge = {
    .options = merge_options,
    .prepare = merge_prepare,
    .abort = restore_bits,
};

/* --- remove --------------------------------------------------------------- */

/* The image forgets it now, which may fail; the memory at the end. */
static int coroutine_fn remove_prepare(ActionState *a, GError **errp)
{
    int ret = parse_and_find(a, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp);

    if (ret == 0) {
        ret = dirty_bitmap_co_unstore(a->bitmap, errp);
    }
    if (ret == 0) {
        bdrv_dirty_bitmap_set_busy(a->bitmap, true);
    }
    return ret;
}

static void remove_commit(ActionState *a)
{
    bdrv_dirty_bitmap_set_busy(a->bitmap, false);
    bdrv_release_dirty_bitmap(a->bitmap);
}

/* It is stored again when the image is closed. */
static void coroutine_fn remove_abort(ActionState *a)
{
    bdrv_dirty_bitmap_set_busy(a->bitmap, false);
}

const ActionDriver action_bitmap_remove = {
    .options = name_options,
    .prepare = remove_prepare,
    .commit = remove_commit,
    .abort = remove_abort,
};
