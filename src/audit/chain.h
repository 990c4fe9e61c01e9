/* The chain: hash n = SHA-256(hash n-1, text n), where text n is a line up to its hash. A seal is a
 * record that carries the hash before it and a signature over it. Pure. */
#ifndef AT_AUDIT_CHAIN_H
#define AT_AUDIT_CHAIN_H

#include "core/buf.h"
#include "core/digest.h"

#include <openssl/types.h>

#define AT_AUDIT_CHAIN_ID_BYTES 17 /* 16 hex digits and the NUL */
#define AT_AUDIT_SIGNATURE_HEX_BYTES 129
#define AT_AUDIT_HASH_TAIL_BYTES (sizeof ",\"hash\":\"\"}" - 1 + AT_SHA256_HEX_BYTES - 1)

struct at_audit_hasher; /* keeps OpenSSL's objects between records */
struct at_audit_hasher *at_audit_hasher_new(void);
void at_audit_hasher_free(struct at_audit_hasher *h);
/* hash: in the one before, out the next. text: the line without its hash member. */
void at_audit_hasher_step(struct at_audit_hasher *h, unsigned char hash[AT_SHA256_BYTES],
                          const void *text, size_t len);

/* A line (without \n) into its parts. err: AT_CORRUPT it is none of ours. */
struct at_audit_line {
    uint64_t seq;
    size_t text_len; /* what is hashed */
    unsigned char hash[AT_SHA256_BYTES];
};
enum at_rc at_audit_line_parse(const char *line, size_t len, struct at_audit_line *ret,
                               struct at_err *err) AT_WARN_UNUSED;
bool at_audit_hex_decode(const char *hex, size_t n, unsigned char *out);

/* --- seals --- */
struct at_audit_seal {
    char chain[AT_AUDIT_CHAIN_ID_BYTES];
    uint64_t seq; /* of the last record that it covers */
    unsigned char hash[AT_SHA256_BYTES];
    char signature_hex[AT_AUDIT_SIGNATURE_HEX_BYTES];
};
/* The pair in dir, made when absent (0600). err: AT_CORRUPT. own: EVP_PKEY_free. */
enum at_rc at_audit_key_open(const char *dir, EVP_PKEY **ret, struct at_err *err) AT_WARN_UNUSED;
/* A public key in PEM. err: AT_CORRUPT it is none. own: EVP_PKEY_free. */
enum at_rc at_audit_key_public(const char *pem, size_t len, EVP_PKEY **ret,
                               struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_audit_seal_sign(EVP_PKEY *key, struct at_audit_seal *seal,
                              struct at_err *err) AT_WARN_UNUSED;
bool at_audit_seal_check(EVP_PKEY *key, const struct at_audit_seal *seal);
/* audit.head: one JSON object. err: AT_CORRUPT. */
enum at_rc at_audit_head_write(const struct at_audit_seal *seal, struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_audit_head_parse(const char *text, size_t len, struct at_audit_seal *ret,
                               struct at_err *err) AT_WARN_UNUSED;

#endif
