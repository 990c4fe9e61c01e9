#include "sim/scenario.h"

#include "core/mem.h"
#include "core/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADD_COUNT_MAX 100000
#define WEIGHT_MAX 1000
#define LOAD_MAX 100.0

static enum at_rc bad(struct at_err *err, const char *key, const char *value, const char *wanted)
{
    return at_err_set(err, AT_BAD_REQUEST, "--%s: '%.80s' is not %s", key, value, wanted);
}

static bool is_none(const char *value)
{
    return value[0] == '\0' || strcmp(value, "none") == 0;
}

static enum at_rc set_policy(struct at_scenario *s, const char *value, struct at_err *err)
{
    s->what.live = strcmp(value, "live") == 0;
    if (!s->what.live && at_pack_policy_find(value, &s->what.policy) != AT_OK) {
        return bad(err, "policy", value,
                   "one of live, atoll, fgd, bestfit, dotprod, packing, clustering");
    }
    return AT_OK;
}

static enum at_rc set_factor(const char *key, const char *value, double max, double *ret,
                             struct at_err *err)
{
    char *end = NULL;
    bool plain = value[0] != '\0' && strspn(value, "0123456789.") == strlen(value);
    double v = plain ? strtod(value, &end) : 0;
    if (!plain || *end != '\0' || !(v > 0 && v <= max)) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "a factor over 0, %g at most, such as 1.5", max);
        return bad(err, key, value, wanted);
    }
    *ret = v;
    return AT_OK;
}

static bool copy_name(struct at_str name, char *out, size_t size)
{
    if (name.len == 0 || name.len >= size) {
        return false;
    }
    memcpy(out, name.ptr, name.len);
    out[name.len] = '\0';
    return true;
}

/* edge@3600 or edge@1h, several by ','. */
static enum at_rc set_losses(struct at_scenario *s, const char *value, struct at_err *err)
{
    s->what.n_losses = 0;
    struct at_str rest = at_str_of(is_none(value) ? "" : value);
    while (rest.len > 0) {
        char time[32];
        int64_t ns;
        struct at_str one = at_str_cut(&rest, ',');
        struct at_whatif_loss *loss = &s->what.losses[s->what.n_losses];
        struct at_str site = at_str_cut(&one, '@');
        if (s->what.n_losses == AT_WHATIF_LOSSES_MAX ||
            !copy_name(site, loss->site, sizeof loss->site) || !copy_name(one, time, sizeof time) ||
            at_duration_ns(time, &ns, NULL) != AT_OK) {
            return bad(err, "lose-site", value, "SITE@TIME, such as edge@3600 or edge@1h");
        }
        loss->at_ms = ns / AT_NS_PER_MS;
        s->what.n_losses++;
    }
    return AT_OK;
}

static bool parse_add(struct at_str one, struct at_whatif_add *add)
{
    uint64_t count, gpus = 0;
    struct at_str rest = one, number = at_str_cut(&rest, 'x');
    struct at_str site = rest, model = at_str_cut(&site, '@');
    struct at_str more = model, first = at_str_cut(&more, 'x');
    if (more.len > 0 && at_str_to_u64(first, &gpus) == AT_OK) { /* 4x8xA100 */
        model = more;
    }
    *add = (struct at_whatif_add){0};
    if (at_str_to_u64(number, &count) != AT_OK || count == 0 || count > ADD_COUNT_MAX ||
        gpus > AT_PACK_GPUS_MAX || !copy_name(model, add->model, sizeof add->model)) {
        return false;
    }
    add->count = (uint32_t)count;
    add->gpus = (uint32_t)gpus;
    return memchr(one.ptr, '@', one.len) == NULL || copy_name(site, add->site, sizeof add->site);
}

static enum at_rc set_adds(struct at_scenario *s, const char *value, struct at_err *err)
{
    s->what.n_adds = 0;
    struct at_str rest = at_str_of(is_none(value) ? "" : value);
    while (rest.len > 0) {
        if (s->what.n_adds == AT_WHATIF_ADDS_MAX ||
            !parse_add(at_str_cut(&rest, ','), &s->what.adds[s->what.n_adds])) {
            return bad(err, "add-nodes", value,
                       "COUNTxMODEL or COUNTxGPUSxMODEL, with @SITE if wanted, such as 10xH100, "
                       "4x8xA100@edge or 3xcpu");
        }
        s->what.n_adds++;
    }
    return AT_OK;
}

static int64_t *weight_of(struct at_weights *w, struct at_str name)
{
    const struct {
        const char *name;
        int64_t *weight;
    } rows[] = {
        {"spread", &w->spread},     {"fit", &w->fit},
        {"price", &w->price},       {"cost", &w->price},
        {"carbon", &w->carbon},     {"latency", &w->latency},
        {"data", &w->data},         {"fragmentation", &w->fragmentation},
        {"balance", &w->balance},   {"preference", &w->preference},
        {"affinity", &w->affinity},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        if (at_str_eq(name, rows[i].name)) {
            return rows[i].weight;
        }
    }
    return NULL;
}

/* fit=20,price=100; those not named weigh nothing. */
static enum at_rc set_weights(struct at_scenario *s, const char *value, struct at_err *err)
{
    s->what.weights_given = !is_none(value);
    s->what.weights = (struct at_weights){0};
    struct at_str rest = at_str_of(is_none(value) ? "" : value);
    while (rest.len > 0) {
        uint64_t v;
        struct at_str one = at_str_cut(&rest, ','), name = at_str_cut(&one, '=');
        int64_t *to = weight_of(&s->what.weights, name);
        if (to == NULL || at_str_to_u64(one, &v) != AT_OK || v > WEIGHT_MAX) {
            return bad(
                err, "weights", value,
                "a list of spread, fit, price, carbon, latency, data, fragmentation, balance, "
                "preference, affinity, each =0 to 1000, such as fit=20,price=100");
        }
        *to = (int64_t)v;
    }
    return AT_OK;
}

static enum at_rc set_until(struct at_scenario *s, const char *value, struct at_err *err)
{
    int64_t ns = 0;
    if (!is_none(value) && (at_duration_ns(value, &ns, NULL) != AT_OK || ns < AT_NS_PER_MS)) {
        return bad(err, "until", value, "a duration such as 3600 or 12h");
    }
    s->what.until_ms = ns / AT_NS_PER_MS;
    return AT_OK;
}

static enum at_rc set_unplaced(struct at_scenario *s, const char *value, struct at_err *err)
{
    s->what.drop = strcmp(value, "drop") == 0;
    return s->what.drop || strcmp(value, "wait") == 0 ? AT_OK
                                                      : bad(err, "unplaced", value, "drop or wait");
}

enum at_rc at_scenario_set(struct at_scenario *s, const char *key, const char *value,
                           struct at_err *err)
{
    static const struct {
        const char *key;
        enum at_rc (*set)(struct at_scenario *, const char *, struct at_err *);
    } SETTERS[] = {{"policy", set_policy},  {"unplaced", set_unplaced}, {"lose-site", set_losses},
                   {"add-nodes", set_adds}, {"weights", set_weights},   {"until", set_until}};
    for (size_t i = 0; i < AT_ARRAY_LEN(SETTERS); i++) {
        if (strcmp(key, SETTERS[i].key) == 0) {
            return SETTERS[i].set(s, value, err);
        }
    }
    if (strcmp(key, "demand") == 0) {
        return set_factor(key, value, AT_WHATIF_DEMAND_MAX, &s->what.demand, err);
    }
    if (strcmp(key, "load") == 0) {
        return set_factor(key, value, LOAD_MAX, &s->load, err);
    }
    const char **file = strcmp(key, "nodes") == 0    ? &s->nodes
                        : strcmp(key, "prices") == 0 ? &s->prices
                        : strcmp(key, "carbon") == 0 ? &s->carbon
                                                     : NULL;
    if (file == NULL) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "nothing to set is named '%.40s'; there are policy, demand, unplaced, "
                          "lose-site, add-nodes, weights, nodes, prices, carbon, load, until",
                          key);
    }
    *file = is_none(value) ? NULL : value;
    return AT_OK;
}

/* --- combinations --- */

struct compare {
    char *key;
    char *values[AT_SCENARIOS_MAX];
    size_t n;
};

static enum at_rc split(char *text, struct compare *ret, struct at_err *err)
{
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == '\0') {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--compare: '%.60s' is not KEY=VALUE,VALUE, such as policy=fgd,atoll",
                          text);
    }
    *equals = '\0';
    *ret = (struct compare){.key = text};
    const char *by = strchr(equals + 1, ';') != NULL ? ";" : ",";
    char *rest = equals + 1, *one;
    while ((one = strsep(&rest, by)) != NULL) {
        if (ret->n == AT_SCENARIOS_MAX) {
            return at_err_set(err, AT_BAD_REQUEST, "--compare: more than %d values of %s",
                              AT_SCENARIOS_MAX, text);
        }
        ret->values[ret->n++] = one;
    }
    return AT_OK;
}

static enum at_rc combine(const struct at_scenario *base, const struct compare *compares, size_t n,
                          struct at_scenario *list, size_t n_list, struct at_err *err)
{
    for (size_t i = 0; i < n_list; i++) {
        size_t rest = i, used = 0, every = n_list;
        list[i] = *base;
        for (size_t k = 0; k < n; k++) { /* the first one turns slowest */
            every /= compares[k].n;
            const char *value = compares[k].values[rest / every];
            rest %= every;
            enum at_rc rc = at_scenario_set(&list[i], compares[k].key, value, err);
            if (rc != AT_OK) {
                return rc;
            }
            if (used < sizeof list[i].what.name) {
                int wrote = snprintf(list[i].what.name + used, sizeof list[i].what.name - used,
                                     "%s%s=%s", k > 0 ? " " : "", compares[k].key, value);
                used += (size_t)(wrote > 0 ? wrote : 0);
            }
        }
    }
    return AT_OK;
}

static const char *policy_name(const struct at_scenario *s)
{
    return s->what.live ? "live" : at_pack_policy_name(s->what.policy);
}

enum at_rc at_scenarios_make(const struct at_scenario *base, const char *const *texts,
                             struct at_scenario **ret, size_t *ret_n, char **ret_text,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free)
    struct compare *compares = at_alloc(AT_SCENARIO_COMPARES_MAX * sizeof *compares);
    size_t n = 0, n_list = 1, len = 1, used = 0;
    for (size_t i = 0; texts[i] != NULL; i++) {
        len += strlen(texts[i]) + 1;
    }
    char *text = at_alloc(len);
    enum at_rc rc = AT_OK;
    for (; rc == AT_OK && texts[n] != NULL; n++) {
        if (n == AT_SCENARIO_COMPARES_MAX) {
            rc = at_err_set(err, AT_BAD_REQUEST, "--compare may be given %d times at most",
                            AT_SCENARIO_COMPARES_MAX);
            break;
        }
        memcpy(text + used, texts[n], strlen(texts[n]) + 1);
        rc = split(text + used, &compares[n], err);
        used += strlen(texts[n]) + 1;
        n_list *= rc == AT_OK ? compares[n].n : 1;
        if (rc == AT_OK && n_list > AT_SCENARIOS_MAX) {
            rc = at_err_set(err, AT_BAD_REQUEST, "--compare: more than %d scenarios",
                            AT_SCENARIOS_MAX);
        }
    }
    struct at_scenario *list = at_alloc(n_list * sizeof *list);
    rc = rc == AT_OK ? combine(base, compares, n, list, n_list, err) : rc;
    if (rc != AT_OK) {
        at_free(list);
        at_free(text);
        return rc;
    }
    if (n == 0) {
        snprintf(list[0].what.name, sizeof list[0].what.name, "%s", policy_name(base));
    }
    *ret = list;
    *ret_n = n_list;
    *ret_text = text;
    return AT_OK;
}
