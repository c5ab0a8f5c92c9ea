/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers that an image or a peer has written.
 *
 * C has no operators for structs, so the compiler refuses to calculate with
 * such a number, to compare it, or to put it where a plain integer is wanted.
 * What leads out of it are the questions and checks below: a plain integer that
 * came from outside has been compared with its limit on the way.
 *
 * Only this file looks into the struct, and no other one turns outside bytes
 * into integers; scripts/tidy.py sees to that.
 */
#ifndef UTIL_UNTRUSTED_H
#define UTIL_UNTRUSTED_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** A number from outside; any of the 2^64. */
typedef struct Untrusted {
    uint64_t from_outside; /* this name is for this file alone */
} Untrusted;

/* --- in ------------------------------------------------------------------- */

/** @number, where one from outside may stand, too. */
static inline Untrusted untrusted(uint64_t number)
{
    return (Untrusted){ number };
}

/** A byte. */
static inline Untrusted untrusted_byte(const void *p)
{
    return untrusted(*(const uint8_t *)p);
}

/* Integers of 16, 32 or 64 bits at any address, big-endian or little-endian. */

static inline Untrusted untrusted_be16(const void *p)
{
    uint16_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(GUINT16_FROM_BE(raw));
}

static inline Untrusted untrusted_be32(const void *p)
{
    uint32_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(GUINT32_FROM_BE(raw));
}

static inline Untrusted untrusted_be64(const void *p)
{
    uint64_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(GUINT64_FROM_BE(raw));
}

static inline Untrusted untrusted_le32(const void *p)
{
    uint32_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(GUINT32_FROM_LE(raw));
}

static inline Untrusted untrusted_le64(const void *p)
{
    uint64_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(GUINT64_FROM_LE(raw));
}

/** 64 bits in the order of this machine: what we have sent comes back. */
static inline Untrusted untrusted_raw64(const void *p)
{
    uint64_t raw;

    memcpy(&raw, p, sizeof(raw));
    return untrusted(raw);
}

/* --- questions ------------------------------------------------------------ */

/** Whether it is exactly @value. */
static inline bool untrusted_is(Untrusted u, uint64_t value)
{
    return u.from_outside == value;
}

/** Whether @u is more than @limit, of any integer type; all are more than a
 * limit below 0. */
#define untrusted_above(u, limit) \
    ({ \
        uint64_t untrusted_limit_; \
        \
        __builtin_add_overflow((limit), 0u, &untrusted_limit_) || \
            (u).from_outside > untrusted_limit_; \
    })

/* --- out ------------------------------------------------------------------ */

/**
 * Whether @u is at most @limit and what @ret points to can hold it; then it is
 * there, else @ret is left alone.  Both of any integer type; nothing is at most
 * a limit below 0.
 */
#define untrusted_at_most(u, limit, ret) \
    ({ \
        const Untrusted untrusted_it_ = (u); \
        __typeof__(*(ret)) untrusted_ret_; \
        bool untrusted_ok_ = \
            !untrusted_above(untrusted_it_, limit) && \
            !__builtin_add_overflow(untrusted_it_.from_outside, 0u, \
                                    &untrusted_ret_); \
        \
        if (untrusted_ok_) { \
            *(ret) = untrusted_ret_; \
        } \
        untrusted_ok_; \
    })

/** The bits of @u that @mask has; so at most @mask. */
static inline uint64_t untrusted_bits(Untrusted u, uint64_t mask)
{
    return u.from_outside & mask;
}

/**
 * All bits of a word of flags and fields: to be taken apart by & | ^ ~ >>, and
 * never calculated with.
 */
static inline uint64_t untrusted_word(Untrusted u)
{
    return u.from_outside;
}

/**
 * The number as it is: to be printed, compared for equality, kept for somebody
 * else, or sent back; never calculated with.
 */
static inline uint64_t untrusted_verbatim(Untrusted u)
{
    return u.from_outside;
}

/* --- arithmetic ----------------------------------------------------------- */

/* Each returns whether the result fits in 64 bits; then it is in @ret, as
 * untrusted as before.  What is multiplied or shifted has been compared. */

/** @a + @b. */
static inline bool untrusted_add(Untrusted a, Untrusted b, Untrusted *ret)
{
    uint64_t sum;

    if (__builtin_add_overflow(a.from_outside, b.from_outside, &sum)) {
        return false;
    }
    ret->from_outside = sum;
    return true;
}

/** @a - @b. */
static inline bool untrusted_subtract(Untrusted a, Untrusted b, Untrusted *ret)
{
    uint64_t difference;

    if (__builtin_sub_overflow(a.from_outside, b.from_outside, &difference)) {
        return false;
    }
    ret->from_outside = difference;
    return true;
}

#endif /* UTIL_UNTRUSTED_H */
