#include "client/client.h"
#include "core/mem.h"
#include "net/http_server.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_NS (20 * AT_NS_PER_S)

/* Turn the loop until cond holds; fails the test when it does not in time. */
#define TURN_UNTIL(k, cond)                                                                        \
    do {                                                                                           \
        const struct at_sys *sys_ = at_sys_real();                                                 \
        int64_t end_ = at_sys_mono_ns(sys_) + WAIT_NS;                                             \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(sys_) < end_);                                              \
            at_loop_turn((k)->loop, at_sys_mono_ns(sys_) + 50 * AT_NS_PER_MS);                     \
        }                                                                                          \
    } while (0)

/* A server that answers from a script: the nth request is answered by the nth step (the last one
 * again and again), and what was asked is kept. */
struct step {
    int status;
    const char *body;          /* whole answer, or */
    const char *const *pieces; /* pieces of a stream, sent one by one */
    bool keep_open;            /* do not end the stream */
};

#define ASKED_MAX 64

struct kit {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_client *client;
    const struct step *steps;
    size_t n_steps, asked;
    char targets[ASKED_MAX][512];
    char bodies[ASKED_MAX][512];
    char auth[64], type[64], accept[64];
    struct at_http_exchange *open;
    const char *const *rest; /* pieces still to be sent */
    bool rest_keep_open;
    at_timer_id piece_timer;
};

static void copy_str(char *out, size_t size, struct at_str s)
{
    snprintf(out, size, "%.*s", (int)s.len, s.ptr != NULL ? s.ptr : "");
}

static void on_gone(void *ctx)
{
    struct kit *k = ctx;
    at_loop_timer_cancel(k->loop, k->piece_timer);
    k->open = NULL;
}

static void send_piece(void *ctx)
{
    struct kit *k = ctx;
    if (k->open == NULL) {
        return;
    }
    if (*k->rest != NULL) {
        assert_int_equal(at_http_stream_write(k->open, *k->rest, strlen(*k->rest)), AT_OK);
        k->rest++;
        k->piece_timer = at_loop_timer(k->loop, AT_NS_PER_MS, send_piece, k);
    } else if (!k->rest_keep_open) {
        struct at_http_exchange *ex = k->open;
        k->open = NULL;
        at_http_stream_end(ex);
    }
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct kit *k = ctx;
    const struct at_http_head *head = at_http_request(ex);
    size_t at = k->asked < k->n_steps ? k->asked : k->n_steps - 1;
    const struct step *step = &k->steps[at];
    assert_true(k->asked < ASKED_MAX);
    copy_str(k->targets[k->asked], sizeof k->targets[0], head->target);
    copy_str(k->bodies[k->asked], sizeof k->bodies[0], at_http_request_body(ex));
    copy_str(k->auth, sizeof k->auth, at_http_header_get(head, "authorization"));
    copy_str(k->type, sizeof k->type, at_http_header_get(head, "content-type"));
    copy_str(k->accept, sizeof k->accept, at_http_header_get(head, "accept"));
    k->asked++;
    if (step->pieces == NULL) {
        const char *body = step->body != NULL ? step->body : "";
        at_http_respond(ex, step->status, "application/json", NULL, body, strlen(body));
        return;
    }
    k->open = ex;
    k->rest = step->pieces;
    k->rest_keep_open = step->keep_open;
    at_http_stream_begin(ex, step->status, "application/json", NULL);
    at_http_on_gone(ex, on_gone, k);
    send_piece(k);
}

static int setup(void **state)
{
    struct kit *k = AT_NEW(struct kit);
    k->loop = at_loop_new(at_sys_real());
    struct at_http_server_options server = {
        .listen = "127.0.0.1:0",
        .body_bytes_max = 1 << 20,
        .connections_max = 16,
        .idle_timeout_ns = WAIT_NS,
        .head_timeout_ns = WAIT_NS,
        .handler = handle,
        .ctx = k,
    };
    assert_int_equal(at_http_server_new(k->loop, &server, &k->server, NULL), AT_OK);
    char url[128];
    snprintf(url, sizeof url, "http://%s", at_http_server_addr(k->server));
    struct at_client_options options = {.server = url, .token = "secret"};
    assert_int_equal(at_client_new(k->loop, &options, &k->client, NULL), AT_OK);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kit *k = *state;
    at_client_free(k->client);
    at_loop_timer_cancel(k->loop, k->piece_timer);
    at_http_server_free(k->server);
    at_loop_free(k->loop);
    at_free(k);
    return 0;
}

static void script(struct kit *k, const struct step *steps, size_t n)
{
    k->steps = steps;
    k->n_steps = n;
}

static const struct at_model_kind *node_kind(void)
{
    const struct at_model_kind *kind = at_model_kind_by_any_name("node");
    assert_non_null(kind);
    return kind;
}

static void get_gives_the_object_and_sends_the_token(void **state)
{
    struct kit *k = *state;
    static const struct step STEPS[] = {
        {200, "{\"kind\":\"Node\",\"metadata\":{\"name\":\"n1\"}}"}};
    script(k, STEPS, 1);
    struct at_client_result result = {0};
    at_client_get(k->client, node_kind(), NULL, "n1", at_client_result_done, &result);
    assert_false(result.done);
    assert_int_equal(at_client_wait(k->client, &result), AT_OK);
    assert_string_equal(at_json_str_at(result.body, "metadata.name", ""), "n1");
    assert_string_equal(k->targets[0], "/apis/atoll.dev/v1/nodes/n1");
    assert_string_equal(k->auth, "Bearer secret");
    assert_string_equal(k->accept, "application/json");
    assert_string_equal(k->type, "");
    at_client_result_clear(&result);
}

static void patch_sends_a_merge_patch(void **state)
{
    struct kit *k = *state;
    static const struct step STEPS[] = {{200, "{}"}};
    script(k, STEPS, 1);
    struct at_client_result result = {0};
    json_t *patch = json_pack("{s{si}}", "status", "x", 1);
    at_client_patch(k->client, node_kind(), NULL, "n1", "status", patch, at_client_result_done,
                    &result);
    json_decref(patch);
    assert_int_equal(at_client_wait(k->client, &result), AT_OK);
    assert_string_equal(k->targets[0], "/apis/atoll.dev/v1/nodes/n1/status");
    assert_string_equal(k->bodies[0], "{\"status\":{\"x\":1}}");
    assert_string_equal(k->type, "application/merge-patch+json");
    at_client_result_clear(&result);
}

static void a_status_becomes_an_error_with_its_field(void **state)
{
    struct kit *k = *state;
    static const struct step STEPS[] = {
        {422, "{\"kind\":\"Status\",\"reason\":\"Invalid\",\"code\":422,\"message\":\"no\","
              "\"details\":{\"causes\":[{\"field\":\"spec.x\",\"message\":\"bad\"}]}}"},
        {409, "{\"kind\":\"Status\",\"reason\":\"AlreadyExists\",\"message\":\"there\"}"},
        {409, "{\"kind\":\"Status\",\"reason\":\"Conflict\",\"message\":\"changed\"}"},
        {410, "{\"kind\":\"Status\",\"reason\":\"Expired\",\"message\":\"old\"}"},
        {503, "<html>busy</html>"},
        {418, ""},
    };
    static const enum at_rc EXPECTED[] = {AT_INVALID,   AT_EXISTS,      AT_CONFLICT,
                                          AT_COMPACTED, AT_UNAVAILABLE, AT_BAD_REQUEST};
    script(k, STEPS, AT_ARRAY_LEN(STEPS));
    for (size_t i = 0; i < AT_ARRAY_LEN(STEPS); i++) {
        struct at_client_result result = {0};
        at_client_get(k->client, node_kind(), NULL, "n1", at_client_result_done, &result);
        assert_int_equal(at_client_wait(k->client, &result), EXPECTED[i]);
        assert_int_equal(result.status, STEPS[i].status);
        assert_true(result.err.msg[0] != '\0');
        assert_string_equal(result.err.field, i == 0 ? "spec.x" : "");
        at_client_result_clear(&result);
    }
}

static void fail_if_called(void *ctx, enum at_rc rc, int status, json_t *body,
                           const struct at_err *err)
{
    (void)ctx;
    (void)rc;
    (void)status;
    (void)body;
    (void)err;
    fail_msg("done was called for a cancelled call");
}

static void a_cancelled_call_says_nothing(void **state)
{
    struct kit *k = *state;
    static const struct step STEPS[] = {{200, "{}"}};
    script(k, STEPS, 1);
    at_client_call_id id = at_client_get(k->client, node_kind(), NULL, "n1", fail_if_called, NULL);
    at_client_call_id refused =
        at_client_request(k->client, AT_HTTP_GET, "", NULL, NULL, fail_if_called, NULL);
    at_client_cancel(k->client, id);
    at_client_cancel(k->client, refused);
    at_client_cancel(k->client, 999);
    struct at_client_result result = {0};
    at_client_get(k->client, node_kind(), NULL, "n2", at_client_result_done, &result);
    assert_int_equal(at_client_wait(k->client, &result), AT_OK);
    at_client_result_clear(&result);
}

static void paths_are_escaped_and_never_climb(void **state)
{
    (void)state;
    char path[512];
    const struct at_model_kind *instance = at_model_kind_by_any_name("instance");
    at_client_path(instance, "a b", "x/../y?", "log", path, sizeof path);
    assert_string_equal(path, "/apis/atoll.dev/v1/namespaces/a%20b/instances/x%2F..%2Fy%3F/log");
    at_client_path(instance, NULL, NULL, NULL, path, sizeof path);
    assert_string_equal(path, "/apis/atoll.dev/v1/instances");
    at_client_path(at_model_kind_by_any_name("secret"), "d", "s", NULL, path, sizeof path);
    assert_string_equal(path, "/api/v1/namespaces/d/secrets/s");
    at_client_path(instance, "d", "..", NULL, path, sizeof path);
    assert_string_equal(path, "");
    char small[32];
    at_client_path(instance, "default", "a-rather-long-name", NULL, small, sizeof small);
    assert_string_equal(small, "");
}

/* Everything that an informer told, as text: "+n1@5 -n2@7 sync". */
struct told {
    char text[1024];
    struct at_informer *informer; /* freed at free_at */
    const char *free_at;
    bool freed;
    unsigned lost;
};

static void told_add(struct told *told, const char *fmt, const char *a, const char *b)
{
    size_t used = strlen(told->text);
    snprintf(told->text + used, sizeof told->text - used, fmt, a, b);
}

static void on_object(void *ctx, json_t *object, bool deleted)
{
    struct told *told = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "?");
    assert_false(told->freed);
    told_add(told, deleted ? "-%s@%s " : "+%s@%s ", name,
             at_json_str_at(object, "metadata.resourceVersion", "?"));
    if (told->free_at != NULL && strcmp(told->free_at, name) == 0) {
        at_informer_free(told->informer);
        told->freed = true;
    }
}

static void on_synced(void *ctx)
{
    told_add(ctx, "sync%s%s ", "", "");
}

static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct told *told = ctx;
    (void)err;
    told->lost += connected ? 0 : 1;
}

static struct at_informer *inform(struct kit *k, struct told *told, const char *query)
{
    struct at_informer_events events = {.ctx = told,
                                        .on_object = on_object,
                                        .on_synced = on_synced,
                                        .on_connection = on_connection};
    told->informer = at_informer_new(k->client, node_kind(), NULL, query, &events);
    return told->informer;
}

#define OBJECT(name, uid, rv)                                                                      \
    "{\"metadata\":{\"name\":\"" name "\",\"uid\":\"" uid "\",\"resourceVersion\":\"" rv "\"}}"
#define EVENT(type, name, rv) "{\"type\":\"" type "\",\"object\":" OBJECT(name, name, rv) "}\n"
#define LIST(rv, token, items)                                                                     \
    "{\"kind\":\"NodeList\",\"metadata\":{\"resourceVersion\":\"" rv "\",\"continue\":\"" token    \
    "\"},\"items\":[" items "]}"

static void an_informer_lists_in_pages_and_watches_from_there(void **state)
{
    struct kit *k = *state;
    static const char *const PIECES[] = {
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"n3\",\"uid\":",
        "\"3\",\"resourceVersion\":\"11\"}}}\n" EVENT("MODIFIED", "n1", "12") "\n{\"type\":\"DEL",
        "ETED\",\"object\":" OBJECT("n2", "n2", "13") "}\r\n",
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"20\"}}}\n", NULL};
    static const char *const NOTHING[] = {NULL};
    static const struct step STEPS[] = {
        {200, LIST("10", "to/ken", OBJECT("n1", "n1", "5"))},
        {200, LIST("10", "", OBJECT("n2", "n2", "6"))},
        {200, NULL, PIECES, false},
        {200, NULL, NOTHING, true},
    };
    script(k, STEPS, AT_ARRAY_LEN(STEPS));
    struct told told = {0};
    struct at_informer *informer = inform(k, &told, "labelSelector=a");
    TURN_UNTIL(k, k->asked == 4);
    assert_string_equal(told.text, "+n1@5 +n2@6 sync +n3@11 +n1@12 -n2@13 ");
    assert_string_equal(k->targets[0], "/apis/atoll.dev/v1/nodes?limit=500&labelSelector=a");
    assert_string_equal(k->targets[1],
                        "/apis/atoll.dev/v1/nodes?limit=500&continue=to%2Fken&labelSelector=a");
    assert_non_null(strstr(k->targets[2], "resourceVersion=10&"));
    assert_non_null(strstr(k->targets[2], "watch=true&allowWatchBookmarks=true"));
    assert_non_null(strstr(k->targets[3], "resourceVersion=20&"));
    assert_int_equal(told.lost, 0);
    at_informer_free(informer);
}

static void assert_relists(struct kit *k, const struct step *watch)
{
    static const char *const NOTHING[] = {NULL};
    const struct step steps[] = {
        {200,
         LIST("10", "",
              OBJECT("n1", "n1", "5") "," OBJECT("n2", "n2", "6") "," OBJECT("n3", "old", "7"))},
        *watch,
        {200, LIST("30", "", OBJECT("n2", "n2", "6") "," OBJECT("n3", "new", "28"))},
        {200, NULL, NOTHING, true},
    };
    script(k, steps, AT_ARRAY_LEN(steps));
    struct told told = {0};
    struct at_informer *informer = inform(k, &told, NULL);
    TURN_UNTIL(k, k->asked == 4);
    /* n2 is unchanged: not told again. n3 is another object of the same name. */
    assert_string_equal(told.text, "+n1@5 +n2@6 +n3@7 sync -n3@7 +n3@28 -n1@5 ");
    assert_non_null(strstr(k->targets[3], "resourceVersion=30&"));
    at_informer_free(informer);
}

static void an_expired_watch_is_met_by_a_new_list(void **state)
{
    static const char *const GONE[] = {"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\","
                                       "\"reason\":\"Expired\",\"code\":410}}\n",
                                       NULL};
    static const struct step WATCH = {200, NULL, GONE, true};
    assert_relists(*state, &WATCH);
}

static void a_410_is_met_by_a_new_list(void **state)
{
    static const struct step WATCH = {410, "{\"kind\":\"Status\",\"reason\":\"Expired\"}"};
    assert_relists(*state, &WATCH);
}

static void a_broken_watch_is_resumed_not_listed_anew(void **state)
{
    struct kit *k = *state;
    static const char *const BROKEN[] = {EVENT("ADDED", "n1", "11"), "this is no JSON\n", NULL};
    static const char *const NOTHING[] = {NULL};
    static const struct step STEPS[] = {{503, ""},
                                        {200, LIST("10", "", "")},
                                        {200, NULL, BROKEN, true},
                                        {500, ""},
                                        {200, NULL, NOTHING, true}};
    script(k, STEPS, AT_ARRAY_LEN(STEPS));
    struct told told = {0};
    struct at_informer *informer = inform(k, &told, NULL);
    TURN_UNTIL(k, k->asked == 5);
    assert_string_equal(told.text, "sync +n1@11 ");
    assert_non_null(strstr(k->targets[3], "resourceVersion=11&"));
    assert_non_null(strstr(k->targets[4], "resourceVersion=11&"));
    assert_int_equal(told.lost, 2);
    at_informer_free(informer);
}

static void a_callback_may_free_its_informer(void **state)
{
    struct kit *k = *state;
    static const char *const PIECES[] = {EVENT("ADDED", "n1", "11") EVENT("ADDED", "n2", "12"),
                                         NULL};
    static const struct step STEPS[] = {
        {200, LIST("10", "", OBJECT("n0", "n0", "5") "," OBJECT("n9", "n9", "5"))},
        {200, NULL, PIECES, true}};
    static const char *const AT[] = {"n0", "n9", "n1"};
    for (size_t i = 0; i < AT_ARRAY_LEN(AT); i++) {
        script(k, STEPS, AT_ARRAY_LEN(STEPS));
        k->asked = 0;
        struct told told = {.free_at = AT[i]};
        inform(k, &told, NULL);
        TURN_UNTIL(k, told.freed);
        TURN_UNTIL(k, k->open == NULL);
    }
}

static void put_file(const char *path, const char *text)
{
    assert_int_equal(at_file_write_atomic(path, text, strlen(text), 0600, NULL), AT_OK);
}

static void kubeconfigs_are_read_inline_and_from_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/atoll-kubeconfig-XXXXXX";
    char path[128];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/ca.pem", dir);
    put_file(path, "CA FROM FILE");
    snprintf(path, sizeof path, "%s/tok", dir);
    put_file(path, "from-file\n");
    snprintf(path, sizeof path, "%s/config", dir);
    put_file(path, "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
                   "contexts:\n- {name: a, context: {cluster: c1, user: u1, namespace: team}}\n"
                   "- {name: b, context: {cluster: c2, user: u2}}\n"
                   "- {name: plug, context: {cluster: c1, user: u3}}\n"
                   "- {name: lost, context: {cluster: none, user: u1}}\n"
                   "- {name: open, context: {cluster: c3, user: u1}}\n"
                   "clusters:\n- {name: c1, cluster: {server: 'https://h:1', "
                   "certificate-authority-data: Q0E=}}\n"
                   "- {name: c2, cluster: {server: 'https://h:2', certificate-authority: ca.pem}}\n"
                   "- {name: c3, cluster: {server: 'https://h', insecure-skip-tls-verify: true}}\n"
                   "users:\n- {name: u1, user: {client-certificate-data: Q0VSVA==, "
                   "client-key-data: S0VZ}}\n- {name: u2, user: {tokenFile: tok}}\n"
                   "- {name: u3, user: {exec: {command: x}}}\n");
    struct at_client_kubeconfig *config = NULL;
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, NULL), AT_OK);
    assert_string_equal(config->ns, "team");
    assert_string_equal(config->options.server, "https://h:1");
    assert_string_equal(config->options.ca_pem, "CA");
    assert_string_equal(config->options.cert_pem, "CERT");
    assert_string_equal(config->options.key_pem, "KEY");
    assert_null(config->options.token);
    at_client_kubeconfig_free(config);
    assert_int_equal(at_client_kubeconfig_load(path, "b", &config, NULL), AT_OK);
    assert_string_equal(config->ns, "default");
    assert_string_equal(config->options.ca_pem, "CA FROM FILE");
    assert_string_equal(config->options.token, "from-file");
    at_client_kubeconfig_free(config);
    struct at_err err = {0};
    assert_int_equal(at_client_kubeconfig_load(path, "plug", &config, &err), AT_UNSUPPORTED);
    assert_int_equal(at_client_kubeconfig_load(path, "lost", &config, &err), AT_NOT_FOUND);
    assert_int_equal(at_client_kubeconfig_load(path, "nope", &config, &err), AT_NOT_FOUND);
    assert_int_equal(at_client_kubeconfig_load(path, "open", &config, &err), AT_INVALID);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(at_client_kubeconfig_load("/nonexistent", NULL, &config, &err), AT_NOT_FOUND);
    assert_int_equal(at_tree_remove(dir, NULL), AT_OK);
}

static void a_token_with_a_line_break_is_refused(void **state)
{
    struct kit *k = *state;
    struct at_client *client = NULL;
    struct at_client_options options = {.server = "http://h:1", .token = "a\r\nX: y"};
    assert_int_equal(at_client_new(k->loop, &options, &client, NULL), AT_INVALID);
    options = (struct at_client_options){.server = "gopher://h:1"};
    assert_int_equal(at_client_new(k->loop, &options, &client, NULL), AT_INVALID);
    options = (struct at_client_options){0};
    assert_int_equal(at_client_new(k->loop, &options, &client, NULL), AT_INVALID);
}

/* --- several servers --- */

/* A port at which nobody listens. */
static void dead_url(struct kit *k, char out[64])
{
    struct at_http_server *server;
    struct at_http_server_options o = {.listen = "127.0.0.1:0",
                                       .body_bytes_max = 1 << 10,
                                       .connections_max = 1,
                                       .handler = handle,
                                       .ctx = k};
    assert_int_equal(at_http_server_new(k->loop, &o, &server, NULL), AT_OK);
    snprintf(out, 64, "http://%s", at_http_server_addr(server));
    at_http_server_free(server);
}

static struct at_client *client_of(struct kit *k, const char *servers)
{
    struct at_client *client = NULL;
    struct at_err err = {0};
    struct at_client_options options = {.server = servers, .prefer_first = true};
    if (at_client_new(k->loop, &options, &client, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return client;
}

static void call_and_wait(struct kit *k, struct at_client *client, enum at_http_method method,
                          struct at_client_result *r)
{
    at_client_request(client, method, "/x", NULL, NULL, at_client_result_done, r);
    TURN_UNTIL(k, r->done);
}

static void a_call_that_no_server_got_goes_on_at_the_next(void **state)
{
    struct kit *k = *state;
    static const struct step steps[] = {{.status = 200, .body = "{}"}};
    k->steps = steps;
    k->n_steps = 1;
    char dead[2][64];
    char all[256];
    dead_url(k, dead[0]);
    dead_url(k, dead[1]);
    snprintf(all, sizeof all, "%s,%s,http://%s", dead[0], dead[1], at_http_server_addr(k->server));
    struct at_client *client = client_of(k, all);
    assert_int_equal(at_client_server_count(client), 3);
    assert_string_equal(at_client_server_in_use(client), dead[0]);
    for (size_t i = 1; i <= 3; i++) {
        struct at_client_result r = {0};
        call_and_wait(k, client, AT_HTTP_POST, &r); /* a POST too: nobody has seen it */
        assert_int_equal(r.rc, AT_OK);
        at_client_result_clear(&r);
        assert_int_equal(k->asked, i);
        assert_null(strstr(at_client_server_in_use(client), dead[0]));
    }
    at_client_free(client);
    char none[160];
    snprintf(none, sizeof none, "%s,%s", dead[0], dead[1]);
    client = client_of(k, none);
    struct at_client_result r = {0};
    call_and_wait(k, client, AT_HTTP_GET, &r);
    assert_int_equal(r.rc, AT_UNAVAILABLE);
    at_client_result_clear(&r);
    at_client_free(client);
}

static const char *const NO_PIECES[] = {NULL};

/* It takes connections and says nothing. */
static void a_server_that_says_nothing_is_left_and_who_waits_for_it_is_told(void **state)
{
    struct kit *k = *state;
    static const struct step mute[] = {{.status = 200, .pieces = NO_PIECES, .keep_open = true},
                                       {.status = 200, .pieces = NO_PIECES, .keep_open = true}};
    struct kit second = {.loop = k->loop};
    static const struct step good[] = {{.status = 200, .body = "{}"}};
    k->steps = mute;
    k->n_steps = 2;
    second.steps = good;
    second.n_steps = 1;
    struct at_http_server_options o = {.listen = "127.0.0.1:0",
                                       .body_bytes_max = 1 << 10,
                                       .connections_max = 4,
                                       .handler = handle,
                                       .ctx = &second};
    assert_int_equal(at_http_server_new(k->loop, &o, &second.server, NULL), AT_OK);
    char all[256];
    snprintf(all, sizeof all, "http://%s,http://%s", at_http_server_addr(k->server),
             at_http_server_addr(second.server));
    struct at_client *client = client_of(k, all);
    struct at_client_result stream = {0};
    struct at_client_result beat = {0};
    at_client_stream(client, "/log", NULL, at_client_result_done, &stream);
    TURN_UNTIL(k, k->asked == 1);
    at_client_request_within(client, 100 * AT_NS_PER_MS, AT_HTTP_POST, "/beat", NULL,
                             at_client_result_done, &beat);
    TURN_UNTIL(k, beat.done && stream.done);
    assert_int_equal(beat.rc, AT_TIMEOUT); /* it may have been taken: not tried again by itself */
    assert_int_equal(stream.rc, AT_UNAVAILABLE);
    struct at_client_result next = {0};
    call_and_wait(k, client, AT_HTTP_POST, &next);
    assert_int_equal(next.rc, AT_OK);
    assert_int_equal(second.asked, 1);
    at_client_result_clear(&next);
    at_client_result_clear(&beat);
    at_client_result_clear(&stream);
    at_client_free(client);
    at_http_server_free(second.server);
}

static void a_server_that_is_only_slow_keeps_its_streams(void **state)
{
    struct kit *k = *state;
    static const struct step steps[] = {{.status = 200, .pieces = NO_PIECES, .keep_open = true},
                                        {.status = 200, .pieces = NO_PIECES, .keep_open = true},
                                        {.status = 200, .body = "ok"}};
    k->steps = steps;
    k->n_steps = 3;
    char dead[64];
    char all[160];
    dead_url(k, dead);
    snprintf(all, sizeof all, "http://%s,%s", at_http_server_addr(k->server), dead);
    struct at_client *client = client_of(k, all);
    struct at_client_result stream = {0};
    struct at_client_result beat = {0};
    at_client_stream(client, "/log", NULL, at_client_result_done, &stream);
    TURN_UNTIL(k, k->asked == 1);
    at_client_request_within(client, 100 * AT_NS_PER_MS, AT_HTTP_POST, "/beat", NULL,
                             at_client_result_done, &beat);
    TURN_UNTIL(k, beat.done && k->asked == 3);
    assert_string_equal(k->targets[2], "/livez");
    struct at_client_result next = {0};
    call_and_wait(k, client, AT_HTTP_GET, &next); /* the other one is dead: back to this one */
    assert_int_equal(next.rc, AT_OK);
    assert_false(stream.done);
    at_client_result_clear(&next);
    at_client_result_clear(&beat);
    at_client_free(client);
}

static void count_call(void *ctx)
{
    ++*(int *)ctx;
}

static void learned_servers_come_and_go_and_configured_ones_stay(void **state)
{
    struct kit *k = *state;
    int changes = 0;
    struct at_client *client = client_of(k, "http://a:1,http://b:2");
    at_client_on_servers(client, count_call, &changes);
    assert_null(at_client_learned_server(client, 0));
    json_t *urls = json_pack("[s, s, s, i]", "http://b:2", "http://c:3", "nonsense", 7);
    at_client_learn_servers(client, urls);
    json_decref(urls);
    assert_int_equal(changes, 1);
    assert_int_equal(at_client_server_count(client), 3);
    assert_string_equal(at_client_learned_server(client, 0), "http://b:2");
    assert_string_equal(at_client_learned_server(client, 1), "http://c:3");
    urls = json_pack("[s]", "http://b:2");
    at_client_learn_servers(client, urls);
    at_client_learn_servers(client, urls); /* nothing new */
    json_decref(urls);
    assert_int_equal(changes, 2);
    assert_int_equal(at_client_server_count(client), 2);
    struct at_client_result r = {0};
    at_client_post_text_to(client, "http://c:3", "/x", "", 0, at_client_result_done, &r);
    TURN_UNTIL(k, r.done);
    assert_int_equal(r.rc, AT_UNAVAILABLE);
    at_client_result_clear(&r);
    at_client_on_servers(client, NULL, NULL);
    at_client_free(client);
    struct at_err err = {0};
    struct at_client_options mixed = {.server = "http://a:1,https://b:2"};
    assert_int_equal(at_client_new(k->loop, &mixed, &client, &err), AT_INVALID);
}

#define WITH_KIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KIT(get_gives_the_object_and_sends_the_token),
        WITH_KIT(patch_sends_a_merge_patch),
        WITH_KIT(a_status_becomes_an_error_with_its_field),
        WITH_KIT(a_cancelled_call_says_nothing),
        cmocka_unit_test(paths_are_escaped_and_never_climb),
        WITH_KIT(an_informer_lists_in_pages_and_watches_from_there),
        WITH_KIT(an_expired_watch_is_met_by_a_new_list),
        WITH_KIT(a_410_is_met_by_a_new_list),
        WITH_KIT(a_broken_watch_is_resumed_not_listed_anew),
        WITH_KIT(a_callback_may_free_its_informer),
        cmocka_unit_test(kubeconfigs_are_read_inline_and_from_files),
        WITH_KIT(a_token_with_a_line_break_is_refused),
        WITH_KIT(a_call_that_no_server_got_goes_on_at_the_next),
        WITH_KIT(a_server_that_says_nothing_is_left_and_who_waits_for_it_is_told),
        WITH_KIT(a_server_that_is_only_slow_keeps_its_streams),
        WITH_KIT(learned_servers_come_and_go_and_configured_ones_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
