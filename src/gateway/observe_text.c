/* Options of what is told of requests, and the text of the access log. */
#include "core/mem.h"
#include "core/units.h"
#include "gateway/observe.h"
#include "gateway/proxy_priv.h"
#include "net/url.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

/* --- lines --- */

/* A JSON string, without allocation. err: AT_TOO_LARGE. */
static enum at_rc put_string(struct at_buf *out, struct at_str text)
{
    char *start;
    enum at_rc rc = at_buf_reserve(out, 6 * text.len + 3, &start);
    if (rc != AT_OK) {
        return rc;
    }
    char *p = start;
    *p++ = '"';
    for (size_t i = 0; i < text.len;) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == '"' || c == '\\') {
            *p++ = '\\';
            *p++ = (char)c;
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            memcpy(p, "\\u00", 4);
            p[4] = "0123456789abcdef"[c >> 4];
            p[5] = "0123456789abcdef"[c & 15];
            p += 6;
            i++;
        } else if (c < 0x80) {
            *p++ = (char)c;
            i++;
        } else {
            size_t left = text.len - i < 4 ? text.len - i : 4;
            size_t good = 0;
            for (size_t n = 2; n <= left && good == 0; n++) { /* the shortest that is whole */
                good = at_str_utf8_prefix((struct at_str){text.ptr + i, n}) == n ? n : 0;
            }
            if (good == 0) {
                memcpy(p, "\\ufffd", 6);
                p += 6;
                i++;
            } else {
                memcpy(p, text.ptr + i, good);
                p += good;
                i += good;
            }
        }
    }
    *p++ = '"';
    at_buf_commit(out, (size_t)(p - start));
    return AT_OK;
}

static void put_member(struct at_buf *out, const char *name, struct at_str value)
{
    if (value.len > 0 && at_buf_append_str(out, name) == AT_OK) {
        (void)!put_string(out, value);
    }
}

/* What is known at the beginning; all of it, for the rest of the line is only ours. */
void gw_access_begin(const struct at_http_exchange *ex, struct at_buf *out)
{
    const struct at_http_head *head = at_http_request(ex);
    struct at_str agent = at_http_header_get(head, "user-agent");
    struct at_str path = head->path;
    agent.len = agent.len < AT_GW_ACCESS_TEXT_BYTES_MAX ? agent.len : AT_GW_ACCESS_TEXT_BYTES_MAX;
    path.len = path.len < AT_GW_ACCESS_TEXT_BYTES_MAX ? path.len : AT_GW_ACCESS_TEXT_BYTES_MAX;
    (void)!at_buf_append_str(out, at_http_is_h2(ex)  ? "\"protocol\":\"HTTP/2\""
                                  : head->minor == 0 ? "\"protocol\":\"HTTP/1.0\""
                                                     : "\"protocol\":\"HTTP/1.1\"");
    put_member(out, ",\"client\":", at_str_of(at_http_peer_addr(ex)));
    put_member(out, ",\"method\":", head->method_text);
    put_member(out, ",\"host\":", at_http_header_get(head, "host"));
    put_member(out, ",\"path\":", path); /* without the query: there may be secrets in it */
    put_member(out, ",\"userAgent\":", agent);
}

static void put_time(struct gw_worker *w, struct at_buf *out)
{
    char time[40];
    at_time_format_micro(at_sys_wall_ns(at_loop_sys(w->loop)), time);
    (void)!at_buf_append_str(out, "{\"time\":\"");
    (void)!at_buf_append_str(out, time);
    (void)!at_buf_append_str(out, "\",");
}

void gw_access_end(struct gw_request *r, int status, const struct gw_replica *replica,
                   int64_t took_ns)
{
    struct gw_worker *w = r->worker;
    const struct gw_observation *o = &r->obs;
    struct at_buf *out = &w->scratch;
    char trace[33];
    at_buf_clear(out);
    put_time(w, out);
    (void)!at_buf_append(out, r->line.data, r->line.len);
    (void)!at_buf_printf(out, ",\"status\":%d,\"durationMs\":%lld.%03lld", status,
                         (long long)(took_ns / 1000000), (long long)(took_ns / 1000 % 1000));
    (void)!at_buf_printf(out, ",\"bytesIn\":%llu,\"bytesOut\":%llu,\"attempts\":%u",
                         (unsigned long long)o->bytes_in, (unsigned long long)o->bytes_out,
                         o->attempts);
    if (o->first_ns > 0) {
        int64_t first_us = (o->first_ns - r->start_ns) / 1000;
        (void)!at_buf_printf(out, ",\"firstTokenMs\":%lld.%03lld", (long long)(first_us / 1000),
                             (long long)(first_us % 1000));
    }
    if ((o->usage.prompt | o->usage.completion) != 0) {
        (void)!at_buf_printf(out, ",\"promptTokens\":%llu,\"completionTokens\":%llu",
                             (unsigned long long)o->usage.prompt,
                             (unsigned long long)o->usage.completion);
    }
    put_member(out, ",\"model\":", at_str_of(r->model->name));
    if (replica != NULL) {
        put_member(out, ",\"version\":", at_str_of(replica->version));
        put_member(out, ",\"instance\":", at_str_of(replica->instance));
        put_member(out, ",\"site\":", at_str_of(replica->site));
    }
    put_member(out, ",\"key\":", at_str_of(o->key));
    put_member(out, ",\"requestId\":", r->request_id);
    gw_trace_put_hex(o->trace.id[0], trace);
    gw_trace_put_hex(o->trace.id[1], trace + 16);
    put_member(out, ",\"traceId\":", (struct at_str){trace, 32});
    if (at_buf_append_str(out, "}\n") == AT_OK) {
        gw_access_put(w->access, out->data, out->len);
    }
}

void gw_observe_own(struct gw_worker *w, struct at_http_exchange *ex, int status)
{
    struct at_buf *out = &w->scratch;
    if (!gw_access_wants(w->access, (uint32_t)(gw_random(w) >> 32), status)) {
        return;
    }
    at_buf_clear(out);
    put_time(w, out);
    gw_access_begin(ex, out);
    put_member(out, ",\"key\":", at_str_of(w->key));
    if (at_buf_printf(out, ",\"status\":%d}\n", status) == AT_OK) {
        gw_access_put(w->access, out->data, out->len);
    }
}

/* --- options --- */

/* Lines "Name: value" of a file, as a request has them. */
static enum at_rc read_headers(const char *file, char **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    enum at_rc rc = at_file_read(file, AT_GW_FILE_BYTES_MAX, &text, err);
    for (struct at_str rest = {text.data, text.len}; rc == AT_OK && rest.len > 0;) {
        struct at_str line = at_str_cut(&rest, '\n');
        while (line.len > 0 && (line.ptr[line.len - 1] == '\r' || line.ptr[line.len - 1] == ' ')) {
            line.len--;
        }
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        const char *colon = memchr(line.ptr, ':', line.len);
        if (colon == NULL || colon == line.ptr || memchr(line.ptr, '\r', line.len) != NULL ||
            memchr(line.ptr, '\0', line.len) != NULL) {
            return at_err_set_field(err, AT_INVALID, "otlp-headers-file",
                                    "%s: a line that is no header (Name: value)", file);
        }
        rc = at_buf_printf(&lines, "%.*s\r\n", (int)line.len, line.ptr);
    }
    if (rc == AT_OK) {
        *ret = at_strndup(lines.data != NULL ? lines.data : "", lines.len);
    }
    return rc;
}

static enum at_rc open_otlp(struct at_gateway *g, const struct at_gateway_options *o,
                            struct at_err *err)
{
    struct at_url url;
    enum at_rc rc = at_url_parse(o->otlp_endpoint, &url, err);
    bool https = rc == AT_OK && strcmp(url.scheme, "https") == 0;
    if (rc == AT_OK && !https && strcmp(url.scheme, "http") != 0) {
        rc = at_err_set(err, AT_INVALID, "%s: must be an http or https URL", o->otlp_endpoint);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf ca = {0};
    if (rc == AT_OK && o->otlp_ca_file != NULL) {
        rc = at_file_read(o->otlp_ca_file, AT_GW_PEM_BYTES_MAX, &ca, err);
    }
    if (rc == AT_OK && https) {
        struct at_tls_options tls = {.verify_peer = true, .ca_pem = ca.data};
        rc = at_tls_config_new(&tls, &g->otlp.tls, err);
    }
    if (rc == AT_OK && o->otlp_headers_file != NULL) {
        rc = read_headers(o->otlp_headers_file, &g->otlp.headers, err);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--otlp-endpoint");
    }
    /* As OTEL_EXPORTER_OTLP_ENDPOINT: the signal's path comes behind. */
    size_t len = strlen(url.target);
    while (len > 0 && url.target[len - 1] == '/') {
        len--;
    }
    bool whole = len >= 10 && strncmp(url.target + len - 10, "/v1/traces", 10) == 0;
    snprintf(g->otlp.addr, sizeof g->otlp.addr, "%s", url.addr);
    snprintf(g->otlp.target, sizeof g->otlp.target, "%.*s%s", (int)len, url.target,
             whole ? "" : "/v1/traces");
    return AT_OK;
}

enum at_rc gw_observe_open(struct at_gateway *g, const struct at_gateway_options *o,
                           struct at_err *err)
{
    uint64_t shares[6];
    enum at_rc rc = gw_access_rates(o->trace_ratio != NULL ? o->trace_ratio : "1", shares, err);
    if (rc != AT_OK || (o->trace_ratio != NULL && strchr(o->trace_ratio, '=') != NULL)) {
        return at_err_set_field(err, AT_INVALID, "trace-ratio", "%s: must be 0 to 1",
                                o->trace_ratio);
    }
    g->trace_share = shares[0];
    rc = gw_access_rates(o->access_log_rates != NULL ? o->access_log_rates : "1", g->access_rates,
                         err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--access-log-rates");
    }
    if (o->access_log != NULL) { /* so that what cannot be written is known at once */
        rc = strcmp(o->access_log, "-") == 0 ? AT_OK
                                             : at_file_append(o->access_log, "", 0, 0640, err);
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "--access-log");
        }
        g->access_file = at_strdup(o->access_log);
        g->access_pool = at_pool_new(1, AT_GW_THREADS_MAX);
    }
    return o->otlp_endpoint != NULL ? open_otlp(g, o, err) : AT_OK;
}

void gw_observe_close(struct at_gateway *g)
{
    if (g->access_pool != NULL) {
        at_pool_finish(g->access_pool);
        g->access_pool = NULL;
    }
    at_tls_config_unref(g->otlp.tls);
    g->otlp.tls = NULL;
    at_free(g->otlp.headers);
    at_free(g->access_file);
    g->otlp.headers = g->access_file = NULL;
}
