/* The policies: may a node take a request, on which of its GPUs, and how good is that. */
#include "scheduler/pack_priv.h"

#include <math.h>

/* Scales of the published scores: the largest node of the reference cluster. */
#define REF_CPU_MILLI 128000.0
#define REF_GPU_MILLI 8000.0

#define SLACK_MILLI 20
#define SLACK_WHOLE_MILLI 100
#define SLACK_CHURN_WHOLE_MILLI 40

bool pack_fits(const struct at_pack_request *r, const struct pack_node *n)
{
    if (r->cpu_milli > n->left.cpu_milli || r->memory_mib > n->memory_mib) {
        return false;
    }
    if (r->gpus == 0) {
        return true;
    }
    if (r->models != 0 && (r->models >> n->model & 1) == 0) {
        return false;
    }
    if (r->gpu_milli == AT_PACK_GPU_MILLI) {
        return n->left.free_gpus >= r->gpus;
    }
    uint32_t fit = 0;
    for (uint32_t g = 0; g < n->left.n_gpus; g++) {
        fit += n->left.gpu[g] >= r->gpu_milli;
    }
    return fit >= r->gpus;
}

/* The first GPUs with enough left. */
static uint32_t gpus_first(const struct at_pack_request *r, const struct pack_left *left,
                           uint32_t allowed)
{
    uint32_t set = 0;
    for (uint32_t g = 0, n = 0; n < r->gpus; g++) {
        if (left->gpu[g] >= r->gpu_milli && (allowed >> g & 1) != 0) {
            set |= 1u << g;
            n++;
        }
    }
    return set;
}

/* Those with the least left that is enough; the first on ties. */
static uint32_t gpus_tightest(const struct at_pack_request *r, const struct pack_left *left)
{
    uint32_t set = 0;
    for (uint32_t n = 0; n < r->gpus; n++) {
        uint32_t best = AT_PACK_GPUS_MAX;
        for (uint32_t g = 0; g < left->n_gpus; g++) {
            if ((set >> g & 1) == 0 && left->gpu[g] >= r->gpu_milli &&
                (best == AT_PACK_GPUS_MAX || left->gpu[g] < left->gpu[best])) {
                best = g;
            }
        }
        set |= 1u << best;
    }
    return set;
}

/* FGD's score is trunc(100 * sigmoid(gain / 1000)). Gains are integers here (milli-GPU times the
 * weight of the mix), so the least gain of each score is found once and compared exactly:
 * sigmoid(x) >= s / 100 when x >= ln(s / (100 - s)). */
void pack_steps_init(struct at_pack *p)
{
    double unit = 1000.0 * (double)p->published.weight;
    for (int s = 1; s < PACK_STEPS; s++) {
        p->steps[s] = s == 50 ? 0 : (int64_t)ceil(unit * log(s / (100.0 - s)));
    }
    p->steps[0] = INT64_MIN;
    p->steps[PACK_STEPS] = INT64_MAX;
}

static int step_of(const struct at_pack *p, int64_t gain)
{
    int at = 0;
    for (int half = 64; half > 0; half /= 2) {
        at += at + half <= PACK_STEPS && p->steps[at + half] <= gain ? half : 0;
    }
    return at;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* A gain of exactly 0 stands on the step from 49 to 50, and the published simulator's sums in
 * floating point fall to either side of it. Its decisions are reproduced by doing the same sums. */
static int step_of_nothing(const struct at_pack *p, const struct pack_node *n,
                           const struct pack_left *after)
{
    if (n->left.idle_milli == 0) {
        return PACK_STEPS / 2;
    }
    double before = pack_frag_published(&p->published, n->model, &n->left);
    double gain = before - pack_frag_published(&p->published, n->model, after);
    return (int)(1.0 / (1.0 + exp(-gain / 1000)) * 100.0);
}

static struct pack_left left_after(const struct at_pack_request *r, const struct pack_left *left,
                                   uint32_t gpus)
{
    struct pack_left after = *left;
    after.cpu_milli -= r->cpu_milli;
    for (uint32_t g = 0; g < after.n_gpus; g++) {
        if ((gpus >> g & 1) != 0) {
            after.free_gpus -= after.gpu[g] == AT_PACK_GPU_MILLI;
            after.gpu[g] = (uint16_t)(after.gpu[g] - r->gpu_milli);
            after.idle_milli -= r->gpu_milli;
        }
    }
    return after;
}

static int fgd_first_gpus(const struct at_pack *p, const struct at_pack_request *r,
                          const struct pack_node *n, uint32_t *ret_gpus)
{
    *ret_gpus = gpus_first(r, &n->left, UINT32_MAX);
    struct pack_left after = left_after(r, &n->left, *ret_gpus);
    const struct pack_frag *f = &p->published.frags[p->published.frag_of_model[n->model]];
    if (r->gpus == 0 && pack_level_of(f, n->left.cpu_milli) == pack_level_of(f, after.cpu_milli)) {
        return PACK_STEPS / 2;
    }
    int64_t gain = n->frag - pack_frag_of(&p->published, n->model, &after);
    return gain == 0 ? step_of_nothing(p, n, &after) : step_of(p, gain);
}

/* The GPU that leaves the node best, by steps of the score; the first one on ties. */
static int fgd_best_gpu(const struct at_pack *p, const struct at_pack_request *r,
                        const struct pack_node *n, uint32_t *ret_gpus)
{
    struct pack_trial t;
    pack_trial_begin(&t, &p->published, n->model, &n->left, r->cpu_milli);
    int best = -1;
    uint32_t tried = 0;
    for (uint32_t g = 0; g < n->left.n_gpus; g++) {
        if (n->left.gpu[g] < r->gpu_milli || n->left.gpu[g] == tried) {
            continue;
        }
        tried = n->left.gpu[g];
        int64_t gain = n->frag - pack_trial_take(&t, g, r->gpu_milli);
        if (best >= 0 && gain < p->steps[best + 1]) {
            continue;
        }
        int step = step_of(p, gain);
        if (gain == 0) {
            struct pack_left after = left_after(r, &n->left, 1u << g);
            step = step_of_nothing(p, n, &after);
        }
        if (step > best) {
            best = step;
            *ret_gpus = 1u << g;
        }
    }
    return best;
}

/* The least F after the request took one GPU, the first on ties. */
static int64_t own_one_gpu(const struct pack_own *own, const struct at_pack_request *r,
                           uint32_t model, const struct pack_left *left, uint32_t allowed,
                           uint32_t *ret_gpus)
{
    int64_t least = INT64_MAX;
    struct pack_trial t;
    pack_trial_begin(&t, own->mix, model, left, r->cpu_milli);
    uint32_t tried = 0;
    for (uint32_t g = 0; g < left->n_gpus; g++) {
        if (left->gpu[g] < r->gpu_milli || left->gpu[g] == tried || (allowed >> g & 1) == 0) {
            continue;
        }
        tried = left->gpu[g];
        int64_t now = pack_trial_take(&t, g, r->gpu_milli);
        if (now < least) {
            least = now;
            *ret_gpus = 1u << g;
        }
    }
    return least;
}

/* The same where the CPU left stays on its level, by what changes only. */
static int64_t own_one_gpu_level(const struct pack_own *own, const struct at_pack_request *r,
                                 const struct pack_level *l, const struct pack_left *left,
                                 const struct pack_sums *before, uint32_t allowed,
                                 uint32_t *ret_gpus)
{
    const int64_t *loss = own->mix->loss;
    int64_t least = INT64_MAX, idle = left->idle_milli;
    int64_t rest = before->frag - l->lack[left->free_gpus] * (idle - before->loss);
    uint32_t milli = r->gpu_milli, tried = 0;
    idle -= milli;
    rest -= l->shut * milli;
    for (uint32_t g = 0; g < left->n_gpus; g++) {
        uint32_t has = left->gpu[g];
        if (has < milli || has == tried || (allowed >> g & 1) == 0) {
            continue;
        }
        tried = has;
        int64_t lack = l->lack[left->free_gpus - (has == AT_PACK_GPU_MILLI)];
        int64_t now = rest - l->by_left[has] + l->by_left[has - milli];
        if (lack > 0) {
            now += lack * (idle - before->loss + loss[has] - loss[has - milli]);
        }
        if (now < least) {
            least = now;
            *ret_gpus = 1u << g;
        }
    }
    return least;
}

/* Ours: the gain itself, in milli-GPU, less what is taken of models that are short. */
int64_t pack_own_gain(const struct pack_own *own, const struct at_pack_request *r, uint32_t model,
                      const struct pack_left *left, const struct pack_sums *before,
                      uint32_t allowed, uint32_t *ret_gpus)
{
    int64_t least;
    const struct pack_frag *f = &own->mix->frags[own->mix->frag_of_model[model]];
    if (r->gpus != 1) {
        *ret_gpus = gpus_first(r, left, allowed);
        struct pack_left after = left_after(r, left, *ret_gpus);
        least = pack_frag_of(own->mix, model, &after);
    } else if (f->n_odd == 0 && (before->level == 0 || f->cpu_steps[before->level - 1] <=
                                                           left->cpu_milli - r->cpu_milli)) {
        least =
            own_one_gpu_level(own, r, &f->levels[before->level], left, before, allowed, ret_gpus);
    } else {
        least = own_one_gpu(own, r, model, left, allowed, ret_gpus);
    }
    if (own->mix->weight == 0) {
        return 0;
    }
    int64_t taken = (int64_t)r->gpus * r->gpu_milli * own->scarce[model] / AT_PACK_GPU_MILLI;
    return floor_div(before->frag - least, own->mix->weight) - taken;
}

static int score_own(const struct at_pack *p, const struct at_pack_request *r,
                     const struct pack_node *n, uint32_t *ret_gpus)
{
    struct pack_own own = {p->own, p->scarce};
    int64_t span = AT_PACK_GPUS_MAX * AT_PACK_GPU_MILLI; /* no gain or loss is larger */
    int64_t gain = pack_own_gain(&own, r, n->model, &n->left, &n->own, UINT32_MAX, ret_gpus);
    if (p->own->weight == 0) {
        return 0;
    }
    return (int)(span + gain > 0 ? span + gain : 0);
}

/* Ours: nodes within this of the best are equal, and the first one is taken, so that the cluster is
 * filled in one order and whole nodes stay free. Requests for whole GPUs all leave the same GPUs
 * behind; between nodes they differ by CPU only, where the measure is coarse. */
uint16_t pack_slack(const struct at_pack *p, const struct at_pack_request *r)
{
    if (p->own == NULL) {
        return 0;
    }
    if (p->own == &p->churning) {
        return r->gpu_milli == AT_PACK_GPU_MILLI ? SLACK_CHURN_WHOLE_MILLI : 0;
    }
    return r->gpu_milli == AT_PACK_GPU_MILLI ? SLACK_WHOLE_MILLI : SLACK_MILLI;
}

static int score_bestfit(const struct at_pack_request *r, const struct pack_left *left)
{
    double cpu = (double)(left->cpu_milli - r->cpu_milli) / REF_CPU_MILLI;
    double gpu = (double)(left->idle_milli - r->gpus * r->gpu_milli) / REF_GPU_MILLI;
    return (int)(100 * (1 - 0.5 * cpu - 0.5 * gpu));
}

static int score_dotprod(const struct at_pack_request *r, const struct pack_left *left)
{
    double cpu = (double)left->cpu_milli / REF_CPU_MILLI * ((double)r->cpu_milli / REF_CPU_MILLI);
    double gpu = left->idle_milli / REF_GPU_MILLI * (r->gpus * r->gpu_milli / REF_GPU_MILLI);
    return (int)(100 * (1 - (cpu + gpu) / 2));
}

static int score_packing(const struct at_pack_request *r, const struct pack_left *left,
                         uint32_t chosen)
{
    if (r->gpus == 0) {
        return 0;
    }
    int free_gpus = left->free_gpus, opened = 0, left_percent = 0;
    if (free_gpus == left->n_gpus) {
        return 33 - free_gpus > free_gpus ? 33 - free_gpus : free_gpus;
    }
    for (uint32_t g = 0; g < left->n_gpus; g++) {
        if ((chosen >> g & 1) != 0) {
            opened += left->gpu[g] == AT_PACK_GPU_MILLI;
            left_percent += left->gpu[g] / 10;
        }
    }
    if (opened > 0) {
        return 50 - opened > 33 ? 50 - opened : 33;
    }
    return 100 - left_percent / 10 > 50 ? 100 - left_percent / 10 : 50;
}

static int score_clustering(const struct at_pack_request *r, const struct pack_node *n)
{
    if (r->gpus == 0) {
        return 0;
    }
    int base = (int)(25 * (8000 - (int64_t)n->left.idle_milli) / 8000);
    uint32_t kind = r->gpu_milli < AT_PACK_GPU_MILLI ? 0 : r->gpus;
    bool others = false;
    for (uint32_t k = 0; k <= AT_PACK_GPUS_MAX; k++) {
        others |= k != kind && n->hosts[k] > 0;
    }
    if (n->hosts[kind] > 0) {
        return base + (others ? 50 : 75);
    }
    return base + (others ? 0 : 25);
}

static uint16_t positive(int score)
{
    return (uint16_t)(score < 0 ? 1 : score + 1);
}

uint16_t pack_score(const struct at_pack *p, const struct pack_class *c, const struct pack_node *n,
                    uint32_t *ret_gpus)
{
    const struct at_pack_request *r = &c->request;
    if (!pack_fits(r, n)) {
        return PACK_NO_FIT;
    }
    if (p->policy == AT_PACK_FGD) {
        return positive(r->gpus == 1 ? fgd_best_gpu(p, r, n, ret_gpus)
                                     : fgd_first_gpus(p, r, n, ret_gpus));
    }
    if (p->policy == AT_PACK_ATOLL) {
        return positive(score_own(p, r, n, ret_gpus));
    }
    *ret_gpus = gpus_tightest(r, &n->left);
    switch (p->policy) {
    case AT_PACK_BESTFIT:
        return positive(score_bestfit(r, &n->left));
    case AT_PACK_DOTPROD:
        return positive(score_dotprod(r, &n->left));
    case AT_PACK_PACKING:
        return positive(score_packing(r, &n->left, *ret_gpus));
    default:
        return positive(score_clustering(r, n));
    }
}
