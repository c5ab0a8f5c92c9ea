/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One sector as an atomic register: which values a read may return, and which
 * may be left after a power cut.
 *
 * No lock, no yield, no I/O: the model around it (model.c) brings the locks
 * and the clock.  Times are ticks of a counter that never repeats; the number
 * of a writer is the tick at which it began.
 */
#ifndef SIM_REGISTER_H
#define SIM_REGISTER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/** Later than all ticks: it has not happened. */
#define REG_NEVER UINT64_MAX

/** What a value is, and how it got there. */
typedef enum RegKind {
    REG_INITIAL, /* what was there before: zeroes, or not known */
    REG_WRITE,   /* data that name their writer */
    REG_ZERO,    /* zeroes, like those of others */
    REG_DISCARD, /* zeroes, or nothing has changed */
} RegKind;

/** How a request has ended. */
typedef enum RegEnd {
    REG_IN_FLIGHT,
    REG_ACKED,   /* it has happened */
    REG_MAYBE,   /* it failed, or was a discard: it has happened or not */
} RegEnd;

/** A value that the sector has, had or may have: its writer and its readers. */
typedef struct RegValue {
    uint64_t id;         /* tick at which the writer began; 0: initial */
    uint64_t end;        /* tick at which the writer ended, or REG_NEVER */
    uint64_t first_end;  /* of the writer (if ACKED) and the readers, the
                          * earliest end; REG_NEVER: it may not have happened */
    uint64_t last_begin; /* of the writer and the readers, the latest begin */
    RegKind kind;
    RegEnd state;
    bool fua;
} RegValue;

/** Values in no particular order. */
typedef struct RegList {
    RegValue *values; /* @room, or memory from the heap */
    uint32_t nr;
    uint32_t capacity;
} RegList;

#define REG_ROOM 2

/** One sector. */
typedef struct SimRegister {
    RegList live;        /* what reads may return */
    RegList old;         /* what no read may return, but a cut may leave */
    RegValue room[REG_ROOM]; /* of @live, while that is enough */
    uint64_t zero_begin; /* a read of zeroes that may be of several writers: */
    uint64_t zero_end;   /* the one that began last; 0: none */
    uint64_t noise;      /* the initial content once seen, see RegFound; 0 */
    uint32_t last[3];    /* numbers of the last requests; the model's */
} SimRegister;

/** What has been found in a sector. */
typedef enum RegFoundKind {
    REG_FOUND_ZERO,
    REG_FOUND_WRITE, /* data of the writer @id */
    REG_FOUND_NOISE, /* anything else; @id is a hash above REG_NOISE_ZERO */
} RegFoundKind;

/** What SimRegister.noise says when unknown content turned out to be zero. */
#define REG_NOISE_ZERO 1

typedef struct RegFound {
    RegFoundKind kind;
    uint64_t id;
} RegFound;

/** What holds for all sectors of a disk. */
typedef struct RegRules {
    bool unknown;        /* the initial content is not zero but anything */
    uint64_t pinned;     /* what was acked before this tick survives a cut, */
    uint64_t lost_from;  /* but not what was acked from this tick on */
    uint64_t lost_to;    /* to before this one, unless with FUA */
    uint64_t horizon;    /* no read in flight, or to come, began before it */
} RegRules;

/** Make @reg hold its initial content. */
void reg_init(SimRegister *reg);

/** Free what @reg holds. */
void reg_clear(SimRegister *reg);

/** Make @to, which is not initialised, a copy of @from. */
void reg_copy(SimRegister *to, const SimRegister *from);

/** The writer @id of @kind has begun. */
void reg_begin(SimRegister *reg, RegKind kind, uint64_t id);

/** The writer @id has ended at the tick @end, as @state says. */
void reg_end(SimRegister *reg, const RegRules *rules, const RegValue *how);

/**
 * A read that began at @begin has ended at @end and found @found.
 *
 * Returns whether that is legal; @reg remembers it then.
 */
bool reg_read(SimRegister *reg, const RegRules *rules, const RegFound *found,
              uint64_t begin, uint64_t end);

/** Whether a read of [@begin, @end] may find @found.  Nothing is remembered. */
bool reg_may_read(const SimRegister *reg, const RegRules *rules,
                  const RegFound *found, uint64_t begin, uint64_t end);

/** Whether a power cut now may leave @found. */
bool reg_may_survive(const SimRegister *reg, const RegRules *rules,
                     const RegFound *found);

/** Whether a power cut now may leave a value whose writer failed. */
bool reg_failed_may_survive(const SimRegister *reg, const RegRules *rules);

/** Whether a power cut now may leave @value, which is one of @reg. */
bool reg_value_may_survive(const SimRegister *reg, const RegRules *rules,
                           const RegValue *value);

#endif /* SIM_REGISTER_H */
