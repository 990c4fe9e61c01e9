#include "runners/llm_priv.h"

#include "core/digest.h"
#include "core/mem.h"

#include <math.h>
#include <string.h>

static bool is_chat(const struct llm_call *call)
{
    return call->request.kind == AT_OPENAI_CHAT;
}

static json_t *text_json(const char *text, size_t len)
{
    return json_stringn(text != NULL ? text : "", len);
}

static json_t *usage(const struct llm_call *call)
{
    size_t prompt = 0, answer = 0, reused = 0;
    for (size_t i = 0; i < call->n_choices; i++) {
        const struct llm_choice *c = &call->choices[i];
        /* Several answers to one prompt read it once. */
        bool first = call->request.kind == AT_OPENAI_EMBED || c->index % call->request.n == 0;
        prompt += first ? c->n_prompt : 0;
        reused += first ? c->n_reused : 0;
        answer += c->n_answer;
    }
    if (call->request.kind == AT_OPENAI_EMBED) {
        return json_pack("{s:I, s:I}", "prompt_tokens", (json_int_t)prompt, "total_tokens",
                         (json_int_t)prompt);
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)prompt,
                     "completion_tokens", (json_int_t)answer, "total_tokens",
                     (json_int_t)(prompt + answer), "prompt_tokens_details", "cached_tokens",
                     (json_int_t)reused);
}

/* Stages for whoever asks for them, in llama-server's words and one of ours (queue_ms); of several
 * answers those of the slowest. NULL: not asked for. */
static json_t *timings(const struct llm_call *call)
{
    const struct llm_choice *slow = NULL;
    int64_t most = -1;
    if (at_http_header_get(at_http_request(call->ex), "x-atoll-timing").len == 0) {
        return NULL;
    }
    for (size_t i = 0; i < call->n_choices; i++) {
        const struct llm_choice *c = &call->choices[i];
        int64_t took = c->queue_ns + c->prompt_ns + c->answer_ns;
        slow = took > most ? c : slow;
        most = took > most ? took : most;
    }
    if (slow == NULL) {
        return NULL;
    }
    return json_pack("{s:f, s:I, s:I, s:f, s:I, s:f}", "queue_ms", (double)slow->queue_ns / 1e6,
                     "cache_n", (json_int_t)slow->n_reused, "prompt_n",
                     (json_int_t)(slow->n_prompt - slow->n_reused), "prompt_ms",
                     (double)slow->prompt_ns / 1e6, "predicted_n", (json_int_t)slow->n_answer,
                     "predicted_ms", (double)slow->answer_ns / 1e6);
}

/* Completions have four lists beside each other where chats have one of objects. */
static json_t *logprobs_of_text(const json_t *entries, size_t offset)
{
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array(),
           *offsets = json_array();
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);
        json_t *top = json_object();
        const json_t *alternatives = json_object_get(entry, "top_logprobs");
        for (size_t k = 0; k < json_array_size(alternatives); k++) {
            const json_t *one = json_array_get(alternatives, k);
            json_object_set(top, json_string_value(json_object_get(one, "token")),
                            json_object_get(one, "logprob"));
        }
        json_array_append(tokens, json_object_get(entry, "token"));
        json_array_append(values, json_object_get(entry, "logprob"));
        json_array_append_new(tops, top);
        json_array_append_new(offsets, json_integer((json_int_t)offset));
        offset += json_array_size(json_object_get(entry, "bytes"));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values,
                     "top_logprobs", tops, "text_offset", offsets);
}

static json_t *logprobs_json(const struct llm_call *call, const json_t *entries, size_t offset)
{
    if (call->request.logprobs < 0) {
        return json_null();
    }
    if (!is_chat(call)) {
        return logprobs_of_text(entries, offset);
    }
    json_t *list = entries != NULL ? json_deep_copy(entries) : json_array();
    return json_pack("{s:o, s:n}", "content", list, "refusal");
}

static json_t *whole_choice(const struct llm_call *call, const struct llm_choice *c)
{
    json_t *text = text_json(c->text.data, c->text.len);
    json_t *logged = logprobs_json(call, c->logprobs, 0);
    json_t *value;
    if (is_chat(call)) {
        value = json_pack("{s:I, s:{s:s, s:o, s:n}, s:o, s:s}", "index", (json_int_t)c->index,
                          "message", "role", "assistant", "content", text, "refusal", "logprobs",
                          logged, "finish_reason", c->why);
    } else {
        value = json_pack("{s:I, s:o, s:o, s:s}", "index", (json_int_t)c->index, "text", text,
                          "logprobs", logged, "finish_reason", c->why);
    }
    return value;
}

static json_t *embedding_json(const struct llm_call *call, const struct llm_choice *c)
{
    size_t n = call->request.dimensions != 0 && call->request.dimensions < c->n_embedding
                   ? call->request.dimensions
                   : c->n_embedding;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)c->embedding[i] * (double)c->embedding[i];
    }
    float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 1.0f;
    for (size_t i = 0; i < n; i++) {
        c->embedding[i] *= scale;
    }
    if (call->request.base64) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        enum at_rc rc = at_base64_encode(c->embedding, n * sizeof(float), &text);
        return rc == AT_OK ? text_json(text.data, text.len) : NULL;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_real((double)c->embedding[i]));
    }
    return list;
}

static enum at_rc dump(json_t *value_take, struct at_buf *buf)
{
    AT_CLEANUP(at_cleanup_json) json_t *value = value_take;
    return value != NULL ? at_json_dump(value, buf) : AT_INTERNAL;
}

enum at_rc llm_encode_whole(const struct llm_call *call, struct at_buf *buf)
{
    json_t *list = json_array();
    bool embed = call->request.kind == AT_OPENAI_EMBED;
    for (size_t i = 0; i < call->n_choices; i++) {
        const struct llm_choice *c = &call->choices[i];
        json_array_append_new(list,
                              embed ? json_pack("{s:s, s:I, s:o}", "object", "embedding", "index",
                                                (json_int_t)i, "embedding", embedding_json(call, c))
                                    : whole_choice(call, c));
    }
    if (embed) {
        return dump(json_pack("{s:s, s:o, s:s, s:o}", "object", "list", "data", list, "model",
                              call->service->options.name, "usage", usage(call)),
                    buf);
    }
    return dump(json_pack("{s:s, s:s, s:I, s:s, s:o, s:o, s:o*}", "id", call->id, "object",
                          is_chat(call) ? "chat.completion" : "text_completion", "created",
                          (json_int_t)call->created_s, "model", call->service->options.name,
                          "choices", list, "usage", usage(call), "timings", timings(call)),
                buf);
}

/* --- streams: written by hand, for there is one for each token --- */

static enum at_rc open_event(const struct llm_call *call, struct at_buf *buf)
{
    const char *name = call->service->options.name;
    enum at_rc rc = at_buf_printf(
        buf, "data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", call->id,
        is_chat(call) ? "chat.completion.chunk" : "text_completion", (long long)call->created_s);
    return rc != AT_OK ? rc : at_json_dump_text(name, strlen(name), buf);
}

static enum at_rc close_event(const struct llm_call *call, struct at_buf *buf)
{
    return at_buf_append_str(buf, call->request.include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

enum at_rc llm_encode_piece(const struct llm_call *call, struct llm_choice *choice,
                            const char *text, size_t len, const json_t *logprobs,
                            struct at_buf *buf)
{
    enum at_rc rc = open_event(call, buf);
    rc = rc != AT_OK ? rc
                     : at_buf_printf(buf, ",\"choices\":[{\"index\":%zu,%s", choice->index,
                                     is_chat(call) ? "\"delta\":{\"content\":" : "\"text\":");
    rc = rc != AT_OK ? rc : at_json_dump_text(text, len, buf);
    rc = rc != AT_OK ? rc
                     : at_buf_append_str(buf, is_chat(call) ? "},\"logprobs\":" : ",\"logprobs\":");
    if (rc == AT_OK && logprobs == NULL) {
        rc = at_buf_append_str(buf, "null");
    } else if (rc == AT_OK) {
        rc = dump(logprobs_json(call, logprobs, choice->told), buf);
    }
    choice->told += len;
    rc = rc != AT_OK ? rc : at_buf_append_str(buf, ",\"finish_reason\":null}]");
    return rc != AT_OK ? rc : close_event(call, buf);
}

enum at_rc llm_encode_role(const struct llm_call *call, const struct llm_choice *choice,
                           struct at_buf *buf)
{
    enum at_rc rc = open_event(call, buf);
    rc = rc != AT_OK
             ? rc
             : at_buf_printf(buf,
                             ",\"choices\":[{\"index\":%zu,\"delta\":{\"role\":\"assistant\","
                             "\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
                             choice->index);
    return rc != AT_OK ? rc : close_event(call, buf);
}

enum at_rc llm_encode_end(const struct llm_call *call, const struct llm_choice *choice,
                          struct at_buf *buf)
{
    enum at_rc rc = open_event(call, buf);
    rc = rc != AT_OK
             ? rc
             : at_buf_printf(
                   buf,
                   ",\"choices\":[{\"index\":%zu,%s,\"logprobs\":null,\"finish_reason\":\"%s\"}]",
                   choice->index, is_chat(call) ? "\"delta\":{}" : "\"text\":\"\"", choice->why);
    return rc != AT_OK ? rc : close_event(call, buf);
}

enum at_rc llm_encode_stream_usage(const struct llm_call *call, struct at_buf *buf)
{
    enum at_rc rc = open_event(call, buf);
    rc = rc != AT_OK ? rc : at_buf_append_str(buf, ",\"choices\":[],\"usage\":");
    rc = rc != AT_OK ? rc : dump(usage(call), buf);
    json_t *stages = timings(call);
    if (rc == AT_OK && stages != NULL) {
        rc = at_buf_append_str(buf, ",\"timings\":");
        rc = rc != AT_OK ? rc : dump(json_incref(stages), buf);
    }
    json_decref(stages);
    return rc != AT_OK ? rc : at_buf_append_str(buf, "}\n\n");
}
