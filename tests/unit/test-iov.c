/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Vectors: every operation on a part of a vector touches that part and no
 * byte more.  A fixture is an array of pieces that lie scattered in an arena
 * of guard bytes; a flat array says what the vector should hold.
 */
#include "check-main.h"

#include <blockgraph/iov.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_BYTES 65536
#define GUARD 0xa5
#define PIECES_MAX 40
#define ROUNDS 1000

/* ck_assert() reports each success to the parent: too slow for inner loops. */
#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            ck_abort_msg("failed: " #condition);                              \
        }                                                                     \
    } while (0)

typedef struct Scatter {
    unsigned char arena[ARENA_BYTES];
    struct iovec pieces[PIECES_MAX];
    BlockIOVec vec;
    int owner[ARENA_BYTES];     /* position in the vector, -1 for a guard */
} Scatter;

static Scatter scatter;

/* A vector of up to PIECES_MAX pieces, some empty, guards between them. */
static void scatter_init(Scatter *s, GRand *rand)
{
    int niov = g_rand_int_range(rand, 0, PIECES_MAX + 1);
    size_t at = 16;
    int position = 0;

    memset(s->arena, GUARD, sizeof(s->arena));
    for (size_t i = 0; i < ARENA_BYTES; i++) {
        s->owner[i] = -1;
    }
    for (int i = 0; i < niov; i++) {
        bool empty = g_rand_int_range(rand, 0, 5) == 0;
        size_t len = empty ? 0 : g_rand_int_range(rand, 1, 700);

        s->pieces[i].iov_base = s->arena + at;
        s->pieces[i].iov_len = len;
        for (size_t j = 0; j < len; j++) {
            s->owner[at + j] = position++;
        }
        at += len + g_rand_int_range(rand, 1, 40);
    }
    ck_assert_uint_lt(at, ARENA_BYTES);
    block_iov_init_external(&s->vec, s->pieces, niov);
    ck_assert_uint_eq(s->vec.size, position);
}

/* Each byte of the vector is as in @model, each other byte is a guard. */
static void scatter_check(const Scatter *s, const unsigned char *model)
{
    for (size_t i = 0; i < ARENA_BYTES; i++) {
        int expected = s->owner[i] < 0 ? GUARD : model[s->owner[i]];

        if (s->arena[i] != expected) {
            ck_abort_msg("byte %zu (%d in the vector) is %d, not %d", i,
                         s->owner[i], s->arena[i], expected);
        }
    }
}

static void random_range(GRand *rand, size_t size, size_t *offset,
                         size_t *bytes)
{
    *offset = g_rand_int_range(rand, 0, size + 1);
    *bytes = g_rand_int_range(rand, 0, size - *offset + 1);
}

static void fill_random(GRand *rand, unsigned char *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = g_rand_int(rand);
    }
}

START_TEST(writes_into_a_part_touch_no_other_byte)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(78);
    static unsigned char model[ARENA_BYTES], data[ARENA_BYTES];

    for (int round = 0; round < ROUNDS / 4; round++) {
        scatter_init(&scatter, rand);
        fill_random(rand, model, scatter.vec.size);
        block_iov_from_buf(&scatter.vec, 0, model, scatter.vec.size);
        scatter_check(&scatter, model);

        for (int i = 0; i < 4; i++) {
            size_t offset, bytes;

            random_range(rand, scatter.vec.size, &offset, &bytes);
            if (i & 1) {
                fill_random(rand, data, bytes);
                block_iov_from_buf(&scatter.vec, offset, data, bytes);
                memcpy(model + offset, data, bytes);
            } else {
                block_iov_memset(&scatter.vec, offset, i, bytes);
                memset(model + offset, i, bytes);
            }
            scatter_check(&scatter, model);
        }
    }
}
END_TEST

START_TEST(reads_of_a_part_fill_the_buffer_and_no_more)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(79);
    static unsigned char model[ARENA_BYTES], data[ARENA_BYTES];

    for (int round = 0; round < ROUNDS; round++) {
        size_t offset, bytes;

        scatter_init(&scatter, rand);
        fill_random(rand, model, scatter.vec.size);
        block_iov_from_buf(&scatter.vec, 0, model, scatter.vec.size);
        random_range(rand, scatter.vec.size, &offset, &bytes);
        memset(data, GUARD, sizeof(data));
        block_iov_to_buf(&scatter.vec, offset, data + 8, bytes);
        ck_assert_mem_eq(data + 8, model + offset, bytes);
        for (int i = 0; i < 8; i++) {
            CHECK(data[i] == GUARD);
            CHECK(data[8 + bytes + i] == GUARD);
        }
    }
}
END_TEST

START_TEST(a_slice_of_a_slice_is_the_same_memory)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(80);
    static unsigned char model[ARENA_BYTES];

    for (int round = 0; round < ROUNDS / 4; round++) {
        BlockIOVecSlice outer, inner;
        size_t offset, bytes, offset2, bytes2;

        scatter_init(&scatter, rand);
        fill_random(rand, model, scatter.vec.size);
        block_iov_from_buf(&scatter.vec, 0, model, scatter.vec.size);

        random_range(rand, scatter.vec.size, &offset, &bytes);
        block_iov_slice(&outer, &scatter.vec, offset, bytes);
        ck_assert_uint_eq(outer.vec.size, bytes);
        random_range(rand, bytes, &offset2, &bytes2);
        block_iov_slice(&inner, &outer.vec, offset2, bytes2);
        ck_assert_uint_eq(inner.vec.size, bytes2);
        for (int i = 0; i < inner.vec.niov; i++) {
            CHECK(inner.vec.iov[i].iov_len > 0);
        }
        ck_assert(bytes2 > 0 || inner.vec.niov == 0);

        block_iov_memset(&inner.vec, 0, round, bytes2);
        memset(model + offset + offset2, round, bytes2);
        scatter_check(&scatter, model);
        block_iov_slice_clear(&outer);
        block_iov_slice_clear(&inner);
        ck_assert_uint_eq(inner.vec.size, 0);
    }
}
END_TEST

START_TEST(padding_stands_before_and_after_the_slice)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(81);
    static unsigned char model[ARENA_BYTES], out[ARENA_BYTES];

    for (int round = 0; round < ROUNDS; round++) {
        BlockIOVecSlice slice;
        unsigned char head_buf[64], tail_buf[64];
        struct iovec head = { head_buf, g_rand_int_range(rand, 0, 64) };
        struct iovec tail = { tail_buf, g_rand_int_range(rand, 0, 64) };
        bool has_head = g_rand_boolean(rand), has_tail = g_rand_boolean(rand);
        size_t head_bytes = has_head ? head.iov_len : 0;
        size_t tail_bytes = has_tail ? tail.iov_len : 0;
        size_t offset, bytes;

        memset(head_buf, 'h', sizeof(head_buf));
        memset(tail_buf, 't', sizeof(tail_buf));
        scatter_init(&scatter, rand);
        fill_random(rand, model, scatter.vec.size);
        block_iov_from_buf(&scatter.vec, 0, model, scatter.vec.size);
        random_range(rand, scatter.vec.size, &offset, &bytes);

        block_iov_slice_padded(&slice, has_head ? &head : NULL, &scatter.vec,
                               offset, bytes, has_tail ? &tail : NULL);
        ck_assert_uint_eq(slice.vec.size, head_bytes + bytes + tail_bytes);
        block_iov_to_buf(&slice.vec, 0, out, slice.vec.size);
        ck_assert_mem_eq(out, head_buf, head_bytes);
        ck_assert_mem_eq(out + head_bytes, model + offset, bytes);
        ck_assert_mem_eq(out + head_bytes + bytes, tail_buf, tail_bytes);
        block_iov_slice_clear(&slice);
    }
}
END_TEST

START_TEST(a_vector_of_1024_pieces_can_be_padded)
{
    enum { NIOV = 1024 };
    static char buf[NIOV];
    struct iovec pieces[NIOV];
    char pad = 'p';
    struct iovec pad_piece = { &pad, 1 };
    BlockIOVec vec;
    BlockIOVecSlice slice;

    for (int i = 0; i < NIOV; i++) {
        pieces[i] = (struct iovec) { buf + i, 1 };
    }
    block_iov_init_external(&vec, pieces, NIOV);
    block_iov_slice_padded(&slice, &pad_piece, &vec, 0, NIOV, &pad_piece);
    ck_assert_int_eq(slice.vec.niov, NIOV + 2);
    block_iov_memset(&slice.vec, 0, 'x', NIOV + 2);
    ck_assert_int_eq(buf[0], 'x');
    ck_assert_int_eq(buf[NIOV - 1], 'x');
    ck_assert_int_eq(pad, 'x');
    block_iov_slice_clear(&slice);
}
END_TEST

START_TEST(a_slice_uses_its_own_storage_up_to_its_limit)
{
    char buf[BLOCK_IOV_SLICE_INLINE + 1];
    struct iovec pieces[BLOCK_IOV_SLICE_INLINE + 1];
    BlockIOVec vec;
    BlockIOVecSlice slice;

    for (size_t i = 0; i < G_N_ELEMENTS(pieces); i++) {
        pieces[i] = (struct iovec) { buf + i, 1 };
    }
    block_iov_init_external(&vec, pieces, G_N_ELEMENTS(pieces));
    block_iov_slice(&slice, &vec, 0, BLOCK_IOV_SLICE_INLINE);
    ck_assert_ptr_eq(slice.vec.iov, slice.pieces);
    block_iov_slice_clear(&slice);
    block_iov_slice(&slice, &vec, 0, BLOCK_IOV_SLICE_INLINE + 1);
    ck_assert_ptr_ne(slice.vec.iov, slice.pieces);
    block_iov_slice_clear(&slice);
    block_iov_slice(&slice, &vec, 4, 0);
    ck_assert_int_eq(slice.vec.niov, 0);
    block_iov_slice_clear(&slice);
}
END_TEST

START_TEST(one_byte_anywhere_makes_a_buffer_not_zero)
{
    static unsigned char buf[1100];

    for (size_t bytes = 0; bytes <= 520; bytes++) {
        for (size_t start = 0; start < 17; start += 1 + start % 3) {
            /* Bytes outside the buffer do not count. */
            memset(buf, 0xff, sizeof(buf));
            memset(buf + start, 0, bytes);
            CHECK(block_buffer_is_zero(buf + start, bytes));
            for (size_t i = 0; i < bytes; i += 1 + (bytes > 300) * 2) {
                buf[start + i] = 1 << (i % 8);
                CHECK(!block_buffer_is_zero(buf + start, bytes));
                buf[start + i] = 0;
            }
        }
    }
}
END_TEST

START_TEST(the_zero_check_reads_nothing_outside_the_buffer)
{
    size_t page = sysconf(_SC_PAGESIZE);
    char *map = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_int_eq(mprotect(map, page, PROT_NONE), 0);
    ck_assert_int_eq(mprotect(map + 2 * page, page, PROT_NONE), 0);
    for (size_t bytes = 0; bytes <= page; bytes++) {
        CHECK(block_buffer_is_zero(map + page, bytes));
        CHECK(block_buffer_is_zero(map + 2 * page - bytes, bytes));
    }
    munmap(map, 3 * page);
}
END_TEST

START_TEST(zero_check_of_a_part_sees_that_part_only)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(82);

    for (int round = 0; round < ROUNDS; round++) {
        size_t offset, bytes;

        scatter_init(&scatter, rand);
        random_range(rand, scatter.vec.size, &offset, &bytes);
        block_iov_memset(&scatter.vec, 0, 1, scatter.vec.size);
        block_iov_memset(&scatter.vec, offset, 0, bytes);
        ck_assert(block_iov_is_zero(&scatter.vec, offset, bytes));
        if (offset > 0) {
            ck_assert(!block_iov_is_zero(&scatter.vec, offset - 1, bytes + 1));
        }
        if (offset + bytes < scatter.vec.size) {
            ck_assert(!block_iov_is_zero(&scatter.vec, offset, bytes + 1));
        }
    }
}
END_TEST

START_TEST(alignment_is_of_address_and_length_of_each_piece)
{
    char *buf = block_aligned_alloc(4096, 16384);
    struct iovec pieces[2] = { { buf, 4096 }, { buf + 8192, 4096 } };
    BlockIOVec vec;
    BlockIOVec1 one;

    block_iov_init_external(&vec, pieces, 2);
    ck_assert(block_iov_is_aligned(&vec, 4096));
    pieces[1].iov_base = buf + 8192 + 512;
    ck_assert(!block_iov_is_aligned(&vec, 4096));
    ck_assert(block_iov_is_aligned(&vec, 512));
    pieces[1].iov_len = 511;
    ck_assert(!block_iov_is_aligned(&vec, 512));
    ck_assert(block_iov_is_aligned(&vec, 1));
    ck_assert(!block_iov_is_aligned(block_iov_buf(&one, buf + 1, 512), 512));
    block_aligned_free(buf);
}
END_TEST

START_TEST(aligned_memory_is_aligned_or_refused)
{
    for (size_t alignment = 1; alignment <= 1 << 20; alignment *= 2) {
        for (size_t bytes = 0; bytes < 3; bytes++) {
            char *buf = block_aligned_try_alloc(alignment, bytes);

            ck_assert_ptr_nonnull(buf);
            ck_assert_uint_eq((uintptr_t)buf % alignment, 0);
            memset(buf, 1, bytes);
            block_aligned_free(buf);
        }
    }
    block_aligned_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("iov");
    TCase *tcase = tcase_create("iov");

    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, writes_into_a_part_touch_no_other_byte);
    PROMISE(tcase, reads_of_a_part_fill_the_buffer_and_no_more);
    PROMISE(tcase, a_slice_of_a_slice_is_the_same_memory);
    PROMISE(tcase, padding_stands_before_and_after_the_slice);
    PROMISE(tcase, a_vector_of_1024_pieces_can_be_padded);
    PROMISE(tcase, a_slice_uses_its_own_storage_up_to_its_limit);
    PROMISE(tcase, one_byte_anywhere_makes_a_buffer_not_zero);
    PROMISE(tcase, the_zero_check_reads_nothing_outside_the_buffer);
    PROMISE(tcase, zero_check_of_a_part_sees_that_part_only);
    PROMISE(tcase, alignment_is_of_address_and_length_of_each_piece);
    PROMISE(tcase, aligned_memory_is_aligned_or_refused);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
