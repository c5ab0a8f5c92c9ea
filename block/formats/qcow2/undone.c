/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weak stand-ins while the driver is being put together. */
#include "block/formats/qcow2/qcow2.h"
#include <errno.h>

__attribute__((weak)) Qcow2Cache *qcow2_cache_new(const Qcow2CacheConfig *config)
{ return NULL; }
__attribute__((weak)) void qcow2_cache_free(Qcow2Cache *cache)
{ g_assert_not_reached(); }
__attribute__((weak)) int64_t qcow2_cache_slice_bytes(const Qcow2Cache *cache)
{ return 0; }
__attribute__((weak)) size_t qcow2_cache_nr_slices(const Qcow2Cache *cache)
{ return 0; }
__attribute__((weak)) bool qcow2_cache_peek(Qcow2Cache *cache, int64_t offset, size_t pos, size_t bytes, void *buf)
{ return false; }
__attribute__((weak)) int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, int64_t offset, Qcow2Slice **ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_cache_get_zeroed(Qcow2Cache *cache, int64_t offset, Qcow2Slice **ret)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_cache_put(Qcow2Cache *cache, Qcow2Slice *slice)
{ g_assert_not_reached(); }
__attribute__((weak)) const void *qcow2_slice_data(const Qcow2Slice *slice)
{ return NULL; }
__attribute__((weak)) void qcow2_cache_change(Qcow2Cache *cache, Qcow2Slice *slice, size_t pos, const void *buf, size_t bytes)
{ g_assert_not_reached(); }
__attribute__((weak)) void coroutine_fn qcow2_cache_forget(Qcow2Cache *cache, int64_t offset, int64_t bytes)
{ g_assert_not_reached(); }
__attribute__((weak)) bool qcow2_cache_has_room(Qcow2Cache *cache, size_t count)
{ return false; }
__attribute__((weak)) size_t qcow2_cache_nr_dirty(Qcow2Cache *cache)
{ return 0; }
__attribute__((weak)) void qcow2_cache_freeze(Qcow2Cache *cache)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_cache_write_frozen(Qcow2Cache *cache)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_cache_clean_unused(Qcow2Cache *cache)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_cache_reset(Qcow2Cache *cache)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_meta_lock(Qcow2 *q)
{ return -ENOTSUP; }
__attribute__((weak)) void coroutine_fn qcow2_meta_unlock(Qcow2 *q)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_writeback(Qcow2 *q)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_header_read(BdrvChild *file, const char *node_name, Qcow2Header *header, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_header_clear(Qcow2Header *header)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_header_write(Qcow2 *q, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_header_patch(Qcow2 *q, unsigned field, const void *buf, size_t bytes)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_prepare_write_slow(Qcow2 *q)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_set_dirty(Qcow2 *q, bool dirty)
{ return -ENOTSUP; }
__attribute__((weak)) void coroutine_fn qcow2_signal_corruption(Qcow2 *q, bool fatal, int64_t host_offset, int64_t bytes, const char *format, ...)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_map(Qcow2 *q, int64_t offset, int64_t bytes, bool for_write, Qcow2Mapping *ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_l2_get(Qcow2 *q, int64_t offset, bool make, Qcow2L2Ref *ret)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_l2_put(Qcow2 *q, Qcow2L2Ref *ref)
{ g_assert_not_reached(); }
__attribute__((weak)) Qcow2L2Entry qcow2_l2_read(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index)
{ return (Qcow2L2Entry){0}; }
__attribute__((weak)) void qcow2_l2_write(Qcow2 *q, const Qcow2L2Ref *ref, unsigned index, Qcow2L2Entry entry)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_free_entry(Qcow2 *q, Qcow2L2Entry entry, Qcow2DiscardType type)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_l1_set(Qcow2 *q, size_t index, uint64_t value)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_l1_grow(Qcow2 *q, int64_t entries, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_l1_load(Qcow2 *q, int64_t offset, size_t entries, Qcow2L1 **ret, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) bool coroutine_fn qcow2_wait_allocs(Qcow2 *q, int64_t offset, int64_t bytes)
{ return false; }
__attribute__((weak)) int coroutine_fn qcow2_preadv(BlockDriverState *bs, const BlockIO *io)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_pwritev(BlockDriverState *bs, const BlockIO *io)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_pwrite_zeroes(BlockDriverState *bs, const BlockIO *io)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_pdiscard(BlockDriverState *bs, const BlockIO *io)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_block_status(BlockDriverState *bs, const BlockIO *io, BlockExtent *ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_copy_range_from(BlockDriverState *bs, const BlockCopyRange *copy)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_copy_range_to(BlockDriverState *bs, const BlockCopyRange *copy)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_flush(BlockDriverState *bs)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_discard_range(Qcow2 *q, int64_t offset, int64_t bytes, Qcow2DiscardType type, bool full)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_zero_range(Qcow2 *q, int64_t offset, int64_t bytes, unsigned flags)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_preallocate_run(Qcow2 *q, int64_t offset, int64_t bytes, int64_t *ret_host, int64_t *ret_bytes)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_link_compressed(Qcow2 *q, int64_t offset, uint64_t word)
{ return -ENOTSUP; }
__attribute__((weak)) unsigned qcow2_access_begin(Qcow2 *q)
{ return 0; }
__attribute__((weak)) void qcow2_access_end(Qcow2 *q, unsigned ticket)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_epoch_advance(Qcow2 *q)
{ g_assert_not_reached(); }
__attribute__((weak)) bool qcow2_epoch_over(Qcow2 *q, unsigned epoch)
{ return false; }
__attribute__((weak)) int coroutine_fn qcow2_refcount_get(Qcow2 *q, int64_t cluster, uint64_t *ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_refcount_change(Qcow2 *q, int64_t offset, int64_t bytes, int64_t delta)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_alloc_clusters(Qcow2 *q, int64_t max, bool exact, Qcow2Run *ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_alloc_clusters_at(Qcow2 *q, int64_t offset, int64_t max, Qcow2Run *ret)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_alloc_bytes(Qcow2 *q, int64_t bytes, int64_t *ret_offset)
{ return -ENOTSUP; }
__attribute__((weak)) void coroutine_fn qcow2_unalloc(Qcow2 *q, int64_t offset, int64_t bytes)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_free_later(Qcow2 *q, int64_t offset, int64_t bytes, Qcow2DiscardType type)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_pending_take(Qcow2 *q, ListHead *taken)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_pending_put(Qcow2 *q, ListHead *taken, bool ok)
{ g_assert_not_reached(); }
__attribute__((weak)) void coroutine_fn qcow2_pending_release(Qcow2 *q)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_metamap_build(Qcow2 *q, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_metamap_free(Qcow2Metamap *map)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_metamap_add(Qcow2 *q, Qcow2Overlap kind, int64_t offset, int64_t bytes)
{ g_assert_not_reached(); }
__attribute__((weak)) void qcow2_metamap_remove(Qcow2 *q, Qcow2Overlap kind, int64_t offset, int64_t bytes)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_check_overlap(Qcow2 *q, unsigned ign, int64_t offset, int64_t bytes, bool data)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_snapshots_read(Qcow2 *q, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) void qcow2_snapshots_free(Qcow2 *q)
{ g_assert_not_reached(); }
__attribute__((weak)) int coroutine_fn qcow2_bitmaps_begin_write(Qcow2 *q)
{ return -ENOTSUP; }
__attribute__((weak)) int coroutine_fn qcow2_bitmaps_open(Qcow2 *q, GError **errp)
{ return -ENOTSUP; }
__attribute__((weak)) int qcow2_caches_init(Qcow2 *q, GError **errp)
{ return 0; }
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
__attribute__((weak)) int coroutine_fn qcow2_bitmaps_end_write(Qcow2 *q, GError **errp)
{ return 0; }
__attribute__((weak)) int coroutine_fn qcow2_stored_bitmap_list(BlockDriverState *bs, GPtrArray *list, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_stored_bitmap_add(BlockDriverState *bs, const char *name, int64_t granularity, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_stored_bitmap_remove(BlockDriverState *bs, const char *name, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_check(BlockDriverState *bs, const BdrvCheck *how, BdrvCheckResult *ret, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
__attribute__((weak)) int coroutine_fn qcow2_repair_dirty(Qcow2 *q, GError **errp)
{ return block_error(errp, ENOTSUP, "Undone"); }
