/* One request from client to replica and back. Attempts go on until an answer is on its way to the
 * client; from then on a failure can only cut the connection. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/grpc.h"
#include "gateway/headers.h"
#include "gateway/proxy_priv.h"
#include "gateway/sse_end.h"
#include "gateway/tunnel.h"
#include "sys/socket.h"

#include <assert.h>
#include <stdio.h>

/* OpenAI's clients then do not try again by themselves. */
static const char NO_RETRY[] = "x-should-retry: false\r\n";

static const char RETRY_AFTER[] = "Retry-After: 1\r\n";

static const struct gw_handlers HANDLERS = {gw_request_on_head, gw_request_on_body,
                                            gw_request_on_done};

static void attempt(struct gw_request *r, const char *reason);

/* xoroshiro128+, Blackman and Vigna 2018: ids must differ, not be secret. */
uint64_t gw_random(struct gw_worker *w)
{
    uint64_t a = w->prng[0], b = w->prng[1], result = a + b;
    b ^= a;
    w->prng[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
    w->prng[1] = b << 37 | b >> 27;
    return result;
}

static struct gw_request *request_new(struct gw_worker *w)
{
    struct gw_request *r = w->free_requests;
    if (r == NULL) {
        r = AT_NEW(struct gw_request);
    } else {
        w->free_requests = r->next_free;
        struct at_buf up = r->up, down = r->down, hold = r->hold, target = r->target,
                      host = r->host, line = r->line, named = r->body, amended = r->meter.body,
                      scope = r->kept.scope, kept_head = r->kept.head, kept_body = r->kept.body;
        *r = (struct gw_request){.up = up,
                                 .down = down,
                                 .hold = hold,
                                 .target = target,
                                 .host = host,
                                 .line = line,
                                 .body = named,
                                 .meter = {.body = amended},
                                 .kept = {.scope = scope, .head = kept_head, .body = kept_body}};
        at_buf_clear(&r->meter.body);
        at_buf_clear(&r->target);
        at_buf_clear(&r->host);
    }
    r->worker = w;
    r->start_ns = at_loop_now_ns(w->loop); /* of the turn: no clock is read per request */
    return r;
}

static void request_free(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    assert(r->call == 0);
    assert(r->replica == NULL);
    gw_hedge_end(r);
    at_metric_add(w->gateway->metrics.outstanding, -1);
    r->model->refs--;
    gw_model_drop(r->model);
    if (r->grpc != NULL) {
        gw_grpc_call_done(r->grpc);
        at_free(r->grpc);
    }
    assert(r->meter.key == NULL); /* it was counted */
    gw_cache_end(r, false);
    if (r->kept.body.cap > AT_GW_HOLD_BYTES_MAX) {
        at_buf_done(&r->kept.body);
    }
    if (r->body.cap > AT_GW_HOLD_BYTES_MAX) {
        at_buf_done(&r->body);
    }
    if (r->meter.body.cap > AT_GW_HOLD_BYTES_MAX) {
        at_buf_done(&r->meter.body);
    }
    if (r->hold.cap > AT_GW_HOLD_BYTES_MAX) {
        at_buf_done(&r->hold);
    }
    r->next_free = w->free_requests;
    w->free_requests = r;
}

void gw_requests_free(struct gw_worker *worker)
{
    while (worker->free_requests != NULL) {
        struct gw_request *r = worker->free_requests;
        worker->free_requests = r->next_free;
        at_buf_done(&r->up);
        at_buf_done(&r->target);
        at_buf_done(&r->body);
        at_buf_done(&r->meter.body);
        at_buf_done(&r->kept.scope);
        at_buf_done(&r->kept.head);
        at_buf_done(&r->kept.body);
        at_buf_done(&r->host);
        at_buf_done(&r->line);
        at_buf_done(&r->down);
        at_buf_done(&r->hold);
        at_free(r);
    }
}

/* The answer has been given: count it. */
static void answered(struct gw_request *r, int status, const struct gw_replica *replica)
{
    struct gw_worker *w = r->worker;
    if (status == 200 && replica != NULL) {
        at_metric_add(replica->answered, 1);
    } else {
        gw_count(w, r->model->name, replica != NULL ? replica->site : "", status);
    }
    at_metric_observe_ns(r->model->duration, at_loop_now_ns(w->loop) - r->start_ns);
    gw_observe_end(r, status, (struct gw_replica *)replica);
}

/* Has every replica had it that may? */
static bool all_tried(const struct gw_request *r)
{
    return !gw_choose_has_more(r->worker, r->model, &r->wish, r->tried, r->n_tried);
}

/* tried_all: nobody is left to ask, so that the client need not ask again. */
static void fail_saying(struct gw_request *r, int status, bool tried_all, const char *message)
{
    struct at_http_exchange *ex = r->ex;
    r->ex = NULL;
    answered(r, status, NULL);
    if (r->openai) {
        gw_openai_answer_error(r->worker, ex, status,
                               &(struct gw_openai_error){.headers = tried_all ? NO_RETRY : NULL,
                                                         .request_id = r->request_id},
                               "model %s: %s", r->model->name, message);
    } else {
        gw_answer_error(ex, status, status == 503 || status == 429 ? RETRY_AFTER : NULL,
                        "model %s: %s", r->model->name, message);
    }
    request_free(r);
}

void gw_request_fail(struct gw_request *r, int status, const char *message)
{
    fail_saying(r, status, false, message);
}

void gw_request_answered(struct gw_request *r, int status)
{
    answered(r, status, NULL);
}

void gw_request_over(struct gw_request *r)
{
    request_free(r);
}

static void on_gone(void *ctx)
{
    struct gw_request *r = ctx;
    r->ex = NULL;
    answered(r, 499, r->replica);
    if (gw_meter_leave(r) || gw_cache_leave(r)) {
        request_free(r);
        return;
    }
    if (r->turn.waiting) {
        gw_wait_leave(r);
        request_free(r);
        return;
    }
    gw_hedge_end(r);
    at_http_call_cancel(r->worker->client, r->call); /* on_done frees r */
}

static void on_writable(void *ctx)
{
    struct gw_request *r = ctx;
    if (r->paused) {
        r->paused = false;
        at_http_call_pause(r->worker->client, r->call, false);
    }
}

static void begin_stream(struct gw_request *r);

/* Is there somebody else to ask? */
static bool can_retry(const struct gw_request *r)
{
    return !r->upload.begun && r->n_tried < r->model->policy.attempts && !all_tried(r);
}

/* Is the retry within the model's budget? None is while others wait for the first time. */
static bool may_pay(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    bool crowded = r->model->queue.n > 0;
    bool pays = !crowded && gw_retry_take(&r->model->retries, at_loop_now_ns(w->loop));
    if (!pays) {
        const char *const labels[] = {r->model->name, crowded ? "overload" : "budget", NULL};
        at_metric_add(at_metric_with(w->gateway->metrics.retries_shed, labels), 1);
    }
    return pays;
}

/* Is this answer one that another replica may better? */
static bool is_refusal(const struct gw_request *r)
{
    return !r->upload.begun &&
           ((r->status == 503 && (r->safe || r->openai)) || (r->status == 502 && r->safe));
}

/* 503 of the last one of several: the client is told that all have been asked. */
static void say_all_tried(struct gw_request *r, const struct at_http_head *head)
{
    if (r->openai && r->status == 503 && r->n_tried > 1 && all_tried(r) &&
        at_http_header_get(head, "x-should-retry").ptr == NULL) {
        (void)!at_buf_append_str(&r->down, NO_RETRY);
    }
}

/* To whoever asks for it: how long the request waited for its replica (and tried others), and the
 * replica took to begin its answer. The replica adds stages of its own in the same way. */
static void say_timing(struct gw_request *r)
{
    if (r->timing) {
        int64_t now = at_loop_now_ns(r->worker->loop), sent = r->hedge.sent_ns;
        (void)!at_buf_printf(&r->down,
                             "Server-Timing: gw-queue;dur=%.3f;desc=\"waiting for a replica\", "
                             "replica;dur=%.3f;desc=\"until the replica began its answer\"\r\n",
                             (double)(sent - r->start_ns) / 1e6, (double)(now - sent) / 1e6);
    }
}

void gw_request_on_head(void *ctx, const struct at_http_head *head)
{
    struct gw_request *r = ctx;
    r->status = head->status;
    r->has_length = head->has_length;
    r->length = head->content_length;
    r->sse = r->status == 200 && !r->has_length && r->method != AT_HTTP_HEAD &&
             at_str_starts(at_http_header_get(head, "content-type"), "text/event-stream");
    uint64_t json_bytes;
    if (r->grpc != NULL &&
        at_str_to_u64(at_http_header_get(head, "inference-header-content-length"), &json_bytes) ==
            AT_OK) {
        r->json_bytes = json_bytes <= SIZE_MAX / 2 ? (size_t)json_bytes : SIZE_MAX / 2;
    }
    r->unreached = r->replica->peer != NULL && r->status == 503 &&
                   at_str_eq(at_http_header_get(head, AT_RELAY_HEADER), "unreached");
    if (r->unreached) {
        r->discard = r->begun = true;
        return;
    }
    bool hedged = r->hedge.call != 0; /* a copy is on its way, and paid for */
    r->discard = is_refusal(r) && (hedged || (can_retry(r) && may_pay(r)));
    r->begun = true;
    if (r->discard) {
        return;
    }
    gw_hedge_end(r);
    gw_latency_add(&r->model->latency, at_loop_now_ns(r->worker->loop) - r->hedge.sent_ns);
    if (gw_headers_down(head, r->replica->instance, r->replica->site, r->request_id, &r->down) !=
        AT_OK) {
        at_buf_clear(&r->down);
    }
    if (r->cookie[0] != '\0') {
        (void)!at_buf_printf(&r->down, "Set-Cookie: %s=%s; Path=/; HttpOnly\r\n",
                             r->model->session_cookie, r->cookie);
    }
    say_all_tried(r, head);
    gw_meter_head(r);
    gw_cache_head(r, head);
    say_timing(r);
    gw_observe_head(r, head);
    if (r->host.len > 0 && (r->sse || (!r->has_length && at_http_body_is_coming(r->ex)))) {
        begin_stream(r); /* the client waits for the head, and the first piece may be far off */
    }
}

static void observe_first_byte(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    if (r->model->first_byte == NULL) {
        const char *const labels[] = {r->model->name, NULL};
        r->model->first_byte = at_metric_with(w->gateway->metrics.first_byte, labels);
    }
    at_metric_observe_ns(r->model->first_byte, at_loop_now_ns(w->loop) - r->start_ns);
}

static void begin_stream(struct gw_request *r)
{
    char length[48] = "";
    if (r->has_length) {
        snprintf(length, sizeof length, "Content-Length: %llu\r\n", (unsigned long long)r->length);
    }
    (void)!at_buf_append_str(&r->down, length); /* without it the answer is chunked */
    r->streaming = true;
    if (r->stream && r->status == 200) {
        observe_first_byte(r);
    }
    at_http_stream_begin(r->ex, r->status, NULL, r->down.data);
}

static void send_on(struct gw_request *r, const char *data, size_t len)
{
    gw_observe_data(r, data, len);
    size_t skip = 0, first = r->sse ? gw_meter_strip(r, data, len, &skip) : len;
    gw_cache_data(r, data, first);
    gw_cache_data(r, data + first + skip, len - first - skip);
    if ((first > 0 && at_http_stream_write(r->ex, data, first) != AT_OK) ||
        (first + skip < len &&
         at_http_stream_write(r->ex, data + first + skip, len - first - skip) != AT_OK)) {
        return; /* on_gone comes from the stream, or the end finds the answer short */
    }
    if (!r->paused && at_http_stream_queued_bytes(r->ex) > AT_GW_PAUSE_BYTES) {
        r->paused = true;
        at_http_call_pause(r->worker->client, r->call, true);
    }
}

/* Events go when they are whole; what has begun stays in hold. */
static void pass_on(struct gw_request *r, const char *data, size_t len)
{
    size_t seen = r->sse ? r->hold.len : 0;
    if (seen > 0) {
        if (at_buf_append(&r->hold, data, len) != AT_OK) {
            return; /* the end finds the answer short */
        }
        data = r->hold.data;
        len = r->hold.len;
    }
    size_t whole = r->sse ? gw_sse_whole((struct at_str){data, len}, seen) : len;
    bool endless = len - whole > AT_GW_HOLD_BYTES_MAX;
    r->sse = r->sse && !endless;
    whole = endless ? len : whole;
    if (whole > 0) {
        send_on(r, data, whole);
    }
    if (data == r->hold.data) {
        at_buf_consume(&r->hold, whole);
    } else if (whole < len && at_buf_append(&r->hold, data + whole, len - whole) != AT_OK) {
        r->sse = false;
    }
}

/* What the replica said went wrong, in either form of the protocol. */
static void replica_error(const char *data, size_t len, char *out, size_t size)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    const char *text = NULL;
    if (len > 0 && at_json_parse(data, len, &root, NULL) == AT_OK) {
        text = at_json_str_at(root, "error", NULL);
    }
    snprintf(out, size, "%s", text != NULL ? text : "the replica refused");
}

static void answer_grpc(struct gw_request *r, const char *data, size_t len)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf message = {0};
    struct at_http_exchange *ex = r->ex;
    struct at_err err;
    enum at_rc rc;
    r->ex = NULL;
    if (r->grpc_kind == GW_GRPC_MODEL_READY && r->status != 404) {
        rc = gw_grpc_own(r->grpc_kind, r->status == 200, &message);
    } else if (r->status != 200) {
        char text[AT_ERR_MSG_BYTES_MAX];
        replica_error(data, len, text, sizeof text);
        answered(r, r->status, r->replica);
        gw_answer_error(ex, r->status, r->down.data, "model %s: %s", r->model->name, text);
        return;
    } else {
        rc =
            gw_grpc_answer(r->grpc_kind, (struct at_str){data, len}, r->json_bytes, &message, &err);
    }
    answered(r, rc == AT_OK ? 200 : 502, r->replica);
    if (rc != AT_OK) {
        gw_answer_error(ex, 502, r->down.data, "model %s: %s", r->model->name, err.msg);
        return;
    }
    gw_answer_grpc(ex, r->down.data, &message);
}

static void answer_whole(struct gw_request *r, const char *data, size_t len)
{
    if (r->grpc != NULL) {
        answer_grpc(r, data, len);
        return;
    }
    struct at_http_exchange *ex = r->ex;
    gw_observe_data(r, data, len);
    gw_cache_data(r, data, len);
    gw_cache_end(r, true);
    r->ex = NULL;
    answered(r, r->status, r->replica);
    at_http_respond(ex, r->status, NULL, r->down.data, data, len);
}

void gw_request_on_body(void *ctx, const char *data, size_t len)
{
    struct gw_request *r = ctx;
    if (r->discard || r->ex == NULL) {
        return;
    }
    if (r->streaming) {
        pass_on(r, data, len);
        gw_meter_cut(r);
        return;
    }
    if (r->has_length && r->hold.len == 0 && len == r->length) {
        answer_whole(r, data, len); /* the usual case: nothing is copied */
        return;
    }
    size_t hold_max = r->grpc != NULL ? AT_GW_BODY_BYTES_MAX : AT_GW_HOLD_BYTES_MAX;
    bool may_hold = r->has_length ? r->length <= hold_max : r->infer;
    if (may_hold && r->hold.len + len <= hold_max && at_buf_append(&r->hold, data, len) == AT_OK) {
        return;
    }
    if (r->grpc != NULL) { /* it cannot be translated in parts */
        struct at_http_exchange *ex = r->ex;
        r->ex = NULL;
        answered(r, 502, r->replica);
        gw_answer_error(ex, 502, NULL, "model %s: the replica's answer is too large",
                        r->model->name);
        return;
    }
    begin_stream(r);
    if (r->hold.len > 0 && !r->sse) {
        send_on(r, r->hold.data, r->hold.len);
        at_buf_clear(&r->hold);
    }
    pass_on(r, data, len);
    gw_meter_cut(r);
}

static void end_answer(struct gw_request *r)
{
    if (r->ex == NULL) {
        return;
    }
    if (!r->streaming && r->method != AT_HTTP_HEAD) {
        answer_whole(r, r->hold.data, r->hold.len);
        return;
    }
    if (!r->streaming) {
        begin_stream(r); /* HEAD: the length of a body that does not come */
    }
    if (r->hold.len > 0) {
        send_on(r, r->hold.data, r->hold.len); /* no whole event, but the replica's last words */
    }
    struct at_http_exchange *ex = r->ex;
    gw_cache_end(r, true);
    r->ex = NULL;
    answered(r, r->status, r->replica);
    at_http_stream_end(ex);
}

static void leave_replica(struct gw_request *r, enum at_rc rc, bool sent)
{
    struct gw_replica *replica = r->replica;
    enum gw_outcome outcome = rc == AT_CANCELLED || rc == AT_EXHAUSTED        ? GW_NOTHING
                              : rc == AT_OK && !gw_status_is_error(r->status) ? GW_FINE
                              : sent || rc == AT_OK                           ? GW_ERROR
                                                                              : GW_UNREACHED;
    gw_observe_attempt_end(r, r->status);
    r->replica = NULL;
    r->turn.unreached |= outcome == GW_UNREACHED;
    gw_request_unsend(r, replica, outcome);
}

static void count_upstream_error(struct gw_request *r, const char *reason)
{
    const char *const labels[] = {r->model->name, r->replica->site, reason, NULL};
    at_metric_add(at_metric_with(r->worker->gateway->metrics.upstream_errors, labels), 1);
}

/* Nobody is left to ask, but somebody may come: it takes its place among those that wait. */
static bool may_wait(struct gw_request *r)
{
    if (r->model->policy.wait_ns == 0 || (!r->turn.unreached && r->model->n_replicas > 0)) {
        return false;
    }
    r->n_tried = 0;
    r->turn.again = true;
    return true;
}

/* The client has a part of the answer: it is told in the stream itself where that can be done, and
 * by a cut connection where not. Nothing cut looks complete. */
static void break_off(struct gw_request *r, enum at_rc rc)
{
    struct at_http_exchange *ex = r->ex;
    AT_CLEANUP(at_cleanup_buf) struct at_buf event = {0};
    char message[AT_ERR_MSG_BYTES_MAX];
    bool slow_client = rc == AT_TIMEOUT && r->paused;
    snprintf(message, sizeof message, "model %s: its replica %s", r->model->name,
             rc == AT_TIMEOUT ? "stopped answering" : "broke off");
    r->ex = NULL;
    answered(r, slow_client ? 499 : 502, NULL);
    if (r->sse && !slow_client && gw_sse_error(message, &event) == AT_OK &&
        at_http_stream_write(ex, event.data, event.len) == AT_OK) {
        at_http_stream_end(ex);
    } else {
        at_http_abort(ex);
    }
    request_free(r);
}

/* The replica did not answer, or its answer is not wanted: ask another, or tell the client. */
static void on_attempt_failed(struct gw_request *r, enum at_rc rc, bool sent)
{
    if (r->unreached) {
        rc = AT_UNAVAILABLE;
        sent = r->discard = r->unreached = false;
    }
    bool by_client = r->paused || r->upload.problem != 0;
    const char *reason = by_client           ? "client"
                         : r->discard        ? "status"
                         : rc == AT_TIMEOUT  ? (sent ? "timeout" : "connect")
                         : !sent             ? "connect"
                         : rc == AT_UPSTREAM ? "answer"
                                             : "lost";
    bool budgeted = r->discard; /* on_head has paid for it */
    count_upstream_error(r, reason);
    leave_replica(r, r->paused ? AT_CANCELLED : rc, sent);
    if (gw_upload_failed(r)) {
        return;
    }
    if (r->streaming) {
        break_off(r, rc);
        return;
    }
    at_buf_clear(&r->hold);
    r->discard = false;
    if (gw_hedge_promote(r)) {
        r->begun = false;
        return;
    }
    bool safe = (!sent || ((r->safe || budgeted) && rc != AT_TIMEOUT)) && !r->upload.begun;
    /* A lone replica may just have closed an idle connection: ask it once more. */
    if (safe && sent && !can_retry(r) && r->n_tried == 1 && r->model->n_replicas == 1) {
        r->tried[0] = NULL;
    }
    if (safe && can_retry(r) && (budgeted || may_pay(r))) {
        attempt(r, reason);
        return;
    }
    if (safe && rc != AT_EXHAUSTED && may_wait(r)) {
        gw_wait_enter(r);
        return;
    }
    if (rc != AT_EXHAUSTED) {
        gw_model_note(gw_now(r->worker), r->model, false);
    }
    if (rc == AT_TIMEOUT && sent) {
        gw_request_fail(r, 504, "its replica did not answer in time");
    } else if (sent) {
        fail_saying(r, 502, r->safe && all_tried(r), "its replica broke off");
    } else {
        fail_saying(r, 503, rc != AT_EXHAUSTED && all_tried(r),
                    rc == AT_EXHAUSTED ? "too many requests wait" : "no replica can be reached");
    }
}

void gw_request_on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct gw_request *r = ctx;
    (void)err;
    r->call = 0;
    if (r->hedge.switching) { /* the copy was faster */
        leave_replica(r, rc, bytes_sent);
        return;
    }
    if (rc == AT_OK && !r->discard) {
        gw_model_note(gw_now(r->worker), r->model, true);
        end_answer(r);
    } else if (r->ex != NULL) {
        on_attempt_failed(r, rc, bytes_sent);
        return;
    }
    leave_replica(r, rc, bytes_sent);
    request_free(r);
}

static bool has_room(const struct gw_model *model)
{
    return model->policy.requests_max == 0 || model->running < model->policy.requests_max;
}

bool gw_request_may_go(struct gw_request *r)
{
    int64_t now = at_loop_now_ns(r->worker->loop);
    struct gw_replica *replica;
    enum gw_why why;
    return has_room(r->model) &&
           gw_choose(r->worker, r->model, &r->wish, NULL, 0, now, &replica, &why) ==
               GW_CHOICE_MADE &&
           !(r->turn.unreached && gw_replica_avoided(replica, now));
}

void gw_request_go(struct gw_request *r)
{
    r->turn.unreached = false;
    attempt(r, r->turn.again ? "waited" : NULL);
}

static void count_retry(const struct gw_request *r, const char *reason)
{
    const char *const labels[] = {r->model->name, reason, NULL};
    at_metric_add(at_metric_with(r->worker->gateway->metrics.retries, labels), 1);
}

/* Send the request to the best replica that has not had it. reason: of a retry, else NULL. */
static void attempt(struct gw_request *r, const char *reason)
{
    struct gw_worker *w = r->worker;
    int64_t now = at_loop_now_ns(w->loop);
    struct gw_replica *replica = NULL;
    enum gw_why why;
    enum gw_choice choice = GW_CHOICE_BUSY;
    if (r->n_tried > 0 || has_room(r->model)) {
        choice = gw_choose_take(w, r->model, &r->wish, r->tried, r->n_tried, now, &replica, &why);
    }
    if (choice == GW_CHOICE_VERSION) {
        gw_request_fail_version(r);
        return;
    }
    if (choice != GW_CHOICE_MADE && r->n_tried == 0) {
        gw_wait_enter(r);
        return;
    }
    if (choice != GW_CHOICE_MADE) {
        gw_request_fail(r, 503, "no other replica is ready");
        return;
    }
    gw_count_choice(w, r->model, replica, why);
    gw_learn_prefix(w, r->model, replica);
    if (reason != NULL) {
        count_retry(r, reason);
    }
    r->replica = replica;
    r->begun = false;
    r->hedge.won = false;
    gw_observe_attempt(r);
    r->call = gw_request_send(r, replica, &HANDLERS);
    gw_hedge_plan(r);
    if (r->n_tried == 1 && reason == NULL && !r->upload.is) {
        gw_shadow(r);
    }
}

static void count_client_retry(const struct gw_request *r, const struct at_http_head *head)
{
    struct at_str count = at_http_header_get(head, "x-stainless-retry-count");
    if (r->openai && count.len > 0 && !at_str_eq(count, "0")) {
        const char *const labels[] = {r->model->name, NULL};
        at_metric_add(at_metric_with(r->worker->gateway->metrics.client_retries, labels), 1);
    }
}

/* On its way, unless it has to wait behind others. */
static void start(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    struct gw_model *model = r->model;
    if (model->load != NULL) {
        atomic_fetch_add_explicit(&model->load->arrived, 1, memory_order_relaxed);
    }
    if (!gw_model_allows(gw_now(w), model)) {
        gw_request_fail(r, 503, "too many requests for it have failed; it is tried again soon");
    } else if (model->queue.n > 0) {
        model->refs++;
        gw_wait_enter(r);
        gw_wait_serve(w, model);
        model->refs--;
        gw_model_drop(model);
    } else {
        attempt(r, NULL);
    }
}

void gw_request_start(struct gw_request *r)
{
    start(r);
}

/* What its headers ask for, and tell; NULL: all of it can be. */
static const char *headers_problem(struct gw_request *r, const struct at_http_head *head)
{
    count_client_retry(r, head);
    if (!gw_auth_priority(r->worker, at_http_header_get(head, "x-atoll-priority"),
                          &r->turn.priority)) {
        return "X-Atoll-Priority must be critical, high, normal or low";
    }
    return gw_hedge_read(r, head)
               ? NULL
               : "X-Atoll-Hedge must be off, p50, p90, p95, p99 or a time as 50ms";
}

/* NULL: there is none, or none that may be asked. */
static struct gw_model *find_model(struct gw_worker *w, const struct gw_path *path)
{
    struct gw_model *model = gw_model_find(w, path->model, path->model_len);
    return model != NULL && gw_meter_may_ask(w, model) ? model : NULL;
}

static void enter(struct gw_request *r, const struct gw_path *path)
{
    struct at_http_exchange *ex = r->ex;
    enum gw_admission admission = gw_meter_begin(r, path);
    if (admission == GW_REFUSED) {
        return;
    }
    at_http_on_gone(ex, on_gone, r);
    at_http_on_writable(ex, on_writable, r);
    if (admission == GW_ADMITTED && (r->upload.is || !gw_cache_begin(r, path))) {
        start(r);
    }
}

void gw_request_begin(struct gw_worker *w, struct at_http_exchange *ex, const struct gw_path *path,
                      enum gw_grpc_kind grpc_kind, struct gw_grpc_call *grpc_take)
{
    const struct at_http_head *head = at_http_request(ex);
    struct gw_model *model = path->found != NULL ? path->found : find_model(w, path);
    if (model == NULL || head->method == AT_HTTP_METHOD_OTHER) {
        int status = model != NULL ? 501 : w->has_table ? 404 : 503;
        gw_count(w, model != NULL ? model->name : "", "", status);
        gw_answer_error(ex, status, status == 503 ? "Retry-After: 1\r\n" : NULL,
                        status == 501   ? "model %s: this method is not known here"
                        : status == 404 ? "no model is called %s"
                                        : "model %s: no routes are known yet",
                        path->model);
        if (grpc_take != NULL) {
            gw_grpc_call_done(grpc_take);
            at_free(grpc_take);
        }
        return;
    }
    struct gw_request *r = request_new(w);
    r->ex = ex;
    r->model = model;
    model->refs++;
    at_metric_add(w->gateway->metrics.outstanding, 1);
    r->grpc_kind = grpc_kind;
    r->grpc = grpc_take;
    r->timeout_ns = grpc_take != NULL ? gw_grpc_timeout_ns(head) : 0;
    r->method = grpc_take != NULL && grpc_kind != GW_GRPC_MODEL_INFER ? AT_HTTP_GET : head->method;
    r->infer = path->infer;
    r->openai = path->kind == GW_PATH_OPENAI;
    r->stream = path->stream;
    r->upload.is = at_http_body_is_coming(ex);
    r->timing = at_http_header_get(head, "x-atoll-timing").len > 0;
    r->safe = path->infer || (r->method != AT_HTTP_POST && r->method != AT_HTTP_PATCH);
    at_buf_clear(&r->hold);
    at_buf_clear(&r->down);
    gw_retry_earn(&model->retries, &model->policy);
    gw_wish_read(head, model, gw_random(w), &r->wish);
    gw_wish_add(&r->wish, model, path, at_http_request_body(ex).len);
    gw_wish_cookie(&r->wish, model, r->cookie, gw_random(w));
    r->asked = path->rule == NULL ? gw_hash((struct at_str){path->model, path->model_len}) : 0;
    r->raw_model = path->raw_model;
    gw_observe_begin(r);
    struct gw_ids ids = {.trace = r->obs.trace,
                         .span = r->obs.attempt_span,
                         .request = gw_random(w),
                         .grpc = grpc_take != NULL,
                         .lines = grpc_take != NULL ? grpc_take->lines.data : NULL};
    r->obs.lines_bytes = ids.lines != NULL ? strlen(ids.lines) : 0;
    struct gw_forwarded forwarded;
    if (path->rule != NULL) {
        forwarded = gw_forwarded_of(ex, w->gateway->is_tls, path->rule->is_public);
        ids.forwarded = &forwarded;
    }
    if (gw_headers_up(head, &ids, r->id_text, &r->request_id, &r->up) != AT_OK ||
        (path->rule != NULL && gw_request_aim(r, path->rule, &forwarded) != AT_OK)) {
        gw_request_fail(r, 431, "the headers are too large");
        return;
    }
    const char *problem = headers_problem(r, head);
    if (problem != NULL) {
        gw_request_fail(r, 400, problem);
        return;
    }
    enter(r, path);
}
