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

static void end_found(struct scan_look *look, int64_t end_s, int64_t warn_s, const char *name,
                      const char *field)
{
    int64_t left_s = end_s - look->input->now_wall_ns / NS_PER_S;
    if (left_s <= 0) {
        scan_found_as(look, SCAN_CERTIFICATE, AT_SCAN_HIGH, field,
                      "the certificate %s ended %lld days ago", name,
                      (long long)(-left_s / S_PER_DAY));
    } else if (left_s < warn_s) {
        scan_found(look, SCAN_CERTIFICATE, field, "the certificate %s ends in %lld %s", name,
                   (long long)(left_s / (left_s < 2 * S_PER_DAY ? 3600 : S_PER_DAY)),
                   left_s < 2 * S_PER_DAY ? "hours" : "days");
    }
}

static void end_check(struct scan_look *look, X509 *cert, const char *name, const char *field)
{
    struct tm end;
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &end) != 1) {
        return;
    }
    end_found(look, (int64_t)timegm(&end), (int64_t)AT_SCAN_CERTIFICATE_DAYS * S_PER_DAY, name,
              field);
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

/* What a server shows is mostly renewed by itself: then it is told of when that seems to fail. */
static void shown_check(struct scan_look *look, const json_t *shown, const char *field)
{
    int64_t issued_ns = 0;
    int64_t ends_ns = 0;
    if (at_time_parse(at_json_str_at(shown, "issued", ""), &issued_ns, NULL) != AT_OK ||
        at_time_parse(at_json_str_at(shown, "ends", ""), &ends_ns, NULL) != AT_OK) {
        return;
    }
    int64_t quarter_s = (ends_ns - issued_ns) / NS_PER_S / 4;
    int64_t month_s = (int64_t)AT_SCAN_CERTIFICATE_DAYS * S_PER_DAY;
    end_found(look, ends_ns / NS_PER_S, quarter_s < month_s ? quarter_s : month_s,
              at_json_str_at(shown, "name", "without a name"), field);
}

static void entry_check(struct scan_look *look, const json_t *entry, const char *base)
{
    static const char *const KEYS[] = {"client-certificate-data", "certificate-authority-data"};
    for (size_t i = 0; i < AT_ARRAY_LEN(KEYS); i++) {
        const json_t *value = json_object_get(entry, KEYS[i]);
        if (json_is_string(value)) {
            scan_certificates(look, json_string_value(value), json_string_length(value),
                              scan_path(look, "%s.%s", base, KEYS[i]));
        }
    }
}

void scan_kubeconfig(struct scan_look *look)
{
    static const char *const LISTS[][2] = {{"users", "user"}, {"clusters", "cluster"}};
    for (size_t k = 0; k < AT_ARRAY_LEN(LISTS); k++) {
        size_t i;
        const json_t *item;
        json_array_foreach(json_object_get(look->object, LISTS[k][0]), i, item)
        {
            entry_check(look, json_object_get(item, LISTS[k][1]),
                        scan_path(look, "%s[%zu].%s", LISTS[k][0], i, LISTS[k][1]));
        }
        entry_check(look, json_object_get(look->object, LISTS[k][1]), LISTS[k][1]);
    }
    shown_check(look, at_json_at(look->object, "server.certificate"), "server.certificate");
}
