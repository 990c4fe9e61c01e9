#include "runners/llm_priv.h"

#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define STREAM_TYPE "text/event-stream"
#define DONE_EVENT "data: [DONE]\n\n"
#define ID_TEXT_BYTES 24
/* Shorter texts than this can be no longer than the context, whatever the tokens: not looked at. */
#define BYTES_PER_TOKEN_MAX 256

static const char *id_text(uint64_t id, char out[ID_TEXT_BYTES])
{
    snprintf(out, ID_TEXT_BYTES, "%llu", (unsigned long long)id);
    return out;
}

static void choice_leave(struct llm_choice *c)
{
    char key[ID_TEXT_BYTES];
    if (c->id != 0) {
        at_map_remove(c->call->service->choices, id_text(c->id, key));
        c->call->service->n_inside--;
        c->id = 0;
    }
}

void llm_call_free(struct llm_call *call)
{
    struct at_llm_service *s = call->service;
    for (size_t i = 0; i < call->n_choices; i++) {
        struct llm_choice *c = &call->choices[i];
        if (c->id != 0 && !c->ended) {
            at_llm_engine_cancel(s->engine, c->id);
        }
        choice_leave(c);
        at_buf_done(&c->text);
        json_decref(c->logprobs);
        at_free(c->embedding);
    }
    *(call->prev != NULL ? &call->prev->next : &s->calls) = call->next;
    if (call->next != NULL) {
        call->next->prev = call->prev;
    }
    at_metric_add(s->serving.in_flight, -1);
    at_metric_observe_ns(s->total_time, at_sys_mono_ns(at_loop_sys(s->loop)) - call->arrived_ns);
    at_free(call->choices);
    at_openai_request_done(&call->request);
    at_free(call);
}

static void call_gone(void *ctx)
{
    llm_call_free(ctx);
}

/* --- requests --- */

static enum at_rc too_long(struct at_openai_error *error, const char *param, size_t tokens,
                           size_t most)
{
    error->status = 400;
    error->code = "context_length_exceeded";
    return at_err_set_field(&error->err, AT_BAD_REQUEST, param,
                            "this model takes at most %zu tokens, and the prompt has %zu%s", most,
                            tokens, tokens == most ? ": none is left for an answer" : "");
}

/* The conversation as one text, as the model's template has it. */
static enum at_rc render(struct at_llm_service *s, const struct at_openai_request *r,
                         struct at_buf *out, struct at_openai_error *error)
{
    struct llama_chat_message *chat = at_alloc(r->n_messages * sizeof *chat);
    size_t bytes = 256;
    for (size_t i = 0; i < r->n_messages; i++) {
        chat[i] = (struct llama_chat_message){r->messages[i].role, r->messages[i].content};
        bytes += strlen(r->messages[i].role) + strlen(r->messages[i].content) + 64;
    }
    enum at_rc rc = AT_TOO_LARGE;
    int32_t n = (int32_t)bytes;
    for (int tries = 0; tries < 2 && rc == AT_TOO_LARGE; tries++) {
        char *place = NULL;
        int32_t room = n;
        if (at_buf_reserve(out, (size_t)room + 1, &place) != AT_OK) {
            break;
        }
        n = s->l->llama_chat_apply_template(s->chat_template, chat, r->n_messages, true, place,
                                            room);
        rc = n < 0 ? AT_INTERNAL : n > room ? AT_TOO_LARGE : AT_OK;
        at_buf_commit(out, rc == AT_OK ? (size_t)n : 0);
    }
    at_free(chat);
    if (rc != AT_OK) {
        error->status = 400;
        return at_err_set_field(&error->err, AT_BAD_REQUEST, "messages",
                                "the model's template cannot be applied to these messages");
    }
    return AT_OK;
}

/* Tokens of a text into work. */
static enum at_rc tokenize(struct at_llm_service *s, struct at_str text, size_t most,
                           const char *param, struct at_llm_work *work,
                           struct at_openai_error *error)
{
    if (text.len > most * BYTES_PER_TOKEN_MAX) {
        return too_long(error, param, text.len / BYTES_PER_TOKEN_MAX, most);
    }
    int32_t room = (int32_t)text.len + 8;
    work->tokens = at_alloc((size_t)room * sizeof(int32_t));
    int32_t n =
        s->l->llama_tokenize(s->vocab, text.ptr, (int32_t)text.len, work->tokens, room, true, true);
    if (n < 0) {
        room = -n;
        work->tokens = at_realloc(work->tokens, (size_t)room * sizeof(int32_t));
        n = s->l->llama_tokenize(s->vocab, text.ptr, (int32_t)text.len, work->tokens, room, true,
                                 true);
    }
    int32_t bos = s->l->llama_vocab_bos(s->vocab);
    if (n > 1 && work->tokens[0] == bos && work->tokens[1] == bos) { /* the template has one too */
        memmove(work->tokens, work->tokens + 1, (size_t)(n - 1) * sizeof(int32_t));
        n--;
    }
    work->n_prompt = n > 0 ? (size_t)n : 0;
    return AT_OK;
}

static enum at_rc take_tokens(struct at_llm_service *s, const json_t *list, const char *param,
                              struct at_llm_work *work, struct at_openai_error *error)
{
    int32_t n_vocab = s->l->llama_vocab_n_tokens(s->vocab);
    work->n_prompt = json_array_size(list);
    work->tokens = at_alloc(work->n_prompt * sizeof(int32_t));
    for (size_t i = 0; i < work->n_prompt; i++) {
        json_int_t token = json_integer_value(json_array_get(list, i));
        if (token < 0 || token >= n_vocab) {
            error->status = 400;
            error->code = "invalid_value";
            return at_err_set_field(&error->err, AT_BAD_REQUEST, param,
                                    "token %lld is not one of the model's %d", (long long)token,
                                    n_vocab);
        }
        work->tokens[i] = (int32_t)token;
    }
    return AT_OK;
}

static enum at_rc take_prompt(struct llm_call *call, size_t index, struct at_llm_work *work,
                              struct at_openai_error *error)
{
    struct at_llm_service *s = call->service;
    const struct at_openai_request *r = &call->request;
    bool embed = r->kind == AT_OPENAI_EMBED;
    size_t most = embed ? at_llm_engine_embed_max(s->engine) : at_llm_engine_context(s->engine);
    const char *param = embed ? "input" : r->kind == AT_OPENAI_CHAT ? "messages" : "prompt";
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    const json_t *tokens = NULL;
    struct at_str prompt;
    enum at_rc rc = AT_OK;
    if (r->kind == AT_OPENAI_CHAT) {
        rc = render(s, r, &text, error);
        prompt = (struct at_str){text.data, text.len};
    } else {
        prompt = at_str_of(at_openai_prompt(r, index, &tokens));
    }
    if (rc == AT_OK) {
        rc = tokens != NULL ? take_tokens(s, tokens, param, work, error)
                            : tokenize(s, prompt, most, param, work, error);
    }
    if (rc == AT_OK && work->n_prompt > most - (embed ? 0 : 1)) {
        return too_long(error, param, work->n_prompt, most);
    }
    if (rc == AT_OK && work->n_prompt == 0) {
        error->status = 400;
        return at_err_set_field(&error->err, AT_BAD_REQUEST, param, "the prompt is empty");
    }
    return rc;
}

static void take_sampling(struct llm_call *call, size_t index, struct at_llm_work *work)
{
    const struct at_openai_request *r = &call->request;
    struct at_llm_service *s = call->service;
    uint32_t seed = r->seed + (uint32_t)(index % r->n); /* several answers differ */
    if (!r->has_seed) {
        at_sys_random(at_loop_sys(s->loop), &seed, sizeof seed);
    }
    work->sampling = (struct at_llm_sampling){.temperature = (float)r->temperature,
                                              .top_p = (float)r->top_p,
                                              .min_p = (float)r->min_p,
                                              .frequency = (float)r->frequency,
                                              .presence = (float)r->presence,
                                              .repeat = (float)r->repeat,
                                              .top_k = r->top_k,
                                              .seed = seed,
                                              .logprobs = r->logprobs,
                                              .ignore_eos = r->ignore_eos};
    if (r->n_bias != 0) {
        work->sampling.bias = at_alloc(r->n_bias * sizeof *work->sampling.bias);
        for (size_t i = 0; i < r->n_bias; i++) {
            work->sampling.bias[i] =
                (struct llama_logit_bias){.token = r->bias[i].token, .bias = r->bias[i].bias};
        }
        work->sampling.n_bias = r->n_bias;
    }
    if (r->n_stops != 0) {
        work->stops = at_alloc(r->n_stops * sizeof *work->stops);
        for (size_t i = 0; i < r->n_stops; i++) {
            work->stops[i] = at_strdup(r->stops[i]);
        }
        work->n_stops = r->n_stops;
    }
}

/* Whose turn it is: what the gateway says, else the body's user. */
static char *client_of(const struct llm_call *call)
{
    struct at_str header = at_http_header_get(at_http_request(call->ex), "atoll-client");
    if (header.ptr != NULL && header.len != 0) {
        return at_strndup(header.ptr, header.len < 256 ? header.len : 256);
    }
    const char *user = call->request.user != NULL ? call->request.user : "";
    return at_strndup(user, strnlen(user, 256));
}

static enum at_rc make_work(struct llm_call *call, size_t index, struct at_llm_work **ret,
                            struct at_openai_error *error)
{
    struct at_llm_service *s = call->service;
    const struct at_openai_request *r = &call->request;
    struct at_llm_work *work = AT_NEW(struct at_llm_work);
    enum at_rc rc = take_prompt(call, index / r->n, work, error);
    for (size_t i = 0; i < r->n_bias && rc == AT_OK; i++) {
        if (r->bias[i].token >= s->l->llama_vocab_n_tokens(s->vocab)) {
            error->status = 400;
            rc = at_err_set_field(&error->err, AT_BAD_REQUEST, "logit_bias",
                                  "token %d is not one of the model's", r->bias[i].token);
        }
    }
    if (rc != AT_OK) {
        at_llm_work_free(work);
        return rc;
    }
    work->embed = r->kind == AT_OPENAI_EMBED;
    if (!work->embed) {
        size_t left = at_llm_engine_context(s->engine) - work->n_prompt;
        size_t asked = r->max_tokens != 0          ? r->max_tokens
                       : r->kind == AT_OPENAI_TEXT ? 16 /* the protocol's own */
                                                   : left;
        work->max_new = asked < left ? asked : left;
        work->tokens = at_realloc(work->tokens, (work->n_prompt + work->max_new) * sizeof(int32_t));
        take_sampling(call, index, work);
    }
    work->client = client_of(call);
    *ret = work;
    return AT_OK;
}

static enum at_rc submit_all(struct llm_call *call, struct at_openai_error *error)
{
    struct at_llm_service *s = call->service;
    const struct at_openai_request *r = &call->request;
    size_t n = r->n_prompts * r->n;
    if (s->n_inside + n > s->options.queue_max) {
        error->status = 503;
        error->code = "overloaded";
        return at_err_set(&error->err, AT_EXHAUSTED, "%zu requests are waiting; try again",
                          s->n_inside);
    }
    struct at_llm_work **works = at_alloc(n * sizeof *works);
    enum at_rc rc = AT_OK;
    size_t made = 0;
    for (; made < n && rc == AT_OK; made++) {
        rc = make_work(call, made, &works[made], error);
    }
    call->choices = at_alloc(n * sizeof *call->choices);
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        struct llm_choice *c = &call->choices[i];
        char key[ID_TEXT_BYTES];
        *c = (struct llm_choice){.call = call, .index = i, .id = ++s->next_id};
        works[i]->id = c->id;
        at_map_put(s->choices, id_text(c->id, key), c);
        s->n_inside++;
        call->n_choices++;
        at_llm_engine_submit(s->engine, works[i]);
        works[i] = NULL;
    }
    for (size_t i = 0; i < made; i++) {
        at_llm_work_free(works[i]);
    }
    at_free(works);
    return rc;
}

static enum at_rc check_model(const struct llm_call *call, struct at_openai_error *error)
{
    const struct at_llm_service *s = call->service;
    if (strcmp(call->request.model, s->options.name) != 0) {
        error->status = 404;
        error->code = "model_not_found";
        return at_err_set_field(&error->err, AT_NOT_FOUND, "model",
                                "the model `%.64s` does not exist; this server has `%s`",
                                call->request.model, s->options.name);
    }
    if (call->request.kind == AT_OPENAI_CHAT && !s->chats) {
        error->status = 400;
        error->code = "unsupported_value";
        return at_err_set_field(&error->err, AT_BAD_REQUEST, "messages",
                                "this model has no chat template that is known here: use "
                                "completions, or start the runner with --chat-template");
    }
    return AT_OK;
}

static void add_echo(struct llm_call *call)
{
    for (size_t i = 0; i < call->n_choices && call->request.echo; i++) {
        const json_t *tokens = NULL;
        const char *text = at_openai_prompt(&call->request, i / call->request.n, &tokens);
        if (text != NULL) {
            (void)!at_buf_append_str(&call->choices[i].text, text);
        }
    }
}

static void begin_stream(struct llm_call *call)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf first = {0};
    enum at_rc rc = AT_OK;
    at_http_stream_begin(call->ex, 200, STREAM_TYPE, "Cache-Control: no-cache\r\n");
    call->begun = true;
    for (size_t i = 0; i < call->n_choices && rc == AT_OK; i++) {
        struct llm_choice *c = &call->choices[i];
        if (call->request.kind == AT_OPENAI_CHAT) {
            rc = llm_encode_role(call, c, &first);
        } else if (c->text.len != 0) {
            rc = llm_encode_piece(call, c, c->text.data, c->text.len, NULL, &first);
        }
    }
    if (first.len != 0) {
        (void)!at_http_stream_write(call->ex, first.data, first.len);
    }
}

void llm_call_new(struct at_llm_service *s, struct at_http_exchange *ex, enum at_openai_kind kind)
{
    struct llm_call *call = AT_NEW(struct llm_call);
    const struct at_sys *sys = at_loop_sys(s->loop);
    struct at_str body = at_http_request_body(ex);
    struct at_openai_error error = {0};
    uint64_t random;
    call->service = s;
    call->ex = ex;
    call->arrived_ns = at_sys_mono_ns(sys);
    call->created_s = at_sys_wall_ns(sys) / AT_NS_PER_S;
    at_sys_random(sys, &random, sizeof random);
    snprintf(call->id, sizeof call->id, "%s-%016llx", kind == AT_OPENAI_CHAT ? "chatcmpl" : "cmpl",
             (unsigned long long)random);
    call->next = s->calls;
    if (s->calls != NULL) {
        s->calls->prev = call;
    }
    s->calls = call;
    at_metric_add(s->serving.in_flight, 1);
    enum at_rc rc = at_openai_parse(kind, body.ptr, body.len, &call->request, &error);
    rc = rc != AT_OK ? rc : check_model(call, &error);
    rc = rc != AT_OK ? rc : submit_all(call, &error);
    if (rc != AT_OK) {
        llm_respond_error(s, ex, &error);
        llm_call_free(call);
        return;
    }
    add_echo(call);
    at_http_on_gone(ex, call_gone, call);
    if (call->request.stream) {
        begin_stream(call);
    }
}

/* --- answers --- */

static const char *const WHY[] = {
    [AT_LLM_STOP] = "stop", [AT_LLM_LENGTH] = "length", [AT_LLM_FAILED] = "error"};

static void fail_call(struct llm_call *call, const struct at_llm_event *event)
{
    struct at_llm_service *s = call->service;
    struct at_openai_error error = {.status = 500, .code = "engine_error", .err = event->err};
    struct at_http_exchange *ex = call->ex;
    if (!call->begun) {
        llm_respond_error(s, ex, &error);
    } else {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        if (at_buf_append_str(&text, "data: ") == AT_OK &&
            at_openai_encode_error(&error, &text) == AT_OK &&
            at_buf_append_str(&text, "\n\n") == AT_OK) {
            (void)!at_http_stream_write(ex, text.data, text.len);
        }
        at_http_stream_end(ex);
    }
    llm_call_free(call);
}

static void end_whole(struct llm_call *call)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    struct at_llm_service *s = call->service;
    if (llm_encode_whole(call, &body) != AT_OK) {
        struct at_openai_error error = {.status = 500};
        (void)!at_err_set(&error.err, AT_INTERNAL, "the answer cannot be said in JSON");
        llm_respond_error(s, call->ex, &error);
    } else {
        llm_respond(s, call->ex, &body);
    }
    llm_call_free(call);
}

/* false: the client is gone or too slow, and the call is no more. */
static bool stream_piece(struct llm_call *call, struct llm_choice *c,
                         const struct at_llm_event *event)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = AT_OK;
    if (event->text.len != 0 || event->logprobs != NULL) {
        rc = llm_encode_piece(call, c, event->text.data != NULL ? event->text.data : "",
                              event->text.len, event->logprobs, &out);
    }
    if (rc == AT_OK && event->ended) {
        rc = llm_encode_end(call, c, &out);
    }
    if (rc == AT_OK && call->n_ended == call->n_choices) {
        rc = call->request.include_usage ? llm_encode_stream_usage(call, &out) : AT_OK;
        rc = rc != AT_OK ? rc : at_buf_append_str(&out, DONE_EVENT);
    }
    if (rc == AT_OK && out.len != 0) {
        rc = at_http_stream_write(call->ex, out.data, out.len);
    }
    if (rc != AT_OK) { /* it reads too slowly: what it has not read cannot wait for ever */
        at_http_abort(call->ex);
        llm_call_free(call);
        return false;
    }
    return true;
}

void llm_on_event(void *service, const struct at_llm_event *event)
{
    struct at_llm_service *s = service;
    char key[ID_TEXT_BYTES];
    struct llm_choice *c = at_map_get(s->choices, id_text(event->id, key));
    if (c == NULL) {
        return; /* nobody waits for it any more */
    }
    struct llm_call *call = c->call;
    if (event->ended) {
        c->ended = true;
        c->why = WHY[event->why];
        c->n_prompt = event->n_prompt;
        c->n_answer = event->n_answer;
        c->n_reused = event->n_reused;
        c->queue_ns = event->queue_ns;
        c->prompt_ns = event->prompt_ns;
        c->answer_ns = event->answer_ns;
        call->n_ended++;
        choice_leave(c);
    }
    if (event->ended && event->why == AT_LLM_FAILED) {
        fail_call(call, event);
        return;
    }
    if (call->begun) {
        if (stream_piece(call, c, event) && call->n_ended == call->n_choices) {
            at_http_stream_end(call->ex);
            llm_call_free(call);
        }
        return;
    }
    if (event->text.len != 0 &&
        at_buf_append(&c->text, event->text.data, event->text.len) != AT_OK) {
        assert(!"an answer is bound by its tokens");
    }
    if (event->logprobs != NULL) {
        c->logprobs = c->logprobs != NULL ? c->logprobs : json_array();
        json_array_extend(c->logprobs, event->logprobs);
    }
    if (event->embedding != NULL) {
        c->embedding = at_alloc(event->n_embedding * sizeof(float));
        memcpy(c->embedding, event->embedding, event->n_embedding * sizeof(float));
        c->n_embedding = event->n_embedding;
    }
    if (call->n_ended == call->n_choices) {
        end_whole(call);
    }
}
