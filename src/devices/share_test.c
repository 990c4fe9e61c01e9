#include "devices/share.h"

#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID "GPU-0123abcd-0000-0000-0000-00000000001f"
#define GIB (INT64_C(1) << 30)

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    dir = at_asprintf("%s/atoll-share-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    enum at_rc rc = at_tree_remove(dir, NULL);
    at_free(dir);
    return rc == AT_OK ? 0 : -1;
}

static void read_page(const char *name, void *ret, size_t bytes)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, name);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_file_read(path, bytes, &text, NULL), AT_OK);
    assert_int_equal(text.len, bytes);
    memcpy(ret, text.data, bytes);
}

static void write_usage(const struct at_share_usage *page, size_t bytes)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, AT_SHARE_USAGE_NAME);
    assert_int_equal(at_file_write_atomic(path, page, bytes, 0666, NULL), AT_OK);
}

static void names_of_real_devices_alone_are_enforceable(void **state)
{
    (void)state;
    static const char *const WRONG[] = {"",
                                        "g0",
                                        "GPU-",
                                        "GPU-0",
                                        "GPU-0123abcd-0000-0000-0000-00000000001",
                                        "GPU-0123abcd-0000-0000-0000-00000000001ff",
                                        "GPU-0123abcd-0000-0000-0000-0000000000zf"};
    assert_true(at_share_is_enforceable(ID));
    assert_true(at_share_is_enforceable("MIG-0123ABCD-0000-0000-0000-00000000001f"));
    assert_false(at_share_is_enforceable(NULL));
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        assert_false(at_share_is_enforceable(WRONG[i]));
    }
}

static void a_share_is_made_and_changed_in_place(void **state)
{
    (void)state;
    const struct at_share_want wants[] = {
        {.id = ID, .memory_bytes = 8 * GIB},
        {.id = "MIG-0123abcd-0000-0000-0000-0000000000ff", .memory_bytes = -5, .spill_bytes = GIB}};
    assert_int_equal(at_share_make(dir, wants, 2, NULL), AT_OK);
    struct at_share_limits page;
    read_page(AT_SHARE_LIMITS_NAME, &page, sizeof page);
    assert_int_equal(page.magic, AT_SHARE_MAGIC);
    assert_int_equal(page.n_devices, 2);
    assert_int_equal(page.devices[0].uuid[0], 0x01);
    assert_int_equal(page.devices[0].uuid[15], 0x1f);
    assert_int_equal(page.devices[0].memory_bytes, 8 * GIB);
    assert_int_equal(page.devices[1].memory_bytes, 0);
    assert_int_equal(page.devices[1].spill_bytes, GIB);
    assert_int_equal(at_share_set_memory(dir, 1, 3 * GIB, 0, NULL), AT_OK);
    assert_int_equal(at_share_set_beside(dir, 0, GIB, NULL), AT_OK);
    assert_int_equal(at_share_set_slot(dir, 0, 25000, 75000, NULL), AT_OK);
    read_page(AT_SHARE_LIMITS_NAME, &page, sizeof page);
    assert_int_equal(page.devices[1].memory_bytes, 3 * GIB);
    assert_int_equal(page.devices[1].spill_bytes, 0);
    assert_int_equal(page.devices[0].beside_bytes, GIB);
    assert_int_equal(AT_SHARE_SLOT_OFFSET_US(page.devices[0].slot), 25000);
    assert_int_equal(AT_SHARE_SLOT_LENGTH_US(page.devices[0].slot), 75000);
    struct at_err err;
    assert_int_equal(at_share_make(dir, &(struct at_share_want){.id = "g0"}, 1, &err), AT_INVALID);
}

static void usage_outlives_the_agent_and_is_not_believed(void **state)
{
    (void)state;
    struct at_share_usage *page = calloc(1, sizeof *page);
    struct at_share_seen seen[AT_SHARE_DEVICES_MAX];
    page->rows = UINT64_MAX;
    page->processes[3].devices[0].memory_bytes = 7;
    page->processes[255].devices[0].memory_bytes = INT64_MAX;
    page->processes[4].devices[0].memory_bytes = INT64_MIN;
    page->counts[0].refused = UINT64_MAX;
    page->counts[0].launches = 12;
    write_usage(page, sizeof *page);
    assert_int_equal(at_share_make(dir, &(struct at_share_want){.id = ID}, 1, NULL), AT_OK);
    at_share_see(dir, 1, seen);
    assert_int_equal(seen[0].launches, 12);
    assert_int_equal(seen[0].refused, 0);
    assert_true(seen[0].memory_bytes >= 7 && seen[0].memory_bytes <= INT64_C(1) << 50);
    write_usage(page, 100); /* cut off by its owner */
    at_share_see(dir, 1, seen);
    assert_int_equal(seen[0].launches, 0);
    free(page);
}

static void processes_are_asked_from_the_driver(void **state)
{
    (void)state;
    struct at_gpu_use uses[4];
    size_t n = 99;
    struct at_gpu_watch *watch = at_gpu_watch_new("/no/such/library.so");
    assert_int_equal(at_gpu_watch_look(watch, uses, 4, &n), AT_NOT_FOUND);
    at_gpu_watch_free(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_real_devices_alone_are_enforceable),
        cmocka_unit_test(a_share_is_made_and_changed_in_place),
        cmocka_unit_test(usage_outlives_the_agent_and_is_not_believed),
        cmocka_unit_test(processes_are_asked_from_the_driver),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
