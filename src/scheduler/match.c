#include "scheduler/match.h"

#include "core/str.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const LEVEL_NAMES[SCHED_LEVEL_COUNT] = {
    [SCHED_LEVEL_NODE] = "node",
    [SCHED_LEVEL_SITE] = "site",
    [SCHED_LEVEL_PROVIDER] = "provider",
    [SCHED_LEVEL_REGION] = "region",
    [SCHED_LEVEL_JURISDICTION] = "jurisdiction",
};

enum sched_level sched_level_of(const char *name, enum sched_level otherwise)
{
    for (int i = 0; i < SCHED_LEVEL_COUNT; i++) {
        if (at_streq(name, LEVEL_NAMES[i])) {
            return (enum sched_level)i;
        }
    }
    return otherwise;
}

const char *sched_level_name(enum sched_level level)
{
    assert(level < SCHED_LEVEL_COUNT);
    return LEVEL_NAMES[level];
}

static const char *or_null(const char *s)
{
    return s != NULL && s[0] != '\0' ? s : NULL;
}

const char *sched_level_value(enum sched_level level, const struct at_node *node,
                              const struct at_site *site, const char *site_name)
{
    switch (level) {
    case SCHED_LEVEL_NODE:
        return node != NULL ? node->meta.name : NULL;
    case SCHED_LEVEL_SITE:
        return or_null(site_name);
    case SCHED_LEVEL_PROVIDER:
        return site != NULL ? or_null(site->spec.provider) : NULL;
    case SCHED_LEVEL_REGION:
        return site != NULL ? or_null(site->spec.region) : NULL;
    case SCHED_LEVEL_JURISDICTION:
        return site != NULL ? or_null(site->spec.jurisdiction) : NULL;
    case SCHED_LEVEL_COUNT:
        break;
    }
    assert(!"a level that is none");
    return NULL;
}

static bool have(const struct at_model_strings *list, const char *s)
{
    for (size_t i = 0; s != NULL && i < list->n; i++) {
        if (at_streq(list->items[i], s)) {
            return true;
        }
    }
    return false;
}

static bool whole_number(const char *text, int64_t *ret)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        return false;
    }
    *ret = value;
    return true;
}

bool sched_expression_holds(const struct at_expression *e, const char *value)
{
    if (at_streq(e->operator, "In")) {
        return have(&e->values, value);
    }
    if (at_streq(e->operator, "NotIn")) {
        return !have(&e->values, value);
    }
    if (at_streq(e->operator, "Exists")) {
        return value != NULL;
    }
    if (at_streq(e->operator, "DoesNotExist")) {
        return value == NULL;
    }
    int64_t is;
    int64_t limit;
    if (value == NULL || e->values.n != 1 || !whole_number(value, &is) ||
        !whole_number(e->values.items[0], &limit)) {
        return false;
    }
    return at_streq(e->operator, "Gt") ? is > limit : at_streq(e->operator, "Lt") && is < limit;
}

bool sched_labels_match(const struct at_label_selector *selector, const struct at_model_map *labels)
{
    for (size_t i = 0; i < selector->match_labels.n; i++) {
        const struct at_model_kv *want = &selector->match_labels.items[i];
        if (!at_streq(at_model_map_get(labels, want->key), want->value)) {
            return false;
        }
    }
    for (size_t i = 0; i < selector->match_expressions.n; i++) {
        const struct at_expression *e = &selector->match_expressions.items[i];
        if (!sched_expression_holds(e, at_model_map_get(labels, e->key))) {
            return false;
        }
    }
    return true;
}

const char *sched_node_label(const struct at_node *node, const struct at_site *site,
                             const char *key)
{
    const char *value = at_model_map_get(&node->meta.labels, key);
    if (value != NULL) {
        return value;
    }
    const struct {
        const char *key, *value;
    } known[] = {
        {"atoll.dev/site", node->spec.site},
        {"atoll.dev/site-class", site != NULL ? site->spec.class : NULL},
        {"atoll.dev/region", site != NULL ? site->spec.region : NULL},
        {"atoll.dev/provider", site != NULL ? site->spec.provider : NULL},
        {"atoll.dev/jurisdiction", site != NULL ? site->spec.jurisdiction : NULL},
        {"kubernetes.io/arch", node->status.arch},
        {"kubernetes.io/hostname", node->meta.name},
        {SCHED_KEY_HELD, node->meta.name},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(key, known[i].key) == 0) {
            return or_null(known[i].value);
        }
    }
    return NULL;
}

const struct at_expression *sched_term_refusing(const struct at_node_term *term,
                                                const struct at_node *node,
                                                const struct at_site *site)
{
    for (size_t i = 0; i < term->match_expressions.n; i++) {
        const struct at_expression *e = &term->match_expressions.items[i];
        if (!sched_expression_holds(e, sched_node_label(node, site, e->key))) {
            return e;
        }
    }
    return NULL;
}

bool sched_node_is_held(const struct at_node_affinity *affinity, const struct at_node *node,
                        const struct at_site *site)
{
    for (size_t i = 0; affinity != NULL && i < affinity->required.n; i++) {
        const struct at_expression *e =
            sched_term_refusing(&affinity->required.items[i], node, site);
        if (e != NULL && strcmp(e->key, SCHED_KEY_HELD) == 0) {
            return true;
        }
    }
    return false;
}

bool sched_node_affinity_holds(const struct at_node_affinity *affinity, const struct at_node *node,
                               const struct at_site *site)
{
    if (affinity == NULL || affinity->required.n == 0) {
        return true;
    }
    for (size_t i = 0; i < affinity->required.n; i++) {
        if (sched_term_refusing(&affinity->required.items[i], node, site) == NULL) {
            return true;
        }
    }
    return false;
}

/* Every list that is not empty names the site. */
static bool site_matches(const struct at_site_pattern *p, const struct at_site *site,
                         const char *site_name)
{
    const struct {
        const struct at_model_strings *list;
        const char *value;
    } parts[] = {
        {&p->sites, site_name},
        {&p->site_classes, site != NULL ? site->spec.class : NULL},
        {&p->jurisdictions, site != NULL ? site->spec.jurisdiction : NULL},
        {&p->regions, site != NULL ? site->spec.region : NULL},
        {&p->providers, site != NULL ? site->spec.provider : NULL},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].list->n > 0 && !have(parts[i].list, parts[i].value)) {
            return false;
        }
    }
    return true;
}

static bool rule_concerns(const struct at_placement_rule *rule, const struct at_instance *instance)
{
    if (rule->namespaces.n > 0 && !have(&rule->namespaces, instance->meta.ns)) {
        return false;
    }
    if (rule->data_classes.n > 0 && !have(&rule->data_classes, instance->spec.data_class)) {
        return false;
    }
    return rule->label_selector == NULL ||
           sched_labels_match(rule->label_selector, &instance->meta.labels);
}

const struct at_placement_rule *sched_policy_refusing(const struct at_policy *policy,
                                                      const struct at_instance *instance,
                                                      const struct at_site *site,
                                                      const char *site_name)
{
    for (size_t i = 0; i < policy->spec.placement.n; i++) {
        const struct at_placement_rule *rule = &policy->spec.placement.items[i];
        if (!rule_concerns(rule, instance)) {
            continue;
        }
        if (site == NULL) {
            return rule; /* nobody can tell what law holds there */
        }
        for (size_t k = 0; k < rule->deny.n; k++) {
            if (site_matches(&rule->deny.items[k], site, site_name)) {
                return rule;
            }
        }
        bool allowed = rule->allow.n == 0;
        for (size_t k = 0; k < rule->allow.n && !allowed; k++) {
            allowed = site_matches(&rule->allow.items[k], site, site_name);
        }
        if (!allowed) {
            return rule;
        }
    }
    return NULL;
}
