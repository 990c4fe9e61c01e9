/* Whose request is next. The loop serves what comes until its turn is spent; from then on requests
 * wait in one queue per user and are taken in turns, so that a user with a thousand connections
 * gets no more of the server than one with a single connection. When as many requests are under way
 * or waiting as the server takes, users with more than their share are told 429. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

struct api_fair_user {
    struct api_fair *fair;
    char name[256];
    struct api_req *head, *tail; /* waiting, by req->next */
    size_t waiting, running;
    struct api_fair_user *next, *prev; /* ring of users with waiting requests */
};

struct api_fair {
    struct at_loop *loop;
    const struct at_sys *sys;
    size_t requests_max;
    int64_t turn_ns;
    struct at_map *users;
    struct api_fair_user *ring; /* whose turn it is */
    size_t waiting, running;
    int64_t turn_began_ns, spent_ns; /* of the loop's present turn */
    at_timer_id timer;
    struct at_metric *waiting_now, *running_now, *refused_total;
};

struct api_fair *api_fair_new(const struct at_api_options *options)
{
    struct api_fair *f = AT_NEW(struct api_fair);
    f->loop = options->loop;
    f->sys = at_loop_sys(options->loop);
    f->requests_max = options->requests_max > 0 ? options->requests_max : AT_API_REQUESTS_MAX;
    f->turn_ns = options->turn_ns > 0 ? options->turn_ns : AT_API_TURN_NS;
    f->users = at_map_new();
    if (options->metrics != NULL) {
        f->waiting_now = at_metric_with(
            at_metrics_family(options->metrics, AT_METRIC_GAUGE, "atoll_api_requests_waiting",
                              "Requests that wait for their user's turn.", NULL),
            NULL);
        f->running_now = at_metric_with(
            at_metrics_family(options->metrics, AT_METRIC_GAUGE, "atoll_api_requests_in_flight",
                              "Requests being served; streams are left out.", NULL),
            NULL);
        f->refused_total = at_metric_with(
            at_metrics_family(options->metrics, AT_METRIC_COUNTER, "atoll_api_overload_total",
                              "Requests refused with 429: their user had more than its share.",
                              NULL),
            NULL);
    }
    return f;
}

static void count(struct at_metric *metric, int64_t by)
{
    if (metric != NULL) {
        at_metric_add(metric, by);
    }
}

static struct api_fair_user *user_of(struct api_fair *f, const char *name)
{
    struct api_fair_user *u = at_map_get(f->users, name);
    if (u == NULL) {
        u = AT_NEW(struct api_fair_user);
        u->fair = f;
        snprintf(u->name, sizeof u->name, "%s", name);
        at_map_put(f->users, u->name, u);
    }
    return u;
}

static void user_drop_idle(struct api_fair_user *u)
{
    if (u->waiting == 0 && u->running == 0) {
        at_map_remove(u->fair->users, u->name);
        at_free(u);
    }
}

static bool over_share(const struct api_fair *f, const struct api_fair_user *u)
{
    size_t all = f->waiting + f->running;
    if (all < f->requests_max) {
        return false;
    }
    size_t share = f->requests_max / at_map_count(f->users);
    return all >= 2 * f->requests_max || u->waiting + u->running >= (share > 0 ? share : 1);
}

static void enqueue(struct api_fair_user *u, struct api_req *req)
{
    struct api_fair *f = u->fair;
    req->next = NULL;
    if (u->tail != NULL) {
        u->tail->next = req;
    } else {
        u->head = req;
    }
    u->tail = req;
    u->waiting++;
    f->waiting++;
    count(f->waiting_now, 1);
    if (u->waiting > 1) {
        return;
    }
    if (f->ring == NULL) { /* in at the end: just before whose turn it is */
        u->next = u;
        u->prev = u;
        f->ring = u;
    } else {
        u->next = f->ring;
        u->prev = f->ring->prev;
        u->prev->next = u;
        u->next->prev = u;
    }
}

/* The first of whose turn it is; the turn goes on to the next user. */
static struct api_req *dequeue(struct api_fair *f)
{
    struct api_fair_user *u = f->ring;
    struct api_req *req = u->head;
    assert(req != NULL);
    u->head = req->next;
    u->waiting--;
    f->waiting--;
    count(f->waiting_now, -1);
    f->ring = u->next;
    if (u->head == NULL) {
        u->tail = NULL;
        u->prev->next = u->next;
        u->next->prev = u->prev;
        f->ring = u->next != u ? u->next : NULL;
    }
    return req;
}

static void run(struct api_fair_user *u, struct api_req *req)
{
    struct api_fair *f = u->fair;
    u->running++;
    f->running++;
    count(f->running_now, 1);
    req->user = u;
    int64_t begin = at_sys_mono_ns(f->sys);
    api_serve(req);
    f->spent_ns += at_sys_mono_ns(f->sys) - begin;
}

static void next_turn(void *ctx)
{
    struct api_fair *f = ctx;
    f->timer = 0;
    f->turn_began_ns = at_loop_now_ns(f->loop);
    f->spent_ns = 0;
    while (f->ring != NULL && f->spent_ns < f->turn_ns) {
        struct api_fair_user *u = f->ring;
        struct api_req *req = dequeue(f);
        if (req->ex == NULL) {
            api_req_free(req); /* its client did not wait */
            user_drop_idle(u);
        } else {
            run(u, req);
        }
    }
    if (f->ring != NULL) {
        f->timer = at_loop_timer(f->loop, 0, next_turn, f);
    }
}

void api_fair_take(struct api_req *req)
{
    struct api_fair *f = req->api->fair;
    struct api_fair_user *u = user_of(f, api_asker(req));
    if (over_share(f, u)) {
        user_drop_idle(u);
        count(f->refused_total, 1);
        api_respond_error(req, AT_EXHAUSTED,
                          "the server is busy and user \"%s\" has its share of it, try again later",
                          api_asker(req));
        return;
    }
    if (at_loop_now_ns(f->loop) != f->turn_began_ns) {
        f->turn_began_ns = at_loop_now_ns(f->loop);
        f->spent_ns = 0;
    }
    if (f->ring == NULL && f->spent_ns < f->turn_ns) {
        run(u, req);
        return;
    }
    enqueue(u, req);
    if (f->timer == 0) {
        f->timer = at_loop_timer(f->loop, 0, next_turn, f);
    }
}

void api_fair_leave(struct api_req *req)
{
    struct api_fair_user *u = req->user;
    if (u == NULL) {
        return;
    }
    assert(u->running > 0);
    req->user = NULL;
    u->running--;
    u->fair->running--;
    count(u->fair->running_now, -1);
    user_drop_idle(u);
}

void api_fair_free(struct api_fair *f)
{
    if (f == NULL) {
        return;
    }
    at_loop_timer_cancel(f->loop, f->timer);
    while (f->ring != NULL) {
        struct api_fair_user *u = f->ring;
        struct api_req *req = dequeue(f);
        api_respond_error(req, AT_UNAVAILABLE, "the server is stopping");
        user_drop_idle(u);
    }
    size_t it = 0;
    const char *name;
    void *user;
    while (at_map_next(f->users, &it, &name, &user)) {
        at_free(user);
    }
    at_map_free(f->users);
    at_free(f);
}
