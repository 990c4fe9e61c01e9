/* Names of packages: what parses is written out and parses to the same again. */
#include "core/mem.h"
#include "package/ref.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_strndup((const char *)data, size);
    char out[3 * PKG_REF_BYTES_MAX];
    struct at_pkg_ref ref, again;
    if (at_pkg_ref_parse(text, &ref, NULL) != AT_OK) {
        return 0;
    }
    at_pkg_ref_format(&ref, out, sizeof out);
    AT_CLEANUP(at_cleanup_free)
    char *whole = at_asprintf("%s%s", ref.place == AT_PKG_REGISTRY ? "oci://" : "", out);
    if (strlen(whole) >= PKG_REF_BYTES_MAX) {
        return 0;
    }
    if (at_pkg_ref_parse(whole, &again, NULL) != AT_OK || strcmp(ref.host, again.host) != 0 ||
        strcmp(ref.tag, again.tag) != 0 || strcmp(ref.digest, again.digest) != 0) {
        abort();
    }
    return 0;
}
