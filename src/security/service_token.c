/* Tokens of service accounts: JSON Web Tokens (RFC 7519) signed by ES256 (RFC 7518 §3.4).
 *
 * The key follows from the authority's by HKDF (RFC 5869), so every server that shares the
 * authority signs and knows the same tokens, a backup holds it, and nothing is kept beside it. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "security/jose_priv.h"
#include "security/security.h"
#include "security/x509_priv.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

#define ALGORITHM "ES256"
/* More than the group's order has, so that the remainder is even (FIPS 186-5 A.2.1). */
#define SEED_BYTES 48
#define TOKEN_BYTES_MAX 4096
#define CLOCKS_APART_S 60

struct at_service_key {
    EVP_PKEY *key;
    char id[17]; /* kid */
    char issuer[96];
};

/* --- the key --- */

/* The number that makes the authority's key, of whatever sort it is. */
static bool secret_of(EVP_PKEY *from, unsigned char *out, size_t *len)
{
    BIGNUM *secret = NULL;
    if (EVP_PKEY_get_bn_param(from, OSSL_PKEY_PARAM_PRIV_KEY, &secret) != 1 &&
        EVP_PKEY_get_bn_param(from, OSSL_PKEY_PARAM_RSA_D, &secret) != 1) {
        bool raw = EVP_PKEY_get_raw_private_key(from, out, len) == 1; /* Edwards curves */
        ERR_clear_error();
        return raw;
    }
    bool ok = BN_num_bytes(secret) <= (int)*len;
    if (ok) {
        *len = (size_t)BN_bn2bin(secret, out);
    }
    BN_clear_free(secret);
    ERR_clear_error();
    return ok;
}

static bool seed_of(EVP_PKEY *from, unsigned char out[SEED_BYTES])
{
    static char info[] = "atoll service account tokens, 1";
    unsigned char bytes[1024];
    size_t len = sizeof bytes;
    if (!secret_of(from, bytes, &len)) {
        return false;
    }
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    static char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, bytes, len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info - 1),
        OSSL_PARAM_construct_end(),
    };
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, SEED_BYTES, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return ok;
}

/* 1 + seed mod (n - 1), which is a private key of the group. */
static BIGNUM *scalar_of(const unsigned char seed[SEED_BYTES], const EC_GROUP *group, BN_CTX *ctx)
{
    BIGNUM *value = BN_bin2bn(seed, SEED_BYTES, BN_secure_new());
    BIGNUM *top = BN_dup(EC_GROUP_get0_order(group));
    bool ok = value != NULL && top != NULL && BN_sub_word(top, 1) == 1 &&
              BN_nnmod(value, value, top, ctx) == 1 && BN_add_word(value, 1) == 1;
    BN_free(top);
    if (!ok) {
        BN_clear_free(value);
        return NULL;
    }
    return value;
}

static EVP_PKEY *key_of(const BIGNUM *secret, const unsigned char *point, size_t len)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;
    if (build != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, secret) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, len) == 1) {
        params = OSSL_PARAM_BLD_to_param(build);
    }
    EVP_PKEY_CTX *ctx = params != NULL ? EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL) : NULL;
    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static EVP_PKEY *derive(EVP_PKEY *from, char out_id[17])
{
    unsigned char seed[SEED_BYTES];
    unsigned char point[65];
    if (!seed_of(from, seed)) {
        return NULL;
    }
    EVP_PKEY *key = NULL;
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BN_CTX *ctx = BN_CTX_new();
    EC_POINT *public = group != NULL ? EC_POINT_new(group) : NULL;
    BIGNUM *secret = public != NULL && ctx != NULL ? scalar_of(seed, group, ctx) : NULL;
    if (secret != NULL && EC_POINT_mul(group, public, secret, NULL, NULL, ctx) == 1 &&
        EC_POINT_point2oct(group, public, POINT_CONVERSION_UNCOMPRESSED, point, sizeof point,
                           ctx) == sizeof point) {
        char digest[AT_SHA256_HEX_BYTES];
        at_sha256_hex(point, sizeof point, digest);
        snprintf(out_id, 17, "%.16s", digest);
        key = key_of(secret, point, sizeof point);
    }
    BN_clear_free(secret);
    EC_POINT_free(public);
    BN_CTX_free(ctx);
    EC_GROUP_free(group);
    OPENSSL_cleanse(seed, sizeof seed);
    return key;
}

enum at_rc at_service_key_new(const struct at_ca *ca, struct at_service_key **ret,
                              struct at_err *err)
{
    struct at_service_key *key = AT_NEW(struct at_service_key);
    key->key = derive(at_ca_key(ca), key->id);
    if (key->key == NULL) {
        at_free(key);
        return at_x509_fail(err, "cannot derive the key for tokens of service accounts");
    }
    snprintf(key->issuer, sizeof key->issuer, "urn:atoll:%s", at_ca_pin_sha256_hex(ca));
    *ret = key;
    return AT_OK;
}

void at_service_key_free(struct at_service_key *key)
{
    if (key == NULL) {
        return;
    }
    EVP_PKEY_free(key->key);
    at_free(key);
}

const char *at_service_key_issuer(const struct at_service_key *key)
{
    return key->issuer;
}

/* --- base64url without padding (RFC 7515 appendix C) --- */

static enum at_rc url64(const void *data, size_t len, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_base64_encode(data, len, &text);
    for (size_t i = 0; rc == AT_OK && i < text.len && text.data[i] != '='; i++) {
        char c = text.data[i];
        c = c == '+' ? '-' : c == '/' ? '_' : c;
        rc = at_buf_append(out, &c, 1);
    }
    return rc;
}

static enum at_rc url64_json(json_t *value_take, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump(value_take, &text);
    json_decref(value_take);
    return rc == AT_OK ? url64(text.data, text.len, out) : rc;
}

/* --- signatures: OpenSSL's are DER, JWTs' are r and s (RFC 7518 §3.4) --- */

static bool sign(EVP_PKEY *key, const char *text, size_t len,
                 unsigned char out[2 * AT_JOSE_HALF_BYTES])
{
    unsigned char der[128];
    size_t der_len = sizeof der;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(ctx, der, &der_len, (const unsigned char *)text, len) == 1;
    EVP_MD_CTX_free(ctx);
    const unsigned char *at = der;
    ECDSA_SIG *pair = ok ? d2i_ECDSA_SIG(NULL, &at, (long)der_len) : NULL;
    ok = pair != NULL &&
         BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, AT_JOSE_HALF_BYTES) == AT_JOSE_HALF_BYTES &&
         BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + AT_JOSE_HALF_BYTES, AT_JOSE_HALF_BYTES) ==
             AT_JOSE_HALF_BYTES;
    ECDSA_SIG_free(pair);
    return ok;
}

/* --- tokens --- */

enum at_rc at_service_token_sign(const struct at_service_key *key, json_t *claims, char **ret,
                                 struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    unsigned char signature[2 * AT_JOSE_HALF_BYTES];
    json_object_set_new(claims, "iss", json_string(key->issuer));
    enum at_rc rc = url64_json(
        json_pack("{s:s, s:s, s:s}", "alg", ALGORITHM, "kid", key->id, "typ", "JWT"), &out);
    if (rc == AT_OK) {
        rc = at_buf_append(&out, ".", 1);
    }
    if (rc == AT_OK) {
        rc = url64_json(json_incref(claims), &out);
    }
    if (rc == AT_OK && !sign(key->key, out.data, out.len, signature)) {
        return at_x509_fail(err, "cannot sign a token");
    }
    if (rc == AT_OK) {
        rc = at_buf_append(&out, ".", 1);
    }
    if (rc == AT_OK) {
        rc = url64(signature, sizeof signature, &out);
    }
    if (rc != AT_OK || out.len > TOKEN_BYTES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "the token would be longer than %d bytes",
                          TOKEN_BYTES_MAX);
    }
    *ret = at_buf_steal(&out, NULL);
    return AT_OK;
}

/* Clocks of servers differ a little. */
static bool in_time(const json_t *claims, int64_t now_s)
{
    const json_t *until = json_object_get(claims, "exp");
    const json_t *from = json_object_get(claims, "nbf");
    return json_is_integer(until) && json_integer_value(until) > now_s &&
           (from == NULL ||
            (json_is_integer(from) && json_integer_value(from) <= now_s + CLOCKS_APART_S));
}

static enum at_rc token_check(const struct at_service_key *key, const struct at_jose *token,
                              int64_t now_wall_ns, struct at_err *err)
{
    if (!at_streq(at_json_str_at(token->head, "alg", ""), ALGORITHM) ||
        !at_streq(at_json_str_at(token->head, "kid", ""), key->id)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "not a token of this authority");
    }
    if (!at_jose_signed_by(token, key->key, true)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "the token's signature does not fit");
    }
    if (!at_streq(at_json_str_at(token->claims, "iss", ""), key->issuer)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "the token is of another issuer");
    }
    return in_time(token->claims, now_wall_ns / AT_NS_PER_S)
               ? AT_OK
               : at_err_set(err, AT_UNAUTHENTICATED, "the token has expired, or is not valid yet");
}

enum at_rc at_service_token_open(const struct at_service_key *key, struct at_str text,
                                 int64_t now_wall_ns, json_t **ret, struct at_err *err)
{
    struct at_jose token;
    if (!at_jose_read(text, TOKEN_BYTES_MAX, &token)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "not a token of this authority");
    }
    enum at_rc rc = token_check(key, &token, now_wall_ns, err);
    if (rc == AT_OK) {
        *ret = json_incref(token.claims);
    }
    at_jose_done(&token);
    return rc;
}
