/* The form that all JSON Web Tokens have (RFC 7515), whoever signed them; inside this folder. */
#ifndef AT_SECURITY_JOSE_PRIV_H
#define AT_SECURITY_JOSE_PRIV_H

#include "core/json.h"
#include "core/str.h"

#include <openssl/types.h>

#define AT_JOSE_HALF_BYTES 32 /* of an ES256 signature: r and s (RFC 7518 §3.4) */

struct at_jose {
    json_t *head, *claims;
    struct at_str signed_text; /* in the token */
    struct at_buf signature;
};
/* Nothing but the form is checked. False: it is no token, and longer than bytes_max is none. */
bool at_jose_read(struct at_str text, size_t bytes_max, struct at_jose *ret);
void at_jose_done(struct at_jose *token);
/* Is it signed with the key: by ES256, or else by RS256? */
bool at_jose_signed_by(const struct at_jose *token, EVP_PKEY *key, bool es256);

#endif
