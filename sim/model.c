/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sector register oracle: requests that know what they may see.
 *
 * Each request takes a tick of the world's clock when it begins and one when
 * it has ended; the tick of the begin is its number.  The registers of the
 * sectors (register.c) judge by these ticks alone, so that the oracle is the
 * same with real threads.
 *
 * Locking: the lock of the model guards registers and lists.  A request takes
 * it before it is sent and after it has ended, never while it is in flight.
 */
#include "sim/model-int.h"

#include <errno.h>
#include <string.h>

/* --- sectors -------------------------------------------------------------- */

static int64_t nr_pages(const BgSimModel *model)
{
    int64_t page_bytes = PAGE_SECTORS * SECTOR_BYTES;

    return (model->length + page_bytes - 1) / page_bytes;
}

static ModelPage *page_new(void)
{
    ModelPage *page = g_new(ModelPage, 1);

    for (unsigned i = 0; i < PAGE_SECTORS; i++) {
        reg_init(&page->sectors[i]);
    }
    return page;
}

static SimRegister *sector_locked(BgSimModel *model, int64_t index)
{
    uint64_t at = index / PAGE_SECTORS;

    if (!model->pages[at]) {
        model->pages[at] = page_new();
        g_array_append_val(model->touched, at);
    }
    return &model->pages[at]->sectors[index % PAGE_SECTORS];
}

const SimRegister *model_peek_sector(const BgSimModel *model, int64_t index)
{
    const ModelPage *page = model->pages[index / PAGE_SECTORS];

    return page ? &page->sectors[index % PAGE_SECTORS] : NULL;
}

RegRules model_rules_locked(BgSimModel *model)
{
    RegRules rules = {
        .unknown = model->unknown,
        .pinned = model->pinned,
        .lost_from = model->lost_from,
        .lost_to = model->lost_to,
        .horizon = REG_NEVER,
    };

    if (!list_empty(&model->reads)) {
        rules.horizon = LIST_ENTRY(model->reads.next, ModelRequest,
                                   read_link)->begin;
    }
    return rules;
}

bool model_classify(const BgSimModel *model, int64_t index,
                    const Pattern *pattern, RegFound *ret)
{
    static const RegFoundKind kinds[] = {
        [PATTERN_ZERO] = REG_FOUND_ZERO,
        [PATTERN_GOOD] = REG_FOUND_WRITE,
        [PATTERN_NOISE] = REG_FOUND_NOISE,
    };

    if (pattern->kind == PATTERN_TORN ||
        (pattern->kind == PATTERN_GOOD &&
         pattern->place != SECTOR_PLACE(model->index, index))) {
        return false;
    }
    *ret = (RegFound){ kinds[pattern->kind], pattern->id };
    return true;
}

/* --- life ----------------------------------------------------------------- */

static void model_free(void *opaque)
{
    BgSimModel *model = opaque;

    g_assert(list_empty(&model->in_flight) || model->frozen ||
             atomic_load(&model->sim->violated));
    for (guint i = 0; i < model->touched->len; i++) {
        ModelPage *page = model->pages[g_array_index(model->touched, uint64_t,
                                                     i)];

        for (unsigned s = 0; s < PAGE_SECTORS; s++) {
            reg_clear(&page->sectors[s]);
        }
        g_free(page);
    }
    while (model->buffers) {
        ModelBuffer *buffer = model->buffers;

        model->buffers = buffer->next;
        g_free(buffer);
    }
    g_array_unref(model->touched);
    g_free(model->pages);
    g_free(model->bounds.must);
    g_free(model->bounds.may);
    g_free(model->name);
    g_free(model);
}

BgSimModel *model_new(BgSim *sim, const char *name, int64_t length)
{
    BgSimModel *model = g_new0(BgSimModel, 1);

    g_assert(length > 0 && length % SECTOR_BYTES == 0);
    model->sim = sim;
    model->name = g_strdup(name);
    model->length = length;
    lock_init(&model->lock, LOCK_RANK_DRIVER);
    model->pages = g_new0(ModelPage *, nr_pages(model));
    model->touched = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    list_init(&model->in_flight);
    list_init(&model->reads);
    sim_own(sim, model_free, model);
    return model;
}

BgSimModel *bgsim_model_new(BgSim *sim, BlockBackend *blk, const char *name,
                            int64_t length)
{
    BgSimModel *model = model_new(sim, name, length);

    g_ptr_array_add(sim->models, model);
    model->index = sim->models->len;
    atomic_init(&model->blk, blk);
    return model;
}

void bgsim_model_set_unknown(BgSimModel *model)
{
    g_assert(model->requests == 0 && list_empty(&model->in_flight));
    model->unknown = true;
}

void bgsim_model_set_flush_forgets(BgSimModel *model)
{
    g_assert(model->requests == 0 && list_empty(&model->in_flight));
    model->flush_forgets = true;
}

void bgsim_model_set_backend(BgSimModel *model, BlockBackend *blk)
{
    atomic_store(&model->blk, blk);
}

uint64_t bgsim_model_requests(const BgSimModel *model, uint64_t *ret_ok)
{
    Lock *lock = (Lock *)&model->lock;

    LOCK_GUARD(lock);
    if (ret_ok) {
        *ret_ok = model->ok;
    }
    return model->requests;
}

BgSimModel *bgsim_model_freeze(BgSimModel *model)
{
    BgSimModel *copy = model_new(model->sim, model->name, model->length);

    LOCK_GUARD(&model->lock);
    copy->index = model->index;
    copy->frozen = true;
    copy->unknown = model->unknown;
    copy->flush_forgets = model->flush_forgets;
    copy->pinned = model->pinned;
    copy->lost_from = model->lost_from;
    copy->lost_to = model->lost_to;
    memcpy(copy->log, model->log, sizeof(copy->log));
    for (guint i = 0; i < model->touched->len; i++) {
        uint64_t at = g_array_index(model->touched, uint64_t, i);
        ModelPage *page = g_new(ModelPage, 1);

        for (unsigned s = 0; s < PAGE_SECTORS; s++) {
            reg_copy(&page->sectors[s], &model->pages[at]->sectors[s]);
        }
        copy->pages[at] = page;
        g_array_append_val(copy->touched, at);
    }
    return copy;
}

BgSim *sim_model_world(const BgSimModel *model)
{
    return model->sim;
}

int64_t sim_model_length(const BgSimModel *model)
{
    return model->length;
}

/* --- requests ------------------------------------------------------------- */

static uint64_t next_tick(BgSim *sim)
{
    return atomic_fetch_add(&sim->clock, 1) + 1;
}

static RegKind reg_kind(BgSimOpKind kind)
{
    return kind == BGSIM_OP_WRITE  ? REG_WRITE
           : kind == BGSIM_OP_ZERO ? REG_ZERO
                                   : REG_DISCARD;
}

static bool is_change(BgSimOpKind kind)
{
    return kind == BGSIM_OP_WRITE || kind == BGSIM_OP_ZERO ||
           kind == BGSIM_OP_DISCARD;
}

static bool is_look(BgSimOpKind kind)
{
    return kind == BGSIM_OP_READ || kind == BGSIM_OP_STATUS;
}

static void sectors_begin_locked(BgSimModel *model, const ModelRequest *req)
{
    int64_t first = req->offset / SECTOR_BYTES;

    for (int64_t i = 0; i < req->bytes / SECTOR_BYTES; i++) {
        SimRegister *reg = sector_locked(model, first + i);

        reg->last[2] = reg->last[1];
        reg->last[1] = reg->last[0];
        reg->last[0] = req->number;
        if (is_change(req->kind)) {
            reg_begin(reg, reg_kind(req->kind), req->begin);
        }
    }
}

static void request_begin(ModelRequest *req)
{
    BgSimModel *model = req->model;
    BgSim *sim = model->sim;

    g_assert(!model->frozen || !is_change(req->kind));
    g_assert(req->offset >= 0 && req->bytes >= 0 &&
             req->offset % SECTOR_BYTES == 0 &&
             req->bytes % SECTOR_BYTES == 0 &&
             req->bytes <= model->length - req->offset);
    bgsim_op_begin(sim, req->kind);
    LOCK_GUARD(&model->lock);
    req->begin = next_tick(sim);
    req->number = ++model->requests;
    req->step = sim->steps;
    model->log[req->number % MODEL_LOG] = (ModelLogEntry){
        req->begin, REG_NEVER, req->offset, req->bytes, 0, req->kind,
        req->flags, bgsim_now_ns(sim), req->number,
    };
    list_append(&model->in_flight, &req->link);
    list_init(&req->read_link);
    if (is_look(req->kind)) {
        list_append(&model->reads, &req->read_link);
    }
    sectors_begin_locked(model, req);
    if (is_change(req->kind)) {
        model_bounds_begin_locked(model, req);
    }
}

static void change_ended_locked(BgSimModel *model, const ModelRequest *req,
                                uint64_t end, int ret)
    LOCK_REQUIRES(model->lock);

static void change_ended_locked(BgSimModel *model, const ModelRequest *req,
                                uint64_t end, int ret)
{
    int64_t first = req->offset / SECTOR_BYTES;
    RegRules rules = model_rules_locked(model);
    RegValue how = {
        .id = req->begin,
        .end = end,
        .state = ret == 0 && req->kind != BGSIM_OP_DISCARD ? REG_ACKED
                                                           : REG_MAYBE,
        .fua = ret == 0 && (req->flags & BDRV_REQ_FUA),
    };

    for (int64_t i = 0; i < req->bytes / SECTOR_BYTES; i++) {
        reg_end(sector_locked(model, first + i), &rules, &how);
    }
    if (ret == 0) {
        model_bounds_acked_locked(model, req);
    }
}

/*
 * A write with FUA may be a write and a flush, so one that failed may have
 * been a flush that failed.
 */
static void flush_ended_locked(BgSimModel *model, const ModelRequest *req,
                               uint64_t end, int ret)
{
    if (ret == 0 && req->kind == BGSIM_OP_FLUSH) {
        model->pinned = MAX(model->pinned, req->begin);
    } else if (ret < 0 && model->flush_forgets) {
        model->lost_from = model->lost_to ? model->lost_from : model->pinned;
        model->lost_to = end;
    }
}

/* Ends all requests but reads, which request_ended_read() has ended. */
static void request_end(ModelRequest *req, int ret)
{
    static const char *const traces[] = {
        [BGSIM_OP_READ] = "guest.read",       [BGSIM_OP_WRITE] = "guest.write",
        [BGSIM_OP_ZERO] = "guest.zero",       [BGSIM_OP_FLUSH] = "guest.flush",
        [BGSIM_OP_DISCARD] = "guest.discard", [BGSIM_OP_STATUS] = "guest.status",
    };
    BgSimModel *model = req->model;

    g_assert(ret <= 0);
    WITH_LOCK(&model->lock) {
        uint64_t end = next_tick(model->sim);
        ModelLogEntry *entry = &model->log[req->number % MODEL_LOG];

        if (entry->number == req->number) {
            entry->end = end;
            entry->result = ret;
        }
        list_remove(&req->link);
        list_remove(&req->read_link);
        model->ok += ret == 0;
        if (is_change(req->kind)) {
            change_ended_locked(model, req, end, ret);
        }
        if (req->kind == BGSIM_OP_FLUSH || (req->flags & BDRV_REQ_FUA)) {
            flush_ended_locked(model, req, end, ret);
        }
    }
    bgsim_op_end(model->sim, req->kind);
    bgsim_trace(model->sim, traces[req->kind],
                req->offset / SECTOR_BYTES << 24 | req->bytes / SECTOR_BYTES,
                -ret);
    bgsim_progress(model->sim);
}

/* --- memory --------------------------------------------------------------- */

static ModelBuffer *buffer_get(BgSimModel *model, size_t bytes)
{
    ModelBuffer *buffer;

    WITH_LOCK(&model->lock) {
        buffer = model->buffers;
        if (buffer) {
            model->buffers = buffer->next;
        }
    }
    if (buffer && buffer->bytes < bytes) {
        g_clear_pointer(&buffer, g_free);
    }
    if (!buffer) {
        buffer = g_malloc(sizeof(*buffer) + MAX(bytes, 8192));
        buffer->bytes = MAX(bytes, 8192);
    }
    return buffer;
}

static void buffer_put(BgSimModel *model, ModelBuffer *buffer)
{
    LOCK_GUARD(&model->lock);

    buffer->next = model->buffers;
    model->buffers = buffer;
}

/* Up to three pieces; every fourth request has some that are not even. */
typedef struct Pieces {
    BlockIOVec vec;
    struct iovec iov[3];
} Pieces;

static BlockIOVec *cut(Pieces *pieces, uint8_t *data, size_t bytes,
                       uint64_t number)
{
    size_t first = number % 4 == 3 ? bytes / 3 : 0;
    size_t second = number % 4 == 3 ? number * 37 % (bytes - first + 1) : 0;
    size_t sizes[3] = { first, second, bytes - first - second };
    int n = 0;

    for (unsigned i = 0; i < 3; i++) {
        if (sizes[i] > 0) {
            pieces->iov[n++] = (struct iovec){ data, sizes[i] };
            data += sizes[i];
        }
    }
    block_iov_init_external(&pieces->vec, pieces->iov, n);
    return &pieces->vec;
}

/* --- the operations ------------------------------------------------------- */

int coroutine_fn bgsim_model_pwrite(BgSimModel *model, int64_t offset,
                                    int64_t bytes, unsigned flags)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_WRITE,
                         .offset = offset, .bytes = bytes, .flags = flags };
    ModelBuffer *buffer = buffer_get(model, bytes);
    Pieces pieces;
    int ret;

    request_begin(&req);
    for (int64_t i = 0; i < bytes / SECTOR_BYTES; i++) {
        pattern_fill(buffer->data + i * SECTOR_BYTES, req.begin,
                     SECTOR_PLACE(model->index, offset / SECTOR_BYTES + i));
    }
    ret = blk_co_pwritev(atomic_load(&model->blk), offset, bytes,
                         cut(&pieces, buffer->data, bytes, req.begin), flags);
    request_end(&req, ret);
    buffer_put(model, buffer);
    return ret;
}

/* What a failed flush has lost may be what was there before. */
static bool judge_locked(BgSimModel *model, SimRegister *reg,
                         const RegRules *rules, const RegFound *found,
                         uint64_t begin)
{
    uint64_t now = atomic_load_explicit(&model->sim->clock,
                                        memory_order_relaxed);

    return reg_read(reg, rules, found, begin, now) ||
           (model->lost_to > 0 && reg_may_survive(reg, rules, found));
}

static char *check_read_locked(BgSimModel *model, const ModelRequest *req,
                               const uint8_t *data)
    LOCK_REQUIRES(model->lock);

/* Returns what is wrong with the first sector that is not legal, or NULL. */
static char *check_read_locked(BgSimModel *model, const ModelRequest *req,
                               const uint8_t *data)
{
    RegRules rules = model_rules_locked(model);

    next_tick(model->sim);      /* the end of the read, for all its sectors */
    for (int64_t i = 0; i < req->bytes / SECTOR_BYTES; i++) {
        int64_t index = req->offset / SECTOR_BYTES + i;
        Pattern pattern;
        RegFound found;

        pattern_read(data + i * SECTOR_BYTES, &pattern);
        if (!model_classify(model, index, &pattern, &found) ||
            !judge_locked(model, sector_locked(model, index), &rules, &found,
                          req->begin)) {
            return model_explain_locked(model, index, &pattern, false);
        }
    }
    return NULL;
}

int coroutine_fn bgsim_model_pread(BgSimModel *model, int64_t offset,
                                   int64_t bytes)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_READ,
                         .offset = offset, .bytes = bytes };
    ModelBuffer *buffer = buffer_get(model, bytes);
    Pieces pieces;
    int ret;

    /* What is not filled in must not look like an old write. */
    memset(buffer->data, 0xa5, bytes);
    request_begin(&req);
    ret = blk_co_preadv(atomic_load(&model->blk), offset, bytes,
                        cut(&pieces, buffer->data, bytes, req.begin), 0);
    if (ret == 0) {
        g_autofree char *wrong = NULL;

        WITH_LOCK(&model->lock) {
            wrong = check_read_locked(model, &req, buffer->data);
        }
        if (wrong) {
            bgsim_violation(model->sim, "register", "%s", wrong);
        }
    }
    request_end(&req, ret);
    buffer_put(model, buffer);
    return ret;
}

int coroutine_fn bgsim_model_zero(BgSimModel *model, int64_t offset,
                                  int64_t bytes, unsigned flags)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_ZERO,
                         .offset = offset, .bytes = bytes, .flags = flags };
    int ret;

    request_begin(&req);
    ret = blk_co_pwrite_zeroes(atomic_load(&model->blk), offset, bytes,
                               flags);
    request_end(&req, ret);
    return ret;
}

int coroutine_fn bgsim_model_discard(BgSimModel *model, int64_t offset,
                                     int64_t bytes)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_DISCARD,
                         .offset = offset, .bytes = bytes };
    int ret;

    request_begin(&req);
    ret = blk_co_pdiscard(atomic_load(&model->blk), offset, bytes);
    request_end(&req, ret);
    return ret;
}

int coroutine_fn bgsim_model_flush(BgSimModel *model)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_FLUSH };
    int ret;

    request_begin(&req);
    ret = blk_co_flush(atomic_load(&model->blk));
    request_end(&req, ret);
    return ret;
}

/* --- block status --------------------------------------------------------- */

static char *check_zero_locked(BgSimModel *model, const ModelRequest *req,
                               const BlockExtent *extent)
    LOCK_REQUIRES(model->lock);

static char *check_zero_locked(BgSimModel *model, const ModelRequest *req,
                               const BlockExtent *extent)
{
    int64_t end = (req->offset + extent->bytes) / SECTOR_BYTES;
    RegRules rules = model_rules_locked(model);
    RegFound found = { REG_FOUND_ZERO, 0 };
    uint64_t now = next_tick(model->sim);

    for (int64_t i = req->offset / SECTOR_BYTES; i < end; i++) {
        Pattern pattern = { .kind = PATTERN_ZERO };
        const SimRegister *reg = sector_locked(model, i);

        if (!reg_may_read(reg, &rules, &found, req->begin, now) &&
            (model->lost_to == 0 || !reg_may_survive(reg, &rules, &found))) {
            return model_explain_locked(model, i, &pattern, false);
        }
    }
    return NULL;
}

/* One extent.  Returns its length, or a negative errno. */
static int64_t coroutine_fn ask_status(BgSimModel *model, int64_t offset,
                                       int64_t bytes)
{
    ModelRequest req = { .model = model, .kind = BGSIM_OP_STATUS,
                         .offset = offset, .bytes = bytes };
    BlockExtent extent = { .bytes = -1 };
    g_autofree char *wrong = NULL;
    int ret;

    request_begin(&req);
    ret = blk_co_block_status(atomic_load(&model->blk), offset, bytes,
                              &extent);
    if (ret == 0 && (extent.bytes <= 0 || extent.bytes > bytes)) {
        bgsim_violation(model->sim, "status", "%s: an extent of "
                        "%" G_GINT64_FORMAT " bytes for [%" G_GINT64_FORMAT
                        ", +%" G_GINT64_FORMAT ")", model->name, extent.bytes,
                        offset, bytes);
        extent.bytes = bytes;
    } else if (ret == 0 && (extent.status & BDRV_BLOCK_ZERO)) {
        WITH_LOCK(&model->lock) {
            wrong = check_zero_locked(model, &req, &extent);
        }
    }
    if (wrong) {
        bgsim_violation(model->sim, "status", "block status promises zeroes: "
                        "%s", wrong);
    }
    request_end(&req, ret);
    return ret < 0 ? ret : extent.bytes;
}

int coroutine_fn bgsim_model_status(BgSimModel *model, int64_t offset,
                                    int64_t bytes)
{
    int64_t end = offset + bytes;

    while (offset < end) {
        int64_t done = ask_status(model, offset, end - offset);

        if (done < 0) {
            return done;
        }
        /* The answer may end anywhere; we ask again from a sector on. */
        offset += MAX(done / SECTOR_BYTES, 1) * SECTOR_BYTES;
    }
    return 0;
}

/* --- progress ------------------------------------------------------------- */

/* So many steps must do for any request once faults are off. */
#define SETTLED_STEPS 200000

void sim_models_check_progress(BgSim *sim)
{
    for (guint i = 0; i < sim->models->len; i++) {
        BgSimModel *model = g_ptr_array_index(sim->models, i);
        ModelRequest *oldest;

        if (list_empty(&model->in_flight)) {
            continue;
        }
        oldest = LIST_ENTRY(model->in_flight.next, ModelRequest, link);
        if (sim->steps - MAX(oldest->step, sim->settled_step) >
            SETTLED_STEPS) {
            g_autofree char *waits = bgsim_describe_waits(sim);

            bgsim_violation(sim, "progress", "%s: the %s of [%" G_GINT64_FORMAT
                            ", +%" G_GINT64_FORMAT ") has not ended; who waits "
                            "for what:\n%s", model->name,
                            bgsim_op_name(oldest->kind), oldest->offset,
                            oldest->bytes, waits);
        }
    }
}
