#include "core/mem.h"
#include "sys/cgroup.h"
#include "sys/file.h"
#include "sys/machine.h"
#include "sys/socket.h"
#include "sys/sys.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int make_dir(void **state)
{
    const char *base = getenv("TMPDIR");
    char *path = at_asprintf("%s/atoll-sys-XXXXXX", base != NULL ? base : "/tmp");
    *state = mkdtemp(path);
    return *state != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    int rc = at_tree_remove(*state, NULL) == AT_OK && !at_file_exists(*state) ? 0 : -1;
    at_free(*state);
    return rc;
}

static void atomic_write_replaces_and_sets_the_mode(void **state)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/a", (char *)*state);
    struct at_err err;
    assert_int_equal(at_file_write_atomic(path, "one", 3, 0600, &err), AT_OK);
    assert_int_equal(at_file_write_atomic(path, "second", 6, 0640, &err), AT_OK);
    struct at_buf buf = {0};
    assert_int_equal(at_file_read(path, 100, &buf, &err), AT_OK);
    assert_string_equal(buf.data, "second");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    at_buf_clear(&buf);
    assert_int_equal(at_file_read(path, 5, &buf, &err), AT_TOO_LARGE);
    at_buf_done(&buf);
    char **names;
    size_t count;
    assert_int_equal(at_dir_list(*state, &names, &count, &err), AT_OK);
    assert_int_equal(count, 1); /* no temporary file is left */
    assert_string_equal(names[0], "a");
    at_free(names[0]);
    at_free(names);
}

static void a_missing_file_is_named_in_the_error(void **state)
{
    (void)state;
    struct at_err err;
    struct at_buf buf = {0};
    assert_int_equal(at_file_read("/nowhere/at/all", 10, &buf, &err), AT_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nowhere/at/all"));
    assert_int_equal(at_file_size("/nowhere/at/all"), -1);
    at_buf_done(&buf);
}

static void append_copy_digest_and_truncate_agree(void **state)
{
    AT_CLEANUP(at_cleanup_free) char *a = at_asprintf("%s/log", (char *)*state);
    AT_CLEANUP(at_cleanup_free) char *b = at_asprintf("%s/copy", (char *)*state);
    struct at_err err;
    assert_int_equal(at_file_append(a, "ab", 2, 0600, &err), AT_OK);
    assert_int_equal(at_file_append(a, "c", 1, 0600, &err), AT_OK);
    assert_int_equal(at_file_copy(a, b, 0600, &err), AT_OK);
    char hex[65];
    assert_int_equal(at_file_sha256(b, hex, &err), AT_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct at_buf buf = {0};
    size_t n;
    assert_int_equal(at_file_read_at(b, 1, 10, &buf, &n, &err), AT_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(buf.data, "bc", 2);
    assert_int_equal(at_file_truncate(b, 1, &err), AT_OK);
    assert_int_equal(at_file_size(b), 1);
    at_buf_done(&buf);
}

static void a_file_written_in_pieces_appears_whole_or_not_at_all(void **state)
{
    const char *dir = *state;
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/whole", dir);
    struct at_file_writer *w;
    struct at_err err;
    assert_int_equal(at_file_writer_new(path, 0600, &w, &err), AT_OK);
    assert_int_equal(at_file_writer_write(w, "one ", 4, &err), AT_OK);
    at_file_writer_free(w);
    char **names;
    size_t n;
    assert_int_equal(at_dir_list(dir, &names, &n, &err), AT_OK);
    assert_int_equal(n, 0);
    at_free(names);
    assert_int_equal(at_file_writer_new(path, 0600, &w, &err), AT_OK);
    assert_int_equal(at_file_writer_write(w, "one ", 4, &err), AT_OK);
    assert_int_equal(at_file_writer_write(w, "two", 3, &err), AT_OK);
    assert_false(at_file_exists(path));
    assert_int_equal(at_file_writer_commit(w, &err), AT_OK);
    at_file_writer_free(w);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_file_read(path, 100, &text, &err), AT_OK);
    assert_string_equal(text.data, "one two");
}

static void tree_remove_does_not_follow_links(void **state)
{
    char *dir = *state;
    AT_CLEANUP(at_cleanup_free) char *deep = at_asprintf("%s/t/x/y", dir);
    AT_CLEANUP(at_cleanup_free) char *kept = at_asprintf("%s/kept", dir);
    AT_CLEANUP(at_cleanup_free) char *link = at_asprintf("%s/t/x/link", dir);
    AT_CLEANUP(at_cleanup_free) char *top = at_asprintf("%s/t", dir);
    AT_CLEANUP(at_cleanup_free) char *inside = at_asprintf("%s/kept/file", dir);
    struct at_err err;
    assert_int_equal(at_dir_make(deep, 0700, &err), AT_OK);
    assert_int_equal(at_dir_make(deep, 0700, &err), AT_OK);
    assert_int_equal(at_dir_make(kept, 0700, &err), AT_OK);
    assert_int_equal(at_file_append(inside, "x", 1, 0600, &err), AT_OK);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(at_tree_remove(top, &err), AT_OK);
    assert_false(at_file_exists(top));
    assert_true(at_file_exists(inside));
    assert_int_equal(at_tree_remove(top, &err), AT_OK);
    assert_int_not_equal(at_dir_make(inside, 0700, &err), AT_OK);
}

static void a_second_lock_names_the_holder(void **state)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/lock", (char *)*state);
    struct at_err err;
    int fd, fd2;
    assert_int_equal(at_file_lock(path, &fd, &err), AT_OK);
    assert_int_equal(at_file_lock(path, &fd2, &err), AT_CONFLICT);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_non_null(strstr(err.msg, pid));
    at_file_unlock(fd);
    assert_int_equal(at_file_lock(path, &fd2, &err), AT_OK);
    at_file_unlock(fd2);
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, 5000), 1);
}

static void exchange_over(const char *listen_addr)
{
    struct at_err err;
    int listener, client, server;
    char bound[AT_ADDR_TEXT_BYTES_MAX], peer[AT_ADDR_TEXT_BYTES_MAX], buf[16];
    size_t n;
    assert_int_equal(at_sock_listen(listen_addr, 8, false, &listener, bound, &err), AT_OK);
    assert_int_equal(at_sock_accept(listener, &server, peer), AT_AGAIN);
    assert_int_equal(at_sock_connect(bound, &client, &err), AT_OK);
    wait_for(client, POLLOUT);
    assert_int_equal(at_sock_connect_result(client, &err), AT_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(at_sock_accept(listener, &server, peer), AT_OK);
    assert_int_equal(at_sock_read(server, buf, sizeof buf, &n), AT_AGAIN);
    assert_int_equal(at_sock_write(client, "hello", 5, &n), AT_OK);
    assert_int_equal(n, 5);
    at_sock_shutdown_write(client);
    wait_for(server, POLLIN);
    assert_int_equal(at_sock_read(server, buf, sizeof buf, &n), AT_OK);
    assert_memory_equal(buf, "hello", 5);
    wait_for(server, POLLIN);
    assert_int_equal(at_sock_read(server, buf, sizeof buf, &n), AT_EOF);
    at_sock_close(client);
    at_sock_close(server);
    at_sock_close(listener);
    at_sock_close(-1);
}

static void streams_carry_bytes_over_tcp_and_unix(void **state)
{
    AT_CLEANUP(at_cleanup_free) char *addr = at_asprintf("unix:%s/s", (char *)*state);
    exchange_over("127.0.0.1:0");
    exchange_over("localhost:0");
    exchange_over(addr);
    exchange_over(addr); /* the file left behind by the first is taken over */
}

static void a_taken_port_and_a_bad_address_are_told_apart(void **state)
{
    (void)state;
    struct at_err err;
    int fd, fd2;
    char bound[AT_ADDR_TEXT_BYTES_MAX];
    assert_int_equal(at_sock_listen("127.0.0.1:0", 8, false, &fd, bound, &err), AT_OK);
    assert_int_equal(at_sock_listen(bound, 8, false, &fd2, bound, &err), AT_CONFLICT);
    assert_int_equal(at_sock_listen("127.0.0.1", 8, false, &fd2, bound, &err), AT_INVALID);
    assert_int_equal(at_sock_listen("127.0.0.1:70000", 8, false, &fd2, bound, &err), AT_INVALID);
    at_sock_close(fd);
    /* Nobody listens there now. */
    enum at_rc rc = at_sock_connect(bound, &fd, &err);
    if (rc == AT_OK) {
        wait_for(fd, POLLOUT);
        rc = at_sock_connect_result(fd, &err);
        at_sock_close(fd);
    }
    assert_int_equal(rc, AT_UNAVAILABLE);
}

static void clocks_and_randomness_work(void **state)
{
    (void)state;
    const struct at_sys *sys = at_sys_real();
    int64_t a = at_sys_mono_ns(sys);
    assert_true(at_sys_mono_ns(sys) >= a);
    assert_true(at_sys_wall_ns(sys) > INT64_C(1700000000) * 1000000000);
    unsigned char x[32] = {0}, y[32] = {0};
    at_sys_random(sys, x, sizeof x);
    at_sys_random(sys, y, sizeof y);
    assert_memory_not_equal(x, y, sizeof x);
    AT_CLEANUP(at_cleanup_free) char *self = at_sys_self_exe();
    assert_non_null(strstr(self, "sys_test"));
    assert_true(strlen(at_sys_hostname()) > 0);
    struct at_machine machine;
    at_machine_read(&machine);
    assert_true(machine.cpus > 0);
    assert_true(machine.memory_bytes > (64 << 20));
    assert_true(strlen(machine.arch) > 0);
    int64_t total, free_bytes;
    assert_int_equal(at_machine_disk("/", &total, &free_bytes, NULL), AT_OK);
    assert_true(total >= free_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define WITH_DIR(t) cmocka_unit_test_setup_teardown(t, make_dir, remove_dir)
        WITH_DIR(atomic_write_replaces_and_sets_the_mode),
        WITH_DIR(append_copy_digest_and_truncate_agree),
        WITH_DIR(a_file_written_in_pieces_appears_whole_or_not_at_all),
        WITH_DIR(tree_remove_does_not_follow_links),
        WITH_DIR(a_second_lock_names_the_holder),
        WITH_DIR(streams_carry_bytes_over_tcp_and_unix),
        cmocka_unit_test(a_missing_file_is_named_in_the_error),
        cmocka_unit_test(a_taken_port_and_a_bad_address_are_told_apart),
        cmocka_unit_test(clocks_and_randomness_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
