/* The rules of writes that the API and the controllers share. */
#include "core/mem.h"
#include "state/object.h"
#include "state/state.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <string.h>

#define UID "00000000-0000-4000-8000-000000000001"
#define NOW (INT64_C(1767323045) * AT_NS_PER_S + 999)

static json_t *parse(const char *text)
{
    struct at_err err = {0};
    json_t *value = NULL;
    if (at_json_parse(text, strlen(text), &value, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return value;
}

static json_t *stored(const char *meta_more, const char *rest)
{
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\","
        "\"namespace\":\"default\",\"uid\":\"" UID
        "\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\",\"generation\":1%s}%s}",
        meta_more, rest);
    return parse(text);
}

static void creation_stamps_what_the_server_owns(void **state)
{
    (void)state;
    json_t *object =
        parse("{\"metadata\":{\"name\":\"d\",\"namespace\":\"wrong\",\"uid\":\"mine\","
              "\"resourceVersion\":\"7\",\"generation\":9,\"deletionTimestamp\":\"x\","
              "\"managedFields\":[],\"selfLink\":\"/\"},\"spec\":{},\"status\":{\"replicas\":3}}");
    at_object_stamp_create(&AT_KIND_DEPLOYMENT, object, "default", UID, NOW, AT_OBJECT_MAIN);
    json_t *want = stored("", ",\"spec\":{}");
    assert_true(json_equal(object, want));
    json_decref(want);
    json_object_set_new(object, "status", parse("{\"replicas\":1}"));
    at_object_stamp_create(&AT_KIND_NODE, object, "default", UID, NOW, AT_OBJECT_ALL);
    assert_null(at_object_ns(object)); /* cluster-scoped */
    assert_non_null(json_object_get(object, "status"));
    json_decref(object);
}

struct outcome {
    enum at_rc rc;
    enum at_object_outcome outcome;
    int64_t generation;
    char *text; /* sorted */
};

static struct outcome prepare(json_t *old, json_t *object, enum at_object_part part)
{
    struct outcome o = {.outcome = (enum at_object_outcome)99};
    json_t *before = json_deep_copy(old);
    struct at_err err = {0};
    o.rc = at_object_prepare_update(&AT_KIND_DEPLOYMENT, old, object, part, &o.outcome, &err);
    assert_true(json_equal(before, old)); /* borrowed, not changed */
    o.generation = at_json_int_at(object, "metadata.generation", 0);
    o.text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(before);
    return o;
}

static void an_equal_update_is_no_write(void **state)
{
    (void)state;
    json_t *old = stored("", ",\"spec\":{\"a\":1,\"b\":2},\"status\":{\"x\":1}");
    json_t *object = parse("{\"status\":{\"x\":1},\"spec\":{\"b\":2,\"a\":1},\"metadata\":{"
                           "\"resourceVersion\":\"5\",\"name\":\"d\",\"finalizers\":[]}}");
    struct outcome o = prepare(old, object, AT_OBJECT_ALL);
    assert_int_equal(o.rc, AT_OK);
    assert_int_equal(o.outcome, AT_OBJECT_UNCHANGED);
    free(o.text);
    at_object_set_rv(old, 5); /* as it is read */
    o = prepare(old, object, AT_OBJECT_ALL);
    assert_int_equal(o.outcome, AT_OBJECT_UNCHANGED);
    free(o.text);
    json_decref(object);
    json_decref(old);
}

static void generation_counts_changes_of_spec_only(void **state)
{
    (void)state;
    json_t *old = stored("", ",\"spec\":{\"a\":1},\"status\":{\"x\":1}");
    static const struct {
        const char *object;
        int64_t generation;
    } rows[] = {
        {"{\"metadata\":{\"labels\":{\"l\":\"1\"}},\"spec\":{\"a\":1},\"status\":{\"x\":1}}", 1},
        {"{\"metadata\":{},\"spec\":{\"a\":1},\"status\":{\"x\":2}}", 1},
        {"{\"metadata\":{},\"spec\":{\"a\":2},\"status\":{\"x\":1}}", 2},
        {"{\"metadata\":{},\"status\":{\"x\":1}}", 2},
        {"{\"metadata\":{\"generation\":77},\"spec\":{\"a\":1},\"more\":1}", 2},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        json_t *object = parse(rows[i].object);
        struct outcome o = prepare(old, object, AT_OBJECT_ALL);
        assert_int_equal(o.outcome, AT_OBJECT_WRITE);
        assert_int_equal(o.generation, rows[i].generation);
        free(o.text);
        json_decref(object);
    }
    json_decref(old);
}

static void the_main_part_keeps_status_and_the_status_part_keeps_the_rest(void **state)
{
    (void)state;
    json_t *old = stored("", ",\"spec\":{\"a\":1},\"status\":{\"x\":1}");
    json_t *object = parse("{\"metadata\":{\"labels\":{\"l\":\"1\"}},\"spec\":{\"a\":2},"
                           "\"status\":{\"x\":2}}");
    json_t *same = json_deep_copy(object);
    struct outcome main_part = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(at_json_int_at(object, "status.x", 0), 1);
    assert_int_equal(at_json_int_at(object, "spec.a", 0), 2);
    assert_int_equal(main_part.generation, 2);
    struct outcome status_part = prepare(old, same, AT_OBJECT_STATUS);
    assert_int_equal(at_json_int_at(same, "status.x", 0), 2);
    assert_int_equal(at_json_int_at(same, "spec.a", 0), 1);
    assert_null(at_json_at(same, "metadata.labels"));
    assert_int_equal(status_part.generation, 1);
    free(main_part.text);
    free(status_part.text);
    json_decref(same);
    json_decref(object);
    json_decref(old);
}

static void server_owned_fields_cannot_be_changed(void **state)
{
    (void)state;
    json_t *old = stored(",\"finalizers\":[\"f\"]", ",\"spec\":{}");
    json_t *object = parse("{\"apiVersion\":\"x\",\"kind\":\"Y\",\"metadata\":{\"name\":\"other\","
                           "\"namespace\":\"other\",\"creationTimestamp\":null,"
                           "\"deletionTimestamp\":\"2026-01-02T03:04:05Z\","
                           "\"finalizers\":[\"f\"]},\"spec\":{}}");
    struct outcome o = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(o.outcome, AT_OBJECT_UNCHANGED);
    free(o.text);
    json_decref(object);
    object = parse("{\"metadata\":{\"uid\":\"00000000-0000-4000-8000-000000000002\"},\"spec\":{}}");
    o = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(o.rc, AT_CONFLICT);
    free(o.text);
    json_decref(object);
    json_decref(old);
}

static void deletion_waits_for_the_last_finalizer(void **state)
{
    (void)state;
    json_t *object = stored(",\"finalizers\":[\"f\",\"g\"]", ",\"spec\":{}");
    assert_int_equal(at_object_begin_delete(object, NOW), AT_OBJECT_WRITE);
    assert_true(at_object_deleting(object));
    assert_int_equal(at_json_int_at(object, "metadata.generation", 0), 2);
    assert_int_equal(at_object_begin_delete(object, NOW + 5 * AT_NS_PER_S), AT_OBJECT_UNCHANGED);
    assert_string_equal(at_json_str_at(object, "metadata.deletionTimestamp", ""),
                        "2026-01-02T03:04:05Z");
    json_t *old = json_deep_copy(object);
    at_object_drop_finalizer(object, "f");
    struct outcome o = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(o.outcome, AT_OBJECT_WRITE);
    free(o.text);
    at_object_add_finalizer(object, "new");
    o = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(o.rc, AT_INVALID);
    free(o.text);
    at_object_drop_finalizer(object, "new");
    at_object_drop_finalizer(object, "g");
    o = prepare(old, object, AT_OBJECT_MAIN);
    assert_int_equal(o.outcome, AT_OBJECT_REMOVE);
    free(o.text);
    json_decref(object);
    json_decref(old);
    object = stored("", "");
    assert_int_equal(at_object_begin_delete(object, NOW), AT_OBJECT_REMOVE);
    json_decref(object);
}

static void the_stored_form_takes_a_version_without_parsing(void **state)
{
    (void)state;
    json_t *object =
        parse("{\"spec\":{\"metadata\":{\"x\":1}},\"kind\":\"Deployment\",\"metadata\":"
              "{\"resourceVersion\":\"3\",\"name\":\"d\"},"
              "\"apiVersion\":\"atoll.dev/v1\"}");
    struct at_buf text = {0};
    struct at_buf out = {0};
    struct at_err err = {0};
    assert_int_equal(at_object_encode(object, &text, &err), AT_OK);
    assert_string_equal(text.data, "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\","
                                   "\"metadata\":{\"name\":\"d\"},"
                                   "\"spec\":{\"metadata\":{\"x\":1}}}");
    assert_int_equal(at_object_splice(text.data, text.len, 41, &out), AT_OK);
    assert_string_equal(out.data, "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\","
                                  "\"metadata\":{\"resourceVersion\":\"41\",\"name\":\"d\"},"
                                  "\"spec\":{\"metadata\":{\"x\":1}}}");
    json_t *back = NULL;
    assert_int_equal(at_object_decode(text.data, text.len, 3, &back, &err), AT_OK);
    assert_true(json_equal(back, object));
    assert_int_equal(at_object_splice("{\"kind\":1}", 10, 41, &out), AT_CORRUPT);
    assert_int_equal(at_object_splice("", 0, 41, &out), AT_CORRUPT);
    json_decref(back);
    json_decref(object);
    at_buf_done(&text);
    at_buf_done(&out);
}

static void an_object_over_the_limit_is_refused_with_its_size(void **state)
{
    (void)state;
    char *big = at_alloc(AT_OBJECT_BYTES_MAX + 1);
    memset(big, 'x', AT_OBJECT_BYTES_MAX);
    json_t *object = stored("", "");
    json_object_set_new(object, "data", json_string(big));
    struct at_buf text = {0};
    struct at_err err = {0};
    assert_int_equal(at_object_encode(object, &text, &err), AT_TOO_LARGE);
    assert_non_null(strstr(err.msg, "1048576"));
    assert_int_equal(text.len, 0);
    at_buf_done(&text);
    json_decref(object);
    at_free(big);
}

static void versions_are_read_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int64_t rv;
    } rows[] = {{"{\"metadata\":{}}", 0},
                {"{\"metadata\":{\"resourceVersion\":\"\"}}", 0},
                {"{\"metadata\":{\"resourceVersion\":\"12\"}}", 12},
                {"{\"metadata\":{\"resourceVersion\":\"1x\"}}", -1},
                {"{\"metadata\":{\"resourceVersion\":\"-1\"}}", -1},
                {"{\"metadata\":{\"resourceVersion\":12}}", -1},
                {"{\"metadata\":{\"resourceVersion\":\"99999999999999999999\"}}", -1}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        json_t *object = parse(rows[i].json);
        assert_int_equal(at_object_rv(object), rows[i].rv);
        json_decref(object);
    }
}

static void generated_names_and_uids_are_well_formed_and_differ(void **state)
{
    (void)state;
    char a[AT_OBJECT_UID_BYTES];
    char b[AT_OBJECT_UID_BYTES];
    at_object_uid(at_sys_real(), a);
    at_object_uid(at_sys_real(), b);
    assert_string_not_equal(a, b);
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    json_t *object = parse("{\"metadata\":{\"generateName\":\"web-\"}}");
    at_object_generate_name(at_sys_real(), object);
    const char *name = at_object_name(object);
    assert_int_equal(strlen(name), 9);
    assert_memory_equal(name, "web-", 4);
    assert_int_equal(strspn(name + 4, "bcdfghjklmnpqrstvwxz2456789"), 5);
    char *first = at_strdup(name);
    at_object_generate_name(at_sys_real(), object); /* has a name now */
    assert_string_equal(at_object_name(object), first);
    at_free(first);
    json_decref(object);
}

static void keys_are_exact_and_parse_back(void **state)
{
    (void)state;
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(&AT_KIND_NAMESPACE, NULL, "default", key, sizeof key);
    assert_string_equal(key, "/atoll/core/namespaces/_/default");
    at_state_key(&AT_KIND_DEPLOYMENT, "default", "web", key, sizeof key);
    assert_string_equal(key, "/atoll/atoll.dev/deployments/default/web");
    const struct at_model_kind *kind;
    const char *ns;
    const char *name;
    size_t ns_len;
    assert_int_equal(at_state_key_parse(key, &kind, &ns, &ns_len, &name), AT_OK);
    assert_ptr_equal(kind, &AT_KIND_DEPLOYMENT);
    assert_int_equal(ns_len, 7);
    assert_memory_equal(ns, "default", 7);
    assert_string_equal(name, "web");
    at_state_key(&AT_KIND_DEPLOYMENT, "default", NULL, key, sizeof key);
    assert_string_equal(key, "/atoll/atoll.dev/deployments/default/");
    assert_int_equal(at_state_key_parse(key, &kind, &ns, &ns_len, &name), AT_NOT_FOUND);
    at_state_key(&AT_KIND_DEPLOYMENT, NULL, NULL, key, sizeof key);
    assert_string_equal(key, "/atoll/atoll.dev/deployments/");
    at_state_key(&AT_KIND_NODE, NULL, NULL, key, sizeof key);
    assert_string_equal(key, "/atoll/atoll.dev/nodes/");
    at_state_key(&AT_KIND_NODE, "ignored", "n1", key, sizeof key);
    assert_string_equal(key, "/atoll/atoll.dev/nodes/_/n1");
    assert_int_equal(at_state_key_parse(key, &kind, &ns, &ns_len, &name), AT_OK);
    assert_null(ns);
    static const char *const others[] = {"", "/x", "/atoll/", "/atoll/core/nothing/_/a",
                                         "/atoll/core/namespaces/a"};
    for (size_t i = 0; i < AT_ARRAY_LEN(others); i++) {
        assert_int_equal(at_state_key_parse(others[i], &kind, &ns, &ns_len, &name), AT_NOT_FOUND);
    }
}

/* What trimming leaves is what parsing, deleting and writing again would leave. */
static void trimming_leaves_out_annotations_and_managed_fields_only(void **state)
{
    (void)state;
    static const char *const META[] = {
        "",
        ",\"annotations\":{}",
        ",\"annotations\":{\"a\":\"\\\"}],\\\\\"},\"labels\":{\"annotations\":\"no\"}",
        ",\"managedFields\":[{\"fieldsV1\":{\"f:metadata\":{\"f:annotations\":{}}}}],\"x\":1",
        (",\"labels\":{\"a\":\"b\"},\"finalizers\":[\"f\"],\"deletionGracePeriodSeconds\":12,\"b\":"
         "true"),
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(META); i++) {
        json_t *object = stored(META[i], ",\"spec\":{\"annotations\":{\"kept\":\"yes\"}}");
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(at_object_encode(object, &text, NULL), AT_OK);
        assert_int_equal(at_object_trim(text.data, text.len, &out), AT_OK);
        json_object_del(json_object_get(object, "metadata"), "annotations");
        json_object_del(json_object_get(object, "metadata"), "managedFields");
        json_t *got = parse(out.data);
        assert_true(json_equal(got, object));
        json_decref(got);
        json_decref(object);
    }
}

static void trimming_refuses_what_is_not_in_stored_form(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "",
        "{\"kind\":1}",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\"",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":}",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\" : \"a\"}}",
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"labels\":{\"a\":[",
    };
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    assert_int_equal(at_buf_append_str(&out, "before"), AT_OK);
    for (size_t i = 0; i < AT_ARRAY_LEN(TEXTS); i++) {
        assert_int_equal(at_object_trim(TEXTS[i], strlen(TEXTS[i]), &out), AT_CORRUPT);
        assert_string_equal(out.data, "before");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trimming_leaves_out_annotations_and_managed_fields_only),
        cmocka_unit_test(trimming_refuses_what_is_not_in_stored_form),
        cmocka_unit_test(creation_stamps_what_the_server_owns),
        cmocka_unit_test(an_equal_update_is_no_write),
        cmocka_unit_test(generation_counts_changes_of_spec_only),
        cmocka_unit_test(the_main_part_keeps_status_and_the_status_part_keeps_the_rest),
        cmocka_unit_test(server_owned_fields_cannot_be_changed),
        cmocka_unit_test(deletion_waits_for_the_last_finalizer),
        cmocka_unit_test(the_stored_form_takes_a_version_without_parsing),
        cmocka_unit_test(an_object_over_the_limit_is_refused_with_its_size),
        cmocka_unit_test(versions_are_read_strictly),
        cmocka_unit_test(generated_names_and_uids_are_well_formed_and_differ),
        cmocka_unit_test(keys_are_exact_and_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
