/* The HTTP side of the LLM runner, between llm_main.c (the process), llm.c (the service),
 * llm_call.c (requests on their way) and llm_encode.c (answers). */
#ifndef AT_RUNNERS_LLM_PRIV_H
#define AT_RUNNERS_LLM_PRIV_H

#include "core/map.h"
#include "runners/llm_engine.h"
#include "runners/llm_openai.h"
#include "runners/serving.h"

struct at_llm_service;

struct at_llm_options {
    const char *listen, *local_listen; /* as of the ONNX runner */
    const char *name, *version;        /* version may be NULL */
    const char *chat_template;         /* NULL: the model's own */
    struct at_llm_sched_options sched;
    size_t queue_max;
    int threads;
    enum ggml_type cache_type;
    enum at_llm_split split;
    struct runner_start start;
};

enum at_rc at_llm_service_new(struct at_loop *loop, const struct at_llama *llama,
                              struct llama_model *model, const struct at_llm_options *options,
                              struct at_llm_service **ret, struct at_err *err) AT_WARN_UNUSED;
const char *at_llm_service_addr(const struct at_llm_service *service);
bool at_llm_service_chats(const struct at_llm_service *service); /* has a template that works */
void at_llm_service_drain(struct at_llm_service *service, at_post_fn *done, void *ctx);
/* Not from a callback of the loop. */
void at_llm_service_free(struct at_llm_service *service);

/* --- within --- */

struct llm_call;

/* One answer of a call: a sequence in the engine. */
struct llm_choice {
    struct llm_call *call;
    uint64_t id;
    size_t index;
    struct at_buf text;
    size_t told; /* bytes of text whose log probabilities were told, for completions' offsets */
    json_t *logprobs;
    const char *why;
    bool ended;
    float *embedding;
    size_t n_embedding, n_prompt, n_answer, n_reused;
    int64_t queue_ns, prompt_ns, answer_ns;
};

struct llm_call {
    struct at_llm_service *service;
    struct at_http_exchange *ex;
    struct at_openai_request request;
    struct llm_choice *choices;
    size_t n_choices, n_ended;
    bool begun; /* the stream */
    char id[48];
    int64_t created_s, arrived_ns;
    struct llm_call *prev, *next;
};

struct at_llm_service {
    struct at_loop *loop;
    const struct at_llama *l;
    struct llama_model *model;
    const struct llama_vocab *vocab;
    struct at_llm_options options;
    struct at_llm_engine *engine;
    struct runner_serving serving;
    const char *chat_template;
    bool chats;
    char description[128];
    struct at_map *choices; /* by id, in text */
    struct llm_call *calls;
    size_t n_inside; /* sequences in the engine */
    uint64_t next_id;
    int64_t started_s;
    struct at_metric *total_time;
};

void llm_call_new(struct at_llm_service *s, struct at_http_exchange *ex, enum at_openai_kind kind);
void llm_call_free(struct llm_call *call); /* cancels what is in the engine */
void llm_on_event(void *service, const struct at_llm_event *event);
void llm_respond_error(struct at_llm_service *s, struct at_http_exchange *ex,
                       const struct at_openai_error *error);
void llm_respond(struct at_llm_service *s, struct at_http_exchange *ex, const struct at_buf *body);

/* The whole answer. */
enum at_rc llm_encode_whole(const struct llm_call *call, struct at_buf *buf) AT_WARN_UNUSED;
/* One event of a stream: text of a choice, with what was logged of it (may be NULL). */
enum at_rc llm_encode_piece(const struct llm_call *call, struct llm_choice *choice,
                            const char *text, size_t len, const json_t *logprobs,
                            struct at_buf *buf) AT_WARN_UNUSED;
/* The first event of a chat's choice (role), and the last one of any choice (why it ended). */
enum at_rc llm_encode_role(const struct llm_call *call, const struct llm_choice *choice,
                           struct at_buf *buf) AT_WARN_UNUSED;
enum at_rc llm_encode_end(const struct llm_call *call, const struct llm_choice *choice,
                          struct at_buf *buf) AT_WARN_UNUSED;
enum at_rc llm_encode_stream_usage(const struct llm_call *call, struct at_buf *buf) AT_WARN_UNUSED;

#endif
