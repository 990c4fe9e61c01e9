/* Answers that are kept, in the request's own loop: looked for before a replica is, taken down
 * while the answer goes to the client. Who asks the same while it is being made waits for it. */
#include "core/mem.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Is the answer to it the same each time? */
static bool is_settled(const struct gw_request *r, const struct gw_path *path)
{
    const struct gw_scan_more *more = &path->more;
    if (path->infer) {
        return r->grpc == NULL;
    }
    bool cold = more->temperature.len > 0;
    for (size_t i = 0; i < more->temperature.len && cold; i++) { /* 0, 0.0, 0e0 */
        char c = more->temperature.ptr[i];
        cold = c == '0' || c == '.' || (i > 0 && (c == 'e' || c == 'E' || c == '+' || c == '-'));
    }
    bool seeded = more->seed.len > 0 && more->seed.ptr[0] != 'n';
    return r->openai && (cold || seeded);
}

static const struct gw_cache_policy *policy_of(const struct gw_request *r)
{
    const struct gw_key *key = r->meter.key;
    if (key == NULL) {
        return NULL; /* nobody knows whose it would be */
    }
    return r->model->policy.caches                 ? &r->model->policy.cache
           : key->more != NULL && key->more->cache ? &key->more->cache_policy
                                                   : NULL;
}

/* Whose answers: no text of one kind can be taken for one of another. */
static void name_scope(const struct gw_request *r, const struct gw_cache_policy *policy,
                       struct at_buf *out)
{
    const struct at_meter_who *who = &r->meter.key->who;
    at_buf_clear(out);
    switch (policy->share) {
    case GW_CACHE_KEY:
        (void)!at_buf_printf(out, "k %s", who->uid);
        return;
    case GW_CACHE_TEAM: /* of different namespaces they are not one team */
        (void)!at_buf_printf(out, "t %s %s", who->ns, who->team);
        return;
    case GW_CACHE_NAMESPACE:
        (void)!at_buf_printf(out, "n %s", who->ns);
        return;
    case GW_CACHE_EVERYONE:
        (void)!at_buf_append_str(out, "e");
        return;
    }
}

static struct at_meter_ask ask_of(const struct gw_request *r)
{
    const struct at_http_head *head = at_http_request(r->ex);
    return (struct at_meter_ask){
        .scope = {r->kept.scope.data, r->kept.scope.len},
        .model = at_str_of(r->model->qualified != NULL ? r->model->qualified : r->model->name),
        .target = head->target,
        .body = at_http_request_body(r->ex)};
}

/* An answer holds as long as the replica that gave it is one of the model's: what replaces it may
 * answer otherwise. */
static bool still_holds(const struct gw_model *model, uint64_t tag)
{
    for (size_t i = 0; i < model->n_all; i++) {
        if (model->replicas[i]->id_hash == tag) {
            return true;
        }
    }
    return false;
}

static void count(struct gw_request *r, const char *result)
{
    const char *const labels[] = {r->model->name, result, NULL};
    at_metric_add(at_metric_with(r->worker->gateway->metrics.kept, labels), 1);
}

/* It costs what the policy says. */
static void charge(struct gw_request *r, const struct gw_cache_policy *policy,
                   const struct at_meter_reply *reply)
{
    struct gw_meter *m = &r->meter;
    m->cached = true;
    r->obs.usage = (struct gw_usage){.prompt = reply->prompt, .completion = reply->completion};
    if (policy->charge != GW_CHARGE_FULL) {
        m->price.input_microusd = m->price.output_microusd = 0;
    }
    if (policy->charge == GW_CHARGE_NOTHING) {
        m->price.request_microusd = 0;
    }
}

static void answer(struct gw_request *r, const struct gw_cache_policy *policy,
                   const struct at_meter_reply *reply)
{
    struct at_http_exchange *ex = r->ex;
    charge(r, policy, reply);
    count(r, "hit");
    at_buf_clear(&r->down);
    (void)!at_buf_append(&r->down, reply->head.ptr, reply->head.len);
    (void)!at_buf_printf(&r->down, "X-Request-Id: %.*s\r\nAtoll-Cache: hit\r\n",
                         (int)r->request_id.len, r->request_id.ptr);
    gw_meter_head(r);
    r->obs.bytes_out += reply->body.len;
    /* The body stays until the cache is changed, which ending a request does not. */
    if (reply->is_stream) {
        at_http_stream_begin(ex, 200, NULL, r->down.data);
        bool sent = reply->body.len == 0 ||
                    at_http_stream_write(ex, reply->body.ptr, reply->body.len) == AT_OK;
        r->ex = NULL;
        gw_request_answered(r, sent ? 200 : 499);
        if (sent) {
            at_http_stream_end(ex);
        } else {
            at_http_abort(ex);
        }
    } else {
        r->ex = NULL;
        gw_request_answered(r, 200);
        at_http_respond(ex, 200, NULL, r->down.data, reply->body.ptr, reply->body.len);
    }
    gw_request_over(r);
}

/* The one that makes the answer that r waits for, or would. */
static struct gw_request *maker_of(struct gw_request *r, uint64_t hash,
                                   const struct at_meter_ask *ask)
{
    for (struct gw_request *m = r->worker->makers; m != NULL; m = m->kept.next) {
        if (m->kept.hash == hash && m->ex != NULL) {
            struct at_meter_ask other = ask_of(m);
            if (at_meter_ask_same(&other, ask)) {
                return m;
            }
        }
    }
    return NULL;
}

bool gw_cache_begin(struct gw_request *r, const struct gw_path *path)
{
    struct gw_worker *w = r->worker;
    const struct gw_cache_policy *policy = policy_of(r);
    if (policy == NULL || r->method != AT_HTTP_POST || !is_settled(r, path) || path->rule != NULL) {
        return false;
    }
    name_scope(r, policy, &r->kept.scope);
    /* Of the same bytes another version says something else, as do other bounds of the JSON. */
    struct at_str json =
        at_http_header_get(at_http_request(r->ex), "inference-header-content-length");
    (void)!at_buf_printf(&r->kept.scope, "\nv %.*s\nh %.*s", (int)r->wish.version.len,
                         r->wish.version.ptr != NULL ? r->wish.version.ptr : "", (int)json.len,
                         json.ptr != NULL ? json.ptr : "");
    r->kept.policy = *policy;
    return gw_cache_look(r, w);
}

bool gw_cache_look(struct gw_request *r, struct gw_worker *w)
{
    struct at_meter_ask ask = ask_of(r);
    struct at_meter_reply reply;
    if (w->replies == NULL) {
        w->replies = at_meter_cache_new(AT_GW_CACHE_BYTES / w->gateway->n_workers);
    }
    if (at_meter_cache_find(w->replies, &ask, at_loop_now_ns(w->loop), &reply)) {
        if (still_holds(r->model, reply.tag)) {
            answer(r, &r->kept.policy, &reply);
            return true;
        }
        at_meter_cache_forget(w->replies, &ask);
    }
    r->kept.hash = at_meter_ask_hash(w->replies, &ask);
    struct gw_request *maker = maker_of(r, r->kept.hash, &ask);
    if (maker != NULL && w->n_cache_waiters < AT_GW_CACHE_WAITERS_MAX) {
        count(r, "waited");
        r->kept.is_waiting = true;
        r->kept.next = maker->kept.waiters;
        maker->kept.waiters = r;
        r->kept.maker = maker;
        w->n_cache_waiters++;
        return true;
    }
    count(r, "miss");
    r->kept.is_making = maker == NULL;
    if (r->kept.is_making) {
        r->kept.next = w->makers;
        w->makers = r;
        at_buf_clear(&r->kept.body);
        r->kept.body.max = AT_GW_CACHE_REPLY_BYTES;
    }
    return false;
}

void gw_cache_head(struct gw_request *r, const struct at_http_head *head)
{
    struct gw_kept *k = &r->kept;
    if (!k->is_making) {
        return;
    }
    struct at_str control = at_http_header_get(head, "cache-control");
    k->fits = head->status == 200 && !at_str_starts(control, "no-store") &&
              at_http_header_get(head, "set-cookie").ptr == NULL && r->cookie[0] == '\0' &&
              at_http_header_get(head, "content-encoding").ptr == NULL;
    k->is_stream = r->sse;
    k->tag = r->replica->id_hash;
    at_buf_clear(&k->head);
    static const char *const LINES[] = {"content-type", "inference-header-content-length"};
    for (size_t i = 0; i < AT_ARRAY_LEN(LINES) && k->fits; i++) {
        struct at_str value = at_http_header_get(head, LINES[i]);
        if (value.len > 0) {
            (void)!at_buf_printf(&k->head, "%s: %.*s\r\n", LINES[i], (int)value.len, value.ptr);
        }
    }
    (void)!at_buf_append_str(&r->down, "Atoll-Cache: miss\r\n");
}

void gw_cache_data(struct gw_request *r, const char *data, size_t len)
{
    if (r->kept.is_making && r->kept.fits && len > 0) {
        r->kept.fits = at_buf_append(&r->kept.body, data, len) == AT_OK;
    }
}

static void take_out(struct gw_request **list, const struct gw_request *r)
{
    while (*list != NULL && *list != r) {
        list = &(*list)->kept.next;
    }
    if (*list != NULL) {
        *list = r->kept.next;
    }
}

void gw_cache_end(struct gw_request *r, bool whole)
{
    struct gw_worker *w = r->worker;
    struct gw_kept *k = &r->kept;
    if (k->is_waiting) {
        take_out(&k->maker->kept.waiters, r);
        k->is_waiting = false;
        w->n_cache_waiters--;
        return;
    }
    if (!k->is_making) {
        return;
    }
    if (whole && k->fits && r->ex != NULL) {
        struct at_meter_ask ask = ask_of(r);
        struct at_meter_reply reply = {.head = {k->head.data, k->head.len},
                                       .body = {k->body.data, k->body.len},
                                       .is_stream = k->is_stream,
                                       .tag = k->tag,
                                       .prompt = r->obs.usage.prompt,
                                       .completion = r->obs.usage.completion};
        at_meter_cache_put(w->replies, &ask, &reply, at_loop_now_ns(w->loop) + k->policy.ttl_ns);
    }
    k->is_making = false;
    take_out(&w->makers, r);
    /* They look again: one of them makes it, if this one did not. */
    struct gw_request *waiters = k->waiters;
    k->waiters = NULL;
    while (waiters != NULL) {
        struct gw_request *one = waiters;
        waiters = one->kept.next;
        one->kept.is_waiting = false;
        one->kept.is_ready = true;
        one->kept.next = w->ready;
        w->ready = one;
        w->n_cache_waiters--;
    }
    if (w->ready != NULL && w->ready_timer == 0) {
        w->ready_timer = at_loop_timer(w->loop, 0, gw_cache_serve, w);
    }
}

void gw_cache_serve(void *worker)
{
    struct gw_worker *w = worker;
    w->ready_timer = 0;
    while (w->ready != NULL) {
        struct gw_request *r = w->ready;
        w->ready = r->kept.next;
        r->kept.next = NULL;
        r->kept.is_ready = false;
        if (!gw_cache_look(r, w)) {
            gw_request_start(r);
        }
    }
}

bool gw_cache_leave(struct gw_request *r)
{
    bool waited = r->kept.is_waiting || r->kept.is_ready;
    if (r->kept.is_ready) {
        take_out(&r->worker->ready, r);
        r->kept.is_ready = false;
    }
    if (r->kept.is_waiting) {
        gw_cache_end(r, false);
    }
    return waited;
}
