/* The etcd back end: endpoints, calls, and its loop inside the store's. */
#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

const struct at_store_backend AT_STORE_ETCD = {.kind = "etcd"};

int64_t at_etcd_now(const struct at_etcd *e)
{
    return at_sys_mono_ns(at_loop_sys(e->loop));
}

/* --- the inner loop --- */

static void turn_inner(void *ctx);

static void outer_arm(struct at_etcd *e)
{
    int64_t next = at_loop_next_ns(e->loop);
    at_loop_timer_cancel(e->outer, e->outer_timer);
    e->outer_timer = 0;
    if (next != INT64_MAX) {
        e->outer_timer = at_loop_timer(e->outer, next - at_etcd_now(e), turn_inner, e);
    }
}

static void turn_inner(void *ctx)
{
    struct at_etcd *e = ctx;
    e->turning = true;
    at_loop_turn(e->loop, 0);
    e->turning = false;
    outer_arm(e);
}

static void inner_readable(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    turn_inner(ctx);
}

static void kicked(void *ctx)
{
    struct at_etcd *e = ctx;
    e->kick_timer = 0;
    at_etcd_send(e);
    at_etcd_settle(e);
}

void at_etcd_kick(struct at_etcd *e)
{
    if (e->kick_timer != 0) {
        return;
    }
    e->kick_timer = at_loop_timer(e->loop, 0, kicked, e);
    if (!e->turning) {
        outer_arm(e);
    }
}

static void tick(void *ctx)
{
    struct at_etcd *e = ctx;
    e->tick_timer = at_loop_timer(e->loop, AT_STORE_ETCD_RETRY_NS, tick, e);
    int64_t now = at_etcd_now(e);
    at_etcd_mirror_tick(e, now);
    at_etcd_expire(e, now, false);
    at_etcd_readers_settle(e, now);
    at_etcd_send(e);
    at_etcd_settle(e);
}

/* --- calls --- */

struct call {
    struct at_etcd *e;
    size_t addr;
    int status;
    struct at_buf body;
    bool too_large;
    bool authenticates;
    uint64_t auth_count; /* of the headers that it was sent with */
    at_etcd_done_fn *done;
    void *ctx;
};

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct call *c = ctx;
    c->status = head->status;
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct call *c = ctx;
    c->e->heard_ns = at_etcd_now(c->e);
    c->too_large = c->too_large || at_buf_append(&c->body, data, len) != AT_OK;
}

void at_etcd_failed(struct at_etcd *e, size_t addr)
{
    int64_t now = at_etcd_now(e);
    if (addr == e->addr) {
        e->addr = (e->addr + 1) % e->n_addrs;
    }
    e->pause_until_ns = now + AT_STORE_ETCD_RETRY_NS;
    if (e->secure && now - e->tls_loaded_ns > AT_STORE_ETCD_TLS_RELOAD_NS) {
        struct at_err ignored = {0}; /* the old ones may still do */
        e->tls_loaded_ns = now;
        (void)!at_etcd_tls_load(e, &ignored);
    }
}

/* What a person should do about it. */
static void advise(const struct at_etcd *e, struct at_err *err)
{
    size_t used = strlen(err->msg);
    const char *advice = "";
    if (err->rc == AT_UNAUTHENTICATED && e->user == NULL) {
        advice = ": etcd asks who this is, add user=NAME&password-file=FILE to the store's address";
    } else if (err->rc == AT_UNAUTHENTICATED) {
        advice = ": look at user and password-file in the store's address";
    } else if (err->rc == AT_FORBIDDEN) {
        advice = ": give the user a role that may read and write all keys (etcdctl role "
                 "grant-permission ROLE --prefix=true readwrite '')";
    } else if (err->rc == AT_IO) {
        advice = ": etcd is full, nothing was stored; compact and defragment it, then disarm the "
                 "alarm (etcdctl alarm disarm)";
    }
    snprintf(err->msg + used, sizeof err->msg - used, "%s", advice);
}

static void headers_set(struct at_etcd *e, const char *token)
{
    if (e->headers != NULL) {
        explicit_bzero(e->headers, strlen(e->headers));
        at_free(e->headers);
    }
    e->headers = token == NULL ? NULL
                               : at_asprintf("Content-Type: application/json\r\n%s%s%s",
                                             token[0] != '\0' ? "Authorization: " : "", token,
                                             token[0] != '\0' ? "\r\n" : "");
    e->auth_count++;
}

/* etcd has forgotten the token (it was restarted, or they were not used for long): tell it anew and
 * try once more. It did nothing. */
static enum at_rc forgotten(struct call *c, struct at_err *err)
{
    struct at_etcd *e = c->e;
    if (e->auth_count == c->auth_count) {
        headers_set(e, NULL);
    }
    at_etcd_kick(e);
    return at_err_set(err, AT_UNAVAILABLE, "etcd asks anew who this is");
}

static void answered(struct call *c)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    enum at_rc rc = AT_OK;
    bool unsure = false;
    if (c->too_large) {
        rc = at_err_set(&err, AT_TOO_LARGE, "etcd: an answer is too large");
    } else if (c->status != 200) {
        rc = at_etcd_error(c->status, c->body.data, c->body.len, &unsure, &err);
        advise(c->e, &err);
        if (rc == AT_UNAUTHENTICATED && c->e->user != NULL && !c->authenticates) {
            c->done(c->ctx, forgotten(c, &err), false, NULL, &err);
            return;
        }
    } else {
        json_error_t problem; /* pages may be larger than at_json_parse takes */
        answer = json_loadb(c->body.data != NULL ? c->body.data : "", c->body.len, 0, &problem);
        if (answer == NULL) {
            rc = at_err_set(&err, AT_UNAVAILABLE, "etcd: an answer is not JSON");
            unsure = true;
        }
    }
    if (rc == AT_UNAVAILABLE) {
        at_etcd_failed(c->e, c->addr);
    } else {
        c->e->last_ok_ns = at_etcd_now(c->e);
    }
    c->done(c->ctx, rc, unsure, answer, &err);
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct call *c = ctx;
    if (rc == AT_OK) {
        answered(c);
    } else if (rc == AT_CANCELLED) {
        c->done(c->ctx, rc, bytes_sent, NULL, err);
    } else {
        struct at_err gone = {0};
        at_err_set(&gone, AT_UNAVAILABLE, "etcd at %s: %s%s", c->e->addrs[c->addr],
                   err != NULL ? err->msg : "gone",
                   c->e->secure && c->e->cert_file == NULL
                       ? " (if etcd wants client certificates, add cert=FILE&key=FILE)"
                       : "");
        at_etcd_failed(c->e, c->addr);
        c->done(c->ctx, AT_UNAVAILABLE, bytes_sent, NULL, &gone);
    }
    at_buf_done(&c->body);
    at_free(c);
}

struct at_http_call at_etcd_call_base(const struct at_etcd *e, const char *target,
                                      const struct at_buf *body)
{
    return (struct at_http_call){
        .addr = e->addrs[e->addr],
        .tls = e->tls,
        .method = AT_HTTP_POST,
        .target = target,
        .headers = e->headers != NULL ? e->headers : "Content-Type: application/json\r\n",
        .body = body->data,
        .body_len = body->len,
    };
}

static struct call *call_begin(struct at_etcd *e, const char *target, const struct at_buf *body,
                               at_etcd_done_fn *done, void *ctx, at_http_call_id *ret_id)
{
    struct call *c = AT_NEW(struct call);
    c->e = e;
    c->addr = e->addr;
    c->auth_count = e->auth_count;
    c->done = done;
    c->ctx = ctx;
    at_buf_init(&c->body, AT_STORE_ETCD_ANSWER_BYTES_MAX);
    struct at_http_call call = at_etcd_call_base(e, target, body);
    call.timeout_ns = AT_STORE_ETCD_ANSWER_NS;
    call.first_byte_timeout_ns = AT_STORE_ETCD_ATTEMPT_NS;
    call.ctx = c;
    call.on_head = on_head;
    call.on_body = on_body;
    call.on_done = on_done;
    *ret_id = at_http_call(e->http, &call);
    return c;
}

at_http_call_id at_etcd_call(struct at_etcd *e, const char *target, const struct at_buf *body,
                             at_etcd_done_fn *done, void *ctx)
{
    at_http_call_id id;
    assert(e->headers != NULL);
    call_begin(e, target, body, done, ctx, &id);
    return id;
}

/* --- who is this? --- */

static void authenticated(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                          const struct at_err *err)
{
    (void)unsure;
    struct at_etcd *e = ctx;
    struct at_err own = {0};
    e->authenticating = false;
    if (e->closing) {
        return;
    }
    const char *token = rc == AT_OK ? at_etcd_token(answer) : NULL;
    if (token != NULL) {
        headers_set(e, token);
        at_etcd_kick(e);
        return;
    }
    if (rc == AT_OK) {
        at_err_set(&own, AT_UPSTREAM, "etcd: the answer has no token");
        err = &own;
    }
    e->pause_until_ns = at_etcd_now(e) + AT_STORE_ETCD_RETRY_NS;
    e->load_err = *err;
}

bool at_etcd_may_call(struct at_etcd *e)
{
    if (e->headers != NULL) {
        return true;
    }
    if (e->authenticating || at_etcd_now(e) < e->pause_until_ns) {
        return false;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    at_http_call_id id;
    if (at_etcd_password_text(e, &text, &e->load_err) != AT_OK) {
        return false;
    }
    e->authenticating = true;
    call_begin(e, "/v3/auth/authenticate", &text, authenticated, e, &id)->authenticates = true;
    explicit_bzero(text.data, text.len);
    return false;
}

/* --- open and close --- */

static enum at_rc wait_loaded(struct at_etcd *e, struct at_err *err)
{
    e->heard_ns = at_etcd_now(e);
    at_etcd_load(e);
    while (!e->loaded || at_etcd_raw(e, e->store->rev) < e->load_newest) {
        bool fatal = e->load_err.rc != AT_OK && e->load_err.rc != AT_UNAVAILABLE;
        int64_t deadline = e->heard_ns + AT_STORE_ETCD_OPEN_NS; /* much may take long */
        if (fatal || at_etcd_now(e) >= deadline) {
            if (e->load_err.rc == AT_OK) {
                at_err_set(&e->load_err, AT_UNAVAILABLE, "etcd at %s does not answer in time",
                           e->addrs[0]);
            }
            if (err != NULL) {
                *err = e->load_err;
            }
            return fatal ? at_err_wrap(err, e->load_err.rc, "store")
                         : at_err_wrap(err, e->load_err.rc,
                                       "store: nothing that can be used was heard of etcd for 10 s "
                                       "(does it run there, has it a leader?)");
        }
        e->turning = true;
        at_loop_turn(e->loop, deadline);
        e->turning = false;
    }
    return AT_OK;
}

enum at_rc at_etcd_open(struct at_store *store, const char *endpoints, struct at_etcd **ret,
                        struct at_err *err)
{
    struct at_etcd *e = AT_NEW(struct at_etcd);
    e->store = store;
    e->outer = store->loop;
    e->loop = at_loop_new(at_loop_sys(store->loop));
    e->keys = at_map_new();
    e->readers_tail = &e->readers;
    at_buf_init(&e->line, AT_STORE_ETCD_ANSWER_BYTES_MAX);
    struct at_http_client_options http = {
        .connections_per_address_max = AT_STORE_ETCD_CALLS_MAX + 8,
        .connect_timeout_ns = AT_STORE_ETCD_ATTEMPT_NS / 2,
    };
    e->http = at_http_client_new(e->loop, &http);
    e->last_ok_ns = at_etcd_now(e);
    enum at_rc rc = at_etcd_options_parse(e, endpoints, err);
    if (rc == AT_OK) {
        rc = at_etcd_tls_load(e, err);
    }
    if (rc == AT_OK && e->user == NULL) {
        headers_set(e, "");
    }
    if (rc == AT_OK) {
        e->tls_loaded_ns = at_etcd_now(e);
        e->tick_timer = at_loop_timer(e->loop, AT_STORE_ETCD_RETRY_NS, tick, e);
        rc = wait_loaded(e, err);
    }
    if (rc != AT_OK) {
        at_etcd_close(e);
        return rc;
    }
    e->fd_watch = at_loop_watch(e->outer, at_loop_fd(e->loop), AT_LOOP_READ, inner_readable, e);
    outer_arm(e);
    *ret = e;
    return AT_OK;
}

void at_etcd_drain(struct at_etcd *e)
{
    int64_t deadline = at_etcd_now(e) + AT_STORE_ETCD_WRITE_NS;
    e->closing = true;
    while (e->first != NULL || e->readers != NULL) {
        int64_t now = at_etcd_now(e);
        if (now >= deadline) {
            at_etcd_expire(e, now, true);
        }
        e->turning = true;
        at_loop_turn(e->loop, now + AT_STORE_ETCD_RETRY_NS);
        e->turning = false;
    }
    outer_arm(e);
}

void at_etcd_close(struct at_etcd *e)
{
    if (e == NULL) {
        return;
    }
    assert(e->first == NULL);
    e->closing = true;
    at_http_client_free(e->http);
    at_etcd_mirror_done(e);
    at_loop_timer_cancel(e->outer, e->outer_timer);
    if (e->fd_watch != 0) {
        at_loop_unwatch(e->outer, e->fd_watch);
    }
    at_loop_free(e->loop);
    at_map_free(e->keys);
    at_etcd_options_done(e);
    at_free(e);
}
