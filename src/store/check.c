#include "store/check.h"

#include "core/map.h"
#include "core/mem.h"
#include "store/store_priv.h"
#include "sys/file.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    sqlite3 *db;
    at_store_check_fn *fn;
    void *ctx;
    size_t n;
    int64_t compact_rev, rev;
    struct at_map *keys; /* -> struct last * */
};

struct last { /* what the log said of a key so far */
    int64_t create_rev;
    bool there;
};

static void AT_PRINTF(2, 3) problem(struct check *c, const char *fmt, ...)
{
    char text[AT_ERR_MSG_BYTES_MAX];
    if (c->n++ >= AT_STORE_PROBLEMS_MAX) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->fn(c->ctx, text);
}

typedef void row_fn(struct check *c, sqlite3_stmt *row);

static void each_row(struct check *c, const char *sql, row_fn *fn)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) {
            fn(c, stmt);
        }
    }
    if (code != SQLITE_DONE) {
        problem(c, "the database cannot be read: %s", sqlite3_errmsg(c->db));
    }
    sqlite3_finalize(stmt);
}

static void integrity_row(struct check *c, sqlite3_stmt *row)
{
    const char *text = (const char *)sqlite3_column_text(row, 0);
    if (text == NULL || strcmp(text, "ok") != 0) {
        problem(c, "SQLite: %s", text != NULL ? text : "out of memory");
    }
}

static void format_row(struct check *c, sqlite3_stmt *row)
{
    if (sqlite3_column_int(row, 0) != AT_STORE_SQLITE_APPLICATION_ID ||
        sqlite3_column_int(row, 1) < 1 ||
        sqlite3_column_int(row, 1) > AT_STORE_SQLITE_SCHEMA_VERSION) {
        problem(c, "the file is not a store of this version of atoll");
    }
}

static void compact_row(struct check *c, sqlite3_stmt *row)
{
    c->compact_rev = sqlite3_column_int64(row, 0);
    c->rev = c->compact_rev;
    if (c->compact_rev < 1) {
        problem(c, "the compaction mark is %lld", (long long)c->compact_rev);
    }
}

/* The record of one revision against what came before it. */
static void history_check(struct check *c, int64_t rev, int64_t create_rev, const char *key,
                          bool deleted)
{
    struct last *last = at_map_get(c->keys, key);
    if (last == NULL) {
        last = AT_NEW(struct last);
        at_map_put(c->keys, key, last);
    }
    bool kept = rev <= c->compact_rev; /* only the newest value of each key is */
    if (kept && (deleted || last->there)) {
        problem(c, "revision %lld of key %s should have been compacted", (long long)rev, key);
    }
    if (deleted && !last->there) {
        problem(c, "revision %lld deletes key %s, which is not there", (long long)rev, key);
    }
    int64_t wanted = last->there ? last->create_rev : kept ? create_rev : rev;
    if (create_rev != wanted || create_rev > rev || create_rev < 1) {
        problem(c, "revision %lld of key %s: it was made at %lld, not at %lld", (long long)rev, key,
                (long long)wanted, (long long)create_rev);
    }
    last->there = !deleted;
    last->create_rev = create_rev;
}

static void log_row(struct check *c, sqlite3_stmt *row)
{
    int64_t rev = sqlite3_column_int64(row, 0);
    const char *key = (const char *)sqlite3_column_text(row, 2);
    size_t key_len = (size_t)sqlite3_column_bytes(row, 2);
    size_t len = (size_t)sqlite3_column_bytes(row, 3);
    if (rev < 1) {
        problem(c, "revision %lld cannot be", (long long)rev);
    }
    if (rev > c->compact_rev && rev != c->rev + 1) {
        problem(c, "revision %lld is followed by %lld: records are missing", (long long)c->rev,
                (long long)rev);
    }
    c->rev = rev > c->rev ? rev : c->rev;
    if (key == NULL || key_len == 0 || key_len > AT_STORE_KEY_BYTES_MAX || strlen(key) != key_len ||
        len > AT_STORE_VALUE_BYTES_MAX) {
        problem(c, "revision %lld has a key or a value that cannot be", (long long)rev);
        return;
    }
    history_check(c, rev, sqlite3_column_int64(row, 1), key,
                  sqlite3_column_type(row, 3) == SQLITE_NULL);
}

static void look(struct check *c)
{
    sqlite3_exec(c->db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA temp_store=MEMORY", NULL, NULL,
                 NULL); /* else it needs a file for the index of the write-ahead log */
    each_row(c, "PRAGMA integrity_check", integrity_row);
    each_row(c, "SELECT (SELECT * FROM pragma_application_id), (SELECT * FROM pragma_user_version)",
             format_row);
    if (c->n != 0) {
        return; /* the rest would only repeat it */
    }
    each_row(c, "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'compact_rev'", compact_row);
    each_row(c, "SELECT rev, create_rev, key, value FROM log ORDER BY rev", log_row);
}

static enum at_rc sqlite_check(struct check *c, const char *path, struct at_err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &c->db, flags, NULL) != SQLITE_OK) {
        enum at_rc rc = at_err_set(err, AT_FORBIDDEN, "store %s: %s", path, sqlite3_errmsg(c->db));
        sqlite3_close(c->db);
        return rc;
    }
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    c->keys = at_map_new();
    look(c);
    size_t it = 0;
    const char *key;
    void *last;
    while (at_map_next(c->keys, &it, &key, &last)) {
        at_free(last);
    }
    at_map_free(c->keys);
    sqlite3_close(c->db);
    if (c->n > AT_STORE_PROBLEMS_MAX) {
        char text[64];
        snprintf(text, sizeof text, "and %zu more", c->n - AT_STORE_PROBLEMS_MAX);
        c->fn(c->ctx, text);
    }
    return AT_OK;
}

enum at_rc at_store_check(const char *kind, const char *path, at_store_check_fn *fn, void *ctx,
                          struct at_err *err)
{
    if (strcmp(kind, AT_STORE_SQLITE.kind) != 0) {
        return AT_OK;
    }
    if (!at_file_exists(path)) {
        return at_err_set(err, AT_NOT_FOUND, "there is no store %s", path);
    }
    int lock_fd;
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s.lock", path);
    enum at_rc rc = at_file_lock(lock, &lock_fd, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "store %s", path);
    }
    struct check c = {.fn = fn, .ctx = ctx};
    rc = sqlite_check(&c, path, err);
    at_file_unlock(lock_fd);
    return rc;
}
