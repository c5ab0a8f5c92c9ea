/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hierarchical bitmap against a plain array of one byte a granule.
 */
#include "check-main.h"

#include "util/hbitmap-int.h"
#include <errno.h>
#include <string.h>

/* ck_assert() reports each success to the parent: too slow for inner loops. */
#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            ck_abort_msg("failed: " #condition);                              \
        }                                                                     \
    } while (0)

#define BITS_MAX 300000

typedef struct Model {
    HBitmap *hb;
    int64_t size;
    int granularity;
    unsigned char dirty[BITS_MAX];
} Model;

static Model model, other;

static int64_t model_bits(const Model *m)
{
    int64_t granule = INT64_C(1) << m->granularity;

    return m->size / granule + (m->size % granule != 0);
}

static void model_init(Model *m, int64_t size, int granularity)
{
    memset(m->dirty, 0, sizeof(m->dirty));
    m->size = size;
    m->granularity = granularity;
    CHECK(model_bits(m) <= BITS_MAX);
    m->hb = hbitmap_new(size, granularity);
    CHECK(m->hb);
}

static void model_set(Model *m, int64_t start, int64_t count)
{
    hbitmap_set(m->hb, start, count);
    for (int64_t bit = start >> m->granularity;
         count > 0 && bit <= (start + count - 1) >> m->granularity; bit++) {
        m->dirty[bit] = 1;
    }
}

/* Reset the granules @first..@first+@nr, as far as there are. */
static void model_reset(Model *m, int64_t first, int64_t nr)
{
    int64_t start = first << m->granularity;
    int64_t end = MIN((first + nr) << m->granularity, m->size);

    hbitmap_reset(m->hb, start, end - start);
    memset(m->dirty + first, 0, nr);
}

/* The first item from @start on, before @end, with that @state; or -1. */
static int64_t model_next(const Model *m, int64_t start, int64_t end,
                          int state)
{
    end = MIN(end, m->size);
    if (start >= end) {
        return -1;
    }
    for (int64_t bit = start >> m->granularity;
         bit <= (end - 1) >> m->granularity; bit++) {
        if (m->dirty[bit] == state) {
            return MAX(bit << m->granularity, start);
        }
    }
    return -1;
}

static int64_t model_count(const Model *m)
{
    int64_t count = 0;

    for (int64_t bit = 0; bit < model_bits(m); bit++) {
        if (m->dirty[bit]) {
            int64_t start = bit << m->granularity;

            count += MIN(INT64_C(1) << m->granularity, m->size - start);
        }
    }
    return count;
}

/* Invariants I1 to I3 of the bitmap, and its bits. */
static void check_all(const Model *m)
{
    const HBitmap *hb = m->hb;
    int64_t nr_dirty = 0;

    CHECK(hb->levels[hb->nr_levels - 1].nr_words == 1);
    for (int k = 1; k < hb->nr_levels; k++) {
        const HBitmapLevel *below = &hb->levels[k - 1];

        for (int64_t i = 0; i < hb->levels[k].nr_words * 64; i++) {
            bool bit = hb->levels[k].words[i / 64] >> (i % 64) & 1;

            CHECK(bit == (i < below->nr_words && below->words[i] != 0));
        }
    }
    for (int64_t i = 0; i < hb->levels[0].nr_words * 64; i++) {
        bool bit = hb->levels[0].words[i / 64] >> (i % 64) & 1;

        CHECK(bit == (i < model_bits(m) && m->dirty[i]));
        nr_dirty += bit;
    }
    CHECK(nr_dirty == hb->nr_dirty);
    CHECK(hbitmap_count(hb) == model_count(m));
    CHECK(hbitmap_is_empty(hb) == (nr_dirty == 0));
    CHECK(hbitmap_size(hb) == m->size);
}

static int64_t random_below(GRand *rand, int64_t end)
{
    guint64 high = g_rand_int(rand);

    return ((high << 32 | g_rand_int(rand)) >> 1) % end;
}

static void check_searches(const Model *m, GRand *rand)
{
    int64_t start = random_below(rand, m->size + 2);
    int64_t count = random_below(rand, m->size + 2);
    int64_t max = 1 + random_below(rand, m->size + 1);
    int64_t end = start + count;
    int64_t dirty = model_next(m, start, end, 1);
    int64_t area_start = -7, area_count = -7, clean;

    CHECK(hbitmap_next_dirty(m->hb, start, count) == dirty);
    CHECK(hbitmap_next_zero(m->hb, start, count) ==
          model_next(m, start, end, 0));
    CHECK(hbitmap_next_dirty(m->hb, start, INT64_MAX) ==
          model_next(m, start, m->size, 1));
    CHECK(hbitmap_next_dirty_area(m->hb, start, end, max, &area_start,
                                  &area_count) == (dirty >= 0));
    if (dirty < 0) {
        CHECK(area_start == -7 && area_count == -7);
    } else {
        clean = model_next(m, dirty, end, 0);
        clean = clean < 0 ? MIN(end, m->size) : clean;
        CHECK(area_start == dirty);
        CHECK(area_count == MIN(clean - dirty, max));
    }
    if (start < m->size) {
        bool state = m->dirty[start >> m->granularity];
        int64_t same, change;

        CHECK(hbitmap_get(m->hb, start) == state);
        count = 1 + random_below(rand, m->size - start);
        change = model_next(m, start, start + count, !state);
        CHECK(hbitmap_status(m->hb, start, count, &same) == state);
        CHECK(same == (change < 0 ? count : change - start));
    }
}

/* One change: a range somewhere, mostly short. */
static void change(Model *m, GRand *rand)
{
    int64_t bits = model_bits(m);
    int64_t first = random_below(rand, bits);
    bool is_short = g_rand_int_range(rand, 0, 4) != 0;
    int64_t nr = random_below(rand, MIN(bits - first, is_short ? 70 : bits)) +
                 1;

    if (g_rand_boolean(rand)) {
        int64_t start = random_below(rand, m->size);
        int64_t count = MIN(nr << m->granularity, m->size - start);

        model_set(m, start, random_below(rand, count + 1));
    } else {
        model_reset(m, first, nr);
    }
}

/* Items, not bits; the granularities below make bits of them. */
static const int64_t sizes[] = {
    1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 8191, 8192, 8193,
    64 * 4096 - 1, 64 * 4096, 64 * 4096 + 1,
};

START_TEST(random_operations_agree_with_an_array)
{
    static const int granularities[] = { 0, 1, 4, 9 };
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int64_t size = sizes[_i];

    for (size_t g = 0; g < G_N_ELEMENTS(granularities); g++) {
        int rounds = size > 10000 ? 60 : 300;

        model_init(&model, size, granularities[g]);
        check_all(&model);
        for (int round = 0; round < rounds; round++) {
            change(&model, rand);
            check_searches(&model, rand);
            check_searches(&model, rand);
            if (round % 10 == 0) {
                check_all(&model);
            }
        }
        model_set(&model, 0, size);
        check_all(&model);
        CHECK(hbitmap_count(model.hb) == size);
        hbitmap_reset_all(model.hb);
        memset(model.dirty, 0, sizeof(model.dirty));
        check_all(&model);
        hbitmap_free(model.hb);
    }
}
END_TEST

START_TEST(an_empty_bitmap_has_nothing_and_can_grow)
{
    int64_t start, count;

    model_init(&model, 0, 16);
    check_all(&model);
    ck_assert_int_eq(hbitmap_next_dirty(model.hb, 0, INT64_MAX), -1);
    ck_assert_int_eq(hbitmap_next_zero(model.hb, 0, INT64_MAX), -1);
    ck_assert(!hbitmap_next_dirty_area(model.hb, 0, INT64_MAX, 1, &start,
                                       &count));
    hbitmap_set(model.hb, 0, 0);
    hbitmap_reset(model.hb, 0, 0);
    model.size = 65537;
    ck_assert_int_eq(hbitmap_truncate(model.hb, model.size), 0);
    model_set(&model, 65536, 1);
    check_all(&model);
    ck_assert_int_eq(hbitmap_count(model.hb), 1);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(items_up_to_int64_max_are_counted_without_overflow)
{
    int64_t start, count;

    model_init(&model, INT64_MAX, HBITMAP_GRANULARITY_MAX);
    model_set(&model, 0, INT64_MAX);
    check_all(&model);
    ck_assert_int_eq(hbitmap_count(model.hb), INT64_MAX);
    ck_assert(hbitmap_next_dirty_area(model.hb, 5, INT64_MAX, INT64_MAX,
                                      &start, &count));
    ck_assert_int_eq(start, 5);
    ck_assert_int_eq(count, INT64_MAX - 5);
    ck_assert_int_eq(hbitmap_next_dirty(model.hb, INT64_MAX - 1, INT64_MAX),
                     INT64_MAX - 1);
    ck_assert_int_eq(hbitmap_next_dirty(model.hb, INT64_MAX, 1), -1);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(a_size_that_takes_too_much_memory_is_refused)
{
    HBitmap *hb;

    ck_assert_ptr_null(hbitmap_new(INT64_MAX, 0));
    ck_assert_ptr_null(hbitmap_new(HBITMAP_BITS_MAX * 2 + 1, 1));
    hb = hbitmap_new(1000, 3);
    hbitmap_set(hb, 999, 1);
    ck_assert_int_eq(hbitmap_truncate(hb, INT64_MAX), -EFBIG);
    ck_assert_int_eq(hbitmap_size(hb), 1000);
    ck_assert(hbitmap_get(hb, 999));
    hbitmap_free(hb);
}
END_TEST

START_TEST(truncation_forgets_the_tail_and_adds_clean_items)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int granularity = _i % 4;

    model_init(&model, sizes[_i % G_N_ELEMENTS(sizes)], granularity);
    for (int round = 0; round < 60; round++) {
        int64_t old_bits = model_bits(&model);
        int64_t size = sizes[g_rand_int_range(rand, 0, G_N_ELEMENTS(sizes))] +
                       g_rand_int_range(rand, -1, 2);

        for (int i = 0; i < 5 && model.size > 0; i++) {
            change(&model, rand);
        }
        ck_assert_int_eq(hbitmap_truncate(model.hb, size), 0);
        model.size = size;
        if (model_bits(&model) < old_bits) {
            memset(model.dirty + model_bits(&model), 0,
                   old_bits - model_bits(&model));
        }
        check_all(&model);
        check_searches(&model, rand);
    }
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(a_merge_is_the_union_rounded_outwards)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int64_t size = sizes[_i];

    for (int pair = 0; pair < 9; pair++) {
        model_init(&model, size, pair / 3 * 3);
        model_init(&other, size, pair % 3 * 3);
        for (int i = 0; i < 10; i++) {
            change(&model, rand);
            change(&other, rand);
        }
        hbitmap_merge(model.hb, other.hb);
        for (int64_t bit = 0; bit < model_bits(&other); bit++) {
            int64_t start = bit << other.granularity;
            int64_t end = MIN((bit + 1) << other.granularity, size);

            if (other.dirty[bit]) {
                memset(model.dirty + (start >> model.granularity), 1,
                       ((end - 1) >> model.granularity) + 1 -
                           (start >> model.granularity));
            }
        }
        check_all(&model);
        check_all(&other);
        hbitmap_free(model.hb);
        hbitmap_free(other.hb);
    }
}
END_TEST

START_TEST(a_walk_sees_the_bits_as_they_are_when_it_comes_there)
{
    HBitmap *hb = hbitmap_new(10000, 2);
    HBitmapIter iter;

    hbitmap_set(hb, 0, 1);
    hbitmap_set(hb, 400, 9);        /* granules 100, 101, 102 */
    hbitmap_set(hb, 9999, 1);
    hbitmap_iter_init(&iter, hb, 2);
    ck_assert_int_eq(hbitmap_iter_next(&iter), 2);
    ck_assert_int_eq(hbitmap_iter_next(&iter), 400);
    hbitmap_reset(hb, 404, 4);      /* the next one goes */
    hbitmap_set(hb, 4, 4);          /* behind */
    hbitmap_set(hb, 5000, 1);       /* ahead, in an empty word */
    ck_assert_int_eq(hbitmap_iter_next(&iter), 408);
    ck_assert_int_eq(hbitmap_iter_next(&iter), 5000);
    ck_assert_int_eq(hbitmap_iter_next(&iter), 9996);
    ck_assert_int_eq(hbitmap_iter_next(&iter), -1);
    ck_assert_int_eq(hbitmap_iter_next(&iter), -1);
    hbitmap_iter_init(&iter, hb, 5001);
    ck_assert_int_eq(hbitmap_truncate(hb, 5002), 0);
    ck_assert_int_eq(hbitmap_iter_next(&iter), 5001);
    ck_assert_int_eq(hbitmap_iter_next(&iter), -1);
    hbitmap_free(hb);
}
END_TEST

START_TEST(a_walk_while_others_write_misses_no_bit_that_stays)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);
    HBitmapIter iter;
    int64_t previous = -1, item;

    model_init(&model, 64 * 4096 + 1, 0);
    for (int i = 0; i < 200; i++) {
        change(&model, rand);
    }
    hbitmap_iter_init(&iter, model.hb, 0);
    while ((item = hbitmap_iter_next(&iter)) >= 0) {
        /* All between the last answer and this one is clean now. */
        CHECK(model_next(&model, previous + 1, model.size, 1) == item);
        previous = item;
        if (g_rand_int_range(rand, 0, 100) == 0) {
            change(&model, rand);
        }
    }
    CHECK(model_next(&model, previous + 1, model.size, 1) == -1);
    hbitmap_free(model.hb);
}
END_TEST

/* --- serialization -------------------------------------------------------- */

START_TEST(parts_come_back_as_they_were_in_any_order)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int64_t size = sizes[_i];
    int granularity = _i % 3;
    HBitmap *copy = hbitmap_new(size, granularity);
    int64_t align = hbitmap_serialization_align(copy);
    int64_t step = align * g_rand_int_range(rand, 1, 5);
    g_autofree char *digest = NULL, *copied = NULL;
    HBitmap *source;

    model_init(&model, size, granularity);
    for (int i = 0; i < 30; i++) {
        change(&model, rand);
    }
    source = model.hb;
    hbitmap_set(copy, 0, size);     /* what was there must not shine through */
    for (int64_t at = (size - 1) / step * step; at >= 0; at -= step) {
        int64_t count = MIN(step, size - at);
        size_t bytes = hbitmap_serialization_size(source, at, count);
        char *buf = g_malloc(bytes + 2);

        buf[0] = buf[bytes + 1] = 'g';
        hbitmap_serialize_part(source, buf + 1, at, count);
        ck_assert(buf[0] == 'g' && buf[bytes + 1] == 'g');
        hbitmap_deserialize_part(copy, buf + 1, at, count);
        g_free(buf);
    }
    hbitmap_deserialize_finish(copy);
    digest = hbitmap_sha256(source);
    copied = hbitmap_sha256(copy);
    ck_assert_str_eq(digest, copied);
    model.hb = copy;
    check_all(&model);
    hbitmap_free(copy);
    hbitmap_free(source);
}
END_TEST

START_TEST(serialized_words_are_little_endian)
{
    static const unsigned char expected[16] = { 0x05, [7] = 0x80, [8] = 0x02 };
    unsigned char buf[16];
    HBitmap *hb = hbitmap_new(100 * 8, 3);

    hbitmap_set(hb, 0, 1);
    hbitmap_set(hb, 2 * 8, 1);
    hbitmap_set(hb, 63 * 8 + 7, 1);
    hbitmap_set(hb, 65 * 8, 8);
    ck_assert_uint_eq(hbitmap_serialization_size(hb, 0, 800), sizeof(buf));
    ck_assert_uint_eq(hbitmap_serialization_size(hb, 512, 288), 8);
    ck_assert_uint_eq(hbitmap_serialization_size(hb, 512, 0), 0);
    hbitmap_serialize_part(hb, buf, 0, 800);
    ck_assert_mem_eq(buf, expected, sizeof(buf));
    hbitmap_free(hb);
}
END_TEST

START_TEST(stored_bits_past_the_end_are_ignored)
{
    unsigned char buf[16];

    memset(buf, 0xff, sizeof(buf));
    model_init(&model, 70, 0);
    hbitmap_deserialize_part(model.hb, buf, 0, 70);
    hbitmap_deserialize_finish(model.hb);
    memset(model.dirty, 1, 70);
    check_all(&model);
    hbitmap_deserialize_zeroes(model.hb, 0, 64);
    hbitmap_deserialize_ones(model.hb, 64, 6);
    hbitmap_deserialize_finish(model.hb);
    memset(model.dirty, 0, 64);
    check_all(&model);
    ck_assert_int_eq(hbitmap_truncate(model.hb, 128), 0);
    model.size = 128;
    check_all(&model);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(the_digest_is_of_the_bits)
{
    HBitmap *hb = hbitmap_new(1 << 20, 3);
    g_autofree char *empty = hbitmap_sha256(hb), *one = NULL, *again = NULL;

    /* sha256sum of 16 KiB of zeroes */
    ck_assert_str_eq(empty, "4fe7b59af6de3b665b67788cc2f99892"
                            "ab827efae3a467342b3bb4e3bc8e5bfe");
    hbitmap_set(hb, (1 << 20) - 1, 1);
    one = hbitmap_sha256(hb);
    ck_assert_str_ne(one, empty);
    hbitmap_reset_all(hb);
    again = hbitmap_sha256(hb);
    ck_assert_str_eq(again, empty);
    hbitmap_free(hb);
}
END_TEST

/* --- memory --------------------------------------------------------------- */

START_TEST(growth_by_small_steps_copies_rarely_and_loses_nothing)
{
    const uint64_t *words;
    unsigned moves = 0;

    model_init(&model, 1, 0);
    model_set(&model, 0, 1);
    words = model.hb->levels[0].words;
    while (model.size < 200000) {
        int64_t size = model.size + 97;

        ck_assert_int_eq(hbitmap_truncate(model.hb, size), 0);
        model.size = size;
        model_set(&model, size - 1, 1);
        moves += words != model.hb->levels[0].words;
        words = model.hb->levels[0].words;
    }
    check_all(&model);
    ck_assert_uint_lt(moves, 120);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(what_was_reserved_is_there_and_shows_nothing)
{
    const uint64_t *words;

    model_init(&model, 100, 0);
    model_set(&model, 99, 1);
    ck_assert_int_eq(hbitmap_reserve(model.hb, 300000), 0);
    check_all(&model);
    words = model.hb->levels[0].words;
    ck_assert_int_eq(hbitmap_reserve(model.hb, 50), 0);
    ck_assert_int_eq(hbitmap_truncate(model.hb, 300000), 0);
    ck_assert_ptr_eq(words, model.hb->levels[0].words);
    model.size = 300000;
    check_all(&model);
    model_set(&model, 299999, 1);
    check_all(&model);
    ck_assert_int_eq(hbitmap_reserve(model.hb, INT64_MAX), -EFBIG);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(a_clone_has_the_bits_and_goes_its_own_way)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    HBitmap *original;

    model_init(&model, 64 * 4096 + 1, 0);
    for (int i = 0; i < 50; i++) {
        change(&model, rand);
    }
    original = model.hb;
    model.hb = hbitmap_clone(original);
    check_all(&model);
    hbitmap_reset_all(original);
    check_all(&model);
    hbitmap_free(original);
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(a_look_without_the_lock_is_true_or_careful)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int granularity = _i % 4;
    HBitmapPeek peek;

    model_init(&model, 20000 + _i, granularity);
    peek = hbitmap_peek(model.hb);
    for (int round = 0; round < 2000; round++) {
        int64_t start = random_below(rand, model.size);
        int64_t count = 1 + random_below(rand, 3000);
        int64_t end = start + count;
        bool dirty = end <= model.size &&
                     model_next(&model, start, end, 0) < 0;
        int64_t bits = ((end - 1) >> granularity) - (start >> granularity);

        CHECK(hbitmap_peek_is_dirty(&peek, start, count) ==
              (dirty && bits < HBITMAP_PEEK_BITS));
        change(&model, rand);
    }
    CHECK(!hbitmap_peek_is_dirty(&peek, INT64_MAX, INT64_MAX));
    hbitmap_free(model.hb);
}
END_TEST

START_TEST(a_part_is_merged_from_bytes_into_what_is_there)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);
    int64_t size = sizes[_i];
    unsigned char *buf;
    size_t bytes;

    model_init(&model, size, 0);
    model_init(&other, size, 0);
    for (int i = 0; i < 10; i++) {
        change(&model, rand);
        change(&other, rand);
    }
    bytes = hbitmap_serialization_size(other.hb, 0, size);
    buf = g_malloc(bytes);
    hbitmap_serialize_part(other.hb, buf, 0, size);
    if (size % 64) {
        buf[bytes - 1] |= 0x80; /* past the end */
    }
    hbitmap_merge_part(model.hb, buf, 0, size);
    for (int64_t i = 0; i < size; i++) {
        model.dirty[i] |= other.dirty[i];
    }
    check_all(&model);
    g_free(buf);
    hbitmap_free(model.hb);
    hbitmap_free(other.hb);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hbitmap");
    TCase *tcase = tcase_create("hbitmap");
    int nr_sizes = G_N_ELEMENTS(sizes);

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, random_operations_agree_with_an_array, 0,
                        nr_sizes);
    PROMISE(tcase, an_empty_bitmap_has_nothing_and_can_grow);
    PROMISE(tcase, items_up_to_int64_max_are_counted_without_overflow);
    PROMISE(tcase, a_size_that_takes_too_much_memory_is_refused);
    tcase_add_loop_test(tcase, truncation_forgets_the_tail_and_adds_clean_items,
                        0, 2 * nr_sizes);
    tcase_add_loop_test(tcase, a_merge_is_the_union_rounded_outwards, 0,
                        nr_sizes);
    PROMISE(tcase, a_walk_sees_the_bits_as_they_are_when_it_comes_there);
    PROMISE(tcase, a_walk_while_others_write_misses_no_bit_that_stays);
    tcase_add_loop_test(tcase, parts_come_back_as_they_were_in_any_order, 0,
                        nr_sizes);
    PROMISE(tcase, serialized_words_are_little_endian);
    PROMISE(tcase, stored_bits_past_the_end_are_ignored);
    PROMISE(tcase, the_digest_is_of_the_bits);
    PROMISE(tcase, growth_by_small_steps_copies_rarely_and_loses_nothing);
    PROMISE(tcase, what_was_reserved_is_there_and_shows_nothing);
    PROMISE(tcase, a_clone_has_the_bits_and_goes_its_own_way);
    tcase_add_loop_test(tcase, a_look_without_the_lock_is_true_or_careful, 0,
                        8);
    tcase_add_loop_test(tcase, a_part_is_merged_from_bytes_into_what_is_there,
                        0, nr_sizes);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
