/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions: a list of steps that were done and can be undone.
 */
#include "block/graph/transaction.h"

#include <glib.h>
#include <stdbool.h>

typedef struct StepDone {
    const TransactionStep *step;
    void *opaque;
} StepDone;

struct Transaction {
    GArray *steps; /* StepDone */
};

Transaction *transaction_new(void)
{
    Transaction *txn = g_new(Transaction, 1);

    txn->steps = g_array_new(false, false, sizeof(StepDone));
    return txn;
}

void transaction_add(Transaction *txn, const TransactionStep *step,
                     void *opaque)
{
    StepDone done = { .step = step, .opaque = opaque };

    g_array_append_val(txn->steps, done);
}

static void transaction_free(Transaction *txn)
{
    for (guint i = 0; i < txn->steps->len; i++) {
        g_free(g_array_index(txn->steps, StepDone, i).opaque);
    }
    g_array_free(txn->steps, true);
    g_free(txn);
}

void transaction_commit(Transaction *txn)
{
    for (guint i = 0; i < txn->steps->len; i++) {
        StepDone *done = &g_array_index(txn->steps, StepDone, i);

        if (done->step->commit) {
            done->step->commit(done->opaque);
        }
    }
    transaction_free(txn);
}

void transaction_abort(Transaction *txn)
{
    for (guint i = txn->steps->len; i > 0; i--) {
        StepDone *done = &g_array_index(txn->steps, StepDone, i - 1);

        if (done->step->abort) {
            done->step->abort(done->opaque);
        }
    }
    transaction_free(txn);
}

int transaction_end(Transaction *txn, int ret)
{
    if (ret < 0) {
        transaction_abort(txn);
    } else {
        transaction_commit(txn);
    }
    return ret;
}
