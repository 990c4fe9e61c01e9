/* Certificates in what is stored: when do they end, how strong are they? */
#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"
#include "scan/scan_priv.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <time.h>

#define NS_PER_S INT64_C(1000000000)
#define S_PER_DAY 86400

static void name_of(X509 *cert, char *out, size_t size)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    int n =
        subject != NULL ? X509_NAME_get_text_by_NID(subject, NID_commonName, out, (int)size) : -1;
    if (n < 0) {
        snprintf(out, size, "without a name");
    }
    for (char *p = out; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            *p = '?';
        }
    }
}

static void end_check(struct scan_look *look, X509 *cert, const char *name, const char *field)
{
    struct tm end;
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &end) != 1) {
        return;
    }
    int64_t left_s = (int64_t)timegm(&end) - look->input->now_wall_ns / NS_PER_S;
    if (left_s <= 0) {
        scan_found_as(look, SCAN_CERTIFICATE, AT_SCAN_HIGH, field,
                      "the certificate %s ended %lld days ago", name,
                      (long long)(-left_s / S_PER_DAY));
    } else if (left_s < (int64_t)AT_SCAN_CERTIFICATE_DAYS * S_PER_DAY) {
        scan_found(look, SCAN_CERTIFICATE, field, "the certificate %s ends in %lld days", name,
                   (long long)(left_s / S_PER_DAY));
    }
}

static void strength_check(struct scan_look *look, X509 *cert, const char *name, const char *field)
{
    EVP_PKEY *key = X509_get0_pubkey(cert);
    int bits = key != NULL ? EVP_PKEY_get_bits(key) : 0;
    if (key != NULL && EVP_PKEY_is_a(key, "RSA") && bits < AT_SCAN_RSA_BITS_MIN) {
        scan_found(look, SCAN_CERTIFICATE_WEAK, field,
                   "the certificate %s has an RSA key of %d bits", name, bits);
    }
    int digest = NID_undef;
    if (OBJ_find_sigid_algs(X509_get_signature_nid(cert), &digest, NULL) == 1 &&
        (digest == NID_sha1 || digest == NID_md5)) {
        scan_found(look, SCAN_CERTIFICATE_WEAK, field, "the certificate %s is signed with %s", name,
                   OBJ_nid2sn(digest));
    }
}

static void pem_check(struct scan_look *look, const char *text, size_t len, const char *field)
{
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    for (int i = 0; bio != NULL && i < AT_SCAN_CERTIFICATES_MAX; i++) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (cert == NULL) {
            break;
        }
        char name[96];
        name_of(cert, name, sizeof name);
        end_check(look, cert, name, field);
        strength_check(look, cert, name, field);
        X509_free(cert);
    }
    ERR_clear_error();
    BIO_free(bio);
}

void scan_certificates(struct scan_look *look, const char *text, size_t len, const char *field)
{
    static const char BEGIN[] = "-----BEGIN CERTIFICATE-----";
    if (len > AT_SCAN_TEXT_BYTES_MAX) {
        return;
    }
    if (memmem(text, len, BEGIN, sizeof BEGIN - 1) != NULL) {
        pem_check(look, text, len, field);
        return;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf plain = {0};
    if (memmem(text, len, "LS0t", 4) != NULL && at_base64_decode(text, len, &plain) == AT_OK &&
        plain.len > 0 && memmem(plain.data, plain.len, BEGIN, sizeof BEGIN - 1) != NULL) {
        pem_check(look, plain.data, plain.len, field);
    }
}
