#include "audit/ship.h"

#include "audit/audit_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "net/http_client.h"
#include "net/stream.h"
#include "net/url.h"
#include "sys/file.h"
#include "sys/socket.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define PRIORITY 110            /* facility 13 (log audit), severity 6 (informational) */
#define SEQUENCE_MAX 2147483647 /* RFC 5424 §7.3.1 */
#define OPTION_BYTES_MAX 4096
#define POLL_MS 200
#define ACK_MS 20

/* Records that were sent one after another. */
struct mark {
    uint64_t seq; /* the first one */
    int64_t bytes, mono_ns;
};

struct at_audit_ship {
    struct at_audit *a;
    bool http;
    bool unread; /* taken by the receiver's kernel is not yet read by the receiver: TCP */
    char *addr, *host, *target, *headers, *cursor_path;
    struct at_tls_config *tls;
    struct at_http_client *client;
    at_http_call_id call;
    int status;
    struct at_stream *stream;
    bool open;
    uint64_t cursor;             /* the next record to be taken by the sink */
    uint64_t sent;               /* the last one under way; 0: none */
    uint64_t upto;               /* the newest that no power cut can take back */
    uint64_t file_first, offset; /* where the cursor lies, as far as known */
    uint64_t saved;
    int64_t saved_ns, retry_ms;
    at_timer_id timer;
    struct at_buf batch;
    struct mark marks[AT_AUDIT_RESEND_MARKS]; /* the oldest first */
    size_t n_marks;
    uint64_t marked; /* the first record that has no mark yet */
    int64_t marked_bytes;
    struct at_metric *behind, *failures;
};

static void step(void *ctx);

static void step_in(struct at_audit_ship *s, int64_t ms)
{
    at_loop_timer_cancel(s->a->loop, s->timer);
    s->timer = at_loop_timer(s->a->loop, ms * AT_NS_PER_MS, step, s);
}

/* --- the cursor --- */

/* The first record that the receiver may lack: also after a kill, which breaks the connection. */
static uint64_t needs_from(const struct at_audit_ship *s)
{
    return s->n_marks > 0 && s->marks[0].seq < s->cursor ? s->marks[0].seq : s->cursor;
}

static void cursor_save(struct at_audit_ship *s, bool now)
{
    int64_t mono = at_sys_mono_ns(at_loop_sys(s->a->loop));
    uint64_t from = needs_from(s);
    if (s->saved == from ||
        (!now && mono - s->saved_ns < AT_AUDIT_CURSOR_PERIOD_MS * AT_NS_PER_MS)) {
        return;
    }
    char text[64];
    int len = snprintf(text, sizeof text, "%llu\n", (unsigned long long)from);
    if (at_file_write_atomic(s->cursor_path, text, (size_t)len, 0600, NULL) == AT_OK) {
        s->saved = from; /* else records come twice, which is better than never */
        s->saved_ns = mono;
    }
}

static void cursor_read(struct at_audit_ship *s)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    uint64_t seq = 0;
    s->cursor = 1;
    if (at_file_read(s->cursor_path, 64, &text, NULL) == AT_OK &&
        at_str_to_u64((struct at_str){text.data, text.len > 0 ? text.len - 1 : 0}, &seq) == AT_OK &&
        seq > 0) {
        s->cursor = seq;
        s->saved = seq;
    }
}

/* --- what a receiver may still lose --- */

/* Of TCP is known what the other kernel has, not what the program there has read. What it has not
 * is lost when it ends, so the last records of a connection that breaks are sent again. One that
 * ends in order was read to its end: a kernel resets what is closed with bytes unread (RFC 2525
 * §2.17). */
static void marks_prune(struct at_audit_ship *s)
{
    int64_t mono = at_sys_mono_ns(at_loop_sys(s->a->loop));
    int64_t most = s->a->w.bytes_max / 4;
    size_t drop = 0;
    most = most < AT_AUDIT_RESEND_BYTES ? most : AT_AUDIT_RESEND_BYTES;
    while (drop < s->n_marks &&
           (s->n_marks - drop >= AT_AUDIT_RESEND_MARKS || s->marked_bytes > most ||
            mono - s->marks[drop].mono_ns > AT_AUDIT_RESEND_MS * AT_NS_PER_MS)) {
        s->marked_bytes -= s->marks[drop++].bytes;
    }
    s->n_marks -= drop;
    memmove(s->marks, s->marks + drop, s->n_marks * sizeof s->marks[0]);
}

static void mark_sent(struct at_audit_ship *s)
{
    int64_t mono = at_sys_mono_ns(at_loop_sys(s->a->loop));
    marks_prune(s);
    if (s->sent < s->marked) {
        return; /* again: it keeps its time, so that this comes to an end */
    }
    s->marked = s->sent + 1;
    struct mark *last = s->n_marks > 0 ? &s->marks[s->n_marks - 1] : NULL;
    if (last == NULL || last->bytes >= (int64_t)AT_AUDIT_BATCH_BYTES ||
        mono - last->mono_ns > AT_AUDIT_RESEND_MARK_MS * AT_NS_PER_MS) {
        last = &s->marks[s->n_marks++];
        *last = (struct mark){.seq = s->cursor, .mono_ns = mono};
    }
    last->bytes += (int64_t)s->batch.len;
    s->marked_bytes += (int64_t)s->batch.len;
}

static void rewind_to_marks(struct at_audit_ship *s)
{
    marks_prune(s);
    if (s->n_marks > 0 && s->marks[0].seq < s->cursor) {
        s->cursor = s->marks[0].seq;
    }
}

/* What no sink needs any more may be deleted. */
static void keep_tell(struct at_audit *a)
{
    uint64_t keep = UINT64_MAX;
    for (size_t i = 0; i < a->n_ships; i++) {
        const struct at_audit_ship *s = a->ships[i];
        uint64_t needs = s == NULL ? UINT64_MAX : needs_from(s);
        keep = needs < keep ? needs : keep;
    }
    pthread_mutex_lock(&a->lock);
    a->keep_seq = keep;
    pthread_mutex_unlock(&a->lock);
}

static uint64_t newest(struct at_audit *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t seq = a->done_seq;
    pthread_mutex_unlock(&a->lock);
    return seq;
}

/* --- a batch --- */

static enum at_rc record_append(struct at_audit_ship *s, const struct at_audit_line *line,
                                const char *text, size_t len)
{
    if (s->http) {
        enum at_rc rc = at_buf_append_str(&s->batch, s->batch.len == 0 ? "[" : ",");
        return rc == AT_OK ? at_buf_append(&s->batch, text, len) : rc;
    }
    static const char TIME[] = "\"time\":\"";
    const char *time = memmem(text, len, TIME, sizeof TIME - 1);
    time = time != NULL ? time + sizeof TIME - 1 : "-";
    size_t time_len = strcspn(time, "\"");
    AT_CLEANUP(at_cleanup_buf) struct at_buf message = {0};
    enum at_rc rc =
        at_buf_printf(&message, "<%d>1 %.*s %.255s atoll - audit [meta sequenceId=\"%u\"] ",
                      PRIORITY, (int)(time_len < 40 ? time_len : 1), time, at_sys_hostname(),
                      (unsigned)((line->seq - 1) % SEQUENCE_MAX + 1));
    rc = rc == AT_OK ? at_buf_append(&message, text, len) : rc;
    rc = rc == AT_OK ? at_buf_printf(&s->batch, "%zu ", message.len) : rc;
    return rc == AT_OK ? at_buf_append(&s->batch, message.data, message.len) : rc;
}

/* Whole lines of one piece of a file into the batch. Returns bytes passed over. */
static size_t lines_take(struct at_audit_ship *s, const char *text, size_t len, size_t *n)
{
    size_t done = 0;
    const char *stop;
    while (*n < AT_AUDIT_BATCH_RECORDS && (stop = memchr(text + done, '\n', len - done)) != NULL) {
        struct at_audit_line line;
        size_t one = (size_t)(stop - text) - done;
        if (at_audit_line_parse(text + done, one, &line, NULL) == AT_OK && line.seq >= s->cursor) {
            if (line.seq > s->upto) {
                return done;
            }
            if (record_append(s, &line, text + done, one) != AT_OK) {
                return done;
            }
            s->sent = line.seq;
            ++*n;
        }
        done += one + 1;
    }
    return done;
}

/* The file that holds the cursor: its number and path; own: at_free. NULL: none. */
static char *file_of(struct at_audit_ship *s, uint64_t after, uint64_t *ret_first)
{
    struct at_audit_files files = {0};
    char *path = NULL;
    if (at_audit_files_list(s->a->w.dir, &files, NULL) != AT_OK) {
        return NULL;
    }
    for (size_t i = 0; i < files.n; i++) {
        uint64_t first = files.items[i].first_seq;
        bool fits = after != 0 ? first > after && path == NULL
                               : first != 0 && (first <= s->cursor || path == NULL);
        if (fits) {
            at_free(path);
            path = at_strdup(files.items[i].path);
            *ret_first = first;
        }
    }
    at_audit_files_done(&files);
    return path;
}

static bool batch_make(struct at_audit_ship *s)
{
    size_t n = 0;
    at_buf_clear(&s->batch);
    s->sent = 0;
    uint64_t after = 0;
    for (int i = 0; i < 4 && n == 0; i++) { /* the rest of a file, then the next one */
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        uint64_t first = 0;
        size_t got = 0;
        AT_CLEANUP(at_cleanup_free) char *path = file_of(s, after, &first);
        if (path == NULL) {
            return false;
        }
        if (first != s->file_first) {
            s->file_first = first;
            s->offset = 0;
        }
        if (at_file_read_at(path, (int64_t)s->offset, AT_AUDIT_BATCH_BYTES, &text, &got, NULL) !=
            AT_OK) {
            return false;
        }
        size_t passed = lines_take(s, text.data != NULL ? text.data : "", text.len, &n);
        s->offset += passed;
        after = got == 0 || passed == 0 ? first : 0;
    }
    if (n > 0 && s->http && at_buf_append(&s->batch, "]", 1) != AT_OK) {
        return false;
    }
    return n > 0;
}

static void taken(struct at_audit_ship *s)
{
    if (s->unread) {
        mark_sent(s);
    }
    s->cursor = s->sent + 1;
    s->sent = 0;
    s->retry_ms = 0;
    cursor_save(s, false);
    keep_tell(s->a);
    step_in(s, 0);
}

static void failed(struct at_audit_ship *s)
{
    s->sent = 0;
    s->offset = 0; /* it is looked for again */
    s->file_first = 0;
    if (s->failures != NULL) {
        at_metric_add(s->failures, 1);
    }
    s->retry_ms = s->retry_ms == 0 ? AT_AUDIT_RETRY_MS_MIN : 2 * s->retry_ms;
    s->retry_ms = s->retry_ms > AT_AUDIT_RETRY_MS_MAX ? AT_AUDIT_RETRY_MS_MAX : s->retry_ms;
    step_in(s, s->retry_ms);
}

/* --- HTTP --- */

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct at_audit_ship *)ctx)->status = head->status;
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    (void)err;
    struct at_audit_ship *s = ctx;
    s->call = 0;
    if (rc == AT_CANCELLED) {
        return;
    }
    if (rc == AT_OK && s->status >= 200 && s->status < 300) {
        taken(s);
    } else {
        failed(s);
    }
}

static void post(struct at_audit_ship *s)
{
    s->status = 0;
    s->call = at_http_call(
        s->client, &(struct at_http_call){.addr = s->addr,
                                          .tls = s->tls,
                                          .server_name = s->host,
                                          .method = AT_HTTP_POST,
                                          .target = s->target,
                                          .headers = s->headers,
                                          .body = s->batch.data,
                                          .body_len = s->batch.len,
                                          .timeout_ns = AT_AUDIT_SINK_TIMEOUT_MS * AT_NS_PER_MS,
                                          .ctx = s,
                                          .on_head = on_head,
                                          .on_done = on_done});
}

/* --- syslog --- */

static void on_open(void *ctx)
{
    struct at_audit_ship *s = ctx;
    s->open = true;
    step_in(s, 0);
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    (void)ctx;
    (void)data;
    return len;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)err;
    struct at_audit_ship *s = ctx;
    s->stream = NULL;
    s->open = false;
    if (rc == AT_EOF) {
        s->n_marks = 0;
        s->marked_bytes = 0;
    } else {
        rewind_to_marks(s);
    }
    failed(s);
}

static void connect_now(struct at_audit_ship *s)
{
    const struct at_stream_events events = {
        .ctx = s, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    s->stream = at_stream_connect(s->a->loop, s->addr, s->tls, s->host,
                                  AT_AUDIT_SINK_TIMEOUT_MS * AT_NS_PER_MS, &events);
}

static void step(void *ctx)
{
    struct at_audit_ship *s = ctx;
    uint64_t last = newest(s->a);
    s->timer = 0;
    s->upto = last;
    at_audit_ship_behind(s, last);
    cursor_save(s, false);
    if (s->sent != 0) { /* only syslog: bytes under way */
        if (at_stream_queued_bytes(s->stream) == 0 &&
            at_sock_unsent(at_stream_fd(s->stream)) == 0) {
            taken(s);
        } else {
            step_in(s, ACK_MS);
        }
        return;
    }
    if (last < s->cursor || (!s->http && !s->open)) {
        if (!s->http && s->stream == NULL) {
            connect_now(s);
        }
        step_in(s, POLL_MS);
        return;
    }
    if (!batch_make(s)) {
        step_in(s, POLL_MS);
    } else if (s->http) {
        post(s);
    } else if (at_stream_write(s->stream, s->batch.data, s->batch.len) == AT_OK) {
        step_in(s, ACK_MS);
    } else {
        s->sent = 0;
        step_in(s, POLL_MS);
    }
}

/* --- set up --- */

struct shape {
    const char *scheme;
    bool http, tls, unix_socket;
};
static const struct shape SHAPES[] = {
    {"https://", true, true, false},        {"http://", true, false, false},
    {"syslog+tls://", false, true, false},  {"syslog+tcp://", false, false, false},
    {"syslog+unix://", false, false, true},
};

struct settings {
    struct at_buf ca, cert, key, token;
};

static enum at_rc option_read(struct at_str option, struct settings *o, struct at_err *err)
{
    struct at_str file = option;
    struct at_str name = at_str_cut(&file, '=');
    const struct {
        const char *name;
        struct at_buf *to;
    } known[] = {{"ca", &o->ca}, {"cert", &o->cert}, {"key", &o->key}, {"token-file", &o->token}};
    for (size_t i = 0; i < AT_ARRAY_LEN(known); i++) {
        if (at_str_eq(name, known[i].name)) {
            AT_CLEANUP(at_cleanup_free) char *path = at_strndup(file.ptr, file.len);
            return at_file_read(path, (size_t)64 << 10, known[i].to, err);
        }
    }
    return at_err_set(err, AT_INVALID, "option %.*s is none of ca, cert, key, token-file",
                      (int)name.len, name.ptr);
}

static enum at_rc address_read(struct at_audit_ship *s, const struct shape *shape,
                               struct at_str url, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_strndup(url.ptr, url.len);
    const char *rest = text + strlen(shape->scheme);
    if (shape->http) {
        struct at_url parsed;
        enum at_rc rc = at_url_parse(text, &parsed, err);
        if (rc != AT_OK) {
            return rc;
        }
        s->addr = at_strdup(parsed.addr);
        s->host = at_strdup(parsed.host);
        s->target = at_strdup(parsed.target);
        return AT_OK;
    }
    const char *colon = strrchr(rest, ':');
    if (shape->unix_socket ? rest[0] != '/' : colon == NULL || colon == rest) {
        return at_err_set(err, AT_INVALID, "it needs %s",
                          shape->unix_socket ? "an absolute path" : "HOST:PORT");
    }
    s->addr = shape->unix_socket ? at_asprintf("unix:%s", rest) : at_strdup(rest);
    s->host = shape->unix_socket ? NULL : at_strndup(rest, (size_t)(colon - rest));
    return AT_OK;
}

static enum at_rc tls_make(struct at_audit_ship *s, const struct settings *o, struct at_err *err)
{
    const struct at_tls_options tls = {.ca_pem = o->ca.data,
                                       .cert_pem = o->cert.data,
                                       .key_pem = o->key.data,
                                       .verify_peer = true};
    return at_tls_config_new(&tls, &s->tls, err);
}

static enum at_rc ship_set_up(struct at_audit_ship *s, const char *url, struct settings *o,
                              struct at_err *err)
{
    struct at_str options = at_str_of(url);
    struct at_str plain = at_str_cut(&options, '#');
    const struct shape *shape = NULL;
    for (size_t i = 0; i < AT_ARRAY_LEN(SHAPES); i++) {
        shape = at_str_starts(plain, SHAPES[i].scheme) ? &SHAPES[i] : shape;
    }
    if (shape == NULL) {
        return at_err_set(err, AT_INVALID,
                          "it must begin with https://, http://, syslog+tls://, syslog+tcp:// or "
                          "syslog+unix://");
    }
    enum at_rc rc = address_read(s, shape, plain, err);
    while (rc == AT_OK && options.len > 0) {
        rc = option_read(at_str_cut(&options, '&'), o, err);
    }
    s->http = shape->http;
    s->unread = !shape->http && !shape->unix_socket;
    if (rc == AT_OK && shape->tls) {
        rc = tls_make(s, o, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct at_str token = at_str_of(o->token.data != NULL ? o->token.data : "");
    token = at_str_trim(at_str_cut(&token, '\n'));
    s->headers = at_asprintf("Content-Type: application/json\r\n%s%.*s%s",
                             token.len > 0 ? "Authorization: Bearer " : "", (int)token.len,
                             token.ptr, token.len > 0 ? "\r\n" : "");
    char id[AT_SHA256_HEX_BYTES];
    at_sha256_hex(plain.ptr, plain.len, id);
    s->cursor_path = at_asprintf("%s/audit.cursor.%.12s", s->a->w.dir, id);
    return AT_OK;
}

static void settings_done(struct settings *o)
{
    struct at_buf *all[] = {&o->ca, &o->cert, &o->key, &o->token};
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        if (all[i]->data != NULL) {
            explicit_bzero(all[i]->data, all[i]->len);
        }
        at_buf_done(all[i]);
    }
}

enum at_rc at_audit_ship_new(struct at_audit *audit, const char *url, struct at_audit_ship **ret,
                             struct at_err *err)
{
    struct at_audit_ship *s = AT_NEW(struct at_audit_ship);
    struct settings o = {0};
    s->a = audit;
    at_buf_init(&s->batch, 4 * AT_AUDIT_BATCH_BYTES);
    enum at_rc rc = ship_set_up(s, url, &o, err);
    settings_done(&o);
    if (rc != AT_OK) {
        at_audit_ship_free(s);
        return at_err_wrap(err, rc, "audit sink %.*s", (int)strcspn(url, "#"), url);
    }
    cursor_read(s);
    if (s->http) {
        s->client = at_http_client_new(audit->loop, &(struct at_http_client_options){0});
    }
    s->timer = at_loop_timer(audit->loop, 0, step, s);
    *ret = s;
    return AT_OK;
}

void at_audit_ship_metrics(struct at_audit_ship *s, struct at_metrics *m, const char *sink)
{
    const char *const label[] = {"sink", NULL};
    s->behind = at_metric_with(at_metrics_family(m, AT_METRIC_GAUGE, "atoll_audit_sink_behind",
                                                 "Records that a sink has not got yet.", label),
                               (const char *const[]){sink, NULL});
    s->failures = at_metric_with(
        at_metrics_family(m, AT_METRIC_COUNTER, "atoll_audit_sink_failures_total",
                          "Attempts to reach a sink that failed; they are made again.", label),
        (const char *const[]){sink, NULL});
}

void at_audit_ship_behind(struct at_audit_ship *s, uint64_t last_seq)
{
    if (s->behind != NULL) {
        at_metric_set(s->behind,
                      last_seq + 1 > s->cursor ? (int64_t)(last_seq + 1 - s->cursor) : 0);
    }
}

void at_audit_ship_free(struct at_audit_ship *s)
{
    if (s == NULL) {
        return;
    }
    at_loop_timer_cancel(s->a->loop, s->timer);
    if (s->cursor_path != NULL && s->cursor > 0) {
        cursor_save(s, true);
    }
    if (s->client != NULL) {
        at_http_client_free(s->client);
    }
    at_stream_free(s->stream);
    at_tls_config_unref(s->tls);
    at_buf_done(&s->batch);
    at_free(s->addr);
    at_free(s->host);
    at_free(s->target);
    if (s->headers != NULL) {
        explicit_bzero(s->headers, strlen(s->headers));
    }
    at_free(s->headers);
    at_free(s->cursor_path);
    at_free(s);
}
