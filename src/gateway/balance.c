/* Replicas and models of a loop's view come to an end when nobody holds them. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

void gw_replica_drop(struct gw_replica *replica)
{
    if (replica == NULL || replica->in_view || replica->outstanding > 0) {
        return;
    }
    gw_replica_meters_free(replica->meters);
    at_free(replica->instance);
    at_free(replica->site);
    at_free(replica->addr);
    at_free(replica->version);
    at_free(replica->served_as);
    at_free(replica->jurisdiction);
    gw_gauge_unref(replica->gauge);
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
