/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects of type throttle-group.
 *
 * Their limits are one object, "limits", or stand each for itself with "x-"
 * before the name, as command lines had them first.  Both can be given: what
 * stands for itself counts.
 */
#include "monitor/object-type.h"

#include <blockgraph/driver.h>
#include <blockgraph/throttle.h>
#include <errno.h>

typedef struct GroupValues {
    BlockOptions *limits;
    ThrottleConfig own;         /* of these: 0 is not given */
} GroupValues;

#define OWN(what_, field_)                                              \
    (offsetof(GroupValues, own.limits) +                                \
     (what_) * sizeof(ThrottleLimit) + offsetof(ThrottleLimit, field_))

#define NUMBER(name_, offset_, help_)                                   \
    { .name = name_, .type = BLOCK_OPTION_NUMBER, .min = 0,             \
      .max = THROTTLE_VALUE_MAX, .offset = offset_, .help = help_ }

#define LIMIT(name_, what_)                                             \
    NUMBER("x-" name_, OWN(what_, avg), "short for limits." name_),     \
    NUMBER("x-" name_ "-max", OWN(what_, max),                          \
           "short for limits." name_ "-max"),                           \
    NUMBER("x-" name_ "-max-length", OWN(what_, max_length),            \
           "short for limits." name_ "-max-length")

static const BlockOption group_options[] = {
    { .name = "limits", .type = BLOCK_OPTION_TREE,
      .offset = offsetof(GroupValues, limits),
      .help = "of all members together: bps-total, iops-read-max, ..." },
    LIMIT("bps-total", THROTTLE_BPS_TOTAL),
    LIMIT("bps-read", THROTTLE_BPS_READ),
    LIMIT("bps-write", THROTTLE_BPS_WRITE),
    LIMIT("iops-total", THROTTLE_IOPS_TOTAL),
    LIMIT("iops-read", THROTTLE_IOPS_READ),
    LIMIT("iops-write", THROTTLE_IOPS_WRITE),
    NUMBER("x-iops-size", offsetof(GroupValues, own.iops_size),
           "short for limits.iops-size"),
    { .type = BLOCK_OPTION_END },
};

static void add_own(ThrottleConfig *config, const ThrottleConfig *own)
{
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        ThrottleLimit *to = &config->limits[i];
        const ThrottleLimit *from = &own->limits[i];

        to->avg = from->avg ? from->avg : to->avg;
        to->max = from->max ? from->max : to->max;
        to->max_length = from->max_length ? from->max_length : to->max_length;
    }
    config->iops_size = own->iops_size ? own->iops_size : config->iops_size;
}

static int group_make(BlockGraph *graph, Object *object, void *values,
                      GError **errp)
{
    GroupValues *v = values;
    ThrottleConfig config = { 0 };
    g_autofree char *what = g_strdup_printf("Throttle group '%s'",
                                            object->id);

    if (v->limits) {
        static const BlockOption *const known[] = { throttle_config_options,
                                                    NULL };
        int ret;

        if (block_options_is_list(v->limits)) {
            return block_error(errp, EINVAL, "%s: option 'limits' expects an "
                               "object, not a list", what);
        }
        ret = block_options_absorb(v->limits, throttle_config_options, &config,
                                   what, errp);
        if (ret == 0) {
            ret = block_options_check_empty(v->limits, known, what, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
    add_own(&config, &v->own);
    object->thing = throttle_group_new(graph, object->id, &config,
                                       errp);
    return object->thing ? 0 : -EINVAL;
}

/* Whether a node is a member. */
static bool group_in_use(const QmpObjects *objects, const Object *object)
{
    BlockDriverState *bs = NULL;
    bool used = false;

    while (!used && (bs = bdrv_next_node(qmp_objects_graph(objects), bs))) {
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

const ObjectType object_type_group = {
    .name = "throttle-group", .options = group_options,
    .values_size = sizeof(GroupValues), .make = group_make,
    .in_use = group_in_use, .destroy = group_destroy,
};
