/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The image "t.qcow2": made by qemu-img, looked at by qemu-img check.
 *
 * In commands "%s" stands for the directory of the test, always first.
 */
#ifndef TESTS_UNIT_QCOW2_FIXTURE_H
#define TESTS_UNIT_QCOW2_FIXTURE_H

#include "image-fixture.h"

#include <sys/wait.h>

#include "block/formats/qcow2/refcount.h"

/** Run a shell command; returns its exit status. */
static inline int run(const char *format, ...)
{
    g_autofree char *command = NULL;
    va_list args;
    int status;

    va_start(args, format);
    command = options_text_v(format, args);
    va_end(args);
    status = system(command);
    ck_assert_msg(WIFEXITED(status), "%s", command);
    return WEXITSTATUS(status);
}

/** Whether qemu-img is there; tests that need it do nothing without. */
static inline bool have_qemu(void)
{
    return system("qemu-img --version >/dev/null 2>&1 && "
                  "qemu-io --version >/dev/null 2>&1") == 0;
}

/** Make "t.qcow2" with qemu-img; @options as for -o; @size with unit. */
static inline void qemu_image(const char *options, const char *size)
{
    ck_assert_int_eq(run("cd %s && qemu-img create -q -f qcow2 -o '%s' "
                         "t.qcow2 %s", *options ? options : "compat=1.1",
                         size), 0);
}

/** Commands of qemu-io, each an argument of -c. */
static inline void qemu_io(const char *commands)
{
    ck_assert_int_eq(run("cd %s && qemu-io -f qcow2 %s t.qcow2 >/dev/null",
                         commands), 0);
}

/** "t.qcow2" has no errors and no leaks, says qemu-img. */
static inline void expect_clean(void)
{
    ck_assert_int_eq(run("cd %s && qemu-img check -f qcow2 t.qcow2 "
                         ">check.log 2>&1 || { cat check.log; false; }"), 0);
}

/** "t.qcow2" has no errors, but perhaps leaks, says qemu-img. */
static inline void expect_consistent(void)
{
    int status = run("cd %s && qemu-img check -f qcow2 t.qcow2 "
                     ">check.log 2>&1");

    if (status != 0 && status != 3) {
        run("cat %s/check.log");
    }
    ck_assert(status == 0 || status == 3);
}

/** Open "t.qcow2" for writing. */
static inline BlockBackend *open_image(void)
{
    return file_backend("qcow2,node-name=q,file.driver=file,"
                        "file.filename=%s/t.qcow2");
}

/** The driver's state of the node of @blk. */
static inline Qcow2 *state_of(BlockBackend *blk)
{
    return bdrv_opaque(blk_bs(blk));
}

/** Open "t.qcow2" on the filter "faulty"; @more: options, each with a comma
 * before. */
static inline BlockBackend *open_faulty(const char *more)
{
    g_autofree char *text = g_strdup_printf(
        "qcow2,node-name=q,file.driver=faulty,file.file.driver=file,"
        "file.file.filename=%%s/t.qcow2%s", more);

    return file_backend(text);
}

/* Bytes of "t.qcow2". */
static inline void poke(int64_t offset, const void *bytes, size_t n)
{
    patch_file("t.qcow2", offset, bytes, n);
}

static inline void poke64(int64_t offset, uint64_t value)
{
    patch64("t.qcow2", offset, value);
}

static inline void peek(int64_t offset, void *bytes, size_t n)
{
    peek_file("t.qcow2", offset, bytes, n);
}

static inline uint64_t read64(int64_t offset)
{
    return peek64("t.qcow2", offset);
}

/** Run @entry(@opaque) in a coroutine of the main context. */
static inline int in_co(int coroutine_fn (*entry)(void *), void *opaque)
{
    return aio_co_run(block_graph_aio_context(graph), entry, opaque);
}

/* On the stack of count_of(). */
typedef struct CountCall {
    Qcow2 *q;
    int64_t offset;
    uint64_t count;
} CountCall;

static inline int coroutine_fn count_entry(void *opaque)
{
    CountCall *call = opaque;
    int ret;

    co_mutex_lock(&call->q->meta_lock);
    ret = qcow2_refcount_get(call->q,
                             call->offset >> call->q->geo.cluster_bits,
                             &call->count);
    co_mutex_unlock(&call->q->meta_lock);
    return ret;
}

/** The refcount of the host cluster at @offset. */
static inline uint64_t count_of(BlockBackend *blk, int64_t offset)
{
    CountCall call = { .q = state_of(blk), .offset = offset };

    ck_assert_int_eq(in_co(count_entry, &call), 0);
    return call.count;
}

/** The program of the suite @name of one case, each test in a folder of its own
 * and done after @timeout_s. */
static inline int qcow2_suite(const char *name, double timeout_s,
                              void (*add_tests)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);

    register_faulty_driver();
    tcase_add_checked_fixture(tcase, file_setup, file_teardown);
    tcase_set_timeout(tcase, timeout_s);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}

static inline void add_no_tests(TCase *tcase)
{
    g_print("no qemu-img: nothing is tested\n");
}

/** qcow2_suite(), of which nothing is run where qemu-img is missing. */
static inline int qemu_suite(const char *name, void (*add_tests)(TCase *))
{
    return qcow2_suite(name, 60, have_qemu() ? add_tests : add_no_tests);
}

#endif /* TESTS_UNIT_QCOW2_FIXTURE_H */
