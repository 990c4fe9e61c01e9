#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model_priv.h"
#include "test_json.h"

static bool matches(const char *text, const char *labels)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = labels != NULL ? J(labels) : NULL;
    struct at_selector *selector = NULL;
    struct at_err err = {0};
    if (at_selector_parse(text, arena, &selector, &err) != AT_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    struct at_model_kv kv[8];
    struct at_model_map map = {kv, 0};
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value)
    {
        kv[map.n++] = (struct at_model_kv){key, json_string_value(value)};
    }
    bool by_json = at_selector_match_json(selector, json);
    assert_int_equal(by_json, at_selector_match(selector, &map));
    return by_json;
}

static void each_operator_means_what_kubernetes_says(void **state)
{
    (void)state;
    static const char labels[] = "{'app':'web','tier':'gpu','x.y/z':''}";
    static const char *const yes[] = {
        "",        "app=web",           "app==web",
        "app!=db", "app in (web,db)",   "app notin (db)",
        "app",     "!nothing",          "nothing!=x",
        "x.y/z=",  "nothing notin (a)", " app = web , tier in ( cpu , gpu ) ",
        "x.y/z",   "app,tier=gpu,!no",  "app in (web,db),tier",
    };
    static const char *const no[] = {
        "app=db", "app!=web",  "app in (db)",      "app notin (web,db)", "nothing",
        "!app",   "nothing=x", "app=web,tier=cpu", "nothing in (a)",     "x.y/z=v",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(yes); i++) {
        if (!matches(yes[i], labels)) {
            fail_msg("%s does not match", yes[i]);
        }
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(no); i++) {
        if (matches(no[i], labels)) {
            fail_msg("%s matches", no[i]);
        }
    }
    assert_true(matches("!a", NULL));
    assert_false(matches("a", NULL));
}

static void what_is_not_a_selector_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "=web",    "app=web,",  ",app",    "app in web", "app in (web", "app web",
        "a b=c",   "!",         "app=a=b", "app=(a)",    "a/b/c=d",     "app>5",
        "app in)", "app = b c", "-app=x",  "app=-",      "!a=b",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(bad); i++) {
        AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
        struct at_selector *selector = NULL;
        struct at_err err = {0};
        if (at_selector_parse(bad[i], arena, &selector, &err) != AT_BAD_REQUEST) {
            fail_msg("%s is taken", bad[i]);
        }
        assert_null(selector);
        assert_string_equal(err.field, "labelSelector");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_operator_means_what_kubernetes_says),
        cmocka_unit_test(what_is_not_a_selector_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
