#include "security/crl.h"

#include "core/digest.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/units.h"
#include "security/x509_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SERIAL_HEX_BYTES 65
#define KEY_BYTES (AT_SHA256_HEX_BYTES + 1 + SERIAL_HEX_BYTES)

struct at_crl {
    struct at_map *revoked; /* "<issuer> <serial>" */
    int64_t next_update_ns;
};

static bool name_digest(const X509_NAME *name, char out[AT_SHA256_HEX_BYTES])
{
    unsigned char *der = NULL;
    int len = i2d_X509_NAME(name, &der);
    if (len <= 0) {
        return false;
    }
    at_sha256_hex(der, (size_t)len, out);
    OPENSSL_free(der);
    return true;
}

static bool serial_text(const ASN1_INTEGER *serial, char out[SERIAL_HEX_BYTES])
{
    BIGNUM *number = ASN1_INTEGER_to_BN(serial, NULL);
    char *hex = number != NULL ? BN_bn2hex(number) : NULL;
    const char *digits = hex != NULL ? hex + strspn(hex, "0") : "";
    size_t len = strlen(digits);
    bool ok = hex != NULL && len < SERIAL_HEX_BYTES;
    if (ok) {
        memcpy(out, digits, len + 1);
    }
    OPENSSL_free(hex);
    BN_free(number);
    return ok;
}

static void next_update_note(struct at_crl *crl, const X509_CRL *list)
{
    struct tm tm = {0};
    const ASN1_TIME *time = X509_CRL_get0_nextUpdate(list);
    if (time != NULL && ASN1_TIME_to_tm(time, &tm) == 1) {
        int64_t at_ns = (int64_t)timegm(&tm) * AT_NS_PER_S;
        crl->next_update_ns = at_ns < crl->next_update_ns ? at_ns : crl->next_update_ns;
    }
}

/* Taken back by a later list (only lists of differences have such entries). */
static bool is_taken_back(X509_REVOKED *entry)
{
    ASN1_ENUMERATED *reason = X509_REVOKED_get_ext_d2i(entry, NID_crl_reason, NULL, NULL);
    bool back = reason != NULL && ASN1_ENUMERATED_get(reason) == CRL_REASON_REMOVE_FROM_CRL;
    ASN1_ENUMERATED_free(reason);
    return back;
}

static enum at_rc list_add(struct at_crl *crl, X509_CRL *list, struct at_err *err)
{
    char key[KEY_BYTES];
    char issuer[AT_SHA256_HEX_BYTES];
    char serial[SERIAL_HEX_BYTES];
    STACK_OF(X509_REVOKED) *entries = X509_CRL_get_REVOKED(list);
    if (!name_digest(X509_CRL_get_issuer(list), issuer)) {
        return at_err_set(err, AT_INVALID, "a revocation list without an issuer");
    }
    for (int i = 0; i < sk_X509_REVOKED_num(entries); i++) {
        X509_REVOKED *entry = sk_X509_REVOKED_value(entries, i);
        if (is_taken_back(entry) || !serial_text(X509_REVOKED_get0_serialNumber(entry), serial)) {
            continue;
        }
        if (at_map_count(crl->revoked) == AT_CRL_ENTRIES_MAX) {
            return at_err_set(err, AT_TOO_LARGE, "more than %d revoked certificates",
                              AT_CRL_ENTRIES_MAX);
        }
        snprintf(key, sizeof key, "%s %s", issuer, serial);
        (void)at_map_put(crl->revoked, key, crl);
    }
    next_update_note(crl, list);
    return AT_OK;
}

static bool is_signed(X509_CRL *list, const char *ca_pem)
{
    BIO *bio = BIO_new_mem_buf(ca_pem, -1);
    X509 *ca = NULL;
    bool ok = false;
    while (!ok && bio != NULL && (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        ok = X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(list)) == 0 &&
             X509_CRL_verify(list, X509_get0_pubkey(ca)) == 1;
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
    return ok;
}

/* The next list of the text. NULL: there is none. */
static X509_CRL *list_next(BIO *bio, bool is_der)
{
    X509_CRL *list =
        is_der ? d2i_X509_CRL_bio(bio, NULL) : PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
    ERR_clear_error();
    return list;
}

enum at_rc at_crl_parse(const char *text, size_t len, const char *ca_pem, struct at_crl **ret,
                        struct at_err *err)
{
    BIO *bio = len <= INT_MAX ? BIO_new_mem_buf(text, (int)len) : NULL;
    struct at_crl *crl = AT_NEW(struct at_crl);
    crl->revoked = at_map_new();
    crl->next_update_ns = INT64_MAX;
    enum at_rc rc = bio != NULL ? AT_OK : at_err_set(err, AT_TOO_LARGE, "the file is too large");
    X509_CRL *list = NULL;
    size_t n = 0;
    bool is_der = len > 0 && (unsigned char)text[0] == 0x30; /* a SEQUENCE */
    while (rc == AT_OK && n < AT_CRL_LISTS_MAX && (list = list_next(bio, is_der)) != NULL) {
        rc = is_signed(list, ca_pem)
                 ? list_add(crl, list, err)
                 : at_err_set(err, AT_INVALID, "a list is signed by none of the authorities");
        X509_CRL_free(list);
        n++;
    }
    BIO_free(bio);
    if (rc == AT_OK && n == 0) {
        rc = at_err_set(err, AT_INVALID, "no certificate revocation list is in it");
    }
    if (rc != AT_OK) {
        at_crl_free(crl);
        return rc;
    }
    *ret = crl;
    return AT_OK;
}

void at_crl_free(struct at_crl *crl)
{
    if (crl != NULL) {
        at_map_free(crl->revoked);
        at_free(crl);
    }
}

bool at_crl_has(const struct at_crl *crl, const char *issuer_sha256_hex, const char *serial_hex)
{
    char key[KEY_BYTES];
    int len = snprintf(key, sizeof key, "%s %s", issuer_sha256_hex, serial_hex);
    return len > 0 && (size_t)len < sizeof key && at_map_get(crl->revoked, key) != NULL;
}

size_t at_crl_entries(const struct at_crl *crl)
{
    return at_map_count(crl->revoked);
}

int64_t at_crl_next_update_ns(const struct at_crl *crl)
{
    return crl->next_update_ns;
}
