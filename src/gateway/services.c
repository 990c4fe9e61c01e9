#include "gateway/services.h"

#include "core/mem.h"
#include "gateway/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int hex(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* The next octet of s at *i, decoded, but "%2F" stays one that no path of a rule has (256). */
static int octet(struct at_str s, size_t *i)
{
    int c = (unsigned char)s.ptr[(*i)++];
    if (c == '%' && s.len - *i >= 2) {
        int high = hex(s.ptr[*i]), low = hex(s.ptr[*i + 1]);
        if (high >= 0 && low >= 0) {
            *i += 2;
            c = high << 4 | low;
            return c == '/' ? 256 : c;
        }
    }
    return c;
}

/* How much of path the prefix takes; path.len + 1: it is none. */
static size_t prefix_len(struct at_str path, const char *prefix)
{
    size_t i = 0;
    for (const char *p = prefix; *p != '\0'; p++) {
        if (i == path.len || octet(path, &i) != (unsigned char)*p) {
            return path.len + 1;
        }
    }
    return i == path.len || path.ptr[i] == '/' ? i : path.len + 1;
}

bool gw_service_path_is_unclear(struct at_str path)
{
    size_t dots = 0, others = 0;
    for (size_t i = 0; i < path.len;) {
        int c = octet(path, &i);
        if (c == '/' || c == 256 || c == '\\') {
            if (others == 0 && (dots == 1 || dots == 2)) {
                return true;
            }
            dots = others = 0;
        } else if (c < 0x20 || c == 0x7f) {
            return true;
        } else if (c == '.') {
            dots++;
        } else {
            others++;
        }
    }
    return others == 0 && (dots == 1 || dots == 2);
}

/* Host without port and last dot, in lower case. */
static void host_of(const struct at_http_head *head, char out[AT_GW_HOST_BYTES_MAX])
{
    struct at_str host = at_http_header_get(head, "host");
    for (size_t i = host.len; i > 0 && host.ptr[i - 1] != ']'; i--) {
        if (host.ptr[i - 1] == ':') {
            host.len = i - 1;
            break;
        }
    }
    if (host.len > 1 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    size_t n = host.len < AT_GW_HOST_BYTES_MAX ? host.len : 0;
    for (size_t i = 0; i < n; i++) {
        char c = host.ptr[i];
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    out[n] = '\0';
}

static bool host_fits(const char *rule, const char *host, size_t host_len)
{
    if (rule[0] != '.') {
        return rule[0] == '\0' || strcmp(rule, host) == 0;
    }
    size_t len = strlen(rule);
    return host_len > len && strcmp(host + host_len - len, rule) == 0;
}

const struct gw_rule *gw_rules_find(const struct gw_rules *rules, const struct at_http_head *head)
{
    if (rules == NULL || rules->n == 0) {
        return NULL;
    }
    char host[AT_GW_HOST_BYTES_MAX];
    host_of(head, host);
    size_t host_len = strlen(host);
    for (size_t i = 0; i < rules->n; i++) {
        const struct gw_rule *r = &rules->rules[i];
        if (host_fits(r->host, host, host_len) &&
            prefix_len(head->path, r->path) <= head->path.len) {
            return r;
        }
    }
    return NULL;
}

enum at_rc gw_service_target(const struct gw_rule *rule, const struct at_http_head *head,
                             struct at_buf *out)
{
    at_buf_clear(out);
    if (rule->rewrite == NULL) {
        return at_buf_append(out, head->target.ptr, head->target.len);
    }
    size_t taken = prefix_len(head->path, rule->path);
    assert(taken <= head->path.len);
    struct at_str rest = {head->path.ptr + taken, head->path.len - taken};
    enum at_rc rc = at_buf_append_str(out, rule->rewrite);
    if (rc == AT_OK) {
        rc = rest.len > 0 ? at_buf_append(out, rest.ptr, rest.len)
                          : at_buf_append_str(out, out->len == 0 ? "/" : "");
    }
    if (rc == AT_OK && memchr(head->target.ptr, '?', head->target.len) != NULL) {
        rc = at_buf_append(out, "?", 1);
        rc = rc == AT_OK ? at_buf_append(out, head->query.ptr, head->query.len) : rc;
    }
    return rc;
}

struct gw_forwarded gw_forwarded_of(const struct at_http_exchange *ex, bool is_tls, bool is_public)
{
    struct at_str client = at_str_of(at_http_peer_addr(ex));
    size_t colon = client.len;
    while (colon > 0 && client.ptr[colon - 1] != ':') {
        colon--;
    }
    if (at_str_starts(client, "unix:") || colon == 0) {
        client = AT_STR("unknown");
    } else {
        client.len = colon - 1;
    }
    if (client.len > 2 && client.ptr[0] == '[') {
        client = (struct at_str){client.ptr + 1, client.len - 2};
    }
    return (struct gw_forwarded){.client = client,
                                 .host = at_http_header_get(at_http_request(ex), "host"),
                                 .is_tls = is_tls,
                                 .keeps_authorization = is_public};
}

/* --- making --- */

/* Exact hosts, then wildcards, longer ones first, then none; then longer paths; then the older. */
static int compare(const void *x, const void *y)
{
    const struct gw_rule *a = x, *b = y;
    int kind_a = a->host[0] == '\0' ? 2 : a->host[0] == '.';
    int kind_b = b->host[0] == '\0' ? 2 : b->host[0] == '.';
    size_t host_a = strlen(a->host), host_b = strlen(b->host);
    size_t path_a = strlen(a->path), path_b = strlen(b->path);
    int by_made = strcmp(a->made, b->made);
    return kind_a != kind_b                  ? kind_a - kind_b
           : kind_a == 1 && host_a != host_b ? (host_a < host_b) - (host_a > host_b)
           : path_a != path_b                ? (path_a < path_b) - (path_a > path_b)
           : strcmp(a->host, b->host) != 0   ? strcmp(a->host, b->host)
           : strcmp(a->path, b->path) != 0   ? strcmp(a->path, b->path)
           : by_made != 0                    ? by_made
                                             : strcmp(a->owner, b->owner);
}

static void rule_done(struct gw_rule *r)
{
    at_free(r->host);
    at_free(r->path);
    at_free(r->rewrite);
    at_free(r->model);
    at_free(r->owner);
    at_free(r->made);
}

static struct gw_rules *rules_new(void)
{
    struct gw_rules *rules = AT_NEW(struct gw_rules);
    rules->refs = 1;
    return rules;
}

struct gw_rules *gw_rules_ref(struct gw_rules *rules)
{
    atomic_fetch_add_explicit(&rules->refs, 1, memory_order_relaxed);
    return rules;
}

void gw_rules_unref(struct gw_rules *rules)
{
    if (rules == NULL || atomic_fetch_sub_explicit(&rules->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < rules->n; i++) {
        rule_done(&rules->rules[i]);
    }
    at_free(rules->rules);
    at_free(rules);
}

/* A copy without the slash at its end. */
static char *without_slash(const char *path)
{
    size_t len = strlen(path);
    while (len > 0 && path[len - 1] == '/') {
        len--;
    }
    return at_strndup(path, len);
}

static void add(struct gw_rules *rules, const json_t *service, const char *host, const char *model,
                const char *owner, const char *made)
{
    const char *rewrite = at_json_str_at(service, "rewrite", "");
    char *lower = at_strdup(host[0] == '*' ? host + 1 : host);
    for (char *c = lower; *c != '\0'; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    rules->rules = at_realloc(rules->rules, (rules->n + 1) * sizeof *rules->rules);
    rules->rules[rules->n++] = (struct gw_rule){
        .host = lower,
        .path = without_slash(at_json_str_at(service, "path", "/")),
        .rewrite = rewrite[0] != '\0' ? without_slash(rewrite) : NULL,
        .model = at_strdup(model),
        .owner = at_strdup(owner),
        .made = at_strdup(made),
        .is_public = at_streq(at_json_str_at(service, "access", "Token"), "Public")};
}

static void add_service(struct gw_rules *rules, const json_t *service, const char *model,
                        const char *owner, const char *made)
{
    size_t i;
    json_t *host;
    json_t *hosts = at_json_at(service, "hosts");
    json_array_foreach(hosts, i, host)
    {
        add(rules, service, json_string_value(host), model, owner, made);
    }
    if (json_array_size(hosts) == 0) {
        add(rules, service, "", model, owner, made);
    }
}

/* Sort, and take those out that come second. */
static void settle(struct gw_rules *rules, struct at_buf *ret_lost)
{
    size_t n = 0;
    if (rules->n > 1) {
        qsort(rules->rules, rules->n, sizeof *rules->rules, compare);
    }
    for (size_t i = 0; i < rules->n; i++) {
        struct gw_rule *r = &rules->rules[i];
        if (n > 0 && strcmp(rules->rules[n - 1].host, r->host) == 0 &&
            strcmp(rules->rules[n - 1].path, r->path) == 0) {
            if (ret_lost != NULL && strcmp(rules->rules[n - 1].owner, r->owner) != 0) {
                (void)!at_buf_printf(ret_lost, "%s%s", ret_lost->len > 0 ? " " : "", r->owner);
            }
            rule_done(r);
        } else {
            rules->rules[n++] = *r;
        }
    }
    rules->n = n;
}

struct gw_rules *gw_rules_of(const json_t *deployments, struct at_buf *ret_lost)
{
    struct gw_rules *rules = rules_new();
    size_t i;
    json_t *d;
    json_array_foreach(deployments, i, d)
    {
        const json_t *service = at_json_at(d, "spec.service");
        const char *name = at_json_str_at(d, "metadata.name", "");
        if (service != NULL) {
            AT_CLEANUP(at_cleanup_free)
            char *owner = at_asprintf("%s/%s", at_json_str_at(d, "metadata.namespace", ""), name);
            const char *model = at_json_str_at(d, "spec.template.spec.model.name", name);
            add_service(rules, service, model[0] != '\0' ? model : name, owner,
                        at_json_str_at(d, "metadata.creationTimestamp", ""));
        }
    }
    settle(rules, ret_lost);
    return rules;
}

static enum at_rc check_static(const json_t *service, struct at_err *err)
{
    const char *path = at_json_str_at(service, "path", "/");
    const char *rewrite = at_json_str_at(service, "rewrite", "/");
    size_t i;
    json_t *host;
    if (at_json_str_at(service, "model", "")[0] == '\0') {
        return at_err_set_field(err, AT_INVALID, "model", "is needed");
    }
    if (path[0] != '/' || rewrite[0] != '/') {
        return at_err_set_field(err, AT_INVALID, path[0] != '/' ? "path" : "rewrite",
                                "must begin with a slash");
    }
    json_array_foreach(at_json_at(service, "hosts"), i, host)
    {
        if (json_string_length(host) == 0) {
            return at_err_set_field(err, AT_INVALID, "hosts", "must be a list of names");
        }
    }
    return AT_OK;
}

enum at_rc gw_rules_parse(const char *text, size_t len, struct gw_rules **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    enum at_rc rc = at_json_parse(text, len, &root, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct gw_rules *rules = rules_new();
    size_t i;
    json_t *service;
    json_array_foreach(at_json_at(root, "services"), i, service)
    {
        rc = check_static(service, err);
        if (rc != AT_OK) {
            gw_rules_unref(rules);
            return at_err_wrap(err, rc, "service %zu", i);
        }
        AT_CLEANUP(at_cleanup_free) char *made = at_asprintf("%06zu", i);
        const char *model = at_json_str_at(service, "model", "");
        add_service(rules, service, model, model, made);
    }
    settle(rules, NULL);
    *ret = rules;
    return AT_OK;
}
