/* A world of queues for tests: instances of one resource vector (cpu, gpu), rounds of admission. */
#ifndef AT_SCHEDULER_QUEUE_KIT_TEST_H
#define AT_SCHEDULER_QUEUE_KIT_TEST_H

#include "scheduler/queue.h"
#include "world_test.h"

#define KIT_MAX 512

struct kit {
    struct at_arena *arena;
    struct at_queue *queues[KIT_MAX];
    struct at_instance *instances[KIT_MAX];
    struct at_deployment *deployments[8];
    struct at_namespace *namespaces[8];
    struct at_site *sites[8];
    struct at_node *nodes[8];
    size_t n_queues, n_instances, n_deployments, n_namespaces, n_sites, n_nodes;
    struct at_snapshot snap;
    struct at_queue_book *book;
    struct at_queue_plan plan;
    int64_t now;
};

static inline void kit_init(struct kit *k)
{
    memset(k, 0, sizeof(*k));
    k->arena = at_arena_new(SIZE_MAX);
}
static inline void kit_done(struct kit *k)
{
    at_queue_book_free(k->book);
    at_arena_free(k->arena);
}
static inline void *kit_alloc(struct kit *k, size_t bytes)
{
    void *p = at_arena_alloc(k->arena, bytes);
    assert_non_null(p);
    return p;
}

static inline int kit_by_name(const void *a, const void *b)
{
    const struct at_meta *x = *(const struct at_meta *const *)a; /* metadata stands first */
    const struct at_meta *y = *(const struct at_meta *const *)b;
    int c = strcmp(x->ns != NULL ? x->ns : "", y->ns != NULL ? y->ns : "");
    return c != 0 ? c : strcmp(x->name, y->name);
}
static inline void kit_snap(struct kit *k)
{
#define KIT_SHOW(list)                                                                             \
    qsort(k->list, k->n_##list, sizeof(k->list[0]), kit_by_name);                                  \
    k->snap.list = (void *)k->list;                                                                \
    k->snap.n_##list = k->n_##list
    KIT_SHOW(queues);
    KIT_SHOW(instances);
    KIT_SHOW(deployments);
    KIT_SHOW(namespaces);
    KIT_SHOW(sites);
    KIT_SHOW(nodes);
#undef KIT_SHOW
}

/* resource NULL ends; limits NULL: none. One quota per place, made when first named. */
static inline struct at_queue *kit_queue(struct kit *k, const char *name, const char *cohort)
{
    struct at_queue *q = kit_alloc(k, sizeof(*q));
    q->meta.name = at_arena_strdup(k->arena, name);
    q->spec.cohort = cohort != NULL ? at_arena_strdup(k->arena, cohort) : NULL;
    q->spec.weight = 1;
    q->spec.ordering = "BestEffortFIFO";
    q->spec.quotas.items = kit_alloc(k, 4 * sizeof(*q->spec.quotas.items));
    k->queues[k->n_queues++] = q;
    return q;
}
static inline struct at_queue_quota *kit_quota(struct kit *k, struct at_queue *q, const char *site,
                                               const char *model)
{
    struct at_queue_quota *quota = &q->spec.quotas.items[q->spec.quotas.n++];
    quota->site = site;
    quota->gpu_model = model;
    quota->resources.items = kit_alloc(k, 4 * sizeof(*quota->resources.items));
    return quota;
}
static inline void kit_owns(struct kit *k, struct at_queue *q, const char *resource,
                            const char *nominal, const char *borrow, const char *lend)
{
    struct at_queue_quota *quota = q->spec.quotas.n > 0
                                       ? &q->spec.quotas.items[q->spec.quotas.n - 1]
                                       : kit_quota(k, q, NULL, NULL);
    quota->resources.items[quota->resources.n++] =
        (struct at_queue_resource){.name = resource,
                                   .nominal = at_arena_strdup(k->arena, nominal),
                                   .borrowing_limit = borrow,
                                   .lending_limit = lend};
}

static inline struct at_instance *kit_wants(struct kit *k, const char *queue, const char *name,
                                            int64_t gpus, int64_t cpus)
{
    struct at_instance *i = kit_alloc(k, sizeof(*i));
    struct at_resources *r = kit_alloc(k, sizeof(*r));
    r->gpu_milli = gpus * 1000;
    r->cpu_milli = cpus * 1000;
    i->meta.ns = "default";
    i->meta.name = at_arena_strdup(k->arena, name);
    i->meta.uid = i->meta.name;
    i->meta.creation_wall_ns = ++k->now;
    i->spec.queue = queue;
    i->spec.resources = r;
    i->spec.placement = kit_alloc(k, sizeof(struct at_placement));
    i->status.phase = "Pending";
    k->instances[k->n_instances++] = i;
    return i;
}
static inline void kit_bind(struct kit *k, struct at_instance *i)
{
    i->spec.node_name = "n";
    i->status.phase = "Running";
    i->status.ready = true;
    i->status.scheduled_at_wall_ns = ++k->now;
}
static inline struct at_instance *kit_runs(struct kit *k, const char *queue, const char *name,
                                           int64_t gpus)
{
    struct at_instance *i = kit_wants(k, queue, name, gpus, 0);
    kit_bind(k, i);
    return i;
}

static inline void kit_admit(struct kit *k)
{
    const struct at_instance *pending[KIT_MAX];
    size_t n = 0;
    kit_snap(k);
    if (k->book == NULL) {
        k->book = at_queue_book_new(&k->snap);
    }
    for (size_t i = 0; i < k->n_instances; i++) {
        if (k->instances[i]->spec.node_name == NULL) {
            pending[n++] = k->instances[i];
        }
    }
    assert_int_equal(at_queue_admit(k->book, &k->snap, pending, n, k->now, k->arena, &k->plan),
                     AT_OK);
    assert_int_equal(k->plan.n, n);
}
/* From scratch. */
static inline void kit_decide(struct kit *k)
{
    at_queue_book_free(k->book);
    k->book = NULL;
    kit_admit(k);
}

static inline const struct at_queue_verdict *kit_verdict(const struct kit *k, const char *name)
{
    for (size_t i = 0; i < k->plan.n; i++) {
        if (at_streq(k->plan.verdicts[i].instance->meta.name, name)) {
            return &k->plan.verdicts[i];
        }
    }
    fail_msg("no verdict for %s", name);
    return NULL;
}
static inline bool kit_admitted(const struct kit *k, const char *name)
{
    const struct at_queue_verdict *v = kit_verdict(k, name);
    assert_true((v->message == NULL) ==
                (v->reason == AT_QUEUE_ADMITTED || v->reason == AT_QUEUE_NONE));
    return v->reason == AT_QUEUE_ADMITTED || v->reason == AT_QUEUE_NONE;
}
static inline bool kit_victim(const struct kit *k, const char *name)
{
    for (size_t i = 0; i < k->plan.n_victims; i++) {
        if (at_streq(k->plan.victims[i].name, name)) {
            return true;
        }
    }
    return false;
}

#endif
