#include "core/mem.h"
#include "core/yaml.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_yaml(const char *yaml, const char *expected_json)
{
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    struct at_err err = {0};
    if (at_yaml_parse(yaml, strlen(yaml), &docs, &count, &err) != AT_OK) {
        fail_msg("%s: %s", yaml, err.msg);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(at_buf_append_str(&buf, i != 0 ? " " : ""), AT_OK);
        assert_int_equal(at_json_dump(docs[i].value, &buf), AT_OK);
    }
    assert_string_equal(buf.data != NULL ? buf.data : "", expected_json);
    at_yaml_docs_free(docs, count);
}

static void scalars_follow_the_core_schema(void **state)
{
    (void)state;
    assert_yaml("[true, False, null, ~, '', yes, no]",
                "[true,false,null,null,\"\",\"yes\",\"no\"]");
    assert_yaml("[1, -2, +3, 0o17, 0xff, 1.5, .5, 1e3, 1.]", "[1,-2,3,15,255,1.5,0.5,1000.0,1.0]");
    assert_yaml("['1', \"true\", !!str 1, ! 2]", "[\"1\",\"true\",\"1\",\"2\"]");
    assert_yaml("[1.2.3, 1e, 0x, 12:30, 2026-01-02, 1_000, -, 500m]",
                "[\"1.2.3\",\"1e\",\"0x\",\"12:30\",\"2026-01-02\",\"1_000\",\"-\",\"500m\"]");
    assert_yaml("a:\nb: {}\n1: x", "{\"a\":null,\"b\":{},\"1\":\"x\"}");
    assert_yaml("!!float 1", "1");
    assert_yaml("123456789012345678901", "1.2345678901234568e+20");
}

static void several_documents_keep_their_lines_and_empty_ones_vanish(void **state)
{
    (void)state;
    static const char TEXT[] = "# first\na: 1\n---\n---\n# none\n---\n\nb: 2\n...\n";
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    assert_int_equal(at_yaml_parse(TEXT, strlen(TEXT), &docs, &count, NULL), AT_OK);
    assert_int_equal(count, 2);
    assert_int_equal(docs[0].line, 2);
    assert_int_equal(docs[1].line, 8);
    at_yaml_docs_free(docs, count);
    assert_yaml("", "");
    assert_yaml("---\n", "");
    assert_yaml("{\"json\": [1, \"two\"]}", "{\"json\":[1,\"two\"]}");
}

static void anchors_and_merge_keys_are_expanded(void **state)
{
    (void)state;
    assert_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x",
                "{\"a\":{\"p\":1,\"q\":2},\"b\":{\"q\":3,\"p\":1},\"c\":{\"p\":1,\"q\":2}}");
    assert_yaml("- &a {k: 1}\n- &b {k: 2, l: 2}\n- <<: [*a, *b]",
                "[{\"k\":1},{\"k\":2,\"l\":2},{\"k\":1,\"l\":2}]");
    assert_yaml("a: &x 5\nb: *x", "{\"a\":5,\"b\":5}");
}

static void assert_refused(const char *yaml, const char *place, const char *why)
{
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    struct at_err err = {0};
    assert_int_equal(at_yaml_parse(yaml, strlen(yaml), &docs, &count, &err), AT_BAD_REQUEST);
    assert_null(docs);
    if (strstr(err.msg, place) == NULL || strstr(err.msg, why) == NULL) {
        fail_msg("%s: %s", yaml, err.msg);
    }
}

static void mistakes_are_refused_with_their_place(void **state)
{
    (void)state;
    assert_refused("a: 1\nb: 2\na: 3\n", "line 3, column 1", "stands twice: a");
    assert_refused("a: [1, 2\nb: 3", "line 2", "");
    assert_refused("a: 1\n\tb: 2", "line 2", "");
    assert_refused("a: *none", "line 1, column 4", "anchor none");
    assert_refused("a: &a [*a]", "line 1, column 8", "anchor a");
    assert_refused("{[a]: 1}", "line 1", "key");
    assert_refused("a: .inf", "line 1", "JSON cannot hold");
    assert_refused("a: !!int x", "line 1", "tag");
    assert_refused("a: !custom x", "line 1", "tag");
    assert_refused("a: \"x\\0y\"", "line 1", "NUL");
    assert_refused("<<: 1", "line 1", "mapping");
    assert_refused("a: \xff", "line 1", "");
    assert_refused("ok: 1\n---\nbad: [", "line 4", "node");
}

static void aliases_cannot_grow_without_end(void **state)
{
    (void)state;
    char text[2048] = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
    for (int i = 1; i < 9; i++) {
        size_t used = strlen(text);
        used += (size_t)snprintf(text + used, sizeof text - used, "a%d: &a%d [", i, i);
        for (int n = 0; n < 10; n++) {
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s*a%d", n ? "," : "", i - 1);
        }
        snprintf(text + used, sizeof text - used, "]\n");
    }
    assert_refused(text, "line 6", "expand");
}

static void nesting_is_limited(void **state)
{
    (void)state;
    char text[200] = {0};
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_refused(text, "column 65", "deep");
    memset(text, 0, sizeof text);
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    assert_int_equal(at_yaml_parse(text, strlen(text), &docs, &count, NULL), AT_OK);
    at_yaml_docs_free(docs, count);
}

static void assert_round_trip(const char *json)
{
    json_t *value = NULL;
    assert_int_equal(at_json_parse(json, strlen(json), &value, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_buf) struct at_buf yaml = {0};
    assert_int_equal(at_yaml_dump(value, &yaml), AT_OK);
    assert_yaml(yaml.data, json);
    json_decref(value);
}

static void what_is_dumped_reads_back_the_same(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "{\"a\":{\"b\":[1,{\"c\":[],\"d\":{}},[2,[3]]]},\"e\":null}",
        "[\"true\",\"no\",\"1\",\"1.5\",\"0x1\",\"~\",\"\",\"null\",\" a\",\"a \",\"- a\",\"a: "
        "b\",\"a #b\"]",
        "[\"# "
        "a\",\"*a\",\"&a\",\"!a\",\"%a\",\"@a\",\"`a\",\"{a\",\"[a\",\"'a\",\"\\\"a\",\"?\",\":\","
        "\"a:\"]",
        "{\"x y\":1,\"1\":2,\"a.b/c\":3,\"\":4,\"true\":5,\"multi\\nline\":6}",
        "[\"line\\nline\",\"line\\n\",\"\\n\",\"a\\n\\nb\\n\",\"a\\n\\n\",\" "
        "a\\nb\",\"a\\tb\\nc\",\"a\\n  b\"]",
        "[\"\xc3\xa9t\xc3\xa9\",\"\\u0001\",\"\x7f\",\"2026-01-02T03:04:05Z\",\"12:30\","
        "\"500m\",\"8Gi\"]",
        "{\"script\":\"#!/bin/sh\\nexit 0\\n\",\"list\":[\"a\\nb\",[\"c\\nd\"]]}",
        "\"scalar\"",
        "\"two\\nlines\"",
        "[]",
        "1.5",
        "[\"a\xe2\x80\xa8\x62\",\"\xef\xbb\xbfx\",\"a\xc2\x85\x62\"]",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(TEXTS); i++) {
        assert_round_trip(TEXTS[i]);
    }
}

static void dump_looks_as_from_kubectl(void **state)
{
    (void)state;
    static const char JSON[] =
        "{\"kind\":\"Site\",\"spec\":{\"links\":[{\"to\":\"edge\",\"ms\":5}],"
        "\"class\":\"onprem\",\"id\":\"1\"},\"empty\":{}}";
    json_t *value = NULL;
    assert_int_equal(at_json_parse(JSON, strlen(JSON), &value, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_buf) struct at_buf yaml = {0};
    assert_int_equal(at_yaml_dump(value, &yaml), AT_OK);
    assert_string_equal(yaml.data, "kind: Site\nspec:\n  links:\n  - to: edge\n    ms: 5\n"
                                   "  class: onprem\n  id: \"1\"\nempty: {}\n");
    json_decref(value);
}

static void fields_are_found_by_their_line(void **state)
{
    (void)state;
    static const char TEXT[] = "a: 1\n---\nkind: X\nmetadata:\n  labels:\n    a.b/c: d\nspec:\n"
                               "  list: [x, y]\n  env:\n  - name: n\n  - name: m\n    value: 7\n";
    static const struct {
        const char *field;
        size_t line;
    } ROWS[] = {
        {"spec", 7},
        {"spec.env[1].value", 12},
        {"spec.env[0].name", 10},
        {"spec.none", 7},
        {"metadata.labels[\"a.b/c\"]", 6},
        {"", 3},
        {"spec.env[7].x", 9},
        {"kind.x.y", 3},
        {"[0]", 3},
        {"spec.list[1]", 8},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        assert_int_equal(at_yaml_find_line(TEXT, strlen(TEXT), 3, ROWS[i].field), ROWS[i].line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_follow_the_core_schema),
        cmocka_unit_test(several_documents_keep_their_lines_and_empty_ones_vanish),
        cmocka_unit_test(anchors_and_merge_keys_are_expanded),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(aliases_cannot_grow_without_end),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(what_is_dumped_reads_back_the_same),
        cmocka_unit_test(dump_looks_as_from_kubectl),
        cmocka_unit_test(fields_are_found_by_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
