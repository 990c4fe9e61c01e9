/* One request on its key's accounts: what it may take is held when it comes, what it took is
 * counted when it ends, and noted in the log before the end of its answer goes out. */
#include "gateway/meter.h"

#include "core/mem.h"
#include "gateway/meter_priv.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *qualified_of(const struct gw_model *model)
{
    return model->qualified != NULL ? model->qualified : model->name;
}

/* --- how much it may be --- */

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

static bool has_completion(const struct gw_request *r)
{
    return r->openai && !r->infer;
}

/* Most tokens that the answer may have: what the client says, else 0. */
static uint64_t completion_named(const struct gw_path *path)
{
    uint64_t a = number_of(path->more.max_completion_tokens);
    uint64_t b = number_of(path->more.max_tokens);
    uint64_t most = a > 0 && (b == 0 || a < b) ? a : b;
    return most < AT_GW_OUTPUT_TOKENS_MAX ? most : AT_GW_OUTPUT_TOKENS_MAX;
}

static uint64_t choices_of(const struct gw_path *path)
{
    uint64_t n = number_of(path->more.n);
    return n == 0 ? 1 : n < 1024 ? n : 1024;
}

/* --- refusals --- */

struct refusal {
    int status;
    const char *type, *code;
    int64_t after_ns; /* -1: it need not come again */
    char message[AT_ERR_MSG_BYTES_MAX];
};

static void put_limits(struct gw_request *r, struct at_buf *out);

static void give_up(struct gw_request *r)
{
    struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        struct at_meter_account *a = m->key->accounts[i].account;
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

static bool refuse(struct gw_request *r, const struct refusal *why)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    int64_t ms = (why->after_ns + AT_GW_MS - 1) / AT_GW_MS;
    ms = ms < 1 ? 1 : ms > 86400000 ? 86400000 : ms;
    put_limits(r, &lines);
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
    return false;
}

static bool refuse_rate(struct gw_request *r, const struct at_meter_account *a, const char *what,
                        const char *type, int64_t limit, int64_t asked, int64_t after_ns)
{
    struct refusal why = {.status = 429, .type = type, .code = "rate_limit_exceeded"};
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

static bool refuse_money(struct gw_request *r, const struct at_meter_account *a,
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

static bool take_rates(struct gw_request *r, int64_t tokens)
{
    struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        struct at_meter_account *a = m->key->accounts[i].account;
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
            struct at_meter_account *before = m->key->accounts[j].account;
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
    return true;
}

/* All accounts or none. *ret_of: that has not enough. */
static enum at_meter_hold hold_all(struct gw_meter *m, int64_t amount,
                                   struct at_meter_account **ret_of)
{
    m->held_nanousd = amount;
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        struct at_meter_account *a = m->key->accounts[i].account;
        if ((m->used >> i & 1) == 0 ||
            !atomic_load_explicit(&a->has_budget, memory_order_relaxed)) {
            continue;
        }
        enum at_meter_hold how = at_meter_hold(a, amount);
        if (how != AT_METER_HELD) {
            for (size_t j = 0; j < i; j++) {
                if ((m->held >> j & 1) != 0) {
                    at_meter_settle(m->key->accounts[j].account, amount, 0);
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

static int64_t least_left(const struct gw_meter *m)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        struct at_meter_account *a = m->key->accounts[i].account;
        int64_t left = atomic_load_explicit(&a->left_nanousd, memory_order_relaxed);
        if ((m->used >> i & 1) != 0 && atomic_load(&a->has_budget)) {
            least = left < least ? left : least;
        }
    }
    return least;
}

/* Money for all that the answer may have; where that is too much, for as much as there is. */
static bool take_money(struct gw_request *r, const struct gw_path *path, uint64_t prompt_max)
{
    struct gw_meter *m = &r->meter;
    struct at_meter_account *of = NULL;
    uint64_t named = completion_named(path), choices = choices_of(path);
    uint64_t each = named > 0 ? named : r->model->policy.output_tokens_max;
    bool completes = has_completion(r);
    m->completion_max = completes ? each * choices : 0;
    m->capped = completes && named == 0;
    int64_t amount = at_meter_cost_nanousd(&m->price, prompt_max, m->completion_max);
    enum at_meter_hold how = hold_all(m, amount, &of);
    if (how == AT_METER_SPENT && completes) {
        uint64_t can = at_meter_affordable(&m->price, prompt_max, least_left(m), m->completion_max);
        each = can / choices;
        if (each > 0) {
            m->completion_max = each * choices;
            m->capped = true;
            amount = at_meter_cost_nanousd(&m->price, prompt_max, m->completion_max);
            how = hold_all(m, amount, &of);
        }
    }
    if (how != AT_METER_HELD) {
        return refuse_money(r, of, how);
    }
    if (m->held != 0 && m->capped && gw_amend(r, path, each, r->stream) != AT_OK) {
        return refuse(r, &(struct refusal){.status = 413, .message = "the body is too large"});
    }
    return true;
}

/* The body that the replica would get, without a tensor's worth of copies. */
static struct at_str body_of(const struct gw_request *r)
{
    return r->grpc != NULL ? (struct at_str){r->grpc->body.data, r->grpc->body.len}
                           : at_http_request_body(r->ex);
}

static bool open_slot(struct gw_request *r)
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
    return rc == AT_OK ||
           refuse(r, &(struct refusal){.status = 503,
                                       .after_ns = AT_GW_S,
                                       .message = "what it would use cannot be written down now"});
}

static enum at_rc name_client(struct gw_request *r)
{
    return at_buf_printf(&r->up, "Atoll-Client: %s\r\n", r->meter.key->who.uid);
}

bool gw_meter_begin(struct gw_request *r, const struct gw_path *path)
{
    struct gw_meter *m = &r->meter;
    struct gw_key *key = r->worker->bearer;
    if (key == NULL) {
        return true;
    }
    m->key = gw_key_ref(key);
    m->price = r->model->policy.price;
    bool meters = r->method == AT_HTTP_POST || path->rule != NULL;
    const char *qualified = qualified_of(r->model);
    for (size_t i = 0; i < key->n_accounts && meters; i++) {
        bool counts =
            key->accounts[i].models.n == 0 || gw_names_match(&key->accounts[i].models, qualified);
        m->used |= (uint32_t)counts << i;
    }
    if (!meters) { /* what a model is like may be asked for free */
        return true;
    }
    struct at_str body = body_of(r);
    uint64_t most = r->openai ? prompt_most(body) : 0;
    m->prompt_tokens = r->openai ? prompt_likely(most) : 0;
    if (!take_rates(r, (int64_t)m->prompt_tokens)) {
        return false;
    }
    if (key->has_budget && !take_money(r, path, most)) {
        return false;
    }
    if (has_completion(r) && r->stream && m->body.len == 0 && gw_amend(r, path, 0, true) != AT_OK) {
        return refuse(r, &(struct refusal){.status = 413, .message = "the body is too large"});
    }
    return open_slot(r) && (name_client(r) == AT_OK ||
                            refuse(r, &(struct refusal){.status = 431, .message = "headers"}));
}

/* --- while it goes on --- */

/* 1h2m3s, as OpenAI's headers have it; below a second 12ms. */
static void put_span(struct at_buf *out, const char *name, int64_t ns)
{
    int64_t ms = (ns + AT_GW_MS - 1) / AT_GW_MS, s = (ms + 999) / 1000;
    if (ms < 1000) {
        (void)!at_buf_printf(out, "%s: %lldms\r\n", name, (long long)ms);
    } else if (s < 60) {
        (void)!at_buf_printf(out, "%s: %llds\r\n", name, (long long)s);
    } else {
        (void)!at_buf_printf(out, "%s: %lldm%llds\r\n", name, (long long)(s / 60),
                             (long long)(s % 60));
    }
}

/* Of the accounts that it counts on, the one with the least left. */
static bool tightest(const struct gw_request *r, bool tokens, struct at_meter_rate_view *ret)
{
    const struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    bool found = false;
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        const struct at_meter_account *a = m->key->accounts[i].account;
        struct at_meter_rate_view view =
            at_meter_rate_look(tokens ? &a->tokens : &a->requests, now);
        if ((m->used >> i & 1) != 0 && view.limit > 0 &&
            (!found || view.remaining < ret->remaining)) {
            *ret = view;
            found = true;
        }
    }
    return found;
}

static void put_limits(struct gw_request *r, struct at_buf *out)
{
    struct at_meter_rate_view v;
    if (tightest(r, false, &v)) {
        (void)!at_buf_printf(out,
                             "x-ratelimit-limit-requests: %lld\r\n"
                             "x-ratelimit-remaining-requests: %lld\r\n",
                             (long long)v.limit, (long long)v.remaining);
        put_span(out, "x-ratelimit-reset-requests", v.reset_ns);
    }
    if (tightest(r, true, &v)) {
        (void)!at_buf_printf(out,
                             "x-ratelimit-limit-tokens: %lld\r\n"
                             "x-ratelimit-remaining-tokens: %lld\r\n",
                             (long long)v.limit, (long long)v.remaining);
        put_span(out, "x-ratelimit-reset-tokens", v.reset_ns);
    }
}

void gw_meter_head(struct gw_request *r)
{
    if (r->meter.key != NULL && r->meter.used != 0) {
        put_limits(r, &r->down);
    }
}

/* Bytes of text in a part of a stream, by the members that carry it. */
static uint64_t text_bytes(const char *data, size_t len)
{
    static const char *const MEMBERS[] = {"\"content\":\"", "\"text\":\"",
                                          "\"reasoning_content\":\"", "\"arguments\":\""};
    uint64_t sum = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(MEMBERS); i++) {
        size_t name = strlen(MEMBERS[i]);
        const char *at = data, *end = data + len;
        while ((at = memmem(at, (size_t)(end - at), MEMBERS[i], name)) != NULL) {
            at += name;
            while (at < end && *at != '"') {
                at += *at == '\\' && at + 1 < end ? 2 : 1;
                sum++;
            }
        }
    }
    return sum;
}

/* More is coming than was held for. */
static bool extend(struct gw_meter *m)
{
    struct gw_meter more = {.key = m->key, .used = m->used};
    struct at_meter_account *of;
    int64_t before = at_meter_cost_nanousd(&m->price, 0, m->completion_max);
    uint64_t max = m->sent + AT_GW_EXTEND_TOKENS;
    int64_t amount = at_meter_cost_nanousd(&m->price, 0, max) - before;
    if (hold_all(&more, amount, &of) != AT_METER_HELD) {
        return false;
    }
    m->held_nanousd += amount; /* on the same accounts */
    m->completion_max = max;
    return true;
}

void gw_meter_data(struct gw_request *r, const char *data, size_t len, size_t n_events)
{
    struct gw_meter *m = &r->meter;
    if (!m->is_open || n_events == 0) {
        return;
    }
    uint64_t likely = (text_bytes(data, len) + 3) / 4;
    m->sent += likely > n_events ? likely : n_events;
    uint64_t prompt = r->obs.usage.prompt != 0 ? r->obs.usage.prompt : m->prompt_tokens;
    uint64_t sent = r->obs.usage.completion != 0 ? r->obs.usage.completion : m->sent;
    at_meter_log_update(r->worker->log, m->slot, prompt, sent,
                        at_meter_cost_nanousd(&m->price, prompt, sent));
    if (m->held != 0 && m->sent > m->completion_max && r->obs.usage.completion == 0 && !extend(m)) {
        m->cut = true;
    }
}

/* Its money is used up: the stream ends with an event that says so, and the replica need not go
 * on. */
void gw_meter_cut(struct gw_request *r)
{
    static const char EVENT[] =
        "event: error\ndata: {\"error\":{\"message\":\"You exceeded your current quota: the budget "
        "of "
        "this API key was used up by this answer\",\"type\":\"insufficient_quota\",\"param\":null,"
        "\"code\":\"insufficient_quota\"}}\n\n";
    struct at_http_exchange *ex = r->ex;
    if (!r->meter.cut || ex == NULL) {
        return;
    }
    r->ex = NULL;
    gw_request_answered(r, 429);
    if (r->sse && at_http_stream_write(ex, EVENT, sizeof EVENT - 1) == AT_OK) {
        at_http_stream_end(ex);
    } else {
        at_http_abort(ex);
    }
    at_http_call_cancel(r->worker->client, r->call); /* on_done frees r */
}

/* What it has cost, whatever came of it. */
static struct at_meter_use use_of(struct gw_request *r, int status)
{
    const struct gw_meter *m = &r->meter;
    const struct gw_usage *told = &r->obs.usage;
    struct at_meter_use use = {.day = atomic_load(&r->worker->gateway->today),
                               .status = (uint16_t)status};
    bool is_told = (told->prompt | told->completion) != 0;
    bool fine = status >= 200 && status < 400;
    if (is_told) {
        use.prompt = told->prompt;
        use.completion = told->completion > 0 || !r->stream ? told->completion : m->sent;
    } else if (m->sent > 0 || (fine && has_completion(r))) {
        use.prompt = m->prompt_tokens;
        use.completion = m->sent;
        use.flags |= AT_METER_FLAG_ESTIMATED;
        if (!r->stream) { /* a whole answer that does not say: by its length */
            use.completion = r->obs.bytes_out / 4;
        }
    } else if (fine && r->openai) {
        use.prompt = m->prompt_tokens; /* embeddings that do not say */
        use.flags |= AT_METER_FLAG_ESTIMATED;
    }
    if (fine || m->sent > 0 || is_told) {
        use.cost_nanousd = at_meter_cost_nanousd(&m->price, use.prompt, use.completion);
    }
    return use;
}

static void settle(struct gw_request *r, const struct at_meter_use *use)
{
    struct gw_meter *m = &r->meter;
    int64_t now = at_loop_now_ns(r->worker->loop);
    int64_t tokens = (int64_t)(use->prompt + use->completion) - m->tokens_taken;
    for (size_t i = 0; i < m->key->n_accounts; i++) {
        struct at_meter_account *a = m->key->accounts[i].account;
        if ((m->used >> i & 1) == 0) {
            continue;
        }
        at_meter_rate_correct(&a->tokens, tokens, now);
        at_meter_settle(a, (m->held >> i & 1) != 0 ? m->held_nanousd : 0, use->cost_nanousd);
    }
}

void gw_meter_end(struct gw_request *r, int status)
{
    struct gw_meter *m = &r->meter;
    if (m->key == NULL) {
        return;
    }
    if (m->is_open) {
        struct at_meter_use use = use_of(r, status);
        if (m->cached) {
            use.flags |= AT_METER_FLAG_CACHED;
        }
        settle(r, &use);
        at_meter_log_end(r->worker->log, m->slot, &use);
    } else {
        give_up(r);
    }
    m->is_open = false;
    gw_key_unref(m->key);
    m->key = NULL;
}
