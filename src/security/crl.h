/* Certificate revocation lists (RFC 5280 §5) of authorities that are not ours. Pure. */
#ifndef AT_SECURITY_CRL_H
#define AT_SECURITY_CRL_H

#include "core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AT_CRL_LISTS_MAX 64
#define AT_CRL_ENTRIES_MAX 1000000

struct at_crl;

/* All lists of a PEM text, or the one of a DER file; each must be signed by one of the authorities
 * of ca_pem.
 * err: AT_INVALID no list, or one that none of them signed | AT_TOO_LARGE.  own: at_crl_free. */
enum at_rc at_crl_parse(const char *text, size_t len, const char *ca_pem, struct at_crl **ret,
                        struct at_err *err) AT_WARN_UNUSED;
void at_crl_free(struct at_crl *crl); /* accepts NULL */
/* issuer: SHA-256 of the issuer's name (DER), hexadecimal. serial: upper case without leading
 * zeros. */
bool at_crl_has(const struct at_crl *crl, const char *issuer_sha256_hex, const char *serial_hex);
size_t at_crl_entries(const struct at_crl *crl);
/* When the first of the lists wants to be replaced, ns since 1970. INT64_MAX: none says. */
int64_t at_crl_next_update_ns(const struct at_crl *crl);

#endif
