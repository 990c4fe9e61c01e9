/* Parts of NVIDIA's GPUs, made and unmade by MIG. Any thread; blocking, for the worker pool. */
#ifndef AT_DEVICES_MIG_H
#define AT_DEVICES_MIG_H

#include "core/json.h"

/* What a GPU shall be divided into. A profile is NVIDIA's name of a kind of part, such as 3g.20gb.
 */
#define AT_MIG_PARTS_MAX 16
struct at_mig_want {
    const char *gpu; /* its id, or "*": each that no other entry names */
    const char *profiles[AT_MIG_PARTS_MAX];
    size_t n; /* 0: whole */
};

/* What came of it, for people: one of these says the most urgent thing of all GPUs. */
enum at_mig_state {
    AT_MIG_AS_WANTED,
    AT_MIG_BUSY,    /* waits until nothing runs on some GPU */
    AT_MIG_RESET,   /* the mode is set, and holds after the GPU was reset */
    AT_MIG_REFUSED, /* these parts cannot be there together, or the driver said no */
};
struct at_mig_result {
    enum at_mig_state state;
    bool changed; /* some GPU is divided in another way than before: the inventory is stale */
    char message[256];
};

/* Make each GPU what wants say, as far as nothing of `busy` (ids of GPUs and of parts that somebody
 * has) and no process that the driver tells of is on it. A GPU is changed as a whole: it is touched
 * only when all of it is free. Whatever was done when this ended half-way, the next call takes it
 * on from there. library NULL: NVIDIA's. */
void at_mig_converge(const char *library, const struct at_mig_want *wants, size_t n,
                     const char *const *busy, size_t n_busy, struct at_mig_result *ret);

#endif
