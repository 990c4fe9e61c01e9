/* Money: what this gateway may spend is a slice that it has written itself into the object's
 * ledger, by compare-and-swap, so that all slices together never pass the limit. Requests spend
 * from slices and wait for nobody; more is asked for when a slice is low, before it is used up. A
 * gateway that needs money where everything is given says so in its slice, and whoever has some
 * unspent gives half of that back. */
#include "core/log.h"
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <string.h>

/* --- what is in the object --- */

static int64_t money_at(const json_t *object, const char *key)
{
    int64_t microusd = 0;
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || at_money_microusd(text, &microusd, NULL) != AT_OK || microusd < 0) {
        return 0;
    }
    return microusd < AT_METER_COST_MAX / 1000 ? microusd * 1000 : AT_METER_COST_MAX;
}

static json_t *money_json(int64_t nanousd, bool up)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return json_string(at_money_format((nanousd + (up ? 999 : 0)) / 1000, text));
}

static char *own_name(const struct gw_metering *m)
{
    return at_asprintf("%s:%s", m->gateway->name,
                       m->book != NULL ? at_meter_book_meter(m->book) : "");
}

/* The ledger of a purse in a status; NULL: none yet. */
static json_t *ledger_in(const struct gw_holder *h, json_t *status, const struct gw_purse *purse)
{
    size_t i;
    json_t *one;
    if (h->kind == &AT_KIND_BUDGET) {
        json_t *ledger = json_object_get(status, "ledger");
        const char *window = at_json_str_at(ledger, "window", "");
        return at_meter_window_of(window) == purse->window ? ledger : NULL;
    }
    json_array_foreach(json_object_get(status, "budgets"), i, one)
    {
        if (at_meter_window_of(at_json_str_at(one, "window", "")) == purse->window) {
            return one;
        }
    }
    return NULL;
}

static void see_purse(struct gw_holder *h, struct gw_purse *p, const char *own)
{
    json_t *ledger = ledger_in(h, h->status, p);
    size_t i;
    json_t *slice;
    p->others_granted = p->others_spent = p->others_wanted = 0;
    p->mine_granted = p->mine_spent = p->mine_wanted = 0;
    p->is_mine = false;
    snprintf(p->seen_period, sizeof p->seen_period, "%s", at_json_str_at(ledger, "period", ""));
    json_array_foreach(json_object_get(ledger, "slices"), i, slice)
    {
        bool mine = at_streq(at_json_str_at(slice, "gateway", ""), own);
        *(mine ? &p->mine_granted : &p->others_granted) += money_at(slice, "granted");
        *(mine ? &p->mine_spent : &p->others_spent) += money_at(slice, "spent");
        *(mine ? &p->mine_wanted : &p->others_wanted) += money_at(slice, "wanted");
        p->is_mine |= mine;
    }
}

struct scope {
    const struct gw_holder *holder;
};

static bool in_scope(void *ctx, const struct at_meter_row *row)
{
    const struct gw_holder *h = ((struct scope *)ctx)->holder;
    return (h->team[0] == '\0' || strcmp(h->team, row->team) == 0) &&
           (h->for_ns[0] == '\0' || strcmp(h->for_ns, row->ns) == 0) &&
           gw_names_match(&h->models, row->model);
}

static int32_t first_day(enum at_meter_window window, int32_t today)
{
    int32_t day = today;
    char now[AT_METER_PERIOD_BYTES], before[AT_METER_PERIOD_BYTES];
    if (window == AT_METER_TOTAL) {
        return INT32_MIN;
    }
    at_meter_period(window, today, now);
    do {
        at_meter_period(window, --day, before);
    } while (strcmp(now, before) == 0);
    return day + 1;
}

/* The account is in the period of now, with what this gateway spent in it. False: it cannot be told
 * yet. */
static bool enter_period(struct gw_holder *h, struct gw_purse *p)
{
    struct gw_metering *m = h->of;
    int32_t today = atomic_load(&m->gateway->today);
    char period[AT_METER_PERIOD_BYTES];
    if (today == 0 || m->book == NULL) {
        return false;
    }
    at_meter_period(p->window, today, period);
    /* Periods only go on: a clock that is set back opens none again. Their names sort by time. */
    if (strcmp(p->seen_period, period) > 0) {
        snprintf(period, sizeof period, "%s", p->seen_period);
    }
    if (strcmp(p->period, period) < 0) {
        bool rolls = p->period[0] != '\0'; /* what was spent until now was in the one before */
        struct scope scope = {h};
        int32_t from = first_day(p->window, today);
        int64_t spent = rolls ? 0
                        : h->kind == &AT_KIND_BUDGET
                            ? at_meter_book_spent(m->book, from, in_scope, &scope)
                            : at_meter_book_spent_key(m->book, h->uid, from);
        snprintf(p->period, sizeof p->period, "%s", period);
        at_meter_begin(p->account, spent);
    }
    return true;
}

/* What is in the object is what holds: also when it was changed by hand. */
static void apply_seen(struct gw_holder *h, struct gw_purse *p)
{
    if (!enter_period(h, p)) {
        return;
    }
    bool same = strcmp(p->seen_period, p->period) == 0;
    int64_t pool =
        p->limit_nanousd - (same ? p->others_spent : 0) - atomic_load(&p->account->spent_nanousd);
    if (h->call == 0) { /* else its answer says */
        at_meter_grant(p->account, same && p->is_mine ? p->mine_granted : 0);
    }
    atomic_store(&p->account->pool_nanousd, pool);
}

static void see_status(struct gw_holder *h)
{
    AT_CLEANUP(at_cleanup_free) char *own = own_name(h->of);
    for (size_t i = 0; i < h->n_purses; i++) {
        see_purse(h, &h->purses[i], own);
        apply_seen(h, &h->purses[i]);
    }
}

void gw_ledger_see(struct gw_holder *h, const json_t *object)
{
    const char *rv = at_json_str_at(object, "metadata.resourceVersion", "0");
    int64_t number = 0;
    (void)!at_str_to_i64(at_str_of(rv), &number);
    if (number < h->rv) {
        return; /* an answer of ours was newer */
    }
    h->rv = number;
    json_decref(h->status);
    json_t *status = at_json_at(object, "status");
    h->status = status != NULL ? json_deep_copy(status) : json_object();
    see_status(h);
    gw_ledger_look(h);
}

/* --- what it is to be --- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* How much it is to have in all of this period, and how much it misses then. True: something is to
 * be told. */
static bool plan(struct gw_holder *h, struct gw_purse *p, int64_t *ret_granted, int64_t *ret_wanted)
{
    struct at_meter_account *a = p->account;
    bool same = strcmp(p->seen_period, p->period) == 0;
    int64_t others = same ? p->others_granted : 0, wanted_by_others = same ? p->others_wanted : 0;
    int64_t granted = atomic_load(&a->granted_nanousd);
    int64_t spent = atomic_load(&a->spent_nanousd), left = atomic_load(&a->left_nanousd);
    int64_t free = p->limit_nanousd - others - granted;
    int64_t missing = atomic_load(&a->missing_nanousd);
    bool first = !same || !p->is_mine;
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    bool stale = spent / 1000 != p->mine_spent / 1000 &&
                 (h->of->stopping || now - h->told_ns >= AT_GW_LEDGER_TELL_NS);
    *ret_wanted = 0;
    *ret_granted = granted;
    if (!p->has_limit || (h->of->stopping && first && spent == 0)) {
        return stale;
    }
    missing = most(missing, p->mine_wanted > left ? p->mine_wanted : 0);
    if (h->of->stopping) {
        granted -= left > 0 ? at_meter_give_back(a, left) : 0;
    } else if (free < 0 ||
               (wanted_by_others > 0 && free < wanted_by_others && left > 0 && missing <= left)) {
        int64_t back = free < 0 ? -free : (left + 1) / 2;
        granted -= at_meter_give_back(a, back / 1000 * 1000);
    } else if (first || missing > left || atomic_load(&a->low)) {
        int64_t need = most(missing - left, -left);
        int64_t give = most(most(free / AT_GW_SLICE_SHARE, AT_GW_SLICE_NANOUSD), need);
        give = least(give, free);
        granted += give > 0 ? give / 1000 * 1000 : 0;
        *ret_wanted = missing > 0 && give < need ? missing : first && give <= 0 ? 1000000 : 0;
    }
    atomic_store(&a->low, false);
    atomic_store(&a->missing_nanousd, 0);
    *ret_granted = granted;
    bool wants_more = *ret_wanted > 0 && *ret_wanted != p->mine_wanted;
    bool wants_less = *ret_wanted == 0 && p->mine_wanted > 0;
    return first || granted != p->mine_granted || stale || wants_more || wants_less;
}

static json_t *slice_json(const char *own, int64_t granted, int64_t spent, int64_t wanted)
{
    json_t *slice = json_pack("{s:s, s:o, s:o}", "gateway", own, "granted",
                              money_json(granted, false), "spent", money_json(spent, true));
    if (wanted > 0) {
        json_object_set_new(slice, "wanted", money_json(wanted, true));
    }
    return slice;
}

static json_t *ledger_json(struct gw_holder *h, struct gw_purse *p, const char *own,
                           int64_t granted, int64_t wanted)
{
    bool same = strcmp(p->seen_period, p->period) == 0;
    json_t *before = ledger_in(h, h->status, p), *slices = json_array(), *slice;
    int64_t spent = atomic_load(&p->account->spent_nanousd);
    size_t i;
    json_array_foreach(json_object_get(before, "slices"), i, slice)
    {
        if (same && !at_streq(at_json_str_at(slice, "gateway", ""), own)) {
            json_array_append(slices, slice);
        }
    }
    if (granted > 0 || spent > 0 || wanted > 0) {
        json_array_append_new(slices, slice_json(own, granted, spent, wanted));
    }
    int64_t others = same ? p->others_granted : 0, others_spent = same ? p->others_spent : 0;
    p->next_granted = granted;
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "window", at_meter_window_name(p->window),
                     "period", p->period, "limit", money_json(p->limit_nanousd, false), "spent",
                     money_json(others_spent + spent, true), "granted",
                     money_json(others + granted, false), "slices", slices);
}

static void on_told(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct gw_holder *h = ctx;
    struct gw_metering *m = h->of;
    int64_t now = at_loop_now_ns(m->gateway->loop);
    (void)status;
    h->call = 0;
    m->n_calls--;
    if (rc == AT_OK && body != NULL) {
        h->told_ns = now;
        h->not_before_ns = now;
        gw_ledger_see(h, body);
        return;
    }
    /* Somebody else was faster, or nobody is there. What was taken off comes back by what is seen.
     */
    h->not_before_ns = now + (rc == AT_CONFLICT ? 20 * AT_GW_MS : 500 * AT_GW_MS);
    if (rc != AT_CONFLICT && rc != AT_NOT_FOUND && !m->told_error) {
        m->told_error = true;
        at_log(AT_LOG_WARN, "budgets.disconnected",
               "no more money can be asked for: %s; what was given is spent meanwhile", err->msg);
    }
    see_status(h);
}

void gw_ledger_look(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    int64_t now = at_loop_now_ns(m->gateway->loop);
    if (h->call != 0 || h->rv == 0 || now < h->not_before_ns ||
        m->n_calls >= AT_GW_LEDGER_CALLS_MAX) {
        return;
    }
    AT_CLEANUP(at_cleanup_free) char *own = own_name(m);
    AT_CLEANUP(at_cleanup_json) json_t *list = json_array();
    bool any = false, known = true;
    for (size_t i = 0; i < h->n_purses; i++) {
        struct gw_purse *p = &h->purses[i];
        int64_t granted, wanted;
        if (!p->has_limit && h->kind != &AT_KIND_BUDGET) {
            continue;
        }
        known = known && enter_period(h, p);
        if (!known) {
            return;
        }
        any |= plan(h, p, &granted, &wanted);
        json_array_append_new(list, ledger_json(h, p, own, granted, wanted));
    }
    if (!any || json_array_size(list) == 0) {
        return;
    }
    bool budget = h->kind == &AT_KIND_BUDGET;
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s:{s:o}, s:{s:O}}", "metadata", "resourceVersion",
                              json_sprintf("%lld", (long long)h->rv), "status",
                              budget ? "ledger" : "budgets", budget ? last : list);
    m->n_calls++;
    h->call = at_client_patch(m->gateway->client, h->kind, budget ? NULL : h->ns, h->name, "status",
                              patch, on_told, h);
}

/* --- rounds --- */

static void look_at_all(struct gw_metering *m)
{
    void *value;
    for (size_t it = 0; at_map_next(m->budgets, &it, NULL, &value);) {
        gw_ledger_look(value);
    }
    for (size_t it = 0; at_map_next(m->keys, &it, NULL, &value);) {
        struct gw_key_object *o = value;
        if (o->holder.n_purses > 0) {
            gw_ledger_look(&o->holder);
        }
    }
}

/* Days only go on. */
static void go_on(struct at_gateway *g, int64_t wall_ns)
{
    int32_t day = (int32_t)at_meter_day_of(wall_ns);
    if (day > atomic_load(&g->today)) {
        atomic_store(&g->today, day);
    }
}

static void tick(void *ctx)
{
    struct gw_metering *m = ctx;
    struct at_gateway *g = m->gateway;
    m->ledger_timer = at_loop_timer(g->loop, AT_GW_LEDGER_TICK_NS, tick, m);
    atomic_store(&g->budget_poked, false);
    int64_t offset = atomic_load(&g->server_offset_ns);
    if (offset != 0) {
        go_on(g, at_loop_now_ns(g->loop) + offset);
        look_at_all(m);
    }
}

static void poked(void *ctx)
{
    struct gw_metering *m = ((struct at_gateway *)ctx)->metering;
    if (m != NULL && !m->stopping) {
        look_at_all(m);
    }
}

void gw_ledger_poke(struct gw_worker *worker)
{
    struct at_gateway *g = worker->gateway;
    if (!atomic_exchange(&g->budget_poked, true)) {
        (void)!at_loop_post(g->loop, poked, g); /* else the next tick does it */
    }
}

/* --- the server's clock --- */

static void ask_time(void *ctx);

static void on_time(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct gw_metering *m = ctx;
    struct at_gateway *g = m->gateway;
    int64_t wall_ns = 0, now = at_loop_now_ns(g->loop);
    (void)status, (void)err;
    m->time_call = 0;
    const char *text = at_json_str_at(body, "time", NULL);
    bool well = rc == AT_OK && text != NULL && at_time_parse(text, &wall_ns, NULL) == AT_OK;
    if (well) {
        bool first = atomic_load(&g->server_offset_ns) == 0;
        atomic_store(&g->server_offset_ns, wall_ns - now);
        go_on(g, wall_ns);
        m->told_error = false;
        if (first) {
            look_at_all(m);
        }
    }
    m->time_timer = at_loop_timer(g->loop, well ? AT_GW_TIME_NS : AT_GW_TIME_AGAIN_NS, ask_time, m);
}

static void ask_time(void *ctx)
{
    struct gw_metering *m = ctx;
    m->time_timer = 0;
    m->time_call = at_client_request(m->gateway->client, AT_HTTP_GET, "/join/v1/servers", NULL,
                                     NULL, on_time, m);
}

/* --- begin and end --- */

void gw_ledger_start(struct gw_metering *m)
{
    ask_time(m);
    m->ledger_timer = at_loop_timer(m->gateway->loop, AT_GW_LEDGER_TICK_NS, tick, m);
}

void gw_ledger_return(struct gw_metering *m)
{
    look_at_all(m);
}

bool gw_ledger_busy(const struct gw_metering *m)
{
    return m->n_calls > 0;
}

void gw_holder_done(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    if (h->call != 0) {
        at_client_cancel(m->gateway->client, h->call);
        m->n_calls--;
    }
    for (size_t i = 0; i < h->n_purses; i++) {
        at_meter_account_unref(h->purses[i].account);
    }
    at_meter_account_unref(h->rates);
    gw_names_done(&h->models);
    json_decref(h->status);
    char *const texts[] = {h->ns, h->name, h->uid, h->map_key, h->team, h->for_ns};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free(texts[i]);
    }
    at_free(h->purses);
}

void gw_ledger_done(struct gw_metering *m)
{
    at_loop_timer_cancel(m->gateway->loop, m->ledger_timer);
    at_loop_timer_cancel(m->gateway->loop, m->time_timer);
    if (m->time_call != 0) {
        at_client_cancel(m->gateway->client, m->time_call);
    }
    m->ledger_timer = m->time_timer = 0;
    m->time_call = 0;
}
