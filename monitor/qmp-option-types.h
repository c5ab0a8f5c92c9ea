/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types made from the option tables of drivers and objects.
 */
#ifndef MONITOR_QMP_OPTION_TYPES_H
#define MONITOR_QMP_OPTION_TYPES_H

#include <blockgraph/options.h>

#include "monitor/qmp-type.h"

G_BEGIN_DECLS

/**
 * An object type with a member for each option of @table; dotted names make
 * nested objects.  Lives for ever: call it once for each @name.
 */
const QmpType *qmp_type_from_options(const char *name,
                                     const BlockOption *table);

G_END_DECLS

#endif /* MONITOR_QMP_OPTION_TYPES_H */
