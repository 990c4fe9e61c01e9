/* Signatures of packages as cosign stores them: a "simple signing" payload that names the
 * manifest's digest, signed by ECDSA over P-256 or by Ed25519, in an image tagged sha256-HEX.sig
 * beside the package. Keys are the user's own, in PEM. */
#ifndef AT_PACKAGE_SIGN_H
#define AT_PACKAGE_SIGN_H

#include "package/store.h"

#define AT_PKG_KEY_ID_BYTES 72 /* "sha256:", hex of the public key's SPKI, NUL */

struct at_pkg_key;
/* A public key. err: AT_INVALID it cannot be read, or is of another kind. own: at_pkg_key_free. */
enum at_rc at_pkg_key_public(const char *pem, struct at_pkg_key **ret,
                             struct at_err *err) AT_WARN_UNUSED;
/* A private key; password for an encrypted one, may be NULL. */
enum at_rc at_pkg_key_private(const char *pem, const char *password, struct at_pkg_key **ret,
                              struct at_err *err) AT_WARN_UNUSED;
void at_pkg_key_free(struct at_pkg_key *key); /* accepts NULL */
void at_pkg_key_id(const struct at_pkg_key *key, char out[AT_PKG_KEY_ID_BYTES]);

/* "sha256-HEX.sig"; out of at least 80 bytes. */
void at_pkg_signature_tag(const char *digest, char *out, size_t size);
/* Sign digest, and put that signature beside those in the image `before` (empty: none) into store.
 * reference: what the payload says that was signed, "host/repository".
 * out: *ret_digest of the new signature image. */
enum at_rc at_pkg_sign(const struct at_pkg_store *store, const struct at_pkg_key *key,
                       const char *digest, const char *reference, const char *before,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err) AT_WARN_UNUSED;
/* Does one of keys have signed digest, by the image `signatures` of the store?
 * out: *ret_key its index. err: AT_FORBIDDEN no, with the reason. */
enum at_rc at_pkg_verify(const struct at_pkg_store *store, const char *signatures,
                         const char *digest, const struct at_pkg_key *const *keys, size_t n,
                         size_t *ret_key, struct at_err *err) AT_WARN_UNUSED;

#endif
