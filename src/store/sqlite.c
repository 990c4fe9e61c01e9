/* The back end on one SQLite file.
 *
 * Table log has one record per revision: the key and its new value. Nothing else is written by a
 * put, so a batch appends to the end of one B-tree. The current values are the newest record of
 * each key; compaction deletes records that a later one, old enough, has replaced. The front keeps
 * the index in memory and rebuilds it from the log at open, so no table of current values is
 * needed. write-ahead log with synchronous=FULL: COMMIT returns after fsync. */
#include "core/mem.h"
#include "store/sqlite_priv.h"
#include "sys/file.h"

#include <assert.h>
#include <string.h>

struct sqlite_store {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *rollback, *insert, *drop, *compact, *newest;
    struct at_sqlite_journal *journal; /* NULL: none */
    int lock_fd;
    int64_t rev; /* newest that is durable, as far as we were told */
    int wal_pages;
    bool broken; /* what is stored and what was answered differ: only a restart helps */
};

static enum at_rc rc_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return AT_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return AT_CONFLICT;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
        return AT_FORBIDDEN;
    case SQLITE_NOMEM:
        return AT_NOMEM;
    default:
        return AT_IO;
    }
}

static enum at_rc fail(sqlite3 *db, const char *doing, struct at_err *err)
{
    int code = sqlite3_extended_errcode(db);
    if ((code & 0xff) == SQLITE_FULL) {
        return at_err_set(err, AT_IO, "store: %s: the disk is full, nothing was stored", doing);
    }
    return at_err_set(err, rc_of(code), "store: %s: %s (SQLite error %d)", doing,
                      sqlite3_errmsg(db), code);
}

static enum at_rc exec(sqlite3 *db, const char *sql, const char *doing, struct at_err *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? AT_OK : fail(db, doing, err);
}

/* Run a statement that gives no rows. */
static int step(sqlite3_stmt *stmt)
{
    int code = sqlite3_step(stmt);
    sqlite3_reset(stmt);
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

static int on_wal(void *ctx, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct sqlite_store *)ctx)->wal_pages = pages;
    return SQLITE_OK;
}

static enum at_rc one_int(sqlite3 *db, const char *sql, int64_t *ret, struct at_err *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        return fail(db, "open", err);
    }
    enum at_rc rc = AT_OK;
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        *ret = sqlite3_column_int64(stmt, 0);
    } else {
        rc = fail(db, "open", err);
    }
    sqlite3_finalize(stmt);
    return rc;
}

/* Each step is one transaction. */
static enum at_rc upgrade(sqlite3 *db, int64_t version, struct at_err *err)
{
    char *sql = sqlite3_mprintf("BEGIN IMMEDIATE;"
                                "ALTER TABLE log ADD COLUMN ttl_s INTEGER;"
                                "ALTER TABLE log ADD COLUMN wall_ms INTEGER;"
                                "PRAGMA user_version=%d; COMMIT;",
                                AT_STORE_SQLITE_SCHEMA_VERSION);
    assert(version == 1);
    enum at_rc rc = exec(db, sql, "upgrade", err);
    sqlite3_free(sql);
    return rc;
}

static enum at_rc set_up(sqlite3 *db, struct at_err *err)
{
    /* One process, one connection: exclusive locking keeps the WAL's index in plain memory. */
    enum at_rc rc = exec(db,
                         "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
                         "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;"
                         "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2000;",
                         "open", err);
    int64_t version = 0;
    int64_t application = 0;
    if (rc == AT_OK) {
        rc = one_int(db, "PRAGMA user_version", &version, err);
    }
    if (rc == AT_OK) {
        rc = one_int(db, "PRAGMA application_id", &application, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (version > AT_STORE_SQLITE_SCHEMA_VERSION ||
        (version != 0 && application != AT_STORE_SQLITE_APPLICATION_ID)) {
        return at_err_set(err, AT_CORRUPT,
                          "store: the file is not a store of this or an earlier version of atoll");
    }
    if (version == 1) {
        return upgrade(db, version, err);
    }
    if (version == 0) {
        char *sql = sqlite3_mprintf(
            "BEGIN IMMEDIATE;"
            "CREATE TABLE log(rev INTEGER PRIMARY KEY, create_rev INTEGER NOT NULL,"
            " key TEXT NOT NULL, value BLOB, ttl_s INTEGER, wall_ms INTEGER);" /* NULL: deleted */
            "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
            "INSERT INTO meta VALUES('compact_rev', 1);"
            "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
            AT_STORE_SQLITE_APPLICATION_ID, AT_STORE_SQLITE_SCHEMA_VERSION);
        rc = exec(db, sql, "make the tables", err);
        sqlite3_free(sql);
    }
    return rc;
}

static enum at_rc prepare(struct sqlite_store *s, struct at_err *err)
{
    const struct {
        sqlite3_stmt **stmt;
        const char *sql;
    } rows[] = {
        {&s->begin, "BEGIN IMMEDIATE"},
        {&s->commit, "COMMIT"},
        {&s->rollback, "ROLLBACK"},
        {&s->insert, "INSERT INTO log(rev, create_rev, key, value, ttl_s, wall_ms)"
                     " VALUES(?1, ?2, ?3, ?4, ?5, ?6)"},
        {&s->drop, "DELETE FROM log WHERE rev = ?1"},
        {&s->compact, "UPDATE meta SET value = ?1 WHERE name = 'compact_rev'"},
        {&s->newest, "SELECT max((SELECT coalesce(max(rev), 0) FROM log),"
                     " (SELECT value FROM meta WHERE name = 'compact_rev'))"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        if (sqlite3_prepare_v3(s->db, rows[i].sql, -1, SQLITE_PREPARE_PERSISTENT, rows[i].stmt,
                               NULL) != SQLITE_OK) {
            return fail(s->db, "open", err);
        }
    }
    return AT_OK;
}

static enum at_rc load_rows(sqlite3 *db, sqlite3_stmt *rows, const struct at_store_load *load,
                            int64_t *newest, struct at_err *err)
{
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(rows, 2);
        bool deleted = sqlite3_column_type(rows, 3) == SQLITE_NULL;
        const void *value = sqlite3_column_blob(rows, 3); /* NULL for no bytes, too */
        if (key == NULL) {
            return at_err_set(err, AT_CORRUPT, "store: a record without a key");
        }
        *newest = sqlite3_column_int64(rows, 0);
        const struct at_store_record record = {
            .rev = *newest,
            .create_rev = sqlite3_column_int64(rows, 1),
            .key = key,
            .value = deleted         ? NULL
                     : value != NULL ? value
                                     : "",
            .len = (size_t)sqlite3_column_bytes(rows, 3),
            .ttl_s = sqlite3_column_int64(rows, 4),
            .wall_ms = sqlite3_column_int64(rows, 5),
        };
        enum at_rc rc = load->record(load->ctx, &record, err);
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "store");
        }
    }
    return code == SQLITE_DONE ? AT_OK : fail(db, "read", err);
}

static enum at_rc load_all(struct sqlite_store *s, const struct at_store_load *load,
                           struct at_err *err)
{
    int64_t compact_rev = 0;
    enum at_rc rc =
        one_int(s->db, "SELECT value FROM meta WHERE name = 'compact_rev'", &compact_rev, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (compact_rev < 1) {
        return at_err_set(err, AT_CORRUPT, "store: the compaction mark is %lld",
                          (long long)compact_rev);
    }
    load->compacted(load->ctx, compact_rev);
    sqlite3_stmt *rows;
    if (sqlite3_prepare_v2(s->db,
                           "SELECT rev, create_rev, key, value, ttl_s, wall_ms FROM log"
                           " ORDER BY rev",
                           -1, &rows, NULL) != SQLITE_OK) {
        return fail(s->db, "read", err);
    }
    int64_t newest = 0;
    rc = load_rows(s->db, rows, load, &newest, err);
    sqlite3_finalize(rows);
    s->rev = newest > compact_rev ? newest : compact_rev;
    return rc;
}

static void sqlite_close(void *backend)
{
    struct sqlite_store *s = backend;
    sqlite3_stmt *const all[] = {s->begin, s->commit,  s->rollback, s->insert,
                                 s->drop,  s->compact, s->newest};
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        sqlite3_finalize(all[i]);
    }
    at_sqlite_journal_free(s->journal);
    sqlite3_close(s->db); /* moves the write-ahead log into the database */
    at_file_unlock(s->lock_fd);
    at_free(s);
}

static enum at_rc open_file(struct sqlite_store *s, const char *path, struct at_err *err)
{
    /* Made by us and empty when it is new, so that nobody else can read it. */
    enum at_rc rc = at_file_exists(path) ? AT_OK : at_file_append(path, "", 0, 0600, err);
    if (rc != AT_OK) {
        return rc;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) {
        return s->db != NULL ? fail(s->db, "open", err)
                             : at_err_set(err, AT_NOMEM, "store: open: out of memory");
    }
    if (sqlite3_db_readonly(s->db, "main") == 1) {
        return at_err_set(err, AT_FORBIDDEN, "store: the file is read-only");
    }
    return AT_OK;
}

static enum at_rc sqlite_open(const char *path, const struct at_store_load *load, void **ret,
                              struct at_err *err)
{
    assert(path != NULL);
    int lock_fd;
    char *lock_path = at_asprintf("%s.lock", path);
    enum at_rc rc = at_file_lock(lock_path, &lock_fd, err);
    at_free(lock_path);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "store %s", path);
    }
    struct sqlite_store *s = AT_NEW(struct sqlite_store);
    s->lock_fd = lock_fd;
    rc = open_file(s, path, err);
    if (rc == AT_OK) {
        rc = set_up(s->db, err);
        sqlite3_wal_hook(s->db, on_wal, s); /* wal_autocheckpoint would take its place */
    }
    if (rc == AT_OK) {
        rc = prepare(s, err);
    }
    if (rc == AT_OK) {
        rc = load_all(s, load, err);
    }
    if (rc != AT_OK) {
        sqlite_close(s);
        return at_err_wrap(err, rc, "%s", path);
    }
    sqlite3_db_release_memory(s->db);
    *ret = s;
    return AT_OK;
}

/* *ret_err: why a value could not be sealed. */
static int write_change(struct sqlite_store *s, const struct at_store_batch *batch,
                        const struct at_store_change *change, struct at_err *ret_err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf sealed = {0};
    const struct at_store_version *cur = change->cur;
    const struct at_store_version *any = cur != NULL ? cur : change->prev;
    sqlite3_bind_int64(s->insert, 1, change->rev);
    sqlite3_bind_int64(s->insert, 2, any->create_rev);
    sqlite3_bind_text(s->insert, 3, at_store_version_key(any), (int)any->key_len, SQLITE_STATIC);
    if (cur != NULL) {
        struct at_str value = {at_store_version_value(cur), cur->value_len};
        if (at_store_seal_value(batch->seal, at_store_version_key(cur), value, &sealed, &value,
                                ret_err) != AT_OK) {
            sqlite3_clear_bindings(s->insert);
            return SQLITE_ABORT;
        }
        sqlite3_bind_blob(s->insert, 4, value.ptr, (int)value.len, SQLITE_STATIC);
    } else {
        sqlite3_bind_null(s->insert, 4);
    }
    if (cur != NULL && cur->ttl_s != 0) {
        sqlite3_bind_int64(s->insert, 5, cur->ttl_s);
        sqlite3_bind_int64(s->insert, 6, batch->wall_ms);
    }
    int code = step(s->insert);
    sqlite3_clear_bindings(s->insert);
    return code;
}

static int write_batch(struct sqlite_store *s, const struct at_store_batch *batch,
                       struct at_err *ret_err)
{
    int code = step(s->begin);
    for (size_t i = 0; i < batch->n_changes && code == SQLITE_OK; i++) {
        code = write_change(s, batch, &batch->changes[i], ret_err);
    }
    for (size_t i = 0; i < batch->n_dead && code == SQLITE_OK; i++) {
        sqlite3_bind_int64(s->drop, 1, batch->dead[i]);
        code = step(s->drop);
    }
    if (batch->compact_rev != 0 && code == SQLITE_OK) {
        sqlite3_bind_int64(s->compact, 1, batch->compact_rev);
        code = step(s->compact);
    }
    if (batch->rider != NULL && code == SQLITE_OK) {
        code = at_sqlite_journal_write(s->journal, batch->rider);
    }
    return code == SQLITE_OK ? step(s->commit) : code;
}

/* A COMMIT that failed may have been carried out all the same (say, only its fsync failed). Then
 * what we answer and what is stored would differ for ever. */
static void check_nothing_stored(struct sqlite_store *s)
{
    int64_t newest = -1;
    if (sqlite3_step(s->newest) == SQLITE_ROW) {
        newest = sqlite3_column_int64(s->newest, 0);
    }
    sqlite3_reset(s->newest);
    s->broken = newest != -1 && newest != s->rev;
}

static void rider_end(const struct at_store_batch *batch, struct at_sqlite_journal *journal,
                      bool committed)
{
    if (batch->rider != NULL) {
        batch->rider->kept = at_sqlite_journal_end(journal, committed);
    }
}

static enum at_rc sqlite_commit(void *backend, const struct at_store_batch *batch,
                                struct at_err *err)
{
    struct sqlite_store *s = backend;
    if (s->broken) {
        return at_err_set(err, AT_CORRUPT,
                          "store: an earlier write failed half-way, restart to go on");
    }
    struct at_err sealing = {0};
    if (write_batch(s, batch, &sealing) != SQLITE_OK) {
        enum at_rc rc = sealing.rc != AT_OK ? at_err_set(err, sealing.rc, "%s", sealing.msg)
                                            : fail(s->db, "write", err);
        if (sqlite3_get_autocommit(s->db) == 0) {
            step(s->rollback);
        }
        check_nothing_stored(s);
        rider_end(batch, s->journal, false);
        return rc;
    }
    rider_end(batch, s->journal, true);
    s->rev += (int64_t)batch->n_changes;
    s->rev = s->rev > batch->compact_rev ? s->rev : batch->compact_rev;
    return AT_OK;
}

static enum at_rc sqlite_journal_open(void *backend, at_store_journal_fn *each, void *ctx,
                                      struct at_err *err)
{
    struct sqlite_store *s = backend;
    assert(s->journal == NULL);
    int code = at_sqlite_journal_new(s->db, each, ctx, &s->journal);
    return code == SQLITE_OK ? AT_OK : fail(s->db, "open the journal", err);
}

static void sqlite_tidy(void *backend)
{
    struct sqlite_store *s = backend;
    if (s->wal_pages < AT_STORE_WAL_PAGES_MAX) {
        return;
    }
    /* When it fails (disk full) the log just stays, and the next batch tries again. */
    if (sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) ==
        SQLITE_OK) {
        s->wal_pages = 0;
    }
}

const struct at_store_backend AT_STORE_SQLITE = {
    .kind = "sqlite",
    .blocking = true,
    .open = sqlite_open,
    .commit = sqlite_commit,
    .journal_open = sqlite_journal_open,
    .tidy = sqlite_tidy,
    .close = sqlite_close,
};
