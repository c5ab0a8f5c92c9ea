/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The manual of all commands and events, as Markdown.
 */
#include "monitor/qmp-server.h"

/* More values than that are not listed. */
#define VALUES_SHOWN 12

static void add_type_text(GString *text, const QmpType *type)
{
    type = qmp_type(type);
    switch (type->kind) {
    case QMP_ENUM:
        for (size_t i = 0; type->values[i] && i < VALUES_SHOWN; i++) {
            g_string_append_printf(text, "%s`%s`", i ? ", " : "",
                                   type->values[i]);
        }
        break;
    case QMP_ARRAY:
        g_string_append(text, "list of ");
        add_type_text(text, type->element);
        break;
    case QMP_ALTERNATE:
        for (size_t i = 0; type->choices[i]; i++) {
            g_string_append(text, i ? " or " : "");
            add_type_text(text, type->choices[i]);
        }
        break;
    default:
        g_string_append(text, type->name);
    }
}

static void add_fields(GString *text, const QmpField *fields,
                       const char *what)
{
    bool argument = g_str_equal(what, "argument");

    for (const QmpField *f = fields; f && f->name; f++) {
        const char *mark = argument ? " (needed)" : " (not always)";

        g_string_append_printf(text, "| `%s`%s | ", f->name,
                               f->optional == argument ? "" : mark);
        add_type_text(text, f->type);
        g_string_append_printf(text, " | %s |\n", f->help ? f->help : "");
    }
}

static void add_object(GString *text, const QmpType *type, const char *what)
{
    type = qmp_type(type);
    if (type->fields && type->fields->name) {
        g_string_append_printf(text, "\n| %s | type | meaning |\n"
                               "| --- | --- | --- |\n", what);
        add_fields(text, type->fields, what);
    }
    for (const QmpVariant *v = type->variants; v && v->value; v++) {
        const QmpType *more = qmp_type(v->type);

        if (more->fields && more->fields->name) {
            g_string_append_printf(text, "\nWith `%s` = `%s`:\n\n"
                                   "| %s | type | meaning |\n"
                                   "| --- | --- | --- |\n", type->tag,
                                   v->value, what);
            add_fields(text, more->fields, what);
        }
    }
}

static void add_command(GString *text, const QmpCommand *command)
{
    g_string_append_printf(text, "\n### %s\n\n%s.\n", command->name,
                           command->help);
    if (command->args == &qmp_blockdev_options ||
        command->args == &qmp_create_options) {
        g_string_append(text, "\nThe options are those of "
                        "[drivers.md](drivers.md).\n");
    } else if (command->args) {
        add_object(text, command->args, "argument");
    }
    if (command->ret && qmp_type(command->ret)->kind != QMP_STRING) {
        const QmpType *ret = qmp_type(command->ret);
        const QmpType *element = ret->kind == QMP_ARRAY
            ? qmp_type(ret->element) : ret;

        g_string_append_printf(text, "\nReturns %s", ret == element ? "" :
                               "a list, each element with ");
        g_string_append(text, element->kind == QMP_OBJECT ? "these members:\n"
                                                          : "any values.\n");
        if (element->kind == QMP_OBJECT) {
            add_object(text, element, "member");
        }
    }
}

char *qmp_server_manual(QmpServer *server)
{
    GString *text = g_string_new(
        "# Control commands\n\n"
        "Made by `bg-daemon --print-manual`.  How to send them is in\n"
        "[bg-daemon.md](bg-daemon.md).\n\n## Commands\n");

    for (guint i = 0; i < server->tables->len; i++) {
        const QmpCommand *c = g_ptr_array_index(server->tables, i);

        for (; c->name; c++) {
            add_command(text, c);
        }
    }
    g_string_append(text, "\n## Events\n");
    for (const QmpEvent *e = qmp_events; e->name; e++) {
        g_string_append_printf(text, "\n### %s\n\n%s.\n", e->name, e->help);
        if (e->rate_ns > 0) {
            g_string_append(text, "At most one a second of each node.\n");
        }
        add_object(text, e->data, "member");
    }
    return g_string_free(text, FALSE);
}
