/* From a model to a replica: a share by weight, then the nearest site that has room, then the least
 * loaded of two (power of two choices, Mitzenmacher 1996), or the one where the session is. */
#include "gateway/choose.h"

#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>

/* One choice under way. */
struct look {
    struct gw_worker *w;
    struct gw_model *model;
    const struct gw_wish *wish;
    struct gw_replica *const *tried;
    size_t n_tried;
    int64_t now_ns;
    bool filtered;              /* not all replicas may take it */
    struct gw_replica *avoided; /* the best of those that are, with room */
    bool saw_version, saw_place, saw_busy;
    enum gw_why why;
};

static bool has_word(struct at_str list, const char *word)
{
    while (list.len > 0) {
        if (at_str_eq_nocase(at_str_trim(at_str_cut(&list, ',')), word)) {
            return true;
        }
    }
    return false;
}

static bool rule_allows(const struct gw_residency *rule, const char *jurisdiction)
{
    for (size_t i = 0; i < rule->n_jurisdictions; i++) {
        if (strcmp(rule->jurisdictions[i], jurisdiction) == 0) {
            return true;
        }
    }
    return false;
}

/* May data of this request be where the replica is? Hard: nothing outweighs it. */
static bool is_allowed_place(const struct gw_worker *w, const struct gw_wish *wish,
                             const struct gw_replica *r)
{
    if (wish->jurisdictions.len > 0 && !has_word(wish->jurisdictions, r->jurisdiction)) {
        return false;
    }
    for (size_t i = 0; wish->data_class.len > 0 && w->table != NULL && i < w->table->n_rules; i++) {
        const struct gw_residency *rule = &w->table->rules[i];
        if (at_str_eq(wish->data_class, rule->data_class) && !rule_allows(rule, r->jurisdiction)) {
            return false;
        }
    }
    return true;
}

static bool was_tried(struct gw_replica *const *tried, size_t n_tried, const struct gw_replica *r)
{
    for (size_t t = 0; t < n_tried; t++) {
        if (tried[t] == r) {
            return true;
        }
    }
    return false;
}

static bool is_full(const struct gw_replica *r)
{
    return r->gauge != NULL &&
           atomic_load_explicit(&r->gauge->n, memory_order_relaxed) >= r->requests_max;
}

/* May it be taken now? What stands in the way is noted. */
static bool is_open(struct look *l, struct gw_replica *r)
{
    if (l->filtered) {
        if (l->wish->pin != 0 && l->wish->pin != r->version_hash) {
            return false;
        }
        l->saw_version = true;
        if (!is_allowed_place(l->w, l->wish, r)) {
            return false;
        }
        l->saw_place = true;
        if (was_tried(l->tried, l->n_tried, r)) {
            return false;
        }
    }
    if (is_full(r)) {
        l->saw_busy = true;
        return false;
    }
    if (gw_replica_avoided(r, l->now_ns)) {
        if (l->avoided == NULL || r->load_milli < l->avoided->load_milli) {
            l->avoided = r;
        }
        return false;
    }
    return true;
}

static size_t below(struct gw_worker *w, size_t n)
{
    return (size_t)((gw_random(w) >> 32) * n >> 32);
}

/* All of [from, to) are equally far. Few are all looked at, in turns; of many two, by chance. */
static struct gw_replica *least_loaded(struct look *l, size_t from, size_t to)
{
    struct gw_replica **all = l->model->replicas;
    size_t n = to - from;
    if (n > AT_GW_SCAN_MAX) {
        size_t i = below(l->w, n), j = below(l->w, n - 1);
        j += j >= i;
        struct gw_replica *a = all[from + i], *b = all[from + j];
        a = is_open(l, a) ? a : NULL;
        b = is_open(l, b) ? b : NULL;
        if (a != NULL || b != NULL) {
            return a == NULL || (b != NULL && b->load_milli < a->load_milli) ? b : a;
        }
    }
    struct gw_replica *best = NULL;
    size_t at = n > 0 ? l->model->next++ % n : 0;
    for (size_t k = 0; k < n; k++, at++) {
        struct gw_replica *r = all[from + (at < n ? at : at - n)];
        if (is_open(l, r) && (best == NULL || r->load_milli < best->load_milli)) {
            best = r;
        }
    }
    return best;
}

/* Highest random weight (Thaler and Ravishankar 1998) among those that have not much more to do
 * than the others (bounded loads, Mirrokni et al. 2018): whoever comes or goes moves its own
 * sessions only. */
static struct gw_replica *by_session(struct look *l, size_t from, size_t to)
{
    struct gw_replica **all = l->model->replicas;
    int64_t sum = l->wish->cost_milli, n = 0;
    for (size_t i = from; i < to; i++) {
        if (is_open(l, all[i])) {
            sum += all[i]->load_milli;
            n++;
        }
    }
    int64_t most = n > 0 ? sum / n * 5 / 4 + AT_GW_SESSION_SLACK_MILLI : 0;
    struct gw_replica *first = NULL, *best = NULL;
    uint64_t first_score = 0, best_score = 0;
    for (size_t i = from; i < to; i++) {
        if (!is_open(l, all[i])) {
            continue;
        }
        uint64_t score = gw_hash_mix(l->wish->session, all[i]->id_hash);
        if (first == NULL || score > first_score) {
            first = all[i];
            first_score = score;
        }
        if (all[i]->load_milli <= most && (best == NULL || score > best_score)) {
            best = all[i];
            best_score = score;
        }
    }
    l->why = best == first ? GW_WHY_SESSION : GW_WHY_MOVED;
    return best;
}

/* A request under way weighs as much as a millisecond of distance. */
static int64_t cost_milli(const struct gw_replica *r)
{
    return r->load_milli + r->latency_ns / 1000;
}

/* The replicas of a share stand nearest first. */
static struct gw_replica *search(struct look *l, const struct gw_share_view *share)
{
    struct gw_replica *best = NULL;
    size_t next;
    for (size_t from = share->from; from < share->to; from = next) {
        int64_t latency_ns = l->model->replicas[from]->latency_ns;
        next = l->model->replicas[from]->tier_to;
        assert(next > from);
        if (best != NULL && cost_milli(best) <= latency_ns / 1000) {
            break; /* idle ones there are no better */
        }
        if (l->wish->session != 0) {
            best = by_session(l, from, next);
            if (best != NULL) {
                break; /* sessions stay where they are as long as anybody there has room */
            }
            continue;
        }
        struct gw_replica *r = least_loaded(l, from, next);
        if (r != NULL && (best == NULL || cost_milli(r) < cost_milli(best))) {
            l->why = next - from == 1 && l->model->n_replicas == 1 ? GW_WHY_ONLY
                     : from > share->from                          ? GW_WHY_FAR
                                                                   : GW_WHY_LOAD;
            best = r;
        }
    }
    return best;
}

/* Which share the draw falls on: by weight, among those that are not in skip. */
static const struct gw_share_view *draw_share(const struct gw_model *m, uint64_t draw,
                                              uint64_t skip)
{
    uint64_t total = 0;
    for (size_t i = 0; i < m->n_shares; i++) {
        total += (skip >> i & 1) != 0 ? 0 : (uint64_t)m->shares[i].weight;
    }
    uint64_t at = (uint64_t)((unsigned __int128)draw * total >> 64);
    for (size_t i = 0; i < m->n_shares; i++) {
        uint64_t weight = (skip >> i & 1) != 0 ? 0 : (uint64_t)m->shares[i].weight;
        if (at < weight) {
            return &m->shares[i];
        }
        at -= weight;
    }
    return NULL; /* nothing has any weight */
}

static struct gw_replica *search_by_weight(struct look *l)
{
    const struct gw_model *m = l->model;
    uint64_t draw = l->wish->draw, skip = 0;
    static_assert(AT_GW_SHARES_MAX <= 64, "a bit a share");
    for (size_t n = 0; n <= m->n_shares; n++) {
        const struct gw_share_view *share = draw_share(m, draw, skip);
        if (share == NULL) {
            break;
        }
        struct gw_replica *r = search(l, share);
        if (r != NULL) {
            return r;
        }
        skip |= (uint64_t)1 << (share - m->shares);
        draw = gw_hash_mix(draw, n + 1);
    }
    if (m->pool_rest != NULL && (skip >> (m->pool_rest - m->shares) & 1) == 0) {
        return search(l, m->pool_rest); /* better than nobody */
    }
    return NULL;
}

/* Whatever has the version, wherever it stands. */
static struct gw_replica *search_pinned(struct look *l)
{
    struct gw_replica *best = NULL;
    enum gw_why why = GW_WHY_LOAD;
    for (size_t i = 0; i < l->model->n_shares; i++) {
        struct gw_replica *r = search(l, &l->model->shares[i]);
        if (r != NULL && (best == NULL || cost_milli(r) < cost_milli(best))) {
            best = r;
            why = l->why;
        }
    }
    l->why = why;
    return best;
}

/* What a request costs at a replica, less what its cache saves. */
static int64_t cost_with_cache(const struct gw_replica *r, size_t depth)
{
    return cost_milli(r) -
           (int64_t)depth * AT_GW_PREFIX_BLOCK_BYTES * 1000 / AT_GW_PREFIX_WORTH_BYTES;
}

/* Whoever has most of the prompt, if that is worth more than what it has to do beyond best, which
 * is the choice without looking at prompts. */
static struct gw_replica *by_prefix(struct look *l, struct gw_replica *best)
{
    const struct gw_wish *wish = l->wish;
    struct gw_worker *w = l->w;
    struct gw_replica *have[AT_GW_PREFIX_CANDIDATES_MAX];
    size_t n;
    w->n_chain = gw_prefix_chain(wish->prompt, wish->prompt_seed, w->chain);
    size_t depth = gw_prefix_find(l->model->prefix, w->chain, w->n_chain, have,
                                  AT_GW_PREFIX_CANDIDATES_MAX, &n);
    if (depth == 0) {
        return best;
    }
    int64_t best_cost =
        cost_with_cache(best, gw_prefix_depth(l->model->prefix, w->chain, w->n_chain, best));
    for (size_t i = 0; i < n; i++) {
        if (have[i] != best && have[i]->share == best->share && is_open(l, have[i]) &&
            cost_with_cache(have[i], depth) < best_cost) {
            best = have[i];
            best_cost = cost_with_cache(best, depth);
            l->why = GW_WHY_PREFIX;
        }
    }
    if (gw_prefix_depth(l->model->prefix, w->chain, w->n_chain, best) == depth) {
        l->why = GW_WHY_PREFIX;
    }
    return best;
}

static enum gw_choice why_none(const struct look *l)
{
    if (l->saw_busy) {
        return GW_CHOICE_BUSY;
    }
    if (l->wish->pin != 0 && !gw_model_has_version(l->model, l->wish->version)) {
        return GW_CHOICE_VERSION;
    }
    return l->filtered && l->saw_version && !l->saw_place ? GW_CHOICE_PLACE : GW_CHOICE_NONE;
}

bool gw_replica_take_place(struct gw_replica *r)
{
    if (r->gauge == NULL) {
        return true;
    }
    if (atomic_fetch_add_explicit(&r->gauge->n, 1, memory_order_relaxed) < r->requests_max) {
        return true;
    }
    atomic_fetch_sub_explicit(&r->gauge->n, 1, memory_order_relaxed); /* another loop was faster */
    return false;
}

void gw_replica_give_place(struct gw_replica *r)
{
    if (r->gauge != NULL) {
        atomic_fetch_sub_explicit(&r->gauge->n, 1, memory_order_relaxed);
    }
}

enum gw_choice gw_choose(struct gw_worker *worker, struct gw_model *model,
                         const struct gw_wish *wish, struct gw_replica *const *tried,
                         size_t n_tried, int64_t now_ns, struct gw_replica **ret_replica,
                         enum gw_why *ret_why)
{
    struct look l = {.w = worker,
                     .model = model,
                     .wish = wish,
                     .tried = tried,
                     .n_tried = n_tried,
                     .now_ns = now_ns,
                     .filtered = wish->pin != 0 || wish->data_class.len > 0 ||
                                 wish->jurisdictions.len > 0 || n_tried > 0};
    worker->n_chain = 0;
    struct gw_replica *r = wish->pin != 0 ? search_pinned(&l) : search_by_weight(&l);
    if (r != NULL && wish->prompt.len >= AT_GW_PREFIX_BLOCK_BYTES && wish->session == 0 &&
        model->n_all > 1) {
        r = by_prefix(&l, r);
    }
    if (r == NULL && l.avoided != NULL && !l.saw_busy) {
        r = l.avoided; /* a request that fails is worth no less than one that is not tried */
        l.why = GW_WHY_LAST;
    }
    if (r == NULL) {
        return why_none(&l);
    }
    *ret_replica = r;
    *ret_why = l.why;
    return GW_CHOICE_MADE;
}

enum gw_choice gw_choose_take(struct gw_worker *worker, struct gw_model *model,
                              const struct gw_wish *wish, struct gw_replica *const *tried,
                              size_t n_tried, int64_t now_ns, struct gw_replica **ret_replica,
                              enum gw_why *ret_why)
{
    enum gw_choice choice;
    do { /* a replica that another loop has filled meanwhile is seen to be full the next time */
        choice = gw_choose(worker, model, wish, tried, n_tried, now_ns, ret_replica, ret_why);
    } while (choice == GW_CHOICE_MADE && !gw_replica_take_place(*ret_replica));
    return choice;
}

bool gw_choose_has_more(const struct gw_worker *worker, const struct gw_model *model,
                        const struct gw_wish *wish, struct gw_replica *const *tried, size_t n_tried)
{
    for (size_t s = 0; s < model->n_shares; s++) {
        const struct gw_share_view *share = &model->shares[s];
        bool open = wish->pin != 0 || share->weight > 0 || share == model->pool_rest;
        for (size_t i = share->from; open && i < share->to; i++) {
            const struct gw_replica *r = model->replicas[i];
            if ((wish->pin == 0 || wish->pin == r->version_hash) &&
                is_allowed_place(worker, wish, r) && !was_tried(tried, n_tried, r)) {
                return true;
            }
        }
    }
    return false;
}
