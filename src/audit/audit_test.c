#include "audit/audit_priv.h"
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

struct kit {
    char dir[64];
    struct at_loop *loop;
    struct at_audit *audit;
    uint64_t settled;
};

static void on_settled(void *ctx, uint64_t ticket)
{
    ((struct kit *)ctx)->settled = ticket;
}

static enum at_rc open_with(struct kit *kit, struct at_audit_options o)
{
    o.loop = kit->loop;
    o.dir = kit->dir;
    o.level = AT_AUDIT_ALL;
    o.settled = on_settled;
    o.ctx = kit;
    return at_audit_open(&o, &kit->audit, NULL);
}

static int set_up(void **state)
{
    struct kit *kit = AT_NEW(struct kit);
    snprintf(kit->dir, sizeof kit->dir, "/tmp/atoll-audit-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    kit->loop = at_loop_new(at_sys_real());
    assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
    *state = kit;
    return 0;
}

static int tear_down(void **state)
{
    struct kit *kit = *state;
    at_audit_close(kit->audit);
    at_loop_free(kit->loop);
    assert_int_equal(at_tree_remove(kit->dir, NULL), AT_OK);
    at_free(kit);
    return 0;
}

static void close_log(struct kit *kit)
{
    at_audit_close(kit->audit);
    kit->audit = NULL;
}

static void add(struct kit *kit, unsigned n)
{
    uint64_t ticket = 0;
    for (unsigned i = 0; i < n; i++) {
        char text[80];
        int len = snprintf(text, sizeof text, "\"time\":\"T\",\"user\":\"u%u\",\"code\":200", i);
        ticket = at_audit_add(kit->audit, text, (size_t)len, i + 1 == n);
    }
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (kit->settled < ticket) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(kit->loop, at_sys_mono_ns(at_sys_real()) + 20 * AT_NS_PER_MS);
    }
}

static enum at_rc verify(struct kit *kit, struct at_audit_report *r, struct at_err *err)
{
    return at_audit_verify(kit->dir, NULL, 0, r, err);
}

static char *log_text(struct kit *kit, size_t *ret_len)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.log", kit->dir);
    struct at_buf text = {0};
    assert_int_equal(at_file_read(path, (size_t)1 << 24, &text, NULL), AT_OK);
    return at_buf_steal(&text, ret_len);
}

static void log_put(struct kit *kit, const char *text, size_t len)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.log", kit->dir);
    assert_int_equal(at_file_write_atomic(path, text, len, 0600, NULL), AT_OK);
}

static char *line_start(char *text, unsigned line)
{
    for (; line > 1; line--) {
        text = strchr(text, '\n') + 1;
    }
    return text;
}

/* Lines of text by their numbers; 0 ends the list. */
static void log_put_lines(struct kit *kit, char *text, const unsigned *lines)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    for (; *lines != 0; lines++) {
        const char *line = line_start(text, *lines);
        size_t len = (size_t)(strchr(line, '\n') + 1 - line);
        assert_int_equal(at_buf_append(&out, line, len), AT_OK);
    }
    log_put(kit, out.data, out.len);
}

static void what_was_settled_is_there_and_whole(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 100);
    assert_int_equal(verify(kit, &r, &err), AT_OK); /* while it is open */
    assert_true(r.records >= 101);
    close_log(kit);
    assert_int_equal(verify(kit, &r, &err), AT_OK);
    assert_int_equal(r.first_seq, 1);
    assert_int_equal(r.records, 102); /* and the seals at start and end */
    assert_int_equal(r.sealed_seq, 102);
}

static void a_restart_goes_on_with_the_chain(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    char chain[17];
    add(kit, 3);
    for (int i = 0; i < 3; i++) {
        close_log(kit);
        assert_int_equal(verify(kit, &r, NULL), AT_OK);
        memcpy(chain, r.chain, sizeof chain);
        kit->settled = 0;
        assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
        add(kit, 2);
    }
    close_log(kit);
    assert_int_equal(verify(kit, &r, NULL), AT_OK);
    assert_string_equal(r.chain, chain);
    assert_int_equal(r.records, 3 + 3 * 2 + 4 * 2);
}

static void every_single_byte_that_changes_is_found(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    add(kit, 4);
    close_log(kit);
    size_t len = 0;
    char *text = log_text(kit, &len);
    for (size_t i = 0; i < len; i++) {
        text[i] ^= 1;
        log_put(kit, text, len);
        assert_int_equal(verify(kit, &r, NULL), AT_CORRUPT);
        text[i] ^= 1;
    }
    log_put(kit, text, len);
    assert_int_equal(verify(kit, &r, NULL), AT_OK);
    at_free(text);
}

/* Somebody who knows how hashes are made, but has no key. */
static void rehash(char *text, size_t len)
{
    struct at_audit_hasher *h = at_audit_hasher_new();
    unsigned char hash[AT_SHA256_BYTES] = {0};
    for (char *line = text; line < text + len;) {
        char *end = memchr(line, '\n', len - (size_t)(line - text));
        size_t text_len = (size_t)(end - line) - AT_AUDIT_HASH_TAIL_BYTES;
        at_audit_hasher_step(h, hash, line, text_len);
        char hex[AT_SHA256_HEX_BYTES];
        at_hex_encode(hash, sizeof hash, hex);
        memcpy(line + text_len + strlen(",\"hash\":\""), hex, 64);
        line = end + 1;
    }
    at_audit_hasher_free(h);
}

static void an_edit_with_all_hashes_made_anew_is_found_by_the_seals(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 4);
    close_log(kit);
    size_t len = 0;
    char *text = log_text(kit, &len);
    char *user = strstr(text, "\"u2\"");
    user[2] = '9';
    rehash(text, len);
    log_put(kit, text, len);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "seal"));
    at_free(text);
}

static void deleted_and_swapped_lines_are_found(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 6);
    close_log(kit);
    size_t len = 0;
    char *text = log_text(kit, &len);
    static const unsigned WITHOUT_3[] = {1, 2, 4, 5, 6, 7, 8, 0};
    static const unsigned SWAPPED[] = {1, 2, 4, 3, 5, 6, 7, 8, 0};
    log_put_lines(kit, text, WITHOUT_3);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "line 3: record 4 follows record 2"));
    log_put_lines(kit, text, SWAPPED);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "line 3: record 4 follows record 2"));
    static const unsigned ALL[] = {1, 2, 3, 4, 5, 6, 7, 8, 0};
    log_put_lines(kit, text, ALL);
    assert_int_equal(verify(kit, &r, &err), AT_OK);
    at_free(text);
}

static void lines_cut_off_at_the_end_are_found_also_after_the_next_start(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 6);
    close_log(kit);
    size_t len = 0;
    char *text = log_text(kit, &len);
    log_put(kit, text, (size_t)(line_start(text, 5) - text));
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "cut off"));
    kit->settled = 0;
    assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
    add(kit, 1);
    close_log(kit);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    /* What came after can be trusted by itself. */
    assert_int_equal(at_audit_verify(kit->dir, NULL, 9, &r, &err), AT_OK);
    at_free(text);
}

static void without_the_head_the_end_is_not_trusted_even_after_a_start(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 6);
    close_log(kit);
    AT_CLEANUP(at_cleanup_free) char *head = at_asprintf("%s/audit.head", kit->dir);
    assert_int_equal(at_file_remove(head, NULL), AT_OK);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
    close_log(kit);
    assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "broken"));
}

static void a_half_line_of_a_crash_is_cut_off_and_said(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    add(kit, 3);
    close_log(kit);
    size_t len = 0;
    AT_CLEANUP(at_cleanup_free) char *text = log_text(kit, &len);
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    assert_int_equal(at_buf_append(&out, text, len), AT_OK);
    assert_int_equal(at_buf_append_str(&out, "{\"seq\":6,\"time\":\"2026"), AT_OK);
    log_put(kit, out.data, out.len);
    assert_int_equal(verify(kit, &r, NULL), AT_OK); /* as of a log being written */
    assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
    close_log(kit);
    assert_int_equal(verify(kit, &r, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_free) char *after = log_text(kit, &len);
    assert_non_null(strstr(after, "\"event\":\"recovered\",\"halfLineBytes\":21"));
}

static void files_are_turned_over_and_the_oldest_deleted_by_the_limit(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    close_log(kit);
    struct at_audit_options small = {.file_bytes_max = 20000, .bytes_max = 100000};
    assert_int_equal(open_with(kit, small), AT_OK);
    kit->settled = 0;
    for (int i = 0; i < 40; i++) {
        add(kit, 100);
    }
    close_log(kit);
    assert_int_equal(verify(kit, &r, &err), AT_OK);
    assert_true(r.files > 1);
    assert_true(r.first_seq > 1);
    assert_int_equal(r.pruned_seq, r.first_seq - 1);
    int64_t total = 0;
    struct at_audit_files files = {0};
    assert_int_equal(at_audit_files_list(kit->dir, &files, NULL), AT_OK);
    for (size_t i = 0; i < files.n; i++) {
        total += files.items[i].bytes;
    }
    assert_true(total <= 110000);
    /* A file that somebody deletes is missed: the oldest, and one of the middle. */
    for (size_t i = 0; i < 2; i++) {
        AT_CLEANUP(at_cleanup_free) char *aside = at_asprintf("%s/aside", kit->dir);
        assert_int_equal(at_file_rename(files.items[i].path, aside, NULL), AT_OK);
        assert_int_equal(verify(kit, &r, &err), AT_CORRUPT);
        assert_int_equal(at_file_rename(aside, files.items[i].path, NULL), AT_OK);
    }
    assert_int_equal(verify(kit, &r, &err), AT_OK);
    at_audit_files_done(&files);
}

static void another_key_is_refused(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    struct at_err err = {0};
    add(kit, 3);
    close_log(kit);
    struct kit other = {.loop = kit->loop};
    snprintf(other.dir, sizeof other.dir, "%s/other", kit->dir);
    assert_int_equal(at_dir_make(other.dir, 0700, NULL), AT_OK);
    assert_int_equal(open_with(&other, (struct at_audit_options){0}), AT_OK);
    close_log(&other);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/audit.pub", other.dir);
    assert_int_equal(at_audit_verify(kit->dir, key, 0, &r, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "not signed with this log's key"));
}

static void a_log_of_before_the_chain_is_put_aside(void **state)
{
    struct kit *kit = *state;
    struct at_audit_report r;
    close_log(kit);
    AT_CLEANUP(at_cleanup_free) char *head = at_asprintf("%s/audit.head", kit->dir);
    assert_int_equal(at_file_remove(head, NULL), AT_OK);
    static const char OLD[] = "{\"time\":\"T\",\"user\":\"admin\"}\n{\"time\":\"T\"}\n";
    log_put(kit, OLD, sizeof OLD - 1);
    assert_int_equal(open_with(kit, (struct at_audit_options){0}), AT_OK);
    close_log(kit);
    assert_int_equal(verify(kit, &r, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_free) char *aside = at_asprintf("%s/audit.unchained.log", kit->dir);
    assert_int_equal(at_file_size(aside), sizeof OLD - 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_was_settled_is_there_and_whole),
        T(a_restart_goes_on_with_the_chain),
        T(every_single_byte_that_changes_is_found),
        T(an_edit_with_all_hashes_made_anew_is_found_by_the_seals),
        T(deleted_and_swapped_lines_are_found),
        T(lines_cut_off_at_the_end_are_found_also_after_the_next_start),
        T(without_the_head_the_end_is_not_trusted_even_after_a_start),
        T(a_half_line_of_a_crash_is_cut_off_and_said),
        T(files_are_turned_over_and_the_oldest_deleted_by_the_limit),
        T(another_key_is_refused),
        T(a_log_of_before_the_chain_is_put_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
