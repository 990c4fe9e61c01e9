/* What the tests of a real GPU run: a program that uses CUDA's driver and nothing else of CUDA, so
 * that it needs neither its headers nor its compiler: the kernels are PTX, which the driver
 * translates.
 *
 *   alloc:N  free  info   spin:MS (kernels of about 0.2 ms for so long; prints how many of them)
 * sleep:MS rate:N (launches of an empty kernel; ns each)   copy:BYTES:N (to the device; MiB a
 * second)   crash (a store to nowhere) barrier:PATH (wait until that file exists)
 *
 *   fill:BYTES (takes them and writes a pattern)   check (is it still there? none: not read)   wait
 * (for the end of standard input)
 *
 * Each word prints op=RESULT. A driver without modules, as the stand-in of the other tests, gets
 * launches of that time. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HELD_MAX 1024
#define KERNEL_NS 200000
#define BLOCKS 528 /* more than any GPU has multiprocessors, twice */

static const char PTX[] = ".version 6.0\n.target sm_50\n.address_size 64\n"
                          ".visible .entry spin(.param .u64 n, .param .u64 out) {\n"
                          " .reg .u64 %rd<4>; .reg .f32 %f<2>; .reg .pred %p<2>;\n"
                          " ld.param.u64 %rd1, [n]; ld.param.u64 %rd3, [out];\n"
                          " mov.f32 %f1, 0f3F800000; mov.u64 %rd2, 0;\n"
                          "AGAIN:\n"
                          " fma.rn.f32 %f1, %f1, %f1, %f1; fma.rn.f32 %f1, %f1, %f1, %f1;\n"
                          " fma.rn.f32 %f1, %f1, %f1, %f1; fma.rn.f32 %f1, %f1, %f1, %f1;\n"
                          " add.u64 %rd2, %rd2, 1; setp.lt.u64 %p1, %rd2, %rd1;\n"
                          "@%p1 bra AGAIN;\n"
                          " setp.eq.u64 %p1, %rd3, 0;\n"
                          "@%p1 bra DONE;\n"
                          " st.global.f32 [%rd3], %f1;\n"
                          "DONE:\n"
                          " ret;\n"
                          "}\n"
                          ".visible .entry nothing() { ret; }\n";

static struct {
    int (*init)(unsigned);
    int (*context)(void **, unsigned, int);
    int (*alloc)(uint64_t *, size_t);
    int (*free)(uint64_t);
    int (*info)(size_t *, size_t *);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                  void *, void **, void **);
    int (*wait)(void *);
    /* NULL in the stand-in: */
    int (*module)(void **, const void *);
    int (*function)(void **, void *, const char *);
    int (*copy)(uint64_t, const void *, size_t);
    int (*back)(void *, uint64_t, size_t);
} cu;

static void *spin_kernel, *empty_kernel;
static uint64_t held[HELD_MAX];
static size_t n_held;
static uint64_t turns = 1000; /* of spin's loop for KERNEL_NS */

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    const struct {
        const char *name;
        void **to;
    } rows[] = {
        {"cuInit", (void **)&cu.init},
        {"cuCtxCreate_v2", (void **)&cu.context},
        {"cuMemAlloc_v2", (void **)&cu.alloc},
        {"cuMemFree_v2", (void **)&cu.free},
        {"cuMemGetInfo_v2", (void **)&cu.info},
        {"cuLaunchKernel", (void **)&cu.launch},
        {"cuStreamSynchronize", (void **)&cu.wait},
        {"cuModuleLoadData", (void **)&cu.module},
        {"cuModuleGetFunction", (void **)&cu.function},
        {"cuMemcpyHtoD_v2", (void **)&cu.copy},
        {"cuMemcpyDtoH_v2", (void **)&cu.back},
    };
    for (size_t i = 0; library != NULL && i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].to = dlsym(library, rows[i].name);
    }
    if (cu.wait == NULL) {
        printf("no driver: %s\n", library == NULL ? dlerror() : "too old");
        exit(3);
    }
}

static int launch(uint64_t n, uint64_t out)
{
    void *arguments[] = {&n, &out, NULL};
    return cu.module != NULL
               ? cu.launch(spin_kernel, BLOCKS, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL)
               : cu.launch((void *)(uintptr_t)KERNEL_NS, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

/* How many turns take KERNEL_NS while nobody else computes: the argument SPIN_TURNS carries it to
 * later programs. */
static void calibrate(void)
{
    if (getenv("SPIN_TURNS") != NULL) {
        turns = strtoull(getenv("SPIN_TURNS"), NULL, 10);
        return;
    }
    for (int i = 0; i < 8 && cu.module != NULL; i++) {
        (void)cu.wait(NULL);
        int64_t from = now_ns();
        for (int k = 0; k < 20; k++) {
            (void)launch(turns, 0);
        }
        (void)cu.wait(NULL);
        int64_t each = (now_ns() - from) / 20;
        turns = turns * KERNEL_NS / (uint64_t)(each > 1000 ? each : 1000) + 1;
    }
    printf("turns=%llu\n", (unsigned long long)turns);
}

static void spin(long ms)
{
    int64_t end = now_ns() + ms * 1000000, n = 0;
    int result = 0;
    while (result == 0 && now_ns() < end) {
        for (int k = 0; k < 8 && result == 0; k++, n++) {
            result = launch(turns, 0);
        }
        result = result == 0 ? cu.wait(NULL) : result;
    }
    printf("spin=%lld\n", result == 0 ? (long long)n : -(long long)result);
}

static void rate(long n)
{
    int64_t from = now_ns();
    int result = 0;
    for (long i = 0; i < n && result == 0; i++) {
        result = cu.module != NULL ? cu.launch(empty_kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL)
                                   : cu.launch(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
        if (i % 512 == 511) {
            (void)cu.wait(NULL);
        }
    }
    (void)cu.wait(NULL);
    printf("rate=%lld\n", result == 0 ? (long long)((now_ns() - from) / (n > 0 ? n : 1)) : -1);
}

static void copy(long bytes, long n)
{
    void *from = calloc(1, (size_t)bytes);
    uint64_t to = 0;
    if (cu.copy == NULL || from == NULL || cu.alloc(&to, (size_t)bytes) != 0) {
        printf("copy=none\n");
        free(from);
        return;
    }
    int64_t began = now_ns();
    for (long i = 0; i < n; i++) {
        (void)cu.copy(to, from, (size_t)bytes);
    }
    int64_t took = now_ns() - began;
    (void)cu.free(to);
    free(from);
    printf("copy=%lld\n", (long long)((double)bytes * (double)n / 1048576 * 1e9 / (double)took));
}

static size_t filled_bytes;
static uint64_t filled;

static uint64_t *pattern(void)
{
    uint64_t *words = malloc(filled_bytes);
    for (size_t i = 0; words != NULL && i < filled_bytes / 8; i++) {
        words[i] = i * 0x9e3779b97f4a7c15u;
    }
    return words;
}

static void fill(size_t bytes)
{
    filled_bytes = bytes;
    int result = cu.alloc(&filled, bytes);
    uint64_t *words = result == 0 && cu.copy != NULL ? pattern() : NULL;
    result = words != NULL ? cu.copy(filled, words, bytes) : result;
    free(words);
    printf("fill=%d\n", result);
}

/* Waits while the process is parked, as each call does. */
static void check(void)
{
    size_t free_bytes, total;
    int result = cu.info(&free_bytes, &total);
    uint64_t *words = cu.back != NULL ? pattern() : NULL, *now = malloc(filled_bytes);
    if (words == NULL || now == NULL) {
        printf("check=none\n");
    } else {
        result = result == 0 ? cu.back(now, filled, filled_bytes) : result;
        printf("check=%d\n", result != 0 ? result : memcmp(now, words, filled_bytes) != 0);
    }
    free(words);
    free(now);
}

static void act(const char *op, const char *rest)
{
    char *more = NULL;
    long a = strtol(rest, &more, 10), b = *more == ':' ? strtol(more + 1, NULL, 10) : 0;
    size_t free_bytes = 0, total = 0;
    if (strcmp(op, "alloc") == 0) {
        int result = n_held < HELD_MAX ? cu.alloc(&held[n_held], (size_t)a) : -1;
        n_held += result == 0;
        printf("alloc=%d\n", result);
    } else if (strcmp(op, "free") == 0) {
        printf("free=%d\n", n_held > 0 ? cu.free(held[--n_held]) : -1);
    } else if (strcmp(op, "info") == 0) {
        int result = cu.info(&free_bytes, &total);
        printf("info=%d %zu/%zu\n", result, free_bytes, total);
    } else if (strcmp(op, "calibrate") == 0) {
        calibrate();
    } else if (strcmp(op, "spin") == 0) {
        spin(a);
    } else if (strcmp(op, "rate") == 0) {
        rate(a);
    } else if (strcmp(op, "copy") == 0) {
        copy(a, b);
    } else if (strcmp(op, "crash") == 0) {
        (void)launch(1, 16);
        printf("crash=%d\n", cu.wait(NULL));
    } else if (strcmp(op, "fill") == 0) {
        fill((size_t)a);
    } else if (strcmp(op, "check") == 0) {
        check();
    } else if (strcmp(op, "wait") == 0) {
        while (getchar() != EOF) {
        }
    } else if (strcmp(op, "sleep") == 0) {
        usleep((useconds_t)a * 1000);
    } else if (strcmp(op, "barrier") == 0) {
        while (access(rest, F_OK) != 0) {
            usleep(1000);
        }
    } else {
        printf("%s=?\n", op);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    void *context, *module;
    load();
    int result = cu.init(0);
    result = result == 0 ? cu.context(&context, 0, 0) : result;
    if (result == 0 && cu.module != NULL) {
        result = cu.module(&module, PTX);
        result = result == 0 ? cu.function(&spin_kernel, module, "spin") : result;
        result = result == 0 ? cu.function(&empty_kernel, module, "nothing") : result;
    }
    if (result != 0) {
        printf("start=%d\n", result);
        return 1;
    }
    if (getenv("SPIN_TURNS") != NULL) {
        calibrate();
    }
    for (int i = 1; i < argc; i++) {
        char *rest = strchr(argv[i], ':');
        if (rest != NULL) {
            *rest++ = '\0';
        }
        act(argv[i], rest != NULL ? rest : "");
    }
    return 0;
}
