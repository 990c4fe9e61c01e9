#include "net/spdy.h"

#include "core/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

static const struct at_spdy_header HEADERS[] = {
    {"streamtype", "data"}, {"port", "8080"}, {"requestid", "0"}};

/* The next event, taking at most step bytes at a time. */
static enum at_rc next(struct at_spdy *spdy, struct at_buf *bytes, size_t step,
                       struct at_spdy_event *e)
{
    do {
        size_t used = 0;
        size_t n = bytes->len < step ? bytes->len : step;
        enum at_rc rc = at_spdy_take(spdy, bytes->data, n, &used, e, NULL);
        if (rc != AT_OK) {
            return rc;
        }
        static char shown[4096];
        if (e->type == AT_SPDY_DATA) { /* what it shows lies in the bytes */
            memcpy(shown, e->data, e->len);
            e->data = shown;
        }
        at_buf_consume(bytes, used);
    } while (e->type == AT_SPDY_NONE && bytes->len > 0);
    return AT_OK;
}

static void streams_open_with_headers_and_carry_data(void **state)
{
    (void)state;
    for (size_t step = 1; step < 200; step += 66) {
        struct at_spdy *client = at_spdy_new();
        struct at_spdy *server = at_spdy_new();
        struct at_buf out = {0};
        char *place;
        assert_int_equal(at_buf_reserve(&out, 16384, &place), AT_OK);
        struct at_spdy_event e;
        for (uint32_t id = 1; id < 7; id += 2) { /* later blocks build on the first */
            assert_int_equal(at_spdy_put_open(client, id, HEADERS, 3, &out), AT_OK);
            assert_int_equal(next(server, &out, step, &e), AT_OK);
            assert_int_equal(e.type, AT_SPDY_OPEN);
            assert_int_equal(e.id, id);
            assert_string_equal(at_spdy_header(&e, "streamtype"), "data");
            assert_string_equal(at_spdy_header(&e, "requestid"), "0");
            assert_null(at_spdy_header(&e, "streamType"));
        }
        assert_int_equal(at_spdy_put_data(3, "hello", 5, true, &out), AT_OK);
        size_t seen = 0;
        do {
            assert_int_equal(next(server, &out, step, &e), AT_OK);
            assert_int_equal(e.type, AT_SPDY_DATA);
            assert_int_equal(e.id, 3);
            assert_memory_equal(e.data, &"hello"[seen], e.len);
            seen += e.len;
        } while (!e.last);
        assert_int_equal(seen, 5);
        assert_int_equal(at_spdy_put_reset(5, &out), AT_OK);
        assert_int_equal(next(server, &out, step, &e), AT_OK);
        assert_int_equal(e.type, AT_SPDY_RESET);
        assert_int_equal(at_spdy_put_ping(77, &out), AT_OK);
        assert_int_equal(next(server, &out, step, &e), AT_OK);
        assert_int_equal(e.type, AT_SPDY_PING);
        assert_int_equal(e.id, 77);
        /* An answer is understood by a peer, and is nothing to tell. */
        assert_int_equal(at_spdy_put_reply(server, 1, &out), AT_OK);
        assert_int_equal(next(client, &out, step, &e), AT_OK);
        assert_int_equal(e.type, AT_SPDY_NONE);
        at_buf_done(&out);
        at_spdy_free(client);
        at_spdy_free(server);
    }
}

static void broken_frames_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        enum at_rc rc;
    } ROWS[] = {
        {"\x80\x02\0\1\0\0\0\0", 8, AT_BAD_REQUEST},          /* version 2 */
        {"\x80\x03\0\1\0\xff\xff\xff", 8, AT_TOO_LARGE},      /* 16 MB of headers */
        {"\x80\x03\0\1\0\0\0\4\0\0\0\1", 12, AT_BAD_REQUEST}, /* no headers at all */
        {"\0\0\0\0\0\0\0\1x", 9, AT_BAD_REQUEST},             /* data of no stream */
        {"\x80\x03\0\1\0\0\0\x0e\0\0\0\1\0\0\0\0\0\0junk", 22, AT_BAD_REQUEST},
        {"\x80\x03\0\3\0\0\0\0", 8, AT_BAD_REQUEST}, /* a reset of nothing */
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        struct at_spdy *spdy = at_spdy_new();
        struct at_spdy_event e;
        size_t used;
        assert_int_equal(at_spdy_take(spdy, ROWS[i].bytes, ROWS[i].len, &used, &e, NULL),
                         ROWS[i].rc);
        at_spdy_free(spdy);
    }
}

static void a_block_that_inflates_without_end_is_refused(void **state)
{
    (void)state;
    static char zeros[1 << 20];
    char frame[18 + 2048] = "\x80\x03\0\1";
    uLongf len = sizeof frame - 18;
    assert_int_equal(compress((Bytef *)frame + 18, &len, (const Bytef *)zeros, sizeof zeros), Z_OK);
    size_t payload = 10 + len;
    frame[6] = (char)(payload >> 8);
    frame[7] = (char)payload;
    frame[11] = 1; /* the stream */
    struct at_spdy *spdy = at_spdy_new();
    struct at_spdy_event e;
    size_t used;
    assert_int_equal(at_spdy_take(spdy, frame, 8 + payload, &used, &e, NULL), AT_TOO_LARGE);
    at_spdy_free(spdy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_open_with_headers_and_carry_data),
        cmocka_unit_test(broken_frames_are_refused),
        cmocka_unit_test(a_block_that_inflates_without_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
