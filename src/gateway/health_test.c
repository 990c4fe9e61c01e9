/* Circuits, ejection, centiles and what a Deployment says, by numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/mem.h"
#include "gateway/gateway_priv.h"

struct four {
    struct gw_model model;
    struct gw_replica replicas[4], *list[4];
};

static void begin(struct four *f, size_t n)
{
    *f = (struct four){0};
    static char name[] = "m";
    f->model.name = name;
    f->model.replicas = f->list;
    f->model.n_replicas = n;
    f->model.in_view = true;
    gw_policy_default(&f->model.policy);
    for (size_t i = 0; i < 4; i++) {
        f->replicas[i].in_view = true;
        f->list[i] = &f->replicas[i];
    }
}

static void answer(struct four *f, size_t i, int64_t now, enum gw_outcome outcome)
{
    struct gw_moment at = {NULL, now};
    gw_replica_enter(at, &f->model, f->list[i], 0);
    gw_replica_leave(at, &f->model, f->list[i], 0, outcome);
}

static size_t open_ones(const struct four *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->model.n_replicas; i++) {
        n += f->replicas[i].circuit.state != GW_CLOSED;
    }
    return n;
}

static void errors_in_a_row_eject_but_never_more_than_the_share(void **state)
{
    (void)state;
    struct four f;
    begin(&f, 4);
    for (unsigned n = 0; n + 1 < f.model.policy.eject_errors; n++) {
        answer(&f, 0, 0, GW_ERROR);
    }
    answer(&f, 0, 0, GW_FINE); /* not in a row */
    answer(&f, 0, 0, GW_ERROR);
    assert_int_equal(open_ones(&f), 0);
    for (size_t i = 0; i < 4; i++) {
        for (unsigned n = 0; n < f.model.policy.eject_errors; n++) {
            answer(&f, i, 0, GW_ERROR);
        }
    }
    assert_int_equal(open_ones(&f), 2);
    begin(&f, 4); /* those that cannot be reached: all but one */
    for (size_t i = 0; i < 4; i++) {
        answer(&f, i, 0, GW_UNREACHED);
    }
    assert_int_equal(open_ones(&f), 3);
    begin(&f, 1);
    answer(&f, 0, 0, GW_UNREACHED);
    assert_int_equal(open_ones(&f), 0);
}

static void a_relapse_is_ejected_for_longer_and_a_good_while_forgives(void **state)
{
    (void)state;
    struct four f;
    begin(&f, 2);
    struct gw_circuit *c = &f.replicas[0].circuit;
    int64_t now = 0, first = f.model.policy.eject_ns;
    for (int i = 0; i < 4; i++) {
        answer(&f, 0, now, GW_UNREACHED);
        assert_int_equal(c->until_ns - now, first << i);
        assert_true(gw_replica_avoided(&f.replicas[0], c->until_ns - 1));
        assert_false(gw_replica_avoided(&f.replicas[0], c->until_ns));
        now = c->until_ns;
        answer(&f, 0, now, GW_FINE);
        assert_int_equal(c->state, GW_CLOSED);
    }
    now += f.model.policy.eject_max_ns + 1;
    answer(&f, 0, now, GW_UNREACHED);
    assert_int_equal(c->until_ns - now, first);
}

static void a_models_circuit_opens_tries_and_closes(void **state)
{
    (void)state;
    struct four f;
    begin(&f, 1);
    struct gw_moment at = {NULL, 0};
    for (unsigned n = 0; n < f.model.policy.circuit_errors; n++) {
        assert_true(gw_model_allows(at, &f.model));
        gw_model_note(at, &f.model, false);
    }
    assert_false(gw_model_allows(at, &f.model));
    at.now_ns = f.model.policy.circuit_ns;
    assert_true(gw_model_allows(at, &f.model));
    assert_false(gw_model_allows(at, &f.model)); /* one tries */
    gw_model_note(at, &f.model, false);
    at.now_ns += f.model.policy.circuit_ns;
    assert_false(gw_model_allows(at, &f.model)); /* twice as long */
    gw_model_hope(at, &f.model);
    assert_true(gw_model_allows(at, &f.model));
    gw_model_note(at, &f.model, true);
    assert_true(gw_model_allows(at, &f.model));
    assert_int_equal(f.model.circuit.state, GW_CLOSED);
}

static void centiles_are_within_a_quarter(void **state)
{
    (void)state;
    static const int64_t MS = 1000000;
    struct gw_latency latency = {0};
    for (int i = 1; i < AT_GW_LATENCY_LEAST; i++) {
        gw_latency_add(&latency, MS);
    }
    assert_int_equal(gw_latency_centile(&latency, 50), 0); /* too few */
    latency = (struct gw_latency){0};
    for (int i = 1; i <= 100; i++) {
        gw_latency_add(&latency, i * MS);
    }
    static const unsigned CENTILES[] = {50, 90, 95, 99};
    for (size_t i = 0; i < AT_ARRAY_LEN(CENTILES); i++) {
        int64_t is = gw_latency_centile(&latency, CENTILES[i]);
        assert_true(is >= CENTILES[i] * MS);
        assert_true(is <= CENTILES[i] * MS * 5 / 4);
    }
    static const int64_t ODD[] = {-1, 0, 1, 4095, 4096, 16384, INT64_MAX};
    for (size_t i = 0; i < AT_ARRAY_LEN(ODD); i++) {
        gw_latency_add(&latency, ODD[i]);
    }
    for (int i = 0; i < 3 * AT_GW_LATENCY_KEPT; i++) { /* what was, fades */
        gw_latency_add(&latency, MS);
    }
    assert_true(gw_latency_centile(&latency, 95) <= MS * 5 / 4);
}

static void a_deployment_says_how_its_requests_are_treated(void **state)
{
    (void)state;
    struct gw_policy p;
    struct at_err err;
    AT_CLEANUP(at_cleanup_json)
    json_t *spec = json_pack("{s:{s:s, s:i}, s:{s:s}, s:{s:{s:s, s:s}}}", "waiting", "timeout",
                             "2s", "requests", 7, "hedging", "after", "30ms", "health", "active",
                             "protocol", "http", "path", "/x");
    assert_int_equal(gw_policy_parse(spec, &p, &err), AT_OK);
    assert_int_equal(p.wait_ns, 2 * AT_GW_S);
    assert_int_equal(p.wait_requests, 7);
    assert_int_equal(p.wait_bytes, AT_GW_WAIT_BYTES);
    assert_true(p.hedges);
    assert_int_equal(p.hedge_centile, 0);
    assert_int_equal(p.hedge_ns, 30 * AT_GW_MS);
    assert_int_equal(p.check, GW_CHECK_HTTP);
    assert_string_equal(p.check_path, "/x");
    AT_CLEANUP(at_cleanup_json) json_t *bad = json_pack("{s:{s:s}}", "waiting", "timeout", "soon");
    assert_int_equal(gw_policy_parse(bad, &p, &err), AT_INVALID);
    assert_non_null(strstr(err.field, "waiting.timeout"));
}

/* Two loops with views of their own of the same replicas. */
static void what_one_loop_finds_out_all_know(void **state)
{
    (void)state;
    struct four loops[2];
    struct gw_standing *model = gw_standing_new();
    for (size_t l = 0; l < 2; l++) {
        begin(&loops[l], 4);
        loops[l].model.standing = model;
        for (size_t i = 0; i < 4; i++) {
            loops[l].replicas[i].standing =
                l == 0 ? gw_standing_new() : loops[0].replicas[i].standing;
        }
    }
    struct gw_policy *p = &loops[0].model.policy;
    for (unsigned n = 0; n < p->eject_errors; n++) { /* by turns: neither has met them all */
        assert_false(gw_replica_avoided(loops[0].list[0], 0));
        answer(&loops[n % 2], 0, 0, GW_ERROR);
    }
    assert_true(gw_replica_avoided(loops[0].list[0], 1));
    assert_true(gw_replica_avoided(loops[1].list[0], 1));
    /* One request of one loop tries it. */
    int64_t later = p->eject_ns + 1;
    assert_false(gw_replica_avoided(loops[0].list[0], later));
    gw_replica_enter((struct gw_moment){NULL, later}, &loops[0].model, loops[0].list[0], 0);
    assert_true(gw_replica_avoided(loops[1].list[0], later));
    gw_replica_leave((struct gw_moment){NULL, later}, &loops[0].model, loops[0].list[0], 0,
                     GW_ERROR);
    assert_true(gw_replica_avoided(loops[1].list[0], later + p->eject_ns));
    later += 2 * p->eject_ns;
    assert_false(gw_replica_avoided(loops[1].list[0], later));
    answer(&loops[1], 0, later, GW_FINE);
    assert_false(gw_replica_avoided(loops[0].list[0], later));
    answer(&loops[0], 0, later, GW_FINE);
    assert_int_equal(open_ones(&loops[0]) + open_ones(&loops[1]), 0);
    /* The share that may be ejected is one of all loops, too. */
    for (size_t i = 0; i < 4; i++) {
        for (unsigned n = 0; n < p->eject_errors; n++) {
            answer(&loops[i % 2], i, later, GW_ERROR);
        }
    }
    size_t avoided = 0;
    for (size_t i = 0; i < 4; i++) {
        avoided += gw_replica_avoided(loops[1].list[i], later + 1);
    }
    assert_int_equal(avoided, 2);
    /* A model's circuit. */
    for (unsigned n = 0; n < p->circuit_errors; n++) {
        assert_true(gw_model_allows((struct gw_moment){NULL, 1}, &loops[n % 2].model));
        gw_model_note((struct gw_moment){NULL, 1}, &loops[n % 2].model, false);
    }
    assert_false(gw_model_allows((struct gw_moment){NULL, 2}, &loops[0].model));
    assert_false(gw_model_allows((struct gw_moment){NULL, 2}, &loops[1].model));
    int64_t again = p->circuit_ns + 2;
    assert_true(gw_model_allows((struct gw_moment){NULL, again}, &loops[1].model));
    assert_false(gw_model_allows((struct gw_moment){NULL, again}, &loops[0].model));
    gw_model_note((struct gw_moment){NULL, again}, &loops[1].model, true);
    assert_true(gw_model_allows((struct gw_moment){NULL, again}, &loops[0].model));
    for (size_t i = 0; i < 4; i++) {
        gw_standing_unref(loops[0].replicas[i].standing);
    }
    gw_standing_unref(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_in_a_row_eject_but_never_more_than_the_share),
        cmocka_unit_test(a_relapse_is_ejected_for_longer_and_a_good_while_forgives),
        cmocka_unit_test(a_models_circuit_opens_tries_and_closes),
        cmocka_unit_test(centiles_are_within_a_quarter),
        cmocka_unit_test(a_deployment_says_how_its_requests_are_treated),
        cmocka_unit_test(what_one_loop_finds_out_all_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
