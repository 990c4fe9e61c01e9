/* What is counted on: the purses and the rates of a key that is in use, or of a Budget. */
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <string.h>

const char *gw_own_name(struct gw_metering *m)
{
    if (m->own_name == NULL && m->book != NULL) {
        m->own_name = at_asprintf("%s:%s", m->gateway->name, at_meter_book_meter(m->book));
    }
    return m->own_name;
}

bool gw_is_gone(const struct gw_metering *m, const char *slice_name)
{
    const char *colon = strrchr(slice_name, ':');
    if (!m->gateways_synced || colon == NULL) {
        return false;
    }
    const char *meter = at_map_get_n(m->gateways, slice_name, (size_t)(colon - slice_name));
    if (meter == NULL) { /* it may be about to report for the first time */
        return at_loop_now_ns(m->gateway->loop) - m->gateways_since_ns >= AT_GW_UNREPORTED_NS;
    }
    return strcmp(meter, GW_GONE) == 0 || (meter[0] != '\0' && strcmp(meter, colon + 1) != 0);
}

void gw_holder_add(struct gw_metering *m, struct gw_holder *h, const struct at_model_kind *kind,
                   const char *ns, const char *name, const char *uid)
{
    *h = (struct gw_holder){.of = m,
                            .kind = kind,
                            .ns = at_strdup(ns),
                            .name = at_strdup(name),
                            .uid = at_strdup(uid),
                            .opened_ns = at_loop_now_ns(m->gateway->loop),
                            .least_saved = 1000,
                            .next_open = m->open,
                            .prev_open = &m->open};
    if (kind == &AT_KIND_BUDGET) {
        h->team = at_strdup("");
        h->for_ns = at_strdup("");
    }
    if (h->next_open != NULL) {
        h->next_open->prev_open = &h->next_open;
    }
    m->open = h;
}

static void account_done(struct at_meter_account *account)
{
    if (account != NULL) {
        account->owner = NULL; /* requests may have it for a while */
        at_meter_account_unref(account);
    }
}

void gw_holder_done(struct gw_holder *h)
{
    struct gw_metering *m = h->of;
    if (h->call != 0) {
        at_client_cancel(m->gateway->client, h->call);
        m->n_calls--;
    }
    for (struct gw_holder **at = &m->busy; h->is_busy && *at != NULL; at = &(*at)->next_busy) {
        if (*at == h) {
            *at = h->next_busy;
            break;
        }
    }
    gw_ledger_tell_never(h);
    *h->prev_open = h->next_open;
    if (h->next_open != NULL) {
        h->next_open->prev_open = h->prev_open;
    }
    for (size_t i = 0; i < h->n_purses; i++) {
        account_done(h->purses[i].account);
    }
    account_done(h->rates);
    gw_names_done(&h->models);
    char *const texts[] = {h->ns, h->name, h->uid, h->status, h->team, h->for_ns};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free(texts[i]);
    }
    at_free(h->purses);
}

static struct at_meter_account *account_of(struct gw_holder *h, const char *window)
{
    bool budget = h->kind == &AT_KIND_BUDGET;
    AT_CLEANUP(at_cleanup_free)
    char *name = at_asprintf(window != NULL ? "%s %s (%s)" : "%s %s", budget ? "budget" : "key",
                             h->name, window);
    struct at_meter_account *a = at_meter_account_new(name, at_loop_now_ns(h->of->gateway->loop));
    a->owner = h;
    return a;
}

/* A purse for the window; those that are there keep their accounts. */
struct gw_purse *gw_holder_purse(struct gw_holder *h, enum at_meter_window window)
{
    for (size_t i = 0; i < h->n_purses; i++) {
        if (h->purses[i].window == window) {
            return &h->purses[i];
        }
    }
    h->purses = at_realloc(h->purses, (h->n_purses + 1) * sizeof *h->purses);
    struct gw_purse *purse = &h->purses[h->n_purses++];
    *purse =
        (struct gw_purse){.window = window, .account = account_of(h, at_meter_window_name(window))};
    return purse;
}

void gw_holder_limit(struct gw_purse *purse, bool has, int64_t limit_nanousd)
{
    purse->has_limit = has;
    purse->limit_nanousd = limit_nanousd;
    atomic_store(&purse->account->has_budget, has);
}

void gw_holder_rates(struct gw_holder *h, int64_t requests, int64_t tokens)
{
    if (h->rates == NULL && (requests | tokens) == 0) {
        return;
    }
    if (h->rates == NULL) {
        h->rates = account_of(h, NULL);
        atomic_store(&h->rates->requests.milli, 0); /* until it is known what others let through */
        atomic_store(&h->rates->tokens.milli, 0);
    }
    atomic_store(&h->rates->requests.per_minute, requests);
    atomic_store(&h->rates->tokens.per_minute, tokens);
}
