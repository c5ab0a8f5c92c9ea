/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for what is staged (block/copy/stage-pool.c).
 */
#include "check-main.h"

#include "block/copy/stage-pool.h"

#include <string.h>

#define SLOT 65536

START_TEST(slots_do_not_overlap_and_end_with_the_memory)
{
    enum { SLOTS = 48 }; /* three MiB: huge pages and others */
    StagePool pool;
    uint8_t *slots[SLOTS];

    stage_pool_init(&pool, SLOT, SLOTS * SLOT + 100);
    for (int i = 0; i < SLOTS; i++) {
        slots[i] = stage_pool_get(&pool);
        ck_assert_ptr_nonnull(slots[i]);
        memset(slots[i], i, SLOT);
    }
    ck_assert_ptr_null(stage_pool_get(&pool));
    for (int i = 0; i < SLOTS; i++) {
        ck_assert_uint_eq(slots[i][0], i);
        ck_assert_int_eq(memcmp(slots[i], slots[i] + 1, SLOT - 1), 0);
        ck_assert(stage_pool_put(&pool, slots[i]));
    }
    stage_pool_destroy(&pool);
}
END_TEST

START_TEST(the_last_slot_is_used_again_first)
{
    StagePool pool;
    void *a, *b;

    stage_pool_init(&pool, SLOT, 4 * SLOT);
    a = stage_pool_get(&pool);
    b = stage_pool_get(&pool);
    ck_assert(stage_pool_put(&pool, a));
    ck_assert_ptr_eq(stage_pool_get(&pool), a);
    ck_assert(stage_pool_put(&pool, a));
    ck_assert(stage_pool_put(&pool, b));
    ck_assert_ptr_eq(stage_pool_get(&pool), b);
    ck_assert(stage_pool_put(&pool, b));
    stage_pool_destroy(&pool);
}
END_TEST

START_TEST(other_memory_is_not_taken)
{
    StagePool pool, none;
    int other;

    stage_pool_init(&pool, SLOT, SLOT);
    ck_assert(!stage_pool_put(&pool, &other));
    ck_assert(!stage_pool_put(&pool, NULL));
    stage_pool_destroy(&pool);
    stage_pool_init(&none, SLOT, SLOT - 1);
    ck_assert_ptr_null(stage_pool_get(&none));
    ck_assert(!stage_pool_put(&none, &other));
    stage_pool_destroy(&none);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stage-pool");
    TCase *tcase = tcase_create("stage-pool");

    PROMISE(tcase, slots_do_not_overlap_and_end_with_the_memory);
    PROMISE(tcase, the_last_slot_is_used_again_first);
    PROMISE(tcase, other_memory_is_not_taken);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
