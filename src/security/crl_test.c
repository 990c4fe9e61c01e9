#include "security/crl.h"

#include "core/digest.h"
#include "core/mem.h"
#include "security/x509_priv.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct authority {
    EVP_PKEY *key;
    X509 *cert;
    char *pem;
    char name[AT_SHA256_HEX_BYTES];
};

static char *text_of(BIO *bio)
{
    char *text = at_x509_bio_text(bio);
    BIO_free(bio);
    return text;
}

static struct authority authority_new(const char *name)
{
    struct authority a = {.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    unsigned char *der = NULL;
    X509_set_version(a.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(a.cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(a.cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(a.cert), 3600);
    at_x509_name_add(X509_get_subject_name(a.cert), NID_commonName, name);
    X509_set_issuer_name(a.cert, X509_get_subject_name(a.cert));
    X509_set_pubkey(a.cert, a.key);
    assert_true(X509_sign(a.cert, a.key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, a.cert);
    a.pem = text_of(bio);
    int len = i2d_X509_NAME(X509_get_subject_name(a.cert), &der);
    at_sha256_hex(der, (size_t)len, a.name);
    OPENSSL_free(der);
    return a;
}

static void authority_done(struct authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->cert);
    at_free(a->pem);
}

/* A list that revokes the serial numbers (hexadecimal). */
static char *list_pem(const struct authority *issuer, const struct authority *signer,
                      const char *const *serials)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    X509_CRL_set_version(list, X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer->cert));
    X509_CRL_set1_lastUpdate(list, now);
    X509_CRL_set1_nextUpdate(list, now);
    for (size_t i = 0; serials[i] != NULL; i++) {
        BIGNUM *number = NULL;
        X509_REVOKED *entry = X509_REVOKED_new();
        BN_hex2bn(&number, serials[i]);
        ASN1_INTEGER *serial = BN_to_ASN1_INTEGER(number, NULL);
        X509_REVOKED_set_serialNumber(entry, serial);
        X509_REVOKED_set_revocationDate(entry, now);
        X509_CRL_add0_revoked(list, entry);
        ASN1_INTEGER_free(serial);
        BN_free(number);
    }
    assert_true(X509_CRL_sign(list, signer->key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509_CRL(bio, list);
    X509_CRL_free(list);
    ASN1_TIME_free(now);
    return text_of(bio);
}

static void lists_revoke_what_their_own_issuer_made(void **state)
{
    (void)state;
    static const char *const SERIALS[] = {"0A1B", "7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", NULL};
    struct authority one = authority_new("one");
    struct authority two = authority_new("two");
    AT_CLEANUP(at_cleanup_free) char *text = list_pem(&one, &one, SERIALS);
    AT_CLEANUP(at_cleanup_free) char *both = at_asprintf("%s%s", two.pem, one.pem);
    struct at_crl *crl = NULL;
    struct at_err err = {0};
    assert_int_equal(at_crl_parse(text, strlen(text), both, &crl, &err), AT_OK);
    assert_int_equal(at_crl_entries(crl), 2);
    assert_true(at_crl_has(crl, one.name, "A1B"));
    assert_true(at_crl_has(crl, one.name, "7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"));
    assert_false(at_crl_has(crl, one.name, "A1C"));
    assert_false(at_crl_has(crl, two.name, "A1B"));
    assert_true(at_crl_next_update_ns(crl) < INT64_MAX);
    at_crl_free(crl);
    authority_done(&one);
    authority_done(&two);
}

static void a_list_that_its_issuer_did_not_sign_is_refused(void **state)
{
    (void)state;
    static const char *const SERIALS[] = {"01", NULL};
    struct authority one = authority_new("one");
    struct authority two = authority_new("two");
    struct authority same_name = authority_new("one");
    AT_CLEANUP(at_cleanup_free) char *forged = list_pem(&one, &same_name, SERIALS);
    AT_CLEANUP(at_cleanup_free) char *foreign = list_pem(&two, &two, SERIALS);
    struct at_crl *crl = NULL;
    struct at_err err = {0};
    assert_int_equal(at_crl_parse(forged, strlen(forged), one.pem, &crl, &err), AT_INVALID);
    assert_int_equal(at_crl_parse(foreign, strlen(foreign), one.pem, &crl, &err), AT_INVALID);
    assert_int_equal(at_crl_parse("x", 1, one.pem, &crl, &err), AT_INVALID);
    assert_int_equal(at_crl_parse("", 0, one.pem, &crl, &err), AT_INVALID);
    assert_int_equal(at_crl_parse(one.pem, strlen(one.pem), one.pem, &crl, &err), AT_INVALID);
    authority_done(&one);
    authority_done(&two);
    authority_done(&same_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_revoke_what_their_own_issuer_made),
        cmocka_unit_test(a_list_that_its_issuer_did_not_sign_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
