/* Any certificate (DER): what is read of it is text that ends where it should, or nothing. */
#include "core/mem.h"
#include "net/tls_int.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t bytes)
{
    if (memchr(text, '\0', bytes) == NULL) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *at = data;
    X509 *cert = d2i_X509(NULL, &at, (long)size);
    ERR_clear_error();
    if (cert == NULL) {
        return 0;
    }
    struct at_tls_peer peer;
    memset(&peer, 0x5a, sizeof peer);
    at_tls_peer_of(cert, &peer);
    check(peer.common_name, sizeof peer.common_name);
    check(peer.serial_hex, sizeof peer.serial_hex);
    if (peer.verified || strlen(peer.fingerprint_sha256_hex) != 64 ||
        peer.n_organizations > AT_ARRAY_LEN(peer.organizations)) {
        abort();
    }
    for (size_t i = 0; i < peer.n_organizations; i++) {
        check(peer.organizations[i], sizeof peer.organizations[i]);
        if (peer.organizations[i][0] == '\0') {
            abort();
        }
    }
    X509_free(cert);
    return 0;
}
