#include "net/ws.h"

#include "core/mem.h"
#include "core/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A masked frame as a client sends it. Returns its length. */
static size_t frame(char *out, unsigned first, const char *text, size_t len)
{
    static const char MASK[4] = {0x11, 0x22, 0x33, 0x44};
    size_t n = at_ws_head(out, AT_WS_BINARY, len);
    out[0] = (char)first;
    out[1] = (char)(out[1] | 0x80);
    memcpy(out + n, MASK, 4);
    n += 4;
    for (size_t i = 0; i < len; i++) {
        out[n++] = (char)(text[i] ^ MASK[i % 4]);
    }
    return n;
}

/* RFC 6455 §1.3 */
static void the_handshakes_answer_is_the_standards_example(void **state)
{
    (void)state;
    char out[AT_WS_ACCEPT_BYTES];
    assert_int_equal(at_ws_accept("dGhlIHNhbXBsZSBub25jZQ==", 24, out, NULL), AT_OK);
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_int_equal(at_ws_accept("dGhlIHNhbXBsZQ==", 16, out, NULL), AT_BAD_REQUEST);
}

/* The same messages come out however the bytes are cut. */
static void messages_come_out_whole_however_they_are_cut(void **state)
{
    (void)state;
    static char wire[140000];
    static char big[66000];
    memset(big, 'x', sizeof big);
    size_t n = frame(wire, 0x02, "ab", 2);       /* begins a message */
    n += frame(wire + n, 0x89, "hi", 2);         /* a ping in between */
    n += frame(wire + n, 0x00, "", 0);           /* an empty part */
    n += frame(wire + n, 0x80, "cd", 2);         /* ends it */
    n += frame(wire + n, 0x82, "", 0);           /* an empty message */
    n += frame(wire + n, 0x81, big, 300);        /* two bytes of length */
    n += frame(wire + n, 0x82, big, sizeof big); /* eight */
    n += frame(wire + n, 0x88, "\x03\xe8", 2);   /* close, 1000 */
    static const size_t CUTS[] = {1, 2, 3, 7, 100, 5000, sizeof wire};
    for (size_t c = 0; c < AT_ARRAY_LEN(CUTS); c++) {
        struct at_ws ws;
        at_ws_init(&ws);
        size_t firsts = 0;
        size_t lasts = 0;
        size_t bytes = 0;
        size_t controls = 0;
        for (size_t at = 0; at < n;) {
            size_t len = CUTS[c] < n - at ? CUTS[c] : n - at;
            for (size_t used_all = 0;;) {
                struct at_ws_event e;
                size_t used = 99999999;
                assert_int_equal(
                    at_ws_take(&ws, wire + at + used_all, len - used_all, &used, &e, NULL), AT_OK);
                used_all += used;
                if (e.type == AT_WS_EVENT_NONE) {
                    assert_int_equal(used_all, len);
                    break;
                }
                if (e.type == AT_WS_EVENT_CONTROL) {
                    controls++;
                    assert_int_equal(e.opcode, controls == 1 ? AT_WS_PING : AT_WS_CLOSE);
                    assert_int_equal(e.len, 2);
                    assert_memory_equal(e.data, controls == 1 ? "hi" : "\x03\xe8", 2);
                    continue;
                }
                firsts += e.first;
                lasts += e.last;
                bytes += e.len;
            }
            at += len;
        }
        assert_int_equal(firsts, 4);
        assert_int_equal(lasts, 4);
        assert_int_equal(bytes, 4 + 0 + 300 + sizeof big);
        assert_int_equal(controls, 2);
    }
}

static void what_breaks_the_protocol_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t len;
    } CASES[] = {
        {"not masked", "\x82\x01", 2},
        {"reserved bit", "\xc2\x81", 2},
        {"unknown opcode", "\x83\x81", 2},
        {"unknown control opcode", "\x8b\x81", 2},
        {"control in parts", "\x09\x81", 2},
        {"control too long", "\x89\xfe", 2},
        {"continues nothing", "\x80\x81", 2},
        {"long form of a short length",
         "\x82\xfe\x00\x05"
         "mask",
         8},
        {"message within a message",
         "\x02\x80"
         "mask"
         "\x82\x80",
         8},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_ws ws;
        at_ws_init(&ws);
        enum at_rc rc = AT_OK;
        for (size_t at = 0; at < CASES[i].len && rc == AT_OK;) {
            struct at_ws_event e;
            size_t used = 0;
            rc = at_ws_take(&ws, CASES[i].bytes + at, CASES[i].len - at, &used, &e, NULL);
            at += used;
        }
        if (rc != AT_BAD_REQUEST) {
            fail_msg("%s: %s", CASES[i].what, at_rc_name(rc));
        }
    }
    struct at_ws ws;
    struct at_ws_event e;
    size_t used;
    at_ws_init(&ws);
    static const char HUGE_FRAME[] = "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask";
    assert_int_equal(at_ws_take(&ws, HUGE_FRAME, 14, &used, &e, NULL), AT_TOO_LARGE);
}

/* What the client's side writes is what the server's side reads, and the reverse. */
static void both_sides_understand_each_other(void **state)
{
    (void)state;
    static const uint8_t MASK[AT_WS_MASK_BYTES] = {0xa1, 0x02, 0xff, 0x40};
    char wire[64];
    struct at_ws server;
    struct at_ws client;
    struct at_ws_event e;
    size_t used = 0;
    at_ws_init(&server);
    size_t n = at_ws_head_masked(wire, AT_WS_BINARY, 5, MASK);
    memcpy(wire + n, "hello", 5);
    at_ws_mask(wire + n, 2, 0, MASK); /* in two pieces */
    at_ws_mask(wire + n + 2, 3, 2, MASK);
    assert_int_equal(at_ws_take(&server, wire, n + 5, &used, &e, NULL), AT_OK);
    assert_int_equal(used, n + 5);
    assert_memory_equal(e.data, "hello", 5);
    at_ws_init_client(&client);
    n = at_ws_head(wire, AT_WS_BINARY, 0);
    n += at_ws_head(wire + n, AT_WS_TEXT, 2);
    memcpy(wire + n, "ok", 2);
    assert_int_equal(at_ws_take(&client, wire, n + 2, &used, &e, NULL), AT_OK);
    assert_true(e.first && e.last && e.len == 0);
    assert_int_equal(at_ws_take(&client, wire + used, n + 2 - used, &used, &e, NULL), AT_OK);
    assert_memory_equal(e.data, "ok", 2);
    n = at_ws_head_masked(wire, AT_WS_PING, 0, MASK);
    assert_int_equal(at_ws_take(&client, wire, n, &used, &e, NULL), AT_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_handshakes_answer_is_the_standards_example),
        cmocka_unit_test(both_sides_understand_each_other),
        cmocka_unit_test(messages_come_out_whole_however_they_are_cut),
        cmocka_unit_test(what_breaks_the_protocol_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
