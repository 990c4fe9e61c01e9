#include "core/mem.h"
#include "core/str.h"
#include "model/model.h"
#include "security/security.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct at_identity identity(const char *user, const char *group)
{
    struct at_identity who = {0};
    snprintf(who.user, sizeof who.user, "%s", user);
    if (group != NULL) {
        snprintf(who.groups[0], sizeof who.groups[0], "%s", group);
        who.n_groups = 1;
    }
    return who;
}

static bool may(const struct at_identity *who, const char *verb, const char *group,
                const char *resource, const char *subresource, const char *name, const char *node)
{
    struct at_access what = {.verb = verb,
                             .group = group,
                             .resource = resource,
                             .subresource = subresource,
                             .ns = "default",
                             .name = name,
                             .node_name = node};
    return at_rbac_allowed(who, &what, NULL, 0);
}

static bool may_path(const struct at_identity *who, const char *verb, const char *path)
{
    struct at_access what = {.verb = verb, .resource = "", .path = path};
    return at_rbac_allowed(who, &what, NULL, 0);
}

static const char *const VERBS[] = {"get",   "list",   "watch", "create",  "update",
                                    "patch", "delete", "",      "escalate"};
static const char *const SUBRESOURCES[] = {NULL, "status", "scale", "log", "tunnel", "heartbeat"};

/* Every verb on every kind and subresource, for identities that no rule names. */
static void nobody_gets_anything_by_default(void **state)
{
    (void)state;
    const struct at_identity strangers[] = {
        identity(AT_USER_ANONYMOUS, AT_GROUP_MASTERS), /* anonymous stays out even so */
        identity("", AT_GROUP_MASTERS),
        identity("alice", NULL),
        identity("alice", "team"),
        identity("alice", AT_GROUP_NODES), /* no node's name */
        identity("system:node:", AT_GROUP_NODES),
        identity("system:node:n1", NULL), /* no group */
        identity("alice", AT_GROUP_GATEWAYS),
        identity("alice", "system:master"),
        identity("alice", "system:masters2"),
    };
    size_t n = 0;
    size_t tried = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t w = 0; w < AT_ARRAY_LEN(strangers); w++) {
        bool node_group = strangers[w].n_groups > 0 && at_streq(strangers[w].user, "system:node:");
        for (size_t k = 0; k < n; k++) {
            for (size_t v = 0; v < AT_ARRAY_LEN(VERBS); v++) {
                for (size_t s = 0; s < AT_ARRAY_LEN(SUBRESOURCES); s++) {
                    /* Sites and policies are open to every agent, whatever its name. */
                    bool open = node_group && (at_streq(kinds[k]->plural, "sites") ||
                                               at_streq(kinds[k]->plural, "policies"));
                    if (!open) {
                        assert_false(may(&strangers[w], VERBS[v], kinds[k]->group, kinds[k]->plural,
                                         SUBRESOURCES[s], "", ""));
                        tried++;
                    }
                }
            }
        }
        assert_false(may_path(&strangers[w], "get", "/metrics"));
        assert_false(may_path(&strangers[w], "create", "/join/v1/tokens"));
        assert_false(may_path(&strangers[w], "get", "/"));
    }
    assert_true(tried > 1000);
}

static void admins_may_everything(void **state)
{
    (void)state;
    struct at_identity who = identity("root", AT_GROUP_MASTERS);
    assert_true(may(&who, "delete", "", "secrets", NULL, "x", NULL));
    assert_true(may(&who, "update", "atoll.dev", "nodes", "status", "x", NULL));
    assert_true(may_path(&who, "create", "/join/v1/tokens"));
    assert_true(may_path(&who, "get", "/metrics"));
}

static void viewers_read_all_but_secrets(void **state)
{
    (void)state;
    struct at_identity who = identity("bob", AT_GROUP_VIEWERS);
    assert_true(may(&who, "list", "atoll.dev", "deployments", NULL, NULL, NULL));
    assert_true(may(&who, "watch", "atoll.dev", "nodes", NULL, NULL, NULL));
    assert_true(may(&who, "get", "atoll.dev", "instances", "log", "i", NULL));
    assert_false(may(&who, "get", "", "secrets", NULL, "s", NULL));
    assert_false(may(&who, "list", "", "secrets", NULL, NULL, NULL));
    assert_false(may(&who, "create", "atoll.dev", "nodes", "tunnel", "n", NULL));
    assert_false(may(&who, "patch", "atoll.dev", "deployments", NULL, "d", NULL));
    assert_false(may(&who, "delete", "atoll.dev", "deployments", NULL, "d", NULL));
}

static void editors_write_namespaced_kinds_only(void **state)
{
    (void)state;
    struct at_identity who = identity("eve", AT_GROUP_EDITORS);
    assert_true(may(&who, "create", "atoll.dev", "deployments", NULL, NULL, NULL));
    assert_true(may(&who, "patch", "atoll.dev", "deployments", "scale", "d", NULL));
    assert_true(may(&who, "get", "", "secrets", NULL, "s", NULL));
    assert_true(may(&who, "delete", "", "configmaps", NULL, "c", NULL));
    assert_false(may(&who, "patch", "atoll.dev", "deployments", "status", "d", NULL));
    assert_false(may(&who, "create", "atoll.dev", "sites", NULL, NULL, NULL));
    assert_false(may(&who, "create", "", "namespaces", NULL, NULL, NULL));
    assert_false(may(&who, "delete", "atoll.dev", "nodes", NULL, "n", NULL));
    assert_false(may_path(&who, "create", "/join/v1/tokens"));
}

static void an_agent_reaches_its_own_node_and_instances(void **state)
{
    (void)state;
    struct at_identity who = identity("system:node:n1", AT_GROUP_NODES);
    assert_true(may(&who, "watch", "atoll.dev", "instances", NULL, NULL, "n1"));
    assert_true(may(&who, "patch", "atoll.dev", "instances", "status", "i", "n1"));
    assert_true(may(&who, "patch", "atoll.dev", "instances", NULL, "i", "n1"));
    assert_true(may(&who, "create", "atoll.dev", "nodes", NULL, "n1", NULL));
    assert_true(may(&who, "patch", "atoll.dev", "nodes", "status", "n1", NULL));
    assert_true(may(&who, "create", "atoll.dev", "nodes", "heartbeat", "n1", NULL));
    assert_true(may(&who, "create", "atoll.dev", "nodes", "tunnel", "n1", NULL));
    assert_true(may(&who, "get", "", "secrets", NULL, "s", "n1"));
    assert_false(may(&who, "create", "", "events", NULL, NULL, NULL));
    assert_true(may_path(&who, "create", "/join/v1/renew"));

    assert_false(may(&who, "watch", "atoll.dev", "instances", NULL, NULL, NULL));
    assert_false(may(&who, "watch", "atoll.dev", "instances", NULL, NULL, "n2"));
    assert_false(may(&who, "patch", "atoll.dev", "instances", "status", "i", "n2"));
    assert_false(may(&who, "delete", "atoll.dev", "instances", NULL, "i", "n1"));
    assert_false(may(&who, "create", "atoll.dev", "instances", NULL, "i", "n1"));
    assert_false(may(&who, "create", "atoll.dev", "nodes", NULL, "n2", NULL));
    assert_false(may(&who, "delete", "atoll.dev", "nodes", NULL, "n1", NULL));
    assert_false(may(&who, "list", "atoll.dev", "nodes", NULL, NULL, NULL));
    assert_false(may(&who, "create", "atoll.dev", "nodes", "tunnel", "n2", NULL));
    assert_false(may(&who, "get", "", "secrets", NULL, "s", NULL));
    assert_false(may(&who, "list", "", "secrets", NULL, NULL, "n1"));
    assert_false(may(&who, "get", "atoll.dev", "deployments", NULL, "d", "n1"));
}

static void a_gateway_reads_routes_only(void **state)
{
    (void)state;
    struct at_identity who = identity("system:gateway:g1", AT_GROUP_GATEWAYS);
    assert_true(may(&who, "watch", "atoll.dev", "instances", NULL, NULL, NULL));
    assert_true(may(&who, "list", "atoll.dev", "sites", NULL, NULL, NULL));
    assert_false(may(&who, "patch", "atoll.dev", "instances", "status", "i", NULL));
    assert_true(may(&who, "create", "atoll.dev", "gatewayreports", NULL, "g1", NULL));
    assert_true(may(&who, "patch", "atoll.dev", "gatewayreports", NULL, "g1", NULL));
    assert_false(may(&who, "patch", "atoll.dev", "gatewayreports", NULL, "g2", NULL));
    assert_false(may(&who, "delete", "atoll.dev", "gatewayreports", NULL, "g1", NULL));
    assert_false(may(&who, "patch", "atoll.dev", "deployments", NULL, "g1", NULL));
    assert_false(may(&who, "get", "", "secrets", NULL, "s", NULL));
    assert_false(may(&who, "get", "atoll.dev", "jobs", NULL, "j", NULL));
}

static void discovery_is_for_the_authenticated_and_health_for_all(void **state)
{
    (void)state;
    struct at_identity anonymous = identity(AT_USER_ANONYMOUS, NULL);
    struct at_identity alice = identity("alice", NULL);
    assert_true(may_path(&anonymous, "get", "/healthz"));
    assert_true(may_path(&anonymous, "get", "/readyz"));
    assert_false(may_path(&anonymous, "get", "/version"));
    assert_false(may_path(&anonymous, "get", "/apis"));
    assert_false(may_path(&anonymous, "create", "/healthz"));
    assert_true(may_path(&alice, "get", "/version"));
    assert_true(may_path(&alice, "get", "/apis/atoll.dev/v1"));
    assert_true(may_path(&alice, "get", "/openapi/v3/apis/atoll.dev/v1"));
    assert_true(
        may(&alice, "create", "authorization.k8s.io", "selfsubjectaccessreviews", NULL, "", NULL));
}

static void a_denial_says_who_and_what(void **state)
{
    (void)state;
    struct at_identity who = identity("bob", AT_GROUP_VIEWERS);
    struct at_access what = {
        .verb = "delete", .group = "atoll.dev", .resource = "deployments", .ns = "prod"};
    char reason[256];
    assert_false(at_rbac_allowed(&who, &what, reason, sizeof reason));
    assert_string_equal(reason, "User \"bob\" cannot delete resource \"deployments\" in API group "
                                "\"atoll.dev\" in the namespace \"prod\"");
    assert_true(at_rbac_allowed(
        &who, &(struct at_access){.verb = "get", .group = "atoll.dev", .resource = "deployments"},
        reason, sizeof reason));
    assert_string_equal(reason, "");
}

static void rules_list_what_a_viewer_sees_without_secrets(void **state)
{
    (void)state;
    struct at_identity who = identity("bob", AT_GROUP_VIEWERS);
    json_t *rules = at_rbac_rules(&who);
    char *text = json_dumps(rules, JSON_COMPACT);
    assert_non_null(strstr(text, "deployments"));
    assert_null(strstr(text, "secrets"));
    free(text);
    json_decref(rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_gets_anything_by_default),
        cmocka_unit_test(admins_may_everything),
        cmocka_unit_test(viewers_read_all_but_secrets),
        cmocka_unit_test(editors_write_namespaced_kinds_only),
        cmocka_unit_test(an_agent_reaches_its_own_node_and_instances),
        cmocka_unit_test(a_gateway_reads_routes_only),
        cmocka_unit_test(discovery_is_for_the_authenticated_and_health_for_all),
        cmocka_unit_test(a_denial_says_who_and_what),
        cmocka_unit_test(rules_list_what_a_viewer_sees_without_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
