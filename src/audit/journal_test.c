/* Records that ride in a store's transactions, and power cuts that take what was not synced. The
 * store here is a pretend one: what its journal kept is a list of texts. */
#include "audit/audit_priv.h"
#include "audit/journal.h"
#include "audit/verify.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_NS (20 * AT_NS_PER_S)
#define BATCHES_MAX 200

struct kit {
    char dir[64];
    struct at_loop *loop;
    struct at_audit *audit;
    uint64_t settled;
    struct at_buf batches[BATCHES_MAX];
    uint64_t dead[BATCHES_MAX];
    size_t n;
};

static void on_settled(void *ctx, uint64_t ticket)
{
    ((struct kit *)ctx)->settled = ticket;
}

static struct at_audit_redo *redo_of(const struct kit *kit)
{
    struct at_audit_redo *redo = at_audit_redo_new();
    for (size_t i = 0; i < kit->n; i++) {
        at_audit_redo_add(redo, kit->batches[i].data, kit->batches[i].len);
    }
    return redo;
}

static struct at_audit *open_in(struct kit *kit, const char *dir, int64_t file_bytes_max)
{
    struct at_audit *audit = NULL;
    struct at_audit_redo *redo = redo_of(kit);
    struct at_err err = {0};
    const struct at_audit_options o = {.loop = kit->loop,
                                       .dir = dir,
                                       .level = AT_AUDIT_ALL,
                                       .journaled = true,
                                       .redo = redo,
                                       .file_bytes_max = file_bytes_max,
                                       .settled = on_settled,
                                       .ctx = kit};
    if (at_audit_open(&o, &audit, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    at_audit_redo_free(redo);
    return audit;
}

static int set_up(void **state)
{
    struct kit *kit = AT_NEW(struct kit);
    snprintf(kit->dir, sizeof kit->dir, "/tmp/atoll-audit-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    kit->loop = at_loop_new(at_sys_real());
    kit->audit = open_in(kit, kit->dir, 0);
    *state = kit;
    return 0;
}

static int tear_down(void **state)
{
    struct kit *kit = *state;
    at_audit_close(kit->audit);
    at_loop_free(kit->loop);
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        at_buf_done(&kit->batches[i]);
    }
    assert_int_equal(at_tree_remove(kit->dir, NULL), AT_OK);
    at_free(kit);
    return 0;
}

static uint64_t add(struct kit *kit, unsigned number, enum at_audit_wait wait)
{
    char text[80];
    int len = snprintf(text, sizeof text, "\"time\":\"T\",\"user\":\"u%u.\"", number);
    return at_audit_add(kit->audit, text, (size_t)len, wait);
}

/* One batch of the store. Does it keep something? */
static bool commit(struct kit *kit, bool works)
{
    uint64_t tag = 0;
    uint64_t mark = at_audit_journal_mark(kit->audit);
    struct at_buf *out = &kit->batches[kit->n];
    assert_true(kit->n < BATCHES_MAX);
    at_buf_clear(out);
    bool taken =
        mark != 0 && at_audit_journal_take(kit->audit, mark, out, &tag, &kit->dead[kit->n]);
    kit->n += taken && works;
    if (mark != 0) {
        at_audit_journal_landed(kit->audit, taken && works);
    }
    return taken;
}

static void wait_for(struct kit *kit, uint64_t ticket)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (kit->settled < ticket) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(kit->loop, at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_MS);
    }
}

/* Users u0 to u<n-1>, by one ride each three. */
static unsigned ride(struct kit *kit, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t ticket = add(kit, i, i % 3 == 0 ? AT_AUDIT_LATER : AT_AUDIT_RIDES);
        if (i % 3 == 2) {
            assert_true(commit(kit, true));
            assert_int_equal(kit->settled, ticket); /* and nothing was waited for */
        }
    }
    return n;
}

static void read_all(const char *dir, const char *name, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, name);
    assert_int_equal(at_file_read(path, (size_t)1 << 24, out, NULL), AT_OK);
}

/* The folder after a power cut: audit.log ends after cut bytes, with junk of zeros behind. */
static char *power_cut(struct kit *kit, const char *name, size_t cut, size_t junk)
{
    char *dir = at_asprintf("%s/%s", kit->dir, name);
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(at_tree_remove(dir, NULL), AT_OK);
    assert_int_equal(at_dir_list(kit->dir, &names, &n, NULL), AT_OK);
    assert_int_equal(at_dir_make(dir, 0700, NULL), AT_OK);
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_free) char *to = at_asprintf("%s/%s", dir, names[i]);
        if (strncmp(names[i], "audit.", 6) == 0) {
            read_all(kit->dir, names[i], &text);
            if (at_streq(names[i], "audit.log")) {
                text.len = cut;
                char *place = NULL;
                assert_int_equal(at_buf_reserve(&text, junk, &place), AT_OK);
                memset(place, 0, junk);
                at_buf_commit(&text, junk);
            }
            assert_int_equal(at_file_write_atomic(to, text.data, text.len, 0600, NULL), AT_OK);
        }
        at_free(names[i]);
    }
    at_free(names);
    return dir;
}

static size_t offset_of(const struct at_buf *batch)
{
    unsigned long long synced = 0;
    unsigned long long first = 0;
    unsigned long long offset = 0;
    assert_int_equal(sscanf(batch->data, "J1 %llu %llu %llu", &synced, &first, &offset), 3);
    return (size_t)offset;
}

static bool has_user(const struct at_buf *text, unsigned i)
{
    char user[32];
    snprintf(user, sizeof user, "\"u%u.\"", i);
    return memmem(text->data, text->len, user, strlen(user)) != NULL;
}

/* Opened after a power cut, it holds what was settled, and is whole. */
static void assert_healed(struct kit *kit, const char *dir, unsigned users, bool recovers)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_audit_report r;
    struct at_err err = {0};
    at_audit_close(open_in(kit, dir, 0));
    if (at_audit_verify(dir, NULL, 0, &r, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    read_all(dir, "audit.log", &text);
    for (unsigned i = 0; i < users; i++) {
        assert_true(has_user(&text, i));
    }
    bool said = memmem(text.data, text.len, "\"recovered\",\"records\"", 21) != NULL;
    assert_int_equal(said, recovers);
}

static void what_rode_is_settled_without_a_sync_and_survives_a_power_cut_anywhere(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    unsigned users = ride(kit, 9);
    add(kit, 9, AT_AUDIT_LATER); /* nobody was promised anything */
    size_t synced = offset_of(&kit->batches[0]);
    size_t rode =
        offset_of(&kit->batches[2]) + kit->batches[2].len -
        (size_t)((char *)memchr(kit->batches[2].data, '\n', 99) + 1 - kit->batches[2].data);
    read_all(kit->dir, "audit.log", &text);
    assert_true(text.len >= rode && rode > synced);
    for (size_t cut = synced; cut <= text.len; cut += 13) {
        AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "cut", cut, cut % 3 * 50);
        bool lost = cut < rode;
        assert_healed(kit, dir, users, lost);
    }
}

static void a_hole_in_the_middle_of_the_end_is_filled(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    unsigned users = ride(kit, 9);
    read_all(kit->dir, "audit.log", &text);
    AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "hole", text.len, 0);
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.log", dir);
    memset(text.data + offset_of(&kit->batches[1]), 0, 100);
    assert_int_equal(at_file_write_atomic(path, text.data, text.len, 0600, NULL), AT_OK);
    assert_healed(kit, dir, users, true);
}

static void what_was_synced_and_is_gone_is_not_put_back_but_said(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    ride(kit, 6);
    wait_for(kit, add(kit, 6, AT_AUDIT_SYNCED)); /* the journal is not needed any more */
    add(kit, 7, AT_AUDIT_RIDES);
    assert_true(commit(kit, true));
    assert_true(kit->dead[2] > kit->dead[0]);
    size_t cut = offset_of(&kit->batches[2]) - 10;
    AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "gone", cut, 0);
    at_audit_close(open_in(kit, dir, 0));
    assert_int_equal(at_audit_verify(dir, NULL, 0, &r, NULL), AT_CORRUPT);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    read_all(dir, "audit.log", &text);
    assert_non_null(strstr(text.data, "\"event\":\"broken\""));
    assert_null(strstr(text.data, "\"u7.\"")); /* which does not go on with what is there */
}

static void what_the_store_did_not_keep_is_synced_instead_and_the_journal_waits_for_it(void **state)
{
    struct kit *kit = *state;
    uint64_t failed = add(kit, 0, AT_AUDIT_RIDES);
    assert_true(commit(kit, false));
    uint64_t next = add(kit, 1, AT_AUDIT_RIDES);
    uint64_t mark = at_audit_journal_mark(kit->audit);
    assert_int_equal(mark, next);
    wait_for(kit, failed);
    size_t before = kit->n;
    uint64_t last = add(kit, 2, AT_AUDIT_RIDES);
    commit(kit, true);
    wait_for(kit, last);
    /* Whatever was taken goes on where the file was synced: nothing is missing between. */
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    read_all(kit->dir, "audit.log", &text);
    size_t cut = kit->n > before ? offset_of(&kit->batches[before]) : text.len;
    AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "cut", cut, 0);
    assert_healed(kit, dir, 3, kit->n > before);
}

static void who_waits_for_a_ride_that_never_comes_is_synced(void **state)
{
    struct kit *kit = *state;
    uint64_t ticket = add(kit, 0, AT_AUDIT_RIDES);
    at_audit_hurry(kit->audit, ticket);
    wait_for(kit, ticket);
    assert_int_equal(at_audit_journal_mark(kit->audit), 0);
}

static void too_much_for_a_ride_is_synced_instead(void **state)
{
    struct kit *kit = *state;
    char text[8000];
    memset(text, 'x', sizeof text);
    memcpy(text, "\"time\":\"", 8);
    text[sizeof text - 1] = '"';
    for (size_t i = 0; i < AT_AUDIT_JOURNAL_BYTES_MAX / sizeof text + 2; i++) {
        at_audit_add(kit->audit, text, sizeof text, AT_AUDIT_LATER);
    }
    uint64_t ticket = add(kit, 0, AT_AUDIT_RIDES);
    commit(kit, true);
    wait_for(kit, ticket);
    AT_CLEANUP(at_cleanup_buf) struct at_buf all = {0};
    read_all(kit->dir, "audit.log", &all);
    AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "cut", all.len, 0);
    assert_healed(kit, dir, 1, false);
}

static void files_that_are_turned_over_meanwhile_lose_nothing(void **state)
{
    struct kit *kit = *state;
    at_audit_close(kit->audit);
    kit->settled = 0;
    kit->audit = open_in(kit, kit->dir, 4096);
    for (unsigned i = 0; i < 120; i++) {
        uint64_t ticket = add(kit, i, AT_AUDIT_RIDES);
        if (!commit(kit, true)) {
            wait_for(kit, ticket); /* it was turned over, and so synced, at this moment */
        }
        if (i % 10 != 9 || kit->n == 0) {
            continue;
        }
        struct at_audit_files files = {0};
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        assert_int_equal(at_audit_files_list(kit->dir, &files, NULL), AT_OK);
        const struct at_audit_file *newest = &files.items[files.n - 1];
        const struct at_buf *last = &kit->batches[kit->n - 1];
        char first[48];
        snprintf(first, sizeof first, " %llu ", (unsigned long long)newest->first_seq);
        bool same = memmem(last->data, 60, first, strlen(first)) != NULL;
        size_t cut = same ? offset_of(last) : (size_t)newest->bytes;
        AT_CLEANUP(at_cleanup_free) char *dir = power_cut(kit, "cut", cut, 0);
        at_audit_files_done(&files);
        struct at_audit_report r;
        struct at_err err = {0};
        at_audit_close(open_in(kit, dir, 0));
        assert_int_equal(at_audit_verify(dir, NULL, 0, &r, &err), AT_OK);
        read_all(dir, "audit.log", &text);
        assert_true(!same || has_user(&text, i));
    }
}

static void a_journal_of_another_log_changes_nothing(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    ride(kit, 6);
    char other[96];
    snprintf(other, sizeof other, "%s/other", kit->dir);
    assert_int_equal(at_dir_make(other, 0700, NULL), AT_OK);
    at_audit_close(open_in(kit, other, 0)); /* a new log beside an old store */
    assert_int_equal(at_audit_verify(other, NULL, 0, &r, NULL), AT_OK);
    assert_int_equal(r.first_seq, 1);
    struct at_audit_redo *redo = at_audit_redo_new();
    struct at_audit_healed healed;
    static const char *const ODD[] = {"", "J1", "J1 1 1 1\n", "J1 1 1 1\nx\n", "J2 1 1 1\n{}\n"};
    for (size_t i = 0; i < AT_ARRAY_LEN(ODD); i++) {
        at_audit_redo_add(redo, ODD[i], strlen(ODD[i]));
    }
    assert_int_equal(at_audit_redo_apply(redo, other, &healed, NULL), AT_OK);
    assert_int_equal(healed.last_seq, 0);
    at_audit_redo_free(redo);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_rode_is_settled_without_a_sync_and_survives_a_power_cut_anywhere),
        T(a_hole_in_the_middle_of_the_end_is_filled),
        T(what_was_synced_and_is_gone_is_not_put_back_but_said),
        T(what_the_store_did_not_keep_is_synced_instead_and_the_journal_waits_for_it),
        T(who_waits_for_a_ride_that_never_comes_is_synced),
        T(too_much_for_a_ride_is_synced_instead),
        T(files_that_are_turned_over_meanwhile_lose_nothing),
        T(a_journal_of_another_log_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
