#include "model/fields.h"

#include "core/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "model/test_json.h"

static char text[4096];

static const char *show(json_t *value_take)
{
    char *out = value_take != NULL ? json_dumps(value_take, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    snprintf(text, sizeof text, "%s", out != NULL ? out : "none");
    free(out);
    json_decref(value_take);
    return text;
}

#define DEPLOYMENT                                                                                 \
    "{\"metadata\":{\"name\":\"d\",\"uid\":\"u\",\"labels\":{\"a\":\"1\"}},\"spec\":%s}"
#define ENV(items) "{\"template\":{\"spec\":{\"env\":[" items "]}}}"

static json_t *deployment(const char *spec)
{
    char json[2048];
    snprintf(json, sizeof json, DEPLOYMENT, spec);
    return J(json);
}

static void a_set_has_leaves_keys_and_no_identity(void **state)
{
    (void)state;
    json_t *d = deployment(ENV("{\"name\":\"A\",\"value\":\"1\"}"));
    assert_string_equal(
        show(at_fields_of(&AT_KIND_DEPLOYMENT, d)),
        "{\"f:metadata\":{\"f:labels\":{\"f:a\":{}}},\"f:spec\":{\"f:template\":{"
        "\"f:spec\":{\"f:env\":{\"k:{\\\"name\\\":\\\"A\\\"}\":{\".\":{},\"f:name\":"
        "{},\"f:value\":{}}}}}}}");
    json_decref(d);
    json_t *policy = J("{\"kind\":\"Policy\",\"metadata\":{\"name\":\"p\"},\"spec\":{"
                       "\"residency\":[{\"dataClass\":\"x\",\"jurisdictions\":[\"EU\"]}]}}");
    assert_string_equal(
        show(at_fields_of(&AT_KIND_POLICY, policy)),
        "{\"f:spec\":{\"f:residency\":{\"k:{\\\"dataClass\\\":\\\"x\\\"}\":{\".\":{},"
        "\"f:dataClass\":{},\"f:jurisdictions\":{\"v:\\\"EU\\\"\":{}}}}}}");
    json_decref(policy);
    json_t *bare = J("{\"metadata\":{\"name\":\"n\"}}");
    assert_null(at_fields_of(&AT_KIND_SITE, bare));
    json_decref(bare);
}

static void a_key_that_is_left_out_has_its_default(void **state)
{
    (void)state;
    json_t *node = J("{\"metadata\":{\"name\":\"n\"},\"spec\":{\"taints\":[{\"key\":\"k\"}]}}");
    assert_string_equal(
        show(at_fields_of(&AT_KIND_NODE, node)),
        "{\"f:spec\":{\"f:taints\":{\"k:{\\\"effect\\\":\\\"NoSchedule\\\",\\\"key\\\":"
        "\\\"k\\\"}\":{\".\":{},\"f:key\":{}}}}}");
    json_decref(node);
}

static void changes_are_leaves_that_differ(void **state)
{
    (void)state;
    json_t *a = deployment("{\"replicas\":1,\"template\":{\"spec\":{\"command\":[\"x\"],"
                           "\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}}}");
    json_t *b = deployment("{\"replicas\":1,\"template\":{\"spec\":{\"command\":[\"y\"],"
                           "\"env\":[{\"name\":\"B\"},{\"name\":\"A\",\"value\":\"2\"}]}}}");
    assert_string_equal(show(at_fields_changed(&AT_KIND_DEPLOYMENT, a, b)),
                        "{\"f:spec\":{\"f:template\":{\"f:spec\":{\"f:command\":{},\"f:env\":{"
                        "\"k:{\\\"name\\\":\\\"A\\\"}\":{\"f:value\":{}},"
                        "\"k:{\\\"name\\\":\\\"B\\\"}\":{\".\":{},\"f:name\":{}}}}}}}");
    assert_null(at_fields_changed(&AT_KIND_DEPLOYMENT, a, a));
    /* Who owned all of a keeps what b left alone. */
    json_t *all = at_fields_of(&AT_KIND_DEPLOYMENT, a);
    assert_string_equal(
        show(at_fields_kept(&AT_KIND_DEPLOYMENT, all, a, b)),
        "{\"f:metadata\":{\"f:labels\":{\"f:a\":{}}},\"f:spec\":{\"f:replicas\":{},"
        "\"f:template\":{\"f:spec\":{\"f:env\":{\"k:{\\\"name\\\":\\\"A\\\"}\":{\".\":"
        "{},\"f:name\":{}}}}}}}");
    json_decref(all);
    json_decref(a);
    json_decref(b);
}

static void what_a_client_calls_a_field_must_be_one(void **state)
{
    (void)state;
    json_t *d = deployment(ENV("{\"name\":\"A\"}"));
    json_t *set = J("{\"f:kind\":{},\"x\":{},\"\":{},\"f:\":{},\"f:metadata\":{\"f:name\":{},"
                    "\"f:labels\":{\"f:a\":{\"f:b\":{}},\"i:3\":{}}},\"f:spec\":{\"f:template\":{"
                    "\"f:spec\":{\"f:env\":{\"k:{\":{},\"k:{\\\"name\\\":\\\"Z\\\"}\":{},\"v:1\":"
                    "{}}}}}}");
    assert_null(at_fields_kept(&AT_KIND_DEPLOYMENT, set, NULL, d));
    json_decref(set);
    json_decref(d);
}

static void sets_add_and_subtract(void **state)
{
    (void)state;
    json_t *a = J("{\"f:x\":{\".\":{},\"f:y\":{}},\"f:z\":{}}");
    json_t *b = J("{\"f:x\":{\"f:w\":{}},\"f:q\":{}}");
    assert_string_equal(show(at_fields_union(a, b)),
                        "{\"f:q\":{},\"f:x\":{\".\":{},\"f:w\":{},\"f:y\":{}},\"f:z\":{}}");
    assert_string_equal(show(at_fields_minus(a, b)), "{\"f:x\":{\".\":{},\"f:y\":{}},\"f:z\":{}}");
    assert_null(at_fields_common(a, b));
    json_t *whole = J("{\"f:x\":{}}"); /* as one value: all that is below it */
    assert_string_equal(show(at_fields_common(a, whole)), "{\"f:x\":{\".\":{},\"f:y\":{}}}");
    assert_string_equal(show(at_fields_minus(a, whole)), "{\"f:z\":{}}");
    json_decref(whole);
    json_decref(a);
    json_decref(b);
}

static void collect(void *ctx, const char *path)
{
    strcat(ctx, path);
    strcat(ctx, "\n");
}

static void paths_read_as_in_kubernetes(void **state)
{
    (void)state;
    json_t *set = J("{\"f:spec\":{\"f:env\":{\"k:{\\\"name\\\":\\\"A\\\"}\":{\".\":{},\"f:value\":"
                    "{}}},\"f:sites\":{\"v:\\\"s\\\"\":{}}}}");
    char out[512] = "";
    at_fields_each(set, collect, out);
    assert_string_equal(out, ".spec.env[name=\"A\"]\n.spec.env[name=\"A\"].value\n"
                             ".spec.sites[=\"s\"]\n");
    json_decref(set);
}

static void merging_knows_lists_by_their_keys(void **state)
{
    (void)state;
    json_t *d = deployment(ENV("{\"name\":\"A\",\"value\":\"1\"},{\"name\":\"B\"}"));
    json_t *applied = J("{\"spec\":" ENV("{\"name\":\"C\"},{\"name\":\"A\",\"value\":\"2\"}") "}");
    at_fields_merge(&AT_KIND_DEPLOYMENT, d, applied);
    assert_string_equal(show(json_incref(at_json_at(d, "spec.template.spec.env"))),
                        "[{\"name\":\"A\",\"value\":\"2\"},{\"name\":\"B\"},{\"name\":\"C\"}]");
    json_decref(applied);
    json_decref(d);
    json_t *p = J("{\"spec\":{\"residency\":[{\"dataClass\":\"x\",\"jurisdictions\":[\"EU\"]}]}}");
    json_t *more = J("{\"spec\":{\"residency\":[{\"dataClass\":\"x\",\"jurisdictions\":[\"US\","
                     "\"EU\"]}]}}");
    at_fields_merge(&AT_KIND_POLICY, p, more);
    assert_string_equal(
        show(json_incref(at_json_at(p, "spec"))),
        "{\"residency\":[{\"dataClass\":\"x\",\"jurisdictions\":[\"EU\",\"US\"]}]}");
    json_decref(more);
    json_decref(p);
}

static void what_is_applied_no_more_goes_unless_others_own_it(void **state)
{
    (void)state;
    json_t *before_object = J("{\"metadata\":{\"labels\":{\"a\":\"1\",\"b\":\"2\"}},\"spec\":{"
                              "\"replicas\":2,\"strategy\":{"
                              "\"maxSurge\":1},\"template\":{\"spec\":{\"env\":[{\"name\":\"A\","
                              "\"value\":\"1\"},{\"name\":"
                              "\"B\",\"value\":\"2\"}]}}}}");
    json_t *now_object = J("{\"spec\":{\"template\":{\"spec\":{\"env\":[{\"name\":\"A\"}]}}}}");
    json_t *other_object =
        J("{\"metadata\":{\"labels\":{\"b\":\"2\"}},\"spec\":{\"template\":{\"spec\":{\"env\":[{"
          "\"name\":\"B\"}]}}}}");
    const struct at_model_kind *kind = &AT_KIND_DEPLOYMENT;
    json_t *before = at_fields_of(kind, before_object);
    json_t *now = at_fields_of(kind, now_object);
    json_t *other = at_fields_of(kind, other_object);
    json_t *live = json_deep_copy(before_object);
    /* Nobody's, beside theirs: goes with the object that held it, stays in a map. */
    at_json_set_at(live, "spec.strategy.maxUnavailable", json_integer(0));
    at_json_set_at(live, "metadata.labels.nobody", json_string("x"));
    at_fields_drop(kind, live, before, now, other);
    assert_string_equal(show(live),
                        "{\"metadata\":{\"labels\":{\"b\":\"2\",\"nobody\":\"x\"}},\"spec\":{"
                        "\"template\":{\"spec\":{\"env\":[{\"name\":\"A\"},{\"name\":\"B\"}]}}}}");
    json_decref(before);
    json_decref(now);
    json_decref(other);
    json_decref(before_object);
    json_decref(now_object);
    json_decref(other_object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_has_leaves_keys_and_no_identity),
        cmocka_unit_test(a_key_that_is_left_out_has_its_default),
        cmocka_unit_test(changes_are_leaves_that_differ),
        cmocka_unit_test(what_a_client_calls_a_field_must_be_one),
        cmocka_unit_test(sets_add_and_subtract),
        cmocka_unit_test(paths_read_as_in_kubernetes),
        cmocka_unit_test(merging_knows_lists_by_their_keys),
        cmocka_unit_test(what_is_applied_no_more_goes_unless_others_own_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
