#include "gateway/wait.h"

#include "gateway/proxy_priv.h"

#include <assert.h>

static const char *const NAMES[GW_PRIORITIES] = {
    [GW_LOW] = "low", [GW_NORMAL] = "normal", [GW_HIGH] = "high", [GW_CRITICAL] = "critical"};

bool gw_priority_parse(struct at_str text, enum gw_priority *ret)
{
    for (int p = 0; p < GW_PRIORITIES; p++) {
        if (at_str_eq_nocase(text, NAMES[p])) {
            *ret = (enum gw_priority)p;
            return true;
        }
    }
    return false;
}

static void count_shed(const struct gw_request *r, const char *reason)
{
    const char *const labels[] = {r->model->name, NAMES[r->turn.priority], reason, NULL};
    at_metric_add(at_metric_with(r->worker->gateway->metrics.shed, labels), 1);
}

static struct at_metric *depth_of(struct gw_request *r)
{
    struct gw_line *line = &r->model->queue.lines[r->turn.priority];
    if (line->depth == NULL) {
        const char *const labels[] = {r->model->name, NAMES[r->turn.priority], NULL};
        line->depth = at_metric_with(r->worker->gateway->metrics.queued, labels);
    }
    return line->depth;
}

static void add_counts(struct gw_request *r, int sign)
{
    struct gw_worker *w = r->worker;
    struct gw_queue *q = &r->model->queue;
    q->n += (size_t)sign;
    q->bytes += (size_t)sign * r->turn.bytes;
    w->n_waiting += (size_t)sign;
    w->waiting_bytes += (size_t)sign * r->turn.bytes;
    at_metric_add(depth_of(r), sign);
    at_metric_add(w->gateway->metrics.queued_bytes, sign * (int64_t)r->turn.bytes);
    if (r->model->load != NULL) {
        atomic_fetch_add_explicit(&r->model->load->waiting, sign, memory_order_relaxed);
    }
}

static void unlink_turn(struct gw_request *r)
{
    struct gw_line *line = &r->model->queue.lines[r->turn.priority];
    struct gw_turn *t = &r->turn;
    assert(t->waiting);
    *(t->prev != NULL ? &t->prev->turn.next : &line->first) = t->next;
    *(t->next != NULL ? &t->next->turn.prev : &line->last) = t->prev;
    t->next = t->prev = NULL;
    t->waiting = false;
    add_counts(r, -1);
    at_loop_timer_cancel(r->worker->loop, t->deadline);
    t->deadline = 0;
}

/* By the time it came: one that was with a replica before has its old place. */
static void link_turn(struct gw_request *r)
{
    struct gw_line *line = &r->model->queue.lines[r->turn.priority];
    struct gw_turn *t = &r->turn;
    struct gw_request *after = line->last;
    while (after != NULL && after->turn.since_ns > t->since_ns) {
        after = after->turn.prev;
    }
    t->prev = after;
    t->next = after != NULL ? after->turn.next : line->first;
    *(t->prev != NULL ? &t->prev->turn.next : &line->first) = r;
    *(t->next != NULL ? &t->next->turn.prev : &line->last) = r;
    t->waiting = true;
    add_counts(r, 1);
}

static void refuse(struct gw_request *r, int status, const char *reason, const char *message)
{
    count_shed(r, reason);
    gw_request_fail(r, status, message);
}

static void on_deadline(void *ctx)
{
    struct gw_request *r = ctx;
    r->turn.deadline = 0;
    unlink_turn(r);
    refuse(r, 503, "deadline",
           r->turn.unreached ? "no replica can be reached" : "no replica had room for it in time");
}

/* Is there room for r beside what waits? */
static const char *what_is_full(const struct gw_request *r)
{
    const struct gw_worker *w = r->worker;
    const struct gw_queue *q = &r->model->queue;
    const struct gw_policy *p = &r->model->policy;
    const struct at_gateway *g = w->gateway;
    if (q->n + 1 > p->wait_requests || w->n_waiting + 1 > g->wait_requests_max) {
        return "full";
    }
    if (q->bytes + r->turn.bytes > p->wait_bytes ||
        w->waiting_bytes + r->turn.bytes > g->wait_bytes_max) {
        return "bytes";
    }
    return NULL;
}

/* Whoever is worth less than r: retries first, then the newest of the lowest class. */
static struct gw_request *victim_for(const struct gw_request *r)
{
    const struct gw_queue *q = &r->model->queue;
    for (int p = 0; p <= (int)r->turn.priority && !r->turn.again; p++) {
        struct gw_request *last = q->lines[p].last;
        for (int n = 0; last != NULL && n < AT_GW_WAIT_TRIES_MAX; n++, last = last->turn.prev) {
            if (last->turn.again) {
                return last;
            }
        }
    }
    for (int p = 0; p < (int)r->turn.priority; p++) {
        if (q->lines[p].last != NULL) {
            return q->lines[p].last;
        }
    }
    return NULL;
}

static void on_tick(void *ctx);

static void tick_start(struct gw_worker *w)
{
    if (w->wait_timer == 0) {
        w->wait_timer = at_loop_timer(w->loop, AT_GW_WAIT_TICK_NS, on_tick, w);
    }
}

/* What nobody tells of: room that another loop made, a replica whose time of ejection is over. */
static void on_tick(void *ctx)
{
    struct gw_worker *w = ctx;
    void *value;
    w->wait_timer = 0;
    for (size_t it = 0; w->n_waiting > 0 && at_map_next(w->models, &it, NULL, &value);) {
        gw_wait_serve(w, value);
    }
    if (w->n_waiting > 0) {
        tick_start(w);
    }
}

void gw_wait_enter(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    int64_t now = at_loop_now_ns(w->loop);
    int64_t wait_ns = r->model->policy.wait_ns;
    wait_ns = r->timeout_ns > 0 && r->timeout_ns < wait_ns ? r->timeout_ns : wait_ns;
    r->turn.since_ns = r->start_ns;
    r->turn.bytes = at_http_request_body(r->ex).len + (r->grpc != NULL ? r->grpc->body.len : 0);
    wait_ns -= now - r->start_ns;
    if (wait_ns <= 0 && r->model->n_replicas > 0 && !r->turn.unreached) {
        refuse(r, 429, "busy", "too many requests are under way");
        return;
    }
    if (wait_ns <= 0 || !r->model->in_view) {
        refuse(r, 503, r->model->policy.wait_ns > 0 ? "deadline" : "none",
               r->turn.unreached ? "no replica can be reached" : "no replica is ready");
        return;
    }
    for (const char *full; (full = what_is_full(r)) != NULL;) {
        struct gw_request *victim = victim_for(r);
        if (victim == NULL) {
            refuse(r, 429, full, "too many requests wait");
            return;
        }
        unlink_turn(victim);
        refuse(victim, 429, "displaced", "requests of higher priority took its place");
    }
    link_turn(r);
    r->turn.deadline = at_loop_timer(w->loop, wait_ns, on_deadline, r);
    tick_start(w);
    if (r->model->n_replicas == 0) {
        gw_report_poke(w, r->model);
    }
}

void gw_wait_leave(struct gw_request *r)
{
    unlink_turn(r);
}

/* The line whose first request has the best claim. */
static struct gw_request *first_in_turn(const struct gw_queue *q)
{
    struct gw_request *best = NULL;
    int64_t best_claim = 0;
    for (int p = GW_PRIORITIES - 1; p >= 0; p--) {
        struct gw_request *first = q->lines[p].first;
        int64_t claim = first != NULL ? first->turn.since_ns - p * AT_GW_WAIT_AGE_NS : 0;
        if (first != NULL && (best == NULL || claim < best_claim)) {
            best = first;
            best_claim = claim;
        }
    }
    return best;
}

/* A version or a place of its own: it may have to wait while others need not, and the reverse. */
static bool is_narrow(const struct gw_request *r)
{
    return r->wish.pin != 0 || r->wish.data_class.len > 0 || r->wish.jurisdictions.len > 0;
}

/* Whose turn it is of those that may go. Who waits for a version or a place holds up nobody else;
 * of the others the first one speaks for all. */
static struct gw_request *next_to_go(const struct gw_queue *q)
{
    struct gw_request *first = first_in_turn(q);
    if (first == NULL || gw_request_may_go(first)) {
        return first;
    }
    bool blocked = !is_narrow(first);
    int tries = AT_GW_WAIT_TRIES_MAX;
    for (int p = GW_PRIORITIES - 1; p >= 0; p--) {
        for (struct gw_request *r = q->lines[p].first; r != NULL && tries > 0; r = r->turn.next) {
            tries--;
            if (r == first || (blocked && !is_narrow(r))) {
                continue;
            }
            if (gw_request_may_go(r)) {
                return r;
            }
            blocked = blocked || !is_narrow(r);
        }
    }
    return NULL;
}

void gw_wait_serve(struct gw_worker *worker, struct gw_model *model)
{
    struct gw_queue *q = &model->queue;
    if (q->n == 0) {
        return;
    }
    model->refs++; /* the last request may end in it */
    for (struct gw_request *r; (r = next_to_go(q)) != NULL;) {
        if (q->waited == NULL) {
            const char *const labels[] = {model->name, NULL};
            q->waited = at_metric_with(worker->gateway->metrics.queue_wait, labels);
        }
        at_metric_observe_ns(q->waited, at_loop_now_ns(worker->loop) - r->turn.since_ns);
        unlink_turn(r);
        gw_request_go(r);
    }
    model->refs--;
    gw_model_drop(model);
}

void gw_wait_end(struct gw_model *model, int status, const char *message)
{
    struct gw_queue *q = &model->queue;
    model->refs++; /* the caller's to drop */
    for (struct gw_request *r; (r = first_in_turn(q)) != NULL;) {
        unlink_turn(r);
        refuse(r, status, "ended", message);
    }
    model->refs--;
}

void gw_wait_done(struct gw_worker *worker)
{
    at_loop_timer_cancel(worker->loop, worker->wait_timer);
    worker->wait_timer = 0;
}
