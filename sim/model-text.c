/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a model says when a sector is wrong: what was found, what would be
 * legal, and what was last done there.
 */
#include "sim/model-int.h"

#include <errno.h>
#include <string.h>

static const ModelLogEntry *by_number(const BgSimModel *model, uint32_t number)
{
    const ModelLogEntry *entry = &model->log[number % MODEL_LOG];

    return number > 0 && entry->number == number ? entry : NULL;
}

static const ModelLogEntry *by_id(const BgSimModel *model, uint64_t id)
{
    for (unsigned i = 0; i < MODEL_LOG; i++) {
        if (model->log[i].number > 0 && model->log[i].begin == id) {
            return &model->log[i];
        }
    }
    return NULL;
}

static void add_entry(GString *text, const ModelLogEntry *e)
{
    g_string_append_printf(text, "%s #%" G_GUINT64_FORMAT " of [%"
                           G_GINT64_FORMAT ", +%" G_GINT64_FORMAT ")%s at %"
                           G_GINT64_FORMAT ".%03d us, ",
                           bgsim_op_name(e->kind), e->begin, e->offset,
                           e->bytes, e->flags & BDRV_REQ_FUA ? " with FUA" : "",
                           e->at_ns / 1000, (int)(e->at_ns % 1000));
    if (e->end == REG_NEVER) {
        g_string_append(text, "in flight");
    } else if (e->result < 0) {
        g_string_append_printf(text, "failed at #%" G_GUINT64_FORMAT " (%s)",
                               e->end, g_strerror(-e->result));
    } else {
        g_string_append_printf(text, "acknowledged at #%" G_GUINT64_FORMAT,
                               e->end);
    }
}

static void add_writer(GString *text, const BgSimModel *model, uint64_t id)
{
    const ModelLogEntry *entry = by_id(model, id);

    if (entry) {
        add_entry(text, entry);
    } else {
        g_string_append_printf(text, "write #%" G_GUINT64_FORMAT
                               " of long ago, or of another run", id);
    }
}

static void add_found(GString *text, const BgSimModel *model, int64_t index,
                      const Pattern *pattern)
{
    uint64_t here = SECTOR_PLACE(model->index, index);

    switch (pattern->kind) {
    case PATTERN_ZERO:
        g_string_append(text, "zeroes");
        return;
    case PATTERN_NOISE:
        g_string_append(text, "bytes that no guest wrote");
        return;
    case PATTERN_TORN:
        g_string_append_printf(text, "a torn sector, other from byte %u on, "
                               "of ", pattern->bad);
        break;
    case PATTERN_GOOD:
        break;
    }
    if (pattern->place != here) {
        g_string_append_printf(text, "the sector of offset %" G_GUINT64_FORMAT
                               " of disk %u (this is disk %u), as of ",
                               (pattern->place & ((UINT64_C(1) << 48) - 1)) *
                                   SECTOR_BYTES,
                               (unsigned)(pattern->place >> 48), model->index);
    }
    add_writer(text, model, pattern->id);
}

static void add_value(GString *text, const BgSimModel *model,
                      const RegValue *value)
{
    g_string_append(text, "\n    ");
    if (value->kind == REG_INITIAL) {
        g_string_append(text, model->unknown ? "what was there at first"
                                             : "the zeroes of the beginning");
        return;
    }
    add_writer(text, model, value->id);
}

static void add_candidates(GString *text, BgSimModel *model,
                           const SimRegister *reg, bool durable)
{
    RegRules rules = { .unknown = model->unknown, .pinned = model->pinned,
                       .lost_from = model->lost_from,
                       .lost_to = model->lost_to };

    for (uint32_t i = 0; i < reg->live.nr; i++) {
        if (!durable ||
            reg_value_may_survive(reg, &rules, &reg->live.values[i])) {
            add_value(text, model, &reg->live.values[i]);
        }
    }
    for (uint32_t i = 0; durable && i < reg->old.nr; i++) {
        if (reg_value_may_survive(reg, &rules, &reg->old.values[i])) {
            add_value(text, model, &reg->old.values[i]);
        }
    }
}

char *model_explain_locked(BgSimModel *model, int64_t index,
                           const Pattern *pattern, bool durable)
{
    GString *text = g_string_new(NULL);
    const SimRegister *reg = model_peek_sector(model, index);

    g_string_append_printf(text, "%s, offset %" G_GINT64_FORMAT ": found ",
                           model->name, index * SECTOR_BYTES);
    add_found(text, model, index, pattern);
    g_string_append(text, durable ? "\n  could have survived:"
                                  : "\n  possible were, at some time:");
    if (!reg) {
        g_string_append(text, model->unknown ? "\n    what was there at first"
                                             : "\n    zeroes: nobody has ever "
                                               "used this sector");
        return g_string_free(text, FALSE);
    }
    add_candidates(text, model, reg, durable);
    g_string_append(text, "\n  the last operations there:");
    for (unsigned i = 0; i < G_N_ELEMENTS(reg->last); i++) {
        const ModelLogEntry *entry = by_number(model, reg->last[i]);

        if (entry) {
            g_string_append(text, "\n    ");
            add_entry(text, entry);
        }
    }
    return g_string_free(text, FALSE);
}
