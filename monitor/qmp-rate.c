/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits on the rate of events.
 */
#include "monitor/qmp-rate.h"

/* The time of one kind and key. */
typedef struct Rate {
    GHashTable *rates;
    char *name;          /* its key there */
    AioContext *ctx;
    const QmpEvent *kind;
    QmpRateSink sink;
    AioTimer *timer;
    json_t *pending;     /* to be told then, or NULL */
} Rate;

static void rate_free(gpointer opaque)
{
    Rate *rate = opaque;

    aio_timer_free(rate->timer);
    json_decref(rate->pending);
    g_free(rate->name);
    g_free(rate);
}

GHashTable *qmp_rates_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, rate_free);
}

static void begin(Rate *rate)
{
    aio_timer_set(rate->timer, aio_clock_ns(rate->ctx) + rate->kind->rate_ns);
}

static void time_is_over(void *opaque)
{
    Rate *rate = opaque;

    if (!rate->pending) {
        g_hash_table_remove(rate->rates, rate->name);
        return;
    }
    rate->sink.tell(rate->pending, rate->sink.opaque);
    json_decref(rate->pending);
    rate->pending = NULL;
    begin(rate);
}

void qmp_rate_send(GHashTable *rates, AioContext *ctx, const QmpEvent *kind,
                   json_t *event, const QmpRateSink *sink)
{
    g_autofree char *name = NULL;
    const char *key = NULL;
    Rate *rate;

    if (kind->rate_ns == 0) {
        sink->tell(event, sink->opaque);
        return;
    }
    if (kind->key) {
        key = json_string_value(json_object_get(json_object_get(event, "data"),
                                                kind->key));
    }
    name = g_strdup_printf("%s/%s", kind->name, key ? key : "");
    rate = g_hash_table_lookup(rates, name);
    if (rate) {
        json_decref(rate->pending);
        rate->pending = json_incref(event);
        return;
    }
    sink->tell(event, sink->opaque);
    rate = g_new0(Rate, 1);
    *rate = (Rate){ .rates = rates, .name = g_steal_pointer(&name),
                    .ctx = ctx, .kind = kind, .sink = *sink };
    rate->timer = aio_timer_new(ctx, time_is_over, rate);
    g_hash_table_insert(rates, rate->name, rate);
    begin(rate);
}
