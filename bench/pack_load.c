/* Decisions of the packing engine on a made-up cluster, on one core.
 * Usage: pack_load POLICY NODES INSTANCES DECISIONS
 * Fills the cluster with INSTANCES (0: until DECISIONS were asked for), then lets a random one go
 * before each of DECISIONS decisions. Prints decisions/s, median, p99.9 and worst ns (CPU time),
 * how many were placed, how many run, and the peak of memory in KiB. */
#include "core/mem.h"
#include "scheduler/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CLASSES 96

struct held {
    uint32_t class_id;
    struct at_pack_place place;
};

static uint64_t random_state = 42;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static struct at_pack_node make_node(void)
{
    static const struct at_pack_node KINDS[] = {{96000, 393216, 8, 0},  {96000, 393216, 8, 0},
                                                {104000, 524288, 2, 1}, {64000, 262144, 4, 2},
                                                {128000, 786432, 8, 3}, {32000, 131072, 2, 4}};
    return KINDS[draw(AT_ARRAY_LEN(KINDS))];
}

/* Shares of a GPU mostly, small when many instances have to fit. */
static struct at_pack_share make_share(int i, bool small)
{
    struct at_pack_request r = {.cpu_milli = 500 * (1 + (int64_t)draw(small ? 8 : 24)),
                                .memory_mib = 1024 * (1 + (int64_t)draw(16))};
    int kind = i % 8;
    r.gpus = kind == 0 ? 0 : kind == 1 && !small && i % 3 == 0 ? 2 : 1;
    r.gpu_milli = kind == 0            ? 0
                  : kind < 4 && !small ? 1000
                                       : 50 + 10 * (uint32_t)draw(small ? 40 : 80);
    r.models = i % 11 == 0 && r.gpus > 0 ? 3 : 0;
    return (struct at_pack_share){r, 1000u / (uint32_t)(i + 1) + 1};
}

/* CPU time of this thread: what other programs take of the core is not counted. */
static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int cmp_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Not getrusage: its peak is that of the process that started this one, if that was larger. */
static long peak_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)sscanf(line, "VmHWM: %ld", &kib);
    }
    if (f != NULL) {
        fclose(f);
    }
    return kib;
}

struct load {
    struct at_pack *pack;
    struct at_pack_share shares[CLASSES];
    uint32_t ids[CLASSES];
    uint64_t weight;
    struct held *held;
    size_t n_held;
};

static bool put_one(struct load *l)
{
    uint64_t at = draw(l->weight);
    size_t c = 0;
    while (at >= l->shares[c].count) {
        at -= l->shares[c++].count;
    }
    struct held *h = &l->held[l->n_held];
    h->class_id = l->ids[c];
    bool placed = at_pack_put(l->pack, h->class_id, &h->place);
    l->n_held += placed;
    return placed;
}

static void let_one_go(struct load *l)
{
    if (l->n_held > 0) {
        size_t at = draw(l->n_held);
        at_pack_release(l->pack, l->held[at].class_id, &l->held[at].place);
        l->held[at] = l->held[--l->n_held];
    }
}

static int begin(struct load *l, const char *policy_name, size_t n_nodes, bool small)
{
    enum at_pack_policy policy;
    struct at_err err = {0};
    struct at_pack_node *nodes = at_alloc(n_nodes * sizeof *nodes);
    struct at_pack_mix mix = {l->shares, CLASSES};
    for (size_t i = 0; i < n_nodes; i++) {
        nodes[i] = make_node();
    }
    for (int i = 0; i < CLASSES; i++) {
        l->shares[i] = make_share(i, small);
        l->weight += l->shares[i].count;
    }
    enum at_rc rc = at_pack_policy_find(policy_name, &policy);
    if (rc == AT_OK) {
        rc = at_pack_new(policy, nodes, n_nodes, &mix, &l->pack, &err);
    }
    for (int i = 0; rc == AT_OK && i < CLASSES; i++) {
        rc = at_pack_class(l->pack, &l->shares[i].request, &l->ids[i], &err);
    }
    at_free(nodes);
    return rc == AT_OK ? 0 : at_rc_exit_status(rc);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fputs("usage: pack_load POLICY NODES INSTANCES DECISIONS\n", stderr);
        return 2;
    }
    size_t instances = strtoul(argv[3], NULL, 10), n = strtoul(argv[4], NULL, 10), placed = 0;
    struct load l = {.held = at_alloc((instances + n + 1) * sizeof(struct held))};
    int64_t *took = at_alloc(n * sizeof *took + 8), total = 0;
    int status = begin(&l, argv[1], strtoul(argv[2], NULL, 10), instances > 0);
    for (size_t i = 0; status == 0 && l.n_held < instances && i < 2 * instances; i++) {
        put_one(&l);
    }
    for (size_t i = 0; status == 0 && i < n; i++) {
        int64_t start = now_ns();
        if (instances > 0) {
            let_one_go(&l);
        }
        placed += put_one(&l);
        took[i] = now_ns() - start;
        total += took[i];
    }
    if (status == 0 && n > 0) {
        qsort(took, n, sizeof *took, cmp_i64);
        printf("%.0f %lld %lld %lld %zu %zu %ld\n", (double)n * 1e9 / (double)total,
               (long long)took[n / 2], (long long)took[n - 1 - n / 1000], (long long)took[n - 1],
               placed, l.n_held, peak_kib());
    }
    at_pack_free(l.pack);
    at_free(took);
    at_free(l.held);
    return status;
}
