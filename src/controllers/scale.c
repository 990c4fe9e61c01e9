/* Copies by what is asked of a model, as gateways report it: none after a time without a request,
 * one as soon as a request waits. What lies between is not decided here. */
#include "controllers/controllers_priv.h"

/* Gateways report every two seconds while there is anything to report; a shorter idle time would
 * end what is in use. */
#define IDLE_MIN_NS (5 * AT_NS_PER_S)

/* Of a Deployment that scales. */
struct demand {
    int64_t last_ns; /* when something was last asked of it, or when it was first looked at */
    bool wakes;      /* asked since it had no copies */
};

static struct demand *demand_of(struct at_controllers *c, const char *key)
{
    struct demand *d = at_map_get(c->demands, key);
    if (d == NULL) {
        d = AT_NEW(struct demand);
        d->last_ns = at_loop_now_ns(c->loop);
        (void)at_map_put(c->demands, key, d);
    }
    return d;
}

void ctl_scale_report(struct at_controllers *c, const struct at_snapshot *snap, const char *name)
{
    json_t *report = at_state_object(c->state, &AT_KIND_GATEWAY_REPORT, NULL, name);
    size_t i;
    json_t *entry;
    json_array_foreach(at_json_at(report, "status.deployments"), i, entry)
    {
        const char *ns = at_json_str_at(entry, "namespace", "");
        const char *of = at_json_str_at(entry, "name", "");
        const struct at_deployment *d = at_snapshot_deployment(snap, ns, of);
        if (d == NULL || d->spec.autoscaling == NULL) {
            continue;
        }
        AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", ns, of);
        struct demand *demand = demand_of(c, key);
        demand->last_ns = at_loop_now_ns(c->loop);
        demand->wakes |=
            at_json_int_at(entry, "waiting", 0) > 0 || at_json_int_at(entry, "arrived", 0) > 0;
        ctl_enqueue(c, CTL_SCALE, ns, of);
    }
    json_decref(report);
}

static void set_replicas(struct ctl_pass *p, const struct at_deployment *d, int64_t want)
{
    bool up = want > d->spec.replicas;
    ctl_patch(p, &AT_KIND_DEPLOYMENT, p->ns, p->name,
              json_pack("{s:{s:I}}", "spec", "replicas", (json_int_t)want));
    at_metric_add(up ? p->c->m_scaled_up : p->c->m_scaled_down, 1);
    at_state_event(p->c->state, &AT_KIND_DEPLOYMENT, &d->meta, false,
                   up ? "ScaledUp" : "ScaledDown", "%lld instead of %lld copies: %s",
                   (long long)want, (long long)d->spec.replicas,
                   want == 0                                 ? "nobody asked for it lately"
                   : d->spec.replicas == 0 && want > 0 && up ? "requests wait"
                                                             : "autoscaling's bounds");
}

static int64_t within(int64_t value, const struct at_autoscaling *a)
{
    int64_t max = a->max > a->min ? a->max : a->min;
    value = value > max ? max : value;
    return value < a->min ? a->min : value;
}

void ctl_scale(struct ctl_pass *p)
{
    const struct at_deployment *d = at_snapshot_deployment(p->snap, p->ns, p->name);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", p->ns, p->name);
    const struct at_autoscaling *a = d != NULL ? d->spec.autoscaling : NULL;
    if (a == NULL || d->meta.deletion_wall_ns != 0) {
        at_free(at_map_remove(p->c->demands, key));
        return;
    }
    struct demand *demand = demand_of(p->c, key);
    int64_t want = within(d->spec.replicas, a);
    if (want == 0) {
        want = demand->wakes ? 1 : 0;
    } else if (a->min == 0) {
        int64_t idle = a->idle_ns > IDLE_MIN_NS ? a->idle_ns : IDLE_MIN_NS;
        int64_t left = demand->last_ns + idle - p->now_ns;
        if (left > 0) {
            ctl_after(p, left);
        } else {
            want = 0;
        }
    }
    if (want != d->spec.replicas) {
        set_replicas(p, d, want);
    }
    demand->wakes = demand->wakes && d->spec.replicas == 0;
}
