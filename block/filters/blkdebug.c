/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: makes requests fail, or stop, at chosen moments.
 *
 * Moments are named events.  "read_aio" and "write_aio" happen here, once for
 * each read and write that arrives; all others are told by whoever stands
 * above (drivers) or by the core (debug_event).  What an event does is decided
 * in blkdebug-rules.c.
 *
 * Also gives the node the limits and permissions that a test asks for.
 */
#include "block/drivers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/filters/blkdebug-rules.h"
#include "util/list.h"
#include "util/lock.h"
#include "util/sim-point.h"

#define CONFIG_BYTES_MAX (1 << 20)

typedef struct BlkdebugOptions {
    char *config;
    BlockOptions *inject_error;
    BlockOptions *set_state;
    BlockOptions *take_child_perms;
    BlockOptions *unshare_child_perms;
    int64_t align;
    int64_t max_transfer;
    int64_t opt_write_zero;
    int64_t max_write_zero;
    int64_t opt_discard;
    int64_t max_discard;
} BlkdebugOptions;

/* A request that waits at its break points; on the stack of its coroutine. */
typedef struct StoppedRequest {
    Coroutine *co;
    unsigned nr_tags; /* guarded by the lock; goes on when 0 */
} StoppedRequest;

/* A break point at which a request waits. */
typedef struct Stop {
    ListHead link;
    StoppedRequest *request;
    char *tag;
} Stop;

typedef struct Blkdebug {
    /* Set by open. */
    BlkdebugOptions limits; /* only the numbers */
    BlockPerm perm;         /* used: taken as well; shared: not shared */
    int event_read;
    int event_write;

    /* Guarded by @lock; any thread. */
    Lock lock;
    BlkdebugRules *rules;
    ListHead stops;         /* Stop.link, by age */
} Blkdebug;

#define SIZE_OPTION(name_, field_, max_, help_)                               \
    { .name = name_, .type = BLOCK_OPTION_SIZE, .min = 0, .max = (max_),      \
      .offset = offsetof(BlkdebugOptions, field_), .help = help_ }

static const BlockOption blkdebug_options[] = {
    { .name = "image", .type = BLOCK_OPTION_CHILD,
      .help = "node that requests go on to" },
    { .name = "config", .type = BLOCK_OPTION_STRING,
      .offset = offsetof(BlkdebugOptions, config),
      .help = "file with rules" },
    { .name = "inject-error", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(BlkdebugOptions, inject_error),
      .help = "list of rules that fail requests" },
    { .name = "set-state", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(BlkdebugOptions, set_state),
      .help = "list of rules that change the state" },
    { .name = "take-child-perms", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(BlkdebugOptions, take_child_perms),
      .help = "list of permissions to use on the image in any case" },
    { .name = "unshare-child-perms", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(BlkdebugOptions, unshare_child_perms),
      .help = "list of permissions not to share on the image" },
    SIZE_OPTION("align", align, BDRV_MAX_ALIGNMENT,
                "request alignment; 0: that of the image"),
    SIZE_OPTION("max-transfer", max_transfer, INT32_MAX,
                "longest read or write; 0: that of the image"),
    SIZE_OPTION("opt-write-zero", opt_write_zero, INT32_MAX,
                "alignment of zero writes; 0: that of the image"),
    SIZE_OPTION("max-write-zero", max_write_zero, BDRV_MAX_LENGTH,
                "longest zero write; 0: that of the image"),
    SIZE_OPTION("opt-discard", opt_discard, INT32_MAX,
                "alignment of discards; 0: that of the image"),
    SIZE_OPTION("max-discard", max_discard, BDRV_MAX_LENGTH,
                "longest discard; 0: that of the image"),
    { .type = BLOCK_OPTION_END },
};

/* --- options -------------------------------------------------------------- */

/* The content of a configuration file, read in a worker thread. */
typedef struct ConfigFile {
    const char *name;
    char *text;
    const char *wrong; /* what is wrong with it, if no errno says it */
} ConfigFile;

static int config_is(ConfigFile *config, const char *wrong, int err)
{
    config->wrong = wrong;
    return -err;
}

/* Read up to CONFIG_BYTES_MAX and one byte more, which tells a longer file. */
static int read_config_text(int fd, ConfigFile *config)
{
    g_autofree char *text = g_malloc(CONFIG_BYTES_MAX + 1);
    size_t bytes = 0;
    ssize_t done;

    do {
        done = read(fd, text + bytes, CONFIG_BYTES_MAX + 1 - bytes);
        bytes += MAX(done, 0);
    } while (done > 0 || (done < 0 && errno == EINTR));
    if (done < 0) {
        return -errno;
    }
    if (bytes > CONFIG_BYTES_MAX) {
        return config_is(config, "it is longer than 1 MiB", EFBIG);
    }
    text[bytes] = '\0';
    if (strlen(text) != bytes) {
        /* What follows the NUL would not be read. */
        return config_is(config, "there is a NUL in it", EINVAL);
    }
    config->text = g_steal_pointer(&text);
    return 0;
}

/* Never waits, as for somebody who may open the other end of a FIFO. */
static int read_config(void *opaque)
{
    ConfigFile *config = opaque;
    int fd = open(config->name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    int ret;

    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &st) < 0) {
        ret = -errno;
    } else if (!S_ISREG(st.st_mode)) {
        ret = config_is(config, "it is no regular file", EINVAL);
    } else {
        ret = read_config_text(fd, config);
    }
    close(fd);
    return ret;
}

static int coroutine_fn add_config(BlkdebugRules *rules, const char *name,
                                   const char *what, GError **errp)
{
    ConfigFile config = { .name = name };
    g_autofree char *where = NULL;
    int ret = aio_co_work(read_config, &config);

    if (ret < 0) {
        return block_error(errp, -ret, "%s: could not read the config '%s': "
                           "%s", what, name,
                           config.wrong ? config.wrong : g_strerror(-ret));
    }
    where = g_strdup_printf("%s: config '%s'", what, name);
    ret = blkdebug_rules_add_config(rules, config.text, where, errp);
    g_free(config.text);
    return ret;
}

static int coroutine_fn add_rules(BlkdebugRules *rules,
                                  const BlkdebugOptions *o, const char *what,
                                  GError **errp)
{
    int ret = 0;

    if (o->config) {
        ret = add_config(rules, o->config, what, errp);
    }
    if (ret == 0) {
        ret = blkdebug_rules_add_list(rules, "inject-error", o->inject_error,
                                      what, errp);
    }
    if (ret == 0) {
        ret = blkdebug_rules_add_list(rules, "set-state", o->set_state, what,
                                      errp);
    }
    return ret;
}

/* A list of names of permissions as bits. */
static int parse_perms(const BlockOptions *list, const char *option,
                       const char *what, uint64_t *ret_perm, GError **errp)
{
    static const char *const names[] = { "consistent-read", "write",
                                         "write-unchanged", "resize" };
    g_autoptr(BlockOptions) rest = list ? block_options_clone(list) : NULL;

    *ret_perm = 0;
    if (list && !block_options_is_list(list)) {
        return block_error(errp, EINVAL, "%s: option '%s' expects a list",
                           what, option);
    }
    while (rest && block_options_count(rest) > 0) {
        const char *name = block_options_peek_str(rest, "0");
        unsigned i = 0;

        while (i < G_N_ELEMENTS(names) && g_strcmp0(name, names[i]) != 0) {
            i++;
        }
        if (i == G_N_ELEMENTS(names)) {
            return block_error(errp, EINVAL, "%s: option '%s' expects "
                               "consistent-read, write, write-unchanged or "
                               "resize, not '%s'", what, option,
                               name ? name : "another type");
        }
        *ret_perm |= 1u << i;
        block_options_remove(rest, "0");
    }
    return 0;
}

static int check_multiple(const char *what, const char *option, int64_t value,
                          int64_t unit, GError **errp)
{
    if (value % unit == 0) {
        return 0;
    }
    return block_error(errp, EINVAL, "%s: option '%s' (%" G_GINT64_FORMAT ") "
                       "must be a multiple of %" G_GINT64_FORMAT, what, option,
                       value, unit);
}

static int check_sizes(const BlkdebugOptions *o, int64_t image_align,
                       const char *what, GError **errp)
{
    int64_t align = o->align ? o->align : image_align;

    if (align & (align - 1)) {
        return block_error(errp, EINVAL, "%s: option 'align' (%"
                           G_GINT64_FORMAT ") must be a power of 2", what,
                           align);
    }
    if (check_multiple(what, "max-transfer", o->max_transfer, align,
                       errp) < 0 ||
        check_multiple(what, "opt-write-zero", o->opt_write_zero, align,
                       errp) < 0 ||
        check_multiple(what, "max-write-zero", o->max_write_zero,
                       MAX(o->opt_write_zero, align), errp) < 0 ||
        check_multiple(what, "opt-discard", o->opt_discard, align, errp) < 0) {
        return -EINVAL;
    }
    return check_multiple(what, "max-discard", o->max_discard,
                          MAX(o->opt_discard, align), errp);
}

static int coroutine_fn open_with_options(BlockDriverState *bs,
                                          BlockOptions *options,
                                          const BlkdebugOptions *o,
                                          const char *what, GError **errp)
{
    Blkdebug *s = bdrv_opaque(bs);
    BdrvChild *image;
    int ret = parse_perms(o->take_child_perms, "take-child-perms", what,
                          &s->perm.used, errp);

    if (ret == 0) {
        ret = parse_perms(o->unshare_child_perms, "unshare-child-perms", what,
                          &s->perm.shared, errp);
    }
    if (ret == 0) {
        ret = add_rules(s->rules, o, what, errp);
    }
    if (ret < 0) {
        return ret;
    }
    /* At no moment in particular: in force before the first request. */
    g_strfreev(blkdebug_rules_event(s->rules, blkdebug_event_find("none")));
    image = bdrv_co_open_child(bs, options, "image",
                               BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, true,
                               errp);
    if (!image) {
        return -EINVAL;
    }
    s->limits = (BlkdebugOptions){
        .align = o->align, .max_transfer = o->max_transfer,
        .opt_write_zero = o->opt_write_zero,
        .max_write_zero = o->max_write_zero,
        .opt_discard = o->opt_discard, .max_discard = o->max_discard,
    };
    return check_sizes(&s->limits,
                       bdrv_limits(bdrv_child_bs(image))->request_alignment,
                       what, errp);
}

static int coroutine_fn blkdebug_open(BlockDriverState *bs,
                                      BlockOptions *options, unsigned flags,
                                      GError **errp)
{
    Blkdebug *s = bdrv_opaque(bs);
    g_autofree char *what = g_strdup_printf("Node '%s' (driver 'blkdebug')",
                                            bdrv_node_name(bs));
    BlkdebugOptions o;
    int ret = block_options_absorb(options, blkdebug_options, &o, what, errp);

    if (ret < 0) {
        return ret;
    }
    lock_init(&s->lock, LOCK_RANK_DRIVER);
    list_init(&s->stops);
    s->rules = blkdebug_rules_new();
    s->event_read = blkdebug_event_find("read_aio");
    s->event_write = blkdebug_event_find("write_aio");
    ret = open_with_options(bs, options, &o, what, errp);
    if (ret < 0) {
        blkdebug_rules_free(s->rules);
    }
    block_options_clear(blkdebug_options, &o);
    return ret;
}

static void coroutine_fn blkdebug_close(BlockDriverState *bs)
{
    Blkdebug *s = bdrv_opaque(bs);

    g_assert(list_empty(&s->stops)); /* a stopped request is in flight */
    blkdebug_rules_free(s->rules);
}

static void blkdebug_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const BlkdebugOptions *o = &((Blkdebug *)bdrv_opaque(bs))->limits;

    if (o->align) {
        limits->request_alignment = o->align;
    }
    if (o->max_transfer) {
        limits->max_transfer = o->max_transfer;
    }
    if (o->opt_write_zero) {
        limits->pwrite_zeroes_alignment = o->opt_write_zero;
    }
    if (o->max_write_zero) {
        limits->max_pwrite_zeroes = o->max_write_zero;
    }
    if (o->opt_discard) {
        limits->pdiscard_alignment = o->opt_discard;
    }
    if (o->max_discard) {
        limits->max_pdiscard = o->max_discard;
    }
}

static void blkdebug_child_perm(BlockDriverState *bs, BdrvChildRole role,
                                const BlockPerm *parent, BlockPerm *ret_child)
{
    Blkdebug *s = bdrv_opaque(bs);

    bdrv_default_perms(bs, role, parent, ret_child);
    ret_child->used |= s->perm.used;
    ret_child->shared &= ~s->perm.shared;
}

/* --- events --------------------------------------------------------------- */

static Stop *stop_find_locked(Blkdebug *s, const char *tag)
    LOCK_REQUIRES(s->lock);

static Stop *stop_find_locked(Blkdebug *s, const char *tag)
{
    LIST_FOREACH(link, &s->stops) {
        Stop *stop = LIST_ENTRY(link, Stop, link);

        if (strcmp(stop->tag, tag) == 0) {
            return stop;
        }
    }
    return NULL;
}

static void stop_add_locked(Blkdebug *s, StoppedRequest *request, char *tag)
    LOCK_REQUIRES(s->lock);

/* Takes @tag over. */
static void stop_add_locked(Blkdebug *s, StoppedRequest *request, char *tag)
{
    Stop *stop = g_new(Stop, 1);

    stop->request = request;
    stop->tag = tag;
    request->nr_tags++;
    list_append(&s->stops, &stop->link);
}

static void coroutine_fn happen(Blkdebug *s, int event)
{
    StoppedRequest request = { .co = coroutine_self() };
    g_autofree char **tags = NULL;

    WITH_LOCK(&s->lock) {
        tags = blkdebug_rules_event(s->rules, event);
        for (unsigned i = 0; tags && tags[i]; i++) {
            stop_add_locked(s, &request, tags[i]);
        }
    }
    if (tags) {
        /* Whoever takes away the last of our stops wakes us, once; it may
         * have happened already in another thread. */
        SIM_WAITS("blkdebug's resume at", s);
        coroutine_yield();
    }
}

static void coroutine_fn blkdebug_debug_event(BlockDriverState *bs,
                                              const char *name)
{
    Blkdebug *s = bdrv_opaque(bs);
    int event = blkdebug_event_find(name);

    /* Reads and writes are counted where they arrive: a format that tells of
     * its own would make each of them happen twice. */
    if (event >= 0 && event != s->event_read && event != s->event_write) {
        happen(s, event);
    }
}

static int blkdebug_debug_breakpoint(BlockDriverState *bs, const char *name,
                                     const char *tag)
{
    Blkdebug *s = bdrv_opaque(bs);
    int event = blkdebug_event_find(name);

    if (event < 0) {
        return -ENOENT;
    }
    LOCK_GUARD(&s->lock);
    blkdebug_rules_add_break(s->rules, event, tag);
    return 0;
}

static int blkdebug_debug_resume(BlockDriverState *bs, const char *tag)
{
    Blkdebug *s = bdrv_opaque(bs);
    Coroutine *co = NULL;

    WITH_LOCK(&s->lock) {
        Stop *stop = stop_find_locked(s, tag);

        if (!stop) {
            return -ENOENT;
        }
        list_remove(&stop->link);
        if (--stop->request->nr_tags == 0) {
            co = stop->request->co;
        }
        g_free(stop->tag);
        g_free(stop);
    }
    if (co) {
        aio_co_wake(co);
    }
    return 0;
}

static int blkdebug_debug_remove_breakpoint(BlockDriverState *bs,
                                            const char *tag)
{
    Blkdebug *s = bdrv_opaque(bs);
    bool found = false;

    WITH_LOCK(&s->lock) {
        found = blkdebug_rules_remove_break(s->rules, tag);
    }
    while (blkdebug_debug_resume(bs, tag) == 0) {
        found = true;
    }
    return found ? 0 : -ENOENT;
}

static bool blkdebug_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    Blkdebug *s = bdrv_opaque(bs);

    LOCK_GUARD(&s->lock);
    return stop_find_locked(s, tag) != NULL;
}

/* --- data ----------------------------------------------------------------- */

static int coroutine_fn check(BlockDriverState *bs, BlkdebugIoType type,
                              int64_t offset, int64_t bytes)
{
    Blkdebug *s = bdrv_opaque(bs);
    bool immediately = true;
    int ret = 0;

    WITH_LOCK(&s->lock) {
        ret = blkdebug_rules_check(s->rules, type, offset, bytes,
                                   &immediately);
    }
    if (!immediately) {
        co_sleep_ns(0);
    }
    return ret;
}

static int coroutine_fn blkdebug_preadv(BlockDriverState *bs,
                                        const BlockIO *io)
{
    Blkdebug *s = bdrv_opaque(bs);
    int ret;

    happen(s, s->event_read);
    ret = check(bs, BLKDEBUG_READ, io->offset, io->bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_preadv(bdrv_filter_child(bs), io->offset, io->bytes,
                          io->iov, io->flags);
}

static int coroutine_fn blkdebug_pwritev(BlockDriverState *bs,
                                         const BlockIO *io)
{
    Blkdebug *s = bdrv_opaque(bs);
    int ret;

    happen(s, s->event_write);
    ret = check(bs, BLKDEBUG_WRITE, io->offset, io->bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwritev(bdrv_filter_child(bs), io->offset, io->bytes,
                           io->iov, io->flags);
}

/* Pieces that are no whole units are what a device with such units refuses. */
static bool is_whole(const BlockIO *io, uint32_t unit)
{
    return unit <= 1 || (io->offset % unit == 0 && io->bytes % unit == 0);
}

static int coroutine_fn blkdebug_pwrite_zeroes(BlockDriverState *bs,
                                               const BlockIO *io)
{
    int ret;

    if (!is_whole(io, bdrv_limits(bs)->pwrite_zeroes_alignment)) {
        return -ENOTSUP;
    }
    ret = check(bs, BLKDEBUG_WRITE_ZEROES, io->offset, io->bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), io->offset, io->bytes,
                                 io->flags & ~BDRV_REQ_ZERO_WRITE);
}

static int coroutine_fn blkdebug_pdiscard(BlockDriverState *bs,
                                          const BlockIO *io)
{
    int ret;

    if (!is_whole(io, bdrv_limits(bs)->pdiscard_alignment)) {
        return -ENOTSUP;
    }
    ret = check(bs, BLKDEBUG_DISCARD, io->offset, io->bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pdiscard(bdrv_filter_child(bs), io->offset, io->bytes);
}

static int coroutine_fn blkdebug_flush(BlockDriverState *bs)
{
    return check(bs, BLKDEBUG_FLUSH, 0, 0);
}

static int coroutine_fn blkdebug_block_status(BlockDriverState *bs,
                                              const BlockIO *io,
                                              BlockExtent *ret)
{
    ret->bytes = io->bytes;
    ret->map = io->offset;
    ret->file = bdrv_child_bs(bdrv_filter_child(bs));
    ret->status = BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
    return check(bs, BLKDEBUG_BLOCK_STATUS, io->offset, io->bytes);
}

const BlockDriver block_driver_blkdebug = {
    .struct_size = sizeof(BlockDriver),
    .name = "blkdebug",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(Blkdebug),
    .options = blkdebug_options,
    .open = blkdebug_open,
    .close = blkdebug_close,
    .refresh_limits = blkdebug_refresh_limits,
    .child_perm = blkdebug_child_perm,
    .preadv = blkdebug_preadv,
    .pwritev = blkdebug_pwritev,
    .pwrite_zeroes = blkdebug_pwrite_zeroes,
    .pdiscard = blkdebug_pdiscard,
    .flush = blkdebug_flush,
    .block_status = blkdebug_block_status,
    .debug_event = blkdebug_debug_event,
    .debug_breakpoint = blkdebug_debug_breakpoint,
    .debug_remove_breakpoint = blkdebug_debug_remove_breakpoint,
    .debug_resume = blkdebug_debug_resume,
    .debug_is_suspended = blkdebug_debug_is_suspended,
};
