/* Fragmentation of a node for a mix of tasks (FGD, eq. 1 to 4) as table look-ups. */
#include "core/mem.h"
#include "scheduler/pack_priv.h"

#include <stdlib.h>
#include <string.h>
static bool task_uses_model(const struct at_pack_request *r, uint32_t model)
{
    return r->models == 0 || (r->models >> model & 1) != 0;
}

static bool same_tasks(const struct at_pack_share *shares, size_t n, uint32_t a, uint32_t b)
{
    for (size_t i = 0; i < n; i++) {
        if (shares[i].request.gpus > 0 &&
            task_uses_model(&shares[i].request, a) != task_uses_model(&shares[i].request, b)) {
            return false;
        }
    }
    return true;
}

static int cmp_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void frag_steps(struct pack_frag *f, const struct at_pack_share *shares, size_t n)
{
    f->cpu_steps = at_alloc((n + 1) * sizeof *f->cpu_steps);
    size_t n_steps = 0;
    for (size_t i = 0; i < n; i++) {
        f->cpu_steps[i] = shares[i].request.cpu_milli;
    }
    qsort(f->cpu_steps, n, sizeof *f->cpu_steps, cmp_i64);
    for (size_t i = 0; i < n; i++) {
        if (n_steps == 0 || f->cpu_steps[n_steps - 1] != f->cpu_steps[i]) {
            f->cpu_steps[n_steps++] = f->cpu_steps[i];
        }
    }
    f->n_levels = n_steps + 1;
    f->levels = at_alloc(f->n_levels * sizeof *f->levels);
}

/* At this level a task is no longer shut out. */
static void level_open(struct pack_level *l, const struct at_pack_share *task, const int64_t *loss,
                       bool learned)
{
    const struct at_pack_request *r = &task->request;
    int64_t weight = task->count;
    l->shut -= weight;
    if (r->gpus > 1 && r->gpu_milli < AT_PACK_GPU_MILLI) {
        return; /* odd: apart */
    }
    for (uint32_t left = 0; left <= AT_PACK_GPU_MILLI; left++) {
        bool small = r->gpus > 1 || learned || left < r->gpu_milli;
        l->by_left[left] += small ? weight * loss[left] : 0;
    }
    uint32_t more = r->gpus > AT_PACK_GPUS_MAX ? AT_PACK_GPUS_MAX + 1 : r->gpus;
    for (uint32_t free_gpus = 0; r->gpus > 1 && free_gpus < more; free_gpus++) {
        l->lack[free_gpus] += weight;
    }
}

static void frag_init(struct pack_frag *f, const struct at_pack_share *shares, size_t n,
                      uint32_t model, const int64_t *loss, bool learned)
{
    size_t bytes = (AT_PACK_GPU_MILLI + 1) * sizeof(int64_t);
    frag_steps(f, shares, n);
    f->odd = at_alloc((n + 1) * sizeof *f->odd);
    f->levels[0].by_left = at_alloc(bytes);
    for (size_t i = 0; i < n; i++) {
        const struct at_pack_request *r = &shares[i].request;
        f->levels[0].shut += shares[i].count;
        if (r->gpus > 1 && r->gpu_milli < AT_PACK_GPU_MILLI && task_uses_model(r, model)) {
            f->odd[f->n_odd++] =
                (struct pack_odd){r->cpu_milli, shares[i].count, r->gpus, r->gpu_milli};
        }
    }
    for (size_t l = 1; l < f->n_levels; l++) {
        int64_t *by_left = at_alloc(bytes);
        memcpy(by_left, f->levels[l - 1].by_left, bytes);
        f->levels[l] = f->levels[l - 1];
        f->levels[l].by_left = by_left;
        for (size_t i = 0; i < n; i++) {
            const struct at_pack_request *r = &shares[i].request;
            if (r->gpus > 0 && r->cpu_milli == f->cpu_steps[l - 1] && task_uses_model(r, model)) {
                level_open(&f->levels[l], &shares[i], loss, learned);
            }
        }
    }
}

static void mix_tasks(struct pack_mix *mix, const struct at_pack_share *shares, size_t n,
                      double n_seen)
{
    for (size_t i = 0; i < n; i++) {
        mix->weight += shares[i].count;
    }
    mix->tasks = at_alloc((n + 1) * sizeof *mix->tasks);
    mix->n_tasks = n;
    for (size_t i = 0; i < n; i++) {
        double share = shares[i].count / n_seen / ((double)mix->weight / n_seen);
        mix->tasks[i] = (struct pack_task){shares[i].request, share};
    }
}

void pack_mix_init(struct pack_mix *mix, const struct at_pack_share *shares, size_t n, int percent,
                   const int64_t *learned)
{
    *mix = (struct pack_mix){.frags = at_alloc(AT_PACK_MODELS_MAX * sizeof *mix->frags)};
    double n_seen = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        n_seen += shares[i].count;
    }
    for (double sum = 0; kept < n && 100 * sum < percent * n_seen;) {
        sum += shares[kept++].count;
    }
    mix_tasks(mix, shares, kept, n_seen);
    for (int left = 0; left <= AT_PACK_GPU_MILLI; left++) {
        mix->loss[left] = learned != NULL ? learned[left] : left < AT_PACK_GPU_MILLI ? left : 0;
    }
    uint32_t first[AT_PACK_MODELS_MAX];
    for (uint32_t model = 0; model < AT_PACK_MODELS_MAX; model++) {
        size_t group = 0;
        while (group < mix->n_frags && !same_tasks(shares, kept, first[group], model)) {
            group++;
        }
        if (group == mix->n_frags) {
            frag_init(&mix->frags[group], shares, kept, model, mix->loss, learned != NULL);
            first[group] = model;
            mix->n_frags++;
        }
        mix->frag_of_model[model] = (uint8_t)group;
    }
}

void pack_mix_done(struct pack_mix *mix)
{
    for (size_t i = 0; i < mix->n_frags; i++) {
        struct pack_frag *f = &mix->frags[i];
        for (size_t l = 0; l < f->n_levels; l++) {
            at_free(f->levels[l].by_left);
        }
        at_free(f->levels);
        at_free(f->cpu_steps);
        at_free(f->odd);
    }
    at_free(mix->frags);
    at_free(mix->tasks);
    *mix = (struct pack_mix){0};
}

static int64_t frag_odd(const struct pack_frag *f, const struct pack_left *left)
{
    int64_t sum = 0;
    for (size_t i = 0; i < f->n_odd; i++) {
        const struct pack_odd *o = &f->odd[i];
        if (left->cpu_milli < o->cpu_milli) {
            continue; /* counted as shut out */
        }
        uint32_t fit = 0;
        int64_t small = 0;
        for (uint32_t g = 0; g < left->n_gpus; g++) {
            fit += left->gpu[g] >= o->gpu_milli;
            small += left->gpu[g] >= o->gpu_milli ? 0 : left->gpu[g];
        }
        sum += o->weight * (fit < o->gpus ? (int64_t)left->idle_milli : small);
    }
    return sum;
}

static void trial_sums(struct pack_trial *t)
{
    t->level = &t->f->levels[pack_level_of(t->f, t->left.cpu_milli)];
    t->by_left = t->loss = 0;
    for (uint32_t g = 0; g < t->left.n_gpus; g++) {
        t->by_left += t->level->by_left[t->left.gpu[g]];
    }
    for (uint32_t g = 0; t->level->lack[0] > 0 && g < t->left.n_gpus; g++) {
        t->loss += t->mix->loss[t->left.gpu[g]];
    }
}

static int64_t trial_frag(const struct pack_trial *t)
{
    int64_t idle = t->left.idle_milli;
    return t->by_left + t->level->shut * idle +
           t->level->lack[t->left.free_gpus] * (idle - t->loss) + frag_odd(t->f, &t->left);
}

int64_t pack_frag_of(const struct pack_mix *mix, uint32_t model, const struct pack_left *left)
{
    struct pack_trial t = {.mix = mix, .f = &mix->frags[mix->frag_of_model[model]], .left = *left};
    trial_sums(&t);
    return trial_frag(&t);
}

struct pack_sums pack_sums_of(const struct pack_mix *mix, uint32_t model,
                              const struct pack_left *left)
{
    struct pack_trial t = {.mix = mix, .f = &mix->frags[mix->frag_of_model[model]], .left = *left};
    trial_sums(&t);
    return (struct pack_sums){trial_frag(&t), (int32_t)t.loss, (uint32_t)(t.level - t.f->levels)};
}

void pack_trial_begin(struct pack_trial *t, const struct pack_mix *mix, uint32_t model,
                      const struct pack_left *left, int64_t cpu_milli)
{
    t->mix = mix;
    t->f = &mix->frags[mix->frag_of_model[model]];
    t->left = *left;
    t->left.cpu_milli -= cpu_milli;
    trial_sums(t);
}

int64_t pack_trial_take(const struct pack_trial *t, uint32_t gpu, uint32_t gpu_milli)
{
    const struct pack_level *l = t->level;
    uint32_t before = t->left.gpu[gpu], after = before - gpu_milli;
    uint32_t free_gpus = t->left.free_gpus - (before == AT_PACK_GPU_MILLI);
    int64_t idle = (int64_t)t->left.idle_milli - gpu_milli;
    int64_t sum = t->by_left - l->by_left[before] + l->by_left[after] + l->shut * idle;
    if (l->lack[free_gpus] > 0) {
        int64_t loss = t->loss - t->mix->loss[before] + t->mix->loss[after];
        sum += l->lack[free_gpus] * (idle - loss);
    }
    if (t->f->n_odd > 0) {
        struct pack_left left = t->left;
        left.gpu[gpu] = (uint16_t)after;
        left.idle_milli -= gpu_milli;
        sum += frag_odd(t->f, &left);
    }
    return sum;
}

/* The kinds of fragment that the published simulator adds up apart; satisfied is no fragment. */
enum frag_kind { LACK_BOTH, LACK_GPU, LACK_CPU, NO_GPU_FIT, NO_GPU_LACK_CPU, NO_ACCESS, KINDS };

double pack_frag_published(const struct pack_mix *mix, uint32_t model, const struct pack_left *left)
{
    double sums[KINDS] = {0};
    for (size_t i = 0; i < mix->n_tasks; i++) {
        const struct at_pack_request *r = &mix->tasks[i].request;
        bool cpu = left->cpu_milli >= r->cpu_milli;
        uint32_t fit = 0, small = 0;
        for (uint32_t g = 0; g < left->n_gpus; g++) {
            fit += left->gpu[g] >= r->gpu_milli;
            small += left->gpu[g] >= r->gpu_milli ? 0 : left->gpu[g];
        }
        enum frag_kind kind = cpu ? LACK_GPU : LACK_BOTH;
        uint32_t lost = left->idle_milli;
        if (r->gpus == 0) {
            kind = cpu ? NO_GPU_FIT : NO_GPU_LACK_CPU;
        } else if (!task_uses_model(r, model)) {
            kind = NO_ACCESS;
        } else if (fit >= r->gpus) {
            kind = cpu ? LACK_GPU : LACK_CPU;
            lost = cpu ? small : lost;
        }
        sums[kind] += mix->tasks[i].share * (double)lost;
    }
    double sum = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        sum += sums[kind];
    }
    return sum;
}
