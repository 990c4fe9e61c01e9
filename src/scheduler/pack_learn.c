/* What is a leftover of a GPU worth? FGD takes all of it for lost to every request that asks for
 * more. But a GPU with 530 left is fine when requests for 470 keep coming, and one with 210 left is
 * nearly lost when only 220 do. So we learn it: identical GPUs are filled by requests drawn from
 * the mix, each put where least is lost by what is known so far; what such a GPU had left in the
 * end, averaged over all GPUs that ever had `left` left, is what is lost of one with `left`. That
 * is approximate policy iteration (Bertsekas and Tsitsiklis, Neuro-Dynamic Programming, 1996, ch.
 * 6) on a chain with one state per leftover. The table that packed best is kept. */
#include "core/mem.h"
#include "scheduler/pack_priv.h"

#include <string.h>

#define LEARN_GPUS 6000
#define LEARN_ROUNDS 16
#define LEARN_LOAD_PERCENT 110 /* of the GPUs are asked for in all */
#define LEARN_ONE 1024         /* fixed point: one milli-GPU */
#define LEARN_SEED 12345       /* the same draws each round, so that rounds compare */
#define STATES (AT_PACK_GPU_MILLI + 1)

struct pack_learning {
    uint16_t size[STATES];  /* what is asked for of one GPU */
    uint64_t up_to[STATES]; /* weight of the sizes up to this one */
    size_t n_sizes;
    uint16_t states[STATES]; /* leftovers that can come about, ascending */
    size_t n_states;
    int32_t gpus[STATES]; /* by leftover */
    uint32_t *moves;      /* [leftover before * n_sizes + size] */
    int64_t loss[STATES], best[STATES], next[STATES];
    uint64_t random; /* of this round, and what it asked for */
    int64_t asked;
    int64_t round, least; /* left over so far */
};

static uint64_t draw(uint64_t *state, uint64_t below) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint64_t)(((unsigned __int128)(z ^ z >> 31) * below) >> 64);
}

static uint64_t learn_sizes(struct pack_learning *l, const struct at_pack_share *shares, size_t n)
{
    uint64_t weight[STATES] = {0}, total = 0;
    bool reached[STATES] = {0};
    for (size_t i = 0; i < n; i++) {
        weight[shares[i].request.gpu_milli] += (uint64_t)shares[i].count * shares[i].request.gpus;
    }
    for (int size = 1; size < STATES; size++) {
        if (weight[size] > 0) {
            total += weight[size];
            l->size[l->n_sizes] = (uint16_t)size;
            l->up_to[l->n_sizes++] = total;
        }
    }
    reached[AT_PACK_GPU_MILLI] = true;
    for (int left = AT_PACK_GPU_MILLI; left >= 0; left--) {
        for (size_t s = 0; reached[left] && s < l->n_sizes && l->size[s] <= left; s++) {
            reached[left - l->size[s]] = true;
        }
    }
    for (int left = 0; left < STATES; left++) {
        l->states[l->n_states] = (uint16_t)left;
        l->n_states += reached[left];
    }
    return total;
}

/* FGD's measure, to begin with: left times the share of requests that ask for more. */
static void learn_begin(struct pack_learning *l, uint64_t total)
{
    size_t s = 0;
    for (int left = 0; left < STATES; left++) {
        while (s < l->n_sizes && l->size[s] <= left) {
            s++;
        }
        uint64_t more = total - (s > 0 ? l->up_to[s - 1] : 0);
        l->loss[left] = (int64_t)((unsigned __int128)more * (uint64_t)left * LEARN_ONE / total);
    }
}

static size_t draw_size(const struct pack_learning *l, uint64_t *random)
{
    uint64_t at = draw(random, l->up_to[l->n_sizes - 1]);
    size_t low = 0, high = l->n_sizes - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (at < l->up_to[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void fill_begin(struct pack_learning *l)
{
    l->random = LEARN_SEED;
    l->asked = 0;
    memset(l->gpus, 0, sizeof l->gpus);
    memset(l->moves, 0, STATES * l->n_sizes * sizeof *l->moves);
    l->gpus[AT_PACK_GPU_MILLI] = LEARN_GPUS;
}

/* Fill the GPUs by the losses known, until all is asked for (true) or *work is used up. */
static bool fill_on(struct pack_learning *l, int64_t *work)
{
    while (l->asked < (int64_t)LEARN_GPUS * AT_PACK_GPU_MILLI * LEARN_LOAD_PERCENT / 100) {
        if (*work <= 0) {
            return false;
        }
        size_t s = draw_size(l, &l->random);
        int size = l->size[s], best = -1;
        int64_t least = INT64_MAX;
        size_t i = l->n_states;
        for (; i > 0 && l->states[i - 1] >= size; i--) {
            int left = l->states[i - 1];
            int64_t lost = l->loss[left - size] - l->loss[left];
            if (l->gpus[left] > 0 && lost <= least) {
                least = lost;
                best = left;
            }
        }
        *work -= (int64_t)(l->n_states - i) + 1;
        l->asked += size;
        if (best >= 0) {
            l->gpus[best]--;
            l->gpus[best - size]++;
            l->moves[(size_t)best * l->n_sizes + s]++;
        }
    }
    return true;
}

static int64_t left_over_of(const struct pack_learning *l)
{
    int64_t sum = 0;
    for (int left = 0; left < STATES; left++) {
        sum += (int64_t)l->gpus[left] * left;
    }
    return sum;
}

/* What GPUs that had `left` left lost in the end: smaller leftovers first. */
static void learn_losses(struct pack_learning *l)
{
    for (int left = 0; left < STATES; left++) {
        int64_t n = l->gpus[left], sum = (int64_t)l->gpus[left] * left * LEARN_ONE;
        for (size_t s = 0; s < l->n_sizes && l->size[s] <= left; s++) {
            int64_t moved = l->moves[(size_t)left * l->n_sizes + s];
            n += moved;
            sum += moved * l->next[left - l->size[s]];
        }
        l->next[left] = n > 0 ? sum / n : l->loss[left];
    }
}

struct pack_learning *pack_learning_new(const struct at_pack_share *shares, size_t n)
{
    struct pack_learning *l = AT_NEW(struct pack_learning);
    l->least = INT64_MAX;
    uint64_t total = learn_sizes(l, shares, n);
    if (total > 0) {
        l->moves = at_alloc(STATES * l->n_sizes * sizeof *l->moves);
        learn_begin(l, total);
        fill_begin(l);
    }
    return l;
}

void pack_learning_free(struct pack_learning *l)
{
    if (l != NULL) {
        at_free(l->moves);
        at_free(l);
    }
}

static void end_round(struct pack_learning *l)
{
    int64_t left_over = left_over_of(l);
    if (l->round > 0 && left_over <= l->least) { /* round 0: nothing learned yet */
        l->least = left_over;
        memcpy(l->best, l->loss, sizeof l->best);
    }
    learn_losses(l);
    for (int left = 0; left < STATES; left++) { /* ever smaller steps */
        l->loss[left] = (l->round * l->loss[left] + 2 * l->next[left]) / (l->round + 2);
    }
    l->round++;
}

bool pack_learning_step(struct pack_learning *l, int64_t work, int64_t loss[AT_PACK_GPU_MILLI + 1])
{
    memset(loss, 0, STATES * sizeof *loss);
    while (l->n_sizes > 0 && l->round < LEARN_ROUNDS) {
        if (!fill_on(l, &work)) {
            return false;
        }
        end_round(l);
        work -= (int64_t)(l->n_sizes * STATES);
        if (l->round < LEARN_ROUNDS) {
            fill_begin(l);
        }
    }
    for (int left = 0; left < STATES; left++) {
        loss[left] = (l->best[left] + LEARN_ONE / 2) / LEARN_ONE;
    }
    return true;
}

void pack_learn(const struct at_pack_share *shares, size_t n, int64_t loss[AT_PACK_GPU_MILLI + 1])
{
    struct pack_learning *l = pack_learning_new(shares, n);
    (void)pack_learning_step(l, INT64_MAX, loss);
    pack_learning_free(l);
}
