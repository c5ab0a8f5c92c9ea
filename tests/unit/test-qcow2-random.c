/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random work on images of all shapes against an array of bytes.
 *
 * The seed is printed when a test fails; QCOW2_SEED=n repeats it.
 */
#include "image-fixture.h"

#include "block/graph/table-memory.h"

enum {
    BACKED = 1 << 0,     /* by a shorter raw file */
    COMPRESSES = 1 << 1,
    SNAPSHOTS = 1 << 2,
    DISCARDS_NOT = 1 << 3, /* it would show the backing file */
    FAULTS = 1 << 4,       /* some changes of the file fail */
    MEMORY = 1 << 5,       /* some memory for tables is refused; it grows */
};

/* What images are made and opened with. */
typedef struct Shape {
    const char *create;
    const char *open;
    int64_t cluster;
    unsigned features;
} Shape;

#define SNAPSHOTS_MAX 3
#define GROWTH_MAX 30 /* times its first size */

/* An image, and what it should hold. */
typedef struct Model {
    const Shape *shape;
    BlockBackend *blk;
    GRand *rand;
    guint32 seed;
    unsigned step;
    int64_t size;
    uint8_t *bytes;
    unsigned nr_snapshots; /* named by their index */
    uint8_t *snapshot[SNAPSHOTS_MAX];
    int64_t snapshot_size[SNAPSHOTS_MAX];
    int64_t size_max;
} Model;

/* Not an assertion of check, each of which costs a system call. */
#define SAY(m, condition)                                                     \
    if (!(condition))                                                         \
    ck_abort_msg("seed %u, step %u, image '%s' open '%s': %s",    \
                 (m)->seed, (m)->step, (m)->shape->create,                    \
                 (m)->shape->open, #condition)

static guint32 first_seed(void)
{
    const char *given = g_getenv("QCOW2_SEED");

    return given ? (guint32)g_ascii_strtoull(given, NULL, 10)
                 : g_random_int();
}

static int64_t below(Model *m, int64_t end)
{
    return g_rand_double(m->rand) * end;
}

/* --- images --------------------------------------------------------------- */

static void model_open(Model *m)
{
    g_autofree char *backing = path_of("base");
    GString *options = g_string_new("qcow2,discard=unmap");

    BlockDriverState *bs;
    g_autoptr(GError) error = NULL;

    g_string_append_printf(options, "%s%s", *m->shape->open ? "," : "",
                           m->shape->open);
    if (m->shape->features & BACKED) {
        g_string_append_printf(options, ",backing.driver=file,"
                               "backing.filename=%s", backing);
    }
    bs = bdrv_open(graph, faulty_options("a", options->str), &error);
    ck_assert_msg(bs != NULL, "%s", error ? error->message : "");
    m->blk = backend_of(bs);
    g_string_free(options, true);
}

static void make_base(Model *m)
{
    int64_t bytes = m->size / 2 + m->shape->cluster / 4 * 3;
    g_autofree char *base = g_malloc(bytes);

    for (int64_t i = 0; i < bytes; i++) {
        base[i] = m->bytes[i] = 128 + i / 512 % 127;
    }
    make_file("base", 0);
    patch_file("base", 0, base, bytes);
}

static void model_make(Model *m, const Shape *shape, guint32 seed)
{
    g_autofree char *options = NULL;

    *m = (Model){ .shape = shape, .seed = seed,
                  .rand = g_rand_new_with_seed(seed) };
    m->size = MAX(24 * shape->cluster, 256 << 10) + 1536;
    m->size_max = m->size * GROWTH_MAX;
    m->bytes = g_malloc0(m->size_max);
    if (shape->features & BACKED) {
        make_base(m);
    }
    options = g_strdup_printf("size=%ld,%s", (long)m->size, shape->create);
    make_image_ok("a", options);
    model_open(m);
}

static void model_free(Model *m)
{
    for (unsigned i = 0; i < m->nr_snapshots; i++) {
        g_free(m->snapshot[i]);
    }
    g_free(m->bytes);
    g_rand_free(m->rand);
}

static void check_image(Model *m)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result;
    g_autoptr(GError) error = NULL;

    SAY(m, blk_flush(m->blk) == 0);
    SAY(m, blk_flush(m->blk) == 0); /* what the first one gave back */
    SAY(m, bdrv_check(blk_bs(m->blk), &how, &result, &error) == 0);
    SAY(m, result.corruptions == 0);
    SAY(m, result.check_errors == 0);
    SAY(m, result.leaks == 0 || m->shape->features & FAULTS);
}

static void compare(Model *m, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    SAY(m, blk_pread(m->blk, offset, bytes, buf, 0) == 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != m->bytes[offset + i]) {
            ck_abort_msg("seed %u, step %u, image '%s' open '%s': byte %ld is "
                         "%d, expected %d", m->seed, m->step,
                         m->shape->create, m->shape->open, (long)(offset + i),
                         buf[i], m->bytes[offset + i]);
        }
    }
}

/* What block status claims must be what is read; R65. */
static void compare_status(Model *m)
{
    for (int64_t at = 0; at < m->size;) {
        BlockExtent extent;

        SAY(m, blk_block_status(m->blk, at, m->size - at, &extent) == 0);
        SAY(m, extent.bytes > 0 && extent.bytes <= m->size - at);
        for (int64_t i = at; extent.status & BDRV_BLOCK_ZERO &&
             i < at + extent.bytes; i++) {
            SAY(m, m->bytes[i] == 0);
        }
        at += extent.bytes;
    }
}

/* --- steps ---------------------------------------------------------------- */

/* Of sectors, clusters or bytes, up to five clusters. */
static void choose_range(Model *m, int64_t *offset, int64_t *bytes)
{
    static const int64_t units[] = { 512, 512, 0, 1 };
    int64_t unit = units[below(m, 4)];

    unit = unit ? unit : m->shape->cluster;
    *offset = below(m, m->size) / unit * unit;
    *bytes = (1 + below(m, below(m, 2) ? 5 * m->shape->cluster : 4096)) /
             unit * unit;
    *bytes = CLAMP(*bytes, MIN(unit, m->size - *offset), m->size - *offset);
}

/* Whether an operation has worked; if it has not, it was to be refused. */
static bool worked(Model *m, int ret, GError *error)
{
    bool allowed = ret == 0 || (m->shape->features & FAULTS) ||
                   (ret == -EFBIG && (m->shape->features & MEMORY));

    faulty_clear();
    if (!allowed) {
        ck_abort_msg("seed %u, step %u, image '%s' open '%s': %s", m->seed,
                     m->step, m->shape->create, m->shape->open,
                     error ? error->message : g_strerror(-ret));
    }
    return ret == 0;
}

/* A change has ended: @new is there if it worked, else some of it. */
static void changed(Model *m, int ret, int64_t offset, int64_t bytes,
                    const uint8_t *new)
{
    g_autofree uint8_t *now = NULL;

    if (worked(m, ret, NULL)) {
        memcpy(m->bytes + offset, new, bytes);
        return;
    }
    now = g_malloc(bytes);
    SAY(m, blk_pread(m->blk, offset, bytes, now, 0) == 0);
    for (int64_t i = 0; i < bytes; i++) {
        SAY(m, now[i] == new[i] || now[i] == m->bytes[offset + i]);
    }
    memcpy(m->bytes + offset, now, bytes);
}

static void step_write(Model *m)
{
    g_autofree uint8_t *new = NULL;
    int64_t offset, bytes;
    int ret;

    choose_range(m, &offset, &bytes);
    new = g_malloc(bytes);
    for (int64_t i = 0; i < bytes; i++) {
        new[i] = 1 + below(m, 127);
    }
    ret = blk_pwrite(m->blk, offset, bytes, new,
                     below(m, 8) ? 0 : BDRV_REQ_FUA);
    changed(m, ret, offset, bytes, new);
}

static void step_zero(Model *m)
{
    g_autofree uint8_t *zeroes = NULL;
    int64_t offset, bytes;

    choose_range(m, &offset, &bytes);
    zeroes = g_malloc0(bytes);
    changed(m, blk_pwrite_zeroes(m->blk, offset, bytes,
                                 below(m, 2) ? BDRV_REQ_MAY_UNMAP : 0),
            offset, bytes, zeroes);
}

/* Whole clusters read as zero then; parts of some may stay. */
static void step_discard(Model *m)
{
    int64_t cluster = m->shape->cluster;
    int64_t offset, bytes, first, last;
    g_autofree uint8_t *buf = NULL;
    bool done;

    choose_range(m, &offset, &bytes);
    first = (offset + cluster - 1) / cluster * cluster;
    last = (offset + bytes) / cluster * cluster;
    buf = g_malloc(bytes);
    done = worked(m, blk_pdiscard(m->blk, offset, bytes), NULL);
    SAY(m, blk_pread(m->blk, offset, bytes, buf, 0) == 0);
    for (int64_t i = offset; i < offset + bytes; i++) {
        uint8_t now = buf[i - offset];

        SAY(m, now == 0 || now == m->bytes[i]);
        SAY(m, now == 0 || i < first || i >= last || !done ||
                   m->shape->features & DISCARDS_NOT);
        m->bytes[i] = now;
    }
}

static void step_compress(Model *m)
{
    int64_t cluster = m->shape->cluster;
    int64_t offset = below(m, m->size) / cluster * cluster;
    int64_t bytes = (1 + below(m, 3)) * cluster;
    unsigned noise = below(m, 101);
    g_autofree uint8_t *new = NULL;

    bytes = MIN(bytes, m->size - offset);
    new = g_malloc(bytes);
    for (int64_t i = 0; i < bytes; i++) {
        new[i] = below(m, 100) < noise ? 1 + below(m, 127) : 99;
    }
    changed(m, blk_pwrite(m->blk, offset, bytes, new,
                          BDRV_REQ_WRITE_COMPRESSED), offset, bytes, new);
}

static void step_snapshot(Model *m)
{
    unsigned i = m->nr_snapshots;
    char name[] = { 's', '0' + i, '\0' };
    BdrvSnapshotInfo info = { .name = name };
    g_autoptr(GError) error = NULL;

    if (i < SNAPSHOTS_MAX &&
        worked(m, bdrv_snapshot_create(blk_bs(m->blk), &info, &error),
               error)) {
        m->snapshot[i] = g_memdup2(m->bytes, m->size);
        m->snapshot_size[i] = m->size;
        m->nr_snapshots++;
    }
}

static void step_goto(Model *m)
{
    unsigned i = below(m, MAX(m->nr_snapshots, 1));
    char name[] = { 's', '0' + i, '\0' };
    g_autoptr(GError) error = NULL;

    if (m->nr_snapshots > 0 &&
        worked(m, bdrv_snapshot_goto(blk_bs(m->blk), name, &error), error)) {
        m->size = m->snapshot_size[i];
        memset(m->bytes, 0, m->size_max);
        memcpy(m->bytes, m->snapshot[i], m->size);
    }
}

static void step_delete_snapshot(Model *m)
{
    char name[] = { 's', '0' + m->nr_snapshots - 1, '\0' };
    g_autoptr(GError) error = NULL;

    if (m->nr_snapshots > 0 &&
        worked(m, bdrv_snapshot_delete(blk_bs(m->blk), NULL, name, &error),
               error)) {
        g_free(m->snapshot[--m->nr_snapshots]);
    }
}

static void step_grow(Model *m)
{
    BlockTruncate how = { .offset = m->size +
                                    below(m, 60) * m->shape->cluster };
    g_autoptr(GError) error = NULL;

    if (how.offset > m->size_max) {
        return;
    }
    if (worked(m, blk_truncate(m->blk, &how, &error), error)) {
        SAY(m, blk_getlength(m->blk) == how.offset);
    }
    m->size = blk_getlength(m->blk);
}

static void step_amend(Model *m)
{
    static const char *const widths[] = { "8", "16", "32", "64" };
    g_autofree char *text = g_strdup_printf("refcount_bits=%s",
                                            widths[below(m, 4)]);
    g_autoptr(GError) error = NULL;

    worked(m, bdrv_amend(blk_bs(m->blk), opts(text), &error), error);
}

static void step_options(Model *m)
{
    static const char *const options[] = {
        "overlap-check=all", "overlap-check=cached",
        "l2-cache-entry-size=512,l2-cache-size=16k", "refcount-cache-size=64k",
    };
    g_autoptr(GError) error = NULL;

    worked(m, try_reopen(blk_bs(m->blk), options[below(m, 4)], &error), error);
}

static void step_repair(Model *m)
{
    BdrvCheck how = { .flags = BDRV_CHECK_FIX_LEAKS | BDRV_CHECK_FIX_ERRORS };
    BdrvCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;

    worked(m, bdrv_check(blk_bs(m->blk), &how, &result, &error), error);
    SAY(m, result.corruptions + result.corruptions_fixed == 0);
}

static void step_reopen(Model *m)
{
    faulty_clear(); /* what cannot be written at close is lost */
    table_memory_set_max(0, 0);
    close_backend(m->blk);
    SAY(m, table_memory_of_process() == 0);
    model_open(m);
}

static void step_read(Model *m)
{
    int64_t offset, bytes;

    choose_range(m, &offset, &bytes);
    compare(m, offset, bytes);
}

static void step_flush(Model *m)
{
    int ret = blk_flush(m->blk);

    SAY(m, ret == 0 || m->shape->features & FAULTS);
}

static const struct {
    unsigned percent;
    unsigned needs;
    void (*take)(Model *m);
} steps[] = {
    { 5, MEMORY, step_grow }, { 3, MEMORY, step_amend },
    { 3, MEMORY, step_options }, { 1, MEMORY, step_repair },
    { 28, 0, step_write }, { 15, 0, step_zero }, { 12, 0, step_discard },
    { 9, COMPRESSES, step_compress }, { 3, SNAPSHOTS, step_snapshot },
    { 1, SNAPSHOTS, step_goto }, { 2, SNAPSHOTS, step_delete_snapshot },
    { 4, 0, step_flush }, { 1, 0, step_reopen }, { 13, 0, step_read },
};

/* From now on tables may have a little more than they have, or less. */
static void change_memory(Model *m)
{
    int64_t has = table_memory_of_node(bdrv_table_account(blk_bs(m->blk)));
    int64_t more = below(m, below(m, 2) ? 4096 : 65536);

    switch (below(m, 8)) {
    case 0:
        table_memory_set_max(1, 0);
        break;
    case 1:
    case 2:
    case 3:
        table_memory_set_max(has + more - 2048, 0);
        break;
    default:
        table_memory_set_max(0, 0);
    }
}

static void step(Model *m)
{
    int64_t dice = below(m, 100);
    unsigned i = 0;

    m->step++;
    while (dice >= steps[i].percent) {
        dice -= steps[i++].percent;
    }
    if ((m->shape->features & FAULTS) && below(m, 4) == 0) {
        faulty_set(FAULTY_CHANGES, 1 + below(m, 8), 1);
    }
    if (m->shape->features & MEMORY) {
        change_memory(m);
    }
    if ((steps[i].needs & m->shape->features) == steps[i].needs) {
        steps[i].take(m);
    } else {
        step_write(m);
    }
    faulty_clear();
    table_memory_set_max(0, 0);
}

static void work(const Shape *shape, guint32 seed, unsigned rounds)
{
    Model m;

    model_make(&m, shape, seed);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < 60; i++) {
            step(&m);
        }
        compare(&m, 0, m.size);
        compare_status(&m);
        check_image(&m);
    }
    while (m.nr_snapshots > 0) {
        step_delete_snapshot(&m); /* nothing is refused now */
    }
    step_reopen(&m);
    compare(&m, 0, m.size);
    check_image(&m);
    close_backend(m.blk);
    if (!strstr(shape->create, "data_file") &&
        !(shape->features & FAULTS)) {
        SAY(&m, qemu_img_ok("check -q -f qcow2", "a"));
    }
    model_free(&m);
}

static void work_on(const Shape *shapes, unsigned nr)
{
    guint32 seed = first_seed();

    for (unsigned i = 0; i < nr; i++) {
        work(&shapes[i], seed + i, 4);
    }
}

#define WORK_ON(shapes) work_on(shapes, G_N_ELEMENTS(shapes))

/* --- promises ------------------------------------------------------------- */

/* R56: refcount blocks are wanted often, and tables are tiny. */
START_TEST(R56_with_512_byte_clusters_no_cluster_has_two_owners)
{
    static const Shape shapes[] = {
        { "cluster_size=512", "", 512, COMPRESSES | SNAPSHOTS },
        { "cluster_size=512,refcount_bits=64", "", 512,
          BACKED | SNAPSHOTS | COMPRESSES },
        { "cluster_size=512,refcount_bits=1", "", 512, BACKED },
        { "cluster_size=512,compat=0.10", "", 512, COMPRESSES | SNAPSHOTS },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(usual_images_hold_what_was_written)
{
    static const Shape shapes[] = {
        { "cluster_size=4k", "", 4096, COMPRESSES | SNAPSHOTS },
        { "cluster_size=64k", "", 65536, BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=4k,refcount_bits=8", "pass-discard-other=on", 4096,
          BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=4k,lazy_refcounts=on", "", 4096,
          BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=4k,compat=0.10", "", 4096,
          BACKED | SNAPSHOTS | DISCARDS_NOT },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(R58_the_smallest_caches_do_for_any_work)
{
    static const Shape shapes[] = {
        { "cluster_size=512", "l2-cache-size=1,l2-cache-entry-size=512,"
          "refcount-cache-size=1", 512, COMPRESSES | SNAPSHOTS },
        { "cluster_size=4k", "l2-cache-size=1,l2-cache-entry-size=512,"
          "refcount-cache-size=1", 4096, BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=16k,extended_l2=on", "l2-cache-size=1,"
          "l2-cache-entry-size=512,refcount-cache-size=1", 16384, BACKED },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(images_with_subclusters_hold_what_was_written)
{
    static const Shape shapes[] = {
        { "cluster_size=16k,extended_l2=on", "", 16384, SNAPSHOTS },
        { "cluster_size=16k,extended_l2=on", "", 16384,
          BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=64k,extended_l2=on", "discard-no-unref=on", 65536,
          BACKED | COMPRESSES | SNAPSHOTS },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(images_with_a_data_file_hold_what_was_written)
{
    static const Shape shapes[] = {
        { "cluster_size=4k,data_file=d", "", 4096, 0 },
        { "cluster_size=4k,data_file=d", "", 4096, BACKED },
        { "cluster_size=4k,data_file=d,data_file_raw=on", "", 4096, 0 },
        { "cluster_size=16k,data_file=d,extended_l2=on", "", 16384, BACKED },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(R68_clusters_that_keep_their_place_hold_what_was_written)
{
    static const Shape shapes[] = {
        { "cluster_size=4k", "discard-no-unref=on", 4096,
          COMPRESSES | SNAPSHOTS },
        { "cluster_size=512", "discard-no-unref=on", 512,
          BACKED | COMPRESSES | SNAPSHOTS },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(zeroes_that_are_detected_change_nothing_else)
{
    static const Shape shapes[] = {
        { "cluster_size=4k", "detect-zeroes=unmap", 4096,
          BACKED | COMPRESSES | SNAPSHOTS },
        { "cluster_size=16k,extended_l2=on", "detect-zeroes=unmap", 16384,
          BACKED },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(R125_work_that_fails_now_and_then_leaves_images_sound)
{
    static const Shape shapes[] = {
        { "cluster_size=512", "", 512, BACKED | COMPRESSES | FAULTS },
        { "cluster_size=4k", "pass-discard-other=on", 4096,
          COMPRESSES | FAULTS },
        { "cluster_size=4k", "l2-cache-size=1,l2-cache-entry-size=512,"
          "refcount-cache-size=1", 4096, BACKED | COMPRESSES | FAULTS },
        { "cluster_size=16k,extended_l2=on", "", 16384, BACKED | FAULTS },
        { "cluster_size=4k,data_file=d", "", 4096, BACKED | FAULTS },
    };

    WORK_ON(shapes);
}
END_TEST

START_TEST(work_that_is_refused_memory_leaves_images_sound)
{
    static const Shape shapes[] = {
        { "cluster_size=512", "", 512, SNAPSHOTS | COMPRESSES | MEMORY },
        { "cluster_size=512,refcount_bits=64", "overlap-check=all", 512,
          SNAPSHOTS | COMPRESSES | MEMORY },
        { "cluster_size=4k", "overlap-check=all", 4096,
          SNAPSHOTS | COMPRESSES | MEMORY },
        { "cluster_size=512,lazy_refcounts=on", "", 512, SNAPSHOTS | MEMORY },
        { "cluster_size=512", "overlap-check=all", 512,
          SNAPSHOTS | COMPRESSES | MEMORY | FAULTS },
    };

    WORK_ON(shapes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2-random");
    TCase *tcase = tcase_create("qcow2-random");

    register_pass_driver();
    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, 100);
    PROMISE(tcase, R56_with_512_byte_clusters_no_cluster_has_two_owners);
    PROMISE(tcase, usual_images_hold_what_was_written);
    PROMISE(tcase, R58_the_smallest_caches_do_for_any_work);
    PROMISE(tcase, images_with_subclusters_hold_what_was_written);
    PROMISE(tcase, images_with_a_data_file_hold_what_was_written);
    PROMISE(tcase, R68_clusters_that_keep_their_place_hold_what_was_written);
    PROMISE(tcase, zeroes_that_are_detected_change_nothing_else);
    PROMISE(tcase, R125_work_that_fails_now_and_then_leaves_images_sound);
    PROMISE(tcase, work_that_is_refused_memory_leaves_images_sound);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
