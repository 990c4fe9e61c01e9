/* Admission on a made-up organisation, on one core.
 * Usage: bench-queue-load QUEUES RUNNING PENDING
 * Queues own 100 CPUs each, in cohorts of 20; one of ten is over its own, the rest owners that
 * come back. Prints CPU ns: to make the book, to note one change, for a pass over all pending, for
 * one more pass; then how many were admitted and displaced, and the peak of memory in KiB. */
#include "core/arena.h"
#include "core/mem.h"
#include "scheduler/queue.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define COHORT 20
#define NOTES 10000

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void *make(struct at_arena *a, size_t bytes)
{
    void *p = at_arena_alloc(a, bytes);
    assert(p != NULL);
    return p;
}

static const struct at_queue *queue(struct at_arena *a, size_t k)
{
    struct at_queue *q = make(a, sizeof(*q));
    struct at_queue_quota *quota = make(a, sizeof(*quota));
    struct at_queue_resource *list = make(a, 2 * sizeof(*list));
    list[0] = (struct at_queue_resource){.name = "cpu", .nominal = "100"};
    list[1] = (struct at_queue_resource){.name = "gpu", .nominal = "8"};
    quota->resources.items = list;
    quota->resources.n = 2;
    q->meta.name = at_arena_printf(a, "q%06zu", k);
    q->spec.cohort = at_arena_printf(a, "c%06zu", k / COHORT);
    q->spec.weight = 1 + (int64_t)(k % 3);
    q->spec.quotas.items = quota;
    q->spec.quotas.n = 1;
    return q;
}

static const struct at_instance *instance(struct at_arena *a, size_t k, const char *queue_name,
                                          bool bound)
{
    static struct at_resources one = {.cpu_milli = 1000};
    struct at_instance *i = make(a, sizeof(*i));
    i->meta.ns = "default";
    i->meta.name = at_arena_printf(a, "i%08zu", k);
    i->meta.creation_wall_ns = (int64_t)k;
    i->spec.queue = queue_name;
    i->spec.resources = &one;
    i->spec.node_name = bound ? "n" : NULL;
    i->status.phase = bound ? "Running" : "Pending";
    i->status.scheduled_at_wall_ns = (int64_t)k;
    return i;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench-queue-load QUEUES RUNNING PENDING\n");
        return 2;
    }
    size_t n_queues = strtoul(argv[1], NULL, 10);
    size_t n_running = strtoul(argv[2], NULL, 10);
    size_t n_pending = strtoul(argv[3], NULL, 10);
    struct at_arena *a = at_arena_new(SIZE_MAX);
    const struct at_queue **queues = make(a, (n_queues + 1) * sizeof(*queues));
    const struct at_instance **all = make(a, (n_running + n_pending + 1) * sizeof(*all));
    for (size_t k = 0; k < n_queues; k++) {
        queues[k] = queue(a, k);
    }
    for (size_t k = 0; k < n_running; k++) { /* one in ten queues holds half of all */
        size_t at = k % 2 == 0 ? (k / 2 % (n_queues / 10)) * 10 : k % n_queues;
        all[k] = instance(a, k, queues[at]->meta.name, true);
    }
    for (size_t k = 0; k < n_pending; k++) {
        all[n_running + k] = instance(a, n_running + k, queues[k % n_queues]->meta.name, false);
    }
    struct at_snapshot snap = {.queues = queues,
                               .n_queues = n_queues,
                               .instances = all,
                               .n_instances = n_running + n_pending};
    int64_t t0 = now_ns();
    struct at_queue_book *book = at_queue_book_new(&snap);
    int64_t t1 = now_ns();
    for (size_t k = 0; k < NOTES; k++) {
        at_queue_book_note(book, &snap, "default", all[k * 7 % n_running]->meta.name);
    }
    int64_t t2 = now_ns();
    struct at_queue_plan plan;
    int64_t passes[2];
    for (int k = 0; k < 2; k++) {
        struct at_arena *scratch = at_arena_new(SIZE_MAX);
        int64_t begin = now_ns();
        enum at_rc rc = at_queue_admit(book, &snap, all + n_running, n_pending, INT64_C(1) << 40,
                                       scratch, &plan);
        passes[k] = now_ns() - begin;
        assert(rc == AT_OK);
        at_arena_free(scratch);
    }
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("%lld %lld %lld %lld %zu %zu %ld\n", (long long)(t1 - t0),
           (long long)((t2 - t1) / NOTES), (long long)passes[0], (long long)passes[1],
           plan.n_placeable, plan.n_victims, use.ru_maxrss);
    at_queue_book_free(book);
    at_arena_free(a);
    return 0;
}
