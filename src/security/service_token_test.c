#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "security/security.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW_S 1000000

struct rig {
    char dir[64];
    struct at_ca *ca;
    struct at_service_key *key;
};

static int set_up(void **state)
{
    struct rig *rig = AT_NEW(struct rig);
    snprintf(rig->dir, sizeof rig->dir, "/tmp/atoll-token-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    assert_int_equal(at_ca_open(rig->dir, at_sys_real(), &rig->ca, NULL), AT_OK);
    assert_int_equal(at_service_key_new(rig->ca, &rig->key, NULL), AT_OK);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    char path[96];
    static const char *const FILES[] = {"ca.crt", "ca.key"};
    for (size_t i = 0; i < AT_ARRAY_LEN(FILES); i++) {
        snprintf(path, sizeof path, "%s/%s", rig->dir, FILES[i]);
        unlink(path);
    }
    rmdir(rig->dir);
    at_service_key_free(rig->key);
    at_ca_free(rig->ca);
    at_free(rig);
    return 0;
}

static char *token_of(const struct at_service_key *key, const char *sub, int64_t nbf, int64_t exp)
{
    char *token = NULL;
    AT_CLEANUP(at_cleanup_json)
    json_t *claims =
        json_pack("{s:s, s:I, s:I}", "sub", sub, "nbf", (json_int_t)nbf, "exp", (json_int_t)exp);
    assert_int_equal(at_service_token_sign(key, claims, &token, NULL), AT_OK);
    return token;
}

static enum at_rc open_at(const struct at_service_key *key, const char *token, int64_t now_s)
{
    json_t *claims = NULL;
    enum at_rc rc =
        at_service_token_open(key, at_str_of(token), now_s * AT_NS_PER_S, &claims, NULL);
    assert_true((claims != NULL) == (rc == AT_OK));
    json_decref(claims);
    return rc;
}

static void what_is_signed_opens_with_every_key_of_the_same_authority(void **state)
{
    struct rig *rig = *state;
    AT_CLEANUP(at_cleanup_free) char *token = token_of(rig->key, "me", NOW_S, NOW_S + 600);
    struct at_ca *ca = NULL;
    struct at_service_key *again = NULL;
    assert_int_equal(at_ca_open(rig->dir, at_sys_real(), &ca, NULL), AT_OK); /* another server */
    assert_int_equal(at_service_key_new(ca, &again, NULL), AT_OK);
    json_t *claims = NULL;
    assert_int_equal(
        at_service_token_open(again, at_str_of(token), NOW_S * AT_NS_PER_S, &claims, NULL), AT_OK);
    assert_string_equal(at_json_str_at(claims, "sub", ""), "me");
    assert_string_equal(at_json_str_at(claims, "iss", ""), at_service_key_issuer(rig->key));
    json_decref(claims);
    at_service_key_free(again);
    at_ca_free(ca);
}

static void a_token_is_good_from_its_beginning_to_its_end(void **state)
{
    struct rig *rig = *state;
    AT_CLEANUP(at_cleanup_free) char *token = token_of(rig->key, "me", NOW_S, NOW_S + 600);
    assert_int_equal(open_at(rig->key, token, NOW_S + 599), AT_OK);
    assert_int_equal(open_at(rig->key, token, NOW_S + 600), AT_UNAUTHENTICATED);
    assert_int_equal(open_at(rig->key, token, NOW_S - 60), AT_OK); /* clocks differ a little */
    assert_int_equal(open_at(rig->key, token, NOW_S - 61), AT_UNAUTHENTICATED);
}

static void any_changed_letter_is_refused(void **state)
{
    struct rig *rig = *state;
    AT_CLEANUP(at_cleanup_free) char *token = token_of(rig->key, "me", NOW_S, NOW_S + 600);
    size_t len = strlen(token);
    for (size_t i = 0; i < len; i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        /* The last letter of a part may hold bits that do not count. */
        bool last = i + 1 == len || token[i + 1] == '.';
        if (!last) {
            assert_int_equal(open_at(rig->key, token, NOW_S), AT_UNAUTHENTICATED);
        }
        token[i] = was;
    }
    for (size_t i = 0; i < len; i++) {
        AT_CLEANUP(at_cleanup_free) char *cut = at_strndup(token, i);
        assert_int_equal(open_at(rig->key, cut, NOW_S), AT_UNAUTHENTICATED);
    }
}

static char *with_header(const char *header, const char *token)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_base64_encode(header, strlen(header), &text), AT_OK);
    size_t len = strcspn(text.data, "=");
    return at_asprintf("%.*s%s", (int)len, text.data, strchr(token, '.'));
}

static void other_algorithms_and_keys_are_refused(void **state)
{
    struct rig *rig = *state;
    AT_CLEANUP(at_cleanup_free) char *token = token_of(rig->key, "me", NOW_S, NOW_S + 600);
    static const char *const HEADERS[] = {"{\"alg\":\"none\"}",
                                          "{\"alg\":\"HS256\"}",
                                          "{\"alg\":\"ES256\"}",
                                          "{\"alg\":\"ES256\",\"kid\":\"0\"}",
                                          "[]",
                                          ""};
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADERS); i++) {
        AT_CLEANUP(at_cleanup_free) char *forged = with_header(HEADERS[i], token);
        assert_int_equal(open_at(rig->key, forged, NOW_S), AT_UNAUTHENTICATED);
    }
    void *other = NULL;
    assert_int_equal(set_up(&other), 0);
    assert_int_equal(open_at(((struct rig *)other)->key, token, NOW_S), AT_UNAUTHENTICATED);
    tear_down(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_signed_opens_with_every_key_of_the_same_authority,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_token_is_good_from_its_beginning_to_its_end, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(any_changed_letter_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_algorithms_and_keys_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
