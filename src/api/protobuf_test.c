#include "api/api_priv.h"
#include "core/mem.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static json_t *decode_file(const char *name)
{
    struct at_buf bytes = {0};
    char path[512];
    json_t *value = NULL;
    snprintf(path, sizeof path, "%s/src/api/corpus/protobuf_fuzz/%s", AT_SOURCE_ROOT, name);
    assert_int_equal(at_file_read(path, 65536, &bytes, NULL), AT_OK);
    assert_int_equal(api_protobuf_decode(bytes.data, bytes.len, &value, NULL), AT_OK);
    at_buf_done(&bytes);
    return value;
}

static void an_access_review_is_read(void **state)
{
    (void)state;
    json_t *v = decode_file("ssar");
    assert_string_equal(at_json_str_at(v, "kind", ""), "SelfSubjectAccessReview");
    assert_string_equal(at_json_str_at(v, "apiVersion", ""), "authorization.k8s.io/v1");
    assert_string_equal(at_json_str_at(v, "spec.resourceAttributes.verb", ""), "get");
    assert_string_equal(at_json_str_at(v, "spec.resourceAttributes.resource", ""), "sites");
    json_decref(v);
}

static void a_namespace_keeps_labels_and_finalizers(void **state)
{
    (void)state;
    json_t *v = decode_file("namespace");
    assert_string_equal(at_json_str_at(v, "metadata.name", ""), "team");
    assert_string_equal(at_json_str_at(v, "metadata.labels.a", ""), "b");
    assert_int_equal(json_array_size(at_json_at(v, "metadata.finalizers")), 1);
    json_decref(v);
}

static void bytes_become_base64(void **state)
{
    (void)state;
    json_t *v = decode_file("secret");
    assert_string_equal(at_json_str_at(v, "data.k", ""), "AAF2");
    json_decref(v);
}

static void rules_and_subjects_are_read(void **state)
{
    (void)state;
    json_t *v = decode_file("role");
    json_t *rule = json_array_get(json_object_get(v, "rules"), 0);
    assert_string_equal(at_json_str_at(v, "metadata.name", ""), "r");
    assert_string_equal(json_string_value(json_array_get(json_object_get(rule, "verbs"), 1)),
                        "list");
    /* The core group is an empty text in a list: that one stays. */
    assert_string_equal(json_string_value(json_array_get(json_object_get(rule, "apiGroups"), 0)),
                        "");
    assert_null(at_json_at(v, "metadata.namespace")); /* an empty field does not */
    json_decref(v);
    v = decode_file("clusterrolebinding");
    assert_string_equal(at_json_str_at(v, "roleRef.name", ""), "view");
    const json_t *subject = json_array_get(json_object_get(v, "subjects"), 0);
    assert_string_equal(at_json_str_at(subject, "kind", ""), "ServiceAccount");
    assert_null(json_object_get(subject, "apiGroup"));
    json_decref(v);
}

static void a_cut_message_is_refused_or_empty_at_every_length(void **state)
{
    (void)state;
    struct at_buf bytes = {0};
    assert_int_equal(
        at_file_read(AT_SOURCE_ROOT "/src/api/corpus/protobuf_fuzz/ssar", 65536, &bytes, NULL),
        AT_OK);
    for (size_t len = 0; len < bytes.len; len++) {
        json_t *v = NULL;
        char *copy = at_strndup(bytes.data, len); /* so that a read beyond is seen */
        if (api_protobuf_decode(copy, len, &v, NULL) == AT_OK) {
            assert_null(at_json_at(v, "spec")); /* cut before the message itself: it is empty */
        } else {
            assert_null(v);
        }
        json_decref(v);
        at_free(copy);
    }
    at_buf_done(&bytes);
}

static void an_unknown_kind_is_unsupported(void **state)
{
    (void)state;
    static const char POD[] = "k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x00";
    json_t *v = NULL;
    assert_int_equal(api_protobuf_decode(POD, sizeof POD - 1, &v, NULL), AT_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_access_review_is_read),
        cmocka_unit_test(a_namespace_keeps_labels_and_finalizers),
        cmocka_unit_test(bytes_become_base64),
        cmocka_unit_test(rules_and_subjects_are_read),
        cmocka_unit_test(a_cut_message_is_refused_or_empty_at_every_length),
        cmocka_unit_test(an_unknown_kind_is_unsupported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
