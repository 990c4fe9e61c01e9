#include "gateway/headers.h"

#include "core/mem.h"
#include "gateway/limits.h"

/* Length first: most names have none of these lengths. */
static bool is_hop_by_hop(struct at_str name)
{
    switch (name.len) {
    case 2:
        return at_str_eq_nocase(name, "te");
    case 7:
        return at_str_eq_nocase(name, "upgrade") || at_str_eq_nocase(name, "trailer");
    case 9:
        return at_str_eq_nocase(name, "atoll-mux");
    case 10:
        return at_str_eq_nocase(name, "connection") || at_str_eq_nocase(name, "keep-alive");
    case 14:
        return at_str_eq_nocase(name, "content-length");
    case 16:
        return at_str_eq_nocase(name, "proxy-connection");
    case 17:
        return at_str_eq_nocase(name, "transfer-encoding");
    case 18:
        return at_str_eq_nocase(name, "proxy-authenticate");
    case 19:
        return at_str_eq_nocase(name, "proxy-authorization");
    default:
        return false;
    }
}

static bool stays_here(struct at_str name)
{
    return (name.len == 4 && at_str_eq_nocase(name, "host")) ||
           (name.len == 6 && at_str_eq_nocase(name, "expect")) ||
           (name.len == 13 && at_str_eq_nocase(name, "authorization"));
}

/* Whoever is believed to have written them, it was not us. */
static bool is_forwarded(struct at_str name)
{
    switch (name.len) {
    case 9:
        return at_str_eq_nocase(name, "forwarded") || at_str_eq_nocase(name, "x-real-ip");
    case 15:
        return at_str_eq_nocase(name, "x-forwarded-for");
    case 16:
        return at_str_eq_nocase(name, "x-forwarded-host") ||
               at_str_eq_nocase(name, "x-forwarded-port");
    case 17:
        return at_str_eq_nocase(name, "x-forwarded-proto");
    default:
        return false;
    }
}

static bool same_nocase(struct at_str a, struct at_str b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        unsigned char x = (unsigned char)a.ptr[i], y = (unsigned char)b.ptr[i];
        x |= (unsigned char)(x >= 'A' && x <= 'Z') << 5;
        y |= (unsigned char)(y >= 'A' && y <= 'Z') << 5;
        if (x != y) {
            return false;
        }
    }
    return true;
}

/* A Connection header that says more than keep-alive or close names more fields that end here. */
static bool is_named(const struct at_http_head *head, struct at_str name)
{
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str rest = head->headers[i].value;
        if (head->headers[i].name.len != 10 ||
            !at_str_eq_nocase(head->headers[i].name, "connection")) {
            continue;
        }
        while (rest.len > 0) {
            if (same_nocase(at_str_trim(at_str_cut(&rest, ',')), name)) {
                return true;
            }
        }
    }
    return false;
}

static bool connection_names_fields(const struct at_http_head *head)
{
    struct at_str value = at_http_header_get(head, "connection");
    return value.len > 0 && !at_str_eq_nocase(value, "keep-alive") &&
           !at_str_eq_nocase(value, "close");
}

static char *put(char *to, const char *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

static char *put_line(char *to, struct at_str name, struct at_str value)
{
    to = put(to, name.ptr, name.len);
    *to++ = ':';
    *to++ = ' ';
    to = put(to, value.ptr, value.len);
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

/* All lines that are not ours to keep, with room for extra more bytes behind them. */
static enum at_rc begin(const struct at_http_head *head, size_t extra, struct at_buf *out,
                        char **ret_at)
{
    size_t need = extra + 1;
    for (size_t i = 0; i < head->n_headers; i++) {
        need += head->headers[i].name.len + head->headers[i].value.len + 4;
    }
    at_buf_clear(out);
    return at_buf_reserve(out, need, ret_at);
}

static bool is_grpc(struct at_str name)
{
    return (name.len > 5 && at_str_eq_nocase((struct at_str){name.ptr, 5}, "grpc-")) ||
           at_str_eq_nocase(name, "content-type") || at_str_eq_nocase(name, "accept-encoding") ||
           at_str_eq_nocase(name, "accept");
}

/* X-Forwarded-For goes on what the client sent, the others say what we saw. */
static char *put_forwarded(char *p, const struct at_http_head *head, const struct gw_forwarded *f)
{
    p = put(p, "X-Forwarded-For: ", 17);
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str value = head->headers[i].value;
        if (value.len > 0 && at_str_eq_nocase(head->headers[i].name, "x-forwarded-for")) {
            p = put(p, value.ptr, value.len);
            p = put(p, ", ", 2);
        }
    }
    p = put(p, f->client.ptr, f->client.len);
    p = put(p, "\r\n", 2);
    p = put_line(p, AT_STR("X-Forwarded-Proto"), f->is_tls ? AT_STR("https") : AT_STR("http"));
    return put_line(p, AT_STR("X-Forwarded-Host"), f->host);
}

/* Has the line an end here? traceparent is written anew. */
static bool ends_here(const struct at_http_head *head, struct at_str name, const struct gw_ids *ids,
                      bool named)
{
    const struct gw_forwarded *f = ids->forwarded;
    bool theirs = f != NULL && f->keeps_authorization && name.len == 13;
    return is_hop_by_hop(name) || (stays_here(name) && !theirs) ||
           (f != NULL && is_forwarded(name)) || (named && is_named(head, name)) ||
           (ids->grpc && is_grpc(name)) ||
           (name.len == 11 && at_str_eq_nocase(name, "traceparent")) ||
           (name.len == 12 && at_str_eq_nocase(name, "atoll-client")) || /* ours to say */
           (ids->trace.parent == 0 && name.len == 10 && at_str_eq_nocase(name, "tracestate"));
}

enum at_rc gw_headers_up(const struct at_http_head *head, const struct gw_ids *ids, char out_id[17],
                         struct at_str *ret_request_id, struct at_buf *out)
{
    char *start;
    struct at_str lines = at_str_of(ids->lines);
    const struct gw_forwarded *forwarded = ids->forwarded;
    size_t told = forwarded != NULL ? 128 + forwarded->client.len + forwarded->host.len : 0;
    enum at_rc rc = begin(head, 256 + lines.len + told, out, &start);
    if (rc != AT_OK) {
        return rc;
    }
    char *p = lines.len > 0 ? put(start, lines.ptr, lines.len) : start;
    bool named = connection_names_fields(head);
    p = put(p, "traceparent: ", 13);
    gw_trace_put(&ids->trace, ids->span, p);
    p = put(p + GW_TRACE_TEXT_BYTES, "\r\n", 2);
    struct at_str id = {NULL, 0};
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str name = head->headers[i].name, value = head->headers[i].value;
        if (ends_here(head, name, ids, named)) {
            continue;
        }
        if (name.len == 12 && at_str_eq_nocase(name, "x-request-id")) {
            if (id.len > 0 || value.len == 0 || value.len > AT_GW_REQUEST_ID_BYTES_MAX) {
                continue;
            }
            id = value;
        }
        p = put_line(p, name, value);
    }
    if (id.len == 0) {
        gw_trace_put_hex(ids->request, out_id);
        out_id[16] = '\0';
        id = (struct at_str){out_id, 16};
        p = put_line(p, AT_STR("X-Request-Id"), id);
    }
    if (forwarded != NULL) {
        p = put_forwarded(p, head, forwarded);
    }
    at_buf_commit(out, (size_t)(p - start));
    *ret_request_id = id;
    return AT_OK;
}

enum at_rc gw_headers_down(const struct at_http_head *head, const char *instance, const char *site,
                           struct at_str request_id, struct at_buf *out)
{
    char *start;
    struct at_str instance_text = at_str_of(instance), site_text = at_str_of(site);
    enum at_rc rc =
        begin(head, 128 + instance_text.len + site_text.len + request_id.len, out, &start);
    if (rc != AT_OK) {
        return rc;
    }
    char *p = start;
    bool named = connection_names_fields(head);
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str name = head->headers[i].name;
        bool ours = (name.len == 4 && at_str_eq_nocase(name, "date")) ||
                    (name.len == 12 && at_str_eq_nocase(name, "x-request-id"));
        if (!ours && !is_hop_by_hop(name) && !(named && is_named(head, name))) {
            p = put_line(p, name, head->headers[i].value);
        }
    }
    p = put_line(p, AT_STR("x-atoll-instance"), instance_text);
    p = put_line(p, AT_STR("x-atoll-site"), site_text);
    p = put_line(p, AT_STR("X-Request-Id"), request_id);
    at_buf_commit(out, (size_t)(p - start));
    return AT_OK;
}
