/* API keys as the loops see them, and the table that they look into. */
#include "core/digest.h"
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

void gw_names_copy(const struct gw_names *from, struct gw_names *ret)
{
    gw_names_of(&(struct at_model_strings){(const char **)from->items, from->n}, ret);
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

/* --- one key --- */

struct gw_key *gw_key_ref(struct gw_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

static void more_unref(struct gw_key_more *more)
{
    if (more != NULL && atomic_fetch_sub_explicit(&more->refs, 1, memory_order_acq_rel) == 1) {
        gw_names_done(&more->models);
        gw_names_done(&more->namespaces);
        at_free(more);
    }
}

void gw_key_unref(struct gw_key *key)
{
    if (key == NULL || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct gw_open *open = atomic_load(&key->open);
    for (size_t i = 0; open != NULL && i < open->n; i++) {
        at_meter_account_unref(open->accounts[i].account);
        gw_names_done(&open->accounts[i].models);
    }
    at_free(open);
    more_unref(key->more);
    at_free(key);
}

/* --- the table --- */

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
    size_t i = place_of(key->more->previous_hash) & t->mask;
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
        const struct gw_key_more *more = key->more;
        bool old = more != NULL && more->has_previous && wall_ns < more->previous_until_ns &&
                   at_equal_const_time(more->previous_hash, hash, sizeof more->previous_hash);
        if (at_equal_const_time(key->hash, hash, sizeof key->hash) || old) {
            return key;
        }
    }
    return NULL;
}

struct gw_keys *gw_keys_new(struct at_map *objects)
{
    size_t n = at_map_count(objects), cap = 16;
    void *value;
    while (cap < n * 2 + 2) {
        cap *= 2;
    }
    struct gw_keys *t = AT_NEW(struct gw_keys);
    atomic_init(&t->refs, 1);
    t->all = at_alloc((n + 1) * sizeof(struct gw_key *));
    for (size_t it = 0; at_map_next(objects, &it, NULL, &value);) {
        struct gw_key *key = gw_key_ref(((struct gw_key_object *)value)->made);
        t->all[t->n++] = key;
        n += key->more != NULL && key->more->has_previous;
    }
    while (cap < n * 2 + 2) {
        cap *= 2;
    }
    t->mask = cap - 1;
    t->slots = at_alloc(cap * sizeof(struct gw_key *));
    for (size_t i = 0; i < t->n; i++) {
        put(t, t->all[i]->hash, t->all[i]);
    }
    for (size_t i = 0; i < t->n; i++) { /* what is in use goes before what was */
        if (t->all[i]->more != NULL && t->all[i]->more->has_previous) {
            put_previous(t, t->all[i]);
        }
    }
    return t;
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
    *ret_problem = key == NULL ? "this API key is not known here"
                   : key->disabled || atomic_load_explicit(&key->revoked, memory_order_relaxed)
                       ? "this API key was revoked"
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
    const struct gw_key_more *more = key->more;
    const char *qualified = model->qualified != NULL ? model->qualified : model->name;
    const char *slash = strchr(qualified, '/');
    size_t len = slash != NULL ? (size_t)(slash - qualified) : 0;
    bool inside = strlen(key->who.ns) == len && strncmp(key->who.ns, qualified, len) == 0;
    if (more == NULL) {
        return inside;
    }
    inside = inside || more->all_namespaces;
    for (size_t i = 0; i < more->namespaces.n && !inside; i++) {
        const char *ns = more->namespaces.items[i];
        inside = strlen(ns) == len && strncmp(ns, qualified, len) == 0;
    }
    return inside && gw_names_match(&more->models, qualified);
}

const char *gw_key_series(const struct gw_worker *worker)
{
    const struct gw_open *open = atomic_load_explicit(&worker->bearer->open, memory_order_acquire);
    return open != NULL ? open->series : GW_KEY_OTHERS;
}

void gw_key_ask(struct gw_worker *worker, struct gw_key *key)
{
    struct at_gateway *g = worker->gateway;
    if (atomic_exchange(&key->asked, true)) {
        return;
    }
    struct gw_key *first = atomic_load(&g->asked_keys);
    (void)gw_key_ref(key);
    do {
        key->next_asked = first;
    } while (!atomic_compare_exchange_weak(&g->asked_keys, &first, key));
    gw_ledger_poke(worker);
}

/* --- making it --- */

static const char *intern(struct gw_metering *m, const char *text)
{
    char *known = at_map_get(m->texts, text);
    if (known == NULL) {
        known = at_strdup(text);
        at_map_put(m->texts, text, known);
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

static struct gw_key_more *more_of(const struct at_api_key_spec *s)
{
    unsigned char previous[32];
    bool has_previous = hash_of(s->previous_hash, previous);
    if (!has_previous && s->models.n == 0 && s->namespaces.n == 0 && s->cache == NULL) {
        return NULL;
    }
    struct gw_key_more *more = AT_NEW(struct gw_key_more);
    atomic_init(&more->refs, 1);
    more->has_previous = has_previous;
    memcpy(more->previous_hash, previous, has_previous ? sizeof previous : 0);
    more->previous_until_ns = s->previous_until_wall_ns;
    gw_names_of(&s->models, &more->models);
    gw_names_of(&s->namespaces, &more->namespaces);
    for (size_t i = 0; i < more->namespaces.n; i++) {
        more->all_namespaces |= strcmp(more->namespaces.items[i], "*") == 0;
    }
    if (s->cache != NULL) {
        more->cache = true;
        gw_cache_policy_of(s->cache, &more->cache_policy);
    }
    return more;
}

static void place_texts(struct gw_key *key, const char *label, const char *uid)
{
    char *at = (char *)&key->budgets[key->n_budgets];
    size_t len = strlen(label) + 1;
    memcpy(at, label, len);
    key->label = at;
    key->who.name = strrchr(at, '/') + 1;
    memcpy(at + len, uid, strlen(uid) + 1);
    key->who.uid = at + len;
}

static struct gw_key *key_new(const struct gw_key *like, const struct gw_key_budget *budgets,
                              size_t n_budgets, const char *label, const char *uid)
{
    struct gw_key *key =
        at_alloc(sizeof *key + n_budgets * sizeof *budgets + strlen(label) + strlen(uid) + 2);
    *key = *like;
    key->n_budgets = (unsigned char)n_budgets;
    if (n_budgets > 0) {
        memcpy(key->budgets, budgets, n_budgets * sizeof *budgets);
    }
    place_texts(key, label, uid);
    return key;
}

static int64_t nanousd_of(int64_t microusd)
{
    return microusd < AT_METER_COST_MAX / AT_METER_NANO_PER_MICRO
               ? microusd * AT_METER_NANO_PER_MICRO
               : AT_METER_COST_MAX;
}

struct gw_key *gw_key_of(struct gw_metering *m, const struct at_api_key *object)
{
    const struct at_api_key_spec *s = &object->spec;
    const char *ns = object->meta.ns != NULL ? object->meta.ns : "";
    const char *team = s->team != NULL && s->team[0] != '\0' ? s->team : ns;
    AT_CLEANUP(at_cleanup_free) char *label = at_asprintf("%s/%s", ns, object->meta.name);
    struct gw_key key = {.expires_ns = s->expires_wall_ns,
                         .created_ns = object->meta.creation_wall_ns,
                         .more = more_of(s),
                         .who = {.ns = intern(m, ns), .team = intern(m, team)},
                         .priority = GW_PRIORITIES};
    struct gw_key_budget budgets[AT_GW_KEY_BUDGETS_MAX];
    size_t n = 0;
    enum gw_priority named;
    atomic_init(&key.refs, 1);
    key.disabled = s->disabled || !hash_of(s->hash, key.hash);
    if (s->priority != NULL && gw_priority_parse(at_str_of(s->priority), &named)) {
        key.priority = (unsigned char)named;
    }
    if (s->limits != NULL) {
        key.requests_per_minute = s->limits->requests_per_minute;
        key.tokens_per_minute = s->limits->tokens_per_minute;
    }
    for (size_t i = 0; i < s->budgets.n && n < AT_GW_KEY_BUDGETS_MAX; i++) {
        enum at_meter_window window = at_meter_window_of(s->budgets.items[i].window);
        budgets[n++] = (struct gw_key_budget){
            .window = window == AT_METER_WINDOWS ? AT_METER_MONTH : window,
            .limit_nanousd = nanousd_of(s->budgets.items[i].amount_microusd)};
    }
    return key_new(&key, budgets, n, label, object->meta.uid != NULL ? object->meta.uid : "");
}

struct gw_key *gw_key_again(const struct gw_key *from)
{
    struct gw_key *key = key_new(from, from->budgets, from->n_budgets, from->label, from->who.uid);
    atomic_init(&key->refs, 1);
    atomic_init(&key->asked, false);
    atomic_init(&key->open, NULL);
    key->next_asked = NULL;
    if (key->more != NULL) {
        atomic_fetch_add_explicit(&key->more->refs, 1, memory_order_relaxed);
    }
    return key;
}
