/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The types of arguments and replies: from one description come the checking
 * of what a client sends, query-qmp-schema, and the manual.
 *
 * Types are constant and live for ever.  Thread: any.
 */
#ifndef MONITOR_QMP_TYPE_H
#define MONITOR_QMP_TYPE_H

#include <blockgraph/error.h>

#include <jansson.h>

G_BEGIN_DECLS

typedef enum QmpKind {
    QMP_STRING,
    QMP_INTEGER,
    QMP_NUMBER,
    QMP_BOOLEAN,
    QMP_NULL,
    QMP_ANY,
    QMP_ENUM,
    QMP_ARRAY,
    QMP_OBJECT,
    QMP_ALTERNATE, /* one of several types, told apart by their JSON type */
    QMP_LAZY,      /* made when it is first asked for */
} QmpKind;

typedef struct QmpType QmpType;

/** A member of an object. */
typedef struct QmpField {
    const char *name;
    const QmpType *type;
    bool optional;
    const char *help; /* one line, or NULL */
} QmpField;

/** Further members of an object, by the value of its tag. */
typedef struct QmpVariant {
    const char *value;
    const QmpType *type; /* an object */
} QmpVariant;

struct QmpType {
    QmpKind kind;
    const char *name;              /* unique, unless an array */
    int64_t min, max;              /* INTEGER */
    const char *const *values;     /* ENUM: closed by NULL */
    const QmpType *element;        /* ARRAY */
    const QmpField *fields;        /* OBJECT: closed by name NULL, or NULL */
    const char *tag;               /* OBJECT: a field, an enum; or NULL */
    const QmpVariant *variants;    /* with @tag, closed by value NULL; values
                                    * that are not there add nothing */
    const QmpType *const *choices; /* ALTERNATE: closed by NULL */
    const QmpType *(*make)(void);  /* LAZY */
};

extern const QmpType qmp_str, qmp_int, qmp_size, qmp_uint32, qmp_uint16;
extern const QmpType qmp_number, qmp_bool, qmp_null, qmp_any;
extern const QmpType qmp_empty; /* an object without members */

/** The member @name_ of type @type_, with a line of help. */
#define QMP_NEED(name_, type_, help_) \
    { .name = name_, .type = &(type_), .help = help_ }
/** The same for one that may be left out. */
#define QMP_MAY(name_, type_, help_) \
    { .name = name_, .type = &(type_), .optional = true, .help = help_ }

/** Define the object type @var, called @name_, with these members. */
#define QMP_OBJECT_TYPE(var, name_, ...)                                      \
    static const QmpField var##_fields[] = { __VA_ARGS__, { .name = NULL } }; \
    static const QmpType var = { .kind = QMP_OBJECT, .name = name_,           \
                                 .fields = var##_fields }

/** Define the enum type @var, called @name_, with the values @values_. */
#define QMP_ENUM_TYPE(var, name_, values_) \
    static const QmpType var = { .kind = QMP_ENUM, .name = name_, \
                                 .values = values_ }

/** Define the type @var: lists of @element_. */
#define QMP_ARRAY_TYPE(var, element_) \
    static const QmpType var = { .kind = QMP_ARRAY, .element = &(element_) }

/** @type, or what it makes if it is lazy. */
const QmpType *qmp_type(const QmpType *type);

/**
 * Check that @value is of @type.
 *
 * @name  of the value, for the error; NULL for the arguments of a command
 *
 * Returns 0, or -EINVAL with @errp set: texts as QEMU has them.
 */
int qmp_type_check(const QmpType *type, const json_t *value, const char *name,
                   GError **errp);

/** The members that the tag of @value adds to those of @type, or NULL. */
const QmpType *qmp_type_variant(const QmpType *type, const json_t *value);

G_END_DECLS

#endif /* MONITOR_QMP_TYPE_H */
