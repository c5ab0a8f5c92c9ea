/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects: their types, and those that a graph has.
 *
 * Each type stands in one table: its properties, and how it comes and goes.
 */
#include <errno.h>
#include <limits.h>

#include "monitor/object-type.h"

struct QmpObjects {
    BlockGraph *graph;
    GPtrArray *list; /* Object *, as they came */
    QmpThreadUser *thread_user; /* or NULL: nobody uses threads */
    void *opaque;
};

/* --- main-loop and iothread ----------------------------------------------- */

/* What QEMU has of a thread pool at most, unless it is told. */
#define POOL_MAX "64"

typedef struct LoopValues {
    int64_t poll_max_ns, poll_grow, poll_shrink;
    int64_t max_batch, pool_min, pool_max;      /* without effect */
} LoopValues;

#define POLLING(name_, member, def_, help_)                         \
    { .name = name_, .type = BLOCK_OPTION_NUMBER, .def = def_,      \
      .min = 0, .max = INT64_MAX,                                   \
      .offset = offsetof(LoopValues, member), .help = help_ }

#define UNUSED(name_, member, def_)                                 \
    POLLING(name_, member, def_, "is taken, and changes nothing")

static const BlockOption loop_options[] = {
    POLLING("poll-max-ns", poll_max_ns, G_STRINGIFY(AIO_POLL_MAX_NS),
            "how long it looks for work, at most, before it sleeps; it does "
            "while its waits are shorter; 0: never"),
    POLLING("poll-grow", poll_grow, "0",
            "factor when a longer look would have found work; 0: 2"),
    POLLING("poll-shrink", poll_shrink, "0",
            "divisor when the longest would not; 0: no look then"),
    UNUSED("aio-max-batch", max_batch, "0"),
    UNUSED("thread-pool-min", pool_min, "0"),
    UNUSED("thread-pool-max", pool_max, POOL_MAX),
    { .type = BLOCK_OPTION_END },
};

/* Returns 0 or a negative errno. */
static int check_pool(const LoopValues *v, GError **errp)
{
    if (v->pool_min > v->pool_max || v->pool_max == 0 ||
        v->pool_max > INT_MAX) {
        return block_error(errp, EINVAL, "bad thread-pool-min/thread-pool-max "
                           "values");
    }
    return 0;
}

static int main_loop_make(BlockGraph *graph, Object *object, void *values,
                          GError **errp)
{
    LoopValues *v = values;

    if (check_pool(v, errp) < 0) {
        return -EINVAL;
    }
    aio_context_set_polling(block_graph_aio_context(graph), v->poll_max_ns,
                            v->poll_grow, v->poll_shrink);
    return 0;
}

/* It is there as long as the program is. */
static bool main_loop_in_use(const QmpObjects *objects, const Object *object)
{
    return true;
}

static int iothread_make(BlockGraph *graph, Object *object, void *values,
                         GError **errp)
{
    LoopValues *v = values;
    IOThread *thread;

    if (check_pool(v, errp) < 0) {
        return -EINVAL;
    }
    thread = iothread_new(object->id, AIO_ENGINE_AUTO, errp);
    if (!thread) {
        return -EAGAIN;
    }
    aio_context_set_polling(iothread_get_aio_context(thread), v->poll_max_ns,
                            v->poll_grow, v->poll_shrink);
    object->thing = thread;
    return 0;
}

static bool iothread_in_use(const QmpObjects *objects, const Object *object)
{
    return objects->thread_user &&
           objects->thread_user(object->id, objects->opaque);
}

static void iothread_destroy(Object *object)
{
    iothread_free(object->thing);
}

/* --- all ------------------------------------------------------------------ */

static const ObjectType object_type_iothread = {
    .name = "iothread", .options = loop_options,
    .values_size = sizeof(LoopValues), .make = iothread_make,
    .in_use = iothread_in_use, .destroy = iothread_destroy,
};

static const ObjectType object_type_main_loop = {
    .name = "main-loop", .options = loop_options, .is_single = true,
    .values_size = sizeof(LoopValues), .make = main_loop_make,
    .in_use = main_loop_in_use,
};

const ObjectType *const object_types[OBJECT_TYPES] = {
    &object_type_iothread, &object_type_main_loop, &object_type_secret,
    &object_type_group, &object_type_tls_psk, &object_type_tls_x509,
};

QmpObjects *qmp_objects_new(BlockGraph *graph)
{
    QmpObjects *objects = g_new0(QmpObjects, 1);

    objects->graph = graph;
    objects->list = g_ptr_array_new();
    return objects;
}

BlockGraph *qmp_objects_graph(const QmpObjects *objects)
{
    return objects->graph;
}

void qmp_objects_set_thread_user(QmpObjects *objects, QmpThreadUser *user,
                                 void *opaque)
{
    objects->thread_user = user;
    objects->opaque = opaque;
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

static bool has_type(const QmpObjects *objects, const ObjectType *type)
{
    for (guint i = 0; i < objects->list->len; i++) {
        const Object *object = g_ptr_array_index(objects->list, i);

        if (object->type == type) {
            return true;
        }
    }
    return false;
}

static Object *find(const QmpObjects *objects, const char *id)
{
    for (guint i = 0; i < objects->list->len; i++) {
        Object *object = g_ptr_array_index(objects->list, i);

        if (g_str_equal(object->id, id)) {
            return object;
        }
    }
    return NULL;
}

IOThread *qmp_objects_iothread(const QmpObjects *objects, const char *id)
{
    Object *object = find(objects, id);

    return object && g_str_equal(object->type->name, "iothread")
               ? object->thing : NULL;
}

int qmp_id_check(const char *id, GError **errp)
{
    static const char signs[] = G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-._";

    if (g_ascii_isalpha(id[0]) && !id[strspn(id, signs)]) {
        return 0;
    }
    return block_error(errp, EINVAL, "Parameter 'id' expects an identifier: "
                       "letters, digits, '-', '.', '_', a letter first; not "
                       "'%s'", id);
}

/* Take "qom-type" and "id" out of @options. */
static const ObjectType *take_type(BlockOptions *options, char **ret_id,
                                   GError **errp)
{
    const char *name = block_options_peek_str(options, "qom-type");
    const char *id = block_options_peek_str(options, "id");
    const ObjectType *type = NULL;

    for (size_t i = 0; name && i < OBJECT_TYPES; i++) {
        type = g_str_equal(object_types[i]->name, name) ? object_types[i]
                                                        : type;
    }
    if (!name) {
        block_error(errp, EINVAL, "Parameter 'qom-type' is missing");
    } else if (!type) {
        block_error(errp, EINVAL, "Parameter 'qom-type' does not accept value "
                    "'%s'", name);
    } else if (!id) {
        block_error(errp, EINVAL, "Parameter 'id' is missing");
        type = NULL;
    } else if (qmp_id_check(id, errp) < 0) {
        type = NULL;
    } else {
        *ret_id = g_strdup(id);
        block_options_remove(options, "qom-type");
        block_options_remove(options, "id");
    }
    return type;
}

/* Take all of @options.  Returns 0, then they are to be cleared, or a negative
 * errno. */
static int take_values(const Object *object, BlockOptions *options,
                       void *values, GError **errp)
{
    const BlockOption *table = object->type->options;
    const BlockOption *const known[] = { table, NULL };
    g_autofree char *what = g_strdup_printf("Object '%s'", object->id);
    int ret = block_options_absorb(options, table, values, what, errp);

    if (ret == 0) {
        ret = block_options_check_empty(options, known, what, errp);
        if (ret < 0) {
            block_options_clear(table, values);
        }
    }
    return ret;
}

static int make(BlockGraph *graph, Object *object, BlockOptions *options,
                GError **errp)
{
    g_autofree void *values = g_malloc0(object->type->values_size);
    bool is_secret = object->type->is_secret;
    int ret = take_values(object, options, values, is_secret ? NULL : errp);

    if (ret < 0) {
        return !is_secret ? ret : block_error(
            errp, EINVAL, "Object '%s' has other options than an object of "
            "type '%s', or other values (they are not shown; as key=value text "
            "a comma in a value is written twice)", object->id,
            object->type->name);
    }
    ret = object->type->make(graph, object, values, errp);
    block_options_clear(object->type->options, values);
    return ret;
}

int qmp_objects_add(QmpObjects *objects, BlockOptions *options,
                    GError **errp)
{
    g_autofree char *id = NULL;
    const ObjectType *type = take_type(options, &id, errp);
    Object *object;
    int ret = -EINVAL;

    if (type && find(objects, id)) {
        ret = block_error(errp, EEXIST, "attempt to add duplicate property "
                          "'%s' to object (type 'container')", id);
    } else if (type && type->is_single && has_type(objects, type)) {
        ret = block_error(errp, EEXIST, "only one %s instance allowed",
                          type->name);
    } else if (type) {
        object = g_new0(Object, 1);
        object->type = type;
        object->id = g_steal_pointer(&id);
        ret = make(objects->graph, object, options, errp);
        if (ret == 0) {
            g_ptr_array_add(objects->list, object);
        } else {
            object_free(object);
        }
    }
    block_options_free(options);
    return ret;
}

int qmp_objects_del(QmpObjects *objects, const char *id, GError **errp)
{
    Object *object = find(objects, id);

    if (!object) {
        return block_error(errp, ENOENT, "object '%s' not found", id);
    }
    if (object->type->in_use && object->type->in_use(objects, object)) {
        return block_error(errp, EBUSY, "object '%s' is in use, can not be "
                           "deleted", id);
    }
    g_ptr_array_remove(objects->list, object);
    object_free(object);
    return 0;
}
