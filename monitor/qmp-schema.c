/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * query-qmp-schema: every type that a command or an event leads to, once.
 */
#include "monitor/qmp-server.h"

typedef struct Schema {
    json_t *list;
    GHashTable *known; /* names of types that are in the list */
} Schema;

static void add_type(Schema *schema, const QmpType *type);

/* What other entries call @type.  Free with g_free(). */
static char *type_name(const QmpType *type)
{
    g_autofree char *element = NULL;

    type = qmp_type(type);
    if (type->kind == QMP_INTEGER) {
        return g_strdup("int");
    }
    if (type->kind != QMP_ARRAY) {
        return g_strdup(type->name);
    }
    element = type_name(type->element);
    return g_strdup_printf("[%s]", element);
}

static void set_name(json_t *json, const char *key, const QmpType *type)
{
    g_autofree char *name = type_name(type);

    json_object_set_new(json, key, json_string(name));
}

static void describe_builtin(json_t *json, const QmpType *type)
{
    static const char *const json_types[] = {
        [QMP_STRING] = "string", [QMP_INTEGER] = "int",
        [QMP_NUMBER] = "number", [QMP_BOOLEAN] = "boolean",
        [QMP_NULL] = "null", [QMP_ANY] = "value",
    };

    json_object_set_new(json, "meta-type", json_string("builtin"));
    json_object_set_new(json, "json-type", json_string(json_types[type->kind]));
}

static void describe_enum(json_t *json, const QmpType *type)
{
    json_t *members = json_array();
    json_t *values = json_array();

    for (size_t i = 0; type->values[i]; i++) {
        json_array_append_new(members, json_pack("{s:s}", "name",
                                                 type->values[i]));
        json_array_append_new(values, json_string(type->values[i]));
    }
    json_object_set_new(json, "meta-type", json_string("enum"));
    json_object_set_new(json, "members", members);
    json_object_set_new(json, "values", values);
}

static json_t *members_json(Schema *schema, const QmpType *type)
{
    json_t *members = json_array();

    for (const QmpField *f = type->fields; f && f->name; f++) {
        json_t *member = json_pack("{s:s}", "name", f->name);

        set_name(member, "type", f->type);
        if (f->optional) {
            json_object_set_new(member, "default", json_null());
        }
        json_array_append_new(members, member);
        add_type(schema, f->type);
    }
    return members;
}

static void describe_object(Schema *schema, json_t *json, const QmpType *type)
{
    json_t *variants = json_array();

    json_object_set_new(json, "meta-type", json_string("object"));
    json_object_set_new(json, "members", members_json(schema, type));
    for (const QmpVariant *v = type->variants; v && v->value; v++) {
        json_t *variant = json_pack("{s:s}", "case", v->value);

        set_name(variant, "type", v->type);
        json_array_append_new(variants, variant);
        add_type(schema, v->type);
    }
    if (type->tag) {
        json_object_set_new(json, "tag", json_string(type->tag));
        json_object_set(json, "variants", variants);
    }
    json_decref(variants);
}

static void describe_alternate(Schema *schema, json_t *json,
                               const QmpType *type)
{
    json_t *members = json_array();

    for (size_t i = 0; type->choices[i]; i++) {
        json_t *member = json_object();

        set_name(member, "type", type->choices[i]);
        json_array_append_new(members, member);
        add_type(schema, type->choices[i]);
    }
    json_object_set_new(json, "meta-type", json_string("alternate"));
    json_object_set_new(json, "members", members);
}

static void add_type(Schema *schema, const QmpType *type)
{
    char *name = type_name(type);
    json_t *json;

    if (!g_hash_table_add(schema->known, name)) {
        return;
    }
    type = qmp_type(type);
    json = json_pack("{s:s}", "name", name);
    json_array_append_new(schema->list, json);
    switch (type->kind) {
    case QMP_ENUM:
        describe_enum(json, type);
        break;
    case QMP_ARRAY:
        json_object_set_new(json, "meta-type", json_string("array"));
        set_name(json, "element-type", type->element);
        add_type(schema, type->element);
        break;
    case QMP_OBJECT:
        describe_object(schema, json, type);
        break;
    case QMP_ALTERNATE:
        describe_alternate(schema, json, type);
        break;
    default:
        describe_builtin(json, type);
    }
}

static void add_command(Schema *schema, const QmpCommand *command)
{
    const QmpType *args = command->args ? command->args : &qmp_empty;
    const QmpType *ret = command->ret ? command->ret : &qmp_empty;
    json_t *json = json_pack("{s:s, s:s}", "name", command->name, "meta-type",
                             "command");

    if (g_str_has_prefix(command->name, "x-")) {
        json_object_set_new(json, "features", json_pack("[s]", "unstable"));
    }
    set_name(json, "arg-type", args);
    set_name(json, "ret-type", ret);
    json_array_append_new(schema->list, json);
    add_type(schema, args);
    add_type(schema, ret);
}

json_t *qmp_server_schema(QmpServer *server)
{
    Schema schema = {
        .list = json_array(),
        .known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
    };

    for (guint i = 0; i < server->tables->len; i++) {
        const QmpCommand *c = g_ptr_array_index(server->tables, i);

        for (; c->name; c++) {
            add_command(&schema, c);
        }
    }
    for (const QmpEvent *e = qmp_events; e->name; e++) {
        json_t *json = json_pack("{s:s, s:s}", "name", e->name, "meta-type",
                                 "event");

        set_name(json, "arg-type", e->data);
        json_array_append_new(schema.list, json);
        add_type(&schema, e->data);
    }
    g_hash_table_unref(schema.known);
    return schema.list;
}
