/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults by rule and by chance, holds, and what is known of the named points.
 */
#include "sim/sim-int.h"

#include <errno.h>
#include <string.h>

static const char *const disk_kinds[] = { "read", "write", "zero", "discard",
                                          "flush", "truncate", "any" };

struct BgSimRule {
    /* Set when the rule is made. */
    BgSim *sim;
    char *subject;      /* name of a disk, or "point" */
    char *what;         /* kind of request, or name of a point */
    char *node;         /* of a point; NULL: any */
    int64_t offset;     /* of a request; -1: any */
    int64_t bytes;
    int err;            /* 0: a hold */
    char *tag;          /* of a hold */

    /* Guarded by sim->lock. */
    bool off;
    bool after;
    unsigned skip;
    unsigned count;     /* 0: no limit */
    uint64_t seen;      /* that fit, skipped ones included */
    uint64_t hits;
    GPtrArray *held;    /* Coroutine: wait in the hold, in order */
};

/* --- making rules --------------------------------------------------------- */

static void rule_free(BgSimRule *rule)
{
    g_ptr_array_unref(rule->held);
    g_free(rule->subject);
    g_free(rule->what);
    g_free(rule->node);
    g_free(rule->tag);
    g_free(rule);
}

/* "4096+512" */
static bool parse_range(const char *text, int64_t *ret_offset,
                        int64_t *ret_bytes)
{
    char *end;

    *ret_offset = g_ascii_strtoll(text, &end, 0);
    if (end == text || *end != '+') {
        return false;
    }
    text = end + 1;
    *ret_bytes = g_ascii_strtoll(text, &end, 0);
    return end != text && !*end && *ret_offset >= 0 && *ret_bytes > 0;
}

static bool is_disk_kind(const char *what)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(disk_kinds); i++) {
        if (strcmp(what, disk_kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_site(const char *name)
{
    for (unsigned i = 0; i < bgsim_nr_sites(); i++) {
        BgSimSiteInfo info;

        bgsim_get_site(i, &info);
        if (strcmp(info.name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* "disk0:write@0+512", "point:io.pwritev@node" */
static bool parse_where(BgSimRule *rule, const char *where)
{
    const char *colon = strchr(where, ':');
    const char *at = colon ? strchr(colon, '@') : NULL;

    if (!colon) {
        return false;
    }
    rule->subject = g_strndup(where, colon - where);
    rule->what = at ? g_strndup(colon + 1, at - colon - 1)
                    : g_strdup(colon + 1);
    rule->offset = -1;
    if (strcmp(rule->subject, "point") == 0) {
        rule->node = at ? g_strdup(at + 1) : NULL;
        return is_site(rule->what);
    }
    if (at && !parse_range(at + 1, &rule->offset, &rule->bytes)) {
        return false;
    }
    return is_disk_kind(rule->what);
}

static BgSimRule *rule_new(BgSim *sim, const char *where)
{
    BgSimRule *rule = g_new0(BgSimRule, 1);

    rule->sim = sim;
    rule->held = g_ptr_array_new();
    if (!parse_where(rule, where)) {
        rule_free(rule);
        bgsim_violation(sim, "usage", "'%s' names no place: DISK:KIND, "
                        "DISK:KIND@OFFSET+BYTES, or point:NAME[@NODE] of a "
                        "point that the library has", where);
        return NULL;
    }
    return rule;
}

static void rule_add(BgSim *sim, BgSimRule *rule)
{
    LOCK_GUARD(&sim->lock);

    g_ptr_array_add(sim->rules, rule);
    atomic_store(&sim->fail_maybe, true);
}

BgSimRule *bgsim_fail(BgSim *sim, const char *where, int err)
{
    BgSimRule *rule = rule_new(sim, where);

    g_assert(err > 0);
    if (rule) {
        rule->err = err;
        rule_add(sim, rule);
    }
    return rule;
}

BgSimRule *bgsim_hold(BgSim *sim, const char *where, const char *tag)
{
    BgSimRule *rule = rule_new(sim, where);

    if (rule) {
        rule->tag = g_strdup(tag);
        rule_add(sim, rule);
    }
    return rule;
}

void bgsim_rule_nth(BgSimRule *rule, unsigned skip, unsigned count)
{
    LOCK_GUARD(&rule->sim->lock);

    rule->skip = skip;
    rule->count = count;
    rule->seen = 0;
}

void bgsim_rule_after(BgSimRule *rule)
{
    rule->after = true;
}

void bgsim_rule_off(BgSimRule *rule)
{
    LOCK_GUARD(&rule->sim->lock);

    rule->off = true;
}

uint64_t bgsim_rule_hits(const BgSimRule *rule)
{
    return rule->hits;
}

/*
 * Points that are rarely met would hardly ever fail beside those that are met
 * all the time.  So in half of the runs with failures nothing fails but the
 * points of one class, by their names, and these more often.
 */
#define POINT_CLASSES 16
#define CLASS_FACTOR 16
#define CLASS_PERMILLE_MAX 250 /* more is asked for: all is to fail */

static unsigned draw_class(BgSim *sim)
{
    unsigned drawn = bgsim_draw(sim, "fault.class", 2 * POINT_CLASSES);

    return drawn > POINT_CLASSES ? 0 : drawn;
}

static bool is_in_class(const SimSite *site, unsigned class)
{
    return g_str_hash(site->name) % POINT_CLASSES + 1 == class;
}

void bgsim_fail_randomly(BgSim *sim, unsigned permille, unsigned budget)
{
    bool is_rare = permille > 0 && permille <= CLASS_PERMILLE_MAX;
    unsigned class = is_rare && budget > 0 ? draw_class(sim) : 0;

    LOCK_GUARD(&sim->lock);
    if (class > 0) {
        permille = MIN(permille * CLASS_FACTOR, CLASS_PERMILLE_MAX);
    }
    atomic_store(&sim->fail_class, class);
    atomic_store(&sim->fail_permille, permille);
    atomic_store(&sim->fail_budget, budget);
    atomic_store(&sim->fail_maybe, budget > 0 || sim->rules->len > 0);
}

/* --- asking --------------------------------------------------------------- */

/* Whether @rule, which fits, applies this time. */
static bool applies_locked(BgSimRule *rule)
{
    uint64_t index = rule->seen++;

    if (index < rule->skip ||
        (rule->count > 0 && index >= (uint64_t)rule->skip + rule->count)) {
        return false;
    }
    rule->hits++;
    return true;
}

static void judge_locked(BgSimRule *rule, SimVerdict *verdict)
{
    if (!applies_locked(rule)) {
        return;
    }
    if (rule->tag) {
        verdict->hold = rule;
    } else if (!verdict->err) {
        verdict->err = rule->err;
        verdict->after = rule->after;
    }
}

/* Take one of the failures that are left. */
static bool take_from_budget(BgSim *sim)
{
    unsigned left = atomic_load(&sim->fail_budget);

    while (left > 0 &&
           !atomic_compare_exchange_weak(&sim->fail_budget, &left, left - 1)) {
    }
    return left > 0;
}

/* Chance: needs no rule. */
static void chance(BgSim *sim, const char *label, SimVerdict *verdict)
{
    static const int errors[] = { EIO, EIO, ENOSPC, ENOMEM, EACCES };

    if (verdict->err || atomic_load(&sim->fail_budget) == 0 ||
        atomic_load(&sim->settling) ||
        !bgsim_chance(sim, label, atomic_load(&sim->fail_permille)) ||
        !take_from_budget(sim)) {
        return;
    }
    verdict->err = errors[bgsim_draw(sim, "fault.errno",
                                     G_N_ELEMENTS(errors))];
    verdict->after = bgsim_draw(sim, "fault.after", 4) == 3;
}

SimVerdict sim_fault_disk(BgSim *sim, const char *name, const char *kind,
                          int64_t offset, int64_t bytes)
{
    SimVerdict verdict = { 0, false, NULL };

    WITH_LOCK(&sim->lock) {
        for (guint i = 0; i < sim->rules->len; i++) {
            BgSimRule *rule = g_ptr_array_index(sim->rules, i);

            if (!rule->off && strcmp(rule->subject, name) == 0 &&
                (strcmp(rule->what, kind) == 0 ||
                 strcmp(rule->what, "any") == 0) &&
                (rule->offset < 0 || (offset < rule->offset + rule->bytes &&
                                      rule->offset < offset + bytes))) {
                judge_locked(rule, &verdict);
            }
        }
    }
    if (atomic_load(&sim->fail_class) == 0) {
        chance(sim, "fault.disk", &verdict);
    }
    return verdict;
}

SimVerdict sim_fault_point(BgSim *sim, SimSite *site, const char *node)
{
    SimVerdict verdict = { 0, false, NULL };
    unsigned class;

    if (!atomic_load(&sim->fail_maybe)) {
        return verdict;
    }
    class = atomic_load(&sim->fail_class);
    WITH_LOCK(&sim->lock) {
        for (guint i = 0; i < sim->rules->len; i++) {
            BgSimRule *rule = g_ptr_array_index(sim->rules, i);

            if (!rule->off && strcmp(rule->subject, "point") == 0 &&
                strcmp(rule->what, site->name) == 0 &&
                (!rule->node || (node && strcmp(rule->node, node) == 0))) {
                judge_locked(rule, &verdict);
            }
        }
    }
    if (!site->can_fail) {
        verdict.err = 0;
    } else if (class == 0 || is_in_class(site, class)) {
        chance(sim, "fault.point", &verdict);
    }
    return verdict;
}

/* --- holds ---------------------------------------------------------------- */

void coroutine_fn sim_hold_wait(BgSim *sim, BgSimRule *rule)
{
    bool wait = false;

    WITH_LOCK(&sim->lock) {
        if (!rule->off) {
            g_ptr_array_add(rule->held, coroutine_self());
            wait = true;
        }
    }
    if (wait) {
        SIM_WAITS("the release of a hold", NULL);
        coroutine_yield();
    }
}

unsigned bgsim_held(BgSim *sim, const char *tag)
{
    unsigned n = 0;

    LOCK_GUARD(&sim->lock);
    for (guint i = 0; i < sim->rules->len; i++) {
        BgSimRule *rule = g_ptr_array_index(sim->rules, i);

        if (rule->tag && strcmp(rule->tag, tag) == 0) {
            n += rule->held->len;
        }
    }
    return n;
}

static void release(BgSimRule *rule)
{
    GPtrArray *held;

    WITH_LOCK(&rule->sim->lock) {
        rule->off = true;
        held = rule->held;
        rule->held = g_ptr_array_new();
    }
    for (guint i = 0; i < held->len; i++) {
        Coroutine *co = g_ptr_array_index(held, i);

        aio_co_schedule(atomic_load(&co->ctx), co);
    }
    g_ptr_array_unref(held);
}

void bgsim_release(BgSim *sim, const char *tag)
{
    for (guint i = 0; i < sim->rules->len; i++) {
        BgSimRule *rule = g_ptr_array_index(sim->rules, i);

        if (rule->tag && strcmp(rule->tag, tag) == 0) {
            release(rule);
        }
    }
}

void sim_faults_off(BgSim *sim)
{
    for (guint i = 0; i < sim->rules->len; i++) {
        release(g_ptr_array_index(sim->rules, i));
    }
    bgsim_fail_randomly(sim, 0, 0);
}

void sim_faults_clear(BgSim *sim)
{
    for (guint i = 0; i < sim->rules->len; i++) {
        rule_free(g_ptr_array_index(sim->rules, i));
    }
}

/* --- points --------------------------------------------------------------- */

/* The linker puts all sites of the library side by side. */
extern SimSite *const __start_bgsim_sites[];
extern SimSite *const __stop_bgsim_sites[];

unsigned bgsim_nr_sites(void)
{
    return __stop_bgsim_sites - __start_bgsim_sites;
}

void bgsim_get_site(unsigned index, BgSimSiteInfo *info)
{
    const SimSite *site = __start_bgsim_sites[index];

    *info = (BgSimSiteInfo){
        .name = site->name,
        .file = site->file,
        .line = site->line,
        .can_fail = site->can_fail,
        .executed = atomic_load(&site->executed),
        .failed_once = atomic_load(&site->failed_once),
        .failed = atomic_load(&site->failed),
        .yielded = atomic_load(&site->yielded),
        .crashed = atomic_load(&site->crashed),
    };
}

void sim_sites_note_crash(BgSim *sim)
{
    LIST_FOREACH(link, &sim->actors) {
        SimActor *actor = LIST_ENTRY(link, SimActor, link);

        if (actor->site) {
            atomic_fetch_add(&actor->site->crashed, 1);
        }
    }
}
