#include "api/kit_test.h"

static void strangers_see_health_and_nothing_else(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char *const CLOSED[] = {"/version", "/apis",           ATOLL "/sites", "/metrics",
                                         "/nothing", "/join/v1/tokens", "/readyz/x",    "/"};
    assert_int_equal(kit_status(kit, kit->client_tls, AT_HTTP_GET, "/healthz", NULL, NULL), 200);
    assert_int_equal(kit_status(kit, kit->client_tls, AT_HTTP_GET, "/readyz", NULL, NULL), 200);
    for (size_t i = 0; i < AT_ARRAY_LEN(CLOSED); i++) {
        kit_call(kit, &a, kit->client_tls, AT_HTTP_GET, CLOSED[i], NULL, NULL);
        assert_int_equal(a.status, 401);
        assert_string_equal(answer_str(&a, "reason"), "Unauthorized");
        answer_done(&a);
    }
    assert_int_equal(kit_status(kit, kit->client_tls, AT_HTTP_GET, "/healthz",
                                "Authorization: Bearer wrong\r\n", NULL),
                     401);
}

#define AS(user) "Impersonate-User: " user "\r\n"

static void who_may_acts_as_another(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char SITE[] = "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"class\":\"edge\","
                               "\"jurisdiction\":\"EU\"}}";
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites", AS("eve"), SITE), 403);
    assert_non_null(strstr(at_json_str_at(a.json, "message", ""), "User \"eve\" cannot create"));
    answer_done(&a);
    assert_non_null(strstr(kit->audit.data, "\"user\":\"admin\""));
    assert_non_null(strstr(kit->audit.data, "\"impersonatedUser\":\"eve\""));
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites",
                                AS("eve") "Impersonate-Group: atoll:viewers\r\n", NULL),
                     200);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST,
                               "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                               AS("eve") "Impersonate-Uid: 7\r\nImpersonate-Group: g\r\n"
                                         "Impersonate-Extra-Acme.com%2Fscope: a\r\n"
                                         "Impersonate-Extra-Acme.com%2Fscope: b\r\n",
                               "{}"),
                     201);
    const json_t *user = at_json_at(a.json, "status.userInfo");
    assert_string_equal(at_json_str_at(user, "username", ""), "eve");
    assert_string_equal(at_json_str_at(user, "uid", ""), "7");
    const json_t *scope = json_object_get(json_object_get(user, "extra"), "acme.com/scope");
    assert_int_equal(json_array_size(scope), 2);
    answer_done(&a);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", AS("system:anonymous"), NULL), 403);
}

static void acting_as_another_needs_the_right_and_a_name(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    struct at_tls_config *editor = kit_identity(kit, "ed", AT_GROUP_EDITORS);
    kit_call(kit, &a, editor, AT_HTTP_GET, ATOLL "/sites", AS("admin"), NULL);
    assert_int_equal(a.status, 403);
    assert_non_null(strstr(at_json_str_at(a.json, "message", ""),
                           "users \"admin\" is forbidden: User \"ed\" cannot impersonate"));
    answer_done(&a);
    assert_int_equal(kit_status(kit, editor, AT_HTTP_GET, ATOLL "/sites",
                                "Impersonate-Group: system:masters\r\n", NULL),
                     403);
    at_tls_config_unref(editor);
    assert_int_equal(
        kit_status(kit, kit->client_tls, AT_HTTP_GET, ATOLL "/sites", AS("admin"), NULL), 401);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", "Impersonate-Group: g\r\n", NULL), 400);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", AS("a") AS("b"), NULL),
                     400);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", AS("a") "Impersonate-Key: x\r\n", NULL),
        400);
}

static void a_viewer_reads_but_does_not_write(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    struct at_tls_config *bob = kit_identity(kit, "bob", AT_GROUP_VIEWERS);
    assert_int_equal(kit_status(kit, bob, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    assert_int_equal(
        kit_status(kit, bob, AT_HTTP_GET, "/api/v1/namespaces/default/secrets", NULL, NULL), 403);
    kit_call(kit, &a, bob, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, KIT_DEPLOYMENT("web"));
    assert_int_equal(a.status, 403);
    assert_string_equal(answer_str(&a, "message"),
                        "deployments.atoll.dev is forbidden: User \"bob\" cannot create resource "
                        "\"deployments\" in API group \"atoll.dev\" in the namespace \"default\"");
    answer_done(&a);
    at_tls_config_unref(bob);
}

static void reviews_say_what_one_may(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    struct at_tls_config *bob = kit_identity(kit, "bob", AT_GROUP_VIEWERS);
    static const char PATH[] = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    kit_call(kit, &a, bob, AT_HTTP_POST, PATH, NULL,
             "{\"spec\":{\"resourceAttributes\":{\"verb\":\"list\",\"group\":\"atoll.dev\","
             "\"resource\":\"sites\"}}}");
    assert_int_equal(a.status, 201);
    assert_true(at_json_bool_at(a.json, "status.allowed", false));
    answer_done(&a);
    kit_call(kit, &a, bob, AT_HTTP_POST, PATH, NULL,
             "{\"spec\":{\"resourceAttributes\":{\"verb\":\"delete\",\"group\":\"atoll.dev\","
             "\"resource\":\"sites\"}}}");
    assert_false(at_json_bool_at(a.json, "status.allowed", true));
    answer_done(&a);
    kit_call(kit, &a, bob, AT_HTTP_POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", NULL,
             "{}");
    assert_string_equal(answer_str(&a, "status.userInfo.username"), "bob");
    answer_done(&a);
    at_tls_config_unref(bob);
}

/* --- joining --- */

/* own: caller frees. */
static char *token_new(struct kit *kit, const char *body)
{
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, "/join/v1/tokens", NULL, body), 201);
    char pin[80];
    snprintf(pin, sizeof pin, "sha256:%s", at_ca_pin_sha256_hex(kit->ca));
    assert_string_equal(answer_str(&a, "caPin"), pin);
    char *token = at_strdup(answer_str(&a, "token"));
    answer_done(&a);
    return token;
}

static char *csr_new(char **ret_key)
{
    char *csr = NULL;
    assert_int_equal(at_csr_new("whoever", &csr, ret_key, NULL), AT_OK);
    return csr;
}

static void join(struct kit *kit, struct kit_answer *a, const char *token, const char *csr,
                 const char *name)
{
    json_t *body = json_pack("{s:s, s:s, s:s}", "token", token, "csr", csr, "name", name);
    char *text = json_dumps(body, 0);
    kit_call(kit, a, kit->client_tls, AT_HTTP_POST, "/join/v1", NULL, text);
    free(text);
    json_decref(body);
}

static struct at_tls_config *tls_of(struct kit *kit, const char *cert, const char *key)
{
    struct at_tls_config *config = NULL;
    struct at_tls_options options = {
        .cert_pem = cert, .key_pem = key, .ca_pem = at_ca_cert_pem(kit->ca), .verify_peer = true};
    assert_int_equal(at_tls_config_new(&options, &config, NULL), AT_OK);
    return config;
}

/* A joined agent's identity, as the wire gives it. */
static struct at_tls_config *agent_new(struct kit *kit, const char *name)
{
    struct kit_answer a;
    char *key = NULL;
    char *token = token_new(kit, "{\"role\":\"agent\",\"site\":\"edge\"}");
    char *csr = csr_new(&key);
    join(kit, &a, token, csr, name);
    assert_int_equal(a.status, 200);
    struct at_tls_config *tls = tls_of(kit, answer_str(&a, "certificate"), key);
    answer_done(&a);
    at_free(token);
    at_free(csr);
    at_free(key);
    return tls;
}

static void a_token_buys_one_certificate(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char *key = NULL;
    char *token = token_new(kit, "{\"role\":\"agent\",\"site\":\"edge\",\"ttl\":\"1h\"}");
    char *csr = csr_new(&key);
    join(kit, &a, token, "no csr", "n1"); /* costs no token */
    assert_int_equal(a.status, 400);
    answer_done(&a);
    join(kit, &a, token, csr, "n1");
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_str(&a, "name"), "n1");
    assert_string_equal(answer_str(&a, "site"), "edge");
    struct at_tls_config *tls = tls_of(kit, answer_str(&a, "certificate"), key);
    answer_done(&a);
    kit_call(kit, &a, tls, AT_HTTP_POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", NULL,
             "{}");
    assert_string_equal(answer_str(&a, "status.userInfo.username"), "system:node:n1");
    answer_done(&a);
    join(kit, &a, token, csr, "n2");
    assert_int_equal(a.status, 401);
    assert_string_equal(answer_str(&a, "message"), "this join token was used already");
    answer_done(&a);
    at_tls_config_unref(tls);
    at_free(token);
    at_free(csr);
    at_free(key);
}

static void two_joins_at_once_with_one_token_give_one_certificate(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a[4];
    char *key = NULL;
    char *token = token_new(kit, "{\"role\":\"agent\",\"site\":\"edge\"}");
    char *csr = csr_new(&key);
    json_t *body = json_pack("{s:s, s:s, s:s}", "token", token, "csr", csr, "name", "n1");
    char *text = json_dumps(body, 0);
    int granted = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        kit_start(kit, &a[i], kit->client_tls, AT_HTTP_POST, "/join/v1", NULL, text);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        KIT_UNTIL(kit, a[i].done);
        assert_true(a[i].status == 200 || a[i].status == 401);
        granted += a[i].status == 200;
        answer_done(&a[i]);
    }
    assert_int_equal(granted, 1);
    free(text);
    json_decref(body);
    at_free(token);
    at_free(csr);
    at_free(key);
}

static void forged_and_expired_tokens_are_told_apart(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char *key = NULL;
    char *csr = csr_new(&key);
    char *token = token_new(kit, "{\"role\":\"gateway\",\"ttl\":\"1us\"}");
    join(kit, &a, token, csr, "g1");
    assert_int_equal(a.status, 401);
    assert_string_equal(answer_str(&a, "message"), "this join token has expired");
    answer_done(&a);
    char *last = token + strlen(token) - 1;
    *last = *last == '0' ? '1' : '0';
    join(kit, &a, token, csr, "g1");
    assert_int_equal(a.status, 401);
    assert_string_equal(answer_str(&a, "message"), "this join token is unknown");
    answer_done(&a);
    join(kit, &a, "nonsense", csr, "g1");
    assert_int_equal(a.status, 401);
    answer_done(&a);
    at_free(token);
    at_free(csr);
    at_free(key);
}

static void only_admins_make_tokens_and_only_holders_renew(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char *key = NULL;
    char *csr = csr_new(&key);
    struct at_tls_config *bob = kit_identity(kit, "bob", AT_GROUP_EDITORS);
    struct at_tls_config *agent = agent_new(kit, "n1");
    static const char BODY[] = "{\"role\":\"agent\",\"site\":\"edge\"}";
    assert_int_equal(kit_status(kit, bob, AT_HTTP_POST, "/join/v1/tokens", NULL, BODY), 403);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, "/join/v1/tokens", NULL, BODY), 403);
    json_t *body = json_pack("{s:s}", "csr", csr);
    char *text = json_dumps(body, 0);
    assert_int_equal(kit_status(kit, bob, AT_HTTP_POST, "/join/v1/renew", NULL, text), 403);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, "/join/v1/renew", NULL, text), 403);
    kit_call(kit, &a, agent, AT_HTTP_POST, "/join/v1/renew", NULL, text);
    assert_int_equal(a.status, 200);
    struct at_tls_config *renewed = tls_of(kit, answer_str(&a, "certificate"), key);
    answer_done(&a);
    /* The site is renewed with it: this agent still may not pose as one of another site. */
    static const char NODE[] = "{\"metadata\":{\"name\":\"n1\"},\"spec\":{\"site\":\"%s\"}}";
    char node[128];
    snprintf(node, sizeof node, NODE, "cloud");
    assert_int_equal(kit_status(kit, renewed, AT_HTTP_POST, ATOLL "/nodes", NULL, node), 403);
    snprintf(node, sizeof node, NODE, "edge");
    assert_int_equal(kit_status(kit, renewed, AT_HTTP_POST, ATOLL "/nodes", NULL, node), 201);
    free(text);
    json_decref(body);
    at_tls_config_unref(renewed);
    at_tls_config_unref(agent);
    at_tls_config_unref(bob);
    at_free(csr);
    at_free(key);
}

/* --- agents --- */

static void make_instance(struct kit *kit, const char *name, const char *node, const char *secret)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"nodeName\":\"%s\",\"command\":[\"/x\"],"
             "\"env\":[{\"name\":\"A\",\"secretKeyRef\":{\"name\":\"%s\",\"key\":\"k\"}}]}}",
             name, node, secret);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/instances", NULL, body), 201);
    const struct at_model_kind *kind = at_model_kind_find("atoll.dev", "v1", "Instance");
    json_t *seen = NULL;
    KIT_UNTIL(kit, (seen = at_state_object(kit->state, kind, "default", name)) != NULL);
    json_decref(seen);
}

static void make_node(struct kit *kit, struct at_tls_config *agent, const char *name)
{
    char body[128];
    snprintf(body, sizeof body, "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"site\":\"edge\"}}",
             name);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, ATOLL "/nodes", NULL, body), 201);
    const struct at_model_kind *kind = at_model_kind_find("atoll.dev", "v1", "Node");
    json_t *seen = NULL;
    KIT_UNTIL(kit, (seen = at_state_object(kit->state, kind, NULL, name)) != NULL);
    json_decref(seen);
}

static void an_agent_sees_and_changes_its_own_only(void **state)
{
    struct kit *kit = *state;
    struct at_tls_config *agent = agent_new(kit, "n1");
    make_node(kit, agent, "n1");
    make_instance(kit, "mine", "n1", "s1");
    make_instance(kit, "other", "n2", "s2");
    static const char READY[] = "{\"status\":{\"phase\":\"Running\",\"ready\":true}}";
    static const struct {
        enum at_http_method method;
        const char *path, *headers, *body;
        int status;
    } CASES[] = {
        {AT_HTTP_GET, ATOLL "/instances?fieldSelector=spec.nodeName%3Dn1", NULL, NULL, 200},
        {AT_HTTP_GET, ATOLL "/instances?fieldSelector=spec.nodeName%3Dn2", NULL, NULL, 403},
        {AT_HTTP_GET, ATOLL "/instances?fieldSelector=spec.nodeName%21%3Dn1", NULL, NULL, 403},
        {AT_HTTP_GET, ATOLL "/instances", NULL, NULL, 403},
        {AT_HTTP_GET, IN_DEFAULT "/instances/mine", NULL, NULL, 200},
        {AT_HTTP_GET, IN_DEFAULT "/instances/other", NULL, NULL, 403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine/status", KIT_MERGE, READY, 200},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/other/status", KIT_MERGE, READY, 403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE,
         "{\"metadata\":{\"finalizers\":[\"atoll.dev/agent\"]}}", 200},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE, "{\"spec\":{\"priority\":9}}",
         403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE,
         "{\"metadata\":{\"labels\":{\"atoll.dev/deployment\":\"other\"}}}", 403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE,
         "{\"metadata\":{\"annotations\":{\"a\":\"b\"}}}", 403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE,
         "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":"
         "\"n1\",\"uid\":\"1\"}]}}",
         403},
        {AT_HTTP_PATCH, IN_DEFAULT "/instances/mine", KIT_MERGE,
         "{\"metadata\":{\"finalizers\":[\"atoll.dev/agent\",\"x.y/z\"]}}", 403},
        {AT_HTTP_PATCH, ATOLL "/nodes/n1", KIT_MERGE,
         "{\"metadata\":{\"labels\":{\"zone\":\"safe\"}}}", 403},
        {AT_HTTP_POST, "/api/v1/namespaces/default/events", NULL, "{}", 403},
        {AT_HTTP_DELETE, IN_DEFAULT "/instances/mine", NULL, NULL, 403},
        {AT_HTTP_GET, ATOLL "/nodes/n1", NULL, NULL, 200},
        {AT_HTTP_GET, ATOLL "/nodes/n2", NULL, NULL, 403},
        {AT_HTTP_GET, ATOLL "/nodes", NULL, NULL, 403},
        {AT_HTTP_POST, ATOLL "/nodes", NULL,
         "{\"metadata\":{\"name\":\"n9\"},\"spec\":{\"site\":\"edge\"}}", 403},
        {AT_HTTP_POST, ATOLL "/nodes/n1/heartbeat", NULL, "{}", 200},
        {AT_HTTP_POST, ATOLL "/nodes/n2/heartbeat", NULL, "{}", 403},
        {AT_HTTP_GET, ATOLL "/nodes/n2/tunnel", NULL, NULL, 403},
        {AT_HTTP_GET, "/api/v1/namespaces/default/secrets/s1", NULL, NULL,
         404}, /* may, is absent */
        {AT_HTTP_GET, "/api/v1/namespaces/default/secrets/s2", NULL, NULL, 403},
        {AT_HTTP_GET, "/api/v1/namespaces/default/secrets", NULL, NULL, 403},
        {AT_HTTP_GET, ATOLL "/deployments", NULL, NULL, 403},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        int got =
            kit_status(kit, agent, CASES[i].method, CASES[i].path, CASES[i].headers, CASES[i].body);
        if (got != CASES[i].status) {
            fail_msg("case %zu %s: %d, not %d", i, CASES[i].path, got, CASES[i].status);
        }
    }
    assert_true(at_state_heartbeat_last(kit->state, "n1") > 0);
    assert_true(at_state_heartbeat_last(kit->state, "n2") == 0);
    at_tls_config_unref(agent);
}

/* A refusal is decided before anything is read: its cost cannot tell what there is. */
static void a_refusal_costs_the_same_whether_there_is_something_or_not(void **state)
{
    struct kit *kit = *state;
    static const struct {
        enum at_http_method method;
        const char *there, *not_there, *headers, *body;
    } CASES[] = {
        {AT_HTTP_GET, "/api/v1/namespaces/full/configmaps", "/api/v1/namespaces/none/configmaps",
         NULL, NULL},
        {AT_HTTP_GET, "/api/v1/namespaces/full/configmaps/a",
         "/api/v1/namespaces/full/configmaps/z", NULL, NULL},
        {AT_HTTP_GET, "/api/v1/namespaces/full/configmaps?watch=true",
         "/api/v1/namespaces/none/configmaps?watch=true", NULL, NULL},
        {AT_HTTP_GET, "/api/v1/namespaces/full/secrets?limit=1&labelSelector=a%3Db",
         "/api/v1/namespaces/none/secrets?limit=1&labelSelector=a%3Db", NULL, NULL},
        {AT_HTTP_GET, "/api/v1/configmaps", "/api/v1/secrets", NULL, NULL},
        {AT_HTTP_GET, "/api/v1/namespaces/full", "/api/v1/namespaces/none", NULL, NULL},
        {AT_HTTP_POST, "/api/v1/namespaces/full/configmaps", "/api/v1/namespaces/none/configmaps",
         NULL, "{\"metadata\":{\"name\":\"a\"}}"},
        {AT_HTTP_PATCH, "/api/v1/namespaces/full/configmaps/a",
         "/api/v1/namespaces/full/configmaps/z", KIT_MERGE, "{\"data\":{\"x\":\"y\"}}"},
        {AT_HTTP_DELETE, "/api/v1/namespaces/full/configmaps/a",
         "/api/v1/namespaces/full/configmaps/z", NULL, NULL},
        {AT_HTTP_DELETE, "/api/v1/namespaces/full/configmaps", "/api/v1/namespaces/none/configmaps",
         NULL, NULL},
        {AT_HTTP_GET, "/api/v1/namespaces/full/pods/a/log", "/api/v1/namespaces/full/pods/z/log",
         NULL, NULL},
    };
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, "/api/v1/namespaces", NULL,
                                "{\"metadata\":{\"name\":\"full\"}}"),
                     201);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, "/api/v1/namespaces/full/configmaps", NULL,
                                "{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"1\"}}"),
                     201);
    struct at_tls_config *eve = kit_identity(kit, "eve", NULL);
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        const char *const paths[] = {CASES[i].there, CASES[i].not_there};
        for (size_t k = 0; k < 2; k++) {
            struct at_store_stats before = at_store_stats(kit->store);
            int status =
                kit_status(kit, eve, CASES[i].method, paths[k], CASES[i].headers, CASES[i].body);
            struct at_store_stats after = at_store_stats(kit->store);
            assert_int_equal(status, 403);
            if (after.reads != before.reads || after.watchers != before.watchers) {
                fail_msg("%s: %d reads before the decision", paths[k],
                         (int)(after.reads - before.reads));
            }
        }
    }
    at_tls_config_unref(eve);
    /* The reads that are counted are those of who may. */
    struct at_store_stats before = at_store_stats(kit->store);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, CASES[1].there, NULL, NULL), 200);
    assert_true(at_store_stats(kit->store).reads > before.reads);
}

/* An agent's rights depend on the object, so it is looked at: once, whether it is there or not. */
static void an_agent_is_refused_at_the_same_cost_whether_there_is_something_or_not(void **state)
{
    struct kit *kit = *state;
    struct at_tls_config *agent = agent_new(kit, "n1");
    make_node(kit, agent, "n1");
    make_instance(kit, "other", "n2", "s2");
    static const char *const PAIRS[][2] = {
        {IN_DEFAULT "/instances/other", IN_DEFAULT "/instances/nowhere"},
        {"/api/v1/namespaces/default/secrets/s2", "/api/v1/namespaces/default/secrets/none"},
        {ATOLL "/nodes/n2", ATOLL "/nodes/n3"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(PAIRS); i++) {
        uint64_t reads[2];
        for (size_t k = 0; k < 2; k++) {
            uint64_t before = at_store_stats(kit->store).reads;
            assert_int_equal(kit_status(kit, agent, AT_HTTP_GET, PAIRS[i][k], NULL, NULL), 403);
            reads[k] = at_store_stats(kit->store).reads - before;
        }
        assert_int_equal(reads[0], reads[1]);
    }
    at_tls_config_unref(agent);
}

static void a_token_of_another_site_cannot_take_a_node(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char *key = NULL;
    char *csr = csr_new(&key);
    struct at_tls_config *agent = agent_new(kit, "n1");
    make_node(kit, agent, "n1");
    char *token = token_new(kit, "{\"role\":\"agent\",\"site\":\"cloud\"}");
    join(kit, &a, token, csr, "n1");
    assert_int_equal(a.status, 409);
    answer_done(&a);
    at_tls_config_unref(agent);
    at_free(token);
    at_free(csr);
    at_free(key);
}

static void a_token_review_tells_whose_a_token_is(void **state)
{
    struct kit *kit = *state;
    static const char REVIEWS[] = "/apis/authentication.k8s.io/v1/tokenreviews";
    struct kit_answer a;
    struct at_tls_config *viewer = kit_identity(kit, "eve", AT_GROUP_VIEWERS);
    static const char KNOWN[] = "{\"spec\":{\"token\":\"" KIT_ADMIN_TOKEN "\"}}";
    assert_int_equal(kit_status(kit, viewer, AT_HTTP_POST, REVIEWS, NULL, KNOWN), 403);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, REVIEWS, NULL, KNOWN), 201);
    assert_true(at_json_bool_at(a.json, "status.authenticated", false));
    assert_string_equal(answer_str(&a, "status.user.username"), "admin");
    assert_null(strstr(a.body.data, KIT_ADMIN_TOKEN));
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_POST, REVIEWS, NULL, "{\"spec\":{\"token\":\"other\"}}"), 201);
    assert_false(at_json_bool_at(a.json, "status.authenticated", true));
    answer_done(&a);
    at_tls_config_unref(viewer);
}

/* --- logs through the tunnel --- */

static void a_log_comes_through_the_agents_tunnel(void **state)
{
    struct kit *kit = *state;
    struct kit_answer tunnel;
    struct kit_answer log;
    struct at_tls_config *agent = agent_new(kit, "n1");
    static const char LOG[] = IN_DEFAULT "/instances/mine/log?tailLines=5&follow=true";
    make_instance(kit, "mine", "n1", "s1");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, LOG, NULL, NULL), 503); /* no tunnel yet */
    kit_start(kit, &tunnel, agent, AT_HTTP_GET, ATOLL "/nodes/n1/tunnel", NULL, NULL);
    KIT_UNTIL(kit, tunnel.status == 200);
    kit_start(kit, &log, NULL, AT_HTTP_GET, LOG, NULL, NULL);
    KIT_UNTIL(kit, tunnel.body.len > 0);
    json_t *line = NULL;
    assert_int_equal(at_json_parse(tunnel.body.data, tunnel.body.len, &line, NULL), AT_OK);
    assert_string_equal(at_json_str_at(line, "op", ""), "log");
    assert_string_equal(at_json_str_at(line, "name", ""), "mine");
    assert_int_equal(at_json_int_at(line, "tailLines", 0), 5);
    assert_true(at_json_bool_at(line, "follow", false));
    char path[256];
    snprintf(path, sizeof path, ATOLL "/nodes/n1/tunnel/%s", at_json_str_at(line, "id", ""));
    json_decref(line);
    char more[300];
    snprintf(more, sizeof more, "%s?more=1", path);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, more, NULL, "one\n"), 200);
    KIT_UNTIL(kit, log.body.len == 4);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, path, NULL, "two\n"), 200);
    KIT_UNTIL(kit, log.done);
    assert_int_equal(log.rc, AT_OK);
    assert_string_equal(log.body.data, "one\ntwo\n");
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, path, NULL, "late"), 404);
    answer_done(&log);
    at_http_call_cancel(kit->client, tunnel.call);
    answer_done(&tunnel);
    at_tls_config_unref(agent);
}

static void an_agents_error_and_its_loss_reach_the_reader(void **state)
{
    struct kit *kit = *state;
    struct kit_answer tunnel;
    struct kit_answer log;
    struct at_tls_config *agent = agent_new(kit, "n1");
    static const char LOG[] = IN_DEFAULT "/instances/mine/log";
    make_instance(kit, "mine", "n1", "s1");
    kit_start(kit, &tunnel, agent, AT_HTTP_GET, ATOLL "/nodes/n1/tunnel", NULL, NULL);
    KIT_UNTIL(kit, tunnel.status == 200);
    kit_start(kit, &log, NULL, AT_HTTP_GET, LOG, NULL, NULL);
    KIT_UNTIL(kit, tunnel.body.len > 0);
    json_t *line = NULL;
    assert_int_equal(at_json_parse(tunnel.body.data, tunnel.body.len, &line, NULL), AT_OK);
    char path[256];
    snprintf(path, sizeof path, ATOLL "/nodes/n1/tunnel/%s?error=no%%20such%%20file",
             at_json_str_at(line, "id", ""));
    json_decref(line);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_POST, path, NULL, NULL), 200);
    KIT_UNTIL(kit, log.done);
    assert_int_equal(log.status, 502);
    assert_non_null(strstr(log.body.data, "no such file"));
    answer_done(&log);
    size_t before = tunnel.body.len;
    kit_start(kit, &log, NULL, AT_HTTP_GET, LOG, NULL, NULL);
    KIT_UNTIL(kit, tunnel.body.len > before);
    at_http_call_cancel(kit->client, tunnel.call);
    KIT_UNTIL(kit, log.done);
    assert_int_equal(log.status, 503);
    answer_done(&log);
    answer_done(&tunnel);
    at_tls_config_unref(agent);
}

static void a_reader_that_leaves_is_cancelled_at_the_agent(void **state)
{
    struct kit *kit = *state;
    struct kit_answer tunnel;
    struct kit_answer log;
    struct at_tls_config *agent = agent_new(kit, "n1");
    make_instance(kit, "mine", "n1", "s1");
    kit_start(kit, &tunnel, agent, AT_HTTP_GET, ATOLL "/nodes/n1/tunnel", NULL, NULL);
    KIT_UNTIL(kit, tunnel.status == 200);
    kit_start(kit, &log, NULL, AT_HTTP_GET, IN_DEFAULT "/instances/mine/log", NULL, NULL);
    KIT_UNTIL(kit, tunnel.body.len > 0);
    at_http_call_cancel(kit->client, log.call);
    KIT_UNTIL(kit, strstr(tunnel.body.data, "\"op\":\"cancel\"") != NULL);
    answer_done(&log);
    at_http_call_cancel(kit->client, tunnel.call);
    answer_done(&tunnel);
    at_tls_config_unref(agent);
}

static void changes_are_audited_and_reads_are_not(void **state)
{
    struct kit *kit = *state;
    kit_make_site(kit, "edge");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    json_t *line = NULL;
    assert_int_equal(at_json_parse(kit->audit.data, kit->audit.len, &line, NULL), AT_OK);
    assert_string_equal(at_json_str_at(line, "user", ""), "admin");
    assert_string_equal(at_json_str_at(line, "verb", ""), "create");
    assert_string_equal(at_json_str_at(line, "path", ""), ATOLL "/sites");
    assert_string_equal(at_json_str_at(line, "name", ""), "edge");
    assert_int_equal(at_json_int_at(line, "code", 0), 201);
    json_decref(line);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        T(strangers_see_health_and_nothing_else),
        T(who_may_acts_as_another),
        T(acting_as_another_needs_the_right_and_a_name),
        T(a_viewer_reads_but_does_not_write),
        T(reviews_say_what_one_may),
        T(a_token_buys_one_certificate),
        T(two_joins_at_once_with_one_token_give_one_certificate),
        T(forged_and_expired_tokens_are_told_apart),
        T(only_admins_make_tokens_and_only_holders_renew),
        T(an_agent_sees_and_changes_its_own_only),
        T(a_refusal_costs_the_same_whether_there_is_something_or_not),
        T(an_agent_is_refused_at_the_same_cost_whether_there_is_something_or_not),
        T(a_token_of_another_site_cannot_take_a_node),
        T(a_token_review_tells_whose_a_token_is),
        T(a_log_comes_through_the_agents_tunnel),
        T(an_agents_error_and_its_loss_reach_the_reader),
        T(a_reader_that_leaves_is_cancelled_at_the_agent),
        T(changes_are_audited_and_reads_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
