#include "scheduler/near.h"
#include "scheduler/room.h"

#include <assert.h>
#include <string.h>

#define SCORE_MAX 1000
#define SOFT_SPREAD_WEIGHT 100

/* --- what is held --- */

void sched_near_learn(struct sched *s, const struct at_instance *instance)
{
    if (sched_tally_learn(s->tally, instance)) {
        sched_tally_reset(s->tally);
        sched_holders_tell(s);
    }
}

void sched_holder_changed(struct sched *s, const struct at_instance *instance,
                          const struct sched_node *node, int sign)
{
    sched_tally_changed(s->tally, instance, node->node->meta.name, s->sites[node->site_index]->name,
                        sign);
}

/* --- the rules of a turn --- */

static bool has_hard_spread(const struct at_spread_rule *rule)
{
    return !at_streq(rule->when_unsatisfiable, "ScheduleAnyway");
}

bool sched_has_near_preference(const struct at_placement *p)
{
    if (p == NULL) {
        return false;
    }
    for (size_t i = 0; i < p->spread.n; i++) {
        if (!has_hard_spread(&p->spread.items[i])) {
            return true;
        }
    }
    return (p->affinity != NULL && p->affinity->preferred.n > 0) ||
           (p->anti_affinity != NULL && p->anti_affinity->preferred.n > 0);
}

/* The place of a level to which each site belongs, and what is counted there. */
static enum at_rc count_sites(struct sched *s, struct sched_near *r)
{
    const struct at_map *by_site = r->keeper != NULL    ? r->keeper->by_place
                                   : r->matcher != NULL ? r->matcher->by_site
                                                        : NULL;
    r->by_site = at_arena_alloc(s->arena, sizeof *r->by_site * (s->n_sites + 1));
    if (r->by_site == NULL) {
        return AT_NOMEM;
    }
    struct at_map *sums = at_map_new();
    for (int pass = 0; pass < 2 && r->level != SCHED_LEVEL_NODE; pass++) {
        for (size_t i = 0; i < s->n_sites; i++) {
            const char *place =
                sched_level_value(r->level, NULL, s->sites[i]->site, s->sites[i]->name);
            int64_t here = by_site != NULL ? sched_tally_count(by_site, s->sites[i]->name) : 0;
            if (place != NULL && pass == 0) {
                (void)at_map_put(sums, place,
                                 (void *)(intptr_t)(sched_tally_count(sums, place) + here));
            }
            r->by_site[i] = place != NULL ? sched_tally_count(sums, place) : -1;
        }
    }
    at_map_free(sums);
    return AT_OK;
}

static const struct at_map *by_node(const struct sched_near *r)
{
    return r->keeper != NULL    ? r->keeper->by_place
           : r->matcher != NULL ? r->matcher->by_node
                                : NULL;
}

struct rules {
    struct sched *s;
    struct sched_turn *turn;
    size_t room;
    enum at_rc rc;
};

static void add(struct rules *rules, struct sched_near rule)
{
    struct sched_turn *t = rules->turn;
    if (t->n_near == rules->room) {
        size_t room = rules->room * 2 + 8;
        struct sched_near *more = at_arena_alloc(rules->s->arena, sizeof *more * room);
        if (more == NULL) {
            rules->rc = AT_NOMEM;
            return;
        }
        if (t->n_near > 0) {
            memcpy(more, t->near, sizeof *more * t->n_near);
        }
        t->near = more;
        rules->room = room;
    }
    t->near[t->n_near] = rule;
    enum at_rc rc = count_sites(rules->s, &t->near[t->n_near++]);
    rules->rc = rules->rc == AT_OK ? rc : rules->rc;
}

static void add_terms(struct rules *rules, const struct at_affinity *affinity,
                      enum sched_near_kind kind)
{
    const struct at_instance *x = rules->turn->instance;
    for (size_t k = 0; affinity != NULL && k < affinity->required.n + affinity->preferred.n; k++) {
        bool required = k < affinity->required.n;
        const struct at_affinity_term *term =
            required ? &affinity->required.items[k]
                     : &affinity->preferred.items[k - affinity->required.n];
        const struct sched_matcher *m = sched_tally_of_term(rules->s->tally, term, x->meta.ns);
        bool self = m != NULL && sched_matcher_means(m, x);
        add(rules, (struct sched_near){
                       .kind = kind,
                       .level = sched_level_of(term->topology, SCHED_LEVEL_NODE),
                       .weight = required           ? 0
                                 : term->weight > 0 ? term->weight
                                                    : 1,
                       .matcher = m,
                       .self = self,
                       .first = kind == SCHED_NEAR && self && m->total == 0,
                   });
    }
}

static void add_keeper(void *ctx, const struct sched_keeper *keeper)
{
    add(ctx, (struct sched_near){.kind = SCHED_KEPT_AWAY,
                                 .level = keeper->level,
                                 .matcher = keeper->matcher,
                                 .keeper = keeper});
}

static enum at_rc collect(struct sched *s, struct sched_turn *turn)
{
    struct rules rules = {.s = s, .turn = turn, .rc = AT_OK};
    turn->near = NULL; /* the turn before this one had others */
    turn->n_near = 0;
    const struct at_placement *p = turn->instance->spec.placement;
    if (p != NULL) {
        add_terms(&rules, p->affinity, SCHED_NEAR);
        add_terms(&rules, p->anti_affinity, SCHED_AWAY);
        for (size_t k = 0; k < p->spread.n; k++) {
            const struct at_spread_rule *rule = &p->spread.items[k];
            const struct sched_matcher *m = sched_tally_of_spread(s->tally, rule, turn->instance);
            add(&rules, (struct sched_near){
                            .kind = SCHED_SPREAD_RULE,
                            .level = sched_level_of(rule->topology, SCHED_LEVEL_SITE),
                            .weight = has_hard_spread(rule) ? 0 : SOFT_SPREAD_WEIGHT,
                            .matcher = m,
                            .spread = rule,
                            .self = m == NULL || sched_matcher_means(m, turn->instance),
                        });
        }
    }
    sched_tally_keepers(s->tally, turn->instance, add_keeper, &rules);
    return rules.rc;
}

/* --- which places a spread rule compares --- */

struct seen {
    struct at_map *places; /* name -> anything */
    int64_t least;
    size_t n;
};

static void see(struct seen *seen, const char *place, int64_t count)
{
    if (place != NULL && at_map_put(seen->places, place, seen) == NULL) {
        seen->n++;
        seen->least = count < seen->least ? count : seen->least;
    }
}

static int64_t node_count(const struct sched_near *r, const struct sched_node *node)
{
    const struct at_map *map = by_node(r);
    return map != NULL && node != NULL ? sched_tally_count(map, node->node->meta.name) : 0;
}

static bool site_eligible(const struct sched_turn *t, size_t site)
{
    for (size_t i = 0; i < t->n_apart; i++) {
        if (t->apart[i].eligible && t->apart[i].node->site_index == site) {
            return true;
        }
    }
    return t->sites[site].eligible > 0;
}

/* Places that have any, whether or not the instance may go there. */
static int64_t places_in_use(const struct sched *s, const struct sched_near *r)
{
    if (r->matcher == NULL) {
        return 0;
    }
    if (r->level == SCHED_LEVEL_NODE) {
        return (int64_t)at_map_count(r->matcher->by_node);
    }
    struct seen seen = {.places = at_map_new(), .least = INT64_MAX};
    for (size_t i = 0; i < s->n_sites; i++) {
        if (r->by_site[i] > 0) {
            see(&seen, sched_level_value(r->level, NULL, s->sites[i]->site, s->sites[i]->name), 0);
        }
    }
    at_map_free(seen.places);
    return (int64_t)seen.n;
}

/* The emptiest place counts even when its nodes are full, as long as they may take the instance by
 * the static rules. With fewer places than minDomains it counts as empty. */
static void measure(const struct sched *s, const struct sched_turn *t, struct sched_near *r)
{
    struct seen seen = {.places = at_map_new(), .least = INT64_MAX};
    for (size_t i = 0; i < s->n_sites; i++) {
        if (r->level == SCHED_LEVEL_NODE) {
            seen.n += t->sites[i].eligible;
            seen.least = t->sites[i].eligible > 0 ? 0 : seen.least;
        } else if (site_eligible(t, i)) {
            see(&seen, sched_level_value(r->level, NULL, s->sites[i]->site, s->sites[i]->name),
                r->by_site[i]);
        }
    }
    for (size_t i = 0; r->level == SCHED_LEVEL_NODE && i < t->n_apart; i++) {
        if (t->apart[i].eligible) {
            see(&seen, t->apart[i].node->node->meta.name, node_count(r, t->apart[i].node));
        }
    }
    at_map_free(seen.places);
    r->least = seen.n < (size_t)r->spread->min_domains || seen.least == INT64_MAX ? 0 : seen.least;
    r->places = places_in_use(s, r);
}

/* --- verdicts --- */

static enum at_sched_rule rule_of(const struct sched_near *r)
{
    return r->kind == SCHED_NEAR          ? AT_SCHED_AFFINITY
           : r->kind == SCHED_SPREAD_RULE ? AT_SCHED_SPREAD_RULE
                                          : AT_SCHED_ANTI_AFFINITY;
}

static bool spread_broken(const struct sched_near *r, int64_t count)
{
    const struct at_spread_rule *rule = r->spread;
    int64_t after = count + (r->self ? 1 : 0);
    if (rule->max_skew > 0 && after - r->least > rule->max_skew) {
        return true;
    }
    if (rule->max_per_domain > 0 && after > rule->max_per_domain) {
        return true;
    }
    return rule->max_domains > 0 && count == 0 && r->places >= rule->max_domains;
}

/* node NULL: one on which nothing is counted. */
static bool broken(const struct sched_near *r, size_t site, const struct sched_node *node)
{
    int64_t count = r->level == SCHED_LEVEL_NODE ? node_count(r, node) : r->by_site[site];
    switch (r->kind) {
    case SCHED_NEAR:
        return count < 0 || (count == 0 && !r->first);
    case SCHED_AWAY:
    case SCHED_KEPT_AWAY:
        return count > 0;
    case SCHED_SPREAD_RULE:
        return count < 0 || spread_broken(r, count);
    }
    return false;
}

static const struct sched_near *first_broken(const struct sched_turn *t, size_t site,
                                             const struct sched_node *node)
{
    for (size_t k = 0; k < t->n_near; k++) {
        if (t->near[k].weight == 0 && broken(&t->near[k], site, node)) {
            return &t->near[k];
        }
    }
    return NULL;
}

static bool over(int64_t used, int64_t wanted, int64_t limit)
{
    return limit > 0 && wanted > 0 && used + wanted > limit;
}

/* The first limit of the site that would be passed; NULL: none. */
static const char *limit_passed(const struct sched *s, const struct sched_turn *t, size_t site)
{
    const struct at_site *object = s->sites[site]->site;
    const struct at_site_limits *l = object != NULL ? object->spec.limits : NULL;
    if (l == NULL) {
        return NULL;
    }
    const struct sched_demand *d = &t->request->demand;
    struct sched_site_use use = sched_tally_site_use(s->tally, s->sites[site]->name);
    return over(use.instances, 1, l->instances)                             ? "instances"
           : over(use.cpu_milli, d->cpu_milli, l->cpu_milli)                ? "cpu"
           : over(use.memory_bytes, d->memory_bytes, l->memory_bytes)       ? "memory"
           : over(use.gpu_milli, d->gpu_count * d->gpu_milli, l->gpu_milli) ? "gpu"
                                                                            : NULL;
}

static const struct at_placement_rule *policy_refusing(const struct sched *s,
                                                       const struct sched_turn *t, size_t site)
{
    for (size_t i = 0; i < s->snap->n_policies; i++) {
        const struct at_placement_rule *rule = sched_policy_refusing(
            s->snap->policies[i], t->instance, s->sites[site]->site, s->sites[site]->name);
        if (rule != NULL) {
            return rule;
        }
    }
    return NULL;
}

/* A site that a policy forbids is no place at all: spread does not wait for it. */
static void refuse_by_policy(const struct sched *s, struct sched_turn *t)
{
    for (size_t i = 0; i < s->n_sites; i++) {
        if (policy_refusing(s, t, i) == NULL) {
            continue;
        }
        t->sites[i].refusal = AT_SCHED_POLICY;
        t->sites[i].eligible = t->sites[i].fits = 0;
        for (size_t k = 0; k < t->n_apart; k++) {
            if (t->apart[k].node->site_index == i) {
                t->apart[k].refusal = AT_SCHED_POLICY;
                t->apart[k].eligible = t->apart[k].fits = false;
            }
        }
    }
}

/* Nodes on which something is counted are unlike the others of their site. */
static enum at_rc set_apart(struct sched *s, struct sched_turn *t)
{
    for (size_t k = 0; k < t->n_near; k++) {
        const struct at_map *map =
            t->near[k].level == SCHED_LEVEL_NODE ? by_node(&t->near[k]) : NULL;
        const char *name;
        void *value;
        for (size_t it = 0; map != NULL && at_map_next(map, &it, &name, &value);) {
            const struct sched_node *node = at_map_get(s->node_by_name, name);
            if (node != NULL && sched_turn_apart(s, t, node) == NULL) {
                return AT_NOMEM;
            }
        }
    }
    return AT_OK;
}

static void refuse_sites(const struct sched *s, struct sched_turn *t)
{
    for (size_t i = 0; i < s->n_sites; i++) {
        if (t->sites[i].refusal != AT_SCHED_RULE_COUNT) {
            continue;
        }
        const struct sched_near *r = first_broken(t, i, NULL);
        if (r != NULL) {
            t->sites[i].refusal = rule_of(r);
        } else if (limit_passed(s, t, i) != NULL) {
            t->sites[i].refusal = AT_SCHED_SITE_LIMIT;
        }
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        struct sched_turn_node *a = &t->apart[i];
        if (a->refusal != AT_SCHED_RULE_COUNT) {
            continue;
        }
        const struct sched_near *r = first_broken(t, a->node->site_index, a->node);
        if (r != NULL) {
            a->refusal = rule_of(r);
        } else if (limit_passed(s, t, a->node->site_index) != NULL) {
            a->refusal = AT_SCHED_SITE_LIMIT;
        }
    }
}

uint64_t sched_near_rules_at(const struct sched *s, const struct sched_turn *t,
                             const struct sched_node *n, int *ret_more)
{
    uint64_t rules = 0;
    int broken_rules = 0;
    for (size_t k = 0; k < t->n_near; k++) {
        if (t->near[k].weight == 0 && broken(&t->near[k], n->site_index, n)) {
            rules |= SCHED_RULE_BIT(rule_of(&t->near[k]));
            broken_rules++;
        }
    }
    *ret_more = broken_rules - __builtin_popcountll(rules);
    rules |= policy_refusing(s, t, n->site_index) != NULL ? SCHED_RULE_BIT(AT_SCHED_POLICY) : 0;
    return rules |
           (limit_passed(s, t, n->site_index) != NULL ? SCHED_RULE_BIT(AT_SCHED_SITE_LIMIT) : 0);
}

/* Of these, how many does the rule count where the node is? */
static int64_t counted_at(const struct sched *s, const struct sched_near *r,
                          const struct sched_node *node, const struct at_instance *const *gone,
                          size_t n_gone)
{
    int64_t count = 0;
    const char *here =
        sched_level_value(r->level, node->node, node->site, s->sites[node->site_index]->name);
    for (size_t i = 0; i < n_gone; i++) {
        const struct sched_node *n = sched_node_find(s, gone[i]->spec.node_name);
        count += n != NULL && sched_matcher_means(r->matcher, gone[i]) &&
                 at_streq(here, sched_level_value(r->level, n->node, n->site,
                                                  s->sites[n->site_index]->name));
    }
    return count;
}

bool sched_near_misses(const struct sched *s, const struct sched_turn *t,
                       const struct sched_node *node, const struct at_instance *const *gone,
                       size_t n_gone)
{
    for (size_t k = 0; k < t->n_near; k++) {
        const struct sched_near *r = &t->near[k];
        bool limited = r->kind == SCHED_SPREAD_RULE && r->spread->max_domains > 0;
        bool asks = r->kind == SCHED_NEAR && !r->first;
        if (r->weight != 0 || r->matcher == NULL || (!asks && !limited)) {
            continue;
        }
        int64_t there =
            r->level == SCHED_LEVEL_NODE ? node_count(r, node) : r->by_site[node->site_index];
        if (there <= counted_at(s, r, node, gone, n_gone) &&
            (asks || (there > 0 && r->places > r->spread->max_domains))) {
            return true; /* a place in use no longer, while there are too many */
        }
    }
    return false;
}

enum at_rc sched_near_refuse(struct sched *s, struct sched_turn *t)
{
    enum at_rc rc = collect(s, t);
    rc = rc == AT_OK ? set_apart(s, t) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    refuse_by_policy(s, t);
    for (size_t k = 0; k < t->n_near; k++) {
        if (t->near[k].kind == SCHED_SPREAD_RULE) {
            measure(s, t, &t->near[k]);
        }
    }
    refuse_sites(s, t);
    return AT_OK;
}

/* --- what could lift a refusal --- */

/* One value of what was looked at and in which state; sums of these differ when any state does. */
static uint64_t state_of(const void *what, uint64_t version)
{
    uint64_t z = ((uint64_t)(uintptr_t)what ^ (version * 0x9e3779b97f4a7c15u)) + version;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 31);
}

static uint64_t matcher_state(const struct sched_matcher *m)
{
    return m != NULL ? state_of(m, m->version) : 0;
}

static uint64_t terms_stamp(const struct sched *s, const struct at_affinity *affinity,
                            const char *ns)
{
    uint64_t sum = 0;
    for (size_t k = 0; affinity != NULL && k < affinity->required.n; k++) {
        sum += matcher_state(sched_tally_of_term(s->tally, &affinity->required.items[k], ns));
    }
    return sum;
}

static void keeper_stamp(void *ctx, const struct sched_keeper *keeper)
{
    *(uint64_t *)ctx += state_of(keeper, keeper->version);
}

uint64_t sched_near_stamp(const struct sched *s, const struct at_instance *x,
                          const struct sched_group *group)
{
    const struct at_placement *p = x->spec.placement;
    uint64_t sum = state_of(s, s->epoch); /* sites and policies */
    if (p != NULL) {
        sum += terms_stamp(s, p->affinity, x->meta.ns);
        sum += terms_stamp(s, p->anti_affinity, x->meta.ns);
        for (size_t k = 0; k < p->spread.n; k++) {
            sum += matcher_state(sched_tally_of_spread(s->tally, &p->spread.items[k], x));
        }
        sum += p->max_skew > 0 ? state_of(group, group->version) : 0;
    }
    sched_tally_keepers(s->tally, x, keeper_stamp, &sum);
    for (size_t i = 0; i < s->n_sites; i++) {
        const struct at_site *site = s->sites[i]->site;
        if (site != NULL && site->spec.limits != NULL) {
            sum += state_of(s->sites[i], sched_tally_site_use(s->tally, s->sites[i]->name).version);
        }
    }
    return sum;
}

/* --- the affinity objective --- */

/* All liked and nothing disliked: 1000; nothing liked and all disliked: 0. */
static int64_t score(const struct sched_turn *t, size_t site, const struct sched_node *node)
{
    int64_t most = 0, sum = 0;
    for (size_t k = 0; k < t->n_near; k++) {
        const struct sched_near *r = &t->near[k];
        most += r->weight;
        sum += broken(r, site, node) ? 0 : r->weight;
    }
    return most > 0 ? SCORE_MAX * sum / most : 0;
}

void sched_near_score_sites(const struct sched *s, struct sched_turn *t)
{
    if (t->request->weights[AT_SCHED_OBJ_AFFINITY] == 0) {
        return;
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        t->sites[i].parts[AT_SCHED_OBJ_AFFINITY] = score(t, i, NULL);
    }
}

void sched_near_score_apart(const struct sched *s, struct sched_turn *t)
{
    (void)s;
    if (t->request->weights[AT_SCHED_OBJ_AFFINITY] == 0) {
        return;
    }
    for (size_t i = 0; i < t->n_apart; i++) {
        t->apart[i].parts[AT_SCHED_OBJ_AFFINITY] =
            score(t, t->apart[i].node->site_index, t->apart[i].node);
    }
}

/* --- sentences --- */

static const char *counted_text(struct sched *s, const struct sched_near *r)
{
    if (r->matcher == NULL || r->matcher->selector == NULL) {
        return "copies";
    }
    return at_arena_printf(s->arena, "instances with %s",
                           sched_selector_text(r->matcher->selector, s->arena));
}

static const char *why_spread(struct sched *s, const struct sched_near *r, const char *place,
                              int64_t count)
{
    const char *level = sched_level_name(r->level);
    const struct at_spread_rule *rule = r->spread;
    const char *what = counted_text(s, r);
    if (count < 0) {
        return at_arena_printf(s->arena, "its %s is unknown, and %s are spread by it", level, what);
    }
    if (rule->max_per_domain > 0 && count + (r->self ? 1 : 0) > rule->max_per_domain) {
        return at_arena_printf(s->arena, "%s %s has %lld %s, %lld at most", level, place,
                               (long long)count, what, (long long)rule->max_per_domain);
    }
    if (rule->max_skew > 0 && count + (r->self ? 1 : 0) - r->least > rule->max_skew) {
        return at_arena_printf(s->arena, "%s %s has %lld %s, the emptiest %lld, skew %lld at most",
                               level, place, (long long)count, what, (long long)r->least,
                               (long long)rule->max_skew);
    }
    return at_arena_printf(s->arena, "%s are in %lld %ss already, %lld at most", what,
                           (long long)r->places, level, (long long)rule->max_domains);
}

static const char *why_near(struct sched *s, const struct sched_near *r, const struct sched_node *n)
{
    size_t site = n->site_index;
    const char *level = sched_level_name(r->level);
    const char *place = sched_level_value(r->level, n->node, n->site, n->node->spec.site);
    int64_t count = r->level == SCHED_LEVEL_NODE ? node_count(r, n) : r->by_site[site];
    place = place != NULL ? place : "unknown";
    switch (r->kind) {
    case SCHED_NEAR:
        return at_arena_printf(s->arena, "no %s in %s %s", counted_text(s, r), level, place);
    case SCHED_AWAY:
        return at_arena_printf(s->arena, "%lld %s in %s %s", (long long)count, counted_text(s, r),
                               level, place);
    case SCHED_KEPT_AWAY:
        return at_arena_printf(s->arena, "%lld instance%s in %s %s keep%s away those with %s",
                               (long long)count, count == 1 ? "" : "s", level, place,
                               count == 1 ? "s" : "",
                               sched_selector_text(r->matcher->selector, s->arena));
    case SCHED_SPREAD_RULE:
        return why_spread(s, r, place, count);
    }
    return "";
}

static const char *why_limit(struct sched *s, const struct sched_turn *t,
                             const struct sched_node *n)
{
    const char *what = limit_passed(s, t, n->site_index);
    assert(what != NULL);
    const struct at_site_limits *l = n->site->spec.limits;
    struct sched_site_use use = sched_tally_site_use(s->tally, n->node->spec.site);
    char used[AT_UNITS_TEXT_BYTES_MAX], limit[AT_UNITS_TEXT_BYTES_MAX];
    if (what[0] == 'm') {
        at_quantity_format_bytes(use.memory_bytes, used);
        at_quantity_format_bytes(l->memory_bytes, limit);
    } else {
        bool one = what[0] == 'i';
        at_quantity_format_milli(one              ? use.instances * 1000
                                 : what[0] == 'c' ? use.cpu_milli
                                                  : use.gpu_milli,
                                 used);
        at_quantity_format_milli(one              ? l->instances * 1000
                                 : what[0] == 'c' ? l->cpu_milli
                                                  : l->gpu_milli,
                                 limit);
    }
    return at_arena_printf(s->arena, "site %s has %s %s in use of its limit of %s",
                           n->node->spec.site, used, what, limit);
}

const char *sched_near_why(struct sched *s, const struct sched_turn *t, const struct sched_node *n,
                           enum at_sched_rule rule)
{
    if (rule == AT_SCHED_SITE_LIMIT) {
        return why_limit(s, t, n);
    }
    if (rule == AT_SCHED_POLICY) {
        const struct at_placement_rule *p = policy_refusing(s, t, n->site_index);
        return at_arena_printf(s->arena, "policy rule %s keeps it away from site %s",
                               p != NULL ? p->name : "", n->node->spec.site);
    }
    const struct sched_near *r = first_broken(t, n->site_index, n);
    assert(r != NULL);
    return why_near(s, r, n);
}
