#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"
#include "security/security.h"
#include "security/x509_priv.h"
#include "sys/file.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#define CA_LIFETIME_S (INT64_C(10) * 365 * 24 * 3600)
/* Certificates begin in the past, for peers whose clocks are behind, and for clocks that are
 * stepped back while they are in use: else nobody could connect until the time has come again. */
#define CLOCK_SKEW_S (INT64_C(24) * 3600)
#define PEM_BYTES_MAX 65536

struct at_ca {
    const struct at_sys *sys;
    X509 *cert;
    EVP_PKEY *key;
    char *cert_pem;
    char pin[AT_SHA256_HEX_BYTES];
};

enum at_rc at_x509_fail(struct at_err *err, const char *what)
{
    char reason[160] = "unknown";
    unsigned long code = ERR_get_error();
    if (code != 0) {
        ERR_error_string_n(code, reason, sizeof reason);
    }
    ERR_clear_error();
    return at_err_set(err, AT_INTERNAL, "%s: %s", what, reason);
}

char *at_x509_bio_text(BIO *bio)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    return at_strndup(data, len > 0 ? (size_t)len : 0);
}

char *at_x509_key_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1) {
        text = at_x509_bio_text(bio);
    }
    BIO_free(bio);
    return text;
}

static char *cert_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio != NULL && PEM_write_bio_X509(bio, cert) == 1) {
        text = at_x509_bio_text(bio);
    }
    BIO_free(bio);
    return text;
}

X509 *at_x509_from_pem(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return cert;
}

/* V_ASN1_UTF8STRING and not MBSTRING: the latter caps a common name at 64 characters, and node
 * names may be longer. */
bool at_x509_name_add(X509_NAME *name, int nid, const char *value)
{
    return X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING, (const unsigned char *)value,
                                      -1, -1, 0) == 1;
}

static bool extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509V3_set_ctx_nodb(&ctx);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

static bool san_push(GENERAL_NAMES *names, int type, ASN1_STRING *value)
{
    GENERAL_NAME *name = value != NULL ? GENERAL_NAME_new() : NULL;
    if (name == NULL) {
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) == 0) {
        GENERAL_NAME_free(name);
        return false;
    }
    return true;
}

static ASN1_STRING *ia5(const char *text)
{
    ASN1_STRING *s = ASN1_IA5STRING_new();
    if (s != NULL && ASN1_STRING_set(s, text, -1) != 1) {
        ASN1_STRING_free(s);
        return NULL;
    }
    return s;
}

/* Built by hand: names never pass through OpenSSL's configuration syntax, where a comma would add
 * entries. */
static bool san_add(X509 *cert, const struct at_cert_request *request)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool ok = names != NULL;
    for (size_t i = 0; ok && request->dns_names != NULL && request->dns_names[i] != NULL; i++) {
        ok = san_push(names, GEN_DNS, ia5(request->dns_names[i]));
    }
    for (size_t i = 0; ok && request->ip_addresses != NULL && request->ip_addresses[i] != NULL;
         i++) {
        ok = san_push(names, GEN_IPADD, a2i_IPADDRESS(request->ip_addresses[i]));
    }
    if (ok && sk_GENERAL_NAME_num(names) > 0) {
        ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) == 1;
    }
    GENERAL_NAMES_free(names);
    return ok;
}

static bool serial_set(X509 *cert, const struct at_sys *sys)
{
    unsigned char bytes[16];
    at_sys_random(sys, bytes, sizeof bytes);
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); /* positive and never zero */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
    BN_free(number);
    return ok;
}

static bool times_set(X509 *cert, const struct at_sys *sys, int64_t lifetime_s, const X509 *issuer)
{
    time_t now = (time_t)(at_sys_wall_ns(sys) / AT_NS_PER_S);
    if (ASN1_TIME_set(X509_getm_notBefore(cert), now - CLOCK_SKEW_S) == NULL ||
        ASN1_TIME_set(X509_getm_notAfter(cert), now + lifetime_s) == NULL) {
        return false;
    }
    if (issuer != NULL &&
        ASN1_TIME_compare(X509_get0_notAfter(cert), X509_get0_notAfter(issuer)) > 0) {
        return X509_set1_notAfter(cert, X509_get0_notAfter(issuer)) == 1;
    }
    return true;
}

/* When it was issued, which is not when it begins: revocations go by it (X.509 §8.2.2.5). */
static bool issued_add(X509 *cert, const struct at_sys *sys)
{
    PKEY_USAGE_PERIOD *period = PKEY_USAGE_PERIOD_new();
    time_t now = (time_t)(at_sys_wall_ns(sys) / AT_NS_PER_S);
    bool ok = period != NULL && (period->notBefore = ASN1_GENERALIZEDTIME_set(NULL, now)) != NULL &&
              X509_add1_ext_i2d(cert, NID_private_key_usage_period, period, 0, 0) == 1;
    PKEY_USAGE_PERIOD_free(period);
    return ok;
}

static bool spki_pin(X509 *cert, char out[AT_SHA256_HEX_BYTES])
{
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (len <= 0) {
        return false;
    }
    at_sha256_hex(der, (size_t)len, out);
    OPENSSL_free(der);
    return true;
}

/* Edwards curves bring their own. */
static const EVP_MD *digest_for(const EVP_PKEY *key)
{
    bool own = EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "ED448") == 1;
    return own ? NULL : EVP_sha256();
}

static X509 *ca_self_sign(EVP_PKEY *key, const struct at_sys *sys)
{
    X509 *cert = X509_new();
    bool ok = cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 &&
              serial_set(cert, sys) && times_set(cert, sys, CA_LIFETIME_S, NULL) &&
              at_x509_name_add(X509_get_subject_name(cert), NID_commonName, "atoll-ca") &&
              X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1 &&
              X509_set_pubkey(cert, key) == 1 &&
              extension_add(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
              extension_add(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
              extension_add(cert, cert, NID_subject_key_identifier, "hash") &&
              X509_sign(cert, key, EVP_sha256()) > 0;
    if (!ok) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static EVP_PKEY *key_read(const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int mode = at_file_mode(path);
    if (mode >= 0 && (mode & 027) != 0) {
        (void)!at_err_set(err, AT_FORBIDDEN,
                          "the authority's key %s is open to others than its owner: chmod 600 it, "
                          "and begin with a new authority if somebody read it",
                          path);
        return NULL;
    }
    enum at_rc rc = at_file_read(path, PEM_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        at_err_wrap(err, rc,
                    "the authority's key is needed beside its certificate: put it back (a backup "
                    "has it)");
        return NULL;
    }
    BIO *bio = BIO_new_mem_buf(text.data != NULL ? text.data : "", (int)text.len);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (text.data != NULL) {
        OPENSSL_cleanse(text.data, text.len);
    }
    ERR_clear_error();
    if (key == NULL) {
        (void)!at_err_set(err, AT_CORRUPT, "%s holds no private key: put it back (a backup has it)",
                          path);
    }
    return key;
}

static enum at_rc ca_make(struct at_ca *ca, const char *cert_path, const char *key_path,
                          struct at_err *err)
{
    /* A key whose certificate is lost is kept: all that was signed, and all pins, stay good. */
    bool has_key = at_file_exists(key_path);
    struct at_err why = {0};
    ca->key = has_key ? key_read(key_path, &why) : EVP_EC_gen("P-256");
    if (has_key && ca->key == NULL) {
        return at_err_set(err, why.rc, "%s", why.msg);
    }
    ca->cert = ca->key != NULL ? ca_self_sign(ca->key, ca->sys) : NULL;
    AT_CLEANUP(at_cleanup_free) char *key_text = ca->cert ? at_x509_key_pem(ca->key) : NULL;
    ca->cert_pem = ca->cert != NULL ? cert_pem(ca->cert) : NULL;
    if (key_text == NULL || ca->cert_pem == NULL) {
        return at_x509_fail(err, "cannot make a certificate authority");
    }
    /* The key first: a certificate without its key would look like damage at the next start. */
    enum at_rc rc =
        has_key ? AT_OK : at_file_write_atomic(key_path, key_text, strlen(key_text), 0600, err);
    if (rc == AT_OK) {
        rc = at_file_write_atomic(cert_path, ca->cert_pem, strlen(ca->cert_pem), 0644, err);
    }
    OPENSSL_cleanse(key_text, strlen(key_text));
    return rc;
}

static enum at_rc ca_load(struct at_ca *ca, const char *cert_path, const char *key_path,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf cert = {0};
    enum at_rc rc = at_file_read(cert_path, PEM_BYTES_MAX, &cert, err);
    if (rc != AT_OK) {
        return rc;
    }
    ca->cert = cert.data != NULL ? at_x509_from_pem(cert.data) : NULL;
    if (ca->cert == NULL) {
        ERR_clear_error();
        return at_err_set(err, AT_CORRUPT, "%s holds no certificate", cert_path);
    }
    struct at_err why = {0};
    ca->key = key_read(key_path, &why);
    if (ca->key == NULL) {
        return at_err_set(err, why.rc, "%s", why.msg);
    }
    if (X509_check_private_key(ca->cert, ca->key) != 1) {
        ERR_clear_error();
        return at_err_set(err, AT_CORRUPT, "%s is not the key of %s", key_path, cert_path);
    }
    ca->cert_pem = cert_pem(ca->cert);
    return ca->cert_pem != NULL ? AT_OK : at_x509_fail(err, "cannot write the CA certificate");
}

enum at_rc at_ca_open(const char *dir, const struct at_sys *sys, struct at_ca **ret,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *cert_path = at_asprintf("%s/ca.crt", dir);
    AT_CLEANUP(at_cleanup_free) char *key_path = at_asprintf("%s/ca.key", dir);
    struct at_ca *ca = AT_NEW(struct at_ca);
    ca->sys = sys;
    enum at_rc rc;
    if (at_file_exists(cert_path)) {
        rc = ca_load(ca, cert_path, key_path, err);
    } else {
        rc = at_dir_make(dir, 0700, err);
        if (rc == AT_OK) {
            rc = ca_make(ca, cert_path, key_path, err);
        }
    }
    if (rc == AT_OK && !spki_pin(ca->cert, ca->pin)) {
        rc = at_x509_fail(err, "cannot read the CA's public key");
    }
    if (rc != AT_OK) {
        at_ca_free(ca);
        return rc;
    }
    *ret = ca;
    return AT_OK;
}

void at_ca_free(struct at_ca *ca)
{
    if (ca == NULL) {
        return;
    }
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
    at_free(ca->cert_pem);
    at_free(ca);
}

const char *at_ca_cert_pem(const struct at_ca *ca)
{
    return ca->cert_pem;
}

const char *at_ca_pin_sha256_hex(const struct at_ca *ca)
{
    return ca->pin;
}

EVP_PKEY *at_ca_key(const struct at_ca *ca)
{
    return ca->key;
}

static bool subject_set(X509 *cert, const struct at_cert_request *request)
{
    X509_NAME *name = X509_get_subject_name(cert);
    for (size_t i = 0; request->organizations != NULL && request->organizations[i] != NULL; i++) {
        if (!at_x509_name_add(name, NID_organizationName, request->organizations[i])) {
            return false;
        }
    }
    return at_x509_name_add(name, NID_commonName, request->common_name);
}

static const char *usage_text(const struct at_cert_request *request)
{
    if (request->server) {
        return request->client ? "serverAuth,clientAuth" : "serverAuth";
    }
    return "clientAuth";
}

static enum at_rc leaf_sign(struct at_ca *ca, const struct at_cert_request *request, EVP_PKEY *key,
                            char **ret_pem, struct at_err *err)
{
    if (request->common_name == NULL || request->common_name[0] == '\0' ||
        request->lifetime_s <= 0) {
        return at_err_set(err, AT_INVALID, "a certificate needs a common name and a lifetime");
    }
    X509 *cert = X509_new();
    bool ok =
        cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 && serial_set(cert, ca->sys) &&
        times_set(cert, ca->sys, request->lifetime_s, ca->cert) && subject_set(cert, request) &&
        X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) == 1 &&
        X509_set_pubkey(cert, key) == 1 &&
        extension_add(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
        extension_add(cert, ca->cert, NID_key_usage, "critical,digitalSignature") &&
        extension_add(cert, ca->cert, NID_ext_key_usage, usage_text(request)) &&
        extension_add(cert, ca->cert, NID_subject_key_identifier, "hash") &&
        extension_add(cert, ca->cert, NID_authority_key_identifier, "keyid") &&
        issued_add(cert, ca->sys) && san_add(cert, request) &&
        X509_sign(cert, ca->key, digest_for(ca->key)) > 0;
    AT_CLEANUP(at_cleanup_free) char *leaf = ok ? cert_pem(cert) : NULL;
    X509_free(cert);
    if (leaf == NULL) {
        return at_x509_fail(err, "cannot make a certificate");
    }
    /* Servers send the CA too, so that a joiner that knows only the pin can check it. */
    *ret_pem = at_asprintf("%s%s", leaf, request->server ? ca->cert_pem : "");
    return AT_OK;
}

enum at_rc at_ca_issue(struct at_ca *ca, const struct at_cert_request *request, char **ret_cert_pem,
                       char **ret_key_pem, struct at_err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char *key_text = key != NULL ? at_x509_key_pem(key) : NULL;
    char *cert_text = NULL;
    enum at_rc rc = key_text != NULL ? leaf_sign(ca, request, key, &cert_text, err)
                                     : at_x509_fail(err, "cannot make a key");
    EVP_PKEY_free(key);
    if (rc != AT_OK) {
        at_free(key_text);
        return rc;
    }
    *ret_cert_pem = cert_text;
    *ret_key_pem = key_text;
    return AT_OK;
}

enum at_rc at_ca_sign_csr(struct at_ca *ca, const char *csr_pem,
                          const struct at_cert_request *request, char **ret_cert_pem,
                          struct at_err *err)
{
    BIO *bio = BIO_new_mem_buf(csr_pem, -1);
    X509_REQ *csr = bio != NULL ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    EVP_PKEY *key = csr != NULL ? X509_REQ_get0_pubkey(csr) : NULL;
    enum at_rc rc = AT_OK;
    if (key == NULL) {
        rc = at_err_set_field(err, AT_BAD_REQUEST, "csr", "not a PEM certificate request");
    } else if (X509_REQ_verify(csr, key) != 1) {
        rc = at_err_set_field(err, AT_BAD_REQUEST, "csr", "its signature does not fit its key");
    } else if (EVP_PKEY_get_security_bits(key) < 112) {
        rc = at_err_set_field(err, AT_BAD_REQUEST, "csr", "its key is too weak");
    }
    ERR_clear_error();
    if (rc == AT_OK) {
        rc = leaf_sign(ca, request, key, ret_cert_pem, err);
    }
    X509_REQ_free(csr);
    return rc;
}
