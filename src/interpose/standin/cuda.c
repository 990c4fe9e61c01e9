/* A stand-in for libcuda.so.1: devices are rows of a file, memory is counted, kernels take the time
 * that their function handle names (in ns), one after the other per device. What programs may do
 * with the real library they may do with it, as far as libatoll-gpu.so is concerned. */
#include "interpose/cuda_abi.h"
#include "interpose/standin/cuda_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CU_INVALID_DEVICE 101
#define CU_INVALID_CONTEXT 201
#define CU_NOT_FOUND 500
#define CU_MPS_NOT_READY 805
#define CU_DEVICE_LOST 46 /* CUDA_ERROR_DEVICE_UNAVAILABLE */
#define ENTRIES_MAX 200000
#define CONTEXTS_MAX 64
#define LAUNCHES_AHEAD_MAX 1024

struct context {
    int device; /* of the state file */
    bool used;
    int64_t tail; /* of stream 0 */
};

struct stream {
    struct context *context;
    int64_t tail;
    bool capturing;
};

struct event {
    int64_t at;
};

enum held_kind { HELD_ADDRESS = 1, HELD_BLOCK, HELD_ARRAY };
struct held {
    uint64_t key;
    int64_t bytes;
    struct context *context;
    int kind, holds;
};

static struct {
    pthread_mutex_t lock;
    struct standin_state *state;
    bool forked;       /* a context does not live on in a child */
    int64_t mps_bytes; /* that a client of MPS may hold; 0: it is none */
    int visible[STANDIN_DEVICES_MAX], n_visible;
    int rows[STANDIN_DEVICES_MAX];
    struct context contexts[CONTEXTS_MAX];
    struct context *primary[STANDIN_DEVICES_MAX];
    int primary_holds[STANDIN_DEVICES_MAX];
    struct held held[ENTRIES_MAX];
    size_t n_held;
    uint64_t next;
} d = {.lock = PTHREAD_MUTEX_INITIALIZER, .next = 0x700000000000};
static __thread struct context *current;

struct standin_state *standin_shared(void)
{
    return d.state;
}

int64_t standin_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void standin_sleep_until(int64_t at)
{
    if (at <= standin_now_ns()) {
        return;
    }
    struct timespec t = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static void on_fork(void)
{
    d.forked = d.state != NULL;
}

/* --- devices --- */

bool standin_is_alive(int64_t pid)
{
    return pid == getpid() || kill((pid_t)pid, 0) == 0 || errno == EPERM;
}

int64_t standin_used_of(struct standin_device *device)
{
    int64_t sum = 0;
    for (int i = 0; i < STANDIN_PROCESSES_MAX; i++) {
        struct standin_process *p = &device->processes[i];
        int64_t pid = __atomic_load_n(&p->pid, __ATOMIC_SEQ_CST);
        if (pid != 0 && !standin_is_alive(pid)) {
            __atomic_store_n(&p->used_bytes, 0, __ATOMIC_SEQ_CST);
            __atomic_store_n(&p->pid, 0, __ATOMIC_SEQ_CST);
        }
        sum += __atomic_load_n(&p->used_bytes, __ATOMIC_SEQ_CST);
    }
    return sum;
}

static int64_t *own_bytes(int device)
{
    struct standin_device *at = &d.state->devices[device];
    for (int i = 0; d.rows[device] < 0 && i < STANDIN_PROCESSES_MAX; i++) {
        int64_t none = 0;
        if (__atomic_compare_exchange_n(&at->processes[i].pid, &none, (int64_t)getpid(), false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            d.rows[device] = i;
        }
    }
    return &at->processes[d.rows[device] < 0 ? 0 : d.rows[device]].used_bytes;
}

static bool use(int device, int64_t bytes)
{
    int64_t *own = own_bytes(device);
    __atomic_add_fetch(own, bytes, __ATOMIC_SEQ_CST);
    bool over_mps = d.mps_bytes > 0 && *own > d.mps_bytes;
    if (bytes > 0 && (over_mps || standin_used_of(&d.state->devices[device]) >
                                      d.state->devices[device].total_bytes)) {
        __atomic_sub_fetch(own, bytes, __ATOMIC_SEQ_CST);
        return false;
    }
    return true;
}

/* CUDA_VISIBLE_DEVICES: positions or identities; the program's own affair, as in real life. */
static void choose_visible(void)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    d.n_visible = 0;
    if (list == NULL) {
        for (int i = 0; i < d.state->n_devices; i++) {
            if (d.state->devices[i].mig == 0) {
                d.visible[d.n_visible++] = i;
            }
        }
        return;
    }
    char copy[512];
    strncpy(copy, list, sizeof copy - 1);
    copy[sizeof copy - 1] = '\0';
    char *rest = copy, *word;
    while ((word = strsep(&rest, ",")) != NULL && d.n_visible < STANDIN_DEVICES_MAX) {
        for (int i = 0; i < d.state->n_devices; i++) {
            if (strcmp(word, d.state->devices[i].uuid) == 0 ||
                (*word >= '0' && *word <= '9' && strtol(word, NULL, 10) == i)) {
                d.visible[d.n_visible++] = i;
            }
        }
    }
}

SHOWN cu_result cuInit(unsigned flags)
{
    if (flags != 0) {
        return CU_INVALID_VALUE;
    }
    pthread_mutex_lock(&d.lock);
    if (d.state == NULL) {
        const char *path = getenv("STANDIN_GPU_STATE");
        int fd = open(path != NULL ? path : "/nowhere", O_RDWR | O_CLOEXEC);
        void *at = fd < 0 ? MAP_FAILED
                          : mmap(NULL, sizeof *d.state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0) {
            close(fd);
        }
        if (at != MAP_FAILED) {
            d.state = at;
            pthread_atfork(NULL, NULL, on_fork);
            choose_visible();
            (void)standin_checkpoint_of(getpid(), true);
            for (int i = 0; i < STANDIN_DEVICES_MAX; i++) {
                d.rows[i] = -1;
            }
        }
    }
    if (d.state != NULL && d.mps_bytes == 0) {
        d.mps_bytes = standin_mps_join();
    }
    pthread_mutex_unlock(&d.lock);
    return d.state == NULL ? 100 : d.mps_bytes < 0 ? CU_MPS_NOT_READY : CU_OK; /* 100: no device */
}

static int checked(cu_device device)
{
    if (d.state != NULL && !d.forked) {
        standin_wait_unlocked();
    }
    return d.state == NULL || d.forked           ? -CU_NOT_INITIALIZED
           : device < 0 || device >= d.n_visible ? -CU_INVALID_DEVICE
                                                 : d.visible[device];
}

SHOWN cu_result cuDeviceGetCount(int *ret)
{
    *ret = d.n_visible;
    return d.state != NULL ? CU_OK : CU_NOT_INITIALIZED;
}

SHOWN cu_result cuDeviceGet(cu_device *ret, int ordinal)
{
    *ret = ordinal;
    int at = checked(ordinal);
    return at < 0 ? -at : CU_OK;
}

SHOWN cu_result cuDeviceGetUuid_v2(struct cu_uuid *ret, cu_device device)
{
    int at = checked(device);
    if (at < 0) {
        return -at;
    }
    const char *text = d.state->devices[at].uuid + 4;
    for (unsigned n = 0; n < 32; text++) {
        if (*text != '-') {
            int digit = *text <= '9' ? *text - '0' : *text - 'a' + 10;
            ret->bytes[n / 2] = (uint8_t)(ret->bytes[n / 2] << 4 | digit);
            n++;
        }
    }
    return CU_OK;
}

SHOWN cu_result cuDeviceGetUuid(struct cu_uuid *ret, cu_device device)
{
    return cuDeviceGetUuid_v2(ret, device);
}

SHOWN cu_result cuDeviceTotalMem_v2(size_t *ret, cu_device device)
{
    int at = checked(device);
    if (at < 0) {
        return -at;
    }
    *ret = (size_t)d.state->devices[at].total_bytes;
    return CU_OK;
}

/* --- contexts --- */

static struct context *context_new(int device)
{
    if (d.state->devices[device].compute_mode == 3 && d.mps_bytes == 0) {
        return NULL;
    }
    for (int i = 0; i < CONTEXTS_MAX; i++) {
        if (!d.contexts[i].used) {
            if (!use(device, STANDIN_CONTEXT_BYTES)) {
                return NULL;
            }
            d.contexts[i] = (struct context){.device = device, .used = true};
            return &d.contexts[i];
        }
    }
    return NULL;
}

static void context_end(struct context *c)
{
    for (size_t i = 0; i < d.n_held; i++) {
        if (d.held[i].context == c && d.held[i].kind != HELD_BLOCK && d.held[i].key != 0) {
            (void)use(c->device, -d.held[i].bytes);
            d.held[i].key = 0;
        }
    }
    (void)use(c->device, -STANDIN_CONTEXT_BYTES);
    c->used = false;
    current = current == c ? NULL : current;
}

SHOWN cu_result cuCtxCreate_v2(cu_handle *ret, unsigned flags, cu_device device)
{
    (void)flags;
    int at = checked(device);
    if (at < 0) {
        return -at;
    }
    pthread_mutex_lock(&d.lock);
    struct context *c = context_new(at);
    pthread_mutex_unlock(&d.lock);
    *ret = c;
    current = c != NULL ? c : current;
    return c != NULL ? CU_OK : CU_OUT_OF_MEMORY;
}

SHOWN cu_result cuCtxDestroy_v2(cu_handle context)
{
    struct context *c = context;
    if (c == NULL || !c->used) {
        return CU_INVALID_CONTEXT;
    }
    pthread_mutex_lock(&d.lock);
    context_end(c);
    pthread_mutex_unlock(&d.lock);
    return CU_OK;
}

SHOWN cu_result cuCtxSetCurrent(cu_handle context)
{
    current = context;
    return CU_OK;
}

SHOWN cu_result cuCtxGetCurrent(cu_handle *ret)
{
    *ret = d.forked ? NULL : current;
    return CU_OK;
}

static cu_result check_context(void)
{
    if (d.state == NULL || d.forked) {
        return CU_NOT_INITIALIZED;
    }
    standin_wait_unlocked();
    if (current == NULL || !current->used) {
        return CU_INVALID_CONTEXT;
    }
    return d.state->devices[current->device].lost != 0 ? CU_DEVICE_LOST : CU_OK;
}

SHOWN cu_result cuCtxGetDevice(cu_device *ret)
{
    if (current == NULL || !current->used || d.forked) {
        return CU_INVALID_CONTEXT;
    }
    for (int i = 0; i < d.n_visible; i++) {
        *ret = d.visible[i] == current->device ? i : *ret;
    }
    return CU_OK;
}

SHOWN cu_result cuDevicePrimaryCtxRetain(cu_handle *ret, cu_device device)
{
    int at = checked(device);
    if (at < 0) {
        return -at;
    }
    pthread_mutex_lock(&d.lock);
    if (d.primary[at] == NULL) {
        d.primary[at] = context_new(at);
    }
    d.primary_holds[at] += d.primary[at] != NULL;
    *ret = d.primary[at];
    pthread_mutex_unlock(&d.lock);
    return *ret != NULL ? CU_OK : CU_OUT_OF_MEMORY;
}

static cu_result primary_end(cu_device device, bool reset)
{
    int at = checked(device);
    if (at < 0) {
        return -at;
    }
    pthread_mutex_lock(&d.lock);
    d.primary_holds[at] = reset ? 0 : d.primary_holds[at] - 1;
    if (d.primary[at] != NULL && d.primary_holds[at] <= 0) {
        context_end(d.primary[at]);
        d.primary[at] = NULL;
    }
    pthread_mutex_unlock(&d.lock);
    return CU_OK;
}

SHOWN cu_result cuDevicePrimaryCtxRelease_v2(cu_device device)
{
    return primary_end(device, false);
}

SHOWN cu_result cuDevicePrimaryCtxReset_v2(cu_device device)
{
    return primary_end(device, true);
}

/* --- memory --- */

static cu_result hold(enum held_kind kind, int64_t bytes, int device, uint64_t *ret)
{
    cu_result result = CU_OUT_OF_MEMORY;
    pthread_mutex_lock(&d.lock);
    size_t at = d.n_held < ENTRIES_MAX ? d.n_held : 0;
    while (at < d.n_held && d.held[at].key != 0) {
        at++;
    }
    if (at < ENTRIES_MAX && use(device, bytes)) {
        d.next += 0x200000;
        d.held[at] = (struct held){
            .key = d.next, .bytes = bytes, .context = current, .kind = (int)kind, .holds = 1};
        d.n_held = at == d.n_held ? at + 1 : d.n_held;
        d.next += (uint64_t)bytes / 0x200000 * 0x200000;
        *ret = d.held[at].key;
        result = CU_OK;
    }
    pthread_mutex_unlock(&d.lock);
    return result;
}

static cu_result drop(enum held_kind kind, uint64_t key)
{
    cu_result result = CU_INVALID_VALUE;
    if (d.state != NULL && !d.forked) {
        standin_wait_unlocked();
    }
    pthread_mutex_lock(&d.lock);
    for (size_t i = d.n_held; i-- > 0 && result != CU_OK;) {
        struct held *h = &d.held[i];
        if (key != 0 && h->key == key && h->kind == (int)kind) {
            h->holds--;
            if (h->holds == 0) {
                (void)use(h->context != NULL ? h->context->device : 0, -h->bytes);
                h->key = 0;
                d.n_held -= i + 1 == d.n_held;
            }
            result = CU_OK;
        }
    }
    pthread_mutex_unlock(&d.lock);
    return result;
}

static cu_result alloc(uint64_t *ret, uint64_t bytes)
{
    cu_result result = check_context();
    return result != CU_OK             ? result
           : ret == NULL || bytes == 0 ? CU_INVALID_VALUE
           : bytes > (uint64_t)1 << 50 ? CU_OUT_OF_MEMORY
                                       : hold(HELD_ADDRESS, (int64_t)bytes, current->device, ret);
}

SHOWN cu_result cuMemAlloc_v2(cu_ptr *ret, size_t bytes)
{
    return alloc(ret, bytes);
}

SHOWN cu_result cuMemAllocManaged(cu_ptr *ret, size_t bytes, unsigned flags)
{
    (void)flags;
    cu_result result = alloc(ret, bytes);
    struct standin_checkpoint *own =
        result == CU_OK ? standin_checkpoint_of(getpid(), false) : NULL;
    if (own != NULL) {
        __atomic_store_n(&own->managed, 1, __ATOMIC_SEQ_CST);
    }
    return result;
}

SHOWN cu_result cuMemAdvise(cu_ptr at, size_t bytes, int advice, cu_device device)
{
    /* What is preferred on the host does not lie on the device. */
    if (advice == CU_ADVISE_PREFERRED_LOCATION && device == CU_DEVICE_CPU) {
        pthread_mutex_lock(&d.lock);
        for (size_t i = 0; i < d.n_held; i++) {
            if (d.held[i].key == at && d.held[i].bytes == (int64_t)bytes) {
                (void)use(d.held[i].context->device, -d.held[i].bytes);
                d.held[i].bytes = 0;
            }
        }
        pthread_mutex_unlock(&d.lock);
    }
    return CU_OK;
}

SHOWN cu_result cuMemAllocPitch_v2(cu_ptr *ret, size_t *pitch, size_t width, size_t height,
                                   unsigned element)
{
    (void)element;
    *pitch = (width + 511) / 512 * 512;
    return alloc(ret, *pitch * height);
}

SHOWN cu_result cuMemFree_v2(cu_ptr at)
{
    return drop(HELD_ADDRESS, at);
}

SHOWN cu_result cuMemAllocAsync(cu_ptr *ret, size_t bytes, cu_handle stream)
{
    (void)stream;
    return alloc(ret, bytes);
}

SHOWN cu_result cuMemAllocFromPoolAsync(cu_ptr *ret, size_t bytes, cu_handle pool, cu_handle stream)
{
    (void)pool;
    (void)stream;
    return alloc(ret, bytes);
}

SHOWN cu_result cuMemFreeAsync(cu_ptr at, cu_handle stream)
{
    (void)stream;
    return drop(HELD_ADDRESS, at);
}

SHOWN cu_result cuGraphAddMemAllocNode(cu_handle *ret, cu_handle graph, const cu_handle *after,
                                       size_t n_after, struct cu_node_alloc *params)
{
    (void)graph;
    (void)after;
    (void)n_after;
    *ret = params;
    return alloc(&params->ret_ptr, params->bytes);
}

SHOWN cu_result cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
    cu_result result = check_context();
    if (result == CU_OK) {
        struct standin_device *device = &d.state->devices[current->device];
        *ret_total = (size_t)device->total_bytes;
        *ret_free = (size_t)(device->total_bytes - standin_used_of(device));
    }
    return result;
}

SHOWN cu_result cuMemCreate(cu_alloc_handle *ret, size_t bytes, const struct cu_alloc_prop *prop,
                            unsigned long long flags)
{
    int at = checked(prop->location.id);
    if (at < 0 || flags != 0 || bytes % (2 << 20) != 0) {
        return at < 0 ? -at : CU_INVALID_VALUE;
    }
    return hold(HELD_BLOCK, (int64_t)bytes, at, ret);
}

SHOWN cu_result cuMemRelease(cu_alloc_handle handle)
{
    return drop(HELD_BLOCK, handle);
}

static struct {
    cu_ptr at;
    size_t bytes;
    cu_alloc_handle handle;
} mapped[1024];

SHOWN cu_result cuMemMap(cu_ptr at, size_t bytes, size_t offset, cu_alloc_handle handle,
                         unsigned long long flags)
{
    cu_result result = CU_INVALID_VALUE;
    pthread_mutex_lock(&d.lock);
    for (size_t i = 0; i < d.n_held && offset == 0 && flags == 0; i++) {
        if (d.held[i].key == handle && d.held[i].kind == HELD_BLOCK) {
            size_t k = 0;
            while (mapped[k].handle != 0) {
                k++;
            }
            mapped[k].at = at;
            mapped[k].bytes = bytes;
            mapped[k].handle = handle;
            d.held[i].holds++;
            result = CU_OK;
            break;
        }
    }
    pthread_mutex_unlock(&d.lock);
    return result;
}

SHOWN cu_result cuMemUnmap(cu_ptr at, size_t bytes)
{
    for (size_t k = 0; k < 1024; k++) {
        if (mapped[k].handle != 0 && mapped[k].at == at && mapped[k].bytes == bytes) {
            cu_alloc_handle handle = mapped[k].handle;
            mapped[k].handle = 0;
            return drop(HELD_BLOCK, handle);
        }
    }
    return CU_INVALID_VALUE;
}

SHOWN cu_result cuArrayCreate_v2(cu_handle *ret, const struct cu_array_desc *desc)
{
    uint64_t key;
    cu_result result = check_context();
    uint64_t bytes = 4 * desc->width * (desc->height > 0 ? desc->height : 1) * desc->channels;
    result = result == CU_OK ? hold(HELD_ARRAY, (int64_t)bytes, current->device, &key) : result;
    *ret = result == CU_OK ? (cu_handle)(uintptr_t)key : NULL;
    return result;
}

SHOWN cu_result cuArrayDestroy(cu_handle array)
{
    return drop(HELD_ARRAY, (uintptr_t)array);
}

/* --- streams, events, kernels --- */

static int64_t *tail_of(cu_handle stream)
{
    struct stream *s = stream;
    return s != NULL ? &s->tail : &current->tail;
}

SHOWN cu_result cuStreamCreate(cu_handle *ret, unsigned flags)
{
    (void)flags;
    cu_result result = check_context();
    struct stream *s = result == CU_OK ? calloc(1, sizeof *s) : NULL;
    if (s != NULL) {
        s->context = current;
    }
    *ret = s;
    return result;
}

static cu_result run(int64_t ns, cu_handle stream)
{
    cu_result result = check_context();
    if (result != CU_OK) {
        return result;
    }
    struct standin_device *device = &d.state->devices[current->device];
    int64_t *tail = tail_of(stream);
    /* A stream takes so many launches ahead, then the call waits. */
    standin_sleep_until(*tail - LAUNCHES_AHEAD_MAX * ns);
    int64_t from = standin_now_ns();
    from = *tail > from ? *tail : from;
    int64_t busy = __atomic_load_n(&device->busy_until_ns, __ATOMIC_SEQ_CST), until;
    do {
        until = (busy > from ? busy : from) + ns;
    } while (!__atomic_compare_exchange_n(&device->busy_until_ns, &busy, until, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    __atomic_add_fetch(&device->busy_ns, ns, __ATOMIC_SEQ_CST);
    *tail = until;
    return CU_OK;
}

SHOWN cu_result cuLaunchKernel(cu_handle f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                               unsigned by, unsigned bz, unsigned shared, cu_handle stream,
                               void **p, void **extra)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)p, (void)extra;
    return run((int64_t)(intptr_t)f, stream);
}

SHOWN cu_result cuGraphLaunch(cu_handle graph, cu_handle stream)
{
    return run((int64_t)(intptr_t)graph, stream);
}

SHOWN cu_result cuStreamSynchronize(cu_handle stream)
{
    cu_result result = check_context();
    if (result == CU_OK) {
        standin_sleep_until(*tail_of(stream));
    }
    return result;
}

SHOWN cu_result cuEventCreate(cu_handle *ret, unsigned flags)
{
    (void)flags;
    *ret = calloc(1, sizeof(struct event));
    return *ret != NULL ? CU_OK : CU_OUT_OF_MEMORY;
}

SHOWN cu_result cuEventDestroy_v2(cu_handle event)
{
    free(event);
    return CU_OK;
}

SHOWN cu_result cuEventRecord(cu_handle event, cu_handle stream)
{
    cu_result result = check_context();
    if (result == CU_OK) {
        int64_t now = standin_now_ns(), tail = *tail_of(stream);
        ((struct event *)event)->at = tail > now ? tail : now;
    }
    return result;
}

SHOWN cu_result cuEventQuery(cu_handle event)
{
    cu_result result = check_context();
    return result != CU_OK                                   ? result
           : standin_now_ns() >= ((struct event *)event)->at ? CU_OK
                                                             : CU_NOT_READY;
}

SHOWN cu_result cuEventElapsedTime(float *ret_ms, cu_handle from, cu_handle to)
{
    *ret_ms = (float)((double)(((struct event *)to)->at - ((struct event *)from)->at) / 1e6);
    return CU_OK;
}

/* --- look-ups --- */

SHOWN cu_result cuGetProcAddress_v2(const char *name, void **ret, int version, uint64_t flags,
                                    int *ret_why);
SHOWN cu_result cuGetProcAddress(const char *name, void **ret, int version, uint64_t flags);

#define NAMED(public, function)                                                                    \
    {                                                                                              \
        public, (void *)function                                                                   \
    }
static const struct {
    const char *name;
    void *at;
} NAMES[] = {
    NAMED("cuInit", cuInit),
    NAMED("cuDeviceGet", cuDeviceGet),
    NAMED("cuDeviceGetCount", cuDeviceGetCount),
    NAMED("cuDeviceTotalMem", cuDeviceTotalMem_v2),
    NAMED("cuCtxCreate", cuCtxCreate_v2),
    NAMED("cuCtxDestroy", cuCtxDestroy_v2),
    NAMED("cuCtxSetCurrent", cuCtxSetCurrent),
    NAMED("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain),
    NAMED("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2),
    NAMED("cuDevicePrimaryCtxReset", cuDevicePrimaryCtxReset_v2),
    NAMED("cuMemAlloc", cuMemAlloc_v2),
    NAMED("cuMemAllocManaged", cuMemAllocManaged),
    NAMED("cuMemAllocPitch", cuMemAllocPitch_v2),
    NAMED("cuMemFree", cuMemFree_v2),
    NAMED("cuMemAllocAsync", cuMemAllocAsync),
    NAMED("cuMemAllocFromPoolAsync", cuMemAllocFromPoolAsync),
    NAMED("cuMemFreeAsync", cuMemFreeAsync),
    NAMED("cuMemGetInfo", cuMemGetInfo_v2),
    NAMED("cuMemCreate", cuMemCreate),
    NAMED("cuMemRelease", cuMemRelease),
    NAMED("cuMemMap", cuMemMap),
    NAMED("cuMemUnmap", cuMemUnmap),
    NAMED("cuArrayCreate", cuArrayCreate_v2),
    NAMED("cuArrayDestroy", cuArrayDestroy),
    NAMED("cuGraphAddMemAllocNode", cuGraphAddMemAllocNode),
    NAMED("cuGraphLaunch", cuGraphLaunch),
    NAMED("cuLaunchKernel", cuLaunchKernel),
    NAMED("cuStreamCreate", cuStreamCreate),
    NAMED("cuStreamSynchronize", cuStreamSynchronize),
    NAMED("cuGetProcAddress", cuGetProcAddress_v2),
};

cu_result cuGetProcAddress_v2(const char *name, void **ret, int version, uint64_t flags,
                              int *ret_why)
{
    (void)version;
    (void)flags;
    *ret = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        *ret = strcmp(NAMES[i].name, name) == 0 ? NAMES[i].at : *ret;
    }
    if (ret_why != NULL) {
        *ret_why = *ret != NULL ? 0 : 1;
    }
    return *ret != NULL ? CU_OK : CU_NOT_FOUND;
}

cu_result cuGetProcAddress(const char *name, void **ret, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, ret, version, flags, NULL);
}
