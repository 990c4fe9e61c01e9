#include "client/join.h"
#include "core/mem.h"
#include "core/str.h"
#include "net/http_server.h"
#include "security/security.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define WAIT_NS (20 * AT_NS_PER_S)

/* A control plane that knows how to sign, over TLS with a CA of its own. */
struct kit {
    struct at_sys sys; /* the real one, but for a clock that can be put forward */
    int64_t ahead_ns;
    struct at_loop *loop;
    struct at_ca *ca;
    struct at_tls_config *tls;
    struct at_http_server *server;
    char *dir, *url, *pin;
    int64_t lifetime_s; /* of what it signs */
    int refuse;         /* so many requests are refused first */
    int joins, renewals;
    char renewed_by[256]; /* who asked for the last renewal */

    struct at_join *join;
    int told;
    enum at_rc rc;
    struct at_client *client;
    char site[64];
    struct at_err err;
};

static void turn_until_told(struct kit *k)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (k->told == 0) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(k->loop, at_sys_mono_ns(at_sys_real()) + 50 * AT_NS_PER_MS);
    }
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct kit *k = ctx;
    struct at_str body = at_http_request_body(ex);
    struct at_str path = at_http_request(ex)->path;
    AT_CLEANUP(at_cleanup_json) json_t *ask = NULL;
    AT_CLEANUP(at_cleanup_free) char *cert = NULL;
    assert_int_equal(at_json_parse(body.ptr, body.len, &ask, NULL), AT_OK);
    bool renewal = path.len == strlen("/join/v1/renew");
    if (renewal) {
        k->renewals++;
        snprintf(k->renewed_by, sizeof k->renewed_by, "%s", at_http_peer(ex)->common_name);
    } else {
        k->joins++;
    }
    if (k->refuse > 0) {
        static const char REFUSAL[] =
            "{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Unauthorized\",\"code\":401,"
            "\"message\":\"the token was used already\"}";
        k->refuse--;
        at_http_respond(ex, 401, "application/json", NULL, REFUSAL, strlen(REFUSAL));
        return;
    }
    struct at_cert_request request = {
        .common_name = "system:node:n1", .client = true, .lifetime_s = k->lifetime_s};
    assert_int_equal(at_ca_sign_csr(k->ca, at_json_str_at(ask, "csr", ""), &request, &cert, NULL),
                     AT_OK);
    AT_CLEANUP(at_cleanup_json)
    json_t *answer = renewal ? json_pack("{s:s}", "certificate", cert)
                             : json_pack("{s:s, s:s, s:s}", "certificate", cert, "ca",
                                         at_ca_cert_pem(k->ca), "site", "edge");
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_json_dump(answer, &text), AT_OK);
    at_http_respond(ex, 200, "application/json", NULL, text.data, text.len);
}

static void on_ready(void *ctx, enum at_rc rc, struct at_client *client, const char *site,
                     const struct at_err *err)
{
    struct kit *k = ctx;
    k->told++;
    k->rc = rc;
    k->client = client;
    snprintf(k->site, sizeof k->site, "%s", site != NULL ? site : "");
    if (err != NULL) {
        k->err = *err;
    }
}

static enum at_rc begin(struct kit *k, const char *token, const char *pin, const char *name)
{
    at_join_free(k->join);
    k->join = NULL;
    k->told = 0;
    struct at_join_options options = {.loop = k->loop,
                                      .server = k->url,
                                      .role = "agent",
                                      .name = name,
                                      .token = token,
                                      .ca_pin = pin,
                                      .state_dir = k->dir,
                                      .renew_min_ns = 20 * AT_NS_PER_MS,
                                      .on_ready = on_ready,
                                      .ctx = k};
    return at_join_start(&options, &k->join, &k->err);
}

static int64_t wall_ahead(void *ctx)
{
    struct kit *k = ctx;
    return at_sys_wall_ns(at_sys_real()) + k->ahead_ns;
}

static int setup(void **state)
{
    struct kit *k = AT_NEW(struct kit);
    k->sys = *at_sys_real(); /* whose other functions need no ctx */
    k->sys.ctx = k;
    k->sys.wall_ns = wall_ahead;
    const char *base = getenv("TMPDIR");
    k->dir = mkdtemp(at_asprintf("%s/atoll-join-XXXXXX", base != NULL ? base : "/tmp"));
    assert_non_null(k->dir);
    k->loop = at_loop_new(&k->sys);
    k->lifetime_s = 3600;
    AT_CLEANUP(at_cleanup_free) char *pki = at_asprintf("%s/pki", k->dir);
    assert_int_equal(at_ca_open(pki, at_sys_real(), &k->ca, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_free) char *cert = NULL;
    AT_CLEANUP(at_cleanup_free) char *key = NULL;
    const char *const addresses[] = {"127.0.0.1", NULL};
    struct at_cert_request request = {
        .common_name = "server", .ip_addresses = addresses, .server = true, .lifetime_s = 3600};
    assert_int_equal(at_ca_issue(k->ca, &request, &cert, &key, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_free) char *chain = at_asprintf("%s%s", cert, at_ca_cert_pem(k->ca));
    struct at_tls_options tls = {
        .is_server = true, .cert_pem = chain, .key_pem = key, .ca_pem = at_ca_cert_pem(k->ca)};
    assert_int_equal(at_tls_config_new(&tls, &k->tls, NULL), AT_OK);
    struct at_http_server_options server = {.listen = "127.0.0.1:0",
                                            .tls = k->tls,
                                            .body_bytes_max = 1 << 20,
                                            .connections_max = 16,
                                            .idle_timeout_ns = WAIT_NS,
                                            .head_timeout_ns = WAIT_NS,
                                            .handler = handle,
                                            .ctx = k};
    assert_int_equal(at_http_server_new(k->loop, &server, &k->server, NULL), AT_OK);
    k->url = at_asprintf("https://%s", at_http_server_addr(k->server));
    k->pin = at_asprintf("sha256:%s", at_ca_pin_sha256_hex(k->ca));
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kit *k = *state;
    at_join_free(k->join);
    at_http_server_free(k->server);
    at_tls_config_unref(k->tls);
    at_ca_free(k->ca);
    at_loop_free(k->loop);
    assert_int_equal(at_tree_remove(k->dir, NULL), AT_OK);
    at_free(k->dir);
    at_free(k->url);
    at_free(k->pin);
    at_free(k);
    return 0;
}

static void joined_once_it_goes_on_with_what_it_stored(void **state)
{
    struct kit *k = *state;
    assert_int_equal(begin(k, "t.1.secret", k->pin, "n1"), AT_OK);
    turn_until_told(k);
    assert_int_equal(k->rc, AT_OK);
    assert_non_null(k->client);
    assert_string_equal(k->site, "edge");
    AT_CLEANUP(at_cleanup_free) char *file = at_asprintf("%s/identity.json", k->dir);
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(begin(k, NULL, NULL, "n1"), AT_OK);
    turn_until_told(k);
    assert_int_equal(k->rc, AT_OK);
    assert_string_equal(k->site, "edge");
    assert_int_equal(k->joins, 1);
}

static void a_stored_certificate_of_another_name_or_ca_is_not_used(void **state)
{
    struct kit *k = *state;
    assert_int_equal(begin(k, "t.1.secret", k->pin, "n1"), AT_OK);
    turn_until_told(k);
    assert_int_equal(begin(k, NULL, NULL, "n2"), AT_INVALID);
    assert_non_null(strstr(k->err.msg, "--token-file"));
    char other[7 + 64 + 1] = "sha256:";
    memset(other + 7, 'a', 64);
    assert_int_equal(begin(k, NULL, other, "n1"), AT_INVALID);
}

static void an_expired_certificate_is_not_used(void **state)
{
    struct kit *k = *state;
    assert_int_equal(begin(k, "t.1.secret", k->pin, "n1"), AT_OK);
    turn_until_told(k);
    k->ahead_ns = 2 * 3600 * AT_NS_PER_S;
    assert_int_equal(begin(k, NULL, NULL, "n1"), AT_INVALID);
}

static void a_refusal_is_told_with_the_servers_words(void **state)
{
    struct kit *k = *state;
    k->refuse = 1;
    assert_int_equal(begin(k, "t.1.secret", k->pin, "n1"), AT_OK);
    turn_until_told(k);
    assert_int_equal(k->rc, AT_UNAUTHENTICATED);
    assert_non_null(strstr(k->err.msg, "the token was used already"));
    assert_null(k->client);
    assert_int_equal(k->joins, 1); /* it is not tried again */
}

static void a_malformed_pin_is_named(void **state)
{
    struct kit *k = *state;
    assert_int_equal(begin(k, "t.1.secret", "sha256:12", "n1"), AT_INVALID);
    assert_string_equal(k->err.field, "ca-pin");
}

static void a_server_of_another_ca_is_refused(void **state)
{
    struct kit *k = *state;
    char other[7 + 64 + 1] = "sha256:";
    memset(other + 7, 'a', 64);
    assert_int_equal(begin(k, "t.1.secret", other, "n1"), AT_OK);
    turn_until_told(k);
    assert_int_not_equal(k->rc, AT_OK);
    assert_int_equal(k->joins, 0); /* it never saw the token */
}

static void it_renews_before_the_certificate_ends_and_tries_again_when_refused(void **state)
{
    struct kit *k = *state;
    k->lifetime_s = 3;
    assert_int_equal(begin(k, "t.1.secret", k->pin, "n1"), AT_OK);
    turn_until_told(k);
    AT_CLEANUP(at_cleanup_free) char *file = at_asprintf("%s/identity.json", k->dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf before = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf after = {0};
    assert_int_equal(at_file_read(file, 100000, &before, NULL), AT_OK);
    k->refuse = 1;
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (k->renewals < 2 || k->refuse > 0) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        k->lifetime_s = 3600;
        at_loop_turn(k->loop, at_sys_mono_ns(at_sys_real()) + 50 * AT_NS_PER_MS);
    }
    do { /* the answer to the second one */
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(k->loop, at_sys_mono_ns(at_sys_real()) + 50 * AT_NS_PER_MS);
        at_buf_clear(&after);
        assert_int_equal(at_file_read(file, 100000, &after, NULL), AT_OK);
    } while (strcmp(before.data, after.data) == 0);
    assert_string_equal(k->renewed_by, "system:node:n1");
    assert_int_equal(k->told, 1);
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    assert_int_equal(at_json_parse(after.data, after.len, &all, NULL), AT_OK);
    int64_t expiry = 0;
    assert_int_equal(at_cert_expiry(at_json_str_at(all, "certificate", ""), &expiry, NULL), AT_OK);
    assert_true(expiry > at_sys_wall_ns(at_sys_real()) + 3000 * AT_NS_PER_S);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(joined_once_it_goes_on_with_what_it_stored),
        TEST(a_stored_certificate_of_another_name_or_ca_is_not_used),
        TEST(an_expired_certificate_is_not_used),
        TEST(a_refusal_is_told_with_the_servers_words),
        TEST(a_malformed_pin_is_named),
        TEST(a_server_of_another_ca_is_refused),
        TEST(it_renews_before_the_certificate_ends_and_tries_again_when_refused),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
