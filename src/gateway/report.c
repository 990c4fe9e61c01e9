/* What waits and runs, told to the control plane: an object of this gateway's own, written every
 * two seconds while there is anything to tell, and at once when somebody waits for a model of which
 * nothing runs. Requests never wait for it. */
#include "core/log.h"
#include "core/mem.h"
#include "gateway/feed_priv.h"

#include <string.h>

/* The load of an offer that scales; NULL: there is nothing to tell. */
static struct gw_load *load_of(struct gw_feed *feed, const struct gw_offer *offer)
{
    struct gw_load *load = offer->policy.scales ? at_map_get(feed->loads, offer->qualified) : NULL;
    bool any =
        load != NULL && (atomic_load(&load->waiting) > 0 || atomic_load(&load->running) > 0 ||
                         atomic_load(&load->arrived) != offer->arrived_told);
    return any ? load : NULL;
}

static void add_entry(json_t *list, struct gw_offer *offer, struct gw_load *load)
{
    int64_t waiting = atomic_load(&load->waiting), arrived = atomic_load(&load->arrived);
    offer->arrived_telling = arrived;
    atomic_store(&load->told, waiting > 0);
    json_array_append_new(
        list,
        json_pack(
            "{s:s, s:s, s:s, s:I, s:I, s:I}", "namespace", offer->ns, "name", offer->name, "model",
            offer->model, "waiting", (json_int_t)waiting, "running",
            (json_int_t)atomic_load(&load->running), "arrived",
            (json_int_t)(arrived < offer->arrived_told ? arrived : arrived - offer->arrived_told)));
}

static json_t *make(struct at_gateway *g)
{
    json_t *list = json_array();
    void *value;
    for (size_t it = 0; at_map_next(g->feed.offers, &it, NULL, &value);) {
        struct gw_load *load = load_of(&g->feed, value);
        if (load != NULL && json_array_size(list) < AT_GW_REPORT_ENTRIES_MAX) {
            add_entry(list, value, load);
        }
    }
    return list;
}

static int64_t sum(const json_t *list, const char *member)
{
    int64_t total = 0;
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        total += json_integer_value(json_object_get(entry, member));
    }
    return total;
}

static json_t *status_of(const struct at_gateway *g, json_t *list_take)
{
    char time[AT_UNITS_TEXT_BYTES_MAX], interval[AT_UNITS_TEXT_BYTES_MAX];
    int64_t passed = at_loop_now_ns(g->loop) - g->report.told_ns;
    passed = passed > AT_GW_MS ? passed / AT_GW_MS * AT_GW_MS : AT_GW_MS;
    const char *meter = gw_metering_meter(g);
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "site", g->site != NULL ? g->site : "",
                     "meter", meter != NULL ? meter : "", "time",
                     at_time_format_micro(at_sys_wall_ns(at_loop_sys(g->loop)), time), "interval",
                     at_duration_format(passed, interval), "waiting",
                     (json_int_t)sum(list_take, "waiting"), "running",
                     (json_int_t)sum(list_take, "running"), "deployments", list_take);
}

static void tell(void *ctx);

static void tell_after(struct at_gateway *g, int64_t delay_ns)
{
    struct gw_report *r = &g->report;
    int64_t due = at_loop_now_ns(g->loop) + delay_ns;
    if (r->timer != 0 && r->due_ns <= due) {
        return;
    }
    at_loop_timer_cancel(g->loop, r->timer);
    r->timer = at_loop_timer(g->loop, delay_ns, tell, g);
    r->due_ns = due;
}

static void told(struct at_gateway *g)
{
    void *value;
    for (size_t it = 0; at_map_next(g->feed.offers, &it, NULL, &value);) {
        struct gw_offer *offer = value;
        offer->arrived_told = offer->arrived_telling;
    }
    g->report.told_ns = at_loop_now_ns(g->loop);
}

static void on_done(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct at_gateway *g = ctx;
    struct gw_report *r = &g->report;
    (void)status, (void)body;
    r->call = 0;
    bool metered = at_json_str_at(r->status, "meter", "")[0] != '\0';
    bool empty = !metered && json_array_size(json_object_get(r->status, "deployments")) == 0;
    if (rc == AT_NOT_FOUND && !empty && !r->creating) { /* the first one, or it was deleted */
        json_t *object =
            json_pack("{s:s, s:s, s:{s:s}, s:O}", "apiVersion", "atoll.dev/v1", "kind",
                      "GatewayReport", "metadata", "name", g->name, "status", r->status);
        r->creating = true;
        r->call = at_client_create(g->client, &AT_KIND_GATEWAY_REPORT, NULL, object, on_done, g);
        json_decref(object);
        return;
    }
    bool well = rc == AT_OK || (rc == AT_NOT_FOUND && empty);
    if (well) {
        r->met = metered;
        told(g);
    } else if (!r->failing) { /* once, not every two seconds */
        at_log(AT_LOG_WARN, "report.failed", "cannot tell what waits: %s", err->msg);
    }
    r->failing = !well;
    json_decref(r->status);
    r->status = NULL;
    if (r->again) {
        r->again = false;
        tell_after(g, AT_GW_REPORT_MIN_NS);
    }
}

static void tell(void *ctx)
{
    struct at_gateway *g = ctx;
    struct gw_report *r = &g->report;
    r->timer = 0;
    tell_after(g, AT_GW_REPORT_NS);
    if (r->call != 0) {
        r->again = true;
        return;
    }
    json_t *list = make(g);
    bool any = json_array_size(list) > 0;
    /* Others must know that it is there while it has money that they would take back. */
    bool due = gw_metering_meter(g) != NULL &&
               (!r->met || at_loop_now_ns(g->loop) - r->told_ns >= AT_GW_ALIVE_NS);
    if (!any && !r->some && !due) {
        json_decref(list);
        return;
    }
    r->some = any || r->failing;
    r->creating = false;
    r->status = status_of(g, list);
    json_t *patch = json_pack("{s:O}", "status", r->status);
    r->call =
        at_client_patch(g->client, &AT_KIND_GATEWAY_REPORT, NULL, g->name, NULL, patch, on_done, g);
    json_decref(patch);
}

/* From any loop, by the first one. */
static void poked(void *ctx)
{
    struct at_gateway *g = ctx;
    atomic_store(&g->report.poked, false);
    int64_t since = at_loop_now_ns(g->loop) - g->report.told_ns;
    tell_after(g, since < AT_GW_REPORT_MIN_NS ? AT_GW_REPORT_MIN_NS - since : 0);
}

void gw_report_poke(struct gw_worker *worker, const struct gw_model *model)
{
    struct at_gateway *g = worker->gateway;
    if (!model->policy.scales || model->load == NULL || atomic_load(&model->load->told) ||
        atomic_exchange(&g->report.poked, true)) {
        return;
    }
    if (at_loop_post(g->loop, poked, g) != AT_OK) {
        atomic_store(&g->report.poked, false); /* the next report says it */
    }
}

void gw_report_start(struct at_gateway *gateway)
{
    gateway->report.some = true; /* what a forerunner told is no more so */
    tell_after(gateway, 0);
}

void gw_report_done(struct at_gateway *gateway)
{
    struct gw_report *r = &gateway->report;
    at_loop_timer_cancel(gateway->loop, r->timer);
    r->timer = 0;
    if (r->call != 0) {
        at_client_cancel(gateway->client, r->call);
        r->call = 0;
    }
    json_decref(r->status);
    r->status = NULL;
}
