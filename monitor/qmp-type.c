/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types of QMP values, and the check of a value against its type.
 *
 * The order is QEMU's, so that of several faults the same one is told: members
 * in the order of the type, those of the tag behind them, then members that
 * nobody knows.
 */
#include "monitor/qmp-type.h"

#include <errno.h>
#include <string.h>

const QmpType qmp_str = { .kind = QMP_STRING, .name = "str" };
const QmpType qmp_int = { .kind = QMP_INTEGER, .name = "int",
                          .min = INT64_MIN, .max = INT64_MAX };
const QmpType qmp_size = { .kind = QMP_INTEGER, .name = "size",
                           .min = 0, .max = INT64_MAX };
const QmpType qmp_uint32 = { .kind = QMP_INTEGER, .name = "uint32",
                             .min = 0, .max = UINT32_MAX };
const QmpType qmp_uint16 = { .kind = QMP_INTEGER, .name = "uint16",
                             .min = 0, .max = UINT16_MAX };
const QmpType qmp_number = { .kind = QMP_NUMBER, .name = "number" };
const QmpType qmp_bool = { .kind = QMP_BOOLEAN, .name = "bool" };
const QmpType qmp_null = { .kind = QMP_NULL, .name = "null" };
const QmpType qmp_any = { .kind = QMP_ANY, .name = "any" };
const QmpType qmp_empty = { .kind = QMP_OBJECT, .name = "q_empty" };

const QmpType *qmp_type(const QmpType *type)
{
    return type->kind == QMP_LAZY ? type->make() : type;
}

/* Whether the JSON type of @value is one that @type can have. */
static bool fits(const QmpType *type, const json_t *value)
{
    switch (type->kind) {
    case QMP_STRING:
    case QMP_ENUM:
        return json_is_string(value);
    case QMP_INTEGER:
        return json_is_integer(value);
    case QMP_NUMBER:
        return json_is_number(value);
    case QMP_BOOLEAN:
        return json_is_boolean(value);
    case QMP_NULL:
        return json_is_null(value);
    case QMP_ARRAY:
        return json_is_array(value);
    case QMP_OBJECT:
        return json_is_object(value);
    case QMP_ANY:
    case QMP_ALTERNATE:
    case QMP_LAZY:
        return true;
    }
    g_assert_not_reached();
}

static int wrong_type(const QmpType *type, const char *name, GError **errp)
{
    static const char *const words[] = {
        [QMP_STRING] = "string", [QMP_ENUM] = "string",
        [QMP_INTEGER] = "integer", [QMP_NUMBER] = "number",
        [QMP_BOOLEAN] = "boolean", [QMP_NULL] = "null",
        [QMP_ARRAY] = "array", [QMP_OBJECT] = "object",
    };
    const char *word = type->kind == QMP_ALTERNATE ? type->name
                                                   : words[type->kind];

    return block_error(errp, EINVAL,
                       "Invalid parameter type for '%s', expected: %s",
                       name ? name : "arguments", word);
}

/* Some texts of QEMU have only the last part of a name. */
static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? dot + 1 : name;
}

static int check_integer(const QmpType *type, const json_t *value,
                         const char *name, GError **errp)
{
    json_int_t number = json_integer_value(value);

    if (number >= type->min && number <= type->max) {
        return 0;
    }
    return block_error(errp, EINVAL, "Parameter '%s' expects %s",
                       last_part(name),
                       type->min == 0 && type->max == INT64_MAX
                           ? "a non-negative value" : type->name);
}

static int check_enum(const QmpType *type, const json_t *value,
                      const char *name, GError **errp)
{
    const char *text = json_string_value(value);

    for (size_t i = 0; type->values[i]; i++) {
        if (g_str_equal(type->values[i], text)) {
            return 0;
        }
    }
    return block_error(errp, EINVAL, "Parameter '%s' does not accept value "
                       "'%s'", last_part(name), text);
}

static int check_array(const QmpType *type, const json_t *value,
                       const char *name, GError **errp)
{
    const json_t *element;
    size_t i;

    json_array_foreach(value, i, element) {
        g_autofree char *place = g_strdup_printf("%s[%zu]", name, i);
        int ret = qmp_type_check(type->element, element, place, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int check_choices(const QmpType *type, const json_t *value,
                         const char *name, GError **errp)
{
    for (size_t i = 0; type->choices[i]; i++) {
        const QmpType *choice = qmp_type(type->choices[i]);

        if (fits(choice, value)) {
            return qmp_type_check(choice, value, name, errp);
        }
    }
    return wrong_type(type, name, errp);
}

static char *member_name(const char *name, const char *member)
{
    return name ? g_strdup_printf("%s.%s", name, member) : g_strdup(member);
}

static int check_fields(const QmpField *fields, const json_t *value,
                        const char *name, GError **errp)
{
    for (const QmpField *f = fields; f && f->name; f++) {
        const json_t *member = json_object_get(value, f->name);
        g_autofree char *full = member_name(name, f->name);
        int ret;

        if (!member) {
            if (!f->optional) {
                return block_error(errp, EINVAL, "Parameter '%s' is missing",
                                   full);
            }
            continue;
        }
        ret = qmp_type_check(f->type, member, full, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static bool has_field(const QmpType *type, const char *name)
{
    for (const QmpField *f = type ? type->fields : NULL; f && f->name; f++) {
        if (g_str_equal(f->name, name)) {
            return true;
        }
    }
    return false;
}

const QmpType *qmp_type_variant(const QmpType *type, const json_t *value)
{
    const char *tag = type->tag
        ? json_string_value(json_object_get(value, type->tag)) : NULL;

    for (const QmpVariant *v = type->variants; tag && v && v->value; v++) {
        if (g_str_equal(v->value, tag)) {
            return qmp_type(v->type);
        }
    }
    return NULL;
}

static int check_object(const QmpType *type, const json_t *value,
                        const char *name, GError **errp)
{
    const QmpType *variant;
    const char *key;
    json_t *member;
    int ret = check_fields(type->fields, value, name, errp);

    if (ret < 0) {
        return ret;
    }
    variant = qmp_type_variant(type, value);
    if (variant) {
        ret = check_fields(variant->fields, value, name, errp);
        if (ret < 0) {
            return ret;
        }
    }
    json_object_foreach((json_t *)value, key, member) {
        if (!has_field(type, key) && !has_field(variant, key)) {
            g_autofree char *full = member_name(name, key);

            return block_error(errp, EINVAL, "Parameter '%s' is unexpected",
                               full);
        }
    }
    return 0;
}

int qmp_type_check(const QmpType *type, const json_t *value, const char *name,
                   GError **errp)
{
    type = qmp_type(type);
    if (!fits(type, value)) {
        return wrong_type(type, name, errp);
    }
    switch (type->kind) {
    case QMP_ENUM:
        return check_enum(type, value, name, errp);
    case QMP_ARRAY:
        return check_array(type, value, name, errp);
    case QMP_OBJECT:
        return check_object(type, value, name, errp);
    case QMP_ALTERNATE:
        return check_choices(type, value, name, errp);
    case QMP_INTEGER:
        return check_integer(type, value, name, errp);
    default:
        return 0;
    }
}
