/* What only the etcd back end has: several servers on it, answers that get lost, and an etcd that
 * goes away and comes back. */
#include "store/etcd_rig_test.h"

static void what_one_server_was_told_another_reads_after_catching_up(void **state)
{
    struct rig *r = *state;
    assert_true(at_store_is_shared(r->f.store));
    for (int i = 0; i < 100; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        int64_t rev = put_ok(&r->f, "/a", value);
        catch_up(&r->peer);
        struct listing l = list(&r->peer, "/a", NULL, 0, 0);
        char want[64];
        snprintf(want, sizeof want, "/a=%d@%lld ", i, (long long)rev);
        assert_string_equal(l.text, want);
        struct answer stale = put(&r->peer, "/a", "x", 0);
        assert_int_equal(stale.rc, AT_EXISTS);
        assert_string_equal(stale.value, value);
    }
}

static void two_servers_that_count_lose_no_step(void **state)
{
    struct rig *r = *state;
    put_ok(&r->f, "/n", "0");
    catch_up(&r->peer);
    int acked = 0;
    struct answer a[2] = {{.done = true}, {.done = true}};
    struct fixture *who[2] = {&r->f, &r->peer};
    for (int i = 0; i < 2000 && acked < 200; i++) {
        int k = i % 2;
        while (!a[k].done) {
            turn_briefly(who[0]);
            turn_briefly(who[1]);
        }
        struct listing l = list(who[k], "/n", NULL, 0, 0);
        int n = 0;
        long long rev = 0;
        sscanf(l.text, "/n=%d@%lld", &n, &rev);
        char value[16];
        snprintf(value, sizeof value, "%d", n + 1);
        acked += a[k].done && a[k].rev != 0;
        a[k] = (struct answer){0};
        at_store_put(who[k]->store, "/n", value, strlen(value), rev > 0 ? rev_of("/n", rev) : -1,
                     on_write, &a[k]);
    }
    while (!a[0].done || !a[1].done) {
        turn_briefly(who[0]);
        turn_briefly(who[1]);
    }
    acked += (a[0].rev != 0) + (a[1].rev != 0);
    catch_up(&r->peer);
    int n = 0;
    sscanf(list(&r->peer, "/n", NULL, 0, 0).text, "/n=%d@", &n);
    assert_int_equal(n, acked);
}

/* The write is done at etcd, its answer is not passed on. */
static void begin_and_lose(struct rig *r, struct answer *a, const char *value, int64_t expect)
{
    *a = (struct answer){0};
    int before = atomic_load(&r->proxy.dropped);
    atomic_store(&r->proxy.to_drop, 1);
    at_store_put(r->f.store, "/a", value, strlen(value), rev_of("/a", expect), on_write, a);
    while (atomic_load(&r->proxy.dropped) == before) {
        turn_briefly(&r->f);
    }
}

static void a_write_whose_answer_is_lost_happens_once_and_is_acknowledged(void **state)
{
    struct rig *r = *state;
    struct answer a;
    int64_t before = rev_now(&r->f);
    for (int64_t i = 0; i < 10; i++) {
        begin_and_lose(r, &a, "mine", i == 0 ? 0 : before + i);
        while (!a.done) {
            turn(&r->f);
        }
        assert_int_equal(a.rc, AT_OK);
        assert_int_equal(a.rev, before + i + 1);
    }
    begin_and_lose(r, &a, "any", -1);
    while (!a.done) {
        turn(&r->f);
    }
    assert_int_equal(a.rev, before + 11);
    assert_int_equal(rev_now(&r->f), before + 11);
}

static void a_lost_answer_is_still_ours_when_another_server_writes_after_it(void **state)
{
    struct rig *r = *state;
    struct answer a;
    begin_and_lose(r, &a, "mine", 0);
    int64_t theirs = put_ok(&r->peer, "/a", "theirs");
    while (!a.done) {
        turn(&r->f);
    }
    assert_int_equal(a.rc, AT_OK);
    assert_true(a.rev < theirs);
    catch_up(&r->f);
    assert_int_equal(list(&r->f, "/a", NULL, 0, 0).n, 1);
    assert_string_equal(put(&r->f, "/a", "x", 0).value, "theirs");
}

static void a_write_that_lost_a_race_is_refused(void **state)
{
    struct rig *r = *state;
    int64_t theirs = put_ok(&r->peer, "/a", "theirs"); /* our mirror has not been turned since */
    struct answer a = put(&r->f, "/a", "mine", 0);
    assert_int_equal(a.rc, AT_EXISTS);
    assert_string_equal(a.value, "theirs");
    assert_int_equal(a.mod_rev, theirs);
    assert_string_equal(put(&r->f, "/a", "over", -1).value, "over");
    assert_int_equal(del(&r->peer, "/a", theirs).rc, AT_CONFLICT);
    assert_int_equal(del(&r->peer, "/a", -1).rc, AT_OK);
    assert_int_equal(del(&r->f, "/a", -1).rc, AT_NOT_FOUND);
}

static void an_etcd_that_comes_back_is_followed_without_a_gap(void **state)
{
    struct rig *r = *state;
    struct log log = {0};
    int64_t start = put_ok(&r->f, "/a", "1");
    watch(&r->f, "/", "0", start, &log);
    etcd_stop(&r->f.etcd);
    struct answer a = {0};
    at_store_put(r->f.store, "/a", "2", 1, rev_of("/a", start), on_write, &a);
    for (int i = 0; i < 20; i++) {
        turn_briefly(&r->f);
    }
    assert_false(a.done); /* patient for a while */
    etcd_start(&r->f.etcd, r->f.dir);
    while (!a.done) {
        turn(&r->f);
    }
    assert_int_equal(a.rc, AT_OK);
    put_ok(&r->peer, "/b", "3");
    while (log.n < 2) {
        turn(&r->f);
    }
    assert_string_equal(log.text, "~/a=2@3[1] +/b=3@4[] ");
}

static void without_etcd_writes_and_fresh_reads_end_with_an_error_in_time(void **state)
{
    struct rig *r = *state;
    int64_t rev = put_ok(&r->f, "/a", "1");
    etcd_stop(&r->f.etcd);
    int64_t begin = at_sys_mono_ns(at_sys_real());
    struct answer w = {0};
    struct answer c = {0};
    at_store_put(r->f.store, "/a", "2", 1, rev_of("/a", rev), on_write, &w);
    at_store_catch_up(r->f.store, on_write, &c);
    while (!w.done || !c.done) {
        turn(&r->f);
    }
    assert_int_equal(w.rc, AT_UNAVAILABLE);
    assert_non_null(strstr(w.msg, "the store does not answer"));
    assert_int_equal(c.rc, AT_UNAVAILABLE);
    assert_true(at_sys_mono_ns(at_sys_real()) - begin < 2 * AT_STORE_ETCD_WRITE_NS);
    assert_string_equal(list(&r->f, "/a", NULL, 0, 0).text, "/a=1@2 "); /* what was known last */
    at_store_put(r->f.store, "/a", "3", 1, rev_of("/a", rev), on_write,
                 &r->last); /* answered by close */
}

static void giving_up_answers_all_that_waits_at_once(void **state)
{
    struct rig *r = *state;
    struct answer a[3] = {0};
    etcd_stop(&r->f.etcd);
    for (int i = 0; i < 3; i++) {
        at_store_put(r->f.store, i == 0 ? "/a" : "/b", "1", 1, -1, on_write, &a[i]);
    }
    turn_briefly(&r->f);
    at_store_give_up(r->f.store);
    for (int i = 0; i < 3; i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].rc, AT_UNAVAILABLE);
    }
    etcd_start(&r->f.etcd, r->f.dir);
    assert_int_equal(put(&r->f, "/a", "2", 0).rc, AT_OK);
}

static void what_cannot_be_followed_is_read_anew_and_watchers_are_told(void **state)
{
    struct rig *r = *state;
    struct log log = {0};
    put_ok(&r->f, "/a", "1");
    put_ok(&r->f, "/b", "1");
    watch(&r->f, "/", "0", rev_now(&r->f), &log);
    /* Two keys at one revision, not in the order of their places: /b is deleted, /a put. */
    assert_true(at_etcd_place("/b") > at_etcd_place("/a"));
    foreign(r, "/v3/kv/txn",
            "{\"success\":[{\"request_delete_range\":{\"key\":\"L2I=\"}},"
            "{\"request_put\":{\"key\":\"L2E=\",\"value\":\"Mg==\"}}]}");
    while (log.rc != AT_COMPACTED) {
        turn(&r->f);
    }
    assert_string_equal(list(&r->f, "/", "0", 0, 0).text, "/a=2@4 ");
    assert_int_equal(compact_rev_now(&r->f), 4);
    struct log next = {0};
    watch(&r->f, "/", "0", 4, &next);
    put_ok(&r->f, "/c", "1");
    assert_string_equal(next.text, "+/c=1@5[] ");
}

static void a_server_that_starts_later_can_resume_older_watches(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 50; i++) {
        put_ok(&r->f, "/a", "x");
    }
    struct fixture late = {.kind = "etcd", .loop = r->peer.loop};
    snprintf(late.path, sizeof late.path, "http://127.0.0.1:1,%s", r->f.etcd.url); /* one is dead */
    fixture_open(&late);
    struct log log = {0};
    watch(&late, "/", "0", 20, &log);
    while (log.n < 31) {
        turn(&late);
    }
    assert_int_equal(log.last_rev, 51);
    assert_int_equal(compact(&late, 30).rc, AT_OK);
    at_store_close(late.store);
    fixture_open(&late); /* now with less history */
    assert_true(compact_rev_now(&late) >= 30);
    assert_string_equal(list(&late, "/", "0", 0, 0).text, "/a=x@51 ");
    at_store_close(late.store);
}

static void many_large_values_come_in_pages(void **state)
{
    struct rig *r = *state;
    size_t len = AT_STORE_VALUE_BYTES_MAX;
    char *big = at_alloc(len);
    memset(big, 'v', len);
    struct answer a[12] = {0};
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char key[16];
        snprintf(key, sizeof key, "/%02zu", i);
        at_store_put(r->f.store, key, big, len, 0, on_write, &a[i]);
    }
    at_free(big);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        while (!a[i].done) {
            turn(&r->f);
        }
        assert_int_equal(a[i].rc, AT_OK);
    }
    at_store_close(r->peer.store);
    r->peer.store = NULL;
    assert_int_equal(compact(&r->f, rev_now(&r->f)).rc, AT_OK); /* not from the history */
    fixture_open(&r->peer);
    assert_int_equal(at_store_stats(r->peer.store).keys, AT_ARRAY_LEN(a));
    assert_int_equal(at_store_stats(r->peer.store).history_revs, 0);
}

static void wrong_addresses_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *why;
    } wrong[] = {
        {"etcd:", "not a URL"},
        {"etcd:localhost", "not a URL"},
        {"etcd:http://127.0.0.1:2379/path", "http(s)://host:port"},
        {"etcd:http://root:secret@127.0.0.1:2379", "user=NAME&password-file=FILE"},
        {"etcd:http://127.0.0.1:1,https://127.0.0.1:2", "either all"},
        {"etcd:https://127.0.0.1:2379", "?ca=FILE"},
        {"etcd:https://127.0.0.1:2379?ca=/nonexistent", "/nonexistent"},
        {"etcd:https://127.0.0.1:2379?ca=/dev/null&cert=x", "cert and key go together"},
        {"etcd:https://127.0.0.1:2379?ca=", "ca needs one value"},
        {"etcd:http://127.0.0.1:2379?ca=/dev/null", "are for https"},
        {"etcd:http://127.0.0.1:2379?user=x", "user and password-file go together"},
        {"etcd:http://127.0.0.1:2379?password=x", "none of ca, cert, key, user, password-file"},
        {"etcd:http://127.0.0.1:2379?user=x&password-file=/nonexistent", "/nonexistent"},
        {"etc", "unknown store"},
    };
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store = NULL;
    for (size_t i = 0; i < AT_ARRAY_LEN(wrong); i++) {
        struct at_err err = {0};
        enum at_rc rc = at_store_open(wrong[i].kind, NULL, loop, &store, &err);
        if (rc == AT_OK || rc == AT_UNAVAILABLE || strstr(err.msg, wrong[i].why) == NULL) {
            fail_msg("%s: %s", wrong[i].kind, err.msg);
        }
    }
    at_loop_free(loop);
}

/* A server that is stopped in the middle of a write must not have it arrive when another has taken
 * over: whatever it still sends carries the guard of its time. */
static void what_a_deposed_server_still_sends_is_refused(void **state)
{
    struct rig *r = *state;
    struct answer late[3] = {0};
    int64_t epoch = put_ok(&r->f, "/epoch", "first");
    for (size_t i = 0; i < AT_ARRAY_LEN(late); i++) { /* asked for, not sent: it is "paused" here */
        char key[8];
        snprintf(key, sizeof key, "/copy-%zu", i);
        at_store_write(r->f.store, &(struct at_store_write){.key = key,
                                                            .value = "x",
                                                            .len = 1,
                                                            .guard_key = "/epoch",
                                                            .guard_rev = rev_of("/epoch", epoch),
                                                            .fn = on_write,
                                                            .ctx = &late[i]});
    }
    assert_int_equal(put(&r->peer, "/epoch", "second", -1).rc, AT_OK);
    for (size_t i = 0; i < AT_ARRAY_LEN(late); i++) {
        while (!late[i].done) {
            turn(&r->f);
        }
        assert_int_equal(late[i].rc, AT_CONFLICT);
    }
    put_ok(&r->peer, "/copy-mine", "x");
    assert_int_equal(list(&r->peer, "/copy", "/copz", 0, 0).n, 1);
}

/* The answer is lost, and the guard changes before the second attempt: it was written all the same.
 */
static void a_lost_answer_to_a_guarded_write_is_still_found(void **state)
{
    struct rig *r = *state;
    struct answer a = {0};
    int64_t epoch = put_ok(&r->f, "/epoch", "first");
    atomic_store(&r->proxy.to_drop, 1);
    at_store_write(r->f.store, &(struct at_store_write){.key = "/a",
                                                        .value = "mine",
                                                        .len = 4,
                                                        .guard_key = "/epoch",
                                                        .guard_rev = rev_of("/epoch", epoch),
                                                        .fn = on_write,
                                                        .ctx = &a});
    while (atomic_load(&r->proxy.dropped) == 0) {
        turn_briefly(&r->f);
    }
    assert_false(a.done);
    put_ok(&r->peer, "/epoch", "second");
    while (!a.done) {
        turn(&r->f);
    }
    assert_int_equal(a.rc, AT_OK);
}

static void a_key_ends_when_all_servers_are_gone(void **state)
{
    struct rig *r = *state;
    struct answer a = {0};
    at_store_write(r->f.store,
                   &(struct at_store_write){
                       .key = "/a", .value = "x", .len = 1, .ttl_s = 1, .fn = on_write, .ctx = &a});
    while (!a.done) {
        turn(&r->f);
    }
    at_store_close(r->f.store);
    at_store_close(r->peer.store);
    r->f.store = r->peer.store = NULL;
    int64_t end = at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_S;
    for (size_t n = 1; n != 0;) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        fixture_open(&r->f);
        n = list(&r->f, "/a", NULL, 0, 0).n;
        at_store_close(r->f.store);
        r->f.store = NULL;
    }
    fixture_open(&r->f);
    assert_int_equal(rev_now(&r->f), 3); /* its end is a revision like any other */
}

/* etcd that is full refuses writes and says so; reads go on; room makes it whole again. */
static void a_full_etcd_is_named_and_recovers(void **state)
{
    struct rig *r = *state;
    etcd_stop(&r->f.etcd);
    r->f.etcd.quota_bytes = "16777216";
    etcd_start(&r->f.etcd, r->f.dir);
    put_ok(&r->f, "/small", "kept");
    size_t len = AT_STORE_VALUE_BYTES_MAX / 2;
    char *big = at_alloc(len);
    struct answer a = {0};
    int64_t newest = 0;
    for (int i = 0; i < 80 && a.rc == AT_OK; i++) {
        newest = a.rev;
        a = (struct answer){0};
        at_store_put(r->f.store, "/big", big, len, -1, on_write, &a);
        while (!a.done) {
            turn(&r->f);
        }
    }
    at_free(big);
    assert_int_equal(a.rc, AT_IO);
    assert_non_null(strstr(a.msg, "etcd is full, nothing was stored"));
    assert_non_null(strstr(a.msg, "alarm disarm"));
    catch_up(&r->f);
    assert_int_equal(rev_now(&r->f), newest);
    assert_string_equal(list(&r->f, "/small", NULL, 0, 0).text, "/small=kept@2 ");
    /* Its keeper makes room. */
    assert_int_equal(compact(&r->f, newest).rc, AT_OK);
    foreign(r, "/v3/maintenance/defragment", "{}");
    char text[2048];
    char body[200];
    foreign_text(r, "/v3/maintenance/alarm", "{}", text);
    const char *member = strstr(text, "\"memberID\":\"");
    assert_non_null(member);
    snprintf(body, sizeof body, "{\"action\":\"DEACTIVATE\",\"alarm\":\"NOSPACE\",%.*s}",
             (int)strcspn(member, ",}"), member);
    foreign(r, "/v3/maintenance/alarm", body);
    put_ok(&r->f, "/small", "and after");
    catch_up(&r->peer);
    assert_int_equal(rev_now(&r->peer), newest + 1);
}

/* A key that is put again and again keeps one lease. */
static void a_key_that_is_renewed_keeps_its_lease(void **state)
{
    struct rig *r = *state;
    uint64_t lease = 0;
    for (int i = 0; i < 5; i++) {
        struct answer a = {0};
        at_store_write(r->f.store, &(struct at_store_write){.key = "/a",
                                                            .value = "x",
                                                            .len = 1,
                                                            .expect = -1,
                                                            .ttl_s = 50,
                                                            .fn = on_write,
                                                            .ctx = &a});
        while (!a.done) {
            turn(&r->f);
        }
        assert_int_equal(a.rc, AT_OK);
        uint64_t now = at_store_lease_id(r->f.store, "/a");
        assert_true(now != 0 && (lease == 0 || now == lease));
        assert_int_equal(at_etcd_lease_ttl(now), 50);
        lease = now;
    }
}

int main(void)
{
    prefer_memory_for_files();
    if (!etcd_is_installed()) {
        fprintf(stderr, "skipped: etcd is not installed (package etcd-server)\n");
        return 77;
    }
#define EACH(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(what_one_server_was_told_another_reads_after_catching_up),
        EACH(two_servers_that_count_lose_no_step),
        EACH(a_write_whose_answer_is_lost_happens_once_and_is_acknowledged),
        EACH(a_lost_answer_is_still_ours_when_another_server_writes_after_it),
        EACH(a_write_that_lost_a_race_is_refused),
        EACH(an_etcd_that_comes_back_is_followed_without_a_gap),
        EACH(without_etcd_writes_and_fresh_reads_end_with_an_error_in_time),
        EACH(giving_up_answers_all_that_waits_at_once),
        EACH(what_cannot_be_followed_is_read_anew_and_watchers_are_told),
        EACH(a_server_that_starts_later_can_resume_older_watches),
        EACH(many_large_values_come_in_pages),
        EACH(what_a_deposed_server_still_sends_is_refused),
        EACH(a_lost_answer_to_a_guarded_write_is_still_found),
        EACH(a_key_ends_when_all_servers_are_gone),
        EACH(a_key_that_is_renewed_keeps_its_lease),
        EACH(a_full_etcd_is_named_and_recovers),
        cmocka_unit_test(wrong_addresses_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
