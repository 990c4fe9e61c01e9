/* HTTP/1.1 bodies (RFC 9112 §6, §7.1): by length, by chunks, or to the end of the stream. */
#include "net/http1.h"

#include <assert.h>

/* Chunk extensions and trailers are read over; more of them than this is an attack. */
#define EXTENSION_BYTES_MAX 1024
#define TRAILER_BYTES_MAX 8192

enum mode { MODE_NONE, MODE_LENGTH, MODE_CHUNKED, MODE_EOF };

enum state {
    S_SIZE_FIRST, /* at least one hex digit */
    S_SIZE,
    S_EXTENSION,
    S_SIZE_LF,
    S_DATA,
    S_DATA_CR,
    S_DATA_LF,
    S_TRAILER_START,
    S_TRAILER_NAME,
    S_TRAILER,
    S_TRAILER_LF,
    S_END_LF,
};

void at_http1_body_begin(struct at_http1_body *body, const struct at_http_head *head,
                         enum at_http_method request_method)
{
    *body = (struct at_http1_body){.mode = MODE_NONE, .state = S_SIZE_FIRST};
    bool bodyless = !head->is_request && (request_method == AT_HTTP_HEAD || head->status < 200 ||
                                          head->status == 204 || head->status == 304);
    if (bodyless) {
        body->done = true;
    } else if (head->chunked) {
        body->mode = MODE_CHUNKED;
    } else if (head->has_length) {
        body->mode = MODE_LENGTH;
        body->left = head->content_length;
        body->done = body->left == 0;
    } else if (head->is_request) {
        body->done = true;
    } else {
        body->mode = MODE_EOF;
    }
}

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *step_size(struct at_http1_body *b, unsigned char c)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        if (b->left > (uint64_t)INT64_MAX >> 4) {
            return "the chunk size is too large";
        }
        b->left = b->left << 4 | (uint64_t)digit;
        b->state = S_SIZE;
        return NULL;
    }
    if (b->state == S_SIZE_FIRST) {
        return "the chunk size is not a hexadecimal number";
    }
    if (c == '\r') {
        b->state = S_SIZE_LF;
    } else if (c == ';') {
        b->state = S_EXTENSION;
        b->line_bytes = 0;
    } else {
        return "the chunk size is not a hexadecimal number";
    }
    return NULL;
}

static bool is_control(unsigned char c)
{
    return (c < 0x20 && c != '\t') || c == 0x7f;
}

/* One byte of framing. Returns what is wrong, or NULL. */
static const char *step(struct at_http1_body *b, unsigned char c)
{
    switch ((enum state)b->state) {
    case S_SIZE_FIRST:
    case S_SIZE:
        return step_size(b, c);
    case S_EXTENSION:
        if (c == '\r') {
            b->state = S_SIZE_LF;
        } else if (is_control(c) || ++b->line_bytes > EXTENSION_BYTES_MAX) {
            return "a bad chunk extension";
        }
        return NULL;
    case S_SIZE_LF:
        b->state = b->left == 0 ? S_TRAILER_START : S_DATA;
        b->line_bytes = 0;
        return c == '\n' ? NULL : "a chunk size line does not end with CR LF";
    case S_DATA_CR:
        b->state = S_DATA_LF;
        return c == '\r' ? NULL : "a chunk is longer than its size";
    case S_DATA_LF:
        b->state = S_SIZE_FIRST;
        return c == '\n' ? NULL : "a chunk does not end with CR LF";
    case S_TRAILER_START:
        if (c == '\r') {
            b->state = S_END_LF;
            return NULL;
        }
        if (c == ':') {
            return "a bad trailer";
        }
        b->state = S_TRAILER_NAME;
        __attribute__((fallthrough));
    case S_TRAILER_NAME:
        if (c == ':') {
            b->state = S_TRAILER;
        } else if ((unsigned char)c <= ' ' || (unsigned char)c >= 0x7f ||
                   ++b->line_bytes > TRAILER_BYTES_MAX) {
            return "a bad trailer"; /* a line that is no header, or spaces before its colon */
        }
        return NULL;
    case S_TRAILER:
        if (c == '\r') {
            b->state = S_TRAILER_LF;
        } else if (is_control(c) || ++b->line_bytes > TRAILER_BYTES_MAX) {
            return "a bad trailer";
        }
        return NULL;
    case S_TRAILER_LF:
        b->state = S_TRAILER_START;
        return c == '\n' ? NULL : "a trailer does not end with CR LF";
    case S_END_LF:
        b->done = true;
        return c == '\n' ? NULL : "the last chunk does not end with CR LF";
    case S_DATA:
        break;
    }
    assert(!"payload is taken by the caller");
    return NULL;
}

static size_t take_payload(struct at_http1_body *b, size_t len)
{
    size_t n = b->left < len ? (size_t)b->left : len;
    b->left -= n;
    return n;
}

enum at_rc at_http1_body_take(struct at_http1_body *body, const char *data, size_t len,
                              size_t *ret_used, struct at_str *ret_chunk, struct at_err *err)
{
    size_t used = 0;
    struct at_str chunk = {data, 0};
    if (body->mode == MODE_EOF) {
        used = chunk.len = len;
    } else if (body->mode == MODE_LENGTH && !body->done) {
        used = chunk.len = take_payload(body, len);
        body->done = body->left == 0;
    } else if (body->mode == MODE_CHUNKED) {
        while (used < len && !body->done) {
            if (body->state == S_DATA) {
                if (chunk.len > 0) {
                    break;
                }
                chunk = (struct at_str){data + used, take_payload(body, len - used)};
                used += chunk.len;
                body->state = body->left == 0 ? S_DATA_CR : S_DATA;
                continue;
            }
            const char *wrong = step(body, (unsigned char)data[used]);
            if (wrong != NULL) {
                body->done = false;
                return at_err_set(err, AT_BAD_REQUEST, "malformed HTTP body: %s", wrong);
            }
            used++;
        }
    }
    *ret_used = used;
    *ret_chunk = chunk;
    return AT_OK;
}

enum at_rc at_http1_body_eof(struct at_http1_body *body, struct at_err *err)
{
    if (body->mode == MODE_EOF) {
        body->done = true;
    }
    if (!body->done) {
        return at_err_set(err, AT_UPSTREAM, "the connection ended before the body was complete");
    }
    return AT_OK;
}

enum at_rc at_percent_decode(struct at_str in, bool plus_is_space, char *out, size_t out_size)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++, n++) {
        if (n + 1 >= out_size) {
            return AT_TOO_LARGE;
        }
        char c = in.ptr[i];
        if (c == '%') {
            int hi = i + 1 < in.len ? hex_digit((unsigned char)in.ptr[i + 1]) : -1;
            int lo = i + 2 < in.len ? hex_digit((unsigned char)in.ptr[i + 2]) : -1;
            if (hi < 0 || lo < 0 || (hi | lo) == 0) {
                return AT_BAD_REQUEST; /* %00 would cut the NUL-terminated result short */
            }
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        } else if (c == '\0') {
            return AT_BAD_REQUEST;
        }
        out[n] = c;
    }
    if (n >= out_size) {
        return AT_TOO_LARGE;
    }
    out[n] = '\0';
    return AT_OK;
}

/* Does the encoded name spell key? */
static bool name_is(struct at_str name, const char *key)
{
    if (memchr(name.ptr, '%', name.len) == NULL && memchr(name.ptr, '+', name.len) == NULL) {
        return at_str_eq(name, key);
    }
    char decoded[256];
    return at_percent_decode(name, true, decoded, sizeof decoded) == AT_OK &&
           strcmp(decoded, key) == 0;
}

enum at_rc at_query_get(struct at_str query, const char *key, char *out, size_t out_size)
{
    while (query.len > 0) {
        struct at_str value = at_str_cut(&query, '&');
        if (value.len == 0) {
            continue;
        }
        struct at_str name = at_str_cut(&value, '=');
        if (name_is(name, key)) {
            return at_percent_decode(value, true, out, out_size);
        }
    }
    return AT_NOT_FOUND;
}
