/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types made from option tables: what blockdev-add and blockdev-create take.
 *
 * They are made once, when they are first asked for, and never freed; drivers
 * that are registered later are not among them.
 */
#include "monitor/qmp-option-types.h"

#include <blockgraph/driver.h>
#include <string.h>

#include "monitor/qmp-server.h"

/* --- references to nodes -------------------------------------------------- */

static const QmpType *const ref_choices[] = { &qmp_blockdev_options, &qmp_str,
                                              NULL };
static const QmpType *const ref_or_null_choices[] = {
    &qmp_blockdev_options, &qmp_str, &qmp_null, NULL
};
static const QmpType blockdev_ref = { .kind = QMP_ALTERNATE,
                                      .name = "BlockdevRef",
                                      .choices = ref_choices };
static const QmpType blockdev_ref_or_null = { .kind = QMP_ALTERNATE,
                                              .name = "BlockdevRefOrNull",
                                              .choices = ref_or_null_choices };

/* --- tables --------------------------------------------------------------- */

/* A table that becomes a type, or the part of it below a dotted name. */
typedef struct Part {
    const char *name;         /* of the type */
    const BlockOption *table;
    const char *prefix;       /* what the names begin with */
    bool create;              /* names are those of blockdev-create */
} Part;

static const QmpType *enum_type(const char *name, const char *const *values)
{
    QmpType *type = g_new0(QmpType, 1);

    *type = (QmpType){ .kind = QMP_ENUM, .name = name, .values = values };
    return type;
}

static const QmpType *integer_type(const BlockOption *option)
{
    QmpType *type;

    if (option->min == 0 && option->max == 0) {
        return option->type == BLOCK_OPTION_SIZE ? &qmp_size : &qmp_int;
    }
    /* The driver checks, too; this is for the class of the error. */
    type = g_new(QmpType, 1);
    *type = option->type == BLOCK_OPTION_SIZE ? qmp_size : qmp_int;
    return type;
}

static const QmpType *option_type(const Part *part, const BlockOption *option)
{
    switch (option->type) {
    case BLOCK_OPTION_STRING:
        return &qmp_str;
    case BLOCK_OPTION_BOOL:
        return &qmp_bool;
    case BLOCK_OPTION_NUMBER:
    case BLOCK_OPTION_SIZE:
        return integer_type(option);
    case BLOCK_OPTION_DOUBLE:
        return &qmp_number;
    case BLOCK_OPTION_ENUM:
        return enum_type(g_strdup_printf("%s-%s", part->name, option->name),
                         option->values);
    case BLOCK_OPTION_CHILD:
        return g_str_equal(option->name, "backing") ? &blockdev_ref_or_null
                                                    : &blockdev_ref;
    case BLOCK_OPTION_TREE:
        return &qmp_any;
    case BLOCK_OPTION_END:
        break;
    }
    g_assert_not_reached();
}

/* What a client calls the option; NULL: it is not for clients. */
static char *client_name(const Part *part, const char *name)
{
    char *result;

    if (!part->create) {
        return g_strdup(name);
    }
    if (g_str_equal(name, "data_file")) {
        return NULL;        /* the node is given, as "data-file" */
    }
    if (g_str_equal(name, "compat")) {
        return g_strdup("version");
    }
    result = g_strdup(name);
    return g_strdelimit(result, "_", '-');
}

static bool has_name(const GArray *fields, const char *name)
{
    for (guint i = 0; i < fields->len; i++) {
        if (g_str_equal(g_array_index(fields, QmpField, i).name, name)) {
            return true;
        }
    }
    return false;
}

static QmpType *make_object(const Part *part);

/* The member "a" for all options "a.b", "a.c" below @part. */
static void add_nested(const Part *part, GArray *fields, const char *rest)
{
    g_autofree char *head = g_strndup(rest, strcspn(rest, "."));
    g_autofree char *prefix = g_strdup_printf("%s%s.", part->prefix, head);
    QmpField field = { .optional = true };

    if (!has_name(fields, head)) {
        Part inner = *part;

        inner.name = g_strdup_printf("%s-%s", part->name, head);
        inner.prefix = prefix;
        field.type = make_object(&inner);
        field.name = g_steal_pointer(&head);
        g_array_append_val(fields, field);
    }
}

/*
 * An image is made in a node, always.  The table cannot say so: the same
 * options are taken where an image is measured, without any node.
 */
static bool is_required(const Part *part, const BlockOption *option)
{
    return option->required ||
           (part->create && option->type == BLOCK_OPTION_CHILD &&
            g_str_equal(option->name, "file"));
}

static void add_option(const Part *part, GArray *fields,
                       const BlockOption *option)
{
    const char *rest = option->name + strlen(part->prefix);
    QmpField field = { .optional = !is_required(part, option),
                       .help = option->help };

    if (strchr(rest, '.')) {
        add_nested(part, fields, rest);
        return;
    }
    field.name = client_name(part, rest);
    if (field.name) {
        field.type = option_type(part, option);
        g_array_append_val(fields, field);
    }
}

static QmpType *make_object(const Part *part)
{
    GArray *fields = g_array_new(TRUE, TRUE, sizeof(QmpField));
    QmpType *type = g_new0(QmpType, 1);

    for (const BlockOption *o = part->table; o->type != BLOCK_OPTION_END;
         o++) {
        if (g_str_has_prefix(o->name, part->prefix)) {
            add_option(part, fields, o);
        }
    }
    type->kind = QMP_OBJECT;
    type->name = part->name;
    type->fields = (QmpField *)g_array_free(fields, FALSE);
    return type;
}

const QmpType *qmp_type_from_options(const char *name,
                                     const BlockOption *table)
{
    Part part = { .name = g_strdup(name), .table = table, .prefix = "" };

    return make_object(&part);
}

/* --- drivers -------------------------------------------------------------- */

/* Whether clients may open nodes of @driver: filters of jobs are not theirs. */
static bool for_clients(const BlockDriver *driver)
{
    return !g_str_has_suffix(driver->name, "-top");
}

/* The names of all drivers, or of those that can make images. */
static const QmpType *driver_enum(const char *name, bool create)
{
    GPtrArray *names = g_ptr_array_new();

    for (const BlockDriver *d = NULL; (d = bdrv_next_driver(d));) {
        if (for_clients(d) && (!create || d->create)) {
            g_ptr_array_add(names, (void *)d->name);
        }
    }
    g_ptr_array_add(names, NULL);
    return enum_type(name, (const char *const *)g_ptr_array_free(names,
                                                                 FALSE));
}

static const BlockOption no_options[] = { { .type = BLOCK_OPTION_END } };

static const QmpType *driver_type(const BlockDriver *driver, bool create)
{
    const BlockOption *table = create ? driver->create_options
                                      : driver->options;
    Part part = {
        .name = g_strdup_printf("Blockdev%sOptions-%s",
                                create ? "Create" : "", driver->name),
        .table = table ? table : no_options, .prefix = "", .create = create,
    };

    return make_object(&part);
}

/* @base with the members of each driver. */
static const QmpType *union_type(const char *name, const QmpField *base,
                                 bool create)
{
    GArray *variants = g_array_new(TRUE, TRUE, sizeof(QmpVariant));
    QmpType *type = g_new0(QmpType, 1);

    for (const BlockDriver *d = NULL; (d = bdrv_next_driver(d));) {
        QmpVariant variant = { .value = d->name };

        if (for_clients(d) && (!create || d->create)) {
            variant.type = driver_type(d, create);
            g_array_append_val(variants, variant);
        }
    }
    *type = (QmpType){
        .kind = QMP_OBJECT, .name = name, .fields = base, .tag = "driver",
        .variants = (QmpVariant *)g_array_free(variants, FALSE),
    };
    return type;
}

static gpointer make_blockdev(gpointer unused)
{
    const Part part = { .name = "BlockdevOptionsBase",
                        .table = bdrv_common_options, .prefix = "" };
    g_autofree QmpType *base = make_object(&part); /* its fields stay */

    for (QmpField *f = (QmpField *)base->fields; f->name; f++) {
        if (g_str_equal(f->name, "driver")) {
            f->type = driver_enum("BlockdevDriver", false);
            f->optional = false;
        }
    }
    return (gpointer)union_type("BlockdevOptions", base->fields, false);
}

static const QmpType *get_blockdev(void)
{
    static GOnce once = G_ONCE_INIT;

    return g_once(&once, make_blockdev, NULL);
}

static gpointer make_create(gpointer unused)
{
    QmpField *base = g_new0(QmpField, 2);

    base[0] = (QmpField){ .name = "driver",
                          .type = driver_enum("BlockdevCreateDriver", false) };
    return (gpointer)union_type("BlockdevCreateOptions", base, true);
}

static const QmpType *get_create(void)
{
    static GOnce once = G_ONCE_INIT;

    return g_once(&once, make_create, NULL);
}

const QmpType qmp_blockdev_options = { .kind = QMP_LAZY,
                                       .name = "BlockdevOptions",
                                       .make = get_blockdev };
const QmpType qmp_create_options = { .kind = QMP_LAZY,
                                     .name = "BlockdevCreateOptions",
                                     .make = get_create };
