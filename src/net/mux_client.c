/* The client's side of atoll-mux/1: a connection of a pool on which calls share their way. Calls
 * that find none open go by HTTP/1.1 as ever, so nobody waits for the upgrade. */
#include "net/mux_client.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <sys/uio.h>

static void conn_release(struct mux_conn *m)
{
    at_free(m);
}

static void close_conn(struct mux_conn *m)
{
    struct client_pool *pool = m->pool;
    assert(m->n_calls == 0);
    if (pool->mux == m) {
        pool->mux = NULL;
    }
    *(m->prev != NULL ? &m->prev->next : &pool->client->mux_conns) = m->next;
    if (m->next != NULL) {
        m->next->prev = m->prev;
    }
    at_loop_at_end_cancel(pool->client->loop, &m->send_task);
    at_stream_free(m->stream);
    m->stream = NULL;
    m->state = MUX_CLOSED;
    if (!m->in_data) {
        conn_release(m);
    } /* else: by on_data */
    pool->n_holds--;
    at_client_pool_drop_if_empty(pool);
}

/* --- sending --- */

static void on_turn_end(void *ctx)
{
    at_stream_uncork(((struct mux_conn *)ctx)->stream);
}

/* All frames of a turn go out together. */
static enum at_rc put(struct mux_conn *m, const struct iovec *iov, int n)
{
    if (!m->send_task.queued) {
        at_stream_cork(m->stream);
        at_loop_at_end(m->pool->client->loop, &m->send_task);
    }
    return at_stream_writev(m->stream, iov, n);
}

static void put_number(struct mux_conn *m, enum at_mux_type type, uint32_t id, uint32_t number)
{
    char frame[AT_MUX_HEAD_BYTES + 4];
    at_mux_put_number(frame, type, id, number);
    (void)!put(m, &(struct iovec){frame, sizeof frame}, 1); /* broken: on_close comes */
}

/* The first frame carries the head and what the window takes of the body. */
static enum at_rc send_some(struct client_call *call)
{
    size_t left = call->request.len - call->mux_sent;
    size_t head = call->mux_sent == 0 ? call->head_bytes : 0;
    size_t body = left - head < call->mux_window ? left - head : call->mux_window;
    size_t n = head + body < AT_MUX_PAYLOAD_BYTES_MAX ? head + body : AT_MUX_PAYLOAD_BYTES_MAX;
    if (n == 0 && head == 0) {
        return AT_OK;
    }
    char frame[AT_MUX_HEAD_BYTES];
    at_mux_put_head(frame, head > 0 ? AT_MUX_HEAD : AT_MUX_DATA, n == left, call->mux_id, n);
    struct iovec iov[2] = {{frame, sizeof frame}, {call->request.data + call->mux_sent, n}};
    enum at_rc rc = put(call->mux, iov, 2);
    if (rc == AT_OK) {
        call->mux_sent += n;
        call->mux_window -= (uint32_t)(n - head);
    }
    return rc;
}

bool at_mux_client_take(struct client_call *call)
{
    struct client_pool *pool = call->pool;
    struct mux_conn *m = pool->mux;
    if (m == NULL) {
        at_mux_client_try(pool);
        return false;
    }
    if (m->state != MUX_OPEN || m->n_calls >= AT_MUX_STREAMS_MAX ||
        call->head_bytes > AT_HTTP_HEAD_BYTES_MAX) {
        return false;
    }
    do {
        m->last_id++;
    } while (m->calls[m->last_id % AT_MUX_SLOTS] != NULL);
    call->mux = m;
    call->mux_id = m->last_id;
    call->mux_sent = 0;
    call->mux_window = call->mux_credit = AT_MUX_WINDOW_BYTES;
    call->mux_owed = 0;
    call->mux_left = UINT64_MAX;
    call->mux_ended = false;
    m->calls[m->last_id % AT_MUX_SLOTS] = call;
    m->n_calls++;
    if (send_some(call) == AT_OK) {
        call->sent = true;
        return true;
    }
    at_mux_client_leave(call, false);
    return false;
}

static void want_idle_end(struct mux_conn *m)
{
    struct at_http_client *client = m->pool->client;
    m->idle_until_ns = at_loop_now_ns(client->loop) + client->idle_timeout_ns;
    at_client_want_sweep(client, m->idle_until_ns);
}

void at_mux_client_leave(struct client_call *call, bool tell)
{
    struct mux_conn *m = call->mux;
    assert(m->calls[call->mux_id % AT_MUX_SLOTS] == call);
    m->calls[call->mux_id % AT_MUX_SLOTS] = NULL;
    m->n_calls--;
    call->mux = NULL;
    at_loop_at_end_cancel(m->pool->client->loop, &call->resume_task);
    if (call->held.len > 0 || call->held.cap > AT_HTTP_KEEP_BYTES_MAX) {
        at_buf_done(&call->held);
    }
    if (tell && m->state != MUX_CLOSED) {
        put_number(m, AT_MUX_RESET, call->mux_id, AT_MUX_CANCELLED);
    }
    if (m->n_calls == 0) {
        want_idle_end(m);
        if (m->state == MUX_LEAVING && !m->in_data) {
            close_conn(m);
        }
    }
}

/* --- receiving --- */

static void fail(struct client_call *call, enum at_rc rc, const char *what)
{
    struct at_err err;
    at_err_set(&err, rc, "%s: %s", call->pool->addr, what);
    at_mux_client_leave(call, false);
    at_client_complete(call, rc, &err);
}

static void complete(struct client_call *call)
{
    /* An answer before all of the request was taken: the rest is not wanted. */
    at_mux_client_leave(call, call->mux_sent < call->request.len);
    at_client_complete(call, AT_OK, NULL);
}

static void grant(struct client_call *call, size_t len)
{
    call->mux_owed += (uint32_t)len;
    if (call->mux_owed >= AT_MUX_WINDOW_BYTES / 2 && !call->mux_ended) {
        put_number(call->mux, AT_MUX_WINDOW, call->mux_id, call->mux_owed);
        call->mux_credit += call->mux_owed;
        call->mux_owed = 0;
    }
}

/* Is it still on its way there? Callbacks may end calls, connections and clients. */
static bool is_on(const struct mux_conn *m, uint32_t id, const struct client_call *call)
{
    return m->state != MUX_CLOSED && m->calls[id % AT_MUX_SLOTS] == call && call->mux_id == id;
}

static void take_body(struct mux_conn *m, struct client_call *call, const char *data, size_t len,
                      bool end)
{
    uint32_t id = call->mux_id;
    if (len > call->mux_credit) {
        fail(call, AT_UPSTREAM, "more was sent than the window allows");
        return;
    }
    call->mux_credit -= (uint32_t)len;
    if (call->mux_left != UINT64_MAX) {
        if (len > call->mux_left || (end && len < call->mux_left)) {
            fail(call, AT_UPSTREAM, "the body has another length than was said");
            return;
        }
        call->mux_left -= len;
    }
    call->mux_ended = end;
    if (call->paused || call->held.len > 0) {
        if (at_buf_append(&call->held, data, len) != AT_OK) {
            fail(call, AT_UPSTREAM, "out of memory");
        }
        return;
    }
    at_client_piece(call);
    if (len > 0 && call->on_body != NULL) {
        call->on_body(call->ctx, data, len);
        if (!is_on(m, id, call)) {
            return;
        }
    }
    if (end && call->paused) {
        return; /* on resume */
    }
    if (end) {
        complete(call);
    } else {
        grant(call, len);
    }
}

static void take_head(struct mux_conn *m, struct client_call *call, const struct at_mux_frame *f)
{
    struct at_http_head head;
    struct at_err err;
    if (call->head_seen ||
        at_http1_parse_response(f->payload.ptr, f->payload.len, &head, &err) != AT_OK ||
        head.status < 200 || head.chunked) {
        fail(call, AT_UPSTREAM, "the answer's head is malformed");
        return;
    }
    size_t rest = f->payload.len - head.head_bytes;
    bool bodyless = call->method == AT_HTTP_HEAD || head.status == 204 || head.status == 304;
    if (bodyless) {
        call->mux_left = 0;
    } else if (head.has_length) {
        call->mux_left = head.content_length;
    } else if (f->end) {
        head.has_length = true;
        head.content_length = rest;
    }
    call->head_seen = true;
    at_client_piece(call);
    if (call->on_head != NULL) {
        call->on_head(call->ctx, &head);
        if (!is_on(m, f->id, call)) {
            return;
        }
    }
    take_body(m, call, f->payload.ptr + head.head_bytes, rest, f->end);
}

/* What was not begun when the other side left may be sent elsewhere. */
static void leave_conn(struct mux_conn *m, uint32_t last)
{
    m->state = MUX_LEAVING;
    if (m->pool->mux == m) {
        m->pool->mux = NULL;
    }
    for (uint32_t i = 0; i < AT_MUX_SLOTS && m->state != MUX_CLOSED; i++) {
        struct client_call *call = m->calls[i];
        if (call != NULL && call->mux_id > last) {
            call->sent = false;
            fail(call, AT_UNAVAILABLE, "it takes no more requests");
        }
    }
}

static void on_reset(struct client_call *call, uint32_t reason)
{
    if (reason == AT_MUX_REFUSED) {
        call->sent = false;
        fail(call, AT_UNAVAILABLE, "it takes no more requests");
    } else {
        fail(call, AT_UPSTREAM, "the answer was broken off");
    }
}

static void take_frame(struct mux_conn *m, const struct at_mux_frame *f)
{
    struct client_call *call = m->calls[f->id % AT_MUX_SLOTS];
    if (f->type == AT_MUX_GOAWAY) {
        leave_conn(m, f->number);
        return;
    }
    if (call == NULL || call->mux_id != f->id) {
        return; /* cancelled meanwhile */
    }
    switch (f->type) {
    case AT_MUX_HEAD:
        take_head(m, call, f);
        break;
    case AT_MUX_DATA:
        if (!call->head_seen || call->mux_ended) {
            fail(call, AT_UPSTREAM, "a body without a head");
        } else {
            take_body(m, call, f->payload.ptr, f->payload.len, f->end);
        }
        break;
    case AT_MUX_WINDOW:
        if (f->number > AT_MUX_WINDOW_BYTES - call->mux_window) {
            fail(call, AT_UPSTREAM, "a window that is too large");
            break;
        }
        call->mux_window += f->number;
        if (send_some(call) != AT_OK) {
            fail(call, AT_UNAVAILABLE, "the connection takes no more");
        }
        break;
    case AT_MUX_RESET:
        on_reset(call, f->number);
        break;
    case AT_MUX_GOAWAY:
        break;
    }
}

/* The other side cannot be understood, or is gone: every call ends. */
static void end_all(struct mux_conn *m, const char *why)
{
    if (m->pool->mux == m) {
        m->pool->mux = NULL;
    }
    m->state = MUX_LEAVING;
    bool in_data = m->in_data;
    m->in_data = true; /* the last call's end must not free m under this loop */
    for (uint32_t i = 0; i < AT_MUX_SLOTS && m->state != MUX_CLOSED; i++) {
        struct client_call *call = m->calls[i];
        if (call != NULL) {
            bool begun = call->head_seen;
            at_mux_client_leave(call, false);
            if (begun || !at_client_retry(call, false)) {
                struct at_err err;
                enum at_rc rc = begun ? AT_UPSTREAM : AT_UNAVAILABLE;
                at_err_set(&err, rc, "%s: %s", call->pool->addr, why);
                at_client_complete(call, rc, &err);
            }
        }
    }
    m->in_data = in_data;
}

/* The answer to the Upgrade. Bytes taken; the whole of it when it was refused. */
static size_t take_upgrade(struct mux_conn *m, const char *data, size_t len)
{
    struct at_http_head head;
    struct at_err err;
    enum at_rc rc = at_http1_parse_response(data, len, &head, &err);
    if (rc == AT_AGAIN) {
        return 0;
    }
    if (rc == AT_OK && head.status == 101 &&
        at_str_eq_nocase(at_http_header_get(&head, "upgrade"), AT_MUX_PROTOCOL)) {
        m->state = MUX_OPEN;
        want_idle_end(m);
        return head.head_bytes;
    }
    m->pool->mux_again_ns = at_loop_now_ns(m->pool->client->loop) + AT_MUX_REFUSED_NS;
    m->state = MUX_LEAVING;
    return len;
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct mux_conn *m = ctx;
    size_t used = 0;
    m->in_data = true;
    if (m->state == MUX_TRYING) {
        used = take_upgrade(m, data, len);
    }
    while ((m->state == MUX_OPEN || (m->state == MUX_LEAVING && m->n_calls > 0)) && used < len) {
        struct at_mux_frame f;
        struct at_err err;
        size_t n = 0;
        enum at_rc rc = at_mux_parse(data + used, len - used, &f, &n, &err);
        if (rc == AT_AGAIN) {
            break;
        }
        if (rc != AT_OK) {
            end_all(m, err.msg);
            break;
        }
        used += n;
        take_frame(m, &f);
    }
    m->in_data = false;
    if (m->state == MUX_CLOSED) {
        conn_release(m);
        return len;
    }
    if (m->state == MUX_LEAVING && m->n_calls == 0) {
        close_conn(m);
        return len;
    }
    return used;
}

static void on_open(void *ctx)
{
    struct mux_conn *m = ctx;
    static const char ASK[] = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                              "Upgrade: " AT_MUX_PROTOCOL "\r\n\r\n";
    (void)!at_stream_write(m->stream, ASK, sizeof ASK - 1);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct mux_conn *m = ctx;
    (void)rc, (void)err;
    if (m->state == MUX_TRYING) {
        m->pool->mux_again_ns = at_loop_now_ns(m->pool->client->loop) + AT_MUX_AGAIN_NS;
    }
    end_all(m, "the connection ended before the answer");
    if (m->state == MUX_CLOSED) {
        conn_release(m);
    } else {
        close_conn(m);
    }
}

void at_mux_client_try(struct client_pool *pool)
{
    struct at_http_client *client = pool->client;
    bool may = client->mux && pool->speaks_mux && !client->closing;
    if (!may || at_loop_now_ns(client->loop) < pool->mux_again_ns) {
        return;
    }
    struct mux_conn *m = AT_NEW(struct mux_conn);
    m->pool = pool;
    m->state = MUX_TRYING;
    m->send_task = (struct at_loop_task){.fn = on_turn_end, .ctx = m};
    m->next = client->mux_conns;
    if (m->next != NULL) {
        m->next->prev = m;
    }
    client->mux_conns = m;
    pool->mux = m;
    pool->n_holds++;
    struct at_stream_events events = {
        .ctx = m, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    char host[300];
    const char *name = pool->server_name;
    if (name == NULL && pool->tls != NULL) {
        at_client_host_of(pool->addr, host, sizeof host);
        name = host;
    }
    m->stream = at_stream_connect(client->loop, pool->addr, pool->tls, name,
                                  at_client_connect_ns(pool), &events);
    m->idle_until_ns = at_loop_now_ns(client->loop) + AT_MUX_TRY_NS;
    at_client_want_sweep(client, m->idle_until_ns);
}

/* --- time, pausing, the end --- */

void at_mux_client_sweep(struct at_http_client *client, int64_t now_ns, int64_t *first_ns)
{
    for (struct mux_conn *m = client->mux_conns, *next; m != NULL; m = next) {
        next = m->next;
        if (m->n_calls > 0) {
            continue;
        }
        if (m->idle_until_ns <= now_ns && !m->in_data) {
            m->pool->mux_again_ns =
                m->state == MUX_TRYING ? now_ns + AT_MUX_REFUSED_NS : m->pool->mux_again_ns;
            close_conn(m);
        } else if (m->idle_until_ns < *first_ns) {
            *first_ns = m->idle_until_ns;
        }
    }
}

static void on_resume(void *ctx)
{
    struct client_call *call = ctx;
    struct mux_conn *m = call->mux;
    uint32_t id = call->mux_id;
    if (call->paused) {
        return;
    }
    struct at_buf held = call->held;
    call->held = (struct at_buf){0};
    bool was_in_data = m->in_data;
    m->in_data = true;
    if (held.len > 0 && call->on_body != NULL) {
        call->on_body(call->ctx, held.data, held.len);
    }
    m->in_data = was_in_data;
    if (is_on(m, id, call) && !call->paused) {
        if (call->mux_ended) {
            complete(call);
        } else {
            grant(call, held.len);
        }
    } else if (is_on(m, id, call)) {
        grant(call, held.len);
    } else if (m->state == MUX_CLOSED && !was_in_data) {
        conn_release(m);
    } else if (m->state == MUX_LEAVING && m->n_calls == 0 && !was_in_data) {
        close_conn(m);
    }
    at_buf_done(&held);
}

void at_mux_client_resume(struct client_call *call)
{
    if (call->held.len > 0 || call->mux_ended) {
        call->resume_task.fn = on_resume;
        call->resume_task.ctx = call;
        at_loop_at_end(call->client->loop, &call->resume_task);
    }
}

void at_mux_client_free(struct at_http_client *client)
{
    while (client->mux_conns != NULL) {
        close_conn(client->mux_conns);
    }
}
