#include "api/kit_test.h"

#define APPLY "Content-Type: application/apply-patch+yaml\r\n"
#define WEB IN_DEFAULT "/deployments/web"
#define TEMPLATE "\"template\":{\"spec\":{\"command\":[\"/bin/true\"]}}"

static int apply(struct kit *kit, struct kit_answer *a, const char *query, const char *spec)
{
    char path[256];
    char body[1024];
    snprintf(path, sizeof path, WEB "?%s", query);
    snprintf(body, sizeof body,
             "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":"
             "\"web\"},\"spec\":{%s}}",
             spec);
    return kit_admin(kit, a, AT_HTTP_PATCH, path, APPLY, body);
}

static int apply_status(struct kit *kit, const char *query, const char *spec)
{
    struct kit_answer a;
    int status = apply(kit, &a, query, spec);
    answer_done(&a);
    return status;
}

static void applying_creates_then_changes_then_leaves_alone(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply(kit, &a, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 201);
    const json_t *entry = json_array_get(at_json_at(a.json, "metadata.managedFields"), 0);
    assert_string_equal(at_json_str_at(entry, "manager", ""), "m1");
    assert_non_null(at_json_at(entry, "fieldsV1.f:spec.f:replicas"));
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m1", "\"replicas\":3," TEMPLATE), 200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 3);
    answer_done(&a);
    int64_t before = at_store_rev(kit->store);
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":3," TEMPLATE), 200);
    assert_true(at_store_rev(kit->store) == before);
}

static void two_managers_share_and_contest_fields(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 201);
    /* The same value is shared, another is a conflict that names its field. */
    assert_int_equal(apply_status(kit, "fieldManager=m2", "\"replicas\":2"), 200);
    assert_int_equal(apply(kit, &a, "fieldManager=m2", "\"replicas\":5"), 409);
    const json_t *cause = json_array_get(at_json_at(a.json, "details.causes"), 0);
    assert_string_equal(at_json_str_at(cause, "field", ""), ".spec.replicas");
    assert_string_equal(at_json_str_at(cause, "reason", ""), "FieldManagerConflict");
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m2&force=true", "\"replicas\":5"), 200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 5);
    answer_done(&a);
    /* m1 lost it, so m1's old value is the conflict now. */
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 409);
    assert_int_equal(apply_status(kit, "fieldManager=m1", TEMPLATE), 200);
}

static void what_a_manager_applies_no_more_goes_unless_another_owns_it(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char BOTH[] = "\"strategy\":{\"maxSurge\":3,\"maxUnavailable\":1}," TEMPLATE;
    assert_int_equal(apply_status(kit, "fieldManager=m1", BOTH), 201);
    assert_int_equal(apply_status(kit, "fieldManager=m2", "\"strategy\":{\"maxSurge\":3}"), 200);
    assert_int_equal(apply(kit, &a, "fieldManager=m1", TEMPLATE), 200);
    assert_int_equal(at_json_int_at(a.json, "spec.strategy.maxSurge", 0), 3);
    assert_int_equal(at_json_int_at(a.json, "spec.strategy.maxUnavailable", -1), 0); /* default */
    answer_done(&a);
}

static void a_plain_update_keeps_the_owners(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 201);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB, KIT_MERGE,
                               "{\"metadata\":{\"managedFields\":null},\"spec\":{\"replicas\":7}}"),
                     200);
    assert_int_equal(json_array_size(at_json_at(a.json, "metadata.managedFields")), 1);
    answer_done(&a);
}

static void an_apply_needs_a_manager_and_a_valid_object(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "force=true", TEMPLATE), 400);
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":-1," TEMPLATE), 422);
    assert_int_equal(
        apply_status(kit, "fieldManager=m1&fieldValidation=Strict", "\"replica\":1," TEMPLATE),
        400);
    assert_int_equal(apply_status(kit, "fieldManager=m1&dryRun=All", TEMPLATE), 201);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, WEB, NULL, NULL), 404);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, WEB "?fieldManager=m1", APPLY,
                  "apiVersion: atoll.dev/v1\nkind: Deployment\nmetadata:\n  name: web\n"
                  "spec:\n  template:\n    spec:\n      command: [/bin/true]\n"),
        201);
    answer_done(&a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        T(applying_creates_then_changes_then_leaves_alone),
        T(two_managers_share_and_contest_fields),
        T(what_a_manager_applies_no_more_goes_unless_another_owns_it),
        T(a_plain_update_keeps_the_owners),
        T(an_apply_needs_a_manager_and_a_valid_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
