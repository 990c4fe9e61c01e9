/* GPU requests as the packing engine sees them: the objective "fragmentation" is its measure
 * (pack.h, policy atoll; docs/PACKING.md) over the requests that there are. */
#include "scheduler/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 500 /* score of a placement that changes nothing; 1 milli is half a point */
#define SCORE_MAX 1000
#define LEARN_FROM 64   /* requests; with fewer, FGD's measure is used as it is */
#define DRIFT 4         /* looked at when one in so many requests has come or gone */
#define DRIFT_MILLI 200 /* and the shares of kinds differ by so many thousandths in all */
#define SLACK_MILLI 20
#define SLACK_WHOLE_MILLI 100
#define LEARN_WORK 200000   /* leftovers looked at in one update: some 0.2 ms */
#define MIX_COUNT_MAX 60000 /* of one shape; the sum stays far below what the engine counts to */

struct sched_mix {
    struct pack_mix mix;
    bool ready, learned; /* there are GPU requests; enough of them */
    int32_t scarce[AT_PACK_MODELS_MAX];
    struct at_map *models;       /* name -> number + 1 */
    uint64_t changes;            /* GPU requests that came or went since the last look */
    uint64_t total;              /* there were then */
    struct at_pack_share *known; /* what was learned from, by shape */
    size_t n_known;
    uint64_t known_total;
    struct pack_learning *learning; /* for shares, over several updates; NULL: none */
    struct at_pack_share *shares;   /* the most frequent first */
    size_t n_shares;
};

struct sched_mix *sched_mix_new(void)
{
    struct sched_mix *m = AT_NEW(struct sched_mix);
    m->models = at_map_new();
    return m;
}

void sched_mix_free(struct sched_mix *m)
{
    if (m->ready) {
        pack_mix_done(&m->mix);
    }
    at_map_free(m->models);
    pack_learning_free(m->learning);
    at_free(m->shares);
    at_free(m->known);
    at_free(m);
}

/* Models beyond the engine's number share the last one. */
static uint8_t model_of(struct sched_mix *m, const char *name)
{
    uintptr_t id = (uintptr_t)at_map_get(m->models, name != NULL ? name : "");
    if (id == 0) {
        id = at_map_count(m->models) + 1;
        id = id < AT_PACK_MODELS_MAX ? id : AT_PACK_MODELS_MAX;
        (void)at_map_put(m->models, name != NULL ? name : "", (void *)id);
    }
    return (uint8_t)(id - 1);
}

void sched_mix_request(struct sched *s, struct sched_request *r)
{
    const struct sched_demand *d = &r->demand;
    r->pack = (struct at_pack_request){0};
    if (d->gpu_count == 0 || d->gpu_count > AT_PACK_GPUS_MAX) {
        return;
    }
    r->pack.cpu_milli = d->cpu_milli < AT_PACK_AMOUNT_MAX ? d->cpu_milli : AT_PACK_AMOUNT_MAX;
    r->pack.gpus = (uint32_t)d->gpu_count;
    r->pack.gpu_milli = (uint32_t)d->gpu_milli;
    for (size_t i = 0; d->gpu_models != NULL && i < d->gpu_models->n; i++) {
        r->pack.models |= UINT64_C(1) << model_of(s->mix, d->gpu_models->items[i]);
    }
}

void sched_mix_changed(struct sched *s, const struct sched_request *r)
{
    s->mix->changes += r->pack.gpus > 0;
}

void sched_mix_node(const struct sched *s, struct sched_node *n)
{
    n->packs = n->n_gpus > 0 && n->n_gpus <= AT_PACK_GPUS_MAX && !n->gpus_unknown;
    for (size_t g = 1; g < n->n_gpus && n->packs; g++) {
        n->packs =
            n->gpus[g].part == n->gpus[0].part &&
            (n->gpus[g].model == n->gpus[0].model || at_streq(n->gpus[g].model, n->gpus[0].model));
    }
    int64_t gpu_free = sched_gpu_free(n); /* what was recorded by hand may be absurd */
    n->gpu_free_milli = (int32_t)(gpu_free > INT32_MIN ? gpu_free : INT32_MIN);
    n->plain = n->packs;
    if (!n->packs) {
        return;
    }
    struct pack_left *left = &n->left;
    *left = (struct pack_left){.n_gpus = (uint8_t)n->n_gpus};
    left->cpu_milli = n->cpu_milli > 0 ? n->cpu_milli : 0;
    n->most_milli = 0;
    for (size_t g = 0; g < n->n_gpus; g++) {
        int64_t milli = n->gpus[g].free_milli;
        left->gpu[g] = (uint16_t)(milli < 0 ? 0 : milli);
        left->free_gpus += milli == AT_SCHED_GPU_MILLI;
        n->plain = n->plain && milli >= 0 && n->gpus[g].free_memory_bytes >= 0;
        left->idle_milli += left->gpu[g];
        n->most_milli = left->gpu[g] > n->most_milli ? left->gpu[g] : n->most_milli;
    }
    n->model = model_of(s->mix, n->gpus[0].model);
    if (s->mix->ready) {
        n->own = pack_sums_of(&s->mix->mix, n->model, left);
    }
}

/* --- what is asked for --- */

static int by_shape(const void *a, const void *b)
{
    const struct at_pack_request *x = &((const struct at_pack_share *)a)->request;
    const struct at_pack_request *y = &((const struct at_pack_share *)b)->request;
    const int64_t left[] = {x->gpus, x->gpu_milli, x->cpu_milli};
    const int64_t right[] = {y->gpus, y->gpu_milli, y->cpu_milli};
    for (int i = 0; i < 3; i++) {
        if (left[i] != right[i]) {
            return left[i] > right[i] ? -1 : 1;
        }
    }
    return x->models != y->models ? (x->models > y->models ? -1 : 1) : 0;
}

static int by_count(const void *a, const void *b)
{
    const struct at_pack_share *x = a, *y = b;
    return x->count != y->count ? (x->count > y->count ? -1 : 1) : by_shape(a, b);
}

/* The shapes of all requests, the most frequent first. own: caller frees. */
static struct at_pack_share *shares_of(const struct sched *s, size_t *ret_n, uint64_t *ret_total)
{
    size_t n = 0, kept = 0;
    struct at_pack_share *shares = at_alloc(sizeof(*shares) * (s->n_requests + 1));
    *ret_total = 0;
    for (size_t i = 0; i < s->n_request_slots; i++) {
        for (const struct sched_request *r = s->requests[i]; r != NULL; r = r->next) {
            if (r->pack.gpus > 0 && r->live > 0) {
                uint32_t count = r->live < MIX_COUNT_MAX ? (uint32_t)r->live : MIX_COUNT_MAX;
                shares[n++] = (struct at_pack_share){r->pack, count};
                *ret_total += r->live;
            }
        }
    }
    if (n > 0) {
        qsort(shares, n, sizeof(*shares), by_shape);
    }
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && by_shape(&shares[kept - 1], &shares[i]) == 0) {
            shares[kept - 1].count += shares[i].count;
        } else {
            shares[kept++] = shares[i];
        }
    }
    *ret_n = kept;
    return shares;
}

/* Shares that differ from those learned from, in parts of 1000 of all requests; each list by shape.
 */
static uint64_t drift(const struct sched_mix *m, const struct at_pack_share *now, size_t n,
                      uint64_t total)
{
    uint64_t sum = 0;
    for (size_t i = 0, k = 0; i < n || k < m->n_known;) {
        int c = i == n ? 1 : k == m->n_known ? -1 : by_shape(&now[i], &m->known[k]);
        uint64_t a = c <= 0 ? (uint64_t)now[i].count * 1000 / total : 0;
        uint64_t b = c >= 0 ? (uint64_t)m->known[k].count * 1000 / m->known_total : 0;
        sum += a > b ? a - b : b - a;
        i += c <= 0;
        k += c >= 0;
    }
    return sum;
}

static void learn_scarce(struct sched *s, const struct at_pack_share *shares, size_t n)
{
    struct at_pack_node *nodes = at_alloc(sizeof(*nodes) * (s->n_nodes + 1));
    for (size_t i = 0; i < s->n_nodes; i++) {
        const struct sched_node *node = s->nodes[i];
        nodes[i].gpus = node->packs ? (uint32_t)node->n_gpus : 0;
        nodes[i].model = node->model;
    }
    pack_scarce(shares, n, nodes, s->n_nodes, s->mix->scarce);
    at_free(nodes);
}

/* From now on the shares found last are what is asked for. */
static void put_in_force(struct sched *s, const int64_t *loss)
{
    struct sched_mix *m = s->mix;
    if (m->ready) {
        pack_mix_done(&m->mix);
    }
    m->ready = m->n_shares > 0;
    m->learned = loss != NULL;
    memset(m->scarce, 0, sizeof(m->scarce));
    if (m->learned) {
        learn_scarce(s, m->shares, m->n_shares);
    }
    if (m->ready) {
        pack_mix_init(&m->mix, m->shares, m->n_shares, 100, loss);
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        sched_mix_node(s, s->nodes[i]);
    }
}

/* Learning takes 10 ms and more, so it goes on over several updates while what was learned before
 * stays in force. The first time of all, and when forced, it is done at once. */
static bool learn_on(struct sched *s, bool at_once)
{
    int64_t loss[AT_PACK_GPU_MILLI + 1];
    struct sched_mix *m = s->mix;
    if (!pack_learning_step(m->learning, at_once ? INT64_MAX : LEARN_WORK, loss)) {
        return false;
    }
    pack_learning_free(m->learning);
    m->learning = NULL;
    put_in_force(s, loss);
    return true;
}

/* Take the shares for those to learn from: n of them, by shape. */
static void remember(struct sched_mix *m, struct at_pack_share *shares, size_t n)
{
    at_free(m->known);
    m->known = at_alloc(sizeof(*shares) * (n + 1));
    memcpy(m->known, shares, sizeof(*shares) * n);
    m->n_known = n;
    m->known_total = m->total;
    if (n > 0) {
        qsort(shares, n, sizeof(*shares), by_count);
    }
    at_free(m->shares);
    m->shares = shares;
    m->n_shares = n < AT_PACK_SHAPES_MAX ? n : AT_PACK_SHAPES_MAX;
}

bool sched_mix_update(struct sched *s, bool force)
{
    struct sched_mix *m = s->mix;
    if (m->learning != NULL && !force) {
        return learn_on(s, false);
    }
    if (m->changes == 0 || (!force && m->changes * DRIFT < m->total)) {
        return m->learning != NULL && learn_on(s, true);
    }
    size_t n = 0;
    struct at_pack_share *shares = shares_of(s, &n, &m->total);
    m->changes = 0;
    if (!force && n > 0 && m->learned && m->known_total > 0 &&
        drift(m, shares, n, m->total) < DRIFT_MILLI) {
        at_free(shares);
        return false; /* others have come, of the same kinds */
    }
    bool first = !m->ready;
    remember(m, shares, n);
    pack_learning_free(m->learning);
    m->learning = NULL;
    if (m->total < LEARN_FROM) {
        put_in_force(s, NULL);
        return true;
    }
    m->learning = pack_learning_new(m->shares, m->n_shares);
    return learn_on(s, first || force);
}

/* --- the objective --- */

static uint32_t allowed_gpus(const struct sched_node *n, const struct sched_demand *d)
{
    uint32_t set = 0;
    int64_t fitting = 0;
    for (size_t g = 0; g < n->n_gpus; g++) {
        bool fits = sched_gpu_fits(&n->gpus[g], d);
        set |= (uint32_t)fits << g;
        fitting += fits;
    }
    assert(fitting >= d->gpu_count);
    return set;
}

/* The mix knows nothing of room that is held and yet to be had. */
static bool takes_parked_room(const struct sched_node *n, const struct sched_demand *d)
{
    for (size_t g = 0; d->parks && g < n->n_gpus; g++) {
        if (n->gpus[g].parked_milli > 0) {
            return true;
        }
    }
    return false;
}

/* The node has room for the request. */
static bool is_measured(const struct sched *s, const struct sched_node *n,
                        const struct sched_request *r)
{
    return n->packs && s->mix->ready && r->pack.gpus > 0 &&
           n->left.cpu_milli >= r->pack.cpu_milli && !takes_parked_room(n, &r->demand);
}

static int64_t gain_of(const struct sched *s, const struct sched_node *n,
                       const struct sched_request *r, uint32_t *ret_gpus)
{
    struct pack_own own = {&s->mix->mix, s->mix->scarce};
    uint32_t allowed = UINT32_MAX; /* the engine itself looks at what is free */
    if (!n->plain || r->demand.gpu_memory_bytes > 0) {
        allowed = allowed_gpus(n, &r->demand);
    }
    return pack_own_gain(&own, &r->pack, n->model, &n->left, &n->own, allowed, ret_gpus);
}

int64_t sched_score_fragmentation(const struct sched *s, const struct sched_node *n,
                                  const struct sched_request *r)
{
    if (!is_measured(s, n, r)) {
        return LEVEL;
    }
    uint32_t gpus = 0;
    int64_t score = LEVEL + gain_of(s, n, r, &gpus) / 2;
    return score < 0 ? 0 : score > SCORE_MAX ? SCORE_MAX : score;
}

void sched_gpus_pick(const struct sched *s, const struct sched_node *n,
                     const struct sched_request *r, struct at_sched_gpu *ret_gpus)
{
    const struct sched_demand *d = &r->demand;
    uint32_t index[AT_SCHED_GPUS_PER_NODE];
    uint32_t set = 0;
    size_t count = 0;
    if (d->gpu_count == 0) {
        return;
    }
    if (d->topology == SCHED_TOPOLOGY_ANY && is_measured(s, n, r)) {
        (void)gain_of(s, n, r, &set);
        for (uint32_t g = 0; g < n->n_gpus; g++) {
            if ((set >> g & 1) != 0) {
                index[count++] = g;
            }
        }
    } else {
        count = sched_gpus_near(n, d, index);
    }
    assert(count == (size_t)d->gpu_count);
    for (size_t k = 0; k < count; k++) {
        ret_gpus[k] = (struct at_sched_gpu){
            .index = index[k], .milli = d->gpu_milli, .memory_bytes = d->gpu_memory_bytes};
    }
}

uint32_t sched_slack(const struct sched *s, const struct sched_request *r)
{
    if (!s->mix->learned || r->pack.gpus == 0) {
        return 0;
    }
    int64_t milli = r->pack.gpu_milli == AT_PACK_GPU_MILLI ? SLACK_WHOLE_MILLI : SLACK_MILLI;
    return (uint32_t)(r->weights[AT_SCHED_OBJ_FRAGMENTATION] * milli / 2);
}
