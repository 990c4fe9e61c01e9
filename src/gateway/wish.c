/* What a request says about where it wants to go. */
#include "core/mem.h"
#include "gateway/choose.h"
#include "gateway/gateway_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The 64-bit finalizer of MurmurHash3 (Appleby), over both. */
uint64_t gw_hash_mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ a >> 32) * 0x9e3779b97f4a7c15u + b;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    x ^= x >> 33;
    return x;
}

uint64_t gw_hash(struct at_str text)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < text.len; i++) {
        hash = (hash ^ (unsigned char)text.ptr[i]) * 1099511628211u;
    }
    hash = gw_hash_mix(hash, text.len);
    return hash != 0 ? hash : 1;
}

bool gw_model_has_version(const struct gw_model *model, struct at_str version)
{
    for (size_t i = 0; i < model->n_versions; i++) {
        if (at_str_eq(version, model->versions[i])) {
            return true;
        }
    }
    return false;
}

void gw_wish_pin(struct gw_wish *wish, const struct gw_model *model, struct at_str version)
{
    if (wish->pin == 0 && gw_model_has_version(model, version)) {
        wish->pin = gw_hash(version);
        wish->version = version;
    }
}

enum at_rc gw_wish_keep(struct gw_wish *wish, struct at_buf *words)
{
    struct at_str *all[] = {&wish->version, &wish->data_class, &wish->jurisdictions};
    char *at;
    size_t n = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        n += all[i]->len;
    }
    at_buf_clear(words);
    enum at_rc rc = at_buf_reserve(words, n + 1, &at);
    for (size_t i = 0; i < AT_ARRAY_LEN(all) && rc == AT_OK; i++) {
        if (all[i]->len > 0) {
            memcpy(at, all[i]->ptr, all[i]->len);
        }
        all[i]->ptr = at;
        at += all[i]->len;
    }
    wish->prompt = (struct at_str){NULL, 0};
    return rc;
}

/* The cookie's value in a Cookie header (RFC 6265 §4.2.1). */
static struct at_str cookie_of(struct at_str list, struct at_str name)
{
    while (list.len > 0) {
        struct at_str value = at_str_trim(at_str_cut(&list, ';'));
        struct at_str key = at_str_cut(&value, '=');
        if (key.len == name.len && memcmp(key.ptr, name.ptr, name.len) == 0) {
            return value;
        }
    }
    return (struct at_str){NULL, 0};
}

static void read_ours(struct at_str rest, struct at_str value, struct gw_wish *wish,
                      struct at_str *user)
{
    if (value.len == 0) {
        return;
    }
    if (at_str_eq_nocase(rest, "version")) {
        wish->pin = gw_hash(value);
        wish->version = value;
    } else if (at_str_eq_nocase(rest, "user")) {
        *user = value;
    } else if (at_str_eq_nocase(rest, "session")) {
        wish->session = gw_hash(value);
    } else if (at_str_eq_nocase(rest, "data-class")) {
        wish->data_class = value;
    } else if (at_str_eq_nocase(rest, "jurisdiction")) {
        wish->jurisdictions = value;
    }
}

void gw_wish_read(const struct at_http_head *head, const struct gw_model *model, uint64_t random,
                  struct gw_wish *ret)
{
    static const char OURS[] = "x-atoll-";
    const size_t ours_len = sizeof OURS - 1;
    struct at_str user = {NULL, 0}, cookie = {NULL, 0};
    *ret = (struct gw_wish){.draw = random, .cost_milli = 1000};
    struct at_str header = at_str_of(model->session_header);
    struct at_str cookie_name = at_str_of(model->session_cookie);
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str name = head->headers[i].name, value = head->headers[i].value;
        if (name.len > ours_len && at_str_eq_nocase((struct at_str){name.ptr, ours_len}, OURS)) {
            read_ours((struct at_str){name.ptr + ours_len, name.len - ours_len}, value, ret, &user);
        } else if (header.len > 0 && name.len == header.len && value.len > 0 &&
                   at_str_eq_nocase(name, header.ptr)) {
            ret->session = gw_hash(value);
        } else if (cookie_name.len > 0 && name.len == 6 && at_str_eq_nocase(name, "cookie") &&
                   cookie.len == 0) {
            cookie = cookie_of(value, cookie_name);
        }
    }
    if (ret->session == 0 && cookie.len > 0) {
        ret->session = gw_hash(cookie);
    }
    ret->named = user.len > 0 || ret->session != 0;
    if (user.len > 0) {
        ret->draw = gw_hash(user);
    } else if (ret->session != 0) {
        ret->draw = ret->session;
    }
}

static unsigned cost_of(size_t bytes)
{
    size_t milli =
        bytes / AT_GW_COST_BYTES * 1000 + bytes % AT_GW_COST_BYTES * 1000 / AT_GW_COST_BYTES;
    return 1000 + (unsigned)(milli < AT_GW_COST_MILLI_MAX ? milli : AT_GW_COST_MILLI_MAX);
}

void gw_wish_add(struct gw_wish *wish, const struct gw_model *model, const struct gw_path *path,
                 size_t body_bytes)
{
    if (path->version.len > 0) {
        gw_wish_pin(wish, model, path->version);
    }
    if (path->kind == GW_PATH_OPENAI) {
        wish->cost_milli = cost_of(body_bytes);
        wish->session =
            wish->session == 0 && path->session.len > 0 ? gw_hash(path->session) : wish->session;
        if (!wish->named && (path->user.len > 0 || wish->session != 0)) {
            wish->draw = path->user.len > 0 ? gw_hash(path->user) : wish->session;
            wish->named = true;
        }
        wish->prompt = path->prompt;
        wish->prompt_seed = gw_hash(path->tools);
    }
    if (model->affinity == GW_AFFINITY_PREFIX || model->affinity == GW_AFFINITY_NONE) {
        wish->session = 0;
    }
    if (model->affinity == GW_AFFINITY_SESSION || model->affinity == GW_AFFINITY_NONE) {
        wish->prompt = (struct at_str){NULL, 0};
    }
}

void gw_wish_cookie(struct gw_wish *wish, const struct gw_model *model, char cookie[17],
                    uint64_t random)
{
    bool wanted = model->session_cookie != NULL && wish->session == 0 &&
                  model->affinity != GW_AFFINITY_NONE && model->affinity != GW_AFFINITY_PREFIX;
    cookie[0] = '\0';
    if (wanted) {
        snprintf(cookie, 17, "%016" PRIx64, random);
        wish->session = gw_hash((struct at_str){cookie, 16});
        wish->draw = wish->named ? wish->draw : wish->session;
        wish->named = true;
    }
}
