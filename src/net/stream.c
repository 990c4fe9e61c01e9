/* Streams: one fd, one watch, at most one deferred task. Callbacks run only from the loop's own
 * events (on_event, on_task, on_timer), never from within a call that the owner makes. */
#include "net/stream_int.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>

static void on_event(void *ctx, int fd, unsigned events);
static void on_task(void *ctx);

void at_stream_set_interest(struct at_stream *s, unsigned events)
{
    if (s->interest != events && s->io != NULL) {
        s->interest = events;
        at_io_receive(s->io, (events & AT_LOOP_READ) != 0);
    } else if (s->interest != events && s->watch != 0) {
        s->interest = events;
        at_loop_watch_change(s->loop, s->watch, events);
    }
}

static void defer(struct at_stream *s, unsigned task)
{
    s->tasks |= task;
    if (s->task_timer == 0) {
        s->task_timer = at_loop_timer(s->loop, 0, on_task, s);
    }
}

/* Off the loop and off the machine; memory stays. */
static void detach(struct at_stream *s)
{
    at_loop_timer_cancel(s->loop, s->timer);
    at_loop_timer_cancel(s->loop, s->task_timer);
    s->timer = s->task_timer = 0;
    if (s->watch != 0) {
        at_loop_unwatch(s->loop, s->watch);
        s->watch = 0;
    }
    at_stream_io_close(s);
    s->has_acked = s->tls == NULL && at_sock_acked(s->fd, &s->acked);
    at_sock_close(s->fd);
    s->fd = -1;
}

static void release(struct at_stream *s)
{
    assert(s->fd == -1);
    at_tls_session_free(s->tls);
    at_buf_done(&s->in);
    at_buf_done(&s->raw);
    at_buf_done(&s->plain_out);
    at_free(s->close_err);
    at_free(s);
}

/* Give the stream up. Only from the loop's own events; at_stream_leave releases the memory. */
static void finish(struct at_stream *s, enum at_rc rc, const struct at_err *err)
{
    assert(s->in_event);
    detach(s);
    s->state = ST_CLOSED;
    s->gone = true;
    if (s->ev.on_close != NULL) {
        s->ev.on_close(s->ev.ctx, rc, err);
    }
}

void at_stream_enter(struct at_stream *s)
{
    assert(!s->in_event);
    s->in_event = true;
}

void at_stream_leave(struct at_stream *s)
{
    s->in_event = false;
    if (s->gone) {
        release(s);
    }
}

/* As finish, soon: for failures seen inside the owner's calls. The first reason counts. */
void at_stream_finish_later(struct at_stream *s, enum at_rc rc, const struct at_err *err)
{
    if (s->tasks & TASK_CLOSE) {
        return;
    }
    s->close_rc = rc;
    if (err != NULL) {
        s->close_err = AT_NEW(struct at_err);
        *s->close_err = *err;
    }
    defer(s, TASK_CLOSE);
}

/* False when the owner freed or closed the stream in a callback. */
static bool is_alive(const struct at_stream *s)
{
    return !s->gone && s->state != ST_CLOSED;
}
void at_stream_pause(struct at_stream *s)
{
    s->paused = true; /* the watch is changed only if bytes do come */
}

void at_stream_resume(struct at_stream *s)
{
    bool was_paused = s->paused;
    s->paused = false;
    if (!was_paused || s->fd < 0) {
        return;
    }
    if (s->io == NULL && s->watch == 0) {
        s->interest = AT_LOOP_READ;
        s->watch = at_loop_watch(s->loop, s->fd, s->interest, on_event, s);
    }
    at_stream_set_interest(s, s->interest | AT_LOOP_READ);
    if (s->in.len > 0 || s->held || s->end_rc != AT_OK) {
        defer(s, TASK_SHOW);
    }
}

/* Show bytes to the owner; what it does not take goes to (or stays in) s->in. False: it is gone. */
static bool show(struct at_stream *s, const char *data, size_t len)
{
    bool from_in = s->in.len > 0;
    if (from_in && data != NULL && at_buf_append(&s->in, data, len) != AT_OK) {
        struct at_err err;
        at_err_set(&err, AT_EXHAUSTED, "input that nobody takes");
        finish(s, AT_EXHAUSTED, &err);
        return false;
    }
    const char *at = from_in ? s->in.data : data;
    size_t n = from_in ? s->in.len : len;
    size_t taken = s->ev.on_data != NULL ? s->ev.on_data(s->ev.ctx, at, n) : n;
    assert(taken <= n);
    if (!is_alive(s)) {
        return false;
    }
    if (from_in) {
        at_buf_consume(&s->in, taken);
        if (s->in.len == 0 && s->in.cap > AT_STREAM_IDLE_BYTES_MAX) {
            at_buf_done(&s->in);
        }
    } else if (taken < n && at_buf_append(&s->in, at + taken, n - taken) != AT_OK) {
        finish(s, AT_EXHAUSTED, NULL);
        return false;
    }
    return true;
}

static bool call_open(struct at_stream *s)
{
    at_loop_timer_cancel(s->loop, s->timer);
    s->timer = 0;
    s->state = ST_OPEN;
    if (s->ev.on_open != NULL) {
        s->ev.on_open(s->ev.ctx);
        return is_alive(s);
    }
    return true;
}

static bool advance_handshake(struct at_stream *s)
{
    struct at_err err;
    enum at_rc rc = at_tls_session_handshake(s->tls, &err);
    at_stream_flush(s);
    if (rc == AT_AGAIN) {
        return true;
    }
    if (rc != AT_OK) {
        finish(s, rc, &err);
        return false;
    }
    return call_open(s);
}

/* The peer has said its last while we are still sending: it may be reading on. */
static bool sends_on(struct at_stream *s, enum at_rc rc)
{
    if (s->state != ST_ENDING || rc != AT_EOF || s->broken) {
        return false;
    }
    s->peer_done = true;
    at_stream_set_interest(s, AT_LOOP_WRITE);
    return true;
}

/* The peer's side has ended and the owner wants to write on. */
static bool ends_half(struct at_stream *s, enum at_rc rc)
{
    if (s->state != ST_OPEN || rc != AT_EOF || s->ev.on_end == NULL || s->broken) {
        return false;
    }
    s->peer_done = true;
    at_stream_set_interest(s, s->interest & ~AT_LOOP_READ);
    s->ev.on_end(s->ev.ctx);
    return true;
}

/* Decrypt and show what the session has, until it wants more or the owner pauses. */
static bool pump_tls(struct at_stream *s)
{
    char plain[AT_TLS_RECORD_BYTES];
    s->held = false;
    if (s->state == ST_HANDSHAKE && !advance_handshake(s)) {
        return false;
    }
    while (s->state == ST_OPEN || s->state == ST_ENDING || s->state == ST_LINGER) {
        if (s->paused && s->state == ST_OPEN) {
            s->held = true;
            return true;
        }
        struct at_err err;
        size_t n = 0;
        enum at_rc rc = at_tls_session_read(s->tls, plain, sizeof plain, &n, &err);
        if (rc == AT_AGAIN) {
            return true;
        }
        if (rc != AT_OK) {
            if (s->peer_done && s->state == ST_OPEN) {
                return true;
            }
            if (sends_on(s, rc)) {
                return true;
            }
            if (ends_half(s, rc)) {
                return is_alive(s);
            }
            bool ended = s->state != ST_OPEN;
            finish(s, ended ? AT_OK : rc, ended || rc == AT_EOF ? NULL : &err);
            return false;
        }
        if (s->state == ST_OPEN && !show(s, plain, n)) {
            return false;
        }
    }
    return true;
}

static bool feed_tls(struct at_stream *s, const char *data, size_t len)
{
    if (s->raw.len > 0) {
        if (len > 0 && at_buf_append(&s->raw, data, len) != AT_OK) {
            finish(s, AT_EXHAUSTED, NULL);
            return false;
        }
        at_tls_session_input(s->tls, s->raw.data, s->raw.len);
    } else {
        at_tls_session_input(s->tls, data, len);
    }
    if (!pump_tls(s)) {
        return false;
    }
    size_t left = at_tls_session_input_left(s->tls);
    if (s->raw.len > 0) {
        at_buf_consume(&s->raw, s->raw.len - left);
    } else if (left > 0 && at_buf_append(&s->raw, data + len - left, left) != AT_OK) {
        finish(s, AT_EXHAUSTED, NULL);
        return false;
    }
    at_tls_session_input(s->tls, NULL, 0);
    if (!s->blocked && s->corks == 0 && !s->broken && at_stream_queued_bytes(s) > 0) {
        at_stream_flush(s);
    }
    return true;
}

/* The peer is done, or the connection broke. */
void at_stream_read_end(struct at_stream *s, enum at_rc rc)
{
    struct at_err err;
    if (s->peer_done && s->state == ST_OPEN && rc == AT_EOF) {
        return;
    }
    if (sends_on(s, rc) || (s->tls == NULL && ends_half(s, rc))) {
        return;
    }
    if (s->state == ST_LINGER || s->state == ST_ENDING) {
        finish(s, AT_OK, NULL);
        return;
    }
    if (s->state == ST_HANDSHAKE) {
        rc = at_err_set(&err, AT_UNAVAILABLE, "the peer closed the connection in the handshake");
    } else if (rc == AT_EOF && s->tls == NULL) {
        at_err_set(&err, rc, "the peer closed the connection");
    } else if (rc == AT_EOF) { /* without close_notify: bytes may have been cut off */
        rc = at_err_set(&err, AT_UNAVAILABLE, "the peer cut the TLS connection");
    } else {
        rc = at_err_set(&err, AT_UNAVAILABLE, "the connection was reset");
    }
    finish(s, rc, &err);
}

bool at_stream_feed(struct at_stream *s, const char *data, size_t len)
{
    if (s->tls != NULL) {
        return feed_tls(s, data, len);
    }
    return s->state != ST_OPEN || show(s, data, len); /* input after at_stream_end is read over */
}

/* False: the stream is gone. */
static bool on_readable(struct at_stream *s)
{
    char scratch[AT_STREAM_READ_BYTES];
    for (int turn = 0; turn < AT_STREAM_READS_PER_TURN_MAX; turn++) {
        size_t n = 0;
        enum at_rc rc = at_sock_read(s->fd, scratch, sizeof scratch, &n);
        if (rc == AT_AGAIN) {
            return true;
        }
        if (rc != AT_OK) {
            at_stream_read_end(s, rc);
            return false;
        }
        if (!at_stream_feed(s, scratch, n)) {
            return false;
        }
        if (n < sizeof scratch || s->paused) {
            return true;
        }
    }
    return true;
}

static void on_timer(void *ctx)
{
    struct at_stream *s = ctx;
    struct at_err err;
    s->timer = 0;
    at_stream_enter(s);
    if (s->state == ST_LINGER) {
        finish(s, AT_OK, NULL);
        at_stream_leave(s);
        return;
    }
    const char *what = s->state == ST_CONNECTING  ? "connecting took too long"
                       : s->state == ST_HANDSHAKE ? "the TLS handshake took too long"
                                                  : "the peer does not read";
    enum at_rc rc = at_err_set(&err, AT_TIMEOUT, "%s", what);
    finish(s, rc, &err);
    at_stream_leave(s);
}

static void set_timer(struct at_stream *s, int64_t delay_ns)
{
    at_loop_timer_cancel(s->loop, s->timer);
    s->timer = delay_ns > 0 ? at_loop_timer(s->loop, delay_ns, on_timer, s) : 0;
}

/* Ending, and all is sent: say so, then read on for a while, since closing a socket with unread
 * input would reset the connection and could destroy what the peer has not read yet. */
static void linger(struct at_stream *s)
{
    s->state = ST_LINGER;
    at_sock_shutdown_write(s->fd);
    at_stream_set_interest(s, AT_LOOP_READ);
    set_timer(s, AT_STREAM_LINGER_NS);
}

static bool on_connected(struct at_stream *s)
{
    struct at_err err;
    enum at_rc rc = at_sock_connect_result(s->fd, &err);
    if (rc != AT_OK) {
        finish(s, rc, &err);
        return false;
    }
    if (at_io_is_possible(s->loop)) {
        at_loop_unwatch(s->loop, s->watch);
        s->watch = 0;
        at_stream_io_open(s);
    } else {
        at_stream_set_interest(s, AT_LOOP_READ);
    }
    if (s->tls != NULL) {
        s->state = ST_HANDSHAKE;
        return advance_handshake(s);
    }
    return call_open(s);
}

bool at_stream_drained(struct at_stream *s, size_t before)
{
    size_t now = at_stream_queued_bytes(s);
    if (s->state == ST_ENDING && now == 0 && !s->broken && !s->peer_done) {
        linger(s);
        return true;
    }
    if (s->state == ST_ENDING && now == 0 && !s->broken) {
        finish(s, AT_OK, NULL);
        return false;
    }
    if (now == 0) {
        at_stream_half_look(s);
    }
    bool drained =
        now == 0 || (before > AT_STREAM_LOW_MARK_BYTES && now <= AT_STREAM_LOW_MARK_BYTES);
    if (s->state == ST_OPEN && !s->broken && drained && s->ev.on_writable != NULL) {
        s->ev.on_writable(s->ev.ctx);
        return is_alive(s);
    }
    return true;
}

/* The queue could be written on. False: the stream is gone. */
static bool on_drain(struct at_stream *s)
{
    size_t before = at_stream_queued_bytes(s);
    at_stream_flush(s);
    return at_stream_drained(s, before);
}

static void on_paused_readable(struct at_stream *s)
{
    if (s->interest & AT_LOOP_READ) {
        at_stream_set_interest(s, s->interest & ~AT_LOOP_READ);
        return;
    }
    /* Asked for nothing and told all the same: the peer hung up. Bytes may still wait in the
     * socket, so look again on resume, but do not spin until then. */
    at_loop_unwatch(s->loop, s->watch);
    s->watch = 0;
    s->interest = 0;
}

static void on_event(void *ctx, int fd, unsigned events)
{
    struct at_stream *s = ctx;
    assert(fd == s->fd);
    (void)fd;
    at_stream_enter(s);
    bool alive = s->state != ST_CONNECTING;
    if (!alive) {
        on_connected(s);
    } else if ((events & AT_LOOP_WRITE) && s->blocked) {
        alive = on_drain(s);
    }
    if (alive && s->peer_done && s->state == ST_OPEN) {
        if ((events & AT_LOOP_READ) &&
            !(s->interest & AT_LOOP_READ)) { /* not asked: it is broken */
            at_stream_read_end(s, AT_UNAVAILABLE);
        }
        at_stream_leave(s);
        return;
    }
    if (alive && (events & AT_LOOP_READ) && !(s->tasks & TASK_SHOW)) { /* older bytes go first */
        if (s->paused && s->state == ST_OPEN) {
            on_paused_readable(s);
        } else {
            on_readable(s);
        }
    }
    at_stream_leave(s);
}

/* Bytes that were left over when the owner paused. */
static bool show_left(struct at_stream *s)
{
    if (s->paused || s->state != ST_OPEN) {
        return true;
    }
    if (s->in.len > 0 && !show(s, NULL, 0)) {
        return false;
    }
    if (s->held && !s->paused && !feed_tls(s, NULL, 0)) {
        return false;
    }
    if (s->end_rc != AT_OK && !s->paused && s->state == ST_OPEN) {
        at_stream_read_end(s, s->end_rc);
        return false;
    }
    return true;
}

static void on_task(void *ctx)
{
    struct at_stream *s = ctx;
    unsigned tasks = s->tasks;
    s->task_timer = 0;
    s->tasks = 0;
    at_stream_enter(s);
    if (tasks & TASK_CLOSE) {
        finish(s, s->close_rc, s->close_err);
    } else {
        bool alive = (tasks & TASK_OPEN) ? call_open(s) : true;
        if (alive && (tasks & TASK_SHOW)) {
            show_left(s);
        }
    }
    at_stream_leave(s);
}

static struct at_stream *stream_new(struct at_loop *loop, const struct at_stream_events *events)
{
    struct at_stream *s = AT_NEW(struct at_stream);
    s->loop = loop;
    s->fd = -1;
    s->ev = *events;
    at_buf_init(&s->plain_out, AT_STREAM_QUEUE_BYTES_MAX + AT_STREAM_CORK_BYTES_MAX);
    return s;
}

struct at_stream *at_stream_connect(struct at_loop *loop, const char *addr,
                                    struct at_tls_config *tls, const char *server_name,
                                    int64_t connect_timeout_ns,
                                    const struct at_stream_events *events)
{
    struct at_stream *s = stream_new(loop, events);
    struct at_err err;
    s->state = ST_CONNECTING;
    snprintf(s->peer, sizeof s->peer, "%s", addr);
    enum at_rc rc = at_sock_connect(addr, &s->fd, &err);
    if (rc == AT_OK && tls != NULL) {
        rc = at_tls_session_new(tls, server_name, &s->tls, &err);
    }
    if (rc != AT_OK) {
        at_stream_finish_later(s, rc, &err);
        return s;
    }
    s->interest = AT_LOOP_WRITE;
    s->watch = at_loop_watch(loop, s->fd, s->interest, on_event, s);
    set_timer(s, connect_timeout_ns);
    return s;
}

struct at_stream *at_stream_accept_take(struct at_loop *loop, int fd, struct at_tls_config *tls,
                                        const struct at_stream_events *events)
{
    struct at_stream *s = stream_new(loop, events);
    struct at_err err;
    s->fd = fd;
    s->state = tls != NULL ? ST_HANDSHAKE : ST_OPEN;
    enum at_rc rc = tls != NULL ? at_tls_session_new(tls, NULL, &s->tls, &err) : AT_OK;
    if (rc != AT_OK) {
        at_stream_finish_later(s, rc, &err);
        return s;
    }
    if (at_io_is_possible(loop)) {
        at_stream_io_open(s);
    } else {
        s->interest = AT_LOOP_READ;
        s->watch = at_loop_watch(loop, s->fd, s->interest, on_event, s);
    }
    if (tls != NULL) {
        set_timer(s, AT_STREAM_HANDSHAKE_NS);
    } else if (events->on_open != NULL) {
        defer(s, TASK_OPEN);
    }
    return s;
}

void at_stream_half_look(struct at_stream *s)
{
    if (s->half_ended && !s->half_sent && s->state == ST_OPEN && !s->broken) {
        s->half_sent = true;
        at_sock_shutdown_write(s->fd);
    }
}

void at_stream_end_half(struct at_stream *s)
{
    if (s->state != ST_OPEN || s->broken || s->half_ended) {
        return;
    }
    s->half_ended = true;
    if (s->tls != NULL) {
        at_tls_session_shutdown(s->tls);
    }
    if (!s->blocked) {
        at_stream_flush(s);
    }
    if (at_stream_queued_bytes(s) == 0) {
        at_stream_half_look(s);
    }
}

void at_stream_end(struct at_stream *s)
{
    if (s->state != ST_OPEN) {
        at_stream_close(s);
        return;
    }
    s->state = ST_ENDING;
    if (s->broken) {
        at_stream_finish_later(s, AT_OK, NULL);
        return;
    }
    if (s->tls != NULL && !s->half_ended) {
        at_tls_session_shutdown(s->tls);
    }
    if (s->io == NULL && s->watch == 0) { /* hung up while paused */
        s->watch = at_loop_watch(s->loop, s->fd, s->interest, on_event, s);
    }
    set_timer(s, AT_STREAM_END_NS);
    if (!s->blocked) {
        at_stream_flush(s);
    }
    s->peer_done |= s->end_rc != AT_OK;
    if (!s->broken && at_stream_queued_bytes(s) == 0) {
        if (s->peer_done) {
            at_stream_finish_later(s, AT_OK, NULL);
        } else {
            linger(s);
        }
    }
}

void at_stream_close(struct at_stream *s)
{
    if (s->state == ST_CLOSED) {
        return;
    }
    detach(s);
    s->tasks = 0;
    s->state = ST_CLOSED;
    at_free(s->close_err);
    s->close_err = NULL;
    at_stream_finish_later(s, AT_CANCELLED, NULL);
}

void at_stream_free(struct at_stream *s)
{
    if (s == NULL || s->gone) {
        return;
    }
    detach(s);
    s->state = ST_CLOSED;
    s->gone = true;
    if (!s->in_event) {
        release(s);
    }
}

void at_stream_set_events(struct at_stream *s, const struct at_stream_events *events)
{
    s->ev = *events;
}

const struct at_tls_peer *at_stream_peer(const struct at_stream *s)
{
    return s->tls != NULL ? at_tls_session_peer(s->tls) : NULL;
}

const char *at_stream_peer_addr(const struct at_stream *s)
{
    return s->peer;
}

void at_stream_set_peer_addr(struct at_stream *s, const char *addr)
{
    snprintf(s->peer, sizeof s->peer, "%s", addr);
}

bool at_stream_acked(const struct at_stream *s, uint64_t *ret)
{
    *ret = s->acked;
    return s->has_acked;
}

int at_stream_fd(const struct at_stream *s)
{
    return s->fd;
}
