/* Instances shown as Pods, metadata alone, and pages of what a selector chooses. */
#include "api/kit_test.h"

#define PODS "/api/v1/namespaces/default/pods"
#define KIT_PARTIAL "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1\r\n"

static void make_instance(struct kit *kit, const char *name, const char *label)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"app\":\"%s\"}},\"spec\":{\"command\":"
             "[\"/bin/true\"],\"nodeName\":\"n1\",\"resources\":{\"cpu\":\"100m\"}}}",
             name, label);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, IN_DEFAULT "/instances", NULL, body), 201);
}

static void report(struct kit *kit, const char *name, const char *status)
{
    char path[200];
    char body[400];
    snprintf(path, sizeof path, IN_DEFAULT "/instances/%s/status", name);
    snprintf(body, sizeof body, "{\"status\":%s}", status);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, path, KIT_MERGE, body), 200);
}

static void an_instance_is_a_pod_too(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    make_instance(kit, "one", "a");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, PODS "/one", NULL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "Pod");
    assert_string_equal(answer_str(&a, "apiVersion"), "v1");
    assert_string_equal(answer_str(&a, "status.phase"), "Pending");
    assert_string_equal(answer_str(&a, "spec.nodeName"), "n1");
    answer_done(&a);
    report(kit, "one",
           "{\"phase\":\"Running\",\"ready\":true,\"restarts\":3,\"endpoint\":\"127.0.0.1:80\","
           "\"startedAt\":\"2026-01-01T00:00:00Z\"}");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, PODS, NULL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "PodList");
    const json_t *pod = json_array_get(at_json_at(a.json, "items"), 0);
    assert_string_equal(at_json_str_at(pod, "status.phase", ""), "Running");
    assert_string_equal(at_json_str_at(pod, "status.podIP", ""), "127.0.0.1");
    const json_t *c = json_array_get(at_json_at(pod, "status.containerStatuses"), 0);
    assert_int_equal(at_json_int_at(c, "restartCount", 0), 3);
    assert_string_equal(at_json_str_at(c, "state.running.startedAt", ""), "2026-01-01T00:00:00Z");
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, PODS, KIT_TABLE, NULL), 200);
    const json_t *cells = json_object_get(json_array_get(at_json_at(a.json, "rows"), 0), "cells");
    assert_string_equal(json_string_value(json_array_get(cells, 0)), "one");
    assert_string_equal(json_string_value(json_array_get(cells, 1)), "1/1");
    assert_string_equal(json_string_value(json_array_get(cells, 2)), "Running");
    assert_int_equal(json_integer_value(json_array_get(cells, 3)), 3);
    answer_done(&a);
}

static void pods_are_chosen_by_a_pods_fields(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    make_instance(kit, "starting", "a");
    make_instance(kit, "running", "a");
    report(kit, "starting", "{\"phase\":\"Starting\"}");
    report(kit, "running", "{\"phase\":\"Running\"}");
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_GET, PODS "?fieldSelector=status.phase%3DPending", NULL, NULL),
        200);
    assert_int_equal(json_array_size(at_json_at(a.json, "items")), 1);
    assert_string_equal(
        at_json_str_at(json_array_get(at_json_at(a.json, "items"), 0), "metadata.name", ""),
        "starting");
    answer_done(&a);
}

static void a_pod_can_be_deleted_but_not_made(void **state)
{
    struct kit *kit = *state;
    make_instance(kit, "one", "a");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_POST, PODS, NULL, "{}"), 405);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, PODS "/one", KIT_MERGE, "{}"), 405);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, PODS "/one", NULL, NULL), 200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, IN_DEFAULT "/instances/one", NULL, NULL),
                     404);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, PODS "/one", NULL, NULL), 404);
}

static void rights_to_pods_are_rights_to_instances(void **state)
{
    struct kit *kit = *state;
    struct at_tls_config *viewer = kit_identity(kit, "eve", AT_GROUP_VIEWERS);
    struct at_tls_config *editor = kit_identity(kit, "ed", AT_GROUP_EDITORS);
    struct at_tls_config *nobody = kit_identity(kit, "no", "nobodies");
    struct at_tls_config *agent = kit_identity(kit, "system:node:n1", AT_GROUP_NODES);
    make_instance(kit, "one", "a");
    assert_int_equal(kit_status(kit, nobody, AT_HTTP_GET, PODS "/one", NULL, NULL), 403);
    assert_int_equal(kit_status(kit, agent, AT_HTTP_GET, PODS, NULL, NULL), 403);
    assert_int_equal(kit_status(kit, viewer, AT_HTTP_GET, PODS "/one", NULL, NULL), 200);
    /* Who may only read must not run commands; who may is asked for a WebSocket. */
    assert_int_equal(kit_status(kit, viewer, AT_HTTP_GET, PODS "/one/exec?command=x", NULL, NULL),
                     403);
    assert_int_equal(kit_status(kit, editor, AT_HTTP_GET, PODS "/one/exec?command=x", NULL, NULL),
                     400);
    assert_int_equal(kit_status(kit, viewer, AT_HTTP_DELETE, PODS "/one", NULL, NULL), 403);
    assert_int_equal(kit_status(kit, editor, AT_HTTP_DELETE, PODS "/one", NULL, NULL), 200);
    at_tls_config_unref(viewer);
    at_tls_config_unref(editor);
    at_tls_config_unref(nobody);
    at_tls_config_unref(agent);
}

static void metadata_alone_leaves_the_rest_out(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites/edge", KIT_PARTIAL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "PartialObjectMetadata");
    assert_string_equal(answer_str(&a, "apiVersion"), "meta.k8s.io/v1");
    assert_string_equal(answer_str(&a, "metadata.labels.n"), "edge");
    assert_null(at_json_at(a.json, "spec"));
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites", KIT_PARTIAL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "PartialObjectMetadataList");
    assert_int_equal(json_array_size(at_json_at(a.json, "items")), 1);
    answer_done(&a);
    kit_start(kit, &a, NULL, AT_HTTP_GET, ATOLL "/sites?watch=true", KIT_PARTIAL, NULL);
    KIT_UNTIL(kit, a.body.len > 0 && memchr(a.body.data, '\n', a.body.len) != NULL);
    assert_non_null(strstr(a.body.data, "PartialObjectMetadata"));
    assert_null(strstr(a.body.data, "\"jurisdiction\""));
    at_http_call_cancel(kit->client, a.call);
    answer_done(&a);
}

/* Pages of limit 2 hold each chosen object once, in order; tables are paged alike. */
static void pages_with_a_selector_hold_each_object_once(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char name[8];
    for (int i = 0; i < 9; i++) {
        snprintf(name, sizeof name, "i%d", i);
        make_instance(kit, name, i % 2 == 0 ? "even" : "odd");
    }
    for (int table = 0; table < 2; table++) {
        char path[1024] = IN_DEFAULT "/instances?limit=2&labelSelector=app%3Deven";
        size_t n = 0;
        size_t pages = 0;
        while (path[0] != '\0' && pages < 10) {
            assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, path, table ? KIT_TABLE : NULL, NULL),
                             200);
            size_t here = json_array_size(at_json_at(a.json, table ? "rows" : "items"));
            assert_true(here <= 2);
            n += here;
            pages++;
            const char *next = answer_str(&a, "metadata.continue");
            path[0] = '\0';
            if (next[0] != '\0') {
                snprintf(path, sizeof path,
                         IN_DEFAULT "/instances?limit=2&labelSelector=app%%3Deven&continue=%s",
                         next);
            }
            answer_done(&a);
        }
        assert_int_equal(n, 5);
        assert_int_equal(pages, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_instance_is_a_pod_too, kit_set_up, kit_tear_down),
        cmocka_unit_test_setup_teardown(pods_are_chosen_by_a_pods_fields, kit_set_up,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(a_pod_can_be_deleted_but_not_made, kit_set_up,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(rights_to_pods_are_rights_to_instances, kit_set_up,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(metadata_alone_leaves_the_rest_out, kit_set_up,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(pages_with_a_selector_hold_each_object_once, kit_set_up,
                                        kit_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
