/* Questions about certificates that others made. Pure. */
#ifndef AT_SECURITY_X509_H
#define AT_SECURITY_X509_H

#include "core/err.h"

#include <stdbool.h>
#include <stdint.h>

/* SHA-256 of the key (SPKI) of the first certificate of a PEM text, hexadecimal. err: AT_INVALID.
 */
enum at_rc at_cert_pin_sha256_hex(const char *pem, char out[65], struct at_err *err) AT_WARN_UNUSED;
/* Is the first certificate of chain_pem one for servers that whoever trusts ca_pem takes, now or
 * at its time? Its names and its dates are not looked at. err: AT_INVALID why not. */
enum at_rc at_cert_chain_check(const char *chain_pem, const char *ca_pem,
                               struct at_err *err) AT_WARN_UNUSED;

#endif
