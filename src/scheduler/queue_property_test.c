/* Random cohorts from printed seeds: what must hold for each of them. */
#include "queue_kit_test.h"

#define SEEDS 150
#define ROUNDS 12

struct rng {
    uint64_t x;
};
static uint64_t rng_next(struct rng *r) /* splitmix64 */
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static int64_t upto(struct rng *r, int64_t n) /* 0..n-1 */
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}

static const char *digits(struct kit *k, int64_t n)
{
    return at_arena_printf(k->arena, "%lld", (long long)n);
}

/* A tree of two levels above the queues, with limits here and there. */
static void random_queues(struct kit *k, struct rng *r)
{
    static const char *const COHORTS[] = {NULL, "left", "right", "org"};
    (void)kit_queue(k, "left", "org");
    struct at_queue *right = kit_queue(k, "right", "org");
    kit_owns(k, right, "gpu", digits(k, upto(r, 3)), "4", "2");
    kit_owns(k, right, "cpu", "0", NULL, NULL);
    int64_t n = 2 + upto(r, 5);
    for (int i = 0; i < n; i++) {
        char name[8];
        snprintf(name, sizeof(name), "q%d", i);
        struct at_queue *q = kit_queue(k, name, COHORTS[upto(r, 4)]);
        q->spec.weight = 1 + upto(r, 3);
        q->spec.ordering = upto(r, 3) == 0 ? "StrictFIFO" : "BestEffortFIFO";
        kit_owns(k, q, "gpu", digits(k, upto(r, 6)), upto(r, 2) ? digits(k, upto(r, 5)) : NULL,
                 upto(r, 2) ? digits(k, upto(r, 4)) : NULL);
        kit_owns(k, q, "cpu", digits(k, upto(r, 20)), NULL, NULL);
    }
}

static void arrive(struct kit *k, struct rng *r, int *serial)
{
    size_t n_queues = k->n_queues;
    for (int64_t i = upto(r, 8); i > 0 && k->n_instances < KIT_MAX - 8; i--) {
        const char *queue = k->queues[upto(r, (int64_t)n_queues)]->meta.name;
        char name[16];
        snprintf(name, sizeof(name), "i%04d", (*serial)++);
        int64_t gpus = upto(r, 3);
        int64_t cpus = upto(r, 6);
        struct at_instance *x = kit_wants(k, queue, name, gpus, cpus);
        x->spec.priority = upto(r, 3);
        if (upto(r, 5) == 0) {
            struct at_gang *gang = kit_alloc(k, sizeof(*gang));
            gang->name = at_arena_strdup(k->arena, name);
            gang->size = 2;
            x->spec.gang = gang;
            snprintf(name, sizeof(name), "i%04d", (*serial)++);
            struct at_instance *y = kit_wants(k, queue, name, gpus, cpus);
            y->spec.gang = gang;
        }
    }
}

static void note(struct kit *k, const char *name)
{
    kit_snap(k);
    at_queue_book_note(k->book, &k->snap, "default", name);
}

static void drop(struct kit *k, size_t at)
{
    const char *name = k->instances[at]->meta.name;
    memmove(&k->instances[at], &k->instances[at + 1],
            (--k->n_instances - at) * sizeof(k->instances[0]));
    note(k, name);
}

static struct at_queue_use use_of(struct kit *k, const struct at_queue_book *book, const char *name)
{
    struct at_queue_use use;
    assert_true(at_queue_book_use(book, name, k->arena, &use));
    return use;
}

/* Never above nominal and borrowing limit, the cohort never above what it owns; and what is kept
 * from change to change is what a new book finds. */
static void check_usage(struct kit *k)
{
    struct at_queue_book *fresh = at_queue_book_new(&k->snap);
    for (size_t i = 0; i < k->n_queues; i++) {
        const struct at_queue *q = k->queues[i];
        struct at_queue_use a = use_of(k, k->book, q->meta.name);
        struct at_queue_use b = use_of(k, fresh, q->meta.name);
        assert_int_equal(a.n_cells, b.n_cells);
        assert_int_equal(a.share, b.share);
        for (size_t c = 0; c < a.n_cells; c++) {
            assert_int_equal(a.cells[c].used, b.cells[c].used);
            bool root = q->spec.cohort == NULL;
            assert_true(!root || a.cells[c].used <= a.cells[c].nominal);
        }
        for (size_t c = 0; q->spec.quotas.n > 0 && c < q->spec.quotas.items[0].resources.n; c++) {
            const struct at_queue_resource *res = &q->spec.quotas.items[0].resources.items[c];
            int64_t limit = 0;
            if (res->borrowing_limit != NULL) {
                assert_int_equal(
                    at_model_amount_parse(res->name, res->borrowing_limit, &limit, NULL), AT_OK);
                assert_true(a.cells[c].used <= a.cells[c].nominal + limit);
            }
        }
    }
    /* "org" is no Queue: its members together own what they may use. */
    at_queue_book_free(fresh);
}

static int64_t plain_used(const struct kit *k, const char *queue, bool gpus)
{
    int64_t sum = 0;
    for (size_t i = 0; i < k->n_instances; i++) {
        const struct at_instance *x = k->instances[i];
        if (x->spec.node_name != NULL && at_streq(x->spec.queue, queue)) {
            sum += gpus ? x->spec.resources->gpu_milli : x->spec.resources->cpu_milli;
        }
    }
    return sum;
}

/* Counted by hand: what all queues below org use is within what they and right own. */
static void check_cohort(const struct kit *k)
{
    for (int gpus = 0; gpus < 2; gpus++) {
        int64_t used = 0;
        int64_t owned = 0;
        for (size_t i = 0; i < k->n_queues; i++) {
            const struct at_queue *q = k->queues[i];
            if (q->spec.cohort == NULL) {
                continue;
            }
            used += plain_used(k, q->meta.name, gpus);
            for (size_t c = 0; q->spec.quotas.n > 0 && c < q->spec.quotas.items[0].resources.n;
                 c++) {
                const struct at_queue_resource *res = &q->spec.quotas.items[0].resources.items[c];
                owned += at_streq(res->name, gpus ? "gpu" : "cpu") ? 1000 * atoll(res->nominal) : 0;
            }
        }
        assert_true(used <= owned);
    }
}

/* The same world with its lists in another order. */
static void check_same_plan(struct kit *k, struct rng *r)
{
    const struct at_instance *pending[KIT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < k->n_instances; i++) {
        if (k->instances[i]->spec.node_name == NULL) {
            pending[n++] = k->instances[i];
        }
    }
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)upto(r, (int64_t)i);
        const struct at_instance *t = pending[i - 1];
        pending[i - 1] = pending[j];
        pending[j] = t;
    }
    struct at_queue_book *fresh = at_queue_book_new(&k->snap);
    struct at_queue_plan plan;
    assert_int_equal(at_queue_admit(fresh, &k->snap, pending, n, k->now, k->arena, &plan), AT_OK);
    assert_int_equal(plan.n_placeable, k->plan.n_placeable);
    assert_int_equal(plan.n_victims, k->plan.n_victims);
    for (size_t i = 0; i < plan.n; i++) {
        const struct at_queue_verdict *v = kit_verdict(k, plan.verdicts[i].instance->meta.name);
        assert_int_equal(v->reason, plan.verdicts[i].reason);
        assert_true(at_streq(v->message, plan.verdicts[i].message));
        assert_true(i >= plan.n_placeable ||
                    k->plan.verdicts[i].instance == plan.verdicts[i].instance);
    }
    for (size_t i = 0; i < plan.n_victims; i++) {
        assert_string_equal(plan.victims[i].name, k->plan.victims[i].name);
    }
    at_queue_book_free(fresh);
}

static void check_gangs(const struct kit *k)
{
    for (size_t i = 0; i < k->plan.n; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct at_queue_verdict *a = &k->plan.verdicts[i];
            const struct at_queue_verdict *b = &k->plan.verdicts[j];
            if (a->instance->spec.gang != NULL &&
                a->instance->spec.gang == b->instance->spec.gang) {
                assert_int_equal(a->reason, b->reason);
            }
        }
    }
}

static void end_some(struct kit *k, struct rng *r)
{
    for (size_t i = k->n_instances; i-- > 0;) {
        struct at_instance *x = k->instances[i];
        bool goes = x->meta.deletion_wall_ns != 0 ? upto(r, 2) == 0 : upto(r, 10) == 0;
        if (goes) {
            drop(k, i);
        }
    }
}

static void enforce(struct kit *k)
{
    for (size_t i = 0; i < k->plan.n_placeable; i++) {
        struct at_instance *x = (struct at_instance *)(uintptr_t)k->plan.verdicts[i].instance;
        kit_bind(k, x);
        note(k, x->meta.name);
    }
    for (size_t v = 0; v < k->plan.n_victims; v++) {
        for (size_t i = 0; i < k->n_instances; i++) {
            if (at_streq(k->instances[i]->meta.name, k->plan.victims[v].name)) {
                assert_int_equal(k->instances[i]->meta.deletion_wall_ns, 0);
                k->instances[i]->meta.deletion_wall_ns = 1;
            }
        }
    }
    for (size_t i = 0; i < k->n_instances; i++) {
        if (k->instances[i]->meta.deletion_wall_ns == 1) {
            k->instances[i]->meta.deletion_wall_ns = 2;
            note(k, k->instances[i]->meta.name);
        }
    }
}

static void quotas_hold_and_the_same_world_gives_the_same_plan(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct kit k;
        struct rng r = {seed};
        int serial = 0;
        kit_init(&k);
        random_queues(&k, &r);
        for (int round = 0; round < ROUNDS; round++) {
            arrive(&k, &r, &serial);
            kit_admit(&k);
            check_same_plan(&k, &r);
            check_gangs(&k);
            enforce(&k);
            check_usage(&k);
            check_cohort(&k);
            end_some(&k, &r);
        }
        kit_done(&k);
    }
}

/* Progressive filling as in the paper, naive: always the one whose dominant share would be least
 * gets its next task, as long as that fits. */
struct user {
    int64_t want[2], used[2], weight, tasks;
    bool full;
};
static void fill(struct user *users, size_t n, const int64_t total[2])
{
    int64_t left[2] = {total[0], total[1]};
    for (;;) {
        size_t best = n;
        int64_t best_share = INT64_MAX;
        for (size_t i = 0; i < n; i++) {
            struct user *u = &users[i];
            u->full = u->full || u->want[0] > left[0] || u->want[1] > left[1];
            int64_t share = 0;
            for (int c = 0; c < 2; c++) {
                int64_t s = (u->used[c] + u->want[c]) * AT_QUEUE_SHARE_ONE / (total[c] * u->weight);
                share = s > share ? s : share;
            }
            if (!u->full && share < best_share) {
                best = i;
                best_share = share;
            }
        }
        if (best == n) {
            return;
        }
        for (int c = 0; c < 2; c++) {
            users[best].used[c] += users[best].want[c];
            left[c] -= users[best].want[c];
        }
        users[best].tasks++;
    }
}

static void shares_are_those_of_progressive_filling(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct kit k;
        struct rng r = {seed};
        struct user users[4] = {0};
        int64_t total[2] = {1000 * (6 + upto(&r, 20)), 1000 * (6 + upto(&r, 40))};
        size_t n = (size_t)(2 + upto(&r, 3));
        kit_init(&k);
        struct at_queue *pool = kit_queue(&k, "pool", NULL);
        kit_owns(&k, pool, "gpu", digits(&k, total[0] / 1000), NULL, NULL);
        kit_owns(&k, pool, "cpu", digits(&k, total[1] / 1000), NULL, NULL);
        for (size_t i = 0; i < n; i++) {
            char name[8];
            snprintf(name, sizeof(name), "q%zu", i);
            struct at_queue *q = kit_queue(&k, name, "pool");
            kit_owns(&k, q, "gpu", "0", NULL, NULL);
            kit_owns(&k, q, "cpu", "0", NULL, NULL);
            q->spec.weight = users[i].weight = 1 + upto(&r, 3);
            users[i].want[0] = 1000 * upto(&r, 3);
            users[i].want[1] = 1000 * (1 + upto(&r, 4));
        }
        for (int t = 0; t < 60; t++) { /* all at the same age: ties go by name, as in fill */
            for (size_t i = 0; i < n; i++) {
                char name[16];
                snprintf(name, sizeof(name), "i%zu-%02d", i, t);
                struct at_instance *x = kit_wants(&k, k.queues[i + 1]->meta.name, name,
                                                  users[i].want[0] / 1000, users[i].want[1] / 1000);
                x->meta.creation_wall_ns = 1;
            }
        }
        kit_decide(&k);
        fill(users, n, total);
        for (size_t i = 0; i < n; i++) {
            int64_t tasks = 0;
            char name[8];
            snprintf(name, sizeof(name), "q%zu", i);
            for (size_t v = 0; v < k.plan.n_placeable; v++) {
                tasks += at_streq(k.plan.verdicts[v].queue, name);
            }
            if (tasks != users[i].tasks) {
                fail_msg("seed %d: queue %zu got %d tasks, progressive filling gives %d", (int)seed,
                         i, (int)tasks, (int)users[i].tasks);
            }
        }
        kit_done(&k);
    }
}

/* One queue holds everything; the others come, and nothing ends by itself. All get what they own
 * within a bounded number of rounds, and then everything is still. */
static void every_queue_with_demand_reaches_what_it_owns(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct kit k;
        struct rng r = {seed};
        int64_t own[4];
        int64_t total = 0;
        size_t n = (size_t)(2 + upto(&r, 3));
        kit_init(&k);
        for (size_t i = 0; i < n; i++) {
            char name[8];
            snprintf(name, sizeof(name), "q%zu", i);
            own[i] = 1 + upto(&r, 5);
            total += own[i];
            kit_owns(&k, kit_queue(&k, name, "c"), "gpu", digits(&k, own[i]), NULL, NULL);
        }
        for (int64_t g = 0; g < total; g++) {
            char name[16];
            snprintf(name, sizeof(name), "old%02d", (int)g);
            (void)kit_runs(&k, "q0", name, 1);
        }
        for (size_t i = 1; i < n; i++) {
            for (int64_t g = 0; g < 2 * own[i]; g++) {
                char name[16];
                snprintf(name, sizeof(name), "w%zu-%02d", i, (int)g);
                (void)kit_wants(&k, k.queues[i]->meta.name, name, 1, 0);
            }
        }
        kit_admit(&k);
        for (int64_t round = 0; round < 3 * total + 3; round++) {
            enforce(&k);
            for (size_t i = k.n_instances; i-- > 0;) {
                if (k.instances[i]->meta.deletion_wall_ns != 0) {
                    drop(&k, i);
                }
            }
            kit_admit(&k);
        }
        assert_int_equal(k.plan.n_victims, 0);
        assert_int_equal(k.plan.n_placeable, 0);
        for (size_t i = 0; i < n; i++) {
            char name[8];
            snprintf(name, sizeof(name), "q%zu", i);
            assert_int_equal(plain_used(&k, name, true), 1000 * own[i]);
        }
        kit_done(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_hold_and_the_same_world_gives_the_same_plan),
        cmocka_unit_test(shares_are_those_of_progressive_filling),
        cmocka_unit_test(every_queue_with_demand_reaches_what_it_owns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
