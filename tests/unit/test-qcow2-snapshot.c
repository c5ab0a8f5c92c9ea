/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots.  A letter is what a cluster is filled with.
 */
#include "qcow2-fixture.h"

#include <blockgraph/dirty-bitmap.h>
#include <blockgraph/job.h>

#define CLUSTER 65536

static int try_create_snapshot(BlockBackend *blk, const char *name,
                               GError **error)
{
    BdrvSnapshotInfo info = { .name = (char *)name, .date_sec = 1700000000,
                              .icount = UINT64_MAX };

    return bdrv_snapshot_create(blk_bs(blk), &info, error);
}

static void go_to(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_snapshot_goto(blk_bs(blk), name, &error) == 0, "%s",
                  error ? error->message : "no error set");
}

static void delete(BlockBackend *blk, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(bdrv_snapshot_delete(blk_bs(blk), NULL, name, &error) == 0,
                  "%s", error ? error->message : "no error set");
}

/* "id:name ..." of all snapshots. */
static char *names(BlockBackend *blk)
{
    g_autoptr(GPtrArray) list = NULL;
    GString *text = g_string_new(NULL);

    ck_assert_int_eq(bdrv_snapshot_list(blk_bs(blk), &list, NULL), 0);
    for (guint i = 0; i < list->len; i++) {
        BdrvSnapshotInfo *info = g_ptr_array_index(list, i);

        g_string_append_printf(text, "%s%s:%s", i ? " " : "", info->id,
                               info->name);
    }
    return g_string_free(text, FALSE);
}

static void expect_names(BlockBackend *blk, const char *expected)
{
    g_autofree char *text = names(blk);

    ck_assert_str_eq(text, expected);
}

/* --- who is above --------------------------------------------------------- */

START_TEST(a_return_is_refused_below_a_filter_that_keeps_a_point_in_time)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *image, *target, *cbw;
    BlockBackend *blk;

    make_image_ok("a", "size=1M");
    blk = image_backend("a", NULL);
    image = bdrv_ref(blk_bs(blk));
    fill(blk, 0, CLUSTER, 'A');
    snapshot_ok(image, "s");
    target = open_ok("null-co,node-name=target,size=1M");
    ck_assert_int_eq(bdrv_insert_node(image, opts("copy-before-write,"
                                                  "target=target"), &cbw,
                                      &error), 0);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), -EBUSY);
    expect_error(&error, EBUSY, "point in time");
    ck_assert_int_eq(bdrv_drop_filter(cbw, &error), 0);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), 0);
    bdrv_unref(cbw);
    bdrv_unref(target);
    bdrv_unref(image);
    close_backend(blk);
}
END_TEST

/* Nobody would tell the job what has changed. */
START_TEST(a_return_is_refused_below_a_mirror)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *image, *target;
    BlockBackend *blk;
    BlockJob *job;

    make_image_ok("a", "size=1M");
    blk = image_backend("a", "qcow2,node-name=q");
    image = bdrv_ref(blk_bs(blk));
    snapshot_ok(image, "s");
    target = open_ok("null-co,node-name=target,size=1M");
    job = block_job_start(graph, BLOCK_JOB_MIRROR,
                          block_options_parse_keyval("device=q,target=target,"
                                                     "sync=full", NULL, NULL),
                          &error);
    ck_assert_ptr_nonnull(job);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), -EBUSY);
    expect_error(&error, EBUSY, "is copied");
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), 0);
    block_job_unref(job);
    bdrv_unref(target);
    bdrv_unref(image);
    close_backend(blk);
}
END_TEST

/* What it has copied would be gone, and so, in the end, what it copied from. */
START_TEST(a_return_is_refused_while_a_stream_fills_the_image)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *base, *image;
    BlockBackend *blk;
    BlockJob *job;

    make_image_ok("a", "size=1M");
    base = open_ok("null-co,node-name=base,size=1M,read-zeroes=on");
    blk = image_backend("a", "qcow2,node-name=q,backing=base");
    image = bdrv_ref(blk_bs(blk));
    snapshot_ok(image, "s");
    job = block_job_start(graph, BLOCK_JOB_STREAM,
                          block_options_parse_keyval("device=q,auto-finalize="
                                                     "off", NULL, NULL),
                          &error);
    ck_assert_msg(job, "%s", error ? error->message : "no error set");
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), -EBUSY);
    expect_error(&error, EBUSY, "a job holds its link to node 'base'");
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", &error), 0);
    block_job_unref(job);
    bdrv_unref(base);
    bdrv_unref(image);
    close_backend(blk);
}
END_TEST

/* What was written to the base already would be lost. */
START_TEST(a_return_of_the_base_is_refused_while_a_commit_fills_it)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *base, *top;
    BlockBackend *blk;
    BlockJob *job;

    make_image_ok("b", "size=1M");
    make_image_ok("m", "size=1M");
    make_image_ok("t", "size=1M");
    base = image_open("b", "qcow2,node-name=b");
    snapshot_ok(base, "s");
    top = image_open("m", "qcow2,node-name=m,backing=b");
    blk = image_backend("t", "qcow2,node-name=t,backing=m");
    job = block_job_start(graph, BLOCK_JOB_COMMIT,
                          block_options_parse_keyval(
                              "device=t,top=m,base=b,backing-file=b,"
                              "auto-finalize=off", NULL, NULL), &error);
    ck_assert_msg(job, "%s", error ? error->message : "no error set");
    ck_assert_int_eq(bdrv_snapshot_goto(base, "s", &error), -EBUSY);
    expect_error(&error, EBUSY, "while a job holds a link to it");
    ck_assert_int_eq(block_job_cancel(job, true, NULL), 0);
    ck_assert_int_eq(block_job_wait(job, NULL), -ECANCELED);
    ck_assert_int_eq(bdrv_snapshot_goto(base, "s", &error), 0);
    block_job_unref(job);
    bdrv_unref(top);
    bdrv_unref(base);
    close_backend(blk);
}
END_TEST

START_TEST(a_return_makes_the_bitmaps_of_all_above_dirty)
{
    BlockDriverState *image, *raw;
    BdrvDirtyBitmap *bitmap;
    BlockBackend *blk, *upper;

    make_image_ok("a", "size=1M");
    blk = image_backend("a", "qcow2,node-name=q");
    image = bdrv_ref(blk_bs(blk));
    snapshot_ok(image, "s");
    raw = open_ok("raw,node-name=above,file=q");
    upper = backend_ok("upper", raw, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    bitmap = bdrv_create_dirty_bitmap(raw, 0, "b", NULL);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 0);
    ck_assert_int_eq(bdrv_snapshot_goto(image, "s", NULL), 0);
    ck_assert_int_eq(bdrv_get_dirty_count(bitmap), 1 << 20);
    blk_unref(upper);
    bdrv_unref(raw);
    bdrv_unref(image);
    close_backend(blk);
}
END_TEST

/* --- life ----------------------------------------------------------------- */

/*
 *            clusters 0 and 1   snapshot
 *  write     AB                 -
 *  create    AB                 AB
 *  write     CB                 AB
 *  apply     AB                 AB
 *  delete    AB
 */
static void life_of(const char *options)
{
    BlockBackend *blk;

    qemu_image(options, "8M");
    blk = open_image();
    fill(blk, 0, CLUSTER, 'A');
    fill(blk, CLUSTER, CLUSTER, 'B');
    snapshot_ok(blk_bs(blk), "one");
    close_backend(blk);
    expect_clean();

    blk = open_image();
    expect_names(blk, "1:one");
    fill(blk, 0, CLUSTER, 'C');
    expect_fill(blk, 0, CLUSTER, 'C');
    close_backend(blk);
    expect_clean();

    blk = open_image();
    go_to(blk, "one");
    expect_fill(blk, 0, CLUSTER, 'A');
    expect_fill(blk, CLUSTER, CLUSTER, 'B');
    fill(blk, CLUSTER, CLUSTER, 'D');
    close_backend(blk);
    expect_clean();

    blk = open_image();
    go_to(blk, "1");
    expect_fill(blk, CLUSTER, CLUSTER, 'B');
    fill(blk, 2 * CLUSTER, CLUSTER, 'E');
    delete(blk, "one");
    expect_names(blk, "");
    fill(blk, 0, CLUSTER, 'F');
    expect_fill(blk, CLUSTER, CLUSTER, 'B');
    expect_fill(blk, 2 * CLUSTER, CLUSTER, 'E');
    close_backend(blk);
    expect_clean();
}

START_TEST(a_snapshot_keeps_what_was_there)
{
    static const char *const options[] = {
        "compat=1.1", "compat=0.10", "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=2", "extended_l2=on",
        "lazy_refcounts=on", "cluster_size=2M",
    };

    if (have_qemu()) {
        life_of(options[_i]);
    }
}
END_TEST

/* --- together with qemu-img ----------------------------------------------- */

START_TEST(snapshots_of_qemu_img_can_be_applied_and_deleted)
{
    BlockBackend *blk;

    qemu_image(_i ? "compat=0.10" : "cluster_size=4k", "4M");
    qemu_io("-c 'write -P 65 0 1M'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c a t.qcow2"), 0);
    qemu_io("-c 'write -P 66 0 512k' -c 'write -c -P 67 2M 64k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c b t.qcow2"), 0);
    qemu_io("-c 'write -P 68 0 64k' -c 'write -P 69 2M 64k'");
    blk = open_image();
    expect_names(blk, "1:a 2:b");
    go_to(blk, "a");
    expect_fill(blk, 0, 1 << 20, 'A');
    expect_fill(blk, 2 << 20, CLUSTER, 0);
    go_to(blk, "b");
    expect_fill(blk, 0, 512 << 10, 'B');
    expect_fill(blk, 2 << 20, CLUSTER, 'C');
    delete(blk, "a");
    close_backend(blk);
    expect_clean();
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -d b t.qcow2"), 0);
    expect_clean();
}
END_TEST

START_TEST(qemu_img_sees_our_snapshots)
{
    BlockBackend *blk;

    qemu_image("", "4M");
    blk = open_image();
    fill(blk, 0, CLUSTER, 'A');
    snapshot_ok(blk_bs(blk), "first");
    fill(blk, 0, CLUSTER, 'B');
    snapshot_ok(blk_bs(blk), "second one");
    fill(blk, 0, CLUSTER, 'C');
    close_backend(blk);
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -l t.qcow2 | "
                         "grep -q '^2 *second one '"), 0);
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -a first t.qcow2"), 0);
    qemu_io("-c 'read -P 65 0 64k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -d first t.qcow2 && "
                         "qemu-img snapshot -a 2 t.qcow2"), 0);
    qemu_io("-c 'read -P 66 0 64k'");
    expect_clean();
}
END_TEST

/* An ID goes before a name that looks like it. */
START_TEST(a_snapshot_can_be_read_while_it_is_there)
{
    static const struct {
        const char *snapshot;
        int byte;
    } cases[] = { { "snapshot=s", 'A' }, { "snapshot=1", 'A' },
                  { "snapshot=2", 'B' }, { "snapshot=3", 'C' },
                  { "snapshot=t", 'C' }, { "snapshot-id=1", 'A' },
                  { "snapshot-name=1", 'B' },
                  { "snapshot-id=2,snapshot-name=1", 'B' } };
    static const char *const none[] = {
        "snapshot=4", "snapshot-id=s", "snapshot-name=2",
        "snapshot-id=1,snapshot-name=1" };
    BlockBackend *blk;

    qemu_image("", "4M");
    blk = open_image();
    fill(blk, 0, CLUSTER, 'A');
    snapshot_ok(blk_bs(blk), "s");
    fill(blk, 0, CLUSTER, 'B');
    snapshot_ok(blk_bs(blk), "1");
    fill(blk, 0, CLUSTER, 'C');
    snapshot_ok(blk_bs(blk), "t");
    fill(blk, 0, CLUSTER, 'D');
    close_backend(blk);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *more = g_strdup_printf(
            "qcow2,%s,read-only=on,file.driver=file,"
            "file.filename=%%s/t.qcow2", cases[i].snapshot);

        blk = file_backend(more);
        expect_fill(blk, 0, CLUSTER, cases[i].byte);
        close_backend(blk);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(none); i++) {
        g_autofree char *more = g_strdup_printf(
            "qcow2,%s,read-only=on,file.driver=file,"
            "file.filename=%%s/t.qcow2", none[i]);

        file_fails(more, ENOENT, "no snapshot");
    }
    file_fails("qcow2,snapshot=1,snapshot-id=1,read-only=on,file.driver=file,"
               "file.filename=%s/t.qcow2", EINVAL, "snapshot-id");
    file_fails("qcow2,snapshot=s,file.driver=file,file.filename=%s/t.qcow2",
               0, "read-only");
}
END_TEST

/* --- sizes ---------------------------------------------------------------- */

static void resize(BlockBackend *blk, int64_t bytes)
{
    BlockTruncate how = { .offset = bytes, .exact = true };
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_truncate(blk, &how, &error) == 0, "%s",
                  error ? error->message : "no error set");
}

/*
 * Snapshots of a small, a large and a small disk again, applied and deleted in
 * every order.  With clusters of 512 bytes the L1 tables differ, too: larger,
 * equal, smaller than the active one.
 */
START_TEST(r3_r69_every_snapshot_has_the_size_of_its_disk)
{
    static const char *const orders[] = { "123", "132", "213", "231", "312",
                                          "321" };
    static const int64_t sizes[] = { 1 << 20, 8 << 20, 2 << 20 };
    BlockBackend *blk;

    qemu_image(_i % 2 ? "cluster_size=512" : "", "1M");
    blk = open_image();
    fill(blk, 0, CLUSTER, '1');
    snapshot_ok(blk_bs(blk), "1");
    resize(blk, 8 << 20);
    fill(blk, (8 << 20) - CLUSTER, CLUSTER, '2');
    snapshot_ok(blk_bs(blk), "2");
    go_to(blk, "1");
    ck_assert_int_eq(bdrv_length(blk_bs(blk)), 1 << 20);
    resize(blk, 2 << 20);
    fill(blk, (2 << 20) - CLUSTER, CLUSTER, '3');
    snapshot_ok(blk_bs(blk), "3");
    for (const char *p = orders[_i / 2]; *p; p++) {
        char name[2] = { *p, 0 };
        int64_t size = sizes[*p - '1'];

        go_to(blk, name);
        ck_assert_int_eq(bdrv_length(blk_bs(blk)), size);
        expect_fill(blk, *p == '1' ? 0 : size - CLUSTER, CLUSTER, *p);
        delete(blk, name);
    }
    close_backend(blk);
    expect_clean();
}
END_TEST

/* An L1 table of a snapshot at an impossible place, or of impossible size. */
START_TEST(r3_a_snapshot_with_a_bad_l1_table_is_refused)
{
    static const struct {
        int64_t field;
        uint64_t value;
    } bad[] = {
        { 0, 1 }, { 0, 512 }, { 0, UINT64_C(1) << 60 }, { 0, UINT64_MAX },
        { 0, 0 },
    };
    BlockBackend *blk;
    GError *error = NULL;

    qemu_image("", "4M");
    qemu_io("-c 'write 0 64k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2"), 0);
    poke64(read64(QCOW2_H_SNAPSHOTS_OFFSET) + bad[_i].field, bad[_i].value);
    blk = open_image();
    ck_assert_int_lt(bdrv_snapshot_goto(blk_bs(blk), "s", &error), 0);
    expect_error(&error, 0, "L1 table");
    ck_assert_int_lt(bdrv_snapshot_delete(blk_bs(blk), "1", NULL, &error), 0);
    expect_error(&error, 0, "L1 table");
    fill(blk, 0, CLUSTER, 'x');
    close_backend(blk);
}
END_TEST

START_TEST(r2_a_table_of_impossible_size_is_refused)
{
    static const struct {
        const char *field;
        uint32_t value;
        const char *message;
    } bad[] = {
        { "count", 65537, "" }, { "count", UINT32_MAX, "" },
        { "count", 60000, "" }, { "extra", 1025, "extra data" },
        { "extra", UINT32_MAX, "extra data" },
    };
    uint8_t bytes[4];

    qemu_image("", "4M");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2"), 0);
    be_put32(bytes, bad[_i].value);
    poke(*bad[_i].field == 'c' ? QCOW2_H_NB_SNAPSHOTS
                               : (int64_t)read64(QCOW2_H_SNAPSHOTS_OFFSET) +
                                     36,
         bytes, 4);
    file_fails("qcow2,file.driver=file,file.filename=%s/t.qcow2", 0,
               bad[_i].message);
}
END_TEST

/* --- what must be kept ---------------------------------------------------- */

START_TEST(unknown_extra_data_are_kept)
{
    static const uint8_t unknown[8] = "unknown";
    BlockBackend *blk;
    uint64_t table;
    uint8_t entry[128], now[128];

    qemu_image("", "4M");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c name t.qcow2"), 0);
    /* Eight bytes more of extra data: the strings move. */
    table = read64(QCOW2_H_SNAPSHOTS_OFFSET);
    peek(table, entry, sizeof(entry));
    memmove(entry + 72, entry + 64, 16);
    memcpy(entry + 64, unknown, 8);
    be_put32(entry + 36, 32);
    poke(table, entry, sizeof(entry));

    blk = open_image();
    expect_names(blk, "1:name");
    snapshot_ok(blk_bs(blk), "other");
    ck_assert_uint_ne(read64(QCOW2_H_SNAPSHOTS_OFFSET), table);
    delete(blk, "other");
    close_backend(blk);
    peek(read64(QCOW2_H_SNAPSHOTS_OFFSET), now, sizeof(now));
    ck_assert_mem_eq(now, entry, 72 + 5);
    expect_clean();
}
END_TEST

START_TEST(saved_machine_state_is_left_alone)
{
    BlockBackend *blk;
    Qcow2Snapshot *s;

    /* qemu-io writes behind the disk, as savevm does. */
    qemu_image("", "4M");
    qemu_io("-c 'write -P 1 0 64k' -c 'write -b -P 9 0 200k'");
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -c s t.qcow2"), 0);
    blk = open_image();
    s = g_ptr_array_index(state_of(blk)->snapshots, 0);
    ck_assert(untrusted_above(s->l1_size, 0));
    fill(blk, 0, CLUSTER, 'x');
    snapshot_ok(blk_bs(blk), "t");
    go_to(blk, "s");
    delete(blk, "t");
    close_backend(blk);
    expect_clean();
    ck_assert_int_eq(run("cd %s && qemu-img snapshot -a s t.qcow2"), 0);
    qemu_io("-c 'read -b -P 9 0 200k'");
}
END_TEST

/* --- limits --------------------------------------------------------------- */

START_TEST(r130_snapshots_until_a_count_is_full)
{
    static const unsigned widths[] = { 1, 2, 4, 8 };
    unsigned max = (1u << widths[_i]) - 1;
    g_autofree char *options = g_strdup_printf("refcount_bits=%u",
                                               widths[_i]);
    BlockBackend *blk;
    GError *error = NULL;

    qemu_image(options, "1M");
    blk = open_image();
    fill(blk, 0, CLUSTER, 'A');
    for (unsigned i = 1; i < max; i++) {
        g_autofree char *name = g_strdup_printf("s%u", i);

        snapshot_ok(blk_bs(blk), name);
    }
    ck_assert_int_eq(try_create_snapshot(blk, "one more", &error), -ERANGE);
    expect_error(&error, ERANGE, "the most that its width holds");
    fill(blk, 0, CLUSTER, 'B');
    close_backend(blk);
    expect_clean();
}
END_TEST

START_TEST(a_snapshot_that_is_not_there_is_an_error)
{
    BlockBackend *blk;
    GError *error = NULL;

    qemu_image("", "1M");
    blk = open_image();
    snapshot_ok(blk_bs(blk), "s");
    ck_assert_int_eq(bdrv_snapshot_goto(blk_bs(blk), "t", &error), -ENOENT);
    expect_error(&error, ENOENT, "no snapshot 't'");
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), "2", NULL, &error),
                     -ENOENT);
    expect_error(&error, ENOENT, "'2'");
    ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), "1", "t", &error),
                     -ENOENT);
    expect_error(&error, ENOENT, "'1'");
    close_backend(blk);
}
END_TEST

START_TEST(two_snapshots_never_have_the_same_id)
{
    const BdrvSnapshotInfo largest = { .id = "4294967294", .name = "0" };
    BlockBackend *blk;

    qemu_image("", "1M");
    blk = open_image();
    ck_assert_int_eq(bdrv_snapshot_create(blk_bs(blk), &largest, NULL), 0);
    for (int i = 1; i < 4; i++) {
        g_autofree char *name = g_strdup_printf("%d", i);

        snapshot_ok(blk_bs(blk), name);
    }
    for (int i = 0; i < 4; i++) {
        g_autofree char *id = g_strdup_printf("%" G_GINT64_FORMAT,
                                              INT64_C(4294967294) + i);
        g_autofree char *name = g_strdup_printf("%d", i);

        ck_assert_int_eq(bdrv_snapshot_delete(blk_bs(blk), id, name, NULL),
                         0);
    }
    close_backend(blk);
}
END_TEST

/* --- failures ------------------------------------------------------------- */

/* The snapshot, if it is there, has 'A'; the disk has what it had. */
static void expect_state(void)
{
    BlockBackend *blk = open_image();
    g_autofree char *text = names(blk);

    expect_fill(blk, CLUSTER, CLUSTER, 'B');
    if (strstr(text, "s")) {
        go_to(blk, "s");
        expect_fill(blk, 0, CLUSTER, 'A');
    }
    close_backend(blk);
    expect_consistent();
}

static int do_it(BlockBackend *blk, int what)
{
    GError *error = NULL;
    int ret = what == 0   ? try_create_snapshot(blk, "new", &error)
              : what == 1 ? bdrv_snapshot_goto(blk_bs(blk), "s", &error)
                          : bdrv_snapshot_delete(blk_bs(blk), NULL, "s",
                                                 &error);

    ck_assert((ret < 0) == (error != NULL));
    g_clear_error(&error);
    return ret;
}

/* An error says that it was not done; what was done may have left clusters. */
static void expect_as_said(BlockBackend *blk, int what, int ret)
{
    g_autofree char *text = names(blk);

    if (what == 0) {
        ck_assert(!strstr(text, "new") == (ret < 0));
    } else if (what == 1) {
        expect_fill(blk, 0, CLUSTER, ret < 0 ? 'C' : 'A');
    } else {
        ck_assert(!strstr(text, "s") == (ret == 0));
    }
}

/*
 * Whichever change of the file fails: nothing that was is lost.  Two in a row
 * are also a header that could neither be changed nor put back: whichever table
 * it names then, that one stays as it is.
 */
START_TEST(a_failure_loses_nothing)
{
    unsigned more = _i / 6;
    bool failed = true;
    int ret;

    for (unsigned fail_at = 1; failed; fail_at++) {
        BlockBackend *blk;

        qemu_image(_i / 3 % 2 ? "compat=0.10" : "", "1M");
        blk = open_image();
        fill(blk, 0, CLUSTER, 'A');
        fill(blk, CLUSTER, CLUSTER, 'B');
        snapshot_ok(blk_bs(blk), "s");
        fill(blk, 0, CLUSTER, 'C');
        close_backend(blk);
        blk = open_faulty("");
        faulty_set(FAULTY_CHANGES, fail_at, 1 + more);
        ret = do_it(blk, _i % 3);
        failed = faulty_has_failed();
        if (more == 0) {
            expect_as_said(blk, _i % 3, ret);
        }
        close_backend(blk);
        expect_state();
        ck_assert_uint_lt(fail_at, 200);
    }
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(
        tcase, a_return_is_refused_below_a_filter_that_keeps_a_point_in_time);
    tcase_add_test(tcase, a_return_is_refused_below_a_mirror);
    tcase_add_test(tcase, a_return_is_refused_while_a_stream_fills_the_image);
    tcase_add_test(tcase,
                   a_return_of_the_base_is_refused_while_a_commit_fills_it);
    tcase_add_test(tcase, a_return_makes_the_bitmaps_of_all_above_dirty);
    tcase_add_loop_test(tcase, a_snapshot_keeps_what_was_there, 0, 7);
    tcase_add_loop_test(tcase,
                        snapshots_of_qemu_img_can_be_applied_and_deleted, 0,
                        2);
    tcase_add_test(tcase, qemu_img_sees_our_snapshots);
    tcase_add_test(tcase, a_snapshot_can_be_read_while_it_is_there);
    tcase_add_loop_test(tcase, r3_r69_every_snapshot_has_the_size_of_its_disk,
                        0, 12);
    tcase_add_loop_test(tcase, r3_a_snapshot_with_a_bad_l1_table_is_refused,
                        0, 5);
    tcase_add_loop_test(tcase, r2_a_table_of_impossible_size_is_refused, 0,
                        5);
    tcase_add_test(tcase, unknown_extra_data_are_kept);
    tcase_add_test(tcase, saved_machine_state_is_left_alone);
    tcase_add_loop_test(tcase, r130_snapshots_until_a_count_is_full, 0, 4);
    tcase_add_test(tcase, a_snapshot_that_is_not_there_is_an_error);
    tcase_add_test(tcase, two_snapshots_never_have_the_same_id);
    tcase_add_loop_test(tcase, a_failure_loses_nothing, 0, 12);
}

int main(void)
{
    return qemu_suite("qcow2-snapshot", add_tests);
}
