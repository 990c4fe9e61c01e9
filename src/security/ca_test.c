#include "core/buf.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"
#include "security/security.h"
#include "sys/file.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    struct at_ca *ca;
};

static int set_up(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    strcpy(f->dir, "/tmp/atoll-ca-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(at_ca_open(f->dir, at_sys_real(), &f->ca, NULL), AT_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    at_ca_free(f->ca);
    assert_int_equal(at_tree_remove(f->dir, NULL), AT_OK);
    at_free(f);
    return 0;
}

static X509 *read_cert(const char *pem, int index)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = NULL;
    for (int i = 0; i <= index; i++) {
        X509_free(cert);
        cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    }
    BIO_free(bio);
    return cert;
}

static int verify(const char *ca_pem, const char *cert_pem, int purpose, const char *host)
{
    X509 *ca = read_cert(ca_pem, 0);
    X509 *cert = read_cert(cert_pem, 0);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_add_cert(store, ca);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_STORE_CTX_init(ctx, store, cert, NULL);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_STORE_CTX_set_purpose(ctx, purpose);
    if (host != NULL) {
        X509_VERIFY_PARAM_set1_host(param, host, 0);
    }
    int ok = X509_verify_cert(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(cert);
    X509_free(ca);
    return ok;
}

static void opening_twice_gives_the_same_authority(void **state)
{
    struct fixture *f = *state;
    struct at_ca *again = NULL;
    assert_int_equal(at_ca_open(f->dir, at_sys_real(), &again, NULL), AT_OK);
    assert_string_equal(at_ca_cert_pem(f->ca), at_ca_cert_pem(again));
    assert_string_equal(at_ca_pin_sha256_hex(f->ca), at_ca_pin_sha256_hex(again));
    assert_int_equal(strlen(at_ca_pin_sha256_hex(f->ca)), 64);
    at_ca_free(again);
}

static void the_key_file_is_for_its_owner_only(void **state)
{
    struct fixture *f = *state;
    char path[96];
    snprintf(path, sizeof path, "%s/ca.key", f->dir);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_foreign_key_is_refused_at_open(void **state)
{
    struct fixture *f = *state;
    char path[96];
    char *csr = NULL;
    char *key = NULL;
    assert_int_equal(at_csr_new("x", &csr, &key, NULL), AT_OK);
    snprintf(path, sizeof path, "%s/ca.key", f->dir);
    assert_int_equal(at_file_write_atomic(path, key, strlen(key), 0600, NULL), AT_OK);
    struct at_ca *again = NULL;
    struct at_err err;
    assert_int_equal(at_ca_open(f->dir, at_sys_real(), &again, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "ca.key"));
    at_free(csr);
    at_free(key);
}

static void a_server_certificate_verifies_and_carries_the_authority(void **state)
{
    struct fixture *f = *state;
    const char *const dns[] = {"localhost", "atoll.example", NULL};
    const char *const ips[] = {"127.0.0.1", "::1", NULL};
    struct at_cert_request request = {.common_name = "atoll-server",
                                      .dns_names = dns,
                                      .ip_addresses = ips,
                                      .server = true,
                                      .lifetime_s = 3600};
    char *cert = NULL;
    char *key = NULL;
    assert_int_equal(at_ca_issue(f->ca, &request, &cert, &key, NULL), AT_OK);
    const char *ca_pem = at_ca_cert_pem(f->ca);
    assert_int_equal(verify(ca_pem, cert, X509_PURPOSE_SSL_SERVER, "atoll.example"), 1);
    assert_int_equal(verify(ca_pem, cert, X509_PURPOSE_SSL_SERVER, "evil.example"), 0);
    assert_int_equal(verify(ca_pem, cert, X509_PURPOSE_SSL_CLIENT, NULL), 0);
    assert_non_null(strstr(cert, ca_pem));
    at_free(cert);
    at_free(key);
}

static void a_signed_request_gets_the_names_that_the_server_says(void **state)
{
    struct fixture *f = *state;
    char *csr = NULL;
    char *key = NULL;
    char *cert = NULL;
    assert_int_equal(at_csr_new("system:masters-please", &csr, &key, NULL), AT_OK);
    char name[200] = "system:node:";
    memset(name + strlen(name), 'n', 150); /* longer than OpenSSL's default of 64 */
    const char *const orgs[] = {AT_GROUP_NODES, "atoll:site:edge", NULL};
    struct at_cert_request request = {
        .common_name = name, .organizations = orgs, .client = true, .lifetime_s = 3600};
    assert_int_equal(at_ca_sign_csr(f->ca, csr, &request, &cert, NULL), AT_OK);
    assert_int_equal(verify(at_ca_cert_pem(f->ca), cert, X509_PURPOSE_SSL_CLIENT, NULL), 1);
    X509 *x = read_cert(cert, 0);
    char text[400];
    X509_NAME_oneline(X509_get_subject_name(x), text, sizeof text);
    assert_non_null(strstr(text, name));
    assert_non_null(strstr(text, "O=system:nodes"));
    assert_non_null(strstr(text, "O=atoll:site:edge"));
    assert_null(strstr(text, "masters"));
    X509_free(x);
    int64_t expiry = 0;
    int64_t now = at_sys_wall_ns(at_sys_real());
    assert_int_equal(at_cert_expiry(cert, &expiry, NULL), AT_OK);
    assert_true(expiry > now + 3590 * AT_NS_PER_S);
    assert_true(expiry <= now + 3600 * AT_NS_PER_S);
    at_free(csr);
    at_free(key);
    at_free(cert);
}

static void a_request_with_a_broken_signature_is_refused(void **state)
{
    struct fixture *f = *state;
    char *csr = NULL;
    char *key = NULL;
    assert_int_equal(at_csr_new("x", &csr, &key, NULL), AT_OK);
    struct at_cert_request request = {.common_name = "n", .client = true, .lifetime_s = 60};
    BIO *bio = BIO_new_mem_buf(csr, -1);
    X509_REQ *req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509_REQ_set_pubkey(req, other);
    BIO *out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509_REQ(out, req);
    BIO_write(out, "", 1);
    char *forged = NULL;
    BIO_get_mem_data(out, &forged);
    char *cert = NULL;
    struct at_err err;
    assert_int_equal(at_ca_sign_csr(f->ca, forged, &request, &cert, &err), AT_BAD_REQUEST);
    assert_int_equal(at_ca_sign_csr(f->ca, "nonsense", &request, &cert, &err), AT_BAD_REQUEST);
    assert_null(cert);
    EVP_PKEY_free(other);
    X509_REQ_free(req);
    BIO_free(bio);
    BIO_free(out);
    at_free(csr);
    at_free(key);
}

static void a_certificate_never_outlives_its_authority(void **state)
{
    struct fixture *f = *state;
    struct at_cert_request request = {
        .common_name = "n", .client = true, .lifetime_s = INT64_C(100) * 365 * 24 * 3600};
    char *cert = NULL;
    char *key = NULL;
    assert_int_equal(at_ca_issue(f->ca, &request, &cert, &key, NULL), AT_OK);
    int64_t leaf = 0;
    int64_t ca = 0;
    assert_int_equal(at_cert_expiry(cert, &leaf, NULL), AT_OK);
    assert_int_equal(at_cert_expiry(at_ca_cert_pem(f->ca), &ca, NULL), AT_OK);
    assert_true(leaf == ca);
    at_free(cert);
    at_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(opening_twice_gives_the_same_authority, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_key_file_is_for_its_owner_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_foreign_key_is_refused_at_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_certificate_verifies_and_carries_the_authority,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signed_request_gets_the_names_that_the_server_says,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_request_with_a_broken_signature_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_certificate_never_outlives_its_authority, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
