/* Requests: what was found out about each (request, node) is kept until the node changes. And
 * groups: where the copies of one owner and template are. */
#include "scheduler/engine.h"
#include "scheduler/room.h"

#include <assert.h>
#include <string.h>

#define AHEAD 12 /* places in the log */

/* Rules and objectives may look at these only. */
static const char *const MEMBERS[] = {"driver",     "image",     "model",     "data", "resources",
                                      "gpuSharing", "placement", "dataClass", NULL};

/* --- requests --- */

void sched_requests_init(struct sched *s)
{
    at_model_members_init(&s->members, &AT_KIND_INSTANCE, "spec", MEMBERS);
}

bool sched_request_is(const struct sched *s, const struct sched_request *r,
                      const struct at_instance *i)
{
    return at_model_members_equal(&s->members, r->copy, i);
}

static void request_free(struct sched_request *r)
{
    at_free(r->scores);
    at_free(r->best);
    at_free(r->loose);
    at_free(r->copy);
    at_free(r->sites);
    at_free(r->places);
    at_arena_free(r->arena);
    at_free(r);
}

/* Those that nobody asks for any more go when there are too many. */
static void sweep(struct sched *s)
{
    for (size_t i = 0; i < s->n_request_slots; i++) {
        for (struct sched_request **at = &s->requests[i]; *at != NULL;) {
            struct sched_request *r = *at;
            if (r->refs == 0) {
                *at = r->next;
                request_free(r);
                s->n_requests--;
                s->n_unused--;
            } else {
                at = &r->next;
            }
        }
    }
}

static void slots_grow(struct sched *s)
{
    size_t n = s->n_request_slots == 0 ? 256 : 2 * s->n_request_slots;
    struct sched_request **slots = at_alloc(sizeof(*slots) * n);
    for (size_t i = 0; i < s->n_request_slots; i++) {
        for (struct sched_request *r = s->requests[i]; r != NULL;) {
            struct sched_request *next = r->next;
            r->next = slots[r->hash & (n - 1)];
            slots[r->hash & (n - 1)] = r;
            r = next;
        }
    }
    at_free(s->requests);
    s->requests = slots;
    s->n_request_slots = n;
}

static struct sched_request *request_new(struct sched *s, const struct at_instance *i,
                                         uint64_t hash)
{
    struct sched_request *r = AT_NEW(struct sched_request);
    r->arena = at_arena_new_sized(0, 1024);
    r->copy = at_alloc(sizeof(*r->copy));
    enum at_rc rc = at_model_spec_copy(&AT_KIND_INSTANCE, i, MEMBERS, r->arena, r->copy);
    assert(rc == AT_OK); /* an object is far smaller than an arena may be */
    (void)rc;
    r->spec = &r->copy->spec;
    r->hash = hash;
    r->demand = sched_demand_of(r->spec);
    sched_weights(s, r->spec, &r->demand, r->weights);
    sched_mix_request(s, r);
    return r;
}

struct sched_request *sched_request_ref(struct sched *s, const struct at_instance *i)
{
    uint64_t hash = at_model_members_hash(&s->members, i);
    if (s->n_request_slots < s->n_requests + 1) {
        slots_grow(s);
    }
    struct sched_request **slot = &s->requests[hash & (s->n_request_slots - 1)];
    struct sched_request *r = *slot;
    while (r != NULL && (r->hash != hash || !sched_request_is(s, r, i))) {
        r = r->next;
    }
    if (r == NULL) {
        if (s->n_unused > AT_SCHED_REQUESTS_MAX) {
            sweep(s);
        }
        r = request_new(s, i, hash);
        r->next = *slot;
        *slot = r;
        s->n_requests++;
        s->n_unused++;
    }
    s->n_unused -= r->refs == 0;
    r->refs++;
    return r;
}

void sched_request_unref(struct sched *s, struct sched_request *r)
{
    assert(r->refs > 0);
    r->refs--;
    s->n_unused += r->refs == 0;
}

void sched_requests_free(struct sched *s)
{
    sweep(s);
    assert(s->n_requests == 0);
    at_free(s->requests);
}

void sched_requests_weigh(struct sched *s)
{
    for (size_t i = 0; i < s->n_request_slots; i++) {
        for (struct sched_request *r = s->requests[i]; r != NULL; r = r->next) {
            sched_weights(s, r->spec, &r->demand, r->weights);
        }
    }
}

/* --- what is kept --- */

static uint32_t rule_of(uint32_t score)
{
    return score < SCHED_FITS ? score : AT_SCHED_RULE_COUNT;
}

static uint32_t score_fitting(const struct sched *s, const struct sched_request *r,
                              const struct sched_node *n)
{
    int64_t parts[AT_SCHED_OBJ_COUNT] = {0};
    int64_t sum = SCHED_FITS;
    sched_score_node(s, r, n, parts);
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        assert((uint64_t)parts[k] <= 1000);
        sum += r->weights[k] * parts[k];
    }
    assert(sum < UINT32_MAX);
    return (uint32_t)sum;
}

static uint32_t score_room(const struct sched *s, const struct sched_request *r,
                           const struct sched_node *n)
{
    enum at_sched_rule rule = sched_refuse_room(r, n);
    return rule != AT_SCHED_RULE_COUNT ? rule : score_fitting(s, r, n);
}

/* The best of a block's nodes that fit; less than SCHED_FITS: none does. */
static uint32_t block_best(const struct sched_request *r, const struct sched_site *site,
                           size_t block)
{
    size_t from = site->first + block * SCHED_BLOCK;
    size_t to = site->first + site->n_nodes;
    to = to < from + SCHED_BLOCK ? to : from + SCHED_BLOCK;
    uint32_t best[4] = {0}; /* side by side */
    size_t i = from;
    for (; i + 4 <= to; i += 4) {
        for (size_t k = 0; k < 4; k++) {
            best[k] = r->scores[i + k] > best[k] ? r->scores[i + k] : best[k];
        }
    }
    for (; i < to; i++) {
        best[0] = r->scores[i] > best[0] ? r->scores[i] : best[0];
    }
    best[0] = best[0] > best[1] ? best[0] : best[1];
    best[2] = best[2] > best[3] ? best[2] : best[3];
    best[0] = best[0] > best[2] ? best[0] : best[2];
    return best[0] >= SCHED_FITS ? best[0] : 0;
}

static bool is_loose(const struct sched_request *r, size_t block)
{
    return (r->loose[block / 8] >> block % 8 & 1) != 0;
}

uint32_t sched_block_best(struct sched_request *r, const struct sched_site *site, size_t block)
{
    size_t at = site->first_block + block;
    if (is_loose(r, at)) {
        r->best[at] = block_best(r, site, block);
        r->loose[at / 8] &= (uint8_t) ~(1u << at % 8);
    }
    return r->best[at];
}

static void set_score(struct sched_request *r, const struct sched_node *n, uint32_t now,
                      bool was_eligible, bool is_eligible)
{
    struct sched_request_site *site = &r->sites[n->site_index];
    uint32_t before = r->scores[n->pos];
    uint32_t old_rule = rule_of(before), new_rule = rule_of(now);
    if (old_rule != new_rule || was_eligible != is_eligible) {
        site->fits -= old_rule == AT_SCHED_RULE_COUNT;
        site->fits += new_rule == AT_SCHED_RULE_COUNT;
        site->eligible += is_eligible;
        site->eligible -= was_eligible;
        if (old_rule != AT_SCHED_RULE_COUNT) {
            r->refused[old_rule]--;
        }
        if (new_rule != AT_SCHED_RULE_COUNT) {
            uint32_t *first = &r->first_refused[new_rule];
            r->refused[new_rule]++;
            *first = n->rank < *first ? n->rank : *first;
        }
        r->version++;
    }
    r->scores[n->pos] = now;
    size_t at = n->block;
    if (now >= SCHED_FITS && now >= r->best[at]) {
        r->best[at] = now;
        r->loose[at / 8] &= (uint8_t) ~(1u << at % 8);
    } else if (before == r->best[at]) { /* found anew when somebody wants to know */
        r->loose[at / 8] |= (uint8_t)(1u << at % 8);
    }
}

/* Its object has changed, and perhaps its room. */
static void score_object(struct sched *s, struct sched_request *r, const struct sched_node *n)
{
    bool was = sched_is_eligible(r, n->pos);
    uint32_t now = sched_refuse_static(s, r, n);
    bool is = now == AT_SCHED_RULE_COUNT;
    set_score(r, n, is ? score_room(s, r, n) : now, was, is);
}

/* Its room has changed. */
static inline void score_node(struct sched *s, struct sched_request *r, const struct sched_node *n)
{
    if (sched_is_eligible(r, n->pos)) {
        uint32_t now = score_room(s, r, n);
        if (now != r->scores[n->pos]) {
            set_score(r, n, now, true, true);
        }
    }
}

/* Everything anew. Whoever waits is tried again when a node is refused otherwise than before; that
 * is not known when nodes have another order. */
static void score_all(struct sched *s, struct sched_request *r)
{
    bool same_nodes = r->scored && r->order == s->order_number;
    bool news = !same_nodes;
    r->scores = at_realloc(r->scores, sizeof(*r->scores) * (s->n_nodes + 1));
    r->best = at_realloc(r->best, sizeof(*r->best) * (s->n_blocks + 1));
    r->loose = at_realloc(r->loose, s->n_blocks / 8 + 1);
    r->sites = at_realloc(r->sites, sizeof(*r->sites) * (s->n_sites + 1));
    r->places = at_realloc(r->places, sizeof(*r->places) * (s->n_sites + 1));
    memset(r->sites, 0, sizeof(*r->sites) * (s->n_sites + 1));
    memset(r->places, 0, sizeof(*r->places) * (s->n_sites + 1));
    memset(r->best, 0, sizeof(*r->best) * (s->n_blocks + 1));
    memset(r->loose, 0, s->n_blocks / 8 + 1);
    memset(r->refused, 0, sizeof(r->refused));
    memset(r->first_refused, 0, sizeof(r->first_refused));
    for (size_t i = 0; i < s->n_sites; i++) {
        sched_score_site(s, r, i, r->places[i].parts);
        r->places[i].price = sched_hourly_price(s->sites[i]->site, &r->demand);
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        const struct sched_node *n = s->nodes[i];
        enum at_sched_rule rule = sched_refuse_static(s, r, n);
        bool eligible = rule == AT_SCHED_RULE_COUNT;
        uint32_t score = eligible ? score_room(s, r, n) : rule;
        news = news || rule_of(r->scores[i]) != rule_of(score);
        struct sched_request_site *site = &r->sites[n->site_index];
        r->scores[i] = score;
        site->eligible += eligible;
        site->fits += score >= SCHED_FITS;
        if (score < SCHED_FITS) {
            r->refused[score]++;
        }
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        for (size_t b = 0; b * SCHED_BLOCK < s->sites[i]->n_nodes; b++) {
            r->best[s->sites[i]->first_block + b] = block_best(r, s->sites[i], b);
        }
    }
    r->version += news;
    r->scored = true;
    r->epoch = s->epoch;
    r->order = s->order_number;
}

/* What came into the log since: changed nodes are all over memory, so they are fetched before they
 * are looked at. */
static void follow_log(struct sched *s, struct sched_request *r, bool objects)
{
    struct sched_node *const *nodes = s->nodes;
    const uint32_t *log = s->log, *scores = r->scores;
    const uint64_t mask = s->log_mask, end = s->log_end;
    for (uint64_t at = r->seen; at < end; at++) {
        uint32_t ahead = log[(at + AHEAD < end ? at + AHEAD : at) & mask];
        __builtin_prefetch(&scores[ahead]);
        __builtin_prefetch(nodes[ahead]);
        __builtin_prefetch(&nodes[ahead]->cpu_milli);
        const struct sched_node *n = nodes[log[at & mask]];
        if (n->changed == at) { /* else it comes again later in the log */
            if (objects && n->changed_static >= r->seen) {
                score_object(s, r, n);
            } else {
                score_node(s, r, n);
            }
        }
    }
}

void sched_request_refresh(struct sched *s, struct sched_request *r)
{
    bool objects = s->changed_static >= r->seen; /* some node's has changed */
    if (!r->scored || r->epoch != s->epoch) {
        score_all(s, r);
    } else if (s->log_end - r->seen > s->log_mask) {
        for (size_t i = 0; i < s->n_nodes; i++) {
            const struct sched_node *n = s->nodes[i];
            if (objects && n->changed_static >= r->seen) {
                score_object(s, r, n);
            } else if (n->changed >= r->seen) {
                score_node(s, r, n);
            }
        }
    } else {
        follow_log(s, r, objects);
    }
    r->seen = s->log_end;
}

/* --- groups --- */

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

/* Copies are even over places per owner and template, so that a rolling update ends even too. */
static size_t group_name(const struct at_instance *i, const struct at_owner_ref *owner, char *out,
                         size_t size)
{
    const char *hash = at_model_map_get(&i->meta.labels, "atoll.dev/template-hash");
    int len = snprintf(out, size, "%s/%s/%s/%s/%s", or_empty(owner->kind), or_empty(i->meta.ns),
                       or_empty(owner->name), or_empty(owner->uid), or_empty(hash));
    assert(len > 0);
    return (size_t)len < size ? (size_t)len : size - 1;
}

struct sched_group *sched_group_ref(struct sched *s, const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    struct sched_group *g = NULL;
    char name[2048]; /* kind, uid and hash are short, the others 253 at most */
    if (owner != NULL) {
        g = at_map_get_n(s->group_by_name, name, group_name(i, owner, name, sizeof(name)));
    }
    if (g == NULL) {
        g = AT_NEW(struct sched_group);
    }
    if (g->refs == 0 && owner != NULL) { /* without an owner it is a group of its own */
        g->name = at_strdup(name);
        (void)at_map_put(s->group_by_name, name, g);
    }
    g->refs++;
    return g;
}

void sched_group_unref(struct sched *s, struct sched_group *g)
{
    if (g == NULL || --g->refs > 0) {
        return;
    }
    if (g->name != NULL) {
        (void)at_map_remove(s->group_by_name, g->name);
    }
    at_free(g->name);
    at_free(g->by_site);
    at_free(g->by_pos);
    at_free(g->nodes);
    at_free(g);
}

/* Where the node is, or would be: by address, for they are many and no order matters. */
static size_t group_at(const struct sched_group *g, const struct sched_node *n)
{
    size_t from = 0, to = g->n_nodes;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if ((uintptr_t)g->nodes[middle].node < (uintptr_t)n) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

const int32_t *sched_group_by_pos(const struct sched *s, struct sched_group *g)
{
    if (g->n_nodes <= s->large_group) {
        return NULL;
    }
    if (g->pos_order != s->order_number) {
        g->by_pos = at_realloc(g->by_pos, sizeof(*g->by_pos) * s->n_nodes);
        memset(g->by_pos, 0, sizeof(*g->by_pos) * s->n_nodes);
        for (size_t i = 0; i < g->n_nodes; i++) {
            g->by_pos[g->nodes[i].node->pos] = g->nodes[i].copies;
        }
        g->pos_order = s->order_number;
    }
    return g->by_pos;
}

void sched_group_count(struct sched *s, struct sched_group *g, struct sched_node *n, int sign)
{
    if (g->pos_order == s->order_number && !s->order_stale) {
        g->by_pos[n->pos] += sign;
    } else {
        g->pos_order = 0; /* counted anew when nodes have their places */
    }
    if (g->name != NULL && g->n_by_site <= n->site_index) {
        size_t old = g->n_by_site;
        g->by_site = at_realloc(g->by_site, sizeof(*g->by_site) * s->n_sites);
        memset(g->by_site + old, 0, sizeof(*g->by_site) * (s->n_sites - old));
        g->n_by_site = s->n_sites;
    }
    if (g->name != NULL) { /* else it is one instance, on one node */
        g->by_site[n->site_index] += sign;
    }
    g->version++;
    size_t at = group_at(g, n);
    if (at == g->n_nodes || g->nodes[at].node != n) {
        if (g->n_nodes == g->cap_nodes) {
            g->cap_nodes = g->cap_nodes != 0 ? 4 * g->cap_nodes : 1; /* many have one copy */
            g->nodes = at_realloc(g->nodes, sizeof(*g->nodes) * g->cap_nodes);
        }
        memmove(&g->nodes[at + 1], &g->nodes[at], sizeof(*g->nodes) * (g->n_nodes++ - at));
        g->nodes[at] = (struct sched_group_node){n, 0};
    }
    g->nodes[at].copies += sign;
    assert(g->nodes[at].copies >= 0);
    if (g->nodes[at].copies == 0) {
        memmove(&g->nodes[at], &g->nodes[at + 1], sizeof(*g->nodes) * (--g->n_nodes - at));
    }
}

int64_t sched_copies_at(const struct sched_group *g, size_t site_index)
{
    if (g->name == NULL) {
        return g->n_nodes > 0 && g->nodes[0].node->site_index == site_index ? g->nodes[0].copies
                                                                            : 0;
    }
    return site_index < g->n_by_site ? g->by_site[site_index] : 0;
}
