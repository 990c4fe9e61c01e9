/* The lease and the relayed beats, with several servers on one simulated store. A server that is
 * stopped (SIGSTOP, a paused machine) is one whose timer does not fire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "controllers/leader_priv.h"
#include "core/mem.h"
#include "sim/sim.h"

#define SERVERS_MAX 3

struct server {
    struct at_leader *leader;
    struct at_state *state;
    bool told; /* what changed said last */
    bool stopped;
    int64_t goes_on_ns;
};

struct rig {
    struct at_sim *sim;
    struct at_loop *loop;
    struct at_store *store;
    struct server servers[SERVERS_MAX];
    size_t n;
};

static void changed(void *ctx, bool leading)
{
    struct server *s = ctx;
    assert_int_not_equal(s->told, leading);
    s->told = leading;
}

static void server_start(struct rig *r, struct server *s)
{
    struct at_err err;
    assert_int_equal(at_state_new(r->loop, r->store, NULL, NULL, &s->state, &err), AT_OK);
    struct at_leader_options o = {.name = "https://x", .changed = changed, .ctx = s};
    s->leader = at_leader_new(r->loop, r->store, s->state, &o);
}

static void rig_init(struct rig *r, size_t n, uint64_t seed)
{
    struct at_err err;
    *r = (struct rig){.sim = at_sim_new(seed), .n = n};
    r->loop = at_loop_new(at_sim_sys(r->sim));
    assert_int_equal(at_store_open("memory", NULL, r->loop, &r->store, &err), AT_OK);
    for (size_t i = 0; i < n; i++) {
        server_start(r, &r->servers[i]);
    }
}

static void rig_done(struct rig *r)
{
    for (size_t i = 0; i < r->n; i++) {
        at_leader_free(r->servers[i].leader);
    }
    at_store_drain(r->store);
    for (size_t i = 0; i < r->n; i++) {
        at_state_free(r->servers[i].state);
    }
    at_store_close(r->store);
    at_loop_free(r->loop);
    at_sim_free(r->sim);
}

static size_t leading(const struct rig *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        n += r->servers[i].leader != NULL && at_leader_leads(r->servers[i].leader);
    }
    return n;
}

static void nothing(void *ctx)
{
    (void)ctx;
}

/* A step of time, even when all are stopped; never two leaders. */
static void turn(struct rig *r)
{
    at_loop_timer(r->loop, 10 * AT_NS_PER_MS, nothing, NULL);
    at_loop_turn(r->loop, at_sim_now_ns(r->sim) + 10 * AT_NS_PER_MS);
    assert_true(leading(r) <= 1);
}

static void run(struct rig *r, int64_t ns)
{
    int64_t end = at_sim_now_ns(r->sim) + ns;
    while (at_sim_now_ns(r->sim) < end) {
        turn(r);
    }
}

static struct server *leader_of(struct rig *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->servers[i].leader != NULL && at_leader_leads(r->servers[i].leader)) {
            return &r->servers[i];
        }
    }
    return NULL;
}

static struct server *other_than(struct rig *r, const struct server *s)
{
    return s == &r->servers[0] ? &r->servers[1] : &r->servers[0];
}

static void stop(struct rig *r, struct server *s)
{
    at_loop_timer_cancel(r->loop, s->leader->timer);
    s->stopped = true;
}

static void go_on(struct server *s)
{
    s->stopped = false;
    at_leader_tick(s->leader);
}

static void one_server_leads_and_keeps_it(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 3, 1);
    run(&r, AT_NS_PER_S);
    struct server *first = leader_of(&r);
    assert_non_null(first);
    assert_true(first->told);
    assert_string_equal(at_leader_holder(other_than(&r, first)->leader), "https://x");
    for (int i = 0; i < 60; i++) {
        run(&r, AT_NS_PER_S);
        assert_ptr_equal(leader_of(&r), first);
    }
    rig_done(&r);
}

static void a_leader_that_ends_hands_over_at_once(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2, 2);
    run(&r, AT_NS_PER_S);
    struct server *first = leader_of(&r);
    at_leader_free(first->leader);
    first->leader = NULL;
    run(&r, 3 * AT_LEADER_LOOK_NS);
    assert_ptr_equal(leader_of(&r), other_than(&r, first));
    rig_done(&r);
}

static void a_stopped_leader_is_followed_within_five_seconds_and_knows_it(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2, 3);
    run(&r, 5 * AT_NS_PER_S);
    struct server *first = leader_of(&r);
    int64_t begin = at_sim_now_ns(r.sim);
    stop(&r, first);
    while (leader_of(&r) != other_than(&r, first)) {
        turn(&r);
    }
    assert_true(at_sim_now_ns(r.sim) - begin < 5 * AT_NS_PER_S);
    assert_true(first->told); /* it sleeps, and yet: */
    assert_false(at_leader_leads(first->leader));
    go_on(first);
    assert_false(first->told);
    run(&r, 20 * AT_NS_PER_S);
    assert_ptr_equal(leader_of(&r), other_than(&r, first));
    rig_done(&r);
}

struct written {
    bool done;
    enum at_rc rc;
};

static void on_written(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                       const struct at_err *err)
{
    (void)rev;
    (void)current;
    (void)err;
    *(struct written *)ctx = (struct written){true, rc};
}

/* What a controller of the leader with that epoch would get for a write that arrives now. */
static enum at_rc write_of_epoch(struct rig *r, int64_t epoch)
{
    struct written w = {0};
    at_store_write(r->store, &(struct at_store_write){.key = "/copy",
                                                      .value = "x",
                                                      .len = 1,
                                                      .expect = -1,
                                                      .guard_key = AT_LEADER_EPOCH_KEY,
                                                      .guard_rev = epoch,
                                                      .fn = on_written,
                                                      .ctx = &w});
    while (!w.done) {
        at_loop_turn(r->loop, at_sim_now_ns(r->sim));
    }
    return w.rc;
}

static void what_a_stopped_leader_still_sends_is_refused_once_another_leads(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2, 6);
    run(&r, AT_NS_PER_S);
    struct server *first = leader_of(&r);
    int64_t epoch = at_leader_epoch(first->leader);
    assert_true(epoch > 0);
    run(&r, 10 * AT_NS_PER_S);
    assert_int_equal(at_leader_epoch(first->leader), epoch); /* renewals change nothing */
    assert_int_equal(write_of_epoch(&r, epoch), AT_OK);
    stop(&r, first);
    while (leader_of(&r) != other_than(&r, first)) {
        turn(&r);
    }
    assert_true(first->told); /* it has not noticed, and its writes are refused all the same */
    assert_int_equal(write_of_epoch(&r, epoch), AT_CONFLICT);
    int64_t next = at_leader_epoch(leader_of(&r)->leader);
    assert_true(next > epoch);
    assert_int_equal(write_of_epoch(&r, next), AT_OK);
    go_on(first);
    assert_int_equal(at_leader_epoch(first->leader), 0);
    assert_int_equal(write_of_epoch(&r, next), AT_OK);
    rig_done(&r);
}

static void a_leader_in_doubt_leads_on_with_a_new_epoch(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2, 7);
    run(&r, AT_NS_PER_S);
    struct server *first = leader_of(&r);
    int64_t epoch = at_leader_epoch(first->leader);
    at_leader_doubt(first->leader);
    while (leader_of(&r) != NULL && at_leader_epoch(leader_of(&r)->leader) == epoch) {
        turn(&r);
    }
    assert_false(first->told); /* its controllers have ended */
    run(&r, AT_NS_PER_S);
    assert_ptr_equal(leader_of(&r), first);
    assert_int_equal(write_of_epoch(&r, epoch), AT_CONFLICT);
    assert_int_equal(write_of_epoch(&r, at_leader_epoch(first->leader)), AT_OK);
    rig_done(&r);
}

static void nothing_is_left_of_servers_that_are_all_gone(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, 8);
    for (int i = 0; i < 20; i++) {
        at_state_heartbeat(r.servers[0].state, "n", at_sim_now_ns(r.sim));
        run(&r, 100 * AT_NS_PER_MS);
    }
    assert_true(at_store_ttl_left_ns(r.store, AT_LEADER_KEY) <= AT_LEADER_STALE_NS);
    stop(&r, &r.servers[0]);
    run(&r, AT_LEADER_STALE_NS + AT_NS_PER_S);
    assert_int_equal(at_store_stats(r.store).keys, 1); /* the epoch: it is a count, and stays */
    rig_done(&r);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void whatever_stops_two_never_lead(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct rig r;
        uint64_t random = seed;
        size_t changes = 0;
        int64_t epoch = 0;
        struct server *last = NULL;
        rig_init(&r, 3, seed);
        while (at_sim_now_ns(r.sim) < 100 * AT_NS_PER_S) {
            turn(&r);
            int64_t now = at_sim_now_ns(r.sim);
            for (size_t i = 0; i < r.n; i++) {
                struct server *s = &r.servers[i];
                if (s->stopped && now >= s->goes_on_ns) {
                    go_on(s);
                } else if (!s->stopped && next_random(&random) % 300 == 0) {
                    stop(&r, s);
                    s->goes_on_ns = now + (int64_t)(next_random(&random) % 8000) * AT_NS_PER_MS;
                }
            }
            struct server *leads = leader_of(&r);
            int64_t now_epoch = leads != NULL ? at_leader_epoch(leads->leader) : 0;
            if (leads != NULL && now_epoch != epoch) {
                assert_true(now_epoch > epoch);
                assert_true(epoch == 0 || write_of_epoch(&r, epoch) == AT_CONFLICT);
                epoch = now_epoch;
            }
            assert_true(leads == NULL || leads == last || now_epoch == epoch);
            changes += leads != NULL && leads != last;
            last = leads != NULL ? leads : last;
        }
        if (changes < 5) {
            fail_msg("seed %llu: only %zu changes", (unsigned long long)seed, changes);
        }
        rig_done(&r);
    }
}

static void the_leader_hears_of_beats_at_another_server(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2, 4);
    run(&r, AT_NS_PER_S);
    struct server *leads = leader_of(&r);
    struct server *other = other_than(&r, leads);
    int64_t rev = at_store_rev(r.store);
    for (int i = 0; i < 20; i++) {
        at_state_heartbeat(other->state, "n", at_sim_now_ns(r.sim));
        run(&r, 500 * AT_NS_PER_MS);
    }
    int64_t last = at_state_heartbeat_last(leads->state, "n");
    int64_t real = at_state_heartbeat_last(other->state, "n");
    int64_t off = last - real;
    assert_true(off < AT_LEADER_LOOK_NS + 20 * AT_NS_PER_MS); /* it is read that much later */
    assert_true(-off <= AT_LEADER_RELAY_NS + 20 * AT_NS_PER_MS);
    /* Silence of the node: its last beat is known, and that it was heard of since. */
    run(&r, 4 * AT_NS_PER_S);
    int64_t now = at_sim_now_ns(r.sim);
    int64_t heard = at_state_heartbeat_heard(leads->state, "n", now);
    assert_true(now - heard < 2 * AT_LEADER_RELAY_NS);
    assert_true(at_state_heartbeat_last(leads->state, "n") - real <
                AT_LEADER_LOOK_NS + 20 * AT_NS_PER_MS);
    assert_true(heard - at_state_heartbeat_last(leads->state, "n") > 2 * AT_NS_PER_S);
    /* Silence of the server: nothing is known since. */
    stop(&r, other);
    run(&r, 3 * AT_NS_PER_S);
    assert_true(at_sim_now_ns(r.sim) - at_state_heartbeat_heard(leads->state, "n", 0) >
                2 * AT_NS_PER_S);
    assert_true(at_store_rev(r.store) > rev);
    /* A beat here is newer than whatever is told. */
    at_state_heartbeat(leads->state, "n", at_sim_now_ns(r.sim));
    assert_int_equal(at_state_heartbeat_heard(leads->state, "n", 77), 77);
    go_on(other);
    run(&r, AT_NS_PER_S);
    assert_int_equal(at_state_heartbeat_heard(leads->state, "n", 77), 77);
    rig_done(&r);
}

static void a_server_alone_with_its_nodes_writes_only_the_lease(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, 5);
    run(&r, AT_NS_PER_S);
    int64_t rev = at_store_rev(r.store);
    for (int i = 0; i < 20; i++) {
        at_state_heartbeat(r.servers[0].state, "n", at_sim_now_ns(r.sim));
        run(&r, 500 * AT_NS_PER_MS);
    }
    assert_true(at_store_rev(r.store) - rev <= 11); /* one a second */
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_server_leads_and_keeps_it),
        cmocka_unit_test(a_leader_that_ends_hands_over_at_once),
        cmocka_unit_test(a_stopped_leader_is_followed_within_five_seconds_and_knows_it),
        cmocka_unit_test(what_a_stopped_leader_still_sends_is_refused_once_another_leads),
        cmocka_unit_test(a_leader_in_doubt_leads_on_with_a_new_epoch),
        cmocka_unit_test(nothing_is_left_of_servers_that_are_all_gone),
        cmocka_unit_test(whatever_stops_two_never_lead),
        cmocka_unit_test(the_leader_hears_of_beats_at_another_server),
        cmocka_unit_test(a_server_alone_with_its_nodes_writes_only_the_lease),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
