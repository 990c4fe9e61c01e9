/* Why a pending instance is pending, beyond the count of refusals: what is missing least, and what
 * would make room. Each node is looked at by every rule, not only by the first that refuses. */
#include "scheduler/engine.h"
#include "scheduler/near.h"
#include "scheduler/room.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define REMEDIES_MAX 8
#define ROOM_NODES_MAX 3 /* nodes whose lack is told */
#define TAINTS_MAX 4
#define BIT(rule) (UINT64_C(1) << (rule))
#define ROOM_BITS                                                                                  \
    (BIT(AT_SCHED_CPU) | BIT(AT_SCHED_MEMORY) | BIT(AT_SCHED_DISK) | BIT(AT_SCHED_GPU) |           \
     BIT(AT_SCHED_GPU_MEMORY) | BIT(AT_SCHED_EXTENDED))

_Static_assert(AT_SCHED_RULE_COUNT < 64, "a bit for each rule");

/* How easily a rule's refusal is lifted; less is nearer. What is short has its own measure. */
static const int EASE[AT_SCHED_RULE_COUNT] = {
    [AT_SCHED_CORDONED] = 10,    [AT_SCHED_NODE_NOT_READY] = 20, [AT_SCHED_TAINT] = 30,
    [AT_SCHED_SITE_LIMIT] = 45,  [AT_SCHED_SPREAD] = 50,         [AT_SCHED_SPREAD_RULE] = 50,
    [AT_SCHED_AFFINITY] = 55,    [AT_SCHED_ANTI_AFFINITY] = 55,  [AT_SCHED_DRIVER] = 60,
    [AT_SCHED_SELECTOR] = 65,    [AT_SCHED_NODE_AFFINITY] = 65,  [AT_SCHED_TOPOLOGY] = 70,
    [AT_SCHED_GPU_MODEL] = 75,   [AT_SCHED_SITE] = 80,           [AT_SCHED_SITE_CLASS] = 80,
    [AT_SCHED_REGION] = 80,      [AT_SCHED_PROVIDER] = 80,       [AT_SCHED_JURISDICTION] = 85,
    [AT_SCHED_GPU_SHARING] = 62, [AT_SCHED_POLICY] = 95,         [AT_SCHED_RESIDENCY] = 100,
    [AT_SCHED_RESERVED] = 90,
};
#define EASE_ROOM 40
#define EASE_OTHER 60
#define EASE_TOO_SMALL 300

struct miss {
    const struct sched_node *node;
    uint64_t bits;
    int ways;     /* rules that refuse; all that is short counts once */
    int64_t lack; /* of what is short most, in thousandths of what is asked for */
    int64_t cost;
    bool small; /* even when empty */
};
struct taint_count {
    const struct at_taint *taint;
    size_t nodes;
};
struct survey {
    struct sched *s;
    const struct sched_turn *turn;
    struct miss best;
    struct miss room[ROOM_NODES_MAX]; /* only room is missing, the least first */
    size_t n_room;
    size_t solo[AT_SCHED_RULE_COUNT]; /* nodes that only this rule refuses */
    const struct sched_node *solo_first[AT_SCHED_RULE_COUNT];
    struct taint_count taints[TAINTS_MAX];
    size_t n_taints;
    size_t large_enough; /* nodes that could hold it when empty */
    bool near;           /* there are rules about other instances, policies or limits */
    struct at_sched_remedy *remedies;
    size_t n_remedies;
    bool nomem;
};

/* --- what is short on a node --- */

struct lacks {
    int64_t cpu_milli, memory_bytes, disk_bytes;
    int64_t gpus, gpu_milli, gpu_memory_bytes;
    bool extended; /* some of those that are named */
};

/* On a node that is over-committed also what others have too much. */
static int64_t lack(int64_t free_now, int64_t wanted)
{
    return wanted > 0 && free_now < wanted ? wanted - free_now : 0;
}

/* Of GPUs with room, the memory of the one that is last when those with the most are taken. */
static int64_t memory_of_last(const int64_t *memory, size_t n, int64_t count)
{
    int64_t last = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t larger = 0, equal = 0;
        for (size_t k = 0; k < n; k++) {
            larger += memory[k] > memory[i];
            equal += memory[k] == memory[i];
        }
        last = larger < count && larger + equal >= count ? memory[i] : last;
    }
    return last;
}

static void gpu_lacks(const struct sched_node *n, const struct sched_demand *d, struct lacks *out)
{
    int64_t memory[AT_SCHED_GPUS_PER_NODE];
    int64_t fitting = 0;
    size_t with_room = 0;
    const struct sched_gpu *most = NULL; /* left, of those of the right model */
    for (size_t i = 0; i < n->n_gpus && !n->gpus_unknown; i++) {
        const struct sched_gpu *g = &n->gpus[i];
        if (!sched_gpu_fits_model(g, d)) {
            continue;
        }
        struct sched_gpu_room room = sched_gpu_room(g, d);
        if (room.milli >= d->gpu_milli) {
            memory[with_room++] = room.memory_bytes;
            fitting += room.memory_bytes >= d->gpu_memory_bytes;
        }
        most = most == NULL || g->free_milli > most->free_milli ? g : most;
    }
    if (fitting >= d->gpu_count) {
        return;
    }
    if ((int64_t)with_room >= d->gpu_count) {
        out->gpu_memory_bytes =
            d->gpu_memory_bytes - memory_of_last(memory, with_room, d->gpu_count);
    } else if (d->gpu_milli < AT_SCHED_GPU_MILLI && most != NULL && most->free_milli > 0) {
        out->gpu_milli = lack(most->free_milli, d->gpu_milli);
        out->gpu_memory_bytes = lack(most->free_memory_bytes, d->gpu_memory_bytes);
    } else {
        out->gpus = d->gpu_count - fitting;
    }
}

static int64_t extended_lack(const struct sched_node *n, const struct at_model_kv *wanted)
{
    return lack(sched_extended_free(n, wanted->key), sched_amount(wanted->value));
}

static struct lacks lacks_of(const struct sched_node *n, const struct sched_demand *d)
{
    struct lacks l = {
        .cpu_milli = lack(n->cpu_milli, d->cpu_milli),
        .memory_bytes = lack(n->memory_bytes, d->memory_bytes),
        .disk_bytes = lack(n->disk_bytes, d->disk_bytes),
    };
    if (d->gpu_count > 0) {
        gpu_lacks(n, d, &l);
    }
    for (size_t i = 0; d->extended != NULL && i < d->extended->n; i++) {
        l.extended = l.extended || extended_lack(n, &d->extended->items[i]) > 0;
    }
    return l;
}

static int64_t share(int64_t lacking, int64_t wanted)
{
    return wanted > 0 ? (int64_t)((__int128)lacking * 1000 / wanted) : 0;
}

static int64_t worst(const struct lacks *l, const struct sched_demand *d)
{
    const int64_t shares[] = {
        share(l->cpu_milli, d->cpu_milli),
        share(l->memory_bytes, d->memory_bytes),
        share(l->disk_bytes, d->disk_bytes),
        share(l->gpus, d->gpu_count),
        share(l->gpu_milli, d->gpu_milli),
        share(l->gpu_memory_bytes, d->gpu_memory_bytes),
        l->extended ? 1000 : 0,
    };
    int64_t most = 0;
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        most = shares[i] > most ? shares[i] : most;
    }
    return most;
}

/* "500m cpu, 2Gi memory and 1 GPU" */
struct list_text {
    struct sched *s;
    const char *parts[8 + AT_SCHED_EXTENDED_MAX];
    size_t n;
};

static void list_add(struct list_text *l, const char *text)
{
    if (text != NULL && l->n < sizeof l->parts / sizeof l->parts[0]) {
        l->parts[l->n++] = text;
    }
}
static void list_milli(struct list_text *l, int64_t milli, const char *what)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    if (milli > 0) {
        list_add(
            l, at_arena_printf(l->s->arena, "%s %s", at_quantity_format_milli(milli, text), what));
    }
}
static void list_bytes(struct list_text *l, int64_t bytes, const char *what)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    if (bytes > 0) {
        list_add(
            l, at_arena_printf(l->s->arena, "%s %s", at_quantity_format_bytes(bytes, text), what));
    }
}
static const char *list_done(const struct list_text *l)
{
    const char *text = l->n > 0 ? l->parts[0] : "nothing";
    for (size_t i = 1; i < l->n && text != NULL; i++) {
        text = at_arena_printf(l->s->arena, "%s%s%s", text, i + 1 == l->n ? " and " : ", ",
                               l->parts[i]);
    }
    return text;
}

static const char *lacks_text(struct sched *s, const struct sched_node *n,
                              const struct sched_demand *d)
{
    struct lacks l = lacks_of(n, d);
    struct list_text list = {.s = s};
    list_milli(&list, l.cpu_milli, "cpu");
    list_bytes(&list, l.memory_bytes, "memory");
    list_bytes(&list, l.disk_bytes, "disk");
    list_milli(&list, l.gpus * 1000, l.gpus == 1 ? "GPU" : "GPUs");
    list_milli(&list, l.gpu_milli, "of one GPU");
    list_bytes(&list, l.gpu_memory_bytes, "of GPU memory");
    for (size_t i = 0; l.extended && i < d->extended->n; i++) {
        int64_t amount = extended_lack(n, &d->extended->items[i]);
        if (amount > 0) {
            list_add(&list, at_arena_printf(s->arena, "%lld %s", (long long)amount,
                                            d->extended->items[i].key));
        }
    }
    return list_done(&list);
}

/* "1 node more with 2 GPUs of 24Gi and 4 cpu" */
static const char *wanted_text(struct sched *s, const struct sched_demand *d)
{
    struct list_text list = {.s = s};
    if (d->gpu_count > 0) {
        char count[AT_UNITS_TEXT_BYTES_MAX], memory[AT_UNITS_TEXT_BYTES_MAX];
        at_quantity_format_milli(d->gpu_count * d->gpu_milli, count);
        const char *model =
            d->gpu_models != NULL && d->gpu_models->n > 0 ? d->gpu_models->items[0] : "";
        list_add(&list,
                 at_arena_printf(
                     s->arena, "%s %s%sGPU%s%s%s", count, model, model[0] != '\0' ? " " : "",
                     d->gpu_count * d->gpu_milli == AT_SCHED_GPU_MILLI ? "" : "s",
                     d->gpu_memory_bytes > 0 ? " of " : "",
                     d->gpu_memory_bytes > 0 ? at_quantity_format_bytes(d->gpu_memory_bytes, memory)
                                             : ""));
    }
    list_milli(&list, d->cpu_milli, "cpu");
    list_bytes(&list, d->memory_bytes, "memory");
    list_bytes(&list, d->disk_bytes, "disk");
    for (size_t i = 0; d->extended != NULL && i < d->extended->n; i++) {
        list_add(&list, at_arena_printf(s->arena, "%s %s", d->extended->items[i].value,
                                        d->extended->items[i].key));
    }
    return list.n > 0 ? list_done(&list) : NULL;
}

/* --- every rule on one node --- */

static uint64_t static_bits(const struct sched *s, const struct sched_turn *t,
                            const struct sched_node *n)
{
    const struct at_workload *spec = t->request->spec;
    const struct at_placement *p = spec->placement;
    const char *jurisdiction = n->site != NULL ? n->site->spec.jurisdiction : NULL;
    uint64_t bits = n->not_ready != NULL ? BIT(AT_SCHED_NODE_NOT_READY) : 0;
    bits |= n->node->spec.unschedulable ? BIT(AT_SCHED_CORDONED) : 0;
    bits |= sched_taint_refusing(n->node, p) != NULL ? BIT(AT_SCHED_TAINT) : 0;
    if (p != NULL) {
        bits |= sched_selector_refuses(p, n->node) ? BIT(AT_SCHED_SELECTOR) : 0;
        bits |= sched_node_affinity_holds(p->node_affinity, n->node, n->site) ? 0
                : sched_node_is_held(p->node_affinity, n->node, n->site)
                    ? BIT(AT_SCHED_RESERVED)
                    : BIT(AT_SCHED_NODE_AFFINITY);
        bits |= sched_places_refusing(p, n);
    }
    bits |= sched_residency_refusing(s->snap, spec->data_class, jurisdiction) != NULL
                ? BIT(AT_SCHED_RESIDENCY)
                : 0;
    bits |= sched_sharing_refuses(n->node, spec) ? BIT(AT_SCHED_GPU_SHARING) : 0;
    return bits |
           (sched_driver_is_ready(n->node, sched_driver_wanted(spec)) ? 0 : BIT(AT_SCHED_DRIVER));
}

/* Labels of its nodeSelector that the node does not have. */
static int labels_lacking(const struct sched_turn *t, const struct sched_node *n)
{
    int lacking = 0;
    const struct at_model_map *want = &t->request->spec->placement->node_selector;
    for (size_t i = 0; i < want->n; i++) {
        lacking += !at_streq(at_model_map_get(&n->node->meta.labels, want->items[i].key),
                             want->items[i].value);
    }
    return lacking;
}

static bool gpus_lack(const struct lacks *l)
{
    return l->gpus > 0 || l->gpu_milli > 0 || l->gpu_memory_bytes > 0;
}

static uint64_t room_bits(const struct sched_turn *t, const struct sched_node *n,
                          const struct lacks *l)
{
    const struct sched_demand *d = &t->request->demand;
    uint64_t bits = (l->cpu_milli > 0 ? BIT(AT_SCHED_CPU) : 0) |
                    (l->memory_bytes > 0 ? BIT(AT_SCHED_MEMORY) : 0) |
                    (l->disk_bytes > 0 ? BIT(AT_SCHED_DISK) : 0) |
                    (l->extended ? BIT(AT_SCHED_EXTENDED) : 0);
    enum at_sched_rule gpu = gpus_lack(l) ? sched_gpu_check(n, d) : AT_SCHED_RULE_COUNT;
    if (gpu != AT_SCHED_RULE_COUNT) {
        return bits | BIT(gpu);
    }
    return bits | (sched_topology_refuses(n, d) ? BIT(AT_SCHED_TOPOLOGY) : 0);
}

/* Nothing that comes or goes could make the node large enough. */
static bool too_small(const struct sched_node *n, const struct sched_demand *d,
                      const struct lacks *l)
{
    if ((d->cpu_milli > 0 && n->cap_cpu_milli < d->cpu_milli) ||
        (d->memory_bytes > 0 && n->cap_memory_bytes < d->memory_bytes) ||
        (d->disk_bytes > 0 && n->cap_disk_bytes < d->disk_bytes)) {
        return true;
    }
    for (size_t i = 0; l->extended && i < d->extended->n; i++) {
        const char *name = d->extended->items[i].key;
        if (sched_extended_cap(n, name) < sched_amount(d->extended->items[i].value)) {
            return true;
        }
    }
    int64_t gpus = 0;
    for (size_t i = 0; gpus_lack(l) && i < n->n_gpus; i++) {
        struct sched_gpu empty = n->gpus[i];
        empty.free_milli = empty.cap_milli;
        empty.free_memory_bytes = empty.memory_bytes;
        gpus += sched_gpu_fits(&empty, d);
    }
    return gpus_lack(l) && gpus < d->gpu_count;
}

/* In a full cluster most nodes lack room only: what is kept of the request spares their labels. */
static struct miss miss_of(struct survey *v, const struct sched_node *n)
{
    const struct sched_turn *t = v->turn;
    struct lacks l = lacks_of(n, &t->request->demand);
    struct miss m = {.node = n, .lack = worst(&l, &t->request->demand)};
    m.small = too_small(n, &t->request->demand, &l);
    bool eligible = sched_is_eligible(t->request, n->pos);
    m.bits = (eligible ? 0 : static_bits(v->s, t, n)) | room_bits(t, n, &l);
    enum at_sched_rule first = sched_turn_refusal(v->s, t, n);
    m.bits |= first != AT_SCHED_RULE_COUNT ? BIT(first) : 0;
    int more = 0;
    m.bits |= v->near ? sched_near_rules_at(v->s, t, n, &more) : 0;
    m.bits |= sched_skew_refuses(v->s, t, n) ? BIT(AT_SCHED_SPREAD) : 0;
    uint64_t others = m.bits & ~ROOM_BITS;
    m.ways = __builtin_popcountll(others) + ((m.bits & ROOM_BITS) != 0) + more;
    m.ways += (m.bits & BIT(AT_SCHED_SELECTOR)) != 0 ? labels_lacking(t, n) - 1 : 0;
    if ((m.bits & ROOM_BITS) != 0) {
        m.cost += EASE_ROOM + m.lack / 20 + (m.small ? EASE_TOO_SMALL : 0);
    }
    for (; others != 0; others &= others - 1) {
        int k = __builtin_ctzll(others);
        m.cost += EASE[k] > 0 ? EASE[k] : EASE_OTHER;
    }
    return m;
}

/* --- over all nodes --- */

static void keep_room(struct survey *v, const struct miss *m)
{
    size_t at = v->n_room;
    while (at > 0 && v->room[at - 1].lack > m->lack) {
        at--;
    }
    if (at == ROOM_NODES_MAX) {
        return;
    }
    v->n_room += v->n_room < ROOM_NODES_MAX;
    memmove(&v->room[at + 1], &v->room[at], (v->n_room - 1 - at) * sizeof v->room[0]);
    v->room[at] = *m;
}

static void keep_taint(struct survey *v, const struct sched_node *n)
{
    const struct at_placement *p = v->turn->request->spec->placement;
    const struct at_taint *only = sched_taint_refusing(n->node, p);
    for (size_t i = 0; i < n->node->spec.taints.n; i++) {
        const struct at_taint *taint = &n->node->spec.taints.items[i];
        if (taint != only && !at_streq(taint->effect, "PreferNoSchedule") &&
            !at_sched_tolerates(p, taint)) {
            return; /* more than one is in the way */
        }
    }
    for (size_t k = 0; k < v->n_taints; k++) {
        if (at_streq(v->taints[k].taint->key, only->key) &&
            at_streq(v->taints[k].taint->value, only->value)) {
            v->taints[k].nodes++;
            return;
        }
    }
    if (v->n_taints < TAINTS_MAX) {
        v->taints[v->n_taints++] = (struct taint_count){only, 1};
    }
}

static void look_at(struct survey *v, const struct sched_node *n)
{
    struct miss m = miss_of(v, n);
    v->large_enough += !m.small;
    if (v->best.node == NULL || m.ways < v->best.ways ||
        (m.ways == v->best.ways && m.cost < v->best.cost)) {
        v->best = m;
    }
    if (m.ways != 1) {
        return;
    }
    if ((m.bits & ROOM_BITS) != 0) {
        if (!m.small) {
            keep_room(v, &m);
        }
        return;
    }
    int rule = __builtin_ctzll(m.bits);
    if (v->solo[rule]++ == 0) {
        v->solo_first[rule] = n;
    }
    if (rule == AT_SCHED_TAINT) {
        keep_taint(v, n);
    }
}

/* --- sentences --- */

static const char *taint_text(struct sched *s, const struct at_taint *t)
{
    bool value = t->value != NULL && t->value[0] != '\0';
    return at_arena_printf(s->arena, "%s%s%s", t->key, value ? "=" : "", value ? t->value : "");
}

static const char *say_solo(struct survey *v, const struct sched_node *n, enum at_sched_rule rule)
{
    struct at_arena *arena = v->s->arena;
    const char *name = n->node->meta.name;
    switch (rule) {
    case AT_SCHED_CORDONED:
        return at_arena_printf(arena, "it would fit on %s, were that not cordoned", name);
    case AT_SCHED_NODE_NOT_READY:
        return at_arena_printf(arena, "it would fit on %s, were that ready (%s)", name,
                               n->not_ready);
    case AT_SCHED_TAINT:
        if (v->n_taints > 0) {
            return at_arena_printf(arena, "without the taint %s it would fit on %zu node%s",
                                   taint_text(v->s, v->taints[0].taint), v->taints[0].nodes,
                                   v->taints[0].nodes == 1 ? "" : "s");
        }
        return at_arena_printf(arena, "without its taints it would fit on %s", name);
    default: {
        const char *why = sched_why_refused(v->s, v->turn, n, rule);
        return why != NULL
                   ? at_arena_printf(arena, "on %s only one thing is in the way: %s", name, why)
                   : NULL;
    }
    }
}

static const char *say_lack(struct survey *v, const struct sched_node *n)
{
    const char *what = lacks_text(v->s, n, &v->turn->request->demand);
    return what != NULL ? at_arena_printf(v->s->arena, "%s lacks %s", n->node->meta.name, what)
                        : NULL;
}

static const char *say_several(struct survey *v)
{
    const struct miss *m = &v->best;
    const char *text = at_arena_printf(v->s->arena, "%s is nearest, where %d things are in the way",
                                       m->node->node->meta.name, m->ways);
    const char *sep = ": ";
    for (int k = 0; k < AT_SCHED_RULE_COUNT && text != NULL; k++) {
        if ((m->bits & BIT(k)) != 0) {
            const char *why = sched_why_refused(v->s, v->turn, m->node, (enum at_sched_rule)k);
            text = why != NULL ? at_arena_printf(v->s->arena, "%s%s%s", text, sep, why) : NULL;
            sep = "; ";
        }
    }
    return text;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static const char *say_never_extended(struct survey *v)
{
    const struct at_model_map *extended = v->turn->request->demand.extended;
    for (size_t k = 0; extended != NULL && k < extended->n; k++) {
        const struct at_model_kv *e = &extended->items[k];
        int64_t top = 0;
        for (size_t i = 0; i < v->s->n_nodes; i++) {
            top = most(top, sched_extended_cap(v->s->by_rank[i], e->key));
        }
        if (top < sched_amount(e->value)) {
            return at_arena_printf(v->s->arena,
                                   "no node is large enough, even when empty: the largest has %lld "
                                   "%s, %s wanted",
                                   (long long)top, e->key, e->value);
        }
    }
    return "no node is large enough, even when empty: none has all of it together";
}

static const char *say_never(struct survey *v)
{
    const struct sched_demand *d = &v->turn->request->demand;
    struct sched_node top = {0};
    int64_t gpu_memory = 0; /* of one */
    for (size_t i = 0; i < v->s->n_nodes; i++) {
        const struct sched_node *n = v->s->by_rank[i];
        top.cap_cpu_milli = most(top.cap_cpu_milli, n->cap_cpu_milli);
        top.cap_memory_bytes = most(top.cap_memory_bytes, n->cap_memory_bytes);
        top.cap_disk_bytes = most(top.cap_disk_bytes, n->cap_disk_bytes);
        top.n_gpus = n->n_gpus > top.n_gpus ? n->n_gpus : top.n_gpus;
        for (size_t g = 0; g < n->n_gpus; g++) {
            gpu_memory = most(gpu_memory, n->gpus[g].memory_bytes);
        }
    }
    char have[AT_UNITS_TEXT_BYTES_MAX], want[AT_UNITS_TEXT_BYTES_MAX];
    const char *what = NULL;
    if (top.cap_cpu_milli < d->cpu_milli) {
        what = "cpu";
        at_quantity_format_milli(top.cap_cpu_milli, have);
        at_quantity_format_milli(d->cpu_milli, want);
    } else if (top.cap_memory_bytes < d->memory_bytes) {
        what = "memory";
        at_quantity_format_bytes(top.cap_memory_bytes, have);
        at_quantity_format_bytes(d->memory_bytes, want);
    } else if (top.cap_disk_bytes < d->disk_bytes) {
        what = "disk";
        at_quantity_format_bytes(top.cap_disk_bytes, have);
        at_quantity_format_bytes(d->disk_bytes, want);
    } else if ((int64_t)top.n_gpus < d->gpu_count) {
        what = d->gpu_count == 1 ? "GPU" : "GPUs";
        at_quantity_format_milli((int64_t)top.n_gpus * 1000, have);
        at_quantity_format_milli(d->gpu_count * 1000, want);
    } else if (gpu_memory < d->gpu_memory_bytes) {
        what = "memory on a GPU";
        at_quantity_format_bytes(gpu_memory, have);
        at_quantity_format_bytes(d->gpu_memory_bytes, want);
    }
    if (what == NULL) {
        return say_never_extended(v);
    }
    return at_arena_printf(v->s->arena,
                           "no node is large enough, even when empty: the largest has %s %s, %s "
                           "wanted",
                           have, what, want);
}

static const char *say_nearest(struct survey *v)
{
    const struct miss *m = &v->best;
    if (v->large_enough == 0) {
        return say_never(v);
    }
    if (m->ways > 1) {
        return say_several(v);
    }
    if ((m->bits & ROOM_BITS) != 0) {
        return say_lack(v, v->n_room > 0 ? v->room[0].node : m->node);
    }
    return say_solo(v, m->node, (enum at_sched_rule)__builtin_ctzll(m->bits));
}

/* --- what would make room --- */

static void add_remedy(struct survey *v, struct at_sched_remedy r)
{
    if (r.message == NULL) {
        v->nomem = true;
    } else if (v->n_remedies < REMEDIES_MAX) {
        v->remedies[v->n_remedies++] = r;
    }
}

static const char *kind_of(int rule)
{
    switch (rule) {
    case AT_SCHED_SELECTOR:
    case AT_SCHED_NODE_AFFINITY:
        return "Label";
    case AT_SCHED_SITE:
    case AT_SCHED_SITE_CLASS:
    case AT_SCHED_JURISDICTION:
    case AT_SCHED_REGION:
    case AT_SCHED_PROVIDER:
        return "Site";
    case AT_SCHED_POLICY:
    case AT_SCHED_RESIDENCY:
        return "Policy";
    case AT_SCHED_SPREAD:
    case AT_SCHED_SPREAD_RULE:
        return "Spread";
    case AT_SCHED_AFFINITY:
    case AT_SCHED_ANTI_AFFINITY:
        return "Affinity";
    case AT_SCHED_SITE_LIMIT:
        return "SiteLimit";
    case AT_SCHED_DRIVER:
        return "Driver";
    case AT_SCHED_TOPOLOGY:
    case AT_SCHED_GPU_MODEL:
        return "Capacity";
    default:
        return "Node";
    }
}

static void add_preempt(struct survey *v, const struct sched_node *n)
{
    struct at_sched_remedy r = {0};
    v->nomem = sched_find_makers(v->s, v->turn, n, &r) != AT_OK || v->nomem;
    if (r.message != NULL) {
        add_remedy(v, r);
    }
}

static void add_solo(struct survey *v, int rule)
{
    const struct sched_node *n = v->solo_first[rule];
    if (rule == AT_SCHED_TAINT) {
        for (size_t k = 0; k < v->n_taints; k++) {
            add_remedy(v, (struct at_sched_remedy){
                              .kind = "Taint",
                              .message = at_arena_printf(
                                  v->s->arena, "without the taint %s it would fit on %zu node%s",
                                  taint_text(v->s, v->taints[k].taint), v->taints[k].nodes,
                                  v->taints[k].nodes == 1 ? "" : "s"),
                              .nodes = v->taints[k].nodes,
                          });
        }
        return;
    }
    add_remedy(v, (struct at_sched_remedy){.kind = kind_of(rule),
                                           .message = say_solo(v, n, (enum at_sched_rule)rule),
                                           .node = n->node->meta.name,
                                           .nodes = v->solo[rule]});
}

/* Where a new node would have to be, when the request says so. */
static const char *place_text(struct sched *s, const struct at_placement *p)
{
    const struct {
        const struct at_model_strings *list;
        const char *word;
    } rows[] = {
        {p != NULL ? &p->sites : NULL, "at site"},
        {p != NULL ? &p->site_classes : NULL, "at a site of class"},
        {p != NULL ? &p->regions : NULL, "in region"},
        {p != NULL ? &p->providers : NULL, "at provider"},
        {p != NULL ? &p->jurisdictions : NULL, "in jurisdiction"},
    };
    const char *text = "";
    for (size_t i = 0; text != NULL && i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].list != NULL && rows[i].list->n > 0) {
            text =
                at_arena_printf(s->arena, "%s %s %s%s", text, rows[i].word, rows[i].list->items[0],
                                rows[i].list->n > 1 ? " (or another of its list)" : "");
        }
    }
    return text;
}

/* What else it would have to be: GPUs near to each other, labels. */
static const char *kind_text(struct sched *s, const struct sched_request *r, bool first)
{
    const struct at_placement *p = r->spec->placement;
    const char *text = r->demand.gpu_count < 2                          ? ""
                       : r->demand.topology == SCHED_TOPOLOGY_SAME_LINK ? " of one link group"
                       : r->demand.topology == SCHED_TOPOLOGY_SAME_NUMA ? " of one NUMA node"
                                                                        : "";
    for (size_t i = 0; text != NULL && p != NULL && i < p->node_selector.n; i++) {
        text = at_arena_printf(s->arena, "%s%s%s=%s", text,
                               i > 0   ? ", "
                               : first ? " with the label "
                                       : " and the label ",
                               p->node_selector.items[i].key, p->node_selector.items[i].value);
    }
    if (text != NULL && p != NULL && p->node_affinity != NULL && p->node_affinity->required.n > 0) {
        text = at_arena_printf(s->arena, "%s that its nodeAffinity means", text);
    }
    return text;
}

/* May a node that joins there, with nothing on it, take the instance? */
static bool is_open_to_new(const struct survey *v, size_t at)
{
    const struct sched_site *site = v->s->sites[at];
    const struct at_workload *spec = v->turn->request->spec;
    const struct at_node object = {.spec.site = (char *)(uintptr_t)site->name};
    const struct sched_node joins = {
        .node = &object, .site = site->site, .site_index = (uint32_t)at};
    const char *jurisdiction = site->site != NULL ? site->site->spec.jurisdiction : NULL;
    return v->turn->others_refused == AT_SCHED_RULE_COUNT &&
           v->turn->sites[at].refusal == AT_SCHED_RULE_COUNT &&
           (spec->placement == NULL ||
            sched_refuse_place(spec->placement, &joins) == AT_SCHED_RULE_COUNT) &&
           sched_residency_refusing(v->s->snap, spec->data_class, jurisdiction) == NULL;
}

/* " at site a": where a node more would help; "": at all that there are; NULL: nowhere. */
static const char *site_text(struct survey *v)
{
    const struct at_placement *p = v->turn->request->spec->placement;
    const char *first = NULL;
    size_t open = 0, meant = 0; /* sites that its lists mean */
    for (size_t i = 0; i < v->s->n_sites; i++) {
        const struct sched_site *site = v->s->sites[i];
        const struct at_node object = {.spec.site = (char *)(uintptr_t)site->name};
        const struct sched_node joins = {.node = &object, .site = site->site};
        meant += p == NULL || sched_refuse_place(p, &joins) == AT_SCHED_RULE_COUNT;
        if (is_open_to_new(v, i)) {
            first = open++ == 0 ? site->name : first;
        }
    }
    if (open == meant) { /* all; or none that there is, yet */
        return place_text(v->s, p);
    }
    return open > 0 ? at_arena_printf(v->s->arena, " at site %s", first) : NULL;
}

static void add_node(struct survey *v)
{
    const char *what = wanted_text(v->s, &v->turn->request->demand);
    const char *kind = kind_text(v->s, v->turn->request, what == NULL);
    const char *where = site_text(v);
    if (where == NULL) {
        return; /* rules about other instances, sites or data are in the way */
    }
    if (kind == NULL) {
        v->nomem = true;
        return;
    }
    add_remedy(v, (struct at_sched_remedy){
                      .kind = "Node",
                      .message = at_arena_printf(v->s->arena, "1 node more%s%s%s%s would do",
                                                 what != NULL ? " with " : "",
                                                 what != NULL ? what : "", kind, where),
                      .nodes = 1,
                  });
}

static void find_remedies(struct survey *v)
{
    for (size_t k = 0; k < v->n_room; k++) {
        add_remedy(v, (struct at_sched_remedy){.kind = "Capacity",
                                               .message = say_lack(v, v->room[k].node),
                                               .node = v->room[k].node->node->meta.name,
                                               .nodes = 1});
        add_preempt(v, v->room[k].node);
    }
    for (int ease = 0; ease <= 100; ease += 5) { /* the easiest first */
        for (int rule = 0; rule < AT_SCHED_RULE_COUNT; rule++) {
            int of_rule = EASE[rule] > 0 ? EASE[rule] : EASE_OTHER;
            if (v->solo[rule] > 0 && of_rule == ease && v->n_remedies < REMEDIES_MAX - 1) {
                add_solo(v, rule);
            }
        }
    }
    add_node(v);
}

/* --- --- */

enum at_rc sched_find_nearest(struct sched *s, const struct sched_turn *turn,
                              struct at_sched_decision *d)
{
    struct survey v = {.s = s, .turn = turn};
    v.remedies = at_arena_alloc(s->arena, sizeof *v.remedies * REMEDIES_MAX);
    if (v.remedies == NULL) {
        return AT_NOMEM;
    }
    v.near = turn->n_near > 0 || s->snap->n_policies > 0;
    for (size_t i = 0; i < s->n_sites; i++) {
        v.near = v.near || (s->sites[i]->site != NULL && s->sites[i]->site->spec.limits != NULL);
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        look_at(&v, s->by_rank[i]);
    }
    if (s->n_nodes > 0) {
        d->nearest = say_nearest(&v);
        v.nomem = v.nomem || d->nearest == NULL;
        d->never = d->never || v.large_enough == 0;
    }
    find_remedies(&v);
    d->remedies = v.remedies;
    d->n_remedies = v.n_remedies;
    return v.nomem ? AT_NOMEM : AT_OK;
}
