/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of blkdebug: what happens at which event.
 *
 * A rule waits for an event, in one state or in any:
 *
 *   inject-error  becomes active: fails requests from then on (once or always)
 *   set-state     changes the state
 *   break point   suspends the request (once)
 *
 * An event with inject-error rules that apply makes these the active ones, in
 * place of those that were; other events leave the active ones alone.  The
 * event "none" happens once, when the rules are complete.
 *
 * Nothing here locks: the caller lets one thread in at a time.
 */
#ifndef BLOCK_FILTERS_BLKDEBUG_RULES_H
#define BLOCK_FILTERS_BLKDEBUG_RULES_H

#include <blockgraph/options.h>

/** The names of all events, closed by NULL; an event is an index in here. */
extern const char *const blkdebug_event_names[];

/** Kinds of requests that a rule can fail. */
typedef enum BlkdebugIoType {
    BLKDEBUG_READ,
    BLKDEBUG_WRITE,
    BLKDEBUG_WRITE_ZEROES,
    BLKDEBUG_DISCARD,
    BLKDEBUG_FLUSH,
    BLKDEBUG_BLOCK_STATUS,
    BLKDEBUG_IO_TYPES,
} BlkdebugIoType;

typedef struct BlkdebugRules BlkdebugRules;

/** No rules, in state 1. */
BlkdebugRules *blkdebug_rules_new(void);

/** Free @rules; NULL is ignored. */
void blkdebug_rules_free(BlkdebugRules *rules);

/** The event of that name, or -1. */
int blkdebug_event_find(const char *name);

/**
 * Add the rules of @list, elements of the option @section.
 *
 * @section  "inject-error" or "set-state"
 * @list     a list of objects; NULL is an empty one
 * @what     begins error texts
 *
 * Returns 0, or -EINVAL with @errp set.
 */
int blkdebug_rules_add_list(BlkdebugRules *rules, const char *section,
                            const BlockOptions *list, const char *what,
                            GError **errp);

/**
 * Add the rules of @text, the content of a configuration file:
 *
 *   # comment
 *   [inject-error]
 *   event = "read_aio"
 *   errno = "5"
 *
 * @what  begins error texts, names the file
 *
 * Returns 0, or -EINVAL with @errp naming the line.
 */
int blkdebug_rules_add_config(BlkdebugRules *rules, const char *text,
                              const char *what, GError **errp);

/** Add a break point named @tag at @event. */
void blkdebug_rules_add_break(BlkdebugRules *rules, int event,
                              const char *tag);

/** Remove all break points named @tag.  Returns whether there was one. */
bool blkdebug_rules_remove_break(BlkdebugRules *rules, const char *tag);

/**
 * @event happens.  Returns the tags of the break points that it hit, which are
 * removed, closed by NULL (g_strfreev()), or NULL for none.
 */
char **blkdebug_rules_event(BlkdebugRules *rules, int event);

/**
 * What a request meets: the first active rule that fits decides.
 *
 * @bytes            0: at no place (flush)
 * @ret_immediately  whether it fails without yielding; set when it fails
 *
 * Returns 0, or the negative errno it fails with.
 */
int blkdebug_rules_check(BlkdebugRules *rules, BlkdebugIoType type,
                         int64_t offset, int64_t bytes,
                         bool *ret_immediately);

/** The present state. */
int64_t blkdebug_rules_state(const BlkdebugRules *rules);

#endif /* BLOCK_FILTERS_BLKDEBUG_RULES_H */
