/* Moving a store: dumps, snapshots, raising the revision, looking for damage. */
#include "core/json.h"
#include "store/check.h"
#include "store/dump.h"
#include "store/store_test.h"

#include <sqlite3.h>

/* --- dumps --- */

static void dump_of(struct fixture *f, struct at_buf *out)
{
    struct at_store_snapshot *snapshot = at_store_snapshot_new(f->store);
    struct at_dump_writer *w;
    assert_int_equal(at_dump_writer_new(at_store_snapshot_rev(snapshot),
                                        at_store_compact_rev(f->store), out, &w),
                     AT_OK);
    assert_int_equal(at_dump_write_file(w, "pki/ca.crt", "one\ntwo\n", 8), AT_OK);
    for (size_t i = 0; i < at_store_snapshot_count(snapshot); i++) {
        struct at_store_kv kv = at_store_snapshot_at(snapshot, i);
        assert_int_equal(at_dump_write_key(w, &kv), AT_OK);
    }
    assert_int_equal(at_dump_write_end(w), AT_OK);
    at_dump_writer_free(w);
    at_store_snapshot_free(snapshot);
}

static void fill(struct fixture *f)
{
    static const char BYTES[] = {0, 1, (char)0xff, '"'};
    struct answer a = {0};
    put_ok(f, "/a/text", "{\"a\":\"\xc3\xa4\\n\"}");
    put_ok(f, "/a/gone", "x");
    put_ok(f, "/a/empty", "");
    assert_int_equal(del(f, "/a/gone", -1).rc, AT_OK);
    put_ok(f, "/a/text", "{\"a\":2}");
    at_store_write(f->store, &(struct at_store_write){.key = "/b/\xff",
                                                      .value = BYTES,
                                                      .len = sizeof BYTES,
                                                      .ttl_s = 90,
                                                      .fn = on_write,
                                                      .ctx = &a});
    while (!a.done) {
        turn(f);
    }
}

/* What a reader tells, as text. */
struct told {
    struct at_buf text;
};

static enum at_rc told_file(void *ctx, const char *name, const char *data, size_t len,
                            struct at_err *err)
{
    (void)err;
    struct told *t = ctx;
    return at_buf_printf(&t->text, "%s=%.*s;", name, (int)len, data);
}

static enum at_rc told_key(void *ctx, const struct at_store_kv *kv, struct at_err *err)
{
    (void)err;
    struct told *t = ctx;
    enum at_rc rc =
        at_buf_printf(&t->text, "%s@%d-%d=", kv->key, (int)kv->create_rev, (int)kv->mod_rev);
    assert_int_equal(kv->ttl_s, strncmp(kv->key, "/b", 2) == 0 ? 90 : 0);
    assert_int_equal(kv->value[kv->value_len], '\0');
    return rc == AT_OK ? at_buf_append(&t->text, kv->value, kv->value_len) : rc;
}

static enum at_rc read_all(const char *text, size_t len, size_t piece, struct told *t,
                           struct at_dump_summary *summary, struct at_err *err)
{
    struct at_dump_events events = {.ctx = t, .file = told_file, .key = told_key};
    struct at_dump_reader *r = at_dump_reader_new(t != NULL ? &events : NULL);
    enum at_rc rc = AT_OK;
    for (size_t at = 0; at < len && rc == AT_OK; at += piece) {
        rc = at_dump_reader_feed(r, text + at, len - at < piece ? len - at : piece, err);
    }
    if (rc == AT_OK) {
        rc = at_dump_reader_end(r, summary, err);
    }
    at_dump_reader_free(r);
    return rc;
}

static void what_was_dumped_is_read_back_in_pieces_of_any_size(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "memory");
    fixture_open(&f);
    fill(&f);
    struct at_buf dump = {0};
    dump_of(&f, &dump);
    static const char WANTED[] = "pki/ca.crt=one\ntwo\n;/a/empty@4-4=/a/text@2-6={\"a\":2}"
                                 "/b/\xff@7-7=\0\1\xff\"";
    static const size_t PIECES[] = {1, 7, 100, 100000};
    for (size_t i = 0; i < AT_ARRAY_LEN(PIECES); i++) {
        struct told t = {0};
        struct at_dump_summary s = {0};
        struct at_err err = {0};
        if (read_all(dump.data, dump.len, PIECES[i], &t, &s, &err) != AT_OK) {
            fail_msg("%s", err.msg);
        }
        assert_int_equal(t.text.len, sizeof WANTED - 1);
        assert_memory_equal(t.text.data, WANTED, sizeof WANTED - 1);
        assert_int_equal(s.head.rev, 7);
        assert_int_equal(s.head.compact_rev, 1);
        assert_int_equal(s.keys, 3);
        assert_int_equal(s.files, 1);
        at_buf_done(&t.text);
    }
    at_buf_done(&dump);
    fixture_done(&f);
}

static size_t lines_before(const char *text, size_t at)
{
    size_t n = 1;
    for (size_t i = 0; i < at; i++) {
        n += text[i] == '\n';
    }
    return n;
}

static void a_dump_cut_off_anywhere_is_refused_with_the_line(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "memory");
    fixture_open(&f);
    fill(&f);
    struct at_buf dump = {0};
    dump_of(&f, &dump);
    struct at_dump_summary s;
    for (size_t len = 0; len < dump.len; len++) {
        struct at_err err = {0};
        assert_int_equal(read_all(dump.data, len, 1000, NULL, &s, &err), AT_INVALID);
        char line[32];
        snprintf(line, sizeof line, "line %zu: ", lines_before(dump.data, len));
        if (len != 0 && strncmp(err.msg, line, strlen(line)) != 0) {
            fail_msg("cut at %zu: %s", len, err.msg);
        }
    }
    at_buf_done(&dump);
    fixture_done(&f);
}

static void a_dump_with_any_byte_changed_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "memory");
    fixture_open(&f);
    fill(&f);
    struct at_buf dump = {0};
    dump_of(&f, &dump);
    struct at_dump_summary s;
    for (size_t at = 0; at < dump.len; at++) {
        struct at_err err = {0};
        dump.data[at] ^= 1;
        if (read_all(dump.data, dump.len, 1000, NULL, &s, &err) != AT_INVALID) {
            fail_msg("byte %zu changed, and nobody saw it", at);
        }
        assert_non_null(strstr(err.msg, "line "));
        dump.data[at] ^= 1;
    }
    assert_int_equal(read_all(dump.data, dump.len, 1000, NULL, &s, NULL), AT_OK);
    at_buf_done(&dump);
    fixture_done(&f);
}

static void expect_refusal(const char *text, const char *why)
{
    struct at_dump_summary s;
    struct at_err err = {0};
    assert_int_equal(read_all(text, strlen(text), 1000, NULL, &s, &err), AT_INVALID);
    if (strstr(err.msg, why) == NULL) {
        fail_msg("%s: %s", text, err.msg);
    }
}

#define HEAD "{\"atollStore\":1,\"revision\":9,\"compactRevision\":3}\n"
#define KEY(k, made, rev)                                                                          \
    "{\"key\":\"" k "\",\"createRevision\":" made ",\"revision\":" rev ",\"value\":\"x\"}\n"
#define FILE_NAMED(n) "{\"file\":\"" n "\",\"text\":\"x\"}\n"

static void what_no_writer_makes_is_refused_and_named(void **state)
{
    (void)state;
    expect_refusal("", "the file is empty");
    expect_refusal("apiVersion: v1\n", "line 1: this is no backup");
    expect_refusal("{\"apiVersion\":\"v1\"}\n", "line 1: this is no backup");
    expect_refusal("{\"atollStore\":2,\"revision\":9,\"compactRevision\":3}\n", "another version");
    expect_refusal("{\"atollStore\":1,\"revision\":0,\"compactRevision\":0}\n", "revision");
    expect_refusal("{\"atollStore\":1,\"revision\":2,\"compactRevision\":3}\n", "compactRevision");
    expect_refusal(HEAD KEY("/b", "1", "2") KEY("/a", "1", "2"), "line 3: the keys are not in");
    expect_refusal(HEAD KEY("/b", "1", "2") KEY("/b", "1", "2"), "line 3: the keys are not in");
    expect_refusal(HEAD KEY("/b", "1", "10"), "line 2: revision is no number from 1 to 9");
    expect_refusal(HEAD KEY("/b", "3", "2"), "before it was made");
    expect_refusal(HEAD KEY("", "1", "2"), "the key or the value is empty");
    expect_refusal(HEAD KEY("/a", "1", "2") FILE_NAMED("x"), "line 3: a file where none may be");
    expect_refusal(HEAD FILE_NAMED("../x"), "name cannot be");
    expect_refusal(HEAD FILE_NAMED("/x"), "name cannot be");
    expect_refusal(HEAD FILE_NAMED("a/../x"), "name cannot be");
    expect_refusal(HEAD FILE_NAMED("a/"), "name cannot be");
    expect_refusal(HEAD "{\"end\":true,\"files\":0,\"keys\":1,\"sha256\":\"\"}\n", "0 keys were");
    expect_refusal(HEAD "{\"end\":true,\"files\":0,\"keys\":0,\"sha256\":\"\"}\n", "the digest");
    expect_refusal(HEAD "[]\n", "line 2: the line is damaged");
}

/* --- snapshots --- */

static void a_snapshot_stays_as_it_was(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "memory");
    fixture_open(&f);
    put_ok(&f, "/a", "1");
    put_ok(&f, "/b", "1");
    struct at_store_snapshot *s = at_store_snapshot_new(f.store);
    int64_t rev = at_store_rev(f.store);
    put_ok(&f, "/a", "2");
    put_ok(&f, "/c", "2");
    assert_int_equal(del(&f, "/b", -1).rc, AT_OK);
    assert_int_equal(compact(&f, at_store_rev(f.store)).rc, AT_OK);
    assert_int_equal(at_store_snapshot_rev(s), rev);
    assert_int_equal(at_store_snapshot_count(s), 2);
    assert_string_equal(at_store_snapshot_at(s, 0).value, "1");
    assert_string_equal(at_store_snapshot_at(s, 1).key, "/b");
    at_store_snapshot_free(s);
    fixture_done(&f);
}

/* --- raising the revision --- */

static struct answer advance(struct fixture *f, int64_t rev)
{
    struct answer a = {0};
    at_store_advance(f->store, rev, on_write, &a);
    while (!a.done) {
        turn(f);
    }
    return a;
}

static void a_raised_revision_lasts_and_what_was_before_is_forgotten(void **state)
{
    struct fixture f;
    fixture_init(&f, *state);
    fixture_open(&f);
    fill(&f);
    int64_t before = at_store_rev(f.store);
    assert_int_equal(advance(&f, 1000000).rc, AT_OK);
    assert_int_equal(at_store_rev(f.store), 1000000);
    assert_int_equal(at_store_compact_rev(f.store), 1000000);
    assert_int_equal(advance(&f, 5).rc, AT_OK); /* never back */
    assert_int_equal(at_store_rev(f.store), 1000000);
    struct log log = {0};
    at_store_watch_id id;
    assert_int_equal(at_store_watch(f.store, "/", "0", before, on_events, &log, &id, NULL),
                     AT_COMPACTED);
    struct listing was = list(&f, "/", "0", 0, 0);
    assert_int_equal(was.n, 3);
    assert_int_equal(put_ok(&f, "/a/next", "n"), 1000001);
    assert_int_equal(put(&f, "/a/text", "n", 6).rc, AT_OK); /* values keep their revisions */
    if (strcmp(f.kind, "sqlite") == 0) {
        at_store_close(f.store);
        fixture_open(&f);
        assert_int_equal(at_store_rev(f.store), 1000002);
        assert_int_equal(at_store_compact_rev(f.store), 1000000);
        assert_int_equal(list(&f, "/", "0", 0, 0).n, 4);
    }
    watch(&f, "/", "0", 1000000, &log);
    while (log.n < 2) {
        turn(&f);
    }
    assert_int_equal(log.last_rev, 1000002);
    fixture_done(&f);
}

static void writes_around_a_raise_keep_their_order(void **state)
{
    struct fixture f;
    fixture_init(&f, *state);
    fixture_open(&f);
    struct answer a[3] = {0};
    at_store_put(f.store, "/x", "1", 1, 0, on_write, &a[0]);
    at_store_advance(f.store, 500, on_write, &a[1]);
    at_store_put(f.store, "/x", "2", 1, -1, on_write, &a[2]);
    while (!a[2].done) {
        turn(&f);
    }
    assert_int_equal(a[0].rev, 2);
    assert_int_equal(a[1].rev, 500);
    assert_int_equal(a[2].rev, 501);
    assert_int_equal(a[2].create_rev, 2);
    fixture_done(&f);
}

/* --- damage --- */

struct problems {
    size_t n;
    char first[AT_ERR_MSG_BYTES_MAX];
};

static void on_problem(void *ctx, const char *problem)
{
    struct problems *p = ctx;
    if (p->n++ == 0) {
        snprintf(p->first, sizeof p->first, "%s", problem);
    }
}

static struct problems check(struct fixture *f)
{
    struct problems p = {0};
    struct at_err err = {0};
    if (at_store_check(f->kind, f->path, on_problem, &p, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return p;
}

static void damage(struct fixture *f, const char *sql, const char *why)
{
    sqlite3 *db;
    char *message = NULL;
    fixture_init(f, "sqlite");
    fixture_open(f);
    fill(f);
    assert_int_equal(compact(f, 4).rc, AT_OK);
    at_store_close(f->store);
    f->store = NULL;
    assert_int_equal(check(f).n, 0);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
    sqlite3_close(db);
    struct problems p = check(f);
    if (p.n == 0 || strstr(p.first, why) == NULL) {
        fail_msg("%s: %zu problems, %s", sql, p.n, p.first);
    }
    fixture_done(f);
}

static void each_kind_of_damage_is_told(void **state)
{
    (void)state;
    struct fixture f;
    damage(&f, "DELETE FROM log WHERE rev = 6", "revision 5 is followed by 7");
    damage(&f, "UPDATE log SET create_rev = 5 WHERE rev = 6", "it was made at 2, not at 5");
    damage(&f, "UPDATE log SET key = '/other' WHERE rev = 3", "revision 5 deletes key /a/gone");
    damage(&f, "UPDATE log SET key = '' WHERE rev = 7", "revision 7 has a key");
    damage(&f, "UPDATE log SET rev = -1 WHERE rev = 2", "revision -1 cannot be");
    damage(&f, "UPDATE meta SET value = 6", "should have been compacted");
    damage(&f, "PRAGMA user_version = 7", "not a store of this version");
    damage(&f, "DROP TABLE meta", "cannot be read");
}

static void a_database_with_broken_pages_is_told(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "sqlite");
    fixture_open(&f);
    for (int i = 0; i < 200; i++) {
        char key[32];
        snprintf(key, sizeof key, "/k/%d", i);
        put_ok(&f, key, "some value that fills pages of the database, and more of it");
    }
    at_store_close(f.store);
    f.store = NULL;
    struct at_buf file = {0};
    struct at_err err = {0};
    assert_int_equal(at_file_read(f.path, 1 << 24, &file, &err), AT_OK);
    memset(file.data + file.len - 6000, 0x55, 3000);
    assert_int_equal(at_file_write_atomic(f.path, file.data, file.len, 0600, &err), AT_OK);
    assert_true(check(&f).n > 0);
    memset(file.data, 0x55, 100);
    assert_int_equal(at_file_write_atomic(f.path, file.data, file.len, 0600, &err), AT_OK);
    assert_true(check(&f).n > 0);
    at_buf_done(&file);
    fixture_done(&f);
}

static void a_store_in_use_or_absent_is_not_checked(void **state)
{
    (void)state;
    struct fixture f;
    struct problems p = {0};
    fixture_init(&f, "sqlite");
    assert_int_equal(at_store_check("sqlite", f.path, on_problem, &p, NULL), AT_NOT_FOUND);
    assert_false(at_file_exists(f.path));
    fixture_open(&f);
    assert_int_equal(at_store_check("sqlite", f.path, on_problem, &p, NULL), AT_CONFLICT);
    assert_int_equal(at_store_check("memory", f.path, on_problem, &p, NULL), AT_OK);
    assert_int_equal(p.n, 0);
    fixture_done(&f);
}

int main(void)
{
    prefer_memory_for_files();
#define T(test) cmocka_unit_test(test)
#define B(test, kind)                                                                              \
    {                                                                                              \
#test "/" kind, test, NULL, NULL, (void *)(kind)                                           \
    }
    const struct CMUnitTest tests[] = {
        T(what_was_dumped_is_read_back_in_pieces_of_any_size),
        T(a_dump_cut_off_anywhere_is_refused_with_the_line),
        T(a_dump_with_any_byte_changed_is_refused),
        T(what_no_writer_makes_is_refused_and_named),
        T(a_snapshot_stays_as_it_was),
        B(a_raised_revision_lasts_and_what_was_before_is_forgotten, "memory"),
        B(a_raised_revision_lasts_and_what_was_before_is_forgotten, "sqlite"),
        B(writes_around_a_raise_keep_their_order, "memory"),
        B(writes_around_a_raise_keep_their_order, "sqlite"),
        T(each_kind_of_damage_is_told),
        T(a_database_with_broken_pages_is_told),
        T(a_store_in_use_or_absent_is_not_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
