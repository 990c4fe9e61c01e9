/* What depends on where other instances are, or on how other nodes do: spread and the cheapest
 * price. Whole sites get refusals and parts; nodes apart get their own. */
#include "scheduler/near.h"
#include "scheduler/scheduler_priv.h"

#include <string.h>

#define SCORE_MAX 1000

bool sched_spread_by_node(const struct at_placement *placement)
{
    return placement != NULL && at_streq(placement->spread_by, "node");
}

static bool feasible_site(const struct sched_turn *t, size_t site)
{
    return t->others_refused == AT_SCHED_RULE_COUNT &&
           t->sites[site].refusal == AT_SCHED_RULE_COUNT && t->sites[site].fits > 0;
}

static bool feasible_apart(const struct sched_turn_node *a)
{
    return a->fits && a->refusal == AT_SCHED_RULE_COUNT;
}

/* On its node, or at its whole site. */
static int64_t copies(const struct sched_turn *t, const struct sched_turn_node *a, bool by_node)
{
    return by_node ? a->copies : sched_copies_at(t->group, a->node->site_index);
}

/* The emptiest place counts even when its nodes are full, as long as they may take the instance by
 * the static rules: otherwise a full site would let the others run ahead without limit. */
static int64_t least_copies(const struct sched *s, const struct sched_turn *t, bool by_node)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < s->n_sites; i++) {
        int64_t count = by_node ? 0 : sched_copies_at(t->group, i);
        least = t->sites[i].eligible > 0 && count < least ? count : least;
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        int64_t count = copies(t, &t->apart[i], by_node);
        least = t->apart[i].eligible && count < least ? count : least;
    }
    return least;
}

static void refuse_skew(const struct sched *s, struct sched_turn *t, int64_t max_skew, bool by_node)
{
    int64_t least = least_copies(s, t, by_node);
    if (least == INT64_MAX) {
        return;
    }
    for (size_t i = 0; !by_node && i < s->n_sites; i++) {
        if (t->sites[i].refusal == AT_SCHED_RULE_COUNT &&
            sched_copies_at(t->group, i) + 1 - least > max_skew) {
            t->sites[i].refusal = AT_SCHED_SPREAD;
        }
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        struct sched_turn_node *a = &t->apart[i];
        if (a->refusal == AT_SCHED_RULE_COUNT && copies(t, a, by_node) + 1 - least > max_skew) {
            a->refusal = AT_SCHED_SPREAD;
        }
    }
}

bool sched_skew_refuses(const struct sched *s, const struct sched_turn *t,
                        const struct sched_node *node)
{
    const struct at_placement *p = t->request->spec->placement;
    bool by_node = sched_spread_by_node(p);
    if (p == NULL || p->max_skew <= 0) {
        return false;
    }
    int64_t here = by_node ? 0 : sched_copies_at(t->group, node->site_index);
    for (size_t i = 0; by_node && i < t->n_apart; i++) {
        here = t->apart[i].node == node ? t->apart[i].copies : here;
    }
    int64_t least = least_copies(s, t, by_node);
    return least != INT64_MAX && here + 1 - least > p->max_skew;
}

/* Each copy ahead of the emptiest place is worth a quarter: with the default weights evenness of
 * sites wins against any other single objective, and still tells a little from a lot ahead. */
static int64_t ahead_score(int64_t ahead)
{
    return ahead <= 0 ? SCORE_MAX : ahead < 5 ? SCORE_MAX >> (2 * ahead) : 0;
}

/* Of the site's feasible nodes that are not apart, the fewest copies; there is such a node. */
static int64_t least_not_apart(const struct sched *s, const struct sched_turn *t, size_t site)
{
    const struct sched_site *place = s->sites[site];
    const uint32_t *scores = t->request->scores;
    int64_t least = t->copies != NULL ? INT64_MAX : 0;
    for (size_t i = place->first; least > 0 && i < place->first + place->n_nodes; i++) {
        if (scores[i] >= SCHED_FITS && t->copies[i] < least &&
            s->nodes[i]->apart != s->turn_number) {
            least = t->copies[i];
        }
    }
    return least;
}

/* Per site, the fewest copies on a feasible node of it; INT64_MAX: no node of it is feasible. */
static void least_in_sites(const struct sched *s, const struct sched_turn *t, int64_t *least)
{
    for (size_t i = 0; i < s->n_sites; i++) {
        least[i] = feasible_site(t, i) ? least_not_apart(s, t, i) : INT64_MAX;
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        const struct sched_turn_node *a = &t->apart[i];
        int64_t *of_site = &least[a->node->site_index];
        if (feasible_apart(a)) {
            int64_t count = a->copies;
            *of_site = count < *of_site ? count : *of_site;
        }
    }
}

static void score_large_group(struct sched_turn_site *site, int64_t least, bool by_node,
                              int64_t of_site)
{
    site->least = least;
    for (int64_t k = 0; k < SCHED_AHEAD; k++) {
        site->ahead[k] = by_node ? ahead_score(k) : (4 * of_site + ahead_score(k)) / 5;
    }
}

/* By site, four fifths are the site's evenness and one fifth that of the nodes inside it. */
static void score_spread(const struct sched *s, struct sched_turn *t, const int64_t *least)
{
    bool by_node = sched_spread_by_node(t->request->spec->placement);
    int64_t least_site = INT64_MAX, least_node = INT64_MAX;
    for (size_t i = 0; i < s->n_sites; i++) {
        if (least[i] != INT64_MAX) {
            int64_t count = sched_copies_at(t->group, i);
            least_site = count < least_site ? count : least_site;
            least_node = least[i] < least_node ? least[i] : least_node;
        }
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        if (least[i] != INT64_MAX) { /* of its nodes without copies */
            int64_t site = ahead_score(sched_copies_at(t->group, i) - least_site);
            t->sites[i].parts[AT_SCHED_OBJ_SPREAD] =
                by_node ? SCORE_MAX : (4 * site + SCORE_MAX) / 5;
            if (t->copies != NULL) {
                score_large_group(&t->sites[i], by_node ? least_node : least[i], by_node, site);
            }
        }
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        struct sched_turn_node *a = &t->apart[i];
        size_t at = a->node->site_index;
        int64_t count = a->copies;
        int64_t site = ahead_score(sched_copies_at(t->group, at) - least_site);
        memcpy(a->parts, t->sites[at].parts, sizeof a->parts);
        if (feasible_apart(a)) {
            a->parts[AT_SCHED_OBJ_SPREAD] = by_node
                                                ? ahead_score(count - least_node)
                                                : (4 * site + ahead_score(count - least[at])) / 5;
        }
    }
}

/* The cheapest gets 1000, twice its price half of that. */
static void score_price(const struct sched *s, struct sched_turn *t, const int64_t *least)
{
    int64_t cheapest = INT64_MAX;
    for (size_t i = 0; i < s->n_sites; i++) {
        if (least[i] != INT64_MAX) {
            int64_t price = t->sites[i].price;
            cheapest = price < cheapest ? price : cheapest;
        }
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        int64_t price = t->sites[i].price;
        if (least[i] != INT64_MAX) {
            t->sites[i].parts[AT_SCHED_OBJ_PRICE] =
                price <= cheapest ? SCORE_MAX : SCORE_MAX * cheapest / price;
        }
    }
}

enum at_rc sched_turn_places(struct sched *s, struct sched_turn *t)
{
    const struct at_placement *p = t->request->spec->placement;
    int64_t *least = at_arena_alloc(s->arena, sizeof *least * (s->n_sites + 1));
    if (least == NULL) {
        return AT_NOMEM;
    }
    if (sched_near_refuse(s, t) != AT_OK) {
        return AT_NOMEM;
    }
    if (p != NULL && p->max_skew > 0) {
        refuse_skew(s, t, p->max_skew, sched_spread_by_node(p));
    }
    least_in_sites(s, t, least);
    score_price(s, t, least);
    sched_near_score_sites(s, t);
    score_spread(s, t, least);
    sched_near_score_apart(s, t);
    return AT_OK;
}
