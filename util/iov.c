/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * I/O vectors and aligned memory.
 *
 * Everything that touches the bytes of a part of a vector goes through one
 * cursor, which never leaves the part it was given: writing past the part of
 * a vector that one owns is the classic mistake here.
 */
#include <blockgraph/iov.h>

#include <stdlib.h>
#include <string.h>

/*
 * The part of a vector that is still to be visited.
 *
 * Invariant: @bytes more bytes exist from @skip bytes into @piece on.
 */
typedef struct IovCursor {
    const struct iovec *piece;
    size_t skip;
    size_t bytes;
} IovCursor;

static IovCursor cursor_at(const BlockIOVec *v, size_t offset, size_t bytes)
{
    IovCursor cursor = { .piece = v->iov, .bytes = bytes };

    g_assert(offset <= v->size && bytes <= v->size - offset);
    if (bytes == 0) {
        return cursor;          /* there may be no piece to stand on */
    }
    while (offset >= cursor.piece->iov_len) {
        offset -= cursor.piece->iov_len;
        cursor.piece++;
    }
    cursor.skip = offset;
    return cursor;
}

/* The next run of contiguous bytes, never empty; false at the end. */
static bool cursor_next(IovCursor *cursor, struct iovec *run)
{
    if (cursor->bytes == 0) {
        return false;
    }
    while (cursor->piece->iov_len == cursor->skip) {
        cursor->piece++;
        cursor->skip = 0;
    }
    run->iov_base = (char *)cursor->piece->iov_base + cursor->skip;
    run->iov_len = MIN(cursor->piece->iov_len - cursor->skip, cursor->bytes);
    cursor->skip += run->iov_len;
    cursor->bytes -= run->iov_len;
    return true;
}

void block_iov_init_external(BlockIOVec *v, struct iovec *iov, int niov)
{
    g_assert(niov >= 0);
    v->iov = iov;
    v->niov = niov;
    v->size = 0;
    for (int i = 0; i < niov; i++) {
        g_assert(iov[i].iov_len <= SIZE_MAX - v->size);
        v->size += iov[i].iov_len;
    }
}

/* --- slices --------------------------------------------------------------- */

static void slice_append(BlockIOVecSlice *slice, const struct iovec *piece)
{
    slice->vec.iov[slice->vec.niov++] = *piece;
    slice->vec.size += piece->iov_len;
}

BlockIOVec *block_iov_slice(BlockIOVecSlice *slice, const BlockIOVec *src,
                            size_t offset, size_t bytes)
{
    return block_iov_slice_padded(slice, NULL, src, offset, bytes, NULL);
}

BlockIOVec *block_iov_slice_padded(BlockIOVecSlice *slice,
                                   const struct iovec *head,
                                   const BlockIOVec *src, size_t offset,
                                   size_t bytes, const struct iovec *tail)
{
    bool have_head = head && head->iov_len > 0;
    bool have_tail = tail && tail->iov_len > 0;
    IovCursor counter = cursor_at(src, offset, bytes);
    IovCursor cursor = counter;
    struct iovec run;
    size_t nr_pieces = have_head + have_tail;

    while (cursor_next(&counter, &run)) {
        nr_pieces++;
    }
    slice->vec.niov = 0;
    slice->vec.size = 0;
    slice->vec.iov = slice->pieces;
    if (nr_pieces > BLOCK_IOV_SLICE_INLINE) {
        slice->vec.iov = g_new(struct iovec, nr_pieces);
    }
    if (have_head) {
        slice_append(slice, head);
    }
    while (cursor_next(&cursor, &run)) {
        slice_append(slice, &run);
    }
    if (have_tail) {
        slice_append(slice, tail);
    }
    g_assert((size_t)slice->vec.niov == nr_pieces);
    return &slice->vec;
}

void block_iov_slice_clear(BlockIOVecSlice *slice)
{
    if (slice->vec.iov != slice->pieces) {
        g_free(slice->vec.iov);
    }
    slice->vec.iov = slice->pieces;
    slice->vec.niov = 0;
    slice->vec.size = 0;
}

/* --- bytes ---------------------------------------------------------------- */

void block_iov_to_buf(const BlockIOVec *v, size_t offset, void *buf,
                      size_t bytes)
{
    IovCursor cursor = cursor_at(v, offset, bytes);
    struct iovec run;
    char *to = buf;

    while (cursor_next(&cursor, &run)) {
        memcpy(to, run.iov_base, run.iov_len);
        to += run.iov_len;
    }
}

void block_iov_from_buf(const BlockIOVec *v, size_t offset, const void *buf,
                        size_t bytes)
{
    IovCursor cursor = cursor_at(v, offset, bytes);
    struct iovec run;
    const char *from = buf;

    while (cursor_next(&cursor, &run)) {
        memcpy(run.iov_base, from, run.iov_len);
        from += run.iov_len;
    }
}

void block_iov_memset(const BlockIOVec *v, size_t offset, int byte,
                      size_t bytes)
{
    IovCursor cursor = cursor_at(v, offset, bytes);
    struct iovec run;

    while (cursor_next(&cursor, &run)) {
        memset(run.iov_base, byte, run.iov_len);
    }
}

bool block_iov_is_zero(const BlockIOVec *v, size_t offset, size_t bytes)
{
    IovCursor cursor = cursor_at(v, offset, bytes);
    struct iovec run;

    while (cursor_next(&cursor, &run)) {
        if (!block_buffer_is_zero(run.iov_base, run.iov_len)) {
            return false;
        }
    }
    return true;
}

bool block_iov_is_aligned(const BlockIOVec *v, size_t alignment)
{
    uintptr_t bits = 0;

    g_assert(alignment > 0 && (alignment & (alignment - 1)) == 0);
    for (int i = 0; i < v->niov; i++) {
        bits |= (uintptr_t)v->iov[i].iov_base | v->iov[i].iov_len;
    }
    return (bits & (alignment - 1)) == 0;
}

/* --- is it zero? ---------------------------------------------------------- */

/* Sixteen bytes: the vector register that every supported CPU has. */
typedef uint64_t Lane __attribute__((vector_size(16)));

#define ZERO_BLOCK_BYTES (8 * sizeof(Lane))

static inline uint64_t load64(const char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

static inline Lane load_lane(const char *p)
{
    Lane lane;

    memcpy(&lane, p, sizeof(lane));
    return lane;
}

/* Fewer bytes than a block: words, the last of them overlapping. */
static bool small_is_zero(const char *p, size_t bytes)
{
    uint64_t bits = 0;

    if (bytes < sizeof(uint64_t)) {
        for (size_t i = 0; i < bytes; i++) {
            bits |= (unsigned char)p[i];
        }
        return bits == 0;
    }
    for (size_t i = 0; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
        bits |= load64(p + i);
    }
    return (bits | load64(p + bytes - sizeof(uint64_t))) == 0;
}

/* Eight loads joined before one test: the loads, not the branches, count. */
static inline bool block_of_lanes_is_zero(const char *p)
{
    Lane a = load_lane(p) | load_lane(p + 16);
    Lane b = load_lane(p + 32) | load_lane(p + 48);
    Lane c = load_lane(p + 64) | load_lane(p + 80);
    Lane d = load_lane(p + 96) | load_lane(p + 112);
    Lane all = (a | b) | (c | d);

    return (all[0] | all[1]) == 0;
}

bool block_buffer_is_zero(const void *buf, size_t bytes)
{
    const char *p = buf;
    const char *last;

    if (bytes < ZERO_BLOCK_BYTES) {
        return small_is_zero(p, bytes);
    }
    /* Data mostly shows at the ends or in the middle: look there first. */
    if (load64(p) | load64(p + bytes / 2) |
        load64(p + bytes - sizeof(uint64_t))) {
        return false;
    }
    last = p + bytes - ZERO_BLOCK_BYTES;
    for (; p < last; p += ZERO_BLOCK_BYTES) {
        if (!block_of_lanes_is_zero(p)) {
            return false;
        }
    }
    return block_of_lanes_is_zero(last);    /* may overlap the one before */
}

/* --- aligned memory ------------------------------------------------------- */

void *block_aligned_try_alloc(size_t alignment, size_t bytes)
{
    void *buf = NULL;

    g_assert(alignment > 0 && (alignment & (alignment - 1)) == 0);
    alignment = MAX(alignment, sizeof(void *));
    if (posix_memalign(&buf, alignment, MAX(bytes, 1)) != 0) {
        return NULL;
    }
    return buf;
}

void *block_aligned_alloc(size_t alignment, size_t bytes)
{
    void *buf = block_aligned_try_alloc(alignment, bytes);

    if (!buf) {
        g_error("Could not allocate %zu bytes aligned to %zu", bytes,
                alignment);
    }
    return buf;
}

void block_aligned_free(void *buf)
{
    free(buf);
}
