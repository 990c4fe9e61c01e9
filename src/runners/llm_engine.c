#include "runners/llm_engine_priv.h"

#include "core/mem.h"
#include "core/units.h"
#include "sys/cgroup.h"

#include <assert.h>
#include <string.h>

void at_llm_work_free(struct at_llm_work *work)
{
    if (work == NULL) {
        return;
    }
    for (size_t i = 0; i < work->n_stops; i++) {
        at_free(work->stops[i]);
    }
    at_free(work->stops);
    at_free(work->client);
    at_free(work->tokens);
    at_free(work->sampling.bias);
    at_free(work);
}

void llm_event_free(struct at_llm_event *event)
{
    at_buf_done(&event->text);
    json_decref(event->logprobs);
    at_free(event->embedding);
    at_free(event);
}

/* --- the loop's side --- */

static void on_outbox(void *ctx)
{
    struct at_llm_engine *e = ctx;
    pthread_mutex_lock(&e->lock);
    struct at_llm_event *event = e->out_first;
    e->out_first = e->out_last = NULL;
    e->posted = false;
    pthread_mutex_unlock(&e->lock);
    while (event != NULL) {
        struct at_llm_event *next = event->next;
        if (!e->ending) {
            e->options.on_event(e->options.ctx, event);
        }
        llm_event_free(event);
        event = next;
    }
}

static void send(struct at_llm_engine *e, struct llm_message *message)
{
    pthread_mutex_lock(&e->lock);
    *(e->in_last != NULL ? &e->in_last->next : &e->in_first) = message;
    e->in_last = message;
    pthread_cond_signal(&e->wanted);
    pthread_mutex_unlock(&e->lock);
}

void at_llm_engine_submit(struct at_llm_engine *engine, struct at_llm_work *work_take)
{
    struct llm_message *message = AT_NEW(struct llm_message);
    message->work = work_take;
    message->sent_ns = at_sys_mono_ns(at_loop_sys(engine->loop));
    send(engine, message);
}

void at_llm_engine_cancel(struct at_llm_engine *engine, uint64_t id)
{
    struct llm_message *message = AT_NEW(struct llm_message);
    message->cancel = id;
    send(engine, message);
}

/* --- the engine's side --- */

static void deliver(struct at_llm_engine *e)
{
    if (e->events_first == NULL) {
        return;
    }
    pthread_mutex_lock(&e->lock);
    *(e->out_last != NULL ? &e->out_last->next : &e->out_first) = e->events_first;
    e->out_last = e->events_last;
    e->events_first = e->events_last = NULL;
    bool post = !e->posted;
    e->posted = true;
    pthread_mutex_unlock(&e->lock);
    if (post && at_loop_post(e->loop, on_outbox, e) != AT_OK) {
        pthread_mutex_lock(&e->lock);
        e->posted = false; /* with the next event, then */
        pthread_mutex_unlock(&e->lock);
    }
}

struct at_llm_event *llm_event(struct at_llm_engine *e, uint64_t id)
{
    struct at_llm_event *event = AT_NEW(struct at_llm_event);
    event->id = id;
    *(e->events_last != NULL ? &e->events_last->next : &e->events_first) = event;
    e->events_last = event;
    return event;
}

static struct llm_message *take_messages(struct at_llm_engine *e, bool wait, bool *ret_stop)
{
    pthread_mutex_lock(&e->lock);
    while (wait && e->in_first == NULL && !e->stopping) {
        pthread_cond_wait(&e->wanted, &e->lock);
    }
    struct llm_message *first = e->in_first;
    e->in_first = e->in_last = NULL;
    *ret_stop = e->stopping;
    pthread_mutex_unlock(&e->lock);
    return first;
}

static void take_work(struct at_llm_engine *e, struct llm_message *message)
{
    struct llm_sequence *q = AT_NEW(struct llm_sequence);
    struct at_llm_work *work = message->work;
    q->work = work;
    q->sent_ns = message->sent_ns;
    q->base = (struct at_llm_seq){.id = work->id,
                                  .client = work->client,
                                  .tokens = work->tokens,
                                  .n_prompt = work->n_prompt,
                                  .n_tokens = work->n_prompt,
                                  .tokens_max = work->n_prompt + work->max_new,
                                  .slot = -1};
    q->text =
        (struct at_llm_text){.stops = (const char *const *)work->stops, .n_stops = work->n_stops};
    q->next = e->sequences;
    if (e->sequences != NULL) {
        e->sequences->prev = q;
    }
    e->sequences = q;
    if (work->embed) {
        e->n_embeds++;
    } else {
        q->sampler = llm_sampler_new(e, &work->sampling);
        at_llm_sched_add(e->sched, &q->base);
    }
}

void llm_sequence_end(struct at_llm_engine *e, struct llm_sequence *q, bool keep)
{
    if (q->work->embed) {
        e->n_embeds--;
    } else {
        at_llm_sched_finish(e->sched, &q->base, keep);
        if (q->sampler != NULL) {
            e->l->llama_sampler_free(q->sampler);
        }
    }
    *(q->prev != NULL ? &q->prev->next : &e->sequences) = q->next;
    if (q->next != NULL) {
        q->next->prev = q->prev;
    }
    at_llm_text_done(&q->text);
    at_llm_work_free(q->work);
    at_free(q);
}

static void cancel(struct at_llm_engine *e, uint64_t id)
{
    for (struct llm_sequence *q = e->sequences; q != NULL; q = q->next) {
        if (q->base.id == id) {
            at_metric_add(e->options.metrics.cancelled, 1);
            llm_sequence_end(e, q, true);
            return;
        }
    }
}

static bool take_all(struct at_llm_engine *e)
{
    bool stop = false;
    struct llm_message *message = take_messages(e, e->sequences == NULL, &stop);
    while (message != NULL) {
        struct llm_message *next = message->next;
        if (message->work != NULL) {
            take_work(e, message);
        } else {
            cancel(e, message->cancel);
        }
        at_free(message);
        message = next;
    }
    return !stop;
}

static void tell_metrics(struct at_llm_engine *e)
{
    const struct at_llm_metrics *m = &e->options.metrics;
    struct at_llm_sched_counts now = at_llm_sched_count(e->sched);
    at_metric_set(m->running, (int64_t)now.running);
    at_metric_set(m->waiting, (int64_t)now.waiting);
    at_metric_set(m->cells_used, (int64_t)now.cells_used);
    at_metric_set(m->cells_kept, (int64_t)now.cells_kept);
    at_metric_add(m->preemptions, (int64_t)(now.preemptions - e->told.preemptions));
    at_metric_add(m->reused_tokens, (int64_t)(now.reused_tokens - e->told.reused_tokens));
    e->told = now;
}

static void engine_run(void *ctx)
{
    struct at_llm_engine *e = ctx;
    while (take_all(e)) {
        llm_step_embed(e);
        llm_step(e);
        tell_metrics(e);
        deliver(e);
    }
    while (e->sequences != NULL) {
        llm_sequence_end(e, e->sequences, false);
    }
}

static void drop_cells(void *ctx, int slot, size_t from)
{
    struct at_llm_engine *e = ctx;
    if (!e->l->llama_memory_seq_rm(e->memory, slot, (llama_pos)from, -1)) {
        /* Only whole sequences can be removed from some models; those are never shared. */
        (void)e->l->llama_memory_seq_rm(e->memory, slot, -1, -1);
    }
}

/* Between two parts of a split cache: by way of the host, as far as there are tokens. */
static bool copy_state(struct at_llm_engine *e, int from, int to, size_t n)
{
    char *place = NULL;
    size_t bytes = e->l->llama_state_seq_get_size(e->context, from);
    e->copied.len = 0;
    bool done = bytes != 0 && at_buf_reserve(&e->copied, bytes, &place) == AT_OK &&
                e->l->llama_state_seq_get_data(e->context, (uint8_t *)place, bytes, from) != 0 &&
                e->l->llama_state_seq_set_data(e->context, (const uint8_t *)place, bytes, to) != 0;
    drop_cells(e, to, done ? n : 0);
    return done;
}

static bool copy_cells(void *ctx, int from, int to, size_t n)
{
    struct at_llm_engine *e = ctx;
    if (e->options.sched.split) {
        return copy_state(e, from, to, n);
    }
    e->l->llama_memory_seq_cp(e->memory, from, to, 0, (llama_pos)n);
    return true;
}

/* On a CPU, products of whole matrices are computed faster than the fused attention, which goes
 * cell by cell; of cells that most of a step's tokens do not see, the latter passes over more
 * quickly. Numbers of fewer bits, and large steps over long parts, need it. */
static bool plain_attention(const struct at_llm_engine *e)
{
    const struct at_llm_sched_options *o = &e->options.sched;
    uint64_t scores = (uint64_t)o->step_tokens_max * e->context_tokens *
                      (uint64_t)e->l->llama_model_n_head(e->options.model);
    bool wide = e->options.cache_type == GGML_TYPE_F16 || e->options.cache_type == GGML_TYPE_F32;
    return !e->l->gpu && wide && scores * sizeof(float) <= AT_LLM_SCORES_BYTES_MAX;
}

static enum at_rc make_context(struct at_llm_engine *e, struct at_err *err)
{
    struct at_llm_sched_options *o = &e->options.sched;
    struct llama_context_params params = e->l->llama_context_default_params();
    params.n_ctx = (uint32_t)o->cells;
    params.n_batch = params.n_ubatch = (uint32_t)o->step_tokens_max;
    params.n_seq_max = (uint32_t)at_llm_sched_slots(o);
    params.n_threads = params.n_threads_batch = e->options.threads;
    params.kv_unified = !o->split;
    if (o->split && plain_attention(e)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    params.swa_full = true;
    params.no_perf = true;
    params.type_k = params.type_v = e->options.cache_type;
    e->context = e->l->llama_init_from_model(e->options.model, params);
    if (e->context == NULL) {
        return at_err_set(err, AT_NOMEM, "a cache of %zu tokens cannot be had: %s", o->cells,
                          e->l->last_log[0] != '\0' ? e->l->last_log : "no memory");
    }
    e->memory = e->l->llama_get_memory(e->context);
    assert(!o->split || e->l->llama_n_ctx(e->context) >= o->cells);
    if (e->l->llama_n_ctx(e->context) < o->cells) {
        o->cells = e->l->llama_n_ctx(e->context);
        e->context_tokens = e->context_tokens < o->cells ? e->context_tokens : o->cells;
    }
    e->batch = e->l->llama_batch_init((int32_t)o->step_tokens_max, 0, 1);
    return AT_OK;
}

static uint64_t bytes_per_token(const struct at_llm_engine *e)
{
    const struct llama_model *m = e->options.model;
    int32_t heads = e->l->llama_model_n_head(m);
    int64_t width = e->l->llama_model_n_embd(m);
    width = heads > 0 ? width * e->l->llama_model_n_head_kv(m) / heads : width;
    return 2 * (uint64_t)e->l->llama_model_n_layer(m) *
           e->l->ggml_row_size(e->options.cache_type, width);
}

/* In a cache that all share, each token's attention passes over the cells of all; one with a part
 * for each sequence takes as many times the memory. */
static void choose_split(struct at_llm_engine *e, bool asked)
{
    struct at_llm_sched_options *o = &e->options.sched;
    const struct llama_model *model = e->options.model;
    size_t all = o->sequences_max * e->context_tokens;
    uint64_t may = (uint64_t)at_cgroup_self_memory() / AT_LLM_SPLIT_SHARE;
    may = may != 0 && may < AT_LLM_SPLIT_BYTES_MAX ? may : AT_LLM_SPLIT_BYTES_MAX;
    bool small = all * bytes_per_token(e) <= may &&
                 (!asked || o->cells >= o->sequences_max * AT_LLM_SPLIT_TOKENS_MIN);
    /* What is copied between parts lacks what a sliding window has left behind. */
    bool can = e->l->llama_model_n_swa(model) == 0 && o->sequences_max > 1 &&
               !e->l->llama_model_is_recurrent(model) && !e->l->llama_model_is_hybrid(model);
    o->split = can && (e->options.split == AT_LLM_SPLIT_ON ||
                       (e->options.split == AT_LLM_SPLIT_AUTO && small));
    o->cells = o->split ? all : o->cells;
}

static void choose_sizes(struct at_llm_engine *e)
{
    struct at_llm_sched_options *o = &e->options.sched;
    const struct llama_model *model = e->options.model;
    int32_t trained = e->l->llama_model_n_ctx_train(model);
    size_t most = trained > 0 ? (size_t)trained : AT_LLM_CELLS_DEFAULT;
    bool asked = o->cells != 0;
    if (!asked) {
        o->cells = most < AT_LLM_CELLS_DEFAULT ? most : AT_LLM_CELLS_DEFAULT;
    }
    if (e->l->llama_model_is_recurrent(model) || e->l->llama_model_is_hybrid(model)) {
        o->reuse = false; /* their state has no prefixes */
    }
    e->context_tokens = most < o->cells ? most : o->cells;
    choose_split(e, asked);
    e->embed_tokens = most < AT_LLM_EMBED_TOKENS_MAX ? most : AT_LLM_EMBED_TOKENS_MAX;
}

enum at_rc at_llm_engine_new(struct at_loop *loop, const struct at_llm_engine_options *options,
                             struct at_llm_engine **ret, struct at_err *err)
{
    struct at_llm_engine *e = AT_NEW(struct at_llm_engine);
    e->loop = loop;
    e->l = options->llama;
    e->options = *options;
    e->vocab = e->l->llama_model_get_vocab(options->model);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wanted, NULL);
    at_buf_init(&e->copied, AT_LLM_COPY_BYTES_MAX);
    choose_sizes(e);
    enum at_rc rc = make_context(e, err);
    if (rc != AT_OK) {
        at_llm_engine_free(e);
        return rc;
    }
    const struct at_llm_cache cache = {.ctx = e, .drop = drop_cells, .copy = copy_cells};
    e->sched = at_llm_sched_new(&e->options.sched, &cache);
    e->chunks = at_alloc(2 * e->options.sched.sequences_max * sizeof *e->chunks);
    at_metric_set(e->options.metrics.cells, (int64_t)e->options.sched.cells);
    e->thread = at_pool_new(1, 1);
    rc = at_pool_submit(e->thread, loop, engine_run, NULL, e);
    assert(rc == AT_OK);
    *ret = e;
    return rc;
}

size_t at_llm_engine_context(const struct at_llm_engine *engine)
{
    return engine->context_tokens;
}

size_t at_llm_engine_embed_max(const struct at_llm_engine *engine)
{
    return engine->embed_tokens;
}

static void free_messages(struct at_llm_engine *e)
{
    bool stop;
    for (struct llm_message *m = take_messages(e, false, &stop), *next; m != NULL; m = next) {
        next = m->next;
        at_llm_work_free(m->work);
        at_free(m);
    }
}

void at_llm_engine_free(struct at_llm_engine *engine)
{
    struct at_llm_engine *e = engine;
    if (e == NULL) {
        return;
    }
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_cond_signal(&e->wanted);
    pthread_mutex_unlock(&e->lock);
    e->ending = true;
    at_pool_finish(e->thread);
    free_messages(e);
    deliver(e);
    while (e->posted) {
        at_loop_turn(e->loop, at_sys_mono_ns(at_loop_sys(e->loop)));
    }
    at_llm_sched_free(e->sched);
    at_free(e->chunks);
    at_buf_done(&e->copied);
    if (e->context != NULL) {
        e->l->llama_batch_free(e->batch);
        e->l->llama_free(e->context);
    }
    if (e->embed_context != NULL) {
        e->l->llama_batch_free(e->embed_batch);
        e->l->llama_free(e->embed_context);
    }
    pthread_cond_destroy(&e->wanted);
    pthread_mutex_destroy(&e->lock);
    at_free(e);
}
