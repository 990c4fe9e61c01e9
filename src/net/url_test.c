#include "net/url.h"

#include "core/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void takes_urls(void **state)
{
    (void)state;
    static const struct {
        const char *text, *scheme, *host, *addr, *target;
        int port;
    } CASES[] = {
        {"http://a", "http", "a", "a:80", "/", 80},
        {"https://a.b:8443/x/y?z=1#f", "https", "a.b", "a.b:8443", "/x/y?z=1", 8443},
        {"http://a?q", "http", "a", "a:80", "/?q", 80},
        {"https://[::1]/", "https", "::1", "[::1]:443", "/", 443},
        {"http://[fe80::1]:81", "http", "fe80::1", "[fe80::1]:81", "/", 81},
        {"unix:///run/a.sock", "unix", "", "unix:/run/a.sock", "/", 0},
        {"file:///models/m.onnx", "file", "", "", "/models/m.onnx", 0},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_url u;
        assert_int_equal(at_url_parse(CASES[i].text, &u, NULL), AT_OK);
        assert_string_equal(u.scheme, CASES[i].scheme);
        assert_string_equal(u.host, CASES[i].host);
        assert_string_equal(u.addr, CASES[i].addr);
        assert_string_equal(u.target, CASES[i].target);
        assert_int_equal(u.port, CASES[i].port);
    }
}

static void refuses_other_things(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "",           "a:80",        "//a",         "http:/a",       "http://",
        "http://:80", "http://a:0",  "http://a:x",  "http://a:1:2",  "http://u@a/",
        "http://a b", "http://[::1", "http://[]/",  "http://[::1]x", "ftp://a/",
        "unix://a",   "file://a/b",  "http://a\n/", "HTTP://a",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_url u;
        struct at_err err = {0};
        assert_int_equal(at_url_parse(CASES[i], &u, &err), AT_INVALID);
        assert_true(err.msg[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_urls),
        cmocka_unit_test(refuses_other_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
