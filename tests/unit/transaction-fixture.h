/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions of two disks in memory.
 */
#ifndef TESTS_UNIT_TRANSACTION_FIXTURE_H
#define TESTS_UNIT_TRANSACTION_FIXTURE_H

#include "job-fixture.h"

#include "drain-fixture.h"
#include "image-fixture.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/transaction.h>

#include "block/graph/graph-int.h"

#define CLUSTER (64 << 10)
#define DISK (4 * CLUSTER)
#define ACTIONS_MAX 8

static BlockDriverState *disk[2];
static BlockBackend *guest[2];

/* Two disks, "a" and "b", of these letters; each with a guest and bitmap "x"
 * in which cluster 0 is dirty. */
static inline void disks(void)
{
    for (int i = 0; i < 2; i++) {
        g_autofree char *text =
            g_strdup_printf("mem,node-name=%c,size=256k", 'a' + i);
        BdrvDirtyBitmap *bitmap;

        disk[i] = open_ok(text);
        guest[i] = backend_ok("guest", disk[i], BLK_PERM_CONSISTENT_READ |
                              BLK_PERM_WRITE, BLK_PERM_ALL);
        job_fill(guest[i], 0, DISK, 'a' + i);
        bitmap = bdrv_create_dirty_bitmap(disk[i], CLUSTER, "x", NULL);
        bdrv_set_dirty_bitmap(bitmap, 0, 1);
    }
}

static inline void no_disks(void)
{
    for (int i = 0; i < 2; i++) {
        BdrvDirtyBitmap *bitmap;

        while ((bitmap = bdrv_dirty_bitmap_next(disk[i], NULL))) {
            bdrv_release_dirty_bitmap(bitmap);
        }
        blk_unref(guest[i]);
        bdrv_unref(disk[i]);
    }
}

static inline BlockActionType action_type(const char *name)
{
    int type = 0;

    while (!g_str_equal(block_action_names[type], name)) {
        type++;
        ck_assert_ptr_nonnull(block_action_names[type]);
    }
    return type;
}

/* Actions "name key=value,..." closed by NULL.  Returns how many. */
static inline size_t parse_actions(const char *const *texts,
                                   BlockAction *actions)
{
    size_t nr = 0;

    for (; texts[nr]; nr++) {
        g_auto(GStrv) parts = g_strsplit(texts[nr], " ", 2);

        actions[nr].type = action_type(parts[0]);
        actions[nr].options = block_options_parse_keyval(
            parts[1] ? parts[1] : "", NULL, NULL);
        ck_assert_ptr_nonnull(actions[nr].options);
    }
    return nr;
}

static inline int try_actions(bool grouped, const char *const *texts,
                              GError **errp)
{
    BlockAction actions[ACTIONS_MAX];
    size_t nr = parse_actions(texts, actions);

    return block_transaction(graph, actions, nr, grouped, errp);
}

#define ACTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static inline void actions_ok(bool grouped, const char *const *texts)
{
    g_autoptr(GError) error = NULL;
    int ret = try_actions(grouped, texts, &error);

    ck_assert_msg(ret == 0, "%s", error ? error->message : "no error set");
}

/* The state of all that actions can change, as a text. */
static inline char *state(void)
{
    g_autofree char *dump = block_graph_dump(graph);
    GString *text = g_string_new(dump);

    for (int i = 0; i < 2; i++) {
        BdrvDirtyBitmap *b = NULL;

        while ((b = bdrv_dirty_bitmap_next(disk[i], b))) {
            g_autofree char *hash = bdrv_dirty_bitmap_sha256(b);

            g_string_append_printf(text, "\n%c %s %s %d %d", 'a' + i,
                                   bdrv_dirty_bitmap_name(b), hash,
                                   bdrv_dirty_bitmap_enabled(b),
                                   bdrv_dirty_bitmap_busy(b));
        }
    }
    return g_string_free(text, false);
}

/* They fail with that error, and nothing has changed. */
static inline void actions_fail(const char *const *texts, int err,
                                const char *message)
{
    g_autofree char *before = state();
    g_autofree char *after = NULL;
    GError *error = NULL;

    ck_assert_int_lt(try_actions(true, texts, &error), 0);
    expect_error(&error, err, message);
    after = state();
    ck_assert_str_eq(before, after);
    ck_assert_ptr_null(block_job_next(graph, NULL));
    job_fill(guest[0], 0, 512, 'a'); /* nobody is drained any more */
}

static inline BdrvDirtyBitmap *bitmap(int i, const char *name)
{
    return bdrv_find_dirty_bitmap(disk[i], name);
}

typedef struct Write {
    BlockIOVec1 iov;
    uint8_t buf[512];
    bool ended;
} Write;

static inline void write_ended(void *opaque, int ret)
{
    ck_assert_int_eq(ret, 0);
    ((Write *)opaque)->ended = true;
}

typedef struct Together {
    const char *const *texts;
    int ret;
    bool done;
} Together;

static inline void coroutine_fn together_entry(void *opaque)
{
    Together *t = opaque;
    BlockAction actions[ACTIONS_MAX];
    size_t nr = parse_actions(t->texts, actions);

    t->ret = block_co_transaction(graph, actions, nr, true, NULL);
    t->done = true;
}

static inline void transaction_setup(void)
{
    file_setup();
    job_listen();
}

static inline void transaction_teardown(void)
{
    job_listen_end();
    file_teardown();
}

#endif /* TESTS_UNIT_TRANSACTION_FIXTURE_H */
