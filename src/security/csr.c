#include "core/mem.h"
#include "core/units.h"
#include "security/security.h"
#include "security/x509_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <time.h>

static char *csr_pem(EVP_PKEY *key, const char *common_name)
{
    X509_REQ *csr = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (csr != NULL && bio != NULL && X509_REQ_set_version(csr, X509_REQ_VERSION_1) == 1 &&
        at_x509_name_add(X509_REQ_get_subject_name(csr), NID_commonName, common_name) &&
        X509_REQ_set_pubkey(csr, key) == 1 && X509_REQ_sign(csr, key, EVP_sha256()) > 0 &&
        PEM_write_bio_X509_REQ(bio, csr) == 1) {
        text = at_x509_bio_text(bio);
    }
    BIO_free(bio);
    X509_REQ_free(csr);
    return text;
}

enum at_rc at_csr_new(const char *common_name, char **ret_csr_pem, char **ret_key_pem,
                      struct at_err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char *key_text = key != NULL ? at_x509_key_pem(key) : NULL;
    char *csr_text = key_text != NULL ? csr_pem(key, common_name) : NULL;
    EVP_PKEY_free(key);
    if (csr_text == NULL) {
        at_free(key_text);
        return at_x509_fail(err, "cannot make a certificate request");
    }
    *ret_csr_pem = csr_text;
    *ret_key_pem = key_text;
    return AT_OK;
}

enum at_rc at_cert_expiry(const char *cert_pem, int64_t *ret_wall_ns, struct at_err *err)
{
    X509 *cert = at_x509_from_pem(cert_pem);
    struct tm parts = {0};
    bool ok = cert != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &parts) == 1;
    X509_free(cert);
    ERR_clear_error();
    if (!ok) {
        return at_err_set(err, AT_INVALID, "not a PEM certificate");
    }
    *ret_wall_ns = (int64_t)timegm(&parts) * AT_NS_PER_S;
    return AT_OK;
}
