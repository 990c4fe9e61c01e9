#include "scheduler/tally.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define put(out_, ...)                                                                             \
    do {                                                                                           \
        enum at_rc rc_ = at_buf_printf((out_), __VA_ARGS__);                                       \
        assert(rc_ == AT_OK); /* objects are far smaller than a buffer may be */                   \
    } while (0)

#define LABEL_BYTES_MAX 400                 /* a key of 317 bytes at most and a value of 63 */
#define ARENA_BYTES_MAX ((size_t)512 << 20) /* of copies of selectors; each distinct one once */

struct sched_tally {
    struct at_arena *arena;    /* matchers, keepers, copies of selectors */
    struct at_map *matchers;   /* by key */
    struct at_map *by_label;   /* "key=value" -> the first of a list of matchers that need it */
    struct at_map *by_group;   /* group -> matcher */
    struct sched_matcher *any; /* those that need no fixed label */
    struct at_map *sites;      /* name -> struct sched_site_use */
};

struct sched_tally *sched_tally_new(void)
{
    struct sched_tally *t = AT_NEW(struct sched_tally);
    *t = (struct sched_tally){
        .arena = at_arena_new(ARENA_BYTES_MAX),
        .matchers = at_map_new(),
        .by_label = at_map_new(),
        .by_group = at_map_new(),
        .sites = at_map_new(),
    };
    return t;
}

void sched_tally_free(struct sched_tally *t)
{
    if (t == NULL) {
        return;
    }
    void *value;
    for (size_t it = 0; at_map_next(t->matchers, &it, NULL, &value);) {
        struct sched_matcher *m = value;
        at_map_free(m->by_node);
        at_map_free(m->by_site);
        for (size_t k = 0; k < SCHED_LEVEL_COUNT; k++) {
            at_map_free(m->keepers[k] != NULL ? m->keepers[k]->by_place : NULL);
        }
    }
    at_map_free(t->matchers);
    at_map_free(t->by_label);
    at_map_free(t->by_group);
    at_map_free(t->sites);
    at_arena_free(t->arena);
    at_free(t);
}

/* --- keys: what is written alike is counted once --- */

static void put_values(const struct at_model_strings *list, struct at_buf *out)
{
    for (size_t i = 0; i < list->n; i++) {
        put(out, "%s%s", i > 0 ? ", " : "", list->items[i]);
    }
}

static void put_expression(const struct at_expression *e, struct at_buf *out)
{
    if (at_streq(e->operator, "Exists") || at_streq(e->operator, "DoesNotExist")) {
        put(out, "%s%s", at_streq(e->operator, "Exists") ? "" : "!", e->key);
        return;
    }
    const char *word = at_streq(e->operator, "In")      ? "in"
                       : at_streq(e->operator, "NotIn") ? "notin"
                       : at_streq(e->operator, "Gt")    ? ">"
                                                        : "<";
    bool set = word[0] == 'i' || word[0] == 'n';
    put(out, "%s %s %s", e->key, word, set ? "(" : "");
    put_values(&e->values, out);
    put(out, "%s", set ? ")" : "");
}

static void put_selector(const struct at_label_selector *selector, struct at_buf *out)
{
    size_t labels = selector->match_labels.n;
    for (size_t i = 0; i < labels; i++) {
        const struct at_model_kv *label = &selector->match_labels.items[i];
        put(out, "%s%s=%s", i > 0 ? ", " : "", label->key, label->value);
    }
    for (size_t i = 0; i < selector->match_expressions.n; i++) {
        put(out, "%s", labels + i > 0 ? ", " : "");
        put_expression(&selector->match_expressions.items[i], out);
    }
    if (labels + selector->match_expressions.n == 0) {
        put(out, "anything");
    }
}

const char *sched_selector_text(const struct at_label_selector *selector, struct at_arena *arena)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    put_selector(selector, &text);
    return at_arena_strdup(arena, text.data);
}

/* Namespaces empty: the instance's own. */
static void put_selector_key(const struct at_label_selector *selector,
                             const struct at_model_strings *namespaces, const char *ns,
                             struct at_buf *out)
{
    if (namespaces->n > 0) {
        put_values(namespaces, out);
    } else {
        put(out, "%s", ns != NULL ? ns : "");
    }
    put(out, "|");
    put_selector(selector, out);
}

/* Copies of one owner and template; an instance without an owner is a group of its own. */
static void put_group_key(const struct at_instance *i, struct at_buf *out)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    const char *ns = i->meta.ns != NULL ? i->meta.ns : "";
    if (owner == NULL) {
        put(out, "-|%s|%s", ns, i->meta.name);
        return;
    }
    const char *hash = at_model_map_get(&i->meta.labels, "atoll.dev/template-hash");
    put(out, "%s|%s|%s|%s|%s", owner->kind != NULL ? owner->kind : "", ns,
        owner->name != NULL ? owner->name : "", owner->uid != NULL ? owner->uid : "",
        hash != NULL ? hash : "");
}

/* --- copies that outlive the snapshot --- */

static struct at_model_strings copy_strings(const struct at_model_strings *list,
                                            struct at_arena *arena)
{
    struct at_model_strings out = {at_arena_alloc(arena, sizeof(char *) * (list->n + 1)), list->n};
    for (size_t i = 0; i < list->n; i++) {
        out.items[i] = at_arena_strdup(arena, list->items[i]);
    }
    return out;
}

static const struct at_label_selector *copy_selector(const struct at_label_selector *from,
                                                     struct at_arena *arena)
{
    struct at_label_selector *to = at_arena_alloc(arena, sizeof *to);
    size_t n = from->match_labels.n;
    to->match_labels.items = at_arena_alloc(arena, sizeof(struct at_model_kv) * (n + 1));
    to->match_labels.n = n;
    for (size_t i = 0; i < n; i++) {
        to->match_labels.items[i].key = at_arena_strdup(arena, from->match_labels.items[i].key);
        to->match_labels.items[i].value = at_arena_strdup(arena, from->match_labels.items[i].value);
    }
    n = from->match_expressions.n;
    to->match_expressions.items = at_arena_alloc(arena, sizeof(struct at_expression) * (n + 1));
    to->match_expressions.n = n;
    for (size_t i = 0; i < n; i++) {
        const struct at_expression *e = &from->match_expressions.items[i];
        to->match_expressions.items[i] = (struct at_expression){
            .key = at_arena_strdup(arena, e->key),
            .operator= at_arena_strdup(arena, e->operator),
            .values = copy_strings(&e->values, arena),
        };
    }
    return to;
}

/* --- matchers and keepers --- */

static struct sched_matcher *matcher_new(struct sched_tally *t, const char *key)
{
    struct sched_matcher *m = at_arena_alloc(t->arena, sizeof *m);
    m->key = at_arena_strdup(t->arena, key);
    m->by_node = at_map_new();
    m->by_site = at_map_new();
    (void)at_map_put(t->matchers, key, m);
    return m;
}

static struct sched_matcher *matcher_of_selector(struct sched_tally *t,
                                                 const struct at_label_selector *selector,
                                                 const struct at_model_strings *namespaces,
                                                 const char *ns)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    put_selector_key(selector, namespaces, ns, &text);
    struct sched_matcher *m = at_map_get(t->matchers, text.data);
    if (m != NULL) {
        return m;
    }
    m = matcher_new(t, text.data);
    m->selector = copy_selector(selector, t->arena);
    const char *own = ns != NULL ? ns : "";
    struct at_model_strings one = {&own, 1};
    m->namespaces = copy_strings(namespaces->n > 0 ? namespaces : &one, t->arena);
    if (selector->match_labels.n == 0) {
        m->next = t->any;
        t->any = m;
        return m;
    }
    const struct at_model_kv *label = &m->selector->match_labels.items[0];
    at_buf_clear(&text);
    put(&text, "%s=%s", label->key, label->value);
    m->next = at_map_get(t->by_label, text.data);
    (void)at_map_put(t->by_label, text.data, m);
    return m;
}

/* No selector's key begins like this one. */
static struct sched_matcher *matcher_of_group(struct sched_tally *t, const struct at_instance *i)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    put_group_key(i, &text);
    struct sched_matcher *m = at_map_get(t->by_group, text.data);
    if (m == NULL) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
        put(&key, "| %s", text.data);
        m = matcher_new(t, key.data);
        m->group = at_arena_strdup(t->arena, text.data);
        (void)at_map_put(t->by_group, text.data, m);
    }
    return m;
}

static struct sched_keeper *keeper_of(struct sched_tally *t, const struct at_affinity_term *term,
                                      const char *ns)
{
    struct sched_matcher *m = matcher_of_selector(t, term->label_selector, &term->namespaces, ns);
    enum sched_level level = sched_level_of(term->topology, SCHED_LEVEL_NODE);
    struct sched_keeper *k = m->keepers[level];
    if (k == NULL) {
        k = at_arena_alloc(t->arena, sizeof *k);
        *k = (struct sched_keeper){.matcher = m, .level = level, .by_place = at_map_new()};
        m->keepers[level] = k;
    }
    return k;
}

static bool want_counts(struct sched_matcher *m)
{
    bool news = !m->counted;
    m->counted = true;
    return news;
}

bool sched_tally_learn(struct sched_tally *t, const struct at_instance *i)
{
    const struct at_placement *p = i->spec.placement;
    if (p == NULL || (p->affinity == NULL && p->anti_affinity == NULL && p->spread.n == 0)) {
        return false;
    }
    const struct at_affinity *both[] = {p->affinity, p->anti_affinity};
    bool news = false;
    for (size_t b = 0; b < 2; b++) {
        for (size_t k = 0; both[b] != NULL && k < both[b]->required.n + both[b]->preferred.n; k++) {
            const struct at_affinity_term *term =
                k < both[b]->required.n ? &both[b]->required.items[k]
                                        : &both[b]->preferred.items[k - both[b]->required.n];
            news |= want_counts(
                matcher_of_selector(t, term->label_selector, &term->namespaces, i->meta.ns));
        }
    }
    static const struct at_model_strings own = {0};
    for (size_t k = 0; k < p->spread.n; k++) {
        const struct at_label_selector *selector = p->spread.items[k].label_selector;
        news |= want_counts(selector != NULL ? matcher_of_selector(t, selector, &own, i->meta.ns)
                                             : matcher_of_group(t, i));
    }
    return news;
}

void sched_tally_reset(struct sched_tally *t)
{
    void *value;
    for (size_t it = 0; at_map_next(t->matchers, &it, NULL, &value);) {
        struct sched_matcher *m = value;
        at_map_clear(m->by_node);
        at_map_clear(m->by_site);
        m->total = 0;
        for (size_t k = 0; k < SCHED_LEVEL_COUNT; k++) {
            if (m->keepers[k] != NULL) {
                at_map_clear(m->keepers[k]->by_place);
                m->keepers[k]->total = 0;
            }
        }
    }
    for (size_t it = 0; at_map_next(t->sites, &it, NULL, &value);) {
        uint64_t version = ((struct sched_site_use *)value)->version;
        *(struct sched_site_use *)value = (struct sched_site_use){.version = version + 1};
    }
}

/* --- counting --- */

int64_t sched_tally_count(const struct at_map *counts, const char *name)
{
    return name != NULL ? (int64_t)(intptr_t)at_map_get(counts, name) : 0;
}

static void count(struct at_map *counts, const char *name, int sign)
{
    int64_t now = sched_tally_count(counts, name) + sign;
    assert(now >= 0);
    if (now == 0) {
        (void)at_map_remove(counts, name);
    } else {
        (void)at_map_put(counts, name, (void *)(intptr_t)now);
    }
}

bool sched_matcher_means(const struct sched_matcher *m, const struct at_instance *i)
{
    if (m->group != NULL) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        put_group_key(i, &text);
        return strcmp(m->group, text.data) == 0;
    }
    bool in_namespace = false;
    for (size_t k = 0; k < m->namespaces.n && !in_namespace; k++) {
        in_namespace = at_streq(m->namespaces.items[k], "*") ||
                       at_streq(m->namespaces.items[k], i->meta.ns != NULL ? i->meta.ns : "");
    }
    return in_namespace && sched_labels_match(m->selector, &i->meta.labels);
}

static void count_matcher(struct sched_matcher *m, const char *node_name, const char *site_name,
                          int sign)
{
    if (m->counted) {
        count(m->by_node, node_name, sign);
        count(m->by_site, site_name, sign);
        m->total += sign;
        m->version++;
    }
}

static void count_list(struct sched_matcher *first, const struct at_instance *i,
                       const char *node_name, const char *site_name, int sign)
{
    for (struct sched_matcher *m = first; m != NULL; m = m->next) {
        if (m->counted && sched_matcher_means(m, i)) {
            count_matcher(m, node_name, site_name, sign);
        }
    }
}

static void count_matchers(struct sched_tally *t, const struct at_instance *i,
                           const char *node_name, const char *site_name, int sign)
{
    count_list(t->any, i, node_name, site_name, sign);
    for (size_t k = 0; at_map_count(t->by_label) > 0 && k < i->meta.labels.n; k++) {
        char text[LABEL_BYTES_MAX];
        snprintf(text, sizeof text, "%s=%s", i->meta.labels.items[k].key,
                 i->meta.labels.items[k].value);
        count_list(at_map_get(t->by_label, text), i, node_name, site_name, sign);
    }
    if (at_map_count(t->by_group) > 0) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        put_group_key(i, &text);
        struct sched_matcher *m = at_map_get(t->by_group, text.data);
        if (m != NULL) {
            count_matcher(m, node_name, site_name, sign);
        }
    }
}

static void count_keepers(struct sched_tally *t, const struct at_instance *i, const char *node_name,
                          const char *site_name, int sign)
{
    const struct at_affinity *anti =
        i->spec.placement != NULL ? i->spec.placement->anti_affinity : NULL;
    if (anti == NULL || anti->required.n == 0) {
        return;
    }
    for (size_t k = 0; k < anti->required.n; k++) {
        struct sched_keeper *keeper = keeper_of(t, &anti->required.items[k], i->meta.ns);
        count(keeper->by_place, keeper->level == SCHED_LEVEL_NODE ? node_name : site_name, sign);
        keeper->total += sign;
        keeper->version++;
    }
}

static void count_use(struct sched_tally *t, const struct at_instance *i, const char *site_name,
                      int sign)
{
    struct sched_site_use *use = at_map_get(t->sites, site_name);
    if (use == NULL) {
        use = at_arena_alloc(t->arena, sizeof *use);
        (void)at_map_put(t->sites, site_name, use);
    }
    const struct at_resources *r = i->spec.resources;
    use->instances += sign;
    use->version++;
    if (r != NULL) {
        use->cpu_milli += sign * r->cpu_milli;
        use->memory_bytes += sign * r->memory_bytes;
        use->gpu_milli += sign * r->gpu_milli;
    }
}

void sched_tally_changed(struct sched_tally *t, const struct at_instance *i, const char *node_name,
                         const char *site_name, int sign)
{
    assert(sign == 1 || sign == -1);
    const char *site = site_name != NULL ? site_name : "";
    count_matchers(t, i, node_name, site, sign);
    count_keepers(t, i, node_name, site, sign);
    count_use(t, i, site, sign);
}

/* --- look-up --- */

static const struct sched_matcher *find(const struct sched_tally *t,
                                        const struct at_label_selector *selector,
                                        const struct at_model_strings *namespaces, const char *ns)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    put_selector_key(selector, namespaces, ns, &text);
    return at_map_get(t->matchers, text.data);
}

const struct sched_matcher *sched_tally_of_term(const struct sched_tally *t,
                                                const struct at_affinity_term *term, const char *ns)
{
    return find(t, term->label_selector, &term->namespaces, ns);
}

const struct sched_matcher *sched_tally_of_spread(const struct sched_tally *t,
                                                  const struct at_spread_rule *rule,
                                                  const struct at_instance *instance)
{
    static const struct at_model_strings own = {0};
    if (rule->label_selector != NULL) {
        return find(t, rule->label_selector, &own, instance->meta.ns);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    put_group_key(instance, &text);
    return at_map_get(t->by_group, text.data);
}

static void visit(const struct sched_matcher *first, const struct at_instance *instance,
                  sched_keeper_fn *fn, void *ctx)
{
    for (const struct sched_matcher *m = first; m != NULL; m = m->next) {
        bool any = false;
        for (size_t k = 0; k < SCHED_LEVEL_COUNT; k++) {
            any = any || (m->keepers[k] != NULL && m->keepers[k]->total > 0);
        }
        for (size_t k = 0; any && sched_matcher_means(m, instance) && k < SCHED_LEVEL_COUNT; k++) {
            if (m->keepers[k] != NULL && m->keepers[k]->total > 0) {
                fn(ctx, m->keepers[k]);
            }
        }
    }
}

void sched_tally_keepers(const struct sched_tally *t, const struct at_instance *instance,
                         sched_keeper_fn *fn, void *ctx)
{
    visit(t->any, instance, fn, ctx);
    for (size_t k = 0; at_map_count(t->by_label) > 0 && k < instance->meta.labels.n; k++) {
        char text[LABEL_BYTES_MAX];
        snprintf(text, sizeof text, "%s=%s", instance->meta.labels.items[k].key,
                 instance->meta.labels.items[k].value);
        visit(at_map_get(t->by_label, text), instance, fn, ctx);
    }
}

struct sched_site_use sched_tally_site_use(const struct sched_tally *t, const char *site_name)
{
    const struct sched_site_use *use = at_map_get(t->sites, site_name != NULL ? site_name : "");
    return use != NULL ? *use : (struct sched_site_use){0};
}
