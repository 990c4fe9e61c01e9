/* The pages of this process's share: found beside the library, mapped once, and a row of the usage
 * page held by a lock that ends with the process. */
#include "interpose/interpose.h"

#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ORDINALS_MAX 64

static struct {
    pthread_mutex_t lock;
    atomic_int state; /* 0: not tried; 1: attached; 2: there is none */
    const struct at_share_limits *limits;
    struct at_share_usage *usage;
    int usage_fd;
    unsigned row;
    _Atomic int8_t of_ordinal[ORDINALS_MAX]; /* position + 2; 0: not asked yet */
} share = {.lock = PTHREAD_MUTEX_INITIALIZER, .usage_fd = -1};

__thread bool inside;

/* By system call: the C library of an old image may lack the newer names. */
static void *map_file(const char *dir, size_t dir_len, const char *name, size_t bytes, bool write,
                      int *ret_fd)
{
    char path[4096];
    size_t len = strlen(name);
    if (dir_len + len + 1 > sizeof path) {
        return NULL;
    }
    memcpy(path, dir, dir_len);
    memcpy(path + dir_len, name, len + 1);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    off_t size = lseek(fd, 0, SEEK_END);
    void *at = size < (off_t)bytes
                   ? MAP_FAILED
                   : mmap(NULL, bytes, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (at == MAP_FAILED || !write) {
        close(fd);
        fd = -1;
    }
    *ret_fd = fd;
    return at == MAP_FAILED ? NULL : at;
}

static bool lock_row(unsigned row, int how)
{
    struct flock lock = {
        .l_type = (short)how, .l_whence = SEEK_SET, .l_start = 1 + (off_t)row, .l_len = 1};
    return syscall(SYS_fcntl, share.usage_fd, F_OFD_SETLK, &lock) == 0;
}

static void row_clear(struct at_share_process *p)
{
    for (unsigned d = 0; d < AT_SHARE_DEVICES_MAX; d++) {
        __atomic_store_n(&p->devices[d].memory_bytes, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&p->devices[d].spill_bytes, 0, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&p->pid, 0, __ATOMIC_SEQ_CST);
}

static bool row_claim(void)
{
    for (unsigned row = 0; row < AT_SHARE_PROCESSES_MAX; row++) {
        if (!lock_row(row, F_WRLCK)) {
            continue;
        }
        struct at_share_process *p = &share.usage->processes[row];
        row_clear(p);
        __atomic_store_n(&p->pid, (int64_t)getpid(), __ATOMIC_SEQ_CST);
        uint64_t rows = __atomic_load_n(&share.usage->rows, __ATOMIC_SEQ_CST);
        while (rows < row + 1 &&
               !__atomic_compare_exchange_n(&share.usage->rows, &rows, row + 1, false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        }
        share.row = row;
        return true;
    }
    return false;
}

/* The object that holds our own code. */
static int on_object(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    uintptr_t here = (uintptr_t)&share_attach;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && here - info->dlpi_addr - p->p_vaddr < p->p_memsz) {
            *(const char **)ctx = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

static const char *own_path(void)
{
    const char *path = NULL;
    dl_iterate_phdr(on_object, &path);
    return path;
}

static bool attach(void)
{
    const char *path = own_path();
    size_t dir_len = path != NULL ? strlen(path) : 0;
    while (dir_len > 0 && path[dir_len - 1] != '/') {
        dir_len--;
    }
    if (dir_len == 0) {
        return false;
    }
    int unused;
    if (share.limits == NULL) {
        share.limits =
            map_file(path, dir_len, AT_SHARE_LIMITS_NAME, sizeof *share.limits, false, &unused);
    }
    share.usage =
        map_file(path, dir_len, AT_SHARE_USAGE_NAME, sizeof *share.usage, true, &share.usage_fd);
    return share.limits != NULL && share.usage != NULL && share.limits->magic == AT_SHARE_MAGIC &&
           share.usage->magic == AT_SHARE_MAGIC && row_claim();
}

/* In the child of a fork: the row and its lock are the parent's. */
static void on_fork(void)
{
    share.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (share.usage != NULL) {
        munmap(share.usage, sizeof *share.usage);
        close(share.usage_fd);
    }
    share.usage = NULL;
    share.usage_fd = -1;
    atomic_store(&share.state, 0);
    book_forget_all();
    launch_forget_all();
}

bool share_attach(void)
{
    int state = atomic_load_explicit(&share.state, memory_order_acquire);
    if (state != 0) {
        return state == 1;
    }
    pthread_mutex_lock(&share.lock);
    state = atomic_load(&share.state);
    if (state == 0) {
        static bool told;
        if (!told) {
            told = true;
            pthread_atfork(NULL, NULL, on_fork);
        }
        state = attach() ? 1 : 2;
        atomic_store_explicit(&share.state, state, memory_order_release);
    }
    pthread_mutex_unlock(&share.lock);
    return state == 1;
}

/* No format function: a number with its sign, before and after fixed words. */
static void put_variable(const char *name, const char *before, uint64_t value, const char *after)
{
    char text[64], digits[24];
    size_t n = 0, len = strlen(before);
    memcpy(text, before, len);
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (n > 0) {
        text[len++] = digits[--n];
    }
    memcpy(text + len, after, strlen(after) + 1);
    setenv(name, text, 1);
}

void share_mps_environment(void)
{
    const struct at_share_mps *mps = &share.limits->mps;
    uint64_t percent = __atomic_load_n(&mps->percent, __ATOMIC_ACQUIRE);
    if (percent == 0) {
        return;
    }
    char pipe[sizeof mps->pipe];
    memcpy(pipe, mps->pipe, sizeof pipe);
    pipe[sizeof pipe - 1] = '\0';
    setenv("CUDA_MPS_PIPE_DIRECTORY", pipe, 1);
    put_variable("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "", percent, "");
    put_variable("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=", mps->memory_mib, "M");
    unsetenv("CUDA_MPS_ENABLE_PER_CTX_DEVICE_MULTIPROCESSOR_PARTITIONING");
}

int share_device_of_uuid(const uint8_t uuid[AT_SHARE_UUID_BYTES])
{
    if (!share_attach()) {
        return NO_DEVICE;
    }
    uint64_t n = __atomic_load_n(&share.limits->n_devices, __ATOMIC_ACQUIRE);
    for (unsigned d = 0; d < n && d < AT_SHARE_DEVICES_MAX; d++) {
        if (memcmp(share.limits->devices[d].uuid, uuid, AT_SHARE_UUID_BYTES) == 0) {
            return (int)d;
        }
    }
    return NO_DEVICE;
}

int share_device(cu_device device)
{
    if (device < 0 || device >= ORDINALS_MAX || !share_attach()) {
        return NO_DEVICE;
    }
    int known = atomic_load_explicit(&share.of_ordinal[device], memory_order_relaxed);
    if (known != 0) {
        return known - 2;
    }
    struct cu_uuid uuid;
    const struct real_calls *r = real();
    /* The second form names an instance of a MIG device, the first the whole. */
    if ((r->cuDeviceGetUuid_v2 == NULL || r->cuDeviceGetUuid_v2(&uuid, device) != CU_OK) &&
        (r->cuDeviceGetUuid == NULL || r->cuDeviceGetUuid(&uuid, device) != CU_OK)) {
        return NO_DEVICE; /* not initialised yet: asked again */
    }
    int found = share_device_of_uuid(uuid.bytes);
    atomic_store_explicit(&share.of_ordinal[device], (int8_t)(found + 2), memory_order_relaxed);
    return found;
}

int share_device_current(void)
{
    cu_device device;
    const struct real_calls *r = real();
    return r->cuCtxGetDevice != NULL && r->cuCtxGetDevice(&device) == CU_OK ? share_device(device)
                                                                            : NO_DEVICE;
}

static atomic_uint context_generation;

int share_device_of_context(cu_handle context)
{
    static __thread struct {
        cu_handle context;
        unsigned generation;
        int device;
    } last __attribute__((tls_model("initial-exec")));
    unsigned generation = atomic_load_explicit(&context_generation, memory_order_acquire);
    if (last.context != context || last.generation != generation || last.device == NO_DEVICE) {
        last.context = context;
        last.generation = generation;
        last.device = share_device_current();
    }
    return last.device;
}

void share_forget_contexts(void)
{
    atomic_fetch_add(&context_generation, 1);
}

const struct at_share_limit *share_limit(int device)
{
    return &share.limits->devices[device];
}

uint64_t share_period_ns(void)
{
    return __atomic_load_n(&share.limits->period_us, __ATOMIC_RELAXED) * 1000;
}

struct at_share_count *share_count(int device)
{
    return &share.usage->counts[device];
}

struct at_share_use *share_own(int device)
{
    return &share.usage->processes[share.row].devices[device];
}

int64_t share_used(int device, bool spill)
{
    int64_t sum = 0;
    uint64_t rows = __atomic_load_n(&share.usage->rows, __ATOMIC_SEQ_CST);
    for (unsigned row = 0; row < rows && row < AT_SHARE_PROCESSES_MAX; row++) {
        struct at_share_use *use = &share.usage->processes[row].devices[device];
        int64_t bytes =
            __atomic_load_n(spill ? &use->spill_bytes : &use->memory_bytes, __ATOMIC_SEQ_CST);
        /* No sum of others' claims may wrap around. */
        sum += bytes > 0 && bytes < INT64_MAX / 512 ? bytes : bytes > 0 ? INT64_MAX / 512 : 0;
    }
    return sum;
}

bool share_reclaim(void)
{
    bool any = false;
    pthread_mutex_lock(&share.lock); /* the lock of a row does not tell threads apart */
    uint64_t rows = __atomic_load_n(&share.usage->rows, __ATOMIC_SEQ_CST);
    for (unsigned row = 0; row < rows && row < AT_SHARE_PROCESSES_MAX; row++) {
        struct at_share_process *p = &share.usage->processes[row];
        if (row == share.row || __atomic_load_n(&p->pid, __ATOMIC_SEQ_CST) == 0 ||
            !lock_row(row, F_WRLCK)) {
            continue;
        }
        row_clear(p);
        any = true;
        (void)lock_row(row, F_UNLCK);
    }
    pthread_mutex_unlock(&share.lock);
    return any;
}
