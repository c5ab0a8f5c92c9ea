/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turns of the NBD server: whose request is next while several clients want
 * more of an export than it does at a time.  What is being done stands before
 * a gate, so the test sees who has come in, and says who leaves.
 */
#include "nbd-fixture.h"
#include "gate-fixture.h"

#include "block/export/nbd-int.h"

/* A client and where it reads, so that its requests are known by offset. */
typedef struct Reader {
    int fd;
    char name;
    uint64_t next;
} Reader;

#define AREA_BITS 36

static BlockDriverState *disk;
static Reader hog, one, two;

static Reader reader_new(char name)
{
    return (Reader) { .fd = client_go(SIMPLE), .name = name,
                      .next = (uint64_t)(name - 'a') << AREA_BITS };
}

static void setup(void)
{
    nbd_setup();
    gate_parked = g_ptr_array_new();
    disk = open_ok("gate,node-name=disk,discard=unmap,file.driver=null-co,"
                   "file.size=2T,file.read-zeroes=on");
    server_start("");
    export_add(",writable=on");
    hog = reader_new('h');
    one = reader_new('a');
    two = reader_new('b');
    gate_shut = true;
}

static void let_all_go(void)
{
    gate_shut = false;
    while (gate_parked->len > 0) {
        gate_let_go(0);
    }
}

static void teardown(void)
{
    let_all_go();
    close(hog.fd);
    close(one.fd);
    close(two.fd);
    blk_nbd_server_stop(graph);
    ck_assert_uint_eq(gate_parked->len, 0);
    bdrv_unref(disk);
    g_ptr_array_unref(gate_parked);
    nbd_teardown();
}

/* Let everybody come as far as he can. */
static void all_come_in(void)
{
    for (int i = 0; i < 100; i++) {
        aio_poll(block_graph_aio_context(graph), false);
    }
}

static void send_reads(Reader *r, int nr, uint64_t bytes)
{
    for (int i = 0; i < nr; i++) {
        const Command c = { .type = NBD_CMD_READ, .cookie = 1,
                            .offset = r->next, .bytes = bytes };

        ck_assert(put_command(r->fd, SIMPLE, &c));
        r->next += bytes;
    }
    all_come_in();
}

static char name_of(guint i)
{
    const Parked *parked = g_ptr_array_index(gate_parked, i);

    return 'a' + (parked->offset >> AREA_BITS);
}

static unsigned nr_parked(char name)
{
    unsigned nr = 0;

    for (guint i = 0; i < gate_parked->len; i++) {
        nr += name_of(i) == name;
    }
    return nr;
}

/* Let the oldest of @name go.  Returns who came in for it, in order. */
static char *let_go(char name)
{
    GString *came = g_string_new(NULL);
    guint left;
    guint i = 0;

    while (i < gate_parked->len && name_of(i) != name) {
        i++;
    }
    ck_assert_uint_lt(i, gate_parked->len);
    left = gate_parked->len - 1;
    gate_let_go(i);
    all_come_in();
    for (i = left; i < gate_parked->len; i++) {
        g_string_append_c(came, name_of(i));
    }
    return g_string_free(came, FALSE);
}

/* let_go() of @nr requests of the hog, one after the other. */
static char *let_hog_go(int nr)
{
    GString *came = g_string_new(NULL);

    for (int i = 0; i < nr; i++) {
        g_autofree char *some = let_go('h');

        ck_assert_uint_eq(strlen(some), 1);
        g_string_append(came, some);
    }
    return g_string_free(came, FALSE);
}

START_TEST(who_is_alone_never_waits)
{
    send_reads(&hog, NBD_REQUESTS_MAX, 512);
    ck_assert_uint_eq(nr_parked('h'), NBD_REQUESTS_MAX);
}
END_TEST

START_TEST(who_has_nothing_in_work_comes_in_at_once)
{
    send_reads(&hog, NBD_REQUESTS_MAX, 512);
    for (int i = 0; i < 3; i++) {
        g_autofree char *came = NULL;

        send_reads(&one, 1, 512);
        ck_assert_uint_eq(nr_parked('a'), 1);
        came = let_go('a');
        ck_assert_str_eq(came, "");
        ck_assert_uint_eq(nr_parked('h'), NBD_REQUESTS_MAX);
    }
}
END_TEST

START_TEST(what_waits_comes_in_when_the_last_of_its_client_ends)
{
    g_autofree char *came = NULL;

    send_reads(&hog, NBD_REQUESTS_MAX, 512);
    send_reads(&one, 2, 512);
    ck_assert_uint_eq(nr_parked('a'), 1);
    came = let_go('a');
    ck_assert_str_eq(came, "a");
}
END_TEST

/* Take all places but one, so that each of the other two has one. */
static void take_places(void)
{
    send_reads(&hog, NBD_REQUESTS_MAX - 1, 512);
}

/* Both have sent: from here on, who leaves makes place for one. */
static void both_have_sent(void)
{
    g_autofree char *came = let_go('h');

    ck_assert_str_eq(came, "");
    ck_assert_uint_eq(nr_parked('a'), 1);
    ck_assert_uint_eq(nr_parked('b'), 1);
}

static const struct {
    const char *what;
    int nr_one;
    uint64_t bytes_one;
    int nr_two;
    uint64_t bytes_two;
    const char *came;
} shares[] = {
    { "who wants the same takes turns",
      20, 60 * KIB, 4, 60 * KIB, "abababaaaa" },
    { "8 of 4 KiB are a round, as one of 60 KiB is",
      20, 4 * KIB, 4, 60 * KIB, "aaaaaaaabaaaaaaaabaa" },
    { "who wants more than a round gives comes in later",
      10, 60 * KIB, 2, 252 * KIB, "aaaaba" },
};

START_TEST(the_share_is_one_of_bytes)
{
    g_autofree char *came = NULL;

    take_places();
    send_reads(&one, shares[_i].nr_one, shares[_i].bytes_one);
    send_reads(&two, shares[_i].nr_two, shares[_i].bytes_two);
    both_have_sent();
    came = let_hog_go(strlen(shares[_i].came));
    ck_assert_msg(g_str_equal(came, shares[_i].came), "%s: %s, not %s",
                  shares[_i].what, came, shares[_i].came);
}
END_TEST

START_TEST(bytes_in_work_are_limited_too_and_nobody_overtakes)
{
    g_autofree char *came = NULL;

    send_reads(&hog, 2, 32 * MIB);
    ck_assert_uint_eq(nr_parked('h'), 2);
    send_reads(&one, 3, 512);
    send_reads(&two, 2, 512);
    ck_assert_uint_eq(nr_parked('a'), 1);
    ck_assert_uint_eq(nr_parked('b'), 1);
    came = let_go('h');
    ck_assert_str_eq(came, "aab");
}
END_TEST

START_TEST(who_is_cut_off_does_not_wait_for_others)
{
    g_autofree char *came = NULL;

    send_reads(&hog, NBD_REQUESTS_MAX, 512);
    send_reads(&one, 20, 512);
    ck_assert_uint_eq(nr_parked('a'), 1);
    ck_assert_int_eq(blk_exp_del(blk_exp_find(graph, "e"),
                                 BLOCK_EXPORT_REMOVE_HARD, NULL), 0);
    all_come_in();
    ck_assert_uint_eq(server_info().nr_clients, 2);
    came = let_go('a');
    ck_assert_str_eq(came, "");
    ck_assert_uint_eq(server_info().nr_clients, 1);
    let_all_go();
    while (blk_exp_find(graph, "e")) {
        aio_poll(block_graph_aio_context(graph), true);
    }
}
END_TEST

/* Between its steps a long one gives others their turn, then has its own. */
START_TEST(a_long_request_takes_its_turn_for_each_step)
{
    const Command zeroes = { .type = NBD_CMD_WRITE_ZEROES, .cookie = 2,
                             .offset = UINT64_C(1) << AREA_BITS,
                             .bytes = 3 * UINT64_C(1024) * MIB };
    g_autofree char *came = NULL, *after = NULL;

    take_places();
    ck_assert(put_command(two.fd, SIMPLE, &zeroes));
    all_come_in();
    send_reads(&one, 3, 512);
    both_have_sent();
    came = let_go('b');
    ck_assert_str_eq(came, "ba");
    after = let_go('b');
    ck_assert_str_eq(after, "b");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd-turn");
    TCase *tc = tcase_create("nbd-turn");

    register_gate_driver();
    tcase_add_checked_fixture(tc, setup, teardown);
    PROMISE(tc, who_is_alone_never_waits);
    PROMISE(tc, who_has_nothing_in_work_comes_in_at_once);
    PROMISE(tc, what_waits_comes_in_when_the_last_of_its_client_ends);
    tcase_add_loop_test(tc, the_share_is_one_of_bytes, 0,
                        G_N_ELEMENTS(shares));
    PROMISE(tc, bytes_in_work_are_limited_too_and_nobody_overtakes);
    PROMISE(tc, who_is_cut_off_does_not_wait_for_others);
    PROMISE(tc, a_long_request_takes_its_turn_for_each_step);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
