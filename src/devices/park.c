#include "devices/park.h"

#include "core/mem.h"
#include "core/units.h"
#include "sys/entry.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

/* CUDA 12.8's public header: numbers and layouts are part of the ABI. */
#define DRIVER "libcuda.so.1"
#define CUDA_OUT_OF_MEMORY 2
#define CUDA_NOT_READY 600
#define CUDA_NOT_SUPPORTED 801
enum process_state { RUNNING, LOCKED, PARKED, FAILED, PARKING, RETURNING };
struct args { /* of all four calls */
    uint32_t timeout_ms;
    uint32_t reserved[15];
};
_Static_assert(sizeof(struct args) == 64, "as CUcheckpointLockArgs");

#define POLL_NS (20 * AT_NS_PER_MS)
#define SETTLE_NS (600 * AT_NS_PER_S) /* a copy that somebody else began */

struct driver {
    void *lib;
    int (*init)(unsigned);
    int (*state)(int, int *);
    int (*lock)(int, struct args *);
    int (*park)(int, struct args *);
    int (*unpark)(int, struct args *);
    int (*unlock)(int, struct args *);
    int (*name)(int, const char **);
};

struct processes {
    struct driver *driver;
    pid_t pids[AT_GPU_PARK_PIDS_MAX];
    size_t n;
};

static enum at_gpu_park_end load(const char *library, struct driver *d, struct at_err *why)
{
    d->lib = dlopen(library != NULL ? library : DRIVER, RTLD_NOW | RTLD_LOCAL);
    if (d->lib == NULL) {
        (void)at_err_set(why, AT_NOT_FOUND, "this machine has no CUDA driver");
        return AT_GPU_PARK_UNSUPPORTED;
    }
    const struct {
        const char *symbol;
        void **to;
    } rows[] = {{"cuInit", (void **)&d->init},
                {"cuCheckpointProcessGetState", (void **)&d->state},
                {"cuCheckpointProcessLock", (void **)&d->lock},
                {"cuCheckpointProcessCheckpoint", (void **)&d->park},
                {"cuCheckpointProcessRestore", (void **)&d->unpark},
                {"cuCheckpointProcessUnlock", (void **)&d->unlock}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        *rows[i].to = dlsym(d->lib, rows[i].symbol);
        if (*rows[i].to == NULL) {
            (void)at_err_set(why, AT_UNSUPPORTED,
                             "this GPU driver cannot park processes (570 or newer can)");
            return AT_GPU_PARK_UNSUPPORTED;
        }
    }
    *(void **)&d->name = dlsym(d->lib, "cuGetErrorName");
    int result = d->init(0);
    if (result != 0) {
        (void)at_err_set(why, AT_UNSUPPORTED, "the GPU driver does not start: error %d", result);
        return AT_GPU_PARK_UNSUPPORTED;
    }
    return AT_GPU_PARK_DONE;
}

static const char *error_name(const struct driver *d, int result, char text[32])
{
    const char *name = NULL;
    if (d->name != NULL && d->name(result, &name) == 0 && name != NULL) {
        return name;
    }
    snprintf(text, 32, "error %d", result);
    return text;
}

static void say(const struct driver *d, struct at_err *why, const char *what, pid_t pid, int result)
{
    char text[32];
    (void)at_err_set(why, AT_INTERNAL, "%s process %d: %s", what, (int)pid,
                     error_name(d, result, text));
}

/* Its state, once it rests; -1: it is gone. */
static int state_of(const struct driver *d, pid_t pid)
{
    int state = -1;
    for (int64_t waited = 0; waited < SETTLE_NS; waited += POLL_NS) {
        if (d->state((int)pid, &state) != 0) {
            return -1;
        }
        if (state != PARKING && state != RETURNING) {
            return state;
        }
        at_sleep_ns(POLL_NS);
    }
    return state;
}

/* Those of pids that the driver knows. */
static enum at_gpu_park_end find(struct driver *d, const pid_t *pids, size_t n,
                                 struct processes *ret, struct at_err *why)
{
    *ret = (struct processes){.driver = d};
    for (size_t i = 0; i < n && ret->n < AT_GPU_PARK_PIDS_MAX; i++) {
        int state, result = d->state((int)pids[i], &state);
        if (result == CUDA_NOT_SUPPORTED) {
            (void)at_err_set(why, AT_UNSUPPORTED, "this GPU driver cannot park processes");
            return AT_GPU_PARK_UNSUPPORTED;
        }
        if (result == 0) {
            ret->pids[ret->n++] = pids[i];
        }
    }
    if (ret->n == 0) {
        (void)at_err_set(why, AT_NOT_FOUND, "none of its processes uses a GPU");
        return AT_GPU_PARK_NOTHING;
    }
    return AT_GPU_PARK_DONE;
}

/* call on each process that is in state `from`. Returns the first failure; 0: none. */
static int each(const struct processes *p, int (*call)(int, struct args *), int from,
                uint32_t timeout_ms, pid_t *ret_pid)
{
    int first = 0;
    for (size_t i = 0; i < p->n && first == 0; i++) {
        struct args args = {.timeout_ms = timeout_ms};
        int state = state_of(p->driver, p->pids[i]);
        if (state != from) {
            continue;
        }
        int result = call((int)p->pids[i], &args);
        if (result != 0 && state_of(p->driver, p->pids[i]) >= 0) { /* else it ended meanwhile */
            first = result;
            *ret_pid = p->pids[i];
        }
    }
    return first;
}

static bool any_is(const struct processes *p, int state)
{
    for (size_t i = 0; i < p->n; i++) {
        if (state_of(p->driver, p->pids[i]) == state) {
            return true;
        }
    }
    return false;
}

/* All run again, or some cannot. */
static bool put_back(const struct processes *p)
{
    pid_t pid;
    (void)each(p, p->driver->unpark, PARKED, 0, &pid);
    (void)each(p, p->driver->unlock, LOCKED, 0, &pid);
    return !any_is(p, PARKED) && !any_is(p, LOCKED) && !any_is(p, FAILED);
}

static enum at_gpu_park_end park(const struct processes *p, struct at_err *why)
{
    const struct driver *d = p->driver;
    pid_t pid = 0;
    int result = each(p, d->lock, RUNNING, AT_GPU_PARK_LOCK_MS, &pid);
    if (result != 0) {
        say(d, why, "the driver does not stop", pid, result);
        return !put_back(p)               ? AT_GPU_PARK_BROKEN
               : result == CUDA_NOT_READY ? AT_GPU_PARK_BUSY
                                          : AT_GPU_PARK_REFUSED;
    }
    result = each(p, d->park, LOCKED, 0, &pid);
    if (result != 0 || any_is(p, FAILED)) {
        say(d, why, "the driver cannot park", pid, result);
        return put_back(p) ? AT_GPU_PARK_REFUSED : AT_GPU_PARK_BROKEN;
    }
    return AT_GPU_PARK_DONE;
}

static enum at_gpu_park_end unpark(const struct processes *p, struct at_err *why)
{
    const struct driver *d = p->driver;
    pid_t pid = 0;
    int result = each(p, d->unpark, PARKED, 0, &pid);
    if (result != 0) {
        say(d, why, "the driver cannot bring back", pid, result);
        pid_t other;
        if (any_is(p, FAILED) || each(p, d->park, LOCKED, 0, &other) != 0) {
            return AT_GPU_PARK_BROKEN;
        }
        return result == CUDA_OUT_OF_MEMORY ? AT_GPU_PARK_NO_ROOM : AT_GPU_PARK_REFUSED;
    }
    result = each(p, d->unlock, LOCKED, 0, &pid);
    if (result != 0 || any_is(p, FAILED)) {
        say(d, why, "the driver does not let go of", pid, result);
        return AT_GPU_PARK_BROKEN;
    }
    return AT_GPU_PARK_DONE;
}

static enum at_gpu_park_end
with(const char *library, const pid_t *pids, size_t n,
     enum at_gpu_park_end (*act)(const struct processes *, struct at_err *), struct at_err *why)
{
    struct driver d = {0};
    struct processes *p = AT_NEW(struct processes);
    enum at_gpu_park_end end = load(library, &d, why);
    end = end == AT_GPU_PARK_DONE ? find(&d, pids, n, p, why) : end;
    end = end == AT_GPU_PARK_DONE ? act(p, why) : end;
    at_free(p);
    if (d.lib != NULL) {
        dlclose(d.lib);
    }
    return end;
}

enum at_gpu_park_end at_gpu_park(const char *library, const pid_t *pids, size_t n,
                                 struct at_err *why)
{
    return with(library, pids, n, park, why);
}

enum at_gpu_park_end at_gpu_unpark(const char *library, const pid_t *pids, size_t n,
                                   struct at_err *why)
{
    return with(library, pids, n, unpark, why);
}
