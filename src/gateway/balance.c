/* Which replica takes a request, which is avoided, and how many retries there may be. All numbers
 * are one loop's own. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>

void gw_replica_drop(struct gw_replica *replica)
{
    if (replica->in_view || replica->outstanding > 0) {
        return;
    }
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
    at_free(model->name);
    at_free(model->replicas);
    at_free(model);
}

static bool is_avoided(const struct gw_replica *r, int64_t now_ns)
{
    return r->failures > 0 && (r->probing || now_ns < r->avoid_until_ns);
}

static bool is_better(const struct gw_replica *a, const struct gw_replica *b, int64_t now_ns)
{
    bool avoid_a = is_avoided(a, now_ns), avoid_b = is_avoided(b, now_ns);
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

void gw_replica_enter(struct gw_replica *replica, int64_t now_ns)
{
    replica->outstanding++;
    if (replica->failures > 0 && now_ns >= replica->avoid_until_ns) {
        replica->probing = true;
    }
}

void gw_replica_leave(struct gw_replica *replica, bool cancelled, bool connected, int64_t now_ns)
{
    assert(replica->outstanding > 0);
    replica->outstanding--;
    if (cancelled) {
        replica->probing = false; /* says nothing about the replica */
    } else if (connected) {
        replica->failures = 0;
        replica->probing = false;
    } else if (replica->probing || replica->failures == 0 || now_ns >= replica->avoid_until_ns) {
        /* Requests that fail together count once. */
        unsigned shift = replica->failures < 5 ? replica->failures : 5;
        int64_t wait = AT_GW_AVOID_MIN_NS << shift;
        replica->avoid_until_ns = now_ns + (wait < AT_GW_AVOID_MAX_NS ? wait : AT_GW_AVOID_MAX_NS);
        replica->failures++;
        replica->probing = false;
    }
    gw_replica_drop(replica);
}

static void cap(struct gw_worker *w)
{
    if (w->retry_milli > AT_GW_RETRY_SAVED_MAX * 1000) {
        w->retry_milli = AT_GW_RETRY_SAVED_MAX * 1000;
    }
}

void gw_retry_earn(struct gw_worker *worker)
{
    worker->retry_milli += AT_GW_RETRY_SHARE_MILLI;
    cap(worker);
}

bool gw_retry_take(struct gw_worker *worker, int64_t now_ns)
{
    int64_t passed = now_ns - worker->retry_at_ns;
    if (passed > 0) {
        passed = passed < 100 * AT_GW_S ? passed : 100 * AT_GW_S;
        worker->retry_milli += passed / AT_GW_MS * AT_GW_RETRY_FLOOR_PER_S;
        worker->retry_at_ns = now_ns;
        cap(worker);
    }
    if (worker->retry_milli < 1000) {
        return false;
    }
    worker->retry_milli -= 1000;
    return true;
}
