#include "core/mem.h"
#include "security/ring.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct kit {
    char dir[64], path[80];
    struct at_ring *ring;
};

static const char NAME[] = "/secrets/default/s";
static const char TEXT[] = "{\"data\":{\"password\":\"aHVudGVyMg==\"}}";

static int set_up(void **state)
{
    struct kit *kit = AT_NEW(struct kit);
    snprintf(kit->dir, sizeof kit->dir, "/tmp/atoll-ring-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    snprintf(kit->path, sizeof kit->path, "%s/secrets.key", kit->dir);
    assert_int_equal(at_ring_open(kit->path, at_sys_real(), &kit->ring, NULL), AT_OK);
    assert_int_equal(at_ring_count(kit->ring), 0);
    assert_int_equal(at_ring_rotate(kit->ring, NULL), AT_OK);
    *state = kit;
    return 0;
}

static int tear_down(void **state)
{
    struct kit *kit = *state;
    at_ring_free(kit->ring);
    assert_int_equal(at_tree_remove(kit->dir, NULL), AT_OK);
    at_free(kit);
    return 0;
}

static void sealed(struct kit *kit, struct at_buf *out)
{
    at_buf_clear(out);
    assert_int_equal(at_ring_seal(kit->ring, NAME, TEXT, sizeof TEXT - 1, out, NULL), AT_OK);
}

static enum at_rc open_as(struct kit *kit, const char *name, const struct at_buf *in,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = at_ring_unseal(kit->ring, name, in->data, in->len, &out, err);
    if (rc == AT_OK) {
        assert_int_equal(out.len, sizeof TEXT - 1);
        assert_memory_equal(out.data, TEXT, out.len);
    } else {
        assert_int_equal(out.len, 0);
    }
    return rc;
}

static void what_is_sealed_opens_and_shows_nothing(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf a = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf b = {0};
    sealed(kit, &a);
    sealed(kit, &b);
    assert_int_equal(open_as(kit, NAME, &a, NULL), AT_OK);
    assert_null(memmem(a.data, a.len, "password", 8));
    assert_memory_equal(a.data, AT_RING_MAGIC, sizeof AT_RING_MAGIC - 1);
    assert_int_equal(a.len, b.len);
    assert_memory_not_equal(a.data + 16, b.data + 16, a.len - 16); /* fresh keys and nonces */
}

static void any_change_and_any_other_name_is_refused(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf a = {0};
    sealed(kit, &a);
    for (size_t i = sizeof AT_RING_MAGIC - 1; i < a.len; i++) {
        a.data[i] ^= 1;
        assert_int_not_equal(open_as(kit, NAME, &a, NULL), AT_OK);
        a.data[i] ^= 1;
    }
    assert_int_equal(open_as(kit, "/secrets/other/s", &a, NULL), AT_CORRUPT);
    for (size_t len = 0; len < a.len; len++) {
        struct at_buf cut = {.data = a.data, .len = len};
        assert_int_equal(open_as(kit, NAME, &cut, NULL), AT_CORRUPT);
    }
    assert_int_equal(open_as(kit, NAME, &a, NULL), AT_OK);
}

static void old_keys_open_until_they_are_forgotten(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf old = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf new = {0};
    char first[AT_RING_ID_BYTES];
    char second[AT_RING_ID_BYTES];
    struct at_err err = {0};
    sealed(kit, &old);
    at_ring_current(kit->ring, first);
    assert_int_equal(at_ring_rotate(kit->ring, NULL), AT_OK);
    at_ring_current(kit->ring, second);
    assert_string_not_equal(first, second);
    sealed(kit, &new);
    assert_int_equal(open_as(kit, NAME, &old, NULL), AT_OK);
    assert_int_equal(open_as(kit, NAME, &new, NULL), AT_OK);
    assert_int_equal(at_ring_forget(kit->ring, NULL), AT_OK);
    assert_int_equal(open_as(kit, NAME, &new, NULL), AT_OK);
    assert_int_equal(open_as(kit, NAME, &old, &err), AT_FORBIDDEN);
    assert_non_null(strstr(err.msg, first)); /* which key it wants */
    assert_non_null(strstr(err.msg, kit->path));
}

static void a_second_reader_of_the_file_finds_new_keys_by_itself(void **state)
{
    struct kit *kit = *state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf a = {0};
    struct kit other = *kit;
    assert_int_equal(at_ring_open(kit->path, at_sys_real(), &other.ring, NULL), AT_OK);
    assert_int_equal(at_ring_rotate(kit->ring, NULL), AT_OK);
    sealed(kit, &a);
    assert_int_equal(open_as(&other, NAME, &a, NULL), AT_OK);
    at_ring_free(other.ring);
}

static void a_bad_key_file_is_refused_with_the_place(void **state)
{
    struct kit *kit = *state;
    static const char *const BAD[] = {"",
                                      "# nothing\n",
                                      "12345678\n",
                                      "1234567 AAAA\n",
                                      "1234567g AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
                                      "12345678 AAAAAAAAAAAAAAAA\n",
                                      "12345678 %%%%\n"};
    struct at_ring *ring = NULL;
    struct at_err err = {0};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(at_file_write_atomic(kit->path, BAD[i], strlen(BAD[i]), 0600, NULL),
                         AT_OK);
        assert_int_equal(at_ring_open(kit->path, at_sys_real(), &ring, &err), AT_CORRUPT);
        assert_non_null(strstr(err.msg, kit->path));
    }
    assert_int_equal(at_file_chmod(kit->path, 0640, NULL), AT_OK);
    assert_int_equal(at_ring_open(kit->path, at_sys_real(), &ring, &err), AT_FORBIDDEN);
    assert_non_null(strstr(err.msg, "chmod 600"));
    assert_int_equal(at_file_remove(kit->path, NULL), AT_OK);
    assert_int_equal(at_dir_make(kit->path, 0700, NULL), AT_OK);
    assert_int_not_equal(at_ring_open(kit->path, at_sys_real(), &ring, &err), AT_OK);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(what_is_sealed_opens_and_shows_nothing),
        T(any_change_and_any_other_name_is_refused),
        T(old_keys_open_until_they_are_forgotten),
        T(a_second_reader_of_the_file_finds_new_keys_by_itself),
        T(a_bad_key_file_is_refused_with_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
