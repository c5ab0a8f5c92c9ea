/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One sector as an atomic register.
 *
 * A value together with its writer and all that have read it is a cluster.
 * Cluster a lies before b in every possible order if something of a ended
 * before something of b began: a.first_end < b.last_begin.
 *
 * R1  A history of unique values is one of an atomic register exactly if no two
 *     clusters lie each before the other, and no read ended before its writer
 *     began (Gibbons and Korach, 1997).  So a read needs no search: it joins
 *     its cluster, and that is compared with the others.
 * R2  A request that failed, and a discard, is part of the history only once it
 *     has been read; from then on it counts from its end, because what has
 *     failed does not happen later.
 * R3  Zeroes do not tell whose they are.  A read of zeroes is legal if it may
 *     join one of the clusters, and joins if there is only one; else it is
 *     remembered as a cluster of unknown writer.
 * R4  A cluster that lies before another one, whose first end no read in
 *     flight or to come precedes, gets no more readers.  It leaves @live; what
 *     lies before it lies before the other one.
 * R5  What left @live may still be on the disk, unless it lies before a value
 *     that survives power cuts.
 */
#include "sim/register.h"

#include <string.h>

/* --- lists ---------------------------------------------------------------- */

static void list_push(RegList *list, const RegValue *room,
                      const RegValue *value)
{
    if (list->nr == list->capacity) {
        RegValue *values = list->values;
        uint32_t capacity = MAX(4, 2 * list->capacity);

        if (room && values == room) {
            list->values = g_new(RegValue, capacity);
            memcpy(list->values, values, list->nr * sizeof(*values));
        } else {
            list->values = g_renew(RegValue, values, capacity);
        }
        list->capacity = capacity;
    }
    list->values[list->nr++] = *value;
}

static void list_remove_at(RegList *list, uint32_t i)
{
    list->values[i] = list->values[--list->nr];
}

void reg_init(SimRegister *reg)
{
    memset(reg, 0, sizeof(*reg));
    reg->live.values = reg->room;
    reg->live.capacity = REG_ROOM;
    reg->live.nr = 1;
    reg->room[0] = (RegValue){ .kind = REG_INITIAL, .state = REG_ACKED };
}

void reg_clear(SimRegister *reg)
{
    if (reg->live.values != reg->room) {
        g_free(reg->live.values);
    }
    g_free(reg->old.values);
}

void reg_copy(SimRegister *to, const SimRegister *from)
{
    *to = *from;
    if (from->live.values == from->room) {
        to->live.values = to->room;
    } else {
        to->live.values = g_memdup2(from->live.values,
                                    from->live.capacity * sizeof(RegValue));
    }
    to->old.values = g_memdup2(from->old.values,
                               from->old.capacity * sizeof(RegValue));
}

/* --- power cuts ----------------------------------------------------------- */

static bool is_pinned(const RegRules *rules, const RegValue *value)
{
    if (value->state != REG_ACKED || value->kind == REG_DISCARD) {
        return false;
    }
    if (value->fua || value->kind == REG_INITIAL) {
        return true;
    }
    return value->end < rules->pinned &&
           (value->end < rules->lost_from || value->end >= rules->lost_to);
}

/* Of the values that survive, the one that most lies before. */
static const RegValue *last_pinned(const SimRegister *reg,
                                   const RegRules *rules)
{
    const RegList *lists[] = { &reg->live, &reg->old };
    const RegValue *last = NULL;

    for (unsigned l = 0; l < G_N_ELEMENTS(lists); l++) {
        for (uint32_t i = 0; i < lists[l]->nr; i++) {
            const RegValue *value = &lists[l]->values[i];

            if (is_pinned(rules, value) &&
                (!last || value->last_begin > last->last_begin)) {
                last = value;
            }
        }
    }
    return last;
}

/*
 * What is in flight may reach the disk at any time, even if it has been seen
 * there already.
 */
static bool lies_before_pinned(const RegValue *value, const RegValue *pinned)
{
    return pinned && value != pinned && value->state != REG_IN_FLIGHT &&
           MIN(value->first_end, value->end) < pinned->last_begin;
}

/* Room is made in @old when it is full, so that this is cheap on average. */
static void push_old(SimRegister *reg, const RegRules *rules,
                     const RegValue *value)
{
    RegList *old = &reg->old;

    if (old->nr == old->capacity) {
        const RegValue *pinned = last_pinned(reg, rules);
        RegValue copy = pinned ? *pinned : *value;

        for (uint32_t i = old->nr; i > 0; i--) {
            const RegValue *v = &old->values[i - 1];

            if (v->id != copy.id && lies_before_pinned(v, &copy)) {  /* R5 */
                list_remove_at(old, i - 1);
            }
        }
    }
    list_push(old, NULL, value);
}

/* --- order ---------------------------------------------------------------- */

/* R4 */
static void prune(SimRegister *reg, const RegRules *rules)
{
    RegList *live = &reg->live;

    for (uint32_t a = 0; a < live->nr && live->nr > 1; a++) {
        if (live->values[a].first_end >= rules->horizon) {
            continue;
        }
        for (uint32_t i = live->nr; i > 0; i--) {
            RegValue value = live->values[i - 1];
            RegValue *last = &live->values[a];

            if (i - 1 == a ||
                MIN(value.first_end, value.end) >= last->last_begin) {
                continue;
            }
            last->last_begin = MAX(last->last_begin, value.last_begin);
            list_remove_at(live, i - 1);
            if (a == live->nr) {
                a = i - 1;      /* the last one has taken the free place */
            }
            push_old(reg, rules, &value);
        }
    }
}

static RegValue joined(const RegValue *value, uint64_t begin, uint64_t end)
{
    RegValue result = *value;

    if (value->state == REG_MAYBE) {
        end = MIN(end, value->end);                             /* R2 */
    }
    result.first_end = MIN(value->first_end, end);
    result.last_begin = MAX(value->last_begin, begin);
    return result;
}

/* Whether @self, which takes the place of live value @index, fits (R1). */
static bool fits(const SimRegister *reg, uint32_t index, const RegValue *self,
                 bool zero)
{
    for (uint32_t i = 0; i < reg->live.nr; i++) {
        const RegValue *other = &reg->live.values[i];

        if (i != index && self->first_end < other->last_begin &&
            other->first_end < self->last_begin) {
            return false;
        }
    }
    return zero || reg->zero_end == 0 ||
           self->first_end >= reg->zero_begin ||
           reg->zero_end >= self->last_begin;                   /* R3 */
}

static bool is_source(const SimRegister *reg, const RegRules *rules,
                      const RegValue *value, const RegFound *found)
{
    if (value->kind == REG_WRITE) {
        return found->kind == REG_FOUND_WRITE && found->id == value->id;
    }
    if (value->kind != REG_INITIAL || !rules->unknown) {
        return found->kind == REG_FOUND_ZERO;
    }
    /* It may be anything, even zero, but it stays what it is. */
    return found->kind == REG_FOUND_NOISE
               ? reg->noise == 0 || reg->noise == found->id
               : found->kind == REG_FOUND_ZERO &&
                     reg->noise <= REG_NOISE_ZERO;
}

/* How many values @found may be of; the last one in @ret. */
static unsigned sources(const SimRegister *reg, const RegRules *rules,
                        const RegFound *found, const RegValue *read,
                        uint32_t *ret)
{
    unsigned nr = 0;

    for (uint32_t i = 0; i < reg->live.nr; i++) {
        const RegValue *value = &reg->live.values[i];
        RegValue self;

        if (!is_source(reg, rules, value, found)) {
            continue;
        }
        self = joined(value, read->id, read->end);
        if (fits(reg, i, &self, found->kind == REG_FOUND_ZERO)) {
            *ret = i;
            nr++;
        }
    }
    return nr;
}

/* --- operations ----------------------------------------------------------- */

void reg_begin(SimRegister *reg, RegKind kind, uint64_t id)
{
    RegValue value = { .id = id, .end = REG_NEVER, .first_end = REG_NEVER,
                       .last_begin = id, .kind = kind,
                       .state = REG_IN_FLIGHT };

    list_push(&reg->live, reg->room, &value);
}

static void end_in(RegList *list, const RegValue *how)
{
    for (uint32_t i = list->nr; i > 0; i--) {
        RegValue *value = &list->values[i - 1];

        if (value->id != how->id) {
            continue;
        }
        value->end = how->end;
        value->state = how->state;
        value->fua = how->fua;
        if (how->state == REG_ACKED) {
            value->first_end = MIN(value->first_end, how->end);
        }
        return;
    }
}

void reg_end(SimRegister *reg, const RegRules *rules, const RegValue *how)
{
    g_assert(how->state != REG_IN_FLIGHT && how->end != REG_NEVER);
    /* It was read and overwritten while in flight: then it is an old one. */
    end_in(&reg->live, how);
    if (reg->old.nr > 0) {
        end_in(&reg->old, how);
    }
    prune(reg, rules);
}

bool reg_read(SimRegister *reg, const RegRules *rules, const RegFound *found,
              uint64_t begin, uint64_t end)
{
    RegValue read = { .id = begin, .end = end };
    uint32_t index = 0;
    unsigned nr = sources(reg, rules, found, &read, &index);
    RegValue *value = &reg->live.values[index];

    if (nr == 0) {
        return false;
    }
    if (nr > 1) {
        if (begin > reg->zero_begin) {
            reg->zero_begin = begin;
            reg->zero_end = end;
        }
        return true;
    }
    if (value->kind == REG_INITIAL) {
        reg->noise = found->kind == REG_FOUND_NOISE ? found->id
                                                    : REG_NOISE_ZERO;
    }
    *value = joined(value, begin, end);
    prune(reg, rules);
    return true;
}

bool reg_may_read(const SimRegister *reg, const RegRules *rules,
                  const RegFound *found, uint64_t begin, uint64_t end)
{
    RegValue read = { .id = begin, .end = end };
    uint32_t index;

    return sources(reg, rules, found, &read, &index) > 0;
}

bool reg_value_may_survive(const SimRegister *reg, const RegRules *rules,
                           const RegValue *value)
{
    return !lies_before_pinned(value, last_pinned(reg, rules));
}

bool reg_may_survive(const SimRegister *reg, const RegRules *rules,
                     const RegFound *found)
{
    const RegList *lists[] = { &reg->live, &reg->old };
    const RegValue *pinned = last_pinned(reg, rules);

    for (unsigned l = 0; l < G_N_ELEMENTS(lists); l++) {
        for (uint32_t i = 0; i < lists[l]->nr; i++) {
            const RegValue *value = &lists[l]->values[i];

            if (is_source(reg, rules, value, found) &&
                !lies_before_pinned(value, pinned)) {
                return true;
            }
        }
    }
    return false;
}

bool reg_failed_may_survive(const SimRegister *reg, const RegRules *rules)
{
    const RegList *lists[] = { &reg->live, &reg->old };
    const RegValue *pinned = last_pinned(reg, rules);

    for (unsigned l = 0; l < G_N_ELEMENTS(lists); l++) {
        for (uint32_t i = 0; i < lists[l]->nr; i++) {
            const RegValue *value = &lists[l]->values[i];

            if (value->state == REG_MAYBE && value->kind != REG_DISCARD &&
                !lies_before_pinned(value, pinned)) {
                return true;
            }
        }
    }
    return false;
}
