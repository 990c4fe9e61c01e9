/* Merging, paths, tables, conditions and images. */
#include "cli/waiting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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

static void merge3_adds_changes_and_removes_only_its_own(void **state)
{
    (void)state;
    /* last applied, wanted, live, patch */
    static const char *const ROWS[][4] = {
        {"null", "{\"a\":1}", "{}", "{\"a\":1}"},
        {"null", "{\"a\":1}", "{\"a\":1,\"b\":2}", "{}"},
        {"{\"a\":1,\"b\":2}", "{\"a\":1}", "{\"a\":1,\"b\":2}", "{\"b\":null}"},
        {"{\"b\":2}", "{\"a\":1}", "{\"a\":1}", "{}"},
        {"{\"s\":{\"x\":1,\"y\":2}}", "{\"s\":{\"x\":3}}", "{\"s\":{\"x\":1,\"y\":2,\"z\":9}}",
         "{\"s\":{\"x\":3,\"y\":null}}"},
        {"{\"s\":{\"y\":2}}", "{\"s\":{}}", "{\"s\":{\"y\":2}}", "{\"s\":{\"y\":null}}"},
        {"{\"l\":[1,2]}", "{\"l\":[1]}", "{\"l\":[1,2]}", "{\"l\":[1]}"},
        {"{\"s\":{\"x\":1}}", "{\"s\":5}", "{\"s\":{\"x\":1}}", "{\"s\":5}"},
        {"{\"s\":1}", "{\"s\":{\"x\":1}}", "{\"s\":1}", "{\"s\":{\"x\":1}}"},
        {"{\"replicas\":3}", "{}", "{\"replicas\":5}", "{\"replicas\":null}"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        json_t *last = parse(ROWS[i][0]);
        json_t *wanted = parse(ROWS[i][1]);
        json_t *live = parse(ROWS[i][2]);
        json_t *patch = cli_merge3(json_is_null(last) ? NULL : last, wanted, live);
        json_t *expected = parse(ROWS[i][3]);
        if (!json_equal(patch, expected)) {
            fail_msg("row %zu: %s", i, json_dumps(patch, 0));
        }
        json_decref(last);
        json_decref(wanted);
        json_decref(live);
        json_decref(patch);
        json_decref(expected);
    }
}

static void last_applied_is_written_as_kubectl_writes_it(void **state)
{
    (void)state;
    json_t *wanted = parse("{\"kind\":\"Site\",\"apiVersion\":\"v1\",\"spec\":{\"b\":[{\"d\":1,"
                           "\"c\":2}],\"a\":\"x\"},\"metadata\":{\"name\":\"n\"}}");
    json_t *with = cli_with_last_applied(wanted);
    const json_t *metadata = json_object_get(with, "metadata");
    const json_t *annotations = json_object_get(metadata, "annotations");
    assert_string_equal(json_string_value(json_object_get(annotations, CLI_LAST_APPLIED)),
                        "{\"apiVersion\":\"v1\",\"kind\":\"Site\",\"metadata\":{\"annotations\":{},"
                        "\"name\":\"n\"},\"spec\":{\"a\":\"x\",\"b\":[{\"c\":2,\"d\":1}]}}\n");
    /* Applied again, it is the same: the annotation never contains itself. */
    json_t *again = cli_with_last_applied(with);
    assert_true(json_equal(with, again));
    json_t *last = cli_last_applied(with);
    assert_string_equal(at_json_str_at(last, "spec.a", ""), "x");
    json_decref(last);
    json_decref(again);
    json_decref(with);
    json_decref(wanted);
}

static void jsonpath_finds_what_kubectl_finds(void **state)
{
    (void)state;
    json_t *value = parse("{\"items\":[{\"n\":\"a\",\"v\":1},{\"n\":\"b\",\"v\":true}],"
                          "\"m\":{\"labels\":{\"x.y/z\":\"q\",\"p\":\"r\"}}}");
    static const char *const ROWS[][2] = {
        {"{.items[0].n}", "a"},
        {"{.items[*].n}", "a b"},
        {".items[-1].v", "true"},
        {"{.items[*].v}", "1 true"},
        {"{.m.labels['x.y/z']}", "q"},
        {"{.m.labels.x\\.y/z}", "q"},
        {"{.m.labels.*}", "q r"},
        {"{.items[7].n}{.none.at.all}", ""},
        {"{.items[0]}", "{\"n\":\"a\",\"v\":1}"},
        {"n={.items[0].n}{\"\\n\"}v={.items[0].v}", "n=a\nv=1"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(cli_jsonpath(ROWS[i][0], value, &out, NULL), AT_OK);
        assert_string_equal(out.data != NULL ? out.data : "", ROWS[i][1]);
    }
    static const char *const BAD[] = {"{.a", "{.items[}", "{.items[x]}", "{a}", "{.items['n]}"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(cli_jsonpath(BAD[i], value, &out, NULL), AT_INVALID);
    }
    json_decref(value);
}

static void tables_are_aligned_and_steer_no_terminal(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len;
    struct at_cli_env env = {.sys = at_sys_real(), .out = open_memstream(&text, &len)};
    struct cli cli = {.env = &env, .arena = at_arena_new(0)};
    struct cli_table table;
    cli_table_init(&table, cli.arena, 2);
    static const char *const CELLS[] = {"NAME",         "X",   "\xc3\xa9t\xc3\xa9", "1",
                                        "a\033[31m\nb", "\xff"};
    for (size_t i = 0; i < AT_ARRAY_LEN(CELLS); i++) {
        cli_table_add(&table, CELLS[i]);
    }
    cli_table_print(&cli, &table, true);
    fclose(env.out);
    assert_string_equal(text, "NAME       X\n\xc3\xa9t\xc3\xa9        1\na [31m b   ?\n");
    free(text);
    env.out = open_memstream(&text, &len);
    cli_print_text(env.out, "a\033b\tc\n\xc2\x9bz\xff\xc3\xa9");
    fclose(env.out);
    assert_string_equal(text, "a?b\tc\n?z?\xc3\xa9");
    free(text);
    at_arena_free(cli.arena);
}

static void conditions_are_parsed_and_judged(void **state)
{
    (void)state;
    struct cli cli = {.arena = at_arena_new(0)};
    static const struct {
        const char *text, *object;
        bool met;
    } ROWS[] = {
        {"condition=Ready",
         "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}", true},
        {"condition=ready=true",
         "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}", true},
        {"condition=Ready=False",
         "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}", false},
        {"condition=Ready",
         "{\"metadata\":{\"generation\":3},\"status\":{\"conditions\":[{\"type\":\"Ready\","
         "\"status\":\"True\",\"observedGeneration\":2}]}}",
         false},
        {"condition=Ready", "{}", false},
        {"jsonpath={.a.b}=v=w", "{\"a\":{\"b\":\"v=w\"}}", true},
        {"jsonpath={.a.b}=v", "{\"a\":{\"b\":\"x\"}}", false},
        {"jsonpath=.a", "{\"a\":1}", true},
        {"jsonpath=.a", "{}", false},
        {"delete", "{}", false},
        {"delete", NULL, true},
        {"condition=Ready", NULL, false},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        struct cli_condition condition;
        char why[256];
        json_t *object = ROWS[i].object != NULL ? parse(ROWS[i].object) : NULL;
        assert_int_equal(cli_condition_parse(&cli, ROWS[i].text, &condition, NULL), AT_OK);
        assert_int_equal(cli_condition_met(&condition, object, why, sizeof why), ROWS[i].met);
        json_decref(object);
    }
    struct cli_condition gone = {.what = CLI_UNTIL_DELETED, .uid = "u1"};
    char why[256];
    json_t *later = parse("{\"metadata\":{\"uid\":\"u2\"}}");
    assert_true(cli_condition_met(&gone, later, why, sizeof why));
    json_decref(later);
    static const char *const BAD[] = {"", "Ready", "condition=", "jsonpath=", "jsonpath={.a"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        struct cli_condition condition;
        assert_true(cli_condition_parse(&cli, BAD[i], &condition, NULL) != AT_OK);
    }
    at_arena_free(cli.arena);
}

static void images_are_read_and_scaled(void **state)
{
    (void)state;
    static const char TEXT[] = "P2 # a comment\n4 2\n16\n0 16 8 8\n16 0 8 8\n";
    static const char BINARY[] = "P5\n2 2\n255\n\x00\xff\x7f\x01";
    static const char WIDE[] = "P5 1 1 1000\n\x01\xf4";
    struct cli_image image = {0};
    double out[8];
    assert_int_equal(cli_pgm_parse(TEXT, sizeof TEXT - 1, &image, NULL), AT_OK);
    cli_image_resize(&image, 2, 1, 16, out);
    assert_true(out[0] == 8 && out[1] == 8);
    cli_image_resize(&image, 4, 2, 1, out);
    assert_true(out[0] == 0 && out[1] == 1 && out[2] == 0.5 && out[4] == 1);
    cli_image_resize(&image, 1, 2, 16, out);
    assert_true(out[0] == 8 && out[1] == 8);
    at_free(image.pixels);
    assert_int_equal(cli_pgm_parse(BINARY, sizeof BINARY - 1, &image, NULL), AT_OK);
    assert_int_equal(image.pixels[1], 255);
    at_free(image.pixels);
    assert_int_equal(cli_pgm_parse(WIDE, sizeof WIDE - 1, &image, NULL), AT_OK);
    assert_int_equal(image.pixels[0], 500);
    at_free(image.pixels);
    static const char *const BAD[] = {"",
                                      "P6 1 1 255\nx",
                                      "P2 0 1 1 1",
                                      "P2 2 2 9 1 2 3",
                                      "P5 2 2 9\nx",
                                      "P2 1 1 9 10",
                                      "P2 1 1 0 0",
                                      "P2 99999 1 1 1",
                                      "P2 x 1 1 1",
                                      "P5 60000 60000 9 "};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(cli_pgm_parse(BAD[i], strlen(BAD[i]), &image, NULL), AT_INVALID);
    }
}

static void quantities_are_numbers_or_text(void **state)
{
    (void)state;
    json_t *values = parse("[\"200m\",2,1.5,null,\"x\"]");
    static const int64_t MILLI[] = {200, 2000, 1500, 0, 0};
    for (size_t i = 0; i < AT_ARRAY_LEN(MILLI); i++) {
        assert_int_equal(cli_milli(json_array_get(values, i)), MILLI[i]);
    }
    json_decref(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge3_adds_changes_and_removes_only_its_own),
        cmocka_unit_test(last_applied_is_written_as_kubectl_writes_it),
        cmocka_unit_test(jsonpath_finds_what_kubectl_finds),
        cmocka_unit_test(tables_are_aligned_and_steer_no_terminal),
        cmocka_unit_test(conditions_are_parsed_and_judged),
        cmocka_unit_test(images_are_read_and_scaled),
        cmocka_unit_test(quantities_are_numbers_or_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
