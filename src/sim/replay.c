#include "sim/replay.h"

#include "core/mem.h"
#include "core/units.h"

#include <math.h>
#include <stdlib.h>

#define CHURN_PASSES 10 /* the order is gone through so often */
#define CHURN_DEMAND 1.3
#define US_PER_S 1000000

#define NOBODY UINT32_MAX

/* One pod on its way out. */
struct leaving {
    int64_t at_us;
    uint32_t event, pod, class_id;
    bool placed;
    struct at_pack_place place;
};

struct run {
    const struct at_trace *trace;
    const struct at_trace_order *order;
    const struct at_sys *sys;
    struct at_pack *pack;
    uint32_t *class_of; /* by pod row */
    int64_t gap_us;     /* between arrivals; 0: nobody leaves */
    struct leaving *heap;
    size_t n_heap;
    /* Those that wait, by class, in the order of arrival: events as linked lists. */
    bool wait;
    uint32_t *next_waiting, *first_waiting, *last_waiting;
    uint32_t n_classes, n_waiting;
    int64_t demand_milli, deciding_ns, worst_ns;
    struct at_replay *out;
};

static int64_t milli_of(const struct at_trace_pod *pod)
{
    return (int64_t)pod->request.gpus * pod->request.gpu_milli;
}

static bool leaves_before(const struct leaving *a, const struct leaving *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->event < b->event;
}

static void heap_push(struct run *r, struct leaving l)
{
    size_t at = r->n_heap++;
    while (at > 0 && leaves_before(&l, &r->heap[(at - 1) / 2])) {
        r->heap[at] = r->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    r->heap[at] = l;
}

static struct leaving heap_pop(struct run *r)
{
    struct leaving top = r->heap[0], last = r->heap[--r->n_heap];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < r->n_heap; at = child) {
        child += child + 1 < r->n_heap && leaves_before(&r->heap[child + 1], &r->heap[child]);
        if (!leaves_before(&r->heap[child], &last)) {
            break;
        }
        r->heap[at] = r->heap[child];
    }
    r->heap[at] = last;
    return top;
}

static int64_t life_us(const struct at_trace_pod *pod)
{
    int64_t life_s = pod->deleted_s - pod->created_s;
    int64_t max_s = INT64_MAX / 4 / US_PER_S;
    return (life_s > max_s ? max_s : life_s) * US_PER_S;
}

/* GPUs asked for by those still alive at the last of n arrivals, gap_us apart. */
static double demand_at_end(const struct at_trace *t, const struct at_trace_order *o, size_t n,
                            int64_t gap_us)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const struct at_trace_pod *pod = &t->pods[o->pods[i % o->n_pods]];
        sum +=
            (double)life_us(pod) > (double)(n - 1 - i) * (double)gap_us ? (double)milli_of(pod) : 0;
    }
    return sum;
}

int64_t at_replay_gap_us(const struct at_trace *t, const struct at_trace_order *o, size_t n,
                         double demand)
{
    double want = demand * (double)at_trace_gpu_milli(t);
    int64_t low = 1, high = INT64_C(1) << 40;
    while (low < high) { /* the largest gap with enough demand */
        int64_t middle = low + (high - low + 1) / 2;
        if (demand_at_end(t, o, n, middle) >= want) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

static uint32_t pod_of(const struct run *r, uint32_t event)
{
    return r->order->pods[event % r->order->n_pods];
}

static void wait_begin(struct run *r, const struct leaving *l)
{
    uint32_t *first = &r->first_waiting[l->class_id], *last = &r->last_waiting[l->class_id];
    r->next_waiting[l->event] = NOBODY;
    *(*first == NOBODY ? first : &r->next_waiting[*last]) = l->event;
    *last = l->event;
    r->n_waiting++;
}

/* The class whose first has waited longest, among those not tried yet. */
static uint32_t longest_waiting(const struct run *r, const bool *tried)
{
    uint32_t best = NOBODY;
    for (uint32_t c = 0; c < r->n_classes; c++) {
        if (!tried[c] && r->first_waiting[c] != NOBODY &&
            (best == NOBODY || r->first_waiting[c] < r->first_waiting[best])) {
            best = c;
        }
    }
    return best;
}

/* Something left: who waits longest tries first; a class whose first does not fit is done. */
static void retry(struct run *r, int64_t now_us)
{
    AT_CLEANUP(at_cleanup_free) bool *tried = at_alloc(r->n_classes + 1);
    uint32_t class_id;
    while ((class_id = longest_waiting(r, tried)) != NOBODY) {
        uint32_t event = r->first_waiting[class_id], pod = pod_of(r, event);
        struct leaving l = {.event = event, .pod = pod, .class_id = class_id, .placed = true};
        if (!at_pack_put(r->pack, class_id, &l.place)) {
            tried[class_id] = true;
            continue;
        }
        r->first_waiting[class_id] = r->next_waiting[event];
        r->n_waiting--;
        r->out->points[event].placed = true;
        r->out->points[event].node_row = r->order->nodes[l.place.node];
        r->out->unscheduled--;
        l.at_us = now_us + life_us(&r->trace->pods[pod]);
        heap_push(r, l);
    }
}

static void leave_until(struct run *r, int64_t now_us)
{
    while (r->n_heap > 0 && r->heap[0].at_us <= now_us) {
        struct leaving l = heap_pop(r);
        r->demand_milli -= milli_of(&r->trace->pods[l.pod]);
        if (l.placed) {
            at_pack_release(r->pack, l.class_id, &l.place);
        }
        bool more = r->n_heap > 0 && r->heap[0].at_us == l.at_us;
        if (r->n_waiting > 0 && l.placed && !more) {
            retry(r, l.at_us);
        }
    }
}

static void arrive(struct run *r, size_t event)
{
    uint32_t pod = pod_of(r, (uint32_t)event);
    int64_t now_us = (int64_t)event * r->gap_us;
    double all = (double)at_pack_capacity_gpu_milli(r->pack);
    int64_t begin_ns = at_sys_mono_ns(r->sys);
    leave_until(r, now_us);
    struct leaving l = {.event = (uint32_t)event, .pod = pod, .class_id = r->class_of[pod]};
    l.placed = at_pack_put(r->pack, l.class_id, &l.place);
    int64_t took_ns = at_sys_mono_ns(r->sys) - begin_ns;
    r->deciding_ns += took_ns;
    r->worst_ns = took_ns > r->worst_ns ? took_ns : r->worst_ns;
    r->demand_milli += milli_of(&r->trace->pods[pod]);
    if (r->wait && !l.placed) {
        wait_begin(r, &l);
    } else if (r->gap_us > 0) {
        l.at_us = now_us + life_us(&r->trace->pods[pod]);
        heap_push(r, l);
    }
    r->out->unscheduled += !l.placed;
    r->out->points[event] = (struct at_replay_point){
        .demand = 100 * (double)r->demand_milli / all,
        .allocated = 100 * (double)at_pack_used_gpu_milli(r->pack) / all,
        .fragmented = 100 * at_pack_fragmented_gpu_milli(r->pack) / all,
        .placed = l.placed,
        .node_row = l.placed ? r->order->nodes[l.place.node] : 0,
        .waiting = r->n_waiting,
    };
}

/* Mean over the points whose demand rounds to percent, each rounded to 1 / scale; without one, what
 * the last point says. */
static double curve_at(const struct at_replay *out, double percent, size_t field, double scale)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++) {
        if (rint(out->points[i].demand) == percent) {
            sum += rint(scale * *(const double *)((const char *)&out->points[i] + field)) / scale;
            n++;
        }
    }
    if (n == 0) {
        return *(const double *)((const char *)&out->points[out->n - 1] + field);
    }
    return sum / (double)n;
}

static void summarise(struct run *r)
{
    struct at_replay *out = r->out;
    double asked = 0, got = 0;
    /* The published figures are means of what a log says, with two decimals of allocation. */
    out->alloc100 = curve_at(out, 100, offsetof(struct at_replay_point, allocated), 100);
    out->alloc130 = curve_at(out, 130, offsetof(struct at_replay_point, allocated), 100);
    out->frag100 = curve_at(out, 100, offsetof(struct at_replay_point, fragmented), 1e9);
    for (size_t i = out->n / 2; i < out->n; i++) {
        double milli = (double)milli_of(&r->trace->pods[r->order->pods[i % r->order->n_pods]]);
        asked += milli;
        got += out->points[i].placed ? milli : 0;
        out->alloc_mean += out->points[i].allocated / (double)(out->n - out->n / 2);
    }
    out->accepted = asked > 0 ? 100 * got / asked : 100;
    out->seconds = (double)r->deciding_ns / (double)AT_NS_PER_S;
    out->worst_us = (double)r->worst_ns / (double)AT_NS_PER_US;
}

static enum at_rc run_begin(struct run *r, enum at_pack_policy policy, struct at_err *err)
{
    const struct at_trace *t = r->trace;
    AT_CLEANUP(at_cleanup_free) struct at_pack_share *shares = NULL;
    struct at_pack_mix mix = {.n = at_trace_mix(t, &shares)};
    mix.shares = shares;
    AT_CLEANUP(at_cleanup_free) struct at_pack_node *nodes = at_alloc(t->n_nodes * sizeof *nodes);
    for (size_t i = 0; i < t->n_nodes; i++) {
        nodes[i] = t->nodes[r->order->nodes[i]];
    }
    enum at_rc rc = at_pack_new(policy, nodes, t->n_nodes, &mix, &r->pack, err);
    r->class_of = at_alloc(t->n_pods * sizeof *r->class_of);
    for (size_t i = 0; rc == AT_OK && i < t->n_pods; i++) {
        rc = at_pack_class(r->pack, &t->pods[i].request, &r->class_of[i], err);
        r->n_classes = r->class_of[i] >= r->n_classes ? r->class_of[i] + 1 : r->n_classes;
    }
    return rc;
}

static void queues_init(struct run *r)
{
    r->next_waiting = at_alloc(r->out->n * sizeof *r->next_waiting);
    r->first_waiting = at_alloc(r->n_classes * sizeof *r->first_waiting + 1);
    r->last_waiting = at_alloc(r->n_classes * sizeof *r->last_waiting + 1);
    for (uint32_t c = 0; c < r->n_classes; c++) {
        r->first_waiting[c] = NOBODY;
    }
}

enum at_rc at_replay_run(const struct at_trace *trace, const struct at_trace_order *order,
                         const struct at_replay_options *options, const struct at_sys *sys,
                         struct at_replay *ret, struct at_err *err)
{
    if (options->churn && !trace->has_times) {
        return at_err_set(err, AT_INVALID, "the pods have no creation_time and deletion_time");
    }
    if (at_trace_gpu_milli(trace) == 0) {
        return at_err_set(err, AT_INVALID, "no node of the list has a GPU");
    }
    if (order->n_pods == 0) {
        return at_err_set(err, AT_INVALID, "no pod arrives: the list or the order has none");
    }
    struct at_replay out = {.n = order->n_pods * (options->churn ? CHURN_PASSES : 1)};
    struct run r = {.trace = trace, .order = order, .sys = sys, .out = &out, .wait = options->wait};
    enum at_rc rc = run_begin(&r, options->policy, err);
    if (rc == AT_OK) {
        out.points = at_alloc(out.n * sizeof *out.points);
        r.heap = at_alloc(out.n * sizeof *r.heap);
        r.gap_us = options->churn ? at_replay_gap_us(trace, order, out.n, CHURN_DEMAND) : 0;
        queues_init(&r);
        for (size_t event = 0; event < out.n; event++) {
            arrive(&r, event);
        }
        summarise(&r);
        *ret = out;
    }
    at_pack_free(r.pack);
    at_free(r.class_of);
    at_free(r.heap);
    at_free(r.next_waiting);
    at_free(r.first_waiting);
    at_free(r.last_waiting);
    return rc;
}

void at_replay_done(struct at_replay *replay)
{
    at_free(replay->points);
    *replay = (struct at_replay){0};
}
