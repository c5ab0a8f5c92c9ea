/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression files: one failed run, small, as text.
 *
 *     bgs 1
 *     # why it is kept
 *     scenario NAME
 *     library VERSION
 *     strategy NAME
 *     seed NUMBER
 *     tape
 *     op 3/6 100/512          choices of a label; a group on one line
 *     latency 0/1000 x5       the same line five times
 *     sched @41 1/3 guest1 run
 *
 * Choices of a label are in order.  Where the scheduler took the first in line
 * there is no "sched" line; the others say who ran and what it did, so that
 * they mean the same after a change of the code, or are seen not to.
 */
#include "sim/supervise.h"

#include <blockgraph/error.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#define FORMAT_VERSION 1

typedef struct Reader {
    SimRegress *regress;
    const char *path;
    unsigned line;
    bool has_version;
    bool has_seed;
    bool in_tape;
    GString *reason;
} Reader;

void sim_regress_free(SimRegress *regress)
{
    if (regress) {
        g_free(regress->scenario);
        g_free(regress->library);
        g_free(regress->reason);
        tape_free(regress->tape);
        g_clear_pointer(&regress->decisions, g_ptr_array_unref);
        g_free(regress);
    }
}

/* --- reading -------------------------------------------------------------- */

static int bad(const Reader *r, GError **errp, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

static int bad(const Reader *r, GError **errp, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    return block_error(errp, EINVAL, "%s:%u: %s", r->path, r->line, text);
}

static int read_version(Reader *r, const char *value, GError **errp)
{
    uint64_t version;

    if (!g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX, &version,
                                    NULL)) {
        return bad(r, errp, "'%s' is no format version", value);
    }
    if (version != FORMAT_VERSION) {
        return bad(r, errp, "the file has format version %" G_GUINT64_FORMAT
                   ", this program reads %d", version, FORMAT_VERSION);
    }
    r->has_version = true;
    return 0;
}

static int read_head(Reader *r, const char *key, const char *value,
                     GError **errp)
{
    SimRegress *regress = r->regress;

    if (strcmp(key, "scenario") == 0) {
        g_free(regress->scenario);
        regress->scenario = g_strdup(value);
        regress->scenario_line = r->line;
    } else if (strcmp(key, "library") == 0) {
        g_free(regress->library);
        regress->library = g_strdup(value);
    } else if (strcmp(key, "strategy") == 0) {
        if (!sim_strategy_parse(value, &regress->strategy)) {
            return bad(r, errp, "'%s' is no strategy", value);
        }
    } else if (strcmp(key, "seed") == 0) {
        if (!g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX,
                                        &regress->seed, NULL)) {
            return bad(r, errp, "'%s' is no seed", value);
        }
        r->has_seed = true;
    } else {
        return bad(r, errp, "'%s' is none of: scenario, library, strategy, "
                   "seed, tape", key);
    }
    return 0;
}

static int read_tape_line(Reader *r, const char *line, GError **errp)
{
    GPtrArray *decisions = r->regress->decisions;
    g_autoptr(GError) error = NULL;
    SimDecision *decision;

    if (!g_str_has_prefix(line, "sched ")) {
        return tape_parse_line(r->regress->tape, line, &error) < 0
                   ? bad(r, errp, "%s", error->message)
                   : 0;
    }
    decision = sim_decision_parse(line + strlen("sched "), &error);
    if (!decision) {
        return bad(r, errp, "%s", error->message);
    }
    if (decisions->len > 0 &&
        ((SimDecision *)g_ptr_array_index(decisions, decisions->len - 1))
                ->position >= decision->position) {
        g_ptr_array_add(decisions, decision);
        return bad(r, errp, "decisions are in order of their positions");
    }
    g_ptr_array_add(decisions, decision);
    return 0;
}

static int read_line(Reader *r, char *line, GError **errp)
{
    char *space;

    if (line[0] == '#') {
        g_string_append_printf(r->reason, "%s\n", g_strchug(line + 1));
        return 0;
    }
    g_strchomp(line);
    if (!line[0]) {
        return 0;
    }
    space = strchr(line, ' ');
    if (!r->has_version) {
        return g_str_has_prefix(line, "bgs ")
                   ? read_version(r, line + strlen("bgs "), errp)
                   : bad(r, errp, "a regression file begins with 'bgs %d'",
                         FORMAT_VERSION);
    }
    if (r->in_tape) {
        return read_tape_line(r, line, errp);
    }
    if (strcmp(line, "tape") == 0) {
        r->in_tape = true;
        return 0;
    }
    if (!space) {
        return bad(r, errp, "'%s' has no value", line);
    }
    *space = 0;
    return read_head(r, line, space + 1, errp);
}

static int check_complete(const Reader *r, GError **errp)
{
    const char *missing = !r->has_version            ? "bgs"
                          : !r->regress->scenario ? "scenario"
                          : !r->regress->library  ? "library"
                          : !r->has_seed          ? "seed"
                          : !r->in_tape           ? "tape"
                                                  : NULL;

    return missing ? bad(r, errp, "the file ends without the line '%s'",
                         missing)
                   : 0;
}

SimRegress *sim_regress_parse(const char *text, const char *path,
                              GError **errp)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    Reader r = { .regress = g_new0(SimRegress, 1), .path = path,
                 .reason = g_string_new(NULL) };
    int ret = 0;

    r.regress->tape = tape_new(0);
    r.regress->tape->replay = true;
    r.regress->decisions = sim_decisions_new();
    for (unsigned i = 0; lines[i] && ret == 0; i++) {
        r.line = i + 1;
        ret = read_line(&r, lines[i], errp);
    }
    if (ret == 0) {
        ret = check_complete(&r, errp);
    }
    r.regress->reason = g_string_free(r.reason, FALSE);
    if (ret < 0) {
        g_clear_pointer(&r.regress, sim_regress_free);
    }
    return r.regress;
}

SimRegress *sim_regress_load(const char *path, GError **errp)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    gsize size;

    if (!g_file_get_contents(path, &text, &size, &error)) {
        block_error(errp, EIO, "%s", error->message);
        return NULL;
    }
    if (strlen(text) != size) {
        block_error(errp, EINVAL, "%s: this is no text", path);
        return NULL;
    }
    return sim_regress_parse(text, path, errp);
}

/* --- writing -------------------------------------------------------------- */

static void append_reason(GString *text, const char *reason)
{
    g_auto(GStrv) lines = g_strsplit(reason, "\n", 0);

    for (unsigned i = 0; lines[i]; i++) {
        if (lines[i][0]) {
            g_string_append_printf(text, "# %s\n", lines[i]);
        }
    }
}

char *sim_regress_to_text(const SimRegress *regress)
{
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "bgs %d\n", FORMAT_VERSION);
    append_reason(text, regress->reason);
    g_string_append_printf(text, "scenario %s\nlibrary %s\nstrategy %s\n"
                           "seed %" G_GUINT64_FORMAT "\ntape\n",
                           regress->scenario, regress->library,
                           sim_strategy_name(regress->strategy),
                           regress->seed);
    tape_to_text(regress->tape, text);
    for (guint i = 0; i < regress->decisions->len; i++) {
        g_autofree char *line =
            sim_decision_to_text(g_ptr_array_index(regress->decisions, i));

        g_string_append_printf(text, "%s\n", line);
    }
    return g_string_free(text, FALSE);
}

/* The notes of a recording trier are decisions, one a line. */
static void take_decisions(SimRegress *regress, const char *notes)
{
    g_auto(GStrv) lines = g_strsplit(notes, "\n", 0);

    for (unsigned i = 0; lines[i] && lines[i][0]; i++) {
        SimDecision *decision =
            sim_decision_parse(lines[i] + strlen("sched "), NULL);

        g_assert(decision);
        g_ptr_array_add(regress->decisions, decision);
    }
}

/* The strategy is said in the head of the file; its draw has no place. */
static void drop_stream(Tape *tape, const char *label)
{
    for (guint i = 0; i < tape->streams->len; i++) {
        TapeStream *stream = g_ptr_array_index(tape->streams, i);

        if (strcmp(stream->label, label) == 0) {
            g_array_set_size(stream->entries, 0);
        }
    }
    tape_trim(tape);
}

/* Run once more, to learn the names.  NULL with @errp set. */
static SimRegress *make_regress(const SimHow *how, const SimShrunk *shrunk,
                                GError **errp)
{
    SimTrierConfig config = { .record_decisions = true };
    SimTrier *trier = sim_trier_new(how, &config);
    SimRegress *regress = NULL;
    SimTried tried;

    sim_trier_run(trier, shrunk->tape, &tried);
    if (!sim_same_failure(&shrunk->result, &tried.result)) {
        block_error(errp, EILSEQ, "the shrunk tape does not fail again: the "
                    "run depends on something that is not on it");
    } else {
        regress = g_new0(SimRegress, 1);
        regress->scenario = g_strdup(how->scenario->name);
        regress->library = g_strdup(BLOCKGRAPH_VERSION);
        regress->strategy = shrunk->result.strategy;
        regress->seed = how->seed;
        regress->reason = g_strdup_printf("%s: %s", shrunk->result.oracle,
                                          shrunk->result.message);
        regress->tape = tape_new_replay(shrunk->tape);
        drop_stream(regress->tape, "sched.strategy");
        regress->decisions = sim_decisions_new();
        take_decisions(regress, tried.notes);
    }
    sim_tried_clear(&tried);
    sim_trier_free(trier);
    return regress;
}

int sim_regress_save(const SimHow *how, const SimShrunk *shrunk,
                     const char *path, GError **errp)
{
    SimRegress *regress = make_regress(how, shrunk, errp);
    g_autoptr(SimRegress) again = NULL;
    g_autofree char *text = NULL;
    g_autofree char *notes = NULL;
    g_autoptr(GError) error = NULL;
    SimTrierConfig config = { 0 };
    BgSimResult result;

    if (!regress) {
        return -EILSEQ;
    }
    text = sim_regress_to_text(regress);
    sim_regress_free(regress);
    again = sim_regress_parse(text, path, errp);
    g_assert(again);
    sim_regress_run(again, how->scenario, &config, &result, &notes);
    if (!sim_same_failure(&shrunk->result, &result)) {
        return block_error(errp, EILSEQ, "the file '%s' would not fail in the "
                           "same way: %s", path,
                           result.failed ? result.message : "it passes");
    }
    if (!g_file_set_contents(path, text, -1, &error)) {
        return block_error(errp, EIO, "%s", error->message);
    }
    return 0;
}

/* --- replay --------------------------------------------------------------- */

static const TapeStream *find_stream(const Tape *tape, const char *label)
{
    for (guint i = 0; tape && i < tape->streams->len; i++) {
        const TapeStream *stream = g_ptr_array_index(tape->streams, i);

        if (strcmp(stream->label, label) == 0) {
            return stream;
        }
    }
    return NULL;
}

/* What the run has asked for is not what the file holds. */
static void compare_streams(const TapeStream *held, const TapeStream *asked,
                            GString *notes)
{
    guint n = asked ? asked->entries->len : 0;

    if (n < held->entries->len) {
        g_string_append_printf(notes, "'%s': only %u of its %u choices were "
                               "asked for\n", held->label, n,
                               held->entries->len);
    }
    for (guint i = 0; i < MIN(n, held->entries->len); i++) {
        const TapeEntry *was = &g_array_index(held->entries, TapeEntry, i);
        const TapeEntry *is = &g_array_index(asked->entries, TapeEntry, i);

        if (was->value != is->value || was->in_group != is->in_group) {
            g_string_append_printf(notes, "'%s %" G_GUINT64_FORMAT "/%"
                                   G_GUINT64_FORMAT "', choice %u of '%s': "
                                   "the bound is now %" G_GUINT64_FORMAT "\n",
                                   held->label, was->value, was->bound, i + 1,
                                   held->label, is->bound);
        }
    }
}

void sim_regress_run(const SimRegress *regress, const BgSimScenario *scenario,
                     const SimTrierConfig *config, BgSimResult *result,
                     char **ret_notes)
{
    SimHow how = { .scenario = scenario, .seed = regress->seed,
                   .strategy = regress->strategy };
    SimTrierConfig with_names = *config;
    SimTrier *trier;
    SimTried tried;
    GString *notes;

    with_names.decisions = regress->decisions;
    trier = sim_trier_new(&how, &with_names);
    sim_trier_run(trier, regress->tape, &tried);
    *result = tried.result;
    notes = g_string_new(tried.notes);
    for (guint i = 0; tried.tape && i < regress->tape->streams->len; i++) {
        const TapeStream *held =
            g_ptr_array_index(regress->tape->streams, i);

        compare_streams(held, find_stream(tried.tape, held->label), notes);
    }
    *ret_notes = g_string_free(notes, FALSE);
    sim_tried_clear(&tried);
    sim_trier_free(trier);
}
