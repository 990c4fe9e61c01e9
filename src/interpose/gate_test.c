/* The gate against a device of the test's own, in the test's own time. */
#include "interpose/gate.c" /* the library is built apart from everything else */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MS INT64_C(1000000)
#define PERIOD (100 * MS)
#define INSTANCES_MAX 4
#define MARKERS_MAX 16

/* One instance that launches kernels of one length as fast as it may. */
struct instance {
    struct gate_turn turn;
    struct gate gate;
    int64_t kernel_ns, used_ns, asks_at;
    int64_t launched, unmarked;
    struct {
        int64_t at, after, n, slot;
    } markers[MARKERS_MAX], last;
    int n_markers;
};

struct device {
    int64_t busy_until;
};

static void see_markers(struct instance *i, int64_t now)
{
    while (i->n_markers > 0 && i->markers[0].at <= now) {
        int64_t took = i->last.at > 0 && i->last.slot == i->markers[0].slot
                           ? i->markers[0].at - i->last.at
                           : -1;
        bool first = i->last.n == 0;
        i->last = i->markers[0];
        i->n_markers--;
        for (int k = 0; k < i->n_markers; k++) {
            i->markers[k] = i->markers[k + 1];
        }
        gate_finished(&i->gate, &i->turn, 0, now,
                      &(struct gate_group){.launches = i->last.n,
                                           .took = took,
                                           .behind = i->launched - i->last.after,
                                           .first = first});
    }
}

static void step(struct instance *i, struct device *d, int64_t now)
{
    see_markers(i, now);
    int64_t until = gate_ask(&i->gate, &i->turn, 0, now);
    if (until != 0) {
        assert_true(until > now);
        i->asks_at = i->n_markers > 0 && until > now + MS / 10 ? now + MS / 10 : until;
        return;
    }
    if (i->n_markers == 0 && i->last.slot != i->gate.slot) {
        i->last.at = now; /* measured from here */
        i->last.slot = i->gate.slot;
        i->last.n = 0;
        i->unmarked = 0;
    }
    gate_launched(&i->gate, &i->turn, 0, now);
    d->busy_until = (d->busy_until > now ? d->busy_until : now) + i->kernel_ns;
    i->used_ns += i->kernel_ns;
    i->launched++;
    i->unmarked++;
    if (i->unmarked >= gate_marker_due(&i->gate, 0) && i->n_markers < MARKERS_MAX) {
        int m = i->n_markers++;
        i->markers[m].at = d->busy_until;
        i->markers[m].after = i->launched;
        i->markers[m].n = i->unmarked;
        i->markers[m].slot = i->gate.slot;
        i->unmarked = 0;
    }
    i->asks_at = now + 2000; /* what a launch costs the program */
}

/* Shares of device time that the instances had, in thousandths. */
static void run(struct instance *list, int n, int64_t for_ns, int64_t ret_milli[INSTANCES_MAX])
{
    struct device d = {0};
    int64_t now = 12345678, end = now + for_ns, sum = 0;
    while (now < end) {
        int next = 0;
        for (int k = 1; k < n; k++) {
            next = list[k].asks_at < list[next].asks_at ? k : next;
        }
        now = list[next].asks_at > now ? list[next].asks_at : now;
        step(&list[next], &d, now);
    }
    for (int k = 0; k < n; k++) {
        sum += list[k].used_ns;
    }
    for (int k = 0; k < n; k++) {
        ret_milli[k] = list[k].used_ns * 1000 / sum;
    }
    assert_in_range(sum, for_ns * 85 / 100, for_ns * 115 / 100); /* nor is the device idle */
}

static void split(struct instance *list, int n, const int64_t *milli, const int64_t *kernel_ns)
{
    int64_t offset = 0;
    for (int k = 0; k < n; k++) {
        list[k] = (struct instance){
            .turn = {.period = PERIOD, .offset = offset, .length = PERIOD * milli[k] / 1000},
            .kernel_ns = kernel_ns[k]};
        offset += list[k].turn.length;
    }
}

static void check(int n, const int64_t *milli, const int64_t *kernel_ns, int64_t for_ns,
                  int64_t tolerance_milli)
{
    struct instance list[INSTANCES_MAX];
    int64_t got[INSTANCES_MAX];
    split(list, n, milli, kernel_ns);
    run(list, n, for_ns, got);
    for (int k = 0; k < n; k++) {
        assert_in_range(got[k], milli[k] * (1000 - tolerance_milli) / 1000,
                        milli[k] * (1000 + tolerance_milli) / 1000);
    }
}

static void shares_hold_within_a_tenth_over_a_second(void **state)
{
    (void)state;
    static const int64_t kernels[] = {5000, 50000, MS, 4 * MS};
    for (size_t a = 0; a < 4; a++) {
        for (size_t b = 0; b < 4; b++) {
            check(2, (int64_t[]){500, 500}, (int64_t[]){kernels[a], kernels[b]}, 1000 * MS, 100);
            check(2, (int64_t[]){250, 750}, (int64_t[]){kernels[a], kernels[b]}, 1000 * MS, 100);
            check(3, (int64_t[]){250, 250, 500},
                  (int64_t[]){kernels[a], kernels[b], kernels[(a + b) % 4]}, 1000 * MS, 100);
        }
    }
}

/* The neighbour loses what a kernel of 60 ms takes of its turns; the one that runs it gets no more
 * than its share of all time. */
static void kernels_longer_than_a_slot_pay_with_later_slots(void **state)
{
    (void)state;
    static const int64_t milli[][2] = {{250, 750}, {500, 500}};
    static const int64_t kernels[][2] = {{60 * MS, MS}, {130 * MS, MS}};
    for (size_t k = 0; k < 2; k++) {
        struct instance list[INSTANCES_MAX];
        int64_t unused[INSTANCES_MAX];
        split(list, 2, milli[k], kernels[k]);
        run(list, 2, 20000 * MS, unused);
        assert_in_range(list[0].used_ns / (20 * MS), milli[k][0] * 9 / 10, milli[k][0] * 11 / 10);
    }
}

static void without_turns_nothing_waits(void **state)
{
    (void)state;
    struct gate g = {0};
    const struct gate_turn open = {.period = PERIOD}, whole = {.period = PERIOD, .length = PERIOD};
    for (int64_t now = 0; now < 1000 * MS; now += 7 * MS) {
        assert_int_equal(gate_ask(&g, &open, 0, now), 0);
        gate_launched(&g, &open, 0, now);
        assert_int_equal(gate_ask(&g, &whole, 1, now), 0);
        gate_launched(&g, &whole, 1, now);
    }
    assert_int_equal(g.debt, 0);
}

static void a_launch_outside_the_slot_waits_for_its_beginning(void **state)
{
    (void)state;
    struct gate g = {0};
    const struct gate_turn turn = {.period = PERIOD, .offset = 30 * MS, .length = 20 * MS};
    assert_int_equal(gate_ask(&g, &turn, 0, 10 * MS), 30 * MS);
    assert_int_equal(gate_ask(&g, &turn, 0, 30 * MS), 0);
    assert_int_equal(gate_ask(&g, &turn, 0, 49 * MS), 0);
    assert_int_equal(gate_ask(&g, &turn, 0, 50 * MS), 130 * MS);
    assert_int_equal(gate_ask(&g, &turn, 0, 131 * MS), 0);
}

static void an_unknown_kernel_is_not_followed_by_others(void **state)
{
    (void)state;
    struct gate g = {0};
    const struct gate_turn turn = {.period = PERIOD, .offset = 0, .length = 50 * MS};
    assert_int_equal(gate_ask(&g, &turn, 0, MS), 0);
    gate_launched(&g, &turn, 0, MS);
    assert_int_equal(gate_marker_due(&g, 0), 1);
    assert_true(gate_ask(&g, &turn, 0, 2 * MS) > 2 * MS);
    gate_finished(&g, &turn, 0, 3 * MS, &(struct gate_group){.launches = 1, .took = 2 * MS});
    assert_int_equal(gate_ask(&g, &turn, 0, 3 * MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_hold_within_a_tenth_over_a_second),
        cmocka_unit_test(kernels_longer_than_a_slot_pay_with_later_slots),
        cmocka_unit_test(without_turns_nothing_waits),
        cmocka_unit_test(a_launch_outside_the_slot_waits_for_its_beginning),
        cmocka_unit_test(an_unknown_kernel_is_not_followed_by_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
