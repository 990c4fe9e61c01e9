/* What is taken for a traceparent, and what becomes of it. */
#include "core/mem.h"
#include "gateway/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static bool parses(const char *text, struct gw_trace *ret)
{
    *ret = (struct gw_trace){0};
    return gw_trace_parse(at_str_of(text), ret);
}

static void only_well_formed_parents_are_taken(void **state)
{
    (void)state;
    static const char *const GOOD[] = {"00-" TRACE "-" SPAN "-01",
                                       "00-" TRACE "-" SPAN "-00",
                                       "00-" TRACE "-" SPAN "-ff",
                                       "01-" TRACE "-" SPAN "-01",
                                       "cc-" TRACE "-" SPAN "-01-what-will-be",
                                       "cc-" TRACE "-" SPAN "-01-"};
    static const char *const BAD[] = {"",
                                      "00",
                                      "00-" TRACE "-" SPAN,
                                      "00-" TRACE "-" SPAN "-1",
                                      "00-" TRACE "-" SPAN "-0g",
                                      "00-" TRACE "-" SPAN "-01-more",
                                      "ff-" TRACE "-" SPAN "-01",
                                      "0-" TRACE "-" SPAN "-011",
                                      "00-00000000000000000000000000000000-" SPAN "-01",
                                      "00-" TRACE "-0000000000000000-01",
                                      "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
                                      "00_" TRACE "-" SPAN "-01",
                                      "00-" TRACE "_" SPAN "-01",
                                      "cc-" TRACE "-" SPAN "-01.more",
                                      " 00-" TRACE "-" SPAN "-01",
                                      "00-" TRACE "-" SPAN "-01 "};
    struct gw_trace t;
    for (size_t i = 0; i < AT_ARRAY_LEN(GOOD); i++) {
        if (!parses(GOOD[i], &t)) {
            fail_msg("refused %s", GOOD[i]);
        }
        assert_true(t.id[0] == 0x0af7651916cd43ddull);
        assert_true(t.id[1] == 0x8448eb211c80319cull);
        assert_true(t.parent == 0xb7ad6b7169203331ull);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        if (parses(BAD[i], &t)) {
            fail_msg("took %s", BAD[i]);
        }
    }
    assert_true(parses("00-" TRACE "-" SPAN "-fe", &t));
    assert_false(t.sampled);
    assert_int_equal(t.flags, 2);
}

static void up(const char *request, uint64_t ratio, char *out, size_t size)
{
    struct at_http_head head;
    struct gw_ids ids = {.span = 0x1111111111111111ull, .request = 7};
    const uint64_t random[] = {0xaaaaaaaaaaaaaaaaull, 0x8000000000000000ull, 0x3333333333333333ull};
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    char id[17];
    struct at_str request_id;
    assert_int_equal(at_http1_parse_request(request, strlen(request), &head, NULL), AT_OK);
    gw_trace_take(&head, random, ratio, &ids.trace);
    assert_int_equal(gw_headers_up(&head, &ids, id, &request_id, &lines), AT_OK);
    assert_memory_equal(lines.data + GW_HEADERS_SPAN_AT, "1111111111111111", 16);
    snprintf(out, size, "%s", lines.data);
}

#define ALL ((uint64_t)1 << 32)
#define HEAD "GET / HTTP/1.1\r\nHost: x\r\n"

static void a_trace_goes_on_with_the_gateways_span(void **state)
{
    (void)state;
    char out[1024];
    up(HEAD "TraceParent: 00-" TRACE "-" SPAN "-01\r\ntracestate: a=1\r\nTracestate: b=2\r\n\r\n",
       0, out, sizeof out);
    assert_non_null(strstr(out, "traceparent: 00-" TRACE "-1111111111111111-01\r\n"));
    assert_null(strstr(out, SPAN));
    assert_non_null(strstr(out, "tracestate: a=1\r\nTracestate: b=2\r\n"));
}

static void what_is_malformed_or_twice_begins_a_new_trace_without_its_state(void **state)
{
    (void)state;
    static const char *const REQUESTS[] = {
        HEAD "\r\n", HEAD "tracestate: a=1\r\n\r\n",
        HEAD "traceparent: 00-" TRACE "-" SPAN "-zz\r\ntracestate: a=1\r\n\r\n",
        HEAD "traceparent: 00-" TRACE "-" SPAN "-01\r\ntraceparent: 00-" TRACE "-" SPAN
             "-01\r\ntracestate: a=1\r\n\r\n"};
    char out[1024];
    for (size_t i = 0; i < AT_ARRAY_LEN(REQUESTS); i++) {
        up(REQUESTS[i], ALL, out, sizeof out);
        assert_non_null(strstr(
            out, "traceparent: 00-aaaaaaaaaaaaaaaa8000000000000001-1111111111111111-01\r\n"));
        assert_null(strstr(out, "tracestate"));
        assert_null(strstr(out, SPAN));
    }
    up(REQUESTS[0], 0x80000000u, out, sizeof out); /* half: 0x80000000 is just not below it */
    assert_non_null(strstr(out, "-1111111111111111-00\r\n"));
    up(REQUESTS[0], 0x80000001u, out, sizeof out);
    assert_non_null(strstr(out, "-1111111111111111-01\r\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_well_formed_parents_are_taken),
        cmocka_unit_test(a_trace_goes_on_with_the_gateways_span),
        cmocka_unit_test(what_is_malformed_or_twice_begins_a_new_trace_without_its_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
