/* Secrets are sealed wherever the server keeps them. */
#ifndef AT_APPS_SERVER_SEAL_H
#define AT_APPS_SERVER_SEAL_H

#include "security/ring.h"
#include "store/seal.h"

struct at_app_seal {
    struct at_ring *ring;
    struct at_store_seal hooks; /* for at_store_open_sealed */
    char prefix[AT_STORE_KEY_BYTES_MAX];
    size_t prefix_len;
    char *path;
    bool plain; /* a Secret was found that is not sealed */
};

/* Reads the key file; absent is no error yet. own: at_app_seal_close, after the store's end. */
enum at_rc at_app_seal_open(struct at_app_seal *s, const char *path, const struct at_sys *sys,
                            struct at_err *err) AT_WARN_UNUSED;
/* Once the store is open, so that nothing in it needed a key that is not there: makes the first
 * key when there is none. */
enum at_rc at_app_seal_ready(struct at_app_seal *s, struct at_err *err) AT_WARN_UNUSED;
bool at_app_seal_stale(struct at_app_seal *s); /* something is to be sealed anew */
void at_app_seal_close(struct at_app_seal *s);

#endif
