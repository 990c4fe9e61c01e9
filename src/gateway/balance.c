/* Replicas and models of a loop's view: what they have to do, and their end when nobody holds them.
 */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>

void gw_model_enter(struct gw_worker *worker, struct gw_model *model, struct gw_replica *replica,
                    unsigned cost_milli)
{
    model->running++;
    if (model->load != NULL) {
        atomic_fetch_add_explicit(&model->load->running, 1, memory_order_relaxed);
    }
    gw_replica_enter(gw_now(worker), model, replica, cost_milli);
}

void gw_model_leave(struct gw_worker *worker, struct gw_model *model, struct gw_replica *replica,
                    unsigned cost_milli, enum gw_outcome outcome)
{
    assert(model->running > 0);
    model->running--;
    if (model->load != NULL) {
        atomic_fetch_sub_explicit(&model->load->running, 1, memory_order_relaxed);
    }
    gw_replica_leave(gw_now(worker), model, replica, cost_milli, outcome);
    gw_wait_serve(worker, model);
}

void gw_replica_drop(struct gw_replica *replica)
{
    if (replica == NULL || replica->in_view || replica->outstanding > 0) {
        return;
    }
    gw_replica_meters_free(replica->meters);
    at_free(replica->instance);
    at_free(replica->site);
    at_free(replica->addr);
    at_free(replica->peer);
    at_tls_config_unref(replica->tls);
    at_free(replica->version);
    at_free(replica->served_as);
    at_free(replica->jurisdiction);
    gw_gauge_unref(replica->gauge);
    gw_standing_unref(replica->standing);
    at_free(replica);
}

void gw_model_forget_versions(struct gw_model *model)
{
    for (size_t i = 0; i < model->n_versions; i++) {
        at_free(model->versions[i]);
    }
    at_free(model->versions);
    model->versions = NULL;
    model->n_versions = 0;
}

void gw_model_drop(struct gw_model *model)
{
    if (model->in_view || model->refs > 0) {
        return;
    }
    gw_load_unref(model->load);
    gw_standing_unref(model->standing);
    gw_model_forget_versions(model);
    gw_prefix_free(model->prefix);
    at_free(model->name);
    at_free(model->qualified);
    at_free(model->session_header);
    at_free(model->session_cookie);
    at_free(model->shares);
    at_free(model->replicas);
    at_free(model);
}
