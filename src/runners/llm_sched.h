/* Continuous batching: which sequences compute which of their tokens in the next step of the
 * engine.
 *
 * Each step, sequences that answer get one token each; what is left of the step's budget goes to
 * pieces of prompts, in the order of admission; then waiting requests are admitted, from the client
 * that has been served least (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024:
 * virtual token counters). The cache is counted token by token, shared prefixes once. When it is
 * full, finished prefixes go first, least recently used first, then the sequence admitted last
 * gives its place up and is computed again later; no request is lost. A split cache has cells for
 * each sequence number by itself: it is never full, what a sequence attends to are its own cells
 * only, and a shared prefix is copied. Pure: the engine's cache is reached by two functions. */
#ifndef AT_RUNNERS_LLM_SCHED_H
#define AT_RUNNERS_LLM_SCHED_H

#include "core/err.h"
#include "runners/limits.h"

struct at_llm_client;

/* One request in the engine. */
struct at_llm_seq {
    uint64_t id;
    const char *client; /* whose turn it takes; "" is a client too */
    int32_t *tokens;    /* prompt, then answer; room for tokens_max. own: the sequence's owner */
    size_t n_prompt, n_tokens, tokens_max;
    /* the scheduler's */
    size_t n_done;   /* tokens in the cache */
    size_t n_reused; /* of them taken over from others when it was first admitted */
    int slot;        /* its sequence number in the engine; -1: waits */
    uint64_t order;  /* of admission */
    size_t preemptions;
    bool admitted; /* at least once */
    struct at_llm_client *owner;
    struct at_llm_seq *prev, *next;
};

/* Tokens [from, from + n) of seq are computed in this step. */
struct at_llm_chunk {
    struct at_llm_seq *seq;
    size_t from, n;
};

struct at_llm_sched_options {
    size_t sequences_max;   /* that compute at the same time */
    size_t cells;           /* tokens that the engine's cache keeps */
    size_t step_tokens_max; /* in one step */
    bool reuse;             /* keep prefixes of finished sequences, share those of running ones */
    bool split;             /* cells / sequences_max for each sequence, none are shared */
};

struct at_llm_cache {
    void *ctx;
    void (*drop)(void *ctx, int slot, size_t from);             /* tokens from there on */
    bool (*copy)(void *ctx, int from, int to, size_t n_tokens); /* the first ones; false: not */
};

struct at_llm_sched;

/* own: at_llm_sched_free; sequences stay their owners'. */
struct at_llm_sched *at_llm_sched_new(const struct at_llm_sched_options *options,
                                      const struct at_llm_cache *cache);
void at_llm_sched_free(struct at_llm_sched *s);
int at_llm_sched_slots(
    const struct at_llm_sched_options *options); /* numbers it may use: 0 to this */

/* in: n_prompt >= 1, tokens_max <= cells (of one sequence). own: seq stays the caller's, in place
 * until finish. */
void at_llm_sched_add(struct at_llm_sched *s, struct at_llm_seq *seq);
/* The next step; 0: nothing to do. chunks has room for sequences_max. */
size_t at_llm_sched_plan(struct at_llm_sched *s, struct at_llm_chunk *chunks);
/* The step was computed. A sequence whose n_done is n_tokens now waits for its next token. */
void at_llm_sched_ran(struct at_llm_sched *s, const struct at_llm_chunk *chunks, size_t n);
/* The step was not computed. */
void at_llm_sched_undo(struct at_llm_sched *s, const struct at_llm_chunk *chunks, size_t n);
/* The engine's cache was full before its count was: the sequence admitted last gives up its place.
 * false: there is only one. */
bool at_llm_sched_shrink(struct at_llm_sched *s);
/* A sequence got its next token; room for it must be there. */
void at_llm_sched_token(struct at_llm_sched *s, struct at_llm_seq *seq, int32_t token);
/* seq leaves, whatever it was doing. keep: its tokens may serve as prefix of others. */
void at_llm_sched_finish(struct at_llm_sched *s, struct at_llm_seq *seq, bool keep);

struct at_llm_sched_counts {
    size_t running, waiting, cells_used, cells_kept; /* kept: by finished ones, given up at need */
    uint64_t preemptions, reused_tokens;
};
struct at_llm_sched_counts at_llm_sched_count(const struct at_llm_sched *s);

#endif
