/* load: requests to a model at a fixed concurrency, with latencies and accuracy. */
#include "cli/cli_priv.h"
#include "cli/load.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#define CONCURRENCY_DEFAULT 8
#define DURATION_DEFAULT_NS (10 * AT_NS_PER_S)

struct load_view {
    struct cli *cli;
    bool stop; /* Ctrl-C: report what there is */
};

static void on_progress(void *ctx, uint64_t requests, uint64_t failed, int64_t elapsed_ns)
{
    const struct load_view *view = ctx;
    if (view->cli->env->err_is_terminal) {
        fprintf(view->cli->env->err, "\r%6.1f s  %" PRIu64 " requests, %" PRIu64 " failed\033[K",
                (double)elapsed_ns / (double)AT_NS_PER_S, requests, failed);
        fflush(view->cli->env->err);
    }
}

static void on_interrupt(void *ctx, int signal_number)
{
    (void)signal_number;
    ((struct load_view *)ctx)->stop = true;
}

static void print_text(const struct cli *cli, const struct at_load_result *r)
{
    FILE *out = cli->env->out;
    double seconds = (double)r->elapsed_ns / (double)AT_NS_PER_S;
    fprintf(out, "requests    %" PRIu64 " in %.1f s: %.0f/s\n", r->requests, seconds,
            seconds > 0 ? (double)r->requests / seconds : 0);
    fprintf(out, "failed      %" PRIu64 "%s%s\n", r->failed, r->failed != 0 ? ": first: " : "",
            r->first_error);
    fprintf(out,
            "latency     p50 %" PRId64 " us, p90 %" PRId64 " us, p99 %" PRId64 " us, max %" PRId64
            " us\n",
            r->p50_ns / AT_NS_PER_US, r->p90_ns / AT_NS_PER_US, r->p99_ns / AT_NS_PER_US,
            r->max_ns / AT_NS_PER_US);
    if (r->labelled != 0) {
        fprintf(out, "accuracy    %.4f (%" PRIu64 " of %" PRIu64 ")\n",
                (double)r->correct / (double)r->labelled, r->correct, r->labelled);
    }
    const char *name;
    json_t *count;
    json_object_foreach(r->by_instance, name, count)
    {
        fprintf(out, "%-32s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(count));
    }
}

static enum at_rc batch_read(struct cli *cli, json_t **ret, struct at_err *err)
{
    const char *path = cli_value(cli, OPT_DATA, NULL);
    if (path == NULL) {
        return at_err_set_field(err, AT_BAD_REQUEST, "--data",
                                "is required: a request with many rows");
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = cli_read(cli, path, AT_JSON_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        rc = at_json_parse(text.data != NULL ? text.data : "", text.len, ret, err);
    }
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "%s", path);
}

static enum at_rc limits_read(struct cli *cli, struct at_load_options *o, struct at_err *err)
{
    int64_t concurrency = CONCURRENCY_DEFAULT;
    int64_t requests = 0;
    enum at_rc rc = AT_OK;
    if (cli_value(cli, OPT_CONCURRENCY, NULL) != NULL) {
        rc = cli_integer(cli, OPT_CONCURRENCY, 1, AT_LOAD_CONCURRENCY_MAX, &concurrency, err);
    }
    if (rc == AT_OK && cli_value(cli, OPT_REQUESTS, NULL) != NULL) {
        rc = cli_integer(cli, OPT_REQUESTS, 1, INT64_MAX, &requests, err);
    }
    if (rc == AT_OK) {
        rc = cli_duration(cli, OPT_DURATION, requests == 0 ? DURATION_DEFAULT_NS : 0,
                          &o->duration_ns, err);
    }
    o->concurrency = (size_t)concurrency;
    o->requests_max = (uint64_t)requests;
    return rc;
}

enum at_rc cli_load(struct cli *cli, struct at_err *err)
{
    struct cli_gateway gateway = {0};
    struct load_view view = {.cli = cli};
    struct at_load_result result = {0};
    enum cli_format format = CLI_TABLE;
    AT_CLEANUP(at_cleanup_json) json_t *batch = NULL;
    struct at_load_options o = {
        .model = cli->args[0], .on_progress = on_progress, .ctx = &view, .stop = &view.stop};
    enum at_rc rc = cli_format_of(cli, &format, err);
    rc = rc == AT_OK ? limits_read(cli, &o, err) : rc;
    rc = rc == AT_OK ? batch_read(cli, &batch, err) : rc;
    rc = rc == AT_OK ? cli_gateway_find(cli, &gateway, err) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    o.addr = gateway.url.addr;
    o.tls = gateway.tls;
    o.token = gateway.token;
    o.batch = batch;
    struct at_loop *loop = at_loop_new(cli->env->sys);
    rc = at_loop_signal(loop, SIGINT, on_interrupt, &view, err);
    rc = rc == AT_OK ? at_load_run(loop, &o, &result, err) : rc;
    at_loop_free(loop);
    at_tls_config_unref(gateway.tls);
    if (rc != AT_OK) {
        return rc;
    }
    if (cli->env->err_is_terminal) {
        fputs("\r\033[K", cli->env->err);
    }
    if (format == CLI_TABLE || format == CLI_WIDE) {
        print_text(cli, &result);
    } else {
        AT_CLEANUP(at_cleanup_json) json_t *report = at_load_report(&result);
        rc = cli_print_value(cli, format, report, err);
    }
    json_decref(result.by_instance);
    if (rc == AT_OK && result.requests > 0 && result.failed == result.requests) {
        rc = at_err_set(err, AT_UPSTREAM, "every request failed");
    }
    return rc;
}
