/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers that are used again: which requests get one, and when they go.
 */
#include "check-main.h"

#include "util/spare-buffers.h"

#include <stdint.h>
#include <string.h>

static SpareBuffers buffers;

static void *take(size_t alignment, int64_t bytes)
{
    void *buf = spare_buffers_alloc(&buffers, alignment, bytes);

    ck_assert_ptr_nonnull(buf);
    ck_assert_uint_eq((uintptr_t)buf % alignment, 0);
    memset(buf, 'b', bytes);
    return buf;
}

START_TEST(a_buffer_is_used_again_while_another_is_in_use)
{
    void *first, *second;

    spare_buffers_init(&buffers);
    first = take(512, SPARE_BUFFER_BYTES);
    second = take(4096, SPARE_BUFFER_BYTES / 2);
    spare_buffers_free(&buffers, second, 4096, SPARE_BUFFER_BYTES / 2);
    ck_assert_ptr_eq(take(1, SPARE_BUFFER_BYTES), second);
    ck_assert_uint_eq(buffers.in_use, 2);
    spare_buffers_free(&buffers, second, 1, SPARE_BUFFER_BYTES);
    spare_buffers_free(&buffers, first, 512, SPARE_BUFFER_BYTES);
    ck_assert_uint_eq(buffers.in_use, 0);
    ck_assert_ptr_null(buffers.spare);
}
END_TEST

/* Larger and smaller ones, and those aligned to more. */
START_TEST(what_suits_no_buffer_has_memory_of_its_own)
{
    static const struct {
        size_t alignment;
        int64_t bytes;
    } rows[] = {
        { 4096, SPARE_BUFFER_BYTES + 1 }, { 4096, SPARE_BUFFER_BYTES / 4 },
        { 8192, SPARE_BUFFER_BYTES }, { 512, 1 },
    };

    spare_buffers_init(&buffers);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        void *buf = take(rows[i].alignment, rows[i].bytes);

        ck_assert_uint_eq(buffers.in_use, 0);
        spare_buffers_free(&buffers, buf, rows[i].alignment, rows[i].bytes);
    }
}
END_TEST

START_TEST(nothing_can_be_given_back_whatever_was_asked_for)
{
    spare_buffers_init(&buffers);
    spare_buffers_free(&buffers, NULL, 4096, SPARE_BUFFER_BYTES + 1);
    spare_buffers_free(&buffers, NULL, 4096, SPARE_BUFFER_BYTES);
    ck_assert_uint_eq(buffers.in_use, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spare-buffers");
    TCase *tcase = tcase_create("spare-buffers");

    suite_add_tcase(suite, tcase);
    PROMISE(tcase, a_buffer_is_used_again_while_another_is_in_use);
    PROMISE(tcase, what_suits_no_buffer_has_memory_of_its_own);
    PROMISE(tcase, nothing_can_be_given_back_whatever_was_asked_for);
    return check_main(suite);
}
