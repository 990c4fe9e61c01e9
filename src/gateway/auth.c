/* Bearer tokens: only digests of the accepted ones are kept. Texts that were accepted lately stay
 * in a small cache per loop, so that a client that goes on asking costs no digest. */
#include "core/digest.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "sys/file.h"

#include <stdio.h>

/* One without a name is called by the beginning of its digest, which says nothing of the token. */
static void name_key(struct at_gateway *g)
{
    const unsigned char *d = g->digests[g->n_digests];
    char *name = g->keys[g->n_digests++];
    if (name[0] == '\0') {
        snprintf(name, AT_GW_KEY_BYTES_MAX, "key-%02x%02x%02x%02x", d[0], d[1], d[2], d[3]);
    }
}

/* "priority=low" at the end of a token's line: its requests' class, and the highest that they may
 * ask for. It is taken off name. */
static enum at_rc take_class(struct at_gateway *g, struct at_str *name, struct at_err *err)
{
    static const char WORD[] = "priority=";
    size_t at = name->len;
    while (at > 0 && name->ptr[at - 1] != ' ') {
        at--;
    }
    struct at_str last = {name->ptr + at, name->len - at};
    enum gw_priority class = GW_PRIORITIES;
    if (at_str_starts(last, WORD)) {
        last = (struct at_str){last.ptr + sizeof WORD - 1, last.len - (sizeof WORD - 1)};
        if (!gw_priority_parse(last, &class)) {
            return at_err_set(err, AT_INVALID,
                              "priority=%.*s: must be critical, high, normal or low", (int)last.len,
                              last.ptr);
        }
        name->len = at;
        *name = at_str_trim(*name);
    }
    g->classes = at_realloc(g->classes, (g->n_digests + 1) * sizeof *g->classes);
    g->classes[g->n_digests] = class;
    return AT_OK;
}

bool gw_auth_priority(const struct gw_worker *worker, struct at_str text, enum gw_priority *ret)
{
    const struct at_gateway *g = worker->gateway;
    enum gw_priority most = GW_PRIORITIES;
    if (worker->bearer != NULL) {
        most = worker->bearer->priority;
    } else if (worker->key != NULL && g->keys != NULL) {
        most = g->classes[(worker->key - g->keys[0]) / AT_GW_KEY_BYTES_MAX];
    }
    *ret = most != GW_PRIORITIES ? most : GW_NORMAL;
    enum gw_priority wanted = *ret;
    if (text.ptr != NULL && !gw_priority_parse(text, &wanted)) {
        return false;
    }
    *ret = wanted < most ? wanted : most;
    return true;
}

/* A token, or sha256: and its digest; then, after a space, its name in metrics and logs. */
static enum at_rc add(struct at_gateway *g, struct at_str line, struct at_err *err)
{
    static const char DIGEST[] = "sha256:";
    if (g->n_digests == AT_GW_TOKENS_MAX) {
        return at_err_set(err, AT_INVALID, "more than %d tokens", AT_GW_TOKENS_MAX);
    }
    struct at_str name = line;
    line = at_str_cut(&name, ' ');
    name = at_str_trim(name);
    enum at_rc rc = take_class(g, &name, err);
    if (rc != AT_OK) {
        return rc;
    }
    g->digests = at_realloc(g->digests, (g->n_digests + 1) * sizeof *g->digests);
    g->keys = at_realloc(g->keys, (g->n_digests + 1) * sizeof *g->keys);
    g->keys[g->n_digests][0] = '\0';
    if (name.len >= sizeof *g->keys || at_str_utf8_prefix(name) != name.len) {
        return at_err_set(err, AT_INVALID, "a token's name of more than %d bytes, or not UTF-8",
                          AT_GW_KEY_BYTES_MAX - 1);
    }
    memcpy(g->keys[g->n_digests], name.ptr, name.len);
    g->keys[g->n_digests][name.len] = '\0';
    unsigned char *digest = g->digests[g->n_digests];
    if (!at_str_starts(line, DIGEST)) {
        at_sha256(line.ptr, line.len, digest);
        name_key(g);
        return AT_OK;
    }
    if (line.len != sizeof DIGEST - 1 + 64) {
        return at_err_set(err, AT_INVALID, "a sha256: line without 64 hex digits");
    }
    for (size_t i = 0; i < 32; i++) {
        unsigned byte = 0;
        for (size_t j = 0; j < 2; j++) {
            char c = (char)(line.ptr[sizeof DIGEST - 1 + 2 * i + j] | 0x20);
            bool digit = c >= '0' && c <= '9';
            if (!digit && (c < 'a' || c > 'f')) {
                return at_err_set(err, AT_INVALID, "a sha256: line without 64 hex digits");
            }
            byte = byte << 4 | (unsigned)(digit ? c - '0' : c - 'a' + 10);
        }
        digest[i] = (unsigned char)byte;
    }
    name_key(g);
    return AT_OK;
}

enum at_rc gw_auth_load(struct at_gateway *gateway, const char *file, struct at_err *err)
{
    gateway->open = file == NULL;
    if (file == NULL) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(file, AT_GW_FILE_BYTES_MAX, &text, err);
    struct at_str rest = {text.data, text.len};
    while (rc == AT_OK && rest.len > 0) {
        struct at_str line = at_str_trim(at_str_cut(&rest, '\n'));
        if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        if (line.len > 0 && line.ptr[0] != '#') {
            rc = add(gateway, line, err);
        }
    }
    if (rc == AT_OK && gateway->n_digests == 0) {
        return at_err_set(err, AT_INVALID, "%s holds no token", file);
    }
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "tokens from %s", file);
}

static struct at_str bearer(const struct at_http_head *head)
{
    struct at_str value = at_http_header_get(head, "authorization");
    if (value.len > 7 && value.ptr[6] == ' ' &&
        at_str_eq_nocase((struct at_str){value.ptr, 6}, "bearer")) {
        return at_str_trim((struct at_str){value.ptr + 7, value.len - 7});
    }
    return (struct at_str){NULL, 0};
}

bool gw_auth_allows(struct gw_worker *worker, const struct at_http_head *head)
{
    const struct at_gateway *g = worker->gateway;
    struct at_str token = bearer(head);
    if (gw_meter_bearer(worker, token, &worker->problem)) {
        return true;
    }
    if (worker->problem != NULL || g->open) {
        return worker->problem == NULL;
    }
    if (token.len == 0 || token.len > AT_GW_TOKEN_BYTES_MAX) {
        return false;
    }
    struct gw_token *cached = &worker->tokens[gw_hash(token) % AT_GW_TOKEN_CACHE];
    if (cached->len == token.len && at_equal_const_time(cached->text, token.ptr, token.len)) {
        worker->key = cached->key;
        return true;
    }
    unsigned char digest[AT_SHA256_BYTES];
    at_sha256(token.ptr, token.len, digest);
    bool found = false;
    size_t which = 0;
    for (size_t i = 0; i < g->n_digests; i++) {
        bool same = at_equal_const_time(g->digests[i], digest, sizeof digest);
        which = same && !found ? i : which;
        found |= same;
    }
    if (found) {
        at_free(cached->text);
        cached->text = at_strndup(token.ptr, token.len);
        cached->len = token.len;
        cached->key = worker->key = g->keys[which];
    }
    return found;
}

void gw_auth_done(struct gw_worker *worker)
{
    for (size_t i = 0; i < AT_GW_TOKEN_CACHE; i++) {
        at_free(worker->tokens[i].text);
    }
}
