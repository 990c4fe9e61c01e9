#include "store/etcd_wire.h"

#include "core/digest.h"
#include "core/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL_KEYS "AA==" /* the byte 0: as a first key the lowest, as an end "no end" */

/* gRPC status codes, as far as etcd uses them. */
enum {
    GRPC_INVALID = 3,
    GRPC_NOT_FOUND = 5,
    GRPC_FORBIDDEN = 7,
    GRPC_EXHAUSTED = 8,
    GRPC_PRECONDITION = 9,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNAUTHENTICATED = 16
};

/* What etcd says when it wants to know who asks, or has forgotten. */
static bool about_identity(const char *message, int64_t code)
{
    return code == GRPC_UNAUTHENTICATED || strstr(message, "user name is empty") != NULL ||
           strstr(message, "invalid auth token") != NULL ||
           strstr(message, "revision of auth store is old") != NULL ||
           strstr(message, "revision in header is old") != NULL ||
           strstr(message, "authentication failed") != NULL;
}

static enum at_rc put_base64(struct at_buf *out, const char *before, const void *data, size_t len,
                             const char *after)
{
    enum at_rc rc = at_buf_append_str(out, before);
    if (rc == AT_OK) {
        rc = at_base64_encode(data, len, out);
    }
    return rc == AT_OK ? at_buf_append_str(out, after) : rc;
}

static enum at_rc put_success(const struct at_etcd_txn *txn, struct at_buf *out)
{
    const struct at_store_version *v = txn->version;
    const char *key = at_store_version_key(v);
    if (!txn->put) {
        return put_base64(out,
                          txn->expect != 0 ? "{\"request_delete_range\":{\"key\":\""
                                           : "{\"request_range\":{\"key\":\"",
                          key, v->key_len, "\"}}");
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf sealed = {0};
    struct at_str value = {at_store_version_value(v), v->value_len};
    enum at_rc rc = at_store_seal_value(txn->seal, key, value, &sealed, &value, NULL);
    if (rc == AT_OK) {
        rc = put_base64(out, "{\"request_put\":{\"key\":\"", key, v->key_len, "\",\"value\":\"");
    }
    if (rc == AT_OK) {
        rc = put_base64(out, "", value.ptr, value.len, "\"");
    }
    if (rc == AT_OK && txn->lease != 0) {
        rc = at_buf_printf(out, ",\"lease\":\"%llu\"", (unsigned long long)txn->lease);
    }
    return rc == AT_OK ? at_buf_append_str(out, "}}") : rc;
}

static enum at_rc put_compare(const char *key, size_t key_len, int64_t rev, struct at_buf *out)
{
    enum at_rc rc =
        put_base64(out, "{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"", key, key_len, "\"");
    return rc == AT_OK ? at_buf_printf(out, ",\"mod_revision\":\"%lld\"}", (long long)rev) : rc;
}

static enum at_rc put_guard_compare(const struct at_etcd_txn *txn, struct at_buf *out)
{
    if (txn->guard_key == NULL) {
        return AT_OK;
    }
    enum at_rc rc = at_buf_append_str(out, ",");
    return rc == AT_OK ? put_compare(txn->guard_key, strlen(txn->guard_key), txn->guard_rev, out)
                       : rc;
}

static enum at_rc put_txn(const struct at_etcd_txn *txn, struct at_buf *out)
{
    const struct at_store_version *v = txn->version;
    const char *key = at_store_version_key(v);
    enum at_rc rc = at_buf_append_str(out, "{\"compare\":[");
    if (rc == AT_OK) {
        rc = put_compare(key, v->key_len, txn->expect, out);
    }
    if (rc == AT_OK) {
        rc = put_guard_compare(txn, out);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(out, "],\"success\":[");
    }
    if (rc == AT_OK) {
        rc = put_success(txn, out);
    }
    if (rc == AT_OK) {
        rc = put_base64(out, "],\"failure\":[{\"request_range\":{\"key\":\"", key, v->key_len,
                        "\"}}");
    }
    if (rc == AT_OK && txn->guard_key != NULL) {
        rc = put_base64(out, ",{\"request_range\":{\"key\":\"", txn->guard_key,
                        strlen(txn->guard_key), "\",\"keys_only\":true}}");
    }
    return rc == AT_OK ? at_buf_append_str(out, "]}") : rc;
}

static enum at_rc put_apart(const struct at_etcd_txn *txns, size_t n, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(out, "{\"success\":[");
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        rc = at_buf_append_str(out, i == 0 ? "{\"request_txn\":" : ",{\"request_txn\":");
        if (rc == AT_OK) {
            rc = put_txn(&txns[i], out);
        }
        if (rc == AT_OK) {
            rc = at_buf_append_str(out, "}");
        }
    }
    return rc == AT_OK ? at_buf_append_str(out, "]}") : rc;
}

static bool guard_was_before(const struct at_etcd_txn *txns, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (txns[k].guard_key != NULL && txns[k].guard_rev == txns[i].guard_rev &&
            strcmp(txns[k].guard_key, txns[i].guard_key) == 0) {
            return true;
        }
    }
    return false;
}

static enum at_rc put_together(const struct at_etcd_txn *txns, size_t n, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(out, "{\"compare\":[");
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        const struct at_store_version *v = txns[i].version;
        rc = i != 0 ? at_buf_append_str(out, ",") : AT_OK;
        if (rc == AT_OK) {
            rc = put_compare(at_store_version_key(v), v->key_len, txns[i].expect, out);
        }
        if (rc == AT_OK && txns[i].guard_key != NULL && !guard_was_before(txns, i)) {
            rc = put_guard_compare(&txns[i], out);
        }
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(out, "],\"success\":[");
    }
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        rc = i != 0 ? at_buf_append_str(out, ",") : AT_OK;
        if (rc == AT_OK) {
            rc = put_success(&txns[i], out);
        }
    }
    return rc == AT_OK ? at_buf_append_str(out, "]}") : rc;
}

enum at_rc at_etcd_txn_text(const struct at_etcd_txn *txns, size_t n, enum at_etcd_form form,
                            struct at_buf *out)
{
    switch (form) {
    case AT_ETCD_TOGETHER:
        return put_together(txns, n, out);
    case AT_ETCD_APART:
        return put_apart(txns, n, out);
    default:
        return put_txn(txns, out);
    }
}

enum at_rc at_etcd_scheme_text(struct at_buf *out)
{
    static const char key[] = AT_ETCD_SCHEME_KEY; /* with its own NUL, without the string's */
    char version[16];
    int len = snprintf(version, sizeof version, "%d", AT_ETCD_SCHEME);
    enum at_rc rc = at_buf_append_str(out, "{\"compare\":[");
    if (rc == AT_OK) {
        rc = put_compare(key, sizeof key - 1, 0, out);
    }
    if (rc == AT_OK) {
        rc = put_base64(out, "],\"success\":[{\"request_put\":{\"key\":\"", key, sizeof key - 1,
                        "\",\"value\":\"");
    }
    if (rc == AT_OK) {
        rc = put_base64(out, "", version, (size_t)len, "\"}}]");
    }
    return rc == AT_OK ? put_base64(out, ",\"failure\":[{\"request_range\":{\"key\":\"", key,
                                    sizeof key - 1, "\"}}]}")
                       : rc;
}

enum at_rc at_etcd_lease_text(uint64_t lease, uint32_t ttl_s, struct at_buf *out)
{
    unsigned long long id = lease;
    return ttl_s != 0 ? at_buf_printf(out, "{\"ID\":\"%llu\",\"TTL\":\"%u\"}", id, ttl_s)
                      : at_buf_printf(out, "{\"ID\":\"%llu\"}", id);
}

enum at_rc at_etcd_range_text(const char *from, size_t len, int64_t rev, size_t limit,
                              struct at_buf *out)
{
    if (limit == 0) {
        return at_buf_append_str(out, "{\"key\":\"" ALL_KEYS "\",\"count_only\":true}");
    }
    enum at_rc rc = put_base64(out, "{\"key\":\"", from, len, "\"");
    return rc == AT_OK ? at_buf_printf(out,
                                       ",\"range_end\":\"" ALL_KEYS "\",\"limit\":\"%zu\","
                                       "\"revision\":\"%lld\"}",
                                       limit, (long long)rev)
                       : rc;
}

enum at_rc at_etcd_watch_text(int64_t start_rev, struct at_buf *out)
{
    return at_buf_printf(out,
                         "{\"create_request\":{\"key\":\"" ALL_KEYS "\",\"range_end\":\"" ALL_KEYS
                         "\",\"start_revision\":\"%lld\",\"progress_notify\":true}}",
                         (long long)start_rev);
}

enum at_rc at_etcd_compact_text(int64_t rev, struct at_buf *out)
{
    return at_buf_printf(out, "{\"revision\":\"%lld\"}", (long long)rev);
}

enum at_rc at_etcd_error(int status, const char *text, size_t len, bool *ret_unsure,
                         struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    *ret_unsure = true;
    if (len == 0 || at_json_parse(text, len, &root, NULL) != AT_OK) {
        return at_err_set(err, AT_UNAVAILABLE, "etcd answers with status %d", status);
    }
    const json_t *inner = json_object_get(root, "error"); /* of streams: an object */
    const json_t *from = json_is_object(inner) ? inner : root;
    const char *message = at_json_str_at(from, "error", at_json_str_at(from, "message", ""));
    int64_t code = at_json_int_at(from, "code", at_json_int_at(from, "grpc_code", 0));
    enum at_rc rc = AT_UNAVAILABLE;
    if (strstr(message, "too large") != NULL || strstr(message, "larger than max") != NULL) {
        rc = AT_TOO_LARGE;
    } else if (code == GRPC_OUT_OF_RANGE) {
        rc = strstr(message, "compacted") != NULL ? AT_COMPACTED : AT_TIMEOUT;
    } else if (about_identity(message, code)) {
        rc = AT_UNAUTHENTICATED;
    } else if (code == GRPC_FORBIDDEN) {
        rc = AT_FORBIDDEN;
    } else if (code == GRPC_NOT_FOUND && strstr(message, "lease") != NULL) {
        rc = AT_NOT_FOUND;
    } else if (code == GRPC_INVALID || code == GRPC_PRECONDITION) {
        rc = AT_INTERNAL;
    } else if (code == GRPC_EXHAUSTED && strstr(message, "space") != NULL) {
        rc = AT_IO;
    }
    *ret_unsure = rc == AT_UNAVAILABLE;
    return at_err_set(err, rc, "etcd: %s", message);
}

static int64_t number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value)) {
        return json_integer_value(value);
    }
    return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : 0;
}

int64_t at_etcd_answer_rev(const json_t *answer)
{
    int64_t rev = number(json_object_get(answer, "header"), "revision");
    return rev > 0 && rev <= AT_ETCD_RAW_REV_MAX ? rev : 0;
}

static enum at_rc bytes(const json_t *object, const char *name, struct at_buf *out,
                        struct at_err *err)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL) {
        return AT_OK;
    }
    if (!json_is_string(value) ||
        at_base64_decode(json_string_value(value), json_string_length(value), out) != AT_OK) {
        return at_err_set(err, AT_CORRUPT, "etcd: %s is not base64", name);
    }
    return AT_OK;
}

enum at_rc at_etcd_kv(const json_t *kv, struct at_store_version **ret, uint64_t *ret_lease,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    enum at_rc rc = bytes(kv, "key", &key, err);
    if (rc == AT_OK) {
        rc = bytes(kv, "value", &value, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    int64_t mod_rev = number(kv, "mod_revision");
    int64_t create_rev = number(kv, "create_revision");
    if (mod_rev <= 0 || mod_rev > AT_ETCD_RAW_REV_MAX || key.len == 0) {
        return at_err_set(err, AT_CORRUPT, "etcd: a key or its revision is missing");
    }
    bool plain = memchr(key.data, '\0', key.len) == NULL;
    struct at_store_version *v = at_store_version_new(
        plain ? key.data : "", value.data != NULL ? value.data : "", value.len);
    v->create_rev = create_rev > 0 && create_rev <= mod_rev ? create_rev : 0;
    v->mod_rev = mod_rev;
    uint64_t lease = (uint64_t)number(kv, "lease");
    v->ttl_s = at_etcd_lease_ttl(lease);
    if (ret_lease != NULL) {
        *ret_lease = lease;
    }
    *ret = v;
    return AT_OK;
}

int64_t at_etcd_scheme(const json_t *kv)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    static const char want[] = AT_ETCD_SCHEME_KEY;
    if (bytes(kv, "key", &key, NULL) != AT_OK || key.len != sizeof want - 1 ||
        memcmp(key.data, want, key.len) != 0 || bytes(kv, "value", &value, NULL) != AT_OK) {
        return 0;
    }
    int64_t scheme = value.data != NULL ? strtoll(value.data, NULL, 10) : 0;
    return scheme > 0 ? scheme : INT64_MAX;
}

/* FNV-1a (Fowler, Noll, Vo), its 32 bits folded into 12. Stored revisions depend on it. */
unsigned at_etcd_place(const char *key)
{
    uint32_t hash = 2166136261u;
    for (const char *c = key; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    }
    return (hash ^ hash >> 12 ^ hash >> 24) % AT_ETCD_PLACES;
}

/* The one key that the i-th of a transaction's ranges found; NULL: none. */
static const json_t *shown(const json_t *txn, size_t i)
{
    const json_t *one = json_array_get(json_object_get(txn, "responses"), i);
    return json_array_get(json_object_get(json_object_get(one, "response_range"), "kvs"), 0);
}

enum at_rc at_etcd_txn_answer(const json_t *answer, enum at_etcd_form form, size_t i,
                              struct at_etcd_txn_answer *ret, struct at_err *err)
{
    const json_t *txn = answer;
    if (form == AT_ETCD_APART) {
        txn = json_object_get(json_array_get(json_object_get(answer, "responses"), i),
                              "response_txn");
    }
    struct at_etcd_txn_answer got = {.succeeded = json_is_true(json_object_get(txn, "succeeded")),
                                     .rev = at_etcd_answer_rev(answer)};
    if (got.rev <= 0 || !json_is_object(txn)) {
        return at_err_set(err, AT_CORRUPT, "etcd: a transaction's answer has no revision");
    }
    if (!got.succeeded && form != AT_ETCD_TOGETHER) {
        const json_t *kv = shown(txn, 0);
        got.guard_rev = number(shown(txn, 1), "mod_revision");
        enum at_rc rc = kv != NULL ? at_etcd_kv(kv, &got.current, NULL, err) : AT_OK;
        if (rc != AT_OK) {
            return rc;
        }
    }
    *ret = got;
    return AT_OK;
}

enum at_rc at_etcd_watch_line(const char *text, size_t len, struct at_etcd_watch_line *ret,
                              struct at_err *err)
{
    json_error_t problem;
    json_t *root = json_loadb(text, len, 0, &problem); /* may be larger than at_json_parse takes */
    const json_t *result = json_object_get(root, "result");
    if (!json_is_object(result)) {
        const char *why = at_json_str_at(json_object_get(root, "error"), "message", "not a result");
        enum at_rc rc = at_err_set(err, AT_CORRUPT, "etcd: a watch says: %s", why);
        json_decref(root);
        return rc;
    }
    const json_t *events = json_object_get(result, "events");
    *ret = (struct at_etcd_watch_line){
        .root = root,
        .created = json_is_true(json_object_get(result, "created")),
        .canceled = json_is_true(json_object_get(result, "canceled")),
        .rev = at_etcd_answer_rev(result),
        .compact_rev = number(result, "compact_revision"),
        .events = json_is_array(events) ? events : NULL,
    };
    return AT_OK;
}

void at_etcd_watch_line_done(struct at_etcd_watch_line *line)
{
    json_decref(line->root);
    *line = (struct at_etcd_watch_line){0};
}

enum at_rc at_etcd_event(const json_t *event, bool *ret_deleted,
                         struct at_store_version **ret_version, uint64_t *ret_lease,
                         struct at_err *err)
{
    const json_t *type = json_object_get(event, "type");
    bool deleted = json_is_string(type) && strcmp(json_string_value(type), "DELETE") == 0;
    enum at_rc rc = at_etcd_kv(json_object_get(event, "kv"), ret_version, ret_lease, err);
    if (rc == AT_OK) {
        *ret_deleted = deleted;
    }
    return rc;
}

const char *at_etcd_token(const json_t *answer)
{
    const char *token = at_json_str_at(answer, "token", "");
    size_t len = strlen(token);
    for (size_t i = 0; i < len; i++) {
        if (token[i] <= ' ' || token[i] > '~') {
            return NULL;
        }
    }
    return len != 0 && len <= AT_STORE_ETCD_TOKEN_BYTES_MAX ? token : NULL;
}
