#include "apps/move.h"

#include "apps/apps.h"
#include "core/mem.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20)
#define FILL_WRITES_MAX 512 /* outstanding at any time */

enum at_rc at_app_place_init(struct at_app_place *place, const char *store, const char *dir,
                             struct at_err *err)
{
    *place = (struct at_app_place){.store = store};
    if (strcmp(store, "memory") == 0) {
        return at_err_set(err, AT_INVALID, "store memory keeps nothing: use sqlite or etcd:URL");
    }
    place->dir = dir != NULL ? at_strdup(dir) : at_app_state_dir("server");
    place->path = at_asprintf("%s/atoll.db", place->dir);
    place->file = strcmp(store, "sqlite") == 0;
    return AT_OK;
}

void at_app_place_done(struct at_app_place *place)
{
    at_free(place->dir);
    at_free(place->path);
}

/* --- reading --- */

static enum at_rc input_load(struct at_app_dump *dump, struct at_err *err)
{
    at_buf_init(&dump->input, AT_APP_DUMP_INPUT_BYTES_MAX);
    for (;;) {
        char *place;
        size_t len = 0;
        enum at_rc rc = at_buf_reserve(&dump->input, PIECE_BYTES, &place);
        if (rc != AT_OK) {
            return at_err_set(err, rc, "standard input is too long: use a file");
        }
        rc = at_fd_read(0, place, PIECE_BYTES, &len);
        if (rc == AT_EOF) {
            dump->loaded = true;
            return AT_OK;
        }
        if (rc != AT_OK) {
            return at_err_set(err, rc, "standard input cannot be read");
        }
        at_buf_commit(&dump->input, len);
    }
}

static enum at_rc feed_file(const char *path, struct at_dump_reader *reader, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf piece = {0};
    int64_t at = 0;
    for (;;) {
        size_t len = 0;
        at_buf_clear(&piece);
        enum at_rc rc = at_file_read_at(path, at, PIECE_BYTES, &piece, &len, err);
        if (rc != AT_OK || len == 0) {
            return rc;
        }
        rc = at_dump_reader_feed(reader, piece.data, len, err);
        if (rc != AT_OK) {
            return rc;
        }
        at += (int64_t)len;
    }
}

enum at_rc at_app_dump_read(struct at_app_dump *dump, const struct at_dump_events *events,
                            struct at_dump_summary *ret, struct at_err *err)
{
    bool input = strcmp(dump->path, "-") == 0;
    struct at_dump_reader *reader = at_dump_reader_new(events);
    enum at_rc rc = input && !dump->loaded ? input_load(dump, err) : AT_OK;
    if (rc == AT_OK && input) {
        rc = at_dump_reader_feed(reader, dump->input.data, dump->input.len, err);
    } else if (rc == AT_OK) {
        rc = feed_file(dump->path, reader, err);
    }
    if (rc == AT_OK) {
        rc = at_dump_reader_end(reader, ret, err);
    }
    at_dump_reader_free(reader);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", input ? "standard input" : dump->path) : AT_OK;
}

void at_app_dump_done(struct at_app_dump *dump)
{
    at_buf_done(&dump->input);
}

/* --- filling --- */

struct fill {
    struct at_loop *loop;
    struct at_store *store;
    size_t waiting;
    enum at_rc rc; /* the first failure */
    struct at_err err;
};

static void on_written(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                       const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct fill *f = ctx;
    f->waiting--;
    if (rc != AT_OK && f->rc == AT_OK) {
        f->rc = rc;
        f->err = *err;
    }
}

/* Until at most so many writes are outstanding. */
static enum at_rc settle(struct fill *f, size_t most, struct at_err *err)
{
    while (f->waiting > most && at_loop_turn(f->loop, INT64_MAX)) {
    }
    if (f->rc != AT_OK && err != NULL) {
        *err = f->err;
    }
    return f->rc;
}

/* etcd counts for itself: tell it what to add, and look again. */
static enum at_rc raise_etcd(struct fill *f, const struct at_app_place *place, int64_t above,
                             struct at_err *err)
{
    char offset[32];
    int len = snprintf(offset, sizeof offset, "%lld", (long long)(above - at_store_rev(f->store)));
    f->waiting++;
    at_store_put(f->store, AT_STORE_ETCD_OFFSET_KEY, offset, (size_t)len, 0, on_written, f);
    enum at_rc rc = settle(f, 0, err);
    if (rc == AT_OK) {
        f->waiting++;
        at_store_compact(f->store, at_store_rev(f->store), on_written, f);
        rc = settle(f, 0, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    at_store_close(f->store);
    f->store = NULL;
    rc = at_store_open(place->store, place->path, f->loop, &f->store, err);
    if (rc == AT_OK && at_store_rev(f->store) < above) {
        rc = at_err_set(err, AT_INTERNAL, "the revision could not be raised");
    }
    return rc;
}

static enum at_rc raise_rev(struct fill *f, const struct at_app_place *place, int64_t above,
                            struct at_err *err)
{
    if (at_store_rev(f->store) >= above) {
        return AT_OK;
    }
    if (!place->file) {
        return raise_etcd(f, place, above, err);
    }
    f->waiting++;
    at_store_advance(f->store, above, on_written, f);
    return settle(f, 0, err);
}

static enum at_rc on_key(void *ctx, const struct at_store_kv *kv, struct at_err *err)
{
    struct fill *f = ctx;
    if (strcmp(kv->key, AT_STORE_ETCD_OFFSET_KEY) == 0) {
        return AT_OK; /* of the store that it came from */
    }
    f->waiting++;
    at_store_write(f->store, &(struct at_store_write){.key = kv->key,
                                                      .value = kv->value,
                                                      .len = kv->value_len,
                                                      .ttl_s = kv->ttl_s,
                                                      .fn = on_written,
                                                      .ctx = f});
    return settle(f, FILL_WRITES_MAX - 1, err);
}

static enum at_rc fill_store(struct fill *f, const struct at_app_place *place,
                             struct at_app_dump *dump, int64_t above, struct at_err *err)
{
    struct at_dump_events events = {.ctx = f, .key = on_key};
    struct at_dump_summary again;
    if (at_store_stats(f->store).keys != 0) {
        return at_err_set(err, AT_EXISTS,
                          "the store is not empty: only an empty one can be filled");
    }
    enum at_rc rc = raise_rev(f, place, above, err);
    if (rc == AT_OK) {
        rc = at_app_dump_read(dump, &events, &again, err);
    }
    enum at_rc settled = settle(f, 0, rc == AT_OK ? err : NULL);
    rc = rc == AT_OK ? settled : rc;
    if (rc == AT_OK) {
        f->waiting++;
        at_store_compact(f->store, at_store_rev(f->store), on_written, f);
        rc = settle(f, 0, err);
    }
    assert(rc != AT_OK || at_store_rev(f->store) >= above);
    return rc;
}

static enum at_rc file_clear(const char *path, struct at_err *err)
{
    static const char *const BESIDE[] = {"", "-wal", "-shm", ".lock"};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(BESIDE) && rc == AT_OK; i++) {
        AT_CLEANUP(at_cleanup_free) char *name = at_asprintf("%s%s", path, BESIDE[i]);
        rc = at_file_remove(name, err);
    }
    return rc;
}

static enum at_rc fill_at(const struct at_app_place *place, const char *path,
                          struct at_app_dump *dump, int64_t above, int64_t *ret_rev,
                          struct at_err *err)
{
    struct fill f = {.loop = at_loop_new(at_sys_real())};
    enum at_rc rc = at_store_open(place->store, path, f.loop, &f.store, err);
    if (rc == AT_OK) {
        rc = fill_store(&f, place, dump, above, err);
        *ret_rev = f.store != NULL ? at_store_rev(f.store) : 0;
        at_store_close(f.store);
    }
    at_loop_free(f.loop);
    return rc;
}

/* Beside its place first. The lock keeps a server from starting meanwhile. */
static enum at_rc fill_file(const struct at_app_place *place, struct at_app_dump *dump,
                            int64_t above, int64_t *ret_rev, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", place->dir);
    AT_CLEANUP(at_cleanup_free) char *beside = at_asprintf("%s.import", place->path);
    int lock_fd = -1;
    enum at_rc rc = at_dir_make(place->dir, 0700, err);
    if (rc == AT_OK) {
        rc = at_file_lock(lock, &lock_fd, err);
    }
    if (rc == AT_OK && at_file_exists(place->path)) {
        rc = at_err_set(err, AT_EXISTS, "%s is there already: move it away first", place->path);
    }
    if (rc == AT_OK) {
        rc = file_clear(beside, err);
    }
    if (rc == AT_OK) {
        rc = fill_at(place, beside, dump, above, ret_rev, err);
        if (rc == AT_OK) {
            rc = at_file_replace(beside, place->path, err);
        }
        (void)!file_clear(beside, NULL);
    }
    if (lock_fd >= 0) {
        at_file_unlock(lock_fd);
    }
    return rc;
}

enum at_rc at_app_fill(const struct at_app_place *place, struct at_app_dump *dump,
                       const struct at_dump_summary *summary, int64_t step, int64_t *ret_rev,
                       struct at_err *err)
{
    if (step > AT_DUMP_REV_MAX - summary->head.rev) {
        return at_err_set(err, AT_INVALID, "the revision would be too large");
    }
    int64_t above = summary->head.rev + step;
    return place->file ? fill_file(place, dump, above, ret_rev, err)
                       : fill_at(place, place->path, dump, above, ret_rev, err);
}
