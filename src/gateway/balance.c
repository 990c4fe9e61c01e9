/* Which replica takes a request. All numbers are one loop's own. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

void gw_replica_drop(struct gw_replica *replica)
{
    if (replica->in_view || replica->outstanding > 0) {
        return;
    }
    gw_replica_meters_free(replica->meters);
    at_free(replica->instance);
    at_free(replica->site);
    at_free(replica->addr);
    at_free(replica);
}

void gw_model_drop(struct gw_model *model)
{
    if (model->in_view || model->refs > 0) {
        return;
    }
    gw_load_unref(model->load);
    at_free(model->name);
    at_free(model->replicas);
    at_free(model);
}

static bool is_better(const struct gw_replica *a, const struct gw_replica *b, int64_t now_ns)
{
    bool avoid_a = gw_replica_avoided(a, now_ns), avoid_b = gw_replica_avoided(b, now_ns);
    if (avoid_a != avoid_b) {
        return avoid_b;
    }
    if (a->outstanding != b->outstanding) {
        return a->outstanding < b->outstanding;
    }
    return a->latency_ns < b->latency_ns;
}

/* Fewest outstanding requests, then the nearest site, then in turns. Replicas that are avoided come
 * last, but come: a request that fails is worth no less than one that is not tried. */
struct gw_replica *gw_pick(struct gw_model *model, struct gw_replica *const *tried, size_t n_tried,
                           int64_t now_ns)
{
    struct gw_replica *best = NULL;
    size_t at = model->n_replicas > 0 ? model->next++ % model->n_replicas : 0;
    for (size_t i = 0; i < model->n_replicas; i++, at++) {
        struct gw_replica *r =
            model->replicas[at < model->n_replicas ? at : at - model->n_replicas];
        bool again = false;
        for (size_t t = 0; t < n_tried; t++) {
            again |= tried[t] == r;
        }
        if (!again && (best == NULL || is_better(r, best, now_ns))) {
            best = r;
        }
    }
    return best;
}
