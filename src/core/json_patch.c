/* RFC 6902 (JSON Patch) with pointers by RFC 6901. */
#include "core/json.h"

#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define OPS_MAX 10000
#define COPIED_NODES_MAX 1000000 /* "copy" can double a document each time */
#define COPIED_BYTES_MAX ((size_t)16 << 20)

struct patch {
    json_t *root;
    size_t copied, copied_bytes;
    size_t number; /* of the operation, for messages */
    struct at_err *err;
};

/* The place that a pointer names: the container and the last token. container NULL: the whole
 * document. */
struct place {
    json_t *container;
    char *token;
    json_t *value; /* NULL when nothing is there */
    size_t depth;
};

static void place_done(struct place *place)
{
    at_free(place->token);
}

static enum at_rc fail(const struct patch *p, enum at_rc rc, const char *what, const char *path)
{
    return at_err_set(p->err, rc, "JSON patch operation %zu: %s \"%.200s\"", p->number, what, path);
}

static bool token_unescape(char *token)
{
    char *out = token;
    for (const char *in = token; *in != '\0'; in++) {
        if (*in != '~') {
            *out++ = *in;
            continue;
        }
        in++;
        if (*in != '0' && *in != '1') {
            return false;
        }
        *out++ = *in == '0' ? '~' : '/';
    }
    *out = '\0';
    return true;
}

static bool index_of(const char *token, size_t *ret)
{
    uint64_t value = 0;
    if ((token[0] == '0' && token[1] != '\0') || at_str_to_u64(at_str_of(token), &value) != AT_OK) {
        return false;
    }
    *ret = (size_t)value;
    return true;
}

static json_t *child_of(const json_t *container, const char *token)
{
    size_t at;
    if (json_is_object(container)) {
        return json_object_get(container, token);
    }
    return json_is_array(container) && index_of(token, &at) ? json_array_get(container, at) : NULL;
}

static enum at_rc locate(const struct patch *p, const char *path, struct place *ret)
{
    struct place place = {.value = p->root};
    if (path[0] != '\0' && path[0] != '/') {
        return fail(p, AT_BAD_REQUEST, "a path begins with \"/\", not", path);
    }
    for (const char *at = path; *at != '\0';) {
        size_t len = strcspn(at + 1, "/");
        place_done(&place);
        place.token = at_strndup(at + 1, len);
        place.container = place.value;
        place.depth++;
        if (!token_unescape(place.token)) {
            place_done(&place);
            return fail(p, AT_BAD_REQUEST, "bad ~ escape in path", path);
        }
        if (!json_is_object(place.container) && !json_is_array(place.container)) {
            place_done(&place);
            return fail(p, AT_INVALID, "nothing at path", path);
        }
        place.value = child_of(place.container, place.token);
        at += 1 + len;
    }
    *ret = place;
    return AT_OK;
}

/* Takes value also when it fails. */
static enum at_rc put(struct patch *p, const char *path, json_t *value_take, bool replace)
{
    struct place place;
    enum at_rc rc = locate(p, path, &place);
    size_t nodes = 0;
    if (rc != AT_OK) {
        json_decref(value_take);
        return rc;
    }
    if (place.depth + at_json_measure(value_take, &nodes) > AT_JSON_DEPTH_MAX) {
        rc = fail(p, AT_INVALID, "nested too deep at", path);
    } else if (replace && place.value == NULL) {
        rc = fail(p, AT_INVALID, "nothing to replace at", path);
    } else if (place.container == NULL) {
        json_decref(p->root);
        p->root = json_incref(value_take);
    } else if (json_is_object(place.container)) {
        json_object_set(place.container, place.token, value_take);
    } else {
        size_t at = json_array_size(place.container);
        if ((strcmp(place.token, "-") != 0 && !index_of(place.token, &at)) ||
            at > json_array_size(place.container)) {
            rc = fail(p, AT_INVALID, "no such array index in path", path);
        } else if (replace) {
            json_array_set(place.container, at, value_take);
        } else {
            json_array_insert(place.container, at, value_take);
        }
    }
    json_decref(value_take);
    place_done(&place);
    return rc;
}

/* ret_value may be NULL; else it gets a reference. */
static enum at_rc take_out(struct patch *p, const char *path, json_t **ret_value)
{
    struct place place;
    enum at_rc rc = locate(p, path, &place);
    if (rc != AT_OK) {
        return rc;
    }
    size_t at;
    if (place.value == NULL || place.container == NULL) {
        rc = fail(p, AT_INVALID, "nothing to remove at", path);
    } else {
        if (ret_value != NULL) {
            *ret_value = json_incref(place.value);
        }
        if (json_is_object(place.container)) {
            json_object_del(place.container, place.token);
        } else if (index_of(place.token, &at)) {
            json_array_remove(place.container, at);
        }
    }
    place_done(&place);
    return rc;
}

/* Of all strings and keys; its depth is bounded as that of everything that was parsed. */
static size_t text_bytes(const json_t *value)
{
    size_t sum = json_is_string(value) ? json_string_length(value) : 0;
    const char *key;
    json_t *item;
    size_t i;
    json_object_foreach((json_t *)value, key, item)
    {
        sum += strlen(key) + text_bytes(item);
    }
    json_array_foreach(value, i, item)
    {
        sum += text_bytes(item);
    }
    return sum;
}

static enum at_rc op_move_or_copy(struct patch *p, const char *from, const char *path, bool move)
{
    size_t from_len = strlen(from);
    if (move && strncmp(path, from, from_len) == 0) {
        /* Onto itself changes nothing; into its own inside is impossible. */
        struct place place;
        enum at_rc rc = locate(p, from, &place);
        if (rc != AT_OK) {
            return rc;
        }
        place_done(&place);
        if (path[from_len] == '\0' && place.value != NULL) {
            return AT_OK;
        }
        if (path[from_len] == '/' || path[from_len] == '\0') {
            return fail(p, AT_INVALID, "cannot move into itself", from);
        }
    }
    json_t *value = NULL;
    if (move) {
        enum at_rc rc = take_out(p, from, &value);
        return rc == AT_OK ? put(p, path, value, false) : rc;
    }
    struct place place;
    enum at_rc rc = locate(p, from, &place);
    if (rc != AT_OK) {
        return rc;
    }
    place_done(&place);
    if (place.value == NULL) {
        return fail(p, AT_INVALID, "nothing to copy at", from);
    }
    at_json_measure(place.value, &p->copied);
    p->copied_bytes += text_bytes(place.value);
    if (p->copied > COPIED_NODES_MAX || p->copied_bytes > COPIED_BYTES_MAX) {
        return fail(p, AT_INVALID, "too much copied at", from);
    }
    return put(p, path, json_deep_copy(place.value), false);
}

static enum at_rc op_test(const struct patch *p, const char *path, const json_t *value)
{
    struct place place;
    enum at_rc rc = locate(p, path, &place);
    if (rc != AT_OK) {
        return rc;
    }
    place_done(&place);
    return place.value != NULL && json_equal(place.value, value)
               ? AT_OK
               : fail(p, AT_INVALID, "test failed at", path);
}

static enum at_rc apply_one(struct patch *p, const json_t *op)
{
    const char *name = json_string_value(json_object_get(op, "op"));
    const char *path = json_string_value(json_object_get(op, "path"));
    const char *from = json_string_value(json_object_get(op, "from"));
    json_t *value = json_object_get(op, "value");
    if (name == NULL || path == NULL) {
        return fail(p, AT_BAD_REQUEST, "needs \"op\" and", "path");
    }
    bool move = strcmp(name, "move") == 0;
    if (move || strcmp(name, "copy") == 0) {
        return from != NULL ? op_move_or_copy(p, from, path, move)
                            : fail(p, AT_BAD_REQUEST, "needs", "from");
    }
    if (strcmp(name, "remove") == 0) {
        return take_out(p, path, NULL);
    }
    bool replace = strcmp(name, "replace") == 0;
    bool test = strcmp(name, "test") == 0;
    if (!replace && !test && strcmp(name, "add") != 0) {
        return fail(p, AT_BAD_REQUEST, "unknown op", name);
    }
    if (value == NULL) {
        return fail(p, AT_BAD_REQUEST, "needs", "value");
    }
    return test ? op_test(p, path, value) : put(p, path, json_deep_copy(value), replace);
}

enum at_rc at_json_patch(const json_t *target, const json_t *ops, json_t **ret, struct at_err *err)
{
    if (!json_is_array(ops)) {
        return at_err_set(err, AT_BAD_REQUEST, "a JSON patch is an array of operations");
    }
    if (json_array_size(ops) > OPS_MAX) {
        return at_err_set(err, AT_BAD_REQUEST, "a JSON patch has at most %d operations", OPS_MAX);
    }
    struct patch p = {.root = json_deep_copy(target), .err = err};
    for (size_t i = 0; i < json_array_size(ops); i++) {
        p.number = i + 1;
        enum at_rc rc = apply_one(&p, json_array_get(ops, i));
        if (rc != AT_OK) {
            json_decref(p.root);
            return rc;
        }
    }
    *ret = p.root;
    return AT_OK;
}
