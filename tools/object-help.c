/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "--object help" and "--object TYPE,help", as QEMU's tools have them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/object-type.h"
#include "tools/tool-objects.h"
#include "tools/tool-print.h"

static const char *value_of(const BlockOption *option)
{
    switch (option->type) {
    case BLOCK_OPTION_BOOL:
        return "bool";
    case BLOCK_OPTION_NUMBER:
        return "int";
    case BLOCK_OPTION_SIZE:
        return "size";
    case BLOCK_OPTION_DOUBLE:
        return "number";
    case BLOCK_OPTION_TREE:
        return "object";
    default:
        return "string";
    }
}

static void print_types(void)
{
    printf("List of user creatable objects:\n");
    for (int i = 0; i < OBJECT_TYPES; i++) {
        printf("  %s\n", object_types[i]->name);
    }
}

static void print_options(const ObjectType *type)
{
    printf("%s options:\n", type->name);
    for (const BlockOption *o = type->options; o->type != BLOCK_OPTION_END;
         o++) {
        printf("  %s=<%s>%s%s\n", o->name, value_of(o), o->help ? " - " : "",
               o->help ? o->help : "");
    }
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "?") == 0;
}

static const ObjectType *find_type(const char *name)
{
    for (int i = 0; i < OBJECT_TYPES; i++) {
        if (strcmp(object_types[i]->name, name) == 0) {
            return object_types[i];
        }
    }
    return NULL;
}

void tool_object_help(const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    const char *name = words[0] ? words[0] : "";
    bool asked = is_help(name);
    const ObjectType *type;

    if (asked) {
        print_types();
        exit(tool_finish(EXIT_SUCCESS));
    }
    for (int i = 1; words[0] && words[i]; i++) {
        asked = asked || is_help(words[i]);
    }
    if (!asked) {
        return;
    }
    name += g_str_has_prefix(name, "qom-type=") ? strlen("qom-type=") : 0;
    type = find_type(name);
    if (!type) {
        tool_error("--object: invalid object type: %s", name);
        exit(EXIT_FAILURE);
    }
    print_options(type);
    exit(tool_finish(EXIT_SUCCESS));
}
