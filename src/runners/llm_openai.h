/* OpenAI's protocol, as its clients speak it: bodies of requests to checked values, answers to
 * bytes. Pure. */
#ifndef AT_RUNNERS_LLM_OPENAI_H
#define AT_RUNNERS_LLM_OPENAI_H

#include "core/json.h"
#include "runners/limits.h"

enum at_openai_kind { AT_OPENAI_CHAT, AT_OPENAI_TEXT, AT_OPENAI_EMBED };

struct at_openai_message {
    const char *role;
    char *content; /* parts put together; own: the request */
};

struct at_openai_bias {
    int32_t token;
    float bias;
};

/* Texts are borrowed from body. */
struct at_openai_request {
    enum at_openai_kind kind;
    json_t *body;
    const char *model, *user;
    struct at_openai_message *messages; /* chat */
    size_t n_messages;
    const json_t *prompts; /* text, embed: a string, or a list of strings or of token numbers */
    size_t n_prompts;
    bool stream, include_usage, echo, base64, ignore_eos, has_seed;
    size_t n;          /* answers to each prompt */
    size_t max_tokens; /* 0: not said */
    size_t dimensions; /* 0: not said */
    int logprobs;      /* alternatives of each token; -1: not asked for */
    int top_k;
    uint32_t seed;
    double temperature, top_p, min_p, presence, frequency, repeat;
    const char *stops[AT_LLM_STOPS_MAX];
    size_t n_stops;
    struct at_openai_bias *bias;
    size_t n_bias;
};

/* What clients are told of an error: "param" is err's field, "code" may be NULL. */
struct at_openai_error {
    int status;
    const char *code;
    struct at_err err;
};

/* err:  every refusal names the parameter (error->err.field).  own: at_openai_request_done, also
 * after an error.  in: body borrowed. */
enum at_rc at_openai_parse(enum at_openai_kind kind, const char *body, size_t len,
                           struct at_openai_request *ret,
                           struct at_openai_error *error) AT_WARN_UNUSED;
void at_openai_request_done(struct at_openai_request *request);

/* Prompt number i: its text, or its token numbers (then *ret_tokens is a list, and NULL is
 * returned). */
const char *at_openai_prompt(const struct at_openai_request *request, size_t i,
                             const json_t **ret_tokens);

/* {"error":{...}} */
enum at_rc at_openai_encode_error(const struct at_openai_error *error,
                                  struct at_buf *buf) AT_WARN_UNUSED;

#endif
