#include "api/route.h"
#include "core/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static enum at_rc parse(const char *path, struct api_route *route)
{
    return api_route_parse(at_str_of(path), route, NULL);
}

static void an_object_in_a_namespace_has_all_its_parts(void **state)
{
    (void)state;
    struct api_route r;
    assert_int_equal(parse("/apis/atoll.dev/v1/namespaces/prod/deployments/llama/scale", &r),
                     AT_OK);
    assert_int_equal(r.target, API_RESOURCE);
    assert_string_equal(r.kind->kind, "Deployment");
    assert_string_equal(r.ns, "prod");
    assert_string_equal(r.name, "llama");
    assert_string_equal(r.subresource, "scale");
}

static void a_collection_over_all_namespaces_has_no_namespace(void **state)
{
    (void)state;
    struct api_route r;
    assert_int_equal(parse("/api/v1/events", &r), AT_OK);
    assert_string_equal(r.kind->kind, "Event");
    assert_string_equal(r.ns, "");
    assert_string_equal(r.name, "");
}

static void a_namespace_is_an_object_and_a_place(void **state)
{
    (void)state;
    struct api_route r;
    assert_int_equal(parse("/api/v1/namespaces/prod", &r), AT_OK);
    assert_string_equal(r.kind->kind, "Namespace");
    assert_string_equal(r.name, "prod");
    assert_int_equal(parse("/api/v1/namespaces/prod/status", &r), AT_OK);
    assert_string_equal(r.kind->kind, "Namespace");
    assert_string_equal(r.subresource, "status");
    assert_int_equal(parse("/api/v1/namespaces/prod/secrets", &r), AT_OK);
    assert_string_equal(r.kind->kind, "Secret");
    assert_string_equal(r.ns, "prod");
}

static void fixed_paths_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum api_target target;
    } WANT[] = {
        {"/healthz", API_HEALTH},
        {"/readyz/", API_HEALTH},
        {"/readyz/store", API_HEALTH},
        {"/version", API_VERSION},
        {"/api", API_DISCOVERY},
        {"/apis/", API_DISCOVERY},
        {"/apis/atoll.dev", API_DISCOVERY},
        {"/apis/atoll.dev/v1", API_DISCOVERY},
        {"/openapi/v3", API_OPENAPI},
        {"/openapi/v3/api/v1", API_OPENAPI},
        {"/join/v1", API_JOIN},
        {"/join/v1/tokens", API_JOIN_TOKENS},
        {"/join/v1/renew", API_JOIN_RENEW},
        {"/join/v1/servers", API_JOIN_SERVERS},
        {"/admin/v1/backup", API_BACKUP},
        {"/admin/v1/secrets", API_SECRETS},
        {"/admin/v1/tokens", API_ACCESS_TOKENS},
        {"/admin/v1/secrets/rotate-key", API_SECRETS_ROTATE},
        {"/apis/authentication.k8s.io/v1/selfsubjectreviews", API_REVIEW},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(WANT); i++) {
        struct api_route r;
        assert_int_equal(parse(WANT[i].path, &r), AT_OK);
        assert_int_equal(r.target, WANT[i].target);
    }
}

static void what_is_not_there_is_not_found(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "/x",
        "/healthzx",
        "/apis/other.dev",
        "/apis/atoll.dev/v2",
        "/apis/atoll.dev/v1/pods",
        "/apis/atoll.dev/v1/deployments/llama",       /* needs a namespace */
        "/apis/atoll.dev/v1/namespaces/prod/sites/a", /* has none */
        "/apis/atoll.dev/v1/sites/a/b/c/d",
        "/apis//v1/namespaces",
        "/join/v1/other",
        "/metrics/x",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        struct api_route r;
        assert_int_not_equal(parse(BAD[i], &r), AT_OK);
    }
}

static void names_that_could_reach_another_key_are_refused(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "/apis/atoll.dev/v1/sites/a%2Fb", "/apis/atoll.dev/v1/sites/..",
        "/apis/atoll.dev/v1/sites/%2e",   "/apis/atoll.dev/v1/sites/a%00b",
        "/apis/atoll.dev/v1/sites/a%0a",  "/apis/atoll.dev/v1/sites/a%",
        "/apis/atoll.dev/v1/sites/%ff",   "/apis/atoll.dev/v1/sites//a",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        struct api_route r;
        assert_int_equal(parse(BAD[i], &r), AT_BAD_REQUEST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_object_in_a_namespace_has_all_its_parts),
        cmocka_unit_test(a_collection_over_all_namespaces_has_no_namespace),
        cmocka_unit_test(a_namespace_is_an_object_and_a_place),
        cmocka_unit_test(fixed_paths_are_found),
        cmocka_unit_test(what_is_not_there_is_not_found),
        cmocka_unit_test(names_that_could_reach_another_key_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
