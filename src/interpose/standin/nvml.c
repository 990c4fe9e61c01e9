/* A stand-in for libnvidia-ml.so.1 over the same file as the one for libcuda. */
#include "interpose/standin/state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
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
struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

static struct standin_state *state;

SHOWN int nvmlInit_v2(void)
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

SHOWN int nvmlShutdown(void)
{
    if (state != NULL) {
        munmap(state, sizeof *state);
    }
    state = NULL;
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
        if (state->devices[i].parent == device - state->devices + 1 && index-- == 0) {
            *ret = &state->devices[i];
            return OK;
        }
    }
    return NOT_FOUND;
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
