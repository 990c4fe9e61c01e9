/* Stored texts edited without parsing them give what parsing, changing and writing would give. */
#include "core/mem.h"
#include "state/object.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

static json_t *parse(const char *text, size_t len)
{
    struct at_err err = {0};
    json_t *value = NULL;
    if (at_json_parse(text, len, &value, &err) != AT_OK) {
        fail_msg("%.*s: %s", (int)len, text, err.msg);
    }
    return value;
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (*random >> 33) % below;
}

static const char *const PARTS[] = {"metadata", "spec", "status"};
static const char *const NAMES[] = {"a", "b", "command", "nodeName", "nodeNameX", "decision"};
static const char *const VALUES[] = {"1",
                                     "-2.5",
                                     "true",
                                     "null",
                                     "\"\"",
                                     "\"x\\\"]}\\\\\"",
                                     "{}",
                                     "[]",
                                     "[{\"a\":\"}\"},[1,2],\"\\\\\"]",
                                     "{\"nodeName\":\"inner\",\"b\":[\"metadata\",{\"c\":1}]}"};

static json_t *random_object(uint64_t *random)
{
    json_t *object =
        json_pack("{s:s,s:s,s:{s:s}}", "apiVersion", "v1", "kind", "K", "metadata", "name", "n");
    for (size_t p = 0; p < AT_ARRAY_LEN(PARTS); p++) {
        if (p > 0 && draw(random, 4) == 0) {
            continue;
        }
        json_t *part = p == 0 ? json_object_get(object, "metadata") : json_object();
        for (size_t k = 0; k < AT_ARRAY_LEN(NAMES); k++) {
            const char *value = VALUES[draw(random, AT_ARRAY_LEN(VALUES))];
            if (draw(random, 2) == 0) {
                json_object_set_new(part, NAMES[k], parse(value, strlen(value)));
            }
        }
        if (p > 0) {
            json_object_set_new(object, PARTS[p], part);
        }
    }
    if (draw(random, 2) == 0) {
        json_object_set_new(object, "extra", json_pack("{s:{s:i}}", "spec", "a", 1));
    }
    return object;
}

static size_t random_edits(uint64_t *random, struct at_object_edit *edits)
{
    size_t n = 0;
    for (size_t p = 0; p < AT_ARRAY_LEN(PARTS); p++) {
        for (size_t k = 0; k < AT_ARRAY_LEN(NAMES); k++) {
            const char *value = VALUES[draw(random, AT_ARRAY_LEN(VALUES))];
            if (draw(random, 4) == 0) {
                edits[n++] = (struct at_object_edit){PARTS[p], NAMES[k],
                                                     draw(random, 3) == 0 ? (struct at_str){NULL, 0}
                                                                          : at_str_of(value)};
            }
        }
    }
    return n;
}

static void apply(json_t *object, const struct at_object_edit *edits, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        json_t *part = json_object_get(object, edits[k].part);
        if (edits[k].text.ptr == NULL) {
            json_object_del(part, edits[k].name);
            continue;
        }
        if (part == NULL) {
            part = json_object();
            json_object_set_new(object, edits[k].part, part);
        }
        json_object_set_new(part, edits[k].name, parse(edits[k].text.ptr, edits[k].text.len));
    }
}

static void check_members(const char *text, size_t len, const json_t *object)
{
    for (size_t p = 0; p < AT_ARRAY_LEN(PARTS); p++) {
        for (size_t k = 0; k < AT_ARRAY_LEN(NAMES); k++) {
            const json_t *want = json_object_get(json_object_get(object, PARTS[p]), NAMES[k]);
            struct at_str got = at_object_member(text, len, PARTS[p], NAMES[k]);
            assert_int_equal(got.ptr != NULL, want != NULL);
            if (want != NULL) {
                json_t *value = parse(got.ptr, got.len);
                assert_true(json_equal(value, want));
                json_decref(value);
            }
        }
    }
}

static void edits_do_to_the_text_what_they_say_of_the_object(void **state)
{
    (void)state;
    uint64_t random = 20261124;
    for (int round = 0; round < 4000; round++) {
        json_t *object = random_object(&random);
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(at_object_encode(object, &text, NULL), AT_OK);
        check_members(text.data, text.len, object);
        struct at_object_edit edits[AT_OBJECT_EDITS_MAX];
        size_t n = random_edits(&random, edits);
        assert_int_equal(at_object_edit(text.data, text.len, edits, n, &out), AT_OK);
        apply(object, edits, n);
        json_t *got = parse(out.data, out.len);
        assert_true(json_equal(got, object));
        check_members(out.data, out.len, object);
        json_decref(got);
        json_decref(object);
    }
}

static void no_cut_text_is_edited_or_read_past_its_end(void **state)
{
    (void)state;
    static const char TEXT[] = "{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\","
                               "\"x\":[{\"y\":\"\\\"\"}]},"
                               "\"spec\":{\"nodeName\":\"a\"},\"status\":{}}";
    const struct at_object_edit edits[] = {{"metadata", "x", AT_STR("1")},
                                           {"spec", "nodeName", {NULL, 0}},
                                           {"status", "new", AT_STR("[]")}};
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    assert_int_equal(at_buf_append_str(&out, "before"), AT_OK);
    for (size_t len = 0; len < sizeof TEXT - 1; len++) {
        char *cut = at_strndup(TEXT, len); /* the sanitizers see what lies behind */
        assert_int_equal(at_object_edit(cut, len, edits, 3, &out), AT_CORRUPT);
        (void)at_object_member(cut, len, "status", "new");
        assert_string_equal(out.data, "before");
        at_free(cut);
    }
    assert_int_equal(at_object_edit(TEXT, sizeof TEXT - 1, edits, 3, &out), AT_OK);
    assert_string_equal(out.data,
                        "before{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":"
                        "\"n\",\"x\":1},\"spec\":{},\"status\":{\"new\":[]}}");
}

static void what_is_bound_is_trimmed_of_its_decision(void **state)
{
    (void)state;
    static const char *const TEXTS[][2] = {
        {"{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"},\"status\":{"
         "\"decision\":"
         "{\"message\":\"m\"},\"site\":\"s\"},\"spec\":{\"nodeName\":\"n1\"}}",
         "{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"},\"status\":{\"site\":"
         "\"s\"},"
         "\"spec\":{\"nodeName\":\"n1\"}}"},
        {"{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"},\"spec\":{"
         "\"nodeName\":\"\"},"
         "\"status\":{\"decision\":{}}}",
         NULL},
        {"{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"},\"status\":{"
         "\"decision\":{}}"
         "}",
         NULL},
    };
    for (size_t k = 0; k < AT_ARRAY_LEN(TEXTS); k++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(at_object_trim(TEXTS[k][0], strlen(TEXTS[k][0]), &out), AT_OK);
        assert_string_equal(out.data, TEXTS[k][1] != NULL ? TEXTS[k][1] : TEXTS[k][0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_do_to_the_text_what_they_say_of_the_object),
        cmocka_unit_test(no_cut_text_is_edited_or_read_past_its_end),
        cmocka_unit_test(what_is_bound_is_trimmed_of_its_decision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
