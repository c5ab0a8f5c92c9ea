/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * I/O vectors and aligned memory.
 */
#ifndef BLOCKGRAPH_IOV_H
#define BLOCKGRAPH_IOV_H

#include <blockgraph/common.h>

G_BEGIN_DECLS

/** Memory of one request: @niov pieces of @size bytes together. */
typedef struct BlockIOVec {
    struct iovec *iov;
    int niov;
    size_t size;
} BlockIOVec;

/** A BlockIOVec of one piece with its own storage; see block_iov_buf(). */
typedef struct BlockIOVec1 {
    BlockIOVec vec;
    struct iovec piece;
} BlockIOVec1;

/**
 * Make @v a vector of the one buffer @buf of @bytes bytes.  Owns nothing; @v
 * must not be copied.  Returns &@v->vec.  Thread: any.
 */
static inline BlockIOVec *block_iov_buf(BlockIOVec1 *v, const void *buf,
                                        size_t bytes)
{
    v->piece.iov_base = (void *)buf;
    v->piece.iov_len = bytes;
    v->vec.iov = &v->piece;
    v->vec.niov = 1;
    v->vec.size = bytes;
    return &v->vec;
}

/**
 * Make @v describe the @niov pieces at @iov, which stay the caller's.
 * Thread: any.
 */
BLOCK_API void block_iov_init_external(BlockIOVec *v, struct iovec *iov,
                                       int niov);

/** How many pieces a slice holds without memory from the heap. */
#define BLOCK_IOV_SLICE_INLINE 8

/** A part of another vector: the pieces are copied, the bytes are not. */
typedef struct BlockIOVecSlice {
    BlockIOVec vec;
    struct iovec pieces[BLOCK_IOV_SLICE_INLINE];
} BlockIOVecSlice;

/**
 * Make @slice describe @bytes bytes of @src from @offset on.  The range must
 * lie inside @src.  Free with block_iov_slice_clear(); @slice must not be
 * copied.  Returns &@slice->vec.  Thread: any.
 *
 * Empty pieces of @src are left out, so a slice of 0 bytes has 0 pieces.  A
 * slice may have more than IOV_MAX (1024) pieces if @src has: who hands it to
 * the kernel must send it in parts or copy it to one buffer.
 */
BLOCK_API BlockIOVec *block_iov_slice(BlockIOVecSlice *slice,
                                      const BlockIOVec *src, size_t offset,
                                      size_t bytes);

/**
 * Make @slice describe the piece @head, then @bytes bytes of @src from @offset
 * on, then the piece @tail: what a padded request needs.
 *
 * @head, @tail  may be NULL or empty; copied, the memory they name is not
 *
 * Up to two pieces more than block_iov_slice() would give, and as that
 * otherwise: a padded vector may pass IOV_MAX where the original did not.
 */
BLOCK_API BlockIOVec *block_iov_slice_padded(BlockIOVecSlice *slice,
                                             const struct iovec *head,
                                             const BlockIOVec *src,
                                             size_t offset, size_t bytes,
                                             const struct iovec *tail);

/** Free what @slice holds beyond itself.  Thread: any. */
BLOCK_API void block_iov_slice_clear(BlockIOVecSlice *slice);

/** Copy @bytes bytes of @v from @offset on to @buf.  Range inside @v. */
BLOCK_API void block_iov_to_buf(const BlockIOVec *v, size_t offset, void *buf,
                                size_t bytes);

/** Copy @bytes bytes from @buf into @v at @offset.  Range inside @v. */
BLOCK_API void block_iov_from_buf(const BlockIOVec *v, size_t offset,
                                  const void *buf, size_t bytes);

/** Set @bytes bytes of @v from @offset on to @byte.  Range inside @v. */
BLOCK_API void block_iov_memset(const BlockIOVec *v, size_t offset, int byte,
                                size_t bytes);

/** Whether @bytes bytes of @v from @offset on are all zero. */
BLOCK_API bool block_iov_is_zero(const BlockIOVec *v, size_t offset,
                                 size_t bytes);

/** Whether every piece begins and ends on a multiple of @alignment. */
BLOCK_API bool block_iov_is_aligned(const BlockIOVec *v, size_t alignment);

/** Whether the @bytes bytes at @buf are all zero. */
BLOCK_API bool block_buffer_is_zero(const void *buf, size_t bytes);

/**
 * Memory of @bytes bytes on a multiple of @alignment (a power of two).  The
 * content is undefined.  Free with block_aligned_free().
 *
 * Returns NULL when there is no memory; 0 bytes give a valid pointer.
 */
BLOCK_API void *block_aligned_try_alloc(size_t alignment, size_t bytes);

/** Like block_aligned_try_alloc(), but aborts rather than fail. */
BLOCK_API void *block_aligned_alloc(size_t alignment, size_t bytes);

/** Free memory of block_aligned_alloc(); NULL is ignored. */
BLOCK_API void block_aligned_free(void *buf);

G_END_DECLS

#endif /* BLOCKGRAPH_IOV_H */
