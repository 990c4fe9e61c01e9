/* `atoll gateway`: the inference data plane. */
#include "apps/apps.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "gateway/gateway.h"
#include "gateway/limits.h"
#include "sys/fd.h"
#include "sys/machine.h"

#include <signal.h>

struct gateway_app {
    struct at_loop *loop;
    struct at_gateway *gateway;
    struct at_err err;
};

static void on_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct gateway_app *app = ctx;
    if (at_app_began(app->loop, rc, err, &app->err)) {
        at_app_ready("ready gateway %s", at_gateway_url(app->gateway));
    }
}

static void stop(void *ctx, int signal_number)
{
    struct gateway_app *app = ctx;
    at_log(AT_LOG_INFO, "gateway.stop", "stopping on signal %d", signal_number);
    if (app->gateway == NULL) {
        at_loop_stop(app->loop);
        return;
    }
    at_gateway_stop(app->gateway, at_app_stopped, app->loop);
}

static void reload(void *ctx, int signal_number)
{
    struct gateway_app *app = ctx;
    (void)signal_number;
    if (app->gateway != NULL) {
        at_gateway_reload(app->gateway);
    }
}

/* The loop by the back end that was asked for; what it became is in the log and in /metrics. */
static enum at_rc make_loop(struct gateway_app *app, const char *wanted)
{
    enum at_loop_backend backend = AT_LOOP_AUTO;
    struct at_err why = {0};
    enum at_rc rc = wanted != NULL ? at_loop_backend_parse(wanted, &backend, &app->err) : AT_OK;
    if (rc != AT_OK) {
        return at_err_wrap(&app->err, rc, "--loop-backend");
    }
    rc = at_loop_new_on(at_sys_real(), backend, &app->loop, &why);
    if (rc != AT_OK) {
        return at_err_set(&app->err, rc, "%s; --loop-backend auto takes epoll then", why.msg);
    }
    at_log(AT_LOG_INFO, "gateway.loop", "event loops by %s%s%s",
           at_loop_backend_name(at_loop_backend(app->loop)), why.rc != AT_OK ? ": " : "",
           why.rc != AT_OK ? why.msg : "");
    return AT_OK;
}

static int gateway_run(struct gateway_app *app, struct at_gateway_options *o, const char *backend,
                       bool with_stdin)
{
    enum at_rc rc = make_loop(app, backend);
    if (rc != AT_OK) {
        return at_app_fail("gateway", &app->err);
    }
    o->loop = app->loop;
    o->on_ready = on_ready;
    o->ctx = app;
    rc = at_app_on_stop(app->loop, stop, app, &app->err);
    if (rc == AT_OK) {
        rc = at_loop_signal(app->loop, SIGHUP, reload, app, &app->err);
    }
    if (rc == AT_OK) {
        rc = at_gateway_new(o, &app->gateway, &app->err);
    }
    if (rc == AT_OK) {
        if (with_stdin) {
            at_app_on_stdin_eof(app->loop, stop, app);
        }
        at_loop_run(app->loop);
    }
    at_gateway_free(app->gateway);
    at_loop_free(app->loop);
    return app->err.rc != AT_OK ? at_app_fail("gateway", &app->err) : 0;
}

static enum at_rc threads_of(const char *text, uint64_t *ret, struct at_err *err)
{
    struct at_machine machine;
    if (text == NULL) {
        at_machine_read(&machine);
        *ret = machine.cpus < AT_GW_THREADS_MAX ? (uint64_t)machine.cpus : AT_GW_THREADS_MAX;
        return AT_OK;
    }
    if (at_str_to_u64(at_str_of(text), ret) != AT_OK || *ret == 0 || *ret > AT_GW_THREADS_MAX) {
        return at_err_set_field(err, AT_INVALID, "threads", "%s: must be 1 to %d", text,
                                AT_GW_THREADS_MAX);
    }
    return AT_OK;
}

/* What bounds requests that wait, and answers that do not come; NULL: as the gateway likes. */
struct bounds {
    const char *queue_requests, *queue_bytes, *answer_timeout, *client_timeout, *drain_timeout,
        *tunnel_idle, *busy_poll, *key_idle;
};

static enum at_rc bounds_of(const struct bounds *b, struct at_gateway_options *o,
                            struct at_err *err)
{
    const struct {
        const char *name, *text;
        size_t *ret_n;
        int64_t *ret_ns;
    } rows[] = {{"queue-requests", b->queue_requests, &o->wait_requests_max, NULL},
                {"queue-bytes", b->queue_bytes, &o->wait_bytes_max, NULL},
                {"answer-timeout", b->answer_timeout, NULL, &o->first_byte_timeout_ns},
                {"client-timeout", b->client_timeout, NULL, &o->client_timeout_ns},
                {"drain-timeout", b->drain_timeout, NULL, &o->drain_timeout_ns},
                {"tunnel-idle", b->tunnel_idle, NULL, &o->tunnel_idle_ns},
                {"busy-poll", b->busy_poll, NULL, &o->busy_poll_ns},
                {"key-idle", b->key_idle, NULL, &o->key_idle_ns}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        int64_t value = 1;
        enum at_rc rc = AT_OK;
        if (rows[i].text != NULL) {
            rc = rows[i].ret_ns != NULL ? at_duration_ns(rows[i].text, &value, err)
                                        : at_quantity_units(rows[i].text, &value, err);
        }
        if (rc == AT_OK && value <= 0) {
            rc = at_err_set(err, AT_INVALID, "%s: must be more than 0", rows[i].text);
        }
        if (rc == AT_OK && rows[i].ret_ns == &o->busy_poll_ns && value > AT_GW_BUSY_POLL_NS_MAX) {
            rc = at_err_set(err, AT_INVALID, "%s: must be %d ms at most", rows[i].text,
                            (int)(AT_GW_BUSY_POLL_NS_MAX / 1000000));
        }
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "--%s", rows[i].name);
        }
        if (rows[i].text != NULL && rows[i].ret_ns != NULL) {
            *rows[i].ret_ns = value;
        } else if (rows[i].text != NULL) {
            *rows[i].ret_n = (size_t)value;
        }
    }
    return AT_OK;
}

/* What the options say, as it was written. */
struct texts {
    struct at_app_join join;
    const char *threads, *backend, *playground;
    struct bounds bounds;
};

static int with_texts(struct at_gateway_options *o, struct texts *texts, bool with_stdin)
{
    struct gateway_app app = {0};
    uint64_t n = 0;
    at_app_log_start("gateway");
    enum at_rc rc = threads_of(texts->threads, &n, &app.err);
    if (rc == AT_OK) {
        rc = bounds_of(&texts->bounds, o, &app.err);
    }
    if (rc == AT_OK && texts->playground != NULL) {
        o->no_playground = strcmp(texts->playground, "off") == 0;
        if (!o->no_playground && strcmp(texts->playground, "on") != 0) {
            rc = at_err_set_field(&app.err, AT_INVALID, "playground", "%s: must be on or off",
                                  texts->playground);
        }
    }
    if (rc == AT_OK) {
        rc = at_app_join_read("gateway", &texts->join, &app.err);
    }
    if (rc != AT_OK) {
        return at_app_fail("gateway", &app.err);
    }
    o->server = texts->join.server;
    o->token = texts->join.secret;
    o->state_dir = texts->join.dir;
    o->n_threads = (unsigned)n;
    o->descriptors = at_fd_raise_limit();
    return gateway_run(&app, o, texts->backend, with_stdin);
}

int at_app_gateway(int argc, char **argv)
{
    struct texts texts = {0};
    bool with_stdin = false;
    struct at_gateway_options o = {.name = at_sys_hostname(), .listen = "127.0.0.1:7080"};
    const struct at_app_option options[] = {
        AT_APP_JOIN_OPTIONS(&texts.join, &o.ca_pin),
        {"name", &o.name, NULL, NULL, "NAME", "Name of this gateway (default: host name)."},
        {"site", &o.site, NULL, NULL, "NAME", "Site where it stands: near replicas are preferred."},
        {"state", &texts.join.state_dir, NULL, NULL, "DIR",
         "Where its certificate is kept (default /var/lib/atoll/gateway as root, else "
         "~/.local/state/atoll/gateway)."},
        {"listen", &o.listen, NULL, NULL, "ADDR",
         "Address to serve on (default 127.0.0.1:7080; port 0: a free one)."},
        {"auth-token-file", &o.auth_token_file, NULL, NULL, "FILE",
         "Tokens that clients must bring, one a line."},
        {"require-keys", NULL, &o.require_keys, NULL, NULL,
         "Nobody comes without an API key (atoll key create) or one of those tokens."},
        {"tls-cert", &o.tls_cert_file, NULL, NULL, "FILE",
         "Certificate chain, PEM; needed unless the address is loopback. Read again when it "
         "changes, and on SIGHUP."},
        {"tls-key", &o.tls_key_file, NULL, NULL, "FILE", "Its key, PEM."},
        {"tunnel-idle", &texts.bounds.tunnel_idle, NULL, NULL, "TIME",
         "WebSocket connections on which nothing comes for so long are cut (default 10m)."},
        {"access-log", &o.access_log, NULL, NULL, "FILE",
         "Write a line of JSON for each request to FILE, or - for standard output. The file may be "
         "renamed at any time."},
        {"access-log-rates", &o.access_log_rates, NULL, NULL, "RATES",
         "Share of the requests in it, as 0.1, or by status: 2xx=0.01,4xx=1,5xx=1 (default 1)."},
        {"otlp-endpoint", &o.otlp_endpoint, NULL, NULL, "URL",
         "Send spans to this OpenTelemetry collector by OTLP/HTTP, as http://127.0.0.1:4318."},
        {"otlp-headers-file", &o.otlp_headers_file, NULL, NULL, "FILE",
         "Header lines for the collector, such as Authorization: Bearer KEY."},
        {"otlp-ca", &o.otlp_ca_file, NULL, NULL, "FILE",
         "Trust the collector by this CA, PEM (default: those of the system)."},
        {"trace-ratio", &o.trace_ratio, NULL, NULL, "RATIO",
         "Share of the traces that begin here that is sampled (default 1); others go by their "
         "traceparent."},
        {"queue-requests", &texts.bounds.queue_requests, NULL, NULL, "N",
         "Requests that may wait for a replica, per event loop (default 16384)."},
        {"queue-bytes", &texts.bounds.queue_bytes, NULL, NULL, "SIZE",
         "Bytes of their bodies, per event loop (default 256Mi)."},
        {"answer-timeout", &texts.bounds.answer_timeout, NULL, NULL, "TIME",
         "For a replica to begin its answer, and between the pieces of it (default 5m)."},
        {"client-timeout", &texts.bounds.client_timeout, NULL, NULL, "TIME",
         "For a client to send a whole request (default 1m)."},
        {"drain-timeout", &texts.bounds.drain_timeout, NULL, NULL, "TIME",
         "For what is under way when it is told to stop (default 10s)."},
        {"key-idle", &texts.bounds.key_idle, NULL, NULL, "TIME",
         "API keys that are not used for so long give back what they have of budgets and rates "
         "(default 5m)."},
        {"playground", &texts.playground, NULL, NULL, "on|off",
         "Pages at /playground for trying models in a browser (default on)."},
        {"threads", &texts.threads, NULL, NULL, "N", "Event loops (default: one for each CPU)."},
        {"loop-backend", &texts.backend, NULL, NULL, "NAME",
         "How event loops wait: io_uring, epoll or auto (default: io_uring where the kernel allows "
         "it)."},
        {"busy-poll", &texts.bounds.busy_poll, NULL, NULL, "TIME",
         "Look for more without sleeping for so long after anything came, as 100us: lower latency, "
         "at the cost of CPU time (default: sleep at once)."},
        {"static-routes", &o.static_routes, NULL, NULL, "FILE",
         "Routes from a file instead of a control plane."},
        {"exit-with-stdin", NULL, &with_stdin, NULL, NULL, "End when standard input is closed."},
        {NULL, NULL, NULL, NULL, NULL, NULL}};
    int exit_status = 0;
    if (!at_app_options("gateway", "passes inference requests to replicas", options, argc, argv,
                        &exit_status)) {
        return exit_status;
    }
    exit_status = with_texts(&o, &texts, with_stdin);
    at_app_join_done(&texts.join);
    return exit_status;
}
