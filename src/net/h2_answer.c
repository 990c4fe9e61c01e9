/* Answers on an HTTP/2 stream. Bytes gather in the stream's queue; nghttp2 takes them from there as
 * the client's windows allow. */
#include "net/h2_int.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>

#define NVS_MAX (AT_HTTP_HEADERS_MAX + 8)

/* Field lines "Name: value\r\n" as nghttp2 wants them; names in lower case, copied to text. */
struct fields {
    nghttp2_nv nv[NVS_MAX];
    size_t n;
    struct at_buf text; /* reserved once for all of it: slices stay put */
};

static void add(struct fields *f, struct at_str name, struct at_str value)
{
    if (f->n < NVS_MAX) {
        f->nv[f->n++] =
            (nghttp2_nv){(uint8_t *)(uintptr_t)name.ptr, (uint8_t *)(uintptr_t)value.ptr, name.len,
                         value.len, NGHTTP2_NV_FLAG_NONE};
    }
}

/* RFC 9113 §8.2.2: fields of one connection. */
static bool is_of_connection(struct at_str name)
{
    static const char *const NAMES[] = {"connection", "keep-alive", "proxy-connection",
                                        "transfer-encoding", "upgrade"};
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        if (at_str_eq(name, NAMES[i])) {
            return true;
        }
    }
    return false;
}

static void add_lines(struct fields *f, const char *lines)
{
    while (lines != NULL && *lines != '\0') {
        const char *end = strstr(lines, "\r\n");
        size_t len = end != NULL ? (size_t)(end - lines) : strlen(lines);
        const char *colon = memchr(lines, ':', len);
        if (colon != NULL && colon > lines) {
            char *name = f->text.data + f->text.len;
            size_t name_len = (size_t)(colon - lines);
            for (size_t i = 0; i < name_len; i++) {
                char ch = lines[i];
                name[i] = ch >= 'A' && ch <= 'Z' ? (char)(ch | 0x20) : ch;
            }
            at_buf_commit(&f->text, name_len);
            struct at_str value = at_str_trim((struct at_str){colon + 1, len - name_len - 1});
            struct at_str n = {name, name_len};
            if (!is_of_connection(n)) {
                add(f, n, value);
            }
        }
        lines = end != NULL ? end + 2 : NULL;
    }
}

static bool fields_begin(struct fields *f, const char *lines)
{
    char *place;
    f->n = 0;
    f->text = (struct at_buf){0};
    return at_buf_reserve(&f->text, (lines != NULL ? strlen(lines) : 0) + 1, &place) == AT_OK;
}

static void answered(struct at_h2_stream *st)
{
    struct at_h2 *h2 = st->ex.h2;
    st->answered = true;
    st->on_gone = NULL;
    st->on_writable = NULL;
    at_h2_body_drop(h2, &st->body);
    st->deadline_ns = at_loop_now_ns(h2->conn->server->loop) + AT_STREAM_END_NS;
    if (st->deadline_ns < h2->conn->deadline_ns) {
        at_http_conn_deadline(h2->conn, AT_STREAM_END_NS);
    }
}

static void submit_trailers(nghttp2_session *session, struct at_h2_stream *st)
{
    struct fields f;
    if (fields_begin(&f, st->trailers.data)) {
        add_lines(&f, st->trailers.data);
        (void)!nghttp2_submit_trailer(session, st->id, f.nv, f.n);
    }
    at_buf_done(&f.text);
}

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *to, size_t max,
                           uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct at_h2_stream *st = source->ptr;
    (void)ctx;
    size_t n = st->out.len - st->out_at;
    n = n < max ? n : max;
    if (n == 0 && !st->answered) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n > 0) {
        memcpy(to, st->out.data + st->out_at, n);
        st->out_at += n;
    }
    if (st->out_at == st->out.len) {
        at_buf_clear(&st->out);
        st->out_at = 0;
    } else if (st->out_at >= AT_H2_STREAM_QUEUE_LOW_BYTES && st->out_at > st->out.len / 2) {
        at_buf_consume(&st->out, st->out_at);
        st->out_at = 0;
    }
    if (st->answered && st->out.len == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (st->trailers.len > 0) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(session, st);
        }
        if (!st->whole) { /* what is left of the request is not wanted */
            (void)!nghttp2_submit_rst_stream(session, 0, id, NGHTTP2_NO_ERROR);
        }
    }
    return (ssize_t)n;
}

static void submit_head(struct at_h2_stream *st, int status, const char *content_type,
                        const char *headers, const uint64_t *length, bool has_body)
{
    struct at_h2 *h2 = st->ex.h2;
    struct fields f;
    char code[8], digits[24];
    st->begun = true;
    if (!fields_begin(&f, headers)) {
        at_h2_abort(st);
        return;
    }
    int n = snprintf(code, sizeof code, "%d", status);
    add(&f, AT_STR(":status"), (struct at_str){code, (size_t)n});
    struct at_str date = at_str_of(at_http_date_line(h2->conn->server));
    add(&f, AT_STR("date"),
        at_str_trim((struct at_str){date.ptr + 5, date.len - 7})); /* no "Date:", no CRLF */
    if (content_type != NULL) {
        add(&f, AT_STR("content-type"), at_str_of(content_type));
    }
    if (length != NULL) {
        n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)*length);
        add(&f, AT_STR("content-length"), (struct at_str){digits, (size_t)n});
    }
    add_lines(&f, headers);
    nghttp2_data_provider body = {.source.ptr = st, .read_callback = read_answer};
    int rc = nghttp2_submit_response(h2->session, st->id, f.nv, f.n, has_body ? &body : NULL);
    at_buf_done(&f.text);
    if (rc != 0) {
        (void)!nghttp2_submit_rst_stream(h2->session, 0, st->id, NGHTTP2_INTERNAL_ERROR);
    }
    if (!has_body && !st->whole) {
        (void)!nghttp2_submit_rst_stream(h2->session, 0, st->id, NGHTTP2_NO_ERROR);
    }
    at_h2_flush_soon(h2);
}

static bool never_has_body(const struct at_h2_stream *st, int status)
{
    return st->ex.head.method == AT_HTTP_HEAD || status == 204 || status == 304;
}

void at_h2_respond(struct at_h2_stream *st, int status, const char *content_type,
                   const char *headers, const void *body, size_t len)
{
    assert(st->handed && !st->answered && !st->begun);
    bool bodyless = never_has_body(st, status) || len == 0;
    st->out.max = len + 1;
    if (!bodyless && at_buf_append(&st->out, body, len) != AT_OK) {
        at_h2_abort(st);
        return;
    }
    uint64_t length = len;
    answered(st);
    submit_head(st, status, content_type, headers, status == 204 || status == 304 ? NULL : &length,
                !bodyless);
}

void at_h2_stream_begin(struct at_h2_stream *st, int status, const char *content_type,
                        const char *headers)
{
    assert(st->handed && !st->answered && !st->begun);
    st->bodyless = never_has_body(st, status);
    st->has_length = at_http_given_length(headers, &st->length_left);
    st->out.max = AT_HTTP_STREAM_QUEUE_BYTES_MAX + 1;
    submit_head(st, status, content_type, headers, NULL, true);
}

enum at_rc at_h2_stream_write(struct at_h2_stream *st, const void *data, size_t len)
{
    assert(st->begun && !st->answered);
    if (st->bodyless || len == 0) {
        return AT_OK;
    }
    if (st->out.len - st->out_at + len > AT_HTTP_STREAM_QUEUE_BYTES_MAX) {
        return AT_EXHAUSTED;
    }
    if (st->out_at > 0 && st->out.len + len > AT_HTTP_STREAM_QUEUE_BYTES_MAX) {
        at_buf_consume(&st->out, st->out_at);
        st->out_at = 0;
    }
    enum at_rc rc = at_buf_append(&st->out, data, len);
    if (rc != AT_OK) {
        return AT_EXHAUSTED;
    }
    if (st->has_length) {
        assert(len <= st->length_left);
        st->length_left -= len;
    }
    if (st->deferred) {
        st->deferred = false;
        (void)!nghttp2_session_resume_data(st->ex.h2->session, st->id);
    }
    at_h2_flush_soon(st->ex.h2);
    return AT_OK;
}

void at_h2_stream_end(struct at_h2_stream *st, const char *trailers)
{
    assert(st->begun && !st->answered);
    bool is_short = st->has_length && st->length_left > 0 && !st->bodyless;
    if (is_short || (trailers != NULL && at_buf_append_str(&st->trailers, trailers) != AT_OK)) {
        at_h2_abort(st); /* the client must see it */
        return;
    }
    answered(st);
    if (st->deferred) {
        st->deferred = false;
        (void)!nghttp2_session_resume_data(st->ex.h2->session, st->id);
    }
    at_h2_flush_soon(st->ex.h2);
}

void at_h2_abort(struct at_h2_stream *st)
{
    if (!st->answered) {
        answered(st);
    }
    (void)!nghttp2_submit_rst_stream(st->ex.h2->session, 0, st->id, NGHTTP2_INTERNAL_ERROR);
    at_h2_flush_soon(st->ex.h2);
}

void at_h2_refuse(struct at_h2_stream *st, int status, enum at_rc rc, const char *message)
{
    char body[2 * AT_ERR_MSG_BYTES_MAX + 256];
    int n = at_http_refusal(body, sizeof body, status, rc, message);
    st->ex.head.method = AT_HTTP_POST; /* what was read of the head may be wrong */
    at_h2_respond(st, status, "application/json", NULL, body, (size_t)n);
}
