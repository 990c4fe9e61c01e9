/* Load on an API server, or on etcd through its JSON gateway: so many clients, each with its own
 * connection, each sending its next request when the last is answered. The same generator and the
 * same objects for us and for the peers; it parses no answer, so that it takes little of the
 * machine.
 * Usage: bench-load KUBECONFIG|http://HOST:PORT OPERATION CLIENTS SECONDS [FROM [COUNT]]
 * One line of JSON: how many, in what time, latencies. SECONDS 0: until COUNT are done. */
#include "client/client.h"
#include "core/digest.h"
#include "core/mem.h"
#include "net/tls.h"
#include "net/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX 4096
#define LATENCIES_MAX 2000000
#define VALUE_BYTES 1200 /* makes a ConfigMap of 1.5 kB as it is stored */
#define NOTE_BYTES 1010  /* makes an Instance of 2 kB, once it has a status */
#define INSTANCES "/apis/atoll.dev/v1/namespaces/default/instances"
#define TARGET_BYTES_MAX 3072
#define WATCH_ROUNDS 7
#define WATCHERS_AT_ONCE 50
#define WATCH_STALL_S 60
#define PAGE 500

struct load;
struct worker;

struct operation {
    const char *name;
    enum at_http_method method;
    const char *content_type;
    /* The next request of a worker; false: there is none. */
    bool (*next)(struct worker *w, char *target, struct at_buf *body);
    bool to_head; /* measured to the answer's head, after which the call is ended: watches */
};

struct worker {
    struct load *load;
    at_http_call_id call;
    int64_t sent_ns;
    int status;
    bool head_seen;
    char token[2048]; /* where the next page begins */
    struct at_buf head_of_body;
};

struct load {
    struct at_loop *loop;
    struct at_http_client *http;
    struct at_tls_config *tls;
    struct at_url url;
    char headers[2048];
    const struct operation *op;
    char value[VALUE_BYTES + 1], note[NOTE_BYTES + 1];
    int64_t begin_ns, end_ns; /* end_ns 0: until count */
    uint64_t from, count, taken, failed, bytes;
    uint64_t random;
    int open;
    int64_t *latencies;
    size_t n;
    char first_error[512];
    struct worker *workers;
    at_timer_id round_timer, stall_timer;
    int n_workers, rounds, seen;
};

static int64_t now_ns(void)
{
    return at_sys_mono_ns(at_sys_real());
}

/* xorshift64*, Vigna 2016: which object is read next. */
static uint64_t random_below(struct load *load, uint64_t n)
{
    load->random ^= load->random >> 12;
    load->random ^= load->random << 25;
    load->random ^= load->random >> 27;
    return load->random * 2685821657736338717u % n;
}

/* The number of the next object, of those that are to be made. */
static bool take(struct load *load, uint64_t *ret)
{
    if (load->count != 0 && load->taken == load->count) {
        return false;
    }
    *ret = load->from + load->taken++;
    return true;
}

static bool print(struct at_buf *out, const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return n >= 0 && at_buf_append(out, text, (size_t)n) == AT_OK;
}

/* --- operations --- */

static bool next_configmap(struct worker *w, char *target, struct at_buf *body)
{
    uint64_t i;
    snprintf(target, TARGET_BYTES_MAX, "/api/v1/namespaces/default/configmaps");
    return take(w->load, &i) &&
           print(body,
                 "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":"
                 "\"c%llx-%llu\"},\"data\":{\"value\":\"%s\"}}",
                 (unsigned long long)w->load->begin_ns, (unsigned long long)i, w->load->value);
}

static bool next_instance(struct worker *w, char *target, struct at_buf *body)
{
    uint64_t i;
    snprintf(target, TARGET_BYTES_MAX, INSTANCES);
    return take(w->load, &i) &&
           print(body,
                 "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Instance\",\"metadata\":{\"name\":"
                 "\"i%07llu\",\"labels\":{\"app\":\"a%llu\"},\"annotations\":{\"note\":\"%s\"}},"
                 "\"spec\":{\"command\":[\"/bin/true\"],\"nodeName\":\"n%03llu\",\"resources\":{"
                 "\"cpu\":\"100m\",\"memory\":\"64Mi\"}}}",
                 (unsigned long long)i, (unsigned long long)(i % 10), w->load->note,
                 (unsigned long long)(i % 100));
}

/* As small as they are made, and for the scheduler to place. */
static bool next_pending(struct worker *w, char *target, struct at_buf *body)
{
    uint64_t i;
    snprintf(target, TARGET_BYTES_MAX, INSTANCES);
    return take(w->load, &i) &&
           print(body,
                 "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Instance\",\"metadata\":{\"name\":"
                 "\"p%07llu\"},\"spec\":{\"command\":[\"/bin/true\"],\"resources\":{\"cpu\":"
                 "\"%llum\",\"memory\":\"%lluMi\"}}}",
                 (unsigned long long)i, (unsigned long long)(100 + 50 * (i % 8)),
                 (unsigned long long)(128 + 64 * (i % 12)));
}

static bool next_get(struct worker *w, char *target, struct at_buf *body)
{
    (void)body;
    snprintf(target, TARGET_BYTES_MAX, INSTANCES "/i%07llu",
             (unsigned long long)random_below(w->load, w->load->from));
    return true;
}

static bool next_update(struct worker *w, char *target, struct at_buf *body)
{
    next_get(w, target, body);
    return print(body, "{\"metadata\":{\"labels\":{\"round\":\"r%llx\"}}}",
                 (unsigned long long)random_below(w->load, UINT64_MAX));
}

static bool next_delete(struct worker *w, char *target, struct at_buf *body)
{
    uint64_t i;
    (void)body;
    if (!take(w->load, &i)) {
        return false;
    }
    snprintf(target, TARGET_BYTES_MAX, INSTANCES "/i%07llu", (unsigned long long)i);
    return true;
}

static bool next_page(struct worker *w, char *target, struct at_buf *body)
{
    (void)body;
    snprintf(target, TARGET_BYTES_MAX, INSTANCES "?limit=%d%s%s", PAGE,
             w->token[0] != '\0' ? "&continue=" : "", w->token);
    return true;
}

static bool next_list(struct worker *w, char *target, struct at_buf *body)
{
    (void)body;
    uint64_t i;
    snprintf(target, TARGET_BYTES_MAX, INSTANCES);
    return take(w->load, &i);
}

static bool next_watch(struct worker *w, char *target, struct at_buf *body)
{
    (void)body;
    uint64_t i = random_below(w->load, w->load->from);
    snprintf(target, TARGET_BYTES_MAX,
             INSTANCES "?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
                       "&fieldSelector=metadata.name%%3Di%07llu",
             (unsigned long long)i);
    return true;
}

/* Create if absent, as an API server asks of etcd. */
static bool next_etcd(struct worker *w, char *target, struct at_buf *body)
{
    uint64_t i;
    char name[96];
    char object[VALUE_BYTES + 400];
    snprintf(target, TARGET_BYTES_MAX, "/v3/kv/txn");
    if (!take(w->load, &i)) {
        return false;
    }
    int len = snprintf(name, sizeof name, "/registry/configmaps/default/c%llx-%llu",
                       (unsigned long long)w->load->begin_ns, (unsigned long long)i);
    int bytes = snprintf(object, sizeof object,
                         "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":"
                         "\"%s\",\"namespace\":\"default\",\"uid\":"
                         "\"6ad3e4a2-4d5c-4b1f-9f43-3f1e6f2d1c55\",\"creationTimestamp\":"
                         "\"2026-01-01T00:00:00Z\",\"generation\":1},\"data\":{\"value\":\"%s\"}}",
                         name + 29, w->load->value);
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    if (at_base64_encode(name, (size_t)len, &key) != AT_OK ||
        at_base64_encode(object, (size_t)bytes, &value) != AT_OK) {
        return false;
    }
    return print(body,
                 "{\"compare\":[{\"target\":\"MOD\",\"key\":\"%s\",\"mod_revision\":\"0\"}],"
                 "\"success\":[{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}}]}",
                 key.data, key.data, value.data);
}

#define JSON "application/json"
#define MERGE "application/merge-patch+json"
static const struct operation OPERATIONS[] = {
    {"configmap", AT_HTTP_POST, JSON, next_configmap, false},
    {"instance", AT_HTTP_POST, JSON, next_instance, false},
    {"pending", AT_HTTP_POST, JSON, next_pending, false},
    {"get", AT_HTTP_GET, NULL, next_get, false},
    {"update", AT_HTTP_PATCH, MERGE, next_update, false},
    {"delete", AT_HTTP_DELETE, NULL, next_delete, false},
    {"page", AT_HTTP_GET, NULL, next_page, false},
    {"list", AT_HTTP_GET, NULL, next_list, false},
    {"watch", AT_HTTP_GET, NULL, next_watch, true},
    {"etcd", AT_HTTP_POST, JSON, next_etcd, false},
};

/* --- the loop of a worker --- */

static void send_next(struct worker *w);

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct worker *w = ctx;
    w->status = head->status;
    w->head_seen = true;
    if (w->load->op->to_head) {
        at_http_call_cancel(w->load->http, w->call);
    }
}

/* A list's metadata comes first: a page's token is in the first bytes. */
static void on_body(void *ctx, const char *data, size_t len)
{
    struct worker *w = ctx;
    w->load->bytes += len;
    size_t room = sizeof w->token - 1;
    if (w->head_of_body.len < room) {
        size_t left = room - w->head_of_body.len;
        (void)!at_buf_append(&w->head_of_body, data, len < left ? len : left);
    }
}

static void token_find(struct worker *w)
{
    static const char MARK[] = "\"continue\":\"";
    w->token[0] = '\0';
    const char *at = w->head_of_body.len != 0 ? strstr(w->head_of_body.data, MARK) : NULL;
    if (at != NULL) {
        at += sizeof MARK - 1;
        snprintf(w->token, sizeof w->token, "%.*s", (int)strcspn(at, "\""), at);
    }
}

static void worker_over(struct load *load)
{
    if (--load->open == 0) {
        at_loop_stop(load->loop);
    }
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    struct worker *w = ctx;
    struct load *load = w->load;
    int64_t now = now_ns();
    bool ended_by_us = rc == AT_CANCELLED && load->op->to_head && w->head_seen;
    bool good = (rc == AT_OK || ended_by_us) && w->status >= 200 && w->status < 300;
    if (!good && load->failed++ == 0) {
        snprintf(load->first_error, sizeof load->first_error, "%d %s %.300s", w->status,
                 err != NULL ? err->msg : "", w->head_of_body.len ? w->head_of_body.data : "");
    }
    if (good && load->n < LATENCIES_MAX) {
        load->latencies[load->n++] = now - w->sent_ns;
    }
    token_find(w);
    if (!good || (load->end_ns != 0 && now >= load->end_ns)) {
        worker_over(load);
        return;
    }
    send_next(w);
}

static void send_next(struct worker *w)
{
    struct load *load = w->load;
    char target[TARGET_BYTES_MAX];
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (!load->op->next(w, target, &body)) {
        worker_over(load);
        return;
    }
    char headers[2200];
    snprintf(headers, sizeof headers, "%s%s%s%s", load->headers,
             load->op->content_type != NULL ? "Content-Type: " : "",
             load->op->content_type != NULL ? load->op->content_type : "",
             load->op->content_type != NULL ? "\r\n" : "");
    struct at_http_call call = {.addr = load->url.addr,
                                .tls = load->tls,
                                .server_name = load->url.host,
                                .method = load->op->method,
                                .target = target,
                                .headers = headers,
                                .body = body.data,
                                .body_len = body.len,
                                .ctx = w,
                                .on_head = on_head,
                                .on_body = on_body,
                                .on_done = on_done};
    at_buf_clear(&w->head_of_body);
    w->head_seen = false;
    w->status = 0;
    w->sent_ns = now_ns();
    w->call = at_http_call(load->http, &call);
}

/* --- many watchers of one object --- */

static void watchers_round(void *ctx);

static void watcher_start(struct load *load);

/* Somebody was not told: waiting longer would say nothing. */
static void watchers_stalled(void *ctx)
{
    struct load *load = ctx;
    load->failed++;
    snprintf(load->first_error, sizeof load->first_error, "%d of %d watchers saw nothing for %d s",
             load->n_workers - load->seen, load->n_workers, WATCH_STALL_S);
    at_loop_stop(load->loop);
}

static void watchers_expect(struct load *load)
{
    at_loop_timer_cancel(load->loop, load->stall_timer);
    load->stall_timer =
        at_loop_timer(load->loop, WATCH_STALL_S * AT_NS_PER_S, watchers_stalled, load);
}

static void watcher_head(void *ctx, const struct at_http_head *head)
{
    struct worker *w = ctx;
    w->load->failed += head->status != 200;
    if (w->load->open < w->load->n_workers) { /* a few at a time, as in real life */
        watcher_start(w->load);
    }
}

static void watcher_body(void *ctx, const char *data, size_t len)
{
    struct worker *w = ctx;
    struct load *load = w->load;
    if (load->failed != 0) {
        snprintf(load->first_error, sizeof load->first_error, "%.*s", (int)(len < 300 ? len : 300),
                 data);
        at_loop_stop(load->loop);
        return;
    }
    if (++load->seen != load->n_workers) {
        return;
    }
    if (load->begin_ns != 0) {
        load->latencies[load->n++] = now_ns() - load->begin_ns;
    }
    load->round_timer = at_loop_timer(load->loop, 200 * AT_NS_PER_MS, watchers_round, load);
}

static void watcher_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    struct worker *w = ctx;
    if (rc != AT_CANCELLED && w->load->failed++ == 0) {
        snprintf(w->load->first_error, sizeof w->load->first_error, "a watch ended: %s",
                 err != NULL ? err->msg : at_rc_name(rc));
        at_loop_stop(w->load->loop);
    }
}

static void patch_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)ctx;
    (void)rc;
    (void)bytes_sent;
    (void)err;
}

/* Everyone has seen the last change: one more. */
static void watchers_round(void *ctx)
{
    struct load *load = ctx;
    if (load->rounds-- == 0) {
        at_loop_stop(load->loop);
        return;
    }
    char body[128];
    load->seen = 0;
    watchers_expect(load);
    load->begin_ns = now_ns();
    int n = snprintf(body, sizeof body, "{\"metadata\":{\"labels\":{\"round\":\"r%llx\"}}}",
                     (unsigned long long)load->begin_ns);
    char headers[2200];
    snprintf(headers, sizeof headers, "%sContent-Type: " MERGE "\r\n", load->headers);
    struct at_http_call call = {.addr = load->url.addr,
                                .tls = load->tls,
                                .server_name = load->url.host,
                                .method = AT_HTTP_PATCH,
                                .target = INSTANCES "/i0000000",
                                .headers = headers,
                                .body = body,
                                .body_len = (size_t)n,
                                .on_done = patch_done};
    at_http_call(load->http, &call);
}

static void watcher_start(struct load *load)
{
    struct worker *w = &load->workers[load->open++];
    struct at_http_call call = {.addr = load->url.addr,
                                .tls = load->tls,
                                .server_name = load->url.host,
                                .method = AT_HTTP_GET,
                                .target =
                                    INSTANCES "?watch=true&fieldSelector=metadata.name%3Di0000000",
                                .headers = load->headers,
                                .ctx = w,
                                .on_head = watcher_head,
                                .on_body = watcher_body,
                                .on_done = watcher_done};
    w->load = load;
    at_http_call(load->http, &call);
}

/* --- start and end --- */

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_ms(const struct load *load, int per_thousand)
{
    return (double)load->latencies[(load->n - 1) * (size_t)per_thousand / 1000] / 1e6;
}

static int report(struct load *load, double seconds)
{
    if (load->failed != 0 || load->n == 0) {
        fprintf(stderr, "bench-load: %llu of %zu failed: %s\n", (unsigned long long)load->failed,
                load->n, load->first_error);
        return 1;
    }
    qsort(load->latencies, load->n, sizeof(load->latencies[0]), compare);
    printf("{\"n\":%zu,\"seconds\":%.4f,\"rate\":%.1f,\"bytes\":%llu,\"p50\":%.4f,\"p99\":%.4f,"
           "\"max\":%.4f}\n",
           load->n, seconds, (double)load->n / seconds, (unsigned long long)load->bytes,
           percentile_ms(load, 500), percentile_ms(load, 990), percentile_ms(load, 1000));
    return 0;
}

static enum at_rc target_open(struct load *load, const char *target, struct at_err *err)
{
    if (strncmp(target, "http://", 7) == 0) {
        return at_url_parse(target, &load->url, err);
    }
    struct at_client_kubeconfig *config = NULL;
    enum at_rc rc = at_client_kubeconfig_load(target, NULL, &config, err);
    if (rc != AT_OK) {
        return rc;
    }
    const struct at_client_options *o = &config->options;
    rc = at_url_parse(o->server, &load->url, err);
    if (rc == AT_OK) {
        struct at_tls_options tls = {.cert_pem = o->cert_pem,
                                     .key_pem = o->key_pem,
                                     .ca_pem = o->ca_pem,
                                     .verify_peer = true,
                                     .server_name = load->url.host};
        rc = at_tls_config_new(&tls, &load->tls, err);
    }
    if (rc == AT_OK && o->token != NULL) {
        snprintf(load->headers, sizeof load->headers, "Authorization: Bearer %s\r\n", o->token);
    }
    at_client_kubeconfig_free(config);
    return rc;
}

static bool parse(struct load *load, int argc, char **argv, int64_t *ret_seconds)
{
    if (argc < 5 || argc > 7) {
        return false;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(OPERATIONS); i++) {
        load->op = strcmp(argv[2], OPERATIONS[i].name) == 0 ? &OPERATIONS[i] : load->op;
    }
    load->n_workers = atoi(argv[3]);
    *ret_seconds = atoi(argv[4]);
    load->from = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;
    load->count = argc > 6 ? strtoull(argv[6], NULL, 10) : 0;
    return (load->op != NULL || strcmp(argv[2], "watchers") == 0) && load->n_workers > 0 &&
           load->n_workers <= CLIENTS_MAX;
}

static void run(struct load *load, int64_t seconds)
{
    load->begin_ns = now_ns();
    load->end_ns = seconds > 0 ? load->begin_ns + seconds * AT_NS_PER_S : 0;
    if (load->op == NULL) {
        load->begin_ns = 0; /* the first event of each is what there is */
        load->rounds = WATCH_ROUNDS;
        watchers_expect(load);
        for (int i = 0; i < WATCHERS_AT_ONCE && i < load->n_workers; i++) {
            watcher_start(load);
        }
    } else {
        load->open = load->n_workers;
        for (int i = 0; i < load->n_workers; i++) {
            load->workers[i].load = load;
            send_next(&load->workers[i]);
        }
    }
    at_loop_run(load->loop);
}

int main(int argc, char **argv)
{
    struct at_err err = {0};
    struct load load = {.loop = at_loop_new(at_sys_real()), .random = 88172645463325252u};
    int64_t seconds;
    if (!parse(&load, argc, argv, &seconds)) {
        fprintf(stderr,
                "usage: bench-load KUBECONFIG|http://HOST:PORT OPERATION CLIENTS(1..%d) "
                "SECONDS [FROM [COUNT]]\n",
                CLIENTS_MAX);
        return 2;
    }
    if (target_open(&load, argv[1], &err) != AT_OK) {
        fprintf(stderr, "bench-load: %s\n", err.msg);
        return 1;
    }
    struct at_http_client_options options = {.connections_per_address_max =
                                                 (size_t)load.n_workers + 1,
                                             .waiting_max = CLIENTS_MAX,
                                             .connect_timeout_ns = 60 * AT_NS_PER_S};
    load.http = at_http_client_new(load.loop, &options);
    memset(load.value, 'd', VALUE_BYTES);
    memset(load.note, 'x', NOTE_BYTES);
    load.latencies = at_alloc(LATENCIES_MAX * sizeof(load.latencies[0]));
    load.workers = at_alloc((size_t)load.n_workers * sizeof(load.workers[0]));
    int64_t begin = now_ns();
    run(&load, seconds);
    int status = report(&load, (double)(now_ns() - begin) / 1e9);
    fflush(stdout);
    at_http_client_free(load.http);
    for (int i = 0; i < load.n_workers; i++) {
        at_buf_done(&load.workers[i].head_of_body);
    }
    at_tls_config_unref(load.tls);
    at_loop_free(load.loop);
    at_free(load.latencies);
    at_free(load.workers);
    return status;
}
