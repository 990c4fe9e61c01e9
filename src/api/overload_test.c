/* More requests than the server takes: users get turns, not connections; who has more than its
 * share is told so; the rest goes on. */
#include "api/kit_test.h"

#define MANY 24

static int one_request_a_turn(void **state)
{
    kit_limits.requests_max = 0;
    kit_limits.turn_ns = 1;
    *state = kit_new();
    return 0;
}

static int few_requests(void **state)
{
    kit_limits.requests_max = 4;
    kit_limits.turn_ns = 1;
    *state = kit_new();
    return 0;
}

struct crowd {
    struct at_tls_config *greedy, *modest;
    struct kit_answer many[MANY], one;
};

static size_t count_done(const struct crowd *c)
{
    size_t n = 0;
    for (size_t i = 0; i < MANY; i++) {
        n += c->many[i].done;
    }
    return n;
}

static void crowd_start(struct kit *kit, struct crowd *c, int rounds)
{
    memset(c, 0, sizeof *c);
    c->greedy = kit_identity(kit, "greedy", AT_GROUP_VIEWERS);
    c->modest = kit_identity(kit, "modest", AT_GROUP_VIEWERS);
    /* The first round only opens the connections, so that those of the second arrive together. */
    for (int round = 0; round < rounds; round++) {
        kit_start(kit, &c->one, c->modest, AT_HTTP_GET, ATOLL "/sites", NULL, NULL);
        for (size_t i = 0; i < MANY; i++) {
            kit_start(kit, &c->many[i], c->greedy, AT_HTTP_GET, ATOLL "/sites", NULL, NULL);
        }
        if (round + 1 < rounds) {
            KIT_UNTIL(kit, count_done(c) == MANY && c->one.done);
            answer_done(&c->one);
            for (size_t i = 0; i < MANY; i++) {
                answer_done(&c->many[i]);
            }
        }
    }
}

static void crowd_end(struct crowd *c)
{
    for (size_t i = 0; i < MANY; i++) {
        answer_done(&c->many[i]);
    }
    answer_done(&c->one);
    at_tls_config_unref(c->greedy);
    at_tls_config_unref(c->modest);
}

static void one_request_does_not_wait_behind_many_of_another(void **state)
{
    struct kit *kit = *state;
    struct crowd c;
    crowd_start(kit, &c, 2);
    KIT_UNTIL(kit, count_done(&c) > 0);
    /* Now a queue of the greedy one waits; the modest one comes last and is next. */
    KIT_UNTIL(kit, c.one.done);
    answer_done(&c.one);
    if (count_done(&c) < MANY - 4) {
        kit_start(kit, &c.one, c.modest, AT_HTTP_GET, ATOLL "/sites", NULL, NULL);
        KIT_UNTIL(kit, c.one.done);
        assert_true(count_done(&c) < MANY);
    }
    KIT_UNTIL(kit, count_done(&c) == MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(c.many[i].status, 200);
    }
    crowd_end(&c);
}

static void who_has_more_than_its_share_is_told_429(void **state)
{
    struct kit *kit = *state;
    struct crowd c;
    crowd_start(kit, &c, 2);
    KIT_UNTIL(kit, count_done(&c) == MANY && c.one.done);
    size_t refused = 0;
    for (size_t i = 0; i < MANY; i++) {
        if (c.many[i].status == 429) {
            refused++;
            assert_non_null(strstr(c.many[i].headers, "Retry-After: 1\n"));
            assert_non_null(strstr(c.many[i].body.data, "TooManyRequests"));
        }
    }
    assert_true(refused > 0);
    assert_int_equal(c.one.status, 200);
    /* Afterwards all is as before, for both; health is answered meanwhile and after. */
    assert_int_equal(kit_status(kit, c.greedy, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    assert_int_equal(kit_status(kit, kit->client_tls, AT_HTTP_GET, "/readyz", NULL, NULL), 200);
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, "/metrics", NULL, NULL), 200);
    assert_non_null(strstr(a.body.data, "atoll_api_requests_waiting 0\n"));
    assert_null(strstr(a.body.data, "atoll_api_overload_total 0\n"));
    answer_done(&a);
    crowd_end(&c);
}

/* Those that leave while they wait take nothing with them. */
static void requests_that_leave_the_queue_are_forgotten(void **state)
{
    struct kit *kit = *state;
    struct crowd c;
    crowd_start(kit, &c, 2);
    KIT_UNTIL(kit, count_done(&c) > 0);
    for (size_t i = 0; i < MANY; i++) {
        if (!c.many[i].done) {
            at_http_call_cancel(kit->client, c.many[i].call);
        }
    }
    KIT_UNTIL(kit, c.one.done);
    assert_int_equal(kit_status(kit, c.greedy, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    crowd_end(&c);
}

/* The server ends with a full queue. */
static void a_full_queue_is_freed_at_the_end(void **state)
{
    struct kit *kit = *state;
    struct crowd c;
    crowd_start(kit, &c, 2);
    KIT_UNTIL(kit, count_done(&c) > 0);
    for (size_t i = 0; i < MANY; i++) {
        if (!c.many[i].done) {
            at_http_call_cancel(kit->client, c.many[i].call);
        }
    }
    if (!c.one.done) {
        at_http_call_cancel(kit->client, c.one.call);
    }
    crowd_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_request_does_not_wait_behind_many_of_another,
                                        one_request_a_turn, kit_tear_down),
        cmocka_unit_test_setup_teardown(who_has_more_than_its_share_is_told_429, few_requests,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(requests_that_leave_the_queue_are_forgotten,
                                        one_request_a_turn, kit_tear_down),
        cmocka_unit_test_setup_teardown(a_full_queue_is_freed_at_the_end, one_request_a_turn,
                                        kit_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
