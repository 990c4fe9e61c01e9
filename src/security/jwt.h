/* JSON Web Tokens of others (RFC 7519), signed by RS256 or ES256 (RFC 7518) with a key of a JSON
 * Web Key Set (RFC 7517), as OpenID Connect issues them. Pure: keys and time are given. */
#ifndef AT_SECURITY_JWT_H
#define AT_SECURITY_JWT_H

#include "core/json.h"
#include "core/str.h"
#include "security/security.h"

#define AT_JWT_BYTES_MAX 16384
#define AT_JWT_KEYS_MAX 32

struct at_jwks; /* immutable */
/* Keys that are none for signatures by these algorithms are left out. err: AT_INVALID it is no key
 * set, or holds no key that can be used. own: at_jwks_free. */
enum at_rc at_jwks_parse(const char *text, size_t len, struct at_jwks **ret,
                         struct at_err *err) AT_WARN_UNUSED;
void at_jwks_free(struct at_jwks *keys); /* accepts NULL */

struct at_jwt_policy {
    const char *issuer, *audience;                /* both must be what the token says */
    const char *username_claim, *username_prefix; /* prefix may be "" */
    const char *groups_claim, *groups_prefix;     /* claim NULL: no groups */
    int64_t skew_s;                               /* how far clocks may be apart */
};

/* Is audience the one, or one of those, that the claims are meant for? */
bool at_jwt_meant_for(const json_t *claims, const char *audience);
/* Checks all, and fills in who. err: AT_INVALID it does not even say that it is of this issuer |
 * AT_UNAUTHENTICATED with the reason, which is for logs, not for whoever sent it | AT_NOT_FOUND no
 * such key: the set may be old. *ret_expires_ns: wall clock. */
enum at_rc at_jwt_check(const struct at_jwks *keys, const struct at_jwt_policy *policy,
                        struct at_str text, int64_t now_wall_ns, struct at_identity *ret,
                        int64_t *ret_expires_ns, struct at_err *err) AT_WARN_UNUSED;

#endif
