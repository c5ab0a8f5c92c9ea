/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing all of a disk with a model: now, or after a power cut.
 */
#include "sim/model-int.h"

#include <errno.h>
#include <string.h>

#define CHUNK (PAGE_SECTORS * SECTOR_BYTES)

typedef struct Check {
    BgSimModel *model;
    bool durable;
    RegRules rules;
    uint64_t now;
} Check;

static bool is_legal_locked(const Check *check, int64_t index,
                            const Pattern *pattern)
{
    const BgSimModel *model = check->model;
    const SimRegister *reg = model_peek_sector(model, index);
    RegFound found;

    if (!model_classify(model, index, pattern, &found)) {
        return false;
    }
    if (!reg) {
        return found.kind == REG_FOUND_ZERO ||
               (model->unknown && found.kind == REG_FOUND_NOISE);
    }
    if (check->durable) {
        return reg_may_survive(reg, &check->rules, &found);
    }
    return reg_may_read(reg, &check->rules, &found, check->now, check->now) ||
           (model->lost_to > 0 && reg_may_survive(reg, &check->rules, &found));
}

static char *check_chunk_locked(BgSimModel *model, const Check *check,
                                int64_t offset, int64_t bytes,
                                const uint8_t *data)
    LOCK_REQUIRES(model->lock);

/* Returns what is wrong with [@offset, @offset + @bytes), or NULL. */
static char *check_chunk_locked(BgSimModel *model, const Check *check,
                                int64_t offset, int64_t bytes,
                                const uint8_t *data)
{
    if (!model->pages[offset / CHUNK] && block_buffer_is_zero(data, bytes)) {
        return NULL;
    }
    for (int64_t i = 0; i < bytes / SECTOR_BYTES; i++) {
        int64_t index = offset / SECTOR_BYTES + i;
        Pattern pattern;

        pattern_read(data + i * SECTOR_BYTES, &pattern);
        if (!is_legal_locked(check, index, &pattern)) {
            return model_explain_locked(model, index, &pattern,
                                        check->durable);
        }
    }
    return NULL;
}

/*
 * What is not filled in must not look right.  A sector of the chunk before
 * would be found by its place, so its two ends will do.
 */
static void spoil(uint8_t *data, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += SECTOR_BYTES) {
        memset(data + at, 0xa5, 8);
        memset(data + at + SECTOR_BYTES - 8, 0xa5, 8);
    }
}

static bool check_all(BlockBackend *blk, const Check *check, GError **errp)
{
    BgSimModel *model = check->model;
    g_autofree uint8_t *data = g_malloc0(CHUNK);

    for (int64_t offset = 0; offset < model->length; offset += CHUNK) {
        int64_t bytes = MIN(CHUNK, model->length - offset);
        g_autofree char *wrong = NULL;
        int ret;

        spoil(data, bytes);
        ret = blk_pread(blk, offset, bytes, data, 0);
        if (ret < 0) {
            block_error_errno(errp, -ret, "%s: reading [%" G_GINT64_FORMAT
                              ", +%" G_GINT64_FORMAT ")", model->name, offset,
                              bytes);
            return false;
        }
        WITH_LOCK(&model->lock) {
            wrong = check_chunk_locked(model, check, offset, bytes, data);
        }
        if (wrong) {
            block_error(errp, EILSEQ, "%s", wrong);
            return false;
        }
    }
    return true;
}

static bool check_disk(BlockBackend *blk, BgSimModel *model, bool durable,
                       GError **errp)
{
    Check check = { .model = model, .durable = durable };
    int64_t length = blk_getlength(blk);

    if (length < model->length) {
        block_error(errp, EILSEQ, "%s: the length is %" G_GINT64_FORMAT
                    ", not %" G_GINT64_FORMAT " as it was", model->name,
                    length, model->length);
        return false;
    }
    WITH_LOCK(&model->lock) {
        check.rules = model_rules_locked(model);
        check.now = atomic_fetch_add(&model->sim->clock, 1) + 1;
    }
    return check_all(blk, &check, errp);
}

bool bgsim_check_equal(BlockBackend *blk, BgSimModel *model, GError **errp)
{
    return check_disk(blk, model, false, errp);
}

bool bgsim_check_durable(BlockBackend *blk, BgSimModel *model, GError **errp)
{
    return check_disk(blk, model, true, errp);
}

bool bgsim_model_is_settled(BgSimModel *model, int64_t offset)
{
    LOCK_GUARD(&model->lock);
    const SimRegister *reg = model_peek_sector(model, offset / SECTOR_BYTES);
    RegRules rules = model_rules_locked(model);

    return !reg || !reg_failed_may_survive(reg, &rules);
}
