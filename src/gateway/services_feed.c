/* The services that Deployments ask for, watched, and the rules made of them. */
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"

static void publish(struct at_gateway *g)
{
    AT_CLEANUP(at_cleanup_json) json_t *all = json_array();
    AT_CLEANUP(at_cleanup_buf) struct at_buf lost = {0};
    void *value;
    for (size_t it = 0; at_map_next(g->services, &it, NULL, &value);) {
        json_array_append(all, value);
    }
    gw_publish_rules(g, gw_rules_of(all, &lost));
    if (lost.len > 0) {
        at_log(AT_LOG_WARN, "services.conflict",
               "an older Deployment has the same host and path as each of: %s", lost.data);
    }
}

/* What of a Deployment the rules are made of. */
static json_t *facts_of(const json_t *object)
{
    json_t *service = at_json_at(object, "spec.service");
    if (service == NULL) {
        return NULL;
    }
    const char *name = at_json_str_at(object, "metadata.name", "");
    const char *model = at_json_str_at(object, "spec.template.spec.model.name", "");
    model = at_json_str_at(object, "spec.traffic.model", model[0] != '\0' ? model : name);
    AT_CLEANUP(at_cleanup_free)
    char *qualified = at_asprintf("%s/%s", at_json_str_at(object, "metadata.namespace", ""), model);
    return json_pack("{s:{s:s, s:s, s:s}, s:{s:O, s:{s:{s:{s:s}}}}}", "metadata", "name", name,
                     "namespace", at_json_str_at(object, "metadata.namespace", ""),
                     "creationTimestamp", at_json_str_at(object, "metadata.creationTimestamp", ""),
                     "spec", "service", service, "template", "spec", "model", "name", qualified);
}

void gw_services_note(struct at_gateway *gateway, const json_t *deployment, bool deleted)
{
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s", at_json_str_at(deployment, "metadata.namespace", ""),
                            at_json_str_at(deployment, "metadata.name", ""));
    json_t *now = deleted ? NULL : facts_of(deployment);
    if (gateway->services == NULL) {
        gw_services_start(gateway);
    }
    json_t *before = now != NULL ? at_map_put(gateway->services, key, now)
                                 : at_map_remove(gateway->services, key);
    bool same = now == NULL ? before == NULL : before != NULL && json_equal(now, before);
    json_decref(before);
    if (!same) {
        publish(gateway);
    }
}

void gw_services_start(struct at_gateway *gateway)
{
    gateway->services = at_map_new();
}

void gw_services_done(struct at_gateway *gateway)
{
    if (gateway->services == NULL) {
        return;
    }
    void *value;
    for (size_t it = 0; at_map_next(gateway->services, &it, NULL, &value);) {
        json_decref(value);
    }
    at_map_free(gateway->services);
}
