/* Who may come in at all: client certificates that were revoked, and bearer tokens of which only a
 * digest is kept. Both are objects; here they are found by what a request shows. A request that
 * goes on (a watch, a log, a command) is asked again whenever one of them changes. */
#include "api/entry.h"
#include "api/service_token.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

#define TOKEN_KIND "access"
#define KEY_BYTES 512
#define OWN_PREFIX "system:"
#define OWN_PREFIX_ATOLL "atoll:"

struct revocation {
    struct revocation *next; /* of the same key */
    char *key;
    int64_t before_ns;
};

struct access {
    json_t *spec;
    int64_t expires_ns;
};

struct api_entry {
    struct at_map *revocations; /* by name of the object */
    struct at_map *by_key;      /* "s<serial>", "f<fingerprint>", "u<user>": the first of a list */
    struct at_map *tokens;      /* by name of the object: struct access */
    const struct at_crl *crl;   /* may be NULL */
};

/* --- what is stored --- */

static void revocation_drop(struct api_entry *e, const char *name)
{
    struct revocation *r = at_map_remove(e->revocations, name);
    if (r == NULL) {
        return;
    }
    struct revocation *first = at_map_get(e->by_key, r->key);
    if (first == r && r->next == NULL) {
        (void)at_map_remove(e->by_key, r->key);
    } else if (first == r) {
        (void)at_map_put(e->by_key, r->key, r->next);
    } else {
        while (first->next != r) {
            first = first->next;
        }
        first->next = r->next;
    }
    at_free(r->key);
    at_free(r);
}

static void key_make(char out[KEY_BYTES], char sort, const char *text)
{
    size_t i = 0;
    out[i++] = sort;
    for (; *text != '\0' && i + 1 < KEY_BYTES; text++) {
        bool low = sort == 'f' && *text >= 'A' && *text <= 'F';
        bool high = sort == 's' && *text >= 'a' && *text <= 'f';
        out[i++] = low ? (char)(*text + 32) : high ? (char)(*text - 32) : *text;
    }
    out[i] = '\0';
}

static void revocation_put(struct api_entry *e, const char *name, const json_t *object)
{
    static const char *const WAYS[] = {"spec.serial", "spec.fingerprint", "spec.user"};
    char key[KEY_BYTES];
    revocation_drop(e, name);
    for (size_t i = 0; i < AT_ARRAY_LEN(WAYS); i++) {
        const char *text = at_json_str_at(object, WAYS[i], "");
        if (text[0] == '\0') {
            continue;
        }
        struct revocation *r = AT_NEW(struct revocation);
        const char *before = at_json_str_at(object, "spec.issuedBefore", "");
        key_make(key, WAYS[i][5], text);
        r->key = at_strdup(key);
        if (before[0] == '\0' || at_time_parse(before, &r->before_ns, NULL) != AT_OK) {
            r->before_ns = INT64_MAX;
        }
        r->next = at_map_get(e->by_key, key);
        (void)at_map_put(e->by_key, key, r);
        (void)at_map_put(e->revocations, name, r);
        return;
    }
}

static void token_put(struct api_entry *e, const char *name, const json_t *object)
{
    struct access *old = at_map_remove(e->tokens, name);
    if (old != NULL) {
        json_decref(old->spec);
        at_free(old);
    }
    int64_t expires_ns = 0;
    if (object == NULL || at_object_deleting(object) ||
        at_time_parse(at_json_str_at(object, "spec.expires", ""), &expires_ns, NULL) != AT_OK) {
        return;
    }
    struct access *t = AT_NEW(struct access);
    t->spec = json_incref(json_object_get(object, "spec"));
    t->expires_ns = expires_ns;
    (void)at_map_put(e->tokens, name, t);
}

static bool is_ours(const struct at_model_kind *kind)
{
    return kind == &AT_KIND_ACCESS_TOKEN || kind == &AT_KIND_CERTIFICATE_REVOCATION;
}

static void put(struct api_entry *e, const struct at_model_kind *kind, const char *name,
                const json_t *object)
{
    if (kind == &AT_KIND_ACCESS_TOKEN) {
        token_put(e, name, object);
    } else if (object != NULL) {
        revocation_put(e, name, object);
    } else {
        revocation_drop(e, name);
    }
}

static void changed(void *ctx, const struct at_model_kind *kind, const char *ns, const char *name)
{
    struct at_api *api = ctx;
    (void)ns;
    if (!is_ours(kind)) {
        return;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *object = at_state_object(api->options.state, kind, NULL, name);
    put(api->entry, kind, name, object);
    api_recheck_soon(api);
}

struct filling {
    struct api_entry *entry;
    const struct at_model_kind *kind;
};

static void fill(void *ctx, const char *ns, const char *name, const json_t *object)
{
    const struct filling *f = ctx;
    (void)ns;
    put(f->entry, f->kind, name, object);
}

void api_entry_begin(struct at_api *api)
{
    struct api_entry *e = AT_NEW(struct api_entry);
    e->revocations = at_map_new();
    e->by_key = at_map_new();
    e->tokens = at_map_new();
    api->entry = e;
    if (api->options.ca != NULL) {
        at_api_set_trust(api, at_ca_cert_pem(api->options.ca),
                         at_ca_pin_sha256_hex(api->options.ca));
    }
    if (api->options.state == NULL) {
        return;
    }
    struct filling tokens = {e, &AT_KIND_ACCESS_TOKEN};
    struct filling revocations = {e, &AT_KIND_CERTIFICATE_REVOCATION};
    at_state_each(api->options.state, tokens.kind, NULL, fill, &tokens);
    at_state_each(api->options.state, revocations.kind, NULL, fill, &revocations);
    at_state_listen(api->options.state, changed, api);
    api_recheck_soon(api);
}

void api_entry_done(struct at_api *api)
{
    struct api_entry *e = api->entry;
    const char *key;
    void *value;
    if (e == NULL) {
        return;
    }
    api_recheck_done(api);
    if (api->options.state != NULL) {
        at_state_unlisten(api->options.state, changed, api);
    }
    for (size_t it = 0; at_map_next(e->revocations, &it, &key, &value);) {
        at_free(((struct revocation *)value)->key);
        at_free(value);
    }
    for (size_t it = 0; at_map_next(e->tokens, &it, &key, &value);) {
        json_decref(((struct access *)value)->spec);
        at_free(value);
    }
    at_map_free(e->revocations);
    at_map_free(e->by_key);
    at_map_free(e->tokens);
    at_free(e);
    api->entry = NULL;
}

void at_api_set_crl(struct at_api *api, const struct at_crl *crl)
{
    api->entry->crl = crl;
    api_recheck_soon(api);
}

void at_api_set_trust(struct at_api *api, const char *trust_pem, const char *pin_sha256_hex)
{
    api->trust_pem = trust_pem;
    api->pin = pin_sha256_hex;
}

/* --- certificates --- */

static bool is_own(const struct at_api *api, const struct at_tls_peer *peer)
{
    return api->options.ca == NULL ||
           at_streq(peer->issuer_spki_sha256_hex, at_ca_pin_sha256_hex(api->options.ca));
}

/* Times of certificates are whole seconds: what was issued within the second of the revocation
 * counts as before it. */
static bool listed(const struct at_api *api, const struct at_tls_peer *peer, char sort,
                   const char *text)
{
    char key[KEY_BYTES];
    key_make(key, sort, text);
    for (const struct revocation *r = at_map_get(api->entry->by_key, key); r != NULL; r = r->next) {
        if (peer->issued_wall_ns <= r->before_ns) {
            return true;
        }
    }
    return false;
}

static bool is_revoked(const struct at_api *api, const struct at_tls_peer *peer)
{
    const struct api_entry *e = api->entry;
    if (e->crl != NULL && at_crl_has(e->crl, peer->issuer_name_sha256_hex, peer->serial_hex)) {
        return true;
    }
    return at_map_count(e->by_key) > 0 && (listed(api, peer, 's', peer->serial_hex) ||
                                           listed(api, peer, 'f', peer->fingerprint_sha256_hex) ||
                                           listed(api, peer, 'u', peer->common_name));
}

const char *api_entry_refuses(const struct at_api *api, const struct at_tls_peer *peer)
{
    if (at_sys_wall_ns(api->sys) >= peer->not_after_wall_ns) {
        return "the client certificate has expired";
    }
    if (is_revoked(api, peer)) {
        return "the client certificate was revoked";
    }
    if (!is_own(api, peer) && at_str_starts(at_str_of(peer->common_name), OWN_PREFIX)) {
        return "names that begin with system: are given by this server's own authority alone";
    }
    return NULL;
}

bool at_api_peer_counts(const struct at_api *api, const struct at_tls_peer *peer)
{
    return api_entry_refuses(api, peer) == NULL;
}

bool api_entry_group_counts(const struct at_api *api, const struct at_tls_peer *peer,
                            const char *group)
{
    struct at_str name = at_str_of(group);
    return is_own(api, peer) ||
           (!at_str_starts(name, OWN_PREFIX) && !at_str_starts(name, OWN_PREFIX_ATOLL));
}

/* --- tokens --- */

static void identity_of(const json_t *spec, struct at_identity *ret)
{
    size_t i;
    const json_t *group;
    snprintf(ret->user, sizeof ret->user, "%s", at_json_str_at(spec, "user", ""));
    ret->n_groups = 0;
    json_array_foreach(json_object_get(spec, "groups"), i, group)
    {
        const char *text = json_string_value(group);
        if (text != NULL && ret->n_groups < AT_IDENTITY_GROUPS_MAX &&
            strlen(text) < sizeof ret->groups[0]) {
            memcpy(ret->groups[ret->n_groups++], text, strlen(text) + 1);
        }
    }
}

bool api_entry_token(const struct at_api *api, struct at_str text, struct at_identity *ret,
                     char ret_id[API_TOKEN_ID_BYTES], int64_t *ret_expires_ns)
{
    char whole[sizeof((struct at_token *)NULL)->text];
    char digest[AT_SHA256_HEX_BYTES];
    if (text.len >= sizeof whole) {
        return false;
    }
    memcpy(whole, text.ptr, text.len);
    whole[text.len] = '\0';
    bool parsed = at_token_parse(whole, TOKEN_KIND, ret_id, digest, NULL) == AT_OK;
    explicit_bzero(whole, sizeof whole);
    const struct access *t = parsed ? at_map_get(api->entry->tokens, ret_id) : NULL;
    const char *kept = t != NULL ? at_json_str_at(t->spec, "secretSha256", "") : "";
    if (strlen(kept) != AT_SHA256_HEX_BYTES - 1 ||
        !at_equal_const_time(kept, digest, AT_SHA256_HEX_BYTES - 1) ||
        at_sys_wall_ns(api->sys) >= t->expires_ns) {
        return false;
    }
    identity_of(t->spec, ret);
    *ret_expires_ns = t->expires_ns;
    return ret->user[0] != '\0';
}

/* --- again --- */

bool api_still_in(struct api_req *req)
{
    const struct at_api *api = req->api;
    const struct at_tls_peer *peer = req->ex != NULL && at_streq(req->auth_how, API_BY_CERTIFICATE)
                                         ? at_http_peer(req->ex)
                                         : NULL;
    if (peer != NULL && is_revoked(api, peer)) {
        return false;
    }
    if (req->token_id != NULL && at_map_get(api->entry->tokens, req->token_id) == NULL) {
        return false;
    }
    return req->claims == NULL || api_service_still(api, req->claims);
}

bool api_over_time(const struct api_req *req)
{
    return req->expires_ns != 0 && at_sys_wall_ns(req->api->sys) >= req->expires_ns;
}
