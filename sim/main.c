/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of programs that run scenarios, and what test frameworks
 * call instead.
 */
#include "sim/supervise.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#define SEEDS_DEFAULT 1000
#define FAILURES_MAX 1000

enum { EXIT_WELL, EXIT_FAILED, EXIT_USAGE };

/* What the command line says. */
typedef struct Options {
    const BgSimScenario *const *all; /* of the program */
    GPtrArray *chosen;               /* BgSimScenario; ends with NULL */
    GPtrArray *words;                /* arguments that are no options */
    char *scenario;
    char *strategy_name;
    BgSimStrategy strategy;
    char *out;
    char *program;
    char *seed_text;
    guint64 seed;
    gint64 seeds;
    double seconds;
    double timeout;
    int jobs;
    int planted;
    int failures;
    gboolean no_shrink;
    gboolean threads;
    gboolean report;
    gboolean check_determinism;
    gboolean help;
} Options;

typedef int Command(Options *o);

static int usage_error(const char *format, ...) G_GNUC_PRINTF(1, 2);

static int usage_error(const char *format, ...)
{
    va_list ap;

    fprintf(stderr, "%s: ", g_get_prgname());
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    return EXIT_USAGE;
}

/* --- scenarios ------------------------------------------------------------ */

static const BgSimScenario *lookup_scenario(const Options *o, const char *name)
{
    for (unsigned i = 0; o->all[i]; i++) {
        if (strcmp(o->all[i]->name, name) == 0) {
            return o->all[i];
        }
    }
    return NULL;
}

static const BgSimScenario *find_scenario(const Options *o, const char *name)
{
    const BgSimScenario *scenario = lookup_scenario(o, name);

    if (!scenario) {
        usage_error("there is no scenario '%s'; 'list' shows them", name);
    }
    return scenario;
}

/* Those that are named, or all but the canaries. */
static bool choose_scenarios(Options *o)
{
    for (guint i = 0; i < o->words->len; i++) {
        const BgSimScenario *s =
            find_scenario(o, g_ptr_array_index(o->words, i));

        if (!s) {
            return false;
        }
        if (o->threads && !s->threads_too) {
            usage_error("scenario '%s' does not run with --threads; 'list' "
                        "shows those that do", s->name);
            return false;
        }
        g_ptr_array_add(o->chosen, (gpointer)s);
    }
    for (unsigned i = 0; o->words->len == 0 && o->all[i]; i++) {
        const BgSimScenario *s = o->all[i];

        if (!s->by_name_only && (s->threads_too || !o->threads)) {
            g_ptr_array_add(o->chosen, (gpointer)s);
        }
    }
    if (o->chosen->len == 0) {
        usage_error("no scenario is left to run");
        return false;
    }
    g_ptr_array_add(o->chosen, NULL);
    return true;
}

/* The one of --scenario or the first argument; or NULL after an error. */
static const BgSimScenario *one_scenario(Options *o)
{
    if (!o->scenario) {
        usage_error("--scenario is missing");
        return NULL;
    }
    if (!o->seed_text) {
        usage_error("--seed is missing");
        return NULL;
    }
    return find_scenario(o, o->scenario);
}

static const char *one_file(const Options *o)
{
    return o->words->len == 1 ? g_ptr_array_index(o->words, 0) : NULL;
}

/* --- run ------------------------------------------------------------------ */

static int64_t to_ns(double seconds)
{
    return seconds * 1e9;
}

static SimReport report_of(const Options *o)
{
    return (SimReport){ .out = stdout, .dir = o->out, .program = o->program,
                        .timeout_ns = to_ns(o->timeout),
                        .strategy = o->strategy, .threads = o->threads,
                        .no_shrink = o->no_shrink };
}

static SimBatch batch_of(const Options *o)
{
    return (SimBatch){
        .scenarios = (const BgSimScenario *const *)o->chosen->pdata,
        .first = o->seed,
        .seeds = o->seeds > 0      ? o->seeds
                 : o->seconds > 0 ? 0
                 : o->seed_text   ? 1
                                  : SEEDS_DEFAULT,
        .real_ns = to_ns(o->seconds),
        .jobs = o->jobs,
        .timeout_ns = to_ns(o->timeout),
        .strategy = o->strategy,
        .threads = o->threads,
        .check_determinism = o->check_determinism,
        .max_failures = o->failures,
    };
}

static int run(Options *o, bool tables)
{
    SimReport report = report_of(o);
    SimBatchResult result;
    SimBatch batch;
    int ret;

    if (!choose_scenarios(o)) {
        return EXIT_USAGE;
    }
    batch = batch_of(o);
    sim_batch_run(&batch, &result);
    if (tables) {
        sim_stats_print(&result.stats, stdout);
    }
    sim_report_batch(&report, &batch, &result);
    if (result.failures->len >= batch.max_failures) {
        printf("stopped early, after %u failures\n", result.failures->len);
    }
    printf("%" PRIu64 " passed, %u failed\n", result.passed,
           result.failures->len);
    ret = result.failures->len > 0 ? EXIT_FAILED : EXIT_WELL;
    sim_batch_clear(&result);
    return ret;
}

static int command_run(Options *o)
{
    return run(o, o->report);
}

static int command_report(Options *o)
{
    return run(o, true);
}

static int command_list(Options *o)
{
    for (unsigned i = 0; o->all[i]; i++) {
        printf("%-12s %s%s%s\n", o->all[i]->name,
               o->all[i]->help ? o->all[i]->help : "",
               o->all[i]->threads_too ? " (also --threads)" : "",
               o->all[i]->by_name_only ? " (only when named)" : "");
    }
    return EXIT_WELL;
}

static int command_hash(Options *o)
{
    SimBatchResult result;
    SimBatch batch;
    int ret;

    if (o->words->len != 1) {
        return usage_error("'hash' takes the name of one scenario");
    }
    if (!choose_scenarios(o)) {
        return EXIT_USAGE;
    }
    batch = batch_of(o);
    batch.hashes = true;
    batch.seeds = MAX(batch.seeds, 1);
    batch.max_failures = 0;
    sim_batch_run(&batch, &result);
    for (guint i = 0; i < result.failures->len; i++) {
        const BgSimResult *r =
            &g_array_index(result.failures, SimFailure, i).result;

        result.hashes[r->seed - batch.first] = r->trace_hash;
    }
    for (uint64_t i = 0; i < batch.seeds; i++) {
        printf("%" PRIu64 " %016" PRIx64 "\n", batch.first + i,
               result.hashes[i]);
    }
    ret = result.failures->len > 0 ? EXIT_FAILED : EXIT_WELL;
    sim_batch_clear(&result);
    return ret;
}

/* --- one run -------------------------------------------------------------- */

static int print_result(const BgSimResult *r, const char *notes)
{
    g_auto(GStrv) lines = g_strsplit(notes, "\n", 0);

    for (unsigned i = 0; lines[i] && lines[i][0]; i++) {
        printf("does not apply: %s\n", lines[i]);
    }
    printf("strategy %s, %" PRIu64 " steps, trace hash %016" PRIx64 "\n",
           sim_strategy_name(r->strategy), r->steps, r->trace_hash);
    if (r->failed) {
        printf("FAILED: %s: %s\n", r->oracle, r->message);
    } else {
        printf("passed\n");
    }
    return r->failed ? EXIT_FAILED : EXIT_WELL;
}

static int replay_file(Options *o, const char *path, bool explain)
{
    SimTrierConfig config = { .timeout_ns = to_ns(o->timeout),
                              .explain = explain, .find_leaks = true };
    g_autoptr(GError) error = NULL;
    g_autoptr(SimRegress) regress = sim_regress_load(path, &error);
    g_autofree char *notes = NULL;
    const BgSimScenario *scenario;
    BgSimResult result;

    if (!regress) {
        return usage_error("%s", error->message);
    }
    scenario = lookup_scenario(o, regress->scenario);
    if (!scenario) {
        return usage_error("%s:%u: there is no scenario '%s'; 'list' shows "
                           "them", path, regress->scenario_line,
                           regress->scenario);
    }
    if (strcmp(regress->library, BLOCKGRAPH_VERSION) != 0) {
        printf("the file was written by version %s of the library, this is "
               "%s\n", regress->library, BLOCKGRAPH_VERSION);
    }
    sim_regress_run(regress, scenario, &config, &result, &notes);
    return print_result(&result, notes);
}

static int replay_seed(Options *o, const Tape *tape, bool explain)
{
    SimTrierConfig config = { .timeout_ns = to_ns(o->timeout),
                              .explain = explain, .find_leaks = true };
    SimHow how = { .scenario = one_scenario(o), .seed = o->seed,
                   .strategy = o->strategy, .threads = o->threads };
    SimTrier *trier;
    SimTried tried;
    int ret;

    if (!how.scenario) {
        return EXIT_USAGE;
    }
    trier = sim_trier_new(&how, &config);
    sim_trier_run(trier, tape, &tried);
    ret = print_result(&tried.result, tried.notes);
    sim_tried_clear(&tried);
    sim_trier_free(trier);
    return ret;
}

static int replay(Options *o, bool explain)
{
    if (o->words->len > 1 || (o->words->len == 1) == (o->scenario != NULL)) {
        return usage_error("one FILE, or --scenario and --seed, are wanted");
    }
    return one_file(o) ? replay_file(o, one_file(o), explain)
                       : replay_seed(o, NULL, explain);
}

static int command_replay(Options *o)
{
    return replay(o, false);
}

static int command_explain(Options *o)
{
    return replay(o, true);
}

static int command_shrink(Options *o)
{
    SimHow how = { .scenario = one_scenario(o), .seed = o->seed,
                   .strategy = o->strategy };
    g_autoptr(GError) error = NULL;
    SimShrunk shrunk;
    int ret = EXIT_WELL;

    if (!how.scenario) {
        return EXIT_USAGE;
    }
    if (!o->out) {
        return usage_error("--out is missing: the file to be written");
    }
    sim_shrink(&how, to_ns(o->timeout), NULL, &shrunk);
    if (!shrunk.tape) {
        printf("nothing to shrink: the run %s\n",
               shrunk.result.failed ? "leaves no tape" : "does not fail");
        return EXIT_FAILED;
    }
    printf("%zu choices of %zu are left, after %u candidates in %.2f s\n",
           shrunk.choices, shrunk.choices_before, shrunk.candidates,
           shrunk.real_ns / 1e9);
    if (sim_regress_save(&how, &shrunk, o->out, &error) < 0) {
        printf("not stored: %s\n", error->message);
        ret = EXIT_FAILED;
    }
    tape_free(shrunk.tape);
    return ret;
}

static int command_fuzz_tape(Options *o)
{
    const char *path = one_file(o);
    g_autoptr(GError) error = NULL;
    g_autofree char *bytes = NULL;
    gsize size;
    Tape *tape;
    int ret;

    if (!path) {
        return usage_error("'fuzz-tape' takes one FILE");
    }
    if (!g_file_get_contents(path, &bytes, &size, &error)) {
        return usage_error("%s", error->message);
    }
    if (!o->scenario) {
        o->scenario = g_strdup("smoke");
    }
    if (!o->seed_text) {
        o->seed_text = g_strdup("0");
    }
    tape = tape_new_bytes((const uint8_t *)bytes, size);
    ret = replay_seed(o, tape, false);
    tape_free(tape);
    return ret;
}

/* --- the command line ----------------------------------------------------- */

static const struct {
    const char *name;
    Command *command;
    const char *help;
} commands[] = {
    { "list", command_list, "what scenarios there are" },
    { "run", command_run, "[SCENARIO...]: many seeds; failures are shrunk" },
    { "report", command_report, "[SCENARIO...]: run, and print all tables" },
    { "replay", command_replay, "FILE, or --scenario and --seed: one run" },
    { "explain", command_explain, "the same, with all that has happened" },
    { "shrink", command_shrink, "--scenario, --seed and --out FILE" },
    { "hash", command_hash, "SCENARIO --seeds N: the trace hash of each" },
    { "fuzz-tape", command_fuzz_tape, "FILE: its bytes are the choices" },
};

static int parse_options(Options *o, int *argc, char ***argv)
{
    const GOptionEntry entries[] = {
        { "seed", 0, 0, G_OPTION_ARG_STRING, &o->seed_text, "the first seed", "N" },
        { "seeds", 0, 0, G_OPTION_ARG_INT64, &o->seeds, "how many of each scenario", "N" },
        { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &o->seconds, "begin no run after S", "S" },
        { "jobs", 0, 0, G_OPTION_ARG_INT, &o->jobs, "processes at a time", "N" },
        { "threads", 0, 0, G_OPTION_ARG_NONE, &o->threads, "real I/O threads", NULL },
        { "strategy", 0, 0, G_OPTION_ARG_STRING, &o->strategy_name, "of the scheduler", "NAME" },
        { "planted", 0, 0, G_OPTION_ARG_INT, &o->planted, "have this planted bug", "N" },
        { "out", 0, 0, G_OPTION_ARG_FILENAME, &o->out, "where shrunk failures go", "PATH" },
        { "report", 0, 0, G_OPTION_ARG_NONE, &o->report, "print all tables", NULL },
        { "check-determinism", 0, 0, G_OPTION_ARG_NONE, &o->check_determinism,
          "run each seed twice, at other addresses", NULL },
        { "failures", 0, 0, G_OPTION_ARG_INT, &o->failures, "stop after so many", "N" },
        { "no-shrink", 0, 0, G_OPTION_ARG_NONE, &o->no_shrink,
          "only say what has failed", NULL },
        { "scenario", 0, 0, G_OPTION_ARG_STRING, &o->scenario, "of one run", "NAME" },
        { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &o->timeout,
          "real seconds that a run may take", "S" },
        { "help", 'h', 0, G_OPTION_ARG_NONE, &o->help, "show this text", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("COMMAND ...");
    g_autoptr(GString) summary = g_string_new("Commands:");
    g_autoptr(GError) error = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_string_append_printf(summary, "\n  %-10s %s", commands[i].name,
                               commands[i].help);
    }
    g_option_context_set_summary(context, summary->str);
    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_help_enabled(context, FALSE); /* it would exit */
    if (!g_option_context_parse(context, argc, argv, &error)) {
        return usage_error("%s; --help tells more", error->message);
    }
    if (o->help) {
        g_autofree char *text = g_option_context_get_help(context, TRUE, NULL);

        fputs(text, stdout);
    }
    return EXIT_WELL;
}

static int check_options(Options *o)
{
    if (o->strategy_name &&
        !sim_strategy_parse(o->strategy_name, &o->strategy)) {
        return usage_error("'%s' is no strategy: any, fifo, uniform, pct, "
                           "swizzle, starve, eager or exhaustive",
                           o->strategy_name);
    }
    if (o->seed_text &&
        !g_ascii_string_to_unsigned(o->seed_text, 10, 0, UINT64_MAX, &o->seed,
                                    NULL)) {
        return usage_error("'%s' is no seed: a number is wanted",
                           o->seed_text);
    }
    if (o->seeds < 0 || o->seconds < 0 || o->timeout < 0 || o->jobs < 1 ||
        o->planted < 0 ||
        o->failures < 1) {
        return usage_error("a number is out of range");
    }
    if (!bgsim_plant(o->planted)) {
        return usage_error("this build has no planted bugs (meson option "
                           "planted_bugs)");
    }
    return EXIT_WELL;
}

static int do_command(Options *o, int argc, char **argv)
{
    if (argc < 2) {
        return usage_error("a command is missing; --help lists them");
    }
    for (int i = 2; i < argc; i++) {
        g_ptr_array_add(o->words, argv[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i].name, argv[1]) == 0) {
            return commands[i].command(o);
        }
    }
    return usage_error("'%s' is no command; --help lists them", argv[1]);
}

/* What somebody asked for is not lost unseen. */
static bool all_printed(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return true;
    }
    fprintf(stderr, "%s: Could not write to standard output\n",
            g_get_prgname());
    return false;
}

int bgsim_main(int argc, char **argv, const BgSimScenario *const *scenarios)
{
    g_auto(GStrv) arguments = g_strdupv(argv);
    /* The parser takes pointers out of its list; @arguments keeps them all. */
    g_autofree char **words = g_memdup2(arguments,
                                        (argc + 1) * sizeof(*words));
    char **rest = words;
    Options o = { .all = scenarios, .jobs = 1, .failures = FAILURES_MAX,
                  .program = argc > 0 ? argv[0] : "bg-sim" };
    int ret;

    /* What GLib calls critical is a wrong call of ours: a crash to be found. */
    g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
    o.words = g_ptr_array_new();
    o.chosen = g_ptr_array_new();
    ret = parse_options(&o, &argc, &rest);
    if (ret == EXIT_WELL && !o.help) {
        ret = check_options(&o);
    }
    if (ret == EXIT_WELL && !o.help) {
        ret = do_command(&o, argc, rest);
    }
    g_ptr_array_unref(o.words);
    g_ptr_array_unref(o.chosen);
    g_free(o.scenario);
    g_free(o.strategy_name);
    g_free(o.out);
    g_free(o.seed_text);
    return all_printed() || ret != EXIT_WELL ? ret : EXIT_FAILED;
}

/* --- test frameworks ------------------------------------------------------ */

bool bgsim_check_seeds(const BgSimScenario *scenario, uint64_t first,
                       unsigned count, char **ret_report)
{
    const BgSimScenario *scenarios[] = { scenario, NULL };
    SimBatch batch = { .scenarios = scenarios, .first = first, .seeds = count,
                       .jobs = 1, .max_failures = 1 };
    char *text = NULL;
    size_t size = 0;
    SimReport report = { .dir = ".", .program = "bg-sim" };
    SimBatchResult result;
    bool well;

    sim_batch_run(&batch, &result);
    well = result.failures->len == 0;
    if (!well) {
        report.out = open_memstream(&text, &size);
        g_assert(report.out);
        sim_report_failure(&report,
                           &g_array_index(result.failures, SimFailure, 0));
        fclose(report.out);
        *ret_report = g_strdup(text);
        free(text);
    }
    sim_batch_clear(&result);
    return well;
}
