#include "api/kit_test.h"

static void a_created_object_can_be_read_with_defaults_and_stamps(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, KIT_DEPLOYMENT("web")),
        201);
    assert_int_equal(strlen(answer_str(&a, "metadata.uid")), 36);
    assert_string_equal(answer_str(&a, "metadata.namespace"), "default");
    assert_int_equal(at_json_int_at(a.json, "metadata.generation", 0), 1);
    assert_string_equal(answer_str(&a, "spec.template.spec.restartPolicy"), "Always");
    char version[32];
    snprintf(version, sizeof version, "%s", answer_str(&a, "metadata.resourceVersion"));
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, IN_DEFAULT "/deployments/web", NULL, NULL),
                     200);
    assert_string_equal(answer_str(&a, "metadata.resourceVersion"), version);
    answer_done(&a);
}

static void creating_twice_is_already_exists(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites", NULL,
                               "{\"metadata\":{\"name\":\"edge\"},\"spec\":{\"class\":\"edge\","
                               "\"jurisdiction\":\"DE\"}}"),
                     409);
    assert_string_equal(answer_str(&a, "reason"), "AlreadyExists");
    assert_string_equal(answer_str(&a, "message"), "sites.atoll.dev \"edge\" already exists");
    answer_done(&a);
}

static void generated_names_differ(void **state)
{
    struct kit *kit = *state;
    static const char BODY[] = "{\"metadata\":{\"generateName\":\"s-\"},\"spec\":{\"class\":"
                               "\"edge\",\"jurisdiction\":\"DE\"}}";
    struct kit_answer a;
    struct kit_answer b;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites", NULL, BODY), 201);
    assert_int_equal(kit_admin(kit, &b, AT_HTTP_POST, ATOLL "/sites", NULL, BODY), 201);
    assert_int_equal(strlen(answer_str(&a, "metadata.name")), 7);
    assert_string_not_equal(answer_str(&a, "metadata.name"), answer_str(&b, "metadata.name"));
    answer_done(&a);
    answer_done(&b);
}

static void an_invalid_object_names_its_fields_and_changes_nothing(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites", NULL,
                               "{\"metadata\":{\"name\":\"x\"},\"spec\":{\"class\":\"moon\"}}"),
                     422);
    assert_string_equal(answer_str(&a, "reason"), "Invalid");
    assert_string_equal(answer_str(&a, "details.kind"), "Site");
    const json_t *causes = at_json_at(a.json, "details.causes");
    assert_int_equal(json_array_size(causes), 2);
    assert_string_equal(at_json_str_at(json_array_get(causes, 0), "field", ""), "spec.class");
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites/x", NULL, NULL), 404);
}

static void unknown_fields_are_refused_warned_of_or_dropped(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char BODY[] = "{\"metadata\":{\"name\":\"x\"},\"spec\":{\"class\":\"edge\","
                               "\"jurisdiction\":\"DE\",\"colour\":1}}";
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites?fieldValidation=Strict", NULL, BODY), 400);
    assert_string_equal(answer_str(&a, "message"),
                        "strict decoding error: unknown field \"spec.colour\"");
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites?dryRun=All", NULL, BODY), 201);
    assert_non_null(strstr(a.headers, "299 - \"unknown field \\\"spec.colour\\\"\""));
    assert_null(at_json_at(a.json, "spec.colour"));
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/sites?fieldValidation=Ignore", NULL, BODY), 201);
    assert_null(strstr(a.headers, "299"));
    answer_done(&a);
}

static void a_dry_run_stores_nothing(void **state)
{
    struct kit *kit = *state;
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/deployments?dryRun=All", NULL,
                                KIT_DEPLOYMENT("web")),
                     201);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, IN_DEFAULT "/deployments/web", NULL, NULL),
                     404);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, KIT_DEPLOYMENT("web")),
        201);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_DELETE, IN_DEFAULT "/deployments/web?dryRun=All", NULL, NULL),
        200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, IN_DEFAULT "/deployments/web", NULL, NULL),
                     200);
}

static void a_missing_namespace_is_not_found(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, ATOLL "/namespaces/none/deployments", NULL,
                               KIT_DEPLOYMENT("web")),
                     404);
    assert_string_equal(answer_str(&a, "message"), "namespaces \"none\" not found");
    answer_done(&a);
}

static void an_update_needs_the_newest_version(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    static const char PATH[] = ATOLL "/sites/edge";
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, PATH, NULL, NULL), 200);
    at_json_set_at(a.json, "spec.jurisdiction", json_string("FR"));
    char *text = json_dumps(a.json, JSON_COMPACT);
    at_json_set_at(a.json, "metadata.resourceVersion", NULL);
    char *without = json_dumps(a.json, JSON_COMPACT);
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PUT, PATH, NULL, without), 422);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PUT, PATH, NULL, text), 200);
    assert_int_equal(at_json_int_at(a.json, "metadata.generation", 0), 2);
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PUT, PATH, NULL, text), 409);
    assert_string_equal(answer_str(&a, "reason"), "Conflict");
    answer_done(&a);
    free(text);
    free(without);
}

static void a_patch_that_changes_nothing_makes_no_revision(void **state)
{
    struct kit *kit = *state;
    kit_make_site(kit, "edge");
    int64_t before = at_store_rev(kit->store);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, ATOLL "/sites/edge", KIT_MERGE,
                                "{\"spec\":{\"jurisdiction\":\"DE\"}}"),
                     200);
    assert_true(at_store_rev(kit->store) == before);
}

static void patches_come_in_two_forms(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    static const char PATH[] = ATOLL "/sites/edge";
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, PATH, KIT_MERGE,
                               "{\"metadata\":{\"labels\":{\"n\":null,\"m\":\"1\"}}}"),
                     200);
    assert_string_equal(answer_str(&a, "metadata.labels.m"), "1");
    assert_null(at_json_at(a.json, "metadata.labels.n"));
    answer_done(&a);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, PATH, KIT_JSON_PATCH,
                  "[{\"op\":\"replace\",\"path\":\"/spec/jurisdiction\",\"value\":\"FR\"}]"),
        200);
    assert_string_equal(answer_str(&a, "spec.jurisdiction"), "FR");
    answer_done(&a);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_JSON_PATCH,
                   "[{\"op\":\"test\",\"path\":\"/spec/jurisdiction\",\"value\":\"XX\"}]"),
        422);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE,
                                "{\"metadata\":{\"resourceVersion\":\"1\"}}"),
                     409);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, PATH,
                                "Content-Type: application/strategic-merge-patch+json\r\n",
                                "{\"spec\":{\"$patch\":\"replace\"}}"),
                     415);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_PATCH, PATH, "Content-Type: text/plain\r\n", "{}"), 415);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE, "{\"metadata\":{\"name\":\"o\"}}"),
        400);
}

/* Twenty writers at once of one object: each is served, none is lost. */
static void concurrent_patches_all_arrive(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a[20];
    kit_make_site(kit, "edge");
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"metadata\":{\"labels\":{\"l%zu\":\"1\"}}}", i);
        kit_start(kit, &a[i], NULL, AT_HTTP_PATCH, ATOLL "/sites/edge", KIT_MERGE, body);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        KIT_UNTIL(kit, a[i].done);
        assert_int_equal(a[i].status, 200);
        answer_done(&a[i]);
    }
    struct kit_answer last;
    assert_int_equal(kit_admin(kit, &last, AT_HTTP_GET, ATOLL "/sites/edge", NULL, NULL), 200);
    assert_int_equal(json_object_size(at_json_at(last.json, "metadata.labels")), 21);
    answer_done(&last);
}

static void status_and_spec_are_written_apart(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, KIT_DEPLOYMENT("web")),
        201);
    static const char BOTH[] = "{\"spec\":{\"replicas\":7},\"status\":{\"replicas\":5,"
                               "\"readyReplicas\":5,\"updatedReplicas\":5}}";
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_PATCH, IN_DEFAULT "/deployments/web", KIT_MERGE, BOTH), 200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 7);
    assert_null(at_json_at(a.json, "status"));
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PATCH, IN_DEFAULT "/deployments/web/status",
                               KIT_MERGE,
                               "{\"spec\":{\"replicas\":9},\"metadata\":{\"labels\":{\"a\":\"b\"}},"
                               "\"status\":{\"replicas\":5,\"readyReplicas\":4,"
                               "\"updatedReplicas\":5}}"),
                     200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 7);
    assert_int_equal(at_json_int_at(a.json, "status.readyReplicas", 0), 4);
    assert_int_equal(at_json_int_at(a.json, "metadata.generation", 0), 2);
    assert_null(at_json_at(a.json, "metadata.labels"));
    answer_done(&a);
}

static void scale_reads_and_writes_replicas(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char PATH[] = IN_DEFAULT "/deployments/web/scale";
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/deployments", NULL, KIT_DEPLOYMENT("web")),
        201);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, PATH, NULL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "Scale");
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 2);
    at_json_set_at(a.json, "spec.replicas", json_integer(3));
    char *put = json_dumps(a.json, 0);
    answer_done(&a);
    /* kubectl scale --current-replicas sends no content type. */
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_PUT, PATH, NULL, put), 200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 3);
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PUT, PATH, NULL, put), 409);
    free(put);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE, "{\"spec\":{\"replicas\":5}}"), 200);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE, "{\"spec\":{\"replicas\":-1}}"), 422);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, IN_DEFAULT "/deployments/web", NULL, NULL),
                     200);
    assert_int_equal(at_json_int_at(a.json, "spec.replicas", 0), 5);
    answer_done(&a);
}

static void deletion_waits_for_finalizers(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char PATH[] = ATOLL "/sites/edge";
    kit_make_site(kit, "edge");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE,
                                "{\"metadata\":{\"finalizers\":[\"x.dev/y\"]}}"),
                     200);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_DELETE, PATH, NULL, NULL), 200);
    assert_true(strlen(answer_str(&a, "metadata.deletionTimestamp")) > 0);
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, PATH, NULL, NULL), 200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, PATH, KIT_MERGE,
                                "{\"metadata\":{\"finalizers\":null}}"),
                     200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, PATH, NULL, NULL), 404);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, PATH, NULL, NULL), 404);
}

static void deletion_heeds_preconditions(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, ATOLL "/sites/edge", NULL,
                                "{\"preconditions\":{\"uid\":\"other\"}}"),
                     409);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, ATOLL "/sites/edge", NULL,
                                "{\"propagationPolicy\":\"Sideways\"}"),
                     422);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_DELETE, ATOLL "/sites/edge", NULL,
                               "{\"propagationPolicy\":\"Background\"}"),
                     200);
    assert_string_equal(answer_str(&a, "status"), "Success");
    assert_string_equal(answer_str(&a, "details.name"), "edge");
    answer_done(&a);
}

static void foreground_and_orphan_leave_a_finalizer_to_the_collector(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "a");
    kit_make_site(kit, "b");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_DELETE,
                               ATOLL "/sites/a?propagationPolicy=Foreground", NULL, NULL),
                     200);
    const json_t *list = at_json_at(a.json, "metadata.finalizers");
    assert_string_equal(json_string_value(json_array_get(list, 0)), "foregroundDeletion");
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_DELETE, ATOLL "/sites/b", NULL,
                               "{\"propagationPolicy\":\"Orphan\"}"),
                     200);
    list = at_json_at(a.json, "metadata.finalizers");
    assert_string_equal(json_string_value(json_array_get(list, 0)), "orphan");
    answer_done(&a);
}

static void a_namespace_terminates_first_and_takes_nothing_new(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, "/api/v1/namespaces", NULL,
                                "{\"metadata\":{\"name\":\"team\"}}"),
                     201);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_DELETE, "/api/v1/namespaces/team", NULL, NULL),
                     200);
    assert_string_equal(answer_str(&a, "status.phase"), "Terminating");
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, ATOLL "/namespaces/team/deployments", NULL,
                                KIT_DEPLOYMENT("web")),
                     403);
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_DELETE, "/api/v1/namespaces/default", NULL, NULL), 403);
}

static void a_collection_is_deleted_by_selector(void **state)
{
    struct kit *kit = *state;
    kit_make_site(kit, "a");
    kit_make_site(kit, "b");
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_DELETE, ATOLL "/sites?labelSelector=n%3Da", NULL, NULL), 200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites/a", NULL, NULL), 404);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites/b", NULL, NULL), 200);
}

static void bad_requests_get_the_right_code(void **state)
{
    struct kit *kit = *state;
    static const struct {
        enum at_http_method method;
        const char *path, *headers, *body;
        int status;
    } CASES[] = {
        {AT_HTTP_POST, ATOLL "/sites", NULL, "{", 400},
        {AT_HTTP_POST, ATOLL "/sites", NULL, "[]", 400},
        {AT_HTTP_POST, ATOLL "/sites", NULL, NULL, 400},
        {AT_HTTP_POST, ATOLL "/sites", NULL, "{\"kind\":\"Node\"}", 400},
        {AT_HTTP_POST, ATOLL "/sites?fieldValidation=Strict", NULL, "{\"a\":1,\"a\":2}", 400},
        {AT_HTTP_POST, ATOLL "/sites", NULL, "{\"metadata\":{\"resourceVersion\":\"5\"}}", 400},
        {AT_HTTP_POST, ATOLL "/sites", "Content-Type: text/csv\r\n", "{}", 415},
        {AT_HTTP_POST, ATOLL "/sites?dryRun=Some", NULL, "{}", 422},
        {AT_HTTP_POST, ATOLL "/deployments", NULL, "{}", 405},
        {AT_HTTP_PUT, ATOLL "/sites", NULL, "{}", 405},
        {AT_HTTP_POST, ATOLL "/sites/x", NULL, "{}", 405},
        {AT_HTTP_GET, ATOLL "/pods", NULL, NULL, 404},
        {AT_HTTP_GET, ATOLL "/sites/x/scale", NULL, NULL, 404},
        {AT_HTTP_PUT, ATOLL "/sites/x", NULL, "{}", 404},
        {AT_HTTP_GET, ATOLL "/sites?limit=x", NULL, NULL, 400},
        {AT_HTTP_GET, ATOLL "/sites?continue=x", NULL, NULL, 400},
        {AT_HTTP_GET, ATOLL "/sites?labelSelector=%3D", NULL, NULL, 400},
        {AT_HTTP_GET, ATOLL "/sites?fieldSelector=spec.class%3Dedge", NULL, NULL, 400},
        {AT_HTTP_GET, ATOLL "/sites?resourceVersion=999999", NULL, NULL, 504},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct kit_answer a;
        kit_call(kit, &a, NULL, CASES[i].method, CASES[i].path, CASES[i].headers, CASES[i].body);
        if (a.status != CASES[i].status) {
            fail_msg("%s %s: %d %s", CASES[i].path, CASES[i].body != NULL ? CASES[i].body : "",
                     a.status, a.body.data);
        }
        assert_string_equal(answer_str(&a, "kind"), "Status");
        assert_int_equal(at_json_int_at(a.json, "code", 0), a.status);
        assert_true(strlen(answer_str(&a, "message")) > 0);
        answer_done(&a);
    }
}

static void a_body_over_the_limit_is_refused(void **state)
{
    struct kit *kit = *state;
    size_t len = ((size_t)3 << 20) + 100;
    char *body = at_alloc(len + 1);
    memset(body, ' ', len);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, ATOLL "/sites", NULL, body), 413);
    at_free(body);
}

static void a_secret_keeps_data_only(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, "/api/v1/namespaces/default/secrets", NULL,
                               "{\"metadata\":{\"name\":\"s\"},\"stringData\":{\"k\":\"hello\"}}"),
                     201);
    assert_string_equal(answer_str(&a, "data.k"), "aGVsbG8=");
    assert_null(at_json_at(a.json, "stringData"));
    answer_done(&a);
}

static void a_field_named_twice_is_refused_warned_of_or_passed_over(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char BODY[] = "{\"metadata\":{\"name\":\"c\"},\"data\":{\"a\":\"1\",\"a\":\"2\"}}";
    static const char PATH[] = "/api/v1/namespaces/default/configmaps?dryRun=All&fieldValidation=";
    char path[128];
    snprintf(path, sizeof path, "%sStrict", PATH);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, path, NULL, BODY), 400);
    assert_string_equal(answer_str(&a, "message"),
                        "strict decoding error: duplicate field \"data.a\"");
    answer_done(&a);
    snprintf(path, sizeof path, "%sWarn", PATH);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, path, NULL, BODY), 201);
    assert_non_null(strstr(a.headers, "299 - \"duplicate field \\\"data.a\\\"\""));
    assert_string_equal(answer_str(&a, "data.a"), "2");
    answer_done(&a);
    snprintf(path, sizeof path, "%sIgnore", PATH);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, path, NULL, BODY), 201);
    assert_null(strstr(a.headers, "Warning"));
    answer_done(&a);
}

static void what_no_client_takes_is_not_acceptable(void **state)
{
    struct kit *kit = *state;
    static const struct {
        const char *accept;
        int status;
    } ROWS[] = {
        {"application/json", 200},
        {"*/*", 200},
        {"text/html,application/xhtml+xml,*/*;q=0.8", 200},
        {"application/vnd.kubernetes.protobuf, application/json", 200},
        {"application/json;as=Table;v=v1;g=meta.k8s.io", 200},
        {"application/vnd.kubernetes.protobuf", 406},
        {"application/json;as=Unheard;v=v1", 406},
        {"application/yaml", 406},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        char header[128];
        snprintf(header, sizeof header, "Accept: %s\r\n", ROWS[i].accept);
        assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, ATOLL "/sites", header, NULL),
                         ROWS[i].status);
    }
    assert_int_equal(
        kit_status(kit, NULL, AT_HTTP_POST, ATOLL "/sites", "Content-Type: text/xml\r\n", "<a/>"),
        415);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        T(a_created_object_can_be_read_with_defaults_and_stamps),
        T(creating_twice_is_already_exists),
        T(generated_names_differ),
        T(an_invalid_object_names_its_fields_and_changes_nothing),
        T(unknown_fields_are_refused_warned_of_or_dropped),
        T(a_dry_run_stores_nothing),
        T(a_missing_namespace_is_not_found),
        T(an_update_needs_the_newest_version),
        T(a_patch_that_changes_nothing_makes_no_revision),
        T(patches_come_in_two_forms),
        T(concurrent_patches_all_arrive),
        T(status_and_spec_are_written_apart),
        T(scale_reads_and_writes_replicas),
        T(deletion_waits_for_finalizers),
        T(deletion_heeds_preconditions),
        T(foreground_and_orphan_leave_a_finalizer_to_the_collector),
        T(a_namespace_terminates_first_and_takes_nothing_new),
        T(a_collection_is_deleted_by_selector),
        T(bad_requests_get_the_right_code),
        T(a_body_over_the_limit_is_refused),
        T(a_secret_keeps_data_only),
        T(a_field_named_twice_is_refused_warned_of_or_passed_over),
        T(what_no_client_takes_is_not_acceptable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
