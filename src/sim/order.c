/* Who arrives when: read from a file, or made from a seed; and the mix that is expected. */
#include "core/mem.h"
#include "sim/trace.h"

#include <stdlib.h>

static enum at_rc read_rows(const char *file, size_t line, struct at_str text, const char *word,
                            size_t n_rows, uint32_t **ret, size_t *ret_n, struct at_err *err)
{
    struct at_str first = at_str_cut(&text, ' ');
    if (!at_str_eq(first, word)) {
        return at_err_set(err, AT_INVALID, "%s:%zu: the line has to begin with '%s '", file, line,
                          word);
    }
    size_t cap = 0;
    while (text.len > 0) {
        uint64_t row;
        struct at_str field = at_str_cut(&text, ' ');
        if (at_str_to_u64(field, &row) != AT_OK || row >= n_rows || *ret_n == AT_TRACE_PODS_MAX) {
            return at_err_set(err, AT_INVALID, "%s:%zu: entry %zu is not a row below %zu", file,
                              line, *ret_n + 1, n_rows);
        }
        if (*ret_n == cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            *ret = at_realloc(*ret, cap * sizeof **ret);
        }
        (*ret)[(*ret_n)++] = (uint32_t)row;
    }
    return AT_OK;
}

static enum at_rc check_permutation(const char *file, const struct at_trace_order *o, size_t n,
                                    struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) bool *seen = at_alloc(n * sizeof *seen + 1);
    for (size_t i = 0; i < o->n_nodes; i++) {
        if (seen[o->nodes[i]]) {
            return at_err_set(err, AT_INVALID, "%s:1: node %u stands there twice", file,
                              o->nodes[i]);
        }
        seen[o->nodes[i]] = true;
    }
    if (o->n_nodes != n) {
        return at_err_set(err, AT_INVALID, "%s:1: %zu nodes, the list has %zu", file, o->n_nodes,
                          n);
    }
    return AT_OK;
}

enum at_rc at_trace_read_order(const struct at_trace *t, const char *file, struct at_str text,
                               struct at_trace_order *ret, struct at_err *err)
{
    struct at_trace_order o = {0};
    struct at_str nodes = at_str_cut(&text, '\n'), pods = at_str_cut(&text, '\n');
    enum at_rc rc = read_rows(file, 1, nodes, "nodes", t->n_nodes, &o.nodes, &o.n_nodes, err);
    if (rc == AT_OK) {
        rc = check_permutation(file, &o, t->n_nodes, err);
    }
    if (rc == AT_OK) {
        rc = read_rows(file, 2, pods, "pods", t->n_pods, &o.pods, &o.n_pods, err);
    }
    if (rc == AT_OK && text.len > 0) {
        rc = at_err_set(err, AT_INVALID, "%s:3: two lines are wanted, no more", file);
    }
    if (rc != AT_OK) {
        at_trace_order_done(&o);
        return rc;
    }
    *ret = o;
    return AT_OK;
}

void at_trace_order_done(struct at_trace_order *o)
{
    at_free(o->nodes);
    at_free(o->pods);
    *o = (struct at_trace_order){0};
}

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t random_below(uint64_t *state, size_t n)
{
    return (size_t)(((unsigned __int128)random_next(state) * n) >> 64);
}

static void shuffle(uint64_t *state, uint32_t *rows, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = random_below(state, i);
        uint32_t kept = rows[i - 1];
        rows[i - 1] = rows[j];
        rows[j] = kept;
    }
}

static int cmp_str(struct at_str a, struct at_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);
    return c != 0 ? c : a.len < b.len ? -1 : a.len > b.len;
}

static int cmp_node(const void *a, const void *b, void *ctx)
{
    const struct at_trace *t = ctx;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = cmp_str(t->node_names[x], t->node_names[y]);
    return c != 0 ? c : x < y ? -1 : x > y;
}

static int cmp_pod(const void *a, const void *b, void *ctx)
{
    const struct at_trace *t = ctx;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = cmp_str(t->pods[x].name, t->pods[y].name);
    return c != 0 ? c : x < y ? -1 : x > y;
}

static uint32_t *rows_sorted(const struct at_trace *t, size_t n,
                             int (*cmp)(const void *, const void *, void *))
{
    uint32_t *rows = at_alloc(n * sizeof *rows + 1);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)i;
    }
    qsort_r(rows, n, sizeof *rows, cmp, (void *)(uintptr_t)t);
    return rows;
}

static int64_t milli_of(const struct at_trace_pod *pod)
{
    return (int64_t)pod->request.gpus * pod->request.gpu_milli;
}

/* Remove random pods until the sum is not above target, or add random ones until the next would
 * pass it. (The published rule tests with the milli per GPU, but adds that of all.) */
static void tune(const struct at_trace *t, const uint32_t *sorted, uint64_t *state, int64_t target,
                 struct at_trace_order *o)
{
    int64_t sum = 0;
    size_t cap = o->n_pods;
    for (size_t i = 0; i < o->n_pods; i++) {
        sum += milli_of(&t->pods[o->pods[i]]);
    }
    if (sum == 0) {
        return; /* nobody asks for a GPU: the target cannot be reached */
    }
    if (sum > target) {
        while (sum > target) {
            size_t at = random_below(state, o->n_pods);
            sum -= milli_of(&t->pods[o->pods[at]]);
            memmove(&o->pods[at], &o->pods[at + 1], (--o->n_pods - at) * sizeof *o->pods);
        }
        return;
    }
    while (o->n_pods < AT_TRACE_PODS_MAX) {
        uint32_t row = sorted[random_below(state, t->n_pods)];
        if (sum + t->pods[row].request.gpu_milli > target) {
            return;
        }
        if (o->n_pods == cap) {
            cap *= 2;
            o->pods = at_realloc(o->pods, cap * sizeof *o->pods);
        }
        o->pods[o->n_pods++] = row;
        sum += milli_of(&t->pods[row]);
    }
}

void at_trace_shuffle(const struct at_trace *t, uint64_t seed, double gpu_share,
                      struct at_trace_order *ret)
{
    uint64_t state = seed;
    AT_CLEANUP(at_cleanup_free) uint32_t *sorted = rows_sorted(t, t->n_pods, cmp_pod);
    *ret = (struct at_trace_order){.nodes = rows_sorted(t, t->n_nodes, cmp_node),
                                   .n_nodes = t->n_nodes,
                                   .pods = rows_sorted(t, t->n_pods, cmp_pod),
                                   .n_pods = t->n_pods};
    shuffle(&state, ret->pods, ret->n_pods);
    int64_t target = (int64_t)(gpu_share * (double)at_trace_gpu_milli(t));
    tune(t, sorted, &state, target, ret);
    shuffle(&state, ret->nodes, ret->n_nodes);
}

/* Shapes alike stand together, the larger first; memory is no part of a shape. */
static int cmp_shape(const struct at_trace_pod *a, const struct at_trace_pod *b)
{
    if (a->request.cpu_milli != b->request.cpu_milli) {
        return a->request.cpu_milli > b->request.cpu_milli ? -1 : 1;
    }
    if (a->request.gpu_milli != b->request.gpu_milli) {
        return a->request.gpu_milli > b->request.gpu_milli ? -1 : 1;
    }
    if (a->request.gpus != b->request.gpus) {
        return a->request.gpus > b->request.gpus ? -1 : 1;
    }
    return -cmp_str(a->gpu_spec, b->gpu_spec);
}

static int cmp_pod_shape(const void *a, const void *b, void *ctx)
{
    const struct at_trace *t = ctx;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int c = cmp_shape(&t->pods[x], &t->pods[y]);
    return c != 0 ? c : x < y ? -1 : x > y;
}

struct shape {
    struct at_pack_share share;
    size_t at; /* position in the order of shapes */
};

static int cmp_count(const void *a, const void *b)
{
    const struct shape *x = a, *y = b;
    if (x->share.count != y->share.count) {
        return x->share.count > y->share.count ? -1 : 1;
    }
    return x->at < y->at ? -1 : x->at > y->at;
}

size_t at_trace_mix(const struct at_trace *t, struct at_pack_share **ret)
{
    AT_CLEANUP(at_cleanup_free) uint32_t *rows = rows_sorted(t, t->n_pods, cmp_pod_shape);
    AT_CLEANUP(at_cleanup_free) struct shape *shapes = at_alloc(t->n_pods * sizeof *shapes + 1);
    size_t n = 0;
    for (size_t i = 0; i < t->n_pods; i++) {
        const struct at_trace_pod *pod = &t->pods[rows[i]];
        if (i == 0 || cmp_shape(&t->pods[rows[i - 1]], pod) != 0) {
            shapes[n] = (struct shape){.share.request = pod->request, .at = n};
            shapes[n++].share.request.memory_mib = 0;
        }
        shapes[n - 1].share.count++;
    }
    qsort(shapes, n, sizeof *shapes, cmp_count);
    *ret = at_alloc(n * sizeof **ret + 1);
    for (size_t i = 0; i < n; i++) {
        (*ret)[i] = shapes[i].share;
    }
    return n;
}
