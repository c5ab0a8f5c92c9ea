/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that turn out to be corrupt: somebody is told.
 *
 * Whoever meets the damage may be in any thread, and in the middle of a
 * request.  It leaves what is to be told in the graph, and wakes the main
 * context.  A driver tells of a node a few times at most, so the list is short.
 */
#include "block/graph/graph-int.h"

typedef struct Report {
    ListHead link;          /* in graph->corruption.reports */
    BlockCorruptionEvent event;
    char *node_name;
    char *message;
} Report;

static void report_free(Report *report)
{
    g_free(report->node_name);
    g_free(report->message);
    g_free(report);
}

static Report *take_report(CorruptionReports *c)
{
    Report *report;

    LOCK_GUARD(&c->lock);
    if (list_empty(&c->reports)) {
        return NULL;
    }
    report = LIST_ENTRY(c->reports.next, Report, link);
    list_remove(&report->link);
    return report;
}

static void tell_bh(void *opaque)
{
    CorruptionReports *c = opaque;
    Report *report;

    while ((report = take_report(c))) {
        if (c->listener) {
            c->listener(&report->event, c->listener_opaque);
        }
        report_free(report);
    }
}

void graph_corruption_init(BlockGraph *graph)
{
    CorruptionReports *c = &graph->corruption;

    lock_init(&c->lock, LOCK_RANK_LEAF);
    list_init(&c->reports);
    c->bh = aio_bh_new(graph->ctx, tell_bh, c);
}

void graph_corruption_clear(BlockGraph *graph)
{
    CorruptionReports *c = &graph->corruption;
    Report *report;

    aio_bh_delete(c->bh);
    while ((report = take_report(c))) {
        report_free(report);
    }
}

void bdrv_report_corruption(BlockDriverState *bs,
                            const BlockCorruptionEvent *event)
{
    CorruptionReports *c = &bs->graph->corruption;
    Report *report = g_new0(Report, 1);

    report->node_name = g_strdup(bs->node_name);
    report->message = g_strdup(event->message);
    report->event = *event;
    report->event.node_name = report->node_name;
    report->event.message = report->message;
    WITH_LOCK(&c->lock) {
        list_append(&c->reports, &report->link);
    }
    aio_bh_schedule(c->bh);
}

void block_graph_set_corruption_listener(BlockGraph *graph,
                                         BlockCorruptionListener *listener,
                                         void *opaque)
{
    graph->corruption.listener = listener;
    graph->corruption.listener_opaque = opaque;
}
