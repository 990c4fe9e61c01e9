/* Hard rules: which nodes may not take an instance, and the first rule that says so. */
#include "scheduler/room.h"
#include "scheduler/scheduler_priv.h"

#include <stdlib.h>

bool sched_strings_have(const struct at_model_strings *list, const char *s)
{
    for (size_t i = 0; i < list->n; i++) {
        if (at_streq(list->items[i], s)) {
            return true;
        }
    }
    return false;
}

static bool is_empty(const char *s)
{
    return s == NULL || s[0] == '\0';
}

static bool toleration_matches(const struct at_toleration *t, const struct at_taint *taint)
{
    bool exists = at_streq(t->operator, "Exists");
    if (!is_empty(t->effect) && !at_streq(t->effect, taint->effect)) {
        return false;
    }
    if (is_empty(t->key) ? !exists : !at_streq(t->key, taint->key)) {
        return false;
    }
    const char *want = t->value != NULL ? t->value : "";
    return exists || at_streq(want, taint->value != NULL ? taint->value : "");
}

bool at_sched_tolerates(const struct at_placement *placement, const struct at_taint *taint)
{
    for (size_t i = 0; placement != NULL && i < placement->tolerations.n; i++) {
        if (toleration_matches(&placement->tolerations.items[i], taint)) {
            return true;
        }
    }
    return false;
}

static int64_t seconds_ns(const char *text)
{
    if (is_empty(text)) {
        return INT64_MAX;
    }
    long long seconds = strtoll(text, NULL, 10);
    return seconds <= 0 ? 0 : seconds > INT64_MAX / AT_NS_PER_S ? INT64_MAX : seconds * AT_NS_PER_S;
}

int64_t at_sched_tolerates_ns(const struct at_placement *placement, const struct at_taint *taint)
{
    int64_t least = -1;
    for (size_t i = 0; placement != NULL && i < placement->tolerations.n; i++) {
        const struct at_toleration *t = &placement->tolerations.items[i];
        if (toleration_matches(t, taint)) {
            int64_t ns = seconds_ns(t->toleration_seconds);
            least = least < 0 || ns < least ? ns : least;
        }
    }
    return least;
}

const struct at_taint *sched_taint_refusing(const struct at_node *node,
                                            const struct at_placement *placement)
{
    for (size_t i = 0; i < node->spec.taints.n; i++) {
        const struct at_taint *taint = &node->spec.taints.items[i];
        if (!at_streq(taint->effect, "PreferNoSchedule") && !at_sched_tolerates(placement, taint)) {
            return taint;
        }
    }
    return NULL;
}

const struct at_residency_rule *sched_residency_refusing(const struct at_snapshot *snap,
                                                         const char *data_class,
                                                         const char *jurisdiction)
{
    if (is_empty(data_class)) {
        return NULL;
    }
    for (size_t i = 0; i < snap->n_policies; i++) {
        for (size_t j = 0; j < snap->policies[i]->spec.residency.n; j++) {
            const struct at_residency_rule *rule = &snap->policies[i]->spec.residency.items[j];
            if (at_streq(rule->data_class, data_class) &&
                !sched_strings_have(&rule->jurisdictions, jurisdiction)) {
                return rule;
            }
        }
    }
    return NULL;
}

const char *sched_driver_wanted(const struct at_workload *spec)
{
    if (!is_empty(spec->driver)) {
        return spec->driver;
    }
    return !is_empty(spec->image) ? "oci" : "process";
}

bool sched_driver_is_ready(const struct at_node *node, const char *driver)
{
    for (size_t i = 0; i < node->status.drivers.n; i++) {
        if (at_streq(node->status.drivers.items[i].name, driver)) {
            return node->status.drivers.items[i].ready;
        }
    }
    return false;
}

static bool has_parts(const struct at_node *node)
{
    for (size_t i = 0; i < node->status.gpus.n; i++) {
        if (!is_empty(node->status.gpus.items[i].parent)) {
            return true;
        }
    }
    return false;
}

bool sched_sharing_refuses(const struct at_node *node, const struct at_workload *spec)
{
    const struct at_resources *r = spec->resources;
    if (r == NULL || r->gpu_milli <= 0) {
        return false;
    }
    if (sched_sharing_lacks(node, spec) != NULL) {
        return true;
    }
    const char *own = is_empty(node->spec.gpu_sharing) ? "Share" : node->spec.gpu_sharing;
    const char *mode = spec->gpu_sharing != NULL ? spec->gpu_sharing->mode : NULL;
    bool part = r->gpu_milli % AT_SCHED_GPU_MILLI != 0 || r->gpu_memory_bytes > 0;
    if (at_streq(own, "Exclusive") && part && !at_streq(mode, "MIG")) {
        return true;
    }
    if (is_empty(mode) || at_streq(mode, "Exclusive")) {
        return false;
    }
    return at_streq(mode, "MIG") ? !has_parts(node) : !at_streq(mode, own);
}

const char *sched_sharing_lacks(const struct at_node *node, const struct at_workload *spec)
{
    const struct at_resources *r = spec->resources;
    const char *mode = spec->gpu_sharing != NULL ? spec->gpu_sharing->mode : NULL;
    bool part = r != NULL && r->gpu_milli > 0 &&
                (r->gpu_milli % AT_SCHED_GPU_MILLI != 0 || r->gpu_memory_bytes > 0);
    if (!part || !at_streq(node->spec.gpu_sharing, "MPS") || at_streq(mode, "Exclusive")) {
        return NULL;
    }
    for (size_t k = 0; k < node->status.gpu_modes.n; k++) {
        const struct at_node_gpu_mode *m = &node->status.gpu_modes.items[k];
        if (at_streq(m->name, "MPS") && !m->ready) {
            return is_empty(m->message) ? "MPS does not work there" : m->message;
        }
    }
    return NULL;
}

bool sched_selector_refuses(const struct at_placement *p, const struct at_node *node)
{
    for (size_t i = 0; i < p->node_selector.n; i++) {
        const struct at_model_kv *want = &p->node_selector.items[i];
        if (!at_streq(at_model_map_get(&node->meta.labels, want->key), want->value)) {
            return true;
        }
    }
    return false;
}

static bool not_among(const struct at_model_strings *list, const char *value)
{
    return list->n > 0 && (value == NULL || !sched_strings_have(list, value));
}

uint64_t sched_places_refusing(const struct at_placement *p, const struct sched_node *n)
{
    static const struct at_site_spec NOWHERE;
    const struct at_site_spec *site = n->site != NULL ? &n->site->spec : &NOWHERE;
    return (not_among(&p->sites, n->node->spec.site) ? SCHED_RULE_BIT(AT_SCHED_SITE) : 0) |
           (not_among(&p->site_classes, site->class) ? SCHED_RULE_BIT(AT_SCHED_SITE_CLASS) : 0) |
           (not_among(&p->jurisdictions, site->jurisdiction) ? SCHED_RULE_BIT(AT_SCHED_JURISDICTION)
                                                             : 0) |
           (not_among(&p->regions, site->region) ? SCHED_RULE_BIT(AT_SCHED_REGION) : 0) |
           (not_among(&p->providers, site->provider) ? SCHED_RULE_BIT(AT_SCHED_PROVIDER) : 0);
}

enum at_sched_rule sched_refuse_place(const struct at_placement *p, const struct sched_node *n)
{
    uint64_t rules = sched_places_refusing(p, n);
    return rules != 0 ? (enum at_sched_rule)__builtin_ctzll(rules) : AT_SCHED_RULE_COUNT;
}

enum at_sched_rule sched_refuse_static(const struct sched *s, const struct sched_request *r,
                                       const struct sched_node *n)
{
    const struct at_workload *spec = r->spec;
    const struct at_placement *p = spec->placement;
    const char *jurisdiction = n->site != NULL ? n->site->spec.jurisdiction : NULL;
    if (n->not_ready != NULL) {
        return AT_SCHED_NODE_NOT_READY;
    }
    if (n->node->spec.unschedulable) {
        return AT_SCHED_CORDONED;
    }
    if (sched_taint_refusing(n->node, p) != NULL) {
        return AT_SCHED_TAINT;
    }
    if (p != NULL && sched_selector_refuses(p, n->node)) {
        return AT_SCHED_SELECTOR;
    }
    if (p != NULL && !sched_node_affinity_holds(p->node_affinity, n->node, n->site)) {
        return sched_node_is_held(p->node_affinity, n->node, n->site) ? AT_SCHED_RESERVED
                                                                      : AT_SCHED_NODE_AFFINITY;
    }
    enum at_sched_rule place = p != NULL ? sched_refuse_place(p, n) : AT_SCHED_RULE_COUNT;
    if (place != AT_SCHED_RULE_COUNT) {
        return place;
    }
    if (sched_residency_refusing(s->snap, spec->data_class, jurisdiction) != NULL) {
        return AT_SCHED_RESIDENCY;
    }
    if (!sched_driver_is_ready(n->node, sched_driver_wanted(spec))) {
        return AT_SCHED_DRIVER;
    }
    return sched_sharing_refuses(n->node, spec) ? AT_SCHED_GPU_SHARING : AT_SCHED_RULE_COUNT;
}

static bool lacks_extended(const struct sched_node *n, const struct at_model_map *wanted)
{
    for (size_t i = 0; wanted != NULL && i < wanted->n; i++) {
        if (sched_is_short(sched_extended_free(n, wanted->items[i].key),
                           sched_amount(wanted->items[i].value))) {
            return true;
        }
    }
    return false;
}

enum at_sched_rule sched_refuse_rare(const struct sched_request *r, const struct sched_node *n)
{
    const struct sched_demand *d = &r->demand;
    if (sched_topology_refuses(n, d)) {
        return AT_SCHED_TOPOLOGY;
    }
    return lacks_extended(n, d->extended) ? AT_SCHED_EXTENDED : AT_SCHED_RULE_COUNT;
}
