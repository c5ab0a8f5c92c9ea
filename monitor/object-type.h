/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types of objects: what object-add and object-del need to know of each.
 */
#ifndef MONITOR_OBJECT_TYPE_H
#define MONITOR_OBJECT_TYPE_H

#include "monitor/objects.h"

G_BEGIN_DECLS

typedef struct Object Object;

/** A type.  All in the main context. */
typedef struct ObjectType {
    const char *name;
    const BlockOption *options; /* its properties */
    size_t values_size;         /* of the struct that they are put into */
    bool is_secret;             /* no error shows what was given */
    bool is_single;             /* there is one of it at most */
    /** Make object->thing, if it has one.  Returns 0 or a negative errno with
     * @errp set. */
    int (*make)(BlockGraph *graph, Object *object, void *values,
                GError **errp);
    /** Whether somebody uses it; or NULL: it can go at any time. */
    bool (*in_use)(const QmpObjects *objects, const Object *object);
    /** Free object->thing. */
    void (*destroy)(Object *object);
} ObjectType;

struct Object {
    const ObjectType *type;
    char *id;
    void *thing; /* what the type makes of it */
};

#define OBJECT_TYPES 6

/** All types. */
extern const ObjectType *const object_types[OBJECT_TYPES];

/** Whose objects they are. */
BlockGraph *qmp_objects_graph(const QmpObjects *objects);

/* objects-throttle.c */
extern const ObjectType object_type_group;

/* objects-secret.c */
extern const ObjectType object_type_secret;
extern const ObjectType object_type_tls_psk, object_type_tls_x509;

G_END_DECLS

#endif /* MONITOR_OBJECT_TYPE_H */
