#include "runners/llm_engine_priv.h"

#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PENALTY_TOKENS 64 /* of which repetition is punished */
#define EMBED_SEQUENCES_MAX 16

struct llama_sampler *llm_sampler_new(struct at_llm_engine *e, const struct at_llm_sampling *s)
{
    const struct at_llama *l = e->l;
    bool penalties = s->repeat != 1.0f || s->frequency != 0.0f || s->presence != 0.0f;
    if (s->temperature <= 0.0f && s->n_bias == 0 && !penalties) {
        return NULL;
    }
    struct llama_sampler *chain =
        l->llama_sampler_chain_init(l->llama_sampler_chain_default_params());
    int32_t n_vocab = l->llama_vocab_n_tokens(e->vocab);
    if (s->n_bias != 0) {
        l->llama_sampler_chain_add(
            chain, l->llama_sampler_init_logit_bias(n_vocab, (int32_t)s->n_bias, s->bias));
    }
    if (penalties) {
        l->llama_sampler_chain_add(chain, l->llama_sampler_init_penalties(n_vocab, PENALTY_TOKENS,
                                                                          s->repeat, s->frequency,
                                                                          s->presence));
    }
    if (s->temperature <= 0.0f) {
        l->llama_sampler_chain_add(chain, l->llama_sampler_init_greedy());
        return chain;
    }
    if (s->top_k > 0) {
        l->llama_sampler_chain_add(chain, l->llama_sampler_init_top_k(s->top_k));
    }
    if (s->top_p < 1.0f) {
        l->llama_sampler_chain_add(chain, l->llama_sampler_init_top_p(s->top_p, 1));
    }
    if (s->min_p > 0.0f) {
        l->llama_sampler_chain_add(chain, l->llama_sampler_init_min_p(s->min_p, 1));
    }
    l->llama_sampler_chain_add(chain, l->llama_sampler_init_temp(s->temperature));
    l->llama_sampler_chain_add(chain, l->llama_sampler_init_dist(s->seed));
    return chain;
}

/* --- log probabilities --- */

static json_t *logprob_of(const struct at_llm_engine *e, int32_t token, double logprob)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf piece = {0};
    at_llama_piece(e->l, e->vocab, token, true, &piece);
    size_t good = at_str_utf8_prefix((struct at_str){piece.data, piece.len});
    json_t *bytes = json_array();
    for (size_t i = 0; i < piece.len; i++) {
        json_array_append_new(bytes, json_integer((unsigned char)piece.data[i]));
    }
    json_t *text = good == piece.len ? json_stringn(piece.data != NULL ? piece.data : "", piece.len)
                                     : json_string("\xef\xbf\xbd");
    return json_pack("{s:o, s:f, s:o}", "token", text, "logprob", logprob, "bytes", bytes);
}

static void add_logprobs(const struct at_llm_engine *e, struct llm_sequence *q, int32_t row,
                         int32_t token)
{
    const float *logits = e->l->llama_get_logits_ith(e->context, row);
    int32_t n = e->l->llama_vocab_n_tokens(e->vocab);
    float best[AT_LLM_LOGPROBS_MAX];
    int32_t ids[AT_LLM_LOGPROBS_MAX];
    int n_best = 0, want = q->work->sampling.logprobs;
    double sum = 0;
    float most = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        most = logits[i] > most ? logits[i] : most;
    }
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)(logits[i] - most));
        int at = n_best;
        while (at > 0 && logits[i] > best[at - 1]) {
            at--;
        }
        if (at < want) {
            int move = (n_best < want ? n_best : want - 1) - at;
            memmove(&best[at + 1], &best[at], (size_t)move * sizeof *best);
            memmove(&ids[at + 1], &ids[at], (size_t)move * sizeof *ids);
            best[at] = logits[i];
            ids[at] = i;
            n_best += n_best < want;
        }
    }
    double log_sum = log(sum) + (double)most;
    json_t *entry = logprob_of(e, token, (double)logits[token] - log_sum);
    json_t *top = json_array();
    for (int i = 0; i < n_best; i++) {
        json_array_append_new(top, logprob_of(e, ids[i], (double)best[i] - log_sum));
    }
    json_object_set_new(entry, "top_logprobs", top);
    q->logprobs = q->logprobs != NULL ? q->logprobs : json_array();
    json_array_append_new(q->logprobs, entry);
}

/* --- answers --- */

static void finish(struct at_llm_engine *e, struct llm_sequence *q, struct at_llm_event *event,
                   enum at_llm_why why)
{
    if (event == NULL) {
        event = llm_event(e, q->base.id);
    }
    at_llm_text_end(&q->text, &event->text);
    if (event->logprobs == NULL) {
        event->logprobs = q->logprobs;
        q->logprobs = NULL;
    }
    event->ended = true;
    event->why = why;
    event->n_prompt = q->work->n_prompt;
    event->n_answer = q->n_answer;
    event->n_reused = q->base.n_reused;
    event->queue_ns = q->begun_ns != 0 ? q->begun_ns - q->sent_ns : 0;
    event->prompt_ns = q->first_ns != 0 ? q->first_ns - q->begun_ns : 0;
    event->answer_ns = q->first_ns != 0 ? q->last_ns - q->first_ns : 0;
    json_decref(q->logprobs);
    q->logprobs = NULL;
    llm_sequence_end(e, q, why != AT_LLM_FAILED);
}

static void fail(struct at_llm_engine *e, struct llm_sequence *q, enum at_rc rc, const char *what)
{
    struct at_llm_event *event = llm_event(e, q->base.id);
    (void)at_err_set(&event->err, rc, "%s", what);
    finish(e, q, event, AT_LLM_FAILED);
}

static void observe(struct at_llm_engine *e, struct llm_sequence *q, int64_t now)
{
    const struct at_llm_metrics *m = &e->options.metrics;
    if (q->n_answer == 1) {
        q->first_ns = now;
        at_metric_observe_ns(m->first_token, now - q->sent_ns);
        at_metric_add(m->prompt_tokens, (int64_t)q->work->n_prompt);
    } else {
        at_metric_observe_ns(m->between_tokens, now - q->last_ns);
    }
    q->last_ns = now;
    at_metric_add(m->answer_tokens, 1);
}

/* What a sampler that takes the likeliest would give, without its list of all words. */
static int32_t likeliest(const struct at_llm_engine *e, int32_t row)
{
    const float *logits = e->l->llama_get_logits_ith(e->context, row);
    int32_t n = e->l->llama_vocab_n_tokens(e->vocab), best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* The next token of q, from row of what the step gave. */
static void answer(struct at_llm_engine *e, struct llm_sequence *q, int32_t row, int64_t now)
{
    const struct at_llm_work *work = q->work;
    int32_t token = q->sampler != NULL ? e->l->llama_sampler_sample(q->sampler, e->context, row)
                                       : likeliest(e, row);
    q->n_answer++;
    observe(e, q, now);
    if (e->l->llama_vocab_is_eog(e->vocab, token) && !work->sampling.ignore_eos) {
        finish(e, q, NULL, AT_LLM_STOP);
        return;
    }
    if (work->sampling.logprobs >= 0) {
        add_logprobs(e, q, row, token);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf piece = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    at_llama_piece(e->l, e->vocab, token, false, &piece);
    bool stopped = at_llm_text_push(&q->text, piece.data, piece.len, &out);
    bool last = stopped || q->n_answer >= work->max_new;
    struct at_llm_event *event = NULL;
    if (out.len != 0 || last) {
        event = llm_event(e, q->base.id);
        event->text = out;
        out = (struct at_buf){0};
        event->logprobs = q->logprobs;
        q->logprobs = NULL;
    }
    if (last) {
        finish(e, q, event, stopped ? AT_LLM_STOP : AT_LLM_LENGTH);
    } else {
        at_llm_sched_token(e->sched, &q->base, token);
    }
}

static int by_slot(const void *a, const void *b)
{
    const struct at_llm_chunk *x = a, *y = b;
    return (x->seq->slot > y->seq->slot) - (x->seq->slot < y->seq->slot);
}

static void fill_batch(struct at_llm_engine *e, size_t n_chunks)
{
    struct llama_batch *b = &e->batch;
    b->n_tokens = 0;
    if (e->options.sched.split) { /* what is not in rising order is computed by itself */
        qsort(e->chunks, n_chunks, sizeof *e->chunks, by_slot);
    }
    for (size_t c = 0; c < n_chunks; c++) {
        const struct at_llm_chunk *chunk = &e->chunks[c];
        for (size_t i = chunk->from; i < chunk->from + chunk->n; i++) {
            int32_t at = b->n_tokens++;
            b->token[at] = chunk->seq->tokens[i];
            b->pos[at] = (llama_pos)i;
            b->n_seq_id[at] = 1;
            b->seq_id[at][0] = chunk->seq->slot;
            b->logits[at] = i + 1 == chunk->seq->n_tokens;
        }
    }
}

static void not_computed(struct at_llm_engine *e, size_t n_chunks, int32_t rc)
{
    at_llm_sched_undo(e->sched, e->chunks, n_chunks);
    if (rc == 1 && at_llm_sched_shrink(e->sched)) {
        return;
    }
    for (size_t c = 0; c < n_chunks; c++) {
        struct llm_sequence *q = (struct llm_sequence *)e->chunks[c].seq;
        fail(e, q, rc == 1 ? AT_EXHAUSTED : AT_INTERNAL,
             rc == 1    ? "the engine's cache is full"
             : rc == -2 ? "the engine has no memory for this step"
                        : "the engine could not compute this step");
    }
}

void llm_step(struct at_llm_engine *e)
{
    const struct at_llm_metrics *m = &e->options.metrics;
    const struct at_sys *sys = at_loop_sys(e->loop);
    size_t n = at_llm_sched_plan(e->sched, e->chunks);
    if (n == 0) {
        return;
    }
    fill_batch(e, n);
    int64_t begun = at_sys_mono_ns(sys);
    int32_t rc = e->l->llama_decode(e->context, e->batch);
    int64_t now = at_sys_mono_ns(sys);
    at_metric_observe_ns(m->step, now - begun);
    if (rc != 0) {
        not_computed(e, n, rc);
        return;
    }
    at_metric_add(m->steps, 1);
    at_metric_add(m->step_tokens, e->batch.n_tokens);
    at_llm_sched_ran(e->sched, e->chunks, n);
    int32_t row = -1;
    for (size_t c = 0; c < n; c++) {
        struct at_llm_seq *seq = e->chunks[c].seq;
        row += (int32_t)e->chunks[c].n;
        struct llm_sequence *q = (struct llm_sequence *)seq;
        if (q->last_ns == 0) {
            at_metric_observe_ns(m->queue, begun - q->sent_ns);
            q->begun_ns = q->last_ns = begun;
        }
        if (seq->n_done == seq->n_tokens) {
            answer(e, q, row, now);
        }
    }
}

/* --- embeddings --- */

static bool embed_context(struct at_llm_engine *e)
{
    if (e->embed_context != NULL) {
        return true;
    }
    struct llama_context_params params = e->l->llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)e->embed_tokens;
    params.n_seq_max = EMBED_SEQUENCES_MAX;
    params.n_threads = params.n_threads_batch = e->options.threads;
    params.kv_unified = true;
    params.embeddings = true;
    params.no_perf = true;
    e->embed_context = e->l->llama_init_from_model(e->options.model, params);
    if (e->embed_context != NULL &&
        e->l->llama_pooling_type(e->embed_context) == LLAMA_POOLING_TYPE_NONE) {
        e->l->llama_free(e->embed_context);
        params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
        e->embed_context = e->l->llama_init_from_model(e->options.model, params);
    }
    if (e->embed_context == NULL) {
        return false;
    }
    e->embed_batch = e->l->llama_batch_init((int32_t)e->embed_tokens, 0, 1);
    return true;
}

static void give_embedding(struct at_llm_engine *e, struct llm_sequence *q, int slot)
{
    const float *values = e->l->llama_get_embeddings_seq(e->embed_context, slot);
    size_t n = (size_t)e->l->llama_model_n_embd_out(e->options.model);
    if (values == NULL) {
        fail(e, q, AT_INTERNAL, "the engine gave no embedding");
        return;
    }
    struct at_llm_event *event = llm_event(e, q->base.id);
    event->embedding = at_alloc(n * sizeof(float));
    event->n_embedding = n;
    memcpy(event->embedding, values, n * sizeof(float));
    at_metric_add(e->options.metrics.prompt_tokens, (int64_t)q->work->n_prompt);
    finish(e, q, event, AT_LLM_STOP);
}

/* As many as go into one batch, between two steps of the others; the oldest first. */
static size_t gather_embeds(struct at_llm_engine *e, struct llm_sequence **ret)
{
    struct llama_batch *b = &e->embed_batch;
    size_t n = 0;
    b->n_tokens = 0;
    struct llm_sequence *q = e->sequences;
    while (q != NULL && q->next != NULL) {
        q = q->next;
    }
    for (; q != NULL && n < EMBED_SEQUENCES_MAX; q = q->prev) {
        if (!q->work->embed || (size_t)b->n_tokens + q->work->n_prompt > e->embed_tokens) {
            continue;
        }
        for (size_t i = 0; i < q->work->n_prompt; i++) {
            int32_t at = b->n_tokens++;
            b->token[at] = q->work->tokens[i];
            b->pos[at] = (llama_pos)i;
            b->n_seq_id[at] = 1;
            b->seq_id[at][0] = (llama_seq_id)n;
            b->logits[at] = true;
        }
        ret[n++] = q;
    }
    return n;
}

void llm_step_embed(struct at_llm_engine *e)
{
    struct llm_sequence *list[EMBED_SEQUENCES_MAX];
    if (e->n_embeds == 0) {
        return;
    }
    bool there = embed_context(e);
    size_t n = there ? gather_embeds(e, list) : 0;
    bool encoder = e->l->llama_model_has_encoder(e->options.model) &&
                   !e->l->llama_model_has_decoder(e->options.model);
    int32_t rc = -1;
    if (there) {
        llama_memory_t memory = e->l->llama_get_memory(e->embed_context);
        if (memory != NULL) {
            e->l->llama_memory_clear(memory, true);
        }
        rc = encoder ? e->l->llama_encode(e->embed_context, e->embed_batch)
                     : e->l->llama_decode(e->embed_context, e->embed_batch);
    }
    for (struct llm_sequence *q = e->sequences, *next; q != NULL && !there; q = next) {
        next = q->next;
        if (q->work->embed) {
            fail(e, q, AT_NOMEM, "there is no memory for embeddings");
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (rc != 0) {
            fail(e, list[i], AT_INTERNAL, "the engine could not compute this embedding");
        } else {
            give_embedding(e, list[i], (int)i);
        }
    }
}
