/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects: what nodes and exports refer to by an id.
 *
 * Each type stands in one table: its properties, and how it comes and goes.
 */
#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <errno.h>
#include <string.h>

#include "monitor/object-type.h"
#include "monitor/qmp-option-types.h"

struct QmpObjects {
    GPtrArray *list; /* Object *, as they came */
};

/* --- iothread ------------------------------------------------------------- */

typedef struct IOThreadValues {
    int64_t unused[6];
} IOThreadValues;

#define UNUSED(name_, index)                                        \
    { .name = name_, .type = BLOCK_OPTION_NUMBER, .def = "0",       \
      .min = 0, .max = INT64_MAX,                                   \
      .offset = offsetof(IOThreadValues, unused[index]),            \
      .help = "is taken, and changes nothing: the loop does not spin" }

static const BlockOption iothread_options[] = {
    UNUSED("poll-max-ns", 0),
    UNUSED("poll-grow", 1),
    UNUSED("poll-shrink", 2),
    UNUSED("aio-max-batch", 3),
    UNUSED("thread-pool-min", 4),
    UNUSED("thread-pool-max", 5),
    { .type = BLOCK_OPTION_END },
};

static int iothread_make(QmpServer *server, Object *object, void *values,
                         GError **errp)
{
    object->thing = iothread_new(object->id, AIO_ENGINE_AUTO, errp);
    return object->thing ? 0 : -EAGAIN;
}

static bool iothread_in_use(QmpServer *server, const Object *object)
{
    return qmp_exports_use_thread(server, object->id);
}

static void iothread_destroy(Object *object)
{
    iothread_free(object->thing);
}

/* --- throttle-group ------------------------------------------------------- */

typedef struct GroupValues {
    BlockOptions *limits;
} GroupValues;

static const BlockOption group_options[] = {
    { .name = "limits", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(GroupValues, limits),
      .help = "of all members together: bps-total, iops-read-max, ..." },
    { .type = BLOCK_OPTION_END },
};

static int group_make(QmpServer *server, Object *object, void *values,
                      GError **errp)
{
    GroupValues *v = values;
    ThrottleConfig config = { 0 };
    g_autofree char *what = g_strdup_printf("Throttle group '%s'",
                                            object->id);

    if (v->limits) {
        static const BlockOption *const known[] = { throttle_config_options,
                                                    NULL };
        int ret = block_options_absorb(v->limits, throttle_config_options,
                                       &config, what, errp);

        if (ret == 0) {
            ret = block_options_check_empty(v->limits, known, what, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
    object->thing = throttle_group_new(server->graph, object->id, &config,
                                       errp);
    return object->thing ? 0 : -EINVAL;
}

/* Whether a node is a member. */
static bool group_in_use(QmpServer *server, const Object *object)
{
    BlockDriverState *bs = NULL;
    bool used = false;

    while (!used && (bs = bdrv_next_node(server->graph, bs))) {
        BlockOptions *options = bdrv_get_options(bs);
        const char *group = block_options_peek_str(options, "throttle-group");

        used = g_str_equal(bdrv_driver_name(bs), "throttle") && group &&
               g_str_equal(group, object->id);
        block_options_free(options);
    }
    return used;
}

static void group_destroy(Object *object)
{
    throttle_group_unref(object->thing);
}

/* --- all ------------------------------------------------------------------ */

static const ObjectType object_type_iothread = {
    .name = "iothread", .options = iothread_options,
    .values_size = sizeof(IOThreadValues), .make = iothread_make,
    .in_use = iothread_in_use, .destroy = iothread_destroy,
};

static const ObjectType object_type_group = {
    .name = "throttle-group", .options = group_options,
    .values_size = sizeof(GroupValues), .make = group_make,
    .in_use = group_in_use, .destroy = group_destroy,
};

static const ObjectType *const types[] = {
    &object_type_iothread, &object_type_secret, &object_type_group,
    &object_type_tls_psk, &object_type_tls_x509,
};

QmpObjects *qmp_objects_new(void)
{
    QmpObjects *objects = g_new0(QmpObjects, 1);

    objects->list = g_ptr_array_new();
    return objects;
}

static void object_free(Object *object)
{
    if (object->thing) {
        object->type->destroy(object);
    }
    g_free(object->id);
    g_free(object);
}

void qmp_objects_free(QmpObjects *objects)
{
    while (objects->list->len > 0) {
        object_free(g_ptr_array_steal_index(objects->list,
                                            objects->list->len - 1));
    }
    g_ptr_array_unref(objects->list);
    g_free(objects);
}

static Object *find(QmpServer *server, const char *id)
{
    for (guint i = 0; i < server->objects->list->len; i++) {
        Object *object = g_ptr_array_index(server->objects->list, i);

        if (g_str_equal(object->id, id)) {
            return object;
        }
    }
    return NULL;
}

IOThread *qmp_object_iothread(QmpServer *server, const char *id)
{
    Object *object = find(server, id);

    return object && g_str_equal(object->type->name, "iothread")
               ? object->thing : NULL;
}

/* Take "qom-type" and "id" out of @options. */
static const ObjectType *take_type(BlockOptions *options, char **ret_id,
                                   GError **errp)
{
    const char *name = block_options_peek_str(options, "qom-type");
    const char *id = block_options_peek_str(options, "id");
    const ObjectType *type = NULL;

    for (size_t i = 0; name && i < G_N_ELEMENTS(types); i++) {
        type = g_str_equal(types[i]->name, name) ? types[i] : type;
    }
    if (!name) {
        block_error(errp, EINVAL, "Parameter 'qom-type' is missing");
    } else if (!type) {
        block_error(errp, EINVAL, "Parameter 'qom-type' does not accept value "
                    "'%s'", name);
    } else if (!id) {
        block_error(errp, EINVAL, "Parameter 'id' is missing");
        type = NULL;
    } else {
        *ret_id = g_strdup(id);
        block_options_remove(options, "qom-type");
        block_options_remove(options, "id");
    }
    return type;
}

static int make(QmpServer *server, Object *object, BlockOptions *options,
                GError **errp)
{
    const BlockOption *const known[] = { object->type->options, NULL };
    g_autofree char *what = g_strdup_printf("Object '%s'", object->id);
    g_autofree void *values = g_malloc0(object->type->values_size);
    int ret = block_options_absorb(options, object->type->options, values,
                                   what, errp);

    if (ret < 0) {
        return ret;
    }
    ret = block_options_check_empty(options, known, what, errp);
    if (ret == 0) {
        ret = object->type->make(server, object, values, errp);
    }
    block_options_clear(object->type->options, values);
    return ret;
}

int coroutine_fn qmp_co_object_add(QmpServer *server, BlockOptions *options,
                                   GError **errp)
{
    g_autofree char *id = NULL;
    const ObjectType *type = take_type(options, &id, errp);
    Object *object;
    int ret = -EINVAL;

    if (type && find(server, id)) {
        ret = block_error(errp, EEXIST, "attempt to add duplicate property "
                          "'%s' to object (type 'container')", id);
    } else if (type) {
        object = g_new0(Object, 1);
        object->type = type;
        object->id = g_steal_pointer(&id);
        ret = make(server, object, options, errp);
        if (ret == 0) {
            g_ptr_array_add(server->objects->list, object);
        } else {
            object_free(object);
        }
    }
    block_options_free(options);
    return ret;
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
    const char *id = qmp_arg_str(args, "id");
    Object *object = find(call->server, id);

    if (!object) {
        block_error(errp, ENOENT, "object '%s' not found", id);
        return NULL;
    }
    if (object->type->in_use &&
        object->type->in_use(call->server, object)) {
        block_error(errp, EBUSY, "object '%s' is in use, can not be deleted",
                    id);
        return NULL;
    }
    g_ptr_array_remove(call->server->objects->list, object);
    object_free(object);
    return json_object();
}

/* --- the type of the arguments -------------------------------------------- */

static gpointer make_args_type(gpointer unused)
{
    static const char *names[G_N_ELEMENTS(types) + 1];
    static QmpVariant variants[G_N_ELEMENTS(types) + 1];
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

    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree char *name = g_strdup_printf("ObjectOptions-%s",
                                                types[i]->name);

        names[i] = types[i]->name;
        variants[i] = (QmpVariant){
            types[i]->name, qmp_type_from_options(name, types[i]->options)
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
