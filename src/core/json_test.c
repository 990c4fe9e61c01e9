#include "core/json.h"
#include "core/mem.h"
#include "core/yaml.h"

#include <glob.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    struct at_err err = {0};
    if (at_json_parse(text, strlen(text), &value, &err) != AT_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    return value;
}

static void assert_json(const json_t *value, const char *expected)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_json_dump(value, &buf), AT_OK);
    assert_string_equal(buf.data, expected);
}

static void dump_gives_back_what_was_parsed(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "{\"b\":1,\"a\":[true,false,null,-5,1.5,\"x\"],\"c\":{}}",
        "[]",
        "\"a\\\"b\\\\c\\n\\t\\u0001\xc3\xa9\"",
        "9223372036854775807",
        "0.1",
        "1e+300",
        "1.0",
        "0.30000000000000004",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(TEXTS); i++) {
        json_t *value = parse(TEXTS[i]);
        assert_json(value, TEXTS[i]);
        json_decref(value);
    }
}

static void pretty_dump_is_indented_by_two(void **state)
{
    (void)state;
    json_t *value = parse("{\"a\":[1,{}],\"b\":{\"c\":2}}");
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_json_dump_pretty(value, &buf), AT_OK);
    assert_string_equal(buf.data,
                        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": 2\n  }\n}");
    json_decref(value);
}

static void parse_refuses_with_line_and_column(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",
                                      "{",
                                      "{\"a\":1,\"a\":2}",
                                      "1 2",
                                      "{'a':1}",
                                      "[1,]",
                                      "\"\\u0000\"",
                                      "{\"\\u0000\":1}",
                                      "nul",
                                      "\"\xff\"",
                                      "1e999",
                                      "99999999999999999999"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        json_t *value = NULL;
        struct at_err err = {0};
        assert_int_equal(at_json_parse(BAD[i], strlen(BAD[i]), &value, &err), AT_BAD_REQUEST);
        assert_null(value);
        assert_non_null(strstr(err.msg, "line "));
        assert_non_null(strstr(err.msg, "column "));
    }
}

static void parse_refuses_what_is_nested_too_deep(void **state)
{
    (void)state;
    for (int depth = AT_JSON_DEPTH_MAX - 1; depth <= AT_JSON_DEPTH_MAX + 1; depth++) {
        char text[2 * AT_JSON_DEPTH_MAX + 8] = {0};
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        json_t *value = NULL;
        enum at_rc rc = at_json_parse(text, strlen(text), &value, NULL);
        assert_int_equal(rc, depth <= AT_JSON_DEPTH_MAX ? AT_OK : AT_BAD_REQUEST);
        json_decref(value);
    }
}

static void dump_stops_at_the_cap(void **state)
{
    (void)state;
    json_t *value = parse("{\"a\":[true,false,null,-5,1.5,\"xyz\\n\"],\"c\":{\"d\":\"e\"}}");
    AT_CLEANUP(at_cleanup_buf) struct at_buf whole = {0};
    assert_int_equal(at_json_dump(value, &whole), AT_OK);
    for (size_t cap = 1; cap <= whole.len; cap++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {.max = cap};
        assert_int_equal(at_json_dump(value, &buf), cap < whole.len ? AT_TOO_LARGE : AT_OK);
    }
    json_decref(value);
}

/* Labels of stored objects are hashes of this text, made with json_dumps before. */
static void assert_sorted_as_ever(const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_json_dump_sorted(value, &buf), AT_OK);
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    assert_string_equal(buf.data, text);
    assert_int_equal(buf.len, strlen(text));
    free(text);
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 11;
}

static void random_text(uint64_t *seed, struct at_buf *out)
{
    static const char *const PIECES[] = {"a",    "b",    "\"",   "\\",     "/",      "\n",
                                         "\x1f", "\x01", "\x7f", "\u00e9", "\u2028", "\U0001f600",
                                         "\b",   "\f",   "\r",   "\t",     "\ufeff", "Z"};
    at_buf_clear(out);
    assert_int_equal(at_buf_append_str(out, ""), AT_OK);
    for (size_t n = next(seed) % 6; n > 0; n--) {
        const char *piece = PIECES[next(seed) % (sizeof PIECES / sizeof PIECES[0])];
        assert_int_equal(at_buf_append_str(out, piece), AT_OK);
    }
}

static json_t *random_value(uint64_t *seed, int levels)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    double real;
    uint64_t bits = next(seed) << 11;
    json_t *value;
    switch (next(seed) % (levels > 0 ? 7 : 5)) {
    case 0:
        random_text(seed, &text);
        return json_string(text.len > 0 ? text.data : "");
    case 1:
        return json_integer((json_int_t)bits >> (bits % 61));
    case 2:
        memcpy(&real, &bits, sizeof real);
        value = json_real(real); /* NULL: no number */
        return value != NULL ? value : json_real(0.1);
    case 3:
        return json_real((double)(int64_t)bits / 1e17);
    case 4:
        return next(seed) % 3 == 0 ? json_null() : json_boolean(next(seed) % 2);
    case 5:
        value = json_array();
        for (size_t n = next(seed) % 5; n > 0; n--) {
            json_array_append_new(value, random_value(seed, levels - 1));
        }
        return value;
    default:
        value = json_object();
        for (size_t n = next(seed) % 7; n > 0; n--) {
            random_text(seed, &text);
            json_object_set_new(value, text.len > 0 ? text.data : "",
                                random_value(seed, levels - 1));
        }
        return value;
    }
}

static void a_sorted_dump_is_to_the_byte_what_json_dumps_writes(void **state)
{
    (void)state;
    json_t *known = parse("{\"b\":[0.1,1e300,-0.0,5.0,9007199254740993],"
                          "\"a\":\"\\u001f/\\b\\\"\\u00e9\\u007f\",\"\":{}}");
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_json_dump_sorted(known, &text), AT_OK);
    assert_string_equal(text.data, "{\"\":{},\"a\":\"\\u001F/\\b\\\"\u00e9\x7f\","
                                   "\"b\":[0.10000000000000001,1.0000000000000001e300,-0.0,5.0,"
                                   "9007199254740993]}");
    AT_CLEANUP(at_cleanup_buf) struct at_buf small = {.max = 20};
    assert_int_equal(at_json_dump_sorted(known, &small), AT_TOO_LARGE);
    assert_int_equal(at_json_dump_sorted(NULL, &small), AT_INVALID);
    json_decref(known);
    uint64_t seed = 1;
    for (int k = 0; k < 20000; k++) {
        AT_CLEANUP(at_cleanup_json) json_t *value = random_value(&seed, 4);
        assert_sorted_as_ever(value);
    }
}

static void a_sorted_dump_of_the_examples_is_what_json_dumps_writes(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob(AT_SOURCE_ROOT "/examples/*/*.yaml", 0, NULL, &found), 0);
    assert_int_equal(glob(AT_SOURCE_ROOT "/examples/*/*/*.json", GLOB_APPEND, NULL, &found), 0);
    size_t n_values = 0;
    for (size_t k = 0; k < found.gl_pathc; k++) {
        static char text[1 << 20];
        FILE *file = fopen(found.gl_pathv[k], "r");
        assert_non_null(file);
        size_t len = fread(text, 1, sizeof text, file);
        assert_true(feof(file));
        fclose(file);
        struct at_yaml_doc *docs = NULL;
        size_t n = 0;
        assert_int_equal(at_yaml_parse(text, len, &docs, &n, NULL), AT_OK);
        for (size_t d = 0; d < n; d++) {
            assert_sorted_as_ever(docs[d].value);
            n_values++;
        }
        at_yaml_docs_free(docs, n);
    }
    assert_true(n_values > 5);
    globfree(&found);
}

static void text_that_is_not_utf8_is_made_so(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_json_dump_text("a\xff\"", 3, &buf), AT_OK);
    assert_string_equal(buf.data, "\"a\xef\xbf\xbd\\\"\"");
}

static void paths_read_write_and_delete(void **state)
{
    (void)state;
    json_t *root = parse("{\"spec\":{\"model\":{\"name\":\"m\"},\"n\":3,\"on\":true}}");
    assert_string_equal(at_json_str_at(root, "spec.model.name", ""), "m");
    assert_string_equal(at_json_str_at(root, "spec.model.none", "d"), "d");
    assert_string_equal(at_json_str_at(root, "spec.n.deeper", "d"), "d");
    assert_int_equal(at_json_int_at(root, "spec.n", 0), 3);
    assert_int_equal(at_json_int_at(root, "spec.on", -1), -1);
    assert_true(at_json_bool_at(root, "spec.on", false));
    at_json_set_at(root, "status.a.b", json_integer(1));
    at_json_set_at(root, "spec.model", NULL);
    at_json_set_at(root, "none.at.all", NULL);
    at_json_set_at(root, "spec.n.x", json_true());
    assert_json(root, "{\"spec\":{\"n\":{\"x\":true},\"on\":true},\"status\":{\"a\":{\"b\":1}}}");
    json_decref(root);
}

/* The table of RFC 7386, appendix A. */
static void merge_patch_gives_the_results_of_rfc7386(void **state)
{
    (void)state;
    static const char *const ROWS[][3] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
        {"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
        {"{\"a\":\"foo\"}", "null", "null"},
        {"{\"a\":\"foo\"}", "\"bar\"", "\"bar\""},
        {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
        {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        json_t *patch = parse(ROWS[i][1]);
        json_t *result = at_json_merge_patch(parse(ROWS[i][0]), patch);
        assert_json(result, ROWS[i][2]);
        json_decref(result);
        json_decref(patch);
    }
}

static enum at_rc patched(const char *target, const char *ops, const char *expected)
{
    json_t *before = parse(target);
    json_t *patch = parse(ops);
    json_t *after = NULL;
    struct at_err err = {0};
    enum at_rc rc = at_json_patch(before, patch, &after, &err);
    assert_json(before, target);
    if (rc == AT_OK) {
        assert_non_null(expected);
        assert_json(after, expected);
    } else {
        assert_true(err.msg[0] != '\0');
    }
    json_decref(after);
    json_decref(patch);
    json_decref(before);
    return rc;
}

static void json_patch_does_what_rfc6902_says(void **state)
{
    (void)state;
    static const char *const ROWS[][3] = {
        {"{\"a\":1}", "[{\"op\":\"add\",\"path\":\"/b\",\"value\":2}]", "{\"a\":1,\"b\":2}"},
        {"[1,3]", "[{\"op\":\"add\",\"path\":\"/1\",\"value\":2}]", "[1,2,3]"},
        {"[1]", "[{\"op\":\"add\",\"path\":\"/-\",\"value\":2}]", "[1,2]"},
        {"{\"a\":1,\"b\":2}", "[{\"op\":\"remove\",\"path\":\"/a\"}]", "{\"b\":2}"},
        {"[1,2,3]", "[{\"op\":\"remove\",\"path\":\"/1\"}]", "[1,3]"},
        {"{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":[]}]", "{\"a\":[]}"},
        {"{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":7}]", "7"},
        {"{\"a\":{\"x\":1}}", "[{\"op\":\"move\",\"from\":\"/a/x\",\"path\":\"/b\"}]",
         "{\"a\":{},\"b\":1}"},
        {"{\"a\":[1]}", "[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/b\"}]",
         "{\"a\":[1],\"b\":[1]}"},
        {"{\"a/b\":1,\"m~n\":2}",
         "[{\"op\":\"remove\",\"path\":\"/a~1b\"},"
         "{\"op\":\"test\",\"path\":\"/m~0n\",\"value\":2}]",
         "{\"m~n\":2}"},
        {"{\"a\":1}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a\"}]", "{\"a\":1}"},
        {"{\"a\":1,\"ab\":2}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/ab\"}]",
         "{\"ab\":1}"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        assert_int_equal(patched(ROWS[i][0], ROWS[i][1], ROWS[i][2]), AT_OK);
    }
}

static void json_patch_refuses_and_leaves_the_target(void **state)
{
    (void)state;
    static const char *const INVALID[] = {
        ("[{\"op\":\"add\",\"path\":\"/b\",\"value\":2},"
         "{\"op\":\"test\",\"path\":\"/a\",\"value\":2}]"),
        "[{\"op\":\"remove\",\"path\":\"/none\"}]",
        "[{\"op\":\"remove\",\"path\":\"\"}]",
        "[{\"op\":\"replace\",\"path\":\"/none\",\"value\":1}]",
        "[{\"op\":\"add\",\"path\":\"/a/b\",\"value\":1}]",
        "[{\"op\":\"add\",\"path\":\"/l/3\",\"value\":1}]",
        "[{\"op\":\"add\",\"path\":\"/l/00\",\"value\":1}]",
        "[{\"op\":\"move\",\"from\":\"/o\",\"path\":\"/o/x\"}]",
        "[{\"op\":\"copy\",\"from\":\"/none\",\"path\":\"/x\"}]",
    };
    static const char *const MALFORMED[] = {
        "{}",
        "[1]",
        "[{\"op\":\"add\",\"path\":\"b\",\"value\":2}]",
        "[{\"op\":\"add\",\"path\":\"/b~2\",\"value\":2}]",
        "[{\"op\":\"add\",\"path\":\"/b\"}]",
        "[{\"op\":\"fly\",\"path\":\"/b\"}]",
        "[{\"op\":\"copy\",\"path\":\"/b\"}]",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(INVALID); i++) {
        assert_int_equal(patched("{\"a\":1,\"l\":[1],\"o\":{}}", INVALID[i], NULL), AT_INVALID);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(MALFORMED); i++) {
        assert_int_equal(patched("{\"a\":1}", MALFORMED[i], NULL), AT_BAD_REQUEST);
    }
}

static void json_patch_cannot_grow_without_end(void **state)
{
    (void)state;
    json_t *ops = json_array();
    for (int i = 0; i < 40; i++) {
        json_array_append_new(ops,
                              json_pack("{ssssss}", "op", "copy", "from", "/a", "path", "/a/-"));
    }
    json_t *target = parse("{\"a\":[1]}");
    json_t *after = NULL;
    assert_int_equal(at_json_patch(target, ops, &after, NULL), AT_INVALID);
    assert_null(after);
    json_decref(ops);
    json_decref(target);
}

/* Few values, many bytes: one long text copied again and again. */
static void json_patch_cannot_copy_a_long_text_without_end(void **state)
{
    (void)state;
    json_t *ops = json_array();
    char path[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "/x%d", i);
        json_array_append_new(ops, json_pack("{ssssss}", "op", "copy", "from", "/a", "path", path));
    }
    static char text[100001];
    memset(text, 'x', sizeof text - 1);
    json_t *target = json_pack("{ss}", "a", text);
    json_t *after = NULL;
    assert_int_equal(at_json_patch(target, ops, &after, NULL), AT_INVALID);
    assert_null(after);
    json_decref(ops);
    json_decref(target);
}

static void a_nul_byte_is_refused_wherever_it_stands(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        const char *where;
    } CASES[] = {{"[1\0,2]", 6, "line 1, column 3"},
                 {"{\n\"a\":\0 1}", 10, "line 2, column 5"},
                 {"1\0", 2, "line 1, column 2"},
                 {"\0", 1, "line 1, column 1"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *value = NULL;
        struct at_err err;
        assert_int_equal(at_json_parse(CASES[i].text, CASES[i].len, &value, &err), AT_BAD_REQUEST);
        assert_non_null(strstr(err.msg, CASES[i].where));
    }
}

/* The sanitizers see whoever uses what is kept: so this also shows that it is no value's. */
static void kept_memory_is_used_again_and_given_back(void **state)
{
    (void)state;
    json_set_alloc_funcs(at_json_alloc, at_json_free);
    static const char TEXT[] =
        "{\"a\":[1,2.5,\"x\",{\"b\":null}],\"long\":\"0123456789012345678901234567"
        "890123456789012345678901234567890123456789012345678901234567890\"}";
    json_t *before = parse(TEXT);
    at_json_keep(true);
    for (int k = 0; k < 3; k++) {
        json_t *value = parse(TEXT), *other = json_deep_copy(value);
        assert_true(json_equal(before, other));
        json_decref(value);
        json_decref(other);
    }
    void *small = at_json_alloc(40);
    memset(small, 1, 40);
    at_json_free(small);
    assert_ptr_equal(at_json_alloc(33), small); /* the same class: the last one freed comes first */
    at_json_free(small);
    void *large = at_json_alloc(100000);
    memset(large, 1, 100000);
    at_json_free(large);
    at_json_free(NULL);
    for (size_t bytes = 0; bytes < 400; bytes++) { /* each block has the room that was asked for */
        char *blocks[8];
        for (size_t k = 0; k < AT_ARRAY_LEN(blocks); k++) {
            blocks[k] = at_json_alloc(bytes);
            memset(blocks[k], (int)k, bytes);
        }
        for (size_t k = 0; k < AT_ARRAY_LEN(blocks); k++) {
            assert_true(bytes == 0 || blocks[k][bytes - 1] == (char)k);
            at_json_free(blocks[k]);
        }
    }
    json_decref(before); /* made before anything was kept */
    assert_null(at_json_alloc(SIZE_MAX));
    at_json_keep(false);
    json_t *after = parse(TEXT);
    json_decref(after);
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_nul_byte_is_refused_wherever_it_stands),
        cmocka_unit_test(dump_gives_back_what_was_parsed),
        cmocka_unit_test(pretty_dump_is_indented_by_two),
        cmocka_unit_test(parse_refuses_with_line_and_column),
        cmocka_unit_test(parse_refuses_what_is_nested_too_deep),
        cmocka_unit_test(dump_stops_at_the_cap),
        cmocka_unit_test(a_sorted_dump_is_to_the_byte_what_json_dumps_writes),
        cmocka_unit_test(a_sorted_dump_of_the_examples_is_what_json_dumps_writes),
        cmocka_unit_test(text_that_is_not_utf8_is_made_so),
        cmocka_unit_test(paths_read_write_and_delete),
        cmocka_unit_test(kept_memory_is_used_again_and_given_back),
        cmocka_unit_test(merge_patch_gives_the_results_of_rfc7386),
        cmocka_unit_test(json_patch_does_what_rfc6902_says),
        cmocka_unit_test(json_patch_refuses_and_leaves_the_target),
        cmocka_unit_test(json_patch_cannot_grow_without_end),
        cmocka_unit_test(json_patch_cannot_copy_a_long_text_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
