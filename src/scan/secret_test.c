/* What is a secret, and what only looks like one. Both lists are grown by what was got wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "scan/scan_priv.h"

struct row {
    const char *name, *value;
};

/* Put together here, so that this file holds none of them whole. */
#define AWS                                                                                        \
    "AKIA"                                                                                         \
    "IOSFODNN7RTLQXW2"
#define GITHUB                                                                                     \
    "ghp_"                                                                                         \
    "16C7e42F292c6912E7710c838347Ae178B4a"
#define HUGGING                                                                                    \
    "hf_"                                                                                          \
    "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
#define JWT                                                                                        \
    "eyJhbGciOi"                                                                                   \
    "JIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc"

static const struct row SECRETS[] = {
    {"X", AWS},
    {"X", "key is " AWS " today"},
    {"X", GITHUB},
    {"", HUGGING},
    {"X", JWT},
    {"X", "sk-"
          "proj-"
          "T3BlbkFJabcdefghijklmnopqrstuvwxyz"},
    {"X", "sk-"
          "ant-"
          "api03-abcdefghijklmnopqrstuvwxyz0123456789"},
    {"X", "xoxb-"
          "123456789012-abcdefghijklmnop"},
    {"X", "glpat-"
          "abcdefghijklmnopqrst"},
    {"X", "-----BEGIN "
          "RSA PRIVATE KEY-----\nMIIE\n"},
    {"X", "-----BEGIN "
          "PRIVATE KEY-----\nMIIE\n"},
    {"DATABASE_URL", "postgres://app:hunter22@db.internal:5432/app"},
    {"X", "Authorization: Bearer abcdef0123456789"},
    {"PASSWORD", "hunter2"},
    {"DB_PASSWORD", "correct horse"},
    {"POSTGRES_PASSWORD", "postgres"},
    {"MYSQL_PWD", "changeme"},
    {"PGPASSWORD", "s3cr3t"},
    {"dbPassword", "hunter22"},
    {"API_KEY", "0123456789abcdef"},
    {"apiKey", "0123456789abcdef"},
    {"--api-key", "0123456789abcdef"},
    {"CLIENT_SECRET", "abcd1234"},
    {"SECRET_KEY_BASE", "0f1e2d3c4b5a"},
    {"HF_TOKEN", "abcdefgh"},
    {"AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzzzz"},
    {"PASSWORD_PROD", "hunter2"},
    {"STRANGE", "wJ4lrXUtnFE8MIK7MDE3NGbPx2RfiCY9q"},
};

static const struct row ORDINARY[] = {
    {"MAX_TOKENS", "4096"},
    {"MAX_TOKEN", "4096000"},
    {"EOS_TOKEN", "</s>"},
    {"PAD_TOKEN", "[PAD]"},
    {"BOS_TOKEN", "begin"},
    {"STOP_TOKEN", "###END###"},
    {"TOKENIZERS_PARALLELISM", "false"},
    {"TOKENIZER", "bert-base-uncased"},
    {"TOKEN_FILE", "/var/run/secrets/token"},
    {"PASSWORD_FILE", "/run/secrets/db"},
    {"DB_PASSWORD", "$(DB_PASSWORD)"},
    {"DB_PASSWORD", "${DB_PASSWORD}"},
    {"DB_PASSWORD", ""},
    {"DB_PASSWORD", "<set me>"},
    {"DB_PASSWORD", "{{ .Values.password }}"},
    {"DB_PASSWORD", "vault:kv/db#password"},
    {"DB_PASSWORD", "********"},
    {"API_KEY", "REPLACE_ME"},
    {"API_KEY", "your-api-key"},
    {"SECRET_NAME", "database"},
    {"SECRET_REF", "database/password"},
    {"KEY", "name"},
    {"SORT_KEY", "created_at"},
    {"PARTITION_KEY", "customer_id"},
    {"PRIMARY_KEY", "identifier"},
    {"PUBLIC_KEY", "abcdef"},
    {"MONKEY", "business"},
    {"AUTH", "oidc"},
    {"AUTH_MODE", "token"},
    {"AUTHOR", "someone"},
    {"PASSWORD_MIN_LENGTH", "12"},
    {"TOKEN_TTL", "3600"},
    {"TOKEN_URL", "https://login.example.org/token"},
    {"MODEL", "TheBloke/Llama-2-7B-Chat-GGUF"},
    {"MODEL", "meta-llama/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"},
    {"GIT_SHA", "356a192b7913b04c54574d18c28d46e6395428ab"},
    {"DIGEST", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
    {"ID", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"},
    {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    {"LD_LIBRARY_PATH", "/usr/local/cuda-12.2/lib64:/usr/lib/x86_64-linux-gnu"},
    {"URL", "https://example.org/a/b?c=d"},
    {"URL", "http://user@host/"},
    {"URL", "postgres://app:$(PASSWORD)@db/app"},
    {"JAVA_OPTS", "-XX:+UseG1GC -Xmx2g -Dcom.sun.management.jmxremote.port=9010"},
    {"HANDLER", "OrganizationInvitationNotificationHandlerFactory2"},
    {"NCCL_SOCKET_IFNAME", "eth0"},
    {"CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"},
    {"AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"},
    {"PROMPT", "sk-learn is a library, and skip-connection-networks-are-fine"},
    {"X", "task-0123456789012345678901234567890123456789"},
    {"KEYWORDS", "secret,password,token"},
    {"CERT", "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUJ8B7qL9k3v\n"},
};

static void each_of_these_is_a_secret(void **state)
{
    (void)state;
    for (size_t i = 0; i < AT_ARRAY_LEN(SECRETS); i++) {
        struct scan_secret secret = {0};
        if (!scan_secret(at_str_of(SECRETS[i].name), at_str_of(SECRETS[i].value), &secret)) {
            fail_msg("%s is taken for no secret", SECRETS[i].name);
        }
        assert_non_null(secret.what);
    }
}

static void none_of_these_is_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < AT_ARRAY_LEN(ORDINARY); i++) {
        struct scan_secret secret = {0};
        if (scan_secret(at_str_of(ORDINARY[i].name), at_str_of(ORDINARY[i].value), &secret)) {
            fail_msg("%s=%s is taken for %s", ORDINARY[i].name, ORDINARY[i].value, secret.what);
        }
    }
}

static void a_known_shape_is_worse_than_a_name_and_that_than_randomness(void **state)
{
    (void)state;
    struct scan_secret shape, name, random;
    assert_true(scan_secret(at_str_of("X"), at_str_of(AWS), &shape));
    assert_true(scan_secret(at_str_of("PASSWORD"), at_str_of("hunter2"), &name));
    assert_true(
        scan_secret(at_str_of("X"), at_str_of(SECRETS[AT_ARRAY_LEN(SECRETS) - 1].value), &random));
    assert_true(shape.severity > name.severity);
    assert_true(name.severity > random.severity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_of_these_is_a_secret),
        cmocka_unit_test(none_of_these_is_one),
        cmocka_unit_test(a_known_shape_is_worse_than_a_name_and_that_than_randomness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
