/* What a peer's certificate says of it: names, number, times. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"
#include "net/tls_int.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <time.h>

static bool copy_entry(X509_NAME_ENTRY *entry, char *out, size_t size)
{
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry));
    /* An embedded NUL would make one name look like another: such a name is no name. */
    bool good = len > 0 && (size_t)len < size && memchr(text, '\0', (size_t)len) == NULL;
    if (good) {
        memcpy(out, text, (size_t)len);
        out[len] = '\0';
    }
    OPENSSL_free(text);
    return good;
}

/* Two common names would let two readers take it for two different people: it has none then. */
static void names_copy(X509 *cert, struct at_tls_peer *p)
{
    X509_NAME *name = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at >= 0 && X509_NAME_get_index_by_NID(name, NID_commonName, at) < 0) {
        (void)copy_entry(X509_NAME_get_entry(name, at), p->common_name, sizeof p->common_name);
    }
    at = -1;
    while ((at = X509_NAME_get_index_by_NID(name, NID_organizationName, at)) >= 0 &&
           p->n_organizations < AT_ARRAY_LEN(p->organizations)) {
        p->n_organizations +=
            copy_entry(X509_NAME_get_entry(name, at), p->organizations[p->n_organizations],
                       sizeof p->organizations[0]);
    }
}

static void serial_copy(X509 *cert, char *out, size_t size)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = number != NULL ? BN_bn2hex(number) : NULL;
    const char *digits = hex != NULL ? hex + strspn(hex, "0") : "";
    if (strlen(digits) < size) {
        memcpy(out, digits, strlen(digits) + 1);
    }
    OPENSSL_free(hex);
    BN_free(number);
}

static int64_t wall_ns(const ASN1_TIME *time)
{
    struct tm tm = {0};
    return time != NULL && ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) * AT_NS_PER_S : 0;
}

/* Certificates of our own authority begin before they are issued, for clocks that are behind. */
static int64_t issued_ns(X509 *cert)
{
    PKEY_USAGE_PERIOD *period = X509_get_ext_d2i(cert, NID_private_key_usage_period, NULL, NULL);
    int64_t first = period != NULL ? wall_ns(period->notBefore) : 0;
    PKEY_USAGE_PERIOD_free(period);
    return first != 0 ? first : wall_ns(X509_get0_notBefore(cert));
}

void at_tls_peer_of(X509 *cert, struct at_tls_peer *ret)
{
    unsigned char *der = NULL;
    *ret = (struct at_tls_peer){0};
    names_copy(cert, ret);
    serial_copy(cert, ret->serial_hex, sizeof ret->serial_hex);
    int len = i2d_X509(cert, &der);
    if (len > 0) {
        at_sha256_hex(der, (size_t)len, ret->fingerprint_sha256_hex);
    }
    OPENSSL_free(der);
    der = NULL;
    len = i2d_X509_NAME(X509_get_issuer_name(cert), &der);
    if (len > 0) {
        at_sha256_hex(der, (size_t)len, ret->issuer_name_sha256_hex);
    }
    OPENSSL_free(der);
    ret->issued_wall_ns = issued_ns(cert);
    ret->not_after_wall_ns = wall_ns(X509_get0_notAfter(cert));
    ERR_clear_error();
}
