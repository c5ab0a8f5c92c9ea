/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Big-endian numbers to memory, at any address.  Those that come from an image
 * or a peer are read by util/untrusted.h.
 */
#ifndef UTIL_BIG_ENDIAN_H
#define UTIL_BIG_ENDIAN_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline void be_put64(void *p, uint64_t value)
{
    uint64_t raw = GUINT64_TO_BE(value);

    memcpy(p, &raw, sizeof(raw));
}

static inline void be_put32(void *p, uint32_t value)
{
    uint32_t raw = GUINT32_TO_BE(value);

    memcpy(p, &raw, sizeof(raw));
}

static inline void be_put16(void *p, uint16_t value)
{
    uint16_t raw = GUINT16_TO_BE(value);

    memcpy(p, &raw, sizeof(raw));
}

/* At the end of an array. */

static inline void be_append64(GByteArray *to, uint64_t value)
{
    uint64_t raw = GUINT64_TO_BE(value);

    g_byte_array_append(to, (const guint8 *)&raw, sizeof(raw));
}

static inline void be_append32(GByteArray *to, uint32_t value)
{
    uint32_t raw = GUINT32_TO_BE(value);

    g_byte_array_append(to, (const guint8 *)&raw, sizeof(raw));
}

static inline void be_append16(GByteArray *to, uint16_t value)
{
    uint16_t raw = GUINT16_TO_BE(value);

    g_byte_array_append(to, (const guint8 *)&raw, sizeof(raw));
}

#endif /* UTIL_BIG_ENDIAN_H */
