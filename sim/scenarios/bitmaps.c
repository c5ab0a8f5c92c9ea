/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: guests write, zero and discard while bitmaps of a node, and of
 * the node below it, are made, enabled, disabled, cleared, changed, merged,
 * frozen, thawed and released at random.
 *
 * The oracle: each bitmap has two sides, by sector and rounded to granules.
 *
 *   must   touched by a request that began after the bitmap was made, enabled
 *          or cleaned (@since), and has ended well
 *   may    touched by any request that was not over then
 *
 * A request that was in flight when the bitmap was cleaned may have found it
 * dirty just before; its data could be read then.  So it may be dirty.  What a
 * frozen bitmap and its successor have together is followed as if there were
 * no two: a request marks at least one of them.
 *
 * The sides are changed before and after the call that they follow, so that
 * they hold in any order with requests of other threads.
 */
#include "sim/scenarios/scenarios.h"

#include <blockgraph/dirty-bitmap.h>
#include <pthread.h>
#include <string.h>

#define SECTOR 512
#define SECTORS 512
#define DISK_BYTES (SECTORS * SECTOR)
#define SLOTS 4
#define NEVER UINT64_MAX

/* Blocks of disks are no larger.  The node below gets them as a whole, and a
 * write that fails may have changed all of them. */
#define BLOCK_SECTORS 8

/* What a bitmap must and may have. */
typedef struct Sides {
    bool must[SECTORS];
    bool may[SECTORS];
    bool enabled;   /* requests that begin may be in it */
    uint64_t since; /* those that begin later must, if they end well */
} Sides;

/* One bitmap, or none. */
typedef struct Slot {
    /* Guarded by the lock of the scenario. */
    int64_t grain; /* sectors; 0: unused */
    bool blocks;   /* requests may change whole blocks of the disk */
    Sides now;     /* of the bitmap and its successor together */
    Sides ice;     /* of the bitmap, while it is frozen */
    Sides next;    /* of the successor */

    /* Main context only. */
    BdrvDirtyBitmap *bitmap;
    bool frozen;
} Slot;

typedef struct Bitmaps {
    /* Set by setup. */
    BgSim *sim;
    BlockDriverState *nodes[2];
    BlockBackend *guest;
    BgSimModel *model;
    bool faults;

    pthread_mutex_t lock;
    /* Guarded by @lock. */
    uint64_t clock;
    GPtrArray *in_flight; /* Change *, on the stacks of guests */
    Slot slots[SLOTS];
} Bitmaps;

/* A request of a guest. */
typedef struct Change {
    uint64_t begin;
    int64_t first, end; /* sectors that it may change */
} Change;

/* The block that follows holds the lock; it does not return. */
#define WITH_SIDES(s) \
    for (bool with_ = lock_sides(s); with_; with_ = unlock_sides(s))

static bool lock_sides(Bitmaps *s)
{
    pthread_mutex_lock(&s->lock);
    return true;
}

static bool unlock_sides(Bitmaps *s)
{
    pthread_mutex_unlock(&s->lock);
    return false;
}

/* --- sides ---------------------------------------------------------------- */

static void add(bool *side, const Slot *slot, int64_t first, int64_t end)
{
    first -= first % slot->grain;
    end = MIN((end + slot->grain - 1) / slot->grain * slot->grain, SECTORS);
    if (first < end) {
        memset(side + first, true, end - first);
    }
}

static void add_may(Sides *sides, const Slot *slot, const Change *c)
{
    int64_t unit = slot->blocks ? BLOCK_SECTORS : 1;

    if (sides->enabled) {
        add(sides->may, slot, c->first - c->first % unit,
            (c->end + unit - 1) / unit * unit);
    }
}

static void add_side(bool *to, const Slot *slot, const bool *from)
{
    for (int64_t i = 0; i < SECTORS; i++) {
        if (from[i]) {
            add(to, slot, i, i + 1);
        }
    }
}

static void add_in_flight_locked(Bitmaps *s, Slot *slot, Sides *sides)
{
    for (guint i = 0; i < s->in_flight->len; i++) {
        add_may(sides, slot, g_ptr_array_index(s->in_flight, i));
    }
}

/* All clean: what is in flight may mark it, nothing has to. */
static void restart_locked(Bitmaps *s, Slot *slot, Sides *sides, bool enabled)
{
    *sides = (Sides){ .enabled = enabled, .since = NEVER };
    add_in_flight_locked(s, slot, sides);
}

/* The call is over: from now on requests must mark. */
static void settle_locked(Bitmaps *s, Sides *sides)
{
    sides->since = sides->enabled ? ++s->clock : NEVER;
}

static void begin_locked(Bitmaps *s, Change *c)
{
    c->begin = ++s->clock;
    g_ptr_array_add(s->in_flight, c);
    for (int i = 0; i < SLOTS; i++) {
        Slot *slot = &s->slots[i];

        if (slot->grain > 0) {
            add_may(&slot->now, slot, c);
            add_may(&slot->next, slot, c);
        }
    }
}

/* [@first, @end) has changed. */
static void end_locked(Bitmaps *s, Change *c, int64_t first, int64_t end)
{
    g_ptr_array_remove(s->in_flight, c);
    for (int i = 0; i < SLOTS && first < end; i++) {
        Slot *slot = &s->slots[i];

        if (slot->grain > 0 && slot->now.since < c->begin) {
            add(slot->now.must, slot, first, end);
        }
        if (slot->grain > 0 && slot->next.since < c->begin) {
            add(slot->next.must, slot, first, end);
        }
    }
}

/* --- the oracle ----------------------------------------------------------- */

static void expect_between(Bitmaps *s, const Slot *slot, const bool *must,
                           const bool *may, const bool *dirty)
{
    for (int64_t i = 0; i < SECTORS; i += slot->grain) {
        if (must[i] && !dirty[i]) {
            bgsim_violation(s->sim, "bitmap", "a bitmap of %d bytes a bit, "
                            "%sfrozen, misses a change at %d",
                            (int)slot->grain * SECTOR,
                            slot->frozen ? "" : "not ", (int)i * SECTOR);
        }
        if (dirty[i] && !may[i]) {
            bgsim_violation(s->sim, "bitmap", "a bitmap of %d bytes a bit, "
                            "%sfrozen, has %d, which nobody has touched",
                            (int)slot->grain * SECTOR,
                            slot->frozen ? "" : "not ", (int)i * SECTOR);
        }
    }
}

static void check(Bitmaps *s, Slot *slot)
{
    const Sides *sides = slot->frozen ? &slot->ice : &slot->now;
    bool must[SECTORS], may[SECTORS], dirty[SECTORS];

    WITH_SIDES(s) {
        memcpy(must, sides->must, sizeof(must));
    }
    for (int64_t i = 0; i < SECTORS; i++) {
        dirty[i] = bdrv_dirty_bitmap_get(slot->bitmap, i * SECTOR);
    }
    WITH_SIDES(s) {
        memcpy(may, sides->may, sizeof(may));
    }
    expect_between(s, slot, must, may, dirty);
}

/* --- what is done to bitmaps ---------------------------------------------- */

static void refused(Bitmaps *s, const char *what, const GError *error)
{
    if (!s->faults) {
        bgsim_violation(s->sim, "bitmap", "%s: %s", what, error->message);
    }
}

static void create(Bitmaps *s, Slot *slot)
{
    int64_t grain = INT64_C(1) << bgsim_draw(s->sim, "bitmap.grain", 8);
    unsigned node = bgsim_draw(s->sim, "bitmap.node", 2);
    g_autoptr(GError) error = NULL;

    WITH_SIDES(s) {
        slot->grain = grain;
        slot->blocks = node == 0 || s->faults;
        restart_locked(s, slot, &slot->now, true);
        slot->next.enabled = false;
        slot->next.since = NEVER;
    }
    slot->bitmap = bdrv_create_dirty_bitmap(s->nodes[node], grain * SECTOR,
                                            NULL, &error);
    WITH_SIDES(s) {
        settle_locked(s, &slot->now);
        slot->grain = slot->bitmap ? grain : 0;
    }
    if (!slot->bitmap) {
        refused(s, "making one", error);
    }
}

static void release(Bitmaps *s, Slot *slot)
{
    WITH_SIDES(s) {
        slot->grain = 0;
    }
    bdrv_release_dirty_bitmap(slot->bitmap);
    slot->bitmap = NULL;
}

static void set_enabled(Bitmaps *s, Slot *slot, bool enabled)
{
    WITH_SIDES(s) {
        slot->now.since = NEVER;
        if (enabled) {
            slot->now.enabled = true;
            add_in_flight_locked(s, slot, &slot->now);
        }
    }
    if (enabled) {
        bdrv_enable_dirty_bitmap(slot->bitmap, NULL);
    } else {
        bdrv_disable_dirty_bitmap(slot->bitmap, NULL);
    }
    WITH_SIDES(s) {
        slot->now.enabled = enabled;
        settle_locked(s, &slot->now);
    }
}

static void clear(Bitmaps *s, Slot *slot)
{
    WITH_SIDES(s) {
        restart_locked(s, slot, &slot->now, slot->now.enabled);
    }
    bdrv_clear_dirty_bitmap(slot->bitmap, NULL);
    WITH_SIDES(s) {
        settle_locked(s, &slot->now);
    }
}

static void draw_range(Bitmaps *s, int64_t *ret_first, int64_t *ret_end)
{
    int64_t count = bgsim_range(s->sim, "bitmap.count", 1, 200);

    *ret_first = bgsim_range(s->sim, "bitmap.first", 0, SECTORS - 1);
    *ret_end = MIN(*ret_first + count, SECTORS);
}

static void set_some(Bitmaps *s, Slot *slot)
{
    int64_t first, end;

    draw_range(s, &first, &end);
    bdrv_set_dirty_bitmap(slot->bitmap, first * SECTOR,
                          (end - first) * SECTOR);
    WITH_SIDES(s) {
        add(slot->now.must, slot, first, end);
        add(slot->now.may, slot, first, end);
    }
}

/* Granules that lie in the range as a whole. */
static void reset_some(Bitmaps *s, Slot *slot)
{
    int64_t first, end;
    int64_t from, to;

    draw_range(s, &first, &end);
    from = (first + slot->grain - 1) / slot->grain * slot->grain;
    to = end == SECTORS ? end : end - end % slot->grain;
    WITH_SIDES(s) {
        slot->now.since = NEVER;
        if (from < to) {
            memset(slot->now.must + from, false, to - from);
            memset(slot->now.may + from, false, to - from);
        }
        add_in_flight_locked(s, slot, &slot->now);
    }
    bdrv_reset_dirty_bitmap(slot->bitmap, first * SECTOR,
                            (end - first) * SECTOR);
    WITH_SIDES(s) {
        settle_locked(s, &slot->now);
    }
}

static void merge(Bitmaps *s, Slot *to, Slot *from)
{
    g_autoptr(GError) error = NULL;
    bool must[SECTORS];

    if (!from->bitmap || from->frozen) {
        return;
    }
    WITH_SIDES(s) {
        memcpy(must, from->now.must, sizeof(must));
    }
    if (bdrv_merge_dirty_bitmap(to->bitmap, from->bitmap, &error) < 0) {
        refused(s, "a merge", error);
        return;
    }
    WITH_SIDES(s) {
        add_side(to->now.must, to, must);
        add_side(to->now.may, to, from->now.may);
    }
}

static void freeze(Bitmaps *s, Slot *slot)
{
    g_autoptr(GError) error = NULL;

    WITH_SIDES(s) {
        slot->ice = slot->now;
        restart_locked(s, slot, &slot->next, slot->now.enabled);
    }
    slot->frozen =
        bdrv_dirty_bitmap_create_successor(slot->bitmap, &error) == 0;
    WITH_SIDES(s) {
        memcpy(slot->ice.may, slot->now.may, sizeof(slot->ice.may));
        slot->next.enabled = slot->next.enabled && slot->frozen;
        settle_locked(s, &slot->next);
    }
    if (!slot->frozen) {
        refused(s, "freezing", error);
    }
}

static void thaw(Bitmaps *s, Slot *slot, bool reclaim)
{
    slot->bitmap = reclaim ? bdrv_reclaim_dirty_bitmap(slot->bitmap, NULL)
                           : bdrv_dirty_bitmap_abdicate(slot->bitmap, NULL);
    slot->frozen = false;
    WITH_SIDES(s) {
        if (!reclaim) {
            slot->now = slot->next;
        }
        slot->next.enabled = false;
        slot->next.since = NEVER;
    }
}

static void change_state(Bitmaps *s, Slot *slot)
{
    switch (bgsim_draw(s->sim, "bitmap.op", 10)) {
    case 0:
        release(s, slot);
        break;
    case 1:
    case 2:
        set_enabled(s, slot, !bdrv_dirty_bitmap_enabled(slot->bitmap));
        break;
    case 3:
        clear(s, slot);
        break;
    case 4:
        set_some(s, slot);
        break;
    case 5:
    case 6:
        reset_some(s, slot);
        break;
    case 7:
        merge(s, slot, &s->slots[bgsim_draw(s->sim, "bitmap.source", SLOTS)]);
        break;
    default:
        freeze(s, slot);
        break;
    }
}

static void coroutine_fn owner_entry(BgSim *sim, void *opaque)
{
    Bitmaps *s = opaque;

    for (int i = 0; i < 80; i++) {
        Slot *slot = &s->slots[bgsim_draw(sim, "bitmap.slot", SLOTS)];

        co_sleep_ns(1 + bgsim_range(sim, "owner.think", 0, 40 * 1000));
        if (!slot->bitmap) {
            create(s, slot);
            continue;
        }
        check(s, slot);
        if (slot->frozen) {
            thaw(s, slot, bgsim_draw(sim, "bitmap.thaw", 2));
        } else {
            change_state(s, slot);
        }
        bgsim_progress(sim);
    }
}

/* --- guests --------------------------------------------------------------- */

/* What a discard must have touched: the rest may be left alone. */
static void discarded(int64_t *first, int64_t *end)
{
    *first = (*first + BLOCK_SECTORS - 1) / BLOCK_SECTORS * BLOCK_SECTORS;
    *end -= *end % BLOCK_SECTORS;
}

static int coroutine_fn send(Bitmaps *s, int64_t *first, int64_t *end)
{
    int64_t offset = *first * SECTOR;
    int64_t bytes = (*end - *first) * SECTOR;
    unsigned kind = bgsim_draw(s->sim, "guest.op", 10);

    if (kind < 5) {
        return bgsim_model_pwrite(s->model, offset, bytes, 0);
    }
    if (kind < 8) {
        return bgsim_model_zero(s->model, offset, bytes,
                                kind == 7 ? BDRV_REQ_MAY_UNMAP : 0);
    }
    discarded(first, end);
    return bgsim_model_discard(s->model, offset, bytes);
}

static void coroutine_fn guest_entry(BgSim *sim, void *opaque)
{
    Bitmaps *s = opaque;

    for (int i = 0; i < 40; i++) {
        int64_t first = bgsim_range(sim, "guest.first", 0, SECTORS - 1);
        int64_t count = bgsim_range(sim, "guest.count", 1, 40);
        int64_t end = MIN(first + count, SECTORS);
        Change c = { .first = first, .end = end };
        int ret;

        WITH_SIDES(s) {
            begin_locked(s, &c);
        }
        ret = send(s, &first, &end);
        WITH_SIDES(s) {
            end_locked(s, &c, first, ret == 0 ? end : first);
        }
        if (ret < 0 && !s->faults) {
            bgsim_violation(sim, "guest", "a change: %s", g_strerror(-ret));
        }
        bgsim_progress(sim);
    }
}

/* --- the run -------------------------------------------------------------- */

static void bitmaps_setup(BgSim *sim, void *state)
{
    Bitmaps *s = state;

    s->sim = sim;
    pthread_mutex_init(&s->lock, NULL);
    s->in_flight = g_ptr_array_new();
    scenario_disk(sim, "disk", DISK_BYTES);
    s->nodes[0] = scenario_open(sim, "sim-disk,node-name=below,disk=disk,"
                                "discard=unmap");
    s->nodes[1] = scenario_open(sim, "raw,node-name=above,file=below,"
                                "discard=unmap");
    if (!s->nodes[0] || !s->nodes[1]) {
        return;
    }
    s->guest = scenario_backend(sim, "guest", s->nodes[1]);
    s->model = bgsim_model_new(sim, s->guest, "guest", DISK_BYTES);
    s->faults = scenario_faults(sim);
    for (unsigned i = 0; i < 1 + bgsim_draw(sim, "guests", 8); i++) {
        bgsim_spawn(sim, "guest", scenario_thread(sim, 3), guest_entry, s);
    }
    bgsim_spawn(sim, "owner", NULL, owner_entry, s);
}

static void bitmaps_verify(BgSim *sim, void *state)
{
    Bitmaps *s = state;

    for (int i = 0; i < SLOTS; i++) {
        Slot *slot = &s->slots[i];

        if (slot->frozen) {
            check(s, slot);
            thaw(s, slot, i % 2);
        }
        if (slot->bitmap) {
            check(s, slot);
            release(s, slot);
        }
    }
    if (s->guest) {
        scenario_check_content(sim, s->guest, s->model);
        scenario_check_rest(sim);
        blk_unref(s->guest);
    }
    bdrv_unref(s->nodes[1]);
    bdrv_unref(s->nodes[0]);
    scenario_check_empty(sim);
    g_ptr_array_unref(s->in_flight);
    pthread_mutex_destroy(&s->lock);
}

const BgSimScenario scenario_bitmaps = {
    .name = "bitmaps",
    .help = "guests, and dirty bitmaps that change under them",
    .state_size = sizeof(Bitmaps),
    .setup = bitmaps_setup,
    .verify = bitmaps_verify,
    .threads_too = true,
};
