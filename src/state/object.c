#include "state/object.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 253
#define SUFFIX_LETTERS 5

static const char *const SERVER_OWNED[] = {"uid",
                                           "name",
                                           "namespace",
                                           "creationTimestamp",
                                           "deletionTimestamp",
                                           "deletionGracePeriodSeconds",
                                           "generation",
                                           "managedFields"};
static const char *const NEVER_STORED[] = {"resourceVersion", "selfLink"};

void at_object_uid(const struct at_sys *sys, char out[AT_OBJECT_UID_BYTES])
{
    unsigned char r[16];
    at_sys_random(sys, r, sizeof r);
    r[6] = (unsigned char)((r[6] & 0x0f) | 0x40);
    r[8] = (unsigned char)((r[8] & 0x3f) | 0x80);
    int n = snprintf(out, AT_OBJECT_UID_BYTES,
                     "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0],
                     r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12],
                     r[13], r[14], r[15]);
    assert(n == AT_OBJECT_UID_BYTES - 1);
}

void at_object_suffix(const struct at_sys *sys, char *out, size_t n)
{
    static const char LETTERS[] = "bcdfghjklmnpqrstvwxz2456789";
    for (size_t i = 0; i < n; i++) {
        unsigned char r;
        do { /* even over the letters: refuse the rest of the byte's range */
            at_sys_random(sys, &r, 1);
        } while (r >= 256 - 256 % (sizeof LETTERS - 1));
        out[i] = LETTERS[r % (sizeof LETTERS - 1)];
    }
    out[n] = '\0';
}

static json_t *meta_of(const json_t *object)
{
    json_t *meta = json_object_get(object, "metadata");
    return json_is_object(meta) ? meta : NULL;
}

static const char *meta_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(meta_of(object), key));
}

void at_object_generate_name(const struct at_sys *sys, json_t *object)
{
    const char *prefix = meta_str(object, "generateName");
    const char *name = at_object_name(object);
    if (prefix == NULL || prefix[0] == '\0' || (name != NULL && name[0] != '\0')) {
        return;
    }
    char suffix[SUFFIX_LETTERS + 1];
    at_object_suffix(sys, suffix, SUFFIX_LETTERS);
    char full[NAME_BYTES_MAX + 1];
    snprintf(full, sizeof full, "%.*s%s", NAME_BYTES_MAX - SUFFIX_LETTERS, prefix, suffix);
    json_object_set_new(meta_of(object), "name", json_string(full));
}

static void set_time(json_t *meta, const char *key, int64_t wall_ns)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format(wall_ns - wall_ns % AT_NS_PER_S, text);
    json_object_set_new(meta, key, json_string(text));
}

static void set_type(const struct at_model_kind *kind, json_t *object)
{
    json_object_set_new(object, "apiVersion", json_string(at_model_api_version(kind)));
    json_object_set_new(object, "kind", json_string(kind->kind));
}

static void drop_never_stored(json_t *meta)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(NEVER_STORED); i++) {
        json_object_del(meta, NEVER_STORED[i]);
    }
}

void at_object_stamp_create(const struct at_model_kind *kind, json_t *object, const char *ns,
                            const char uid[AT_OBJECT_UID_BYTES], int64_t now_wall_ns,
                            enum at_object_part part)
{
    json_t *meta = meta_of(object);
    assert(meta != NULL);
    set_type(kind, object);
    drop_never_stored(meta);
    json_object_del(meta, "managedFields");
    json_object_del(meta, "deletionTimestamp");
    json_object_del(meta, "deletionGracePeriodSeconds");
    if (kind->namespaced && ns != NULL) {
        json_object_set_new(meta, "namespace", json_string(ns));
    } else {
        json_object_del(meta, "namespace");
    }
    json_object_set_new(meta, "uid", json_string(uid));
    set_time(meta, "creationTimestamp", now_wall_ns);
    json_object_del(meta, "generation");
    if (at_streq(kind->group, "atoll.dev")) {
        json_object_set_new(meta, "generation", json_integer(1));
    }
    if (part == AT_OBJECT_MAIN && kind->has_status) {
        json_object_del(object, "status");
    }
}

/* As in Kubernetes, kinds without a spec that is worked on (ConfigMap, Role) have none. */
static void generation_raise(json_t *meta)
{
    const json_t *generation = json_object_get(meta, "generation");
    if (json_is_integer(generation)) {
        json_int_t next = json_integer_value(generation) + 1;
        json_object_set_new(meta, "generation", json_integer(next));
    }
}

static void take_from(json_t *to, const json_t *from, const char *key)
{
    json_t *value = json_object_get(from, key);
    if (value != NULL) {
        json_object_set(to, key, value);
    } else {
        json_object_del(to, key);
    }
}

/* object := old with object's status. */
static void keep_all_but_status(const json_t *old, json_t *object)
{
    json_t *status = json_incref(json_object_get(object, "status"));
    json_object_clear(object);
    json_object_update(object, (json_t *)old);
    if (status != NULL) {
        json_object_set_new(object, "status", status);
    } else {
        json_object_del(object, "status");
    }
}

static bool differs_outside_meta_and_status(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value)
    {
        if (strcmp(key, "metadata") != 0 && strcmp(key, "status") != 0 &&
            !json_equal(value, json_object_get(b, key))) {
            return true;
        }
    }
    return false;
}

static size_t finalizer_count(const json_t *object)
{
    return json_array_size(json_object_get(meta_of(object), "finalizers"));
}

static enum at_rc check_finalizers_only_go(const json_t *old, const json_t *object,
                                           struct at_err *err)
{
    json_t *list = json_object_get(meta_of(object), "finalizers");
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (text != NULL && !at_object_has_finalizer(old, text)) {
            return at_err_set_field(err, AT_INVALID, "metadata.finalizers",
                                    "no new finalizer (%s) can be added to an object that is being "
                                    "deleted",
                                    text);
        }
    }
    return AT_OK;
}

/* old may carry its resourceVersion; object does not. */
static bool same_when_stored(const json_t *old, const json_t *object)
{
    json_t *plain = json_copy((json_t *)old);
    json_t *meta = json_copy(meta_of(old));
    drop_never_stored(meta);
    json_object_set_new(plain, "metadata", meta);
    bool same = json_equal(plain, object);
    json_decref(plain);
    return same;
}

enum at_rc at_object_prepare_update(const struct at_model_kind *kind, const json_t *old,
                                    json_t *object, enum at_object_part part,
                                    enum at_object_outcome *ret, struct at_err *err)
{
    assert(old != object);
    assert(meta_of(old) != NULL);
    const char *uid = at_object_uid_of(object);
    const char *old_uid = at_object_uid_of(old);
    if (uid != NULL && uid[0] != '\0' && !at_streq(uid, old_uid)) {
        return at_err_set(err, AT_CONFLICT,
                          "metadata.uid is %s, but the stored object's is %s: it was made anew",
                          uid, old_uid != NULL ? old_uid : "absent");
    }
    if (part == AT_OBJECT_STATUS) {
        keep_all_but_status(old, object);
    } else if (part == AT_OBJECT_MAIN && kind->has_status) {
        take_from(object, old, "status");
    }
    if (meta_of(object) == NULL) {
        json_object_set_new(object, "metadata", json_object());
    } else { /* old and object may share it after keep_all_but_status */
        json_object_set_new(object, "metadata", json_copy(meta_of(object)));
    }
    json_t *meta = meta_of(object);
    for (size_t i = 0; i < AT_ARRAY_LEN(SERVER_OWNED); i++) {
        take_from(meta, meta_of(old), SERVER_OWNED[i]);
    }
    drop_never_stored(meta);
    set_type(kind, object);
    if (finalizer_count(object) == 0) {
        json_object_del(meta, "finalizers");
    }
    if (at_object_deleting(old)) {
        enum at_rc rc = check_finalizers_only_go(old, object, err);
        if (rc != AT_OK) {
            return rc;
        }
        if (finalizer_count(object) == 0) {
            *ret = AT_OBJECT_REMOVE;
            return AT_OK;
        }
    }
    if (differs_outside_meta_and_status(object, old) ||
        differs_outside_meta_and_status(old, object)) {
        generation_raise(meta);
    }
    *ret = same_when_stored(old, object) ? AT_OBJECT_UNCHANGED : AT_OBJECT_WRITE;
    return AT_OK;
}

enum at_object_outcome at_object_begin_delete(json_t *object, int64_t now_wall_ns)
{
    if (finalizer_count(object) == 0) {
        return AT_OBJECT_REMOVE;
    }
    if (at_object_deleting(object)) {
        return AT_OBJECT_UNCHANGED;
    }
    json_t *meta = meta_of(object);
    set_time(meta, "deletionTimestamp", now_wall_ns);
    json_object_set_new(meta, "deletionGracePeriodSeconds", json_integer(0));
    generation_raise(meta);
    return AT_OBJECT_WRITE;
}

bool at_object_deleting(const json_t *object)
{
    const char *time = meta_str(object, "deletionTimestamp");
    return time != NULL && time[0] != '\0';
}

const char *at_object_name(const json_t *object)
{
    return meta_str(object, "name");
}

const char *at_object_ns(const json_t *object)
{
    return meta_str(object, "namespace");
}

const char *at_object_uid_of(const json_t *object)
{
    return meta_str(object, "uid");
}

/* Index in metadata.finalizers, or the list's length. */
static size_t finalizer_index(const json_t *object, const char *finalizer)
{
    json_t *list = json_object_get(meta_of(object), "finalizers");
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        if (at_streq(json_string_value(json_array_get(list, i)), finalizer)) {
            return i;
        }
    }
    return n;
}

bool at_object_has_finalizer(const json_t *object, const char *finalizer)
{
    return finalizer_index(object, finalizer) < finalizer_count(object);
}

void at_object_add_finalizer(json_t *object, const char *finalizer)
{
    if (at_object_has_finalizer(object, finalizer)) {
        return;
    }
    json_t *meta = meta_of(object);
    assert(meta != NULL);
    json_t *list = json_object_get(meta, "finalizers");
    if (!json_is_array(list)) {
        list = json_array();
        json_object_set_new(meta, "finalizers", list);
    }
    json_array_append_new(list, json_string(finalizer));
}

void at_object_drop_finalizer(json_t *object, const char *finalizer)
{
    json_t *list = json_object_get(meta_of(object), "finalizers");
    size_t i = finalizer_index(object, finalizer);
    if (i < json_array_size(list)) {
        json_array_remove(list, i);
    }
    if (list != NULL && json_array_size(list) == 0) {
        json_object_del(meta_of(object), "finalizers");
    }
}

int64_t at_object_rv(const json_t *object)
{
    json_t *value = json_object_get(meta_of(object), "resourceVersion");
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    const char *text = json_string_value(value);
    if (text == NULL) {
        return -1;
    }
    if (text[0] == '\0') {
        return 0;
    }
    uint64_t rev;
    if (at_str_to_u64(at_str_of(text), &rev) != AT_OK || rev > INT64_MAX) {
        return -1;
    }
    return (int64_t)rev;
}

void at_object_set_rv(json_t *object, int64_t rev)
{
    assert(rev > 0);
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)rev);
    json_object_set_new(meta_of(object), "resourceVersion", json_string(text));
}

void at_object_strip_rv(json_t *object)
{
    json_t *meta = meta_of(object);
    if (meta != NULL) {
        json_object_del(meta, "resourceVersion");
    }
}

enum at_rc at_object_encode(const json_t *object, struct at_buf *out, struct at_err *err)
{
    json_t *meta = json_copy(meta_of(object));
    assert(meta != NULL);
    drop_never_stored(meta);
    json_t *first = json_object();
    take_from(first, object, "apiVersion");
    take_from(first, object, "kind");
    assert(json_object_size(first) == 2);
    json_object_set_new(first, "metadata", meta);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (json_object_get(first, key) == NULL) {
            json_object_set(first, key, value);
        }
    }
    size_t before = out->len;
    enum at_rc rc = at_json_dump(first, out);
    json_decref(first);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "the object is too large to be stored");
    }
    if (out->len - before > AT_OBJECT_BYTES_MAX) {
        size_t got = out->len - before;
        out->len = before;
        out->data[before] = '\0';
        return at_err_set(err, AT_TOO_LARGE, "the object has %zu bytes, the limit is %zu", got,
                          AT_OBJECT_BYTES_MAX);
    }
    return AT_OK;
}

/* apiVersion and kind come before it and are plain words, so the first occurrence is the right one.
 */
size_t at_object_metadata_start(const char *value, size_t len)
{
    static const char MARK[] = "\"metadata\":{";
    static const char START[] = "{\"apiVersion\":";
    if (len < sizeof START || memcmp(value, START, sizeof START - 1) != 0) {
        return 0;
    }
    const char *at = memmem(value, len < 512 ? len : 512, MARK, sizeof MARK - 1);
    return at != NULL ? (size_t)(at - value) + sizeof MARK - 1 : 0;
}

enum at_rc at_object_splice(const char *value, size_t len, int64_t rev, struct at_buf *out)
{
    size_t cut = at_object_metadata_start(value, len);
    if (cut == 0 || cut >= len) {
        return AT_CORRUPT;
    }
    char text[56];
    int n = snprintf(text, sizeof text, "\"resourceVersion\":\"%lld\"%s", (long long)rev,
                     value[cut] == '}' ? "" : ",");
    char *place;
    enum at_rc rc = at_buf_reserve(out, len + (size_t)n, &place);
    if (rc != AT_OK) {
        return rc;
    }
    memcpy(place, value, cut);
    memcpy(place + cut, text, (size_t)n);
    memcpy(place + cut + (size_t)n, value + cut, len - cut);
    at_buf_commit(out, len + (size_t)n);
    return AT_OK;
}

enum at_rc at_object_decode(const char *value, size_t len, int64_t rev, json_t **ret,
                            struct at_err *err)
{
    json_t *object = NULL;
    enum at_rc rc = at_json_parse(value, len, &object, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "stored object");
    }
    if (meta_of(object) == NULL) {
        json_decref(object);
        return at_err_set(err, AT_CORRUPT, "stored object has no metadata");
    }
    at_object_set_rv(object, rev);
    *ret = object;
    return AT_OK;
}
