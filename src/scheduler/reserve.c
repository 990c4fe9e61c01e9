#include "scheduler/reserve.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "scheduler/disruption.h"
#include "scheduler/queue.h"
#include "scheduler/queue_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KEY_HOSTNAME "kubernetes.io/hostname" /* every node is known by its name */
#define DRAWN_WEIGHT 100                      /* of the preference for what is held for one */

static const char *const PHASES[] = {
    [AT_RESERVE_PENDING] = "Pending",
    [AT_RESERVE_SCHEDULED] = "Scheduled",
    [AT_RESERVE_ACTIVE] = "Active",
    [AT_RESERVE_EXPIRED] = "Expired",
};

const char *at_reserve_phase_name(enum at_reserve_phase phase)
{
    return PHASES[phase];
}

static bool named(const struct at_model_strings *list, const char *s)
{
    return s != NULL && sched_strings_have(list, s);
}

/* Whether the instance may use what is held. */
static bool entitles(const struct at_snapshot *snap, const struct at_reservation *r,
                     const struct at_instance *i)
{
    return named(&r->spec.namespaces, i->meta.ns) ||
           (r->spec.queues.n > 0 && named(&r->spec.queues, at_queue_name_of(snap, i)));
}

/* When the instance will have ended, if it starts now; INT64_MAX: nobody knows. */
static int64_t end_of(const struct at_snapshot *snap, const struct at_instance *i, int64_t now)
{
    int64_t end = INT64_MAX;
    if (i->spec.expected_duration_ns > 0) {
        int64_t start = i->status.scheduled_at_wall_ns != 0 ? i->status.scheduled_at_wall_ns : now;
        end = start + i->spec.expected_duration_ns;
    }
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    if (owner != NULL && at_streq(owner->kind, "Job")) {
        const struct at_job *job = at_snapshot_job(snap, i->meta.ns, owner->name);
        if (job != NULL && job->spec.active_deadline_ns > 0) {
            int64_t start =
                job->status.start_time_wall_ns != 0 ? job->status.start_time_wall_ns : now;
            int64_t deadline = start + job->spec.active_deadline_ns;
            end = deadline < end ? deadline : end;
        }
    }
    return end;
}

static bool is_over(const struct at_reservation *r, int64_t now)
{
    return r->meta.deletion_wall_ns != 0 || now >= r->spec.to_wall_ns;
}

/* --- amounts --- */

enum { CPU, MEMORY, DISK, GPU, AMOUNTS };
struct amounts {
    int64_t of[AMOUNTS];
};

static struct amounts amounts_of(const struct at_resources *r)
{
    struct amounts a = {0};
    if (r != NULL) {
        a = (struct amounts){{r->cpu_milli, r->memory_bytes, r->disk_bytes, r->gpu_milli}};
    }
    for (int k = 0; k < AMOUNTS; k++) {
        a.of[k] = a.of[k] > 0 ? a.of[k] : 0;
        a.of[k] = a.of[k] < AT_SCHED_AMOUNT_MAX ? a.of[k] : AT_SCHED_AMOUNT_MAX;
    }
    return a;
}

static struct amounts wanted_by(const struct at_instance *i)
{
    struct sched_demand d = sched_demand_of(&i->spec);
    return (struct amounts){{d.cpu_milli, d.memory_bytes, d.disk_bytes, d.gpu_count * d.gpu_milli}};
}

static void add(struct amounts *a, const struct amounts *b, int64_t sign)
{
    for (int k = 0; k < AMOUNTS; k++) {
        a->of[k] += sign * b->of[k];
    }
}

/* --- which nodes --- */

static bool node_matches(const struct at_reservation *r, const struct at_node *node)
{
    if (node->meta.deletion_wall_ns != 0 ||
        (r->spec.sites.n > 0 && !named(&r->spec.sites, node->spec.site)) ||
        (r->spec.nodes.n > 0 && !named(&r->spec.nodes, node->meta.name))) {
        return false;
    }
    for (size_t i = 0; i < r->spec.node_selector.n; i++) {
        const struct at_model_kv *want = &r->spec.node_selector.items[i];
        if (!at_streq(at_model_map_get(&node->meta.labels, want->key), want->value)) {
            return false;
        }
    }
    struct amounts asks = amounts_of(r->spec.resources);
    struct amounts has = amounts_of(node->status.allocatable != NULL ? node->status.allocatable
                                                                     : node->status.capacity);
    for (int k = 0; k < AMOUNTS; k++) {
        if (asks.of[k] > has.of[k]) {
            return false;
        }
    }
    return true;
}

/* Held in the same time by another reservation, as a whole or of which one is: left to it. */
static bool is_taken(const struct at_snapshot *snap, const struct at_reservation *r,
                     const char *node, int64_t now)
{
    for (size_t i = 0; i < snap->n_reservations; i++) {
        const struct at_reservation *o = snap->reservations[i];
        if (o != r && !is_over(o, now) && o->spec.from_wall_ns < r->spec.to_wall_ns &&
            r->spec.from_wall_ns < o->spec.to_wall_ns &&
            (o->spec.resources == NULL || r->spec.resources == NULL) &&
            named(&o->status.nodes, node)) {
            return true;
        }
    }
    return false;
}

struct candidate {
    const char *name;
    bool kept;      /* chosen before */
    int64_t in_way; /* instances of others there */
};

static int by_liking(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (x->kept != y->kept) {
        return x->kept ? -1 : 1;
    }
    if (x->in_way != y->in_way) {
        return x->in_way < y->in_way ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_ready(const struct at_node *node)
{
    for (size_t i = 0; i < node->status.conditions.n; i++) {
        const struct at_condition *c = &node->status.conditions.items[i];
        if (at_streq(c->type, "Ready")) {
            return at_streq(c->status, "True");
        }
    }
    return false;
}

static enum at_rc choose(const struct at_snapshot *snap, const struct at_reservation *r,
                         int64_t now, struct at_arena *arena, struct at_reserve_plan *plan)
{
    struct candidate *list = at_arena_alloc(arena, (snap->n_nodes + 1) * sizeof(*list));
    struct at_map *in_way = at_map_new();
    size_t n = 0;
    for (size_t i = 0; list != NULL && i < snap->n_nodes; i++) {
        const struct at_node *node = snap->nodes[i];
        bool kept = named(&r->status.nodes, node->meta.name);
        if (node_matches(r, node) && (kept || (is_ready(node) && !node->spec.unschedulable)) &&
            !is_taken(snap, r, node->meta.name, now)) {
            list[n] = (struct candidate){.name = node->meta.name, .kept = kept};
            (void)at_map_put(in_way, node->meta.name, &list[n++]);
        }
    }
    for (size_t i = 0; list != NULL && i < snap->n_instances; i++) {
        const struct at_instance *x = snap->instances[i];
        struct candidate *c =
            sched_instance_holds(x) ? at_map_get(in_way, x->spec.node_name) : NULL;
        if (c != NULL && !entitles(snap, r, x)) {
            c->in_way++;
        }
    }
    at_map_free(in_way);
    size_t want = r->spec.nodes.n > 0 ? r->spec.nodes.n : (size_t)r->spec.count;
    size_t chosen = n < want ? n : want;
    plan->nodes = at_arena_alloc(arena, (chosen + 1) * sizeof(*plan->nodes));
    if (list == NULL || plan->nodes == NULL) {
        return AT_NOMEM;
    }
    if (n > 0) {
        qsort(list, n, sizeof(*list), by_liking);
    }
    for (size_t i = 0; i < chosen; i++) {
        plan->nodes[plan->n_nodes++] = list[i].name;
    }
    if (chosen > 0) {
        qsort(plan->nodes, chosen, sizeof(*plan->nodes), by_text);
    }
    plan->phase = chosen < want                ? AT_RESERVE_PENDING
                  : now < r->spec.from_wall_ns ? AT_RESERVE_SCHEDULED
                                               : AT_RESERVE_ACTIVE;
    const char *missing =
        chosen < want
            ? at_arena_printf(arena, "%zu of %zu nodes that match are there", chosen, want)
            : at_arena_printf(arena, "%zu node%s held", chosen, chosen == 1 ? "" : "s");
    plan->message = missing;
    return missing != NULL ? AT_OK : AT_NOMEM;
}

/* --- who is in the way --- */

static int least_worth(const void *a, const void *b)
{
    const struct at_instance *x = *(const struct at_instance *const *)a;
    const struct at_instance *y = *(const struct at_instance *const *)b;
    if (x->spec.priority != y->spec.priority) {
        return x->spec.priority < y->spec.priority ? -1 : 1;
    }
    if (x->status.scheduled_at_wall_ns != y->status.scheduled_at_wall_ns) {
        return x->status.scheduled_at_wall_ns > y->status.scheduled_at_wall_ns ? -1 : 1;
    }
    int c = strcmp(queue_text(x->meta.ns), queue_text(y->meta.ns));
    return c != 0 ? c : strcmp(x->meta.name, y->meta.name);
}

/* What is left of the node once all that is held for r and not used by it is taken. */
struct space {
    struct amounts left;
    struct amounts own; /* of what is held, not used yet */
};

static struct space space_of(const struct at_reservation *r, const struct at_node *node)
{
    struct space s = {.left = amounts_of(node->status.allocatable != NULL ? node->status.allocatable
                                                                          : node->status.capacity)};
    s.own = r->spec.resources != NULL ? amounts_of(r->spec.resources) : s.left;
    return s;
}

static bool is_negative(const struct space *s, const struct amounts *wanted)
{
    for (int k = 0; k < AMOUNTS; k++) {
        int64_t own = s->own.of[k] > 0 ? s->own.of[k] : 0;
        if (s->left.of[k] - own < 0 && wanted->of[k] > 0) {
            return true;
        }
    }
    return false;
}

static bool may_end(const struct at_snapshot *snap, struct at_map *budgets,
                    const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    if (owner == NULL || !at_disruption_is_available(i)) {
        return true;
    }
    int64_t *left = at_map_get(budgets, queue_text(owner->uid));
    if (left == NULL) {
        left = AT_NEW(int64_t);
        *left = at_disruption_left(snap, i);
        (void)at_map_put(budgets, queue_text(owner->uid), left);
    }
    if (*left <= 0) {
        return false;
    }
    *left -= *left != AT_DISRUPTION_UNLIMITED;
    return true;
}

static enum at_rc find_victims(const struct at_snapshot *snap, const struct at_reservation *r,
                               struct at_arena *arena, struct at_reserve_plan *plan)
{
    struct at_map *spaces = at_map_new();
    struct at_map *budgets = at_map_new();
    const struct at_instance **others =
        at_arena_alloc(arena, (snap->n_instances + 1) * sizeof(*others));
    const struct at_instance **victims =
        at_arena_alloc(arena, (snap->n_instances + 1) * sizeof(*victims));
    struct space *list = at_arena_alloc(arena, (plan->n_nodes + 1) * sizeof(*list));
    bool ok = others != NULL && victims != NULL && list != NULL;
    size_t n = 0;
    for (size_t i = 0; ok && i < plan->n_nodes; i++) {
        list[i] = space_of(r, at_snapshot_node(snap, plan->nodes[i]));
        (void)at_map_put(spaces, plan->nodes[i], &list[i]);
    }
    for (size_t i = 0; ok && i < snap->n_instances; i++) {
        const struct at_instance *x = snap->instances[i];
        struct space *s = sched_instance_holds(x) ? at_map_get(spaces, x->spec.node_name) : NULL;
        if (s == NULL) {
            continue;
        }
        struct amounts a = wanted_by(x);
        bool own = entitles(snap, r, x);
        plan->instances += own;
        if (x->meta.deletion_wall_ns != 0 && !own) {
            continue; /* on its way out */
        }
        add(&s->left, &a, -1);
        add(&s->own, &a, own ? -1 : 0);
        if (!own) {
            others[n++] = x;
        }
    }
    if (ok && n > 0) {
        qsort(others, n, sizeof(*others), least_worth);
    }
    bool acts = plan->phase == AT_RESERVE_ACTIVE && r->spec.evict;
    for (size_t i = 0; ok && acts && i < n; i++) {
        struct space *s = at_map_get(spaces, others[i]->spec.node_name);
        struct amounts a = wanted_by(others[i]);
        if ((r->spec.resources == NULL || is_negative(s, &a)) &&
            may_end(snap, budgets, others[i])) {
            add(&s->left, &a, +1);
            victims[plan->n_victims++] = others[i];
        }
    }
    plan->victims = victims;
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(budgets, &it, &key, &value);) {
        at_free(value);
    }
    at_map_free(budgets);
    at_map_free(spaces);
    return ok ? AT_OK : AT_NOMEM;
}

enum at_rc at_reserve_look(const struct at_snapshot *snap, const struct at_reservation *r,
                           int64_t now, struct at_arena *arena, struct at_reserve_plan *ret_plan)
{
    struct at_reserve_plan plan = {0};
    if (is_over(r, now)) {
        plan.phase = AT_RESERVE_EXPIRED;
        plan.message = "it is over";
        *ret_plan = plan;
        return AT_OK;
    }
    enum at_rc rc = choose(snap, r, now, arena, &plan);
    rc = rc == AT_OK ? find_victims(snap, r, arena, &plan) : rc;
    if (rc == AT_OK) {
        plan.next_wall_ns = now < r->spec.from_wall_ns ? r->spec.from_wall_ns : r->spec.to_wall_ns;
        *ret_plan = plan;
    }
    return rc;
}

/* --- what placement sees --- */

struct partial { /* a node of which a part is held */
    const char *node;
    struct space space;
};
struct held {
    const struct at_reservation *r;
    bool whole;
    struct partial *parts; /* by node; when not whole */
};
struct at_reserve {
    const struct at_snapshot *snap;
    struct at_arena *arena;
    int64_t now;
    struct held *held;
    size_t n;
    size_t n_nodes;        /* of all */
    struct at_map *by_key; /* which reservations keep it away -> struct at_model_strings * */
};

static bool load_parts(struct at_reserve *v, struct held *h)
{
    const struct at_model_strings *nodes = &h->r->status.nodes;
    struct at_map *by_node = at_map_new();
    h->parts = at_arena_alloc(v->arena, (nodes->n + 1) * sizeof(*h->parts));
    for (size_t i = 0; h->parts != NULL && i < nodes->n; i++) {
        const struct at_node *node = at_snapshot_node(v->snap, nodes->items[i]);
        h->parts[i].node = nodes->items[i];
        if (node != NULL) {
            h->parts[i].space = space_of(h->r, node);
            (void)at_map_put(by_node, nodes->items[i], &h->parts[i]);
        }
    }
    for (size_t i = 0; h->parts != NULL && i < v->snap->n_instances; i++) {
        const struct at_instance *x = v->snap->instances[i];
        struct partial *p = sched_instance_holds(x) ? at_map_get(by_node, x->spec.node_name) : NULL;
        if (p != NULL) {
            struct amounts a = wanted_by(x);
            add(&p->space.left, &a, -1);
            add(&p->space.own, &a, entitles(v->snap, h->r, x) ? -1 : 0);
        }
    }
    at_map_free(by_node);
    return h->parts != NULL;
}

struct at_reserve *at_reserve_new(const struct at_snapshot *snap, int64_t now,
                                  struct at_arena *arena)
{
    struct at_reserve *v = at_arena_alloc(arena, sizeof(*v));
    struct held *held = at_arena_alloc(arena, (snap->n_reservations + 1) * sizeof(*held));
    if (v == NULL || held == NULL) {
        return NULL;
    }
    *v = (struct at_reserve){.snap = snap, .arena = arena, .now = now, .held = held};
    for (size_t i = 0; i < snap->n_reservations; i++) {
        const struct at_reservation *r = snap->reservations[i];
        if (is_over(r, now) || r->status.nodes.n == 0) {
            continue;
        }
        struct held *h = &held[v->n++];
        *h = (struct held){.r = r, .whole = r->spec.resources == NULL};
        v->n_nodes += r->status.nodes.n;
        if (!h->whole && !load_parts(v, h)) {
            return NULL;
        }
    }
    v->by_key = at_map_new();
    return v;
}

void at_reserve_done(struct at_reserve *v)
{
    if (v != NULL) {
        at_map_free(v->by_key);
        v->by_key = NULL;
    }
}

static bool keeps_away(const struct at_reserve *v, const struct held *h,
                       const struct at_instance *i)
{
    return !entitles(v->snap, h->r, i) && end_of(v->snap, i, v->now) > h->r->spec.from_wall_ns;
}

static bool part_refuses(const struct partial *p, const struct amounts *wanted)
{
    for (int k = 0; k < AMOUNTS; k++) {
        int64_t own = p->space.own.of[k] > 0 ? p->space.own.of[k] : 0;
        if (wanted->of[k] > 0 && p->space.left.of[k] - own < wanted->of[k]) {
            return true;
        }
    }
    return false;
}

/* Nodes of the reservations that keep all of them away; made once for each set of these. */
static const struct at_model_strings *whole_nodes(struct at_reserve *v, const bool *away)
{
    char *key = at_arena_alloc(v->arena, v->n + 1);
    struct at_model_strings *list = NULL;
    if (key == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < v->n; i++) {
        key[i] = away[i] && v->held[i].whole ? '1' : '0';
    }
    list = at_map_get(v->by_key, key);
    if (list != NULL) {
        return list;
    }
    list = at_arena_alloc(v->arena, sizeof(*list));
    const char **names = at_arena_alloc(v->arena, (v->n_nodes + 1) * sizeof(*names));
    if (list == NULL || names == NULL) {
        return NULL;
    }
    list->items = names;
    for (size_t i = 0; i < v->n; i++) {
        for (size_t k = 0; key[i] == '1' && k < v->held[i].r->status.nodes.n; k++) {
            list->items[list->n++] = v->held[i].r->status.nodes.items[k];
        }
    }
    (void)at_map_put(v->by_key, key, list);
    return list;
}

/* The list with those nodes held in part that have too little left for it; of the others, what it
 * might take is taken. */
static const struct at_model_strings *with_parts(struct at_reserve *v, const bool *away,
                                                 const struct at_model_strings *whole,
                                                 const struct at_instance *instance)
{
    struct amounts wanted = wanted_by(instance);
    struct at_model_strings *list = NULL;
    for (size_t i = 0; i < v->n; i++) {
        const struct held *h = &v->held[i];
        for (size_t k = 0; away[i] && !h->whole && k < h->r->status.nodes.n; k++) {
            if (!part_refuses(&h->parts[k], &wanted)) {
                add(&h->parts[k].space.left, &wanted, -1);
                continue;
            }
            if (list == NULL) {
                list = at_arena_alloc(v->arena, sizeof(*list));
                const char **names = at_arena_alloc(v->arena, (v->n_nodes + 1) * sizeof(*names));
                if (list == NULL || names == NULL) {
                    return NULL;
                }
                memcpy(names, whole->items, whole->n * sizeof(*names));
                *list = (struct at_model_strings){names, whole->n};
            }
            list->items[list->n++] = h->parts[k].node;
        }
    }
    return list != NULL ? list : whole;
}

static struct at_expression *with_expression(struct at_arena *arena,
                                             const struct at_node_term *term, const char *key,
                                             const char *operator,
                                             const struct at_model_strings * names)
{
    size_t n = term != NULL ? term->match_expressions.n : 0;
    struct at_expression *list = at_arena_alloc(arena, (n + 1) * sizeof(*list));
    if (list != NULL) {
        if (n > 0) {
            memcpy(list, term->match_expressions.items, n * sizeof(*list));
        }
        list[n] = (struct at_expression){.key = key, .operator= operator};
        list[n].values = *names;
    }
    return list;
}

/* Each of the required terms, or one that is made, with one expression more. */
static bool require(struct at_arena *arena, struct at_node_affinity *a, const char *key,
                    const char *operator, const struct at_model_strings * names)
{
    size_t n = a->required.n;
    struct at_node_term *terms = at_arena_alloc(arena, (n + 1) * sizeof(*terms));
    for (size_t i = 0; terms != NULL && (i < n || i == 0); i++) {
        const struct at_node_term *term = i < n ? &a->required.items[i] : NULL;
        terms[i].match_expressions.items = with_expression(arena, term, key, operator, names);
        terms[i].match_expressions.n = (term != NULL ? term->match_expressions.n : 0) + 1;
        if (terms[i].match_expressions.items == NULL) {
            return false;
        }
    }
    a->required.items = terms;
    a->required.n = n > 0 ? n : 1;
    return terms != NULL;
}

/* One more preferred term. */
static bool prefer(struct at_arena *arena, struct at_node_affinity *a,
                   const struct at_model_strings *names)
{
    size_t n = a->preferred.n;
    struct at_node_term *terms = at_arena_alloc(arena, (n + 1) * sizeof(*terms));
    if (terms == NULL) {
        return false;
    }
    if (n > 0) {
        memcpy(terms, a->preferred.items, n * sizeof(*terms));
    }
    terms[n].weight = DRAWN_WEIGHT;
    terms[n].match_expressions.items = with_expression(arena, NULL, KEY_HOSTNAME, "In", names);
    terms[n].match_expressions.n = 1;
    a->preferred.items = terms;
    a->preferred.n = n + 1;
    return terms[n].match_expressions.items != NULL;
}

/* A copy of the instance with an affinity of its own. */
static struct at_instance *with_affinity(const struct at_instance *instance, struct at_arena *arena,
                                         struct at_node_affinity **ret_affinity)
{
    struct at_instance *i = at_arena_alloc(arena, sizeof(*i));
    struct at_placement *place = at_arena_alloc(arena, sizeof(*place));
    struct at_node_affinity *affinity = at_arena_alloc(arena, sizeof(*affinity));
    if (i == NULL || place == NULL || affinity == NULL) {
        return NULL;
    }
    *i = *instance;
    if (instance->spec.placement != NULL) {
        *place = *instance->spec.placement;
    }
    if (place->node_affinity != NULL) {
        *affinity = *place->node_affinity;
    }
    place->node_affinity = affinity;
    i->spec.placement = place;
    *ret_affinity = affinity;
    return i;
}

const struct at_instance *at_reserve_pin(const struct at_instance *instance, const char *node,
                                         struct at_arena *arena)
{
    struct at_node_affinity *affinity;
    const char **name = at_arena_alloc(arena, sizeof(*name));
    struct at_instance *i = name != NULL ? with_affinity(instance, arena, &affinity) : NULL;
    if (i == NULL) {
        return NULL;
    }
    *name = node;
    struct at_model_strings names = {name, 1};
    return require(arena, affinity, KEY_HOSTNAME, "In", &names) ? i : NULL;
}

const struct at_instance *at_reserve_narrow(struct at_reserve *v,
                                            const struct at_instance *instance, size_t *ret_kept,
                                            const struct at_reservation **ret_example)
{
    struct at_model_strings drawn = {0};
    bool *away = at_arena_alloc(v->arena, v->n + 1);
    *ret_kept = 0;
    *ret_example = NULL;
    for (size_t i = 0; away != NULL && i < v->n; i++) {
        const struct at_reservation *r = v->held[i].r;
        away[i] = keeps_away(v, &v->held[i], instance);
        *ret_example = away[i] && *ret_example == NULL ? r : *ret_example;
        if (drawn.n == 0 && v->now >= r->spec.from_wall_ns && entitles(v->snap, r, instance)) {
            drawn = r->status.nodes;
        }
    }
    const struct at_model_strings *kept = away != NULL ? whole_nodes(v, away) : NULL;
    kept = kept != NULL ? with_parts(v, away, kept, instance) : NULL;
    if (kept == NULL) {
        return NULL;
    }
    *ret_kept = kept->n;
    if (kept->n == 0 && drawn.n == 0) {
        return instance;
    }
    struct at_node_affinity *affinity;
    struct at_instance *i = with_affinity(instance, v->arena, &affinity);
    bool ok = i != NULL &&
              (kept->n == 0 || require(v->arena, affinity, SCHED_KEY_HELD, "NotIn", kept)) &&
              (drawn.n == 0 || prefer(v->arena, affinity, &drawn));
    return ok ? i : NULL;
}
