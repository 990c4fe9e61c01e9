/* Manifests and indexes: what parses holds what oci.h says. */
#include "core/mem.h"
#include "package/oci.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct at_pkg_descriptor *d)
{
    char why[64];
    const char *path = at_pkg_layer_path(d);
    if (!at_pkg_digest_is(d->digest, strlen(d->digest)) || d->bytes < 0 || d->media_type == NULL) {
        abort();
    }
    if (at_pkg_layer_kind(d) == AT_PKG_LAYER_RAW && path == NULL) {
        abort();
    }
    if (path != NULL && at_pkg_path_is_safe(path, why, sizeof why) &&
        (path[0] == '/' || strncmp(path, "../", 3) == 0 || strstr(path, "/../") != NULL)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_manifest m;
    struct at_pkg_index index;
    if (at_pkg_manifest_parse((const char *)data, size, arena, &m, NULL) == AT_OK) {
        check(&m.config);
        for (size_t i = 0; i < m.n_layers; i++) {
            check(&m.layers[i]);
        }
        at_pkg_manifest_done(&m);
    }
    if (at_pkg_index_parse((const char *)data, size, arena, &index, NULL) == AT_OK) {
        for (size_t i = 0; i < index.n_manifests; i++) {
            check(&index.manifests[i]);
        }
        at_pkg_index_done(&index);
    }
    return 0;
}
