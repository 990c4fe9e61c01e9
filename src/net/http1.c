/* HTTP/1.1 heads (RFC 9112 §2 to §6): one pass over the bytes, no allocation, no I/O. */
#include "net/http1.h"

#include <assert.h>
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "scan_field reads words low byte first");

/* RFC 9110 §5.6.2 tchar. */
static const bool TOKEN[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1,  ['~'] = 1, ['0'] = 1,
    ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1,  ['7'] = 1, ['8'] = 1,
    ['9'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1,  ['F'] = 1, ['G'] = 1,
    ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1,  ['N'] = 1, ['O'] = 1,
    ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1,  ['V'] = 1, ['W'] = 1,
    ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1,  ['d'] = 1, ['e'] = 1,
    ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1,  ['l'] = 1, ['m'] = 1,
    ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1,  ['t'] = 1, ['u'] = 1,
    ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

struct scan {
    const char *at, *end;
    bool cut;                /* the input goes on past AT_HTTP_HEAD_BYTES_MAX */
    struct at_str authority; /* of an absolute target; else empty */
    bool seen_host;          /* each of these may come once */
    bool seen_te;            /* Transfer-Encoding */
    bool conn_close;         /* Connection: close, keep-alive, upgrade */
    bool conn_keep;
    bool conn_upgrade;
    bool has_upgrade;
    struct at_err *err;
};

static enum at_rc incomplete(const struct scan *s)
{
    if (s->cut) {
        return at_err_set(s->err, AT_TOO_LARGE, "the header is larger than %d bytes",
                          AT_HTTP_HEAD_BYTES_MAX);
    }
    return AT_AGAIN;
}

static enum at_rc bad(const struct scan *s, const char *what)
{
    return at_err_set(s->err, AT_BAD_REQUEST, "malformed HTTP: %s", what);
}

const char *at_http_method_name(enum at_http_method method)
{
    static const char *const NAMES[] = {"GET",   "HEAD",   "POST",    "PUT",
                                        "PATCH", "DELETE", "OPTIONS", "OTHER"};
    assert((size_t)method < sizeof NAMES / sizeof NAMES[0]);
    return NAMES[method];
}

const char *at_http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } TEXTS[] = {
        {200, "OK"},
        {100, "Continue"},
        {101, "Switching Protocols"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++) {
        if (TEXTS[i].status == status) {
            return TEXTS[i].text;
        }
    }
    return "Unknown";
}

struct at_str at_http_header_get(const struct at_http_head *head, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < head->n_headers; i++) {
        if (head->headers[i].name.len == len && at_str_eq_nocase(head->headers[i].name, name)) {
            return head->headers[i].value;
        }
    }
    return (struct at_str){NULL, 0};
}

/* First byte at or after p that is a control character other than tab (0x00..0x1f, 0x7f); end if
 * none. Eight bytes at a time: the classic "has a byte less than n" word trick; its lowest flag is
 * exact. */
static const char *scan_field(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101ull;
    const uint64_t high = 0x8080808080808080ull;
    for (;;) {
        while (end - p >= 8) {
            uint64_t w, del;
            memcpy(&w, p, 8);
            del = w ^ (ones * 0x7f);
            uint64_t hit = ((w - ones * 0x20) & ~w & high) | ((del - ones) & ~del & high);
            if (hit != 0) {
                p += __builtin_ctzll(hit) / 8;
                break;
            }
            p += 8;
        }
        while (p < end && (unsigned char)*p >= 0x20 && *p != 0x7f) {
            p++;
        }
        if (p >= end || *p != '\t') {
            return p;
        }
        p++;
    }
}

static enum at_http_method method_of(struct at_str t)
{
    for (int m = AT_HTTP_GET; m < AT_HTTP_METHOD_OTHER; m++) {
        if (at_str_eq(t, at_http_method_name((enum at_http_method)m))) {
            return (enum at_http_method)m;
        }
    }
    return AT_HTTP_METHOD_OTHER;
}

/* Exactly CR LF at s->at. */
static enum at_rc take_crlf(struct scan *s)
{
    if (s->at == s->end) {
        return incomplete(s);
    }
    if (*s->at != '\r') {
        return bad(s, "a line does not end with CR LF");
    }
    if (s->end - s->at < 2) {
        return incomplete(s);
    }
    if (s->at[1] != '\n') {
        return bad(s, "a CR without LF");
    }
    s->at += 2;
    return AT_OK;
}

static enum at_rc take_version(struct scan *s, int *ret_minor)
{
    static const char PREFIX[] = "HTTP/1.";
    size_t n = (size_t)(s->end - s->at);
    size_t common = n < 7 ? n : 7;
    if (memcmp(s->at, PREFIX, common) != 0) {
        return bad(s, "the version is not HTTP/1.1 or HTTP/1.0");
    }
    if (n < 8) {
        return incomplete(s);
    }
    if (s->at[7] != '0' && s->at[7] != '1') {
        return bad(s, "the version is not HTTP/1.1 or HTTP/1.0");
    }
    *ret_minor = s->at[7] - '0';
    s->at += 8;
    return AT_OK;
}

/* Origin form, "*" for OPTIONS, and absolute form, of which only path and query are kept (RFC 9112
 * §3.2.2 wants servers to take it). */
static enum at_rc split_target(struct scan *s, struct at_http_head *h)
{
    struct at_str t = h->target;
    if (t.len == 0) {
        return bad(s, "the request target is empty");
    }
    if (t.ptr[0] != '/') {
        if (t.len == 1 && t.ptr[0] == '*' && h->method == AT_HTTP_OPTIONS) {
            h->path = t;
            h->query = (struct at_str){t.ptr + 1, 0};
            return AT_OK;
        }
        size_t scheme = at_str_starts(t, "http://") ? 7 : at_str_starts(t, "https://") ? 8 : 0;
        if (scheme == 0 || t.len == scheme || t.ptr[scheme] == '/') {
            return bad(s, "the request target is no path");
        }
        const char *slash = memchr(t.ptr + scheme, '/', t.len - scheme);
        h->target =
            slash == NULL ? AT_STR("/") : (struct at_str){slash, t.len - (size_t)(slash - t.ptr)};
        if (slash == NULL && memchr(t.ptr, '?', t.len) != NULL) {
            return bad(s, "the request target is no path");
        }
        s->authority = (struct at_str){
            t.ptr + scheme, slash == NULL ? t.len - scheme : (size_t)(slash - t.ptr) - scheme};
        t = h->target;
    }
    const char *q = memchr(t.ptr, '?', t.len);
    h->path = (struct at_str){t.ptr, q == NULL ? t.len : (size_t)(q - t.ptr)};
    h->query = q == NULL ? (struct at_str){t.ptr + t.len, 0}
                         : (struct at_str){q + 1, t.len - h->path.len - 1};
    return AT_OK;
}

static enum at_rc take_request_line(struct scan *s, struct at_http_head *h)
{
    if (s->end - s->at >= 2 && s->at[0] == '\r' && s->at[1] == '\n') {
        s->at += 2; /* RFC 9112 §2.2: one empty line before a request is let pass */
    } else if (s->end - s->at == 1 && s->at[0] == '\r') {
        return incomplete(s);
    }
    const char *start = s->at;
    const char *p = start;
    while (p < s->end && TOKEN[(unsigned char)*p]) {
        p++;
    }
    if (p == s->end) {
        return p - start > 32 ? bad(s, "the method is too long") : incomplete(s);
    }
    if (*p != ' ' || p == start) {
        return bad(s, "the request line does not begin with a method and one space");
    }
    h->method_text = (struct at_str){start, (size_t)(p - start)};
    h->method = method_of(h->method_text);
    start = ++p;
    while (p < s->end && (unsigned char)*p > 0x20 && (unsigned char)*p < 0x7f && *p != '#') {
        p++;
    }
    if (p == s->end) {
        return incomplete(s);
    }
    if (*p != ' ') {
        return bad(s, "a byte in the request target must be percent-encoded");
    }
    h->target = (struct at_str){start, (size_t)(p - start)};
    s->at = p + 1;
    enum at_rc rc = take_version(s, &h->minor);
    if (rc == AT_OK) {
        rc = take_crlf(s);
    }
    return rc == AT_OK ? split_target(s, h) : rc;
}

static enum at_rc take_status_line(struct scan *s, struct at_http_head *h)
{
    enum at_rc rc = take_version(s, &h->minor);
    if (rc != AT_OK) {
        return rc;
    }
    if (s->end - s->at < 5) {
        return memchr(s->at, '\n', (size_t)(s->end - s->at)) != NULL ? bad(s, "no status code")
                                                                     : incomplete(s);
    }
    const char *p = s->at;
    if (p[0] != ' ' || p[1] < '1' || p[1] > '9' || p[2] < '0' || p[2] > '9' || p[3] < '0' ||
        p[3] > '9' || (p[4] != ' ' && p[4] != '\r')) {
        return bad(s, "the status code is not three digits");
    }
    h->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
    s->at = scan_field(p + 4, s->end); /* the reason phrase says nothing to programs */
    return take_crlf(s);
}

static bool is_host(struct at_str v)
{
    for (size_t i = 0; i < v.len; i++) {
        unsigned char c = (unsigned char)v.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == ',' || c == '/' || c == '@' || c == '?' || c == '#') {
            return false;
        }
    }
    return true;
}

static void note_connection(struct scan *s, struct at_str v)
{
    while (v.len > 0) {
        struct at_str token = at_str_trim(at_str_cut(&v, ','));
        s->conn_close |= at_str_eq_nocase(token, "close");
        s->conn_keep |= at_str_eq_nocase(token, "keep-alive");
        s->conn_upgrade |= at_str_eq_nocase(token, "upgrade");
    }
}

/* The few fields that frame the message. Lengths first: most headers fall through at once. */
static enum at_rc note_header(struct scan *s, struct at_http_head *h, struct at_str name,
                              struct at_str value)
{
    switch (name.len) {
    case 4:
        if (h->is_request && at_str_eq_nocase(name, "host")) {
            if (s->seen_host) {
                return bad(s, "two Host headers");
            }
            s->seen_host = true;
            if (s->authority.len > 0 &&
                (value.len != s->authority.len ||
                 strncasecmp(value.ptr, s->authority.ptr, value.len) != 0)) {
                return bad(s, "the Host header names another host than the target");
            }
            return is_host(value) ? AT_OK : bad(s, "the Host header is no host name");
        }
        break;
    case 6:
        if (h->is_request && at_str_eq_nocase(name, "expect")) {
            h->expect_continue = at_str_eq_nocase(value, "100-continue");
        }
        break;
    case 7:
        s->has_upgrade |= at_str_eq_nocase(name, "upgrade");
        break;
    case 10:
        if (at_str_eq_nocase(name, "connection")) {
            note_connection(s, value);
        }
        break;
    case 14:
        if (at_str_eq_nocase(name, "content-length")) {
            if (h->has_length) {
                return bad(s, "two Content-Length headers");
            }
            h->has_length = true;
            if (at_str_to_u64(value, &h->content_length) != AT_OK ||
                h->content_length > INT64_MAX) {
                return bad(s, "Content-Length is not a number");
            }
        }
        break;
    case 17:
        if (at_str_eq_nocase(name, "transfer-encoding")) {
            if (s->seen_te || !at_str_eq_nocase(value, "chunked")) {
                return bad(s, "the only Transfer-Encoding understood is one `chunked`");
            }
            s->seen_te = true;
            h->chunked = true;
        }
        break;
    default:
        break;
    }
    return AT_OK;
}

static enum at_rc take_header(struct scan *s, struct at_http_head *h)
{
    const char *start = s->at;
    const char *p = start;
    while (p < s->end && TOKEN[(unsigned char)*p]) {
        p++;
    }
    if (p == s->end) {
        return incomplete(s);
    }
    if (*p != ':' || p == start) {
        return bad(s, *start == ' ' || *start == '\t' ? "a folded header line"
                                                      : "a header line without `name:`");
    }
    struct at_str name = {start, (size_t)(p - start)};
    p++;
    while (p < s->end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    start = p;
    s->at = scan_field(p, s->end);
    const char *stop = s->at;
    enum at_rc rc = take_crlf(s);
    if (rc != AT_OK) {
        return rc;
    }
    while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t')) {
        stop--;
    }
    if (h->n_headers == AT_HTTP_HEADERS_MAX) {
        return at_err_set(s->err, AT_TOO_LARGE, "more than %d headers", AT_HTTP_HEADERS_MAX);
    }
    struct at_str value = {start, (size_t)(stop - start)};
    h->headers[h->n_headers++] = (struct at_http_header){name, value};
    return note_header(s, h, name, value);
}

/* What the header lines say together: RFC 9112 §3.2, §6.3, §9.3. */
static enum at_rc conclude(const struct scan *s, struct at_http_head *h)
{
    if (h->chunked && h->has_length) {
        return bad(s, "both Content-Length and Transfer-Encoding");
    }
    if (h->chunked && h->minor == 0) {
        return bad(s, "Transfer-Encoding in HTTP/1.0");
    }
    if (h->is_request && h->minor == 1 && !s->seen_host) {
        return bad(s, "no Host header");
    }
    h->keep_alive = !s->conn_close && (h->minor == 1 || s->conn_keep);
    h->upgrade = s->conn_upgrade && s->has_upgrade;
    h->expect_continue = h->expect_continue && h->minor == 1;
    return AT_OK;
}

/* Everything but the headers array, which n_headers bounds: clearing 3 kB would cost as much as the
 * parse. */
static void head_begin(struct at_http_head *h, bool is_request)
{
    memset(h, 0, offsetof(struct at_http_head, headers));
    h->is_request = is_request;
    h->n_headers = 0;
    h->head_bytes = 0;
}

static enum at_rc parse(const char *data, size_t len, struct at_http_head *h, bool is_request,
                        struct at_err *err)
{
    head_begin(h, is_request);
    struct scan s = {.at = data, .err = err, .cut = len > AT_HTTP_HEAD_BYTES_MAX};
    s.end = data + (s.cut ? AT_HTTP_HEAD_BYTES_MAX : len);
    if (len == 0) {
        return AT_AGAIN;
    }
    enum at_rc rc = is_request ? take_request_line(&s, h) : take_status_line(&s, h);
    while (rc == AT_OK) {
        if (s.at == s.end) {
            return incomplete(&s);
        }
        if (*s.at == '\r') {
            rc = take_crlf(&s);
            break;
        }
        rc = take_header(&s, h);
    }
    if (rc != AT_OK) {
        return rc;
    }
    h->head_bytes = (size_t)(s.at - data);
    return conclude(&s, h);
}

enum at_rc at_http1_parse_request(const char *data, size_t len, struct at_http_head *ret,
                                  struct at_err *err)
{
    return parse(data, len, ret, true, err);
}

enum at_rc at_http1_parse_response(const char *data, size_t len, struct at_http_head *ret,
                                   struct at_err *err)
{
    return parse(data, len, ret, false, err);
}
