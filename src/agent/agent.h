/* One machine's agent: joins, reports its Node, heartbeats, watches the Instances bound to it, runs
 * them by the runtime drivers, probes them and reports. Everything goes out from here; the server
 * never connects to it. */
#ifndef AT_AGENT_AGENT_H
#define AT_AGENT_AGENT_H

#include "core/err.h"
#include "loop/pool.h"

struct at_agent;
struct at_runtime_ops;

struct at_agent_options {
    struct at_loop *loop;
    struct at_pool *pool;
    const char *server;        /* https://host:port */
    const char *token;         /* join token; needed the first time only, may be NULL */
    const char *ca_pin;        /* "sha256:<hex>"; needed with token */
    const char *name;          /* Node name */
    const char *state_dir;     /* certificate, model cache, instance records and logs */
    const char *devices_file;  /* see devices.h; may be NULL */
    const char *models_dir;    /* where `file:name` models are looked up; may be NULL */
    const char *mps_control;   /* nvidia-cuda-mps-control; NULL: found on PATH */
    int64_t model_cache_bytes; /* limit of the model cache; 0: none */
    const char *registry_ca;   /* PEM file of authorities for registries; NULL: the system's */
    /* "host:port" of registries without TLS; NULL-terminated, borrowed; may be NULL */
    const char *const *insecure_registries;
    const char *listen_host;   /* address at which gateways reach this machine */
    const char *relay_port;    /* port there, of TLS, for all instances; NULL: any that is free */
    const char *const *labels; /* "key=value", NULL-terminated; may be NULL */
    const char *self_exe;      /* program that is started for built-in runners */
    const struct at_runtime_ops *const *drivers; /* NULL-terminated; tried in this order */
    bool
        stop_instances; /* at_agent_stop ends the instances too; otherwise they outlive the agent */
    /* Once: rc AT_OK the Node is known and the instances are being watched; otherwise it cannot go
     * on. */
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
};

/* Strings are copied. err: AT_INVALID an option; AT_FORBIDDEN, AT_CONFLICT, AT_IO the state folder.
 * own: at_agent_free. thread: loop thread. */
enum at_rc at_agent_new(const struct at_agent_options *options, struct at_agent **ret,
                        struct at_err *err) AT_WARN_UNUSED;
/* Stop watching; with stop_instances end them first. done is called from the loop when nothing of
 * ours goes on. */
void at_agent_stop(struct at_agent *agent, void (*done)(void *ctx), void *ctx);
void at_agent_free(struct at_agent *agent);

#endif
