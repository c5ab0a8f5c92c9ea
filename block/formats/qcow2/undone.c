/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weak stand-ins while the driver is being put together. */
#include "block/formats/qcow2/qcow2.h"
#include <errno.h>

__attribute__((weak)) int coroutine_fn qcow2_snapshots_read(Qcow2 *q, GError **errp)
{ return 0; }
__attribute__((weak)) void qcow2_snapshots_free(Qcow2 *q)
{ }
__attribute__((weak)) Qcow2Snapshot *qcow2_snapshot_find(Qcow2 *q, const char *id_or_name)
{ return NULL; }
__attribute__((weak)) int coroutine_fn qcow2_snapshot_list(BlockDriverState *bs, GPtrArray *list, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_snapshot_goto(BlockDriverState *bs, const char *id_or_name, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_check(BlockDriverState *bs, const BdrvCheck *how, BdrvCheckResult *ret, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_repair_dirty(Qcow2 *q, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }

__attribute__((weak)) int64_t qcow2_snapshots_bytes(Qcow2 *q)
{ return 0; }
