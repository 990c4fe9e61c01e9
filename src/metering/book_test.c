#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "metering/book.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DAY 20781

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/atoll-book-XXXXXX", tmp != NULL ? tmp : "/tmp");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return at_tree_remove(folder, NULL) == AT_OK ? 0 : -1;
}

static struct at_meter_book *opened(char *damage)
{
    struct at_meter_book *book = NULL;
    char text[AT_ERR_MSG_BYTES_MAX];
    struct at_err err;
    struct at_meter_book_options o = {.folder = folder, .sys = at_sys_real()};
    if (at_meter_book_open(&o, &book, damage != NULL ? damage : text, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return book;
}

static const struct at_meter_who ANN = {1, "u-1", "ns", "ann", "red"};
static const struct at_meter_who BOB = {2, "u-2", "ns", "bob", "red"};

static void use(struct at_meter_log *log, const struct at_meter_who *who,
                struct at_meter_what *what, int64_t cost)
{
    uint32_t slot;
    struct at_meter_use u = {
        .day = DAY, .status = 200, .prompt = 3, .completion = 5, .cost_nanousd = cost};
    assert_int_equal(at_meter_log_begin(log, who, what, DAY, &slot), AT_OK);
    at_meter_log_end(log, slot, &u);
}

static void round_of(struct at_meter_book *book)
{
    struct at_err err;
    if (at_meter_book_begin(book)) {
        assert_int_equal(at_meter_book_sync(book, &err), AT_OK);
    }
    at_meter_book_end(book, true, DAY);
}

static int64_t spent(struct at_meter_book *book, const char *uid)
{
    return at_meter_book_spent_key(book, uid, DAY);
}

static void what_is_on_the_disk_is_counted_and_told_by_parts(void **state)
{
    (void)state;
    struct at_meter_book *book = opened(NULL);
    struct at_meter_log *log;
    struct at_meter_what m = {.model = "ns/m"};
    assert_int_equal(at_meter_book_log(book, &log, NULL), AT_OK);
    use(log, &ANN, &m, 100);
    use(log, &ANN, &m, 50);
    use(log, &BOB, &m, 7);
    assert_int_equal(spent(book, "u-1"), 0); /* not on the disk yet */
    round_of(book);
    assert_int_equal(spent(book, "u-1"), 150);
    assert_int_equal(spent(book, "u-2"), 7);
    assert_int_equal(at_meter_book_spent_key(book, "u-1", DAY + 1), 0);
    struct at_meter_part *part = at_meter_book_part(book, 0);
    assert_non_null(part);
    assert_true(part->dirty);
    assert_false(at_meter_book_may_tell(book, part)); /* the book's file does not hold it yet */
    round_of(book);
    assert_true(at_meter_book_may_tell(book, part));
    assert_int_equal(part->n_rows, 2);
    assert_int_equal(part->rows[0]->requests, 2);
    assert_int_equal(part->rows[0]->prompt, 6);
    assert_null(at_meter_book_part(book, 1));
    at_meter_book_free(book);
}

static void a_second_process_is_refused(void **state)
{
    (void)state;
    struct at_meter_book *book = opened(NULL), *other = NULL;
    char damage[AT_ERR_MSG_BYTES_MAX];
    struct at_meter_book_options o = {.folder = folder, .sys = at_sys_real()};
    pid_t pid = fork();
    if (pid == 0) {
        _exit(at_meter_book_open(&o, &other, damage, NULL) == AT_CONFLICT ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    at_meter_book_free(book);
}

/* n uses of ann, a stream that is under way, and then an end by kill -9 in the middle of it all. */
static void run_and_be_killed(int n, int n_rounds)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct at_meter_book *book = opened(NULL);
        struct at_meter_log *log;
        struct at_meter_what m = {.model = "ns/m"};
        uint32_t slot;
        if (at_meter_book_log(book, &log, NULL) != AT_OK ||
            at_meter_log_begin(log, &BOB, &m, DAY, &slot) != AT_OK) {
            _exit(1);
        }
        for (int i = 0; i < n; i++) {
            use(log, &ANN, &m, 10);
            if (n_rounds > 0 && i % (n / n_rounds + 1) == 0) {
                round_of(book);
            }
        }
        at_meter_log_update(log, slot, 9, 4, 33);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void kill_loses_nothing_and_counts_nothing_twice(void **state)
{
    (void)state;
    static const int N[] = {0, 1, 1000, 150000}, ROUNDS[] = {0, 1, 7, 30};
    int64_t ann = 0, bob = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(N); i++) {
        for (size_t j = 0; j < AT_ARRAY_LEN(ROUNDS) && (N[i] < 2000 || j > 1); j++) {
            run_and_be_killed(N[i], ROUNDS[j]);
            ann += 10 * N[i];
            bob += 33;
        }
    }
    for (int again = 0; again < 2; again++) { /* and reading it changes nothing */
        struct at_meter_book *book = opened(NULL);
        assert_int_equal(spent(book, "u-1"), ann);
        assert_int_equal(spent(book, "u-2"), bob);
        at_meter_book_free(book);
    }
}

static void a_damaged_book_is_put_aside_and_counting_goes_on_under_another_name(void **state)
{
    (void)state;
    char meter[16], damage[AT_ERR_MSG_BYTES_MAX], path[300];
    struct at_meter_book *book = opened(NULL);
    snprintf(meter, sizeof meter, "%s", at_meter_book_meter(book));
    at_meter_book_free(book);
    book = opened(damage);
    assert_string_equal(at_meter_book_meter(book), meter);
    assert_string_equal(damage, "");
    at_meter_book_free(book);
    snprintf(path, sizeof path, "%s/book", folder);
    assert_int_equal(at_file_write_at(path, 20, "?", 1, NULL), AT_OK);
    book = opened(damage);
    assert_non_null(strstr(damage, "damaged"));
    assert_string_not_equal(at_meter_book_meter(book), meter);
    at_meter_book_free(book);
}

static void a_record_that_was_cut_ends_the_reading_of_its_file(void **state)
{
    (void)state;
    unsigned char data[512] = {0};
    struct at_meter_record r;
    size_t first = at_meter_key_bytes(&ANN), at = 0;
    struct at_meter_use u = {.id = 1, .key = 1, .model = 1, .cost_nanousd = 5};
    at_meter_key_write(&ANN, data);
    at_meter_fixed_write(AT_METER_USE, &u, data + first);
    assert_int_equal(at_meter_record_read(data, sizeof data, &at, &r), AT_OK);
    assert_true(at_str_eq(r.team, "red"));
    assert_int_equal(at_meter_record_read(data, sizeof data, &at, &r), AT_OK);
    assert_int_equal(r.use.cost_nanousd, 5);
    assert_int_equal(at_meter_record_read(data, sizeof data, &at, &r), AT_NOT_FOUND);
    for (size_t i = first; i < first + at_meter_fixed_bytes(AT_METER_USE); i++) {
        at = first;
        data[i] ^= 0x40;
        assert_int_equal(at_meter_record_read(data, sizeof data, &at, &r), AT_CORRUPT);
        assert_int_equal(at, first);
        data[i] ^= 0x40;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_on_the_disk_is_counted_and_told_by_parts,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_second_process_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(kill_loses_nothing_and_counts_nothing_twice, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(
            a_damaged_book_is_put_aside_and_counting_goes_on_under_another_name, make_folder,
            remove_folder),
        cmocka_unit_test(a_record_that_was_cut_ends_the_reading_of_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
