/* Writes to etcd that share a transaction: each has its own revision and its own outcome, and all
 * servers see the same. */
#include "store/etcd_rig_test.h"

#include "store/seal.h"

#define WRITES 200

/* What a watch showed, with the store's own revisions. */
struct seen {
    struct {
        int64_t rev;
        char text[48];
    } events[4 * WRITES];
    size_t n;
    enum at_rc rc;
    at_store_watch_id id;
};

static void on_seen(void *ctx, enum at_rc rc, const struct at_store_event *events, size_t n)
{
    struct seen *s = ctx;
    s->rc = rc;
    for (size_t i = 0; i < n; i++) {
        assert_true(s->n < AT_ARRAY_LEN(s->events));
        s->events[s->n].rev = events[i].rev;
        snprintf(s->events[s->n].text, sizeof s->events[0].text, "%s%s=%s",
                 events[i].deleted ? "-" : "", events[i].cur.key, events[i].cur.value);
        s->n++;
    }
}

static struct seen *see(struct fixture *f, int64_t after_rev, enum at_rc want)
{
    struct seen *s = AT_NEW(struct seen);
    struct at_err err = {0};
    assert_int_equal(at_store_watch(f->store, "/", "0", after_rev, on_seen, s, &s->id, &err), want);
    return s;
}

static void look_away(struct fixture *f, struct seen *s)
{
    at_store_unwatch(f->store, s->id);
    at_free(s);
}

/* The rest of what all saw, from the event of this number on. */
static void assert_rest(struct fixture *f, const struct seen *all, size_t from, int64_t after_rev)
{
    struct seen *s = see(f, after_rev, AT_OK);
    while (s->n < all->n - from) {
        turn(f);
    }
    turn_briefly(f);
    assert_int_equal(s->n, all->n - from);
    for (size_t i = 0; i < s->n; i++) {
        assert_int_equal(s->events[i].rev, all->events[from + i].rev);
        assert_string_equal(s->events[i].text, all->events[from + i].text);
    }
    look_away(f, s);
}

static void await_all(struct rig *r, const struct answer *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        while (!a[i].done) {
            turn_briefly(&r->f);
            turn_briefly(&r->peer);
        }
    }
}

static void many_puts(struct fixture *f, const char *prefix, struct answer *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s%03zu", prefix, i);
        at_store_put(f->store, key, "v", 1, 0, on_write, &a[i]);
    }
}

static void writes_that_wait_together_share_transactions_but_no_revision(void **state)
{
    struct rig *r = *state;
    static struct answer a[WRITES];
    memset(a, 0, sizeof a);
    int64_t begin = at_store_rev(r->f.store);
    uint64_t before = at_store_stats(r->f.store).batches;
    struct seen *all = see(&r->f, begin, AT_OK);
    many_puts(&r->f, "/k", a, WRITES);
    await_all(r, a, WRITES);
    uint64_t batches = at_store_stats(r->f.store).batches - before;
    assert_true(batches < WRITES / 10);
    assert_int_equal(rev_now(&r->f) - nth(begin), (int64_t)batches);
    assert_int_equal(all->n, WRITES);
    for (size_t i = 1; i < all->n; i++) {
        assert_true(all->events[i].rev > all->events[i - 1].rev);
    }
    for (size_t i = 0; i < WRITES; i++) {
        assert_int_equal(a[i].rc, AT_OK);
        assert_int_equal(a[i].mod_rev, a[i].rev);
    }
    look_away(&r->f, all);
}

static void one_that_is_refused_fails_none_of_the_others(void **state)
{
    struct rig *r = *state;
    struct answer a[40] = {0};
    int64_t there = put_ok(&r->f, "/005", "old");
    int64_t epoch = put_ok(&r->f, "/epoch", "a");
    put_ok(&r->peer, "/epoch", "b"); /* our mirror has not been turned since */
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char key[16];
        snprintf(key, sizeof key, "/%03zu", i);
        at_store_write(r->f.store, &(struct at_store_write){.key = key,
                                                            .value = "new",
                                                            .len = 3,
                                                            .guard_key = i == 7 ? "/epoch" : NULL,
                                                            .guard_rev = rev_of("/epoch", epoch),
                                                            .fn = on_write,
                                                            .ctx = &a[i]});
    }
    struct answer gone[2] = {0};
    at_store_delete(r->f.store, "/none", -1, on_write, &gone[0]);
    at_store_delete(r->f.store, "/none2", rev_of("/none2", there), on_write, &gone[1]);
    await_all(r, a, AT_ARRAY_LEN(a));
    await_all(r, gone, 2);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_int_equal(a[i].rc, i == 5 ? AT_EXISTS : i == 7 ? AT_CONFLICT : AT_OK);
    }
    assert_string_equal(a[5].value, "old");
    assert_int_equal(a[5].mod_rev, there);
    assert_false(a[7].has_current);
    assert_int_equal(gone[0].rc, AT_NOT_FOUND);
    assert_int_equal(gone[1].rc, AT_NOT_FOUND);
    catch_up(&r->peer);
    assert_int_equal(list(&r->peer, "/0", "/1", 0, 0).n, AT_ARRAY_LEN(a) - 1);
}

static void writes_to_one_key_keep_their_order_among_those_of_others(void **state)
{
    struct rig *r = *state;
    struct answer a[3 * 30] = {0};
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i += 3) {
        char key[16];
        snprintf(key, sizeof key, "/other-%02zu", i);
        at_store_put(r->f.store, "/same", i % 2 == 0 ? "even" : "odd", 3 + (i % 2 == 0), -1,
                     on_write, &a[i]);
        at_store_put(r->f.store, key, "v", 1, 0, on_write, &a[i + 1]);
        at_store_put(r->f.store, key, "w", 1, -1, on_write, &a[i + 2]);
    }
    await_all(r, a, AT_ARRAY_LEN(a));
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i += 3) {
        assert_int_equal(a[i].rc, AT_OK);
        assert_true(i == 0 || a[i].rev > a[i - 3].rev);
        assert_int_equal(a[i + 1].rc, AT_OK);
        assert_int_equal(a[i + 2].create_rev, a[i + 1].rev);
        assert_true(a[i + 2].rev > a[i + 1].rev);
    }
    assert_string_equal(put(&r->f, "/same", "x", 0).value, "odd");
}

/* Both write, and delete, at the same time; what they saw is compared with what a third one sees
 * that starts afterwards. */
static void all_servers_show_the_same_changes_in_the_same_order(void **state)
{
    struct rig *r = *state;
    static struct answer mine[WRITES], theirs[WRITES], gone[WRITES];
    memset(mine, 0, sizeof mine);
    memset(theirs, 0, sizeof theirs);
    memset(gone, 0, sizeof gone);
    int64_t begin = at_store_rev(r->f.store);
    struct seen *here = see(&r->f, begin, AT_OK);
    struct seen *there = see(&r->peer, begin, AT_OK);
    many_puts(&r->f, "/f", mine, WRITES);
    many_puts(&r->peer, "/p", theirs, WRITES);
    await_all(r, mine, WRITES);
    for (size_t i = 0; i < WRITES; i++) {
        char key[32];
        snprintf(key, sizeof key, "/f%03zu", i);
        at_store_delete(r->peer.store, key, -1, on_write, &gone[i]);
    }
    await_all(r, theirs, WRITES);
    await_all(r, gone, WRITES);
    catch_up(&r->f);
    catch_up(&r->peer);
    assert_int_equal(here->n, 3 * WRITES);
    assert_int_equal(there->n, 3 * WRITES);
    assert_memory_equal(here->events, there->events, sizeof here->events[0] * here->n);
    assert_int_equal(at_store_rev(r->f.store), at_store_rev(r->peer.store));
    struct fixture late = {.kind = "etcd", .loop = r->peer.loop};
    snprintf(late.path, sizeof late.path, "%s", r->f.etcd.url);
    fixture_open(&late);
    assert_int_equal(at_store_rev(late.store), at_store_rev(r->peer.store));
    assert_rest(&late, here, 0, begin);
    assert_string_equal(list(&late, "/p", "/q", 0, 0).text, list(&r->f, "/p", "/q", 0, 0).text);
    at_store_close(late.store);
    look_away(&r->f, here);
    look_away(&r->peer, there);
}

static void a_watch_resumes_within_a_group_without_gap_or_repetition(void **state)
{
    struct rig *r = *state;
    static struct answer a[60];
    memset(a, 0, sizeof a);
    int64_t begin = at_store_rev(r->f.store);
    struct seen *all = see(&r->f, begin, AT_OK);
    many_puts(&r->f, "/k", a, AT_ARRAY_LEN(a));
    await_all(r, a, AT_ARRAY_LEN(a));
    catch_up(&r->peer);
    for (size_t i = 0; i < all->n; i += 7) { /* there, where only all of it was told so far */
        assert_rest(&r->peer, all, i + 1, all->events[i].rev);
    }
    /* What a range at that revision shows ends there, too. */
    struct listing l = {0};
    at_store_range(r->peer.store, "/", "0", 0, all->events[9].rev, on_range, &l);
    assert_int_equal(l.n, 10);
    look_away(&r->f, all);
}

static void compaction_may_end_within_a_group(void **state)
{
    struct rig *r = *state;
    static struct answer a[30];
    memset(a, 0, sizeof a);
    struct seen *all = see(&r->f, at_store_rev(r->f.store), AT_OK);
    put_ok(&r->f, "/early", "v");
    many_puts(&r->f, "/k", a, AT_ARRAY_LEN(a));
    await_all(r, a, AT_ARRAY_LEN(a));
    struct answer done = {0};
    int64_t half = all->events[16].rev;
    at_store_compact(r->f.store, half, on_write, &done);
    await_all(r, &done, 1);
    assert_int_equal(done.rc, AT_OK);
    assert_int_equal(at_store_compact_rev(r->f.store), half);
    at_free(see(&r->f, half - 1, AT_COMPACTED));
    assert_rest(&r->f, all, 17, half);
    /* etcd kept the whole group; a server that starts now shows it all, and nothing before. */
    struct fixture late = {.kind = "etcd", .loop = r->peer.loop};
    snprintf(late.path, sizeof late.path, "%s", r->f.etcd.url);
    fixture_open(&late);
    assert_true(at_store_compact_rev(late.store) <= half);
    at_free(see(&late, all->events[0].rev - 1, AT_COMPACTED));
    assert_rest(&late, all, 17, half);
    assert_int_equal(at_store_stats(late.store).keys, 1 + AT_ARRAY_LEN(a));
    at_store_close(late.store);
    look_away(&r->f, all);
}

static void a_group_whose_answer_is_lost_happens_once(void **state)
{
    struct rig *r = *state;
    static struct answer a[50];
    memset(a, 0, sizeof a);
    struct seen *all = see(&r->f, at_store_rev(r->f.store), AT_OK);
    atomic_store(&r->proxy.to_drop, 1);
    many_puts(&r->f, "/k", a, AT_ARRAY_LEN(a));
    await_all(r, a, AT_ARRAY_LEN(a));
    assert_int_equal(atomic_load(&r->proxy.dropped), 1);
    assert_int_equal(all->n, AT_ARRAY_LEN(a));
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_int_equal(a[i].rc, AT_OK);
        assert_true(a[i].rev <= nth(all->events[0].rev) + 1);
    }
    look_away(&r->f, all);
}

/* Its answer comes after all who waited for it are gone. */
static void a_group_under_way_may_be_given_up(void **state)
{
    struct rig *r = *state;
    struct answer a[20] = {0};
    kill(r->f.etcd.pid, SIGSTOP);
    many_puts(&r->f, "/k", a, AT_ARRAY_LEN(a));
    turn_briefly(&r->f);
    turn_briefly(&r->f);
    at_store_give_up(r->f.store);
    kill(r->f.etcd.pid, SIGCONT);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].rc, AT_UNAVAILABLE);
    }
    put_ok(&r->f, "/after", "v");
}

/* Its keeper may have told etcd to take only small transactions. */
static void an_etcd_that_takes_no_groups_gets_single_writes(void **state)
{
    struct rig *r = *state;
    struct answer a[30] = {0};
    etcd_stop(&r->f.etcd);
    r->f.etcd.max_txn_ops = "4";
    etcd_start(&r->f.etcd, r->f.dir);
    many_puts(&r->f, "/k", a, AT_ARRAY_LEN(a));
    await_all(r, a, AT_ARRAY_LEN(a));
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_int_equal(a[i].rc, AT_OK);
    }
    assert_int_equal(list(&r->f, "/k", "/l", 0, 0).n, AT_ARRAY_LEN(a));
}

#define SCHEME_KEY_BASE64 "L2F0b2xsLWludGVybmFsL3JldmlzaW9uLXNjaGVtZQA="

static void peer_reopen(struct rig *r)
{
    at_store_close(r->peer.store);
    r->peer.store = NULL;
    fixture_open(&r->peer);
}

/* One change a transaction, etcd's revisions, and an offset that an import left. */
static void what_an_older_build_stored_goes_on_with_greater_revisions(void **state)
{
    struct rig *r = *state;
    foreign(r, "/v3/kv/deleterange", "{\"key\":\"" SCHEME_KEY_BASE64 "\"}");
    foreign(r, "/v3/kv/put",
            "{\"key\":\"L2F0b2xsLWludGVybmFsL3JldmlzaW9uLW9mZnNldA==\",\"value\":\"NTAwMA==\"}");
    foreign(r, "/v3/kv/compaction", "{\"revision\":\"4\"}");
    for (int i = 0; i < 3; i++) {
        foreign(r, "/v3/kv/put", "{\"key\":\"L2E=\",\"value\":\"b2xk\"}");
    }
    peer_reopen(r);
    int64_t old_newest = 5000 + 7; /* as the older build would have counted */
    assert_true(at_store_rev(r->peer.store) > old_newest);
    struct listing l = list(&r->peer, "/a", NULL, 0, 0);
    assert_int_equal(strncmp(l.text, "/a=old@", 7), 0);
    at_free(see(&r->peer, old_newest, AT_COMPACTED)); /* its clients list again */
    struct answer a = {0};
    int64_t rev = 7 * AT_ETCD_PLACES + at_etcd_place("/a") + 5000;
    at_store_put(r->peer.store, "/a", "new", 3, rev, on_write, &a);
    await_all(r, &a, 1);
    assert_int_equal(a.rc, AT_OK);
    /* From the first write on, the older build refuses this etcd as one with keys of others. */
    char text[2048];
    foreign_text(r, "/v3/kv/range", "{\"key\":\"" SCHEME_KEY_BASE64 "\"}", text);
    assert_non_null(strstr(text, "\"value\":\"Mg==\""));
}

static void what_a_newer_build_stores_is_left_alone(void **state)
{
    struct rig *r = *state;
    put_ok(&r->f, "/a", "1");
    foreign(r, "/v3/kv/put", "{\"key\":\"" SCHEME_KEY_BASE64 "\",\"value\":\"Mw==\"}");
    struct answer a = {0};
    at_store_put(r->f.store, "/a", "2", 1, -1, on_write, &a); /* it notices, and stops */
    await_all(r, &a, 1);
    assert_int_equal(a.rc, AT_UNAVAILABLE);
    at_store_close(r->peer.store);
    r->peer.store = NULL;
    struct at_err err = {0};
    assert_int_equal(at_store_open("etcd", r->f.etcd.url, r->peer.loop, &r->peer.store, &err),
                     AT_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "written by a newer Atoll"));
    r->peer.store = NULL;
}

static void places_are_what_they_always_were(void **state)
{
    (void)state; /* revisions that clients and backups hold depend on them */
    assert_int_equal(at_etcd_place(""),
                     (2166136261u ^ 2166136261u >> 12 ^ 2166136261u >> 24) % 4096);
    assert_int_equal(at_etcd_place("/a"), 1404);
    assert_int_equal(at_etcd_place("/atoll/nodes/edge-7"), 1886);
}

static bool seal_wants(void *ctx, const char *key)
{
    (void)ctx;
    return strncmp(key, "/sealed", 7) == 0;
}

static enum at_rc seal_fails(void *ctx, const char *key, const void *value, size_t len,
                             struct at_buf *out, struct at_err *err)
{
    (void)ctx, (void)key, (void)value, (void)len, (void)out;
    return at_err_set(err, AT_INTERNAL, "no key");
}

static void a_value_that_cannot_be_sealed_fails_alone(void **state)
{
    struct rig *r = *state;
    static const struct at_store_seal SEAL = {
        .wants = seal_wants, .seal = seal_fails, .open = seal_fails};
    struct at_err err = {0};
    struct answer a[9] = {0};
    at_store_close(r->peer.store);
    assert_int_equal(
        at_store_open_sealed("etcd", r->f.etcd.url, r->peer.loop, &SEAL, &r->peer.store, &err),
        AT_OK);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char key[32];
        snprintf(key, sizeof key, i == 4 ? "/sealed%zu" : "/plain%zu", i);
        at_store_put(r->peer.store, key, "v", 1, 0, on_write, &a[i]);
    }
    await_all(r, a, AT_ARRAY_LEN(a));
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_int_equal(a[i].rc, i == 4 ? AT_INTERNAL : AT_OK);
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
        EACH(writes_that_wait_together_share_transactions_but_no_revision),
        EACH(one_that_is_refused_fails_none_of_the_others),
        EACH(writes_to_one_key_keep_their_order_among_those_of_others),
        EACH(all_servers_show_the_same_changes_in_the_same_order),
        EACH(a_watch_resumes_within_a_group_without_gap_or_repetition),
        EACH(compaction_may_end_within_a_group),
        EACH(a_group_whose_answer_is_lost_happens_once),
        EACH(a_group_under_way_may_be_given_up),
        EACH(a_value_that_cannot_be_sealed_fails_alone),
        EACH(an_etcd_that_takes_no_groups_gets_single_writes),
        EACH(what_an_older_build_stored_goes_on_with_greater_revisions),
        EACH(what_a_newer_build_stores_is_left_alone),
        cmocka_unit_test(places_are_what_they_always_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
