/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory whose size images state: what each node has of it, and all together.
 *
 * There are two kinds of users.  Tables need what they need, and are refused
 * when a sum would be passed.  Caches take what is left, but for a quarter of
 * each sum, which is for tables alone: so a cache never stands in the way of a
 * table, and gives back what it has above that.
 *
 * The second sum is one of the process: memory is, however many graphs it has.
 *
 * Thread: any.  No lock is taken; may be called under any.
 */
#ifndef BLOCK_GRAPH_TABLE_MEMORY_H
#define BLOCK_GRAPH_TABLE_MEMORY_H

#include <blockgraph/driver.h>
#include <stdatomic.h>

/** What one node has; all zero at first. */
typedef struct TableAccount {
    _Atomic int64_t bytes;
    _Atomic int64_t stated; /* table_memory_state() */
    _Atomic int64_t apart;  /* table_memory_take_apart() */
} TableAccount;

/** The account of @bs. */
TableAccount *bdrv_table_account(BlockDriverState *bs);

/**
 * Take @bytes for a table.  False if a sum does not allow it; when two threads
 * compete for the last bytes both may be refused.  Without an account (NULL)
 * nothing is counted.
 */
bool table_memory_take(TableAccount *account, int64_t bytes);

/** Take @bytes for a cache; false if it is to make do with what it has. */
bool table_memory_take_soft(TableAccount *account, int64_t bytes);

/** Take @bytes that are bounded otherwise, and cannot be done without, also
 * beyond the sums. */
void table_memory_take_always(TableAccount *account, int64_t bytes);

/**
 * Take @bytes that the sum of the process must allow, but not that of the node,
 * since they have a limit of their own for it: bitmaps.  -EFBIG with @errp
 * (main context).  Give them back with table_memory_give_apart().
 */
int table_memory_take_apart(BlockDriverState *bs, int64_t bytes,
                            GError **errp);
void table_memory_give_apart(TableAccount *account, int64_t bytes);

/** Give back @bytes that were taken, in whichever way. */
void table_memory_give(TableAccount *account, int64_t bytes);

/** Whether caches have more than they may have by now: tables came. */
bool table_memory_is_short(const TableAccount *account);

/**
 * The operator has stated that the node may have @bytes more than others (for
 * its caches): its sum is that much larger, and as much of what it has is not
 * in that of the process.  0 takes it back.  Nobody takes or gives meanwhile.
 */
void table_memory_state(TableAccount *account, int64_t bytes);

/** What a node, or all together, may have for tables. */
int64_t table_memory_node_max(const TableAccount *account);
int64_t table_memory_process_max(void);

/** What is taken by a node, and by all beyond what is stated. */
int64_t table_memory_of_node(const TableAccount *account);
int64_t table_memory_of_process(void);

/** For tests: other sums; 0: those of the product. */
void table_memory_set_max(int64_t node, int64_t process);

#endif /* BLOCK_GRAPH_TABLE_MEMORY_H */
