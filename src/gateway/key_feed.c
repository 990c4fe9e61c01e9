/* Keys and budgets as the control plane has them, by watch. A key that nobody uses is a hundred or
 * two bytes here; what its requests are counted on is made when the first one comes, and given back
 * when none has come for a while. */
#include "core/log.h"
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <assert.h>
#include <string.h>

/* --- the table --- */

static void publish(void *ctx)
{
    struct gw_metering *m = ctx;
    m->publish_timer = 0;
    at_metric_set(m->m_keys, (int64_t)at_map_count(m->keys));
    gw_publish_keys(m->gateway, gw_keys_new(m->keys));
}

static void publish_later(struct gw_metering *m)
{
    if (m->keys_synced && m->budgets_synced && m->publish_timer == 0) {
        int64_t more_ns = (int64_t)at_map_count(m->keys) * 200; /* what a table costs is rare */
        m->publish_timer = at_loop_timer(m->gateway->loop, AT_GW_KEYS_NS + more_ns, publish, m);
    }
}

/* The folder may still be a forerunner's that is about to end, or the disk full for a while. */
static void open_book(void *ctx)
{
    struct gw_metering *m = ctx;
    m->book_timer = 0;
    m->is_open = gw_usage_open(m);
    if (!m->is_open) {
        m->book_timer = at_loop_timer(m->gateway->loop, AT_GW_BOOK_AGAIN_NS, open_book, m);
    }
}

/* --- what a key is counted on --- */

static struct gw_open *open_add(struct gw_open *open, struct at_meter_account *account,
                                const struct gw_names *models)
{
    if (open->n == AT_METER_ACCOUNTS_MAX) {
        return open;
    }
    open = at_realloc(open, sizeof *open + (open->n + 1) * sizeof open->accounts[0]);
    struct gw_key_account *a = &open->accounts[open->n++];
    *a = (struct gw_key_account){.account = at_meter_account_ref(account)};
    if (models != NULL) {
        gw_names_copy(models, &a->models);
    }
    open->has_budget |= atomic_load(&account->has_budget);
    return open;
}

static bool is_for(const struct gw_holder *budget, const struct gw_key *key)
{
    return (budget->team[0] == '\0' || strcmp(budget->team, key->who.team) == 0) &&
           (budget->for_ns[0] == '\0' || strcmp(budget->for_ns, key->who.ns) == 0);
}

/* Money first: an account past AT_METER_ACCOUNTS_MAX is not counted on. own may be NULL. */
static struct gw_open *open_of(struct gw_metering *m, const struct gw_key *key,
                               const struct gw_holder *own)
{
    struct gw_open *open = AT_NEW(struct gw_open);
    void *value;
    for (size_t i = 0; own != NULL && i < own->n_purses; i++) {
        if (own->purses[i].has_limit) {
            open = open_add(open, own->purses[i].account, NULL);
        }
    }
    for (size_t it = 0; at_map_next(m->budgets, &it, NULL, &value);) {
        struct gw_holder *b = value;
        for (size_t i = 0; i < b->n_purses && is_for(b, key); i++) {
            open = open_add(open, b->purses[i].account, &b->models);
        }
    }
    if (own != NULL && own->rates != NULL) {
        open = open_add(open, own->rates, NULL);
    }
    for (size_t it = 0; at_map_next(m->budgets, &it, NULL, &value);) {
        struct gw_holder *b = value;
        if (b->rates != NULL && is_for(b, key)) {
            open = open_add(open, b->rates, &b->models);
        }
    }
    return open;
}

/* Its name in metrics, for as many as there is room for. */
static const char *series_of(struct gw_metering *m, const char *label)
{
    char *known = at_map_get(m->series, label);
    if (known == NULL && at_map_count(m->series) < AT_GW_KEY_SERIES_MAX) {
        known = at_strdup(label);
        at_map_put(m->series, label, known);
    }
    return known != NULL ? known : GW_KEY_OTHERS;
}

static void set_open(struct gw_metering *m, struct gw_key *key, const struct gw_holder *own)
{
    struct gw_open *open = open_of(m, key, own);
    open->series = series_of(m, key->label);
    key->who.id = key->who.id != 0 ? key->who.id : ++m->n_ids;
    atomic_store_explicit(&key->open, open, memory_order_release);
}

static void set_limits(struct gw_holder *h, const struct gw_key *key)
{
    for (size_t i = 0; i < h->n_purses; i++) {
        gw_holder_limit(&h->purses[i], false, 0);
    }
    for (size_t i = 0; i < key->n_budgets; i++) {
        gw_holder_limit(gw_holder_purse(h, key->budgets[i].window), true,
                        key->budgets[i].limit_nanousd);
    }
    gw_holder_rates(h, key->requests_per_minute, key->tokens_per_minute);
}

static struct gw_holder *holder_of(struct gw_metering *m, struct gw_key_object *o)
{
    const struct gw_key *key = o->made;
    bool counts =
        key->n_budgets > 0 || key->requests_per_minute != 0 || key->tokens_per_minute != 0;
    if (o->holder == NULL && counts) {
        o->holder = AT_NEW(struct gw_holder);
        gw_holder_add(m, o->holder, &AT_KIND_API_KEY, key->who.ns, key->who.name, key->who.uid);
        o->holder->rv = o->has_status ? 0 : o->rv; /* else the status is to be fetched */
        o->holder->generation = o->generation;
        set_limits(o->holder, key);
    }
    if (o->holder != NULL) {
        o->holder->closing = false;
        gw_ledger_busy_with(o->holder);
    }
    return o->holder;
}

static void open_key(struct gw_metering *m, struct gw_key *key)
{
    struct gw_key_object *o = at_map_get(m->keys, key->label);
    if (atomic_load(&key->open) != NULL) {
        return;
    }
    bool same = o != NULL && strcmp(o->made->who.uid, key->who.uid) == 0;
    if (!same) { /* it has gone meanwhile */
        atomic_store(&key->revoked, true);
    }
    set_open(m, key, same ? holder_of(m, o) : NULL);
}

void gw_keys_asked(struct gw_metering *m)
{
    struct gw_key *key = atomic_exchange(&m->gateway->asked_keys, NULL);
    while (key != NULL) {
        struct gw_key *next = key->next_asked;
        if (!m->stopping) {
            open_key(m, key);
        }
        gw_key_unref(key);
        key = next;
    }
}

/* --- keys that are not used any more --- */

/* The same key, not open: requests that come from now on open it again. */
static void replace(struct gw_metering *m, struct gw_key_object *o, struct gw_key *key_take)
{
    gw_key_unref(o->closing);
    o->closing = o->made;
    o->made = key_take;
    publish_later(m);
}

static bool is_idle(const struct gw_metering *m, const struct gw_key *key)
{
    int64_t now_s = at_loop_now_ns(m->gateway->loop) / AT_GW_S;
    int64_t used_s = (int64_t)atomic_load_explicit(&key->used_s, memory_order_relaxed);
    return atomic_load(&key->open) != NULL && now_s - used_s >= m->gateway->key_idle_ns / AT_GW_S;
}

static void drop_holder(struct gw_key_object *o)
{
    gw_holder_done(o->holder);
    at_free(o->holder);
    o->holder = NULL;
}

static void close_idle(struct gw_metering *m, struct gw_key_object *o)
{
    bool in_use = atomic_load(&o->made->open) != NULL;
    if (o->holder != NULL && !in_use && o->closing == NULL && gw_ledger_at_rest(o->holder)) {
        o->has_status = o->has_status || o->holder->status != NULL;
        o->rv = o->holder->rv > o->rv ? o->holder->rv : o->rv;
        drop_holder(o);
    } else if (in_use && is_idle(m, o->made)) {
        replace(m, o, gw_key_again(o->made));
    } else if (o->closing != NULL && m->publish_timer == 0 &&
               atomic_load(&o->closing->refs) == 1) { /* no table and no request has it */
        gw_key_unref(o->closing);
        o->closing = NULL;
        if (o->holder != NULL && !in_use) {
            o->holder->closing = true;
            gw_ledger_busy_with(o->holder);
        }
    }
}

static void look_for_idle(void *ctx)
{
    struct gw_metering *m = ctx;
    void *value;
    m->idle_timer =
        at_loop_timer(m->gateway->loop, m->gateway->key_idle_ns / 30 + AT_GW_MS, look_for_idle, m);
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        close_idle(m, value);
    }
}

/* --- what is watched --- */

static void forget_key(struct gw_metering *m, const char *name)
{
    struct gw_key_object *o = at_map_remove(m->keys, name);
    if (o == NULL) {
        return;
    }
    atomic_store(&o->made->revoked, true);
    if (o->holder != NULL) {
        drop_holder(o);
    }
    gw_key_unref(o->closing);
    gw_key_unref(o->made);
    at_free(o);
}

static struct gw_key_object *object_of(struct gw_metering *m, const char *name)
{
    struct gw_key_object *o = at_map_get(m->keys, name);
    if (o == NULL && at_map_count(m->keys) >= AT_GW_KEYS_MAX) {
        at_log(AT_LOG_ERROR, "keys.many", "more than %d keys: %s is not known here", AT_GW_KEYS_MAX,
               name);
    } else if (o == NULL) {
        o = AT_NEW(struct gw_key_object);
        at_map_put(m->keys, name, o);
    }
    return o;
}

static void take_key(struct gw_metering *m, const char *name, const struct at_api_key *decoded)
{
    struct gw_key *key = gw_key_of(m, decoded);
    struct gw_key_object *o = at_map_get(m->keys, name);
    if (o != NULL && strcmp(o->made->who.uid, key->who.uid) != 0) {
        forget_key(m, name);
    }
    o = object_of(m, name);
    if (o == NULL) {
        gw_key_unref(key);
        return;
    }
    if (o->made == NULL) {
        o->made = key;
        publish_later(m);
        return;
    }
    bool opened = atomic_load(&o->made->open) != NULL;
    key->who.id = strcmp(key->who.team, o->made->who.team) == 0 ? o->made->who.id : 0;
    atomic_init(&key->used_s, atomic_load(&o->made->used_s));
    atomic_store(&o->made->revoked, key->disabled);
    replace(m, o, key);
    if (o->holder != NULL) {
        set_limits(o->holder, key);
    }
    if (opened) {
        set_open(m, key, holder_of(m, o));
    }
}

static void see_key(struct gw_metering *m, struct gw_key_object *o, const json_t *object)
{
    const json_t *status = json_object_get(object, "status");
    int64_t number = 0;
    (void)!at_str_to_i64(at_str_of(at_json_str_at(object, "metadata.resourceVersion", "0")),
                         &number);
    o->rv = number > o->rv ? number : o->rv;
    o->has_status = json_object_size(status) > 0;
    if (o->holder == NULL && o->has_status && gw_ledger_has_own(m, status)) {
        /* From before a restart: what is not needed any more is given back in a while. */
        atomic_store(&o->made->used_s, (uint32_t)(at_loop_now_ns(m->gateway->loop) / AT_GW_S));
        struct gw_holder *h = holder_of(m, o);
        if (atomic_load(&o->made->open) == NULL) {
            set_open(m, o->made, h);
        }
    }
    if (o->holder != NULL) {
        gw_ledger_see(o->holder, object);
    }
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
        publish_later(m);
        return;
    }
    if (!m->is_open && m->book_timer == 0) {
        open_book(m);
    }
    /* A ledger that moved changes nothing that requests see. */
    struct gw_key_object *o = at_map_get(m->keys, name);
    int64_t generation = at_json_int_at(object, "metadata.generation", 0);
    if (o == NULL || generation == 0 || o->generation != generation ||
        strcmp(o->made->who.uid, at_json_str_at(object, "metadata.uid", "")) != 0) {
        struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
        if (at_model_decode(&AT_KIND_API_KEY, object, arena, &decoded, &err) == AT_OK) {
            take_key(m, name, &decoded);
            o = at_map_get(m->keys, name);
        } else {
            forget_key(m, name);
            publish_later(m);
            o = NULL;
            at_log(AT_LOG_WARN, "keys.invalid", "key %s opens nothing: %s", name, err.msg);
        }
        at_arena_free(arena);
    }
    if (o != NULL) {
        o->generation = generation;
        see_key(m, o, object);
    }
}

/* --- budgets --- */

/* Budgets have changed: keys that are in use may have other accounts. */
static void open_anew(struct gw_metering *m)
{
    void *value;
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        struct gw_key_object *o = value;
        if (atomic_load(&o->made->open) != NULL) {
            struct gw_key *key = gw_key_again(o->made);
            set_open(m, key, o->holder);
            replace(m, o, key);
        }
    }
}

static void take_budget(struct gw_metering *m, const char *name, json_t *object,
                        const struct at_budget *decoded)
{
    const struct at_budget_spec *s = &decoded->spec;
    struct gw_holder *h = at_map_get(m->budgets, name);
    enum at_meter_window window = at_meter_window_of(s->window);
    window = window == AT_METER_WINDOWS ? AT_METER_MONTH : window;
    if (h == NULL) {
        h = AT_NEW(struct gw_holder);
        gw_holder_add(m, h, &AT_KIND_BUDGET, "", name, at_json_str_at(object, "metadata.uid", ""));
        at_map_put(m->budgets, name, h);
    }
    if (h->n_purses > 0 && h->purses[0].window != window) {
        h->purses[0].account->owner = NULL;
        at_meter_account_unref(h->purses[0].account); /* another window is another budget */
        h->n_purses = 0;
    }
    bool same_scope = h->models.n == 0 && s->models.n == 0 && at_streq(h->team, s->team) &&
                      at_streq(h->for_ns, s->namespace);
    at_free(h->team);
    at_free(h->for_ns);
    h->team = at_strdup(s->team != NULL ? s->team : "");
    h->for_ns = at_strdup(s->namespace != NULL ? s->namespace : "");
    gw_names_done(&h->models);
    gw_names_of(&s->models, &h->models);
    int64_t most = AT_METER_COST_MAX / AT_METER_NANO_PER_MICRO;
    int64_t microusd = s->amount_microusd < most ? s->amount_microusd : most;
    gw_holder_limit(gw_holder_purse(h, window), at_json_at(object, "spec.amount") != NULL,
                    microusd * AT_METER_NANO_PER_MICRO);
    gw_holder_rates(h, s->limits != NULL ? s->limits->requests_per_minute : 0,
                    s->limits != NULL ? s->limits->tokens_per_minute : 0);
    for (size_t i = 0; i < h->n_purses && !same_scope; i++) {
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
    open_anew(m);
}

/* --- gateways that are there --- */

static void on_report(void *ctx, json_t *object, bool deleted)
{
    struct gw_metering *m = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "");
    const char *meter = deleted ? GW_GONE : at_json_str_at(object, "status.meter", "");
    char *known = at_map_get(m->gateways, name);
    if (known != NULL && strcmp(known, meter) == 0) {
        return;
    }
    at_free(at_map_put(m->gateways, name, at_strdup(meter)));
    m->gateways_seen++;
}

static void on_reports_synced(void *ctx)
{
    struct gw_metering *m = ctx;
    m->gateways_synced = true;
    m->gateways_since_ns = at_loop_now_ns(m->gateway->loop);
    m->gateways_seen++;
}

static void on_keys_synced(void *ctx)
{
    struct gw_metering *m = ctx;
    m->keys_synced = true;
    publish_later(m);
}

static void on_budgets_synced(void *ctx)
{
    struct gw_metering *m = ctx;
    m->budgets_synced = true;
    publish_later(m);
}

/* --- begin and end --- */

void gw_metering_start(struct at_gateway *gateway, const char *state_dir)
{
    struct gw_metering *m = gateway->metering = AT_NEW(struct gw_metering);
    m->gateway = gateway;
    m->folder = at_asprintf("%s/usage", state_dir);
    m->keys = at_map_new();
    m->budgets = at_map_new();
    m->texts = at_map_new();
    m->series = at_map_new();
    m->gateways = at_map_new();
    m->m_keys = at_metric_plain(gateway->metrics.registry, AT_METRIC_GAUGE, "atoll_gateway_keys",
                                "API keys that this gateway knows.");
    gw_ledger_start(m);
    m->idle_timer = at_loop_timer(gateway->loop, AT_GW_S, look_for_idle, m);
    m->report_informer = at_informer_new(
        gateway->client, &AT_KIND_GATEWAY_REPORT, NULL, NULL,
        &(struct at_informer_events){
            .ctx = m, .on_object = on_report, .on_synced = on_reports_synced, .names_only = true});
    m->budget_informer =
        at_informer_new(gateway->client, &AT_KIND_BUDGET, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = m, .on_object = on_budget, .on_synced = on_budgets_synced});
    m->key_informer = at_informer_new(
        gateway->client, &AT_KIND_API_KEY, NULL, NULL,
        &(struct at_informer_events){
            .ctx = m, .on_object = on_key, .on_synced = on_keys_synced, .names_only = true});
}

const char *gw_metering_meter(const struct at_gateway *gateway)
{
    const struct gw_metering *m = gateway->metering;
    return m != NULL && m->book != NULL ? at_meter_book_meter(m->book) : NULL;
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
    return m != NULL && (gw_usage_busy(m) || m->n_calls > 0 || m->busy != NULL);
}

static void free_all(struct at_map *map)
{
    void *value;
    for (size_t it = 0; at_map_next(map, &it, NULL, &value);) {
        at_free(value);
    }
    at_map_free(map);
}

void gw_metering_close(struct at_gateway *gateway)
{
    struct gw_metering *m = gateway->metering;
    if (m == NULL) {
        return;
    }
    const char *name;
    void *value;
    at_informer_free(m->report_informer);
    at_informer_free(m->key_informer);
    at_informer_free(m->budget_informer);
    at_loop_timer_cancel(gateway->loop, m->publish_timer);
    at_loop_timer_cancel(gateway->loop, m->idle_timer);
    at_loop_timer_cancel(gateway->loop, m->book_timer);
    m->publish_timer = m->idle_timer = m->book_timer = 0;
    for (size_t it = 0; at_map_next(m->keys, &it, &name, &value);) {
        struct gw_key_object *o = value;
        if (o->holder != NULL) {
            drop_holder(o);
        }
        gw_key_unref(o->closing);
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
    m->stopping = true;
    gw_keys_asked(m);
    for (struct at_meter_account *a = atomic_exchange(&gateway->noted_accounts, NULL); a != NULL;) {
        struct at_meter_account *next = a->next_noted;
        at_meter_account_unref(a);
        a = next;
    }
    gateway->metering = NULL;
    gw_usage_done(m);
    free_all(m->texts);
    free_all(m->series);
    free_all(m->gateways);
    at_map_free(m->keys);
    at_map_free(m->budgets);
    at_free(m->own_name);
    at_free(m->folder);
    at_free(m);
}
