#include "gateway/policy.h"

#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

void gw_policy_default(struct gw_policy *ret)
{
    *ret = (struct gw_policy){.wait_requests = AT_GW_WAIT_REQUESTS,
                              .wait_bytes = AT_GW_WAIT_BYTES,
                              .circuit_errors = AT_GW_CIRCUIT_ERRORS,
                              .circuit_ns = AT_GW_CIRCUIT_NS,
                              .attempts = AT_GW_ATTEMPTS_DEFAULT,
                              .retry_milli = AT_GW_RETRY_SHARE_MILLI,
                              .hedge_centile = 95,
                              .hedge_milli = AT_GW_HEDGE_SHARE_MILLI,
                              .eject_errors = AT_GW_EJECT_ERRORS,
                              .eject_ns = AT_GW_AVOID_MIN_NS,
                              .eject_max_ns = AT_GW_AVOID_MAX_NS,
                              .eject_share_milli = AT_GW_EJECT_SHARE_MILLI,
                              .output_tokens_max = AT_GW_OUTPUT_TOKENS};
}

static unsigned number(int64_t value, int64_t max)
{
    return value < 0 ? 0 : (unsigned)(value < max ? value : max);
}

static int64_t duration(int64_t ns, int64_t min)
{
    return ns > min ? ns : min;
}

static void waiting_of(const struct at_waiting *w, struct gw_policy *p)
{
    p->wait_ns = AT_GW_WAIT_NS;
    if (w != NULL) {
        p->wait_ns = w->requests > 0 ? duration(w->timeout_ns, 0) : 0;
        p->wait_requests = number(w->requests, AT_GW_WAIT_REQUESTS_MAX);
        p->wait_bytes = w->bytes_bytes > 0 ? (size_t)w->bytes_bytes : 0;
    }
}

static void health_of(const struct at_health *h, struct gw_policy *p)
{
    const struct at_active_health *a = h->active;
    const struct at_passive_health *e = h->passive;
    if (a != NULL) {
        const char *path = at_streq(a->protocol, "http") ? a->path : "/v2/health/ready";
        snprintf(p->check_path, sizeof p->check_path, "%s", path != NULL ? path : "/");
        p->check = at_streq(a->protocol, "tcp") ? GW_CHECK_TCP : GW_CHECK_HTTP;
        p->check_interval_ns = duration(a->interval_ns, AT_GW_CHECK_INTERVAL_MIN_NS);
        p->check_timeout_ns = duration(a->timeout_ns, AT_GW_MS);
        p->check_failures = number(duration(a->failures, 1), 1000);
        p->check_successes = number(duration(a->successes, 1), 1000);
    }
    if (e != NULL) {
        p->eject_errors = number(e->errors, 10000);
        p->eject_ns = duration(e->ejection_ns, AT_GW_MS);
        p->eject_max_ns = duration(e->max_ejection_ns, p->eject_ns);
        p->eject_share_milli = number(e->max_ejected_percent, 100) * 10;
    }
}

enum at_rc gw_hedge_parse(const char *text, unsigned *ret_centile, int64_t *ret_ns)
{
    static const struct {
        const char *name;
        unsigned centile;
    } CENTILES[] = {{"p50", 50}, {"p90", 90}, {"p95", 95}, {"p99", 99}};
    for (size_t i = 0; i < AT_ARRAY_LEN(CENTILES); i++) {
        if (strcmp(CENTILES[i].name, text) == 0) {
            *ret_centile = CENTILES[i].centile;
            return AT_OK;
        }
    }
    int64_t ns;
    enum at_rc rc = at_duration_ns(text, &ns, NULL);
    if (rc == AT_OK) {
        *ret_centile = 0;
        *ret_ns = ns;
    }
    return rc;
}

static unsigned index_of(const char *text, const char *const *names, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        if (at_streq(text, names[i])) {
            return i;
        }
    }
    return 0;
}

void gw_cache_policy_of(const struct at_response_cache *cache, struct gw_cache_policy *ret)
{
    static const char *const SHARES[] = {"Key", "Team", "Namespace", "Everyone"};
    static const char *const CHARGES[] = {"Full", "Request", "Nothing"};
    ret->share = (enum gw_cache_share)index_of(cache->share, SHARES, 4);
    ret->charge = (enum gw_cache_charge)index_of(cache->charge, CHARGES, 3);
    ret->ttl_ns = cache->ttl_ns > 0 ? cache->ttl_ns : AT_GW_CACHE_NS;
}

static int64_t price(int64_t microusd)
{
    return microusd > 0 ? microusd : 0;
}

static void traffic_of(const struct at_traffic *t, struct gw_policy *ret)
{
    if (t->price != NULL) {
        ret->price =
            (struct at_meter_price){.input_microusd = price(t->price->input_tokens_microusd),
                                    .output_microusd = price(t->price->output_tokens_microusd),
                                    .request_microusd = price(t->price->request_microusd)};
    }
    if (t->max_output_tokens > 0) {
        ret->output_tokens_max = (uint64_t)t->max_output_tokens;
    }
    if (t->cache != NULL) {
        ret->caches = true;
        gw_cache_policy_of(t->cache, &ret->cache);
    }
}

void gw_policy_of(const struct at_deployment *deployment, struct gw_policy *ret)
{
    const struct at_deployment_spec *spec = &deployment->spec;
    gw_policy_default(ret);
    waiting_of(spec->waiting, ret);
    if (spec->health != NULL) {
        health_of(spec->health, ret);
    }
    if (spec->limits != NULL) {
        ret->requests_max = number(spec->limits->requests, 1000000);
        ret->circuit_errors = number(spec->limits->circuit_errors, 1000000);
        ret->circuit_ns = duration(spec->limits->circuit_open_ns, AT_GW_MS);
    }
    if (spec->retries != NULL) {
        ret->attempts = number(duration(spec->retries->attempts, 1), AT_GW_ATTEMPTS_MAX);
        ret->retry_milli = number(spec->retries->budget_percent, 100) * 10;
    }
    if (spec->hedging != NULL && spec->hedging->after != NULL) {
        ret->hedges =
            gw_hedge_parse(spec->hedging->after, &ret->hedge_centile, &ret->hedge_ns) == AT_OK;
        ret->hedge_milli = number(spec->hedging->max_percent, 100) * 10;
    }
    if (spec->traffic != NULL) {
        traffic_of(spec->traffic, ret);
    }
    bool to_zero = spec->autoscaling != NULL && spec->autoscaling->min == 0;
    const struct at_workload *w = spec->template != NULL ? spec->template->spec : NULL;
    bool parks = w != NULL && w->gpu_sharing != NULL && w->gpu_sharing->park_after_ns > 0;
    ret->scales = spec->autoscaling != NULL || parks;
    /* Nobody makes replicas of what was told to have none. */
    if (spec->replicas == 0 && !to_zero) {
        ret->wait_ns = 0;
    }
}

enum at_rc gw_policy_parse(const json_t *spec, struct gw_policy *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *object = json_pack("{s:{s:{s:{}}}}", "spec", "template", "spec");
    struct at_deployment deployment;
    json_object_update(json_object_get(object, "spec"), (json_t *)(uintptr_t)spec);
    struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
    enum at_rc rc = at_model_default(&AT_KIND_DEPLOYMENT, object, err);
    rc = rc == AT_OK ? at_model_decode(&AT_KIND_DEPLOYMENT, object, arena, &deployment, err) : rc;
    if (rc == AT_OK) {
        gw_policy_of(&deployment, ret);
        ret->wait_ns = json_object_get(spec, "waiting") != NULL ? ret->wait_ns : 0;
    }
    at_arena_free(arena);
    return rc;
}

struct gw_standing *gw_standing_new(void)
{
    struct gw_standing *standing = AT_NEW(struct gw_standing);
    standing->refs = 1;
    return standing;
}

struct gw_standing *gw_standing_ref(struct gw_standing *standing)
{
    if (standing != NULL) {
        atomic_fetch_add_explicit(&standing->refs, 1, memory_order_relaxed);
    }
    return standing;
}

void gw_standing_unref(struct gw_standing *standing)
{
    if (standing != NULL &&
        atomic_fetch_sub_explicit(&standing->refs, 1, memory_order_acq_rel) == 1) {
        at_free(standing);
    }
}

struct gw_load *gw_load_new(void)
{
    struct gw_load *load = AT_NEW(struct gw_load);
    load->refs = 1;
    load->standing = gw_standing_new();
    return load;
}

struct gw_load *gw_load_ref(struct gw_load *load)
{
    atomic_fetch_add_explicit(&load->refs, 1, memory_order_relaxed);
    return load;
}

void gw_load_unref(struct gw_load *load)
{
    if (load != NULL && atomic_fetch_sub_explicit(&load->refs, 1, memory_order_acq_rel) == 1) {
        gw_standing_unref(load->standing);
        at_free(load);
    }
}
