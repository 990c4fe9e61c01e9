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

/* The ledger of a purse in a status; NULL: none yet. */
static json_t *ledger_in(const struct gw_holder *h, const json_t *status,
                         const struct gw_purse *purse)
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

/* The most that it may have spent, if it has not said so: everything. */
static int64_t ceiling_of(const json_t *slice)
{
    int64_t granted = money_at(slice, "granted");
    int64_t ceiling = money_at(slice, "ceiling");
    bool said = json_object_get(slice, "ceiling") != NULL;
    return said && ceiling < granted ? ceiling : granted;
}

static void see_purse(struct gw_holder *h, const json_t *status, struct gw_purse *p)
{
    json_t *ledger = ledger_in(h, status, p);
    const char *own = gw_own_name(h->of);
    size_t i;
    json_t *slice;
    p->others_granted = p->others_spent = p->others_wanted = p->abandoned = 0;
    p->mine_granted = p->mine_ceiling = p->mine_spent = p->mine_wanted = 0;
    p->is_mine = false;
    snprintf(p->seen_period, sizeof p->seen_period, "%s", at_json_str_at(ledger, "period", ""));
    json_array_foreach(json_object_get(ledger, "slices"), i, slice)
    {
        const char *name = at_json_str_at(slice, "gateway", "");
        bool mine = own != NULL && strcmp(name, own) == 0;
        *(mine ? &p->mine_granted : &p->others_granted) += money_at(slice, "granted");
        *(mine ? &p->mine_spent : &p->others_spent) += money_at(slice, "spent");
        bool gone = !mine && gw_is_gone(h->of, name);
        if (mine) {
            p->mine_ceiling = ceiling_of(slice);
            p->mine_wanted = money_at(slice, "wanted");
        } else if (gone) {
            p->abandoned += money_at(slice, "granted") - ceiling_of(slice);
        } else {
            p->others_wanted += money_at(slice, "wanted");
        }
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
        at_meter_grant(p->account, same && p->is_mine ? p->mine_ceiling : 0);
    }
    atomic_store(&p->account->pool_nanousd, pool);
}

static json_t *status_of(const struct gw_holder *h)
{
    json_t *status = NULL;
    return h->status != NULL && at_json_parse(h->status, strlen(h->status), &status, NULL) == AT_OK
               ? status
               : json_object();
}

static void see_status(struct gw_holder *h, const json_t *status)
{
    h->gateways_seen = h->of->gateways_seen;
    for (size_t i = 0; i < h->n_purses; i++) {
        see_purse(h, status, &h->purses[i]);
        apply_seen(h, &h->purses[i]);
    }
    gw_share_see(h, status, h->call == 0);
}

static void see_again(struct gw_holder *h)
{
    AT_CLEANUP(at_cleanup_json) json_t *status = status_of(h);
    see_status(h, status);
}

void gw_ledger_see(struct gw_holder *h, const json_t *object)
{
    const char *rv = at_json_str_at(object, "metadata.resourceVersion", "0");
    int64_t number = 0;
    (void)!at_str_to_i64(at_str_of(rv), &number);
    if (number < h->rv) {
        return; /* an answer of ours was newer */
    }
    json_t *status = json_object_get(object, "status");
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    h->rv = number;
    at_free(h->status);
    bool any = json_object_size(status) > 0 && at_json_dump(status, &text) == AT_OK;
    h->status = any ? at_strndup(text.data, text.len) : NULL;
    see_status(h, status);
    h->has_news = true;
    gw_ledger_busy_with(h);
}

bool gw_ledger_has_own(const struct gw_metering *m, const json_t *status)
{
    const char *own = gw_own_name((struct gw_metering *)(uintptr_t)m);
    size_t i, j;
    json_t *ledger, *slice;
    bool found = false;
    json_array_foreach(json_object_get(status, "budgets"), i, ledger)
    {
        json_array_foreach(json_object_get(ledger, "slices"), j, slice)
        {
            found |= own != NULL && strcmp(at_json_str_at(slice, "gateway", ""), own) == 0 &&
                     money_at(slice, "granted") > money_at(slice, "spent");
        }
    }
    json_array_foreach(json_object_get(status, "rates"), i, slice)
    {
        found |= own != NULL && strcmp(at_json_str_at(slice, "gateway", ""), own) == 0;
    }
    return found;
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

/* What is there of a purse while it is planned. */
struct standing {
    int64_t spent, held, missing, free;
};

/* Requests that wait say again and again what they miss. Told on and off as they do, it would only
 * make those who could give some lose their turn. */
static int64_t missing_of(struct gw_holder *h, struct gw_purse *p)
{
    int64_t missing = atomic_exchange(&p->account->missing_nanousd, 0);
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    if (missing == 0 && now - p->missing_ns >= AT_GW_WANT_NS) {
        p->missing = 0;
    } else if (missing > 0) {
        p->missing = most(missing, p->missing);
        p->missing_ns = now;
    }
    if (p->missing <= atomic_load(&p->account->left_nanousd)) { /* it has come meanwhile */
        p->missing = 0;
    }
    return p->missing;
}

static struct standing standing_of(struct gw_holder *h, struct gw_purse *p, int64_t granted)
{
    struct at_meter_account *a = p->account;
    bool same = strcmp(p->seen_period, p->period) == 0;
    struct standing s = {.spent = atomic_load(&a->spent_nanousd), .missing = missing_of(h, p)};
    int64_t left = atomic_load(&a->left_nanousd);
    s.held = most(atomic_load(&a->granted_nanousd) - left - s.spent, 0);
    s.free = p->limit_nanousd - (same ? p->others_granted - p->abandoned : 0) - granted;
    return s;
}

static void give_all(struct gw_purse *p, struct gw_slice *next)
{
    struct at_meter_account *a = p->account;
    int64_t left = atomic_load(&a->left_nanousd), granted = atomic_load(&a->granted_nanousd);
    granted -= left > 0 ? at_meter_give_back(a, left / 1000 * 1000) : 0;
    next->granted = next->ceiling = most(granted, 0);
}

/* What is above the ceiling first, which nobody here can spend. */
static void give_some(struct gw_purse *p, int64_t back, struct gw_slice *next)
{
    int64_t above = least(back, next->granted - next->ceiling);
    next->granted -= above;
    if (back > above) {
        int64_t given = at_meter_give_back(p->account, (back - above) / 1000 * 1000);
        next->granted -= given;
        next->ceiling -= given;
    }
}

static void take_some(struct gw_purse *p, const struct standing *s, struct gw_slice *next)
{
    int64_t used = s->spent + s->held, unspent = next->granted - used;
    int64_t need = s->missing - unspent;
    if (need > 0 || unspent < p->taken / 2) {
        int64_t give = most(most(s->free / AT_GW_SLICE_SHARE, AT_GW_SLICE_NANOUSD), need);
        give = least(give, s->free);
        next->granted += give > 0 ? give / 1000 * 1000 : 0;
        p->taken = next->granted - used;
    }
    int64_t wish = used + most(s->missing, (next->granted - used) / 2);
    next->ceiling = least(next->granted, most(next->ceiling, (wish + 999) / 1000 * 1000));
    next->wanted = used + s->missing > next->granted ? s->missing : 0;
}

/* How much it is to have in all of this period, how much of it may be spent unheard, and how much
 * it misses. True: that is to be told. */
static bool plan(struct gw_holder *h, struct gw_purse *p, struct gw_slice *next)
{
    bool same = strcmp(p->seen_period, p->period) == 0, mine = same && p->is_mine;
    struct gw_slice was = {mine ? p->mine_granted : 0, mine ? p->mine_ceiling : 0,
                           mine ? p->mine_wanted : 0};
    *next = (struct gw_slice){was.granted, was.ceiling, 0};
    struct standing s = standing_of(h, p, was.granted);
    int64_t told = mine ? p->mine_spent : 0;
    int64_t unspent = was.granted - s.spent - s.held;
    int64_t wanted_by_others = same ? p->others_wanted : 0;
    bool leaving = h->of->stopping || h->closing;
    bool stale = (s.spent + 999) / 1000 != told / 1000 && (leaving || h->telling);
    bool low = atomic_exchange(&p->account->low, false);
    if (!p->has_limit) {
        return stale;
    }
    if (leaving) {
        give_all(p, next);
    } else if (s.free < 0) {
        give_some(p, least(-s.free, most(unspent, 0)), next);
    } else if (wanted_by_others > s.free && unspent > 0 && s.missing <= unspent) {
        give_some(p, (unspent + 1) / 2, next);
    } else if (s.missing > 0 || low || stale) {
        take_some(p, &s, next);
    }
    return next->granted != was.granted || next->ceiling != was.ceiling || stale ||
           next->wanted != was.wanted;
}

static json_t *slice_json(const char *own, const struct gw_slice *slice, int64_t spent)
{
    json_t *json = json_pack("{s:s, s:o, s:o, s:o}", "gateway", own, "granted",
                             money_json(slice->granted, false), "spent", money_json(spent, true),
                             "ceiling", money_json(slice->ceiling, false));
    if (slice->wanted > 0) {
        json_object_set_new(json, "wanted", money_json(slice->wanted, true));
    }
    return json;
}

/* Another gateway's; of one that has gone what it cannot have spent is taken back. */
static json_t *other_json(const struct gw_metering *m, json_t *slice)
{
    const char *name = at_json_str_at(slice, "gateway", "");
    if (!gw_is_gone(m, name)) {
        return json_incref(slice);
    }
    int64_t ceiling = ceiling_of(slice);
    return ceiling == 0 && money_at(slice, "spent") == 0
               ? NULL
               : json_pack("{s:s, s:o, s:O}", "gateway", name, "granted",
                           money_json(ceiling, false), "spent", json_object_get(slice, "spent"));
}

static json_t *ledger_json(struct gw_holder *h, struct gw_purse *p, const json_t *status,
                           const struct gw_slice *next)
{
    bool same = strcmp(p->seen_period, p->period) == 0;
    json_t *before = ledger_in(h, status, p), *slices = json_array(), *slice;
    const char *own = gw_own_name(h->of);
    int64_t spent = atomic_load(&p->account->spent_nanousd);
    size_t i;
    json_array_foreach(json_object_get(before, "slices"), i, slice)
    {
        if (same && strcmp(at_json_str_at(slice, "gateway", ""), own) != 0) {
            json_t *other = other_json(h->of, slice);
            (void)(other != NULL && json_array_append_new(slices, other));
        }
    }
    if (next->granted > 0 || spent > 0 || next->wanted > 0) {
        json_array_append_new(slices, slice_json(own, next, spent));
    }
    int64_t others = same ? p->others_granted - p->abandoned : 0;
    int64_t others_spent = same ? p->others_spent : 0;
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "window", at_meter_window_name(p->window),
                     "period", p->period, "limit", money_json(p->limit_nanousd, false), "spent",
                     money_json(others_spent + spent, true), "granted",
                     money_json(others + next->granted, false), "slices", slices);
}

static void serve(struct gw_metering *m);

static void on_told(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct gw_holder *h = ctx;
    struct gw_metering *m = h->of;
    int64_t now = at_loop_now_ns(m->gateway->loop);
    (void)status;
    h->call = 0;
    m->n_calls--;
    if (rc == AT_OK && body != NULL) {
        h->told_ns = h->is_telling ? now : h->told_ns;
        h->shared_ns = h->gives ? now : h->shared_ns;
        h->not_before_ns = now;
        gw_ledger_see(h, body);
    } else {
        /* Somebody else was faster, or nobody is there. What was taken off comes back by what is
         * seen. */
        h->not_before_ns = now + (rc == AT_CONFLICT ? 20 * AT_GW_MS : 500 * AT_GW_MS);
        if (rc != AT_CONFLICT && rc != AT_NOT_FOUND && !m->told_error) {
            m->told_error = true;
            at_log(AT_LOG_WARN, "budgets.disconnected",
                   "no more money can be asked for: %s; what was given is spent meanwhile",
                   err->msg);
        }
        h->rv = rc == AT_CONFLICT ? 0 : h->rv; /* looked at once more */
        see_again(h);
        gw_ledger_busy_with(h);
    }
    serve(m);
}

static void fetch(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    m->n_calls++;
    h->is_telling = h->gives = false;
    h->call = at_client_get(m->gateway->client, h->kind, h->kind == &AT_KIND_BUDGET ? NULL : h->ns,
                            h->name, on_told, h);
}

/* The patch that says how it is to be; NULL: it is so. */
static json_t *patch_of(struct gw_holder *h)
{
    AT_CLEANUP(at_cleanup_json) json_t *status = status_of(h);
    bool budget = h->kind == &AT_KIND_BUDGET, any = false;
    json_t *list = json_array();
    for (size_t i = 0; i < h->n_purses; i++) {
        struct gw_purse *p = &h->purses[i];
        struct gw_slice next = {0};
        if (p->has_limit || budget) {
            any |= plan(h, p, &next);
            json_array_append_new(list, ledger_json(h, p, status, &next));
        }
    }
    size_t n = json_array_size(list);
    json_t *now = json_object();
    if (any) {
        json_t *one = budget ? json_array_get(list, n - 1) : list;
        json_object_set(now, budget ? "ledger" : "budgets", one);
    }
    json_decref(list);
    if (gw_share_plan(h)) {
        json_object_set_new(now, "rates", gw_share_json(h, status));
        any = true;
    }
    if (!any) {
        json_decref(now);
        return NULL;
    }
    return json_pack("{s:{s:o}, s:o}", "metadata", "resourceVersion",
                     json_sprintf("%lld", (long long)h->rv), "status", now);
}

static bool is_told(const struct gw_purse *p)
{
    bool same = strcmp(p->seen_period, p->period) == 0;
    return (atomic_load(&p->account->spent_nanousd) + 999) / 1000 ==
           (same && p->is_mine ? p->mine_spent : 0) / 1000;
}

/* Is there more than spending to tell of, which waits for its turn? */
static bool wants_look(const struct gw_holder *h)
{
    const struct at_meter_account *r = h->rates;
    bool wants = h->has_news || h->telling || h->closing || h->of->stopping || h->others_want ||
                 (r != NULL && (atomic_load(&r->hungry) || atomic_load(&r->requests.milli) == 0));
    int32_t today = atomic_load(&h->of->gateway->today);
    char period[AT_METER_PERIOD_BYTES];
    for (size_t i = 0; i < h->n_purses && !wants; i++) {
        const struct gw_purse *p = &h->purses[i];
        at_meter_period(p->window, today, period);
        wants = atomic_load(&p->account->missing_nanousd) > 0 || atomic_load(&p->account->low) ||
                p->mine_wanted > 0 || strcmp(p->period, period) < 0;
    }
    return wants;
}

void gw_ledger_look(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    int64_t now = at_loop_now_ns(m->gateway->loop);
    gw_share_fall_back(h);
    if (h->call != 0 || now < h->not_before_ns || m->n_calls >= AT_GW_LEDGER_CALLS_MAX ||
        gw_own_name(m) == NULL) {
        return;
    }
    if (h->rv == 0) {
        fetch(h);
        return;
    }
    if (h->gateways_seen != m->gateways_seen) {
        see_again(h);
    }
    if (!wants_look(h)) {
        return;
    }
    for (size_t i = 0; i < h->n_purses; i++) {
        if (!enter_period(h, &h->purses[i])) {
            return;
        }
    }
    AT_CLEANUP(at_cleanup_json) json_t *patch = patch_of(h);
    h->has_news = h->telling = false;
    h->is_telling = patch != NULL;
    if (patch == NULL) {
        return;
    }
    m->n_calls++;
    h->call =
        at_client_patch(m->gateway->client, h->kind, h->kind == &AT_KIND_BUDGET ? NULL : h->ns,
                        h->name, "status", patch, on_told, h);
}

/* --- rounds --- */

void gw_ledger_busy_with(struct gw_holder *h)
{
    if (!h->is_busy) {
        h->is_busy = true;
        h->next_busy = h->of->busy;
        h->of->busy = h;
    }
}

void gw_ledger_tell_later(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    if (h->prev_tell == NULL) {
        h->next_tell = NULL;
        h->prev_tell = m->tell_first != NULL ? m->tell_last : &m->tell_first;
        *h->prev_tell = h;
        m->tell_last = &h->next_tell;
    }
}

void gw_ledger_tell_never(struct gw_holder *h)
{
    if (h->prev_tell != NULL) {
        *h->prev_tell = h->next_tell;
        if (h->next_tell != NULL) {
            h->next_tell->prev_tell = h->prev_tell;
        } else {
            h->of->tell_last = h->prev_tell;
        }
        h->next_tell = NULL;
        h->prev_tell = NULL;
    }
}

/* Those whose turn it is to tell what was spent. */
static void tell_some(struct gw_metering *m)
{
    int64_t now = at_loop_now_ns(m->gateway->loop);
    unsigned tells = m->tells + AT_GW_LEDGER_TELLS;
    m->tells = tells < AT_GW_LEDGER_TELLS_MAX ? tells : AT_GW_LEDGER_TELLS_MAX;
    while (m->tells > 0 && m->tell_first != NULL &&
           now - m->tell_first->told_ns >= AT_GW_LEDGER_TELL_NS) {
        struct gw_holder *h = m->tell_first;
        gw_ledger_tell_never(h);
        h->telling = true;
        m->tells--;
        gw_ledger_busy_with(h);
    }
}

/* Has it left: is nothing that could be given back its own any more? */
static bool has_left(const struct gw_holder *h)
{
    bool left = !h->has_share;
    for (size_t i = 0; i < h->n_purses && left; i++) {
        const struct gw_purse *p = &h->purses[i];
        bool same = strcmp(p->seen_period, p->period) == 0;
        left = !same || !p->has_limit || p->mine_granted - p->mine_spent < AT_METER_NANO_PER_MICRO;
    }
    return left;
}

bool gw_ledger_at_rest(const struct gw_holder *h)
{
    return h->closing && h->call == 0 && !h->is_busy && has_left(h);
}

/* Is there something left to do, or to hear? */
static bool is_done(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    bool leaving = h->closing || m->stopping, told = true;
    bool done = h->call == 0 && h->rv != 0 && at_loop_now_ns(m->gateway->loop) >= h->not_before_ns;
    for (size_t i = 0; i < h->n_purses; i++) {
        const struct gw_purse *p = &h->purses[i];
        done = done && p->period[0] != '\0';
        told = told && is_told(p);
    }
    if (!told && !leaving) {
        gw_ledger_tell_later(h);
    }
    return done && (leaving ? told && has_left(h) : !wants_look(h));
}

/* Those that are to be looked at; who has something to wait for stays among them. */
static void serve(struct gw_metering *m)
{
    struct gw_holder *h = m->busy;
    m->busy = NULL;
    while (h != NULL) {
        struct gw_holder *next = h->next_busy;
        h->is_busy = false;
        gw_ledger_look(h);
        if (!is_done(h)) {
            gw_ledger_busy_with(h);
        }
        h = next;
    }
}

/* What loops have noted, and keys that they want to be opened. */
static void collect(struct gw_metering *m)
{
    struct at_meter_account *a = atomic_exchange(&m->gateway->noted_accounts, NULL);
    while (a != NULL) {
        struct at_meter_account *next = a->next_noted;
        struct gw_holder *h = a->owner;
        atomic_store(&a->noted, false);
        if (h != NULL) {
            gw_ledger_busy_with(h);
        }
        at_meter_account_unref(a);
        a = next;
    }
    gw_keys_asked(m);
}

static void look_at_all(struct gw_metering *m)
{
    for (struct gw_holder *h = m->open; h != NULL; h = h->next_open) {
        gw_ledger_busy_with(h);
    }
    serve(m);
}

/* Days only go on. With a new one periods may end. */
static void go_on(struct at_gateway *g, int64_t wall_ns)
{
    int32_t day = (int32_t)at_meter_day_of(wall_ns);
    if (day > atomic_load(&g->today)) {
        atomic_store(&g->today, day);
        look_at_all(g->metering);
    }
}

static void tick(void *ctx)
{
    struct gw_metering *m = ctx;
    struct at_gateway *g = m->gateway;
    m->ledger_timer = at_loop_timer(g->loop, AT_GW_LEDGER_TICK_NS, tick, m);
    int64_t offset = atomic_load(&g->server_offset_ns);
    if (offset != 0) {
        go_on(g, at_loop_now_ns(g->loop) + offset);
        collect(m);
        tell_some(m);
        serve(m);
    }
}

static void poked(void *ctx)
{
    struct gw_metering *m = ((struct at_gateway *)ctx)->metering;
    atomic_store(&((struct at_gateway *)ctx)->budget_poked, false);
    if (m != NULL) {
        collect(m);
        serve(m);
    }
}

void gw_ledger_poke(struct gw_worker *worker)
{
    struct at_gateway *g = worker->gateway;
    if (!atomic_exchange(&g->budget_poked, true) && at_loop_post(g->loop, poked, g) != AT_OK) {
        atomic_store(&g->budget_poked, false); /* the next tick does it */
    }
}

void gw_ledger_note(struct gw_worker *worker, struct at_meter_account *account)
{
    struct at_gateway *g = worker->gateway;
    if (atomic_load_explicit(&account->noted, memory_order_relaxed) ||
        atomic_exchange(&account->noted, true)) {
        return;
    }
    struct at_meter_account *first = atomic_load(&g->noted_accounts);
    (void)at_meter_account_ref(account);
    do {
        account->next_noted = first;
    } while (!atomic_compare_exchange_weak(&g->noted_accounts, &first, account));
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
        atomic_store(&g->server_offset_ns, wall_ns - now);
        go_on(g, wall_ns);
        m->told_error = false;
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
    collect(m);
    look_at_all(m);
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
