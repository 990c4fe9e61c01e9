/* HTTP client. A call is bound to one connection from the start (idle, or connecting for it), or
 * waits for one in its pool. Callbacks are the last thing that each event does, or are followed by
 * a look at whether the connection is still the caller's. */
#include "net/http_client_int.h"

#include "core/mem.h"
#include "net/h2_client.h"
#include "net/mux_client.h"

#include <assert.h>

static void on_task(void *ctx);
static void on_sweep(void *ctx);

/* --- lists --- */

static void pool_add_conn(struct client_pool *pool, struct client_conn *conn)
{
    conn->pool = pool;
    conn->next = pool->conns;
    if (conn->next != NULL) {
        conn->next->prev = conn;
    }
    pool->conns = conn;
    pool->n_conns++;
}

static void pool_remove_conn(struct client_conn *conn)
{
    struct client_pool *pool = conn->pool;
    *(conn->prev != NULL ? &conn->prev->next : &pool->conns) = conn->next;
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
    conn->prev = conn->next = NULL;
    assert(pool->n_conns > 0);
    pool->n_conns--;
}

static struct client_conn **idle_list(struct client_conn *conn)
{
    return conn->rests ? &conn->pool->resting : &conn->pool->idle;
}

static void idle_add(struct client_conn *conn)
{
    struct client_conn **list = idle_list(conn);
    conn->pool->n_resting += conn->rests;
    conn->is_idle = true;
    conn->idle_prev = NULL;
    conn->idle_next = *list;
    if (*list != NULL) {
        (*list)->idle_prev = conn;
    }
    *list = conn;
}

static void idle_remove(struct client_conn *conn)
{
    if (conn->is_idle) {
        *(conn->idle_prev != NULL ? &conn->idle_prev->idle_next : idle_list(conn)) =
            conn->idle_next;
        if (conn->idle_next != NULL) {
            conn->idle_next->idle_prev = conn->idle_prev;
        }
        conn->pool->n_resting -= conn->rests;
        conn->is_idle = false;
    }
}

static void waiting_remove(struct client_call *call)
{
    struct client_pool *pool = call->pool;
    if (call->waiting) {
        *(call->wait_prev != NULL ? &call->wait_prev->wait_next : &pool->first_waiting) =
            call->wait_next;
        *(call->wait_next != NULL ? &call->wait_next->wait_prev : &pool->last_waiting) =
            call->wait_prev;
        call->waiting = false;
        call->wait_prev = call->wait_next = NULL;
        pool->n_waiting--;
    }
}

static void waiting_add(struct client_call *call)
{
    struct client_pool *pool = call->pool;
    call->waiting = true;
    call->wait_prev = pool->last_waiting;
    *(pool->last_waiting != NULL ? &pool->last_waiting->wait_next : &pool->first_waiting) = call;
    pool->last_waiting = call;
    pool->n_waiting++;
}

/* --- pools --- */

static struct client_pool *pool_get(struct at_http_client *client, const struct at_http_call *c)
{
    char key[640];
    size_t addr_len = strlen(c->addr);
    size_t name_len = c->server_name != NULL ? strlen(c->server_name) : 0;
    if (addr_len + name_len + 2 * sizeof c->tls + 4 > sizeof key) {
        return NULL;
    }
    /* addr, then the address of the TLS config in hex digits, then the name. */
    char *p = key;
    memcpy(p, c->addr, addr_len);
    p += addr_len;
    if (c->http2 != AT_HTTP2_NEVER) {
        *p++ = c->http2 == AT_HTTP2_ALWAYS ? '2' : '?';
    }
    if (c->tls != NULL) {
        *p++ = '|';
        for (uintptr_t v = (uintptr_t)c->tls; v != 0; v >>= 4) {
            *p++ = (char)('a' + (v & 15));
        }
        *p++ = '|';
        memcpy(p, c->server_name != NULL ? c->server_name : "", name_len);
        p += name_len;
    }
    *p = '\0';
    struct client_pool *pool = at_map_get_n(client->pools, key, (size_t)(p - key));
    if (pool == NULL) {
        pool = AT_NEW(struct client_pool);
        pool->client = client;
        pool->key = at_strdup(key);
        pool->addr = at_strdup(c->addr);
        pool->server_name = at_strdup(c->server_name);
        pool->tls = at_tls_config_ref(c->tls);
        pool->speaks_mux = strncmp(c->addr, "unix:", 5) == 0;
        pool->h2 = c->http2;
        at_map_put(client->pools, key, pool);
    }
    return pool;
}

void at_client_pool_drop_if_empty(struct client_pool *pool)
{
    if (pool->n_conns > 0 || pool->n_holds > 0) {
        return;
    }
    at_map_remove(pool->client->pools, pool->key);
    at_tls_config_unref(pool->tls);
    at_free(pool->key);
    at_free(pool->addr);
    at_free(pool->server_name);
    at_free(pool);
}

/* --- time --- */

void at_client_want_sweep(struct at_http_client *client, int64_t at_ns)
{
    if (at_ns < client->sweep_at_ns) {
        int64_t now = at_loop_now_ns(client->loop);
        at_loop_timer_cancel(client->loop, client->sweep_timer);
        client->sweep_at_ns = at_ns;
        client->sweep_timer =
            at_loop_timer(client->loop, at_ns > now ? at_ns - now : 0, on_sweep, client);
    }
}

/* --- connections --- */

/* Take the connection out of everything and close it. */
static void conn_close(struct client_conn *conn)
{
    assert(conn->call == NULL);
    idle_remove(conn);
    pool_remove_conn(conn);
    at_stream_free(conn->stream);
    conn->stream = NULL;
    conn->dead = true;
    if (!conn->in_data) {
        at_free(conn);
    }
}

/* The pool may be gone afterwards, unless a call holds it. */
void at_client_conn_free(struct client_conn *conn)
{
    struct client_pool *pool = conn->pool;
    conn_close(conn);
    at_client_start_waiting(pool);
}

static void conn_open(struct client_pool *pool, struct client_call *call)
{
    struct client_conn *conn = AT_NEW(struct client_conn);
    pool_add_conn(pool, conn);
    conn->call = call;
    call->conn = conn;
    struct at_stream_events events = at_client_conn_events(conn);
    char host[300];
    const char *name = pool->server_name;
    if (name == NULL && pool->tls != NULL) {
        at_client_host_of(pool->addr, host, sizeof host);
        name = host;
    }
    conn->stream = at_stream_connect(pool->client->loop, pool->addr, pool->tls, name,
                                     at_client_connect_ns(pool), &events);
}

void at_client_send(struct client_conn *conn)
{
    struct client_call *call = conn->call;
    enum at_rc rc = at_stream_write(conn->stream, call->request.data, call->request.len);
    if (rc == AT_OK) {
        call->sent = true;
        conn->asked_at = conn->written;
        conn->written += call->request.len;
        at_client_body_writable(call);
    } else if (rc != AT_UNAVAILABLE) {
        struct at_err err;
        at_err_set(&err, AT_TOO_LARGE, "the request is too large to be queued");
        at_client_fail_later(call, AT_TOO_LARGE, &err);
    } /* else: on_close comes from the loop */
}

void at_client_adopt(struct client_call *call, struct at_stream *stream_take)
{
    struct client_conn *conn = AT_NEW(struct client_conn);
    pool_add_conn(call->pool, conn);
    conn->call = call;
    call->conn = conn;
    conn->stream = stream_take;
    struct at_stream_events events = at_client_conn_events(conn);
    at_stream_set_events(stream_take, &events);
    at_client_send(conn);
}

/* Is there a connection for one more, or may one be made? */
static bool has_room(const struct client_pool *pool)
{
    return pool->h2 != AT_HTTP2_NEVER ? at_h2_client_has_room(pool)
                                      : pool->idle != NULL || pool->resting != NULL ||
                                            pool->n_conns < pool->client->connections_max;
}

/* Bind the call to a connection, or let it wait. fresh: no reused one. */
static void start(struct client_call *call, bool fresh)
{
    struct client_pool *pool = call->pool;
    if (pool->h2 != AT_HTTP2_NEVER) {
        if (!at_h2_client_take(call)) {
            waiting_add(call);
        }
        return;
    }
    if (pool->client->mux && pool->speaks_mux && !fresh && !call->later.is &&
        at_mux_client_take(call)) {
        return;
    }
    struct client_conn *conn = fresh || call->later.is ? NULL : pool->idle;
    if (conn != NULL) {
        idle_remove(conn);
        conn->call = call;
        call->conn = conn;
        at_client_send(conn);
        return;
    }
    bool full = !fresh && pool->n_conns >= pool->client->connections_max;
    struct client_conn *spare = pool->resting != NULL ? pool->resting : pool->idle;
    if (full && spare == NULL) {
        waiting_add(call);
        return;
    }
    if (full) {
        conn_close(spare);
    }
    conn_open(pool, call);
}

void at_client_bind(struct client_call *call)
{
    start(call, false);
}

void at_client_start_waiting(struct client_pool *pool)
{
    pool->n_holds++;
    while (pool->first_waiting != NULL && !pool->client->closing && has_room(pool)) {
        struct client_call *call = pool->first_waiting;
        waiting_remove(call);
        start(call, false);
    }
    pool->n_holds--;
    at_client_pool_drop_if_empty(pool);
}

bool at_client_retry(struct client_call *call, bool unread)
{
    if (call->later.begun) {
        return false;
    }
    bool idempotent = unread || (call->method != AT_HTTP_POST && call->method != AT_HTTP_PATCH);
    if (call->retried || call->paused || (call->sent && !idempotent)) {
        return false;
    }
    call->retried = true;
    call->sent = call->later.open = false;
    start(call, true);
    return true;
}

void at_client_conn_closed(struct client_conn *conn)
{
    if (conn->chunked &&
        at_loop_now_ns(conn->pool->client->loop) - conn->done_ns < AT_HTTP_REST_NS) {
        conn->pool->keeps = false;
    }
}

/* The connection is open still: the peer does keep them, also behind chunks. */
static void conn_rested(struct client_conn *conn)
{
    idle_remove(conn);
    conn->rests = false;
    conn->pool->keeps = true;
    idle_add(conn);
}

/* The answer is complete: the connection is free for the next call, or closed. */
void at_client_conn_done(struct client_conn *conn, bool reuse)
{
    struct client_pool *pool = conn->pool;
    struct at_http_client *client = pool->client;
    conn->call->conn = NULL;
    conn->call = NULL;
    bool rests = conn->chunked && !pool->keeps;
    if (!reuse || client->closing || (rests && pool->n_resting >= AT_HTTP_RESTING_MAX)) {
        at_client_conn_free(conn);
        return;
    }
    conn->reused = true;
    conn->head_done = false;
    conn->got_bytes = false;
    conn->rests = rests;
    conn->done_ns = at_loop_now_ns(client->loop);
    conn->idle_until_ns =
        conn->done_ns + (conn->idle_ns > 0 && conn->idle_ns < client->idle_timeout_ns
                             ? conn->idle_ns
                             : client->idle_timeout_ns);
    idle_add(conn);
    at_client_want_sweep(client,
                         conn->rests ? conn->done_ns + AT_HTTP_REST_NS : conn->idle_until_ns);
    if (pool->first_waiting != NULL) {
        at_client_start_waiting(pool);
    }
}

/* --- calls --- */

static struct client_call *call_new(struct at_http_client *client)
{
    struct client_call *call = client->free_calls;
    if (call != NULL) {
        client->free_calls = call->next;
        struct at_buf request = call->request, held = call->held;
        uint64_t id = call->id;
        *call = (struct client_call){.request = request, .held = held, .id = id, .client = client};
    } else {
        if (client->n_slots == client->slots_cap) {
            client->slots_cap = client->slots_cap == 0 ? 64 : 2 * client->slots_cap;
            client->slots = at_realloc(client->slots, client->slots_cap * sizeof *client->slots);
        }
        call = AT_NEW(struct client_call);
        call->client = client;
        call->id = client->n_slots;
        client->slots[client->n_slots++] = call;
        at_buf_init(&call->request, AT_STREAM_QUEUE_BYTES_MAX);
    }
    call->id += (uint64_t)1 << 32; /* generation in the upper half, slot in the lower */
    call->in_use = true;
    call->next = client->calls;
    if (call->next != NULL) {
        call->next->prev = call;
    }
    client->calls = call;
    return call;
}

struct client_call *at_client_find(const struct at_http_client *client, at_http_call_id id)
{
    size_t slot = (size_t)(id & UINT32_MAX);
    if (id == 0 || slot >= client->n_slots) {
        return NULL;
    }
    struct client_call *call = client->slots[slot];
    return call->in_use && call->id == id ? call : NULL;
}

void at_client_complete(struct client_call *call, enum at_rc rc, const struct at_err *err)
{
    struct at_http_client *client = call->client;
    struct client_pool *pool = call->pool;
    struct client_conn *conn = call->conn;
    void (*on_done)(void *, enum at_rc, bool, const struct at_err *) = call->on_done;
    void *ctx = call->ctx;
    bool sent = call->sent;
    struct at_err *own_err = call->err;
    if (conn != NULL) {
        conn->call = NULL;
        call->conn = NULL;
        at_client_conn_free(conn);
    }
    if (call->mux != NULL) {
        at_mux_client_leave(call, true);
    }
    if (call->h2 != NULL) {
        at_h2_client_leave(call, true);
    }
    if (pool != NULL) {
        waiting_remove(call);
        pool->n_holds--;
        at_client_pool_drop_if_empty(pool);
    }
    *(call->prev != NULL ? &call->prev->next : &client->calls) = call->next;
    if (call->next != NULL) {
        call->next->prev = call->prev;
    }
    call->prev = NULL;
    call->in_use = false;
    call->err = NULL;
    at_client_body_done(call);
    if (call->request.cap > AT_HTTP_KEEP_BYTES_MAX) {
        at_buf_done(&call->request);
    }
    call->next = client->free_calls;
    client->free_calls = call;
    on_done(ctx, rc, sent, err);
    at_free(own_err);
}

void at_client_fail_later(struct client_call *call, enum at_rc rc, const struct at_err *err)
{
    struct at_http_client *client = call->client;
    if (call->err == NULL) {
        call->err = AT_NEW(struct at_err);
        *call->err = *err;
        call->err->rc = rc;
    }
    if (client->task_timer == 0) {
        client->task_timer = at_loop_timer(client->loop, 0, on_task, client);
    }
}

static void enter(struct at_http_client *client)
{
    client->depth++;
}

static void leave(struct at_http_client *client)
{
    if (--client->depth == 0 && client->closing) {
        at_client_release(client);
    }
}

static void on_task(void *ctx)
{
    struct at_http_client *client = ctx;
    client->task_timer = 0;
    enter(client);
    for (struct client_call *call = client->calls; call != NULL;) {
        if (call->err == NULL) {
            call = call->next;
            continue;
        }
        at_client_complete(call, call->err->rc, call->err);
        call = client->calls; /* the callback may have changed the list */
    }
    leave(client);
}

static int64_t call_due(const struct client_call *call)
{
    int64_t next = call->head_seen && call->piece_ns > 0 ? call->piece_at_ns + call->piece_ns
                   : call->head_seen                     ? INT64_MAX
                                                         : call->first_byte_at_ns;
    return next < call->deadline_ns ? next : call->deadline_ns;
}

static void sweep_calls(struct at_http_client *client, int64_t now)
{
    for (struct client_call *call = client->calls; call != NULL;) {
        if (call_due(call) > now) {
            call = call->next;
            continue;
        }
        struct at_err err;
        at_err_set(&err, AT_TIMEOUT, "no %s from %s in time",
                   call->head_seen ? "more of the answer" : "answer", call->pool->addr);
        at_client_complete(call, AT_TIMEOUT, &err);
        call = client->calls;
    }
}

static void sweep_idle(struct at_http_client *client, int64_t now, int64_t *first)
{
    void *value;
    const char *key;
    for (size_t it = 0; at_map_next(client->pools, &it, &key, &value);) {
        struct client_pool *pool = value;
        pool->n_holds++;
        for (struct client_conn *conn = pool->resting, *next; conn != NULL; conn = next) {
            next = conn->idle_next;
            if (conn->done_ns + AT_HTTP_REST_NS <= now) {
                conn_rested(conn);
            } else if (conn->done_ns + AT_HTTP_REST_NS < *first) {
                *first = conn->done_ns + AT_HTTP_REST_NS;
            }
        }
        for (struct client_conn *conn = pool->idle, *next; conn != NULL; conn = next) {
            next = conn->idle_next;
            if (conn->idle_until_ns <= now) {
                at_client_conn_free(conn);
            } else if (conn->idle_until_ns < *first) {
                *first = conn->idle_until_ns;
            }
        }
        at_h2_client_sweep(pool, now, first);
        pool->n_holds--;
        at_client_pool_drop_if_empty(pool); /* only this entry goes: the map allows that */
    }
}

static void on_sweep(void *ctx)
{
    struct at_http_client *client = ctx;
    int64_t now = at_loop_now_ns(client->loop);
    client->sweep_timer = 0;
    client->sweep_at_ns = 0; /* no timer is set while this runs */
    enter(client);
    sweep_calls(client, now);
    if (!client->closing) {
        int64_t first = INT64_MAX;
        sweep_idle(client, now, &first);
        at_mux_client_sweep(client, now, &first);
        for (struct client_call *call = client->calls; call != NULL; call = call->next) {
            first = call_due(call) < first ? call_due(call) : first;
        }
        client->sweep_at_ns = INT64_MAX;
        if (first != INT64_MAX) {
            at_client_want_sweep(client, first);
        }
    }
    leave(client);
}

at_http_call_id at_http_call(struct at_http_client *client, const struct at_http_call *c)
{
    assert(c->on_done != NULL);
    assert(c->method < AT_HTTP_METHOD_OTHER);
    if (client->closing) {
        return 0;
    }
    struct at_err err;
    struct client_call *call = call_new(client);
    at_http_call_id id = call->id;
    call->method = c->method;
    call->ctx = c->ctx;
    call->on_head = c->on_head;
    call->on_body = c->on_body;
    call->on_done = c->on_done;
    call->deadline_ns = call->first_byte_at_ns = INT64_MAX;
    if (at_client_put_request(c, &call->request) != AT_OK) {
        at_err_set(&err, AT_TOO_LARGE, "the request is larger than %zu bytes",
                   AT_STREAM_QUEUE_BYTES_MAX);
        at_client_fail_later(call, AT_TOO_LARGE, &err);
        return id;
    }
    call->head_bytes = call->request.len - c->body_len;
    if (c->body_later) {
        at_client_body_begin(call, c);
    }
    call->pool = pool_get(client, c);
    if (call->pool == NULL) {
        at_err_set(&err, AT_INVALID, "the address is too long");
        at_client_fail_later(call, AT_INVALID, &err);
        return id;
    }
    call->pool->n_holds++;
    int64_t now = at_loop_now_ns(client->loop);
    if (c->timeout_ns > 0) {
        call->deadline_ns = now + c->timeout_ns;
    }
    if (c->first_byte_timeout_ns > 0) {
        call->first_byte_at_ns = now + c->first_byte_timeout_ns;
        call->first_byte_ns = c->first_byte_timeout_ns;
    }
    call->piece_ns = c->piece_timeout_ns;
    at_client_want_sweep(client, call_due(call));
    bool full = call->pool->n_waiting >= client->waiting_max && !has_room(call->pool);
    if (full) {
        at_err_set(&err, AT_EXHAUSTED, "too many calls wait for a connection to %s", c->addr);
        at_client_fail_later(call, AT_EXHAUSTED, &err);
        return id;
    }
    start(call, false);
    return id;
}

void at_http_call_cancel(struct at_http_client *client, at_http_call_id id)
{
    struct client_call *call = at_client_find(client, id);
    if (call != NULL) {
        struct at_err err;
        at_err_set(&err, AT_CANCELLED, "cancelled");
        at_client_complete(call, AT_CANCELLED, &err);
    }
}

void at_http_call_pause(struct at_http_client *client, at_http_call_id id, bool paused)
{
    struct client_call *call = at_client_find(client, id);
    if (call == NULL || call->paused == paused) {
        return;
    }
    call->paused = paused;
    call->piece_at_ns = at_loop_now_ns(client->loop);
    if (call->mux != NULL && !paused) {
        at_mux_client_resume(call);
    }
    if (call->h2 != NULL && !paused) {
        at_h2_client_resume(call);
    }
    if (call->conn != NULL) {
        (paused ? at_stream_pause : at_stream_resume)(call->conn->stream);
    }
}

struct at_http_client *at_http_client_new(struct at_loop *loop,
                                          const struct at_http_client_options *options)
{
    static const struct at_http_client_options DEFAULTS = {0};
    const struct at_http_client_options *o = options != NULL ? options : &DEFAULTS;
    struct at_http_client *client = AT_NEW(struct at_http_client);
    client->loop = loop;
    client->mux = o->mux;
    client->pools = at_map_new();
    client->connections_max =
        o->connections_per_address_max != 0 ? o->connections_per_address_max : 64;
    client->waiting_max = o->waiting_max != 0 ? o->waiting_max : 1024;
    client->idle_timeout_ns = o->idle_timeout_ns != 0 ? o->idle_timeout_ns : 30 * AT_S;
    client->connect_timeout_ns = o->connect_timeout_ns != 0 ? o->connect_timeout_ns : 5 * AT_S;
    client->sweep_at_ns = INT64_MAX;
    return client;
}

void at_client_release(struct at_http_client *client)
{
    for (size_t i = 0; i < client->n_slots; i++) {
        at_buf_done(&client->slots[i]->request);
        at_buf_done(&client->slots[i]->held);
        at_free(client->slots[i]);
    }
    at_free(client->slots);
    at_map_free(client->pools);
    at_free(client);
}

void at_http_client_free(struct at_http_client *client)
{
    if (client == NULL || client->closing) {
        return;
    }
    client->closing = true;
    enter(client);
    struct at_err err;
    at_err_set(&err, AT_CANCELLED, "cancelled");
    while (client->calls != NULL) {
        at_client_complete(client->calls, AT_CANCELLED, &err);
    }
    at_mux_client_free(client);
    void *value;
    const char *key;
    for (size_t it = 0; at_map_next(client->pools, &it, &key, &value);) {
        struct client_pool *pool = value;
        pool->n_holds++;
        while (pool->conns != NULL) {
            at_client_conn_free(pool->conns);
        }
        at_h2_client_close(pool);
        pool->n_holds--;
        at_client_pool_drop_if_empty(pool);
    }
    at_loop_timer_cancel(client->loop, client->sweep_timer);
    at_loop_timer_cancel(client->loop, client->task_timer);
    leave(client);
}
