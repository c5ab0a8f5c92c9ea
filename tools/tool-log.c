/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library logs, as a tool prints it.
 *
 * Any thread may log, and there is one log, so what is known of it is static.
 */
#include "tools/tool-log.h"

#include <glib.h>
#include <string.h>

#include "tools/tool-print.h"
#include "util/log-limit.h"

static int64_t (*log_clock_ns)(void);

/* Guarded by @lock: where a message comes from -> LogLimit. */
static GMutex lock;
static GHashTable *limits;

/* The text of field @name, or "". */
static char *field(const GLogField *fields, gsize nr_fields, const char *name)
{
    for (gsize i = 0; i < nr_fields; i++) {
        if (g_str_equal(fields[i].key, name)) {
            return fields[i].length < 0
                       ? g_strdup(fields[i].value)
                       : g_strndup(fields[i].value, fields[i].length);
        }
    }
    return g_strdup("");
}

/* The places are those of the program's text: a bounded number. */
static bool allows(const GLogField *fields, gsize nr_fields,
                   uint64_t *ret_left_out)
{
    g_autofree char *file = field(fields, nr_fields, "CODE_FILE");
    g_autofree char *line = field(fields, nr_fields, "CODE_LINE");
    g_autofree char *place = g_strconcat(file, ":", line, NULL);
    LogLimit *limit;
    bool allowed;

    g_mutex_lock(&lock);
    limit = g_hash_table_lookup(limits, place);
    if (!limit) {
        limit = g_new0(LogLimit, 1);
        g_hash_table_insert(limits, g_steal_pointer(&place), limit);
    }
    allowed = log_limit_allows(limit, log_clock_ns(), ret_left_out);
    g_mutex_unlock(&lock);
    return allowed;
}

static GLogWriterOutput write_log(GLogLevelFlags level,
                                  const GLogField *fields, gsize nr_fields,
                                  gpointer opaque)
{
    g_autofree char *text = NULL;
    uint64_t left_out;

    if (level & ~(G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE)) {
        return g_log_writer_default(level, fields, nr_fields, opaque);
    }
    if (!allows(fields, nr_fields, &left_out)) {
        return G_LOG_WRITER_HANDLED;
    }
    text = field(fields, nr_fields, "MESSAGE");
    g_strdelimit(text, "\n", ' ');
    if (left_out > 0) {
        tool_warning("%s (%" G_GUINT64_FORMAT " like it were left out)", text,
                     left_out);
    } else {
        tool_warning("%s", text);
    }
    return G_LOG_WRITER_HANDLED;
}

void tool_log_begin(int64_t (*clock_ns)(void))
{
    log_clock_ns = clock_ns;
    limits = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_log_set_writer_func(write_log, NULL, NULL);
}
