/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of drivers: the only global of the library.
 */
#include <blockgraph/driver.h>

#include <errno.h>
#include <string.h>

#include "block/graph/driver-list.h"
#include "util/lock.h"

#define DRIVERS_MAX 128

/* Guarded by @drivers_lock. */
static Lock drivers_lock = LOCK_INITIALIZER(LOCK_RANK_LEAF);
static const BlockDriver *registered[DRIVERS_MAX];
static unsigned nr_registered;

static const BlockDriver *find_locked(const char *name)
{
    for (unsigned i = 0; i < nr_registered; i++) {
        if (strcmp(registered[i]->name, name) == 0) {
            return registered[i];
        }
    }
    for (unsigned i = 0; block_driver_list[i]; i++) {
        if (strcmp(block_driver_list[i]->name, name) == 0) {
            return block_driver_list[i];
        }
    }
    return NULL;
}

static int check_driver(const BlockDriver *driver, GError **errp)
{
    if (driver->struct_size != sizeof(BlockDriver)) {
        return block_error(errp, EINVAL, "Driver table of %zu bytes, expected "
                           "%zu: built against another version",
                           driver->struct_size, sizeof(BlockDriver));
    }
    if (!driver->name || !driver->name[0] || !driver->open) {
        return block_error(errp, EINVAL, "A driver needs a name and 'open'");
    }
    if ((driver->sees & BLOCK_SEES_WRITES) &&
        !(driver->pwritev && driver->pwrite_zeroes && driver->pdiscard &&
          driver->truncate)) {
        return block_error(errp, EINVAL, "Driver '%s' must see every write: "
                           "it needs pwritev, pwrite_zeroes, pdiscard and "
                           "truncate", driver->name);
    }
    return 0;
}

int bdrv_register(const BlockDriver *driver, GError **errp)
{
    int ret = check_driver(driver, errp);

    if (ret < 0) {
        return ret;
    }
    LOCK_GUARD(&drivers_lock);
    if (find_locked(driver->name)) {
        return block_error(errp, EEXIST, "Driver '%s' exists already",
                           driver->name);
    }
    if (nr_registered == DRIVERS_MAX) {
        return block_error(errp, ENOSPC, "No more than %d drivers can be "
                           "registered", DRIVERS_MAX);
    }
    registered[nr_registered++] = driver;
    return 0;
}

const BlockDriver *bdrv_find_driver(const char *name)
{
    LOCK_GUARD(&drivers_lock);

    return find_locked(name);
}

const BlockDriver *bdrv_next_driver(const BlockDriver *driver)
{
    bool found = !driver;

    LOCK_GUARD(&drivers_lock);
    for (unsigned i = 0; block_driver_list[i]; i++) {
        if (found) {
            return block_driver_list[i];
        }
        found = block_driver_list[i] == driver;
    }
    for (unsigned i = 0; i < nr_registered; i++) {
        if (found) {
            return registered[i];
        }
        found = registered[i] == driver;
    }
    return NULL;
}

/* --- guessing a format ---------------------------------------------------- */

/* What a guess is made from, and what it is so far. */
typedef struct Guess {
    const uint8_t *head;
    size_t bytes;
    const char *filename;
    const BlockDriver *best;
    int score;
} Guess;

static void judge(Guess *guess, const BlockDriver *driver)
{
    int score = driver->probe ? driver->probe(guess->head, guess->bytes,
                                              guess->filename)
                              : 0;

    if (score > guess->score) {
        guess->best = driver;
        guess->score = score;
    }
}

const BlockDriver *bdrv_probe_format(const uint8_t *head, size_t bytes,
                                     const char *filename)
{
    Guess guess = { .head = head, .bytes = bytes, .filename = filename };

    LOCK_GUARD(&drivers_lock);
    for (unsigned i = 0; block_driver_list[i]; i++) {
        judge(&guess, block_driver_list[i]);
    }
    for (unsigned i = 0; i < nr_registered; i++) {
        judge(&guess, registered[i]);
    }
    return guess.best ? guess.best : find_locked("raw");
}
