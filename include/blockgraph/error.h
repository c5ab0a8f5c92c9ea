/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors on the control path: a negative errno and a GError with a text.
 *
 * The error code of a GError in this domain is the positive errno.  A function
 * with a GError argument that returns < 0 (or NULL) has always set it.
 */
#ifndef BLOCKGRAPH_ERROR_H
#define BLOCKGRAPH_ERROR_H

#include <blockgraph/common.h>

G_BEGIN_DECLS

#define BLOCK_ERROR (block_error_quark())

/** The GError domain of this library.  Thread: any. */
BLOCK_API GQuark block_error_quark(void);

/**
 * Set an error whose text is the message, ": " and the text of the errno.
 *
 * @errp  where to put the error, may be NULL
 * @err   positive errno
 * @fmt   what was attempted, on which node and file; no final full stop.
 *        Control characters in the result are escaped, so names that come
 *        from images or the network may be passed as they are.
 *
 * Returns -@err, so that a caller can write "return block_error_errno(...)".
 *
 * Thread: any.
 */
BLOCK_API int block_error_errno(GError **errp, int err, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/**
 * Like block_error_errno(), but the text is the message alone.
 *
 * Thread: any.
 */
BLOCK_API int block_error(GError **errp, int err, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/**
 * The positive errno that @error stands for: its code in the domain
 * BLOCK_ERROR, EIO for any other domain.  Thread: any.
 */
BLOCK_API int block_error_code(const GError *error);

G_END_DECLS

#endif /* BLOCKGRAPH_ERROR_H */
