/* How much less (or more) of a node's idle GPUs a placement leaves useless for the requests that
 * there are: FGD's gradient (Weng et al., USENIX ATC 2023, eq. 2 to 5) over the GPU requests of the
 * snapshot, in integers. GPU models and memory of other requests are not looked at. */
#include "scheduler/scheduler_priv.h"

#include <stdlib.h>
#include <string.h>

#define MIX_MAX 16           /* the most frequent shapes */
#define MEASURED_GPUS_MAX 64 /* larger nodes are not measured */
#define LEVEL 500 /* score of a placement that changes nothing; 1 milli is half a point */
#define SCORE_MAX 1000

struct sched_mix {
    struct {
        int64_t cpu_milli, gpu_count, gpu_milli, seen;
    } tasks[MIX_MAX];
    size_t n;
};

static int by_shape(const void *a, const void *b)
{
    const struct sched_demand *x = a, *y = b;
    const int64_t *left[] = {&x->gpu_count, &x->gpu_milli, &x->cpu_milli};
    const int64_t *right[] = {&y->gpu_count, &y->gpu_milli, &y->cpu_milli};
    for (int i = 0; i < 3; i++) {
        if (*left[i] != *right[i]) {
            return *left[i] > *right[i] ? -1 : 1;
        }
    }
    return 0;
}

/* Keep the most frequent; of equally frequent ones the larger, which comes first. */
static void mix_add(struct sched_mix *mix, const struct sched_demand *d, int64_t seen)
{
    size_t at = mix->n;
    while (at > 0 && mix->tasks[at - 1].seen < seen) {
        at--;
    }
    if (at == MIX_MAX) {
        return;
    }
    mix->n += mix->n < MIX_MAX;
    memmove(&mix->tasks[at + 1], &mix->tasks[at], (mix->n - 1 - at) * sizeof mix->tasks[0]);
    mix->tasks[at].cpu_milli = d->cpu_milli;
    mix->tasks[at].gpu_count = d->gpu_count;
    mix->tasks[at].gpu_milli = d->gpu_milli;
    mix->tasks[at].seen = seen;
}

/* Of all instances that have not ended. NULL: the arena is full. */
static struct sched_mix *mix_of(const struct sched *s)
{
    const struct at_snapshot *snap = s->snap;
    struct sched_mix *mix = at_arena_alloc(s->arena, sizeof *mix);
    struct sched_demand *all = at_arena_alloc(s->arena, sizeof *all * (snap->n_instances + 1));
    if (mix == NULL || all == NULL) {
        return NULL;
    }
    size_t n = 0;
    for (size_t i = 0; i < snap->n_instances; i++) {
        const struct at_instance *instance = snap->instances[i];
        all[n] = sched_demand_of(&instance->spec);
        n += all[n].gpu_count > 0 && !at_streq(instance->status.phase, "Succeeded") &&
             !at_streq(instance->status.phase, "Failed");
    }
    qsort(all, n, sizeof *all, by_shape);
    for (size_t i = 0, run = 1; i < n; i++, run++) {
        if (i + 1 == n || by_shape(&all[i], &all[i + 1]) != 0) {
            mix_add(mix, &all[i], (int64_t)run);
            run = 0;
        }
    }
    return mix;
}

static int64_t fragmented(const struct sched_mix *mix, const struct sched_node *n)
{
    int64_t sum = 0;
    for (size_t t = 0; t < mix->n; t++) {
        int64_t fit = 0, small = 0, idle = 0;
        for (size_t g = 0; g < n->n_gpus; g++) {
            bool enough = n->gpus[g].free_milli >= mix->tasks[t].gpu_milli;
            fit += enough;
            small += enough ? 0 : n->gpus[g].free_milli;
            idle += n->gpus[g].free_milli;
        }
        bool runs = fit >= mix->tasks[t].gpu_count && n->cpu_milli >= mix->tasks[t].cpu_milli;
        sum += mix->tasks[t].seen * (runs ? small : idle);
    }
    return sum;
}

static int64_t score_node(const struct sched_mix *mix, int64_t weight, const struct sched_node *n,
                          const struct sched_demand *d)
{
    struct sched_gpu gpus[MEASURED_GPUS_MAX];
    if (n->n_gpus > MEASURED_GPUS_MAX || weight == 0) {
        return LEVEL;
    }
    struct sched_node after = *n;
    after.gpus = gpus;
    memcpy(gpus, n->gpus, n->n_gpus * sizeof *gpus);
    sched_take(&after, d);
    int64_t score = LEVEL + (fragmented(mix, n) - fragmented(mix, &after)) / (2 * weight);
    return score < 0 ? 0 : score > SCORE_MAX ? SCORE_MAX : score;
}

enum at_rc sched_mix_load(struct sched *s)
{
    if (s->mix == NULL) {
        s->mix = mix_of(s);
    }
    return s->mix != NULL ? AT_OK : AT_NOMEM;
}

int64_t sched_score_fragmentation(const struct sched *s, const struct sched_node *n,
                                  const struct sched_demand *d)
{
    int64_t weight = 0;
    for (size_t t = 0; t < s->mix->n; t++) {
        weight += s->mix->tasks[t].seen;
    }
    return score_node(s->mix, weight, n, d);
}
