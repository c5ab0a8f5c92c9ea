/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Big-endian numbers that the test itself, or who it trusts, has written.
 */
#ifndef TEST_OWN_BYTES_H
#define TEST_OWN_BYTES_H

#include "util/untrusted.h"

static inline uint32_t own_be32(const void *p)
{
    return untrusted_verbatim(untrusted_be32(p));
}

static inline uint64_t own_be64(const void *p)
{
    return untrusted_verbatim(untrusted_be64(p));
}

#endif /* TEST_OWN_BYTES_H */
