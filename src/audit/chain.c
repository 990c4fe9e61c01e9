#include "audit/chain.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>

#define KEY_FILE_BYTES_MAX 4096
#define SIGNATURE_BYTES 64
static const char SEQ_HEAD[] = "{\"seq\":";
static const char HASH_HEAD[] = ",\"hash\":\"";

struct at_audit_hasher {
    EVP_MD *md;
    EVP_MD_CTX *ctx;
};

struct at_audit_hasher *at_audit_hasher_new(void)
{
    struct at_audit_hasher *h = AT_NEW(struct at_audit_hasher);
    h->md = EVP_MD_fetch(NULL, "SHA256", NULL);
    h->ctx = EVP_MD_CTX_new();
    assert(h->md != NULL);
    assert(h->ctx != NULL);
    return h;
}

void at_audit_hasher_free(struct at_audit_hasher *h)
{
    if (h != NULL) {
        EVP_MD_CTX_free(h->ctx);
        EVP_MD_free(h->md);
        at_free(h);
    }
}

void at_audit_hasher_step(struct at_audit_hasher *h, unsigned char hash[AT_SHA256_BYTES],
                          const void *text, size_t len)
{
    unsigned got = 0;
    bool ok = EVP_DigestInit_ex2(h->ctx, h->md, NULL) == 1 &&
              EVP_DigestUpdate(h->ctx, hash, AT_SHA256_BYTES) == 1 &&
              EVP_DigestUpdate(h->ctx, text, len) == 1 &&
              EVP_DigestFinal_ex(h->ctx, hash, &got) == 1;
    assert(ok);
    assert(got == AT_SHA256_BYTES);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool at_audit_hex_decode(const char *hex, size_t n, unsigned char *out)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(hex[2 * i]);
        int low = high >= 0 ? hex_digit(hex[2 * i + 1]) : -1;
        if (low < 0) {
            return false;
        }
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

enum at_rc at_audit_line_parse(const char *line, size_t len, struct at_audit_line *ret,
                               struct at_err *err)
{
    size_t head = sizeof SEQ_HEAD - 1;
    if (len <= head + AT_AUDIT_HASH_TAIL_BYTES || memcmp(line, SEQ_HEAD, head) != 0) {
        return at_err_set(err, AT_CORRUPT, "it is no audit record");
    }
    struct at_audit_line out = {.text_len = len - AT_AUDIT_HASH_TAIL_BYTES};
    size_t i = head;
    for (; i < out.text_len && line[i] >= '0' && line[i] <= '9' && i < head + 19; i++) {
        out.seq = out.seq * 10 + (uint64_t)(line[i] - '0');
    }
    const char *tail = line + out.text_len;
    size_t hash_head = sizeof HASH_HEAD - 1;
    if (i == head || line[i] != ',' || memcmp(tail, HASH_HEAD, hash_head) != 0 ||
        !at_audit_hex_decode(tail + hash_head, AT_SHA256_BYTES, out.hash) ||
        memcmp(line + len - 2, "\"}", 2) != 0) {
        return at_err_set(err, AT_CORRUPT, "it is no audit record");
    }
    *ret = out;
    return AT_OK;
}

/* --- seals --- */

static char *bio_steal(BIO *bio)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    return at_strndup(data, len > 0 ? (size_t)len : 0);
}

static enum at_rc pair_write(const char *key_path, const char *pub_path, EVP_PKEY *key,
                             struct at_err *err)
{
    BIO *secret = BIO_new(BIO_s_mem());
    BIO *open = BIO_new(BIO_s_mem());
    assert(secret != NULL);
    assert(open != NULL);
    enum at_rc rc = AT_OK;
    if (PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        PEM_write_bio_PUBKEY(open, key) != 1) {
        rc = at_err_set(err, AT_INTERNAL, "cannot write the audit log's key");
    }
    AT_CLEANUP(at_cleanup_free) char *key_text = bio_steal(secret);
    AT_CLEANUP(at_cleanup_free) char *pub_text = bio_steal(open);
    if (rc == AT_OK) {
        rc = at_file_write_atomic(pub_path, pub_text, strlen(pub_text), 0644, err);
    }
    if (rc == AT_OK) {
        rc = at_file_write_atomic(key_path, key_text, strlen(key_text), 0600, err);
    }
    explicit_bzero(key_text, strlen(key_text));
    BIO_free(secret);
    BIO_free(open);
    return rc;
}

enum at_rc at_audit_key_open(const char *dir, EVP_PKEY **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *key_path = at_asprintf("%s/audit.key", dir);
    AT_CLEANUP(at_cleanup_free) char *pub_path = at_asprintf("%s/audit.pub", dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    EVP_PKEY *key = NULL;
    enum at_rc rc = AT_OK;
    if (!at_file_exists(key_path)) {
        key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        rc = key != NULL ? pair_write(key_path, pub_path, key, err)
                         : at_err_set(err, AT_INTERNAL, "cannot make a key");
    } else if ((at_file_mode(key_path) & 027) != 0) {
        rc = at_err_set(err, AT_FORBIDDEN,
                        "%s is open to others than its owner, who could sign a log of their own: "
                        "chmod 600 it",
                        key_path);
    } else {
        rc = at_file_read(key_path, KEY_FILE_BYTES_MAX, &text, err);
        BIO *bio = rc == AT_OK ? BIO_new_mem_buf(text.data, (int)text.len) : NULL;
        key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
        if (text.data != NULL) {
            explicit_bzero(text.data, text.len);
        }
        if (rc == AT_OK && (key == NULL || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519)) {
            rc = at_err_set(err, AT_CORRUPT, "%s holds no Ed25519 key", key_path);
        }
    }
    ERR_clear_error();
    if (rc != AT_OK) {
        EVP_PKEY_free(key);
        return rc;
    }
    *ret = key;
    return AT_OK;
}

enum at_rc at_audit_key_public(const char *pem, size_t len, EVP_PKEY **ret, struct at_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem != NULL ? pem : "", (int)len);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    if (key == NULL || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(key);
        return at_err_set(err, AT_CORRUPT, "it holds no public Ed25519 key");
    }
    *ret = key;
    return AT_OK;
}

static size_t seal_text(const struct at_audit_seal *seal, char *out, size_t size)
{
    char hash[AT_SHA256_HEX_BYTES];
    at_hex_encode(seal->hash, AT_SHA256_BYTES, hash);
    int n = snprintf(out, size, "atoll audit seal 1\n%s\n%llu\n%s\n", seal->chain,
                     (unsigned long long)seal->seq, hash);
    assert(n > 0 && (size_t)n < size);
    return (size_t)n;
}

enum at_rc at_audit_seal_sign(EVP_PKEY *key, struct at_audit_seal *seal, struct at_err *err)
{
    char text[256];
    size_t len = seal_text(seal, text, sizeof text);
    unsigned char signature[SIGNATURE_BYTES];
    size_t got = sizeof signature;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestSign(ctx, signature, &got, (const unsigned char *)text, len) == 1 &&
              got == SIGNATURE_BYTES;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (!ok) {
        return at_err_set(err, AT_INTERNAL, "the audit log's key does not sign");
    }
    at_hex_encode(signature, SIGNATURE_BYTES, seal->signature_hex);
    return AT_OK;
}

bool at_audit_seal_check(EVP_PKEY *key, const struct at_audit_seal *seal)
{
    char text[256];
    size_t len = seal_text(seal, text, sizeof text);
    unsigned char signature[SIGNATURE_BYTES];
    if (strlen(seal->signature_hex) != (size_t)2 * SIGNATURE_BYTES ||
        !at_audit_hex_decode(seal->signature_hex, SIGNATURE_BYTES, signature)) {
        return false;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok =
        ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
        EVP_DigestVerify(ctx, signature, sizeof signature, (const unsigned char *)text, len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

enum at_rc at_audit_head_write(const struct at_audit_seal *seal, struct at_buf *out)
{
    char hash[AT_SHA256_HEX_BYTES];
    at_hex_encode(seal->hash, AT_SHA256_BYTES, hash);
    return at_buf_printf(out,
                         "{\"chain\":\"%s\",\"seq\":%llu,\"hash\":\"%s\",\"signature\":\"%s\"}\n",
                         seal->chain, (unsigned long long)seal->seq, hash, seal->signature_hex);
}

enum at_rc at_audit_head_parse(const char *text, size_t len, struct at_audit_seal *ret,
                               struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    struct at_audit_seal seal = {0};
    if (at_json_parse(text, len, &root, NULL) != AT_OK) {
        return at_err_set(err, AT_CORRUPT, "it holds no JSON");
    }
    const char *hash = at_json_str_at(root, "hash", "");
    const char *chain = at_json_str_at(root, "chain", "");
    const char *signature = at_json_str_at(root, "signature", "");
    int64_t seq = at_json_int_at(root, "seq", -1);
    if (seq < 0 || strlen(hash) != AT_SHA256_HEX_BYTES - 1 || strlen(chain) >= sizeof seal.chain ||
        strlen(signature) >= sizeof seal.signature_hex ||
        !at_audit_hex_decode(hash, AT_SHA256_BYTES, seal.hash)) {
        return at_err_set(err, AT_CORRUPT, "it is no seal");
    }
    seal.seq = (uint64_t)seq;
    snprintf(seal.chain, sizeof seal.chain, "%s", chain);
    snprintf(seal.signature_hex, sizeof seal.signature_hex, "%s", signature);
    *ret = seal;
    return AT_OK;
}
