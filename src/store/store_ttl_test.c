/* TTLs against clocks that are stepped, restarts and full disks. What etcd does by its leases is in
 * the conformance suite. */
#include "store/store_test.h"

#include <sqlite3.h>

#define HOUR_NS (3600 * AT_NS_PER_S)

/* The real clocks, moved. */
struct clocks {
    struct at_sys sys;
    int64_t wall_ns, mono_ns;
};

static int64_t wall_ns(void *ctx)
{
    const struct clocks *c = ctx;
    return at_sys_wall_ns(at_sys_real()) + c->wall_ns;
}

static int64_t mono_ns(void *ctx)
{
    const struct clocks *c = ctx;
    return at_sys_mono_ns(at_sys_real()) + c->mono_ns;
}

static int wait_until(void *ctx, int epfd, void *events, int max, int64_t deadline_ns)
{
    const struct clocks *c = ctx;
    const struct at_sys *real = at_sys_real();
    return real->poll(real->ctx, epfd, events, max,
                      deadline_ns == INT64_MAX ? INT64_MAX : deadline_ns - c->mono_ns);
}

static void take_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    at_sys_random(at_sys_real(), out, len);
}

struct rig {
    struct fixture f;
    struct clocks clocks;
};

static int set_up(void **state)
{
    struct rig *r = AT_NEW(struct rig);
    fixture_init(&r->f, "sqlite");
    at_loop_free(r->f.loop);
    r->clocks.sys = (struct at_sys){&r->clocks, mono_ns, wall_ns, take_random, wait_until};
    r->f.loop = at_loop_new(&r->clocks.sys);
    fixture_open(&r->f);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    fixture_done(&r->f);
    at_free(r);
    return 0;
}

/* What is due now happens. */
static void settle(struct rig *r)
{
    struct answer a = {0};
    for (int i = 0; i < 3; i++) {
        at_loop_turn(r->f.loop, mono_ns(&r->clocks) + 5 * AT_NS_PER_MS);
    }
    at_store_sync(r->f.store, on_write, &a);
    while (!a.done) {
        at_loop_turn(r->f.loop, mono_ns(&r->clocks) + AT_NS_PER_S);
    }
}

static void put_ttl(struct rig *r, const char *key, uint32_t ttl_s)
{
    struct answer a = {0};
    at_store_write(r->f.store, &(struct at_store_write){.key = key,
                                                        .value = "v",
                                                        .len = 1,
                                                        .expect = -1,
                                                        .ttl_s = ttl_s,
                                                        .fn = on_write,
                                                        .ctx = &a});
    while (!a.done) {
        at_loop_turn(r->f.loop, mono_ns(&r->clocks) + AT_NS_PER_S);
    }
    assert_int_equal(a.rc, AT_OK);
}

static bool is_there(struct rig *r, const char *key)
{
    settle(r);
    return list(&r->f, key, NULL, 0, 0).n == 1;
}

static void restart(struct rig *r)
{
    at_store_close(r->f.store);
    fixture_open(&r->f);
}

static void assert_left(struct rig *r, const char *key, int64_t want_ns)
{
    int64_t left = at_store_ttl_left_ns(r->f.store, key);
    if (left > want_ns || left < want_ns - 60 * AT_NS_PER_S) {
        fail_msg("%s: %lld s are left, not %lld", key, (long long)(left / AT_NS_PER_S),
                 (long long)(want_ns / AT_NS_PER_S));
    }
}

static void steps_of_the_wall_clock_end_nothing_and_prolong_nothing(void **state)
{
    struct rig *r = *state;
    put_ttl(r, "/event", 3600);
    r->clocks.wall_ns += 10 * HOUR_NS;
    assert_true(is_there(r, "/event"));
    assert_left(r, "/event", HOUR_NS);
    r->clocks.wall_ns -= 20 * HOUR_NS;
    r->clocks.mono_ns += HOUR_NS - 60 * AT_NS_PER_S;
    assert_true(is_there(r, "/event"));
    r->clocks.mono_ns += 61 * AT_NS_PER_S;
    assert_false(is_there(r, "/event"));
}

static void a_ttl_goes_on_while_nothing_runs(void **state)
{
    struct rig *r = *state;
    put_ttl(r, "/a", 3600);
    put_ttl(r, "/b", 7200);
    r->clocks.wall_ns += HOUR_NS / 2; /* and the monotonic clock begins anew, as after a boot */
    restart(r);
    assert_left(r, "/a", HOUR_NS / 2);
    int64_t rev = at_store_rev(r->f.store);
    at_store_close(r->f.store);
    r->clocks.wall_ns += HOUR_NS;
    fixture_open(&r->f);
    struct log log = {0};
    watch(&r->f, "/", "0", rev, &log);
    assert_false(is_there(r, "/a"));
    assert_true(is_there(r, "/b"));
    assert_string_equal(log.text, "-/a=@4[v] "); /* who resumes is told */
}

static void a_clock_stepped_back_over_a_restart_makes_no_ttl_longer(void **state)
{
    struct rig *r = *state;
    put_ttl(r, "/a", 3600);
    r->clocks.wall_ns -= 5 * HOUR_NS;
    restart(r);
    assert_left(r, "/a", HOUR_NS);
    put_ok(&r->f, "/a", "for good");
    restart(r);
    assert_int_equal(at_store_ttl_left_ns(r->f.store, "/a"), INT64_MAX);
}

static void many_ends_at_once_are_all_carried_out(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 3 * AT_STORE_LEASE_ENDS_MAX; i++) {
        char key[16];
        snprintf(key, sizeof key, "/%04d", i);
        at_store_write(r->f.store, &(struct at_store_write){.key = key,
                                                            .value = "v",
                                                            .len = 1,
                                                            .ttl_s = 10 + (uint32_t)(i * 7 % 20)});
    }
    settle(r);
    assert_int_equal(at_store_stats(r->f.store).keys, 3 * AT_STORE_LEASE_ENDS_MAX);
    r->clocks.mono_ns += 20 * AT_NS_PER_S; /* those of 10 to 19 s, and some of 20 s */
    settle(r);
    size_t left = at_store_stats(r->f.store).keys;
    assert_true(left > AT_STORE_LEASE_ENDS_MAX && left < 2 * AT_STORE_LEASE_ENDS_MAX);
    r->clocks.mono_ns += 10 * AT_NS_PER_S;
    settle(r);
    assert_int_equal(at_store_stats(r->f.store).keys, 0);
}

static void a_file_of_the_first_version_is_taken_over(void **state)
{
    struct rig *r = *state;
    put_ok(&r->f, "/a", "1");
    put_ok(&r->f, "/a", "2");
    at_store_close(r->f.store);
    r->f.store = NULL;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(r->f.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "ALTER TABLE log DROP COLUMN ttl_s;"
                                  "ALTER TABLE log DROP COLUMN wall_ms; PRAGMA user_version=1",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    fixture_open(&r->f);
    assert_string_equal(list(&r->f, "/", "0", 0, 0).text, "/a=2@3 ");
    put_ttl(r, "/b", 3600);
    restart(r);
    assert_left(r, "/b", HOUR_NS);
}

int main(void)
{
    prefer_memory_for_files();
#define EACH(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(steps_of_the_wall_clock_end_nothing_and_prolong_nothing),
        EACH(a_ttl_goes_on_while_nothing_runs),
        EACH(a_clock_stepped_back_over_a_restart_makes_no_ttl_longer),
        EACH(many_ends_at_once_are_all_carried_out),
        EACH(a_file_of_the_first_version_is_taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
