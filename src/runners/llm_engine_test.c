/* The thread that runs the real engine: what is asked of it from the loop takes effect within a
 * step. */
#include "core/mem.h"
#include "core/units.h"
#include "runners/llm_engine.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LIBRARY AT_SOURCE_ROOT "/third_party/llama/lib"
#define MODEL AT_SOURCE_ROOT "/tests/models/tiny-llama.gguf"
#define DEADLINE_NS (20 * AT_NS_PER_S)
#define LONG_ANSWER 480
#define PROMPT 8

struct fixture {
    struct at_llama *llama;
    struct llama_model *model;
    struct at_loop *loop;
    struct at_llm_engine *engine;
    struct at_metrics *registry;
    struct at_llm_metrics metrics;
    uint64_t heard; /* of the last event */
    size_t events, ended;
    bool late;
};

static struct at_metric *metric(struct fixture *f, const char *name)
{
    return at_metric_plain(f->registry, AT_METRIC_COUNTER, name, "x");
}

static void on_event(void *ctx, const struct at_llm_event *event)
{
    struct fixture *f = ctx;
    f->heard = event->id;
    f->events++;
    f->ended += event->ended;
    at_loop_stop(f->loop);
}

static void on_late(void *ctx)
{
    struct fixture *f = ctx;
    f->late = true;
    at_loop_stop(f->loop);
}

static int set_up(void **state)
{
    struct at_err err = {0};
    struct fixture *f = AT_NEW(struct fixture);
    *state = f;
    if (at_llama_open(LIBRARY, &f->llama, &err) != AT_OK) {
        print_error("%s\n", err.msg);
        return -1;
    }
    f->model = f->llama->llama_model_load_from_file(MODEL, f->llama->llama_model_default_params());
    f->loop = at_loop_new(at_sys_real());
    f->registry = at_metrics_new();
    f->metrics = (struct at_llm_metrics){
        .first_token = at_metric_plain(f->registry, AT_METRIC_HISTOGRAM, "first_seconds", "x"),
        .between_tokens = at_metric_plain(f->registry, AT_METRIC_HISTOGRAM, "between_seconds", "x"),
        .step = at_metric_plain(f->registry, AT_METRIC_HISTOGRAM, "step_seconds", "x"),
        .queue = at_metric_plain(f->registry, AT_METRIC_HISTOGRAM, "queue_seconds", "x"),
        .prompt_tokens = metric(f, "prompt_total"),
        .answer_tokens = metric(f, "answer_total"),
        .reused_tokens = metric(f, "reused_total"),
        .steps = metric(f, "steps_total"),
        .step_tokens = metric(f, "step_tokens_total"),
        .running = at_metric_plain(f->registry, AT_METRIC_GAUGE, "running", "x"),
        .waiting = at_metric_plain(f->registry, AT_METRIC_GAUGE, "waiting", "x"),
        .cells_used = at_metric_plain(f->registry, AT_METRIC_GAUGE, "used", "x"),
        .cells_kept = at_metric_plain(f->registry, AT_METRIC_GAUGE, "kept", "x"),
        .cells = at_metric_plain(f->registry, AT_METRIC_GAUGE, "cells", "x"),
        .preemptions = metric(f, "preemptions_total"),
        .cancelled = metric(f, "cancelled_total")};
    struct at_llm_engine_options options = {
        .llama = f->llama,
        .model = f->model,
        .sched = {.sequences_max = 4, .step_tokens_max = 64, .cells = 4096, .reuse = true},
        .threads = 1,
        .cache_type = GGML_TYPE_F16,
        .metrics = f->metrics,
        .on_event = on_event,
        .ctx = f};
    return f->model != NULL && at_llm_engine_new(f->loop, &options, &f->engine, &err) == AT_OK ? 0
                                                                                               : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    at_llm_engine_free(f->engine);
    f->llama->llama_model_free(f->model);
    at_metrics_free(f->registry);
    at_loop_free(f->loop);
    at_free(f->llama);
    at_free(f);
    return 0;
}

static void submit(struct fixture *f, uint64_t id, size_t max_new)
{
    struct at_llm_work *work = AT_NEW(struct at_llm_work);
    work->id = id;
    work->client = at_strdup("");
    work->n_prompt = PROMPT;
    work->max_new = max_new;
    work->tokens = at_alloc((PROMPT + max_new) * sizeof(int32_t));
    for (size_t i = 0; i < PROMPT; i++) {
        work->tokens[i] = (int32_t)(300 + i + id);
    }
    work->sampling =
        (struct at_llm_sampling){.top_p = 1, .repeat = 1, .logprobs = -1, .ignore_eos = true};
    at_llm_engine_submit(f->engine, work);
}

/* Turn the loop until an event comes. */
static void hear(struct fixture *f)
{
    size_t had = f->events;
    at_timer_id timer = at_loop_timer(f->loop, DEADLINE_NS, on_late, f);
    while (f->events == had && !f->late) {
        at_loop_run(f->loop);
    }
    at_loop_timer_cancel(f->loop, timer);
    assert_false(f->late);
}

/* One step may be under way when the word comes; none begins with the sequence after it. */
static void a_cancelled_sequence_is_in_one_more_step_at_most(void **state)
{
    struct fixture *f = *state;
    submit(f, 1, LONG_ANSWER);
    hear(f);
    at_llm_engine_cancel(f->engine, 1);
    int64_t tokens = at_metric_value(f->metrics.answer_tokens);
    submit(f, 2, 3); /* its end shows that the engine has gone on */
    while (f->heard != 2 || f->ended == 0) {
        hear(f);
    }
    assert_true(at_metric_value(f->metrics.answer_tokens) - tokens <= 1 + 3);
    assert_int_equal(at_metric_value(f->metrics.cancelled), 1);
    assert_int_equal(f->ended, 1); /* of the other one: nobody hears of the cancelled one's end */
}

static void one_that_waits_is_cancelled_before_it_computes(void **state)
{
    struct fixture *f = *state;
    for (uint64_t id = 1; id <= 5; id++) { /* there is no place for the last one */
        submit(f, id, LONG_ANSWER);
    }
    hear(f);
    for (uint64_t id = 5; id >= 1; id--) {
        at_llm_engine_cancel(f->engine, id);
    }
    submit(f, 6, 3);
    while (f->heard != 6 || f->ended == 0) {
        hear(f);
    }
    assert_int_equal(at_metric_value(f->metrics.cancelled), 5);
    assert_true(at_metric_value(f->metrics.prompt_tokens) <= (4 + 1) * PROMPT);
}

static void the_engine_ends_in_the_midst_of_answers(void **state)
{
    struct fixture *f = *state;
    for (uint64_t id = 1; id <= 6; id++) {
        submit(f, id, LONG_ANSWER);
    }
    hear(f); /* and tear_down frees it all; the sanitizer tells what is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_cancelled_sequence_is_in_one_more_step_at_most, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_that_waits_is_cancelled_before_it_computes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_engine_ends_in_the_midst_of_answers, set_up, tear_down),
    };
    if (!at_file_exists(LIBRARY "/libllama.v" AT_LLAMA_VERSION ".so")) {
        print_message("libllama is not here: tools/fetch-third-party llama\n");
        return 77; /* skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
