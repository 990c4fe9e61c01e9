/* The control plane as one object on a loop: store, state, API, controllers. Used by `atoll server`
 * and `atoll dev`. */
#ifndef AT_APPS_SERVER_H
#define AT_APPS_SERVER_H

#include "apps/limits.h"
#include "core/json.h"
#include "core/metrics.h"
#include "loop/loop.h"

struct at_server;

struct at_server_options {
    const char *state_dir;        /* made when absent, 0700 */
    const char *store;            /* as at_store_open takes it */
    const char *pki_dir;          /* the CA's folder, made when absent; NULL: in state_dir */
    const char *admin_token_file; /* bearer tokens of administrators, one a line; may be NULL */
    const char *listen;
    const char *advertise; /* https://host:port at which agents reach it; NULL: the address */
    const char *const *
        extra_names; /* more names or addresses for the certificate; NULL-terminated, may be NULL */
    const struct at_limits *limits; /* copied; NULL: the defaults */
    int64_t node_timeout_ns;        /* 0: the controllers' default */
    /* Once: rc AT_OK it serves; otherwise it will not, and the owner frees it. */
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
};

/* Locks state_dir, opens everything, then serves. Strings are copied.
 * err: AT_CONFLICT state_dir is in use or the port is taken; AT_FORBIDDEN read-only; AT_IO.
 * own: at_server_free, after the loop has stopped or from it. */
enum at_rc at_server_new(struct at_loop *loop, const struct at_server_options *options,
                         struct at_server **ret, struct at_err *err) AT_WARN_UNUSED;
/* The controllers end; clients are still answered. For an owner that ends its agents first: nodes
 * that fall silent then are not lost, and nothing is moved. */
void at_server_rest(struct at_server *server);
void at_server_free(struct at_server *server); /* waits for writes under way; accepts NULL */
const char *at_server_url(const struct at_server *server);    /* https://host:port, once ready */
const char *at_server_ca_pin(const struct at_server *server); /* hex, without "sha256:" */
const char *at_server_kubeconfig(const struct at_server *server); /* path of admin.kubeconfig */

/* kubeconfig.c */
struct at_app_kubeconfig {
    const char *path, *url, *ca_pem, *cert_pem, *key_pem;
    const json_t *servers; /* URLs; may be NULL */
};
enum at_rc at_app_kubeconfig_write(const struct at_app_kubeconfig *k,
                                   struct at_err *err) AT_WARN_UNUSED;

#endif
