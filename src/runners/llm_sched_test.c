/* The scheduler by itself, with a cache that remembers what each sequence number holds. */
#include "core/mem.h"
#include "runners/llm_sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SEQS 64
#define SLOTS 64
#define TOKENS 512

struct fixture {
    struct at_llm_sched *s;
    struct at_llm_sched_options options;
    struct at_llm_seq seqs[SEQS];
    int32_t tokens[SEQS][TOKENS];
    struct at_llm_chunk chunks[2 * SEQS];
    size_t n_chunks;
    /* what a real cache would hold */
    int32_t cache[SLOTS][TOKENS];
    size_t held[SLOTS];
    size_t copies;
    bool no_copies; /* as when there is no memory for them */
};

static void drop(void *ctx, int slot, size_t from)
{
    struct fixture *f = ctx;
    f->held[slot] = f->held[slot] < from ? f->held[slot] : from;
}

static bool copy(void *ctx, int from, int to, size_t n)
{
    struct fixture *f = ctx;
    assert_true(f->held[from] >= n);
    if (f->no_copies) {
        f->held[to] = 0;
        return false;
    }
    f->copies++;
    memcpy(f->cache[to], f->cache[from], n * sizeof(int32_t));
    f->held[to] = n;
    return true;
}

static struct fixture *make(size_t sequences, size_t cells, size_t step, bool reuse)
{
    struct fixture *f = AT_NEW(struct fixture);
    f->options = (struct at_llm_sched_options){
        .sequences_max = sequences, .cells = cells, .step_tokens_max = step, .reuse = reuse};
    f->s =
        at_llm_sched_new(&f->options, &(struct at_llm_cache){.ctx = f, .drop = drop, .copy = copy});
    assert_true(at_llm_sched_slots(&f->options) <= SLOTS);
    return f;
}

static void done(struct fixture *f)
{
    at_llm_sched_free(f->s);
    at_free(f);
}

/* Sequence i: a prompt of n tokens that begins with `first`, and room for as many answers. */
static struct at_llm_seq *add(struct fixture *f, size_t i, const char *client, int32_t first,
                              size_t n, size_t more)
{
    for (size_t k = 0; k < n; k++) {
        f->tokens[i][k] = first + (int32_t)k;
    }
    f->seqs[i] = (struct at_llm_seq){.id = i,
                                     .client = client,
                                     .tokens = f->tokens[i],
                                     .n_prompt = n,
                                     .n_tokens = n,
                                     .tokens_max = n + more,
                                     .slot = -1};
    at_llm_sched_add(f->s, &f->seqs[i]);
    return &f->seqs[i];
}

/* One step: computed by the pretended cache; then each that is up to date gets a token. */
static size_t step(struct fixture *f)
{
    size_t total = 0;
    f->n_chunks = at_llm_sched_plan(f->s, f->chunks);
    for (size_t c = 0; c < f->n_chunks; c++) {
        const struct at_llm_chunk *k = &f->chunks[c];
        int slot = k->seq->slot;
        assert_true(slot >= 0);
        assert_int_equal(f->held[slot], k->from);
        assert_memory_equal(f->cache[slot], k->seq->tokens, k->from * sizeof(int32_t));
        memcpy(&f->cache[slot][k->from], &k->seq->tokens[k->from], k->n * sizeof(int32_t));
        f->held[slot] += k->n;
        total += k->n;
    }
    assert_true(total <= f->options.step_tokens_max);
    at_llm_sched_ran(f->s, f->chunks, f->n_chunks);
    assert_true(at_llm_sched_count(f->s).cells_used <= f->options.cells);
    return f->n_chunks;
}

static bool wants_token(const struct at_llm_seq *seq)
{
    return seq->slot >= 0 && seq->n_done == seq->n_tokens;
}

static void answers_come_first_and_prompts_fill_the_rest(void **state)
{
    (void)state;
    struct fixture *f = make(4, 256, 10, false);
    struct at_llm_seq *a = add(f, 0, "", 0, 5, 10), *b = add(f, 1, "", 100, 30, 10);
    assert_int_equal(step(f), 2);
    assert_int_equal(f->chunks[0].n, 5);
    assert_int_equal(f->chunks[1].n, 5);
    assert_true(wants_token(a));
    at_llm_sched_token(f->s, a, 7);
    assert_int_equal(step(f), 2);
    assert_ptr_equal(f->chunks[0].seq, a);
    assert_int_equal(f->chunks[0].n, 1);
    assert_int_equal(f->chunks[1].n, 9);
    assert_int_equal(b->n_done, 14);
    done(f);
}

static void one_is_admitted_as_soon_as_another_leaves(void **state)
{
    (void)state;
    struct fixture *f = make(2, 256, 64, false);
    struct at_llm_seq *a = add(f, 0, "", 0, 4, 4);
    add(f, 1, "", 50, 4, 4);
    struct at_llm_seq *c = add(f, 2, "", 90, 4, 4);
    step(f);
    assert_int_equal(c->slot, -1);
    at_llm_sched_finish(f->s, a, true);
    at_llm_sched_token(f->s, &f->seqs[1], 1);
    step(f);
    assert_true(wants_token(c));
    assert_int_equal(at_llm_sched_count(f->s).waiting, 0);
    done(f);
}

static void a_finished_prefix_is_taken_over(void **state)
{
    (void)state;
    struct fixture *f = make(2, 256, 64, true);
    struct at_llm_seq *a = add(f, 0, "", 0, 20, 4);
    step(f);
    at_llm_sched_finish(f->s, a, true);
    struct at_llm_seq *b = add(f, 1, "", 0, 20, 4);
    step(f);
    assert_int_equal(b->n_reused, 19); /* the last one is computed, to know what follows it */
    assert_int_equal(f->chunks[0].n, 1);
    assert_int_equal(at_llm_sched_count(f->s).cells_used, 21);
    struct at_llm_seq *c = add(f, 2, "", 0, 10, 4); /* from one that runs */
    c->tokens[9] = 77;
    step(f);
    assert_int_equal(c->n_reused, 9);
    done(f);
}

static void a_prefix_that_is_being_computed_is_waited_for(void **state)
{
    (void)state;
    struct fixture *f = make(4, 256, 20, true);
    add(f, 0, "", 0, 60, 4);
    struct at_llm_seq *b = add(f, 1, "", 0, 60, 4);
    b->tokens[59] = 999;
    step(f);
    step(f);
    assert_int_equal(b->slot, -1);
    step(f);
    step(f);
    assert_int_equal(b->n_reused, 59);
    done(f);
}

static void a_full_cache_makes_the_last_one_wait_and_go_on_later(void **state)
{
    (void)state;
    struct fixture *f = make(3, 40, 64, true);
    struct at_llm_seq *seqs[3];
    for (size_t i = 0; i < 3; i++) {
        seqs[i] = add(f, i, "", (int32_t)i * 1000, 10, 20);
    }
    size_t finished = 0;
    for (int turns = 0; finished < 3; turns++) {
        assert_true(turns < 500);
        step(f);
        for (size_t i = 0; i < 3; i++) {
            if (!wants_token(seqs[i])) {
                continue;
            }
            if (seqs[i]->n_tokens == seqs[i]->tokens_max) {
                at_llm_sched_finish(f->s, seqs[i], true);
                seqs[i]->n_tokens = 0;
                finished++;
            } else {
                at_llm_sched_token(f->s, seqs[i], 7);
            }
        }
    }
    assert_true(at_llm_sched_count(f->s).preemptions > 0);
    assert_int_equal(seqs[0]->preemptions, 0); /* the oldest is never the victim */
    done(f);
}

static void clients_take_turns_by_what_they_were_served(void **state)
{
    (void)state;
    struct fixture *f = make(1, 256, 64, false);
    for (size_t i = 0; i < 8; i++) {
        add(f, i, "greedy", 0, 10, 4);
    }
    struct at_llm_seq *late = add(f, 8, "modest", 0, 10, 4);
    size_t served = 0;
    while (!wants_token(late)) {
        step(f);
        for (size_t i = 0; i < 8; i++) {
            if (wants_token(&f->seqs[i])) {
                at_llm_sched_finish(f->s, &f->seqs[i], false);
                f->seqs[i].n_tokens = 0;
                served++;
            }
        }
        assert_true(served <= 8);
    }
    assert_true(served <= 1);
    done(f);
}

static void whoever_waits_can_leave(void **state)
{
    (void)state;
    struct fixture *f = make(1, 64, 64, true);
    add(f, 0, "a", 0, 10, 4);
    add(f, 1, "b", 0, 10, 4);
    step(f);
    at_llm_sched_finish(f->s, &f->seqs[1], true);
    at_llm_sched_finish(f->s, &f->seqs[0], false);
    struct at_llm_sched_counts now = at_llm_sched_count(f->s);
    assert_int_equal(now.running + now.waiting + now.cells_used, 0);
    done(f);
}

static void a_step_that_was_not_computed_is_planned_again(void **state)
{
    (void)state;
    struct fixture *f = make(2, 64, 64, true);
    struct at_llm_seq *a = add(f, 0, "", 0, 10, 4);
    size_t n = at_llm_sched_plan(f->s, f->chunks);
    at_llm_sched_undo(f->s, f->chunks, n);
    assert_int_equal(at_llm_sched_count(f->s).cells_used, 0);
    step(f);
    assert_true(wants_token(a));
    done(f);
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static struct fixture *make_split(size_t sequences, size_t cells_each, size_t step)
{
    struct fixture *f = AT_NEW(struct fixture);
    f->options = (struct at_llm_sched_options){.sequences_max = sequences,
                                               .cells = sequences * cells_each,
                                               .step_tokens_max = step,
                                               .reuse = true,
                                               .split = true};
    f->s =
        at_llm_sched_new(&f->options, &(struct at_llm_cache){.ctx = f, .drop = drop, .copy = copy});
    assert_int_equal(at_llm_sched_slots(&f->options), sequences);
    return f;
}

static void a_split_cache_resumes_its_own_prefix_and_copies_those_of_others(void **state)
{
    (void)state;
    struct fixture *f = make_split(3, 64, 64);
    struct at_llm_seq *a = add(f, 0, "", 0, 20, 4);
    step(f);
    at_llm_sched_finish(f->s, a, true);
    struct at_llm_seq *b = add(f, 1, "", 0, 20, 4); /* in place: nothing is copied */
    step(f);
    assert_int_equal(b->n_reused, 19);
    assert_int_equal(b->slot, 0);
    assert_int_equal(f->copies, 0);
    struct at_llm_seq *c = add(f, 2, "", 0, 20, 4); /* from the one that runs */
    step(f);
    assert_int_equal(c->n_reused, 19);
    assert_int_equal(c->slot, 1);
    assert_int_equal(f->copies, 1);
    assert_int_equal(at_llm_sched_count(f->s).cells_used, 40);
    done(f);
}

static void a_prefix_that_cannot_be_copied_is_computed(void **state)
{
    (void)state;
    struct fixture *f = make_split(2, 64, 64);
    f->no_copies = true;
    add(f, 0, "", 0, 20, 4);
    struct at_llm_seq *b = add(f, 1, "", 0, 20, 4);
    step(f);
    step(f);
    assert_true(wants_token(b));
    assert_int_equal(b->n_reused, 0);
    done(f);
}

static void those_that_run_in_a_split_cache_come_to_stand_side_by_side(void **state)
{
    (void)state;
    struct fixture *f = make_split(5, 64, 64);
    for (size_t i = 0; i < 4; i++) {
        add(f, i, "", (int32_t)i * 100, 8 + i, 40);
    }
    step(f);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(f->seqs[i].slot, i);
    }
    at_llm_sched_finish(f->s, &f->seqs[1], true);
    struct at_llm_seq *e = add(f, 4, "", 500, 9, 40); /* the gap is filled, not the free end */
    step(f);
    assert_int_equal(e->slot, 1);
    at_llm_sched_finish(f->s, e, true);
    at_llm_sched_finish(f->s, &f->seqs[2], true);
    for (int turns = 0; turns < 10; turns++) {
        at_llm_sched_token(f->s, &f->seqs[0], 7);
        at_llm_sched_token(f->s, &f->seqs[3], 7);
        assert_int_equal(step(f), 2);
    }
    int apart = f->seqs[3].slot - f->seqs[0].slot;
    assert_true(apart == 1 || apart == -1);
    done(f);
}

/* Any history: nobody is lost, the cache always holds the tokens that it is believed to hold
 * (step() looks), and in the end every cell is free again. */
static void any_history_ends_with_everybody_served(void **state)
{
    (void)state;
    static const char *const CLIENTS[] = {"a", "b", "c"};
    uint32_t seed = 1;
    for (int round = 0; round < 60; round++) {
        size_t cells = 60 + next(&seed) % 100;
        struct fixture *f =
            round % 3 == 0
                ? make_split(1 + next(&seed) % 6, cells, 8 + next(&seed) % 30)
                : make(1 + next(&seed) % 6, cells, 8 + next(&seed) % 30, next(&seed) % 4 != 0);
        f->no_copies = round % 9 == 0;
        size_t added = 0, ended = 0;
        bool live[SEQS] = {false};
        for (int turns = 0; ended < SEQS; turns++) {
            assert_true(turns < 20000);
            if (added < SEQS && next(&seed) % 3 == 0) {
                add(f, added, CLIENTS[next(&seed) % 3], (int32_t)(next(&seed) % 3) * 1000,
                    1 + next(&seed) % (cells - 30), next(&seed) % 25);
                live[added++] = true;
            }
            step(f);
            for (size_t i = 0; i < added; i++) {
                struct at_llm_seq *seq = &f->seqs[i];
                bool leaves = live[i] && next(&seed) % 400 == 0;
                if (live[i] && wants_token(seq) && seq->n_tokens < seq->tokens_max && !leaves) {
                    at_llm_sched_token(f->s, seq, (int32_t)(next(&seed) % 5));
                } else if (live[i] && (leaves || wants_token(seq))) {
                    at_llm_sched_finish(f->s, seq, next(&seed) % 2 == 0);
                    live[i] = false;
                    ended++;
                }
            }
        }
        while (at_llm_sched_shrink(f->s)) {
        }
        assert_int_equal(at_llm_sched_count(f->s).cells_used, 0);
        done(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_first_and_prompts_fill_the_rest),
        cmocka_unit_test(one_is_admitted_as_soon_as_another_leaves),
        cmocka_unit_test(a_finished_prefix_is_taken_over),
        cmocka_unit_test(a_prefix_that_is_being_computed_is_waited_for),
        cmocka_unit_test(a_full_cache_makes_the_last_one_wait_and_go_on_later),
        cmocka_unit_test(clients_take_turns_by_what_they_were_served),
        cmocka_unit_test(whoever_waits_can_leave),
        cmocka_unit_test(a_step_that_was_not_computed_is_planned_again),
        cmocka_unit_test(a_split_cache_resumes_its_own_prefix_and_copies_those_of_others),
        cmocka_unit_test(a_prefix_that_cannot_be_copied_is_computed),
        cmocka_unit_test(those_that_run_in_a_split_cache_come_to_stand_side_by_side),
        cmocka_unit_test(any_history_ends_with_everybody_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
