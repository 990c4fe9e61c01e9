/* The replay: one event after the other. */
#include "core/mem.h"
#include "core/units.h"
#include "sim/whatif_priv.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct at_fleet_request *wi_request(const struct wi *w, const struct wi_job *j)
{
    return &w->fleet->requests[j->request];
}

const struct at_fleet_class *wi_class(const struct wi *w, const struct wi_job *j)
{
    return &w->fleet->classes[j->class_id];
}

/* --- who leaves when --- */

static bool leaves_before(const struct wi_leave *a, const struct wi_leave *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->job < b->job;
}

static void heap_push(struct wi *w, struct wi_leave l)
{
    if (w->n_heap == w->heap_cap) {
        w->heap_cap = w->heap_cap == 0 ? 1024 : 2 * w->heap_cap;
        w->heap = at_realloc(w->heap, w->heap_cap * sizeof *w->heap);
    }
    size_t at = w->n_heap++;
    while (at > 0 && leaves_before(&l, &w->heap[(at - 1) / 2])) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = l;
}

static struct wi_leave heap_pop(struct wi *w)
{
    struct wi_leave top = w->heap[0], last = w->heap[--w->n_heap];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < w->n_heap; at = child) {
        child += child + 1 < w->n_heap && leaves_before(&w->heap[child + 1], &w->heap[child]);
        if (!leaves_before(&w->heap[child], &last)) {
            break;
        }
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = last;
    return top;
}

/* --- queues, one per class, first come first served --- */

static void queue_add(struct wi *w, uint32_t job)
{
    struct wi_queue *q = &w->queues[w->jobs[job].class_id];
    w->jobs[job].next = NOBODY;
    w->jobs[job].state = WI_WAITING;
    w->n_pending++;
    if (w->live != NULL) {
        return; /* the scheduler keeps its own */
    }
    if (q->first == NOBODY) {
        q->first = job;
    } else {
        w->jobs[q->last].next = job;
    }
    q->last = job;
}

uint32_t wi_queue_take(struct wi *w, uint32_t class_id)
{
    struct wi_queue *q = &w->queues[class_id];
    uint32_t job = q->first;
    assert(job != NOBODY);
    q->first = w->jobs[job].next;
    return job;
}

/* Those whose request has ended while they waited go; or all do. */
static void queue_expire(struct wi *w, size_t class_id, bool all)
{
    uint32_t job = w->queues[class_id].first;
    w->queues[class_id].first = NOBODY;
    while (job != NOBODY) {
        struct wi_job *j = &w->jobs[job];
        uint32_t next = j->next;
        w->n_pending--; /* added again if it stays */
        const struct at_fleet_request *q = wi_request(w, j);
        if (all || (q->end_ms != AT_FLEET_NEVER && q->end_ms <= w->now_ms)) {
            j->state = WI_ENDED;
            wi_live_leave(w, j);
        } else {
            queue_add(w, job);
        }
        job = next;
    }
}

/* --- what happens to a job --- */

static void arrive(struct wi *w, uint32_t job)
{
    struct wi_job *j = &w->jobs[job];
    const struct at_fleet_request *q = wi_request(w, j);
    j->left_ms = q->life_ms;
    w->out->requests++;
    wi_live_arrive(w, j);
    queue_add(w, job);
    if (q->end_ms != AT_FLEET_NEVER) {
        heap_push(w, (struct wi_leave){q->end_ms, job, 0});
    }
}

void wi_bind(struct wi *w, uint32_t job, uint32_t node)
{
    struct wi_job *j = &w->jobs[job];
    struct at_whatif_result *out = w->out;
    assert(j->state == WI_WAITING);
    j->state = WI_RUNNING;
    w->n_pending--;
    j->node = node;
    j->began_ms = w->now_ms;
    j->turn++;
    w->n_running++;
    wi_meter_job(w, j, 1);
    if (!j->placed_once) {
        j->placed_once = true;
        out->placed++;
        w->waits[w->n_waits++] = (double)(w->now_ms - j->arrived_ms) / 1000;
    }
    if (j->evicted && !j->back) {
        j->back = true;
        out->rebound++;
        out->rebound_ms = w->now_ms - w->lost_ms;
    }
    if (j->left_ms != AT_FLEET_NEVER) {
        heap_push(w, (struct wi_leave){w->now_ms + j->left_ms, job, j->turn});
    }
    if (out->n_placements == out->placements_cap) {
        out->placements_cap = out->placements_cap == 0 ? 1024 : 2 * out->placements_cap;
        out->placements =
            at_realloc(out->placements, out->placements_cap * sizeof *out->placements);
    }
    out->placements[out->n_placements++] =
        (struct at_whatif_placement){j->request, j->copy, w->now_ms, node};
}

/* It gives back what it holds; what becomes of it is the caller's. */
static void stop(struct wi *w, struct wi_job *j)
{
    assert(j->state == WI_RUNNING);
    wi_meter_job(w, j, -1);
    wi_pack_release(w, j);
    w->n_running--;
    w->freed = true;
    int64_t ran_ms = w->now_ms - j->began_ms;
    const struct at_pack_request *p = &wi_class(w, j)->pack;
    w->out->gpu_hours_got += (double)ran_ms * p->gpus * p->gpu_milli / 3.6e9;
    if (j->left_ms != AT_FLEET_NEVER) {
        j->left_ms -= ran_ms < j->left_ms ? ran_ms : j->left_ms;
    }
}

static void end_job(struct wi *w, struct wi_job *j)
{
    if (j->state == WI_RUNNING) {
        stop(w, j);
    }
    j->state = WI_ENDED;
    wi_live_leave(w, j);
}

void wi_requeue(struct wi *w, uint32_t job)
{
    stop(w, &w->jobs[job]);
    w->jobs[job].leaving = false;
    wi_live_arrive(w, &w->jobs[job]);
    queue_add(w, job);
}

void wi_tell_to_go(struct wi *w, uint32_t job)
{
    struct wi_job *j = &w->jobs[job];
    int64_t grace_ms = wi_class(w, j)->like->spec.termination_grace_period_ns / AT_NS_PER_MS;
    w->out->preempted++;
    if (grace_ms <= 0) {
        wi_requeue(w, job);
        return;
    }
    j->leaving = true;
    heap_push(w, (struct wi_leave){w->now_ms + grace_ms, job, j->turn});
    wi_live_deleted(w, j);
}

static void evict(struct wi *w, uint32_t job)
{
    w->jobs[job].evicted = true;
    w->jobs[job].back = false;
    w->out->evicted++;
    wi_requeue(w, job);
}

static void leave(struct wi *w, struct wi_leave l)
{
    struct wi_job *j = &w->jobs[l.job];
    if (l.turn == 0 && j->state == WI_WAITING && w->live != NULL) {
        w->n_pending--;
        end_job(w, j);
    } else if (l.turn == 0 && j->state == WI_WAITING) {
        queue_expire(w, j->class_id, false);
    } else if (j->state == WI_RUNNING && (l.turn == 0 || l.turn == j->turn)) {
        bool done = j->left_ms != AT_FLEET_NEVER && w->now_ms - j->began_ms >= j->left_ms;
        if (j->leaving && !done && l.turn != 0) {
            wi_requeue(w, l.job);
        } else {
            end_job(w, j);
        }
    }
}

/* --- what happens to nodes and other objects --- */

/* A node that a recording lost: those that ran there then too have their replacements in it. */
static void node_gone(struct wi *w, uint32_t node, bool recorded)
{
    for (size_t i = 0; w->nodes[node].jobs > 0 && i < w->n_jobs; i++) {
        struct wi_job *j = &w->jobs[i];
        if (j->state != WI_RUNNING || j->node != node) {
            continue;
        }
        if (recorded && wi_request(w, j)->node == node && j->copy == 0) {
            end_job(w, j);
        } else {
            evict(w, (uint32_t)i);
        }
    }
}

static void node_capacity(struct wi *w, const struct wi_node *n, int sign)
{
    w->gpu_milli += sign * (int64_t)n->size.gpus * AT_PACK_GPU_MILLI;
    w->cpu_milli += sign * n->size.cpu_milli;
}

static void change_node(struct wi *w, const struct at_fleet_change *c)
{
    struct wi_node *n = &w->nodes[c->node];
    bool was = n->object != NULL;
    struct at_pack_node size = {0};
    bool usable = false;
    if (n->lost) {
        return; /* what was lost by what-if stays lost */
    }
    if (c->object != NULL) {
        size = at_fleet_node_size(w->fleet, c->object, &usable);
    }
    bool same = was && c->object != NULL && usable == n->usable &&
                memcmp(&size, &n->size, sizeof size) == 0;
    if (was && !same && c->object == NULL) {
        node_gone(w, c->node, true);
    }
    if (was) {
        node_capacity(w, n, -1);
    }
    n->object = c->object;
    n->usable = usable;
    n->size = size;
    if (c->object == NULL) {
        wi_live_remove(w, &AT_KIND_NODE, NULL, c->name);
    } else {
        n->site = n->object->spec.site != NULL ? n->object->spec.site : "";
        node_capacity(w, n, 1);
        wi_meter_node(w, n);
        wi_live_put(w, &AT_KIND_NODE, &n->object->meta);
    }
    w->pack_stale |= !same;
    w->freed |= !same;
}

static void change_site(struct wi *w, const struct at_fleet_change *c)
{
    struct wi_site *s = NULL;
    for (size_t i = 0; i < w->n_sites; i++) {
        s = strcmp(w->sites[i].name, c->name) == 0 ? &w->sites[i] : s;
    }
    if (c->object == NULL) {
        wi_live_remove(w, &AT_KIND_SITE, NULL, c->name);
        return;
    }
    if (s == NULL) {
        w->sites = at_realloc(w->sites, (w->n_sites + 1) * sizeof *w->sites);
        s = &w->sites[w->n_sites++];
        *s = (struct wi_site){.name = c->name};
    }
    s->object = at_arena_alloc(w->fleet->arena, sizeof *s->object);
    assert(s->object != NULL);
    *s->object = *(const struct at_site *)c->object;
    s->told = false;
    wi_meter_sites(w);
    for (size_t i = 0; i < w->fleet->n_nodes; i++) {
        if (w->nodes[i].object != NULL && strcmp(w->nodes[i].site, c->name) == 0) {
            wi_meter_node(w, &w->nodes[i]);
        }
    }
}

static void apply_change(struct wi *w, const struct at_fleet_change *c)
{
    if (c->kind == &AT_KIND_NODE) {
        change_node(w, c);
    } else if (c->kind == &AT_KIND_SITE) {
        change_site(w, c);
    } else if (c->object != NULL) {
        wi_live_put(w, c->kind, c->object);
    } else {
        wi_live_remove(w, c->kind, c->ns, c->name);
    }
    w->freed = true; /* a rule may have changed */
}

static void lose_site(struct wi *w, const struct at_whatif_loss *loss)
{
    w->lost_ms = w->now_ms;
    for (uint32_t i = 0; i < w->fleet->n_nodes; i++) {
        struct wi_node *n = &w->nodes[i];
        if (n->object == NULL || strcmp(n->site, loss->site) != 0) {
            continue;
        }
        node_gone(w, i, false);
        node_capacity(w, n, -1);
        wi_live_remove(w, &AT_KIND_NODE, NULL, w->fleet->node_names[i]);
        n->object = NULL;
        n->lost = true;
        w->pack_stale = true;
    }
}

static void drop_waiting(struct wi *w)
{
    for (size_t c = 0; w->live == NULL && c < w->fleet->n_classes; c++) {
        queue_expire(w, c, true);
    }
    for (size_t i = 0; w->n_pending > 0 && i < w->n_jobs; i++) {
        if (w->jobs[i].state == WI_WAITING) {
            w->n_pending--;
            end_job(w, &w->jobs[i]);
        }
    }
}

/* --- the loop --- */

struct cursor {
    size_t change, job, decided;
    bool lost[AT_WHATIF_LOSSES_MAX];
    int64_t due_ms; /* decide then; INT64_MAX: nothing to decide */
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_ms(const struct wi *w, const struct cursor *at)
{
    const struct at_fleet *f = w->fleet;
    int64_t next = at->due_ms;
    next = at->change < f->n_changes ? min64(next, f->changes[at->change].at_ms) : next;
    next = at->job < w->n_jobs ? min64(next, w->jobs[at->job].arrived_ms) : next;
    next = w->n_heap > 0 ? min64(next, w->heap[0].at_ms) : next;
    if (w->what->settle_ms > 0 && at->due_ms != INT64_MAX && at->decided < f->n_decided) {
        next = min64(next, f->decided_ms[at->decided]);
    }
    for (size_t i = 0; i < w->what->n_losses; i++) {
        next = at->lost[i] ? next : min64(next, w->what->losses[i].at_ms);
    }
    return next;
}

/* Everything that happens at now. */
static void happen(struct wi *w, struct cursor *at)
{
    const struct at_fleet *f = w->fleet;
    bool more = false;
    while (w->n_heap > 0 && w->heap[0].at_ms <= w->now_ms) {
        leave(w, heap_pop(w));
    }
    while (at->change < f->n_changes && f->changes[at->change].at_ms <= w->now_ms) {
        apply_change(w, &f->changes[at->change++]);
    }
    for (size_t i = 0; i < w->what->n_losses; i++) {
        if (!at->lost[i] && w->what->losses[i].at_ms <= w->now_ms) {
            at->lost[i] = more = true;
            lose_site(w, &w->what->losses[i]);
        }
    }
    while (at->job < w->n_jobs && w->jobs[at->job].arrived_ms <= w->now_ms) {
        arrive(w, (uint32_t)at->job++);
        more = true;
    }
    if ((more || w->freed) && w->n_pending > 0 && at->due_ms == INT64_MAX) {
        at->due_ms = w->now_ms + w->what->settle_ms;
    }
}

static void decide(struct wi *w)
{
    if (w->pack_stale) {
        w->rc = wi_pack_begin(w);
        if (w->rc != AT_OK) {
            return;
        }
    }
    if (w->freed) {
        for (size_t c = 0; c < w->fleet->n_classes; c++) {
            w->queues[c].blocked = false;
        }
        w->freed = false;
    }
    int64_t begin_ns = at_sys_mono_ns(w->sys);
    if (w->what->live) {
        wi_live_decide(w);
    } else {
        wi_pack_decide(w);
    }
    w->out->seconds += (double)(at_sys_mono_ns(w->sys) - begin_ns) / (double)AT_NS_PER_S;
    if (w->what->drop) {
        drop_waiting(w);
    }
}

static bool decision_due(const struct wi *w, struct cursor *at)
{
    const struct at_fleet *f = w->fleet;
    bool seen = false;
    while (at->decided < f->n_decided && f->decided_ms[at->decided] <= w->now_ms) {
        at->decided++;
        seen = w->what->settle_ms > 0;
    }
    return at->due_ms <= w->now_ms || (seen && at->due_ms != INT64_MAX);
}

static void replay(struct wi *w)
{
    struct cursor at = {.due_ms = INT64_MAX};
    const struct at_whatif *what = w->what;
    unsigned shown = 0;
    while (w->rc == AT_OK) {
        int64_t next = next_ms(w, &at);
        if (next > w->end_ms) {
            break;
        }
        wi_meter_until(w, next);
        w->now_ms = next;
        happen(w, &at);
        if (decision_due(w, &at)) {
            at.due_ms = INT64_MAX;
            decide(w);
        }
        if (what->progress != NULL && shown++ % 256 == 0) {
            what->progress(what->progress_ctx, (double)w->now_ms / (double)(w->end_ms + 1));
        }
    }
    if (w->rc == AT_OK) {
        wi_meter_until(w, w->end_ms);
        w->now_ms = w->end_ms;
    }
}

/* --- begin and end --- */

static uint64_t mix64(uint64_t z) /* splitmix64's finish */
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* How many copies of request i there are: the whole part of demand, and one more for its rest. */
static uint32_t copies_of(double demand, size_t i)
{
    double whole = floor(demand), rest = demand - whole;
    double draw = (double)(mix64((uint64_t)i * UINT64_C(0x9e3779b97f4a7c15) + 1) >> 11) * 0x1p-53;
    return (uint32_t)whole + (draw < rest);
}

static void make_jobs(struct wi *w)
{
    const struct at_fleet *f = w->fleet;
    size_t n = 0;
    for (size_t i = 0; i < f->n_requests; i++) {
        n += copies_of(w->what->demand, i);
    }
    w->jobs = at_alloc((n + 1) * sizeof *w->jobs);
    w->waits = at_alloc((n + 1) * sizeof *w->waits);
    for (size_t i = 0; i < f->n_requests; i++) {
        const struct at_fleet_request *q = &f->requests[i];
        uint32_t copies = copies_of(w->what->demand, i);
        for (uint32_t copy = 0; copy < copies; copy++) {
            struct wi_job *j = &w->jobs[w->n_jobs++];
            *j = (struct wi_job){.request = (uint32_t)i,
                                 .copy = copy,
                                 .class_id = q->class_id,
                                 .node = NOBODY,
                                 .state = WI_ENDED,
                                 .arrived_ms = q->at_ms,
                                 .left_ms = q->life_ms};
        }
    }
}

static void begin(struct wi *w)
{
    const struct at_fleet *f = w->fleet;
    const struct at_whatif *what = w->what;
    w->nodes = at_alloc((f->n_nodes + 1) * sizeof *w->nodes);
    w->queues = at_alloc((f->n_classes + 1) * sizeof *w->queues);
    for (size_t c = 0; c < f->n_classes; c++) {
        w->queues[c].first = NOBODY;
    }
    for (size_t i = 0; i < f->n_nodes; i++) {
        w->nodes[i].pack = NOBODY;
    }
    make_jobs(w);
    w->end_ms = what->until_ms > 0 ? what->until_ms : f->end_ms;
    for (size_t i = 0; i < what->n_losses; i++) {
        w->end_ms = w->end_ms > what->losses[i].at_ms ? w->end_ms : what->losses[i].at_ms;
    }
    w->pack_stale = true;
    w->out->node_names = f->node_names;
    w->out->n_nodes = f->n_nodes;
    if (what->live) {
        wi_live_begin(w);
    }
}

static int cmp_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void summarise(struct wi *w)
{
    struct at_whatif_result *out = w->out;
    for (size_t i = 0; i < w->n_jobs; i++) {
        struct wi_job *j = &w->jobs[i];
        const struct at_fleet_request *q = wi_request(w, j);
        const struct at_pack_request *p = &wi_class(w, j)->pack;
        int64_t until = q->end_ms != AT_FLEET_NEVER ? q->end_ms : w->end_ms;
        int64_t wanted = q->life_ms != AT_FLEET_NEVER ? q->life_ms : until - q->at_ms;
        wanted = wanted < w->end_ms - q->at_ms ? wanted : w->end_ms - q->at_ms;
        out->gpu_hours_asked += wanted > 0 ? (double)wanted * p->gpus * p->gpu_milli / 3.6e9 : 0;
        if (j->state == WI_RUNNING) {
            out->gpu_hours_got +=
                (double)(w->end_ms - j->began_ms) * p->gpus * p->gpu_milli / 3.6e9;
        }
    }
    out->unplaced = out->requests - out->placed;
    if (out->rebound < out->evicted) {
        out->rebound_ms = -1;
    }
    qsort(w->waits, w->n_waits, sizeof *w->waits, cmp_double);
    for (size_t i = 0; i < w->n_waits; i++) {
        out->wait_mean_s += w->waits[i] / (double)w->n_waits;
    }
    if (w->n_waits > 0) {
        out->wait_p99_s = w->waits[(size_t)((double)(w->n_waits - 1) * 0.99)];
        out->wait_max_s = w->waits[w->n_waits - 1];
    }
}

static void done(struct wi *w)
{
    at_pack_free(w->pack);
    wi_live_done(w);
    at_free(w->node_of_pack);
    at_free(w->pack_class);
    at_free(w->nodes);
    at_free(w->sites);
    at_free(w->jobs);
    at_free(w->queues);
    at_free(w->heap);
    at_free(w->waits);
}

enum at_rc at_whatif_run(struct at_fleet *fleet, const struct at_whatif *what,
                         const struct at_sys *sys, struct at_whatif_result *ret, struct at_err *err)
{
    struct at_whatif_result out = {0};
    struct wi w = {.fleet = fleet, .what = what, .sys = sys, .out = &out, .err = err};
    enum at_rc rc = wi_change_fleet(fleet, what, err);
    if (rc != AT_OK) {
        return rc;
    }
    begin(&w);
    replay(&w);
    if (w.rc == AT_OK) {
        wi_meter_end(&w);
        summarise(&w);
        *ret = out;
    } else {
        at_whatif_done(&out);
    }
    done(&w);
    return w.rc;
}

void at_whatif_done(struct at_whatif_result *result)
{
    at_free(result->placements);
    *result = (struct at_whatif_result){0};
}
