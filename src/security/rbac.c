/* Decisions from one table of rules; the same table answers SelfSubjectRulesReview. No rule: no. */
#include "core/mem.h"
#include "core/str.h"
#include "model/model.h"
#include "security/builtin_roles.h"
#include "security/match.h"
#include "security/security.h"

#include <stdio.h>

#define NODE_USER_PREFIX "system:node:"
#define GATEWAY_USER_PREFIX "system:gateway:"
#define GROUP_ATOLL "atoll.dev"
#define GROUP_RBAC                                                                                 \
    "rbac.authorization.k8s.io" /* rights to rights are given by no word "*" but admins' */

enum scope {
    SCOPE_ALL,
    SCOPE_NOT_SECRETS,      /* any resource but secrets */
    SCOPE_NAMESPACED_KINDS, /* kinds that live in namespaces, themselves or their scale */
    SCOPE_OWN_NAME,         /* name is the caller's own: its node, or its gateway */
    SCOPE_OWN_NODE,         /* node_name is the caller's node */
};

enum who { WHO_ANYONE, WHO_AUTHENTICATED, WHO_GROUP };

struct rule {
    enum who who;
    const char *identity_group; /* with WHO_GROUP */
    const char *user_prefix;    /* such members of the group only; NULL: all */
    const char *verbs;          /* words; "*": any */
    const char *api_group;      /* "*": any; NULL: the words are paths, not resources */
    const char *words;          /* "instances instances/status"; "*": any; a path may end in '*' */
    enum scope scope;
};

static const struct rule RULES[] = {
    {WHO_ANYONE, NULL, NULL, "get", NULL, "/healthz /livez /readyz", SCOPE_ALL},
    {WHO_AUTHENTICATED, NULL, NULL, "get", NULL,
     "/api /api/* /apis /apis/* /openapi /openapi/* /version /healthz/* /livez/* /readyz/*",
     SCOPE_ALL},
    {WHO_AUTHENTICATED, NULL, NULL, "create", "authorization.k8s.io",
     "selfsubjectaccessreviews selfsubjectrulesreviews", SCOPE_ALL},
    {WHO_AUTHENTICATED, NULL, NULL, "create", "authentication.k8s.io", "selfsubjectreviews",
     SCOPE_ALL},

    {WHO_GROUP, AT_GROUP_MASTERS, NULL, "*", "*", "*", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_MASTERS, NULL, "*", NULL, "*", SCOPE_ALL},

    {WHO_GROUP, AT_GROUP_VIEWERS, NULL, "get list watch", "*", "*", SCOPE_NOT_SECRETS},
    {WHO_GROUP, AT_GROUP_VIEWERS, NULL, "get", NULL, "/metrics", SCOPE_ALL},

    {WHO_GROUP, AT_GROUP_EDITORS, NULL, "get list watch", "*", "*", SCOPE_NOT_SECRETS},
    {WHO_GROUP, AT_GROUP_EDITORS, NULL, "get list watch create update patch delete", "*", "*",
     SCOPE_NAMESPACED_KINDS},
    {WHO_GROUP, AT_GROUP_EDITORS, NULL, "create", GROUP_ATOLL,
     "instances/exec instances/attach instances/portforward", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_EDITORS, NULL, "get", NULL, "/metrics", SCOPE_ALL},

    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get list watch", GROUP_ATOLL, "instances",
     SCOPE_OWN_NODE},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get patch update", GROUP_ATOLL,
     "instances instances/status", SCOPE_OWN_NODE},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "create get patch update", GROUP_ATOLL, "nodes",
     SCOPE_OWN_NAME},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get patch update", GROUP_ATOLL, "nodes/status",
     SCOPE_OWN_NAME},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "create", GROUP_ATOLL,
     "nodes/heartbeat nodes/tunnel", SCOPE_OWN_NAME},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get", GROUP_ATOLL, "sites", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "list", GROUP_ATOLL, "policies", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get", "", "secrets", SCOPE_OWN_NODE},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "create", NULL, "/join/v1/renew", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_NODES, NODE_USER_PREFIX, "get", NULL, "/join/v1/servers", SCOPE_ALL},

    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "get list watch", GROUP_ATOLL,
     "instances deployments sites nodes policies apikeys budgets gatewayreports", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "get patch update", GROUP_ATOLL,
     "apikeys/status budgets/status", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "create get list patch update", GROUP_ATOLL,
     "usagerecords", SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "create get patch update", GROUP_ATOLL,
     "gatewayreports", SCOPE_OWN_NAME},
    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "create", NULL, "/join/v1/renew",
     SCOPE_ALL},
    {WHO_GROUP, AT_GROUP_GATEWAYS, GATEWAY_USER_PREFIX, "get", NULL, "/join/v1/servers", SCOPE_ALL},
};

static bool in_group(const struct at_identity *who, const char *group)
{
    for (size_t i = 0; i < who->n_groups && i < AT_IDENTITY_GROUPS_MAX; i++) {
        if (at_streq(who->groups[i], group)) {
            return true;
        }
    }
    return false;
}

static bool rule_applies_to(const struct rule *rule, const struct at_identity *who)
{
    if (rule->who == WHO_ANYONE) {
        return true;
    }
    if (who->user[0] == '\0' || at_streq(who->user, AT_USER_ANONYMOUS)) {
        return false;
    }
    if (rule->who == WHO_AUTHENTICATED) {
        return true;
    }
    return in_group(who, rule->identity_group) &&
           (rule->user_prefix == NULL || at_str_starts(at_str_of(who->user), rule->user_prefix));
}

static const char *own_node(const struct at_identity *who)
{
    bool is_node = at_str_starts(at_str_of(who->user), NODE_USER_PREFIX);
    const char *name = is_node ? who->user + strlen(NODE_USER_PREFIX) : "";
    return name[0] != '\0' ? name : NULL;
}

/* As what a machine goes: an agent as its node, a gateway as itself. */
static const char *own_name(const struct at_identity *who)
{
    bool is_gateway = at_str_starts(at_str_of(who->user), GATEWAY_USER_PREFIX);
    const char *name = is_gateway ? who->user + strlen(GATEWAY_USER_PREFIX) : own_node(who);
    return name != NULL && name[0] != '\0' ? name : NULL;
}

static bool is_empty(const char *s)
{
    return s == NULL || s[0] == '\0';
}

static bool scope_holds(enum scope scope, const struct at_identity *who,
                        const struct at_access *what)
{
    const struct at_model_kind *kind;
    switch (scope) {
    case SCOPE_ALL:
        return true;
    case SCOPE_NOT_SECRETS: /* "*" stands for them too */
        return !at_streq(what->resource, "secrets") && !at_streq(what->resource, "*");
    case SCOPE_NAMESPACED_KINDS:
        kind = at_model_kind_by_plural(what->group, "v1", what->resource);
        return kind != NULL && kind->namespaced && !at_streq(what->group, GROUP_RBAC) &&
               !at_bounds_tenants(kind) &&
               (is_empty(what->subresource) || at_streq(what->subresource, "scale"));
    case SCOPE_OWN_NAME:
        return own_name(who) != NULL && at_streq(own_name(who), what->name);
    case SCOPE_OWN_NODE:
        return own_node(who) != NULL && at_streq(own_node(who), what->node_name);
    }
    return false;
}

static bool rule_allows(const struct rule *rule, const struct at_identity *who,
                        const struct at_access *what)
{
    const bool on_paths = rule->api_group == NULL;
    const struct at_rule words = {.verbs = {.text = rule->verbs},
                                  .groups = {.text = rule->api_group},
                                  .resources = {.text = on_paths ? NULL : rule->words},
                                  .paths = {.text = on_paths ? rule->words : NULL}};
    struct at_access wanted = *what;
    if (at_streq(what->verb, "deletecollection")) {
        wanted.verb = "delete"; /* whoever may delete each may delete all */
    }
    return rule_applies_to(rule, who) && at_rule_allows(&words, &wanted) &&
           (on_paths || scope_holds(rule->scope, who, what));
}

static void denial(const struct at_identity *who, const struct at_access *what, char *out,
                   size_t out_size)
{
    if (is_empty(what->resource)) {
        snprintf(out, out_size, "User \"%s\" cannot %s path \"%s\"", who->user,
                 what->verb != NULL ? what->verb : "", what->path != NULL ? what->path : "");
        return;
    }
    bool agent = in_group(who, AT_GROUP_NODES);
    snprintf(out, out_size,
             "User \"%s\" cannot %s resource \"%s%s%s\" in API group \"%s\" %s%s%s%s", who->user,
             what->verb != NULL ? what->verb : "", what->resource,
             is_empty(what->subresource) ? "" : "/",
             is_empty(what->subresource) ? "" : what->subresource,
             what->group != NULL ? what->group : "",
             is_empty(what->ns) ? "at the cluster scope" : "in the namespace \"",
             is_empty(what->ns) ? "" : what->ns, is_empty(what->ns) ? "" : "\"",
             agent ? ": an agent reaches only its own node and what is bound to it" : "");
}

bool at_rbac_allowed(const struct at_identity *who, const struct at_access *what, char *out_reason,
                     size_t out_size)
{
    if (out_reason != NULL && out_size > 0) {
        out_reason[0] = '\0';
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(RULES); i++) {
        if (rule_allows(&RULES[i], who, what)) {
            return true;
        }
    }
    if (out_reason != NULL && out_size > 0) {
        denial(who, what, out_reason, out_size);
    }
    return false;
}

static json_t *words_json(const char *words)
{
    json_t *list = json_array();
    struct at_str rest = at_str_of(words);
    while (rest.len > 0) {
        struct at_str one = at_str_cut(&rest, ' ');
        json_array_append_new(list, json_stringn(one.ptr, one.len));
    }
    return list;
}

/* What "*" means under a scope, spelled out, since a list of rules has no way to say "but not". */
static json_t *scoped_resources(enum scope scope)
{
    json_t *list = json_array();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        bool in = scope == SCOPE_NAMESPACED_KINDS
                      ? kinds[i]->namespaced && !at_streq(kinds[i]->group, GROUP_RBAC) &&
                            !at_bounds_tenants(kinds[i])
                      : !at_streq(kinds[i]->plural, "secrets");
        if (in) {
            json_array_append_new(list, json_string(kinds[i]->plural));
        }
    }
    return list;
}

static json_t *rule_json(const struct rule *rule, const struct at_identity *who)
{
    json_t *out = json_object();
    json_object_set_new(out, "verbs", words_json(rule->verbs));
    if (rule->api_group == NULL) {
        json_object_set_new(out, "nonResourceURLs", words_json(rule->words));
        return out;
    }
    json_object_set_new(out, "apiGroups", json_pack("[s]", rule->api_group));
    bool spelled = rule->scope == SCOPE_NOT_SECRETS || rule->scope == SCOPE_NAMESPACED_KINDS;
    json_object_set_new(out, "resources",
                        spelled ? scoped_resources(rule->scope) : words_json(rule->words));
    if (rule->scope == SCOPE_OWN_NAME && own_name(who) != NULL) {
        json_object_set_new(out, "resourceNames", json_pack("[s]", own_name(who)));
    }
    return out;
}

json_t *at_rbac_rules(const struct at_identity *who)
{
    json_t *list = json_array();
    for (size_t i = 0; i < AT_ARRAY_LEN(RULES); i++) {
        if (rule_applies_to(&RULES[i], who)) {
            json_array_append_new(list, rule_json(&RULES[i], who));
        }
    }
    return list;
}
