/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: a list of steps that were done and can be undone.
 *
 * A transaction of the graph never yields between its first step and its
 * commit or abort, so nobody sees the graph in between.  Main context.
 */
#ifndef BLOCK_GRAPH_TRANSACTION_H
#define BLOCK_GRAPH_TRANSACTION_H

typedef struct Transaction Transaction;

/** How one step ends; either may be NULL. */
typedef struct TransactionStep {
    void (*commit)(void *opaque);
    void (*abort)(void *opaque);
} TransactionStep;

/** A transaction without steps. */
Transaction *transaction_new(void);

/** Add a step that was done; @opaque is freed with g_free() at the end. */
void transaction_add(Transaction *txn, const TransactionStep *step,
                     void *opaque);

/** Finish all steps, in the order they were done; frees @txn. */
void transaction_commit(Transaction *txn);

/** Undo all steps, last one first; frees @txn. */
void transaction_abort(Transaction *txn);

/** Commit if @ret >= 0, else abort.  Returns @ret. */
int transaction_end(Transaction *txn, int ret);

#endif /* BLOCK_GRAPH_TRANSACTION_H */
