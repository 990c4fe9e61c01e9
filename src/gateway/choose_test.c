/* Choosing, by numbers: no request is sent here. Random numbers come from a fixed seed. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/lesson.h"
#include "gateway/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NO_WISH ((struct gw_wish){.cost_milli = 1000})

/* A gateway without loops or sockets that has taken the routes of a file. */
struct world {
    struct at_gateway gateway;
    struct gw_worker worker;
};

static void load(struct world *w, const char *routes)
{
    struct gw_table *table = NULL;
    struct at_err err = {0};
    enum at_rc rc = gw_table_parse(routes, strlen(routes), &table, &err);
    if (rc != AT_OK) {
        print_error("%s: %s\n", err.field, err.msg);
    }
    assert_int_equal(rc, AT_OK);
    gw_table_unref(atomic_exchange(&w->worker.next_table, table));
    gw_worker_take_table(&w->worker);
}

static struct world *begin(const char *routes)
{
    struct world *w = AT_NEW(struct world);
    gw_metrics_init(&w->gateway.metrics, AT_LOOP_EPOLL);
    w->worker.gateway = &w->gateway;
    w->worker.loop = at_loop_new(at_sys_real());
    w->worker.models = at_map_new();
    w->worker.prng[0] = 0x243f6a8885a308d3u;
    w->worker.prng[1] = 0x13198a2e03707344u;
    load(w, routes);
    return w;
}

static void end(struct world *w)
{
    gw_view_done(&w->worker);
    at_loop_free(w->worker.loop);
    at_metrics_free(w->gateway.metrics.registry);
    at_free(w);
}

static struct gw_model *model(struct world *w)
{
    return gw_model_find(&w->worker, "m", 1);
}

static struct gw_replica *replica(struct world *w, const char *instance)
{
    struct gw_model *m = model(w);
    for (size_t i = 0; i < m->n_all; i++) {
        if (strcmp(m->replicas[i]->instance, instance) == 0) {
            return m->replicas[i];
        }
    }
    return NULL;
}

static enum gw_choice choose(struct world *w, const struct gw_wish *wish, struct gw_replica **ret,
                             enum gw_why *ret_why)
{
    *ret = NULL;
    return gw_choose_take(&w->worker, model(w), wish, NULL, 0, 0, ret, ret_why);
}

static struct gw_replica *chosen(struct world *w, const struct gw_wish *wish)
{
    struct gw_replica *r;
    enum gw_why why;
    assert_int_equal(choose(w, wish, &r, &why), GW_CHOICE_MADE);
    return r;
}

static void enter(struct world *w, struct gw_replica *r, unsigned cost_milli)
{
    gw_replica_enter((struct gw_moment){NULL, 0}, model(w), r, cost_milli);
}

static void leave(struct world *w, struct gw_replica *r, unsigned cost_milli)
{
    gw_replica_leave((struct gw_moment){NULL, 0}, model(w), r, cost_milli, GW_FINE);
}

/* n replicas called a0, a1 ... with these members besides. */
static char *many(size_t n, const char *members)
{
    struct at_buf text = {0};
    assert_int_equal(at_buf_append_str(&text, "{\"models\":{\"m\":["), AT_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(at_buf_printf(&text,
                                       "%s{\"endpoint\":\"127.0.0.1:1\",\"instance\":\"a%zu\"%s}",
                                       i > 0 ? "," : "", i, members),
                         AT_OK);
    }
    assert_int_equal(at_buf_append_str(&text, "]}}"), AT_OK);
    char *copy = at_strdup(text.data);
    at_buf_done(&text);
    return copy;
}

#define ONE(name, more) "{\"endpoint\":\"127.0.0.1:1\",\"instance\":\"" name "\"" more "}"
#define ROUTES(list) "{\"models\":{\"m\":[" list "]}}"

static void prefers_few_requests_then_near_sites_then_turns(void **state)
{
    (void)state;
    struct world *w =
        begin(ROUTES(ONE("far", ",\"latency\":\"2ms\"") "," ONE("near", "") "," ONE("also", "")));
    struct gw_replica *far = replica(w, "far"), *near = replica(w, "near"),
                      *also = replica(w, "also");
    struct gw_wish wish = NO_WISH;
    size_t n_near = 0;
    for (int i = 0; i < 30; i++) {
        struct gw_replica *r = chosen(w, &wish);
        assert_ptr_not_equal(r, far);
        n_near += r == near;
    }
    assert_int_equal(n_near, 15); /* equals take turns */
    for (int i = 0; i < 4; i++) {
        enter(w, chosen(w, &wish), 1000);
    }
    assert_int_equal(near->outstanding, 2);
    assert_int_equal(also->outstanding, 2);
    assert_int_equal(far->outstanding, 0); /* 2 ms away weigh as much as two requests */
    enter(w, near, 1000);
    enter(w, also, 1000);
    struct gw_replica *r;
    enum gw_why why;
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_MADE);
    assert_ptr_equal(r, far);
    assert_int_equal(why, GW_WHY_FAR);
    struct gw_replica *tried[] = {far, near, also};
    assert_int_equal(gw_choose(&w->worker, model(w), &wish, tried, 2, 0, &r, &why), GW_CHOICE_MADE);
    assert_ptr_equal(r, also);
    assert_int_equal(gw_choose(&w->worker, model(w), &wish, tried, 3, 0, &r, &why), GW_CHOICE_NONE);
    assert_false(gw_choose_has_more(&w->worker, model(w), &wish, tried, 3));
    assert_true(gw_choose_has_more(&w->worker, model(w), &wish, tried, 2));
    for (int i = 0; i < 3; i++) {
        leave(w, near, 1000);
        leave(w, also, 1000);
    }
    load(w, ROUTES(""));
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_NONE);
    end(w);
}

static void avoids_who_cannot_be_reached_until_a_probe_succeeds(void **state)
{
    (void)state;
    struct world *w = begin(ROUTES(ONE("bad", "") "," ONE("good", ",\"latency\":\"1us\"")));
    struct gw_replica *bad = replica(w, "bad"), *good = replica(w, "good"), *r;
    struct gw_model *m = model(w);
    struct gw_wish wish = NO_WISH;
    struct gw_moment at = {NULL, 0};
    enum gw_why why;
    int64_t wait = AT_GW_AVOID_MIN_NS;
    for (int i = 0; i < 8; i++) {
        gw_choose(&w->worker, m, &wish, NULL, 0, at.now_ns, &r, &why);
        assert_ptr_equal(r, bad);
        gw_replica_enter(at, m, bad, 1000);
        gw_replica_enter(at, m, bad, 1000); /* two at once count once */
        gw_replica_leave(at, m, bad, 1000, GW_UNREACHED);
        gw_replica_leave(at, m, bad, 1000, GW_UNREACHED);
        gw_choose(&w->worker, m, &wish, NULL, 0, at.now_ns, &r, &why);
        assert_ptr_equal(r, good);
        gw_choose(&w->worker, m, &wish, NULL, 0, at.now_ns + wait - 1, &r, &why);
        assert_ptr_equal(r, good);
        at.now_ns += wait;
        wait = 2 * wait < AT_GW_AVOID_MAX_NS ? 2 * wait : AT_GW_AVOID_MAX_NS;
    }
    gw_replica_enter(at, m, bad, 1000); /* the probe: nobody else meanwhile */
    gw_choose(&w->worker, m, &wish, NULL, 0, at.now_ns, &r, &why);
    assert_ptr_equal(r, good);
    struct gw_replica *tried[] = {good};
    gw_choose(&w->worker, m, &wish, tried, 1, at.now_ns, &r, &why);
    assert_ptr_equal(r, bad); /* there is no other */
    assert_int_equal(why, GW_WHY_LAST);
    gw_replica_leave(at, m, bad, 1000, GW_FINE);
    gw_choose(&w->worker, m, &wish, NULL, 0, at.now_ns, &r, &why);
    assert_ptr_equal(r, bad);
    end(w);
}

/* With one choice the fullest of 64 would hold some 25 of 640 (mean 10); with two it holds little
 * more than the mean. The seed is fixed, so that this is a computation and not a gamble. */
static void of_many_the_less_loaded_of_two_is_taken(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *routes = many(64, "");
    struct world *w = begin(routes);
    struct gw_wish wish = NO_WISH;
    for (int i = 0; i < 640; i++) {
        enter(w, chosen(w, &wish), 1000);
    }
    struct gw_model *m = model(w);
    unsigned most = 0, least = UINT32_MAX;
    for (size_t i = 0; i < m->n_all; i++) {
        most = m->replicas[i]->outstanding > most ? m->replicas[i]->outstanding : most;
        least = m->replicas[i]->outstanding < least ? m->replicas[i]->outstanding : least;
    }
    assert_in_range(most, 10, 13);
    assert_in_range(least, 5, 10);
    for (size_t i = 0; i < m->n_all; i++) {
        while (m->replicas[i]->outstanding > 0) {
            leave(w, m->replicas[i], 1000);
        }
    }
    end(w);
}

static void weighs_by_cost_not_by_number(void **state)
{
    (void)state;
    struct world *w = begin(ROUTES(ONE("a", "") "," ONE("b", "")));
    struct gw_wish wish = NO_WISH;
    enter(w, replica(w, "a"), 9000); /* one long prompt */
    for (int i = 0; i < 8; i++) {
        struct gw_replica *r = chosen(w, &wish);
        assert_ptr_equal(r, replica(w, "b"));
        enter(w, r, 1000);
    }
    leave(w, replica(w, "a"), 9000);
    for (int i = 0; i < 8; i++) {
        leave(w, replica(w, "b"), 1000);
    }
    end(w);
}

/* Requests of 10,000 with random draws that go to the instance. */
static size_t share_of(struct world *w, const char *instance)
{
    size_t n = 0;
    for (int i = 0; i < 10000; i++) {
        struct gw_wish wish = NO_WISH;
        wish.draw = gw_random(&w->worker);
        n += chosen(w, &wish) == replica(w, instance);
    }
    return n;
}

#define OF(deployment, weight)                                                                     \
    ",\"deployment\":\"" deployment "\",\"version\":\"" deployment "\",\"weight\":" weight

static void shares_follow_their_weights(void **state)
{
    (void)state;
    static const struct {
        const char *routes;
        double of_a;
    } CASES[] = {
        {ROUTES(ONE("a", OF("a", "10")) "," ONE("b", ",\"deployment\":\"b\"")), 0.10},
        {ROUTES(ONE("a", OF("a", "10")) "," ONE("b", OF("b", "90"))), 0.10},
        {ROUTES(ONE("a", OF("a", "1")) "," ONE("b", OF("b", "3"))), 0.25},
        {ROUTES(ONE("a", OF("a", "300")) "," ONE("b", OF("b", "100"))), 0.75},
        {ROUTES(ONE("a", OF("a", "0")) "," ONE("b", ",\"deployment\":\"b\"")), 0},
        {ROUTES(ONE("a", OF("a", "100")) "," ONE("b", ",\"deployment\":\"b\"")), 1},
        {ROUTES(ONE("a", OF("a", "20")) "," ONE("b", ",\"deployment\":\"b\"") "," ONE(
             "c", ",\"deployment\":\"c\"")),
         0.20},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct world *w = begin(CASES[i].routes);
        double share = (double)share_of(w, "a") / 10000;
        /* Five standard deviations at most 0.025; certainties are certain. */
        double slack = CASES[i].of_a > 0 && CASES[i].of_a < 1 ? 0.025 : 0;
        if (share < CASES[i].of_a - slack || share > CASES[i].of_a + slack) {
            print_error("case %zu: %f\n", i, share);
            fail();
        }
        end(w);
    }
}

static void a_weight_without_replicas_goes_to_the_others(void **state)
{
    (void)state;
    struct gw_replica *r;
    enum gw_why why;
    struct gw_wish wish = NO_WISH;
    struct world *w = begin(ROUTES(ONE("a", OF("a", "50"))));
    struct gw_table *table = gw_table_new();
    struct gw_route *route = gw_table_route(table, "m");
    route->shares = NULL;
    gw_route_share(route, "gone"); /* the stable one: known, without a replica */
    size_t canary = gw_route_share(route, "a");
    route->shares[canary].weight = 50;
    gw_table_add_target(table, route,
                        &(struct gw_target){.instance = "a", .addr = "x", .share = canary});
    atomic_store(&w->worker.next_table, table);
    gw_worker_take_table(&w->worker);
    assert_int_equal(share_of(w, "a"), 10000);
    load(w, ROUTES(ONE("a", OF("a", "0")))); /* 0 is none, whatever happens */
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_NONE);
    end(w);
}

static void the_same_draw_keeps_its_share_when_the_canary_grows(void **state)
{
    (void)state;
    static const char *const STEPS[] = {
        ROUTES(ONE("a", OF("a", "5")) "," ONE("b", ",\"deployment\":\"b\"")),
        ROUTES(ONE("a", OF("a", "20")) "," ONE("b", ",\"deployment\":\"b\"")),
        ROUTES(ONE("a", OF("a", "60")) "," ONE("b", ",\"deployment\":\"b\""))};
    bool had[1000] = {false};
    struct world *w = begin(STEPS[0]);
    for (size_t s = 0; s < AT_ARRAY_LEN(STEPS); s++) {
        load(w, STEPS[s]);
        size_t n = 0;
        for (int user = 0; user < 1000; user++) {
            char name[16];
            snprintf(name, sizeof name, "user-%d", user);
            struct gw_wish wish = NO_WISH;
            wish.draw = gw_hash(at_str_of(name));
            bool has = chosen(w, &wish) == replica(w, "a");
            assert_ptr_equal(chosen(w, &wish), chosen(w, &wish));
            assert_true(has || !had[user]); /* nobody loses it again */
            had[user] = has;
            n += has;
        }
        assert_in_range(n, s == 0 ? 20 : s == 1 ? 140 : 520, s == 0 ? 90 : s == 1 ? 260 : 680);
    }
    end(w);
}

static void a_pin_goes_to_its_version_only(void **state)
{
    (void)state;
    struct world *w = begin(ROUTES(ONE("a", OF("1", "100")) "," ONE("b", OF("2", "0")) "," ONE(
        "c", ",\"deployment\":\"3\",\"version\":\"3\",\"shadow\":50")));
    struct gw_model *m = model(w);
    assert_int_equal(m->n_replicas, 2);
    assert_int_equal(m->n_all, 3);
    static const struct {
        const char *version, *instance;
    } CASES[] = {{"1", "a"}, {"2", "b"}, {"3", "c"}};
    struct gw_replica *r;
    enum gw_why why;
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_wish wish = NO_WISH;
        gw_wish_pin(&wish, m, at_str_of(CASES[i].version));
        assert_ptr_equal(chosen(w, &wish), replica(w, CASES[i].instance));
        struct gw_replica *tried[] = {replica(w, CASES[i].instance)};
        assert_int_equal(gw_choose(&w->worker, m, &wish, tried, 1, 0, &r, &why), GW_CHOICE_NONE);
    }
    struct gw_wish wish = NO_WISH;
    gw_wish_pin(&wish, m, AT_STR("9")); /* of a path: the replica is to say */
    assert_int_equal(wish.pin, 0);
    wish.version = AT_STR("9");
    wish.pin = gw_hash(wish.version);
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_VERSION);
    assert_int_equal(share_of(w, "c"), 0);
    end(w);
}

static void data_stays_where_it_may_be(void **state)
{
    (void)state;
    struct world *w =
        begin(ROUTES(ONE("eu", ",\"jurisdiction\":\"EU\",\"latency\":\"90ms\"") "," ONE(
            "us", ",\"jurisdiction\":\"US\"") "," ONE("nowhere", "")));
    struct gw_residency *rule = gw_table_add_rule(w->worker.table, "restricted");
    gw_residency_allow(rule, "CH");
    gw_residency_allow(rule, "EU");
    static const struct {
        struct at_str data_class, jurisdictions;
        const char *instance;
    } CASES[] = {
        {AT_STR("restricted"), {NULL, 0}, "eu"},
        {{NULL, 0}, AT_STR("EU"), "eu"},
        {{NULL, 0}, AT_STR("CH ,\teu"), "eu"},
        {AT_STR("restricted"), AT_STR("US"), NULL}, /* both hold */
        {{NULL, 0}, AT_STR("JP"), NULL},
        {{NULL, 0}, AT_STR("E,U"), NULL},
    };
    struct gw_replica *r;
    enum gw_why why;
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_wish wish = NO_WISH;
        wish.data_class = CASES[i].data_class;
        wish.jurisdictions = CASES[i].jurisdictions;
        for (int n = 0; n < 20; n++) {
            enum gw_choice choice = choose(w, &wish, &r, &why);
            assert_int_equal(choice, CASES[i].instance != NULL ? GW_CHOICE_MADE : GW_CHOICE_PLACE);
            assert_ptr_equal(r, CASES[i].instance != NULL ? replica(w, CASES[i].instance) : NULL);
        }
    }
    struct gw_wish wish = NO_WISH; /* a class without a rule may be anywhere */
    wish.data_class = AT_STR("public");
    assert_ptr_not_equal(chosen(w, &wish), replica(w, "eu"));
    end(w);
}

static void no_replica_has_more_than_it_takes(void **state)
{
    (void)state;
    struct world *w = begin(ROUTES(
        ONE("a", ",\"requestsPerReplica\":2") "," ONE("b", ",\"requestsPerReplica\":1") "," ONE(
            "c", ",\"requestsPerReplica\":1,\"latency\":\"9s\"")));
    struct gw_wish wish = NO_WISH;
    struct gw_replica *r;
    enum gw_why why;
    for (int i = 0; i < 4; i++) {
        r = chosen(w, &wish);
        enter(w, r, 1000);
        assert_true(i < 3 || r == replica(w, "c")); /* far, but it has room */
    }
    assert_int_equal(replica(w, "a")->outstanding, 2);
    assert_int_equal(replica(w, "b")->outstanding, 1);
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_BUSY);
    leave(w, replica(w, "b"), 1000);
    assert_ptr_equal(chosen(w, &wish), replica(w, "b"));
    assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_BUSY); /* the choice took the place */
    enter(w, replica(w, "b"), 1000);
    const char *const names[] = {"a", "a", "b", "c"};
    for (size_t i = 0; i < 4; i++) {
        leave(w, replica(w, names[i]), 1000);
    }
    assert_int_equal(atomic_load(&replica(w, "a")->gauge->n), 0);
    end(w);
}

static uint64_t session(int n)
{
    char text[32];
    snprintf(text, sizeof text, "session-%d", n);
    return gw_hash(at_str_of(text));
}

static void sessions_stay_and_few_move_when_replicas_come_and_go(void **state)
{
    (void)state;
    enum { SESSIONS = 2000 };
    AT_CLEANUP(at_cleanup_free) char *eight = many(8, ""), *nine = many(9, "");
    struct world *w = begin(eight);
    char before[SESSIONS][8];
    size_t counts[9] = {0};
    for (int i = 0; i < SESSIONS; i++) {
        struct gw_wish wish = NO_WISH;
        wish.session = session(i);
        struct gw_replica *r = chosen(w, &wish);
        assert_ptr_equal(chosen(w, &wish), r);
        snprintf(before[i], sizeof before[i], "%s", r->instance);
        counts[r->instance[1] - '0']++;
    }
    for (size_t i = 0; i < 8; i++) {
        assert_in_range(counts[i], 180, 330); /* 250 each, give or take five deviations */
    }
    load(w, nine);
    size_t moved = 0;
    for (int i = 0; i < SESSIONS; i++) {
        struct gw_wish wish = NO_WISH;
        wish.session = session(i);
        const char *now = chosen(w, &wish)->instance;
        bool same = strcmp(now, before[i]) == 0;
        assert_true(same || strcmp(now, "a8") == 0); /* they move to the new one only */
        moved += !same;
    }
    assert_in_range(moved, 140, 310); /* a ninth is 222 */
    load(w, eight);
    for (int i = 0; i < SESSIONS; i++) {
        struct gw_wish wish = NO_WISH;
        wish.session = session(i);
        assert_string_equal(chosen(w, &wish)->instance, before[i]);
    }
    end(w);
}

static void a_session_that_is_too_much_for_one_is_shared(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *routes = many(4, "");
    struct world *w = begin(routes);
    struct gw_wish wish = NO_WISH;
    wish.session = session(1);
    struct gw_replica *r, *home = chosen(w, &wish);
    enum gw_why why;
    size_t moved = 0;
    for (int i = 0; i < 400; i++) {
        assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_MADE);
        assert_true(why == (r == home ? GW_WHY_SESSION : GW_WHY_MOVED));
        enter(w, r, 1000);
        moved += r != home;
    }
    assert_in_range(home->outstanding, 100, 130); /* a quarter above the average, and four */
    assert_true(moved > 0);
    struct gw_model *m = model(w);
    for (size_t i = 0; i < m->n_all; i++) {
        while (m->replicas[i]->outstanding > 0) {
            leave(w, m->replicas[i], 1000);
        }
    }
    end(w);
}

/* 24 prompts of 4 KB, each with another beginning, come again and again in random order. */
static void prompts_come_back_to_who_has_seen_them(void **state)
{
    (void)state;
    enum { TENANTS = 24, BYTES = 4096 };
    static char prompts[TENANTS][BYTES];
    AT_CLEANUP(at_cleanup_free) char *routes = many(8, "");
    struct world *w = begin(routes);
    struct gw_replica *r, *home[TENANTS] = {NULL};
    enum gw_why why;
    for (int t = 0; t < TENANTS; t++) {
        for (int i = 0; i < BYTES; i++) {
            prompts[t][i] = (char)('a' + gw_random(&w->worker) % 26);
        }
    }
    for (int i = 0; i < 1000; i++) {
        int t = (int)(gw_random(&w->worker) % TENANTS);
        struct gw_wish wish = NO_WISH;
        wish.prompt = (struct at_str){prompts[t], BYTES};
        assert_int_equal(choose(w, &wish, &r, &why), GW_CHOICE_MADE);
        assert_int_equal(why, home[t] != NULL ? GW_WHY_PREFIX : GW_WHY_LOAD);
        assert_true(home[t] == NULL || home[t] == r);
        gw_learn_prefix(&w->worker, model(w), r);
        home[t] = r;
    }
    /* What it has to do can outweigh what it knows: 4 KB are worth four requests. */
    struct gw_wish wish = NO_WISH;
    wish.prompt = (struct at_str){prompts[0], BYTES};
    for (int i = 0; i < 3; i++) {
        enter(w, home[0], 1000);
        assert_ptr_equal(chosen(w, &wish), home[0]);
    }
    enter(w, home[0], 1000);
    assert_ptr_not_equal(chosen(w, &wish), home[0]);
    for (int i = 0; i < 4; i++) {
        leave(w, home[0], 1000);
    }
    wish.session = session(1); /* a session that is named counts more */
    choose(w, &wish, &r, &why);
    assert_int_equal(why, GW_WHY_SESSION);
    end(w);
}

/* Two loops of one gateway: what the first has sent the second knows, once it has turned. */
static void loops_tell_each_other_where_new_prompts_went(void **state)
{
    (void)state;
    static char prompt[8192];
    static struct gw_worker workers[2];
    AT_CLEANUP(at_cleanup_free) char *routes = many(8, "");
    struct world *a = begin(routes), *b = begin(routes);
    for (size_t i = 0; i < sizeof prompt; i++) {
        prompt[i] = (char)('a' + gw_random(&a->worker) % 26);
    }
    workers[0] = a->worker;
    workers[1] = b->worker;
    workers[1].gateway = &a->gateway;
    a->gateway.workers = workers;
    a->gateway.n_workers = 2;
    struct gw_wish wish = NO_WISH;
    wish.prompt = (struct at_str){prompt, sizeof prompt};
    struct gw_model *first = gw_model_find(&workers[0], "m", 1), *second = model(b);
    struct gw_replica *went, *then;
    enum gw_why why;
    assert_int_equal(gw_choose(&workers[0], first, &wish, NULL, 0, 0, &went, &why), GW_CHOICE_MADE);
    gw_learn_prefix(&workers[0], first, went);
    second->next = 5; /* by load alone it would be another one's turn */
    at_loop_turn(workers[1].loop, 0);
    assert_int_equal(gw_choose(&workers[1], second, &wish, NULL, 0, 0, &then, &why),
                     GW_CHOICE_MADE);
    assert_int_equal(why, GW_WHY_PREFIX);
    assert_string_equal(then->instance, went->instance);
    /* It is new no more, neither to the one nor to the other: nobody is told. */
    gw_learn_prefix(&workers[1], second, then);
    assert_null(atomic_load(&workers[0].lessons));
    /* What nobody takes is bounded, and freed at the end. */
    for (size_t i = 0; i < AT_GW_LESSONS_MAX + 10; i++) {
        gw_lesson_tell(&workers[0], first, went);
    }
    assert_int_equal(atomic_load(&workers[1].n_lessons), AT_GW_LESSONS_MAX);
    gw_lesson_done(&workers[1]);
    assert_int_equal(atomic_load(&workers[1].n_lessons), 0);
    end(a);
    end(b);
}

/* Two gateways with the same random numbers: where no two prompts begin alike, the one that looks
 * at prompts chooses exactly as the one that does not. */
static void without_common_beginnings_the_choice_is_by_load_alone(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *routes = many(8, "");
    struct world *a = begin(routes), *b = begin(routes);
    for (int i = 0; i < 500; i++) {
        char prompt[1024];
        uint64_t x = gw_hash_mix(99, (uint64_t)i);
        for (size_t k = 0; k < sizeof prompt; k++) {
            x = gw_hash_mix(x, k);
            prompt[k] = (char)('a' + x % 26);
        }
        struct gw_wish wish = NO_WISH;
        struct gw_replica *without = chosen(b, &wish);
        wish.prompt = (struct at_str){prompt, sizeof prompt};
        struct gw_replica *with = chosen(a, &wish);
        gw_learn_prefix(&a->worker, model(a), with);
        assert_string_equal(with->instance, without->instance);
        if (i % 3 > 0) {
            enter(a, with, 1000);
            enter(b, without, 1000);
        }
    }
    struct world *both[] = {a, b};
    for (size_t k = 0; k < 2; k++) {
        struct gw_model *m = model(both[k]);
        for (size_t i = 0; i < m->n_all; i++) {
            while (m->replicas[i]->outstanding > 0) {
                leave(both[k], m->replicas[i], 1000);
            }
        }
        end(both[k]);
    }
}

static void reads_what_a_request_wants(void **state)
{
    (void)state;
    struct gw_model m = {.session_header = (char *)"X-Chat", .session_cookie = (char *)"sid"};
    struct at_http_header headers[] = {
        {AT_STR("X-Atoll-Version"), AT_STR("2")},
        {AT_STR("x-atoll-user"), AT_STR("eve")},
        {AT_STR("X-Atoll-Data-Class"), AT_STR("r")},
        {AT_STR("x-atoll-jurisdiction"), AT_STR("EU")},
        {AT_STR("Cookie"), AT_STR("a=1; sid=s1 ;b")},
        {AT_STR("x-atoll-"), AT_STR("nothing")},
    };
    struct at_http_head head = {.n_headers = AT_ARRAY_LEN(headers)};
    memcpy(head.headers, headers, sizeof headers);
    struct gw_wish wish;
    gw_wish_read(&head, &m, 7, &wish);
    assert_int_equal(wish.pin, gw_hash(AT_STR("2")));
    assert_int_equal(wish.draw, gw_hash(AT_STR("eve")));
    assert_int_equal(wish.session, gw_hash(AT_STR("s1")));
    assert_true(at_str_eq(wish.data_class, "r"));
    assert_true(at_str_eq(wish.jurisdictions, "EU"));
    head.headers[0] = (struct at_http_header){AT_STR("x-CHAT"), AT_STR("s2")};
    head.headers[1] = (struct at_http_header){AT_STR("X-Atoll-Version"), AT_STR("")};
    gw_wish_read(&head, &m, 7, &wish);
    assert_int_equal(wish.session, gw_hash(AT_STR("s2"))); /* before the cookie */
    assert_int_equal(wish.draw, wish.session);
    assert_int_equal(wish.pin, 0);
    head.n_headers = 0;
    gw_wish_read(&head, &m, 7, &wish);
    assert_int_equal(wish.draw, 7);
    assert_int_equal(wish.session, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefers_few_requests_then_near_sites_then_turns),
        cmocka_unit_test(avoids_who_cannot_be_reached_until_a_probe_succeeds),
        cmocka_unit_test(of_many_the_less_loaded_of_two_is_taken),
        cmocka_unit_test(weighs_by_cost_not_by_number),
        cmocka_unit_test(shares_follow_their_weights),
        cmocka_unit_test(a_weight_without_replicas_goes_to_the_others),
        cmocka_unit_test(the_same_draw_keeps_its_share_when_the_canary_grows),
        cmocka_unit_test(a_pin_goes_to_its_version_only),
        cmocka_unit_test(data_stays_where_it_may_be),
        cmocka_unit_test(no_replica_has_more_than_it_takes),
        cmocka_unit_test(sessions_stay_and_few_move_when_replicas_come_and_go),
        cmocka_unit_test(a_session_that_is_too_much_for_one_is_shared),
        cmocka_unit_test(prompts_come_back_to_who_has_seen_them),
        cmocka_unit_test(loops_tell_each_other_where_new_prompts_went),
        cmocka_unit_test(without_common_beginnings_the_choice_is_by_load_alone),
        cmocka_unit_test(reads_what_a_request_wants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
