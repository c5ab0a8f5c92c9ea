/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening and closing of nodes.
 *
 *          bdrv_co_open           last reference dropped   driver closed
 *   (none) -----------> OPENING ---> OPEN ------> CLOSING ------> CLOSED
 *                          |                                         |
 *                          +-- open failed --> (freed) <-------------+
 *
 * A node holds its name in all these states, but is found by it only in OPEN:
 * opening and closing yield, and nobody may meet a node that is half there.
 *
 * Nodes nested in options, or named by images, open while the node above them
 * does, in the same coroutine.  What an image names is its writer's choice, so
 * the depth is limited, and a loop is seen, on the way down: nodes that open
 * know by whom (opener).
 */
#include "block/bitmap/dirty-bitmap.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "block/graph/transaction.h"

static const char *const discard_names[] = { "ignore", "unmap", NULL };
static const char *const detect_zeroes_names[] = { "off", "on", "unmap",
                                                   NULL };

#define OPAQUE_ALIGNMENT 64

#define COMMON(field) offsetof(BdrvCommonOptions, field)

const BlockOption bdrv_common_options[] = {
    { .name = "driver", .type = BLOCK_OPTION_STRING, .offset = COMMON(driver),
      .required = true, .help = "driver of the node" },
    { .name = "node-name", .type = BLOCK_OPTION_STRING,
      .offset = COMMON(node_name), .help = "name of the node" },
    { .name = "read-only", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(read_only), .help = "refuse writes" },
    { .name = "auto-read-only", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(auto_read_only),
      .help = "become read-only where writing is not possible" },
    { .name = "cache.direct", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(cache_direct),
      .help = "bypass the page cache (O_DIRECT)" },
    { .name = "cache.no-flush", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(cache_no_flush), .help = "ignore flushes" },
    { .name = "discard", .type = BLOCK_OPTION_ENUM, .def = "ignore",
      .values = discard_names, .offset = COMMON(discard),
      .help = "what a discard does" },
    { .name = "detect-zeroes", .type = BLOCK_OPTION_ENUM, .def = "off",
      .values = detect_zeroes_names, .offset = COMMON(detect_zeroes),
      .help = "turn writes of zeroes into zero writes" },
    { .name = "copy-on-read", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(copy_on_read),
      .help = "keep what is read from the backing file" },
    { .name = "force-share", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(force_share),
      .help = "read even while others write (needs read-only)" },
    { .name = "untrusted", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = COMMON(untrusted),
      .help = "open no file that only the image names" },
    { .type = BLOCK_OPTION_END },
};

int bdrv_flags_from_common(const BdrvCommonOptions *common, const char *what,
                           unsigned *ret_flags, GError **errp)
{
    if (common->force_share && !common->read_only) {
        return block_error(errp, EINVAL, "%s: force-share=on can only be used "
                           "with read-only=on", what);
    }
    if (common->copy_on_read && common->read_only) {
        return block_error(errp, EINVAL, "%s: copy-on-read=on cannot be used "
                           "with read-only=on", what);
    }
    if (common->detect_zeroes == BDRV_DETECT_ZEROES_UNMAP &&
        !common->discard) {
        return block_error(errp, EINVAL, "%s: detect-zeroes=unmap can only be "
                           "used with discard=unmap", what);
    }
    *ret_flags = (common->read_only ? 0 : BDRV_O_RDWR) |
                 (common->auto_read_only ? BDRV_O_AUTO_RDONLY : 0) |
                 (common->cache_direct ? BDRV_O_NOCACHE : 0) |
                 (common->cache_no_flush ? BDRV_O_NO_FLUSH : 0) |
                 (common->discard ? BDRV_O_UNMAP : 0) |
                 (common->force_share ? BDRV_O_FORCE_SHARE : 0) |
                 (common->copy_on_read ? BDRV_O_COPY_ON_READ : 0) |
                 (common->untrusted ? BDRV_O_UNTRUSTED : 0);
    return 0;
}

void bdrv_inherit_options(BlockOptions *options, BdrvChildRole role,
                          const BlockDriver *parent_drv, unsigned flags)
{
    bool unmap = flags & BDRV_O_UNMAP;

    block_options_default_bool(options, "cache.direct",
                               flags & BDRV_O_NOCACHE);
    block_options_default_bool(options, "cache.no-flush",
                               flags & BDRV_O_NO_FLUSH);
    block_options_default_bool(options, "force-share",
                               flags & BDRV_O_FORCE_SHARE);
    block_options_default_bool(options, "untrusted",
                               flags & BDRV_O_UNTRUSTED);
    if (role & BDRV_CHILD_COW) {
        /* What lies below is only read. */
        block_options_default_bool(options, "read-only", true);
    } else {
        block_options_default_bool(options, "read-only",
                                   !(flags & BDRV_O_RDWR));
        block_options_default_bool(options, "auto-read-only",
                                   flags & BDRV_O_AUTO_RDONLY);
    }
    if (!block_options_has(options, "discard")) {
        /* A format decides itself which of its discards reach the file. */
        unmap |= parent_drv->kind == BLOCK_DRIVER_FORMAT &&
                 !(role & BDRV_CHILD_COW);
        block_options_set_str(options, "discard", unmap ? "unmap" : "ignore");
    }
}

/* --- nodes ---------------------------------------------------------------- */

static BlockDriverState *node_new(BlockGraph *graph, const BlockDriver *drv,
                                  const BdrvCommonOptions *common,
                                  unsigned flags)
{
    BlockDriverState *bs =
        block_aligned_alloc(_Alignof(BlockDriverState), sizeof(*bs));

    memset(bs, 0, sizeof(*bs));
    bs->graph = graph;
    bs->drv = drv;
    bs->node_name = g_strdup(common->node_name);
    bs->user_owned = common->node_name != NULL;
    /* Counters of several threads in it may want cache lines. */
    bs->opaque = block_aligned_alloc(OPAQUE_ALIGNMENT, drv->state_size);
    memset(bs->opaque, 0, drv->state_size);
    bs->open_flags = flags;
    bs->detect_zeroes = common->detect_zeroes;
    bs->state = BDRV_STATE_OPENING;
    bs->refs = 1;
    bs->perm.shared = BLK_PERM_ALL;
    bs->limits.request_alignment = 1;
    atomic_init(&bs->length, 0);
    atomic_init(&bs->drain_count, 0);
    tracked_init(&bs->tracked);
    spare_buffers_init(&bs->copy_buffers);
    dirty_bitmaps_init(&bs->dirty);
    co_mutex_init(&bs->flush_lock);
    list_init(&bs->children);
    list_init(&bs->parents);
    list_init(&bs->works);
    list_init(&bs->graph_link);
    return bs;
}

static void node_free(BlockDriverState *bs)
{
    g_assert(list_empty(&bs->parents));
    g_assert(list_empty(&bs->children));
    g_assert(list_empty(&bs->works));
    g_assert(bs->refs == 1);    /* nobody has found it while it was closed */
    g_assert(atomic_load(&bs->drain_count) == 0);
    if (bs->nested_in) {
        edge_set_nested(bs->nested_in, NULL);
    }
    dirty_bitmaps_destroy(bs);
    graph_forget_table_memory(bs);
    tracked_destroy(&bs->tracked);
    block_options_free(bs->options);
    g_free(bs->filename);
    g_free(bs->node_name);
    block_aligned_free(bs->opaque);
    block_aligned_free(bs);
}

/* Detach all children; each is closed if this was its last user. */
static void coroutine_fn close_children(BlockDriverState *bs)
{
    while (!list_empty(&bs->children)) {
        BdrvChild *child =
            LIST_ENTRY(bs->children.prev, BdrvChild, parent_link);
        BlockDriverState *below = bdrv_ref(child->bs);
        Transaction *txn = transaction_new();

        edge_detach(child, txn);
        perm_release(below, txn);
        transaction_commit(txn);
        bdrv_co_unref(below);
    }
}

static int64_t coroutine_fn ask_length(BlockDriverState *bs)
{
    int64_t length = -ENOTSUP;

    if (bs->drv->getlength) {
        length = bs->drv->getlength(bs);
    } else if (bs->filtered) {
        length = bdrv_length(bs->filtered->bs);
    }
    return length > BDRV_MAX_LENGTH ? -EFBIG : length;
}

/*
 * While the driver is asked a write may make the node longer, or a truncate
 * give it another length, so that the answer is out of date.  What we have is
 * right when an answer begins and ends with it; so after a change we ask again.
 */
int coroutine_fn bdrv_co_refresh_length(BlockDriverState *bs)
{
    for (;;) {
        int64_t known = atomic_load(&bs->length);
        int64_t length = ask_length(bs);

        if (length < 0) {
            return length;
        }
        if (length == known) {
            break;
        }
        atomic_compare_exchange_strong(&bs->length, &known, length);
    }
    dirty_bitmaps_resize(bs);
    return 0;
}

int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs)
{
    int ret = bdrv_co_refresh_length(bs);

    return ret < 0 ? ret : bdrv_length(bs);
}

/* --- opening: what nests in what ------------------------------------------ */

/* For whom a node is opened. */
typedef struct Opener {
    BlockDriverState *bs; /* opens too; NULL: nobody */
    BdrvChildRole role;
} Opener;

/* What an error says of a node that has no name yet. */
static const char *filename_in(const BlockOptions *options)
{
    const char *name = block_options_peek_str(options, "filename");

    name = name ? name : block_options_peek_str(options, "file.filename");
    return name ? name : "";
}

static int check_depth(const BlockDriverState *opener,
                       const BlockOptions *options, const char *what,
                       GError **errp)
{
    int depth = 1;

    for (; opener; opener = opener->opener) {
        depth++;
    }
    if (depth <= BDRV_HEIGHT_MAX) {
        return 0;
    }
    return block_error(errp, ELOOP, "%s: '%s' would be below more than %d "
                       "other nodes (does it back itself?)", what,
                       filename_in(options), BDRV_HEIGHT_MAX - 1);
}

/* Whether @bs, or what stores its bytes, is that object. */
static bool is_stored_in(const BlockDriverState *bs, uint64_t device,
                         uint64_t inode)
{
    while (bs->primary) {
        bs = bs->primary->bs;
    }
    return bs->has_identity && bs->identity_device == device &&
           bs->identity_inode == inode;
}

int bdrv_check_new_backing(const BlockDriverState *bs, const char *path,
                           GError **errp)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        return 0;
    }
    LIST_FOREACH(link, &bs->graph->nodes) {
        BlockDriverState *node = LIST_ENTRY(link, BlockDriverState,
                                            graph_link);

        if (is_stored_in(node, st.st_dev, st.st_ino) &&
            graph_reads_from(node, (BlockDriverState *)bs)) {
            return block_error(errp, ELOOP, "Node '%s': '%s' cannot be the "
                               "backing file of '%s', which would back itself",
                               bs->node_name, path, bdrv_filename(bs));
        }
    }
    return 0;
}

/*
 * Whether the file @bs is that of an image whose backing chain it is opened
 * for.  Others may well use one file twice: windows of a raw disk.
 */
static int check_backs_itself(const BlockDriverState *bs, const char *what,
                              GError **errp)
{
    const BlockDriverState *node = bs;
    bool backing = false;

    for (; bs->has_identity && node->opener; node = node->opener) {
        backing |= node->opener_role & BDRV_CHILD_COW;
        if (backing && is_stored_in(node->opener, bs->identity_device,
                                    bs->identity_inode)) {
            return block_error(errp, ELOOP, "%s: image '%s' is among its own "
                               "backing files: it backs itself", what,
                               bs->filename ? bs->filename : "");
        }
    }
    return 0;
}

void bdrv_set_identity(BlockDriverState *bs, uint64_t device, uint64_t inode)
{
    bs->has_identity = true;
    bs->identity_device = device;
    bs->identity_inode = inode;
}

/* --- opening -------------------------------------------------------------- */

static int coroutine_fn open_node_driver(BlockDriverState *bs,
                                         BlockOptions *options,
                                         const char *what, GError **errp)
{
    const BlockOption *known[] = { bs->drv->options, bdrv_common_options,
                                   NULL };
    Transaction *txn;
    int ret;

    ret = bdrv_image_step(bs, errp);
    if (ret == 0) {
        ret = bs->drv->open(bs, options, bs->open_flags, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (!bs->drv->options) {
        known[0] = bdrv_common_options;
        known[1] = NULL;
    }
    ret = block_options_check_empty(options, known, what, errp);
    if (ret == 0 && bs->drv->kind == BLOCK_DRIVER_FILTER && !bs->filtered) {
        ret = block_error(errp, EINVAL, "%s: the filter has no child", what);
    }
    if (ret == 0) {
        ret = check_backs_itself(bs, what, errp);
    }
    if (ret == 0) {
        ret = graph_check_height(bs, errp);
    }
    if (ret == 0) {
        ret = SIM_FAULT("graph.open", bs->node_name);
        if (ret < 0) {
            block_error_errno(errp, -ret, "%s: could not open", what);
        }
    }
    if (ret == 0) {
        ret = bdrv_co_refresh_length(bs);
        if (ret < 0) {
            block_error_errno(errp, -ret, "%s: could not get the length of "
                              "'%s'", what, bdrv_filename(bs));
        }
    }
    if (ret == 0) {
        ret = bdrv_refresh_limits(bs, errp);
    }
    if (ret == 0) {
        txn = transaction_new();
        ret = transaction_end(txn, perm_refresh_one(bs, txn, errp));
    }
    if (ret == 0) {
        ret = dirty_bitmaps_load(bs, errp);
    }
    if (ret == 0) {
        ret = bdrv_image_step(bs, errp); /* not all of it may be loaded */
    }
    if (ret < 0 && bs->drv->close) {
        bs->drv->close(bs);
    }
    return ret;
}

/* Steps after the common options are known.  Takes nothing over. */
static BlockDriverState *coroutine_fn
open_with_common(BlockGraph *graph, const BdrvCommonOptions *common,
                 const Opener *opener, BlockOptions *options,
                 BlockOptions *given, GError **errp)
{
    const BlockDriver *drv = bdrv_find_driver(common->driver);
    BlockDriverState *bs;
    g_autofree char *what = NULL;
    unsigned flags;
    int ret;

    what = common->node_name
        ? g_strdup_printf("Node '%s' (driver '%s')", common->node_name,
                          common->driver)
        : g_strdup_printf("Node of driver '%s'", common->driver);
    if (!drv) {
        block_error(errp, ENOENT, "Unknown driver '%s'", common->driver);
        return NULL;
    }
    if (bdrv_flags_from_common(common, what, &flags, errp) < 0 ||
        check_depth(opener->bs, options, what, errp) < 0) {
        return NULL;
    }
    bs = node_new(graph, drv, common, flags);
    bs->opener = opener->bs;
    bs->opener_role = opener->role;
    if (graph_add_node(bs, errp) < 0) {
        node_free(bs);
        return NULL;
    }
    image_steps_begin(bs, opener->bs);
    ret = open_node_driver(bs, options, what, errp);
    ret = image_steps_end(bs, ret, errp);
    if (bs->own_work) {
        drain_own_end(bs->own_work);
        g_clear_pointer(&bs->own_work, bdrv_work_free);
    }
    if (ret < 0) {
        close_children(bs);
        graph_remove_node(bs);
        node_free(bs);
        return NULL;
    }
    bs->options = block_options_clone(given);
    bs->opener = NULL;
    bs->state = BDRV_STATE_OPEN;
    if (bdrv_is_drained(bs) && drv->drain_begin) {
        drv->drain_begin(bs); /* the section began while we were opening */
    }
    return bs;
}

/*
 * @given: the options without what was inherited; remembered for reopen.
 * Both are taken over.
 */
static BlockDriverState *coroutine_fn
open_node(BlockGraph *graph, const Opener *opener, BlockOptions *options,
          BlockOptions *given, GError **errp)
{
    BdrvCommonOptions common;
    BlockDriverState *bs = NULL;

    if (block_options_absorb(options, bdrv_common_options, &common,
                             "Block node", errp) == 0) {
        bs = open_with_common(graph, &common, opener, options, given, errp);
        block_options_clear(bdrv_common_options, &common);
    }
    block_options_free(options);
    block_options_free(given);
    return bs;
}

BlockDriverState *coroutine_fn bdrv_co_open(BlockGraph *graph,
                                            BlockOptions *options,
                                            GError **errp)
{
    const Opener nobody = { .bs = NULL };

    return open_node(graph, &nobody, options, block_options_clone(options),
                     errp);
}

/* Find or open the node for a child; returns it with a reference. */
static BlockDriverState *coroutine_fn
child_node(BlockDriverState *bs, const char *name, const char *reference,
           BlockOptions *tree, BdrvChildRole role, GError **errp)
{
    const Opener opener = { .bs = bs, .role = role };
    BlockDriverState *below;
    BlockOptions *given;

    if (tree) {
        given = block_options_clone(tree);
        bdrv_inherit_options(tree, role, bs->drv, bs->open_flags);
        return open_node(bs->graph, &opener, tree, given, errp);
    }
    below = bdrv_find_node(bs->graph, reference);
    if (!below) {
        block_error(errp, ENOENT, "Node '%s' (as '%s' of node '%s') not found",
                    reference, name, bs->node_name);
        return NULL;
    }
    return bdrv_ref(below);
}

/* Make the edge; no yield between the check for cycles and the commit. */
static BdrvChild *attach_child(BlockDriverState *bs, BlockDriverState *below,
                               const char *name, BdrvChildRole role,
                               GError **errp)
{
    Transaction *txn;
    BdrvChild *child;

    if (graph_reaches(below, bs)) {
        block_error(errp, ELOOP, "Making node '%s' a child of node '%s' would "
                    "create a cycle", below->node_name, bs->node_name);
        return NULL;
    }
    txn = transaction_new();
    child = edge_attach(bs, NULL, below, name, role, txn);
    child->shows_source = !role && bs->filtered &&              /* P7 */
                          graph_reads_from(below, bs->filtered->bs);
    if (transaction_end(txn, perm_refresh_one(bs, txn, errp)) < 0) {
        return NULL;
    }
    return child;
}

BdrvChild *coroutine_fn bdrv_co_open_child(BlockDriverState *bs,
                                           BlockOptions *options,
                                           const char *name,
                                           BdrvChildRole role, bool required,
                                           GError **errp)
{
    BlockOptionsChild kind;
    g_autofree char *reference = NULL;
    BlockOptions *tree = NULL;
    BlockDriverState *below;
    BdrvChild *child;

    if (block_options_take_child(options, name, &kind, &reference, &tree,
                                 errp) < 0) {
        return NULL;
    }
    if (kind == BLOCK_OPTIONS_CHILD_NONE || kind == BLOCK_OPTIONS_CHILD_NULL) {
        if (required) {
            block_error(errp, EINVAL, "Node '%s' (driver '%s'): a node for "
                        "'%s' must be given", bs->node_name, bs->drv->name,
                        name);
        }
        return NULL;
    }
    if (bs->own_work) {
        drain_own_end(bs->own_work); /* what is below may have to wait */
    }
    below = child_node(bs, name, reference, tree, role, errp);
    if (below && !bs->own_work && bs->state == BDRV_STATE_OPENING) {
        bs->own_work = bdrv_work_new(bs);
    }
    if (bs->own_work) {
        drain_own_begin(bs->own_work, below);
    }
    if (!below) {
        return NULL;
    }
    child = attach_child(bs, below, name, role, errp);
    if (child && kind == BLOCK_OPTIONS_CHILD_TREE) {
        edge_set_nested(child, below);
    }
    if (!child && bs->own_work) {
        drain_own_end(bs->own_work); /* @below may close now, and wait */
    }
    bdrv_co_unref(below);
    return child;
}

/* --- references and closing ----------------------------------------------- */

BlockDriverState *bdrv_ref(BlockDriverState *bs)
{
    g_assert(bs->refs > 0);
    bs->refs++;
    return bs;
}

void bdrv_note_loss(BlockDriverState *bs)
{
    bs->graph->nr_losses++;
}

/* What the driver has and knows goes to the nodes below, then it lets go. */
static void coroutine_fn close_driver(BlockDriverState *bs)
{
    if (!bdrv_is_read_only(bs)) {
        g_autoptr(GError) error = NULL;
        int ret = dirty_bitmaps_store(bs, &error);

        if (ret < 0) {
            g_warning("%s", error->message);
            bdrv_note_loss(bs);
        }
        ret = bdrv_co_flush(bs);
        if (ret < 0) {
            g_warning("Node '%s': flush at close failed: %s", bs->node_name,
                      g_strerror(-ret));
            bdrv_note_loss(bs);
        }
    }
    if (bs->drv->close) {
        bs->drv->close(bs);
    }
    bs->state = BDRV_STATE_CLOSED;
}

static void coroutine_fn close_node(BlockDriverState *bs)
{
    BdrvWork *work = bdrv_work_new(bs);

    bs->state = BDRV_STATE_CLOSING;
    drain_own_begin(work, NULL);
    /* No parent is left, so only background work can be in flight; the
     * section also keeps the driver from starting more. */
    bdrv_co_drained_begin(bs);
    close_driver(bs);
    bdrv_drained_end(bs);
    drain_own_end(work);
    bdrv_work_free(work);
    close_children(bs);
    graph_remove_node(bs);
    node_free(bs);
}

void coroutine_fn bdrv_co_unref(BlockDriverState *bs)
{
    if (!bs) {
        return;
    }
    g_assert(bs->refs > 0);
    if (bs->refs == 1) {
        g_assert(list_empty(&bs->parents));
        close_node(bs);
        return;
    }
    bs->refs--;
}

int coroutine_fn bdrv_co_delete(BlockDriverState *bs, GError **errp)
{
    g_autofree char *user = NULL;

    if (!list_empty(&bs->parents)) {
        user = bdrv_child_user(
            LIST_ENTRY(bs->parents.next, BdrvChild, node_link));
        return block_error(errp, EBUSY, "Node '%s' is in use by %s",
                           bs->node_name, user);
    }
    if (bs->refs > 1 || !bs->user_owned) {
        return block_error(errp, EBUSY, "Node '%s' is in use",
                           bs->node_name);
    }
    bdrv_co_unref(bs);
    return 0;
}
