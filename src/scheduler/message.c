/* Sentences: why here, why nowhere. */
#include "scheduler/engine.h"
#include "scheduler/near.h"

#include <assert.h>
#include <string.h>

/* "a, b, c and 4 more" */
static const char *join(struct sched *s, const struct at_model_strings *list)
{
    const char *text = "";
    for (size_t i = 0; i < list->n && i < 3 && text != NULL; i++) {
        text = at_arena_printf(s->arena, "%s%s%s", text, i > 0 ? ", " : "", list->items[i]);
    }
    if (text != NULL && list->n > 3) {
        text = at_arena_printf(s->arena, "%s and %zu more", text, list->n - 3);
    }
    return text;
}

/* What is said of decisions that find a place, a hundred thousand times a second, is put together
 * by hand. */
struct line {
    char text[2048]; /* three names of 253 bytes at most, and some 50 bytes an objective */
    size_t len;
};

static void add(struct line *l, const char *text)
{
    size_t len = strlen(text), room = sizeof l->text - 1 - l->len;
    len = len < room ? len : room;
    memcpy(l->text + l->len, text, len);
    l->len += len;
}

static void add_number(struct line *l, int64_t number)
{
    char digits[24];
    size_t at = sizeof digits - 1;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    add(l, number < 0 ? "-" : "");
    add(l, digits + at);
}

static const char *line_text(struct sched *s, const struct line *l)
{
    return at_arena_strndup(s->arena, l->text, l->len);
}

/* "have of what free, want wanted" */
static const char *too_few(struct sched *s, const char *have, const char *what, const char *want)
{
    struct line l;
    l.len = 0;
    add(&l, have);
    add(&l, what);
    add(&l, " free, ");
    add(&l, want);
    add(&l, " wanted");
    return line_text(s, &l);
}

static const char *milli_short(struct sched *s, int64_t free_now, int64_t wanted, const char *what)
{
    char have[AT_UNITS_TEXT_BYTES_MAX];
    char want[AT_UNITS_TEXT_BYTES_MAX];
    return too_few(s, at_quantity_format_milli(free_now > 0 ? free_now : 0, have), what,
                   at_quantity_format_milli(wanted, want));
}

static const char *bytes_short(struct sched *s, int64_t free_now, int64_t wanted, const char *what)
{
    char have[AT_UNITS_TEXT_BYTES_MAX];
    char want[AT_UNITS_TEXT_BYTES_MAX];
    return too_few(s, at_quantity_format_bytes(free_now > 0 ? free_now : 0, have), what,
                   at_quantity_format_bytes(wanted, want));
}

static const char *why_selector(struct sched *s, const struct sched_node *n,
                                const struct at_placement *p)
{
    for (size_t i = 0; i < p->node_selector.n; i++) {
        const struct at_model_kv *want = &p->node_selector.items[i];
        const char *have = at_model_map_get(&n->node->meta.labels, want->key);
        if (have == NULL) {
            return at_arena_printf(s->arena, "label %s=%s missing", want->key, want->value);
        }
        if (!at_streq(have, want->value)) {
            return at_arena_printf(s->arena, "label %s is %s, %s wanted", want->key, have,
                                   want->value);
        }
    }
    return "label missing";
}

static const char *why_driver(struct sched *s, const struct sched_node *n,
                              const struct at_workload *spec)
{
    const char *driver = sched_driver_wanted(spec);
    for (size_t i = 0; i < n->node->status.drivers.n; i++) {
        const struct at_node_driver *d = &n->node->status.drivers.items[i];
        if (at_streq(d->name, driver) && d->message != NULL) {
            return at_arena_printf(s->arena, "driver %s: %s", driver, d->message);
        }
    }
    return at_arena_printf(s->arena, "driver %s is not there", driver);
}

static const char *why_sharing(struct sched *s, const struct sched_node *n,
                               const struct at_workload *spec)
{
    const char *own = n->node->spec.gpu_sharing;
    const char *mode = spec->gpu_sharing != NULL ? spec->gpu_sharing->mode : NULL;
    own = own == NULL || own[0] == '\0' ? "Share" : own;
    if (at_streq(mode, "MIG")) {
        return "no GPU there is divided by MIG";
    }
    const char *lacks = sched_sharing_lacks(n->node, spec);
    if (lacks != NULL && (mode == NULL || mode[0] == '\0' || at_streq(mode, own))) {
        return at_arena_printf(s->arena, "%s", lacks);
    }
    return at_streq(own, "Exclusive")
               ? "its GPUs are given whole only"
               : at_arena_printf(s->arena, "GPUs are shared by %s, wanted %s", own, mode);
}

static const char *why_gpu(struct sched *s, const struct sched_node *n,
                           const struct sched_demand *d, enum at_sched_rule rule)
{
    char want[AT_UNITS_TEXT_BYTES_MAX];
    at_quantity_format_milli(d->gpu_count * d->gpu_milli, want);
    if (rule == AT_SCHED_GPU_MODEL && d->gpu_models == NULL) {
        return at_arena_printf(s->arena, "fewer than %lld parts made by MIG",
                               (long long)d->gpu_count);
    }
    if (rule == AT_SCHED_GPU_MODEL) {
        const char *model =
            n->n_gpus > 0 && n->gpus[0].model != NULL ? n->gpus[0].model : "unknown";
        return at_arena_printf(s->arena, "GPU model %s, wanted %s", model, join(s, d->gpu_models));
    }
    if (rule == AT_SCHED_GPU_MEMORY) {
        int64_t most = 0;
        for (size_t i = 0; i < n->n_gpus; i++) {
            most = n->gpus[i].free_memory_bytes > most ? n->gpus[i].free_memory_bytes : most;
        }
        return bytes_short(s, most, d->gpu_memory_bytes, " of GPU memory");
    }
    if (n->gpus_unknown) {
        return at_arena_printf(s->arena, "GPUs over-committed, %s wanted", want);
    }
    if (d->gpu_milli < AT_SCHED_GPU_MILLI) {
        int64_t most = 0;
        for (size_t i = 0; i < n->n_gpus; i++) {
            most = n->gpus[i].free_milli > most ? n->gpus[i].free_milli : most;
        }
        return milli_short(s, most, d->gpu_milli, " of one GPU");
    }
    int64_t whole = 0;
    for (size_t i = 0; i < n->n_gpus; i++) {
        whole += n->gpus[i].free_milli == AT_SCHED_GPU_MILLI;
    }
    char have[AT_UNITS_TEXT_BYTES_MAX];
    return too_few(s, at_quantity_format_milli(whole * AT_SCHED_GPU_MILLI, have), " whole GPUs",
                   want);
}

static const char *why_extended(struct sched *s, const struct sched_node *n,
                                const struct sched_demand *d)
{
    for (size_t i = 0; i < d->extended->n; i++) {
        int64_t wanted = sched_amount(d->extended->items[i].value);
        int64_t free_now = sched_extended_free(n, d->extended->items[i].key);
        if (free_now < wanted) {
            return at_arena_printf(s->arena, "%lld %s free, %lld wanted",
                                   (long long)(free_now > 0 ? free_now : 0),
                                   d->extended->items[i].key, (long long)wanted);
        }
    }
    return "another resource is short";
}

static const char *why_resource(struct sched *s, const struct sched_node *n,
                                const struct sched_demand *d, enum at_sched_rule rule)
{
    switch (rule) {
    case AT_SCHED_CPU:
        return milli_short(s, n->cpu_milli, d->cpu_milli, " cpu");
    case AT_SCHED_MEMORY:
        return bytes_short(s, n->memory_bytes, d->memory_bytes, " memory");
    case AT_SCHED_DISK:
        return bytes_short(s, n->disk_bytes, d->disk_bytes, " disk");
    case AT_SCHED_EXTENDED:
        return why_extended(s, n, d);
    default:
        return why_gpu(s, n, d, rule);
    }
}

/* Of the first alternative; the others are no nearer in any way that can be told. */
static const char *why_affinity(struct sched *s, const struct sched_node *n,
                                const struct at_placement *p)
{
    const struct at_expression *e =
        sched_term_refusing(&p->node_affinity->required.items[0], n->node, n->site);
    assert(e != NULL);
    const char *have = sched_node_label(n->node, n->site, e->key);
    struct at_label_selector one = {.match_expressions = {(struct at_expression *)e, 1}};
    return at_arena_printf(s->arena, "label %s is %s, wanted %s", e->key,
                           have != NULL ? have : "absent", sched_selector_text(&one, s->arena));
}

static const char *why_topology(struct sched *s, const struct sched_node *n,
                                const struct sched_demand *d)
{
    bool fits[AT_SCHED_GPUS_PER_NODE];
    const char *group =
        d->topology == SCHED_TOPOLOGY_SAME_LINK ? "in one link group" : "on one NUMA node";
    for (size_t i = 0; i < n->n_gpus; i++) {
        fits[i] = sched_gpu_fits(&n->gpus[i], d);
    }
    size_t most = sched_topology_most(n->node, d->topology, fits, n->n_gpus);
    if ((int64_t)most >= d->gpu_count) {
        return "no NUMA node has the CPUs and memory wanted";
    }
    return at_arena_printf(s->arena, "%zu fitting GPU%s %s, %lld wanted", most,
                           most == 1 ? "" : "s", group, (long long)d->gpu_count);
}

static const char *why_site(struct sched *s, const struct sched_node *n,
                            const struct at_workload *spec, enum at_sched_rule rule)
{
    const struct at_placement *p = spec->placement;
    const char *class = n->site != NULL ? n->site->spec.class : "unknown";
    const char *jurisdiction = n->site != NULL ? n->site->spec.jurisdiction : "unknown";
    switch (rule) {
    case AT_SCHED_SITE:
        return at_arena_printf(s->arena, "site %s is not one of %s", n->node->spec.site,
                               join(s, &p->sites));
    case AT_SCHED_SITE_CLASS:
        return at_arena_printf(s->arena, "site class %s is not one of %s", class,
                               join(s, &p->site_classes));
    case AT_SCHED_JURISDICTION:
        return at_arena_printf(s->arena, "jurisdiction %s is not one of %s", jurisdiction,
                               join(s, &p->jurisdictions));
    case AT_SCHED_REGION:
        return at_arena_printf(
            s->arena, "region %s is not one of %s",
            n->site != NULL && n->site->spec.region != NULL ? n->site->spec.region : "unknown",
            join(s, &p->regions));
    case AT_SCHED_PROVIDER:
        return at_arena_printf(
            s->arena, "provider %s is not one of %s",
            n->site != NULL && n->site->spec.provider != NULL ? n->site->spec.provider : "unknown",
            join(s, &p->providers));
    default:
        return at_arena_printf(s->arena, "jurisdiction %s not allowed for data class %s",
                               jurisdiction, spec->data_class);
    }
}

/* NULL: out of arena. */
const char *sched_why_refused(struct sched *s, const struct sched_turn *turn,
                              const struct sched_node *n, enum at_sched_rule rule)
{
    const struct sched_request *r = turn->request;
    const struct at_workload *spec = r->spec;
    const struct at_taint *taint;
    switch (rule) {
    case AT_SCHED_NODE_NOT_READY:
        return n->not_ready;
    case AT_SCHED_CORDONED:
        return "cordoned";
    case AT_SCHED_TAINT:
        taint = sched_taint_refusing(n->node, spec->placement);
        assert(taint != NULL);
        return at_arena_printf(s->arena, "taint %s%s%s not tolerated", taint->key,
                               taint->value != NULL && taint->value[0] != '\0' ? "=" : "",
                               taint->value != NULL ? taint->value : "");
    case AT_SCHED_SELECTOR:
        return why_selector(s, n, spec->placement);
    case AT_SCHED_RESERVED:
        return "held by a reservation for others";
    case AT_SCHED_NODE_AFFINITY:
        return why_affinity(s, n, spec->placement);
    case AT_SCHED_POLICY:
    case AT_SCHED_AFFINITY:
    case AT_SCHED_ANTI_AFFINITY:
    case AT_SCHED_SPREAD_RULE:
    case AT_SCHED_SITE_LIMIT:
        return sched_near_why(s, turn, n, rule);
    case AT_SCHED_TOPOLOGY:
        return why_topology(s, n, &r->demand);
    case AT_SCHED_REGION:
    case AT_SCHED_PROVIDER:
    case AT_SCHED_SITE:
    case AT_SCHED_SITE_CLASS:
    case AT_SCHED_JURISDICTION:
    case AT_SCHED_RESIDENCY:
        return why_site(s, n, spec, rule);
    case AT_SCHED_DRIVER:
        return why_driver(s, n, spec);
    case AT_SCHED_GPU_SHARING:
        return why_sharing(s, n, spec);
    case AT_SCHED_SPREAD:
        return at_arena_printf(s->arena, "already %lld ahead of the emptiest %s",
                               (long long)spec->placement->max_skew,
                               sched_spread_by_node(spec->placement) ? "node" : "site");
    default:
        return why_resource(s, n, &r->demand, rule);
    }
}

static const char *say_placed(struct sched *s, const struct at_sched_decision *d)
{
    struct line l;
    l.len = 0;
    add(&l, "placed on ");
    add(&l, d->node->meta.name);
    add(&l, " (site ");
    add(&l, d->node->spec.site != NULL ? d->node->spec.site : "");
    const char *sep = "): ";
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        if (d->weights[k] > 0) {
            add(&l, sep);
            add(&l, at_sched_objective_name((enum at_sched_objective)k));
            add(&l, " ");
            add_number(&l, d->parts[k]);
            add(&l, "x");
            add_number(&l, d->weights[k]);
            sep = " + ";
        }
    }
    add(&l, sep[0] == ')' ? ")" : "");
    int64_t ahead = d->score - d->runner_up_score;
    if (d->runner_up == NULL) {
        add(&l, ", the only node that fits");
    } else {
        add(&l, ahead > 0 ? ", ahead of " : ", level with ");
        add(&l, d->runner_up->meta.name);
    }
    if (d->runner_up != NULL && ahead > 0) {
        add(&l, " by ");
        add_number(&l, ahead);
    }
    return line_text(s, &l);
}

static const char *say_pending(struct sched *s, const struct at_sched_decision *d)
{
    if (s->n_nodes == 0) {
        return "0 of 0 nodes fit: no node has joined yet";
    }
    const char *text =
        at_arena_printf(s->arena, "0 of %zu node%s fit", s->n_nodes, s->n_nodes == 1 ? "" : "s");
    const char *sep = ": ";
    for (int rule = 0; rule < AT_SCHED_RULE_COUNT && text != NULL; rule++) {
        if (d->refused[rule] > 0) {
            text = at_arena_printf(s->arena, "%s%s%zu %s (%s)", text, sep, d->refused[rule],
                                   at_sched_rule_name((enum at_sched_rule)rule), d->example[rule]);
            sep = ", ";
        }
    }
    return text;
}

/* Copies that wait for the same reasons are looked into once, as long as nothing is placed. */
static enum at_rc explain_pending(struct sched *s, const struct sched_turn *turn,
                                  struct at_sched_decision *d)
{
    const struct at_sched_decision *last = s->last_pending;
    bool alike =
        last != NULL && s->last_group == turn->group &&
        last->instance->spec.priority == d->instance->spec.priority &&
        at_streq(last->instance->spec.preemption_policy, d->instance->spec.preemption_policy);
    s->last_pending = d->node == NULL ? d : NULL;
    s->last_group = turn->group;
    if (d->node != NULL) {
        return AT_OK;
    }
    if (!alike) {
        return sched_find_nearest(s, turn, d);
    }
    d->nearest = last->nearest;
    d->remedies = last->remedies;
    d->n_remedies = last->n_remedies;
    d->never = d->never || last->never;
    return AT_OK;
}

static const char *named(struct sched *s, const char *name, const char *why)
{
    struct line l;
    l.len = 0;
    if (strlen(name) + strlen(why) + 3 > sizeof(l.text)) {
        return at_arena_printf(s->arena, "%s: %s", name, why);
    }
    add(&l, name);
    add(&l, ": ");
    add(&l, why);
    return line_text(s, &l);
}

enum at_rc sched_explain(struct sched *s, const struct sched_turn *turn,
                         struct at_sched_decision *decision)
{
    const struct sched_node *first[AT_SCHED_RULE_COUNT];
    sched_turn_refused(s, turn, decision->refused, first);
    for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        if (first[k] == NULL) {
            continue;
        }
        const char *why = sched_why_refused(s, turn, first[k], (enum at_sched_rule)k);
        decision->example[k] = why != NULL ? named(s, first[k]->node->meta.name, why) : NULL;
        if (decision->example[k] == NULL) {
            return AT_NOMEM;
        }
    }
    for (int k = 0; decision->node == NULL && k < AT_SCHED_RULE_COUNT; k++) {
        decision->waits_for |=
            decision->refused[k] > 0 ? at_sched_rule_waits_for((enum at_sched_rule)k) : 0;
    }
    if (s->n_nodes == 0) {
        decision->waits_for = AT_SCHED_CHANGE_NODE;
    }
    if (explain_pending(s, turn, decision) != AT_OK) {
        return AT_NOMEM;
    }
    decision->message = decision->node != NULL ? say_placed(s, decision) : say_pending(s, decision);
    return decision->message != NULL ? AT_OK : AT_NOMEM;
}
