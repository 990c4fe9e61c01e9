/* Launches and allocations in a loop, by a program that looks the driver up by itself: prints ns
 * for one of each, the median of nine rounds. bench/gpu runs it with libatoll-gpu.so and without.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 9
#define LAUNCHES 200000
#define ALLOCATIONS 100000

typedef int launch_fn(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                      void *, void **, void **);

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(void)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
    if (cuda == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(cuda, "cuInit");
    int (*context)(void **, unsigned, int) =
        (int (*)(void **, unsigned, int))dlsym(cuda, "cuCtxCreate_v2");
    launch_fn *launch = (launch_fn *)dlsym(cuda, "cuLaunchKernel");
    int (*alloc)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))dlsym(cuda, "cuMemAlloc_v2");
    int (*drop)(uint64_t) = (int (*)(uint64_t))dlsym(cuda, "cuMemFree_v2");
    void *c;
    if (init(0) != 0 || context(&c, 0, 0) != 0) {
        fprintf(stderr, "no context\n");
        return 1;
    }
    double launches[ROUNDS], allocations[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        int64_t begin = now_ns();
        for (int i = 0; i < LAUNCHES; i++) {
            if (launch(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL) != 0) {
                return 1;
            }
        }
        launches[r] = (double)(now_ns() - begin) / LAUNCHES;
        begin = now_ns();
        for (int i = 0; i < ALLOCATIONS; i++) {
            uint64_t at;
            if (alloc(&at, 4096) != 0 || drop(at) != 0) {
                return 1;
            }
        }
        allocations[r] = (double)(now_ns() - begin) / ALLOCATIONS;
    }
    qsort(launches, ROUNDS, sizeof launches[0], by_size);
    qsort(allocations, ROUNDS, sizeof allocations[0], by_size);
    printf("%.1f %.1f\n", launches[ROUNDS / 2], allocations[ROUNDS / 2]);
    return 0;
}
