/* SHA-256, hex, base64, comparison in constant time: pure, on OpenSSL's EVP. */
#ifndef AT_CORE_DIGEST_H
#define AT_CORE_DIGEST_H

#include "core/buf.h"

#define AT_SHA256_BYTES 32
#define AT_SHA256_HEX_BYTES 65 /* with the NUL */

void at_sha256(const void *data, size_t len, unsigned char out[AT_SHA256_BYTES]);
void at_sha256_hex(const void *data, size_t len, char out[AT_SHA256_HEX_BYTES]);

struct at_sha256_stream;
struct at_sha256_stream *at_sha256_stream_new(void);
void at_sha256_stream_update(struct at_sha256_stream *s, const void *data, size_t len);
void at_sha256_stream_hex(struct at_sha256_stream *s,
                          char out[AT_SHA256_HEX_BYTES]); /* ends the stream's use */
void at_sha256_stream_free(struct at_sha256_stream *s);

void at_hex_encode(const void *data, size_t len, char *out); /* out[2 * len + 1] */
enum at_rc at_base64_encode(const void *data, size_t len, struct at_buf *out) AT_WARN_UNUSED;
/* Standard or URL alphabet, padding optional. err: AT_INVALID. */
enum at_rc at_base64_decode(const char *text, size_t len, struct at_buf *out) AT_WARN_UNUSED;
bool at_equal_const_time(const void *a, const void *b, size_t len);

#endif
