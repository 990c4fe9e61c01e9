/* kill -9 while writes are under way, many times over: each write that was acknowledged is there
 * afterwards, and the revision never goes back. */
#include "store/store_test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 50
#define KEYS 32
#define WRITERS 16
#define ACKS_MAX 6000
#define VALUE_BYTES 1500

/* What the child prints for each acknowledged write. Fixed size, so that a pipe write is whole. */
struct ack {
    int64_t rev;
    int key;
    int value; /* -1: deleted */
};

struct writer {
    struct at_store *store;
    struct ack ack;
    int out;
    unsigned seed;
};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void write_next(struct writer *w);

static void on_ack(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                   const struct at_err *err)
{
    (void)current;
    (void)err;
    struct writer *w = ctx;
    if (rc == AT_OK) {
        struct ack ack = {rev, w->ack.key, w->ack.value};
        if (write(w->out, &ack, sizeof ack) != (ssize_t)sizeof ack) {
            _exit(1);
        }
    } else if (rc != AT_NOT_FOUND) {
        _exit(2);
    }
    if (next_random(&w->seed) % 100 == 0) {
        at_store_compact(w->store, at_store_rev(w->store) - 100, NULL, NULL);
    }
    write_next(w);
}

static void value_text(int value, char out[VALUE_BYTES])
{
    memset(out, 'v', VALUE_BYTES);
    snprintf(out, 16, "%d", value);
}

static void write_next(struct writer *w)
{
    char key[16];
    w->ack.key = (int)(next_random(&w->seed) % KEYS);
    snprintf(key, sizeof key, "/k%d", w->ack.key);
    if (next_random(&w->seed) % 8 == 0) {
        w->ack.value = -1;
        at_store_delete(w->store, key, -1, on_ack, w);
        return;
    }
    char text[VALUE_BYTES];
    w->ack.value = (int)next_random(&w->seed);
    value_text(w->ack.value, text);
    at_store_put(w->store, key, text, sizeof text, -1, on_ack, w);
}

static void child_main(const char *path, int out, unsigned seed)
{
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store;
    struct at_err err = {0};
    if (at_store_open("sqlite", path, loop, &store, &err) != AT_OK) {
        fprintf(stderr, "child: %s\n", err.msg);
        _exit(3);
    }
    struct writer writers[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.store = store, .out = out, .seed = seed * 131 + i};
        write_next(&writers[i]);
    }
    at_loop_run(loop);
    _exit(4);
}

/* Run a child and kill it after a random number of acknowledgements; returns all it gave. */
static size_t run_and_kill(const char *path, unsigned seed, struct ack *acks)
{
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(pipe_fds[0]);
        child_main(path, pipe_fds[1], seed);
    }
    close(pipe_fds[1]);
    unsigned random_seed = seed;
    size_t until = 1 + next_random(&random_seed) % 900;
    size_t n = 0;
    bool killed = false;
    while (read(pipe_fds[0], &acks[n], sizeof acks[0]) == (ssize_t)sizeof acks[0]) {
        n++;
        assert_true(n < ACKS_MAX);
        if (n >= until && !killed) {
            assert_int_equal(kill(pid, SIGKILL), 0);
            killed = true;
        }
    }
    close(pipe_fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_true(n >= until);
    return n;
}

struct found {
    bool there;
    int64_t mod_rev;
    char value[16];
};

static void on_found(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                     bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    struct found *found = ctx;
    assert_int_equal(rc, AT_OK);
    found->there = n == 1;
    if (n == 1) {
        found->mod_rev = kvs[0].mod_rev;
        snprintf(found->value, sizeof found->value, "%s", kvs[0].value);
    }
}

/* The write is what its key had at its revision, or, when that is forgotten, not newer than what
 * the key has now. */
static void check_ack(struct fixture *f, const struct ack *ack)
{
    char key[16];
    snprintf(key, sizeof key, "/k%d", ack->key);
    assert_true(ack->rev <= at_store_rev(f->store));
    struct found found = {0};
    if (ack->rev < at_store_compact_rev(f->store)) {
        at_store_range(f->store, key, NULL, 0, 0, on_found, &found);
        assert_true(!found.there || found.mod_rev >= ack->rev);
        return;
    }
    at_store_range(f->store, key, NULL, 0, ack->rev, on_found, &found);
    assert_int_equal(found.there, ack->value != -1);
    if (found.there) {
        char text[VALUE_BYTES];
        value_text(ack->value, text);
        assert_int_equal(found.mod_rev, ack->rev);
        assert_string_equal(found.value, (text[15] = '\0', text));
    }
}

static void every_acknowledged_write_survives_kill_9(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "sqlite");
    struct ack *acks = at_alloc(ACKS_MAX * sizeof *acks);
    int64_t newest = 0;
    size_t total = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        size_t n = run_and_kill(f.path, round * 7919, acks);
        fixture_open(&f);
        assert_true(at_store_rev(f.store) >= newest + (int64_t)n);
        newest = at_store_rev(f.store);
        for (size_t i = 0; i < n; i++) {
            check_ack(&f, &acks[i]);
        }
        at_store_close(f.store);
        f.store = NULL;
        total += n;
    }
    print_message("%zu acknowledged writes, %d kills, none lost\n", total, ROUNDS);
    at_free(acks);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_acknowledged_write_survives_kill_9)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
