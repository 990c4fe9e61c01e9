/* More requests than the server takes: users get turns, not connections; who has more than its
 * share is told so; the rest goes on. */
#include "api/kit_test.h"
#include "api/limits.h"

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

#define SLOW 30
#define QUEUE_MAX ((size_t)4 << 20)

static int small_queue(void **state)
{
    kit_limits.requests_max = 0;
    kit_limits.turn_ns = 0;
    kit_limits.watch_queue_bytes_max = QUEUE_MAX;
    *state = kit_new();
    kit_limits.watch_queue_bytes_max = 0;
    return 0;
}

static int64_t metric(struct kit *kit, const char *name)
{
    struct kit_answer a;
    char line[100];
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, "/metrics", NULL, NULL), 200);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(a.body.data, line);
    assert_non_null(at);
    int64_t value = strtoll(at + strlen(line), NULL, 10);
    answer_done(&a);
    return value;
}

static void patch_large(struct kit *kit, int round)
{
    size_t len = 200000;
    char *body = at_alloc(len + 200);
    int head = snprintf(body, 100, "{\"metadata\":{\"annotations\":{\"a\":\"%d", round);
    memset(body + head, 'x', len);
    strcpy(body + (size_t)head + len, "\"}}}");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, ATOLL "/sites/a", KIT_MERGE, body), 200);
    at_free(body);
}

/* What all slow clients together hold is bounded: they are cut, the one that reads is not. */
static void many_slow_watchers_cost_no_more_than_the_limit(void **state)
{
    struct kit *kit = *state;
    static struct kit_answer slow[SLOW];
    struct kit_answer quick;
    kit_make_site(kit, "a");
    kit_start(kit, &quick, NULL, AT_HTTP_GET, ATOLL "/sites?watch=1", NULL, NULL);
    KIT_UNTIL(kit, quick.body.len > 0);
    for (size_t i = 0; i < SLOW; i++) {
        kit_start(kit, &slow[i], NULL, AT_HTTP_GET, ATOLL "/sites?watch=1", NULL, NULL);
        KIT_UNTIL(kit, slow[i].body.len > 0);
        at_http_call_pause(kit->client, slow[i].call, true);
    }
    for (int i = 0; i < 40; i++) {
        patch_large(kit, i);
        size_t all = (size_t)metric(kit, "atoll_api_watches_queue_bytes");
        /* One event to each that is not cut yet may come on top. */
        assert_true(all <= QUEUE_MAX + (size_t)SLOW * 201000);
    }
    assert_true(metric(kit, "atoll_api_watches_cut_total") > 0);
    assert_true((size_t)metric(kit, "atoll_api_watches_queue_bytes") <= QUEUE_MAX);
    KIT_UNTIL(kit, quick.body.len > 40 * 200000);
    assert_false(quick.done);
    for (size_t i = 0; i < SLOW; i++) {
        at_http_call_cancel(kit->client, slow[i].call);
        answer_done(&slow[i]);
    }
    at_http_call_cancel(kit->client, quick.call);
    answer_done(&quick);
}

static size_t count_text(const struct kit_answer *a, const char *text)
{
    size_t n = 0;
    const char *end = a->body.data + a->body.len;
    for (const char *at = a->body.data; at != NULL && at < end; n++) {
        at = memmem(at, (size_t)(end - at), text, strlen(text));
        if (at == NULL) {
            break;
        }
        at += strlen(text);
    }
    return n;
}

/* More objects than a page: each is shown once, with what changed meanwhile after them. */
static void a_watch_shows_first_all_there_is_page_by_page(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    enum { N = AT_API_INITIAL_PAGE_KEYS * 2 + 50 };
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "s%05d", i);
        kit_make_site(kit, name);
    }
    kit_start(kit, &w, NULL, AT_HTTP_GET,
              ATOLL "/sites?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&"
                    "resourceVersionMatch=NotOlderThan",
              NULL, NULL);
    KIT_UNTIL(kit, w.status == 200);
    kit_make_site(kit, "new");
    KIT_UNTIL(kit, count_text(&w, "\"name\":\"new\"") == 1);
    assert_int_equal(count_text(&w, "{\"type\":\"ADDED\""), N + 1);
    assert_int_equal(count_text(&w, "initial-events-end"), 1);
    const char *mark = memmem(w.body.data, w.body.len, "initial-events-end", 18);
    const char *fresh = memmem(w.body.data, w.body.len, "\"name\":\"new\"", 12);
    assert_true(mark < fresh);
    at_http_call_cancel(kit->client, w.call);
    answer_done(&w);
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
        cmocka_unit_test_setup_teardown(many_slow_watchers_cost_no_more_than_the_limit, small_queue,
                                        kit_tear_down),
        cmocka_unit_test_setup_teardown(a_watch_shows_first_all_there_is_page_by_page, kit_set_up,
                                        kit_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
