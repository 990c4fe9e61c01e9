/* Shared by llm_engine.c (life, messages) and llm_step.c (steps of the engine). */
#ifndef AT_RUNNERS_LLM_ENGINE_PRIV_H
#define AT_RUNNERS_LLM_ENGINE_PRIV_H

#include "loop/pool.h"
#include "runners/llm_engine.h"
#include "runners/llm_text.h"

#include <pthread.h>

struct llm_message {
    struct llm_message *next;
    struct at_llm_work *work; /* NULL: a cancellation */
    uint64_t cancel;
    int64_t sent_ns;
};

/* A work in the engine. */
struct llm_sequence {
    struct at_llm_seq base; /* first, so that the scheduler's sequence is this one */
    struct at_llm_work *work;
    struct llama_sampler *sampler; /* NULL: the likeliest */
    struct at_llm_text text;
    json_t *logprobs; /* not yet told */
    size_t n_answer;
    int64_t sent_ns, begun_ns, first_ns, last_ns;
    struct llm_sequence *prev, *next;
};

struct at_llm_engine {
    struct at_loop *loop;
    const struct at_llama *l;
    struct at_llm_engine_options options;
    const struct llama_vocab *vocab;
    size_t context_tokens, embed_tokens;
    struct at_pool *thread; /* of one, which runs the engine for ever */

    pthread_mutex_t lock; /* guards what follows, up to the gap */
    pthread_cond_t wanted;
    struct llm_message *in_first, *in_last;
    struct at_llm_event *out_first, *out_last;
    bool posted, stopping;

    bool ending; /* the loop's */

    /* the engine thread's */
    struct llama_context *context, *embed_context;
    llama_memory_t memory;
    struct llama_batch batch, embed_batch;
    struct at_llm_sched *sched;
    struct at_llm_sched_counts told;
    struct at_llm_chunk *chunks;
    struct at_buf copied; /* a sequence's state, on its way to another */
    struct llm_sequence *sequences;
    size_t n_embeds;
    struct at_llm_event *events_first, *events_last;
};

void llm_event_free(struct at_llm_event *event);
struct at_llm_event *llm_event(struct at_llm_engine *e, uint64_t id);
void llm_sequence_end(struct at_llm_engine *e, struct llm_sequence *q, bool keep);
struct llama_sampler *llm_sampler_new(struct at_llm_engine *e, const struct at_llm_sampling *s);
void llm_step(struct at_llm_engine *e);
void llm_step_embed(struct at_llm_engine *e);

#endif
