/* NetworkPolicies: what they say of each instance, and how far agents keep it. Agents keep what a
 * machine can keep; the rest is said plainly, in each policy's condition Enforced. */
#include "controllers/controllers_priv.h"
#include "core/digest.h"
#include "scheduler/match.h"

#include <stdio.h>

static bool has_type(const struct at_network_policy *p, const char *type)
{
    for (size_t i = 0; i < p->spec.policy_types.n; i++) {
        if (at_streq(p->spec.policy_types.items[i], type)) {
            return true;
        }
    }
    /* Absent: as Kubernetes says. */
    bool egress = at_streq(type, "Egress");
    return p->spec.policy_types.n == 0 && (!egress || p->spec.egress.n > 0);
}

static bool selects(const struct at_network_policy *p, const struct at_instance *i)
{
    return p->meta.deletion_wall_ns == 0 && at_streq(p->meta.ns, i->meta.ns) &&
           (p->spec.pod_selector == NULL ||
            sched_labels_match(p->spec.pod_selector, &i->meta.labels));
}

/* One entry for each peer and port of a rule; selectors stand for whoever they mean by then. */
static void rule_add(json_t *list, const struct at_network_peer *peers, size_t n_peers,
                     const struct at_network_port *ports, size_t n_ports)
{
    for (size_t i = 0; i < n_peers || i == 0; i++) {
        for (size_t k = 0; k < n_ports || k == 0; k++) {
            json_t *entry = json_object();
            if (i < n_peers && peers[i].ip_block != NULL) {
                json_object_set_new(entry, "cidr", json_string(ctl_text(peers[i].ip_block->cidr)));
            } else if (i < n_peers) {
                json_object_set_new(entry, "peer", json_string("by selector"));
            }
            int64_t port = 0;
            if (k < n_ports) {
                json_object_set_new(entry, "protocol", json_string(ctl_text(ports[k].protocol)));
                (void)!at_str_to_i64(at_str_of(ctl_text(ports[k].port)), &port);
            }
            if (port > 0) {
                json_object_set_new(entry, "port", json_integer(port));
            }
            if (json_array_size(list) < 1024) {
                json_array_append_new(list, entry);
            } else {
                json_decref(entry);
            }
        }
    }
}

static json_t *names_of(json_t *network)
{
    return json_object_get(network, "policies");
}

static void policy_add(json_t *network, const struct at_network_policy *p)
{
    json_array_append_new(names_of(network), json_string(p->meta.name));
    if (has_type(p, "Ingress")) {
        json_object_set_new(network, "ingressIsolated", json_true());
        for (size_t i = 0; i < p->spec.ingress.n; i++) {
            const struct at_network_ingress *r = &p->spec.ingress.items[i];
            rule_add(json_object_get(network, "ingress"), r->from.items, r->from.n, r->ports.items,
                     r->ports.n);
        }
    }
    if (has_type(p, "Egress")) {
        json_object_set_new(network, "egressIsolated", json_true());
        for (size_t i = 0; i < p->spec.egress.n; i++) {
            const struct at_network_egress *r = &p->spec.egress.items[i];
            rule_add(json_object_get(network, "egress"), r->to.items, r->to.n, r->ports.items,
                     r->ports.n);
        }
    }
}

json_t *ctl_network_of(const struct at_snapshot *snap, const struct at_instance *i)
{
    json_t *network = NULL;
    for (size_t k = 0; k < snap->n_network_policies; k++) {
        if (selects(snap->network_policies[k], i)) {
            network = network != NULL
                          ? network
                          : json_pack("{s:[], s:b, s:b, s:[], s:[]}", "policies", "ingressIsolated",
                                      0, "egressIsolated", 0, "ingress", "egress");
            policy_add(network, snap->network_policies[k]);
        }
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (network != NULL && at_json_dump_sorted(network, &text) == AT_OK) {
        char digest[AT_SHA256_HEX_BYTES];
        at_sha256_hex(text.data, text.len, digest);
        json_object_set_new(network, "digest", json_stringn(digest, 16));
    }
    return network;
}

/* --- instances that are placed already --- */

static bool set_network(void *ctx, json_t *object)
{
    json_t *network = ctx;
    static const char *const KEPT[] = {"enforced", "enforcedDigest", "message"};
    const json_t *old = at_json_at(object, "status.network");
    for (size_t i = 0; network != NULL && i < AT_ARRAY_LEN(KEPT); i++) {
        json_t *value = json_object_get(old, KEPT[i]);
        if (value != NULL) {
            json_object_set(network, KEPT[i], value);
        }
    }
    at_json_set_at(object, "status.network", json_incref(network));
    return true;
}

static void instance_tell(struct ctl_pass *p, const struct at_instance *i)
{
    AT_CLEANUP(at_cleanup_json) json_t *network = ctl_network_of(p->snap, i);
    const struct at_instance_network *has = i->status.network;
    const char *want = at_json_str_at(network, "digest", "");
    if (!at_streq(want, has != NULL ? ctl_text(has->digest) : "")) {
        ctl_update(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, set_network, network);
    }
}

/* --- what became of a policy --- */

struct outcome {
    int64_t instances, running, enforced;
    const char *selector, *why;
    int64_t wall_ns;
};

static bool set_outcome(void *ctx, json_t *object)
{
    const struct outcome *o = ctx;
    char text[512];
    bool kept = o->running == o->enforced;
    if (o->running == 0) {
        snprintf(text, sizeof text, "it selects no instance that runs");
    } else if (kept) {
        snprintf(text, sizeof text, "all %lld instances are kept to it", (long long)o->running);
    } else {
        snprintf(text, sizeof text, "NOT kept for %lld of %lld instances: %s",
                 (long long)(o->running - o->enforced), (long long)o->running, o->why);
    }
    at_json_set_at(object, "status.selector", json_string(o->selector));
    at_json_set_at(object, "status.instances", json_integer(o->instances));
    at_json_set_at(object, "status.enforced", json_integer(o->enforced));
    at_condition_set(object, "Enforced", kept, kept ? "Kept" : "NotKept", text, o->wall_ns);
    return true;
}

static const char *selector_text(struct ctl_pass *p, const struct at_label_selector *s)
{
    const char *text = "";
    for (size_t i = 0; s != NULL && i < s->match_labels.n; i++) {
        text = at_arena_printf(p->arena, "%s%s%s=%s", text, i > 0 ? "," : "",
                               s->match_labels.items[i].key, s->match_labels.items[i].value);
    }
    if (s != NULL && s->match_expressions.n > 0) {
        text = at_arena_printf(p->arena, "%s%s...", text, text[0] != '\0' ? "," : "");
    }
    return text != NULL && text[0] != '\0' ? text : "<none>";
}

static const struct at_network_policy *policy_find(const struct ctl_pass *p)
{
    for (size_t i = 0; i < p->snap->n_network_policies; i++) {
        const struct at_network_policy *policy = p->snap->network_policies[i];
        if (at_streq(policy->meta.ns, p->ns) && at_streq(policy->meta.name, p->name)) {
            return policy;
        }
    }
    return NULL;
}

void ctl_network(struct ctl_pass *p)
{
    const struct at_network_policy *policy = policy_find(p);
    struct outcome o = {.wall_ns = p->wall_ns, .why = "their agents have not told yet"};
    for (size_t k = 0; k < p->snap->n_instances; k++) {
        const struct at_instance *i = p->snap->instances[k];
        if (!at_streq(i->meta.ns, p->ns) || ctl_ended(i)) {
            continue;
        }
        if (ctl_text(i->spec.node_name)[0] != '\0') {
            instance_tell(p, i);
        }
        if (policy == NULL || !selects(policy, i)) {
            continue;
        }
        const struct at_instance_network *n = i->status.network;
        bool runs = ctl_is(i->status.phase, "Running");
        bool kept =
            n != NULL && at_streq(n->enforced, "Yes") && at_streq(n->enforced_digest, n->digest);
        o.instances++;
        o.running += runs;
        o.enforced += runs && kept;
        if (runs && !kept && n != NULL && n->message != NULL) {
            const char *text = at_arena_printf(p->arena, "%s: %s", i->meta.name, n->message);
            o.why = text != NULL ? text : n->message;
        }
    }
    if (policy != NULL) {
        o.selector = selector_text(p, policy->spec.pod_selector);
        ctl_update(p, &AT_KIND_NETWORK_POLICY, p->ns, p->name, set_outcome, &o);
    }
}

void ctl_network_route(struct at_controllers *c, const struct at_snapshot *snap,
                       const struct at_model_kind *kind, const char *ns, const char *name)
{
    if (kind == &AT_KIND_NETWORK_POLICY) {
        ctl_enqueue(c, CTL_NETWORK, ns, name);
    }
    for (size_t i = 0; kind == &AT_KIND_INSTANCE && i < snap->n_network_policies; i++) {
        if (at_streq(snap->network_policies[i]->meta.ns, ns)) {
            ctl_enqueue_after(c, CTL_NETWORK, ns, snap->network_policies[i]->meta.name,
                              CTL_COUNT_DELAY_NS);
        }
    }
}
