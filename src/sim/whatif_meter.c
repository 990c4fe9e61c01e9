/* What a what-if replay measures as time passes. */
#include "core/mem.h"
#include "core/units.h"
#include "sim/whatif_priv.h"

#include <string.h>

#define MS_PER_HOUR 3.6e6

static struct wi_site *site_of(const struct wi *w, const char *name)
{
    for (size_t i = 0; i < w->n_sites; i++) {
        if (strcmp(w->sites[i].name, name) == 0) {
            return &w->sites[i];
        }
    }
    return NULL;
}

static double at_site_prices_usd(const struct at_site_prices *p, const struct wi_node *n)
{
    return ((double)n->size.cpu_milli / 1000 * (double)p->cpu_hour_microusd +
            (double)n->size.memory_mib / 1024 * (double)p->memory_gib_hour_microusd +
            (double)n->size.gpus * (double)p->gpu_hour_microusd) /
           1e6;
}

/* A node's own price if a price file knows its kind, else what its site says. */
void wi_meter_node(struct wi *w, struct wi_node *n)
{
    const struct wi_site *s = site_of(w, n->site);
    double was = n->usd_hour;
    n->usd_hour = -1;
    n->gpu = at_watts_gpu(n->size.gpus > 0 ? w->fleet->models[n->size.model] : NULL);
    if (w->what->prices != NULL) {
        n->usd_hour =
            at_prices_node(w->what->prices, n->object,
                           s != NULL && s->object != NULL ? s->object->spec.region : NULL);
    }
    if (n->usd_hour < 0) {
        const struct at_site_prices *p =
            s != NULL && s->object != NULL ? s->object->spec.prices : NULL;
        n->usd_hour = p != NULL ? at_site_prices_usd(p, n) : 0;
    }
    w->usd_hour += n->jobs > 0 ? n->usd_hour - was : 0;
}

static void tell_prices(struct wi *w, struct at_site *site)
{
    struct at_site_prices *own = at_arena_alloc(w->fleet->arena, sizeof *own);
    if (own != NULL) {
        *own = site->spec.prices != NULL ? *site->spec.prices : (struct at_site_prices){0};
        site->spec.prices =
            at_prices_site(w->what->prices, site->meta.name, own) ? own : site->spec.prices;
    }
}

/* What a file says of prices and carbon goes into the sites, where the live scheduler sees it. A
 * site that has changed is a new object: the scheduler may still look at the old one. */
void wi_meter_sites(struct wi *w)
{
    for (size_t i = 0; i < w->n_sites; i++) {
        struct wi_site *s = &w->sites[i];
        double grams =
            w->what->carbon != NULL ? at_carbon_at(w->what->carbon, s->object, w->now_ms) : -1;
        s->grams_kwh = grams >= 0 ? grams : (double)s->object->spec.carbon_intensity;
        int64_t whole = (int64_t)(s->grams_kwh + 0.5);
        if (s->object->spec.carbon_intensity == whole && s->told) {
            continue;
        }
        struct at_site *now = at_arena_alloc(w->fleet->arena, sizeof *now);
        if (now == NULL) {
            w->rc = at_err_set(w->err, AT_TOO_LARGE, "the fleet is too large");
            return;
        }
        *now = *s->object;
        now->spec.carbon_intensity = whole;
        s->object = now;
        s->told = true;
        if (w->what->prices != NULL) {
            tell_prices(w, now);
        }
        wi_live_put(w, &AT_KIND_SITE, &now->meta);
    }
}

static double job_watts(const struct wi *w, const struct wi_job *j)
{
    const struct at_pack_request *r = &wi_class(w, j)->pack;
    struct at_watts gpu = w->nodes[j->node].gpu, core = at_watts_core();
    return (double)r->gpus * r->gpu_milli / AT_PACK_GPU_MILLI * (gpu.full - gpu.idle) +
           (double)r->cpu_milli / 1000 * (core.full - core.idle);
}

static double idle_watts(const struct wi_node *n)
{
    return (double)n->size.gpus * n->gpu.idle +
           (double)n->size.cpu_milli / 1000 * at_watts_core().idle;
}

void wi_meter_job(struct wi *w, const struct wi_job *j, int sign)
{
    const struct at_pack_request *r = &wi_class(w, j)->pack;
    struct wi_node *n = &w->nodes[j->node];
    struct wi_site *s = site_of(w, n->site);
    double watts = job_watts(w, j);
    w->used_gpu_milli += sign * (int64_t)r->gpus * r->gpu_milli;
    w->used_cpu_milli += sign * r->cpu_milli;
    bool first = sign > 0 ? n->jobs++ == 0 : --n->jobs == 0;
    if (first) { /* it comes into use, or goes out of it */
        w->nodes_used += (uint32_t)sign;
        w->usd_hour += sign * n->usd_hour;
        watts += idle_watts(n);
    }
    if (s != NULL) {
        s->watts += sign * watts;
    }
}

static double frag_gpu_milli(const struct wi *w)
{
    return w->pack != NULL ? at_pack_fragmented_gpu_milli(w->pack) : 0;
}

static void take_point(struct wi *w, int64_t ms)
{
    struct at_whatif_result *out = w->out;
    if (out->n_points > AT_WHATIF_POINTS) {
        return;
    }
    struct at_whatif_point *p = &out->points[out->n_points++];
    *p = (struct at_whatif_point){
        .at_ms = ms,
        .capacity_gpus = (double)w->gpu_milli / AT_PACK_GPU_MILLI,
        .allocated_gpus = (double)w->used_gpu_milli / AT_PACK_GPU_MILLI,
        .fragmented_gpus = frag_gpu_milli(w) / AT_PACK_GPU_MILLI,
        .capacity_cores = (double)w->cpu_milli / 1000,
        .allocated_cores = (double)w->used_cpu_milli / 1000,
        .pending = (uint32_t)w->n_pending,
        .running = (uint32_t)w->n_running,
        .nodes_used = w->nodes_used,
        .usd_hour = w->usd_hour,
        .usd = out->usd,
        .grams_co2 = out->kg_co2 * 1000,
    };
    for (size_t i = 0; i < w->n_sites; i++) {
        p->watts += w->sites[i].watts;
    }
}

/* Nothing changes from measured_ms to ms but the carbon intensity. */
static void pass(struct wi *w, int64_t ms)
{
    double hours = (double)(ms - w->measured_ms) / MS_PER_HOUR, dt = (double)(ms - w->measured_ms);
    struct at_whatif_result *out = w->out;
    bool gpus = w->gpu_milli > 0;
    w->gpu_ms_capacity += dt * (double)(gpus ? w->gpu_milli : w->cpu_milli);
    w->gpu_ms_used += dt * (double)(gpus ? w->used_gpu_milli : w->used_cpu_milli);
    w->gpu_ms_fragmented += dt * frag_gpu_milli(w);
    out->usd += hours * w->usd_hour;
    for (size_t i = 0; i < w->n_sites; i++) {
        double kwh = w->sites[i].watts * hours / 1000;
        out->kwh += kwh;
        out->kg_co2 += kwh * w->sites[i].grams_kwh / 1000;
    }
    out->pending_max = w->n_pending > out->pending_max ? (uint32_t)w->n_pending : out->pending_max;
    out->nodes_used_max = w->nodes_used > out->nodes_used_max ? w->nodes_used : out->nodes_used_max;
    w->measured_ms = ms;
}

void wi_meter_until(struct wi *w, int64_t ms)
{
    int64_t step = w->end_ms / AT_WHATIF_POINTS + 1;
    while (w->measured_ms < ms) {
        int64_t next = ms;
        if (w->what->carbon != NULL) {
            int64_t turn = at_carbon_next(w->what->carbon, w->measured_ms);
            next = turn < next ? turn : next;
        }
        next =
            w->next_point_ms > w->measured_ms && w->next_point_ms < next ? w->next_point_ms : next;
        if (w->next_point_ms <= w->measured_ms) {
            take_point(w, w->measured_ms);
            w->next_point_ms += step;
            continue;
        }
        pass(w, next);
        if (w->what->carbon != NULL) {
            w->now_ms = next;
            wi_meter_sites(w);
        }
    }
}

void wi_meter_end(struct wi *w)
{
    struct at_whatif_result *out = w->out;
    take_point(w, w->end_ms);
    if (w->gpu_ms_capacity > 0) {
        out->allocated_mean = 100 * w->gpu_ms_used / w->gpu_ms_capacity;
        out->fragmented_mean = 100 * w->gpu_ms_fragmented / w->gpu_ms_capacity;
    }
}
