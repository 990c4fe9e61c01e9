/* ClusterRoles with an aggregationRule: the rules of those that it picks are written into them, as
 * in Kubernetes, so that whoever reads one sees what it gives. Decisions do not wait for it: the
 * book of rights (security/book.c) looks at the parts themselves. */
#include "controllers/controllers_priv.h"
#include "security/book.h"

void ctl_aggregate_route(struct at_controllers *c, const struct at_model_kind *kind)
{
    if (kind == &AT_KIND_CLUSTER_ROLE) {
        ctl_enqueue(c, CTL_AGGREGATE, NULL, "all");
    }
}

static void keep(void *ctx, const char *ns, const char *name, const json_t *object)
{
    (void)ns, (void)name;
    json_array_append(ctx, (json_t *)object);
}

static bool has_rule(const json_t *rules, const json_t *rule)
{
    size_t i;
    const json_t *have;
    json_array_foreach(rules, i, have)
    {
        if (json_equal((json_t *)have, (json_t *)rule)) {
            return true;
        }
    }
    return false;
}

/* In order of the parts' names, each rule once. own: caller decrefs. */
static json_t *rules_of(const json_t *roles, const json_t *role)
{
    const json_t *selectors = at_json_at(role, "aggregationRule.clusterRoleSelectors");
    json_t *rules = json_array();
    size_t i;
    size_t k;
    const json_t *part;
    json_t *rule;
    json_array_foreach(roles, i, part)
    {
        if (part == role || !at_role_is_picked(selectors, at_json_at(part, "metadata.labels"))) {
            continue;
        }
        json_array_foreach(json_object_get(part, "rules"), k, rule)
        {
            if (!has_rule(rules, rule)) {
                json_array_append(rules, rule);
            }
        }
    }
    return rules;
}

static bool set_rules(void *ctx, json_t *object)
{
    json_object_set_new(object, "rules", json_deep_copy(ctx));
    return true;
}

void ctl_aggregate(struct ctl_pass *p)
{
    AT_CLEANUP(at_cleanup_json) json_t *roles = json_array();
    size_t i;
    const json_t *role;
    at_state_each(p->c->state, &AT_KIND_CLUSTER_ROLE, NULL, keep, roles);
    json_array_foreach(roles, i, role)
    {
        if (json_object_get(role, "aggregationRule") == NULL) {
            continue;
        }
        AT_CLEANUP(at_cleanup_json) json_t *rules = rules_of(roles, role);
        if (!json_equal(rules, json_object_get(role, "rules"))) {
            ctl_update(p, &AT_KIND_CLUSTER_ROLE, NULL, at_object_name(role), set_rules, rules);
        }
    }
}
