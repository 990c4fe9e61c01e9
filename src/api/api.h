/* The API server: routes, discovery, OpenAPI, admission, watch streams, authentication and
 * authorization. */
#ifndef AT_API_API_H
#define AT_API_API_H

#include "audit/audit.h"
#include "net/http_server.h"
#include "scan/scan.h"
#include "security/ring.h"
#include "security/security.h"
#include "state/state.h"
#include "store/seal.h"

struct at_api;
struct at_crl; /* security/crl.h */

struct at_api_backup_file {
    const char *name; /* in the backup */
    const char *path;
};

/* An OpenID provider whose tokens are taken; as kube-apiserver's --oidc-* options. */
struct at_api_oidc {
    const char *issuer;                           /* https URL; NULL: none */
    const char *audience;                         /* the client id */
    const char *username_claim, *username_prefix; /* NULL: sub; the issuer and # */
    const char *groups_claim, *groups_prefix;     /* NULL: no groups; no prefix */
    const char *ca_pem;                           /* NULL: the system's */
};

/* What the rules of src/scan are for here. Lists are NULL-terminated; NULL: none. */
enum at_api_scan_mode { AT_API_SCAN_OFF, AT_API_SCAN_WARN, AT_API_SCAN_ENFORCE };
struct at_api_scan {
    enum at_api_scan_mode mode;
    enum at_scan_severity enforce, warn; /* these and above */
    const char *const *exempt_namespaces, *const *exempt_users, *const *exempt_rules;
    bool no_suppressions; /* annotations free from nothing */
};
bool at_api_scan_mode_parse(const char *text, enum at_api_scan_mode *ret);

struct at_tls_peer;
struct at_api_options {
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state; /* for heartbeats and instance look-ups */
    struct at_ca *ca;
    struct at_metrics *metrics;
    const char *const *admin_token_sha256_hex; /* NULL-terminated digests of admin tokens' whole
                                                  text; may be NULL */
    int64_t watch_timeout_ns;                  /* 0: 30 min */
    int64_t bookmark_period_ns;                /* 0: 10 s */
    size_t watch_queue_bytes_max;     /* of all slow watch clients together. 0: the default */
    size_t watch_queue_one_bytes_max; /* of one slow watch client, and of a log's. 0: the default */
    size_t watches_max, watches_per_user_max; /* open at once. 0: the default */
    size_t tunnels_max;                       /* agents connected. 0: the default */
    size_t sessions_max; /* logs, commands and forwarded ports open at once. 0: the default */
    size_t body_bytes_max, list_bytes_max; /* of a request; of a list answer. 0: the default */
    size_t requests_max; /* at once; past it users over their share get 429. 0: the default */
    int64_t turn_ns;     /* of serving, before requests wait for their user's turn. 0: 5 ms */
    /* One JSON line (ends with \n) for each change that was asked for: time, user, verb, path,
     * name, code, dryRun. Reports of agents about themselves are left out when they are granted.
     * May be NULL. */
    void (*audit)(void *ctx, const char *line, size_t len);
    void *audit_ctx;
    /* The log that each request is recorded in, by its level; answers of changes wait for it. Its
     * owner passes settled on to at_api_audit_settled. May be NULL. */
    struct at_audit *audit_log;
    struct at_api_scan scan;
    const struct at_api_oidc *oidc; /* kept by pointer; may be NULL */
    /* What Secrets are sealed with in the store and in backups; both or none. */
    struct at_ring *ring;
    const struct at_store_seal *seal;
    bool secrets_stale; /* some lie there as they are, or under an old key */
    /* What belongs into a backup beside the store; name NULL ends it; may be NULL. */
    const struct at_api_backup_file *backup_files;
    /* The list of servers on a shared store is another one: an array of URLs, borrowed. May be
     * NULL. */
    void (*on_servers)(void *ctx, const json_t *urls);
    void *on_servers_ctx;
};
enum at_rc at_api_new(const struct at_api_options *options, struct at_api **ret,
                      struct at_err *err) AT_WARN_UNUSED;
/* It serves: where agents and gateways reach it. With a shared store, those of all servers are told
 * of it (url is copied). */
void at_api_enter(struct at_api *api, const char *url);
/* Orderly end, before at_store_drain: nobody is sent here any more. */
void at_api_leave(struct at_api *api);
void at_api_free(struct at_api *api);
void at_api_audit_settled(struct at_api *api, uint64_t ticket);
/* Does a client certificate that was shown before still count: not expired, not revoked? */
bool at_api_peer_counts(const struct at_api *api, const struct at_tls_peer *peer);
/* The revocation list of other authorities; NULL: none. Borrowed until the next call or the end. */
void at_api_set_crl(struct at_api *api, const struct at_crl *crl);
/* What those who join are told to trust, and its pin (borrowed as crl); until then the authority.
 */
void at_api_set_trust(struct at_api *api, const char *trust_pem, const char *pin_sha256_hex);
at_http_handler_fn at_api_handle; /* ctx: struct at_api * */

#endif
