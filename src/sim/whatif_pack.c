/* The packing engine in a what-if replay: it decides, or it measures what the live scheduler did.
 */
#include "core/mem.h"
#include "sim/whatif_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int cmp_share(const void *a, const void *b)
{
    const struct at_pack_share *x = a, *y = b;
    if (x->count != y->count) {
        return x->count > y->count ? -1 : 1;
    }
    return memcmp(&x->request, &y->request, sizeof x->request);
}

/* How often each class is asked for in the whole replay. own: at_free. */
static struct at_pack_share *mix_of(const struct wi *w)
{
    const struct at_fleet *f = w->fleet;
    struct at_pack_share *shares = at_alloc((f->n_classes + 1) * sizeof *shares);
    for (size_t c = 0; c < f->n_classes; c++) {
        shares[c].request = f->classes[c].pack;
    }
    for (size_t i = 0; i < w->n_jobs; i++) {
        shares[w->jobs[i].class_id].count++;
    }
    qsort(shares, f->n_classes, sizeof *shares, cmp_share);
    return shares;
}

/* Those that run are put where they are; a node that has shrunk may not take them any more. */
static void put_running(struct wi *w)
{
    for (size_t i = 0; i < w->n_jobs; i++) {
        struct wi_job *j = &w->jobs[i];
        if (j->state != WI_RUNNING) {
            continue;
        }
        struct at_pack_place place = {w->nodes[j->node].pack, j->gpus};
        j->shadowed = j->shadowed && place.node != NOBODY &&
                      at_pack_put_at(w->pack, w->pack_class[j->class_id], &place) == AT_OK;
    }
}

enum at_rc wi_pack_begin(struct wi *w)
{
    struct at_fleet *f = w->fleet;
    AT_CLEANUP(at_cleanup_free)
    struct at_pack_node *nodes = at_alloc((f->n_nodes + 1) * sizeof *nodes);
    AT_CLEANUP(at_cleanup_free) struct at_pack_share *shares = mix_of(w);
    struct at_pack_mix mix = {shares, f->n_classes};
    size_t n = 0;
    at_pack_free(w->pack);
    w->pack = NULL;
    w->pack_stale = false;
    w->node_of_pack = at_realloc(w->node_of_pack, (f->n_nodes + 1) * sizeof *w->node_of_pack);
    w->pack_class = at_realloc(w->pack_class, (f->n_classes + 1) * sizeof *w->pack_class);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        struct wi_node *node = &w->nodes[i];
        node->pack = node->object != NULL && node->usable ? (uint32_t)n : NOBODY;
        if (node->pack != NOBODY) {
            nodes[n] = node->size;
            w->node_of_pack[n++] = i;
        }
    }
    if (n == 0) {
        return AT_OK;
    }
    enum at_pack_policy policy = w->what->live ? AT_PACK_FGD : w->what->policy;
    enum at_rc rc = at_pack_new(policy, nodes, n, &mix, &w->pack, w->err);
    for (size_t c = 0; rc == AT_OK && c < f->n_classes; c++) {
        rc = at_pack_class(w->pack, &f->classes[c].pack, &w->pack_class[c], w->err);
    }
    if (rc == AT_OK) {
        put_running(w);
    }
    return rc;
}

/* The class whose first goes first: by priority, then by arrival. */
static uint32_t next_class(const struct wi *w)
{
    uint32_t best = NOBODY;
    for (uint32_t c = 0; c < w->fleet->n_classes; c++) {
        const struct wi_queue *q = &w->queues[c];
        if (q->first == NOBODY || q->blocked) {
            continue;
        }
        if (best == NOBODY) {
            best = c;
            continue;
        }
        int64_t mine = w->fleet->classes[c].like->spec.priority;
        int64_t theirs = w->fleet->classes[best].like->spec.priority;
        if (mine > theirs || (mine == theirs && q->first < w->queues[best].first)) {
            best = c;
        }
    }
    return best;
}

void wi_pack_decide(struct wi *w)
{
    for (uint32_t c; w->pack != NULL && (c = next_class(w)) != NOBODY;) {
        struct at_pack_place place;
        w->out->decisions++;
        if (!at_pack_put(w->pack, w->pack_class[c], &place)) {
            w->queues[c].blocked = true;
            continue;
        }
        uint32_t job = wi_queue_take(w, c);
        w->jobs[job].gpus = place.gpus;
        w->jobs[job].shadowed = true;
        wi_bind(w, job, w->node_of_pack[place.node]);
    }
}

void wi_pack_taken(struct wi *w, struct wi_job *j, const struct at_sched_gpu *held, size_t n)
{
    struct at_pack_place place = {.node = w->nodes[j->node].pack};
    j->shadowed = false;
    for (size_t i = 0; i < n; i++) {
        if (held[i].index >= AT_PACK_GPUS_MAX) {
            return; /* more GPUs than the engine looks at: not measured */
        }
        place.gpus |= 1u << held[i].index;
    }
    j->gpus = place.gpus;
    j->shadowed = w->pack != NULL && place.node != NOBODY &&
                  at_pack_put_at(w->pack, w->pack_class[j->class_id], &place) == AT_OK;
}

void wi_pack_release(struct wi *w, struct wi_job *j)
{
    struct at_pack_place place = {w->nodes[j->node].pack, j->gpus};
    if (j->shadowed && place.node != NOBODY && w->pack != NULL) {
        at_pack_release(w->pack, w->pack_class[j->class_id], &place);
    }
    j->shadowed = false;
}
