/* What one loop has learned of prompts, told to the others: connections of a client fall on any of
 * them, and each would send it elsewhere. Only beginnings that are new to the replica are told, so
 * that little is when prompts come back; they are hints, and dropped when somebody has no time. */
#include "gateway/lesson.h"

#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <string.h>

struct gw_lesson {
    struct gw_lesson *next;
    uint64_t replica; /* its id_hash */
    size_t n, model_len;
    uint64_t chain[]; /* then the model's name */
};

static struct gw_lesson *lesson_new(const struct gw_worker *w, const struct gw_model *model,
                                    const struct gw_replica *replica)
{
    size_t len = strlen(model->name), chain_bytes = w->n_chain * sizeof w->chain[0];
    struct gw_lesson *l = at_alloc(sizeof *l + chain_bytes + len);
    *l = (struct gw_lesson){.replica = replica->id_hash, .n = w->n_chain, .model_len = len};
    memcpy(l->chain, w->chain, chain_bytes);
    memcpy((char *)l->chain + chain_bytes, model->name, len);
    return l;
}

void gw_lesson_tell(struct gw_worker *worker, const struct gw_model *model,
                    const struct gw_replica *replica)
{
    struct at_gateway *g = worker->gateway;
    for (unsigned i = 0; i < g->n_workers; i++) {
        struct gw_worker *other = &g->workers[i];
        if (other == worker) {
            continue;
        }
        if (atomic_fetch_add_explicit(&other->n_lessons, 1, memory_order_relaxed) >=
            AT_GW_LESSONS_MAX) {
            atomic_fetch_sub_explicit(&other->n_lessons, 1, memory_order_relaxed);
            continue;
        }
        struct gw_lesson *l = lesson_new(worker, model, replica);
        l->next = atomic_load_explicit(&other->lessons, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(&other->lessons, &l->next, l,
                                                      memory_order_release, memory_order_relaxed)) {
        }
        (void)!at_loop_post(other->loop, gw_lesson_take, other); /* else with the next one */
    }
}

static void learn(struct gw_worker *w, const struct gw_lesson *l)
{
    struct gw_model *model = gw_model_find(w, (const char *)(l->chain + l->n), l->model_len);
    for (size_t i = 0; model != NULL && i < model->n_replicas; i++) {
        struct gw_replica *r = model->replicas[i];
        if (r->id_hash == l->replica) {
            gw_prefix_learn(&model->prefix, r, l->chain, l->n);
            return;
        }
    }
}

static void take(struct gw_worker *w, bool learns)
{
    struct gw_lesson *l = atomic_exchange_explicit(&w->lessons, NULL, memory_order_acquire);
    while (l != NULL) {
        struct gw_lesson *next = l->next;
        if (learns) {
            learn(w, l);
        }
        at_free(l);
        atomic_fetch_sub_explicit(&w->n_lessons, 1, memory_order_relaxed);
        l = next;
    }
}

void gw_lesson_take(void *worker)
{
    take(worker, true);
}

void gw_lesson_done(struct gw_worker *worker)
{
    take(worker, false);
}
