#include "security/jwt.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"
#include "security/jose_priv.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192

enum algorithm { RS256, ES256 };

struct key {
    char *id; /* NULL: none */
    enum algorithm algorithm;
    EVP_PKEY *key;
};
struct at_jwks {
    struct key items[AT_JWT_KEYS_MAX];
    size_t n;
};

static bool decoded(const char *text, struct at_buf *out)
{
    return text != NULL && text[0] != '\0' && strpbrk(text, "+/=\r\n \t") == NULL &&
           at_base64_decode(text, strlen(text), out) == AT_OK;
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *rsa_key(const json_t *jwk)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf n = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf e = {0};
    if (!decoded(at_json_str_at(jwk, "n", NULL), &n) ||
        !decoded(at_json_str_at(jwk, "e", NULL), &e) || n.len < RSA_BITS_MIN / 8 ||
        n.len > RSA_BITS_MAX / 8 + 1 || e.len > 8) {
        return NULL;
    }
    BIGNUM *bn_n = BN_bin2bn((unsigned char *)n.data, (int)n.len, NULL);
    BIGNUM *bn_e = BN_bin2bn((unsigned char *)e.data, (int)e.len, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (bn_n != NULL && bn_e != NULL && build != NULL && BN_num_bits(bn_n) >= RSA_BITS_MIN &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, bn_n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, bn_e) == 1) {
        key = key_from("RSA", build);
    }
    OSSL_PARAM_BLD_free(build);
    BN_free(bn_n);
    BN_free(bn_e);
    return key;
}

static EVP_PKEY *ec_key(const json_t *jwk)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf x = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf y = {0};
    unsigned char point[1 + 2 * AT_JOSE_HALF_BYTES] = {4};
    if (!at_streq(at_json_str_at(jwk, "crv", NULL), "P-256") ||
        !decoded(at_json_str_at(jwk, "x", NULL), &x) ||
        !decoded(at_json_str_at(jwk, "y", NULL), &y) || x.len != AT_JOSE_HALF_BYTES ||
        y.len != AT_JOSE_HALF_BYTES) {
        return NULL;
    }
    memcpy(point + 1, x.data, AT_JOSE_HALF_BYTES);
    memcpy(point + 1 + AT_JOSE_HALF_BYTES, y.data, AT_JOSE_HALF_BYTES);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (build != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point) ==
            1) {
        key = key_from("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    return key;
}

/* The algorithm follows from the key, never from the token alone: a public RSA key is no secret for
 * an HMAC. */
static void key_take(struct at_jwks *keys, const json_t *jwk)
{
    const char *kty = at_json_str_at(jwk, "kty", "");
    const char *use = at_json_str_at(jwk, "use", NULL);
    const char *alg = at_json_str_at(jwk, "alg", NULL);
    const char *id = at_json_str_at(jwk, "kid", NULL);
    bool rsa = at_streq(kty, "RSA");
    if (keys->n == AT_JWT_KEYS_MAX || (!rsa && !at_streq(kty, "EC")) ||
        (use != NULL && !at_streq(use, "sig")) ||
        (alg != NULL && !at_streq(alg, rsa ? "RS256" : "ES256"))) {
        return;
    }
    EVP_PKEY *key = rsa ? rsa_key(jwk) : ec_key(jwk);
    ERR_clear_error();
    if (key != NULL) {
        keys->items[keys->n++] = (struct key){at_strdup(id), rsa ? RS256 : ES256, key};
    }
}

enum at_rc at_jwks_parse(const char *text, size_t len, struct at_jwks **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    if (at_json_parse_last(text, len, &root, NULL) != AT_OK ||
        !json_is_array(json_object_get(root, "keys"))) {
        return at_err_set(err, AT_INVALID, "it is no JSON Web Key Set");
    }
    struct at_jwks *keys = AT_NEW(struct at_jwks);
    size_t i;
    json_t *jwk;
    json_array_foreach(json_object_get(root, "keys"), i, jwk)
    {
        key_take(keys, jwk);
    }
    if (keys->n == 0) {
        at_jwks_free(keys);
        return at_err_set(err, AT_INVALID, "it holds no key for RS256 or ES256");
    }
    *ret = keys;
    return AT_OK;
}

void at_jwks_free(struct at_jwks *keys)
{
    if (keys == NULL) {
        return;
    }
    for (size_t i = 0; i < keys->n; i++) {
        at_free(keys->items[i].id);
        EVP_PKEY_free(keys->items[i].key);
    }
    at_free(keys);
}

/* --- a token --- */

static enum at_rc signature_check(const struct at_jwks *keys, const struct at_jose *p,
                                  struct at_err *err)
{
    const char *alg = at_json_str_at(p->head, "alg", "");
    const char *id = at_json_str_at(p->head, "kid", NULL);
    if (json_object_get(p->head, "crit") != NULL) {
        return at_err_set(err, AT_UNAUTHENTICATED, "its head demands what is not known here");
    }
    if (!at_streq(alg, "RS256") && !at_streq(alg, "ES256")) {
        return at_err_set(err, AT_UNAUTHENTICATED, "its algorithm is neither RS256 nor ES256");
    }
    enum algorithm algorithm = alg[0] == 'R' ? RS256 : ES256;
    bool tried = false;
    for (size_t i = 0; keys != NULL && i < keys->n; i++) {
        const struct key *key = &keys->items[i];
        if (key->algorithm != algorithm || (id != NULL && !at_streq(key->id, id))) {
            continue;
        }
        tried = true;
        if (at_jose_signed_by(p, key->key, algorithm == ES256)) {
            return AT_OK;
        }
    }
    return tried ? at_err_set(err, AT_UNAUTHENTICATED, "its signature is not the issuer's")
                 : at_err_set(err, AT_NOT_FOUND, "the issuer has no such key");
}

bool at_jwt_meant_for(const json_t *claims, const char *audience)
{
    const json_t *aud = json_object_get(claims, "aud");
    size_t i;
    const json_t *one;
    if (json_is_string(aud)) {
        return at_streq(json_string_value(aud), audience);
    }
    json_array_foreach(aud, i, one)
    {
        if (at_streq(json_string_value(one), audience)) {
            return true;
        }
    }
    return false;
}

/* A moment in seconds, whole or not. */
static bool moment(const json_t *claims, const char *name, double *ret)
{
    const json_t *value = json_object_get(claims, name);
    if (!json_is_number(value)) {
        return false;
    }
    *ret = json_number_value(value);
    return *ret >= 0 && *ret < 253402300800.0; /* the year 10000 */
}

static enum at_rc times_check(const json_t *claims, int64_t skew_s, int64_t now_wall_ns,
                              int64_t *ret_expires_ns, struct at_err *err)
{
    double now = (double)(now_wall_ns / AT_NS_PER_S);
    double exp = 0;
    double at = 0;
    if (!moment(claims, "exp", &exp)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "it does not say when it expires");
    }
    if (now >= exp + (double)skew_s) {
        return at_err_set(err, AT_UNAUTHENTICATED, "it expired %.0f s ago by this clock",
                          now - exp);
    }
    static const char *const BEGINS[] = {"nbf", "iat"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BEGINS); i++) {
        if (json_object_get(claims, BEGINS[i]) == NULL) {
            continue;
        }
        if (!moment(claims, BEGINS[i], &at)) {
            return at_err_set(err, AT_UNAUTHENTICATED, "its %s is no time", BEGINS[i]);
        }
        if (at > now + (double)skew_s) {
            return at_err_set(err, AT_UNAUTHENTICATED, "its %s lies %.0f s ahead of this clock",
                              BEGINS[i], at - now);
        }
    }
    *ret_expires_ns = (int64_t)exp * AT_NS_PER_S;
    return AT_OK;
}

/* Names that begin with system: are given by this server alone. */
static bool name_make(const char *prefix, const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%s", prefix != NULL ? prefix : "", name);
    if (n <= 0 || (size_t)n >= size || name[0] == '\0' || strncmp(out, "system:", 7) == 0) {
        out[0] = '\0';
        return false;
    }
    return true;
}

static void groups_take(const json_t *claims, const struct at_jwt_policy *policy,
                        struct at_identity *who)
{
    const json_t *groups =
        policy->groups_claim != NULL ? json_object_get(claims, policy->groups_claim) : NULL;
    size_t n = json_is_string(groups) ? 1 : json_array_size(groups);
    for (size_t i = 0; i < n && who->n_groups < AT_IDENTITY_GROUPS_MAX; i++) {
        const json_t *one = json_is_string(groups) ? groups : json_array_get(groups, i);
        if (json_is_string(one) && name_make(policy->groups_prefix, json_string_value(one),
                                             who->groups[who->n_groups], sizeof who->groups[0])) {
            who->n_groups++;
        }
    }
}

static enum at_rc identity_take(const json_t *claims, const struct at_jwt_policy *policy,
                                struct at_identity *ret, struct at_err *err)
{
    struct at_identity who = {0};
    const json_t *verified = json_object_get(claims, "email_verified");
    const char *name = json_string_value(json_object_get(claims, policy->username_claim));
    if (name == NULL) {
        return at_err_set(err, AT_UNAUTHENTICATED, "it has no claim %s", policy->username_claim);
    }
    if (at_streq(policy->username_claim, "email") && verified != NULL && !json_is_true(verified)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "its email is not verified");
    }
    if (!name_make(policy->username_prefix, name, who.user, sizeof who.user)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "its claim %s is no name that a user may have",
                          policy->username_claim);
    }
    groups_take(claims, policy, &who);
    *ret = who;
    return AT_OK;
}

enum at_rc at_jwt_check(const struct at_jwks *keys, const struct at_jwt_policy *policy,
                        struct at_str text, int64_t now_wall_ns, struct at_identity *ret,
                        int64_t *ret_expires_ns, struct at_err *err)
{
    struct at_jose p;
    if (!at_jose_read(text, AT_JWT_BYTES_MAX, &p)) {
        return at_err_set(err, AT_INVALID, "it is no JSON Web Token");
    }
    enum at_rc rc = AT_OK;
    if (!at_streq(at_json_str_at(p.claims, "iss", NULL), policy->issuer)) {
        rc = at_err_set(err, AT_INVALID, "it is of another issuer");
    }
    rc = rc == AT_OK ? signature_check(keys, &p, err) : rc;
    if (rc == AT_OK && !at_jwt_meant_for(p.claims, policy->audience)) {
        rc = at_err_set(err, AT_UNAUTHENTICATED, "it is meant for another audience");
    }
    rc = rc == AT_OK ? times_check(p.claims, policy->skew_s, now_wall_ns, ret_expires_ns, err) : rc;
    rc = rc == AT_OK ? identity_take(p.claims, policy, ret, err) : rc;
    at_jose_done(&p);
    return rc;
}
