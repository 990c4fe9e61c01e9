#include "apps/server.h"

#include "api/api.h"
#include "apps/apps.h"
#include "apps/server_seal.h"
#include "apps/tidy.h"
#include "audit/journal.h"
#include "controllers/controllers.h"
#include "controllers/leader.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "net/url.h"
#include "store/journal.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define ADMIN_CERT_LIFETIME_S (INT64_C(3650) * 86400)
#define SERVER_NAMES_MAX 64
#define SERVER_TOKENS_MAX 16
#define SERVER_TOKEN_BYTES_MIN 16
#define SERVER_TOKEN_FILE_BYTES_MAX 65536
#define PKI_LOCK_ATTEMPTS_MAX 100
#define PKI_LOCK_PAUSE_NS (20 * AT_NS_PER_MS)

struct at_server {
    struct at_loop *loop;
    char *state_dir, *listen, *url, *kubeconfig;
    char *advertise; /* NULL: url */
    char *admin_cert, *admin_key;
    int64_t node_timeout_ns;
    struct at_limits limits;
    char *names[SERVER_NAMES_MAX + 1]; /* SANs that are no addresses */
    char *addresses[SERVER_NAMES_MAX + 1];
    int lock_fd;
    struct at_metrics *metrics;
    struct at_ca *ca;
    char *token_digests[SERVER_TOKENS_MAX + 1]; /* SHA-256 of each administrator's token, hex */
    struct at_app_tls_files tls_files;
    struct at_app_tls *tls;
    struct at_store *store;
    struct at_state *state;
    struct at_api *api;
    struct at_http_server *http;
    struct at_controllers *controllers;
    struct at_leader *leader; /* NULL: the store is this process's alone */
    struct at_metric *m_leading;
    at_timer_id step_timer, give_up_timer;
    struct at_tidy *tidy;
    bool closing;
    char *ca_paths[2];
    struct at_api_backup_file backup_files[3];
    struct at_audit *audit;
    struct at_app_seal seal;
    struct at_api_scan scan; /* the same */
    struct at_api_oidc oidc; /* texts of the options, which live as long */
    struct at_buf oidc_ca;
    struct at_audit_options audit_options;
    struct at_store_journal audit_journal;
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
};

static bool is_address(const char *text)
{
    return strchr(text, ':') != NULL || strspn(text, "0123456789.") == strlen(text);
}

static void name_add(struct at_server *s, const char *name)
{
    char **list = is_address(name) ? s->addresses : s->names;
    for (size_t i = 0; i < SERVER_NAMES_MAX; i++) {
        if (list[i] == NULL) {
            list[i] = at_strdup(name);
            return;
        }
        if (strcmp(list[i], name) == 0) {
            return;
        }
    }
}

/* Names under which clients may know this server: loopback, host name, the address it listens on,
 * what was asked for. */
static void names_collect(struct at_server *s, const char *const *extra)
{
    static const char *const ALWAYS[] = {"localhost", "127.0.0.1", "::1", "kubernetes", "atoll"};
    for (size_t i = 0; i < AT_ARRAY_LEN(ALWAYS); i++) {
        name_add(s, ALWAYS[i]);
    }
    name_add(s, at_sys_hostname());
    const char *colon = strrchr(s->listen, ':');
    if (colon != NULL && strncmp(s->listen, "unix:", 5) != 0) {
        bool bracket = s->listen[0] == '[';
        size_t len = (size_t)(colon - s->listen);
        AT_CLEANUP(at_cleanup_free)
        char *host =
            bracket && len > 2 ? at_strndup(s->listen + 1, len - 2) : at_strndup(s->listen, len);
        if (host[0] != '\0') {
            name_add(s, host);
        }
    }
    for (size_t i = 0; extra != NULL && extra[i] != NULL; i++) {
        name_add(s, extra[i]);
    }
}

/* Its host becomes a name in the certificate. */
static enum at_rc advertise_take(struct at_server *s, const char *url, struct at_err *err)
{
    struct at_url parsed;
    if (url == NULL) {
        return AT_OK;
    }
    enum at_rc rc = at_url_parse(url, &parsed, err);
    if (rc != AT_OK || strcmp(parsed.scheme, "https") != 0 || strcmp(parsed.target, "/") != 0) {
        return at_err_set_field(err, AT_INVALID, "advertise", "%s: must be https://host:port", url);
    }
    s->advertise = at_asprintf("https://%s", parsed.addr);
    name_add(s, parsed.host);
    return AT_OK;
}

static bool may_resume(void *ctx, const struct at_tls_peer *peer)
{
    const struct at_server *s = ctx;
    return s->api != NULL && at_api_peer_counts(s->api, peer);
}

static void on_tls(void *ctx, struct at_tls_config *config, const struct at_crl *crl)
{
    struct at_server *s = ctx;
    if (s->http != NULL) {
        at_http_server_set_tls(s->http, config);
    }
    if (s->api != NULL) {
        at_api_set_crl(s->api, crl);
        at_api_set_trust(s->api, at_app_tls_trust_pem(s->tls), at_app_tls_pin(s->tls));
    }
}

static enum at_rc tls_open(struct at_server *s, struct at_err *err)
{
    struct at_app_tls_options o = {.loop = s->loop,
                                   .ca = s->ca,
                                   .files = &s->tls_files,
                                   .names = (const char *const *)s->names,
                                   .addresses = (const char *const *)s->addresses,
                                   .metrics = s->metrics,
                                   .on_change = on_tls,
                                   .may_resume = may_resume,
                                   .ctx = s};
    return at_app_tls_new(&o, &s->tls, err);
}

/* admin.kubeconfig; servers NULL: just this one is known. */
static enum at_rc kubeconfig_write(struct at_server *s, const json_t *servers, struct at_err *err)
{
    const struct at_app_kubeconfig k = {.path = s->kubeconfig,
                                        .url = s->url,
                                        .ca_pem = at_app_tls_trust_pem(s->tls),
                                        .cert_pem = s->admin_cert,
                                        .key_pem = s->admin_key,
                                        .servers = servers};
    return at_app_kubeconfig_write(&k, err);
}

/* With a fresh client certificate in system:masters. */
static enum at_rc kubeconfig_make(struct at_server *s, struct at_err *err)
{
    static const char *const MASTERS[] = {AT_GROUP_MASTERS, NULL};
    struct at_cert_request request = {.common_name = "admin",
                                      .organizations = MASTERS,
                                      .client = true,
                                      .lifetime_s = ADMIN_CERT_LIFETIME_S};
    enum at_rc rc = at_ca_issue(s->ca, &request, &s->admin_cert, &s->admin_key, err);
    return rc == AT_OK ? kubeconfig_write(s, NULL, err) : rc;
}

static void on_servers(void *ctx, const json_t *urls)
{
    struct at_server *s = ctx;
    struct at_err err = {0};
    if (kubeconfig_write(s, urls, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "server.kubeconfig", "%s", err.msg);
    }
}

static bool leads(void *ctx)
{
    const struct at_server *s = ctx;
    return at_leader_leads(s->leader);
}

static void doubt(void *ctx)
{
    struct at_server *s = ctx;
    at_leader_doubt(s->leader);
}

static void controllers_start(struct at_server *s)
{
    struct at_controllers_options o = {.node_timeout_ns = s->node_timeout_ns};
    if (s->leader != NULL) {
        o.leads = leads;
        o.leads_ctx = s;
        o.doubt = doubt;
        o.guard_key = AT_LEADER_EPOCH_KEY;
        o.guard_rev = at_leader_epoch(s->leader);
    }
    s->controllers = at_controllers_new(s->loop, s->state, s->metrics, &o);
    at_metric_set(s->m_leading, 1);
}

static void give_up(void *ctx)
{
    struct at_server *s = ctx;
    s->give_up_timer = 0;
    at_store_give_up(s->store);
}

static void leading_changed(void *ctx, bool leading)
{
    struct at_server *s = ctx;
    if (leading) {
        controllers_start(s);
        return;
    }
    at_controllers_free(s->controllers);
    s->controllers = NULL;
    at_metric_set(s->m_leading, 0);
    /* Their writes that still wait: not from here, which may be a callback of the store. */
    if (s->give_up_timer == 0) {
        s->give_up_timer = at_loop_timer(s->loop, 0, give_up, s);
    }
}

static void lead_begin(struct at_server *s)
{
    s->m_leading =
        at_metric_with(at_metrics_family(s->metrics, AT_METRIC_GAUGE, "atoll_server_leading",
                                         "1 where the controllers run.", NULL),
                       NULL);
    if (!at_store_is_shared(s->store)) {
        controllers_start(s);
        return;
    }
    struct at_leader_options o = {.name = s->url, .changed = leading_changed, .ctx = s};
    s->leader = at_leader_new(s->loop, s->store, s->state, &o);
}

/* Where agents and gateways are to come: what was asked for, or where it listens. Of an address
 * that is none in particular, the host's name. own: caller at_free. */
static char *advertised(const struct at_server *s)
{
    const char *addr = at_http_server_addr(s->http);
    const char *colon = strrchr(addr, ':');
    bool any = strncmp(addr, "0.0.0.0:", 8) == 0 || strncmp(addr, "[::]:", 5) == 0;
    if (s->advertise != NULL) {
        return at_strdup(s->advertise);
    }
    return any ? at_asprintf("https://%s%s", at_sys_hostname(), colon)
               : at_asprintf("https://%s", addr);
}

static enum at_rc serve(struct at_server *s, struct at_err *err)
{
    struct at_http_server_options http = {
        .listen = s->listen,
        .tls = at_app_tls_config(s->tls),
        .metrics = s->metrics,
        .handler = at_api_handle,
        .ctx = s->api,
    };
    at_limits_to_http(&s->limits, &http);
    enum at_rc rc = at_http_server_new(s->loop, &http, &s->http, err);
    if (rc != AT_OK) {
        return rc;
    }
    s->url = at_asprintf("https://%s", at_http_server_addr(s->http));
    rc = kubeconfig_make(s, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_free) char *reached_at = advertised(s);
    at_api_enter(s->api, reached_at);
    lead_begin(s);
    return AT_OK;
}

/* Go on from the loop, not from within a callback of store or state: what comes next may end in
 * at_server_free. */
static void next_step(struct at_server *s, at_timer_fn *fn)
{
    s->step_timer = at_loop_timer(s->loop, 0, fn, s);
}

static void start_serving(void *ctx)
{
    struct at_server *s = ctx;
    struct at_err err = {0};
    enum at_rc rc = serve(s, &err);
    if (rc == AT_OK) {
        at_log(AT_LOG_INFO, "server.ready", "serving on %s, state in %s", s->url, s->state_dir);
    }
    s->on_ready(s->ctx, rc, &err);
}

/* What the API made at its start (the default namespace) is durable: clients may come. Without it
 * (disk full) reads still work. */
static void on_api_stored(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                          const struct at_err *err)
{
    (void)rc;
    (void)rev;
    (void)current;
    (void)err;
    struct at_server *s = ctx;
    if (!s->closing) {
        next_step(s, start_serving);
    }
}

static void start_api(void *ctx)
{
    struct at_server *s = ctx;
    struct at_err err = {0};
    struct at_api_options api = {.loop = s->loop,
                                 .store = s->store,
                                 .state = s->state,
                                 .ca = s->ca,
                                 .metrics = s->metrics,
                                 .admin_token_sha256_hex = (const char *const *)s->token_digests,
                                 .audit_log = s->audit,
                                 .ring = s->seal.ring,
                                 .oidc = &s->oidc,
                                 .scan = s->scan,
                                 .seal = &s->seal.hooks,
                                 .secrets_stale = at_app_seal_stale(&s->seal),
                                 .backup_files = s->backup_files,
                                 .on_servers = on_servers,
                                 .on_servers_ctx = s};
    at_limits_to_api(&s->limits, &api);
    enum at_rc rc = at_api_new(&api, &s->api, &err);
    if (rc != AT_OK) {
        s->on_ready(s->ctx, rc, &err);
        return;
    }
    on_tls(s, at_app_tls_config(s->tls), at_app_tls_crl(s->tls));
    at_store_sync(s->store, on_api_stored, s);
}

static void on_state_ready(void *ctx)
{
    next_step(ctx, start_api);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

/* Servers that share the folder may begin at the same moment: only one makes what is missing. own:
 * at_file_unlock. */
static enum at_rc pki_lock(struct at_server *s, const char *dir, int *ret_fd, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/lock", dir);
    enum at_rc rc = at_dir_make(dir, 0700, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_err busy = {0};
    rc = at_file_lock(path, ret_fd, &busy);
    for (int i = 0; rc == AT_CONFLICT && i < PKI_LOCK_ATTEMPTS_MAX; i++) {
        struct at_loop *pause = at_loop_new(at_loop_sys(s->loop));
        at_loop_timer(pause, PKI_LOCK_PAUSE_NS, nothing, NULL);
        at_loop_turn(pause, INT64_MAX);
        at_loop_free(pause);
        rc = at_file_lock(path, ret_fd, &busy);
    }
    return rc == AT_OK ? rc : at_err_set(err, rc, "%s", busy.msg);
}

static enum at_rc ca_open(struct at_server *s, const char *dir, struct at_err *err)
{
    int fd = -1;
    enum at_rc rc = pki_lock(s, dir, &fd, err);
    if (rc == AT_OK) {
        rc = at_ca_open(dir, at_loop_sys(s->loop), &s->ca, err);
        at_file_unlock(fd);
    }
    return rc;
}

static enum at_rc seal_ready(struct at_server *s, const char *dir, struct at_err *err)
{
    int fd = -1;
    enum at_rc rc = pki_lock(s, dir, &fd, err);
    if (rc == AT_OK) {
        rc = at_app_seal_ready(&s->seal, err);
        at_file_unlock(fd);
    }
    return rc;
}

/* Only digests are kept. Blank lines and lines that begin with # are skipped. */
static enum at_rc tokens_read(struct at_server *s, const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc =
        path != NULL ? at_file_read(path, SERVER_TOKEN_FILE_BYTES_MAX, &text, err) : AT_OK;
    struct at_str rest = {text.data, text.len};
    size_t n = 0;
    for (size_t line = 1; rc == AT_OK && rest.len != 0; line++) {
        struct at_str token = at_str_cut(&rest, '\n');
        if (token.len != 0 && token.ptr[token.len - 1] == '\r') {
            token.len--;
        }
        token = at_str_trim(token);
        if (token.len == 0 || token.ptr[0] == '#') {
            continue;
        }
        if (token.len < SERVER_TOKEN_BYTES_MIN || n == SERVER_TOKENS_MAX) {
            return at_err_set(err, AT_INVALID,
                              "%s: line %zu: at most %d tokens of at least %d characters", path,
                              line, SERVER_TOKENS_MAX, SERVER_TOKEN_BYTES_MIN);
        }
        char digest[AT_SHA256_HEX_BYTES];
        at_sha256_hex(token.ptr, token.len, digest);
        s->token_digests[n++] = at_strdup(digest);
    }
    return rc;
}

static void audit_settled(void *ctx, uint64_t ticket)
{
    struct at_server *s = ctx;
    if (s->api != NULL) {
        at_api_audit_settled(s->api, ticket);
    }
}

static enum at_rc audit_open(struct at_server *s, struct at_err *err)
{
    struct at_audit_options *o = &s->audit_options;
    if (o->level == AT_AUDIT_NONE) {
        return AT_OK;
    }
    o->loop = s->loop;
    o->dir = s->state_dir;
    o->metrics = s->metrics;
    o->settled = audit_settled;
    o->ctx = s;
    enum at_rc rc = AT_OK;
    struct at_audit_redo *redo = at_audit_redo_new();
    if (!o->no_sync) { /* a store without a journal: records are synced beside it */
        rc = at_store_journal_open(s->store, &s->audit_journal, at_audit_redo_add, redo, err);
        o->journaled = rc == AT_OK;
        o->redo = redo;
        if (rc == AT_UNSUPPORTED) {
            *err = (struct at_err){0};
            rc = AT_OK;
        }
    }
    rc = rc == AT_OK ? at_audit_open(o, &s->audit, err) : rc;
    o->redo = NULL;
    at_audit_redo_free(redo);
    s->audit_journal.ctx = s->audit;
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "the audit log");
}

/* Everything up to the first picture of the store; on_state_ready goes on. */
static enum at_rc open_parts(struct at_server *s, const struct at_server_options *o,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", s->state_dir);
    AT_CLEANUP(at_cleanup_free)
    char *pki = o->pki_dir != NULL ? at_strdup(o->pki_dir) : at_asprintf("%s/pki", s->state_dir);
    AT_CLEANUP(at_cleanup_free) char *db = at_asprintf("%s/atoll.db", s->state_dir);
    AT_CLEANUP(at_cleanup_free)
    char *key =
        o->secrets_key != NULL ? at_strdup(o->secrets_key) : at_asprintf("%s/secrets.key", pki);
    enum at_rc rc = at_dir_make(s->state_dir, 0700, err);
    if (rc == AT_OK) {
        rc = at_file_lock(lock, &s->lock_fd, err);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "state folder %s", s->state_dir);
    }
    s->ca_paths[0] = at_asprintf("%s/ca.crt", pki);
    s->ca_paths[1] = at_asprintf("%s/ca.key", pki);
    s->backup_files[0] = (struct at_api_backup_file){"pki/ca.crt", s->ca_paths[0]};
    s->backup_files[1] = (struct at_api_backup_file){"pki/ca.key", s->ca_paths[1]};
    rc = ca_open(s, pki, err);
    if (rc == AT_OK) {
        rc = tls_open(s, err);
    }
    if (rc == AT_OK) {
        rc = at_app_seal_open(&s->seal, key, at_loop_sys(s->loop), err);
    }
    if (rc == AT_OK) {
        rc = at_store_open_sealed(o->store, db, s->loop, &s->seal.hooks, &s->store, err);
        rc = rc == AT_CORRUPT ? at_err_wrap(err, rc,
                                            "the store is damaged (atoll store check tells where, "
                                            "atoll restore puts a backup back)")
                              : rc;
    }
    if (rc == AT_OK) {
        rc = seal_ready(s, pki, err);
    }
    if (rc == AT_OK) {
        rc = audit_open(s, err);
    }
    if (rc == AT_OK) {
        at_store_history_bound(s->store, s->limits.history, s->limits.history_bytes);
        s->tidy = at_tidy_new(s->loop, s->store);
        rc = at_state_new(s->loop, s->store, on_state_ready, s, &s->state, err);
    }
    return rc;
}

enum at_rc at_server_new(struct at_loop *loop, const struct at_server_options *options,
                         struct at_server **ret, struct at_err *err)
{
    struct at_server *s = AT_NEW(struct at_server);
    at_json_keep(true);
    s->loop = loop;
    s->lock_fd = -1;
    s->state_dir = at_strdup(options->state_dir);
    s->listen = at_strdup(options->listen);
    s->audit_options = options->audit;
    s->audit_journal = (struct at_store_journal){.mark = at_audit_journal_mark,
                                                 .take = at_audit_journal_take,
                                                 .landed = at_audit_journal_landed};
    s->oidc = options->oidc;
    s->tls_files = options->tls;
    s->scan = options->scan;
    s->kubeconfig = at_asprintf("%s/admin.kubeconfig", options->state_dir);
    s->node_timeout_ns = options->node_timeout_ns;
    at_limits_default(&s->limits);
    if (options->limits != NULL) {
        s->limits = *options->limits;
    }
    s->on_ready = options->on_ready;
    s->ctx = options->ctx;
    s->metrics = at_metrics_new();
    names_collect(s, options->extra_names);
    enum at_rc rc = advertise_take(s, options->advertise, err);
    if (rc != AT_OK) {
        at_server_free(s);
        return rc;
    }
    rc = tokens_read(s, options->admin_token_file, err);
    if (rc == AT_OK && options->oidc_ca_file != NULL) {
        rc = at_file_read(options->oidc_ca_file, SERVER_TOKEN_FILE_BYTES_MAX, &s->oidc_ca, err);
        s->oidc.ca_pem = s->oidc_ca.data;
    }
    if (rc == AT_OK) {
        rc = open_parts(s, options, err);
    }
    if (rc != AT_OK) {
        at_server_free(s);
        return rc;
    }
    *ret = s;
    return AT_OK;
}

void at_server_rest(struct at_server *s)
{
    at_controllers_free(s->controllers);
    s->controllers = NULL;
}

void at_server_free(struct at_server *s)
{
    if (s == NULL) {
        return;
    }
    s->closing = true;
    at_loop_timer_cancel(s->loop, s->step_timer);
    at_loop_timer_cancel(s->loop, s->give_up_timer);
    at_tidy_free(s->tidy);
    at_server_rest(s);
    at_leader_free(s->leader);
    if (s->api != NULL) {
        at_api_leave(s->api);
    }
    if (s->http != NULL) {
        at_http_server_free(s->http);
    }
    if (s->store !=
        NULL) { /* the requests of clients that are gone end here, while their API lives */
        at_store_drain(s->store);
    }
    if (s->api != NULL) {
        at_api_free(s->api);
    }
    if (s->state != NULL) {
        at_state_free(s->state);
    }
    if (s->store != NULL) {
        at_store_close(s->store);
    }
    at_app_seal_close(&s->seal);
    at_buf_done(&s->oidc_ca);
    at_audit_close(s->audit);
    at_app_tls_free(s->tls);
    at_ca_free(s->ca);
    at_metrics_free(s->metrics);
    if (s->lock_fd >= 0) {
        at_file_unlock(s->lock_fd);
    }
    for (size_t i = 0; i < SERVER_NAMES_MAX; i++) {
        at_free(s->names[i]);
        at_free(s->addresses[i]);
    }
    for (size_t i = 0; s->token_digests[i] != NULL; i++) {
        at_free(s->token_digests[i]);
    }
    at_free(s->state_dir);
    at_free(s->ca_paths[0]);
    at_free(s->ca_paths[1]);
    at_free(s->listen);
    at_free(s->url);
    at_free(s->advertise);
    at_free(s->admin_cert);
    if (s->admin_key != NULL) {
        explicit_bzero(s->admin_key, strlen(s->admin_key));
        at_free(s->admin_key);
    }
    at_free(s->kubeconfig);
    at_free(s);
    at_json_keep(false);
}

const char *at_server_url(const struct at_server *server)
{
    return server->url;
}

const char *at_server_ca_pin(const struct at_server *server)
{
    return at_app_tls_pin(server->tls);
}

const char *at_server_kubeconfig(const struct at_server *server)
{
    return server->kubeconfig;
}
