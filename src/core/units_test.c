#include "core/mem.h"
#include "core/units.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct row {
    const char *text;
    int64_t value;
};

static void quantities_are_read_as_kubernetes_does(void **state)
{
    (void)state;
    static const struct row MILLI[] = {
        {"2", 2000},
        {"500m", 500},
        {"0.25", 250},
        {"8Gi", 8589934592000},
        {"1e3", 1000000},
        {"12k", 12000000},
        {"1.5Gi", 1610612736000},
        {"1u", 1},
        {"0.0001", 1},
        {"0", 0},
        {"1E", 1000000000000000000 / 1000 * 1000},
        {"1E3", 1000000},
        {"1e-3", 1},
        {".5", 500},
        {"5.", 5000},
        {"+1", 1000},
        {"-1", -1000},
        {"1e+2", 100000},
        {"100n", 1},
        {"1.00000000000000000000001", 1001},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(MILLI); i++) {
        int64_t value = -7;
        enum at_rc rc = at_quantity_milli(MILLI[i].text, &value, NULL);
        if (strcmp(MILLI[i].text, "1E") == 0) {
            assert_int_equal(rc, AT_INVALID); /* 10^21 thousandths are too many */
            continue;
        }
        assert_int_equal(rc, AT_OK);
        assert_int_equal(value, MILLI[i].value);
    }
    int64_t units;
    assert_int_equal(at_quantity_units("8Gi", &units, NULL), AT_OK);
    assert_int_equal(units, 8589934592);
    assert_int_equal(at_quantity_units("1E", &units, NULL), AT_OK);
    assert_int_equal(units, 1000000000000000000);
    assert_int_equal(at_quantity_units("100m", &units, NULL), AT_OK);
    assert_int_equal(units, 1);
    assert_int_equal(at_quantity_units("7Ei", &units, NULL), AT_OK);
    assert_int_equal(units, INT64_C(7) << 60);
}

static void what_is_no_quantity_is_refused(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",      ".",   "Gi",   "1gib",  "1 Gi",
        "1e",    "--1", "1K",   "0x1",   "1e3k",
        "1.2.3", "8Ei", "1e30", "1e+-3", "99999999999999999999999999999999999999999999"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        int64_t value = -7;
        struct at_err err = {0};
        assert_int_equal(at_quantity_units(BAD[i], &value, &err), AT_INVALID);
        assert_int_equal(value, -7);
        assert_true(err.msg[0] != '\0');
    }
}

static void durations_are_read_and_written(void **state)
{
    (void)state;
    static const struct row ROWS[] = {
        {"1h30m", 5400 * AT_NS_PER_S},
        {"250ms", 250 * AT_NS_PER_MS},
        {"2s", 2 * AT_NS_PER_S},
        {"10us", 10 * AT_NS_PER_US},
        {"3ns", 3},
        {"0s", 0},
        {"1s500ms", 1500 * AT_NS_PER_MS},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        int64_t ns;
        char text[AT_UNITS_TEXT_BYTES_MAX];
        assert_int_equal(at_duration_ns(ROWS[i].text, &ns, NULL), AT_OK);
        assert_int_equal(ns, ROWS[i].value);
        assert_string_equal(at_duration_format(ns, text), ROWS[i].text);
    }
    static const struct row ALSO[] = {{"90", 90 * AT_NS_PER_S},
                                      {"1.5h", 5400 * AT_NS_PER_S},
                                      {"0.5", AT_NS_PER_S / 2},
                                      {"1d", 86400 * AT_NS_PER_S},
                                      {"0", 0}};
    for (size_t i = 0; i < AT_ARRAY_LEN(ALSO); i++) {
        int64_t ns;
        assert_int_equal(at_duration_ns(ALSO[i].text, &ns, NULL), AT_OK);
        assert_int_equal(ns, ALSO[i].value);
    }
    static const char *const BAD[] = {"", "-1s", "1x", "s", "1h30", "1s ", "300000000h", "1..5s"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        int64_t ns;
        assert_int_equal(at_duration_ns(BAD[i], &ns, NULL), AT_INVALID);
    }
    char text[AT_UNITS_TEXT_BYTES_MAX];
    assert_string_equal(at_duration_format(INT64_MIN, text), "-2562047h47m16s854ms775us808ns");
}

static void ages_look_as_in_kubectl(void **state)
{
    (void)state;
    static const struct row ROWS[] = {
        {"0s", -5},
        {"42s", 42},
        {"119s", 119},
        {"2m", 120},
        {"5m12s", 312},
        {"10m", 605},
        {"179m", 179 * 60},
        {"3h", 180 * 60},
        {"3h5m", 185 * 60},
        {"9h", 9 * 3600 + 60},
        {"47h", 47 * 3600},
        {"2d", 48 * 3600},
        {"3d4h", 76 * 3600},
        {"9d", 217 * 3600},
        {"729d", 729 * 86400},
        {"2y", 730 * 86400},
        {"2y10d", 740 * 86400},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        char text[AT_UNITS_TEXT_BYTES_MAX];
        assert_string_equal(at_duration_format_age(ROWS[i].value * AT_NS_PER_S, text),
                            ROWS[i].text);
    }
}

static void money_is_exact(void **state)
{
    (void)state;
    static const struct row ROWS[] = {
        {"0.0125", 12500}, {"2", 2000000}, {"0.000001", 1}, {"0", 0}, {"12.5", 12500000}};
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        int64_t value;
        char text[AT_UNITS_TEXT_BYTES_MAX];
        assert_int_equal(at_money_microusd(ROWS[i].text, &value, NULL), AT_OK);
        assert_int_equal(value, ROWS[i].value);
        assert_string_equal(at_money_format(value, text), ROWS[i].text);
    }
    int64_t value;
    assert_int_equal(at_money_microusd("1.5000000000", &value, NULL), AT_OK);
    assert_int_equal(value, 1500000);
    static const char *const BAD[] = {"", "$1", "1e3", "-1", "0.0000001", "1 ", "99999999999999"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(at_money_microusd(BAD[i], &value, NULL), AT_INVALID);
    }
}

static void times_are_read_and_written(void **state)
{
    (void)state;
    static const struct row ROWS[] = {
        {"1970-01-01T00:00:00Z", 0},          {"2026-01-02T03:04:05Z", 1767323045},
        {"2000-02-29T23:59:59Z", 951868799},  {"1969-12-31T23:59:59Z", -1},
        {"2100-03-01T00:00:00Z", 4107542400},
    };
    char text[AT_UNITS_TEXT_BYTES_MAX];
    int64_t ns;
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        assert_int_equal(at_time_parse(ROWS[i].text, &ns, NULL), AT_OK);
        assert_int_equal(ns, ROWS[i].value * AT_NS_PER_S);
        assert_string_equal(at_time_format(ns, text), ROWS[i].text);
    }
    assert_int_equal(at_time_parse("2026-01-02T03:04:05.0000019+01:30", &ns, NULL), AT_OK);
    assert_string_equal(at_time_format_micro(ns, text), "2026-01-02T01:34:05.000001Z");
    assert_string_equal(at_time_format_micro(-1, text), "1969-12-31T23:59:59.999999Z");
    static const char *const BAD[] = {"",
                                      "2026-01-02",
                                      "2026-02-29T00:00:00Z",
                                      "2026-13-01T00:00:00Z",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:00:00",
                                      "2026-01-01T00:00:00.Z",
                                      "2026-01-01T00:00:00+1:00",
                                      "2026-01-01T00:00:00Zx",
                                      "9999-01-01T00:00:00Z",
                                      "0001-01-01T00:00:00Z"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_int_equal(at_time_parse(BAD[i], &ns, NULL), AT_INVALID);
    }
}

static void every_day_of_two_centuries_survives_the_round_trip(void **state)
{
    (void)state;
    for (int64_t day = -36500; day < 36500; day++) {
        char text[AT_UNITS_TEXT_BYTES_MAX];
        int64_t back;
        at_time_format(day * 86400 * AT_NS_PER_S, text);
        assert_int_equal(at_time_parse(text, &back, NULL), AT_OK);
        assert_int_equal(back, day * 86400 * AT_NS_PER_S);
    }
}

static void quantities_are_written_in_their_canonical_form(void **state)
{
    (void)state;
    char text[AT_UNITS_TEXT_BYTES_MAX];
    assert_string_equal(at_quantity_format_milli(250, text), "250m");
    assert_string_equal(at_quantity_format_milli(2000, text), "2");
    assert_string_equal(at_quantity_format_milli(-1500, text), "-1500m");
    assert_string_equal(at_quantity_format_bytes(INT64_C(8) << 30, text), "8Gi");
    assert_string_equal(at_quantity_format_bytes(1000, text), "1000");
    assert_string_equal(at_quantity_format_bytes(1536, text), "1536");
    assert_string_equal(at_quantity_format_bytes(0, text), "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantities_are_read_as_kubernetes_does),
        cmocka_unit_test(what_is_no_quantity_is_refused),
        cmocka_unit_test(durations_are_read_and_written),
        cmocka_unit_test(ages_look_as_in_kubectl),
        cmocka_unit_test(money_is_exact),
        cmocka_unit_test(times_are_read_and_written),
        cmocka_unit_test(every_day_of_two_centuries_survives_the_round_trip),
        cmocka_unit_test(quantities_are_written_in_their_canonical_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
