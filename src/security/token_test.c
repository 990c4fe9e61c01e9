#include "core/digest.h"
#include "core/mem.h"
#include "security/security.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void a_new_token_parses_to_its_own_id_and_digest(void **state)
{
    (void)state;
    struct at_token token;
    at_token_new(at_sys_real(), "join", &token);
    char id[32];
    char digest[65];
    assert_int_equal(at_token_parse(token.text, "join", id, digest, NULL), AT_OK);
    assert_string_equal(id, token.id);
    assert_string_equal(digest, token.secret_sha256_hex);
    assert_null(strstr(token.text, digest));
}

static void two_tokens_differ(void **state)
{
    (void)state;
    struct at_token a;
    struct at_token b;
    at_token_new(at_sys_real(), "join", &a);
    at_token_new(at_sys_real(), "join", &b);
    assert_string_not_equal(a.id, b.id);
    assert_string_not_equal(a.secret_sha256_hex, b.secret_sha256_hex);
}

static void a_changed_secret_gives_another_digest(void **state)
{
    (void)state;
    struct at_token token;
    at_token_new(at_sys_real(), "join", &token);
    char *last = token.text + strlen(token.text) - 1;
    *last = *last == 'a' ? 'b' : 'a';
    char id[32];
    char digest[65];
    assert_int_equal(at_token_parse(token.text, "join", id, digest, NULL), AT_OK);
    assert_string_not_equal(digest, token.secret_sha256_hex);
}

static void malformed_tokens_are_refused(void **state)
{
    (void)state;
    struct at_token token;
    at_token_new(at_sys_real(), "join", &token);
    char shorter[160];
    memcpy(shorter, token.text, sizeof shorter);
    shorter[strlen(shorter) - 1] = '\0';
    const char *const bad[] = {"",       ".",          "..",          "join",
                               "join..", "join.zz.yy", "admin.00.11", shorter};
    for (size_t i = 0; i < AT_ARRAY_LEN(bad); i++) {
        char id[32];
        char digest[65];
        struct at_err err;
        assert_int_equal(at_token_parse(bad[i], "join", id, digest, &err), AT_UNAUTHENTICATED);
    }
    char id[32];
    char digest[65];
    assert_int_equal(at_token_parse(token.text, "gateway", id, digest, NULL), AT_UNAUTHENTICATED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_token_parses_to_its_own_id_and_digest),
        cmocka_unit_test(two_tokens_differ),
        cmocka_unit_test(a_changed_secret_gives_another_digest),
        cmocka_unit_test(malformed_tokens_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
