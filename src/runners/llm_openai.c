#include "runners/llm_openai.h"

#include "core/mem.h"
#include "core/str.h"

#include <stdlib.h>
#include <string.h>

static enum at_rc refuse(struct at_openai_error *error, const char *param, const char *code,
                         const char *what)
{
    error->status = 400;
    error->code = code;
    return at_err_set_field(&error->err, AT_BAD_REQUEST, param, "%s", what);
}

static enum at_rc invalid(struct at_openai_error *error, const char *param, const char *need)
{
    error->status = 400;
    error->code = "invalid_value";
    return at_err_set_field(&error->err, AT_BAD_REQUEST, param, "'%s' must be %s", param, need);
}

/* A member that is absent or null keeps its default. */
static const json_t *member(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return json_is_null(value) ? NULL : value;
}

static enum at_rc take_number(const json_t *body, const char *name, double least, double most,
                              const char *need, double *ret, struct at_openai_error *error)
{
    const json_t *value = member(body, name);
    if (value == NULL) {
        return AT_OK;
    }
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= least && number <= most)) {
        return invalid(error, name, need);
    }
    *ret = number;
    return AT_OK;
}

static enum at_rc take_whole(const json_t *body, const char *name, json_int_t least,
                             json_int_t most, const char *need, json_int_t *ret,
                             struct at_openai_error *error)
{
    const json_t *value = member(body, name);
    if (value == NULL) {
        return AT_OK;
    }
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most) {
        return invalid(error, name, need);
    }
    *ret = number;
    return AT_OK;
}

static enum at_rc take_flag(const json_t *body, const char *name, bool *ret,
                            struct at_openai_error *error)
{
    const json_t *value = member(body, name);
    if (value != NULL && !json_is_boolean(value)) {
        return invalid(error, name, "true or false");
    }
    *ret = value != NULL ? json_is_true(value) : *ret;
    return AT_OK;
}

static enum at_rc take_stops(struct at_openai_request *r, struct at_openai_error *error)
{
    static const char NEED[] = "a string or a list of at most 16 strings of 1 to 256 bytes";
    const json_t *value = member(r->body, "stop");
    size_t n = json_is_array(value) ? json_array_size(value) : value != NULL;
    if (n > AT_LLM_STOPS_MAX) {
        return invalid(error, "stop", NEED);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        size_t len = json_string_length(one);
        if (!json_is_string(one) || len == 0 || len > AT_LLM_STOP_BYTES_MAX ||
            strlen(json_string_value(one)) != len) {
            return invalid(error, "stop", NEED);
        }
        r->stops[r->n_stops++] = json_string_value(one);
    }
    return AT_OK;
}

static enum at_rc take_bias(struct at_openai_request *r, struct at_openai_error *error)
{
    static const char NEED[] = "an object of token numbers and biases of -100 to 100";
    const json_t *value = member(r->body, "logit_bias");
    if (value != NULL && (!json_is_object(value) || json_object_size(value) > AT_LLM_BIAS_MAX)) {
        return invalid(error, "logit_bias", NEED);
    }
    r->bias = at_alloc((json_object_size(value) + 1) * sizeof *r->bias);
    const char *key;
    json_t *bias;
    json_object_foreach((json_t *)value, key, bias)
    {
        uint64_t token;
        double number = json_number_value(bias);
        if (at_str_to_u64(at_str_of(key), &token) != AT_OK || token > INT32_MAX ||
            !json_is_number(bias) || !(number >= -100 && number <= 100)) {
            return invalid(error, "logit_bias", NEED);
        }
        r->bias[r->n_bias++] = (struct at_openai_bias){(int32_t)token, (float)number};
    }
    return AT_OK;
}

/* Content is a text, or a list of parts of which all are text. */
static enum at_rc take_content(const json_t *content, char **ret, struct at_openai_error *error)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (content == NULL || json_is_null(content)) {
        *ret = at_strdup("");
        return AT_OK;
    }
    if (!json_is_string(content) && !json_is_array(content)) {
        return invalid(error, "messages", "a list of messages whose content is text");
    }
    size_t n = json_is_array(content) ? json_array_size(content) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *part = json_is_array(content) ? json_array_get(content, i) : content;
        const json_t *inner = json_is_object(part) ? json_object_get(part, "text") : part;
        if (!json_is_string(inner)) {
            return refuse(error, "messages", "unsupported_value",
                          "only text can be read by this model: a part of a message has none");
        }
        if (memchr(json_string_value(inner), '\0', json_string_length(inner)) != NULL) {
            return invalid(error, "messages", "text without NUL characters");
        }
        if (at_buf_append(&text, json_string_value(inner), json_string_length(inner)) != AT_OK) {
            return invalid(error, "messages", "smaller");
        }
    }
    *ret = at_strdup(text.data != NULL ? text.data : "");
    return AT_OK;
}

static enum at_rc take_messages(struct at_openai_request *r, struct at_openai_error *error)
{
    const json_t *list = json_object_get(r->body, "messages");
    size_t n = json_array_size(list);
    if (n == 0 || n > AT_LLM_MESSAGES_MAX) {
        return invalid(error, "messages", "a list of at least one message");
    }
    r->messages = at_alloc(n * sizeof *r->messages);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        if (role == NULL || role[0] == '\0') {
            return invalid(error, "messages", "a list of objects with role and content");
        }
        r->messages[i].role = strcmp(role, "developer") == 0 ? "system" : role;
        enum at_rc rc =
            take_content(json_object_get(message, "content"), &r->messages[i].content, error);
        r->n_messages = i + 1;
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static bool tokens_list(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *token = json_array_get(value, i);
        if (!json_is_integer(token) || json_integer_value(token) < 0 ||
            json_integer_value(token) > INT32_MAX) {
            return false;
        }
    }
    return json_array_size(value) != 0;
}

static enum at_rc take_prompts(struct at_openai_request *r, const char *name,
                               struct at_openai_error *error)
{
    static const char NEED[] = "a string, a list of strings, or token numbers; none may be empty";
    const json_t *value = json_object_get(r->body, name);
    r->prompts = value;
    r->n_prompts = 1;
    bool good = json_is_string(value);
    if (json_is_array(value) && json_is_integer(json_array_get(value, 0))) {
        good = tokens_list(value);
    } else if (json_is_array(value)) {
        r->n_prompts = json_array_size(value);
        good = r->n_prompts != 0;
        for (size_t i = 0; i < r->n_prompts && good; i++) {
            const json_t *one = json_array_get(value, i);
            good = json_is_string(one) || tokens_list(one);
        }
    }
    return good ? AT_OK : invalid(error, name, NEED);
}

const char *at_openai_prompt(const struct at_openai_request *request, size_t i,
                             const json_t **ret_tokens)
{
    const json_t *all = request->prompts;
    bool many = json_is_array(all) && !json_is_integer(json_array_get(all, 0));
    const json_t *one = many ? json_array_get(all, i) : all;
    *ret_tokens = json_is_array(one) ? one : NULL;
    return json_string_value(one);
}

/* What this server does not do is refused, so that nobody believes that it was done. */
static enum at_rc refuse_what_is_not_there(const struct at_openai_request *r,
                                           struct at_openai_error *error)
{
    const json_t *format = member(r->body, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (json_array_size(member(r->body, "tools")) != 0 ||
        json_array_size(member(r->body, "functions")) != 0) {
        return refuse(error, "tools", "unsupported_parameter", "tools are not supported");
    }
    if (format != NULL && (type == NULL || strcmp(type, "text") != 0)) {
        return refuse(error, "response_format", "unsupported_parameter",
                      "only the response format text is supported");
    }
    if (member(r->body, "suffix") != NULL) {
        return refuse(error, "suffix", "unsupported_parameter", "suffix is not supported");
    }
    json_int_t best_of = 1;
    return take_whole(r->body, "best_of", 1, (json_int_t)r->n, "at most n", &best_of, error);
}

static enum at_rc take_numbers(struct at_openai_request *r, struct at_openai_error *error)
{
    const json_t *b = r->body;
    const struct {
        const char *name;
        double least, most;
        const char *need;
        double *place;
    } rows[] = {
        {"temperature", 0, 2, "a number of 0 to 2", &r->temperature},
        {"top_p", 1e-6, 1, "a number over 0, at most 1", &r->top_p},
        {"min_p", 0, 1, "a number of 0 to 1", &r->min_p},
        {"presence_penalty", -2, 2, "a number of -2 to 2", &r->presence},
        {"frequency_penalty", -2, 2, "a number of -2 to 2", &r->frequency},
        {"repeat_penalty", 0.01, 10, "a number of 0.01 to 10", &r->repeat},
    };
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(rows) && rc == AT_OK; i++) {
        rc = take_number(b, rows[i].name, rows[i].least, rows[i].most, rows[i].need, rows[i].place,
                         error);
    }
    return rc;
}

static enum at_rc take_logprobs(struct at_openai_request *r, struct at_openai_error *error)
{
    json_int_t top = 0;
    bool wanted = false;
    enum at_rc rc;
    if (r->kind == AT_OPENAI_TEXT) {
        top = -1;
        rc = take_whole(r->body, "logprobs", 0, AT_LLM_LOGPROBS_MAX, "a number of 0 to 20", &top,
                        error);
        wanted = top >= 0;
    } else {
        rc = take_flag(r->body, "logprobs", &wanted, error);
        rc = rc != AT_OK ? rc
                         : take_whole(r->body, "top_logprobs", 0, AT_LLM_LOGPROBS_MAX,
                                      "a number of 0 to 20", &top, error);
        if (rc == AT_OK && top > 0 && !wanted) {
            return invalid(error, "top_logprobs", "left out unless logprobs is true");
        }
    }
    r->logprobs = wanted ? (int)top : -1;
    return rc;
}

static enum at_rc take_wholes(struct at_openai_request *r, struct at_openai_error *error)
{
    json_int_t n = 1, most = 0, top_k = 0, seed = 0;
    static const char TOKENS[] = "a number of tokens, 1 or more";
    enum at_rc rc =
        take_whole(r->body, "n", 1, AT_LLM_CHOICES_MAX, "a number of 1 to 32", &n, error);
    if (rc == AT_OK) {
        rc = take_whole(r->body, "max_tokens", 1, INT32_MAX, TOKENS, &most, error);
    }
    if (rc == AT_OK) {
        rc = take_whole(r->body, "max_completion_tokens", 1, INT32_MAX, TOKENS, &most, error);
    }
    if (rc == AT_OK) {
        rc = take_whole(r->body, "top_k", -1, INT32_MAX, "a whole number", &top_k, error);
    }
    if (rc == AT_OK) {
        rc = take_whole(r->body, "seed", INT64_MIN, INT64_MAX, "a whole number", &seed, error);
    }
    r->n = (size_t)n;
    r->max_tokens = (size_t)most;
    r->top_k = top_k > 0 ? (int)top_k : 0;
    r->has_seed = member(r->body, "seed") != NULL;
    r->seed = (uint32_t)seed ^ (uint32_t)((uint64_t)seed >> 32);
    return rc;
}

static enum at_rc parse_answer(struct at_openai_request *r, struct at_openai_error *error)
{
    enum at_rc rc =
        r->kind == AT_OPENAI_CHAT ? take_messages(r, error) : take_prompts(r, "prompt", error);
    rc = rc != AT_OK ? rc : take_flag(r->body, "stream", &r->stream, error);
    rc = rc != AT_OK ? rc : take_flag(r->body, "ignore_eos", &r->ignore_eos, error);
    rc =
        rc != AT_OK || r->kind == AT_OPENAI_CHAT ? rc : take_flag(r->body, "echo", &r->echo, error);
    rc = rc != AT_OK ? rc : take_numbers(r, error);
    rc = rc != AT_OK ? rc : take_wholes(r, error);
    rc = rc != AT_OK ? rc : take_logprobs(r, error);
    rc = rc != AT_OK ? rc : take_stops(r, error);
    rc = rc != AT_OK ? rc : take_bias(r, error);
    rc = rc != AT_OK ? rc : refuse_what_is_not_there(r, error);
    const json_t *options = member(r->body, "stream_options");
    if (rc == AT_OK && options != NULL && (!json_is_object(options) || !r->stream)) {
        return invalid(error, "stream_options", "an object, and left out unless stream is true");
    }
    rc = rc != AT_OK ? rc : take_flag(options, "include_usage", &r->include_usage, error);
    if (rc == AT_OK && r->n_prompts * r->n > AT_LLM_CHOICES_MAX) {
        return invalid(error, "prompt", "fewer: at most 32 answers to one request");
    }
    return rc;
}

static enum at_rc parse_embed(struct at_openai_request *r, struct at_openai_error *error)
{
    const char *format = json_string_value(member(r->body, "encoding_format"));
    json_int_t dimensions = 0;
    r->base64 = format != NULL && strcmp(format, "base64") == 0;
    if (member(r->body, "encoding_format") != NULL && !r->base64 &&
        (format == NULL || strcmp(format, "float") != 0)) {
        return invalid(error, "encoding_format", "float or base64");
    }
    enum at_rc rc = take_prompts(r, "input", error);
    if (rc == AT_OK && r->n_prompts > AT_LLM_EMBED_TEXTS_MAX) {
        return invalid(error, "input", "a list of at most 2048 texts");
    }
    rc = rc != AT_OK ? rc
                     : take_whole(r->body, "dimensions", 1, INT32_MAX, "a number, 1 or more",
                                  &dimensions, error);
    r->dimensions = (size_t)dimensions;
    return rc;
}

enum at_rc at_openai_parse(enum at_openai_kind kind, const char *body, size_t len,
                           struct at_openai_request *ret, struct at_openai_error *error)
{
    *ret = (struct at_openai_request){.kind = kind,
                                      .n = 1,
                                      .n_prompts = 1,
                                      .logprobs = -1,
                                      .temperature = 1,
                                      .top_p = 1,
                                      .repeat = 1};
    *error = (struct at_openai_error){.status = 400};
    enum at_rc rc = at_json_parse(body, len, &ret->body, &error->err);
    if (rc != AT_OK) {
        return rc;
    }
    if (!json_is_object(ret->body)) {
        return refuse(error, "", NULL, "the body must be a JSON object");
    }
    ret->model = json_string_value(json_object_get(ret->body, "model"));
    if (ret->model == NULL) {
        return refuse(error, "model", "invalid_value", "you must provide a model parameter");
    }
    ret->user = json_string_value(member(ret->body, "user"));
    return kind == AT_OPENAI_EMBED ? parse_embed(ret, error) : parse_answer(ret, error);
}

void at_openai_request_done(struct at_openai_request *request)
{
    for (size_t i = 0; i < request->n_messages; i++) {
        at_free(request->messages[i].content);
    }
    at_free(request->messages);
    at_free(request->bias);
    json_decref(request->body);
    *request = (struct at_openai_request){0};
}

enum at_rc at_openai_encode_error(const struct at_openai_error *error, struct at_buf *buf)
{
    const char *type = error->status == 429   ? "rate_limit_error"
                       : error->status >= 500 ? "server_error"
                                              : "invalid_request_error";
    const char *msg = error->err.msg;
    enum at_rc rc = at_buf_append_str(buf, "{\"error\":{\"message\":");
    rc = rc != AT_OK ? rc : at_json_dump_text(msg, strlen(msg), buf);
    rc = rc != AT_OK ? rc : at_buf_printf(buf, ",\"type\":\"%s\",\"param\":", type);
    if (rc == AT_OK) {
        rc = error->err.field[0] != '\0'
                 ? at_json_dump_text(error->err.field, strlen(error->err.field), buf)
                 : at_buf_append_str(buf, "null");
    }
    rc = rc != AT_OK ? rc : at_buf_append_str(buf, ",\"code\":");
    if (rc == AT_OK) {
        rc = error->code != NULL ? at_json_dump_text(error->code, strlen(error->code), buf)
                                 : at_buf_append_str(buf, "null");
    }
    return rc != AT_OK ? rc : at_buf_append_str(buf, "}}");
}
