/* A request with a key is let in: what it may take is held when it comes. A key that was not in use
 * is opened first, and money that is not here yet is waited for, for a moment; nobody else waits.
 */
#include "core/mem.h"
#include "gateway/meter_priv.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct gw_parked {
    struct gw_request *request;
    struct gw_parked *next;
    int64_t until_ns;
    struct gw_path path;
};

static const char *qualified_of(const struct gw_model *model)
{
    return model->qualified != NULL ? model->qualified : model->name;
}

/* A whole number above 0, or none. */
static uint64_t number_of(struct at_str text)
{
    uint64_t value;
    return at_str_to_u64(text, &value) == AT_OK ? value : 0;
}

/* No token is shorter than a byte. Pictures stand for some tokens each, whatever their size. */
static uint64_t prompt_most(struct at_str body)
{
    static const char PICTURE[] = ";base64,";
    uint64_t most = body.len;
    const char *at = body.ptr, *end = body.ptr + body.len;
    while (at != NULL && at < end) {
        at = memmem(at, (size_t)(end - at), PICTURE, sizeof PICTURE - 1);
        if (at != NULL) {
            const char *quote = memchr(at, '"', (size_t)(end - at));
            size_t len = (size_t)((quote != NULL ? quote : end) - at);
            most = len > AT_GW_IMAGE_TOKENS ? most - len + AT_GW_IMAGE_TOKENS : most;
            at += len;
        }
    }
    return most;
}

static uint64_t prompt_likely(uint64_t most)
{
    return most / 4 + 1;
}

/* Most tokens that the answer may have: what the client says, else 0. */
static uint64_t completion_named(const struct gw_path *path)
{
    uint64_t a = number_of(path->more.max_completion_tokens);
    uint64_t b = number_of(path->more.max_tokens);
    uint64_t most = a > b ? a : b; /* servers differ in which one they heed */
    return most < AT_GW_OUTPUT_TOKENS_MAX ? most : AT_GW_OUTPUT_TOKENS_MAX;
}

/* The same of a number that another reader could take for a whole one: 2.0, 1e2. */
static uint64_t count_of(struct at_str text)
{
    uint64_t n = number_of(text);
    size_t digits = 0;
    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    if (digits > 0 && digits < text.len) {
        bool exponent = memchr(text.ptr, 'e', text.len) != NULL || memchr(text.ptr, 'E', text.len);
        n = exponent ? AT_GW_CHOICES_MAX : number_of((struct at_str){text.ptr, digits}) + 1;
    }
    return n == 0 ? 1 : n < AT_GW_CHOICES_MAX ? n : AT_GW_CHOICES_MAX;
}

/* Texts, or lists of tokens, in one prompt: each has an answer of its own. The body has been read
 * as JSON. */
static uint64_t prompts_of(struct at_str prompt)
{
    uint64_t n = 0;
    int depth = 0;
    bool in_text = false;
    for (size_t i = 0; i < prompt.len; i++) {
        char c = prompt.ptr[i];
        if (in_text) {
            in_text = c != '"';
            i += c == '\\';
            continue;
        }
        n += depth == 1 && (c == '"' || c == '[');
        in_text = c == '"';
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    }
    return n == 0 ? 1 : n;
}

static uint64_t choices_of(const struct gw_path *path)
{
    uint64_t n = count_of(path->more.n), best_of = count_of(path->more.best_of);
    uint64_t most = (n > best_of ? n : best_of) * prompts_of(path->prompt);
    return most < AT_GW_CHOICES_MAX ? most : AT_GW_CHOICES_MAX;
}

/* --- refusals --- */

struct refusal {
    int status;
    const char *type, *code;
    int64_t after_ns; /* -1: it need not come again */
    char message[AT_ERR_MSG_BYTES_MAX];
};

void gw_meter_give_up(struct gw_request *r)
{
    struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    for (size_t i = 0; m->open != NULL && i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        if ((m->used >> i & 1) != 0 && m->tokens_taken != 0) {
            at_meter_rate_correct(&a->tokens, -m->tokens_taken, now);
        }
        if ((m->held >> i & 1) != 0) {
            at_meter_settle(a, m->held_nanousd, 0);
        }
    }
    m->held = 0;
    m->tokens_taken = 0;
}

static void refuse_request(struct gw_request *r, int status, const struct gw_openai_error *error,
                           const char *message)
{
    struct at_http_exchange *ex = r->ex;
    struct gw_openai_error e = *error;
    r->ex = NULL;
    gw_request_answered(r, status);
    if (r->openai) {
        e.request_id = r->request_id;
        gw_openai_answer_error(r->worker, ex, status, &e, "%s", message);
    } else {
        gw_answer_error(ex, status, e.headers, "model %s: %s", r->model->name, message);
    }
    gw_request_over(r);
}

static enum gw_admission refuse(struct gw_request *r, const struct refusal *why)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    int64_t ms = (why->after_ns + AT_GW_MS - 1) / AT_GW_MS;
    ms = ms < 1 ? 1 : ms > 86400000 ? 86400000 : ms;
    gw_meter_limits(r, &lines);
    if (why->after_ns >= 0) {
        (void)!at_buf_printf(&lines, "Retry-After: %lld\r\nretry-after-ms: %lld\r\n",
                             (long long)((ms + 999) / 1000), (long long)ms);
    } else if (why->status == 429) {
        (void)!at_buf_append_str(&lines, "x-should-retry: false\r\n");
    }
    refuse_request(r, why->status,
                   &(struct gw_openai_error){.headers = lines.len > 0 ? lines.data : NULL,
                                             .type = why->type,
                                             .code = why->code,
                                             .says_when = true},
                   why->message);
    return GW_REFUSED;
}

static enum gw_admission refuse_rate(struct gw_request *r, struct at_meter_account *a,
                                     const char *what, const char *type, int64_t limit,
                                     int64_t asked, int64_t after_ns)
{
    struct refusal why = {.status = 429, .type = type, .code = "rate_limit_exceeded"};
    if (atomic_load(&a->requests.milli) < 1000) { /* others may have more than they need */
        atomic_store(&a->hungry, true);
        gw_ledger_note(r->worker, a);
        gw_ledger_poke(r->worker);
    }
    if (after_ns == INT64_MAX) {
        why.after_ns = -1;
        snprintf(why.message, sizeof why.message,
                 "Request too large for %s on %s per min: limit %lld, requested %lld", a->name,
                 what, (long long)limit, (long long)asked);
    } else {
        why.after_ns = after_ns;
        snprintf(why.message, sizeof why.message,
                 "Rate limit reached for %s on %s per min: limit %lld. Please try again in %lldms",
                 a->name, what, (long long)limit,
                 (long long)((after_ns + AT_GW_MS - 1) / AT_GW_MS));
    }
    return refuse(r, &why);
}

static enum gw_admission refuse_money(struct gw_request *r, const struct at_meter_account *a,
                                      enum at_meter_hold how)
{
    struct refusal why = {
        .status = 429, .type = "insufficient_quota", .code = "insufficient_quota"};
    if (how == AT_METER_SPENT) {
        why.after_ns = -1;
        snprintf(
            why.message, sizeof why.message,
            "You exceeded your current quota: what is left of %s does not pay for this request",
            a->name);
    } else {
        why.type = "requests";
        why.code = "rate_limit_exceeded";
        why.after_ns = AT_GW_LEDGER_TICK_NS;
        snprintf(why.message, sizeof why.message,
                 "%s: this gateway is about to be given more of it, or other requests hold it; "
                 "please try again",
                 a->name);
        gw_ledger_poke(r->worker);
    }
    return refuse(r, &why);
}

/* --- admission --- */

/* Is it known of all of them how much of the rate is this gateway's? */
static bool has_shares(struct gw_request *r)
{
    const struct gw_meter *m = &r->meter;
    bool all = true;
    for (size_t i = 0; i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        bool limited = (atomic_load_explicit(&a->requests.per_minute, memory_order_relaxed) |
                        atomic_load_explicit(&a->tokens.per_minute, memory_order_relaxed)) != 0;
        if ((m->used >> i & 1) != 0 && limited &&
            atomic_load_explicit(&a->requests.milli, memory_order_relaxed) == 0) {
            gw_ledger_note(r->worker, a);
            all = false;
        }
    }
    if (!all) {
        gw_ledger_poke(r->worker);
    }
    return all;
}

static enum gw_admission take_rates(struct gw_request *r, int64_t tokens)
{
    struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    if (m->has_rates) {
        return GW_ADMITTED;
    }
    if (!has_shares(r)) {
        return GW_LATER;
    }
    for (size_t i = 0; i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        if ((m->used >> i & 1) == 0) {
            continue;
        }
        int64_t after = at_meter_rate_take(&a->requests, 1, now);
        bool requests = after != 0;
        if (!requests) {
            after = at_meter_rate_take(&a->tokens, tokens, now);
        }
        if (after == 0) {
            continue;
        }
        /* What those before it gave goes back; and so does this one's request. */
        for (size_t j = 0; j <= i; j++) {
            struct at_meter_account *before = m->open->accounts[j].account;
            if ((m->used >> j & 1) != 0 && (j < i || !requests)) {
                at_meter_rate_correct(&before->requests, -1, now);
            }
            if ((m->used >> j & 1) != 0 && j < i) {
                at_meter_rate_correct(&before->tokens, -tokens, now);
            }
        }
        return refuse_rate(r, a, requests ? "requests" : "tokens", requests ? "requests" : "tokens",
                           atomic_load(requests ? &a->requests.per_minute : &a->tokens.per_minute),
                           requests ? 1 : tokens, after);
    }
    m->tokens_taken = tokens;
    m->has_rates = true;
    return GW_ADMITTED;
}

/* All accounts or none. *ret_of: that has not enough. */
enum at_meter_hold gw_meter_hold(struct gw_meter *m, int64_t amount,
                                 struct at_meter_account **ret_of)
{
    m->held_nanousd = amount;
    for (size_t i = 0; i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        if ((m->used >> i & 1) == 0 ||
            !atomic_load_explicit(&a->has_budget, memory_order_relaxed)) {
            continue;
        }
        enum at_meter_hold how = at_meter_hold(a, amount);
        if (how != AT_METER_HELD) {
            for (size_t j = 0; j < i; j++) {
                if ((m->held >> j & 1) != 0) {
                    at_meter_settle(m->open->accounts[j].account, amount, 0);
                }
            }
            m->held = 0;
            *ret_of = a;
            return how;
        }
        m->held |= 1u << i;
    }
    return AT_METER_HELD;
}

/* What is here, and what could be, of the account that has the least of it. */
static int64_t least_left(const struct gw_meter *m, struct at_meter_account **ret_of,
                          int64_t *ret_pool)
{
    int64_t least = INT64_MAX;
    *ret_pool = INT64_MAX;
    for (size_t i = 0; i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        if ((m->used >> i & 1) == 0 || !atomic_load(&a->has_budget)) {
            continue;
        }
        int64_t left = atomic_load_explicit(&a->left_nanousd, memory_order_relaxed);
        int64_t pool = atomic_load_explicit(&a->pool_nanousd, memory_order_relaxed);
        *ret_of = left < least ? a : *ret_of;
        least = left < least ? left : least;
        *ret_pool = pool < *ret_pool ? pool : *ret_pool;
    }
    return least;
}

/* How many of its answers' tokens can be paid for by what is here; 0: none. *ret_later: more than
 * is here could be had. */
static uint64_t affordable(struct gw_request *r, uint64_t prompt_max, uint64_t choices,
                           bool *ret_later)
{
    struct gw_meter *m = &r->meter;
    struct at_meter_account *of = NULL;
    int64_t pool, left = least_left(m, &of, &pool);
    uint64_t can = at_meter_affordable(&m->price, prompt_max, left, m->completion_max);
    uint64_t could = at_meter_affordable(&m->price, prompt_max, pool, m->completion_max);
    *ret_later = can < choices && could >= choices && of != NULL;
    if (*ret_later) {
        uint64_t some =
            could < choices * AT_GW_EXTEND_TOKENS ? could : choices * AT_GW_EXTEND_TOKENS;
        at_meter_want(of, at_meter_cost_nanousd(&m->price, prompt_max, some));
        gw_ledger_note(r->worker, of);
    }
    return can / choices;
}

/* Money for all that the answer may have; where that is too much, for as much as there is. */
static enum gw_admission take_money(struct gw_request *r, const struct gw_path *path,
                                    uint64_t prompt_max, bool may_wait)
{
    struct gw_meter *m = &r->meter;
    struct at_meter_account *of = NULL;
    uint64_t named = completion_named(path), choices = choices_of(path);
    uint64_t each = named > 0 ? named : r->model->policy.output_tokens_max;
    bool completes = gw_request_completes(r), later = false;
    m->completion_max = completes ? each * choices : 0;
    m->capped = completes && named == 0;
    int64_t amount = at_meter_cost_nanousd(&m->price, prompt_max, m->completion_max);
    enum at_meter_hold how = gw_meter_hold(m, amount, &of);
    if (how == AT_METER_SPENT && completes) {
        each = affordable(r, prompt_max, choices, &later);
        if (each > 0) {
            m->completion_max = each * choices;
            m->capped = true;
            amount = at_meter_cost_nanousd(&m->price, prompt_max, m->completion_max);
            how = gw_meter_hold(m, amount, &of);
        }
    }
    if ((how == AT_METER_LATER || (how == AT_METER_SPENT && later)) && may_wait) {
        gw_ledger_note(r->worker, of);
        gw_ledger_poke(r->worker);
        return GW_LATER;
    }
    if (how != AT_METER_HELD) {
        return refuse_money(r, of, later ? AT_METER_LATER : how);
    }
    if (m->held != 0 && m->capped && gw_amend(r, path, each, r->stream) != AT_OK) {
        return refuse(r, &(struct refusal){.status = 413, .message = "the body is too large"});
    }
    return GW_ADMITTED;
}

/* The body that the replica would get, without a tensor's worth of copies. */
static struct at_str body_of(const struct gw_request *r)
{
    return r->grpc != NULL ? (struct at_str){r->grpc->body.data, r->grpc->body.len}
                           : at_http_request_body(r->ex);
}

static enum gw_admission open_slot(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    int32_t today = atomic_load_explicit(&w->gateway->today, memory_order_relaxed);
    enum at_rc rc = AT_IO;
    if (r->model->what.model == NULL) {
        r->model->what.model = qualified_of(r->model);
    }
    if (w->log != NULL && today != 0) {
        rc = at_meter_log_begin(w->log, &r->meter.key->who, &r->model->what, today, &r->meter.slot);
    }
    r->meter.is_open = rc == AT_OK;
    return rc == AT_OK ? GW_ADMITTED
                       : refuse(r, &(struct refusal){
                                       .status = 503,
                                       .after_ns = AT_GW_S,
                                       .message = "what it would use cannot be written down now"});
}

static enum at_rc name_client(struct gw_request *r)
{
    return at_buf_printf(&r->up, "Atoll-Client: %s\r\n", r->meter.key->who.uid);
}

/* Which of the key's accounts it counts on. */
static uint32_t used_of(const struct gw_request *r, const struct gw_open *open)
{
    const char *qualified = qualified_of(r->model);
    uint32_t used = 0;
    for (size_t i = 0; i < open->n; i++) {
        const struct gw_names *models = &open->accounts[i].models;
        bool counts = models->n == 0 || gw_names_match(models, qualified);
        used |= (uint32_t)counts << i;
    }
    return used;
}

static enum gw_admission admit(struct gw_request *r, const struct gw_path *path, bool may_wait)
{
    struct gw_meter *m = &r->meter;
    m->open = atomic_load_explicit(&m->key->open, memory_order_acquire);
    if (atomic_load_explicit(&m->key->revoked, memory_order_relaxed)) { /* while it waited */
        return refuse(r, &(struct refusal){.status = 401,
                                           .after_ns = -1,
                                           .type = "invalid_request_error",
                                           .code = "invalid_api_key",
                                           .message = "this API key was revoked"});
    }
    if (m->open == NULL) {
        gw_key_ask(r->worker, m->key);
        return GW_LATER;
    }
    r->obs.series = m->open->series;
    m->used = used_of(r, m->open);
    uint64_t most = r->openai ? prompt_most(body_of(r)) : 0;
    m->prompt_tokens = r->openai ? prompt_likely(most) : 0;
    enum gw_admission how = take_rates(r, (int64_t)m->prompt_tokens);
    if (how == GW_ADMITTED && m->open->has_budget) {
        how = take_money(r, path, most, may_wait);
    }
    if (how != GW_ADMITTED) {
        return how;
    }
    if (gw_request_completes(r) && r->stream && m->body.len == 0 &&
        gw_amend(r, path, 0, true) != AT_OK) {
        return refuse(r, &(struct refusal){.status = 413, .message = "the body is too large"});
    }
    how = open_slot(r);
    return how != GW_ADMITTED || name_client(r) == AT_OK
               ? how
               : refuse(r, &(struct refusal){.status = 431, .message = "headers"});
}

/* --- waiting --- */

static struct gw_parked **place_of(struct gw_request *r)
{
    struct gw_parked **at = &r->worker->parked;
    while (*at != r->parked) {
        at = &(*at)->next;
    }
    return at;
}

static void unpark(struct gw_request *r)
{
    struct gw_parked *p = r->parked;
    *place_of(r) = p->next;
    r->worker->n_parked--;
    r->parked = NULL;
    at_free(p);
}

static void go_on(struct gw_request *r, const struct gw_path *path)
{
    if (r->upload.is || !gw_cache_begin(r, path)) {
        gw_request_start(r);
    }
}

/* It came too long ago: what is not here now does not come any more. */
static void give_in(struct gw_request *r, const struct gw_path *path)
{
    enum gw_admission how = admit(r, path, false);
    if (how == GW_LATER) {
        refuse(r, &(struct refusal){.status = 503,
                                    .after_ns = AT_GW_S,
                                    .message = "what its API key may use is not known here yet; "
                                               "please try again"});
    } else if (how == GW_ADMITTED) {
        go_on(r, path);
    }
}

static void look_at_parked(void *ctx)
{
    struct gw_worker *w = ctx;
    int64_t now = at_loop_now_ns(w->loop);
    struct gw_parked *all = w->parked, *kept = NULL;
    w->parked_timer = 0;
    w->parked = NULL;
    w->n_parked = 0;
    while (all != NULL) { /* newest first; turned round, so that the oldest is first */
        struct gw_parked *p = all;
        all = p->next;
        p->next = kept;
        kept = p;
    }
    while (kept != NULL) {
        struct gw_parked *p = kept;
        struct gw_request *r = p->request;
        kept = p->next;
        enum gw_admission how = now < p->until_ns ? admit(r, &p->path, true) : GW_ADMITTED;
        if (how == GW_LATER) {
            p->next = w->parked;
            w->parked = p;
            w->n_parked++;
            continue;
        }
        if (how != GW_REFUSED) {
            r->parked = NULL;
            if (now < p->until_ns) {
                go_on(r, &p->path);
            } else {
                give_in(r, &p->path);
            }
        }
        at_free(p);
    }
    if (w->parked != NULL && w->parked_timer == 0) {
        w->parked_timer = at_loop_timer(w->loop, AT_GW_MONEY_LOOK_NS, look_at_parked, w);
    }
}

static enum gw_admission park(struct gw_request *r, const struct gw_path *path)
{
    struct gw_worker *w = r->worker;
    struct gw_parked *p = AT_NEW(struct gw_parked);
    *p = (struct gw_parked){.request = r,
                            .next = w->parked,
                            .until_ns = at_loop_now_ns(w->loop) + AT_GW_MONEY_WAIT_NS,
                            .path = *path};
    w->parked = r->parked = p;
    w->n_parked++;
    if (w->parked_timer == 0) {
        w->parked_timer = at_loop_timer(w->loop, AT_GW_MONEY_LOOK_NS, look_at_parked, w);
    }
    return GW_LATER;
}

bool gw_meter_leave(struct gw_request *r)
{
    bool waited = r->parked != NULL;
    if (waited) {
        unpark(r);
    }
    return waited;
}

enum gw_admission gw_meter_begin(struct gw_request *r, const struct gw_path *path)
{
    struct gw_worker *w = r->worker;
    struct gw_meter *m = &r->meter;
    struct gw_key *key = w->bearer;
    if (key == NULL) {
        return GW_ADMITTED;
    }
    m->key = gw_key_ref(key);
    m->price = r->model->policy.price;
    uint32_t now_s = (uint32_t)(at_loop_now_ns(w->loop) / AT_GW_S);
    if (atomic_load_explicit(&key->used_s, memory_order_relaxed) != now_s) {
        atomic_store_explicit(&key->used_s, now_s, memory_order_relaxed);
    }
    /* What a model is like may be asked for free. */
    if (r->method != AT_HTTP_POST && path->rule == NULL) {
        return GW_ADMITTED;
    }
    bool room = w->n_parked < AT_GW_MONEY_WAITERS_MAX;
    enum gw_admission how = admit(r, path, room);
    if (how != GW_LATER) {
        return how;
    }
    return room ? park(r, path)
                : refuse(r, &(struct refusal){.status = 503,
                                              .after_ns = AT_GW_S,
                                              .message = "too many wait for their API keys"});
}
