/* The inference data plane: takes requests for models and passes each to a replica. One loop per
 * core, each with its own listener (SO_REUSEPORT), connections and state; nothing is shared but the
 * immutable route table. The first loop is the caller's: it also joins, watches and makes the
 * tables. Nothing is asked of the control plane on the request path; without it the last routes
 * stay. */
#ifndef AT_GATEWAY_GATEWAY_H
#define AT_GATEWAY_GATEWAY_H

#include "loop/loop.h"

struct at_gateway;

struct at_gateway_options {
    struct at_loop *loop; /* the first loop; run by the caller */
    const char *server;   /* https://host:port of the control plane; NULL with static_routes */
    const char *token;    /* join token; needed the first time only */
    const char *ca_pin;   /* "sha256:<hex>"; needed with token */
    const char *name;
    const char *state_dir;       /* certificate; may be NULL with static_routes */
    const char *site;            /* own site; NULL: the one that the join answer names, if any */
    const char *listen;          /* "127.0.0.1:7080"; port 0 takes a free one */
    const char *auth_token_file; /* one accepted token, or sha256:<hex> of one, a line; NULL: all
                                    may come, which only a loopback address may offer */
    bool require_keys;           /* nobody comes without an API key, or one of those tokens */
    const char *static_routes;   /* file: {"models": {"m": [{"endpoint": "127.0.0.1:81",
                                    "instance": "m-1", "site": "s"}]}}; replaces the watch */
    const char *tls_cert_file, *tls_key_file; /* read now, and again when they change; NULL: plain,
                                                 on loopback addresses and Unix sockets only */
    unsigned n_threads;                       /* 0: 1 */
    /* What is told of requests; NULL: nothing, or the default. */
    const char *access_log;       /* a file, or "-" */
    const char *access_log_rates; /* "0.01", or by status: "2xx=0.01,5xx=1" */
    const char *otlp_endpoint;    /* of a collector: "http://127.0.0.1:4318" */
    const char *otlp_headers_file, *otlp_ca_file;
    const char *trace_ratio; /* of the traces that begin here: "0.1" */
    bool no_playground;      /* do not serve the pages at /playground */
    /* Limits; 0: the default. */
    size_t descriptors;            /* that the process may have */
    size_t wait_requests_max;      /* that wait for a replica, per loop */
    size_t wait_bytes_max;         /* of their bodies */
    int64_t first_byte_timeout_ns; /* and between pieces of an answer */
    int64_t client_timeout_ns;     /* for a client to send a whole request */
    int64_t drain_timeout_ns;
    int64_t tunnel_idle_ns; /* WebSocket connections on which nothing comes */
    int64_t busy_poll_ns;   /* at_loop_set_spin of each loop; 0: they sleep at once */
    int64_t key_idle_ns;    /* API keys of which nothing comes: what they have is given back */
    /* Once: rc AT_OK it serves (the first routes are known, or the control plane does not answer);
     * otherwise it will not, and the owner frees it. */
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
};

/* Strings are copied. Listens before it returns.
 * err: AT_INVALID an option, with its name as the field; AT_CONFLICT the address is taken;
 * AT_FORBIDDEN an address that is not loopback without TLS and tokens; AT_IO a file.
 * own: at_gateway_free. */
enum at_rc at_gateway_new(const struct at_gateway_options *options, struct at_gateway **ret,
                          struct at_err *err) AT_WARN_UNUSED;
const char *at_gateway_url(const struct at_gateway *gateway); /* "http://127.0.0.1:7080" */
/* Look at the certificate's files now, and write out what waits for the access log (SIGHUP). */
void at_gateway_reload(struct at_gateway *gateway);
/* Take no more, finish what is under way (at most drain_timeout_ns), then done from the first loop.
 */
void at_gateway_stop(struct at_gateway *gateway, void (*done)(void *ctx), void *ctx);
/* At once: cuts what is under way; ends and joins the other threads. Accepts NULL. */
void at_gateway_free(struct at_gateway *gateway);

#endif
