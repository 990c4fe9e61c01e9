#include "agent/agent_priv.h"

#include <stdio.h>

/* A runner answers its own readiness; other instances without a probe are ready once started. */
static const struct at_probe RUNNER_READINESS = {.http_path = "/v2/health/ready",
                                                 .period_ns = AT_NS_PER_S,
                                                 .timeout_ns = AT_NS_PER_S,
                                                 .failure_threshold = 3,
                                                 .success_threshold = 1};

static void readiness_check(void *ctx);
static void liveness_check(void *ctx);

static const struct at_probe *readiness_of(const struct agent_instance *i)
{
    const struct at_workload *w = &i->typed->spec;
    if (w->readiness_probe != NULL) {
        return w->readiness_probe;
    }
    return w->runner != NULL && w->runner[0] != '\0' ? &RUNNER_READINESS : NULL;
}

/* Count one outcome. */
static void count(struct agent_probe *p, bool passed)
{
    p->failures = passed ? 0 : p->failures + 1;
    p->successes = passed ? p->successes + 1 : 0;
}

static void readiness_result(struct agent_instance *i, bool passed)
{
    const struct at_probe *probe = readiness_of(i);
    struct agent_probe *p = &i->readiness;
    count(p, passed);
    int64_t wait =
        i->ready || probe->period_ns < AGENT_READY_POLL_NS ? probe->period_ns : AGENT_READY_POLL_NS;
    p->timer = at_loop_timer(i->agent->loop, wait, readiness_check, i);
    if (p->successes >= probe->success_threshold) {
        agent_instance_readiness(i, true);
    } else if (p->failures >= probe->failure_threshold) {
        agent_instance_readiness(i, false);
    }
}

static void liveness_result(struct agent_instance *i, bool passed)
{
    const struct at_probe *probe = i->typed->spec.liveness_probe;
    struct agent_probe *p = &i->liveness;
    count(p, passed);
    p->timer = at_loop_timer(i->agent->loop, probe->period_ns, liveness_check, i);
    if (p->failures >= probe->failure_threshold) {
        char why[128];
        snprintf(why, sizeof why, "the liveness probe failed %lld times in a row",
                 (long long)p->failures);
        agent_instance_unhealthy(i, why);
    }
}

/* --- one check: by HTTP or by connecting --- */

struct check {
    struct agent_instance *instance;
    struct agent_probe *probe;
    void (*result)(struct agent_instance *i, bool passed);
    int status;
    bool opened;
};

static void http_head(void *ctx, const struct at_http_head *head)
{
    struct check *c = ctx;
    c->status = head->status;
}

static void http_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    (void)err;
    struct check *c = ctx;
    bool passed = rc == AT_OK && c->status >= 200 && c->status < 400;
    c->probe->call = 0;
    if (rc != AT_CANCELLED) {
        c->result(c->instance, passed);
    }
    at_free(c);
}

static void tcp_open(void *ctx)
{
    struct check *c = ctx;
    c->opened = true;
    at_stream_close(c->probe->stream);
}

static size_t tcp_data(void *ctx, const char *data, size_t len)
{
    (void)ctx;
    (void)data;
    return len;
}

static void tcp_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc;
    (void)err;
    struct check *c = ctx;
    if (c->instance != NULL) {
        c->probe->stream = NULL;
        c->result(c->instance, c->opened);
    }
    at_free(c);
}

static void tcp_orphan_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc;
    (void)err;
    at_free(ctx);
}

static void check_begin(struct agent_instance *i, const struct at_probe *probe,
                        struct agent_probe *p,
                        void (*result)(struct agent_instance *i, bool passed))
{
    struct check *c = AT_NEW(struct check);
    *c = (struct check){.instance = i, .probe = p, .result = result};
    p->timer = 0;
    if (probe->http_path == NULL || probe->http_path[0] == '\0') {
        struct at_stream_events events = {
            .ctx = c, .on_open = tcp_open, .on_data = tcp_data, .on_close = tcp_close};
        p->stream = at_stream_connect(i->agent->loop, agent_network_addr(i), NULL, NULL,
                                      probe->timeout_ns, &events);
        return;
    }
    bool http2 = at_streq(i->typed->spec.app_protocol, "h2c");
    struct at_http_call call = {.addr = agent_network_addr(i),
                                .http2 = http2 ? AT_HTTP2_ALWAYS : AT_HTTP2_NEVER,
                                .method = AT_HTTP_GET,
                                .target = probe->http_path,
                                .timeout_ns = probe->timeout_ns,
                                .ctx = c,
                                .on_head = http_head,
                                .on_done = http_done};
    p->call = at_http_call(i->agent->http, &call);
}

static void readiness_check(void *ctx)
{
    struct agent_instance *i = ctx;
    check_begin(i, readiness_of(i), &i->readiness, readiness_result);
}

static void liveness_check(void *ctx)
{
    struct agent_instance *i = ctx;
    check_begin(i, i->typed->spec.liveness_probe, &i->liveness, liveness_result);
}

void agent_probes_start(struct agent_instance *i)
{
    const struct at_probe *ready = readiness_of(i);
    const struct at_probe *live = i->typed->spec.liveness_probe;
    i->readiness = i->liveness = (struct agent_probe){0};
    if (i->endpoint == NULL || ready == NULL) {
        agent_instance_readiness(i, true);
    } else {
        i->readiness.timer =
            at_loop_timer(i->agent->loop, ready->initial_delay_ns, readiness_check, i);
    }
    if (i->endpoint != NULL && live != NULL) {
        i->liveness.timer =
            at_loop_timer(i->agent->loop, live->initial_delay_ns, liveness_check, i);
    }
}

static void probe_stop(struct agent_instance *i, struct agent_probe *p)
{
    at_loop_timer_cancel(i->agent->loop, p->timer);
    if (p->call != 0) {
        at_http_call_cancel(i->agent->http, p->call);
    }
    if (p->stream != NULL) {
        /* The stream outlives the instance by one turn of the loop. */
        struct check *c = AT_NEW(struct check);
        struct at_stream_events events = {
            .ctx = c, .on_data = tcp_data, .on_close = tcp_orphan_close};
        at_stream_set_events(p->stream, &events);
        at_stream_close(p->stream);
    }
    *p = (struct agent_probe){0};
}

void agent_probes_stop(struct agent_instance *i)
{
    probe_stop(i, &i->readiness);
    probe_stop(i, &i->liveness);
}
