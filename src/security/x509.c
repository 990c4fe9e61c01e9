#include "security/x509.h"

#include "core/digest.h"
#include "security/x509_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

enum at_rc at_cert_pin_sha256_hex(const char *pem, char out[65], struct at_err *err)
{
    unsigned char *der = NULL;
    X509 *cert = at_x509_from_pem(pem);
    int len = cert != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : 0;
    X509_free(cert);
    ERR_clear_error();
    if (len <= 0) {
        return at_err_set(err, AT_INVALID, "not a PEM certificate");
    }
    at_sha256_hex(der, (size_t)len, out);
    OPENSSL_free(der);
    return AT_OK;
}

/* All certificates of a text. own: sk_X509_pop_free. */
static STACK_OF(X509) * all_of(const char *pem)
{
    STACK_OF(X509) *list = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = NULL;
    while (list != NULL && bio != NULL &&
           (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        sk_X509_push(list, cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return list;
}

enum at_rc at_cert_chain_check(const char *chain_pem, const char *ca_pem, struct at_err *err)
{
    STACK_OF(X509) *chain = all_of(chain_pem);
    STACK_OF(X509) *anchors = all_of(ca_pem);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    enum at_rc rc = AT_OK;
    if (ctx == NULL || sk_X509_num(chain) <= 0 || sk_X509_num(anchors) <= 0 ||
        X509_STORE_CTX_init(ctx, NULL, sk_X509_value(chain, 0), chain) != 1) {
        rc = at_err_set(err, AT_INVALID, "no PEM certificate is in it");
    } else {
        X509_STORE_CTX_set0_trusted_stack(ctx, anchors);
        X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
        X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER);
        if (X509_verify_cert(ctx) != 1) {
            rc = at_err_set(err, AT_INVALID, "its authority does not vouch for it: %s",
                            X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
        }
    }
    X509_STORE_CTX_free(ctx);
    sk_X509_pop_free(chain, X509_free);
    sk_X509_pop_free(anchors, X509_free);
    ERR_clear_error();
    return rc;
}
