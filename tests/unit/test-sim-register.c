/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One sector as a register, against a search over all possible orders.
 */
#include "check-main.h"

#include <string.h>

#include "sim/register.h"
#include "sim/tape.h"

#define OPS_MAX 9

/* One operation of a history; times are ticks. */
typedef struct Op {
    bool is_read;
    RegKind kind;
    RegEnd state;      /* of a writer in the end */
    uint64_t begin;
    uint64_t end;      /* REG_NEVER: in flight in the end */
    unsigned value;    /* read or written: 0 zero, else the writer's number */
} Op;

typedef struct History {
    Op ops[OPS_MAX];
    unsigned nr;
    uint64_t ticks;
} History;

/* --- all orders ----------------------------------------------------------- */

typedef struct Search {
    const History *history;
    bool seen[1 << OPS_MAX][OPS_MAX + 1];
} Search;

static bool must_happen(const Op *op)
{
    return op->is_read ? op->end != REG_NEVER : op->state == REG_ACKED;
}

/* Whether what has to come before op @i is in @done, or need not happen. */
static bool may_be_next(const History *h, unsigned done, unsigned i)
{
    for (unsigned k = 0; k < h->nr; k++) {
        if (!(done & 1u << k) && k != i && h->ops[k].end < h->ops[i].begin &&
            must_happen(&h->ops[k])) {
            return false;
        }
    }
    return true;
}

/*
 * What may happen and has not by its end never does: so an op that ended
 * before one that is done is too late.
 */
static bool too_late(const History *h, unsigned done, unsigned i)
{
    for (unsigned k = 0; k < h->nr; k++) {
        if ((done & 1u << k) && h->ops[i].end < h->ops[k].begin) {
            return true;
        }
    }
    return false;
}

static bool search(Search *s, unsigned done, unsigned value)
{
    const History *h = s->history;
    bool complete = true;

    if (s->seen[done][value]) {
        return false;
    }
    s->seen[done][value] = true;
    for (unsigned i = 0; i < h->nr; i++) {
        const Op *op = &h->ops[i];

        if (done & 1u << i) {
            continue;
        }
        complete &= !must_happen(op);
        if ((op->is_read && (op->end == REG_NEVER || op->value != value)) ||
            !may_be_next(h, done, i) || too_late(h, done, i)) {
            continue;
        }
        if (search(s, done | 1u << i, op->is_read ? value : op->value)) {
            return true;
        }
    }
    return complete;
}

static bool is_possible(const History *h)
{
    static Search s;

    memset(&s, 0, sizeof(s));
    s.history = h;
    return search(&s, 0, 0);
}

/* --- the oracle ----------------------------------------------------------- */

static uint64_t horizon(const History *h, uint64_t now)
{
    uint64_t min = REG_NEVER;

    for (unsigned i = 0; i < h->nr; i++) {
        const Op *op = &h->ops[i];

        if (op->is_read && op->begin <= now && op->end >= now) {
            min = MIN(min, op->begin);
        }
    }
    return min;
}

static uint64_t writer_of(const History *h, unsigned value)
{
    for (unsigned i = 0; i < h->nr; i++) {
        if (!h->ops[i].is_read && h->ops[i].kind == REG_WRITE &&
            h->ops[i].value == value) {
            return h->ops[i].begin;
        }
    }
    return REG_NEVER;
}

static bool end_op(SimRegister *reg, const History *h, const Op *op)
{
    RegRules rules = { .horizon = horizon(h, op->end) };
    RegFound found = { REG_FOUND_ZERO, 0 };
    RegValue how = { .id = op->begin, .end = op->end, .state = op->state };

    if (!op->is_read) {
        reg_end(reg, &rules, &how);
        return true;
    }
    if (op->value > 0) {
        found = (RegFound){ REG_FOUND_WRITE, writer_of(h, op->value) };
    }
    return reg_read(reg, &rules, &found, op->begin, op->end);
}

static bool oracle_accepts(const History *h)
{
    SimRegister reg;
    bool legal = true;

    reg_init(&reg);
    for (uint64_t tick = 1; tick <= h->ticks && legal; tick++) {
        for (unsigned i = 0; i < h->nr && legal; i++) {
            const Op *op = &h->ops[i];

            if (op->begin == tick && !op->is_read) {
                reg_begin(&reg, op->kind, tick);
            } else if (op->end == tick) {
                legal = end_op(&reg, h, op);
            }
        }
    }
    reg_clear(&reg);
    return legal;
}

/* --- histories ------------------------------------------------------------ */

static void choose_op(SimRandom *random, Op *op, unsigned i, bool zeroes)
{
    uint64_t dice = sim_random_below(random, 8);

    op->is_read = dice < 4;
    op->kind = zeroes && dice == 4   ? REG_ZERO
               : zeroes && dice == 5 ? REG_DISCARD
                                     : REG_WRITE;
    op->value = op->kind == REG_WRITE ? i + 1 : 0;
    op->state = op->kind == REG_DISCARD || sim_random_below(random, 6) == 0
                    ? REG_MAYBE
                    : REG_ACKED;
}

/* What a read returns: mostly something that was written, or zero. */
static void choose_reads(SimRandom *random, History *h)
{
    for (unsigned i = 0; i < h->nr; i++) {
        unsigned k = sim_random_below(random, h->nr + 1);

        if (h->ops[i].is_read) {
            h->ops[i].value = k < h->nr && !h->ops[k].is_read
                                  ? h->ops[k].value
                                  : 0;
        }
    }
}

/* Some clients, each with one operation after the other; some never end. */
static void make_history(SimRandom *random, History *h, bool zeroes)
{
    unsigned clients = 1 + sim_random_below(random, 4);
    int running[4] = { -1, -1, -1, -1 };

    memset(h, 0, sizeof(*h));
    while (h->nr < 3 + sim_random_below(random, OPS_MAX - 2) &&
           h->nr < OPS_MAX) {
        unsigned c = sim_random_below(random, clients);

        h->ticks++;
        if (running[c] < 0) {
            Op *op = &h->ops[h->nr];

            choose_op(random, op, h->nr, zeroes);
            op->begin = h->ticks;
            op->end = REG_NEVER;
            running[c] = h->nr++;
        } else {
            h->ops[running[c]].end = h->ticks;
            running[c] = -1;
        }
    }
    for (unsigned c = 0; c < clients; c++) {
        if (running[c] < 0) {
            continue;
        }
        if (sim_random_below(random, 3) > 0) {
            h->ops[running[c]].end = ++h->ticks;
        } else {
            h->ops[running[c]].state = REG_IN_FLIGHT;
        }
    }
    choose_reads(random, h);
}

START_TEST(unique_values_are_judged_exactly)
{
    unsigned legal = 0;
    unsigned runs = 60000;
    SimRandom random;

    sim_random_init(&random, 1);
    for (unsigned i = 0; i < runs; i++) {
        History h;
        bool possible;

        make_history(&random, &h, false);
        possible = is_possible(&h);
        ck_assert_msg(oracle_accepts(&h) == possible,
                      "history %u is %s", i, possible ? "legal" : "illegal");
        legal += possible;
    }
    ck_assert_uint_gt(legal, runs / 20);
    ck_assert_uint_lt(legal, runs - runs / 20);
}
END_TEST

START_TEST(with_zeroes_no_legal_history_is_refused_and_most_bad_ones_are)
{
    unsigned found = 0;
    unsigned bad = 0;
    SimRandom random;

    sim_random_init(&random, 2);
    for (unsigned i = 0; i < 60000; i++) {
        History h;
        bool possible;
        bool accepted;

        make_history(&random, &h, true);
        possible = is_possible(&h);
        accepted = oracle_accepts(&h);
        ck_assert_msg(accepted || !possible, "history %u is legal", i);
        bad += !possible;
        found += !accepted;
    }
    ck_assert_uint_gt(bad, 1000);
    ck_assert_uint_gt(found * 1000, bad * 998);
}
END_TEST

/* --- power cuts ----------------------------------------------------------- */

/* Writes one after the other; the first @pinned of them were flushed. */
static void write_many(SimRegister *reg, unsigned nr, unsigned pinned,
                       RegRules *rules)
{
    *rules = (RegRules){ .horizon = REG_NEVER };
    reg_init(reg);
    for (unsigned i = 0; i < nr; i++) {
        uint64_t id = 2 * i + 1;
        RegValue how = { .id = id, .end = id + 1, .state = REG_ACKED };

        reg_begin(reg, REG_WRITE, id);
        reg_end(reg, rules, &how);
        if (i + 1 == pinned) {
            rules->pinned = id + 2;
        }
    }
}

START_TEST(a_cut_leaves_the_last_pinned_value_or_a_later_one)
{
    for (unsigned nr = 0; nr < 40; nr++) {
        for (unsigned pinned = 0; pinned <= nr; pinned++) {
            RegFound zero = { REG_FOUND_ZERO, 0 };
            SimRegister reg;
            RegRules rules;

            write_many(&reg, nr, pinned, &rules);
            ck_assert(reg_may_survive(&reg, &rules, &zero) == (pinned == 0));
            for (unsigned i = 0; i < nr; i++) {
                RegFound found = { REG_FOUND_WRITE, 2 * i + 1 };

                ck_assert(reg_may_survive(&reg, &rules, &found) ==
                          (i + 1 >= pinned));
            }
            reg_clear(&reg);
        }
    }
}
END_TEST

START_TEST(what_is_not_pinned_does_not_pile_up)
{
    RegRules rules = { .horizon = REG_NEVER };
    SimRegister reg;

    reg_init(&reg);
    for (uint64_t id = 1; id < 20000; id += 2) {
        RegValue how = { .id = id, .end = id + 1, .state = REG_ACKED };

        reg_begin(&reg, REG_WRITE, id);
        reg_end(&reg, &rules, &how);
        rules.pinned = id > 20 ? id - 20 : 0;
    }
    ck_assert_uint_eq(reg.live.nr, 1);
    ck_assert_uint_lt(reg.old.capacity, 64);
    reg_clear(&reg);
}
END_TEST

START_TEST(what_a_failed_flush_lost_is_pinned_by_no_later_one)
{
    RegRules rules = { .horizon = REG_NEVER, .pinned = 100, .lost_from = 4,
                       .lost_to = 7 };
    RegFound first = { REG_FOUND_WRITE, 1 };
    RegFound second = { REG_FOUND_WRITE, 5 };
    RegFound zero = { REG_FOUND_ZERO, 0 };
    SimRegister reg;

    reg_init(&reg);
    reg_begin(&reg, REG_WRITE, 1);
    reg_end(&reg, &rules, &(RegValue){ .id = 1, .end = 2,
                                       .state = REG_ACKED });
    reg_begin(&reg, REG_WRITE, 5);
    reg_end(&reg, &rules, &(RegValue){ .id = 5, .end = 6,
                                       .state = REG_ACKED });
    ck_assert(reg_may_survive(&reg, &rules, &first));
    ck_assert(reg_may_survive(&reg, &rules, &second));
    ck_assert(!reg_may_survive(&reg, &rules, &zero));
    rules.lost_to = 0;
    ck_assert(!reg_may_survive(&reg, &rules, &first));
    reg_clear(&reg);
}
END_TEST

START_TEST(unknown_content_stays_what_it_was_once_seen)
{
    RegRules rules = { .unknown = true, .horizon = REG_NEVER };
    RegFound noise = { REG_FOUND_NOISE, 1234 };
    RegFound other = { REG_FOUND_NOISE, 4321 };
    RegFound zero = { REG_FOUND_ZERO, 0 };
    SimRegister reg;

    reg_init(&reg);
    ck_assert(reg_may_read(&reg, &rules, &zero, 1, 2));
    ck_assert(reg_may_read(&reg, &rules, &other, 1, 2));
    ck_assert(reg_read(&reg, &rules, &noise, 1, 2));
    ck_assert(reg_may_read(&reg, &rules, &noise, 3, 4));
    ck_assert(!reg_may_read(&reg, &rules, &other, 3, 4));
    ck_assert(!reg_may_read(&reg, &rules, &zero, 3, 4));
    reg_clear(&reg);
    reg_init(&reg);
    ck_assert(reg_read(&reg, &rules, &zero, 1, 2));
    ck_assert(!reg_may_read(&reg, &rules, &noise, 3, 4));
    reg_clear(&reg);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim-register");
    TCase *tcase = tcase_create("register");

    tcase_set_timeout(tcase, 120);
    PROMISE(tcase, unique_values_are_judged_exactly);
    PROMISE(tcase,
            with_zeroes_no_legal_history_is_refused_and_most_bad_ones_are);
    PROMISE(tcase, a_cut_leaves_the_last_pinned_value_or_a_later_one);
    PROMISE(tcase, what_is_not_pinned_does_not_pile_up);
    PROMISE(tcase, what_a_failed_flush_lost_is_pinned_by_no_later_one);
    PROMISE(tcase, unknown_content_stays_what_it_was_once_seen);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
