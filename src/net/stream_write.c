/* The sending half of streams: one queue, and straight to the socket when it is empty. */
#include "net/stream_int.h"
#include "sys/memory.h"

#include <assert.h>
#include <string.h>
#include <sys/uio.h>

size_t at_stream_queued_bytes(const struct at_stream *s)
{
    size_t queued = s->tls != NULL ? at_tls_session_output(s->tls)->len : s->plain_out.len;
    return queued - s->out_pos + (s->io != NULL ? at_io_sending_bytes(s->io) : 0);
}

static void compact(struct at_stream *s, struct at_buf *out)
{
    if (s->out_pos == out->len) {
        if (out->cap > AT_STREAM_IDLE_BYTES_MAX) {
            at_buf_done(out);
        } else {
            at_buf_clear(out);
        }
        s->out_pos = 0;
    } else if (s->out_pos > AT_STREAM_CORK_BYTES_MAX && s->out_pos > out->len / 2) {
        at_buf_consume(out, s->out_pos);
        s->out_pos = 0;
    }
}

/* Writing is over; the queue is dropped. Reading goes on and will meet the end by itself. */
void at_stream_break(struct at_stream *s)
{
    s->broken = true;
    s->blocked = false;
    s->out_pos = at_stream_out(s)->len;
    compact(s, at_stream_out(s));
    if (s->paused || s->peer_done || s->state == ST_ENDING || s->state == ST_LINGER) {
        struct at_err err;
        enum at_rc rc = at_err_set(&err, AT_UNAVAILABLE, "the connection broke while writing");
        at_stream_finish_later(s, rc, &err);
        at_stream_set_interest(s, 0);
    } else {
        at_stream_set_interest(s, AT_LOOP_READ);
    }
}

static void set_blocked(struct at_stream *s, bool blocked)
{
    s->blocked = blocked;
    at_stream_set_interest(s, (s->interest & AT_LOOP_READ) | (blocked ? AT_LOOP_WRITE : 0));
}

void at_stream_flush(struct at_stream *s)
{
    struct at_buf *out = at_stream_out(s);
    if (s->io != NULL) {
        at_stream_io_flush(s);
        return;
    }
    while (s->out_pos < out->len) {
        size_t n = 0;
        enum at_rc rc = at_sock_write(s->fd, out->data + s->out_pos, out->len - s->out_pos, &n);
        if (rc == AT_AGAIN) {
            set_blocked(s, true);
            return;
        }
        if (rc != AT_OK) {
            at_stream_break(s);
            return;
        }
        s->out_pos += n;
    }
    compact(s, out);
    if (s->blocked) {
        set_blocked(s, false);
    }
}

static size_t iov_bytes(const struct iovec *iov, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    return total;
}

static void join(char *to, const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len > 0) {
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
            to += iov[i].iov_len;
        }
    }
}

static enum at_rc queue_plain(struct at_stream *s, const struct iovec *iov, int n, size_t skip)
{
    compact(s, &s->plain_out);
    for (int i = 0; i < n; i++) {
        size_t cut = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        skip -= cut;
        enum at_rc rc =
            at_buf_append(&s->plain_out, (const char *)iov[i].iov_base + cut, iov[i].iov_len - cut);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

/* Nothing to be held back: what is queued and the new bytes go out in one call. */
static enum at_rc send_plain(struct at_stream *s, const struct iovec *iov, int n, size_t total)
{
    struct iovec all[AT_STREAM_IOV_MAX + 1];
    char joined[AT_STREAM_JOIN_BYTES_MAX];
    size_t queued = s->plain_out.len - s->out_pos;
    all[0] = (struct iovec){queued > 0 ? s->plain_out.data + s->out_pos : NULL, queued};
    memcpy(all + 1, iov, sizeof *iov * (size_t)n);
    size_t sent = 0;
    int first = queued == 0;
    enum at_rc rc;
    if (queued + total <= sizeof joined) { /* send(2) of one piece costs less than sendmsg(2) */
        join(joined, all + first, n + 1 - first);
        rc = at_sock_write(s->fd, joined, queued + total, &sent);
    } else {
        rc = at_sock_writev(s->fd, all + first, n + 1 - first, &sent);
    }
    if (rc != AT_OK && rc != AT_AGAIN) {
        at_stream_break(s);
        return AT_UNAVAILABLE;
    }
    size_t from_queue = sent < queued ? sent : queued;
    s->out_pos += from_queue;
    compact(s, &s->plain_out);
    sent -= from_queue;
    if (from_queue == queued && sent == total) {
        return AT_OK;
    }
    rc = queue_plain(s, iov, n, sent);
    if (s->io != NULL) {
        at_stream_io_flush(s);
    } else {
        set_blocked(s, true);
    }
    return rc;
}

/* Small writes of a turn go out together at its end; large ones at once, uncopied. */
static enum at_rc send_io(struct at_stream *s, const struct iovec *iov, int n, size_t total,
                          size_t queued)
{
    if (total > AT_STREAM_GATHER_BYTES_MAX && queued == 0 && s->corks == 0) {
        return send_plain(s, iov, n, total);
    }
    enum at_rc rc = queue_plain(s, iov, n, 0);
    at_stream_io_flush(s);
    return rc;
}

/* Small pieces become one TLS record. */
static enum at_rc send_tls(struct at_stream *s, const struct iovec *iov, int n, size_t total)
{
    char joined[AT_TLS_JOIN_BYTES_MAX];
    struct at_err err;
    enum at_rc rc = AT_OK;
    compact(s, at_stream_out(s));
    if (total > AT_TLS_RECORD_BYTES) { /* once, instead of growing with every record */
        char *place;
        size_t records = total / AT_TLS_RECORD_BYTES + (size_t)n;
        size_t bytes = total + records * AT_TLS_OVERHEAD_BYTES;
        if (at_buf_reserve(at_stream_out(s), bytes, &place) == AT_OK) {
            at_memory_large(place, bytes);
        }
    }
    if (n > 1 && total <= sizeof joined) {
        join(joined, iov, n);
        rc = at_tls_session_write(s->tls, joined, total, &err);
    } else {
        for (int i = 0; rc == AT_OK && i < n; i++) {
            rc = at_tls_session_write(s->tls, iov[i].iov_base, iov[i].iov_len, &err);
        }
    }
    if (rc != AT_OK) {
        at_stream_break(s);
        return AT_UNAVAILABLE;
    }
    if (!s->blocked && (s->corks == 0 || at_stream_queued_bytes(s) > AT_STREAM_CORK_BYTES_MAX)) {
        at_stream_flush(s);
    }
    return AT_OK;
}

enum at_rc at_stream_writev(struct at_stream *s, const struct iovec *iov, int n)
{
    assert(n >= 0 && n <= AT_STREAM_IOV_MAX);
    if (s->state != ST_OPEN || s->broken || s->half_ended) {
        return AT_UNAVAILABLE;
    }
    size_t total = iov_bytes(iov, n);
    size_t queued = at_stream_queued_bytes(s);
    if (total > AT_STREAM_QUEUE_BYTES_MAX || queued > AT_STREAM_QUEUE_BYTES_MAX - total) {
        return AT_EXHAUSTED;
    }
    if (total == 0) {
        return AT_OK;
    }
    if (s->tls != NULL) {
        return send_tls(s, iov, n, total);
    }
    if (s->io != NULL) {
        return send_io(s, iov, n, total, queued);
    }
    if (s->blocked || (s->corks > 0 && queued + total <= AT_STREAM_CORK_BYTES_MAX)) {
        return queue_plain(s, iov, n, 0);
    }
    return send_plain(s, iov, n, total);
}

enum at_rc at_stream_write(struct at_stream *s, const void *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};
    return at_stream_writev(s, &iov, 1);
}

void at_stream_cork(struct at_stream *s)
{
    s->corks++;
}

void at_stream_uncork(struct at_stream *s)
{
    assert(s->corks > 0);
    if (--s->corks == 0 && !s->blocked && !s->broken && s->fd >= 0 &&
        at_stream_queued_bytes(s) > 0) {
        at_stream_flush(s);
    }
}
