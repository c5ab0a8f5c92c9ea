/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The main() of a unit test: one suite, forked unless CK_FORK=no.
 */
#ifndef TESTS_UNIT_CHECK_MAIN_H
#define TESTS_UNIT_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

/** Add @test to @tcase; a name for what the macro of check does. */
#define PROMISE(tcase, test) tcase_add_test(tcase, test)

/** Run @suite and return the exit status of the program. */
static inline int check_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif /* TESTS_UNIT_CHECK_MAIN_H */
