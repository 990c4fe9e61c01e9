#define OPENSSL_SUPPRESS_DEPRECATED
#include "core/digest.h"

#include "core/mem.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

/* The old calls, for they take nothing from the heap: gateways make a digest per request. */
void at_sha256(const void *data, size_t len, unsigned char out[AT_SHA256_BYTES])
{
    SHA256_CTX ctx;
    int done = SHA256_Init(&ctx) & SHA256_Update(&ctx, data, len) & SHA256_Final(out, &ctx);
    assert(done == 1);
}

void at_hex_encode(const void *data, size_t len, char *out)
{
    static const char DIGITS[] = "0123456789abcdef";
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = DIGITS[bytes[i] >> 4];
        out[2 * i + 1] = DIGITS[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

void at_sha256_hex(const void *data, size_t len, char out[AT_SHA256_HEX_BYTES])
{
    unsigned char raw[AT_SHA256_BYTES];
    at_sha256(data, len, raw);
    at_hex_encode(raw, sizeof raw, out);
}

struct at_sha256_stream {
    EVP_MD_CTX *md;
};

struct at_sha256_stream *at_sha256_stream_new(void)
{
    struct at_sha256_stream *s = AT_NEW(struct at_sha256_stream);
    s->md = EVP_MD_CTX_new();
    int done = EVP_DigestInit_ex(s->md, EVP_sha256(), NULL);
    assert(done == 1);
    return s;
}

void at_sha256_stream_update(struct at_sha256_stream *s, const void *data, size_t len)
{
    int done = EVP_DigestUpdate(s->md, data, len);
    assert(done == 1);
}

void at_sha256_stream_hex(struct at_sha256_stream *s, char out[AT_SHA256_HEX_BYTES])
{
    unsigned char raw[AT_SHA256_BYTES];
    int done = EVP_DigestFinal_ex(s->md, raw, NULL);
    assert(done == 1);
    at_hex_encode(raw, sizeof raw, out);
}

void at_sha256_stream_free(struct at_sha256_stream *s)
{
    if (s != NULL) {
        EVP_MD_CTX_free(s->md);
        at_free(s);
    }
}

enum at_rc at_base64_encode(const void *data, size_t len, struct at_buf *out)
{
    static const char ALPHABET[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (len > SIZE_MAX / 2) {
        return AT_TOO_LARGE;
    }
    size_t size = (len + 2) / 3 * 4;
    char *place;
    enum at_rc rc = at_buf_reserve(out, size, &place);
    if (rc != AT_OK) {
        return rc;
    }
    const unsigned char *in = data;
    for (size_t i = 0; i < len; i += 3) {
        size_t have = len - i;
        uint32_t group = (uint32_t)in[i] << 16 | (have > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                         (have > 2 ? (uint32_t)in[i + 2] : 0);
        *place++ = ALPHABET[group >> 18];
        *place++ = ALPHABET[group >> 12 & 63];
        *place++ = have > 1 ? ALPHABET[group >> 6 & 63] : '=';
        *place++ = have > 2 ? ALPHABET[group & 63] : '=';
    }
    at_buf_commit(out, size);
    return AT_OK;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == '+' || c == '-') {
        return 62;
    }
    return c == '/' || c == '_' ? 63 : -1;
}

enum at_rc at_base64_decode(const char *text, size_t len, struct at_buf *out)
{
    char *place;
    enum at_rc rc = at_buf_reserve(out, len / 4 * 3 + 3, &place);
    if (rc != AT_OK) {
        return rc;
    }
    uint32_t group = 0;
    size_t digits = 0;
    size_t pads = 0;
    size_t written = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n' || text[i] == '\r') {
            continue; /* as Go's decoder, which Kubernetes clients rely on */
        }
        if (text[i] == '=') {
            pads++;
            continue;
        }
        int value = sextet(text[i]);
        if (value < 0 || pads != 0) {
            return AT_INVALID;
        }
        group = group << 6 | (uint32_t)value;
        if (++digits % 4 == 0) {
            place[written++] = (char)(group >> 16);
            place[written++] = (char)(group >> 8);
            place[written++] = (char)group;
            group = 0;
        }
    }
    size_t left = digits % 4;
    /* Bits that no byte takes must be zero, so that each value has one text. */
    if (left == 1 || (pads != 0 && (left == 0 || left + pads != 4)) ||
        (left == 2 && (group & 0xf) != 0) || (left == 3 && (group & 3) != 0)) {
        return AT_INVALID;
    }
    if (left == 2) {
        place[written++] = (char)(group >> 4);
    } else if (left == 3) {
        place[written++] = (char)(group >> 10);
        place[written++] = (char)(group >> 2);
    }
    at_buf_commit(out, written);
    return AT_OK;
}

bool at_equal_const_time(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}
