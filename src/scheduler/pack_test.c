/* The packing engine: formulas on cases computed by hand, and properties over random clusters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "pack_priv.h"

#define NODES 24
#define CLASSES 12
#define HELD_MAX 400

static uint64_t rng(uint64_t *s, uint64_t below)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (*s >> 33) % below;
}

static struct at_pack *pack_of(enum at_pack_policy policy, const struct at_pack_node *nodes,
                               size_t n_nodes, const struct at_pack_share *shares, size_t n)
{
    struct at_pack *p = NULL;
    struct at_pack_mix mix = {shares, n};
    assert_int_equal(at_pack_new(policy, nodes, n_nodes, &mix, &p, NULL), AT_OK);
    return p;
}

static bool put(struct at_pack *p, struct at_pack_request r, struct at_pack_place *ret)
{
    uint32_t class_id;
    assert_int_equal(at_pack_class(p, &r, &class_id, NULL), AT_OK);
    return at_pack_put(p, class_id, ret);
}

static const struct at_pack_share TWO_TASKS[] = {
    {{.cpu_milli = 4000, .gpus = 1, .gpu_milli = 500}, 1},
    {{.cpu_milli = 2000, .gpus = 1, .gpu_milli = 1000}, 1},
};

static void a_gpu_with_less_left_than_a_task_asks_for_is_fragmented(void **state)
{
    (void)state;
    struct at_pack_node node = {8000, 1000, 2, 0};
    struct at_pack_place place;
    struct at_pack *p = pack_of(AT_PACK_FGD, &node, 1, TWO_TASKS, 2);
    assert_true(at_pack_fragmented_gpu_milli(p) == 0);
    /* Left 400 and 1000: both tasks lose the 400. */
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 600}, &place));
    assert_true(at_pack_fragmented_gpu_milli(p) == 400);
    /* Left 400 and 300: the first loses 700, the second 700. */
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 700}, &place));
    assert_true(at_pack_fragmented_gpu_milli(p) == 700);
    assert_int_equal(at_pack_used_gpu_milli(p), 1300);
    assert_int_equal(at_pack_capacity_gpu_milli(p), 2000);
    at_pack_free(p);
}

static void what_is_idle_is_fragmented_for_a_task_without_cpu_or_model(void **state)
{
    (void)state;
    struct at_pack_node nodes[2] = {{8000, 1000, 2, 0}, {8000, 1000, 1, 1}};
    struct at_pack_share tasks[] = {
        {{.cpu_milli = 4000, .gpus = 1, .gpu_milli = 500, .models = 1}, 3},
        {{.cpu_milli = 1000}, 1},
    };
    struct at_pack_place place;
    struct at_pack *p = pack_of(AT_PACK_BESTFIT, nodes, 2, tasks, 2);
    /* Node 0: 3/4 fit, the task without GPUs loses 2000; node 1: all lose 1000. */
    assert_true(at_pack_fragmented_gpu_milli(p) == 2000 / 4.0 + 1000);
    uint32_t class_id;
    struct at_pack_request r = {.cpu_milli = 5000};
    assert_int_equal(at_pack_class(p, &r, &class_id, NULL), AT_OK);
    place = (struct at_pack_place){.node = 0};
    assert_int_equal(at_pack_put_at(p, class_id, &place), AT_OK);
    assert_true(at_pack_fragmented_gpu_milli(p) == 2000 + 1000); /* 3000 cpu left: too little */
    at_pack_free(p);
}

static void a_task_for_several_gpus_loses_all_that_is_idle_when_too_few_are_free(void **state)
{
    (void)state;
    struct at_pack_node node = {8000, 1000, 3, 0};
    struct at_pack_share task = {{.gpus = 2, .gpu_milli = 1000}, 1};
    struct at_pack_place place;
    struct at_pack *p = pack_of(AT_PACK_FGD, &node, 1, &task, 1);
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 300}, &place));
    assert_true(at_pack_fragmented_gpu_milli(p) == 700); /* two are free */
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 1000}, &place));
    assert_true(at_pack_fragmented_gpu_milli(p) == 1700); /* one is */
    at_pack_free(p);
}

static void fgd_puts_a_share_where_fragmentation_grows_least(void **state)
{
    (void)state;
    struct at_pack_node nodes[2] = {{8000, 1000, 1, 0}, {8000, 1000, 1, 0}};
    struct at_pack_share task = {{.gpus = 1, .gpu_milli = 500}, 1};
    struct at_pack_place a, b;
    struct at_pack *p = pack_of(AT_PACK_FGD, nodes, 2, &task, 1);
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 500}, &a));
    assert_int_equal(a.node, 0); /* a tie: the first */
    /* Node 0 would have 100 left and lose them, node 1 600 and lose nothing. */
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 400}, &b));
    assert_int_equal(b.node, 1);
    at_pack_free(p);
}

static void ours_learns_that_leftovers_which_fit_together_are_not_lost(void **state)
{
    (void)state;
    struct at_pack_share shares[] = {{{.gpus = 1, .gpu_milli = 1000}, 5},
                                     {{.gpus = 1, .gpu_milli = 470}, 4},
                                     {{.gpus = 1, .gpu_milli = 320}, 1}};
    int64_t loss[AT_PACK_GPU_MILLI + 1];
    pack_learn(shares, 3, loss);
    assert_int_equal(loss[0], 0);
    assert_int_equal(loss[210], 210);   /* nothing fits */
    assert_in_range(loss[530], 0, 150); /* the next 470 leaves 60; FGD says 265 */
    memset(loss, 1, sizeof loss);
    pack_learn(shares, 0, loss);
    assert_int_equal(loss[500], 0);
}

static void learning_in_small_steps_comes_to_the_same(void **state)
{
    (void)state;
    struct at_pack_share shares[] = {{{.gpus = 1, .gpu_milli = 1000}, 5},
                                     {{.gpus = 1, .gpu_milli = 470}, 4},
                                     {{.gpus = 1, .gpu_milli = 320}, 1}};
    static const int64_t WORK[] = {1, 777, 200000};
    int64_t whole[AT_PACK_GPU_MILLI + 1], parts[AT_PACK_GPU_MILLI + 1];
    pack_learn(shares, 3, whole);
    for (size_t i = 0; i < AT_ARRAY_LEN(WORK); i++) {
        struct pack_learning *l = pack_learning_new(shares, 3);
        size_t steps = 1;
        while (!pack_learning_step(l, WORK[i], parts)) {
            steps++;
        }
        assert_true(steps > 1);
        assert_memory_equal(whole, parts, sizeof whole);
        pack_learning_free(l);
    }
}

/* A random cluster and random requests; the same for the same seed. */
struct world {
    struct at_pack_node nodes[NODES];
    struct at_pack_share shares[CLASSES];
    uint64_t random;
};

/* Half of the requests insist on model 1, of which there is little: the others leave it alone, so
 * both kinds fit. Without anybody who insists the first node is taken. */
static void requests_for_any_model_leave_the_short_one_to_those_who_insist(void **state)
{
    (void)state;
    const struct at_pack_node nodes[] = {{64000, 0, 2, 1}, {64000, 0, 8, 0}};
    struct at_pack_share shares[] = {{{1000, 0, 1, 1000, 0}, 5}, {{1000, 0, 1, 1000, 2}, 5}};
    for (size_t n = 1; n <= 2; n++) {
        struct at_pack_mix mix = {shares, n};
        struct at_pack *p = NULL;
        struct at_pack_place place;
        uint32_t any;
        int32_t scarce[AT_PACK_MODELS_MAX];
        pack_scarce(shares, n, nodes, 2, scarce);
        assert_int_equal(scarce[0], 0);
        assert_int_equal(scarce[1], n == 1 ? 0 : 1000);
        assert_int_equal(at_pack_new(AT_PACK_ATOLL, nodes, 2, &mix, &p, NULL), AT_OK);
        assert_int_equal(at_pack_class(p, &shares[0].request, &any, NULL), AT_OK);
        assert_true(at_pack_put(p, any, &place));
        assert_int_equal(place.node, n == 1 ? 0 : 1);
        at_pack_free(p);
    }
}

static void world_init(struct world *w, uint64_t seed)
{
    static const uint32_t GPUS[] = {0, 1, 2, 4, 8, AT_PACK_GPUS_MAX};
    w->random = seed * 7919 + 1;
    for (size_t i = 0; i < NODES; i++) {
        w->nodes[i] = (struct at_pack_node){(int64_t)rng(&w->random, 64) * 1000,
                                            (int64_t)rng(&w->random, 64) * 100,
                                            GPUS[rng(&w->random, 6)], (uint32_t)rng(&w->random, 3)};
    }
    for (size_t i = 0; i < CLASSES; i++) {
        struct at_pack_request *r = &w->shares[i].request;
        *r = (struct at_pack_request){(int64_t)rng(&w->random, 16) * 500,
                                      (int64_t)rng(&w->random, 16) * 10, 0, 0, 0};
        r->gpus = i % 4 == 0 ? 0 : i % 4 == 1 ? 1 + (uint32_t)rng(&w->random, 4) : 1;
        r->gpu_milli = r->gpus == 0 ? 0
                       : r->gpus > 1 && rng(&w->random, 3) > 0
                           ? 1000
                           : 1 + (uint32_t)rng(&w->random, 1000);
        r->models = rng(&w->random, 4) == 0 ? 1 + rng(&w->random, 7) : 0;
        w->shares[i].count = (uint32_t)(CLASSES - i) * 3;
    }
}

/* The same bookkeeping once more, the simple way. */
struct shadow {
    int64_t cpu[NODES], memory[NODES], gpu[NODES][AT_PACK_GPUS_MAX];
};

static void shadow_move(struct shadow *s, const struct at_pack_request *r,
                        const struct at_pack_place *place, int sign)
{
    uint32_t held = 0;
    s->cpu[place->node] += sign * r->cpu_milli;
    s->memory[place->node] += sign * r->memory_mib;
    for (uint32_t g = 0; g < AT_PACK_GPUS_MAX; g++) {
        held += place->gpus >> g & 1;
        s->gpu[place->node][g] += (place->gpus >> g & 1) != 0 ? sign * (int64_t)r->gpu_milli : 0;
    }
    assert_int_equal(held, r->gpus);
}

static bool shadow_fits(const struct world *w, const struct shadow *s,
                        const struct at_pack_request *r, size_t n)
{
    uint32_t fit = 0;
    for (uint32_t g = 0; g < w->nodes[n].gpus; g++) {
        fit += s->gpu[n][g] + r->gpu_milli <= AT_PACK_GPU_MILLI;
    }
    bool model = r->gpus == 0 || r->models == 0 || (r->models >> w->nodes[n].model & 1) != 0;
    return model && fit >= r->gpus && s->cpu[n] + r->cpu_milli <= w->nodes[n].cpu_milli &&
           s->memory[n] + r->memory_mib <= w->nodes[n].memory_mib;
}

static void shadow_check(const struct world *w, const struct shadow *s, const struct at_pack *p)
{
    uint16_t left[AT_PACK_GPUS_MAX];
    for (uint32_t n = 0; n < NODES; n++) {
        struct at_pack_node now = at_pack_node_left(p, n, left);
        assert_int_equal(now.cpu_milli, w->nodes[n].cpu_milli - s->cpu[n]);
        assert_int_equal(now.memory_mib, w->nodes[n].memory_mib - s->memory[n]);
        for (uint32_t g = 0; g < w->nodes[n].gpus; g++) {
            assert_in_range(s->gpu[n][g], 0, AT_PACK_GPU_MILLI);
            assert_int_equal(left[g], AT_PACK_GPU_MILLI - s->gpu[n][g]);
        }
        for (uint32_t g = w->nodes[n].gpus; g < AT_PACK_GPUS_MAX; g++) {
            assert_int_equal(s->gpu[n][g], 0); /* a GPU that is not there */
        }
        assert_true(s->cpu[n] >= 0 && now.cpu_milli >= 0 && now.memory_mib >= 0);
    }
}

struct held {
    uint32_t class_id;
    struct at_pack_place place;
};

/* Random puts and releases; returns a digest of all decisions. */
static uint64_t churn(struct world *w, struct at_pack *p, int steps)
{
    struct shadow s = {0};
    struct held held[HELD_MAX];
    size_t n_held = 0;
    uint64_t digest = 0;
    uint32_t ids[CLASSES];
    for (size_t i = 0; i < CLASSES; i++) {
        assert_int_equal(at_pack_class(p, &w->shares[i].request, &ids[i], NULL), AT_OK);
    }
    for (int step = 0; step < steps; step++) {
        size_t c = rng(&w->random, CLASSES);
        const struct at_pack_request *r = &w->shares[c].request;
        struct at_pack_place place = {0};
        if (n_held == HELD_MAX || (n_held > 0 && rng(&w->random, 5) < 2)) {
            size_t at = rng(&w->random, n_held);
            at_pack_release(p, held[at].class_id, &held[at].place);
            shadow_move(&s, &p->classes[held[at].class_id].request, &held[at].place, -1);
            held[at] = held[--n_held];
        } else if (at_pack_put(p, ids[c], &place)) {
            assert_true(shadow_fits(w, &s, r, place.node));
            shadow_move(&s, r, &place, 1);
            held[n_held++] = (struct held){ids[c], place};
        } else {
            for (size_t n = 0; n < NODES; n++) {
                assert_false(shadow_fits(w, &s, r, n)); /* what fits is never refused */
            }
        }
        digest = (digest ^ place.node ^ (uint64_t)place.gpus << 16) * 0x100000001b3u;
        if (step % 37 == 0) {
            shadow_check(w, &s, p);
        }
    }
    while (n_held > 0) {
        n_held--;
        at_pack_release(p, held[n_held].class_id, &held[n_held].place);
    }
    return digest;
}

static void nothing_is_overcommitted_and_releases_restore_exactly(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        for (int policy = 0; policy < AT_PACK_POLICY_COUNT; policy++) {
            struct world w;
            struct shadow empty = {0};
            world_init(&w, seed);
            struct at_pack *p = pack_of(policy, w.nodes, NODES, w.shares, CLASSES);
            double fragmented = at_pack_fragmented_gpu_milli(p);
            churn(&w, p, 1500);
            shadow_check(&w, &empty, p);
            assert_int_equal(at_pack_used_gpu_milli(p), 0);
            assert_true(at_pack_fragmented_gpu_milli(p) == fragmented);
            at_pack_free(p);
        }
    }
}

static void the_same_input_gives_the_same_plan(void **state)
{
    (void)state;
    for (int policy = 0; policy < AT_PACK_POLICY_COUNT; policy++) {
        uint64_t digests[2];
        for (int run = 0; run < 2; run++) {
            struct world w;
            world_init(&w, 99);
            struct at_pack *p = pack_of(policy, w.nodes, NODES, w.shares, CLASSES);
            digests[run] = churn(&w, p, 800);
            at_pack_free(p);
        }
        assert_int_equal(digests[0], digests[1]);
    }
}

/* Each decision of an engine with kept scores is that of a new one brought to the same state. */
static void kept_scores_decide_as_new_ones(void **state)
{
    (void)state;
    for (int policy = 0; policy < AT_PACK_POLICY_COUNT; policy++) {
        struct world w;
        struct held held[HELD_MAX];
        size_t n_held = 0;
        world_init(&w, 5);
        struct at_pack *p = pack_of(policy, w.nodes, NODES, w.shares, CLASSES);
        for (int step = 0; step < 60; step++) {
            struct at_pack *fresh = pack_of(policy, w.nodes, NODES, w.shares, CLASSES);
            uint32_t id, fresh_id;
            for (size_t i = 0; i < n_held; i++) {
                const struct at_pack_request *r = &p->classes[held[i].class_id].request;
                assert_int_equal(at_pack_class(fresh, r, &fresh_id, NULL), AT_OK);
                assert_int_equal(at_pack_put_at(fresh, fresh_id, &held[i].place), AT_OK);
            }
            struct at_pack_request *r = &w.shares[rng(&w.random, CLASSES)].request;
            struct at_pack_place a = {0}, b = {0};
            assert_int_equal(at_pack_class(p, r, &id, NULL), AT_OK);
            assert_int_equal(at_pack_class(fresh, r, &fresh_id, NULL), AT_OK);
            bool placed = at_pack_put(p, id, &a);
            assert_int_equal(placed, at_pack_put(fresh, fresh_id, &b));
            assert_int_equal(a.node, b.node);
            assert_int_equal(a.gpus, b.gpus);
            held[n_held] = (struct held){id, a};
            n_held += placed;
            if (step % 4 == 3 && n_held > 0) {
                n_held--;
                at_pack_release(p, held[n_held].class_id, &held[n_held].place);
            }
            at_pack_free(fresh);
        }
        at_pack_free(p);
    }
}

static void tables_measure_what_the_published_sums_do(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    struct pack_mix mix;
    pack_mix_init(&mix, w.shares, CLASSES, 95, NULL);
    for (int i = 0; i < 5000; i++) {
        struct pack_left left = {.cpu_milli = (int64_t)rng(&w.random, 10000),
                                 .n_gpus = (uint8_t)rng(&w.random, AT_PACK_GPUS_MAX + 1)};
        for (uint32_t g = 0; g < left.n_gpus; g++) {
            left.gpu[g] = (uint16_t)(rng(&w.random, 3) == 0 ? 1000 : rng(&w.random, 1001));
            left.idle_milli += left.gpu[g];
            left.free_gpus += left.gpu[g] == AT_PACK_GPU_MILLI;
        }
        uint32_t model = (uint32_t)rng(&w.random, 4);
        double table = (double)pack_frag_of(&mix, model, &left) / (double)mix.weight;
        assert_true(fabs(table - pack_frag_published(&mix, model, &left)) < 1e-6);
        if (left.n_gpus == 0 || left.gpu[0] == 0) {
            continue;
        }
        uint32_t take = 1 + (uint32_t)rng(&w.random, left.gpu[0]);
        struct pack_trial t;
        struct pack_left after = left;
        pack_trial_begin(&t, &mix, model, &left, 500);
        after.cpu_milli -= 500;
        after.idle_milli -= take;
        after.free_gpus -= left.gpu[0] == AT_PACK_GPU_MILLI;
        after.gpu[0] = (uint16_t)(left.gpu[0] - take);
        assert_int_equal(pack_trial_take(&t, 0, take), pack_frag_of(&mix, model, &after));
    }
    pack_mix_done(&mix);
}

/* Of each GPU, by the whole sum: what the quick way by differences must come to. */
static int64_t least_by_whole_sums(const struct pack_mix *mix, const struct at_pack_request *r,
                                   uint32_t model, const struct pack_left *left, uint32_t *ret_gpus)
{
    int64_t least = INT64_MAX;
    for (uint32_t g = 0; g < left->n_gpus; g++) {
        struct pack_left after = *left;
        if (left->gpu[g] < r->gpu_milli) {
            continue;
        }
        after.cpu_milli -= r->cpu_milli;
        after.idle_milli -= r->gpu_milli;
        after.free_gpus -= left->gpu[g] == AT_PACK_GPU_MILLI;
        after.gpu[g] = (uint16_t)(left->gpu[g] - r->gpu_milli);
        int64_t frag = pack_frag_of(mix, model, &after);
        if (frag < least) {
            least = frag;
            *ret_gpus = 1u << g;
        }
    }
    return least;
}

static void gains_by_what_changes_are_those_of_whole_sums(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 7);
    int64_t learned[AT_PACK_GPU_MILLI + 1];
    pack_learn(w.shares, CLASSES, learned);
    for (int kind = 0; kind < 4; kind++) { /* learned or not; with odd tasks or without */
        const int32_t scarce[AT_PACK_MODELS_MAX] = {0};
        size_t n = 0;
        struct at_pack_share shares[CLASSES];
        for (size_t i = 0; i < CLASSES; i++) {
            bool odd =
                w.shares[i].request.gpus > 1 && w.shares[i].request.gpu_milli < AT_PACK_GPU_MILLI;
            if (kind % 2 == 0 || !odd) {
                shares[n++] = w.shares[i];
            }
        }
        struct pack_mix mix;
        pack_mix_init(&mix, shares, n, 100, kind / 2 == 0 ? learned : NULL);
        struct pack_own own = {&mix, scarce};
        for (int i = 0; i < 3000; i++) {
            struct pack_left left = {.cpu_milli = 2000 + (int64_t)rng(&w.random, 10000),
                                     .n_gpus = (uint8_t)(1 + rng(&w.random, AT_PACK_GPUS_MAX))};
            for (uint32_t g = 0; g < left.n_gpus; g++) {
                left.gpu[g] = (uint16_t)(rng(&w.random, 2) == 0 ? 1000 : rng(&w.random, 1001));
                left.idle_milli += left.gpu[g];
                left.free_gpus += left.gpu[g] == AT_PACK_GPU_MILLI;
            }
            struct at_pack_request r = {.cpu_milli = (int64_t)rng(&w.random, 2000),
                                        .gpus = 1,
                                        .gpu_milli = 1 + (uint32_t)rng(&w.random, 1000)};
            uint32_t model = (uint32_t)rng(&w.random, 4), wanted = 0, got = 0;
            struct pack_sums before = pack_sums_of(&mix, model, &left);
            assert_int_equal(before.frag, pack_frag_of(&mix, model, &left));
            int64_t least = least_by_whole_sums(&mix, &r, model, &left, &wanted);
            if (wanted != 0) {
                int64_t gain = pack_own_gain(&own, &r, model, &left, &before, UINT32_MAX, &got);
                double exact = (double)(before.frag - least) / (double)mix.weight;
                assert_int_equal(gain, (int64_t)floor(exact));
                assert_int_equal(got, wanted);
            }
        }
        pack_mix_done(&mix);
    }
}

static void absurd_amounts_are_refused_with_their_row(void **state)
{
    (void)state;
    struct at_err err;
    struct at_pack *p = NULL;
    struct at_pack_mix mix = {TWO_TASKS, 2};
    struct at_pack_node nodes[2] = {{1000, 10, 1, 0}, {-1, 10, 1, 0}};
    assert_int_equal(at_pack_new(AT_PACK_FGD, nodes, 2, &mix, &p, &err), AT_INVALID);
    assert_non_null(strstr(err.msg, "node 1"));
    nodes[1] = (struct at_pack_node){1000, 10, AT_PACK_GPUS_MAX + 1, 0};
    assert_int_equal(at_pack_new(AT_PACK_FGD, nodes, 2, &mix, &p, &err), AT_INVALID);
    assert_int_equal(at_pack_new(AT_PACK_FGD, nodes, 0, &mix, &p, &err), AT_INVALID);
    p = pack_of(AT_PACK_ATOLL, nodes, 1, NULL, 0); /* an empty mix is fine */
    static const struct at_pack_request BAD[] = {
        {.cpu_milli = -1}, {.memory_mib = INT64_MAX},      {.gpus = 1},
        {.gpu_milli = 1},  {.gpus = 1, .gpu_milli = 1001},
    };
    uint32_t id;
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(at_pack_class(p, &BAD[i], &id, &err), AT_INVALID);
    }
    struct at_pack_request never = {.gpus = UINT32_MAX, .gpu_milli = 1000};
    struct at_pack_place place;
    assert_false(put(p, never, &place));
    assert_true(put(p, (struct at_pack_request){.gpus = 1, .gpu_milli = 1000}, &place));
    at_pack_free(p);
}

static void a_place_that_does_not_fit_is_a_conflict(void **state)
{
    (void)state;
    struct at_pack_node node = {1000, 10, 2, 0};
    struct at_pack *p = pack_of(AT_PACK_FGD, &node, 1, TWO_TASKS, 2);
    struct at_pack_request r = {.gpus = 1, .gpu_milli = 600};
    uint32_t id;
    assert_int_equal(at_pack_class(p, &r, &id, NULL), AT_OK);
    assert_int_equal(at_pack_put_at(p, id, &(struct at_pack_place){0, 1}), AT_OK);
    static const struct at_pack_place BAD[] = {{0, 1}, {0, 3}, {0, 0}, {0, 4}, {1, 1}};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(at_pack_put_at(p, id, &BAD[i]), AT_CONFLICT);
    }
    assert_int_equal(at_pack_put_at(p, id, &(struct at_pack_place){0, 2}), AT_OK);
    at_pack_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_with_less_left_than_a_task_asks_for_is_fragmented),
        cmocka_unit_test(what_is_idle_is_fragmented_for_a_task_without_cpu_or_model),
        cmocka_unit_test(a_task_for_several_gpus_loses_all_that_is_idle_when_too_few_are_free),
        cmocka_unit_test(fgd_puts_a_share_where_fragmentation_grows_least),
        cmocka_unit_test(learning_in_small_steps_comes_to_the_same),
        cmocka_unit_test(ours_learns_that_leftovers_which_fit_together_are_not_lost),
        cmocka_unit_test(requests_for_any_model_leave_the_short_one_to_those_who_insist),
        cmocka_unit_test(nothing_is_overcommitted_and_releases_restore_exactly),
        cmocka_unit_test(the_same_input_gives_the_same_plan),
        cmocka_unit_test(kept_scores_decide_as_new_ones),
        cmocka_unit_test(tables_measure_what_the_published_sums_do),
        cmocka_unit_test(gains_by_what_changes_are_those_of_whole_sums),
        cmocka_unit_test(absurd_amounts_are_refused_with_their_row),
        cmocka_unit_test(a_place_that_does_not_fit_is_a_conflict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
