/* One decision: what is kept of the request, put together with what depends on other instances. */
#include "scheduler/engine.h"
#include "scheduler/near.h"
#include "scheduler/room.h"

#include <assert.h>
#include <string.h>

static struct sched_turn_node *apart_of(const struct sched *s, const struct sched_turn *turn,
                                        const struct sched_node *n)
{
    return n->apart == s->turn_number ? &turn->apart[n->apart_at] : NULL;
}

struct sched_turn_node *sched_turn_apart(struct sched *s, struct sched_turn *turn,
                                         const struct sched_node *node)
{
    struct sched_turn_node *a = apart_of(s, turn, node);
    if (a != NULL) {
        return a;
    }
    if (turn->n_apart == turn->cap_apart) {
        turn->cap_apart = turn->cap_apart != 0 ? 2 * turn->cap_apart : 16;
        turn->apart = at_realloc(turn->apart, sizeof(*turn->apart) * turn->cap_apart);
    }
    struct sched_node *n = s->nodes[node->pos];
    n->apart = s->turn_number;
    n->apart_at = turn->n_apart;
    a = &turn->apart[turn->n_apart++];
    *a = (struct sched_turn_node){.node = node, .refusal = AT_SCHED_RULE_COUNT};
    a->eligible = sched_is_eligible(turn->request, node->pos);
    a->fits = turn->request->scores[node->pos] >= SCHED_FITS;
    a->copies = turn->copies != NULL ? turn->copies[node->pos] : 0;
    turn->sites[node->site_index].eligible -= a->eligible;
    turn->sites[node->site_index].fits -= a->fits;
    return a;
}

/* Unless copies on a node refuse it, those of a large group differ in one part of the score only.
 */
static const int32_t *copies_of(const struct sched *s, const struct sched_item *item)
{
    const struct at_placement *p = item->request->spec->placement;
    return p != NULL && p->max_skew > 0 && sched_spread_by_node(p)
               ? NULL
               : sched_group_by_pos(s, item->group);
}

enum at_rc sched_turn_begin(struct sched *s, struct sched_item *item)
{
    struct sched_turn *turn = &s->turn;
    struct sched_request *r = item->request;
    sched_near_learn(s, item->asked != NULL ? item->asked : item->instance);
    sched_request_refresh(s, r);
    s->turn_number++;
    if (s->cap_turn_sites < s->n_sites) {
        s->cap_turn_sites = s->n_sites;
        turn->sites = at_realloc(turn->sites, sizeof(*turn->sites) * s->n_sites);
    }
    turn->instance = item->asked != NULL ? item->asked : item->instance;
    turn->request = r;
    turn->group = item->group;
    turn->n_apart = 0;
    turn->near = NULL;
    turn->n_near = 0;
    turn->others_refused = AT_SCHED_RULE_COUNT;
    for (size_t i = 0; i < s->n_sites; i++) {
        struct sched_turn_site *site = &turn->sites[i];
        site->eligible = r->sites[i].eligible;
        site->fits = r->sites[i].fits;
        site->refusal = AT_SCHED_RULE_COUNT;
        memcpy(site->parts, r->places[i].parts, sizeof(site->parts));
        site->price = r->places[i].price;
    }
    turn->copies = copies_of(s, item);
    for (size_t i = 0; turn->copies == NULL && i < item->group->n_nodes; i++) {
        sched_turn_apart(s, turn, item->group->nodes[i].node)->copies =
            item->group->nodes[i].copies;
    }
    return sched_turn_places(s, turn);
}

static enum at_sched_rule place_refusal(const struct sched_turn *turn, size_t site)
{
    return turn->others_refused != AT_SCHED_RULE_COUNT ? turn->others_refused
                                                       : turn->sites[site].refusal;
}

enum at_sched_rule sched_turn_refusal(const struct sched *s, const struct sched_turn *turn,
                                      const struct sched_node *node)
{
    uint32_t score = turn->request->scores[node->pos];
    if (score < SCHED_FITS) {
        return (enum at_sched_rule)score;
    }
    const struct sched_turn_node *a = apart_of(s, turn, node);
    return a != NULL ? a->refusal : place_refusal(turn, node->site_index);
}

enum at_sched_rule sched_turn_refusal_but_room(const struct sched *s, const struct sched_turn *turn,
                                               const struct sched_node *node)
{
    const struct sched_turn_node *a = apart_of(s, turn, node);
    return a != NULL ? a->refusal : place_refusal(turn, node->site_index);
}

/* The first node by name that what is kept says is refused by the rule; there is one. */
static const struct sched_node *first_kept(const struct sched *s, struct sched_request *r,
                                           enum at_sched_rule rule)
{
    uint32_t *at = &r->first_refused[rule];
    while (*at < s->n_nodes && r->scores[s->by_rank[*at]->pos] != (uint32_t)rule) {
        ++*at;
    }
    assert(*at < s->n_nodes);
    return s->by_rank[*at];
}

/* The first of the site's nodes that have room and are not apart; NULL: there is none. */
static const struct sched_node *first_with_room(const struct sched *s,
                                                const struct sched_turn *turn, size_t site)
{
    const struct sched_site *place = s->sites[site];
    const struct sched_request *r = turn->request;
    for (size_t b = 0; b * SCHED_BLOCK < place->n_nodes; b++) {
        size_t from = b * SCHED_BLOCK, to = place->n_nodes;
        to = to < from + SCHED_BLOCK ? to : from + SCHED_BLOCK;
        for (size_t i = from; r->best[place->first_block + b] != 0 && i < to; i++) {
            const struct sched_node *n = s->nodes[place->first + i];
            if (r->scores[n->pos] >= SCHED_FITS && n->apart != s->turn_number) {
                return n;
            }
        }
    }
    return NULL;
}

static void note_first(const struct sched_node *ret_first[AT_SCHED_RULE_COUNT],
                       enum at_sched_rule rule, const struct sched_node *n)
{
    const struct sched_node *was = ret_first[rule];
    ret_first[rule] = was == NULL || (n != NULL && n->rank < was->rank) ? n : was;
}

void sched_turn_refused(const struct sched *s, const struct sched_turn *turn,
                        size_t ret_refused[AT_SCHED_RULE_COUNT],
                        const struct sched_node *ret_first[AT_SCHED_RULE_COUNT])
{
    const struct sched_request *r = turn->request;
    memcpy(ret_refused, r->refused, sizeof(r->refused));
    memset(ret_first, 0, sizeof(*ret_first) * AT_SCHED_RULE_COUNT);
    for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        if (ret_refused[k] > 0) {
            ret_first[k] = first_kept(s, turn->request, (enum at_sched_rule)k);
        }
    }
    for (size_t i = 0; i < s->n_sites; i++) { /* nodes with room, and not apart */
        enum at_sched_rule rule = place_refusal(turn, i);
        if (rule != AT_SCHED_RULE_COUNT && r->sites[i].fits > 0) {
            ret_refused[rule] += r->sites[i].fits; /* those apart are taken out below */
            note_first(ret_first, rule, first_with_room(s, turn, i));
        }
    }
    for (size_t i = 0; i < turn->n_apart; i++) {
        const struct sched_turn_node *a = &turn->apart[i];
        enum at_sched_rule as_others = place_refusal(turn, a->node->site_index);
        if (r->scores[a->node->pos] < SCHED_FITS) {
            continue;
        }
        if (as_others != AT_SCHED_RULE_COUNT) {
            ret_refused[as_others]--;
        }
        if (a->refusal != AT_SCHED_RULE_COUNT) {
            ret_refused[a->refusal]++;
            note_first(ret_first, a->refusal, a->node);
        }
    }
}

/* --- the choice --- */

struct choice {
    const struct sched_node *node;
    int64_t weighted, copies;
};

/* More points, then fewer copies, then the name. */
static bool is_better(const struct choice *a, const struct choice *b)
{
    if (b->node == NULL || a->weighted != b->weighted) {
        return b->node == NULL || a->weighted > b->weighted;
    }
    return a->copies != b->copies ? a->copies < b->copies : a->node->rank < b->node->rank;
}

static void consider(const struct choice *c, struct choice best[2])
{
    if (is_better(c, &best[0])) {
        best[1] = best[0];
        best[0] = *c;
    } else if (is_better(c, &best[1])) {
        best[1] = *c;
    }
}

static int64_t weigh(const struct sched_request *r, const int64_t parts[AT_SCHED_OBJ_COUNT])
{
    int64_t sum = 0;
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        sum += r->weights[k] * parts[k];
    }
    return sum;
}

/* Could a node of this block be among the best two? All of it have no copies. */
static bool is_promising(const struct sched *s, int64_t weighted, size_t first,
                         const struct choice best[2])
{
    struct choice c = {s->nodes[first], weighted, 0};
    return is_better(&c, &best[1]);
}

/* The least score of a node that is worth a look where the site has so many points. */
static uint32_t least_of(int64_t base, const struct choice best[2])
{
    int64_t least = best[1].node != NULL ? best[1].weighted - base : 0;
    return least < SCHED_FITS ? SCHED_FITS : least < UINT32_MAX ? (uint32_t)least : UINT32_MAX;
}

static void consider_site(const struct sched *s, const struct sched_turn *turn, size_t at,
                          struct choice best[2])
{
    struct sched_request *r = turn->request;
    const struct sched_site *site = s->sites[at];
    int64_t base = turn->sites[at].base;
    uint32_t least = least_of(base, best);
    for (size_t b = 0; b * SCHED_BLOCK < site->n_nodes; b++) {
        uint32_t top = r->best[site->first_block + b];
        if (top >= least) {
            top = sched_block_best(r, site, b);
        }
        size_t from = site->first + b * SCHED_BLOCK;
        if (top < least || !is_promising(s, base + top, from, best)) {
            continue;
        }
        size_t to = site->first + site->n_nodes;
        to = to < from + SCHED_BLOCK ? to : from + SCHED_BLOCK;
        for (size_t i = from; i < to; i++) {
            if (r->scores[i] < least || s->nodes[i]->apart == s->turn_number) {
                continue;
            }
            struct choice c = {s->nodes[i], base + r->scores[i], 0};
            if (turn->copies != NULL) {
                const struct sched_turn_site *of = &turn->sites[at];
                c.copies = turn->copies[i];
                c.weighted -= r->weights[AT_SCHED_OBJ_SPREAD] *
                              (of->ahead[0] - of->ahead[sched_ahead(turn, s->nodes[i])]);
            }
            consider(&c, best);
            least = least_of(base, best);
        }
    }
}

static bool is_open(const struct sched_turn *turn, size_t site)
{
    return turn->sites[site].fits > 0 && place_refusal(turn, site) == AT_SCHED_RULE_COUNT;
}

/* The site whose best node promises most first, so that little of the others is looked at. */
static void consider_sites(const struct sched *s, const struct sched_turn *turn,
                           struct choice best[2])
{
    const struct sched_request *r = turn->request;
    size_t first = s->n_sites;
    int64_t most = 0;
    for (size_t i = 0; i < s->n_sites; i++) {
        if (!is_open(turn, i)) {
            continue;
        }
        const struct sched_site *site = s->sites[i];
        uint32_t top = 0;
        for (size_t b = 0; b * SCHED_BLOCK < site->n_nodes; b++) {
            uint32_t bound = r->best[site->first_block + b];
            top = bound > top ? bound : top;
        }
        turn->sites[i].base = weigh(r, turn->sites[i].parts) - SCHED_FITS;
        if (first == s->n_sites || turn->sites[i].base + top > most) {
            first = i;
            most = turn->sites[i].base + top;
        }
    }
    if (first < s->n_sites) {
        consider_site(s, turn, first, best);
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        if (i != first && is_open(turn, i)) {
            consider_site(s, turn, i, best);
        }
    }
}

/* The first of the site's nodes that is nearly as good. */
static void settle_for(const struct sched *s, const struct sched_turn *turn, struct choice *best)
{
    struct sched_request *r = turn->request;
    uint32_t slack = sched_slack(s, r);
    if (slack == 0 || best->node->apart == s->turn_number || best->copies > 0) {
        return;
    }
    const struct sched_site *site = s->sites[best->node->site_index];
    uint32_t top = r->scores[best->node->pos];
    uint32_t enough = top > slack + SCHED_FITS ? top - slack : SCHED_FITS;
    for (size_t b = 0; b * SCHED_BLOCK < site->n_nodes; b++) {
        if (sched_block_best(r, site, b) < enough) {
            continue;
        }
        for (size_t i = site->first + b * SCHED_BLOCK; i < site->first + site->n_nodes; i++) {
            const struct sched_node *n = s->nodes[i];
            if (n == best->node) {
                return;
            }
            if (r->scores[i] >= enough && n->apart != s->turn_number &&
                (turn->copies == NULL || turn->copies[i] == 0)) {
                best->weighted -= top - r->scores[i];
                best->node = n;
                return;
            }
        }
    }
}

static void parts_of(const struct sched *s, const struct sched_turn *turn,
                     const struct sched_node *n, int64_t out[AT_SCHED_OBJ_COUNT])
{
    const struct sched_turn_node *a = apart_of(s, turn, n);
    const int64_t *place = a != NULL ? a->parts : turn->sites[n->site_index].parts;
    memset(out, 0, sizeof(*out) * AT_SCHED_OBJ_COUNT);
    sched_score_node(s, turn->request, n, out);
    if (a == NULL && turn->copies != NULL) {
        out[AT_SCHED_OBJ_SPREAD] +=
            turn->sites[n->site_index].ahead[sched_ahead(turn, n)] - place[AT_SCHED_OBJ_SPREAD];
    }
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        out[k] += place[k];
        assert(out[k] >= 0);
        assert(out[k] <= 1000);
    }
}

void sched_turn_choose(struct sched *s, const struct sched_turn *turn, struct at_sched_decision *d)
{
    const struct sched_request *r = turn->request;
    struct choice best[2] = {{0}};
    int64_t weight = 0;
    consider_sites(s, turn, best);
    for (size_t i = 0; i < turn->n_apart; i++) {
        const struct sched_turn_node *a = &turn->apart[i];
        if (a->fits && a->refusal == AT_SCHED_RULE_COUNT) {
            struct choice c = {a->node, weigh(r, a->parts) + r->scores[a->node->pos] - SCHED_FITS,
                               a->copies};
            consider(&c, best);
        }
    }
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        weight += r->weights[k];
    }
    weight = weight > 0 ? weight : 1;
    memcpy(d->weights, r->weights, sizeof(d->weights));
    if (best[0].node == NULL) {
        return;
    }
    const struct sched_node *top = best[0].node;
    settle_for(s, turn, &best[0]);
    if (best[0].node != top) {
        best[1].node = top;
    }
    d->node = best[0].node->node;
    d->score = best[0].weighted / weight;
    parts_of(s, turn, best[0].node, d->parts);
    if (best[1].node != NULL) {
        d->runner_up = best[1].node->node;
        parts_of(s, turn, best[1].node, d->runner_up_parts);
        d->runner_up_score = weigh(r, d->runner_up_parts) / weight;
    }
}
