/* OpenSSL helpers shared inside this folder. */
#ifndef AT_SECURITY_X509_PRIV_H
#define AT_SECURITY_X509_PRIV_H

#include "core/err.h"

#include <openssl/bio.h>
#include <openssl/x509.h>

/* AT_INTERNAL with OpenSSL's own words; empties its error queue. */
enum at_rc at_x509_fail(struct at_err *err, const char *what);
char *at_x509_bio_text(BIO *bio);
char *at_x509_key_pem(EVP_PKEY *key); /* NULL on failure. own: at_free */
X509 *at_x509_from_pem(const char *pem);
struct at_ca;
EVP_PKEY *at_ca_key(const struct at_ca *ca); /* of ca.c; borrowed */
bool at_x509_name_add(X509_NAME *name, int nid, const char *value);

#endif
