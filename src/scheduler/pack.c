/* The state of the packed cluster, kept scores, and the decision. */
#include "scheduler/pack_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

#define TYPICAL_PERCENT 95 /* FGD, as published */
#define WINDOW_CHANGES 512
#define CHURN_PUTS_PER_RELEASE 8 /* fewer are churn */

static const char *const POLICY_NAMES[AT_PACK_POLICY_COUNT] = {
    [AT_PACK_FGD] = "fgd",
    [AT_PACK_BESTFIT] = "bestfit",
    [AT_PACK_DOTPROD] = "dotprod",
    [AT_PACK_PACKING] = "packing",
    [AT_PACK_CLUSTERING] = "clustering",
    [AT_PACK_ATOLL] = "atoll",
};

const char *at_pack_policy_name(enum at_pack_policy policy)
{
    assert(policy < AT_PACK_POLICY_COUNT);
    return POLICY_NAMES[policy];
}

enum at_rc at_pack_policy_find(const char *name, enum at_pack_policy *ret)
{
    for (int i = 0; i < AT_PACK_POLICY_COUNT; i++) {
        if (at_streq(name, POLICY_NAMES[i])) {
            *ret = (enum at_pack_policy)i;
            return AT_OK;
        }
    }
    return AT_NOT_FOUND;
}

static bool amount_ok(int64_t v)
{
    return v >= 0 && v <= AT_PACK_AMOUNT_MAX;
}

static bool node_ok(const struct at_pack_node *n)
{
    return amount_ok(n->cpu_milli) && amount_ok(n->memory_mib) && n->gpus <= AT_PACK_GPUS_MAX &&
           n->model < AT_PACK_MODELS_MAX;
}

static bool request_ok(const struct at_pack_request *r)
{
    bool gpu_ok =
        r->gpus == 0 ? r->gpu_milli == 0 : r->gpu_milli > 0 && r->gpu_milli <= AT_PACK_GPU_MILLI;
    return gpu_ok && amount_ok(r->cpu_milli) && amount_ok(r->memory_mib);
}

static enum at_rc check_input(const struct at_pack_node *nodes, size_t n_nodes,
                              const struct at_pack_mix *mix, struct at_err *err)
{
    if (n_nodes == 0 || n_nodes > AT_PACK_NODES_MAX) {
        return at_err_set(err, AT_INVALID, "1 to %d nodes can be packed, not %zu",
                          AT_PACK_NODES_MAX, n_nodes);
    }
    for (size_t i = 0; i < n_nodes; i++) {
        if (!node_ok(&nodes[i])) {
            return at_err_set(err, AT_INVALID, "node %zu: an amount is out of range", i);
        }
    }
    int64_t seen = 0, typical = 0;
    size_t n_typical = 0;
    for (size_t i = 0; i < mix->n; i++) {
        seen += mix->shares[i].count;
        if (!request_ok(&mix->shares[i].request) || seen > AT_PACK_SEEN_MAX) {
            return at_err_set(err, AT_INVALID, "mix, request %zu: an amount is out of range", i);
        }
    }
    while (100 * typical < TYPICAL_PERCENT * seen) {
        typical += mix->shares[n_typical++].count;
    }
    if (n_typical > AT_PACK_SHAPES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "%zu different requests are typical; %d at most",
                          n_typical, AT_PACK_SHAPES_MAX);
    }
    return AT_OK;
}

/* The node changed: its fragmentation is measured again, its scores are old. */
static void node_changed(struct at_pack *p, uint32_t id)
{
    struct pack_node *n = &p->nodes[id];
    int64_t frag = pack_frag_of(&p->published, n->model, &n->left);
    p->frag += frag - n->frag;
    n->frag = frag;
    if (p->own != NULL) {
        n->own = pack_sums_of(p->own, n->model, &n->left);
    }
    n->changed = p->log_end;
    p->log[p->log_end++ & p->log_mask] = id;
}

static void nodes_init(struct at_pack *p, const struct at_pack_node *nodes, size_t n)
{
    p->nodes = at_alloc(n * sizeof *p->nodes);
    p->sizes = at_alloc(n * sizeof *p->sizes);
    memcpy(p->sizes, nodes, n * sizeof *nodes);
    for (size_t i = 0; i < n; i++) {
        struct pack_left *left = &p->nodes[i].left;
        p->nodes[i].model = (uint8_t)nodes[i].model;
        p->nodes[i].memory_mib = nodes[i].memory_mib;
        left->cpu_milli = nodes[i].cpu_milli;
        left->n_gpus = left->free_gpus = (uint8_t)nodes[i].gpus;
        left->idle_milli = nodes[i].gpus * AT_PACK_GPU_MILLI;
        for (uint32_t g = 0; g < nodes[i].gpus; g++) {
            left->gpu[g] = AT_PACK_GPU_MILLI;
        }
        p->capacity_milli += left->idle_milli;
        node_changed(p, (uint32_t)i);
    }
    p->idle_milli = p->capacity_milli;
}

/* Ours looks at all requests for GPUs, and learns what is lost of a GPU by what it has left. */
static void mixes_init(struct at_pack *p, const struct at_pack_node *nodes,
                       const struct at_pack_mix *mix)
{
    pack_mix_init(&p->published, mix->shares, mix->n, TYPICAL_PERCENT, NULL);
    if (p->policy != AT_PACK_ATOLL) {
        return;
    }
    AT_CLEANUP(at_cleanup_free)
    struct at_pack_share *gpu = at_alloc((mix->n + 1) * sizeof *gpu);
    int64_t loss[AT_PACK_GPU_MILLI + 1];
    size_t n = 0;
    for (size_t i = 0; i < mix->n && n < AT_PACK_SHAPES_MAX; i++) {
        gpu[n] = mix->shares[i];
        n += gpu[n].request.gpus > 0;
    }
    pack_learn(gpu, n, loss);
    pack_scarce(gpu, n, nodes, p->n_nodes, p->scarce);
    pack_mix_init(&p->filling, gpu, n, 100, loss);
    pack_mix_init(&p->churning, gpu, n, 100, NULL);
    p->own = &p->filling;
}

enum at_rc at_pack_new(enum at_pack_policy policy, const struct at_pack_node *nodes, size_t n_nodes,
                       const struct at_pack_mix *mix, struct at_pack **ret_pack, struct at_err *err)
{
    assert(policy < AT_PACK_POLICY_COUNT);
    enum at_rc rc = check_input(nodes, n_nodes, mix, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_pack *p = AT_NEW(struct at_pack);
    p->policy = policy;
    p->n_nodes = n_nodes;
    p->n_blocks = (n_nodes + PACK_BLOCK - 1) / PACK_BLOCK;
    uint64_t ring = 64;
    while (ring < n_nodes) {
        ring *= 2;
    }
    p->log = at_alloc(ring * sizeof *p->log);
    p->log_mask = ring - 1;
    mixes_init(p, nodes, mix);
    pack_steps_init(p);
    nodes_init(p, nodes, n_nodes);
    *ret_pack = p;
    return AT_OK;
}

void at_pack_free(struct at_pack *p)
{
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->n_classes; i++) {
        at_free(p->classes[i].scores);
        at_free(p->classes[i].block_best);
    }
    pack_mix_done(&p->published);
    pack_mix_done(&p->filling);
    pack_mix_done(&p->churning);
    at_free(p->classes);
    at_free(p->class_slots);
    at_free(p->nodes);
    at_free(p->sizes);
    at_free(p->log);
    at_free(p);
}

static bool request_eq(const struct at_pack_request *a, const struct at_pack_request *b)
{
    return a->cpu_milli == b->cpu_milli && a->memory_mib == b->memory_mib && a->gpus == b->gpus &&
           a->gpu_milli == b->gpu_milli && a->models == b->models;
}

static size_t request_slot(const struct at_pack *p, const struct at_pack_request *r)
{
    uint64_t h = (uint64_t)r->cpu_milli * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29 ^ (uint64_t)r->memory_mib) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 32 ^ r->gpus ^ (uint64_t)r->gpu_milli << 8) * 0x94d049bb133111ebu;
    h = (h ^ h >> 31 ^ r->models) * 0x9e3779b97f4a7c15u;
    size_t at = (h ^ h >> 32) & (p->n_slots - 1);
    while (p->class_slots[at] != 0 && !request_eq(&p->classes[p->class_slots[at] - 1].request, r)) {
        at = (at + 1) & (p->n_slots - 1);
    }
    return at;
}

static void slots_grow(struct at_pack *p)
{
    p->n_slots = p->n_slots == 0 ? 256 : p->n_slots * 2;
    at_free(p->class_slots);
    p->class_slots = at_alloc(p->n_slots * sizeof *p->class_slots);
    for (size_t i = 0; i < p->n_classes; i++) {
        p->class_slots[request_slot(p, &p->classes[i].request)] = (uint32_t)i + 1;
    }
}

enum at_rc at_pack_class(struct at_pack *p, const struct at_pack_request *request,
                         uint32_t *ret_class, struct at_err *err)
{
    if (!request_ok(request)) {
        return at_err_set(err, AT_INVALID, "an amount of the request is out of range");
    }
    struct at_pack_request r = *request;
    r.models = r.gpus == 0 ? 0 : r.models;
    if (p->n_slots < 2 * (p->n_classes + 1)) {
        slots_grow(p);
    }
    size_t slot = request_slot(p, &r);
    if (p->class_slots[slot] != 0) {
        *ret_class = p->class_slots[slot] - 1;
        return AT_OK;
    }
    if (p->n_classes == AT_PACK_CLASSES_MAX ||
        (int64_t)((p->n_classes + 1) * p->n_nodes) > AT_PACK_SCORES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d different requests",
                          AT_PACK_CLASSES_MAX);
    }
    if (p->n_classes == p->classes_cap) {
        p->classes_cap = p->classes_cap == 0 ? 64 : p->classes_cap * 2;
        p->classes = at_realloc(p->classes, p->classes_cap * sizeof *p->classes);
    }
    p->classes[p->n_classes] = (struct pack_class){.request = r};
    *ret_class = (uint32_t)p->n_classes++;
    p->class_slots[slot] = *ret_class + 1;
    return AT_OK;
}

static uint16_t best_of(const uint16_t *scores, size_t n)
{
    uint16_t best = 0;
    for (size_t i = 0; i < n; i++) {
        best = scores[i] > best ? scores[i] : best;
    }
    return best;
}

static size_t block_nodes(const struct at_pack *p, size_t block)
{
    size_t left = p->n_nodes - block * PACK_BLOCK;
    return left < PACK_BLOCK ? left : PACK_BLOCK;
}

static void class_score_all(const struct at_pack *p, struct pack_class *c)
{
    uint32_t gpus;
    if (c->scores == NULL) {
        c->scores = at_alloc(p->n_nodes * sizeof *c->scores);
        c->block_best = at_alloc(p->n_blocks * sizeof *c->block_best);
    }
    for (size_t i = 0; i < p->n_nodes; i++) {
        if (!c->scored || p->nodes[i].changed >= c->seen) {
            c->scores[i] = pack_score(p, c, &p->nodes[i], &gpus);
        }
    }
    for (size_t b = 0; b < p->n_blocks; b++) {
        c->block_best[b] = best_of(&c->scores[b * PACK_BLOCK], block_nodes(p, b));
    }
    c->scored = true;
    c->seen = p->log_end;
}

/* Bring the class's scores up to date: the nodes changed since then, each once. */
static void class_refresh(const struct at_pack *p, struct pack_class *c)
{
    if (!c->scored || p->log_end - c->seen > p->log_mask) {
        class_score_all(p, c);
        return;
    }
    for (uint64_t at = c->seen; at < p->log_end; at++) {
        uint32_t id = p->log[at & p->log_mask];
        if (p->nodes[id].changed != at) {
            continue; /* it comes again later in the log */
        }
        uint32_t gpus;
        uint16_t old = c->scores[id], now = pack_score(p, c, &p->nodes[id], &gpus);
        uint16_t *best = &c->block_best[id / PACK_BLOCK];
        c->scores[id] = now;
        if (now >= *best) {
            *best = now;
        } else if (old == *best) {
            size_t b = id / PACK_BLOCK;
            *best = best_of(&c->scores[b * PACK_BLOCK], block_nodes(p, b));
        }
    }
    c->seen = p->log_end;
}

static bool class_best(const struct at_pack *p, const struct pack_class *c, uint32_t *ret_node)
{
    uint16_t best = best_of(c->block_best, p->n_blocks), slack = pack_slack(p, &c->request);
    if (best == PACK_NO_FIT) {
        return false;
    }
    uint16_t enough = best > slack ? best - slack : 1;
    size_t block = 0;
    while (c->block_best[block] < enough) {
        block++;
    }
    size_t id = block * PACK_BLOCK;
    while (c->scores[id] < enough) {
        id++;
    }
    *ret_node = (uint32_t)id;
    return true;
}

/* sign -1 takes, +1 gives back. */
static void node_move(struct at_pack *p, const struct at_pack_request *r,
                      const struct at_pack_place *place, int sign)
{
    struct pack_node *n = &p->nodes[place->node];
    n->left.cpu_milli += sign * r->cpu_milli;
    n->memory_mib += sign * r->memory_mib;
    for (uint32_t g = 0; g < n->left.n_gpus; g++) {
        if ((place->gpus >> g & 1) == 0) {
            continue;
        }
        int left = n->left.gpu[g] + sign * (int)r->gpu_milli;
        assert(left >= 0);
        assert(left <= AT_PACK_GPU_MILLI);
        n->left.free_gpus -= n->left.gpu[g] == AT_PACK_GPU_MILLI;
        n->left.free_gpus += left == AT_PACK_GPU_MILLI;
        n->left.gpu[g] = (uint16_t)left;
        n->left.idle_milli += (uint32_t)(sign * (int)r->gpu_milli);
        p->idle_milli += sign * (int64_t)r->gpu_milli;
    }
    if (r->gpus > 0) {
        uint32_t kind = r->gpu_milli < AT_PACK_GPU_MILLI ? 0 : r->gpus;
        n->hosts[kind] = (uint16_t)(n->hosts[kind] - sign);
    }
    assert(n->left.cpu_milli >= 0);
    assert(n->memory_mib >= 0);
    node_changed(p, place->node);
}

/* What was learned holds while the cluster fills up. Once much leaves again, what becomes of a
 * leftover is open, and FGD's measure over the whole mix does better. Looked at once a window. */
static void count_change(struct at_pack *p, bool release)
{
    p->window_puts += !release;
    p->window_releases += release;
    if (p->own == NULL || p->window_puts + p->window_releases < WINDOW_CHANGES) {
        return;
    }
    bool churns = p->window_releases * CHURN_PUTS_PER_RELEASE > p->window_puts;
    const struct pack_mix *own = churns ? &p->churning : &p->filling;
    p->window_puts = p->window_releases = 0;
    if (own == p->own) {
        return;
    }
    p->own = own;
    for (size_t i = 0; i < p->n_nodes; i++) {
        p->nodes[i].own = pack_sums_of(own, p->nodes[i].model, &p->nodes[i].left);
    }
    for (size_t i = 0; i < p->n_classes; i++) {
        p->classes[i].scored = false;
    }
}

bool at_pack_put(struct at_pack *p, uint32_t class_id, struct at_pack_place *ret_place)
{
    assert(class_id < p->n_classes);
    struct pack_class *c = &p->classes[class_id];
    class_refresh(p, c);
    struct at_pack_place place = {0};
    if (!class_best(p, c, &place.node)) {
        return false;
    }
    uint16_t score = pack_score(p, c, &p->nodes[place.node], &place.gpus);
    assert(score != PACK_NO_FIT);
    node_move(p, &c->request, &place, -1);
    count_change(p, false);
    *ret_place = place;
    return true;
}

enum at_rc at_pack_put_at(struct at_pack *p, uint32_t class_id, const struct at_pack_place *place)
{
    assert(class_id < p->n_classes);
    const struct at_pack_request *r = &p->classes[class_id].request;
    if (place->node >= p->n_nodes) {
        return AT_CONFLICT;
    }
    const struct pack_node *n = &p->nodes[place->node];
    if (!pack_fits(r, n) || place->gpus >> n->left.n_gpus != 0 ||
        (uint32_t)__builtin_popcount(place->gpus) != r->gpus) {
        return AT_CONFLICT;
    }
    for (uint32_t g = 0; g < n->left.n_gpus; g++) {
        if ((place->gpus >> g & 1) != 0 && n->left.gpu[g] < r->gpu_milli) {
            return AT_CONFLICT;
        }
    }
    node_move(p, r, place, -1);
    count_change(p, false);
    return AT_OK;
}

void at_pack_release(struct at_pack *p, uint32_t class_id, const struct at_pack_place *place)
{
    assert(class_id < p->n_classes);
    assert(place->node < p->n_nodes);
    node_move(p, &p->classes[class_id].request, place, 1);
    count_change(p, true);
    assert(p->nodes[place->node].left.cpu_milli <= p->sizes[place->node].cpu_milli);
    assert(p->nodes[place->node].memory_mib <= p->sizes[place->node].memory_mib);
}

int64_t at_pack_capacity_gpu_milli(const struct at_pack *p)
{
    return p->capacity_milli;
}

int64_t at_pack_used_gpu_milli(const struct at_pack *p)
{
    return p->capacity_milli - p->idle_milli;
}

double at_pack_fragmented_gpu_milli(const struct at_pack *p)
{
    return p->published.weight == 0 ? 0 : (double)p->frag / (double)p->published.weight;
}

struct at_pack_node at_pack_node_left(const struct at_pack *p, uint32_t node,
                                      uint16_t left_gpu_milli[AT_PACK_GPUS_MAX])
{
    assert(node < p->n_nodes);
    const struct pack_node *n = &p->nodes[node];
    if (left_gpu_milli != NULL) {
        memcpy(left_gpu_milli, n->left.gpu, sizeof n->left.gpu);
    }
    return (struct at_pack_node){n->left.cpu_milli, n->memory_mib, n->left.n_gpus, n->model};
}
