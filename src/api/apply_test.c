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

/* "manager/operation/subresource", sorted; then the fields of one of them. */
static const json_t *entry_of(const struct kit_answer *a, const char *manager,
                              const char *operation)
{
    size_t i;
    json_t *entry;
    json_array_foreach(at_json_at(a->json, "metadata.managedFields"), i, entry)
    {
        if (at_streq(at_json_str_at(entry, "manager", ""), manager) &&
            at_streq(at_json_str_at(entry, "operation", ""), operation)) {
            return entry;
        }
    }
    return NULL;
}

#define NEW_WEB                                                                                    \
    "{\"metadata\":{\"name\":\"web\",\"labels\":{\"a\":\"1\"}},\"spec\":{\"replicas\":2,"          \
    "\"strategy\":{}," TEMPLATE "}}"

static void what_is_made_and_changed_plainly_is_owned(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, IN_DEFAULT "/deployments",
                               "User-Agent: make/1.2 (x)\r\n", NEW_WEB),
                     201);
    const json_t *entry = entry_of(&a, "make", "Update");
    assert_non_null(at_json_at(entry, "fieldsV1.f:metadata.f:labels.f:a"));
    assert_non_null(at_json_at(entry, "fieldsV1.f:spec.f:replicas"));
    assert_non_null(at_json_at(entry, "fieldsV1.f:spec.f:strategy.f:maxSurge")); /* defaulted */
    assert_null(at_json_at(entry, "fieldsV1.f:metadata.f:name"));
    assert_string_equal(at_json_str_at(entry, "apiVersion", ""), "atoll.dev/v1");
    assert_non_null(at_json_at(entry, "time"));
    answer_done(&a);
    /* Whoever changes a field owns it alone from then on. */
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB "?fieldManager=scaler", KIT_MERGE,
                               "{\"spec\":{\"replicas\":7}}"),
                     200);
    assert_non_null(at_json_at(entry_of(&a, "scaler", "Update"), "fieldsV1.f:spec.f:replicas"));
    assert_null(at_json_at(entry_of(&a, "make", "Update"), "fieldsV1.f:spec.f:replicas"));
    answer_done(&a);
    /* A patch without an effect changes nothing, owners neither. */
    int64_t before = at_store_rev(kit->store);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB "?fieldManager=other", KIT_MERGE,
                               "{\"spec\":{\"replicas\":7}}"),
                     200);
    answer_done(&a);
    assert_true(at_store_rev(kit->store) == before);
    assert_int_equal(apply(kit, &a, "fieldManager=m1", "\"replicas\":3," TEMPLATE), 409);
    const json_t *causes = at_json_at(a.json, "details.causes");
    assert_int_equal(json_array_size(causes), 1);
    assert_true(at_str_starts(at_str_of(at_json_str_at(json_array_get(causes, 0), "message", "")),
                              "conflict with \"scaler\" using atoll.dev/v1 at "));
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m1&force=true", "\"replicas\":3," TEMPLATE), 200);
    assert_null(entry_of(&a, "scaler", "Update"));
    answer_done(&a);
}

#define WITH_ENV(items) "\"template\":{\"spec\":{\"command\":[\"/bin/true\"],\"env\":[" items "]}}"

static void items_of_lists_with_keys_have_owners_of_their_own(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(
        apply_status(kit, "fieldManager=m1", WITH_ENV("{\"name\":\"A\",\"value\":\"1\"}")), 201);
    assert_int_equal(apply(kit, &a, "fieldManager=m2",
                           "\"template\":{\"spec\":{\"env\":[{\"name\":\"B\",\"value\":\"2\"}]}}"),
                     200);
    assert_int_equal(json_array_size(at_json_at(a.json, "spec.template.spec.env")), 2);
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m2",
                           "\"template\":{\"spec\":{\"env\":[{\"name\":\"A\",\"value\":\"x\"}]}}"),
                     409);
    assert_string_equal(
        at_json_str_at(json_array_get(at_json_at(a.json, "details.causes"), 0), "field", ""),
        ".spec.template.spec.env[name=\"A\"].value");
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m1", WITH_ENV("")), 200);
    const json_t *env = at_json_at(a.json, "spec.template.spec.env");
    assert_int_equal(json_array_size(env), 1);
    assert_string_equal(at_json_str_at(json_array_get(env, 0), "name", ""), "B");
    answer_done(&a);
    assert_int_equal(apply(kit, &a, "fieldManager=m2",
                           WITH_ENV("{\"name\":\"C\"},{\"name\":\"C\",\"value\":\"1\"}")),
                     422);
    assert_string_equal(
        at_json_str_at(json_array_get(at_json_at(a.json, "details.causes"), 0), "reason", ""),
        "FieldValueDuplicate");
    answer_done(&a);
}

static void scale_and_status_are_applied_and_owned_by_themselves(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 201);
    static const char SCALE[] =
        "{\"apiVersion\":\"autoscaling/v1\",\"kind\":\"Scale\",\"metadata\":{"
        "\"name\":\"web\"},\"spec\":{\"replicas\":5}}";
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB "/scale?fieldManager=hpa", APPLY, SCALE),
                     409);
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, WEB "/scale?fieldManager=hpa&force=true", APPLY, SCALE),
        200);
    assert_string_equal(at_json_str_at(a.json, "kind", ""), "Scale");
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 5);
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, WEB "/status?fieldManager=st", APPLY,
                  "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{"
                  "\"name\":\"web\",\"labels\":{\"no\":\"no\"}},\"spec\":{\"replicas\":9},"
                  "\"status\":{\"replicas\":2,\"updatedReplicas\":0,\"readyReplicas\":1,"
                  "\"conditions\":[{\"type\":\"X\","
                  "\"status\":\"True\"}]}}"),
        200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 5);
    assert_int_equal(at_json_int_at(a.json, "status.readyReplicas", 0), 1);
    assert_null(at_json_at(a.json, "metadata.labels"));
    const json_t *st = entry_of(&a, "st", "Apply");
    assert_string_equal(at_json_str_at(st, "subresource", ""), "status");
    assert_null(at_json_at(st, "fieldsV1.f:spec"));
    assert_non_null(at_json_at(st, "fieldsV1.f:status.f:readyReplicas"));
    const json_t *hpa = entry_of(&a, "hpa", "Apply");
    assert_string_equal(at_json_str_at(hpa, "subresource", ""), "scale");
    assert_non_null(at_json_at(hpa, "fieldsV1.f:spec.f:replicas"));
    answer_done(&a);
    /* What the status' applier applies no more goes. */
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, WEB "/status?fieldManager=st", APPLY,
                  "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Deployment\",\"metadata\":{"
                  "\"name\":\"web\"},\"status\":{\"replicas\":2,\"updatedReplicas\":0,"
                  "\"readyReplicas\":1}}"),
        200);
    assert_int_equal(json_array_size(at_json_at(a.json, "status.conditions")), 0);
    answer_done(&a);
}

static void kubectl_takes_over_what_it_applied_on_the_client_side(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(
        kit_admin(
            kit, &a, AT_HTTP_POST, IN_DEFAULT "/deployments?fieldManager=kubectl-client-side-apply",
            NULL,
            "{\"metadata\":{\"name\":\"web\",\"annotations\":{\"kubectl.kubernetes.io/"
            "last-applied-configuration\":\"{\\\"spec\\\":{\\\"replicas\\\":2}}\"}},\"spec\":{"
            "\"replicas\":2," TEMPLATE "}}"),
        201);
    answer_done(&a);
    /* The annotation says so of replicas, but not of the command; and only for kubectl. */
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":3"), 409);
    assert_int_equal(
        apply_status(kit, "fieldManager=kubectl", "\"template\":{\"spec\":{\"command\":[\"x\"]}}"),
        409);
    assert_int_equal(apply(kit, &a, "fieldManager=kubectl", "\"replicas\":3"), 200);
    const json_t *notes = at_json_at(a.json, "metadata.annotations");
    const char *last = json_string_value(
        json_object_get(notes, "kubectl.kubernetes.io/last-applied-configuration"));
    assert_non_null(strstr(last, "\"replicas\":3"));
    answer_done(&a);
}

static void a_client_may_edit_and_reset_the_owners(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "fieldManager=m1", "\"replicas\":2," TEMPLATE), 201);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB, KIT_MERGE,
                               "{\"metadata\":{\"managedFields\":null},\"spec\":{\"replicas\":7}}"),
                     200);
    assert_int_equal(json_array_size(at_json_at(a.json, "metadata.managedFields")), 2);
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, WEB, KIT_MERGE,
                  "{\"metadata\":{\"managedFields\":[{\"manager\":\"new\",\"operation\":\"Apply\","
                  "\"apiVersion\":\"atoll.dev/v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{"
                  "\"f:spec\":{\"f:replicas\":{},\"f:none\":{}}}}]}}"),
        200);
    const json_t *entry = entry_of(&a, "new", "Apply");
    assert_non_null(at_json_at(entry, "fieldsV1.f:spec.f:replicas"));
    assert_null(at_json_at(entry, "fieldsV1.f:spec.f:none"));
    assert_int_equal(json_array_size(at_json_at(a.json, "metadata.managedFields")), 1);
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, WEB, KIT_MERGE,
                               "{\"metadata\":{\"managedFields\":[{}]}}"),
                     200);
    assert_null(at_json_at(a.json, "metadata.managedFields"));
    answer_done(&a);
    /* Untracked from then on; the first apply finds what was there before it. */
    assert_int_equal(apply(kit, &a, "fieldManager=m1", "\"replicas\":2"), 409);
    const json_t *cause = json_array_get(at_json_at(a.json, "details.causes"), 0);
    assert_true(at_str_starts(at_str_of(at_json_str_at(cause, "message", "")),
                              "conflict with \"before-first-apply\" using "));
    answer_done(&a);
}

static void of_many_writers_the_oldest_become_one(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, NEW_WEB),
                     201);
    for (int i = 0; i < 14; i++) {
        char path[128];
        char body[128];
        snprintf(path, sizeof path, WEB "?fieldManager=w%d", i);
        snprintf(body, sizeof body, "{\"metadata\":{\"labels\":{\"l%d\":\"x\"}}}", i);
        assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, path, KIT_MERGE, body), 200);
    }
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, WEB, NULL, NULL), 200);
    assert_int_equal(json_array_size(at_json_at(a.json, "metadata.managedFields")), 11);
    const json_t *old = entry_of(&a, "ancient-changes", "Update");
    assert_non_null(at_json_at(old, "fieldsV1.f:metadata.f:labels.f:l0"));
    assert_non_null(at_json_at(old, "fieldsV1.f:spec.f:replicas"));
    assert_non_null(entry_of(&a, "w13", "Update"));
    answer_done(&a);
}

static void an_apply_needs_a_manager_and_a_valid_object(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(apply_status(kit, "force=true", TEMPLATE), 422);
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
        T(what_is_made_and_changed_plainly_is_owned),
        T(items_of_lists_with_keys_have_owners_of_their_own),
        T(scale_and_status_are_applied_and_owned_by_themselves),
        T(kubectl_takes_over_what_it_applied_on_the_client_side),
        T(a_client_may_edit_and_reset_the_owners),
        T(of_many_writers_the_oldest_become_one),
        T(an_apply_needs_a_manager_and_a_valid_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
