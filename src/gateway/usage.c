/* From the logs to what is told of usage: waiting for the disk on another thread, counting what is
 * there, metrics, and records at the control plane. */
#include "core/log.h"
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <string.h>

/* --- metrics --- */

struct usage_metrics {
    struct at_metric *requests, *prompt, *completion, *cost;
};

static struct usage_metrics *metrics_of(struct gw_metering *m, const struct at_meter_row *row)
{
    AT_CLEANUP(at_cleanup_free)
    char *name = at_asprintf("%s %s %s", row->ns, row->team, row->model);
    struct usage_metrics *u = at_map_get(m->usage_metrics, name);
    if (u == NULL) {
        const char *const plain[] = {row->ns, row->team, row->model, NULL};
        const char *const prompt[] = {row->ns, row->team, row->model, "prompt", NULL};
        const char *const completion[] = {row->ns, row->team, row->model, "completion", NULL};
        u = AT_NEW(struct usage_metrics);
        u->requests = at_metric_with(m->m_requests, plain);
        u->cost = at_metric_with(m->m_cost, plain);
        u->prompt = at_metric_with(m->m_tokens, prompt);
        u->completion = at_metric_with(m->m_tokens, completion);
        at_map_put(m->usage_metrics, name, u);
    }
    return u;
}

static void on_use(void *ctx, const struct at_meter_row *row, const struct at_meter_use *use)
{
    struct usage_metrics *u = metrics_of(ctx, row);
    at_metric_add(u->requests, 1);
    at_metric_add(u->prompt, (int64_t)use->prompt);
    at_metric_add(u->completion, (int64_t)use->completion);
    at_metric_add(u->cost, use->cost_nanousd);
}

static void metrics_init(struct gw_metering *m)
{
    static const char *const PLAIN[] = {"namespace", "team", "model", NULL};
    static const char *const TOKENS[] = {"namespace", "team", "model", "kind", NULL};
    struct at_metrics *r = m->gateway->metrics.registry;
    m->usage_metrics = at_map_new();
    m->m_requests = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_usage_requests_total",
                                      "Requests of API keys, once they are on the disk.", PLAIN);
    m->m_tokens = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_usage_tokens_total",
                                    "Tokens of API keys, once they are on the disk.", TOKENS);
    m->m_cost =
        at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_usage_cost_nanodollars_total",
                          "What requests of API keys cost, once they are on the disk.", PLAIN);
}

/* --- telling --- */

static json_t *row_json(const struct at_meter_row *row)
{
    char cost[AT_UNITS_TEXT_BYTES_MAX];
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s}", "key", row->key, "uid",
                     row->uid, "team", row->team, "model", row->model, "requests",
                     (json_int_t)row->requests, "errors", (json_int_t)row->errors, "cached",
                     (json_int_t)row->cached, "promptTokens", (json_int_t)row->prompt,
                     "completionTokens", (json_int_t)row->completion, "cost",
                     at_money_format((row->cost_nanousd + 999) / 1000, cost));
}

static json_t *spec_json(const struct gw_metering *m, const struct at_meter_part *part,
                         const char *day)
{
    char time[AT_UNITS_TEXT_BYTES_MAX];
    json_t *rows = json_array();
    for (size_t i = 0; i < part->n_rows; i++) {
        json_array_append_new(rows, row_json(part->rows[i]));
    }
    int64_t wall_ns = at_loop_now_ns(m->gateway->loop) + atomic_load(&m->gateway->server_offset_ns);
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:o}", "gateway", m->gateway->name, "meter",
                     at_meter_book_meter(m->book), "day", day, "part", (int)part->number, "time",
                     at_time_format_micro(wall_ns, time), "rows", rows);
}

static void tell_next(struct gw_metering *m);

static void on_told(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct gw_metering *m = ctx;
    (void)status, (void)body;
    m->tell_call = 0;
    bool creating = m->tell_object == NULL;
    if (rc == AT_NOT_FOUND && !creating) { /* the first time, or somebody deleted it */
        AT_CLEANUP(at_cleanup_json) json_t *spec = m->tell_object;
        AT_CLEANUP(at_cleanup_json)
        json_t *object = json_pack("{s:s, s:s, s:{s:s, s:s}, s:O}", "apiVersion", "atoll.dev/v1",
                                   "kind", "UsageRecord", "metadata", "name", m->tell_name,
                                   "namespace", m->tell_ns, "spec", spec);
        m->tell_object = NULL;
        m->tell_call = at_client_create(m->gateway->client, &AT_KIND_USAGE_RECORD, m->tell_ns,
                                        object, on_told, m);
        return;
    }
    json_decref(m->tell_object);
    m->tell_object = NULL;
    if (rc != AT_OK) {
        m->telling->dirty = !(creating && rc == AT_NOT_FOUND); /* its namespace has gone */
        m->tell_after_ns = at_loop_now_ns(m->gateway->loop) + 2 * AT_GW_USAGE_TELL_NS;
        if (!m->told_error) {
            m->told_error = true;
            at_log(AT_LOG_WARN, "usage.failed", "usage is not told yet, and is kept: %s", err->msg);
        }
        return;
    }
    tell_next(m);
}

static void tell(struct gw_metering *m, struct at_meter_part *part)
{
    char day[AT_METER_PERIOD_BYTES];
    at_meter_period(AT_METER_DAY, part->day, day);
    snprintf(m->tell_name, sizeof m->tell_name, "%.200s-%s-%s-%u", m->gateway->name,
             at_meter_book_meter(m->book), day, part->number);
    snprintf(m->tell_ns, sizeof m->tell_ns, "%s", part->ns);
    m->telling = part;
    part->dirty = false;
    m->told_rows += part->n_rows;
    m->tell_object = spec_json(m, part, day);
    AT_CLEANUP(at_cleanup_json) json_t *patch = json_pack("{s:O}", "spec", m->tell_object);
    m->tell_call = at_client_patch(m->gateway->client, &AT_KIND_USAGE_RECORD, part->ns,
                                   m->tell_name, NULL, patch, on_told, m);
}

/* The next one that has changed, in turn; all are told once before any is told again. */
static void tell_next(struct gw_metering *m)
{
    struct at_meter_part *part;
    while ((part = at_meter_book_part(m->book, m->tell_next)) != NULL) {
        m->tell_next++;
        if (part->dirty && at_meter_book_may_tell(m->book, part)) {
            tell(m, part);
            return;
        }
    }
    int64_t pause_ns = (int64_t)m->told_rows * (AT_GW_S / AT_GW_USAGE_ROWS_PER_S);
    pause_ns = pause_ns > AT_GW_USAGE_TELL_NS ? pause_ns : AT_GW_USAGE_TELL_NS;
    m->tell_next = m->told_rows = 0;
    m->tell_after_ns = at_loop_now_ns(m->gateway->loop) + (m->stopping ? 0 : pause_ns);
}

static bool any_dirty(const struct gw_metering *m)
{
    struct at_meter_part *part;
    for (size_t i = 0; m->book != NULL && (part = at_meter_book_part(m->book, i)) != NULL; i++) {
        if (part->dirty) {
            return true;
        }
    }
    return false;
}

/* --- rounds --- */

static void round_work(void *ctx)
{
    struct gw_metering *m = ctx;
    m->sync_rc = at_meter_book_sync(m->book, &m->sync_err);
}

static void round_done(void *ctx)
{
    struct gw_metering *m = ctx;
    m->syncing = false;
    if (m->sync_rc != AT_OK && !m->told_error) {
        m->told_error = true;
        at_log(AT_LOG_ERROR, "usage.disk", "usage cannot be written down: %s", m->sync_err.msg);
    }
    at_meter_book_end(m->book, m->sync_rc == AT_OK, atomic_load(&m->gateway->today));
    if (m->tell_call == 0 &&
        (m->stopping || at_loop_now_ns(m->gateway->loop) >= m->tell_after_ns)) {
        tell_next(m);
    }
}

static void round_begin(void *ctx)
{
    struct gw_metering *m = ctx;
    m->round_timer = at_loop_timer(
        m->gateway->loop, m->stopping ? AT_GW_DRAIN_LOOK_NS : AT_GW_USAGE_ROUND_NS, round_begin, m);
    if (m->syncing) {
        return;
    }
    if (!at_meter_book_begin(m->book)) { /* nothing new: the disk is left alone */
        m->sync_rc = AT_OK;
        round_done(m);
        return;
    }
    m->syncing = at_pool_submit(m->pool, m->gateway->loop, round_work, round_done, m) == AT_OK;
}

bool gw_usage_open(struct gw_metering *m)
{
    struct at_gateway *g = m->gateway;
    struct at_err err = {0};
    char damage[AT_ERR_MSG_BYTES_MAX];
    struct at_meter_book_options options = {
        .folder = m->folder, .sys = at_loop_sys(g->loop), .on_use = on_use, .ctx = m};
    if (m->usage_metrics == NULL) {
        metrics_init(m);
    }
    enum at_rc rc = at_meter_book_open(&options, &m->book, damage, &err);
    AT_CLEANUP(at_cleanup_free)
    struct at_meter_log **logs = at_alloc(g->n_workers * sizeof(struct at_meter_log *));
    for (unsigned i = 0; i < g->n_workers && rc == AT_OK; i++) {
        rc = at_meter_book_log(m->book, &logs[i], &err);
    }
    if (rc != AT_OK && !m->is_broken) {
        m->is_broken = true;
        at_log(AT_LOG_ERROR, "usage.open",
               "requests with API keys are refused, for what they use cannot be written down: %s; "
               "trying again",
               err.msg);
    }
    if (rc != AT_OK) {
        at_meter_book_free(m->book);
        m->book = NULL;
        return false;
    }
    m->is_broken = false;
    for (unsigned i = 0; i < g->n_workers; i++) {
        atomic_store(&g->workers[i].log, logs[i]);
    }
    if (damage[0] != '\0') {
        at_log(AT_LOG_ERROR, "usage.damaged", "%s", damage);
    }
    m->pool = at_pool_new(1, 4);
    m->round_timer = at_loop_timer(g->loop, AT_GW_USAGE_ROUND_NS, round_begin, m);
    return true;
}

bool gw_usage_busy(const struct gw_metering *m)
{
    return m->book != NULL &&
           (m->syncing || m->tell_call != 0 || any_dirty(m) || at_meter_book_behind(m->book));
}

void gw_usage_close(struct gw_metering *m)
{
    at_loop_timer_cancel(m->gateway->loop, m->round_timer);
    m->round_timer = 0;
    at_pool_free(m->pool);
    m->pool = NULL;
    if (m->tell_call != 0) {
        at_client_cancel(m->gateway->client, m->tell_call);
        m->tell_call = 0;
    }
    json_decref(m->tell_object);
    m->tell_object = NULL;
}

void gw_usage_done(struct gw_metering *m)
{
    void *value;
    at_meter_book_free(m->book);
    m->book = NULL;
    for (size_t it = 0;
         m->usage_metrics != NULL && at_map_next(m->usage_metrics, &it, NULL, &value);) {
        at_free(value);
    }
    at_map_free(m->usage_metrics);
}
