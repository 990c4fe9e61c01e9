/* What the folder's tests share: a whole API server on a memory store over TLS on loopback, and
 * calls as different people. */
#ifndef AT_API_KIT_TEST_H
#define AT_API_KIT_TEST_H

#include "api/api.h"
#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "core/str.h"
#include "net/http_client.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KIT_WAIT_NS (20 * AT_NS_PER_S)
#define KIT_ADMIN_TOKEN "the-admin-token"
#define ATOLL "/apis/atoll.dev/v1"
#define IN_DEFAULT ATOLL "/namespaces/default"

/* Limits of the kits that are made from now on; 0: the default. */
static struct {
    size_t requests_max;
    int64_t turn_ns;
    size_t watch_queue_bytes_max;
} kit_limits;

struct kit {
    char dir[64];
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state;
    struct at_ca *ca;
    struct at_metrics *metrics;
    struct at_api *api;
    struct at_tls_config *server_tls, *client_tls; /* client_tls: without a certificate */
    struct at_http_server *server;
    struct at_http_client *client;
    bool state_ready;
    char admin_digest[AT_SHA256_HEX_BYTES];
    const char *admin_digests[2];
    struct at_buf audit;
};

#define KIT_UNTIL(kit, cond)                                                                       \
    do {                                                                                           \
        int64_t kit_end_ = at_sys_mono_ns(at_sys_real()) + KIT_WAIT_NS;                            \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(at_sys_real()) < kit_end_);                                 \
            at_loop_turn((kit)->loop, at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_MS);          \
        }                                                                                          \
    } while (0)

static inline void kit_state_ready(void *ctx)
{
    ((struct kit *)ctx)->state_ready = true;
}

static inline void kit_audit(void *ctx, const char *line, size_t len)
{
    assert_int_equal(at_buf_append(&((struct kit *)ctx)->audit, line, len), AT_OK);
}

static inline struct at_tls_config *kit_tls(struct kit *kit, bool server, const char *cn,
                                            const char *const *organizations)
{
    static const char *const DNS[] = {"localhost", NULL};
    char *cert = NULL;
    char *key = NULL;
    if (cn != NULL) {
        struct at_cert_request request = {.common_name = cn,
                                          .organizations = organizations,
                                          .dns_names = server ? DNS : NULL,
                                          .server = server,
                                          .client = !server,
                                          .lifetime_s = 600};
        assert_int_equal(at_ca_issue(kit->ca, &request, &cert, &key, NULL), AT_OK);
    }
    struct at_tls_options options = {.is_server = server,
                                     .cert_pem = cert,
                                     .key_pem = key,
                                     .ca_pem = at_ca_cert_pem(kit->ca),
                                     .verify_peer = !server};
    struct at_tls_config *config = NULL;
    assert_int_equal(at_tls_config_new(&options, &config, NULL), AT_OK);
    at_free(cert);
    at_free(key);
    return config;
}

/* Someone with a client certificate. */
static inline struct at_tls_config *kit_identity(struct kit *kit, const char *user,
                                                 const char *group)
{
    const char *const groups[] = {group, NULL};
    return kit_tls(kit, false, user, groups);
}

static inline struct kit *kit_new(void)
{
    struct kit *kit = AT_NEW(struct kit);
    strcpy(kit->dir, "/tmp/atoll-api-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    kit->loop = at_loop_new(at_sys_real());
    kit->metrics = at_metrics_new();
    assert_int_equal(at_ca_open(kit->dir, at_sys_real(), &kit->ca, NULL), AT_OK);
    assert_int_equal(at_store_open("memory", NULL, kit->loop, &kit->store, NULL), AT_OK);
    assert_int_equal(at_state_new(kit->loop, kit->store, kit_state_ready, kit, &kit->state, NULL),
                     AT_OK);
    KIT_UNTIL(kit, kit->state_ready);
    at_sha256_hex(KIT_ADMIN_TOKEN, strlen(KIT_ADMIN_TOKEN), kit->admin_digest);
    kit->admin_digests[0] = kit->admin_digest;
    struct at_api_options options = {.loop = kit->loop,
                                     .store = kit->store,
                                     .state = kit->state,
                                     .ca = kit->ca,
                                     .metrics = kit->metrics,
                                     .admin_token_sha256_hex = kit->admin_digests,
                                     .bookmark_period_ns = 100 * AT_NS_PER_MS,
                                     .requests_max = kit_limits.requests_max,
                                     .turn_ns = kit_limits.turn_ns,
                                     .watch_queue_bytes_max = kit_limits.watch_queue_bytes_max,
                                     .audit = kit_audit,
                                     .audit_ctx = kit};
    assert_int_equal(at_api_new(&options, &kit->api, NULL), AT_OK);
    kit->server_tls = kit_tls(kit, true, "atoll-server", NULL);
    kit->client_tls = kit_tls(kit, false, NULL, NULL);
    struct at_http_server_options server = {.listen = "127.0.0.1:0",
                                            .tls = kit->server_tls,
                                            .body_bytes_max = (size_t)4 << 20,
                                            .connections_max = 100,
                                            .idle_timeout_ns = 60 * AT_NS_PER_S,
                                            .head_timeout_ns = 60 * AT_NS_PER_S,
                                            .handler = at_api_handle,
                                            .ctx = kit->api};
    assert_int_equal(at_http_server_new(kit->loop, &server, &kit->server, NULL), AT_OK);
    kit->client = at_http_client_new(kit->loop, &(struct at_http_client_options){0});
    return kit;
}

static inline void kit_free(struct kit *kit)
{
    at_http_client_free(kit->client);
    at_api_free(kit->api);
    at_http_server_free(kit->server);
    at_state_free(kit->state);
    at_store_close(kit->store);
    at_tls_config_unref(kit->server_tls);
    at_tls_config_unref(kit->client_tls);
    at_metrics_free(kit->metrics);
    at_ca_free(kit->ca);
    at_loop_free(kit->loop);
    at_buf_done(&kit->audit);
    assert_int_equal(at_tree_remove(kit->dir, NULL), AT_OK);
    at_free(kit);
}

static inline int kit_set_up(void **state)
{
    *state = kit_new();
    return 0;
}

static inline int kit_tear_down(void **state)
{
    kit_free(*state);
    return 0;
}

/* --- calls --- */

struct kit_answer {
    int status;
    char headers[2048];
    struct at_buf body;
    json_t *json; /* NULL when the body is none */
    bool done;
    enum at_rc rc;
    at_http_call_id call;
};

static inline void kit_on_head(void *ctx, const struct at_http_head *head)
{
    struct kit_answer *a = ctx;
    a->status = head->status;
    size_t used = 0;
    for (size_t i = 0; i < head->n_headers && used < sizeof a->headers - 512; i++) {
        used += (size_t)snprintf(a->headers + used, sizeof a->headers - used, "%.*s: %.*s\n",
                                 (int)head->headers[i].name.len, head->headers[i].name.ptr,
                                 (int)head->headers[i].value.len, head->headers[i].value.ptr);
    }
}

static inline void kit_on_body(void *ctx, const char *data, size_t len)
{
    assert_int_equal(at_buf_append(&((struct kit_answer *)ctx)->body, data, len), AT_OK);
}

static inline void kit_on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    (void)err;
    struct kit_answer *a = ctx;
    a->rc = rc;
    a->done = true;
}

/* who NULL: the admin's token without a certificate; kit->client_tls: nobody. */
static inline void kit_start(struct kit *kit, struct kit_answer *a, struct at_tls_config *who,
                             enum at_http_method method, const char *target, const char *headers,
                             const char *body)
{
    char all[1024];
    memset(a, 0, sizeof *a);
    snprintf(all, sizeof all, "%s%s",
             who == NULL ? "Authorization: Bearer " KIT_ADMIN_TOKEN "\r\n" : "",
             headers != NULL ? headers : "");
    struct at_http_call call = {.addr = at_http_server_addr(kit->server),
                                .tls = who != NULL ? who : kit->client_tls,
                                .server_name = "localhost",
                                .method = method,
                                .target = target,
                                .headers = all,
                                .body = body,
                                .body_len = body != NULL ? strlen(body) : 0,
                                .ctx = a,
                                .on_head = kit_on_head,
                                .on_body = kit_on_body,
                                .on_done = kit_on_done};
    a->call = at_http_call(kit->client, &call);
}

static inline void answer_done(struct kit_answer *a)
{
    at_buf_done(&a->body);
    json_decref(a->json);
    memset(a, 0, sizeof *a);
}

static inline void kit_call(struct kit *kit, struct kit_answer *a, struct at_tls_config *who,
                            enum at_http_method method, const char *target, const char *headers,
                            const char *body)
{
    kit_start(kit, a, who, method, target, headers, body);
    KIT_UNTIL(kit, a->done);
    assert_int_equal(a->rc, AT_OK);
    if (a->body.len > 0) {
        (void)!at_json_parse(a->body.data, a->body.len, &a->json, NULL);
    }
}

#define KIT_MERGE "Content-Type: application/merge-patch+json\r\n"
#define KIT_JSON_PATCH "Content-Type: application/json-patch+json\r\n"
#define KIT_TABLE "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json\r\n"

/* One call as the admin of which the answer's status matters; the answer is kept in *a. */
static inline int kit_admin(struct kit *kit, struct kit_answer *a, enum at_http_method method,
                            const char *target, const char *headers, const char *body)
{
    kit_call(kit, a, NULL, method, target, headers, body);
    return a->status;
}

/* The same, with only the status kept. */
static inline int kit_status(struct kit *kit, struct at_tls_config *who, enum at_http_method method,
                             const char *target, const char *headers, const char *body)
{
    struct kit_answer a;
    kit_call(kit, &a, who, method, target, headers, body);
    int status = a.status;
    answer_done(&a);
    return status;
}

static inline const char *answer_str(const struct kit_answer *a, const char *path)
{
    return at_json_str_at(a->json, path, "");
}

static inline void kit_make_site(struct kit *kit, const char *name)
{
    char body[256];
    snprintf(body, sizeof body,
             "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"n\":\"%s\"}},\"spec\":{\"class\":"
             "\"edge\",\"jurisdiction\":\"DE\"}}",
             name, name);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, ATOLL "/sites", NULL, body), 201);
}

#define KIT_DEPLOYMENT(name)                                                                       \
    "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"" name      \
    "\"},\"spec\":{\"replicas\":2,\"template\":{\"spec\":{\"command\":[\"/bin/true\"]}}}}"

#endif
