/* The language model at work: a thread that runs the engine step by step, fed by messages and heard
 * by events. What is in a step is llm_sched.h's business. */
#ifndef AT_RUNNERS_LLM_ENGINE_H
#define AT_RUNNERS_LLM_ENGINE_H

#include "core/json.h"
#include "core/metrics.h"
#include "loop/loop.h"
#include "runners/llama_api.h"
#include "runners/llm_sched.h"

struct at_llm_engine;

struct at_llm_sampling {
    float temperature; /* 0: the likeliest */
    float top_p, min_p, frequency, presence, repeat;
    int top_k; /* 0: all */
    uint32_t seed;
    int logprobs; /* so many alternatives are told of each token; -1: nothing is */
    bool ignore_eos;
    struct llama_logit_bias *bias;
    size_t n_bias;
};

/* One sequence to compute. All memory in it goes along. */
struct at_llm_work {
    uint64_t id;
    char *client;
    int32_t *tokens; /* room for n_prompt + max_new */
    size_t n_prompt, max_new;
    struct at_llm_sampling sampling;
    char **stops;
    size_t n_stops;
    bool embed; /* asks for an embedding of the prompt, not for an answer */
};
void at_llm_work_free(struct at_llm_work *work); /* accepts NULL */

enum at_llm_why { AT_LLM_STOP, AT_LLM_LENGTH, AT_LLM_FAILED };

struct at_llm_event {
    struct at_llm_event *next;
    uint64_t id;
    struct at_buf text;
    json_t *logprobs; /* of the tokens since the last event: a list; NULL */
    bool ended;
    enum at_llm_why why;
    size_t n_prompt, n_answer, n_reused;
    int64_t queue_ns, prompt_ns, answer_ns; /* ended: until the first step, first token, last one */
    float *embedding;
    size_t n_embedding;
    struct at_err err; /* FAILED */
};

struct at_llm_metrics {
    struct at_metric *first_token, *between_tokens, *step, *queue;
    struct at_metric *prompt_tokens, *answer_tokens, *reused_tokens, *steps, *step_tokens;
    struct at_metric *running, *waiting, *cells_used, *cells_kept, *cells, *preemptions, *cancelled;
};

/* Has each sequence cells of its own? AUTO: where that costs little memory. */
enum at_llm_split { AT_LLM_SPLIT_AUTO, AT_LLM_SPLIT_ON, AT_LLM_SPLIT_OFF };

struct at_llm_engine_options {
    const struct at_llama *llama;
    struct llama_model *model;
    struct at_llm_sched_options sched; /* cells 0: chosen from the model's context; updated */
    enum at_llm_split split;           /* sched.split is set by it */
    int threads;
    enum ggml_type cache_type;
    struct at_llm_metrics metrics;
    void (*on_event)(void *ctx, const struct at_llm_event *event); /* on the loop */
    void *ctx;
};

/* err: AT_NOMEM the cache cannot be had. own: at_llm_engine_free, not from a callback of the loop.
 */
enum at_rc at_llm_engine_new(struct at_loop *loop, const struct at_llm_engine_options *options,
                             struct at_llm_engine **ret, struct at_err *err) AT_WARN_UNUSED;
void at_llm_engine_free(struct at_llm_engine *engine);
size_t at_llm_engine_context(const struct at_llm_engine *engine); /* tokens a sequence may have */
size_t at_llm_engine_embed_max(const struct at_llm_engine *engine);
/* On the loop. Answers by events, the last one with ended. own: work. */
void at_llm_engine_submit(struct at_llm_engine *engine, struct at_llm_work *work_take);
/* Nothing more is heard of id; its computing ends with the step that runs. */
void at_llm_engine_cancel(struct at_llm_engine *engine, uint64_t id);

#endif
