/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image says of itself, under the keys of "qemu-img info".
 */
#include "block/formats/qcow2/image.h"

#include <errno.h>

/* One bitmap as JSON. */
static char *bitmap_json(const BdrvStoredBitmap *bitmap)
{
    g_autoptr(BlockOptions) entry = NULL;
    g_autofree char *text = g_strdup_printf(
        "{\"flags\": [%s%s%s]}", bitmap->in_use ? "\"in-use\"" : "",
        bitmap->in_use && bitmap->autoload ? ", " : "",
        bitmap->autoload ? "\"auto\"" : "");

    entry = block_options_parse_json(text, NULL);
    block_options_set_str(entry, "name", bitmap->name);
    block_options_set_int(entry, "granularity", bitmap->granularity);
    return block_options_to_json(entry);
}

/* The bitmaps, as a list; nothing if there are none. */
static int coroutine_fn add_bitmaps(BlockDriverState *bs, BlockOptions *data,
                                    GError **errp)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    g_autoptr(GString) text = g_string_new("{\"bitmaps\": [");
    g_autoptr(BlockOptions) tree = NULL;
    int ret = qcow2_stored_bitmap_list(bs, list, errp);

    if (ret == -EINVAL) {
        /* That they make no sense was told at open; the rest does. */
        g_clear_error(errp);
        return 0;
    }
    for (guint i = 0; i < list->len; i++) {
        BdrvStoredBitmap *bitmap = g_ptr_array_index(list, i);
        g_autofree char *json = bitmap_json(bitmap);

        g_string_append_printf(text, "%s%s", i ? ", " : "", json);
        bdrv_stored_bitmap_free(bitmap);
    }
    g_string_append(text, "]}");
    /* A tree has a limit of size; so many bitmaps are not listed here. */
    tree = block_options_parse_json(text->str, NULL);
    if (tree && list->len > 0) {
        block_options_merge(data, tree);
    }
    return ret;
}

int coroutine_fn qcow2_get_specific_info(BlockDriverState *bs,
                                         BlockOptions **ret, GError **errp)
{
    Qcow2 *q = qcow2_of(bs);
    const Qcow2Header *h = &q->header;
    bool zstd = h->compression == QCOW2_COMPRESSION_ZSTD;
    BlockOptions *data = block_options_new();
    int result = 0;

    co_mutex_lock(&q->meta_lock);
    block_options_set_str(data, "compat", h->version == 2 ? "0.10" : "1.1");
    block_options_set_str(data, "compression-type", zstd ? "zstd" : "zlib");
    block_options_set_int(data, "refcount-bits", 1 << h->refcount_order);
    if (h->version >= 3) {
        block_options_set_bool(data, "lazy-refcounts",
                               h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
        block_options_set_bool(data, "corrupt",
                               qcow2_incompatible(q) &
                                   QCOW2_INCOMPAT_CORRUPT);
        block_options_set_bool(data, "extended-l2", q->geo.extended_l2);
    }
    if (q->has_data_file) {
        block_options_set_bool(data, "data-file-raw", q->data_file_raw);
        if (h->data_file) {
            block_options_set_str(data, "data-file", h->data_file);
        }
    }
    co_mutex_unlock(&q->meta_lock);
    if (h->has_bitmaps) {
        result = add_bitmaps(bs, data, errp);
    }
    if (result < 0) {
        block_options_free(data);
        return result;
    }
    *ret = block_options_new();
    block_options_set_str(*ret, "type", "qcow2");
    block_options_set_tree(*ret, "data", data);
    return 0;
}

int qcow2_get_backing_name(BlockDriverState *bs, char **ret_file,
                           char **ret_format)
{
    Qcow2 *q = qcow2_of(bs);

    *ret_file = g_strdup(q->header.backing_file);
    *ret_format = g_strdup(q->header.backing_format);
    return 0;
}
