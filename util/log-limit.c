/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often one source may log.
 */
#include "util/log-limit.h"

#define NS_PER_SEC INT64_C(1000000000)

bool log_limit_allows(LogLimit *limit, int64_t now_ns,
                      uint64_t *ret_left_out)
{
    if (limit->nr == 0 || now_ns - limit->begin_ns >= NS_PER_SEC) {
        limit->begin_ns = now_ns;
        limit->nr = 0;
    }
    if (limit->nr >= LOG_LIMIT_PER_SEC) {
        limit->nr_left_out++;
        return false;
    }
    limit->nr++;
    *ret_left_out = limit->nr_left_out;
    limit->nr_left_out = 0;
    return true;
}
