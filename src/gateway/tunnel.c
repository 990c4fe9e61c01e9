#include "gateway/tunnel.h"

#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/headers.h"
#include "gateway/reach.h"
#include "gateway/services.h"

enum tunnel_state {
    TUNNEL_CONNECTING,
    TUNNEL_ASKED,  /* the request is on its way, the answer's head is not complete */
    TUNNEL_OPEN,   /* both sides have agreed */
    TUNNEL_ANSWER, /* the replica did not: its answer is passed on */
};

struct gw_tunnel {
    struct gw_worker *worker;
    struct at_http_exchange *ex; /* NULL: gone or answered */
    char *key;                   /* name of the client's token; NULL: none */
    struct gw_model *model;
    struct gw_wish wish;
    struct at_buf words; /* that the wish points to */
    struct gw_replica *replica;
    struct gw_replica *tried[AT_GW_ATTEMPTS_MAX]; /* only compared */
    size_t n_tried;
    struct at_stream *up;
    enum tunnel_state state;
    struct at_buf request;
    struct at_http1_body body; /* of a TUNNEL_ANSWER */
    bool up_ended, down_ended; /* that side has sent its last */
    bool up_paused;
    struct at_str request_id;
    char id_text[17];
    char client_id[AT_GW_REQUEST_ID_BYTES_MAX + 1];
    int64_t start_ns, active_ns;
    at_timer_id idle_timer;
    enum gw_outcome outcome; /* GW_FINE until the replica has failed */
};

static void attempt(struct gw_tunnel *t);

bool gw_tunnel_wanted(const struct at_http_head *head)
{
    return head->upgrade && head->method == AT_HTTP_GET && !head->chunked &&
           head->content_length == 0 &&
           at_str_eq_nocase(at_http_header_get(head, "upgrade"), "websocket");
}

static void leave(struct gw_tunnel *t, enum gw_outcome outcome)
{
    struct gw_replica *replica = t->replica;
    t->replica = NULL;
    if (replica != NULL) {
        gw_model_leave(t->worker, t->model, replica, t->wish.cost_milli, outcome);
    }
}

static void enter(struct gw_tunnel *t, struct gw_replica *replica)
{
    t->tried[t->n_tried++] = replica;
    t->replica = replica;
    gw_model_enter(t->worker, t->model, replica, t->wish.cost_milli);
}

static void tunnel_free(struct gw_tunnel *t)
{
    at_loop_timer_cancel(t->worker->loop, t->idle_timer);
    at_stream_free(t->up);
    leave(t, t->outcome);
    if (t->state == TUNNEL_OPEN) {
        at_metric_add(t->worker->gateway->metrics.tunnels, -1);
    }
    at_metric_add(t->worker->gateway->metrics.outstanding, -1);
    t->model->refs--;
    gw_model_drop(t->model);
    at_buf_done(&t->request);
    at_buf_done(&t->words);
    at_free(t->key);
    at_free(t);
}

static void count(struct gw_tunnel *t, int status)
{
    if (t->ex != NULL && t->worker->handling == NULL) { /* later than it was handled */
        t->worker->key = t->key;
        gw_observe_own(t->worker, t->ex, status);
    }
    gw_count(t->worker, t->model->name, t->replica != NULL ? t->replica->site : "", status);
}

/* Before the client has anything: tell it. */
static void fail(struct gw_tunnel *t, int status, const char *message)
{
    struct at_http_exchange *ex = t->ex;
    count(t, status);
    t->ex = NULL;
    gw_answer_error(ex, status, status == 503 ? "Retry-After: 1\r\n" : NULL, "service %s: %s",
                    t->model->name, message);
    tunnel_free(t);
}

/* Afterwards only the connection can be cut. */
static void cut(struct gw_tunnel *t)
{
    struct at_http_exchange *ex = t->ex;
    t->ex = NULL;
    if (ex != NULL) {
        at_http_abort(ex);
    }
    tunnel_free(t);
}

/* All that was to be sent is on its way. */
static void end_client(struct gw_tunnel *t)
{
    struct at_http_exchange *ex = t->ex;
    t->ex = NULL;
    at_http_stream_end(ex);
    tunnel_free(t);
}

static void on_idle(void *ctx)
{
    struct gw_tunnel *t = ctx;
    int64_t left =
        t->active_ns + t->worker->gateway->tunnel_idle_ns - at_loop_now_ns(t->worker->loop);
    t->idle_timer = 0;
    if (left > 0) {
        t->idle_timer = at_loop_timer(t->worker->loop, left, on_idle, t);
        return;
    }
    if (t->state == TUNNEL_OPEN) {
        end_client(t);
    } else if (t->state == TUNNEL_ANSWER) {
        count(t, 504);
        cut(t);
    } else {
        fail(t, 504, "its replica did not answer in time");
    }
}

static void touch(struct gw_tunnel *t)
{
    t->active_ns = at_loop_now_ns(t->worker->loop);
}

/* Both have said their last: end the client's side too. */
static void end_if_both(struct gw_tunnel *t)
{
    if (t->up_ended && t->down_ended) {
        end_client(t);
    }
}

/* From the client. */
static size_t on_client(void *ctx, const char *data, size_t len)
{
    struct gw_tunnel *t = ctx;
    touch(t);
    if (at_stream_queued_bytes(t->up) > AT_GW_PAUSE_BYTES) {
        return 0; /* shown again by on_up_writable */
    }
    (void)!at_stream_write(t->up, data, len); /* broken: on_up_close comes */
    return len;
}

static void on_client_end(void *ctx)
{
    struct gw_tunnel *t = ctx;
    t->down_ended = true;
    touch(t);
    at_stream_end_half(t->up);
    end_if_both(t);
}

static void on_client_gone(void *ctx)
{
    struct gw_tunnel *t = ctx;
    t->ex = NULL;
    if (t->state != TUNNEL_OPEN) {
        count(t, 499);
    }
    tunnel_free(t);
}

static void on_client_writable(void *ctx)
{
    struct gw_tunnel *t = ctx;
    if (t->up_paused) {
        t->up_paused = false;
        at_stream_resume(t->up);
    }
}

/* Lines of the replica's 101, for the client. */
static enum at_rc agreement(const struct gw_tunnel *t, const struct at_http_head *head,
                            struct at_buf *out)
{
    enum at_rc rc =
        gw_headers_down(head, t->replica->instance, t->replica->site, t->request_id, out);
    return rc == AT_OK ? at_buf_append_str(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n")
                       : rc;
}

/* False: t is gone; so below. */
static bool open_tunnel(struct gw_tunnel *t, const struct at_http_head *head)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    if (!at_str_eq_nocase(at_http_header_get(head, "upgrade"), "websocket") ||
        agreement(t, head, &lines) != AT_OK) {
        fail(t, 502, "its replica switched to something else");
        return false;
    }
    count(t, 101);
    at_metric_observe_ns(t->model->duration, at_loop_now_ns(t->worker->loop) - t->start_ns);
    t->state = TUNNEL_OPEN;
    at_metric_add(t->worker->gateway->metrics.tunnels, 1);
    at_http_upgrade(t->ex, lines.data, on_client, t);
    at_http_upgraded_on_end(t->ex, on_client_end, t);
    return true;
}

static bool begin_answer(struct gw_tunnel *t, const struct at_http_head *head)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    if (gw_headers_down(head, t->replica->instance, t->replica->site, t->request_id, &lines) !=
            AT_OK ||
        (head->has_length && at_buf_printf(&lines, "Content-Length: %llu\r\n",
                                           (unsigned long long)head->content_length) != AT_OK)) {
        fail(t, 502, "its replica's answer is too large");
        return false;
    }
    t->state = TUNNEL_ANSWER;
    at_http1_body_begin(&t->body, head, AT_HTTP_GET);
    count(t, head->status);
    at_http_stream_begin(t->ex, head->status, NULL, lines.data);
    return true;
}

static bool take_head(struct gw_tunnel *t, const char *data, size_t len, size_t *used)
{
    struct at_http_head head;
    struct at_err err;
    enum at_rc rc = at_http1_parse_response(data + *used, len - *used, &head, &err);
    if (rc == AT_AGAIN && len - *used <= AT_HTTP_HEAD_BYTES_MAX) {
        return true;
    }
    if (rc != AT_OK) {
        fail(t, 502, "its replica's answer is malformed");
        return false;
    }
    *used += head.head_bytes;
    return head.status == 101   ? open_tunnel(t, &head)
           : head.status >= 200 ? begin_answer(t, &head)
                                : true; /* interim: the answer comes later */
}

/* To the client, as long as it takes what comes. */
static bool pass_down(struct gw_tunnel *t, const char *data, size_t len)
{
    enum at_rc rc = at_http_stream_write(t->ex, data, len);
    if (rc == AT_EXHAUSTED) {
        cut(t);
        return false;
    }
    if (rc == AT_OK && !t->up_paused && at_http_stream_queued_bytes(t->ex) > AT_GW_PAUSE_BYTES) {
        t->up_paused = true;
        at_stream_pause(t->up);
    }
    return true; /* not AT_OK: on_client_gone comes */
}

static bool take_answer(struct gw_tunnel *t, const char *data, size_t len, size_t *used)
{
    struct at_str piece;
    struct at_err err;
    size_t n = 0;
    if (at_http1_body_take(&t->body, data + *used, len - *used, &n, &piece, &err) != AT_OK) {
        cut(t);
        return false;
    }
    *used += n;
    return piece.len == 0 || pass_down(t, piece.ptr, piece.len);
}

static size_t on_up_data(void *ctx, const char *data, size_t len)
{
    struct gw_tunnel *t = ctx;
    size_t used = 0;
    touch(t);
    while (used < len) {
        enum tunnel_state before = t->state;
        size_t at = used;
        if (before == TUNNEL_OPEN) {
            (void)pass_down(t, data + used, len - used);
            return len;
        }
        bool alive = before == TUNNEL_ANSWER ? take_answer(t, data, len, &used)
                                             : take_head(t, data, len, &used);
        if (!alive) {
            return len;
        }
        if (t->state == TUNNEL_ANSWER && t->body.done) {
            end_client(t);
            return len;
        }
        if ((used == at && t->state == before) || t->up_paused) {
            break;
        }
    }
    return used;
}

static void on_up_open(void *ctx)
{
    struct gw_tunnel *t = ctx;
    const struct at_tls_peer *peer = at_stream_peer(t->up);
    if (t->replica->peer == NULL && peer != NULL && peer->http2) {
        fail(t, 502, "its replica speaks HTTP/2, by which no WebSocket is passed on");
        return;
    }
    t->state = TUNNEL_ASKED;
    touch(t);
    (void)!at_stream_write(t->up, t->request.data, t->request.len);
}

static void on_up_writable(void *ctx)
{
    struct gw_tunnel *t = ctx;
    if (t->state == TUNNEL_OPEN) {
        at_http_upgraded_resume(t->ex);
    }
}

static void on_up_end(void *ctx)
{
    struct gw_tunnel *t = ctx;
    touch(t);
    if (t->state == TUNNEL_OPEN) {
        t->up_ended = true;
        at_http_upgraded_end_half(t->ex);
        end_if_both(t);
    } else if (t->state == TUNNEL_ANSWER && at_http1_body_eof(&t->body, NULL) == AT_OK) {
        end_client(t);
    } else if (t->state == TUNNEL_ANSWER) {
        cut(t);
    } else {
        fail(t, 502, "its replica broke off");
    }
}

static void on_up_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct gw_tunnel *t = ctx;
    (void)rc, (void)err;
    t->up = NULL; /* freed by itself */
    if (t->state == TUNNEL_CONNECTING) {
        leave(t, GW_UNREACHED);
        attempt(t);
    } else if (t->state == TUNNEL_ASKED) {
        t->outcome = GW_ERROR;
        fail(t, 502, "its replica broke off");
    } else {
        cut(t);
    }
}

static void attempt(struct gw_tunnel *t)
{
    struct gw_worker *w = t->worker;
    int64_t now = at_loop_now_ns(w->loop);
    struct gw_replica *replica;
    enum gw_why why;
    if (t->n_tried >= AT_GW_ATTEMPTS_MAX ||
        gw_choose_take(w, t->model, &t->wish, t->tried, t->n_tried, now, &replica, &why) !=
            GW_CHOICE_MADE) {
        fail(t, 503, t->n_tried == 0 ? "no replica is ready" : "no replica can be reached");
        return;
    }
    gw_count_choice(w, t->model, replica, why);
    enter(t, replica);
    struct at_stream_events events = {.ctx = t,
                                      .on_open = on_up_open,
                                      .on_data = on_up_data,
                                      .on_writable = on_up_writable,
                                      .on_end = on_up_end,
                                      .on_close = on_up_close};
    t->up = at_stream_connect(
        w->loop, replica->addr, gw_replica_tls(w, replica), replica->peer,
        gw_replica_tls(w, replica) != NULL ? AT_GW_TLS_CONNECT_NS : AT_GW_CONNECT_NS, &events);
}

/* The request as the replica shall see it. */
static enum at_rc put_request(struct gw_tunnel *t, const struct gw_rule *rule)
{
    struct gw_worker *w = t->worker;
    const struct at_http_head *head = at_http_request(t->ex);
    AT_CLEANUP(at_cleanup_buf) struct at_buf target = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    struct gw_forwarded forwarded = gw_forwarded_of(t->ex, w->gateway->is_tls, rule->is_public);
    struct gw_ids ids = {
        .span = gw_random(w) | 1, .request = gw_random(w), .forwarded = &forwarded};
    const uint64_t random[] = {gw_random(w), gw_random(w), gw_random(w)};
    gw_trace_take(head, random, w->gateway->trace_share, &ids.trace);
    enum at_rc rc = gw_service_target(rule, head, &target);
    if (rc == AT_OK) {
        rc = gw_headers_up(head, &ids, t->id_text, &t->request_id, &lines);
    }
    if (rc == AT_OK) {
        rc = at_buf_printf(&t->request,
                           "GET %s HTTP/1.1\r\nHost: %.*s\r\nConnection: Upgrade\r\n"
                           "Upgrade: websocket\r\n%s\r\n",
                           target.data, (int)forwarded.host.len, forwarded.host.ptr, lines.data);
    }
    if (rc == AT_OK && t->request_id.ptr != t->id_text) { /* head's slices do not last */
        memcpy(t->client_id, t->request_id.ptr, t->request_id.len);
        t->request_id.ptr = t->client_id;
    }
    return rc;
}

void gw_tunnel_start(struct gw_worker *worker, struct at_http_exchange *ex, struct gw_model *model,
                     const struct gw_rule *rule)
{
    struct gw_tunnel *t = AT_NEW(struct gw_tunnel);
    t->worker = worker;
    t->ex = ex;
    t->model = model;
    t->key = at_strdup(worker->key);
    model->refs++;
    if (model->load != NULL) {
        atomic_fetch_add_explicit(&model->load->arrived, 1, memory_order_relaxed);
    }
    t->start_ns = t->active_ns = at_loop_now_ns(worker->loop);
    at_metric_add(worker->gateway->metrics.outstanding, 1);
    gw_wish_read(at_http_request(ex), model, gw_random(worker), &t->wish);
    if (put_request(t, rule) != AT_OK || gw_wish_keep(&t->wish, &t->words) != AT_OK) {
        fail(t, 431, "the headers are too large");
        return;
    }
    t->idle_timer = at_loop_timer(worker->loop, worker->gateway->tunnel_idle_ns, on_idle, t);
    at_http_on_gone(ex, on_client_gone, t);
    at_http_on_writable(ex, on_client_writable, t);
    attempt(t);
}
