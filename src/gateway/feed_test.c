/* Routes by watching: a scripted API server on loopback, two replicas behind the gateway. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/feed_priv.h"
#include "gateway/gateway_priv.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define WAIT_NS ((int64_t)20000000000)

#define TURN_UNTIL(loop, cond)                                                                     \
    do {                                                                                           \
        int64_t end_ = at_sys_mono_ns(at_sys_real()) + WAIT_NS;                                    \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(at_sys_real()) < end_);                                     \
            at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 20000000);                          \
        }                                                                                          \
    } while (0)

enum { INSTANCES, SITES, NODES, DEPLOYMENTS, POLICIES, KINDS };

struct fixture {
    struct at_loop *loop;
    struct at_http_server *api, *back;
    struct at_gateway *gateway;
    char *dir;
    const char *lists[KINDS];
    struct at_http_exchange *watches[KINDS];
    int revision;
};

static void on_watch_gone(void *ctx)
{
    *(struct at_http_exchange **)ctx = NULL;
}

static void api_handle(void *ctx, struct at_http_exchange *ex)
{
    static const char *const PLURALS[] = {"instances", "sites", "nodes", "deployments", "policies"};
    static const char *const NAMES[] = {"Instance", "Site", "Node", "Deployment", "Policy"};
    struct fixture *f = ctx;
    const struct at_http_head *head = at_http_request(ex);
    char watch[8] = "";
    (void)!at_query_get(head->query, "watch", watch, sizeof watch);
    for (size_t k = 0; k < KINDS; k++) {
        char path[64];
        snprintf(path, sizeof path, "/apis/atoll.dev/v1/%s", PLURALS[k]);
        if (!at_str_eq(head->path, path)) {
            continue;
        }
        if (watch[0] != '\0') {
            f->watches[k] = ex;
            at_http_on_gone(ex, on_watch_gone, &f->watches[k]);
            at_http_stream_begin(ex, 200, "application/json", NULL);
            return;
        }
        char *text =
            at_asprintf("{\"kind\":\"%sList\",\"apiVersion\":\"atoll.dev/v1\",\"metadata\":"
                        "{\"resourceVersion\":\"1\"},\"items\":[%s]}",
                        NAMES[k], f->lists[k]);
        at_http_respond(ex, 200, "application/json", NULL, text, strlen(text));
        at_free(text);
        return;
    }
    at_http_respond(ex, 404, "application/json", NULL, "{}", 2);
}

static void back_handle(void *ctx, struct at_http_exchange *ex)
{
    (void)ctx;
    at_http_respond(ex, 200, NULL, NULL, "back", 4);
}

#define INSTANCE(name, model, node, site, extra)                                                   \
    "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Instance\",\"metadata\":{\"namespace\":"          \
    "\"default\",\"name\":\"" name "\",\"uid\":\"u-" name "\",\"resourceVersion\":\"%d\","         \
    "\"labels\":{\"atoll.dev/deployment\":\"" model "\"}},\"spec\":{\"nodeName\":\"" node          \
    "\"},\"status\":{\"site\":\"" site "\"" extra "}}"

/* One watch event; the object's %d becomes a revision. */
static void tell(struct fixture *f, size_t kind, const char *type, const char *object)
{
    const char *mark = strstr(object, "%d");
    assert_non_null(mark);
    char *line = at_asprintf("{\"type\":\"%s\",\"object\":%.*s%d%s}\n", type, (int)(mark - object),
                             object, 10 + f->revision++, mark + 2);
    TURN_UNTIL(f->loop, f->watches[kind] != NULL);
    assert_int_equal(at_http_stream_write(f->watches[kind], line, strlen(line)), AT_OK);
    at_free(line);
}

static struct gw_model *model(struct fixture *f, const char *name)
{
    return at_map_get(f->gateway->workers[0].models, name);
}

static size_t replicas(struct fixture *f, const char *name)
{
    struct gw_model *m = model(f, name);
    return m != NULL ? m->n_replicas : SIZE_MAX;
}

static void start(struct fixture *f)
{
    char dir[] = "/tmp/at-gateway-feed-XXXXXX";
    struct at_err err = {0};
    static const char ROUTES[] = "{\"models\": {}}";
    *f = (struct fixture){.loop = at_loop_new(at_sys_real()), .lists = {"", "", "", "", ""}};
    assert_non_null(mkdtemp(dir));
    f->dir = at_strdup(dir);
    struct at_http_server_options api = {.listen = "127.0.0.1:0", .handler = api_handle, .ctx = f};
    assert_int_equal(at_http_server_new(f->loop, &api, &f->api, NULL), AT_OK);
    struct at_http_server_options back = {.listen = "127.0.0.1:0", .handler = back_handle};
    assert_int_equal(at_http_server_new(f->loop, &back, &f->back, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_free) char *file = at_asprintf("%s/routes.json", dir);
    assert_int_equal(at_file_write_atomic(file, ROUTES, sizeof ROUTES - 1, 0600, &err), AT_OK);
    struct at_gateway_options o = {
        .loop = f->loop, .listen = "127.0.0.1:0", .static_routes = file, .site = "edge"};
    assert_int_equal(at_gateway_new(&o, &f->gateway, &err), AT_OK);
}

/* From here on it does what it does after it has joined. */
static void watch(struct fixture *f)
{
    AT_CLEANUP(at_cleanup_free) char *url = at_asprintf("http://%s", at_http_server_addr(f->api));
    struct at_client_options o = {.server = url};
    assert_int_equal(at_client_new(f->loop, &o, &f->gateway->client, NULL), AT_OK);
    gw_feed_start(f->gateway);
}

static void stop(struct fixture *f)
{
    struct at_client *client = f->gateway->client; /* watch's, not the joining's */
    at_gateway_free(f->gateway);
    at_client_free(client);
    at_http_server_free(f->api);
    at_http_server_free(f->back);
    at_loop_free(f->loop);
    assert_int_equal(at_tree_remove(f->dir, NULL), AT_OK);
    at_free(f->dir);
}

#define READY(addr) ",\"ready\":true,\"endpoint\":\"" addr "\""

static void follows_instances(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.lists[INSTANCES] = "{\"metadata\":{\"namespace\":\"default\",\"name\":\"m-1\",\"uid\":\"u1\","
                         "\"resourceVersion\":\"1\"},\"spec\":{\"model\":{\"name\":\"m\"}},"
                         "\"status\":{\"ready\":true,\"endpoint\":\"127.0.0.1:1\"}},"
                         "{\"metadata\":{\"namespace\":\"default\",\"name\":\"job\",\"uid\":\"u2\","
                         "\"resourceVersion\":\"1\"},\"spec\":{},"
                         "\"status\":{\"ready\":true,\"endpoint\":\"127.0.0.1:1\"}}";
    watch(&f);
    TURN_UNTIL(f.loop, replicas(&f, "m") == 1);
    assert_int_equal(at_map_count(f.gateway->workers[0].models), 1);
    tell(&f, INSTANCES, "ADDED", INSTANCE("d-1", "d", "n1", "edge", ""));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 0); /* known, but not ready */
    tell(&f, INSTANCES, "MODIFIED", INSTANCE("d-1", "d", "n1", "edge", READY("127.0.0.1:2")));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    tell(&f, INSTANCES, "ADDED", INSTANCE("d-2", "d", "n2", "far", READY("127.0.0.1:3")));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 2);
    tell(&f, INSTANCES, "MODIFIED",
         INSTANCE("d-2", "d", "n2", "far", ",\"ready\":false,\"endpoint\":\"127.0.0.1:3\""));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    tell(&f, INSTANCES, "DELETED", INSTANCE("d-1", "d", "n1", "edge", ""));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 0);
    tell(&f, INSTANCES, "DELETED", INSTANCE("d-2", "d", "n2", "far", ""));
    TURN_UNTIL(f.loop, model(&f, "d") == NULL);
    assert_int_equal(replicas(&f, "m"), 1);
    stop(&f);
}

/* An agent may not point gateways at whatever socket there is on their machines. */
static void takes_a_local_socket_only_where_agents_make_them(void **state)
{
    (void)state;
    static const struct {
        const char *path, *addr;
    } CASES[] = {
        {"%s/u-d-1/runner.sock", NULL},          /* as it should be: taken */
        {"%s/u-d-2/runner.sock", "127.0.0.1:2"}, /* another instance's */
        {"%s/u-d-1/other.sock", "127.0.0.1:2"},  /* no name of ours */
        {"%s/u-d-1/../u-d-1/runner.sock", "127.0.0.1:2"},
        {"%s/gone/u-d-1/runner.sock", "127.0.0.1:2"}, /* on another machine */
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct fixture f;
        struct at_err err;
        start(&f);
        char path[256], object[1024];
        for (int n = 1; n <= 2; n++) {
            snprintf(path, sizeof path, "%s/u-d-%d", f.dir, n);
            assert_int_equal(at_dir_make(path, 0700, &err), AT_OK);
            snprintf(path, sizeof path, "%s/u-d-%d/runner.sock", f.dir, n);
            assert_int_equal(at_file_write_atomic(path, "", 0, 0600, &err), AT_OK);
        }
        snprintf(path, sizeof path, "%s/u-d-1/other.sock", f.dir);
        assert_int_equal(at_file_write_atomic(path, "", 0, 0600, &err), AT_OK);
        snprintf(path, sizeof path, CASES[i].path, f.dir);
        snprintf(object, sizeof object,
                 "{\"metadata\":{\"namespace\":\"default\",\"name\":\"d-1\",\"uid\":\"u-d-1\","
                 "\"resourceVersion\":\"1\"},\"spec\":{\"model\":{\"name\":\"d\"}},\"status\":"
                 "{\"ready\":true,\"endpoint\":\"127.0.0.1:2\",\"localEndpoint\":\"unix:%s\"}}",
                 path);
        f.lists[INSTANCES] = object;
        watch(&f);
        TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
        const char *addr = model(&f, "d")->replicas[0]->addr;
        assert_string_equal(CASES[i].addr != NULL ? CASES[i].addr : path,
                            CASES[i].addr != NULL ? addr : addr + strlen("unix:"));
        stop(&f);
    }
}

/* What is on another machine is reached by TLS through its agent, by that node's name, or not at
 * all. */
static void reaches_other_machines_through_their_agents_only(void **state)
{
    (void)state;
#define RELAY "\"tlsEndpoint\":\"10.0.0.2:7\""
#define OTHER "\"loopback\":\"0123\""
    static const char PEER[] = "u-d-1 system:node:n1";
    static const struct {
        const char *status, *addr, *peer; /* addr NULL: it gets nothing */
    } CASES[] = {
        {"\"endpoint\":\"127.0.0.1:2\"," RELAY "," OTHER, "10.0.0.2:7", PEER},
        {"\"endpoint\":\"127.0.0.1:2\"," RELAY ",\"loopback\":\"%s\"", "127.0.0.1:2", NULL},
        {"\"endpoint\":\"10.0.0.2:2\"," RELAY ",\"loopback\":\"%s\"", "10.0.0.2:7", PEER},
        {"\"endpoint\":\"127.0.0.1:2\"," RELAY, "10.0.0.2:7", PEER},
        {"\"endpoint\":\"127.0.0.1:2\"", "127.0.0.1:2", NULL}, /* of an agent before TLS */
        {"\"endpoint\":\"127.0.0.1:2\"," OTHER, NULL, NULL},
        {"\"endpoint\":\"10.0.0.2:2\"", NULL, NULL},
        {"\"endpoint\":\"10.0.0.2:2\",\"loopback\":\"%s\"", NULL, NULL},
        {"\"endpoint\":\"127.example.org:2\"", NULL, NULL},
        {"\"endpoint\":\"unix:/run/other.sock\"", NULL, NULL},
        {"\"endpoint\":\"unix:/run/other.sock\",\"loopback\":\"%s\"", NULL, NULL},
    };
    struct fixture f;
    start(&f);
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        char status[512], object[1024];
        snprintf(status, sizeof status, CASES[i].status, f.gateway->loopback);
        snprintf(object, sizeof object,
                 "{\"metadata\":{\"namespace\":\"default\",\"name\":\"d-1\",\"uid\":\"u-d-1\"},"
                 "\"spec\":{\"nodeName\":\"n1\",\"model\":{\"name\":\"d\"}},\"status\":"
                 "{\"ready\":true,%s}}",
                 status);
        AT_CLEANUP(at_cleanup_json) json_t *instance = NULL;
        assert_int_equal(at_json_parse(object, strlen(object), &instance, NULL), AT_OK);
        struct gw_fact *fact = gw_fact_of(instance, f.gateway->loopback);
        assert_string_equal(fact->addr, CASES[i].addr != NULL ? CASES[i].addr : "");
        assert_int_equal(fact->serving, CASES[i].addr != NULL);
        assert_int_equal(fact->unsafe, CASES[i].addr == NULL);
        assert_true(at_streq(fact->peer, CASES[i].peer));
        gw_fact_free(fact);
    }
    stop(&f);
}

static void takes_a_lost_node_and_distances_into_account(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.lists[SITES] = "{\"metadata\":{\"name\":\"edge\",\"uid\":\"s1\",\"resourceVersion\":\"1\"},"
                     "\"spec\":{\"links\":[{\"site\":\"far\",\"latency\":\"20ms\"}]}}";
    watch(&f);
    tell(&f, INSTANCES, "ADDED", INSTANCE("d-1", "d", "n1", "edge", READY("127.0.0.1:2")));
    tell(&f, INSTANCES, "ADDED", INSTANCE("d-2", "d", "n2", "far", READY("127.0.0.1:3")));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 2);
    int64_t sum = model(&f, "d")->replicas[0]->latency_ns + model(&f, "d")->replicas[1]->latency_ns;
    assert_int_equal(sum, 20000000);
    static const char NODE[] =
        "{\"metadata\":{\"name\":\"n2\",\"uid\":\"n2\",\"resourceVersion\":\"%%d\"},\"status\":"
        "{\"conditions\":[{\"type\":\"Ready\",\"status\":\"%s\"}]}}";
    char node[512];
    snprintf(node, sizeof node, NODE, "False");
    tell(&f, NODES, "ADDED", node);
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    assert_string_equal(model(&f, "d")->replicas[0]->instance, "d-1");
    snprintf(node, sizeof node, NODE, "True");
    tell(&f, NODES, "MODIFIED", node);
    TURN_UNTIL(f.loop, replicas(&f, "d") == 2);
    stop(&f);
}

#define DEPLOYMENT(ns, name, created, spec)                                                        \
    "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{\"namespace\":\"" ns   \
    "\",\"name\":\"" name "\",\"uid\":\"u-" ns name "\",\"resourceVersion\":\"%d\","               \
    "\"creationTimestamp\":\"2026-01-0" created "T00:00:00Z\"},\"spec\":{" spec "}}"

#define SERVING(ns, name, deployment, model, site)                                                 \
    "{\"metadata\":{\"namespace\":\"" ns "\",\"name\":\"" name "\",\"uid\":\"u-" ns name           \
    "\",\"resourceVersion\":\"%d\",\"creationTimestamp\":\"2026-01-09T00:00:00Z\",\"labels\":"     \
    "{\"atoll.dev/deployment\":\"" deployment "\"}},\"spec\":{\"model\":{" model                   \
    "\"uri\":\"file:m\"},\"dataClass\":\"private\"},\"status\":{\"site\":\"" site                  \
    "\",\"ready\":true,"                                                                           \
    "\"endpoint\":\"127.0.0.1:1\"}}"

static void deployments_say_how_requests_are_shared(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    watch(&f);
    tell(&f, DEPLOYMENTS, "ADDED",
         DEPLOYMENT("default", "old", "1",
                    "\"traffic\":{\"model\":\"chat\"},\"template\":{\"spec\":{}}"));
    TURN_UNTIL(f.loop, replicas(&f, "chat") == 0); /* known before anything serves */
    tell(&f, DEPLOYMENTS, "ADDED",
         DEPLOYMENT("default", "new", "2",
                    "\"traffic\":{\"model\":\"chat\",\"version\":\"2\",\"weight\":10,"
                    "\"session\":{\"cookie\":\"sid\"}},\"limits\":{\"requestsPerReplica\":3},"
                    "\"template\":{\"spec\":{}}"));
    tell(&f, DEPLOYMENTS, "ADDED",
         DEPLOYMENT("default", "copy", "3",
                    "\"traffic\":{\"model\":\"chat\",\"shadow\":50},\"template\":{\"spec\":{}}"));
    tell(&f, INSTANCES, "ADDED", SERVING("default", "old-1", "old", "\"name\":\"llama\",", "edge"));
    tell(&f, INSTANCES, "ADDED", SERVING("default", "new-1", "new", "", "edge"));
    tell(&f, INSTANCES, "ADDED", SERVING("default", "copy-1", "copy", "", "edge"));
    TURN_UNTIL(f.loop, replicas(&f, "chat") == 2 && model(&f, "chat")->n_all == 3);
    struct gw_model *m = model(&f, "chat");
    assert_int_equal(m->n_shares, 3);
    assert_int_equal(m->shares[0].weight, 10);
    assert_int_equal(m->shares[1].weight, 90); /* what is left */
    assert_int_equal(m->shares[2].weight, 0);
    assert_ptr_equal(m->pool_rest, &m->shares[1]);
    assert_string_equal(m->session_cookie, "sid");
    assert_string_equal(m->replicas[0]->instance, "new-1");
    assert_string_equal(m->replicas[0]->version, "2");
    assert_string_equal(m->replicas[0]->served_as, "new");
    assert_int_equal(m->replicas[0]->requests_max, 3);
    assert_non_null(m->replicas[0]->gauge);
    assert_string_equal(m->replicas[1]->served_as, "llama");
    assert_string_equal(m->replicas[1]->version, "1");
    assert_string_equal(m->replicas[2]->instance, "copy-1");
    assert_null(model(&f, "llama"));
    stop(&f);
}

static void the_oldest_has_the_plain_name(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    watch(&f);
    struct gw_worker *w = &f.gateway->workers[0];
#define FIND(name) gw_model_find(w, name, strlen(name))
    tell(&f, DEPLOYMENTS, "ADDED", DEPLOYMENT("b", "chat", "2", "\"template\":{\"spec\":{}}"));
    tell(&f, INSTANCES, "ADDED", SERVING("b", "b-1", "chat", "", "edge"));
    TURN_UNTIL(f.loop, FIND("chat") != NULL && FIND("chat")->n_replicas == 1);
    assert_ptr_equal(FIND("b/chat"), FIND("chat"));
    struct gw_replica *replica = FIND("chat")->replicas[0];
    tell(&f, DEPLOYMENTS, "ADDED", DEPLOYMENT("a", "chat", "1", "\"template\":{\"spec\":{}}"));
    TURN_UNTIL(f.loop, FIND("a/chat") != NULL);
    assert_ptr_equal(FIND("a/chat"), FIND("chat")); /* it is older, whenever we learn of it */
    assert_ptr_not_equal(FIND("b/chat"), FIND("chat"));
    assert_string_equal(FIND("b/chat")->name, "b/chat");
    assert_ptr_equal(FIND("b/chat")->replicas[0], replica); /* what is known of it stays */
    /* Nobody takes another's qualified name, however old. */
    tell(&f, DEPLOYMENTS, "ADDED",
         DEPLOYMENT("c", "evil", "1",
                    "\"traffic\":{\"model\":\"b/chat\"},\"template\":{\"spec\":{}}"));
    TURN_UNTIL(f.loop, FIND("c/b/chat") != NULL);
    assert_ptr_equal(FIND("b/chat")->replicas[0], replica);
    tell(&f, DEPLOYMENTS, "DELETED", DEPLOYMENT("a", "chat", "1", "\"template\":{\"spec\":{}}"));
    TURN_UNTIL(f.loop, FIND("a/chat") == NULL);
    assert_ptr_equal(FIND("chat"), FIND("b/chat"));
    assert_ptr_equal(FIND("chat")->replicas[0], replica);
    stop(&f);
}

static void residency_keeps_replicas_out_of_the_routes(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.lists[SITES] = "{\"metadata\":{\"name\":\"berlin\",\"uid\":\"s1\",\"resourceVersion\":\"1\"},"
                     "\"spec\":{\"jurisdiction\":\"EU\"}},"
                     "{\"metadata\":{\"name\":\"ohio\",\"uid\":\"s2\",\"resourceVersion\":\"1\"},"
                     "\"spec\":{\"jurisdiction\":\"US\"}}";
    watch(&f);
    tell(&f, INSTANCES, "ADDED", SERVING("default", "d-1", "d", "", "berlin"));
    tell(&f, INSTANCES, "ADDED", SERVING("default", "d-2", "d", "", "ohio"));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 2);
    tell(&f, POLICIES, "ADDED",
         "{\"metadata\":{\"name\":\"p\",\"uid\":\"p\",\"resourceVersion\":\"%d\"},\"spec\":{"
         "\"residency\":[{\"dataClass\":\"private\",\"jurisdictions\":[\"CH\",\"EU\"]}]}}");
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    assert_string_equal(model(&f, "d")->replicas[0]->instance, "d-1");
    assert_string_equal(model(&f, "d")->replicas[0]->jurisdiction, "EU");
    stop(&f);
}

struct answers {
    size_t asked, done, failed;
};

static void on_answer_head(void *ctx, const struct at_http_head *head)
{
    ((struct answers *)ctx)->failed += head->status != 200;
}

static void on_answer(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct answers *a = ctx;
    (void)sent, (void)err;
    a->done++;
    a->failed += rc != AT_OK;
}

/* One replica stays, another comes and goes, weights move: a change for every few requests. */
static void routes_that_change_all_the_time_fail_no_request(void **state)
{
    (void)state;
    struct fixture f;
    struct answers a = {0};
    char steady[1024], comes[1024];
    start(&f);
    watch(&f);
    const char *back = at_http_server_addr(f.back);
    static const char OBJECT[] =
        "{\"metadata\":{\"namespace\":\"default\",\"name\":\"%s\",\"uid\":\"u-%s\","
        "\"resourceVersion\":\"%%d\",\"labels\":{\"atoll.dev/deployment\":\"d\"}},\"spec\":{},"
        "\"status\":{\"site\":\"edge\",\"ready\":true,\"endpoint\":\"%s\"}}";
    snprintf(steady, sizeof steady, OBJECT, "d-1", "d-1", back);
    snprintf(comes, sizeof comes, OBJECT, "d-2", "d-2", back);
    tell(&f, INSTANCES, "ADDED", steady);
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    struct at_http_client *client = at_http_client_new(f.loop, NULL);
    const char *url = at_gateway_url(f.gateway);
    size_t tables = 0;
    const struct gw_table *last = NULL;
    for (int i = 0; i < 200; i++) {
        struct at_http_call c = {.addr = url + strlen("http://"),
                                 .method = AT_HTTP_POST,
                                 .target = "/v2/models/d/infer",
                                 .body = "x",
                                 .body_len = 1,
                                 .ctx = &a,
                                 .on_head = on_answer_head,
                                 .on_done = on_answer};
        for (int n = 0; n < 5; n++, a.asked++) {
            at_http_call(client, &c);
        }
        tell(&f, INSTANCES, i % 2 == 0 ? "ADDED" : "DELETED", comes);
        tell(&f, DEPLOYMENTS, i == 0 ? "ADDED" : "MODIFIED",
             i % 3 == 0 ? DEPLOYMENT("default", "d", "1", "\"traffic\":{\"weight\":5}")
                        : DEPLOYMENT("default", "d", "1", "\"traffic\":{\"affinity\":\"None\"}"));
        at_loop_turn(f.loop, at_sys_mono_ns(at_sys_real()) + 3000000);
        tables += f.gateway->workers[0].table != last;
        last = f.gateway->workers[0].table;
    }
    TURN_UNTIL(f.loop, a.done == a.asked);
    assert_int_equal(a.failed, 0);
    assert_true(tables > 20);
    at_http_client_free(client);
    stop(&f);
}

static void keeps_the_last_routes_when_the_control_plane_is_gone(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    watch(&f);
    tell(&f, INSTANCES, "ADDED", INSTANCE("d-1", "d", "n1", "edge", READY("127.0.0.1:2")));
    TURN_UNTIL(f.loop, replicas(&f, "d") == 1);
    assert_int_equal(at_metric_value(f.gateway->metrics.connected), 1);
    at_http_server_free(f.api);
    f.api = NULL;
    TURN_UNTIL(f.loop, at_metric_value(f.gateway->metrics.connected) == 0);
    assert_int_equal(replicas(&f, "d"), 1);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_instances),
        cmocka_unit_test(takes_a_local_socket_only_where_agents_make_them),
        cmocka_unit_test(reaches_other_machines_through_their_agents_only),
        cmocka_unit_test(takes_a_lost_node_and_distances_into_account),
        cmocka_unit_test(deployments_say_how_requests_are_shared),
        cmocka_unit_test(the_oldest_has_the_plain_name),
        cmocka_unit_test(residency_keeps_replicas_out_of_the_routes),
        cmocka_unit_test(routes_that_change_all_the_time_fail_no_request),
        cmocka_unit_test(keeps_the_last_routes_when_the_control_plane_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
