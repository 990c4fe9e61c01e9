/* Who may come in, where time and several connections matter; the rest is in tests/e2e. */
#include "api/kit_test.h"

#define MAPS "/api/v1/namespaces/default/configmaps"

static struct at_tls_config *viewer_for(struct kit *kit, int64_t lifetime_s)
{
    static const char *const GROUPS[] = {AT_GROUP_VIEWERS, NULL};
    struct at_cert_request request = {
        .common_name = "vera", .organizations = GROUPS, .client = true, .lifetime_s = lifetime_s};
    char *cert = NULL;
    char *key = NULL;
    assert_int_equal(at_ca_issue(kit->ca, &request, &cert, &key, NULL), AT_OK);
    struct at_tls_options options = {
        .cert_pem = cert, .key_pem = key, .ca_pem = at_ca_cert_pem(kit->ca), .verify_peer = true};
    struct at_tls_config *config = NULL;
    assert_int_equal(at_tls_config_new(&options, &config, NULL), AT_OK);
    at_free(cert);
    at_free(key);
    return config;
}

static void a_certificate_that_ends_while_its_connection_is_open_is_refused(void **state)
{
    struct kit *kit = *state;
    struct at_tls_config *vera = viewer_for(kit, 2);
    int status = kit_status(kit, vera, AT_HTTP_GET, MAPS, NULL, NULL);
    assert_int_equal(status, 200);
    int64_t end = at_sys_mono_ns(at_sys_real()) + KIT_WAIT_NS;
    while (status == 200) { /* so often that the connection stays */
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(kit->loop, at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_MS);
        status = kit_status(kit, vera, AT_HTTP_GET, MAPS, NULL, NULL);
    }
    assert_int_equal(status, 401);
    at_tls_config_unref(vera);
}

static void a_token_is_no_token_of_another_sort(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, "/admin/v1/tokens", NULL,
                               "{\"user\":\"ada\",\"groups\":[\"atoll:viewers\"]}"),
                     201);
    const char *token = at_json_str_at(a.json, "token", "");
    char text[256];
    snprintf(text, sizeof text, "{\"spec\":{\"token\":\"%s\"}}", token);
    struct kit_answer review;
    assert_int_equal(kit_admin(kit, &review, AT_HTTP_POST,
                               "/apis/authentication.k8s.io/v1/tokenreviews", NULL, text),
                     201);
    assert_string_equal(at_json_str_at(review.json, "status.user.username", ""), "ada");
    answer_done(&review);
    /* It joins no machine. */
    snprintf(text, sizeof text, "{\"token\":\"%s\",\"csr\":\"x\",\"name\":\"n1\"}", token);
    assert_int_equal(kit_admin(kit, &review, AT_HTTP_POST, "/join/v1", NULL, text), 401);
    answer_done(&review);
    answer_done(&a);
}

int main(void)
{
#define EACH(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        EACH(a_certificate_that_ends_while_its_connection_is_open_is_refused),
        EACH(a_token_is_no_token_of_another_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
