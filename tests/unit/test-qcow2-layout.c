/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check-main.h"

#include <string.h>

#include "block/formats/qcow2/refcount.h"

/* Numbers that look random, the same in each run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static Qcow2Geometry geometry(unsigned cluster_bits, bool extended)
{
    Qcow2Geometry geo;

    qcow2_geometry_init(&geo, cluster_bits, 4, extended);
    return geo;
}

static Qcow2Kind kind(const Qcow2Geometry *geo, uint64_t word,
                      uint64_t bitmap, unsigned sc)
{
    return qcow2_l2_kind(geo, (Qcow2L2Entry){ word, bitmap }, sc);
}

START_TEST(geometry_follows_from_cluster_and_refcount_sizes)
{
    for (unsigned bits = QCOW2_MIN_CLUSTER_BITS;
         bits <= QCOW2_MAX_CLUSTER_BITS; bits++) {
        for (unsigned order = 0; order <= QCOW2_MAX_REFCOUNT_ORDER; order++) {
            Qcow2Geometry geo;

            qcow2_geometry_init(&geo, bits, order, false);
            ck_assert_int_eq(geo.cluster_bytes, INT64_C(1) << bits);
            ck_assert_int_eq((INT64_C(1) << geo.l2_bits) * geo.l2_entry_bytes,
                             geo.cluster_bytes);
            ck_assert_int_eq((INT64_C(1) << geo.refblock_bits) << order,
                             geo.cluster_bytes * 8);
            ck_assert_int_eq(geo.subcluster_bytes, geo.cluster_bytes);
        }
        if (bits >= 14) {
            Qcow2Geometry geo = geometry(bits, true);

            ck_assert_int_eq((INT64_C(1) << geo.l2_bits) * 16,
                             geo.cluster_bytes);
            ck_assert_int_eq(geo.subcluster_bytes * 32, geo.cluster_bytes);
        }
    }
}
END_TEST

START_TEST(a_refcount_keeps_its_value_and_its_neighbours_R22)
{
    uint8_t block[512];
    uint64_t state = 4711;

    for (unsigned order = 0; order <= 6; order++) {
        unsigned nr = sizeof(block) * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX
                                  : (UINT64_C(1) << (1u << order)) - 1;
        g_autofree uint64_t *model = g_new0(uint64_t, nr);

        memset(block, 0, sizeof(block));
        for (unsigned i = 0; i < 4 * nr; i++) {
            uint64_t index = next_random(&state) % nr;

            model[index] = next_random(&state) & max;
            qcow2_refcount_put(block, order, index, model[index]);
        }
        for (unsigned i = 0; i < nr; i++) {
            ck_assert(untrusted_is(qcow2_refcount_at(block, order, i),
                                   model[i]));
        }
    }
}
END_TEST

START_TEST(narrow_refcounts_begin_at_the_least_significant_bit_R22)
{
    uint8_t block[8] = { 0 };

    qcow2_refcount_put(block, 0, 0, 1);
    qcow2_refcount_put(block, 0, 9, 1);
    ck_assert_uint_eq(block[0], 0x01);
    ck_assert_uint_eq(block[1], 0x02);
    memset(block, 0, sizeof(block));
    qcow2_refcount_put(block, 1, 1, 3);
    ck_assert_uint_eq(block[0], 0x0c);
    memset(block, 0, sizeof(block));
    qcow2_refcount_put(block, 2, 1, 0xa);
    qcow2_refcount_put(block, 2, 2, 0x5);
    ck_assert_uint_eq(block[0], 0xa0);
    ck_assert_uint_eq(block[1], 0x05);
    memset(block, 0, sizeof(block));
    qcow2_refcount_put(block, 4, 1, 0x1234);
    ck_assert_uint_eq(block[2], 0x12);
    ck_assert_uint_eq(block[3], 0x34);
}
END_TEST

START_TEST(a_compressed_descriptor_keeps_what_it_is_given_R62)
{
    uint64_t state = 99;

    for (unsigned bits = 9; bits <= 21; bits++) {
        Qcow2Geometry geo = geometry(bits, false);
        int64_t max_offset = MIN((int64_t)geo.coffset_mask,
                                 QCOW2_MAX_HOST_OFFSET);

        for (int i = 0; i < 2000; i++) {
            int64_t host = next_random(&state) & max_offset;
            int64_t bytes = next_random(&state) % geo.cluster_bytes + 1;
            Qcow2Compressed where;
            uint64_t word;

            if (i == 0) {
                host = max_offset; /* every bit of the field */
            }
            word = qcow2_compressed_encode(&geo, host, bytes);
            where = qcow2_compressed_decode(&geo, word);
            ck_assert_int_eq(where.host_offset, host);
            ck_assert_int_ge(where.bytes, bytes);
            ck_assert_int_lt(where.bytes - bytes, 512);
            ck_assert_int_eq((where.host_offset + where.bytes) % 512, 0);
            ck_assert_uint_eq(word & QCOW2_OFLAG_COPIED, 0);
            ck_assert_int_eq(kind(&geo, word, 0, 0), QCOW2_COMPRESSED);
            /* The way back: any descriptor is the encoding of what it says. */
            ck_assert(where.bytes > geo.cluster_bytes ||
                      qcow2_compressed_encode(&geo, host, where.bytes) ==
                          word);
        }
    }
}
END_TEST

START_TEST(a_compressed_offset_above_56_bits_is_invalid_R62)
{
    Qcow2Geometry geo = geometry(9, false);

    ck_assert_uint_gt(geo.coffset_mask, QCOW2_MAX_HOST_OFFSET);
    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COMPRESSED | UINT64_C(1) << 56, 0,
                          0),
                     QCOW2_INVALID);
    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COMPRESSED | UINT64_C(1) << 55, 0,
                          0),
                     QCOW2_COMPRESSED);
}
END_TEST

START_TEST(standard_entries_have_five_kinds)
{
    Qcow2Geometry geo = geometry(16, false);

    ck_assert_int_eq(kind(&geo, 0, 0, 0), QCOW2_UNALLOCATED);
    ck_assert_int_eq(kind(&geo, 1, 0, 0), QCOW2_ZERO_PLAIN);
    ck_assert_int_eq(kind(&geo, 0x50000, 0, 0), QCOW2_NORMAL);
    ck_assert_int_eq(kind(&geo, 0x50000 | QCOW2_OFLAG_COPIED, 0, 0),
                     QCOW2_NORMAL);
    ck_assert_int_eq(kind(&geo, 0x50001, 0, 0), QCOW2_ZERO_ALLOC);
    ck_assert_int_eq(kind(&geo, 0x50200, 0, 0), QCOW2_INVALID);
    for (unsigned bit = 1; bit < 62; bit++) {
        uint64_t word = 0x50000 | UINT64_C(1) << bit;
        bool reserved = bit < 9 || bit > 55;

        if (reserved) {
            ck_assert_int_eq(kind(&geo, word, 0, 0), QCOW2_INVALID);
        }
    }
}
END_TEST

START_TEST(offset_zero_holds_data_only_in_a_data_file)
{
    Qcow2Geometry geo = geometry(16, false);

    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COPIED, 0, 0), QCOW2_UNALLOCATED);
    geo.external_data = true;
    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COPIED, 0, 0), QCOW2_NORMAL);
    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COPIED | 1, 0, 0),
                     QCOW2_ZERO_ALLOC);
    ck_assert_int_eq(kind(&geo, 0, 0, 0), QCOW2_UNALLOCATED);
}
END_TEST

START_TEST(subclusters_have_kinds_of_their_own)
{
    Qcow2Geometry geo = geometry(16, true);
    uint64_t bitmap = 1 | UINT64_C(1) << 33;

    ck_assert_int_eq(kind(&geo, 0x50000, bitmap, 0), QCOW2_NORMAL);
    ck_assert_int_eq(kind(&geo, 0x50000, bitmap, 1), QCOW2_ZERO_ALLOC);
    ck_assert_int_eq(kind(&geo, 0x50000, bitmap, 2), QCOW2_UNALLOCATED_ALLOC);
    ck_assert_int_eq(kind(&geo, 0x50000, UINT64_C(1) << 31, 31),
                     QCOW2_NORMAL);
    ck_assert_int_eq(kind(&geo, 0, UINT64_C(1) << 63, 31), QCOW2_ZERO_PLAIN);
    ck_assert_int_eq(kind(&geo, 0, UINT64_C(1) << 63, 30), QCOW2_UNALLOCATED);
}
END_TEST

START_TEST(extended_entries_that_contradict_themselves_are_invalid)
{
    Qcow2Geometry geo = geometry(16, true);

    /* Allocated and zero at once; also when another subcluster is asked for. */
    ck_assert_int_eq(kind(&geo, 0x50000, 1 | UINT64_C(1) << 32, 0),
                     QCOW2_INVALID);
    ck_assert_int_eq(kind(&geo, 0x50000, 1 | UINT64_C(1) << 32, 7),
                     QCOW2_INVALID);
    /* Allocated, but nowhere. */
    ck_assert_int_eq(kind(&geo, 0, 1, 0), QCOW2_INVALID);
    /* A compressed cluster has no subclusters. */
    ck_assert_int_eq(kind(&geo, QCOW2_OFLAG_COMPRESSED | 0x50000, 1, 0),
                     QCOW2_INVALID);
    /* The zero flag of standard entries is reserved. */
    ck_assert_int_eq(kind(&geo, 0x50001, 0, 0), QCOW2_INVALID);
}
END_TEST

START_TEST(the_l1_table_always_covers_the_size_R13)
{
    uint64_t state = 7;

    for (unsigned bits = 9; bits <= 21; bits++) {
        for (int extended = 0; extended < 2; extended++) {
            Qcow2Geometry geo = geometry(bits, extended && bits >= 14);
            int64_t cover = INT64_C(1) << (geo.cluster_bits + geo.l2_bits);
            int64_t max = qcow2_max_size(&geo);

            ck_assert_int_eq(qcow2_l1_entries(&geo, 0), 0);
            ck_assert_int_eq(qcow2_l1_entries(&geo, 1), 1);
            ck_assert_int_eq(qcow2_l1_entries(&geo, cover), 1);
            ck_assert_int_eq(qcow2_l1_entries(&geo, cover + 1), 2);
            ck_assert_int_le(qcow2_l1_entries(&geo, max) * 8,
                             QCOW2_MAX_L1_BYTES);
            ck_assert_int_gt(qcow2_l1_entries(&geo, INT64_MAX), 0);
            for (int i = 0; i < 1000; i++) {
                int64_t size = next_random(&state) % max;
                int64_t nr = qcow2_l1_entries(&geo, size);

                ck_assert_int_le(size - (nr ? (nr - 1) * cover : 0), cover);
                ck_assert(nr == 0 || size > (nr - 1) * cover);
            }
        }
    }
}
END_TEST

START_TEST(r12_every_kind_has_a_name)
{
    for (unsigned kind = 1; kind < QCOW2_OL_ALL; kind <<= 1) {
        ck_assert_ptr_nonnull(qcow2_overlap_name(kind));
        ck_assert_int_gt(strlen(qcow2_overlap_name(kind)), 5);
    }
    ck_assert_str_eq(qcow2_overlap_name(QCOW2_OL_MAIN_HEADER), "header");
    ck_assert_str_eq(qcow2_overlap_name(QCOW2_OL_BITMAP_DIRECTORY),
                     "bitmap directory");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-layout");
    TCase *tcase = tcase_create("qcow2-layout");

    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, geometry_follows_from_cluster_and_refcount_sizes);
    PROMISE(tcase, a_refcount_keeps_its_value_and_its_neighbours_R22);
    PROMISE(tcase, narrow_refcounts_begin_at_the_least_significant_bit_R22);
    PROMISE(tcase, a_compressed_descriptor_keeps_what_it_is_given_R62);
    PROMISE(tcase, a_compressed_offset_above_56_bits_is_invalid_R62);
    PROMISE(tcase, standard_entries_have_five_kinds);
    PROMISE(tcase, offset_zero_holds_data_only_in_a_data_file);
    PROMISE(tcase, subclusters_have_kinds_of_their_own);
    PROMISE(tcase, extended_entries_that_contradict_themselves_are_invalid);
    PROMISE(tcase, the_l1_table_always_covers_the_size_R13);
    PROMISE(tcase, r12_every_kind_has_a_name);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
