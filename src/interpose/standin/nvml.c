/* A stand-in for libnvidia-ml.so.1 over the same file as the one for libcuda. */
#include "interpose/standin/state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))
#define OK 0
#define INVALID 2
#define NO_SPACE 7
#define NOT_FOUND 6
#define TIMEOUT 10
#define LOST 15
#define PARTS_MAX 7

struct memory {
    unsigned long long total, free, used;
};
struct gi_profile {
    unsigned id, p2p, slices, instances, multiprocessors, copies, decoders, encoders, jpegs, ofas;
    unsigned long long memory_mb;
};
struct ci_profile {
    unsigned id, slices, instances, multiprocessors, copies, decoders, encoders, jpegs, ofas;
};
struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

static struct standin_state *state;
static int opened; /* so often, less what was shut down; from several threads, as the real one */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int open_state(void)
{
    const char *path = getenv("STANDIN_GPU_STATE");
    int fd = open(path != NULL ? path : "/nowhere", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return NOT_FOUND;
    }
    void *at = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    state = at != MAP_FAILED ? at : NULL;
    return state != NULL ? OK : INVALID;
}

SHOWN int nvmlInit_v2(void)
{
    pthread_mutex_lock(&lock);
    int result = opened > 0 ? OK : open_state();
    opened += result == OK;
    pthread_mutex_unlock(&lock);
    return result;
}

SHOWN int nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    if (opened > 0 && --opened == 0) {
        munmap(state, sizeof *state);
        state = NULL;
    }
    pthread_mutex_unlock(&lock);
    return OK;
}

SHOWN int nvmlDeviceGetCount_v2(unsigned *ret)
{
    *ret = 0;
    for (int i = 0; i < state->n_devices; i++) {
        *ret += state->devices[i].parent == 0;
    }
    return OK;
}

SHOWN int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct standin_device **ret)
{
    if (index >= state->n_devices || state->devices[index].parent != 0) {
        return INVALID;
    }
    *ret = &state->devices[index];
    return (*ret)->lost != 0 ? LOST : OK;
}

SHOWN int nvmlDeviceGetMinorNumber(struct standin_device *device, unsigned *ret)
{
    *ret = (unsigned)(device - state->devices);
    return OK;
}

SHOWN int nvmlDeviceGetComputeMode(struct standin_device *device, int *ret)
{
    *ret = (int)device->compute_mode;
    return OK;
}

SHOWN int nvmlDeviceSetComputeMode(struct standin_device *device, int mode)
{
    if (device->mig != 0 || device->parent != 0) {
        return 3; /* not supported */
    }
    device->compute_mode = mode;
    return OK;
}

/* --- MIG --- */

SHOWN int nvmlDeviceGetMigMode(struct standin_device *device, unsigned *now, unsigned *pending)
{
    *now = *pending = device->mig != 0;
    return OK;
}

SHOWN int nvmlDeviceGetMaxMigDeviceCount(struct standin_device *device, unsigned *ret)
{
    *ret = device->mig != 0 ? PARTS_MAX : 0;
    return OK;
}

SHOWN int nvmlDeviceGetMigDeviceHandleByIndex(struct standin_device *device, unsigned index,
                                              struct standin_device **ret)
{
    for (int i = 0; i < state->n_devices; i++) {
        if (state->devices[i].parent == device - state->devices + 1 &&
            state->devices[i].made != 1 && index-- == 0) {
            *ret = &state->devices[i];
            return OK;
        }
    }
    return NOT_FOUND;
}

/* Parts that are made: 7 slices of processors, 8 of memory, as on real ones. A GPU instance is a
 * row of the file with made 1, and one that programs can use with made 2. */
static const struct kind {
    unsigned slices, size, starts[8], n_starts;
} KINDS[] = {{1, 1, {0, 1, 2, 3, 4, 5, 6}, 7},
             {2, 2, {0, 2, 4}, 3},
             {3, 4, {0, 4}, 2},
             {4, 4, {0}, 1},
             {7, 8, {0}, 1}};
#define KINDS_N (sizeof KINDS / sizeof KINDS[0])
#define PROFILE 100 /* of the first kind */

struct place {
    unsigned start, size;
};
struct gi_info {
    struct standin_device *device;
    unsigned id, profile;
    struct place place;
};

SHOWN int nvmlDeviceSetMigMode(struct standin_device *device, unsigned mode, int *activation)
{
    *activation = OK;
    for (int i = 0; mode == 0 && i < state->n_devices; i++) {
        if (state->devices[i].parent == device - state->devices + 1) {
            return 19; /* in use */
        }
    }
    device->mig = mode;
    return OK;
}

SHOWN int nvmlDeviceGetGpuInstanceProfileInfo(struct standin_device *device, unsigned kind,
                                              struct gi_profile *ret)
{
    if (kind >= KINDS_N) {
        return 3;
    }
    *ret = (struct gi_profile){.id = PROFILE + kind,
                               .slices = KINDS[kind].slices,
                               .memory_mb = (unsigned long long)(device->total_bytes >> 20) *
                                            KINDS[kind].size / 8};
    return OK;
}

SHOWN int nvmlDeviceGetGpuInstancePossiblePlacements_v2(struct standin_device *device,
                                                        unsigned profile, struct place *ret,
                                                        unsigned *count)
{
    (void)device;
    const struct kind *k = &KINDS[(profile - PROFILE) % KINDS_N];
    for (unsigned i = 0; i < k->n_starts && i < *count; i++) {
        ret[i] = (struct place){k->starts[i], k->size};
    }
    *count = k->n_starts;
    return OK;
}

static struct standin_device *free_row(void)
{
    for (int i = 0; i < state->n_devices; i++) {
        if (state->devices[i].parent < 0) {
            return &state->devices[i];
        }
    }
    return state->n_devices < STANDIN_DEVICES_MAX ? &state->devices[state->n_devices++] : NULL;
}

SHOWN int nvmlDeviceCreateGpuInstanceWithPlacement(struct standin_device *device, unsigned profile,
                                                   const struct place *at,
                                                   struct standin_device **ret)
{
    static int named;
    if (device->mig == 0 || device->mig_fails > 0) {
        device->mig_fails -= device->mig_fails > 0;
        return 4;
    }
    int64_t whole = device - state->devices;
    for (int i = 0; i < state->n_devices; i++) {
        const struct standin_device *p = &state->devices[i];
        if (p->parent == whole + 1 && (int64_t)at->start < p->start + p->slices &&
            p->start < (int64_t)(at->start + at->size)) {
            return 17; /* no room */
        }
    }
    struct standin_device *part = free_row();
    if (part == NULL) {
        return 17;
    }
    *part = (struct standin_device){.parent = whole + 1,
                                    .made = 1,
                                    .profile = profile,
                                    .start = at->start,
                                    .slices = at->size,
                                    .total_bytes = device->total_bytes * at->size / 8};
    snprintf(part->uuid, sizeof part->uuid, "MIG-%08x-0000-0000-0000-%012x", (unsigned)getpid(),
             (unsigned)(++named));
    snprintf(part->name, sizeof part->name, "Stand-in MIG %ug",
             KINDS[(profile - PROFILE) % KINDS_N].slices);
    *ret = part;
    return OK;
}

SHOWN int nvmlDeviceGetGpuInstances(struct standin_device *device, unsigned profile,
                                    struct standin_device **ret, unsigned *count)
{
    unsigned n = 0;
    for (int i = 0; i < state->n_devices && n < *count; i++) {
        struct standin_device *p = &state->devices[i];
        if (p->parent == device - state->devices + 1 && p->made > 0 && p->profile == profile) {
            ret[n++] = p;
        }
    }
    *count = n;
    return OK;
}

SHOWN int nvmlGpuInstanceGetInfo(struct standin_device *gi, struct gi_info *ret)
{
    *ret = (struct gi_info){.device = &state->devices[gi->parent - 1],
                            .id = (unsigned)(gi - state->devices),
                            .profile = (unsigned)gi->profile,
                            .place = {(unsigned)gi->start, (unsigned)gi->slices}};
    return OK;
}

SHOWN int nvmlGpuInstanceDestroy(struct standin_device *gi)
{
    if (gi->made != 1) {
        return 19;
    }
    *gi = (struct standin_device){.parent = -1};
    return OK;
}

SHOWN int nvmlGpuInstanceGetComputeInstanceProfileInfo(struct standin_device *gi, unsigned kind,
                                                       unsigned engines, struct ci_profile *ret)
{
    (void)engines;
    if (kind >= KINDS_N || KINDS[kind].slices > KINDS[gi->profile - PROFILE].slices) {
        return 3;
    }
    *ret = (struct ci_profile){.id = kind, .slices = KINDS[kind].slices};
    return OK;
}

SHOWN int nvmlGpuInstanceCreateComputeInstance(struct standin_device *gi, unsigned profile,
                                               struct standin_device **ret)
{
    struct standin_device *device = &state->devices[gi->parent - 1];
    if (gi->made != 1 || device->mig_fails > 0 ||
        KINDS[profile % KINDS_N].slices != KINDS[gi->profile - PROFILE].slices) {
        device->mig_fails -= device->mig_fails > 0;
        return 17;
    }
    gi->made = 2;
    *ret = gi;
    return OK;
}

SHOWN int nvmlGpuInstanceGetComputeInstances(struct standin_device *gi, unsigned profile,
                                             struct standin_device **ret, unsigned *count)
{
    bool has = gi->made == 2 && (int64_t)profile == gi->profile - PROFILE && *count > 0;
    *count = has;
    *ret = has ? gi : *ret;
    return OK;
}

SHOWN int nvmlComputeInstanceDestroy(struct standin_device *ci)
{
    ci->made = 1;
    return OK;
}

/* --- what it tells by itself --- */

struct event {
    struct standin_device *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};
struct events {
    bool of[STANDIN_DEVICES_MAX];
};

SHOWN int nvmlEventSetCreate(struct events **ret)
{
    *ret = calloc(1, sizeof **ret);
    return *ret != NULL ? OK : INVALID;
}

SHOWN int nvmlEventSetFree(struct events *events)
{
    free(events);
    return OK;
}

SHOWN int nvmlDeviceRegisterEvents(struct standin_device *device, unsigned long long types,
                                   struct events *events)
{
    events->of[device - state->devices] = types == 8;
    return OK;
}

SHOWN int nvmlEventSetWait_v2(struct events *events, struct event *ret, unsigned timeout_ms)
{
    (void)timeout_ms;
    for (int i = 0; i < state->n_devices; i++) {
        int64_t xid =
            events->of[i] ? __atomic_exchange_n(&state->devices[i].xid, 0, __ATOMIC_SEQ_CST) : 0;
        if (xid != 0) {
            *ret = (struct event){
                .device = &state->devices[i], .type = 8, .data = (unsigned long long)xid};
            return OK;
        }
    }
    return TIMEOUT;
}

SHOWN int nvmlDeviceGetHandleByUUID(const char *uuid, struct standin_device **ret)
{
    for (unsigned i = 0; i < state->n_devices; i++) {
        if (strcmp(state->devices[i].uuid, uuid) == 0) {
            *ret = &state->devices[i];
            return state->devices[i].lost != 0 ? LOST : OK;
        }
    }
    return NOT_FOUND;
}

static int text(const char *from, char *out, unsigned size)
{
    if (strlen(from) >= size) {
        return NO_SPACE;
    }
    memcpy(out, from, strlen(from) + 1);
    return OK;
}

SHOWN int nvmlDeviceGetUUID(struct standin_device *device, char *out, unsigned size)
{
    return text(device->uuid, out, size);
}

SHOWN int nvmlDeviceGetName(struct standin_device *device, char *out, unsigned size)
{
    return device->lost != 0 ? LOST : text(device->name, out, size);
}

static int is_alive(int64_t pid)
{
    return kill((pid_t)pid, 0) == 0 || errno == EPERM;
}

SHOWN int nvmlDeviceGetMemoryInfo(struct standin_device *device, struct memory *ret)
{
    if (device->lost != 0) {
        return LOST;
    }
    ret->total = (unsigned long long)device->total_bytes;
    ret->used = 0;
    for (int i = 0; i < STANDIN_PROCESSES_MAX && device->lies != 1; i++) {
        const struct standin_process *p = &device->processes[i];
        ret->used += p->pid != 0 && is_alive(p->pid) ? (unsigned long long)p->used_bytes : 0;
    }
    ret->free = ret->total - ret->used;
    return OK;
}

SHOWN int nvmlDeviceGetComputeRunningProcesses_v3(struct standin_device *device, unsigned *count,
                                                  struct process *out)
{
    unsigned room = *count, n = 0;
    if (device->lost != 0) {
        return LOST;
    }
    if (device->lies == 2) {
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    for (int i = 0; i < STANDIN_PROCESSES_MAX && device->lies != 1; i++) {
        const struct standin_process *p = &device->processes[i];
        if (p->pid == 0 || !is_alive(p->pid)) {
            continue;
        }
        if (n < room) {
            out[n] = (struct process){
                .pid = (unsigned)p->pid,
                .used = device->lies == 3 ? ~0ull : (unsigned long long)p->used_bytes};
        }
        n++;
    }
    *count = n;
    return n > room ? NO_SPACE : OK;
}
