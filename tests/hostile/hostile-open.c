/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Use every image of a hostile corpus, in processes that have little memory,
 * each for little time.
 *
 *   hostile-open DIR [CASE]
 *
 * DIR is what make-images.py wrote.  Each case is opened read-only, looked at
 * in all ways there are, and must stay as it is to the byte; then opened for
 * writing and written to, which may work or not.  A process that dies, hangs
 * or gives an error without a text fails the case, and so does one whose
 * result is not what cases.txt says.  With CASE only that one is used, its
 * errors are printed and its image is left in DIR/job0/image.
 *
 * A process goes through a batch of cases; when it dies, the next one goes on
 * behind the case that killed it.
 */
#include <blockgraph/backend.h>
#include <blockgraph/driver.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    JOBS = 2,
    BATCH = 64,
    SECONDS = 2,
    MEMORY_BYTES = 256 << 20,
    FILE_BYTES = 512 << 20,
    STATUS_STEPS = 2000,
    READ_BYTES = 4 << 20,
    NAME_BYTES = 80,
    TEXT_BYTES = 400,
};

/* A line of cases.txt. */
typedef struct Case {
    char **words;       /* name base open cluster read truncate patch... */
} Case;

enum { NAME, BASE, OPENS, CLUSTER, READ, TRUNCATE, PATCHES };

/* What the process of a case tells; shared memory. */
typedef struct Report {
    bool opened;
    bool read_done;
    char read[16];      /* "data", "packed", "zero", "error", "other" */
    bool changed;
    char problem[TEXT_BYTES];
    char error[TEXT_BYTES];
    char stage[32];
} Report;

/* Of a batch; shared memory. */
typedef struct Batch {
    guint nr_done;
    Report reports[BATCH];
} Batch;

static const char *corpus;
static bool verbose;
static Batch *batch;
static Report *report; /* of the case that is used now */

static void problem(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void problem(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(report->problem, sizeof(report->problem), fmt, args);
    va_end(args);
}

static void stage(const char *name)
{
    g_strlcpy(report->stage, name, sizeof(report->stage));
}

/* Every failure must say something. */
static void expect_text(GError **error)
{
    if (!*error || !(*error)->message[0]) {
        problem("an error without a text");
    } else {
        g_strlcpy(report->error, (*error)->message, sizeof(report->error));
        if (verbose) {
            fprintf(stderr, "%s: %s\n", report->stage, (*error)->message);
        }
    }
    g_clear_error(error);
}

/* --- the image ------------------------------------------------------------ */

static GByteArray *build(const Case *c)
{
    g_autofree char *path = g_build_filename(corpus, c->words[BASE], NULL);
    g_autofree char *content = NULL;
    GByteArray *image = g_byte_array_new();
    gsize length;

    if (!g_file_get_contents(path, &content, &length, NULL)) {
        fprintf(stderr, "no base image '%s'\n", path);
        exit(EXIT_FAILURE);
    }
    g_byte_array_append(image, (guint8 *)content, length);
    for (char **p = c->words + PATCHES; *p; p++) {
        char *hex;
        guint64 at = g_ascii_strtoull(*p, &hex, 10);
        size_t bytes = strlen(++hex) / 2, old = image->len;

        if (at + bytes > old) {
            g_byte_array_set_size(image, at + bytes);
            memset(image->data + old, 0, at + bytes - old);
        }
        for (size_t i = 0; i < bytes; i++) {
            image->data[at + i] = g_ascii_xdigit_value(hex[2 * i]) << 4 |
                                  g_ascii_xdigit_value(hex[2 * i + 1]);
        }
    }
    if (c->words[TRUNCATE][0] != '-') {
        g_byte_array_set_size(image, atoi(c->words[TRUNCATE]));
    }
    return image;
}

static void put_image(const GByteArray *image)
{
    int fd = open("image", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, image->data, image->len) != (ssize_t)image->len) {
        perror("image");
        exit(EXIT_FAILURE);
    }
    close(fd);
}

static bool is_unchanged(const GByteArray *image)
{
    g_autofree char *content = NULL;
    gsize length;

    return g_file_get_contents("image", &content, &length, NULL) &&
           length == image->len && memcmp(content, image->data, length) == 0;
}

/* --- the process of a case: looking --------------------------------------- */

static BlockBackend *open_image(BlockGraph *graph, bool write, char *snapshot)
{
    BlockOptions *options = block_options_new();
    GError *error = NULL;
    BlockBackend *blk;

    block_options_set_str(options, "driver", "qcow2");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_str(options, "file.filename", "image");
    block_options_set_bool(options, "read-only", !write);
    if (snapshot) {
        block_options_set_str(options, "snapshot", snapshot);
    }
    blk = blk_open(graph, options, &error);
    if (!blk) {
        expect_text(&error);
    }
    return blk;
}

static const char *name_content(const uint8_t *buf, int64_t bytes)
{
    for (int64_t i = 1; i < bytes; i++) {
        if (buf[i] != buf[0]) {
            return "other";
        }
    }
    switch (buf[0]) {
    case 0xd1:
        return "data";
    case 0xc0:
        return "packed";
    case 0:
        return "zero";
    default:
        return "other";
    }
}

/* Read guest cluster number @index, and say what it shows. */
static void read_cluster(BlockBackend *blk, int64_t index)
{
    BlockDriverInfo info = { 0 };
    g_autofree uint8_t *buf = g_malloc(2 << 20);
    int64_t offset;
    int ret;

    bdrv_get_info(blk_bs(blk), &info);
    offset = index * info.cluster_bytes;
    if (info.cluster_bytes <= 0 || info.cluster_bytes > 2 << 20) {
        problem("a cluster of %ld bytes", (long)info.cluster_bytes);
    } else if (offset + info.cluster_bytes <= blk_getlength(blk)) {
        ret = blk_pread(blk, offset, info.cluster_bytes, buf, 0);
        g_strlcpy(report->read, ret < 0 ? "error"
                                        : name_content(buf,
                                                       info.cluster_bytes),
                  sizeof(report->read));
        report->read_done = true;
    }
}

/* The extents cover the image once, from the start to the end. */
static void r21_extents_cover_the_image_once(BlockBackend *blk)
{
    int64_t length = blk_getlength(blk), at = 0, budget = READ_BYTES;
    g_autofree uint8_t *buf = g_malloc(1 << 20);

    for (int i = 0; i < STATUS_STEPS && at < length; i++) {
        BlockExtent extent;

        if (blk_block_status(blk, at, length - at, &extent) < 0) {
            at += MIN(65536, length - at); /* look behind the bad place */
            continue;
        }
        if (extent.bytes <= 0 || extent.bytes > length - at) {
            problem("an extent of %ld bytes at %ld of %ld",
                    (long)extent.bytes, (long)at, (long)length);
            return;
        }
        if ((extent.status & BDRV_BLOCK_DATA) && budget > 0) {
            int64_t bytes = MIN(extent.bytes, 1 << 20);

            blk_pread(blk, at, bytes, buf, 0);
            budget -= bytes;
        }
        at += extent.bytes;
    }
    if (length >= 1 << 20) {
        blk_pread(blk, length - 4096, 4096, buf, 0);
    }
}

static void look_at_snapshots(BlockGraph *graph, BlockBackend *blk)
{
    GPtrArray *list = NULL;
    GError *error = NULL;

    if (bdrv_snapshot_list(blk_bs(blk), &list, &error) < 0) {
        expect_text(&error);
        return;
    }
    for (guint i = 0; i < list->len && i < 3; i++) {
        BdrvSnapshotInfo *info = g_ptr_array_index(list, i);
        BlockBackend *view = open_image(graph, false, info->id);

        if (view) {
            r21_extents_cover_the_image_once(view);
            blk_unref(view);
        }
    }
    g_ptr_array_unref(list);
}

static void ask(BlockBackend *blk)
{
    BdrvCheck how = { 0 };
    BdrvCheckResult result = { 0 };
    BlockOptions *specific = NULL;
    GPtrArray *list = NULL;
    GError *error = NULL;

    stage("bitmaps");
    if (bdrv_stored_bitmap_list(blk_bs(blk), &list, &error) < 0) {
        expect_text(&error);
    } else {
        g_ptr_array_unref(list);
    }
    stage("info");
    if (bdrv_get_specific_info(blk_bs(blk), &specific, &error) < 0) {
        expect_text(&error);
    }
    block_options_free(specific);
    stage("check");
    if (bdrv_check(blk_bs(blk), &how, &result, &error) < 0) {
        expect_text(&error);
    }
}

static void look(const Case *c)
{
    BlockGraph *graph = block_graph_new(NULL, NULL);
    BlockBackend *blk;

    stage("open");
    blk = open_image(graph, false, NULL);
    report->opened = blk != NULL;
    if (blk) {
        stage("read");
        read_cluster(blk, atoi(c->words[CLUSTER]));
        stage("walk");
        r21_extents_cover_the_image_once(blk);
        stage("snapshots");
        look_at_snapshots(graph, blk);
        ask(blk);
        stage("close");
        blk_unref(blk);
    }
    block_graph_free(graph);
}

/* --- the process of a case: writing --------------------------------------- */

static void change(void)
{
    BlockGraph *graph = block_graph_new(NULL, NULL);
    g_autofree uint8_t *buf = g_malloc0(128 << 10);
    BlockBackend *blk;
    GError *error = NULL;

    stage("open for writing");
    blk = open_image(graph, true, NULL);
    if (blk) {
        int64_t length = blk_getlength(blk);

        stage("write");
        memset(buf, 0x77, 128 << 10);
        for (int64_t at = 0; at < length && at < 16 * 65536; at += 65536) {
            blk_pwrite(blk, at + 512, MIN(4096, length - at - 512), buf, 0);
        }
        blk_pwrite_zeroes(blk, 0, MIN(length, 65536), BDRV_REQ_MAY_UNMAP);
        blk_pdiscard(blk, 0, MIN(length, 1 << 20));
        stage("flush");
        blk_flush(blk);
        stage("add a bitmap");
        if (bdrv_stored_bitmap_add(blk_bs(blk), "new", 65536, &error) < 0) {
            expect_text(&error);
        }
        stage("close after writing");
        blk_unref(blk);
    }
    block_graph_free(graph);
}

/* --- the parent ----------------------------------------------------------- */

static GLogWriterOutput silent(GLogLevelFlags level, const GLogField *fields,
                               gsize nr, gpointer opaque)
{
    return level & (G_LOG_FLAG_FATAL | G_LOG_LEVEL_ERROR)
               ? g_log_writer_default(level, fields, nr, opaque)
               : G_LOG_WRITER_HANDLED;
}

static void limit(int resource, rlim_t value)
{
    struct rlimit limit = { value, value };

    setrlimit(resource, &limit);
}

/* Use one case, in the process of a batch. */
static void use(const Case *c)
{
    g_autoptr(GByteArray) image = build(c);

    put_image(image);
    alarm(SECONDS);
    look(c);
    report->changed = !is_unchanged(image);
    alarm(SECONDS);
    change();
    stage("end");
}

/* The cases @nr from @first on. */
G_GNUC_NORETURN static void child(Case **first, guint nr)
{
    if (!verbose) {
        g_log_set_writer_func(silent, NULL, NULL);
    }
    signal(SIGXFSZ, SIG_IGN);
#ifndef __SANITIZE_ADDRESS__
    /* Threads would each reserve an arena, and a shadow is far larger. */
    mallopt(M_ARENA_MAX, 1);
    limit(RLIMIT_AS, MEMORY_BYTES);
#endif
    limit(RLIMIT_FSIZE, FILE_BYTES);
    limit(RLIMIT_CORE, 0);
    for (guint i = 0; i < nr; i++) {
        report = &batch->reports[i];
        use(first[i]);
        batch->nr_done = i + 1;
    }
    alarm(SECONDS);
    exit(EXIT_SUCCESS);
}

static bool matches(const char *expected, const char *found)
{
    return g_str_equal(expected, "any") || g_str_equal(expected, found) ||
           (g_str_equal(expected, "dataerror") &&
            (g_str_equal(found, "data") || g_str_equal(found, "error")));
}

/* What is wrong with how the case ended, or NULL. */
static char *judge(const Case *c, int status)
{
    char **w = c->words;

    if (WIFSIGNALED(status)) {
        return g_strdup_printf("killed by %s during '%s'",
                               strsignal(WTERMSIG(status)), report->stage);
    }
    if (WEXITSTATUS(status) != 0) {
        return g_strdup_printf("status %d during '%s'", WEXITSTATUS(status),
                               report->stage);
    }
    if (report->problem[0]) {
        return g_strdup(report->problem);
    }
    if (report->changed) {
        return g_strdup("the image was changed by reading it");
    }
    if (!matches(w[OPENS], report->opened ? "yes" : "no")) {
        return g_strdup_printf("opened: %s, expected: %s (%s)",
                               report->opened ? "yes" : "no", w[OPENS],
                               report->error);
    }
    if (report->read_done && !matches(w[READ], report->read)) {
        return g_strdup_printf("cluster %s shows %s, expected: %s",
                               w[CLUSTER], report->read, w[READ]);
    }
    return NULL;
}

/* Whether the case, whose process ended with @status, is as it should be. */
static bool accept(const Case *c, int status)
{
    g_autofree char *wrong = judge(c, status);

    if (wrong) {
        printf("FAIL %s: %s\n", c->words[NAME], wrong);
    } else if (verbose) {
        printf("ok %s: %s, cluster shows %s (%s)\n", c->words[NAME],
               report->opened ? "opened" : "refused", report->read,
               report->error);
    }
    return !wrong;
}

/* Use up to @nr cases from @first on; returns how many were used. */
static guint run_batch(Case **first, guint nr, guint *failed, long *peak_kib)
{
    struct rusage usage;
    int status = 0;
    guint done;
    pid_t pid;

    memset(batch, 0, sizeof(*batch));
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        child(first, nr);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        perror("fork");
        exit(EXIT_FAILURE);
    }
    *peak_kib = MAX(*peak_kib, usage.ru_maxrss);
    done = batch->nr_done;
    for (guint i = 0; i < done; i++) {
        report = &batch->reports[i];
        *failed += !accept(first[i], 0);
    }
    if (status != 0 && done < nr) {
        report = &batch->reports[done];
        *failed += !accept(first[done], status);
        done++;
    } else if (status != 0) {
        printf("FAIL at the end of the batch of %s: status %x\n",
               first[0]->words[NAME], status);
        *failed += 1;
    }
    return done;
}

/* A directory of its own with what the images name. */
static void enter_job(int job)
{
    static const char *const files[] = { "b", "v3" };
    g_autofree char *dir = g_strdup_printf("%s/job%d", corpus, job);

    mkdir(dir, 0700);
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *from = g_build_filename(corpus, files[i], NULL);
        g_autofree char *to = g_build_filename(dir, files[i], NULL);
        g_autofree char *content = NULL;
        gsize length;

        if (g_file_get_contents(from, &content, &length, NULL)) {
            g_file_set_contents(to, content, length, NULL);
        }
    }
    if (chdir(dir) < 0) {
        perror(dir);
        exit(EXIT_FAILURE);
    }
    mkfifo("fifo", 0600);
    batch = mmap(NULL, sizeof(*batch), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(batch != MAP_FAILED);
}

/* Run the cases of @job; returns the exit status. */
static int run_job(GPtrArray *cases, int job)
{
    guint from = verbose ? 0 : cases->len * job / JOBS;
    guint to = verbose ? cases->len : cases->len * (job + 1) / JOBS;
    guint failed = 0;
    long peak_kib = 0;

    enter_job(job);
    for (guint i = from; i < to;) {
        i += run_batch((Case **)cases->pdata + i, MIN(to - i, BATCH), &failed,
                       &peak_kib);
    }
    printf("job %d: %u cases, %u failed, at most %ld MiB\n", job, to - from,
           failed, peak_kib >> 10);
    fflush(stdout);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static GPtrArray *read_cases(const char *only)
{
    g_autofree char *path = g_build_filename(corpus, "cases.txt", NULL);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    GPtrArray *cases = g_ptr_array_new();

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        fprintf(stderr, "no cases in '%s'\n", path);
        exit(EXIT_FAILURE);
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line && **line; line++) {
        Case *c = g_new0(Case, 1);

        c->words = g_strsplit(*line, " ", -1);
        if (g_strv_length(c->words) < PATCHES) {
            fprintf(stderr, "bad line: %.60s\n", *line);
            exit(EXIT_FAILURE);
        }
        if (!only || g_str_equal(c->words[NAME], only)) {
            g_ptr_array_add(cases, c);
        } else {
            g_strfreev(c->words);
            g_free(c);
        }
    }
    return cases;
}

int main(int argc, char **argv)
{
    static GPtrArray *cases; /* until the end, in every process */
    int failed = 0, status;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: hostile-open DIR [CASE]\n");
        return EXIT_FAILURE;
    }
    corpus = realpath(argv[1], NULL);
    verbose = argc == 3;
    cases = read_cases(argc == 3 ? argv[2] : NULL);
    if (cases->len == 0) {
        fprintf(stderr, "no such case\n");
        return EXIT_FAILURE;
    }
    if (verbose) {
        return run_job(cases, 0);
    }
    for (int job = 0; job < JOBS; job++) {
        if (fork() == 0) {
            exit(run_job(cases, job));
        }
    }
    while (wait(&status) > 0) {
        failed |= status;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
