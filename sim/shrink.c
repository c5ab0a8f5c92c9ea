/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a run that fails to a small one that fails the same way.
 *
 * A candidate is a tape with something left out or made duller.  It is kept if
 * the same failure comes and the tape that the run has really asked for is
 * smaller: fewer choices that are not 0, then fewer choices, then lower ones.
 * Each kept candidate is smaller than the one before, so this ends.
 */
#include "sim/supervise.h"

#include <string.h>

#define CANDIDATES_DEFAULT 20000
#define REAL_NS_DEFAULT (INT64_C(60) * 1000 * 1000 * 1000)

/* How much of two messages must be the same, in words. */
#define SAME_WORDS 5

typedef struct Size {
    size_t nonzero;
    size_t length;
    double sum;        /* of the values; an order is all that is wanted */
} Size;

typedef struct Shrink {
    SimTrier *trier;
    BgSimResult original;
    BgSimResult result;  /* of @best */
    Tape *best;          /* trimmed */
    Size size;
    unsigned candidates;
    unsigned max_candidates;
    int64_t end_ns;
} Shrink;

/* --- the same ------------------------------------------------------------- */

/* The next word, up to its first digit; false at the end of the text. */
static bool next_word(const char **text, const char **word, size_t *length)
{
    *text += strspn(*text, " \n");
    *word = *text;
    *length = strcspn(*text, " \n0123456789");
    *text += strcspn(*text, " \n");
    return **word != 0;
}

bool sim_same_failure(const BgSimResult *a, const BgSimResult *b)
{
    const char *text_a = a->message;
    const char *text_b = b->message;

    if (!a->failed || !b->failed || strcmp(a->oracle, b->oracle) != 0) {
        return false;
    }
    for (unsigned i = 0; i < SAME_WORDS; i++) {
        const char *word_a;
        const char *word_b;
        size_t length_a;
        size_t length_b;
        bool more_a = next_word(&text_a, &word_a, &length_a);
        bool more_b = next_word(&text_b, &word_b, &length_b);

        if (more_a != more_b || length_a != length_b ||
            memcmp(word_a, word_b, length_a) != 0) {
            return false;
        }
    }
    return true;
}

/* --- candidates ----------------------------------------------------------- */

static TapeEntry *entry_at(const TapeStream *stream, guint i)
{
    return &g_array_index(stream->entries, TapeEntry, i);
}

static TapeStream *stream_at(const Tape *tape, guint i)
{
    return g_ptr_array_index(tape->streams, i);
}

static TapeStream *find_stream(const Tape *tape, const char *label)
{
    for (guint i = 0; i < tape->streams->len; i++) {
        if (strcmp(stream_at(tape, i)->label, label) == 0) {
            return stream_at(tape, i);
        }
    }
    return NULL;
}

static Size measure(const Tape *tape)
{
    Size size = { 0, 0, 0 };

    for (guint i = 0; i < tape->streams->len; i++) {
        const TapeStream *stream = stream_at(tape, i);

        for (guint j = 0; j < stream->entries->len; j++) {
            uint64_t value = entry_at(stream, j)->value;

            size.length++;
            size.nonzero += value != 0;
            size.sum += value;
        }
    }
    return size;
}

static bool is_smaller(Size a, Size b)
{
    return a.nonzero != b.nonzero ? a.nonzero < b.nonzero
           : a.length != b.length ? a.length < b.length
                                  : a.sum < b.sum;
}

static bool is_spent(const Shrink *s)
{
    return s->candidates >= s->max_candidates || sim_real_ns() >= s->end_ns;
}

static Tape *copy(const Tape *tape)
{
    return tape_new_replay(tape);
}

/* Takes @candidate.  Returns whether it is the best now. */
static bool try_tape(Shrink *s, Tape *candidate)
{
    SimTried tried;
    bool better = false;

    s->candidates++;
    sim_trier_run(s->trier, candidate, &tried);
    tape_free(candidate);
    if (tried.tape && sim_same_failure(&s->original, &tried.result)) {
        Size size;

        tape_trim(tried.tape);
        size = measure(tried.tape);
        better = is_smaller(size, s->size);
        if (better) {
            tape_free(s->best);
            s->best = g_steal_pointer(&tried.tape);
            s->size = size;
            s->result = tried.result;
        }
    }
    sim_tried_clear(&tried);
    return better;
}

/* --- whole streams -------------------------------------------------------- */

static bool without_streams(Shrink *s)
{
    bool helped = false;

    for (guint i = s->best->streams->len; i > 0 && !is_spent(s); i--) {
        Tape *tape;

        if (i > s->best->streams->len) {
            continue;
        }
        tape = copy(s->best);
        g_array_set_size(stream_at(tape, i - 1)->entries, 0);
        helped |= try_tape(s, tape);
    }
    return helped;
}

/* --- groups --------------------------------------------------------------- */

static guint nr_groups(const TapeStream *stream)
{
    guint n = 0;

    for (guint i = 0; i < stream->entries->len; i++) {
        n += !entry_at(stream, i)->in_group;
    }
    return n;
}

/* Where group @k begins. */
static guint group_start(const TapeStream *stream, guint k)
{
    guint i;

    for (i = 0; i < stream->entries->len; i++) {
        if (!entry_at(stream, i)->in_group && k-- == 0) {
            break;
        }
    }
    return i;
}

static guint groups_of(const Shrink *s, const char *label)
{
    const TapeStream *stream = find_stream(s->best, label);

    return stream ? nr_groups(stream) : 0;
}

/*
 * The best tape changed at the groups [@from, @from + @n) of a stream; NULL if
 * that would be in vain.
 */
typedef Tape *Change(const Shrink *s, const char *label, guint from, guint n);

static bool all_zero(const TapeStream *stream, guint start, guint end)
{
    for (guint i = start; i < end; i++) {
        if (entry_at(stream, i)->value != 0) {
            return false;
        }
    }
    return true;
}

/* What to change: entries [@start, @end) of @stream, in @tape. */
typedef struct Place {
    Tape *tape;                 /* NULL: all is 0 there */
    TapeStream *stream;
    guint start, end;
} Place;

static Place place_of(const Shrink *s, const char *label, guint from, guint n)
{
    const TapeStream *stream = find_stream(s->best, label);
    Place place = { .start = group_start(stream, from),
                    .end = group_start(stream, from + n) };

    if (!all_zero(stream, place.start, place.end)) {
        place.tape = copy(s->best);
        place.stream = find_stream(place.tape, label);
    }
    return place;
}

/* Zeroes are left where they are: to drop them costs more than they do. */
static Tape *without_groups(const Shrink *s, const char *label, guint from,
                            guint n)
{
    Place place = place_of(s, label, from, n);

    if (place.tape) {
        g_array_remove_range(place.stream->entries, place.start,
                             place.end - place.start);
    }
    return place.tape;
}

/* All choices of these groups 0; NULL if they are. */
static Tape *with_zeroes(const Shrink *s, const char *label, guint from,
                         guint n)
{
    Place place = place_of(s, label, from, n);

    for (guint i = place.start; place.tape && i < place.end; i++) {
        entry_at(place.stream, i)->value = 0;
    }
    return place.tape;
}

/*
 * Change @chunk groups at a time, from the end, where that shifts least.  What
 * is in front of a change stays as it is.
 */
static bool reduce_by(Shrink *s, const char *label, guint chunk,
                      Change *change)
{
    guint from = groups_of(s, label);
    bool helped = false;

    while (from > 0 && !is_spent(s)) {
        guint n = MIN(chunk, from);
        Tape *tape;

        from -= n;
        tape = change(s, label, from, n);
        helped |= tape && try_tape(s, tape);
        from = MIN(from, groups_of(s, label));
    }
    return helped;
}

/* Delta debugging: halves, quarters, ... single groups of each stream. */
static bool reduce_all(Shrink *s, Change *change, const char *prefix)
{
    g_autoptr(GPtrArray) labels = g_ptr_array_new_with_free_func(g_free);
    bool helped = false;

    for (guint i = 0; i < s->best->streams->len; i++) {
        const char *label = stream_at(s->best, i)->label;

        if (g_str_has_prefix(label, prefix)) {
            g_ptr_array_add(labels, g_strdup(label));
        }
    }
    for (guint i = 0; i < labels->len; i++) {
        const char *label = g_ptr_array_index(labels, i);

        for (guint n = MAX(groups_of(s, label) / 2, 1); n > 0; n /= 2) {
            helped |= reduce_by(s, label, n, change);
        }
    }
    return helped;
}

/* --- values --------------------------------------------------------------- */

static bool try_value(Shrink *s, guint i, guint j, uint64_t value)
{
    Tape *tape = copy(s->best);

    entry_at(stream_at(tape, i), j)->value = value;
    return try_tape(s, tape);
}

static bool has_value(const Shrink *s, guint i, guint j)
{
    return i < s->best->streams->len &&
           j < stream_at(s->best, i)->entries->len &&
           entry_at(stream_at(s->best, i), j)->value > 0;
}

static bool is_in_group(const TapeStream *stream, guint j)
{
    return entry_at(stream, j)->in_group ||
           (j + 1 < stream->entries->len && entry_at(stream, j + 1)->in_group);
}

/* The lowest that still fails, if "fails" is monotonous; else a lower one. */
static void lower_value(Shrink *s, guint i, guint j)
{
    uint64_t low = 1;

    /* Whole groups were set to 0 before, not their members. */
    if ((is_in_group(stream_at(s->best, i), j) && try_value(s, i, j, 0)) ||
        (entry_at(stream_at(s->best, i), j)->value > 1 &&
         try_value(s, i, j, 1))) {
        return;
    }
    while (has_value(s, i, j) && !is_spent(s)) {
        uint64_t high = entry_at(stream_at(s->best, i), j)->value;
        uint64_t middle = low + (high - low) / 2;

        if (middle <= low) {
            break;
        }
        if (!try_value(s, i, j, middle)) {
            low = middle;
        }
    }
}

static void lower_values(Shrink *s)
{
    for (guint i = 0; i < s->best->streams->len; i++) {
        for (guint j = 0; i < s->best->streams->len &&
                          j < stream_at(s->best, i)->entries->len; j++) {
            if (has_value(s, i, j) && !is_spent(s)) {
                lower_value(s, i, j);
            }
        }
    }
}

/* --- all ------------------------------------------------------------------ */

/* Operations first, then faults, then the schedule, then the rest. */
static void drop_choices(Shrink *s)
{
    bool helped;

    do {
        helped = without_streams(s);
        helped |= reduce_all(s, without_groups, "");
        helped |= reduce_all(s, with_zeroes, "fault");
        helped |= reduce_all(s, with_zeroes, "sched");
        helped |= reduce_all(s, with_zeroes, "");
    } while (helped && !is_spent(s));
}

/* Lower values are worth another round only if they made choices vanish. */
static void shrink(Shrink *s)
{
    size_t before;

    do {
        drop_choices(s);
        before = s->size.nonzero;
        lower_values(s);
    } while (s->size.nonzero < before && !is_spent(s));
}

void sim_shrink(const SimHow *how, int64_t timeout_ns,
                const SimShrinkBudget *budget, SimShrunk *ret)
{
    SimTrierConfig config = { .timeout_ns = timeout_ns };
    int64_t begin_ns = sim_real_ns();
    Shrink s = {
        .max_candidates = budget && budget->candidates ? budget->candidates
                                                       : CANDIDATES_DEFAULT,
        .end_ns = begin_ns + (budget && budget->real_ns ? budget->real_ns
                                                        : REAL_NS_DEFAULT),
    };
    SimTried tried;

    memset(ret, 0, sizeof(*ret));
    s.trier = sim_trier_new(how, &config);
    sim_trier_run(s.trier, how->tape, &tried);
    ret->result = tried.result;
    if (tried.result.failed && tried.tape) {
        s.original = s.result = tried.result;
        s.best = g_steal_pointer(&tried.tape);
        tape_trim(s.best);
        s.size = measure(s.best);
        ret->choices_before = s.size.nonzero;
        shrink(&s);
        ret->result = s.result;
        ret->tape = s.best;
        ret->choices = s.size.nonzero;
    }
    sim_tried_clear(&tried);
    sim_trier_free(s.trier);
    ret->candidates = s.candidates;
    ret->real_ns = sim_real_ns() - begin_ns;
}
