/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * object-add and object-del.
 */
#include "monitor/object-type.h"
#include "monitor/qmp-option-types.h"
#include "monitor/qmp-server.h"

int coroutine_fn qmp_co_object_add(QmpServer *server, BlockOptions *options,
                                   GError **errp)
{
    return qmp_objects_add(server->objects, options, errp);
}

static json_t *coroutine_fn object_add(const QmpCall *call, json_t *args,
                                       GError **errp)
{
    BlockOptions *options = qmp_arg_options(args, errp);

    return options ? qmp_done(qmp_co_object_add(call->server, options, errp))
                   : NULL;
}

QMP_OBJECT_TYPE(del_args, "q_obj_object-del-arg",
                QMP_NEED("id", qmp_str, "of the object"));

static json_t *object_del(const QmpCall *call, json_t *args, GError **errp)
{
    return qmp_done(qmp_objects_del(call->server->objects,
                                    qmp_arg_str(args, "id"), errp));
}

/* --- the type of the arguments -------------------------------------------- */

static gpointer make_args_type(gpointer unused)
{
    static const char *names[OBJECT_TYPES + 1];
    static QmpVariant variants[OBJECT_TYPES + 1];
    static QmpType kind = { .kind = QMP_ENUM, .name = "ObjectType",
                            .values = names };
    static const QmpField fields[] = {
        QMP_NEED("qom-type", kind, "what it is"),
        QMP_NEED("id", qmp_str, "by which others refer to it"),
        { .name = NULL },
    };
    static const QmpType type = { .kind = QMP_OBJECT, .name = "ObjectOptions",
                                  .fields = fields, .tag = "qom-type",
                                  .variants = variants };

    for (size_t i = 0; i < OBJECT_TYPES; i++) {
        const ObjectType *of = object_types[i];
        g_autofree char *name = g_strdup_printf("ObjectOptions-%s", of->name);

        names[i] = of->name;
        variants[i] = (QmpVariant){
            of->name, qmp_type_from_options(name, of->options)
        };
    }
    return (gpointer)&type;
}

static const QmpType *get_args_type(void)
{
    static GOnce once = G_ONCE_INIT;

    return g_once(&once, make_args_type, NULL);
}

static const QmpType add_args = { .kind = QMP_LAZY, .name = "ObjectOptions",
                                  .make = get_args_type };

const QmpCommand qmp_commands_object[] = {
    { "object-add", &add_args, NULL, object_add,
      "Make an object that nodes and exports refer to" },
    { "object-del", &del_args, NULL, object_del,
      "Remove an object that nobody uses" },
    { .name = NULL },
};
