/* Keys and budgets as the control plane has them, by watch, and the table of keys that the loops
 * look into. */
#include "core/digest.h"
#include "core/log.h"
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <assert.h>
#include <string.h>

struct gw_keys {
    atomic_int refs;
    size_t n, mask;
    struct gw_key **slots; /* by the first bytes of the digest, open addressing */
    struct gw_key **all;   /* each once */
};

/* --- names with stars --- */

void gw_names_of(const struct at_model_strings *list, struct gw_names *ret)
{
    *ret = (struct gw_names){.n = list->n};
    if (list->n > 0) {
        ret->items = at_alloc(list->n * sizeof(char *));
    }
    for (size_t i = 0; i < list->n; i++) {
        ret->items[i] = at_strdup(list->items[i]);
    }
}

void gw_names_done(struct gw_names *names)
{
    for (size_t i = 0; i < names->n; i++) {
        at_free(names->items[i]);
    }
    at_free(names->items);
    *names = (struct gw_names){0};
}

/* Each star takes as little as it can, and more when the rest does not fit: linear but for the last
 * star's retries. */
static bool fits(const char *pattern, const char *text)
{
    const char *star = NULL, *retry = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            retry = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

bool gw_names_match(const struct gw_names *names, const char *qualified)
{
    const char *slash = strchr(qualified, '/');
    const char *plain = slash != NULL ? slash + 1 : qualified;
    bool found = names->n == 0;
    for (size_t i = 0; i < names->n && !found; i++) {
        found = fits(names->items[i], strchr(names->items[i], '/') != NULL ? qualified : plain);
    }
    return found;
}

/* --- the table --- */

struct gw_key *gw_key_ref(struct gw_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

void gw_key_unref(struct gw_key *key)
{
    if (key == NULL || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < key->n_accounts; i++) {
        at_meter_account_unref(key->accounts[i].account);
        gw_names_done(&key->accounts[i].models);
    }
    gw_names_done(&key->models);
    gw_names_done(&key->namespaces);
    at_free((char *)(uintptr_t)key->who.uid);
    at_free((char *)(uintptr_t)key->who.ns);
    at_free((char *)(uintptr_t)key->who.name);
    at_free((char *)(uintptr_t)key->who.team);
    at_free(key->accounts);
    at_free(key);
}

struct gw_keys *gw_keys_ref(struct gw_keys *keys)
{
    atomic_fetch_add_explicit(&keys->refs, 1, memory_order_relaxed);
    return keys;
}

void gw_keys_unref(struct gw_keys *keys)
{
    if (keys == NULL || atomic_fetch_sub_explicit(&keys->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < keys->n; i++) {
        gw_key_unref(keys->all[i]);
    }
    at_free(keys->slots);
    at_free(keys->all);
    at_free(keys);
}

static size_t place_of(const unsigned char *hash)
{
    size_t place;
    memcpy(&place, hash, sizeof place);
    return place;
}

/* Of keys with one digest the oldest has it: whoever copies a digest takes nothing over. */
static void put(struct gw_keys *t, const unsigned char *hash, struct gw_key *key)
{
    size_t i = place_of(hash) & t->mask;
    while (t->slots[i] != NULL && memcmp(t->slots[i]->hash, hash, sizeof key->hash) != 0) {
        i = (i + 1) & t->mask;
    }
    if (t->slots[i] == NULL || key->created_ns < t->slots[i]->created_ns) {
        t->slots[i] = key;
    }
}

static void put_previous(struct gw_keys *t, struct gw_key *key)
{
    size_t i = place_of(key->previous_hash) & t->mask;
    while (t->slots[i] != NULL) {
        i = (i + 1) & t->mask;
    }
    t->slots[i] = key;
}

/* Not const-time in which slot is looked into: that says no more of a digest than the digest of a
 * guess does, and from digests nobody gets to secrets. */
static struct gw_key *find(const struct gw_keys *t, const unsigned char *hash, int64_t wall_ns)
{
    for (size_t i = place_of(hash) & t->mask; t->slots[i] != NULL; i = (i + 1) & t->mask) {
        struct gw_key *key = t->slots[i];
        bool old = key->has_previous && wall_ns < key->previous_until_ns &&
                   at_equal_const_time(key->previous_hash, hash, sizeof key->previous_hash);
        if (at_equal_const_time(key->hash, hash, sizeof key->hash) || old) {
            return key;
        }
    }
    return NULL;
}

void gw_worker_take_keys(void *worker)
{
    struct gw_worker *w = worker;
    struct gw_keys *keys = atomic_exchange(&w->next_keys, NULL);
    if (keys != NULL) {
        gw_keys_unref(w->keys);
        w->keys = keys;
    }
}

bool gw_meter_bearer(struct gw_worker *w, struct at_str token, const char **ret_problem)
{
    unsigned char hash[AT_SHA256_BYTES];
    enum at_meter_secret_form form = at_meter_secret_form(token);
    *ret_problem = NULL;
    if (form == AT_METER_SECRET_FOREIGN) {
        return false;
    }
    if (form == AT_METER_SECRET_BROKEN) {
        *ret_problem = "this API key is not whole, or mistyped";
        return false;
    }
    at_sha256(token.ptr, token.len, hash);
    int64_t offset = atomic_load_explicit(&w->gateway->server_offset_ns, memory_order_relaxed);
    /* Before the server has told the time, what ends some day has ended. */
    int64_t wall_ns = offset != 0 ? at_loop_now_ns(w->loop) + offset : INT64_MAX;
    struct gw_key *key = w->keys != NULL ? find(w->keys, hash, wall_ns) : NULL;
    *ret_problem = key == NULL     ? "this API key is not known here"
                   : key->disabled ? "this API key was revoked"
                   : key->expires_ns != 0 && wall_ns >= key->expires_ns ? "this API key has expired"
                                                                        : NULL;
    if (*ret_problem != NULL) {
        return false;
    }
    w->bearer = key;
    w->key = key->label;
    return true;
}

bool gw_meter_may_ask(const struct gw_worker *worker, const struct gw_model *model)
{
    const struct gw_key *key = worker->bearer;
    if (key == NULL) {
        return true;
    }
    const char *qualified = model->qualified != NULL ? model->qualified : model->name;
    const char *slash = strchr(qualified, '/');
    size_t len = slash != NULL ? (size_t)(slash - qualified) : 0;
    bool inside = key->all_namespaces ||
                  (strlen(key->who.ns) == len && strncmp(key->who.ns, qualified, len) == 0);
    for (size_t i = 0; i < key->namespaces.n && !inside; i++) {
        const char *ns = key->namespaces.items[i];
        inside = strlen(ns) == len && strncmp(ns, qualified, len) == 0;
    }
    return inside && gw_names_match(&key->models, qualified);
}

/* --- making it --- */

static const char *intern(struct gw_metering *m, const char *text)
{
    char *known = at_map_get(m->labels, text);
    if (known == NULL) {
        known = at_strdup(text);
        at_map_put(m->labels, text, known);
    }
    return known;
}

static bool hash_of(const char *text, unsigned char out[32])
{
    if (text == NULL || strlen(text) != 64) {
        return false;
    }
    for (size_t i = 0; i < 64; i++) {
        char c = text[i];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10) & 15;
        out[i / 2] = (unsigned char)(i % 2 == 0 ? digit << 4 : out[i / 2] | digit);
    }
    return true;
}

static uint32_t id_of(struct gw_metering *m, const char *uid, const char *team)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_asprintf("%s %s", uid, team);
    uintptr_t known = (uintptr_t)at_map_get(m->ids, text);
    if (known == 0) {
        known = ++m->n_ids;
        at_map_put(m->ids, text, (void *)known);
    }
    return (uint32_t)known;
}

static void set_rates(struct gw_holder *h, const struct at_rate_limits *limits, int64_t now)
{
    int64_t requests = limits != NULL ? limits->requests_per_minute : 0;
    int64_t tokens = limits != NULL ? limits->tokens_per_minute : 0;
    if (h->rates == NULL && (requests | tokens) == 0) {
        return;
    }
    if (h->rates == NULL) {
        AT_CLEANUP(at_cleanup_free)
        char *name = at_asprintf("%s %s", h->kind == &AT_KIND_BUDGET ? "budget" : "key", h->name);
        h->rates = at_meter_account_new(name, now);
    }
    atomic_store(&h->rates->requests.per_minute, requests);
    atomic_store(&h->rates->tokens.per_minute, tokens);
}

/* A purse for the window; those that are there keep their accounts. */
static struct gw_purse *purse_of(struct gw_holder *h, const char *window_text, int64_t now)
{
    enum at_meter_window window = at_meter_window_of(window_text);
    window = window == AT_METER_WINDOWS ? AT_METER_MONTH : window;
    for (size_t i = 0; i < h->n_purses; i++) {
        if (h->purses[i].window == window) {
            return &h->purses[i];
        }
    }
    h->purses = at_realloc(h->purses, (h->n_purses + 1) * sizeof *h->purses);
    struct gw_purse *purse = &h->purses[h->n_purses++];
    AT_CLEANUP(at_cleanup_free)
    char *name = at_asprintf("%s %s (%s)", h->kind == &AT_KIND_BUDGET ? "budget" : "key", h->name,
                             at_meter_window_name(window));
    *purse = (struct gw_purse){.window = window, .account = at_meter_account_new(name, now)};
    return purse;
}

static void set_limit(struct gw_purse *purse, bool has, int64_t microusd)
{
    purse->has_limit = has;
    purse->limit_nanousd =
        microusd < AT_METER_COST_MAX / 1000 ? microusd * 1000 : AT_METER_COST_MAX;
    atomic_store(&purse->account->has_budget, has);
}

static void add_account(struct gw_key *key, struct at_meter_account *account,
                        const struct gw_names *models)
{
    if (key->n_accounts == AT_METER_ACCOUNTS_MAX) {
        return;
    }
    key->accounts = at_realloc(key->accounts, (key->n_accounts + 1) * sizeof *key->accounts);
    struct gw_key_account *a = &key->accounts[key->n_accounts++];
    *a = (struct gw_key_account){.account = at_meter_account_ref(account)};
    if (models != NULL && models->n > 0) {
        a->models =
            (struct gw_names){.items = at_alloc(models->n * sizeof(char *)), .n = models->n};
        for (size_t i = 0; i < models->n; i++) {
            a->models.items[i] = at_strdup(models->items[i]);
        }
    }
    key->has_budget |= atomic_load(&account->has_budget);
}

/* Money first: an account past AT_METER_ACCOUNTS_MAX is not counted on. */
static void add_accounts(struct gw_metering *m, struct gw_key *key, struct gw_holder *own)
{
    void *value;
    for (size_t i = 0; i < own->n_purses; i++) {
        if (own->purses[i].has_limit) {
            add_account(key, own->purses[i].account, NULL);
        }
    }
    if (own->rates != NULL) {
        add_account(key, own->rates, NULL);
    }
    for (size_t it = 0; at_map_next(m->budgets, &it, NULL, &value);) {
        struct gw_holder *b = value;
        if ((b->team[0] != '\0' && strcmp(b->team, key->who.team) != 0) ||
            (b->for_ns[0] != '\0' && strcmp(b->for_ns, key->who.ns) != 0)) {
            continue;
        }
        for (size_t i = 0; i < b->n_purses; i++) {
            add_account(key, b->purses[i].account, &b->models);
        }
        if (b->rates != NULL) {
            add_account(key, b->rates, &b->models);
        }
    }
}

static struct gw_key *key_of(struct gw_metering *m, const struct at_api_key *object)
{
    const struct at_api_key_spec *s = &object->spec;
    struct gw_key *key = AT_NEW(struct gw_key);
    const char *ns = object->meta.ns != NULL ? object->meta.ns : "";
    const char *team = s->team != NULL && s->team[0] != '\0' ? s->team : ns;
    AT_CLEANUP(at_cleanup_free) char *label = at_asprintf("%s/%s", ns, object->meta.name);
    atomic_init(&key->refs, 1);
    key->disabled = s->disabled || !hash_of(s->hash, key->hash);
    key->has_previous = hash_of(s->previous_hash, key->previous_hash);
    key->previous_until_ns = s->previous_until_wall_ns;
    key->expires_ns = s->expires_wall_ns;
    key->created_ns = object->meta.creation_wall_ns;
    key->who =
        (struct at_meter_who){.uid = at_strdup(object->meta.uid != NULL ? object->meta.uid : ""),
                              .ns = at_strdup(ns),
                              .name = at_strdup(object->meta.name),
                              .team = at_strdup(team)};
    key->who.id = id_of(m, key->who.uid, team);
    key->label = intern(m, label);
    gw_names_of(&s->models, &key->models);
    gw_names_of(&s->namespaces, &key->namespaces);
    for (size_t i = 0; i < key->namespaces.n; i++) {
        key->all_namespaces |= strcmp(key->namespaces.items[i], "*") == 0;
    }
    key->priority = GW_PRIORITIES;
    enum gw_priority named;
    if (s->priority != NULL && gw_priority_parse(at_str_of(s->priority), &named)) {
        key->priority = named;
    }
    if (s->cache != NULL) {
        key->cache = true;
        gw_cache_policy_of(s->cache, &key->cache_policy);
    }
    return key;
}

/* The same with the accounts that it has now. */
static struct gw_key *key_again(struct gw_metering *m, const struct gw_key_object *o)
{
    const struct gw_key *from = o->made;
    struct gw_key *key = AT_NEW(struct gw_key);
    *key = *from;
    atomic_init(&key->refs, 1);
    key->accounts = NULL;
    key->n_accounts = 0;
    key->has_budget = false;
    key->who.uid = at_strdup(from->who.uid);
    key->who.ns = at_strdup(from->who.ns);
    key->who.name = at_strdup(from->who.name);
    key->who.team = at_strdup(from->who.team);
    gw_names_of(&(struct at_model_strings){(const char **)from->models.items, from->models.n},
                &key->models);
    gw_names_of(
        &(struct at_model_strings){(const char **)from->namespaces.items, from->namespaces.n},
        &key->namespaces);
    add_accounts(m, key, (struct gw_holder *)(uintptr_t)&o->holder);
    return key;
}

static void publish(void *ctx)
{
    struct gw_metering *m = ctx;
    size_t n = at_map_count(m->keys), cap = 16;
    void *value;
    m->publish_timer = 0;
    if (n > 0 && !m->is_open && !m->is_broken) {
        m->is_open = gw_usage_open(m);
        m->is_broken = !m->is_open;
    }
    while (cap < n * 4 + 2) {
        cap *= 2;
    }
    struct gw_keys *t = AT_NEW(struct gw_keys);
    atomic_init(&t->refs, 1);
    t->mask = cap - 1;
    t->slots = at_alloc(cap * sizeof(struct gw_key *));
    t->all = at_alloc((n + 1) * sizeof(struct gw_key *));
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        struct gw_key_object *o = value;
        if (o->stale) { /* it, or some Budget, has changed */
            struct gw_key *now = key_again(m, o);
            gw_key_unref(o->made);
            o->made = now;
            o->stale = false;
        }
        struct gw_key *key = gw_key_ref(o->made);
        t->all[t->n++] = key;
        put(t, key->hash, key);
    }
    for (size_t i = 0; i < t->n; i++) { /* what is in use goes before what was */
        if (t->all[i]->has_previous) {
            put_previous(t, t->all[i]);
        }
    }
    at_metric_set(m->m_keys, (int64_t)n);
    gw_publish_keys(m->gateway, t);
}

void gw_keys_later(struct gw_metering *m)
{
    if (m->keys_synced && m->budgets_synced && m->publish_timer == 0) {
        int64_t more_ns =
            (int64_t)at_map_count(m->keys) * 1000; /* what a table costs is kept rare */
        m->publish_timer = at_loop_timer(m->gateway->loop, AT_GW_KEYS_NS + more_ns, publish, m);
    }
}

/* Budgets have changed: every key may have other accounts. */
static void all_anew(struct gw_metering *m)
{
    void *value;
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        ((struct gw_key_object *)value)->stale = true;
    }
    gw_keys_later(m);
}

/* --- what is watched --- */

static void holder_init(struct gw_holder *h, struct gw_metering *m,
                        const struct at_model_kind *kind, const json_t *object, const char *map_key)
{
    *h = (struct gw_holder){.of = m,
                            .kind = kind,
                            .ns = at_strdup(at_json_str_at(object, "metadata.namespace", "")),
                            .name = at_strdup(at_json_str_at(object, "metadata.name", "")),
                            .uid = at_strdup(at_json_str_at(object, "metadata.uid", "")),
                            .map_key = at_strdup(map_key),
                            .team = at_strdup(""),
                            .for_ns = at_strdup("")};
}

static void forget_key(struct gw_metering *m, const char *name)
{
    struct gw_key_object *o = at_map_remove(m->keys, name);
    if (o != NULL) {
        gw_holder_done(&o->holder);
        gw_key_unref(o->made);
        at_free(o);
    }
}

static void take_key(struct gw_metering *m, const char *name, json_t *object,
                     const struct at_api_key *decoded)
{
    int64_t now = at_loop_now_ns(m->gateway->loop);
    struct gw_key_object *o = at_map_get(m->keys, name);
    if (o != NULL && strcmp(o->holder.uid, at_json_str_at(object, "metadata.uid", "")) != 0) {
        forget_key(m, name);
        o = NULL;
    }
    if (o == NULL) {
        if (at_map_count(m->keys) >= AT_GW_KEYS_MAX) {
            at_log(AT_LOG_ERROR, "keys.many", "more than %d keys: %s is not known here",
                   AT_GW_KEYS_MAX, name);
            return;
        }
        o = AT_NEW(struct gw_key_object);
        holder_init(&o->holder, m, &AT_KIND_API_KEY, object, name);
        at_map_put(m->keys, name, o);
    }
    for (size_t i = 0; i < o->holder.n_purses; i++) {
        set_limit(&o->holder.purses[i], false, 0);
    }
    for (size_t i = 0; i < decoded->spec.budgets.n; i++) {
        const struct at_key_budget *b = &decoded->spec.budgets.items[i];
        set_limit(purse_of(&o->holder, b->window, now), true, b->amount_microusd);
    }
    set_rates(&o->holder, decoded->spec.limits, now);
    gw_key_unref(o->made);
    o->made = key_of(m, decoded);
    o->stale = true;
    gw_ledger_see(&o->holder, object);
    gw_keys_later(m);
}

static void on_key(void *ctx, json_t *object, bool deleted)
{
    struct gw_metering *m = ctx;
    struct at_api_key decoded;
    struct at_err err;
    AT_CLEANUP(at_cleanup_free)
    char *name = at_asprintf("%s/%s", at_json_str_at(object, "metadata.namespace", ""),
                             at_json_str_at(object, "metadata.name", ""));
    if (deleted) {
        forget_key(m, name);
        gw_keys_later(m);
        return;
    }
    /* A ledger that moved changes nothing that requests see. */
    struct gw_key_object *known = at_map_get(m->keys, name);
    int64_t generation = at_json_int_at(object, "metadata.generation", 0);
    if (known != NULL && generation != 0 && known->holder.generation == generation &&
        strcmp(known->holder.uid, at_json_str_at(object, "metadata.uid", "")) == 0) {
        gw_ledger_see(&known->holder, object);
        return;
    }
    struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
    if (at_model_decode(&AT_KIND_API_KEY, object, arena, &decoded, &err) == AT_OK) {
        take_key(m, name, object, &decoded);
        known = at_map_get(m->keys, name);
        if (known != NULL) {
            known->holder.generation = generation;
        }
    } else {
        forget_key(m, name);
        gw_keys_later(m);
        at_log(AT_LOG_WARN, "keys.invalid", "key %s opens nothing: %s", name, err.msg);
    }
    at_arena_free(arena);
}

static void take_budget(struct gw_metering *m, const char *name, json_t *object,
                        const struct at_budget *decoded)
{
    int64_t now = at_loop_now_ns(m->gateway->loop);
    const struct at_budget_spec *s = &decoded->spec;
    struct gw_holder *h = at_map_get(m->budgets, name);
    if (h == NULL) {
        h = AT_NEW(struct gw_holder);
        holder_init(h, m, &AT_KIND_BUDGET, object, name);
        at_map_put(m->budgets, name, h);
    }
    if (h->n_purses > 0 && h->purses[0].window != at_meter_window_of(s->window)) {
        at_meter_account_unref(h->purses[0].account); /* another window is another budget */
        h->n_purses = 0;
    }
    at_free(h->team);
    at_free(h->for_ns);
    h->team = at_strdup(s->team != NULL ? s->team : "");
    h->for_ns = at_strdup(s->namespace != NULL ? s->namespace : "");
    gw_names_done(&h->models);
    gw_names_of(&s->models, &h->models);
    for (size_t i = 0; i < h->n_purses; i++) {
        set_limit(&h->purses[i], false, 0);
    }
    bool has = at_json_at(object, "spec.amount") != NULL;
    set_limit(purse_of(h, s->window, now), has, s->amount_microusd);
    set_rates(h, s->limits, now);
    for (size_t i = 0; i < h->n_purses; i++) {
        h->purses[i].period[0] = '\0'; /* whose spending it counts may be others' now */
    }
    gw_ledger_see(h, object);
}

static void on_budget(void *ctx, json_t *object, bool deleted)
{
    struct gw_metering *m = ctx;
    struct at_budget decoded;
    struct at_err err;
    const char *name = at_json_str_at(object, "metadata.name", "");
    struct gw_holder *known = at_map_get(m->budgets, name);
    int64_t generation = at_json_int_at(object, "metadata.generation", 0);
    bool same_uid =
        known != NULL && strcmp(known->uid, at_json_str_at(object, "metadata.uid", "")) == 0;
    if (!deleted && same_uid && generation != 0 && known->generation == generation) {
        gw_ledger_see(known, object);
        return;
    }
    if (known != NULL && (deleted || !same_uid)) {
        at_map_remove(m->budgets, name);
        gw_holder_done(known);
        at_free(known);
    }
    struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
    if (!deleted && at_model_decode(&AT_KIND_BUDGET, object, arena, &decoded, &err) == AT_OK) {
        take_budget(m, name, object, &decoded);
        ((struct gw_holder *)at_map_get(m->budgets, name))->generation = generation;
    } else if (!deleted) {
        at_log(AT_LOG_WARN, "budgets.invalid", "budget %s bounds nothing: %s", name, err.msg);
    }
    at_arena_free(arena);
    all_anew(m);
}

static void on_keys_synced(void *ctx)
{
    struct gw_metering *m = ctx;
    m->keys_synced = true;
    gw_keys_later(m);
}

static void on_budgets_synced(void *ctx)
{
    struct gw_metering *m = ctx;
    m->budgets_synced = true;
    gw_keys_later(m);
}

/* --- begin and end --- */

void gw_metering_start(struct at_gateway *gateway, const char *state_dir)
{
    struct gw_metering *m = gateway->metering = AT_NEW(struct gw_metering);
    m->gateway = gateway;
    m->folder = at_asprintf("%s/usage", state_dir);
    m->keys = at_map_new();
    m->budgets = at_map_new();
    m->ids = at_map_new();
    m->labels = at_map_new();
    m->m_keys = at_metric_plain(gateway->metrics.registry, AT_METRIC_GAUGE, "atoll_gateway_keys",
                                "API keys that this gateway knows.");
    gw_ledger_start(m);
    m->budget_informer =
        at_informer_new(gateway->client, &AT_KIND_BUDGET, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = m, .on_object = on_budget, .on_synced = on_budgets_synced});
    m->key_informer = at_informer_new(
        gateway->client, &AT_KIND_API_KEY, NULL, NULL,
        &(struct at_informer_events){.ctx = m, .on_object = on_key, .on_synced = on_keys_synced});
}

void gw_metering_stop(struct at_gateway *gateway)
{
    struct gw_metering *m = gateway->metering;
    if (m != NULL && !m->stopping) {
        m->stopping = true;
        gw_ledger_return(m);
    }
}

bool gw_metering_busy(const struct at_gateway *gateway)
{
    const struct gw_metering *m = gateway->metering;
    return m != NULL && (gw_usage_busy(m) || gw_ledger_busy(m));
}

void gw_metering_close(struct at_gateway *gateway)
{
    struct gw_metering *m = gateway->metering;
    if (m == NULL) {
        return;
    }
    void *value;
    at_informer_free(m->key_informer);
    at_informer_free(m->budget_informer);
    at_loop_timer_cancel(gateway->loop, m->publish_timer);
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        struct gw_key_object *o = value;
        gw_holder_done(&o->holder);
        gw_key_unref(o->made);
        at_free(o);
    }
    for (size_t it = 0; at_map_next(m->budgets, &it, NULL, &value);) {
        gw_holder_done(value);
        at_free(value);
    }
    at_map_clear(m->keys);
    at_map_clear(m->budgets);
    gw_ledger_done(m);
    gw_usage_close(m);
}

/* After the loops: requests that they end are written down, too. */
void gw_metering_done(struct at_gateway *gateway)
{
    struct gw_metering *m = gateway->metering;
    if (m == NULL) {
        return;
    }
    void *value;
    gateway->metering = NULL;
    gw_usage_done(m);
    for (size_t it = 0; at_map_next(m->labels, &it, NULL, &value);) {
        at_free(value);
    }
    at_map_free(m->keys);
    at_map_free(m->budgets);
    at_map_free(m->ids);
    at_map_free(m->labels);
    at_free(m->folder);
    at_free(m);
}
