/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only the driver of an image knows of it, for people to read.
 */
#include "tools/tool-specific.h"

#include <glib.h>
#include <stdbool.h>
#include <stdio.h>

#include "tools/tool-print.h"

/* The order that readers of qcow2 images are used to; others come after. */
static const char *const first_keys[] = {
    "flags", "name", "granularity",
    "compat", "compression-type", "lazy-refcounts", "bitmaps", "refcount-bits",
    "data-file", "data-file-raw", "corrupt", "extended-l2",
};

static void print_value(const json_t *value, int indent);

static void print_string(const char *text)
{
    g_autofree char *safe = tool_safe_text(text);

    printf("%s\n", safe);
}

static void print_pair(const char *key, const json_t *value, int indent)
{
    g_autofree char *words = g_strdelimit(g_strdup(key), "-", ' ');
    bool nested = json_is_object(value) || json_is_array(value);

    printf("%*s%s:%s", indent * 4, "", words, nested ? "\n" : " ");
    print_value(value, indent + 1);
}

static bool is_first_key(const char *key)
{
    for (size_t i = 0; i < G_N_ELEMENTS(first_keys); i++) {
        if (g_str_equal(key, first_keys[i])) {
            return true;
        }
    }
    return false;
}

static void print_object(const json_t *object, int indent)
{
    const char *key;
    json_t *element;

    for (size_t i = 0; i < G_N_ELEMENTS(first_keys); i++) {
        element = json_object_get(object, first_keys[i]);
        if (element) {
            print_pair(first_keys[i], element, indent);
        }
    }
    json_object_foreach((json_t *)object, key, element) {
        if (!is_first_key(key)) {
            print_pair(key, element, indent);
        }
    }
}

static void print_value(const json_t *value, int indent)
{
    json_t *element;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        print_object(value, indent);
        break;
    case JSON_ARRAY:
        json_array_foreach(value, i, element) {
            g_autofree char *index = g_strdup_printf("[%zu]", i);

            print_pair(index, element, indent);
        }
        break;
    case JSON_STRING:
        print_string(json_string_value(value));
        break;
    case JSON_INTEGER:
        printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
        break;
    default:
        printf("%s\n", json_is_true(value) ? "true" : "false");
    }
}

void tool_print_specific(const json_t *specific)
{
    const json_t *data = json_object_get(specific, "data");

    if (json_object_size(data) > 0) {
        printf("Format specific information:\n");
        print_value(data, 1);
    }
}
