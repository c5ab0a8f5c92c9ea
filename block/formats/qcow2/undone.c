/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weak stand-ins while the driver is being put together. */
#include "block/formats/qcow2/qcow2.h"
#include <errno.h>

__attribute__((weak)) int coroutine_fn qcow2_check(BlockDriverState *bs, const BdrvCheck *how, BdrvCheckResult *ret, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_repair_dirty(Qcow2 *q, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }

