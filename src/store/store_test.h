/* What the store's tests share: a loop, a temporary folder, and calls that wait for their answer.
 */
#ifndef AT_STORE_TEST_H
#define AT_STORE_TEST_H

#include "core/mem.h"
#include "store/store.h"
#include "store/store_priv.h"
#include "sys/file.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/etcd_test.h"
#include "store/etcd_wire.h"

struct fixture {
    const char *kind;
    struct at_loop *loop;
    struct at_store *store;
    char dir[256];
    char path[300];
    struct etcd_server etcd; /* of kind etcd */
};

/* Tests name revisions by how many writes there were, from 1 on: those of memory and SQLite. etcd's
 * are its own times the places of one, and the first is used up by the scheme's key. */
static bool revs_are_wide;

static inline int64_t nth(int64_t rev)
{
    int64_t raw = rev / AT_ETCD_PLACES;
    return !revs_are_wide || rev <= 0 ? rev : raw <= 1 ? 1 : raw - 1;
}

/* The revision that the n-th write gave the key. */
static inline int64_t rev_of(const char *key, int64_t n)
{
    return !revs_are_wide || n <= 0 ? n : (n + 1) * AT_ETCD_PLACES + (int64_t)at_etcd_place(key);
}

/* The store's after the n-th write. */
static inline int64_t rev_after(int64_t n)
{
    return !revs_are_wide || n <= 0 ? n : (n == 1 ? 2 : n + 2) * AT_ETCD_PLACES - 1;
}

/* These tests sync thousands of times, and what they show does not depend on a real disk. */
static inline void prefer_memory_for_files(void)
{
    if (access("/dev/shm", W_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 0);
    }
}

static inline void fixture_open(struct fixture *f)
{
    struct at_err err = {0};
    enum at_rc rc = at_store_open(f->kind, f->path, f->loop, &f->store, &err);
    if (rc != AT_OK) {
        fail_msg("open %s: %s", f->path, err.msg);
    }
}

static inline void fixture_init(struct fixture *f, const char *kind)
{
    memset(f, 0, sizeof *f);
    f->kind = kind;
    revs_are_wide = strcmp(kind, "etcd") == 0;
    f->loop = at_loop_new(at_sys_real());
    const char *tmp = at_sys_getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%s/atoll-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/store.db", f->dir);
    if (strcmp(kind, "etcd") == 0) {
        etcd_start(&f->etcd, f->dir);
        snprintf(f->path, sizeof f->path, "%s", f->etcd.url);
    }
}

static inline void fixture_done(struct fixture *f)
{
    at_store_close(f->store);
    at_loop_free(f->loop);
    etcd_stop(&f->etcd);
    struct at_err err;
    assert_int_equal(at_tree_remove(f->dir, &err), AT_OK);
}

static inline void turn(struct fixture *f)
{
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_S;
    at_loop_turn(f->loop, deadline);
    if (at_sys_mono_ns(at_sys_real()) >= deadline) {
        fail_msg("waited for 20 s in vain");
    }
}

static inline int64_t rev_now(const struct fixture *f)
{
    return nth(at_store_rev(f->store));
}

static inline int64_t compact_rev_now(const struct fixture *f)
{
    return nth(at_store_compact_rev(f->store));
}

/* The answer to one write. */
struct answer {
    bool done;
    enum at_rc rc;
    int64_t rev;
    bool has_current;
    char value[64];
    int64_t create_rev, mod_rev;
    char msg[AT_ERR_MSG_BYTES_MAX];
    int *order; /* counts callbacks; NULL: not counted */
    int number;
};

static inline void on_write(void *ctx, enum at_rc rc, int64_t rev,
                            const struct at_store_kv *current, const struct at_err *err)
{
    struct answer *a = ctx;
    assert_false(a->done);
    a->done = true;
    a->rc = rc;
    a->rev = nth(rev);
    a->has_current = current != NULL;
    if (current != NULL) {
        snprintf(a->value, sizeof a->value, "%.*s", (int)current->value_len, current->value);
        a->create_rev = nth(current->create_rev);
        a->mod_rev = nth(current->mod_rev);
    }
    if (err != NULL) {
        snprintf(a->msg, sizeof a->msg, "%s", err->msg);
    }
    if (a->order != NULL) {
        a->number = ++*a->order;
    }
}

static inline struct answer put(struct fixture *f, const char *key, const char *value,
                                int64_t expect)
{
    struct answer a = {0};
    at_store_put(f->store, key, value, strlen(value), rev_of(key, expect), on_write, &a);
    while (!a.done) {
        turn(f);
    }
    return a;
}

static inline int64_t put_ok(struct fixture *f, const char *key, const char *value)
{
    struct answer a = put(f, key, value, -1);
    if (a.rc != AT_OK) {
        fail_msg("put %s: %s", key, a.msg);
    }
    return a.rev;
}

static inline struct answer del(struct fixture *f, const char *key, int64_t expect)
{
    struct answer a = {0};
    at_store_delete(f->store, key, rev_of(key, expect), on_write, &a);
    while (!a.done) {
        turn(f);
    }
    return a;
}

static inline struct answer compact(struct fixture *f, int64_t rev)
{
    struct answer a = {0};
    at_store_compact(f->store, rev_after(rev), on_write, &a);
    while (!a.done) {
        turn(f);
    }
    return a;
}

/* A range as text: "key=value@mod_rev " for each. */
struct listing {
    enum at_rc rc;
    int64_t rev;
    size_t n;
    bool more;
    char text[4096];
};

static inline void on_range(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                            size_t n, bool more, const struct at_err *err)
{
    struct listing *l = ctx;
    assert_true((rc == AT_OK) == (err == NULL));
    l->rc = rc;
    l->rev = nth(rev);
    l->n = n;
    l->more = more;
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof l->text; i++) {
        assert_int_equal(kvs[i].value[kvs[i].value_len], '\0');
        used += (size_t)snprintf(l->text + used, sizeof l->text - used, "%s=%s@%lld ", kvs[i].key,
                                 kvs[i].value, (long long)nth(kvs[i].mod_rev));
    }
}

static inline struct listing list(struct fixture *f, const char *from, const char *to, size_t limit,
                                  int64_t at_rev)
{
    struct listing l = {0};
    at_store_range(f->store, from, to, limit, rev_after(at_rev), on_range, &l);
    return l;
}

/* Events as text: "+key=value@rev " new, "~" changed, "-" deleted; the value before in brackets. */
struct log {
    char text[8192];
    size_t used, n;
    int64_t last_rev, newest;
    enum at_rc rc;
};

static inline void on_events(void *ctx, enum at_rc rc, const struct at_store_event *events,
                             size_t n)
{
    struct log *log = ctx;
    log->rc = rc;
    for (size_t i = 0; i < n; i++) {
        const struct at_store_event *e = &events[i];
        assert_true(e->rev > log->newest);
        assert_int_equal(e->rev, e->cur.mod_rev);
        log->newest = e->rev;
        log->last_rev = nth(e->rev);
        log->n++;
        if (log->used >= sizeof log->text) {
            continue;
        }
        log->used += (size_t)snprintf(log->text + log->used, sizeof log->text - log->used,
                                      "%c%s=%s@%lld[%s] ",
                                      e->deleted        ? '-'
                                      : e->prev != NULL ? '~'
                                                        : '+',
                                      e->cur.key, e->cur.value, (long long)nth(e->rev),
                                      e->prev != NULL ? e->prev->value : "");
    }
}

static inline at_store_watch_id watch(struct fixture *f, const char *from, const char *to,
                                      int64_t after_rev, struct log *log)
{
    at_store_watch_id id = 0;
    struct at_err err = {0};
    enum at_rc rc =
        at_store_watch(f->store, from, to, rev_after(after_rev), on_events, log, &id, &err);
    if (rc != AT_OK) {
        fail_msg("watch: %s", err.msg);
    }
    return id;
}

#endif
