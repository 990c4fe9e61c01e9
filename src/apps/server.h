/* The control plane as one object on a loop: store, state, API, controllers. Used by `atoll server`
 * and `atoll dev`. */
#ifndef AT_APPS_SERVER_H
#define AT_APPS_SERVER_H

#include "apps/apps.h"
#include "apps/limits.h"
#include "apps/server_tls.h"
#include "audit/audit.h"
#include "core/json.h"
#include "core/metrics.h"
#include "loop/loop.h"

struct at_server;

struct at_server_options {
    const char *state_dir;        /* made when absent, 0700 */
    const char *store;            /* as at_store_open takes it */
    const char *pki_dir;          /* the CA's folder, made when absent; NULL: in state_dir */
    const char *admin_token_file; /* bearer tokens of administrators, one a line; may be NULL */
    struct at_api_oidc oidc;      /* an OpenID provider; ca_pem is read from oidc_ca_file */
    const char *oidc_ca_file;     /* NULL: the system's */
    struct at_api_scan scan;      /* rules for what is written */
    const char *secrets_key; /* the key file of Secrets; NULL: secrets.key in the CA's folder */
    struct at_app_tls_files
        tls; /* the user's certificates; texts are borrowed, as long as it lives */
    const char *listen;
    const char *advertise; /* https://host:port at which agents reach it; NULL: the address */
    const char *const *
        extra_names; /* more names or addresses for the certificate; NULL-terminated, may be NULL */
    const struct at_limits *limits; /* copied; NULL: the defaults */
    int64_t node_timeout_ns;        /* 0: the controllers' default */
    struct at_audit_options audit;  /* level, limits, sinks; the rest is filled in */
    /* Once: rc AT_OK it serves; otherwise it will not, and the owner frees it. */
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
};

/* --- audit_main.c: options of the audit log --- */
#define AT_APP_AUDIT_BYTES_MIN ((int64_t)1 << 20)
struct at_app_audit {
    const char *level, *bytes, *when_full, *sync;
    const char *sinks[AT_APP_LIST_MAX + 1];
};
#define AT_APP_AUDIT_OPTIONS(a)                                                                    \
    {"audit-level",                                                                                \
     &(a)->level,                                                                                  \
     NULL,                                                                                         \
     NULL,                                                                                         \
     "LEVEL",                                                                                      \
     "What is recorded: none, changes, requests (default) or all (heartbeats and health too)."},   \
        {"audit-sink",                                                                             \
         NULL,                                                                                     \
         NULL,                                                                                     \
         (a)->sinks,                                                                               \
         "URL",                                                                                    \
         "Where records are sent too: https://HOST/PATH, syslog+tls://HOST:PORT, syslog+tcp://, "  \
         "syslog+unix:///PATH; options behind # (docs/howto/audit.md). May be given again."},      \
        {"audit-bytes", &(a)->bytes,                                                               \
         NULL,          NULL,                                                                      \
         "SIZE",        "Most that all files of the audit log may take (default 1Gi)."},           \
        {"audit-when-full",                                                                        \
         &(a)->when_full,                                                                          \
         NULL,                                                                                     \
         NULL,                                                                                     \
         "WHAT",                                                                                   \
         "refuse (default): answer 503 to what could not be recorded while sinks have not got "    \
         "what is oldest; drop-oldest: delete it."},                                               \
    {                                                                                              \
        "audit-sync", &(a)->sync, NULL, NULL, "WHEN",                                              \
            "always (default): a change is answered once its record is on the disk; never: once "  \
            "the kernel has it."                                                                   \
    }
enum at_rc at_app_audit_options(const struct at_app_audit *a, struct at_audit_options *ret,
                                struct at_err *err) AT_WARN_UNUSED;

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
