/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of blkdebug.
 *
 * Rules of both notations, option lists and configuration files, become the
 * same option trees and are read by the same two tables.
 */
#include "block/filters/blkdebug-rules.h"

#include <blockgraph/block.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "util/list.h"

#define SECTOR_BYTES 512

const char *const blkdebug_event_names[] = {
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_cow_read",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "cor_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_alloc_space",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_head",
    "pwritev_rmw_after_head",
    "pwritev_rmw_tail",
    "pwritev_rmw_after_tail",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "pdiscard",
    "empty_image_prepare",
    "none",
    NULL
};

#define NR_EVENTS (G_N_ELEMENTS(blkdebug_event_names) - 1)

static const char *const io_type_names[] = {
    "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL
};

/* What a rule without "iotype" applies to: all that moves or keeps data. */
#define IO_TYPES_BY_DEFAULT ((1u << BLKDEBUG_BLOCK_STATUS) - 1)

typedef enum RuleKind {
    RULE_INJECT_ERROR,
    RULE_SET_STATE,
    RULE_BREAK,
} RuleKind;

/* The fields of both tables; each table fills its own. */
typedef struct RuleOptions {
    int event;
    int64_t state;
    int io_type;
    int64_t error;
    int64_t sector;
    bool once;
    bool immediately;
    int64_t new_state;
} RuleOptions;

typedef struct Rule {
    ListHead link;        /* in rules->by_event */
    ListHead active_link; /* in rules->active, or unlinked */
    RuleKind kind;
    RuleOptions options;
    unsigned io_types;    /* bits of 1 << BlkdebugIoType */
    char *tag;            /* of a break point */
} Rule;

struct BlkdebugRules {
    ListHead by_event[NR_EVENTS]; /* Rule.link, in the order of adding */
    ListHead active;              /* Rule.active_link, in that order */
    int64_t state;
};

static const BlockOption inject_error_options[] = {
    { .name = "event", .type = BLOCK_OPTION_ENUM, .required = true,
      .values = blkdebug_event_names, .offset = offsetof(RuleOptions, event),
      .help = "event that makes the rule active" },
    { .name = "state", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = INT_MAX, .offset = offsetof(RuleOptions, state),
      .help = "state in which the event counts; 0: any" },
    { .name = "iotype", .type = BLOCK_OPTION_ENUM, .values = io_type_names,
      .offset = offsetof(RuleOptions, io_type),
      .help = "requests that fail; absent: all but block-status" },
    { .name = "errno", .type = BLOCK_OPTION_NUMBER, .def = "5",
      .min = 0, .max = 4095, .offset = offsetof(RuleOptions, error),
      .help = "errno that requests fail with; 0: they do not" },
    { .name = "sector", .type = BLOCK_OPTION_NUMBER, .def = "-1",
      .min = -1, .max = BDRV_MAX_LENGTH / SECTOR_BYTES,
      .offset = offsetof(RuleOptions, sector),
      .help = "sector that a request must contain to fail; -1: any" },
    { .name = "once", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(RuleOptions, once),
      .help = "only the first request fails" },
    { .name = "immediately", .type = BLOCK_OPTION_BOOL, .def = "off",
      .offset = offsetof(RuleOptions, immediately),
      .help = "fail before the event loop turns" },
    { .type = BLOCK_OPTION_END },
};

static const BlockOption set_state_options[] = {
    { .name = "event", .type = BLOCK_OPTION_ENUM, .required = true,
      .values = blkdebug_event_names, .offset = offsetof(RuleOptions, event),
      .help = "event that changes the state" },
    { .name = "state", .type = BLOCK_OPTION_NUMBER, .def = "0",
      .min = 0, .max = INT_MAX, .offset = offsetof(RuleOptions, state),
      .help = "state in which the event counts; 0: any" },
    { .name = "new_state", .type = BLOCK_OPTION_NUMBER, .required = true,
      .min = 1, .max = INT_MAX, .offset = offsetof(RuleOptions, new_state),
      .help = "the next state" },
    { .type = BLOCK_OPTION_END },
};

/* --- the set -------------------------------------------------------------- */

BlkdebugRules *blkdebug_rules_new(void)
{
    BlkdebugRules *rules = g_new0(BlkdebugRules, 1);

    for (unsigned i = 0; i < NR_EVENTS; i++) {
        list_init(&rules->by_event[i]);
    }
    list_init(&rules->active);
    rules->state = 1;
    return rules;
}

static void rule_free(Rule *rule)
{
    list_remove(&rule->link);
    list_remove(&rule->active_link);
    g_free(rule->tag);
    g_free(rule);
}

void blkdebug_rules_free(BlkdebugRules *rules)
{
    if (!rules) {
        return;
    }
    for (unsigned i = 0; i < NR_EVENTS; i++) {
        LIST_FOREACH_SAFE(link, &rules->by_event[i]) {
            rule_free(LIST_ENTRY(link, Rule, link));
        }
    }
    g_assert(list_empty(&rules->active));
    g_free(rules);
}

int blkdebug_event_find(const char *name)
{
    for (unsigned i = 0; i < NR_EVENTS; i++) {
        if (strcmp(blkdebug_event_names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static void rule_add(BlkdebugRules *rules, RuleKind kind,
                     const RuleOptions *options, unsigned io_types,
                     const char *tag)
{
    Rule *rule = g_new0(Rule, 1);

    g_assert(options->event >= 0 && options->event < (int)NR_EVENTS);
    rule->kind = kind;
    rule->options = *options;
    rule->io_types = io_types;
    rule->tag = g_strdup(tag);
    list_init(&rule->active_link);
    list_append(&rules->by_event[options->event], &rule->link);
}

/* --- reading rules -------------------------------------------------------- */

/* One rule out of @options, which is used up. */
static int add_from_options(BlkdebugRules *rules, const char *section,
                            BlockOptions *options, const char *what,
                            GError **errp)
{
    bool inject = strcmp(section, "inject-error") == 0;
    const BlockOption *table = inject ? inject_error_options
                                      : set_state_options;
    const BlockOption *known[] = { table, NULL };
    bool has_io_type = block_options_has(options, "iotype");
    RuleOptions o = { .sector = -1 };
    int ret = block_options_absorb(options, table, &o, what, errp);

    if (ret == 0) {
        ret = block_options_check_empty(options, known, what, errp);
    }
    if (ret < 0) {
        return ret;
    }
    rule_add(rules, inject ? RULE_INJECT_ERROR : RULE_SET_STATE, &o,
             has_io_type ? 1u << o.io_type : IO_TYPES_BY_DEFAULT, NULL);
    return 0;
}

int blkdebug_rules_add_list(BlkdebugRules *rules, const char *section,
                            const BlockOptions *list, const char *what,
                            GError **errp)
{
    g_autoptr(BlockOptions) rest = list ? block_options_clone(list) : NULL;

    if (list && !block_options_is_list(list)) {
        return block_error(errp, EINVAL, "%s: option '%s' expects a list of "
                           "objects", what, section);
    }
    for (unsigned i = 0; rest && block_options_count(rest) > 0; i++) {
        g_autofree char *where = g_strdup_printf("%s: %s.%u", what, section,
                                                 i);
        g_autofree char *reference = NULL;
        g_autoptr(BlockOptions) rule = NULL;
        BlockOptionsChild kind;

        /* Each element moves to the front when those before it are gone. */
        if (block_options_take_child(rest, "0", &kind, &reference, &rule,
                                     NULL) < 0 ||
            kind != BLOCK_OPTIONS_CHILD_TREE) {
            return block_error(errp, EINVAL, "%s: expects an object", where);
        }
        if (add_from_options(rules, section, rule, where, errp) < 0) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Where the reader of a configuration file stands. */
typedef struct ConfigReader {
    BlkdebugRules *rules;
    const char *what;
    char *section;         /* NULL before the first one */
    unsigned section_line;
    BlockOptions *options; /* what the section has so far */
} ConfigReader;

static int config_end_section(ConfigReader *r, GError **errp)
{
    g_autofree char *where = NULL;

    if (!r->section) {
        return 0;
    }
    where = g_strdup_printf("%s, line %u: [%s]", r->what, r->section_line,
                            r->section);
    return add_from_options(r->rules, r->section, r->options, where, errp);
}

static int config_begin_section(ConfigReader *r, char *line, unsigned number,
                                GError **errp)
{
    size_t length = strlen(line);

    if (config_end_section(r, errp) < 0) {
        return -EINVAL;
    }
    if (line[length - 1] == ']') {
        line[length - 1] = '\0';
    }
    if (strcmp(line + 1, "inject-error") != 0 &&
        strcmp(line + 1, "set-state") != 0) {
        return block_error(errp, EINVAL, "%s, line %u: unknown section '%s'; "
                           "there are [inject-error] and [set-state]", r->what,
                           number, line + 1);
    }
    g_free(r->section);
    block_options_free(r->options);
    r->section = g_strdup(line + 1);
    r->section_line = number;
    r->options = block_options_new();
    return 0;
}

/* A key as the setters take it: they abort on a bad one. */
static bool config_key_is_plain(const char *key)
{
    size_t length = strspn(key, "abcdefghijklmnopqrstuvwxyz_-");

    return length > 0 && length < 64 && key[length] == '\0';
}

static int config_set(ConfigReader *r, char *line, unsigned number,
                      GError **errp)
{
    char *value = strchr(line, '=');
    size_t length;

    if (!value) {
        return block_error(errp, EINVAL, "%s, line %u: expected [section] or "
                           "key = \"value\"", r->what, number);
    }
    *value++ = '\0';
    g_strchomp(line);
    g_strchug(value);
    length = strlen(value);
    if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
        value[length - 1] = '\0';
        value++;
    }
    if (!r->section) {
        return block_error(errp, EINVAL, "%s, line %u: '%s' stands before the "
                           "first section", r->what, number, line);
    }
    if (!config_key_is_plain(line) || !g_utf8_validate(value, -1, NULL)) {
        return block_error(errp, EINVAL, "%s, line %u: '%s' is no key with a "
                           "value", r->what, number, line);
    }
    if (block_options_has(r->options, line)) {
        return block_error(errp, EINVAL, "%s, line %u: '%s' is given twice",
                           r->what, number, line);
    }
    block_options_set_str(r->options, line, value);
    return 0;
}

int blkdebug_rules_add_config(BlkdebugRules *rules, const char *text,
                              const char *what, GError **errp)
{
    ConfigReader r = { .rules = rules, .what = what };
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    int ret = 0;

    for (unsigned i = 0; lines[i] && ret == 0; i++) {
        char *line = g_strstrip(lines[i]);

        if (line[0] == '[') {
            ret = config_begin_section(&r, line, i + 1, errp);
        } else if (line[0] != '\0' && line[0] != '#') {
            ret = config_set(&r, line, i + 1, errp);
        }
    }
    if (ret == 0) {
        ret = config_end_section(&r, errp);
    }
    g_free(r.section);
    block_options_free(r.options);
    return ret;
}

/* --- break points --------------------------------------------------------- */

void blkdebug_rules_add_break(BlkdebugRules *rules, int event, const char *tag)
{
    RuleOptions options = { .event = event };

    rule_add(rules, RULE_BREAK, &options, 0, tag);
}

bool blkdebug_rules_remove_break(BlkdebugRules *rules, const char *tag)
{
    bool found = false;

    for (unsigned i = 0; i < NR_EVENTS; i++) {
        LIST_FOREACH_SAFE(link, &rules->by_event[i]) {
            Rule *rule = LIST_ENTRY(link, Rule, link);

            if (rule->kind == RULE_BREAK && strcmp(rule->tag, tag) == 0) {
                rule_free(rule);
                found = true;
            }
        }
    }
    return found;
}

/* --- what happens --------------------------------------------------------- */

static void deactivate_all(BlkdebugRules *rules)
{
    LIST_FOREACH_SAFE(link, &rules->active) {
        list_remove(link);
    }
}

char **blkdebug_rules_event(BlkdebugRules *rules, int event)
{
    g_autoptr(GPtrArray) tags = NULL;
    bool replaced = false;
    int64_t new_state = 0;

    g_assert(event >= 0 && event < (int)NR_EVENTS);
    LIST_FOREACH_SAFE(link, &rules->by_event[event]) {
        Rule *rule = LIST_ENTRY(link, Rule, link);

        /* All rules see the state as it was before the event. */
        if (rule->options.state && rule->options.state != rules->state) {
            continue;
        }
        switch (rule->kind) {
        case RULE_INJECT_ERROR:
            if (!replaced) {
                deactivate_all(rules);
                replaced = true;
            }
            list_append(&rules->active, &rule->active_link);
            break;
        case RULE_SET_STATE:
            new_state = new_state ? new_state : rule->options.new_state;
            break;
        case RULE_BREAK:
            tags = tags ? tags : g_ptr_array_new();
            g_ptr_array_add(tags, g_steal_pointer(&rule->tag));
            rule_free(rule);
            break;
        }
    }
    rules->state = new_state ? new_state : rules->state;
    if (!tags) {
        return NULL;
    }
    g_ptr_array_add(tags, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&tags), false);
}

static bool rule_fits(const Rule *rule, BlkdebugIoType type, int64_t offset,
                      int64_t bytes)
{
    int64_t at = rule->options.sector * SECTOR_BYTES;

    if (!(rule->io_types & (1u << type))) {
        return false;
    }
    return rule->options.sector < 0 ||
           (at >= offset && at < offset + bytes);
}

int blkdebug_rules_check(BlkdebugRules *rules, BlkdebugIoType type,
                         int64_t offset, int64_t bytes, bool *ret_immediately)
{
    LIST_FOREACH(link, &rules->active) {
        Rule *rule = LIST_ENTRY(link, Rule, active_link);
        int error = rule->options.error;

        if (!rule_fits(rule, type, offset, bytes)) {
            continue;
        }
        if (error == 0) {
            return 0;
        }
        *ret_immediately = rule->options.immediately;
        if (rule->options.once) {
            rule_free(rule);
        }
        return -error;
    }
    return 0;
}

int64_t blkdebug_rules_state(const BlkdebugRules *rules)
{
    return rules->state;
}
