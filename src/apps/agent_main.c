/* `atoll agent`: one per machine. */
#include "agent/agent.h"
#include "apps/apps.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "runtime/driver.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define AGENT_POOL_THREADS 4
#define AGENT_POOL_QUEUE_MAX 4096

struct agent_app {
    struct at_loop *loop;
    struct at_agent *agent;
    const char *name;
    struct at_err err;
};

static void on_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct agent_app *app = ctx;
    if (at_app_began(app->loop, rc, err, &app->err)) {
        at_app_ready("ready agent %s", app->name);
    }
}

static void stop(void *ctx, int signal_number)
{
    struct agent_app *app = ctx;
    at_log(AT_LOG_INFO, "agent.stop", "stopping on signal %d", signal_number);
    if (app->agent == NULL) {
        at_loop_stop(app->loop);
        return;
    }
    at_agent_stop(app->agent, at_app_stopped, app->loop);
}

static int agent_run(struct agent_app *app, struct at_agent_options *o, bool with_stdin)
{
    static const struct at_runtime_ops *drivers[3];
    drivers[0] = at_runtime_process();
    drivers[1] = at_runtime_oci();
    app->loop = at_loop_new(at_sys_real());
    struct at_pool *pool = at_pool_new(AGENT_POOL_THREADS, AGENT_POOL_QUEUE_MAX);
    o->loop = app->loop;
    o->pool = pool;
    o->drivers = drivers;
    o->on_ready = on_ready;
    o->ctx = app;
    enum at_rc rc = at_app_on_stop(app->loop, stop, app, &app->err);
    if (rc == AT_OK) {
        rc = at_agent_new(o, &app->agent, &app->err);
    }
    if (rc == AT_OK) {
        if (with_stdin) {
            at_app_on_stdin_eof(app->loop, stop, app);
        }
        at_loop_run(app->loop);
    }
    at_agent_free(app->agent);
    at_pool_finish(pool); /* what was begun to be removed goes, then its ends are told */
    at_loop_turn(app->loop, 0);
    at_loop_free(app->loop);
    return app->err.rc != AT_OK ? at_app_fail("agent", &app->err) : 0;
}

int at_app_agent(int argc, char **argv)
{
    AT_CLEANUP(at_app_join_done) struct at_app_join join = {0};
    const char *labels[AT_APP_LIST_MAX + 1] = {NULL};
    const char *insecure[AT_APP_LIST_MAX + 1] = {NULL};
    const char *cache = NULL;
    struct at_agent_options o = {
        .name = at_sys_hostname(), .listen_host = "127.0.0.1", .labels = labels};
    bool with_stdin = false;
    const struct at_app_option options[] = {
        AT_APP_JOIN_OPTIONS(&join, &o.ca_pin),
        {"name", &o.name, NULL, NULL, "NAME", "Node name (default: host name)."},
        {"state", &join.state_dir, NULL, NULL, "DIR",
         "Where everything is kept (default /var/lib/atoll/agent as root, else "
         "~/.local/state/atoll/agent)."},
        {"devices", &o.devices_file, NULL, NULL, "FILE",
         "JSON that replaces parts of what was found here."},
        {"mps-control", &o.mps_control, NULL, NULL, "FILE",
         "NVIDIA's program for GPUs that are shared by MPS (default: nvidia-cuda-mps-control on "
         "PATH)."},
        {"models", &o.models_dir, NULL, NULL, "DIR",
         "Folder in which file:NAME models are looked up."},
        {"model-cache", &cache, NULL, NULL, "SIZE",
         "Limit of the model cache, such as 200Gi; what nobody uses goes first (default: none, but "
         "what it needs of the disk is made free the same way)."},
        {"registry-ca", &o.registry_ca, NULL, NULL, "FILE",
         "Authorities to trust for registries of models (default: the system's)."},
        {"insecure-registry", NULL, NULL, insecure, "HOST:PORT",
         "A registry of models without TLS. Repeat."},
        {"listen-host", &o.listen_host, NULL, NULL, "HOST",
         "Address at which gateways reach this machine (default 127.0.0.1)."},
        {"relay-port", &o.relay_port, NULL, NULL, "PORT",
         "Port there, where gateways of other machines reach all instances by TLS (default: any "
         "that is free)."},
        {"label", NULL, NULL, labels, "KEY=VALUE", "Label of the Node. Repeat."},
        {"stop-instances", NULL, &o.stop_instances, NULL, NULL,
         "End the instances when the agent ends."},
        {"exit-with-stdin", NULL, &with_stdin, NULL, NULL, "End when standard input is closed."},
        {NULL, NULL, NULL, NULL, NULL, NULL}};
    int exit_status = 0;
    if (!at_app_options("agent", "runs instances on this machine", options, argc, argv,
                        &exit_status)) {
        return exit_status;
    }
    struct agent_app app = {.name = o.name};
    AT_CLEANUP(at_cleanup_free) char *exe = at_sys_self_exe();
    at_app_log_start("agent");
    o.insecure_registries = insecure;
    if (cache != NULL && (at_quantity_units(cache, &o.model_cache_bytes, &app.err) != AT_OK ||
                          o.model_cache_bytes <= 0)) {
        app.err.rc =
            at_err_set(&app.err, AT_INVALID, "--model-cache %s: a size such as 200Gi", cache);
        return at_app_fail("agent", &app.err);
    }
    if (at_app_join_read("agent", &join, &app.err) != AT_OK) {
        return at_app_fail("agent", &app.err);
    }
    o.server = join.server;
    o.token = join.secret;
    o.state_dir = join.dir;
    o.self_exe = exe;
    return agent_run(&app, &o, with_stdin);
}
