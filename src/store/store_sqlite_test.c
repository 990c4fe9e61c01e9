/* What only the SQLite back end has: a file that outlives the process, and a disk that fails. */
#include "store/store_test.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int set_up(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    fixture_init(f, "sqlite");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_done(*state);
    at_free(*state);
    return 0;
}

static void reopen(struct fixture *f)
{
    at_store_close(f->store);
    f->store = NULL;
    fixture_open(f);
}

static void values_history_and_revisions_survive_a_restart(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_ok(f, "/a", "1");    /* 2 */
    put_ok(f, "/b", "1");    /* 3 */
    put_ok(f, "/a", "2");    /* 4 */
    del(f, "/b", -1);        /* 5 */
    put_ok(f, "/empty", ""); /* 6 */
    assert_int_equal(compact(f, 3).rc, AT_OK);
    reopen(f);
    assert_int_equal(at_store_rev(f->store), 6);
    assert_int_equal(at_store_compact_rev(f->store), 3);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=2@4 /empty=@6 ");
    assert_string_equal(list(f, "/", "0", 0, 3).text, "/a=1@2 /b=1@3 ");
    struct log log = {0};
    watch(f, "/", "0", 3, &log);
    while (log.n < 3) {
        turn(f);
    }
    assert_string_equal(log.text, "~/a=2@4[1] -/b=@5[1] +/empty=@6[] ");
    struct answer a = put(f, "/a", "3", 4);
    assert_int_equal(a.rev, 7);
    assert_int_equal(a.create_rev, 2);
}

static void the_revision_never_goes_back_even_when_all_is_deleted_and_compacted(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_ok(f, "/a", "1");
    del(f, "/a", -1);
    int64_t rev = at_store_rev(f->store);
    assert_int_equal(compact(f, rev).rc, AT_OK);
    reopen(f);
    assert_int_equal(at_store_rev(f->store), rev);
    assert_int_equal(put_ok(f, "/a", "2"), rev + 1);
    reopen(f);
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=2@4 ");
}

static int64_t count_records(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM log", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return n;
}

static void compaction_leaves_one_record_per_current_value(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    for (int i = 0; i < 200; i++) {
        char key[8];
        snprintf(key, sizeof key, "/%d", i % 10);
        put_ok(f, key, "v");
    }
    del(f, "/3", -1);
    assert_int_equal(compact(f, 100).rc, AT_OK);
    assert_int_equal(compact(f, at_store_rev(f->store)).rc, AT_OK);
    at_store_close(f->store);
    f->store = NULL;
    assert_int_equal(count_records(f->path), 9);
}

static void the_write_ahead_log_is_moved_into_the_database_as_it_grows(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    size_t len = (size_t)256 << 10;
    char *value = at_alloc(len);
    for (int i = 0; i < 64; i++) { /* 16 MiB: four times what the log may hold */
        struct answer a = {0};
        char key[8];
        snprintf(key, sizeof key, "/%d", i);
        at_store_put(f->store, key, value, len, -1, on_write, &a);
        while (!a.done) {
            turn(f);
        }
        assert_int_equal(a.rc, AT_OK);
    }
    at_free(value);
    char wal[320];
    snprintf(wal, sizeof wal, "%s-wal", f->path);
    assert_true(at_file_size(wal) < AT_STORE_WAL_PAGES_MAX * 4096 * 2);
    assert_true(at_file_size(f->path) > 8 << 20);
}

static void the_file_is_private(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static enum at_rc try_open(struct fixture *f, struct at_err *err)
{
    memset(err, 0, sizeof *err);
    struct at_store *store = NULL;
    enum at_rc rc = at_store_open("sqlite", f->path, f->loop, &store, err);
    at_store_close(store);
    return rc;
}

static void a_second_process_is_told_who_holds_the_file(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct at_err err;
    assert_int_equal(try_open(f, &err), AT_CONFLICT);
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_non_null(strstr(err.msg, pid));
    assert_non_null(strstr(err.msg, f->path));
    put_ok(f, "/a", "still works");
}

static void write_file(const char *path, const char *text, size_t len)
{
    struct at_err err;
    assert_int_equal(at_file_write_atomic(path, text, len, 0600, &err), AT_OK);
}

static void a_file_that_is_no_store_is_refused_and_kept(void **state)
{
    struct fixture *f = *state;
    struct at_err err;
    char junk[8192];
    memset(junk, 'j', sizeof junk);
    write_file(f->path, junk, sizeof junk);
    assert_int_equal(try_open(f, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, f->path));
    assert_int_equal(at_file_size(f->path), sizeof junk);
}

static void exec_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void damaged_records_are_noticed(void **state)
{
    struct fixture *f = *state;
    static const char *const damage[] = {
        "DELETE FROM log WHERE rev = 3",             /* a gap */
        "UPDATE log SET value = NULL WHERE rev = 2", /* deletes what is not there */
        "UPDATE meta SET value = 0",                 /* impossible mark */
        "PRAGMA user_version = 99",                  /* a later version's file */
        "PRAGMA application_id = 7",                 /* another program's file */
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(damage); i++) {
        fixture_open(f);
        put_ok(f, "/a", "1");
        put_ok(f, "/b", "1");
        put_ok(f, "/c", "1");
        at_store_close(f->store);
        f->store = NULL;
        exec_sql(f->path, damage[i]);
        struct at_err err;
        assert_int_equal(try_open(f, &err), AT_CORRUPT);
        assert_int_equal(unlink(f->path), 0);
    }
}

/* As another user, since root may write anywhere. */
static void a_folder_that_cannot_be_written_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(chmod(f->dir, 0555), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct at_err err = {0};
        if (geteuid() == 0 && setuid(65534) != 0) {
            _exit(3);
        }
        struct at_store *store;
        enum at_rc rc = at_store_open("sqlite", f->path, f->loop, &store, &err);
        _exit(rc == AT_FORBIDDEN && strstr(err.msg, f->path) != NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(chmod(f->dir, 0755), 0);
}

/* A disk that fails: a VFS over the real one that counts writes, syncs and truncations, and fails
 * number fail_at (and fail_more after it) with fail_code. */
static atomic_int disk_calls, fail_at, fail_more, fail_code;

struct shim_file {
    sqlite3_file base;
    sqlite3_file real[];
};

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((struct shim_file *)file)->real;
}

static bool fails(void)
{
    int n = atomic_fetch_add(&disk_calls, 1) + 1;
    int at = atomic_load(&fail_at);
    return at != 0 && n >= at && n <= at + atomic_load(&fail_more);
}

static int shim_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}
static int shim_read(sqlite3_file *file, void *out, int n, sqlite3_int64 at)
{
    return real_of(file)->pMethods->xRead(real_of(file), out, n, at);
}
static int shim_write(sqlite3_file *file, const void *in, int n, sqlite3_int64 at)
{
    if (fails()) { /* half of it gets there */
        real_of(file)->pMethods->xWrite(real_of(file), in, n / 2, at);
        return atomic_load(&fail_code);
    }
    return real_of(file)->pMethods->xWrite(real_of(file), in, n, at);
}
static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return fails() ? SQLITE_IOERR_TRUNCATE
                   : real_of(file)->pMethods->xTruncate(real_of(file), size);
}
static int shim_sync(sqlite3_file *file, int flags)
{
    return fails() ? SQLITE_IOERR_FSYNC : real_of(file)->pMethods->xSync(real_of(file), flags);
}
static int shim_size(sqlite3_file *file, sqlite3_int64 *out)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), out);
}
static int shim_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}
static int shim_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}
static int shim_check_lock(sqlite3_file *file, int *out)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}
static int shim_control(sqlite3_file *file, int op, void *arg)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}
static int shim_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}
static int shim_traits(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    /* Version 1: no shared memory, so this also proves that none is needed. */
    static const sqlite3_io_methods METHODS = {
        1,         shim_close,  shim_read,       shim_write,   shim_truncate, shim_sync,  shim_size,
        shim_lock, shim_unlock, shim_check_lock, shim_control, shim_sector,   shim_traits};
    sqlite3_vfs *real = vfs->pAppData;
    int code = real->xOpen(real, name, real_of(file), flags, out);
    file->pMethods = real_of(file)->pMethods != NULL ? &METHODS : NULL;
    return code;
}

static sqlite3_vfs shim_vfs;

static void shim_on(void)
{
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    shim_vfs = *real;
    shim_vfs.zName = "failing";
    shim_vfs.szOsFile = (int)sizeof(struct shim_file) + real->szOsFile;
    shim_vfs.pAppData = real;
    shim_vfs.xOpen = shim_open;
    sqlite3_vfs_register(&shim_vfs, 1);
}

static void shim_off(void)
{
    sqlite3_vfs_unregister(&shim_vfs);
    atomic_store(&fail_at, 0);
}

static void arm(int at, int more, int code)
{
    atomic_store(&disk_calls, 0);
    atomic_store(&fail_code, code);
    atomic_store(&fail_more, more);
    atomic_store(&fail_at, at);
}

/* Twelve batches of two writes and a compaction; returns how many writes were refused. */
static int write_some(struct fixture *f, const char *filler)
{
    int refused = 0;
    for (int i = 0; i < 12; i++) {
        struct answer a = {0};
        struct answer b = {0};
        char key[16];
        snprintf(key, sizeof key, "/%d", i % 5);
        at_store_put(f->store, key, filler, 3000, -1, on_write, &a);
        b = put(f, "/all", key, -1);
        assert_true(a.done);
        assert_int_equal(a.rc, b.rc); /* one batch: both or none */
        assert_true(a.rc == AT_OK || a.rc == AT_IO || a.rc == AT_CORRUPT);
        refused += (a.rc != AT_OK) * 2;
        if (i == 6) {
            compact(f, at_store_rev(f->store) - 2);
        }
    }
    return refused;
}

static void check_same_after_reopening(struct fixture *f)
{
    struct listing *before = AT_NEW(struct listing);
    struct listing *after = AT_NEW(struct listing);
    *before = list(f, "/", "0", 0, 0);
    reopen(f);
    *after = list(f, "/", "0", 0, 0);
    assert_string_equal(before->text, after->text);
    assert_int_equal(before->rev, after->rev);
    at_free(before);
    at_free(after);
}

static void torture(struct fixture *f, int more, int code)
{
    char filler[3001];
    memset(filler, 'f', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    shim_on();
    int failures = 0;
    for (int n = 1;; n++) {
        arm(0, 0, SQLITE_OK);
        fixture_open(f);
        put_ok(f, "/first", "1");
        arm(n, more, code);
        int refused = write_some(f, filler);
        bool reached = atomic_load(&disk_calls) >= n;
        atomic_store(&fail_at, 0);
        failures += refused != 0;
        put_ok(f, "/after", "the store goes on"); /* once the disk is well again */
        check_same_after_reopening(f);
        put_ok(f, "/after", "and after a restart");
        at_store_close(f->store);
        f->store = NULL;
        assert_int_equal(unlink(f->path), 0);
        if (!reached) {
            break;
        }
    }
    shim_off();
    assert_true(failures > 10);
}

static void any_failed_write_refuses_its_batch_and_nothing_else(void **state)
{
    torture(*state, 0, SQLITE_IOERR_WRITE);
}

static void a_disk_that_stays_full_for_a_while_refuses_writes_and_recovers(void **state)
{
    torture(*state, 7, SQLITE_FULL);
}

static void a_full_disk_is_named(void **state)
{
    struct fixture *f = *state;
    shim_on();
    fixture_open(f);
    put_ok(f, "/a", "1");
    arm(1, 1000000, SQLITE_FULL);
    struct answer a = put(f, "/a", "2", -1);
    assert_int_equal(a.rc, AT_IO);
    assert_non_null(strstr(a.msg, "disk is full"));
    assert_string_equal(list(f, "/", "0", 0, 0).text, "/a=1@2 ");
    struct answer wrong = put(f, "/a", "2", 9); /* decided without the disk */
    assert_int_equal(wrong.rc, AT_CONFLICT);
    atomic_store(&fail_at, 0);
    assert_int_equal(put(f, "/a", "2", 2).rev, 3);
    at_store_close(f->store);
    f->store = NULL;
    shim_off();
}

static void opening_on_a_failing_disk_fails_cleanly(void **state)
{
    struct fixture *f = *state;
    shim_on();
    enum at_rc rc = AT_IO;
    int n = 0;
    while (rc != AT_OK) {
        struct at_err err;
        arm(++n, 0, SQLITE_FULL);
        rc = try_open(f, &err);
        assert_true(rc == AT_OK || rc == AT_IO);
    }
    shim_off();
    assert_true(n > 3);
    fixture_open(f);
    put_ok(f, "/a", "1");
}

#define EACH(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    prefer_memory_for_files();
    const struct CMUnitTest tests[] = {
        EACH(values_history_and_revisions_survive_a_restart),
        EACH(the_revision_never_goes_back_even_when_all_is_deleted_and_compacted),
        EACH(compaction_leaves_one_record_per_current_value),
        EACH(the_write_ahead_log_is_moved_into_the_database_as_it_grows),
        EACH(the_file_is_private),
        EACH(a_second_process_is_told_who_holds_the_file),
        EACH(a_file_that_is_no_store_is_refused_and_kept),
        EACH(damaged_records_are_noticed),
        EACH(a_folder_that_cannot_be_written_is_refused),
        EACH(any_failed_write_refuses_its_batch_and_nothing_else),
        EACH(a_disk_that_stays_full_for_a_while_refuses_writes_and_recovers),
        EACH(a_full_disk_is_named),
        EACH(opening_on_a_failing_disk_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
