/* What the tests run under libatoll-gpu.so: a program that uses the driver as its arguments say and
 * prints what it was answered. Built twice: linked with the driver (LINKED), and looking it up by
 * itself in the way that its first argument names: dlsym or procaddress.
 *
 *   alloc:N async:N pool:N managed:N pitch:W:H vmm:N array:W:H node:N   bytes; prints op=RESULT
 *   retry:N (alloc until it succeeds)  free-twice  drop (the newest of what it holds)   info  total
 * context  destroy  reset launch:NS:N  graph:NS:N  spin:NS:MS (launch for so long, print how many)
 * sync fork:WORD (do one word in a child)   exec:WORD   threads:N (that many allocate and free)
 *   abandon:N (a child allocates, then is killed)   sleep:MS   wait (until stdin ends)   nvml
 *   serve:NS (HTTP on $PORT; each request is a kernel that takes so long) */
#include "interpose/cuda_abi.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LAUNCH_TYPES                                                                               \
    cu_handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, cu_handle,    \
        void **, void **
#define CALLS(X)                                                                                   \
    X(cuInit, cuInit, (unsigned))                                                                  \
    X(cuCtxCreate, cuCtxCreate_v2, (cu_handle *, unsigned, cu_device))                             \
    X(cuCtxDestroy, cuCtxDestroy_v2, (cu_handle))                                                  \
    X(cuCtxSetCurrent, cuCtxSetCurrent, (cu_handle))                                               \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (cu_handle *, cu_device))                \
    X(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, (cu_device))                            \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t *, cu_device))                                \
    X(cuMemAlloc, cuMemAlloc_v2, (cu_ptr *, size_t))                                               \
    X(cuMemAllocManaged, cuMemAllocManaged, (cu_ptr *, size_t, unsigned))                          \
    X(cuMemAllocPitch, cuMemAllocPitch_v2, (cu_ptr *, size_t *, size_t, size_t, unsigned))         \
    X(cuMemFree, cuMemFree_v2, (cu_ptr))                                                           \
    X(cuMemAllocAsync, cuMemAllocAsync, (cu_ptr *, size_t, cu_handle))                             \
    X(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, (cu_ptr *, size_t, cu_handle, cu_handle))  \
    X(cuMemFreeAsync, cuMemFreeAsync, (cu_ptr, cu_handle))                                         \
    X(cuMemGetInfo, cuMemGetInfo_v2, (size_t *, size_t *))                                         \
    X(cuMemCreate, cuMemCreate,                                                                    \
      (cu_alloc_handle *, size_t, const struct cu_alloc_prop *, unsigned long long))               \
    X(cuMemRelease, cuMemRelease, (cu_alloc_handle))                                               \
    X(cuMemMap, cuMemMap, (cu_ptr, size_t, size_t, cu_alloc_handle, unsigned long long))           \
    X(cuMemUnmap, cuMemUnmap, (cu_ptr, size_t))                                                    \
    X(cuArrayCreate, cuArrayCreate_v2, (cu_handle *, const struct cu_array_desc *))                \
    X(cuArrayDestroy, cuArrayDestroy, (cu_handle))                                                 \
    X(cuGraphAddMemAllocNode, cuGraphAddMemAllocNode,                                              \
      (cu_handle *, cu_handle, const cu_handle *, size_t, struct cu_node_alloc *))                 \
    X(cuGraphLaunch, cuGraphLaunch, (cu_handle, cu_handle))                                        \
    X(cuLaunchKernel, cuLaunchKernel, (LAUNCH_TYPES))                                              \
    X(cuStreamSynchronize, cuStreamSynchronize, (cu_handle))

static struct {
#define FIELD(name, symbol, types) cu_result(*name) types;
    CALLS(FIELD)
#undef FIELD
} cu;

#ifdef LINKED
#define DECLARE(name, symbol, types) extern cu_result symbol types;
CALLS(DECLARE)
#undef DECLARE

static void load(const char *how)
{
    (void)how;
#define FILL(name, symbol, types) cu.name = symbol;
    CALLS(FILL)
#undef FILL
}
#else
typedef cu_result look_fn(const char *name, void **ret, int version, uint64_t flags, int *ret_why);

static void load(const char *how)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("%s\n", dlerror());
        exit(3);
    }
    look_fn *look = (look_fn *)dlsym(library, "cuGetProcAddress_v2");
#define FILL(name, symbol, types)                                                                  \
    if (strcmp(how, "procaddress") == 0) {                                                         \
        (void)look(#name, (void **)&cu.name, 12000, 0, NULL);                                      \
    } else {                                                                                       \
        *(void **)&cu.name = dlsym(library, #symbol);                                              \
    }
    CALLS(FILL)
#undef FILL
}
#endif

#define HELD_MAX 4096
static struct held {
    char op[16];
    cu_ptr at;
    size_t bytes;
} held[HELD_MAX];
static int n_held;
static cu_handle context;
static char **self;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static cu_result launch(int64_t ns)
{
    return cu.cuLaunchKernel((cu_handle)(intptr_t)ns, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

static cu_result allocate(const char *op, long a, long b, cu_ptr *ret)
{
    size_t pitch;
    cu_handle handle = NULL;
    cu_result result;
    if (strcmp(op, "vmm") == 0) {
        struct cu_alloc_prop prop = {.type = 1, .location = {.type = CU_LOCATION_DEVICE, .id = 0}};
        result = cu.cuMemCreate(ret, (size_t)a, &prop, 0);
        if (result == CU_OK) { /* the mapping alone holds it */
            result = cu.cuMemMap(*ret + 0x100000000000, (size_t)a, 0, *ret, 0);
            (void)cu.cuMemRelease(*ret);
            *ret += 0x100000000000;
        }
        return result;
    }
    if (strcmp(op, "array") == 0) {
        struct cu_array_desc desc = {
            .width = (size_t)a, .height = (size_t)b, .format = 0x20, .channels = 1};
        result = cu.cuArrayCreate(&handle, &desc);
        *ret = (uintptr_t)handle;
        return result;
    }
    if (strcmp(op, "node") == 0) {
        static struct cu_node_alloc params;
        params.bytes = (size_t)a;
        result = cu.cuGraphAddMemAllocNode(&handle, NULL, NULL, 0, &params);
        *ret = params.ret_ptr;
        return result;
    }
    return strcmp(op, "alloc") == 0     ? cu.cuMemAlloc(ret, (size_t)a)
           : strcmp(op, "async") == 0   ? cu.cuMemAllocAsync(ret, (size_t)a, NULL)
           : strcmp(op, "pool") == 0    ? cu.cuMemAllocFromPoolAsync(ret, (size_t)a, NULL, NULL)
           : strcmp(op, "managed") == 0 ? cu.cuMemAllocManaged(ret, (size_t)a, CU_ATTACH_GLOBAL)
           : strcmp(op, "pitch") == 0   ? cu.cuMemAllocPitch(ret, &pitch, (size_t)a, (size_t)b, 4)
                                        : -1;
}

static cu_result drop(const struct held *h)
{
    return strcmp(h->op, "vmm") == 0     ? cu.cuMemUnmap(h->at, h->bytes)
           : strcmp(h->op, "array") == 0 ? cu.cuArrayDestroy((cu_handle)(uintptr_t)h->at)
           : strcmp(h->op, "async") == 0 ? cu.cuMemFreeAsync(h->at, NULL)
                                         : cu.cuMemFree(h->at);
}

static void *allocate_and_free(void *count)
{
    (void)cu.cuCtxSetCurrent(context);
    long failed = 0;
    for (int i = 0; i < 300; i++) {
        cu_ptr at[4];
        int n = 0;
        while (n < 4 && cu.cuMemAlloc(&at[n], 1 << 20) == CU_OK) {
            n++;
        }
        failed += 4 - n;
        while (n > 0) {
            (void)cu.cuMemFree(at[--n]);
        }
    }
    __atomic_add_fetch((long *)count, failed, __ATOMIC_SEQ_CST);
    return NULL;
}

static void threads(long n)
{
    pthread_t ids[64];
    long failed = 0;
    for (long i = 0; i < n && i < 64; i++) {
        pthread_create(&ids[i], NULL, allocate_and_free, &failed);
    }
    for (long i = 0; i < n && i < 64; i++) {
        pthread_join(ids[i], NULL);
    }
    printf("threads=%s\n", failed == 0 ? "whole" : "refused");
}

static bool started;

static void start(void)
{
    started = true;
    cu_result result = cu.cuInit(0);
    result = result == CU_OK ? cu.cuCtxCreate(&context, 0, 0) : result;
    if (result != CU_OK) {
        printf("start=%d\n", result);
        exit(0);
    }
}

static void spin(long ns, long ms)
{
    int64_t end = now_ns() + ms * 1000000, n = 0;
    while (now_ns() < end && launch(ns) == CU_OK) {
        n++;
    }
    (void)cu.cuStreamSynchronize(NULL);
    printf("spin=%lld\n", (long long)n);
}

static void tell_nvml(void)
{
    struct {
        unsigned long long total, free, used;
    } memory = {0};
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW), *device = NULL;
    int (*init)(void) = library != NULL ? (int (*)(void))dlsym(library, "nvmlInit_v2") : NULL;
    int (*handle)(unsigned, void **) =
        (int (*)(unsigned, void **))dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
    int (*ask)(void *, void *) = (int (*)(void *, void *))dlsym(library, "nvmlDeviceGetMemoryInfo");
    if (init == NULL || init() != 0 || handle(0, &device) != 0 || ask(device, &memory) != 0) {
        printf("nvml=none\n");
        return;
    }
    printf("nvml=%llu/%llu/%llu\n", memory.total, memory.free, memory.used);
}

static void act(const char *word);

static void act_in_child(const char *word, int end)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        n_held = 0;
        act(word);
        fflush(stdout);
        if (end != 0) {
            kill(getpid(), end);
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/* One request per connection, one after the other; infer is asked for as the protocol says. */
static void serve(long ns)
{
    static const char ANSWER[] = "{\"model_name\":\"m\",\"outputs\":[]}";
    const char *port = getenv("PORT");
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port =
                                 htons((uint16_t)strtol(port != NULL ? port : "0", NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 64) != 0) {
        printf("serve=%s\n", strerror(errno));
        return;
    }
    printf("serves\n");
    fflush(stdout);
    for (;;) {
        char text[4096];
        int one = accept(fd, NULL, NULL);
        ssize_t n = one >= 0 ? read(one, text, sizeof text - 1) : -1;
        bool asks = n > 4 && memcmp(text, "POST", 4) == 0; /* probes do not touch the GPU */
        cu_result result = asks ? launch(ns) : CU_OK;
        result = asks && result == CU_OK ? cu.cuStreamSynchronize(NULL) : result;
        int len = snprintf(text, sizeof text,
                           "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: "
                           "close\r\nContent-Length: %zu\r\n\r\n%s",
                           result == CU_OK ? "200 OK" : "500 Failed", sizeof ANSWER - 1, ANSWER);
        (void)!write(one, text, (size_t)len);
        (void)shutdown(one, SHUT_WR);
        (void)!read(one, text, sizeof text);
        close(one);
    }
}

/* Words about children and time. */
static bool act_outside(const char *op, const char *rest, long a)
{
    if (strcmp(op, "fork") == 0) {
        act_in_child(rest, 0);
    } else if (strcmp(op, "abandon") == 0) {
        char inner[32];
        snprintf(inner, sizeof inner, "alloc:%ld", a);
        act_in_child(inner, SIGKILL);
    } else if (strcmp(op, "exec") == 0) {
        fflush(stdout);
        unsetenv("LD_PRELOAD");
        execl("/proc/self/exe", self[0], self[1], rest, NULL);
    } else if (strcmp(op, "sleep") == 0) {
        nanosleep(&(struct timespec){.tv_sec = a / 1000, .tv_nsec = a % 1000 * 1000000}, NULL);
    } else if (strcmp(op, "wait") == 0) {
        while (getchar() != EOF) {
        }
    } else {
        return false;
    }
    return true;
}

/* Words about contexts, and questions. */
static bool act_asking(const char *op, long a)
{
    size_t left = 0, total = 0;
    if (strcmp(op, "nvml") == 0) {
        tell_nvml();
    } else if (strcmp(op, "info") == 0) {
        cu_result result = cu.cuMemGetInfo(&left, &total);
        printf("info=%d %zu/%zu\n", result, left, total);
    } else if (strcmp(op, "total") == 0) {
        (void)cu.cuDeviceTotalMem(&total, 0);
        printf("total=%zu\n", total);
    } else if (strcmp(op, "destroy") == 0) {
        printf("destroy=%d\n", cu.cuCtxDestroy(context));
        n_held = 0;
    } else if (strcmp(op, "context") == 0) {
        printf("context=%d\n", cu.cuCtxCreate(&context, 0, (int)a));
    } else if (strcmp(op, "primary") == 0) {
        cu_result result = cu.cuDevicePrimaryCtxRetain(&context, 0);
        (void)cu.cuCtxSetCurrent(context);
        printf("primary=%d\n", result);
    } else if (strcmp(op, "reset") == 0) {
        printf("reset=%d\n", cu.cuDevicePrimaryCtxReset(0));
        n_held = 0;
    } else {
        return false;
    }
    return true;
}

static bool act_launching(const char *op, long a, long b)
{
    if (strcmp(op, "threads") == 0) {
        threads(a);
    } else if (strcmp(op, "spin") == 0) {
        spin(a, b);
    } else if (strcmp(op, "launch") == 0 || strcmp(op, "graph") == 0) {
        cu_result result = CU_OK;
        for (long i = 0; i < b && result == CU_OK; i++) {
            result = strcmp(op, "graph") == 0 ? cu.cuGraphLaunch((cu_handle)a, NULL) : launch(a);
        }
        printf("%s=%d\n", op, result);
    } else if (strcmp(op, "serve") == 0) {
        serve(a);
    } else if (strcmp(op, "sync") == 0) {
        printf("sync=%d\n", cu.cuStreamSynchronize(NULL));
    } else {
        return false;
    }
    return true;
}

static void act_holding(const char *op, long a, long b)
{
    if (strcmp(op, "drop") == 0 && n_held > 0) {
        printf("drop=%d\n", drop(&held[--n_held]));
        return;
    }
    if (strcmp(op, "free-twice") == 0 && n_held > 0) {
        cu_result first = drop(&held[--n_held]), second = drop(&held[n_held]);
        printf("free-twice=%d,%d\n", first, second);
        return;
    }
    cu_ptr at = 0;
    cu_result result = allocate(op, a, b, &at);
    for (int i = 0; strcmp(op, "retry") == 0 && i < 3000; i++) { /* half a minute */
        result = allocate("alloc", a, b, &at);
        i = result == CU_OK ? 3000 : i;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    if (result == CU_OK && n_held < HELD_MAX) {
        snprintf(held[n_held].op, sizeof held[0].op, "%s", op);
        held[n_held].at = at;
        held[n_held++].bytes = (size_t)a;
    }
    printf("%s=%d\n", op, result);
}

static void act(const char *word)
{
    char op[16] = "";
    long a = 0, b = 0;
    const char *rest = strchr(word, ':');
    snprintf(op, sizeof op, "%.*s", (int)strcspn(word, ":"), word);
    if (rest != NULL) {
        sscanf(rest + 1, "%ld:%ld", &a, &b);
    }
    fflush(stdout);
    if (act_outside(op, rest != NULL ? rest + 1 : "", a)) {
        return;
    }
    if (!started) {
        start();
    }
    if (!act_asking(op, a) && !act_launching(op, a, b)) {
        act_holding(op, a, b);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    self = argv;
    load(argc > 1 ? argv[1] : "dlsym");
    for (int i = 2; i < argc; i++) {
        act(argv[i]);
    }
    return 0;
}
