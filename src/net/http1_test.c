/* The HTTP/1.1 machine: what it takes, what it refuses, and that cuts make no difference. */
#include "net/http1.h"

#include "core/buf.h"
#include "core/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static enum at_rc parse_request(const char *text, struct at_http_head *head)
{
    size_t len = strlen(text);
    char *copy = malloc(len); /* no NUL behind: a read past the end is seen */
    assert_non_null(copy);
    memcpy(copy, text, len);
    struct at_err err;
    enum at_rc rc = at_http1_parse_request(copy, len, head, &err);
    free(copy);
    return rc;
}

static void takes_a_usual_request(void **state)
{
    (void)state;
    static const char TEXT[] = "POST /v2/models/m/infer?x=1&y=%20 HTTP/1.1\r\n"
                               "Host: a.example:80\r\n"
                               "content-length: 12\r\n"
                               "X-Odd:\t two words \t\r\n"
                               "Empty:\r\n"
                               "Expect: 100-Continue\r\n\r\nrest";
    struct at_http_head h;
    assert_int_equal(at_http1_parse_request(TEXT, sizeof TEXT - 1, &h, NULL), AT_OK);
    assert_true(h.is_request);
    assert_int_equal(h.method, AT_HTTP_POST);
    assert_true(at_str_eq(h.path, "/v2/models/m/infer"));
    assert_true(at_str_eq(h.query, "x=1&y=%20"));
    assert_true(h.has_length);
    assert_int_equal(h.content_length, 12);
    assert_true(h.keep_alive);
    assert_true(h.expect_continue);
    assert_int_equal(h.n_headers, 5);
    assert_true(at_str_eq(at_http_header_get(&h, "x-odd"), "two words"));
    assert_int_equal(at_http_header_get(&h, "empty").len, 0);
    assert_null(at_http_header_get(&h, "absent").ptr);
    assert_int_equal(h.head_bytes, sizeof TEXT - 1 - 4);
}

static void takes_the_other_forms_of_targets(void **state)
{
    (void)state;
    struct at_http_head h;
    static const char ABSOLUTE[] = "GET http://h:1/a?b HTTP/1.1\r\nHost: h:1\r\n\r\n";
    assert_int_equal(at_http1_parse_request(ABSOLUTE, sizeof ABSOLUTE - 1, &h, NULL), AT_OK);
    assert_true(at_str_eq(h.path, "/a"));
    assert_true(at_str_eq(h.query, "b"));
    static const char BARE[] = "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_int_equal(at_http1_parse_request(BARE, sizeof BARE - 1, &h, NULL), AT_OK);
    assert_true(at_str_eq(h.target, "/"));
    assert_int_equal(parse_request("GET HTTP://h/ HTTP/1.1\r\nHost: h\r\n\r\n", &h),
                     AT_BAD_REQUEST);
    /* Of two hosts readers could take either (RFC 9112 §3.2.2 wants them to be the same). */
    assert_int_equal(parse_request("GET http://b/ HTTP/1.1\r\nHost: h\r\n\r\n", &h),
                     AT_BAD_REQUEST);
    assert_int_equal(parse_request("GET http://h HTTP/1.1\r\nHost: h:80\r\n\r\n", &h),
                     AT_BAD_REQUEST);
    assert_int_equal(parse_request("GET http://H/ HTTP/1.1\r\nHost: h\r\n\r\n", &h), AT_OK);
    static const char STAR[] = "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_int_equal(at_http1_parse_request(STAR, sizeof STAR - 1, &h, NULL), AT_OK);
    assert_true(at_str_eq(h.path, "*"));
    assert_int_equal(parse_request("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &h), AT_OK);
}

static void knows_when_a_connection_stays(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep, upgrade;
    } CASES[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true, false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n", false, false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, close\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", true, true},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_http_head h;
        assert_int_equal(parse_request(CASES[i].text, &h), AT_OK);
        assert_int_equal(h.keep_alive, CASES[i].keep);
        assert_int_equal(h.upgrade, CASES[i].upgrade);
    }
}

#define HOST "Host: h\r\n"

static void refuses_what_smuggles(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 5 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content-Length : 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST " Content-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Content\x02-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n"
        "Transfer-Encoding: identity\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding:\x0b"
        "chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "Transfer-Encoding\t: chunked\r\n\r\n",
        "GET / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\r\n folded: b\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\rTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\r\n\nGET /evil HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\x01z\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "X: a\x7fz\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST ": empty name\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "na(me: x\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST HOST "\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET  / HTTP/1.1\r\n" HOST "\r\n",
        "GET / x HTTP/1.1\r\n" HOST "\r\n",
        "GET /\x80 HTTP/1.1\r\n" HOST "\r\n",
        "GET /#f HTTP/1.1\r\n" HOST "\r\n",
        "GET\t/ HTTP/1.1\r\n" HOST "\r\n",
        " GET / HTTP/1.1\r\n" HOST "\r\n",
        "GET / HTTP/1.1 \r\n" HOST "\r\n",
        "GET / HTTP/2.0\r\n" HOST "\r\n",
        "GET / HTTP/1.2\r\n" HOST "\r\n",
        "GET / http/1.1\r\n" HOST "\r\n",
        "GET / HTTP/1.1x\r\n" HOST "\r\n",
        "GET /\r\n" HOST "\r\n",
        "GET evil HTTP/1.1\r\n" HOST "\r\n",
        "GET * HTTP/1.1\r\n" HOST "\r\n",
        "CONNECT h:443 HTTP/1.1\r\n" HOST "\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02 TLS on a plain port",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_http_head h;
        enum at_rc rc = parse_request(CASES[i], &h);
        if (rc != AT_BAD_REQUEST) {
            print_error("taken: %s -> %s\n", CASES[i], at_rc_name(rc));
        }
        assert_int_equal(rc, AT_BAD_REQUEST);
    }
}

static void wants_more_at_every_cut_and_then_says_the_same(void **state)
{
    (void)state;
    static const char TEXT[] = "\r\nPUT /a?b HTTP/1.1\r\nHost: h\r\nA: b\r\nTransfer-Encoding: "
                               "chunked\r\nConnection: close\r\n\r\n";
    size_t len = sizeof TEXT - 1;
    struct at_http_head h;
    for (size_t cut = 0; cut < len; cut++) {
        char *part = malloc(cut + 1);
        memcpy(part, TEXT, cut);
        assert_int_equal(at_http1_parse_request(part, cut, &h, NULL), AT_AGAIN);
        free(part);
    }
    assert_int_equal(at_http1_parse_request(TEXT, len, &h, NULL), AT_OK);
    assert_true(h.chunked);
    static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    for (size_t cut = 0; cut < sizeof ANSWER - 1; cut++) {
        char *part = malloc(cut + 1);
        memcpy(part, ANSWER, cut);
        assert_int_equal(at_http1_parse_response(part, cut, &h, NULL), AT_AGAIN);
        free(part);
    }
    assert_int_equal(at_http1_parse_response(ANSWER, sizeof ANSWER - 1, &h, NULL), AT_OK);
    assert_int_equal(h.status, 200);
}

static void holds_its_limits(void **state)
{
    (void)state;
    struct at_buf b = {0};
    struct at_http_head h;
    assert_int_equal(at_buf_append_str(&b, "GET / HTTP/1.1\r\nHost: h\r\n"), AT_OK);
    for (int i = 0; i < AT_HTTP_HEADERS_MAX; i++) {
        assert_int_equal(at_buf_printf(&b, "X%d: y\r\n", i), AT_OK);
    }
    assert_int_equal(at_buf_append_str(&b, "\r\n"), AT_OK);
    assert_int_equal(at_http1_parse_request(b.data, b.len, &h, NULL), AT_TOO_LARGE);

    at_buf_clear(&b);
    assert_int_equal(at_buf_append_str(&b, "GET / HTTP/1.1\r\nHost: h\r\nX: "), AT_OK);
    while (b.len <= AT_HTTP_HEAD_BYTES_MAX) {
        assert_int_equal(at_http1_parse_request(b.data, b.len, &h, NULL), AT_AGAIN);
        assert_int_equal(at_buf_append_str(&b, "0123456789abcdef0123456789abcdef"), AT_OK);
    }
    assert_int_equal(at_http1_parse_request(b.data, b.len, &h, NULL), AT_TOO_LARGE);
    at_buf_done(&b);
}

static void refuses_bad_answers(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_http_head h;
        assert_int_equal(at_http1_parse_response(CASES[i], strlen(CASES[i]), &h, NULL),
                         AT_BAD_REQUEST);
    }
}

/* Reads a whole body in pieces of step bytes; what was payload goes to out. */
static enum at_rc read_body(const struct at_http_head *head, const char *text, size_t len,
                            size_t step, struct at_buf *out, size_t *ret_used)
{
    struct at_http1_body body;
    size_t at = 0;
    at_http1_body_begin(&body, head, AT_HTTP_GET);
    while (at < len && !body.done) {
        size_t n = len - at < step ? len - at : step;
        size_t used = 0;
        struct at_str chunk;
        enum at_rc rc = at_http1_body_take(&body, text + at, n, &used, &chunk, NULL);
        if (rc != AT_OK) {
            return rc;
        }
        assert_int_equal(at_buf_append(out, chunk.ptr, chunk.len), AT_OK);
        at += used;
        assert_true(used > 0);
    }
    *ret_used = at;
    return body.done ? AT_OK : AT_AGAIN;
}

static void reads_chunks_cut_anywhere(void **state)
{
    (void)state;
    static const char TEXT[] = "5\r\nhello\r\n1;ext=\"v\"\r\n,\r\n00A\r\n0123456789\r\n"
                               "0\r\nTrailer: x\r\n\r\nNEXT";
    struct at_http_head head = {.is_request = true, .chunked = true};
    for (size_t step = 1; step < sizeof TEXT; step++) {
        struct at_buf out = {0};
        size_t used;
        assert_int_equal(read_body(&head, TEXT, sizeof TEXT - 1, step, &out, &used), AT_OK);
        assert_string_equal(out.data, "hello,0123456789");
        assert_int_equal(used, sizeof TEXT - 1 - 4);
        at_buf_done(&out);
    }
}

static void refuses_bad_chunks(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "\r\n",           "x\r\n",         "-1\r\n",
        "0x5\r\nhello",   "5\nhello\r\n",  "5\r\nhello!\r\n",
        "5\r\nhello\n",   " 5\r\nhello",   "5 \r\nhello",
        "5;a\nhello\r\n", "0\r\nA: b\n\n", "fffffffffffffffff\r\n",
        "5\r\nhello\r0",  "0\r\n\rX",      "8000000000000000\r\n",
        "0\r\n: x\r\n",   "5;\x01\r\n",
    };
    struct at_http_head head = {.is_request = true, .chunked = true};
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_buf out = {0};
        size_t used;
        enum at_rc rc = read_body(&head, CASES[i], strlen(CASES[i]), 1000, &out, &used);
        if (rc != AT_BAD_REQUEST) {
            print_error("taken: %s\n", CASES[i]);
        }
        assert_int_equal(rc, AT_BAD_REQUEST);
        at_buf_done(&out);
    }
}

static void knows_where_a_body_ends(void **state)
{
    (void)state;
    struct at_http1_body body;
    struct at_http_head head = {.status = 200};
    at_http1_body_begin(&body, &head, AT_HTTP_GET); /* to the end of the stream */
    assert_false(body.done);
    assert_int_equal(at_http1_body_eof(&body, NULL), AT_OK);
    head.has_length = true;
    head.content_length = 3;
    at_http1_body_begin(&body, &head, AT_HTTP_GET);
    assert_int_equal(at_http1_body_eof(&body, NULL), AT_UPSTREAM);
    at_http1_body_begin(&body, &head, AT_HTTP_HEAD);
    assert_true(body.done);
    head.status = 304;
    at_http1_body_begin(&body, &head, AT_HTTP_GET);
    assert_true(body.done);
    struct at_http_head request = {.is_request = true};
    at_http1_body_begin(&body, &request, AT_HTTP_POST);
    assert_true(body.done);
}

static void decodes_queries(void **state)
{
    (void)state;
    char out[16];
    struct at_str q = AT_STR("a=1&b=x%2Fy+z&&c&%64=last&bad=%4");
    assert_int_equal(at_query_get(q, "a", out, sizeof out), AT_OK);
    assert_string_equal(out, "1");
    assert_int_equal(at_query_get(q, "b", out, sizeof out), AT_OK);
    assert_string_equal(out, "x/y z");
    assert_int_equal(at_query_get(q, "c", out, sizeof out), AT_OK);
    assert_string_equal(out, "");
    assert_int_equal(at_query_get(q, "d", out, sizeof out), AT_OK);
    assert_string_equal(out, "last");
    assert_int_equal(at_query_get(q, "bad", out, sizeof out), AT_BAD_REQUEST);
    assert_int_equal(at_query_get(q, "none", out, sizeof out), AT_NOT_FOUND);
    assert_int_equal(at_query_get(q, "b", out, 5), AT_TOO_LARGE);
    assert_int_equal(at_percent_decode(AT_STR("%00"), false, out, sizeof out), AT_BAD_REQUEST);
    assert_int_equal(at_percent_decode(AT_STR("a+b"), false, out, sizeof out), AT_OK);
    assert_string_equal(out, "a+b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_a_usual_request),
        cmocka_unit_test(takes_the_other_forms_of_targets),
        cmocka_unit_test(knows_when_a_connection_stays),
        cmocka_unit_test(refuses_what_smuggles),
        cmocka_unit_test(wants_more_at_every_cut_and_then_says_the_same),
        cmocka_unit_test(holds_its_limits),
        cmocka_unit_test(refuses_bad_answers),
        cmocka_unit_test(reads_chunks_cut_anywhere),
        cmocka_unit_test(refuses_bad_chunks),
        cmocka_unit_test(knows_where_a_body_ends),
        cmocka_unit_test(decodes_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
