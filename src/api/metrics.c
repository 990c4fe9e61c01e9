/* GET /metrics: the registry as text, with the store's own counts brought up to date first. */
#include "api/api_priv.h"
#include "core/mem.h"

enum store_number {
    STORE_REVISION,
    STORE_KEYS,
    STORE_WATCHERS,
    STORE_QUEUED,
    STORE_HISTORY_REVISIONS,
    STORE_HISTORY_BYTES,
    STORE_WRITES,
    STORE_BATCHES,
    STORE_BATCHES_FAILED,
    STORE_COMPACTIONS,
    STORE_NUMBERS,
};

static const struct {
    const char *name, *help;
    bool counter;
} NUMBERS[STORE_NUMBERS] = {
    [STORE_REVISION] = {"atoll_store_revision", "Newest durable revision.", false},
    [STORE_KEYS] = {"atoll_store_keys", "Objects stored.", false},
    [STORE_WATCHERS] = {"atoll_store_watchers", "Watches on the store.", false},
    [STORE_QUEUED] = {"atoll_store_writes_queued", "Writes that wait for the disk.", false},
    [STORE_HISTORY_REVISIONS] = {"atoll_store_history_revisions",
                                 "Revisions from which a watch can resume.", false},
    [STORE_HISTORY_BYTES] = {"atoll_store_history_bytes", "Memory of that history.", false},
    [STORE_WRITES] = {"atoll_store_writes_total", "Writes made durable.", true},
    [STORE_BATCHES] = {"atoll_store_batches_total", "Transactions that carried them.", true},
    [STORE_BATCHES_FAILED] = {"atoll_store_batches_failed_total",
                              "Transactions that the disk refused.", true},
    [STORE_COMPACTIONS] = {"atoll_store_compactions_total", "Times that history was cut.", true},
};

struct api_store_metrics {
    struct at_metric *numbers[STORE_NUMBERS];
};

struct api_store_metrics *api_store_metrics_new(struct at_metrics *metrics)
{
    struct api_store_metrics *m = AT_NEW(struct api_store_metrics);
    for (size_t i = 0; i < STORE_NUMBERS; i++) {
        enum at_metric_type type = NUMBERS[i].counter ? AT_METRIC_COUNTER : AT_METRIC_GAUGE;
        m->numbers[i] = at_metric_with(
            at_metrics_family(metrics, type, NUMBERS[i].name, NUMBERS[i].help, NULL), NULL);
    }
    return m;
}

static void refresh(const struct at_api *api)
{
    const struct at_store_stats s = at_store_stats(api->options.store);
    const int64_t values[STORE_NUMBERS] = {
        [STORE_REVISION] = at_store_rev(api->options.store),
        [STORE_KEYS] = (int64_t)s.keys,
        [STORE_WATCHERS] = (int64_t)s.watchers,
        [STORE_QUEUED] = (int64_t)s.queued,
        [STORE_HISTORY_REVISIONS] = (int64_t)s.history_revs,
        [STORE_HISTORY_BYTES] = (int64_t)s.history_bytes,
        [STORE_WRITES] = (int64_t)s.writes,
        [STORE_BATCHES] = (int64_t)s.batches,
        [STORE_BATCHES_FAILED] = (int64_t)s.failed_batches,
        [STORE_COMPACTIONS] = (int64_t)s.compactions,
    };
    for (size_t i = 0; i < STORE_NUMBERS; i++) {
        struct at_metric *m = api->store_metrics->numbers[i];
        at_metric_add(m, values[i] - at_metric_value(m));
    }
}

void api_metrics_show(struct api_req *req)
{
    struct at_buf text = {0};
    struct at_metrics *metrics = req->api->options.metrics;
    if (metrics != NULL) {
        refresh(req->api);
    }
    if (metrics == NULL || at_metrics_expose(metrics, &text) != AT_OK) {
        api_respond_error(req, AT_UNAVAILABLE, "there are no metrics");
    } else {
        api_respond_text(req, 200, "text/plain; version=0.0.4; charset=utf-8", NULL,
                         text.data != NULL ? text.data : "", text.len);
    }
    at_buf_done(&text);
}
