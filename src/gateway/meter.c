/* One request on its key's accounts while it goes on: what it took is counted when it ends, and
 * noted in the log before the end of its answer goes out. How it gets in: admit.c. */
#include "gateway/meter.h"

#include "core/mem.h"
#include "gateway/meter_priv.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

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
    for (size_t i = 0; m->open != NULL && i < m->open->n; i++) {
        const struct at_meter_account *a = m->open->accounts[i].account;
        const struct at_meter_rate *rate = tokens ? &a->tokens : &a->requests;
        if ((m->used >> i & 1) == 0 || atomic_load(&rate->per_minute) == 0) {
            continue;
        }
        struct at_meter_rate_view view = at_meter_rate_look(rate, now);
        if (!found || view.remaining < ret->remaining) {
            *ret = view;
            found = true;
        }
    }
    return found;
}

void gw_meter_limits(struct gw_request *r, struct at_buf *out)
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
    if (r->meter.open != NULL && r->meter.used != 0) {
        gw_meter_limits(r, &r->down);
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
    struct gw_meter more = {.key = m->key, .open = m->open, .used = m->used};
    struct at_meter_account *of;
    int64_t before = at_meter_cost_nanousd(&m->price, 0, m->completion_max);
    uint64_t max = m->sent + AT_GW_EXTEND_TOKENS;
    int64_t amount = at_meter_cost_nanousd(&m->price, 0, max) - before;
    if (gw_meter_hold(&more, amount, &of) != AT_METER_HELD) {
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
    m->cut |= atomic_load_explicit(&m->key->revoked, memory_order_relaxed);
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

/* Its money is used up, or its key was revoked: the stream ends with an event that says so, and the
 * replica need not go on. */
void gw_meter_cut(struct gw_request *r)
{
    static const char REVOKED[] =
        "event: error\ndata: {\"error\":{\"message\":\"this API key was revoked\",\"type\":"
        "\"invalid_request_error\",\"param\":null,\"code\":\"invalid_api_key\"}}\n\n";
    static const char SPENT[] =
        "event: error\ndata: {\"error\":{\"message\":\"You exceeded your current quota: the budget "
        "of "
        "this API key was used up by this answer\",\"type\":\"insufficient_quota\",\"param\":null,"
        "\"code\":\"insufficient_quota\"}}\n\n";
    struct at_http_exchange *ex = r->ex;
    if (!r->meter.cut || ex == NULL) {
        return;
    }
    bool revoked = atomic_load_explicit(&r->meter.key->revoked, memory_order_relaxed);
    struct at_str event = at_str_of(revoked ? REVOKED : SPENT);
    r->ex = NULL;
    gw_request_answered(r, revoked ? 401 : 429);
    if (r->sse && at_http_stream_write(ex, event.ptr, event.len) == AT_OK) {
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
    } else if (m->sent > 0 || (fine && gw_request_completes(r))) {
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
    for (size_t i = 0; i < m->open->n; i++) {
        struct at_meter_account *a = m->open->accounts[i].account;
        if ((m->used >> i & 1) == 0) {
            continue;
        }
        at_meter_rate_correct(&a->tokens, tokens, now);
        at_meter_settle(a, (m->held >> i & 1) != 0 ? m->held_nanousd : 0, use->cost_nanousd);
        if (use->cost_nanousd != 0) {
            gw_ledger_note(r->worker, a);
        }
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
        gw_meter_give_up(r);
    }
    m->is_open = false;
}

void gw_meter_release(struct gw_request *r)
{
    gw_key_unref(r->meter.key);
    r->meter.key = NULL;
    r->meter.open = NULL;
}
