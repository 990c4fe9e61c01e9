/* The journal that rides in the store's transactions: kept with them or not at all, read back in
 * order, overwritten when it is not needed any more. */
#include "store/store_test.h"

#include <sqlite3.h>

struct rider { /* whose journal it is */
    struct fixture f;
    char text[60000];
    size_t len; /* of the next batch's; 0: nothing */
    uint64_t tag, dead;
    unsigned landed, kept, marks;
    struct at_store_journal hooks;
    char told[64][16]; /* how each that was read back begins */
    size_t told_len[64], n_told;
};

static uint64_t mark(void *ctx)
{
    struct rider *r = ctx;
    r->marks++;
    return r->len > 0 ? 1 : 0;
}

static bool take(void *ctx, uint64_t wanted, struct at_buf *out, uint64_t *ret_tag,
                 uint64_t *ret_dead)
{
    struct rider *r = ctx;
    assert_int_equal(wanted, 1);
    *ret_tag = ++r->tag;
    *ret_dead = r->dead;
    int head = snprintf(r->text, 16, "%llu", (unsigned long long)r->tag);
    memset(r->text + head, '.', 15 - (size_t)head);
    assert_int_equal(at_buf_append(out, r->text, r->len), AT_OK);
    return true;
}

static void landed(void *ctx, bool kept)
{
    struct rider *r = ctx;
    r->landed++;
    r->kept += kept;
}

static void on_kept(void *ctx, const char *bytes, size_t len)
{
    struct rider *r = ctx;
    assert_true(r->n_told < 64);
    r->told_len[r->n_told] = len;
    snprintf(r->told[r->n_told++], 16, "%.*s", (int)strcspn(bytes, "."), bytes);
}

static void open_it(struct rider *r)
{
    struct at_err err = {0};
    fixture_open(&r->f);
    r->n_told = 0;
    if (at_store_journal_open(r->f.store, &r->hooks, on_kept, r, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
}

static void reopen(struct rider *r)
{
    at_store_close(r->f.store);
    r->f.store = NULL;
    open_it(r);
}

static int set_up(void **state)
{
    struct rider *r = AT_NEW(struct rider);
    prefer_memory_for_files();
    fixture_init(&r->f, "sqlite");
    memset(r->text, '.', sizeof r->text);
    r->hooks = (struct at_store_journal){r, mark, take, landed};
    open_it(r);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rider *r = *state;
    fixture_done(&r->f);
    at_free(r);
    return 0;
}

static void put_with(struct rider *r, size_t len)
{
    r->len = len;
    put_ok(&r->f, "/a", "1");
    r->len = 0;
}

static void what_rides_is_kept_with_the_write_and_read_back_in_order(void **state)
{
    struct rider *r = *state;
    assert_int_equal(r->n_told, 0);
    put_with(r, 100);
    put_ok(&r->f, "/b", "1"); /* nothing rides */
    put_with(r, 20000);       /* several slots */
    put_with(r, 4024);        /* one that is full */
    assert_int_equal(r->landed, 3);
    assert_int_equal(r->kept, 3);
    reopen(r);
    assert_int_equal(r->n_told, 3);
    static const size_t LENS[] = {100, 20000, 4024};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(r->told_len[i], LENS[i]);
        assert_int_equal(atoi(r->told[i]), i + 1);
    }
    /* What was there before a restart is dead from the first batch on. */
    put_with(r, 100);
    reopen(r);
    assert_int_equal(atoi(r->told[r->n_told - 1]), 4);
}

static void it_is_told_before_the_writes_of_its_batch(void **state)
{
    struct rider *r = *state;
    r->len = 50;
    struct answer a = {0};
    at_store_put(r->f.store, "/a", "1", 1, -1, on_write, &a);
    while (!a.done) {
        assert_int_equal(r->landed, 0);
        turn(&r->f);
    }
    assert_int_equal(r->landed, 1);
    /* A write that is refused commits nothing, so nothing rides. */
    assert_int_equal(put(&r->f, "/a", "2", 0).rc, AT_EXISTS);
    assert_int_equal(r->landed, 1);
}

static void what_finds_no_room_is_not_kept_and_the_write_is(void **state)
{
    struct rider *r = *state;
    unsigned writes = 0;
    while (r->kept == r->landed) {
        put_with(r, sizeof r->text);
        assert_true(++writes < 100);
    }
    assert_int_equal(r->kept, AT_STORE_JOURNAL_SLOTS / 15); /* of 60000 bytes each */
    r->dead = r->tag - 3;                                   /* as after a sync */
    unsigned kept = r->kept;
    put_with(r, sizeof r->text);
    assert_int_equal(r->kept, kept + 1);
    reopen(r);
    assert_int_equal(atoi(r->told[r->n_told - 1]), r->tag);
    assert_string_equal(list(&r->f, "/", "0", 0, 0).text[0] == '/' ? "there" : "", "there");
}

static int64_t count(struct rider *r, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open_v2(r->f.path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return n;
}

static void the_ring_goes_round_and_the_file_does_not_grow(void **state)
{
    struct rider *r = *state;
    for (unsigned i = 0; i < 120; i++) { /* three times round */
        r->dead = r->tag > 2 ? r->tag - 2 : 0;
        put_with(r, 1000 + i * 997 % (sizeof r->text - 1000));
        assert_int_equal(r->kept, i + 1);
    }
    reopen(r);
    assert_int_equal(atoi(r->told[r->n_told - 1]), 120);
    assert_int_equal(atoi(r->told[r->n_told - 2]), 119);
    assert_int_equal(atoi(r->told[r->n_told - 3]), 118);
    at_store_close(r->f.store);
    r->f.store = NULL;
    assert_true(count(r, "SELECT count(*) FROM journal") <= AT_STORE_JOURNAL_SLOTS);
    assert_true(count(r, "PRAGMA page_count") < AT_STORE_JOURNAL_SLOTS + 100);
}

static void a_batch_that_fails_keeps_nothing(void **state)
{
    struct rider *r = *state;
    put_with(r, 100);
    at_store_close(r->f.store);
    r->f.store = NULL;
    /* A trigger that refuses the next record of the store: the transaction is rolled back. */
    count(r, "SELECT 1");
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(r->f.path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "CREATE TRIGGER no AFTER INSERT ON journal"
                                  " WHEN (SELECT count(*) FROM journal) > 1"
                                  " BEGIN SELECT RAISE(ABORT, 'no'); END",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    open_it(r);
    r->len = 20000;
    assert_int_not_equal(put(&r->f, "/a", "2", -1).rc, AT_OK);
    r->len = 0;
    assert_int_equal(r->landed, 2);
    assert_int_equal(r->kept, 1);
    assert_int_equal(put(&r->f, "/a", "3", -1).rc, AT_OK); /* without a ride it goes */
    reopen(r);
    assert_int_equal(r->n_told, 1);
}

static void memory_has_none(void **state)
{
    (void)state;
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store = NULL;
    struct at_store_journal hooks = {0};
    assert_int_equal(at_store_open("memory", NULL, loop, &store, NULL), AT_OK);
    assert_int_equal(at_store_journal_open(store, &hooks, on_kept, NULL, NULL), AT_UNSUPPORTED);
    at_store_close(store);
    at_loop_free(loop);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_rides_is_kept_with_the_write_and_read_back_in_order),
        T(it_is_told_before_the_writes_of_its_batch),
        T(what_finds_no_room_is_not_kept_and_the_write_is),
        T(the_ring_goes_round_and_the_file_does_not_grow),
        T(a_batch_that_fails_keeps_nothing),
        cmocka_unit_test(memory_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
