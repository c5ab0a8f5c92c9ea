/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image that turns out to be corrupt: who listens to the graph is told.
 */
#include "image-fixture.h"

static GString *told;       /* "NODE:OFFSET+BYTES:fatal " of each event */
static char *last_message;

static void note(const BlockCorruptionEvent *event, void *opaque)
{
    ck_assert_ptr_eq(opaque, &told);
    ck_assert(aio_context_in_home(block_graph_aio_context(graph)));
    g_string_append_printf(told, "%s:%" G_GINT64_FORMAT "+%" G_GINT64_FORMAT
                           "%s ", event->node_name, event->offset,
                           event->bytes, event->fatal ? ":fatal" : "");
    g_free(last_message);
    last_message = g_strdup(event->message);
}

static void setup(void)
{
    file_setup();
    told = g_string_new(NULL);
    block_graph_set_corruption_listener(graph, note, &told);
}

static void teardown(void)
{
    file_teardown();
    g_string_free(told, TRUE);
    g_clear_pointer(&last_message, g_free);
}

static void turn(void)
{
    while (aio_poll(block_graph_aio_context(graph), false)) {
        continue;
    }
}

/* The image "i", whose L1 table names an L2 table that cannot be one. */
static BlockBackend *corrupt_image(const char *more)
{
    BlockBackend *blk;

    make_image_ok("i", "size=4M");
    blk = image_backend("i", NULL);
    fill(blk, 0, 65536, 1);
    blk_unref(blk);
    patch64("i", peek64("i", 40), 0x8000000000000200);
    return image_backend("i", more);
}

START_TEST(damage_that_a_request_meets_is_told_once)
{
    BlockBackend *blk = corrupt_image("node-name=disk");
    char byte;

    ck_assert_int_lt(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_lt(blk_pread(blk, 0, 1, &byte, 0), 0);
    ck_assert_int_lt(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    turn();
    ck_assert_str_eq(told->str, "disk:512+65536:fatal ");
    ck_assert(strstr(last_message, "L1 entry 0 is not valid"));
    blk_unref(blk);
}
END_TEST

START_TEST(damage_of_an_image_that_is_only_read_is_told_as_well)
{
    BlockBackend *blk = corrupt_image("node-name=disk,read-only=on");
    char byte;

    ck_assert_int_lt(blk_pread(blk, 0, 1, &byte, 0), 0);
    turn();
    ck_assert_str_eq(told->str, "disk:512+65536:fatal ");
    blk_unref(blk);
}
END_TEST

static void *report_entry(void *opaque)
{
    char message[] = "words";
    const BlockCorruptionEvent event = { .node_name = "not this one",
                                         .message = message, .offset = 7,
                                         .bytes = 8 };

    bdrv_report_corruption(opaque, &event);
    message[0] = 'x';
    return NULL;
}

START_TEST(a_driver_may_tell_from_any_thread)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");

    g_thread_join(g_thread_new("driver", report_entry, bs));
    ck_assert_str_eq(told->str, "");
    bdrv_unref(bs); /* the report does not need it */
    turn();
    ck_assert_str_eq(told->str, "n:7+8 ");
    ck_assert_str_eq(last_message, "words");
}
END_TEST

START_TEST(nobody_need_listen)
{
    BlockDriverState *bs = open_ok("null-co,node-name=n");

    block_graph_set_corruption_listener(graph, NULL, NULL);
    report_entry(bs);
    turn();
    ck_assert_str_eq(told->str, "");
    report_entry(bs); /* nor the graph live on */
    bdrv_unref(bs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("corruption");
    TCase *tcase = tcase_create("corruption");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    PROMISE(tcase, damage_that_a_request_meets_is_told_once);
    PROMISE(tcase, damage_of_an_image_that_is_only_read_is_told_as_well);
    PROMISE(tcase, a_driver_may_tell_from_any_thread);
    PROMISE(tcase, nobody_need_listen);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
