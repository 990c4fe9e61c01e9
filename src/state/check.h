/* Is every stored object what the server would have stored? For looking at a store offline. */
#ifndef AT_STATE_CHECK_H
#define AT_STATE_CHECK_H

#include "store/store.h"

/* note: odd, but can come to be by itself, such as an owner that is gone while its objects wait for
 * the collector. */
typedef void at_state_check_fn(void *ctx, bool note, const char *text);

struct at_state_checked {
    size_t keys, objects;
};

/* Each object of a known kind decodes, validates, stands under its own name and has a uid of its
 * own; ownerReferences that point nowhere are notes. cost: parses every value. */
void at_state_check(struct at_store *store, at_state_check_fn *fn, void *ctx,
                    struct at_state_checked *ret);

#endif
