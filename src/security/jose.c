#include "security/jose_priv.h"

#include "core/digest.h"
#include "core/mem.h"

#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

/* Base64url without padding (RFC 7515 §2). */
static bool part_decode(struct at_str part, struct at_buf *out)
{
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '_') {
            return false;
        }
    }
    return part.len > 0 && at_base64_decode(part.ptr, part.len, out) == AT_OK;
}

/* Members named twice are refused: whoever looked before might have taken the other one. */
static json_t *part_json(struct at_str part)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    json_t *value = NULL;
    if (!part_decode(part, &text) ||
        at_json_parse(text.data != NULL ? text.data : "", text.len, &value, NULL) != AT_OK ||
        !json_is_object(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

bool at_jose_read(struct at_str text, size_t bytes_max, struct at_jose *ret)
{
    struct at_str rest = text;
    struct at_jose p = {0};
    if (text.len > bytes_max || text.len == 0) {
        return false;
    }
    struct at_str head = at_str_cut(&rest, '.');
    struct at_str claims = at_str_cut(&rest, '.');
    if (rest.len == 0 || memchr(rest.ptr, '.', rest.len) != NULL) {
        return false;
    }
    p.signed_text = (struct at_str){text.ptr, head.len + 1 + claims.len};
    p.head = part_json(head);
    p.claims = part_json(claims);
    if (p.head == NULL || p.claims == NULL || !part_decode(rest, &p.signature)) {
        at_jose_done(&p);
        return false;
    }
    *ret = p;
    return true;
}

void at_jose_done(struct at_jose *token)
{
    json_decref(token->head);
    json_decref(token->claims);
    at_buf_done(&token->signature);
}

/* r and s as OpenSSL wants them. own: OPENSSL_free. */
static int ecdsa_der(const struct at_buf *raw, unsigned char **ret)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    const unsigned char *bytes = (const unsigned char *)raw->data;
    BIGNUM *r = BN_bin2bn(bytes, AT_JOSE_HALF_BYTES, NULL);
    BIGNUM *s = BN_bin2bn(bytes + AT_JOSE_HALF_BYTES, AT_JOSE_HALF_BYTES, NULL);
    int len = -1;
    if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = NULL;
        s = NULL;
        len = i2d_ECDSA_SIG(sig, ret);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len;
}

bool at_jose_signed_by(const struct at_jose *token, EVP_PKEY *key, bool es256)
{
    unsigned char *der = NULL;
    const unsigned char *sig = (const unsigned char *)token->signature.data;
    size_t len = token->signature.len;
    if (es256) {
        int n = len == 2 * (size_t)AT_JOSE_HALF_BYTES ? ecdsa_der(&token->signature, &der) : -1;
        if (n <= 0) {
            OPENSSL_free(der);
            return false;
        }
        sig = der;
        len = (size_t)n;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestVerify(ctx, sig, len, (const unsigned char *)token->signed_text.ptr,
                               token->signed_text.len) == 1;
    EVP_MD_CTX_free(ctx);
    OPENSSL_free(der);
    ERR_clear_error();
    return ok;
}
