/* What every back end must do alike. Each test runs once per back end. */
#include "store/store_test.h"

#ifndef TEST_KINDS
#define TEST_KINDS "memory", "sqlite"
#endif
static const char *const KINDS[] = {TEST_KINDS};

/* With etcd those to different keys may change places, and their revisions leave some out. */
static bool writes_keep_their_order(const struct fixture *f)
{
    return strcmp(f->kind, "etcd") != 0;
}

static int set_up(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    fixture_init(f, *state);
    fixture_open(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_done(*state);
    at_free(*state);
    return 0;
}

static void a_put_gets_the_next_revision(void **state)
{
    struct fixture *f = *state;
    int64_t before = rev_now(f);
    assert_int_equal(before, 1);
    struct answer a = put(f, "/a", "one", 0);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(a.rev, before + 1);
    assert_int_equal(a.mod_rev, a.rev);
    assert_int_equal(a.create_rev, a.rev);
    assert_string_equal(a.value, "one");
    struct answer b = put(f, "/a", "two", a.rev);
    assert_int_equal(b.rev, a.rev + 1);
    assert_int_equal(b.create_rev, a.rev);
    assert_int_equal(rev_now(f), b.rev);
}

static void expectations_are_compared_and_the_present_value_shown(void **state)
{
    struct fixture *f = *state;
    struct answer missing = put(f, "/a", "x", 7);
    assert_int_equal(missing.rc, AT_NOT_FOUND);
    assert_false(missing.has_current);
    int64_t rev = put_ok(f, "/a", "one");
    struct answer exists = put(f, "/a", "two", 0);
    assert_int_equal(exists.rc, AT_EXISTS);
    assert_string_equal(exists.value, "one");
    assert_int_equal(exists.mod_rev, rev);
    assert_int_equal(exists.rev, 0);
    struct answer conflict = put(f, "/a", "two", rev + 1);
    assert_int_equal(conflict.rc, AT_CONFLICT);
    assert_string_equal(conflict.value, "one");
    struct answer stale = del(f, "/a", rev - 1);
    assert_int_equal(stale.rc, AT_CONFLICT);
    assert_int_equal(del(f, "/b", -1).rc, AT_NOT_FOUND);
    assert_int_equal(rev_now(f), rev);
    assert_int_equal(del(f, "/a", rev).rc, AT_OK);
    assert_int_equal(del(f, "/a", -1).rc, AT_NOT_FOUND);
    assert_int_equal(rev_now(f), rev + 1);
}

static void writes_to_one_key_in_one_batch_see_each_other(void **state)
{
    struct fixture *f = *state;
    struct answer a[6] = {0};
    int order = 0;
    for (size_t i = 0; i < 6; i++) {
        a[i].order = &order;
    }
    int64_t rev = rev_now(f);
    at_store_put(f->store, "/a", "0", 1, 0, on_write, &a[0]);
    at_store_put(f->store, "/a", "1", 1, 0, on_write, &a[1]); /* exists: 0 */
    at_store_put(f->store, "/a", "2", 1, rev_of("/a", rev + 1), on_write,
                 &a[2]); /* on 0's revision */
    at_store_put(f->store, "/a", "3", 1, rev_of("/a", rev + 1), on_write, &a[3]); /* conflict: 2 */
    at_store_delete(f->store, "/a", rev_of("/a", rev + 2), on_write, &a[4]);
    at_store_put(f->store, "/a", "5", 1, 0, on_write, &a[5]);
    while (!a[5].done) {
        turn(f);
    }
    const enum at_rc want[] = {AT_OK, AT_EXISTS, AT_OK, AT_CONFLICT, AT_OK, AT_OK};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(a[i].rc, want[i]);
        assert_int_equal(a[i].number, i + 1);
    }
    assert_string_equal(a[1].value, "0");
    assert_string_equal(a[3].value, "2");
    assert_int_equal(a[5].rev, rev + 4);
    assert_int_equal(a[5].create_rev, rev + 4);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=5@5 ");
    struct log log = {0};
    watch(f, "/a", NULL, rev, &log);
    while (log.n < 4) {
        turn(f);
    }
    assert_string_equal(log.text, "+/a=0@2[] ~/a=2@3[0] -/a=@4[2] +/a=5@5[] ");
}

static void bad_input_is_refused_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char long_key[AT_STORE_KEY_BYTES_MAX + 2];
    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = '\0';
    assert_int_equal(put(f, long_key, "x", -1).rc, AT_TOO_LARGE);
    assert_int_equal(put(f, "", "x", -1).rc, AT_INVALID);
    char *big = at_alloc(AT_STORE_VALUE_BYTES_MAX + 1);
    struct answer a = {0};
    at_store_put(f->store, "/big", big, AT_STORE_VALUE_BYTES_MAX + 1, -1, on_write, &a);
    assert_int_equal(a.rc, AT_TOO_LARGE);
    assert_string_equal(a.msg, "the value is too large");
    a = (struct answer){0};
    at_store_put(f->store, "/big", big, AT_STORE_VALUE_BYTES_MAX, -1, on_write, &a);
    while (!a.done) {
        turn(f);
    }
    assert_int_equal(a.rc, AT_OK);
    at_free(big);
    long_key[AT_STORE_KEY_BYTES_MAX] = '\0';
    assert_int_equal(put(f, long_key, "", -1).rc, AT_OK);
    assert_int_equal(rev_now(f), 3);
}

static void a_range_is_ordered_bytewise_and_limited(void **state)
{
    struct fixture *f = *state;
    const char *const keys[] = {"/b/2", "/a/1", "/b/10", "/c", "/b/\xc3\xa4", "/b"};
    for (size_t i = 0; i < AT_ARRAY_LEN(keys); i++) {
        put_ok(f, keys[i], "v");
    }
    char end[16];
    at_store_prefix_end("/b/", end, sizeof end);
    assert_string_equal(end, "/b0");
    struct listing all = list(f, "/b/", end, 0, 0);
    assert_string_equal(all.text, "/b/10=v@4 /b/2=v@2 /b/\xc3\xa4=v@6 ");
    assert_false(all.more);
    assert_int_equal(all.rev, rev_now(f));
    struct listing two = list(f, "/b/", end, 2, 0);
    assert_string_equal(two.text, "/b/10=v@4 /b/2=v@2 ");
    assert_true(two.more);
    assert_false(list(f, "/b/", end, 3, 0).more);
    assert_string_equal(list(f, "/b", NULL, 0, 0).text, "/b=v@7 ");
    assert_int_equal(list(f, "/b/3", NULL, 0, 0).n, 0);
}

static void a_range_at_an_old_revision_shows_what_was(void **state)
{
    struct fixture *f = *state;
    put_ok(f, "/a", "1"); /* 2 */
    put_ok(f, "/b", "1"); /* 3 */
    put_ok(f, "/a", "2"); /* 4 */
    del(f, "/b", -1);     /* 5 */
    put_ok(f, "/c", "1"); /* 6 */
    put_ok(f, "/b", "2"); /* 7 */
    const char *const want[] = {
        "",        "/a=1@2 ",        "/a=1@2 /b=1@3 ",       "/a=2@4 /b=1@3 ",
        "/a=2@4 ", "/a=2@4 /c=1@6 ", "/a=2@4 /b=2@7 /c=1@6 "};
    for (int64_t rev = 1; rev <= 7; rev++) {
        struct listing l = list(f, "/", "0", 0, rev);
        assert_int_equal(l.rc, AT_OK);
        assert_int_equal(l.rev, rev);
        assert_string_equal(l.text, want[rev - 1]);
    }
    assert_string_equal(list(f, "/b", NULL, 0, 4).text, "/b=1@3 ");
    struct listing first = list(f, "/", "0", 1, 4);
    assert_string_equal(first.text, "/a=2@4 ");
    assert_true(first.more);
    assert_string_equal(list(f, "/a\x01", "0", 1, 4).text, "/b=1@3 ");
    assert_int_equal(list(f, "/", "0", 0, 8).rc, AT_TIMEOUT);
}

static void a_watch_resumes_after_any_revision_and_misses_nothing(void **state)
{
    struct fixture *f = *state;
    put_ok(f, "/a/1", "x");
    put_ok(f, "/b/1", "x");
    struct log early = {0};
    struct log late = {0};
    watch(f, "/a/", "/a0", 1, &early);
    assert_int_equal(early.n, 0); /* never before watch returns */
    watch(f, "/a/", "/a0", rev_now(f), &late);
    put_ok(f, "/a/2", "y");
    del(f, "/a/1", -1);
    while (early.n < 3 || late.n < 2) {
        turn(f);
    }
    assert_string_equal(early.text, "+/a/1=x@2[] +/a/2=y@4[] -/a/1=@5[x] ");
    assert_string_equal(late.text, "+/a/2=y@4[] -/a/1=@5[x] ");
}

static void a_watch_from_the_future_is_refused(void **state)
{
    struct fixture *f = *state;
    struct log log = {0};
    at_store_watch_id id;
    struct at_err err = {0};
    assert_int_equal(at_store_watch(f->store, "/", "0", rev_after(2), on_events, &log, &id, &err),
                     AT_TIMEOUT);
}

struct seen_first {
    struct log log;
    struct answer answer;
    size_t events_at_answer;
};

static void note_events(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                        const struct at_err *err)
{
    struct seen_first *s = ctx;
    s->events_at_answer = s->log.n;
    on_write(&s->answer, rc, rev, current, err);
}

static void watchers_see_a_write_before_its_writer_is_answered(void **state)
{
    struct fixture *f = *state;
    struct seen_first s = {0};
    watch(f, "/a", NULL, 1, &s.log);
    at_store_put(f->store, "/a", "v", 1, 0, note_events, &s);
    while (!s.answer.done) {
        turn(f);
    }
    assert_int_equal(s.events_at_answer, 1);
}

static void an_unwatched_watcher_hears_nothing_more(void **state)
{
    struct fixture *f = *state;
    struct log one = {0};
    struct log two = {0};
    at_store_watch_id first = watch(f, "/", "0", 1, &one);
    put_ok(f, "/a", "1");
    at_store_unwatch(f->store, first);
    watch(f, "/", "0", rev_now(f), &two); /* takes the slot */
    at_store_unwatch(f->store, first);    /* stale: no effect */
    put_ok(f, "/a", "2");
    assert_int_equal(one.n, 1);
    assert_int_equal(two.n, 1);
}

struct nested {
    struct fixture *f;
    at_store_watch_id self, other;
    struct log added;
    struct answer written;
    int calls;
};

static void change_everything(void *ctx, enum at_rc rc, const struct at_store_event *events,
                              size_t n)
{
    struct nested *s = ctx;
    assert_int_equal(rc, AT_OK);
    assert_int_equal(n, 1);
    (void)events;
    s->calls++;
    at_store_unwatch(s->f->store, s->self);
    at_store_unwatch(s->f->store, s->other);
    watch(s->f, "/", "0", 1, &s->added);
    at_store_put(s->f->store, "/b", "x", 1, 0, on_write, &s->written);
    assert_string_equal(list(s->f, "/", "0", 0, 0).text, "/a=1@2 ");
}

static void a_watcher_may_watch_unwatch_and_write(void **state)
{
    struct nested s = {.f = *state};
    struct at_err err;
    struct log never = {0};
    assert_int_equal(
        at_store_watch(s.f->store, "/", "0", rev_after(1), change_everything, &s, &s.self, &err),
        AT_OK);
    s.other = watch(s.f, "/", "0", 1, &never);
    put_ok(s.f, "/a", "1");
    while (!s.written.done) {
        turn(s.f);
    }
    assert_int_equal(s.calls, 1);
    assert_int_equal(never.n, 0);
    assert_string_equal(s.added.text, "+/a=1@2[] +/b=x@3[] ");
}

static void compaction_forgets_history_but_no_current_value(void **state)
{
    struct fixture *f = *state;
    put_ok(f, "/a", "1"); /* 2 */
    put_ok(f, "/b", "1"); /* 3 */
    put_ok(f, "/a", "2"); /* 4 */
    del(f, "/b", -1);     /* 5 */
    put_ok(f, "/c", "1"); /* 6 */
    struct log log = {0};
    watch(f, "/", "0", 1, &log); /* due before the compaction: it must get everything */
    assert_int_equal(compact(f, 99).rc, AT_TIMEOUT);
    struct answer a = compact(f, 5);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(log.n, 5);
    assert_int_equal(compact_rev_now(f), 5);
    assert_int_equal(list(f, "/", "0", 0, 4).rc, AT_COMPACTED);
    assert_string_equal(list(f, "/", "0", 0, 5).text, "/a=2@4 ");
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=2@4 /c=1@6 ");
    at_store_watch_id id;
    struct at_err err = {0};
    assert_int_equal(at_store_watch(f->store, "/", "0", rev_after(4), on_events, &log, &id, &err),
                     AT_COMPACTED);
    struct log rest = {0};
    watch(f, "/", "0", 5, &rest);
    while (rest.n < 1) {
        turn(f);
    }
    assert_string_equal(rest.text, "+/c=1@6[] ");
    assert_int_equal(compact(f, 2).rc, AT_OK); /* long done */
    assert_int_equal(put(f, "/a", "3", 4).rc, AT_OK);
}

static void history_is_compacted_by_itself(void **state)
{
    struct fixture *f = *state;
    const size_t most = 1000;
    const int total = (int)most + 3 * AT_STORE_COMPACT_STEP_MIN;
    assert_int_equal(f->store->bounds.history_revs, AT_STORE_HISTORY_REVS_MAX);
    f->store->bounds.history_revs = most;
    struct answer *answers = at_alloc((size_t)total * sizeof *answers);
    for (int i = 0; i < total; i++) {
        char key[16];
        snprintf(key, sizeof key, "/%03d", i % 100);
        at_store_put(f->store, key, "v", 1, -1, on_write, &answers[i]);
    }
    struct answer last = {0};
    at_store_sync(f->store, on_write, &last);
    while (!last.done) {
        turn(f);
    }
    put_ok(f, "/000", "w");
    struct at_store_stats stats = at_store_stats(f->store);
    assert_true(stats.history_revs <= most + AT_STORE_COMPACT_STEP_MIN + 1);
    assert_true(stats.history_revs >= most);
    assert_true(stats.batches < 100);
    assert_int_equal(stats.keys, 100);
    assert_true(compact_rev_now(f) > 1);
    assert_true(rev_now(f) == total + 2 || !writes_keep_their_order(f));
    at_free(answers);
}

static void big_history_is_compacted_by_itself(void **state)
{
    struct fixture *f = *state;
    size_t len = AT_STORE_VALUE_BYTES_MAX / 16;
    char *big = at_alloc(len);
    assert_int_equal(f->store->bounds.history_bytes, AT_STORE_HISTORY_BYTES_MAX);
    f->store->bounds.history_bytes /= 16;
    for (int i = 0; i < 48; i++) {
        struct answer a = {0};
        at_store_put(f->store, "/big", big, len, -1, on_write, &a);
        while (!a.done) {
            turn(f);
        }
        assert_int_equal(a.rc, AT_OK);
    }
    at_free(big);
    assert_true(at_store_stats(f->store).history_bytes < f->store->bounds.history_bytes / 8 * 10);
    assert_true(at_store_stats(f->store).history_revs > 16);
}

static void too_many_waiting_writes_are_refused_at_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->store->bounds.queue_writes, AT_STORE_QUEUE_WRITES_MAX);
    f->store->bounds.queue_writes = 500;
    size_t total = f->store->bounds.queue_writes + 1;
    struct answer *answers = at_alloc(total * sizeof *answers);
    for (size_t i = 0; i < total; i++) {
        at_store_put(f->store, "/a", "v", 1, -1, on_write, &answers[i]);
    }
    assert_true(answers[total - 1].done);
    assert_int_equal(answers[total - 1].rc, AT_EXHAUSTED);
    while (!answers[total - 2].done) {
        turn(f);
    }
    for (size_t i = 0; i + 1 < total; i++) {
        assert_int_equal(answers[i].rc, AT_OK);
    }
    at_free(answers);
}

static void closing_answers_every_write_under_way(void **state)
{
    struct fixture *f = *state;
    struct answer a[3] = {0};
    at_store_put(f->store, "/a", "1", 1, -1, on_write, &a[0]);
    at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real())); /* may start the first batch */
    at_store_put(f->store, "/b", "1", 1, -1, on_write, &a[1]);
    at_store_put(f->store, "/b", "2", 1, 0, on_write, &a[2]);
    at_store_close(f->store);
    f->store = NULL;
    assert_true(a[0].done && a[1].done && a[2].done);
    assert_int_equal(a[0].rc, AT_OK);
    assert_int_equal(a[1].rc, AT_OK);
    assert_int_equal(a[2].rc, AT_EXISTS);
}

static void sync_comes_after_every_earlier_write(void **state)
{
    struct fixture *f = *state;
    struct answer a[3] = {0};
    int order = 0;
    a[0].order = a[1].order = a[2].order = &order;
    at_store_put(f->store, "/a", "1", 1, 0, on_write, &a[0]);
    at_store_put(f->store, "/a", "1", 1, 0, on_write, &a[1]); /* exists */
    at_store_sync(f->store, on_write, &a[2]);
    while (!a[2].done) {
        turn(f);
    }
    assert_int_equal(a[2].rc, AT_OK);
    assert_int_equal(a[2].number, 3);
    a[2] = (struct answer){0};
    at_store_sync(f->store, on_write, &a[2]); /* nothing to wait for */
    while (!a[2].done) {
        turn(f);
    }
    assert_int_equal(rev_now(f), 2);
}

static void a_drained_store_reads_but_refuses_writes(void **state)
{
    struct fixture *f = *state;
    struct answer under_way = {0};
    struct answer late = {0};
    at_store_put(f->store, "/a", "1", 1, -1, on_write, &under_way);
    at_store_drain(f->store);
    assert_true(under_way.done);
    assert_int_equal(under_way.rc, AT_OK);
    at_store_put(f->store, "/a", "2", 1, -1, on_write, &late);
    assert_true(late.done);
    assert_int_equal(late.rc, AT_UNAVAILABLE);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=1@2 ");
}

/* Against a plain model: random writes with right and wrong expectations, then every revision
 * listed. */
#define MODEL_KEYS 40
#define MODEL_STEPS 1500
struct model_entry {
    int64_t mod_rev; /* 0: absent */
    int value;
};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void compare_with_model(struct fixture *f, int64_t rev, const struct model_entry *model)
{
    char want[4096];
    size_t used = 0;
    want[0] = '\0';
    for (int k = 0; k < MODEL_KEYS; k++) {
        if (model[k].mod_rev != 0) {
            used += (size_t)snprintf(want + used, sizeof want - used, "/k%03d=%d@%lld ", k,
                                     model[k].value, (long long)model[k].mod_rev);
        }
    }
    assert_string_equal(list(f, "/", "0", 0, rev).text, want);
}

static void every_revision_matches_a_plain_model(void **state)
{
    struct fixture *f = *state;
    static struct model_entry past[MODEL_STEPS + 3][MODEL_KEYS];
    static struct answer answers[MODEL_STEPS];
    memset(past, 0, sizeof past);
    memset(answers, 0, sizeof answers);
    unsigned seed = 20260101;
    int64_t rev = 1;
    for (int i = 0; i < MODEL_STEPS; i++) {
        struct model_entry *now = past[rev + 1];
        memcpy(now, past[rev], sizeof past[0]);
        int k = (int)(next_random(&seed) % MODEL_KEYS);
        unsigned dice = next_random(&seed) % 8;
        char key[16];
        char value[16];
        snprintf(key, sizeof key, "/k%03d", k);
        snprintf(value, sizeof value, "%d", i);
        int64_t expect = dice < 3 ? -1 : now[k].mod_rev;
        bool wrong = dice == 7;
        if (wrong) {
            expect = now[k].mod_rev + 1;
        }
        bool deletes = next_random(&seed) % 3 == 0 && expect != 0;
        if (deletes) {
            at_store_delete(f->store, key, rev_of(key, expect), on_write, &answers[i]);
        } else {
            at_store_put(f->store, key, value, strlen(value), rev_of(key, expect), on_write,
                         &answers[i]);
        }
        if (!wrong && !(deletes && now[k].mod_rev == 0)) {
            rev++;
            now[k] = deletes ? (struct model_entry){0} : (struct model_entry){rev, i};
        }
        if (next_random(&seed) % 16 == 0 || !writes_keep_their_order(f)) {
            while (!answers[i].done) {
                turn(f);
            }
        }
    }
    while (!answers[MODEL_STEPS - 1].done) {
        turn(f);
    }
    assert_int_equal(rev_now(f), rev);
    for (int64_t r = 1; r <= rev; r++) {
        compare_with_model(f, r, past[r]);
    }
}

/* --- TTLs --- */

static struct answer put_ttl(struct fixture *f, const char *key, const char *value, int64_t expect,
                             uint32_t ttl_s)
{
    struct answer a = {0};
    at_store_write(f->store, &(struct at_store_write){.key = key,
                                                      .value = value,
                                                      .len = strlen(value),
                                                      .expect = rev_of(key, expect),
                                                      .ttl_s = ttl_s,
                                                      .fn = on_write,
                                                      .ctx = &a});
    while (!a.done) {
        turn(f);
    }
    return a;
}

/* Ends, put again and put for good, in one test: it waits for the longest of them once. */
static void a_key_with_a_ttl_is_deleted_when_it_was_not_put_again_for_so_long(void **state)
{
    struct fixture *f = *state;
    int64_t begin = at_sys_mono_ns(at_sys_real());
    assert_int_equal(put_ttl(f, "/ends", "1", 0, 1).rc, AT_OK);   /* 2 */
    assert_int_equal(put_ttl(f, "/stays", "1", 0, 1).rc, AT_OK);  /* 3 */
    assert_int_equal(put_ttl(f, "/longer", "1", 0, 1).rc, AT_OK); /* 4 */
    assert_int_equal(put_ttl(f, "/gone", "1", 0, 1).rc, AT_OK);   /* 5 */
    put_ok(f, "/stays", "2");                                     /* 6: no TTL any more */
    assert_int_equal(put_ttl(f, "/longer", "2", 4, 100).rc, AT_OK);
    assert_int_equal(del(f, "/gone", -1).rc, AT_OK);
    struct log log = {0};
    watch(f, "/", "0", 8, &log);
    assert_true(at_store_ttl_left_ns(f->store, "/ends") <= AT_NS_PER_S);
    assert_true(at_store_ttl_left_ns(f->store, "/longer") > 50 * AT_NS_PER_S);
    assert_int_equal(at_store_ttl_left_ns(f->store, "/stays"), INT64_MAX);
    assert_int_equal(at_store_ttl_left_ns(f->store, "/gone"), INT64_MAX);
    while (log.n < 1) {
        turn(f);
    }
    assert_string_equal(log.text, "-/ends=@9[1] ");
    assert_true(at_sys_mono_ns(at_sys_real()) - begin >= AT_NS_PER_S);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/longer=2@7 /stays=2@6 ");
    assert_string_equal(list(f, "/ends", NULL, 0, 8).text, "/ends=1@2 ");
    assert_int_equal(at_store_ttl_left_ns(f->store, "/ends"), INT64_MAX);
    assert_int_equal(put(f, "/ends", "3", 0).rc, AT_OK); /* and stays */
}

static void keys_that_end_at_the_same_moment_each_get_a_revision(void **state)
{
    struct fixture *f = *state;
    struct answer a[30] = {0};
    struct log log = {0};
    watch(f, "/", "0", 1, &log);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char key[16];
        snprintf(key, sizeof key, "/%02zu", i);
        at_store_write(
            f->store,
            &(struct at_store_write){
                .key = key, .value = "v", .len = 1, .ttl_s = 1, .fn = on_write, .ctx = &a[i]});
    }
    while (log.n < 2 * AT_ARRAY_LEN(a)) {
        turn(f);
    }
    assert_int_equal(log.rc, AT_OK);
    assert_true(log.last_rev == 1 + 2 * AT_ARRAY_LEN(a) || !writes_keep_their_order(f));
    assert_int_equal(at_store_stats(f->store).keys, 0);
}

static void a_ttl_that_is_too_long_is_refused_and_a_refused_put_changes_none(void **state)
{
    struct fixture *f = *state;
    struct answer a = put_ttl(f, "/a", "1", 0, AT_STORE_TTL_S_MAX + 1);
    assert_int_equal(a.rc, AT_INVALID);
    assert_string_equal(a.msg, "the TTL is too long");
    assert_int_equal(put_ttl(f, "/a", "1", 0, AT_STORE_TTL_S_MAX).rc, AT_OK);
    assert_int_equal(put_ttl(f, "/a", "2", 0, 1).rc, AT_EXISTS);
    assert_int_equal(put(f, "/a", "2", 77).rc, AT_CONFLICT);
    assert_true(at_store_ttl_left_ns(f->store, "/a") > AT_STORE_TTL_S_MAX / 2 * AT_NS_PER_S);
}

/* --- guards --- */

static struct answer put_guarded(struct fixture *f, const char *key, const char *value,
                                 int64_t expect, const char *guard_key, int64_t guard_rev)
{
    struct answer a = {0};
    at_store_write(f->store, &(struct at_store_write){.key = key,
                                                      .value = value,
                                                      .len = strlen(value),
                                                      .expect = rev_of(key, expect),
                                                      .guard_key = guard_key,
                                                      .guard_rev = rev_of(guard_key, guard_rev),
                                                      .fn = on_write,
                                                      .ctx = &a});
    while (!a.done) {
        turn(f);
    }
    return a;
}

static void a_guarded_write_happens_only_while_its_guard_is_unchanged(void **state)
{
    struct fixture *f = *state;
    int64_t epoch = put_ok(f, "/epoch", "a"); /* 2 */
    assert_int_equal(put_guarded(f, "/x", "1", 0, "/epoch", epoch).rc, AT_OK);
    assert_int_equal(put_guarded(f, "/x", "2", -1, "/epoch", epoch).rc, AT_OK);
    assert_int_equal(put_guarded(f, "/y", "1", 0, "/none", 0).rc, AT_OK); /* guarded by absence */
    put_ok(f, "/epoch", "b");
    struct answer late = put_guarded(f, "/x", "3", -1, "/epoch", epoch);
    assert_int_equal(late.rc, AT_CONFLICT);
    assert_false(late.has_current);
    assert_string_equal(late.msg, "key /x was not written: its guard /epoch has changed");
    assert_int_equal(put_guarded(f, "/new", "3", 0, "/epoch", epoch).rc, AT_CONFLICT);
    struct answer gone = {0};
    at_store_write(f->store, &(struct at_store_write){.key = "/x",
                                                      .deletes = true,
                                                      .expect = -1,
                                                      .guard_key = "/epoch",
                                                      .guard_rev = rev_of("/epoch", epoch),
                                                      .fn = on_write,
                                                      .ctx = &gone});
    while (!gone.done) {
        turn(f);
    }
    assert_int_equal(gone.rc, AT_CONFLICT);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/epoch=b@6 /x=2@4 /y=1@5 ");
    assert_int_equal(put_guarded(f, "/x", "4", 4, "/epoch", 6).rc, AT_OK);
}

static void a_guard_that_changes_while_writes_wait_stops_those_behind_it(void **state)
{
    struct fixture *f = *state;
    struct answer a[40] = {0};
    struct answer taken = {0};
    int64_t epoch = put_ok(f, "/epoch", "a");
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        char key[16];
        snprintf(key, sizeof key, "/%02zu", i);
        if (i == AT_ARRAY_LEN(a) / 2) {
            at_store_put(f->store, "/epoch", "b", 1, rev_of("/epoch", epoch), on_write, &taken);
        }
        at_store_write(f->store, &(struct at_store_write){.key = key,
                                                          .value = "v",
                                                          .len = 1,
                                                          .guard_key = "/epoch",
                                                          .guard_rev = rev_of("/epoch", epoch),
                                                          .fn = on_write,
                                                          .ctx = &a[i]});
    }
    struct answer all = {0};
    at_store_sync(f->store, on_write, &all);
    while (!all.done) {
        turn(f);
    }
    assert_int_equal(taken.rc, AT_OK);
    for (size_t i = 0; i < AT_ARRAY_LEN(a); i++) {
        assert_true(a[i].rc == AT_OK || a[i].rc == AT_CONFLICT);
        assert_true(a[i].rc == AT_OK ? a[i].rev < taken.rev : true);
        assert_true(!writes_keep_their_order(f) || (a[i].rc == AT_OK) == (i < AT_ARRAY_LEN(a) / 2));
    }
}

#define EACH(fn)                                                                                   \
    {                                                                                              \
#fn, fn, set_up, tear_down, NULL                                                           \
    }

int main(void)
{
    prefer_memory_for_files();
    if (strcmp(KINDS[0], "etcd") == 0 && !etcd_is_installed()) {
        fprintf(stderr, "skipped: etcd is not installed (package etcd-server)\n");
        return 77;
    }
    static const struct CMUnitTest each[] = {
        EACH(a_put_gets_the_next_revision),
        EACH(expectations_are_compared_and_the_present_value_shown),
        EACH(writes_to_one_key_in_one_batch_see_each_other),
        EACH(bad_input_is_refused_and_changes_nothing),
        EACH(a_range_is_ordered_bytewise_and_limited),
        EACH(a_range_at_an_old_revision_shows_what_was),
        EACH(a_watch_resumes_after_any_revision_and_misses_nothing),
        EACH(a_watch_from_the_future_is_refused),
        EACH(watchers_see_a_write_before_its_writer_is_answered),
        EACH(an_unwatched_watcher_hears_nothing_more),
        EACH(a_watcher_may_watch_unwatch_and_write),
        EACH(compaction_forgets_history_but_no_current_value),
        EACH(history_is_compacted_by_itself),
        EACH(big_history_is_compacted_by_itself),
        EACH(too_many_waiting_writes_are_refused_at_once),
        EACH(closing_answers_every_write_under_way),
        EACH(sync_comes_after_every_earlier_write),
        EACH(a_drained_store_reads_but_refuses_writes),
        EACH(every_revision_matches_a_plain_model),
        EACH(a_key_with_a_ttl_is_deleted_when_it_was_not_put_again_for_so_long),
        EACH(keys_that_end_at_the_same_moment_each_get_a_revision),
        EACH(a_ttl_that_is_too_long_is_refused_and_a_refused_put_changes_none),
        EACH(a_guarded_write_happens_only_while_its_guard_is_unchanged),
        EACH(a_guard_that_changes_while_writes_wait_stops_those_behind_it),
    };
    struct CMUnitTest tests[AT_ARRAY_LEN(KINDS) * AT_ARRAY_LEN(each)];
    char names[AT_ARRAY_LEN(tests)][128];
    size_t n = 0;
    for (size_t k = 0; k < AT_ARRAY_LEN(KINDS); k++) {
        for (size_t i = 0; i < AT_ARRAY_LEN(each); i++) {
            tests[n] = each[i];
            tests[n].initial_state = (void *)(uintptr_t)KINDS[k];
            snprintf(names[n], sizeof names[n], "%s: %s", KINDS[k], each[i].name);
            tests[n].name = names[n];
            n++;
        }
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
