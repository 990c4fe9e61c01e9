/* The role `atoll server`: its options, and a loop around at_server. */
#include "apps/apps.h"
#include "apps/server.h"
#include "core/mem.h"
#include "scan/scan.h"

#include <assert.h>
#include <string.h>

#define SERVER_OPTIONS_MAX 48

struct server_app {
    struct at_loop *loop;
    struct at_server *server;
    struct at_err err;
};

static void app_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct server_app *app = ctx;
    if (rc != AT_OK) {
        app->err = *err;
        at_loop_stop(app->loop);
        return;
    }
    at_app_ready("ready server %s", at_server_url(app->server));
}

static void app_stop(void *ctx, int signal_number)
{
    (void)signal_number;
    struct server_app *app = ctx;
    at_loop_stop(app->loop);
}

static bool limits_read(const char *const *texts, struct at_limits *limits, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    at_limits_default(limits);
    for (size_t i = 0; rc == AT_OK && texts[i] != NULL; i++) {
        rc = at_limits_set(limits, texts[i], err);
    }
    return rc == AT_OK;
}

struct server_args {
    const char *state_dir, *node_timeout, *tls_lifetime;
    const char *names[AT_APP_LIST_MAX + 1], *limits[AT_APP_LIST_MAX + 1];
    const char *scan, *scan_enforce, *scan_warn;
    const char *scan_namespaces[AT_APP_LIST_MAX + 1], *scan_users[AT_APP_LIST_MAX + 1],
        *scan_rules[AT_APP_LIST_MAX + 1];
    struct at_app_audit audit;
    bool with_stdin, show_limits;
    struct at_server_options o;
};

static void options_add(struct at_app_option *all, const struct at_app_option *some, size_t n)
{
    size_t have = 0;
    while (all[have].name != NULL) {
        have++;
    }
    assert(have + n < SERVER_OPTIONS_MAX);
    memcpy(all + have, some, n * sizeof *some);
}

static void options_of_place(struct server_args *a, struct at_app_option *all)
{
    const struct at_app_option some[] = {
        {"state", &a->state_dir, NULL, NULL, "DIR",
         "Where everything is kept (default /var/lib/atoll/server as root, else "
         "~/.local/state/atoll/server)."},
        {"listen", &a->o.listen, NULL, NULL, "ADDR",
         "Address to serve on (default 127.0.0.1:7443; port 0: a free one)."},
        {"store", &a->o.store, NULL, NULL, "KIND",
         "sqlite (default), memory (lost at exit), or etcd:URL[,URL...][?ca=FILE&cert=FILE&key=FILE"
         "&user=NAME&password-file=FILE]."},
        {"pki", &a->o.pki_dir, NULL, NULL, "DIR",
         "The CA's folder, shared by the servers of one etcd (default pki in --state)."},
        {"secrets-key", &a->o.secrets_key, NULL, NULL, "FILE",
         "Keys that Secrets are encrypted with, made when absent (default secrets.key in --pki)."},
        {"admin-token-file", &a->o.admin_token_file, NULL, NULL, "FILE",
         "Bearer tokens of administrators, one a line; read at the start."},
        {"advertise", &a->o.advertise, NULL, NULL, "URL",
         "Where agents and gateways reach this server (default: https:// and --listen)."},
        {"tls-name", NULL, NULL, a->names, "NAME",
         "One more name or address in the server's certificate."},
        {"node-timeout", &a->node_timeout, NULL, NULL, "TIME",
         "Silence after which a node is lost (default 2s)."},
    };
    options_add(all, some, AT_ARRAY_LEN(some));
}

static void options_of_tls(struct server_args *a, struct at_app_option *all)
{
    const struct at_app_option some[] = {
        {"tls-cert", &a->o.tls.cert, NULL, NULL, "FILE",
         "Certificate to serve with, PEM, its chain behind it; read again when it changes "
         "(default: "
         "one by the server's own authority, renewed by itself)."},
        {"tls-key", &a->o.tls.key, NULL, NULL, "FILE", "Its key, PEM."},
        {"tls-ca", &a->o.tls.ca, NULL, NULL, "FILE",
         "Authority of --tls-cert: agents, gateways and admin.kubeconfig are told to trust it."},
        {"client-ca", &a->o.tls.client_ca, NULL, NULL, "FILE",
         "Authorities whose client certificates are taken too; names and groups of theirs that "
         "begin with system: or atoll: are not."},
        {"client-crl", &a->o.tls.client_crl, NULL, NULL, "FILE",
         "Revocation lists of --client-ca, PEM or DER; read again when it changes."},
        {"tls-lifetime", &a->tls_lifetime, NULL, NULL, "TIME",
         "Life of the server's own certificate (default 9528h); renewed when a third is left."},
    };
    options_add(all, some, AT_ARRAY_LEN(some));
}

static void options_of_oidc(struct server_args *a, struct at_app_option *all)
{
    const struct at_app_option some[] = {
        {"oidc-issuer-url", &a->o.oidc.issuer, NULL, NULL, "URL",
         "OpenID provider whose tokens are taken (https), as kube-apiserver's option."},
        {"oidc-client-id", &a->o.oidc.audience, NULL, NULL, "ID",
         "Audience that its tokens must name."},
        {"oidc-username-claim", &a->o.oidc.username_claim, NULL, NULL, "CLAIM",
         "Claim that holds the user's name (default sub)."},
        {"oidc-username-prefix", &a->o.oidc.username_prefix, NULL, NULL, "TEXT",
         "Put before it (default the issuer and #, none for email; - is none)."},
        {"oidc-groups-claim", &a->o.oidc.groups_claim, NULL, NULL, "CLAIM",
         "Claim that holds groups (default: none are taken)."},
        {"oidc-groups-prefix", &a->o.oidc.groups_prefix, NULL, NULL, "TEXT",
         "Put before each group."},
        {"oidc-ca-file", &a->o.oidc_ca_file, NULL, NULL, "FILE",
         "Authority of the provider's certificate (default the system's)."},
    };
    options_add(all, some, AT_ARRAY_LEN(some));
}

static void options_of_scan(struct server_args *a, struct at_app_option *all)
{
    const struct at_app_option some[] = {
        {"scan", &a->scan, NULL, NULL, "MODE",
         "What the rules of atoll scan do for what is written: off (default), warn, or enforce. A "
         "namespace's labels scan.atoll.dev/mode, /enforce and /warn go before it."},
        {"scan-enforce", &a->scan_enforce, NULL, NULL, "SEVERITY",
         "Refuse findings of this severity and above (default high)."},
        {"scan-warn", &a->scan_warn, NULL, NULL, "SEVERITY",
         "Warn of findings of this severity and above (default medium)."},
        {"scan-exempt-namespace", NULL, NULL, a->scan_namespaces, "NAME",
         "Not in this namespace; may be given again."},
        {"scan-exempt-user", NULL, NULL, a->scan_users, "NAME",
         "Not for this user; may be given again."},
        {"scan-exempt-rule", NULL, NULL, a->scan_rules, "RULE",
         "Not by this rule; may be given again."},
        {"scan-no-suppressions", NULL, &a->o.scan.no_suppressions, NULL, NULL,
         "Annotations of objects suppress nothing."},
    };
    options_add(all, some, AT_ARRAY_LEN(some));
}

static bool severity_take(const char *option, const char *text, enum at_scan_severity *ret,
                          struct at_err *err)
{
    if (text == NULL || at_scan_severity_parse(text, ret)) {
        return true;
    }
    at_err_set(err, AT_BAD_REQUEST, "--%s %s: choose low, medium, high or critical", option, text);
    return false;
}

static bool scan_take(struct server_args *a, struct at_err *err)
{
    struct at_api_scan *s = &a->o.scan;
    s->enforce = AT_SCAN_HIGH;
    s->warn = AT_SCAN_MEDIUM;
    s->exempt_namespaces = a->scan_namespaces;
    s->exempt_users = a->scan_users;
    s->exempt_rules = a->scan_rules;
    for (size_t i = 0; a->scan_rules[i] != NULL; i++) {
        if (at_scan_rule_find(a->scan_rules[i]) == NULL) {
            at_err_set(err, AT_BAD_REQUEST,
                       "--scan-exempt-rule %s: there is no such rule (atoll scan --rules)",
                       a->scan_rules[i]);
            return false;
        }
    }
    if (a->scan != NULL && !at_api_scan_mode_parse(a->scan, &s->mode)) {
        at_err_set(err, AT_BAD_REQUEST, "--scan %s: choose off, warn or enforce", a->scan);
        return false;
    }
    return severity_take("scan-enforce", a->scan_enforce, &s->enforce, err) &&
           severity_take("scan-warn", a->scan_warn, &s->warn, err);
}

static void options_of_rest(struct server_args *a, struct at_app_option *all)
{
    const struct at_app_option some[] = {
        AT_APP_AUDIT_OPTIONS(&a->audit),
        {"limit", NULL, NULL, a->limits, "NAME=VALUE",
         "Set a limit, such as requests=500 or bodies-bytes=64Mi; may be given again."},
        {"limits", NULL, &a->show_limits, NULL, NULL,
         "List the limits, their defaults and metrics."},
        {"exit-with-stdin", NULL, &a->with_stdin, NULL, NULL, "End when standard input is closed."},
    };
    options_add(all, some, AT_ARRAY_LEN(some));
}

/* What the options mean together. False: *ret_exit is set. */
static bool args_take(struct server_args *a, struct at_limits *limits, int *ret_exit)
{
    struct at_err err = {0};
    if (!limits_read(a->limits, limits, &err) || !scan_take(a, &err) ||
        at_app_audit_options(&a->audit, &a->o.audit, &err) != AT_OK) {
        *ret_exit = at_app_fail("server", &err);
        return false;
    }
    a->o.limits = limits;
    *ret_exit = at_rc_exit_status(AT_INVALID);
    return at_app_duration("node-timeout", a->node_timeout, 0, &a->o.node_timeout_ns) &&
           at_app_duration("tls-lifetime", a->tls_lifetime, 0, &a->o.tls.lifetime_ns);
}

static int serve(struct server_args *a, struct server_app *app)
{
    app->loop = at_loop_new(at_sys_real());
    enum at_rc rc = at_app_on_stop(app->loop, app_stop, app, &app->err);
    if (rc == AT_OK && a->with_stdin) {
        at_app_on_stdin_eof(app->loop, app_stop, app);
    }
    if (rc == AT_OK) {
        rc = at_server_new(app->loop, &a->o, &app->server, &app->err);
    }
    if (rc == AT_OK) {
        at_loop_run(app->loop);
    }
    at_server_free(app->server);
    at_loop_free(app->loop);
    return app->err.rc != AT_OK ? at_app_fail("server", &app->err) : 0;
}

int at_app_server(int argc, char **argv)
{
    struct server_app app = {0};
    struct server_args a = {
        .o = {.store = "sqlite", .listen = "127.0.0.1:7443", .on_ready = app_ready, .ctx = &app}};
    struct at_app_option options[SERVER_OPTIONS_MAX] = {0};
    struct at_limits limits;
    int exit_status = 0;
    options_of_place(&a, options);
    options_of_tls(&a, options);
    options_of_oidc(&a, options);
    options_of_scan(&a, options);
    options_of_rest(&a, options);
    if (!at_app_options("server", "the control plane", options, argc, argv, &exit_status)) {
        return exit_status;
    }
    if (a.show_limits) {
        at_limits_print();
        return 0;
    }
    if (!args_take(&a, &limits, &exit_status)) {
        return exit_status;
    }
    AT_CLEANUP(at_cleanup_free)
    char *dir = a.state_dir != NULL ? at_strdup(a.state_dir) : at_app_state_dir("server");
    at_app_log_start("server");
    a.o.state_dir = dir;
    a.o.extra_names = a.names;
    return serve(&a, &app);
}
