#include "security/book.h"

#include "core/mem.h"
#include "core/str.h"
#include "security/builtin_roles.h"

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

static void put(struct at_book *book, const char *kind, const char *ns, const char *name,
                const char *text)
{
    json_error_t error;
    json_t *object = text != NULL ? json_loads(text, 0, &error) : NULL;
    if (text != NULL && object == NULL) {
        fail_msg("%s: %s", text, error.text);
    }
    at_book_put(book, kind, ns, name, object);
    json_decref(object);
}

static bool may(const struct at_book *book, const struct at_identity *who, const char *verb,
                const char *group, const char *resource, const char *sub, const char *ns,
                const char *name)
{
    struct at_access what = {.verb = verb,
                             .group = group,
                             .resource = resource,
                             .subresource = sub,
                             .ns = ns,
                             .name = name};
    return at_book_allowed(book, who, &what, NULL, 0);
}

static bool may_path(const struct at_book *book, const struct at_identity *who, const char *path)
{
    struct at_access what = {.verb = "get", .resource = "", .path = path};
    return at_book_allowed(book, who, &what, NULL, 0);
}

#define READER                                                                                     \
    "{\"rules\":[{\"verbs\":[\"get\",\"list\"],\"apiGroups\":[\"\"],\"resources\":["               \
    "\"configmaps\"]}]}"
#define BIND(kind, role, subject)                                                                  \
    "{\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"" kind                    \
    "\",\"name\":\"" role "\"},\"subjects\":[" subject "]}"
#define USER(name) "{\"kind\":\"User\",\"name\":\"" name "\"}"
#define GROUP(name) "{\"kind\":\"Group\",\"name\":\"" name "\"}"

static void a_binding_gives_its_role_in_its_namespace_only(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity alice = identity("alice", "team");
    struct at_identity bob = identity("bob", NULL);
    put(book, "Role", "a", "reader", READER);
    put(book, "RoleBinding", "a", "b", BIND("Role", "reader", USER("alice")));
    assert_true(may(book, &alice, "get", "", "configmaps", NULL, "a", "x"));
    assert_false(may(book, &alice, "get", "", "configmaps", NULL, "b", "x"));
    assert_false(may(book, &alice, "get", "", "configmaps", NULL, "", "x")); /* all namespaces */
    assert_false(may(book, &alice, "delete", "", "configmaps", NULL, "a", "x"));
    assert_false(may(book, &alice, "get", "", "secrets", NULL, "a", "x"));
    assert_false(may(book, &alice, "get", "", "configmaps", "status", "a", "x"));
    assert_false(may(book, &alice, "get", "atoll.dev", "configmaps", NULL, "a", "x"));
    assert_false(may(book, &bob, "get", "", "configmaps", NULL, "a", "x"));
    /* The same role, a namespace further: of the binding's own namespace, so not there. */
    put(book, "RoleBinding", "b", "b", BIND("Role", "reader", USER("bob")));
    assert_false(may(book, &bob, "get", "", "configmaps", NULL, "b", "x"));
    assert_false(may(book, &bob, "get", "", "configmaps", NULL, "a", "x"));
    at_book_free(book);
}

static void groups_accounts_and_everyone_are_subjects(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity alice = identity("alice", "team");
    struct at_identity robot = identity("system:serviceaccount:ci:robot", NULL);
    struct at_identity anonymous = identity(AT_USER_ANONYMOUS, NULL);
    put(book, "ClusterRole", NULL, "reader", READER);
    put(book, "ClusterRoleBinding", NULL, "team", BIND("ClusterRole", "reader", GROUP("team")));
    assert_true(may(book, &alice, "list", "", "configmaps", NULL, "", ""));
    assert_false(may(book, &robot, "list", "", "configmaps", NULL, "ci", ""));
    put(book, "RoleBinding", "ci", "robot",
        BIND("ClusterRole", "reader",
             "{\"kind\":\"ServiceAccount\",\"name\":\"robot\",\"namespace\":\"ci\"}"));
    assert_true(may(book, &robot, "list", "", "configmaps", NULL, "ci", ""));
    put(book, "ClusterRoleBinding", NULL, "team",
        BIND("ClusterRole", "reader", GROUP("system:authenticated")));
    assert_true(may(book, &robot, "list", "", "configmaps", NULL, "x", ""));
    assert_false(may(book, &anonymous, "list", "", "configmaps", NULL, "x", ""));
    put(book, "ClusterRoleBinding", NULL, "open",
        BIND("ClusterRole", "reader", GROUP("system:unauthenticated")));
    assert_true(may(book, &anonymous, "list", "", "configmaps", NULL, "x", ""));
    at_book_free(book);
}

static void names_subresources_stars_and_paths(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity u = identity("u", NULL);
    put(book, "ClusterRoleBinding", NULL, "b", BIND("ClusterRole", "r", USER("u")));
    put(book, "ClusterRole", NULL, "r",
        "{\"rules\":[{\"verbs\":[\"get\"],\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],"
        "\"resourceNames\":[\"one\"]},"
        "{\"verbs\":[\"update\"],\"apiGroups\":[\"*\"],\"resources\":[\"*/scale\"]},"
        "{\"verbs\":[\"*\"],\"apiGroups\":[\"acme.com\"],\"resources\":[\"*\"]},"
        "{\"verbs\":[\"get\"],\"apiGroups\":[\"\"],\"resources\":[\"pods/log\"]},"
        "{\"verbs\":[\"get\"],\"nonResourceURLs\":[\"/metrics\",\"/logs/*\"]}]}");
    assert_true(may(book, &u, "get", "", "secrets", NULL, "a", "one"));
    assert_false(may(book, &u, "get", "", "secrets", NULL, "a", "two"));
    assert_false(may(book, &u, "get", "", "secrets", NULL, "a", ""));
    assert_false(may(book, &u, "list", "", "secrets", NULL, "a", "one"));
    assert_true(may(book, &u, "update", "atoll.dev", "deployments", "scale", "a", "d"));
    assert_false(may(book, &u, "update", "atoll.dev", "deployments", NULL, "a", "d"));
    assert_false(may(book, &u, "update", "atoll.dev", "deployments", "status", "a", "d"));
    assert_true(may(book, &u, "deletecollection", "acme.com", "things", "parts", "a", ""));
    assert_true(may(book, &u, "get", "", "pods", "log", "a", "p"));
    assert_false(may(book, &u, "get", "", "pods", NULL, "a", "p"));
    assert_true(may_path(book, &u, "/metrics"));
    assert_true(may_path(book, &u, "/logs/x/y"));
    assert_false(may_path(book, &u, "/metricsx"));
    at_book_free(book);
}

static void what_is_taken_away_is_gone_at_once(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity u = identity("u", NULL);
    put(book, "ClusterRole", NULL, "r", READER);
    put(book, "RoleBinding", "a", "b", BIND("ClusterRole", "r", USER("u") "," USER("v")));
    assert_true(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    put(book, "RoleBinding", "a", "b", BIND("ClusterRole", "r", USER("v"))); /* u left out */
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    put(book, "RoleBinding", "a", "b", BIND("ClusterRole", "r", USER("u")));
    put(book, "ClusterRole", NULL, "r", NULL);
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    put(book, "ClusterRole", NULL, "r", READER); /* and back, without the binding's doing */
    assert_true(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    put(book, "RoleBinding", "a", "b", NULL);
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    assert_int_equal(at_book_bindings(book), 0);
    at_book_free(book);
}

static void an_aggregated_role_follows_its_parts(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity u = identity("u", NULL);
    put(book, "ClusterRole", NULL, "sum",
        "{\"rules\":[],\"aggregationRule\":{\"clusterRoleSelectors\":[{\"matchLabels\":{\"to\":"
        "\"sum\"},\"matchExpressions\":[{\"key\":\"off\",\"operator\":\"DoesNotExist\"}]}]}}");
    put(book, "ClusterRoleBinding", NULL, "b", BIND("ClusterRole", "sum", USER("u")));
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
#define PART(labels)                                                                               \
    "{\"metadata\":{\"labels\":{" labels "}},\"rules\":[{\"verbs\":[\"get\"],\"apiGroups\":[\"\"]" \
    ",\"resources\":[\"configmaps\"]}]}"
    put(book, "ClusterRole", NULL, "part", PART("\"to\":\"sum\""));
    assert_true(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    put(book, "ClusterRole", NULL, "part", PART("\"to\":\"sum\",\"off\":\"1\""));
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    /* What was written into the sum while there was a part gives nothing any more. */
    put(book, "ClusterRole", NULL, "sum",
        "{\"rules\":[{\"verbs\":[\"get\"],\"apiGroups\":[\"\"],\"resources\":[\"configmaps\"]}],"
        "\"aggregationRule\":{\"clusterRoleSelectors\":[{\"matchLabels\":{\"to\":\"sum\"},"
        "\"matchExpressions\":[{\"key\":\"off\",\"operator\":\"DoesNotExist\"}]}]}}");
    assert_false(may(book, &u, "get", "", "configmaps", NULL, "a", "x"));
    at_book_free(book);
}

static bool covers(struct at_book *book, const struct at_identity *who, const char *ns,
                   const char *rules)
{
    json_t *list = json_loads(rules, 0, NULL);
    assert_non_null(list);
    char missing[512] = "";
    bool ok = at_book_covers(book, who, ns, list, missing, sizeof missing);
    assert_true(ok || missing[0] != '\0');
    json_decref(list);
    return ok;
}

#define RULE(verbs, groups, resources)                                                             \
    "{\"verbs\":[" verbs "],\"apiGroups\":[" groups "],\"resources\":[" resources "]}"

static void nobody_gives_what_he_has_not_got(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    struct at_identity u = identity("u", NULL);
    struct at_identity root = identity("r", AT_GROUP_MASTERS);
    struct at_identity editor = identity("e", AT_GROUP_EDITORS);
    struct at_identity viewer = identity("v", AT_GROUP_VIEWERS);
    put(book, "Role", "a", "reader", READER);
    put(book, "RoleBinding", "a", "b", BIND("Role", "reader", USER("u")));
    static const char OWN[] = "[" RULE("\"get\"", "\"\"", "\"configmaps\"") "]";
    static const char *const MORE[] = {
        "[" RULE("\"get\",\"delete\"", "\"\"", "\"configmaps\"") "]",
        "[" RULE("\"*\"", "\"\"", "\"configmaps\"") "]",
        "[" RULE("\"get\"", "\"*\"", "\"configmaps\"") "]",
        "[" RULE("\"get\"", "\"\"", "\"*\"") "]",
        "[" RULE("\"get\"", "\"\"", "\"configmaps/status\"") "]",
        "[" RULE("\"get\"", "\"\"", "\"configmaps\"") "," RULE("\"get\"", "\"\"",
                                                               "\"secrets\"") "]",
        "[{\"verbs\":[\"get\"],\"nonResourceURLs\":[\"*\"]}]",
    };
    assert_true(covers(book, &u, "a", OWN));
    assert_false(covers(book, &u, "b", OWN));
    assert_false(covers(book, &u, "", OWN));
    for (size_t i = 0; i < AT_ARRAY_LEN(MORE); i++) {
        assert_false(covers(book, &u, "a", MORE[i]));
        assert_true(covers(book, &root, "a", MORE[i]));
    }
    static const char *const NOT_EDITORS[] = {
        "[" RULE("\"*\"", "\"*\"", "\"*\"") "]",
        "[" RULE("\"get\"", "\"*\"", "\"*\"") "]",
        "[" RULE("\"create\"", "\"rbac.authorization.k8s.io\"", "\"rolebindings\"") "]",
        "[" RULE("\"get\"", "\"rbac.authorization.k8s.io\"", "\"*\"") "]",
        "[" RULE("\"create\"", "\"\"", "\"serviceaccounts/token\"") "]",
        "[" RULE("\"create\"", "\"atoll.dev\"", "\"sites\"") "]",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(NOT_EDITORS); i++) {
        assert_false(covers(book, &editor, "a", NOT_EDITORS[i]));
        assert_false(covers(book, &viewer, "a", NOT_EDITORS[i]));
    }
    assert_false(
        may(book, &editor, "create", "rbac.authorization.k8s.io", "rolebindings", NULL, "a", "x"));
    at_book_free(book);
}

static void built_in_roles_are_stepped_and_none_but_the_first_gives_everything(void **state)
{
    (void)state;
    json_t *roles = at_builtin_roles();
    struct at_book *book = at_book_new();
    static const char *const NAMES[] = {"cluster-admin", "admin", "edit", "view"};
    struct at_identity who[4];
    size_t each;
    const json_t *role;
    json_array_foreach(roles, each, role)
    {
        at_book_put(book, "ClusterRole", NULL, at_json_str_at(role, "metadata.name", ""), role);
    }
    for (size_t i = 0; i < 4; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "{\"roleRef\":{\"kind\":\"ClusterRole\",\"name\":\"%s\"},\"subjects\":[{\"kind\":"
                 "\"User\",\"name\":\"%s\"}]}",
                 NAMES[i], NAMES[i]);
        put(book, "RoleBinding", "t", NAMES[i], text);
        who[i] = identity(NAMES[i], NULL);
    }
#define CAN(i, verb, group, resource, sub) may(book, &who[i], verb, group, resource, sub, "t", "x")
    for (size_t i = 0; i < 4; i++) {
        assert_true(CAN(i, "get", "atoll.dev", "deployments", NULL));
        assert_true(CAN(i, "create", "atoll.dev", "deployments", NULL) == (i < 3));
        assert_true(CAN(i, "get", "", "secrets", NULL) == (i < 3));
        assert_true(CAN(i, "create", "atoll.dev", "instances", "exec") == (i < 3));
        assert_true(CAN(i, "create", "rbac.authorization.k8s.io", "rolebindings", NULL) == (i < 2));
        assert_true(CAN(i, "escalate", "rbac.authorization.k8s.io", "roles", NULL) == (i < 1));
        assert_true(CAN(i, "update", "atoll.dev", "deployments", "status") == (i < 1));
        assert_true(CAN(i, "impersonate", "", "users", NULL) == (i < 1));
        assert_false(may(book, &who[i], "get", "atoll.dev", "deployments", NULL, "other", "x"));
        for (size_t k = 0; k < 4; k++) { /* each may bind itself and those below it */
            json_t *rules = at_book_role_rules(book, "ClusterRole", "", NAMES[k]);
            assert_true(at_book_covers(book, &who[i], "t", rules, NULL, 0) == (k >= i));
            json_decref(rules);
        }
    }
    json_decref(roles);
    at_book_free(book);
}

static void ten_thousand_bindings_are_told_apart(void **state)
{
    (void)state;
    struct at_book *book = at_book_new();
    put(book, "ClusterRole", NULL, "r", READER);
    for (int i = 0; i < 10000; i++) {
        char ns[32];
        char text[300];
        snprintf(ns, sizeof ns, "n%d", i);
        snprintf(text, sizeof text,
                 BIND("ClusterRole", "r", "{\"kind\":\"Group\",\"name\":\"g%d\"}"), i % 7);
        put(book, "RoleBinding", ns, "b", text);
    }
    struct at_identity g3 = identity("x", "g3");
    size_t n = 0;
    for (int i = 0; i < 10000; i++) {
        char ns[32];
        snprintf(ns, sizeof ns, "n%d", i);
        bool allowed = may(book, &g3, "get", "", "configmaps", NULL, ns, "c");
        assert_true(allowed == (i % 7 == 3));
        n += allowed;
    }
    assert_int_equal(n, 1429);
    at_book_free(book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_binding_gives_its_role_in_its_namespace_only),
        cmocka_unit_test(groups_accounts_and_everyone_are_subjects),
        cmocka_unit_test(names_subresources_stars_and_paths),
        cmocka_unit_test(what_is_taken_away_is_gone_at_once),
        cmocka_unit_test(an_aggregated_role_follows_its_parts),
        cmocka_unit_test(nobody_gives_what_he_has_not_got),
        cmocka_unit_test(built_in_roles_are_stepped_and_none_but_the_first_gives_everything),
        cmocka_unit_test(ten_thousand_bindings_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
